//! One file being received: a temporary name beside its own, ranges written in any order, published by
//! a rename when the last is there.
//!
//! A small file that comes in one piece costs five system calls: create, write, set times, rename,
//! close. Whatever is added here is paid for fifty thousand times a second.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use rustix::io::Errno;

use super::attributes::{self, Notes};
use super::folders::{Folder, name_of};
use super::join::Shared;
use super::kept::{self, Kept};
use super::temp::{Begun, Creation, TempName};
use super::{Error, Folders, OnExisting, Store, aside, jail, lock, refusal, spelling};
use crate::entry::{FileMeta, Identity};
use crate::path::RemotePath;
use crate::ranges::Ranges;

/// Is it something that a file can be?
pub(super) fn check(meta: &FileMeta, path: &RemotePath) -> Result<(), Error> {
    match attributes::times(meta.identity.mtime) {
        Some(_) => Ok(()),
        None => Err(Error::Refused { path: path.clone(), what: "given a time that is none" }),
    }
}

/// What became of a file by the range that was noted last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Ranges are missing.
    Stored,
    /// It is whole and has its name.
    Published {
        /// What could not be put on it.
        note: Option<String>,
    },
}

/// While this is held the file does not end.
pub(super) struct Hold<'a>(#[allow(dead_code, reason = "held")] RwLockReadGuard<'a, Phase>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Published,
    Abandoned,
}

/// A file being received. Several threads may write to it at once; nothing is written to it once it is
/// published or abandoned. One that is neither when the last hold of it goes is removed.
#[derive(Debug)]
pub struct Incoming {
    path: RemotePath,
    meta: FileMeta,
    on_existing: OnExisting,
    folder: Arc<Folder>,
    temp: TempName,
    file: File,
    /// The mode, where it could not be given at once.
    late_mode: Option<u32>,
    /// How long the file has become.
    end: AtomicU64,
    ranges: Mutex<Ranges>,
    /// Held by whoever writes. The kernel lets but one write at a time, and who waits there for its turn
    /// spins: that took a tenth of all processor time of a large file.
    turn: Mutex<()>,
    /// Held shared by whoever writes, and alone by whoever ends it.
    phase: RwLock<Phase>,
    voided: AtomicBool,
    shared: Option<Arc<Shared>>,
    /// What stays of it when whoever brings it goes away.
    kept: Option<Kept>,
}

impl Store {
    /// Begins a file that comes in one piece, so that nobody else has to know of it.
    ///
    /// # Errors
    /// No file can be created in its folder, or that can't be had.
    pub fn begin(
        &self, folders: &mut Folders, path: &RemotePath, meta: &FileMeta, on_existing: OnExisting,
    ) -> Result<Incoming, Error> {
        check(meta, path)?;
        let create = |folder: &Arc<Folder>| {
            self.note_folder(folder, path);
            Creation::new(folder, meta).create_as(|| self.temp_names.next())
        };
        let begun = self.in_folder(folders, path, "create", create)?;
        Ok(Incoming::new(path, meta, on_existing, begun, None))
    }
}

impl Incoming {
    pub(super) fn new(
        path: &RemotePath, meta: &FileMeta, on_existing: OnExisting, begun: Begun, shared: Option<Arc<Shared>>,
    ) -> Self {
        let Begun { folder, temp, file, late_mode, kept } = begun;
        let (kept, here) = kept.map_or((None, Ranges::default()), |(kept, here)| (Some(kept), here));
        let (ranges, end, phase) = (Mutex::new(here), AtomicU64::new(0), RwLock::new(Phase::Open));
        let (path, meta) = (path.clone(), meta.clone());
        let voided = AtomicBool::new(false);
        Self {
            path,
            meta,
            on_existing,
            folder,
            temp,
            file,
            late_mode,
            end,
            ranges,
            turn: Mutex::default(),
            phase,
            voided,
            shared,
            kept,
        }
    }

    /// Where it will be.
    #[must_use]
    pub fn path(&self) -> &RemotePath {
        &self.path
    }

