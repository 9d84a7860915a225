//! The bytes of files: ranges, digests, holes, marks; what is published and what never is.

use std::fs;
use std::iter;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::thread;

use parallel_transfer::digest::Binding;
use parallel_transfer::protocol::v2::payload::Mark;
use parallel_transfer::protocol::{Open, Status, Wanted};

use crate::client::*;
use crate::common::yard::Yard;
use crate::common::*;

const BLOCK: usize = parallel_transfer::limits::BLOCK_LEN;

fn target(yard: &Yard, name: &str) -> PathBuf {
    yard.root().join("in").join(name)
}

// B06
#[test]
fn a_range_that_is_none_is_refused() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let holder = Client::with(&yard.recv, &open(token));
    let max = u64::MAX;
    for (size, start, end) in [(10, 5, 4), (10, 0, 11), (10, 11, 11), (10, max, 5), (10, 5, max), (0, 0, 1), (max - 1, 0, max)] {
        let numbers = [size, 7_u64, 0].map(u64::to_be_bytes).concat();
        let range = [start, end].map(u64::to_be_bytes).concat();
        // The last four of the numbers are of the tag.
        let body = [&[0][..], &numbers, &[0; 12], &range, &run_of(b"x"), &[1, 0o244]].concat();
        Client::joined(&yard.recv, token).expect_refusal(&frame(4, &body), "range");
    }
    assert!(!target(&yard, "x").exists());
    drop(holder);
    bystander.expect_well(&mut yard);
}

// B06
#[test]
fn the_same_range_twice_is_fine() {
    let mut yard = Yard::new();
    let token = new_token();
    let content = noise(700_000, 1);
    let [first, second] = [0..400_000, 400_000..700_000].map(|range| put_range("x", &content, range, 1));
    let mut one = Client::with(&yard.recv, &open(token));
    let mut other = Client::joined(&yard.recv, token);
    assert_eq!(one.ask(&first), Status::Stored);
    assert_eq!(other.ask(&first), Status::Stored);
    assert_eq!(other.ask(&second), Status::Published);
    for client in [&mut one, &mut other] {
        assert_eq!(client.ask(&second), Status::Had);
        assert_eq!(client.ask(&first), Status::Had);
    }
    one.finish_well();
    drop((one, other));
    yard.expect_well();
    assert!(fs::read(target(&yard, "x")).unwrap() == content);
}

// B06
#[test]
fn a_range_that_comes_again_on_another_connection_while_it_comes_slowly_is_fine() {
    let mut yard = Yard::new();
    let token = new_token();
    let content = noise(700_000, 1);
    let [first, second] = [0..400_000, 400_000..700_000].map(|range| put_range("x", &content, range, 1));
    let mut slow = Client::with(&yard.recv, &open(token));
    let mut quick = Client::joined(&yard.recv, token);
    let (begun, rest) = second.split_at(300);
    slow.send(begun);
    // Answered when all before it was looked at, the slow one's head included.
    assert_eq!(quick.ask(&first), Status::Stored);
    assert_eq!(quick.ask(&second), Status::Published);
    slow.send(rest);
    let answer = slow.answer();
    assert!(matches!(answer.status, Status::Had | Status::Published), "{answer:?}");
    slow.finish_well();
    drop((slow, quick));
    yard.expect_well();
    assert!(fs::read(target(&yard, "x")).unwrap() == content);
}

