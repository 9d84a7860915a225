//! A limit on everything that those who come to a receiver choose: how many, from where, how often, how
//! long, how fast.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test is no peer, and says what it skips")]
mod common;

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::accounts::*;
use common::link::{Knobs, Link, connect_from};
use common::sender::*;
use common::*;

fn tree() -> TempDir {
    let source = temp_dir();
    make_tree(source.path());
    source
}

/// Waits until the other end has closed a stream.
fn wait_for_close(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let ended = stream.read(&mut [0]);
    assert!(
        matches!(ended, Ok(0)) || ended.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock),
        "{ended:?}"
    );
}

// B17
#[test]
fn guesses_from_one_address_cost_others_nothing() {
    let service = Service::start(&["--login_tries", "3"]);
    let source = tree();
    let guesser = Link::with(service.recv.port, |_| Knobs { from: Some(77), ..Knobs::default() });
    let through = |name: &str, password: &str| {
        let mut command = service.send_by(&guesser, name, source.path(), &["--retry_for", "1s"]);
        Ended::of(command.env("PTF_PASSWORD", password))
    };
    for name in ["alice", "bob", "nobody"] {
        through(name, "guess").expect(4);
    }
    let refused = through("alice", "pw of alice").expect(4);
    assert!(refused.said.contains("too many tries from your address"), "{}", refused.said);
    Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(0);
    assert_same(source.path(), &service.home(1).join("in"));
}

// B19
#[test]
fn as_many_jobs_as_may_are_served_and_the_others_hear_that_it_is_busy() {
    let service = Service::start(&["--max_sessions", "2"]);
    let source = temp_dir();
    write(&source.path().join("large"), noise(4 << 20, 1));
    let link = Link::holding(service.recv.port, 1 << 20);
    let flags = ["--length", "1M", "--process_num", "1", "--thread_num", "1"];
    let senders: Vec<_> =
        ["alice", "bob"].map(|name| Sender::start(&mut service.send_by(&link, name, source.path(), &flags))).into();
    wait_until("both jobs have begun", || [1, 2].iter().all(|&id| service.home(id).join("in").exists()));
    let busy = Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(4);
    assert!(busy.said.contains("busy: 2 jobs"), "{}", busy.said);
    link.release();
    for sender in senders {
        sender.wait().expect(0);
    }
    Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(0);
}

// E01
#[test]
fn an_address_has_so_many_connections_and_silent_ones_make_room() {
    let source = tree();
    let root = temp_dir();
    let mut recv = Recv::start_with(root.path(), &["--max_per_address", "8", "--max_connections", "16"]);
    let silent: Vec<_> = (0..40).map(|_| connect_from(77, recv.port).unwrap()).collect();
    expect_code(&mut send_to(recv.port, source.path(), "in", &["--process_num", "1"]), 0);
    assert_same(source.path(), &recv.path("in"));
    // Those that have said something keep their place, and their neighbours have to wait for it.
    let spoken: Vec<_> = (0..8).map(|_| connect_from(78, recv.port).unwrap()).collect();
    for stream in &spoken {
        std::io::Write::write_all(&mut &*stream, &cd("x")).unwrap();
        assert_eq!(read_bytes(stream, 1), b"0");
    }
    wait_for_close(connect_from(78, recv.port).unwrap());
    recv.process.wait_for_log("there are 8 connections from its address");
    drop((silent, spoken));
    recv.expect_idle();
}

// E02, B18
#[test]
fn a_login_takes_no_longer_than_it_may_from_the_first_moment_on() {
    let service = Service::start(&["--login_timeout", "1s"]);
    let before = Instant::now();
    // Where everybody has to log in nobody may be silent either.
    wait_for_close(service.recv.connect());
    let mut talker = service.recv.connect();
    std::io::Write::write_all(&mut talker, &[0x16]).unwrap();
    wait_for_close(talker);
    assert!(before.elapsed() >= Duration::from_secs(2));
}

// D04
#[test]
fn a_job_that_does_nothing_ends_and_gives_back_what_was_reserved_for_it() {
    let service = Service::start(&["--idle_timeout", "1s"]);
    service.user(&["quota", "alice", "10M"]);
    let source = temp_dir();
    write(&source.path().join("large"), noise(8 << 20, 1));
    let link = Link::holding(service.recv.port, 1 << 20);
    let flags = ["--length", "1M", "--process_num", "1", "--thread_num", "1", "--retry_for", "1s"];
    let sender = Sender::start(&mut service.send_by(&link, "alice", source.path(), &flags));
    link.wait_until_it_holds();
    service.recv.process.wait_for_log("nothing was done for too long");
    let other = temp_dir();
    write(&other.path().join("other"), noise(6 << 20, 2));
    Ended::of(&mut service.send_as("alice", "pw of alice", other.path(), &[])).expect(0);
    link.release();
    sender.wait();
}

