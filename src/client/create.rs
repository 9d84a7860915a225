//! Makes folders and files at the receiver before anything is written to them, and queues the files.
//!
//! One name a frame, many frames a write: v1 answers a list with one byte, which would not say
//! which name failed. All goes over one connection, whose order keeps folders before their contents.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::time::Instant;

use super::Remote;
use super::attempts::dial_again;
use super::entries::Entries;
use super::live::{Live, Registered};
use super::outcome::PUSH;
use super::plan::Sending;
use super::queue::Queue;
use super::trouble::Trouble;
use crate::entry::{Entry, FileMeta, Kind};
use crate::limits::{CHUNK_TRIES_MAX, CREATE_FLUSH_LEN, CREATE_FRAMES_MAX, WIRE_NAME_LEN_MAX, WRITE_NUMBER_MAX};
use crate::net::dial::{Dialer, backoff};
use crate::net::{self, Stream};
use crate::path::{Escaped, RemotePath};
use crate::progress::Progress;
use crate::protocol::v1;
use crate::pump::Outbox;
use crate::stop::Stop;

/// The control connection of a transfer.
pub(super) struct Creator<'a> {
    pub(super) remote: &'a Remote,
    pub(super) dialer: &'a Dialer,
    pub(super) queue: &'a Queue<'a>,
    pub(super) progress: &'a Progress,
    pub(super) live: &'a Live,
    pub(super) stop: &'a Stop,
}

/// What a frame that is not answered yet asked for.
enum Asked {
    /// The remote folder itself.
    Top,
    Entry(Entry),
}

/// The connection and what it was asked.
struct Line<'a> {
    stream: Registered<'a>,
    outbox: Outbox,
    asked: VecDeque<Asked>,
}

