//! The frame that all of v2 travels in, and the fields in it: big-endian numbers, runs of bytes
//! behind their length.
//!
//! type (1 byte), length of the body (3), guard (1: the four before it XORed with 0x5a), body, check
//! (4: the low half of the body's XXH3-64, seeded with the type). The guard tells a damaged length
//! at once, where waiting for so many bytes might never end; the check tells a damaged body.

use byteorder::{BigEndian, ReadBytesExt as _, WriteBytesExt as _};

use crate::digest::Binding;
use crate::limits::FRAME_LEN_MAX;
use crate::protocol::{Decoded, Error};

const HEAD_LEN: usize = 5;
const CHECK_LEN: usize = 4;

/// A frame whose guard and check are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) body: &'a [u8],
}

/// Is all of the frame at the start of `bytes` here? What is in it is not looked at.
pub(super) fn is_whole(bytes: &[u8]) -> Result<bool, Error> {
    let head = decode_head(bytes)?;
    Ok(head.is_some_and(|(_, len)| bytes.len() >= HEAD_LEN.saturating_add(len).saturating_add(CHECK_LEN)))
}

/// The type, and the length of the body.
fn decode_head(bytes: &[u8]) -> Result<Option<(u8, usize)>, Error> {
    let Some([kind, high, middle, low, guard]) = bytes.first_chunk::<HEAD_LEN>().copied() else { return Ok(None) };
    if guard != guard_of(kind, [high, middle, low]) {
        return Err(Error::Malformed("the head of a frame"));
    }
    let body_len = u32::from_be_bytes([0, high, middle, low]) as usize;
    if body_len > FRAME_LEN_MAX {
        let (value, limit) = (body_len as u64, FRAME_LEN_MAX as u64);
        return Err(Error::OverLimit { field: "length of a frame", value, limit });
    }
    Ok(Some((kind, body_len)))
}

/// Decodes the frame at the start of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Decoded<Frame<'_>> {
    let Some((kind, body_len)) = decode_head(bytes)? else { return Ok(None) };
    let rest = bytes.get(HEAD_LEN..).unwrap_or_default();
    let Some((body, rest)) = rest.split_at_checked(body_len) else { return Ok(None) };
    let Some(check) = rest.first_chunk::<CHECK_LEN>() else { return Ok(None) };
    if *check != check_of(kind, body) {
        return Err(Error::Malformed("a frame whose check is wrong"));
    }
    Ok(Some((Frame { kind, body }, HEAD_LEN.saturating_add(body_len).saturating_add(CHECK_LEN))))
}

/// Adds a frame to `bytes` whose body `fill` writes; gives the body's binding.
pub(super) fn encode(bytes: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) -> Binding {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; HEAD_LEN]);
    let body_at = bytes.len();
    fill(bytes);
    let body = bytes.get(body_at..).unwrap_or_default();
    debug_assert!(body.len() <= FRAME_LEN_MAX, "a frame of {} bytes", body.len());
    let [_, high, middle, low] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let (binding, check) = (Binding::of(body), check_of(kind, body));
    let head = [kind, high, middle, low, guard_of(kind, [high, middle, low])];
    if let Some(place) = bytes.get_mut(start..body_at) {
        place.copy_from_slice(&head);
    }
    bytes.extend_from_slice(&check);
    binding
}

fn guard_of(kind: u8, len: [u8; 3]) -> u8 {
    len.iter().fold(kind ^ 0x5a, |guard, byte| guard ^ byte)
}

fn check_of(kind: u8, body: &[u8]) -> [u8; CHECK_LEN] {
    let [.., a, b, c, d] = crate::digest::check(body, u64::from(kind)).to_be_bytes();
    [a, b, c, d]
}

/// The fields of a body, from its start.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

const SHORT: Error = Error::Malformed("a frame that ends early");

