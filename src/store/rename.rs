//! New names: of what is there already, and of folders that were not.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;

use super::folders::name_of;
use super::{Error, Store, folder_refusal, jail, refusal};
use crate::path::RemotePath;

const THERE: &str = "there already";

impl Store {
    /// Gives a file, a link or a folder another name, which nothing has. What it counts as is the same.
    ///
    /// # Errors
    /// It is not there; something has that name, or there is no such folder; that is in it, or on another
    /// file system; the system said no.
    pub fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<(), Error> {
        let refused = |path: &RemotePath, what| Error::Refused { path: path.clone(), what };
        let (source, target) = (self.open_above(from)?, self.open_above(to)?);
        match to.strip(from) {
            Some(below) if below.is_root() => return Err(refused(to, THERE)),
            Some(_) => return Err(refused(to, "in what is to have that name")),
            None => {}
        }
        // Whoever replaces something has seen which it is.
        let _turn = self.ledger().map(|_| self.allowance.share_turn());
        jail::move_to_new((source.as_fd(), name_of(from)), (target.as_fd(), name_of(to))).map_err(|errno| match errno {
            Errno::EXIST | Errno::NOTEMPTY => refused(to, THERE),
            Errno::XDEV => refused(to, "on another file system"),
            errno => refusal(from, "rename", errno),
        })
    }

    /// Makes a folder that was not there, in one that was.
    ///
    /// # Errors
    /// Something has that name, there is no folder above, or the system said no.
    pub fn make_new_directory(&self, path: &RemotePath) -> Result<(), Error> {
        let above = self.open_above(path)?;
        jail::make_directory(above.as_fd(), name_of(path), self.umask.of(0o777)).map_err(|errno| match errno {
            Errno::EXIST => Error::Refused { path: path.clone(), what: THERE },
            errno => refusal(path, "make", errno),
        })
    }

    fn open_above(&self, path: &RemotePath) -> Result<OwnedFd, Error> {
        let (above, _) = path.split().ok_or_else(|| Error::Refused { path: path.clone(), what: "the root" })?;
        jail::open_directory(self.root.as_fd(), &above).map_err(|errno| folder_refusal(&above, "open", errno))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::super::take_umask;
    use super::super::yard::{Yard, path};
    use super::*;

    fn rename(yard: &Yard, from: &str, to: &str) -> Result<(), String> {
        yard.store.rename(&path(from), &path(to)).map_err(|error| error.to_string())
    }

    // C03 C09 C16
    #[test]
    fn a_name_is_given_where_there_is_none_and_nothing_is_replaced() {
        let yard = Yard::new();
        fs::create_dir_all(yard.at("d/e")).unwrap();
        fs::create_dir(yard.at("empty")).unwrap();
        fs::write(yard.at("d/f"), "f").unwrap();
        fs::write(yard.at("g"), "g").unwrap();
        fs::write(yard.outside("kept"), "x").unwrap();
        symlink(yard.outside(""), yard.at("link")).unwrap();
        let below_link = "link is a symbolic link, or below one";
        for (from, to, why) in [
            ("g", "d/f", "d/f is there already"),
            ("d", "empty", "empty is there already"),
            ("g", "link", "link is there already"),
            ("g", "g", "g is there already"),
            ("d", "d/e/x", "d/e/x is in what is to have that name"),
            ("missing", "x", "can't rename missing: No such file or directory (os error 2)"),
            ("g", "missing/x", "can't open missing: No such file or directory (os error 2)"),
            ("g", "link/x", below_link),
            ("link/kept", "x", below_link),
            ("g", "d/f/x", "d/f is not a folder, or below something that is not"),
        ] {
            assert_eq!(rename(&yard, from, to).unwrap_err(), why);
        }
        assert!(yard.store.rename(&path("d"), &RemotePath::root()).is_err());
        assert!(yard.store.rename(&RemotePath::root(), &path("d/x")).is_err());
        for (from, to) in [("d", "dd"), ("dd/f", "f"), ("g", "dd/e/g"), ("link", "dd/other")] {
            rename(&yard, from, to).unwrap();
        }
        assert_eq!(fs::read_link(yard.at("dd/other")).unwrap(), yard.outside(""));
        assert_eq!((fs::read(yard.at("f")).unwrap(), fs::read(yard.at("dd/e/g")).unwrap()), (b"f".to_vec(), b"g".to_vec()));
        assert!(yard.outside("kept").exists() && !yard.at("g").exists() && !yard.at("d").exists());
    }

    // C17
    #[test]
    fn a_new_folder_is_made_where_nothing_is_and_where_there_is_a_folder_above() {
        let yard = Yard::new();
        symlink(yard.outside(""), yard.at("link")).unwrap();
        let make = |name: &str| yard.store.make_new_directory(&path(name)).map_err(|error| error.to_string());
        make("d").unwrap();
        make("d/e").unwrap();
        assert_eq!(fs::metadata(yard.at("d/e")).unwrap().mode() & 0o777, take_umask().of(0o777));
        for (name, why) in [
            ("d", "d is there already"),
            ("link", "link is there already"),
            ("x/y", "can't open x: No such file or directory (os error 2)"),
            ("link/x", "link is a symbolic link, or below one"),
        ] {
            assert_eq!(make(name).unwrap_err(), why);
        }
        assert!(yard.store.make_new_directory(&RemotePath::root()).is_err());
        assert_eq!(fs::read_dir(yard.outside("")).unwrap().count(), 0);
    }
}
