//! What is asked of a tree that is there: its names, its content, and changes of its names.

use std::ops::Range;

use crate::digest::Binding;
use crate::entry::{Attributes, Identity, Time};
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

/// One name that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name in the folder, which is one that a path may have; empty where it was asked for itself.
    pub name: Box<[u8]>,
    /// What it is.
    pub kind: ListedKind,
    /// What else is known of it.
    pub attributes: Attributes,
}

/// What is listed under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedKind {
    /// A folder.
    Directory {
        /// When a name in it changed last.
        mtime: Time,
    },
    /// A regular file.
    File {
        /// Which, in which state. Names of one file have the same tag.
        identity: Identity,
        /// Has it holes?
        is_sparse: bool,
        /// How many names it has.
        names: u32,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to, unread.
        target: Box<[u8]>,
        /// When it was made.
        mtime: Time,
    },
    /// A device, a socket or a FIFO.
    Special {
        /// When it changed last.
        mtime: Time,
    },
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
