//! What a process and its children say to each other, over pipes.
//!
//! The child is told once how to work ([`Setup`]); then come headers of puts, which say all about a
//! range but carry no payload, and a report on each. Threads of a child end their work in any order,
//! so each task has a ticket which its report repeats.

use std::net::SocketAddr;
use std::ops::Range;

use super::frame::{self, Fields, put_long, put_run, put_short, put_text, put_word};
use super::reply::{decode_wanted, put_wanted};
use super::request::{decode_put, put_put};
use crate::compress::Level;
use crate::digest::Checksum;
use crate::entry::FileMeta;
use crate::limits::{ADDRESSES_MAX, REASON_LEN_MAX, SUBTREES_MAX};
use crate::path::RemotePath;
use crate::protocol::{Decoded, Error, Features, Session, Token, Wanted};

const SETUP: u8 = 0x41;
const TASK: u8 = 0x42;
const REPORT: u8 = 0x43;

/// Bits of how a task is to be sent.
const ALONE: u8 = 1;
const REPEAT: u8 = 2;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First, and only first, to a child.
    Setup(Setup),
    /// Send this range.
    Task(Task),
    /// What became of it.
    Report(Report),
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
    /// What connections say at their start.
    pub session: Session,
    /// The fingerprint of the receiver's host key, where the streams are encrypted.
    pub host_key: Option<[u8; 32]>,
    /// The congestion control to ask the kernel for; empty for its own choice.
    pub congestion: String,
    /// Are the values of subtrees wanted, see [`Report::subtrees`]?
    pub wants_subtrees: bool,
    /// Is the source a folder, or one file?
    pub is_tree: bool,
    /// The folder that each entry is below, or the file: a path of this machine.
    pub source: Vec<u8>,
}

/// A range to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Names this task in its report.
    pub ticket: u32,
    /// Send it with nothing else unanswered: it may be what closed a connection.
    pub alone: bool,
    /// Somebody else is at it and takes too long: for a thread that has nothing else unanswered.
    pub is_repeat: bool,
    /// The entry's path.
    pub path: RemotePath,
    /// The file that the range is of.
    pub file: FileMeta,
    /// The bytes to send.
    pub range: Range<u64>,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The task's ticket.
    pub ticket: u32,
    /// How it ended.
    pub ending: Ending,
    /// Why, for a person; empty when all is well.
    pub reason: String,
    /// BLAKE3 values of the range: where each begins, how many bytes it covers, and the value.
    pub subtrees: Vec<(u64, u64, [u8; 32])>,
    /// What of the file is wanted still, where that was asked.
    pub wanted: Wanted,
}

impl Report {
    /// One that says no more than how a task ended.
    #[must_use]
    pub fn of(ticket: u32, ending: Ending, reason: String) -> Self {
        Self { ticket, ending, reason, subtrees: Vec::new(), wanted: Wanted::default() }
    }
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The receiver has the range, verified; the file is not yet whole.
    Stored = 0,
    /// The receiver's digest is another one.
    Mismatched = 1,
    /// The receiver refused it, or closed the connection where the answer was due.
    Refused = 2,
    /// The connection broke before the answer, for reasons of its own.
    Lost = 3,
    /// The source can't be read.
    SourceFailed = 4,
    /// It was not tried, nor is anything else: the receiver can't be reached. Has no ticket.
    GaveUp = 5,
    /// Of no task: the ticket is the number of connections opened so far.
    Connections = 6,
    /// The receiver made no progress until the connection was given up.
    Stalled = 7,
    /// The file is whole, or was there already.
    Whole = 8,
    /// The source is not what it was.
    Changed = 9,
    /// The receiver refused it by name: another try would end the same.
    Denied = 10,
    /// Of no task: the ticket is a number of microseconds, and the reason says of what.
    Time = 11,
    /// The file is not whole.
    Wanted = 12,
    /// Of no task: the receiver wants no connection of this job.
    TurnedAway = 13,
    /// Of no task: the ticket is a number of bytes that went out.
    WentOut = 14,
    /// Of no task: the reason is the congestion control that was changed to.
    Congestion = 15,
}

