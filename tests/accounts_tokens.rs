//! A receiver with accounts, spoken with frame by frame: whose token opens what, and how a session hears
//! that it is over. And passwords of any bytes.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

#[allow(dead_code, unreachable_pub, reason = "frames alone are taken from it")]
#[path = "wire_v2/client.rs"]
mod client;

use std::fs;
use std::time::{Duration, Instant};

use client::{finish, put, put_range};
use common::accounts::*;
use common::guest::*;
use common::link::{Knobs, Link};
use common::sender::*;
use common::*;
use parallel_transfer::protocol::{Reply, Status};

/// Sessions end within so long of what is done to their account.
const SOON: Duration = Duration::from_secs(2);

fn status(reply: Option<Reply>) -> Status {
    match reply {
        Some(Reply::Answer(answer)) => answer.status,
        other => panic!("no answer but {other:?}"),
    }
}

// B18, F10
#[test]
fn a_token_is_good_for_its_own_job_alone_as_long_as_that_lasts_and_from_any_address() {
    let service = Service::start(&["--login_timeout", "1s"]);
    let (port, token) = (service.recv.port, new_token());
    // Whoever has no login waits, unread: nothing of what it says is done.
    let before = Instant::now();
    let mut unknown = Guest::greeted(&service);
    unknown.send(&[join(new_token()), put("stranger", b"x")].concat());
    assert!(unknown.refusal().contains("knows no such job"));
    assert!(before.elapsed() >= Duration::from_millis(900), "{:?}", before.elapsed());
    assert_eq!(list(service.root.path()), [""; 0]);

    let mut alice = Guest::opened(&service, "alice", token);
    let elsewhere = Link::with(port, |_| Knobs { from: Some(77), ..Knobs::default() });
    let mut second = Guest::joined(&service, elsewhere.port, token).unwrap();
    assert_eq!(status(second.ask(&put("x", b"of alice"))), Status::Published);
    // Bob has the token, and his own password: neither opens alice's job to him, nor a job of his own.
    let mut bob = Guest::greeted(&service);
    bob.send(&[open_as("bob", "pw of bob", token), put("y", b"of bob")].concat());
    assert!(bob.refusal().contains("another session has this token"));
    // A wrong password does not open it either, and the token is as good as it was.
    let mut guesser = Guest::greeted(&service);
    guesser.send(&open_as("alice", "guess", token));
    assert!(guesser.refusal().contains("wrong name"));
    assert_eq!(status(second.ask(&put("z", b"of alice"))), Status::Published);

    assert!(matches!(alice.ask(&finish()), Some(Reply::Finished(_))));
    assert!(Guest::joined(&service, port, token).is_err_and(|why| why.contains("has ended")));
    // Who had joined before does nothing to the tree any more.
    let late = second.ask(&put("late", b"x"));
    assert!(!matches!(&late, Some(Reply::Answer(answer)) if answer.status == Status::Published), "{late:?}");
    assert_eq!(list(service.root.path()), ["1", "1/in", "1/in/x", "1/in/z", "2"]);
}

// B18
#[test]
fn nothing_is_done_for_one_who_says_frames_before_a_login() {
    let service = Service::start(&[]);
    let mut hasty = Guest::greeted(&service);
    hasty.send(&[put("x", b"x"), finish()].concat());
    assert!(hasty.refusal().contains("before a job was joined"));
    // What follows a wrong login goes unread, too.
    let mut guesser = Guest::greeted(&service);
    guesser.send(&[open_as("alice", "guess", new_token()), put("x", b"x"), finish()].concat());
    assert!(guesser.refusal().contains("wrong name"));
    assert_eq!(guesser.reply(), None);
    assert_eq!(list(service.root.path()), [""; 0]);
}

// B20
#[test]
fn a_session_that_is_between_two_frames_hears_within_two_seconds_that_it_is_over() {
    let service = Service::start(&["--login_timeout", "1s"]);
    for (words, why) in [(&["lock", "alice"][..], "was locked"), (&["remove", "bob", "-y"], "was removed")] {
        let (name, token) = (words[1], new_token());
        let mut first = Guest::opened(&service, name, token);
        let mut second = Guest::joined(&service, service.recv.port, token).unwrap();
        assert_eq!(status(second.ask(&put("x", b"x"))), Status::Published);
        service.user(words);
        let done = Instant::now();
        for guest in [&mut first, &mut second] {
            assert!(guest.refusal().contains(why));
        }
        assert!(done.elapsed() < SOON, "{:?}", done.elapsed());
        let again = Guest::joined(&service, service.recv.port, token);
        assert!(again.is_err_and(|said| said.contains(why) || said.contains("knows no such job")));
    }
    // Who was let in again has to log in again, and then is.
    service.user(&["unlock", "alice"]);
    Guest::opened(&service, "alice", new_token());
}

