//! Files → chunks. A file's ranges are cut one by one as they are asked for, so that a file of any
//! size at any `--length` takes no memory.

use std::collections::VecDeque;
use std::iter;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::flight::Hand;
use crate::entry::FileMeta;
use crate::limits::{CHUNK_COST, CHUNK_TRIES_MAX};
use crate::path::RemotePath;
use crate::protocol::Wanted;
use crate::ranges;
use crate::subtrees::Subtrees;

/// A file on its way.
#[derive(Debug)]
pub(super) struct Sending {
    /// Where it is below the top of the tree.
    pub(super) path: RemotePath,
    /// What it was when it was listed.
    pub(super) meta: FileMeta,
    /// How often it was listed before and did not stay what it was.
    pub(super) changes: u8,
    /// May the receiver have a part of it already? Then that is asked first.
    pub(super) asks_first: bool,
    /// Bytes that were planned and are not confirmed.
    unconfirmed_bytes: AtomicU64,
    /// Bytes that were never known to be at the receiver.
    missing_bytes: AtomicU64,
    /// Bytes that the receiver wanted when it was asked last.
    wanted_bytes: AtomicU64,
    /// How often it wanted no less than before.
    vain_questions: AtomicU8,
    whole: AtomicBool,
    failed: AtomicBool,
    /// BLAKE3 values of its ranges, where they are wanted.
    subtrees: Mutex<Option<Subtrees>>,
}

impl Sending {
    /// A file of which nothing is sent yet.
    #[must_use]
    pub(super) fn new(path: RemotePath, meta: FileMeta) -> Self {
        let bytes = || AtomicU64::new(meta.identity.size);
        let (unconfirmed_bytes, missing_bytes) = (bytes(), bytes());
        let (wanted_bytes, vain_questions) = (AtomicU64::new(u64::MAX), AtomicU8::new(0));
        let (whole, failed, subtrees) = (AtomicBool::new(false), AtomicBool::new(false), Mutex::default());
        let (changes, asks_first) = (0, false);
        Self {
            path,
            meta,
            changes,
            asks_first,
            unconfirmed_bytes,
            missing_bytes,
            wanted_bytes,
            vain_questions,
            whole,
            failed,
            subtrees,
        }
    }

    /// Notes that `len` more bytes are confirmed; true when those were the last that were planned.
    pub(super) fn confirm(&self, len: u64) -> bool {
        self.unconfirmed_bytes.fetch_sub(len, Ordering::Relaxed) == len
    }

    /// Notes that `len` bytes are at the receiver; how many of them are news.
    pub(super) fn find(&self, len: u64) -> u64 {
        let before =
            self.missing_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |missing| Some(missing.saturating_sub(len)));
        before.map_or(0, |missing| missing.min(len))
    }

    /// Notes that all but so many bytes are at the receiver; how many of those are news.
    pub(super) fn find_all_but(&self, missing: u64) -> u64 {
        let before = self.missing_bytes.load(Ordering::Relaxed);
        self.find(before.saturating_sub(missing))
    }

    /// Plans what the receiver wants, and says how many of its bytes were known to be there before;
    /// `None` where it wants what it can't, or asked for the same too often.
    pub(super) fn plan(&self, wanted: &Wanted) -> Option<u64> {
        let planned = ranges::total(&wanted.ranges);
        let size = self.meta.identity.size;
        let is_possible = planned > 0 && planned <= wanted.bytes && wanted.bytes <= size;
        if !is_possible || wanted.ranges.last().is_some_and(|range| range.end > size) {
            return None;
        }
        let missing = self.missing_bytes.load(Ordering::Relaxed);
        if wanted.bytes >= self.wanted_bytes.swap(wanted.bytes, Ordering::Relaxed) {
            let vain = self.vain_questions.fetch_add(1, Ordering::Relaxed);
            if vain >= CHUNK_TRIES_MAX {
                return None;
            }
        }
        self.unconfirmed_bytes.store(planned, Ordering::Relaxed);
        Some(wanted.bytes.saturating_sub(missing))
    }

    /// Notes that the receiver has all of it.
    pub(super) fn set_whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// Has the receiver all of it?
    #[must_use]
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// Notes BLAKE3 values of a range.
    pub(super) fn add_subtrees(&self, values: &[(u64, u64, [u8; 32])]) {
        if values.is_empty() {
            return;
        }
        let mut subtrees = self.subtrees.lock().unwrap_or_else(PoisonError::into_inner);
        let subtrees = subtrees.get_or_insert_with(|| Subtrees::new(self.meta.identity.size));
        for (offset, len, value) in values {
            subtrees.add(*offset, *len, *value);
        }
    }

    /// The BLAKE3 digest of the file, if all its values were noted.
    #[must_use]
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        match &*self.subtrees.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(subtrees) => subtrees.root(),
            None => Subtrees::new(self.meta.identity.size).root(),
        }
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
    /// Which handing out of it this is; without meaning in a child.
    pub(super) hand: Hand,
    /// BLAKE3 values of what was sent of it, where they are wanted: offset, length, value.
    pub(super) subtrees: Vec<(u64, u64, [u8; 32])>,
}

