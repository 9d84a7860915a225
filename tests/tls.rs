//! Encryption and trust: keys that are new, known, wrong or changed, and bits that change on the way.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::judge::*;
use common::link::{Knobs, Link};
use common::mount::can;
use common::sender::*;
use common::*;

/// A receiver with a key of its own, a file to send, and a place for known hosts.
struct Scene {
    place: TempDir,
    recv: Recv,
    key: String,
}

impl Scene {
    fn new() -> Self {
        let place = temp_dir();
        for name in ["root", "home"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        write(&place.path().join("source/file"), "content");
        let (recv, key) = recv_with_key(&place.path().join("root"), &place.path().join("state"), 0);
        Self { place, recv, key }
    }

    fn known_hosts(&self) -> std::path::PathBuf {
        self.place.path().join("home/new/known_hosts")
    }

    fn send_to(&self, port: u16, flags: &[&str]) -> Command {
        let mut command = send_to(port, &self.place.path().join("source"), "in", flags);
        command.arg("--known_hosts").arg(self.known_hosts());
        command
    }

    fn send(&self, flags: &[&str]) -> Ended {
        Ended::of(&mut self.send_to(self.recv.port, flags))
    }

    fn knows(&self, line: &str) {
        write(&self.known_hosts(), line);
        set_mode(&self.known_hosts(), 0o600);
    }

    /// Nothing landed: not even a folder was made.
    fn expect_nothing(&self) {
        assert_eq!(list(&self.recv.root), [""; 0]);
    }
}

const OTHER_KEY: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[test]
fn a_new_key_is_shown_and_kept_and_a_known_one_is_no_news() {
    let scene = Scene::new();
    let key = &scene.key;
    assert!(key.starts_with("SHA256:") && key.len() == 50, "{key}");
    let first = scene.send(&[]).expect(0);
    assert!(first.said.contains(key) && first.said.contains("new receiver"), "{}", first.said);
    let about = fs::metadata(scene.known_hosts()).unwrap();
    let folder = fs::metadata(scene.known_hosts().parent().unwrap()).unwrap();
    assert_eq!((about.mode() & 0o777, folder.mode() & 0o777), (0o600, 0o700));
    let line = format!("127.0.0.1:{} {key}\n", scene.recv.port);
    assert_eq!(fs::read_to_string(scene.known_hosts()).unwrap(), line);
    let second = scene.send(&[]).expect(0);
    assert!(!second.said.contains("SHA256:"), "{}", second.said);
    assert!(!scene.send(&["--strict"]).expect(0).said.contains("SHA256:"));
    // B12: the same key at another port is another receiver.
    let link = Link::to(scene.recv.port);
    let ended = Ended::of(&mut scene.send_to(link.port, &["--strict"])).expect(4);
    assert!(ended.said.contains(key), "{}", ended.said);
    assert_eq!(fs::read_to_string(scene.known_hosts()).unwrap(), line);
}

#[test]
fn a_key_is_made_once_and_is_nobody_elses_business() {
    let scene = Scene::new();
    let state = scene.place.path().join("state");
    let files: Vec<_> = walkdir::WalkDir::new(&state).into_iter().map(|entry| entry.unwrap()).collect();
    for file in files {
        let mode = file.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode, if file.file_type().is_dir() { 0o700 } else { 0o600 }, "{}", file.path().display());
    }
    let (again, key) = recv_with_key(&scene.recv.root, &state, 0);
    assert_eq!(key, scene.key);
    drop(again);
    let (_other, key) = recv_with_key(&scene.recv.root, &scene.place.path().join("other"), 0);
    assert_ne!(key, scene.key);
}

