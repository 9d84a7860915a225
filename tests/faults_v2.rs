//! Disks that refuse, connections that are cut, processes that are killed or stopped: what comes of a v2 run.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::judge::*;
use common::link::{Knobs, Link};
use common::mount::*;
use common::sender::*;
use common::*;

/// In one piece; in pieces that find each other.
const CUTS: [&[&str]; 2] = [&[], &["--length", "100000"]];

/// Fails unless each file of the target is one of the source, whole; gives how many there are.
fn expect_whole(source: &Path, target: &Path) -> usize {
    let is_file = |name: &String| !name.contains(".ptf-") && target.join(name).is_file();
    let names: Vec<_> = if target.exists() { list(target).into_iter().filter(is_file).collect() } else { Vec::new() };
    for name in &names {
        assert!(fs::read(target.join(name)).unwrap() == fs::read(source.join(name)).unwrap(), "{name} is not whole");
    }
    names.len()
}

// D11
#[test]
fn a_full_disk_fails_files_by_name_and_loses_nothing_that_was_there() {
    for flags in CUTS {
        let (source, root) = (temp_dir(), temp_dir());
        let disk = root.path().join("disk");
        let Some(_mount) = Mount::new(&disk, "size=1m", "D11") else { return };
        let old = noise(100_000, 1);
        write(&disk.join("x"), &old);
        write(&disk.join("filler"), noise(500_000, 2));
        write(&source.path().join("x"), noise(700_000, 3));
        write(&source.path().join("small"), "small");
        let mut recv = Recv::start(root.path());
        for backup in [&[][..], &["--backup"]] {
            let ended = Ended::of(&mut send_to(recv.port, source.path(), "disk", &[flags, backup].concat()));
            ended.expect_failed(&["x"], "No space left on device");
            assert!(fs::read(disk.join("x")).unwrap() == old);
            assert_eq!(fs::read(disk.join("small")).unwrap(), b"small");
            assert_eq!(list(root.path()), ["disk", "disk/filler", "disk/small", "disk/x"]);
        }
        // Elsewhere there is room, and here as soon as it is made.
        Ended::of(&mut send_to(recv.port, source.path(), "in", flags)).expect(0);
        fs::remove_file(disk.join("filler")).unwrap();
        Ended::of(&mut send_to(recv.port, source.path(), "disk", flags)).expect(0);
        assert_same(source.path(), &disk);
        recv.expect_idle();
    }
}

// D11
#[test]
fn a_disk_that_fills_up_under_many_files_fails_each_that_has_no_room_by_name() {
    let (source, root) = (temp_dir(), temp_dir());
    let disk = root.path().join("disk");
    let Some(_mount) = Mount::new(&disk, "size=2m", "D11 (many)") else { return };
    (0..20).for_each(|index| write(&source.path().join(format!("f{index}")), noise(200_000, index)));
    let mut recv = Recv::start(root.path());
    for flags in CUTS {
        let ended = Ended::of(&mut send_to(recv.port, source.path(), "disk", flags)).expect(3);
        let failed = ended.failed().len();
        assert!((10..20).contains(&failed), "{failed} of 20 in 2 MiB");
        assert_eq!(expect_whole(source.path(), &disk), 20 - failed);
        // Those of which something had come.
        expect_kept(&disk, leftovers(&disk).len() / 2);
        assert!(!flags.is_empty() || leftovers(&disk).is_empty());
        (0..20).for_each(|index| drop(fs::remove_file(disk.join(format!("f{index}")))));
    }
    recv.expect_idle();
}

