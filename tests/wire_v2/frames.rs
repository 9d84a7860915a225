//! Frames that are none, fields at their limits, requests in every order and in pieces.

use std::time::Instant;

use parallel_transfer::limits::FRAME_LEN_MAX;
use parallel_transfer::protocol::v2::MAGIC;
use parallel_transfer::protocol::v2::payload::Mark;
use parallel_transfer::protocol::{Features, Reply, Status};

use crate::client::*;
use crate::common::yard::{QUICK, Yard};
use crate::common::*;

// B01
#[test]
fn random_bytes_are_refused_wherever_a_frame_is_due() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let holder = Client::with(&yard.recv, &open(token));
    let start = Instant::now();
    for (index, len) in [1, 2, 5, 9, 100, 5000, 65_536].into_iter().enumerate() {
        for seed in 0..8 {
            let noise = noise(len, 1000 * index as u64 + seed);
            let clients: [fn(&Recv, _) -> Client; 3] =
                [|recv, _| Client::silent(recv), |recv, _| Client::greeted(recv), Client::joined];
            for client in clients {
                let replies = client(&yard.recv, token).rest(&noise);
                assert!(matches!(&replies[..], [] | [Reply::Refused(_)]), "{len} bytes of {seed}: {replies:?}");
            }
            let replies = Client::silent(&yard.recv).rest(&[&MAGIC[..], &noise].concat());
            assert!(matches!(&replies[..], [] | [Reply::Refused(_)]), "{len} bytes of {seed}: {replies:?}");
        }
    }
    assert!(start.elapsed() < QUICK, "it took {:?}", start.elapsed());
    drop(holder);
    bystander.expect_well(&mut yard);
}

/// A body of a Put of `x`, with these numbers.
fn put_body(size: u64, start: u64, end: u64, name: &[u8], attributes: &[u8], flags: u8) -> Vec<u8> {
    let numbers = [size.to_be_bytes(), 7_u64.to_be_bytes()].concat();
    let range = [start.to_be_bytes(), end.to_be_bytes()].concat();
    [&[flags][..], &numbers, &[0; 4], &[3; 16], &range, &run_of(name), attributes].concat()
}

/// A body of a Have with this count and so many files.
fn have_body(count: u16, files: usize) -> Vec<u8> {
    let file = [&[0][..], &[0; 8], &[0; 12], &run_of(b"x"), &[1, 0o244]].concat();
    [&count.to_be_bytes()[..], &file.repeat(files)].concat()
}

/// A body of a Describe of the link `l`.
fn link_body(declared: u16, target: &[u8]) -> Vec<u8> {
    [&[0][..], &run_of(b"l"), &[1], &[0; 12], &declared.to_be_bytes(), target, &[1, 0o377]].concat()
}

/// A body of an Open of this folder.
fn open_body(flags: u16, checksum: u8, folder: &[u8], credential: u8) -> Vec<u8> {
    [&new_token().0[..], &flags.to_be_bytes(), &[checksum], &run_of(folder), &[credential]].concat()
}

const MODE: &[u8] = &[1, 0o244];

