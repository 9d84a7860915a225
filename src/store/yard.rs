//! A store in a folder of its own, for the tests of this module.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::records::blocks;
use super::{BootId, Folders, Journal, OnExisting, State, Store, take_umask};
use crate::digest::{Binding, Checksum};
use crate::entry::{Attributes, FileMeta, Identity};
use crate::limits::BLOCK_LEN;
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

pub(super) const BLOCK: u64 = BLOCK_LEN as u64;

/// Two boots.
pub(super) const NOW: BootId = [1; 16];
pub(super) const NEXT: BootId = [2; 16];

/// A file that is being received, and its journal.
pub(super) struct JournalYard {
    pub(super) data: File,
    pub(super) journal: File,
    pub(super) identity: Identity,
    pub(super) content: Vec<u8>,
}

impl JournalYard {
    pub(super) fn of(size: u64) -> Self {
        let content = (0..size).map(|offset| (offset % 251) as u8 + 1).collect();
        let data = tempfile::tempfile().unwrap();
        data.set_len(size).unwrap();
        Self { data, journal: tempfile::tempfile().unwrap(), identity: meta(size, 1).identity, content }
    }

    pub(super) fn create(&self, boot: BootId) -> Journal {
        Journal::create(self.journal.try_clone().unwrap(), &path("d/a"), &self.identity, boot).unwrap()
    }

    pub(super) fn open(&self, boot: BootId) -> Option<(Journal, Vec<Range<u64>>)> {
        let opened = Journal::open(self.journal.try_clone().unwrap(), &path("d/a"), &self.identity, boot).unwrap();
        opened.map(|(journal, here)| (journal, here.iter().collect()))
    }

    /// What counts at once, and what does not.
    pub(super) fn says(&self, boot: BootId) -> Option<[Vec<Range<u64>>; 2]> {
        self.open(boot).map(|(journal, here)| [here, journal.unsure().iter().collect()])
    }

    pub(super) fn write(&self, journal: &Journal, range: Range<u64>, checksum: Checksum) {
        let binding = Binding::of(&range.start.to_be_bytes());
        let mut digests = Vec::new();
        for block in blocks(&range) {
            let (start, len) = (block.start, block.end - block.start);
            let bytes = &self.content[start as usize..block.end as usize];
            self.data.write_all_at(bytes, start).unwrap();
            let is_whole = start == 0 && len == self.identity.size;
            let (digest, _) = checksum.seal(binding.of_block(start, len, false), start, bytes, is_whole);
            digests.extend_from_slice(&digest[..checksum.digest_len()]);
        }
        journal.note_blocks(range, binding, checksum, &digests).unwrap();
    }

    pub(super) fn damage(&self, offset: u64) {
        self.data.write_all_at(&[0], offset).unwrap();
    }

    pub(super) fn len(&self) -> u64 {
        self.journal.metadata().unwrap().len()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len() as usize];
        self.journal.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    pub(super) fn put_bytes(&self, bytes: &[u8]) {
        self.journal.set_len(0).unwrap();
        self.journal.write_all_at(bytes, 0).unwrap();
    }
}

pub(super) fn verified(journal: &mut Journal, data: &File) -> Vec<Range<u64>> {
    journal.verify(data, &mut || Ok(())).unwrap().iter().collect()
}