// D13
#[test]
fn a_file_system_without_inodes_fails_what_is_new_by_name() {
    let (source, root) = (temp_dir(), temp_dir());
    let disk = root.path().join("disk");
    let Some(_mount) = Mount::new(&disk, "size=1m,nr_inodes=8", "D13") else { return };
    write(&disk.join("f0"), "old");
    (0..15).for_each(|index| write(&source.path().join(format!("f{index}")), format!("new {index}")));
    write(&source.path().join("folder/within"), "x");
    std::os::unix::fs::symlink("x", source.path().join("link")).unwrap();
    let recv = Recv::start(root.path());
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "disk", &[])).expect(3);
    assert!(ended.said.contains("No space left on device"), "{}", ended.said);
    let (failed, there): (BTreeSet<_>, BTreeSet<_>) = (ended.failed(), list(&disk).into_iter().collect());
    for name in list(source.path()) {
        assert!(failed.contains(&name) || there.contains(&name), "{name} is neither there nor named");
    }
    let old = fs::read_to_string(disk.join("f0")).unwrap();
    assert!(old == if failed.contains("f0") { "old" } else { "new 0" }, "{old}");
    assert_eq!(leftovers(&disk), [""; 0]);
    (1..15).for_each(|index| drop(fs::remove_file(source.path().join(format!("f{index}")))));
    (1..15).for_each(|index| drop(fs::remove_file(disk.join(format!("f{index}")))));
    Ended::of(&mut send_to(recv.port, source.path(), "disk", &[])).expect(0);
    assert_same(source.path(), &disk);
}

// C15
#[test]
fn a_read_only_file_system_refuses_by_name() {
    let (source, root) = (temp_dir(), temp_dir());
    let disk = root.path().join("disk");
    let Some(mount) = Mount::new(&disk, "size=2m", "C15 (read-only)") else { return };
    write(&disk.join("x"), "old");
    write(&source.path().join("x"), noise(300_000, 1));
    let mut recv = Recv::start(root.path());
    mount.set_options("ro");
    for flags in CUTS {
        let ended = Ended::of(&mut send_to(recv.port, source.path(), "disk", flags)).expect(3);
        assert!(ended.failed().contains("x") && ended.said.contains("Read-only file system"), "{}", ended.said);
        // A folder that can't be made is the end before anything landed.
        let ended = Ended::of(&mut send_to(recv.port, source.path(), "disk/new", flags)).expect(4);
        assert!(ended.said.contains("disk/new") && ended.said.contains("Read-only file system"), "{}", ended.said);
        assert_eq!(list(&disk), ["x"]);
        assert_eq!(fs::read(disk.join("x")).unwrap(), b"old");
    }
    mount.set_options("rw");
    Ended::of(&mut send_to(recv.port, source.path(), "disk", &[])).expect(0);
    recv.expect_idle();
}

// C15
#[test]
fn a_folder_without_permission_refuses_by_name_and_the_rest_arrives() {
    let (place, source, root) = (temp_dir(), temp_dir(), temp_dir());
    for name in ["locked/old", "locked/new", "locked/large", "good", "fine/x"] {
        write(&source.path().join(name), noise(if name.ends_with("large") { 300_000 } else { 10 }, 1));
    }
    let Some(mut command) = as_nobody(env!("CARGO_BIN_EXE_recv"), place.path()).filter(|_| is_root()) else {
        println!("SKIPPED C15 (no permission): can't run as another user");
        return;
    };
    let target = root.path().join("in");
    write(&target.join("locked/old"), "old");
    for (path, mode) in [(root.path(), 0o777), (&target, 0o777), (&target.join("locked"), 0o555), (place.path(), 0o777)] {
        set_mode(path, mode);
    }
    let (mut recv, _) = recv_with_line(command.args(["--port", "0"]), root.path());
    for flags in CUTS {
        let home = temp_dir();
        let mut command = send_to(recv.port, source.path(), "in", flags);
        let ended = Ended::of(command.env("XDG_CONFIG_HOME", home.path())).expect(3);
        for name in ["locked/old", "locked/new", "locked/large"] {
            assert!(ended.failed().contains(name), "{name}: {:?}", ended.failed());
        }
        assert!(ended.said.contains("ermi") && !ended.failed().contains("good") && !ended.failed().contains("fine/x"));
        assert_eq!(list(&target), ["fine", "fine/x", "good", "locked", "locked/old"]);
        assert_eq!(fs::read(target.join("locked/old")).unwrap(), b"old");
    }
    recv.expect_idle();
}

