//! What is in a folder, or what something is: looked at and never followed, a part of a list at a time.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{FileType, RawDir, Statx};
use rustix::io::Errno;

use super::attributes::MODE_MASK;
use super::identity::{identify_seen, is_sparse, mtime_of};
use super::source::NOT_THERE;
use super::{Error, Store, XattrReader, folder_refusal, jail, refusal};
use crate::entry::{Attributes, Listed, ListedKind, Xattr};
use crate::limits::{LIST_PAGE_LEN, LIST_PAGE_MAX, LISTED_COST, LISTING_LEN};
use crate::path::{RemotePath, TEMP_PREFIX};

/// What is to be told of a name, beside what it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Details {
    /// Users and groups?
    pub owner: bool,
    /// Extended attributes?
    pub xattrs: bool,
}

impl Store {
    /// Gives what is in a folder to `give`, as many names at once as a part of a list may have. What
    /// vanishes meanwhile is left out. What can't be looked at is, too, and the first of it is the error
    /// once all others were given.
    ///
    /// # Errors
    /// Those of `give`, which end it; within, why not all of the folder could be listed.
    pub fn list(
        &self, path: &RemotePath, details: Details, give: &mut dyn FnMut(Vec<Listed>) -> io::Result<()>,
    ) -> io::Result<Result<(), Error>> {
        let folder = match jail::open_readable(self.root.as_fd(), path.as_path()) {
            Ok(folder) => folder,
            Err(errno) => return Ok(Err(list_refusal(path, errno))),
        };
        let mut looker = Looker::new(folder.as_fd(), path, details);
        let (mut page, mut page_len, mut failed) = (Vec::new(), 0usize, None);
        let mut buffer = Vec::with_capacity(LISTING_LEN);
        let mut names = RawDir::new(&folder, buffer.spare_capacity_mut());
        while let Some(found) = names.next() {
            let found = match found {
                Ok(found) => found,
                Err(errno) => {
                    failed = Some(list_refusal(path, errno));
                    break;
                }
            };
            let name = found.file_name().to_bytes();
            if matches!(name, b"." | b"..") || name.starts_with(TEMP_PREFIX) {
                continue;
            }
            match looker.look(OsStr::from_bytes(name)) {
                Ok(Some(listed)) => {
                    page_len = page_len.saturating_add(cost_of(&listed));
                    page.push(listed);
                }
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
            if page.len() >= LIST_PAGE_MAX || page_len >= LIST_PAGE_LEN {
                page_len = 0;
                give(std::mem::take(&mut page))?;
            }
        }
        if !page.is_empty() {
            give(page)?;
        }
        Ok(failed.map_or(Ok(()), Err))
    }

    /// What has this very name; `None` where nothing has.
    ///
    /// # Errors
    /// It is below a link or something else that is no folder, or the system said no.
    pub fn look(&self, path: &RemotePath, details: Details) -> Result<Option<Listed>, Error> {
        let Some((above, name)) = path.split() else {
            return Looker::new(self.root.as_fd(), path, details).look(OsStr::new(".")).map(without_name);
        };
        match jail::open_directory(self.root.as_fd(), &above) {
            Ok(folder) => Looker::new(folder.as_fd(), &above, details).look(name).map(without_name),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(folder_refusal(&above, "open", errno)),
        }
    }
}

fn without_name(listed: Option<Listed>) -> Option<Listed> {
    listed.map(|listed| Listed { name: Box::default(), ..listed })
}

fn list_refusal(path: &RemotePath, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::Refused { path: path.clone(), what: NOT_THERE },
        errno => folder_refusal(path, "list", errno),
    }
}

/// Bytes that a name takes in a part of a list, or some more.
fn cost_of(listed: &Listed) -> usize {
    let target_len = if let ListedKind::Symlink { target, .. } = &listed.kind { target.len() } else { 0 };
    let xattr_len = |(name, value): &Xattr| name.len().saturating_add(value.len()).saturating_add(4);
    let xattrs_len = listed.attributes.xattrs.iter().map(xattr_len).fold(0, usize::saturating_add);
    [listed.name.len(), target_len, xattrs_len].into_iter().fold(LISTED_COST, usize::saturating_add)
}

/// Looks at one name after the other of a folder.
struct Looker<'a> {
    folder: BorrowedFd<'a>,
    path: &'a RemotePath,
    details: Details,
    reader: Option<XattrReader>,
    /// Was it said that some are listed without extended attributes?
    has_warned: bool,
}

impl<'a> Looker<'a> {
    fn new(folder: BorrowedFd<'a>, path: &'a RemotePath, details: Details) -> Self {
        Self { folder, path, details, reader: details.xattrs.then(XattrReader::default), has_warned: false }
    }

