//! The files of the source tree: opened, and told apart from what they were.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::digest::Hasher;
use crate::entry::Identity;
use crate::path::RemotePath;

/// Where the entries of a job are read from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A folder: the entries are below it.
    Tree(PathBuf),
    /// A file, which is the only entry, under whatever name.
    File(PathBuf),
}

impl Source {
    /// The path of an entry on this machine.
    #[must_use]
    pub(super) fn path_of(&self, path: &RemotePath) -> PathBuf {
        match self {
            Self::Tree(top) => top.join(path.as_path()),
            Self::File(file) => file.clone(),
        }
    }

    /// Opens an entry's file for reading. Follows no link and waits for nobody, whatever has taken
    /// the file's place since it was listed.
    ///
    /// # Errors
    /// Those of `open(2)`.
    #[allow(clippy::disallowed_methods, reason = "this is where source files are opened")]
    pub(super) fn open(&self, path: &RemotePath) -> io::Result<File> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(self.path_of(path))
    }
}

/// The identity of a file in its present state.
#[must_use]
pub(super) fn identify(metadata: &Metadata) -> Identity {
    let mut hasher = Hasher::default();
    for number in [metadata.dev(), metadata.ino(), metadata.ctime().cast_unsigned(), metadata.ctime_nsec().cast_unsigned()] {
        hasher.update(&number.to_be_bytes());
    }
    let mtime_nanoseconds = u32::try_from(metadata.mtime_nsec()).unwrap_or_default();
    Identity { size: metadata.size(), mtime: (metadata.mtime(), mtime_nanoseconds), tag: hasher.finish().0 }
}

/// What is there instead of a regular file, for a person.
#[must_use]
pub(super) fn describe_special(metadata: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else {
        "not a regular file"
    }
}

/// Would a copy of `file` into the folder `target` on this machine land on or in `file` itself?
///
/// # Errors
/// `file` can't be looked at.
pub fn lands_in_itself(file: &Path, target: &Path) -> io::Result<bool> {
    let real = file.canonicalize()?;
    // What is missing of the target will be made below what is there.
    let target = std::path::absolute(target)?;
    let there = |path: &&Path| path.canonicalize().is_ok();
    let Some(existing) = target.ancestors().find(there) else { return Ok(false) };
    if real.is_dir() {
        return Ok(existing.canonicalize()?.starts_with(&real));
    }
    let landing = file.file_name().map(|name| target.join(name));
    Ok(landing.and_then(|landing| landing.canonicalize().ok()).is_some_and(|landing| landing == real))
}