// C15
#[test]
fn an_immutable_file_is_not_replaced_and_the_rest_arrives() {
    let (source, root) = (temp_dir(), temp_dir());
    for name in ["x", "y"] {
        write(&source.path().join(name), noise(300_000, 1));
    }
    let file = root.path().join("in/x");
    write(&file, "old");
    if !can(Command::new("chattr").arg("+i").arg(&file)) {
        println!("SKIPPED C15 (immutable): can't set that attribute here");
        return;
    }
    let recv = Recv::start(root.path());
    let all: Vec<Ended> = CUTS.into_iter().map(|flags| Ended::of(&mut send_to(recv.port, source.path(), "in", flags))).collect();
    assert!(can(Command::new("chattr").arg("-i").arg(&file)));
    for ended in all {
        ended.expect_failed(&["x"], "Operation not permitted");
    }
    assert_eq!((fs::read(&file).unwrap(), list(&recv.path("in"))), (b"old".to_vec(), vec!["x".to_owned(), "y".to_owned()]));
}

/// A tree that is more than one process's work.
fn make_large_tree(top: &Path) {
    (0..24).for_each(|index| write(&top.join(format!("d{}/f{index}", index % 3)), noise(1 << 20, index + 1)));
}

const LARGE: [&str; 6] = ["--length", "1M", "--process_num", "3", "--thread_num", "1"];

// E07
#[test]
fn worker_processes_that_are_killed_cost_nothing_but_their_work() {
    let source = temp_dir();
    make_large_tree(source.path());
    for (all, plain) in [(false, &[][..]), (true, &[]), (true, &["--plain"])] {
        let root = temp_dir();
        let recv = Recv::start(root.path());
        let link = Link::holding(recv.port, 400_000);
        let sender = Sender::start(&mut send_to(link.port, source.path(), "in", &[&LARGE[..], plain].concat()));
        link.wait_until_it_holds();
        wait_until("worker processes run", || children_of(sender.child.id()).len() == 2);
        let children = children_of(sender.child.id());
        children.iter().take(if all { 2 } else { 1 }).for_each(|&child| signal_to(child, "KILL"));
        link.release();
        let ended = sender.wait().expect(0);
        assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
        assert_eq!((ended.number("files"), ended.number("failed")), (24, 0));
        assert_eq!(leftovers(root.path()), [""; 0]);
    }
}

// E07
#[test]
fn a_sender_that_is_interrupted_or_killed_leaves_no_half_file_and_a_second_run_completes() {
    let source = temp_dir();
    make_large_tree(source.path());
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(130)), ("KILL", None)] {
        let root = temp_dir();
        let mut recv = Recv::start(root.path());
        let link = Link::holding(recv.port, 1_500_000);
        let sender = Sender::start(&mut send_to(link.port, source.path(), "in", &LARGE));
        link.wait_until_it_holds();
        let children = children_of(sender.child.id());
        signal_to(sender.child.id(), signal);
        let ended = sender.wait();
        assert_eq!(ended.code, code, "{signal}: {}", ended.said);
        if code.is_some() {
            assert_eq!((ended.number("exit_code"), &ended.json["outcome"]), (130, &"interrupted".into()), "{}", ended.said);
        }
        let is_gone = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        wait_until("its worker processes are gone", || children.iter().all(is_gone));
        link.release();
        let there = expect_whole(source.path(), &recv.path("in"));
        assert!(there < 24, "{signal}: nothing was cut short");
        Ended::of(&mut send_to(recv.port, source.path(), "in", &LARGE)).expect(0);
        assert_kept_in(source.path(), &recv.path("in"), |path| path.to_str().unwrap().contains(".ptf-"));
        recv.process.signal("TERM");
        assert!(matches!(recv.process.wait(), Some(0 | 130)));
        assert_eq!(leftovers(root.path()), [""; 0], "{signal}");
    }
}