// D01, D02, D06
#[test]
fn a_quota_holds_against_many_at_once_and_takes_effect_while_they_send() {
    let service = Service::start(&[]);
    service.user(&["quota", "alice", "1M"]);
    let source = temp_dir();
    for index in 0..40 {
        write(&source.path().join(format!("f{index}")), noise(50_000, index));
    }
    let ended =
        Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &["--process_num", "2", "--thread_num", "8"]));
    let ended = ended.expect(3);
    assert_eq!(ended.number("failed"), 20, "{}", ended.json);
    assert!(ended.said.contains("quota") || ended.said.contains("left"), "{}", ended.said);
    let there: u64 = list(&service.home(1).join("in"))
        .iter()
        .map(|name| service.home(1).join("in").join(name).metadata().unwrap().len())
        .sum();
    assert_eq!(there, 20 * 50_000);
    service.user(&["quota", "alice", "3M"]);
    wait_until("the new quota counts", || {
        Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).code == Some(0)
    });
    assert_same(source.path(), &service.home(1).join("in"));
}

#[test]
fn what_comes_in_has_the_rate_that_was_set() {
    let source = temp_dir();
    write(&source.path().join("large"), noise(2 << 20, 1));
    for flags in [&["--bwlimit", "2M"], &["--bwlimit_account", "2M"]] {
        let service = Service::start(flags);
        let before = Instant::now();
        Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &["--length", "100K"])).expect(0);
        assert!(before.elapsed() >= Duration::from_millis(700), "{:?}", before.elapsed());
        assert_same(source.path(), &service.home(1).join("in"));
    }
}

#[test]
fn the_bounds_of_a_file_hold_in_homes_too() {
    let service = Service::start(&["--max_file", "1M"]);
    let source = temp_dir();
    write(&source.path().join("large"), noise(1_100_000, 1));
    write(&source.path().join("small"), noise(1_000_000, 2));
    Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect_failed(&["large"], "1 MiB");
    let refused = expect_code(
        recv_command().args(["--port", "0", "--quota", "1M", "--accounts"]).arg(service.place.path().join("accounts.db")),
        2,
    );
    assert!(text(&refused.stderr).contains("--quota"), "{}", text(&refused.stderr));
}

// E01
#[test]
fn those_who_begin_a_login_and_do_not_go_on_make_room() {
    let service = Service::start(&["--max_connections", "16"]);
    let half_open: Vec<_> = (0..60).map(|_| connect_from(77, service.recv.port).unwrap()).collect();
    for stream in &half_open {
        // The beginning of a TLS hello; who had to make room hears of it.
        let _ = std::io::Write::write_all(&mut &*stream, &[0x16, 3, 1]);
    }
    let source = tree();
    let before = Instant::now();
    Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &["--process_num", "1"])).expect(0);
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    assert_same(source.path(), &service.home(1).join("in"));
}

#[test]
fn one_account_leaves_room_for_others() {
    let service = Service::start(&["--max_sessions", "6", "--max_account_sessions", "1"]);
    let source = temp_dir();
    write(&source.path().join("large"), noise(8 << 20, 1));
    let link = Link::holding(service.recv.port, 1 << 20);
    let flags = ["--length", "1M", "--process_num", "1", "--thread_num", "1"];
    let sender = Sender::start(&mut service.send_by(&link, "alice", source.path(), &flags));
    link.wait_until_it_holds();
    for _ in 0..3 {
        let refused = Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(4);
        assert!(refused.said.contains("busy: 1 jobs of this account"), "{}", refused.said);
    }
    Ended::of(&mut service.send_as("bob", "pw of bob", source.path(), &[])).expect(0);
    link.release();
    sender.wait().expect(0);
}

// E02
#[test]
fn a_login_that_begins_late_has_no_more_time_for_it() {
    let service = Service::start(&["--login_timeout", "2s"]);
    let before = Instant::now();
    let mut late = service.recv.connect();
    wait_until("most of the time is over", || before.elapsed() > Duration::from_millis(1500));
    std::io::Write::write_all(&mut late, &[0x16, 3, 1]).unwrap();
    wait_for_close(late);
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
}
