//! The first bytes of a connection say what it speaks.

use super::v2::MAGIC;

const TLS_HANDSHAKE: u8 = 0x16;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The frames of Parallel-transfer-file.
    V1,
    /// Binary frames.
    V2,
    /// What is inside will tell.
    Tls,
    /// Nothing that is spoken here.
    Unknown,
}

/// Tells the dialect from the first bytes; `None` where more are needed.
#[must_use]
pub fn recognise(bytes: &[u8]) -> Option<Dialect> {
    match bytes {
        [] | [b'c' | b'w'] => None,
        // A handshake record (RFC 8446, section 5.1).
        [TLS_HANDSHAKE, ..] => Some(Dialect::Tls),
        _ if bytes.starts_with(&MAGIC) => Some(Dialect::V2),
        _ if MAGIC.starts_with(bytes) => None,
        [b'c', b'd' | b'f', ..] | [b'w', b'f', ..] => Some(Dialect::V1),
        _ => Some(Dialect::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_first_bytes_is_told_at_the_earliest_byte() {
        assert_eq!(recognise(b""), None);
        for first in 0..=u8::MAX {
            let expected = match first {
                b'c' | b'w' | 0x8f => None,
                0x16 => Some(Dialect::Tls),
                _ => Some(Dialect::Unknown),
            };
            assert_eq!(recognise(&[first]), expected);
            for second in 0..=u8::MAX {
                let pair = [first, second];
                let expected = match &pair {
                    b"cd" | b"cf" | b"wf" => Some(Dialect::V1),
                    [0x16, _] => Some(Dialect::Tls),
                    [0x8f, b'P'] => None,
                    _ => Some(Dialect::Unknown),
                };
                assert_eq!(recognise(&pair), expected);
            }
        }
        assert_eq!(recognise(b"\x8fPT"), None);
        assert_eq!(recognise(b"\x8fPTF"), Some(Dialect::V2));
        assert_eq!(recognise(b"\x8fPTX"), Some(Dialect::Unknown));
    }
}
