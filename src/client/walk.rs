//! A source path → entries, one by one; what can't be sent is noted and left out.
//!
//! A tree is walked by descriptors, with one statx(2) a name, in half the time that full paths took.
//! Only the folder that is being listed is open, however deep it is.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use crossbeam_channel::Sender;
use rustix::fs::{FileType, RawDir, Statx};
use rustix::io::Errno;

use super::filter::Filter;
use super::links::Links;
use super::source::{Source, Top, describe_special, device_of, identify_seen, look_at, look_in, open_in};
use super::xattrs::Reader;
use crate::entry::{Attributes, Entry, Kind, Time, Xattr};
use crate::limits::{FOLDERS_WAITING_LEN_MAX, LISTING_LEN};
use crate::path::{Escaped, RemotePath};
use crate::progress::Progress;

/// What is looked at in a source.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Is what a tree has beside names and content kept: modes, times, links, holes, and the top
    /// folder's own attributes? If not (protocol v1), symbolic links are named and left out.
    pub keeps_metadata: bool,
    /// Are users and groups kept? Only with `keeps_metadata`.
    pub owner: bool,
    /// Are extended attributes kept? Only with `keeps_metadata`.
    pub xattrs: bool,
    /// Which names of a tree are left out. What the user named is not.
    pub filter: Filter,
}

/// What the user named with `--file`, looked at.
#[derive(Debug)]
pub(super) enum Walk {
    /// A tree: its contents are the entries.
    Tree(Top, Look),
    /// One file, the only entry, with its name.
    File(Source, RemotePath, File, Look),
}

impl Walk {
    /// Looks at what `path` is. A symbolic link named by the user is followed.
    ///
    /// # Errors
    /// It is missing, unreadable, or neither a folder nor a regular file.
    pub(super) fn of(path: &Path, look: Look) -> anyhow::Result<Self> {
        let shown = Escaped::path(path);
        let metadata = path.metadata().with_context(|| format!("can't send '{shown}'"))?;
        if metadata.is_dir() {
            let top = path.canonicalize().and_then(Top::open).with_context(|| format!("can't send folder '{shown}'"))?;
            return Ok(Self::Tree(top, look));
        }
        // The name is the one the user wrote, the file the one it leads to.
        let name = path.file_name().with_context(|| format!("can't send '{shown}': it has no name"))?;
        if !metadata.is_file() {
            let what = describe_special(FileType::from_raw_mode(std::os::unix::fs::MetadataExt::mode(&metadata)));
            bail!("can't send '{shown}': it is {what}; only regular files and folders are sent");
        }
        let name = RemotePath::parse(name.as_bytes()).with_context(|| format!("can't send '{shown}'"))?;
        let source = Source::File(path.canonicalize()?);
        let file = source.open(&name).with_context(|| format!("can't send '{shown}'"))?;
        Ok(Self::File(source, name, file, look))
    }

    /// Where the entries are read from.
    #[must_use]
    pub(super) fn source(&self) -> Source {
        match self {
            Self::Tree(top, _) => Source::Tree(top.clone()),
            Self::File(source, ..) => source.clone(),
        }
    }

    /// Sends all entries, folders before what is in them; ends early when nobody takes them.
    pub(super) fn run(self, entries: &Sender<Entry>, progress: &Progress) {
        match self {
            Self::Tree(top, look) => drop(Walker::new(&top, &look, entries, progress).run()),
            Self::File(_, name, file, look) => match look_at(&file) {
                Ok(seen) => {
                    let mut keeper = Keeper { look: &look, reader: Reader::default(), progress };
                    let attributes = keeper.attributes(&name, &seen, || Ok(file));
                    let _ = send_entry(Entry { path: name, kind: file_kind(&seen, &look), attributes }, entries, progress);
                }
                Err(error) => super::leave_out(progress, &name, &reason_of(error)),
            },
        }
    }
}

/// Nobody takes entries any more: `None` ends the walk.
type Going = Option<()>;

fn send_entry(entry: Entry, entries: &Sender<Entry>, progress: &Progress) -> Going {
    match &entry.kind {
        Kind::File { identity, .. } => {
            progress.found_files.add(1);
            progress.found_bytes.add(identity.size);
        }
        Kind::Symlink { .. } | Kind::HardLink { .. } => progress.found_links.add(1),
        Kind::Directory { .. } => {}
    }
    entries.send(entry).ok()
}

