//! `recv --once`: one job, for whoever has the ticket.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use common::judge::*;
use common::link::Link;
use common::sender::*;
use common::*;

/// A ticket with one of its five words replaced.
fn with_word(ticket: &str, index: usize, word: &str) -> String {
    let mut words: Vec<&str> = ticket.split(' ').collect();
    words[index] = word;
    words.join(" ")
}

/// A `send` that has no ticket by itself.
fn send(file: &Path, flags: &[&str]) -> Command {
    let mut command = send_command();
    command.arg("--file").arg(file).args(["--remote_dir", "in"]).args(flags);
    command
}

fn small_tree() -> TempDir {
    let source = temp_dir();
    make_tree(source.path());
    symlink("one byte", source.path().join("link")).unwrap();
    source
}

#[test]
fn a_ticket_may_come_in_a_file_on_standard_input_or_in_the_environment() {
    let source = small_tree();
    for way in ["file", "dash", "stdin", "environment"] {
        let (root, place) = (temp_dir(), temp_dir());
        let (mut recv, ticket) = recv_once(root.path());
        assert!(ticket.starts_with("ptf2 127.0.0.1 ") && ticket.split(' ').count() == 5, "{ticket}");
        let path = place.path().join("ticket");
        write(&path, format!("{ticket}\n"));
        let mut command = match way {
            "file" => send(source.path(), &["--ticket_file", path.to_str().unwrap()]),
            "dash" => send(source.path(), &["--ticket-file", path.to_str().unwrap()]),
            "stdin" => send(source.path(), &["--ticket_file", "-"]),
            _ => send(source.path(), &[]),
        };
        if way == "environment" {
            command.env("PTF_TICKET", &ticket);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if way == "stdin" {
            child.stdin.take().unwrap().write_all(ticket.as_bytes()).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!((output.status.code(), recv.process.wait()), (Some(0), Some(0)), "{way}: {said}");
        assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
        // Whom to trust is in the ticket; the secret is nobody else's.
        let secret = ticket.rsplit(' ').next().unwrap();
        assert!(!said.contains("SHA256:") && !said.contains(secret) && !recv.process.log().contains(secret), "{said}");
    }
}

#[test]
fn jobs_of_all_sizes_end_the_receiver() {
    let place = temp_dir();
    fs::create_dir(place.path().join("hollow")).unwrap();
    write(&place.path().join("file"), "x");
    write(&place.path().join("void"), "");
    make_large(&place.path().join("large"));
    for name in ["hollow", "file", "void", "large"] {
        let root = temp_dir();
        let (mut recv, ticket) = recv_once(root.path());
        let ended = Ended::of(&mut send_ticket(place.path(), &ticket, &place.path().join(name), &["--length", "1M"])).expect(0);
        assert_eq!((recv.process.wait(), &ended.json["outcome"]), (Some(0), &"complete".into()), "{name}");
        assert!(recv.path("in").exists() && leftovers(root.path()).is_empty());
    }
}

fn make_large(top: &Path) {
    (0..24).for_each(|index| write(&top.join(format!("{index}")), noise(1 << 20, index)));
}

#[test]
fn whoever_has_no_ticket_or_a_wrong_one_is_refused_and_the_receiver_waits_on() {
    let (source, root, place) = (small_tree(), temp_dir(), temp_dir());
    let (mut recv, ticket) = recv_once(root.path());
    let secret = ticket.rsplit(' ').next().unwrap();
    let other = if secret.ends_with('0') { "1" } else { "0" };
    let wrong_secret = with_word(&ticket, 4, &format!("{}{other}", &secret[..63]));
    let wrong_key = with_word(&ticket, 3, "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    for _ in 0..3 {
        let ended = Ended::of(&mut send_ticket(place.path(), &wrong_secret, source.path(), &[])).expect(4);
        assert!(ended.said.contains("ticket"), "{}", ended.said);
        let ended = Ended::of(&mut send_ticket(place.path(), &wrong_key, source.path(), &[])).expect(4);
        assert!(ended.said.contains("nothing was sent"), "{}", ended.said);
        let mut without = send_to(recv.port, source.path(), "in", &[]);
        let ended = Ended::of(without.arg("--known_hosts").arg(place.path().join("known_hosts"))).expect(4);
        assert!(ended.said.contains("--ticket_file"), "{}", ended.said);
    }
    assert!(recv.process.is_alive());
    assert_eq!(list(root.path()), [""; 0]);
    Ended::of(&mut send_ticket(place.path(), &ticket, source.path(), &[])).expect(0);
    assert_eq!(recv.process.wait(), Some(0));
    assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
}

#[test]
fn what_is_not_encrypted_is_refused_and_the_receiver_waits_on() {
    let (source, root, place) = (small_tree(), temp_dir(), temp_dir());
    let (mut recv, ticket) = recv_once(root.path());
    for mut command in
        [send_v1(recv.port, source.path(), "in", &["--retry_for", "1s"]), send_to(recv.port, source.path(), "in", &["--plain"])]
    {
        let ended = Ended::of(&mut command);
        assert!(matches!(ended.code, Some(1 | 4)), "{:?} {}", ended.code, ended.said);
    }
    assert_ne!(recv.raw(&cd("made")), b"0");
    assert!(recv.process.is_alive());
    assert_eq!(list(root.path()), [""; 0]);
    // Nor does a sender with a ticket ever try.
    let path = place.path().join("ticket");
    write(&path, &ticket);
    for flags in [&["--plain"][..], &["--protocol", "v1"], &["--server", "127.0.0.1", "--port", "1"]] {
        let code = run(send(source.path(), flags).arg("--ticket_file").arg(&path)).status.code();
        assert!(matches!(code, Some(1 | 2)), "{flags:?}: {code:?}");
    }
    assert!(recv.process.is_alive());
}

#[test]
fn a_second_job_is_refused_and_changes_nothing() {
    let (source, root, place) = (temp_dir(), temp_dir(), temp_dir());
    make_large(source.path());
    let (mut recv, ticket) = recv_once(root.path());
    let link = Link::holding(recv.port, 600_000);
    let held = with_word(&ticket, 2, &link.port.to_string());
    let first = Sender::start(&mut send_ticket(place.path(), &held, source.path(), &["--length", "1M"]));
    link.wait_until_it_holds();
    let mut second = send_command();
    second.env("PTF_TICKET", &ticket).arg("--file").arg(source.path()).args(["--remote_dir", "second/deep"]);
    let ended = Ended::of(&mut second).expect(4);
    assert!(ended.said.contains("begun"), "{}", ended.said);
    assert!(!recv.path("second").exists(), "a job that was refused made a folder");
    link.release();
    first.wait().expect(0);
    assert_eq!(recv.process.wait(), Some(0));
    assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
}

#[test]
fn a_job_with_losses_ends_the_receiver_with_3() {
    let (source, root, place) = (small_tree(), temp_dir(), temp_dir());
    for name in ["one byte", "link", "a/large"] {
        write(&root.path().join("in").join(name).join("within"), "in the way");
    }
    let (mut recv, ticket) = recv_once(root.path());
    let names = ["a/large", "link", "one byte"];
    Ended::of(&mut send_ticket(place.path(), &ticket, source.path(), &["--length", "500000"]))
        .expect_failed(&names, "is a folder");
    assert_eq!(recv.process.wait(), Some(3));
    for file in ["exact", "a/b/c/deep"] {
        assert_eq!(fs::read(recv.path("in").join(file)).unwrap(), fs::read(source.path().join(file)).unwrap());
    }
}

#[test]
fn a_dry_run_does_not_use_up_the_ticket() {
    let (source, root, place) = (small_tree(), temp_dir(), temp_dir());
    let (mut recv, ticket) = recv_once(root.path());
    for _ in 0..2 {
        Ended::of(&mut send_ticket(place.path(), &ticket, source.path(), &["--dry_run"])).expect(0);
        assert_eq!((recv.process.is_alive(), list(root.path())), (true, Vec::new()));
    }
    Ended::of(&mut send_ticket(place.path(), &ticket, source.path(), &[])).expect(0);
    assert_eq!(recv.process.wait(), Some(0));
    assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
}

#[test]
fn whom_to_trust_is_said_by_the_ticket_alone_wherever_it_comes_from() {
    let (source, root, place) = (small_tree(), temp_dir(), temp_dir());
    let (mut recv, ticket) = recv_once(root.path());
    let path = place.path().join("ticket");
    write(&path, &ticket);
    let key = ticket.split(' ').nth(3).unwrap();
    for flags in [&["--host_key", key][..], &["--strict"], &["--known_hosts", "/dev/null"]] {
        for from_file in [true, false] {
            let mut command = send(source.path(), flags);
            match from_file {
                true => command.arg("--ticket_file").arg(&path),
                false => command.env("PTF_TICKET", &ticket),
            };
            let ended = Ended::of(&mut command);
            assert!(ended.code == Some(2) && ended.said.contains(flags[0]), "{:?} {}", ended.code, ended.said);
            assert!(ended.said.contains(if from_file { "--ticket_file" } else { "PTF_TICKET" }), "{}", ended.said);
        }
    }
    assert!(recv.process.is_alive());
    assert_eq!(list(root.path()), [""; 0]);
}

#[test]
fn a_receiver_that_is_stopped_while_it_waits_or_works_says_so() {
    let (source, root, place) = (temp_dir(), temp_dir(), temp_dir());
    make_large(source.path());
    let (mut recv, _) = recv_once(root.path());
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(130));

    let (mut recv, ticket) = recv_once(root.path());
    let link = Link::holding(recv.port, 600_000);
    let held = with_word(&ticket, 2, &link.port.to_string());
    let sender = Sender::start(&mut send_ticket(place.path(), &held, source.path(), &["--length", "1M", "--retry_for", "1s"]));
    link.wait_until_it_holds();
    recv.process.signal("TERM");
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(130));
    link.release();
    sender.wait().expect(1);
}

