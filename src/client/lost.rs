//! Files that did not arrive, or not as they were found. What has their names where they land is something
//! else, which nothing may be linked to.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::limits::LOST_FILES_MAX;
use crate::path::RemotePath;

/// Such files of one run, eight bytes each: a disk that is full may fail a million.
#[derive(Debug, Default)]
pub(super) struct Lost {
    hasher: RandomState,
    hashes: Mutex<HashSet<u64>>,
}

impl Lost {
    /// Notes that the file at `path` is one of them.
    pub(super) fn add(&self, path: &RemotePath) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() < LOST_FILES_MAX {
            hashes.insert(self.hasher.hash_one(path));
        }
    }

    /// May the file at `path` be one of them? Of more than are remembered any may be.
    #[must_use]
    pub(super) fn may_have(&self, path: &RemotePath) -> bool {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.len() >= LOST_FILES_MAX || hashes.contains(&self.hasher.hash_one(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_any_file_may_be_lost() {
        let path = |name: &str| RemotePath::parse(name.as_bytes()).unwrap();
        let lost = Lost::default();
        lost.add(&path("a"));
        assert_eq!((lost.may_have(&path("a")), lost.may_have(&path("b"))), (true, false));
        lost.hashes.lock().unwrap().extend(0..LOST_FILES_MAX as u64);
        assert!(lost.may_have(&path("b")));
    }
}
