//! The ledger's arithmetic, with one thread.

use super::quota::{Ledger, Limits, Refusal, Usage, sizes};

const FIRST: (u32, u32, u64) = (0, 0, 1);
const SECOND: (u32, u32, u64) = (0, 0, 2);

fn ledger(bytes: u64, files: u64, there: Usage) -> Ledger {
    Ledger::new(Limits { bytes, files }, there)
}

fn usage(bytes: u64, files: u64) -> Usage {
    Usage { bytes, files }
}

// D01
#[test]
fn exactly_what_is_left_is_promised_and_not_one_byte_or_file_more() {
    let ledger = ledger(10, 3, usage(4, 1));
    let mut first = ledger.reserve(Usage::file(5)).unwrap();
    let refused = ledger.reserve(Usage::file(2)).unwrap_err();
    assert_eq!(refused, Refusal { needs: usage(2, 1), left: usage(1, 1), limits: Limits { bytes: 10, files: 3 } });
    assert!(first.grow(usage(2, 0)).is_err());
    first.grow(usage(1, 0)).unwrap();
    let empty = ledger.reserve(Usage::file(0)).unwrap();
    assert_eq!(ledger.usage(), usage(10, 3));
    assert_eq!(ledger.reserve(Usage::file(0)).unwrap_err().to_string(), "needs 1 more file, 0 of 3 files left");
    drop(empty);
    first.shrink_to(Usage::file(2));
    assert_eq!(ledger.usage(), usage(6, 2));
    first.commit();
    assert_eq!(ledger.usage(), usage(6, 2));
    ledger.give_back(usage(100, 100));
    assert_eq!(ledger.usage(), Usage::NONE);
}

#[test]
fn what_is_replaced_is_counted_once_and_credited_to_the_first() {
    let ledger = ledger(10, 1, usage(8, 1));
    let old = (FIRST, Usage::file(8));
    assert!(ledger.reserve_in_place_of(old, Usage::file(11)).is_err());
    let smaller = ledger.reserve_in_place_of(old, Usage::file(3)).unwrap();
    assert_eq!(ledger.usage(), usage(8, 1));
    assert!(smaller.is_credited() && ledger.reserve_in_place_of(old, Usage::file(3)).is_err());
    smaller.commit_in_place_of(old);
    assert_eq!(ledger.usage(), usage(3, 1));
    let larger = ledger.reserve_in_place_of((SECOND, Usage::file(3)), Usage::file(9)).unwrap();
    assert_eq!(ledger.usage(), usage(9, 1));
    drop(larger);
    assert_eq!(ledger.usage(), usage(3, 1));
    // What was given up can be claimed again.
    assert!(ledger.reserve_in_place_of((SECOND, Usage::file(3)), Usage::file(9)).unwrap().is_credited());
}

#[test]
fn a_credit_becomes_a_charge_when_what_it_is_for_goes_otherwise() {
    for publishes in [true, false] {
        let ledger = ledger(20, 9, usage(8, 1));
        let old = (FIRST, Usage::file(8));
        let mut first = ledger.reserve_in_place_of(old, Usage::file(9)).unwrap();
        let second = ledger.reserve_in_place_of(old, Usage::file(2)).unwrap();
        assert_eq!(ledger.usage(), usage(11, 2));
        second.commit_in_place_of(old);
        assert_eq!(ledger.usage(), usage(11, 2));
        if publishes {
            first.expect(Some(SECOND)).unwrap();
            first.commit_in_place_of((SECOND, Usage::file(2)));
            assert_eq!(ledger.usage(), usage(9, 1));
        } else {
            drop(first);
            assert_eq!(ledger.usage(), usage(2, 1));
        }
    }
    // It is elsewhere, and counts: both need room.
    let ledger = ledger(10, 9, usage(8, 1));
    let mut first = ledger.reserve_in_place_of((FIRST, Usage::file(8)), Usage::file(9)).unwrap();
    let refused = first.expect(None).unwrap_err().to_string();
    assert_eq!(refused, "needs 8 bytes, 1 bytes of 10 bytes left");
    ledger.set_limits(Limits { bytes: 17, files: 9 });
    first.expect(None).unwrap();
    first.commit();
    assert_eq!(ledger.usage(), usage(17, 2));
}

// D06
#[test]
fn what_is_there_of_a_file_is_not_charged_twice() {
    let ledger = ledger(10, 2, usage(4, 1));
    let mut whole = ledger.resume(Usage::file(4), Usage::file(9)).unwrap();
    assert_eq!(ledger.usage(), usage(9, 1));
    whole.shrink_to(Usage::file(6));
    whole.commit();
    assert_eq!(ledger.usage(), usage(6, 1));
    ledger.set_limits(Limits { bytes: 5, files: 2 });
    assert_eq!(ledger.resume(Usage::file(6), Usage::file(9)).unwrap_err().needs, usage(3, 0));
    assert_eq!(ledger.usage(), usage(6, 1));
    drop(ledger.resume(Usage::file(6), Usage::file(6)).unwrap());
    assert_eq!(ledger.usage(), Usage::NONE);
    // Put there by somebody else it was not counted before.
    assert!(ledger.resume(Usage::file(6), Usage::file(6)).is_err());
    drop(ledger.resume(Usage::file(5), Usage::file(5)).unwrap());
    assert_eq!(ledger.usage(), Usage::NONE);
}

#[test]
fn sizes_are_for_people_and_tell_what_differs() {
    assert_eq!(sizes([1_288_490_189, 300 << 20, 500 << 20]), ["1.2 GiB", "300 MiB", "500 MiB"]);
    assert_eq!(sizes([0, 1, 1023, 1024, u64::MAX]), ["0 bytes", "1 bytes", "1023 bytes", "1 KiB", "16 EiB"]);
    assert_eq!(sizes([(1 << 30) + 1, 1 << 30]), ["1073741825 bytes", "1073741824 bytes"]);
    assert_eq!(sizes([(1 << 20) - 1, 5]), ["1 MiB", "5 bytes"]);
}
