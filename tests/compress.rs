//! Content that is compressed on its way: that it arrives as it was, whoever asks for it and whichever way it goes,
//! that it pays, that it stops where it does not, and what comes of compressed blocks that are none.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
#[path = "wire_v2/client.rs"]
#[allow(dead_code, reason = "its other tests use the rest")]
mod client;
mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use client::*;
use common::fake_server::{Act, FakeServer};
use common::job::incoming_bytes;
use common::judge::*;
use common::link::{Knobs, Link};
use common::puller::fetch_from;
use common::sender::*;
use common::yard::Yard;
use common::*;
use parallel_transfer::compress::{Compressor, Level};
use parallel_transfer::digest::{Binding, Checksum};
use parallel_transfer::limits::BLOCK_LEN;
use parallel_transfer::protocol::v2::payload::{Mark, encode_compressed};
use parallel_transfer::protocol::v2::{MAGIC, VERSIONS};
use parallel_transfer::protocol::{Features, Read, Reply, Status};

const ZSTD: [&str; 2] = ["--compress", "zstd"];
const NONE: [&str; 2] = ["--compress", "none"];

/// One connection for content, in the process that was started.
const ONE: [&str; 4] = ["--process_num", "1", "--thread_num", "1"];

/// Words in no order: what shrinks to about a third.
fn words(len: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "the",
        "quick",
        "receiver",
        "of",
        "blocks",
        "and",
        "frames",
        "which",
        "a",
        "sender",
        "compresses",
        "where",
        "it",
        "pays",
        "ranges",
        "folder",
    ];
    let mut text = Vec::with_capacity(len + 16);
    for byte in noise(len / 4 + 16, seed) {
        text.extend_from_slice(WORDS[usize::from(byte % 16)].as_bytes());
        text.push(if byte < 16 { b'\n' } else { b' ' });
    }
    text.resize(len, b'.');
    text
}

/// All that compression may meet: text, zeros, noise, what is both, files around the sizes that matter, holes.
fn make_mixed(top: &Path) {
    for index in 0..150 {
        write(&top.join(format!("small/text {index}")), words(3000, index));
        write(&top.join(format!("small/noise {index}")), noise(3000, index));
    }
    write(&top.join("text"), words(5_000_000, 1000));
    write(&top.join("zeros"), vec![0; 3_000_000]);
    write(&top.join("noise"), noise(6_000_000, 2000));
    write(&top.join("both"), [noise(2_000_000, 1), words(2_000_000, 2), noise(100_000, 3)].concat());
    for len in [0, 1, 127, 128, 129, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1, 1 << 20, (1 << 20) + 1] {
        write(&top.join(format!("sizes/{len}")), words(len, len as u64));
    }
    write_sparse(&top.join("sparse"), 32 << 20, 65_536, 4);
    fs::File::create(top.join("hole")).unwrap().set_len(5 << 20).unwrap();
}

/// How much of a file is on the disk.
fn stored_len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

// C19
#[test]
fn all_arrives_as_it_was_both_ways_with_each_checksum() {
    let source = temp_dir();
    make_mixed(source.path());
    for checksum in ["xxh3", "blake3", "none"] {
        let (root, target) = (temp_dir(), temp_dir());
        let recv = Recv::start(root.path());
        let flags = [&ZSTD[..], &["--checksum", checksum, "--length", "1M"]].concat();
        let there = Ended::of(&mut send_to(recv.port, source.path(), "in", &flags)).expect(0);
        assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
        let here = Ended::of(&mut fetch_from(recv.port, "in", target.path(), &flags)).expect(0);
        assert_kept_in(source.path(), target.path(), |_| false);
        for ended in [there, here] {
            assert!(ended.json["compressed"] == true, "{}", ended.json);
            // Noise goes as it is: 6 MB, 2.1 MB of what is both, half a MB of small ones, a quarter of a MB in the sparse one.
            let wire = ended.number("wire_bytes");
            // What takes too long is sent twice.
            let most = 13_500_000 + ended.number("repeated_bytes");
            assert!((8_500_000..most).contains(&wire), "{checksum}: {wire}");
        }
        for holed in ["sparse", "hole"] {
            assert!(stored_len(&recv.path("in").join(holed)) < 1 << 20, "{holed} was filled");
            assert!(stored_len(&target.path().join(holed)) < 1 << 20, "{holed} was filled");
        }
    }
}

