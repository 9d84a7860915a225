//! Entries on their way from the walk to the control connection: in batches, so that no thread is
//! woken for each.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::entry::Entry;
use crate::limits::{WALKED_BATCH, WALKED_MAX};

/// How long an entry waits for others.
const PATIENCE: Duration = Duration::from_millis(2);

/// A bounded channel.
#[must_use]
pub(super) fn channel() -> (Giver, Entries) {
    channel_of(WALKED_MAX / WALKED_BATCH, WALKED_BATCH)
}

/// A channel that holds so many batches of so many entries.
#[must_use]
pub(super) fn channel_of(batches: usize, batch_max: usize) -> (Giver, Entries) {
    let (sender, receiver) = crossbeam_channel::bounded(batches);
    let giver = Giver { sender, batch: Vec::new(), batch_max, since: Instant::now() };
    (giver, Entries { receiver, batch: Vec::new().into_iter() })
}

/// The end that the walk puts entries in.
#[derive(Debug)]
pub(super) struct Giver {
    sender: Sender<Vec<Entry>>,
    batch: Vec<Entry>,
    batch_max: usize,
    since: Instant,
}

impl Giver {
    /// Adds an entry; `None` where nobody takes any more.
    pub(super) fn give(&mut self, entry: Entry) -> Option<()> {
        if self.batch.is_empty() {
            self.since = Instant::now();
        }
        self.batch.push(entry);
        if self.batch.len() >= self.batch_max || self.since.elapsed() >= PATIENCE { self.flush() } else { Some(()) }
    }

    /// Hands over what waits.
    pub(super) fn flush(&mut self) -> Option<()> {
        if self.batch.is_empty() {
            return Some(());
        }
        self.sender.send(std::mem::take(&mut self.batch)).ok()
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// The end that entries are taken from.
#[derive(Debug)]
pub(super) struct Entries {
    receiver: Receiver<Vec<Entry>>,
    batch: std::vec::IntoIter<Entry>,
}

impl Entries {
    /// The next entry, if one is here.
    pub(super) fn try_next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.batch.next() {
                return Some(entry);
            }
            self.batch = self.receiver.try_recv().ok()?.into_iter();
        }
    }

    /// The next entry, waited for; none when the walk has ended.
    pub(super) fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.batch.next() {
                return Some(entry);
            }
            self.batch = self.receiver.recv().ok()?.into_iter();
        }
    }

    /// Is no entry here now?
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.batch.len() == 0 && self.receiver.is_empty()
    }
}
