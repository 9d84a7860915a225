//! Wrong digests, lost connections, killed and stopped processes, peers that are something else: what comes of each.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use serde_json::Value;
use socket2::SockRef;
use tempfile::NamedTempFile;

/// A `send` that runs beside the test, and ends with it.
struct Sender {
    child: Child,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
}

/// How a `send` ended.
struct Ended {
    code: Option<i32>,
    json: Value,
    said: String,
}

impl Sender {
    fn start(command: &mut Command) -> Self {
        let (stdout, stderr) = (NamedTempFile::new().unwrap(), NamedTempFile::new().unwrap());
        command.arg("--json").stdout(stdout.reopen().unwrap()).stderr(stderr.reopen().unwrap());
        Self { child: command.spawn().unwrap(), stdout, stderr }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has so many worker processes; gives them.
    fn wait_for_children(&self, count: usize) -> Vec<u32> {
        wait_until("worker processes run", || children_of(self.pid()).len() >= count);
        children_of(self.pid())
    }

    fn wait(mut self) -> Ended {
        wait_until("send ends", || self.child.try_wait().unwrap().is_some());
        let said = fs::read_to_string(self.stderr.path()).unwrap();
        let json = serde_json::from_slice(&fs::read(self.stdout.path()).unwrap()).unwrap_or_default();
        Ended { code: self.child.wait().unwrap().code(), json, said }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    fn of(command: &mut Command) -> Self {
        Sender::start(command).wait()
    }

    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.said, self.json);
        self
    }

    /// Fails unless exactly this entry failed, by name, and the run ended as one with losses.
    fn expect_only_failed(self, name: &str) -> Self {
        let ended = self.expect(3);
        let failures = ended.json["failures"].as_array().unwrap();
        assert!(failures.len() == 1 && failures[0]["path"] == name, "{}", ended.json);
        assert!(ended.said.contains(name), "{}", ended.said);
        ended
    }
}

/// What a relay does to one connection, once so many bytes have passed.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// Ends it.
    Cut(usize),
    /// Ends it as a dead machine or a firewall would.
    Reset(usize),
    /// Alters the next byte.
    Flip(usize),
    /// Lets nothing more through until released.
    Hold(usize),
    /// Alters a byte of the answers.
    FlipAnswer(usize),
}

/// A relay in front of a receiver.
struct Relay {
    port: u16,
    released: Arc<(Mutex<bool>, Condvar)>,
    holding: Arc<AtomicUsize>,
}