#[test]
fn a_manifest_has_the_digests_of_what_was_not_compressed() {
    let (source, root, target) = (temp_dir(), temp_dir(), temp_dir());
    let content = [words(700_000, 1), noise(300_000, 2), vec![0; 200_000]].concat();
    write(&source.path().join("file"), &content);
    let recv = Recv::start(root.path());
    let manifest = target.path().join("manifest");
    for is_push in [true, false] {
        let into = target.path().join("into");
        let mut command =
            if is_push { send_to(recv.port, source.path(), "in", &ZSTD) } else { fetch_from(recv.port, "in", &into, &ZSTD) };
        Ended::of(command.arg("--manifest").arg(&manifest)).expect(0);
        let expected = format!("{}  file\n", blake3::hash(&content));
        assert_eq!(fs::read_to_string(&manifest).unwrap(), expected, "push: {is_push}");
    }
}

/// What a transfer over one connection came to, and the bytes that went over the link.
struct Went {
    ended: Ended,
    link: u64,
    wire: u64,
}

/// A transfer of a folder, either way, between a receiver and a client with these flags.
fn transfer(source: &Path, is_push: bool, recv_flags: &[&str], flags: &[&str]) -> Went {
    let (root, target) = (temp_dir(), temp_dir());
    let recv = Recv::start_with(if is_push { root.path() } else { source }, recv_flags);
    let link = Link::to(recv.port);
    let ended = if is_push {
        Ended::of(&mut send_to(link.port, source, "in", flags)).expect(0)
    } else {
        Ended::of(&mut fetch_from(link.port, "/", target.path(), flags)).expect(0)
    };
    assert_same(source, &if is_push { recv.path("in") } else { target.path().to_owned() });
    let (link, wire) = (if is_push { link.forth() } else { link.back() }, ended.number("wire_bytes"));
    // Beside content: the handshakes, what is listed and described, and what TLS adds, 22 bytes in 16 KiB.
    assert!(wire <= link && link < wire + wire / 500 + 40_000, "{link} on the link and {wire} counted");
    Went { ended, link, wire }
}

#[test]
fn text_shrinks_whoever_asks_and_whichever_way_it_goes() {
    let source = temp_dir();
    let len = 4_000_000;
    write(&source.path().join("text"), words(len, 1));
    for is_push in [true, false] {
        for (recv_flags, flags, shrinks) in [
            (&[][..], &ZSTD[..], true),
            (&ZSTD, &[], true),
            (&ZSTD, &ZSTD, true),
            (&[], &[], false),
            (&[], &NONE, false),
            (&ZSTD, &NONE, false),
            (&NONE, &ZSTD, false),
        ] {
            let Went { ended, link, .. } = transfer(source.path(), is_push, recv_flags, flags);
            let what = format!("push {is_push}: recv {recv_flags:?}, client {flags:?}: {link} bytes");
            assert_eq!(link < len as u64 / 2, shrinks, "{what}");
            assert_eq!(ended.json["compressed"] == true, shrinks, "{what}");
        }
    }
}

#[test]
fn noise_grows_by_less_than_a_hundredth_and_is_hardly_tried() {
    let source = temp_dir();
    let len = 8_000_000;
    write(&source.path().join("large"), noise(len / 2, 1));
    for index in 0..100 {
        write(&source.path().join(format!("small {index}")), noise(len / 200, index));
    }
    for is_push in [true, false] {
        let Went { link, wire, .. } = transfer(source.path(), is_push, &[], &[&ZSTD[..], &ONE].concat());
        assert!(link.max(wire) < len as u64 + len as u64 / 100, "push {is_push}: {link} {wire}");
    }
}

