//! The flags that version 2 alone has, its lengths, and what it tells people and programs.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::judge::*;
use common::link::Link;
use common::sender::*;
use common::*;
use parallel_transfer::client::{self, Filter, Job, Login, Look, Target, Watcher, new_token};
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::progress::Progress;
use parallel_transfer::protocol::v2::pipe::{self, Ending, Frame, Report};
use parallel_transfer::protocol::{Features, Open, Purpose};
use parallel_transfer::stop::Stop;

/// The outside judge of digests; false where there is none.
fn b3sum_agrees(folder: &Path, manifest: &Path, files: usize) -> bool {
    let mut command = Command::new("b3sum");
    let Ok(output) = command.arg("--check").arg(manifest).current_dir(folder).output() else {
        println!("SKIPPED: no b3sum here (cargo install b3sum --locked)");
        return false;
    };
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(text(&output.stdout).lines().filter(|line| line.ends_with(": OK")).count(), files, "{said}");
    true
}

fn make_digestible_tree(top: &Path, is_small: bool) -> usize {
    let lens: &[usize] = if is_small {
        &[0, 1, 2, 1000, 1025]
    } else {
        &[
            0,
            1,
            1024,
            1025,
            65_535,
            65_536,
            65_537,
            131_072,
            262_143,
            262_144,
            262_145,
            300_000,
            524_288,
            786_432,
            1 << 20,
            (1 << 20) + 1,
            2_500_000,
        ]
    };
    for (index, len) in lens.iter().enumerate() {
        write(&top.join(format!("d{}/f{len}", index % 3)), noise(*len, index as u64));
    }
    for name in ["line\nfeed", "back\\slash", "both\\n\n\r", " space", "-dash", "ünï"] {
        write(&top.join("odd").join(name), name);
    }
    fs::hard_link(top.join("odd/-dash"), top.join("odd/twin")).unwrap();
    symlink("-dash", top.join("odd/link")).unwrap();
    if !is_small {
        write_sparse(&top.join("sparse"), 3_000_000, 70_000, 2);
        fs::File::create(top.join("hole")).unwrap().set_len(1_000_000).unwrap();
    }
    lens.len() + 6 + if is_small { 0 } else { 2 }
}

#[test]
fn a_manifest_has_the_digest_of_every_file_however_it_was_cut() {
    for length in ["1", "1000", "64KiB", "256KiB", "300000", "16MiB"] {
        let (source, root, place) = (temp_dir(), temp_dir(), temp_dir());
        let files = make_digestible_tree(source.path(), length == "1");
        let (recv, manifest) = (Recv::start(root.path()), place.path().join("manifest"));
        let flags = ["--length", length, "--manifest", manifest.to_str().unwrap(), "--process_num", "2", "--thread_num", "2"];
        Ended::of(&mut send_to(recv.port, source.path(), "in", &flags)).expect(0);
        assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
        let sorted = |path: &Path| {
            let mut lines: Vec<String> = fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let first = sorted(&manifest);
        assert!(first.len() >= files, "{length}: {first:?}");
        if !b3sum_agrees(&recv.path("in"), &manifest, first.len()) {
            return;
        }
        // A name for each that a hard link gave another one would be fine; all others are there once.
        assert!(first.len() <= files + 1 && first.iter().filter(|line| line.starts_with('\\')).count() == 3, "{first:?}");
        // Complete also where nothing is sent, and where some is.
        let ended = Ended::of(&mut send_to(recv.port, source.path(), "in", &flags)).expect(0);
        assert_eq!((ended.sent(), sorted(&manifest)), (0, first.clone()), "{length}");
        write(&source.path().join("d1/f1"), "changed");
        Ended::of(&mut send_to(recv.port, source.path(), "in", &flags)).expect(0);
        assert_eq!(sorted(&manifest).len(), first.len());
        b3sum_agrees(&recv.path("in"), &manifest, first.len());
        // And on this machine.
        Ended::of(&mut copy_to(source.path(), &place.path().join("copy"), &flags)).expect(0);
        b3sum_agrees(&place.path().join("copy"), &manifest, first.len());
    }
}

#[test]
fn a_manifest_names_what_it_can_not_hold_and_what_it_can_not_be() {
    let (source, root, place) = (temp_dir(), temp_dir(), temp_dir());
    write(&source.path().join(OsStr::from_bytes(b"latin-\xe9")), "x");
    write(&source.path().join("good"), "x");
    let (recv, manifest) = (Recv::start(root.path()), place.path().join("manifest"));
    let manifest = manifest.to_str().unwrap();
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "in", &["--manifest", manifest]));
    let ended = ended.expect_failed(&["latin-\\xe9"], "not in the manifest");
    assert_eq!((ended.number("files"), fs::read_to_string(manifest).unwrap().lines().count()), (2, 1));
    assert_same(source.path(), &recv.path("in"));
    for (flags, code) in [
        (&["--manifest", "/no/such/folder/manifest"][..], 1),
        (&["--manifest", place.path().to_str().unwrap()], 1),
        (&["--manifest", manifest, "--checksum", "xxh3"], 1),
        (&["--manifest", manifest, "--checksum", "none"], 1),
        (&["--manifest", manifest, "--dry_run"], 2),
        (&["--manifest", manifest, "--protocol", "v1"], 1),
    ] {
        let ended = Ended::of(&mut send_to(recv.port, source.path(), "other", flags));
        assert_eq!(ended.code, Some(code), "{flags:?}: {}", ended.said);
        assert!(ended.said.contains("manifest"), "{flags:?}: {}", ended.said);
        assert!(!recv.path("other").exists(), "{flags:?}");
    }
    // A disk that takes no more is no success.
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "more", &["--manifest", "/dev/full", "--exclude", "latin*"]));
    assert!(ended.code == Some(1) && ended.said.contains("manifest '/dev/full'"), "{}", ended.said);
}

