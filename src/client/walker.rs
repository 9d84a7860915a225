//! A walk through a tree, folder by folder.
//!
//! It goes by descriptors, with one statx(2) a name, for a third less CPU than full paths took, and
//! half in deep trees. Only the folder that is being listed is open, however deep it is.

use std::ffi::{CStr, OsStr};
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{FileType, RawDir, Statx};
use rustix::io::Errno;

use super::entries::Giver;
use super::keep::Keeper;
use super::links::Links;
use super::source::{Top, describe_special, look_at, look_in, open_in};
use super::walk::Look;
use crate::entry::{Attributes, Entry, Kind};
use crate::limits::{FOLDERS_WAITING_LEN_MAX, LISTING_LEN};
use crate::path::{Escaped, RemotePath};
use crate::progress::Progress;
use crate::store::{device_of, identify_seen, is_sparse, mtime_of};

/// Nobody takes entries any more: `None` ends the walk.
pub(super) type Going = Option<()>;

/// A walk through a tree.
pub(super) struct Walker<'a> {
    top: &'a Top,
    look: &'a Look,
    giver: Giver,
    progress: &'a Progress,
    keeper: Keeper<'a>,
    links: Links<(u64, u64)>,
    /// The name that is being looked at, below the top.
    path: Vec<u8>,
    /// The folders that lead to it, the top first.
    levels: Vec<Level>,
    /// Bytes of names that wait in all levels.
    waiting: usize,
    listing: Vec<u8>,
}

/// A folder that was listed, with the folders in it that are still to be listed.
struct Level {
    /// Device and inode.
    id: (u64, u64),
    /// Where its path ends in that of its contents.
    path_len: usize,
    /// Their names, each with its NUL.
    names: Vec<u8>,
    next: usize,
}

impl Level {
    fn next_name(&mut self) -> Option<&[u8]> {
        let rest = self.names.get(self.next..)?;
        let len = rest.iter().position(|&byte| byte == 0)?;
        self.next += len + 1;
        rest.get(..len)
    }
}

impl<'a> Walker<'a> {
    /// A walk through `top` that has not begun.
    pub(super) fn new(top: &'a Top, look: &'a Look, giver: Giver, progress: &'a Progress) -> Self {
        Self {
            top,
            look,
            giver,
            progress,
            keeper: Keeper::new(look, progress),
            links: Links::default(),
            path: Vec::new(),
            levels: Vec::new(),
            waiting: 0,
            listing: Vec::with_capacity(LISTING_LEN),
        }
    }