#[test]
fn the_level_is_that_of_whoever_asks_and_the_clients_where_both_do() {
    let source = temp_dir();
    write(&source.path().join("text"), words(400_000, 1));
    let level = |number| [&ZSTD[..], &["--compress_level", number]].concat();
    for is_push in [true, false] {
        let wire =
            |recv_flags: &[&str], flags: &[&str]| transfer(source.path(), is_push, recv_flags, &[flags, &ONE].concat()).wire;
        let (fast, small) = (wire(&[], &level("1")), wire(&[], &level("19")));
        assert!(small < fast - fast / 20, "push {is_push}: level 1 {fast}, level 19 {small}");
        let is_near = |one: u64, other: u64| one.abs_diff(other) < other / 100;
        assert!(is_near(wire(&level("19"), &[]), small), "push {is_push}: the receiver's level");
        assert!(is_near(wire(&level("19"), &level("1")), fast), "push {is_push}: the client's level");
    }
}

#[test]
fn the_bytes_of_worker_processes_count() {
    let source = temp_dir();
    for index in 0..60 {
        write(&source.path().join(format!("text {index}")), words(1_000_000, index));
    }
    let flags = [&ZSTD[..], &["--process_num", "2", "--thread_num", "1"]].concat();
    let Went { ended, link, .. } = transfer(source.path(), true, &[], &flags);
    assert_eq!(ended.number("processes"), 2);
    assert!(link < 30_000_000, "{link}");
}

#[test]
fn the_summary_says_how_much_travelled() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("text"), words(3_000_000, 1));
    let recv = Recv::start(root.path());
    let said = |remote: &str, flags: &[&str]| text(&expect_code(&mut send_to(recv.port, source.path(), remote, flags), 0).stdout);
    let compressed = said("one", &ZSTD);
    assert!(compressed.contains("2.86 MiB, ") && compressed.contains(" on the wire (compressed)"), "{compressed}");
    assert!(!said("two", &[]).contains("wire"));
}

// F03
#[test]
fn what_can_not_be_asked_for_is_refused_or_said() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("text"), words(100_000, 1));
    let recv = Recv::start_with(root.path(), &ZSTD);
    for (flags, code, why) in [
        (&["--compress", "gzip"][..], 2, "invalid value 'gzip'"),
        (&["--compress", "zstd", "--compress_level", "0"], 2, "0 is not in 1..=19"),
        (&["--compress", "zstd", "--compress-level", "20"], 2, "20 is not in 1..=19"),
        (&["--compress_level", "3"], 2, "--compress <NAME>"),
        (&["--compress", "zstd", "--protocol", "v1"], 1, "--compress: protocol v1 can't do that"),
    ] {
        let ended = Ended::of(&mut send_to(recv.port, source.path(), "in", flags)).expect(code);
        assert!(ended.said.contains(why), "'{why}' is not in {}", ended.said);
    }
    let copied = Ended::of(&mut copy_to(source.path(), &root.path().join("copy"), &ZSTD)).expect(0);
    assert!(copied.said.contains("nothing is compressed on this machine"), "{}", copied.said);
    assert_same(source.path(), &root.path().join("copy"));
    // A receiver that asks for it takes v1 as it always did.
    Ended::of(&mut send_v1(recv.port, source.path(), "v1", &[])).expect(0);
    assert_same(source.path(), &root.path().join("v1"));
}

#[test]
fn a_configuration_file_asks_as_the_flags_do() {
    let (source, root, other) = (temp_dir(), temp_dir(), temp_dir());
    write(&source.path().join("text"), words(1_000_000, 1));
    let config = other.path().join("recv.toml");
    write(&config, "compress = \"zstd\"\ncompress_level = 5\n");
    let recv = Recv::start_with(root.path(), &["--config", config.to_str().unwrap()]);
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "in", &[])).expect(0);
    assert!(ended.number("wire_bytes") < 500_000, "{}", ended.json);
}

