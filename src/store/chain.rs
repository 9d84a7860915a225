//! Records of a file that only grows, as bytes: each has its length, and a check that is chained to the
//! one before it. One that is torn, repeated, moved or of another file is not taken for one.

use crate::digest::check;

const LEN_LEN: usize = 2;
const CHECK_LEN: usize = 8;

/// Bytes of a record whose body has so many.
pub(super) const fn record_len(body_len: usize) -> usize {
    LEN_LEN.saturating_add(body_len).saturating_add(CHECK_LEN)
}

/// Bytes that a record begins with, and that say how long its body is.
pub(super) type Len = [u8; LEN_LEN];

/// How long a body is that is announced so; none where no body is so long.
pub(super) fn body_len(len: Len, body_len_max: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(len))).filter(|len| *len <= body_len_max)
}

/// Adds a record to `bytes`, chained to what has the check `before`; gives its own check.
pub(super) fn encode(bytes: &mut Vec<u8>, body: &[u8], before: u64) -> u64 {
    // No kind of record here is longer than that.
    let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let record = [&len.to_be_bytes()[..], body].concat();
    let own = check(&record, before);
    bytes.extend_from_slice(&record);
    bytes.extend_from_slice(&own.to_be_bytes());
    own
}

/// The body of the record at the start of `bytes`, how long the record is, and its check. None where it
/// is torn, longer than any may be, or not chained to what has the check `before`.
pub(super) fn decode(bytes: &[u8], before: u64, body_len_max: usize) -> Option<(&[u8], usize, u64)> {
    let (len, rest) = bytes.split_first_chunk::<LEN_LEN>()?;
    let (body, rest) = rest.split_at_checked(body_len(*len, body_len_max)?)?;
    let own = u64::from_be_bytes(*rest.first_chunk::<CHECK_LEN>()?);
    let checked = bytes.get(..LEN_LEN.saturating_add(body.len()))?;
    (check(checked, before) == own).then_some((body, record_len(body.len()), own))
}