    /// Which file it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.meta.identity
    }

    /// Writes bytes to their place. They count when [`Incoming::note`] says so.
    ///
    /// # Errors
    /// The file has ended, they lie past its end, or the disk refused them; then the file is abandoned.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.meta.identity.size);
        let end = end.ok_or_else(|| self.refused("shorter than what was to be written"))?;
        let written = {
            let _open = self.hold_open()?;
            self.end.fetch_max(end, Ordering::Relaxed);
            let _turn = lock(&self.turn);
            self.file.write_all_at(bytes, offset)
        };
        written.map_err(|source| {
            // What it takes is room that others may need.
            self.abandon();
            Error::Io { path: self.path.clone(), act: "write", source }
        })
    }

    /// What of it was found to be there already.
    pub(super) fn find(&self, good: &Ranges) {
        let mut ranges = lock(&self.ranges);
        for range in good.iter() {
            // One piece too many is sent again.
            let _ = ranges.insert(range);
        }
    }

    pub(super) fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// All of `range` is there now, written or a hole. Publishes the file if that was the last.
    ///
    /// # Errors
    /// The file has ended, or it can't be published; then it is abandoned.
    pub fn note(&self, range: Range<u64>) -> Result<State, Error> {
        let whole = 0..self.meta.identity.size;
        if range.start > range.end || range.end > whole.end {
            return Err(self.refused("shorter than what was to be there"));
        }
        if range == whole {
            return self.publish();
        }
        let is_whole = {
            let mut ranges = lock(&self.ranges);
            ranges.insert(range).map_err(|_| self.refused("in too many pieces"))?;
            ranges.covers(&whole)
        };
        if is_whole {
            return self.publish();
        }
        self.hold_open().map(|_| State::Stored)
    }

    /// What is not there yet.
    #[must_use]
    pub fn missing(&self) -> Vec<Range<u64>> {
        match self.phase() {
            Phase::Published => Vec::new(),
            _ => lock(&self.ranges).missing(self.meta.identity.size).collect(),
        }
    }

    /// Has it its name?
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.phase() == Phase::Published
    }

    /// Ends it unpublished: no byte is written any more. What its journal says stays on the disk for
    /// whoever brings the rest; without one it is gone.
    pub fn abandon(&self) {
        self.end_unpublished(self.kept.as_ref().is_some_and(Kept::says_something));
    }

    fn end_unpublished(&self, stays: bool) {
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        if *phase == Phase::Open {
            self.end_as_abandoned(&mut phase, stays);
        }
    }

    /// Ends it because its source changed: whoever still brings a piece of it is told so.
    pub fn void(&self) {
        self.voided.store(true, Ordering::Relaxed);
        self.end_unpublished(false);
    }

    /// Was it ended because its source changed?
    #[must_use]
    pub fn is_voided(&self) -> bool {
        self.voided.load(Ordering::Relaxed)
    }

    fn end_as_abandoned(&self, phase: &mut Phase, stays: bool) {
        *phase = Phase::Abandoned;
        if stays {
            if let Some(shared) = &self.shared {
                shared.note_kept(&self.path);
            }
            kept::leave_to_others(&self.file);
        } else {
            kept::remove(self.folder.as_fd(), self.temp, self.kept.is_some());
            // Whoever still holds it would hold its room as well; unless it has a name after all, given
            // to it by another process.
            if jail::is_removed(self.file.as_fd()) {
                let _ = rustix::fs::ftruncate(&self.file, 0);
            }
        }
        self.leave();
    }

    /// Nobody else joins it from here on.
    fn leave(&self) {
        if let Some(shared) = &self.shared {
            shared.leave(self);
        }
    }

    fn publish(&self) -> Result<State, Error> {
        let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        match *phase {
            Phase::Open => {}
            Phase::Published => return Ok(State::Published { note: None }),
            Phase::Abandoned => return Err(self.ended(Phase::Abandoned)),
        }
        match self.put_in_place() {
            Ok(note) => {
                *phase = Phase::Published;
                self.leave();
                Ok(State::Published { note })
            }
            Err(error) => {
                // What refuses its name will refuse it again.
                let may_pass = kept::may_pass(&error);
                self.end_as_abandoned(&mut phase, may_pass && self.kept.as_ref().is_some_and(Kept::says_something));
                Err(error)
            }
        }
    }

    fn put_in_place(&self) -> Result<Option<String>, Error> {
        let (identity, folder, name) = (&self.meta.identity, self.folder.as_fd(), name_of(&self.path));
        if self.end.load(Ordering::Relaxed) < identity.size {
            self.set_len().map_err(|errno| refusal(&self.path, "write", errno))?;
        }
        let mut notes = Notes::default();
        attributes::put_on(self.file.as_fd(), &self.meta.attributes, self.late_mode, identity.mtime, &mut notes)
            .map_err(|(act, errno)| refusal(&self.path, act, errno))?;
        let _turn = spelling::claim(&self.folder, self.temp.as_name(), &self.path)?;
        let kept = match self.on_existing {
            OnExisting::Replace => None,
            OnExisting::KeepAside => aside::keep_aside(folder, name, &self.path, Some(identity))?,
        };
        jail::rename_over(folder, self.temp.as_name(), name).map_err(|errno| {
            if let Some(kept) = kept {
                aside::put_back(folder, &kept, name);
            }
            refusal(&self.path, "publish", errno)
        })?;
        if let Some(kept) = &self.kept {
            kept.forget(folder);
        }
        Ok(notes.into_text())
    }

    /// Gives it its whole length: what is not written is a hole.
    pub(super) fn set_len(&self) -> Result<(), Errno> {
        rustix::fs::ftruncate(&self.file, self.meta.identity.size)?;
        self.end.store(self.meta.identity.size, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn phase(&self) -> Phase {
        *self.phase.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold_open(&self) -> Result<Hold<'_>, Error> {
        let phase = self.phase.read().unwrap_or_else(PoisonError::into_inner);
        if *phase == Phase::Open { Ok(Hold(phase)) } else { Err(self.ended(*phase)) }
    }

    fn ended(&self, phase: Phase) -> Error {
        self.refused(if phase == Phase::Published { "published already" } else { "no longer being received" })
    }

    fn refused(&self, what: &'static str) -> Error {
        Error::Refused { path: self.path.clone(), what }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range is missing")]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::fs::{self, Permissions};
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::process::Command;
    use std::thread;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::super::There;
    use super::super::yard::{Yard, attributes, meta, path, published};
    use super::*;
    use crate::entry::Attributes;

    // C10 C11 C12 C17
    #[test]
    fn a_file_has_its_name_content_mode_and_time() {
        let yard = Yard::new();
        let long = [b'x'; 255];
        let names =
            [&long[..], b"\xff\xfe", b"a\nb\t\x1b[31m", b"new/folder/...", "e\u{301}".as_bytes(), "\u{e9}".as_bytes(), b"-*%s"];
        let modes = [0o644, 0o000, 0o444, 0o777, 0o4755, 0o1777, 0o2711];
        let times = [(0, 0), (-1, 999_999_999), (-2_000_000_000, 1), (1_700_000_000, 123_456_789), (1, 0), (2, 2), (3, 3)];
        for ((name, mode), mtime) in names.into_iter().zip(modes).zip(times) {
            let mut meta = meta(5, 1);
            (meta.identity.mtime, meta.attributes.mode) = (mtime, mode);
            let mut folders = Folders::default();
            let incoming = yard.store.begin(&mut folders, &path(name), &meta, OnExisting::Replace).unwrap();
            incoming.write_at(2, b"llo").unwrap();
            assert_eq!(incoming.note(2..5).unwrap(), State::Stored);
            assert_eq!(incoming.missing(), [0..2]);
            incoming.write_at(0, b"he").unwrap();
            assert_eq!(incoming.note(0..2).unwrap(), published());
            let about = fs::metadata(yard.at(OsStr::from_bytes(name))).unwrap();
            assert_eq!((about.mtime(), about.mtime_nsec()), (mtime.0, i64::from(mtime.1)));
            assert_eq!(about.mode() & 0o7777, u32::from(mode & 0o777));
            assert_eq!(yard.store.has(&mut folders, &path(name), &meta.identity, &meta.attributes).unwrap(), There::Yes);
        }
        fs::set_permissions(yard.at(OsStr::from_bytes(b"\xff\xfe")), Permissions::from_mode(0o600)).unwrap();
        for name in names {
            assert_eq!(fs::read(yard.at(OsStr::from_bytes(name))).unwrap(), b"hello");
        }
        yard.assert_clean();
    }

    // C03 C09 C16
    #[test]
    fn what_has_the_name_is_replaced_whole_or_refused() {
        let yard = Yard::new();
        let secret = yard.outside("secret");
        fs::write(&secret, "secret").unwrap();
        fs::write(yard.at("file"), "old").unwrap();
        fs::write(yard.at("read-only"), "old").unwrap();
        fs::set_permissions(yard.at("read-only"), Permissions::from_mode(0o400)).unwrap();
        for (name, target) in [
            ("link", secret.as_path()),
            ("inside", "file".as_ref()),
            ("dangling", "nowhere".as_ref()),
            ("loop", "loop".as_ref()),
            ("mem", "/proc/self/mem".as_ref()),
            ("folder-link", secret.parent().unwrap()),
        ] {
            symlink(target, yard.at(name)).unwrap();
        }
        mknodat(CWD, yard.at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        fs::create_dir(yard.at("folder")).unwrap();
        for on_existing in [OnExisting::Replace, OnExisting::KeepAside] {
            for name in ["inside", "file", "read-only", "link", "dangling", "loop", "mem", "folder-link", "fifo"] {
                assert_eq!(yard.put(name, b"new", on_existing).unwrap(), published());
                assert!(fs::symlink_metadata(yard.at(name)).unwrap().is_file(), "{name}");
                assert_eq!(fs::read(yard.at(name)).unwrap(), b"new");
            }
            let refused = yard.put("folder", b"new", on_existing).unwrap_err().to_string();
            assert_eq!(refused, "folder is a folder");
        }
        assert!(yard.at("folder").is_dir());
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        let refused = yard.put("file/below", b"new", OnExisting::Replace).unwrap_err().to_string();
        assert_eq!(refused, "file is not a folder, or below something that is not");
        yard.assert_clean();
    }

    // C03
    #[test]
    fn a_link_as_a_parent_is_refused() {
        let yard = Yard::new();
        fs::create_dir(yard.at("real")).unwrap();
        symlink(yard.outside(""), yard.at("out")).unwrap();
        symlink("real", yard.at("in")).unwrap();
        for name in ["out/x", "in/x", "out/a/b/x"] {
            let refused = yard.put(name, b"x", OnExisting::Replace).unwrap_err().to_string();
            assert!(refused.ends_with("is a symbolic link, or below one"), "{refused}");
            let has = yard.store.has(&mut Folders::default(), &path(name), &meta(1, 1).identity, &attributes(0o644));
            assert_eq!(has.unwrap(), There::No);
        }
        assert_eq!(fs::read_dir(yard.outside("")).unwrap().count(), 0);
    }

    // B06
    #[test]
    fn nothing_is_written_past_the_end_or_after_it_has_ended() {
        let yard = Yard::new();
        let begin = |name| yard.store.begin(&mut Folders::default(), &path(name), &meta(4, 1), OnExisting::Replace).unwrap();
        let incoming = begin("a");
        for (offset, len) in [(0, 5), (4, 1), (u64::MAX, 1), (u64::MAX, 0)] {
            assert!(incoming.write_at(offset, &vec![1; len]).is_err(), "{offset} {len}");
        }
        let backwards = Range { start: 3, end: 2 };
        for range in [0..5, 5..5, backwards, u64::MAX..u64::MAX] {
            assert!(incoming.note(range.clone()).is_err(), "{range:?}");
        }
        incoming.write_at(0, b"once").unwrap();
        assert_eq!(incoming.note(0..4).unwrap(), published());
        assert_eq!(incoming.note(0..4).unwrap(), published());
        assert_eq!(incoming.write_at(0, b"more").unwrap_err().to_string(), "a is published already");
        incoming.abandon();
        assert!(incoming.is_published() && incoming.missing().is_empty());
        let given_up = begin("b");
        given_up.abandon();
        yard.assert_clean();
        assert_eq!(given_up.write_at(0, b"more").unwrap_err().to_string(), "b is no longer being received");
        assert!(given_up.note(0..1).is_err() && given_up.note(0..4).is_err());
        drop((incoming, given_up));
        assert_eq!(fs::read(yard.at("a")).unwrap(), b"once");
        assert!(!yard.at("b").exists());
        let mut no_time = meta(0, 1);
        no_time.identity.mtime.1 = 1_000_000_000;
        assert!(yard.store.begin(&mut Folders::default(), &path("c"), &no_time, OnExisting::Replace).is_err());
    }

    #[test]
    fn one_that_nobody_holds_any_more_is_gone() {
        let yard = Yard::new();
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        let mut folders = Folders::default();
        for number in 0..200 {
            let incoming =
                yard.store.begin(&mut folders, &path(format!("d/{number}")), &meta(9, 1), OnExisting::Replace).unwrap();
            incoming.write_at(0, b"part").unwrap();
        }
        drop(folders);
        yard.assert_clean();
        // Other tests run beside this one.
        assert!(descriptors() < before + 100);
    }

    #[test]
    fn a_hole_takes_no_room() {
        let yard = Yard::new();
        let mut meta = meta(1 << 30, 1);
        meta.is_sparse = true;
        let incoming = yard.store.begin(&mut Folders::default(), &path("a"), &meta, OnExisting::Replace).unwrap();
        incoming.write_at(1 << 20, b"x").unwrap();
        incoming.note(0..1 << 29).unwrap();
        assert_eq!(incoming.note(1 << 29..1 << 30).unwrap(), published());
        let about = fs::metadata(yard.at("a")).unwrap();
        assert!(about.len() == 1 << 30 && about.blocks() < 1024, "{} blocks", about.blocks());
    }

    #[test]
    fn what_can_not_be_put_on_a_file_is_noted() {
        let yard = Yard::new();
        let mut meta = meta(0, 1);
        meta.attributes = Attributes {
            mode: 0o400,
            owner: Some((u32::MAX, 0)),
            xattrs: vec![(b"security.capability"[..].into(), b"x"[..].into()), (b"user.\xff"[..].into(), b"\0y"[..].into())],
        };
        let incoming = yard.store.begin(&mut Folders::default(), &path("a"), &meta, OnExisting::Replace).unwrap();
        let State::Published { note: Some(note) } = incoming.note(0..0).unwrap() else { panic!() };
        assert!(note.starts_with("could not set attribute security.capability: only those of users are kept"), "{note}");
        assert!(note.contains("could not set owner 4294967295:0: Invalid argument"), "{note}");
        let mut value = [0; 8];
        match rustix::fs::getxattr(yard.at("a"), OsStr::from_bytes(b"user.\xff"), &mut value) {
            Ok(len) => assert_eq!(value[..len], *b"\0y"),
            Err(_) => assert!(note.contains("user.\\xff")),
        }
        assert_eq!(fs::metadata(yard.at("a")).unwrap().mode() & 0o7777, 0o400);
    }

    // C03: a folder becomes a link to the outside and back, all the time.
    #[test]
    fn nothing_outside_changes_while_a_folder_flips() {
        let yard = Yard::new();
        fs::create_dir(yard.at("d")).unwrap();
        symlink(yard.outside(""), yard.at("link")).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                for _ in 0..10_000 {
                    rustix::fs::renameat_with(CWD, yard.at("d"), CWD, yard.at("link"), flags).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            for number in 0.. {
                // Refused or put in the folder, wherever that is.
                let _ = yard.put(&format!("d/{number}"), b"x", OnExisting::Replace);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        assert_eq!(fs::read_dir(yard.outside("")).unwrap().count(), 0);
        yard.assert_clean();
    }

    const COUNTED: &str = "PARALLEL_TRANSFER_COUNTED_FILES";

    /// What the next test looks at from outside.
    #[test]
    fn small_files_to_be_counted() {
        let Ok(count) = std::env::var(COUNTED) else { return };
        let (yard, mut folders) = (Yard::new(), Folders::default());
        for number in 0..count.parse().unwrap() {
            let incoming =
                yard.store.begin(&mut folders, &path(format!("{number:03}")), &meta(4, 1), OnExisting::Replace).unwrap();
            incoming.write_at(0, b"four").unwrap();
            incoming.note(0..4).unwrap();
        }
        // Not removed one by one, which would be counted.
        std::mem::forget(yard);
    }

    #[test]
    fn a_small_file_costs_five_system_calls() {
        let folder = tempfile::tempdir().unwrap();
        let count = |files: &str| {
            let log = folder.path().join("log");
            let mut strace = Command::new("strace");
            strace.arg("-f").arg("-o").arg(&log).arg(std::env::current_exe().unwrap());
            strace.args(["--exact", "store::incoming::tests::small_files_to_be_counted"]);
            strace.env(COUNTED, files).env("TMPDIR", folder.path()).output().ok()?;
            let mut calls: BTreeMap<String, i32> = BTreeMap::new();
            for line in fs::read_to_string(&log).ok()?.lines() {
                // The second half of a call that was interrupted is no call.
                let Some((call, _)) = line.split_once('(') else { continue };
                *calls.entry(call.split_whitespace().last()?.to_owned()).or_default() += 1;
            }
            calls.contains_key("openat2").then_some(calls)
        };
        let (Some(few), Some(many)) = (count("10"), count("110")) else {
            println!("SKIPPED the count of system calls: no strace here");
            return;
        };
        // A file, rounded: on a machine that is very busy the folder may be looked up once more.
        let more = many.iter().map(|(call, count)| (call.as_str(), (count - few.get(call).unwrap_or(&0) + 50) / 100));
        // Memory and threads, and what a build for tests asks before each close.
        let unrelated = ["mmap", "munmap", "brk", "madvise", "futex", "fcntl"];
        let more = more.filter(|(call, count)| *count > 0 && !unrelated.contains(call));
        let expected = ["close", "openat", "pwrite64", "renameat", "utimensat"].map(|call| (call, 1));
        assert_eq!(more.collect::<Vec<_>>(), expected);
    }
}