impl Creator<'_> {
    /// Creates all entries that come, and queues the files that are not empty.
    ///
    /// # Errors
    /// The remote folder can't be made, the receiver can't be reached any more, or it answers what
    /// no v1 receiver answers.
    pub(super) fn run(&self, stream: Stream, entries: &mut Entries) -> anyhow::Result<()> {
        let mut line = Line { stream: self.live.register(stream), outbox: Outbox::default(), asked: VecDeque::new() };
        line.asked.push_back(Asked::Top);
        let mut lost = Lost::default();
        let mut result = self.send_all(&mut line);
        loop {
            result = match result.and_then(|()| self.work(&mut line, entries, &mut lost)) {
                Ok(()) => return Ok(()),
                Err(Trouble::Fatal(error)) => return Err(error),
                // Nobody waits for what could still be created.
                Err(Trouble::Broken(error)) if self.stop.is_asked() || self.queue.is_finished() => return Err(error.into()),
                Err(Trouble::Broken(error)) => {
                    tracing::debug!("the control connection to {} broke: {error}", self.dialer);
                    self.progress.lost_connections.add(1);
                    // What it has not read yet it must not read later: a file created twice loses its
                    // content to its kept version.
                    line.stream.handle().reset();
                    lost.note(&error, self)?;
                    let stream = dial_again(self.dialer, &PUSH, self.progress, self.stop)?;
                    line.stream = self.live.register(stream);
                    line.outbox = Outbox::default();
                    self.send_all(&mut line)
                }
            };
        }
    }

    /// Asks again for all that was not answered.
    fn send_all(&self, line: &mut Line<'_>) -> Result<(), Trouble> {
        for asked in &line.asked {
            line.outbox.put(&mut *line.stream, &self.frame(asked))?;
        }
        Ok(())
    }

    fn work(&self, line: &mut Line<'_>, entries: &mut Entries, lost: &mut Lost) -> Result<(), Trouble> {
        loop {
            let next = if line.asked.is_empty() {
                match entries.next() {
                    Some(entry) => Some(entry),
                    None => return Ok(()),
                }
            } else if line.asked.len() < CREATE_FRAMES_MAX {
                entries.try_next()
            } else {
                None
            };
            let has_next = next.is_some();
            if let Some(entry) = next {
                if self.is_fit(&entry) {
                    let asked = Asked::Entry(entry);
                    let frame = self.frame(&asked);
                    // In its place before it is sent: what breaks half-way is asked again.
                    line.asked.push_back(asked);
                    line.outbox.put(&mut *line.stream, &frame)?;
                }
                if line.outbox.waiting_len() < CREATE_FLUSH_LEN {
                    continue;
                }
            }
            line.outbox.flush(&mut *line.stream)?;
            let mut answers = [0; CREATE_FRAMES_MAX];
            let len = if has_next { line.stream.read_available(&mut answers)? } else { Some(line.stream.read(&mut answers)?) };
            let Some(len) = len else { continue };
            if len == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            *lost = Lost { answered_ever: true, ..Lost::default() };
            if !self.take_answers(line, &answers[..len])? {
                return Ok(());
            }
        }
    }

    /// Takes the answers to the oldest frames; false when nothing more is to be done.
    fn take_answers(&self, line: &mut Line<'_>, answers: &[u8]) -> Result<bool, Trouble> {
        let mut files = Vec::new();
        for (at, &answer) in answers.iter().enumerate() {
            match self.take_answer(line, answer)? {
                After::More => {}
                After::Queue(file) => files.push(file),
                After::Parents => {
                    line.asked.push_front(Asked::Top);
                    self.make_parents(line, answers.len() - at - 1)?;
                    self.send_all(line)?;
                    break;
                }
            }
        }
        Ok(self.queue.push(files))
    }

    /// Can v1 carry this entry? If not, it is left out.
    fn is_fit(&self, entry: &Entry) -> bool {
        let name = wire_name(&self.remote.prefix, &entry.path);
        let reason = match &entry.kind {
            _ if name.contains(&b'\n') => "its name has a line feed in it, which protocol v1 can't carry".to_owned(),
            _ if !v1::can_list(&name) => "its name is not UTF-8, which protocol v1 can't carry".to_owned(),
            _ if name.len() > WIRE_NAME_LEN_MAX => "its path is too long for protocol v1".to_owned(),
            Kind::File { identity, .. } if !v1::can_write(identity.size) => {
                format!("it has more than the {WRITE_NUMBER_MAX} bytes that protocol v1 can carry")
            }
            Kind::Directory { .. } | Kind::File { .. } => return true,
            Kind::Symlink { .. } => "a symbolic link, which protocol v1 can't carry".to_owned(),
            Kind::HardLink { .. } => "a hard link, which protocol v1 can't carry".to_owned(),
        };
        super::leave_out(self.progress, &entry.path, &format!("left out: {reason}"));
        false
    }

    fn frame(&self, asked: &Asked) -> Vec<u8> {
        let mut frame = Vec::new();
        match asked {
            Asked::Top => v1::encode_make_directory(&mut frame, &self.remote.directory),
            Asked::Entry(entry) => {
                let name = wire_name(&self.remote.prefix, &entry.path);
                match entry.kind {
                    Kind::File { .. } => v1::encode_create_file(&mut frame, &name),
                    _ => v1::encode_make_directory(&mut frame, &name),
                }
            }
        }
        frame
    }

    /// Takes the answer to the oldest frame.
    fn take_answer(&self, line: &mut Line<'_>, answer: u8) -> Result<After, Trouble> {
        let (Some(asked), v1::DONE | v1::FAILED) = (line.asked.pop_front(), answer) else {
            return Err(Trouble::Fatal(self.no_v1(answer)));
        };
        match asked {
            Asked::Top if answer == v1::FAILED => return Ok(After::Parents),
            Asked::Top => {}
            Asked::Entry(entry) if answer == v1::FAILED => {
                super::leave_out(self.progress, &entry.path, "could not be created by the receiver, whose log says why");
            }
            Asked::Entry(Entry { path, kind, attributes }) => match kind {
                Kind::File { identity, .. } if identity.size == 0 => self.progress.done_files.add(1),
                Kind::File { identity, is_sparse } => {
                    return Ok(After::Queue(Sending::new(path, FileMeta { identity, attributes, is_sparse })));
                }
                _ => self.progress.done_directories.add(1),
            },
        }
        Ok(After::More)
    }

    /// Makes the remote folder by making what is above it first: a receiver may make one level at a
    /// time. From the bottom up, so that nothing is made above what is there. `answered` of the
    /// answers to what was asked since are here already.
    fn make_parents(&self, line: &mut Line<'_>, answered: usize) -> Result<(), Trouble> {
        // All that was asked after it failed for want of it.
        line.outbox.flush(&mut *line.stream)?;
        for _ in answered + 1..line.asked.len() {
            self.read_answer(line)?;
        }
        let directory = &self.remote.directory;
        let slashes = (1..directory.len()).rev().filter(|&at| directory[at] == b'/' && at + 1 < directory.len());
        let mut missing = vec![&directory[..]];
        for slash in slashes {
            let above = &directory[..slash];
            if self.make_one(line, above)? {
                break;
            }
            missing.push(above);
        }
        while let Some(directory) = missing.pop() {
            if !self.make_one(line, directory)? {
                let shown = Escaped(directory);
                return Err(Trouble::Fatal(anyhow::anyhow!("the receiver can't make folder '{shown}': its log says why")));
            }
        }
        Ok(())
    }

    fn make_one(&self, line: &mut Line<'_>, directory: &[u8]) -> Result<bool, Trouble> {
        let mut frame = Vec::new();
        v1::encode_make_directory(&mut frame, directory);
        line.outbox.put(&mut *line.stream, &frame)?;
        line.outbox.flush(&mut *line.stream)?;
        Ok(self.read_answer(line)? == v1::DONE)
    }

    fn read_answer(&self, line: &mut Line<'_>) -> Result<u8, Trouble> {
        let mut answer = [0];
        line.stream.read_exact(&mut answer)?;
        match answer {
            [answer @ (v1::DONE | v1::FAILED)] => Ok(answer),
            [other] => Err(Trouble::Fatal(self.no_v1(other))),
        }
    }

    fn no_v1(&self, answer: u8) -> anyhow::Error {
        anyhow::anyhow!("{} answers with byte {answer:#04x}: it is no receiver of protocol v1", self.dialer)
    }
}