// B02
#[test]
fn a_field_over_its_limit_is_refused_and_memory_stays_flat() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let holder = Client::with(&yard.recv, &open(token));
    let peak = yard.recv.process.peak_kib();
    let xattrs = |count: u16, there: usize| [MODE, &count.to_be_bytes(), &[0, 1, b'n', 0, 0].repeat(there)].concat();
    let limit = u32::try_from(FRAME_LEN_MAX).unwrap();
    let joined: &[(&str, Vec<u8>, &str)] = &[
        ("a length over the limit", head(4, limit + 1).to_vec(), "length of a frame of 131073"),
        ("a length of all ones", head(4, 0x00ff_ffff).to_vec(), "length of a frame of 16777215"),
        ("no body where one is due", frame(4, b""), "ends early"),
        ("no body of a question", frame(5, b""), "ends early"),
        ("no body of a description", frame(6, b""), "ends early"),
        ("a body where none is due", frame(7, b"x"), "bytes after the end"),
        ("the largest body, of zeros", frame(6, &vec![0; FRAME_LEN_MAX]), "bytes after the end"),
        ("the largest body, of ones", frame(4, &vec![0xff; FRAME_LEN_MAX]), ""),
        ("513 files", frame(5, &have_body(513, 513)), "number of files in a batch of 513"),
        ("65,535 files", frame(5, &have_body(65_535, 1)), "number of files in a batch of 65535"),
        ("fewer files than said", frame(5, &have_body(512, 511)), "ends early"),
        ("more files than said", frame(5, &have_body(1, 2)), "bytes after the end"),
        ("257 attributes", frame(4, &put_body(0, 0, 0, b"x", &xattrs(257, 257), 4)), "attributes of 257"),
        ("65,535 attributes", frame(4, &put_body(0, 0, 0, b"x", &xattrs(65_535, 0), 4)), "attributes of 65535"),
        ("fewer attributes than said", frame(4, &put_body(0, 0, 0, b"x", &xattrs(256, 255), 4)), "ends early"),
        ("no owner where one is said", frame(4, &put_body(0, 0, 0, b"x", MODE, 2)), "ends early"),
        ("a target of nothing", frame(6, &link_body(0, b"")), "target of a symbolic link"),
        ("a target of 4096 bytes", frame(6, &link_body(4096, &[b'x'; 4096])), "target of 4096"),
        ("a target of 65,535 bytes", frame(6, &link_body(65_535, b"x")), "ends early"),
        ("a target with a NUL", frame(6, &link_body(3, b"a\0b")), "target of a symbolic link"),
        ("a path of nothing", frame(4, &put_body(0, 0, 0, b"", MODE, 0)), "path is empty"),
        ("a path of 4096 bytes", frame(4, &put_body(0, 0, 0, &[b'x'; 4096], MODE, 0)), "longer than 4095"),
        ("a name of 256 bytes", frame(4, &put_body(0, 0, 0, &[b'x'; 256], MODE, 0)), "longer than 255"),
        ("a path with a NUL", frame(4, &put_body(0, 0, 0, b"a\0b", MODE, 0)), "NUL"),
        ("a path of dots", frame(4, &put_body(0, 0, 0, b"a/../../b", MODE, 0)), "'..'"),
        ("an absolute path", frame(4, &put_body(0, 0, 0, b"/etc/x", MODE, 0)), "empty name"),
        ("a reserved name", frame(4, &put_body(0, 0, 0, b"a/.ptf-x", MODE, 0)), "keeps for files"),
        ("a kind that is none", frame(6, &[&[0][..], &run_of(b"k"), &[3], MODE].concat()), "kind of an entry"),
        ("a link in place of the job", frame(6, &[&[0, 0, 0, 1][..], &[0; 12], &run_of(b"t"), MODE].concat()), "path"),
        ("a wrong check", [&frame(7, b"")[..8], &[0]].concat(), "check is wrong"),
        ("a wrong guard", vec![7, 0, 0, 0, 0], "head of a frame"),
    ];
    for (what, bytes, words) in joined {
        let mut client = Client::joined(&yard.recv, token);
        client.send(bytes);
        let (before, why) = client.refusal();
        assert!(before.is_empty() && why.contains(words), "{what}: '{why}' after {before:?}");
    }
    let greeted: &[(&str, Vec<u8>, &str)] = &[
        ("a folder of 8,193 bytes", frame(2, &open_body(0, 1, &[b'x'; 8193], 0)), "folder's name of 8193"),
        ("a checksum that is none", frame(2, &open_body(0, 3, b"in", 0)), "checksum"),
        ("a credential that is none", frame(2, &open_body(0, 1, b"in", 4)), "credential"),
        ("a credential cut short", frame(2, &open_body(0, 1, b"in", 1)), "ends early"),
        ("a token cut short", frame(3, &[1; 31]), "ends early"),
        ("a token too long", frame(3, &[1; 33]), "bytes after the end"),
    ];
    for (what, bytes, words) in greeted {
        let mut client = Client::greeted(&yard.recv);
        client.send(bytes);
        let (before, why) = client.refusal();
        assert!(before.is_empty() && why.contains(words), "{what}: '{why}' after {before:?}");
    }
    let grown = yard.recv.process.peak_kib().saturating_sub(peak);
    assert!(grown < 8 * 1024, "it took {grown} KiB more");
    drop(holder);
    bystander.expect_well(&mut yard);
}

