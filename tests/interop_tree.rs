//! Trees that are read, listed and changed by their names: our programs against a peer of another make,
//! both ways.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output};

use common::judge::*;
use common::*;
use serde_json::{Value, json};

/// The part of the v2 peer in Python that is about trees.
fn peer() -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/v2_tree_peer.py"));
    command
}

#[test]
fn the_peer_makes_the_golden_frames() {
    let golden = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v2.hex")).unwrap();
    let code = |block: &str| block.lines().filter(|line| !line.starts_with('#')).collect::<String>();
    let golden: Vec<String> = golden.split("\n\n").map(code).collect();
    let made = text(&expect_code(peer().arg("frames"), 0).stdout);
    let mut rest = golden.iter();
    for frame in made.lines() {
        assert!(rest.any(|golden| golden == frame), "{frame} is not in the file, or not in its order");
    }
    assert_eq!(made.lines().count(), 26);
}

/// The peer as a client of a server.
fn peer_to(port: u16, mode: &str, flags: &[&str]) -> Command {
    let mut command = peer();
    command.args([mode, "--port", &port.to_string()]).args(flags);
    command
}

/// What the peer printed, a line each.
fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_peer_of_another_make_reads_a_tree_from_our_receiver() {
    let (root, into) = (temp_dir(), temp_dir());
    let top = root.path().join("out");
    make_awkward_tree(&top);
    let mut recv = Recv::start(root.path());
    for (index, flags) in [
        &["--length", "300000"][..],
        &["--checksum", "0", "--length", "65536", "--ahead", "3"],
        &["--connections", "5", "--length", "1000001"],
    ]
    .into_iter()
    .enumerate()
    {
        let target = into.path().join(index.to_string());
        let flags = [flags, &["--dir", "out", "--into", target.to_str().unwrap()]].concat();
        expect_code(&mut peer_to(recv.port, "fetch", &flags), 0);
        assert_kept(&top, &target, false, |_| false);
        let blocks = fs::metadata(target.join("blocks/sparse")).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "the holes were filled: {blocks} blocks");
        recv.expect_idle();
        open_up(&target);
    }
    open_up(&top);
}

#[test]
fn a_peer_of_another_make_reads_one_file_from_our_receiver() {
    let (root, into) = (temp_dir(), temp_dir());
    write(&root.path().join("out/x"), noise(200_000, 1));
    let recv = Recv::start(root.path());
    let target = into.path().join("x");
    expect_code(&mut peer_to(recv.port, "fetch", &["--dir", "/out/x", "--into", target.to_str().unwrap()]), 0);
    assert_eq!(fs::read(&target).unwrap(), noise(200_000, 1));
    for (folder, why) in [("out/y", "out/y"), ("../out", "'..'")] {
        let output = expect_code(&mut peer_to(recv.port, "fetch", &["--dir", folder, "--into", target.to_str().unwrap()]), 1);
        assert!(text(&output.stderr).contains(why), "no '{why}' in: {}", text(&output.stderr));
    }
}

#[test]
fn our_receiver_lists_what_there_is() {
    let root = temp_dir();
    make_awkward_tree(&root.path().join("out"));
    make_specials(&root.path().join("out"));
    write(&root.path().join("out/.ptf-of another program"), "");
    let recv = Recv::start(root.path());
    for folder in ["out", "out/names", "out/links", "out/hard", "out/a", "out/hollow", "out/blocks"] {
        let output = expect_code(&mut peer_to(recv.port, "list", &["--dir", folder]), 0);
        let listed = &lines(&output)[1..];
        let names: BTreeSet<_> = listed.iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names.len(), listed.len(), "a name came twice");
        let there = fs::read_dir(root.path().join(folder)).unwrap().map(|entry| entry.unwrap());
        let there: Vec<_> = there.filter(|entry| !entry.file_name().as_bytes().starts_with(b".ptf-")).collect();
        assert_eq!(there.len(), listed.len(), "{folder}: {names:?}");
        for entry in there.iter().filter(|entry| entry.file_name().to_str().is_some()) {
            let (name, about) = (entry.file_name().into_string().unwrap(), fs::symlink_metadata(entry.path()).unwrap());
            let line = listed.iter().find(|line| line["name"] == name.as_str()).unwrap_or_else(|| panic!("no {name:?}"));
            let kind = match about.file_type() {
                kind if kind.is_dir() => "folder",
                kind if kind.is_symlink() => "symlink",
                kind if !kind.is_file() => "special",
                _ if about.blocks() * 512 < about.size() => "holed",
                _ => "file",
            };
            let is_file = about.is_file();
            let (size, links) = if is_file { (about.size(), about.nlink()) } else { (0, 0) };
            let mtime = i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec());
            let expected = json!({
                "op": "listed", "name": name, "kind": kind, "size": size, "names": links, "mode": about.mode() & 0o777,
                "owner": [about.uid(), about.gid()], "tag": line["tag"], "xattrs": {}, "mtime": i64::try_from(mtime).unwrap(),
                "target": fs::read_link(entry.path()).map_or(String::new(), |target| target.to_str().unwrap().to_owned()),
            });
            assert_eq!(line, &expected);
        }
    }
    let itself = lines(&expect_code(&mut peer_to(recv.port, "list", &["--dir", "out", "--itself", "a/large"]), 0));
    assert_eq!((&itself[1]["name"], &itself[1]["size"]), (&json!(""), &json!(3_000_000)));
    open_up(root.path());
}