// B20
#[test]
fn a_home_that_goes_with_its_account_does_not_come_back_while_a_job_runs_in_it() {
    let service = Service::start(&[]);
    let content = noise(300_000, 1);
    let mut bob = Guest::opened(&service, "bob", new_token());
    assert_eq!(status(bob.ask(&put("kept", b"of bob"))), Status::Published);
    let mut alice = Guest::opened(&service, "alice", new_token());
    assert_eq!(status(alice.ask(&put("x", b"x"))), Status::Published);
    // In the middle of a file when it happens.
    assert_eq!(status(alice.ask(&put_range("large", &content, 0..131_072, 1))), Status::Stored);
    let rest = put_range("large", &content, 131_072..300_000, 1);
    alice.send(&rest[..1000]);
    let root = service.root.path().to_str().unwrap();
    service.user(&["remove", "alice", "--delete_files", "--root", root, "-y"]);
    service.recv.process.wait_for_log("the account was removed");
    alice.send(&rest[1000..]);
    alice.send(&[put("more", b"x"), finish()].concat());
    while let Some(reply) = alice.reply() {
        let done =
            matches!(&reply, Reply::Finished(_)) || matches!(&reply, Reply::Answer(answer) if answer.status == Status::Published);
        assert!(!done, "{reply:?}");
    }
    assert_eq!(list(service.root.path()), ["2", "2/in", "2/in/kept"]);
    assert_eq!(status(bob.ask(&put("more", b"of bob"))), Status::Published);
    // The next of that name is another: an id is not used again.
    expect_code(&mut user(service.place.path(), &["add", "alice"], "pw of alice"), 0);
    Guest::opened(&service, "alice", new_token());
    assert_eq!(list(service.root.path()), ["2", "2/in", "2/in/kept", "2/in/more", "3", "3/in"]);
}

// B16
#[test]
fn a_password_of_any_bytes_logs_in_and_one_that_is_too_long_is_refused_by_both_programs() {
    let service = Service::start(&[]);
    let source = temp_dir();
    write(&source.path().join("file"), "x");
    let file = service.place.path().join("password");
    let named = format!("--password_file={}", file.display());
    let longest = [0xff; 1024];
    for (index, password) in [&b"a\0b\xff\xc3("[..], b" ", b"\0", &longest].into_iter().enumerate() {
        write(&file, password);
        let name = format!("user{index}");
        expect_code(&mut user(service.place.path(), &["add", &name, &named], ""), 0);
        let sent = |code| {
            let mut command =
                send_to(service.recv.port, source.path(), "in", &["--user", &name, "--host_key", &service.host_key]);
            Ended::of(command.arg(&named)).expect(code)
        };
        sent(0);
        assert_eq!(fs::read(service.home(3 + index).join("in/file")).unwrap(), b"x");
        // All of it counts.
        let wrong = &password[..password.len() - 1];
        write(&file, wrong);
        let ended = sent(if wrong.is_empty() { 1 } else { 4 });
        assert!(ended.said.contains(if wrong.is_empty() { "is empty" } else { "wrong name" }), "{}", ended.said);
    }
    write(&file, [b'x'; 1025]);
    let mut command = send_to(service.recv.port, source.path(), "in", &["--user", "alice", "--host_key", &service.host_key]);
    let ended = Ended::of(command.arg(&named)).expect(1);
    assert!(ended.said.contains("too long: it has 1 to 1024 bytes"), "{}", ended.said);
    let output = expect_code(&mut user(service.place.path(), &["add", "carol", &named], ""), 1);
    assert!(text(&output.stderr).contains("too long: it has 1 to 1024 bytes"), "{}", text(&output.stderr));
    // Nor does the receiver take it from one who does not ask how long it may be.
    let mut guest = Guest::greeted(&service);
    guest.send(&open_as("alice", &"x".repeat(1025), new_token()));
    let why = guest.refusal();
    assert!(why.contains("password"), "{why}");
    assert!(!service.home(1).exists());
}
