//! BLAKE3 of a whole file out of the values of its blocks, in whatever order they come.
//!
//! BLAKE3 is a tree (specification, section 2.4): over any `len` bytes the left child covers the
//! largest power of two of 1 KiB chunks that leaves something to the right one. So blocks that are
//! aligned to their own length are subtrees, and two siblings merge without a look at the content.

use std::collections::BTreeMap;

use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::limits::BLOCK_LEN;

/// The value of a subtree, or the digest of a whole file.
pub type Value = [u8; 32];

/// The value of a block of these bytes at `offset` of its file; its digest where it is the whole
/// file. One that does not begin at a multiple of [`BLOCK_LEN`] is no subtree: its value is good
/// for nothing but to tell whether two are the same.
#[must_use]
pub fn value_of(offset: u64, bytes: &[u8], is_whole: bool) -> Value {
    if is_whole || bytes.is_empty() || !offset.is_multiple_of(BLOCK_LEN as u64) || bytes.len() > BLOCK_LEN {
        return *blake3::hash(bytes).as_bytes();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset).update(bytes);
    hasher.finalize_non_root()
}

/// The subtrees of one file that are known, merged as far as they go.
#[derive(Debug, Clone)]
pub struct Subtrees {
    size: u64,
    known: BTreeMap<u64, (u64, Value)>,
}

impl Subtrees {
    /// Those of a file of `size` bytes: none yet.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size, known: BTreeMap::new() }
    }

    /// Adds the value of `len` bytes from `offset` on. What is no subtree of this file is left out.
    pub fn add(&mut self, offset: u64, len: u64, value: Value) {
        let (mut offset, mut len, mut value) = (offset, len, value);
        while let Some(place) = Place::of(self.size, offset, len) {
            let sibling = self.known.get(&place.sibling).filter(|(len, _)| *len == place.sibling_len);
            let Some((sibling_len, sibling)) = sibling.copied() else {
                self.known.insert(offset, (len, value));
                return;
            };
            self.known.remove(&place.sibling);
            let (left, right) = if place.sibling < offset { (sibling, value) } else { (value, sibling) };
            (offset, len) = (offset.min(place.sibling), len + sibling_len);
            value = if len == self.size {
                *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
            } else {
                merge_subtrees_non_root(&left, &right, Mode::Hash)
            };
        }
        if (offset, len) == (0, self.size) {
            self.known = BTreeMap::from([(0, (len, value))]);
        }
    }

    /// The subtrees as they are now: offset, length, value.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, Value)> {
        self.known.iter().map(|(offset, (len, value))| (*offset, *len, *value))
    }

    /// The digest of the whole file, once all of it is known.
    #[must_use]
    pub fn root(&self) -> Option<Value> {
        match self.known.get(&0) {
            _ if self.size == 0 => Some(*blake3::hash(b"").as_bytes()),
            Some((len, value)) if *len == self.size => Some(*value),
            _ => None,
        }
    }
}

/// A subtree's place in the tree: where its sibling is.
struct Place {
    sibling: u64,
    sibling_len: u64,
}

impl Place {
    /// `None` for the root, and for what is no subtree.
    fn of(size: u64, offset: u64, len: u64) -> Option<Self> {
        let (mut start, mut end) = (0, size);
        while end - start > BLOCK_LEN as u64 {
            // The largest power of two below the length: blocks are powers of two themselves.
            let left_len = 1 << (end - start - 1).ilog2();
            let middle = start + left_len;
            if (offset, len) == (start, left_len) {
                return Some(Self { sibling: middle, sibling_len: end - middle });
            }
            if (offset, len) == (middle, end - middle) {
                return Some(Self { sibling: start, sibling_len: left_len });
            }
            if offset < middle { end = middle } else { start = middle }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(40))]
        #[test]
        fn blocks_in_any_order_give_the_digest_of_the_file(blocks in 0..9usize, tail in 0..BLOCK_LEN, seed in 0..u64::MAX) {
            let size = blocks * BLOCK_LEN + if seed % 3 == 0 { 0 } else { tail };
            let content: Vec<u8> = (0..size).map(|at| (at / 977) as u8 ^ at as u8).collect();
            let mut pieces: Vec<(usize, &[u8])> = content.chunks(BLOCK_LEN).enumerate().collect();
            // A shuffle of sorts.
            pieces.sort_by_key(|(index, _)| (*index as u64 + 1).wrapping_mul(seed | 1));
            let mut subtrees = Subtrees::new(size as u64);
            for (index, bytes) in pieces {
                proptest::prop_assert!(subtrees.root().is_none());
                let offset = (index * BLOCK_LEN) as u64;
                subtrees.add(offset, bytes.len() as u64, value_of(offset, bytes, bytes.len() == size));
            }
            proptest::prop_assert_eq!(subtrees.root(), Some(*blake3::hash(&content).as_bytes()));
        }
    }

    #[test]
    fn what_is_no_subtree_is_left_out() {
        let mut subtrees = Subtrees::new(3 * BLOCK_LEN as u64);
        for (offset, len) in [(1, 5), (0, 3), (u64::MAX, 1), (BLOCK_LEN as u64, 2 * BLOCK_LEN as u64), (0, 0)] {
            subtrees.add(offset, len, [1; 32]);
            assert_eq!(subtrees.iter().count(), 0, "{offset}+{len}");
        }
        assert_eq!(value_of(7, b"x", false), value_of(9, b"x", false));
    }
}
