//! The receiver's side of protocol v1, frame by frame, good and bad.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
//! What the receiver makes of every kind of v1 frame, whole and broken, sent byte for byte.
mod common;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use common::*;

const EMPTY_MD5: &[u8] = b"d41d8cd98f00b204e9800998ecf8427e";

/// Short enough to be waited for.
const STALL: Duration = Duration::from_millis(400);
const SHORT_STALL: &[&str] = &["--stall_timeout", "400ms"];

/// A receiver whose root has neighbours that nobody may touch.
struct Yard {
    outer: TempDir,
    recv: Recv,
}

impl Yard {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(flags: &[&str]) -> Self {
        Self::inside(temp_dir(), flags)
    }

    fn inside(outer: TempDir, flags: &[&str]) -> Self {
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        for name in ["sentinel", "outside/sentinel", "root2/sentinel"] {
            write(&outer.path().join(name), name);
        }
        Self { recv: Recv::start_with(&root, flags), outer }
    }

    /// Nothing is left over, the process is well, and the neighbours are what they were.
    fn expect_well(&mut self) {
        self.recv.expect_idle();
        let outside: Vec<_> =
            list(self.outer.path()).into_iter().filter(|name| name != "root" && !name.starts_with("root/")).collect();
        assert_eq!(outside, ["outside", "outside/sentinel", "root2", "root2/sentinel", "sentinel"]);
        for name in ["sentinel", "outside/sentinel", "root2/sentinel"] {
            assert_eq!(fs::read_to_string(self.outer.path().join(name)).unwrap(), name);
        }
    }

    fn names(&self) -> Vec<String> {
        list(&self.recv.root)
    }

    fn content(&self, name: &str) -> Vec<u8> {
        fs::read(self.recv.path(name)).unwrap()
    }

    /// Sends bytes that end in `answer` and a refusal, logged in one line that has `why` in it.
    fn refuses(&mut self, bytes: &[u8], answer: &[u8], why: &str) {
        let sent = text(&bytes[..bytes.len().min(60)]);
        let stream = self.recv.connect();
        let log_len = self.recv.process.log().len();
        assert_eq!(text(&raw(&stream, bytes)), text(answer), "to {sent:?}");
        self.expect_one_line(log_len, &stream, why);
        drop(stream);
        self.expect_well();
    }

    /// Since `log_len` the log got one line about the peer, with `why` in it.
    fn expect_one_line(&self, log_len: usize, stream: &TcpStream, why: &str) {
        let peer = stream.local_addr().unwrap().to_string();
        let lines = || {
            let log = self.recv.process.log();
            let whole = log.rfind('\n').map_or(log_len, |end| end.max(log_len));
            log[log_len..whole].lines().filter(|line| line.contains(&peer)).map(str::to_owned).collect::<Vec<_>>()
        };
        wait_until(&format!("the log has a line about {peer}, which is to say '{why}'"), || !lines().is_empty());
        let lines = lines();
        assert!(lines.len() == 1 && lines[0].contains(why), "not one line with '{why}' but {lines:#?}");
    }
}

/// A `cd` or `cf` of any bytes.
fn list_frame(operation: &str, names: impl AsRef<[u8]>) -> Vec<u8> {
    let names = names.as_ref();
    [format!("{operation}{:06}", names.len()).as_bytes(), names].concat()
}

/// A `wf` of a name of any bytes.
fn write_frame(name: &[u8], offset: u64, bytes: &[u8]) -> Vec<u8> {
    let numbers = format!("{offset:012}{:012}", bytes.len());
    [format!("wf{:06}", name.len()).as_bytes(), name, numbers.as_bytes(), bytes].concat()
}

/// Sends a frame on an open connection and reads the answer, of one byte or of 32.
fn ask(mut stream: &TcpStream, frame: &[u8]) -> Vec<u8> {
    stream.write_all(frame).unwrap();
    read_bytes(stream, if frame.starts_with(b"wf") { 32 } else { 1 })
}

