//! Every decoder against bytes at random and golden bytes changed at random: what fuzz/ does at
//! length, for a moment, wherever the tests run.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "a test may fail")]
mod common;
#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, clippy::disallowed_methods, reason = "a test is no peer, and no library")]
mod targets;

use std::fs;
use std::panic;
use std::path::Path;
use std::time::{Duration, Instant};

use common::noise;

/// How long each decoder is tried.
const TIME: Duration = Duration::from_millis(600);

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }
}

/// One of the samples with some bytes changed, or bytes at random.
fn input(random: &mut Random, samples: &[Vec<u8>]) -> Vec<u8> {
    if samples.is_empty() || random.below(4) == 0 {
        return noise(random.below(300), random.next());
    }
    let mut bytes = samples[random.below(samples.len())].clone();
    for _ in 0..random.below(4) {
        let (at, other) = (random.below(bytes.len()), random.below(samples.len()));
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => bytes.truncate(at),
            3 => bytes.extend_from_slice(&samples[other]),
            4 => bytes.splice(at..at, noise(random.below(9), random.next())).for_each(drop),
            5 if !bytes.is_empty() => drop(bytes.remove(at)),
            _ => {}
        }
    }
    bytes
}

/// Tries a decoder for a moment. What makes it fail is shown, with the seed that led there.
fn try_at_random(target: fn(&[u8]), samples: &[Vec<u8>]) {
    let seed = std::env::var("FUZZ_SEED").map_or_else(|_| u64::from(std::process::id()) << 20 | 1, |seed| seed.parse().unwrap());
    let (mut random, start, mut count) = (Random(seed), Instant::now(), 0);
    samples.iter().for_each(|sample| target(sample));
    while start.elapsed() < TIME {
        let bytes = input(&mut random, samples);
        if let Err(cause) = panic::catch_unwind(|| target(&bytes)) {
            eprintln!("FUZZ_SEED={seed}, input {count}: {bytes:02x?}");
            panic::resume_unwind(cause);
        }
        count += 1;
    }
    assert!(count > 50, "only {count} inputs in {TIME:?}");
}

fn golden(name: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap();
    let code = |block: &str| block.lines().filter(|line| !line.starts_with('#')).collect::<String>();
    let bytes = |hex: String| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    text.split("\n\n").map(code).filter(|hex| !hex.is_empty()).map(bytes).collect()
}

/// Types and bodies of the golden frames: what is put together around them is right.
fn bodies() -> Vec<Vec<u8>> {
    let frames = golden("v2.hex")
        .into_iter()
        .filter(|frame| frame.len() >= 9 && frame.iter().take(5).fold(0, |guard, byte| guard ^ byte) == 0x5a);
    frames.map(|frame| [&frame[..1], &frame[5..frame.len() - 4]].concat()).collect()
}

// B01, B02
#[test]
fn requests_of_version_1_are_decoded_or_refused() {
    try_at_random(targets::v1_requests, &golden("v1.hex"));
}

// B01, B02
#[test]
fn requests_of_version_2_are_decoded_or_refused() {
    assert!(bodies().len() > 30);
    try_at_random(targets::v2_requests, &[bodies(), golden("v2.hex")].concat());
}

// B01, B02
#[test]
fn replies_of_version_2_are_decoded_or_refused() {
    try_at_random(targets::v2_replies, &[bodies(), golden("v2.hex")].concat());
}

// B01, B02, C01, C10
#[test]
fn parts_of_lists_are_what_was_listed_or_are_refused() {
    let entry = |kind: u8, more: u8, name: &[u8], rest: &[u8]| {
        [&[kind, u8::try_from(name.len()).unwrap(), 0o44, 200, 7, more][..], name, rest].concat()
    };
    let page = |entries: &[Vec<u8>]| [&[1][..], &entries.concat()].concat();
    let mut samples: Vec<_> = [&b"a"[..], b"", b"..", b".", b"a/b", b"/etc", b"a\0", b".ptf-x", b"\xff", b"...", b"-a", b"\x1b["]
        .map(|name| page(&[entry(0, 3, name, b"1234"), entry(3, 1, b"file", b"xyz")]))
        .into();
    samples.push(page(&[entry(1, 4, b"link", b"../x"), entry(1, 254, b"far", b""), entry(2, 0, b"pipe", b"")]));
    samples.push(page(&[entry(0, 255, &[b'n'; 127], b""), entry(4, 255, &[b'n'; 128], b"")]));
    try_at_random(targets::pages, &samples);
}

// B01, B02
#[test]
fn frames_between_processes_are_decoded_or_refused() {
    try_at_random(targets::v2_pipe, &[bodies(), golden("v2.hex")].concat());
}

