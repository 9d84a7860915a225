//! How many ranges a connection may be ahead of its answers: more as soon as the path is long and the
//! answers are waited for.

use std::time::{Duration, Instant};

use crate::limits::{WINDOW_FRAMES_MAX, WINDOW_GROWN_MAX, WINDOW_TRIP_MIN, WINDOW_WAIT_MIN};
use crate::progress::Shortest;

/// The window of one connection. Few where few do, so that the work stays spread over the connections.
#[derive(Debug)]
pub(super) struct Window<'a> {
    frames: usize,
    /// How long it was full and waited for an answer, since it grew last. Answers that come one by one let nobody
    /// wait for long, and few frames be sent all the same.
    waited: Duration,
    /// When the connection asked something that is answered at once, if it does, and has no answer yet.
    asked: Option<Instant>,
    /// What such answers took on all connections.
    round_trip: &'a Shortest,
}

impl<'a> Window<'a> {
    /// That of a new connection. Where nothing is `answered_at_once` it never grows.
    pub(super) fn new(answered_at_once: bool, round_trip: &'a Shortest) -> Self {
        Self { frames: WINDOW_FRAMES_MAX, waited: Duration::ZERO, asked: answered_at_once.then(Instant::now), round_trip }
    }

    /// Ranges that may be unanswered.
    #[must_use]
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// So many times as long as at first.
    #[must_use]
    pub(super) fn growth(&self) -> usize {
        self.frames / WINDOW_FRAMES_MAX
    }

    /// The first answer is here.
    pub(super) fn note_answer(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.round_trip.note(asked.elapsed());
        }
    }

    /// It was full for so long until an answer came. Is it a larger one now?
    pub(super) fn note_full(&mut self, waited: Duration) -> bool {
        let is_long = self.round_trip.known().is_some_and(|trip| trip >= WINDOW_TRIP_MIN);
        if is_long {
            self.waited += waited;
        }
        let grows = self.waited >= WINDOW_WAIT_MIN && self.frames < WINDOW_GROWN_MAX;
        if grows {
            (self.frames, self.waited) = (self.frames * 2, Duration::ZERO);
        }
        grows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(200);
    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn a_window_grows_where_the_path_is_long_and_is_waited_for() {
        let trip = Shortest::default();
        let mut window = Window::new(true, &trip);
        assert!(!window.note_full(LONG), "nobody knows how long the path is");
        trip.note(LONG);
        assert!(!window.note_full(SHORT), "it was hardly waited for");
        assert_eq!((0..4).filter(|_| window.note_full(SHORT)).count(), 1, "in all it was");
        window = Window::new(true, &trip);
        let mut times = 0;
        while window.note_full(LONG) {
            times += 1;
        }
        assert_eq!((window.frames(), window.growth(), times), (WINDOW_GROWN_MAX, 16, 4));
        trip.note(SHORT);
        assert!(!Window::new(true, &trip).note_full(LONG), "the receiver is slow, and not the path");
    }

    #[test]
    fn what_is_not_answered_at_once_says_nothing_of_the_path() {
        let trip = Shortest::default();
        Window::new(false, &trip).note_answer();
        assert_eq!(trip.known(), None);
        Window::new(true, &trip).note_answer();
        assert!(trip.known().is_some());
    }
}
