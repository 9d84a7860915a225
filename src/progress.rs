//! Counters that anyone may add to, the failed entries, and the summary of both.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::FAILURES_KEPT_MAX;
use crate::path::RemotePath;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What was added so far.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// What was added since this was asked last.
    pub fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Time that only grows, of one thread or of many together.
#[derive(Debug, Default)]
pub struct Timer(AtomicU64);

impl Timer {
    /// Adds `time`.
    pub fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Adds the time until what this gives is dropped.
    #[must_use]
    pub fn start(&self) -> Running<'_> {
        Running { timer: self, since: Instant::now() }
    }

    /// What was added so far.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// The shortest of some times.
#[derive(Debug, Default)]
pub struct Shortest(AtomicU64);

impl Shortest {
    /// Notes one.
    pub fn note(&self, time: Duration) {
        // 0 stands for none.
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| (known == 0 || time < known).then_some(time));
    }

    /// It, if one was noted.
    #[must_use]
    pub fn known(&self) -> Option<Duration> {
        Some(self.0.load(Ordering::Relaxed)).filter(|time| *time > 0).map(Duration::from_nanos)
    }
}

/// A time that runs until this is dropped.
#[derive(Debug)]
pub struct Running<'a> {
    timer: &'a Timer,
    since: Instant,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.timer.add(self.since.elapsed());
    }
}

/// Where the time of all connections went, at either end.
#[derive(Debug, Default)]
pub struct Waits {
    /// Waiting for work: the walk, or what the other end has.
    pub work: Timer,
    /// Opening and reading files.
    pub reading: Timer,
    /// Digests at the sender.
    pub digesting: Timer,
    /// Writing to the network, encryption included, as far as this machine worked on it.
    pub sending: Timer,
    /// Writing to the network, as far as it was waiting for room.
    pub blocked: Timer,
    /// Waiting for answers.
    pub answers: Timer,
    /// The receiver: waiting for the network.
    pub receiving: Timer,
    /// The receiver: digests.
    pub verifying: Timer,
    /// The receiver: its file system.
    pub writing: Timer,
    /// A round trip as far as the program at the other end, whatever is in between.
    pub round_trip: Shortest,
    /// Does content come in, and not go out?
    inbound: AtomicBool,
    /// What was told of it already.
    told: Mutex<[Duration; 9]>,
}

impl Waits {
    /// Content comes in: what is done to it here is the receiver's part.
    pub fn set_inbound(&self) {
        self.inbound.store(true, Ordering::Relaxed);
    }

    /// All, in the order of a chunk's way, each with its name.
    #[must_use]
    pub fn all(&self) -> [(&'static str, &Timer); 9] {
        [
            ("work", &self.work),
            ("reading", &self.reading),
            ("digesting", &self.digesting),
            ("sending", &self.sending),
            ("blocked", &self.blocked),
            ("answers", &self.answers),
            ("receiving", &self.receiving),
            ("verifying", &self.verifying),
            ("writing", &self.writing),
        ]
    }

    /// The one of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Timer> {
        self.all().into_iter().find(|(known, _)| *known == name).map(|(_, timer)| timer)
    }

    /// What a transfer's time went into, in hundredths of all, the largest first. What the sender
    /// waits for the receiver goes to the receiver's disk as far as that was busy, and to the network
    /// as far as the receiver was waiting, too.
    #[must_use]
    pub fn shares(&self) -> Vec<(&'static str, u64)> {
        let seconds = |timers: &[&Timer]| timers.iter().map(|timer| timer.sum().as_secs_f64()).sum::<f64>();
        let waited = seconds(&[&self.blocked, &self.answers]);
        let (busy, idle) = (seconds(&[&self.verifying, &self.writing]), seconds(&[&self.receiving]));
        let disk = if busy + idle > 0.0 { waited * busy / (busy + idle) } else { 0.0 };
        let mut shares = if self.inbound.load(Ordering::Relaxed) {
            vec![
                ("listing", seconds(&[&self.work])),
                ("verifying", seconds(&[&self.verifying])),
                ("this side's disk", seconds(&[&self.writing])),
                ("the network or the server", waited),
            ]
        } else {
            vec![
                ("reading", seconds(&[&self.work, &self.reading])),
                ("sending", seconds(&[&self.digesting, &self.sending])),
                ("the receiver's disk", disk),
                ("the network", waited - disk),
            ]
        };
        let all: f64 = shares.iter().map(|(_, share)| share).sum();
        shares.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let hundredths = |share: f64| if all > 0.0 { (share / all * 100.0).round() as u64 } else { 0 };
        shares.into_iter().map(|(name, share)| (name, hundredths(share))).collect()
    }

