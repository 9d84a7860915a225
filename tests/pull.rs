//! Pull: what one can put one can get, by the same rules.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::Duration;

use common::accounts::Service;
use common::job::*;
use common::judge::*;
use common::link::{Knobs, Link};
use common::puller::*;
use common::sender::*;
use common::*;

// C04 C05 C10 C11 C12 C13
#[test]
fn what_was_pushed_and_is_pulled_is_the_same_tree() {
    let (source, root, target) = (temp_dir(), temp_dir(), temp_dir());
    make_awkward_tree(source.path());
    let mut recv = Recv::start(root.path());
    let keep: &[&str] = if is_root() { &["--owner", "--xattrs"] } else { &["--xattrs"] };
    expect_code(&mut send_to(recv.port, source.path(), "in", keep), 0);
    for (index, flags) in
        [&[][..], &["--plain"], &["--checksum", "blake3"], &["--plain", "--checksum", "none", "--length", "100K"]]
            .iter()
            .enumerate()
    {
        let into = target.path().join(index.to_string());
        let ended = Ended::of(&mut fetch_from(recv.port, "in", &into, &[keep, flags].concat())).expect(0);
        assert_kept(source.path(), &into, is_root(), |_| false);
        assert_eq!(ended.number("files"), ended.number("found_files"));
        assert_eq!(leftovers(&into), [""; 0]);
        let again = Ended::of(&mut fetch_from(recv.port, "in", &into, &[keep, flags].concat())).expect(0);
        assert_eq!(again.number("unchanged_files"), ended.number("files"));
        assert_kept(source.path(), &into, is_root(), |_| false);
    }
    assert_kept(source.path(), &root.path().join("in"), is_root(), |_| false);
    recv.expect_idle();
    open_up(source.path());
}

// F04
#[test]
fn a_file_lands_under_its_name_and_paths_mean_what_they_mean_to_a_push() {
    let (root, target) = (temp_dir(), temp_dir());
    write(&root.path().join("d/large"), noise(3_000_000, 1));
    write(&root.path().join("d/empty"), "");
    symlink("large", root.path().join("d/link")).unwrap();
    let recv = Recv::start(root.path());
    let inside = root.path().join("d/large");
    for (index, name) in ["d/large", "/d/large", inside.to_str().unwrap(), "./d//large"].iter().enumerate() {
        let into = target.path().join(index.to_string());
        expect_code(&mut fetch_from(recv.port, name, &into, &["--length", "1M"]), 0);
        assert_eq!(list(&into), ["large"], "{name}");
        assert_same(&inside, &into.join("large"));
    }
    expect_code(&mut fetch_from(recv.port, "d/empty", &target.path().join("e"), &[]), 0);
    assert_eq!(fs::read(target.path().join("e/empty")).unwrap(), b"");
    // The top itself, into a folder that is there.
    fs::create_dir(target.path().join("all")).unwrap();
    expect_code(&mut fetch_from(recv.port, "/", &target.path().join("all"), &[]), 0);
    assert_same(root.path(), &target.path().join("all"));
    for (name, why) in [("nothing", "nothing at 'nothing'"), ("d/link", "symbolic link"), ("d/large/x", "d/large")] {
        let refused = Ended::of(&mut fetch_from(recv.port, name, &target.path().join("no"), &[])).expect(4);
        assert!(refused.said.contains(why), "{name}: {}", refused.said);
    }
    let refused = Ended::of(&mut fetch_from(recv.port, "../x", &target.path().join("no"), &[])).expect(4);
    assert!(refused.said.contains("'..'"), "{}", refused.said);
    assert!(!target.path().join("no").exists());
}

// C05
#[test]
fn only_what_changed_is_fetched_and_the_old_one_may_be_kept() {
    let (root, target) = (temp_dir(), temp_dir());
    make_tree(root.path());
    let recv = Recv::start(root.path());
    let into = target.path().join("t");
    expect_code(&mut fetch_from(recv.port, "/", &into, &[]), 0);
    write(&root.path().join("a/small"), "another");
    write(&root.path().join("new"), "new");
    fs::remove_file(into.join("one byte")).unwrap();
    let dry = expect_code(&mut fetch_from(recv.port, "/", &into, &["--dry_run"]), 0);
    let mut named: Vec<_> = text(&dry.stdout).lines().map(str::to_owned).collect();
    named.truncate(3);
    named.sort();
    assert_eq!(named, ["a/small", "new", "one byte"]);
    assert!(!into.join("new").exists() && fs::read(into.join("a/small")).unwrap().len() == 100);
    let link = Link::to(recv.port);
    let ended = Ended::of(&mut fetch_from(link.port, "/", &into, &["--backup", "--fsync"])).expect(0);
    assert_eq!(ended.sent(), 7 + 3 + 1);
    assert!(link.back() < 20_000, "{}", link.back());
    let kept: Vec<_> = list(&into.join("a")).into_iter().filter(|name| name.starts_with("small_")).collect();
    assert_eq!(kept.len(), 1);
    fs::remove_file(into.join("a").join(&kept[0])).unwrap();
    assert_same(root.path(), &into);
}

