//! `Entry`: one name in a tree with its attributes.

use std::fmt;

use crate::path::RemotePath;

/// Seconds since 1970, and nanoseconds.
pub type Time = (i64, u32);

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is below the top of the tree. A file sent alone has its own name; the top itself is
    /// the root.
    pub path: RemotePath,
    /// What it is.
    pub kind: Kind,
    /// What is kept of it beside its content and time.
    pub attributes: Attributes,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Directory {
        /// When a name in it changed last.
        mtime: Time,
    },
    /// A regular file, as it was when it was listed.
    File {
        /// Which file, in which state.
        identity: Identity,
        /// Has it holes?
        is_sparse: bool,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to, unread.
        target: Box<[u8]>,
        /// When it was made.
        mtime: Time,
    },
    /// One more name of a file that was listed before.
    HardLink {
        /// The name under which that was.
        to: RemotePath,
    },
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

/// What is kept of an entry beside its content and time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits, 0777 at the most.
    pub mode: u16,
    /// User and group, where they are kept.
    pub owner: Option<(u32, u32)>,
    /// Extended attributes, where they are kept.
    pub xattrs: Vec<Xattr>,
}

/// All about a regular file but its path and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// Which file, in which state.
    pub identity: Identity,
    /// What is kept of it beside its content and time.
    pub attributes: Attributes,
    /// Has it holes?
    pub is_sparse: bool,
}

impl FileMeta {
    /// That of a file of no bytes, of which nothing is known.
    #[must_use]
    pub fn empty() -> Self {
        let identity = Identity { size: 0, mtime: (0, 0), tag: [0; 16] };
        Self { identity, attributes: Attributes::default(), is_sparse: false }
    }
}

/// An extended attribute: name and value.
pub type Xattr = (Box<[u8]>, Box<[u8]>);

/// Which file it is, in which state: two reads under one identity are reads of the same content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Bytes of the whole file.
    pub size: u64,
    /// Time of the last change of content.
    pub mtime: Time,
    /// A digest over device, inode and time of the last change of any attribute.
    pub tag: [u8; 16],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {}.{:09}, {:032x}", self.size, self.mtime.0, self.mtime.1, u128::from_be_bytes(self.tag))
    }
}
