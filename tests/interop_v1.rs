//! Our programs against a v1 peer of another make, both ways.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
mod common;

use std::fs;

use common::*;

/// The frames that a peer logged.
fn frames(log: &std::path::Path, op: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|frame: &serde_json::Value| frame["op"] == op).collect()
}

#[test]
fn a_v1_receiver_takes_writes_sent_ahead() {
    let (source, target) = (temp_dir(), temp_dir());
    for index in 0..40 {
        write(&source.path().join(format!("f{index}")), noise(50_000, index + 1));
    }
    let log = target.path().join("log");
    let (_peer, port) = start_v1_peer(target.path(), &["--log", log.to_str().unwrap()]);
    let remote = target.path().join("in");
    expect_code(&mut send_v1(port, source.path(), &remote, &["--process_num", "1", "--thread_num", "1"]), 0);
    assert_same(source.path(), &remote);
    let writes = frames(&log, "wf");
    assert_eq!(writes.len(), 40);
    let ahead = writes.iter().filter(|frame| frame["waiting"].as_u64() > Some(0)).count();
    assert!(ahead > 20, "only {ahead} of 40 writes had another one waiting behind them");
}

// A20
#[test]
fn a_tree_arrives_at_a_v1_receiver() {
    let (source, target) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let (_peer, port) = start_v1_peer(target.path(), &[]);
    // The parents of the remote folder are missing: that receiver makes one level at a time.
    let remote = target.path().join("some/where/in");
    expect_code(&mut send_v1(port, source.path(), &remote, &["--length", "10000"]), 0);
    assert_same(source.path(), &remote);
}

// A20
#[test]
fn a_single_file_arrives_at_a_v1_receiver_under_its_own_name() {
    let (source, target) = (temp_dir(), temp_dir());
    let file = source.path().join("a file");
    write(&file, noise(1_000_000, 7));
    let (_peer, port) = start_v1_peer(target.path(), &[]);
    expect_code(&mut send_v1(port, &file, target.path().join("in"), &["--length", "99999"]), 0);
    assert_eq!(list(&target.path().join("in")), ["a file"]);
    assert_eq!(fs::read(target.path().join("in/a file")).unwrap(), noise(1_000_000, 7));
    // Relative to where that receiver was started.
    expect_code(&mut send_v1(port, &file, "rel/ative", &[]), 0);
    assert_eq!(list(&target.path().join("rel")), ["ative", "ative/a file"]);
}

// A01, A20
#[test]
fn a_v1_sender_is_served() {
    let (source, target) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let mut recv = Recv::start(target.path());
    let remote = target.path().join("in");
    for flags in [&["--probe"][..], &["--ahead", "8", "--length", "1000", "--connections", "7"]] {
        let _ = fs::remove_dir_all(&remote);
        let mut peer = v1_peer();
        peer.args(["send", "--host", "127.0.0.1", "--port", &recv.port.to_string(), "--file"]).arg(source.path());
        expect_code(peer.arg("--remote_dir").arg(&remote).args(flags), 0);
        assert_same(source.path(), &remote);
        recv.expect_idle();
    }
}