#[test]
fn all_is_synced_once_when_asked_for_and_never_otherwise() {
    let (source, place) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let traced = |flags: &[&str], target: &str| {
        let log = place.path().join("log");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=sync,syncfs,fsync,fdatasync", "-o"]).arg(&log);
        command.arg(env!("CARGO_BIN_EXE_send")).arg("--file").arg(source.path());
        command.arg("--remote_dir").arg(place.path().join(target)).args(flags);
        match command.output() {
            Ok(output) if output.status.success() => Some(fs::read_to_string(log).unwrap().matches("syncfs(").count()),
            _ => None,
        }
    };
    let (Some(with), Some(without)) = (traced(&["--fsync"], "with"), traced(&[], "without")) else {
        println!("SKIPPED: no strace here, or it may not trace");
        return;
    };
    assert_eq!((with, without), (1, 0));
    assert_same(source.path(), &place.path().join("with"));
    let root = temp_dir();
    let recv = Recv::start(root.path());
    Ended::of(&mut send_to(recv.port, source.path(), "in", &["--fsync"])).expect(0);
    assert_same(source.path(), &recv.path("in"));
}

#[test]
fn a_dry_run_names_what_would_be_sent_and_changes_nothing_at_all() {
    let source = temp_dir();
    make_awkward_tree(source.path());
    in_each_way(|way| {
        let output = expect_code(&mut way.send(source.path(), &["--dry_run"]), 0);
        assert!(!way.target.exists(), "{}: it made the folder", way.name);
        let named = text(&output.stdout);
        for name in ["a/large", "empty", "names/line\\nfeed", "links/dangling", "zz/deeper/three", "blocks/sparse"] {
            assert_eq!(named.lines().filter(|line| *line == name).count(), 1, "{}: '{name}' in {named}", way.name);
        }
        assert!(text(&output.stderr).contains("would send"), "{}", text(&output.stderr));

        Ended::of(&mut way.send(source.path(), &[])).expect(0);
        write(&source.path().join("a/small"), way.name);
        set_mode(&way.target.join("exact"), 0o640);
        let before = look_at_all(&way.target, true);
        let output = expect_code(&mut way.send(source.path(), &["--dry-run", "--fsync", "--backup"]), 0);
        let named = text(&output.stdout);
        assert!(named.lines().any(|line| line == "a/small") && !named.contains("a/large"), "{}: {named}", way.name);
        assert_eq!(look_at_all(&way.target, true), before, "{}", way.name);
        let ended = run(way.send(source.path(), &["--dry_run", "--json", "--quiet"]).arg("--exclude").arg("*"));
        assert_eq!(ended.status.code(), Some(0));
        let json: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!((&json["exit_code"], &json["failed"]), (&0.into(), &0.into()));
    });
    open_up(source.path());
}