impl Ending {
    fn from_code(code: u8) -> Option<Self> {
        [
            Self::Stored,
            Self::Mismatched,
            Self::Refused,
            Self::Lost,
            Self::SourceFailed,
            Self::GaveUp,
            Self::Connections,
            Self::Stalled,
            Self::Whole,
            Self::Changed,
            Self::Denied,
            Self::Time,
            Self::Wanted,
            Self::TurnedAway,
            Self::WentOut,
            Self::Congestion,
        ]
        .into_iter()
        .find(|ending| *ending as u8 == code)
    }
}

/// Decodes the frame at the start of `bytes`.
///
/// # Errors
/// As soon as the bytes at hand can't become a frame.
pub fn decode(bytes: &[u8]) -> Decoded<Frame> {
    let Some((frame, len)) = frame::decode(bytes)? else { return Ok(None) };
    let mut fields = Fields(frame.body);
    let decoded = match frame.kind {
        SETUP => Frame::Setup(decode_setup(&mut fields)?),
        TASK => {
            let (ticket, how) = (fields.word()?, fields.byte()?);
            if how & !(ALONE | REPEAT) != 0 {
                return Err(Error::Malformed("task"));
            }
            let (alone, is_repeat) = (how & ALONE != 0, how & REPEAT != 0);
            let put = decode_put(&mut fields)?;
            Frame::Task(Task { ticket, alone, is_repeat, path: put.path, file: put.file, range: put.range })
        }
        REPORT => Frame::Report(decode_report(&mut fields)?),
        kind => return Err(Error::UnknownOperation(vec![kind])),
    };
    fields.end()?;
    Ok(Some((decoded, len)))
}

fn decode_setup(fields: &mut Fields<'_>) -> Result<Setup, Error> {
    let count = fields.count_up_to(ADDRESSES_MAX, "number of addresses")?;
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let text = str::from_utf8(fields.run()?).map_err(|_| Error::Malformed("address"))?;
        addresses.push(text.parse().map_err(|_| Error::Malformed("address"))?);
    }
    Ok(Setup {
        addresses,
        thread_num: fields.word()?,
        stall_ms: fields.long()?,
        retry_ms: fields.long()?,
        session: decode_session(fields)?,
        host_key: if fields.flag()? { Some(fields.array()?) } else { None },
        congestion: fields.text_up_to(REASON_LEN_MAX, "congestion control")?,
        wants_subtrees: fields.flag()?,
        is_tree: fields.flag()?,
        source: fields.run()?.to_vec(),
    })
}

fn decode_session(fields: &mut Fields<'_>) -> Result<Session, Error> {
    Ok(match fields.byte()? {
        1 => Session::V1 { prefix: fields.run()?.to_vec() },
        2 => Session::V2 {
            token: Token(fields.array()?),
            checksum: Checksum::from_code(fields.byte()?).ok_or(Error::Malformed("checksum"))?,
            features: Features(fields.long()?),
            level: Level::of(fields.byte()?),
        },
        _ => return Err(Error::Malformed("session")),
    })
}

fn decode_report(fields: &mut Fields<'_>) -> Result<Report, Error> {
    let ticket = fields.word()?;
    let ending = Ending::from_code(fields.byte()?).ok_or(Error::Malformed("ending"))?;
    let reason = fields.text_up_to(REASON_LEN_MAX, "reason")?;
    let count = fields.count_up_to(SUBTREES_MAX, "number of subtrees")?;
    let mut subtrees = Vec::with_capacity(count);
    for _ in 0..count {
        subtrees.push((fields.long()?, fields.long()?, fields.array()?));
    }
    Ok(Report { ticket, ending, reason, subtrees, wanted: decode_wanted(fields)? })
}

