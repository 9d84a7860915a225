//! A target that takes names differing in case for one: none is lost in silence.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::mount::can;
use common::sender::*;
use common::*;

/// In one piece; in pieces that find each other.
const CUTS: [&[&str]; 2] = [&[], &["--length", "100000"]];

/// A file system of that kind, gone with the test.
struct Blind(PathBuf, Child);

impl Blind {
    /// `None` where that is not allowed: then the row is skipped, and said so.
    fn new(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/case_blind_fs.py");
        let mut command = Command::new("python3");
        command.arg(program).arg(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line == "mounted\n" {
            return Some(Self(folder.to_path_buf(), child));
        }
        child.wait().unwrap();
        println!("SKIPPED C14: can't mount a file system of our own here");
        None
    }
}

impl Drop for Blind {
    fn drop(&mut self) {
        let _ = can(Command::new("umount").arg("-l").arg(&self.0));
        let _ = self.1.kill();
        let _ = self.1.wait();
    }
}

/// Fails unless of each pair one arrived under its own spelling and the other was named.
fn expect_one_of_each(source: &Path, target: &Path, failed: &BTreeSet<String>, pairs: &[[&str; 2]]) {
    let is_same = |name: &str| match fs::read_link(source.join(name)) {
        Ok(link) => fs::read_link(target.join(name)).ok() == Some(link),
        Err(_) => fs::read(target.join(name)).ok() == fs::read(source.join(name)).ok(),
    };
    let there = list(target);
    for pair in pairs {
        let arrived: Vec<_> = pair.iter().filter(|name| !failed.contains(**name)).collect();
        assert_eq!(arrived.len(), 1, "{pair:?}: {failed:?}");
        assert!(is_same(arrived[0]) && there.contains(&(*arrived[0]).to_owned()), "{arrived:?} of {there:?}");
        assert!(pair.iter().all(|name| name == arrived[0] || !there.contains(&(*name).to_owned())), "{there:?}");
    }
    assert_eq!(failed.len(), pairs.len(), "{failed:?}");
}

// C14
#[test]
fn of_two_names_that_differ_in_case_one_arrives_and_the_other_is_named() {
    const PAIRS: [[&str; 2]; 3] = [["A", "a"], ["d/Name é", "d/naME é"], ["link", "LINK"]];
    for flags in CUTS {
        let (source, root) = (temp_dir(), temp_dir());
        let disk = root.path().join("disk");
        let Some(_blind) = Blind::new(&disk) else { return };
        for (index, name) in PAIRS[..2].iter().flatten().enumerate() {
            write(&source.path().join(name), noise(200_000 + index, index as u64));
        }
        PAIRS[2].iter().for_each(|name| symlink(format!("to {name}"), source.path().join(name)).unwrap());
        write(&source.path().join("alone"), "first");
        let mut recv = Recv::start(root.path());
        let send = |more: &[&str]| Ended::of(&mut send_to(recv.port, source.path(), "disk/in", &[flags, more].concat()));
        // Who came first stays, however often the other comes.
        let mut arrived: Option<BTreeSet<String>> = None;
        for more in [&[][..], &[], &["--backup"]] {
            let failed = send(more).expect(3).failed();
            expect_one_of_each(source.path(), &disk.join("in"), &failed, &PAIRS);
            assert!(arrived.is_none_or(|before| before == failed), "{flags:?} {more:?}");
            arrived = Some(failed);
        }
        // A name of its own is replaced as ever.
        write(&source.path().join("alone"), "the second");
        send(&[]).expect(3);
        assert_eq!(fs::read(disk.join("in/alone")).unwrap(), b"the second");
        assert_eq!(leftovers(&disk), [""; 0]);
        recv.expect_idle();
    }
}

// C14
#[test]
fn a_folder_whose_name_is_anothers_is_named() {
    let (source, root) = (temp_dir(), temp_dir());
    let disk = root.path().join("disk");
    let Some(_blind) = Blind::new(&disk) else { return };
    write(&source.path().join("Folder/one"), "one");
    write(&source.path().join("fOLDER/two"), "two");
    let recv = Recv::start(root.path());
    for _ in 0..2 {
        let ended = Ended::of(&mut send_to(recv.port, source.path(), "disk/in", &[])).expect(3);
        assert!(ended.failed().iter().any(|name| name == "Folder" || name == "fOLDER"), "{}", ended.said);
    }
}
