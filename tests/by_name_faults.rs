//! What goes wrong, or is done on purpose, where things are asked for by name: servers that change their
//! answers, links in the way, names that are empty, rights that are taken, users who leave.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

#[allow(dead_code, reason = "a part of it")]
#[path = "wire_v2/client.rs"]
mod client;

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use client::{Asked, browse, list_frame, open_frame};
use common::accounts::Service;
use common::fake_server::{Act, FakeServer, file, folder, page};
use common::guest::{Guest, new_token};
use common::*;
use parallel_transfer::entry::ListedKind;
use parallel_transfer::limits::NAMES_SHOWN_MAX;
use parallel_transfer::protocol::v2::request;
use parallel_transfer::protocol::{Algorithm, Answer, Credential, Open, Reply, Request, Secret, Status};

/// A shell that does commands in the folder `local`.
fn shell(port: u16, local: &Path, commands: &str) -> Command {
    let mut command = send_command();
    command.args(["shell", "--plain", "--server", "127.0.0.1", "--port", &port.to_string(), "-c", commands]);
    command.current_dir(local).stdin(Stdio::null());
    command
}

// C20
#[test]
fn who_fetches_a_file_gets_no_folder_in_its_place() {
    // As a folder its contents would land beside what else is here: `.bashrc`, for one.
    let server = FakeServer::start(|asked| match asked.request {
        Request::List(list) if list.itself && asked.path == "x" && asked.times == 0 => {
            Act::Say(page(true, vec![file(b"", "x", 5)]))
        }
        _ => Act::Honest,
    });
    let local = temp_dir();
    let output = expect_code(&mut shell(server.port, local.path(), "get x"), 1);
    let said = text(&output.stderr);
    assert!(said.contains("it is a folder now"), "{said}");
    assert_eq!(list(local.path()), [""; 0]);
}

// C20
#[test]
fn who_fetches_a_folder_gets_no_file_in_its_place() {
    let server = FakeServer::start(|asked| match asked.request {
        Request::List(list) if list.itself && asked.path == "x/a" && asked.times == 0 => Act::Say(page(true, vec![folder(b"")])),
        _ => Act::Honest,
    });
    let local = temp_dir();
    let output = expect_code(&mut shell(server.port, local.path(), "get x/a"), 1);
    assert!(text(&output.stderr).contains("it is no folder any more"), "{}", text(&output.stderr));
    assert_eq!(list(local.path()), [""; 0]);
}

// C03
#[test]
fn a_folder_is_not_fetched_through_a_link_of_its_name() {
    let (root, local, outside) = (temp_dir(), temp_dir(), temp_dir());
    write(&root.path().join("docs/a.txt"), "a");
    let recv = Recv::start(root.path());
    // It may have come with what was fetched before.
    symlink(outside.path(), local.path().join("docs")).unwrap();
    let output = expect_code(&mut shell(recv.port, local.path(), "get docs"), 1);
    assert!(text(&output.stderr).contains("docs is a symbolic link"), "{}", text(&output.stderr));
    assert_eq!(list(outside.path()), [""; 0]);
    fs::remove_file(local.path().join("docs")).unwrap();
    fs::create_dir(local.path().join("docs")).unwrap();
    expect_code(&mut shell(recv.port, local.path(), "get docs; lcd docs; get /docs/a.txt"), 0);
    assert_eq!(list(local.path()), ["docs", "docs/a.txt"]);
}

// C25
#[test]
fn an_empty_name_stands_for_nothing() {
    let (root, local) = (temp_dir(), temp_dir());
    write(&root.path().join("kept"), "x");
    write(&local.path().join("private"), "x");
    let recv = Recv::start(root.path());
    for commands in
        ["put ''", "put '' private", "get ''", "rm -rf ''", "rmdir ''", "mkdir -p ''", "mv kept ''", "put -t '' private"]
    {
        let output = run(&mut shell(recv.port, local.path(), commands));
        let said = text(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 3)) && said.contains("empty"), "{commands}: {:?} {said}", output.status);
        assert!(root.path().join("kept").exists(), "{commands}");
        assert_eq!(list(root.path()).len(), 1 + usize::from(commands.starts_with("put '' ")), "{commands}");
        let _ = fs::remove_file(root.path().join("private"));
    }
}

