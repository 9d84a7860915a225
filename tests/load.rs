//! Many peers at once, silent ones, rude ones, absurd wishes, and many runs in a row: served, bounded, and nothing left over.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test is no peer, and says what it skips")]
mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::*;
use socket2::SockRef;

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs a command to its end, which must be a good one; gives the most memory that it or a child of it had, in KiB.
fn peak_kib_of(command: &Command) -> u64 {
    let script = "import subprocess,resource,sys; code = subprocess.call(sys.argv[1:], stdout=2); \
                  print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)";
    let mut judge = Command::new("python3");
    judge.args(["-c", script]).arg(command.get_program()).args(command.get_args());
    text(&expect_code(&mut judge, 0).stdout).trim().parse().unwrap()
}

/// A folder in memory where there is one: disks may take a millisecond for each of many files.
fn memory_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| temp_dir())
}

fn make_empty_files(top: &Path, count: usize) {
    for index in 0..count {
        let folder = top.join((index / 1000).to_string());
        if index % 1000 == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        fs::write(folder.join(format!("file number {index}")), "").unwrap();
    }
}

// E01
#[test]
fn silent_sockets_make_room_for_a_real_sender() {
    let source = temp_dir();
    make_tree(source.path());
    let count = if allow_descriptors(2_500) { 2_000 } else { 500 };
    if count < 2_000 {
        eprintln!("SKIPPED E01 in full: {count} sockets, for want of descriptors");
    }
    for flags in [&[][..], &["--max_connections", "64"]] {
        let root = temp_dir();
        let mut recv = Recv::start_with(root.path(), flags);
        let silent: Vec<_> = (0..count).map(|_| recv.connect()).collect();
        let flags = ["--process_num", "2", "--thread_num", "3", "--length", "100000"];
        expect_code(&mut send_v1(recv.port, source.path(), "in", &flags), 0);
        assert_same(source.path(), &recv.path("in"));
        drop(silent);
        recv.expect_idle();
        assert!(recv.process.peak_kib() < 64 * 1024, "{} KiB", recv.process.peak_kib());
    }
}

// E01
#[test]
fn idle_connections_that_have_spoken_keep_their_place() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("file"), "x");
    let mut recv = Recv::start_with(root.path(), &["--max_connections", "8"]);
    let mut spoke: Vec<_> = (0..4).map(|_| recv.connect()).collect();
    for stream in &mut spoke {
        stream.write_all(&cd("d")).unwrap();
        assert_eq!(read_bytes(stream, 1), b"0");
    }
    let silent: Vec<_> = (0..50).map(|_| recv.connect()).collect();
    expect_code(&mut send_v1(recv.port, source.path(), "in", &[]), 0);
    for stream in &mut spoke {
        stream.write_all(&cd("d")).unwrap();
        assert_eq!(read_bytes(stream, 1), b"0");
    }
    drop((silent, spoke));
    recv.expect_idle();
}

// E04
#[test]
fn connections_reset_at_any_moment_leave_nothing_over() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let mut recv = Recv::start_with(root.path(), &["--quiet"]);
    let talk =
        [cd("d"), cf("d/f"), wf("d/f", 0, &noise(200_000, 1)), wf("d/f", 7, &noise(90_000, 2)), cf("d/g"), wf("d/g", 0, b"x")]
            .concat();
    let moments = noise(300 * 4, 3);
    for moment in moments.chunks_exact(4) {
        let number = u32::from_le_bytes(moment.try_into().unwrap()) as usize;
        let mut stream = recv.connect();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        let _ = stream.write_all(&talk[..number % talk.len()]);
        // Now and then with answers under way, read or not.
        match number >> 16 & 3 {
            0 => drop(stream.read(&mut [0; 40])),
            1 => thread::yield_now(),
            _ => {}
        }
    }
    recv.expect_idle();
    expect_code(&mut send_v1(recv.port, source.path(), "in", &[]), 0);
    assert_same(source.path(), &recv.path("in"));
    recv.expect_idle();
}

// E13
#[test]
fn twenty_senders_at_once_are_all_served() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let mut recv = Recv::start(root.path());
    thread::scope(|scope| {
        for index in 0..20 {
            let (port, source) = (recv.port, source.path());
            let flags: &[&str] = if index % 2 == 0 { &[] } else { &["--length", "50000", "--thread_num", "5"] };
            scope.spawn(move || expect_code(&mut send_v1(port, source, format!("in{index}"), flags), 0));
        }
    });
    for index in 0..20 {
        assert_same(source.path(), &recv.path(&format!("in{index}")));
    }
    recv.expect_idle();
}

// E13
#[test]
fn more_senders_than_there_is_room_for_wait_their_turn() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let mut recv = Recv::start_with(root.path(), &["--max_connections", "4"]);
    thread::scope(|scope| {
        for index in 0..4 {
            let (port, source) = (recv.port, source.path());
            let flags = ["--process_num", "1", "--thread_num", "1"];
            scope.spawn(move || expect_code(&mut send_v1(port, source, format!("in{index}"), &flags), 0));
        }
    });
    for index in 0..4 {
        assert_same(source.path(), &recv.path(&format!("in{index}")));
    }
    recv.expect_idle();
}

