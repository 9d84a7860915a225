//! Who may read, list and bring what: the flags of open receivers, and the rights of accounts.

use std::fs;
use std::io::Read as _;
use std::time::Instant;

use parallel_transfer::protocol::v2::request;
use parallel_transfer::protocol::{Answer, Credential, Open, Reply, Secret, Status};
use parallel_transfer::ticket::Ticket;

use crate::client::{Asked, Client, browse, finish, list_frame, meta, open, open_frame, put};
use crate::common::accounts::*;
use crate::common::guest::*;
use crate::common::sender::*;
use crate::common::*;

fn refusal(client: &mut Client, bytes: &[u8]) -> String {
    client.send(bytes);
    let answer = client.answer();
    assert_eq!(answer.status, Status::Refused);
    answer.reason
}

#[test]
fn who_may_only_read_brings_nothing() {
    let (root, source) = (temp_dir(), temp_dir());
    write(&root.path().join("in/file"), "file");
    write(&source.path().join("new"), "new");
    let mut recv = Recv::start_with(root.path(), &["--read_only"]);
    let mut client = Client::browsing(&recv, "in");
    assert_eq!(client.names(""), ["file"]);
    let file = client.look("file");
    assert_eq!(client.read("file", file, 0..4).unwrap(), b"file");
    client.finish_well();
    drop(client);
    let why = "this receiver takes no files (--read_only)";
    Client::greeted(&recv).expect_refusal(&open_frame(&open(crate::client::new_token())), why);
    let refused = Ended::of(&mut send_to(recv.port, source.path(), "in", &[])).expect(4);
    assert!(refused.said.contains(why), "{}", refused.said);
    Ended::of(&mut send_v1(recv.port, source.path(), "in", &["--retry_for", "1ms"])).expect(1);
    let log = recv.process.log();
    assert!(log.lines().filter(|line| line.contains(why)).count() >= 3, "{log}");
    recv.expect_idle();
    assert_eq!(list(root.path()), ["in", "in/file"]);
}

#[test]
fn who_may_only_bring_reads_nothing() {
    let (root, source) = (temp_dir(), temp_dir());
    write(&root.path().join("in/file"), "file");
    write(&source.path().join("new"), "new");
    let mut recv = Recv::start_with(root.path(), &["--write-only"]);
    let mut client = Client::browsing(&recv, "in");
    let file = (meta(4, 1).identity, false);
    let why = "this receiver only takes files (--write_only)";
    for bytes in [list_frame("", false), list_frame("file", true), Asked::of("file", file, 0..4).frame] {
        assert_eq!(refusal(&mut client, &bytes), why);
    }
    client.finish_well();
    drop(client);
    Ended::of(&mut send_to(recv.port, source.path(), "in", &[])).expect(0);
    Ended::of(&mut send_v1(recv.port, source.path(), "in/v1", &[])).expect(0);
    recv.expect_idle();
}

// F03
#[test]
fn flags_that_contradict_are_wrong_usage() {
    let root = temp_dir();
    for flags in [&["--read_only", "--write_only"][..], &["--read_only", "--accounts", "x"], &["--write_only", "--accounts", "x"]]
    {
        let mut command = recv_command();
        command.args(["--port", "0", "--root"]).arg(root.path()).args(flags);
        let output = expect_code(&mut command, 2);
        assert!(text(&output.stderr).contains(flags[0]) && text(&output.stderr).contains("cannot be used"));
    }
}

/// The frame that opens a job of alice's that reads her home.
fn browse_as_alice() -> Vec<u8> {
    let (user, password) = (b"alice".to_vec(), Secret::from(b"pw of alice".to_vec()));
    open_frame(&Open { token: new_token(), credential: Credential::Password { user, password }, ..browse("/") })
}

fn browsing(service: &Service) -> Guest {
    let mut guest = Guest::greeted(service);
    let reply = guest.ask(&browse_as_alice());
    assert!(matches!(reply, Some(Reply::Opened { .. })), "{reply:?}");
    guest
}

fn is_listed(reply: Option<Reply>) -> bool {
    matches!(reply, Some(Reply::Listed(_)))
}

fn why(reply: Option<Reply>) -> String {
    match reply {
        Some(Reply::Answer(Answer { status: Status::Refused, reason })) => reason,
        other => panic!("no refusal but {other:?}"),
    }
}

