//! What stays on the disk of a file that comes in several pieces until it is whole, whoever goes away:
//! the file under the name that belongs to its path and state, locked by one process, and its journal.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::folders::Folder;
use super::temp::{Begun, Creation, TempName};
use super::{BootId, Error, Incoming, Journal, jail, lock, refusal};
use crate::digest::ZEROS;
use crate::entry::Identity;
use crate::limits::{BLOCK_LEN, HEARTBEAT, TEMP_TRIES_MAX};
use crate::path::RemotePath;
use crate::ranges::Ranges;

/// The journal of an incoming file, and what is known of what it says.
#[derive(Debug)]
pub(super) struct Kept {
    temp: TempName,
    journal: RwLock<Journal>,
    /// Does the journal say anything? Otherwise there is nothing to keep.
    says: AtomicBool,
    /// Was something there before this process? Then a hole may have to be made where something is.
    was_there: bool,
    ready: Mutex<Ready>,
    changed: Condvar,
}

/// Is known how much of what was there before is good?
#[derive(Debug, PartialEq, Eq)]
enum Ready {
    No,
    BeingHashed,
    Yes,
    /// It can't be known: in which act that failed, and why.
    Failed(&'static str, String),
}

/// Opens what an earlier process left of the file, or creates it; under a name of its own, which nobody
/// finds again, if another process is at it, or if what is there is not what this program leaves.
pub(super) fn begin(
    creation: &Creation<'_>, path: &RemotePath, identity: &Identity, boot: BootId, fresh: impl FnMut() -> TempName,
) -> Result<Begun, Errno> {
    let (folder, temp) = (creation.folder(), TempName::of(path, identity));
    for _ in 0..TEMP_TRIES_MAX {
        let (file, was_there) = match open_own(folder.as_fd(), temp.as_name()) {
            Ok(Some(file)) => (file, true),
            Err(Errno::NOENT) => {
                // Of a file that is gone. Later it would speak of the new one.
                let _ = jail::remove(folder.as_fd(), temp.journal().as_name());
                match creation.create(temp) {
                    Err(Errno::EXIST) => continue,
                    created => (created?.file, false),
                }
            }
            // Nothing that this program made: let it be.
            Ok(None) | Err(_) => break,
        };
        match lock_file(&file, folder.as_fd(), temp)? {
            Locked::Yes => {}
            Locked::Removed => continue,
            Locked::ByAnother => break,
            Locked::Unknown => {
                if !was_there {
                    let _ = jail::remove(folder.as_fd(), temp.as_name());
                }
                break;
            }
        }
        let kept = if was_there { Kept::open(folder, temp, path, identity, boot) } else { Ok(None) };
        // It has its whole length before anything of it is noted: another is not the one of the journal.
        let kept = match kept {
            Ok(Some(_)) if jail::look_at(file.as_fd())?.stx_size != identity.size => Ok(None),
            kept => kept,
        };
        match kept {
            Ok(Some((kept, here))) => return Ok(creation.begun(temp, file, Some((kept, here)))),
            Err(error) => {
                // It may be readable another time.
                tracing::warn!("{path} is received from its beginning: {error}");
                break;
            }
            // It says nothing of what is in the file.
            Ok(None) if was_there => remove(folder.as_fd(), temp, true),
            // Without a journal it can be received all the same, and not be gone on with.
            Ok(None) => {
                let kept = Kept::create(folder, temp, path, identity, boot).map(|kept| (kept, Ranges::default()));
                return Ok(creation.begun(temp, file, kept));
            }
        }
    }
    creation.create_as(fresh)
}

/// Opens a file that this program may have left; none where it is not of its making: somebody else's, or
/// one that has another name as well.
fn open_own(folder: BorrowedFd<'_>, name: &OsStr) -> Result<Option<File>, Errno> {
    let open = || jail::open_child_for(folder, name, OFlags::RDWR);
    let file = match open() {
        // It has its own mode already: its process was killed just before it gave it its name.
        Err(Errno::ACCESS) => jail::let_owner_write(folder, name).and_then(|()| open())?,
        file => file?,
    };
    let about = jail::look_at(file.as_fd())?;
    Ok(jail::is_own(&about).then_some(file))
}

/// May what failed so go well another time, when there is room again or the disk is mended?
pub(super) fn may_pass(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return false };
    matches!(Errno::from_io_error(source), Some(Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS))
}

