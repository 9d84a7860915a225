//! Ranges of files that are read: their content, what is voided, and peers that do not take it.

use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::time::Instant;

use parallel_transfer::digest::Checksum;
use parallel_transfer::entry::Identity;
use parallel_transfer::protocol::{Open, Reply, Status};

use crate::client::*;
use crate::common::judge::*;
use crate::common::metrics;
use crate::common::yard::{QUICK, Yard};
use crate::common::*;

/// A file of zeros that takes no room, as one that has no holes.
fn make_zeros(path: &std::path::Path, size: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::File::create(path).unwrap().set_len(size).unwrap();
}

fn dense((identity, _): (Identity, bool)) -> (Identity, bool) {
    (identity, false)
}

// C19
#[test]
fn every_range_of_a_file_is_what_is_on_the_disk() {
    let mut yard = Yard::prepared(|root| {
        fs::create_dir(root.join("in")).unwrap();
        write_sparse(&root.join("in/holes"), 32 << 20, 65_536, 4);
        write(&root.join("in/noise"), noise(9_000_001, 1));
        write(&root.join("in/small"), "small");
        write(&root.join("in/empty"), "");
    });
    for checksum in [Checksum::Xxh3, Checksum::Blake3, Checksum::None] {
        let mut client = Client::with(&yard.recv, &Open { checksum, ..browse("in") });
        for name in ["holes", "noise", "small", "empty"] {
            let content = fs::read(yard.root().join("in").join(name)).unwrap();
            let (file, len) = (client.look(name), content.len() as u64);
            assert_eq!((file.0.size, file.1), (len, name == "holes"));
            let ranges =
                [0..len, 0..0, len..len, 0..len.min(65_536), len / 3..len / 2, len / 2..len, len.min(5)..len.min(8 << 20)];
            for (range, file) in ranges.into_iter().flat_map(|range| [(range.clone(), file), (range, dense(file))]) {
                let asked = Asked::of(name, file, range.clone());
                client.send(&asked.frame);
                let read = client.content(&asked, checksum).unwrap();
                assert!(read == content[range.start as usize..range.end as usize], "{range:?} of {name}");
            }
        }
        client.finish_well();
    }
    // A hole is not sent.
    make_zeros(&yard.root().join("in/huge"), 1 << 28);
    let mut client = Client::browsing(&yard.recv, "in");
    let huge = client.look("huge");
    let before = Instant::now();
    assert_eq!(client.read("huge", huge, 0..1 << 28).unwrap().len(), 1 << 28);
    assert!(before.elapsed() < QUICK);
    drop(client);
    yard.expect_well();
}

#[test]
fn a_file_may_be_all_that_a_job_reads() {
    let mut yard = Yard::prepared(|root| write(&root.join("in/file"), "content"));
    let mut client = Client::browsing(&yard.recv, "in/file");
    let file = client.look("");
    assert_eq!(client.read("", file, 0..7).unwrap(), b"content");
    assert_eq!(client.read("", file, 3..7).unwrap(), b"tent");
    assert!(client.try_list("").1.unwrap().contains("in/file is not a folder"));
    let totals = client.finish_well();
    assert_eq!((totals.files, totals.bytes), (2, 11));
    drop(client);
    yard.expect_well();
}

