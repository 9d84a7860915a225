//! The control connection of a job whose files are published whole: opens the session, asks what is
//! there already, describes folders and links, and at the end asks for the rest.
//!
//! A hard link is described when all files are settled: one whose file did not arrive would be made to
//! whatever has that file's name at the receiver.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use super::attempts::{Interrupted, dial_again};
use super::digests::note_there;
use super::entries::Entries;
use super::live::Live;
use super::login::Login;
use super::outcome::PUSH;
use super::plan::Sending;
use super::queue::Queue;
use super::source::Source;
use super::talk::{Talk, foreign, out_of_turn};
use super::trouble::Trouble;
use super::{NoteDigest, TellPath, leave_out};
use crate::compress::Level;
use crate::entry::{Entry, FileMeta, Identity, Kind};
use crate::limits::{CHUNK_TRIES_MAX, CREATE_FLUSH_LEN, FAILURES_KEPT_MAX, HAVE_BATCH_LEN, HAVE_BATCH_MAX, WINDOW_FRAMES_MAX};
use crate::net::Stream;
use crate::net::dial::{Dialer, backoff};
use crate::path::RemotePath;
use crate::progress::Progress;
use crate::protocol::{Answer, Features, Open, Reply, Status, Totals, v2};
use crate::stop::Stop;
use crate::store::Pending;

/// Who speaks on the control connection.
pub(super) struct Announcer<'a> {
    pub(super) open: &'a Open,
    pub(super) features: Features,
    pub(super) login: &'a Login,
    pub(super) source: &'a Source,
    pub(super) dialer: &'a Dialer,
    pub(super) queue: &'a Queue<'a>,
    pub(super) progress: &'a Progress,
    pub(super) live: &'a Live,
    pub(super) stop: &'a Stop,
    /// Larger files travel in parts, of which some may be there already.
    pub(super) part_len: u64,
    /// Told the digest of each file that is there, where that is wanted.
    pub(super) digest: Option<NoteDigest<'a>>,
    /// Told of what would be sent, where nothing is to be sent.
    pub(super) dry: Option<TellPath<'a>>,
}

/// The receiver does not want this job: nothing has landed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Said of a run that ended before anything was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct NotBegun;

impl fmt::Display for NotBegun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was sent")
    }
}

/// The control connection, and what it was asked.
#[derive(Debug)]
pub(super) struct Line<'a> {
    talk: Talk<'a>,
    asked: VecDeque<Asked>,
    /// Files to be queued, and files to ask for.
    files: Vec<Sending>,
    batch: Batch,
    /// Hard links, until all files are settled: a million of them need no memory.
    held: Pending,
    /// Links that the receiver took note of.
    noted_links: u64,
    /// The job's folder was not there before: no need to ask what is in it.
    is_new: bool,
    is_known: bool,
    /// Streams lost since the last reply to a request.
    lost: u8,
    lost_since: Option<Instant>,
    /// Where the job lands, in full.
    pub(super) landed: Vec<u8>,
    /// How content travels compressed, if it does.
    pub(super) level: Option<Level>,
}

/// What is not answered yet.
#[derive(Debug)]
enum Asked {
    /// Which of these are there?
    Have(Vec<(RemotePath, FileMeta)>),
    /// Has this one that digest?
    Verify(RemotePath, FileMeta, [u8; 32]),
    /// Take note of this.
    Entry(Entry),
}

