//! How many connections take chunks: more as long as that raises the rate, fewer where as many are not needed.
//!
//! Hill climbing with hysteresis, told of nothing but the work that was confirmed and the time that it took. On a long
//! path fewer are not tried: one that pauses there begins slowly again, and costs nobody a processor while it goes on.

use std::time::Duration;

use crate::limits::{TUNE_LESS, TUNE_MEASURE, TUNE_MORE, TUNE_OTHER, TUNE_REST, TUNE_SETTLE, TUNE_STUCK};

/// The number of one transfer.
#[derive(Debug)]
pub(super) struct Tuner {
    /// Connections at the most.
    ceiling: usize,
    number: usize,
    trial: Trial,
    /// The rate to be compared with, in work a second.
    rate: f64,
    /// For so long nothing is measured: the last change has not had its effect.
    settling: Duration,
    measured: (u64, Duration),
    /// Since when nothing was confirmed.
    stuck: Duration,
}

/// What is being measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// What the number that there is does.
    Base,
    /// Whether more do more than so many.
    More(usize),
    /// Whether fewer do as much as so many.
    Fewer(usize),
    /// Whether it stays so, for a time.
    Rest(Duration),
}

impl Tuner {
    /// One that begins with `number` connections, and never has more than `ceiling`.
    #[must_use]
    pub(super) fn new(number: usize, ceiling: usize) -> Self {
        Self {
            ceiling,
            number: number.clamp(1, ceiling.max(1)),
            trial: Trial::Base,
            rate: 0.0,
            settling: TUNE_SETTLE,
            measured: (0, Duration::ZERO),
            stuck: Duration::ZERO,
        }
    }

    /// Connections that may take chunks now.
    #[must_use]
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// So much work was confirmed in this time, in which there was more to do than anybody did. `may_shrink`: is it
    /// worth a try with fewer?
    pub(super) fn note(&mut self, work: u64, time: Duration, may_shrink: bool) {
        self.stuck = if work == 0 { self.stuck + time } else { Duration::ZERO };
        if self.stuck >= TUNE_STUCK {
            // All that are at work may wait for something that others would not.
            self.stuck = Duration::ZERO;
            self.begin(Trial::Base, self.number.saturating_mul(2));
            return;
        }
        if !self.settling.is_zero() {
            self.settling = self.settling.saturating_sub(time);
            return;
        }
        self.measured = (self.measured.0.saturating_add(work), self.measured.1 + time);
        if self.measured.1 < TUNE_MEASURE {
            return;
        }
        let rate = self.measured.0 as f64 / self.measured.1.as_secs_f64();
        let measured_for = self.measured.1;
        self.measured = (0, Duration::ZERO);
        match self.trial {
            Trial::Base => {
                self.rate = rate;
                if !self.try_more() {
                    self.try_fewer(may_shrink);
                }
            }
            Trial::More(_) if rate >= self.rate * TUNE_MORE => {
                self.rate = rate;
                if !self.try_more() {
                    self.rest();
                }
            }
            Trial::More(from) => {
                self.begin(Trial::Rest(TUNE_REST), from);
                self.try_fewer(may_shrink);
            }
            Trial::Fewer(_) if rate >= self.rate * TUNE_LESS => {
                // A little less each time would come to much.
                self.rate = self.rate.max(rate);
                self.try_fewer(may_shrink);
            }
            Trial::Fewer(from) => self.begin(Trial::Rest(TUNE_REST), from),
            Trial::Rest(left) => {
                let is_other = rate < self.rate / TUNE_OTHER || rate > self.rate * TUNE_OTHER;
                self.trial = match left.saturating_sub(measured_for) {
                    Duration::ZERO => Trial::Base,
                    _ if is_other => Trial::Base,
                    left => Trial::Rest(left),
                };
            }
        }
    }

    /// There was not enough to do: what was measured says nothing.
    pub(super) fn forget(&mut self) {
        (self.measured, self.stuck) = ((0, Duration::ZERO), Duration::ZERO);
    }