// C20
#[test]
fn what_changed_since_it_was_listed_is_voided() {
    let mut yard = Yard::prepared(|root| {
        for name in ["written", "replaced", "kept open"] {
            write(&root.join("in").join(name), noise(300_000, 1));
        }
        write(&root.join("in/gone"), "gone");
        make_zeros(&root.join("in/long"), 64 << 20);
    });
    let at = |name: &str| yard.root().join("in").join(name);
    let mut client = Client::browsing(&yard.recv, "in");
    let before = ["written", "replaced", "kept open", "gone", "long"].map(|name| client.look(name));
    assert_eq!(client.read("kept open", before[2], 0..65_536).unwrap().len(), 65_536);
    fs::OpenOptions::new().write(true).open(at("written")).unwrap().write_all_at(b"x", 7).unwrap();
    write(&at("new"), noise(300_000, 2));
    fs::rename(at("new"), at("replaced")).unwrap();
    write(&at("new"), noise(300_000, 3));
    fs::rename(at("new"), at("kept open")).unwrap();
    fs::remove_file(at("gone")).unwrap();
    for (name, before) in ["written", "replaced", "kept open"].into_iter().zip(before) {
        assert_eq!(client.read(name, before, 65_536..300_000), None, "{name}");
        let now = client.look(name);
        assert!(client.read(name, now, 0..300_000).unwrap() == fs::read(at(name)).unwrap());
    }
    client.send(&Asked::of("gone", before[3], 0..4).frame);
    let answer = client.answer();
    assert!(answer.status == Status::Refused && answer.reason == "in/gone is not there", "{answer:?}");
    // While it is sent: more of it than any socket holds is still to be read.
    let asked = Asked::of("long", dense(before[4]), 0..64 << 20);
    client.send(&asked.frame);
    assert_eq!(client.reply(), Some(Reply::Content));
    fs::OpenOptions::new().write(true).open(at("long")).unwrap().write_all_at(b"x", 7).unwrap();
    assert_eq!(client.rest_of(&asked, Checksum::Xxh3), None);
    client.finish_well();
    drop(client);
    yard.expect_well();
}

// C03 C09
#[test]
fn nothing_outside_and_nothing_special_is_read() {
    let mut yard = Yard::prepared(|root| {
        fs::create_dir_all(root.join("in/real")).unwrap();
        write(&root.join("in/real/file"), "file");
        symlink("../../outside/sentinel", root.join("in/leaf")).unwrap();
        symlink("../../outside", root.join("in/out")).unwrap();
        symlink("real", root.join("in/inside")).unwrap();
        make_fifo(&root.join("in/fifo"));
    });
    let mut client = Client::browsing(&yard.recv, "in");
    let file = client.look("real/file");
    for (name, why) in [
        ("leaf", "in/leaf is a symbolic link"),
        ("out/sentinel", "in/out is a symbolic link, or below one"),
        ("inside/file", "in/inside is a symbolic link, or below one"),
        ("fifo", "in/fifo is not a regular file"),
        ("real", "in/real is a folder"),
        ("", "in is a folder"),
        ("no/where", "in/no/where is not there"),
    ] {
        client.send(&Asked::of(name, file, 0..4).frame);
        let answer = client.answer();
        assert_eq!((answer.status, &*answer.reason), (Status::Refused, why));
    }
    assert_eq!(client.read("real/file", file, 0..4).unwrap(), b"file");
    client.finish_well();
    drop(client);
    yard.expect_well();
}

// A06 B06 C01
#[test]
fn a_read_that_makes_no_sense_is_refused() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let holder = Client::with(&yard.recv, &Open { token, ..browse("") });
    let body = |flags: u8, size: u64, nanoseconds: u32, range: [u64; 2], name: &[u8]| {
        let numbers = [size, 7_u64].map(u64::to_be_bytes).concat();
        let rest = [&nanoseconds.to_be_bytes()[..], &[0; 16], &range.map(u64::to_be_bytes).concat(), &run_of(name)];
        [&[flags][..], &numbers, &rest.concat()].concat()
    };
    let max = u64::MAX;
    for (bytes, why) in [
        (body(2, 10, 0, [0, 10], b"x"), ""),
        (body(0, 10, 1_000_000_000, [0, 10], b"x"), "time"),
        (body(0, 10, 0, [5, 4], b"x"), "range"),
        (body(0, 10, 0, [0, 11], b"x"), "range"),
        (body(0, 10, 0, [max, max], b"x"), "range"),
        (body(0, 10, 0, [0, 10], b"../x"), "'..'"),
        (body(0, 10, 0, [0, 10], b"/x"), "empty name"),
        (body(0, 10, 0, [0, 10], b".ptf-0123"), "keeps for files"),
        (body(0, 10, 0, [0, 10], b"x")[..40].to_vec(), ""),
        ([body(0, 10, 0, [0, 10], b"x"), b"x".to_vec()].concat(), ""),
    ] {
        Client::joined(&yard.recv, token).expect_refusal(&frame(0x0a, &bytes), why);
    }
    let asked = Asked::of("x", (meta(10, 1).identity, false), 0..10);
    Client::greeted(&yard.recv).expect_refusal(&asked.frame, "before a job was joined");
    drop(holder);
    bystander.expect_well(&mut yard);
}

