//! The payload of a put: blocks of the file, each behind a mark and before its digest, and a last
//! mark that says whether the source stayed what it was.
//!
//! Any two marks differ in four bits, so that one flipped bit makes none of them another.

use crate::protocol::Error;

/// Bytes of a mark.
pub const MARK_LEN: usize = 1;

/// Bytes of the length behind the mark of a hole.
pub const HOLE_LEN: usize = 8;

/// Bytes of the length behind the mark of a compressed block, and of the guard behind that.
pub const COMPRESSED_LEN: usize = 3;

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
    /// As [`Mark::Data`], with the bytes as a frame of zstd, behind their length ([`encode_compressed`]).
    Compressed = 0x77,
}

impl Mark {
    /// The mark of this byte.
    ///
    /// # Errors
    /// There is none.
    pub fn decode(byte: u8) -> Result<Self, Error> {
        [Self::Data, Self::Hole, Self::Void, Self::Same, Self::Compressed]
            .into_iter()
            .find(|mark| *mark as u8 == byte)
            .ok_or(Error::Malformed("mark of a block"))
    }
}

/// What stands before `len` compressed bytes: the mark, the length, and a guard which tells a damaged length at
/// once, where waiting for so many bytes might never end.
#[must_use]
pub fn encode_compressed(len: u16) -> [u8; MARK_LEN + COMPRESSED_LEN] {
    let [high, low] = len.to_be_bytes();
    [Mark::Compressed as u8, high, low, guard_of(high, low)]
}

/// The number of compressed bytes that stands behind a mark.
///
/// # Errors
/// Its guard is another one.
pub fn decode_compressed([high, low, guard]: [u8; COMPRESSED_LEN]) -> Result<usize, Error> {
    let is_right = guard == guard_of(high, low);
    is_right.then(|| u16::from_be_bytes([high, low]).into()).ok_or(Error::Malformed("length of a compressed block"))
}

fn guard_of(high: u8, low: u8) -> u8 {
    Mark::Compressed as u8 ^ high ^ low ^ 0x5a
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_makes_a_mark_another() {
        for mark in [Mark::Data, Mark::Hole, Mark::Void, Mark::Same, Mark::Compressed] {
            assert_eq!(Mark::decode(mark as u8), Ok(mark));
            for bit in 0..8 {
                assert!(Mark::decode(mark as u8 ^ 1 << bit).is_err());
            }
        }
    }

    // B08
    #[test]
    fn every_flipped_bit_of_a_length_is_noticed() {
        for len in [0, 1, 10, 256, 61_440, u16::MAX] {
            let [_, rest @ ..] = encode_compressed(len);
            assert_eq!(decode_compressed(rest), Ok(len.into()));
            for bit in 0..24 {
                let mut wrong = rest;
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(decode_compressed(wrong).is_err(), "{len} bit {bit}");
            }
        }
    }
}