#[test]
fn a_dry_run_in_json_is_one_object() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let recv = Recv::start(root.path());
    let output = expect_code(&mut send_to(recv.port, source.path(), "in", &["--dry_run", "--json"]), 0);
    let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
    let json = parsed.unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)));
    assert_eq!((&json["outcome"], &json["bytes"], &json["found_files"]), (&"complete".into(), &0.into(), &10.into()));
    assert_eq!(list(root.path()), [""; 0]);
}

#[test]
fn a_rate_is_kept_over_all_connections_together() {
    let (source, root) = (temp_dir(), temp_dir());
    (0..8).for_each(|index| write(&source.path().join(format!("{index}")), noise(128 << 10, index)));
    let recv = Recv::start(root.path());
    for flags in [
        &["--bwlimit", "1M"][..],
        &["--bwlimit", "1MiB", "--plain", "--length", "100000"],
        &["--bwlimit", "1M", "--protocol", "v1"],
    ] {
        let start = Instant::now();
        Ended::of(&mut send_to(recv.port, source.path(), "in", flags)).expect(0);
        assert!(start.elapsed() >= Duration::from_millis(700), "{flags:?}: {:?}", start.elapsed());
        assert_same(source.path(), &recv.path("in"));
        fs::remove_dir_all(recv.path("in")).unwrap();
    }
    for nonsense in ["0", "-1", "fast"] {
        assert_eq!(Ended::of(&mut send_to(recv.port, source.path(), "in", &["--bwlimit", nonsense])).code, Some(2));
    }
}

#[test]
fn a_congestion_control_is_used_or_named() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let recv = Recv::start(root.path());
    let which = if is_root() { "available" } else { "allowed" };
    let available = fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{which}_congestion_control")).unwrap_or_default();
    for name in ["cubic", "reno"] {
        if !available.contains(name) {
            println!("SKIPPED: {name} is not to be had from this kernel");
            continue;
        }
        let ended = Ended::of(&mut send_to(recv.port, source.path(), name, &["--congestion", name])).expect(0);
        assert_same(source.path(), &recv.path(name));
        assert_eq!(ended.json["congestion"], name);
        let _recv = Recv::start_with(&recv.root, &["--congestion", name]);
    }
    // Nothing is lost on the way to oneself.
    let usual = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    let used = if usual.trim() == "bbr" && available.contains("cubic") { "cubic" } else { usual.trim() };
    for flags in [&["--congestion", "auto"][..], &[]] {
        let ended = Ended::of(&mut send_to(recv.port, source.path(), "auto", flags)).expect(0);
        assert_eq!(ended.json["congestion"], used, "{flags:?}");
    }
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "in", &["--congestion", "nonsense"]));
    assert!(matches!(ended.code, Some(1 | 2)) && ended.said.contains("nonsense"), "{:?} {}", ended.code, ended.said);
    assert!(!recv.path("in").exists());
}

#[test]
fn what_a_worker_process_changed_to_is_known_to_its_parent() {
    let (source, root, place) = (temp_dir(), temp_dir(), temp_dir());
    for index in 0..60 {
        write(&source.path().join(format!("{index}")), noise(1_000_000, index));
    }
    let recv = Recv::start(root.path());
    // A path that loses segments is not to be had here: this says so, and goes on as the program that it is.
    let mut told = Vec::new();
    pipe::encode(&mut told, &Frame::Report(Report::of(0, Ending::Congestion, "bbr".to_owned())));
    write(&place.path().join("told"), told);
    let program = place.path().join("program");
    let script = format!("#!/bin/sh\ncat '{}/told'\nexec '{}' \"$@\"\n", place.path().display(), env!("CARGO_BIN_EXE_send"));
    write(&program, script);
    set_mode(&program, 0o755);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], recv.port));
    let job = Job {
        file: source.path().to_owned(),
        look: Look { keeps_metadata: true, owner: false, xattrs: false, filter: Filter::default() },
        dialer: Dialer::to_addresses(vec![address], PATIENCE, PATIENCE).into(),
        login: Login::Nobody,
        target: Target::Session(Open { directory: b"in".to_vec(), ..Open::plain(new_token().unwrap(), Purpose::Bring) }),
        features: Features::OURS,
        length: 1 << 20,
        process_num: 2,
        thread_num: 1,
        far_thread_num: 1,
        program: Some(program),
    };
    let (progress, stop) = (Progress::default(), Stop::new().unwrap());
    client::run(&job, &Watcher { landing: &|_| (), digest: None, again: &|| (), dry: None }, &progress, &stop).unwrap();
    assert_same(source.path(), &recv.path("in"));
    assert_eq!(progress.processes.sum(), 2);
    assert_eq!(progress.congestion().as_deref(), Some("bbr"));
}