// B12
#[test]
fn a_key_that_is_not_trusted_stops_all_before_anything_is_sent() {
    let scene = Scene::new();
    let link = Link::to(scene.recv.port);
    let other = format!("127.0.0.1:{} {OTHER_KEY}\n", link.port);
    for (known, flags, words) in [
        ("", &["--host_key", OTHER_KEY][..], &[OTHER_KEY, "nothing was sent"][..]),
        ("", &["--strict"], &["not known", "--host_key"]),
        (&other, &[], &["CHANGED", OTHER_KEY, "nothing was sent"]),
        (&other, &["--strict"], &["CHANGED", OTHER_KEY]),
    ] {
        if !known.is_empty() {
            scene.knows(known);
        }
        let before = link.connections();
        let ended = Ended::of(&mut scene.send_to(link.port, flags)).expect(4);
        for word in words.iter().chain(&[&scene.key[..]]) {
            assert!(ended.said.contains(word), "{flags:?}: no '{word}' in {}", ended.said);
        }
        assert_eq!((ended.number("exit_code"), &ended.json["outcome"]), (4, &"refused".into()));
        // It is not asked again until someone says yes.
        assert_eq!(link.connections(), before + 1);
        assert_eq!(known_or_empty(&scene), known, "{flags:?}");
    }
    scene.expect_nothing();
    // One hello of TLS a time and an alert, nothing of what was to be sent.
    let starts = link.starts();
    assert!(starts.starts_with(&[0x16, 3, 1]) && link.forth() < 4 * 2500, "{} bytes", link.forth());
    for secret in [&b"\x8fPTF"[..], b"/in", b"content"] {
        assert!(!starts.windows(secret.len()).any(|window| window == secret));
    }
}

fn known_or_empty(scene: &Scene) -> String {
    fs::read_to_string(scene.known_hosts()).unwrap_or_default()
}

#[test]
fn a_key_that_is_asked_for_is_taken_and_leaves_no_trace() {
    let scene = Scene::new();
    scene.send(&["--host_key", &scene.key, "--strict"]).expect(0);
    let wrong = format!("127.0.0.1:{} {OTHER_KEY}\n", scene.recv.port);
    scene.knows(&wrong);
    // Who names a key knows better than a file.
    scene.send(&["--host-key", &scene.key]).expect(0);
    assert_eq!(known_or_empty(&scene), wrong);
    for nonsense in ["", "SHA256:", "SHA256:AAAA", "MD5:00", &scene.key[7..], &format!("{}=", scene.key)] {
        let ended = scene.send(&["--host_key", nonsense]);
        assert_eq!(ended.code, Some(2), "'{nonsense}': {}", ended.said);
    }
    for flags in [["--plain", "--strict"], ["--strict", "--protocol=v1"]] {
        assert!(matches!(scene.send(&flags).code, Some(1 | 2)), "{flags:?}");
    }
}

// B12
#[test]
fn a_receiver_that_was_set_up_anew_is_not_trusted_until_its_line_is_removed() {
    let scene = Scene::new();
    scene.send(&[]).expect(0);
    let Scene { place, recv, key } = scene;
    let port = recv.port;
    drop(recv);
    fs::remove_dir_all(place.path().join("state")).unwrap();
    fs::remove_dir_all(place.path().join("root/in")).unwrap();
    let (recv, new_key) = recv_with_key(&place.path().join("root"), &place.path().join("state"), port);
    let scene = Scene { place, recv, key };
    assert_ne!(new_key, scene.key);
    let ended = scene.send(&[]).expect(4);
    for word in ["CHANGED", &scene.key, &new_key, "line 1", "known_hosts"] {
        assert!(ended.said.contains(word), "no '{word}' in {}", ended.said);
    }
    scene.expect_nothing();
    scene.knows("");
    scene.send(&[]).expect(0);
    assert!(known_or_empty(&scene).contains(&new_key));
}

