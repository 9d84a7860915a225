//! What a journal says, as bytes: a header, and records of which each is chained to the one before it;
//! and what it all comes to. docs/JOURNAL.md has the format.

use std::hash::{BuildHasher as _, RandomState};
use std::iter;
use std::ops::Range;

use super::chain;
use crate::digest::{Binding, Checksum, block_len, check};
use crate::entry::Identity;
use crate::limits::{JOURNAL_BLOCKS_MAX, PATH_LEN_MAX};
use crate::path::RemotePath;
use crate::ranges::Ranges;

/// Which start of this machine it was: what was written before another one may never have reached the
/// disk.
pub type BootId = [u8; 16];

/// The present boot's. Where the system does not say, each process has its own: what others wrote is
/// hashed again.
pub(super) fn this_boot() -> BootId {
    #[allow(clippy::disallowed_methods, reason = "no file of a tree")]
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(number) if digits.len() == 32 => number.to_be_bytes(),
        _ => {
            let half = || RandomState::new().hash_one(()).to_be_bytes();
            let mut own = [0; 16];
            own.iter_mut().zip(half().into_iter().chain(half())).for_each(|(place, byte)| *place = byte);
            own
        }
    }
}

const MAGIC: &[u8; 4] = b"PTFJ";

/// Of the whole format: a new kind of record is a new version.
const VERSION: u8 = 1;

const BLOCKS: u8 = 1;
const HOLE: u8 = 2;
const LOST: u8 = 3;
const BOOT: u8 = 4;
const SYNCED: u8 = 5;

/// Kind, offset, length, binding, checksum and digests of the longest record.
const BODY_LEN_MAX: usize = 1 + 3 * 8 + 1 + JOURNAL_BLOCKS_MAX * 32;

/// Bytes of the longest record.
pub(super) const RECORD_LEN_MAX: usize = chain::record_len(BODY_LEN_MAX);

/// The header of a journal, and its check, which the first record is chained to.
pub(super) fn encode_header(boot: &BootId, path: &RemotePath, identity: &Identity) -> (Vec<u8>, u64) {
    let path = path.as_bytes();
    // A path has 4095 bytes at the most.
    let path_len = u16::try_from(path.len()).unwrap_or(u16::MAX);
    let mut bytes = [MAGIC, &[VERSION][..], boot].concat();
    bytes.extend_from_slice(&identity.size.to_be_bytes());
    bytes.extend_from_slice(&identity.mtime.0.to_be_bytes());
    bytes.extend_from_slice(&identity.mtime.1.to_be_bytes());
    bytes.extend_from_slice(&identity.tag);
    bytes.extend_from_slice(&path_len.to_be_bytes());
    bytes.extend_from_slice(path);
    let own = check(&bytes, 0);
    bytes.extend_from_slice(&own.to_be_bytes());
    (bytes, own)
}

/// The boot that a header names, and its check. None where it is not the header of this file, or of
/// another version: nothing that such a journal says can be understood, and it is begun anew.
pub(super) fn decode_header(bytes: &[u8], path: &RemotePath, identity: &Identity) -> Option<(BootId, u64)> {
    let boot = *bytes.get(MAGIC.len().saturating_add(1)..)?.first_chunk()?;
    let (expected, own) = encode_header(&boot, path, identity);
    (bytes == expected).then_some((boot, own))
}

/// Bytes of the longest header.
pub(super) const HEADER_LEN_MAX: usize = HEAD_LEN + PATH_LEN_MAX + 8;

/// Magic, version, boot, size, time, tag and length of the path.
const HEAD_LEN: usize = 4 + 1 + 16 + 8 + 12 + 16 + 2;

/// Whose the header at the start of `bytes` is, how long it is, and what [`decode_header`] gives.
pub(super) fn find_header(bytes: &[u8]) -> Option<(RemotePath, Identity, usize, (BootId, u64))> {
    let mut fields = bytes.get(MAGIC.len().saturating_add(17)..)?;
    let (size, seconds) = (take_long(&mut fields)?, i64::from_be_bytes(take(&mut fields)?));
    let identity = Identity { size, mtime: (seconds, u32::from_be_bytes(take(&mut fields)?)), tag: take(&mut fields)? };
    let path_len = u16::from_be_bytes(take(&mut fields)?);
    let path = RemotePath::parse(fields.get(..usize::from(path_len))?).ok()?;
    let len = HEAD_LEN.saturating_add(path_len.into()).saturating_add(8);
    let decoded = decode_header(bytes.get(..len)?, &path, &identity)?;
    Some((path, identity, len, decoded))
}

