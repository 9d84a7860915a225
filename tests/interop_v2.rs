//! Our programs against a v2 peer of another make, both ways, and what a receiver's faults come to.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::sender::expect_kept;
use common::*;
use parallel_transfer::net::host_key::HostKey;
use serde_json::Value;

/// Nothing that goes wrong for ever takes longer: a connection that breaks is dialled again some times.
const BOUNDED: Duration = Duration::from_secs(20);

/// The v2 peer in Python.
fn peer() -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/v2_peer.py"));
    command
}

/// A v2 receiver of another make. Gives its port.
fn start_peer(folder: &Path, flags: &[&str]) -> (Running, u16) {
    let process = Running::start(peer().arg("recv").arg("--folder").arg(folder).args(flags));
    let port = process.first_line.rsplit(' ').next().unwrap().parse().unwrap();
    (process, port)
}

/// The peer as a sender to our receiver.
fn peer_to(recv: &Recv, file: &Path, flags: &[&str]) -> Command {
    let mut command = peer();
    command.args(["send", "--host", "127.0.0.1", "--port", &recv.port.to_string(), "--remote_dir", "in", "--file"]);
    command.arg(file).args(flags);
    command
}

/// What the peer printed about `op`.
fn said(output: &Output, op: &str) -> Vec<Value> {
    let lines = text(&output.stdout);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|line: &Value| line["op"] == op).collect()
}