// B13
#[test]
fn a_hosts_name_is_kept_in_lower_case_and_found_in_any_be_it_a_server_or_a_relay() {
    let (scene, place) = (Scene::new(), temp_dir());
    let port = scene.recv.port;
    let mut relay = recv_command();
    relay.args(["--port", "0", "--relay_to", &format!("localhost:{port}"), "--state_dir"]).arg(place.path().join("state"));
    let (relay, line) = recv_with_line(&mut relay, place.path());
    let relay_key = line.strip_prefix("host key ").unwrap();
    let send = |server: &str, flags: &[&str]| {
        let mut command = send_command();
        command.args(["--server", server, "--port", &port.to_string(), "--remote_dir", "in", "--ip_version", "4", "--file"]);
        command.arg(scene.place.path().join("source")).arg("--known_hosts").arg(scene.known_hosts()).args(flags);
        Ended::of(&mut command)
    };
    let via = ["--no_direct", "--via", &format!("LOCALHOST:{}", relay.port)];
    send("LocalHost", &[]).expect(0);
    assert_eq!(fs::read_to_string(scene.known_hosts()).unwrap(), format!("localhost:{port} {}\n", scene.key));
    send("LOCALHOST", &via).expect(0);
    let kept = format!("localhost:{port} {}\nlocalhost:{} {relay_key}\n", scene.key, relay.port);
    assert_eq!(fs::read_to_string(scene.known_hosts()).unwrap(), kept);
    // Kept as they were typed, once.
    let other = format!("SHA256:{}", "A".repeat(43));
    for (key, relays_key, code) in [(&*scene.key, relay_key, 0), (&other, relay_key, 4), (&scene.key, &other, 4)] {
        scene.knows(&format!("LocalHOST:{port} {key}\nlocalHOST:{} {relays_key}\n", relay.port));
        send("localhost", &[&via[..], &["--strict"]].concat()).expect(code);
    }
}

#[test]
fn known_hosts_that_are_of_no_use_never_make_a_key_acceptable() {
    let scene = Scene::new();
    let (port, key) = (scene.recv.port, scene.key.clone());
    let good = format!("127.0.0.1:{port} {key}\n");
    let half = &good[..good.len() - 9];
    let large = format!("{good}{}", "#\n".repeat(5 << 20));
    for (content, mode) in [
        (half.as_bytes(), 0o600),
        (&good.as_bytes()[..12], 0o600),
        (&[&b"\xff\xfe\0\n"[..], good.as_bytes()].concat(), 0o600),
        (large.as_bytes(), 0o600),
        (good.as_bytes(), 0o666),
        (good.as_bytes(), 0o620),
        (format!("{good}other:1 SHA256:short\n").as_bytes(), 0o600),
    ] {
        for flags in [&[][..], &["--strict"]] {
            write(&scene.known_hosts(), content);
            set_mode(&scene.known_hosts(), mode);
            let ended = scene.send(flags).expect(4);
            assert!(ended.said.contains("known_hosts"), "{}", ended.said);
            assert!(fs::read(scene.known_hosts()).unwrap() == content);
        }
    }
    // Things that are no file at all.
    let folder = scene.known_hosts().parent().unwrap().to_path_buf();
    let makes: [fn(&Path); 4] = [
        |path| fs::create_dir(path).unwrap(),
        |path| symlink("known_hosts", path).unwrap(),
        |path| symlink("/dev/zero", path).unwrap(),
        |path| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        },
    ];
    for make in makes {
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        make(&scene.known_hosts());
        let ended = scene.send(&[]).expect(4);
        assert!(ended.said.contains("known_hosts"), "{}", ended.said);
    }
    // A place where nothing can be kept.
    fs::remove_dir_all(&folder).unwrap();
    write(&folder, "a file where the folder should be");
    let ended = scene.send(&[]).expect(4);
    assert!(ended.said.contains("known_hosts"), "{}", ended.said);
    scene.expect_nothing();
}