fn file_kind(seen: &Statx, look: &Look) -> Kind {
    const BLOCK_LEN: u64 = 512;
    let is_sparse = look.keeps_metadata && seen.stx_blocks.saturating_mul(BLOCK_LEN) < seen.stx_size;
    Kind::File { identity: identify_seen(seen), is_sparse }
}

fn mtime_of(seen: &Statx) -> Time {
    (seen.stx_mtime.tv_sec, seen.stx_mtime.tv_nsec)
}

/// Keeps of an entry what the user wants to be kept.
struct Keeper<'a> {
    look: &'a Look,
    reader: Reader,
    progress: &'a Progress,
}

impl Keeper<'_> {
    fn attributes<O: AsFd>(
        &mut self, path: &RemotePath, seen: &Statx, open: impl FnOnce() -> rustix::io::Result<O>,
    ) -> Attributes {
        if !self.look.keeps_metadata {
            return Attributes::default();
        }
        Attributes {
            mode: seen.stx_mode & 0o777,
            owner: self.look.owner.then_some((seen.stx_uid, seen.stx_gid)),
            // Linux allows no `user.*` on symbolic links.
            xattrs: if self.look.xattrs && kind_of(seen) != FileType::Symlink { self.xattrs(path, open) } else { Vec::new() },
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

/// A walk through a tree.
struct Walker<'a> {
    top: &'a Top,
    entries: &'a Sender<Entry>,
    progress: &'a Progress,
    keeper: Keeper<'a>,
    links: Links,
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
    fn new(top: &'a Top, look: &'a Look, entries: &'a Sender<Entry>, progress: &'a Progress) -> Self {
        Self {
            top,
            entries,
            progress,
            keeper: Keeper { look, reader: Reader::default(), progress },
            links: Links::default(),
            path: Vec::new(),
            levels: Vec::new(),
            waiting: 0,
            listing: Vec::with_capacity(LISTING_LEN),
        }
    }

    fn run(mut self) -> Going {
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
        if self.path.is_empty() && self.keeper.look.keeps_metadata {
            let path = RemotePath::root();
            let attributes = self.keeper.attributes(&path, &seen, || Ok(&folder));
            // Without it the tree's own top is just the remote folder, which is made by whoever made the job.
            send_entry(
                Entry { path, kind: Kind::Directory { mtime: mtime_of(&seen) }, attributes },
                self.entries,
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
        Some(())
    }

    /// Sends the entry at `path`, which is `name` in `folder`.
    fn look_at(&mut self, folder: &OwnedFd, name: &CStr, listed_as: FileType) -> Going {
        let seen = look_in(folder, name);
        let kind = seen.as_ref().map_or(listed_as, kind_of);
        if self.keeper.look.filter.leaves_out(Path::new(OsStr::from_bytes(&self.path)), kind == FileType::Directory) {
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
                send_entry(Entry { path, kind, attributes }, self.entries, self.progress)
            }
            Err(reason) => {
                super::leave_out(self.progress, &path, &reason);
                Some(())
            }
        }
    }

    /// What is sent for a name, or why nothing is.
    fn describe(&mut self, folder: &OwnedFd, name: &CStr, path: &RemotePath, seen: &Statx) -> Result<Kind, String> {
        let keeps_metadata = self.keeper.look.keeps_metadata;
        match kind_of(seen) {
            FileType::Directory => {
                self.keep_for_later(name, id_of(seen))?;
                Ok(Kind::Directory { mtime: if keeps_metadata { mtime_of(seen) } else { (0, 0) } })
            }
            FileType::RegularFile => {
                let first = if keeps_metadata && seen.stx_nlink > 1 {
                    let (device, inode) = id_of(seen);
                    self.links.meet(device, inode, seen.stx_nlink, path)
                } else {
                    None
                };
                Ok(first.map_or_else(|| file_kind(seen, self.keeper.look), |to| Kind::HardLink { to }))
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

fn reason_of(error: Errno) -> String {
    match error {
        Errno::NOENT => "vanished before it was read".to_owned(),
        error => format!("can't be read: {error}"),
    }
}
