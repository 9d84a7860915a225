//! The ledger under a schedule checker: what its threads do is tried in many orders.

/// The checker's locks, in place of those of `super::sync`.
mod sync {
    pub(super) use shuttle::sync::{Arc, Mutex, MutexGuard};
}

#[allow(dead_code, unreachable_pub, clippy::duplicate_mod, reason = "the same source, with other locks")]
#[path = "quota.rs"]
mod quota;

use quota::{Inode, Ledger, Limits, Usage};
use shuttle::thread;
use sync::{Arc, Mutex};

/// A file that is there: which, and its bytes.
type There = Option<(Inode, u64)>;

fn in_many_orders(test: fn()) {
    shuttle::check_random(test, 3000);
    shuttle::check_pct(test, 3000, 3);
    shuttle::check_dfs(test, Some(20_000));
}

fn assert_within(ledger: &Ledger) {
    let (usage, limits) = (ledger.usage(), ledger.limits());
    assert!(usage.bytes <= limits.bytes && usage.files <= limits.files, "{usage:?} of {limits:?}");
}

fn join_all<T: 'static>(threads: impl IntoIterator<Item = thread::JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
}

// D02
#[test]
fn in_no_order_is_more_promised_than_there_is() {
    in_many_orders(|| {
        let ledger = Ledger::new(Limits { bytes: 5, files: 3 }, Usage::file(1));
        let put = |number: u64| {
            let ledger = ledger.clone();
            thread::spawn(move || {
                let mut there = 0;
                if let Ok(mut reservation) = ledger.reserve(Usage::file(2)) {
                    let whole = if reservation.grow(Usage { bytes: 1, files: 0 }).is_ok() { 3 } else { 2 };
                    assert_within(&ledger);
                    match number {
                        0 => there = whole,
                        1 => {
                            reservation.shrink_to(Usage::file(1));
                            there = 1;
                        }
                        _ => {}
                    }
                    if there > 0 {
                        reservation.commit();
                    }
                }
                assert_within(&ledger);
                there
            })
        };
        let there: Vec<u64> = join_all((0..4).map(put));
        let files = there.iter().filter(|bytes| **bytes > 0).count() as u64;
        assert_eq!(ledger.usage(), Usage { bytes: 1 + there.iter().sum::<u64>(), files: 1 + files });
    });
}

/// What publishing does: look at what is there, replace it, say so.
fn publish(ledger: &Ledger, place: &Mutex<There>, new: (Inode, u64), gives_up: bool) {
    let needs = Usage::file(new.1);
    let old = *place.lock().unwrap();
    let reserved = match old.map(|(inode, bytes)| (inode, Usage::file(bytes))) {
        Some(old) => ledger.reserve_in_place_of(old, needs),
        None => ledger.reserve(needs),
    };
    assert_within(ledger);
    let Ok(mut reservation) = reserved else { return };
    if gives_up {
        return;
    }
    let mut there = place.lock().unwrap();
    let old = there.map(|(inode, bytes)| (inode, Usage::file(bytes)));
    if reservation.expect(old.map(|(inode, _)| inode)).is_ok() {
        *there = Some(new);
        match old {
            Some(old) => reservation.commit_in_place_of(old),
            None => reservation.commit(),
        }
    }
    assert_within(ledger);
}

// D02 D07
#[test]
fn in_no_order_do_those_who_replace_one_file_count_wrong() {
    in_many_orders(|| {
        let ledger = Ledger::new(Limits { bytes: 9, files: 2 }, Usage::file(4));
        let place = Arc::new(Mutex::new(Some(((0, 0, 1), 4))));
        let other = Arc::new(Mutex::new(None));
        let steps = [(&place, 2, 5, false), (&place, 3, 3, false), (&place, 4, 4, true), (&other, 5, 4, false)];
        let put = |(place, inode, bytes, gives_up): (&Arc<Mutex<There>>, u64, u64, bool)| {
            let (ledger, place) = (ledger.clone(), Arc::clone(place));
            thread::spawn(move || publish(&ledger, &place, ((0, 0, inode), bytes), gives_up))
        };
        join_all(steps.into_iter().map(put));
        let there: Vec<u64> = [place, other].iter().filter_map(|place| *place.lock().unwrap()).map(|(_, bytes)| bytes).collect();
        assert_eq!(ledger.usage(), Usage { bytes: there.iter().sum(), files: there.len() as u64 });
    });
}
