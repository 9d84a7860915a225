//! A conversation with a receiver, in whole requests and replies: how it begins, and how replies are read.

use std::io;
use std::time::Instant;

use super::Refused;
use super::live::Registered;
use super::login::Login;
use super::starting::Starting;
use super::trouble::Trouble;
use crate::compress::Level;
use crate::limits::{DIAL_TIMEOUT, FRAME_LEN_MAX, OPEN_TIMEOUT};
use crate::net::dial::Dialer;
use crate::net::tls::Client;
use crate::protocol::{Features, Open, Purpose, Reply, Session, v2};
use crate::pump::{Inbox, Outbox};

/// A stream, what waits to be sent over it, and what came.
#[derive(Debug)]
pub(super) struct Talk<'a> {
    pub(super) stream: Registered<'a>,
    pub(super) inbox: Inbox,
    outbox: Outbox,
}

/// What a receiver says of a session that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    /// Was the folder not there before?
    pub(super) is_new: bool,
    /// Was the session open already?
    pub(super) is_known: bool,
    /// The folder's path at the receiver, in full.
    pub(super) landed: Vec<u8>,
    /// How content travels compressed, if it does.
    pub(super) level: Option<Level>,
}

impl<'a> Talk<'a> {
    /// A conversation in which nothing was said yet.
    #[must_use]
    pub(super) fn over(stream: Registered<'a>) -> Self {
        Self { stream, inbox: Inbox::default(), outbox: Outbox::default() }
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub(super) fn waiting_len(&self) -> usize {
        self.outbox.waiting_len()
    }

    /// Adds requests to what waits to be sent.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.outbox.put(&mut *self.stream, bytes)
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.outbox.flush(&mut *self.stream)
    }

    /// Opens a session, or joins one that is open already with the same token, as one who can do so much: without
    /// zstd, content travels as it is, whatever the receiver asks for.
    ///
    /// # Errors
    /// [`Refused`]; no answer of the kind that such a receiver gives; those of the stream.
    pub(super) fn open(&mut self, dialer: &Dialer, login: &Login, open: &Open, features: Features) -> Result<Opened, Trouble> {
        let bytes = opening(dialer, login, open, features).map_err(Trouble::Fatal)?;
        self.stream.handle().limit_waits(DIAL_TIMEOUT)?;
        self.say(&bytes)?;
        self.flush()?;
        let (deadline, mut level) = (Instant::now() + OPEN_TIMEOUT, None);
        let opened = loop {
            if Instant::now() >= deadline {
                return Err(Trouble::Broken(io::ErrorKind::TimedOut.into()));
            }
            match self.next_reply(dialer) {
                Ok(Reply::Welcome { version, features: both }) if v2::VERSIONS.contains(&version) => {
                    level = both.level(open.compression).filter(|_| features.has(Features::ZSTD));
                }
                Ok(Reply::Heartbeat) => {}
                Ok(Reply::Opened { is_new, is_known, landed }) => break Opened { is_new, is_known, landed, level },
                Ok(Reply::Refused(why)) => return Err(Trouble::Fatal(Refused(why).into())),
                Ok(_) => return Err(Trouble::Fatal(foreign(dialer, open.purpose == Purpose::Browse, None))),
                Err(Trouble::Fatal(error)) => {
                    return Err(Trouble::Fatal(foreign(dialer, open.purpose == Purpose::Browse, Some(error))));
                }
                Err(Trouble::Broken(error)) => return Err(Trouble::Broken(error)),
            }
        };
        if open.compression.is_some() && opened.level.is_none() {
            tracing::warn!("{dialer} knows no compression, or declines it: content travels as it is");
        }
        self.stream.handle().limit_waits(dialer.stall())?;
        Ok(opened)
    }

    /// Joins a session that is open.
    ///
    /// # Errors
    /// As [`Talk::open`].
    pub(super) fn join(&mut self, dialer: &Dialer, session: &Session) -> Result<(), Trouble> {
        let mut bytes = Vec::new();
        let mut starting = Starting::of(session.encode_start(&mut bytes));
        self.say(&bytes)?;
        self.flush()?;
        while !starting.is_over() {
            match self.next_reply(dialer)? {
                Reply::Refused(why) => return Err(Trouble::Fatal(Refused(why).into())),
                reply => _ = starting.take(reply).map_err(|_| out_of_turn(dialer))?,
            }
        }
        Ok(())
    }

    /// The next reply, waited for.
    ///
    /// # Errors
    /// Those of the stream; what is no reply.
    pub(super) fn next_reply(&mut self, dialer: &Dialer) -> Result<Reply, Trouble> {
        loop {
            if let Some(reply) = self.decode_reply(dialer)? {
                return Ok(reply);
            }
            match self.inbox.fill(&mut *self.stream, 2 * FRAME_LEN_MAX) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                filled => filled.map(drop)?,
            }
        }
    }

    /// The next reply, if it is here.
    ///
    /// # Errors
    /// What is no reply.
    pub(super) fn decode_reply(&mut self, dialer: &Dialer) -> Result<Option<Reply>, Trouble> {
        let nonsense = |error| Trouble::Fatal(anyhow::anyhow!("{dialer} answers nonsense: {error}"));
        Ok(v2::reply::decode(self.inbox.bytes()).map_err(nonsense)?.map(|(reply, len)| {
            self.inbox.consume(len);
            reply
        }))
    }

    /// Takes in what is here, without waiting; false where nothing is.
    ///
    /// # Errors
    /// Those of the stream, its end included.
    pub(super) fn take_in(&mut self) -> io::Result<bool> {
        let mut bytes = [0; TAKE_LEN];
        match self.stream.read_available(&mut bytes)? {
            None => Ok(false),
            Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(len) => self.inbox.fill(&mut &bytes[..len], 2 * FRAME_LEN_MAX).map(|_| true),
        }
    }
}

/// What a connection that opens a session begins with: a greeting, and the request with what `login` shows.
///
/// # Errors
/// What is shown is for encrypted connections only.
pub(super) fn opening(dialer: &Dialer, login: &Login, open: &Open, features: Features) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    v2::encode_greeting(&mut bytes, features);
    let host_key = dialer.tls().and_then(Client::seen).map(|seen| seen.fingerprint);
    let credential = login.credential(host_key, &open.token)?;
    v2::request::encode_open(&mut bytes, &Open { credential, ..open.clone() });
    Ok(bytes)
}

/// Bytes of replies that are taken in at once.
const TAKE_LEN: usize = 16 * 1024;

/// The error of a receiver that is none of this program.
pub(super) fn foreign(dialer: &Dialer, is_browsing: bool, error: Option<anyhow::Error>) -> anyhow::Error {
    let mut advice = format!("{dialer} does not answer as a receiver of this program does");
    if !is_browsing {
        advice.push_str("; if it is one of Parallel-transfer-file, use --protocol v1");
    }
    match error {
        Some(error) => error.context(advice),
        None => anyhow::anyhow!(advice),
    }
}

/// The error of a receiver that answers something that was not asked.
pub(super) fn out_of_turn(dialer: &Dialer) -> Trouble {
    Trouble::Fatal(anyhow::anyhow!("{dialer} answers out of turn"))
}
