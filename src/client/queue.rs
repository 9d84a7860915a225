//! Chunks waiting and in flight, and what became of each. All workers pull from here, so a slow
//! one takes less; whoever fails gives back what it held, and who is idle at the end repeats what takes
//! too long.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::digests::{Digests, ReadDigest};
use super::flight::{Flight, Holder};
use super::lost::Lost;
use super::outcome::{Event, GaveUp, Outcome, Refusal, Taken, Terms, Words};
use super::plan::{Chunk, Rest, Sending};
use super::refusals::{GivenUp, Refusals};
use crate::limits::{AGAIN_AFTER, CHANGES_MAX, CHUNK_TRIES_MAX, PARKED_POLL, QUEUE_FILES_MAX, REPEAT_POLL};
use crate::path::RemotePath;
use crate::progress::Progress;
use crate::protocol::Wanted;

/// Files waiting at which one who waits for room is told that there is some.
const QUEUE_FILES_LOW: usize = QUEUE_FILES_MAX / 4 * 3;

/// The queue of one transfer.
#[derive(Debug)]
pub(super) struct Queue<'a> {
    terms: Terms<'a>,
    progress: &'a Progress,
    state: Mutex<State>,
    lost: Lost,
    /// Those that changed, and were begun anew.
    changed: Lost,
    /// Of the files that are whole.
    digests: Digests<'a>,
    /// There is work, or there never will be.
    work: Condvar,
    /// There is room.
    room: Condvar,
    /// Something for the one who starts workers.
    event: Condvar,
    /// Some may take chunks again.
    parked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Chunks to try again, and since when.
    again: VecDeque<(Instant, Chunk)>,
    rests: VecDeque<Rest>,
    /// Bytes of work in `again` and `rests`.
    waiting_work: u64,
    flight: Flight,
    /// Outcomes that count and are not worked off: they may bring new work.
    open_outcomes: usize,
    /// Workers, and how many of them wait for work.
    workers: usize,
    idle: usize,
    /// What must wait before the one who starts workers is told, while it waits to be told.
    enough_work: Option<u64>,
    /// Why the last worker that gave up did.
    gave_up: Option<GaveUp>,
    /// Threads that may take chunks, those first that came first; all where nobody said so.
    at_work: Option<usize>,
    /// No more files will come.
    closed: bool,
    /// Nothing more is to be done.
    aborted: bool,
    refusals: Refusals,
}

impl State {
    fn is_finished(&self) -> bool {
        let is_waited_for = self.open_outcomes > 0 || !self.flight.is_empty();
        self.aborted || (self.closed && !is_waited_for && self.again.is_empty() && self.rests.is_empty())
    }

    /// Is it better if this one takes nothing, and leaves the work to others?
    fn parks(&self, holder: Holder) -> bool {
        let has_work = !(self.rests.is_empty() && self.again.is_empty());
        has_work && self.at_work.is_some_and(|at_work| self.flight.rank(holder) >= at_work) && !self.is_finished()
    }

    /// Counts the work of what is to wait.
    fn count(&mut self, rest: Rest, length: u64) -> Rest {
        self.waiting_work = self.waiting_work.saturating_add(rest.work(length));
        rest
    }
}

