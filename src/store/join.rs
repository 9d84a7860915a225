//! Files that come in several pieces, over several connections: whoever brings a piece finds the file
//! that others brought pieces of.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::ptr;
use std::sync::{Arc, Mutex, Weak};

use rustix::fs::{FallocateFlags, FlockOperation, FsWord};
use rustix::io::Errno;

use super::folders::Folder;
use super::incoming::{Begun, Creation};
use super::temp::TempName;
use super::{Error, FileMeta, Folders, Incoming, OnExisting, Store, had, jail, lock, refusal};
use crate::entry::Identity;
use crate::limits::{INCOMING_MAX, TEMP_TRIES_MAX};
use crate::path::RemotePath;

/// What whoever brings a piece of a file finds.
#[derive(Debug)]
pub enum Joined {
    /// The file, being received.
    Incoming(Arc<Incoming>),
    /// It is published already: no piece is needed.
    Had,
}

/// Under which a file is found: another state of the source, or another source, is another file.
type Key = (RemotePath, Identity);

/// The files being received by anybody.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<HashMap<Key, Weak<Incoming>>>);

impl Shared {
    /// A file that has ended is not found any more, unless another one took its place.
    pub(super) fn leave(&self, incoming: &Incoming) {
        let mut files = lock(&self.0);
        match files.entry((incoming.path().clone(), *incoming.identity())) {
            Entry::Occupied(found) if ptr::eq(found.get().as_ptr(), incoming) => _ = found.remove(),
            _ => {}
        }
    }
}

impl Store {
    /// Finds or begins a file that comes in several pieces.
    ///
    /// # Errors
    /// No file can be created in its folder, that can't be had, or there is no room for the file.
    pub fn join(
        &self, folders: &mut Folders, path: &RemotePath, meta: &FileMeta, on_existing: OnExisting,
    ) -> Result<Joined, Error> {
        meta.check(path)?;
        let key = (path.clone(), meta.identity);
        let incoming = {
            // Held while the file is created, so that two who come at once get the same one.
            let mut files = lock(&self.shared.0);
            if let Some(incoming) = files.get(&key).and_then(Weak::upgrade) {
                return Ok(Joined::Incoming(incoming));
            }
            let folder = self.need_folder(folders, path)?;
            if had::has_in(folder.as_fd(), path, &meta.identity, &meta.attributes)? {
                return Ok(Joined::Had);
            }
            if files.len() >= INCOMING_MAX {
                return Err(Error::Refused { path: path.clone(), what: "one of too many files being received at once" });
            }
            let begun = self.in_folder(folders, path, "create", |folder| self.begin_shared(folder, meta, &key))?;
            let incoming = Arc::new(Incoming::new(path, meta, on_existing, begun, Some(Arc::clone(&self.shared))));
            files.insert(key, Arc::downgrade(&incoming));
            incoming
        };
        let room = if meta.is_sparse { 0 } else { meta.identity.size };
        if let Err(errno) = incoming.set_len().and_then(|()| reserve(incoming.file(), room)) {
            incoming.abandon();
            return Err(refusal(path, "reserve room for", errno));
        }
        Ok(Joined::Incoming(incoming))
    }

    /// Creates the file under the name that belongs to its key, so that what an earlier process left
    /// of it makes room, or under a name of its own if another process is at it.
    fn begin_shared(&self, folder: &Arc<Folder>, meta: &FileMeta, key: &Key) -> Result<Begun, Errno> {
        let (temp, creation) = (TempName::of(key), Creation::new(folder, meta));
        for _ in 0..TEMP_TRIES_MAX {
            match creation.create(temp) {
                Err(Errno::EXIST) if !remove_leftover(folder.as_fd(), temp)? => break,
                Err(Errno::EXIST) => {}
                created => {
                    let begun = created?;
                    if lock_file(&begun.file)? {
                        return Ok(begun);
                    }
                }
            }
        }
        creation.create_as(|| self.temp_names.next())
    }
}

/// Removes what has a temporary name, if no process holds it; false if one does.
fn remove_leftover(folder: BorrowedFd<'_>, temp: TempName) -> Result<bool, Errno> {
    let file = match jail::open_child_file(folder, temp.as_name()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(true),
        // Nothing that this program made: let it be.
        Err(_) => return Ok(false),
    };
    if lock_file(&file)? {
        // Nobody else removes or renames it while it is locked.
        match jail::remove(folder, temp.as_name()) {
            Err(Errno::NOENT) | Ok(()) => {}
            Err(_) => return Ok(false),
        }
    } else if jail::look_at(file.as_fd())?.stx_nlink > 0 {
        return Ok(false);
    }
    Ok(true)
}

/// Makes a file this process's own, as long as it is open; false if it is another's, or was removed.
fn lock_file(file: &File) -> Result<bool, Errno> {
    // On a file system without locks two processes that receive the same file at once are not told
    // apart: one of them fails when it publishes.
    if rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return Ok(false);
    }
    Ok(jail::look_at(file.as_fd())?.stx_nlink > 0)
}

/// Makes sure at the start that there is room for all of a file.
///
/// Memory that is a file system hands out each page as it is reserved: 1.4 s for 4 GiB before the first
/// byte comes, where a disk takes 10 ms. There it must do to ask how much is free.
fn reserve(file: &File, size: u64) -> Result<(), Errno> {
    const TMPFS_MAGIC: FsWord = 0x0102_1994;
    if size == 0 {
        return Ok(());
    }
    let about = rustix::fs::fstatfs(file)?;
    if about.f_type == TMPFS_MAGIC {
        let free = about.f_bavail.saturating_mul(about.f_bsize.unsigned_abs());
        // No blocks at all: it has no limit.
        return if about.f_blocks > 0 && free < size { Err(Errno::NOSPC) } else { Ok(()) };
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(()),
            reserved => return reserved,
        }
    }
}
