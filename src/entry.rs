//! `Entry`: one name in a tree with its attributes.

use std::fmt;

use crate::path::RemotePath;

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is below the top of the tree. A file sent alone has its own name.
    pub path: RemotePath,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Directory,
    /// A regular file, as it was when it was listed.
    File(Identity),
}

/// Which file it is, in which state: two reads under one identity are reads of the same content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Bytes of the whole file.
    pub size: u64,
    /// Time of the last change of content, in seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// A digest over device, inode and time of the last change of any attribute.
    pub tag: [u8; 16],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {}.{:09}, {:032x}", self.size, self.mtime.0, self.mtime.1, u128::from_be_bytes(self.tag))
    }
}
