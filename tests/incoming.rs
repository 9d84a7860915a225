//! What interrupted runs leave under temporary names: found again by the index in the state folder, gone
//! on with, removed in time, shown and removed by `recv incoming`; and nothing else is ever touched.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::judge::*;
use common::link::Link;
use common::mount::Mount;
use common::sender::*;
use common::yard::expect_printable;
use common::*;
use serde_json::Value;

const LARGE: usize = 8_000_000;

/// A file that comes in one piece and one that comes in several, held half-way. The small one has a name
/// of its receiver's alone; the large one a name of its own, and a journal.
struct Held {
    source: TempDir,
    into: String,
    links: [Link; 2],
    senders: Vec<Sender>,
}

impl Held {
    fn start(recv: &Recv, into: &str) -> Self {
        let source = temp_dir();
        write(&source.path().join("small"), noise(1_000_000, 1));
        write(&source.path().join("large"), noise(LARGE, 2));
        let links = [Link::holding(recv.port, 300_000), Link::holding(recv.port, LARGE as u64 / 2)];
        let folder = recv.path(into);
        let (before, before_len) = (leftovers(&recv.root).len(), journal_len(&folder));
        let send = |link: &Link, name: &str, flags: &[&str]| {
            let flags = [&["--plain", "--retry_for", "1s", "--process_num", "1", "--thread_num", "1"], flags].concat();
            Sender::start(&mut send_to(link.port, &source.path().join(name), into, &flags))
        };
        let senders = vec![send(&links[0], "small", &[]), send(&links[1], "large", &["--length", "1M"])];
        let is_there = || leftovers(&recv.root).len() == before + 3 && journal_len(&folder) > before_len + 400;
        wait_until("both are half there", is_there);
        Self { source, into: into.to_owned(), links, senders }
    }

    /// Lets both go on to their end.
    fn finish(mut self, root: &Path) {
        self.links.iter().for_each(Link::release);
        self.senders.drain(..).for_each(|sender| _ = sender.wait().expect(0));
        assert_same(self.source.path(), &root.join(&self.into));
    }

    /// Sends both again; gives the bytes of the large one that were there.
    fn send_again(&self, recv: &Recv) -> u64 {
        let ended = Ended::of(&mut send_to(recv.port, self.source.path(), &self.into, &["--length", "1M"])).expect(0);
        assert_same(self.source.path(), &recv.path(&self.into));
        ended.number("resumed_bytes")
    }
}

/// Bytes of the journals in a folder.
fn journal_len(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let journals = entries.filter(|entry| entry.file_name().as_bytes().ends_with(b"j"));
    journals.map(|journal| journal.metadata().map_or(0, |metadata| metadata.len())).sum()
}

fn indexes(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state).unwrap().flatten();
    entries.filter(|entry| entry.file_name().as_bytes().starts_with(b"incoming-")).map(|entry| entry.path()).collect()
}

fn kill(recv: &mut Recv) {
    recv.process.signal("KILL");
    recv.process.wait();
}

fn end(mut recv: Recv) {
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(0), "{}", recv.process.log());
}

fn start(root: &Path, state: &Path, flags: &[&str]) -> Recv {
    Recv::start_with(root, &[&["--state_dir", state.to_str().unwrap()], flags].concat())
}

/// A receiver that was killed with both kinds half there.
fn interrupted(root: &Path, state: &Path) -> Held {
    let mut recv = start(root, state, &[]);
    let mut held = Held::start(&recv, "in");
    kill(&mut recv);
    held.senders.clear();
    held
}

fn incoming(state: &Path, args: &[&str]) -> String {
    text(&expect_code(recv_command().arg("incoming").args(args).arg("--state_dir").arg(state), 0).stdout)
}

/// What `recv incoming list` says, by size.
fn listed(state: &Path, args: &[&str]) -> Vec<Value> {
    let json: Value = serde_json::from_str(&incoming(state, &[&["list", "--json"], args].concat())).unwrap();
    let mut files = json["incoming"].as_array().unwrap().clone();
    files.sort_by_key(|file| file["size"].as_u64());
    files
}

