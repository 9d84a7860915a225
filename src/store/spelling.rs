//! File systems that take two names for one, such as names that differ in case: on them a name may be
//! taken by a file of another name, which nothing may replace in silence.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::{Mutex, MutexGuard};

use super::folders::Folder;
use super::{Error, jail, lock};
use crate::path::RemotePath;

/// Held by whoever gives a name in such a folder, from the look at who has it.
static TURN: Mutex<()> = Mutex::new(());

/// Makes sure that no file of another spelling has the last name of `path` in `folder`, in which there
/// is something called `known`. What this gives is to be held until the name is given.
///
/// # Errors
/// One has.
pub(super) fn claim(folder: &Folder, known: &OsStr, path: &RemotePath) -> Result<Option<MutexGuard<'static, ()>>, Error> {
    if !folder.is_case_blind(known) {
        return Ok(None);
    }
    let turn = lock(&TURN);
    let name = super::folders::name_of(path);
    if jail::look(folder.as_fd(), name).is_ok() && !is_listed(folder.as_fd(), name) {
        return Err(taken(path));
    }
    Ok(Some(turn))
}

/// Why a name can't be had.
pub(super) fn taken(path: &RemotePath) -> Error {
    Error::Refused { path: path.clone(), what: "there in another spelling, which this file system does not tell apart" }
}

/// Has a folder exactly this name? Yes where it can't be listed.
pub(super) fn is_listed(folder: BorrowedFd<'_>, name: &OsStr) -> bool {
    let Ok(mut listing) = rustix::fs::Dir::read_from(folder) else { return true };
    listing.any(|entry| entry.map_or(true, |entry| entry.file_name().to_bytes() == name.as_bytes()))
}

/// A name with all letters of the other case; `None` if it has none.
pub(super) fn other_case(name: &OsStr) -> Option<OsString> {
    let flip = |byte: u8| if byte.is_ascii_lowercase() { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
    let other: Vec<u8> = name.as_bytes().iter().copied().map(flip).collect();
    (other != name.as_bytes()).then(|| OsString::from_vec(other))
}