impl Relay {
    /// Passes bytes on; `choose` is asked for the fault of each connection by its first byte ('c' for
    /// creations, 'w' for writes) and by how many of its kind there were before.
    fn start(upstream: u16, choose: impl Fn(u8, usize) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let relay = Self { port, released: Arc::default(), holding: Arc::default() };
        let (released, holding) = (Arc::clone(&relay.released), Arc::clone(&relay.holding));
        let shared = Arc::new((choose, [AtomicUsize::new(0), AtomicUsize::new(0)]));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (released, holding, shared) = (Arc::clone(&released), Arc::clone(&holding), Arc::clone(&shared));
                thread::spawn(move || {
                    let (stream, mut kind) = (stream.unwrap(), [0]);
                    if stream.peek(&mut kind).is_err() {
                        return;
                    }
                    let index = shared.1[usize::from(kind[0] == b'w')].fetch_add(1, Ordering::SeqCst);
                    let fault = shared.0(kind[0], index);
                    let Ok(receiver) = TcpStream::connect(("127.0.0.1", upstream)) else { return };
                    let hold = || {
                        holding.fetch_add(1, Ordering::SeqCst);
                        drop(released.1.wait_while(released.0.lock().unwrap(), |released| !*released));
                    };
                    let (forth, back) = match fault {
                        Fault::FlipAnswer(at) => (Fault::None, Fault::Flip(at)),
                        fault => (fault, Fault::None),
                    };
                    thread::scope(|scope| {
                        scope.spawn(|| pass_on(&receiver, &stream, back, &hold));
                        pass_on(&stream, &receiver, forth, &hold);
                    });
                });
            }
        });
        relay
    }

    /// One that holds all writes back after some bytes of each connection.
    fn holding(recv: &Recv) -> Self {
        Self::start(recv.port, |kind, _| if kind == b'w' { Fault::Hold(100_000) } else { Fault::None })
    }

    fn release(&self) {
        *self.released.0.lock().unwrap() = true;
        self.released.1.notify_all();
    }

    fn wait_until_it_holds(&self) {
        wait_until("the relay holds writes back", || self.holding.load(Ordering::SeqCst) > 0);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.release();
    }
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream, fault: Fault, hold: &dyn Fn()) {
    let (mut bytes, mut passed) = ([0; 16_384], 0);
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        let here = |at: usize| at.checked_sub(passed).filter(|&at| at < len);
        match fault {
            Fault::Cut(at) | Fault::Reset(at) if here(at).is_some() => {
                let _ = to.write_all(&bytes[..at - passed]);
                for end in [from, to] {
                    if let Fault::Reset(_) = fault {
                        SockRef::from(end).set_linger(Some(Duration::ZERO)).unwrap();
                    }
                    let how = if let Fault::Reset(_) = fault { Shutdown::Read } else { Shutdown::Both };
                    let _ = end.shutdown(how);
                }
                return;
            }
            Fault::Flip(at) if here(at).is_some() => bytes[at - passed] ^= 1,
            Fault::Hold(at) if here(at).is_some() => hold(),
            _ => {}
        }
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
        passed += len;
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A tree that is more than one process's work, of `files` files of 1 MiB.
fn make_large_tree(top: &Path, files: u64) {
    (0..files).for_each(|index| write(&top.join(format!("d{}/f{index}", index % 3)), noise(1 << 20, index + 1)));
}

const LARGE: [&str; 6] = ["--length", "1M", "--process_num", "3", "--thread_num", "1"];

/// A file that takes seconds to send and no room.
fn make_long_file(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("long");
    fs::File::create(&path).unwrap().set_len(2 << 30).unwrap();
    path
}

/// Waits until some of a file has arrived.
fn wait_for_bytes(path: &Path) {
    wait_until("the first bytes are written", || path.metadata().is_ok_and(|metadata| metadata.len() > 0));
}

fn wait_until_gone(pids: &[u32]) {
    // A process that ended and that nobody asked about yet is as good as gone.
    let is_gone = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    wait_until("the worker processes are gone", || pids.iter().all(is_gone));
}

/// The writes of a file that a peer logged.
fn writes_of(log: &Path, name: &str) -> usize {
    let is_one = |frame: Value| frame["op"] == "wf" && frame["name"].as_str().unwrap().ends_with(name);
    fs::read_to_string(log).unwrap().lines().filter(|line| is_one(serde_json::from_str(line).unwrap())).count()
}

/// Runs a test's cases side by side: most of their time they wait.
fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            let test = &test;
            scope.spawn(move || test(case));
        }
    });
}

fn make_three(top: &Path) {
    ["one", "two", "three"].into_iter().for_each(|name| write(&top.join(name), name));
}

#[test]
fn a_range_with_a_wrong_digest_is_sent_again_whole() {
    let (source, target) = (temp_dir(), temp_dir());
    write(&source.path().join("file"), noise(100_000, 1));
    let log = target.path().join("log");
    let (_peer, port) = start_v1_peer(target.path(), &["--wrong_digest", "2", "--log", log.to_str().unwrap()]);
    let ended = Ended::of(&mut send_v1(port, source.path(), target.path().join("in"), &[])).expect(0);
    assert_same(source.path(), &target.path().join("in"));
    assert_eq!((writes_of(&log, "file"), &ended.json["repeated_bytes"]), (3, &200_000.into()));
    // Among others.
    let source = temp_dir();
    make_tree(source.path());
    let (_peer, port) = start_v1_peer(target.path(), &["--wrong_digest", "2"]);
    expect_code(&mut send_v1(port, source.path(), target.path().join("tree"), &["--length", "5000"]), 0);
    assert_same(source.path(), &target.path().join("tree"));
}