#[test]
fn rules_leave_out_what_they_say_and_a_manifest_names_the_rest() {
    let (root, target) = (temp_dir(), temp_dir());
    make_tree(root.path());
    write(&root.path().join("cache/deep/x"), "x");
    fs::hard_link(root.path().join("a/large"), root.path().join("a/larger")).unwrap();
    let recv = Recv::start(root.path());
    let (into, manifest) = (target.path().join("t"), target.path().join("manifest"));
    let flags = ["--exclude", "cache/", "--exclude", "small", "--length", "1M", "--manifest", manifest.to_str().unwrap()];
    let before = Ended::of(&mut fetch_from(recv.port, "/", &into, &flags)).expect(0);
    assert_eq!(before.number("excluded"), 2);
    assert!(!into.join("cache").exists() && !into.join("a/small").exists());
    assert_eq!(fs::metadata(into.join("a/large")).unwrap().ino(), fs::metadata(into.join("a/larger")).unwrap().ino());
    let lines = fs::read_to_string(&manifest).unwrap();
    assert_eq!(lines.lines().count() as u64, before.number("files"));
    let judge = |line: &str| {
        let (digest, name) = line.split_once("  ").unwrap();
        assert_eq!(blake3::hash(&fs::read(into.join(name)).unwrap()).to_hex().as_str(), digest, "{name}");
    };
    lines.lines().for_each(judge);
    // Nothing comes the second time, and the digests are those of what is here.
    expect_code(&mut fetch_from(recv.port, "/", &into, &flags), 0);
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&lines), sorted(&fs::read_to_string(&manifest).unwrap()));
}

// E05 E07
#[test]
fn what_came_before_the_end_of_either_is_not_fetched_again() {
    for killed in ["puller", "server"] {
        let (root, state, target) = (temp_dir(), temp_dir(), temp_dir());
        let size = 24_000_000;
        write(&root.path().join("d/large"), noise(size, 1));
        let mut command = recv_command();
        // What is in a socket's buffer comes, whatever becomes of who sent it.
        command.args(["--port", "0", "--bwlimit", "12M", "--state_dir"]).arg(state.path());
        let (mut recv, _) = recv_with_line(&mut command, root.path());
        let (port, into) = (recv.port, target.path().join("t"));
        let flags = ["--length", "1M", "--retry_for", "1s"];
        let mut puller = Sender::start(&mut fetch_from(port, "d", &into, &flags));
        wait_until("half of it has come", || incoming_bytes(&into) > size as u64 / 2);
        if killed == "puller" {
            puller.child.kill().unwrap();
            puller.wait();
        } else {
            recv.process.signal("KILL");
            recv.process.wait();
            assert_eq!(puller.wait().code, Some(1));
            (recv, _) = recv_with_key(root.path(), state.path(), port);
        }
        let link = Link::to(recv.port);
        let ended = Ended::of(&mut fetch_from(link.port, "d", &into, &["--length", "1M"])).expect(0);
        assert_kept(&root.path().join("d"), &into, is_root(), |_| false);
        let (came, resumed) = (link.back(), ended.number("resumed_bytes"));
        assert!(resumed > size as u64 / 3, "{killed}: {resumed}");
        assert!(came < size as u64 - resumed + 200_000, "{killed}: {came} {resumed}");
        assert_eq!(leftovers(&into), [""; 0]);
    }
}

// E07
#[test]
fn a_server_that_is_started_again_meanwhile_gives_the_rest() {
    let (root, state, target) = (temp_dir(), temp_dir(), temp_dir());
    make_job(&root.path().join("d"), 12_000_000);
    let (mut recv, _) = recv_with_key(root.path(), state.path(), 0);
    let (port, into) = (recv.port, target.path().join("t"));
    let puller = Sender::start(&mut fetch_from(port, "d", &into, &["--length", "1M", "--bwlimit", "6M"]));
    for reached in [5, 100, 300] {
        wait_until("some files have come", || files_in(&into) >= reached);
        recv.process.signal("KILL");
        recv.process.wait();
        (recv, _) = recv_with_key(root.path(), state.path(), port);
    }
    let ended = puller.wait().expect(0);
    assert_kept(&root.path().join("d"), &into, is_root(), |_| false);
    assert_eq!(ended.number("found_files"), ended.number("files"));
}

