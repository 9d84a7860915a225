//! Protocol v2: binary frames, big-endian. So far a process and its children speak it, over a pipe.
//!
//! A frame is the length of its body (4 bytes), its type (1 byte) and the body. The child is told
//! once how to work ([`Setup`]); then come headers of writes, which say all about a range but carry
//! no payload, and a reply to each. Threads of a child end their work in any order, so each header
//! has a ticket which its reply repeats.

use std::net::SocketAddr;
use std::ops::Range;

use byteorder::{BigEndian, ReadBytesExt as _, WriteBytesExt as _};

use super::{Decoded, Error};
use crate::entry::Identity;
use crate::limits::{ADDRESSES_MAX, PIPE_FRAME_LEN_MAX, REASON_LEN_MAX};
use crate::path::RemotePath;

const HEAD_LEN: usize = 5;
const SETUP: u8 = 1;
const WRITE: u8 = 2;
const REPLY: u8 = 3;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First, and only first, to a child.
    Setup(Setup),
    /// Send this range.
    Write(Write),
    /// What became of it.
    Reply(Reply),
}

/// How a child works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The receiver's addresses, the one that answered first.
    pub addresses: Vec<SocketAddr>,
    /// Threads to use.
    pub thread_num: u32,
    /// A peer without progress for so many milliseconds is given up.
    pub stall_ms: u64,
    /// Lost connections are dialled again for so many milliseconds.
    pub retry_ms: u64,
    /// What stands before each path on the wire.
    pub name_prefix: Vec<u8>,
    /// Is the source a folder, or one file?
    pub is_tree: bool,
    /// The folder that each entry is below, or the file: a path of this machine.
    pub source: Vec<u8>,
}

/// The header of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Names this header in the reply.
    pub ticket: u32,
    /// Send it with nothing else unanswered: it may be what closed a connection.
    pub alone: bool,
    /// The entry's path.
    pub path: RemotePath,
    /// The file that the range is of.
    pub identity: Identity,
    /// The bytes to send.
    pub range: Range<u64>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The write's ticket.
    pub ticket: u32,
    /// How it ended.
    pub status: Status,
    /// Why, for a person; empty when all is well.
    pub reason: String,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The receiver has it and its digest is right.
    Confirmed = 0,
    /// The receiver's digest is another one.
    Mismatched = 1,
    /// The receiver closed the connection where the answer was due.
    Refused = 2,
    /// The connection broke before the answer, for reasons of its own.
    Lost = 3,
    /// The source can't be read, or is no longer what it was.
    SourceFailed = 4,
    /// It was not tried, nor is anything else: the receiver can't be reached. Has no ticket.
    GaveUp = 5,
    /// Of no write: the ticket is the number of connections opened so far.
    Connections = 6,
    /// The receiver made no progress until the connection was given up.
    Stalled = 7,
}

/// Decodes the frame at the start of `bytes`.
///
/// # Errors
/// As soon as the bytes at hand can't become a frame.
pub fn decode(bytes: &[u8]) -> Decoded<Frame> {
    let Some((mut head, rest)) = bytes.split_at_checked(HEAD_LEN) else { return Ok(None) };
    let body_len = head.read_u32::<BigEndian>().map_err(|_| Error::Malformed("length"))? as usize;
    if body_len > PIPE_FRAME_LEN_MAX {
        let (value, limit) = (body_len as u64, PIPE_FRAME_LEN_MAX as u64);
        return Err(Error::OverLimit { field: "length of a frame", value, limit });
    }
    let Some(mut body) = rest.get(..body_len) else { return Ok(None) };
    let frame = match head {
        [SETUP] => Frame::Setup(decode_setup(&mut body)?),
        [WRITE] => Frame::Write(decode_write(&mut body)?),
        [REPLY] => Frame::Reply(decode_reply(&mut body)?),
        _ => return Err(Error::UnknownOperation(head.to_vec())),
    };
    if !body.is_empty() {
        return Err(Error::Malformed("bytes after the end of a frame"));
    }
    Ok(Some((frame, HEAD_LEN.saturating_add(body_len))))
}