// C25
#[test]
fn a_forced_removal_is_content_with_no_match_and_with_nothing_else() {
    let server = FakeServer::start(|asked| {
        if asked.is_contents_of("x") {
            let names: Vec<_> = (0..=NAMES_SHOWN_MAX).map(|number| file(number.to_string().as_bytes(), "x", 1)).collect();
            let (most, last) = names.split_at(NAMES_SHOWN_MAX);
            let most = most.chunks(500).flat_map(|names| page(false, names.to_vec()));
            return Act::Say(most.chain(page(true, last.to_vec())).collect());
        }
        Act::Honest
    });
    let local = temp_dir();
    let output = expect_code(&mut shell(server.port, local.path(), "cd x; rm -f *"), 1);
    assert!(text(&output.stderr).contains("has more than"), "{}", text(&output.stderr));
    expect_code(&mut shell(server.port, local.path(), "rm -f *.none"), 0);
}

/// A file of this size, all of it a hole: who sums it up is at it for minutes.
fn make_large(file: &Path, size: u64) {
    File::create(file).unwrap().set_len(size).unwrap();
}

/// Waits until a process has read much.
fn wait_until_it_reads(pid: u32) {
    let read = || {
        let counts = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        counts.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok()).unwrap()
    };
    let before = read();
    wait_until("it reads", || read() - before > 100_000_000);
}

// B20
#[test]
fn work_ends_that_nobody_waits_for() {
    let (root, local) = (temp_dir(), temp_dir());
    make_large(&root.path().join("large"), 1 << 40);
    let mut recv = Recv::start(root.path());
    let mut asking = shell(recv.port, local.path(), "sum large").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until_it_reads(recv.process.pid());
    signal_to(asking.id(), "INT");
    assert_eq!(asking.wait().unwrap().code(), Some(130));
    recv.expect_idle();
}

fn sum(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    request::encode_sum(&mut bytes, &client::path(name), Algorithm::Blake3);
    bytes
}

/// Alice, who works in her home.
fn alice(service: &Service) -> Guest {
    let (user, password) = (b"alice".to_vec(), Secret::from(b"pw of alice".to_vec()));
    let open = Open { token: new_token(), credential: Credential::Password { user, password }, ..browse("/") };
    let mut guest = Guest::greeted(service);
    let reply = guest.ask(&open_frame(&open));
    assert!(matches!(reply, Some(Reply::Opened { .. })), "{reply:?}");
    guest
}

fn expect_may_not(reply: Option<Reply>, what: &str) {
    match reply {
        Some(Reply::Answer(Answer { status: Status::Refused, reason })) => {
            assert!(reason.contains(&format!("alice may not {what} here")), "{reason}");
        }
        other => panic!("not refused but {other:?}"),
    }
}

// B20
#[test]
fn what_runs_when_its_right_is_taken_ends() {
    let service = Service::start(&[]);
    let (mut summing, mut reading, mut looking) = (alice(&service), alice(&service), alice(&service));
    let size = 1 << 30;
    make_large(&service.home(1).join("large"), 1 << 36);
    make_large(&service.home(1).join("content"), size);
    write(&service.home(1).join("small"), "x");
    let identity = match looking.ask(&list_frame("content", true)) {
        Some(Reply::Listed(page)) => match page.entries[0].kind {
            ListedKind::File { identity, .. } => identity,
            _ => panic!("{page:?}"),
        },
        other => panic!("{other:?}"),
    };
    // It has begun, and stands until somebody reads it.
    reading.send(&Asked::of("content", (identity, false), 0..size).frame);
    let mut start = [0; 1];
    reading.stream.read_exact(&mut start).unwrap();
    summing.send(&sum("large"));
    wait_until_it_reads(service.recv.process.pid());
    service.user(&["rights", "alice", "list"]);
    wait_until("the right counts no more", || !matches!(looking.ask(&sum("small")), Some(Reply::Sum(_))));
    expect_may_not(looking.ask(&sum("small")), "read");
    expect_may_not(summing.reply(), "read");
    assert!(matches!(summing.ask(&list_frame("", false)), Some(Reply::Listed(_))));
    reading.stream.end_writing().unwrap();
    let (mut came, mut room) = (0, vec![0; 1 << 16]);
    while let Ok(len @ 1..) = reading.stream.read(&mut room) {
        came += len as u64;
    }
    assert!(came < size / 2, "{came} of {size} bytes came after the right was taken");
}
