//! Chunks waiting and in flight, and what became of each. All workers pull from here, so a slow
//! one takes less; whoever fails gives back what it held.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::lost::Lost;
use super::outcome::{Event, GaveUp, Outcome, Refusal, Taken, Terms};
use super::plan::{Chunk, Rest, Sending};
use crate::limits::{
    AGAIN_AFTER, CHANGES_MAX, CHUNK_REFUSALS_MAX, CHUNK_STALLS_MAX, CHUNK_TRIES_MAX, QUEUE_FILES_MAX, REFUSALS_IN_A_ROW_MAX,
    REFUSALS_TIME_MIN,
};
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
    /// There is work, or there never will be.
    work: Condvar,
    /// There is room.
    room: Condvar,
    /// Something for the one who starts workers.
    event: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Chunks to try again, and since when.
    again: VecDeque<(Instant, Chunk)>,
    rests: VecDeque<Rest>,
    /// Bytes of work in `again` and `rests`.
    waiting_work: u64,
    in_flight: usize,
    /// Workers, and how many of them wait for work.
    workers: usize,
    idle: usize,
    /// What must wait before the one who starts workers is told, while it waits to be told.
    enough_work: Option<u64>,
    /// Why the last worker that gave up did.
    gave_up: Option<GaveUp>,
    /// No more files will come.
    closed: bool,
    /// Nothing more is to be done.
    aborted: bool,
    /// Chunks refused with no confirmation between them, and those of them that were sent alone.
    refused_in_a_row: usize,
    refused_alone_in_a_row: u32,
    last_confirmation: Option<Instant>,
    first_confirmed: Option<Arc<Sending>>,
    refusal: Option<Refusal>,
}

impl State {
    fn is_finished(&self) -> bool {
        self.aborted || (self.closed && self.in_flight == 0 && self.again.is_empty() && self.rests.is_empty())
    }

    /// Counts the work of a file that is to wait.
    fn add(&mut self, file: Sending, length: u64) -> Rest {
        let rest = Rest::all_of(file);
        self.waiting_work = self.waiting_work.saturating_add(rest.work(length));
        rest
    }

    /// Was nothing confirmed for some time?
    fn is_quiet(&self) -> bool {
        self.last_confirmation.is_none_or(|at| at.elapsed() >= REFUSALS_TIME_MIN)
    }
}

impl<'a> Queue<'a> {
    /// An empty queue.
    #[must_use]
    pub(super) fn new(terms: Terms<'a>, progress: &'a Progress) -> Self {
        let new = Condvar::new;
        let terms = Terms { length: terms.length.max(1), ..terms };
        Self { terms, progress, state: Mutex::default(), lost: Lost::default(), work: new(), room: new(), event: new() }
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
            let rest = state.add(file, self.terms.length);
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
    }

