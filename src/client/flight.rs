//! Chunks in flight: who has which since when, and which of them somebody else should send as well.
//!
//! A chunk may be in two hands: its first one, and that of whoever repeats it because the first takes
//! too long. The first confirmation counts. Knows nothing of files and outcomes.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::plan::Chunk;
use crate::limits::{
    BLOCK_LEN, CHUNK_LEN_MIN, CHUNK_TIME, CHUNK_TRIES_MAX, RATE_TIME, REPEAT_AFTER_MIN, REPEAT_ELSEWHERE_MIN, REPEATS_WORK_MAX,
};

/// Who takes chunks: a thread, or a process with several.
pub(super) type Holder = u32;

/// One handing out of a chunk: what its outcome is known by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hand {
    /// The same for all who have a chunk at once.
    pub(super) number: u64,
    /// 0 for the first one, then which of the repeats it is.
    repeat: u32,
    holder: Holder,
}

impl Hand {
    /// Has somebody else the chunk as well?
    #[must_use]
    pub(super) fn is_repeat(self) -> bool {
        self.repeat > 0
    }
}

/// All chunks in flight, and those who have them.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// By the order in which they were handed out.
    chunks: BTreeMap<u64, InFlight>,
    next_number: u64,
    loads: HashMap<Holder, Load>,
    next_holder: Holder,
    /// Of all who ever took chunks.
    threads: usize,
    /// Work that was confirmed, and the time of threads that went into it.
    confirmed_work: u64,
    confirmed_time: Duration,
}

/// A chunk without a confirmation.
#[derive(Debug)]
struct InFlight {
    chunk: Chunk,
    first: Held,
    repeat: Option<Held>,
    repeats: u32,
    /// Hands that failed while another had it.
    failures: u8,
    /// It is not repeated before.
    not_before: Instant,
}

impl InFlight {
    fn may_be_repeated(&self, now: Instant) -> bool {
        self.repeat.is_none() && now >= self.not_before
    }
}

#[derive(Debug, Clone, Copy)]
struct Held {
    hand: Hand,
    since: Instant,
    /// Work that this hand's holder had for each of its threads, this chunk included.
    ahead: u64,
}

/// What one holder has.
#[derive(Debug)]
struct Load {
    threads: usize,
    /// By which of the routes its chunks go.
    route: usize,
    chunks: usize,
    repeats: usize,
    work: u64,
    /// When something of it was confirmed last, or when it began to have something.
    progress: Instant,
    /// Work of the chunks in flight that it was the first to have.
    open: u64,
    /// Work that was confirmed of late, and how long that took.
    done: u64,
    busy: Duration,
    /// Threads that came before.
    rank: usize,
}

impl Load {
    fn new(threads: usize, route: usize, rank: usize) -> Self {
        Self {
            rank,
            route,
            threads: threads.max(1),
            chunks: 0,
            repeats: 0,
            work: 0,
            open: 0,
            progress: Instant::now(),
            done: 0,
            busy: Duration::ZERO,
        }
    }

    /// Has it a thread with nothing to do? (Each that works has a chunk at least.)
    fn has_idle_thread(&self) -> bool {
        self.chunks < self.threads
    }

    /// Work that it has confirmed in a second of late; `None` where nothing is known of that.
    fn rate(&self) -> Option<f64> {
        self.rate_with(Duration::ZERO)
    }

    /// The same until `now`: what was not confirmed since the last time counts, too.
    fn rate_until(&self, now: Instant) -> Option<f64> {
        self.rate_with(if self.chunks > 0 { now.saturating_duration_since(self.progress) } else { Duration::ZERO })
    }

    fn rate_with(&self, stuck: Duration) -> Option<f64> {
        (!self.busy.is_zero()).then(|| self.done as f64 / (self.busy + stuck).as_secs_f64())
    }

    fn may_repeat(&self) -> bool {
        // What is small goes in company.
        self.has_idle_thread() || (self.chunks == self.repeats && self.work < REPEATS_WORK_MAX)
    }
}

impl Flight {
    /// Is nothing in flight? Late hands don't count.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// One more who takes chunks, with so many threads, for such a route.
    pub(super) fn enter(&mut self, threads: usize, route: usize) -> Holder {
        self.next_holder += 1;
        self.loads.insert(self.next_holder, Load::new(threads, route, self.threads));
        self.threads += threads;
        self.next_holder
    }