#[test]
fn a_file_whose_digest_is_always_wrong_fails_by_name_after_three_times() {
    for bad in ["one", "two", "three"] {
        let (source, target) = (temp_dir(), temp_dir());
        make_three(source.path());
        let log = target.path().join("log");
        let (_peer, port) = start_v1_peer(target.path(), &["--wrong_digest_name", bad, "--log", log.to_str().unwrap()]);
        let ended = Ended::of(&mut send_v1(port, source.path(), target.path().join("in"), &[])).expect_only_failed(bad);
        assert_eq!((writes_of(&log, bad), &ended.json["files"]), (3, &2.into()));
        assert_same(source.path(), &target.path().join("in"));
    }
}

#[test]
fn a_file_that_the_receiver_refuses_fails_by_name_wherever_it_stands_and_the_rest_arrives() {
    at_once(["one", "two", "three"], |bad| {
        for flags in [&["--process_num", "1", "--thread_num", "1"][..], &[]] {
            let (source, target) = (temp_dir(), temp_dir());
            make_three(source.path());
            let (_peer, port) = start_v1_peer(target.path(), &["--refuse_name", bad]);
            Ended::of(&mut send_v1(port, source.path(), target.path().join("in"), flags)).expect_only_failed(bad);
            fs::remove_file(source.path().join(bad)).unwrap();
            fs::remove_file(target.path().join("in").join(bad)).unwrap();
            assert_same(source.path(), &target.path().join("in"));
        }
    });
}

#[test]
fn a_file_that_can_not_be_created_fails_by_name_and_the_rest_arrives() {
    for bad in ["one", "two", "three"] {
        let (source, target) = (temp_dir(), temp_dir());
        make_three(source.path());
        let (_peer, port) = start_v1_peer(target.path(), &["--fail_create", bad]);
        Ended::of(&mut send_v1(port, source.path(), target.path().join("in"), &[])).expect_only_failed(bad);
        fs::remove_file(source.path().join(bad)).unwrap();
        assert_same(source.path(), &target.path().join("in"));
    }
}

#[test]
fn connections_that_are_reset_now_and_then_cost_nothing() {
    let source = temp_dir();
    make_tree(source.path());
    at_once([("1", "1"), ("1", "10"), ("7", "20"), ("100", "3")], |(after, drops)| {
        let target = temp_dir();
        let (_peer, port) = start_v1_peer(target.path(), &["--drop_after", after, "--drops", drops]);
        let flags = ["--length", "20000", "--process_num", "2", "--thread_num", "2"];
        let ended = Ended::of(&mut send_v1(port, source.path(), target.path().join("in"), &flags)).expect(0);
        assert_same(source.path(), &target.path().join("in"));
        assert!(ended.json["lost_connections"].as_u64() > Some(0) || after != "1", "{}", ended.json);
    });
}

// E05
#[test]
fn a_connection_that_is_cut_anywhere_is_opened_again_and_nothing_is_lost() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let mut recv = Recv::start(root.path());
    at_once([0, 1, 7, 40, 5_000, 100_035, 900_000], |at| {
        for (name, fault) in [("cut", Fault::Cut(at)), ("reset", Fault::Reset(at))] {
            let relay = Relay::start(recv.port, move |kind, number| if kind == b'w' && number < 2 { fault } else { Fault::None });
            let remote = format!("{name}{at}");
            let flags = ["--length", "100000", "--process_num", "2", "--thread_num", "1"];
            let ended = Ended::of(&mut send_v1(relay.port, source.path(), &remote, &flags)).expect(0);
            assert_same(source.path(), &recv.path(&remote));
            assert!(ended.json["lost_connections"].as_u64() > Some(0), "{name} at {at}: {}", ended.json);
        }
    });
    recv.expect_idle();
}