/// One record of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// Blocks that were verified and then written.
    Blocks {
        range: Range<u64>,
        binding: Binding,
        checksum: Checksum,
        /// Those of all blocks of the range, in order.
        digests: &'a [u8],
    },
    /// A hole of the source: nothing was written.
    Hole(Range<u64>),
    /// What earlier records say of this range is not true any more.
    Lost(Range<u64>),
    /// What follows was written since this boot.
    Boot(BootId),
    /// All that earlier records say is on the disk.
    Synced,
}

impl<'a> Record<'a> {
    /// Adds it to `bytes`, chained to what has the check `before`; gives its own check.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>, before: u64) -> u64 {
        let mut body = Vec::new();
        let put_range = |body: &mut Vec<u8>, kind, range: &Range<u64>| {
            body.push(kind);
            body.extend_from_slice(&range.start.to_be_bytes());
            body.extend_from_slice(&range.end.saturating_sub(range.start).to_be_bytes());
        };
        match self {
            Self::Blocks { range, binding, checksum, digests } => {
                put_range(&mut body, BLOCKS, range);
                body.extend_from_slice(&binding.into_u64().to_be_bytes());
                body.push(checksum.code());
                body.extend_from_slice(digests);
            }
            Self::Hole(range) => put_range(&mut body, HOLE, range),
            Self::Lost(range) => put_range(&mut body, LOST, range),
            Self::Boot(boot) => {
                body.push(BOOT);
                body.extend_from_slice(boot);
            }
            Self::Synced => body.push(SYNCED),
        }
        chain::encode(bytes, &body, before)
    }

    /// The record at the start of `bytes`, how long it is, and its check. None where it is torn, not
    /// chained to what has the check `before`, or can't be of a file of `size` bytes.
    pub(super) fn decode(bytes: &'a [u8], before: u64, size: u64) -> Option<(Self, usize, u64)> {
        let (body, len, own) = chain::decode(bytes, before, BODY_LEN_MAX)?;
        let record = Self::decode_body(body)?;
        record.fits(size).then_some((record, len, own))
    }

    fn decode_body(body: &'a [u8]) -> Option<Self> {
        let (&kind, mut fields) = body.split_first()?;
        let record = match kind {
            BLOCKS => {
                let range = take_range(&mut fields)?;
                let binding = Binding::from_u64(take_long(&mut fields)?);
                let (&checksum, digests) = fields.split_first()?;
                fields = &[];
                Self::Blocks { range, binding, checksum: Checksum::from_code(checksum)?, digests }
            }
            HOLE => Self::Hole(take_range(&mut fields)?),
            LOST => Self::Lost(take_range(&mut fields)?),
            BOOT => Self::Boot(take(&mut fields)?),
            SYNCED => Self::Synced,
            _ => return None,
        };
        fields.is_empty().then_some(record)
    }

    /// Can it be of a file of `size` bytes?
    pub(super) fn fits(&self, size: u64) -> bool {
        match self {
            Self::Blocks { range, checksum, digests, .. } => {
                let blocks_num = blocks(range).take(JOURNAL_BLOCKS_MAX.saturating_add(1)).count();
                (1..=JOURNAL_BLOCKS_MAX).contains(&blocks_num)
                    && range.end <= size
                    && digests.len() == blocks_num.saturating_mul(checksum.digest_len())
            }
            Self::Hole(range) | Self::Lost(range) => !range.is_empty() && range.end <= size,
            Self::Boot(_) | Self::Synced => true,
        }
    }
}

fn take<const LEN: usize>(fields: &mut &[u8]) -> Option<[u8; LEN]> {
    let (field, rest) = fields.split_first_chunk()?;
    *fields = rest;
    Some(*field)
}

fn take_long(fields: &mut &[u8]) -> Option<u64> {
    take(fields).map(u64::from_be_bytes)
}