// E10
#[test]
fn a_receiver_names_the_congestion_control_that_it_can_not_use() {
    let root = temp_dir();
    let output = run(recv_command().args(["--port", "0", "--congestion", "nonsense", "--root"]).arg(root.path()));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nonsense") && said.contains("there is"), "{said}");
}

// F01
#[test]
fn every_length_that_makes_sense_works() {
    let source = temp_dir();
    for (index, len) in [0, 1, 2, 100, 333].into_iter().enumerate() {
        write(&source.path().join(format!("d/f{len}")), noise(len, index as u64));
    }
    for plain in [&[][..], &["--plain"]] {
        let root = temp_dir();
        let recv = Recv::start(root.path());
        for length in ["1", "7", "1572864", "1.5M", "9223372036854775808", "18446744073709551615"] {
            for checksum in ["xxh3", "blake3"] {
                let flags = [plain, &["--length", length, "--checksum", checksum, "--process_num", "2"]].concat();
                Ended::of(&mut send_to(recv.port, source.path(), "in", &flags)).expect(0);
                assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
                fs::remove_dir_all(recv.path("in")).unwrap();
            }
        }
        for length in ["0", "-1", "18446744073709551616", "1X"] {
            let ended = Ended::of(&mut send_to(recv.port, source.path(), "in", &[plain, &["--length", length]].concat()));
            assert_eq!(ended.code, Some(2), "{length}");
        }
    }
}

#[test]
fn the_json_object_counts_what_was_done() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    symlink("one byte", source.path().join("link")).unwrap();
    fs::hard_link(source.path().join("one byte"), source.path().join("twin")).unwrap();
    let recv = Recv::start(root.path());
    let link = Link::to(recv.port);
    let ended = Ended::of(&mut send_to(link.port, source.path(), "in", &["--length", "500000"])).expect(0);
    let bytes: u64 = 1 + 4096 + 100 + 3_000_000 + 70_000 + 65_536 + 10 + 5 + 5;
    for (field, number) in [
        ("exit_code", 0),
        ("files", 10),
        ("found_files", 10),
        ("folders", 9),
        ("links", 2),
        ("bytes", bytes),
        ("found_bytes", bytes),
        ("found_links", 2),
        ("without_xattrs", 0),
        ("unchanged_files", 0),
        ("repeated_bytes", 0),
        ("lost_connections", 0),
        ("failed", 0),
        ("connections", link.connections() as u64),
    ] {
        assert_eq!(ended.number(field), number, "{field} in {}", ended.json);
    }
    let landed = recv.path("in").canonicalize().unwrap();
    assert!(ended.json["landed"].as_str().unwrap().starts_with(landed.to_str().unwrap()), "{}", ended.json);
    assert_eq!(
        (&ended.json["protocol"], &ended.json["outcome"], &ended.json["error"]),
        (&"v2".into(), &"complete".into(), &serde_json::Value::Null)
    );
    assert!(ended.json["seconds"].as_f64() > Some(0.0) && ended.json["limited_by"].as_array().unwrap().len() >= 3);
    for (name, time) in ended.json["seconds_spent"].as_object().unwrap() {
        assert!(time.as_f64() >= Some(0.0), "{name}");
    }
    let again = Ended::of(&mut send_to(recv.port, source.path(), "in", &[])).expect(0);
    assert_eq!([again.number("unchanged_files"), again.number("unchanged_bytes"), again.number("bytes")], [10, bytes, bytes]);
}