impl<'a> Queue<'a> {
    /// An empty queue.
    #[must_use]
    pub(super) fn new(terms: Terms<'a>, progress: &'a Progress) -> Self {
        let new = Condvar::new;
        let terms = Terms { length: terms.length.max(1), ..terms };
        let (state, lost, changed) = (Mutex::default(), Lost::default(), Lost::default());
        let digests = Digests::told_to(terms.note_digest);
        Self { terms, progress, state, lost, changed, digests, work: new(), room: new(), event: new(), parked: new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds files, waiting while the queue is full; false when nothing more is to be done.
    pub(super) fn push(&self, files: Vec<Sending>) -> bool {
        let mut state = self.lock();
        for file in files {
            if state.rests.len() >= QUEUE_FILES_MAX {
                self.announce(&state);
            }
            while state.rests.len() >= QUEUE_FILES_MAX && !state.aborted {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let rest = state.count(Rest::all_of(file), self.terms.length);
            state.rests.push_back(rest);
        }
        self.announce(&state);
        !state.aborted
    }

    fn announce(&self, state: &State) {
        if state.is_finished() {
            self.wake_all();
        } else if state.idle > 0 {
            self.work.notify_one();
        } else if state.enough_work.is_some_and(|enough| state.waiting_work >= enough || state.workers == 0) {
            self.event.notify_one();
        }
    }

    fn wake_all(&self) {
        self.work.notify_all();
        self.room.notify_all();
        self.event.notify_all();
        self.parked.notify_all();
    }

    /// Says that no more files will come.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.announce(&state);
        // From now on they look for what takes too long.
        self.work.notify_all();
    }

    /// Ends everything: nothing is handed out any more.
    pub(super) fn abort(&self) {
        self.lock().aborted = true;
        self.wake_all();
    }

    /// Takes a chunk for `holder`, waiting for one; `None` when there will be none.
    pub(super) fn take(&self, holder: Holder) -> Option<Chunk> {
        let mut state = self.lock();
        loop {
            if state.parks(holder) {
                // It may have been woken in place of one that may take something.
                self.work.notify_one();
                state = self.parked.wait_timeout(state, PARKED_POLL).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            match self.pop(&mut state, holder, Instant::now()) {
                Taken::Chunk(chunk) => return Some(chunk),
                Taken::Finished => return None,
                Taken::Nothing => {
                    state.idle += 1;
                    state = if state.closed && self.terms.repeats {
                        self.work.wait_timeout(state, REPEAT_POLL).unwrap_or_else(PoisonError::into_inner).0
                    } else {
                        self.work.wait(state).unwrap_or_else(PoisonError::into_inner)
                    };
                    state.idle -= 1;
                }
            }
        }
    }

    /// Would a file that is pushed have to wait?
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        self.lock().rests.len() >= QUEUE_FILES_LOW
    }

    /// How a person is told of it.
    #[must_use]
    pub(super) fn words(&self) -> &'static Words {
        self.terms.words
    }

    /// Is nothing more to be done?
    #[must_use]
    pub(super) fn is_finished(&self) -> bool {
        self.lock().is_finished()
    }

    /// Was the run given up?
    #[must_use]
    pub(super) fn is_aborted(&self) -> bool {
        self.lock().aborted
    }

    /// Takes a chunk for `holder` if there is one.
    pub(super) fn try_take(&self, holder: Holder) -> Taken {
        let mut state = self.lock();
        if state.parks(holder) { Taken::Nothing } else { self.pop(&mut state, holder, Instant::now()) }
    }

    /// From now on so many threads take chunks.
    pub(super) fn set_at_work(&self, threads: usize) {
        self.lock().at_work = Some(threads);
        self.parked.notify_all();
        // What those had left who park now is for others.
        self.work.notify_all();
    }

    fn pop(&self, state: &mut State, holder: Holder, now: Instant) -> Taken {
        if state.is_finished() {
            return Taken::Finished;
        }
        // A chunk that failed waits a little while fresh ones are handed out: time heals some causes.
        // Not when every worker met a refusal: then the question is whether anything goes through at all.
        let in_doubt = state.refusals.are_of_all(state.workers);
        let waited = state.again.front().is_some_and(|(since, _)| since.elapsed() >= AGAIN_AFTER);
        let chunk = if in_doubt || waited { pop_again(state) } else { None };
        let chunk = chunk.or_else(|| self.pop_fresh(state, holder)).or_else(|| pop_again(state));
        let Some(chunk) = chunk else {
            // What was left was of files that failed.
            if state.is_finished() {
                self.wake_all();
                return Taken::Finished;
            }
            return self.pop_repeat(state, holder, now);
        };
        let chunk = state.flight.hand_out(chunk, holder, now);
        // One wake-up was perhaps all there was for several chunks.
        if !(state.rests.is_empty() && state.again.is_empty()) {
            self.announce(state);
        }
        Taken::Chunk(chunk)
    }

    /// A chunk that somebody else has for too long, where nothing else is left to be done.
    fn pop_repeat(&self, state: &mut State, holder: Holder, now: Instant) -> Taken {
        if !(state.closed && self.terms.repeats) {
            return Taken::Nothing;
        }
        state.flight.forget_failed(now);
        if state.is_finished() {
            self.wake_all();
            return Taken::Finished;
        }
        let Some(chunk) = state.flight.repeat(holder, now) else { return Taken::Nothing };
        tracing::debug!("{}: range {}..{} takes long and is repeated", chunk.file.path, chunk.range.start, chunk.range.end);
        self.progress.repeated_bytes.add(chunk.bytes());
        Taken::Chunk(chunk)
    }

    fn pop_fresh(&self, state: &mut State, holder: Holder) -> Option<Chunk> {
        // Connections may differ by much: who is slow gets little at a time.
        let share = if self.terms.repeats { state.flight.share(holder, state.waiting_work) } else { u64::MAX };
        while let Some(rest) = state.rests.front_mut() {
            // What fits into one chunk needs no journal; among routes any may be slow.
            let is_shared = self.terms.has_routes || rest.file.meta.identity.size > self.terms.length;
            let length = if is_shared { self.terms.length.min(share) } else { self.terms.length };
            let before = rest.work(self.terms.length);
            let chunk = if rest.file.has_failed() { None } else { rest.cut(length) };
            let after = if chunk.is_some() { rest.work(self.terms.length) } else { 0 };
            state.waiting_work = state.waiting_work.saturating_sub(before - after);
            if after == 0 {
                state.rests.pop_front();
                if state.rests.len() == QUEUE_FILES_LOW {
                    self.room.notify_all();
                }
            }
            if chunk.is_some() {
                return chunk;
            }
        }
        None
    }

    /// Says what became of chunks that were taken.
    pub(super) fn settle(&self, outcomes: Vec<(Chunk, Outcome)>) {
        let (mut state, now) = (self.lock(), Instant::now());
        let mut changed = Vec::new();
        for (chunk, outcome) in outcomes {
            let is_confirmed = matches!(outcome, Outcome::Stored | Outcome::Whole(_) | Outcome::Wanted(_));
            let counts = state.flight.take_back(&chunk, is_confirmed, now);
            match outcome {
                // Nobody else is told what is not as it should be.
                Outcome::Whole(Some(note)) if !counts => self.fault(&chunk.file, &note),
                _ if !counts => {}
                Outcome::Changed => changed.push(chunk.file),
                outcome => self.settle_one(&mut state, chunk, outcome),
            }
        }
        if !changed.is_empty() {
            state.open_outcomes += changed.len();
            drop(state);
            let anew: Vec<Sending> = changed.iter().filter_map(|file| self.look_again(file)).collect();
            state = self.lock();
            state.open_outcomes -= changed.len();
            for file in anew {
                let rest = state.count(Rest::all_of(file), self.terms.length);
                state.rests.push_front(rest);
            }
        }
        self.announce(&state);
    }

    /// A file that changed while it was sent, to be sent anew as it is now; none if it changed
    /// before, or is gone.
    fn look_again(&self, file: &Sending) -> Option<Sending> {
        if file.has_failed() {
            return None;
        }
        let meta = (self.terms.look)(&file.path).filter(|_| file.changes < CHANGES_MAX);
        let Some(meta) = meta else {
            self.fail(file, &format!("changed while it was {}", self.words().done));
            return None;
        };
        if !file.fail() {
            return None;
        }
        tracing::info!("{}: changed while it was {done}, is {done} anew", file.path, done = self.words().done);
        self.changed.add(&file.path);
        let mut anew = Sending::new(file.path.clone(), meta);
        anew.changes = file.changes + 1;
        Some(anew)
    }

    fn settle_one(&self, state: &mut State, mut chunk: Chunk, outcome: Outcome) {
        match outcome {
            Outcome::Stored | Outcome::Whole(_) => {
                state.refusals.confirm(&chunk.file);
                if matches!(outcome, Outcome::Whole(_)) {
                    chunk.file.set_whole();
                }
                if let Outcome::Whole(Some(note)) = outcome {
                    self.fault(&chunk.file, &note);
                }
                self.confirm(state, chunk);
            }
            Outcome::Wanted(wanted) => self.plan(state, &chunk.file, wanted),
            Outcome::Denied(why) => self.fail(&chunk.file, &why),
            // It is sent anew, or has failed: see `look_again`.
            Outcome::Changed => {}
            Outcome::SourceFailed(reason) => self.fail(&chunk.file, &reason),
            Outcome::Lost => self.put_back(state, chunk),
            Outcome::Mismatched => {
                chunk.mismatches += 1;
                tracing::warn!(
                    "{}: range {}..{} arrived with another digest",
                    chunk.file.path,
                    chunk.range.start,
                    chunk.range.end
                );
                if chunk.mismatches < CHUNK_TRIES_MAX {
                    self.put_back(state, chunk);
                } else {
                    self.fail(&chunk.file, &format!("arrived with another digest {CHUNK_TRIES_MAX} times"));
                }
            }
            Outcome::Refused(why) => {
                let given_up = state.refusals.refuse(&mut chunk, &why);
                self.refuse(state, chunk, &why, given_up);
            }
            Outcome::Stalled => {
                let why = format!("the {} takes connections but makes no progress", self.words().peer);
                let given_up = state.refusals.stall(&mut chunk, &why);
                self.refuse(state, chunk, &why, given_up);
            }
        }
    }

    /// Has what the receiver wants of a file sent.
    fn plan(&self, state: &mut State, file: &Arc<Sending>, wanted: Wanted) {
        state.refusals.confirm(file);
        if file.has_failed() {
            return;
        }
        let Some(again) = file.plan(&wanted) else {
            self.fail_unkept(file);
            return;
        };
        self.progress.repeated_bytes.add(again);
        let there = file.find_all_but(wanted.bytes);
        self.progress.done_bytes.add(there);
        self.progress.resumed_bytes.add(there);
        let rest = state.count(Rest::of(file, wanted.ranges), self.terms.length);
        state.rests.push_front(rest);
    }

    fn fail_unkept(&self, file: &Sending) {
        let Words { done, keeper, .. } = self.words();
        self.fail(file, &format!("was not kept by {keeper}: all of it was {done}, and a part is missing there"));
    }

    /// Counts what the receiver has.
    fn confirm(&self, state: &mut State, chunk: Chunk) {
        let is_question = chunk.is_question();
        let file = &chunk.file;
        let bytes = if file.is_whole() { u64::MAX } else { chunk.bytes() };
        self.progress.done_bytes.add(file.find(bytes));
        file.add_subtrees(&chunk.subtrees);
        let is_last = is_question || file.confirm(chunk.bytes());
        if !is_last || file.has_failed() {
            return;
        }
        if file.is_whole() || self.terms.is_whole_when_stored {
            self.progress.done_files.add(1);
            self.digests.add(file, self.progress);
        } else if is_question {
            self.fail_unkept(file);
        } else {
            // The answer that it is whole was lost: a write of nothing is a question.
            let size = file.meta.identity.size;
            let question = Chunk::of(file, size..size);
            self.put_back(state, question);
        }
    }

    /// Gives up a file or the whole run for a refusal, or puts the chunk back for another try.
    fn refuse(&self, state: &mut State, chunk: Chunk, why: &str, given_up: GivenUp) {
        state.aborted |= given_up.of_all;
        if given_up.of_file {
            let Words { refused, peer, .. } = self.words();
            self.fail(&chunk.file, &format!("{refused} by the {peer}, whose log may say why: {why}"));
        } else {
            self.put_back(state, chunk);
        }
    }

    fn put_back(&self, state: &mut State, chunk: Chunk) {
        self.progress.repeated_bytes.add(chunk.bytes());
        state.waiting_work = state.waiting_work.saturating_add(chunk.work());
        state.again.push_back((Instant::now(), chunk));
    }

    fn fail(&self, file: &Sending, reason: &str) {
        if file.fail() {
            self.lost.add(&file.path);
            super::leave_out(self.progress, &file.path, reason);
        }
    }

    /// Notes a file that is there whole, and not as it should be. Links to it can be made.
    fn fault(&self, file: &Sending, note: &str) {
        if file.fail() {
            super::leave_out(self.progress, &file.path, &format!("is there, but {note}"));
        }
    }

    /// Reads the files that are whole and whose digest is wanted and not known. To be asked when all
    /// is settled.
    pub(super) fn read_for_digests(&self, read: ReadDigest<'_>) {
        self.digests.read(read, self.progress);
    }

    /// May the file at `path` not have arrived? To be asked when all is settled.
    #[must_use]
    pub(super) fn may_have_lost(&self, path: &RemotePath) -> bool {
        self.lost.may_have(path)
    }

    /// May the file at `path` have changed while it was under way, so that its other names may not be names
    /// of what came? To be asked when all is settled.
    #[must_use]
    pub(super) fn may_have_changed(&self, path: &RemotePath) -> bool {
        self.changed.may_have(path)
    }

    /// Counts a worker in, of so many threads, for such a route.
    pub(super) fn enter(&self, threads: usize, route: usize) -> Holder {
        let mut state = self.lock();
        state.workers += 1;
        state.flight.enter(threads, route)
    }

    /// Counts a worker out; with a reason if it gave up.
    pub(super) fn leave(&self, holder: Holder, gave_up: Option<GaveUp>) {
        let mut state = self.lock();
        state.workers -= 1;
        state.flight.leave(holder);
        state.gave_up = gave_up.or_else(|| state.gave_up.take());
        self.event.notify_one();
    }

    /// Waits until something is up for the one who starts workers. `enough_work` is what must wait
    /// for one more worker to be worth its start; `None` where no more can be started. At `until` there is a tick.
    pub(super) fn wait_event(&self, enough_work: Option<u64>, until: Instant) -> Event {
        let mut state = self.lock();
        loop {
            if state.is_finished() {
                return Event::Finished;
            }
            match &state.gave_up {
                Some(why) if state.workers == 0 => return Event::Abandoned(why.clone()),
                // Where one gave up another would too.
                Some(_) if !self.terms.has_routes => {}
                _ => {
                    let waits = !state.rests.is_empty() || !state.again.is_empty();
                    let enough = enough_work.is_some_and(|enough| state.waiting_work >= enough || state.workers == 0);
                    if waits && enough && state.idle == 0 {
                        return Event::Backlog;
                    }
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let has_work = state.idle == 0 && !(state.rests.is_empty() && state.again.is_empty());
                return Event::Tick(state.flight.confirmed_work(), has_work);
            }
            // Telling costs a system call: nobody tells who has nothing to do about it.
            state.enough_work = enough_work;
            state = self.event.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.enough_work = None;
        }
    }

    /// What the receiver refused to the end, if it did.
    #[must_use]
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.lock().refusals.last()
    }

    /// The files of which something still waits: their number, and the first few.
    #[must_use]
    pub(super) fn missing(&self, count_max: usize) -> (usize, Vec<RemotePath>) {
        let state = self.lock();
        let mut files: Vec<&Arc<Sending>> = state.again.iter().map(|(_, chunk)| &chunk.file).collect();
        files.extend(state.rests.iter().map(|rest| &rest.file));
        files.retain(|file| !file.has_failed());
        files.sort_by_key(|file| Arc::as_ptr(file));
        files.dedup_by_key(|file| Arc::as_ptr(file));
        (files.len(), files.iter().take(count_max).map(|file| file.path.clone()).collect())
    }
}

fn pop_again(state: &mut State) -> Option<Chunk> {
    while let Some((_, chunk)) = state.again.pop_front() {
        state.waiting_work = state.waiting_work.saturating_sub(chunk.work());
        if !chunk.file.has_failed() {
            return Some(chunk);
        }
    }
    None
}

#[cfg(test)]
mod tests;