/// Waits for the other side to end the connection without a further byte.
fn expect_end(mut stream: &TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not an end but {other:?}"),
    }
}

/// The files that `cf` set aside for `name`, each named as it must be, oldest first.
fn kept(root: &Path, name: &str) -> Vec<PathBuf> {
    let mut kept: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    kept.retain(|path| {
        let other = path.file_name().unwrap().to_str().unwrap();
        let Some((start, time)) = other.rsplit_once('_') else { return false };
        let (seconds, fraction) = time.split_once('.').unwrap();
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        assert!(digits(seconds) && digits(fraction), "{other} does not end in a unix time with a fraction");
        name.starts_with(start)
    });
    kept.sort_by_key(|path| path.to_str().unwrap().rsplit_once('_').unwrap().1.to_owned());
    kept
}

#[test]
fn the_example_of_the_description_is_answered_byte_for_byte() {
    let mut yard = Yard::new();
    let stream = yard.recv.connect();
    assert_eq!(ask(&stream, b"cd000004/in/"), b"0");
    assert_eq!(ask(&stream, b"cf000005/in/x"), b"0");
    assert_eq!(ask(&stream, b"wf000005/in/x000000000000000000000003hi\n"), b"764efa883dda1e11db47671c4a3bbd9e");
    assert_eq!(raw(&stream, b""), b"");
    assert_eq!(yard.names(), ["in", "in/x"]);
    assert_eq!(yard.content("in/x"), b"hi\n");
    yard.expect_well();
}

#[test]
fn frames_may_come_in_single_bytes() {
    let mut yard = Yard::new();
    let mut stream = yard.recv.connect();
    for byte in [cd("in"), cf("in/x"), wf("in/x", 0, b"hi\n")].concat() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(raw(&stream, b""), [b"00", &md5_hex(b"hi\n")[..]].concat());
    assert_eq!(yard.content("in/x"), b"hi\n");
    yard.expect_well();
}

#[test]
fn many_frames_may_come_in_one_write() {
    let mut yard = Yard::new();
    let (mut frames, mut answers) = (cd("in"), b"0".to_vec());
    for index in 0..700_u64 {
        let (name, bytes) = (format!("in/{index}"), noise(index as usize, index + 1));
        frames.extend([cf(&name), wf(&name, 0, &bytes)].concat());
        answers.extend([b"0", &md5_hex(&bytes)[..]].concat());
    }
    assert!(yard.recv.raw(&frames) == answers);
    for index in 0..700_u64 {
        assert_eq!(yard.content(&format!("in/{index}")), noise(index as usize, index + 1));
    }
    yard.expect_well();
}

#[test]
fn ranges_may_come_in_any_order_over_any_connections() {
    let mut yard = Yard::new();
    let bytes = noise(1_000_000, 3);
    assert_eq!(yard.recv.raw(&cf("x")), b"0");
    for index in [3, 0, 9, 1, 8, 2, 7, 5, 4, 6] {
        let range: Range<usize> = index * 100_000..(index + 1) * 100_000;
        let part = &bytes[range.clone()];
        assert_eq!(yard.recv.raw(&wf("x", range.start as u64, part)), md5_hex(part));
    }
    assert!(yard.content("x") == bytes);
    yard.expect_well();
}

// A01
#[test]
fn a_connection_that_says_nothing_is_worth_a_debug_line_only() {
    for (flags, lines) in [(&[][..], 0), (&["--verbose"][..], 2)] {
        let mut yard = Yard::with(flags);
        let stream = yard.recv.connect();
        let peer = stream.local_addr().unwrap().to_string();
        assert_eq!(raw(&stream, b""), b"");
        yard.expect_well();
        // The log is in order: when a later peer is in it, all that was to be said of this one is.
        assert_eq!(yard.recv.raw(&cd("..")), b"1");
        yard.recv.process.wait_for_log("'..'");
        let log = yard.recv.process.log();
        assert_eq!(log.lines().filter(|line| line.contains(&peer)).count(), lines, "{log}");
        assert!(yard.names().is_empty());
    }
}

