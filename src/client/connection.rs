//! One stream to a receiver that writes are sent over: ahead of their answers, which come in order.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;

use super::live::Registered;
use super::plan::Chunk;
use super::queue::{Outcome, Wait};
use super::source::identify;
use crate::digest::Digest;
use crate::limits::{DIAL_TIMEOUT, READ_LEN_MIN, REPLY_LEN_MAX, SLOW_BYTES_MIN, SOCKET_BUFFER_LEN_MAX, WINDOW_FRAMES_MAX};
use crate::net::Stream;
use crate::protocol::v1;
use crate::pump::{self, Outbox, PumpError};

/// A stream and what was sent over it without an answer yet.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    stream: Registered<'a>,
    outbox: Outbox,
    header: Vec<u8>,
    unanswered: VecDeque<(Chunk, Digest)>,
    /// Bytes of an answer that is not complete.
    answer: Vec<u8>,
    /// Bytes that were written when answers were last looked for.
    looked_at: u64,
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

impl<'a> Connection<'a> {
    /// A connection over a new stream.
    #[must_use]
    pub(super) fn new(stream: Registered<'a>) -> Self {
        Self {
            stream,
            outbox: Outbox::default(),
            header: Vec::new(),
            unanswered: VecDeque::new(),
            answer: Vec::new(),
            looked_at: 0,
        }
    }

    /// Writes without an answer.
    #[must_use]
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Is there room for one more?
    #[must_use]
    pub(super) fn has_room(&self) -> bool {
        self.unanswered.len() < WINDOW_FRAMES_MAX
    }

    /// Sends a chunk of `file` under `name`. What is small may wait for its neighbours until
    /// [`Connection::flush`].
    pub(super) fn send(&mut self, chunk: Chunk, name: &[u8], file: &File) -> Sent {
        self.header.clear();
        v1::encode_write(&mut self.header, name, &chunk.range);
        let stream = &mut *self.stream;
        let first_len = self.header.len() + usize::try_from(chunk.bytes()).unwrap_or(usize::MAX).min(READ_LEN_MIN);
        if let Err(error) = self.outbox.make_room(stream, first_len) {
            self.unanswered.push_back((chunk, Digest([0; 16])));
            return Sent::Broken(error);
        }
        let position = self.outbox.position();
        let pumped = self
            .outbox
            .put(stream, &self.header)
            .map_err(PumpError::Stream)
            .and_then(|()| pump::file_to_stream(file, chunk.range.start, chunk.bytes(), &mut self.outbox, stream));
        let reason = match pumped {
            Ok(digest) => match file.metadata() {
                Ok(metadata) if identify(&metadata) == chunk.file.identity => {
                    self.unanswered.push_back((chunk, digest));
                    return Sent::Away;
                }
                Ok(_) => "changed while it was sent".to_owned(),
                Err(error) => format!("can't be read: {error}"),
            },
            Err(PumpError::File(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "became shorter while it was sent".to_owned()
            }
            Err(PumpError::File(error)) => format!("can't be read: {error}"),
            Err(PumpError::Stream(error)) => {
                self.unanswered.push_back((chunk, Digest([0; 16])));
                return Sent::Broken(error);
            }
        };
        if self.outbox.take_back(position) { Sent::Kept(chunk, reason) } else { Sent::Spoiled(chunk, reason) }
    }

    /// Writes out what waits for neighbours.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.outbox.flush(&mut *self.stream)
    }

    /// Is it time to look for answers, because more was written since the last look?
    #[must_use]
    pub(super) fn may_have_answers(&self) -> bool {
        self.outbox.flushed_bytes() > self.looked_at
    }

    /// Takes in the answers that are here, or waits for some; reports what became of each write, and
    /// gives their number.
    ///
    /// # Errors
    /// Those of the stream; a close is an `UnexpectedEof`, an answer to nothing is `InvalidData`.
    pub(super) fn receive(&mut self, wait: Wait, report: &dyn Fn(Vec<(Chunk, Outcome)>)) -> io::Result<usize> {
        self.looked_at = self.outbox.flushed_bytes();
        let mut bytes = [0; WINDOW_FRAMES_MAX * REPLY_LEN_MAX];
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
        self.answer.extend_from_slice(&bytes[..len]);
        let whole = self.answer.len() / REPLY_LEN_MAX * REPLY_LEN_MAX;
        let mut outcomes = Vec::with_capacity(whole / REPLY_LEN_MAX);
        let answers = self.answer[..whole].chunks_exact(REPLY_LEN_MAX);
        for (answer, (chunk, digest)) in answers.zip(std::iter::from_fn(|| self.unanswered.pop_front())) {
            outcomes.push((chunk, if answer == digest.to_hex() { Outcome::Confirmed } else { Outcome::Mismatched }));
        }
        let answered = outcomes.len();
        self.answer.drain(..whole);
        if !outcomes.is_empty() {
            report(outcomes);
        }
        if answered * REPLY_LEN_MAX < whole {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to nothing that was asked"));
        }
        Ok(answered)
    }

    /// Reads, and waits longer than for one stall where much was sent: it may still be on its way.
    fn read_patiently(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let sent: u64 = self.unanswered.iter().map(|(chunk, _)| chunk.bytes()).sum();
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
    pub(super) fn abandon(mut self, report: &dyn Fn(Vec<(Chunk, Outcome)>)) -> VecDeque<(Chunk, Digest)> {
        self.stream.handle().shutdown(Shutdown::Write);
        while !self.unanswered.is_empty() && self.receive(Wait::Yes, report).is_ok() {}
        self.unanswered
    }

    /// Ends a connection that broke: takes in what answers are here already, then gives back what
    /// has none, oldest first.
    #[must_use]
    pub(super) fn give_up(mut self, report: &dyn Fn(Vec<(Chunk, Outcome)>)) -> VecDeque<(Chunk, Digest)> {
        let mut before = usize::MAX;
        while self.unanswered.len() < before {
            before = self.unanswered.len();
            if self.receive(Wait::No, report).is_err() {
                break;
            }
        }
        self.unanswered
    }
}

/// Does the receiver take writes to the file called `name`? Asks by writing nothing to it.
///
/// # Errors
/// Those of the stream; a close is not one, but an answer.
pub(super) fn is_known(mut stream: Stream, name: &[u8]) -> io::Result<bool> {
    let mut frame = Vec::new();
    v1::encode_write(&mut frame, name, &(0..0));
    stream.handle().limit_waits(DIAL_TIMEOUT)?;
    stream.write_all(&frame)?;
    let mut answer = [0; REPLY_LEN_MAX];
    match stream.read_exact(&mut answer) {
        Ok(()) => Ok(answer == Digest::of(b"").to_hex()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