// B09
#[test]
fn the_first_bytes_are_told_apart() {
    let others = [&b"GET / HTTP"[..], b"SSH-2.0-x", &[0x16, 3, 1, 2, 0]].map(<[u8]>::to_vec).to_vec();
    try_at_random(targets::dialects, &[golden("v1.hex"), golden("v2.hex"), others].concat());
}

// B01, B02, B07
#[test]
fn payloads_are_taken_in_order_or_refused() {
    let marks = |marks: &[u8]| marks.iter().flat_map(|mark| [&[*mark][..], &[0; 7], &[5], &[0; 16]].concat()).collect::<Vec<_>>();
    let with = |head: [u8; 4], payload: Vec<u8>| [&head[..], &payload].concat();
    let samples = vec![
        with([0, 0, 3, 0], b"\x11hi\n\x88".to_vec()),
        with([0, 0, 5, 0], [&[0x22, 0, 0, 0, 0, 0, 0, 0, 5][..], &[0x88]].concat()),
        with([0, 120, 20, 1], [&[0x11; 9][..], &[0x11; 14], &[0x88]].concat()),
        with([1, 0, 5, 1], marks(&[0x22, 0x11, 0x44])),
        with([2, 0, 0, 0], vec![0x88]),
        with([1, 0, 0, 0], vec![0x44]),
        // Compressed: 200 zeros, and 'hi' with a line feed.
        with([0, 0, 203, 0], b"\x77\0\x10\x3d\x28\xb5\x2f\xfd\x20\xcb\x42\x06\0\0\x19\0\0hi\n\x88".to_vec()),
    ];
    try_at_random(targets::payloads, &samples);
}

#[test]
fn paths_are_parsed_or_refused() {
    let samples = ["a/b", "/srv/in/x", "..", "a/./b//c/", ".ptf-x", "a/.ptf-", "\u{202e}x\u{1b}[31m", "-x/ y"];
    try_at_random(targets::paths, &samples.map(|sample| sample.as_bytes().to_vec()));
}

#[test]
fn tickets_and_fingerprints_are_parsed_or_refused() {
    let key = "SHA256:QOo/VHZ7MnN9d+gA3O+GKg7D/u4P1YhcbSzT74msL4s";
    let ticket = format!("ptf2 192.0.2.7,2001:db8::1 9000 {key} {}", "a5".repeat(32));
    try_at_random(targets::tickets, &[key.as_bytes().to_vec(), ticket.into_bytes()]);
}

// B13
#[test]
fn a_file_of_known_hosts_is_understood_or_refused() {
    let key = "SHA256:QOo/VHZ7MnN9d+gA3O+GKg7D/u4P1YhcbSzT74msL4s";
    let own = parallel_transfer::net::tls::Fingerprint::of(b"a certificate").to_string();
    let lines = [format!("# comment\n\nhost:9000 {key}\n"), format!("host:9000 {own}\n"), format!("other:1 {key}\n")];
    try_at_random(targets::known_hosts, &lines.map(String::into_bytes));
}

// B01, B02, B06
#[test]
fn a_journal_is_read_up_to_what_is_wrong() {
    let range = |kind: u8, start: u64, len: u64| [&[kind][..], &start.to_be_bytes(), &len.to_be_bytes()].concat();
    let blocks = |start, len, more: &[u8]| [&range(1, start, len), &[9; 8][..], more].concat();
    let after = |size: u8, bodies: &[Vec<u8>]| {
        let record = |body: &Vec<u8>| [&[u8::try_from(body.len()).unwrap()][..], body].concat();
        [vec![size], bodies.iter().flat_map(record).collect()].concat()
    };
    let (boot, synced) = ([&[4][..], &[8; 16]].concat(), vec![5]);
    let samples = vec![
        after(0, &[boot.clone(), synced.clone()]),
        after(1, &[range(2, 0, 5), range(3, 4, 1), boot.clone(), range(2, 1, 2)]),
        after(2, &[blocks(65_530, 6, &[&[1][..], &[5; 16]].concat()), range(3, 65_531, 2), range(2, 0, 65_536)]),
        after(3, &[blocks(0, 65_537, &[&[2][..], &[5; 64]].concat()), boot, synced, blocks(9, 9, &[0])]),
        after(4, &[range(2, 0, 1 << 40), range(3, 1 << 39, 1), range(2, 1 << 39, 1)]),
        after(5, &[range(2, 0, 1 << 62), range(2, u64::MAX, 2), range(2, 1 << 62, 1)]),
    ];
    try_at_random(targets::journals, &samples);
}
