//! Servers that lie, to those who pull from them and to those who look around in the shell: the client
//! ends, says what was wrong, and writes nothing but what it asked for, where it was asked to.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::fake_server::*;
use common::yard::expect_printable;
use common::*;
use parallel_transfer::entry::ListedKind;
use parallel_transfer::protocol::v2::payload::Mark;
use parallel_transfer::protocol::{Features, Reply, Request, Space, Status, Totals};

/// Nothing that goes wrong takes longer.
const BOUNDED: Duration = Duration::from_secs(25);

/// What goes on for ever goes on so long.
const WATCHED: Duration = Duration::from_secs(4);

/// Memory that no client needs.
const PEAK_KIB_MAX: u64 = 100 * 1024;

const IMPATIENT: [&str; 4] = ["--stall_timeout", "500ms", "--retry_for", "1s"];

/// Who meets the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// Pulls the folder `x`.
    Pull,
    /// Lists `x` in the shell.
    Ls,
    /// Gets `x` in the shell.
    Get,
}

const ALL: [Client; 3] = [Client::Pull, Client::Ls, Client::Get];

/// Those that ask for content, where the connection goes on. (In the shell nobody is told to be impatient.)
const TAKERS: [Client; 2] = [Client::Pull, Client::Get];

/// Those that only list.
const LISTERS: [Client; 2] = [Client::Pull, Client::Ls];

/// Who is told to be impatient with a connection that breaks or is silent.
const IMPATIENT_ONES: [Client; 1] = [Client::Pull];

