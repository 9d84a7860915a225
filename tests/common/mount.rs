//! File systems of a test's own, where that is allowed.
#![allow(clippy::print_stdout, reason = "rows that are skipped are named")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a command that needs rights or tools that may be missing.
pub fn can(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A small file system of its own in memory, gone with the test.
pub struct Mount(PathBuf);

impl Mount {
    /// `None` where that is not allowed: then the row is skipped, and said so.
    pub fn new(folder: &Path, options: &str, row: &str) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        if can(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder)) {
            return Some(Self(folder.to_path_buf()));
        }
        println!("SKIPPED {row}: can't mount a tmpfs here");
        None
    }

    pub fn set_options(&self, options: &str) {
        assert!(can(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0)));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the receiver may still hold it open.
        let _ = can(Command::new("umount").arg("-l").arg(&self.0));
    }
}