    /// One takes no more, and has nothing.
    pub(super) fn leave(&mut self, holder: Holder) {
        self.loads.remove(&holder);
    }

    /// Threads that came before those of this one.
    #[must_use]
    pub(super) fn rank(&self, holder: Holder) -> usize {
        self.loads.get(&holder).map_or(0, |load| load.rank)
    }

    /// Work that was confirmed.
    #[must_use]
    pub(super) fn confirmed_work(&self) -> u64 {
        self.confirmed_work
    }

    /// Bytes of a chunk that one of a holder's threads is busy with for a moment, and for no longer; ever fewer when
    /// little is `left` for all of them, so that they are done at once (guided self-scheduling).
    pub(super) fn share(&self, holder: Holder, left: u64) -> u64 {
        let rate = self.loads.get(&holder).and_then(|load| Some(load.rate()? / load.threads as f64));
        let Some(rate) = rate else { return CHUNK_LEN_MIN };
        let threads: usize = self.loads.values().map(|load| load.threads).sum();
        let most = left / (2 * threads.max(1) as u64);
        ((rate * CHUNK_TIME.as_secs_f64()) as u64).min(most).max(CHUNK_LEN_MIN).next_multiple_of(BLOCK_LEN as u64)
    }

    /// Hands out a chunk that nobody has.
    pub(super) fn hand_out(&mut self, mut chunk: Chunk, holder: Holder, now: Instant) -> Chunk {
        let number = self.next_number;
        self.next_number += 1;
        chunk.hand = Hand { number, repeat: 0, holder };
        let first = self.held(&chunk, now);
        let in_flight = InFlight { chunk: chunk.clone(), first, repeat: None, repeats: 0, failures: 0, not_before: now };
        self.chunks.insert(number, in_flight);
        self.count_open(holder, &chunk, true);
        chunk
    }

    /// Hands out the oldest chunk that somebody else has for too long and nobody repeats, or the last one of a much
    /// slower route, to one who has nothing else to do; `None` where there is none.
    pub(super) fn repeat(&mut self, holder: Holder, now: Instant) -> Option<Chunk> {
        let load = self.loads.entry(holder).or_insert_with(|| Load::new(1, 0, 0));
        if !load.may_repeat() {
            return None;
        }
        // A process may repeat what another thread of its own is stuck with.
        let may_have_own = load.has_idle_thread();
        let number = self.late(now).find_map(|(number, in_flight)| {
            let may_have = in_flight.first.hand.holder != holder || may_have_own;
            (in_flight.may_be_repeated(now) && may_have).then_some(number)
        });
        let number = number.or_else(|| self.last_elsewhere(holder, now))?;
        let in_flight = self.chunks.get_mut(&number)?;
        in_flight.repeats += 1;
        let mut chunk = in_flight.chunk.clone();
        chunk.hand = Hand { number, repeat: in_flight.repeats, holder };
        let held = self.held(&chunk, now);
        self.chunks.get_mut(&number)?.repeat = Some(held);
        Some(chunk)
    }

    /// Waits no longer for what takes too long of files that have failed.
    pub(super) fn forget_failed(&mut self, now: Instant) {
        let lost: Vec<u64> =
            self.late(now).filter(|(_, in_flight)| in_flight.chunk.file.has_failed()).map(|(number, _)| number).collect();
        lost.into_iter().for_each(|number| drop(self.remove(number)));
    }

    /// What takes too long, oldest first.
    fn late(&self, now: Instant) -> impl Iterator<Item = (u64, &InFlight)> {
        let mut late_holders = Vec::new();
        self.chunks.iter().filter_map(move |(number, in_flight)| {
            let Held { hand, since, ahead } = in_flight.first;
            // On one connection all comes in order: what is behind a late one will be late.
            let is_behind = late_holders.contains(&hand.holder);
            let is_late = is_behind || now.saturating_duration_since(since) >= self.patience(ahead);
            if is_late && !is_behind && self.loads.get(&hand.holder).is_none_or(|load| load.threads == 1) {
                late_holders.push(hand.holder);
            }
            is_late.then_some((*number, in_flight))
        })
    }

