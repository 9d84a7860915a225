//! Verified blocks of one put on their way to a file and into its journal.

use std::ops::Range;

use super::{Error, Incoming};
use crate::digest::{Binding, Checksum};
use crate::limits::JOURNAL_BLOCKS_MAX;

/// Takes the blocks of one put, in order, see [`Incoming::begin_blocks`].
#[derive(Debug)]
pub struct Blocks<'a> {
    incoming: &'a Incoming,
    binding: Binding,
    checksum: Checksum,
    /// What was written and is not noted yet, and the digests of its blocks.
    range: Range<u64>,
    digests: Vec<u8>,
    count: usize,
}

impl Incoming {
    /// Blocks come that are bound to `binding` and verified by `checksum`.
    #[must_use]
    pub fn begin_blocks(&self, binding: Binding, checksum: Checksum) -> Blocks<'_> {
        Blocks { incoming: self, binding, checksum, range: 0..0, digests: Vec::new(), count: 0 }
    }
}

impl Blocks<'_> {
    /// Writes a block to its place. `digest` is the one that it was found good by.
    ///
    /// # Errors
    /// As [`Incoming::write_at`].
    pub fn write(&mut self, offset: u64, bytes: &[u8], digest: &[u8]) -> Result<(), Error> {
        self.incoming.write_at(offset, bytes)?;
        if self.incoming.kept().is_none() {
            return Ok(());
        }
        if offset != self.range.end || self.count == JOURNAL_BLOCKS_MAX {
            self.note();
            self.range = offset..offset;
        }
        self.range.end = offset.saturating_add(bytes.len() as u64);
        self.digests.extend_from_slice(digest);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Leaves a hole.
    ///
    /// # Errors
    /// The file has ended, or no hole can be made where something was.
    pub fn leave_hole(&mut self, range: Range<u64>) -> Result<(), Error> {
        self.note();
        self.incoming.leave_hole(range)
    }

    fn note(&mut self) {
        let (range, digests) = (std::mem::take(&mut self.range), std::mem::take(&mut self.digests));
        self.count = 0;
        if !range.is_empty() {
            self.incoming.note_in_journal(|journal| journal.note_blocks(range, self.binding, self.checksum, &digests));
        }
    }
}

impl Drop for Blocks<'_> {
    fn drop(&mut self) {
        self.note();
    }
}
