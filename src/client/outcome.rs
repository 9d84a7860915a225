//! What workers, the queue and those around it tell each other.

use std::fmt;

use super::plan::Chunk;
use crate::entry::FileMeta;
use crate::path::RemotePath;
use crate::protocol::{Answer, Status, Wanted};

/// What became of a chunk that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver has it.
    Stored,
    /// The receiver has the whole file; what is not as it should be all the same.
    Whole(Option<String>),
    /// The receiver does not have the whole file: what it still wants of it.
    Wanted(Wanted),
    /// The receiver's digest is another one.
    Mismatched,
    /// The receiver closed the connection where the answer was due.
    Refused(String),
    /// The receiver said no, and why.
    Denied(String),
    /// The connection broke, for reasons of its own.
    Lost,
    /// The receiver made no progress until the connection was given up.
    Stalled,
    /// The source can't be read, or is no longer what it was: why.
    SourceFailed(String),
    /// The source is no longer what it was, and the receiver knows: it may be sent anew.
    Changed,
}

impl Outcome {
    /// Bytes of a chunk that came to be there by this.
    #[must_use]
    pub(super) fn carried(&self, chunk: &Chunk) -> u64 {
        if matches!(self, Self::Stored | Self::Whole(_)) { chunk.bytes() } else { 0 }
    }

    /// What an answer to a range says of it.
    #[must_use]
    pub(super) fn of(answer: Answer) -> Self {
        match answer.status {
            Status::Stored => Self::Stored,
            Status::Published | Status::Had => Self::Whole(Some(answer.reason).filter(|reason| !reason.is_empty())),
            Status::Mismatched => Self::Mismatched,
            // This range, or another of its file.
            Status::Voided => Self::Changed,
            Status::Refused => Self::Denied(answer.reason),
        }
    }
}

/// Is it worth waiting for a chunk?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Yes: there is nothing else to do.
    Yes,
    /// No: there are answers to look for.
    No,
}

/// What was found when a chunk was to be taken.
#[derive(Debug)]
pub(super) enum Taken {
    /// Work.
    Chunk(Chunk),
    /// Nothing now.
    Nothing,
    /// Nothing ever again.
    Finished,
}

/// What the one who starts workers waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// More waits than the workers that there are can soon do.
    Backlog,
    /// The time is over: work that was confirmed in all, and whether there is more of it than workers.
    Tick(u64, bool),
    /// There is work, and the last worker gave up: why.
    Abandoned(GaveUp),
    /// All is done, or nothing more is to be done.
    Finished,
}

/// Why a worker gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GaveUp {
    /// The receiver could not be reached for as long as the dialer tries.
    Unreachable(String),
    /// It wants no connection of this job.
    Refused(String),
}

/// What depends on the job and on how the receiver is spoken to.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Bytes of a chunk at the most.
    pub(super) length: u64,
    /// Is a file whole once all its ranges are stored? Otherwise an answer says so.
    pub(super) is_whole_when_stored: bool,
    /// May a chunk be sent again while somebody else is at it?
    pub(super) repeats: bool,
    /// Looks at a source file again; none if it is there no more.
    pub(super) look: &'a (dyn Fn(&RemotePath) -> Option<FileMeta> + Sync),
    /// Takes the BLAKE3 digest of each file that is whole, where they are wanted.
    pub(super) note_digest: Option<super::NoteDigest<'a>>,
    /// Are there several routes, so that one which leads nowhere says nothing of the others?
    pub(super) has_routes: bool,
    /// How a person is told of it.
    pub(super) words: &'static Words,
}

/// What is said differently of the two ways.
#[derive(Debug)]
pub(super) struct Words {
    /// What is done to a file.
    pub(super) done: &'static str,
    /// Who is at the other end.
    pub(super) peer: &'static str,
    /// What that end does not do with a file.
    pub(super) refused: &'static str,
    /// Who has what came of a file.
    pub(super) keeper: &'static str,
}

/// Files are sent to a receiver.
pub(super) const PUSH: Words = Words { done: "sent", peer: "receiver", refused: "not taken", keeper: "the receiver" };

/// Files are fetched from a server.
pub(super) const PULL: Words = Words { done: "fetched", peer: "server", refused: "not given", keeper: "this machine" };

impl fmt::Debug for Terms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms").field("length", &self.length).finish_non_exhaustive()
    }
}

/// The receiver refused chunks until their file, or the whole run, was given up.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// What the last one looked like.
    pub(super) why: String,
    /// Was the run given up?
    pub(super) of_all: bool,
    /// The first file of which it confirmed something, or the refused one: if it takes not even a
    /// write of nothing to that, it has forgotten the run.
    pub(super) known: RemotePath,
}
