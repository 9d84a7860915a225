//! A stream that is read for requests, and whose answers go out before it is waited for.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handlers;
use super::session::Session;
use crate::compress::Level;
use crate::limits::{ANSWERS_MAX, ANSWERS_TIME_MAX, SESSION_END_MAX};
use crate::net::Stream;
use crate::net::pace::Pace;
use crate::protocol::{Reply, v2};
use crate::pump::Outbox;

/// A stream that never waits for its peer while the peer may be waiting for it.
pub(super) struct Answering {
    pub(super) stream: Stream,
    /// Time spent waiting for bytes.
    pub(super) waited: Duration,
    /// The rates that content may have: of all, and of the job's account.
    paces: Vec<Arc<Pace>>,
    /// The job that it is read for.
    session: Option<Arc<Session>>,
    answers: Vec<u8>,
    /// How content is compressed, if it is.
    level: Option<Level>,
    /// Content on its way, which goes before the answers; made with the first of it.
    outbox: Option<Outbox>,
    /// Did it break within content? What came now would be taken for a part of that.
    is_torn: bool,
    /// Frames whose answers wait, and since when the first of them does.
    waiting: usize,
    since: Option<Instant>,
}

impl Answering {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            waited: Duration::ZERO,
            paces: Vec::new(),
            session: None,
            answers: Vec::new(),
            level: None,
            outbox: None,
            is_torn: false,
            waiting: 0,
            since: None,
        }
    }

    /// From now on it is read for this job, at the rate of all, if there is one, and at its account's. Content
    /// goes out compressed at this level, if there is one.
    pub(super) fn join(&mut self, session: &Arc<Session>, pace: Option<&Arc<Pace>>, level: Option<Level>) {
        self.level = level;
        self.paces.extend(pace.into_iter().chain(&session.home.pace).cloned());
        session.note_active(Instant::now());
        session.congestion.note(self.stream.handle());
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
        if self.outbox.is_some() {
            self.put(|outbox, stream| outbox.flush(stream))?;
            self.since = None;
        } else if !self.answers.is_empty() {
            self.stream.write_all(&self.answers)?;
            self.answers.clear();
            (self.waiting, self.since) = (0, None);
        }
        Ok(())
    }

    /// Lets `put` add content, behind the answers that wait. It goes out as they do, and as soon as there
    /// is much of it.
    ///
    /// # Errors
    /// Those of `put`. After one nothing more can be said.
    pub(super) fn content<T>(&mut self, put: impl FnOnce(&mut Outbox, &mut Outgoing<'_>) -> io::Result<T>) -> io::Result<T> {
        let put = self.put(put)?;
        let _ = self.session.as_ref().and_then(|session| session.congestion.look());
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= ANSWERS_TIME_MAX {
            self.send_answers()?;
        }
        Ok(put)
    }

    fn put<T>(&mut self, put: impl FnOnce(&mut Outbox, &mut Outgoing<'_>) -> io::Result<T>) -> io::Result<T> {
        if self.is_torn {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let session = self.session.as_deref();
        let mut outgoing = Outgoing { stream: &mut self.stream, paces: &self.paces, session, over_since: None };
        let outbox = self.outbox.get_or_insert_with(|| Outbox::compressing(self.level));
        let put = outbox.put(&mut outgoing, &self.answers).and_then(|()| put(outbox, &mut outgoing));
        self.answers.clear();
        self.waiting = 0;
        self.is_torn = put.is_err();
        put
    }

    /// How many bytes may pass together, at the rates that hold.
    pub(super) fn share(&self) -> usize {
        self.paces.iter().fold(usize::MAX, |len, pace| pace.share(len))
    }

    /// Lets so many bytes pass that are not looked at, at those rates.
    ///
    /// # Errors
    /// The job is over.
    pub(super) fn pass(&self, len: usize) -> io::Result<()> {
        if let Some(session) = &self.session {
            if session.over().is_some() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            session.note_active(Instant::now());
        }
        self.paces.iter().for_each(|pace| pace.wait(len));
        Ok(())
    }

    /// Gives memory back that nothing waits in.
    pub(super) fn release(&mut self) {
        self.stream.release();
        if self.outbox.as_ref().is_some_and(|outbox| outbox.waiting_len() == 0) {
            self.outbox = None;
        }
    }
}

/// A stream as content goes out on it: at the rates that hold, and as long as its job does.
pub(super) struct Outgoing<'a> {
    stream: &'a mut Stream,
    paces: &'a [Arc<Pace>],
    session: Option<&'a Session>,
    /// Since when the job is over.
    over_since: Option<Instant>,
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What is left of some content may be said in a moment, and the reason after it.
        if self.session.is_some_and(|session| session.over().is_some())
            && self.over_since.get_or_insert_with(Instant::now).elapsed() >= SESSION_END_MAX / 2
        {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let len = self.paces.iter().fold(bytes.len(), |len, pace| pace.share(len));
        let written = self.stream.write(bytes.get(..len).unwrap_or_default())?;
        if let Some(session) = self.session {
            session.note_active(Instant::now());
        }
        self.paces.iter().for_each(|pace| pace.wait(written));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl handlers::Beating for Answering {
    fn beat(&mut self) {
        let _ = self.reply(&Reply::Heartbeat).and_then(|()| self.send_answers());
    }

    fn is_reset(&self) -> bool {
        self.stream.handle().is_reset()
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