// B06 C16: what is there is not what was published: somebody changed it, or its time was cut short.
#[test]
fn a_piece_that_comes_late_begins_no_file_anew_whatever_is_there() {
    let mut yard = Yard::new();
    for keeps_old in [false, true] {
        let token = new_token();
        let content = noise(700_000, 1);
        let name = format!("x {keeps_old}");
        let [first, second] = [0..400_000, 400_000..700_000].map(|range| put_range(&name, &content, range, 1));
        let mut one = Client::with(&yard.recv, &Open { keeps_old, ..open(token) });
        let mut other = Client::joined(&yard.recv, token);
        assert_eq!(one.ask(&first), Status::Stored);
        let (begun, rest) = second.split_at(300);
        other.send(begun);
        assert_eq!(one.ask(&second), Status::Published);
        judge::set_mtime(&target(&yard, &name), 1_600_000_000, 0);
        other.send(rest);
        assert_eq!(other.status(), Status::Had);
        assert_eq!(other.ask(&first), Status::Had);
        one.finish_well();
        drop((one, other));
        assert_eq!(temps(yard.root()), Vec::<String>::new());
        assert!(fs::read(target(&yard, &name)).unwrap() == content);
    }
    yard.expect_well();
    // Nor was it kept aside for itself.
    assert_eq!(list(&yard.root().join("in")), ["x false", "x true"]);
}

// B06
#[test]
fn what_never_came_is_named_at_the_end_and_may_come_another_time() {
    let mut yard = Yard::new();
    let content = noise(700_000, 1);
    let mut client = Client::opened(&yard.recv);
    assert_eq!(client.ask(&put_range("f/x", &content, 0..400_000, 1)), Status::Stored);
    assert_eq!(client.ask(&put("whole", b"whole")), Status::Published);
    let names = temps(yard.root());
    assert_eq!(names.len(), 2, "the file and its journal: {names:?}");
    let (missing, totals) = client.finish();
    assert_eq!((missing.len(), totals.failed, totals.files), (1, 1, 1));
    assert_eq!(missing[0].0, "f/x");
    assert!(missing[0].1.contains("300000"), "{missing:?}");
    drop(client);
    yard.expect_well();
    assert_eq!(temps(yard.root()), names);
    // Another job goes on with it.
    let mut client = Client::opened(&yard.recv);
    assert_eq!(client.wanted(&put_range("f/x", &content, 700_000..700_000, 1)), lacks(400_000..700_000));
    assert_eq!(client.ask(&put_range("f/x", &content, 400_000..700_000, 1)), Status::Published);
    client.finish_well();
    assert!(fs::read(target(&yard, "f/x")).unwrap() == content);
    assert_eq!(list(&target(&yard, "")), ["f", "f/x", "whole"]);
}

fn lacks(range: Range<u64>) -> Wanted {
    Wanted { bytes: range.end - range.start, ranges: iter::once(range).collect() }
}

// B06
#[test]
fn an_empty_range_asks_what_has_become_of_a_file() {
    let yard = Yard::new();
    let content = noise(700_000, 1);
    let mut client = Client::opened(&yard.recv);
    let question = put_range("x", &content, 700_000..700_000, 1);
    assert_eq!(client.wanted(&question), lacks(0..700_000));
    assert_eq!(client.ask(&put_range("x", &content, 0..400_000, 1)), Status::Stored);
    assert_eq!(client.wanted(&question), lacks(400_000..700_000));
    assert_eq!(client.ask(&put_range("x", &content, 400_000..700_000, 1)), Status::Published);
    assert_eq!(client.ask(&question), Status::Had);
    client.finish_well();
}

// B07
#[test]
fn a_wrong_digest_is_answered_and_a_good_repeat_is_taken() {
    let mut yard = Yard::new();
    let content = noise(3 * BLOCK, 1);
    let mut client = Client::opened(&yard.recv);
    for (range, wrong_at) in [(0..2 * BLOCK, 1), (0..2 * BLOCK, 2), (2 * BLOCK..3 * BLOCK, 1)] {
        let good = put_range("x", &content, range.clone(), 1);
        let mut wrong = good.clone();
        // The last byte of the data of that block, from the payload's end.
        let blocks_len = range.len() / BLOCK * (BLOCK + 17);
        let payload_at = wrong.len() - 1 - blocks_len;
        wrong[payload_at + wrong_at * (BLOCK + 17) - 17] ^= 1;
        assert_eq!(client.ask(&wrong), Status::Mismatched);
        assert!(!target(&yard, "x").exists());
    }
    assert_eq!(client.ask(&put_range("x", &content, 0..2 * BLOCK, 1)), Status::Stored);
    assert_eq!(client.ask(&put_range("x", &content, 2 * BLOCK..3 * BLOCK, 1)), Status::Published);
    client.finish_well();
    drop(client);
    yard.expect_well();
    assert!(fs::read(target(&yard, "x")).unwrap() == content);
}