// E07
#[test]
fn an_interrupted_run_is_gone_on_with() {
    let (source, root) = (temp_dir(), temp_dir());
    let size = 24_000_000;
    write(&source.path().join("large"), words(size, 1));
    let recv = Recv::start(root.path());
    let flags = [&ZSTD[..], &["--length", "1M"]].concat();
    let sender = Sender::start(&mut send_to(recv.port, source.path(), "in", &[&flags[..], &["--bwlimit", "6M"]].concat()));
    wait_until("half of it has come", || incoming_bytes(&recv.path("in")) > size as u64 / 2);
    drop(sender);
    let link = Link::to(recv.port);
    let ended = Ended::of(&mut send_to(link.port, source.path(), "in", &flags)).expect(0);
    assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
    let (sent, resumed) = (link.forth(), ended.number("resumed_bytes"));
    assert!(resumed > size as u64 / 3, "{resumed}");
    assert!(sent < (size as u64 - resumed) / 2 + 100_000, "{sent} after {resumed}");
}

/// In clear, where nothing but the blocks' own digests tells.
// B08
#[test]
fn a_flipped_bit_costs_a_connection_and_no_content() {
    let source = temp_dir();
    write(&source.path().join("text"), words(3_000_000, 1));
    let flags = [&ZSTD[..], &ONE, &["--plain", "--length", "1M"]].concat();
    for is_push in [true, false] {
        let (root, target) = (temp_dir(), temp_dir());
        let recv = Recv::start(if is_push { root.path() } else { source.path() });
        // The second connection is the first that carries content.
        let link = Link::with(recv.port, move |index| {
            let flip = (index == 1).then_some(123_456);
            if is_push { Knobs { flip, ..Knobs::default() } } else { Knobs { flip_answer: flip, ..Knobs::default() } }
        });
        let ended = if is_push {
            Ended::of(&mut send_to(link.port, source.path(), "in", &flags)).expect(0)
        } else {
            Ended::of(&mut fetch_from(link.port, "/", target.path(), &flags)).expect(0)
        };
        assert_same(source.path(), &if is_push { recv.path("in") } else { target.path().to_owned() });
        let noticed = ended.number("lost_connections") + ended.number("repeated_bytes");
        assert!(noticed > 0, "push {is_push}: nobody noticed: {}", ended.json);
    }
}

// B03
#[test]
fn who_knows_nothing_of_it_gets_what_it_always_got() {
    let yard_of = |flags: &[&str], root: &Path| Recv::start_with(root, flags);
    let root = temp_dir();
    let content = words(200_000, 1);
    write(&root.path().join("in/x"), &content);
    let recv = yard_of(&ZSTD, root.path());
    for features in [Features::BLAKE3, Features(0)] {
        let mut old = Client::silent(&recv);
        old.send(&[&MAGIC[..], &hello_frame(VERSIONS, features)].concat());
        assert_eq!(old.reply(), Some(Reply::Welcome { version: 2, features }), "it asks one that can't");
        old.send(&open_frame(&browse("in")));
        assert!(matches!(old.reply(), Some(Reply::Opened { .. })));
        let file = old.look("x");
        // What came compressed would be a panic.
        assert!(old.read("x", file, 0..content.len() as u64).unwrap() == content);
    }
    // One that can is asked.
    let mut new = Client::silent(&recv);
    new.send(&hello());
    let features = Features::OURS.asking(Some(Level::default()));
    assert_eq!(new.reply(), Some(Reply::Welcome { version: 2, features }));
    // A server that can't, and says so.
    let (server, target) = (FakeServer::start(|_| Act::Honest), temp_dir());
    let flags = [&ZSTD[..], &["--plain"]].concat();
    let ended = Ended::of(&mut fetch_from(server.port, "x", target.path(), &flags)).expect(0);
    assert!(ended.said.contains("knows no compression") && ended.json["compressed"] == false, "{}", ended.said);
    assert!(fs::read(target.path().join("a")).unwrap() == noise(70_000, 1));
}

