//! The journal of a file that comes in several pieces: beside it on the disk, what of it was verified
//! and written. Who receives the file again after a kill or a power loss goes on from there.
//!
//! A record is one write at the end, so a kill tears the last one at the most. What was written since
//! this boot is in the kernel's memory, if not on the disk; what was written before another one counts
//! once it was synced or was hashed again. In memory there are ranges alone: 1 TiB has 256 MiB of digests.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use super::kept::READ_BACK;
use super::records::{BootId, HEADER_LEN_MAX, RECORD_LEN_MAX, Reading, Record, decode_header, encode_header, find_header};
use super::rehash::Rehash;
use super::{Error, lock};
use crate::digest::{Binding, Checksum};
use crate::entry::Identity;
use crate::limits::JOURNAL_READ_LEN;
use crate::path::RemotePath;
use crate::ranges::{self, Ranges};

/// The journal of one file. Several threads may note at once; that no other process does is the
/// caller's business.
#[derive(Debug)]
pub struct Journal {
    path: RemotePath,
    size: u64,
    boot: BootId,
    file: File,
    /// Where the first record begins.
    first: Place,
    unsure: Ranges,
    end: Mutex<End>,
}

/// A place between two records.
#[derive(Debug, Clone, Copy)]
struct Place {
    position: u64,
    /// Of what is before it.
    check: u64,
}

/// Where the next record goes.
#[derive(Debug)]
struct End {
    place: Place,
    /// Is it known that what comes next was written since this boot?
    is_now: bool,
    /// Does it say nothing any more, and never will?
    is_void: bool,
}

impl Journal {
    /// Begins the journal of the file of this `path` and `identity`, of which nothing is there. `file`
    /// is open for reading and writing; what is in it goes.
    ///
    /// # Errors
    /// It can't be written.
    pub fn create(file: File, path: &RemotePath, identity: &Identity, boot: BootId) -> Result<Self, Error> {
        let (header, check) = encode_header(&boot, path, identity);
        file.set_len(0).and_then(|()| file.write_all_at(&header, 0)).map_err(|source| io_error(path, BEGIN, source))?;
        let first = Place { position: header.len() as u64, check };
        let end = Mutex::new(End { place: first, is_now: true, is_void: false });
        Ok(Self { path: path.clone(), size: identity.size, boot, file, first, unsure: Ranges::default(), end })
    }

    /// Reads a journal up to the first record that is not whole and right, and cuts off what follows.
    /// Gives what counts at once, too: what was written since `boot`, the present one, or synced.
    /// [`Journal::unsure`] is the rest. None where it says nothing of the file of this `path` and
    /// `identity`, or nothing that this version understands: the file and its journal are begun anew.
    ///
    /// # Errors
    /// It can't be read, or not be cut off.
    pub fn open(file: File, path: &RemotePath, identity: &Identity, boot: BootId) -> Result<Option<(Self, Ranges)>, Error> {
        let mut header = encode_header(&boot, path, identity).0;
        match file.read_exact_at(&mut header, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(io_error(path, READ, error)),
        }
        let Some((begun, check)) = decode_header(&header, path, identity) else { return Ok(None) };
        let first = Place { position: header.len() as u64, check };
        let mut reading = Reading::new(begun, boot);
        let mut records = Records::new(&file, first, identity.size);
        while let Some(record) = records.next().map_err(|source| io_error(path, READ, source))? {
            reading.take(&record);
        }
        let place = records.place;
        // Behind another record it might be right again.
        file.set_len(place.position).map_err(|source| io_error(path, WRITE, source))?;
        let Reading { here, unsure, is_now, .. } = reading;
        let end = Mutex::new(End { place, is_now, is_void: false });
        Ok(Some((Self { path: path.clone(), size: identity.size, boot, file, first, unsure, end }, here)))
    }

    /// What a journal says that may be another process's: of which file it is, and how many of its bytes
    /// are there, sure or not. None where it says nothing that this version understands.
    ///
    /// # Errors
    /// It can't be read.
    pub(super) fn look(file: &File) -> io::Result<Option<(RemotePath, u64)>> {
        let said = Self::look_closely(file)?;
        Ok(said.map(|(path, ranges)| (path, ranges::total(&ranges))))
    }

