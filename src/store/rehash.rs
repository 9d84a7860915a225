//! Which blocks of a file are on the disk as its journal says? Read and hashed again, those that are
//! unsure; holes are looked at as well.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::records::{Record, blocks};
use crate::digest::ZEROS;
use crate::limits::{BLOCK_LEN, REHASH_STEP_LEN};
use crate::ranges::Ranges;

/// A look at what is unsure of a file, record by record.
pub(super) struct Rehash<'a> {
    data: &'a File,
    size: u64,
    unsure: &'a Ranges,
    going: &'a mut dyn FnMut() -> io::Result<()>,
    /// Bytes read since that was called.
    read_len: u64,
    buffer: Vec<u8>,
    /// What is as one of the records says. Not all of it was asked for.
    found: Ranges,
}

impl<'a> Rehash<'a> {
    pub(super) fn new(data: &'a File, size: u64, unsure: &'a Ranges, going: &'a mut dyn FnMut() -> io::Result<()>) -> Self {
        Self { data, size, unsure, going, read_len: 0, buffer: vec![0; BLOCK_LEN], found: Ranges::default() }
    }

    /// Looks at what this record says. Where several speak of a block, it is enough that one is right: all
    /// came from a file of the same identity.
    pub(super) fn take(&mut self, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Blocks { range, binding, checksum, digests } => {
                let Some(digest_len @ 1..) = Some(checksum.digest_len()) else { return Ok(()) };
                for (block, digest) in blocks(range).zip(digests.chunks_exact(digest_len)) {
                    let (start, len, size) = (block.start, block.end.saturating_sub(block.start), self.size);
                    self.look(&block, |bytes| {
                        let is_whole = start == 0 && len == size;
                        let (expected, _) = checksum.seal(binding.of_block(start, len, false), start, bytes, is_whole);
                        expected.starts_with(digest)
                    })?;
                }
                Ok(())
            }
            Record::Hole(range) => self.look_at_hole(range),
            Record::Lost(_) | Record::Boot(_) | Record::Synced => Ok(()),
        }
    }

    /// What was found good of what is unsure, and the rest of it.
    pub(super) fn finish(self) -> (Ranges, Vec<Range<u64>>) {
        let mut good = Ranges::default();
        for range in self.unsure.iter() {
            for found in self.found.within(&range) {
                // One piece too many is not good, but lost.
                let _ = good.insert(found);
            }
        }
        let lost = good.missing(self.size).flat_map(|gap| self.unsure.within(&gap)).collect();
        (good, lost)
    }

    /// Reads a block, if that is wanted, and finds it good if `is_good` says so. A disk that can't read
    /// it has not got it.
    fn look(&mut self, block: &Range<u64>, is_good: impl FnOnce(&[u8]) -> bool) -> io::Result<()> {
        if self.unsure.within(block).next().is_none() || self.found.covers(block) {
            return Ok(());
        }
        let len = block.end.saturating_sub(block.start);
        let Some(bytes) = usize::try_from(len).ok().and_then(|len| self.buffer.get_mut(..len)) else { return Ok(()) };
        let read = self.data.read_exact_at(bytes, block.start);
        let is_here = match read {
            Ok(()) => is_good(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => false,
            Err(error) => return Err(error),
        };
        if is_here {
            // One piece too many is not found.
            let _ = self.found.insert(block.clone());
        }
        self.read_len = self.read_len.saturating_add(len);
        if self.read_len >= REHASH_STEP_LEN {
            self.read_len = 0;
            (self.going)()?;
        }
        Ok(())
    }

    /// What is still a hole, or reads as one, is good.
    fn look_at_hole(&mut self, range: &Range<u64>) -> io::Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let data = self.next_data(offset, range.end)?;
            let _ = self.found.insert(offset..data);
            let Some(block) = blocks(&(data..range.end)).next() else { break };
            self.look(&block, |bytes| ZEROS.starts_with(bytes))?;
            offset = block.end;
        }
        Ok(())
    }

    /// Where the hole that `offset` is in ends, `end` at the latest; `offset` where it is in none.
    fn next_data(&self, offset: u64, end: u64) -> io::Result<u64> {
        match seek(self.data, SeekFrom::Data(offset)) {
            Ok(data) => Ok(data.clamp(offset, end)),
            // No data from here to the end of the file.
            Err(Errno::NXIO) => Ok(end),
            // A file system that does not know of holes. Where the file has ended nothing was written.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(if offset < self.data.metadata()?.len() { offset } else { end }),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a set of one range is what is meant")]
mod tests {
    use proptest::prelude::*;

    use super::super::yard::{BLOCK, JournalYard, NEXT, NOW, meta, verified};
    use super::*;
    use crate::digest::{Binding, Checksum};
    use crate::limits::JOURNAL_READ_LEN;

    const CHECKED: [Checksum; 2] = [Checksum::Xxh3, Checksum::Blake3];

    // B07 E06
    #[test]
    fn what_is_damaged_is_found_and_nothing_else_is_lost() {
        for checksum in CHECKED {
            let yard = JournalYard::of(9 * BLOCK + 7);
            let journal = yard.create(NOW);
            yard.write(&journal, 0..3 * BLOCK + 9, checksum);
            yard.write(&journal, 3 * BLOCK + 9..8 * BLOCK, checksum);
            yard.write(&journal, 9 * BLOCK..9 * BLOCK + 7, checksum);
            for offset in [BLOCK, 3 * BLOCK + 8, 3 * BLOCK + 9, 9 * BLOCK + 6] {
                yard.damage(offset);
            }
            let (mut journal, here) = yard.open(NEXT).unwrap();
            assert_eq!(here, []);
            let good = vec![0..BLOCK, 2 * BLOCK..3 * BLOCK, 4 * BLOCK..8 * BLOCK];
            assert_eq!(verified(&mut journal, &yard.data), good);
            assert!(journal.unsure().is_empty());
            // From now on it is known, at any boot.
            for boot in [NOW, NEXT, [3; 16]] {
                assert_eq!(yard.says(boot), Some([good.clone(), vec![]]));
            }
            // What was lost and is written again counts, and stays so.
            yard.write(&journal, BLOCK..2 * BLOCK, checksum);
            assert_eq!(yard.says(NEXT).unwrap()[0], [0..3 * BLOCK, 4 * BLOCK..8 * BLOCK]);
            let (mut journal, _) = yard.open([3; 16]).unwrap();
            assert_eq!(verified(&mut journal, &yard.data), [BLOCK..2 * BLOCK]);
        }
    }

    #[test]
    fn a_block_is_good_if_one_who_brought_it_says_so() {
        let yard = JournalYard::of(2 * BLOCK);
        let journal = yard.create(NOW);
        journal.note_blocks(0..BLOCK, Binding::default(), Checksum::Xxh3, &[9; 16]).unwrap();
        journal.note_blocks(0..BLOCK, Binding::default(), Checksum::None, &[]).unwrap();
        yard.write(&journal, 0..BLOCK, Checksum::Xxh3);
        journal.note_blocks(0..2 * BLOCK, Binding::default(), Checksum::Xxh3, &[9; 32]).unwrap();
        let (mut journal, _) = yard.open(NEXT).unwrap();
        assert_eq!(verified(&mut journal, &yard.data), [0..BLOCK]);
        assert_eq!(yard.says(NEXT), Some([vec![0..BLOCK], vec![]]));
    }

    #[test]
    fn what_has_no_digest_or_is_not_in_the_file_any_more_is_lost() {
        let yard = JournalYard::of(4 * BLOCK);
        let journal = yard.create(NOW);
        yard.write(&journal, 0..BLOCK, Checksum::None);
        yard.write(&journal, BLOCK..4 * BLOCK, Checksum::Xxh3);
        yard.data.set_len(3 * BLOCK - 1).unwrap();
        let (mut journal, _) = yard.open(NEXT).unwrap();
        assert_eq!(verified(&mut journal, &yard.data), [BLOCK..2 * BLOCK]);
        assert_eq!(yard.says(NEXT), Some([vec![BLOCK..2 * BLOCK], vec![]]));
    }

    #[test]
    fn a_whole_file_in_one_block_is_found_by_its_own_digest() {
        for (size, checksum) in [(1, Checksum::Blake3), (BLOCK, Checksum::Blake3), (5, Checksum::Xxh3)] {
            let yard = JournalYard::of(size);
            yard.write(&yard.create(NOW), 0..size, checksum);
            let (mut journal, _) = yard.open(NEXT).unwrap();
            assert_eq!(verified(&mut journal, &yard.data), [0..size]);
        }
    }

    // C19
    #[test]
    fn a_hole_is_good_as_long_as_it_reads_as_one() {
        let size = (1 << 40) + 5;
        let data = tempfile::tempfile().unwrap();
        data.set_len(size).unwrap();
        let yard = JournalYard { data, identity: meta(size, 1).identity, ..JournalYard::of(0) };
        let journal = yard.create(NOW);
        journal.note_hole(0..1 << 39).unwrap();
        journal.note_hole(1 << 39..size).unwrap();
        yard.data.write_all_at(&[0; 5000], 1 << 30).unwrap();
        yard.data.write_all_at(&[1], (1 << 39) + 10 * BLOCK).unwrap();
        let (mut journal, here) = yard.open(NEXT).unwrap();
        assert_eq!(here, []);
        let damaged = (1 << 39) + 10 * BLOCK..(1 << 39) + 11 * BLOCK;
        assert_eq!(verified(&mut journal, &yard.data), [0..damaged.start, damaged.end..size]);
        let (journal, here) = yard.open(NEXT).unwrap();
        assert_eq!(here, [0..damaged.start, damaged.end..size]);
        assert!(journal.unsure().is_empty());
        // One that the file ends before has lost nothing.
        journal.note_hole(0..size).unwrap();
        yard.data.set_len(0).unwrap();
        let (mut journal, _) = yard.open([3; 16]).unwrap();
        assert_eq!(verified(&mut journal, &yard.data), [0..size]);
    }

    #[test]
    fn a_long_journal_is_read_and_hashed_in_pieces_with_signs_of_life() {
        let size = 24 << 20;
        let yard = JournalYard::of(size + BLOCK);
        let journal = yard.create(NOW);
        // Far more than a buffer, and nothing that has to be read.
        for _ in 0..8000 {
            journal.note_hole(size..size + BLOCK).unwrap();
        }
        // Records of all lengths, across the ends of buffers.
        let mut offset = 0;
        for number in 1_u64.. {
            let end = (offset + number % 7 * BLOCK + number % 13 * 101 + 1).min(size);
            yard.write(&journal, offset..end, CHECKED[usize::try_from(number % 2).unwrap()]);
            offset = end;
            if offset == size {
                break;
            }
        }
        assert!(yard.len() > 2 * JOURNAL_READ_LEN as u64);
        let (mut journal, _) = yard.open(NEXT).unwrap();
        let mut count = 0;
        let mut going = || {
            count += 1;
            Ok(())
        };
        let good: Vec<_> = journal.verify(&yard.data, &mut going).unwrap().iter().collect();
        assert_eq!(good, [0..size + BLOCK]);
        assert_eq!(count, size / REHASH_STEP_LEN);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Write(Range<u64>, Checksum),
        Hole(Range<u64>),
        Damage(u64),
        Sync,
        Reopen { boots: bool, verifies: bool, torn_len: usize },
    }

    /// Blocks of the file in the test below.
    const COUNT: u64 = 8;

    fn any_act() -> impl Strategy<Value = Act> {
        let range = || (0..COUNT, 1..3_u64).prop_map(|(start, len)| start..(start + len).min(COUNT));
        let checksum = prop::sample::select(vec![Checksum::Xxh3, Checksum::Blake3, Checksum::None]);
        prop_oneof![
            4 => (range(), checksum).prop_map(|(range, checksum)| Act::Write(range, checksum)),
            1 => range().prop_map(Act::Hole),
            2 => (0..COUNT).prop_map(Act::Damage),
            1 => Just(Act::Sync),
            4 => (any::<bool>(), any::<bool>(), 0..3_usize)
                .prop_map(|(boots, verifies, torn_len)| Act::Reopen { boots, verifies, torn_len }),
        ]
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Known {
        Missing,
        SinceThisBoot,
        Unsure,
        Synced,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Has {
        Content,
        Zeros,
        Damage,
    }

    /// All about one block: what is known, what is there, and what records can find of that.
    #[derive(Debug, Clone, Copy)]
    struct Model {
        known: Known,
        has: Has,
        is_hashed: bool,
        is_hole: bool,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        // E06: writes, damage, syncs, kills that tear a record, and power losses, in any order.
        #[test]
        fn it_knows_of_each_block_what_it_can(acts in prop::collection::vec(any_act(), 0..32)) {
            let yard = JournalYard::of(COUNT * BLOCK);
            let (mut boot, mut journal) = (NOW, yard.create(NOW));
            let mut blocks = [Model { known: Known::Missing, has: Has::Zeros, is_hashed: false, is_hole: false }; COUNT as usize];
            let bytes = |range: &Range<u64>| range.start * BLOCK..range.end * BLOCK;
            for act in acts {
                match act {
                    Act::Write(range, checksum) => {
                        yard.write(&journal, bytes(&range), checksum);
                        for block in &mut blocks[range.start as usize..range.end as usize] {
                            let is_hashed = block.is_hashed || checksum != Checksum::None;
                            *block = Model { known: Known::SinceThisBoot, has: Has::Content, is_hashed, ..*block };
                        }
                    }
                    Act::Hole(range) => {
                        for block in range.clone() {
                            yard.data.write_all_at(&ZEROS, block * BLOCK).unwrap();
                        }
                        journal.note_hole(bytes(&range)).unwrap();
                        for block in &mut blocks[range.start as usize..range.end as usize] {
                            *block = Model { known: Known::SinceThisBoot, has: Has::Zeros, is_hole: true, ..*block };
                        }
                    }
                    Act::Damage(block) => {
                        yard.data.write_all_at(&[0, 255], block * BLOCK + 3).unwrap();
                        blocks[block as usize].has = Has::Damage;
                    }
                    Act::Sync => {
                        journal.note_synced(&yard.data).unwrap();
                        for block in blocks.iter_mut().filter(|block| block.known != Known::Missing) {
                            block.known = Known::Synced;
                        }
                    }
                    Act::Reopen { boots, verifies, torn_len } => {
                        drop(journal);
                        yard.journal.write_all_at(&[0xa5; 2][..torn_len], yard.len()).unwrap();
                        if boots {
                            boot[0] += 1;
                        }
                        for block in blocks.iter_mut().filter(|block| boots && block.known == Known::SinceThisBoot) {
                            block.known = Known::Unsure;
                        }
                        let mut here;
                        (journal, here) = yard.open(boot).unwrap();
                        if verifies {
                            let is_looked_at = blocks.iter().any(|block| block.known == Known::Unsure);
                            here.extend(verified(&mut journal, &yard.data));
                            for block in blocks.iter_mut().filter(|block| is_looked_at && block.known != Known::Missing) {
                                let is_good = match block.has {
                                    Has::Content => block.is_hashed,
                                    Has::Zeros => block.is_hole,
                                    Has::Damage => false,
                                };
                                let is_lost = block.known == Known::Unsure && !is_good;
                                block.known = if is_lost { Known::Missing } else { Known::Synced };
                            }
                        }
                        let unsure: Vec<_> = journal.unsure().iter().collect();
                        for (number, block) in (0..).zip(&blocks) {
                            let is_in = |set: &[Range<u64>]| set.iter().any(|range| range.contains(&(number * BLOCK)));
                            let expected = (matches!(block.known, Known::SinceThisBoot | Known::Synced), block.known == Known::Unsure);
                            prop_assert_eq!((is_in(&here), is_in(&unsure)), expected, "{}: {:?}", number, block);
                        }
                    }
                }
            }
        }
    }
}
