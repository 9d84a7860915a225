//! What arrives equals what was there, and what can't arrive is named: `send` to `recv`, and the local copy.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a test is no peer, and says what it skips")]
mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, Read as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use common::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use serde_json::Value;

/// How a run ended: its exit code, its JSON object and its standard error.
struct Ended {
    code: Option<i32>,
    json: Value,
    stderr: String,
}

impl Ended {
    fn of(command: &mut Command) -> Self {
        let output = run(command.arg("--json"));
        let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Self { code: output.status.code(), json, stderr: text(&output.stderr) }
    }

    /// The entries named as failed, escaped as they are shown.
    fn failed(&self) -> BTreeSet<String> {
        let failures = self.json["failures"].as_array().into_iter().flatten();
        failures.map(|failure| failure["path"].as_str().unwrap().to_owned()).collect()
    }

    /// Fails unless these entries failed, each named on both streams, and the rest did not.
    fn expect_partial(&self, names: &[&str]) {
        let expected: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(self.failed(), expected, "{}", self.stderr);
        assert_eq!((self.code, self.json["exit_code"].as_i64()), (Some(3), Some(3)), "{}", self.stderr);
        assert_eq!(self.json["failed"], names.len());
        for name in names {
            assert!(self.stderr.contains(name), "'{name}' is not in: {}", self.stderr);
        }
    }
}

/// The local copy.
fn copy_to(file: &Path, target: &Path, flags: &[&str]) -> Command {
    let mut command = send_command();
    command.arg("--file").arg(file).arg("--remote_dir").arg(target).args(flags);
    command
}

/// Sends to a receiver of its own and copies on this machine; shows `judge` both results.
fn send_and_copy(file: &Path, flags: &[&str], code: i32, judge: impl Fn(&Path)) {
    let (root, local) = (temp_dir(), temp_dir());
    let mut recv = Recv::start(root.path());
    expect_code(&mut send_v1(recv.port, file, "/in", flags), code);
    judge(&recv.path("in"));
    recv.expect_idle();
    expect_code(&mut copy_to(file, &local.path().join("in"), flags), code);
    judge(&local.path().join("in"));
}

fn make_fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
}

#[test]
fn a_tree_arrives_as_it_was_however_it_is_cut_and_shared_out() {
    let source = temp_dir();
    make_tree(source.path());
    for flags in [
        &[][..],
        &["--length", "10000", "--process_num", "1", "--thread_num", "1"],
        &["--length", "65536", "--process_num", "2", "--thread_num", "5"],
        &["--length", "1M", "--process-num", "3", "--thread-num", "1"],
        &["--length", "3000000"],
        &["--length", "9223372036854775808"],
    ] {
        send_and_copy(source.path(), flags, 0, |target| assert_same(source.path(), target));
    }
}

// F01
#[test]
fn ranges_of_one_byte_arrive() {
    let source = temp_dir();
    for (index, len) in [0, 1, 2, 100, 333].into_iter().enumerate() {
        write(&source.path().join(format!("d/f{len}")), noise(len, index as u64));
    }
    for flags in [&["--length", "1"][..], &["--length", "1", "--process_num", "2", "--thread_num", "2"]] {
        send_and_copy(source.path(), flags, 0, |target| assert_same(source.path(), target));
    }
}

// C19, C21
#[test]
fn a_single_file_an_empty_one_and_an_empty_folder_arrive() {
    let source = temp_dir();
    write(&source.path().join("single"), noise(200_000, 1));
    write(&source.path().join("void"), "");
    fs::create_dir(source.path().join("hollow")).unwrap();
    for name in ["single", "void"] {
        let file = source.path().join(name);
        send_and_copy(&file, &["--length", "60000"], 0, |target| {
            assert_eq!(list(target), [name]);
            assert_eq!(fs::read(target.join(name)).unwrap(), fs::read(&file).unwrap());
        });
    }
    send_and_copy(&source.path().join("hollow"), &[], 0, |target| assert_eq!(list(target), [""; 0]));
    let empty_files = temp_dir();
    for index in 0..100 {
        write(&empty_files.path().join(format!("{}/f{index}", index % 7)), "");
    }
    send_and_copy(empty_files.path(), &[], 0, |target| assert_same(empty_files.path(), target));
}

