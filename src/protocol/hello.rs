//! The first bytes of a connection say what it speaks.

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The frames of Parallel-transfer-file.
    V1,
    /// Nothing that is spoken here.
    Unknown,
}

/// Tells the dialect from the first bytes; `None` where more are needed.
#[must_use]
pub fn recognise(bytes: &[u8]) -> Option<Dialect> {
    match bytes {
        [] | [b'c' | b'w'] => None,
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
            let may_be_v1 = first == b'c' || first == b'w';
            assert_eq!(recognise(&[first]), (!may_be_v1).then_some(Dialect::Unknown));
            for second in 0..=u8::MAX {
                let pair = [first, second];
                let expected = if matches!(&pair, b"cd" | b"cf" | b"wf") { Dialect::V1 } else { Dialect::Unknown };
                assert_eq!(recognise(&pair), Some(expected));
            }
        }
    }
}
