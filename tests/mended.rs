//! What went wrong once: each test is named after it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may fail, and is no peer")]
mod common;

use std::fs;
use std::io::Write as _;
use std::net::Shutdown;
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::*;

#[test]
fn a_worker_process_that_dies_while_the_queue_is_empty_gives_back_what_it_held() {
    let (source, root) = (temp_dir(), temp_dir());
    let file = source.path().join("holes");
    fs::File::create(&file).unwrap().set_len(512 << 20).unwrap();
    let recv = Recv::start(root.path());
    // Two chunks: one for the first process, one for the child, and none that waits.
    let mut command = send_v1(recv.port, &file, "in", &["--length", "256M", "--process_num", "2", "--thread_num", "1", "--json"]);
    let mut sender = Sender(command.stdout(std::process::Stdio::null()).spawn().unwrap());
    let landing = recv.path("in/holes");
    wait_until("the child writes", || fs::metadata(&landing).is_ok_and(|metadata| metadata.len() > 256 << 20));
    let children = children_of(sender.0.id());
    assert_eq!(children.len(), 1);
    signal_to(children[0], "KILL");
    wait_until("send ends", || sender.0.try_wait().unwrap().is_some());
    assert_eq!(sender.0.wait().unwrap().code(), Some(0));
    assert_same(&file, &landing);
}

/// A `send` that ends with the test.
struct Sender(std::process::Child);

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_source_that_holds_the_path_of_the_local_target_lands_as_it_is() {
    let place = temp_dir();
    let (source, target) = (place.path().join("source"), place.path().join("target"));
    let inner = source.join(target.strip_prefix("/").unwrap());
    write(&inner.join("x"), "deep");
    write(&source.join("x"), "top");
    expect_code(send_command().arg("--file").arg(&source).arg("--remote_dir").arg(&target), 0);
    assert_same(&source, &target);
}

#[test]
fn a_target_that_leads_back_to_the_source_through_a_missing_folder_is_refused() {
    let place = temp_dir();
    let tree = place.path().join("tree");
    make_tree(&tree);
    let before = temp_dir();
    expect_code(send_command().arg("--file").arg(&tree).arg("--remote_dir").arg(before.path()), 0);
    expect_code(send_command().args(["--file", "tree", "--remote_dir", "missing/../tree"]).current_dir(place.path()), 1);
    assert_same(before.path(), &tree);
}

// E15
#[test]
fn a_receiver_that_cuts_a_stream_of_small_frames_says_so_with_its_exit_code() {
    let root = temp_dir();
    let mut recv = Recv::start_with(root.path(), &["--drain", "300ms"]);
    let stream = recv.connect();
    (&stream).write_all(&cf("x")).unwrap();
    read_bytes(&stream, 1);
    let frames = wf("x", 0, b"some bytes").repeat(1000);
    let writer = stream.try_clone().unwrap();
    let reader = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| while (&writer).write_all(&frames).is_ok() {});
        // In full flow; but a moment without bytes is a moment to end in order.
        read_bytes(&stream, 32 * 1000);
        scope.spawn(|| std::io::copy(&mut &reader, &mut std::io::sink()));
        recv.process.signal("TERM");
        let code = recv.process.wait();
        let is_cut = recv.process.log().contains("cut off");
        assert_eq!(code, Some(if is_cut { 130 } else { 0 }), "{}", recv.process.log());
        let _ = stream.shutdown(Shutdown::Both);
    });
}

#[test]
fn a_long_name_makes_a_short_log_line() {
    let root = temp_dir();
    let recv = Recv::start(root.path());
    let name = "\x1b".repeat(999_999);
    assert_eq!(recv.raw(&cd(&name)), b"1");
    recv.process.wait_for_log("longer than");
    assert!(recv.process.log().len() < 20_000, "{} bytes", recv.process.log().len());
}

// E15: an order that was given again on another connection must not be carried out a second time.
#[test]
fn a_receiver_that_was_stopped_serves_no_frame_of_a_connection_that_was_reset_meanwhile() {
    let root = temp_dir();
    let mut recv = Recv::start(root.path());
    let stream = recv.connect();
    (&stream).write_all(&cf("before")).unwrap();
    read_bytes(&stream, 1);
    recv.process.signal("STOP");
    let tasks = format!("/proc/{}/task", recv.process.pid());
    let is_stopped = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).unwrap().contains(") T ");
    wait_until("every thread is stopped", || fs::read_dir(&tasks).unwrap().flatten().all(is_stopped));
    (&stream).write_all(&cf("late")).unwrap();
    // More than the time in which a peer can't have left unnoticed.
    thread::sleep(Duration::from_millis(1200));
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    recv.process.signal("CONT");
    recv.expect_idle();
    assert_eq!(list(root.path()), ["before"]);
}

#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let root = temp_dir();
    let mut command = std::process::Command::new("sh");
    let recv = Path::new(env!("CARGO_BIN_EXE_recv"));
    command.args(["-c", "trap '' HUP INT; exec \"$0\" --port 0 --addr 127.0.0.1 --root \"$1\""]).arg(recv).arg(root.path());
    let mut process = Running::start(&mut command);
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    assert_eq!(u64::from_str_radix(caught.trim(), 16).unwrap() & 0b11, 0, "{status}");
    for signal in ["HUP", "INT", "TERM"] {
        process.signal(signal);
    }
    assert_eq!(process.wait(), Some(0));
    assert!(!process.first_line.is_empty());
}
