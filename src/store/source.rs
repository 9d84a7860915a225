//! Files of the tree that are read: opened below the root, and told apart from what they were.

use std::fs::File;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::folders::name_of;
use super::identity::identify_seen;
use super::{Error, Folders, Store, jail, refusal, what_is};
use crate::entry::Identity;
use crate::path::RemotePath;

impl Store {
    /// Opens a regular file for reading; says which had its name before that, in which state. Whoever reads
    /// it finds out afterwards whether what was read is that one's: one look fewer at each small file.
    ///
    /// # Errors
    /// It is not there, is something else, or the system said no.
    pub fn open_source(&self, folders: &mut Folders, path: &RemotePath) -> Result<(File, Identity), Error> {
        let is = |what| Error::Refused { path: path.clone(), what };
        if path.is_root() {
            return Err(is(what_is(FileType::Directory)));
        }
        let opened = self.in_folder_there(folders, path, |folder| {
            let name = name_of(path);
            // Looked at first: whoever opens a FIFO lets go who waits for that, and a device may do anything.
            let seen = jail::look(folder.as_fd(), name)?;
            Ok(match FileType::from_raw_mode(seen.stx_mode.into()) {
                FileType::RegularFile => Ok((jail::open_child_file(folder.as_fd(), name)?, identify_seen(&seen))),
                kind => Err(kind),
            })
        })?;
        match opened {
            Ok(opened) => opened.map_err(|kind| is(what_is(kind))),
            Err(Errno::NOENT) => Err(is(NOT_THERE)),
            Err(errno) => Err(refusal(path, "open", errno)),
        }
    }
}

/// What is said of a name that nothing has.
pub(super) const NOT_THERE: &str = "not there";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode};

    use super::super::identify;
    use super::super::yard::{Yard, path};
    use super::*;

    fn reason(yard: &Yard, name: &str) -> String {
        yard.store.open_source(&mut Folders::default(), &path(name)).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_opened_with_the_identity_that_others_see() {
        let (yard, mut folders) = (Yard::new(), Folders::default());
        fs::create_dir(yard.at("d")).unwrap();
        fs::write(yard.at("d/file"), "content").unwrap();
        let (file, identity) = yard.store.open_source(&mut folders, &path("d/file")).unwrap();
        assert_eq!(identity, identify(&file.metadata().unwrap()));
        assert_eq!(identity.size, 7);
        // The folder has another's name now, and another one its.
        fs::rename(yard.at("d"), yard.at("moved")).unwrap();
        fs::create_dir(yard.at("d")).unwrap();
        fs::write(yard.at("d/other"), "").unwrap();
        assert_eq!(yard.store.open_source(&mut folders, &path("d/other")).unwrap().1.size, 0);
    }

    // C03 C09
    #[test]
    fn what_is_no_file_is_not_opened() {
        let yard = Yard::new();
        fs::create_dir_all(yard.at("folder/real")).unwrap();
        fs::write(yard.at("folder/real/file"), "").unwrap();
        fs::write(yard.outside("secret"), "").unwrap();
        symlink("../out/secret", yard.at("leaf")).unwrap();
        symlink("../out", yard.at("out")).unwrap();
        symlink("folder/real", yard.at("in")).unwrap();
        rustix::fs::mknodat(CWD, yard.at("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        for (name, why) in [
            ("missing", "missing is not there"),
            ("no/where", "no/where is not there"),
            ("folder", "folder is a folder"),
            ("leaf", "leaf is a symbolic link"),
            ("out/secret", "out is a symbolic link, or below one"),
            ("in/file", "in is a symbolic link, or below one"),
            ("folder/real/file/x", "folder/real/file is not a folder, or below something that is not"),
            ("fifo", "fifo is not a regular file"),
        ] {
            assert_eq!(reason(&yard, name), why);
        }
        let root = yard.store.open_source(&mut Folders::default(), &RemotePath::root());
        assert_eq!(root.unwrap_err().to_string(), ". is a folder");
    }
}
