//! What is kept of a file or folder beside its content: put on it through a descriptor.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use crate::entry::{Attributes, Time};

/// Permission bits that are ever taken from the outside.
pub(super) const MODE_MASK: u32 = 0o777;

/// The only extended attributes taken from the outside: others give rights, as set-uid bits do.
const XATTR_PREFIX: &[u8] = b"user.";

const NANOSECONDS_MAX: u32 = 999_999_999;

/// A time as system calls take it; `None` if it is none. That of the last access stays.
pub(super) fn times(mtime: Time) -> Option<Timestamps> {
    let (seconds, nanoseconds) = mtime;
    // Beyond it are the values that mean "now" and "leave it".
    (nanoseconds <= NANOSECONDS_MAX).then(|| Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    })
}

/// What could not be put on something that is otherwise in order.
#[derive(Debug, Default)]
pub(super) struct Notes(String);

impl Notes {
    pub(super) fn add(&mut self, what: impl fmt::Display, why: impl fmt::Display) {
        let between = if self.0.is_empty() { "" } else { "; " };
        self.0.push_str(&format!("{between}could not set {what}: {why}"));
    }

    pub(super) fn into_text(self) -> Option<String> {
        (!self.0.is_empty()).then_some(self.0)
    }
}

/// Puts attributes on an open file or folder; `mode` only where it is not right already.
///
/// The owner comes last: whoever gave a file away may change nothing about it any more. Extended
/// attributes come first: a mode without the right to write forbids them.
pub(super) fn put_on(
    file: BorrowedFd<'_>, attributes: &Attributes, mode: Option<u32>, mtime: Time, notes: &mut Notes,
) -> Result<(), (&'static str, Errno)> {
    for (name, value) in &attributes.xattrs {
        set_xattr(file, name, value, notes);
    }
    if let Some(mode) = mode {
        let set = rustix::fs::fchmod(file, Mode::from_raw_mode(mode));
        or_note(set, notes, format_args!("mode {mode:03o}")).map_err(|errno| ("set the mode of", errno))?;
    }
    let set = times(mtime).ok_or(Errno::INVAL).and_then(|times| rustix::fs::futimens(file, &times));
    or_note(set, notes, "time").map_err(|errno| ("set the time of", errno))?;
    set_owner(file, OsStr::new(""), attributes.owner, notes);
    Ok(())
}

/// Gives what has a name in an open folder, or what is open itself, to somebody; follows no link.
pub(super) fn set_owner(open: BorrowedFd<'_>, name: &OsStr, owner: Option<(u32, u32)>, notes: &mut Notes) {
    let Some((user, group)) = owner else { return };
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    // All ones mean "leave it" to the system, and are nobody.
    let set = match user == u32::MAX || group == u32::MAX {
        true => Err(Errno::INVAL),
        false => rustix::fs::chownat(open, name, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)), flags),
    };
    if let Err(errno) = set {
        notes.add(format_args!("owner {user}:{group}"), errno);
    }
}

fn set_xattr(file: BorrowedFd<'_>, name: &[u8], value: &[u8], notes: &mut Notes) {
    let shown = crate::path::Escaped::start_of(name);
    if !name.starts_with(XATTR_PREFIX) {
        notes.add(format_args!("attribute {shown}"), "only those of users are kept");
    } else if let Err(errno) = rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
        notes.add(format_args!("attribute {shown}"), errno);
    }
}

/// A file system that knows no such thing, or a user who may not, is worth a note; a disk that fails is
/// an error.
pub(super) fn or_note(set: Result<(), Errno>, notes: &mut Notes, what: impl fmt::Display) -> Result<(), Errno> {
    match set {
        Err(errno @ (Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS)) => notes.add(what, errno),
        set => return set,
    }
    Ok(())
}