    /// What was added to each since this was asked last, where that is worth a word.
    #[must_use]
    pub fn take_new(&self) -> Vec<(&'static str, Duration)> {
        const WORTH: Duration = Duration::from_millis(1);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = Vec::new();
        for ((name, timer), told) in self.all().into_iter().zip(told.iter_mut()) {
            let sum = timer.sum();
            let more = sum.saturating_sub(*told);
            if more >= WORTH {
                new.push((name, more));
                *told = sum;
            }
        }
        new
    }
}

/// A congestion control that was changed to, and whether that was passed on.
#[derive(Debug, Default)]
struct Changed {
    to: Option<String>,
    is_told: bool,
}

/// How far a transfer is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Where the time went.
    pub waits: Waits,
    /// Files found by the walk.
    pub found_files: Counter,
    /// Bytes of the files found.
    pub found_bytes: Counter,
    /// Symbolic links, and further names of files, found by the walk.
    pub found_links: Counter,
    /// Names that the user's rules left out; what is in a folder left out was not looked at.
    pub excluded: Counter,
    /// Entries sent without their extended attributes, which could not be read or are too long.
    pub without_xattrs: Counter,
    /// Files that are there, whole and confirmed.
    pub done_files: Counter,
    /// Files that were there already, unchanged.
    pub unchanged_files: Counter,
    /// Bytes of those.
    pub unchanged_bytes: Counter,
    /// Links that are there.
    pub done_links: Counter,
    /// Folders that are there.
    pub done_directories: Counter,
    /// Bytes confirmed.
    pub done_bytes: Counter,
    /// Bytes that were at the receiver already, of files that were not whole there.
    pub resumed_bytes: Counter,
    /// Bytes of chunks that were sent again.
    pub repeated_bytes: Counter,
    /// Bytes that went over the connections that carry content, that way: with what is between the blocks, without
    /// what TLS adds.
    pub wire_bytes: Counter,
    /// May content travel compressed?
    is_compressed: AtomicBool,
    /// Files and bytes that came to be there in attempts that were interrupted: those after them find
    /// them there.
    earlier_files: Counter,
    earlier_bytes: Counter,
    /// Bytes that the best of those attempts had confirmed, found there or sent.
    best_bytes: AtomicU64,
    /// Connections that were opened.
    pub connections: Counter,
    /// Connections that broke.
    pub lost_connections: Counter,
    /// Connections that take chunks, as far as their number was tuned.
    at_work: AtomicU64,
    /// Processes that worked, the first one included.
    pub processes: Counter,
    congestion: Mutex<Changed>,
    routes: OnceLock<Vec<Route>>,
    failures: Mutex<Failures>,
}

/// How one of several routes to the receiver fares.
#[derive(Debug)]
pub struct Route {
    name: String,
    /// Bytes that came to be there by it.
    pub bytes: Counter,
    /// Connections that were opened by it.
    pub connections: Counter,
    trouble: Mutex<Option<String>>,
    /// See [`Route::may_try`].
    state: AtomicU8,
}

/// May a worker go by a route?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayTry {
    /// Yes.
    Yes,
    /// Somebody finds out whether it leads there.
    Later,
    /// It leads nowhere.
    Never,
}

