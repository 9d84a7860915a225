//! Whatever becomes of chunks, in whatever order: none is lost, none counts twice, and it ends.

use super::*;
use crate::client::plan::tests::meta_of;
use crate::limits::REFUSALS_IN_A_ROW_MAX;

fn file(name: &str, size: u64) -> Sending {
    Sending::new(RemotePath::parse(name.as_bytes()).unwrap(), meta_of(size))
}

/// A time that no test waits for.
fn later() -> Instant {
    Instant::now() + std::time::Duration::from_secs(3600)
}

fn terms(length: u64) -> Terms<'static> {
    Terms {
        length,
        is_whole_when_stored: true,
        repeats: true,
        look: &|_| None,
        note_digest: None,
        has_routes: false,
        words: &super::super::outcome::PUSH,
    }
}

/// Of holder by holder's number of threads.
const THREADS: [usize; 3] = [1, 1, 2];

/// What several holders have of a queue, long after they took it.
struct Hands<'a> {
    queue: &'a Queue<'a>,
    now: Instant,
    held: Vec<(usize, Chunk)>,
}

impl Hands<'_> {
    fn take(&mut self, index: usize, holder: Holder) -> bool {
        self.now += 1000 * AGAIN_AFTER;
        match self.queue.pop(&mut self.queue.lock(), holder, self.now) {
            Taken::Chunk(chunk) => {
                // One that was put back is another one, even if somebody is still stuck with it.
                let is_same = |other: &Chunk| other.hand.number == chunk.hand.number;
                let others: Vec<usize> = self.held.iter().filter(|(_, other)| is_same(other)).map(|(other, _)| *other).collect();
                assert!(others.len() <= usize::from(chunk.hand.is_repeat()), "two have it already");
                if chunk.hand.is_repeat() {
                    assert!(THREADS[index] > 1 || !others.contains(&index), "it has it");
                }
                self.held.push((index, chunk));
            }
            Taken::Nothing => {}
            Taken::Finished => return false,
        }
        true
    }

    fn settle(&mut self, at: usize, outcome: usize) {
        if self.held.is_empty() {
            return;
        }
        let (_, chunk) = self.held.remove(at % self.held.len());
        let outcome = match outcome {
            0 => Outcome::Lost,
            1 => Outcome::Mismatched,
            2 => Outcome::SourceFailed("x".to_owned()),
            3 => Outcome::Changed,
            4 => Outcome::Denied("x".to_owned()),
            _ => Outcome::Stored,
        };
        self.queue.settle(vec![(chunk, outcome)]);
    }
}

#[test]
fn any_order_of_outcomes_and_repeats_loses_no_chunk_and_ends() {
    let steps = proptest::collection::vec((0..3usize, proptest::prelude::any::<bool>(), 0..50usize, 0..12usize), 0..300);
    proptest::proptest!(|(steps in steps, sizes in proptest::collection::vec(1..20u64, 1..20))| {
        let progress = Progress::default();
        let queue = Queue::new(terms(3), &progress);
        let holders = THREADS.map(|threads| queue.enter(threads, 0));
        for (index, size) in sizes.iter().enumerate() {
            assert!(queue.push(vec![file(&index.to_string(), *size)]));
        }
        queue.close();
        let mut hands = Hands { queue: &queue, now: Instant::now(), held: Vec::new() };
        for (index, takes, at, outcome) in &steps {
            if *takes {
                hands.take(*index, holders[*index]);
            } else {
                hands.settle(*at, *outcome);
            }
        }
        // The rest goes well, but what the first has now is stuck.
        let stuck: Vec<_> = hands.held.extract_if(.., |(index, _)| *index == 0).collect();
        let mut rounds = 0;
        while hands.take(1, holders[1]) {
            hands.settle(0, usize::MAX);
            rounds += 1;
            assert!(rounds < 10_000, "it does not end");
        }
        let ended = (progress.done_bytes.sum(), progress.done_files.sum(), progress.failed());
        assert_eq!(ended.1 + ended.2, sizes.len() as u64);
        assert!(ended.2 > 0 || ended.0 == sizes.iter().sum::<u64>(), "a chunk was counted twice, or not at all");
        // What comes late changes nothing.
        hands.held.extend(stuck);
        for outcome in 0.. {
            if hands.held.is_empty() {
                break;
            }
            hands.settle(0, outcome % 6);
        }
        assert_eq!((progress.done_bytes.sum(), progress.done_files.sum(), progress.failed()), ended);
        assert_eq!(queue.lock().waiting_work, 0);
        assert_eq!(queue.wait_event(None, later()), Event::Finished);
    });
}