/// The receivers and senders of another make, which are as old as that.
// B03
#[test]
fn a_peer_of_another_make_is_served_as_before() {
    let peer = || {
        let mut command = Command::new("python3");
        command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/v2_peer.py"));
        command
    };
    let (source, theirs, ours) = (temp_dir(), temp_dir(), temp_dir());
    write(&source.path().join("text"), words(100_000, 1));
    let process = Running::start(peer().arg("recv").arg("--folder").arg(theirs.path()));
    let port = process.first_line.rsplit(' ').next().unwrap().parse().unwrap();
    let flags = [&ZSTD[..], &["--plain"]].concat();
    Ended::of(&mut send_to(port, source.path(), "in", &flags)).expect(0);
    assert_same(source.path(), &theirs.path().join("in"));
    let recv = Recv::start_with(ours.path(), &ZSTD);
    let mut sends = peer();
    sends.args(["send", "--host", "127.0.0.1", "--port", &recv.port.to_string(), "--remote_dir", "in", "--file"]);
    expect_code(sends.arg(source.path()), 0);
    assert_same(source.path(), &recv.path("in"));
}

/// A block of `len` bytes as these, behind their length.
fn marked(bytes: &[u8]) -> Vec<u8> {
    [&encode_compressed(bytes.len().try_into().unwrap())[..], bytes].concat()
}

fn compressed(block: &[u8]) -> Vec<u8> {
    Compressor::new(Level::default()).unwrap().compress(block).unwrap().to_vec()
}

/// A frame of zstd that is `count` runs of 128 KiB of zeros, written in 4 bytes each: it says of itself that it has
/// `size` bytes.
fn bomb(count: u32, size: u32) -> Vec<u8> {
    let mut bytes = [&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..], &size.to_le_bytes()].concat();
    for index in 1..=count {
        let head: u32 = u32::from(index == count) | 1 << 1 | (128 << 10) << 3;
        bytes.extend_from_slice(&[&head.to_le_bytes()[..3], &[0]].concat());
    }
    bytes
}

/// What a compressed block of `words(BLOCK_LEN, 1)` may be that it must not be: a name, the bytes from the mark on, and
/// what is said of them.
fn bad_blocks() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = compressed(&words(BLOCK_LEN, 1));
    let len = |len: u16| encode_compressed(len).to_vec();
    let mut wrong_guard = marked(&good);
    wrong_guard[3] ^= 1;
    let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), b"x"].concat();
    let mut damaged = good.clone();
    damaged[5] ^= 0x10;
    damaged[40] ^= 0xff;
    vec![
        ("a length of 0", len(0), "no smaller"),
        ("a wrong guard", wrong_guard, "length of a compressed block"),
        ("noise", marked(&noise(5000, 1)), "damaged compressed block"),
        ("what was cut", marked(&good[..good.len() - 1]), "damaged compressed block"),
        ("what was altered", marked(&damaged), "damaged compressed block"),
        ("a byte behind it", marked(&[&good[..], b"x"].concat()), "bytes come behind its frame"),
        ("another frame behind it", marked(&[&good[..], &skippable].concat()), "bytes come behind its frame"),
        ("a frame that is nothing", marked(&skippable), "it has 0 bytes in place of 65536"),
        ("one byte less", marked(&compressed(&words(BLOCK_LEN, 1)[..BLOCK_LEN - 1])), "it has 65535 bytes in place of 65536"),
        ("a bomb of 1.8 GiB", marked(&bomb(15_000, 15_000 * (128 << 10))), "damaged compressed block"),
        ("one that denies it", marked(&bomb(15_000, BLOCK_LEN as u32)), "damaged compressed block"),
        ("one of 4 GiB by its own word", marked(&bomb(1, u32::MAX)), "damaged compressed block"),
    ]
}

/// Memory that nobody needs for a block.
const PEAK_KIB_MAX: u64 = 64 * 1024;