// C21
#[test]
fn a_source_may_be_written_in_any_way_that_leads_to_it() {
    let place = temp_dir();
    let tree = place.path().join("tree");
    make_tree(&tree);
    symlink(&tree, place.path().join("link")).unwrap();
    symlink(tree.join("one byte"), place.path().join("alias")).unwrap();
    let root = temp_dir();
    let recv = Recv::start(root.path());
    for (index, file) in ["tree/", "tree//", "./tree", "tree/.", "link", "link/", "tree/a/.."].into_iter().enumerate() {
        let remote = format!("in{index}");
        expect_code(send_v1(recv.port, Path::new(file), &remote, &[]).current_dir(place.path()), 0);
        assert_same(&tree, &recv.path(&remote));
    }
    for (index, file) in [".", "..", "../.", "../../tree"].into_iter().enumerate() {
        let (inside, remote) = (if index == 0 { tree.clone() } else { tree.join("a") }, format!("at{index}"));
        let inside = if file == "../../tree" { tree.join("a") } else { inside };
        expect_code(send_v1(recv.port, Path::new(file), &remote, &[]).current_dir(inside), 0);
        assert_same(&tree, &recv.path(&remote));
    }
    // The name is the one that was written, the content that of the file it leads to.
    expect_code(&mut send_v1(recv.port, &place.path().join("alias"), "one", &[]), 0);
    assert_eq!(fs::read(recv.path("one/alias")).unwrap(), fs::read(tree.join("one byte")).unwrap());
    expect_code(send_v1(recv.port, Path::new("one byte"), "two", &[]).current_dir(&tree), 0);
    assert_eq!(list(&recv.path("two")), ["one byte"]);
}