impl<'a> Fields<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        self.0.read_u8().map_err(|_| SHORT)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Error> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::Malformed("flag")),
        }
    }

    pub(super) fn short(&mut self) -> Result<u16, Error> {
        self.0.read_u16::<BigEndian>().map_err(|_| SHORT)
    }

    pub(super) fn word(&mut self) -> Result<u32, Error> {
        self.0.read_u32::<BigEndian>().map_err(|_| SHORT)
    }

    pub(super) fn long(&mut self) -> Result<u64, Error> {
        self.0.read_u64::<BigEndian>().map_err(|_| SHORT)
    }

    pub(super) fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], Error> {
        let (array, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*array)
    }

    /// A run of bytes behind its length (2 bytes).
    pub(super) fn run(&mut self) -> Result<&'a [u8], Error> {
        let len = usize::from(self.short()?);
        self.0.split_off(..len).ok_or(SHORT)
    }

    /// A run of at most `limit` bytes.
    pub(super) fn run_up_to(&mut self, limit: usize, field: &'static str) -> Result<&'a [u8], Error> {
        let run = self.run()?;
        if run.len() > limit {
            return Err(Error::OverLimit { field, value: run.len() as u64, limit: limit as u64 });
        }
        Ok(run)
    }

    /// A run of text of at most `limit` bytes.
    pub(super) fn text_up_to(&mut self, limit: usize, field: &'static str) -> Result<String, Error> {
        let run = self.run_up_to(limit, field)?;
        Ok(str::from_utf8(run).map_err(|_| Error::Malformed(field))?.to_owned())
    }

    /// A number of things that is at most `limit`.
    pub(super) fn count_up_to(&mut self, limit: usize, field: &'static str) -> Result<usize, Error> {
        let count = usize::from(self.short()?);
        if count > limit {
            return Err(Error::OverLimit { field, value: count as u64, limit: limit as u64 });
        }
        Ok(count)
    }

    /// The whole body was read?
    pub(super) fn end(&self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Malformed("bytes after the end of a frame")) }
    }
}

// Writing to memory cannot fail.
pub(super) fn put_short(bytes: &mut Vec<u8>, number: usize) {
    debug_assert!(u16::try_from(number).is_ok(), "{number} does not fit its field");
    let _ = bytes.write_u16::<BigEndian>(u16::try_from(number).unwrap_or(u16::MAX));
}

pub(super) fn put_word(bytes: &mut Vec<u8>, number: u32) {
    let _ = bytes.write_u32::<BigEndian>(number);
}

pub(super) fn put_long(bytes: &mut Vec<u8>, number: u64) {
    let _ = bytes.write_u64::<BigEndian>(number);
}

pub(super) fn put_run(bytes: &mut Vec<u8>, run: &[u8]) {
    put_short(bytes, run.len());
    bytes.extend_from_slice(run);
}

/// Text, cut at a character where it is longer than `limit`.
pub(super) fn put_text(bytes: &mut Vec<u8>, text: &str, limit: usize) {
    let end = text.floor_char_boundary(limit);
    put_run(bytes, text.get(..end).unwrap_or_default().as_bytes());
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, kind, |bytes| bytes.extend_from_slice(body));
        bytes
    }

    // B05
    #[test]
    fn every_strict_prefix_asks_for_more() {
        for body in [&b""[..], b"x", &[7; 300]] {
            let bytes = frame(9, body);
            for len in 0..bytes.len() {
                assert_eq!(decode(&bytes[..len]), Ok(None), "{len} bytes");
            }
            assert_eq!(decode(&bytes), Ok(Some((Frame { kind: 9, body }, bytes.len()))));
        }
    }

    // B08
    #[test]
    fn every_flipped_bit_is_noticed_as_soon_as_the_bytes_are_here() {
        let bytes = frame(4, b"some body");
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&wrong).is_err(), "bit {bit}");
        }
    }

    // B02
    #[test]
    fn a_length_over_the_limit_is_refused_by_its_head() {
        for (len, is_refused) in [(FRAME_LEN_MAX, false), (FRAME_LEN_MAX + 1, true), (0x00ff_ffff, true)] {
            let [_, high, middle, low] = u32::try_from(len).unwrap().to_be_bytes();
            let head = [1, high, middle, low, guard_of(1, [high, middle, low])];
            assert_eq!(decode(&head).is_err(), is_refused, "{len}");
        }
    }
}
