//! Nothing is sent twice, nothing is lost: receivers and senders that are killed, and what goes on after.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::path::Path;

use common::judge::*;
use common::link::Link;
use common::sender::*;
use common::*;

/// A tree of small files and a large one, with what is put in place at the end.
fn make_job(top: &Path, large: usize) {
    for index in 0..400 {
        write(&top.join(format!("d{}/small {index}", index % 7)), noise(3000, index));
    }
    write(&top.join("large"), noise(large, 1000));
    std::os::unix::fs::symlink("large", top.join("link")).unwrap();
    fs::hard_link(top.join("large"), top.join("twin")).unwrap();
    for index in 0..7 {
        set_mode(&top.join(format!("d{index}")), 0o750);
        set_mtime(&top.join(format!("d{index}")), 1_600_000_000, 7);
    }
}

/// Files that are there whole, in a tree that changes meanwhile.
fn files_in(top: &Path) -> usize {
    let Ok(entries) = fs::read_dir(top) else { return 0 };
    let count = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files_in(&entry.path()),
        Ok(kind) => usize::from(kind.is_file() && !entry.file_name().as_encoded_bytes().starts_with(b".ptf-")),
        Err(_) => 0,
    };
    entries.flatten().map(count).sum()
}

/// The large file alone, as it is received.
fn incoming_bytes(top: &Path) -> u64 {
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    let is_journal = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().ends_with(b"j");
    let journals = entries.filter(is_journal).map(|entry| entry.metadata().map_or(0, |metadata| metadata.len()));
    // A journal has 16 bytes for each block of 64 KiB.
    journals.sum::<u64>() / 16 * 65_536
}

// E05, E07
#[test]
fn the_same_command_again_sends_no_more_than_what_was_not_confirmed() {
    for killed in ["send", "recv", "both"] {
        let (source, root, state) = (temp_dir(), temp_dir(), temp_dir());
        let size = 24_000_000;
        write(&source.path().join("large"), noise(size, 1));
        let (mut recv, _) = recv_with_key(root.path(), state.path(), 0);
        let flags = ["--length", "1M", "--bwlimit", "20M", "--retry_for", "1s"];
        let sender = Sender::start(&mut send_to(recv.port, source.path(), "in", &flags));
        wait_until("half of it has come", || incoming_bytes(&recv.path("in")) > size as u64 / 2);
        if killed != "send" {
            recv.process.signal("KILL");
            recv.process.wait();
        }
        if killed != "recv" {
            drop(sender);
        } else {
            assert_eq!(sender.wait().code, Some(1));
        }
        if killed != "send" {
            (recv, _) = recv_with_key(root.path(), state.path(), recv.port);
        }
        let link = Link::to(recv.port);
        let ended = Ended::of(&mut send_to(link.port, source.path(), "in", &["--length", "1M"])).expect(0);
        assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
        let (sent, resumed) = (link.forth(), ended.number("resumed_bytes"));
        // A connection holds one range that is not confirmed.
        assert!(resumed > size as u64 / 3, "{killed}: {resumed}");
        assert!(sent < size as u64 - resumed + 100_000, "{killed}: {sent} {resumed}");
        assert_eq!(leftovers(root.path()), [""; 0]);
    }
}

// E07
#[test]
fn a_receiver_that_is_started_again_while_a_run_goes_on_gets_the_rest() {
    for flags in [&["--process_num", "1"][..], &["--process_num", "2", "--thread_num", "1"]] {
        let (source, root, state) = (temp_dir(), temp_dir(), temp_dir());
        make_job(source.path(), 12_000_000);
        let (mut recv, _) = recv_with_key(root.path(), state.path(), 0);
        let port = recv.port;
        let flags = [flags, &["--length", "1M", "--bwlimit", "6M"]].concat();
        let sender = Sender::start(&mut send_to(port, source.path(), "in", &flags));
        for reached in [5, 100, 300] {
            wait_until("some files have arrived", || files_in(&recv.path("in")) >= reached);
            recv.process.signal("KILL");
            recv.process.wait();
            (recv, _) = recv_with_key(root.path(), state.path(), port);
        }
        sender.wait().expect(0);
        assert_kept_in(source.path(), &recv.path("in"), |path| path.to_str().unwrap().contains(".ptf-"));
    }
}