// E05
#[test]
fn a_control_connection_that_is_cut_is_opened_again_and_all_files_arrive() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let recv = Recv::start(root.path());
    at_once([0, 1, 9, 60, 200], |at| {
        for (name, fault) in [("cut", Fault::Cut(at)), ("reset", Fault::Reset(at))] {
            let relay = Relay::start(recv.port, move |kind, number| if kind == b'c' && number < 2 { fault } else { Fault::None });
            let remote = recv.path(&format!("{name}{at}"));
            expect_code(&mut send_v1(relay.port, source.path(), &remote, &[]), 0);
            // What was created and not confirmed is created again, which keeps what was there, empty as it was.
            for extra in list(&remote).into_iter().filter(|path| !source.path().join(path).exists()) {
                assert!(extra.contains("_1") && fs::read(remote.join(&extra)).unwrap().is_empty(), "{extra}");
                fs::remove_file(remote.join(extra)).unwrap();
            }
            assert_same(source.path(), &remote);
        }
    });
}

// E05
#[test]
fn a_byte_that_was_altered_on_the_way_makes_the_range_be_sent_again() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("f"), noise(1_000_000, 1));
    let recv = Recv::start(root.path());
    let header = wf("in/f", 0, b"").len();
    for fault in [
        Fault::Flip(header),
        Fault::Flip(header + 500_000),
        Fault::Flip(header + 999_999),
        Fault::FlipAnswer(0),
        Fault::FlipAnswer(31),
    ] {
        let relay = Relay::start(recv.port, move |kind, _| if kind == b'w' { fault } else { Fault::None });
        let ended = Ended::of(&mut send_v1(relay.port, source.path(), "in", &[])).expect(0);
        assert_same(source.path(), &recv.path("in"));
        assert_eq!(ended.json["repeated_bytes"], 1_000_000);
        fs::remove_dir_all(recv.path("in")).unwrap();
    }
}

// E05
#[test]
fn a_line_that_stalls_for_a_while_is_waited_for() {
    let (source, root) = (temp_dir(), temp_dir());
    make_large_tree(source.path(), 12);
    let mut recv = Recv::start(root.path());
    let relay = Relay::holding(&recv);
    let sender = Sender::start(&mut send_v1(relay.port, source.path(), "in", &LARGE));
    relay.wait_until_it_holds();
    relay.release();
    let ended = sender.wait().expect(0);
    assert_eq!((&ended.json["lost_connections"], &ended.json["repeated_bytes"]), (&0.into(), &0.into()));
    assert_same(source.path(), &recv.path("in"));
    recv.expect_idle();
}

// E05
#[test]
fn connections_that_stall_for_good_are_replaced_and_what_they_still_bring_does_no_harm() {
    let (source, root) = (temp_dir(), temp_dir());
    make_large_tree(source.path(), 12);
    let mut recv = Recv::start(root.path());
    let choose = |kind, number| if kind == b'w' && number < 3 { Fault::Hold(100_000) } else { Fault::None };
    let relay = Relay::start(recv.port, choose);
    let mut command = send_v1(relay.port, source.path(), "in", &LARGE);
    Ended::of(command.args(["--stall_timeout", "500ms"])).expect(0);
    assert_same(source.path(), &recv.path("in"));
    relay.release();
    recv.expect_idle();
    assert_same(source.path(), &recv.path("in"));
}

// E05
#[test]
fn a_line_that_stalls_for_ever_ends_the_run_with_what_is_missing() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("the file"), noise(5_000_000, 1));
    let recv = Recv::start(root.path());
    let relay = Relay::holding(&recv);
    let (flags, started) = (["--stall_timeout", "200ms", "--retry_for", "1s"], Instant::now());
    let ended = Ended::of(&mut send_v1(relay.port, source.path(), "in", &flags)).expect(1);
    assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}", started.elapsed());
    assert!(ended.said.contains("the file"), "{}", ended.said);
    assert_eq!(ended.json["files"], 0);
}

#[test]
fn a_worker_process_that_is_killed_costs_nothing() {
    let (source, root) = (temp_dir(), temp_dir());
    make_large_tree(source.path(), 48);
    let mut recv = Recv::start(root.path());
    for (remote, victims) in [("one", 1), ("all", 2)] {
        let relay = Relay::holding(&recv);
        let sender = Sender::start(&mut send_v1(relay.port, source.path(), remote, &LARGE));
        let children = sender.wait_for_children(2);
        // All of them are in the middle of something.
        wait_until("all writes are held back", || relay.holding.load(Ordering::SeqCst) >= 3);
        children[..victims].iter().for_each(|&child| signal_to(child, "KILL"));
        wait_until_gone(&children[..victims]);
        relay.release();
        let ended = sender.wait().expect(0);
        assert_same(source.path(), &recv.path(remote));
        assert!(ended.said.contains("worker process"), "nothing was said of it: {}", ended.said);
    }
    recv.expect_idle();
}