/// Removes a file being received, and its journal, if it has one.
pub(super) fn remove(folder: BorrowedFd<'_>, temp: TempName, has_journal: bool) {
    let _ = jail::remove(folder, temp.as_name());
    if has_journal {
        let _ = jail::remove(folder, temp.journal().as_name());
    }
}

/// Lets others receive the file.
pub(super) fn leave_to_others(file: &File) {
    // It may have its own mode already, and then nobody could go on with it.
    let _ = rustix::fs::fchmod(file, Mode::RUSR | Mode::WUSR);
    let _ = rustix::fs::flock(file, FlockOperation::Unlock);
}

/// Whose is a file?
enum Locked {
    /// This process's, as long as it is open here.
    Yes,
    ByAnother,
    /// It has that name no more: it was removed, or published.
    Removed,
    /// This file system does not say.
    Unknown,
}

fn lock_file(file: &File, folder: BorrowedFd<'_>, temp: TempName) -> Result<Locked, Errno> {
    let lock = || rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
    let mut locked = lock();
    while locked == Err(Errno::INTR) {
        locked = lock();
    }
    let ours = jail::look_at(file.as_fd())?;
    Ok(match (jail::look(folder, temp.as_name()), locked) {
        (Ok(named), _) if !jail::is_one(&named, &ours) => Locked::Removed,
        (Err(Errno::NOENT), _) => Locked::Removed,
        (Err(errno), _) => return Err(errno),
        (Ok(_), Ok(())) => Locked::Yes,
        (Ok(_), Err(Errno::WOULDBLOCK)) => Locked::ByAnother,
        // Two processes that receive the same file at once could not be told apart.
        (Ok(_), Err(errno)) => {
            tracing::debug!("no lock on {}: {errno}; it is not gone on with", temp.as_name().display());
            Locked::Unknown
        }
    })
}

impl Kept {
    /// The journal that is there, and what it says; none where there is none, or where it says nothing.
    fn open(
        folder: &Arc<Folder>, temp: TempName, path: &RemotePath, identity: &Identity, boot: BootId,
    ) -> Result<Option<(Self, Ranges)>, Error> {
        let failed = |errno: Errno| Error::Io { path: path.clone(), act: "open the journal of", source: errno.into() };
        let file = match open_own(folder.as_fd(), temp.journal().as_name()) {
            Ok(Some(file)) => file,
            Err(Errno::NOENT) => return Ok(None),
            Ok(None) => return Err(failed(Errno::PERM)),
            Err(errno) => return Err(failed(errno)),
        };
        let Some((journal, here)) = Journal::open(file, path, identity, boot)? else { return Ok(None) };
        let ready = if journal.unsure().is_empty() { Ready::Yes } else { Ready::No };
        let says = !here.is_empty() || ready == Ready::No;
        Ok(Some((Self::new(temp, journal, says, true, ready), here)))
    }

    fn create(folder: &Arc<Folder>, temp: TempName, path: &RemotePath, identity: &Identity, boot: BootId) -> Option<Self> {
        let name = temp.journal();
        let created = jail::create_child(folder.as_fd(), name.as_name(), OFlags::RDWR, JOURNAL_MODE);
        let journal = match created {
            Ok(file) => Journal::create(file, path, identity, boot).map_err(|error| error.to_string()),
            Err(errno) => Err(errno.to_string()),
        };
        match journal {
            Ok(journal) => Some(Self::new(temp, journal, false, false, Ready::Yes)),
            Err(error) => {
                tracing::debug!("{path} has no journal: {error}");
                let _ = jail::remove(folder.as_fd(), name.as_name());
                None
            }
        }
    }

    fn new(temp: TempName, journal: Journal, says: bool, was_there: bool, ready: Ready) -> Self {
        let (journal, says) = (RwLock::new(journal), AtomicBool::new(says));
        Self { temp, journal, says, was_there, ready: Mutex::new(ready), changed: Condvar::new() }
    }

    /// Is there anything to go on with?
    pub(super) fn says_something(&self) -> bool {
        self.says.load(Ordering::Relaxed)
    }

