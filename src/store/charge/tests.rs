//! Tests of what files are charged for.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::thread;
use std::time::Duration;

use super::super::leftovers::Rule;
use super::super::yard::{BLOCK, Yard, leftovers, meta, path, published};
use super::super::{Incoming, Joined, State, take_umask};
use super::*;
use crate::digest::{Binding, Checksum};

fn limited(bytes: u64, files: u64, prepare: impl FnOnce(&Yard)) -> Yard {
    let mut yard = Yard::new();
    prepare(&yard);
    yard.store.limit(Limits { bytes, files }).unwrap();
    yard
}

fn used(yard: &Yard) -> (u64, u64) {
    let usage = yard.store.ledger().unwrap().usage();
    (usage.bytes, usage.files)
}

/// Fails unless the ledger says what is there.
fn expect_used(yard: &Yard, bytes: u64, files: u64) {
    let counted = usage::count(yard.store.root.as_fd()).unwrap();
    assert_eq!((used(yard), (counted.bytes, counted.files)), ((bytes, files), (bytes, files)));
}

fn put(yard: &Yard, name: &str, size: usize, on_existing: OnExisting) -> Result<State, Error> {
    yard.put(name, &vec![b'x'; size], on_existing)
}

fn join(store: &Store, name: &str, meta: &FileMeta) -> Result<Arc<Incoming>, Error> {
    match store.join(&mut Folders::default(), &path(name), meta, OnExisting::Replace, &mut || Ok(()))? {
        Joined::Incoming(incoming) => Ok(incoming),
        Joined::Had => panic!("{name} is there"),
    }
}

fn write_block(incoming: &Incoming, offset: u64) {
    let mut blocks = incoming.begin_blocks(Binding::of(b"x"), Checksum::Xxh3);
    blocks.write(offset, &[7; BLOCK as usize], &[1; 16]).unwrap();
}

// D01
#[test]
fn what_does_not_fit_is_refused_before_a_byte_of_it_and_what_does_is_not() {
    let yard = limited(10, 3, |_| {});
    let refused = put(&yard, "new/a", 11, OnExisting::Replace).unwrap_err().to_string();
    assert_eq!(refused, "needs 11 bytes, 10 bytes of 10 bytes left: remove something, or have the quota raised, for new/a");
    assert!(!yard.at("new").exists());
    assert!(join(&yard.store, "b", &meta(11, 1)).is_err());
    expect_used(&yard, 0, 0);
    put(&yard, "new/a", 10, OnExisting::Replace).unwrap();
    put(&yard, "empty", 0, OnExisting::Replace).unwrap();
    assert!(put(&yard, "c", 1, OnExisting::Replace).is_err());
    expect_used(&yard, 10, 2);
    put(&yard, "last", 0, OnExisting::Replace).unwrap();
    let refused = put(&yard, "one more", 0, OnExisting::Replace).unwrap_err().to_string();
    assert!(refused.starts_with("needs 1 more file, 0 of 3 files left:"), "{refused}");
    // It takes the place of one.
    put(&yard, "last", 0, OnExisting::Replace).unwrap();
    expect_used(&yard, 10, 3);
    yard.assert_clean();
}

