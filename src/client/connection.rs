//! One stream to a receiver that ranges are sent over: ahead of their answers, which come in order.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::ops::Range;
use std::time::Instant;

use super::live::Registered;
use super::outcome::{Outcome, Wait};
use super::plan::Chunk;
use super::starting::{Starting, invalid};
use super::window::Window;
use crate::digest::Digest;
use crate::entry::FileMeta;
use crate::limits::{DIAL_TIMEOUT, READ_LEN_MIN, REPLIES_AHEAD_LEN_MAX, SLOW_BYTES_MIN, SOCKET_BUFFER_LEN_MAX};
use crate::net::Stream;
use crate::path::RemotePath;
use crate::progress::Progress;
use crate::protocol::{Answer, Payload, Reply, Session, Status};
use crate::pump::{self, Outbox, PumpError, Reading, Run, Times};
use crate::store::identify;
use crate::subtrees::Subtrees;

/// A stream and what was sent over it without an answer yet.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    stream: Registered<'a>,
    session: &'a Session,
    wants_subtrees: bool,
    progress: &'a Progress,
    /// Bytes that went out and were counted.
    counted_bytes: u64,
    outbox: Outbox,
    header: Vec<u8>,
    starting: Starting,
    unanswered: VecDeque<Unanswered>,
    window: Window<'a>,
    /// Bytes of answers that were not taken yet.
    answer: Vec<u8>,
    /// Bytes that were written when answers were last looked for.
    looked_at: u64,
}

/// A range that was sent.
#[derive(Debug)]
struct Unanswered {
    chunk: Chunk,
    /// The MD5 of what travelled plain.
    digest: Digest,
    /// Why it was voided.
    void: Option<Outcome>,
}

/// How sending a chunk went.
#[derive(Debug)]
pub(super) enum Sent {
    /// It is on its way; the answer will come.
    Away,
    /// The source failed, nothing of it is on its way: the chunk, and why.
    Kept(Chunk, String),
    /// The source failed after a part of it was sent. Nothing more can be sent on this connection.
    Spoiled(Chunk, String),
    /// The stream failed. The chunk counts as sent.
    Broken(io::Error),
}

const NO_DIGEST: Digest = Digest([0; 16]);

