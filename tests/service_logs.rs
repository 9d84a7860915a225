//! A receiver as a service: its log, its audit trail, its metrics.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use common::judge::AWKWARD_NAMES;
use common::metrics::*;
use common::mount::Mount;
use common::sender::{Ended, recv_with_line, send_ticket};
use common::yard::expect_printable;
use common::*;
use serde_json::Value;

/// Objects of a log in which every line is one.
fn objects(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    let objects: Vec<Value> = lines.collect();
    for object in &objects {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(object[field].is_string(), "no {field} in {object}");
        }
    }
    objects
}

/// What an audit trail says, in its order, of these events.
fn trail<'a>(objects: &'a [Value], events: &[&str]) -> Vec<&'a Value> {
    let is_one = |object: &&Value| object["target"] == "audit" && events.contains(&object["event"].as_str().unwrap());
    objects.iter().filter(is_one).collect()
}

/// The log of a receiver with an audit trail once all who came have left, and that is in it.
fn whole_log(recv: &mut Recv) -> String {
    recv.expect_idle();
    let log = || recv.process.log();
    let count = |event: &str| log().replace("\":\"", "=").matches(event).count();
    wait_until("all have left", || count("event=connect") == count("event=disconnect") && count("event=connect") > 0);
    log()
}

/// The files of days that a log has.
fn log_files(path: &Path) -> Vec<PathBuf> {
    let name = format!("{}.", path.file_name().unwrap().to_str().unwrap());
    let entries = path.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&name)).collect()
}

fn sent_tree(place: &Path) -> PathBuf {
    let source = place.join("source");
    make_tree(&source);
    source
}

// E18
#[test]
fn metrics_agree_with_the_summary_of_the_sender_and_do_not_become_more() {
    let (root, place) = (temp_dir(), temp_dir());
    let recv = Recv::start_with(root.path(), &["--metrics", "0"]);
    let port = metrics_port(&recv);
    let before = numbers(port);
    let started = before["process_start_time_seconds"];
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(started <= now && started > now - PATIENCE.as_secs_f64(), "{started}");
    let version = format!("ptf_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let not_zero = before.iter().filter(|(_, value)| **value != 0.0).map(|(name, _)| &name[..]).collect::<Vec<_>>();
    assert_eq!(not_zero, ["process_start_time_seconds", &version]);

    // One entry can't be what it is to be: there is a folder in its place.
    let source = sent_tree(place.path());
    fs::create_dir_all(root.path().join("in/one byte/x")).unwrap();
    let ended = Ended::of(&mut send_to(recv.port, &source, "in", &[])).expect(3);
    let after = numbers(port);
    let grown = |name: &str| after[name] - before[name];
    for (name, field) in
        [("ptf_files_published_total", "files"), ("ptf_files_failed_total", "failed"), ("ptf_connections_total", "connections")]
    {
        assert_eq!(grown(name), ended.number(field) as f64, "{name}");
    }
    assert_eq!(grown("ptf_bytes_received_total"), ended.sent() as f64);
    assert_eq!(grown("ptf_sessions_total"), 1.0);
    assert_eq!(grown("ptf_refused_total"), 0.0);
    for stage in ["receiving", "verifying", "writing"] {
        assert!(grown(&format!("ptf_stage_seconds_total{{stage=\"{stage}\"}}")) > 0.0, "{stage}");
    }
    assert_eq!(after["process_start_time_seconds"], started);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());

    // Nothing is counted as received that was there.
    let again = Ended::of(&mut send_to(recv.port, &source, "in", &[])).expect(3);
    assert_eq!(again.sent(), 0);
    assert_eq!(numbers(port)["ptf_bytes_received_total"], after["ptf_bytes_received_total"]);
}

#[test]
fn metrics_count_what_comes_over_v1_and_what_is_refused() {
    let (root, place) = (temp_dir(), temp_dir());
    let recv = Recv::start_with(root.path(), &["--metrics", "0"]);
    let port = metrics_port(&recv);
    let file = place.path().join("file");
    write(&file, noise(1_000_000, 1));
    expect_code(&mut send_v1(recv.port, &file, "in", &["--length", "100k"]), 0);
    assert_eq!(recv.raw(&wf("never/created", 0, b"x")), b"");
    let after = numbers(port);
    assert_eq!(after["ptf_bytes_received_total"], 1_000_000.0);
    assert_eq!((after["ptf_sessions_total"], after["ptf_refused_total"]), (0.0, 1.0));
}