#[test]
fn what_is_replaced_counts_once_and_what_is_kept_aside_counts() {
    let yard = limited(100, 20, |yard| {
        fs::write(yard.at("a"), [0; 60]).unwrap();
        fs::write(yard.at("linked"), [0; 10]).unwrap();
        fs::hard_link(yard.at("linked"), yard.at("other")).unwrap();
        symlink("12345", yard.at("link")).unwrap();
        fs::create_dir(yard.at("folder")).unwrap();
    });
    expect_used(&yard, 75, 3);
    // Together with the old one there would be no room, nor would there be a quarter left.
    for (size, sum) in [(85, 100), (20, 35), (60, 75), (85, 100), (85, 100)] {
        put(&yard, "a", size, OnExisting::Replace).unwrap();
        expect_used(&yard, sum, 3);
    }
    assert!(put(&yard, "a", 86, OnExisting::Replace).is_err());
    assert!(put(&yard, "a", 20, OnExisting::KeepAside).is_err());
    put(&yard, "a", 5, OnExisting::Replace).unwrap();
    // One of two names is no file more, and none less.
    put(&yard, "linked", 10, OnExisting::Replace).unwrap();
    expect_used(&yard, 30, 4);
    put(&yard, "other", 3, OnExisting::Replace).unwrap();
    put(&yard, "link", 9, OnExisting::Replace).unwrap();
    expect_used(&yard, 27, 4);
    put(&yard, "a", 6, OnExisting::KeepAside).unwrap();
    put(&yard, "new", 6, OnExisting::KeepAside).unwrap();
    expect_used(&yard, 39, 6);
    assert!(put(&yard, "folder", 1, OnExisting::Replace).is_err());
    expect_used(&yard, 39, 6);
    yard.assert_clean();
}

// D07
#[test]
fn what_was_to_be_replaced_may_go_or_move_meanwhile() {
    for (first_is_removed, outcome) in [(false, None), (true, Some(9))] {
        let yard = limited(10, 9, |yard| fs::write(yard.at("a"), [0; 8]).unwrap());
        let incoming = yard.store.begin(&mut Folders::default(), &path("a"), &meta(9, 1), OnExisting::Replace).unwrap();
        assert_eq!(used(&yard), (9, 1));
        if first_is_removed {
            // By another who replaces it, without credit.
            put(&yard, "a", 1, OnExisting::Replace).unwrap();
            assert_eq!(used(&yard), (10, 2));
        } else {
            fs::rename(yard.at("a"), yard.at("b")).unwrap();
        }
        incoming.write_at(0, &[1; 9]).unwrap();
        match outcome {
            Some(bytes) => {
                assert_eq!(incoming.note(0..9).unwrap(), published());
                expect_used(&yard, bytes, 1);
            }
            None => {
                let refused = incoming.note(0..9).unwrap_err().to_string();
                assert!(refused.starts_with("needs 8 bytes, 1 bytes of 10 bytes left"), "{refused}");
                expect_used(&yard, 8, 1);
            }
        }
        yard.assert_clean();
    }
}

// D04
#[test]
fn what_is_declared_and_never_comes_is_given_back() {
    let yard = limited(100 * BLOCK, 5, |_| {});
    for number in 0..100 {
        let incoming = join(&yard.store, &format!("d/{number}"), &meta(100 * BLOCK, 1)).unwrap();
        assert_eq!(used(&yard), (100 * BLOCK, 1));
        assert!(join(&yard.store, "another", &meta(1, 1)).is_err());
        drop(incoming);
        expect_used(&yard, 0, 0);
    }
    let small = yard.store.begin(&mut Folders::default(), &path("x"), &meta(BLOCK, 1), OnExisting::Replace).unwrap();
    assert_eq!(used(&yard), (BLOCK, 1));
    drop(small);
    let voided = join(&yard.store, "v", &meta(2 * BLOCK, 1)).unwrap();
    write_block(&voided, 0);
    voided.void();
    expect_used(&yard, 0, 0);
    yard.assert_clean();
}