const UNKNOWN: u8 = 0;
const BEING_TRIED: u8 = 1;
const OPEN: u8 = 2;
const CLOSED: u8 = 3;

impl Route {
    /// One by this name, of which nothing is known.
    fn new(name: String) -> Self {
        let (bytes, connections, trouble) = (Counter::default(), Counter::default(), Mutex::default());
        Self { name, bytes, connections, trouble, state: AtomicU8::new(UNKNOWN) }
    }

    /// May one go by it now? Until it is known to lead there one at a time may: so a login that is wrong is shown once,
    /// not by all at once. Who may says [`Route::tried`] afterwards.
    #[must_use]
    pub fn may_try(&self) -> MayTry {
        let begun = self.state.compare_exchange(UNKNOWN, BEING_TRIED, Ordering::Relaxed, Ordering::Relaxed);
        match begun {
            Ok(_) | Err(OPEN) => MayTry::Yes,
            Err(CLOSED) => MayTry::Never,
            Err(_) => MayTry::Later,
        }
    }

    /// Notes what came of it; `is_final` where nobody needs to try again.
    pub fn tried(&self, leads_there: bool, is_final: bool) {
        if leads_there || is_final {
            self.state.store(if leads_there { OPEN } else { CLOSED }, Ordering::Relaxed);
        } else {
            // Where it was open others go on as they did.
            let _ = self.state.compare_exchange(BEING_TRIED, UNKNOWN, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// What a person calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Notes what is wrong with it. Is that new?
    pub fn note_trouble(&self, why: &str) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = trouble.as_deref() != Some(why);
        *trouble = Some(why.to_owned());
        is_new
    }

    /// What was wrong with it last, if anything was.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug, Default)]
struct Failures {
    kept: Vec<Failure>,
    count: u64,
}

/// An entry that is not there, or not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The entry.
    pub path: RemotePath,
    /// What happened to it.
    pub reason: String,
}

impl Progress {
    /// Notes the congestion control that was changed to.
    pub fn note_congestion(&self, name: &str) {
        *self.lock_congestion() = Changed { to: Some(name.to_owned()), is_told: false };
    }

    /// The congestion control that was changed to last, if any process did.
    #[must_use]
    pub fn congestion(&self) -> Option<String> {
        self.lock_congestion().to.clone()
    }

    /// The same, where it was not taken before.
    pub fn take_congestion(&self) -> Option<String> {
        let mut changed = self.lock_congestion();
        if std::mem::replace(&mut changed.is_told, true) { None } else { changed.to.clone() }
    }

    fn lock_congestion(&self) -> MutexGuard<'_, Changed> {
        self.congestion.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was found and what became of it, for it is looked at anew. Was a file done since
    /// this was called last, or are more bytes there than ever before?
    pub fn begin_again(&self) -> bool {
        let files = self.done_files.take().saturating_sub(self.unchanged_files.take());
        let there = self.unchanged_bytes.take() + self.resumed_bytes.take();
        let done = self.done_bytes.take();
        let bytes = done.saturating_sub(there);
        self.earlier_files.add(files);
        self.earlier_bytes.add(bytes);
        for counter in [
            &self.found_files,
            &self.found_bytes,
            &self.found_links,
            &self.excluded,
            &self.without_xattrs,
            &self.done_links,
            &self.done_directories,
        ] {
            counter.take();
        }
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner) = Failures::default();
        // Bytes that came before and were not kept are nothing new.
        files > 0 || done > self.best_bytes.fetch_max(done, Ordering::Relaxed)
    }

    /// So many connections take chunks.
    pub fn set_at_work(&self, connections: usize) {
        self.at_work.store(connections as u64, Ordering::Relaxed);
    }

    /// Connections that took chunks at last, if their number was tuned.
    #[must_use]
    pub fn at_work(&self) -> Option<u64> {
        Some(self.at_work.load(Ordering::Relaxed)).filter(|number| *number > 0)
    }

    /// Says which routes there are to the receiver, where there is more to say than that there is one.
    pub fn set_routes(&self, names: impl Iterator<Item = String>) {
        // They are the same in each attempt.
        let _ = self.routes.set(names.map(Route::new).collect());
    }

    /// The routes, where they were told.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        self.routes.get().map_or(&[], Vec::as_slice)
    }