// E07
#[test]
fn a_send_that_is_killed_takes_its_processes_along_and_can_be_run_again() {
    let (source, root) = (temp_dir(), temp_dir());
    make_large_tree(source.path(), 48);
    let mut recv = Recv::start(root.path());
    let relay = Relay::holding(&recv);
    let sender = Sender::start(&mut send_v1(relay.port, source.path(), "in", &LARGE));
    relay.wait_until_it_holds();
    let children = sender.wait_for_children(2);
    signal_to(sender.pid(), "KILL");
    wait_until_gone(&children);
    assert_eq!(sender.wait().code, None);
    drop(relay);
    recv.expect_idle();
    expect_code(&mut send_v1(recv.port, source.path(), "in", &LARGE), 0);
    for name in list(source.path()) {
        let (path, landed) = (source.path().join(&name), recv.path("in").join(&name));
        assert!(path.is_dir() || fs::read(path).unwrap() == fs::read(landed).unwrap(), "{name}");
    }
    recv.expect_idle();
}

/// Does this process ignore SIGHUP, and with it all that it starts?
fn is_hang_up_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1
}

#[test]
fn a_send_that_is_interrupted_ends_with_130_and_leaves_no_process() {
    let (source, root) = (temp_dir(), temp_dir());
    make_large_tree(source.path(), 48);
    let mut recv = Recv::start(root.path());
    for signal in ["INT", "TERM", "HUP"] {
        if signal == "HUP" && is_hang_up_ignored() {
            println!("SKIPPED: SIGHUP is ignored here, as under nohup, and so it is by send");
            continue;
        }
        let relay = Relay::holding(&recv);
        let sender = Sender::start(&mut send_v1(relay.port, source.path(), signal, &LARGE));
        relay.wait_until_it_holds();
        let children = sender.wait_for_children(2);
        signal_to(sender.pid(), signal);
        let ended = sender.wait().expect(130);
        wait_until_gone(&children);
        assert_eq!(ended.json["outcome"], "interrupted");
        assert!(ended.said.contains("of the"), "it does not say how much is missing: {}", ended.said);
        drop(relay);
        recv.expect_idle();
    }
    // While it waits for an answer, and nothing else.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let sender = Sender::start(&mut send_v1(silent.local_addr().unwrap().port(), source.path(), "in", &[]));
    let (_stream, _) = silent.accept().unwrap();
    signal_to(sender.pid(), "INT");
    sender.wait().expect(130);
}

// E06
#[test]
fn a_receiver_that_dies_ends_the_run_in_time_with_what_is_missing() {
    let (source, root) = (temp_dir(), temp_dir());
    make_long_file(source.path());
    write(&source.path().join("d/short"), "x");
    let mut recv = Recv::start(root.path());
    let sender = Sender::start(&mut send_v1(recv.port, source.path(), "in", &["--retry_for", "1s"]));
    wait_for_bytes(&recv.path("in/long"));
    recv.process.signal("KILL");
    recv.process.wait();
    let killed = Instant::now();
    let ended = sender.wait().expect(1);
    assert!(killed.elapsed() < Duration::from_secs(15), "it went on for {:?}", killed.elapsed());
    assert!(ended.said.contains("long") && ended.said.contains("of the 2 files"), "{}", ended.said);
}