// E06 E07
#[test]
fn what_can_not_be_gone_on_with_goes_at_the_next_start_and_the_rest_is_gone_on_with() {
    let (root, state) = (temp_dir(), temp_dir());
    let held = interrupted(root.path(), state.path());
    assert_eq!((leftovers(root.path()).len(), indexes(state.path()).len()), (3, 1));
    // What stays is handed on from one process to the next, in order or not.
    for _ in 0..2 {
        let recv = start(root.path(), state.path(), &[]);
        wait_until("the small one is gone", || leftovers(root.path()).len() == 2);
        wait_until("the index of the killed one is gone", || indexes(state.path()).len() == 1);
        end(recv);
        assert_eq!((leftovers(root.path()).len(), indexes(state.path()).len()), (2, 1));
    }
    let recv = start(root.path(), state.path(), &[]);
    assert!(held.send_again(&recv) > LARGE as u64 / 4);
    assert_eq!(leftovers(root.path()), [""; 0]);
    end(recv);
    assert_eq!(indexes(state.path()), [""; 0].map(PathBuf::from));
}

#[test]
fn what_nobody_went_on_with_for_long_goes() {
    for (flags, is_old) in [(&["--keep_incoming", "1ms"][..], false), (&[], true), (&["--keep-incoming", "8d"], true)] {
        let (root, state) = (temp_dir(), temp_dir());
        let held = interrupted(root.path(), state.path());
        let large =
            fs::read_dir(root.path().join("in")).unwrap().flatten().find(|entry| entry.metadata().unwrap().len() == LARGE as u64);
        if is_old {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            set_mtime(&large.unwrap().path(), (now - 7 * 24 * 3600 - 10).cast_signed(), 0);
        }
        let stays = flags.contains(&"8d");
        let recv = start(root.path(), state.path(), flags);
        wait_until("the index of the killed one is gone", || indexes(state.path()).len() == 1);
        assert_eq!(leftovers(root.path()).len(), if stays { 2 } else { 0 }, "{flags:?}");
        assert_eq!(held.send_again(&recv) > 0, stays);
        end(recv);
        assert_eq!(indexes(state.path()).len(), 0, "{flags:?}");
    }
}

// C11
#[test]
fn incoming_files_are_listed_and_those_that_nobody_receives_are_removed_when_asked() {
    let (root, state) = (temp_dir(), temp_dir());
    let top = root.path().join("ro\x1bot");
    fs::create_dir(&top).unwrap();
    let old = interrupted(&top, state.path());
    let files = listed(state.path(), &[]);
    let about =
        |file: &Value| (file["size"].as_u64().unwrap(), file["in_use"].as_bool().unwrap(), file["bytes"].as_u64().unwrap() > 0);
    let [small, large] = &files[..] else { panic!("{files:?}") };
    assert!(about(large) == (LARGE as u64, false, true) && !about(small).1 && !about(small).2, "{files:?}");
    assert!(large["target"].as_str().unwrap().ends_with("ro\\u{1b}ot/in/large"), "{large}");
    expect_printable(&incoming(state.path(), &["list"]));
    // Another root's are not these; too young ones are not old.
    let elsewhere = temp_dir();
    assert_eq!(listed(state.path(), &["--root", elsewhere.path().to_str().unwrap()]).len(), 0);
    assert_eq!(incoming(state.path(), &["clean", "--root", elsewhere.path().to_str().unwrap()]), "");
    assert_eq!(incoming(state.path(), &["clean", "--older", "1h"]), "");
    assert_eq!(leftovers(&top).len(), 3);
    // Of a second receiver all is in use.
    let recv = start(elsewhere.path(), state.path(), &[]);
    let held = Held::start(&recv, "in");
    let files = listed(state.path(), &["--root", elsewhere.path().to_str().unwrap()]);
    assert!(files.len() == 2 && files.iter().all(|file| file["in_use"] == true), "{files:?}");
    assert!(incoming(state.path(), &["list"]).contains("in use"));
    let said = incoming(state.path(), &["clean"]);
    assert_eq!((said.lines().count(), said.matches("removed ").count()), (2, 2), "{said}");
    expect_printable(&said);
    assert_eq!((leftovers(&top).len(), leftovers(elsewhere.path()).len()), (0, 3));
    held.finish(elsewhere.path());
    end(recv);
    assert_eq!(incoming(state.path(), &["list"]), "");
    assert_eq!(indexes(state.path()).len(), 0);
    drop(old);
}