fn take_range(fields: &mut &[u8]) -> Option<Range<u64>> {
    let (start, len) = (take_long(fields)?, take_long(fields)?);
    Some(start..start.checked_add(len)?)
}

/// The blocks that a range of content is cut into.
pub(super) fn blocks(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let (mut offset, end) = (range.start, range.end);
    iter::from_fn(move || {
        let block = offset..offset.saturating_add(block_len(offset, end) as u64);
        offset = block.end;
        (!block.is_empty()).then_some(block)
    })
}

/// What the records come to, in their order. Of a range that several name, the last one counts. Where a
/// set would get too many pieces something is left out of it: it comes once more, and no harm is done.
#[derive(Debug)]
pub(super) struct Reading {
    /// What is there for certain.
    pub(super) here: Ranges,
    /// What was written before another boot and may not have reached the disk.
    pub(super) unsure: Ranges,
    now: BootId,
    /// Was this written since `now`?
    pub(super) is_now: bool,
}

impl Reading {
    /// Of a journal that was begun at the boot `begun`, read at the boot `now`.
    pub(super) fn new(begun: BootId, now: BootId) -> Self {
        Self { here: Ranges::default(), unsure: Ranges::default(), now, is_now: begun == now }
    }

    pub(super) fn take(&mut self, record: &Record<'_>) {
        match record {
            Record::Blocks { range, .. } | Record::Hole(range) => {
                let (to, from) =
                    if self.is_now { (&mut self.here, &mut self.unsure) } else { (&mut self.unsure, &mut self.here) };
                take_out(from, range);
                let _ = to.insert(range.clone());
            }
            Record::Lost(range) => {
                take_out(&mut self.here, range);
                take_out(&mut self.unsure, range);
            }
            Record::Boot(boot) => self.is_now = *boot == self.now,
            Record::Synced => {
                for range in std::mem::take(&mut self.unsure).iter() {
                    let _ = self.here.insert(range);
                }
            }
        }
    }
}

