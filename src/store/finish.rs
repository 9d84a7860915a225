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
use super::charge::Charge;
use super::folders::{Folder, name_of};
use super::pending::{self, Order, Spool};
use super::place::give_name;
use super::temp::TempName;
use super::{Error, Folders, Made, OnExisting, Pending, Store, folder_refusal, jail, refusal};
use crate::entry::{Attributes, Entry, Kind, Time};
use crate::limits::{PATH_LEN_MAX, TEMP_TRIES_MAX};
use crate::path::RemotePath;

/// What is told while the end of a job is worked off, once of each entry.
#[derive(Debug)]
pub enum Event<'a> {
    /// This one is there, with all that belongs to it.
    Made(&'a Entry),
    /// This one could not be made, or not be finished.
    Failed(&'a RemotePath, String),
    /// This one is there, and something could not be put on it.
    Noted(&'a RemotePath, String),
}

impl Pending {
    /// Makes the links in the order they were added, then puts the folders' attributes on them in the
    /// reverse order: what is done in a folder changes its time, and its mode may forbid it. Last those
    /// that the job `made` and nobody described get the usual mode.
    ///
    /// # Errors
    /// What was kept can't be read back. What fails for one of them is told as an event.
    pub fn apply(
        &self, store: &Store, made: &Arc<Made>, on_existing: OnExisting, tell: &mut dyn FnMut(Event<'_>),
    ) -> io::Result<()> {
        let mut folders = Folders::of(Arc::clone(made));
        each(&self.links, Order::AsAdded, tell, |entry, notes| store.make_link(&mut folders, entry, on_existing, notes))?;
        each(&self.folders, Order::Reversed, tell, |entry, notes| store.finish_folder(entry, notes))?;
        store.settle(made, tell);
        Ok(())
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
        tell(match (act(&entry, &mut notes), notes.into_text()) {
            (Err(error), _) => Event::Failed(&entry.path, error.to_string()),
            (Ok(()), Some(note)) => Event::Noted(&entry.path, note),
            (Ok(()), None) => Event::Made(&entry),
        });
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
        let mut charge = self.charge_link(folders, path, Some(target.len()), on_existing)?;
        let (folder, temp) = self.in_folder(folders, path, "make", |folder| {
            let there = rustix::fs::readlinkat(folder.as_fd(), name, Vec::new());
            self.note_folder(folder, path);
            let temp = match there.is_ok_and(|there| there.as_bytes() == target) && folder.spells(name) {
                true => None,
                false => Some(self.under_temp_name(|temp| rustix::fs::symlinkat(text, folder.as_fd(), temp))?),
            };
            Ok((Arc::clone(folder), temp))
        })?;
        let made = temp.as_ref().map_or(name, TempName::as_name);
        let placed = dress_symlink(folder.as_fd(), made, attributes, mtime, notes)
            .map_err(|errno| refusal(path, "set the time of", errno))
            .and_then(|()| {
                temp.map_or(Ok(()), |temp| give_name(&folder, temp.as_name(), path, (on_existing, None), &mut charge))
            });
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
            let link = |temp: &OsStr| {
                // Whoever takes the other name has seen that it is the last one, or sees two.
                let _turn = self.allowance.share_turn();
                rustix::fs::linkat(from.as_fd(), name_of(to), folder.as_fd(), temp, AtFlags::empty())
            };
            self.note_folder(folder, path);
            Ok((Arc::clone(folder), self.under_temp_name(link)?))
        })?;
        let placed = self
            .charge_link(folders, path, None, on_existing)
            .and_then(|mut charge| place_hard_link(&folder, temp, path, on_existing, &mut charge));
        // Of two links to one file a rename leaves both; and where its other names went meanwhile the file
        // goes by this.
        let _ = self.take_name(folder.as_fd(), temp.as_name());
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
fn place_hard_link(
    folder: &Folder, temp: TempName, path: &RemotePath, on_existing: OnExisting, charge: &mut Option<Charge>,
) -> Result<(), Error> {
    let made = jail::look(folder.as_fd(), temp.as_name()).map_err(|errno| refusal(path, "look at", errno))?;
    if FileType::from_raw_mode(made.stx_mode.into()) != FileType::RegularFile {
        return Err(Error::Refused { path: path.clone(), what: "a link to what is not a regular file" });
    }
    match jail::look(folder.as_fd(), name_of(path)) {
        Ok(there) if jail::is_one(&there, &made) && folder.spells(name_of(path)) => Ok(()),
        _ => give_name(folder, temp.as_name(), path, (on_existing, None), charge),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::super::yard::{Yard, attributes, path};
    use super::*;

    fn symlink_to(name: &str, target: &[u8]) -> Entry {
        Entry { path: path(name), kind: Kind::Symlink { target: target.into(), mtime: (-5, 6) }, attributes: attributes(0o777) }
    }

    fn hard_link(name: &str, to: &str) -> Entry {
        Entry { path: path(name), kind: Kind::HardLink { to: path(to) }, attributes: attributes(0o644) }
    }

    fn folder(name: &str, mode: u16) -> Entry {
        Entry { path: path(name), kind: Kind::Directory { mtime: (9, 10) }, attributes: attributes(mode) }
    }

    /// Applies the entries; gives what failed.
    fn apply(yard: &Yard, entries: &[Entry], on_existing: OnExisting) -> Vec<String> {
        let mut pending = Pending::default();
        entries.iter().for_each(|entry| pending.add(entry).unwrap());
        let (mut told, mut made) = (Vec::new(), 0);
        let applied = pending.apply(&yard.store, &Arc::default(), on_existing, &mut |event| match event {
            Event::Made(_) => made += 1,
            Event::Failed(path, why) => told.push(format!("{path}: {why}")),
            Event::Noted(path, note) => told.push(format!("{path} noted: {note}")),
        });
        applied.unwrap();
        assert_eq!(made + told.len(), entries.len());
        yard.assert_clean();
        told
    }

    // C03 C16
    #[test]
    fn a_symbolic_link_is_text_and_replaces_all_but_a_folder() {
        let yard = Yard::new();
        fs::write(yard.at("file"), "old").unwrap();
        symlink("elsewhere", yard.at("link")).unwrap();
        symlink("\u{e9}/..", yard.at("same")).unwrap();
        fs::create_dir(yard.at("folder")).unwrap();
        symlink(yard.outside(""), yard.at("out")).unwrap();
        let inode = || fs::symlink_metadata(yard.at("same")).unwrap().ino();
        let before = inode();
        let good = [
            ("file", &b"/etc/passwd"[..]),
            ("link", b"\xff\n"),
            ("same", "\u{e9}/..".as_bytes()),
            ("new/a", &[b'x'; PATH_LEN_MAX]),
        ];
        let mut entries: Vec<Entry> = good.iter().map(|(name, target)| symlink_to(name, target)).collect();
        entries.extend(
            [("folder", &b"x"[..]), ("out/x", b"x"), ("empty", b""), ("nul", b"a\0"), ("long", &[b'x'; 4096])]
                .map(|(name, target)| symlink_to(name, target)),
        );
        let failed = apply(&yard, &entries, OnExisting::Replace);
        assert_eq!(failed.len(), 5, "{failed:?}");
        assert_eq!(failed[0], "folder: folder is a folder");
        for (name, target) in good {
            assert_eq!(fs::read_link(yard.at(name)).unwrap().as_os_str().as_bytes(), target);
            let about = fs::symlink_metadata(yard.at(name)).unwrap();
            assert_eq!((about.mtime(), about.mtime_nsec()), (-5, 6));
        }
        assert_eq!(inode(), before);
        assert_eq!(fs::read_dir(yard.outside("")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_link_replaces_is_kept_aside_when_asked() {
        let yard = Yard::new();
        fs::write(yard.at("a"), "old").unwrap();
        for _ in 0..2 {
            assert_eq!(apply(&yard, &[symlink_to("a", b"x")], OnExisting::KeepAside), Vec::<String>::new());
        }
        let names: Vec<_> = fs::read_dir(yard.at("")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names.len(), 2);
        assert!(names.iter().any(|name| fs::read(name).is_ok_and(|content| content == b"old")));
    }

    // C03 C09
    #[test]
    fn a_hard_link_is_to_a_regular_file_below_the_root() {
        let yard = Yard::new();
        yard.put("d/a", b"content", OnExisting::Replace).unwrap();
        fs::write(yard.outside("secret"), "secret").unwrap();
        symlink(yard.outside("secret"), yard.at("leaf")).unwrap();
        symlink(yard.outside(""), yard.at("out")).unwrap();
        fs::create_dir(yard.at("folder")).unwrap();
        fs::write(yard.at("old"), "old").unwrap();
        let entries = [
            hard_link("new/b", "d/a"),
            hard_link("old", "new/b"),
            hard_link("old", "d/a"),
            hard_link("d/a", "d/a"),
            hard_link("x1", "leaf"),
            hard_link("x2", "out/secret"),
            hard_link("x3", "folder"),
            hard_link("x4", "missing"),
            hard_link("x5", "missing/x"),
            hard_link("folder", "d/a"),
            hard_link("out/y", "d/a"),
        ];
        let failed = apply(&yard, &entries, OnExisting::Replace);
        assert_eq!(failed.len(), 7, "{failed:?}");
        let inode = |name| fs::symlink_metadata(yard.at(name)).unwrap().ino();
        assert!(inode("d/a") == inode("new/b") && inode("d/a") == inode("old"));
        assert_eq!(fs::metadata(yard.at("old")).unwrap().nlink(), 3);
        assert!(["x1", "x2", "x3", "x4", "x5"].iter().all(|name| fs::symlink_metadata(yard.at(name)).is_err()));
        assert_eq!(fs::read_dir(yard.outside("")).unwrap().count(), 1);
    }

    #[test]
    fn folders_get_their_attributes_last_and_the_deepest_first() {
        let yard = Yard::new();
        fs::create_dir_all(yard.at("a/b/c")).unwrap();
        fs::set_permissions(yard.at("a/b"), Permissions::from_mode(0o2777)).unwrap();
        symlink("a", yard.at("link")).unwrap();
        let entries = [
            folder("a", 0o500),
            folder("a/b", 0o7555),
            folder("a/b/c", 0o000),
            symlink_to("a/b/c/x", b"y"),
            folder("gone", 0o700),
            folder("link", 0o700),
        ];
        let failed = apply(&yard, &entries, OnExisting::Replace);
        assert_eq!(failed[0], "link: link is a symbolic link, or below one");
        assert!(failed.len() == 2 && failed[1].starts_with("gone: can't open gone: No such file"), "{failed:?}");
        for (name, mode) in [("a/b/c", 0o000), ("a/b", 0o2555), ("a", 0o500)] {
            let about = fs::metadata(yard.at(name)).unwrap();
            assert_eq!((about.mode() & 0o7777, about.mtime(), about.mtime_nsec()), (mode, 9, 10), "{name}");
        }
        fs::set_permissions(yard.at("a"), Permissions::from_mode(0o700)).unwrap();
        for name in ["a/b", "a/b/c"] {
            fs::set_permissions(yard.at(name), Permissions::from_mode(0o700)).unwrap();
        }
    }
}
