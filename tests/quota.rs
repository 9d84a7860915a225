//! What a receiver may hold: refused with numbers before any data, never passed, right after a kill.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::job::*;
use common::journal::{BLOCK, JournalFile};
use common::link::Link;
use common::sender::*;
use common::*;

/// Bytes and number of files below a folder, journals aside, each counted once whatever its names.
fn held(top: &Path) -> (u64, usize) {
    let entries = walkdir::WalkDir::new(top).into_iter().flatten();
    let is_journal = |name: &str| name.starts_with(".ptf-") && name.ends_with('j');
    let files = entries.filter(|entry| !entry.file_type().is_dir() && !is_journal(&entry.file_name().to_string_lossy()));
    // Gone meanwhile, or renamed while the folder was read.
    let seen: BTreeMap<u64, u64> =
        files.filter_map(|entry| entry.metadata().ok()).map(|about| (about.ino(), about.len())).collect();
    (seen.values().sum(), seen.len())
}

fn expect_refused(ended: Ended, name: &str, why: &str) {
    let ended = ended.expect_failed(&[name], why);
    assert!(ended.said.contains("remove something, or have the quota raised"), "{}", ended.said);
}

// D01
#[test]
fn a_quota_takes_exactly_so_much() {
    let (source, root) = (temp_dir(), temp_dir());
    let recv = Recv::start_with(root.path(), &["--quota", "1MiB", "--quota_files", "3"]);
    let send = |name: &str, len: usize| {
        write(&source.path().join(name), noise(len, len as u64));
        Ended::of(&mut send_to(recv.port, &source.path().join(name), "in", &[]))
    };
    expect_refused(send("more", (1 << 20) + 1), "more", "needs 1048577 bytes, 1048576 bytes of 1048576 bytes left");
    assert_eq!(held(root.path()), (0, 0));
    send("all", 1 << 20).expect(0);
    send("empty", 0).expect(0);
    expect_refused(send("one", 1), "one", "needs 1 bytes, 0 bytes of 1 MiB left");
    // Counted once while it is replaced.
    send("all", (1 << 20) - 1).expect(0);
    send("one", 1).expect(0);
    expect_refused(send("another", 0), "another", "needs 1 more file, 0 of 3 files left");
    assert_eq!(held(root.path()), (1 << 20, 3));
    assert_eq!(leftovers(root.path()), [""; 0]);
}

// D02
#[test]
fn sixty_four_senders_at_once_never_pass_it_by_a_byte() {
    let (source, root) = (temp_dir(), temp_dir());
    let quota = 10_000_000;
    let recv = Recv::start_with(root.path(), &["--quota", &quota.to_string()]);
    let sizes: Vec<usize> = (0..64).map(|number| 200_000 + number * 10_000).collect();
    for (number, size) in sizes.iter().enumerate() {
        write(&source.path().join(format!("f{number}")), noise(*size, number as u64));
    }
    let done = AtomicBool::new(false);
    let landed: Vec<bool> = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(held(root.path()).0);
            }
            most
        });
        let senders: Vec<Sender> = (0..64)
            .map(|number| {
                let file = source.path().join(format!("f{number}"));
                Sender::start(&mut send_to(recv.port, &file, "in", &["--process_num", "1", "--thread_num", "1"]))
            })
            .collect();
        let ended: Vec<Ended> = senders.into_iter().map(Sender::wait).collect();
        done.store(true, Ordering::Relaxed);
        assert!(watch.join().unwrap() <= quota);
        ended.into_iter().map(|ended| ended.code == Some(0) || !ended.expect(3).said.contains(" of 9.54 MiB left")).collect()
    });
    let sum: usize = sizes.iter().zip(&landed).filter(|(_, landed)| **landed).map(|(size, _)| size).sum();
    assert_eq!(held(root.path()), (sum as u64, landed.iter().filter(|landed| **landed).count()));
    // Whoever was refused was refused for want of room: not even the smallest of them would fit.
    let smallest = sizes.iter().zip(&landed).filter(|(_, landed)| !**landed).map(|(size, _)| size).min();
    assert!(sum as u64 <= quota && (sum + smallest.unwrap()) as u64 > quota, "{sum}");
    assert_eq!(leftovers(root.path()), [""; 0]);
}

// D06 D09
#[test]
fn after_a_kill_it_is_what_is_there() {
    let (source, root) = (temp_dir(), temp_dir());
    let (file, len) = (source.path().join("large"), 40 << 20);
    write(&file, noise(len, 1));
    let quota = |bytes: u64| Recv::start_with(root.path(), &["--quota", &bytes.to_string()]);
    let recv = quota(len as u64);
    let link = Link::holding(recv.port, 8 << 20);
    let sender = Sender::start(&mut send_to(link.port, &file, "in", &["--retry_for", "1s"]));
    wait_until("something is there", || incoming_bytes(&root.path().join("in")) > 1 << 20);
    let small = source.path().join("small");
    write(&small, "1");
    expect_refused(Ended::of(&mut send_to(recv.port, &small, "", &[])), "small", "needs 1 bytes, 0 bytes of 40 MiB left");
    recv.process.signal("KILL");
    drop(recv);
    drop(sender);
    drop(link);
    // The rest of it does not fit any more; a small file does, beside what is there.
    let there = JournalFile::in_folder(&root.path().join("in")).blocks().len() as u64 * BLOCK;
    let recv = quota(len as u64 - 1);
    recv.process.wait_for_log(" files are there, which count for the quota");
    assert!(recv.process.log().contains(&format!("{there} bytes in 1 files")), "{there}: {}", recv.process.log());
    expect_refused(Ended::of(&mut send_to(recv.port, &file, "in", &[])), "large", " left: ");
    Ended::of(&mut send_to(recv.port, &small, "", &[])).expect(0);
    drop(recv);
    let recv = quota(len as u64 + 1);
    let ended = Ended::of(&mut send_to(recv.port, &file, "in", &[])).expect(0);
    assert!(ended.number("resumed_bytes") > 0, "{}", ended.json);
    assert_eq!(held(root.path()), (len as u64 + 1, 2));
}

#[test]
fn bounds_of_a_file_are_kept_and_version_1_is_not_served_with_a_quota() {
    let (source, root) = (temp_dir(), temp_dir());
    let send = |recv: &Recv, len: usize, flags: &[&str]| {
        write(&source.path().join("a"), noise(len, 1));
        Ended::of(&mut send_to(recv.port, &source.path().join("a"), "in", flags))
    };
    let recv = Recv::start_with(root.path(), &["--max_file", "1K"]);
    send(&recv, 1025, &[]).expect_failed(&["a"], "has 1025 bytes, and no file of more than 1024 bytes is taken");
    send(&recv, 1025, &["--protocol", "v1"]).expect(3);
    assert_eq!(held(root.path()).0, 0);
    send(&recv, 1024, &[]).expect(0);
    send(&recv, 1024, &["--protocol", "v1"]).expect(0);
    drop(recv);
    let recv = Recv::start_with(root.path(), &["--min-free", "1E"]);
    send(&recv, 5, &[]).expect_failed(&["a"], "of the disk are free and 1 EiB have to stay so");
    send(&recv, 5, &["--protocol", "v1"]).expect(3);
    drop(recv);
    let recv = Recv::start_with(root.path(), &["--quota-files", "9", "--min_free", "1"]);
    send(&recv, 5, &[]).expect(0);
    assert_ne!(send(&recv, 6, &["--protocol", "v1"]).code, Some(0));
    recv.process.wait_for_log("protocol v1 is not spoken here");
    assert_eq!(fs::read(root.path().join("in/a")).unwrap(), noise(5, 1));
}
