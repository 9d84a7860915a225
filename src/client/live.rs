//! The streams in use, so that all can be shut down at once when the run is to stop.

use std::collections::HashMap;
use std::net::Shutdown;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::net::{Handle, Stream};

/// All streams of a run.
#[derive(Debug, Default)]
pub(super) struct Live(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    streams: HashMap<u64, Handle>,
    next: u64,
    shut: bool,
}

/// A stream that is known to [`Live`] until it is dropped, or to nobody.
#[derive(Debug)]
pub(super) struct Registered<'a> {
    stream: Stream,
    /// Where it is known, and by which number.
    known: Option<(&'a Live, u64)>,
}

impl Registered<'_> {
    /// A stream that nobody shuts down but those who have its handle.
    pub(super) fn alone(stream: Stream) -> Self {
        Self { stream, known: None }
    }
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stream; one that comes too late is shut down at once.
    pub(super) fn register(&self, stream: Stream) -> Registered<'_> {
        let mut state = self.lock();
        if state.shut {
            stream.handle().shutdown(Shutdown::Both);
        }
        let number = state.next;
        state.next += 1;
        state.streams.insert(number, stream.handle().clone());
        Registered { stream, known: Some((self, number)) }
    }

    /// Shuts down all streams, those to come included.
    pub(super) fn shut_down(&self) {
        let mut state = self.lock();
        state.shut = true;
        for stream in state.streams.values() {
            stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if let Some((live, number)) = self.known {
            live.lock().streams.remove(&number);
        }
    }
}

impl Deref for Registered<'_> {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.stream
    }
}

impl DerefMut for Registered<'_> {
    fn deref_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }
}