// D06 D09
#[test]
fn what_stays_of_a_file_counts_as_what_is_there_of_it() {
    let size = 64 * BLOCK;
    let mut yard = limited(size, 9, |_| {});
    let incoming = join(&yard.store, "a", &meta(size, 1)).unwrap();
    write_block(&incoming, 3 * BLOCK);
    write_block(&incoming, 9 * BLOCK);
    // As it is after a kill.
    assert_eq!(usage::count(yard.store.root.as_fd()).unwrap(), Usage::file(2 * BLOCK));
    assert_eq!(used(&yard), (size, 1));
    drop(incoming);
    expect_used(&yard, 2 * BLOCK, 1);
    let data = || leftovers(&yard.at("")).into_iter().find(|name| !name.to_str().unwrap().ends_with('j')).unwrap();
    // The disk has the rest of the room back.
    assert!(fs::metadata(data()).unwrap().blocks() * 512 <= 4 * BLOCK);
    yard.store.ledger().unwrap().set_limits(Limits { bytes: size - 1, files: 9 });
    let refused = join(&yard.store, "a", &meta(size, 1)).unwrap_err().to_string();
    assert!(refused.starts_with("needs 3.88 MiB, 3.87 MiB of 4 MiB left"), "{refused}");
    expect_used(&yard, 2 * BLOCK, 1);
    yard.store.limit(Limits { bytes: size, files: 1 }).unwrap();
    expect_used(&yard, 2 * BLOCK, 1);
    let again = join(&yard.store, "a", &meta(size, 1)).unwrap();
    assert_eq!(used(&yard), (size, 1));
    for number in (0..64).filter(|number| ![3, 9].contains(number)) {
        write_block(&again, number * BLOCK);
    }
    let mut last = State::Stored;
    for range in again.missing() {
        last = again.note(range).unwrap();
    }
    assert_eq!(last, published());
    expect_used(&yard, size, 1);
    assert_eq!(fs::read(yard.at("a")).unwrap(), vec![7; size as usize]);
    yard.assert_clean();
}

#[test]
fn what_another_process_has_is_counted_beside_ours() {
    let size = 4 * BLOCK;
    let yard = limited(size + 2 * BLOCK, 9, |_| {});
    let first = join(&yard.store, "a", &meta(size, 1)).unwrap();
    write_block(&first, 0);
    let mut another = Store::open(&yard.at(""), take_umask()).unwrap();
    another.limit(Limits { bytes: size + BLOCK - 1, files: 9 }).unwrap();
    assert!(join(&another, "a", &meta(size, 1)).is_err());
    assert_eq!(leftovers(&yard.at("")).len(), 2);
    another.ledger().unwrap().set_limits(Limits { bytes: size + BLOCK, files: 9 });
    let second = join(&another, "a", &meta(size, 1)).unwrap();
    assert_eq!(another.ledger().unwrap().usage(), Usage { bytes: size + BLOCK, files: 2 });
    drop(second);
    assert_eq!(another.ledger().unwrap().usage(), Usage { bytes: BLOCK, files: 1 });
}

// D08
#[test]
fn what_changes_behind_its_back_never_makes_it_negative_and_counting_again_puts_it_right() {
    let mut yard = limited(100, 9, |yard| fs::write(yard.at("gone"), [0; 30]).unwrap());
    fs::write(yard.at("came"), [0; 50]).unwrap();
    fs::remove_file(yard.at("gone")).unwrap();
    assert_eq!(used(&yard), (30, 1));
    put(&yard, "came", 1, OnExisting::Replace).unwrap();
    assert_eq!(used(&yard), (0, 1));
    put(&yard, "b", 40, OnExisting::Replace).unwrap();
    yard.store.limit(Limits { bytes: 100, files: 9 }).unwrap();
    expect_used(&yard, 41, 2);
}

#[test]
fn what_is_swept_is_given_back() {
    let name = |number: u64| format!(".ptf-{:016x}{number:016x}", 0xabc);
    let yard = limited(100, 9, |yard| {
        fs::write(yard.at(name(1)), [0; 30]).unwrap();
        fs::write(yard.at(name(2)), [0; 30]).unwrap();
        fs::write(yard.at(format!("{}j", name(2))), "x").unwrap();
        fs::write(yard.at("file"), [0; 20]).unwrap();
        fs::hard_link(yard.at("file"), yard.at(name(3))).unwrap();
    });
    expect_used(&yard, 80, 3);
    let rule = Rule {
        ended: &[0xabc].into(),
        ended_after: Some(Duration::ZERO),
        kept_after: Some(Duration::ZERO),
        unclaimed_after: Duration::ZERO,
        is_claimed: &|_| false,
        reads_journals: false,
    };
    let mut told = 0;
    yard.store.look_through(&RemotePath::root(), &rule, &mut |leftover| told += u8::from(leftover.is_removed)).unwrap();
    assert_eq!(told, 3);
    expect_used(&yard, 20, 1);
    yard.assert_clean();
}