impl<'a> Connection<'a> {
    /// A connection over a new stream, on which what comes first is sent at once: the receiver waits
    /// for that with less patience than for anything later.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) fn start(
        mut stream: Registered<'a>, session: &'a Session, wants_subtrees: bool, progress: &'a Progress,
    ) -> io::Result<Self> {
        let (mut header, mut outbox) = (Vec::new(), Outbox::compressing(session.level()));
        let starting = Starting::of(session.encode_start(&mut header));
        outbox.put(&mut *stream, &header)?;
        outbox.flush(&mut *stream)?;
        Ok(Self {
            stream,
            session,
            wants_subtrees,
            progress,
            counted_bytes: 0,
            outbox,
            header,
            starting,
            unanswered: VecDeque::new(),
            window: Window::new(!starting.is_over(), &progress.waits.round_trip),
            answer: Vec::new(),
            looked_at: 0,
        })
    }

    /// Ranges without an answer.
    #[must_use]
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Is there room for one more?
    #[must_use]
    pub(super) fn has_room(&self) -> bool {
        self.unanswered.len() < self.window.frames()
    }

    /// Sends a chunk of `file`. What is small may wait for its neighbours until
    /// [`Connection::wait`].
    pub(super) fn send(&mut self, mut chunk: Chunk, file: &File) -> Sent {
        self.header.clear();
        let payload = self.session.encode_range(&mut self.header, &chunk.file.path, &chunk.file.meta, &chunk.range);
        let sent = match payload {
            Payload::Plain => return self.send_plain(chunk, file),
            Payload::Blocks(checksum, binding) => {
                let meta = &chunk.file.meta;
                let (range, size, is_sparse) = (chunk.range.clone(), meta.identity.size, meta.is_sparse);
                self.send_blocks(&mut chunk, file, &Run { range, size, is_sparse, checksum, binding })
            }
        };
        self.note_writing();
        let (void, sent) = match sent {
            Ok(void) => (void, Sent::Away),
            Err(error) => (None, Sent::Broken(error)),
        };
        self.unanswered.push_back(Unanswered { chunk, digest: NO_DIGEST, void });
        sent
    }

    /// Sends a chunk in blocks; says why it does not count, if it does not.
    fn send_blocks(&mut self, chunk: &mut Chunk, file: &File, run: &Run) -> io::Result<Option<Outcome>> {
        let mut times = Times::default();
        let mut subtrees = self.wants_subtrees.then(|| Subtrees::new(run.size));
        self.outbox.put(&mut *self.stream, &self.header)?;
        let read = pump::file_to_blocks(file, run, &mut self.outbox, &mut *self.stream, &mut times, subtrees.as_mut());
        self.progress.waits.reading.add(times.file);
        self.progress.waits.digesting.add(times.digest);
        let void = match read? {
            Reading::Failed(error) => Some(Outcome::SourceFailed(unreadable(&error))),
            Reading::Short => Some(Outcome::Changed),
            Reading::Whole => match is_same(file, chunk) {
                Ok(true) => None,
                Ok(false) => Some(Outcome::Changed),
                Err(error) => Some(Outcome::SourceFailed(unreadable(&error))),
            },
        };
        pump::end_blocks(&mut self.outbox, &mut *self.stream, void.is_none())?;
        chunk.subtrees = subtrees.filter(|_| void.is_none()).map(|subtrees| subtrees.iter().collect()).unwrap_or_default();
        Ok(void)
    }

    fn send_plain(&mut self, chunk: Chunk, file: &File) -> Sent {
        let stream = &mut *self.stream;
        let unanswered = |chunk, digest| Unanswered { chunk, digest, void: None };
        let first_len = self.header.len() + usize::try_from(chunk.bytes()).unwrap_or(usize::MAX).min(READ_LEN_MIN);
        if let Err(error) = self.outbox.make_room(stream, first_len) {
            self.unanswered.push_back(unanswered(chunk, NO_DIGEST));
            return Sent::Broken(error);
        }
        let position = self.outbox.position();
        let pumped = self
            .outbox
            .put(stream, &self.header)
            .map_err(PumpError::Stream)
            .and_then(|()| pump::file_to_stream(file, chunk.range.start, chunk.bytes(), &mut self.outbox, stream));
        let reason = match pumped {
            Ok(digest) => match is_same(file, &chunk) {
                Ok(true) => {
                    self.unanswered.push_back(unanswered(chunk, digest));
                    return Sent::Away;
                }
                Ok(false) => "changed while it was sent".to_owned(),
                Err(error) => unreadable(&error),
            },
            Err(PumpError::File(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "became shorter while it was sent".to_owned()
            }
            Err(PumpError::File(error)) => unreadable(&error),
            Err(PumpError::Stream(error)) => {
                self.unanswered.push_back(unanswered(chunk, NO_DIGEST));
                return Sent::Broken(error);
            }
        };
        if self.outbox.take_back(position) { Sent::Kept(chunk, reason) } else { Sent::Spoiled(chunk, reason) }
    }

    /// Writes out what waits for neighbours, then waits for answers; gives their number.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub(super) fn wait(&mut self, report: &dyn Fn(Vec<(Chunk, Outcome)>)) -> io::Result<usize> {
        self.outbox.flush(&mut *self.stream)?;
        self.note_writing();
        let (is_full, before) = (!self.has_room(), Instant::now());
        let received = self.receive(Wait::Yes, report);
        let waited = before.elapsed();
        self.progress.waits.answers.add(waited);
        // Its answers don't all fit in a socket: from now on they must be taken in while this side writes.
        if is_full && self.window.note_full(waited) {
            self.stream.read_ahead(REPLIES_AHEAD_LEN_MAX);
        }
        received
    }

    fn note_writing(&mut self) {
        let (working, waiting) = self.outbox.take_writing_times();
        self.progress.waits.sending.add(working);
        self.progress.waits.blocked.add(waiting);
        let flushed = self.outbox.flushed_bytes();
        self.progress.wire_bytes.add(flushed - std::mem::replace(&mut self.counted_bytes, flushed));
    }

    /// Is it time to look for answers, because more was written since the last look?
    #[must_use]
    pub(super) fn may_have_answers(&self) -> bool {
        self.outbox.flushed_bytes() > self.looked_at
    }

    /// Takes in the answers that are here, or waits for some; reports what became of each range, and
    /// gives their number.
    ///
    /// # Errors
    /// Those of the stream; a close is an `UnexpectedEof`, an answer to nothing is `InvalidData`, a
    /// refusal at the start `PermissionDenied`.
    pub(super) fn receive(&mut self, wait: Wait, report: &dyn Fn(Vec<(Chunk, Outcome)>)) -> io::Result<usize> {
        self.looked_at = self.outbox.flushed_bytes();
        let mut bytes = [0; ANSWERS_LEN];
        let len = if wait == Wait::Yes {
            self.read_patiently(&mut bytes)?
        } else {
            match self.stream.read_available(&mut bytes)? {
                Some(len) => len,
                None => return Ok(0),
            }
        };
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.window.note_answer();
        self.answer.extend_from_slice(&bytes[..len]);
        let mut outcomes = Vec::new();
        let taken = self.take_answers(&mut outcomes);
        let answered = outcomes.len();
        if !outcomes.is_empty() {
            report(outcomes);
        }
        taken.map(|()| answered)
    }

    /// Takes all whole answers; what they say is in `outcomes` even on an error.
    fn take_answers(&mut self, outcomes: &mut Vec<(Chunk, Outcome)>) -> io::Result<()> {
        let mut at = 0;
        loop {
            let digest = self.unanswered.front().map_or(NO_DIGEST, |unanswered| unanswered.digest);
            let decoded = self.session.decode_reply(&self.answer[at..], &digest).map_err(|error| invalid(&error.to_string()))?;
            let Some((reply, len)) = decoded else { break };
            at += len;
            let Some(reply) = self.starting.take(reply)? else { continue };
            let unasked = || invalid("an answer to nothing that was asked");
            match reply {
                Reply::Answer(answer) => outcomes.push(outcome_of(self.unanswered.pop_front().ok_or_else(unasked)?, answer)),
                Reply::Wanted(wanted) => match self.unanswered.pop_front() {
                    Some(Unanswered { chunk, .. }) if chunk.range.is_empty() => outcomes.push((chunk, Outcome::Wanted(wanted))),
                    _ => return Err(unasked()),
                },
                _ => return Err(invalid("a reply out of turn")),
            }
        }
        self.answer.drain(..at);
        Ok(())
    }

    /// Reads, and waits longer than for one stall where much was sent: it may still be on its way.
    fn read_patiently(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let sent: u64 = self.unanswered.iter().map(|unanswered| unanswered.chunk.bytes()).sum();
        let mut stalls_left = sent.min(SOCKET_BUFFER_LEN_MAX) / SLOW_BYTES_MIN;
        loop {
            match self.stream.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && stalls_left > 0 => stalls_left -= 1,
                read => return read,
            }
        }
    }

    /// Ends a connection that can't be written to any more: takes in what answers still come, then
    /// gives back what has none, oldest first.
    #[must_use]
    pub(super) fn abandon(mut self, report: &dyn Fn(Vec<(Chunk, Outcome)>)) -> Vec<Chunk> {
        self.stream.handle().shutdown(Shutdown::Write);
        while !self.unanswered.is_empty() && self.receive(Wait::Yes, report).is_ok() {}
        self.unanswered.into_iter().map(|unanswered| unanswered.chunk).collect()
    }

    /// Ends a connection at once, with all that is on its way; gives back what has no answer.
    #[must_use]
    pub(super) fn reset(self) -> Vec<Chunk> {
        // What waits in the socket's buffer may take minutes, and a receiver would take it in.
        self.stream.handle().reset();
        self.unanswered.into_iter().map(|unanswered| unanswered.chunk).collect()
    }

    /// Ends a connection that broke: takes in what answers are here already, then gives back what
    /// has none, oldest first.
    /// If the receiver said why it ended the connection, that is given, too.
    #[must_use]
    pub(super) fn give_up(mut self, report: &dyn Fn(Vec<(Chunk, Outcome)>)) -> (Vec<Chunk>, Option<io::Error>) {
        let (mut before, mut refusal) = (usize::MAX, None);
        while self.unanswered.len() < before {
            before = self.unanswered.len();
            if let Err(error) = self.receive(Wait::No, report) {
                refusal = Some(error).filter(is_refusal);
                break;
            }
        }
        (self.unanswered.into_iter().map(|unanswered| unanswered.chunk).collect(), refusal)
    }
}

