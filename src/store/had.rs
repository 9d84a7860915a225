//! Is a file there already? By size and time, without reading it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::attributes::{self, MODE_MASK, Notes};
use super::folders::{Folder, name_of};
use super::{Error, Folders, Store, hash_file, jail, refusal};
use crate::entry::{Attributes, Identity};
use crate::path::RemotePath;

/// Is it a regular file of this size and time?
pub(super) fn is_same(stat: &Statx, identity: &Identity) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile
        && stat.stx_size == identity.size
        && (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec) == identity.mtime
}

impl Store {
    /// Is a regular file of this size and time at `path`? Where only its attributes differ they are put
    /// right; where they can't be, the answer is no.
    ///
    /// # Errors
    /// The system said no for another reason than that there is nothing.
    pub fn has(
        &self, folders: &mut Folders, path: &RemotePath, identity: &Identity, attributes: &Attributes,
    ) -> Result<There, Error> {
        match self.find_folder(folders, path) {
            Ok(Some(folder)) => self.has_in(&folder, path, identity, attributes),
            // What can't be there is not; whoever brings it is told why.
            Ok(None) | Err(Error::Refused { .. }) => Ok(There::No),
            Err(error) => Err(error),
        }
    }

    /// Is a regular file of this size and time at `path`? Nothing is changed.
    ///
    /// # Errors
    /// As [`Store::has`].
    pub fn has_as_is(&self, folders: &mut Folders, path: &RemotePath, identity: &Identity) -> Result<bool, Error> {
        match self.find_folder(folders, path) {
            Ok(Some(folder)) => {
                let seen = jail::look(folder.as_fd(), name_of(path));
                Ok(seen.is_ok_and(|stat| is_same(&stat, identity)) && folder.spells(name_of(path)))
            }
            Ok(None) | Err(Error::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// [`Store::has`] in an open folder.
    pub(super) fn has_in(
        &self, folder: &Folder, path: &RemotePath, identity: &Identity, attributes: &Attributes,
    ) -> Result<There, Error> {
        let seen = match jail::look(folder.as_fd(), name_of(path)) {
            Err(Errno::NOENT) => return Ok(There::No),
            seen => seen.map_err(|errno| refusal(path, "look at", errno))?,
        };
        if !is_same(&seen, identity) || !folder.spells(name_of(path)) {
            return Ok(There::No);
        }
        if self.syncs.doubts(&seen) {
            return Ok(There::InDoubt);
        }
        let is_there = has_seen(&seen, folder, path, identity, attributes);
        Ok(if is_there { There::Yes } else { There::No })
    }

    /// Is a regular file of this size, time and BLAKE3 digest at `path`? Then it is not in doubt any
    /// more. `going` is called now and then; what it says ends that.
    ///
    /// # Errors
    /// As [`Store::has`]; it can't be read; that of `going`.
    pub fn verify(
        &self, folders: &mut Folders, path: &RemotePath, (identity, digest): (&Identity, &[u8; 32]), attributes: &Attributes,
        going: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<bool, Error> {
        let Ok(Some(folder)) = self.find_folder(folders, path) else { return Ok(false) };
        // Whoever opens a FIFO lets go who waits for that, and a device may do anything.
        if !jail::look(folder.as_fd(), name_of(path)).is_ok_and(|stat| is_same(&stat, identity)) {
            return Ok(false);
        }
        let Ok(file) = jail::open_child_file(folder.as_fd(), name_of(path)) else { return Ok(false) };
        let is_this = |file: &File| jail::look_at(file.as_fd()).is_ok_and(|stat| is_same(&stat, identity));
        if !is_this(&file) || !folder.spells(name_of(path)) {
            return Ok(false);
        }
        let found = hash_file(&file, going).map_err(|source| Error::Io { path: path.clone(), act: "read", source })?;
        if found != *digest || !is_this(&file) {
            return Ok(false);
        }
        // What it is read from by now is the disk: its time of change says that it was looked at.
        let stat = jail::look_at(file.as_fd()).map_err(|errno| refusal(path, "look at", errno))?;
        if rustix::fs::fchmod(&file, Mode::from_raw_mode(u32::from(stat.stx_mode) & 0o7777)).is_err() {
            tracing::debug!("{path} stays in doubt: it is somebody else's");
        }
        Ok(has_seen(&stat, &folder, path, identity, attributes))
    }
}

impl Store {
    /// The BLAKE3 digest of the regular file at `path`, which has this size and time. `going` is called now
    /// and then; what it says ends that.
    ///
    /// # Errors
    /// It is another one, or can't be read; that of `going`.
    pub fn digest_of(
        &self, path: &RemotePath, identity: &Identity, going: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<[u8; 32], Error> {
        let file = jail::open_file(self.root.as_fd(), path, OFlags::RDONLY).map_err(|errno| refusal(path, "open", errno))?;
        let is_this = || jail::look_at(file.as_fd()).is_ok_and(|stat| is_same(&stat, identity));
        let changed = || Error::Refused { path: path.clone(), what: "not what it was" };
        if !is_this() {
            return Err(changed());
        }
        let digest = hash_file(&file, going).map_err(|source| Error::Io { path: path.clone(), act: "read", source })?;
        if is_this() { Ok(digest) } else { Err(changed()) }
    }
}

/// Is a file there already?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// No.
    No,
    /// Yes.
    Yes,
    /// It seems so, but some of it may not have reached the disk when the power failed.
    InDoubt,
}

/// Has a file that was seen the right attributes, or can they be put right?
fn has_seen(stat: &Statx, folder: &Folder, path: &RemotePath, identity: &Identity, attributes: &Attributes) -> bool {
    let name = name_of(path);
    if is_right(stat, attributes) && attributes.xattrs.is_empty() {
        return true;
    }
    // Whatever it was, it may be something else by now: all is asked again of what is open.
    let Ok(file) = jail::open_child_file(folder.as_fd(), name) else { return false };
    let Ok(stat) = jail::look_at(file.as_fd()) else { return false };
    is_same(&stat, identity) && put_right(&file, &stat, identity, attributes)
}

fn is_right(stat: &Statx, attributes: &Attributes) -> bool {
    u32::from(stat.stx_mode ^ attributes.mode) & MODE_MASK == 0
        && attributes.owner.is_none_or(|owner| owner == (stat.stx_uid, stat.stx_gid))
}

fn put_right(file: &File, stat: &Statx, identity: &Identity, attributes: &Attributes) -> bool {
    let xattrs = attributes.xattrs.iter().filter(|(name, value)| !has_xattr(file, name, value)).cloned().collect::<Vec<_>>();
    if is_right(stat, attributes) && xattrs.is_empty() {
        return true;
    }
    // A file of somebody else's: a new one would be ours, and get its mode.
    let mode = u32::from(attributes.mode) & MODE_MASK;
    let set_mode = |mode| rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).is_ok();
    // Extended attributes are put only on what may be written to.
    if !set_mode(if xattrs.is_empty() { mode } else { mode | 0o200 }) {
        return false;
    }
    let wants_xattrs = !xattrs.is_empty();
    let wrong = Attributes { xattrs, ..attributes.clone() };
    // What can't be put on this file can't be put on a new one either: the same bytes again would be
    // for nothing.
    let put = attributes::put_on(file.as_fd(), &wrong, None, identity.mtime, &mut Notes::default());
    put.is_ok() && (!wants_xattrs || set_mode(mode))
}

fn has_xattr(file: &File, name: &[u8], value: &[u8]) -> bool {
    let name = OsStr::from_bytes(name);
    let mut found = vec![0; value.len()];
    rustix::fs::fgetxattr(file, name, &mut found[..]).is_ok_and(|len| len == value.len() && found == value)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::super::OnExisting;
    use super::super::yard::{Yard, attributes, is_root, meta, path};
    use super::*;

    #[test]
    fn a_file_of_the_same_size_and_time_is_had_and_gets_its_attributes() {
        let yard = Yard::new();
        yard.put("d/a", b"four", OnExisting::Replace).unwrap();
        let same = meta(4, 9).identity;
        let has = |name: &str, identity: &Identity, attributes: &Attributes| {
            yard.store.has(&mut Folders::default(), &path(name), identity, attributes).unwrap() == There::Yes
        };
        let about = || fs::metadata(yard.at("d/a")).unwrap();
        assert!(has("d/a", &same, &attributes(0o644)));
        assert!(has("d/a", &same, &attributes(0o4600)));
        assert_eq!((about().mode() & 0o7777, about().mtime_nsec()), (0o600, 8));
        let mut owned = attributes(0o604);
        owned.owner = Some(if is_root() { (1234, 4321) } else { (about().uid(), about().gid()) });
        owned.xattrs = vec![(b"user.x"[..].into(), b"y"[..].into())];
        assert!(has("d/a", &same, &owned) && has("d/a", &same, &owned));
        assert_eq!((about().mode() & 0o7777, Some((about().uid(), about().gid()))), (0o604, owned.owner));

        let (mut longer, mut later) = (same, same);
        (longer.size, later.mtime.1) = (5, 9);
        fs::create_dir(yard.at("d/folder")).unwrap();
        symlink("a", yard.at("d/link")).unwrap();
        for (name, identity) in
            [("d/a", longer), ("d/a", later), ("d/b", same), ("e/a", same), ("d/a/b", same), ("d/link", same), ("d/folder", same)]
        {
            assert!(!has(name, &identity, &attributes(0o777)), "{name}");
        }
        assert!(!yard.at("e").exists());
        assert_eq!(about().mode() & 0o7777, 0o604);
    }
}
