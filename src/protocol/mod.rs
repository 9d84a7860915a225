//! The vocabulary of the wire: bytes to values, values to bytes.
//!
//! Decoding is a function from a slice to a value, to "not enough yet", or to a reason; encoding
//! cannot fail. Nothing here reads, writes, waits or remembers.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

pub mod hello;
mod login;
mod tree;
pub mod v1;
pub mod v2;

use std::ops::{Range, RangeInclusive};

use crate::compress::Level;
use crate::digest::{Binding, Checksum, Digest};
use crate::entry::{Attributes, Entry, FileMeta, Time};
use crate::path::{PathError, RemotePath};

pub use login::{Credential, Secret, Token, to_sign};
pub use tree::{Algorithm, List, Page, QuotaSpace, Read, Space};

/// What a refusal begins with that may pass.
pub const BUSY: &str = "busy: ";

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Make these folders, in this order.
    MakeDirectories(Names<'a>),
    /// Create these files, empty; keep what has such a name.
    CreateFiles(Names<'a>),
    /// Write the payload that follows to this range of a file that was created, in place.
    Write {
        /// The file's name, as it came.
        name: &'a [u8],
        /// Where the payload goes, in bytes of the file.
        range: Range<u64>,
    },
    /// Say which version to speak.
    Hello {
        /// Those that the client speaks.
        versions: RangeInclusive<u8>,
        /// What else it can do.
        features: Features,
    },
    /// Open a session.
    Open(Open),
    /// Make an account.
    SignUp {
        /// Its name, as it came.
        user: Vec<u8>,
        /// Its password.
        password: Secret,
    },
    /// Take this connection into a session.
    Join(Token),
    /// Take the payload that follows as a range of a file, which is published when it is whole.
    Put(Put),
    /// Say which of these files are there already.
    Have(Vec<Known>),
    /// Say whether this file, of which that is in doubt, has this BLAKE3 digest.
    Verify(Known, [u8; 32]),
    /// Take note of a folder or a link.
    Describe(Entry),
    /// Publish what waits for the end, and end the session.
    Finish,
    /// Send a range of a file.
    Read(Read),
    /// Say what is in a folder, or what something is.
    List(List),
    /// Remove a file, a link or a folder.
    Remove {
        /// Its path below the session's folder.
        path: RemotePath,
        /// A folder with all that is in it? Otherwise only one that is empty.
        is_recursive: bool,
    },
    /// Give something another name, which nothing has.
    Rename {
        /// Its path below the session's folder.
        from: RemotePath,
        /// The one that it gets.
        to: RemotePath,
    },
    /// Make a folder.
    MakeDirectory {
        /// Its path below the session's folder.
        path: RemotePath,
        /// With those above it that are missing, and content with one that is there?
        with_parents: bool,
    },
    /// Sum up the content of a file.
    Sum {
        /// Its path below the session's folder.
        path: RemotePath,
        /// How.
        algorithm: Algorithm,
    },
    /// Say how much room there is.
    Space,
    /// Pass this connection on to another receiver. Once that is granted its TLS ends in order, and what follows is
    /// that receiver's.
    Relay {
        /// Its name or address, and its port: `host:9000`, `[2001:db8::7]:9000`.
        to: String,
    },
    /// Change the account's password.
    ChangePassword {
        /// What it is.
        old: Secret,
        /// What it is to be.
        new: Secret,
    },
}

/// A session to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// What further connections present.
    pub token: Token,
    /// The folder that all paths are below, as the user wrote it.
    pub directory: Vec<u8>,
    /// Why the client may.
    pub credential: Credential,
    /// How blocks are verified.
    pub checksum: Checksum,
    /// Are files that are replaced kept under another name?
    pub keeps_old: bool,
    /// Is all to be on disk before the session ends well?
    pub syncs: bool,
    /// Is only to be told what is there, and nothing changed?
    pub is_dry: bool,
    /// What it is for.
    pub purpose: Purpose,
    /// How content is to be compressed on its way, if the client asks for that.
    pub compression: Option<Level>,
}

impl Open {
    /// A session in the top folder, of one who shows nothing, with the rest left as it is usually wanted.
    #[must_use]
    pub fn plain(token: Token, purpose: Purpose) -> Self {
        Self {
            token,
            directory: Vec::new(),
            credential: Credential::None,
            checksum: Checksum::None,
            keeps_old: false,
            syncs: false,
            is_dry: false,
            purpose,
            compression: None,
        }
    }
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Entries are brought; the folder is made.
    Bring,
    /// Nothing is put, but read, listed and changed by name. The folder is not made.
    Browse,
    /// Its connections are passed on to other receivers, each after a [`Request::Relay`]. The folder means nothing.
    Relay,
}

