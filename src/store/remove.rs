//! Names are taken out of the tree: of a file, of a link, of an empty folder, or of a folder with all that
//! is in it.
//!
//! A tree is worked off in a loop: one folder is open at a time, and of each above it a few names are
//! known, however deep and wide it is. No link is followed: what was a folder and is none by then goes as
//! what it is.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use super::folders::let_owner_in;
use super::temp::TempName;
use super::usage::Names;
use super::{Error, Store, folder_refusal, jail, usage};
use crate::limits::{PATH_LEN_MAX, REMOVE_HELD_EVERY, REMOVE_HELD_MAX, REMOVE_NAMES_LEN_MAX, REMOVE_ROUNDS_MAX};
use crate::path::RemotePath;

/// What was to be removed and is still there.
#[derive(Debug, thiserror::Error)]
#[error("{first}{}", and_more(*more))]
pub struct NotRemoved {
    /// The first of all, and why.
    pub first: Error,
    /// How many others there are. Folders that are there only because of what is in them do not count.
    pub more: u64,
}

impl From<Error> for NotRemoved {
    fn from(first: Error) -> Self {
        Self { first, more: 0 }
    }
}

fn and_more(more: u64) -> String {
    if more == 0 { String::new() } else { format!("; and {more} more are not removed") }
}

const NOT_EMPTY: &str = "a folder that is not empty";
const RECEIVING: &str = "a folder in which something is being received";

impl Store {
    /// Removes a file, a link or an empty folder; with all that is in it if `is_recursive`. What of it can't
    /// be removed is left, and the rest goes. What interrupted runs left goes with its folder, if nobody is
    /// at it. `going` is called now and then; what it says ends that.
    ///
    /// # Errors
    /// It is not there, is the root, or is a folder that is not empty; the system said no; something is
    /// being received in it; that of `going`.
    pub fn remove(
        &self, path: &RemotePath, is_recursive: bool, going: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<(), NotRemoved> {
        let Some((parent, name)) = path.split() else {
            return Err(Error::Refused { path: path.clone(), what: "the root" }.into());
        };
        let above = jail::open_directory(self.root.as_fd(), &parent);
        let above = above.map_err(|errno| folder_refusal(&parent, "open", errno))?;
        match self.take_name(above.as_fd(), name) {
            Err(Errno::ISDIR) if is_recursive => {
                let removal = Removal { store: self, path, above: above.as_fd(), levels: Vec::new(), failed: None };
                removal.run(name, going)
            }
            Err(Errno::ISDIR) => Ok(self.remove_empty(path, above.as_fd(), name)?),
            taken => Ok(taken.map_err(|errno| not_removed(path, errno))?),
        }
    }

    /// Takes a name that is no folder's (`ISDIR`) out of an open folder. Where that was the last of a file
    /// it counts no more.
    pub(super) fn take_name(&self, above: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        let Some(ledger) = self.ledger() else { return jail::remove(above, name) };
        let _turn = self.allowance.take_turn();
        let gone = usage::behind(above, name);
        jail::remove(above, name)?;
        gone.into_iter().for_each(|gone| ledger.forget(gone));
        Ok(())
    }

    fn remove_empty(&self, path: &RemotePath, above: BorrowedFd<'_>, name: &OsStr) -> Result<(), Error> {
        let refused = |what| Error::Refused { path: path.clone(), what };
        match jail::remove_directory(above, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            removed => return removed.map_err(|errno| not_removed(path, errno)),
        }
        let folder = jail::open_readable(above, Path::new(name)).map_err(|errno| folder_refusal(path, "open", errno))?;
        let names = Dir::read_from(&folder).map_err(|errno| not_removed(path, errno))?;
        // Whoever lists it sees nothing in it.
        if names.flatten().any(|entry| !is_hidden(entry.file_name().to_bytes())) {
            return Err(refused(NOT_EMPTY));
        }
        self.remove_leftovers(folder.as_fd(), path).map_err(|source| failed(path, source))?;
        match jail::remove_directory(above, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(refused(RECEIVING)),
            removed => removed.map_err(|errno| not_removed(path, errno)),
        }
    }
}

fn is_hidden(name: &[u8]) -> bool {
    matches!(name, b"." | b"..") || TempName::parse(name).is_some()
}

fn failed(path: &RemotePath, source: io::Error) -> Error {
    Error::Io { path: path.clone(), act: "remove", source }
}

fn not_removed(path: &RemotePath, errno: Errno) -> Error {
    failed(path, errno.into())
}

/// A folder that is being removed with all that is in it.
struct Removal<'a> {
    store: &'a Store,
    path: &'a RemotePath,
    /// The folder that it is in.
    above: BorrowedFd<'a>,
    /// The folder itself, and those below it that lead to the one that is worked on.
    levels: Vec<Level>,
    failed: Option<NotRemoved>,
}