// D06 E01
#[test]
fn a_flipped_bit_is_found_and_a_broken_connection_is_made_again() {
    let (root, target) = (temp_dir(), temp_dir());
    make_job(&root.path().join("d"), 6_000_000);
    let recv = Recv::start(root.path());
    for (number, flags) in [&["--plain"][..], &["--plain", "--checksum", "blake3"], &[]].iter().enumerate() {
        // Behind what opens a session or joins it.
        let flip = |at| move |index: usize| Knobs { flip_answer: (index == 1).then_some(at), ..Knobs::default() };
        let cut = |index: usize| Knobs { lifetime: (index == 2).then_some(Duration::from_millis(60)), ..Knobs::default() };
        for (part, link) in [Link::with(recv.port, flip(400_000)), Link::with(recv.port, cut)].iter().enumerate() {
            let into = target.path().join(format!("{number} {part}"));
            let flags = [*flags, &["--length", "500K", "--process_num", "1", "--thread_num", "2"]].concat();
            Ended::of(&mut fetch_from(link.port, "d", &into, &flags)).expect(0);
            assert_kept(&root.path().join("d"), &into, is_root(), |_| false);
            assert_eq!(leftovers(&into), [""; 0]);
        }
    }
}

// C20 C21
#[test]
fn a_file_that_changes_while_it_is_fetched_is_fetched_as_it_is_then() {
    let (root, target) = (temp_dir(), temp_dir());
    write(&root.path().join("d/large"), noise(6_000_000, 1));
    write(&root.path().join("d/other"), noise(100, 2));
    let recv = Recv::start(root.path());
    let flags = ["--length", "500K", "--process_num", "1", "--thread_num", "1"];
    for (number, change) in ["written to", "replaced", "removed"].iter().enumerate() {
        let into = target.path().join(number.to_string());
        let link = Link::with(recv.port, |_| Knobs { hold_answer: Some(1_500_000), ..Knobs::default() });
        let puller = Sender::start(&mut fetch_from(link.port, "d", &into, &flags));
        link.wait_until_it_holds();
        let large = root.path().join("d/large");
        match *change {
            "written to" => fs::OpenOptions::new().append(true).open(&large).unwrap().write_all(b"more").unwrap(),
            "replaced" => {
                write(&root.path().join("d/new"), noise(6_000_000, 9));
                fs::rename(root.path().join("d/new"), &large).unwrap();
            }
            _ => fs::remove_file(&large).unwrap(),
        }
        link.release();
        let ended = puller.wait();
        if *change == "removed" {
            ended.expect_failed(&["large"], "");
            assert_eq!(list(&into), ["other"]);
        } else {
            ended.expect(0);
            assert_kept_in(&root.path().join("d"), &into, |_| false);
        }
        assert_eq!(leftovers(&into), [""; 0], "{change}");
    }
}

// E12
#[test]
fn a_slow_connection_does_not_hold_up_the_end() {
    let (root, target) = (temp_dir(), temp_dir());
    write(&root.path().join("d/large"), noise(16_000_000, 1));
    let recv = Recv::start(root.path());
    let slow = |index: usize| Knobs { rate_answer: (index == 2).then_some(20_000), ..Knobs::default() };
    let link = Link::narrow(recv.port, slow);
    let into = target.path().join("t");
    let flags = ["--length", "1M", "--process_num", "1", "--thread_num", "4", "--plain"];
    let ended = Ended::of(&mut fetch_from(link.port, "d", &into, &flags)).expect(0);
    assert_same(&root.path().join("d"), &into);
    assert!(ended.number("repeated_bytes") > 0 && ended.json["seconds"].as_f64().unwrap() < 30.0, "{}", ended.json);
}

// D01 D11
#[test]
fn what_this_side_refuses_is_named_and_the_rest_comes() {
    let (root, target) = (temp_dir(), temp_dir());
    for name in ["a", "b/c", "z"] {
        write(&root.path().join(name), name);
    }
    let recv = Recv::start(root.path());
    let (into, outside) = (target.path().join("t"), target.path().join("outside"));
    fs::create_dir_all(into.join("a")).unwrap();
    fs::create_dir(&outside).unwrap();
    symlink(&outside, into.join("b")).unwrap();
    let ended = Ended::of(&mut fetch_from(recv.port, "/", &into, &[])).expect(3);
    assert!(ended.failed().is_superset(&["a".to_owned()].into()), "{:?}", ended.failed());
    assert_eq!(fs::read(into.join("z")).unwrap(), b"z");
    assert_eq!(list(&outside), [""; 0]);
    write(&target.path().join("file"), "");
    let refused = Ended::of(&mut fetch_from(recv.port, "/", &target.path().join("file"), &[])).expect(1);
    assert!(refused.said.contains("file"), "{}", refused.said);
}

