//! The vocabulary of the wire: bytes to values, values to bytes.
//!
//! Decoding is a function from a slice to a value, to "not enough yet", or to a reason; encoding
//! cannot fail. Nothing here reads, writes, waits or remembers.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

pub mod hello;
pub mod v1;
pub mod v2;

use std::ops::Range;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Make these folders, in this order.
    MakeDirectories(Names<'a>),
    /// Create these files, empty; keep what has such a name.
    CreateFiles(Names<'a>),
    /// Write the payload that follows to this range of a file.
    Write {
        /// The file's name, as it came.
        name: &'a [u8],
        /// Where the payload goes, in bytes of the file.
        range: Range<u64>,
    },
}

/// A list of names, as it came: joined by line feeds. Empty names mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names<'a>(pub &'a [u8]);

impl<'a> Names<'a> {
    /// The names that are not empty, in order.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        self.0.split(|&byte| byte == b'\n').filter(|name| !name.is_empty())
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No operation has this name.
    #[error("unknown operation '{}'", crate::path::Escaped(.0))]
    UnknownOperation(Vec<u8>),
    /// This field is not what it must be.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
    /// This field is larger than allowed.
    #[error("{field} of {value} is over the limit of {limit}")]
    OverLimit {
        /// The field's name.
        field: &'static str,
        /// What it said.
        value: u64,
        /// What it may say.
        limit: u64,
    },
}

/// A decoded value and how many bytes it took; `None` where more bytes are needed.
pub type Decoded<T> = Result<Option<(T, usize)>, Error>;
