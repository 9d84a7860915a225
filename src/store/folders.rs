//! Folders held open, so that a file costs no walk from the root; and folders made on the way.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::{Error, Store, folder_refusal, jail, refusal};
use crate::limits::{FOLDER_TRUSTED_FOR, FOLDERS_MAX};
use crate::path::RemotePath;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    /// Does a file that is created here get exactly the mode it is given? Not where the folder has an
    /// access list of its own for what is made in it.
    pub(super) keeps_modes: bool,
}

impl Folder {
    fn open(root: BorrowedFd<'_>, path: &RemotePath) -> Result<Self, Errno> {
        match jail::open_readable(root, path.as_path()) {
            Ok(fd) => {
                let list = rustix::fs::fgetxattr(&fd, c"system.posix_acl_default", &mut [0; 0][..]);
                let keeps_modes = matches!(list, Err(Errno::NODATA | Errno::OPNOTSUPP));
                Ok(Self { fd, keeps_modes })
            }
            // One that may be entered and not read.
            Err(Errno::ACCESS) => Ok(Self { fd: jail::open_directory(root, path)?, keeps_modes: false }),
            Err(errno) => Err(errno),
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The folders that one connection used last, held open. Each store wants its own.
///
/// A folder's name may pass to another one at any time: after a moment it is looked up again.
#[derive(Debug, Default)]
pub struct Folders {
    /// The one used last comes first: it is nearly always the next as well.
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    path: Box<[u8]>,
    found: Instant,
    folder: Arc<Folder>,
}

impl Folders {
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
        self.open_directory(&parent)?;
        let folder = Folder::open(self.root.as_fd(), &parent).map_err(|errno| folder_refusal(&parent, "open", errno))?;
        let folder = Arc::new(folder);
        folders.put(path.split_bytes().0, &folder);
        Ok(folder)
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

    /// Makes a folder that will get its attributes at the end, those above it as well; tells whether it
    /// is new. Until the end a new one is its owner's alone, and one that is there lets its owner in.
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
            match jail::make_directory(folder.as_fd(), name, 0o700) {
                Err(Errno::EXIST) => Ok(false),
                made => made.map(|()| true),
            }
        })?;
        if let (false, Some(above)) = (made, above) {
            let there = jail::open_child(above.as_fd(), name).map_err(|errno| folder_refusal(path, "open", errno))?;
            let_owner_in(&there).map_err(|errno| folder_refusal(path, "open", errno))?;
        }
        Ok(made)
    }
}

/// Lets us into a folder of our own that nobody may enter, read or write.
fn let_owner_in(folder: &OwnedFd) -> Result<(), Errno> {
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