// C21, C09
#[test]
fn a_source_that_is_no_file_and_no_folder_is_refused_by_name() {
    let (source, root, local) = (temp_dir(), temp_dir(), temp_dir());
    let recv = Recv::start(root.path());
    make_fifo(&source.path().join("fifo"));
    write(&source.path().join("file"), "x");
    symlink("nowhere", source.path().join("dangling")).unwrap();
    symlink("loop", source.path().join("loop")).unwrap();
    let _socket = UnixListener::bind(source.path().join("socket")).unwrap();
    let paths = ["missing", "fifo", "socket", "dangling", "loop", "file/", "file/x", ""].map(|name| match name {
        "" => PathBuf::from("/dev/zero"),
        name => PathBuf::from(format!("{}/{name}", source.path().display())),
    });
    for path in paths {
        for command in
            [&mut send_v1(recv.port, &path, "in", &["--quiet"]), &mut copy_to(&path, &local.path().join("in"), &["--quiet"])]
        {
            let output = expect_code(command, 1);
            let said = text(&output.stderr);
            assert!(said.contains(path.to_str().unwrap()), "{}: {said}", path.display());
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
    assert_eq!(list(root.path()), [""; 0]);
    assert_eq!(list(local.path()), [""; 0]);
}

#[test]
fn a_second_send_keeps_the_old_file_as_a_backup() {
    let (source, root) = (temp_dir(), temp_dir());
    let long = "n".repeat(255);
    let recv = Recv::start(root.path());
    for content in ["old", "newer"] {
        write(&source.path().join("d/file"), content);
        write(&source.path().join(&long), content);
        expect_code(&mut send_v1(recv.port, source.path(), "in", &[]), 0);
        assert_eq!(fs::read_to_string(recv.path("in/d/file")).unwrap(), content);
        assert_eq!(fs::read_to_string(recv.path("in").join(&long)).unwrap(), content);
    }
    let backups = list(&recv.path("in"));
    let backup = backups.iter().find_map(|name| name.strip_prefix("d/file_")).unwrap();
    let (seconds, fraction) = backup.split_once('.').unwrap();
    assert!(seconds.parse::<u64>().unwrap() > 1_600_000_000 && fraction.parse::<u64>().is_ok(), "{backup}");
    assert_eq!(fs::read_to_string(recv.path("in/d").join(format!("file_{backup}"))).unwrap(), "old");
    // C10: the name of a backup gives way where there is no room for it.
    let other = backups.iter().find(|name| name.starts_with("nnn") && **name != long).unwrap();
    assert!(other.len() <= 255 && fs::read_to_string(recv.path("in").join(other)).unwrap() == "old");
    assert_eq!(backups.len(), 5);
}

// A22, C12, C09, C22
#[test]
fn what_v1_cannot_carry_is_named_and_left_out_and_the_rest_arrives() {
    let (source, expected, root) = (temp_dir(), temp_dir(), temp_dir());
    make_tree(source.path());
    make_tree(expected.path());
    let top = source.path();
    write(&top.join("a/line\nfeed"), "x");
    write(&top.join("folder\nfeed/in it"), "x");
    write(&top.join(OsStr::from_bytes(b"latin-\xe9")), "x");
    symlink("one byte", top.join("a/link")).unwrap();
    symlink("nowhere", top.join("dangling")).unwrap();
    symlink("..", top.join("a/loop")).unwrap();
    make_fifo(&top.join("a/fifo"));
    let _socket = UnixListener::bind(top.join("socket")).unwrap();
    let recv = Recv::start(root.path());
    let ended = Ended::of(&mut send_v1(recv.port, top, "in", &[]));
    let mut names = vec!["a/line\\nfeed", "latin-\\xe9", "a/link", "dangling", "a/loop", "a/fifo", "socket"];
    names.extend(["folder\\nfeed", "folder\\nfeed/in it"]);
    ended.expect_partial(&names);
    assert_same(expected.path(), &recv.path("in"));
    // Nothing of a failed entry is passed off as counted.
    assert_eq!(ended.json["files"], 10);
}

// C09, C22
#[test]
fn devices_in_a_tree_are_named_and_not_opened() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("good"), "x");
    let zero = rustix::fs::makedev(1, 5);
    if rustix::fs::mknodat(CWD, source.path().join("zero"), FileType::CharacterDevice, Mode::RUSR, zero).is_err() {
        eprintln!("SKIPPED C09: no right to make devices here");
        return;
    }
    let recv = Recv::start(root.path());
    Ended::of(&mut send_v1(recv.port, source.path(), "in", &[])).expect_partial(&["zero"]);
    assert_eq!(list(&recv.path("in")), ["good"]);
}

/// A copy of `send` that anyone may run, started by nobody in particular.
fn send_as_nobody(place: &Path) -> Command {
    let program = place.join("send");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_send"), &program).unwrap();
    }
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    command
}