fn decode_setup(body: &mut &[u8]) -> Result<Setup, Error> {
    let address_num = usize::from(short(body)?);
    if address_num > ADDRESSES_MAX {
        return Err(Error::OverLimit { field: "number of addresses", value: address_num as u64, limit: ADDRESSES_MAX as u64 });
    }
    let mut addresses = Vec::with_capacity(address_num);
    for _ in 0..address_num {
        let text = str::from_utf8(run(body)?).map_err(|_| Error::Malformed("address"))?;
        addresses.push(text.parse().map_err(|_| Error::Malformed("address"))?);
    }
    Ok(Setup {
        addresses,
        thread_num: word(body)?,
        stall_ms: long(body)?,
        retry_ms: long(body)?,
        name_prefix: run(body)?.to_vec(),
        is_tree: flag(body)?,
        source: run(body)?.to_vec(),
    })
}

fn decode_write(body: &mut &[u8]) -> Result<Write, Error> {
    let ticket = word(body)?;
    let alone = flag(body)?;
    let size = long(body)?;
    let mtime = (long(body)?.cast_signed(), word(body)?);
    let tag = body.split_off(..16).and_then(|tag| tag.try_into().ok()).ok_or(Error::Malformed("tag"))?;
    let range = long(body)?..long(body)?;
    if range.start > range.end || range.end > size {
        return Err(Error::Malformed("range"));
    }
    let path = RemotePath::parse(run(body)?).map_err(|_| Error::Malformed("path"))?;
    Ok(Write { ticket, alone, path, identity: Identity { size, mtime, tag }, range })
}

fn decode_reply(body: &mut &[u8]) -> Result<Reply, Error> {
    let ticket = word(body)?;
    let status = match byte(body)? {
        0 => Status::Confirmed,
        1 => Status::Mismatched,
        2 => Status::Refused,
        3 => Status::Lost,
        4 => Status::SourceFailed,
        5 => Status::GaveUp,
        6 => Status::Connections,
        7 => Status::Stalled,
        _ => return Err(Error::Malformed("status")),
    };
    let reason = run(body)?;
    if reason.len() > REASON_LEN_MAX {
        return Err(Error::OverLimit { field: "length of a reason", value: reason.len() as u64, limit: REASON_LEN_MAX as u64 });
    }
    let reason = str::from_utf8(reason).map_err(|_| Error::Malformed("reason"))?.to_owned();
    Ok(Reply { ticket, status, reason })
}

fn byte(body: &mut &[u8]) -> Result<u8, Error> {
    body.read_u8().map_err(|_| Error::Malformed("a frame that ends early"))
}

fn flag(body: &mut &[u8]) -> Result<bool, Error> {
    match byte(body)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::Malformed("flag")),
    }
}

fn short(body: &mut &[u8]) -> Result<u16, Error> {
    body.read_u16::<BigEndian>().map_err(|_| Error::Malformed("a frame that ends early"))
}

fn word(body: &mut &[u8]) -> Result<u32, Error> {
    body.read_u32::<BigEndian>().map_err(|_| Error::Malformed("a frame that ends early"))
}

fn long(body: &mut &[u8]) -> Result<u64, Error> {
    body.read_u64::<BigEndian>().map_err(|_| Error::Malformed("a frame that ends early"))
}

/// A run of bytes behind its length (2 bytes).
fn run<'a>(body: &mut &'a [u8]) -> Result<&'a [u8], Error> {
    let len = usize::from(short(body)?);
    body.split_off(..len).ok_or(Error::Malformed("a frame that ends early"))
}

/// Adds `frame` to `bytes`.
pub fn encode(bytes: &mut Vec<u8>, frame: &Frame) {
    let mut body = Vec::with_capacity(128);
    let kind = match frame {
        Frame::Setup(setup) => {
            put_short(&mut body, setup.addresses.len());
            for address in &setup.addresses {
                put_run(&mut body, address.to_string().as_bytes());
            }
            put_word(&mut body, setup.thread_num);
            put_long(&mut body, setup.stall_ms);
            put_long(&mut body, setup.retry_ms);
            put_run(&mut body, &setup.name_prefix);
            body.push(u8::from(setup.is_tree));
            put_run(&mut body, &setup.source);
            SETUP
        }
        Frame::Write(write) => {
            put_word(&mut body, write.ticket);
            body.push(u8::from(write.alone));
            put_long(&mut body, write.identity.size);
            put_long(&mut body, write.identity.mtime.0.cast_unsigned());
            put_word(&mut body, write.identity.mtime.1);
            body.extend_from_slice(&write.identity.tag);
            put_long(&mut body, write.range.start);
            put_long(&mut body, write.range.end);
            put_run(&mut body, write.path.as_bytes());
            WRITE
        }
        Frame::Reply(reply) => {
            put_word(&mut body, reply.ticket);
            body.push(reply.status as u8);
            let end = reply.reason.floor_char_boundary(REASON_LEN_MAX);
            put_run(&mut body, reply.reason.get(..end).unwrap_or_default().as_bytes());
            REPLY
        }
    };
    debug_assert!(body.len() <= PIPE_FRAME_LEN_MAX);
    put_word(bytes, u32::try_from(body.len()).unwrap_or(u32::MAX));
    bytes.push(kind);
    bytes.extend_from_slice(&body);
}

