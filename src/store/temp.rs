//! Files that are still being received, and links before they are in place: their names, and how they
//! are created.

use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::attributes::MODE_MASK;
use super::folders::Folder;
use super::index::parse_half;
use super::jail;
use super::kept::Kept;
use crate::digest;
use crate::entry::{FileMeta, Identity};
use crate::limits::TEMP_TRIES_MAX;
use crate::path::{RemotePath, TEMP_PREFIX};
use crate::ranges::Ranges;

/// Permission to write for the owner.
const OWNER_WRITES: u32 = 0o200;

/// Permission to read.
const OWNER_READS: u32 = 0o400;

/// A name that no path may have: the prefix and 32 hex digits, whatever the name that it stands in
/// for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TempName([u8; TEMP_NAME_LEN]);

const TEMP_NAME_LEN: usize = TEMP_PREFIX.len() + 32;

impl TempName {
    fn new(high: u64, low: u64) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut name = [0; TEMP_NAME_LEN];
        let halves = [high.to_be_bytes(), low.to_be_bytes()];
        let nibbles = halves.iter().flatten().flat_map(|byte| [byte >> 4, byte & 15]);
        let digits = nibbles.filter_map(|nibble| DIGITS.get(usize::from(nibble)));
        for (place, byte) in name.iter_mut().zip(TEMP_PREFIX.iter().chain(digits)) {
            *place = *byte;
        }
        Self(name)
    }

    /// The name that this state of a file always gets: what an earlier process left under it is found
    /// again.
    pub(super) fn of(path: &RemotePath, identity: &Identity) -> Self {
        let Identity { size, mtime: (seconds, nanoseconds), tag } = identity;
        let state = [&size.to_be_bytes()[..], &seconds.to_be_bytes(), &nanoseconds.to_be_bytes(), tag, path.as_bytes()];
        let [high, low] = digest::name_of(&state.concat());
        Self::new(high, low)
    }

    /// The temporary name that this is, or that the journal of this name is beside.
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        let name = name.strip_suffix(&[JOURNAL_SUFFIX]).unwrap_or(name);
        let (high, low) = name.strip_prefix(TEMP_PREFIX)?.split_at_checked(16)?;
        Some(Self::new(parse_half(high)?, parse_half(low)?))
    }

    /// The first half of its digits: if it is of a file that comes in one piece, that of its process.
    pub(super) fn half(&self) -> u64 {
        let digits = self.0.get(TEMP_PREFIX.len()..).and_then(|digits| digits.get(..16));
        digits.and_then(parse_half).unwrap_or_default()
    }

    /// The name of the journal beside it.
    pub(super) fn journal(&self) -> JournalName {
        let mut name = [JOURNAL_SUFFIX; JOURNAL_NAME_LEN];
        name.iter_mut().zip(&self.0).for_each(|(place, byte)| *place = *byte);
        JournalName(name)
    }

    pub(super) fn as_name(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

/// A temporary name with one letter more.
pub(super) struct JournalName([u8; JOURNAL_NAME_LEN]);

const JOURNAL_NAME_LEN: usize = TEMP_NAME_LEN + 1;
const JOURNAL_SUFFIX: u8 = b'j';

impl JournalName {
    pub(super) fn as_name(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

/// Gives names that nobody had before: a random half and a counter.
#[derive(Debug)]
pub(super) struct TempNames {
    random: u64,
    next: AtomicU64,
}

impl Default for TempNames {
    fn default() -> Self {
        Self { random: RandomState::new().hash_one(()), next: AtomicU64::new(0) }
    }
}

impl TempNames {
    /// What all of them begin with.
    pub(super) fn half(&self) -> u64 {
        self.random
    }

    pub(super) fn next(&self) -> TempName {
        TempName::new(self.random, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// A file that was created under a temporary name.
pub(super) struct Begun {
    pub(super) folder: Arc<Folder>,
    pub(super) temp: TempName,
    pub(super) file: File,
    pub(super) late_mode: Option<u32>,
    /// Its journal, if it has one, and what that says is there.
    pub(super) kept: Option<(Kept, Ranges)>,
}

/// How a temporary file is created.
pub(super) struct Creation<'a> {
    folder: &'a Arc<Folder>,
    access: OFlags,
    mode: u32,
    late_mode: Option<u32>,
}

impl<'a> Creation<'a> {
    pub(super) fn new(folder: &'a Arc<Folder>, meta: &FileMeta) -> Self {
        let mode = u32::from(meta.attributes.mode) & MODE_MASK;
        // Extended attributes are put only on what may be written to.
        let is_late = !folder.keeps_modes || (!meta.attributes.xattrs.is_empty() && mode & OWNER_WRITES == 0);
        let (first_mode, late_mode) = if is_late { (mode | OWNER_WRITES, Some(mode)) } else { (mode, None) };
        Self { folder, access: OFlags::WRONLY, mode: first_mode, late_mode }
    }

    /// Of a file that may be read back, and be opened again by another process.
    pub(super) fn kept(folder: &'a Arc<Folder>, meta: &FileMeta) -> Self {
        let mode = u32::from(meta.attributes.mode) & MODE_MASK;
        Self { folder, access: OFlags::RDWR, mode: OWNER_READS | OWNER_WRITES, late_mode: Some(mode) }
    }

    pub(super) fn folder(&self) -> &'a Arc<Folder> {
        self.folder
    }

    /// Creates it under the first name that is free.
    pub(super) fn create_as(&self, mut name: impl FnMut() -> TempName) -> Result<Begun, Errno> {
        for _ in 0..TEMP_TRIES_MAX {
            let temp = name();
            match self.create(temp) {
                Err(Errno::EXIST) => {}
                created => return created,
            }
        }
        Err(Errno::EXIST)
    }

    pub(super) fn create(&self, temp: TempName) -> Result<Begun, Errno> {
        let file = jail::create_child(self.folder.as_fd(), temp.as_name(), self.access, self.mode)?;
        Ok(self.begun(temp, file, None))
    }

    pub(super) fn begun(&self, temp: TempName, file: File, kept: Option<(Kept, Ranges)>) -> Begun {
        Begun { folder: Arc::clone(self.folder), temp, file, late_mode: self.late_mode, kept }
    }
}

#[cfg(test)]
mod tests {
    use super::super::yard::{meta, path};
    use super::*;
    use crate::path::PathError;

    #[test]
    fn a_temporary_name_is_one_that_no_path_may_have() {
        let names = TempNames::default();
        let of = |name, tag| TempName::of(&path(name), &meta(3, tag).identity);
        let (one, other) = (names.next(), names.next());
        assert!(one != other && one != of("a", 1) && of("a", 1) != of("a", 2) && of("a", 1) != of("b", 1));
        // Another process, and another version of this program, finds it by this.
        assert_eq!(of("a", 1).as_name(), ".ptf-62c72348dbfa1f09fe67d826f7d68788");
        for name in [one.as_name(), other.as_name(), of("x", 1).as_name(), of("x", 1).journal().as_name()] {
            assert_eq!(RemotePath::parse(name.as_bytes()), Err(PathError::Reserved));
        }
    }
}