impl<'a> Announcer<'a> {
    /// Opens the session over a new stream.
    ///
    /// # Errors
    /// [`Refused`]; no answer of the kind that a v2 receiver gives; those of the stream.
    pub(super) fn start(&self, stream: Stream) -> anyhow::Result<Line<'a>> {
        let mut line = Line {
            talk: Talk::over(self.live.register(stream)),
            asked: VecDeque::new(),
            files: Vec::new(),
            batch: Batch::default(),
            held: Pending::default(),
            noted_links: 0,
            is_new: false,
            is_known: false,
            lost: 0,
            lost_since: None,
            landed: Vec::new(),
            level: None,
        };
        match self.open_session(&mut line) {
            Ok(()) => Ok(line),
            Err(Trouble::Fatal(error)) if error.is::<Refused>() => Err(error),
            Err(Trouble::Fatal(error)) => Err(error.context(NotBegun)),
            Err(Trouble::Broken(error)) => Err(foreign(self.dialer, false, Some(error.into())).context(NotBegun)),
        }
    }

    fn open_session(&self, line: &mut Line<'_>) -> Result<(), Trouble> {
        let opened = line.talk.open(self.dialer, self.login, self.open, self.features)?;
        (line.is_new, line.is_known, line.landed) = (opened.is_new, opened.is_known, opened.landed);
        line.level = opened.level;
        Ok(())
    }

    /// Announces all entries that come, and queues the files that are not there.
    ///
    /// # Errors
    /// The receiver can't be reached any more, refuses, has forgotten the job, or answers nonsense.
    pub(super) fn run(&self, line: &mut Line<'a>, entries: &mut Entries) -> anyhow::Result<()> {
        self.persist(line, |line| self.announce(line, entries))
    }

    /// Tries again over another stream whenever the stream fails.
    fn persist<T>(&self, line: &mut Line<'a>, mut act: impl FnMut(&mut Line<'a>) -> Result<T, Trouble>) -> anyhow::Result<T> {
        loop {
            match act(line) {
                Ok(done) => return Ok(done),
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Broken(error)) => self.restore(line, error)?,
            }
        }
    }

    /// Opens the session again over another stream, and asks again for what was not answered. Gives up
    /// when nothing was answered for as long as the dialer tries.
    fn restore(&self, line: &mut Line<'a>, mut error: io::Error) -> anyhow::Result<()> {
        loop {
            // Nobody waits for what could still be announced.
            if self.stop.is_asked() || self.queue.is_aborted() {
                return Err(error.into());
            }
            tracing::debug!("the control connection to {} broke: {error}", self.dialer);
            self.progress.lost_connections.add(1);
            let since = *line.lost_since.get_or_insert_with(Instant::now);
            line.lost = line.lost.saturating_add(1);
            if line.lost > CHUNK_TRIES_MAX && since.elapsed() >= self.dialer.retry_for() {
                let what = format!("{} broke the connection {} times over the same request", self.dialer, line.lost);
                return Err(anyhow::Error::from(error).context(what));
            }
            self.stop.wait(backoff(line.lost.into()));
            let stream = dial_again(self.dialer, &PUSH, self.progress, self.stop)?;
            line.talk = Talk::over(self.live.register(stream));
            match self.open_session(line) {
                Ok(()) => break,
                Err(Trouble::Broken(again)) => error = again,
                // By now something may have landed: it is no refusal of the whole job.
                Err(Trouble::Fatal(error)) => anyhow::bail!("{error:#}"),
            }
        }
        if !line.is_known {
            return Err(Interrupted("the receiver does not know this job any more: was it restarted?".to_owned()).into());
        }
        // What it heard of twice means the same.
        for asked in &line.asked {
            line.talk.say(&frame_of(asked))?;
        }
        Ok(())
    }

    fn announce(&self, line: &mut Line<'_>, entries: &mut Entries) -> Result<(), Trouble> {
        let mut ended = false;
        while !ended || !line.asked.is_empty() {
            let next = if ended || line.asked.len() >= WINDOW_FRAMES_MAX { None } else { entries.try_next() };
            let next = match next {
                // Nothing to wait for but the walk.
                None if !ended && line.asked.is_empty() && line.files.is_empty() && line.batch.files.is_empty() => {
                    let next = entries.next();
                    ended = next.is_none();
                    next
                }
                next => next,
            };
            let has_next = next.is_some();
            if let Some(entry) = next {
                self.take(line, entry)?;
                if line.talk.waiting_len() < CREATE_FLUSH_LEN && line.files.len() < HAVE_BATCH_MAX {
                    continue;
                }
            }
            if !self.queue_files(line) {
                return Ok(());
            }
            if !has_next {
                self.ask(line)?;
            }
            line.talk.flush()?;
            if line.asked.is_empty() {
                continue;
            }
            let may_wait = !has_next && (ended || entries.is_empty() || line.asked.len() >= WINDOW_FRAMES_MAX);
            self.read_replies(line, may_wait)?;
            if !self.queue_files(line) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Keeps the session open while chunks are on their way, until `worked`: a receiver that is
    /// restarted is told of the job at once.
    ///
    /// # Errors
    /// As [`Announcer::run`].
    pub(super) fn watch(&self, line: &mut Line<'a>, worked: &Stop) -> anyhow::Result<()> {
        self.persist(line, |line| {
            while !worked.is_asked() {
                self.read_replies(line, false)?;
                line.talk.stream.handle().wait_readable(worked);
            }
            Ok(())
        })
    }

    /// Hands the files over that are to be sent; false when nothing more is to be done.
    fn queue_files(&self, line: &mut Line<'_>) -> bool {
        line.files.is_empty() || self.queue.push(std::mem::take(&mut line.files))
    }

    /// Takes in what is here, waiting for it if `may_wait`.
    fn read_replies(&self, line: &mut Line<'_>, may_wait: bool) -> Result<(), Trouble> {
        if may_wait {
            let reply = line.talk.next_reply(self.dialer)?;
            self.take_reply(line, reply)?;
        } else if !line.talk.take_in()? {
            return Ok(());
        }
        while let Some(reply) = line.talk.decode_reply(self.dialer)? {
            self.take_reply(line, reply)?;
        }
        Ok(())
    }

    fn take(&self, line: &mut Line<'_>, entry: Entry) -> Result<(), Trouble> {
        match entry.kind {
            Kind::File { identity, is_sparse } => {
                let meta = FileMeta { identity, attributes: entry.attributes, is_sparse };
                if line.is_new {
                    self.queue_file(entry.path, meta, false, &mut line.files);
                } else if line.batch.add(entry.path, meta) {
                    self.ask(line)?;
                }
            }
            Kind::HardLink { .. } if self.dry.is_none() => {
                if let Err(error) = line.held.add(&entry) {
                    leave_out(self.progress, &entry.path, &error.to_string());
                }
            }
            kind => match self.dry {
                None => self.send(line, Asked::Entry(Entry { kind, ..entry }))?,
                Some(_) if matches!(kind, Kind::Directory { .. }) => {}
                Some(tell) => tell(&entry.path),
            },
        }
        Ok(())
    }

    /// Files that are to be sent, or asked for first.
    fn queue_file(&self, path: RemotePath, meta: FileMeta, asks_first: bool, files: &mut Vec<Sending>) {
        match self.dry {
            None => {
                let mut file = Sending::new(path, meta);
                file.asks_first = asks_first;
                files.push(file);
            }
            Some(tell) => tell(&path),
        }
    }

    fn ask(&self, line: &mut Line<'_>) -> Result<(), Trouble> {
        let files = std::mem::take(&mut line.batch).files;
        if files.is_empty() {
            return Ok(());
        }
        self.send(line, Asked::Have(files))
    }

    fn send(&self, line: &mut Line<'_>, asked: Asked) -> Result<(), Trouble> {
        let frame = frame_of(&asked);
        // In its place before it is sent: what breaks half-way is asked again.
        line.asked.push_back(asked);
        line.talk.say(&frame)?;
        Ok(())
    }

    fn take_reply(&self, line: &mut Line<'_>, reply: Reply) -> Result<(), Trouble> {
        (line.lost, line.lost_since) = (0, None);
        match (line.asked.pop_front(), reply) {
            (asked, Reply::Heartbeat) => {
                if let Some(asked) = asked {
                    line.asked.push_front(asked);
                }
            }
            (_, Reply::Refused(why)) => {
                return Err(Trouble::Fatal(anyhow::anyhow!("{} refuses: {why}", self.dialer)));
            }
            (Some(Asked::Have(batch)), Reply::Had(bits)) if bits.len() == batch.len() => {
                for ((path, meta), is_there) in batch.into_iter().zip(bits) {
                    self.take_file(line, path, meta, is_there);
                }
            }
            (Some(Asked::Have(batch)), Reply::Doubted { had, doubtful }) if had.len() == batch.len() => {
                for (((path, meta), is_there), is_doubtful) in batch.into_iter().zip(had).zip(doubtful) {
                    // Where it is to be hashed there, it is here as well.
                    match is_doubtful.then(|| self.source.digest(&path, &meta.identity, self.stop)) {
                        Some(Ok(digest)) => self.send(line, Asked::Verify(path, meta, digest))?,
                        _ => self.take_file(line, path, meta, is_there),
                    }
                }
            }
            (Some(Asked::Verify(path, meta, _)), Reply::Answer(Answer { status, .. })) => {
                self.take_file(line, path, meta, status == Status::Had);
            }
            (Some(Asked::Entry(entry)), Reply::Answer(Answer { status: Status::Stored, .. })) => match entry.kind {
                Kind::Directory { .. } if entry.path.is_root() => {}
                Kind::Directory { .. } => self.progress.done_directories.add(1),
                _ => line.noted_links += 1,
            },
            (Some(Asked::Entry(entry)), Reply::Answer(Answer { reason, .. })) => {
                leave_out(self.progress, &entry.path, &reason);
            }
            _ => return Err(out_of_turn(self.dialer)),
        }
        Ok(())
    }

    /// Counts a file that is there, or has it sent.
    fn take_file(&self, line: &mut Line<'_>, path: RemotePath, meta: FileMeta, is_there: bool) {
        if is_there {
            self.progress.add_unchanged(meta.identity.size);
            let read = |path: &RemotePath, identity: &Identity| self.source.digest(path, identity, self.stop);
            note_there(self.digest, &read, &path, &meta.identity, self.progress);
        } else {
            let is_in_parts = meta.identity.size > self.part_len;
            self.queue_file(path, meta, is_in_parts, &mut line.files);
        }
    }

    /// Ends the session when all files are settled: has links made and folders given their attributes,
    /// and hears what is missing.
    ///
    /// # Errors
    /// As [`Announcer::run`]; what was kept on this machine can't be read back.
    pub(super) fn finish(&self, line: &mut Line<'a>) -> anyhow::Result<Totals> {
        let (held, mut taken) = (std::mem::take(&mut line.held), 0);
        self.persist(line, |line| self.describe_hard_links(line, &held, &mut taken))?;
        self.persist(line, |line| self.ask_to_finish(line))
    }

    /// Describes the links in `held`, of which `taken` were described over earlier streams.
    fn describe_hard_links(&self, line: &mut Line<'_>, held: &Pending, taken: &mut u64) -> Result<(), Trouble> {
        let (mut before, mut described) = (*taken, Ok(()));
        let read = held.each_link(|link| {
            if before > 0 {
                before -= 1;
                return ControlFlow::Continue(());
            }
            *taken += 1;
            described = self.describe_hard_link(line, link);
            if described.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        read.map_err(|error| Trouble::Fatal(error.into()))?;
        described?;
        line.talk.flush()?;
        while !line.asked.is_empty() {
            self.read_replies(line, true)?;
        }
        Ok(())
    }

    fn describe_hard_link(&self, line: &mut Line<'_>, link: Entry) -> Result<(), Trouble> {
        if let Kind::HardLink { to } = &link.kind
            && self.queue.may_have_lost(to)
        {
            leave_out(self.progress, &link.path, &format!("{to}, which it is a link to, did not arrive"));
            return Ok(());
        }
        if let Kind::HardLink { to } = &link.kind
            && self.queue.may_have_changed(to)
            && !self.source.are_one(to, &link.path)
        {
            let why = format!("{to}, which it was another name of, changed meanwhile: send it again");
            leave_out(self.progress, &link.path, &why);
            return Ok(());
        }
        self.send(line, Asked::Entry(link))?;
        let is_full = line.asked.len() >= WINDOW_FRAMES_MAX;
        if is_full || line.talk.waiting_len() >= CREATE_FLUSH_LEN {
            line.talk.flush()?;
            self.read_replies(line, is_full)?;
        }
        Ok(())
    }

    fn ask_to_finish(&self, line: &mut Line<'_>) -> Result<Totals, Trouble> {
        let mut bytes = Vec::new();
        v2::request::encode_finish(&mut bytes);
        line.talk.say(&bytes)?;
        line.talk.flush()?;
        let mut missing = Vec::new();
        loop {
            match line.talk.next_reply(self.dialer)? {
                Reply::Heartbeat => {}
                Reply::Missing { path, reason } if missing.len() < FAILURES_KEPT_MAX => missing.push((path, reason)),
                Reply::Missing { .. } => {}
                Reply::Finished(totals) => {
                    // One that was described again over another stream counts twice there.
                    self.progress.done_links.add(totals.links.min(line.noted_links));
                    for (path, reason) in &missing {
                        leave_out(self.progress, path, reason);
                    }
                    match totals.failed.saturating_sub(missing.len() as u64) {
                        0 => {}
                        more => leave_out(self.progress, &RemotePath::root(), &format!("{more} more entries are not there")),
                    }
                    return Ok(totals);
                }
                Reply::Refused(why) => return Err(Trouble::Fatal(anyhow::anyhow!("{} refuses: {why}", self.dialer))),
                _ => return Err(out_of_turn(self.dialer)),
            }
        }
    }
}

/// Files to ask for.
#[derive(Debug, Default)]
struct Batch {
    files: Vec<(RemotePath, FileMeta)>,
    len: usize,
}

impl Batch {
    /// Adds a file; true when it is time to ask.
    fn add(&mut self, path: RemotePath, meta: FileMeta) -> bool {
        let xattrs: usize = meta.attributes.xattrs.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        self.len += path.as_bytes().len() + xattrs + 64;
        self.files.push((path, meta));
        self.files.len() >= HAVE_BATCH_MAX || self.len >= HAVE_BATCH_LEN
    }
}

fn frame_of(asked: &Asked) -> Vec<u8> {
    let mut frame = Vec::new();
    match asked {
        Asked::Have(files) => v2::request::encode_have(&mut frame, files.iter().map(|(path, meta)| (path, meta))),
        Asked::Verify(path, meta, digest) => v2::request::encode_verify(&mut frame, path, meta, digest),
        Asked::Entry(entry) => v2::request::encode_describe(&mut frame, entry),
    }
    frame
}
