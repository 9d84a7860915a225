//! Disks that fail: errors of single system calls, counted, while files are received.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::job::incoming_bytes;
use common::journal::JournalFile;
use common::mount::can;
use common::sender::*;
use common::*;

/// In one piece; in pieces that find each other.
const CUTS: [&[&str]; 2] = [&[], &["--length", "100000"]];

const EIO: (u32, &str) = (5, "Input/output error");
const EDQUOT: (u32, &str) = (122, "Disk quota exceeded");

/// A receiver some of whose system calls fail.
struct Scene {
    recv: Recv,
    rule: PathBuf,
    _place: TempDir,
}

impl Scene {
    /// `None` where the kernel lets nobody step in between: then the row is skipped, and said so.
    fn new(root: &Path) -> Option<Self> {
        let place = temp_dir();
        let (program, rule) = (place.path().join("io_errors"), place.path().join("rule"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/io_errors.c");
        expect_code(Command::new("cc").args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source), 0);
        write(&rule, "");
        if !can(Command::new(&program).arg(&rule).arg("/bin/true")) {
            println!("SKIPPED D12: system calls can't be made to fail here");
            return None;
        }
        let plain = recv_command();
        let mut command = Command::new(program);
        command.arg(&rule).arg(plain.get_program()).args(["--port", "0"]);
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let (recv, _) = recv_with_line(&mut command, root);
        Some(Self { recv, rule, _place: place })
    }

    /// From now on this happens, and nothing else.
    fn set_rule(&self, rule: &str) {
        let new = self.rule.with_extension("new");
        fs::write(&new, rule).unwrap();
        fs::rename(new, &self.rule).unwrap();
    }

    fn send(&self, source: &Path, flags: &[&str]) -> Ended {
        Ended::of(&mut send_to(self.recv.port, source, "in", flags))
    }
}

// D12
#[test]
fn a_disk_that_fails_fails_the_file_by_name_and_loses_nothing_that_was_there() {
    let (source, root) = (temp_dir(), temp_dir());
    let Some(mut scene) = Scene::new(root.path()) else { return };
    let mut old = noise(300_000, 1);
    write(&source.path().join("kept"), "kept");
    write(&source.path().join("x"), &old);
    scene.send(source.path(), &[]).expect(0);
    // Room is reserved for what comes in pieces alone, and not where memory is the disk.
    let calls = [("pwrite64", 1), ("pwrite64", 2), ("pwrite64", 4), ("renameat", 1), ("fallocate", 1)];
    let rules = calls.into_iter().flat_map(|call| [(call, EIO), (call, EDQUOT)]);
    let flags = [&[][..], CUTS[1], &["--backup"], &["--backup", "--length", "100000"]];
    let cases = rules.flat_map(|rule| flags.map(|flags| (rule, flags)));
    for (((call, which), (errno, why)), flags) in cases {
        let (is_cut, has_backup) = (flags.contains(&"--length"), flags.contains(&"--backup"));
        if (call == "fallocate" && !is_cut) || (call != "renameat" && has_backup) {
            continue;
        }
        // Of what comes in pieces the journal is begun first; where it ends nobody can say.
        if is_cut && (call, which) == ("pwrite64", 4) {
            continue;
        }
        let is_journal = is_cut && (call, which) == ("pwrite64", 1);
        let what = format!("{call} {which} {why} {flags:?}");
        let new = noise(old.len() + 1, 2);
        write(&source.path().join("x"), &new);
        scene.set_rule(&format!("{call} {errno} {which}"));
        let ended = scene.send(source.path(), flags);
        if call == "fallocate" && ended.code == Some(0) {
            println!("SKIPPED D12 ({what}): no room is reserved on this file system");
        } else if is_journal {
            // It can't be gone on with, and that is all.
            ended.expect(0);
            assert_same(source.path(), &scene.recv.path("in"));
        } else {
            let ended = ended.expect(3);
            assert_eq!(ended.failed(), ["x".to_owned()].into(), "{what}: {}", ended.said);
            assert!(ended.said.contains(why), "{what}: {}", ended.said);
            assert!(fs::read(scene.recv.path("in/x")).unwrap() == old, "{what}: the old file is gone");
            let names = list(root.path()).into_iter().filter(|name| !name.contains(".ptf-")).collect::<Vec<_>>();
            assert_eq!(names, ["in", "in/kept", "in/x"], "{what}");
            // What came before the disk failed stays, where it was in pieces.
            expect_kept(root.path(), usize::from(is_cut && leftovers(root.path()).len() == 2));
        }
        // The next job is fine.
        scene.set_rule("");
        scene.send(source.path(), CUTS[usize::from(is_cut)]).expect(0);
        assert_same(source.path(), &scene.recv.path("in"));
        assert_eq!(leftovers(root.path()), [""; 0], "{what}");
        old = new;
    }
    scene.recv.expect_idle();
}

// D12
#[test]
fn a_sync_that_failed_is_no_success_the_next_time() {
    for (errno, why) in [EIO, EDQUOT] {
        let (source, root) = (temp_dir(), temp_dir());
        let Some(mut scene) = Scene::new(root.path()) else { return };
        write(&source.path().join("x"), noise(300_000, 1));
        scene.set_rule(&format!("syncfs {errno} 1"));
        for _ in 0..2 {
            // What the disk has lost it has lost: that the next call finds nothing wrong is no news.
            let ended = scene.send(source.path(), &["--fsync"]).expect(3);
            assert!(ended.said.contains("not all is known to be on disk") && ended.said.contains(why), "{}", ended.said);
            assert_same(source.path(), &scene.recv.path("in"));
        }
        write(&source.path().join("y"), "next");
        scene.send(source.path(), &[]).expect(0);
        assert_same(source.path(), &scene.recv.path("in"));
        scene.recv.expect_idle();
    }
}

// D12: what came before another boot is hashed and brought to the disk, which fails.
#[test]
fn a_file_that_can_not_be_synced_is_begun_anew_and_not_gone_on_with() {
    let (source, root) = (temp_dir(), temp_dir());
    let Some(mut scene) = Scene::new(root.path()) else { return };
    write(&source.path().join("x"), noise(3_000_000, 1));
    let flags = ["--length", "300K", "--bwlimit", "4M"];
    let sender = Sender::start(&mut send_to(scene.recv.port, source.path(), "in", &flags));
    wait_until("some of it has come", || incoming_bytes(&root.path().join("in")) > 1_000_000);
    drop(sender);
    scene.recv.process.signal("KILL");
    scene.recv.process.wait();
    let mut journal = JournalFile::in_folder(&root.path().join("in"));
    journal.set_boot([7; 16]);
    journal.store(0);
    scene = Scene::new(root.path()).unwrap();
    scene.set_rule("fdatasync 5 1");
    let one = ["--length", "300K", "--process_num", "1", "--thread_num", "1"];
    scene.send(source.path(), &one).expect_failed(&["x"], "can't sync in/x: Input/output error");
    assert!(!scene.recv.path("in/x").exists());
    // What the kernel said once is not forgotten: nothing of it counts any more.
    scene.set_rule("");
    let ended = scene.send(source.path(), &one).expect(0);
    assert_eq!(ended.number("resumed_bytes"), 0, "{}", ended.json);
    assert_same(source.path(), &scene.recv.path("in"));
    assert_eq!(leftovers(root.path()), [""; 0]);
    scene.recv.expect_idle();
}

// D12
#[test]
fn where_nothing_can_be_locked_files_arrive_and_nothing_is_gone_on_with() {
    let (source, root) = (temp_dir(), temp_dir());
    let Some(mut scene) = Scene::new(root.path()) else { return };
    write(&source.path().join("x"), noise(3_000_000, 1));
    // ENOLCK
    scene.set_rule("flock 37 0");
    let sender = Sender::start(&mut send_to(scene.recv.port, source.path(), "in", &["--length", "300K", "--bwlimit", "4M"]));
    wait_until("it is being received", || !leftovers(root.path()).is_empty());
    assert_eq!(leftovers(root.path()).iter().filter(|name| name.ends_with('j')).count(), 0);
    sender.wait().expect(0);
    assert_same(source.path(), &scene.recv.path("in"));
    assert_eq!(leftovers(root.path()), [""; 0]);
    scene.recv.expect_idle();
}