// D02: in no moment is there more than may be, whoever comes first.
#[test]
fn many_at_once_never_pass_it_and_fill_it() {
    let yard = limited(100, 1000, |_| {});
    let puts = |number: u64| {
        let mut landed = 0;
        for round in 0..50 {
            let name = format!("{}", (number * 7 + round * 3) % 20);
            let size = 1 + (number * 31 + round * 17) % 12;
            landed += u64::from(put(&yard, &name, size as usize, OnExisting::Replace).is_ok());
            assert!(used(&yard).0 <= 100);
        }
        landed
    };
    let landed: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || puts(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(landed > 0);
    let (bytes, files) = used(&yard);
    expect_used(&yard, bytes, files);
    yard.assert_clean();
}

#[test]
fn a_file_keeps_to_the_bounds() {
    let mut yard = Yard::new();
    yard.store.set_bounds(Bounds { max_file: Some(10), min_free: None });
    put(&yard, "a", 10, OnExisting::Replace).unwrap();
    let refused = put(&yard, "b", 11, OnExisting::Replace).unwrap_err().to_string();
    assert_eq!(refused, "has 11 bytes, and no file of more than 10 bytes is taken: b");
    let refused = join(&yard.store, "b", &meta(2048, 1)).unwrap_err().to_string();
    assert_eq!(refused, "has 2 KiB, and no file of more than 10 bytes is taken: b");
    assert!(yard.store.check_write(&path("b"), &(0..10)).is_ok() && yard.store.check_write(&path("b"), &(10..11)).is_err());
    yard.store.set_bounds(Bounds { max_file: None, min_free: Some(u64::MAX) });
    let refused = put(&yard, "b", 5, OnExisting::Replace).unwrap_err().to_string();
    assert!(refused.starts_with("needs 5 bytes, ") && refused.ends_with("16 EiB have to stay so: no room for b"), "{refused}");
    put(&yard, "empty", 0, OnExisting::Replace).unwrap();
    assert!(join(&yard.store, "b", &meta(2048, 1)).is_err() && yard.store.check_write(&path("b"), &(0..1)).is_err());
    // What is promised to one is not there for another, until the disk knows of it.
    yard.store.set_bounds(Bounds { max_file: None, min_free: Some(1) });
    let begin = |name| yard.store.begin(&mut Folders::default(), &path(name), &meta(1000, 1), OnExisting::Replace);
    let first = begin("c").unwrap();
    let promised = || *lock(&yard.store.allowance.promised);
    assert_eq!(promised(), 1000);
    drop(first);
    let large = join(&yard.store, "d", &meta(BLOCK, 1)).unwrap();
    assert!([0, BLOCK].contains(&promised()));
    drop(large);
    assert_eq!(promised(), 0);
    yard.assert_clean();
}

#[test]
fn a_part_that_is_left_to_another_counts_though_there_is_no_room_for_both() {
    let mut yard = Yard::new();
    let size = 4 * BLOCK;
    let meta = meta(size, 1);
    let another = Store::open(&yard.at(""), take_umask()).unwrap();
    let theirs = join(&another, "a", &meta).unwrap();
    write_block(&theirs, 0);
    yard.store.limit(Limits { bytes: size, files: 9 }).unwrap();
    expect_used(&yard, BLOCK, 1);
    assert!(join(&yard.store, "a", &meta).is_err());
    expect_used(&yard, BLOCK, 1);
}
