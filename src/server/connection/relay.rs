//! A connection that is passed on to another receiver, one of those that this one may pass on to.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Connection, STOPPING};
use crate::limits::DIAL_TIMEOUT;
use crate::net::dial::Dialer;
use crate::net::host::HostPort;
use crate::net::relay;
use crate::path::Escaped;
use crate::protocol::{Answer, BUSY, Open, Purpose, Reply, Status};
use crate::server::handlers::Ending;
use crate::server::rights_of;
use crate::server::session::Session;

impl Connection<'_> {
    /// Why a job is not opened where nothing is passed on, or nothing else is done, if it is not.
    pub(super) fn refusal_to_relay(&self, open: &Open) -> Option<String> {
        let config = self.shared.config;
        match open.purpose {
            Purpose::Relay if config.relay_to.is_empty() => {
                Some("this receiver passes nothing on: it was started without --relay_to".to_owned())
            }
            Purpose::Relay => None,
            Purpose::Bring | Purpose::Browse => config.relays_only.then(|| rights_of::ONLY_RELAYS.to_owned()),
        }
    }

    /// Connects to `to`, says so, ends TLS in order, and passes on what comes from either end until both have ended.
    pub(super) fn relay(&mut self, to: &str) -> Result<(), Ending> {
        let session = self.session()?;
        let shown = Escaped(to.as_bytes()).to_string();
        if session.open.purpose != Purpose::Relay {
            return Err(Ending::refused("a connection is passed on for a job that was opened for that"));
        }
        if !self.stream.stream.is_encrypted() || !self.inbox.bytes().is_empty() {
            return Err(Ending::refused("a connection is passed on that is encrypted, and after that was granted"));
        }
        let target = HostPort::parse(to, None).map_err(Ending::refused)?;
        if !self.shared.config.relay_to.iter().any(|allowed| allowed.covers(&target)) {
            let why = format!("nothing is passed on to '{shown}' here: start this receiver with --relay_to {shown}");
            self.audit.refused_relay(&shown, &why);
            return Err(Ending::refused(why));
        }
        let server = self.reach(&target, &session).map_err(|error| {
            let why = match self.shared.closing.is_asked() {
                true => STOPPING.to_owned(),
                false => format!("{BUSY}can't reach {shown}: {error:#}"),
            };
            self.audit.refused_relay(&shown, &why);
            Ending::refused(why)
        })?;
        self.shared.sessions.pass_on(&session).map_err(|why| {
            self.audit.refused_relay(&shown, &why);
            Ending::refused(why)
        })?;
        let broken = |error: &io::Error| Ending::broken(format!("a connection to {shown}"), error);
        let granted = self.stream.reply(&Reply::Answer(Answer::of(Status::Stored)));
        granted.and_then(|()| self.stream.send_answers()).map_err(|error| broken(&error))?;
        // From here on what goes over it is not ours to speak.
        self.dialect = None;
        let first = self.stream.stream.end_tls(Instant::now() + DIAL_TIMEOUT, self.shared.closing);
        let first = first.map_err(|error| broken(&io::Error::other(error)))?;
        tracing::debug!("{}: passed on to {shown}", self.peer);
        self.audit.relayed(&shown);
        let (stream, counts, metrics) = (&self.stream, &session.landing.counts, self.shared.metrics);
        let (slot, mut bytes) = (self.slot, 0);
        let mut pass = |len| {
            if slot.is_cut() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            bytes += len as u64;
            // It may be bytes for either side, and either may be far.
            let _ = (session.congestion.look(), session.congestion_beyond.look());
            metrics.relayed_bytes.add(len as u64);
            counts.bytes.add(len as u64);
            stream.pass(len)
        };
        let how = (stream.share(), self.shared.config.stall);
        let joined = relay::join(stream.stream.handle(), server.handle(), first, how, &mut pass);
        tracing::debug!("{}: {bytes} bytes were passed on, to {shown} and back", self.peer);
        self.audit.relay_ended(&shown, bytes);
        match joined {
            Err(error) if slot.is_cut() => Err(broken(&error)),
            // How they end it is for its ends to say: a client resets what it needs no more.
            Err(error) => {
                tracing::debug!("{}: passed on to {shown} until an end broke: {error}", self.peer);
                Err(Ending::Closed)
            }
            Ok(()) => Err(Ending::Closed),
        }
    }

    /// A job that had connections passed on before this receiver was asked to stop may have more until that ends.
    fn reach(&self, target: &HostPort, session: &Session) -> anyhow::Result<crate::net::Stream> {
        let dialer = Dialer::to_host(target.host(), target.port(), None, self.shared.config.stall, Duration::ZERO)?;
        Ok(dialer.with_congestion(Some(Arc::clone(&session.congestion_beyond))).dial(self.shared.closing)?)
    }
}
