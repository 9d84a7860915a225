//! Folders that a job made on the way, and that nobody has described yet. They are their owner's alone
//! while content comes: what they are to be like may still be said. At the end they get the usual mode.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Mutex;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::attributes::MODE_MASK;
use super::{Error, Event, Store, jail, lock, refusal};
use crate::limits::FOLDERS_MADE_MAX;
use crate::path::RemotePath;

/// The mode of a folder while a job goes on.
pub(super) const PRIVATE: u32 = 0o700;

/// The folders of one job that were made and not described, each with the mode it was made with.
#[derive(Debug, Default)]
pub struct Made(Mutex<BTreeMap<RemotePath, u32>>);

impl Made {
    /// Makes a folder and notes it, so that whoever describes it afterwards finds it noted.
    pub(super) fn make(&self, above: BorrowedFd<'_>, name: &OsStr, path: RemotePath, mode: u32) -> Result<(), Errno> {
        let mut made = lock(&self.0);
        jail::make_directory(above, name, mode)?;
        // One too many stays its owner's alone.
        if made.len() < FOLDERS_MADE_MAX {
            made.insert(path, mode);
        }
        Ok(())
    }

    /// Notes that it was said what a folder is to be like.
    pub(super) fn forget(&self, path: &RemotePath) {
        lock(&self.0).remove(path);
    }

    /// Takes all, the deepest first.
    fn take(&self) -> impl Iterator<Item = (RemotePath, u32)> + use<> {
        std::mem::take(&mut *lock(&self.0)).into_iter().rev()
    }
}

impl Store {
    /// Gives the folders that nobody described the mode that the umask leaves. To be called when their
    /// job has ended, in whatever way: a second time there are none.
    pub fn settle(&self, made: &Made, tell: &mut dyn FnMut(Event<'_>)) {
        for (path, mode) in made.take() {
            if let Err(error) = self.settle_one(&path, mode) {
                tell(Event::Failed(&path, error.to_string()));
            }
        }
    }

    fn settle_one(&self, path: &RemotePath, made_with: u32) -> Result<(), Error> {
        let folder = match jail::open_readable(self.root.as_fd(), path.as_path()) {
            // Somebody removed it, or put something else in its place.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            opened => opened.map_err(|errno| refusal(path, "open", errno))?,
        };
        let stat = jail::look_at(folder.as_fd()).map_err(|errno| refusal(path, "look at", errno))?;
        let (is, usual) = (u32::from(stat.stx_mode), self.umask.of(0o777));
        // Somebody else had another mind.
        if is & MODE_MASK != made_with || made_with == usual {
            return Ok(());
        }
        let set = rustix::fs::fchmod(&folder, Mode::from_raw_mode(is & 0o7000 | usual));
        set.map_err(|errno| refusal(path, "set the mode of", errno))
    }
}