/// What the client comes to, and words of what it says.
#[derive(Clone, Copy)]
enum End {
    /// All is well.
    Well,
    /// This code.
    Code(i32, &'static str),
    /// Any that means a failure.
    Failure(&'static str),
    /// Well or not: it ends.
    Ends,
    /// This goes on for ever: it may end as a failure, or not at all, but needs no memory.
    Never,
}

use End::{Code, Ends, Failure, Never, Well};

type Script = Box<dyn Fn(&Asked<'_>) -> Act + Send + Sync>;

/// A kind of server: what it does, to whom, and what that comes to.
type Row = (&'static str, &'static [Client], End, Script);

fn row(
    name: &'static str, clients: &'static [Client], end: End, script: impl Fn(&Asked<'_>) -> Act + Send + Sync + 'static,
) -> Row {
    (name, clients, end, Box::new(script))
}

/// A server that says this of what is in `x`.
fn with_contents(name: &'static str, clients: &'static [Client], end: End, bytes: Vec<u8>) -> Row {
    row(name, clients, end, move |asked| if asked.is_contents_of("x") { Act::Say(bytes.clone()) } else { Act::Honest })
}

/// One that gives this for each range of `x/a`.
fn with_content(
    name: &'static str, clients: &'static [Client], end: End, make: fn(&Asked<'_>, &parallel_transfer::protocol::Read) -> Vec<u8>,
) -> Row {
    row(name, clients, end, move |asked| match asked.read_of("x/a") {
        Some(read) => Act::Say(make(asked, read)),
        None => Act::Honest,
    })
}

fn honest_a() -> Vec<u8> {
    match node("x/a") {
        Some(Node::File(content)) => content,
        _ => panic!("there is no such file"),
    }
}

/// Where a client lands, and what is beside it that nobody may touch.
struct Place {
    outer: TempDir,
    before: Vec<(String, Option<Vec<u8>>)>,
}

impl Place {
    fn new() -> Self {
        let outer = temp_dir();
        for name in ["sentinel", "outside/sentinel", "outside/b", "outside/d/b"] {
            write(&outer.path().join(name), name);
        }
        fs::create_dir(outer.path().join("local")).unwrap();
        let mut place = Self { outer, before: Vec::new() };
        place.before = place.look_outside();
        place
    }

    fn local(&self) -> std::path::PathBuf {
        self.outer.path().join("local")
    }

    fn look_outside(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let walk = walkdir::WalkDir::new(self.outer.path()).sort_by_file_name().into_iter();
        let entries = walk.filter_entry(|entry| entry.path() != self.local()).map(|entry| entry.unwrap().into_path());
        entries.map(|path| (path.to_str().unwrap().to_owned(), fs::read(path).ok())).collect()
    }

    /// What is wrong with what is there now: outside, and below the folder that `x` landed in.
    fn what_is_wrong(&self, client: Client) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.look_outside() != self.before {
            wrong.push(format!("something outside changed: {:?}", self.look_outside()));
        }
        let top = match client {
            Client::Pull => self.local(),
            Client::Ls | Client::Get => self.local().join("x"),
        };
        for entry in walkdir::WalkDir::new(self.local()).into_iter().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(".ptf-") {
                wrong.push(format!("left behind: {}", path.display()));
            } else if entry.file_type().is_file() && !is_honest(path.strip_prefix(&top).unwrap_or(path), path) {
                wrong.push(format!("not what the server has: {}", path.display()));
            }
        }
        wrong
    }
}

/// Is this file what the server has below `x`?
fn is_honest(name: &std::path::Path, path: &std::path::Path) -> bool {
    match node(&format!("x/{}", name.to_string_lossy())) {
        Some(Node::File(content)) => fs::read(path).unwrap() == content,
        _ => false,
    }
}

fn command(client: Client, port: u16, place: &Place) -> Command {
    let mut command = match client {
        Client::Pull => recv_command(),
        Client::Ls | Client::Get => send_command(),
    };
    if client != Client::Pull {
        command.arg("shell");
    }
    command.args(["--server", "127.0.0.1", "--port", &port.to_string(), "--plain"]).current_dir(place.local());
    match client {
        Client::Pull => command.args(IMPATIENT).args(["--file", "x", "--local_dir"]).arg(place.local()),
        Client::Ls => command.args(["-c", "ls -l x"]),
        Client::Get => command.args(["-c", "get x"]),
    };
    command
}

/// How a client ended: its code, none if it had to be killed; all it said; the memory that it needed.
struct Met {
    code: Option<i32>,
    said: String,
    peak_kib: u64,
}

/// Lets a client meet a server.
fn meet(command: &mut Command, bound: Duration) -> Met {
    let said = tempfile::NamedTempFile::new().unwrap();
    command.stdin(Stdio::null()).stdout(said.reopen().unwrap()).stderr(said.reopen().unwrap());
    // Both streams are one file; without this one would write over the other.
    let appending = || fs::OpenOptions::new().append(true).open(said.path()).unwrap();
    let mut child = command.stdout(appending()).stderr(appending()).spawn().unwrap();
    let (start, mut peak_kib) = (Instant::now(), 0);
    while child.try_wait().unwrap().is_none() && start.elapsed() < bound {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let found = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak_kib = peak_kib.max(found.unwrap_or(0));
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    Met { code: child.wait().unwrap().code(), said: fs::read_to_string(said.path()).unwrap(), peak_kib }
}

/// Lets each client of a row meet its server. Gives what was wrong.
fn try_row(rows: fn(&str) -> Vec<Row>, index: usize, client: Client) -> Vec<String> {
    let place = Place::new();
    let outside = place.outer.path().join("outside");
    let (name, _, end, script) = rows(outside.to_str().unwrap()).swap_remove(index);
    let server = FakeServer::start(script);
    let met = meet(&mut command(client, server.port, &place), if matches!(end, Never) { WATCHED } else { BOUNDED });
    let mut wrong = place.what_is_wrong(client);
    let is_failure = matches!(met.code, Some(1 | 3 | 4));
    let (is_right, words) = match end {
        Well => (met.code == Some(0), ""),
        Code(code, words) => (met.code == Some(code), words),
        Failure(words) => (is_failure, words),
        Ends => (is_failure || met.code == Some(0), ""),
        Never => (is_failure || met.code.is_none(), ""),
    };
    if !is_right {
        wrong.push(format!("it came to {:?}", met.code));
    }
    if !met.said.contains(words) {
        wrong.push(format!("it does not say '{words}'"));
    }
    if ["panicked", "internal error", "overflow"].iter().any(|word| met.said.contains(word)) {
        wrong.push("it broke".to_owned());
    }
    if met.peak_kib > PEAK_KIB_MAX {
        wrong.push(format!("it took {} KiB", met.peak_kib));
    }
    if std::panic::catch_unwind(|| expect_printable(&met.said)).is_err() {
        wrong.push("it speaks to the terminal".to_owned());
    }
    let start = met.said.chars().take(2000).collect::<String>();
    wrong.into_iter().map(|what| format!("{client:?}, {name}: {what}: {start}\n  after {:?}", last_of(&server))).collect()
}

fn last_of(server: &FakeServer) -> Vec<String> {
    let mut asked = server.asked();
    asked.drain(..asked.len().saturating_sub(12));
    asked
}

/// They wait for each other's patience to end, mostly.
const PARTS: usize = 6;

fn hold_against(rows: fn(&str) -> Vec<Row>) {
    let all: Vec<_> =
        rows("").iter().enumerate().flat_map(|(index, row)| row.1.iter().map(move |client| (index, *client))).collect();
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for part in 0..PARTS {
            let (all, wrong) = (&all, &wrong);
            scope.spawn(move || {
                for (index, client) in all.iter().skip(part).step_by(PARTS) {
                    let found = try_row(rows, *index, *client);
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A server that means well.
fn honest_rows(_: &str) -> Vec<Row> {
    vec![row("honest", &ALL, Well, |_| Act::Honest)]
}

#[test]
fn a_server_that_means_well_is_believed() {
    hold_against(honest_rows);
    let place = Place::new();
    let server = FakeServer::start(|_| Act::Honest);
    expect_code(&mut command(Client::Pull, server.port, &place), 0);
    assert_eq!(list(&place.local()), ["a", "d", "d/b"]);
}

/// Names that lead elsewhere, or that nobody may have.
fn names(_: &str) -> Vec<Row> {
    let with = |name: &'static str, bytes: &[u8]| {
        let why = if bytes.is_empty() { "" } else { "answers nonsense" };
        [
            with_contents(name, &ALL, Failure(why), page(true, vec![file(bytes, "x/d/b", 5), listed_at("x", "a")])),
            with_contents(name, &ALL, Failure(why), page(true, vec![folder(bytes), listed_at("x", "a")])),
            with_contents(name, &ALL, Failure(why), page(true, vec![link(bytes, "a")])),
        ]
    };
    let long = [b'n'; 256];
    [
        with("..", b".."),
        with(".", b"."),
        with("no name in a folder", b""),
        with("a/b", b"a/b"),
        with("/etc/passwd", b"/etc/passwd"),
        with("../outside/b", b"../outside/b"),
        with("a slash at the end", b"e/"),
        with("NUL", b"e\0f"),
        with("256 bytes", &long),
        with("a temporary name", b".ptf-x"),
        with("the prefix alone", b".ptf-"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

// C01, C10
#[test]
fn names_that_lead_elsewhere_are_refused() {
    hold_against(names);
}

/// Links, and names that come twice.
fn links(outside: &str) -> Vec<Row> {
    let evil = || link(b"d", outside);
    let twice = |one: Vec<u8>| [one, page(true, vec![listed_at("x", "d"), listed_at("x", "a")])].concat();
    vec![
        with_contents("a link, then a folder of its name", &TAKERS, Ends, page(true, vec![evil(), listed_at("x", "d")])),
        with_contents("a folder, then a link of its name", &TAKERS, Ends, page(true, vec![listed_at("x", "d"), evil()])),
        with_contents("both, in two parts", &TAKERS, Ends, twice(page(false, vec![evil()]))),
        with_contents("a file twice", &TAKERS, Ends, page(true, vec![listed_at("x", "a"), listed_at("x", "a")])),
        with_contents("a folder twice", &TAKERS, Ends, page(true, vec![listed_at("x", "d"), listed_at("x", "d")])),
        with_contents(
            "a file and a folder of one name",
            &TAKERS,
            Ends,
            page(true, vec![file(b"d", "x/d", 5), listed_at("x", "d")]),
        ),
        with_contents("a link that leads out, alone", &TAKERS, Well, page(true, vec![evil(), listed_at("x", "a")])),
        with_contents(
            "a link to control characters",
            &ALL,
            Well,
            page(true, vec![link(b"l", b"\x1b[31m\x07\n\xff\xe2\x80\xae")]),
        ),
        with_contents("a link to nothing", &ALL, Failure("target of a symbolic link"), page(true, vec![link(b"l", b"")])),
        with_contents("a link to a NUL", &ALL, Failure("target of a symbolic link"), page(true, vec![link(b"l", b"a\0b")])),
        with_contents(
            "a link to 4,096 bytes",
            &ALL,
            Failure("a link's target of 4096"),
            page(true, vec![link(b"l", [b't'; 4096])]),
        ),
        with_contents("names that a terminal obeys", &ALL, Ends, {
            page(true, vec![folder(b"\x1b[2J"), folder(b"\x9b31m"), folder("\u{202e}x".as_bytes()), folder(b"line\nfeed")])
        }),
        row("a link to the folder itself is no folder", &TAKERS, Failure("'x'"), |asked| match asked.request {
            Request::List(list) if list.itself && asked.path == "x" => Act::Say(page(true, vec![link(b"", "/etc")])),
            _ => Act::Honest,
        }),
    ]
}

// C01, C03
#[test]
fn links_and_names_that_come_twice_lead_nowhere() {
    hold_against(links);
}

// C03
#[test]
fn a_link_that_is_in_the_way_here_is_not_followed() {
    let place = Place::new();
    symlink(place.outer.path().join("outside"), place.local().join("d")).unwrap();
    let server = FakeServer::start(|_| Act::Honest);
    let met = meet(&mut command(Client::Pull, server.port, &place), BOUNDED);
    assert!(matches!(met.code, Some(0 | 3)), "{:?}: {}", met.code, met.said);
    assert_eq!(place.what_is_wrong(Client::Pull), [""; 0], "{}", met.said);
}

/// Answers to what was not asked.
fn turns(_: &str) -> Vec<Row> {
    fn instead(name: &'static str, bytes: fn() -> Vec<u8>) -> Row {
        with_contents(name, &ALL, Failure("answers "), bytes())
    }
    fn after(name: &'static str, bytes: fn() -> Vec<u8>) -> Row {
        with_contents(name, &TAKERS, Ends, [page(true, vec![listed_at("x", "a")]), bytes()].concat())
    }
    fn to_read(name: &'static str, bytes: fn() -> Vec<u8>) -> Row {
        row(name, &IMPATIENT_ONES, Failure(" a: "), move |asked| match asked.request {
            Request::Read(_) => Act::Say(bytes()),
            _ => Act::Honest,
        })
    }
    let nobody_asked = || page(true, vec![folder(b"e")]);
    let content = || frame(&Reply::Content);
    vec![
        instead("Content in place of a list", content),
        instead("stored in place of a list", || answer(Status::Stored, "")),
        instead("published in place of a list", || answer(Status::Published, "")),
        instead("Welcome in place of a list", || frame(&Reply::Welcome { version: 2, features: Features::BLAKE3 })),
        instead("Opened in place of a list", || frame(&opened(b"/".to_vec()))),
        instead("Finished in place of a list", || frame(&Reply::Finished(Totals::default()))),
        instead("Sum in place of a list", || frame(&Reply::Sum(vec![1; 16]))),
        instead("Had in place of a list", || frame(&Reply::Had(vec![true]))),
        instead("a request in place of a list", || raw_frame(7, b"")),
        instead("an unknown type in place of a list", || raw_frame(0xee, b"")),
        instead("bytes behind the end of a page", || raw_frame(0x8b, &[1, 0, 0, 0])),
        instead("a page of 65,535 names in 3 bytes", || raw_frame(0x8b, &[1, 255, 255])),
        instead("a page that is the last, more or less", || raw_frame(0x8b, &[2, 0, 0])),
        instead("an unknown kind of entry", || raw_frame(0x8b, &[1, 0, 1, 0, 1, b'e', 0, 9])),
        instead("a frame of 16 MiB", || vec![0x8b, 255, 255, 255, 0x8b ^ 255 ^ 0x5a]),
        instead("noise", || noise(65_536, 7)),
        after("a page after the last", nobody_asked),
        after("Content after the last page", content),
        after("Finished after the last page", || frame(&Reply::Finished(Totals::default()))),
        to_read("a list in place of content", || page(true, vec![folder(b"e")])),
        to_read("stored in place of content", || answer(Status::Stored, "")),
        to_read("published in place of content", || answer(Status::Published, "")),
        to_read("had in place of content", || answer(Status::Had, "")),
        to_read("noise in place of content", || noise(65_536, 7)),
        row("content that nobody asked for, at once", &ALL, Failure("out of turn"), |asked| match asked.request {
            Request::Open(_) => Act::Say([honest(asked), frame(&Reply::Content), vec![0x88]].concat()),
            _ => Act::Honest,
        }),
    ]
}

// B01, B02, B04
#[test]
fn what_was_not_asked_for_is_an_error() {
    hold_against(turns);
}

/// Content that is not what was listed.
fn contents(_: &str) -> Vec<Row> {
    vec![
        with_content("half of it, and the end", &IMPATIENT_ONES, Failure(" a: "), |asked, read| {
            content_of(read, asked.checksum, &honest_a()[..30_000], Mark::Same)
        }),
        with_content("nothing, and the end", &IMPATIENT_ONES, Failure(" a: "), |asked, read| {
            content_of(read, asked.checksum, b"", Mark::Same)
        }),
        with_content("one block too many", &IMPATIENT_ONES, Failure(" a: "), |asked, read| {
            let mut bytes = content_of(read, asked.checksum, &honest_a(), Mark::Same);
            bytes.pop();
            bytes.extend(block(read.binding, asked.checksum, read.range.end, b"more", false));
            bytes.push(Mark::Same as u8);
            bytes
        }),
        with_content("a hole that is too long", &IMPATIENT_ONES, Failure(" a: "), |asked, read| {
            let end = read.range.end - read.range.start + 1;
            [frame(&Reply::Content), hole(read.binding, asked.checksum, read.range.start, end), vec![Mark::Same as u8]].concat()
        }),
        with_content("a hole of nothing", &IMPATIENT_ONES, Failure(" a: "), |asked, read| {
            [frame(&Reply::Content), hole(read.binding, asked.checksum, read.range.start, 0), vec![Mark::Same as u8]].concat()
        }),
        with_content("a hole of 2^64 - 1 bytes", &IMPATIENT_ONES, Failure(" a: "), |asked, read| {
            [frame(&Reply::Content), hole(read.binding, asked.checksum, read.range.start, u64::MAX)].concat()
        }),
        with_content("an unknown mark", &IMPATIENT_ONES, Failure(" a: "), |_, _| {
            [frame(&Reply::Content), vec![0x33; 100]].concat()
        }),
        with_content("a wrong digest for ever", &TAKERS, Code(3, " a: arrived with another digest 3 times"), |asked, read| {
            let mut bytes = content_of(read, asked.checksum, &honest_a(), Mark::Same);
            bytes[frame(&Reply::Content).len() + 5] ^= 1;
            bytes
        }),
        with_content("void for ever", &TAKERS, Code(3, " a: "), |asked, read| {
            content_of(read, asked.checksum, &honest_a(), Mark::Void)
        }),
        with_content("void at once, for ever", &TAKERS, Code(3, " a: "), |asked, read| {
            content_of(read, asked.checksum, b"", Mark::Void)
        }),
        with_content("voided for ever", &TAKERS, Code(3, " a: "), |_, _| answer(Status::Voided, "it is another one now")),
        with_content("refused", &TAKERS, Code(3, "it is \\u{1b}[31mred"), |_, _| answer(Status::Refused, "it is \u{1b}[31mred")),
        with_content("content bound to another read", &TAKERS, Code(3, " a: "), |asked, read| {
            let other =
                parallel_transfer::protocol::Read { binding: parallel_transfer::digest::Binding::default(), ..read.clone() };
            content_of(&other, asked.checksum, &honest_a(), Mark::Same)
        }),
        row("a wrong digest, twice", &TAKERS, Well, |asked| match asked.read_of("x/a") {
            Some(read) if asked.times < 2 => {
                let mut bytes = content_of(read, asked.checksum, &honest_a(), Mark::Same);
                bytes[frame(&Reply::Content).len() + 5] ^= 1;
                Act::Say(bytes)
            }
            _ => Act::Honest,
        }),
        with_contents(
            "a file of 2^64 - 1 bytes",
            &TAKERS,
            Failure(" huge: "),
            page(true, vec![file(b"huge", "x/huge", u64::MAX)]),
        ),
        with_contents("a file of 2^63 - 1 bytes", &TAKERS, Failure(" huge: "), {
            page(true, vec![file(b"huge", "x/huge", i64::MAX.unsigned_abs())])
        }),
        with_contents(
            "a file that is larger than it is",
            &IMPATIENT_ONES,
            Failure(" a: "),
            page(true, vec![file(b"a", "x/a", 80_000)]),
        ),
        with_contents("a sparse file of 2^62 bytes", &TAKERS, Failure(" huge: "), {
            let kind = ListedKind::File { identity: identity("x/huge", 1 << 62), is_sparse: true, names: 1 };
            page(true, vec![entry(b"huge", kind, 0o644)])
        }),
    ]
}

// B06, B07, C20
#[test]
fn content_that_is_not_what_was_listed_is_never_published() {
    hold_against(contents);
}

/// Times that no file system has.
fn times(_: &str) -> Vec<Row> {
    let at = |time| {
        let identity = parallel_transfer::entry::Identity { mtime: time, ..identity("x/d/b", 5) };
        entry(b"e", ListedKind::File { identity, is_sparse: false, names: 1 }, 0o644)
    };
    let listed = |name: &'static str, end, time| {
        [
            with_contents(name, &ALL, end, page(true, vec![entry(b"e", ListedKind::Directory { mtime: time }, 0o755)])),
            with_contents(name, &ALL, end, page(true, vec![entry(b"e", ListedKind::Special { mtime: time }, 0o644)])),
            with_contents(name, &ALL, end, page(true, vec![at(time)])),
        ]
    };
    [
        listed("a second has 10^9 nanoseconds", Failure("time"), (0, 1_000_000_000)),
        listed("2^32 - 1 nanoseconds", Failure("time"), (0, u32::MAX)),
        listed("the first second there is", Ends, (i64::MIN, 0)),
        listed("the last second there is", Ends, (i64::MAX, 999_999_999)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn times_that_no_file_system_has_harm_nobody() {
    hold_against(times);
}

/// Servers that never come to an end.
fn endless(_: &str) -> Vec<Row> {
    fn for_ever(name: &'static str, clients: &'static [Client], end: End, next: fn(u64) -> Vec<u8>) -> Row {
        row(name, clients, end, move |asked| if asked.is_contents_of("x") { Act::ForEver(Box::new(next)) } else { Act::Honest })
    }
    let many = |number: u64| {
        let name = |index: u64| format!("{number}-{index}-{}", "n".repeat(150)).into_bytes();
        page(false, (0..400).map(|index| entry(&name(index), ListedKind::Special { mtime: MTIME }, 0o644)).collect())
    };
    vec![
        for_ever("pages of no names", &ALL, Failure("127.0.0.1:"), |_| page(false, Vec::new())),
        for_ever("pages of names", &ALL, Never, many),
        for_ever("pages of folders", &TAKERS, Never, |number| {
            page(false, (0..400).map(|index| folder(format!("{number}-{index}").as_bytes())).collect())
        }),
        for_ever("pages of short names", &ALL, Never, |_| {
            page(false, (0..400_u16).map(|index| folder(&[b'a' + (index % 26) as u8])).collect())
        }),
        row("Finish is never answered", &IMPATIENT_ONES, Ends, |asked| match asked.request {
            Request::Finish => Act::ForEver(Box::new(|_| {
                let path = parallel_transfer::path::RemotePath::parse(b"x").unwrap();
                frame(&Reply::Missing { path, reason: "gone".to_owned() })
            })),
            _ => Act::Honest,
        }),
        for_ever("pages of the same name", &ALL, Never, |_| page(false, vec![folder(b"d")])),
        row("a folder in a folder, and so on", &TAKERS, Failure("dddd"), |asked| match asked.request {
            Request::List(list) if !list.itself && asked.path.starts_with('x') => {
                Act::Say(page(true, vec![folder(&[b'd'; 200])]))
            }
            _ => Act::Honest,
        }),
        row("content without an end", &IMPATIENT_ONES, Failure(" a: "), |asked| match asked.read_of("x/a") {
            Some(read) => {
                let (binding, checksum, start) = (read.binding, asked.checksum, frame(&Reply::Content));
                let block = block(binding, checksum, 0, &honest_a()[..65_536], false);
                Act::ForEver(Box::new(move |number| if number == 0 { start.clone() } else { block.clone() }))
            }
            None => Act::Honest,
        }),
    ]
}

// B02
#[test]
fn what_never_ends_takes_no_memory() {
    hold_against(endless);
}

/// Servers that stop, and those that are none.
fn others(_: &str) -> Vec<Row> {
    fn at(name: &'static str, clients: &'static [Client], end: End, is_it: fn(&Asked<'_>) -> bool, act: fn() -> Act) -> Row {
        row(name, clients, end, move |asked| if is_it(asked) { act() } else { Act::Honest })
    }
    let is_hello = |asked: &Asked<'_>| matches!(asked.request, Request::Hello { .. });
    let is_open = |asked: &Asked<'_>| matches!(asked.request, Request::Open(_));
    let is_list = |asked: &Asked<'_>| asked.is_contents_of("x");
    let is_read = |asked: &Asked<'_>| matches!(asked.request, Request::Read(_));
    let is_join = |asked: &Asked<'_>| matches!(asked.request, Request::Join(_));
    let is_finish = |asked: &Asked<'_>| matches!(asked.request, Request::Finish);
    vec![
        at("silent to the greeting", &ALL, Failure(""), is_hello, || Act::Silent),
        at("silent to Open", &ALL, Failure(""), is_open, || Act::Silent),
        at("silent to List", &IMPATIENT_ONES, Failure("the connection to 127.0.0.1"), is_list, || Act::Silent),
        at("silent to Read", &IMPATIENT_ONES, Failure("makes no progress"), is_read, || Act::Silent),
        at("silent to Join", &IMPATIENT_ONES, Failure(""), is_join, || Act::Silent),
        at("closes at the greeting", &ALL, Failure(""), is_hello, || Act::Close),
        at("closes at Open", &ALL, Failure(""), is_open, || Act::Close),
        at("closes at List", &LISTERS, Failure("the connection "), is_list, || Act::Close),
        at("closes at Read", &IMPATIENT_ONES, Failure(" a: "), is_read, || Act::Close),
        at("closes at Finish", &TAKERS, Ends, is_finish, || Act::Close),
        at("half a list, then nothing", &IMPATIENT_ONES, Failure("the connection to 127.0.0.1"), is_list, || {
            Act::Say(page(true, vec![listed_at("x", "a")])[..20].to_vec())
        }),
        at("one part of a list, then nothing", &IMPATIENT_ONES, Failure("the connection to 127.0.0.1"), is_list, || {
            Act::Say(page(false, vec![listed_at("x", "a")]))
        }),
        at("version 3", &ALL, Failure("does not answer as a receiver"), is_hello, || {
            Act::Say(frame(&Reply::Welcome { version: 3, features: Features::BLAKE3 }))
        }),
        at("features that nobody has", &ALL, Well, is_hello, || {
            Act::Say(frame(&Reply::Welcome { version: 2, features: Features(u64::MAX) }))
        }),
        at("landed in 60,000 bytes", &ALL, Failure("60000 is over the limit"), is_open, || {
            Act::Say(frame(&opened(vec![b'/'; 60_000])))
        }),
        at("landed where a terminal obeys", &ALL, Well, is_open, || Act::Say(frame(&opened(b"/srv/\x1b[31m\n\xff".to_vec())))),
        at("Open is refused", &ALL, Code(4, "no, \\u{1b}[31m"), is_open, || {
            Act::Say(frame(&Reply::Refused("no, \u{1b}[31m".to_owned())))
        }),
        at("List is refused", &ALL, Failure("not you"), is_list, || Act::Say(answer(Status::Refused, "not you"))),
        at("a reason of 60,000 bytes", &ALL, Failure("60000 is over the limit"), is_list, || {
            Act::Say(raw_frame(0x83, &[&[5, 234, 96][..], &[b'r'; 60_000]].concat()))
        }),
        at("a reason that is no text", &ALL, Failure(""), is_list, || Act::Say(raw_frame(0x83, &[5, 0, 1, 0xff]))),
    ]
}

// B03, E02
#[test]
fn a_server_that_stops_or_is_none_ends_the_run_in_time() {
    hold_against(others);
}

/// Numbers that the shell shows as they are, or refuses.
#[test]
fn numbers_of_a_server_are_shown_or_refused() {
    let digest = |len: usize| frame(&Reply::Sum(vec![0xa5; len]));
    let space = |quota, free| frame(&Reply::Space(Space { quota, free, size: u64::MAX }));
    let all =
        parallel_transfer::protocol::QuotaSpace { bytes: u64::MAX, files: u64::MAX, bytes_max: u64::MAX, files_max: u64::MAX };
    let over = parallel_transfer::protocol::QuotaSpace { bytes_max: 0, files_max: 0, ..all };
    let rows: Vec<(&str, Vec<u8>, &[i32])> = vec![
        ("sum x/a", digest(0), &[1, 3]),
        ("sum x/a", digest(64), &[1, 3]),
        ("sum x/a", digest(60_000), &[1, 3]),
        ("sum x/a", frame(&Reply::Content), &[1, 3]),
        ("df", space(Some(all), u64::MAX), &[0]),
        ("df", space(Some(over), 0), &[0]),
        ("df", space(None, u64::MAX), &[0]),
        ("quota", space(Some(all), 0), &[0]),
        ("quota", space(Some(over), u64::MAX), &[0]),
        ("df", raw_frame(0x8e, &[2; 49]), &[1, 3]),
        ("df", raw_frame(0x8e, &[0; 48]), &[1, 3]),
    ];
    for (words, reply, codes) in rows {
        let place = Place::new();
        let said = reply.clone();
        let server = FakeServer::start(move |asked| match asked.request {
            Request::Sum { .. } | Request::Space => Act::Say(said.clone()),
            _ => Act::Honest,
        });
        let mut command = send_command();
        command.args(["shell", "--server", "127.0.0.1", "--port", &server.port.to_string(), "--plain", "-c", words]);
        let met = meet(command.current_dir(place.local()), BOUNDED);
        // Where a shell asks how much room there is as it begins, that is where it fails.
        let is_right = met.code.is_some_and(|code| codes.contains(&code));
        assert!(is_right && !met.said.contains("panicked"), "{words}, {reply:02x?}: {:?}, {}", met.code, met.said);
        expect_printable(&met.said);
        assert_eq!(place.what_is_wrong(Client::Ls), [""; 0]);
    }
}
