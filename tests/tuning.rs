//! How many connections a run has: more where each brings its own rate, and no more where all share one.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
mod common;

use std::path::Path;

use common::link::{Knobs, Link};
use common::sender::*;
use common::*;
use parallel_transfer::limits::{THREAD_NUM_DEFAULT, TUNE_START};

/// Connections that a run begins with where it may have twice as many.
fn start() -> usize {
    TUNE_START.max(num_cpus::get() * THREAD_NUM_DEFAULT)
}

/// The number that is tried next, with the control connection.
fn tried() -> usize {
    start() + start() / 2 + 1
}

/// Begins to send so many bytes over as many connections as it likes, up to twice those of the start.
fn send_over(link: &Link, file: &Path, bytes: usize, flags: &[&str]) -> Sender {
    write(file, noise(bytes, 1));
    let threads = (2 * start()).to_string();
    let all = ["--plain", "--process_num", "1", "--thread_num", &threads, "--length", "64K"];
    Sender::start(send_to(link.port, file, "in", &all).args(flags))
}

// E12
#[test]
fn where_each_connection_has_a_rate_of_its_own_there_are_ever_more() {
    let (source, root) = (temp_dir(), temp_dir());
    let recv = Recv::start(root.path());
    // So little that the link sets the pace, not a processor.
    const RATE: u64 = 256 * 1024;
    let link = Link::narrow(recv.port, |_| Knobs { rate: Some(RATE), ..Knobs::default() });
    let bytes = 2 * start() * 20 * RATE as usize;
    let sender = send_over(&link, &source.path().join("file"), bytes, &[]);
    wait_until("there are as many as it may have", || link.connections() > 2 * start());
    assert!(link.forth() < bytes as u64, "it was not done before");
    drop(sender);
}

// E12
#[test]
fn where_all_share_one_rate_more_are_tried_and_given_up() {
    let (source, root) = (temp_dir(), temp_dir());
    let recv = Recv::start(root.path());
    let link = Link::to(recv.port);
    // Ten seconds: a first measurement, one with more, and time for another if that was taken for better.
    let ended = send_over(&link, &source.path().join("file"), 40 << 20, &["--bwlimit", "4M"]).wait().expect(0);
    assert_same(&source.path().join("file"), &recv.path("in/file"));
    let connections = link.connections();
    assert!(connections <= tried(), "{connections}: {}", ended.json);
    assert!(ended.number("tuned_connections") <= start() as u64, "{}", ended.json);
}
