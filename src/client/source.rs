//! The files of the source tree: opened, and told apart from what they were.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use twox_hash::XxHash3_128;

use crate::digest::Digest;
use crate::entry::{Identity, Time};
use crate::limits::{MACHINE_ID_LEN_MAX, MACHINE_ID_LEN_MIN};
use crate::path::RemotePath;
use crate::stop::Stop;
use crate::store::hash_file;

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

/// The identity of a file in its present state.
#[must_use]
pub(super) fn identify(metadata: &Metadata) -> Identity {
    let nanoseconds = |number: i64| u32::try_from(number).unwrap_or_default();
    let changed = (metadata.ctime(), nanoseconds(metadata.ctime_nsec()));
    let mtime = (metadata.mtime(), nanoseconds(metadata.mtime_nsec()));
    Identity { size: metadata.size(), mtime, tag: tag_of(metadata.dev(), metadata.ino(), changed) }
}

/// The same from what the walk saw.
#[must_use]
pub(super) fn identify_seen(seen: &Statx) -> Identity {
    let changed = (seen.stx_ctime.tv_sec, seen.stx_ctime.tv_nsec);
    let mtime = (seen.stx_mtime.tv_sec, seen.stx_mtime.tv_nsec);
    Identity { size: seen.stx_size, mtime, tag: tag_of(device_of(seen), seen.stx_ino, changed) }
}

/// The file system that a name is in.
#[must_use]
pub(super) fn device_of(seen: &Statx) -> u64 {
    rustix::fs::makedev(seen.stx_dev_major, seen.stx_dev_minor)
}

/// Which file of which machine, in which state. It is asked for twice a file, and nobody gains by
/// forging it: a fast hash will do.
fn tag_of(device: u64, inode: u64, changed: Time) -> [u8; 16] {
    let mut bytes = [0; 48];
    bytes[..16].copy_from_slice(machine());
    let numbers = [device, inode, changed.0.cast_unsigned(), u64::from(changed.1)];
    for (place, number) in bytes[16..].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    XxHash3_128::oneshot(&bytes).to_be_bytes()
}

/// What stands for this machine in a tag, so that equal inodes of two machines are two files. The
/// id itself is not to leave the machine (machine-id(5)), and a fast hash might be turned back.
fn machine() -> &'static [u8; 16] {
    static MACHINE: OnceLock<[u8; 16]> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let ids = ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"];
        let id = ids.iter().find_map(|file| read_machine_id(Path::new(file)));
        Digest::of(&[b"parallel-transfer ", &id.unwrap_or_default()[..]].concat()).0
    })
}

/// An id from a file; `None` where there is none, or only a word instead (`uninitialized`).
#[allow(clippy::disallowed_methods, reason = "it is no source file, and what is read has a bound")]
fn read_machine_id(file: &Path) -> Option<Vec<u8>> {
    let mut id = Vec::new();
    File::open(file).ok()?.take(MACHINE_ID_LEN_MAX).read_to_end(&mut id).ok()?;
    let id = id.trim_ascii();
    (id.len() >= MACHINE_ID_LEN_MIN).then(|| id.to_vec())
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

    #[test]
    fn times_before_1970_and_every_number_count() {
        let tags =
            [tag_of(1, 2, (3, 4)), tag_of(2, 2, (3, 4)), tag_of(1, 3, (3, 4)), tag_of(1, 2, (-3, 4)), tag_of(1, 2, (3, 5))];
        let different: std::collections::HashSet<_> = tags.iter().collect();
        assert_eq!(different.len(), tags.len());
        let file = tempfile::NamedTempFile::new().unwrap();
        let old = std::time::UNIX_EPOCH - std::time::Duration::from_millis(1500);
        file.as_file().set_modified(old).unwrap();
        let identity = identify(&file.as_file().metadata().unwrap());
        assert_eq!(identity.mtime, (-2, 500_000_000));
        assert_eq!(identity, identify_seen(&look_at(&file).unwrap()));
    }

    #[test]
    fn a_machine_id_is_read_to_a_bound_and_may_be_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        for (content, read) in [(format!("{id}\n"), Some(id)), ("uninitialized\n".to_owned(), None), (String::new(), None)] {
            fs::write(file.path(), content).unwrap();
            assert_eq!(read_machine_id(file.path()).as_deref(), read.map(str::as_bytes));
        }
        fs::write(file.path(), "x".repeat(1000)).unwrap();
        assert_eq!(read_machine_id(file.path()).unwrap().len() as u64, MACHINE_ID_LEN_MAX);
        assert_eq!(read_machine_id(Path::new("/no/such/file")), None);
        assert!(read_machine_id(Path::new("/proc/sys/kernel/random/boot_id")).is_some());
    }
}