// B07
#[test]
fn what_only_ever_came_damaged_is_never_published() {
    let mut yard = Yard::new();
    let content = noise(BLOCK + 5, 1);
    let mut client = Client::opened(&yard.recv);
    let last = put_range("x", &content, BLOCK..BLOCK + 5, 1);
    let whole = put("y", b"why");
    for good in [last, whole] {
        let at = good.len() - 2;
        for _ in 0..4 {
            let mut wrong = good.clone();
            wrong[at] ^= 0x80;
            assert_eq!(client.ask(&wrong), Status::Mismatched);
        }
    }
    assert_eq!(client.ask(&put_range("x", &content, 0..BLOCK, 1)), Status::Stored);
    let (missing, _) = client.finish();
    assert_eq!(missing.len(), 1, "{missing:?}");
    drop(client);
    yard.expect_well();
    // The block that came as it was sent, and no other.
    assert_eq!(list(&target(&yard, "")), temps(&target(&yard, "")));
    let mut client = Client::opened(&yard.recv);
    let size = content.len();
    let wanted = client.wanted(&put_range("x", &content, size..size, 1));
    assert_eq!(wanted, lacks(BLOCK as u64..size as u64));
}

// B08
#[test]
fn no_flipped_bit_publishes_a_wrong_byte() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let mut holder = Client::with(&yard.recv, &open(token));
    let good = put("x", b"content");
    for bit in 0..good.len() * 8 {
        let mut wrong = good.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let mut client = Client::joined(&yard.recv, token);
        client.send(&wrong);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        while client.reply().is_some() {}
        assert_eq!(list(&target(&yard, "")), Vec::<String>::new(), "bit {bit}");
    }
    assert_eq!(holder.ask(&good), Status::Published);
    holder.finish_well();
    drop(holder);
    bystander.expect_well(&mut yard);
    assert_eq!(fs::read(target(&yard, "x")).unwrap(), b"content");
}

#[test]
fn a_void_put_is_answered_so_and_leaves_nothing() {
    let mut yard = Yard::new();
    let content = noise(700_000, 1);
    let mut client = Client::opened(&yard.recv);
    let void = |range, cut: usize| {
        let mut bytes = put_range("x", &content, range, 1);
        bytes.truncate(bytes.len() - cut);
        bytes.push(Mark::Void as u8);
        bytes
    };
    // At its end, before its last block, and of a file that has begun already.
    let last_block = 700_000 % BLOCK + 17;
    assert_eq!(client.ask(&void(0..700_000, 1)), Status::Voided);
    assert_eq!(client.ask(&void(0..700_000, 1 + last_block)), Status::Voided);
    assert_eq!(client.ask(&put_range("x", &content, 0..400_000, 1)), Status::Stored);
    assert_eq!(client.ask(&void(400_000..700_000, 1)), Status::Voided);
    assert_eq!(temps(yard.root()), Vec::<String>::new());
    // The file's next state is another file.
    assert_eq!(client.ask(&put_range("x", &content, 0..700_000, 2)), Status::Published);
    client.finish_well();
    drop(client);
    yard.expect_well();
}

#[test]
fn holes_take_no_room_and_read_as_zeros() {
    let mut yard = Yard::new();
    let len = 4 * BLOCK as u64;
    let meta = parallel_transfer::entry::FileMeta { is_sparse: true, ..meta(len, 1) };
    let mut client = Client::opened(&yard.recv);
    let (mut bytes, binding) = put_head("x", &meta, 0..len);
    let mut content = vec![0; len as usize];
    content[BLOCK..BLOCK + BLOCK].copy_from_slice(&noise(BLOCK, 1));
    bytes.extend(hole(binding, 0, BLOCK as u64));
    bytes.extend(blocks(binding, &content, BLOCK..2 * BLOCK));
    bytes.extend(hole(binding, 2 * BLOCK as u64, 7));
    bytes.extend(hole(binding, 2 * BLOCK as u64 + 7, len - 2 * BLOCK as u64 - 7));
    bytes.push(Mark::Same as u8);
    assert_eq!(client.ask(&bytes), Status::Published);
    client.finish_well();
    drop(client);
    yard.expect_well();
    assert!(fs::read(target(&yard, "x")).unwrap() == content);
    assert!(fs::metadata(target(&yard, "x")).unwrap().blocks() * 512 < 2 * BLOCK as u64);
}