// C16
#[test]
fn receivers_of_one_root_let_one_anothers_files_be() {
    let (root, states) = (temp_dir(), [temp_dir(), temp_dir()]);
    // The second is known to the third by its index, or not at all.
    for of_second in [0, 1] {
        let mut first = start(root.path(), states[0].path(), &[]);
        let mut lost = Held::start(&first, "lost");
        let second = start(root.path(), states[of_second].path(), &["--keep_incoming", "1ms"]);
        let held = Held::start(&second, "held");
        // Beside those of the first as well.
        let shared = Held::start(&second, "lost");
        assert_eq!(leftovers(root.path()).len(), 9);
        kill(&mut first);
        lost.senders.clear();
        let third = start(root.path(), states[0].path(), &["--keep_incoming", "1ms"]);
        wait_until("the first one's are gone", || leftovers(root.path()).len() == 6);
        held.finish(root.path());
        shared.finish(root.path());
        assert_eq!(leftovers(root.path()), [""; 0]);
        [second, third].into_iter().for_each(end);
        assert!(states.iter().all(|state| indexes(state.path()).is_empty()));
        fs::remove_dir_all(root.path().join("lost")).unwrap();
        fs::remove_dir_all(root.path().join("held")).unwrap();
    }
}

/// An index as it is on the disk: header and records, each chained to the one before.
fn index(root: &[u8], folders: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [b"PTFI\x01", &[7; 16][..], &(root.len() as u16).to_be_bytes(), root].concat();
    let mut check = parallel_transfer::digest::check(&bytes, 0);
    bytes.extend_from_slice(&check.to_be_bytes());
    for folder in folders {
        let record = [&(folder.len() as u16 + 1).to_be_bytes()[..], &[1], folder].concat();
        check = parallel_transfer::digest::check(&record, check);
        bytes.extend([&record[..], &check.to_be_bytes()].concat());
    }
    bytes
}

// C01 C03 C09
#[test]
fn an_index_of_evil_leads_nowhere_and_nothing_but_leftovers_is_touched() {
    let (outer, state) = (temp_dir(), temp_dir());
    let root = outer.path().join("root");
    let half = "0123456789abcdef";
    let ours = |counter: u32| format!(".ptf-{half}{counter:016x}");
    let old = |path: PathBuf| {
        write(&path, "x");
        set_mtime(&path, 5, 0);
    };
    for place in ["root/in", "outside/deep"] {
        fs::create_dir_all(outer.path().join(place)).unwrap();
    }
    for place in ["", "outside", "outside/deep", "outside/root2", "root/elsewhere"] {
        old(outer.path().join(place).join(ours(1)));
    }
    // They merely look like temporary ones, or are no files.
    let at = |name: &str| root.join("in").join(name);
    let digits = "0123456789ABCDEF";
    for name in [
        ".ptf-",
        ".ptf-0123",
        "file",
        &format!(".ptf-{digits}{digits}"),
        &format!("{}jj", ours(1)),
        &format!("{}k", ours(1)),
        &ours(1)[1..],
    ] {
        old(at(name));
    }
    fs::create_dir(at(&ours(2))).unwrap();
    fs::create_dir(at(&format!("{}j", ours(3)))).unwrap();
    symlink("file", at(&ours(4))).unwrap();
    symlink("../../outside/deep", at(&ours(5))).unwrap();
    symlink("file", at(&format!("{}j", ours(6)))).unwrap();
    make_fifo(&at(&ours(7)));
    old(at(&format!("{}j", ours(7))));
    symlink("../outside", root.join("link")).unwrap();
    write(&root.join("no folder"), "");
    let all = |top: &Path| (list(top), look_at_all(&top.join("outside"), false), look_at_all(&top.join("root/in"), false));
    let mut before = all(outer.path());
    // These alone are leftovers.
    write(&at(&ours(8)), "small");
    for name in [format!(".ptf-{half}{half}"), format!(".ptf-{half}{half}j"), format!(".ptf-{}j", "5".repeat(32))] {
        old(at(&name));
    }
    let path = root.canonicalize().unwrap();
    let path = path.as_os_str().as_bytes();
    let folders: &[&[u8]] =
        &[b"..", b"../..", b"../outside", b"/", b"link", b"link/deep", b"in/../..", b"no folder", b"gone/deep", b"a\0b", b"in"];
    let name = |number: &str| state.path().join(format!("incoming-{}{number}", &half[number.len()..]));
    write(&state.path().join(format!("incoming-{half}")), index(path, folders));
    write(&name("1"), noise(5000, 1));
    write(&name("2"), "");
    write(&name("3"), &index(path, &[b"in"])[..20]);
    write(&name("4"), index(b"relative", &[b"in"]));
    write(&name("5"), index(b"/", &[&path[1..]]));
    write(&name("6"), [&index(path, &[b"in"])[..], &index(path, &[b"../outside"])[40..]].concat());
    fs::create_dir(name("7")).unwrap();
    symlink(format!("incoming-{half}"), name("8")).unwrap();
    make_fifo(&name("9"));
    let foreign = [b"PTFI\x02", &noise(100, 7)[..]].concat();
    write(&name("a"), &foreign);
    let recv = start(&root, state.path(), &[]);
    let stays = ["5", "7", "8", "9", "a"].map(name);
    wait_until("the indexes are worked off", || indexes(state.path()).len() == stays.len() + 1);
    let look = |path: &PathBuf| path.symlink_metadata().is_ok();
    assert!(stays.iter().all(look) && fs::read(&stays[4]).unwrap() == foreign, "{:?}", indexes(state.path()));
    let mut after = all(outer.path());
    // Its own time is another: leftovers went.
    [&mut before, &mut after].into_iter().for_each(|(_, _, inside)| _ = inside.remove(Path::new("")));
    assert_eq!(before, after);
    expect_printable(&recv.process.log());
    // Nor does the command go where it should not.
    end(recv);
    write(&state.path().join(format!("incoming-{half}")), index(path, folders));
    incoming(state.path(), &["list"]);
    incoming(state.path(), &["clean", "--root", root.to_str().unwrap()]);
    let mut after = all(outer.path());
    after.2.remove(Path::new(""));
    assert_eq!(before, after);
}