    /// The same, and which bytes they are: ranges of which those that are unsure come last.
    pub(super) fn look_closely(file: &File) -> io::Result<Option<(RemotePath, Vec<Range<u64>>)>> {
        let mut header = Vec::new();
        #[allow(clippy::disallowed_methods, reason = "at most the longest header is read")]
        file.take(HEADER_LEN_MAX as u64).read_to_end(&mut header)?;
        let Some((path, identity, len, (begun, check))) = find_header(&header) else { return Ok(None) };
        let mut reading = Reading::new(begun, begun);
        let mut records = Records::new(file, Place { position: len as u64, check }, identity.size);
        while let Some(record) = records.next()? {
            reading.take(&record);
        }
        Ok(Some((path, reading.here.iter().chain(reading.unsure.iter()).collect())))
    }

    /// What does not count before [`Journal::verify`] has found it: it was written before another boot
    /// and not synced.
    #[must_use]
    pub fn unsure(&self) -> &Ranges {
        &self.unsure
    }

    /// Notes that the blocks of `range` were verified and written to their places: 64 of them at the
    /// most. `digests` are theirs, in order, as [`Checksum::seal`] gives them for `binding`.
    ///
    /// # Errors
    /// It can't be written: then they just don't count once the file is received again. The range or
    /// the digests can't be of this file.
    pub fn note_blocks(&self, range: Range<u64>, binding: Binding, checksum: Checksum, digests: &[u8]) -> Result<(), Error> {
        if range.is_empty() && digests.is_empty() {
            return Ok(());
        }
        self.append(&[Record::Blocks { range, binding, checksum, digests }])
    }

    /// Notes that `range` is a hole of the source: nothing was written there.
    ///
    /// # Errors
    /// As [`Journal::note_blocks`].
    pub fn note_hole(&self, range: Range<u64>) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        self.append(&[Record::Hole(range)])
    }

    /// Brings `data`, the file itself, to the disk, and notes that all noted so far is there. Nobody
    /// may note in between, so it wants the journal alone.
    ///
    /// # Errors
    /// Either can't be brought to the disk. If it is `data`, nobody can say what of it is lost, and
    /// the kernel tells it once: the journal says nothing from then on.
    pub fn note_synced(&mut self, data: &File) -> Result<(), Error> {
        self.sync_with(data, Vec::new())
    }

    /// Hashes again what is unsure, before anything else is noted, and brings the file to the disk.
    /// Gives what of it was found good; the rest is noted as lost, blocks without a digest among it.
    /// `data` is the file itself, open for reading and writing; `going` is called every few MiB; what it says ends that, and nothing has changed.
    ///
    /// # Errors
    /// That of `going`; the file or its journal can't be read, written or brought to the disk; as
    /// [`Journal::note_synced`].
    pub fn verify(&mut self, data: &File, going: &mut dyn FnMut() -> io::Result<()>) -> Result<Ranges, Error> {
        if self.unsure.is_empty() {
            return Ok(Ranges::default());
        }
        let mut rehash = Rehash::new(data, self.size, &self.unsure, going);
        let mut records = Records::new(&self.file, self.first, self.size);
        while let Some(record) = records.next().map_err(|source| self.error(READ, source))? {
            rehash.take(&record).map_err(|source| self.error(READ_BACK, source))?;
        }
        let (good, lost) = rehash.finish();
        self.sync_with(data, lost.into_iter().map(Record::Lost).collect())?;
        self.unsure = Ranges::default();
        Ok(good)
    }

    /// Brings the file to the disk and notes that, after some other records.
    fn sync_with(&mut self, data: &File, mut records: Vec<Record<'_>>) -> Result<(), Error> {
        if let Err(source) = data.sync_data() {
            self.void();
            return Err(self.error("sync", source));
        }
        records.push(Record::Synced);
        self.append(&records)?;
        self.file.sync_data().map_err(|source| self.error(WRITE, source))
    }

    fn void(&mut self) {
        self.end.get_mut().unwrap_or_else(PoisonError::into_inner).is_void = true;
        let _ = self.file.set_len(0).and_then(|()| self.file.sync_data());
    }

    /// Adds records by one write.
    fn append(&self, records: &[Record<'_>]) -> Result<(), Error> {
        if !records.iter().all(|record| record.fits(self.size)) {
            return Err(Error::Refused { path: self.path.clone(), what: "not a file that has what was to be noted of it" });
        }
        let mut end = lock(&self.end);
        if end.is_void {
            return Err(self.error(WRITE, io::Error::other("the file could not be synced before")));
        }
        let (mut bytes, mut check) = (Vec::new(), end.place.check);
        if !end.is_now {
            check = Record::Boot(self.boot).encode(&mut bytes, check);
        }
        for record in records {
            check = record.encode(&mut bytes, check);
        }
        // At its place, not where the file ends: what a write that failed left there is written over.
        if let Err(source) = self.file.write_all_at(&bytes, end.place.position) {
            let _ = self.file.set_len(end.place.position);
            return Err(self.error(WRITE, source));
        }
        end.place = Place { position: end.place.position.saturating_add(bytes.len() as u64), check };
        end.is_now = true;
        Ok(())
    }

    fn error(&self, act: &'static str, source: io::Error) -> Error {
        io_error(&self.path, act, source)
    }
}

