//! Connections that are slow, stall or die again and again: no run of v2 waits for one of them.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::judge::*;
use common::link::{Knobs, Link};
use common::sender::*;
use common::*;

/// What each connection carries in a second: so little that the link sets the pace, not the processor.
const RATE: u64 = 5_000_000;
const CHUNK: u64 = 500_000;
const CONTENT: u64 = 96 * CHUNK;

/// Eight connections of one process, or of two; and which of them is not as the others: one of the first
/// process, or the last one, of the other process.
const CREWS: [([&str; 4], usize); 2] =
    [(["--process_num", "1", "--thread_num", "8"], 2), (["--process_num", "2", "--thread_num", "4"], LAST)];

/// The last connection that is opened where none breaks: there is one for control.
const LAST: usize = 8;

/// Sends a file through a link whose connections are as `choose` says, and gives the link as well.
fn send_through(file: &Path, crew: &[&str], choose: impl Fn(usize) -> Knobs + Send + 'static) -> (Ended, Link) {
    let root = temp_dir();
    let mut recv = Recv::start(root.path());
    let link = Link::narrow(recv.port, choose);
    let length = CHUNK.to_string();
    let flags = [crew, &["--plain", "--length", &length]].concat();
    let ended = Sender::start(&mut send_to(link.port, file, "in", &flags)).wait().expect(0);
    assert_same(file, &recv.path("in/file"));
    assert_eq!((ended.number("bytes"), ended.number("files"), ended.number("failed")), (CONTENT, 1, 0), "{}", ended.json);
    link.release();
    recv.expect_idle();
    assert_eq!(leftovers(root.path()), [""; 0]);
    (ended, link)
}

fn seconds(ended: &Ended) -> f64 {
    ended.json["seconds"].as_f64().unwrap()
}

fn steady() -> Knobs {
    Knobs { rate: Some(RATE), ..Knobs::default() }
}

/// Tests each crew with a link of which some connections are as `knobs` say, and all others steady: it
/// takes hardly longer than where all of them are. `is_odd` tells by the index of a connection, and that
/// of the crew's odd one.
fn compare(knobs: Knobs, is_odd: fn(usize, usize) -> bool, expect: impl Fn(&Ended, &Link, usize)) {
    let source = temp_dir();
    let file = source.path().join("file");
    write(&file, noise(CONTENT as usize, 1));
    for (crew, odd) in CREWS {
        let (usual, _) = send_through(&file, &crew, |_| steady());
        assert_eq!(usual.number("lost_connections"), 0, "{}", usual.json);
        let (ended, link) = send_through(&file, &crew, move |index| if is_odd(index, odd) { knobs } else { steady() });
        let (took, instead_of) = (seconds(&ended), seconds(&usual));
        assert!(took < 1.6 * instead_of, "{took} s instead of {instead_of} s: {}", ended.json);
        expect(&ended, &link, odd);
    }
}

// E05, F09
#[test]
fn a_connection_that_is_a_hundred_times_slower_is_not_waited_for() {
    let knobs = Knobs { rate: Some(RATE / 100), ..Knobs::default() };
    compare(
        knobs,
        |index, odd| index == odd,
        |ended, link, odd| {
            assert!(link.forth_of(odd) < CHUNK, "it carried {}", link.forth_of(odd));
            expect_repeats(ended, link);
        },
    );
}

// E05, F09
#[test]
fn a_connection_that_stalls_for_good_is_not_waited_for() {
    let knobs = Knobs { hold: Some(CHUNK / 2), ..steady() };
    compare(knobs, |index, odd| index == odd, |ended, link, _| expect_repeats(ended, link));
}

/// Fails unless what one connection held was sent twice, and little else.
fn expect_repeats(ended: &Ended, link: &Link) {
    assert!(ended.number("repeated_bytes") >= CHUNK, "{}", ended.json);
    assert!(link.forth() < CONTENT + 12 * CHUNK, "{} bytes for {CONTENT}", link.forth());
    assert_eq!(ended.number("lost_connections"), 0, "{}", ended.json);
}

// E04, E05
#[test]
fn a_connection_that_dies_again_and_again_does_not_hold_up_the_others() {
    let knobs = Knobs { lifetime: Some(Duration::from_millis(200)), ..steady() };
    // That one, and each that is opened in its place.
    compare(
        knobs,
        |index, odd| index == odd || index > LAST,
        |ended, link, _| {
            assert!(link.resets() > 0, "none died: {}", ended.json);
            assert!(link.forth() < CONTENT + 40 * CHUNK, "{} bytes for {CONTENT}", link.forth());
        },
    );
}

// E15
#[test]
fn a_worker_process_that_stands_still_is_not_waited_for() {
    let (source, root) = (temp_dir(), temp_dir());
    let file = source.path().join("file");
    write(&file, noise(CONTENT as usize, 1));
    let recv = Recv::start(root.path());
    let link = Link::narrow(recv.port, |_| steady());
    let (crew, _) = CREWS[1];
    let flags = [&crew[..], &["--length", "500000"]].concat();
    let sender = Sender::start(&mut send_to(link.port, &file, "in", &flags));
    wait_until("the other process sends", || link.forth_of(LAST) > CHUNK / 2);
    let children = children_of(sender.child.id());
    assert_eq!(children.len(), 1);
    signal_to(children[0], "STOP");
    let ended = sender.wait().expect(0);
    assert_same(&file, &recv.path("in/file"));
    assert!(ended.number("repeated_bytes") > 0, "{}", ended.json);
    let is_gone = || fs::read_to_string(format!("/proc/{}/stat", children[0])).map_or(true, |stat| stat.contains(") Z "));
    wait_until("it is gone, too", is_gone);
}

// E04, E05
#[test]
fn what_a_late_copy_leaves_behind_changes_no_folder_after_the_end() {
    let (source, root) = (temp_dir(), temp_dir());
    (0..8).for_each(|index| write(&source.path().join(format!("d/f{index}")), noise(1 << 20, index)));
    for name in ["d", ""] {
        set_mtime(&source.path().join(name), 1_600_000_000, 7);
    }
    for flags in [&["--plain"][..], &[]] {
        let mut recv = Recv::start(root.path());
        let hold = |index| Knobs { hold: (index == 1).then_some(300_000), ..Knobs::default() };
        let link = Link::narrow(recv.port, hold);
        let target = format!("in {}", flags.len());
        let flags = [flags, &["--process_num", "1", "--thread_num", "2"]].concat();
        let ended = Sender::start(&mut send_to(link.port, source.path(), &target, &flags)).wait().expect(0);
        assert!(ended.number("repeated_bytes") >= 1 << 20, "{}", ended.json);
        let expect_kept = || assert_kept(source.path(), &root.path().join(&target), is_root(), |_| false);
        expect_kept();
        let is_waited_for = recv.process.threads().iter().any(|thread| thread.starts_with("conn"));
        assert!(is_waited_for, "{:?}", recv.process.threads());
        link.reset_all();
        recv.expect_idle();
        expect_kept();
    }
}
