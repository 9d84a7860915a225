//! What becomes of a file whose name a new one takes: it may be kept under another name.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Error, had, jail, refusal, what_is};
use crate::entry::Identity;
use crate::limits::{BACKUP_TRIES_MAX, NAME_LEN_MAX};
use crate::path::RemotePath;

/// What becomes of a regular file that is there, where a new one is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExisting {
    /// The new one replaces it.
    #[default]
    Replace,
    /// It gets the name `NAME_<unix time with fraction>` first, if the new one differs.
    KeepAside,
}

/// Gives what has the name another one, if it is a regular file, and tells which; nothing there is
/// fine.
pub(super) fn set_aside(above: BorrowedFd<'_>, name: &OsStr, path: &RemotePath) -> Result<Option<OsString>, Error> {
    let kind = match jail::kind_of(above, name) {
        Err(Errno::NOENT) => return Ok(None),
        kind => kind.map_err(|errno| refusal(path, "look at", errno))?,
    };
    if kind != FileType::RegularFile {
        return Err(Error::Refused { path: path.clone(), what: what_is(kind) });
    }
    name_also(above, name, path, jail::rename_to_new)
}

/// Gives a regular file a second name, if what comes differs from it, so that its first is never
/// without a file. Links are not kept; a folder is refused.
pub(super) fn keep_aside(
    above: BorrowedFd<'_>, name: &OsStr, path: &RemotePath, new: Option<&Identity>,
) -> Result<Option<OsString>, Error> {
    let stat = match jail::look(above, name) {
        Err(Errno::NOENT) => return Ok(None),
        stat => stat.map_err(|errno| refusal(path, "look at", errno))?,
    };
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile if new.is_some_and(|new| had::is_same(&stat, new)) => Ok(None),
        FileType::RegularFile => name_also(above, name, path, jail::link_to_new),
        FileType::Directory => Err(Error::Refused { path: path.clone(), what: what_is(FileType::Directory) }),
        _ => Ok(None),
    }
}

/// Undoes [`set_aside`] and [`keep_aside`], as far as nobody else took the name.
pub(super) fn put_back(above: BorrowedFd<'_>, kept: &OsStr, name: &OsStr) {
    if jail::rename_to_new(above, kept, name) == Err(Errno::EXIST)
        && matches!((jail::look(above, kept), jail::look(above, name)), (Ok(one), Ok(other)) if jail::is_one(&one, &other))
    {
        let _ = jail::remove(above, kept);
    }
}

fn name_also(
    above: BorrowedFd<'_>, name: &OsStr, path: &RemotePath, give: fn(BorrowedFd<'_>, &OsStr, &OsStr) -> Result<(), Errno>,
) -> Result<Option<OsString>, Error> {
    let mut errno = Errno::EXIST;
    for _ in 0..BACKUP_TRIES_MAX {
        let kept = backup_name(name);
        match give(above, name, &kept) {
            Err(Errno::EXIST) => errno = Errno::EXIST,
            Ok(()) => return Ok(Some(kept)),
            // Another one set it aside at the same moment.
            Err(Errno::NOENT) => return Ok(None),
            Err(other) => return Err(refusal(path, "keep the old version of", other)),
        }
    }
    Err(refusal(path, "keep the old version of", errno))
}

/// `NAME_<unix time with fraction>`; the name gives way where both would be too long.
fn backup_name(name: &OsStr) -> OsString {
    #[allow(clippy::disallowed_methods, reason = "the time is part of the name")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let suffix = format!("_{}.{:09}", now.as_secs(), now.subsec_nanos());
    let keep = name.len().min(NAME_LEN_MAX.saturating_sub(suffix.len()));
    let kept = name.as_bytes().get(..keep).unwrap_or_default();
    // A character cut in two would make a name of text one that is not.
    let cut = match str::from_utf8(kept) {
        Err(error) if error.error_len().is_none() && str::from_utf8(name.as_bytes()).is_ok() => error.valid_up_to(),
        _ => keep,
    };
    let mut backup = kept.get(..cut).unwrap_or_default().to_vec();
    backup.extend_from_slice(suffix.as_bytes());
    OsString::from_vec(backup)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::super::Folders;
    use super::super::yard::{Yard, leftovers, meta, path};
    use super::*;

    #[test]
    fn the_old_version_is_kept_aside_if_it_differs() {
        let yard = Yard::new();
        let kept = || {
            let names = fs::read_dir(yard.at("")).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.as_bytes().starts_with(b"a_")).collect::<Vec<_>>()
        };
        fs::write(yard.at("a"), "first").unwrap();
        let inode = fs::metadata(yard.at("a")).unwrap().ino();
        for (content, count) in [("other", 1), ("other", 1), ("longer", 2)] {
            yard.put("a", content.as_bytes(), OnExisting::KeepAside).unwrap();
            assert_eq!(kept().len(), count);
            assert_eq!(fs::read(yard.at("a")).unwrap(), content.as_bytes());
        }
        assert!(kept().iter().any(|name| fs::metadata(yard.at(name)).unwrap().ino() == inode));
        // One whose new version can't be published keeps its name alone.
        let mut folders = Folders::default();
        let incoming = yard.store.begin(&mut folders, &path("a"), &meta(3, 1), OnExisting::KeepAside).unwrap();
        fs::remove_file(&leftovers(&yard.at(""))[0]).unwrap();
        incoming.write_at(0, b"bad").unwrap();
        assert!(incoming.note(0..3).is_err());
        assert_eq!((kept().len(), fs::read(yard.at("a")).unwrap()), (2, b"longer".to_vec()));
    }
}
