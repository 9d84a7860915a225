//! Files → chunks. A file's ranges are cut one by one as they are asked for, so that a file of any
//! size at any `--length` takes no memory.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::entry::Identity;
use crate::limits::CHUNK_COST;
use crate::path::RemotePath;

/// A file on its way.
#[derive(Debug)]
pub(super) struct Sending {
    /// Where it is below the top of the tree.
    pub(super) path: RemotePath,
    /// What it was when it was listed.
    pub(super) identity: Identity,
    unconfirmed_bytes: AtomicU64,
    failed: AtomicBool,
}

impl Sending {
    /// A file of which nothing is sent yet.
    #[must_use]
    pub(super) fn new(path: RemotePath, identity: Identity) -> Self {
        let unconfirmed_bytes = AtomicU64::new(identity.size);
        Self { path, identity, unconfirmed_bytes, failed: AtomicBool::new(false) }
    }

    /// Notes that `len` more bytes are confirmed; true when those were the last.
    pub(super) fn confirm(&self, len: u64) -> bool {
        self.unconfirmed_bytes.fetch_sub(len, Ordering::Relaxed) == len
    }

    /// Notes that the file can't be sent; true the first time.
    pub(super) fn fail(&self) -> bool {
        !self.failed.swap(true, Ordering::Relaxed)
    }

    /// Can the file not be sent?
    #[must_use]
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// A range of a file: the unit of work, of confirmation and of retry.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    /// The file.
    pub(super) file: Arc<Sending>,
    /// Which bytes of it.
    pub(super) range: Range<u64>,
    /// How often it arrived with another digest.
    pub(super) mismatches: u8,
    /// How often a connection was closed where its answer was due.
    pub(super) refusals: u8,
    /// How often the receiver made no progress on it until the connection was given up.
    pub(super) stalls: u8,
    /// What it is called between a process and its parent; without meaning elsewhere.
    pub(super) ticket: u32,
}

impl Chunk {
    /// Is it to be sent with nothing else unanswered? If a connection is closed on it again, then it
    /// was this one.
    #[must_use]
    pub(super) fn is_suspect(&self) -> bool {
        self.refusals > 0
    }

    /// Bytes of the range.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Its bytes, and what it costs beside them, in bytes.
    #[must_use]
    pub(super) fn work(&self) -> u64 {
        self.bytes().saturating_add(CHUNK_COST)
    }
}

/// What is left of a file to hand out.
#[derive(Debug)]
pub(super) struct Rest {
    /// The file.
    pub(super) file: Arc<Sending>,
    next: u64,
}

impl Rest {
    /// All of a file.
    #[must_use]
    pub(super) fn all_of(file: Sending) -> Self {
        Self { file: Arc::new(file), next: 0 }
    }

    /// Cuts off the next chunk, of at most `length` bytes; `None` when nothing is left.
    pub(super) fn cut(&mut self, length: u64) -> Option<Chunk> {
        let size = self.file.identity.size;
        if self.next >= size {
            return None;
        }
        let range = self.next..size.min(self.next.saturating_add(length));
        self.next = range.end;
        Some(Chunk { file: Arc::clone(&self.file), range, mismatches: 0, refusals: 0, stalls: 0, ticket: 0 })
    }

    /// The work of all chunks that are left, see [`Chunk::work`].
    #[must_use]
    pub(super) fn work(&self, length: u64) -> u64 {
        let bytes = self.file.identity.size.saturating_sub(self.next);
        bytes.saturating_add(bytes.div_ceil(length).saturating_mul(CHUNK_COST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(size: u64, length: u64) -> Vec<(u64, u64)> {
        let path = RemotePath::parse(b"x").unwrap();
        let mut rest = Rest::all_of(Sending::new(path, Identity { size, mtime: (0, 0), tag: [0; 16] }));
        let mut work = rest.work(length);
        let mut ranges = Vec::new();
        while let Some(chunk) = rest.cut(length).filter(|_| ranges.len() < 10) {
            assert_eq!(rest.work(length), work - chunk.work());
            work = rest.work(length);
            ranges.push((chunk.range.start, chunk.range.end));
        }
        ranges
    }

    #[test]
    fn chunks_cover_a_file_without_gap_or_overlap() {
        for (size, length, expected) in [
            (0, 4, &[][..]),
            (1, 4, &[(0, 1)]),
            (4, 4, &[(0, 4)]),
            (5, 4, &[(0, 4), (4, 5)]),
            (3, 1, &[(0, 1), (1, 2), (2, 3)]),
            (7, u64::MAX, &[(0, 7)]),
        ] {
            assert_eq!(chunks(size, length), expected, "{size} by {length}");
        }
        assert_eq!(chunks(1 << 40, 1).len(), 10);
    }
}
