//! Folders held open, so that a file costs no walk from the root; and folders made on the way.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::made::PRIVATE;
use super::{Error, Made, Store, folder_refusal, jail, refusal, spelling};
use crate::limits::{FOLDER_TRUSTED_FOR, FOLDERS_MAX};
use crate::path::RemotePath;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    /// Does a file that is created here get exactly the mode it is given? Not where the folder has an
    /// access list of its own for what is made in it.
    pub(super) keeps_modes: bool,
    is_case_blind: OnceLock<bool>,
    /// Is it in the index?
    is_noted: AtomicBool,
}

impl Folder {
    fn open(root: BorrowedFd<'_>, path: &RemotePath) -> Result<Self, Errno> {
        match jail::open_readable(root, path.as_path()) {
            Ok(fd) => {
                let list = rustix::fs::fgetxattr(&fd, c"system.posix_acl_default", &mut [0; 0][..]);
                let keeps_modes = matches!(list, Err(Errno::NODATA | Errno::OPNOTSUPP));
                Ok(Self { fd, keeps_modes, is_case_blind: OnceLock::new(), is_noted: AtomicBool::new(false) })
            }
            // One that may be entered and not read.
            Err(Errno::ACCESS) => {
                let fd = jail::open_directory(root, path)?;
                Ok(Self { fd, keeps_modes: false, is_case_blind: OnceLock::new(), is_noted: AtomicBool::new(false) })
            }
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Is what is called `known` here found under a name of other case, too? One look is enough for all
    /// that comes while the folder is held open.
    pub(super) fn is_case_blind(&self, known: &OsStr) -> bool {
        let Some(other) = spelling::other_case(known) else { return false };
        *self.is_case_blind.get_or_init(|| {
            let inode = |name: &OsStr| jail::look(self.as_fd(), name).map(|stat| stat.stx_ino);
            inode(&other).is_ok_and(|other| inode(known) == Ok(other))
        })
    }

    /// Is what is found as `name` here called so?
    pub(super) fn spells(&self, name: &OsStr) -> bool {
        !self.is_case_blind(name) || spelling::is_listed(self.as_fd(), name)
    }
}

/// The folders that one connection used last, held open. Each store wants its own.
///
/// A folder's name may pass to another one at any time: after a moment it is looked up again.
#[derive(Debug, Default)]
pub struct Folders {
    /// The one used last comes first: it is nearly always the next as well.
    slots: Vec<Slot>,
    /// Those that its job made.
    made: Arc<Made>,
}

#[derive(Debug)]
struct Slot {
    path: Box<[u8]>,
    found: Instant,
    folder: Arc<Folder>,
}

impl Folders {
    /// Those of a connection whose job notes here what is made for it.
    #[must_use]
    pub fn of(made: Arc<Made>) -> Self {
        Self { slots: Vec::new(), made }
    }

    fn get(&mut self, path: &[u8]) -> Option<&Arc<Folder>> {
        let at = self.slots.iter().position(|slot| *slot.path == *path)?;
        if self.slots.get(at)?.found.elapsed() > FOLDER_TRUSTED_FOR {
            self.slots.remove(at);
            return None;
        }
        self.slots.get_mut(..=at)?.rotate_right(1);
        self.slots.first().map(|slot| &slot.folder)
    }

    fn put(&mut self, path: &[u8], folder: &Arc<Folder>) {
        self.forget(path);
        self.slots.truncate(FOLDERS_MAX.saturating_sub(1));
        self.slots.insert(0, Slot { path: path.into(), found: Instant::now(), folder: Arc::clone(folder) });
    }

    fn forget(&mut self, path: &[u8]) {
        self.slots.retain(|slot| *slot.path != *path);
    }
}

impl Store {
    /// The folder of `path`, if there is one.
    pub(super) fn find_folder(&self, folders: &mut Folders, path: &RemotePath) -> Result<Option<Arc<Folder>>, Error> {
        let (above, name) = path.split_bytes();
        if let (Some(folder), false) = (folders.get(above), name.is_empty()) {
            return Ok(Some(Arc::clone(folder)));
        }
        let parent = parent_of(path)?;
        match Folder::open(self.root.as_fd(), &parent) {
            Ok(folder) => {
                let folder = Arc::new(folder);
                folders.put(above, &folder);
                Ok(Some(folder))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(folder_refusal(&parent, "open", errno)),
        }
    }

    /// The folder of `path`, made where it is missing.
    pub(super) fn need_folder(&self, folders: &mut Folders, path: &RemotePath) -> Result<Arc<Folder>, Error> {
        if let Some(folder) = self.find_folder(folders, path)? {
            return Ok(folder);
        }
        let parent = parent_of(path)?;
        self.open_directory(&parent, Some((&folders.made, PRIVATE)))?;
        let folder = Folder::open(self.root.as_fd(), &parent).map_err(|errno| folder_refusal(&parent, "open", errno))?;
        let folder = Arc::new(folder);
        folders.put(path.split_bytes().0, &folder);
        Ok(folder)
    }

    /// A temporary name is about to be in `folder`, which that of `path` is: the index has to say so.
    pub(super) fn note_folder(&self, folder: &Folder, path: &RemotePath) {
        if let (Some(index), false) = (&self.index, folder.is_noted.load(Ordering::Relaxed)) {
            folder.is_noted.store(index.note(path.split_bytes().0), Ordering::Relaxed);
        }
    }

    /// Does something in the folder of `path`, and once more if that was removed meanwhile.
    pub(super) fn in_folder<T>(
        &self, folders: &mut Folders, path: &RemotePath, act: &'static str,
        mut attempt: impl FnMut(&Arc<Folder>) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        match attempt(&self.need_folder(folders, path)?) {
            Err(Errno::NOENT | Errno::STALE) => {}
            done => return done.map_err(|errno| refusal(path, act, errno)),
        }
        folders.forget(path.split_bytes().0);
        attempt(&self.need_folder(folders, path)?).map_err(|errno| refusal(path, act, errno))
    }

    /// Does something in the folder of `path` if there is one, and once more if that was removed meanwhile.
    pub(super) fn in_folder_there<T>(
        &self, folders: &mut Folders, path: &RemotePath, attempt: impl Fn(&Folder) -> Result<T, Errno>,
    ) -> Result<Result<T, Errno>, Error> {
        let Some(folder) = self.find_folder(folders, path)? else { return Ok(Err(Errno::NOENT)) };
        match attempt(&folder) {
            Err(Errno::NOENT | Errno::STALE) => {}
            done => return Ok(done),
        }
        folders.forget(path.split_bytes().0);
        let folder = self.find_folder(folders, path)?;
        Ok(folder.map_or(Err(Errno::NOENT), |folder| attempt(&folder)))
    }

    /// Makes a folder that will get its attributes at the end, those above it as well; tells whether it
    /// is new. Until the end new ones are their owner's alone, and one that is there lets its owner in.
    ///
    /// # Errors
    /// Something that is no folder is there or above, or the system said no.
    pub fn make_described_folder(&self, folders: &mut Folders, path: &RemotePath) -> Result<bool, Error> {
        if path.is_root() {
            return Ok(false);
        }
        let name = name_of(path);
        let mut above = None;
        let made = self.in_folder(folders, path, "make", |folder| {
            above = Some(Arc::clone(folder));
            match jail::make_directory(folder.as_fd(), name, PRIVATE) {
                Err(Errno::EXIST) => Ok(false),
                made => made.map(|()| true),
            }
        })?;
        if let (false, Some(above)) = (made, above) {
            if !above.spells(name) {
                return Err(spelling::taken(path));
            }
            let there = jail::open_child(above.as_fd(), name).map_err(|errno| folder_refusal(path, "open", errno))?;
            let_owner_in(&there).map_err(|errno| folder_refusal(path, "open", errno))?;
        }
        folders.made.forget(path);
        Ok(made)
    }
}

/// Lets us into a folder of our own that nobody may enter, read or write.
pub(super) fn let_owner_in(folder: &OwnedFd) -> Result<(), Errno> {
    let stat = jail::look_at(folder.as_fd())?;
    let mode = u32::from(stat.stx_mode) & 0o7777;
    if mode & 0o700 == 0o700 || stat.stx_uid != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    // A descriptor that needed no right to open can't change the mode itself; this name leads to it.
    let itself = format!("/proc/self/fd/{}", folder.as_raw_fd());
    rustix::fs::chmod(itself, Mode::from_raw_mode(mode | 0o700))
}

fn parent_of(path: &RemotePath) -> Result<RemotePath, Error> {
    let (parent, _) = path.split().ok_or_else(|| Error::Refused { path: path.clone(), what: "the root" })?;
    Ok(parent)
}

/// The last name of a path.
pub(super) fn name_of(path: &RemotePath) -> &OsStr {
    OsStr::from_bytes(path.split_bytes().1)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::super::yard::{Yard, meta, path, published};
    use super::super::{OnExisting, take_umask};
    use super::*;

    fn mode(yard: &Yard, name: &str) -> u32 {
        fs::metadata(yard.at(name)).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_described_folder_is_its_owners_alone_until_the_end() {
        let (yard, mut folders) = (Yard::new(), Folders::default());
        assert!(yard.store.make_described_folder(&mut folders, &path("a/b")).unwrap());
        assert!(!yard.store.make_described_folder(&mut folders, &path("a/b")).unwrap());
        assert!(!yard.store.make_described_folder(&mut folders, &RemotePath::root()).unwrap());
        assert_eq!((mode(&yard, "a"), mode(&yard, "a/b")), (0o700, 0o700));
        for (before, after) in [(0o055, 0o755), (0o000, 0o700), (0o1777, 0o1777), (0o750, 0o750)] {
            fs::set_permissions(yard.at("a/b"), Permissions::from_mode(before)).unwrap();
            yard.store.make_described_folder(&mut folders, &path("a/b")).unwrap();
            assert_eq!(mode(&yard, "a/b"), after);
        }
    }

    // C03 C09
    #[test]
    fn what_is_no_folder_is_not_taken_for_one() {
        let (yard, mut folders) = (Yard::new(), Folders::default());
        fs::write(yard.at("file"), "").unwrap();
        symlink(yard.outside(""), yard.at("link")).unwrap();
        for (name, why) in [("file", "not a folder, or below something that is not"), ("link", "a symbolic link, or below one")] {
            for below in ["", "/x"] {
                let refused = yard.store.make_described_folder(&mut folders, &path(format!("{name}{below}"))).unwrap_err();
                assert_eq!(refused.to_string(), format!("{name} is {why}"));
            }
        }
        assert_eq!(fs::read_dir(yard.outside("")).unwrap().count(), 0);
    }

    // C17
    #[test]
    fn the_base_is_made_with_its_parents() {
        let (yard, made) = (Yard::new(), Made::default());
        assert!(yard.store.open_base(&path("x/y/z"), &made).unwrap());
        assert!(!yard.store.open_base(&path("x/y/z"), &made).unwrap());
        assert!(!yard.store.open_base(&RemotePath::root(), &made).unwrap());
        yard.store.create(&path("x/file")).unwrap();
        assert_eq!((mode(&yard, "x/y"), mode(&yard, "x/file")), (take_umask().of(0o777), take_umask().of(0o666)));
        assert_eq!(mode(&yard, "x/y/z"), 0o700);
        yard.store.settle(&made, &mut |event| panic!("{event:?}"));
        assert_eq!(mode(&yard, "x/y/z"), take_umask().of(0o777));
        yard.store.sync().unwrap();
    }

    #[test]
    fn a_folder_that_was_removed_or_renamed_is_looked_up_again() {
        let (yard, mut folders) = (Yard::new(), Folders::default());
        let put = |folders: &mut Folders, name: &str| {
            let incoming = yard.store.begin(folders, &path(name), &meta(0, 1), OnExisting::Replace).unwrap();
            assert_eq!(incoming.note(0..0).unwrap(), published());
        };
        put(&mut folders, "d/a");
        fs::remove_dir_all(yard.at("d")).unwrap();
        put(&mut folders, "d/b");
        assert!(yard.at("d/b").exists());
        fs::rename(yard.at("d"), yard.at("moved")).unwrap();
        for slot in &mut folders.slots {
            slot.found -= 2 * FOLDER_TRUSTED_FOR;
        }
        put(&mut folders, "d/c");
        assert!(yard.at("d/c").exists() && !yard.at("moved/c").exists());
    }

    #[test]
    fn only_the_folders_used_last_are_held() {
        let (yard, mut folders) = (Yard::new(), Folders::default());
        for number in 0..3 * FOLDERS_MAX {
            yard.store.make_described_folder(&mut folders, &path(format!("{number}/x"))).unwrap();
            yard.store.make_described_folder(&mut folders, &path("0/y")).unwrap();
        }
        assert_eq!(folders.slots.len(), FOLDERS_MAX);
        assert!(folders.get(b"0").is_some() && folders.get(b"1").is_none());
        assert!(matches!(yard.store.find_folder(&mut folders, &path("nowhere/x")), Ok(None)));
        assert!(yard.store.need_folder(&mut folders, &RemotePath::root()).is_err());
    }
}
