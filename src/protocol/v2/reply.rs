//! What a server answers.

use std::ops::Range;

use super::frame::{self, Fields, put_long, put_run, put_short, put_text};
use super::listing::{decode_page, put_page};
use crate::limits::{HAVE_BATCH_MAX, SUM_LEN_MAX, WANTED_RANGES_MAX, WIRE_NAME_LEN_MAX, WIRE_REASON_LEN_MAX};
use crate::path::{RemotePath, tame};
use crate::protocol::{Answer, Decoded, Error, Features, QuotaSpace, Reply, Space, Status, Totals, Wanted};

const WELCOME: u8 = 0x81;
const OPENED: u8 = 0x82;
const ANSWER: u8 = 0x83;
const HAD: u8 = 0x84;
const MISSING: u8 = 0x85;
const FINISHED: u8 = 0x86;
const HEARTBEAT: u8 = 0x87;
const REFUSED: u8 = 0x88;
const WANTED: u8 = 0x89;
const DOUBTED: u8 = 0x8a;
const LISTED: u8 = 0x8b;
const CONTENT: u8 = 0x8c;
const SUM: u8 = 0x8d;
const SPACE: u8 = 0x8e;

/// Decodes the reply at the start of `bytes`.
///
/// # Errors
/// As soon as the bytes at hand can't become a reply.
pub fn decode(bytes: &[u8]) -> Decoded<Reply> {
    let Some((frame, len)) = frame::decode(bytes)? else { return Ok(None) };
    let mut fields = Fields(frame.body);
    let reply = match frame.kind {
        WELCOME => Reply::Welcome { version: fields.byte()?, features: Features(fields.long()?) },
        OPENED => {
            let (is_new, is_known) = (fields.flag()?, fields.flag()?);
            Reply::Opened { is_new, is_known, landed: fields.run_up_to(WIRE_NAME_LEN_MAX, "length of a folder's name")?.to_vec() }
        }
        ANSWER => Reply::Answer(decode_answer(&mut fields)?),
        HAD => Reply::Had(decode_bits(&mut fields)?),
        DOUBTED => {
            let (had, doubtful) = (decode_bits(&mut fields)?, decode_bits(&mut fields)?);
            if had.len() != doubtful.len() {
                return Err(Error::Malformed("number of files in doubt"));
            }
            Reply::Doubted { had, doubtful }
        }
        WANTED => Reply::Wanted(decode_wanted(&mut fields)?),
        MISSING => {
            let path = match fields.run()? {
                [] => RemotePath::root(),
                path => RemotePath::parse(path)?,
            };
            Reply::Missing { path, reason: tame(&fields.text_up_to(WIRE_REASON_LEN_MAX, "reason")?) }
        }
        FINISHED => Reply::Finished(decode_totals(&mut fields)?),
        HEARTBEAT => Reply::Heartbeat,
        LISTED => Reply::Listed(decode_page(&mut fields)?),
        CONTENT => Reply::Content,
        SUM => Reply::Sum(fields.run_up_to(SUM_LEN_MAX, "length of a digest")?.to_vec()),
        SPACE => Reply::Space(decode_space(&mut fields)?),
        REFUSED => Reply::Refused(tame(&fields.text_up_to(WIRE_REASON_LEN_MAX, "reason")?)),
        kind => return Err(Error::UnknownOperation(vec![kind])),
    };
    fields.end()?;
    Ok(Some((reply, len)))
}

fn decode_answer(fields: &mut Fields<'_>) -> Result<Answer, Error> {
    let status = Status::from_code(fields.byte()?).ok_or(Error::Malformed("status"))?;
    Ok(Answer { status, reason: tame(&fields.text_up_to(WIRE_REASON_LEN_MAX, "reason")?) })
}

pub(super) fn decode_wanted(fields: &mut Fields<'_>) -> Result<Wanted, Error> {
    let bytes = fields.long()?;
    let count = fields.count_up_to(WANTED_RANGES_MAX, "number of ranges")?;
    let mut ranges: Vec<Range<u64>> = Vec::with_capacity(count);
    for _ in 0..count {
        let range = fields.long()?..fields.long()?;
        if range.is_empty() || ranges.last().is_some_and(|before| before.end >= range.start) {
            return Err(Error::Malformed("ranges"));
        }
        ranges.push(range);
    }
    Ok(Wanted { bytes, ranges })
}