// B02
#[test]
fn a_field_at_its_limit_is_served() {
    let yard = Yard::new();
    let mut client = Client::opened(&yard.recv);
    assert_eq!(client.ask(&frame(6, &link_body(4095, &[b'x'; 4095]))), Status::Stored);
    assert_eq!(client.ask(&frame(6, &link_body(1, b"x"))), Status::Stored);
    for (count, files) in [(0, 0), (1, 1), (512, 512)] {
        client.send(&frame(5, &have_body(count, files)));
        assert_eq!(client.reply(), Some(Reply::Had(vec![false; files])));
    }
    // 255 bytes of a name, 4095 of a path that no file system has.
    let long = "n".repeat(255);
    assert_eq!(client.ask(&put(&long, b"long")), Status::Published);
    let deep = "d/".repeat(2047) + "x";
    client.send(&put(&deep, b"deep"));
    let answer = client.answer();
    assert!(matches!(answer.status, Status::Published | Status::Refused), "{answer:?}");
    let size_max = u64::MAX;
    for (range, is_fine) in [(0..0, false), (size_max..size_max, false), (size_max - 1..size_max, false)] {
        let body = put_body(size_max, range.start, range.end, b"huge", MODE, 1);
        client.send(&frame(4, &body));
        let binding = parallel_transfer::digest::Binding::of(&body);
        if !range.is_empty() {
            client.send(&hole(binding, range.start, 1));
        }
        client.send(&[Mark::Same as u8]);
        assert_eq!(client.status() != Status::Refused, is_fine, "{range:?} of a file of {size_max} bytes");
    }
    client.finish();
    assert!(!yard.root().join("in/huge").exists());
}

// B03
#[test]
fn an_unknown_type_is_refused_and_an_unknown_version_by_the_names_of_ours() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    for kind in [0, 0x13, 0x41, 0x42, 0x43, 0x81, 0x83, 0x87, 0xff] {
        Client::greeted(&yard.recv).expect_refusal(&frame(kind, b""), "unknown operation");
        Client::silent(&yard.recv).expect_refusal(&[&MAGIC[..], &frame(kind, b"")].concat(), "unknown operation");
    }
    for (versions, words) in [(0..=1, "0 to 1"), (3..=3, "3 to 3"), (3..=255, "3 to 255"), (0..=0, "0 to 0")] {
        let hello = [&MAGIC[..], &hello_frame(versions, Features::OURS)].concat();
        Client::silent(&yard.recv).expect_refusal(&hello, &format!("this receiver speaks 2 to 2, the sender {words}"));
    }
    bystander.expect_well(&mut yard);
}

// B03
#[test]
fn the_highest_common_version_is_spoken_and_unknown_bits_mean_nothing() {
    let yard = Yard::new();
    let mut client = Client::silent(&yard.recv);
    client.send(&[&MAGIC[..], &hello_frame(0..=255, Features(u64::MAX))].concat());
    assert_eq!(client.reply(), Some(Reply::Welcome { version: 2, features: Features::OURS }));
    client.send(&frame(2, &open_body(0xffe0, 1, b"in", 0)));
    assert!(matches!(client.reply(), Some(Reply::Opened { is_new: true, is_known: false, .. })));
    assert_eq!(
        client.ask(&[&frame(4, &put_body(0, 0, 0, b"x", MODE, 0xf8))[..], &[Mark::Same as u8]].concat()),
        Status::Published
    );
    assert_eq!(client.finish_well().files, 1);
}

// B04, B18
#[test]
fn what_comes_before_its_turn_is_refused() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let content = b"content";
    let requests = [put("x", content), have(&[("x", 1)]), folder("f"), symlink_to("l", "t")];
    for request in &requests {
        Client::silent(&yard.recv).expect_refusal(&[&MAGIC[..], request].concat(), "before a job was joined");
        Client::greeted(&yard.recv).expect_refusal(request, "before a job was joined");
    }
    let unseen = open(new_token());
    Client::silent(&yard.recv).expect_refusal(&[&MAGIC[..], &open_frame(&unseen)].concat(), "after a hello");
    Client::silent(&yard.recv).expect_refusal(&[&MAGIC[..], &join_frame(unseen.token)].concat(), "after a hello");
    let hello = hello_frame(2..=2, Features::OURS);
    Client::greeted(&yard.recv).expect_refusal(&hello, "second hello");
    Client::opened(&yard.recv).expect_refusal(&hello, "second hello");
    Client::opened(&yard.recv).expect_refusal(&open_frame(&unseen), "once");
    Client::opened(&yard.recv).expect_refusal(&join_frame(unseen.token), "once");
    // The first bytes of a connection are said once.
    Client::greeted(&yard.recv).expect_refusal(&MAGIC, "");
    assert_eq!(list(yard.root()), ["bystander", "bystander/before", "in"]);
    bystander.expect_well(&mut yard);
}

// B04
#[test]
fn an_end_before_a_job_is_refused_by_name() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    Client::greeted(&yard.recv).expect_refusal(&finish(), "before a job was joined");
    bystander.expect_well(&mut yard);
}

