//! One function a request.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::audit::Audit;
use super::session::Session;
use crate::digest::Digest;
use crate::entry::{Entry, Identity, Kind};
use crate::limits::{HEARTBEAT, JOURNALED_LEN_MIN, WANTED_RANGES_MAX};
use crate::net;
use crate::path::Escaped;
use crate::protocol::{Answer, Known, Names, Put, Reply, Status, Wanted};
use crate::pump::{self, Block, Ended, Inbox, PumpError, Run, Times};
use crate::ranges;
use crate::stop::Stop;
use crate::store::{self, Folders, Incoming, Joined, State, Store, There};

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// The peer closed it between two frames.
    Closed,
    /// Its first bytes are of another protocol.
    Foreign,
    /// What it asked for is not done.
    Refused {
        /// Why.
        why: String,
    },
    /// It broke in the middle of something.
    Broken {
        /// Of what.
        what: String,
        /// How.
        why: String,
    },
}

impl Ending {
    pub(super) fn refused(why: impl fmt::Display) -> Self {
        Self::Refused { why: why.to_string() }
    }

    pub(super) fn broken(what: impl Into<String>, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "ended early".to_owned(),
            _ if net::is_stall(error) => "made no progress and is given up".to_owned(),
            _ => format!("broke: {error}"),
        };
        Self::Broken { what: what.into(), why }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Foreign => f.write_str("speaks another protocol"),
            Self::Refused { why } => write!(f, "refused: {why}"),
            Self::Broken { what, why } => write!(f, "{what} {why}"),
        }
    }
}

/// Makes folders, up to the first that can't be made; true when all are there.
pub(super) fn make_directories(store: &Store, names: Names<'_>, audit: &Audit<'_>) -> bool {
    try_all(names, audit, ("make folder", "mkdir"), |name| {
        let path = store.resolve(name)?;
        store.make_directory(&path)?;
        audit.made_folder(&path);
        Ok(())
    })
}

/// Creates files, up to the first that can't be created; true when all were.
pub(super) fn create_files(store: &Store, names: Names<'_>, audit: &Audit<'_>) -> bool {
    try_all(names, audit, ("create file", "create"), |name| {
        let path = store.resolve(name)?;
        store.create(&path)?;
        audit.created(&path);
        Ok(())
    })
}