// E06
#[test]
fn a_receiver_that_was_restarted_has_forgotten_the_job_which_ends_with_what_is_missing() {
    let (source, root) = (temp_dir(), temp_dir());
    make_long_file(source.path());
    let mut recv = Recv::start(root.path());
    let sender = Sender::start(&mut send_v1(recv.port, source.path(), "in", &["--length", "1M"]));
    wait_for_bytes(&recv.path("in/long"));
    recv.process.signal("KILL");
    recv.process.wait();
    let mut command = recv_command();
    command.args(["--addr", "127.0.0.1", "--port", &recv.port.to_string(), "--root"]).arg(root.path());
    let _again = Running::start(&mut command);
    let restarted = Instant::now();
    let ended = sender.wait().expect(1);
    assert!(restarted.elapsed() < Duration::from_secs(15), "it went on for {:?}", restarted.elapsed());
    assert!(ended.said.contains("long"), "{}", ended.said);
    assert_eq!(ended.json["outcome"], "failed");
    // The next run finds it well.
    write(&source.path().join("d/file"), "x");
    expect_code(&mut send_v1(recv.port, &source.path().join("d"), "in", &[]), 0);
    assert_eq!(fs::read(root.path().join("in/file")).unwrap(), b"x");
}

// E15
#[test]
fn a_receiver_that_was_stopped_goes_on_and_so_does_the_job() {
    at_once([&["--stall_timeout", "500ms", "--process_num", "2"][..], &[]], |flags| {
        let (source, root) = (temp_dir(), temp_dir());
        fs::File::create(source.path().join("file")).unwrap().set_len(300 << 20).unwrap();
        let mut recv = Recv::start(root.path());
        let sender = Sender::start(&mut send_v1(recv.port, source.path(), "in", flags));
        wait_for_bytes(&recv.path("in/file"));
        recv.process.signal("STOP");
        // Not a wait for anything: so long it is away.
        thread::sleep(Duration::from_secs(2));
        recv.process.signal("CONT");
        sender.wait().expect(0);
        assert_same(source.path(), &recv.path("in"));
        recv.expect_idle();
    });
}

// E15
#[test]
fn an_idle_receiver_ends_at_the_first_signal_with_0() {
    for signal in ["TERM", "INT"] {
        let root = temp_dir();
        let mut recv = Recv::start(root.path());
        let (_silent, mut spoke) = (recv.connect(), recv.connect());
        spoke.write_all(&[cd("d"), cf("d/f"), wf("d/f", 0, b"abc")].concat()).unwrap();
        assert_eq!(read_bytes(&spoke, 34)[2..], md5_hex(b"abc"));
        recv.process.signal(signal);
        assert_eq!(recv.process.wait(), Some(0), "{}", recv.process.log());
    }
}

/// A connection with half a write under way, and an idle one, by whose end one sees that a signal was heard.
fn start_half_a_write(recv: &Recv) -> (TcpStream, TcpStream, Vec<u8>) {
    let (mut busy, idle, bytes) = (recv.connect(), recv.connect(), noise(100_000, 5));
    busy.write_all(&cf("file")).unwrap();
    assert_eq!(read_bytes(&busy, 1), b"0");
    let frame = wf("file", 0, &bytes);
    busy.write_all(&frame[..frame.len() - 50_000]).unwrap();
    wait_until("half of it is written", || recv.path("file").metadata().unwrap().len() == 50_000);
    (busy, idle, bytes)
}

fn wait_for_end(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

// E15
#[test]
fn a_write_that_is_under_way_may_end_after_the_signal() {
    let root = temp_dir();
    let mut recv = Recv::start(root.path());
    let (mut busy, idle, bytes) = start_half_a_write(&recv);
    recv.process.signal("TERM");
    wait_for_end(&idle);
    busy.write_all(&bytes[50_000..]).unwrap();
    assert_eq!(read_bytes(&busy, 32), md5_hex(&bytes));
    wait_for_end(&busy);
    assert_eq!(recv.process.wait(), Some(0), "{}", recv.process.log());
    assert!(fs::read(recv.path("file")).unwrap() == bytes);
}

// E15
#[test]
fn what_does_not_end_in_time_is_cut_off_and_the_exit_code_says_so() {
    for unfinished in [&b"w"[..], b"wf000004fil", b"cf000100a\nb", &wf("file", 0, &[7; 1000])[..500]] {
        let root = temp_dir();
        let mut recv = Recv::start_with(root.path(), &["--drain", "300ms"]);
        let (mut stream, idle) = (recv.connect(), recv.connect());
        stream.write_all(&[cf("file"), unfinished.to_vec()].concat()).unwrap();
        assert_eq!(read_bytes(&stream, 1), b"0");
        recv.process.signal("TERM");
        wait_for_end(&idle);
        assert!(stream.read(&mut [0]).map_or(true, |len| len == 0));
        assert_eq!(recv.process.wait(), Some(130), "{}", recv.process.log());
        recv.process.wait_for_log("cut off");
    }
}

// E15
#[test]
fn a_second_signal_stops_a_receiver_at_once() {
    let root = temp_dir();
    let mut recv = Recv::start_with(root.path(), &["--drain", "1h"]);
    let (_busy, idle, _) = start_half_a_write(&recv);
    recv.process.signal("TERM");
    wait_for_end(&idle);
    assert!(recv.process.is_alive());
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(130));
}