impl Chunk {
    /// A range of a file that was not sent yet.
    #[must_use]
    pub(super) fn of(file: &Arc<Sending>, range: Range<u64>) -> Self {
        Self {
            file: Arc::clone(file),
            range,
            mismatches: 0,
            refusals: 0,
            stalls: 0,
            ticket: 0,
            hand: Hand::default(),
            subtrees: Vec::new(),
        }
    }

    /// Is it to be sent with nothing else unanswered? If a connection is closed on it again, then it
    /// was this one.
    #[must_use]
    pub(super) fn is_suspect(&self) -> bool {
        self.refusals > 0
    }

    /// Is it the question what of its file is missing?
    #[must_use]
    pub(super) fn is_question(&self) -> bool {
        self.range.is_empty() && self.file.meta.identity.size > 0
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
    /// What is to be cut, the first first. A range of no bytes is one chunk of none.
    ranges: VecDeque<Range<u64>>,
}

impl Rest {
    /// All of a file, or the question what of it the receiver wants.
    #[must_use]
    pub(super) fn all_of(file: Sending) -> Self {
        let size = file.meta.identity.size;
        let start = if file.asks_first { size } else { 0 };
        Self { file: Arc::new(file), ranges: iter::once(start..size).collect() }
    }

    /// These ranges of a file.
    #[must_use]
    pub(super) fn of(file: &Arc<Sending>, ranges: Vec<Range<u64>>) -> Self {
        Self { file: Arc::clone(file), ranges: ranges.into() }
    }

    /// Cuts off the next chunk, of at most `length` bytes; `None` when nothing is left.
    pub(super) fn cut(&mut self, length: u64) -> Option<Chunk> {
        let next = self.ranges.front_mut()?;
        let range = next.start..next.end.min(next.start.saturating_add(length));
        next.start = range.end;
        if next.is_empty() {
            self.ranges.pop_front();
        }
        Some(Chunk::of(&self.file, range))
    }

    /// The work of all chunks that are left, see [`Chunk::work`].
    #[must_use]
    pub(super) fn work(&self, length: u64) -> u64 {
        let work = |range: &Range<u64>| {
            let bytes = range.end - range.start;
            bytes.saturating_add(bytes.div_ceil(length).max(1).saturating_mul(CHUNK_COST))
        };
        self.ranges.iter().map(work).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::client) fn meta_of(size: u64) -> FileMeta {
        let identity = crate::entry::Identity { size, mtime: (0, 0), tag: [0; 16] };
        FileMeta { identity, attributes: crate::entry::Attributes::default(), is_sparse: false }
    }

    fn chunks(size: u64, length: u64) -> Vec<(u64, u64)> {
        let path = RemotePath::parse(b"x").unwrap();
        let mut rest = Rest::all_of(Sending::new(path, meta_of(size)));
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
    fn questions_go_on_as_long_as_less_is_wanted_each_time() {
        let mut file = Sending::new(RemotePath::parse(b"x").unwrap(), meta_of(1000));
        file.asks_first = true;
        let wanted = |bytes: u64| Wanted { bytes, ranges: iter::once(0..10).collect() };
        for round in 0..50 {
            let bytes = 900 - round * 10;
            assert_eq!(file.plan(&wanted(bytes)), Some(0), "{round}");
            assert_eq!(file.find_all_but(bytes), if round == 0 { 100 } else { 0 });
            assert!(!file.confirm(5) && file.confirm(5));
            file.find(10);
        }
        // What was known to be there is gone.
        assert_eq!(file.plan(&wanted(500)), Some(100));
        let vain = (0..10).take_while(|_| file.plan(&wanted(500)).is_some()).count();
        assert!(vain < 5);
        for impossible in [0..0, 990..1001] {
            assert_eq!(file.plan(&Wanted { bytes: 11, ranges: iter::once(impossible).collect() }), None);
        }
    }

    #[test]
    fn chunks_cover_a_file_without_gap_or_overlap() {
        for (size, length, expected) in [
            (0, 4, &[(0, 0)][..]),
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
