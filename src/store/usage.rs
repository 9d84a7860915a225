//! What is below a root, counted from the disk: the truth that a ledger begins with.
//!
//! Everything but a folder counts as a file, by the size that `lstat` tells: of a symbolic link that is
//! the length of its target. A file counts once, whatever its names. Of one that is still being received
//! what its journal says is there; the journal itself is this program's own note, and counts as nothing.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::jail;
use super::journal::Journal;
use super::quota::{Inode, Usage};
use super::temp::TempName;
use crate::limits::LINKED_FILES_MAX;
use crate::path::Escaped;
use crate::ranges::Ranges;

fn is_folder(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory
}

fn inode_of(stat: &Statx) -> Inode {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

/// What goes with this name in an open folder; nothing with one of a folder, nor with one of several.
pub(super) fn behind(folder: BorrowedFd<'_>, name: &OsStr) -> Option<(Inode, Usage)> {
    let stat = jail::look(folder, name).ok()?;
    only_name(&stat).then(|| (inode_of(&stat), Usage::file(stat.stx_size)))
}

/// Is it a file, and this name the only one?
pub(super) fn only_name(stat: &Statx) -> bool {
    !is_folder(stat) && stat.stx_nlink <= 1
}

/// Bytes that a file under a temporary name counts as.
pub(super) fn of_incoming(folder: BorrowedFd<'_>, temp: TempName, stat: &Statx) -> u64 {
    said_of(folder, temp).map_or(stat.stx_size, |said| total(&said).min(stat.stx_size))
}

/// What the journal beside a temporary name says is there of its file; none where it says nothing.
pub(super) fn said_of(folder: BorrowedFd<'_>, temp: TempName) -> Option<Ranges> {
    let journal = jail::open_child_file(folder, temp.journal().as_name()).ok()?;
    let (_, said) = Journal::look_closely(&journal).ok()??;
    let mut ranges = Ranges::default();
    // In too many pieces it counts as if all were there, now and whenever it is looked at again.
    said.into_iter().try_for_each(|range| ranges.insert(range)).ok()?;
    Some(ranges)
}

pub(super) fn total(ranges: &Ranges) -> u64 {
    ranges.iter().fold(0, |sum, Range { start, end }| sum.saturating_add(end.saturating_sub(start)))
}

/// Counts what is below `root`. What can't be looked at counts as nothing, and is named in the log.
///
/// # Errors
/// The root itself can't be listed.
pub(super) fn count(root: BorrowedFd<'_>) -> io::Result<Usage> {
    let mut counting = Counting::default();
    let mut path = PathBuf::from(".");
    let mut waiting = vec![counting.enter(jail::open_readable(root, &path)?.as_fd())?];
    while let Some(names) = waiting.last_mut() {
        let Some(name) = names.pop() else {
            waiting.pop();
            path.pop();
            continue;
        };
        path.push(OsStr::from_bytes(&name));
        let entered = jail::open_readable(root, &path).map_err(io::Error::from);
        match entered.and_then(|folder| counting.enter(folder.as_fd())) {
            Ok(names) => waiting.push(names),
            Err(error) => {
                if Errno::from_io_error(&error) != Some(Errno::NOENT) {
                    tracing::warn!("'{}' does not count for the quota: {error}", Escaped::path(&path));
                }
                path.pop();
            }
        }
    }
    Ok(counting.usage)
}

/// Names of the folders in one folder. A million of them are one allocation.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<u8>);

impl Names {
    pub(super) fn push(&mut self, name: &[u8]) {
        self.0.extend_from_slice(name);
        self.0.push(0);
    }

    /// Bytes that they take.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.0.pop()?;
        let start = self.0.iter().rposition(|byte| *byte == 0).map_or(0, |end| end.saturating_add(1));
        Some(self.0.split_off(start))
    }
}

#[derive(Debug, Default)]
struct Counting {
    usage: Usage,
    /// Files that have names that were not met yet, and how many.
    linked: HashMap<Inode, u32>,
}

impl Counting {
    /// Counts what is in a folder; gives the names of those in it.
    fn enter(&mut self, folder: BorrowedFd<'_>) -> io::Result<Names> {
        let mut names = Names::default();
        for entry in rustix::fs::Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            match entry.file_type() {
                _ if matches!(name, b"." | b"..") => {}
                FileType::Directory => names.push(name),
                _ => match jail::look(folder, OsStr::from_bytes(name)) {
                    Ok(stat) if is_folder(&stat) => names.push(name),
                    Ok(stat) => self.add(folder, name, &stat),
                    // Gone meanwhile.
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                },
            }
        }
        Ok(names)
    }

    fn add(&mut self, folder: BorrowedFd<'_>, name: &[u8], stat: &Statx) {
        let is_file = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
        let bytes = match TempName::parse(name).filter(|_| is_file) {
            Some(temp) if temp.as_name().as_bytes() != name => return,
            Some(temp) => of_incoming(folder, temp, stat),
            None => stat.stx_size,
        };
        if stat.stx_nlink > 1 && self.is_counted(inode_of(stat), stat.stx_nlink) {
            return;
        }
        self.usage = self.usage.plus(Usage::file(bytes));
    }

    /// Was a file of several names counted with another one?
    fn is_counted(&mut self, inode: Inode, names: u32) -> bool {
        let Some(unmet) = self.linked.get_mut(&inode) else {
            if self.linked.len() < LINKED_FILES_MAX {
                self.linked.insert(inode, names.saturating_sub(1));
            }
            return false;
        };
        *unmet = unmet.saturating_sub(1);
        if *unmet == 0 {
            self.linked.remove(&inode);
        }
        true
    }
}

/// Gives the disk back what it keeps ready for bytes of a file that are not there.
pub(super) fn give_back_room(file: &File, there: &Ranges, size: u64) {
    use rustix::fs::{FallocateFlags, fallocate};
    for range in there.missing(size) {
        let len = range.end.saturating_sub(range.start);
        if fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range.start, len).is_err() {
            return;
        }
    }
}