// C15, C22
#[test]
fn what_may_not_be_read_or_written_is_named_and_the_rest_arrives() {
    let (place, source, root) = (temp_dir(), temp_dir(), temp_dir());
    for open in [&place, &source, &root] {
        fs::set_permissions(open.path(), Permissions::from_mode(0o777)).unwrap();
    }
    for name in ["good", "closed file", "closed folder/x", "d/locked/y", "d/good"] {
        write(&source.path().join(name), name);
    }
    for name in ["closed file", "closed folder"] {
        fs::set_permissions(source.path().join(name), Permissions::from_mode(0o000)).unwrap();
    }
    let in_the_way = root.path().join("in/d/locked");
    fs::create_dir_all(&in_the_way).unwrap();
    for (path, mode) in [("in", 0o777), ("in/d", 0o777), ("in/d/locked", 0o555)] {
        fs::set_permissions(root.path().join(path), Permissions::from_mode(mode)).unwrap();
    }
    let target = root.path().join("in");
    let mut command = send_as_nobody(place.path());
    if let Err(error) = command.arg("--version").output() {
        eprintln!("SKIPPED C15, C22: can't run as another user: {error}");
        return;
    }
    let mut command = send_as_nobody(place.path());
    let ended = Ended::of(command.arg("--file").arg(source.path()).arg("--remote_dir").arg(&target));
    // Folders of someone else are there, but their times can't be set.
    ended.expect_partial(&["closed file", "closed folder", "d", "d/locked", "d/locked/y"]);
    for name in ["good", "d/good"] {
        assert_eq!(fs::read_to_string(target.join(name)).unwrap(), name);
    }
    assert_eq!(list(&in_the_way), [""; 0]);
    // As the source itself.
    for name in ["closed file", "closed folder"] {
        let mut command = send_as_nobody(place.path());
        let output = expect_code(command.arg("--file").arg(source.path().join(name)).arg("--remote_dir").arg(&target), 1);
        assert!(text(&output.stderr).contains(name));
        fs::set_permissions(source.path().join(name), Permissions::from_mode(0o755)).unwrap();
    }
}

/// A relay that lets creations through and holds writes back until it is opened.
struct Gate {
    port: u16,
    opened: Arc<(Mutex<bool>, Condvar)>,
    holds: Arc<AtomicBool>,
}

impl Gate {
    fn before(recv: &Recv) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // What lies in buffers was read from the source: not much of it may be.
        socket2::SockRef::from(&listener).set_recv_buffer_size(65_536).unwrap();
        let gate = Self { port: listener.local_addr().unwrap().port(), opened: Arc::default(), holds: Arc::default() };
        let (opened, holds, upstream) = (Arc::clone(&gate.opened), Arc::clone(&gate.holds), recv.port);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (opened, holds) = (Arc::clone(&opened), Arc::clone(&holds));
                thread::spawn(move || {
                    let (stream, mut start) = (stream.unwrap(), [0]);
                    if stream.peek(&mut start).is_ok() && start == *b"w" {
                        holds.store(true, Ordering::SeqCst);
                        drop(opened.1.wait_while(opened.0.lock().unwrap(), |opened| !*opened));
                    }
                    let receiver = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
                    thread::scope(|scope| {
                        scope.spawn(|| forward(&receiver, &stream));
                        forward(&stream, &receiver);
                    });
                });
            }
        });
        gate
    }

    fn open(&self) {
        *self.opened.0.lock().unwrap() = true;
        self.opened.1.notify_all();
    }
}

fn forward(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let (_, _) = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}