    fn try_more(&mut self) -> bool {
        let is_possible = self.number < self.ceiling;
        if is_possible {
            self.begin(Trial::More(self.number), self.number + (self.number / 2).max(1));
        }
        is_possible
    }

    fn try_fewer(&mut self, may_shrink: bool) {
        if may_shrink && self.number > 1 {
            self.begin(Trial::Fewer(self.number), self.number - (self.number / 3).max(1));
        } else {
            self.rest();
        }
    }

    fn rest(&mut self) {
        self.begin(Trial::Rest(TUNE_REST), self.number);
    }

    fn begin(&mut self, trial: Trial, number: usize) {
        self.settling = if number == self.number { Duration::ZERO } else { TUNE_SETTLE };
        self.measured = (0, Duration::ZERO);
        self.trial = trial;
        self.number = number.min(self.ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(500);

    /// The numbers after each of so many seconds on a link of which `rate` says what so many connections do.
    fn run(tuner: &mut Tuner, seconds: u64, may_shrink: bool, mut rate: impl FnMut(usize) -> f64) -> Vec<usize> {
        let step = |_| {
            for _ in 0..2 {
                tuner.note((rate(tuner.number()) / 2.0) as u64, STEP, may_shrink);
            }
            tuner.number()
        };
        (0..seconds).map(step).collect()
    }

    /// Noise of a tenth, the same each time.
    fn noise() -> impl FnMut() -> f64 {
        let mut seed = 7_u32;
        move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0.9 + f64::from(seed >> 16) / f64::from(1 << 16) * 0.2
        }
    }

    #[test]
    fn where_each_connection_brings_its_own_it_grows_to_the_ceiling() {
        let mut noise = noise();
        let numbers = run(&mut Tuner::new(8, 64), 40, false, |number| number as f64 * 1e6 * noise());
        assert_eq!(numbers.last(), Some(&64), "{numbers:?}");
    }

    #[test]
    fn where_the_link_is_full_it_stays_near_what_fills_it() {
        let mut noise = noise();
        let mut tuner = Tuner::new(8, 64);
        let numbers = run(&mut tuner, 120, false, |number| (number as f64).min(16.0) * 1e6 * noise());
        let most = numbers.iter().filter(|number| (12..=27).contains(*number)).count();
        assert!(most > 90, "{numbers:?}");
        let numbers = run(&mut Tuner::new(8, 64), 60, false, |_| 1e7);
        assert!(numbers.iter().filter(|number| **number == 8).count() > 45, "{numbers:?}");
    }

    #[test]
    fn where_few_do_it_all_few_stay_and_where_none_is_to_spare_none_goes() {
        let numbers = run(&mut Tuner::new(6, 6), 40, true, |number| 1e9 * (1.1 - number as f64 / 60.0));
        assert_eq!(numbers.last(), Some(&1), "{numbers:?}");
        let numbers = run(&mut Tuner::new(6, 6), 60, true, |number| number as f64 * 1e6);
        assert!(numbers.iter().filter(|number| **number == 6).count() > 48, "{numbers:?}");
        let numbers = run(&mut Tuner::new(6, 6), 60, false, |_| 1e9);
        assert!(numbers.iter().all(|number| *number == 6), "{numbers:?}");
    }

    #[test]
    fn a_link_that_changes_is_measured_anew_and_one_that_is_stuck_gets_more() {
        let mut tuner = Tuner::new(8, 32);
        run(&mut tuner, 30, false, |_| 1e8);
        let numbers = run(&mut tuner, 30, false, |number| number as f64 * 1e6);
        assert_eq!(numbers.last(), Some(&32), "{numbers:?}");
        let mut tuner = Tuner::new(4, 32);
        assert!(run(&mut tuner, 6, true, |_| 0.0).last() >= Some(&8));
        let mut short = Tuner::new(6, 6);
        run(&mut short, 2, true, |_| 1e8);
        short.forget();
        assert_eq!(short.number(), 6);
    }
}
