//! Connections that are slow, stall or die again and again: no run of v2 waits for one of them.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
mod common;

use std::path::Path;
use std::time::Duration;

use common::link::{Knobs, Link};
use common::sender::*;
use common::*;

/// What each connection carries in a second: so little that the link sets the pace, not the processor.
const RATE: u64 = 5_000_000;
const CHUNK: u64 = 500_000;
const CONTENT: u64 = 64 * CHUNK;

/// Eight connections: of one process, or of two.
const CREWS: [[&str; 4]; 2] = [["--process_num", "1", "--thread_num", "8"], ["--process_num", "2", "--thread_num", "4"]];

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

/// Of eight connections the `index`-th is as `knobs` say: how much longer does that take?
fn compare(crew: &[&str], index: usize, knobs: Knobs) -> (f64, Ended, Link) {
    let source = temp_dir();
    let file = source.path().join("file");
    write(&file, noise(CONTENT as usize, 1));
    let (usual, _) = send_through(&file, crew, |_| steady());
    assert_eq!(usual.number("lost_connections"), 0, "{}", usual.json);
    let (ended, link) = send_through(&file, crew, move |at| if at == index { knobs } else { steady() });
    let ratio = seconds(&ended) / seconds(&usual);
    assert!(ratio < 1.6, "{} s instead of {} s: {}", seconds(&ended), seconds(&usual), ended.json);
    // What is in sockets on the way is one megabyte or two a connection.
    assert!(link.forth() < CONTENT + 12 * CHUNK, "{} bytes for {CONTENT}", link.forth());
    (ratio, ended, link)
}

// E05, F09
#[test]
fn a_connection_that_is_a_hundred_times_slower_is_not_waited_for() {
    for crew in &CREWS {
        for index in [2, 8] {
            let (_, ended, link) = compare(crew, index, Knobs { rate: Some(RATE / 100), ..Knobs::default() });
            assert!(link.forth_of(index) < CHUNK, "it carried {}", link.forth_of(index));
            assert!(ended.number("repeated_bytes") >= CHUNK, "{}", ended.json);
            assert_eq!(ended.number("lost_connections"), 0, "{}", ended.json);
        }
    }
}

// E05, F09
#[test]
fn a_connection_that_stalls_for_good_is_not_waited_for() {
    for crew in &CREWS {
        for index in [2, 8] {
            let (_, ended, link) = compare(crew, index, Knobs { hold: Some(CHUNK / 2), ..steady() });
            assert!(link.forth_of(index) < 2 * CHUNK, "it carried {}", link.forth_of(index));
            assert!(ended.number("repeated_bytes") >= CHUNK, "{}", ended.json);
        }
    }
}

// E04, E05
#[test]
fn connections_that_die_again_and_again_do_not_hold_up_the_others() {
    for crew in &CREWS {
        let source = temp_dir();
        let file = source.path().join("file");
        write(&file, noise(CONTENT as usize, 1));
        let (usual, _) = send_through(&file, crew, |_| steady());
        let lifetime = Some(Duration::from_millis(300));
        // That one, and each that is opened in its place.
        let dies = |index| index == 2 || index > 8;
        let (ended, _) = send_through(&file, crew, move |index| match dies(index) {
            true => Knobs { lifetime, ..steady() },
            false => steady(),
        });
        assert!(seconds(&ended) < 1.6 * seconds(&usual), "{} s instead of {} s", seconds(&ended), seconds(&usual));
    }
}
