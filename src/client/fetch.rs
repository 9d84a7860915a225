//! One stream to a server that ranges come over: asked for ahead, taken in the order they were asked for.

use std::collections::VecDeque;
use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::live::Registered;
use super::outcome::Outcome;
use super::plan::Chunk;
use super::starting::{Starting, invalid};
use super::window::Window;
use crate::landing::{Landing, Taker};
use crate::limits::{ASKED_LEN_MAX, BUFFER_LEN, CONTENT_AHEAD_LEN_MAX, FETCH_AHEAD_BYTES, FETCHED_AT_ONCE_MAX, PATH_LEN_MAX};
use crate::net::Stream;
use crate::net::pace::Pace;
use crate::path::RemotePath;
use crate::progress::Progress;
use crate::protocol::{Payload, Put, Reply, Session, Status, v2};
use crate::pump::{Inbox, Times};
use crate::stop::Stop;
use crate::store::{Folders, Store};
use crate::subtrees::Subtrees;

/// Where what is fetched lands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site<'a> {
    /// What takes it.
    pub(super) landing: &'a Landing,
    /// The tree that that is in.
    pub(super) store: &'a Store,
    /// Is the session's own path that of the one file that is fetched?
    pub(super) is_one_file: bool,
    /// The rate at which it may come.
    pub(super) pace: Option<&'a Arc<Pace>>,
}

impl Site<'_> {
    /// What is known here of the file of a chunk that is a question what of it is missing.
    ///
    /// # Errors
    /// That of `going`, which ends it.
    pub(super) fn ask(&self, chunk: &Chunk, going: impl FnMut() -> io::Result<()>) -> Outcome {
        let mut folders = self.landing.folders();
        let taker = Taker { landing: self.landing, store: self.store, folders: &mut folders };
        let reply = taker.ask(&put_of(chunk), going);
        outcome_of(reply).unwrap_or(Outcome::Lost)
    }
}

/// A stream, and what was asked for over it and has not come yet.
#[derive(Debug)]
pub(super) struct Fetch<'a> {
    stream: Registered<'a>,
    session: &'a Session,
    site: Site<'a>,
    wants_subtrees: bool,
    progress: &'a Progress,
    stop: &'a Stop,
    /// Requests that wait to be sent.
    outbox: Vec<u8>,
    starting: Starting,
    window: Window<'a>,
    asked: VecDeque<Asked>,
    /// Bytes of requests in `asked`, and of content that they are for.
    asked_len: usize,
    awaited_bytes: u64,
    inbox: Inbox,
    folders: Folders,
}

/// A range that was asked for.
#[derive(Debug)]
struct Asked {
    chunk: Chunk,
    put: Put,
    /// Bytes of the request.
    len: usize,
}

/// The stream as the content is read from it: at a rate, and with a clock for the waiting.
struct Paced<'a> {
    stream: &'a mut Stream,
    pace: Option<&'a Arc<Pace>>,
    progress: &'a Progress,
    stop: &'a Stop,
    /// How long content was waited for.
    waited: Duration,
}

impl Read for Paced<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // Much may have come already that nobody wants any more.
        if self.stop.is_asked() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let len = self.pace.map_or(bytes.len(), |pace| pace.share(bytes.len()));
        let before = Instant::now();
        let read = self.stream.read(bytes.get_mut(..len).unwrap_or_default());
        let waited = before.elapsed();
        self.waited += waited;
        self.progress.waits.answers.add(waited);
        self.progress.wire_bytes.add(*read.as_ref().unwrap_or(&0) as u64);
        if let (Some(pace), Ok(len @ 1..)) = (self.pace, &read) {
            pace.wait(*len);
        }
        read
    }
}