    /// The chunk that will be done last of those on other routes, by what their holders have before it and how fast they
    /// were, where this holder needs less than half the time (M. Zaharia et al., "Improving MapReduce performance in
    /// heterogeneous environments", 2008). On its own route it would but take room from what is under way there.
    fn last_elsewhere(&self, holder: Holder, now: Instant) -> Option<u64> {
        let own = self.loads.get(&holder)?;
        let own_rate = own.rate_until(now)?;
        // Of each of the others: work of its chunks that were not looked at yet.
        let others = self.loads.iter().filter(|(_, load)| load.route != own.route && load.open > 0);
        let mut unseen: HashMap<Holder, u64> = others.map(|(other, load)| (*other, load.open)).collect();
        let mut last: Option<(f64, u64)> = None;
        for (number, in_flight) in self.chunks.iter().rev() {
            if unseen.is_empty() {
                break;
            }
            let (of, work) = (in_flight.first.hand.holder, in_flight.chunk.work());
            let Some(before) = unseen.get_mut(&of) else { continue };
            let rate = self.loads.get(&of).and_then(|load| load.rate_until(now));
            if let Some(rate) = rate.filter(|_| in_flight.may_be_repeated(now)) {
                let (takes, would_take) = (*before as f64 / rate, own.work.saturating_add(work) as f64 / own_rate);
                let is_worth_it = takes > 2.0 * would_take + REPEAT_ELSEWHERE_MIN.as_secs_f64();
                if is_worth_it && last.is_none_or(|(longest, _)| takes > longest) {
                    last = Some((takes, *number));
                }
                // What it has before that is done sooner.
                unseen.remove(&of);
            } else {
                *before = before.saturating_sub(work);
                if *before == 0 {
                    unseen.remove(&of);
                }
            }
        }
        last.map(|(_, number)| number)
    }

    /// Takes out a chunk that is done with.
    fn remove(&mut self, number: u64) -> Option<InFlight> {
        let removed = self.chunks.remove(&number)?;
        self.count_open(removed.first.hand.holder, &removed.chunk, false);
        Some(removed)
    }

    /// Counts a chunk to those that this holder was the first to have, or no longer.
    fn count_open(&mut self, holder: Holder, chunk: &Chunk, is_open: bool) {
        let Some(load) = self.loads.get_mut(&holder) else { return };
        let work = chunk.work();
        load.open = if is_open { load.open.saturating_add(work) } else { load.open.saturating_sub(work) };
    }

    /// Counts a chunk to what its holder has.
    fn held(&mut self, chunk: &Chunk, now: Instant) -> Held {
        let load = self.loads.entry(chunk.hand.holder).or_insert_with(|| Load::new(1, 0, 0));
        if load.chunks == 0 {
            load.progress = now;
        }
        load.chunks += 1;
        load.repeats += usize::from(chunk.hand.is_repeat());
        load.work = load.work.saturating_add(chunk.work());
        let ahead = (load.work / load.threads as u64).max(chunk.work());
        Held { hand: chunk.hand, since: now, ahead }
    }

    /// How long so much work may take until something is wrong: twice what it took the others.
    fn patience(&self, work: u64) -> Duration {
        if self.confirmed_work == 0 {
            return 4 * REPEAT_AFTER_MIN;
        }
        let usual = self.confirmed_time.as_secs_f64() * work as f64 / self.confirmed_work as f64;
        REPEAT_AFTER_MIN + Duration::try_from_secs_f64(2.0 * usual).unwrap_or(Duration::MAX / 2)
    }

    /// Takes a chunk back from one who has it. True where what became of it counts: it is confirmed,
    /// for the first time; or it failed, and nobody else has it. Then it is not in flight any more.
    pub(super) fn take_back(&mut self, chunk: &Chunk, is_confirmed: bool, now: Instant) -> bool {
        let hand = chunk.hand;
        self.put_down(chunk, is_confirmed, now);
        let Some(in_flight) = self.chunks.get_mut(&hand.number) else { return false };
        let other = if in_flight.first.hand == hand { in_flight.repeat } else { Some(in_flight.first) };
        in_flight.failures += u8::from(!is_confirmed);
        match other {
            // Where repeats fail again and again something is wrong with more than a connection: the
            // hand that is stuck is not waited for.
            Some(other) if !is_confirmed && in_flight.failures < CHUNK_TRIES_MAX => {
                let before = std::mem::replace(&mut in_flight.first, other);
                in_flight.repeat = None;
                in_flight.not_before = now + REPEAT_AFTER_MIN * u32::from(in_flight.failures);
                self.count_open(before.hand.holder, chunk, false);
                self.count_open(other.hand.holder, chunk, true);
                false
            }
            _ => self.remove(hand.number).is_some(),
        }
    }

