//! A stream that is read for requests, and whose answers go out before it is waited for.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handlers;
use super::session::Session;
use crate::limits::{ANSWERS_MAX, ANSWERS_TIME_MAX};
use crate::net::Stream;
use crate::net::pace::Pace;
use crate::protocol::{Reply, v2};

/// A stream that never waits for its peer while the peer may be waiting for it.
pub(super) struct Answering {
    pub(super) stream: Stream,
    /// Time spent waiting for bytes.
    pub(super) waited: Duration,
    /// The rates that what is read may have: of all, and of the job's account.
    paces: Vec<Arc<Pace>>,
    /// The job that it is read for.
    session: Option<Arc<Session>>,
    answers: Vec<u8>,
    /// Frames whose answers wait, and since when the first of them does.
    waiting: usize,
    since: Option<Instant>,
}

impl Answering {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, waited: Duration::ZERO, paces: Vec::new(), session: None, answers: Vec::new(), waiting: 0, since: None }
    }

    /// From now on it is read for this job, at the rate of all, if there is one, and at its account's.
    pub(super) fn join(&mut self, session: &Arc<Session>, pace: Option<&Arc<Pace>>) {
        self.paces.extend(pace.into_iter().chain(&session.home.pace).cloned());
        session.note_active(Instant::now());
        self.session = Some(Arc::clone(session));
    }

    /// Adds a reply, as [`Answering::answer`].
    pub(super) fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        let mut bytes = Vec::new();
        v2::reply::encode(&mut bytes, reply);
        self.answer(&bytes)
    }

    /// Adds to the answers that go out before the next read, or when enough wait or long enough:
    /// what was read at once may be work for minutes on a slow disk.
    pub(super) fn answer(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answers.extend_from_slice(bytes);
        self.waiting += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.waiting >= ANSWERS_MAX || since.elapsed() >= ANSWERS_TIME_MAX { self.send_answers() } else { Ok(()) }
    }

    pub(super) fn send_answers(&mut self) -> io::Result<()> {
        if !self.answers.is_empty() {
            self.stream.write_all(&self.answers)?;
            self.answers.clear();
            (self.waiting, self.since) = (0, None);
        }
        Ok(())
    }
}

impl handlers::Beating for Answering {
    fn beat(&mut self) {
        let _ = self.reply(&Reply::Heartbeat).and_then(|()| self.send_answers());
    }
}

impl io::Read for Answering {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.send_answers()?;
        // A frame may be as long as a file.
        if self.session.as_ref().is_some_and(|session| session.over().is_some()) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let before = Instant::now();
        let len = self.paces.iter().fold(bytes.len(), |len, pace| pace.share(len));
        let read = self.stream.read(bytes.get_mut(..len).unwrap_or_default());
        let now = Instant::now();
        self.waited += now.duration_since(before);
        if let Ok(len @ 1..) = read {
            if let Some(session) = &self.session {
                session.note_active(now);
            }
            self.paces.iter().for_each(|pace| pace.wait(len));
        }
        read
    }
}