// E07
#[test]
fn a_client_that_is_killed_leaves_the_receiver_well_and_nothing_half_published() {
    let (source, root, place) = (temp_dir(), temp_dir(), temp_dir());
    make_large(source.path());
    let (mut recv, ticket) = recv_once(root.path());
    let link = Link::holding(recv.port, 600_000);
    let held = with_word(&ticket, 2, &link.port.to_string());
    let sender = Sender::start(&mut send_ticket(place.path(), &held, source.path(), &["--length", "1M"]));
    link.wait_until_it_holds();
    signal_to(sender.child.id(), "KILL");
    sender.wait();
    link.release();
    recv.expect_idle();
    // It may come back for a while: another job may not.
    Ended::of(&mut send_ticket(place.path(), &ticket, source.path(), &[])).expect(4);
    for name in list(&recv.path("in")).iter().filter(|name| !name.contains(".ptf-")) {
        assert!(fs::read(recv.path("in").join(name)).unwrap() == fs::read(source.path().join(name)).unwrap(), "{name}");
    }
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(130));
    assert_eq!(leftovers(root.path()), [""; 0]);
}

#[test]
fn a_ticket_with_several_addresses_is_tried_until_one_answers() {
    let (source, root, place) = (small_tree(), temp_dir(), temp_dir());
    let (mut recv, ticket) = recv_once(root.path());
    let ticket = with_word(&ticket, 1, "127.0.0.77,::1,127.0.0.1");
    Ended::of(&mut send_ticket(place.path(), &ticket, source.path(), &[])).expect(0);
    assert_eq!(recv.process.wait(), Some(0));
}