    fn put_down(&mut self, chunk: &Chunk, is_confirmed: bool, now: Instant) {
        let Some(load) = self.loads.get_mut(&chunk.hand.holder) else { return };
        load.chunks = load.chunks.saturating_sub(1);
        load.repeats = load.repeats.saturating_sub(usize::from(chunk.hand.is_repeat()));
        load.work = load.work.saturating_sub(chunk.work());
        if is_confirmed {
            let time = now.saturating_duration_since(load.progress);
            load.progress = now;
            self.confirmed_time += time * u32::try_from(load.threads).unwrap_or(u32::MAX);
            self.confirmed_work = self.confirmed_work.saturating_add(chunk.work());
            load.busy += time;
            load.done = load.done.saturating_add(chunk.work());
            if load.busy > RATE_TIME {
                (load.busy, load.done) = (load.busy / 2, load.done / 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::client::plan::{Sending, tests::meta_of};
    use crate::path::RemotePath;

    const LATER: Duration = Duration::from_secs(3600);

    fn chunk(len: u64) -> Chunk {
        Chunk::of(&Arc::new(Sending::new(RemotePath::parse(b"x").unwrap(), meta_of(len))), 0..len)
    }

    /// A flight in which the first of so many threads of each holder has a large chunk.
    fn stuck(threads: &[usize]) -> (Flight, Vec<Holder>, Vec<Chunk>, Instant) {
        let (mut flight, now) = (Flight::default(), Instant::now());
        let holders: Vec<Holder> = threads.iter().map(|threads| flight.enter(*threads, 0)).collect();
        let chunks = holders.iter().map(|holder| flight.hand_out(chunk(1 << 24), *holder, now)).collect();
        (flight, holders, chunks, now + LATER)
    }

    #[test]
    fn the_oldest_is_repeated_once_by_one_who_has_nothing() {
        let (mut flight, holders, chunks, later) = stuck(&[1, 1]);
        assert!(holders.iter().all(|holder| flight.repeat(*holder, later).is_none()), "they have something");
        let (idle, other) = (flight.enter(1, 0), flight.enter(1, 0));
        let repeats = [idle, idle, other, other].map(|holder| flight.repeat(holder, later).map(|chunk| chunk.hand.number));
        assert_eq!(repeats, [Some(chunks[0].hand.number), None, Some(chunks[1].hand.number), None]);
    }

    #[test]
    fn small_chunks_are_repeated_in_company() {
        let (mut flight, now) = (Flight::default(), Instant::now());
        let (slow, idle) = (flight.enter(1, 0), flight.enter(1, 0));
        (0..5000).for_each(|_| drop(flight.hand_out(chunk(1), slow, now)));
        let repeats = std::iter::from_fn(|| flight.repeat(idle, now + LATER)).count() as u64;
        assert_eq!(repeats, REPEATS_WORK_MAX.div_ceil(chunk(1).work()));
    }

    #[test]
    fn the_first_confirmation_counts_and_nothing_after_it() {
        for (first_wins, late_is_good) in [(true, true), (true, false), (false, true), (false, false)] {
            let (mut flight, _, chunks, later) = stuck(&[1]);
            let idle = flight.enter(1, 0);
            let mut hands = [chunks[0].clone(), flight.repeat(idle, later).unwrap()];
            if !first_wins {
                hands.swap(0, 1);
            }
            assert!(flight.take_back(&hands[0], true, later) && flight.is_empty());
            assert!(!flight.take_back(&hands[1], late_is_good, later));
        }
    }

    #[test]
    fn one_that_fails_leaves_the_chunk_to_the_other_and_the_other_may_be_repeated_again() {
        for first_fails in [true, false] {
            let (mut flight, holders, chunks, mut later) = stuck(&[1]);
            let idle = flight.enter(1, 0);
            let mut hands = [chunks[0].clone(), flight.repeat(idle, later).unwrap()];
            let mut free = holders[0];
            if !first_fails {
                hands.swap(0, 1);
                free = idle;
            }
            assert!(!flight.take_back(&hands[0], false, later));
            assert!(flight.repeat(free, later).is_none(), "not at once");
            later += LATER;
            let again = flight.repeat(free, later).unwrap();
            assert!(!flight.take_back(&hands[1], false, later) && !flight.is_empty());
            assert!(flight.take_back(&again, false, later) && flight.is_empty(), "nobody else has it");
        }
    }

    #[test]
    fn repeats_that_always_fail_do_not_wait_for_the_one_that_is_stuck() {
        let (mut flight, _, chunks, mut later) = stuck(&[1]);
        let idle = flight.enter(1, 0);
        let mut failures = 0;
        while !flight.is_empty() {
            later += LATER;
            let repeat = flight.repeat(idle, later).unwrap();
            failures += 1;
            assert_eq!(flight.take_back(&repeat, false, later), failures == CHUNK_TRIES_MAX);
        }
        assert!(!flight.take_back(&chunks[0], true, later), "it was put back meanwhile");
    }

    #[test]
    fn a_process_repeats_what_one_of_its_threads_is_stuck_with_where_another_is_idle() {
        let (mut flight, holders, _, later) = stuck(&[2]);
        let repeat = flight.repeat(holders[0], later).unwrap();
        assert!(repeat.hand.is_repeat());
        assert!(flight.repeat(holders[0], later).is_none());
        assert!(flight.take_back(&repeat, true, later));
    }

    #[test]
    fn a_share_follows_the_rate_of_its_holder() {
        let (mut flight, mut now) = (Flight::default(), Instant::now());
        let (slow, quick) = (flight.enter(1, 0), flight.enter(1, 0));
        assert_eq!(flight.share(quick, u64::MAX), CHUNK_LEN_MIN, "nothing is known of it");
        for (holder, rate) in [(slow, 1 << 18), (quick, 1 << 24), (quick, 1 << 22)] {
            for _ in 0..20 {
                let chunk = flight.hand_out(chunk(rate), holder, now);
                now += Duration::from_secs(1);
                assert!(flight.take_back(&chunk, true, now));
            }
            let (share, half) = (flight.share(holder, u64::MAX), (rate / 2).max(CHUNK_LEN_MIN));
            assert!(share >= half && share < half + half / 4 && share.is_multiple_of(BLOCK_LEN as u64), "{rate}: {share}");
        }
        for (left, most) in [(1 << 40, 1 << 40), (1 << 24, 1 << 22), (1 << 20, CHUNK_LEN_MIN)] {
            assert!(flight.share(quick, left) <= most, "{left} are left for two");
        }
        assert_eq!(flight.share(quick, 1 << 23), 1 << 21, "a quarter for each of two, twice");
    }

    #[test]
    fn patience_follows_what_others_took() {
        let (mut flight, now) = (Flight::default(), Instant::now());
        let (slow, quick) = (flight.enter(1, 0), flight.enter(1, 0));
        // What is behind it may take twice as long, but not once the first is late.
        (0..2).for_each(|_| drop(flight.hand_out(chunk(1 << 24), slow, now)));
        let other = flight.hand_out(chunk(1 << 24), quick, now);
        let second = now + Duration::from_secs(1);
        assert!(flight.take_back(&other, true, second));
        for (after, is_due) in [(1900, false), (2100, false), (2400, false), (2600, true)] {
            let at = now + Duration::from_millis(after);
            let idle = flight.enter(1, 0);
            let repeats = [quick, idle].map(|holder| flight.repeat(holder, at).is_some());
            assert_eq!(repeats, [is_due, is_due], "after {after} ms");
        }
    }

    #[test]
    fn what_a_slow_route_has_is_repeated_by_another_from_its_end_once_that_is_done_sooner() {
        let (mut flight, mut now) = (Flight::default(), Instant::now());
        let [slow, beside, quick, other] = [1, 1, 0, 2].map(|route| flight.enter(1, route));
        for (holder, seconds) in [(slow, 4), (beside, 1), (quick, 1), (other, 1)] {
            let chunk = flight.hand_out(chunk(1 << 20), holder, now);
            now += Duration::from_secs(seconds);
            assert!(flight.take_back(&chunk, true, now));
        }
        flight.hand_out(chunk(1 << 20), other, now);
        assert!(flight.repeat(quick, now).is_none(), "it would take as long");
        let held: Vec<_> = (0..3).map(|_| flight.hand_out(chunk(1 << 20), slow, now).hand.number).collect();
        let mut repeats = |holder: Holder| {
            let chunk = flight.repeat(holder, now);
            chunk.inspect(|chunk| assert!(flight.take_back(chunk, true, now))).map(|chunk| chunk.hand.number)
        };
        assert_eq!(repeats(beside), None, "it would go by the same route");
        assert_eq!([repeats(quick), repeats(quick), repeats(quick)], [Some(held[2]), Some(held[1]), Some(held[0])]);
    }
}
