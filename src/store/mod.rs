//! The served tree: the only way to it. Knows disks; knows no wire and nobody at its other end.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

mod aside;
mod attributes;
mod blocks;
mod chain;
mod charge;
mod created;
mod doubt;
mod finish;
mod folders;
mod had;
mod hash;
mod identity;
mod incoming;
mod index;
mod jail;
mod join;
mod journal;
mod kept;
mod leftovers;
mod listing;
mod made;
mod pending;
mod place;
mod quota;
mod records;
mod rehash;
mod remove;
mod rename;
mod source;
mod spelling;
mod survey;
mod temp;
mod umask;
mod usage;
mod xattrs;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{FileType, FlockOperation, OFlags};
use rustix::io::Errno;

use crate::limits::CREATE_TRIES_MAX;
use crate::path::{Escaped, PathError, RemotePath};
use charge::Allowance;
use created::{Created, Key};
use doubt::Syncs;
use index::{Found, Index};
use join::Shared;
use made::PRIVATE;
use temp::TempNames;

pub use aside::OnExisting;
pub use blocks::Blocks;
pub use charge::Bounds;
pub use finish::Event;
pub use folders::Folders;
pub use had::There;
pub use hash::hash_file;
pub use identity::{device_of, identify, identify_seen, is_sparse, mtime_of};
pub use incoming::{Incoming, State};
pub use join::Joined;
pub use journal::Journal;
pub use leftovers::Leftover;
pub use listing::Details;
pub use made::Made;
pub use pending::{Pending, Spool};
pub use quota::{Ledger, Limits, Refusal, Reservation, Usage};
pub use records::BootId;
pub use remove::NotRemoved;
pub use survey::{Survey, survey};
pub use umask::{Umask, take_umask};
pub use xattrs::XattrReader;

