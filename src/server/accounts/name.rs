//! The name of a user, as strict as it can be: it is shown, logged and typed, and no two look alike.

use std::fmt;

use crate::limits::USER_NAME_LEN_MAX;

/// A user's name: 1 to 32 of `a`-`z`, `0`-`9`, `_`, `-` and `.`, with a letter or a digit first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

/// What is no user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a user's name has 1 to {USER_NAME_LEN_MAX} letters a-z, digits, '_', '-' and '.', and begins with a letter or a digit")]
pub struct NameError;

impl UserName {
    /// The user that these bytes name; upper case counts as lower case.
    ///
    /// # Errors
    /// Anything outside of the grammar.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
        match bytes {
            [first, ..] if bytes.len() <= USER_NAME_LEN_MAX && first.is_ascii_alphanumeric() && bytes.iter().all(is_known) => {
                Ok(Self(bytes.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect()))
            }
            _ => Err(NameError),
        }
    }

    /// The name, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // B15
    #[test]
    fn names_are_of_a_strict_grammar_and_upper_case_is_folded() {
        let longest = "x".repeat(USER_NAME_LEN_MAX);
        for (bytes, name) in [
            ("a", "a"),
            ("0", "0"),
            ("alice", "alice"),
            ("Alice.B-c_9", "alice.b-c_9"),
            ("ROOT", "root"),
            ("a..", "a.."),
            (&longest, &longest),
        ] {
            assert_eq!(UserName::parse(bytes.as_bytes()).map(|name| name.to_string()).as_deref(), Ok(name));
        }
        let too_long = "x".repeat(USER_NAME_LEN_MAX + 1);
        let huge = "x".repeat(1 << 20);
        for bad in [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "/",
            ".a",
            "-a",
            "_a",
            "a b",
            " a",
            "a ",
            "a\0",
            "\0",
            "a\n",
            "a\\b",
            "a:b",
            "a@b",
            "é",
            "аlice",
            "a\u{202e}",
            &too_long,
            &huge,
        ] {
            assert_eq!(UserName::parse(bad.as_bytes()), Err(NameError), "{:.40}", bad.escape_debug());
        }
        assert_eq!(UserName::parse(b"\xff\xfe"), Err(NameError));
        let allowed = (0..=255u8).filter(|&byte| UserName::parse(&[b'a', byte]).is_ok()).count();
        assert_eq!(allowed, 26 + 26 + 10 + 3);
    }
}
