//! The extended attributes of what is sent.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::entry::Xattr;
use crate::limits::{XATTR_NAME_LEN_MAX, XATTRS_LEN_MAX};

/// Reads extended attributes, with buffers that serve one entry after the other.
#[derive(Debug)]
pub(super) struct Reader {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { names: Vec::with_capacity(XATTRS_LEN_MAX), value: Vec::with_capacity(XATTRS_LEN_MAX) }
    }
}

impl Reader {
    /// Reads those of an open file or folder that are its user's: `user.*`, and `trusted.*` for
    /// root, who alone sees them. What begins with `security.` or `system.` (labels, capabilities,
    /// ACLs) belongs to the machine; a capability is as much a privilege as the set-uid bit, which
    /// is not sent either.
    ///
    /// # Errors
    /// Why they can't be sent, for a person.
    pub(super) fn read(&mut self, open: impl AsFd) -> Result<Vec<Xattr>, String> {
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
