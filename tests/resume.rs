//! Nothing is sent twice, nothing is lost: receivers and senders that are killed, and what goes on after.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use common::job::*;
use common::journal::*;
use common::judge::*;
use common::link::Link;
use common::mount::*;
use common::sender::*;
use common::*;

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
}

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
        // Digests of BLAKE3 are twice as long. Of the small ones some have come by now, or all.
        wait_until("half of it has come", || incoming_bytes(&root.path().join("in")) / 2 > size as u64 / 2);
        if killed == "send" {
            drop(sender);
            sender = Sender::start(&mut second);
        } else {
            recv.process.signal("KILL");
            recv.process.wait();
            (recv, _) = recv_with_key(root.path(), state.path(), recv.port);
        }
        let ended = sender.wait().expect(0);
        // Where one run goes on, what it had sent itself does not count.
        assert!(killed == "recv" || ended.number("resumed_bytes") > size as u64 / 3, "{killed}: {}", ended.json);
        assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
        assert_eq!(lines_of(&manifest), digests_of(source.path()), "{killed}");
    }
}

const SIZE: usize = 8_000_000;

/// Bytes of blocks of a file of that size, of which the last block may be one.
fn bytes_of<'a>(blocks: impl IntoIterator<Item = &'a u64>) -> u64 {
    blocks.into_iter().map(|offset| BLOCK.min(SIZE as u64 - offset)).sum()
}

/// A file of which a part is there, with a journal, and nobody who sends or receives it.
struct Part {
    source: TempDir,
    root: TempDir,
    state: TempDir,
}

impl Part {
    fn of(content: &[u8]) -> Self {
        let (source, root, state) = (temp_dir(), temp_dir(), temp_dir());
        write(&source.path().join("large"), content);
        let (mut recv, _) = recv_with_key(root.path(), state.path(), 0);
        let flags = ["--length", "1M", "--bwlimit", "5M"];
        let sender = Sender::start(&mut send_to(recv.port, source.path(), "in", &flags));
        wait_until("half of it has come", || incoming_bytes(&recv.path("in")) > SIZE as u64 / 2);
        drop(sender);
        recv.process.signal("KILL");
        recv.process.wait();
        Self { source, root, state }
    }

    fn journal(&self) -> JournalFile {
        JournalFile::in_folder(&self.root.path().join("in"))
    }

    /// Sends the rest: all but so much, which is found to be there.
    fn expect_resumed(&self, bytes: u64) {
        let (mut recv, _) = recv_with_key(self.root.path(), self.state.path(), 0);
        let link = Link::to(recv.port);
        let ended = Ended::of(&mut send_to(link.port, self.source.path(), "in", &["--length", "1M"])).expect(0);
        assert_kept(self.source.path(), &recv.path("in"), is_root(), |_| false);
        assert_eq!(ended.number("resumed_bytes"), bytes, "{}", ended.json);
        let (sent, rest) = (link.forth(), SIZE as u64 - bytes);
        assert!(sent >= rest && sent < rest + 100_000, "{sent} instead of {rest}");
        assert_eq!(leftovers(self.root.path()), [""; 0]);
        recv.expect_idle();
    }
}

// E06
#[test]
fn what_came_before_another_boot_is_hashed_and_only_what_is_damaged_comes_again() {
    for damaged_num in [0, 1, 5] {
        let part = Part::of(&noise(SIZE, 1));
        let mut journal = part.journal();
        let blocks = journal.blocks();
        let data = fs::OpenOptions::new().read(true).write(true).open(journal.data()).unwrap();
        // Not two that are neighbours.
        let damaged: BTreeSet<u64> = blocks.iter().copied().step_by(9).take(damaged_num).collect();
        for offset in &damaged {
            let mut byte = [0];
            data.read_exact_at(&mut byte, offset + 77).unwrap();
            data.write_all_at(&[byte[0] ^ 1], offset + 77).unwrap();
        }
        journal.set_boot([7; 16]);
        journal.store(0);
        part.expect_resumed(bytes_of(blocks.difference(&damaged)));
    }
}