/// Makes what the receiver knows of this boot look like another's, in which nothing was synced.
fn lose_power(state: &Path) {
    let entries = fs::read_dir(state).unwrap().flatten().map(|entry| entry.path());
    let file = entries.into_iter().find(|path| path.file_name().unwrap().as_encoded_bytes().starts_with(b"syncs-")).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let boot = format!("boot {}", "0".repeat(32));
    write(&file, [lines[0], &boot, "synced 1 0", ""].join("\n"));
}

// E06
#[test]
fn what_may_not_have_reached_the_disk_is_hashed_before_it_counts_as_there() {
    let (source, root, state) = (temp_dir(), temp_dir(), temp_dir());
    for (name, len) in [("small", 1000), ("large", 2_000_000), ("damaged", 3000), ("damaged large", 3_000_000)] {
        write(&source.path().join("d").join(name), noise(len, len as u64));
    }
    let (mut recv, _) = recv_with_key(root.path(), state.path(), 0);
    let send = |port| Ended::of(&mut send_to(port, source.path(), "in", &["--length", "1M"])).expect(0);
    send(recv.port);
    recv.process.signal("KILL");
    recv.process.wait();
    for name in ["damaged", "damaged large"] {
        let (file, from) = (recv.path("in/d").join(name), source.path().join("d").join(name));
        let mut bytes = fs::read(&file).unwrap();
        bytes[2_999] ^= 1;
        fs::write(&file, bytes).unwrap();
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(fs::metadata(from).unwrap().modified().unwrap())
            .unwrap();
    }
    lose_power(state.path());
    (recv, _) = recv_with_key(root.path(), state.path(), recv.port);
    let link = Link::to(recv.port);
    let ended = send(link.port);
    assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
    assert_eq!(ended.number("unchanged_files"), 2, "{}", ended.json);
    assert!((3_000_000..3_100_000).contains(&link.forth()), "{} bytes", link.forth());
    // What was hashed or sent since is not in doubt any more.
    let link = Link::to(recv.port);
    assert_eq!(send(link.port).number("unchanged_files"), 4);
    assert!(link.forth() < 20_000);
/// The digests of all files of a tree, a line each, as a manifest has them.
fn digests_of(top: &Path) -> Vec<String> {
    let files = list(top).into_iter().filter(|name| fs::symlink_metadata(top.join(name)).unwrap().is_file());
    let mut lines: Vec<String> =
        files.map(|name| format!("{}  {name}", blake3::hash(&fs::read(top.join(&name)).unwrap()))).collect();
    lines.sort();
    lines
}

fn lines_of(manifest: &Path) -> Vec<String> {
    let mut lines: Vec<String> = fs::read_to_string(manifest).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

// E06, E07
#[test]
fn a_manifest_names_every_file_once_of_which_a_part_was_there_or_that_another_attempt_had_sent() {
    for killed in ["send", "recv"] {
        let (source, root, state) = (temp_dir(), temp_dir(), temp_dir());
        (0..50).for_each(|index| write(&source.path().join(format!("a/small {index}")), noise(3000, index)));
        let size = 12_000_000;
        write(&source.path().join("large"), noise(size, 1));
        let manifest = state.path().join("manifest");
        let (mut recv, _) = recv_with_key(root.path(), state.path(), 0);
        let flags = ["--length", "1M", "--bwlimit", "20M", "--manifest", manifest.to_str().unwrap()];
        let command = || send_to(recv.port, source.path(), "in", &flags);
        let (mut first, mut second) = (command(), command());
        let mut sender = Sender::start(&mut first);
        let is_half_there = || incoming_bytes(&root.path().join("in")) > size as u64 / 2;
        wait_until("half of it and the others have come", || is_half_there() && files_in(&root.path().join("in")) == 50);
        if killed == "send" {
            drop(sender);
            sender = Sender::start(&mut second);
        } else {
            recv.process.signal("KILL");
            recv.process.wait();
            (recv, _) = recv_with_key(root.path(), state.path(), recv.port);
        }
        let ended = sender.wait().expect(0);
        assert!(ended.number("resumed_bytes") > size as u64 / 3, "{killed}: {}", ended.json);
        assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
        assert_eq!(lines_of(&manifest), digests_of(source.path()), "{killed}");
    }
}