pub(super) fn put_wanted(body: &mut Vec<u8>, wanted: &Wanted) {
    put_long(body, wanted.bytes);
    let ranges = wanted.ranges.get(..WANTED_RANGES_MAX).unwrap_or(&wanted.ranges);
    put_short(body, ranges.len());
    for range in ranges {
        put_long(body, range.start);
        put_long(body, range.end);
    }
}

fn decode_bits(fields: &mut Fields<'_>) -> Result<Vec<bool>, Error> {
    let count = fields.count_up_to(HAVE_BATCH_MAX, "number of files in a batch")?;
    let mut bits = Vec::with_capacity(count);
    while bits.len() < count {
        let byte = fields.byte()?;
        bits.extend((0..8).map(|bit| byte >> bit & 1 == 1).take(count.saturating_sub(bits.len())));
    }
    Ok(bits)
}

fn put_bits(body: &mut Vec<u8>, bits: &[bool]) {
    put_short(body, bits.len());
    for byte in bits.chunks(8) {
        body.push(byte.iter().enumerate().fold(0, |byte, (bit, &is_set)| byte | u8::from(is_set) << bit));
    }
}

fn decode_totals(fields: &mut Fields<'_>) -> Result<Totals, Error> {
    Ok(Totals {
        files: fields.long()?,
        bytes: fields.long()?,
        folders: fields.long()?,
        links: fields.long()?,
        failed: fields.long()?,
        receiving_us: fields.long()?,
        verifying_us: fields.long()?,
        writing_us: fields.long()?,
    })
}

fn decode_space(fields: &mut Fields<'_>) -> Result<Space, Error> {
    let has_quota = fields.flag()?;
    let (bytes, files, bytes_max, files_max) = (fields.long()?, fields.long()?, fields.long()?, fields.long()?);
    let quota = has_quota.then_some(QuotaSpace { bytes, files, bytes_max, files_max });
    Ok(Space { quota, free: fields.long()?, size: fields.long()? })
}

fn put_space(body: &mut Vec<u8>, space: &Space) {
    body.push(space.quota.is_some().into());
    let quota = space.quota.map_or([0; 4], |quota| [quota.bytes, quota.files, quota.bytes_max, quota.files_max]);
    quota.into_iter().chain([space.free, space.size]).for_each(|number| put_long(body, number));
}

/// Adds `reply`.
pub fn encode(bytes: &mut Vec<u8>, reply: &Reply) {
    let kind = match reply {
        Reply::Welcome { .. } => WELCOME,
        Reply::Opened { .. } => OPENED,
        Reply::Answer(_) => ANSWER,
        Reply::Had(_) => HAD,
        Reply::Doubted { .. } => DOUBTED,
        Reply::Wanted(_) => WANTED,
        Reply::Missing { .. } => MISSING,
        Reply::Finished(_) => FINISHED,
        Reply::Heartbeat => HEARTBEAT,
        Reply::Listed(_) => LISTED,
        Reply::Content => CONTENT,
        Reply::Sum(_) => SUM,
        Reply::Space(_) => SPACE,
        Reply::Refused(_) => REFUSED,
    };
    frame::encode(bytes, kind, |body| match reply {
        Reply::Welcome { version, features } => {
            body.push(*version);
            put_long(body, features.0);
        }
        Reply::Opened { is_new, is_known, landed } => {
            body.extend_from_slice(&[u8::from(*is_new), u8::from(*is_known)]);
            put_run(body, landed);
        }
        Reply::Answer(answer) => {
            body.push(answer.status as u8);
            put_text(body, &answer.reason, WIRE_REASON_LEN_MAX);
        }
        Reply::Had(bits) => put_bits(body, bits),
        Reply::Doubted { had, doubtful } => {
            put_bits(body, had);
            put_bits(body, doubtful);
        }
        Reply::Wanted(wanted) => put_wanted(body, wanted),
        Reply::Missing { path, reason } => {
            put_run(body, path.as_bytes());
            put_text(body, reason, WIRE_REASON_LEN_MAX);
        }
        Reply::Finished(totals) => {
            for number in totals.numbers() {
                put_long(body, number);
            }
        }
        Reply::Heartbeat | Reply::Content => {}
        Reply::Listed(page) => put_page(body, page),
        Reply::Sum(digest) => put_run(body, digest),
        Reply::Space(space) => put_space(body, space),
        Reply::Refused(reason) => put_text(body, reason, WIRE_REASON_LEN_MAX),
    });
}
