//! Names of files that are still being received, and of links before they are in place.

use std::ffi::OsStr;
use std::hash::{BuildHasher as _, DefaultHasher, Hash, Hasher as _, RandomState};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::path::TEMP_PREFIX;

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