// E06
#[test]
fn a_receiver_that_is_gone_ends_the_run_in_time_with_a_clear_word() {
    let source = temp_dir();
    make_large_tree(source.path());
    for signal in ["KILL", "TERM"] {
        let root = temp_dir();
        let mut recv = Recv::start_with(root.path(), &["--drain", "300ms"]);
        let link = Link::holding(recv.port, 1_500_000);
        let flags = [&LARGE[..], &["--retry_for", "1s"]].concat();
        let sender = Sender::start(&mut send_to(link.port, source.path(), "in", &flags));
        link.wait_until_it_holds();
        recv.process.signal(signal);
        let code = recv.process.wait();
        assert_eq!(code, if signal == "TERM" { Some(130) } else { None }, "{}", recv.process.log());
        let start = Instant::now();
        link.release();
        let ended = sender.wait().expect(1);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert!(ended.said.contains("receiver") && ended.said.contains("not finished"), "{}", ended.said);
        assert!(!ended.said.contains("panicked") && ended.json["outcome"] == "failed", "{}", ended.said);
        assert!(expect_whole(source.path(), &recv.path("in")) < 24);
        // What a killed process left is no hindrance, and in the end it is gone.
        let again = Recv::start(root.path());
        Ended::of(&mut send_to(again.port, source.path(), "in", &LARGE)).expect(0);
        assert_kept_in(source.path(), &again.path("in"), |path| path.to_str().unwrap().contains(".ptf-"));
        if signal == "TERM" {
            assert_eq!(leftovers(root.path()), [""; 0]);
        }
    }
}

// E06
#[test]
fn a_receiver_that_was_restarted_is_worked_with_or_named() {
    let (source, root) = (temp_dir(), temp_dir());
    make_large_tree(source.path());
    let recv = Recv::start(root.path());
    let port = recv.port;
    let link = Link::holding(port, 1_500_000);
    let sender = Sender::start(&mut send_to(link.port, source.path(), "in", &LARGE));
    link.wait_until_it_holds();
    drop(recv);
    let mut command = recv_command();
    let (recv, _) = recv_with_line(command.args(["--port", &port.to_string()]), root.path());
    link.release();
    let ended = sender.wait();
    match ended.code {
        Some(0) => {}
        Some(1) => {
            assert!(ended.said.contains("restarted"), "{}", ended.said);
            Ended::of(&mut send_to(recv.port, source.path(), "in", &LARGE)).expect(0);
        }
        code => panic!("{code:?}: {}", ended.said),
    }
    assert_kept_in(source.path(), &recv.path("in"), |path| path.to_str().unwrap().contains(".ptf-"));
}

// E15
#[test]
fn a_receiver_that_is_asked_to_stop_between_two_frames_cuts_nothing() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let mut recv = Recv::start(root.path());
    Ended::of(&mut send_to(recv.port, source.path(), "in", &[])).expect(0);
    let silent: Vec<TcpStream> = (0..5).map(|_| recv.connect()).collect();
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(0));
    drop(silent);
    assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
}

// E04, E05
#[test]
fn connections_that_are_cut_are_opened_again_and_all_arrives() {
    let source = temp_dir();
    make_tree(source.path());
    std::os::unix::fs::symlink("one byte", source.path().join("link")).unwrap();
    fs::hard_link(source.path().join("one byte"), source.path().join("twin")).unwrap();
    // The connections that carry content; then the one that opened the job, after it did.
    let workers = [0, 50, 90, 150, 1_900, 2_500, 65_800, 262_500, 600_000].map(|at| (1..5, at));
    let control_in_clear = [120, 160, 300, 500].map(|at| (0..1, at));
    let control_in_tls = [2_300, 2_600].map(|at| (0..1, at));
    thread::scope(|scope| {
        for (plain, controls) in [(&["--plain"][..], &control_in_clear[..]), (&[], &control_in_tls)] {
            let (source, workers) = (source.path(), &workers);
            scope.spawn(move || {
                let root = temp_dir();
                let mut recv = Recv::start(root.path());
                for (which, at) in workers.iter().chain(controls).cloned() {
                    let of_control = which.contains(&0);
                    let link = Link::with(recv.port, move |index| Knobs {
                        cut: which.contains(&index).then_some(at),
                        ..Knobs::default()
                    });
                    let (target, home) = (format!("{of_control} {at}"), temp_dir());
                    let flags = [plain, &["--length", "500000", "--process_num", "2", "--thread_num", "2"]].concat();
                    let mut command = send_to(link.port, source, &target, &flags);
                    let ended = Ended::of(command.env("XDG_CONFIG_HOME", home.path()));
                    assert_eq!(ended.code, Some(0), "cut at {target} {plain:?}: {}", ended.said);
                    assert_kept(source, &recv.path(&target), is_root(), |_| false);
                    // What breaks in a handshake of TLS was no connection yet.
                    assert!(ended.number("lost_connections") > 0 || at > 400 || plain.is_empty(), "{target}: {}", ended.json);
                }
                recv.expect_idle();
                assert_eq!(leftovers(root.path()), [""; 0]);
            });
        }
    });
}