    /// What has a name; `None` where nothing has by now.
    fn look(&mut self, name: &OsStr) -> Result<Option<Listed>, Error> {
        let seen = match jail::look(self.folder, name) {
            Ok(seen) => seen,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(refusal(&self.path_of(name), "look at", errno)),
        };
        let file_type = FileType::from_raw_mode(seen.stx_mode.into());
        let mtime = mtime_of(&seen);
        let kind = match file_type {
            FileType::Directory => ListedKind::Directory { mtime },
            FileType::RegularFile => {
                ListedKind::File { identity: identify_seen(&seen), is_sparse: is_sparse(&seen), names: seen.stx_nlink }
            }
            FileType::Symlink => match rustix::fs::readlinkat(self.folder, name, Vec::new()) {
                Ok(target) => ListedKind::Symlink { target: target.into_bytes().into(), mtime },
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(refusal(&self.path_of(name), "read", errno)),
            },
            _ => ListedKind::Special { mtime },
        };
        let attributes = Attributes {
            mode: seen.stx_mode & MODE_BITS,
            owner: self.details.owner.then_some((seen.stx_uid, seen.stx_gid)),
            xattrs: self.xattrs(name, &seen),
        };
        Ok(Some(Listed { name: name.as_bytes().into(), kind, attributes }))
    }

    fn xattrs(&mut self, name: &OsStr, seen: &Statx) -> Vec<Xattr> {
        let Some(reader) = &mut self.reader else { return Vec::new() };
        // Linux allows no `user.*` on others.
        if !matches!(FileType::from_raw_mode(seen.stx_mode.into()), FileType::RegularFile | FileType::Directory) {
            return Vec::new();
        }
        let opened = jail::open_child_file(self.folder, name).map_err(|errno| errno.to_string());
        opened.and_then(|file| reader.read(file)).unwrap_or_else(|why| {
            if !std::mem::replace(&mut self.has_warned, true) {
                tracing::warn!("{}: listed without its extended attributes, as others here may be: {why}", self.path_of(name));
            }
            Vec::new()
        })
    }

    /// Where a name is; its folder where that would be too long.
    fn path_of(&self, name: &OsStr) -> RemotePath {
        let below = RemotePath::parse(name.as_bytes()).and_then(|name| self.path.join(&name));
        below.unwrap_or_else(|_| self.path.clone())
    }
}

