//! Asks relays to pass connections on.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::login::Login;
use super::new_token;
use super::talk::opening;
use crate::limits::{DIAL_TIMEOUT, FRAME_LEN_MAX, OPEN_TIMEOUT};
use crate::net::Stream;
use crate::net::dial::{Dialer, NotRelayed};
use crate::net::host::HostPort;
use crate::net::tls::Client;
use crate::protocol::{Answer, BUSY, Features, Open, Purpose, Reply, Status, v2};
use crate::pump::Inbox;
use crate::stop::Stop;

/// A dialer to a receiver that `relay` may know by any of `hosts`, the first one first, through that relay, which a
/// person calls `name`, and to which `login` is shown.
///
/// # Errors
/// The system has no randomness to give.
pub fn through(hosts: Vec<HostPort>, name: String, relay: Dialer, login: Login) -> io::Result<Dialer> {
    // All connections of this run are of one session there, which its limits count.
    let open = Open::plain(new_token()?, Purpose::Relay);
    let (shown, is_told) = (name.clone(), AtomicBool::new(false));
    let ask = move |relay: &Dialer, mut stream: Stream, to: &HostPort, stop: &Stop| {
        if let Some(seen) = relay.tls().and_then(Client::seen).filter(|seen| seen.is_new)
            && !is_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("new relay {shown}: its key {} is accepted and kept", seen.fingerprint);
        }
        ask(relay, &mut stream, (&login, &open), to, stop).map(|()| stream)
    };
    Ok(Dialer::beyond(hosts, name, relay, Box::new(ask)))
}

/// Logs in, or shows that that was done, and asks for the stream to be passed on to `to`, all at once.
fn ask(
    relay: &Dialer, stream: &mut Stream, (login, open): (&Login, &Open), to: &HostPort, stop: &Stop,
) -> Result<(), NotRelayed> {
    let unable = |error| NotRelayed { why: format!("{error:#}"), is_final: true, is_of_host: false };
    let mut bytes = opening(relay, login, open, Features::OURS).map_err(unable)?;
    v2::request::encode_relay(&mut bytes, &to.to_string());
    let asked = stream.handle().limit_waits(DIAL_TIMEOUT).and_then(|()| stream.write_all(&bytes));
    asked.map_err(|error| broken(&error))?;
    let (mut inbox, mut count, deadline) = (Inbox::default(), 0, Instant::now() + OPEN_TIMEOUT);
    let mut next = || loop {
        if let Some((reply, len)) = v2::reply::decode(inbox.bytes()).map_err(|_| foreign())? {
            inbox.consume(len);
            match reply {
                Reply::Heartbeat => continue,
                Reply::Refused(why) => {
                    // Who was let in, behind Welcome and Opened, hears of whom it asks for.
                    return Err(NotRelayed { is_final: !why.starts_with(BUSY), is_of_host: count == 2, why });
                }
                reply => {
                    count += 1;
                    return Ok((reply, inbox.bytes().is_empty()));
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if stop.is_asked() || left.is_zero() {
            return Err(broken(&io::ErrorKind::TimedOut.into()));
        }
        take_in(stream, &mut inbox, left, stop).map_err(|error| broken(&error))?;
    };
    let (welcome, opened, granted) = (next()?, next()?, next()?);
    match (welcome, opened, granted) {
        (
            (Reply::Welcome { version, .. }, _),
            (Reply::Opened { .. }, _),
            (Reply::Answer(Answer { status: Status::Stored, .. }), true),
        ) if v2::VERSIONS.contains(&version) => {}
        _ => return Err(foreign()),
    }
    stream.handle().limit_waits(relay.stall()).map_err(|error| broken(&error))
}

/// Waits for something, and takes it in.
fn take_in(stream: &mut Stream, inbox: &mut Inbox, left: Duration, stop: &Stop) -> io::Result<()> {
    let mut bytes = [0; 4096];
    match stream.read_available(&mut bytes)? {
        None => stream.handle().wait_readable_for(left, stop),
        Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Some(len) => {
            let mut came = &bytes[..len];
            while !came.is_empty() {
                if inbox.fill(&mut came, 2 * FRAME_LEN_MAX)? == 0 {
                    return Err(io::Error::other("it says too much"));
                }
            }
        }
    }
    Ok(())
}

fn broken(error: &io::Error) -> NotRelayed {
    let why = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it closed the connection without an answer".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "it did not answer in time".to_owned(),
        _ => format!("the connection to it broke: {error}"),
    };
    NotRelayed { why, is_final: false, is_of_host: false }
}

fn foreign() -> NotRelayed {
    let why = "it does not answer as a receiver of this program does".to_owned();
    NotRelayed { why, is_final: false, is_of_host: false }
}
