//! A rate that many streams share.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lets so many bytes a second pass, however many streams ask.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When all that was let pass will have passed.
    free_at: Mutex<Instant>,
}

/// What may pass at once after a pause: a tenth of a second's worth.
const BURSTS_PER_SECOND: u64 = 10;

impl Pace {
    /// A rate, of at least a byte a second.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// How many of `len` bytes may pass together.
    #[must_use]
    pub fn share(&self, len: usize) -> usize {
        len.min(usize::try_from(self.bytes_per_second.div_ceil(BURSTS_PER_SECOND)).unwrap_or(usize::MAX))
    }

    /// Waits until `len` bytes may pass.
    pub fn wait(&self, len: usize) {
        let now = Instant::now();
        let takes = Duration::from_secs_f64(len as f64 / self.bytes_per_second as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(Duration::from_secs(1) / BURSTS_PER_SECOND as u32).unwrap_or(now);
        let start = (*free_at).max(earliest);
        *free_at = start + takes;
        drop(free_at);
        thread::sleep(start.saturating_duration_since(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_the_time_that_the_rate_says() {
        let pace = Pace::new(1_000_000);
        let before = Instant::now();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut left = 100_000;
                    while left > 0 {
                        let share = pace.share(left);
                        pace.wait(share);
                        left -= share;
                    }
                });
            }
        });
        // 0.3 s less what may pass at once, and less the last, which is not waited for.
        assert!(before.elapsed() >= Duration::from_millis(100), "{:?}", before.elapsed());
        assert_eq!(pace.share(usize::MAX), 100_000);
        assert_eq!(Pace::new(0).share(5), 1);
    }
}