// B04
#[test]
fn any_order_and_any_repeats_come_to_the_same() {
    let mut yard = Yard::new();
    let content = noise(600_000, 1);
    let mut client = Client::opened(&yard.recv);
    for _ in 0..2 {
        assert_eq!(client.ask(&symlink_to("a/link", "x")), Status::Stored);
        assert_eq!(client.ask(&hard_link("a/further", "late")), Status::Stored);
        client.send(&have(&[("late", 600_000), ("small", 5)]));
        assert!(matches!(client.reply(), Some(Reply::Had(_))));
        assert!(matches!(client.ask(&put_range("late", &content, 300_000..600_000, 1)), Status::Stored | Status::Had));
        assert_eq!(client.ask(&put("small", b"small")), Status::Published);
        assert_eq!(client.ask(&folder("a")), Status::Stored);
        assert!(matches!(client.ask(&put_range("late", &content, 0..300_000, 1)), Status::Published | Status::Had));
        assert_eq!(client.ask(&folder("")), Status::Stored);
    }
    client.send(&have(&[("late", 600_000), ("small", 5), ("small", 6), ("other", 5), ("a", 5)]));
    assert_eq!(client.reply(), Some(Reply::Had(vec![true, true, false, false, false])));
    let (missing, totals) = client.finish();
    assert_eq!(missing, []);
    // An answer that was lost is asked for again.
    assert_eq!(client.finish(), (missing, totals));
    drop(client);
    yard.expect_well();
    assert_eq!(list(yard.root()), ["in", "in/a", "in/a/further", "in/a/link", "in/late", "in/small"]);
    assert!(std::fs::read(yard.root().join("in/a/further")).unwrap() == content);
}

/// A whole session, and the statuses that it is answered with.
fn whole_session() -> (Vec<u8>, Vec<Status>) {
    let token = new_token();
    let content = noise(300_000, 5);
    let frames = [
        hello(),
        open_frame(&open(token)),
        folder("f"),
        put("f/a", b"a"),
        put_range("f/b", &content, 0..262_144, 1),
        put("f/c", b""),
        put_range("f/b", &content, 262_144..300_000, 1),
        symlink_to("f/l", "a"),
        finish(),
    ];
    let statuses = [Status::Stored, Status::Published, Status::Stored, Status::Published, Status::Published, Status::Stored];
    (frames.concat(), statuses.to_vec())
}

fn expect_session(mut client: Client, yard: &mut Yard, statuses: &[Status]) {
    assert!(matches!(client.reply(), Some(Reply::Welcome { .. })));
    assert!(matches!(client.reply(), Some(Reply::Opened { .. })));
    for status in statuses {
        assert_eq!(client.status(), *status);
    }
    assert!(matches!(client.reply(), Some(Reply::Finished(totals)) if totals.files == 3 && totals.failed == 0));
    drop(client);
    yard.expect_well();
    assert_eq!(list(&yard.root().join("in")), ["f", "f/a", "f/b", "f/c", "f/l"]);
    assert!(std::fs::read(yard.root().join("in/f/b")).unwrap() == noise(300_000, 5));
}

// B05
#[test]
fn a_session_in_one_write_is_served() {
    let mut yard = Yard::new();
    let (bytes, statuses) = whole_session();
    let mut client = Client::silent(&yard.recv);
    client.send(&bytes);
    expect_session(client, &mut yard, &statuses);
}

// B05
#[test]
fn a_session_in_small_pieces_is_served() {
    let mut yard = Yard::new();
    let (bytes, statuses) = whole_session();
    let mut client = Client::silent(&yard.recv);
    // Each frame's head and fields byte by byte; of the content larger pieces, so that it takes no minutes.
    let (first, rest) = bytes.split_at(500);
    first.iter().for_each(|byte| client.send(std::slice::from_ref(byte)));
    let (middle, last) = rest.split_at(rest.len() - 300);
    middle.chunks(997).for_each(|piece| client.send(piece));
    last.iter().for_each(|byte| client.send(std::slice::from_ref(byte)));
    expect_session(client, &mut yard, &statuses);
}

// B05
#[test]
fn a_session_cut_at_any_byte_leaves_nothing_that_is_wrong() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let holder = Client::with(&yard.recv, &open(token));
    let bytes = [hello(), join_frame(token), put("x", b"content")].concat();
    for len in 0..bytes.len() {
        Client::silent(&yard.recv).rest(&bytes[..len]);
        assert!(!yard.root().join("in/x").exists(), "after {len} bytes");
    }
    assert_eq!(temps(yard.root()), Vec::<String>::new());
    let replies = Client::silent(&yard.recv).rest(&bytes);
    assert!(
        matches!(&replies[..], [Reply::Welcome { .. }, Reply::Answer(_), Reply::Answer(put)] if put.status == Status::Published)
    );
    drop(holder);
    bystander.expect_well(&mut yard);
}