fn try_all(
    names: Names<'_>, audit: &Audit<'_>, (act, event): (&str, &'static str), make: impl Fn(&[u8]) -> Result<(), store::Error>,
) -> bool {
    for name in names.iter() {
        if let Err(error) = make(name) {
            let name = Escaped::start_of(name);
            tracing::warn!("{}: refused to {act} '{name}': {error}", audit.peer());
            audit.refused_name(event, name, &error);
            return false;
        }
    }
    true
}

/// Writes the payload that follows, from `inbox` and then from `stream`, to a range of a file; gives
/// its digest.
pub(super) fn write(
    store: &Store, inbox: &mut Inbox, stream: &mut impl io::Read, name: &[u8], range: Range<u64>, audit: &Audit<'_>,
) -> Result<Digest, Ending> {
    let describe = || format!("write {}..{} of '{}'", range.start, range.end, Escaped::start_of(name));
    let opened = store.resolve(name).and_then(|path| {
        store.check_write(&path, &range)?;
        Ok((store.open_created(&path)?, path))
    });
    let (file, path) = opened.map_err(|error| Ending::refused(format!("{}: {error}", describe())))?;
    match pump::stream_to_file(inbox, stream, &file, range.start, range.end - range.start) {
        Ok(digest) => {
            audit.wrote(&path, range.end - range.start);
            Ok(digest)
        }
        Err(PumpError::File(error)) => Err(Ending::refused(format!("{}: {error}", describe()))),
        Err(PumpError::Stream(error)) => Err(Ending::broken(describe(), &error)),
    }
}

/// Which of these files are there already.
pub(super) fn have(folders: &mut Folders, session: &Session, batch: &[Known]) -> Reply {
    let mut is_there = |known: &Known| {
        let path = session.base.join(&known.path).map_err(store::Error::from)?;
        let identity = Identity { size: known.size, mtime: known.mtime, tag: [0; 16] };
        if session.open.is_dry {
            Ok(if session.home.store.has_as_is(folders, &path, &identity)? { There::Yes } else { There::No })
        } else {
            session.home.store.has(folders, &path, &identity, &known.attributes)
        }
    };
    let Some(_open) = session.finish.hold_open() else { return Reply::Had(vec![false; batch.len()]) };
    // What can't be looked at is sent, and refused by name if it can't be written either.
    let there: Vec<There> = batch.iter().map(|known| is_there(known).unwrap_or(There::No)).collect();
    let are = |what| there.iter().map(|there| *there == what).collect();
    if there.contains(&There::InDoubt) {
        return Reply::Doubted { had: are(There::Yes), doubtful: are(There::InDoubt) };
    }
    Reply::Had(are(There::Yes))
}

/// Has a file that is in doubt this digest?
pub(super) fn verify(
    stop: &Stop, folders: &mut Folders, session: &Session, (known, digest): (&Known, &[u8; 32]), stream: &mut impl Beating,
) -> Answer {
    let Some(_open) = session.finish.hold_open() else { return too_late() };
    let Ok(path) = session.base.join(&known.path) else { return Answer::of(Status::Mismatched) };
    let identity = Identity { size: known.size, mtime: known.mtime, tag: [0; 16] };
    match session.home.store.verify(folders, &path, (&identity, digest), &known.attributes, &mut beating(stream, session, stop)) {
        Ok(true) => Answer::of(Status::Had),
        // What can't be read is sent anew.
        Ok(false) | Err(_) => Answer::of(Status::Mismatched),
    }
}

/// Tells the other end now and then that work goes on; ends the work where the receiver or the job is to
/// end, which would wait for it.
fn beating(stream: &mut impl Beating, session: &Session, stop: &Stop) -> impl FnMut() -> io::Result<()> {
    let mut spoke = Instant::now();
    move || {
        if stop.is_asked() {
            return Err(io::Error::other("this receiver is to end"));
        }
        if session.finish.has_begun() {
            return Err(io::Error::other("the job is to end"));
        }
        if spoke.elapsed() >= HEARTBEAT {
            stream.beat();
            spoke = Instant::now();
            session.note_active(spoke);
        }
        Ok(())
    }
}

/// Takes note of a folder, which is made, or of a link.
pub(super) fn describe(folders: &mut Folders, session: &Session, entry: &Entry, audit: &Audit<'_>) -> Answer {
    let Some(_open) = session.finish.hold_open() else { return too_late() };
    if session.open.is_dry {
        return only_asking();
    }
    let store = &session.home.store;
    let described = (|| {
        let path = session.base.join(&entry.path)?;
        let mut entry = Entry { path, ..entry.clone() };
        match &mut entry.kind {
            Kind::Directory { .. } if entry.path == session.base => {
                // The root is the receiver's own, whoever sends into it.
                if entry.path.is_root() && !session.is_new {
                    return Ok(());
                }
                store.make_described_folder(folders, &entry.path)?;
            }
            Kind::Directory { .. } => {
                store.make_described_folder(folders, &entry.path)?;
                session.counts.folders.add(1);
                audit.made_folder(&entry.path);
            }
            Kind::HardLink { to } => *to = session.base.join(to)?,
            Kind::Symlink { .. } | Kind::File { .. } => {}
        }
        session.pending.lock().unwrap_or_else(PoisonError::into_inner).add(&entry)
    })();
    match described {
        Ok(()) => Answer::of(Status::Stored),
        Err(error) => {
            audit.refused_entry(session, &entry.path, &error);
            refused(&error)
        }
    }
}

fn only_asking() -> Answer {
    Answer { status: Status::Refused, reason: "this job is to change nothing".to_owned() }
}

fn too_late() -> Answer {
    Answer { status: Status::Refused, reason: "the job has ended".to_owned() }
}

fn refused(error: &store::Error) -> Answer {
    Answer { status: Status::Refused, reason: error.to_string() }
}

/// One who takes ranges of files that are published when they are whole.
pub(super) struct Receiver<'a> {
    pub(super) stop: &'a Stop,
    pub(super) session: &'a Session,
    pub(super) folders: &'a mut Folders,
    pub(super) audit: &'a Audit<'a>,
}

/// A stream whose other end can be told that work goes on.
pub(super) trait Beating: io::Read {
    /// Tells it. A stream that fails is noticed later.
    fn beat(&mut self);
}