// A02
#[test]
fn a_header_or_list_cut_at_any_byte_touches_no_file() {
    let mut yard = Yard::new();
    let old = [b"0", &md5_hex(b"old")[..]].concat();
    assert_eq!(yard.recv.raw(&[cf("old"), wf("old", 0, b"old")].concat()), old);
    let write = wf("old", 0, b"new");
    for frame in [&cd("one\ntwo/three\n")[..], &cf("old\nnew\ntwo/three"), &cf("/in/x"), &write[..write.len() - 2]] {
        for len in 1..frame.len() {
            assert_eq!(yard.recv.raw(&frame[..len]), b"", "{len} bytes of {}", text(frame));
            // Once more, with a reset instead of an end.
            let mut stream = yard.recv.connect();
            stream.write_all(&frame[..len]).unwrap();
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        yard.expect_well();
        let bytes = yard.content("old");
        // Only the last cut of the write has a byte of data.
        assert!(bytes == b"old" || (frame.starts_with(b"wf") && bytes == b"nld"), "{}", text(&bytes));
        assert_eq!(yard.names(), ["old"]);
    }
    yard.refuses(b"wf000003old0000", b"", "ended early");
}

// A03
#[test]
fn an_unknown_operation_ends_the_connection_at_once_and_no_other() {
    let mut yard = Yard::new();
    let mut witness = yard.recv.connect();
    witness.write_all(b"cf0000").unwrap();
    for operation in
        [&b"zz"[..], b"WF", b"\xff\xfe", b"CD", b"cx", b"wd", b"c\0", b"\0", b"\n", b" cd", b"GET / HTTP/1.1\r\n\r\n"]
    {
        let mut stream = yard.recv.connect();
        stream.write_all(operation).unwrap();
        // It is not told that nothing more will come.
        expect_end(&stream);
    }
    assert_eq!(raw(&witness, b"01x"), b"0");
    assert_eq!(yard.names(), ["x"]);
    yard.expect_well();
}

// A03
#[test]
fn an_unknown_operation_after_good_frames_is_refused_with_their_answers_given() {
    let mut yard = Yard::new();
    yard.refuses(&[&cd("in")[..], b"zz000003abc", &cf("never")].concat(), b"0", "zz");
    assert_eq!(yard.names(), ["in"]);
}

// A05
#[test]
fn an_empty_list_is_done_and_a_write_without_a_name_is_refused() {
    let mut yard = Yard::new();
    assert_eq!(yard.recv.raw(b"cd000000cf000000cd000000"), b"000");
    yard.refuses(b"wf000000000000000000000000000003hi\n", b"", "no file name");
    yard.refuses(b"wf000000", b"", "no file name");
    assert!(yard.names().is_empty());
}

// A06
#[test]
fn a_list_that_never_comes_is_dropped_at_its_deadline_and_costs_no_memory() {
    let mut yard = Yard::with(SHORT_STALL);
    assert_eq!(yard.recv.raw(&[cf("x"), wf("x", 0, b"abc")].concat()).len(), 33);
    let before_kib = yard.recv.process.peak_kib();
    let beginnings = [&b"cd999999abcde/abcd"[..], b"cf999999abcde/abcd", b"wf000001x000000000000999999999999abcdefghij"];
    let streams: Vec<_> = (0..60).map(|_| yard.recv.connect()).collect();
    let start = Instant::now();
    for (mut stream, beginning) in streams.iter().zip(beginnings.into_iter().cycle()) {
        stream.write_all(beginning).unwrap();
    }
    for stream in &streams {
        expect_end(stream);
    }
    assert!(start.elapsed() >= STALL, "dropped before its time");
    yard.recv.process.wait_for_log("made no progress");
    // Less than half of what was announced, thread and buffer and all.
    let grown_kib = yard.recv.process.peak_kib() - before_kib;
    assert!(grown_kib < 60 * 450, "60 connections took {grown_kib} KiB");
    yard.expect_well();
    assert_eq!(yard.names(), ["x"]);
}

// A06
#[test]
fn a_file_name_longer_than_any_path_is_refused_before_it_comes() {
    let mut yard = Yard::new();
    let mut stream = yard.recv.connect();
    stream.write_all(b"wf999999abcdefghij").unwrap();
    expect_end(&stream);
    yard.recv.process.wait_for_log("999999");
    drop(stream);
    yard.expect_well();
}

// A07
#[test]
fn names_that_are_no_text_are_kept_byte_for_byte() {
    let mut yard = Yard::new();
    let name = b"\xff\xfe d/\x80\xc3(\xed\xa0\x80";
    let frames = [list_frame("cd", b"\xff\xfe d"), list_frame("cf", name), write_frame(name, 0, b"hi\n")].concat();
    assert_eq!(yard.recv.raw(&frames), [b"00", &md5_hex(b"hi\n")[..]].concat());
    assert_eq!(fs::read(yard.recv.root.join(std::ffi::OsStr::from_bytes(name))).unwrap(), b"hi\n");
    // And a refusal of one is no trouble either.
    yard.refuses(&list_frame("cd", name), b"1", "\\xff\\xfe d/\\x80\\xc3(");
}

// A08
#[test]
fn a_name_with_a_nul_is_refused() {
    let mut yard = Yard::new();
    write(&yard.recv.path("x"), "old");
    for frame in [list_frame("cd", b"in\0x"), list_frame("cf", b"x\0y"), list_frame("cf", b"\0"), list_frame("cd", b"a/\0/b")] {
        yard.refuses(&frame, b"1", "NUL");
    }
    yard.refuses(&write_frame(b"x\0y", 0, b"new"), b"", "x\\u{0}y");
    assert_eq!(yard.names(), ["x"]);
    assert_eq!(yard.content("x"), b"old");
}

// A09
#[test]
fn empty_lines_in_a_list_mean_nothing_and_a_carriage_return_is_a_byte_like_others() {
    let mut yard = Yard::new();
    assert_eq!(yard.recv.raw(&[cd("\n\none\r\n\ntwo\n\n"), cf("\n\nx\r\ny\n\n"), cd("\n"), cf("\n\n\n")].concat()), b"0000");
    assert_eq!(yard.names(), ["one\r", "two", "x\r", "y"]);
    yard.expect_well();
}

// A11
#[test]
fn a_folder_is_not_replaced_by_a_file() {
    let mut yard = Yard::new();
    write(&yard.recv.path("in/x"), "old");
    for name in ["in", "/in", "in/"] {
        yard.refuses(&cf(name), b"1", "'");
    }
    yard.refuses(&cf("/"), b"1", "root");
    yard.refuses(&wf("in", 0, b"new"), b"", "'in'");
    assert_eq!(yard.names(), ["in", "in/x"]);
    assert_eq!(yard.content("in/x"), b"old");
}

// A12
#[test]
fn a_file_is_not_replaced_by_a_folder_and_has_nothing_below_it() {
    let mut yard = Yard::new();
    write(&yard.recv.path("x"), "old");
    for frame in [cd("x"), cd("x/"), cd("x/in"), cf("x/y"), cf("x/in/y")] {
        yard.refuses(&frame, b"1", "'x");
    }
    yard.refuses(&wf("x/y", 0, b"new"), b"", "'x/y'");
    assert_eq!(yard.names(), ["x"]);
    assert_eq!(yard.content("x"), b"old");
}

// A13
#[test]
fn missing_parents_are_made_and_what_is_there_is_fine() {
    let mut yard = Yard::new();
    assert_eq!(yard.recv.raw(&[cd("a/b/c/d\na/b\na/b/e/\n/"), cf("f/g/x")].concat()), b"00");
    assert_eq!(yard.names(), ["a", "a/b", "a/b/c", "a/b/c/d", "a/b/e", "f", "f/g", "f/g/x"]);
    yard.expect_well();
}

// A14
#[test]
fn a_file_that_no_frame_created_is_not_written_to() {
    let outer = temp_dir();
    write(&outer.path().join("root/before"), "old");
    let mut yard = Yard { recv: Recv::start(&outer.path().join("root")), outer };
    for name in ["sentinel", "outside/sentinel", "root2/sentinel"] {
        write(&yard.outer.path().join(name), name);
    }
    write(&yard.recv.path("since"), "old");
    for name in ["before", "since", "missing", "missing/too"] {
        yard.refuses(&wf(name, 0, b"new"), b"", &format!("'{name}'"));
        yard.refuses(&wf(name, 0, b""), b"", &format!("'{name}'"));
    }
    // A created file that moved, and others in its place, are not what was created.
    for round in 0..20 {
        let _ = fs::remove_file(yard.recv.path("made"));
        assert_eq!(yard.recv.raw(&cf("made")), b"0");
        fs::rename(yard.recv.path("made"), yard.recv.path("moved")).unwrap();
        yard.refuses(&wf("moved", 0, b"new"), b"", "'moved'");
        fs::remove_file(yard.recv.path("moved")).unwrap();
        write(&yard.recv.path("made"), "old");
        yard.refuses(&wf("made", 0, b"new"), b"", "'made'");
        assert_eq!(yard.content("made"), b"old", "round {round}");
    }
    assert_eq!(yard.names(), ["before", "made", "since"]);
    assert_eq!([yard.content("before"), yard.content("since")], [b"old", b"old"]);
}

// A14
#[test]
fn a_file_created_by_one_connection_is_written_by_another_but_not_after_a_restart() {
    let mut yard = Yard::new();
    let (one, other) = (yard.recv.connect(), yard.recv.connect());
    assert_eq!(ask(&one, &cf("x")), b"0");
    assert_eq!(ask(&other, &wf("x", 0, b"one")), md5_hex(b"one"));
    drop((one, other));
    assert_eq!(yard.recv.raw(&wf("x", 3, b"two")), md5_hex(b"two"));
    yard.expect_well();
    yard.recv = Recv::start(&yard.recv.root);
    yard.refuses(&wf("x", 0, b"new"), b"", "'x'");
    assert_eq!(yard.content("x"), b"onetwo");
    assert_eq!(yard.names(), ["x"]);
}

#[test]
fn a_refused_write_ends_its_connection_with_the_answers_before_it_given() {
    let mut yard = Yard::new();
    let frames = [cf("x"), wf("x", 0, b"abc"), wf("missing", 0, &noise(3_000_000, 1)), cf("never")].concat();
    yard.refuses(&frames, &[b"0", &md5_hex(b"abc")[..]].concat(), "'missing'");
    assert_eq!(yard.names(), ["x"]);
}

#[test]
fn a_failed_list_leaves_its_connection_usable() {
    let mut yard = Yard::new();
    write(&yard.recv.path("file"), "old");
    let frames = [cd("file"), cf("../x"), cd("in"), cf("in/x"), wf("in/x", 0, b"abc")].concat();
    assert_eq!(yard.recv.raw(&frames), [b"1100", &md5_hex(b"abc")[..]].concat());
    assert_eq!(yard.names(), ["file", "in", "in/x"]);
    yard.expect_well();
}

// A16
#[test]
fn a_write_of_nothing_is_answered_with_the_digest_of_nothing() {
    let mut yard = Yard::new();
    let frames = [&cf("x")[..], b"wf000001x000000000000000000000000", b"wf000001x999999999999000000000000"].concat();
    assert_eq!(yard.recv.raw(&frames), [b"0", EMPTY_MD5, EMPTY_MD5].concat());
    assert_eq!(yard.content("x"), b"");
    yard.expect_well();
}

#[test]
fn a_write_at_the_largest_offset_leaves_a_hole_before_it() {
    let mut yard = Yard::new();
    let frames = [cf("x"), wf("x", 999_999_999_999, b"!")].concat();
    assert_eq!(yard.recv.raw(&frames), [b"0", &md5_hex(b"!")[..]].concat());
    assert_eq!(fs::metadata(yard.recv.path("x")).unwrap().len(), 1_000_000_000_000);
    yard.expect_well();
}

// A16
#[test]
fn what_is_no_number_is_refused() {
    let mut yard = Yard::new();
    assert_eq!(yard.recv.raw(&[cf("x"), wf("x", 0, b"old")].concat()).len(), 33);
    for number in
        ["-00000000003", "+00000000003", "           3", "3           ", "0x0000000003", "0000000003.0", "00000000003\0"]
    {
        yard.refuses(format!("wf000001x{number}000000000003new").as_bytes(), b"", "offset");
        yard.refuses(format!("wf000001x000000000000{number}new").as_bytes(), b"", "size");
    }
    for number in ["-00001", "+00001", "     1", "1     ", "0x0001", "00001\n"] {
        for operation in ["cd", "cf", "wf"] {
            yard.refuses(format!("{operation}{number}x000000000000000000000003new").as_bytes(), b"", "length");
        }
    }
    assert_eq!(yard.names(), ["x"]);
    assert_eq!(yard.content("x"), b"old");
}

// A16
#[test]
fn a_write_that_ends_short_is_not_confirmed() {
    let mut yard = Yard::new();
    assert_eq!(yard.recv.raw(&cf("x")), b"0");
    for len in [0, 1, 99_999] {
        let frame = wf("x", 0, &noise(100_000, 1));
        yard.refuses(&frame[..frame.len() - 100_000 + len], b"", "'x' ended early");
    }
    yard.refuses(b"wf000001x999999999999999999999999", b"", "'x' ended early");
    assert_eq!(yard.names(), ["x"]);
}

// A17
#[test]
fn data_beyond_the_size_is_taken_as_the_next_frame() {
    let mut yard = Yard::new();
    let frames = [&cf("x")[..], &wf("x", 0, b"hi\n"), b"surplus"].concat();
    yard.refuses(&frames, &[b"0", &md5_hex(b"hi\n")[..]].concat(), "su");
    assert_eq!(yard.content("x"), b"hi\n");
}

// A18
#[test]
fn overlapping_writes_leave_the_last_one_on_top() {
    let mut yard = Yard::new();
    const LEN: usize = 2_000_000;
    let (ones, twos) = (vec![b'1'; LEN], vec![b'2'; LEN]);
    assert_eq!(yard.recv.raw(&cf("x")), b"0");
    thread::scope(|scope| {
        for (offset, bytes) in [(0, &ones), (LEN / 2, &twos)] {
            let recv = &yard.recv;
            scope.spawn(move || {
                let answers = recv.raw(&wf("x", offset as u64, bytes).repeat(5));
                assert_eq!(answers, md5_hex(bytes).repeat(5));
            });
        }
    });
    let bytes = yard.content("x");
    assert_eq!(bytes.len(), LEN + LEN / 2);
    assert!(bytes[..LEN / 2].iter().all(|&byte| byte == b'1'));
    assert!(bytes[LEN / 2..LEN].iter().all(|&byte| byte == b'1' || byte == b'2'));
    assert!(bytes[LEN..].iter().all(|&byte| byte == b'2'));
    // One after the other there is no doubt.
    let (one, other) = (yard.recv.connect(), yard.recv.connect());
    assert_eq!(ask(&one, &wf("x", 0, &twos)), md5_hex(&twos));
    assert_eq!(ask(&other, &wf("x", 1000, b"top")), md5_hex(b"top"));
    drop((one, other));
    assert_eq!(yard.content("x")[998..1005], *b"22top22");
    yard.expect_well();
}

// A21
#[test]
fn a_list_may_have_ten_thousand_names_and_be_as_long_as_its_length_field_allows() {
    // In memory where possible: a disk that is slow at files is not what is tested.
    let mut yard = Yard::inside(tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| temp_dir()), &[]);
    let folder = "d".repeat(93);
    let files: Vec<_> = (0..10_000).map(|index| format!("{folder}/{index:05}")).collect();
    let folders: Vec<_> = (0..10_000).map(|index| format!("{folder}/{:05}", 90_000 + index % 500)).collect();
    let lists = [list_frame("cf", files.join("\n")), list_frame("cd", folders.join("\n"))];
    assert_eq!([lists[0].len(), lists[1].len()], [1_000_007, 1_000_007]);
    let frames = [lists.concat(), wf(&files[9999], 0, b"abc")].concat();
    assert_eq!(yard.recv.raw(&frames), [b"00", &md5_hex(b"abc")[..]].concat());
    assert_eq!(fs::read_dir(yard.recv.path(&folder)).unwrap().count(), 10_500);
    assert!(files.iter().all(|name| yard.recv.path(name).is_file()));
    yard.expect_well();
}