/// Why something was not done in the tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is not one of a path below the root.
    #[error("{0}")]
    Path(#[from] PathError),
    /// It is there and is not what it must be.
    #[error("{path} is {what}")]
    Refused {
        /// Which.
        path: RemotePath,
        /// What it is.
        what: &'static str,
    },
    /// The store may not hold so much.
    #[error("{refusal}: remove something, or have the quota raised, for {path}")]
    Quota {
        /// Which.
        path: RemotePath,
        /// What it needs, and what is left.
        refusal: Refusal,
    },
    /// No file may be so large.
    #[error("{}: {path}", charge::too_large(*size, *max))]
    TooLarge {
        /// Which.
        path: RemotePath,
        /// Its bytes.
        size: u64,
        /// Bytes of the largest file.
        max: u64,
    },
    /// Less of the disk would be free than has to stay free.
    #[error("{}: no room for {path}", charge::disk_full(*needs, *free, *min_free))]
    DiskFull {
        /// Which.
        path: RemotePath,
        /// Bytes that it needs.
        needs: u64,
        /// Bytes that are free, and not promised to others.
        free: u64,
        /// Bytes that have to stay free.
        min_free: u64,
    },
    /// The system said no.
    #[error("can't {act} {path}: {source}")]
    Io {
        /// Which.
        path: RemotePath,
        /// To do what.
        act: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A tree that is written to, held open by its top.
#[derive(Debug)]
pub struct Store {
    root: OwnedFd,
    /// Where the root is, as it was given and with all links followed.
    paths: [PathBuf; 2],
    /// Would its link count say that the root was removed?
    counts_links: bool,
    umask: Umask,
    created: Mutex<Created>,
    temp_names: TempNames,
    boot: BootId,
    syncs: Syncs,
    shared: Arc<Shared>,
    allowance: Arc<Allowance>,
    /// Where it is recorded which folders may have temporary names in them, if it is.
    index: Option<Index>,
    /// What earlier processes recorded.
    adopted: Mutex<Vec<Found>>,
    /// What the first sync that failed said.
    sync_failed: OnceLock<Errno>,
}

impl Store {
    /// Opens the folder at `path`. The `umask` counts for files and folders that come without a mode
    /// of their own.
    ///
    /// # Errors
    /// It can't be opened, is no folder, or the kernel can't keep paths below it (Linux before 5.6).
    pub fn open(path: &Path, umask: Umask) -> io::Result<Self> {
        let paths = [path.canonicalize()?, std::path::absolute(path)?];
        let root = jail::open_root(path)?;
        let counts_links = !jail::is_removed(root.as_fd());
        Ok(Self {
            root,
            paths,
            counts_links,
            umask,
            created: Mutex::default(),
            temp_names: TempNames::default(),
            boot: records::this_boot(),
            syncs: Syncs::default(),
            shared: Arc::default(),
            allowance: Arc::default(),
            index: None,
            adopted: Mutex::default(),
            sync_failed: OnceLock::new(),
        })
    }

    /// Where its top was when it was opened, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        let [path, _] = &self.paths;
        path
    }

    /// The path that a name from the wire means.
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn resolve(&self, name: &[u8]) -> Result<RemotePath, Error> {
        Ok(RemotePath::below(&self.paths, name)?)
    }

    /// The path of a folder that a person named.
    ///
    /// # Errors
    /// [`Error::Path`].
    pub fn resolve_folder(&self, name: &[u8]) -> Result<RemotePath, Error> {
        Ok(RemotePath::below_loosely(&self.paths, name)?)
    }

    /// Makes a folder and those above it; one that is there is fine.
    ///
    /// # Errors
    /// Something else is there, or the system said no.
    pub fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        self.open_directory(path, None).map(drop)
    }

    /// Takes the root for this process alone, among those that ask for that; false where another has it.
    /// Where the file system has no locks there is nothing to take.
    #[must_use]
    pub fn take_root(&self) -> bool {
        rustix::fs::flock(&self.root, FlockOperation::NonBlockingLockExclusive) != Err(Errno::WOULDBLOCK)
    }

    /// Makes a folder that is somebody's home, which only the receiver may enter; one that is there is fine.
    ///
    /// # Errors
    /// As [`Store::make_directory`].
    pub fn make_home(&self, path: &RemotePath) -> Result<(), Error> {
        self.open_directory(path, Some((&Made::default(), PRIVATE))).map(drop)
    }

    /// Makes the folder that a job lands in, and those above it; tells whether it is new.
    ///
    /// # Errors
    /// As [`Store::make_directory`].
    pub fn open_base(&self, path: &RemotePath, made: &Made) -> Result<bool, Error> {
        if let Some((above, _)) = path.split() {
            // Nothing of the job will be in them: they are as they will be, but that it must get in.
            self.open_directory(&above, Some((made, self.umask.of(0o777) | PRIVATE)))?;
        }
        self.open_directory(path, Some((made, PRIVATE))).map(|(_, is_new)| is_new)
    }

    /// Is there no folder at `path`, nor anything else?
    ///
    /// # Errors
    /// Something else is there, or the system said no.
    pub fn is_missing(&self, path: &RemotePath) -> Result<bool, Error> {
        match jail::open_directory(self.root.as_fd(), path) {
            Ok(_) => Ok(false),
            Err(Errno::NOENT) => Ok(true),
            Err(errno) => Err(refusal(path, "open", errno)),
        }
    }

    /// Keeps in `state_folder` what of this root is known to be on the disk. What was not when the power
    /// failed is in doubt from now on. Where it can't be kept there, that is logged.
    pub fn keep_syncs_below(&self, state_folder: Option<&Path>) {
        if let Some(folder) = state_folder
            && let Err(error) = self.syncs.keep_in(folder, self.path(), self.boot)
        {
            tracing::warn!("{}: {error}; what a power failure damages is not found", Escaped::path(folder));
        }
    }

    /// Notes that a file was published.
    pub fn note_published(&self) {
        self.syncs.note_published();
    }

    /// Brings to the disk what was published since the last time, if there is something.
    pub fn sync_if_needed(&self) {
        if self.syncs.take_dirty()
            && let Err(error) = self.sync()
        {
            tracing::warn!("{error}");
        }
    }

    /// Waits until all that was written to the root's file system is on the disk. Once the disk has
    /// lost something, no later answer can be yes.
    ///
    /// # Errors
    /// What the system said, now or the first time.
    pub fn sync(&self) -> Result<(), Error> {
        let synced = match self.sync_failed.get() {
            Some(errno) => Err(*errno),
            // The kernel tells each error once on each descriptor: the next call would know of nothing.
            None => {
                let begun = doubt::now();
                let synced = rustix::fs::syncfs(&self.root);
                match synced {
                    Ok(()) => self.syncs.note_synced(begun),
                    Err(errno) => _ = self.sync_failed.set(errno),
                }
                synced
            }
        };
        synced.map_err(|errno| refusal(&RemotePath::root(), "sync", errno))
    }

    /// Opens a folder, making what is missing; tells whether it is new. What is made for a job is noted,
    /// and gets this mode.
    fn open_directory(&self, path: &RemotePath, job: Option<(&Made, u32)>) -> Result<(OwnedFd, bool), Error> {
        let error = |act, errno: Errno| folder_refusal(path, act, errno);
        if path.is_root() && self.counts_links && jail::is_removed(self.root.as_fd()) {
            return Err(error("open", Errno::NOENT));
        }
        // As deep as a path is long: in a loop, for a thread's stack is short.
        let mut missing = Vec::new();
        let mut above = path.clone();
        let mut folder = loop {
            match (jail::open_directory(self.root.as_fd(), &above), above.split()) {
                (Err(Errno::NOENT), Some((further, name))) => {
                    let name = name.to_owned();
                    missing.push((std::mem::replace(&mut above, further), name));
                }
                (opened, _) => break opened.map_err(|errno| error("open", errno))?,
            }
        };
        let mut is_new = false;
        while let Some((whole, name)) = missing.pop() {
            let making = match job {
                Some((made, mode)) => made.make(folder.as_fd(), &name, whole, mode),
                None => jail::make_directory(folder.as_fd(), &name, self.umask.of(0o777)),
            };
            is_new = match making {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(errno) => return Err(error("make", errno)),
            };
            folder = jail::open_child(folder.as_fd(), &name).map_err(|errno| error("open", errno))?;
        }
        Ok((folder, is_new))
    }

    /// Creates an empty file, and the folders above it. A file that is there gets the name
    /// `NAME_<unix time with fraction>` first.
    ///
    /// # Errors
    /// Something that is no regular file is there, or the system said no.
    pub fn create(&self, path: &RemotePath) -> Result<(), Error> {
        let (above, name) = path.split().ok_or_else(|| Error::Refused { path: path.clone(), what: "the root" })?;
        let file = self.create_new(path, &above, name)?;
        let key = self.key(path, &file)?;
        lock(&self.created).insert(key);
        Ok(())
    }

    fn create_new(&self, path: &RemotePath, above: &RemotePath, name: &OsStr) -> Result<File, Error> {
        let create = || jail::create_file(self.root.as_fd(), path, self.umask.of(0o666));
        match create() {
            Ok(file) => return Ok(file),
            Err(Errno::NOENT | Errno::EXIST) => {}
            Err(errno) => return Err(refusal(path, "create", errno)),
        }
        let (above, _) = self.open_directory(above, None)?;
        let mut errno = Errno::EXIST;
        // Others may create the same name at the same moment: theirs is set aside as well.
        for _ in 0..CREATE_TRIES_MAX {
            let kept = aside::set_aside(above.as_fd(), name, path)?;
            match create() {
                Ok(file) => return Ok(file),
                Err(other) => errno = other,
            }
            if errno != Errno::EXIST {
                // What is refused changes nothing.
                if let Some(kept) = kept {
                    aside::put_back(above.as_fd(), &kept, name);
                }
                break;
            }
        }
        Err(refusal(path, "create", errno))
    }

    /// Opens a file that [`Store::create`] made under this path since the store was opened.
    ///
    /// # Errors
    /// It is another file, or something else, or the system said no.
    pub fn open_created(&self, path: &RemotePath) -> Result<File, Error> {
        let file = jail::open_file(self.root.as_fd(), path, OFlags::WRONLY).map_err(|errno| refusal(path, "open", errno))?;
        let key = self.key(path, &file)?;
        if !lock(&self.created).contains(&key) {
            return Err(Error::Refused { path: path.clone(), what: "not a file that was created since this receiver started" });
        }
        Ok(file)
    }

    fn key(&self, path: &RemotePath, file: &File) -> Result<Key, Error> {
        Key::of(path, file).map_err(|errno| refusal(path, "look at", errno))
    }
}

