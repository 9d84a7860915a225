//! What a file on its way is charged with, from before its first byte until it has its name or is gone:
//! its part of the store's quota, and of the room on the disk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{FileType, Statx};

use super::folders::name_of;
use super::quota::{Inode, Reservation, Usage, sizes};
use super::temp::TempName;
use super::{Error, Folders, Ledger, Limits, OnExisting, Store, jail, lock, refusal, usage};
use crate::entry::FileMeta;
use crate::path::RemotePath;

/// What any file has to keep to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the largest file.
    pub max_file: Option<u64>,
    /// Bytes of the disk under the root that stay free.
    pub min_free: Option<u64>,
}

/// What limits the files of a store.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    ledger: Option<Ledger>,
    bounds: Bounds,
    /// Bytes of files on their way that the disk does not know of.
    promised: Mutex<u64>,
    /// Held by whoever makes something go, from the look at what it is; shared by those who give names, until
    /// the ledger knows of it.
    turn: RwLock<()>,
}

impl Allowance {
    /// While this is held no file that counts gets a name, or loses one.
    pub(super) fn take_turn(&self) -> RwLockWriteGuard<'_, ()> {
        self.turn.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this is held no file that counts goes.
    pub(super) fn share_turn(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one file on its way is charged with. Dropped, it is given back.
#[derive(Debug)]
pub(super) struct Charge {
    allowance: Arc<Allowance>,
    reservation: Option<Reservation>,
    promised: u64,
}

impl Store {
    /// From here on it holds no more than `limits`. What is below the root is counted for that, which
    /// takes some seconds for a million files; so it is called before anything is received, or to count
    /// again while nothing is.
    ///
    /// # Errors
    /// The root can't be listed.
    pub fn limit(&mut self, limits: Limits) -> io::Result<()> {
        let ledger = Some(Ledger::new(limits, usage::count(self.root.as_fd())?));
        self.allowance = Arc::new(Allowance { ledger, bounds: self.allowance.bounds, ..Allowance::default() });
        Ok(())
    }

    /// What it may hold and what it holds, where that is limited.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.allowance.ledger.as_ref()
    }

    /// From here on each file has to keep to `bounds`. To be called before anything is received.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        let ledger = self.allowance.ledger.clone();
        self.allowance = Arc::new(Allowance { ledger, bounds, ..Allowance::default() });
    }