/// What happens to a file, in words and in deed.
type Change = (&'static str, fn(&Path));

/// What may happen to a file that is being sent.
const CHANGES: [Change; 8] = [
    ("grows", |path| fs::write(path, [fs::read(path).unwrap(), vec![9]].concat()).unwrap()),
    ("shrinks", |path| fs::write(path, &fs::read(path).unwrap()[1..]).unwrap()),
    ("vanishes", |path| fs::remove_file(path).unwrap()),
    ("is replaced", |path| {
        let other = path.with_extension("new");
        fs::write(&other, vec![9; fs::read(path).unwrap().len()]).unwrap();
        fs::rename(other, path).unwrap();
    }),
    ("changes with the same size and mtime", |path| {
        let before = path.metadata().unwrap();
        fs::write(path, vec![9; fs::read(path).unwrap().len()]).unwrap();
        let time = Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
        assert_eq!(path.metadata().unwrap().modified().unwrap(), before.modified().unwrap());
    }),
    ("becomes a FIFO", |path| {
        fs::remove_file(path).unwrap();
        make_fifo(path);
    }),
    ("becomes a link", |path| {
        fs::remove_file(path).unwrap();
        symlink("/etc/passwd", path).unwrap();
    }),
    ("becomes a folder", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
];

// C20
#[test]
fn a_file_that_changes_while_it_is_sent_is_named_and_never_passed_off_as_good() {
    let files: Vec<(String, Vec<u8>)> = (0..8).map(|index| (format!("s{index}"), noise(1 << 20, index + 1))).collect();
    let big = vec![1; 24 << 20];
    for (what, change) in CHANGES {
        for flags in
            [&["--process_num", "1", "--thread_num", "1"][..], &["--length", "1M", "--process_num", "2", "--thread_num", "1"]]
        {
            let (source, root) = (temp_dir(), temp_dir());
            let recv = Recv::start(root.path());
            for (name, content) in &files {
                write(&source.path().join(name), content);
            }
            write(&source.path().join("big"), &big);
            let gate = Gate::before(&recv);
            let ended = thread::scope(|scope| {
                let sender = scope.spawn(|| Ended::of(&mut send_v1(gate.port, source.path(), "in", flags)));
                wait_until("all is listed and something is on its way", || {
                    gate.holds.load(Ordering::SeqCst) && fs::read_dir(recv.path("in")).is_ok_and(|listed| listed.count() == 9)
                });
                for name in files.iter().map(|(name, _)| name.as_str()).chain(["big"]) {
                    change(&source.path().join(name));
                }
                gate.open();
                sender.join().unwrap()
            });
            let failed = ended.failed();
            assert_eq!(ended.code, Some(3), "{what}: {}", ended.stderr);
            // No more than some buffers full can have been read before the change.
            assert!(failed.contains("big"), "{what}: {failed:?}");
            for (name, content) in &files {
                let same = fs::read(recv.path("in").join(name)).unwrap() == *content;
                assert!(same || failed.contains(name), "{name} {what}, is not there as it was, and is not named");
            }
            assert_eq!(ended.json["files"].as_u64().unwrap() + failed.len() as u64, 9, "{what}");
        }
    }
}

// C20
#[test]
fn a_single_file_that_vanishes_while_it_is_sent_is_named() {
    let (source, root) = (temp_dir(), temp_dir());
    let recv = Recv::start(root.path());
    let file = source.path().join("file");
    write(&file, vec![1; 24 << 20]);
    let gate = Gate::before(&recv);
    let ended = thread::scope(|scope| {
        let sender = scope.spawn(|| Ended::of(&mut send_v1(gate.port, &file, "in", &["--process_num", "1"])));
        wait_until("it is on its way", || gate.holds.load(Ordering::SeqCst));
        fs::remove_file(&file).unwrap();
        gate.open();
        sender.join().unwrap()
    });
    ended.expect_partial(&["file"]);
}

// C10
#[test]
fn names_and_depths_at_their_limits_arrive() {
    let source = temp_dir();
    write(&source.path().join("n".repeat(255)), "longest name");
    write(&source.path().join("ü".repeat(127)), "longest name of two-byte characters");
    write(&source.path().join("d/".repeat(300)).join("deep"), "deep");
    send_and_copy(source.path(), &[], 0, |target| assert_same(source.path(), target));
}

// C10
#[test]
fn a_path_that_gets_too_long_is_named_and_the_rest_arrives() {
    let (source, root) = (temp_dir(), temp_dir());
    let recv = Recv::start(root.path());
    let (remote, fits, too_long) = names_near_the_limit();
    write(&source.path().join(&fits), "x");
    write(&source.path().join(&too_long), "x");
    let ended = Ended::of(&mut send_v1(recv.port, source.path(), &remote, &[]));
    ended.expect_partial(&[&too_long]);
    assert_eq!((&ended.json["files"], &ended.json["bytes"]), (&1.into(), &1.into()));
    // Too long already where it is.
    let mut folder = rustix::fs::open(source.path(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..20 {
        let name = "s".repeat(250);
        rustix::fs::mkdirat(&folder, &name, Mode::RWXU).unwrap();
        folder = rustix::fs::openat(&folder, &name, rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    }
    let ended = Ended::of(&mut send_v1(recv.port, source.path(), "in", &[]));
    assert_eq!((ended.code, ended.failed().len()), (Some(3), 1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&"s".repeat(250)), "{}", ended.stderr);
    assert_eq!(fs::read(recv.path("in").join(&fits)).unwrap(), b"x");
}

// C11, C12
#[test]
fn odd_names_arrive_as_they_are_and_are_printed_escaped() {
    let (source, root) = (temp_dir(), temp_dir());
    let recv = Recv::start(root.path());
    let expected = temp_dir();
    let odd = [
        ("tab\t", "tab\\t"),
        ("cr\r", "cr\\r"),
        ("\u{1b}[31mred", "\\u{1b}[31mred"),
        ("\u{9b}31mred", "\\u{9b}31mred"),
        ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
        ("\u{7f}", "\\u{7f}"),
        ("back\\slash", "back\\\\slash"),
        ("--file", "--file"),
        ("...", "..."),
        (" ", " "),
        (" spaces ", " spaces "),
        ("*", "*"),
        ("%s%n", "%s%n"),
        ("'\"`$(x)", "'\"`$(x)"),
        ("|a:b;c&", "|a:b;c&"),
        ("caf\u{e9}", "caf\u{e9}"),
        ("cafe\u{301}", "cafe\u{301}"),
    ];
    for (name, _) in odd {
        for top in [source.path(), expected.path()] {
            write(&top.join("d").join(name), name);
        }
        // Something to be said about each.
        make_fifo(&source.path().join(format!("{name}f")));
    }
    let ended = Ended::of(&mut send_v1(recv.port, source.path(), "in", &["--length", "3"]));
    let shown = odd.map(|(_, shown)| format!("{shown}f"));
    ended.expect_partial(&shown.each_ref().map(String::as_str));
    assert_same(expected.path(), &recv.path("in"));
    let is_raw = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
    assert!(!ended.stderr.contains(is_raw), "{:?}", ended.stderr);
    // The same of what the user named, on both streams.
    let output = expect_code(&mut send_v1(recv.port, &source.path().join("d"), "to \u{1b}[31m\u{202e}", &[]), 0);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(said.contains("to \\u{1b}[31m\\u{202e}") && !said.contains(is_raw), "{said:?}");
    assert_same(&expected.path().join("d"), &recv.path("to \u{1b}[31m\u{202e}"));
    let missing = expect_code(&mut send_v1(recv.port, Path::new("\u{1b}[31m"), "in", &[]), 1);
    assert!(text(&missing.stderr).contains("\\u{1b}[31m") && !text(&missing.stderr).contains(is_raw));
}

#[test]
fn a_local_copy_onto_or_into_itself_is_refused_and_loses_nothing() {
    let (place, before) = (temp_dir(), temp_dir());
    for top in [place.path(), before.path()] {
        make_tree(&top.join("tree"));
        symlink("tree", top.join("link")).unwrap();
    }
    for (file, target) in [
        ("tree", "tree"),
        ("tree", "tree/"),
        ("tree", "tree/a"),
        ("tree", "tree/new/one"),
        ("tree", "link"),
        ("link", "tree"),
        ("tree", "link/new"),
        ("tree", "tree/a/../hollow"),
        ("tree/one byte", "tree"),
        ("tree/one byte", "link"),
        ("link/one byte", "tree/a/.."),
        ("tree/a/large", "tree/a"),
    ] {
        let output = expect_code(copy_to(Path::new(file), Path::new(target), &[]).current_dir(place.path()), 1);
        assert!(text(&output.stderr).contains("itself"), "{file} to {target}: {}", text(&output.stderr));
        assert_same(before.path(), place.path());
    }
    for target in ["", "."] {
        expect_code(copy_to(Path::new("."), Path::new(target), &[]).current_dir(place.path().join("tree")), 1);
        assert_same(before.path(), place.path());
    }
    // Beside itself is fine.
    expect_code(copy_to(Path::new("tree"), Path::new("tree2"), &[]).current_dir(place.path()), 0);
    assert_same(&place.path().join("tree"), &place.path().join("tree2"));
}

#[test]
fn where_it_lands_is_said_before_the_first_byte_and_in_the_summary() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("file"), "x");
    let recv = Recv::start(root.path());
    for (remote, shown) in [("/in", "/in below the receiver's root"), ("some/where", "some/where below the receiver's root")] {
        let output = expect_code(&mut send_v1(recv.port, source.path(), remote, &[]), 0);
        let (said, summary) = (text(&output.stderr), text(&output.stdout));
        assert!(said.lines().next().unwrap().contains(shown), "{said}");
        assert!(summary.contains("complete") && summary.contains(shown), "{summary}");
        assert_eq!(summary.lines().count(), 1);
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = expect_code(&mut send_v1(free, source.path(), "/in", &[]), 1);
    assert!(text(&output.stderr).contains("/in below the receiver's root"), "not one byte could be sent, yet it was to be said");

    // On this machine in full.
    let full = root.path().canonicalize().unwrap().join("below/here");
    let output = expect_code(copy_to(source.path(), Path::new("below/here"), &[]).current_dir(root.path()), 0);
    for stream in [output.stdout, output.stderr] {
        assert!(text(&stream).contains(full.to_str().unwrap()), "{}", text(&stream));
    }
}

// F04, C01
#[test]
fn a_remote_dir_means_a_place_below_the_root() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("file"), "x");
    let recv = Recv::start(root.path());
    let own = root.path().canonicalize().unwrap();
    let own = own.to_str().unwrap();
    for (remote, lands) in [
        ("in", "in"),
        ("/in", "in"),
        ("in/", "in"),
        ("/in///", "in"),
        ("./in", "in"),
        ("in/.", "in"),
        ("a//b/./c", "a/b/c"),
        ("", ""),
        (".", ""),
        ("/", ""),
        ("//", ""),
        ("~", "~"),
        ("~/x", "~/x"),
        ("~root", "~root"),
        ("$HOME", "$HOME"),
        ("-", "-"),
        (own, ""),
        (&format!("{own}/in"), "in"),
        (&format!("{own}x/in"), &format!("{own}x/in")[1..]),
    ] {
        expect_code(&mut send_v1(recv.port, source.path(), remote, &[]), 0);
        let landed = recv.path(lands).join("file");
        assert_eq!(fs::read(&landed).unwrap_or_else(|error| panic!("'{remote}': {}: {error}", landed.display())), b"x");
        for name in fs::read_dir(root.path()).unwrap() {
            let path = name.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
    for remote in ["..", "in/../..", "../x", "/.."] {
        let output = run(&mut send_v1(recv.port, source.path(), remote, &[]));
        assert!(matches!(output.status.code(), Some(1 | 2 | 4)), "'{remote}': {:?}", output.status);
        assert!(text(&output.stderr).contains(remote), "{}", text(&output.stderr));
    }
    assert_eq!(list(root.path()), [""; 0]);
}

// F04
#[test]
fn a_local_target_is_resolved_as_any_path_is() {
    let (source, place) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let inside = place.path().join("inside");
    fs::create_dir(&inside).unwrap();
    symlink(&inside, place.path().join("link")).unwrap();
    for (target, lands) in [
        ("", "inside"),
        (".", "inside"),
        ("~", "inside/~"),
        ("../up/", "up"),
        ("x/y//z", "inside/x/y/z"),
        ("../link/k", "inside/k"),
    ] {
        expect_code(copy_to(source.path(), Path::new(target), &[]).current_dir(&inside), 0);
        let lands = place.path().join(lands);
        if lands == inside {
            assert_eq!(fs::read(lands.join("a/large")).unwrap(), fs::read(source.path().join("a/large")).unwrap());
            fs::remove_dir_all(&inside).unwrap();
            fs::create_dir(&inside).unwrap();
        } else {
            assert_same(source.path(), &lands);
        }
    }
    write(&place.path().join("file"), "in the way");
    for target in ["file", "file/below"] {
        let output = expect_code(&mut copy_to(source.path(), &place.path().join(target), &[]), 1);
        assert!(text(&output.stderr).contains(target));
    }
    assert_eq!(fs::read(place.path().join("file")).unwrap(), b"in the way");
}

/// A folder in memory where there is one: disks may take a millisecond for each of many files.
fn memory_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| temp_dir())
}

// C19
#[test]
fn twenty_thousand_empty_files_and_a_file_of_holes_arrive() {
    let (source, root) = (memory_dir(), memory_dir());
    for folder in 0..20 {
        let folder = source.path().join(folder.to_string());
        fs::create_dir(&folder).unwrap();
        (0..1000).for_each(|index| fs::write(folder.join(index.to_string()), "").unwrap());
    }
    let holes = tempfile::NamedTempFile::new_in(source.path()).unwrap();
    holes.as_file().set_len(64 << 20).unwrap();
    let mut recv = Recv::start(root.path());
    let ended = Ended::of(&mut send_v1(recv.port, source.path(), "in", &[]));
    assert_eq!((ended.code, &ended.json["files"], &ended.json["folders"]), (Some(0), &20_001.into(), &20.into()));
    assert_same(source.path(), &recv.path("in"));
    recv.expect_idle();
}

/// Connections that a receiver says that it had, which are as many as its sender says; its log takes a moment.
fn connected(recv: &Recv, ended: &Ended) -> u64 {
    let said = ended.json["connections"].as_u64().unwrap();
    let count = || recv.process.log().matches(": connected").count() as u64;
    wait_until("the receiver says so, too", || count() >= said);
    assert_eq!(count(), said);
    said
}

#[test]
fn one_small_file_costs_one_process_and_two_connections_at_most() {
    let (source, root) = (temp_dir(), temp_dir());
    let file = source.path().join("file");
    write(&file, noise(10_000, 1));
    let mut recv = Recv::start_with(root.path(), &["--verbose"]);
    let ended = Ended::of(&mut send_v1(recv.port, &file, "in", &["--process_num", "8", "--thread_num", "8"]));
    recv.expect_idle();
    assert_eq!((ended.code, &ended.json["processes"], &ended.json["bytes"]), (Some(0), &1.into(), &10_000.into()));
    let counted = connected(&recv, &ended);
    assert!((1..=2).contains(&counted), "{counted} connections");
}

#[test]
fn connections_and_processes_come_with_the_work_and_are_all_counted() {
    let (source, root) = (temp_dir(), temp_dir());
    let file = source.path().join("file");
    write(&file, vec![7; 64 << 20]);
    let mut recv = Recv::start_with(root.path(), &["--verbose"]);
    let flags = ["--process_num", "2", "--thread_num", "2", "--length", "1M"];
    let ended = Ended::of(&mut send_v1(recv.port, &file, "in", &flags));
    recv.expect_idle();
    assert_eq!((ended.code, &ended.json["processes"], &ended.json["lost_connections"]), (Some(0), &2.into(), &0.into()));
    let counted = connected(&recv, &ended);
    assert!((3..=5).contains(&counted), "{counted} connections");
    let mut arrived = Vec::new();
    fs::File::open(recv.path("in/file")).unwrap().read_to_end(&mut arrived).unwrap();
    assert!(arrived == vec![7; 64 << 20]);
}