// D14
#[test]
fn without_a_place_for_the_index_all_goes_on() {
    let (source, root, place) = (temp_dir(), temp_dir(), temp_dir());
    make_tree(source.path());
    let send = |recv: &Recv, into: &str| {
        Ended::of(&mut send_to(recv.port, source.path(), into, &["--length", "1M"])).expect(0);
        assert_same(source.path(), &recv.path(into));
        assert_eq!(recv.process.log().matches("no index of incoming files").count(), 1, "{}", recv.process.log());
    };
    let state = place.path().join("state");
    if let Some(mount) = Mount::new(&state, "size=1m", "D14") {
        end(start(root.path(), &state, &[]));
        mount.set_options("ro");
        let recv = start(root.path(), &state, &[]);
        send(&recv, "one");
        assert_eq!(incoming(&state, &["list"]), "");
        end(recv);
    }
    // One that serves a single job has no key in it.
    write(&place.path().join("file"), "");
    let below_file = place.path().join("file/state");
    let (mut recv, ticket) =
        recv_with_line(recv_command().args(["--port", "0", "--once", "--state_dir"]).arg(below_file), root.path());
    expect_code(&mut send_ticket(place.path(), ticket.strip_prefix("ticket ").unwrap(), source.path(), &[]), 0);
    assert_eq!(recv.process.wait(), Some(0));
    assert_eq!(recv.process.log().matches("no index of incoming files").count(), 1, "{}", recv.process.log());
    // Without a home that is as it should be.
    let homeless = |mut command: Command| {
        command.env_remove("HOME").env_remove("XDG_STATE_HOME");
        command
    };
    for (flags, said) in [(&[][..], 0), (&["-v"], 1)] {
        let mut command = homeless(recv_command());
        let (mut recv, ticket) = recv_with_line(command.args(["--port", "0", "--once"]).args(flags), root.path());
        expect_code(&mut send_ticket(place.path(), ticket.strip_prefix("ticket ").unwrap(), source.path(), &[]), 0);
        assert_eq!(recv.process.wait(), Some(0));
        assert_eq!(recv.process.log().matches("no index of incoming files").count(), said, "{}", recv.process.log());
    }
    let target = root.path().join("local");
    expect_code(&mut homeless(copy_to(source.path(), &target, &[])), 0);
    assert_same(source.path(), &target);
    let said = expect_code(homeless(recv_command()).args(["incoming", "list"]), 1);
    assert!(text(&said.stderr).contains("name a folder with --state_dir"), "{}", text(&said.stderr));
    assert_eq!(incoming(&place.path().join("nowhere"), &["list"]), "");
    expect_code(recv_command().args(["incoming"]), 2);
    expect_code(recv_command().args(["--port", "0", "incoming", "list"]), 2);
}

