//! Connections that are dialled while the session is being opened. On a long path the workers' own would be there two
//! round trips after it; on a short one that is no time, and each is dialled when there is work for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::grow::named;
use crate::limits::{READY_AFTER, READY_MAX};
use crate::net::Stream;
use crate::net::dial::{DialError, Dialer, First};
use crate::stop::Stop;

/// Streams that no worker has yet.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    dialer: &'a Dialer,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    dialling: usize,
    streams: Vec<(Instant, Stream)>,
}

/// How long to wait for one that is dialled between two looks at whether it still is.
const LOOK: Duration = Duration::from_millis(100);

impl<'a> Ready<'a> {
    /// None, to this receiver.
    #[must_use]
    pub(super) fn to(dialer: &'a Dialer) -> Self {
        Self { dialer, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dials so many, unless the path is short.
    pub(super) fn dial<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, number: usize, stop: &'scope Stop) {
        if !self.wait_if_long(stop) {
            return;
        }
        self.lock().dialling = number;
        for index in 0..number {
            if let Err(error) = named(scope, &format!("r{index}"), || self.dial_one(stop)) {
                tracing::debug!("no connection ahead of the work: {error}");
                self.note(None);
            }
        }
        drop(self.changed.wait_while(self.lock(), |state| state.dialling > 0));
        // Nobody waits for who says nothing.
        stop.wait(READY_MAX);
        self.lock().streams.clear();
    }

    /// Waits until it is known whether the path is a long one.
    fn wait_if_long(&self, stop: &Stop) -> bool {
        loop {
            let left = match self.dialer.first() {
                Some(First::Took(_)) => return self.dialer.is_far(),
                Some(First::Since(since)) => READY_AFTER.saturating_sub(since.elapsed()),
                None => READY_AFTER,
            };
            if left.is_zero() {
                return true;
            }
            if stop.wait(left) {
                return false;
            }
        }
    }

    fn dial_one(&self, stop: &Stop) {
        // Whoever dials for itself hears why it fails.
        let failed = |error: &DialError| tracing::debug!("no connection ahead of the work: {error}");
        self.note(self.dialer.dial(stop).inspect_err(failed).ok());
    }

    /// One is not dialled any more.
    fn note(&self, stream: Option<Stream>) {
        let mut state = self.lock();
        state.dialling -= 1;
        state.streams.extend(stream.map(|stream| (Instant::now(), stream)));
        self.changed.notify_all();
    }

    /// Takes one that is there, or will be sooner than one that is dialled now.
    pub(super) fn take(&self) -> Option<Stream> {
        let mut state = self.lock();
        loop {
            while let Some((since, stream)) = state.streams.pop() {
                // A receiver cuts off who says nothing.
                if since.elapsed() < READY_MAX {
                    return Some(stream);
                }
            }
            if state.dialling == 0 {
                return None;
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