#[test]
fn a_receiver_on_all_addresses_puts_them_into_its_ticket() {
    let (source, root, place) = (small_tree(), temp_dir(), temp_dir());
    let mut command = recv_command();
    let mut child = command.args(["--port", "0", "--once", "--root"]).arg(root.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut lines = String::new();
    for _ in 0..2 {
        std::io::BufRead::read_line(&mut out, &mut lines).unwrap();
    }
    let ticket = lines.lines().nth(1).unwrap().strip_prefix("ticket ").unwrap();
    assert!(ticket.split(' ').nth(1).unwrap().split(',').any(|address| address == "127.0.0.1"), "{ticket}");
    let ended = Ended::of(&mut send_ticket(place.path(), ticket, source.path(), &[]));
    if ended.code != Some(0) {
        let _ = child.kill();
    }
    assert_eq!((ended.code, child.wait().unwrap().code()), (Some(0), Some(0)), "{}", ended.said);
}

#[test]
fn what_is_no_ticket_is_named_and_nobody_is_asked() {
    let (source, place) = (small_tree(), temp_dir());
    let file = place.path().join("ticket");
    let long = "x".repeat(10 << 20);
    for content in ["", "nonsense", "ptf2 127.0.0.1 9000", "ptf3 127.0.0.1 1 x y", "\u{1b}[31m", &long] {
        let ended = Ended::of(&mut send_ticket(place.path(), content, source.path(), &[])).expect(1);
        assert!(ended.said.contains(file.to_str().unwrap()) && ended.said.contains("no ticket"), "{}", ended.said);
        yard::expect_printable(&ended.said);
    }
    fs::write(&file, b"\xff\xfe\0").unwrap();
    let mut command = send(source.path(), &[]);
    assert!(Ended::of(command.arg("--ticket_file").arg(&file)).expect(1).said.contains("ticket"));
    fs::remove_file(&file).unwrap();
    let ended = Ended::of(send(source.path(), &[]).arg("--ticket_file").arg(&file)).expect(1);
    assert!(ended.said.contains(file.to_str().unwrap()), "{}", ended.said);
    let ended = Ended::of(send(source.path(), &[]).env("PTF_TICKET", "nonsense")).expect(1);
    assert!(ended.said.contains("PTF_TICKET"), "{}", ended.said);
    // Who names a receiver means that one.
    let root = temp_dir();
    let recv = Recv::start(root.path());
    Ended::of(send_to(recv.port, source.path(), "in", &[]).env("PTF_TICKET", "nonsense")).expect(0);
}
