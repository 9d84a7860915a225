//! How many passwords are hashed at once: each takes memory and a core, whoever asks.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::limits::{HASHES_MAX, HASHES_WAITING_MAX};

/// Lets some in, and makes some wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    /// The numbers of those who wait, the first one first.
    waiting: VecDeque<u64>,
    /// So many came in.
    entered: u64,
    next: u64,
}

/// A place inside; left when dropped.
#[derive(Debug)]
pub(super) struct Inside<'a>(&'a Gate);

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place; `None` at once where too many wait already.
    pub(super) fn enter(&self) -> Option<Inside<'_>> {
        let mut state = self.lock();
        if state.waiting.len() >= HASHES_WAITING_MAX {
            return None;
        }
        let own = state.next;
        state.next += 1;
        state.waiting.push_back(own);
        while state.inside >= HASHES_MAX || state.waiting.front() != Some(&own) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.pop_front();
        state.inside += 1;
        state.entered += 1;
        drop(state);
        // There may be room for the next one, too.
        self.changed.notify_all();
        Some(Inside(self))
    }

    /// So many came in since the start.
    #[cfg(test)]
    pub(super) fn entered(&self) -> u64 {
        self.lock().entered
    }

    /// So many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Instant;

    fn wait_for(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed().as_secs() < 60, "waited in vain");
            thread::yield_now();
        }
    }

    #[test]
    fn two_are_inside_the_rest_waits_in_order_and_more_than_that_are_sent_away() {
        let gate = Gate::default();
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            let mut inside = VecDeque::from([gate.enter().unwrap(), gate.enter().unwrap()]);
            for number in 0..HASHES_WAITING_MAX {
                let (tell, gate) = (tell.clone(), &gate);
                scope.spawn(move || {
                    let place = gate.enter().unwrap();
                    tell.send(number).unwrap();
                    place
                });
                wait_for(|| gate.waiting() == number + 1);
            }
            assert!(gate.enter().is_none());
            assert_eq!(gate.entered(), 2);
            // With one place the order of those who wait can be seen.
            inside.pop_front();
            let order: Vec<usize> = told.iter().take(HASHES_WAITING_MAX).collect();
            assert!(order.is_sorted(), "{order:?}");
        });
        assert_eq!(gate.entered(), 2 + HASHES_WAITING_MAX as u64);
        assert!(gate.enter().is_some() && gate.waiting() == 0);
    }

    #[test]
    fn no_more_than_two_are_ever_inside() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (gate, inside, most) = (Gate::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let _place = gate.enter().unwrap();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((most.into_inner(), gate.entered()), (HASHES_MAX, 4000));
    }
}
