//! One function a request.

use std::fmt;
use std::io;
use std::ops::Range;

use crate::digest::Digest;
use crate::net::{self, Peer};
use crate::path::Escaped;
use crate::protocol::Names;
use crate::pump::{self, Inbox, PumpError};
use crate::store::{self, Store};

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
pub(super) fn make_directories(store: &Store, names: Names<'_>, peer: Peer) -> bool {
    try_all(names, peer, "make folder", |name| store.make_directory(&store.resolve(name)?))
}

/// Creates files, up to the first that can't be created; true when all were.
pub(super) fn create_files(store: &Store, names: Names<'_>, peer: Peer) -> bool {
    try_all(names, peer, "create file", |name| store.create(&store.resolve(name)?))
}

fn try_all(names: Names<'_>, peer: Peer, act: &str, make: impl Fn(&[u8]) -> Result<(), store::Error>) -> bool {
    for name in names.iter() {
        if let Err(error) = make(name) {
            tracing::warn!("{peer}: refused to {act} '{}': {error}", Escaped::start_of(name));
            return false;
        }
    }
    true
}

/// Writes the payload that follows, from `inbox` and then from `stream`, to a range of a file; gives
/// its digest.
pub(super) fn write(
    store: &Store, inbox: &mut Inbox, stream: &mut impl io::Read, name: &[u8], range: Range<u64>,
) -> Result<Digest, Ending> {
    let describe = || format!("write {}..{} of '{}'", range.start, range.end, Escaped::start_of(name));
    let opened = store.resolve(name).and_then(|path| store.open_created(&path));
    let file = opened.map_err(|error| Ending::refused(format!("{}: {error}", describe())))?;
    match pump::stream_to_file(inbox, stream, &file, range.start, range.end - range.start) {
        Ok(digest) => Ok(digest),
        Err(PumpError::File(error)) => Err(Ending::refused(format!("{}: {error}", describe()))),
        Err(PumpError::Stream(error)) => Err(Ending::broken(describe(), &error)),
    }
}