/// Folders, files of one chunk and of several, a link, a further name, a hole, modes and times.
fn make_rich_tree(top: &Path) {
    make_tree(top);
    symlink("../a/small", top.join("a/link")).unwrap();
    symlink("/nowhere/at all", top.join("dangling")).unwrap();
    fs::hard_link(top.join("a/small"), top.join("a/z further name")).unwrap();
    let holed = fs::File::create(top.join("holed")).unwrap();
    holed.write_all_at(b"start", 0).unwrap();
    holed.write_all_at(b"end", 1_000_000).unwrap();
    let mode = |name: &str, mode| {
        fs::set_permissions(top.join(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    mode("one byte", 0o600);
    mode("a/hollow", 0o750);
}

/// The same trees, with the same modes, times and holes.
fn assert_all_same(source: &Path, target: &Path) {
    assert_same(source, target);
    for name in list(source) {
        let [one, two] = [source, target].map(|top| fs::symlink_metadata(top.join(&name)).unwrap());
        let kept = |of: &fs::Metadata| (of.mode(), of.mtime(), of.mtime_nsec(), of.nlink() > 1 && of.is_file());
        assert_eq!(kept(&one), kept(&two), "{name}");
    }
    let blocks = fs::metadata(target.join("holed")).unwrap().blocks();
    assert!(blocks * 512 < 600_000, "the hole was filled: {blocks} blocks");
}

#[test]
fn the_peer_has_the_same_xxh3() {
    use std::io::Write as _;
    use twox_hash::{XxHash3_64, XxHash3_128};
    let data = noise(3000, 1);
    let lens: Vec<usize> = (0..300).chain([511, 512, 513, 1023, 1024, 1025, 1088, 2048, 2049, 3000]).collect();
    for seed in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
        let mut command = peer();
        command.args(["hash", "--seed", &seed.to_string()]).args(lens.iter().map(usize::to_string));
        let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&data).unwrap();
        let output = child.wait_with_output().unwrap();
        let hashes = lens.iter().map(|&len| {
            let (short, long) = (&data[..len], &data[..len]);
            format!("{:016x} {:032x}\n", XxHash3_64::oneshot_with_seed(seed, short), XxHash3_128::oneshot_with_seed(seed, long))
        });
        assert_eq!(text(&output.stdout), hashes.collect::<String>());
    }
}

#[test]
fn a_v2_sender_of_another_make_is_served_in_clear_and_in_tls() {
    let (source, root) = (temp_dir(), temp_dir());
    make_rich_tree(source.path());
    let state = temp_dir();
    let mut recv = Recv::start_with(root.path(), &["--state_dir", state.path().to_str().unwrap()]);
    let host_key = HostKey::load_or_make(state.path()).unwrap().fingerprint().to_string();
    for flags in [&["--length", "300000"][..], &["--tls", "--length", "65536", "--sync"], &["--checksum", "0", "--ahead", "1"]] {
        let _ = fs::remove_dir_all(recv.path("in"));
        let output = expect_code(&mut peer_to(&recv, source.path(), flags), 0);
        assert_all_same(source.path(), &recv.path("in"));
        let opened = said(&output, "open");
        assert_eq!((&opened[0]["new"], &opened[0]["again"]), (&1.into(), &0.into()));
        assert_eq!(opened[0]["folder"].as_str().unwrap(), recv.path("in").to_str().unwrap());
        let finished = said(&output, "finished");
        // As many as there are first names of files; three links and one further name of a file.
        assert_eq!((&finished[0]["files"], &finished[0]["links"]), (&11.into(), &3.into()), "{finished:?}");
        assert!(said(&output, "key").iter().all(|key| key["fingerprint"] == host_key), "{}", text(&output.stdout));
        recv.expect_idle();
    }
}

#[test]
fn what_a_sender_of_another_make_has_sent_before_is_had() {
    let (source, root) = (temp_dir(), temp_dir());
    make_rich_tree(source.path());
    let recv = Recv::start(root.path());
    expect_code(&mut peer_to(&recv, source.path(), &[]), 0);
    let again = expect_code(&mut peer_to(&recv, source.path(), &["--have"]), 0);
    assert_eq!((&said(&again, "have")[0]["had"], said(&again, "put").len()), (&11.into(), 0));
    assert_eq!(said(&again, "open")[0]["new"], 0);
    // Not asked first, it sends all of it, which is dropped.
    let unasked = expect_code(&mut peer_to(&recv, source.path(), &["--length", "1000000"]), 0);
    // A file that comes in one piece is published anew, which costs less than to look for it.
    let is_kept = |put: &Value| put["status"] == "had" || put["start"] == 0 && put["status"] == "published";
    assert!(said(&unasked, "put").iter().all(is_kept), "{}", text(&unasked.stdout));
    assert_all_same(source.path(), &recv.path("in"));
}

// B06
#[test]
fn a_chunk_that_never_comes_is_named_at_the_end_and_nothing_is_published() {
    let (source, root) = (temp_dir(), temp_dir());
    let file = source.path().join("file");
    write(&file, noise(900_000, 3));
    let mut recv = Recv::start(root.path());
    let output = expect_code(&mut peer_to(&recv, &file, &["--length", "300000", "--leave_out", "300000"]), 3);
    let missing = said(&output, "missing");
    assert_eq!((missing.len(), &missing[0]["path"]), (1, &"file".into()));
    assert!(missing[0]["reason"].as_str().unwrap().contains("300000"), "{missing:?}");
    recv.expect_idle();
    expect_kept(root.path(), 1);
    assert_eq!(list(root.path()).len(), 3);
}

#[test]
fn a_void_put_does_not_count() {
    let (source, root) = (temp_dir(), temp_dir());
    let file = source.path().join("file");
    write(&file, noise(900_000, 3));
    let mut recv = Recv::start(root.path());
    for length in ["300000", "1000000"] {
        let output = expect_code(&mut peer_to(&recv, &file, &["--length", length, "--void"]), 3);
        let puts = said(&output, "put");
        assert!(puts.iter().all(|put| put["status"] == "voided"), "{puts:?}");
        recv.expect_idle();
        assert_eq!(list(root.path()), ["in"]);
    }
}

/// How a `send` ended: its code, none if it had to be killed, and all it said.
struct Ended {
    code: Option<i32>,
    said: String,
}

/// Sends a small tree to the peer, without patience.
fn send_plain(port: u16, source: &Path, flags: &[&str]) -> Ended {
    let mut command = send_to(port, source, "in", &["--plain", "--stall_timeout", "500ms", "--retry_for", "1s", "--json"]);
    let said = tempfile::NamedTempFile::new().unwrap();
    command.args(flags).stdout(said.reopen().unwrap()).stderr(said.reopen().unwrap());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() && start.elapsed() < BOUNDED {
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    Ended { code: child.wait().unwrap().code(), said: fs::read_to_string(said.path()).unwrap() }
}

#[test]
fn a_tree_arrives_at_a_v2_receiver_of_another_make() {
    let (source, target) = (temp_dir(), temp_dir());
    make_rich_tree(source.path());
    let log = target.path().join("log");
    let (_peer, port) = start_peer(target.path(), &["--log", log.to_str().unwrap()]);
    for (flags, puts) in [(&["--length", "300000"][..], 23), (&[], 0)] {
        fs::write(&log, "").unwrap();
        let ended = send_plain(port, source.path(), flags);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        assert_same(source.path(), &target.path().join("in"));
        let log = fs::read_to_string(&log).unwrap();
        let requests: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let count = |op| requests.iter().filter(|request| request["op"] == op).count();
        assert_eq!((count("put"), count("finish"), count("open")), (puts, 1, 1), "{log}");
        assert!(requests.iter().filter(|request| request["op"] == "close").all(|close| close["why"] == "end"), "{log}");
    }
}

/// A row: the fault, to which request, how often; the exit code; words of what it said.
type Fault = (&'static [&'static str], i32, &'static str);

const FAULTS: &[Fault] = &[
    (&["--fault", "mismatched", "--times", "2"], 0, ""),
    (&["--fault", "mismatched"], 3, "another digest"),
    (&["--fault", "denied", "--times", "1"], 3, "told to deny"),
    (&["--fault", "missing", "--at", "finish"], 3, "told to miss it"),
    (&["--fault", "features", "--at", "hello"], 0, ""),
    (&["--fault", "close", "--times", "2"], 0, ""),
    (&["--fault", "garbage", "--times", "1"], 0, ""),
    (&["--fault", "check", "--times", "1"], 0, ""),
];

#[test]
fn faults_of_a_receiver_come_to_what_they_are() {
    hold_against(FAULTS);
}

/// All of these refuse before anything has landed.
const REFUSALS: &[Fault] = &[
    (&["--fault", "refused", "--at", "hello"], 4, "told to refuse"),
    (&["--fault", "refused", "--at", "open"], 4, "told to refuse"),
    (&["--fault", "version", "--at", "hello"], 1, ""),
    (&["--fault", "silent", "--at", "hello"], 1, ""),
    (&["--fault", "silent", "--at", "open"], 1, ""),
    (&["--fault", "close", "--at", "hello"], 1, ""),
    (&["--fault", "close", "--at", "open"], 1, ""),
    (&["--fault", "garbage", "--at", "hello"], 1, ""),
    (&["--fault", "garbage", "--at", "open"], 1, ""),
    (&["--fault", "turn", "--at", "hello"], 1, ""),
    (&["--fault", "turn", "--at", "open"], 1, ""),
    (&["--fault", "huge", "--at", "open"], 1, ""),
    (&["--fault", "oversized", "--at", "open"], 1, ""),
    (&["--fault", "request", "--at", "open"], 1, ""),
];

#[test]
fn a_receiver_that_does_not_open_a_job_ends_the_run_in_time() {
    hold_against(REFUSALS);
}

/// Whatever is said in place of the answers, for ever: the run ends, and not well.
const FOREVER: &[Fault] = &[
    (&["--fault", "refused", "--at", "join"], -1, "told to refuse"),
    (&["--fault", "refused", "--at", "put"], -1, "told to refuse"),
    (&["--fault", "silent", "--at", "join"], -1, ""),
    (&["--fault", "silent", "--at", "put"], -1, ""),
    (&["--fault", "silent", "--at", "finish"], -1, ""),
    (&["--fault", "close", "--at", "put"], -1, ""),
    (&["--fault", "close", "--at", "finish"], -1, ""),
    (&["--fault", "turn", "--at", "put"], -1, ""),
    (&["--fault", "turn", "--at", "describe"], -1, ""),
    (&["--fault", "turn", "--at", "finish"], -1, ""),
    (&["--fault", "heartbeats", "--at", "open"], -1, ""),
    (&["--fault", "silent", "--at", "describe"], -1, ""),
    (&["--fault", "close", "--at", "describe"], -1, ""),
    (&["--fault", "lie", "--at", "put"], -1, ""),
    (&["--fault", "status", "--at", "put"], -1, ""),
    (&["--fault", "voided", "--at", "put"], -1, ""),
    (&["--fault", "oversized", "--at", "put"], -1, ""),
    (&["--fault", "huge", "--at", "put"], -1, ""),
    (&["--fault", "guard", "--at", "put"], -1, ""),
    (&["--fault", "cut", "--at", "put"], -1, ""),
    (&["--fault", "garbage", "--at", "put"], -1, ""),
    (&["--fault", "garbage", "--at", "describe"], -1, ""),
    (&["--fault", "garbage", "--at", "finish"], -1, ""),
    (&["--fault", "request", "--at", "finish"], -1, ""),
    (&["--fault", "check", "--at", "finish"], -1, ""),
    (&["--close_after", "2000"], -1, ""),
];

#[test]
fn no_reply_of_a_hostile_receiver_hangs_a_sender_or_passes_for_success() {
    hold_against(FOREVER);
}

/// They wait for each other's patience to end, mostly.
const PARTS: usize = 9;

/// Runs a send against each fault, some at a time. A code of -1 is any that means a failure.
fn hold_against(faults: &[Fault]) {
    let source = temp_dir();
    write(&source.path().join("file"), noise(70_000, 1));
    let wrong = Mutex::new(Vec::new());
    let one = &|(flags, code, words): &Fault| {
        let target = temp_dir();
        let (_peer, port) = start_peer(target.path(), flags);
        let Ended { code: found, said } = send_plain(port, source.path(), &["--process_num", "1"]);
        let is_right = if *code < 0 { matches!(found, Some(1 | 3 | 4)) } else { found == Some(*code) };
        if !is_right || !said.contains(words) || said.contains("panicked") {
            wrong.lock().unwrap().push(format!("{flags:?} came to {found:?}: {said}"));
        } else if *code == 0 {
            assert_same(source.path(), &target.path().join("in"));
        }
    };
    thread::scope(|scope| {
        for part in 0..PARTS {
            scope.spawn(move || faults.iter().skip(part).step_by(PARTS).for_each(one));
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
