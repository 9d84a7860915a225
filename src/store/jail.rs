//! System calls that stay below a folder held open: through no `..`, no link, no special file.
//!
//! `openat2(2)` does the whole walk in the kernel, so no rename by anybody can slip a link under
//! it half-way.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Statx, StatxFlags, statx};
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
pub(super) fn make_directory(above: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<(), Errno> {
    rustix::fs::mkdirat(above, name, Mode::from_raw_mode(mode))
}

/// Opens a folder to change its attributes, and faster to work in than one open only to find things.
pub(super) fn open_readable(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    open_below(root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// Creates a file that was not there, for writing.
pub(super) fn create_file(root: BorrowedFd<'_>, path: &RemotePath, mode: u32) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    open_below(root, path.as_path(), flags, Mode::from_raw_mode(mode)).map(File::from)
}

/// Creates a file with a name of its own in an open folder, where there was none of that name.
pub(super) fn create_child(above: BorrowedFd<'_>, name: &OsStr, access: OFlags, mode: u32) -> Result<File, Errno> {
    let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::from_raw_mode(mode)).map(File::from)
}

/// Opens what has this name in an open folder, for reading. Waits for nobody, follows no link.
pub(super) fn open_child_file(above: BorrowedFd<'_>, name: &OsStr) -> Result<File, Errno> {
    open_child_for(above, name, OFlags::RDONLY)
}

/// The same for any access.
pub(super) fn open_child_for(above: BorrowedFd<'_>, name: &OsStr, access: OFlags) -> Result<File, Errno> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty()).map(File::from)
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

/// All about what has this name in an open folder; a link is a link.
pub(super) fn look(above: BorrowedFd<'_>, name: &OsStr) -> Result<Statx, Errno> {
    statx(above, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
}

/// All about an open file.
pub(super) fn look_at(file: BorrowedFd<'_>) -> Result<Statx, Errno> {
    statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

/// Are these of one file, whatever its names?
pub(super) fn is_one(one: &Statx, other: &Statx) -> bool {
    let inode = |stat: &Statx| (stat.stx_ino, stat.stx_dev_major, stat.stx_dev_minor);
    inode(one) == inode(other)
}

/// Is it a regular file of this process's user that has no other name?
pub(super) fn is_own(about: &Statx) -> bool {
    FileType::from_raw_mode(about.stx_mode.into()) == FileType::RegularFile
        && about.stx_uid == rustix::process::geteuid().as_raw()
        && about.stx_nlink == 1
}

/// Lets the owner of a file, and nobody else, read and write it, if that is this process's user and
/// the file has no other name. Through no link, whatever has that name by now.
pub(super) fn let_owner_write(above: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let file = rustix::fs::openat(above, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if !is_own(&look_at(file.as_fd())?) {
        return Err(Errno::ACCESS);
    }
    // What is open only to be found has no mode to be changed but by this name.
    rustix::fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), Mode::RUSR | Mode::WUSR)
}

/// Takes a name that is no folder's out of an open folder.
pub(super) fn remove(above: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::unlinkat(above, name, AtFlags::empty())
}

/// Takes the name of an empty folder out of an open one.
pub(super) fn remove_directory(above: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR)
}

/// Gives `name` to what was `temp`; whatever had that name goes, unless it is a folder (`ISDIR`).
pub(super) fn rename_over(above: BorrowedFd<'_>, temp: &OsStr, name: &OsStr) -> Result<(), Errno> {
    rustix::fs::renameat(above, temp, above, name)
}

/// Gives `name` a second name in the same folder, or a new one where it can't have two; what has that
/// name stays what it is (`EXIST`).
pub(super) fn link_to_new(above: BorrowedFd<'_>, name: &OsStr, new: &OsStr) -> Result<(), Errno> {
    match rustix::fs::linkat(above, name, above, new, AtFlags::empty()) {
        Ok(()) => Ok(()),
        Err(errno @ (Errno::EXIST | Errno::NOENT)) => Err(errno),
        // A file system without links, a file that has too many, or one of somebody else's.
        Err(_) => rename_to_new(above, name, new),
    }
}

/// Gives `name` a new name in the same folder; what has that name stays what it is (`EXIST`).
pub(super) fn rename_to_new(above: BorrowedFd<'_>, name: &OsStr, new: &OsStr) -> Result<(), Errno> {
    move_to_new((above, name), (above, new))
}

/// The same for a name in another open folder.
pub(super) fn move_to_new((from, name): (BorrowedFd<'_>, &OsStr), (to, new): (BorrowedFd<'_>, &OsStr)) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
        // Some file systems know no such rename.
        Err(Errno::INVAL | Errno::NOSYS) if kind_of(from, name)? == FileType::Directory => match kind_of(to, new) {
            Ok(_) => Err(Errno::EXIST),
            // A folder takes no place but that of an empty one.
            Err(Errno::NOENT) => rustix::fs::renameat(from, name, to, new),
            Err(errno) => Err(errno),
        },
        // A second link does not replace either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(from, name, to, new, AtFlags::empty())?;
            rustix::fs::unlinkat(from, name, AtFlags::empty())
        }
        renamed => renamed,
    }
}