    /// One of them.
    #[must_use]
    pub fn route(&self, number: usize) -> Option<&Route> {
        self.routes().get(number)
    }

    /// Content may travel compressed from here on.
    pub fn set_compressed(&self) {
        self.is_compressed.store(true, Ordering::Relaxed);
    }

    /// May content have travelled compressed?
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.is_compressed.load(Ordering::Relaxed)
    }

    /// Counts a file of so many bytes that is there, unchanged.
    pub fn add_unchanged(&self, bytes: u64) {
        self.unchanged_files.add(1);
        self.unchanged_bytes.add(bytes);
        self.done_files.add(1);
        self.done_bytes.add(bytes);
    }

    /// Files that were there, unchanged, before this job came to them.
    #[must_use]
    pub fn unchanged(&self) -> u64 {
        self.unchanged_files.sum().saturating_sub(self.earlier_files.sum())
    }

    /// Bytes that were there before this job came to them: of files that were unchanged, and of files
    /// that were not whole.
    #[must_use]
    pub fn bytes_there(&self) -> (u64, u64) {
        let (unchanged, resumed, earlier) = (self.unchanged_bytes.sum(), self.resumed_bytes.sum(), self.earlier_bytes.sum());
        (unchanged.saturating_sub(earlier), resumed.saturating_sub(earlier.saturating_sub(unchanged)))
    }

    /// Notes that the entry at `path` failed, and why.
    pub fn fail(&self, path: &RemotePath, reason: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        if failures.kept.len() < FAILURES_KEPT_MAX {
            failures.kept.push(Failure { path: path.clone(), reason: reason.to_owned() });
        }
    }

    /// How many entries failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// The first failures, at most [`FAILURES_KEPT_MAX`].
    #[must_use]
    pub fn failures(&self) -> Vec<Failure> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).kept.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_finds_out_whether_a_route_leads_there() {
        let route = Route::new("relay".to_owned());
        for _ in 0..2 {
            assert_eq!([route.may_try(), route.may_try()], [MayTry::Yes, MayTry::Later]);
            route.tried(false, false);
        }
        assert_eq!(route.may_try(), MayTry::Yes);
        route.tried(true, false);
        assert_eq!([route.may_try(), route.may_try()], [MayTry::Yes; 2]);
        // One that fails where others got through says nothing of them, unless it is told so for good.
        route.tried(false, false);
        assert_eq!(route.may_try(), MayTry::Yes);
        route.tried(false, true);
        assert_eq!(route.may_try(), MayTry::Never);
    }

    #[test]
    fn bytes_that_are_sent_again_and_again_are_no_progress() {
        let progress = Progress::default();
        assert!(!progress.begin_again());
        for (files, sent, resumed, is_more) in
            [(0, 10, 0, true), (0, 10, 0, false), (0, 9, 0, false), (0, 5, 9, true), (0, 0, 14, false), (1, 1, 0, true)]
        {
            progress.done_files.add(files);
            progress.done_bytes.add(sent + resumed);
            progress.resumed_bytes.add(resumed);
            assert_eq!(progress.begin_again(), is_more, "{files} {sent} {resumed}");
        }
    }

    #[test]
    fn what_takes_most_of_the_time_comes_first() {
        let waits = Waits::default();
        assert!(waits.shares().iter().all(|(_, share)| *share == 0));
        waits.reading.add(Duration::from_secs(1));
        waits.answers.add(Duration::from_secs(9));
        waits.writing.add(Duration::from_secs(2));
        waits.receiving.add(Duration::from_secs(1));
        assert_eq!(waits.shares(), [("the receiver's disk", 60), ("the network", 30), ("reading", 10), ("sending", 0)]);
    }
}
