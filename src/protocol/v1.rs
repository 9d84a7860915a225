//! Protocol v1, of Parallel-transfer-file: `cd`, `cf`, `wf` with numbers in ASCII digits.
//!
//! The bytes are described in docs/PROTOCOL.md. They cannot change.

use std::ops::Range;

use super::{Decoded, Error, Names, Request};
use crate::limits::{LIST_LEN_MAX, REPLY_LEN_MAX, WIRE_NAME_LEN_MAX, WRITE_NUMBER_MAX};

/// The answer to a list: all of it was done.
pub const DONE: u8 = b'0';

/// The answer to a list: some of it was not done.
pub const FAILED: u8 = b'1';

/// The answer to a list of which all, or not all, was done.
#[must_use]
pub fn answer_to_list(is_done: bool) -> u8 {
    if is_done { DONE } else { FAILED }
}

const OPERATION_LEN: usize = 2;
const LENGTH_DIGITS: usize = 6;
const NUMBER_DIGITS: usize = 12;
const FIXED_LEN: usize = OPERATION_LEN + LENGTH_DIGITS;

/// Decodes the frame at the start of `bytes`; of a write, all but the payload.
///
/// # Errors
/// As soon as the bytes at hand can't become a frame.
pub fn decode(bytes: &[u8]) -> Decoded<Request<'_>> {
    let operation = bytes.get(..OPERATION_LEN).unwrap_or(bytes);
    if !["cd", "cf", "wf"].iter().any(|known| known.as_bytes().starts_with(operation)) {
        return Err(Error::UnknownOperation(operation.to_vec()));
    }
    let Some(length) = digits(bytes, OPERATION_LEN, LENGTH_DIGITS, "length")? else { return Ok(None) };
    let length = usize::try_from(length).map_err(|_| Error::Malformed("length"))?;
    if operation == b"wf" {
        return decode_write(bytes, length);
    }
    let end = FIXED_LEN.saturating_add(length);
    let Some(list) = bytes.get(FIXED_LEN..end) else { return Ok(None) };
    let names = Names(list);
    let request = if operation == b"cd" { Request::MakeDirectories(names) } else { Request::CreateFiles(names) };
    Ok(Some((request, end)))
}

fn decode_write(bytes: &[u8], name_len: usize) -> Decoded<Request<'_>> {
    if name_len == 0 {
        return Err(Error::Malformed("a write with no file name"));
    }
    if name_len > WIRE_NAME_LEN_MAX {
        let (value, limit) = (name_len as u64, WIRE_NAME_LEN_MAX as u64);
        return Err(Error::OverLimit { field: "length of a file name", value, limit });
    }
    let offset_at = FIXED_LEN.saturating_add(name_len);
    let size_at = offset_at.saturating_add(NUMBER_DIGITS);
    let Some(start) = digits(bytes, offset_at, NUMBER_DIGITS, "offset")? else { return Ok(None) };
    let Some(size) = digits(bytes, size_at, NUMBER_DIGITS, "size")? else { return Ok(None) };
    let Some(name) = bytes.get(FIXED_LEN..offset_at) else { return Ok(None) };
    // Twelve digits and twelve digits: far from the end of u64.
    let range = start..start.saturating_add(size);
    Ok(Some((Request::Write { name, range }, size_at.saturating_add(NUMBER_DIGITS))))
}

/// The number in `count` digits from `at` on; an error at the first byte that is no digit.
fn digits(bytes: &[u8], at: usize, count: usize, field: &'static str) -> Result<Option<u64>, Error> {
    let here = bytes.get(at..).unwrap_or_default();
    let here = here.get(..count).unwrap_or(here);
    let mut number: u64 = 0;
    for byte in here {
        if !byte.is_ascii_digit() {
            return Err(Error::Malformed(field));
        }
        number = number.saturating_mul(10).saturating_add(u64::from(byte & 15));
    }
    Ok((here.len() == count).then_some(number))
}

/// The answer to a write at the start of `bytes`, and its length; `None` where more bytes are needed.
#[must_use]
pub fn decode_digest(bytes: &[u8]) -> Option<(&[u8; REPLY_LEN_MAX], usize)> {
    bytes.first_chunk().map(|digest| (digest, REPLY_LEN_MAX))
}

/// Can one list hold a name of so many bytes?
#[must_use]
pub fn can_list(name: &[u8]) -> bool {
    name.len() <= LIST_LEN_MAX && !name.contains(&b'\n') && str::from_utf8(name).is_ok()
}

/// Can a file of so many bytes be written?
#[must_use]
pub fn can_write(size: u64) -> bool {
    size <= WRITE_NUMBER_MAX
}

/// Adds a `cd` of one name that [`can_list`] allows.
pub fn encode_make_directory(frame: &mut Vec<u8>, name: &[u8]) {
    encode_list(frame, b"cd", name);
}

/// Adds a `cf` of one name that [`can_list`] allows.
pub fn encode_create_file(frame: &mut Vec<u8>, name: &[u8]) {
    encode_list(frame, b"cf", name);
}

fn encode_list(frame: &mut Vec<u8>, operation: &[u8], name: &[u8]) {
    debug_assert!(can_list(name));
    frame.extend_from_slice(operation);
    encode_digits(frame, name.len() as u64, LENGTH_DIGITS);
    frame.extend_from_slice(name);
}

