//! What may go wrong while somebody pulls: on the server, on the way, and on the machine that it lands on.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::io::Write as _;
use std::process::Command;

use common::judge::*;
use common::link::{Knobs, Link};
use common::puller::*;
use common::sender::*;
use common::*;

/// One connection for content, so that it is known which is which.
const ONE: [&str; 5] = ["--plain", "--process_num", "1", "--thread_num", "1"];

fn append(path: &std::path::Path, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

// C12 C20: `mv` in place of one of two names leaves the other to what was there before.
#[test]
fn a_second_name_is_not_linked_to_what_took_the_place_of_the_first() {
    for is_replaced in [false, true] {
        let (root, target) = (temp_dir(), temp_dir());
        let (first, second) = (root.path().join("d/first"), root.path().join("d/e/second"));
        write(&first, noise(6_000_000, 1));
        fs::create_dir(root.path().join("d/e")).unwrap();
        fs::hard_link(&first, &second).unwrap();
        let recv = Recv::start(root.path());
        let into = target.path().join("t");
        let link = Link::with(recv.port, |_| Knobs { hold_answer: Some(1_500_000), ..Knobs::default() });
        let puller = Sender::start(&mut fetch_from(link.port, "d", &into, &[&ONE[..], &["--length", "500K"]].concat()));
        link.wait_until_it_holds();
        wait_until("all is listed", || into.join("e").exists());
        if is_replaced {
            write(&root.path().join("new"), noise(6_000_000, 9));
            fs::rename(root.path().join("new"), &first).unwrap();
        } else {
            append(&first, b"more");
        }
        link.release();
        let ended = puller.wait();
        if is_replaced {
            ended.expect_failed(&["e/second"], "first, which it was another name of");
            assert!(!into.join("e/second").exists());
            assert_eq!(fs::read(into.join("first")).unwrap(), fs::read(&first).unwrap());
        } else {
            ended.expect(0);
        }
        Ended::of(&mut fetch_from(recv.port, "d", &into, &[])).expect(0);
        assert_kept_in(&root.path().join("d"), &into, |_| false);
    }
}

// C20 E01
#[test]
fn a_connection_that_breaks_over_the_look_at_a_changed_file_is_made_again() {
    let (root, target) = (temp_dir(), temp_dir());
    let large = root.path().join("d/large");
    write(&large, noise(6_000_000, 1));
    let recv = Recv::start(root.path());
    let link = Link::with(recv.port, |index| Knobs {
        hold_answer: (index == 1).then_some(1_500_000),
        cut: (index == 2).then_some(10),
        ..Knobs::default()
    });
    let into = target.path().join("t");
    let puller = Sender::start(&mut fetch_from(link.port, "d", &into, &[&ONE[..], &["--length", "500K"]].concat()));
    link.wait_until_it_holds();
    append(&large, b"more");
    link.release();
    puller.wait().expect(0);
    assert!(link.connections() > 3);
    assert_same(&root.path().join("d"), &into);
}

// E05
#[test]
fn what_a_puller_that_was_killed_left_of_small_files_goes_with_the_next() {
    let (root, target, state) = (temp_dir(), temp_dir(), temp_dir());
    write(&root.path().join("d/small"), noise(1_000_000, 1));
    let recv = Recv::start(root.path());
    let link = Link::with(recv.port, |_| Knobs { hold_answer: Some(400_000), ..Knobs::default() });
    let into = target.path().join("t");
    let fetch = |port| {
        let mut command = fetch_from(port, "d", &into, &ONE);
        command.env("XDG_STATE_HOME", state.path());
        command
    };
    let mut puller = Sender::start(&mut fetch(link.port));
    wait_until("some of it has come", || into.exists() && leftovers(&into).len() == 1);
    puller.child.kill().unwrap();
    puller.wait();
    assert_eq!(leftovers(&into).len(), 1);
    Ended::of(&mut fetch(recv.port)).expect(0);
    assert_same(&root.path().join("d"), &into);
    let notes = walkdir::WalkDir::new(state.path()).into_iter().map(Result::unwrap);
    let notes: Vec<_> = notes.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect();
    assert!(notes.is_empty(), "nothing is left, and nothing says so: {notes:?}");
}

// E10: a server does not wait for ever for a client that takes nothing.
#[test]
fn a_list_is_taken_while_there_is_much_to_be_read_for_digests() {
    let (root, target) = (temp_dir(), temp_dir());
    let many = root.path().join("d/many");
    fs::create_dir_all(&many).unwrap();
    for number in 0..3 {
        write_sparse(&many.join(format!("large {number}")), 1 << 27, 4096, 2);
    }
    for number in 0..40_000 {
        fs::write(many.join(format!("{number}{}", "n".repeat(240))), "").unwrap();
    }
    let recv = Recv::start_with(root.path(), &["--stall_timeout", "300ms"]);
    let link = Link::narrow(recv.port, |_| Knobs::default());
    let (into, manifest) = (target.path().join("t"), target.path().join("manifest"));
    let flags = [&ONE[..], &["--exclude", "many/*", "--include", "large*", "--retry_for", "1s"]].concat();
    Ended::of(&mut fetch_from(link.port, "d", &into, &flags)).expect(0);
    let flags = [&flags[..], &["--manifest", manifest.to_str().unwrap()]].concat();
    let ended = Ended::of(&mut fetch_from(link.port, "d", &into, &flags)).expect(0);
    assert!(!ended.said.contains("going on"), "{}", ended.said);
    let lines = fs::read_to_string(&manifest).unwrap();
    assert!(lines.lines().count() == 3 && lines.lines().all(|line| line.contains("  many/large ")), "{lines}");
}

// D15
#[test]
fn many_connections_and_folders_need_not_fit_the_usual_number_of_descriptors() {
    let (root, target) = (temp_dir(), temp_dir());
    for number in 0..400 {
        write(&root.path().join(format!("d/{}/{number}", number % 20)), noise(100_000, number));
    }
    let recv = Recv::start(root.path());
    let into = target.path().join("t");
    let fetch = fetch_from(recv.port, "d", &into, &["--plain", "--process_num", "8", "--thread_num", "4"]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 32; exec \"$@\"", "sh"]).arg(fetch.get_program()).args(fetch.get_args());
    fetch.get_envs().filter_map(|(name, value)| value.map(|value| (name, value))).for_each(|(name, value)| {
        command.env(name, value);
    });
    Ended::of(&mut command).expect(0);
    assert_same(&root.path().join("d"), &into);
}

#[test]
fn a_ticket_in_the_environment_is_enough_and_without_any_the_words_are_wrong() {
    let (root, target) = (temp_dir(), temp_dir());
    make_tree(root.path());
    let (mut recv, ticket) = recv_once(root.path());
    let into = target.path().join("t");
    let mut command = recv_command();
    command.args(["--file", "/", "--local_dir"]).arg(&into);
    let refused = expect_code(&mut command, 2);
    assert!(text(&refused.stderr).contains("--server"), "{}", text(&refused.stderr));
    expect_code(command.env("PTF_TICKET", ticket.trim()), 0);
    assert_same(root.path(), &into);
    assert_eq!(recv.process.wait(), Some(0), "{}", recv.process.log());
}