#[test]
fn entries_sent_without_their_extended_attributes_are_counted() {
    use parallel_transfer::limits::XATTRS_LEN_MAX;
    let root = temp_dir();
    let source = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| temp_dir());
    for name in ["much", "little"] {
        write(&source.path().join(name), name);
    }
    let set = |name: &str, len| {
        rustix::fs::setxattr(source.path().join("much"), name, &vec![b'x'; len], rustix::fs::XattrFlags::empty())
    };
    if set("user.a", XATTRS_LEN_MAX - 12).and_then(|()| set("user.b", 1)).is_err() {
        println!("SKIPPED: no large extended attributes in {}", source.path().display());
        return;
    }
    let recv = Recv::start(root.path());
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "in", &["--xattrs"])).expect(0);
    assert_eq!([ended.number("without_xattrs"), ended.number("files")], [1, 2], "{}", ended.said);
    let summary = |flags: &[&str]| text(&expect_code(&mut send_to(recv.port, source.path(), "in", flags), 0).stdout);
    let said = summary(&["--xattrs"]);
    assert!(said.lines().any(|line| line == "1 entry sent without its extended attributes"), "{said}");
    assert!(!summary(&[]).contains("extended attributes"));
}

#[test]
fn what_is_said_depends_on_how_much_is_asked_for() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let recv = Recv::start(root.path());
    let home = temp_dir();
    let say = |flags: &[&str]| {
        let mut command = send_to(recv.port, source.path(), "in", flags);
        let output = expect_code(command.env("XDG_CONFIG_HOME", home.path()), 0);
        (text(&output.stdout), text(&output.stderr))
    };
    let landed = root.path().canonicalize().unwrap().join("in").to_str().unwrap().to_owned();
    let (summary, said) = say(&[]);
    assert!(said.lines().any(|line| line.contains("sending") && line.contains(&landed)), "{said}");
    assert!(summary.starts_with("complete: 10 files and 9 folders, ") && summary.contains(&landed), "{summary}");
    // The key is known by now: nothing is left to be said.
    assert_eq!(say(&["--quiet"]), (String::new(), String::new()));
    let (summary, normal) = say(&[]);
    assert!(summary.contains("(10 files unchanged)"), "{summary}");
    assert!(say(&["-vv"]).1.len() >= normal.len());
    // What is long enough says what limited it.
    write(&source.path().join("long"), noise(1 << 20, 9));
    let (summary, _) = say(&["--bwlimit", "1M"]);
    let limit = summary.lines().find(|line| line.starts_with("limited by ")).unwrap_or_else(|| panic!("{summary}"));
    assert!(limit.contains(" % of the time (") && limit.ends_with(" %)"), "{limit}");
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let (source, root) = (temp_dir(), temp_dir());
    make_tree(source.path());
    let recv = Recv::start(root.path());
    let expect = |mut command: Command, code: i32, outcome: &str| {
        let ended = Ended::of(&mut command).expect(code);
        assert_eq!((ended.number("exit_code"), &ended.json["outcome"]), (code as u64, &outcome.into()), "{}", ended.json);
    };
    expect(send_to(recv.port, source.path(), "in", &[]), 0, "complete");
    expect(send_to(1, source.path(), "in", &["--retry_for", "1s"]), 1, "failed");
    expect(send_to(recv.port, &source.path().join("missing"), "in", &[]), 1, "failed");
    write(&root.path().join("blocked/empty/within"), "");
    expect(send_to(recv.port, source.path(), "blocked", &[]), 3, "partial");
    // F04: what can't be the root of a job is refused before anything lands.
    write(&root.path().join("file"), "");
    symlink("in", root.path().join("way")).unwrap();
    for remote in ["file", "file/below", "way", "way/below"] {
        expect(send_to(recv.port, source.path(), remote, &[]), 4, "refused");
    }
    assert_eq!(Ended::of(&mut send_to(recv.port, source.path(), "in", &["--checksum", "x"])).code, Some(2));
    for flags in [&["--plain", "--host_key", "x"][..], &["--fsync", "--protocol", "v1"], &["--dry_run", "--protocol", "v1"]] {
        let ended = Ended::of(&mut send_to(recv.port, source.path(), "new", flags));
        assert!(matches!(ended.code, Some(1 | 2)), "{flags:?}: {:?}", ended.code);
    }
    assert!(!recv.path("new").exists());
}