/// A range of a file, whose payload follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The file's path below the session's folder.
    pub path: RemotePath,
    /// The file.
    pub file: FileMeta,
    /// The bytes that follow.
    pub range: Range<u64>,
    /// What the digests of its blocks are bound to.
    pub binding: Binding,
}

/// A file that may be there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its path below the session's folder.
    pub path: RemotePath,
    /// Its bytes.
    pub size: u64,
    /// Time of the last change of its content.
    pub mtime: Time,
    /// What it is to have, if it is there.
    pub attributes: Attributes,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a hello: this version is spoken from here on.
    Welcome {
        /// The version.
        version: u8,
        /// What both can do.
        features: Features,
    },
    /// To an opening.
    Opened {
        /// Was the folder not there before?
        is_new: bool,
        /// Was the session open already?
        is_known: bool,
        /// The folder's path at the receiver, in full.
        landed: Vec<u8>,
    },
    /// To a join, a put, a description.
    Answer(Answer),
    /// To a put of nothing to a file that is not whole: what of it is wanted still.
    Wanted(Wanted),
    /// To the question what is there: one bit a file.
    Had(Vec<bool>),
    /// The same where files of that size and time may have lost content when the power failed: those
    /// are to be verified.
    Doubted {
        /// Which are there.
        had: Vec<bool>,
        /// Which are in doubt.
        doubtful: Vec<bool>,
    },
    /// To a finish, before its end: an entry that is not as it should be.
    Missing {
        /// Which.
        path: RemotePath,
        /// Why.
        reason: String,
    },
    /// To a finish: all the rest is there.
    Finished(Totals),
    /// To a list, any number: a part of it.
    Listed(Page),
    /// To a read: the payload follows.
    Content,
    /// To a sum.
    Sum(Vec<u8>),
    /// To the question how much room there is.
    Space(Space),
    /// Means nothing but that work goes on.
    Heartbeat,
    /// To anything: no, and the connection ends.
    Refused(String),
}

/// What of a file has not come yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How many bytes.
    pub bytes: u64,
    /// Which, in order: the first [`WANTED_RANGES_MAX`](crate::limits::WANTED_RANGES_MAX) ranges.
    pub ranges: Vec<Range<u64>>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// In a word.
    pub status: Status,
    /// Why, or what else there is to say; empty mostly.
    pub reason: String,
}

impl Answer {
    /// One that needs no more words.
    #[must_use]
    pub fn of(status: Status) -> Self {
        Self { status, reason: String::new() }
    }
}

/// What became of a request, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is done; of a range: it is there, and others are missing still.
    Stored = 0,
    /// The file is whole and has its name.
    Published = 1,
    /// The file was there already.
    Had = 2,
    /// A block had another digest.
    Mismatched = 3,
    /// The client said that it does not count.
    Voided = 4,
    /// It is not done, and the reason says why.
    Refused = 5,
}

impl Status {
    fn from_code(code: u8) -> Option<Self> {
        let all = [Self::Stored, Self::Published, Self::Had, Self::Mismatched, Self::Voided, Self::Refused];
        all.into_iter().find(|status| *status as u8 == code)
    }
}

/// What a session did, as the server counted, and where its connections spent their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Files published.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Folders described.
    pub folders: u64,
    /// Links made.
    pub links: u64,
    /// Entries named as missing.
    pub failed: u64,
    /// Microseconds of waiting for bytes.
    pub receiving_us: u64,
    /// Microseconds of digests.
    pub verifying_us: u64,
    /// Microseconds in the file system.
    pub writing_us: u64,
}

impl Totals {
    fn numbers(&self) -> [u64; 8] {
        [self.files, self.bytes, self.folders, self.links, self.failed, self.receiving_us, self.verifying_us, self.writing_us]
    }
}