/// Takes a range out for certain, and if that makes too many pieces all that follows it as well.
fn take_out(set: &mut Ranges, range: &Range<u64>) {
    if set.remove(range.clone()).is_err() {
        let _ = set.remove(range.start..u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::{BLOCK_LEN, RANGES_MAX};

    const BLOCK: u64 = BLOCK_LEN as u64;
    const SIZE: u64 = 1 << 40;

    fn content(range: Range<u64>, checksum: Checksum, digests: &[u8]) -> Record<'_> {
        Record::Blocks { range, binding: Binding::of(b"body"), checksum, digests }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // These bytes can't change: journals of other versions of this program are on disks.
    #[test]
    fn a_journal_has_the_bytes_that_its_document_says() {
        let identity = Identity { size: 0x3_0000, mtime: (-2, 3), tag: [0xaa; 16] };
        let path = RemotePath::parse(b"d/f").unwrap();
        let (mut bytes, mut check) = encode_header(&[0xbb; 16], &path, &identity);
        let head = "5054464a01".to_owned() + &"bb".repeat(16) + "0000000000030000fffffffffffffffe00000003";
        assert_eq!(hex(&bytes), head + &"aa".repeat(16) + "0003642f66" + &format!("{check:016x}"));
        assert_eq!(decode_header(&bytes, &path, &identity), Some(([0xbb; 16], check)));
        assert_eq!(find_header(&bytes), Some((path, identity, bytes.len(), ([0xbb; 16], check))));
        assert!((0..bytes.len()).all(|len| find_header(&bytes[..len]).is_none()));
        for (record, body) in [
            (content(5..BLOCK + 1, Checksum::Xxh3, &[0xdd; 32]), "01 0000000000000005 000000000000fffc"),
            (content(0..1, Checksum::None, &[]), "01 0000000000000000 0000000000000001"),
            (Record::Hole(1..3), "02 0000000000000001 0000000000000002"),
            (Record::Lost(1..3), "03 0000000000000001 0000000000000002"),
            (Record::Boot([0xcc; 16]), "04cccccccccccccccccccccccccccccccc"),
            (Record::Synced, "05"),
        ] {
            bytes.clear();
            let before = check;
            check = record.encode(&mut bytes, before);
            let more = match &record {
                Record::Blocks { checksum, digests, .. } => {
                    format!("{:016x}{:02x}{}", Binding::of(b"body").into_u64(), checksum.code(), hex(digests))
                }
                _ => String::new(),
            };
            let body = body.replace(' ', "") + &more;
            assert_eq!(hex(&bytes), format!("{:04x}{body}{check:016x}", body.len() / 2));
            assert_eq!(crate::digest::check(&bytes[..bytes.len() - 8], before), check);
            assert_eq!(Record::decode(&bytes, before, identity.size), Some((record, bytes.len(), check)));
        }
    }

    // B02 B06
    #[test]
    fn what_can_not_be_of_the_file_is_no_record() {
        let digests = [7; 66 * 32];
        let inverted = Range { start: 9, end: 8 };
        for (record, is_right) in [
            (content(0..BLOCK, Checksum::Xxh3, &digests[..16]), true),
            (content(0..BLOCK, Checksum::Xxh3, &digests[..17]), false),
            (content(0..BLOCK, Checksum::Xxh3, &digests[..32]), false),
            (content(0..BLOCK, Checksum::Xxh3, &[]), false),
            (content(0..BLOCK, Checksum::None, &[]), true),
            (content(0..BLOCK, Checksum::None, &digests[..16]), false),
            (content(0..BLOCK + 1, Checksum::Blake3, &digests[..64]), true),
            (content(0..BLOCK + 1, Checksum::Blake3, &digests[..32]), false),
            (content(BLOCK - 1..BLOCK + 1, Checksum::Xxh3, &digests[..32]), true),
            (content(0..64 * BLOCK, Checksum::Blake3, &digests[..64 * 32]), true),
            (content(0..64 * BLOCK + 1, Checksum::Blake3, &digests[..65 * 32]), false),
            (content(1..64 * BLOCK + 1, Checksum::Xxh3, &digests[..65 * 16]), false),
            (content(0..u64::MAX, Checksum::None, &[]), false),
            (content(5..5, Checksum::Xxh3, &[]), false),
            (content(SIZE - 1..SIZE, Checksum::Xxh3, &digests[..16]), true),
            (content(SIZE - 1..SIZE + 1, Checksum::Xxh3, &digests[..32]), false),
            (content(SIZE..SIZE + 1, Checksum::Xxh3, &digests[..16]), false),
            (Record::Hole(0..SIZE), true),
            (Record::Hole(0..SIZE + 1), false),
            (Record::Hole(7..7), false),
            (Record::Hole(inverted.clone()), false),
            (Record::Lost(0..SIZE), true),
            (Record::Lost(1..SIZE + 1), false),
            (Record::Lost(inverted), false),
        ] {
            assert_eq!(record.fits(SIZE), is_right, "{record:?}");
            let mut bytes = Vec::new();
            record.encode(&mut bytes, 5);
            assert_eq!(Record::decode(&bytes, 5, SIZE).is_some(), is_right, "{record:?}");
            assert!(!is_right || bytes.len() <= RECORD_LEN_MAX);
        }
        for body in [
            &[][..],
            &[0],
            &[6],
            &[5, 0],
            &[4; 16],
            &[4; 18],
            &[2; 16],
            &[2; 18],
            // Its length leads past the end of all numbers.
            &[2, 0, 0, 0, 0, 0, 0, 0, 9, 255, 255, 255, 255, 255, 255, 255, 255],
            &[1; 25],
            // A checksum that there is not.
            &[[1; 1].as_slice(), &[0; 15], &[1], &[0; 8], &[3]].concat(),
        ] {
            let bytes = [&[0, u8::try_from(body.len()).unwrap()][..], body].concat();
            let bytes = [&bytes[..], &check(&bytes, 5).to_be_bytes()].concat();
            assert_eq!(Record::decode(&bytes, 5, u64::MAX), None, "{body:?}");
        }
        // Longer than any record, if all of it is there.
        let bytes = [&[255, 255][..], &[0; 65_535]].concat();
        let bytes = [&bytes[..], &check(&bytes, 5).to_be_bytes()].concat();
        assert_eq!(Record::decode(&bytes, 5, u64::MAX), None);
    }

    #[test]
    fn blocks_cover_their_range_and_end_where_all_numbers_do() {
        assert_eq!(blocks(&(5..2 * BLOCK + 1)).collect::<Vec<_>>(), [5..BLOCK, BLOCK..2 * BLOCK, 2 * BLOCK..2 * BLOCK + 1]);
        let last = u64::MAX - 3..u64::MAX;
        assert!(blocks(&last).eq([last.clone()]));
        assert_eq!(blocks(&(7..7)).next(), None);
    }

    #[test]
    fn too_many_pieces_are_left_out_and_never_made_up() {
        let (now, before) = ([1; 16], [2; 16]);
        let step = |number: usize| 4 * number as u64..4 * number as u64 + 3;
        for begun in [now, before] {
            let mut reading = Reading::new(begun, now);
            for number in 0..=RANGES_MAX {
                reading.take(&Record::Hole(step(number)));
            }
            reading.take(&Record::Hole(3..4));
            reading.take(&Record::Lost(20..21));
            reading.take(&Record::Lost(101..102));
            let set = if begun == now { &reading.here } else { &reading.unsure };
            assert_eq!(set.iter().count(), RANGES_MAX);
            assert!(set.covers(&(0..7)) && set.covers(&(21..23)) && set.covers(&step(RANGES_MAX - 1)));
            assert!(!set.covers(&step(RANGES_MAX)) && !set.covers(&(20..21)) && !set.covers(&(101..102)));
            // One that would become two is cut off instead, and those behind it.
            reading.take(&Record::Lost(401..402));
            let set = if begun == now { &reading.here } else { &reading.unsure };
            assert_eq!(set.iter().last(), Some(400..401));
            let mut reading = Reading::new(begun, now);
            reading.take(&Record::Hole(0..2 * RANGES_MAX as u64 + 9));
            for number in 0..=RANGES_MAX as u64 {
                reading.take(&Record::Lost(2 * number + 1..2 * number + 2));
            }
            let set = if begun == now { reading.here } else { reading.unsure };
            assert!(set.iter().flatten().all(|offset| offset % 2 == 0) && set.iter().count() == RANGES_MAX);
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Byte {
        Missing,
        Unsure,
        Here,
    }

    fn any_record() -> impl Strategy<Value = Record<'static>> {
        let range = || (0..60_u64, 1..20_u64).prop_map(|(start, len)| start..start + len);
        prop_oneof![
            3 => range().prop_map(|range| content(range, Checksum::None, &[])),
            3 => range().prop_map(Record::Hole),
            2 => range().prop_map(Record::Lost),
            2 => (1..4_u8).prop_map(|boot| Record::Boot([boot; 16])),
            1 => Just(Record::Synced),
        ]
    }

    proptest! {
        #[test]
        fn records_come_to_what_they_say_byte_by_byte(records in prop::collection::vec(any_record(), 0..24), begun in 1..4_u8) {
            let now = [1; 16];
            let (mut reading, mut bytes, mut boot) = (Reading::new([begun; 16], now), [Byte::Missing; 80], [begun; 16]);
            for record in &records {
                reading.take(record);
                match record {
                    Record::Blocks { range, .. } | Record::Hole(range) => {
                        let byte = if boot == now { Byte::Here } else { Byte::Unsure };
                        bytes[range.start as usize..range.end as usize].fill(byte);
                    }
                    Record::Lost(range) => bytes[range.start as usize..range.end as usize].fill(Byte::Missing),
                    Record::Boot(other) => boot = *other,
                    Record::Synced => {
                        bytes.iter_mut().filter(|byte| **byte == Byte::Unsure).for_each(|byte| *byte = Byte::Here);
                    }
                }
            }
            for (offset, byte) in bytes.into_iter().enumerate() {
                let at = offset as u64..offset as u64 + 1;
                let read = match (reading.here.covers(&at), reading.unsure.covers(&at)) {
                    (true, false) => Byte::Here,
                    (false, true) => Byte::Unsure,
                    (false, false) => Byte::Missing,
                    both => panic!("{both:?}"),
                };
                prop_assert_eq!(read, byte, "at {}", offset);
            }
            prop_assert_eq!(reading.is_now, boot == now);
        }
    }
}