// E05
#[test]
fn a_network_that_cuts_everything_again_and_again_is_outlasted() {
    let (source, root) = (temp_dir(), temp_dir());
    (0..30).for_each(|index| write(&source.path().join(format!("f{index}")), noise(100_000, index)));
    let mut recv = Recv::start(root.path());
    // Each connection carries about two files, the first ten of them.
    let link = Link::with(recv.port, |index| Knobs { cut: (1..11).contains(&index).then_some(250_000), ..Knobs::default() });
    let ended = Ended::of(&mut send_to(link.port, source.path(), "in", &["--process_num", "1", "--thread_num", "2"])).expect(0);
    assert!(ended.number("lost_connections") >= 3, "{}", ended.json);
    assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
    recv.expect_idle();
}

// E13
#[test]
fn several_senders_of_both_versions_are_served_at_once() {
    let sources: Vec<TempDir> = (0..3).map(|_| temp_dir()).collect();
    let root = temp_dir();
    sources.iter().for_each(|source| make_large_tree(source.path()));
    let mut recv = Recv::start(root.path());
    thread::scope(|scope| {
        for (source, flags) in sources.iter().zip([&["--protocol", "v1"][..], &["--plain"], &[]]) {
            let port = recv.port;
            scope.spawn(move || Ended::of(&mut send_to(port, source.path(), format!("to{}", flags.len()), flags)).expect(0));
        }
    });
    for (source, target) in sources.iter().zip(["to2", "to1", "to0"]) {
        assert_same(source.path(), &recv.path(target));
    }
    recv.expect_idle();
}

// E01
#[test]
fn silent_connections_do_not_keep_a_job_from_being_served() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let mut recv = Recv::start_with(root.path(), &["--max_connections", "200"]);
    let silent = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..300 {
        silent.lock().unwrap().push(recv.connect());
    }
    for (name, flags) in [("tls", &[][..]), ("plain", &["--plain"])] {
        Ended::of(&mut send_to(recv.port, source.path(), name, flags)).expect(0);
        assert_kept(source.path(), &recv.path(name), is_root(), |_| false);
    }
    silent.lock().unwrap().clear();
    recv.expect_idle();
}

// E15
#[test]
fn a_receiver_that_stands_still_for_a_while_is_waited_for() {
    let (source, root) = (temp_dir(), temp_dir());
    make_large_tree(source.path());
    let mut recv = Recv::start(root.path());
    let link = Link::holding(recv.port, 700_000);
    let sender = Sender::start(&mut send_to(link.port, source.path(), "in", &LARGE));
    link.wait_until_it_holds();
    recv.process.signal("STOP");
    link.release();
    let before = link.forth();
    wait_until("the network is full", || link.forth() > before);
    recv.process.signal("CONT");
    sender.wait().expect(0);
    assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
    recv.expect_idle();
}

// D15
#[test]
fn output_that_nobody_takes_changes_nothing() {
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let recv = Recv::start(root.path());
    for flags in [&[][..], &["--json"], &["--dry_run"]] {
        let mut command = send_to(recv.port, source.path(), "in", flags);
        assert_eq!(command.stdout(full()).stderr(full()).status().unwrap().code(), Some(0), "{flags:?}");
    }
    assert_same(source.path(), &recv.path("in"));
}
