//! The content of a whole file that is not on its way, read for its digest.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use rustix::fs::{FileType, OFlags, Statx};
use rustix::io::Errno;

use super::{Error, Store, jail, refusal, what_is};
use crate::limits::BUFFER_LEN;
use crate::path::RemotePath;

/// The BLAKE3 digest of `file`, of this side or the other, from where it is read to its end. `going` is
/// called now and then; what it says ends that.
///
/// # Errors
/// It can't be read; that of `going`.
pub fn hash_file(file: &File, going: &mut dyn FnMut() -> io::Result<()>) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    read_on(file, &mut |bytes| _ = hasher.update(bytes), going)?;
    Ok(*hasher.finalize().as_bytes())
}

fn read_on(mut file: &File, add: &mut dyn FnMut(&[u8]), going: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => add(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        going()?;
    }
}

impl Store {
    /// Gives `add` all bytes of a file, in order. `going` is called now and then; what it says ends that.
    ///
    /// # Errors
    /// It is no file, can't be read, or changed meanwhile: then what was given is of no file that ever was.
    /// That of `going`.
    pub fn sum_up(
        &self, path: &RemotePath, add: &mut dyn FnMut(&[u8]), going: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<(), Error> {
        let failed = |source| Error::Io { path: path.clone(), act: "read", source };
        // Looked at first: whoever opens a FIFO lets go who waits for that, and a device may do anything.
        if let Some((above, name)) = path.split()
            && let Ok(kind) = jail::open_directory(self.root.as_fd(), &above).and_then(|above| jail::kind_of(above.as_fd(), name))
            && !matches!(kind, FileType::RegularFile | FileType::Symlink)
        {
            return Err(Error::Refused { path: path.clone(), what: what_is(kind) });
        }
        let file = jail::open_file(self.root.as_fd(), path, OFlags::RDONLY).map_err(|errno| refusal(path, "open", errno))?;
        let look = || jail::look_at(file.as_fd()).map_err(|errno: Errno| failed(errno.into()));
        let before = look()?;
        match FileType::from_raw_mode(before.stx_mode.into()) {
            FileType::RegularFile => {}
            kind => return Err(Error::Refused { path: path.clone(), what: what_is(kind) }),
        }
        read_on(&file, add, going).map_err(failed)?;
        if state_of(&before) != state_of(&look()?) {
            return Err(failed(io::Error::other("it changed while it was read; try again")));
        }
        Ok(())
    }
}

/// What is another where the content may be.
fn state_of(about: &Statx) -> (u64, [(i64, u32); 2]) {
    (about.stx_size, [&about.stx_mtime, &about.stx_ctime].map(|time| (time.tv_sec, time.tv_nsec)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::super::yard::{Yard, path};
    use super::*;

    /// Reads a file; gives the digest of what came.
    fn read(yard: &Yard, name: &str, going: &mut dyn FnMut() -> io::Result<()>) -> Result<blake3::Hash, String> {
        let mut hasher = blake3::Hasher::new();
        let path = if name.is_empty() { RemotePath::root() } else { path(name) };
        let read = yard.store.sum_up(&path, &mut |bytes| _ = hasher.update(bytes), going);
        read.map(|()| hasher.finalize()).map_err(|error| error.to_string())
    }

    // C03 C09 C20
    #[test]
    fn a_file_is_read_whole_and_as_it_was_or_not_at_all() {
        let yard = Yard::new();
        let content = vec![7; 2 * BUFFER_LEN + 1];
        fs::write(yard.at("a"), &content).unwrap();
        fs::write(yard.outside("x"), "x").unwrap();
        fs::create_dir(yard.at("d")).unwrap();
        symlink(yard.outside("x"), yard.at("link")).unwrap();
        mknodat(CWD, yard.at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(read(&yard, "a", &mut || Ok(())), Ok(blake3::hash(&content)));
        let link = "link is a symbolic link, or below one";
        let missing = "can't open missing: No such file or directory (os error 2)";
        for (name, why) in [("d", "d is a folder"), ("fifo", "fifo is not a regular file"), ("link", link), ("missing", missing)]
        {
            assert_eq!(read(&yard, name, &mut || Ok(())).unwrap_err(), why);
        }
        assert!(read(&yard, "", &mut || Ok(())).unwrap_err().ends_with("is a folder"));
        let mut change = || fs::write(yard.at("a"), "new");
        assert!(read(&yard, "a", &mut change).unwrap_err().contains("it changed while it was read"));
        let told = read(&yard, "a", &mut || Err(io::Error::other("enough")));
        assert_eq!(told.unwrap_err(), "can't read a: enough");
    }

    // C09
    #[test]
    fn what_is_no_file_is_not_even_opened() {
        let yard = Yard::new();
        mknodat(CWD, yard.at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, yard.at("fifo"), WatchFlags::OPEN).unwrap();
        assert_eq!(read(&yard, "fifo", &mut || Ok(())).unwrap_err(), "fifo is not a regular file");
        assert_eq!(rustix::io::read(&watch, &mut [0; 4096]).unwrap_err(), Errno::AGAIN);
    }
}