#[test]
fn a_root_that_was_renamed_is_named_and_looked_after_when_it_is_back() {
    let (outer, state) = (temp_dir(), temp_dir());
    let [root, moved] = ["root", "moved"].map(|name| outer.path().join(name));
    fs::create_dir(&root).unwrap();
    let mut recv = start(&root, state.path(), &[]);
    let mut held = Held::start(&recv, "in");
    fs::rename(&root, &moved).unwrap();
    kill(&mut recv);
    held.senders.clear();
    let said = expect_code(recv_command().args(["incoming", "clean", "--state_dir"]).arg(state.path()), 0);
    assert!(text(&said.stdout).is_empty() && text(&said.stderr).contains("can't look through"), "{said:?}");
    // Another one in its place has nothing of it; there is no more to be known.
    end(start(&moved, state.path(), &["--keep_incoming", "1ms"]));
    assert_eq!((leftovers(&moved).len(), indexes(state.path()).len()), (3, 1));
    fs::rename(&moved, &root).unwrap();
    let recv = start(&root, state.path(), &[]);
    wait_until("the small one is gone", || leftovers(&root).len() == 2);
    assert!(held.send_again(&recv) > 0);
    end(recv);
    assert_eq!(indexes(state.path()).len(), 0);
}

#[test]
fn the_local_copy_has_an_index_too() {
    let (source, root, home) = (temp_dir(), temp_dir(), temp_dir());
    write(&source.path().join("large"), noise(LARGE, 2));
    let state = home.path().join("parallel-transfer");
    let copy = |flags: &[&str]| {
        let mut command = copy_to(source.path(), &root.path().join("in"), &[&["--length", "1M"], flags].concat());
        command.env("XDG_STATE_HOME", home.path());
        command
    };
    expect_code(copy(&["--dry_run"]).stdin(std::process::Stdio::null()), 0);
    assert!(!state.exists());
    let mut sender = Sender::start(&mut copy(&["--bwlimit", "4M"]));
    wait_until("some of it is there", || journal_len(&root.path().join("in")) > 400);
    assert_eq!(listed(&state, &[]).iter().map(|file| file["in_use"].clone()).collect::<Vec<_>>(), [true]);
    sender.child.kill().unwrap();
    sender.child.wait().unwrap();
    assert_eq!(listed(&state, &[]).iter().map(|file| file["in_use"].clone()).collect::<Vec<_>>(), [false]);
    let ended = Ended::of(&mut copy(&[])).expect(0);
    assert!(ended.number("resumed_bytes") > 0);
    assert_same(source.path(), &root.path().join("in"));
    assert_eq!((leftovers(root.path()).len(), indexes(&state).len()), (0, 0));
}

#[test]
fn a_folder_is_recorded_once_however_many_files_come_to_it() {
    let (source, root, state) = (temp_dir(), temp_dir(), temp_dir());
    for index in 0..300 {
        write(&source.path().join(format!("{}/{index}", index % 3)), noise(100, index));
    }
    let recv = start(root.path(), state.path(), &[]);
    for into in ["one", "one", "two"] {
        expect_code(&mut send_to(recv.port, source.path(), into, &[]), 0);
    }
    let names: [&[u8]; 6] = [b"one/0", b"one/1", b"one/2", b"two/0", b"two/1", b"two/2"];
    let path = root.path().canonicalize().unwrap();
    let expected = index(path.as_os_str().as_bytes(), &names).len();
    let [found] = &indexes(state.path())[..] else { panic!() };
    assert_eq!(fs::read(found).unwrap().len(), expected);
    assert_eq!(listed(state.path(), &[]).len(), 0);
    end(recv);
    assert_eq!(indexes(state.path()).len(), 0);
}
