//! System calls that stay below a folder held open: through no `..`, no link, no special file.
//!
//! `openat2(2)` does the whole walk in the kernel, so no rename by anybody can slip a link under
//! it half-way.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use crate::limits::RESOLVE_TRIES_MAX;
use crate::path::RemotePath;

/// Opens the top of a tree, and finds out whether this kernel can keep to it.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match open_directory(root.as_fd(), &RemotePath::root()) {
        Err(Errno::NOSYS) => Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel has no openat2 (Linux 5.6 has)")),
        Err(Errno::PERM) => Err(io::Error::new(io::ErrorKind::Unsupported, "this sandbox does not let openat2 through")),
        opened => Ok(opened.map(|_| root)?),
    }
}

fn open_below(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RESOLVE_TRIES_MAX {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a folder, to find things in.
pub(super) fn open_directory(root: BorrowedFd<'_>, path: &RemotePath) -> Result<OwnedFd, Errno> {
    open_below(root, path.as_path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

/// Has an open folder no name any more? (A file system that counts no links says so of every one.)
pub(super) fn is_removed(folder: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(folder).is_ok_and(|stat| stat.st_nlink == 0)
}

/// Opens a folder that has a name in an open one.
pub(super) fn open_child(above: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    open_below(above, Path::new(name), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

/// Makes a folder with a name of its own in an open one.
pub(super) fn make_directory(above: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o777))
}

/// Creates a file that was not there, for writing.
pub(super) fn create_file(root: BorrowedFd<'_>, path: &RemotePath) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    open_below(root, path.as_path(), flags, Mode::from_raw_mode(0o666)).map(File::from)
}

/// Opens a file that is there. Waits for nobody: not for a FIFO's other end, not for a device.
pub(super) fn open_file(root: BorrowedFd<'_>, path: &RemotePath, flags: OFlags) -> Result<File, Errno> {
    open_below(root, path.as_path(), flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty()).map(File::from)
}

/// What has this name in an open folder; a link is a link.
pub(super) fn kind_of(above: BorrowedFd<'_>, name: &OsStr) -> Result<FileType, Errno> {
    let stat = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// Gives `name` a new name in the same folder; what has that name stays what it is (`EXIST`).
pub(super) fn rename_to_new(above: BorrowedFd<'_>, name: &OsStr, new: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(above, name, above, new, RenameFlags::NOREPLACE) {
        // Some file systems know no such rename; a second link does not replace either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(above, name, above, new, AtFlags::empty())?;
            rustix::fs::unlinkat(above, name, AtFlags::empty())
        }
        renamed => renamed,
    }
}