// B13
#[test]
fn known_hosts_that_may_not_be_read_are_no_empty_ones() {
    let scene = Scene::new();
    scene.knows(&format!("127.0.0.1:{} {OTHER_KEY}\n", scene.recv.port));
    let all = scene.known_hosts();
    for path in [&scene.place.path().join("home"), all.parent().unwrap(), &scene.place.path().join("source")] {
        set_mode(path, 0o755);
    }
    set_mode(&all, 0o000);
    let Some(mut command) = as_nobody(env!("CARGO_BIN_EXE_send"), scene.place.path()) else {
        println!("SKIPPED B13 (unreadable): can't run as another user");
        return;
    };
    command.args(["--server", "127.0.0.1", "--port", &scene.recv.port.to_string(), "--remote_dir", "in", "--file"]);
    command.arg(scene.place.path().join("source")).arg("--known_hosts").arg(&all);
    let ended = Ended::of(&mut command).expect(4);
    assert!(ended.said.contains("known_hosts") && ended.said.contains("ermission"), "{}", ended.said);
    scene.expect_nothing();
}

#[test]
fn any_other_program_finds_tls_1_3_and_the_same_fingerprint() {
    let mut scene = Scene::new();
    if !can(Command::new("openssl").arg("version")) {
        println!("SKIPPED: no openssl here");
        return;
    }
    let port = scene.recv.port;
    let openssl = |flags: &[&str], input: &[u8]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]).args(flags);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input);
        text(&child.wait_with_output().unwrap().stdout)
    };
    let said = openssl(&[], b"");
    assert!(said.contains("TLSv1.3") && said.contains("BEGIN CERTIFICATE"), "{said}");
    let mut x509 = Command::new("openssl");
    x509.args(["x509", "-noout", "-fingerprint", "-sha256"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut x509 = x509.spawn().unwrap();
    x509.stdin.take().unwrap().write_all(said.as_bytes()).unwrap();
    let shown = text(&x509.wait_with_output().unwrap().stdout);
    let fingerprint = shown.trim().rsplit('=').next().unwrap();
    assert_eq!(fingerprint.len(), 95, "{shown}");
    scene.send(&["--host_key", fingerprint]).expect(0);
    scene.send(&["--host_key", &fingerprint.replacen(|char: char| char != '0' && char != ':', "0", 1)]).expect(4);
    // B09: nothing older, and nothing but version 2 inside.
    let old = openssl(&["-tls1_2"], b"");
    assert!(!old.contains("BEGIN CERTIFICATE"), "{old}");
    for v1 in [cd("made"), cf("made")] {
        openssl(&["-quiet", "-no_ign_eof"], &v1);
    }
    scene.recv.expect_idle();
    assert!(!scene.recv.path("made").exists());
}

// B09
#[test]
fn what_is_neither_protocol_is_closed_with_a_short_word() {
    let scene = Scene::new();
    let Scene { mut recv, .. } = scene;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"\x80\x2e\x01\x00\x02",
        b"\x16\x03\x00\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x05GET /",
        b"\x8fPTG",
        b"\x8f",
        b"\x16",
    ] {
        let start = Instant::now();
        let answer = recv.raw(bytes);
        assert!(answer.len() <= 7 && start.elapsed() < Duration::from_secs(5), "{bytes:?}: {answer:?}");
    }
    recv.expect_idle();
    let log = recv.process.log();
    assert!(log.lines().all(|line| line.len() < 300), "{log}");
    yard::expect_printable(&log);
}

#[test]
fn every_way_to_verify_works_in_tls_and_in_clear() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    write_sparse(&source.path().join("sparse"), 5_000_000, 10_000, 3);
    write(&source.path().join("block"), noise(65_536, 1));
    write(&source.path().join("blocks"), noise(262_144, 2));
    let recv = Recv::start(root.path());
    for checksum in ["xxh3", "blake3", "none"] {
        for plain in [&[][..], &["--plain"]] {
            for length in ["10000", "300000", "16M"] {
                let flags = [plain, &["--checksum", checksum, "--length", length]].concat();
                Ended::of(&mut send_to(recv.port, source.path(), "in", &flags)).expect(0);
                assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
                fs::remove_dir_all(recv.path("in")).unwrap();
            }
        }
    }
    assert_eq!(Ended::of(&mut send_to(recv.port, source.path(), "in", &["--checksum", "md5"])).code, Some(2));
}

