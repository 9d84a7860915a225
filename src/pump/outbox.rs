//! What goes out gathers here: headers, content, and blocks that may be compressed where they lie.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::compress::{Compressor, Level};
use crate::limits::OUTBOX_LEN;
use crate::protocol::v2::payload::{MARK_LEN, Mark, encode_compressed};

/// Bytes on their way to a stream. Headers and content gather here, so that a small frame travels
/// with its neighbours and a header with the first bytes after it.
#[derive(Debug)]
pub struct Outbox {
    pub(super) buffer: Box<[u8]>,
    pub(super) len: usize,
    flushed_bytes: u64,
    /// What compresses blocks, where they are to be.
    pub(super) compressor: Option<Box<Compressor>>,
    /// Time that writing took, and how much of that was work of this thread.
    writing: Duration,
    working: Duration,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::compressing(None)
    }
}

impl Outbox {
    /// One whose blocks are compressed at this level, if there is one.
    #[must_use]
    pub fn compressing(level: Option<Level>) -> Self {
        Self {
            buffer: vec![0; OUTBOX_LEN].into(),
            len: 0,
            flushed_bytes: 0,
            compressor: level.and_then(Compressor::new).map(Box::new),
            writing: Duration::ZERO,
            working: Duration::ZERO,
        }
    }

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
        if self.len == 0 {
            return Ok(());
        }
        let (before, cpu_before) = (Instant::now(), thread_time());
        stream.write_all(&self.buffer[..self.len])?;
        self.writing += before.elapsed();
        self.working += thread_time().saturating_sub(cpu_before);
        self.flushed_bytes += self.len as u64;
        self.len = 0;
        Ok(())
    }

    /// The time of writing since this was asked last: of work, and of waiting for room.
    pub fn take_writing_times(&mut self) -> (Duration, Duration) {
        let (writing, working) = (std::mem::take(&mut self.writing), std::mem::take(&mut self.working));
        (working.min(writing), writing.saturating_sub(working))
    }

    /// Takes in the block of `len` bytes that lies behind the end, with room for a mark before it: as it is, or
    /// compressed in its own place.
    pub(super) fn take_block(&mut self, len: usize) {
        let block = &mut self.buffer[self.len..self.len + MARK_LEN + len];
        let compressor = self.compressor.as_mut();
        let compressed = compressor.and_then(|compressor| compressor.compress(&block[MARK_LEN..]));
        let Some((head, bytes)) = compressed.and_then(|bytes| Some((encode_compressed(bytes.len().try_into().ok()?), bytes)))
        else {
            block[0] = Mark::Data as u8;
            self.len += MARK_LEN + len;
            return;
        };
        block[..head.len()].copy_from_slice(&head);
        block[head.len()..head.len() + bytes.len()].copy_from_slice(bytes);
        self.len += head.len() + bytes.len();
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

/// The time that this thread has worked.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        outbox.put(&mut written, &vec![1; OUTBOX_LEN + 1]).unwrap();
        assert!(!outbox.take_back(position));
    }
}
