//! A store in a folder of its own, for the tests of this module.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Folders, OnExisting, State, Store, take_umask};
use crate::entry::{Attributes, FileMeta, Identity};
use crate::path::{RemotePath, TEMP_PREFIX};

pub(super) struct Yard {
    folder: TempDir,
    pub(super) store: Store,
}

impl Yard {
    pub(super) fn new() -> Self {
        let umask = take_umask();
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        let store = Store::open(&folder.path().join("in"), umask).unwrap();
        Self { folder, store }
    }

    /// Where something below the root is.
    pub(super) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join("in").join(name)
    }

    /// Something beside the root, that nothing may reach.
    pub(super) fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    /// Receives a file in one piece.
    pub(super) fn put(&self, name: &str, content: &[u8], on_existing: OnExisting) -> Result<State, super::Error> {
        let meta = meta(content.len() as u64, 1);
        let incoming = self.store.begin(&mut Folders::default(), &path(name), &meta, on_existing)?;
        incoming.write_at(0, content)?;
        incoming.note(0..content.len() as u64)
    }

    /// Asserts that no temporary name is left anywhere.
    pub(super) fn assert_clean(&self) {
        assert_eq!(leftovers(self.folder.path()), Vec::<PathBuf>::new());
    }
}

pub(super) fn leftovers(top: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(top).into_iter().filter_map(Result::ok);
    entries.filter(|entry| entry.file_name().as_bytes().starts_with(TEMP_PREFIX)).map(walkdir::DirEntry::into_path).collect()
}

pub(super) fn path(name: impl AsRef<[u8]>) -> RemotePath {
    RemotePath::parse(name.as_ref()).unwrap()
}

pub(super) fn attributes(mode: u16) -> Attributes {
    Attributes { mode, ..Attributes::default() }
}

/// A file of this size; the tag tells states apart.
pub(super) fn meta(size: u64, tag: u8) -> FileMeta {
    FileMeta { identity: Identity { size, mtime: (7, 8), tag: [tag; 16] }, attributes: attributes(0o644), is_sparse: false }
}

pub(super) fn published() -> State {
    State::Published { note: None }
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