// B02, B07
#[test]
fn a_hole_of_no_length_or_out_of_its_range_is_refused() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let holder = Client::with(&yard.recv, &open(token));
    for len in [0, 1001, u64::MAX, u64::MAX - 999] {
        let (head, binding) = put_head("x", &meta(1000, 1), 0..1000);
        let bytes = [head, hole(binding, 0, len), vec![Mark::Same as u8]].concat();
        Client::joined(&yard.recv, token).expect_refusal(&bytes, "hole");
    }
    // One whose length can't be believed leaves nobody knowing where the next block begins.
    let (head, binding) = put_head("x", &meta(1000, 1), 0..1000);
    let mut damaged = [head, hole(binding, 0, 1000), vec![Mark::Same as u8]].concat();
    let at = damaged.len() - 2;
    damaged[at] ^= 1;
    Client::joined(&yard.recv, token).expect_refusal(&damaged, "damaged hole");
    for mark in [0, 0x12, 0x33, 0xff, Mark::Same as u8] {
        let (head, _) = put_head("x", &meta(1000, 1), 0..1000);
        Client::joined(&yard.recv, token).expect_refusal(&[&head[..], &[mark]].concat(), "mark");
    }
    drop(holder);
    bystander.expect_well(&mut yard);
    assert_eq!(list(&target(&yard, "")), Vec::<String>::new());
}

// B07
#[test]
fn a_block_of_another_file_or_place_is_not_taken() {
    let yard = Yard::new();
    let content = noise(1000, 1);
    let mut client = Client::opened(&yard.recv);
    let (_, of_other) = put_head("other", &meta(1000, 1), 0..1000);
    let (head, of_this) = put_head("x", &meta(1000, 1), 0..1000);
    for (binding, from) in [(of_other, 0), (Binding::default(), 0), (of_this, BLOCK)] {
        // The same bytes, sealed elsewhere.
        let elsewhere = [&vec![0; from][..], &content].concat();
        let payload = blocks(binding, &elsewhere, from..from + 1000);
        let bytes = [&head[..], &payload, &[Mark::Same as u8]].concat();
        assert_eq!(client.ask(&bytes), Status::Mismatched);
    }
    client.finish_well();
    assert!(!target(&yard, "x").exists());
}

#[test]
fn of_two_sessions_with_one_path_the_last_is_there_whole() {
    let mut yard = Yard::new();
    let contents = [1, 2].map(|seed| noise(700_000, seed));
    let mut clients = [Client::opened(&yard.recv), Client::opened(&yard.recv)];
    for range in [0..300_000, 300_000..600_000] {
        for (index, client) in clients.iter_mut().enumerate() {
            let tag = u8::try_from(index).unwrap();
            assert_eq!(client.ask(&put_range("x", &contents[index], range.clone(), tag)), Status::Stored);
        }
    }
    for (index, client) in clients.iter_mut().enumerate() {
        let tag = u8::try_from(index).unwrap();
        assert_eq!(client.ask(&put_range("x", &contents[index], 600_000..700_000, tag)), Status::Published);
        assert!(fs::read(target(&yard, "x")).unwrap() == contents[index], "of session {index}");
        client.finish_well();
    }
    drop(clients);
    yard.expect_well();
    assert_eq!(list(&target(&yard, "")), ["x"]);
}

