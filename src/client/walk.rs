//! A source path → entries, one by one; what can't be sent is noted and left out.

use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use crossbeam_channel::Sender;
use walkdir::WalkDir;

use super::source::{Source, describe_special, identify};
use crate::entry::{Attributes, Entry, Kind};
use crate::path::{Escaped, RemotePath};
use crate::progress::Progress;

/// What the user named with `--file`, looked at.
#[derive(Debug)]
pub(super) enum Walk {
    /// A tree: its contents are the entries.
    Tree(PathBuf),
    /// One file: the only entry.
    File(Source, Entry),
}

impl Walk {
    /// Looks at what `path` is. A symbolic link named by the user is followed.
    ///
    /// # Errors
    /// It is missing, unreadable, or neither a folder nor a regular file.
    pub(super) fn of(path: &Path) -> anyhow::Result<Self> {
        let shown = Escaped::path(path);
        let metadata = path.metadata().with_context(|| format!("can't send '{shown}'"))?;
        if metadata.is_dir() {
            std::fs::read_dir(path).with_context(|| format!("can't send folder '{shown}'"))?;
            return Ok(Self::Tree(path.canonicalize()?));
        }
        if !metadata.is_file() {
            bail!("can't send '{shown}': it is {}; only regular files and folders are sent", describe_special(&metadata));
        }
        // The name is the one the user wrote, the file the one it leads to.
        let name = path.file_name().with_context(|| format!("can't send '{shown}': it has no name"))?;
        let name = RemotePath::parse(name.as_bytes()).with_context(|| format!("can't send '{shown}'"))?;
        let source = Source::File(path.canonicalize()?);
        source.open(&name).with_context(|| format!("can't send '{shown}'"))?;
        Ok(Self::File(source, file_entry(name, &metadata)))
    }

    /// Where the entries are read from.
    #[must_use]
    pub(super) fn source(&self) -> Source {
        match self {
            Self::Tree(top) => Source::Tree(top.clone()),
            Self::File(source, _) => source.clone(),
        }
    }

    /// Sends all entries, folders before what is in them; ends early when nobody takes them.
    pub(super) fn run(self, entries: &Sender<Entry>, progress: &Progress) {
        match self {
            Self::File(_, entry) => drop(send_entry(entry, entries, progress)),
            Self::Tree(top) => {
                // The tree's own top is the remote folder, which is made by whoever made the job.
                for found in WalkDir::new(&top).min_depth(1) {
                    let entry = match found {
                        Ok(found) => look_at(&top, &found, progress),
                        Err(error) => {
                            fail_walk(&top, &error, progress);
                            None
                        }
                    };
                    if let Some(entry) = entry
                        && send_entry(entry, entries, progress).is_none()
                    {
                        return;
                    }
                }
            }
        }
    }
}

fn send_entry(entry: Entry, entries: &Sender<Entry>, progress: &Progress) -> Option<()> {
    if let Kind::File { identity, .. } = entry.kind {
        progress.found_files.add(1);
        progress.found_bytes.add(identity.size);
    }
    entries.send(entry).ok()
}

fn file_entry(path: RemotePath, metadata: &Metadata) -> Entry {
    Entry { path, kind: Kind::File { identity: identify(metadata), is_sparse: false }, attributes: Attributes::default() }
}

fn look_at(top: &Path, found: &walkdir::DirEntry, progress: &Progress) -> Option<Entry> {
    let path = match relative(top, found.path()) {
        Ok(path) => path,
        Err(reason) => {
            leave_out_unnamed(found.path(), &reason, progress);
            return None;
        }
    };
    if found.file_type().is_dir() {
        return Some(Entry { path, kind: Kind::Directory { mtime: (0, 0) }, attributes: Attributes::default() });
    }
    match found.metadata() {
        Ok(metadata) if metadata.is_file() => Some(file_entry(path, &metadata)),
        Ok(metadata) => {
            super::leave_out(progress, &path, &format!("left out: {}", describe_special(&metadata)));
            None
        }
        Err(error) => {
            super::leave_out(progress, &path, &reason_of(&error));
            None
        }
    }
}

fn fail_walk(top: &Path, error: &walkdir::Error, progress: &Progress) {
    match error.path() {
        Some(path) => match relative(top, path) {
            Ok(path) => super::leave_out(progress, &path, &reason_of(error)),
            Err(_) => leave_out_unnamed(path, &reason_of(error), progress),
        },
        None => super::leave_out(progress, &RemotePath::root(), &reason_of(error)),
    }
}

fn reason_of(error: &walkdir::Error) -> String {
    match error.io_error() {
        Some(error) if error.kind() == io::ErrorKind::NotFound => "vanished before it was read".to_owned(),
        Some(error) => format!("can't be read: {error}"),
        None => error.to_string(),
    }
}

fn relative(top: &Path, path: &Path) -> Result<RemotePath, String> {
    let below = path.strip_prefix(top).unwrap_or(path).as_os_str().as_bytes();
    if below.is_empty() { Ok(RemotePath::root()) } else { RemotePath::parse(below).map_err(|error| error.to_string()) }
}

/// An entry whose very path can't be sent: too long, that is.
fn leave_out_unnamed(path: &Path, reason: &str, progress: &Progress) {
    let shown = Escaped::path(path).to_string();
    super::leave_out(progress, &RemotePath::root(), &format!("left out: '{shown}': {reason}"));
}