#[test]
fn there_are_no_metrics_unless_asked_for() {
    let root = temp_dir();
    let recv = Recv::start(root.path());
    wait_until("it has said all", || !recv.process.more_lines().is_empty());
    assert!(recv.process.more_lines()[0].starts_with("host key "));
    assert!(!recv.process.threads().contains(&"metrics".to_owned()));
    let with = Recv::start_with(root.path(), &["--metrics", "0"]);
    metrics_port(&with);
    assert!(with.process.threads().contains(&"metrics".to_owned()));
}

#[test]
fn metrics_are_for_this_machine_unless_an_address_is_named() {
    let root = temp_dir();
    let recv = |value: &str| {
        let mut command = recv_command();
        command.args(["--port", "0", "--addr", "127.0.0.1", "--metrics", value, "--root"]).arg(root.path());
        command
    };
    let named = Recv::start_with(root.path(), &["--metrics", "0.0.0.0:0"]);
    wait_until("it says where", || named.process.more_lines().len() == 2);
    let line = named.process.more_lines()[1].clone();
    let port: u16 = line.strip_prefix("metrics on http://0.0.0.0:").unwrap().strip_suffix("/metrics").unwrap().parse().unwrap();
    numbers(port);
    for value in ["", "x", "65536", "127.0.0.1", "localhost:9100", ":9100"] {
        let output = expect_code(&mut recv(value), 2);
        assert!(text(&output.stderr).contains("--metrics"), "{}", text(&output.stderr));
    }
    // Taken already.
    let output = expect_code(&mut recv(&named.port.to_string()), 1);
    let said = text(&output.stderr);
    assert!(said.contains(&format!("127.0.0.1:{} for --metrics", named.port)), "{said}");
}

#[test]
fn whoever_sends_garbage_to_the_metrics_or_stays_silent_keeps_nobody_from_them() {
    let root = temp_dir();
    let mut recv = Recv::start_with(root.path(), &["--metrics", "0"]);
    let port = metrics_port(&recv);
    let many = [b"GET /metrics HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"GET /metrics/../../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", "400"),
        (b"\x00\xff\n\n", "400"),
        // More than may be, with no end: what is not read can cost the answer, and no more.
        (&many, "431"),
    ] {
        let answer = ask(port, request);
        assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")) || (status == "431" && answer.is_empty()), "{answer}");
    }
    // Those who stay silent, those in the midst of a request, and those who leave.
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    for (index, mut stream) in silent.iter().enumerate() {
        let _ = stream.write_all(&b"GET /metrics HTTP/1.1\r\n"[..index % 24]);
    }
    drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let start = std::time::Instant::now();
    numbers(port);
    assert!(start.elapsed() < yard::QUICK);
    drop(silent);
    recv.expect_idle();
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(0));
}

