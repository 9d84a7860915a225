//! File → stream and stream → file, hashing on the way: the only loops that touch file content.
//!
//! A byte is copied twice by the kernel on either side and never by us: it is read into the buffer
//! that is written from. No allocation, no decision, no logging happens here.
//!
//! Content travels plain, with one digest for all of it, or in blocks ([`Mark`]) of which each is
//! verified before it goes anywhere.

mod outbox;

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{SeekFrom, seek};

use crate::compress::Decompressor;
use crate::digest::{Binding, Checksum, Digest, Hasher, ZEROS, block_len};
use crate::limits::{BLOCK_LEN, BUFFER_LEN, OUTBOX_LEN, READ_LEN_MIN};
use crate::protocol::v2::payload::{COMPRESSED_LEN, HOLE_LEN, MARK_LEN, Mark, decode_compressed};
use crate::subtrees::{Subtrees, value_of};

pub use outbox::Outbox;

/// Bytes that are read at once where there is no buffer yet: what a connection begins with.
const FIRST_READ_LEN: usize = 4096;

/// Bytes that came from a stream and were not used yet.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Made with the first block that comes compressed.
    decompressor: Option<Box<Decompressor>>,
}

impl Inbox {
    /// The bytes that are here.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Drops the first `len` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn consume(&mut self, len: usize) {
        assert!(len <= self.end - self.start, "consumed more than there was");
        self.start += len;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            // What a long list needed is not kept for the life of the connection.
            if self.buffer.len() > OUTBOX_LEN {
                self.buffer.truncate(BUFFER_LEN);
                self.buffer.shrink_to_fit();
            }
        }
    }

    /// Reads once, making room first: for at most `len_max` bytes in all. 0 means the end.
    ///
    /// # Errors
    /// Those of `stream`; `OutOfMemory` where `len_max` bytes are here already.
    pub fn fill(&mut self, stream: &mut impl Read, len_max: usize) -> io::Result<usize> {
        if self.start > 0 && self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.is_empty() {
            // Most connections are silent: they get no buffer before bytes come.
            let mut first = [0; FIRST_READ_LEN];
            let len = stream.read(&mut first)?;
            if len > 0 {
                self.buffer = vec![0; BUFFER_LEN];
                self.buffer[..len].copy_from_slice(&first[..len]);
                self.end = len;
            }
            return Ok(len);
        }
        if self.end == self.buffer.len() {
            let len = (self.buffer.len() * 2).clamp(BUFFER_LEN, len_max.max(BUFFER_LEN));
            if len <= self.buffer.len() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.buffer.resize(len, 0);
        }
        let len = stream.read(&mut self.buffer[self.end..])?;
        self.end += len;
        Ok(len)
    }

    /// Reads until `len` bytes are here, and makes them lie together. A large run is read to its end
    /// and no further, so that what follows starts at the buffer's beginning and is never moved.
    ///
    /// # Errors
    /// Those of `stream`; its end is an `UnexpectedEof`.
    pub fn require(&mut self, stream: &mut impl Read, len: usize) -> io::Result<()> {
        if self.bytes().len() >= len {
            return Ok(());
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let wanted = len.max(BUFFER_LEN);
        if self.buffer.is_empty() {
            self.buffer = vec![0; wanted];
        } else if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let read_to = if len < READ_LEN_MIN { self.buffer.len() } else { len };
        while self.end < len {
            match stream.read(&mut self.buffer[self.end..read_to]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => self.end += read?,
            }
        }
        Ok(())
    }

    /// Gives the memory back where nothing is here: for connections that wait.
    pub fn release(&mut self) {
        if self.start == self.end {
            *self = Self::default();
        }
    }
}

/// Which end of the pump failed.
#[derive(Debug)]
pub enum PumpError {
    /// The file; a source that ends too early is an `UnexpectedEof`.
    File(io::Error),
    /// The stream; a stream that ends too early is an `UnexpectedEof`.
    Stream(io::Error),
}

