//! What is kept of an entry beside its content: mode, owner, extended attributes.

use std::os::fd::AsFd;

use rustix::fs::{FileType, Statx};

use super::walk::Look;
use crate::entry::{Attributes, Xattr};
use crate::path::RemotePath;
use crate::progress::Progress;
use crate::store::XattrReader;

/// Keeps of an entry what the user wants to be kept.
#[derive(Debug)]
pub(super) struct Keeper<'a> {
    look: &'a Look,
    reader: XattrReader,
    progress: &'a Progress,
}

impl<'a> Keeper<'a> {
    /// Keeps what `look` says.
    pub(super) fn new(look: &'a Look, progress: &'a Progress) -> Self {
        Self { look, reader: XattrReader::default(), progress }
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

#[cfg(test)]
mod tests {
    use rustix::fs::XattrFlags;

    use super::super::source::{look_at, open_in};
    use super::*;
    use crate::limits::XATTRS_LEN_MAX;

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
}
