//! Who gets into a job, who does not, and how they hear of it.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Instant;

use parallel_transfer::net::dial::Dialer;
use parallel_transfer::net::host_key::HostKey;
use parallel_transfer::net::tls;
use parallel_transfer::protocol::v2::{MAGIC, reply};
use parallel_transfer::protocol::{Reply, Status};
use parallel_transfer::stop::Stop;

use crate::client::*;
use crate::common::yard::{QUICK, Yard};
use crate::common::*;

/// A hello of TLS 1.2: one suite, no extensions.
fn tls_1_2_hello() -> Vec<u8> {
    let hello = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2f, 1, 0]].concat();
    let len = u8::try_from(hello.len()).unwrap();
    [&[0x16, 3, 1, 0, len + 4, 1, 0, 0, len], &hello[..]].concat()
}

// B09
#[test]
fn other_protocols_are_closed_with_one_short_line_in_the_log() {
    let outer = temp_dir();
    let mut recv = Recv::start_with(outer.path(), &["--verbose"]);
    let rows: &[(&str, Vec<u8>)] = &[
        ("TLS 1.2", tls_1_2_hello()),
        ("SSL 3", [&[0x16, 3, 0, 0, 43, 1, 0, 0, 39, 3, 0][..], &[7; 32], &[0, 0, 2, 0, 5, 1, 0]].concat()),
        ("SSL 2", [&[0x80, 0x2e, 1, 0, 2][..], &[7; 43]].concat()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("PROXY", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec()),
        ("PROXY, binary", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec()),
        ("TLS that is none", [&[0x16, 3, 1, 0xff, 0xff][..], &[7; 300]].concat()),
        ("TLS with an alert", vec![0x15, 3, 3, 0, 2, 2, 40]),
    ];
    for (what, bytes) in rows {
        let mut stream = recv.connect();
        let peer = stream.local_addr().unwrap().to_string();
        let start = Instant::now();
        stream.write_all(bytes).unwrap();
        // Its writing stays open: the end comes from the receiver.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(start.elapsed() < QUICK, "{what}: after {:?}", start.elapsed());
        assert!(answer.len() < 50, "{what} was answered with {answer:?}");
        drop(stream);
        recv.expect_idle();
        let lines = || {
            let log = recv.process.log();
            log.lines().filter(|line| line.contains(&peer) && !line.ends_with("connected")).map(str::to_owned).collect::<Vec<_>>()
        };
        wait_until(&format!("the log has a line about {what}"), || !lines().is_empty());
        let lines = lines();
        assert!(lines.len() == 1 && lines[0].len() < 200, "{what}: {lines:#?}");
    }
    assert_eq!(list(outer.path()), Vec::<String>::new());
}

#[test]
fn a_refusal_arrives_while_the_client_is_still_writing() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let holder = Client::with(&yard.recv, &open(token));
    for is_joined in [false, true] {
        let mut client = if is_joined { Client::joined(&yard.recv, token) } else { Client::greeted(&yard.recv) };
        let mut writer = client.stream.try_clone().unwrap();
        let writing = thread::spawn(move || {
            let bytes = [&frame(0x13, b"")[..], &vec![7; 16 * 1024 * 1024]].concat();
            let _ = writer.write_all(&bytes);
        });
        let (before, why) = client.refusal();
        assert!(before.is_empty() && why.contains("unknown operation"), "{why} after {before:?}");
        drop(client);
        writing.join().unwrap();
    }
    drop(holder);
    bystander.expect_well(&mut yard);
}

#[test]
fn answers_to_what_came_before_are_sent_before_a_refusal() {
    let yard = Yard::new();
    let mut client = Client::opened(&yard.recv);
    client.send(&[put("x", b"x"), folder("f"), frame(0x13, b"")].concat());
    let (before, _) = client.refusal();
    let statuses = before.into_iter().map(|reply| match reply {
        Reply::Answer(answer) => answer.status,
        other => panic!("{other:?}"),
    });
    assert_eq!(statuses.collect::<Vec<_>>(), [Status::Published, Status::Stored]);
}

// B18
#[test]
fn a_join_waits_for_its_job_to_be_opened() {
    let mut yard = Yard::new();
    let token = new_token();
    let mut early: Vec<_> = (0..3).map(|_| Client::greeted(&yard.recv)).collect();
    for (index, client) in early.iter_mut().enumerate() {
        // What follows is said before it is known whether it will be heard.
        client.send(&[join_frame(token), put(&format!("x{index}"), b"early")].concat());
    }
    let mut opener = Client::with(&yard.recv, &open(token));
    for client in &mut early {
        assert_eq!((client.status(), client.status()), (Status::Stored, Status::Published));
    }
    assert_eq!(opener.finish_well().files, 3);
    drop((early, opener));
    yard.expect_well();
}

// B18
#[test]
fn a_job_that_has_ended_is_not_joined_or_opened_again() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let mut client = Client::with(&yard.recv, &open(token));
    client.finish_well();
    Client::greeted(&yard.recv).expect_refusal(&join_frame(token), "has ended");
    drop(client);
    bystander.expect_well(&mut yard);
}

#[test]
fn a_job_is_taken_up_again_by_the_same_opening() {
    let mut yard = Yard::new();
    let token = new_token();
    let content = noise(700_000, 1);
    let mut client = Client::with(&yard.recv, &open(token));
    assert_eq!(client.ask(&put_range("x", &content, 0..400_000, 1)), Status::Stored);
    assert_eq!(client.ask(&symlink_to("l", "x")), Status::Stored);
    drop(client);
    let mut client = Client::greeted(&yard.recv);
    client.send(&open_frame(&open(token)));
    assert!(matches!(client.reply(), Some(Reply::Opened { is_new: false, is_known: true, .. })));
    assert_eq!(client.ask(&put_range("x", &content, 400_000..700_000, 1)), Status::Published);
    assert_eq!(client.finish_well().links, 1);
    drop(client);
    yard.expect_well();
    assert_eq!(list(yard.root()), ["in", "in/l", "in/x"]);
}

#[test]
fn inside_tls_only_version_2_is_spoken() {
    let (root, state) = (temp_dir(), temp_dir());
    let mut recv = Recv::start_with(root.path(), &["--state_dir", state.path().to_str().unwrap()]);
    let key = HostKey::load_or_make(state.path()).unwrap().fingerprint();
    let dialer = Dialer::to_addresses(vec![([127, 0, 0, 1], recv.port).into()], PATIENCE, PATIENCE)
        .with_tls(Some(tls::Client::pinned(key).unwrap()));
    let ask = |bytes: &[u8]| {
        let mut stream = dialer.dial(&Stop::new().unwrap()).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    for bytes in [&cd("folder")[..], b"GET / HTTP/1.1\r\n\r\n", &tls_1_2_hello()] {
        assert_eq!(ask(bytes), b"");
    }
    let refused = |answer: &[u8]| match reply::decode(answer) {
        Ok(Some((Reply::Refused(why), len))) if len == answer.len() => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(&ask(&[&MAGIC[..], &folder("f")].concat())).contains("before a job was joined"));
    assert!(refused(&ask(&[&MAGIC[..], &frame(0x13, b"")].concat())).contains("unknown operation"));
    recv.expect_idle();
    assert_eq!(list(root.path()), Vec::<String>::new());
}