    /// Notes by `note` what came. What can't be noted just does not count later.
    pub(super) fn note(&self, note: impl FnOnce(&Journal) -> Result<(), Error>) {
        match note(&self.journal.read().unwrap_or_else(PoisonError::into_inner)) {
            Ok(()) => self.says.store(true, Ordering::Relaxed),
            Err(error) => tracing::debug!("{error}"),
        }
    }

    /// Makes a hole where something else may be.
    pub(super) fn clear(&self, file: &File, offset: u64, len: u64) -> Result<(), Errno> {
        if !self.was_there {
            return Ok(());
        }
        match rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_zeros(file, offset, len),
            punched => punched,
        }
    }

    /// It has its own name: nothing is left to be known of it.
    pub(super) fn forget(&self, folder: BorrowedFd<'_>) {
        let _ = jail::remove(folder, self.temp.journal().as_name());
    }
}

/// Where no hole can be made.
fn write_zeros(file: &File, mut offset: u64, len: u64) -> Result<(), Errno> {
    let end = offset.saturating_add(len);
    while offset < end {
        let zeros = ZEROS.get(..usize::try_from(end.saturating_sub(offset)).unwrap_or(BLOCK_LEN)).unwrap_or(&ZEROS);
        file.write_all_at(zeros, offset).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        offset = offset.saturating_add(zeros.len() as u64);
    }
    Ok(())
}

/// What is done to what came before another boot.
pub(super) const READ_BACK: &str = "read back";

/// The journal names what is in a file that its owner alone may read.
const JOURNAL_MODE: u32 = 0o600;

impl Incoming {
    /// Leaves a hole; makes one where something was.
    pub(super) fn leave_hole(&self, range: Range<u64>) -> Result<(), Error> {
        let Some(kept) = self.kept() else { return Ok(()) };
        let cleared = {
            let _open = self.hold_open()?;
            kept.clear(self.file(), range.start, range.end.saturating_sub(range.start))
        };
        cleared.map_err(|errno| refusal(self.path(), "make a hole in", errno))?;
        self.note_in_journal(|journal| journal.note_hole(range));
        Ok(())
    }

    /// Notes what came, for whoever goes on with it.
    pub(super) fn note_in_journal(&self, note: impl FnOnce(&Journal) -> Result<(), Error>) {
        // Once it has ended another may have the journal.
        if let (Some(kept), Ok(_open)) = (self.kept(), self.hold_open()) {
            kept.note(note);
        }
    }

    /// Finds out what is good of what was there before, if that is not known: by reading it, which may
    /// take long. Others who bring pieces wait. `going` is called now and then; what it says ends that,
    /// and leaves it to those who wait, or to the next who comes.
    ///
    /// # Errors
    /// That of `going`. It can't be read or written, or can't be brought to the disk: then the file is
    /// abandoned, and all who wait are told.
    pub(super) fn make_ready(&self, going: &mut dyn FnMut() -> io::Result<()>) -> Result<(), Error> {
        let Some(kept) = self.kept() else { return Ok(()) };
        let failed = |act, source| Error::Io { path: self.path().clone(), act, source };
        let mut ready = lock(&kept.ready);
        loop {
            match &*ready {
                Ready::No => break,
                Ready::Yes => return Ok(()),
                Ready::Failed(act, why) => return Err(failed(act, io::Error::other(why.clone()))),
                Ready::BeingHashed => {
                    ready = kept.changed.wait_timeout(ready, HEARTBEAT).unwrap_or_else(PoisonError::into_inner).0;
                    going().map_err(|source| failed(READ_BACK, source))?;
                }
            }
        }
        *ready = Ready::BeingHashed;
        drop(ready);
        let mut is_told_to_end = false;
        let mut going = || going().inspect_err(|_| is_told_to_end = true);
        let verified = kept.journal.write().unwrap_or_else(PoisonError::into_inner).verify(self.file(), &mut going);
        let verified = verified.map(|good| self.find(&good));
        let after = match &verified {
            Ok(()) => Ready::Yes,
            Err(_) if is_told_to_end => Ready::No,
            Err(Error::Io { act, source, .. }) => Ready::Failed(act, source.to_string()),
            Err(error) => Ready::Failed(READ_BACK, error.to_string()),
        };
        if matches!(after, Ready::Failed(..)) {
            self.abandon();
        }
        *lock(&kept.ready) = after;
        kept.changed.notify_all();
        verified
    }
}
