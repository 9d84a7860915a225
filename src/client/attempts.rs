//! A receiver that does not know a job any more: it was restarted, or heard nothing of the job for too
//! long. The job begins again, with what is not there yet.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Refused;
use super::outcome::Words;
use crate::net::Stream;
use crate::net::dial::{Dialer, backoff};
use crate::progress::Progress;
use crate::protocol::BUSY;
use crate::stop::Stop;

/// What was under way counts no more, and another attempt may do: why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Interrupted(pub(super) String);

/// A receiver that was there before, and does not answer now as it did, may do so soon.
pub(super) fn interrupted(error: anyhow::Error, is_first: bool) -> anyhow::Error {
    let is_final = error.downcast_ref::<Refused>().is_some_and(|refused| !refused.0.starts_with(BUSY));
    if is_first || is_final { error } else { Interrupted(format!("{error:#}")).into() }
}

/// Dials for the first connection of an attempt. All but the first begin where the receiver was known to be.
pub(super) fn dial_first(
    dialer: &Dialer, words: &Words, is_first: bool, progress: &Progress, stop: &Stop,
) -> anyhow::Result<Stream> {
    if !is_first {
        return dial_again(dialer, words, progress, stop);
    }
    let stream = dialer.dial(stop).with_context(|| format!("nothing was {}", words.done))?;
    progress.connections.add(1);
    Ok(stream)
}

/// Dials where somebody answered before.
pub(super) fn dial_again(dialer: &Dialer, words: &Words, progress: &Progress, stop: &Stop) -> anyhow::Result<Stream> {
    // Something may have landed: it is no refusal of the whole job.
    let gone = |error| anyhow::anyhow!("the {} went away: {:#}", words.peer, anyhow::Error::from(error));
    let stream = dialer.dial_patiently(stop).map_err(gone)?;
    progress.connections.add(1);
    Ok(stream)
}

/// The attempts at one job.
#[derive(Debug)]
pub(super) struct Attempts {
    retry_for: Duration,
    /// When something was last known to have gone forward.
    moved: Instant,
    /// Attempts that ended since then.
    in_vain: u32,
}

impl Attempts {
    /// None was made.
    #[must_use]
    pub(super) fn new(retry_for: Duration) -> Self {
        Self { retry_for, moved: Instant::now(), in_vain: 0 }
    }

    /// After one that ended with `error`: is another worth it? Waits a little before it; longer where
    /// nothing goes forward, and in the end no more.
    pub(super) fn may_go_on(&mut self, error: &anyhow::Error, progress: &Progress, stop: &Stop) -> bool {
        if !error.is::<Interrupted>() || stop.is_asked() {
            return false;
        }
        if progress.begin_again() {
            (self.moved, self.in_vain) = (Instant::now(), 0);
        }
        if self.moved.elapsed() >= self.retry_for {
            return false;
        }
        tracing::warn!("{error:#}; going on with what is not there yet");
        self.in_vain += 1;
        !stop.wait(backoff(self.in_vain - 1))
    }
}