// B06
#[test]
fn what_is_asked_again_on_another_connection_is_kept_aside_once() {
    let yard = Yard::new();
    write(&target(&yard, "x"), "old");
    write(&target(&yard, "y"), noise(700_000, 9));
    let content = noise(700_000, 1);
    let open = Open { keeps_old: true, ..open(new_token()) };
    let mut first = Client::with(&yard.recv, &open);
    let halves = [0..400_000, 400_000..700_000].map(|range| put_range("y", &content, range, 1));
    for bytes in [put("x", b"new"), halves.concat()] {
        first.send(&bytes);
    }
    // Its answers were lost, say.
    let mut second = Client::joined(&yard.recv, open.token);
    let answered: Vec<Status> = (0..3).map(|_| first.status()).collect();
    assert_eq!(answered, [Status::Published, Status::Stored, Status::Published]);
    for bytes in [put("x", b"new"), halves[1].clone(), halves[0].clone()] {
        assert!(matches!(second.ask(&bytes), Status::Had | Status::Published));
    }
    second.finish_well();
    let names = list(&target(&yard, ""));
    assert_eq!(names.len(), 4, "each once beside its old one, not {names:?}");
}

#[test]
fn what_comes_after_the_end_of_its_job_leaves_no_part_behind() {
    let mut yard = Yard::new();
    let token = new_token();
    let content = noise(700_000, 1);
    let mut client = Client::with(&yard.recv, &open(token));
    let mut other = Client::joined(&yard.recv, token);
    client.finish_well();
    for client in [&mut client, &mut other] {
        client.send(&put_range("x", &content, 0..400_000, 1));
        // Refused or answered, as it likes.
        let _ = client.reply();
    }
    drop((client, other));
    yard.expect_well();
    assert_eq!(temps(yard.root()), Vec::<String>::new());
}

// B06 E04: late copies, of which one is cut off and one comes whole after all.
#[test]
fn what_is_under_way_at_the_end_of_its_job_goes_before_folders_get_their_times() {
    let mut yard = Yard::new();
    let token = new_token();
    let content = noise(700_000, 1);
    let mut client = Client::with(&yard.recv, &open(token));
    let [mut cut, mut whole] = [(); 2].map(|()| Client::joined(&yard.recv, token));
    assert_eq!(client.ask(&folder("d")), Status::Stored);
    let file = put("d/x", &content);
    let (begun, rest) = file.split_at(300_000);
    cut.send(begun);
    whole.send(begun);
    wait_until("both are being received", || temps(yard.root()).len() == 2);
    assert_eq!(client.ask(&file), Status::Published);
    client.finish_well();
    assert_eq!(temps(yard.root()), Vec::<String>::new());
    whole.send(rest);
    let answer = whole.answer();
    assert_eq!((answer.status, &answer.reason[..]), (Status::Refused, "the job has ended"));
    drop((client, cut, whole));
    yard.expect_well();
    let about = fs::metadata(target(&yard, "d")).unwrap();
    assert_eq!((about.mtime(), about.mtime_nsec()), (MTIME.0, MTIME.1.into()));
    assert!(fs::read(target(&yard, "d/x")).unwrap() == content);
}

#[test]
fn many_connections_that_bring_pieces_of_one_file_make_it_whole() {
    let mut yard = Yard::new();
    let token = new_token();
    let content = noise(2_000_000, 1);
    let mut holder = Client::with(&yard.recv, &open(token));
    let published = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let (recv, content) = (&yard.recv, &content);
                scope.spawn(move || {
                    let mut client = Client::joined(recv, token);
                    let ranges = (0..40).filter(|index| index % 4 == worker).map(|index| index * 50_000..(index + 1) * 50_000);
                    let answers: Vec<_> = ranges.map(|range| client.ask(&put_range("x", content, range, 1))).collect();
                    answers.into_iter().filter(|status| *status == Status::Published).count()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
    });
    assert_eq!(published, 1);
    assert_eq!(holder.finish_well().bytes, 2_000_000);
    drop(holder);
    yard.expect_well();
    assert!(fs::read(target(&yard, "x")).unwrap() == content);
}
