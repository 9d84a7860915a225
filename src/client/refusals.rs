//! What the receiver refused with nothing confirmed between, and when that is an answer: about one
//! file, or about the whole run.

use std::sync::Arc;
use std::time::Instant;

use super::outcome::Refusal;
use super::plan::{Chunk, Sending};
use crate::limits::{CHUNK_REFUSALS_MAX, CHUNK_STALLS_MAX, REFUSALS_IN_A_ROW_MAX, REFUSALS_TIME_MIN};

/// Refusals since the last confirmation.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    in_a_row: usize,
    /// Those of them whose chunks were sent alone.
    alone_in_a_row: u32,
    last_confirmation: Option<Instant>,
    first_confirmed: Option<Arc<Sending>>,
    last: Option<Refusal>,
}

/// What is given up for a refusal.
#[derive(Debug, Clone, Copy)]
pub(super) struct GivenUp {
    pub(super) of_file: bool,
    pub(super) of_all: bool,
}

impl Refusals {
    /// Notes that something of a file was confirmed.
    pub(super) fn confirm(&mut self, file: &Arc<Sending>) {
        (self.in_a_row, self.alone_in_a_row) = (0, 0);
        self.last_confirmation = Some(Instant::now());
        self.first_confirmed.get_or_insert_with(|| Arc::clone(file));
    }

    /// Were so many workers refused that the question is whether anything goes through at all?
    #[must_use]
    pub(super) fn are_of_all(&self, workers: usize) -> bool {
        self.in_a_row > workers
    }

    /// Counts a connection that was closed where the answer to a chunk was due.
    pub(super) fn refuse(&mut self, chunk: &mut Chunk, why: &str) -> GivenUp {
        // The first time it was one of several suspects: all connections may break at once.
        self.alone_in_a_row += u32::from(chunk.is_suspect());
        self.in_a_row += 1;
        chunk.refusals += 1;
        let of_all = self.alone_in_a_row >= REFUSALS_IN_A_ROW_MAX && self.is_quiet();
        self.note(chunk, why, GivenUp { of_file: chunk.refusals >= CHUNK_REFUSALS_MAX, of_all })
    }

    /// Counts a connection that was given up because a chunk made no progress.
    pub(super) fn stall(&mut self, chunk: &mut Chunk, why: &str) -> GivenUp {
        chunk.stalls += 1;
        let of_file = chunk.stalls >= CHUNK_STALLS_MAX;
        let of_all = of_file && self.is_quiet();
        self.note(chunk, why, GivenUp { of_file, of_all })
    }

    fn note(&mut self, chunk: &Chunk, why: &str, given_up: GivenUp) -> GivenUp {
        if given_up.of_all || given_up.of_file {
            self.last = Some(Refusal { why: why.to_owned(), of_all: given_up.of_all, known: chunk.file.path.clone() });
        }
        given_up
    }

    /// Was nothing confirmed for some time?
    fn is_quiet(&self) -> bool {
        self.last_confirmation.is_none_or(|at| at.elapsed() >= REFUSALS_TIME_MIN)
    }

    /// What was refused to the end, if something was.
    #[must_use]
    pub(super) fn last(&self) -> Option<Refusal> {
        let mut refusal = self.last.clone()?;
        if let Some(confirmed) = &self.first_confirmed {
            refusal.known = confirmed.path.clone();
        }
        Some(refusal)
    }
}
