//! What is kept of an entry beside its content: mode, owner, extended attributes.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::walk::Look;
use crate::entry::{Attributes, Xattr};
use crate::limits::{XATTR_NAME_LEN_MAX, XATTRS_LEN_MAX};
use crate::path::RemotePath;
use crate::progress::Progress;

/// Keeps of an entry what the user wants to be kept.
#[derive(Debug)]
pub(super) struct Keeper<'a> {
    look: &'a Look,
    reader: Reader,
    progress: &'a Progress,
}

impl<'a> Keeper<'a> {
    /// Keeps what `look` says.
    pub(super) fn new(look: &'a Look, progress: &'a Progress) -> Self {
        Self { look, reader: Reader::default(), progress }
    }

    /// What is kept of the entry at `path`, which can be opened if need be.
    pub(super) fn attributes<O: AsFd>(
        &mut self, path: &RemotePath, seen: &Statx, open: impl FnOnce() -> rustix::io::Result<O>,
    ) -> Attributes {
        if !self.look.keeps_metadata {
            return Attributes::default();
        }
        Attributes {
            mode: seen.stx_mode & 0o777,
            owner: self.look.owner.then_some((seen.stx_uid, seen.stx_gid)),
            // Linux allows no `user.*` on symbolic links.
            xattrs: if self.look.xattrs && FileType::from_raw_mode(seen.stx_mode.into()) != FileType::Symlink {
                self.xattrs(path, open)
            } else {
                Vec::new()
            },
        }
    }

    fn xattrs<O: AsFd>(&mut self, path: &RemotePath, open: impl FnOnce() -> rustix::io::Result<O>) -> Vec<Xattr> {
        let read = open().map_err(|error| error.to_string()).and_then(|open| self.reader.read(open));
        read.unwrap_or_else(|why| {
            tracing::warn!("{path}: sent without its extended attributes: {why}");
            self.progress.without_xattrs.add(1);
            Vec::new()
        })
    }
}

/// Reads extended attributes, with buffers that serve one entry after the other.
#[derive(Debug)]
struct Reader {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { names: Vec::with_capacity(XATTRS_LEN_MAX), value: Vec::with_capacity(XATTRS_LEN_MAX) }
    }
}

impl Reader {
    /// Reads those of an open file or folder that are its user's: `user.*`, and `trusted.*` for
    /// root, who alone sees them. What begins with `security.` or `system.` (labels, capabilities,
    /// ACLs) belongs to the machine; a capability is as much a privilege as the set-uid bit, which
    /// is not sent either.
    ///
    /// # Errors
    /// Why they can't be sent, for a person.
    fn read(&mut self, open: impl AsFd) -> Result<Vec<Xattr>, String> {
        self.names.clear();
        match rustix::fs::flistxattr(&open, spare_capacity(&mut self.names)) {
            Ok(_) => {}
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(reason_of(error)),
        }
        let (mut xattrs, mut sum) = (Vec::new(), 0usize);
        for name in self.names.split_inclusive(|&byte| byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
            let bytes = name.to_bytes();
            if !bytes.starts_with(b"user.") && !bytes.starts_with(b"trusted.") {
                continue;
            }
            self.value.clear();
            match rustix::fs::fgetxattr(&open, name, spare_capacity(&mut self.value)) {
                Ok(_) => {}
                // Taken away since it was listed.
                Err(Errno::NODATA) => continue,
                Err(error) => return Err(reason_of(error)),
            }
            sum = sum.saturating_add(bytes.len()).saturating_add(self.value.len());
            if sum > XATTRS_LEN_MAX || bytes.len() > XATTR_NAME_LEN_MAX {
                return Err(too_long());
            }
            xattrs.push((bytes.into(), self.value.as_slice().into()));
        }
        Ok(xattrs)
    }
}

fn reason_of(error: Errno) -> String {
    match error {
        Errno::RANGE | Errno::TOOBIG => too_long(),
        _ => error.to_string(),
    }
}

fn too_long() -> String {
    format!("they are longer than {} KiB", XATTRS_LEN_MAX / 1024)
}

#[cfg(test)]
mod tests {
    use rustix::fs::XattrFlags;

    use super::super::source::{look_at, open_in};
    use super::*;

    #[test]
    fn more_extended_attributes_than_there_is_room_for_are_left_out_with_a_word() {
        let Ok(top) = tempfile::tempdir_in("/dev/shm") else {
            println!("SKIPPED: no /dev/shm");
            return;
        };
        let file = top.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let set = |key: &str, len| rustix::fs::setxattr(&file, key, &vec![b'x'; len], XattrFlags::empty());
        if set("user.a", XATTRS_LEN_MAX - 12).and_then(|()| set("user.b", 0)).is_err() {
            println!("SKIPPED: no large extended attributes in /dev/shm");
            return;
        }
        let look = Look { keeps_metadata: true, xattrs: true, ..Look::default() };
        let progress = Progress::default();
        let mut keeper = Keeper::new(&look, &progress);
        let mut read = || {
            let open = open_in(rustix::fs::CWD, &file).unwrap();
            keeper.attributes(&RemotePath::root(), &look_at(&open).unwrap(), || Ok(&open)).xattrs.len()
        };
        assert_eq!((read(), progress.without_xattrs.sum()), (2, 0));
        set("user.b", 1).unwrap();
        assert_eq!((read(), progress.without_xattrs.sum()), (0, 1));
    }

    #[test]
    fn what_belongs_to_the_machine_is_not_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let set = |key: &str| rustix::fs::setxattr(file.path(), key, b"x", XattrFlags::empty());
        // A capability has a form of its own; any label will do here.
        if set("user.own").and_then(|()| set("security.label")).is_err() {
            println!("SKIPPED: no right to set security attributes here");
            return;
        }
        let (look, progress) = (Look::default(), Progress::default());
        let xattrs = Keeper::new(&look, &progress).reader.read(file.as_file()).unwrap();
        assert_eq!(xattrs, [(b"user.own"[..].into(), b"x"[..].into())]);
    }
}