/// A poisoned lock's content is whole: nothing here panics half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a folder can't be had.
fn folder_refusal(path: &RemotePath, act: &'static str, errno: Errno) -> Error {
    let what = match errno {
        Errno::NOTDIR => "not a folder, or below something that is not",
        Errno::LOOP => "a symbolic link, or below one",
        _ => return Error::Io { path: path.clone(), act, source: errno.into() },
    };
    Error::Refused { path: path.clone(), what }
}

/// Why a file can't be had.
fn refusal(path: &RemotePath, act: &'static str, errno: Errno) -> Error {
    let what = match errno {
        Errno::LOOP | Errno::XDEV => "a symbolic link, or below one",
        Errno::NOTDIR => "below something that is not a folder",
        Errno::ISDIR => what_is(FileType::Directory),
        // What opening a FIFO or a socket for writing answers.
        Errno::NXIO => "not a regular file",
        _ => return Error::Io { path: path.clone(), act, source: errno.into() },
    };
    Error::Refused { path: path.clone(), what }
}

fn what_is(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::RegularFile => "a file",
        _ => "not a regular file",
    }
}

/// The locks of the ledger: those of a schedule checker take their place where it is tested.
mod sync {
    pub(super) use std::sync::{Arc, Mutex, MutexGuard};
}

#[cfg(test)]
mod costs;
#[cfg(test)]
mod quota_tests;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod yard;