// E15
#[test]
fn a_receiver_asked_to_end_in_the_middle_of_a_run_ends_in_time_and_the_sender_says_what_is_missing() {
    let (source, root) = (temp_dir(), temp_dir());
    make_long_file(source.path());
    let mut recv = Recv::start_with(root.path(), &["--drain", "300ms"]);
    let sender = Sender::start(&mut send_v1(recv.port, source.path(), "in", &["--retry_for", "500ms"]));
    wait_for_bytes(&recv.path("in/long"));
    recv.process.signal("TERM");
    let asked = Instant::now();
    let code = recv.process.wait();
    assert!(matches!(code, Some(0 | 130)), "{code:?}: {}", recv.process.log());
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
    let ended = sender.wait().expect(1);
    assert!(ended.said.contains("long"), "{}", ended.said);
}

#[test]
fn a_port_where_nothing_listens_is_said_in_one_line() {
    let source = temp_dir();
    make_three(source.path());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = Instant::now();
    let output = expect_code(&mut send_v1(free, source.path(), "in", &["--quiet"]), 1);
    assert!(started.elapsed() < Duration::from_secs(5));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("127.0.0.1:{free}")) && said.contains("refused"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// A server that says the same thing to all who come, and perhaps reads what they say.
fn start_stranger(words: &'static [u8], ending: Option<Shutdown>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.write_all(words);
                match ending {
                    Some(how) => drop(stream.shutdown(how)),
                    None => drop(std::io::copy(&mut stream, &mut std::io::sink())),
                }
            });
        }
    });
    port
}

#[test]
fn a_port_where_something_else_answers_is_named_as_that() {
    let source = temp_dir();
    make_three(source.path());
    for (words, ending) in [
        (&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..], None),
        (b"SSH-2.0-OpenSSH_9.6\r\n", None),
        (b"\x15\x03\x01\x00\x02\x02\x46", None),
        (b"\0", None),
        (b"2", None),
        (b"000000000000000000000000000000000000000000000000000000000000", None),
        (b"0Oops", None),
        (b"", Some(Shutdown::Both)),
        (b"", Some(Shutdown::Write)),
    ] {
        let port = start_stranger(words, ending);
        let ended = Ended::of(&mut send_v1(port, source.path(), "in", &["--retry_for", "1s", "--stall_timeout", "5s"])).expect(1);
        assert!(ended.said.contains(&format!("127.0.0.1:{port}")), "{}: {}", text(words), ended.said);
        assert_eq!(ended.json["files"], 0, "{}", text(words));
    }
}

#[test]
fn a_peer_that_never_answers_is_given_up_after_the_stall_timeout() {
    let source = temp_dir();
    make_three(source.path());
    let never_accepts = TcpListener::bind("127.0.0.1:0").unwrap();
    let only_reads = start_stranger(b"", None);
    for port in [only_reads, never_accepts.local_addr().unwrap().port()] {
        let started = Instant::now();
        let flags = ["--stall_timeout", "300ms", "--retry_for", "1s"];
        let ended = Ended::of(&mut send_v1(port, source.path(), "in", &flags)).expect(1);
        assert!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
        assert!(ended.said.contains(&format!("127.0.0.1:{port}")), "{}", ended.said);
    }
}