/// Adds the header of a `wf`: of a name that [`can_list`] and a range that [`can_write`] allows.
pub fn encode_write(frame: &mut Vec<u8>, name: &[u8], range: &Range<u64>) {
    debug_assert!(can_list(name) && can_write(range.end));
    frame.extend_from_slice(b"wf");
    encode_digits(frame, name.len() as u64, LENGTH_DIGITS);
    frame.extend_from_slice(name);
    encode_digits(frame, range.start, NUMBER_DIGITS);
    encode_digits(frame, range.end.saturating_sub(range.start), NUMBER_DIGITS);
}

fn encode_digits(frame: &mut Vec<u8>, number: u64, count: usize) {
    let start = frame.len();
    let mut rest = number;
    for _ in 0..count {
        frame.push(b'0' | (rest % 10) as u8);
        rest /= 10;
    }
    debug_assert!(rest == 0, "a number that does not fit was not refused before");
    if let Some(digits) = frame.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn write<'a>(name: &'a [u8], range: Range<u64>) -> Request<'a> {
        Request::Write { name, range }
    }

    #[test]
    fn every_strict_prefix_asks_for_more() {
        for (frame, request) in [
            (&b"cd000004/in/"[..], Request::MakeDirectories(Names(b"/in/"))),
            (b"cf000005/in/x", Request::CreateFiles(Names(b"/in/x"))),
            (b"cd000000", Request::MakeDirectories(Names(b""))),
            (b"cf000000", Request::CreateFiles(Names(b""))),
            (b"wf000005/in/x000000000000000000000003", write(b"/in/x", 0..3)),
            (b"wf000001x999999999999999999999999", write(b"x", WRITE_NUMBER_MAX..2 * WRITE_NUMBER_MAX)),
        ] {
            for len in 0..frame.len() {
                assert_eq!(decode(&frame[..len]), Ok(None), "{len} bytes");
            }
            let mut longer = frame.to_vec();
            longer.extend_from_slice(b"wf");
            assert_eq!(decode(&longer), Ok(Some((request, frame.len()))));
        }
    }

    // A03, A05, A16
    #[test]
    fn what_is_no_frame_is_refused_at_its_first_wrong_byte() {
        for (frame, at) in [
            (&b"zz"[..], 1),
            (b"WF", 1),
            (b"\xff\xfe", 1),
            (b"cx", 2),
            (b"cd-00001", 3),
            (b"cd 00001", 3),
            (b"cd00000a", 8),
            (b"wf000000", 8),
            (b"wf000001x-00000000001", 10),
            (b"wf000001x000000000000-00000000005", 22),
            (b"wf999999", 8),
        ] {
            for len in 0..at {
                assert_eq!(decode(&frame[..len]), Ok(None), "{len} bytes of {}", crate::path::Escaped(frame));
            }
            assert!(decode(&frame[..at]).is_err(), "{}", crate::path::Escaped(frame));
        }
    }

    #[test]
    fn lengths_end_at_their_limits() {
        let list = |len: usize| [format!("cf{len:06}").as_bytes(), &vec![b'x'; len]].concat();
        for len in [0, 1, LIST_LEN_MAX] {
            assert!(matches!(decode(&list(len)), Ok(Some((Request::CreateFiles(Names(names)), _))) if names.len() == len));
        }
        let name = |len: usize| [format!("wf{len:06}").as_bytes(), &vec![b'x'; len], &[b'0'; 24]].concat();
        assert!(matches!(decode(&name(WIRE_NAME_LEN_MAX)), Ok(Some(_))));
        assert!(matches!(decode(&name(WIRE_NAME_LEN_MAX + 1)), Err(Error::OverLimit { .. })));
    }

    #[test]
    fn names_skip_empty_lines_only() {
        // A09
        let names: Vec<_> = Names(b"\n\na\r\nb\n\n").iter().collect();
        assert_eq!(names, [&b"a\r"[..], b"b"]);
    }

    proptest::proptest! {
        #[test]
        fn what_was_encoded_decodes_to_the_same(name in "[^\n\0]{1,300}", start in 0..=WRITE_NUMBER_MAX, end in 0..=WRITE_NUMBER_MAX) {
            let range = start.min(end)..start.max(end);
            let mut frame = Vec::new();
            encode_write(&mut frame, name.as_bytes(), &range);
            proptest::prop_assert_eq!(decode(&frame), Ok(Some((write(name.as_bytes(), range), frame.len()))));
            frame.clear();
            encode_make_directory(&mut frame, name.as_bytes());
            proptest::prop_assert_eq!(decode(&frame), Ok(Some((Request::MakeDirectories(Names(name.as_bytes())), frame.len()))));
            frame.clear();
            encode_create_file(&mut frame, name.as_bytes());
            proptest::prop_assert_eq!(decode(&frame), Ok(Some((Request::CreateFiles(Names(name.as_bytes())), frame.len()))));
        }

        #[test]
        fn any_bytes_decode_to_something(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100), op in 0..4usize) {
            let mut frame = [&b"cd"[..], b"cf", b"wf", b""][op].to_vec();
            frame.extend(bytes);
            if let Ok(Some((_, len))) = decode(&frame) {
                proptest::prop_assert!(len <= frame.len());
            }
        }
    }
}