/// A folder of which something is still there.
#[derive(Default)]
struct Level {
    name: OsString,
    /// The folder itself, of one in so many: a deep one is not looked for from the top each time.
    held: Option<OwnedFd>,
    /// Folders in it that were met, and are to be removed before it.
    folders: Names,
    round: Round,
    rounds: u32,
    /// Can something in it not be removed?
    stays: bool,
}

/// How far it has been gone through.
#[derive(Default)]
struct Round {
    /// Where that goes on, as the file system calls it.
    position: i64,
    is_over: bool,
    has_temps: bool,
    /// Was anything removed, or another's name met that is gone by now?
    did_something: bool,
}

impl Removal<'_> {
    fn run(mut self, name: &OsStr, going: &mut dyn FnMut() -> io::Result<()>) -> Result<(), NotRemoved> {
        let mut folder = self.enter(self.above, name);
        while !self.levels.is_empty() {
            match self.step(folder, going) {
                Ok(next) => folder = next,
                Err(told) => {
                    self.fail(failed(self.path, told));
                    break;
                }
            }
        }
        self.failed.map_or(Ok(()), Err)
    }

    /// Does the next thing in the deepest folder, which is open unless it is gone; gives the one that is the
    /// deepest then.
    ///
    /// # Errors
    /// That of `going`.
    fn step(&mut self, folder: Option<OwnedFd>, going: &mut dyn FnMut() -> io::Result<()>) -> io::Result<Option<OwnedFd>> {
        going()?;
        let (Some(folder), Some(level)) = (folder, self.levels.last_mut()) else { return Ok(self.leave()) };
        if let Some(name) = level.folders.pop() {
            level.round.did_something = true;
            let below = self.enter(folder.as_fd(), OsStr::from_bytes(&name));
            return Ok(below.or(Some(folder)));
        }
        if !level.round.is_over {
            let mut round = std::mem::take(&mut level.round);
            let mut folders = Names::default();
            self.go_through(folder.as_fd(), &mut round, &mut folders, going)?;
            if let Some(level) = self.levels.last_mut() {
                (level.round, level.folders) = (round, folders);
            }
            return Ok(Some(folder));
        }
        if level.round.has_temps
            && let Err(error) = self.store.remove_leftovers(folder.as_fd(), self.path)
        {
            let path = self.path_to(None);
            self.fail(failed(&path, error));
        }
        Ok(self.leave())
    }

    /// Opens a folder and makes it the deepest one; nothing where it is gone, or is none and went as what
    /// it is.
    fn enter(&mut self, above: BorrowedFd<'_>, name: &OsStr) -> Option<OwnedFd> {
        let open = || jail::open_readable(above, Path::new(name));
        let opened = match open() {
            // Whoever may remove a folder may look into it, whatever it was received with.
            Err(Errno::ACCESS) => jail::open_child(above, name).and_then(|child| let_owner_in(&child)).and_then(|()| open()),
            opened => opened.inspect(|folder| _ = let_owner_in(folder)),
        };
        let errno = match opened {
            Ok(folder) => {
                let depth = self.levels.len();
                let is_held = depth.is_multiple_of(REMOVE_HELD_EVERY) && depth / REMOVE_HELD_EVERY < REMOVE_HELD_MAX;
                // Without it only more is looked up.
                let held = if is_held { folder.try_clone().ok() } else { None };
                self.levels.push(Level { name: name.to_owned(), held, ..Level::default() });
                return Some(folder);
            }
            Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => match self.store.take_name(above, name) {
                Ok(()) => return None,
                Err(errno) => errno,
            },
            Err(errno) => errno,
        };
        self.fail_at(name, errno);
        None
    }

    /// Removes what is in the deepest folder but folders, of which it remembers some.
    fn go_through(
        &mut self, folder: BorrowedFd<'_>, round: &mut Round, folders: &mut Names, going: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        round.is_over = true;
        let opened = Dir::read_from(folder).and_then(|mut listing| {
            let sought = if round.position == 0 { Ok(()) } else { listing.seek(round.position) };
            sought.map(|()| listing)
        });
        let mut listing = match opened {
            Ok(listing) => listing,
            Err(errno) => {
                self.fail_here(errno);
                return Ok(());
            }
        };
        while let Some(entry) = listing.read() {
            going()?;
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => {
                    self.fail_here(errno);
                    return Ok(());
                }
            };
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                folders.push(name);
            } else if self.may_be_received(folder, name) {
                round.has_temps = true;
            } else {
                match self.store.take_name(folder, OsStr::from_bytes(name)) {
                    Ok(()) | Err(Errno::NOENT) => round.did_something = true,
                    Err(Errno::ISDIR) => folders.push(name),
                    Err(errno) => self.fail_at(OsStr::from_bytes(name), errno),
                }
            }
            if folders.len() >= REMOVE_NAMES_LEN_MAX {
                (round.position, round.is_over) = (entry.offset(), false);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Is it a file under a temporary name, or a link on its way to its own?
    fn may_be_received(&self, folder: BorrowedFd<'_>, name: &[u8]) -> bool {
        let Some(temp) = TempName::parse(name) else { return false };
        let is_file = jail::kind_of(folder, OsStr::from_bytes(name)) == Ok(FileType::RegularFile);
        is_file || self.store.is_claimed(temp.half())
    }

    /// Removes the deepest folder, which has been gone through, and opens the one above.
    fn leave(&mut self) -> Option<OwnedFd> {
        let level = self.levels.pop()?;
        let above = match self.open_deepest() {
            Ok(above) => above,
            // Moved or removed, by another.
            Err(errno) => {
                if !matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) {
                    self.fail_here(errno);
                }
                return None;
            }
        };
        let parent = above.as_ref().map_or(self.above, OwnedFd::as_fd);
        if level.stays {
            self.note_stays();
            return above;
        }
        let removed = match jail::remove_directory(parent, &level.name) {
            // Another put something else in its place.
            Err(Errno::NOTDIR) => self.store.take_name(parent, &level.name),
            removed => removed,
        };
        match removed {
            Ok(()) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.round.did_something && level.rounds < REMOVE_ROUNDS_MAX => {
                let again = self.enter(parent, &level.name);
                if let (Some(again), Some(entered)) = (again, self.levels.last_mut()) {
                    entered.rounds = level.rounds.saturating_add(1);
                    return Some(again);
                }
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.round.has_temps => {
                let path = self.path_to(Some(&level.name));
                self.fail(Error::Refused { path, what: RECEIVING });
            }
            Err(errno) => self.fail_at(&level.name, errno),
        }
        above
    }

    /// Opens the folder that is the deepest now; none where that is the one above all of them.
    fn open_deepest(&self) -> Result<Option<OwnedFd>, Errno> {
        let held = self.levels.iter().rposition(|level| level.held.is_some());
        let above = held.and_then(|at| self.levels.get(at)?.held.as_ref()).map_or(self.above, OwnedFd::as_fd);
        let mut folder: Option<OwnedFd> = None;
        let mut path = PathBuf::from(".");
        for level in self.levels.iter().skip(held.map_or(0, |at| at.saturating_add(1))) {
            // The system takes no longer path at once.
            if path.as_os_str().len().saturating_add(level.name.len()) >= PATH_LEN_MAX {
                folder = Some(jail::open_readable(folder.as_ref().map_or(above, OwnedFd::as_fd), &path)?);
                path = PathBuf::from(".");
            }
            path.push(&level.name);
        }
        if self.levels.is_empty() {
            return Ok(None);
        }
        jail::open_readable(folder.as_ref().map_or(above, OwnedFd::as_fd), &path).map(Some)
    }

    fn fail(&mut self, error: Error) {
        match &mut self.failed {
            Some(failed) => failed.more = failed.more.saturating_add(1),
            failed => *failed = Some(error.into()),
        }
        self.note_stays();
    }

    fn note_stays(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.stays = true;
        }
    }

    /// What has this name in the deepest folder can't be removed.
    fn fail_at(&mut self, name: &OsStr, errno: Errno) {
        if errno != Errno::NOENT {
            let path = if self.failed.is_none() { self.path_to(Some(name)) } else { RemotePath::root() };
            self.fail(not_removed(&path, errno));
        }
    }

    /// The deepest folder can't be gone through.
    fn fail_here(&mut self, errno: Errno) {
        let path = self.path_to(None);
        self.fail(folder_refusal(&path, "list", errno));
    }

    /// The path of the deepest folder, or of a name in it; as far as one may be so long.
    fn path_to(&self, name: Option<&OsStr>) -> RemotePath {
        let above = self.path.split().map_or_else(RemotePath::root, |(above, _)| above);
        let names = self.levels.iter().map(|level| level.name.as_os_str()).chain(name);
        let mut bytes = above.as_bytes().to_vec();
        for name in names {
            let len = bytes.len();
            if len > 0 {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name.as_bytes());
            if bytes.len() > PATH_LEN_MAX {
                bytes.truncate(len);
                break;
            }
        }
        RemotePath::parse(&bytes).unwrap_or_else(|_| self.path.clone())
    }
}

#[cfg(test)]
mod tests;