// B01 B02 B07 E14
#[test]
fn a_receiver_takes_no_compressed_block_that_is_none() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let content = words(BLOCK_LEN, 1);
    for (name, block, why) in bad_blocks() {
        let (mut bytes, _) = put_head("x", &meta(BLOCK_LEN as u64, 1), 0..BLOCK_LEN as u64);
        bytes.extend(block);
        // So that it waits for nothing.
        bytes.extend([0; 64]);
        let mut client = Client::opened(&yard.recv);
        client.send(&bytes);
        let (before, said) = client.refusal();
        assert!(before.is_empty() && said.contains(why), "{name}: '{why}' is not in '{said}', after {before:?}");
        assert!(!yard.root().join("in/x").exists(), "{name}");
    }
    // A block of 200 bytes: what has room in a whole one is too long for it.
    for (block, why) in [
        (marked(&compressed(&[7; 201])), "damaged compressed block"),
        (encode_compressed(200).to_vec(), "no smaller"),
        (encode_compressed(u16::MAX).to_vec(), "no smaller"),
    ] {
        let (head, _) = put_head("x", &meta(200, 1), 0..200);
        Client::opened(&yard.recv).expect_refusal(&[&head[..], &block, &[0; 64]].concat(), why);
    }
    // A good frame of other bytes is a wrong digest, and the connection goes on.
    let mut client = Client::opened(&yard.recv);
    let (head, binding) = put_head("x", &meta(BLOCK_LEN as u64, 1), 0..BLOCK_LEN as u64);
    let end = |binding: Binding| [&seal(binding, 0, content.len() as u64, &content, false)[..], &[Mark::Same as u8]].concat();
    let other = [&head[..], &marked(&compressed(&words(BLOCK_LEN, 2))), &end(binding)].concat();
    assert_eq!(client.ask(&other), Status::Mismatched);
    assert!(!yard.root().join("in/x").exists());
    let right = [&head[..], &marked(&compressed(&content)), &end(binding)].concat();
    assert_eq!(client.ask(&right), Status::Published);
    assert!(fs::read(yard.root().join("in/x")).unwrap() == content);
    drop(client);
    let peak = yard.recv.process.peak_kib();
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB");
    bystander.expect_well(&mut yard);
}

// B01 B02 B07
#[test]
fn who_fetches_takes_no_compressed_block_that_is_none() {
    let some = ["noise", "a byte behind it", "one byte less", "a bomb of 1.8 GiB", "one that denies it"];
    std::thread::scope(|scope| {
        for (name, block, why) in bad_blocks().into_iter().filter(|(name, ..)| some.contains(name)) {
            scope.spawn(move || {
                let target = temp_dir();
                let server = FakeServer::start(move |asked| match asked.read_of("x/a") {
                    Some(Read { range, .. }) if range.start == 0 => {
                        Act::Say([&fake_server::frame(&Reply::Content)[..], &block, &[0; 64]].concat())
                    }
                    _ => Act::Honest,
                });
                let flags = [&ZSTD[..], &["--plain", "--retry_for", "1s"]].concat();
                let ended = Ended::of(&mut fetch_from(server.port, "x", target.path(), &flags)).expect(3);
                assert!(ended.said.contains(why), "{name}: '{why}' is not in {}", ended.said);
                assert_eq!(list(target.path()), ["d", "d/b"], "{name}");
            });
        }
    });
}

/// A server that compresses though nobody asked, rightly: whoever can take that may.
#[test]
fn what_comes_compressed_unasked_is_taken_if_it_is_right() {
    let (target, content) = (temp_dir(), words(70_000, 1));
    let sent = content.clone();
    let server = FakeServer::start(move |asked| match asked.read_of("x/a") {
        Some(read) => {
            let mut bytes = fake_server::frame(&Reply::Content);
            let at = usize::try_from(read.range.start).unwrap();
            for (index, block) in sent[at..usize::try_from(read.range.end).unwrap()].chunks(BLOCK_LEN).enumerate() {
                let offset = (at + index * BLOCK_LEN) as u64;
                let place = read.binding.of_block(offset, block.len() as u64, false);
                let (digest, _) = asked.checksum.seal(place, offset, block, false);
                bytes.extend([&marked(&compressed(block))[..], &digest[..Checksum::Xxh3.digest_len()]].concat());
            }
            bytes.push(Mark::Same as u8);
            Act::Say(bytes)
        }
        None => Act::Honest,
    });
    let ended = Ended::of(&mut fetch_from(server.port, "x", target.path(), &["--plain"])).expect(0);
    assert!(fs::read(target.path().join("a")).unwrap() == content);
    assert!(ended.number("wire_bytes") < 50_000, "{}", ended.json);
}
