//! A receiver behind a relay, which is asked for its addresses in turn.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{DialError, Dialer, HostPort, Stream, Via, note_failure};
use crate::limits::{DIAL_TIMEOUT, UNSENT_LEN_MAX};
use crate::stop::Stop;

/// How asking for one address went: by an inner error another one may do, by an outer one none.
type Asked = Result<Result<Stream, DialError>, DialError>;

impl Dialer {
    /// Asks for one address after another, the one that was reached last first, until the relay reaches one.
    ///
    /// # Errors
    /// The first address's reason, or that of one that may be reached another time; the relay's own at once.
    pub(super) fn dial_beyond(&self, hosts: &[HostPort], via: &Via, stop: &Stop) -> Result<Stream, DialError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failed: Option<DialError> = None;
        for index in (0..hosts.len()).map(|step| (first + step) % hosts.len()) {
            match self.ask_for(&hosts[index], via, stop)? {
                Ok(stream) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => {
                    tracing::debug!("no connection to {}: {error}", hosts[index]);
                    note_failure(&mut failed, error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| via.failed(true, "the receiver has no address".into())))
    }

    /// A relay is spoken to in its own TLS. When it passes the stream on that has ended: the receiver's own is all
    /// that protects what follows, and nothing is encrypted twice.
    fn ask_for(&self, host: &HostPort, via: &Via, stop: &Stop) -> Asked {
        let stream = match via.relay.dial(stop) {
            Err(DialError::Stopped) => return Err(DialError::Stopped),
            Err(error @ DialError::Relay { .. }) => return Err(error),
            dialled => dialled.map_err(|error| via.failed(error.is_refusal(), error.into()))?,
        };
        let asked = (via.ask)(&via.relay, stream, host, stop);
        if stop.is_asked() {
            return Err(DialError::Stopped);
        }
        let mut stream = match asked {
            Ok(stream) => stream,
            // A login that is wrong is shown once.
            Err(not) if !not.is_of_host => return Err(via.failed(not.is_final, not.into())),
            Err(not) => return Ok(Err(via.failed(not.is_final, not.into()))),
        };
        let rest = stream.end_tls(Instant::now() + DIAL_TIMEOUT, stop).map_err(|error| via.failed(false, error.into()))?;
        if !rest.is_empty() {
            return Err(via.failed(false, "it speaks before the receiver does".into()));
        }
        // However near the relay is, the receiver may be far.
        let _ = stream.handle().socket().set_tcp_notsent_lowat(UNSENT_LEN_MAX);
        match self.encrypt(stream, stop, || host.to_string()) {
            Ok(stream) => Ok(Ok(stream)),
            Err(DialError::Stopped) => Err(DialError::Stopped),
            Err(DialError::Foreign { address, why }) => {
                Ok(Err(via.failed(false, format!("{address} does not speak TLS behind it ({why})").into())))
            }
            // The key of whoever answers behind a relay says nothing of the receiver's on other routes. On this one
            // nobody else is asked until someone says yes.
            Err(error) if error.is_refusal() => Err(via.failed(true, error.into())),
            Err(error) => Ok(Err(via.failed(false, error.into()))),
        }
    }
}

impl Via {
    fn failed(&self, is_final: bool, source: Box<dyn std::error::Error + Send + Sync>) -> DialError {
        DialError::Relay { relay: self.name.clone(), is_final, source }
    }
}