// C17 E06: killed when it had its mode and not its name.
#[test]
fn a_file_that_has_its_own_mode_already_is_gone_on_with() {
    let part = Part::of(&noise(SIZE, 1));
    let journal = part.journal();
    let Some(mut command) = as_nobody(env!("CARGO_BIN_EXE_recv"), part.state.path()) else {
        println!("SKIPPED C17 (a mode that keeps out): this user can't become another");
        return;
    };
    set_mode(&journal.data(), 0o000);
    if is_root() {
        expect_code(Command::new("chown").args(["-R", "65534:65534"]).args([part.root.path(), part.state.path()]), 0);
    }
    let (recv, _) = recv_with_line(command.args(["--port", "0"]), part.root.path());
    let ended = Ended::of(&mut send_to(recv.port, part.source.path(), "in", &["--length", "1M"])).expect(0);
    assert_eq!(ended.number("resumed_bytes"), bytes_of(&journal.blocks()), "{}", ended.json);
    assert_same(part.source.path(), &recv.path("in"));
    assert_eq!(leftovers(part.root.path()), [""; 0]);
}

// E06
#[test]
fn a_journal_counts_up_to_where_it_is_torn() {
    for is_nearly_whole in [true, false] {
        let part = Part::of(&noise(SIZE, 1));
        let mut journal = part.journal();
        journal.store(if is_nearly_whole { 1 } else { journal.last_len() - 1 });
        journal.pop();
        part.expect_resumed(bytes_of(&journal.blocks()));
    }
}

// E06
#[test]
fn a_journal_of_another_version_says_nothing() {
    let part = Part::of(&noise(SIZE, 1));
    let mut journal = part.journal();
    journal.set_version(2);
    journal.store(0);
    part.expect_resumed(0);
}

// C20, E07
#[test]
fn a_source_that_changes_between_two_runs_never_ends_up_mixed() {
    let part = Part::of(&noise(SIZE, 1));
    let file = part.source.path().join("large");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    // The same file, its size and its time.
    let changed = noise(SIZE, 2);
    fs::write(&file, &changed).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    let recv = Recv::start(part.root.path());
    let ended = Ended::of(&mut send_to(recv.port, part.source.path(), "in", &["--length", "1M"])).expect(0);
    assert_eq!(ended.number("resumed_bytes"), 0, "{}", ended.json);
    assert!(fs::read(recv.path("in/large")).unwrap() == changed);
}

// D11
#[test]
fn a_disk_that_fills_up_keeps_what_arrived_and_the_old_files_and_the_rest_comes_when_there_is_room() {
    let (source, root) = (temp_dir(), temp_dir());
    let disk = root.path().join("disk");
    let Some(mount) = Mount::new(&disk, "size=9m", "D11 (then room)") else { return };
    let (len, old) = (2_000_000, noise(300_000, 99));
    for index in 0..6 {
        write(&source.path().join(format!("f{index}")), noise(len, index));
        write(&disk.join(format!("f{index}")), &old);
    }
    let mut recv = Recv::start(root.path());
    let flags = ["--length", "300K", "--process_num", "1", "--thread_num", "1"];
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "disk", &flags)).expect(3);
    assert!(ended.said.contains("No space left on device"), "{}", ended.said);
    let failed = ended.failed();
    assert!((1..6).contains(&failed.len()), "{failed:?}");
    for name in list(source.path()) {
        let there = fs::read(disk.join(&name)).unwrap();
        let expected = if failed.contains(&name) { old.clone() } else { fs::read(source.path().join(&name)).unwrap() };
        assert!(there == expected, "{name}");
    }
    mount.set_options("size=64m");
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "disk", &flags)).expect(0);
    assert_eq!(ended.sent(), (failed.len() * len) as u64, "{}", ended.json);
    assert_kept_in(source.path(), &disk, |_| false);
    assert_eq!(leftovers(&disk), [""; 0]);
    recv.expect_idle();
}
