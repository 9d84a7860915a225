//! The umask of the process, taken off once and then applied by hand.
//!
//! With none in the way a file gets exactly the mode that it is created with: a system call less for
//! each file.

use std::sync::OnceLock;

use rustix::fs::Mode;

/// Permission bits that files and folders without a mode of their own do not get.
#[derive(Debug, Clone, Copy)]
pub struct Umask(Mode);

/// Takes the process's umask off and tells which it was. To be called once at the start, before there
/// are threads; later calls tell the same.
pub fn take_umask() -> Umask {
    static TAKEN: OnceLock<Umask> = OnceLock::new();
    *TAKEN.get_or_init(|| Umask(rustix::process::umask(Mode::empty())))
}

impl Umask {
    /// What it leaves of `mode`.
    #[must_use]
    pub fn of(self, mode: u32) -> u32 {
        Mode::from_raw_mode(mode).difference(self.0).as_raw_mode()
    }
}