/// What an end can do beside what its version says. Bits that are not known mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// Blocks may be verified with BLAKE3.
    pub const BLAKE3: Self = Self(1);

    /// Blocks may travel compressed with zstd.
    pub const ZSTD: Self = Self(2);

    /// All that is here.
    pub const OURS: Self = Self(Self::BLAKE3.0 | Self::ZSTD.0);

    /// Where the level stands that a server asks for, and the bits of it.
    const LEVEL: (u32, u64) = (8, 0x1f);

    /// What both have.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Is all of `other` in it?
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The same from a server that asks for compression of this level, where both can do that.
    #[must_use]
    pub fn asking(self, level: Option<Level>) -> Self {
        let (at, _) = Self::LEVEL;
        let level = level.filter(|_| self.has(Self::ZSTD));
        Self(self.0 | u64::from(Level::number(level)) << at)
    }

    /// The level at which content travels compressed, if it does, where a server said this and the client
    /// asks for `asked`, which goes before what the server asks for.
    #[must_use]
    pub fn level(self, asked: Option<Level>) -> Option<Level> {
        let (at, bits) = Self::LEVEL;
        let theirs = u8::try_from(self.0 >> at & bits).ok().and_then(Level::of);
        asked.or(theirs).filter(|_| self.has(Self::ZSTD))
    }
}

/// What a connection that carries chunks says at its start, and how it encodes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Session {
    /// Nothing; names have a prefix.
    V1 {
        /// What stands before each path.
        prefix: Vec<u8>,
    },
    /// That it joins a session.
    V2 {
        /// Which.
        token: Token,
        /// How blocks are verified.
        checksum: Checksum,
        /// What it says that it can do.
        features: Features,
        /// How blocks that are sent are compressed, if they are.
        level: Option<Level>,
    },
}

/// How the content of a range travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// As it is; the answer is the MD5 of it.
    Plain,
    /// In verified blocks, see [`v2::payload`].
    Blocks(Checksum, Binding),
}

impl Session {
    /// How blocks that are sent are compressed, if they are.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        match self {
            Self::V1 { .. } => None,
            Self::V2 { level, .. } => *level,
        }
    }

    /// The same, with blocks compressed like this.
    #[must_use]
    pub fn with_level(&self, level: Option<Level>) -> Self {
        match self {
            Self::V1 { .. } => self.clone(),
            Self::V2 { token, checksum, features, .. } => {
                Self::V2 { token: *token, checksum: *checksum, features: *features, level }
            }
        }
    }

    /// Adds what comes first on a connection; gives the number of replies to it.
    pub fn encode_start(&self, bytes: &mut Vec<u8>) -> usize {
        match self {
            Self::V1 { .. } => 0,
            Self::V2 { token, features, .. } => {
                v2::encode_greeting(bytes, *features);
                v2::request::encode_join(bytes, token);
                2
            }
        }
    }

    /// Adds the header of a range of a file; says how its content follows.
    pub fn encode_range(&self, bytes: &mut Vec<u8>, path: &RemotePath, file: &FileMeta, range: &Range<u64>) -> Payload {
        match self {
            Self::V1 { prefix } => {
                v1::encode_write(bytes, &[prefix, path.as_bytes()].concat(), range);
                Payload::Plain
            }
            Self::V2 { checksum, .. } => Payload::Blocks(*checksum, v2::request::encode_put(bytes, path, file, range)),
        }
    }

    /// Adds the request for a range of a file; says how its content will come.
    pub fn encode_read(&self, bytes: &mut Vec<u8>, path: &RemotePath, file: &FileMeta, range: &Range<u64>) -> Payload {
        match self {
            Self::V1 { .. } => Payload::Plain,
            Self::V2 { checksum, .. } => {
                let binding = v2::request::encode_read(bytes, path, &file.identity, file.is_sparse, range);
                Payload::Blocks(*checksum, binding)
            }
        }
    }

    /// Decodes the next answer to a range whose MD5, where it travels plain, is `digest`.
    ///
    /// # Errors
    /// As soon as the bytes at hand can't become an answer.
    pub fn decode_reply(&self, bytes: &[u8], digest: &Digest) -> Decoded<Reply> {
        match self {
            Self::V1 { .. } => Ok(v1::decode_digest(bytes).map(|(theirs, len)| {
                let status = if *theirs == digest.to_hex() { Status::Stored } else { Status::Mismatched };
                (Reply::Answer(Answer::of(status)), len)
            })),
            Self::V2 { .. } => v2::reply::decode(bytes),
        }
    }

    /// Are files whole once all their ranges are stored? (Otherwise the answers say so.)
    #[must_use]
    pub fn is_whole_when_stored(&self) -> bool {
        matches!(self, Self::V1 { .. })
    }

    /// May a range be sent while it is under way on another connection? (Otherwise the slower one
    /// writes over what may have changed since.)
    #[must_use]
    pub fn takes_repeats(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }
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
    /// A path that may not be.
    #[error("{0}")]
    Path(#[from] PathError),
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