    /// Says that no more files will come.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.announce(&state);
    }

    /// Ends everything: nothing is handed out any more.
    pub(super) fn abort(&self) {
        self.lock().aborted = true;
        self.wake_all();
    }

    /// Takes a chunk, waiting for one; `None` when there will be none.
    pub(super) fn take(&self) -> Option<Chunk> {
        let mut state = self.lock();
        loop {
            match self.pop(&mut state) {
                Taken::Chunk(chunk) => return Some(chunk),
                Taken::Finished => return None,
                Taken::Nothing => {
                    state.idle += 1;
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
        }
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

    /// Takes a chunk if there is one.
    pub(super) fn try_take(&self) -> Taken {
        self.pop(&mut self.lock())
    }

    fn pop(&self, state: &mut State) -> Taken {
        if state.is_finished() {
            return Taken::Finished;
        }
        // A chunk that failed waits a little while fresh ones are handed out: time heals some causes.
        // Not when every worker met a refusal: then the question is whether anything goes through at all.
        let in_doubt = state.refused_in_a_row > state.workers;
        let waited = state.again.front().is_some_and(|(since, _)| since.elapsed() >= AGAIN_AFTER);
        let chunk = if in_doubt || waited { pop_again(state) } else { None };
        let chunk = chunk.or_else(|| self.pop_fresh(state)).or_else(|| pop_again(state));
        let Some(chunk) = chunk else {
            // What was left was of files that failed.
            if state.is_finished() {
                self.wake_all();
                return Taken::Finished;
            }
            return Taken::Nothing;
        };
        state.in_flight += 1;
        // One wake-up was perhaps all there was for several chunks.
        if !(state.rests.is_empty() && state.again.is_empty()) {
            self.announce(state);
        }
        Taken::Chunk(chunk)
    }

    fn pop_fresh(&self, state: &mut State) -> Option<Chunk> {
        while let Some(rest) = state.rests.front_mut() {
            let before = rest.work(self.terms.length);
            let chunk = if rest.file.has_failed() { None } else { rest.cut(self.terms.length) };
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
        let anew: Vec<Sending> = outcomes.iter().filter_map(|(chunk, outcome)| self.look_again(chunk, outcome)).collect();
        let mut state = self.lock();
        for file in anew {
            let rest = state.add(file, self.terms.length);
            state.rests.push_front(rest);
        }
        for (chunk, outcome) in outcomes {
            state.in_flight -= 1;
            self.settle_one(&mut state, chunk, outcome);
        }
        self.announce(&state);
    }

    /// A file that changed while it was sent, to be sent anew as it is now; none if it changed
    /// before, or is gone.
    fn look_again(&self, chunk: &Chunk, outcome: &Outcome) -> Option<Sending> {
        if *outcome != Outcome::Changed || chunk.file.has_failed() {
            return None;
        }
        let meta = (self.terms.look)(&chunk.file.path).filter(|_| chunk.file.changes < CHANGES_MAX);
        let Some(meta) = meta else {
            self.fail(&chunk.file, "changed while it was sent");
            return None;
        };
        if !chunk.file.fail() {
            return None;
        }
        tracing::info!("{}: changed while it was sent, is sent anew", chunk.file.path);
        let mut file = Sending::new(chunk.file.path.clone(), meta);
        file.changes = chunk.file.changes + 1;
        Some(file)
    }

    fn settle_one(&self, state: &mut State, mut chunk: Chunk, outcome: Outcome) {
        match outcome {
            Outcome::Stored | Outcome::Whole(_) => {
                (state.refused_in_a_row, state.refused_alone_in_a_row) = (0, 0);
                state.last_confirmation = Some(Instant::now());
                state.first_confirmed.get_or_insert_with(|| Arc::clone(&chunk.file));
                if matches!(outcome, Outcome::Whole(_)) {
                    chunk.file.set_whole();
                }
                if let Outcome::Whole(Some(note)) = outcome
                    && chunk.file.fail()
                {
                    super::leave_out(self.progress, &chunk.file.path, &format!("is there, but {note}"));
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
                // The first time it was one of several suspects: all connections may break at once.
                state.refused_alone_in_a_row += u32::from(chunk.is_suspect());
                state.refused_in_a_row += 1;
                chunk.refusals += 1;
                let of_all = state.refused_alone_in_a_row >= REFUSALS_IN_A_ROW_MAX && state.is_quiet();
                let of_file = chunk.refusals >= CHUNK_REFUSALS_MAX;
                self.refuse(state, chunk, why, of_file, of_all);
            }
            Outcome::Stalled => {
                chunk.stalls += 1;
                let why = "the receiver takes connections but makes no progress".to_owned();
                let of_file = chunk.stalls >= CHUNK_STALLS_MAX;
                let of_all = of_file && state.is_quiet();
                self.refuse(state, chunk, why, of_file, of_all);
            }
        }
    }

    /// Has what the receiver wants of a file sent.
    fn plan(&self, state: &mut State, file: &Arc<Sending>, wanted: Wanted) {
        (state.refused_in_a_row, state.refused_alone_in_a_row) = (0, 0);
        state.last_confirmation = Some(Instant::now());
        if file.has_failed() {
            return;
        }
        let Some(again) = file.plan(&wanted) else {
            self.fail(file, "was not kept by the receiver: all of it was sent, and a part is missing there");
            return;
        };
        self.progress.repeated_bytes.add(again);
        let there = file.find(file.meta.identity.size.saturating_sub(wanted.bytes));
        self.progress.done_bytes.add(there);
        self.progress.resumed_bytes.add(there);
        let rest = Rest::of(file, wanted.ranges);
        state.waiting_work = state.waiting_work.saturating_add(rest.work(self.terms.length));
        state.rests.push_front(rest);
    }

    /// Counts what the receiver has.
    fn confirm(&self, state: &mut State, chunk: Chunk) {
        let is_question = chunk.range.is_empty() && chunk.file.meta.identity.size > 0;
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
            if let (Some(note), Some(digest)) = (self.terms.note_digest, file.digest()) {
                note(&file.path, digest);
            }
        } else if is_question {
            self.fail(file, "was not kept by the receiver: all of it was sent, and a part is missing there");
        } else {
            // The answer that it is whole was lost: a write of nothing is a question.
            let size = file.meta.identity.size;
            let question = Chunk::of(file, size..size);
            self.put_back(state, question);
        }
    }

    /// Gives up a file or the whole run for a refusal, or puts the chunk back for another try.
    fn refuse(&self, state: &mut State, chunk: Chunk, why: String, of_file: bool, of_all: bool) {
        if of_all || of_file {
            state.refusal = Some(Refusal { why: why.clone(), of_all, known: chunk.file.path.clone() });
        }
        state.aborted |= of_all;
        if of_file {
            self.fail(&chunk.file, &format!("not taken by the receiver, whose log may say why: {why}"));
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

    /// May the file at `path` not have arrived? To be asked when all is settled.
    #[must_use]
    pub(super) fn may_have_lost(&self, path: &RemotePath) -> bool {
        self.lost.may_have(path)
    }

    /// Counts a worker in.
    pub(super) fn enter(&self) {
        self.lock().workers += 1;
    }

    /// Counts a worker out; with a reason if it gave up.
    pub(super) fn leave(&self, gave_up: Option<GaveUp>) {
        let mut state = self.lock();
        state.workers -= 1;
        state.gave_up = gave_up.or_else(|| state.gave_up.take());
        self.event.notify_one();
    }

    /// Waits until something is up for the one who starts workers. `enough_work` is what must wait
    /// for one more worker to be worth its start; `None` where no more can be started.
    pub(super) fn wait_event(&self, enough_work: Option<u64>) -> Event {
        let mut state = self.lock();
        loop {
            if state.is_finished() {
                return Event::Finished;
            }
            match &state.gave_up {
                Some(why) if state.workers == 0 => return Event::Abandoned(why.clone()),
                // Where one gave up another would too.
                Some(_) => {}
                None => {
                    let waits = !state.rests.is_empty() || !state.again.is_empty();
                    let enough = enough_work.is_some_and(|enough| state.waiting_work >= enough || state.workers == 0);
                    if waits && enough && state.idle == 0 {
                        return Event::Backlog;
                    }
                }
            }
            // Telling costs a system call: nobody tells who has nothing to do about it.
            state.enough_work = enough_work;
            state = self.event.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.enough_work = None;
        }
    }

    /// What the receiver refused to the end, if it did.
    #[must_use]
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let state = self.lock();
        let mut refusal = state.refusal.clone()?;
        if let Some(confirmed) = &state.first_confirmed {
            refusal.known = confirmed.path.clone();
        }
        Some(refusal)
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
mod tests {
    use super::*;
    use crate::client::plan::tests::meta_of;

    fn file(name: &str, size: u64) -> Sending {
        Sending::new(RemotePath::parse(name.as_bytes()).unwrap(), meta_of(size))
    }

    fn terms(length: u64) -> Terms<'static> {
        Terms { length, is_whole_when_stored: true, look: &|_| None, note_digest: None }
    }

    #[test]
    fn any_order_of_outcomes_loses_no_chunk_and_ends() {
        proptest::proptest!(|(outcomes in proptest::collection::vec(0..5usize, 0..200), sizes in proptest::collection::vec(1..20u64, 1..20), held_max in 1..5usize)| {
            let progress = Progress::default();
            let queue = Queue::new(terms(3), &progress);
            for (index, size) in sizes.iter().enumerate() {
                assert!(queue.push(vec![file(&index.to_string(), *size)]));
            }
            queue.close();
            let mut outcomes = outcomes.into_iter();
            let mut held = VecDeque::new();
            loop {
                match queue.try_take() {
                    Taken::Chunk(chunk) => held.push_back(chunk),
                    Taken::Nothing => assert!(!held.is_empty(), "nothing waits, nothing is held, and it does not end"),
                    Taken::Finished => break,
                }
                if held.len() >= held_max || queue.lock().rests.is_empty() {
                    let Some(chunk) = held.pop_front() else { continue };
                    let outcome = match outcomes.next() {
                        Some(0) => Outcome::Lost,
                        Some(1) => Outcome::Mismatched,
                        Some(2) => Outcome::SourceFailed("x".to_owned()),
                        Some(3) => Outcome::Changed,
                        _ => Outcome::Stored,
                    };
                    queue.settle(vec![(chunk, outcome)]);
                }
            }
            assert!(held.is_empty());
            assert_eq!(progress.done_files.sum() + progress.failed(), sizes.len() as u64);
            assert_eq!(queue.lock().waiting_work, 0);
            assert_eq!(queue.wait_event(None), Event::Finished);
        });
    }

    #[test]
    fn a_file_is_done_when_the_receiver_says_that_it_is_whole() {
        let progress = Progress::default();
        let queue = Queue::new(Terms { is_whole_when_stored: false, ..terms(1) }, &progress);
        queue.push(vec![file("x", 2)]);
        queue.close();
        let next = |outcome| {
            let Taken::Chunk(chunk) = queue.try_take() else { panic!("nothing to do") };
            let range = chunk.range.clone();
            queue.settle(vec![(chunk, outcome)]);
            range
        };
        assert_eq!([next(Outcome::Stored), next(Outcome::Stored)], [0..1, 1..2]);
        // Nobody said so: a question.
        assert_eq!((next(Outcome::Whole(None)), progress.done_files.sum()), (2..2, 1));
        assert!(queue.is_finished());
    }

    // C20
    #[test]
    fn a_file_that_changed_is_sent_anew_once() {
        let progress = Progress::default();
        let queue = Queue::new(Terms { look: &|_| Some(meta_of(5)), ..terms(10) }, &progress);
        queue.push(vec![file("x", 3)]);
        queue.close();
        for range in [0..3, 0..5] {
            let Taken::Chunk(chunk) = queue.try_take() else { panic!("nothing to do") };
            assert_eq!((&chunk.range, progress.failed()), (&range, 0));
            queue.settle(vec![(chunk, Outcome::Changed)]);
        }
        assert_eq!((progress.failed(), progress.done_files.sum(), queue.is_finished()), (1, 0, true));
    }

    #[test]
    fn a_receiver_that_only_refuses_ends_the_run() {
        let progress = Progress::default();
        let queue = Queue::new(terms(1), &progress);
        for index in 0..100 {
            queue.push(vec![file(&index.to_string(), 1)]);
        }
        let mut refusals = 0;
        while let Taken::Chunk(chunk) = queue.try_take() {
            queue.settle(vec![(chunk, Outcome::Refused("closed".to_owned()))]);
            refusals += 1;
        }
        // One more than there are workers raises the question; then only suspects are tried.
        assert!((REFUSALS_IN_A_ROW_MAX..2 * REFUSALS_IN_A_ROW_MAX).contains(&refusals), "{refusals}");
        assert!(queue.refusal().unwrap().of_all);
        assert_eq!(queue.missing(3).0 as u64 + progress.failed(), 100);
        assert_eq!(queue.missing(3).1.len(), 3);
    }

    #[test]
    fn one_refused_file_among_others_fails_alone() {
        let progress = Progress::default();
        let queue = Queue::new(terms(1), &progress);
        for name in ["bad", "good", "fine"] {
            queue.push(vec![file(name, 1)]);
            queue.enter();
        }
        queue.close();
        while let Taken::Chunk(chunk) = queue.try_take() {
            let bad = chunk.file.path.as_bytes() == b"bad";
            queue.settle(vec![(chunk, if bad { Outcome::Refused(String::new()) } else { Outcome::Stored })]);
        }
        assert_eq!((progress.done_files.sum(), progress.failed()), (2, 1));
        let refusal = queue.refusal().unwrap();
        assert_eq!((refusal.of_all, refusal.known.as_bytes()), (false, &b"good"[..]));
    }

    #[test]
    fn a_backlog_calls_for_a_worker_and_the_last_ones_reason_ends_the_wait() {
        let progress = Progress::default();
        let queue = Queue::new(terms(1), &progress);
        queue.push(vec![file("x", 5)]);
        assert_eq!(queue.wait_event(Some(u64::MAX)), Event::Backlog);
        queue.enter();
        queue.enter();
        assert_eq!(queue.wait_event(Some(5)), Event::Backlog);
        queue.leave(None);
        queue.leave(Some(GaveUp::Unreachable("gone".to_owned())));
        assert_eq!(queue.wait_event(Some(5)), Event::Abandoned(GaveUp::Unreachable("gone".to_owned())));
        queue.abort();
        assert_eq!(queue.wait_event(Some(5)), Event::Finished);
    }
}