/// Puts `len` bytes of `source` from `offset` on into `outbox`, which is written to `stream` when it
/// is full. Gives their digest.
///
/// # Errors
/// Of the source and of the stream, told apart.
pub fn file_to_stream(
    source: &File, mut offset: u64, len: u64, outbox: &mut Outbox, stream: &mut impl Write,
) -> Result<Digest, PumpError> {
    let mut hasher = Hasher::default();
    let end = offset + len;
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        outbox.make_room(stream, left.min(READ_LEN_MIN)).map_err(PumpError::Stream)?;
        let room = &mut outbox.buffer[outbox.len..];
        let room_len = room.len().min(left);
        let room = &mut room[..room_len];
        let read = match source.read_at(room, offset) {
            Ok(0) => return Err(PumpError::File(io::ErrorKind::UnexpectedEof.into())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(PumpError::File)?,
        };
        hasher.update(&room[..read]);
        outbox.len += read;
        offset += read as u64;
        if outbox.len == outbox.buffer.len() {
            outbox.flush(stream).map_err(PumpError::Stream)?;
        }
    }
    Ok(hasher.finish())
}

/// Writes the next `len` bytes of `inbox` and then of `stream` to `target` from `offset` on. Gives
/// their digest.
///
/// # Errors
/// Of the target and of the stream, told apart. What came before the error is written.
pub fn stream_to_file(
    inbox: &mut Inbox, stream: &mut impl Read, target: &File, mut offset: u64, len: u64,
) -> Result<Digest, PumpError> {
    let mut hasher = Hasher::default();
    let end = offset + len;
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        if inbox.bytes().is_empty() {
            match inbox.fill(stream, BUFFER_LEN) {
                Ok(0) => return Err(PumpError::Stream(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                filled => filled.map_err(PumpError::Stream)?,
            };
        }
        let bytes = inbox.bytes();
        let bytes = &bytes[..bytes.len().min(left)];
        hasher.update(bytes);
        target.write_all_at(bytes, offset).map_err(PumpError::File)?;
        let len = bytes.len();
        offset += len as u64;
        inbox.consume(len);
    }
    Ok(hasher.finish())
}

/// A range of a file that travels in blocks.
#[derive(Debug, Clone)]
pub struct Run {
    /// The bytes of the file.
    pub range: Range<u64>,
    /// Bytes of the whole file.
    pub size: u64,
    /// Has it holes?
    pub is_sparse: bool,
    /// How blocks are verified.
    pub checksum: Checksum,
    /// What their digests are bound to.
    pub binding: Binding,
}

impl Run {
    fn is_whole(&self, offset: u64, len: u64) -> bool {
        offset == 0 && len == self.size
    }
}

/// How a source was read.
#[derive(Debug)]
pub enum Reading {
    /// To the end of the range.
    Whole,
    /// It ended too early.
    Short,
    /// It could not be read.
    Failed(io::Error),
}

/// Where the time of a pump went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Reading or writing files.
    pub file: Duration,
    /// Digests, and compression.
    pub digest: Duration,
}