const BEGIN: &str = "begin the journal of";
const READ: &str = "read the journal of";
const WRITE: &str = "write the journal of";

fn io_error(path: &RemotePath, act: &'static str, source: io::Error) -> Error {
    Error::Io { path: path.clone(), act, source }
}

/// Reads records in their order, a buffer full at a time.
struct Records<'a> {
    file: &'a File,
    size: u64,
    /// Behind the record that was read last.
    place: Place,
    buffer: Vec<u8>,
    /// What of the buffer is still to be read.
    rest: Range<usize>,
}

impl<'a> Records<'a> {
    fn new(file: &'a File, first: Place, size: u64) -> Self {
        Self { file, size, place: first, buffer: vec![0; JOURNAL_READ_LEN], rest: 0..0 }
    }

    /// The next record; none where there is none that is whole and right.
    fn next(&mut self) -> io::Result<Option<Record<'_>>> {
        if self.rest.len() < RECORD_LEN_MAX {
            self.fill()?;
        }
        let bytes = self.buffer.get(self.rest.clone()).unwrap_or_default();
        let Some((record, len, check)) = Record::decode(bytes, self.place.check, self.size) else { return Ok(None) };
        self.place = Place { position: self.place.position.saturating_add(len as u64), check };
        self.rest.start = self.rest.start.saturating_add(len);
        Ok(Some(record))
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.rest.clone(), 0);
        self.rest = 0..self.rest.len();
        while let Some(free @ [_, ..]) = self.buffer.get_mut(self.rest.end..) {
            match self.file.read_at(free, self.place.position.saturating_add(self.rest.end as u64)) {
                Ok(0) => break,
                Ok(len) => self.rest.end = self.rest.end.saturating_add(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a set of one range is what is meant")]
mod tests {
    use std::os::fd::OwnedFd;
    use std::thread;

    use super::super::yard::{BLOCK, JournalYard, NEXT, NOW, meta, path, verified};
    use super::*;

    /// Some of each kind; what counts at [`NOW`] after each record, and where that ends.
    fn mixed(yard: &JournalYard) -> Vec<(u64, Vec<Range<u64>>)> {
        let mut steps = Vec::new();
        let mut journal = yard.create(NOW);
        let mut step = |here: &[Range<u64>]| steps.push((yard.len(), here.to_vec()));
        step(&[]);
        yard.write(&journal, 0..BLOCK + 5, Checksum::Xxh3);
        step(&[0..BLOCK + 5]);
        journal.note_hole(3 * BLOCK..4 * BLOCK).unwrap();
        step(&[0..BLOCK + 5, 3 * BLOCK..4 * BLOCK]);
        journal.note_synced(&yard.data).unwrap();
        step(&[0..BLOCK + 5, 3 * BLOCK..4 * BLOCK]);
        journal.append(&[Record::Lost(7..9)]).unwrap();
        step(&[0..7, 9..BLOCK + 5, 3 * BLOCK..4 * BLOCK]);
        yard.write(&journal, BLOCK + 5..2 * BLOCK, Checksum::Blake3);
        step(&[0..7, 9..2 * BLOCK, 3 * BLOCK..4 * BLOCK]);
        yard.write(&journal, 0..BLOCK, Checksum::None);
        step(&[0..2 * BLOCK, 3 * BLOCK..4 * BLOCK]);
        steps
    }

    /// What counts of the records that are whole in the first `len` bytes.
    fn whole_in(steps: &[(u64, Vec<Range<u64>>)], len: u64) -> Option<&(u64, Vec<Range<u64>>)> {
        steps.iter().rfind(|(end, _)| *end <= len)
    }

    // E06: a kill or a power loss at any byte.
    #[test]
    fn every_prefix_says_what_its_whole_records_say_and_is_written_on() {
        let yard = JournalYard::of(5 * BLOCK);
        let steps = mixed(&yard);
        let bytes = yard.bytes();
        for len in 0..=bytes.len() {
            // A disk may give zeros for what was not written.
            for torn in [bytes[..len].to_vec(), [&bytes[..len], &[0; 40]].concat()] {
                yard.put_bytes(&torn);
                let Some((end, here)) = whole_in(&steps, len as u64) else {
                    assert!(yard.open(NOW).is_none(), "{len}");
                    continue;
                };
                let (journal, found) = yard.open(NOW).unwrap();
                assert_eq!((&found, yard.len()), (here, *end), "{len}");
                journal.note_hole(4 * BLOCK..4 * BLOCK + 1).unwrap();
                let [again, _] = yard.says(NOW).unwrap();
                let expected = [&here[..], &[4 * BLOCK..4 * BLOCK + 1]].concat();
                let set = |ranges: Vec<_>| {
                    let mut set = Ranges::default();
                    ranges.into_iter().for_each(|range| set.insert(range).unwrap());
                    set
                };
                assert_eq!(set(again), set(expected), "{len}");
            }
        }
    }

    #[test]
    fn any_flipped_bit_ends_it() {
        let yard = JournalYard::of(5 * BLOCK);
        let steps = mixed(&yard);
        let bytes = yard.bytes();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            yard.put_bytes(&flipped);
            // Up to the record that it is in.
            let expected = whole_in(&steps, bit as u64 / 8).map(|(_, here)| here);
            assert_eq!(yard.open(NOW).map(|(_, here)| here).as_ref(), expected, "bit {bit}");
        }
    }

    #[test]
    fn records_that_are_repeated_moved_or_foreign_end_it() {
        let yard = JournalYard::of(5 * BLOCK);
        let steps = mixed(&yard);
        let bytes = yard.bytes();
        let record = |number: usize| &bytes[steps[number].0 as usize..steps[number + 1].0 as usize];
        let (head, rest) = bytes.split_at(steps[2].0 as usize);
        let other = JournalYard { identity: meta(5 * BLOCK, 2).identity, ..JournalYard::of(5 * BLOCK) };
        let _ = mixed(&other);
        let foreign = other.bytes();
        for (told, changed, expected) in [
            ("repeated", [head, record(1), rest].concat(), 2),
            ("left out", [&bytes[..steps[1].0 as usize], &bytes[steps[2].0 as usize..]].concat(), 1),
            ("swapped", [&bytes[..steps[0].0 as usize], record(1), record(0)].concat(), 0),
            ("foreign", [head, &foreign[head.len()..]].concat(), 2),
            ("all foreign", [&bytes[..steps[0].0 as usize], &foreign[steps[0].0 as usize..]].concat(), 0),
        ] {
            yard.put_bytes(&changed);
            assert_eq!(yard.open(NOW).unwrap().1, steps[expected].1, "{told}");
            assert_eq!(yard.len(), steps[expected].0, "{told}");
        }
    }

    // C16 C20
    #[test]
    fn a_journal_of_another_file_or_version_says_nothing() {
        let yard = JournalYard::of(BLOCK);
        let journal = yard.create(NOW);
        yard.write(&journal, 0..BLOCK, Checksum::Xxh3);
        let bytes = yard.bytes();
        let own = yard.identity;
        let others = [
            Identity { size: own.size + 1, ..own },
            Identity { mtime: (own.mtime.0, own.mtime.1 + 1), ..own },
            Identity { mtime: (own.mtime.0 + 1, own.mtime.1), ..own },
            Identity { tag: [3; 16], ..own },
        ];
        let open = |path: &RemotePath, identity| Journal::open(yard.journal.try_clone().unwrap(), path, identity, NOW).unwrap();
        for identity in &others {
            assert!(open(&path("d/a"), identity).is_none(), "{identity:?}");
        }
        for other in ["d/b", "d/aa", "a"] {
            assert!(open(&path(other), &own).is_none(), "{other}");
        }
        // What says nothing is left as it is.
        assert_eq!(yard.bytes(), bytes);
        let mut later = bytes[..bytes.len() - 8].to_vec();
        later[4] = 2;
        let header_len = encode_header(&NOW, &path("d/a"), &own).0.len();
        let check = crate::digest::check(&later[..header_len - 8], 0);
        later[header_len - 8..header_len].copy_from_slice(&check.to_be_bytes());
        yard.put_bytes(&later);
        assert!(yard.open(NOW).is_none());
        yard.put_bytes(&bytes);
        assert_eq!(yard.says(NOW), Some([vec![0..BLOCK], vec![]]));
        // Begun anew.
        drop(yard.create(NOW));
        assert_eq!(yard.says(NOW), Some([vec![], vec![]]));
    }

    #[test]
    fn a_file_of_no_bytes_has_a_journal_of_no_records() {
        let yard = JournalYard::of(0);
        let mut journal = yard.create(NOW);
        let len = yard.len();
        journal.note_blocks(0..0, Binding::default(), Checksum::Xxh3, &[]).unwrap();
        journal.note_hole(0..0).unwrap();
        assert_eq!(yard.len(), len);
        assert_eq!(verified(&mut journal, &yard.data), []);
        journal.note_synced(&yard.data).unwrap();
        assert_eq!(yard.says(NEXT), Some([vec![], vec![]]));
    }

    // E06
    #[test]
    fn another_boot_makes_unsure_what_was_not_synced() {
        let yard = JournalYard::of(6 * BLOCK);
        let mut journal = yard.create(NOW);
        yard.write(&journal, 0..BLOCK, Checksum::Xxh3);
        journal.note_synced(&yard.data).unwrap();
        yard.write(&journal, 2 * BLOCK..3 * BLOCK, Checksum::Xxh3);
        assert_eq!(yard.says(NOW), Some([vec![0..BLOCK, 2 * BLOCK..3 * BLOCK], vec![]]));
        assert_eq!(yard.says(NEXT), Some([vec![0..BLOCK], vec![2 * BLOCK..3 * BLOCK]]));
        // What is noted since the next boot counts at once in it, and what was before does not for that.
        let (journal, _) = yard.open(NEXT).unwrap();
        yard.write(&journal, 4 * BLOCK..5 * BLOCK, Checksum::Blake3);
        yard.write(&journal, 5 * BLOCK..6 * BLOCK, Checksum::Blake3);
        assert_eq!(yard.says(NEXT), Some([vec![0..BLOCK, 4 * BLOCK..6 * BLOCK], vec![2 * BLOCK..3 * BLOCK]]));
        assert_eq!(yard.says([3; 16]), Some([vec![0..BLOCK], vec![2 * BLOCK..3 * BLOCK, 4 * BLOCK..6 * BLOCK]]));
        // Written again since, it is sure.
        let (journal, _) = yard.open(NEXT).unwrap();
        yard.write(&journal, 2 * BLOCK..3 * BLOCK, Checksum::Xxh3);
        assert_eq!(yard.says(NEXT), Some([vec![0..BLOCK, 2 * BLOCK..3 * BLOCK, 4 * BLOCK..6 * BLOCK], vec![]]));
    }

    // D12
    #[test]
    fn a_file_that_can_not_be_synced_is_not_resumed() {
        let yard = JournalYard::of(BLOCK);
        let mut journal = yard.create(NOW);
        yard.write(&journal, 0..BLOCK, Checksum::Xxh3);
        let pipe = File::from(OwnedFd::from(io::pipe().unwrap().1));
        let refused = journal.note_synced(&pipe).unwrap_err().to_string();
        assert!(refused.starts_with("can't sync d/a: "), "{refused}");
        // A second try, to which the kernel would say yes.
        let refused = journal.note_synced(&yard.data).unwrap_err().to_string();
        assert_eq!(refused, "can't write the journal of d/a: the file could not be synced before");
        assert!(journal.note_hole(0..1).is_err());
        assert_eq!(yard.says(NOW), None);
    }

    // D11
    #[test]
    fn a_journal_that_can_not_be_written_is_named() {
        let yard = JournalYard::of(BLOCK);
        drop(yard.create(NOW));
        let read_only = || {
            File::from(rustix::fs::open(proc_path(&yard.journal), rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap())
        };
        let refused = Journal::create(read_only(), &path("d/a"), &yard.identity, NOW).unwrap_err().to_string();
        assert!(refused.starts_with("can't begin the journal of d/a: "), "{refused}");
        assert_eq!(yard.says(NOW), Some([vec![], vec![]]));
        let journal = yard.create(NOW);
        let broken = Journal { file: read_only(), ..journal };
        let refused = broken.note_hole(0..BLOCK).unwrap_err().to_string();
        assert!(refused.starts_with("can't write the journal of d/a: "), "{refused}");
        assert_eq!(yard.says(NOW), Some([vec![], vec![]]));
    }

    fn proc_path(file: &File) -> String {
        use std::os::fd::AsRawFd as _;
        format!("/proc/self/fd/{}", file.as_raw_fd())
    }

    #[test]
    fn what_a_write_that_failed_left_is_written_over() {
        let yard = JournalYard::of(4 * BLOCK);
        let journal = yard.create(NOW);
        journal.note_hole(0..BLOCK).unwrap();
        yard.journal.write_all_at(&[7; 500], yard.len()).unwrap();
        journal.note_hole(2 * BLOCK..3 * BLOCK).unwrap();
        assert_eq!(yard.says(NOW), Some([vec![0..BLOCK, 2 * BLOCK..3 * BLOCK], vec![]]));
    }

    // B06
    #[test]
    fn what_can_not_be_of_the_file_is_refused_and_not_written() {
        let yard = JournalYard::of(100 * BLOCK);
        let journal = yard.create(NOW);
        let len = yard.len();
        let digests = [7; 65 * 16];
        for (range, digests) in [
            (0..BLOCK, &digests[..15]),
            (0..BLOCK, &[]),
            (0..0, &digests[..16]),
            (0..65 * BLOCK, &digests[..]),
            (100 * BLOCK..100 * BLOCK + 1, &digests[..16]),
            (u64::MAX - 1..u64::MAX, &digests[..16]),
        ] {
            let refused = journal.note_blocks(range, Binding::default(), Checksum::Xxh3, digests).unwrap_err().to_string();
            assert_eq!(refused, "d/a is not a file that has what was to be noted of it");
        }
        assert!(journal.note_hole(0..100 * BLOCK + 1).is_err());
        assert_eq!(yard.len(), len);
    }

    #[test]
    fn many_note_at_once_and_nothing_is_lost() {
        let yard = JournalYard::of(64 * BLOCK);
        drop(yard.create(NOW));
        // At another boot, which is to be noted once, and first.
        let (journal, _) = yard.open(NEXT).unwrap();
        let (journal, yard) = (&journal, &yard);
        thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for block in 0..8 {
                        let start = (block * 8 + thread) * BLOCK;
                        yard.write(journal, start..start + BLOCK, Checksum::Xxh3);
                    }
                });
            }
        });
        assert_eq!(yard.says(NEXT), Some([vec![0..64 * BLOCK], vec![]]));
        assert_eq!(yard.says(NOW), Some([vec![], vec![0..64 * BLOCK]]));
    }
}