impl<'a> Fetch<'a> {
    /// A connection over a new stream, on which what comes first is sent at once.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) fn start(
        stream: Registered<'a>, session: &'a Session, site: Site<'a>, wants_subtrees: bool,
        (progress, stop): (&'a Progress, &'a Stop),
    ) -> io::Result<Self> {
        let mut outbox = Vec::new();
        let starting = Starting::of(session.encode_start(&mut outbox));
        let mut fetch = Self {
            stream,
            session,
            site,
            wants_subtrees,
            progress,
            stop,
            outbox,
            starting,
            window: Window::new(true, &progress.waits.round_trip),
            asked: VecDeque::new(),
            asked_len: 0,
            awaited_bytes: 0,
            inbox: Inbox::default(),
            folders: site.landing.folders(),
        };
        fetch.flush()?;
        Ok(fetch)
    }

    /// Ranges that have not come.
    #[must_use]
    pub(super) fn unanswered(&self) -> usize {
        self.asked.len()
    }

    /// May one more be asked for? So many that the server always has the next to read, and so few that
    /// others have something to do as well.
    #[must_use]
    pub(super) fn has_room(&self) -> bool {
        let len_max = ASKED_LEN_MAX * self.window.growth() - PATH_LEN_MAX - READ_HEAD_LEN_MAX;
        self.asked.len() < self.window.frames() && self.asked_len < len_max && !self.is_ahead()
    }

    fn is_ahead(&self) -> bool {
        self.asked.len() >= 2 && self.awaited_bytes >= FETCH_AHEAD_BYTES
    }

    /// Asks for a chunk, with what else is asked for until [`Fetch::wait`].
    pub(super) fn ask(&mut self, chunk: Chunk) {
        let mut put = put_of(&chunk);
        let path = if self.site.is_one_file { &RemotePath::root() } else { &chunk.file.path };
        let before = self.outbox.len();
        let Payload::Blocks(_, binding) = self.session.encode_read(&mut self.outbox, path, &put.file, &put.range) else { return };
        put.binding = binding;
        let len = self.outbox.len() - before;
        self.asked_len += len;
        self.awaited_bytes += chunk.bytes();
        self.asked.push_back(Asked { chunk, put, len });
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.outbox.is_empty() {
            self.stream.write_all(&self.outbox)?;
            self.outbox.clear();
        }
        Ok(())
    }

    /// Sends what waits, then waits for ranges; gives their number.
    ///
    /// # Errors
    /// As [`Fetch::receive`].
    pub(super) fn wait(&mut self, report: &dyn Fn(Vec<(Chunk, Outcome)>)) -> io::Result<usize> {
        self.flush()?;
        self.receive(report)
    }

    /// Takes ranges as long as the next is here already; reports what became of each, and gives their
    /// number.
    ///
    /// # Errors
    /// Those of the stream; a close is an `UnexpectedEof`, what was not asked for is `InvalidData`, a
    /// refusal at the start `PermissionDenied`.
    fn receive(&mut self, report: &dyn Fn(Vec<(Chunk, Outcome)>)) -> io::Result<usize> {
        let mut outcomes = Vec::new();
        let taken = self.take(&mut outcomes);
        let count = outcomes.len();
        if count > 0 {
            report(outcomes);
        }
        taken.map(|()| count)
    }

    fn take(&mut self, outcomes: &mut Vec<(Chunk, Outcome)>) -> io::Result<()> {
        let mut bytes = 0;
        let is_full = !self.has_room() && !self.is_ahead();
        loop {
            let decoded = v2::reply::decode(self.inbox.bytes()).map_err(|error| invalid(&error.to_string()))?;
            let Some((reply, len)) = decoded else {
                if !outcomes.is_empty() {
                    return Ok(());
                }
                let before = Instant::now();
                let filled = self.inbox.fill(&mut *self.stream, 2 * BUFFER_LEN);
                let waited = before.elapsed();
                self.progress.waits.answers.add(waited);
                self.progress.wire_bytes.add(*filled.as_ref().unwrap_or(&0) as u64);
                self.window.note_answer();
                self.note_waited(is_full, waited);
                match filled {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    filled => filled.map(drop)?,
                }
                continue;
            };
            self.inbox.consume(len);
            let Some(reply) = self.starting.take(reply)? else { continue };
            match reply {
                Reply::Content => {
                    let asked = self.asked.front_mut().ok_or_else(|| invalid("content that was not asked for"))?;
                    bytes += asked.chunk.bytes();
                    let mut subtrees = self.wants_subtrees.then(|| Subtrees::new(asked.put.file.identity.size));
                    let (pace, progress, stop) = (self.site.pace, self.progress, self.stop);
                    let mut stream = Paced { stream: &mut self.stream, pace, progress, stop, waited: Duration::ZERO };
                    let (landing, store) = (self.site.landing, self.site.store);
                    let taker = Taker { landing, store, folders: &mut self.folders };
                    let mut times = Times::default();
                    let reply =
                        taker.take(&mut self.inbox, &mut stream, &asked.put, &mut times, |_| Ok(()), subtrees.as_mut())?;
                    let waited = stream.waited;
                    self.progress.waits.verifying.add(times.digest);
                    self.progress.waits.writing.add(times.file);
                    let outcome = outcome_of(reply).ok_or_else(|| invalid("an answer to nothing that was asked"))?;
                    asked.chunk.subtrees = subtrees.map(|subtrees| subtrees.iter().collect()).unwrap_or_default();
                    self.settle(outcome, outcomes);
                    self.note_waited(is_full, waited);
                }
                Reply::Answer(answer) => {
                    if !matches!(answer.status, Status::Refused | Status::Voided) {
                        return Err(invalid("an answer that is none to a read"));
                    }
                    if let Some(Asked { put, .. }) = self.asked.front() {
                        self.site.landing.give_up(&put.path, &put.file.identity);
                    }
                    self.settle(Outcome::of(answer), outcomes);
                }
                _ => return Err(invalid("a reply out of turn")),
            }
            if outcomes.len() >= FETCHED_AT_ONCE_MAX || bytes >= FETCH_AHEAD_BYTES {
                return Ok(());
            }
        }
    }

    /// Content was waited for, perhaps with all asked for that may be.
    fn note_waited(&mut self, is_full: bool, waited: Duration) {
        // Requests that don't all fit in a socket: what the server writes meanwhile must be taken in.
        if is_full && self.window.note_full(waited) {
            self.stream.read_ahead(CONTENT_AHEAD_LEN_MAX);
        }
    }

    fn settle(&mut self, outcome: Outcome, outcomes: &mut Vec<(Chunk, Outcome)>) {
        if let Some(asked) = self.asked.pop_front() {
            self.asked_len -= asked.len;
            self.awaited_bytes -= asked.chunk.bytes();
            outcomes.push((asked.chunk, outcome));
        }
    }

    /// Ends a connection at once; gives back what has not come, oldest first.
    #[must_use]
    pub(super) fn reset(self) -> Vec<Chunk> {
        self.stream.handle().reset();
        self.asked.into_iter().map(|asked| asked.chunk).collect()
    }

    /// Gives back what has not come over a connection that broke.
    #[must_use]
    pub(super) fn give_up(self) -> Vec<Chunk> {
        self.asked.into_iter().map(|asked| asked.chunk).collect()
    }
}

/// Bytes of a read beside its path.
const READ_HEAD_LEN_MAX: usize = 128;

/// The range of a chunk as whoever takes it knows it.
fn put_of(chunk: &Chunk) -> Put {
    Put {
        path: chunk.file.path.clone(),
        file: chunk.file.meta.clone(),
        range: chunk.range.clone(),
        binding: crate::digest::Binding::default(),
    }
}

/// What whoever takes ranges here says of one; none where that is no answer to a range.
fn outcome_of(reply: Reply) -> Option<Outcome> {
    match reply {
        Reply::Wanted(wanted) => Some(Outcome::Wanted(wanted)),
        Reply::Answer(answer) => Some(Outcome::of(answer)),
        _ => None,
    }
}
