//! What is asked of a tree that is there: its names, its content, and changes of its names.

use std::ops::Range;

use crate::digest::Binding;
use crate::entry::{Identity, Listed};
use crate::path::RemotePath;

/// A range of a file, to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The file's path below the session's folder; the root is that itself, where it is a file.
    pub path: RemotePath,
    /// The file as it was listed.
    pub identity: Identity,
    /// Had it holes?
    pub is_sparse: bool,
    /// Which bytes of it.
    pub range: Range<u64>,
    /// What the digests of its blocks are bound to.
    pub binding: Binding,
}

/// What is to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Its path below the session's folder; the root is that itself.
    pub path: RemotePath,
    /// What this is, whatever it is? Otherwise what is in it.
    pub itself: bool,
    /// With users and groups?
    pub owner: bool,
    /// With extended attributes?
    pub xattrs: bool,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Is it the last?
    pub is_last: bool,
    /// What is listed, in no order.
    pub entries: Vec<Listed>,
}

/// How content is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5 (RFC 1321).
    Md5 = 1,
    /// BLAKE3.
    Blake3 = 2,
}

impl Algorithm {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::Md5, Self::Blake3].into_iter().find(|algorithm| *algorithm as u8 == code)
    }
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What may be stored and what is, where that is counted.
    pub quota: Option<QuotaSpace>,
    /// Bytes that are free on the disk.
    pub free: u64,
    /// Bytes of the disk.
    pub size: u64,
}

/// What may be stored and what is. A maximum of `u64::MAX` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaSpace {
    /// Bytes that are stored, or promised to what is on its way.
    pub bytes: u64,
    /// Files and links that are.
    pub files: u64,
    /// Bytes that may be.
    pub bytes_max: u64,
    /// Files and links that may be.
    pub files_max: u64,
}