/// Is `file` still what the walk saw?
fn is_same(file: &File, chunk: &Chunk) -> io::Result<bool> {
    Ok(identify(&file.metadata()?) == chunk.file.meta.identity)
}

fn unreadable(error: &io::Error) -> String {
    format!("can't be read: {error}")
}

/// Is this the error of a receiver that wants nothing more on a connection?
#[must_use]
pub(super) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Bytes of answers that are read at once.
const ANSWERS_LEN: usize = 16 * 1024;

fn outcome_of(unanswered: Unanswered, answer: Answer) -> (Chunk, Outcome) {
    // Whatever the receiver says of what came before the mark: a range that was voided does not count.
    (unanswered.chunk, unanswered.void.unwrap_or_else(|| Outcome::of(answer)))
}

/// Does the receiver take ranges of the file at `path`? Asks by writing nothing to it.
///
/// # Errors
/// Those of the stream; a close is not one, but an answer.
pub(super) fn is_known(mut stream: Stream, session: &Session, path: &RemotePath) -> io::Result<bool> {
    let mut frame = Vec::new();
    let nothing: Range<u64> = 0..0;
    session.encode_range(&mut frame, path, &FileMeta::empty(), &nothing);
    stream.handle().limit_waits(DIAL_TIMEOUT)?;
    stream.write_all(&frame)?;
    let (mut bytes, mut answer) = ([0; ANSWERS_LEN], Vec::new());
    loop {
        if let Ok(Some((reply, _))) = session.decode_reply(&answer, &Digest::of(b"")) {
            return Ok(matches!(reply, Reply::Wanted(_) | Reply::Answer(Answer { status: Status::Stored, .. })));
        }
        match stream.read(&mut bytes)? {
            0 => return Ok(false),
            len => answer.extend_from_slice(&bytes[..len]),
        }
    }
}