/// Sends a small tree once for each place, with one bit flipped there; fails if a wrong file is ever
/// published, or if all is said to be well and is not. Gives what was said where it could not be repaired.
fn flip_at(places: &[u64], flags: &[&str], knobs_of: impl Fn(usize, u64) -> Knobs + Copy + Send + Sync + 'static) -> Vec<String> {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    symlink("target", source.path().join("link")).unwrap();
    fs::hard_link(source.path().join("one byte"), source.path().join("twin")).unwrap();
    let mut recv = Recv::start(root.path());
    let threads = recv.process.resources().1;
    let fine = [&["--length", "500000", "--stall_timeout", "5s", "--retry_for", "2s"], flags].concat();
    let unrepaired = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for part in places.chunks(places.len().div_ceil(4)) {
            let (recv, fine, source, unrepaired) = (&recv, &fine, source.path(), &unrepaired);
            scope.spawn(move || {
                for &place in part {
                    let link = Link::with(recv.port, move |index| knobs_of(index, place));
                    let (target, home) = (format!("at {place}"), temp_dir());
                    let mut command = send_to(link.port, source, &target, fine);
                    let ended = Ended::of(command.env("XDG_CONFIG_HOME", home.path()));
                    assert!(matches!(ended.code, Some(0 | 1 | 3 | 4)), "at {place}: {:?} {}", ended.code, ended.said);
                    let target = recv.path(&target);
                    if ended.code == Some(0) {
                        assert_kept(source, &target, is_root(), |_| false);
                    } else {
                        assert!(!ended.said.contains("panicked"), "at {place}: {}", ended.said);
                        unrepaired.lock().unwrap().push(format!("at {place}: {:?} {}", ended.code, ended.said));
                        let names = if target.exists() { list(&target) } else { Vec::new() };
                        for name in names.iter().filter(|name| !name.contains(".ptf-") && target.join(name).is_file()) {
                            assert!(source.join(name).exists(), "at {place}: {name} was never sent");
                            let is_same = fs::read(target.join(name)).unwrap() == fs::read(source.join(name)).unwrap();
                            assert!(is_same, "at {place}: {name} is wrong");
                        }
                    }
                }
            });
        }
    });
    // A job that ended badly may be taken up again for a while.
    wait_until("no connection is served any more", || recv.process.resources().1 == threads);
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(0));
    expect_kept(root.path(), leftovers(root.path()).len() / 2);
    unrepaired.into_inner().unwrap()
}

// B08
#[test]
fn a_bit_that_flips_in_clear_never_makes_a_wrong_file() {
    // The control connection: greeting, job, folders, links, the end.
    let places: Vec<u64> = (0..30).chain((30..900).step_by(23)).collect();
    flip_at(&places, &["--plain"], |index, at| Knobs { flip: (index == 0).then_some(at), ..Knobs::default() });
    // A connection that carries content: greeting, headers, blocks, digests, marks. Another repairs it.
    let places: Vec<u64> =
        (60..240).step_by(7).chain([5_000, 65_600, 65_700, 100_000, 262_300, 262_400, 300_000, 500_100, 500_200]).collect();
    let unrepaired = flip_at(&places, &["--plain"], |index, at| Knobs { flip: (index == 1).then_some(at), ..Knobs::default() });
    assert!(unrepaired.is_empty(), "one connection was bad, and there were others: {unrepaired:#?}");
    // Answers.
    let places: Vec<u64> = (0..120).step_by(5).collect();
    flip_at(&places, &["--plain"], |index, at| Knobs { flip_answer: (index < 2).then_some(at), ..Knobs::default() });
}