/// Of [`MODE_MASK`], as `statx(2)` has them.
const MODE_BITS: u16 = MODE_MASK as u16;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may make files")]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use rustix::fs::{CWD, Mode, XattrFlags};

    use super::super::identify;
    use super::super::yard::{Yard, is_root, path};
    use super::*;

    const ALL: Details = Details { owner: true, xattrs: true };

    fn list(yard: &Yard, path: &RemotePath, details: Details) -> (Vec<Listed>, Result<(), Error>) {
        let mut all = Vec::new();
        let ended = yard.store.list(path, details, &mut |page| {
            assert!(page.len() <= LIST_PAGE_MAX);
            all.extend(page);
            Ok(())
        });
        all.sort_by(|one, other| one.name.cmp(&other.name));
        (all, ended.unwrap())
    }

    // C09 C17
    #[test]
    fn every_kind_is_listed_as_it_is() {
        let yard = Yard::new();
        fs::create_dir(yard.at("folder")).unwrap();
        fs::write(yard.at("file"), "content").unwrap();
        fs::hard_link(yard.at("file"), yard.at("twin")).unwrap();
        fs::set_permissions(yard.at("file"), Permissions::from_mode(0o4751)).unwrap();
        fs::File::create(yard.at("holes")).unwrap().set_len(1 << 40).unwrap();
        symlink("no/where", yard.at("link")).unwrap();
        fs::write(yard.at(".ptf-0123"), "").unwrap();
        rustix::fs::mknodat(CWD, yard.at("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let has_xattrs = rustix::fs::setxattr(yard.at("file"), "user.a", b"x", XattrFlags::empty()).is_ok();
        let (all, ended) = list(&yard, &RemotePath::root(), ALL);
        ended.unwrap();
        let names: Vec<_> = all.iter().map(|listed| String::from_utf8_lossy(&listed.name).into_owned()).collect();
        assert_eq!(names, ["fifo", "file", "folder", "holes", "link", "twin"]);
        for listed in &all {
            let about = fs::symlink_metadata(yard.at(OsStr::from_bytes(&listed.name))).unwrap();
            let seen_mtime = (about.mtime(), u32::try_from(about.mtime_nsec()).unwrap());
            match &listed.kind {
                ListedKind::File { identity, is_sparse, names } => {
                    assert_eq!(*identity, identify(&about));
                    assert_eq!(*is_sparse, *listed.name == *b"holes");
                    assert_eq!(u64::from(*names), about.nlink());
                }
                ListedKind::Symlink { target, mtime } => assert_eq!((&**target, *mtime), (&b"no/where"[..], seen_mtime)),
                ListedKind::Directory { mtime } | ListedKind::Special { mtime } => assert_eq!(*mtime, seen_mtime),
            }
            assert_eq!(u32::from(listed.attributes.mode), about.mode() & 0o777);
            assert_eq!(listed.attributes.owner, Some((about.uid(), about.gid())));
            assert_eq!(listed.attributes.xattrs.len(), usize::from(has_xattrs && about.nlink() == 2 && about.is_file()));
            let itself = yard.store.look(&path(&*listed.name), ALL).unwrap().unwrap();
            assert_eq!(itself, Listed { name: Box::default(), ..listed.clone() });
        }
        let (plain, _) = list(&yard, &RemotePath::root(), Details::default());
        assert!(plain.iter().all(|listed| listed.attributes.owner.is_none() && listed.attributes.xattrs.is_empty()));
        let root = yard.store.look(&RemotePath::root(), Details::default()).unwrap().unwrap();
        assert!(root.name.is_empty() && matches!(root.kind, ListedKind::Directory { .. }));
        assert_eq!(list(&yard, &path("folder"), ALL).0, []);
    }

    // C03
    #[test]
    fn no_link_is_followed() {
        let yard = Yard::new();
        fs::create_dir_all(yard.at("real/below")).unwrap();
        symlink("../out", yard.at("out")).unwrap();
        symlink("real", yard.at("in")).unwrap();
        fs::create_dir(yard.outside("below")).unwrap();
        for name in ["out", "in"] {
            let is_link = format!("{name} is a symbolic link, or below one");
            assert_eq!(list(&yard, &path(name), ALL).1.unwrap_err().to_string(), is_link);
            let below = path(format!("{name}/below"));
            assert!(list(&yard, &below, ALL).1.unwrap_err().to_string().contains("a symbolic link"));
            assert_eq!(yard.store.look(&below, ALL).unwrap_err().to_string(), is_link);
            assert!(matches!(yard.store.look(&path(name), ALL).unwrap().unwrap().kind, ListedKind::Symlink { .. }));
        }
        assert_eq!(list(&yard, &path("missing"), ALL).1.unwrap_err().to_string(), "missing is not there");
        assert_eq!(yard.store.look(&path("missing/x"), ALL).unwrap(), None);
    }

    // C15
    #[test]
    fn what_can_not_be_looked_at_is_named() {
        let yard = Yard::new();
        fs::create_dir_all(yard.at("d/x")).unwrap();
        if is_root() {
            println!("SKIPPED C15: root may look at anything");
            return;
        }
        for (mode, why) in [(0o000, "can't list d: "), (0o400, "can't look at d/x: ")] {
            fs::set_permissions(yard.at("d"), Permissions::from_mode(mode)).unwrap();
            let refused = list(&yard, &path("d"), ALL).1.unwrap_err().to_string();
            assert!(refused.starts_with(why), "{refused}");
        }
        fs::set_permissions(yard.at("d"), Permissions::from_mode(0o700)).unwrap();
    }

    // C19
    #[test]
    fn a_list_comes_in_parts() {
        let yard = Yard::new();
        for index in 0..2000 {
            symlink("t".repeat(if index < 100 { 4000 } else { 1 }), yard.at(index.to_string())).unwrap();
        }
        let mut parts = Vec::new();
        let ended = yard.store.list(&RemotePath::root(), ALL, &mut |page| {
            parts.push((page.len(), page.iter().map(cost_of).sum::<usize>()));
            Ok(())
        });
        ended.unwrap().unwrap();
        assert_eq!(parts.iter().map(|(count, _)| count).sum::<usize>(), 2000);
        assert!(parts.iter().all(|(count, len)| *count <= LIST_PAGE_MAX && *len < LIST_PAGE_LEN + 4500), "{parts:?}");
        // Whoever takes no more ends it.
        let mut given = 0;
        let ended = yard.store.list(&RemotePath::root(), ALL, &mut |_| {
            given += 1;
            Err(io::ErrorKind::BrokenPipe.into())
        });
        assert_eq!((given, ended.unwrap_err().kind()), (1, io::ErrorKind::BrokenPipe));
    }
}