    /// Sends all entries, folders before what is in them.
    pub(super) fn run(mut self) -> Going {
        self.enter()?;
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_len);
            match level.next_name() {
                Some(name) => {
                    push_name(&mut self.path, name);
                    self.enter()?;
                }
                None => {
                    self.waiting -= level.names.len();
                    self.levels.pop();
                }
            }
        }
        Some(())
    }

    /// Lists the folder at `path` and sends what is in it; that of its folders comes later.
    fn enter(&mut self) -> Going {
        let path = if self.path.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(&self.path)) };
        let opened = self.top.open_folder(path).and_then(|folder| look_at(&folder).map(|seen| (folder, seen)));
        let (folder, seen) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.fail(&reason_of(error));
                return Some(());
            }
        };
        if self.path.is_empty() && self.look.keeps_metadata {
            let path = RemotePath::root();
            let attributes = self.keeper.attributes(&path, &seen, || Ok(&folder));
            // Without it the tree's own top is just the remote folder, which is made by whoever made the job.
            send_entry(
                Entry { path, kind: Kind::Directory { mtime: mtime_of(&seen) }, attributes },
                &mut self.giver,
                self.progress,
            )?;
        }
        self.levels.push(Level { id: id_of(&seen), path_len: self.path.len(), names: Vec::new(), next: 0 });
        let mut listing = mem::take(&mut self.listing);
        let going = self.list(&folder, &mut RawDir::new(&folder, listing.spare_capacity_mut()));
        self.listing = listing;
        going
    }

    fn list(&mut self, folder: &OwnedFd, names: &mut RawDir<'_, &OwnedFd>) -> Going {
        while let Some(found) = names.next() {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    self.fail(&reason_of(error));
                    break;
                }
            };
            if matches!(found.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let path_len = self.path.len();
            push_name(&mut self.path, found.file_name().to_bytes());
            self.look_at(folder, found.file_name(), found.file_type())?;
            self.path.truncate(path_len);
        }
        self.giver.flush()
    }

    /// Sends the entry at `path`, which is `name` in `folder`.
    fn look_at(&mut self, folder: &OwnedFd, name: &CStr, listed_as: FileType) -> Going {
        let seen = look_in(folder, name);
        let kind = seen.as_ref().map_or(listed_as, kind_of);
        if self.look.filter.leaves_out(Path::new(OsStr::from_bytes(&self.path)), kind == FileType::Directory) {
            self.progress.excluded.add(1);
            return Some(());
        }
        let path = match RemotePath::parse(&self.path) {
            Ok(path) => path,
            Err(error) => {
                self.fail_unnamed(&error.to_string());
                return Some(());
            }
        };
        let described =
            seen.map_err(reason_of).and_then(|seen| self.describe(folder, name, &path, &seen).map(|kind| (kind, seen)));
        match described {
            Ok((kind, seen)) => {
                let attributes = match kind {
                    // They are the file's, and came with its first name.
                    Kind::HardLink { .. } => Attributes::default(),
                    _ => self.keeper.attributes(&path, &seen, || open_in(folder, name)),
                };
                send_entry(Entry { path, kind, attributes }, &mut self.giver, self.progress)
            }
            Err(reason) => {
                super::leave_out(self.progress, &path, &reason);
                Some(())
            }
        }
    }

    /// What is sent for a name, or why nothing is.
    fn describe(&mut self, folder: &OwnedFd, name: &CStr, path: &RemotePath, seen: &Statx) -> Result<Kind, String> {
        let keeps_metadata = self.look.keeps_metadata;
        match kind_of(seen) {
            FileType::Directory => {
                self.keep_for_later(name, id_of(seen))?;
                Ok(Kind::Directory { mtime: if keeps_metadata { mtime_of(seen) } else { (0, 0) } })
            }
            FileType::RegularFile => {
                let first =
                    if keeps_metadata && seen.stx_nlink > 1 { self.links.meet(id_of(seen), seen.stx_nlink, path) } else { None };
                Ok(first.map_or_else(|| file_kind(seen, self.look), |to| Kind::HardLink { to }))
            }
            FileType::Symlink if keeps_metadata => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new()).map_err(reason_of)?;
                Ok(Kind::Symlink { target: target.into_bytes().into(), mtime: mtime_of(seen) })
            }
            special => Err(format!("left out: {}", describe_special(special))),
        }
    }

    /// Notes a folder in the one that is being listed.
    fn keep_for_later(&mut self, name: &CStr, id: (u64, u64)) -> Result<(), String> {
        if self.levels.iter().any(|level| level.id == id) {
            return Err("left out: a folder that it is in is mounted on it".to_owned());
        }
        let name = name.to_bytes_with_nul();
        let waiting = self.waiting.saturating_add(name.len());
        if waiting > FOLDERS_WAITING_LEN_MAX {
            return Err("left out: too many folders side by side".to_owned());
        }
        let level = self.levels.last_mut().ok_or("left out: it is in no folder")?;
        level.names.extend_from_slice(name);
        self.waiting = waiting;
        Ok(())
    }

    /// Notes that the folder at `path` could not be listed, or not to its end.
    fn fail(&self, reason: &str) {
        match RemotePath::parse_loosely(&self.path) {
            Ok(path) => super::leave_out(self.progress, &path, reason),
            Err(_) => self.fail_unnamed(reason),
        }
    }

    /// Notes an entry whose very path can't be sent: it is too long, say.
    fn fail_unnamed(&self, reason: &str) {
        let shown = self.top.path().join(OsStr::from_bytes(&self.path));
        super::leave_out(self.progress, &RemotePath::root(), &format!("left out: '{}': {reason}", Escaped::path(&shown)));
    }
}