// Writing to memory cannot fail.
fn put_short(bytes: &mut Vec<u8>, number: usize) {
    let _ = bytes.write_u16::<BigEndian>(u16::try_from(number).unwrap_or(u16::MAX));
}

fn put_word(bytes: &mut Vec<u8>, number: u32) {
    let _ = bytes.write_u32::<BigEndian>(number);
}

fn put_long(bytes: &mut Vec<u8>, number: u64) {
    let _ = bytes.write_u64::<BigEndian>(number);
}

fn put_run(bytes: &mut Vec<u8>, run: &[u8]) {
    debug_assert!(u16::try_from(run.len()).is_ok(), "a run longer than its length field says");
    put_short(bytes, run.len());
    bytes.extend_from_slice(run);
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn frames() -> [Frame; 3] {
        [
            Frame::Setup(Setup {
                addresses: vec!["127.0.0.1:1".parse().unwrap(), "[fe80::1%3]:2".parse().unwrap()],
                thread_num: 3,
                stall_ms: 120_000,
                retry_ms: 30_000,
                name_prefix: b"/in/".to_vec(),
                is_tree: true,
                source: b"/data/\xff".to_vec(),
            }),
            Frame::Write(Write {
                ticket: 7,
                alone: true,
                path: RemotePath::parse(b"a/b").unwrap(),
                identity: Identity { size: 100, mtime: (-1, 999_999_999), tag: [9; 16] },
                range: 10..100,
            }),
            Frame::Reply(Reply { ticket: 7, status: Status::SourceFailed, reason: "vanished".to_owned() }),
        ]
    }

    fn bytes_of(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, frame);
        bytes
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same_and_every_prefix_asks_for_more() {
        for frame in frames() {
            let bytes = bytes_of(&frame);
            for len in 0..bytes.len() {
                assert_eq!(decode(&bytes[..len]), Ok(None));
            }
            assert_eq!(decode(&bytes), Ok(Some((frame, bytes.len()))));
        }
    }

    #[test]
    fn a_body_cut_short_or_too_long_is_malformed() {
        for frame in frames() {
            let bytes = bytes_of(&frame);
            let body_len = bytes.len() - HEAD_LEN;
            for len in (0..body_len).chain([body_len + 1]) {
                let mut wrong = bytes.clone();
                wrong.resize(HEAD_LEN + len, 0);
                wrong[..4].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
                assert!(matches!(decode(&wrong), Err(Error::Malformed(_))), "{len} of {body_len}");
            }
        }
        let mut wrong = u32::try_from(PIPE_FRAME_LEN_MAX + 1).unwrap().to_be_bytes().to_vec();
        wrong.push(WRITE);
        assert!(matches!(decode(&wrong), Err(Error::OverLimit { .. })));
        assert!(matches!(decode(&[0, 0, 0, 0, 99]), Err(Error::UnknownOperation(_))));
    }

    #[test]
    fn a_range_lies_within_its_file() {
        for (start, end) in [(11, 10), (0, 101), (u64::MAX, u64::MAX)] {
            let [_, Frame::Write(mut write), _] = frames() else { unreachable!() };
            write.range = start..end;
            assert_eq!(decode(&bytes_of(&Frame::Write(write))), Err(Error::Malformed("range")));
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = "é".repeat(REASON_LEN_MAX);
        let bytes = bytes_of(&Frame::Reply(Reply { ticket: 0, status: Status::Lost, reason }));
        assert!(matches!(decode(&bytes), Ok(Some((Frame::Reply(reply), _))) if reply.reason.len() == REASON_LEN_MAX));
    }
}