#[test]
fn a_window_of_reads_is_answered_in_order() {
    let mut yard = Yard::prepared(|root| {
        for index in 0..256_u64 {
            write(&root.join(format!("in/{index}")), noise(index as usize * 50, index));
        }
    });
    let mut client = Client::browsing(&yard.recv, "in");
    let asked: Vec<Asked> = (0..256)
        .map(|index| {
            let name = index.to_string();
            let file = client.look(&name);
            // Some are not what is asked for, some are not there.
            match index % 10 {
                3 => Asked::of(&name, (meta(7, 1).identity, false), 0..7),
                6 => Asked::of("missing", file, 0..file.0.size),
                _ => Asked::of(&name, file, 0..file.0.size),
            }
        })
        .collect();
    client.send(&asked.iter().flat_map(|asked| asked.frame.clone()).collect::<Vec<_>>());
    for (index, asked) in asked.iter().enumerate() {
        match index % 10 {
            3 => assert_eq!(client.answer().status, Status::Voided),
            6 => assert_eq!(client.answer().status, Status::Refused),
            _ => assert!(client.content(asked, Checksum::Xxh3).unwrap() == noise(index * 50, index as u64), "{index}"),
        }
    }
    client.finish_well();
    drop(client);
    yard.expect_well();
}

// E02
#[test]
fn one_who_asks_and_does_not_take_it_is_given_up() {
    let root = temp_dir();
    make_zeros(&root.path().join("in/long"), 1 << 40);
    let mut recv = Recv::start_with(root.path(), &["--stall_timeout", "500ms"]);
    let mut client = Client::browsing(&recv, "in");
    let long = dense(client.look("long"));
    client.send(&Asked::of("long", long, 0..1 << 40).frame);
    recv.process.wait_for_log("made no progress and is given up");
    recv.expect_idle();
    drop(client);
    // And one who goes away.
    let mut client = Client::browsing(&recv, "in");
    client.send(&Asked::of("long", long, 0..1 << 40).frame);
    assert_eq!(client.reply(), Some(Reply::Content));
    drop(client);
    recv.expect_idle();
}

#[test]
fn a_job_that_reads_brings_nothing() {
    let mut yard = Yard::prepared(|root| write(&root.join("in/file"), "file"));
    let mut client = Client::browsing(&yard.recv, "in");
    let content = noise(700_000, 1);
    for bytes in [put("x", b"new"), put("large", &content), folder("f"), symlink_to("l", "x"), have(&[("file", 4)])] {
        client.send(&bytes);
        let answer = client.answer();
        assert_eq!((answer.status, &*answer.reason), (Status::Refused, "this job brings nothing"));
    }
    let file = client.look("file");
    assert_eq!(client.read("file", file, 0..4).unwrap(), b"file");
    client.finish_well();
    drop(client);
    yard.expect_well();
    assert_eq!(list(yard.root()), ["in", "in/file"]);
}

#[test]
fn what_is_sent_keeps_to_the_rate_and_is_told_and_counted() {
    let root = temp_dir();
    write(&root.path().join("in/file"), noise(600_000, 1));
    let recv = Recv::start_with(root.path(), &["--bwlimit", "1M", "--audit", "--metrics", "127.0.0.1:0"]);
    let port = metrics::metrics_port(&recv);
    let mut client = Client::browsing(&recv, "in");
    let file = client.look("file");
    let before = Instant::now();
    assert_eq!(client.read("file", file, 0..300_000).unwrap().len(), 300_000);
    assert!(!recv.process.log().contains("event=get"));
    assert_eq!(client.read("file", file, 300_000..600_000).unwrap().len(), 300_000);
    // 0.57 s, less what may pass at once and what is not waited for.
    assert!(before.elapsed().as_millis() > 300, "{:?}", before.elapsed());
    client.finish_well();
    drop(client);
    recv.process.wait_for_log("event=get");
    let log = recv.process.log();
    assert!(log.lines().any(|line| line.contains("event=get") && line.contains("in/file") && line.contains("600000")), "{log}");
    let numbers = metrics::numbers(port);
    assert_eq!((numbers["ptf_bytes_sent_total"], numbers["ptf_files_sent_total"]), (600_000.0, 1.0));
}
