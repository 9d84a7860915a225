//! Extended attributes of a file or a folder, as far as they are its user's.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::entry::Xattr;
use crate::limits::{XATTR_NAME_LEN_MAX, XATTRS_LEN_MAX, XATTRS_NUM_MAX};

/// Reads extended attributes, with buffers that serve one entry after the other.
#[derive(Debug)]
pub struct XattrReader {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Default for XattrReader {
    fn default() -> Self {
        Self { names: Vec::with_capacity(XATTRS_LEN_MAX), value: Vec::with_capacity(XATTRS_LEN_MAX) }
    }
}

impl XattrReader {
    /// Reads those of an open file or folder that are its user's: `user.*`, and `trusted.*` for
    /// root, who alone sees them. What begins with `security.` or `system.` (labels, capabilities,
    /// ACLs) belongs to the machine; a capability is as much a privilege as the set-uid bit, which
    /// is not sent either.
    ///
    /// # Errors
    /// Why they can't be sent, for a person.
    pub fn read(&mut self, open: impl AsFd) -> Result<Vec<Xattr>, String> {
        self.names.clear();
        match rustix::fs::flistxattr(&open, spare_capacity(&mut self.names)) {
            Ok(_) => {}
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(reason_of(error)),
        }
        let (mut xattrs, mut sum) = (Vec::new(), 0usize);
        for name in self.names.split_inclusive(|&byte| byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
            let bytes = name.to_bytes();
            if !bytes.starts_with(b"user.") && !bytes.starts_with(b"trusted.") {
                continue;
            }
            self.value.clear();
            match rustix::fs::fgetxattr(&open, name, spare_capacity(&mut self.value)) {
                Ok(_) => {}
                // Taken away since it was listed.
                Err(Errno::NODATA) => continue,
                Err(error) => return Err(reason_of(error)),
            }
            sum = sum.saturating_add(bytes.len()).saturating_add(self.value.len());
            if sum > XATTRS_LEN_MAX || bytes.len() > XATTR_NAME_LEN_MAX {
                return Err(too_long());
            }
            if xattrs.len() == XATTRS_NUM_MAX {
                return Err(format!("there are more than {XATTRS_NUM_MAX}"));
            }
            xattrs.push((bytes.into(), self.value.as_slice().into()));
        }
        Ok(xattrs)
    }
}

fn reason_of(error: Errno) -> String {
    match error {
        Errno::RANGE | Errno::TOOBIG => too_long(),
        _ => error.to_string(),
    }
}

fn too_long() -> String {
    format!("they are longer than {} KiB", XATTRS_LEN_MAX / 1024)
}

#[cfg(test)]
mod tests {
    use rustix::fs::XattrFlags;

    use super::*;

    #[test]
    fn what_belongs_to_the_machine_is_not_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let set = |key: &str| rustix::fs::setxattr(file.path(), key, b"x", XattrFlags::empty());
        // A capability has a form of its own; any label will do here.
        if set("user.own").and_then(|()| set("security.label")).is_err() {
            println!("SKIPPED: no right to set security attributes here");
            return;
        }
        let xattrs = XattrReader::default().read(file.as_file()).unwrap();
        assert_eq!(xattrs, [(b"user.own"[..].into(), b"x"[..].into())]);
    }

    #[test]
    fn more_than_a_frame_may_have_are_left_out_with_a_word() {
        let Ok(file) = tempfile::NamedTempFile::new_in("/dev/shm") else {
            println!("SKIPPED: no /dev/shm");
            return;
        };
        let set = |index: usize| rustix::fs::setxattr(file.path(), format!("user.{index}"), b"", XattrFlags::empty());
        let mut reader = XattrReader::default();
        for index in 0..=XATTRS_NUM_MAX {
            if set(index).is_err() {
                println!("SKIPPED: no room for {index} extended attributes in /dev/shm");
                return;
            }
            let read = reader.read(file.as_file());
            assert_eq!(read.is_ok(), index < XATTRS_NUM_MAX, "{index}: {read:?}");
        }
    }
}