// B20
#[test]
fn the_rights_of_an_account_count_for_each_request() {
    let service = Service::start(&[]);
    let file = (meta(4, 1).identity, false);
    let read = Asked::of("file", file, 0..4).frame;
    service.user(&["rights", "alice", "read"]);
    let mut guest = browsing(&service);
    assert_eq!(why(guest.ask(&list_frame("", false))), "alice may not list here (rights: read)");
    assert_eq!(why(guest.ask(&read)), "file is not there");
    service.recv.process.wait_for_log("alice may not list here (rights: read)");
    service.user(&["rights", "alice", "list,write"]);
    wait_until("the right to list is there", || is_listed(guest.ask(&list_frame("", false))));
    assert_eq!(why(guest.ask(&read)), "alice may not read here (rights: write,list)");
    assert_eq!(why(guest.ask(&put("x", b"new"))), "this job brings nothing");
    service.user(&["rights", "alice", "none"]);
    assert_eq!(guest.refusal(), "the account may do nothing here any more");
    let mut guest = Guest::greeted(&service);
    guest.send(&browse_as_alice());
    assert_eq!(guest.refusal(), "alice may not read here (rights: none)");
    service.user(&["rights", "alice", "read,list"]);
    let mut guest = Guest::greeted(&service);
    guest.send(&open_as("alice", "pw of alice", new_token()));
    assert_eq!(guest.refusal(), "alice may not write here (rights: read,list)");
    assert!(is_listed(browsing(&service).ask(&list_frame("", false))));
}

// B20
#[test]
fn a_lock_ends_a_read_in_the_middle() {
    let service = Service::start(&[]);
    Guest::opened(&service, "alice", new_token());
    fs::File::create(service.home(1).join("long")).unwrap().set_len(1 << 40).unwrap();
    let mut guest = browsing(&service);
    let Some(Reply::Listed(page)) = guest.ask(&list_frame("long", true)) else { panic!() };
    let parallel_transfer::entry::ListedKind::File { identity, .. } = page.entries[0].kind else { panic!() };
    guest.send(&Asked::of("long", (identity, false), 0..1 << 40).frame);
    assert_eq!(guest.reply(), Some(Reply::Content));
    let (mut last, mut bytes, mut is_locked) = (Vec::new(), vec![0; 1 << 20], false);
    let before = Instant::now();
    while let Ok(len @ 1..) = guest.stream.read(&mut bytes) {
        if !is_locked {
            service.user(&["lock", "alice"]);
            is_locked = true;
        }
        assert!(before.elapsed() < PATIENCE, "it goes on");
        last.extend_from_slice(&bytes[..len]);
        last.drain(..last.len().saturating_sub(200));
    }
    assert!(text(&last).contains("the account was locked"), "{}", text(&last));
}

#[test]
fn a_ticket_may_be_for_reading() {
    let root = temp_dir();
    write(&root.path().join("file"), "file");
    let (mut recv, line) = recv_with_line(recv_command().args(["--port", "0", "--once", "--read_only"]), root.path());
    let ticket: Ticket = line.strip_prefix("ticket ").unwrap().parse().unwrap();
    let greeted = || Guest::try_greeted_by(&ticket.fingerprint.to_string(), recv.port).unwrap();
    let credential = || Credential::Ticket(ticket.secret);
    let mut pusher = greeted();
    pusher.send(&open_frame(&Open { credential: credential(), ..open(new_token()) }));
    assert!(pusher.refusal().contains("takes no files"));
    let mut guest = greeted();
    guest.send(&open_frame(&browse("/")));
    assert!(guest.refusal().contains("ticket"));
    let mut guest = greeted();
    let opened = guest.ask(&open_frame(&Open { credential: credential(), ..browse("/") }));
    assert!(matches!(opened, Some(Reply::Opened { .. })), "{opened:?}");
    assert!(is_listed(guest.ask(&list_frame("", false))));
    let mut bytes = Vec::new();
    request::encode_read(&mut bytes, &crate::client::path("missing"), &meta(1, 1).identity, false, &(0..1));
    assert_eq!(why(guest.ask(&bytes)), "missing is not there");
    assert!(matches!(guest.ask(&finish()), Some(Reply::Finished(_))));
    drop(guest);
    assert_eq!(recv.process.wait(), Some(0), "{}", recv.process.log());
}