    /// May `range` be written to a file whose size nobody tells?
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::DiskFull`].
    pub fn check_write(&self, path: &RemotePath, range: &Range<u64>) -> Result<(), Error> {
        if range.is_empty() || self.allowance.bounds == Bounds::default() {
            return Ok(());
        }
        self.check_size(path, range.end)?;
        self.charge(path, Some(range.end.saturating_sub(range.start)), None).map(drop)
    }

    /// Charges for a file that comes in one piece; none where nothing is limited.
    pub(super) fn charge_file(
        &self, folders: &mut Folders, path: &RemotePath, meta: &FileMeta, on_existing: OnExisting,
    ) -> Result<Option<Charge>, Error> {
        if !self.is_limited() {
            return Ok(None);
        }
        self.check_size(path, meta.identity.size)?;
        let needs = Usage::file(meta.identity.size);
        let reservation = self.reserve(path, needs, || {
            let folder = self.find_folder(folders, path).ok()??;
            replaced(folder.as_fd(), path, on_existing)
        })?;
        self.charge(path, room_for(meta, 0), reservation).map(Some)
    }

    /// Charges for a file that comes in several pieces, and for which something may be there already
    /// under its temporary name.
    pub(super) fn charge_joined(
        &self, folder: BorrowedFd<'_>, path: &RemotePath, meta: &FileMeta, on_existing: OnExisting,
    ) -> Result<Option<Charge>, Error> {
        if !self.is_limited() {
            return Ok(None);
        }
        self.check_size(path, meta.identity.size)?;
        let (part, whole) = (part_of(folder, path, meta), Usage::file(meta.identity.size));
        let reservation = match (self.ledger(), part) {
            (Some(ledger), Some(part)) => Some(ledger.resume(part, whole).map_err(|refusal| over(path, refusal))?),
            _ => self.reserve(path, whole, || replaced(folder, path, on_existing))?,
        };
        self.charge(path, room_for(meta, part.map_or(0, |part| part.bytes)), reservation).map(Some)
    }

    /// Charges for a link of `target_len` bytes; for a second name of a file nothing.
    pub(super) fn charge_link(
        &self, folders: &mut Folders, path: &RemotePath, target_len: Option<usize>, on_existing: OnExisting,
    ) -> Result<Option<Charge>, Error> {
        if self.ledger().is_none() {
            return Ok(None);
        }
        let needs = target_len.map_or(Usage::NONE, |len| Usage::file(len as u64));
        let reservation = self.reserve(path, needs, || {
            let folder = self.find_folder(folders, path).ok()??;
            replaced(folder.as_fd(), path, on_existing)
        })?;
        self.charge(path, None, reservation).map(Some)
    }

    /// Bytes of its disk: those that are free, and all.
    ///
    /// # Errors
    /// The system said no.
    pub fn disk_space(&self) -> Result<(u64, u64), Error> {
        let root = RemotePath::root();
        let disk = rustix::fs::fstatvfs(&self.root).map_err(|errno| refusal(&root, "look at the disk of", errno))?;
        Ok((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
    }

    /// Something under a temporary name was removed.
    pub(super) fn give_back(&self, gone: Usage) {
        if let Some(ledger) = self.ledger() {
            ledger.give_back(gone);
        }
    }

    fn is_limited(&self) -> bool {
        self.allowance.ledger.is_some() || self.allowance.bounds != Bounds::default()
    }

    fn check_size(&self, path: &RemotePath, size: u64) -> Result<(), Error> {
        match self.allowance.bounds.max_file {
            Some(max) if size > max => Err(Error::TooLarge { path: path.clone(), size, max }),
            _ => Ok(()),
        }
    }

    /// What is replaced is looked at only where there may not be room for both.
    fn reserve(
        &self, path: &RemotePath, needs: Usage, replaced: impl FnOnce() -> Option<(Inode, Usage)>,
    ) -> Result<Option<Reservation>, Error> {
        let Some(ledger) = self.ledger() else { return Ok(None) };
        if let Some(reservation) = ledger.reserve_amply(needs) {
            return Ok(Some(reservation));
        }
        let reserved = match replaced() {
            Some(old) => ledger.reserve_in_place_of(old, needs),
            None => ledger.reserve(needs),
        };
        reserved.map(Some).map_err(|refusal| over(path, refusal))
    }

    fn charge(&self, path: &RemotePath, room: Option<u64>, reservation: Option<Reservation>) -> Result<Charge, Error> {
        let promised = match room {
            Some(room) => self.promise(path, room)?,
            None => 0,
        };
        Ok(Charge { allowance: Arc::clone(&self.allowance), reservation, promised })
    }

    /// Promises so many bytes of the disk, as long as enough stays free.
    fn promise(&self, path: &RemotePath, needs: u64) -> Result<u64, Error> {
        let Some(min_free) = self.allowance.bounds.min_free else { return Ok(0) };
        let mut promised = lock(&self.allowance.promised);
        let disk = rustix::fs::fstatfs(&self.root).map_err(|errno| refusal(path, "look at the disk of", errno))?;
        // No blocks at all: it has no limit.
        if disk.f_blocks > 0 {
            let free = disk.f_bavail.saturating_mul(disk.f_bsize.unsigned_abs()).saturating_sub(*promised);
            if free < min_free.saturating_add(needs) {
                return Err(Error::DiskFull { path: path.clone(), needs, free, min_free });
            }
        }
        *promised = promised.saturating_add(needs);
        Ok(needs)
    }
}

/// Bytes of the disk that a file takes of which some are there; none are asked for where it has none. Of
/// one with holes nobody knows: there it does if enough is free now.
fn room_for(meta: &FileMeta, there: u64) -> Option<u64> {
    let room = if meta.is_sparse { 0 } else { meta.identity.size.saturating_sub(there) };
    (meta.identity.size > 0).then_some(room)
}

/// What would be gone if something new got this name.
fn replaced(folder: BorrowedFd<'_>, path: &RemotePath, on_existing: OnExisting) -> Option<(Inode, Usage)> {
    let is_kept = |stat: Statx| FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
    let name = name_of(path);
    if on_existing == OnExisting::KeepAside && jail::look(folder, name).is_ok_and(is_kept) {
        return None;
    }
    usage::behind(folder, name)
}

/// What counts already of a file that comes in several pieces.
fn part_of(folder: BorrowedFd<'_>, path: &RemotePath, meta: &FileMeta) -> Option<Usage> {
    let temp = TempName::of(path, &meta.identity);
    let stat = jail::look(folder, temp.as_name()).ok().filter(usage::only_name)?;
    Some(Usage::file(usage::of_incoming(folder, temp, &stat)))
}

fn over(path: &RemotePath, refusal: super::Refusal) -> Error {
    Error::Quota { path: path.clone(), refusal }
}

pub(super) fn too_large(size: u64, max: u64) -> String {
    let [size, max] = sizes([size, max]);
    format!("has {size}, and no file of more than {max} is taken")
}

pub(super) fn disk_full(needs: u64, free: u64, min_free: u64) -> String {
    let [needs, free, min_free] = sizes([needs, free, min_free]);
    format!("needs {needs}, {free} of the disk are free and {min_free} have to stay so")
}

impl Charge {
    /// Is it charged for by a ledger?
    pub(super) fn is_counted(&self) -> bool {
        self.reservation.is_some()
    }

    /// Is it counted less, for what it replaces?
    pub(super) fn is_credited(&self) -> bool {
        self.reservation.as_ref().is_some_and(Reservation::is_credited)
    }

    pub(super) fn allowance(&self) -> Arc<Allowance> {
        Arc::clone(&self.allowance)
    }

    /// The disk has set aside all the room there must be.
    pub(super) fn room_is_reserved(&mut self) {
        let mut promised = lock(&self.allowance.promised);
        *promised = promised.saturating_sub(std::mem::take(&mut self.promised));
    }

    /// It could not be begun: what is there of it stays charged.
    pub(super) fn keep_part(mut self, folder: BorrowedFd<'_>, path: &RemotePath, meta: &FileMeta) {
        if let (Some(mut reservation), Some(part)) = (self.reservation.take(), part_of(folder, path, meta)) {
            reservation.shrink_to(part);
            reservation.commit();
        }
    }

    /// It was begun anew under another name than that of the part that is there.
    pub(super) fn leave_part(
        &mut self, folder: BorrowedFd<'_>, path: &RemotePath, meta: &FileMeta, begun: TempName,
    ) -> Result<(), Error> {
        let part = part_of(folder, path, meta).filter(|_| begun != TempName::of(path, &meta.identity));
        match (&mut self.reservation, part) {
            (Some(reservation), Some(part)) => reservation.leave_part(part).map_err(|refusal| over(path, refusal)),
            _ => Ok(()),
        }
    }

    /// What it is about to replace is `old`.
    pub(super) fn expect(&mut self, path: &RemotePath, old: Option<Inode>) -> Result<(), Error> {
        self.reservation.as_mut().map_or(Ok(()), |reservation| reservation.expect(old)).map_err(|refusal| over(path, refusal))
    }

    /// It has its name, and `old` is gone by it.
    pub(super) fn settle(mut self, old: Option<(Inode, Usage)>) {
        match (self.reservation.take(), old) {
            (Some(reservation), Some(old)) => reservation.commit_in_place_of(old),
            (Some(reservation), None) => reservation.commit(),
            (None, _) => {}
        }
    }

    /// It ends unpublished and stays on the disk: what is not there is given back, to the disk as well.
    pub(super) fn stay(mut self, folder: BorrowedFd<'_>, temp: TempName, file: &File) {
        let Some(mut reservation) = self.reservation.take() else { return };
        let size = jail::look_at(file.as_fd()).map_or(0, |stat| stat.stx_size);
        let said = usage::said_of(folder, temp);
        if let Some(said) = &said {
            usage::give_back_room(file, said, size);
        }
        reservation.shrink_to(Usage::file(said.map_or(size, |said| usage::total(&said).min(size))));
        reservation.commit();
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.promised > 0 {
            self.room_is_reserved();
        }
    }
}

#[cfg(test)]
mod tests;
