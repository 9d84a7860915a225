//! The end of a job: links get their places, then folders their attributes, the deepest first.

use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::attributes::{self, MODE_MASK, Notes};
use super::folders::name_of;
use super::pending::{self, Order, Spool};
use super::temp::TempName;
use super::{Error, Folders, OnExisting, Pending, Store, aside, folder_refusal, jail, refusal};
use crate::entry::{Attributes, Entry, Kind, Time};
use crate::limits::{PATH_LEN_MAX, TEMP_TRIES_MAX};
use crate::path::RemotePath;

/// What is told while the end of a job is worked off.
#[derive(Debug)]
pub enum Event<'a> {
    /// One more is dealt with.
    Going,
    /// This one could not be made, or not be finished.
    Failed(&'a RemotePath, String),
    /// This one is there, and something could not be put on it.
    Noted(&'a RemotePath, String),
}

impl Pending {
    /// Makes the links in the order they were added, then puts the folders' attributes on them in the
    /// reverse order: what is done in a folder changes its time, and its mode may forbid it.
    ///
    /// # Errors
    /// What was kept can't be read back. What fails for one of them is told as an event.
    pub fn apply(&self, store: &Store, on_existing: OnExisting, tell: &mut dyn FnMut(Event<'_>)) -> io::Result<()> {
        let mut folders = Folders::default();
        each(&self.links, Order::AsAdded, tell, |entry, notes| store.make_link(&mut folders, entry, on_existing, notes))?;
        each(&self.folders, Order::Reversed, tell, |entry, notes| store.finish_folder(entry, notes))
    }
}

fn each(
    spool: &Spool, order: Order, tell: &mut dyn FnMut(Event<'_>), mut act: impl FnMut(&Entry, &mut Notes) -> Result<(), Error>,
) -> io::Result<()> {
    let mut is_damaged = false;
    spool.read(order, |record| {
        let Some(entry) = pending::decode(record) else {
            is_damaged = true;
            return ControlFlow::Break(());
        };
        let mut notes = Notes::default();
        if let Err(error) = act(&entry, &mut notes) {
            tell(Event::Failed(&entry.path, error.to_string()));
        } else if let Some(note) = notes.into_text() {
            tell(Event::Noted(&entry.path, note));
        }
        tell(Event::Going);
        ControlFlow::Continue(())
    })?;
    if is_damaged { Err(pending::damaged()) } else { Ok(()) }
}

impl Store {
    fn finish_folder(&self, entry: &Entry, notes: &mut Notes) -> Result<(), Error> {
        let Kind::Directory { mtime } = entry.kind else { return Ok(()) };
        let opened = jail::open_readable(self.root.as_fd(), entry.path.as_path());
        let folder = opened.map_err(|errno| folder_refusal(&entry.path, "open", errno))?;
        let stat = jail::look_at(folder.as_fd()).map_err(|errno| refusal(&entry.path, "look at", errno))?;
        let (is, wanted) = (u32::from(stat.stx_mode), u32::from(entry.attributes.mode) & MODE_MASK);
        // The special bits of a folder are this side's own: a shared folder stays shared.
        let mode = (is & MODE_MASK != wanted).then_some(is & 0o7000 | wanted);
        attributes::put_on(folder.as_fd(), &entry.attributes, mode, mtime, notes)
            .map_err(|(act, errno)| refusal(&entry.path, act, errno))
    }

    fn make_link(&self, folders: &mut Folders, entry: &Entry, on_existing: OnExisting, notes: &mut Notes) -> Result<(), Error> {
        match &entry.kind {
            Kind::Symlink { target, mtime } => {
                self.make_symlink(folders, &entry.path, target, (&entry.attributes, *mtime), on_existing, notes)
            }
            Kind::HardLink { to } => self.make_hard_link(folders, &entry.path, to, on_existing),
            _ => Ok(()),
        }
    }

    /// Nothing ever follows the target: it is text.
    fn make_symlink(
        &self, folders: &mut Folders, path: &RemotePath, target: &[u8], (attributes, mtime): (&Attributes, Time),
        on_existing: OnExisting, notes: &mut Notes,
    ) -> Result<(), Error> {
        if target.is_empty() || target.len() > PATH_LEN_MAX || target.contains(&0) {
            return Err(Error::Refused { path: path.clone(), what: "a symbolic link to what is no path" });
        }
        let (text, name) = (OsStr::from_bytes(target), name_of(path));
        let (folder, temp) = self.in_folder(folders, path, "make", |folder| {
            let there = rustix::fs::readlinkat(folder.as_fd(), name, Vec::new());
            let temp = match there.is_ok_and(|there| there.as_bytes() == target) {
                true => None,
                false => Some(self.under_temp_name(|temp| rustix::fs::symlinkat(text, folder.as_fd(), temp))?),
            };
            Ok((Arc::clone(folder), temp))
        })?;
        let made = temp.as_ref().map_or(name, TempName::as_name);
        let placed = dress_symlink(folder.as_fd(), made, attributes, mtime, notes)
            .map_err(|errno| refusal(path, "set the time of", errno))
            .and_then(|()| temp.map_or(Ok(()), |temp| place(folder.as_fd(), temp, path, on_existing)));
        if let (Err(_), Some(temp)) = (&placed, temp) {
            let _ = jail::remove(folder.as_fd(), temp.as_name());
        }
        placed
    }

    fn make_hard_link(
        &self, folders: &mut Folders, path: &RemotePath, to: &RemotePath, on_existing: OnExisting,
    ) -> Result<(), Error> {
        let missing = || Error::Refused { path: path.clone(), what: "a link to a file that is not there" };
        let from = self.find_folder(folders, to)?.ok_or_else(missing)?;
        let (folder, temp) = self.in_folder(folders, path, "link", |folder| {
            let link = |temp: &OsStr| rustix::fs::linkat(from.as_fd(), name_of(to), folder.as_fd(), temp, AtFlags::empty());
            Ok((Arc::clone(folder), self.under_temp_name(link)?))
        })?;
        let placed = place_hard_link(folder.as_fd(), temp, path, on_existing);
        // Of two links to one file a rename leaves both.
        let _ = jail::remove(folder.as_fd(), temp.as_name());
        placed
    }

    fn under_temp_name(&self, mut make: impl FnMut(&OsStr) -> Result<(), Errno>) -> Result<TempName, Errno> {
        for _ in 0..TEMP_TRIES_MAX {
            let temp = self.temp_names.next();
            match make(temp.as_name()) {
                Err(Errno::EXIST) => {}
                made => return made.map(|()| temp),
            }
        }
        Err(Errno::EXIST)
    }
}

fn dress_symlink(
    folder: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes, mtime: Time, notes: &mut Notes,
) -> Result<(), Errno> {
    let times = attributes::times(mtime).ok_or(Errno::INVAL)?;
    let set = rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    attributes::or_note(set, notes, "time")?;
    attributes::set_owner(folder, name, attributes.owner, notes);
    Ok(())
}

/// What was linked may be anything by then: only a regular file gets the name.
fn place_hard_link(folder: BorrowedFd<'_>, temp: TempName, path: &RemotePath, on_existing: OnExisting) -> Result<(), Error> {
    let made = jail::look(folder, temp.as_name()).map_err(|errno| refusal(path, "look at", errno))?;
    if FileType::from_raw_mode(made.stx_mode.into()) != FileType::RegularFile {
        return Err(Error::Refused { path: path.clone(), what: "a link to what is not a regular file" });
    }
    let inode = |stat: &rustix::fs::Statx| (stat.stx_ino, stat.stx_dev_major, stat.stx_dev_minor);
    match jail::look(folder, name_of(path)) {
        Ok(there) if inode(&there) == inode(&made) => Ok(()),
        _ => place(folder, temp, path, on_existing),
    }
}

/// Gives a link its name, in the place of whatever had it but a folder.
fn place(folder: BorrowedFd<'_>, temp: TempName, path: &RemotePath, on_existing: OnExisting) -> Result<(), Error> {
    let name = name_of(path);
    let kept = match on_existing {
        OnExisting::Replace => None,
        OnExisting::KeepAside => aside::keep_aside(folder, name, path, None)?,
    };
    jail::rename_over(folder, temp.as_name(), name).map_err(|errno| {
        if let Some(kept) = kept {
            aside::put_back(folder, &kept, name);
        }
        refusal(path, "publish", errno)
    })
}