/// Puts a range of `source` into `outbox` in blocks, which is written to `stream` when it is full.
/// The last mark is left to the caller, who knows whether the source is still the same. BLAKE3
/// values go to `subtrees` where they are wanted.
///
/// # Errors
/// Those of the stream. A source that fails is no error here: the blocks before it are good.
pub fn file_to_blocks(
    source: &File, run: &Run, outbox: &mut Outbox, stream: &mut impl Write, times: &mut Times,
    mut subtrees: Option<&mut Subtrees>,
) -> io::Result<Reading> {
    let mut offset = run.range.start;
    let digest_len = run.checksum.digest_len();
    if let Some(compressor) = &mut outbox.compressor {
        compressor.begin(run.size, offset == 0);
    }
    while offset < run.range.end {
        if run.is_sparse {
            let hole_end = match hole_end(source, offset, run.range.end) {
                Ok(end) => end,
                Err(error) => return Ok(Reading::Failed(error)),
            };
            if hole_end > offset {
                let len = hole_end - offset;
                let (digest, _) = run.checksum.seal(run.binding.of_block(offset, len, true), offset, &[], false);
                outbox.make_room(stream, MARK_LEN + HOLE_LEN + digest_len)?;
                outbox.put(stream, &[Mark::Hole as u8])?;
                outbox.put(stream, &len.to_be_bytes())?;
                outbox.put(stream, &digest[..digest_len])?;
                if let Some(subtrees) = &mut subtrees {
                    add_zeros(subtrees, run, offset..hole_end);
                }
                offset = hole_end;
                continue;
            }
        }
        let len = block_len(offset, run.range.end);
        outbox.make_room(stream, MARK_LEN + len + digest_len)?;
        let start = outbox.len;
        let place = &mut outbox.buffer[start + MARK_LEN..start + MARK_LEN + len];
        let before = Instant::now();
        match source.read_exact_at(place, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Reading::Short),
            Err(error) => return Ok(Reading::Failed(error)),
        }
        let between = Instant::now();
        let (at, is_whole) = (run.binding.of_block(offset, len as u64, false), run.is_whole(offset, len as u64));
        let (digest, value) = run.checksum.seal(at, offset, place, is_whole);
        if let Some(subtrees) = &mut subtrees {
            subtrees.add(offset, len as u64, value.unwrap_or_else(|| value_of(offset, place, is_whole)));
        }
        outbox.take_block(len);
        times.file += between - before;
        times.digest += between.elapsed();
        outbox.put(stream, &digest[..digest_len])?;
        offset += len as u64;
    }
    Ok(Reading::Whole)
}

/// Ends a run of blocks: with the mark that says whether the source stayed the same.
///
/// # Errors
/// Those of the stream.
pub fn end_blocks(outbox: &mut Outbox, stream: &mut impl Write, is_same: bool) -> io::Result<()> {
    outbox.put(stream, &[if is_same { Mark::Same } else { Mark::Void } as u8])
}

/// Where the hole that `offset` is in ends, as far as whole blocks go; `offset` where there is none.
fn hole_end(source: &File, offset: u64, end: u64) -> io::Result<u64> {
    match seek(source, SeekFrom::Data(offset)) {
        Ok(data) if data >= end => Ok(end),
        Ok(data) => Ok((data - data % BLOCK_LEN as u64).max(offset)),
        // No data from here to the end of the file.
        Err(rustix::io::Errno::NXIO) => Ok(end),
        // A file system that does not know of holes.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(offset),
        Err(errno) => Err(errno.into()),
    }
}

fn add_zeros(subtrees: &mut Subtrees, run: &Run, hole: Range<u64>) {
    let mut offset = hole.start;
    while offset < hole.end {
        let len = block_len(offset, hole.end);
        subtrees.add(offset, len as u64, value_of(offset, &ZEROS[..len], run.is_whole(offset, len as u64)));
        offset += len as u64;
    }
}

/// One verified block.
#[derive(Debug)]
pub enum Block<'a> {
    /// At this offset these bytes, found good by this digest.
    Data(u64, &'a [u8], &'a [u8]),
    /// Nothing in this range.
    Hole(Range<u64>),
}

/// How a run of blocks ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All of it came, and its source stayed the same.
    Same,
    /// Its source did not stay the same.
    Void,
    /// A block was not what its digest says. Those before it were.
    Mismatched,
}