// A21
#[test]
fn the_longest_lists_do_not_stay_in_memory() {
    let mut yard = Yard::new();
    let streams: Vec<_> = (0..60).map(|_| yard.recv.connect()).collect();
    let list = list_frame("cd", "\n".repeat(999_999));
    for stream in &streams {
        assert_eq!(ask(stream, &list), b"0");
    }
    // One after the other: at no time is there more than one such list, beside 60 usual buffers.
    let peak_kib = yard.recv.process.peak_kib();
    assert!(peak_kib < 40 * 1024, "60 connections took {peak_kib} KiB");
    drop(streams);
    yard.expect_well();
}

#[test]
fn a_file_that_is_created_again_is_kept_under_a_name_with_the_time() {
    let mut yard = Yard::new();
    let long = "n".repeat(255);
    let text_of_255 = format!("{}a", "é".repeat(127));
    for (dir, name) in [("one", "x"), ("two", "a.tar.gz"), ("three", &long), ("four", &text_of_255)] {
        let (root, path) = (yard.recv.path(dir), format!("{dir}/{name}"));
        write(&root.join(name), "version 0");
        for version in 1..6 {
            let bytes = format!("version {version}");
            let frames = [cf(&path), wf(&path, 0, bytes.as_bytes())].concat();
            assert_eq!(yard.recv.raw(&frames), [b"0", &md5_hex(bytes.as_bytes())[..]].concat());
        }
        assert_eq!(fs::read(root.join(name)).unwrap(), b"version 5");
        let kept = kept(&root, name);
        let versions: Vec<_> = kept.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!(versions, ["version 0", "version 1", "version 2", "version 3", "version 4"]);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 6);
        if name.len() < 200 {
            assert!(kept.iter().all(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{name}_"))));
        }
    }
    yard.expect_well();
}

/// What three connections are answered that create one file 150 times each, at the same time.
fn create_at_once(recv: &Recv, path: &str) -> String {
    let frames = cf(path).repeat(150);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| text(&recv.raw(&frames)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn no_kept_file_replaces_another_however_fast_they_come() {
    let mut yard = Yard::new();
    for (dir, name) in [("one", "x".to_owned()), ("two", "n".repeat(255))] {
        let path = format!("{dir}/{name}");
        assert_eq!(text(&yard.recv.raw(&cf(&path).repeat(150))), "0".repeat(150));
        let created = create_at_once(&yard.recv, &path).matches('0').count();
        assert_eq!(fs::read_dir(yard.recv.path(dir)).unwrap().count(), 150 + created);
    }
    yard.expect_well();
}

#[test]
fn connections_that_create_one_name_at_the_same_moment_all_succeed() {
    let mut yard = Yard::new();
    assert_eq!(create_at_once(&yard.recv, "x"), "0".repeat(450));
    yard.expect_well();
}

#[test]
fn a_write_goes_to_the_file_that_has_the_name_now() {
    let mut yard = Yard::new();
    let stream = yard.recv.connect();
    assert_eq!(ask(&stream, &cf("x")), b"0");
    assert_eq!(ask(&stream, &wf("x", 0, b"first")), md5_hex(b"first"));
    assert_eq!(yard.recv.raw(&cf("x")), b"0");
    assert_eq!(ask(&stream, &wf("x", 0, b"second")), md5_hex(b"second"));
    drop(stream);
    assert_eq!(yard.content("x"), b"second");
    let kept = kept(&yard.recv.root, "x");
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read(&kept[0]).unwrap(), b"first");
    // What was set aside is out of reach.
    let name = kept[0].file_name().unwrap().to_str().unwrap();
    yard.refuses(&wf(name, 0, b"third"), b"", name);
    assert_eq!(fs::read(&kept[0]).unwrap(), b"first");
}

#[test]
fn a_connection_may_rest_between_frames_but_not_within_one() {
    let mut yard = Yard::with(SHORT_STALL);
    let (idle, silent) = (yard.recv.connect(), yard.recv.connect());
    let start = Instant::now();
    assert_eq!(ask(&idle, &cf("x")), b"0");
    let write = wf("x", 0, b"abc");
    for (beginning, what) in [
        (&b"c"[..], "a header"),
        (b"cd0000", "a header"),
        (b"cf000005/in/", "a header"),
        (&write[..20], "a header"),
        (&write[..write.len() - 1], "write 0..3 of 'x'"),
    ] {
        let log_len = yard.recv.process.log().len();
        let mut stalled = yard.recv.connect();
        stalled.write_all(beginning).unwrap();
        expect_end(&stalled);
        yard.expect_one_line(log_len, &stalled, &format!("{what} made no progress"));
    }
    assert!(start.elapsed() > 5 * STALL);
    assert_eq!(ask(&idle, &wf("x", 0, b"new")), md5_hex(b"new"));
    assert_eq!(ask(&silent, &cd("in")), b"0");
    drop((idle, silent));
    assert_eq!(yard.names(), ["in", "x"]);
    yard.expect_well();
}

#[test]
fn a_peer_that_never_reads_its_answers_is_dropped_and_costs_no_memory() {
    let mut yard = Yard::with(SHORT_STALL);
    let before_kib = yard.recv.process.peak_kib();
    let mut stream = yard.recv.connect();
    stream.write_all(&cf("x")).unwrap();
    let frames = wf("x", 0, b"").repeat(1000);
    let written = (0..30_000).take_while(|_| stream.write_all(&frames).is_ok()).count();
    assert!(written < 30_000, "a gigabyte was taken with no answer read");
    let grown_kib = yard.recv.process.peak_kib() - before_kib;
    assert!(grown_kib < 4 * 1024, "{grown_kib} KiB");
    drop(stream);
    yard.expect_well();
}

// A02, A03: whatever comes
#[test]
fn random_bytes_do_no_harm() {
    let mut yard = Yard::new();
    write(&yard.recv.path("kept"), "old");
    let beginnings = [
        &b""[..],
        b"c",
        b"cd",
        b"cf",
        b"wf",
        b"cd000009",
        b"cf000030",
        b"cf000900/",
        b"wf000001x",
        b"wf000004kept000000000000",
        b"wf000004kept000000000000000000000010",
        b"cf000001xwf000001x000000000000000000000007",
        b"cd000012../outside/x",
        b"cf000003x\n\0",
    ];
    for round in 0..400_usize {
        let random = noise(8 + round % 13 * 97, round as u64 + 1);
        let mut bytes = beginnings[round % beginnings.len()].to_vec();
        // Every third one is text that has more of a frame in it.
        match round % 3 {
            0 => bytes.extend(random.iter().map(|byte| b"0123456789cdwf/.\n-x"[usize::from(byte % 19)])),
            _ => bytes.extend(random),
        }
        yard.recv.raw(&bytes);
    }
    assert_eq!(yard.content("kept"), b"old");
    let frames = [cf("after"), wf("after", 0, b"abc")].concat();
    assert_eq!(yard.recv.raw(&frames), [b"0", &md5_hex(b"abc")[..]].concat());
    assert!(!yard.recv.process.log().contains("panicked"));
    yard.expect_well();
}