// E13
#[test]
fn a_run_that_is_stopped_says_so_and_goes_on_later() {
    let (root, target) = (temp_dir(), temp_dir());
    let size = 24_000_000;
    write(&root.path().join("d/large"), noise(size, 1));
    let recv = Recv::start_with(root.path(), &["--bwlimit", "12M"]);
    let into = target.path().join("t");
    let flags = ["--length", "1M"];
    let puller = Sender::start(&mut fetch_from(recv.port, "d", &into, &flags));
    wait_until("a third of it has come", || incoming_bytes(&into) > size as u64 / 3);
    signal_to(puller.child.id(), "INT");
    let ended = puller.wait().expect(130);
    assert!(ended.said.contains("stopped"), "{}", ended.said);
    let ended = Ended::of(&mut fetch_from(recv.port, "d", &into, &["--length", "1M"])).expect(0);
    assert!(ended.number("resumed_bytes") > 4_000_000);
    assert_kept(&root.path().join("d"), &into, is_root(), |_| false);
}

// E10 C09
#[test]
fn a_list_that_is_longer_than_the_queue_waits_on_disk_and_costs_no_memory() {
    let (root, target) = (temp_dir(), temp_dir());
    write(&root.path().join("d/large"), noise(6_000_000, 1));
    for number in 0..30_000 {
        let folder = root.path().join(format!("d/{}", number % 2));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("a name of some length {number}")), "").unwrap();
    }
    let recv = Recv::start(root.path());
    let into = target.path().join("t");
    let link = Link::with(recv.port, |index| Knobs { hold_answer: (index > 0).then_some(100_000), ..Knobs::default() });
    let puller = Sender::start(&mut fetch_from(link.port, "d", &into, &["--process_num", "1", "--plain"]));
    // The list comes to its end though nothing else moves.
    link.wait_until_it_holds();
    let peak = || fs::read_to_string(format!("/proc/{}/status", puller.child.id())).unwrap_or_default();
    wait_until("all is listed", || link.back() > 30_000 * 60);
    let peak = peak();
    let line = peak.lines().find(|line| line.starts_with("VmHWM:")).unwrap().to_owned();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 64 * 1024, "{kib} KiB");
    link.release();
    let ended = puller.wait().expect(0);
    assert_eq!(ended.number("files"), 30_001);
    assert_same(&root.path().join("d"), &into);
}

#[test]
fn a_ticket_and_an_account_open_a_pull_as_they_open_a_push() {
    let (root, target) = (temp_dir(), temp_dir());
    make_tree(root.path());
    let (mut recv, ticket) = recv_once(root.path());
    let file = target.path().join("ticket");
    write(&file, &ticket);
    let mut command = recv_command();
    command.arg("--ticket_file").arg(&file).args(["--file", "/", "--local_dir"]).arg(target.path().join("t"));
    expect_code(&mut command, 0);
    assert_same(root.path(), &target.path().join("t"));
    assert_eq!(recv.process.wait(), Some(0), "{}", recv.process.log());

    let service = Service::start(&[]);
    expect_code(&mut service.send_as("alice", "pw of alice", root.path(), &[]), 0);
    let fetch = |name: &str, password: &str| {
        let into = target.path().join(name);
        let mut command = fetch_from(service.recv.port, "/in", &into, &["--user", name, "--host_key", &service.host_key]);
        command.env("PTF_PASSWORD", password);
        command
    };
    expect_code(&mut fetch("alice", "pw of alice"), 0);
    assert_same(root.path(), &target.path().join("alice"));
    let others = Ended::of(&mut fetch("bob", "pw of bob")).expect(4);
    assert!(others.said.contains("nothing at '/in'"), "{}", others.said);
    Ended::of(&mut fetch("alice", "wrong")).expect(4);
}

#[test]
fn what_makes_no_sense_is_said_at_once() {
    let target = temp_dir();
    for (flags, why) in [
        (&["--server", "x", "--file", "y"][..], "--port"),
        (&["--server", "x", "--port", "9", "--file", "y"], "--local_dir"),
        (&["--server", "x", "--port", "9", "--local_dir", "y"], "--file"),
        (&["--server", "x", "--port", "9", "--file", "y", "--local_dir", "z", "--root", "."], "--root"),
        (&["--server", "x", "--port", "0", "--file", "y", "--local_dir", "z"], "--port"),
    ] {
        let refused = expect_code(recv_command().args(flags).current_dir(target.path()), 2);
        assert!(text(&refused.stderr).contains(why), "{flags:?}: {}", text(&refused.stderr));
    }
    let v1 = expect_code(&mut fetch_from(9, "y", &target.path().join("z"), &["--protocol", "v1"]), 1);
    assert!(text(&v1.stderr).contains("protocol v1"), "{}", text(&v1.stderr));
}