impl Receiver<'_> {
    /// Takes the payload that follows, from `inbox` and then from `stream`. Whatever is wrong with the
    /// file, the stream is at the next frame afterwards.
    pub(super) fn put(mut self, inbox: &mut Inbox, stream: &mut impl Beating, put: &Put) -> Result<Reply, Ending> {
        let size = put.file.identity.size;
        let run = Run {
            range: put.range.clone(),
            size,
            is_sparse: put.file.is_sparse,
            checksum: self.session.open.checksum,
            binding: put.binding,
        };
        let mut times = Times::default();
        let before = Instant::now();
        let found = self.find(put, stream);
        times.file += before.elapsed();
        let answer = match found {
            Ok(incoming) => {
                let taken = take(&incoming, self.session, inbox, stream, &run, &mut times);
                if incoming.is_published() {
                    self.session.home.store.note_published();
                }
                if is_in_one_piece(&put.range, put.file.identity.size) {
                    self.session.note_ended(&incoming);
                }
                taken
            }
            Err(answer) => pump::blocks_to_file(inbox, stream, &run, &mut times, None).map(|_| Reply::Answer(answer)),
        };
        self.session.counts.verifying.add(times.digest);
        self.session.counts.writing.add(times.file);
        self.audit.put(self.session, put, &times, &answer);
        answer.map_err(|error| {
            let what = format!("range {}..{} of {}", put.range.start, put.range.end, put.path);
            match error.kind() {
                io::ErrorKind::InvalidData => Ending::refused(format!("{what}: {error}")),
                _ => Ending::broken(what, &error),
            }
        })
    }

    /// The file that a range belongs to; or what is answered once the range was read and dropped.
    fn find(&mut self, put: &Put, stream: &mut impl Beating) -> Result<Arc<Incoming>, Answer> {
        let (session, identity) = (self.session, &put.file.identity);
        let Some(_open) = session.finish.hold_open() else { return Err(too_late()) };
        if session.open.is_dry {
            return Err(only_asking());
        }
        let path = session.base.join(&put.path).map_err(|error| refused(&error.into()))?;
        if session.is_voided(&path, identity) {
            return Err(Answer::of(Status::Voided));
        }
        let on_existing = session.on_existing();
        if is_in_one_piece(&put.range, identity.size) {
            let begun = session.home.store.begin(self.folders, &path, &put.file, on_existing);
            let incoming = Arc::new(begun.map_err(|error| refused(&error))?);
            session.note_begun(&incoming);
            return Ok(incoming);
        }
        // What is at its path may say something else by now: a time cut short, or a change by others.
        if session.is_published(&path, identity) {
            return Err(Answer::of(Status::Had));
        }
        let joined =
            session.home.store.join(self.folders, &path, &put.file, on_existing, &mut beating(stream, session, self.stop));
        match joined.map_err(|error| refused(&error))? {
            Joined::Incoming(incoming) => {
                session.keep(&incoming);
                if session.is_voided(&path, identity) {
                    session.let_go(&incoming);
                    incoming.void();
                    return Err(Answer::of(Status::Voided));
                }
                // It may have been published before this one was begun, and been noted since.
                if session.is_published(&path, identity) {
                    session.let_go(&incoming);
                    incoming.discard();
                    return Err(Answer::of(Status::Had));
                }
                Ok(incoming)
            }
            Joined::Had => Err(Answer::of(Status::Had)),
        }
    }
}

/// Does a file come in one piece, so that nobody else brings one and nothing of it is kept?
fn is_in_one_piece(range: &Range<u64>, size: u64) -> bool {
    *range == (0..size) && size <= JOURNALED_LEN_MIN
}

/// Writes what comes to an incoming file.
fn take(
    incoming: &Incoming, session: &Session, inbox: &mut Inbox, stream: &mut impl io::Read, run: &Run, times: &mut Times,
) -> io::Result<Reply> {
    let mut failed = None;
    let mut blocks = incoming.begin_blocks(run.binding, run.checksum);
    let mut write = |block: Block<'_>| {
        if failed.is_none() {
            failed = match block {
                Block::Data(offset, bytes, digest) => blocks.write(offset, bytes, digest).err(),
                Block::Hole(range) => blocks.leave_hole(range).err(),
            };
        }
    };
    let ended = pump::blocks_to_file(inbox, stream, run, times, Some(&mut write));
    drop(blocks);
    let ended = ended?;
    let before = Instant::now();
    let Some(_open) = session.finish.hold_open() else { return Ok(Reply::Answer(too_late())) };
    let noted = match (failed, ended) {
        (Some(error), _) => Err(error),
        (None, Ended::Mismatched) => return Ok(Reply::Answer(Answer::of(Status::Mismatched))),
        (None, Ended::Void) => {
            // First the session: who is about to bring a piece looks there once more.
            if run.range != (0..run.size) {
                session.void(incoming);
            }
            incoming.void();
            return Ok(Reply::Answer(Answer::of(Status::Voided)));
        }
        (None, Ended::Same) => incoming.note(run.range.clone()),
    };
    if noted.is_ok() {
        session.counts.bytes.add(run.range.end - run.range.start);
    }
    let answer = match noted {
        Ok(State::Stored) if run.range.is_empty() => return Ok(Reply::Wanted(wanted_of(incoming))),
        Ok(State::Stored) => Answer::of(Status::Stored),
        Ok(State::Published { note }) => {
            if is_in_one_piece(&run.range, run.size) {
                session.let_go(incoming);
            } else {
                session.note_published(incoming);
            }
            session.counts.files.add(1);
            Answer { status: Status::Published, reason: note.unwrap_or_default() }
        }
        // Another connection brought the rest of it meanwhile, or was told that it changed.
        Err(_) if incoming.is_published() || session.is_published(incoming.path(), incoming.identity()) => {
            Answer::of(Status::Had)
        }
        Err(_) if incoming.is_voided() => Answer::of(Status::Voided),
        Err(error) => {
            incoming.abandon();
            session.let_go(incoming);
            refused(&error)
        }
    };
    times.file += before.elapsed();
    Ok(Reply::Answer(answer))
}

fn wanted_of(incoming: &Incoming) -> Wanted {
    let mut ranges = incoming.missing();
    let bytes = ranges::total(&ranges);
    ranges.truncate(WANTED_RANGES_MAX);
    Wanted { bytes, ranges }
}
