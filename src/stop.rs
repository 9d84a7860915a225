//! One flag: asked to finish. Whoever waits on descriptors can wait on it as well.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Asked to finish? Set once, by anyone; never unset.
#[derive(Debug)]
pub struct Stop {
    asked: AtomicBool,
    /// Becomes readable when the flag is set, and stays so.
    wake: (UnixStream, UnixStream),
}

impl Stop {
    /// A flag that is not set.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self { asked: AtomicBool::new(false), wake: UnixStream::pair()? })
    }

    /// Sets the flag and wakes all who wait.
    pub fn ask(&self) {
        if !self.asked.swap(true, Ordering::SeqCst) {
            // The other end's close is what the waiters see: it can't fail for want of room.
            let _ = self.wake.1.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Is the flag set?
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until the flag is set, at most `timeout`; true when it is set.
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = Timespec::try_from(timeout).ok();
        // An interrupted wait is a short one, and every caller loops.
        let _ = poll(&mut [PollFd::new(self, PollFlags::IN)], timeout.as_ref());
        self.is_asked()
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.0.as_fd()
    }
}
