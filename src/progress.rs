//! Counters that anyone may add to, the failed entries, and the summary of both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::limits::FAILURES_KEPT_MAX;
use crate::path::RemotePath;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What was added so far.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How far a transfer is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Files found by the walk.
    pub found_files: Counter,
    /// Bytes of the files found.
    pub found_bytes: Counter,
    /// Symbolic links, and further names of files, found by the walk.
    pub found_links: Counter,
    /// Names that the user's rules left out; what is in a folder left out was not looked at.
    pub excluded: Counter,
    /// Entries sent without their extended attributes, which could not be read or are too long.
    pub without_xattrs: Counter,
    /// Files that are there, whole and confirmed.
    pub done_files: Counter,
    /// Folders that are there.
    pub done_directories: Counter,
    /// Bytes confirmed.
    pub done_bytes: Counter,
    /// Bytes of chunks that were sent again.
    pub repeated_bytes: Counter,
    /// Connections that were opened.
    pub connections: Counter,
    /// Connections that broke.
    pub lost_connections: Counter,
    /// Processes that worked, the first one included.
    pub processes: Counter,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    kept: Vec<Failure>,
    count: u64,
}

/// An entry that is not there, or not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The entry.
    pub path: RemotePath,
    /// What happened to it.
    pub reason: String,
}

impl Progress {
    /// Notes that the entry at `path` failed, and why.
    pub fn fail(&self, path: &RemotePath, reason: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        if failures.kept.len() < FAILURES_KEPT_MAX {
            failures.kept.push(Failure { path: path.clone(), reason: reason.to_owned() });
        }
    }

    /// How many entries failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// The first failures, at most [`FAILURES_KEPT_MAX`].
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).kept.clone()
    }
}
