//! One function a request.

use std::fmt;
use std::io;
use std::ops::Range;
use std::time::Instant;

use super::audit::Audit;
use super::session::Session;
use crate::digest::Digest;
use crate::entry::Entry;
use crate::landing::{NotTaken, Taker};
use crate::limits::HEARTBEAT;
use crate::net;
use crate::path::Escaped;
use crate::protocol::{Answer, Known, Names, Put, Reply, Status};
use crate::pump::{self, Inbox, PumpError, Times};
use crate::stop::Stop;
use crate::store::{self, Folders, Store, There};

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
    let there = session.landing.have(&session.home.store, folders, batch);
    let are = |what| there.iter().map(|there| *there == what).collect();
    if there.contains(&There::InDoubt) {
        return Reply::Doubted { had: are(There::Yes), doubtful: are(There::InDoubt) };
    }
    Reply::Had(are(There::Yes))
}

/// Has a file that is in doubt this digest?
pub(super) fn verify(
    stop: &Stop, folders: &mut Folders, session: &Session, known: (&Known, &[u8; 32]), stream: &mut impl Beating,
) -> Answer {
    let mut going = beating(session, stop);
    match session.landing.verify(&session.home.store, folders, known, &mut || going(stream)) {
        Ok(true) => Answer::of(Status::Had),
        Ok(false) => Answer::of(Status::Mismatched),
        Err(error) => refused(&error),
    }
}

/// Tells the other end now and then that work goes on; ends the work where the receiver or the job is to
/// end, which would wait for it.
pub(super) fn beating<S: Beating>(session: &Session, stop: &Stop) -> impl FnMut(&mut S) -> io::Result<()> {
    let mut spoke = Instant::now();
    move |stream| {
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
    match session.landing.describe(&session.home.store, folders, entry) {
        Ok(made) => {
            made.iter().for_each(|path| audit.made_folder(path));
            Answer::of(Status::Stored)
        }
        Err(error) => {
            if matches!(error, NotTaken::Store(_)) {
                audit.refused_entry(session, &entry.path, &error);
            }
            refused(&error)
        }
    }
}

pub(super) fn refused(error: &impl ToString) -> Answer {
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

    /// Has the other end left without waiting for the answer?
    fn is_reset(&self) -> bool;
}

impl Receiver<'_> {
    /// Takes the payload that follows, from `inbox` and then from `stream`. Whatever is wrong with the
    /// file, the stream is at the next frame afterwards.
    pub(super) fn put(self, inbox: &mut Inbox, stream: &mut impl Beating, put: &Put) -> Result<Reply, Ending> {
        let Self { stop, session, folders, audit } = self;
        let taker = Taker { landing: &session.landing, store: &session.home.store, folders };
        let mut times = Times::default();
        let answer = taker.take(inbox, stream, put, &mut times, beating(session, stop), None);
        audit.put(session, put, &times, &answer);
        answer.map_err(|error| {
            let what = format!("range {}..{} of {}", put.range.start, put.range.end, put.path);
            match error.kind() {
                io::ErrorKind::InvalidData => Ending::refused(format!("{what}: {error}")),
                _ => Ending::broken(what, &error),
            }
        })
    }
}
