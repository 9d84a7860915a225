//! BLAKE3 digests of files that are there: out of the values of what was sent, where all of a file was.
//! Of a file of which a part was there before, or came by other hands, they are not known: it is read
//! at the end, when nobody waits.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::plan::Sending;
use super::{NoteDigest, leave_out};
use crate::entry::Identity;
use crate::limits::UNREAD_FILES_MAX;
use crate::path::RemotePath;
use crate::progress::Progress;

/// Reads a file of this machine, which is to have an identity, for its BLAKE3 digest.
pub(super) type ReadDigest<'a> = &'a dyn Fn(&RemotePath, &Identity) -> io::Result<[u8; 32]>;

/// The digests that are wanted of a run, if any are.
pub(super) struct Digests<'a> {
    note: Option<NoteDigest<'a>>,
    unread: Mutex<Vec<Arc<Sending>>>,
}

impl fmt::Debug for Digests<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digests")
    }
}

impl<'a> Digests<'a> {
    /// Those that `note` is to be told.
    #[must_use]
    pub(super) fn told_to(note: Option<NoteDigest<'a>>) -> Self {
        Self { note, unread: Mutex::default() }
    }

    /// Notes a file that the receiver has.
    pub(super) fn add(&self, file: &Arc<Sending>, progress: &Progress) {
        let Some(note) = self.note else { return };
        if let Some(digest) = file.digest() {
            return note(&file.path, digest);
        }
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        if unread.len() < UNREAD_FILES_MAX {
            unread.push(Arc::clone(file));
        } else {
            leave_out(
                progress,
                &file.path,
                "is there, but its digest is not made: too many were gone on with; the same command again makes it",
            );
        }
    }

    /// Reads the files whose digest is not known yet.
    pub(super) fn read(&self, read: ReadDigest<'_>, progress: &Progress) {
        let unread = std::mem::take(&mut *self.unread.lock().unwrap_or_else(PoisonError::into_inner));
        for file in unread {
            note_there(self.note, read, &file.path, &file.meta.identity, progress);
        }
    }
}

/// Tells `note` the digest of a file that is there, which is read for it.
pub(super) fn note_there(
    note: Option<NoteDigest<'_>>, read: ReadDigest<'_>, path: &RemotePath, identity: &Identity, progress: &Progress,
) {
    let Some(note) = note else { return };
    match read(path, identity) {
        Ok(digest) => note(path, digest),
        Err(error) => leave_out(progress, path, &format!("is there, but its digest can't be made: {error}")),
    }
}