// B08
#[test]
fn a_bit_that_flips_in_tls_never_makes_a_wrong_file() {
    let places: Vec<u64> = [0, 1, 3, 5, 6, 11, 50, 200, 500, 1000, 1400, 1800, 2000, 2200].to_vec();
    flip_at(&places, &[], |index, at| Knobs { flip: (index == 0).then_some(at), ..Knobs::default() });
    let places: Vec<u64> = [0, 5, 700, 1900, 2500, 20_000, 100_000, 300_000, 600_000].to_vec();
    let unrepaired = flip_at(&places, &[], |index, at| Knobs { flip: (index == 1).then_some(at), ..Knobs::default() });
    assert!(unrepaired.is_empty(), "one connection was bad, and there were others: {unrepaired:#?}");
    let places: Vec<u64> = [0, 4, 5, 44, 80, 128, 300, 800, 1200, 1500].to_vec();
    flip_at(&places, &[], |index, at| Knobs { flip_answer: (index < 2).then_some(at), ..Knobs::default() });
    // Without digests TLS alone finds it.
    flip_at(&[2500, 100_000], &["--checksum", "none"], |index, at| Knobs {
        flip: (index == 1).then_some(at),
        ..Knobs::default()
    });
}

// B08
#[test]
fn a_file_whose_blocks_are_always_altered_fails_by_name_and_its_old_version_stays() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("bad"), noise(700_000, 1));
    let recv = Recv::start(root.path());
    write(&recv.path("in/bad"), "old");
    // In every connection that carries content.
    let link = Link::with(recv.port, |index| Knobs { flip: (index > 0).then_some(200_000), ..Knobs::default() });
    let ended = Ended::of(&mut send_to(link.port, source.path(), "in", &["--plain"]));
    assert!(matches!(ended.code, Some(0 | 3)), "{}", ended.said);
    let arrived = fs::read(recv.path("in/bad")).unwrap();
    if ended.code == Some(3) {
        assert_eq!((arrived.as_slice(), ended.failed().contains("bad")), (&b"old"[..], true));
    } else {
        // The connection went on after the bad block, and the second try went through.
        assert!(arrived == noise(700_000, 1) && ended.number("repeated_bytes") > 0, "{}", ended.json);
    }
    assert_eq!(leftovers(root.path()), [""; 0]);
}

#[test]
fn a_receiver_that_speaks_something_else_ends_soon_with_the_flag_that_would_help() {
    let (source, target) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let (_peer, v1_port) = start_v1_peer(target.path(), &[]);
    // One that takes connections and says nothing, one that closes, one that says something else.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let serve = |greeting: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(greeting);
            }
        });
        port
    };
    let ports =
        [v1_port, silent.local_addr().unwrap().port(), serve(b""), serve(b"SSH-2.0-OpenSSH_9.6\r\n"), serve(b"220 hello\r\n")];
    thread::scope(|scope| {
        for port in ports {
            for flags in [&[][..], &["--plain"]] {
                let source = source.path();
                scope.spawn(move || {
                    let start = Instant::now();
                    let ended = Ended::of(&mut send_to(port, source, "in", flags)).expect(1);
                    assert!(ended.said.contains("--protocol v1"), "{flags:?}: {}", ended.said);
                    assert!(start.elapsed() < Duration::from_secs(20), "{flags:?}: {:?}", start.elapsed());
                });
            }
        }
    });
    assert_eq!(list(target.path()), [""; 0]);
    // The flag helps.
    expect_code(&mut send_v1(v1_port, source.path(), target.path().join("in"), &[]), 0);
    assert_same(source.path(), &target.path().join("in"));
}

// A20
#[test]
fn one_port_serves_v1_and_v2_in_tls_and_in_clear() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let mut recv = Recv::start(root.path());
    thread::scope(|scope| {
        for (name, flags) in [("tls", &[][..]), ("plain", &["--plain"])] {
            let (source, port) = (source.path(), recv.port);
            scope.spawn(move || expect_code(&mut send_to(port, source, name, flags), 0));
        }
        let mut peer = v1_peer();
        peer.args(["send", "--host", "127.0.0.1", "--port", &recv.port.to_string(), "--remote_dir", "v1", "--file"]);
        expect_code(peer.arg(source.path()), 0);
    });
    for name in ["tls", "plain", "v1"] {
        assert_same(source.path(), &recv.path(name));
    }
    recv.expect_idle();
}