/// A server of another make of what is below a folder. Gives its port.
fn start_peer(folder: &Path, flags: &[&str]) -> (Running, u16) {
    let process = Running::start(peer().arg("serve").arg(folder).args(flags));
    let port = process.first_line.rsplit(' ').next().unwrap().parse().unwrap();
    (process, port)
}

/// Our pull from the peer.
fn pull_from(port: u16, file: &str, into: &Path, flags: &[&str]) -> Command {
    let mut command = recv_command();
    command.args(["--server", "127.0.0.1", "--port", &port.to_string(), "--plain", "--file", file, "--local_dir"]);
    command.arg(into).args(flags);
    command
}

/// How often the peer was asked for something.
fn count(log: &Path, op: &str) -> usize {
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().filter(|line| line["op"] == "close").all(|close| close["why"] == "end"), "{log}");
    lines.iter().filter(|line| line["op"] == op).count()
}

// C11, C12, C19
#[test]
fn we_pull_a_tree_from_a_server_of_another_make() {
    let (root, into) = (temp_dir(), temp_dir());
    make_awkward_tree(&root.path().join("out"));
    let log = into.path().join("log");
    let (_peer, port) = start_peer(root.path(), &["--log", log.to_str().unwrap(), "--page", "3"]);
    let target = into.path().join("in");
    let flags = ["--length", "300000"];
    expect_code(&mut pull_from(port, "out", &target, &flags), 0);
    assert_kept(&root.path().join("out"), &target, false, |_| false);
    assert!(fs::metadata(target.join("blocks/sparse")).unwrap().blocks() * 512 < 1 << 20, "the holes were filled");
    assert_eq!(count(&log, "open"), 1);
    assert_eq!(count(&log, "finish"), 1);
    // What is here already is not asked for again.
    let before = count(&log, "read");
    expect_code(&mut pull_from(port, "/out", &target, &flags), 0);
    assert_eq!(count(&log, "read"), before);
    open_up(root.path());
    open_up(into.path());
}

#[test]
fn we_pull_one_file_from_a_server_of_another_make() {
    let (root, into) = (temp_dir(), temp_dir());
    write(&root.path().join("out/x"), noise(3_000_000, 1));
    let (_peer, port) = start_peer(root.path(), &[]);
    for flags in [&["--length", "300000"][..], &["--checksum", "none"]] {
        expect_code(&mut pull_from(port, "out/x", into.path(), flags), 0);
        assert_eq!(fs::read(into.path().join("x")).unwrap(), noise(3_000_000, 1));
        assert_eq!(list(into.path()), ["x"]);
        fs::remove_file(into.path().join("x")).unwrap();
    }
    let output = expect_code(&mut pull_from(port, "out/y", into.path(), &[]), 4);
    assert!(text(&output.stderr).contains("there is nothing at 'out/y'"), "{}", text(&output.stderr));
    assert_eq!(list(into.path()), [""; 0]);
}

// B07, C20, E05
#[test]
fn what_goes_wrong_at_a_server_of_another_make_is_asked_for_again() {
    let root = temp_dir();
    make_tree(&root.path().join("out"));
    for fault in [["--damage", "2"], ["--void", "1"], ["--cut", "2"]] {
        let into = temp_dir();
        let (_peer, port) = start_peer(root.path(), &fault);
        let flags = ["--length", "300000", "--process_num", "1", "--thread_num", "1"];
        expect_code(&mut pull_from(port, "out", into.path(), &flags), 0);
        assert_same(&root.path().join("out"), into.path());
    }
}
