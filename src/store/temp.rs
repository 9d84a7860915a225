//! Files that are still being received, and links before they are in place: their names, and how they
//! are created.

use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher as _, DefaultHasher, Hash, Hasher as _, RandomState};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::attributes::MODE_MASK;
use super::folders::Folder;
use super::jail;
use crate::entry::FileMeta;
use crate::limits::TEMP_TRIES_MAX;
use crate::path::TEMP_PREFIX;

/// Permission to write for the owner.
const OWNER_WRITES: u32 = 0o200;

/// A name that no path may have: the prefix and 32 hex digits, whatever the name that it stands in
/// for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// The name that `value` always gets, on this machine: what an earlier process left under it is
    /// found again.
    pub(super) fn of(value: &impl Hash) -> Self {
        let half = |seed: u64| {
            let mut hasher = DefaultHasher::new();
            (seed, value).hash(&mut hasher);
            hasher.finish()
        };
        Self::new(half(0), half(1))
    }

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
}

/// How a temporary file is created.
pub(super) struct Creation<'a> {
    folder: &'a Arc<Folder>,
    mode: u32,
    late_mode: Option<u32>,
}

impl<'a> Creation<'a> {
    pub(super) fn new(folder: &'a Arc<Folder>, meta: &FileMeta) -> Self {
        let mode = u32::from(meta.attributes.mode) & MODE_MASK;
        // Extended attributes are put only on what may be written to.
        let is_late = !folder.keeps_modes || (!meta.attributes.xattrs.is_empty() && mode & OWNER_WRITES == 0);
        Self { folder, mode: if is_late { mode | OWNER_WRITES } else { mode }, late_mode: is_late.then_some(mode) }
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
        let file = jail::create_child(self.folder.as_fd(), temp.as_name(), self.mode)?;
        Ok(Begun { folder: Arc::clone(self.folder), temp, file, late_mode: self.late_mode })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{PathError, RemotePath};

    #[test]
    fn a_temporary_name_is_one_that_no_path_may_have() {
        let names = TempNames::default();
        let (one, other) = (names.next(), names.next());
        assert!(one != other && one != TempName::of(&1) && TempName::of(&1) == TempName::of(&1));
        for name in [one, other, TempName::of(&"x")] {
            assert_eq!(name.0.len(), TEMP_NAME_LEN);
            assert_eq!(RemotePath::parse(&name.0), Err(PathError::Reserved));
        }
    }
}
