//! Which files were created since the store was opened: a bounded set that forgets the oldest.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::Errno;

use crate::limits::CREATED_GENERATION_MAX;
use crate::path::RemotePath;

/// A file under a name: a keyed hash over path, device, inode and time of birth. Eight bytes, so
/// that a million files are remembered in some 20 MB; a file that got the number of a removed one
/// was born later, and one under another name is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

impl Key {
    pub(super) fn of(path: &RemotePath, file: &File) -> Result<Self, Errno> {
        // Nobody who chooses names may choose collisions: the hash has a key of this process.
        static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let stat = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)?;
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        let birth = (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec);
        Ok(Self(KEYED.hash_one((path, device, stat.stx_ino, birth))))
    }
}

/// Two generations: when the younger one is full it becomes the older one, which is forgotten.
#[derive(Debug, Default)]
pub(super) struct Created {
    young: HashSet<Key>,
    old: HashSet<Key>,
}

impl Created {
    pub(super) fn insert(&mut self, key: Key) {
        if self.young.len() >= CREATED_GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key);
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.young.contains(key) || self.old.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_the_youngest_are_not() {
        let mut created = Created::default();
        let count = 2 * CREATED_GENERATION_MAX as u64 + 1;
        for number in 0..count {
            created.insert(Key(number));
            assert!(created.contains(&Key(number)));
        }
        assert!(!created.contains(&Key(0)));
        assert!(created.contains(&Key(count - CREATED_GENERATION_MAX as u64)));
        assert!(created.young.len() + created.old.len() <= 2 * CREATED_GENERATION_MAX);
    }
}