#[test]
fn nothing_is_repeated_where_more_may_come_or_it_is_not_wanted() {
    for (repeats, is_closed) in [(false, true), (true, false), (true, true)] {
        let progress = Progress::default();
        let queue = Queue::new(Terms { repeats, ..terms(10) }, &progress);
        let [slow, idle] = [1, 1].map(|threads| queue.enter(threads, 0));
        queue.push(vec![file("x", 3)]);
        if is_closed {
            queue.close();
        }
        assert!(matches!(queue.try_take(slow), Taken::Chunk(_)));
        let later = Instant::now() + 1000 * AGAIN_AFTER;
        let taken = queue.pop(&mut queue.lock(), idle, later);
        let is_repeated = matches!(taken, Taken::Chunk(_));
        assert_eq!((is_repeated, progress.repeated_bytes.sum()), if repeats && is_closed { (true, 3) } else { (false, 0) });
    }
}

#[test]
fn a_file_that_is_there_with_a_fault_is_not_lost_whoever_is_told() {
    for is_told_last in [false, true] {
        let progress = Progress::default();
        let queue = Queue::new(terms(10), &progress);
        let [slow, idle] = [1, 1].map(|threads| queue.enter(threads, 0));
        queue.push(vec![file("x", 3)]);
        queue.close();
        let Taken::Chunk(first) = queue.try_take(slow) else { panic!() };
        let later = Instant::now() + 1000 * AGAIN_AFTER;
        let Taken::Chunk(second) = queue.pop(&mut queue.lock(), idle, later) else { panic!() };
        let (at_once, late) = if is_told_last { (second, first) } else { (first, second) };
        let path = late.file.path.clone();
        queue.settle(vec![(at_once, if is_told_last { Outcome::Stored } else { Outcome::Whole(Some("x".to_owned())) })]);
        queue.settle(vec![(late, if is_told_last { Outcome::Whole(Some("x".to_owned())) } else { Outcome::Stored })]);
        assert_eq!((queue.may_have_lost(&path), progress.failed()), (false, 1), "{is_told_last}");
    }
}

#[test]
fn a_file_is_done_when_the_receiver_says_that_it_is_whole() {
    let progress = Progress::default();
    let queue = Queue::new(Terms { is_whole_when_stored: false, ..terms(1) }, &progress);
    queue.push(vec![file("x", 2)]);
    queue.close();
    let next = |outcome| {
        let Taken::Chunk(chunk) = queue.try_take(0) else { panic!("nothing to do") };
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
        let Taken::Chunk(chunk) = queue.try_take(0) else { panic!("nothing to do") };
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
    while let Taken::Chunk(chunk) = queue.try_take(0) {
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
        queue.enter(1, 0);
    }
    queue.close();
    while let Taken::Chunk(chunk) = queue.try_take(0) {
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
    assert_eq!(queue.wait_event(Some(u64::MAX), later()), Event::Backlog);
    let holders = [queue.enter(1, 0), queue.enter(1, 0)];
    assert_eq!(queue.wait_event(Some(5), later()), Event::Backlog);
    queue.leave(holders[0], None);
    queue.leave(holders[1], Some(GaveUp::Unreachable("gone".to_owned())));
    assert_eq!(queue.wait_event(Some(5), later()), Event::Abandoned(GaveUp::Unreachable("gone".to_owned())));
    queue.abort();
    assert_eq!(queue.wait_event(Some(5), later()), Event::Finished);
}

#[test]
fn who_may_take_nothing_leaves_the_wake_up_to_one_who_may() {
    let progress = Progress::default();
    let queue = Queue::new(Terms { repeats: false, ..terms(1 << 20) }, &progress);
    let holders: Vec<Holder> = (0..4).map(|_| queue.enter(1, 0)).collect();
    let give = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let (queue, give) = (&queue, &give);
        for holder in holders {
            scope.spawn(move || {
                while let Some(chunk) = queue.take(holder) {
                    give.lock().unwrap().push(holder);
                    queue.settle(vec![(chunk, Outcome::Stored)]);
                }
            });
        }
        queue.set_at_work(1);
        for name in ["a", "b", "c", "d", "e"] {
            // Each is a single wake-up, perhaps of one that may not.
            let before = give.lock().unwrap().len();
            queue.push(vec![file(name, 1)]);
            while give.lock().unwrap().len() == before {
                std::thread::yield_now();
            }
        }
        queue.close();
    });
    assert_eq!(give.into_inner().unwrap().len(), 5);
}
