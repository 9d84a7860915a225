//! File → stream and stream → file, hashing on the way: the only loops that touch file content.
//!
//! A byte is copied twice by the kernel on either side and never by us: it is read into the buffer
//! that is written from. No allocation, no decision, no logging happens here.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;

use crate::digest::{Digest, Hasher};
use crate::limits::{BUFFER_LEN, READ_LEN_MIN};

/// Bytes on their way to a stream. Headers and content gather here, so that a small frame travels
/// with its neighbours and a header with the first bytes after it.
#[derive(Debug)]
pub struct Outbox {
    buffer: Box<[u8]>,
    len: usize,
    flushed_bytes: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER_LEN].into(), len: 0, flushed_bytes: 0 }
    }
}

impl Outbox {
    /// Bytes put in since the beginning, flushed or not.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.flushed_bytes + self.len as u64
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn waiting_len(&self) -> usize {
        self.len
    }

    /// Bytes written so far.
    #[must_use]
    pub fn flushed_bytes(&self) -> u64 {
        self.flushed_bytes
    }

    /// Writes what waits unless `len` more bytes have room.
    ///
    /// # Errors
    /// Those of `stream`.
    pub fn make_room(&mut self, stream: &mut impl Write, len: usize) -> io::Result<()> {
        if self.buffer.len() - self.len < len { self.flush(stream) } else { Ok(()) }
    }

    /// Adds `bytes`, writing to `stream` what is in their way.
    ///
    /// # Errors
    /// Those of `stream`.
    pub fn put(&mut self, stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.len == self.buffer.len() {
                self.flush(stream)?;
            }
            let len = bytes.len().min(self.buffer.len() - self.len);
            self.buffer[self.len..self.len + len].copy_from_slice(&bytes[..len]);
            self.len += len;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// Writes all that waits.
    ///
    /// # Errors
    /// Those of `stream`.
    pub fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        stream.write_all(&self.buffer[..self.len])?;
        self.flushed_bytes += self.len as u64;
        self.len = 0;
        Ok(())
    }

    /// Takes back all that was put in after `position`; false when some of it was written already.
    pub fn take_back(&mut self, position: u64) -> bool {
        let Some(len) = position.checked_sub(self.flushed_bytes).and_then(|len| usize::try_from(len).ok()) else {
            return false;
        };
        self.len = self.len.min(len);
        true
    }
}

/// Bytes that came from a stream and were not used yet.
#[derive(Debug, Default)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
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
            if self.buffer.len() > BUFFER_LEN {
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
        if self.end == self.buffer.len() {
            let len = (self.buffer.len() * 2).clamp(BUFFER_LEN, len_max.max(BUFFER_LEN));
            if len <= self.buffer.len() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            if self.buffer.is_empty() {
                // Pages of zeros that are not touched before bytes come: most connections are silent.
                self.buffer = vec![0; len];
            } else {
                self.buffer.resize(len, 0);
            }
        }
        let len = stream.read(&mut self.buffer[self.end..])?;
        self.end += len;
        Ok(len)
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

    #[test]
    fn an_outbox_takes_back_only_what_was_not_written() {
        let mut outbox = Outbox::default();
        let mut written = Vec::new();
        outbox.put(&mut written, b"kept").unwrap();
        let position = outbox.position();
        outbox.put(&mut written, b"dropped").unwrap();
        assert!(outbox.take_back(position));
        outbox.flush(&mut written).unwrap();
        assert_eq!(written, b"kept");
        assert!(!outbox.take_back(position - 1));
        outbox.put(&mut written, &vec![1; BUFFER_LEN + 1]).unwrap();
        assert!(!outbox.take_back(position));
    }
}
