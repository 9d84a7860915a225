//! The payload of a put: blocks of the file, each behind a mark and before its digest, and a last
//! mark that says whether the source stayed what it was.
//!
//! Any two marks differ in two bits, so that one flipped bit makes none of them another.

use crate::protocol::Error;

/// Bytes of a mark.
pub const MARK_LEN: usize = 1;

/// Bytes of the length behind the mark of a hole.
pub const HOLE_LEN: usize = 8;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Bytes, as many as [`block_len`](crate::digest::block_len) says, and a digest.
    Data = 0x11,
    /// The length of a hole (8 bytes), and the digest of nothing.
    Hole = 0x22,
    /// Nothing: the source is not what it was, and nothing of this frame counts.
    Void = 0x44,
    /// Nothing: the range is complete, and the source was the same after it was read.
    Same = 0x88,
}

impl Mark {
    /// The mark of this byte.
    ///
    /// # Errors
    /// There is none.
    pub fn decode(byte: u8) -> Result<Self, Error> {
        [Self::Data, Self::Hole, Self::Void, Self::Same]
            .into_iter()
            .find(|mark| *mark as u8 == byte)
            .ok_or(Error::Malformed("mark of a block"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_makes_a_mark_another() {
        for mark in [Mark::Data, Mark::Hole, Mark::Void, Mark::Same] {
            assert_eq!(Mark::decode(mark as u8), Ok(mark));
            for bit in 0..8 {
                assert!(Mark::decode(mark as u8 ^ 1 << bit).is_err());
            }
        }
    }
}