// E14, F01
#[test]
fn absurd_wishes_are_cut_down_and_the_work_is_done() {
    let source = temp_dir();
    make_tree(source.path());
    for flags in [
        &["--thread_num", "1000000"][..],
        &["--process_num", "1000000"],
        &["--thread_num", "18446744073709551615", "--process_num", "18446744073709551615"],
        &["--length", "18446744073709551615"],
        &["--length", "15E"],
        &["--length", "999999999999"],
        &["--length", "1000000000000"],
        &["--retry_for", "99999999999d", "--stall_timeout", "99999999999d"],
    ] {
        let (root, local) = (temp_dir(), temp_dir());
        let mut recv = Recv::start_with(root.path(), &["--max_connections", "18446744073709551615", "--drain", "99999999999d"]);
        expect_code(&mut send_v1(recv.port, source.path(), "in", flags), 0);
        assert_same(source.path(), &recv.path("in"));
        recv.expect_idle();
        recv.process.signal("TERM");
        assert_eq!(recv.process.wait(), Some(0), "{}", recv.process.log());
        let mut copy = send_command();
        copy.arg("--file").arg(source.path()).arg("--remote_dir").arg(local.path()).args(flags);
        expect_code(&mut copy, 0);
        assert_same(source.path(), local.path());
    }
}

// E14, F01
#[test]
fn wishes_that_make_no_sense_are_refused_as_usage() {
    let (source, root) = (temp_dir(), temp_dir());
    let recv = Recv::start(root.path());
    for (flag, values) in [
        ("--length", &["0", "-1", "1e9", "99999999999999999999", "", "M"][..]),
        ("--thread_num", &["0", "-1", "1.5", ""]),
        ("--process_num", &["0", "many"]),
        ("--stall_timeout", &["0", "-1s", "1y"]),
        ("--retry_for", &["0", "soon"]),
    ] {
        for value in values {
            let output = expect_code(&mut send_v1(recv.port, source.path(), "in", &[&format!("{flag}={value}")]), 2);
            assert!(text(&output.stderr).contains(flag), "{}", text(&output.stderr));
        }
    }
    assert_eq!(list(root.path()), [""; 0]);
}

// E14
#[test]
fn two_hundred_connections_asked_for_are_opened_only_as_there_is_work() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("file"), vec![1; 32 << 20]);
    let mut recv = Recv::start(root.path());
    let flags = ["--process_num", "64", "--thread_num", "256", "--length", "64K", "--json"];
    let output = expect_code(&mut send_v1(recv.port, source.path(), "in", &flags), 0);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["connections"].as_u64().unwrap() < 200, "{json}");
    assert_same(source.path(), &recv.path("in"));
    recv.expect_idle();
}

// E18
#[test]
fn hundreds_of_small_runs_in_a_row_leave_the_receiver_as_it_was() {
    let (source, root) = (temp_dir(), temp_dir());
    for index in 0..5 {
        write(&source.path().join(format!("f{index}")), noise(1000, index));
    }
    let mut recv = Recv::start_with(root.path(), &["--quiet"]);
    let send = |from: u32, until: u32| {
        for index in from..until {
            expect_code(&mut send_v1(recv.port, source.path(), format!("in{}", index % 10), &["--quiet"]), 0);
        }
    };
    send(0, 50);
    let before = resident_kib(recv.process.pid());
    send(50, 300);
    recv.expect_idle();
    let after = resident_kib(recv.process.pid());
    assert!(after < before + 2048, "it grew from {before} to {after} KiB");
}

// C19, E18
#[test]
fn memory_stays_small_for_fifty_thousand_files() {
    const KIB_MAX: u64 = 64 * 1024;
    let (source, root, local) = (memory_dir(), memory_dir(), memory_dir());
    make_empty_files(source.path(), 50_000);
    let mut recv = Recv::start(root.path());
    let sender = peak_kib_of(&send_v1(recv.port, source.path(), "in", &[]));
    assert!(sender < KIB_MAX, "send: {sender} KiB");
    assert!(recv.process.peak_kib() < KIB_MAX, "recv: {} KiB", recv.process.peak_kib());
    assert_eq!(walkdir::WalkDir::new(recv.path("in")).into_iter().count(), 50_051);
    recv.expect_idle();
    let mut copy = send_command();
    copy.arg("--file").arg(source.path()).arg("--remote_dir").arg(local.path());
    let both = peak_kib_of(&copy);
    assert!(both < KIB_MAX, "local copy: {both} KiB");
}

// E02
#[test]
fn connections_that_trickle_do_not_hold_up_a_real_sender() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let mut recv = Recv::start(root.path());
    let mut slow: Vec<(TcpStream, Vec<u8>)> = (0..100)
        .map(|index| {
            (recv.connect(), [cf(&format!("slow{index:02}")), wf(&format!("slow{index:02}"), 0, b"0123456789")].concat())
        })
        .collect();
    let len = slow[0].1.len();
    for at in 0..len {
        for (stream, talk) in &mut slow {
            stream.write_all(&talk[at..=at]).unwrap();
        }
        if at == len / 2 {
            expect_code(&mut send_v1(recv.port, source.path(), "in", &[]), 0);
            assert_same(source.path(), &recv.path("in"));
        }
    }
    for (stream, _) in &slow {
        assert_eq!(read_bytes(stream, 33)[1..], md5_hex(b"0123456789"));
    }
    drop(slow);
    recv.expect_idle();
}

// F11, A18
#[test]
fn a_name_that_many_create_at_once_is_created_for_each_of_them() {
    let root = temp_dir();
    let mut recv = Recv::start_with(root.path(), &["--quiet"]);
    let mut streams: Vec<_> = (0..50).map(|_| recv.connect()).collect();
    for _ in 0..5 {
        streams.iter_mut().for_each(|stream| stream.write_all(&cf("name")).unwrap());
        let answers: Vec<u8> = streams.iter().flat_map(|stream| read_bytes(stream, 1)).collect();
        assert_eq!(text(&answers), "0".repeat(50));
    }
    drop(streams);
    recv.expect_idle();
    assert_eq!(list(root.path()).len(), 250, "one of them, and what each of the others found there");
}