/// Adds `frame` to `bytes`.
pub fn encode(bytes: &mut Vec<u8>, frame: &Frame) {
    match frame {
        Frame::Setup(setup) => frame::encode(bytes, SETUP, |body| put_setup(body, setup)),
        Frame::Task(task) => frame::encode(bytes, TASK, |body| {
            put_word(body, task.ticket);
            body.push(if task.alone { ALONE } else { 0 } | if task.is_repeat { REPEAT } else { 0 });
            put_put(body, &task.path, &task.file, &task.range);
        }),
        Frame::Report(report) => frame::encode(bytes, REPORT, |body| {
            put_word(body, report.ticket);
            body.push(report.ending as u8);
            put_text(body, &report.reason, REASON_LEN_MAX);
            put_short(body, report.subtrees.len());
            for (offset, len, value) in &report.subtrees {
                put_long(body, *offset);
                put_long(body, *len);
                body.extend_from_slice(value);
            }
            put_wanted(body, &report.wanted);
        }),
    };
}

fn put_setup(body: &mut Vec<u8>, setup: &Setup) {
    put_short(body, setup.addresses.len());
    for address in &setup.addresses {
        put_run(body, address.to_string().as_bytes());
    }
    put_word(body, setup.thread_num);
    put_long(body, setup.stall_ms);
    put_long(body, setup.retry_ms);
    match &setup.session {
        Session::V1 { prefix } => {
            body.push(1);
            put_run(body, prefix);
        }
        Session::V2 { token, checksum, features, level } => {
            body.push(2);
            body.extend_from_slice(&token.0);
            body.push(checksum.code());
            put_long(body, features.0);
            body.push(Level::number(*level));
        }
    }
    body.push(u8::from(setup.host_key.is_some()));
    body.extend_from_slice(setup.host_key.as_ref().map_or(&[], |key| &key[..]));
    put_text(body, &setup.congestion, REASON_LEN_MAX);
    body.push(u8::from(setup.wants_subtrees));
    body.push(u8::from(setup.is_tree));
    put_run(body, &setup.source);
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::entry::{Attributes, Identity};

    fn frames() -> Vec<Frame> {
        let identity = Identity { size: 100, mtime: (-1, 999_999_999), tag: [9; 16] };
        let setup = |session, host_key| {
            Frame::Setup(Setup {
                addresses: vec!["127.0.0.1:1".parse().unwrap(), "[fe80::1%3]:2".parse().unwrap()],
                thread_num: 3,
                stall_ms: 120_000,
                retry_ms: 30_000,
                session,
                host_key,
                congestion: "bbr".to_owned(),
                wants_subtrees: true,
                is_tree: true,
                source: b"/data/\xff".to_vec(),
            })
        };
        vec![
            setup(Session::V1 { prefix: b"/in/".to_vec() }, None),
            setup(
                Session::V2 {
                    token: Token([5; 32]),
                    checksum: Checksum::Blake3,
                    features: Features::BLAKE3,
                    level: Level::of(19),
                },
                Some([6; 32]),
            ),
            Frame::Task(Task {
                ticket: 7,
                alone: true,
                is_repeat: false,
                path: RemotePath::parse(b"a/b").unwrap(),
                file: FileMeta { identity, attributes: Attributes::default(), is_sparse: true },
                range: 10..100,
            }),
            Frame::Task(Task {
                ticket: 8,
                alone: false,
                is_repeat: true,
                path: RemotePath::parse(b"a").unwrap(),
                file: FileMeta { identity, attributes: Attributes::default(), is_sparse: false },
                range: 0..100,
            }),
            Frame::Report(Report {
                ticket: 7,
                ending: Ending::SourceFailed,
                reason: "vanished".to_owned(),
                subtrees: vec![(0, 1024, [8; 32])],
                wanted: Wanted { bytes: 7, ranges: vec![1..3, 4..9] },
            }),
        ]
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same_and_every_prefix_asks_for_more() {
        for frame in frames() {
            let mut bytes = Vec::new();
            encode(&mut bytes, &frame);
            for len in 0..bytes.len() {
                assert_eq!(decode(&bytes[..len]), Ok(None));
            }
            assert_eq!(decode(&bytes), Ok(Some((frame, bytes.len()))));
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let mut bytes = Vec::new();
        let reason = "\u{e9}".repeat(REASON_LEN_MAX);
        encode(&mut bytes, &Frame::Report(Report::of(0, Ending::Lost, reason)));
        assert!(matches!(decode(&bytes), Ok(Some((Frame::Report(report), _))) if report.reason.len() == REASON_LEN_MAX));
    }
}
