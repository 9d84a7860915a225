//! A source path → entries, one by one; what can't be sent is noted and left out.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::FileType;

use super::entries::Giver;
use super::filter::Filter;
use super::keep::Keeper;
use super::source::{Source, Top, describe_special, look_at};
use super::walker::{Walker, file_kind, reason_of, send_entry};
use crate::entry::{Entry, FileMeta, Kind};
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

/// What an entry's file is now; `None` if it is there no more.
#[must_use]
pub(super) fn look_again(source: &Source, look: &Look, path: &RemotePath, progress: &Progress) -> Option<FileMeta> {
    let file = source.open(path).ok()?;
    let seen = look_at(&file).ok().filter(|seen| FileType::from_raw_mode(seen.stx_mode.into()) == FileType::RegularFile)?;
    let Kind::File { identity, is_sparse } = file_kind(&seen, look) else { return None };
    Some(FileMeta { identity, attributes: Keeper::new(look, progress).attributes(path, &seen, || Ok(file)), is_sparse })
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
            let what = describe_special(FileType::from_raw_mode(metadata.mode()));
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
    pub(super) fn run(self, mut giver: Giver, progress: &Progress) {
        match self {
            Self::Tree(top, look) => drop(Walker::new(&top, &look, giver, progress).run()),
            Self::File(_, name, file, look) => match look_at(&file) {
                Ok(seen) => {
                    let mut keeper = Keeper::new(&look, progress);
                    let attributes = keeper.attributes(&name, &seen, || Ok(file));
                    let _ = send_entry(Entry { path: name, kind: file_kind(&seen, &look), attributes }, &mut giver, progress);
                }
                Err(error) => super::leave_out(progress, &name, &reason_of(error)),
            },
        }
    }
}
