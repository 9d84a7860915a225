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
use super::charge::Charge;
use super::folders::Folder;
use super::join::Shared;
use super::kept::{self, Kept};
use super::temp::{Begun, Creation, TempName};
use super::{Error, Folders, OnExisting, Store, jail, lock, place, refusal};
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
    charge: Mutex<Option<Charge>>,
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
        let charge = self.charge_file(folders, path, meta, on_existing)?;
        let create = |folder: &Arc<Folder>| {
            self.note_folder(folder, path);
            Creation::new(folder, meta).create_as(|| self.temp_names.next())
        };
        let begun = self.in_folder(folders, path, "create", create)?;
        Ok(Incoming::new(path, meta, on_existing, (begun, charge), None))
    }
}

impl Incoming {
    pub(super) fn new(
        path: &RemotePath, meta: &FileMeta, on_existing: OnExisting, (begun, charge): (Begun, Option<Charge>),
        shared: Option<Arc<Shared>>,
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
            charge: Mutex::new(charge),
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

    /// Did it end without its name?
    pub(super) fn is_abandoned(&self) -> bool {
        self.phase() == Phase::Abandoned
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
        self.discard();
    }

    /// Ends it unpublished, and nothing of it stays.
    pub fn discard(&self) {
        self.end_unpublished(false);
    }

    /// Was it ended because its source changed?
    #[must_use]
    pub fn is_voided(&self) -> bool {
        self.voided.load(Ordering::Relaxed)
    }

    fn end_as_abandoned(&self, phase: &mut Phase, stays: bool) {
        *phase = Phase::Abandoned;
        let charge = lock(&self.charge).take();
        let stay = || charge.into_iter().for_each(|charge| charge.stay(self.folder.as_fd(), self.temp, &self.file));
        if stays {
            if let Some(shared) = &self.shared {
                shared.note_kept(&self.path);
            }
            stay();
            kept::leave_to_others(&self.file);
        } else {
            kept::remove(self.folder.as_fd(), self.temp, self.kept.is_some());
            // Whoever still holds it would hold its room as well; unless it has a name after all, given
            // to it by another process.
            if jail::is_removed(self.file.as_fd()) {
                let _ = rustix::fs::ftruncate(&self.file, 0);
            } else {
                stay();
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
        let identity = &self.meta.identity;
        if self.end.load(Ordering::Relaxed) < identity.size {
            self.set_len().map_err(|errno| refusal(&self.path, "write", errno))?;
        }
        let mut notes = Notes::default();
        attributes::put_on(self.file.as_fd(), &self.meta.attributes, self.late_mode, identity.mtime, &mut notes)
            .map_err(|(act, errno)| refusal(&self.path, act, errno))?;
        let rule = (self.on_existing, Some(identity));
        place::give_name(&self.folder, self.temp.as_name(), &self.path, rule, &mut lock(&self.charge))?;
        if let Some(kept) = &self.kept {
            kept.forget(self.folder.as_fd());
        }
        Ok(notes.into_text())
    }

    /// Gives it its whole length: what is not written is a hole.
    pub(super) fn set_len(&self) -> Result<(), Errno> {
        rustix::fs::ftruncate(&self.file, self.meta.identity.size)?;
        self.end.store(self.meta.identity.size, Ordering::Relaxed);
        Ok(())
    }

    /// The disk has set aside room for all of it.
    pub(super) fn note_reserved(&self) {
        lock(&self.charge).iter_mut().for_each(Charge::room_is_reserved);
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
mod tests;
