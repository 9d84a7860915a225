//! The files of the source tree: opened, and told apart from what they were.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};

use crate::entry::Identity;
use crate::path::RemotePath;
use crate::stop::Stop;
use crate::store::{hash_file, identify};

/// How a source file is opened: follows no link and waits for nobody, whatever has taken its place.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// How a source folder is opened.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Where the entries of a job are read from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A folder: the entries are below it.
    Tree(Top),
    /// A file, which is the only entry, under whatever name.
    File(PathBuf),
}

impl Source {
    /// The tree below `path`.
    ///
    /// # Errors
    /// It is no folder, or not readable.
    pub(super) fn tree(path: PathBuf) -> io::Result<Self> {
        Ok(Self::Tree(Top::open(path)?))
    }

    /// Opens an entry's file for reading. Follows no link and waits for nobody, whatever has taken
    /// the file's place since it was listed.
    ///
    /// # Errors
    /// Those of `open(2)`.
    #[allow(clippy::disallowed_methods, reason = "this is where source files are opened")]
    pub(super) fn open(&self, path: &RemotePath) -> io::Result<File> {
        match self {
            Self::Tree(top) => Ok(File::from(top.open_below(path.as_path(), FILE)?)),
            Self::File(file) => OpenOptions::new().read(true).custom_flags(FILE.bits().cast_signed()).open(file),
        }
    }
}

impl Source {
    /// Are these names of one file?
    pub(super) fn are_one(&self, one: &RemotePath, other: &RemotePath) -> bool {
        let id = |path| self.open(path).and_then(|file| file.metadata()).map(|about| (about.dev(), about.ino()));
        matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
    }

    /// The BLAKE3 digest of an entry's file, of which `identity` was seen.
    ///
    /// # Errors
    /// It can't be read, is another one by now, or is not waited for any more.
    pub(super) fn digest(&self, path: &RemotePath, identity: &Identity, stop: &Stop) -> io::Result<[u8; 32]> {
        let file = self.open(path)?;
        let mut going = || if stop.is_asked() { Err(io::Error::other("stopped")) } else { Ok(()) };
        let digest = hash_file(&file, &mut going)?;
        if identify(&file.metadata()?) != *identity {
            return Err(io::Error::other("it changed meanwhile"));
        }
        Ok(digest)
    }
}

/// The top folder of a source tree, held open.
///
/// What is below it is opened relative to it: up to a quarter of the time of `open(2)` went into
/// the path above the tree, and a path that the tree allows may be too long together with that.
#[derive(Debug, Clone)]
pub(super) struct Top {
    path: PathBuf,
    folder: Arc<OwnedFd>,
}

impl Top {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// It is no folder, or not readable.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let folder = rustix::fs::openat(CWD, &path, FOLDER, Mode::empty())?;
        Ok(Self { path, folder: Arc::new(folder) })
    }

    /// The folder's path on this machine.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a folder of the tree; `.` is the top itself.
    ///
    /// # Errors
    /// Those of `openat2(2)`.
    pub(super) fn open_folder(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_below(path, FOLDER)
    }

    /// No name in `path` may have become a link since it was listed: none was.
    fn open_below(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    }
}

/// Opens a file or folder that was seen in `folder`, to ask what else is known of it.
///
/// # Errors
/// Those of `openat(2)`.
pub(super) fn open_in(folder: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(folder, name, FILE, Mode::empty())
}

/// Looks at a name in a folder, at the link itself where it is one.
///
/// # Errors
/// Those of `statx(2)`.
pub(super) fn look_in(folder: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<Statx> {
    rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)
}

/// Looks at what is open.
///
/// # Errors
/// Those of `statx(2)`.
pub(super) fn look_at(open: impl AsFd) -> rustix::io::Result<Statx> {
    rustix::fs::statx(open, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

/// What is there instead of a regular file, for a person.
#[must_use]
pub(super) fn describe_special(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a symbolic link",
        _ => "not a regular file",
    }
}

/// Would a copy of `file` into the folder `target` on this machine land on or in `file` itself?
///
/// # Errors
/// `file` can't be looked at.
pub fn lands_in_itself(file: &Path, target: &Path) -> io::Result<bool> {
    let real = file.canonicalize()?;
    // What is missing of the target will be made below what is there.
    let target = std::path::absolute(target)?;
    let there = |path: &&Path| path.canonicalize().is_ok();
    let Some(existing) = target.ancestors().find(there) else { return Ok(false) };
    if real.is_dir() {
        return Ok(existing.canonicalize()?.starts_with(&real));
    }
    let landing = file.file_name().map(|name| target.join(name));
    Ok(landing.and_then(|landing| landing.canonicalize().ok()).is_some_and(|landing| landing == real))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::identify_seen;

    #[test]
    fn the_walk_and_the_worker_see_one_identity_until_the_file_changes() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("file");
        fs::write(&path, "content").unwrap();
        let source = Source::tree(top.path().to_path_buf()).unwrap();
        let name = RemotePath::parse(b"file").unwrap();
        let opened = |name| identify(&source.open(name).unwrap().metadata().unwrap());
        let before = identify_seen(&look_in(CWD, &path).unwrap());
        assert_eq!((opened(&name), before.size), (before, 7));
        // C20: the same name, size and time, but another file.
        let times = fs::metadata(&path).unwrap().modified().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "CONTENT").unwrap();
        source.open(&name).unwrap().set_modified(times).unwrap();
        let after = opened(&name);
        assert_eq!((after.size, after.mtime), (before.size, before.mtime));
        assert_ne!(after.tag, before.tag);
        // Or the same file, written and with its time set back.
        fs::write(&path, "CoNtEnT").unwrap();
        source.open(&name).unwrap().set_modified(times).unwrap();
        assert_ne!(opened(&name).tag, after.tag);
    }
}