// C20
#[test]
fn an_audit_trail_in_json_says_who_did_what_with_names_escaped() {
    let (root, place) = (temp_dir(), temp_dir());
    let mut recv = Recv::start_with(root.path(), &["--log_format", "json", "--audit"]);
    let source = place.path().join("source");
    fs::create_dir_all(source.join("fo\nlder")).unwrap();
    for name in AWKWARD_NAMES {
        use std::os::unix::ffi::OsStrExt as _;
        fs::write(source.join(std::ffi::OsStr::from_bytes(name)), "12345").unwrap();
    }
    std::os::unix::fs::symlink("fo\nlder", source.join("li\u{202e}nk")).unwrap();
    let ended = Ended::of(&mut send_to(recv.port, &source, "in\u{1b}[31m", &[])).expect(0);
    let log = whole_log(&mut recv);
    expect_printable(&log);
    let objects = objects(&log);
    let (opened, put) = (trail(&objects, &["open"]), trail(&objects, &["put"]));
    assert_eq!(opened.len(), 1);
    let session = &opened[0]["session"];
    assert!(session.is_u64() && opened[0]["path"] == "in\\u{1b}[31m", "{}", opened[0]);
    assert_eq!(put.len(), AWKWARD_NAMES.len());
    for object in &put {
        assert!(object["bytes"] == 5 && object["outcome"] == "published" && object["session"] == *session, "{object}");
        let path = object["path"].as_str().unwrap();
        expect_printable(path);
        assert!(path.starts_with("in\\u{1b}[31m/") && !path.contains('\n'), "{object}");
        assert!(object["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{object}");
    }
    let paths: BTreeSet<&str> = put.iter().map(|object| object["path"].as_str().unwrap()).collect();
    for path in ["line\\nfeed", "\\u{1b}[31mred", "\\u{202e}gpj.exe", "\\xff\\xfe\\x80", "back\\\\slash"] {
        assert!(paths.contains(&*format!("in\\u{{1b}}[31m/{path}")), "no {path} in {paths:?}");
    }
    let paths_of = |event: &str| trail(&objects, &[event]).iter().map(|object| object["path"].clone()).collect::<Vec<_>>();
    assert_eq!(paths_of("mkdir"), ["in\\u{1b}[31m/fo\\nlder"]);
    assert_eq!(paths_of("link"), ["in\\u{1b}[31m/li\\u{202e}nk"]);
    let end = trail(&objects, &["end"]);
    assert_eq!(end.len(), 1);
    for (field, expected) in [("files", "files"), ("bytes", "bytes"), ("failed", "failed")] {
        assert_eq!(end[0][field].as_u64(), Some(ended.number(expected)), "{}", end[0]);
    }
    let count = |event: &str| trail(&objects, &[event]).len() as u64;
    assert_eq!((count("connect"), count("disconnect")), (ended.number("connections"), ended.number("connections")));
}

#[test]
fn an_audit_trail_names_what_was_refused_over_either_protocol() {
    let (root, place) = (temp_dir(), temp_dir());
    let mut recv = Recv::start_with(root.path(), &["--log_format", "json", "--audit", "-q"]);
    fs::create_dir_all(root.path().join("in/file/x")).unwrap();
    let file = place.path().join("file");
    write(&file, "123");
    Ended::of(&mut send_to(recv.port, &file, "in", &[])).expect(3);
    write(&root.path().join("no folder"), "");
    Ended::of(&mut send_to(recv.port, &file, "no folder/x", &[])).expect(4);
    recv.raw(&[cd("made"), cf("made/file"), wf("made/file", 0, b"1234"), cd("a\u{1b}/../../x")].concat());
    let objects = objects(&whole_log(&mut recv));
    let facts = |events: &[&str]| {
        let fact = |object: &&Value| format!("{} {} {} {}", object["event"], object["path"], object["outcome"], object["bytes"]);
        trail(&objects, events).iter().map(fact).map(|fact| fact.replace('"', "")).collect::<Vec<_>>()
    };
    let expected = [
        "put in/file refused 3",
        "mkdir made null null",
        "create made/file null null",
        "put made/file stored 4",
        "mkdir a\\\\u{1b}/../../x refused null",
    ];
    assert_eq!(facts(&["put", "mkdir", "create"]), expected);
    let refused = trail(&objects, &["refuse"]);
    assert!(refused.len() == 1 && refused[0]["reason"].as_str().unwrap().contains("'no folder/x'"), "{refused:?}");
    let reason = trail(&objects, &["put"])[0]["reason"].as_str().unwrap();
    assert!(reason.contains("folder") || reason.contains("directory"), "{reason}");
    // Those who want it quiet want the trail that they asked for, and no other line of that level.
    let chatty = objects.iter().filter(|object| object["level"] == "INFO" && object["target"] != "audit");
    assert_eq!(chatty.count(), 0);
}

#[test]
fn an_audit_trail_for_people_is_one_line_an_act_that_no_name_can_forge() {
    let (root, place) = (temp_dir(), temp_dir());
    let mut recv = Recv::start_with(root.path(), &["--audit"]);
    let source = place.path().join("source");
    write(&source.join("x outcome=refused path=y\nevent=end"), "12345");
    Ended::of(&mut send_to(recv.port, &source, "in", &[])).expect(0);
    let log = whole_log(&mut recv);
    expect_printable(&log);
    let put: Vec<&str> = log.lines().filter(|line| line.contains("event=put")).collect();
    assert_eq!(put.len(), 1, "{log}");
    let (before, path) = put[0].split_once(" path=").unwrap();
    assert_eq!(path, "in/x outcome=refused path=y\\nevent=end");
    assert!(before.contains(" INFO audit event=put peer=127.0.0.1:"), "{before}");
    assert!(before.ends_with(" bytes=5 outcome=published"), "{before}");
}

#[test]
fn there_is_no_audit_trail_unless_asked_for() {
    let (root, place) = (temp_dir(), temp_dir());
    let mut recv = Recv::start_with(root.path(), &["-vv"]);
    Ended::of(&mut send_to(recv.port, &sent_tree(place.path()), "in", &[])).expect(0);
    recv.expect_idle();
    let count = |what: &str| recv.process.log().matches(what).count();
    wait_until("all have left", || count(": connected") == count(": disconnected") && count(": connected") > 0);
    assert_eq!(count("audit"), 0, "{}", recv.process.log());
}

#[test]
fn log_files_have_the_day_in_their_names_and_old_ones_go() {
    let (root, place) = (temp_dir(), temp_dir());
    let log = place.path().join("log");
    for name in ["log.2000-01-01", "log.2000-01-01.gz", "log.old", "logs.2000-01-01"] {
        write(&place.path().join(name), name);
    }
    let flags = ["--log_file", log.to_str().unwrap(), "--log_format", "json", "--log_keep", "7"];
    let mut recv = Recv::start_with(root.path(), &flags);
    Ended::of(&mut send_to(recv.port, &sent_tree(place.path()), "in", &[])).expect(0);
    recv.expect_idle();
    let others = ["log.2000-01-01.gz", "log.old"].map(|name| place.path().join(name));
    let files: Vec<_> = log_files(&log).into_iter().filter(|path| !others.contains(path)).collect();
    let lines: Vec<Value> = files.iter().flat_map(|path| objects(&fs::read_to_string(path).unwrap())).collect();
    assert!(lines.iter().any(|line| line["message"].as_str().unwrap().contains("a job has ended")), "{lines:?}");
    // Over midnight there are two.
    for (path, date) in files.iter().zip(&lines).map(|(path, line)| (path, &line["timestamp"].as_str().unwrap()[..10])) {
        assert!(files.len() > 1 || path.ends_with(format!("log.{date}")), "{path:?} {date}");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    }
    assert!(others.iter().all(|path| path.exists()) && place.path().join("logs.2000-01-01").exists());
    assert!(!place.path().join("log.2000-01-01").exists());
    assert_eq!(recv.process.log(), "");
}

#[test]
fn a_log_file_that_can_not_be_had_is_named_before_anything_begins() {
    let (root, place) = (temp_dir(), temp_dir());
    for (path, why) in [(place.path().join("missing/log"), "No such file"), (place.path().to_owned(), "name a file in it")] {
        let mut command = recv_command();
        command.args(["--port", "0", "--log_file"]).arg(&path).arg("--root").arg(root.path());
        let output = expect_code(&mut command, 1);
        let said = text(&output.stderr);
        assert!(said.contains(path.to_str().unwrap()) && said.contains(why), "{said}");
        assert!(output.stdout.is_empty());
    }
    for flags in [["--log_keep", "0"], ["--log_format", "xml"]] {
        expect_code(recv_command().args(["--port", "0"]).args(flags), 2);
    }
}

// D15
#[test]
fn a_log_that_takes_no_line_stops_nobody_and_the_lost_lines_are_counted() {
    let (root, place) = (temp_dir(), temp_dir());
    let flags = ["--log_file", "/dev/full", "--audit", "--metrics", "0"];
    let mut recv = Recv::start_with(root.path(), &flags);
    let port = metrics_port(&recv);
    let source = sent_tree(place.path());
    Ended::of(&mut send_to(recv.port, &source, "in", &[])).expect(0);
    assert_same(&source, &root.path().join("in"));
    let lost = numbers(port)["ptf_log_lines_lost_total"];
    // Each file, at least, would have had a line.
    assert!(lost > 10.0, "{lost}");
    recv.expect_idle();
    recv.process.wait_for_log("are counted\n");
    let said = recv.process.log();
    assert!(said.lines().count() == 1 && said.contains("No space left on device"), "{said}");
    recv.process.signal("TERM");
    assert_eq!(recv.process.wait(), Some(0));
}

// D15
#[test]
fn a_log_goes_on_once_its_disk_has_room_again() {
    let (root, place) = (temp_dir(), temp_dir());
    let folder = place.path().join("logs");
    let Some(_mount) = Mount::new(&folder, "size=64k", "D15") else { return };
    // One page is left: the line that comes to its end is written in part.
    let filler = folder.join("filler");
    let _ = fs::write(&filler, noise(1 << 20, 1));
    let len = filler.metadata().unwrap().len();
    fs::OpenOptions::new().write(true).open(&filler).unwrap().set_len(len - 4096).unwrap();
    let flags = ["--log_format", "json", "--audit", "--metrics", "0", "--log_file"];
    let recv = Recv::start_with(root.path(), &[&flags[..], &[folder.join("log").to_str().unwrap()]].concat());
    let port = metrics_port(&recv);
    let source = sent_tree(place.path());
    Ended::of(&mut send_to(recv.port, &source, "in", &[])).expect(0);
    let lost = numbers(port)["ptf_log_lines_lost_total"];
    assert!(lost > 0.0, "{lost}");
    fs::remove_file(filler).unwrap();
    let second = Ended::of(&mut send_to(recv.port, &source, "in2", &[])).expect(0);
    assert_eq!(numbers(port)["ptf_log_lines_lost_total"], lost);
    let log: String = log_files(&folder.join("log")).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let (whole, torn): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.ends_with('}'));
    assert!(torn.len() <= 1, "{torn:?}");
    let objects = objects(&whole.join("\n"));
    let of_second = |event: &str| {
        let second = trail(&objects, &[event]).into_iter().filter(|object| object["session"] == 2);
        second.map(|object| object["peer"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of_second("put").len() as u64, second.number("files"), "{log}");
    let came: Vec<&str> = trail(&objects, &["connect"]).iter().map(|object| object["peer"].as_str().unwrap()).collect();
    assert!(of_second("open").iter().chain(&of_second("put")).all(|peer| came.contains(peer)), "{log}");
}

// D15
#[test]
fn a_standard_error_that_takes_no_line_is_counted_as_well() {
    let (root, place) = (temp_dir(), temp_dir());
    let mut command = recv_command();
    command.args(["--port", "0", "--addr", "127.0.0.1", "--audit", "--metrics", "0", "--root"]).arg(root.path());
    // The shell gives it a standard error of its own.
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 2>/dev/full"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        value.map(|value| shell.env(name, value));
    }
    let process = Running::start(&mut shell);
    let port_after = |line: &str| line.rsplit(':').next().unwrap().split(['/', ',']).next().unwrap().parse::<u16>().unwrap();
    wait_until("it says all", || process.more_lines().len() == 2);
    let source = sent_tree(place.path());
    Ended::of(&mut send_to(port_after(&process.first_line), &source, "in", &[])).expect(0);
    let lost = numbers(port_after(&process.more_lines()[1]))["ptf_log_lines_lost_total"];
    assert!(lost > 10.0, "{lost}");
}

#[test]
fn no_log_has_a_ticket_in_it_however_much_it_says() {
    let (root, place) = (temp_dir(), temp_dir());
    let log = place.path().join("log");
    for flags in [&["--log_format", "json"][..], &["--log_file", log.to_str().unwrap()]] {
        let mut command = recv_command();
        command.args(["--port", "0", "--once", "-vv", "--audit"]).args(flags);
        let (mut recv, line) = recv_with_line(&mut command, root.path());
        let ticket = line.strip_prefix("ticket ").unwrap();
        let secret = ticket.rsplit(' ').next().unwrap();
        assert_eq!(secret.len(), 64);
        // One that is nearly right, and one that is right.
        let last = if secret.ends_with('0') { '1' } else { '0' };
        let wrong = format!("{}{last}", &ticket[..ticket.len() - 1]);
        let file = place.path().join("file");
        write(&file, "123");
        Ended::of(&mut send_ticket(place.path(), &wrong, &file, &[])).expect(4);
        Ended::of(&mut send_ticket(place.path(), ticket, &file, &[])).expect(0);
        assert_eq!(recv.process.wait(), Some(0));
        wait_until("all of its log is here", || {
            let files = log_files(&log).iter().map(|path| fs::read_to_string(path).unwrap()).collect::<String>();
            (recv.process.log() + &files).contains("a job has ended")
        });
        let files = log_files(&log).iter().map(|path| fs::read_to_string(path).unwrap()).collect::<String>();
        let said = recv.process.log() + &files;
        assert!(said.contains("ticket was not shown"), "{said}");
        for part in [secret, &secret[..16], &secret[48..]] {
            assert!(!said.contains(part), "{said}");
        }
    }
}
