//! The served tree: the only way to it. Knows disks; knows no wire and nobody at its other end.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod created;
mod jail;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::limits::{BACKUP_TRIES_MAX, CREATE_TRIES_MAX, NAME_LEN_MAX};
use crate::path::{PathError, RemotePath};
use created::{Created, Key};

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
    created: Mutex<Created>,
}

impl Store {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// It can't be opened, is no folder, or the kernel can't keep paths below it (Linux before 5.6).
    pub fn open(path: &Path) -> io::Result<Self> {
        let paths = [path.canonicalize()?, std::path::absolute(path)?];
        let root = jail::open_root(path)?;
        let counts_links = !jail::is_removed(root.as_fd());
        Ok(Self { root, paths, counts_links, created: Mutex::default() })
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

    /// Makes a folder and those above it; one that is there is fine.
    ///
    /// # Errors
    /// Something else is there, or the system said no.
    pub fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        self.open_directory(path).map(drop)
    }

    /// Opens a folder, making what is missing.
    fn open_directory(&self, path: &RemotePath) -> Result<OwnedFd, Error> {
        let error = |act, errno: Errno| match errno {
            Errno::NOTDIR => Error::Refused { path: path.clone(), what: "not a folder, or below something that is not" },
            Errno::LOOP => Error::Refused { path: path.clone(), what: "a symbolic link, or below one" },
            _ => Error::Io { path: path.clone(), act, source: errno.into() },
        };
        if path.is_root() && self.counts_links && jail::is_removed(self.root.as_fd()) {
            return Err(error("open", Errno::NOENT));
        }
        // As deep as a path is long: in a loop, for a thread's stack is short.
        let mut missing = Vec::new();
        let mut above = path.clone();
        let mut folder = loop {
            match (jail::open_directory(self.root.as_fd(), &above), above.split()) {
                (Err(Errno::NOENT), Some((further, name))) => {
                    missing.push(name.to_owned());
                    above = further;
                }
                (opened, _) => break opened.map_err(|errno| error("open", errno))?,
            }
        };
        while let Some(name) = missing.pop() {
            match jail::make_directory(folder.as_fd(), &name) {
                Err(Errno::EXIST) | Ok(()) => {}
                Err(errno) => return Err(error("make", errno)),
            }
            folder = jail::open_child(folder.as_fd(), &name).map_err(|errno| error("open", errno))?;
        }
        Ok(folder)
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
        match jail::create_file(self.root.as_fd(), path) {
            Ok(file) => return Ok(file),
            Err(Errno::NOENT | Errno::EXIST) => {}
            Err(errno) => return Err(refusal(path, "create", errno)),
        }
        let above = self.open_directory(above)?;
        let mut errno = Errno::EXIST;
        // Others may create the same name at the same moment: theirs is set aside as well.
        for _ in 0..CREATE_TRIES_MAX {
            let kept = set_aside(above.as_fd(), name, path)?;
            match jail::create_file(self.root.as_fd(), path) {
                Ok(file) => return Ok(file),
                Err(other) => errno = other,
            }
            if errno != Errno::EXIST {
                // What is refused changes nothing.
                if let Some(kept) = kept {
                    let _ = jail::rename_to_new(above.as_fd(), &kept, name);
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

/// Gives what has the name another one, if it is a regular file, and tells which; nothing there is
/// fine.
fn set_aside(above: BorrowedFd<'_>, name: &OsStr, path: &RemotePath) -> Result<Option<OsString>, Error> {
    let kind = match jail::kind_of(above, name) {
        Err(Errno::NOENT) => return Ok(None),
        kind => kind.map_err(|errno| refusal(path, "look at", errno))?,
    };
    if kind != FileType::RegularFile {
        return Err(Error::Refused { path: path.clone(), what: what_is(kind) });
    }
    let mut errno = Errno::EXIST;
    for _ in 0..BACKUP_TRIES_MAX {
        let kept = backup_name(name);
        match jail::rename_to_new(above, name, &kept) {
            Err(Errno::EXIST) => errno = Errno::EXIST,
            Ok(()) => return Ok(Some(kept)),
            // Another one set it aside at the same moment.
            Err(Errno::NOENT) => return Ok(None),
            Err(other) => return Err(refusal(path, "keep the old version of", other)),
        }
    }
    Err(refusal(path, "keep the old version of", errno))
}

/// A poisoned lock's content is whole: nothing here panics half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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

/// `NAME_<unix time with fraction>`; the name gives way where both would be too long.
fn backup_name(name: &OsStr) -> OsString {
    #[allow(clippy::disallowed_methods, reason = "the time is part of the name")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let suffix = format!("_{}.{:09}", now.as_secs(), now.subsec_nanos());
    let keep = name.len().min(NAME_LEN_MAX.saturating_sub(suffix.len()));
    let kept = name.as_bytes().get(..keep).unwrap_or_default();
    // A character cut in two would make a name of text one that is not.
    let cut = match str::from_utf8(kept) {
        Err(error) if error.error_len().is_none() && str::from_utf8(name.as_bytes()).is_ok() => error.valid_up_to(),
        _ => keep,
    };
    let mut backup = kept.get(..cut).unwrap_or_default().to_vec();
    backup.extend_from_slice(suffix.as_bytes());
    OsString::from_vec(backup)
}