/// Takes a run of blocks from `inbox` and then from `stream`, and gives each to `take` once it is
/// verified. Without a taker all is read and dropped, as it is after a block that is wrong. BLAKE3 values
/// of what was taken go to `subtrees` where they are wanted.
///
/// # Errors
/// Those of the stream; `InvalidData` where what comes is no run of blocks.
pub fn blocks_to_file(
    inbox: &mut Inbox, stream: &mut impl Read, run: &Run, times: &mut Times, mut take: Option<&mut dyn FnMut(Block<'_>)>,
    mut subtrees: Option<&mut Subtrees>,
) -> io::Result<Ended> {
    let digest_len = run.checksum.digest_len();
    let mut offset = run.range.start;
    let mut ended = Ended::Same;
    loop {
        inbox.require(stream, MARK_LEN)?;
        let left = run.range.end - offset;
        // What stands before its bytes, how many of the file it covers, and how many bytes it has here.
        let mark = Mark::decode(inbox.bytes()[0]).map_err(invalid)?;
        let (head_len, len, data_len) = match mark {
            Mark::Void => {
                inbox.consume(MARK_LEN);
                return Ok(Ended::Void);
            }
            Mark::Same if left == 0 => {
                inbox.consume(MARK_LEN);
                return Ok(ended);
            }
            Mark::Data if left > 0 => {
                let len = block_len(offset, run.range.end);
                (MARK_LEN, len as u64, len)
            }
            Mark::Compressed if left > 0 => {
                inbox.require(stream, MARK_LEN + COMPRESSED_LEN)?;
                let here = inbox.bytes()[MARK_LEN..].first_chunk().copied().unwrap_or_default();
                let (data_len, len) = (decode_compressed(here).map_err(invalid)?, block_len(offset, run.range.end));
                if !(1..len).contains(&data_len) {
                    return Err(invalid("a compressed block that is no smaller"));
                }
                (MARK_LEN + COMPRESSED_LEN, len as u64, data_len)
            }
            Mark::Hole if left > 0 => {
                inbox.require(stream, MARK_LEN + HOLE_LEN)?;
                let len = inbox.bytes()[MARK_LEN..].first_chunk().map_or(0, |len| u64::from_be_bytes(*len));
                (MARK_LEN + HOLE_LEN, len, 0)
            }
            _ => return Err(invalid("a mark where it can't be")),
        };
        inbox.require(stream, head_len + data_len + digest_len)?;
        if take.is_some() && ended == Ended::Same {
            let before = Instant::now();
            let is_hole = mark == Mark::Hole;
            let (data, digest) = inbox.buffer[inbox.start + head_len..inbox.end].split_at(data_len);
            let data = if mark == Mark::Compressed {
                // Whoever sends that is lying, or the line is: nothing behind it is worth a look.
                let decompressed = inbox.decompressor.get_or_insert_default().decompress(data, len as usize);
                decompressed.map_err(|error| invalid(format!("a damaged compressed block: {error}")))?
            } else {
                data
            };
            let at = run.binding.of_block(offset, len, is_hole);
            let is_whole = !is_hole && run.is_whole(offset, len);
            let (expected, value) = run.checksum.seal(at, offset, data, is_whole);
            let between = Instant::now();
            times.digest += between - before;
            if digest[..digest_len] != expected[..digest_len] {
                if is_hole {
                    return Err(invalid("a damaged hole"));
                }
                ended = Ended::Mismatched;
            } else if let Some(take) = &mut take
                && len <= left
            {
                match &mut subtrees {
                    None => {}
                    Some(subtrees) if is_hole => add_zeros(subtrees, run, offset..offset + len),
                    Some(subtrees) => subtrees.add(offset, len, value.unwrap_or_else(|| value_of(offset, data, is_whole))),
                }
                take(if is_hole { Block::Hole(offset..offset + len) } else { Block::Data(offset, data, &digest[..digest_len]) });
                times.file += between.elapsed();
            }
        }
        inbox.consume(head_len + data_len + digest_len);
        if len == 0 || len > left {
            return Err(invalid("a hole that leads out of its range"));
        }
        offset += len;
    }
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_grows_to_its_limit_and_no_further() {
        let mut inbox = Inbox::default();
        let mut endless = io::repeat(7);
        let len_max = 3 * BUFFER_LEN + 1;
        while inbox.bytes().len() < len_max {
            inbox.fill(&mut endless, len_max).unwrap();
        }
        assert_eq!(inbox.bytes().len(), len_max);
        assert_eq!(inbox.fill(&mut endless, len_max).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        inbox.consume(len_max);
        assert_eq!(inbox.buffer.len(), BUFFER_LEN);
    }
}