/// Control connections lost since the last answer.
#[derive(Default)]
struct Lost {
    count: u8,
    since: Option<Instant>,
    answered_ever: bool,
}

impl Lost {
    /// Notes one more, and waits a little longer each time. One that never answered anything is
    /// given up soon: it is no receiver, or not for us.
    fn note(&mut self, error: &io::Error, creator: &Creator<'_>) -> anyhow::Result<()> {
        self.count = self.count.saturating_add(1);
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.count >= CHUNK_TRIES_MAX && (!self.answered_ever || since.elapsed() > creator.dialer.retry_for()) {
            let why = match error.kind() {
                io::ErrorKind::UnexpectedEof => "closes every connection without an answer".to_owned(),
                _ if net::is_stall(error) => "takes connections but does not answer".to_owned(),
                _ => format!("breaks every connection ({error})"),
            };
            anyhow::bail!("{} {why}: is it a receiver of protocol v1, and does it allow this address?", creator.dialer);
        }
        creator.stop.wait(backoff(self.count.into()));
        Ok(())
    }
}

/// What is to be done after an answer.
enum After {
    /// What comes next.
    More,
    /// This file's content.
    Queue(Sending),
    /// What is above the remote folder, and then all again.
    Parents,
}

/// What an entry is called on the wire.
fn wire_name(prefix: &[u8], path: &RemotePath) -> Vec<u8> {
    [prefix, path.as_bytes()].concat()
}