/// Counts an entry and sends it.
pub(super) fn send_entry(entry: Entry, giver: &mut Giver, progress: &Progress) -> Going {
    match &entry.kind {
        Kind::File { identity, .. } => {
            progress.found_files.add(1);
            progress.found_bytes.add(identity.size);
        }
        Kind::Symlink { .. } | Kind::HardLink { .. } => progress.found_links.add(1),
        Kind::Directory { .. } => {}
    }
    giver.give(entry)
}

/// A regular file as it was seen.
pub(super) fn file_kind(seen: &Statx, look: &Look) -> Kind {
    Kind::File { identity: identify_seen(seen), is_sparse: look.keeps_metadata && is_sparse(seen) }
}

fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn kind_of(seen: &Statx) -> FileType {
    FileType::from_raw_mode(seen.stx_mode.into())
}

fn id_of(seen: &Statx) -> (u64, u64) {
    (device_of(seen), seen.stx_ino)
}

/// Why a name can't be sent, for a person.
pub(super) fn reason_of(error: Errno) -> String {
    match error {
        Errno::NOENT => "vanished before it was read".to_owned(),
        error => format!("can't be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use rustix::fs::{CWD, Mode, XattrFlags};
    use tempfile::TempDir;

    use super::super::filter::{Filter, Rule};
    use super::super::walk::Walk;
    use super::*;
    use crate::client::entries::channel_of;
    use crate::store::identify;

    /// All entries in their order, and those left out with their reasons.
    struct Walked {
        entries: Vec<Entry>,
        progress: Progress,
    }

    impl Walked {
        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = self.entries.iter().map(|entry| entry.path.to_string()).collect();
            names.sort();
            names
        }

        fn entry(&self, name: &str) -> &Entry {
            self.entries.iter().find(|entry| entry.path.to_string() == name).unwrap_or_else(|| panic!("{name} is missing"))
        }

        fn is_file(&self, name: &str) -> bool {
            matches!(self.entry(name).kind, Kind::File { .. })
        }

        fn reason(&self, name: &str) -> String {
            let failures = self.progress.failures();
            let failure = failures.iter().find(|failure| failure.path.to_string() == name);
            failure.unwrap_or_else(|| panic!("{name} is not among {failures:?}")).reason.clone()
        }
    }

    fn keep() -> Look {
        Look { keeps_metadata: true, ..Look::default() }
    }

    fn walk(path: &Path, look: Look) -> Walked {
        let (giver, mut entries) = channel_of(10_000, 1);
        let progress = Progress::default();
        Walk::of(path, look).unwrap().run(giver, &progress);
        Walked { entries: std::iter::from_fn(|| entries.next()).collect(), progress }
    }

    fn tree(files: &[&str]) -> TempDir {
        let top = TempDir::new().unwrap();
        for file in files {
            fs::create_dir_all(top.path().join(file).parent().unwrap()).unwrap();
            fs::write(top.path().join(file), file).unwrap();
        }
        top
    }

    #[test]
    fn every_kind_is_an_entry_and_parents_come_first() {
        let top = tree(&["a/b/file", "empty/x", "void"]);
        let at = |name: &str| top.path().join(name);
        fs::remove_file(at("empty/x")).unwrap();
        fs::write(at("void"), "").unwrap();
        symlink(OsStr::from_bytes(b"to/\xff/nowhere"), at("a/link")).unwrap();
        fs::set_permissions(at("a/b/file"), Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(at("a"), Permissions::from_mode(0o1770)).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        rustix::fs::mknodat(CWD, at("a/fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();

        let walked = walk(top.path(), keep());
        assert_eq!(walked.names(), [".", "a", "a/b", "a/b/file", "a/link", "empty", "void"]);
        assert!(walked.entries[0].path.is_root(), "the top comes first");
        for (index, entry) in walked.entries.iter().enumerate().skip(1) {
            let (parent, _) = entry.path.split().unwrap();
            assert!(walked.entries[..index].iter().any(|before| before.path == parent), "{} comes before its folder", entry.path);
        }
        // C09, C17
        assert_eq!(walked.progress.failed(), 2);
        assert_eq!((&*walked.reason("socket"), &*walked.reason("a/fifo")), ("left out: a socket", "left out: a FIFO"));
        assert_eq!((walked.entry("a/b/file").attributes.mode, walked.entry("a").attributes.mode), (0o751, 0o770));

        for name in [".", "a", "a/b"] {
            let metadata = at(name).metadata().unwrap();
            let mtime = (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap());
            assert_eq!(walked.entry(name).kind, Kind::Directory { mtime });
        }
        let identity = identify(&at("a/b/file").metadata().unwrap());
        assert_eq!(walked.entry("a/b/file").kind, Kind::File { identity, is_sparse: false });
        let Kind::Symlink { target, .. } = &walked.entry("a/link").kind else { panic!("no link") };
        assert_eq!(&**target, b"to/\xff/nowhere");
        let sums = (walked.progress.found_files.sum(), walked.progress.found_bytes.sum(), walked.progress.found_links.sum());
        assert_eq!(sums, (2, 8, 1));

        let without = walk(top.path(), Look::default());
        assert_eq!(without.names(), ["a", "a/b", "a/b/file", "empty", "void"]);
        assert_eq!(without.reason("a/link"), "left out: a symbolic link");
        assert!(without.entries.iter().all(|entry| entry.attributes == Attributes::default()));
        assert_eq!(without.entry("a").kind, Kind::Directory { mtime: (0, 0) });
    }

    #[test]
    fn a_file_alone_is_the_only_entry_under_the_name_it_was_given() {
        let top = tree(&["file"]);
        symlink("file", top.path().join("alias")).unwrap();
        fs::hard_link(top.path().join("file"), top.path().join("other")).unwrap();
        let rules = Filter::of(&[Rule::Exclude("*".to_owned())]).unwrap();
        let walked = walk(&top.path().join("alias"), Look { owner: true, filter: rules, ..keep() });
        assert_eq!(walked.names(), ["alias"]);
        let identity = identify(&top.path().join("file").metadata().unwrap());
        assert_eq!(walked.entries[0].kind, Kind::File { identity, is_sparse: false });
        assert!(walked.entries[0].attributes.mode != 0 && walked.entries[0].attributes.owner.is_some());
    }

    #[test]
    fn further_names_of_a_file_are_links_to_the_first() {
        let (top, outside) = (tree(&["a/one", "b/x", "two", "single"]), TempDir::new().unwrap());
        let at = |name: &str| top.path().join(name);
        for name in ["a/same", "b/same", "c"] {
            fs::hard_link(at("a/one"), at(name)).unwrap();
        }
        fs::hard_link(at("two"), outside.path().join("elsewhere")).unwrap();
        fs::hard_link(at("two"), at("b/two")).unwrap();
        let walked = walk(top.path(), keep());
        for names in [&["a/one", "a/same", "b/same", "c"][..], &["two", "b/two"]] {
            let (files, links): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| walked.is_file(name));
            assert_eq!(files.len(), 1);
            let order = |name: &str| walked.entries.iter().position(|entry| entry.path.to_string() == name);
            for link in links {
                assert_eq!(walked.entry(link).kind, Kind::HardLink { to: walked.entry(files[0]).path.clone() });
                assert!(order(files[0]) < order(link));
            }
        }
        assert!(walked.is_file("single"));
        assert_eq!((walked.progress.found_files.sum(), walked.progress.found_links.sum()), (4, 4));
        // Where links can't be kept, each name is a file.
        assert_eq!(walk(top.path(), Look::default()).progress.found_files.sum(), 8);
        // A name that is left out is not the first one.
        let rules = Filter::of(&[Rule::Exclude("/a/".to_owned()), Rule::Exclude("/c".to_owned())]).unwrap();
        assert!(walk(top.path(), Look { filter: rules, ..keep() }).is_file("b/same"));
    }

    // C19
    #[test]
    fn a_file_with_holes_is_sparse() {
        let top = tree(&["dense", "void"]);
        fs::write(top.path().join("void"), "").unwrap();
        fs::write(top.path().join("dense"), vec![7; 100_000]).unwrap();
        assert!(Command::new("sync").arg(top.path().join("dense")).status().unwrap().success());
        assert!(Command::new("truncate").args(["-s", "1T"]).arg(top.path().join("holes")).status().unwrap().success());
        let walked = walk(top.path(), keep());
        for (name, sparse) in [("dense", false), ("void", false), ("holes", true)] {
            let Kind::File { is_sparse, .. } = walked.entry(name).kind else { panic!("{name} is no file") };
            assert_eq!(is_sparse, sparse, "{name}");
        }
    }

    // C22
    #[test]
    fn links_are_not_followed_and_a_folder_that_may_not_be_read_is_named() {
        let top = tree(&["d/file", "locked/x"]);
        symlink("..", top.path().join("d/up")).unwrap();
        symlink("self", top.path().join("self")).unwrap();
        symlink("/", top.path().join("outside")).unwrap();
        let walked = walk(top.path(), keep());
        assert_eq!(walked.names(), [".", "d", "d/file", "d/up", "locked", "locked/x", "outside", "self"]);
        assert_eq!(walked.progress.failed(), 0);
        if rustix::process::geteuid().is_root() {
            println!("SKIPPED C22: root may read any folder");
            return;
        }
        fs::set_permissions(top.path().join("locked"), Permissions::from_mode(0o000)).unwrap();
        let walked = walk(top.path(), keep());
        assert_eq!(walked.names(), [".", "d", "d/file", "d/up", "locked", "outside", "self"]);
        assert!(walked.reason("locked").starts_with("can't be read: "));
        fs::set_permissions(top.path().join("locked"), Permissions::from_mode(0o700)).unwrap();
    }

    // C20
    #[test]
    fn what_vanishes_is_named_and_what_became_a_link_is_not_followed() {
        let files: Vec<String> = (0..50).map(|index| format!("f{index}")).collect();
        let top = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
        let other = tree(&["secret"]);
        for name in ["gone", "swapped"] {
            fs::create_dir(top.path().join(name)).unwrap();
        }
        let progress = Progress::default();
        let (giver, mut entries) = channel_of(1, 1);
        let walk = Walk::of(top.path(), keep()).unwrap();
        let source = walk.source();
        let taken: Vec<Entry> = std::thread::scope(|scope| {
            scope.spawn(|| walk.run(giver, &progress));
            let first = entries.next().unwrap();
            while entries.is_empty() {
                std::thread::yield_now();
            }
            // The walk waits for room now, with most names listed and not yet looked at.
            for name in &files {
                fs::remove_file(top.path().join(name)).unwrap();
            }
            for name in ["gone", "swapped"] {
                fs::remove_dir(top.path().join(name)).unwrap();
            }
            symlink(other.path(), top.path().join("swapped")).unwrap();
            std::iter::once(first).chain(std::iter::from_fn(|| entries.next())).collect()
        });
        assert!(progress.failures().iter().filter(|failure| failure.reason == "vanished before it was read").count() > 40);
        assert!(taken.iter().all(|entry| !entry.path.to_string().contains("secret")), "{taken:?}");
        let through_link = RemotePath::parse(b"swapped/secret").unwrap();
        assert_eq!(Errno::from_io_error(&source.open(&through_link).unwrap_err()), Some(Errno::LOOP));
    }

    // C10
    #[test]
    fn a_path_too_long_is_named_and_one_below_a_long_path_is_read() {
        let top = tempfile::Builder::new().prefix(&"t".repeat(200)).tempdir().unwrap();
        let name = "n".repeat(250);
        let mut folder = rustix::fs::open(top.path(), rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
        for depth in 0..17 {
            // With 16 names and a file, 4095 bytes below the top and more than one call takes above it.
            let file = if depth < 16 { "f".to_owned() } else { "f".repeat(4095 - 16 * 251) };
            drop(rustix::fs::openat(&folder, &*file, rustix::fs::OFlags::CREATE, Mode::RWXU).unwrap());
            rustix::fs::mkdirat(&folder, &*name, Mode::RWXU).unwrap();
            folder = rustix::fs::openat(&folder, &*name, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let walk_of = Walk::of(top.path(), keep()).unwrap();
        let source = walk_of.source();
        let walked = walk(top.path(), keep());
        assert_eq!(walked.progress.found_files.sum(), 17);
        let longest = walked.entries.iter().max_by_key(|entry| entry.path.as_bytes().len()).unwrap();
        assert_eq!(longest.path.as_bytes().len(), 4095);
        source.open(&longest.path).unwrap();
        assert_eq!(walked.progress.failed(), 1);
        assert!(walked.reason(".").contains(&name) && walked.reason(".").contains("longer than 4095 bytes"));
        assert!(Command::new("rm").arg("-rf").arg(top.path()).status().unwrap().success());
    }

    // C10
    #[test]
    fn a_deep_tree_is_walked_to_its_end() {
        let top = TempDir::new().unwrap();
        let mut path = top.path().to_path_buf();
        for depth in 0..300 {
            path.push(format!("d{depth}"));
        }
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        let walked = walk(top.path(), keep());
        assert_eq!((walked.entries.len(), walked.progress.failed()), (302, 0));
    }

    // C12
    #[test]
    fn names_that_are_not_utf_8_are_kept_and_rules_match_them() {
        let top = tree(&["plain"]);
        for name in [&b"latin-\xe9.tmp"[..], b"latin-\xe9", b"\xff\xfe"] {
            fs::create_dir(top.path().join(OsStr::from_bytes(name))).unwrap();
        }
        assert_eq!(walk(top.path(), keep()).names(), [".", "\\xff\\xfe", "latin-\\xe9", "latin-\\xe9.tmp", "plain"]);
        let rules = Filter::of(&["*.tmp".to_owned(), "latin-?".to_owned()].map(Rule::Exclude)).unwrap();
        let walked = walk(top.path(), Look { filter: rules, ..keep() });
        assert_eq!(walked.names(), [".", "\\xff\\xfe", "plain"]);
        assert_eq!((walked.progress.excluded.sum(), walked.progress.failed()), (2, 0));
    }

    #[test]
    fn owners_and_extended_attributes_are_kept_when_asked_for() {
        let top = tree(&["d/file", "d/plain"]);
        symlink("file", top.path().join("d/link")).unwrap();
        let set = |name: &str, key: &str, value: &[u8]| {
            let path = top.path().join(name);
            rustix::fs::setxattr(&path, key, value, XattrFlags::empty())
        };
        let has_xattrs = set("d/file", "user.\u{e9}", b"\0value\xff").and_then(|()| set("d", "user.empty", b"")).is_ok();
        let all = walk(top.path(), Look { owner: true, xattrs: true, ..keep() });
        for name in [".", "d", "d/file", "d/plain", "d/link"] {
            let metadata = top.path().join(name).symlink_metadata().unwrap();
            assert_eq!(all.entry(name).attributes.owner, Some((metadata.uid(), metadata.gid())), "{name}");
        }
        assert_eq!(all.progress.without_xattrs.sum(), 0);
        let none = walk(top.path(), keep());
        assert!(none.entries.iter().all(|entry| entry.attributes.owner.is_none() && entry.attributes.xattrs.is_empty()));
        if !has_xattrs {
            println!("SKIPPED: no extended attributes on this file system");
            return;
        }
        let of = |name: &str| all.entry(name).attributes.xattrs.clone();
        assert_eq!(of("d/file"), [("user.\u{e9}".as_bytes().into(), b"\0value\xff"[..].into())]);
        assert_eq!(of("d"), [(b"user.empty"[..].into(), Box::default())]);
        assert!(of("d/plain").is_empty() && of(".").is_empty() && of("d/link").is_empty());
    }

    #[test]
    fn a_walk_ends_when_nobody_takes_entries() {
        let top = tree(&["a/b", "c"]);
        let (giver, entries) = channel_of(1, 1);
        drop(entries);
        Walk::of(top.path(), keep()).unwrap().run(giver, &Progress::default());
    }
}
