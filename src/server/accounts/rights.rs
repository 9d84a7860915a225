//! What a user may do below its home.

use std::fmt;
use std::str::FromStr;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Read files.
    pub read: bool,
    /// Make and replace files, folders and links, and rename them.
    pub write: bool,
    /// Remove them.
    pub remove: bool,
    /// See their names, sizes and times.
    pub list: bool,
}

/// What names no rights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no right; there are read, write, remove and list, joined by commas, and all or none alone")]
pub struct RightsError(String);

impl Rights {
    /// All of them.
    pub const ALL: Self = Self { read: true, write: true, remove: true, list: true };

    /// None.
    pub const NONE: Self = Self { read: false, write: false, remove: false, list: false };

    /// Are all of `other` among them?
    #[must_use]
    pub fn have(self, other: Self) -> bool {
        self.to_bits() & other.to_bits() == other.to_bits()
    }

    /// The same as a number.
    #[must_use]
    pub(in crate::server) fn to_bits(self) -> u8 {
        let all = [self.read, self.write, self.remove, self.list];
        all.iter().rev().fold(0, |bits, &is_given| bits << 1 | u8::from(is_given))
    }

    /// Those that such a number says.
    #[must_use]
    pub(in crate::server) fn from_bits(bits: u8) -> Self {
        let [read, write, remove, list] = [0, 1, 2, 3].map(|bit| bits >> bit & 1 == 1);
        Self { read, write, remove, list }
    }

    /// The names of those that are given.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let named = [(self.read, "read"), (self.write, "write"), (self.remove, "remove"), (self.list, "list")];
        named.into_iter().filter_map(|(is_given, name)| is_given.then_some(name)).collect()
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names() {
            names if names.is_empty() => f.write_str("none"),
            names => f.write_str(&names.join(",")),
        }
    }
}

impl FromStr for Rights {
    type Err = RightsError;

    fn from_str(text: &str) -> Result<Self, RightsError> {
        match text {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            _ => {}
        }
        let mut rights = Self::NONE;
        for name in text.split(',') {
            match name {
                "read" => rights.read = true,
                "write" => rights.write = true,
                "remove" => rights.remove = true,
                "list" => rights.list = true,
                _ => return Err(RightsError(name.chars().take(32).collect())),
            }
        }
        Ok(rights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_read_as_they_were_written() {
        for bits in 0..16 {
            let rights = Rights { read: bits & 1 > 0, write: bits & 2 > 0, remove: bits & 4 > 0, list: bits & 8 > 0 };
            assert_eq!((rights.to_bits(), Rights::from_bits(bits)), (bits, rights));
            assert_eq!(Rights::from_bits(5).have(rights), bits & !5 == 0);
            assert_eq!(rights.to_string().parse(), Ok(rights));
        }
        assert_eq!("all".parse(), Ok(Rights::ALL));
        assert_eq!("list,read".parse::<Rights>().unwrap().to_string(), "read,list");
        for text in ["", "read,", "READ", "read, list", "all,read", "delete", &"x".repeat(1 << 20)] {
            assert!(text.parse::<Rights>().is_err_and(|error| error.to_string().len() < 200), "{text:.40}");
        }
    }
}
