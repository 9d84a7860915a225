//! What is done by name to a tree that is there, and to the password of whose it is, frame by frame.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail, and says what it skips")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

#[allow(dead_code, reason = "a part of it")]
#[path = "wire_v2/client.rs"]
mod client;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::thread;

use client::{Client, path, put, put_range};
use common::accounts::Service;
use common::guest::{Guest, new_token, open_as};
use common::sender::leftovers;
use common::yard::Yard;
use common::*;
use parallel_transfer::protocol::v2::request;
use parallel_transfer::protocol::{Algorithm, Answer, Open, Purpose, QuotaSpace, Reply, Secret, Space, Status};

fn frame(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

fn remove(name: &str, is_recursive: bool) -> Vec<u8> {
    frame(|bytes| request::encode_remove(bytes, &path(name), is_recursive))
}

fn rename(from: &str, to: &str) -> Vec<u8> {
    frame(|bytes| request::encode_rename(bytes, &path(from), &path(to)))
}

fn make_directory(name: &str, with_parents: bool) -> Vec<u8> {
    frame(|bytes| request::encode_make_directory(bytes, &path(name), with_parents))
}

fn sum(name: &str, algorithm: Algorithm) -> Vec<u8> {
    frame(|bytes| request::encode_sum(bytes, &path(name), algorithm))
}

fn change_password(old: &str, new: &str) -> Vec<u8> {
    let [old, new] = [old, new].map(|text| Secret::from(text.as_bytes().to_vec()));
    frame(|bytes| request::encode_change_password(bytes, &old, &new))
}

/// One who asks, and what comes of it.
trait Asks {
    fn asks(&mut self, bytes: &[u8]) -> Reply;

    /// Asks for something that is done.
    fn does(&mut self, bytes: &[u8]) {
        assert_eq!(self.asks(bytes), Reply::Answer(Answer::of(Status::Stored)));
    }

    /// Asks for something that is not done, and hears why.
    fn does_not(&mut self, bytes: &[u8], why: &str) {
        match self.asks(bytes) {
            Reply::Answer(Answer { status: Status::Refused, reason }) => assert_eq!(reason, why),
            other => panic!("not refused with '{why}' but {other:?}"),
        }
    }

    fn puts(&mut self, name: &str, content: &[u8]) {
        assert_eq!(self.asks(&put(name, content)), Reply::Answer(Answer::of(Status::Published)));
    }

    fn space(&mut self) -> Space {
        match self.asks(&frame(request::encode_space)) {
            Reply::Space(space) => space,
            other => panic!("{other:?}"),
        }
    }

    /// Bytes and files that count.
    fn used(&mut self) -> (u64, u64) {
        let QuotaSpace { bytes, files, .. } = self.space().quota.unwrap();
        (bytes, files)
    }
}

impl Asks for Client {
    fn asks(&mut self, bytes: &[u8]) -> Reply {
        self.send(bytes);
        self.reply().unwrap()
    }
}

impl Asks for Guest {
    fn asks(&mut self, bytes: &[u8]) -> Reply {
        self.ask(bytes).unwrap()
    }
}

/// One who does not put, but works in a folder that is there.
fn browser(recv: &Recv, folder: &str) -> Client {
    let open = Open { directory: folder.as_bytes().to_vec(), purpose: Purpose::Browse, ..client::open(client::new_token()) };
    Client::with(recv, &open)
}

/// What a program of others says of a file, in hex.
fn said_by(program: &str, file: &Path) -> Option<String> {
    let output = Command::new(program).arg(file).output().ok()?;
    Some(text(&output.stdout).split_whitespace().next().unwrap().to_owned())
}

/// Fails unless sums of the file are what others say.
fn expect_sums(asking: &mut impl Asks, name: &str, file: &Path) {
    for (program, algorithm) in [("md5sum", Algorithm::Md5), ("b3sum", Algorithm::Blake3)] {
        let Some(expected) = said_by(program, file) else {
            println!("SKIPPED: no {program} here");
            continue;
        };
        match asking.asks(&sum(name, algorithm)) {
            Reply::Sum(sum) => assert_eq!(sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected),
            other => panic!("{other:?}"),
        }
    }
}

/// All acts in the folder that was opened, which is `top`.
fn expect_acts<A: Asks>(asking: &mut A, base: &str, top: &Path, bring: impl Fn(&mut A, &str, &[u8])) {
    let content = noise(600_000, 1);
    asking.does(&make_directory("d", false));
    asking.does_not(&make_directory("d", false), &format!("{base}/d is there already"));
    asking.does_not(&make_directory("x/y", false), &format!("can't open {base}/x: No such file or directory (os error 2)"));
    asking.does(&make_directory("x/y", true));
    asking.does(&make_directory("x/y", true));
    bring(asking, "d/a", &content);
    bring(asking, "empty", b"");
    asking.does_not(&rename("d/a", "empty"), &format!("{base}/empty is there already"));
    asking.does_not(&rename("d", "d/e"), &format!("{base}/d/e is in what is to have that name"));
    asking.does(&rename("d", "x/e"));
    expect_sums(asking, "x/e/a", &top.join("x/e/a"));
    expect_sums(asking, "empty", &top.join("empty"));
    assert!(matches!(asking.asks(&sum("x", Algorithm::Md5)), Reply::Answer(Answer { status: Status::Refused, .. })));
    asking.does_not(&remove("x", false), &format!("{base}/x is a folder that is not empty"));
    assert_eq!(list(top), ["empty", "x", "x/e", "x/e/a", "x/y"]);
    asking.does(&remove("x/y", false));
    asking.does(&remove("x", true));
    asking.does(&remove("empty", false));
    asking.does_not(&remove("empty", true), &format!("can't remove {base}/empty: No such file or directory (os error 2)"));
    assert_eq!(list(top), [""; 0]);
    let (space, judge) = (asking.space(), rustix::fs::statvfs(top).unwrap());
    assert!(space.size == judge.f_blocks * judge.f_frsize && space.free <= space.size, "{space:?}");
}

#[test]
fn a_tree_is_changed_by_name_and_told_of() {
    let mut yard = Yard::prepared(|root| fs::create_dir(root.join("in")).unwrap());
    let mut client = browser(&yard.recv, "in");
    let top = yard.root().join("in");
    expect_acts(&mut client, "in", &top, |_, name, content| write(&top.join(name), content));
    assert_eq!(client.space().quota, None);
    client.does_not(&change_password("a", "b"), "this receiver has no accounts");
    client.finish_well();
    client.does_not(&make_directory("late", true), "the job has ended");
    drop(client);
    yard.expect_well();
}

#[test]
fn one_who_changes_nothing_changes_nothing() {
    let mut yard = Yard::prepared(|root| write(&root.join("in/a"), "a"));
    let open = Open { is_dry: true, ..client::open(client::new_token()) };
    let mut client = Client::with(&yard.recv, &open);
    for act in [remove("a", true), rename("a", "b"), make_directory("d", true)] {
        client.does_not(&act, "this job is to change nothing");
    }
    assert_eq!(list(yard.root()), ["in", "in/a"]);
    drop(client);
    yard.expect_well();
}

// C01 C03
#[test]
fn no_act_leads_outside() {
    let mut yard = Yard::prepared(|root| {
        fs::create_dir_all(root.join("in/d")).unwrap();
        let outside = root.parent().unwrap().join("outside");
        symlink(&outside, root.join("in/link")).unwrap();
        symlink(&outside, root.join("in/d/link")).unwrap();
        symlink(outside.join("sentinel"), root.join("in/file")).unwrap();
        write(&root.join("in/own"), "own");
    });
    let mut client = browser(&yard.recv, "in");
    let why = "in/link is a symbolic link, or below one";
    for act in
        [remove("link/sentinel", false), remove("link/in", true), rename("link/sentinel", "x"), make_directory("link/x", false)]
    {
        client.does_not(&act, why);
    }
    client.does_not(&rename("own", "link/x"), why);
    client.does_not(&make_directory("link/x", true), "in/link/x is a symbolic link, or below one");
    for name in ["link/sentinel", "file"] {
        client.does_not(&sum(name, Algorithm::Blake3), &format!("in/{name} is a symbolic link, or below one"));
    }
    for name in ["link", "d", "file"] {
        client.does(&remove(name, true));
    }
    assert_eq!(list(yard.root()), ["in", "in/own"]);
    drop(client);
    yard.expect_well();
}

// C16 D07
#[test]
fn a_folder_with_what_is_being_received_stays_until_nobody_is_at_it() {
    let root = temp_dir();
    let recv = Recv::start_with(root.path(), &["--quota", "10M"]);
    let content = noise(1 << 20, 3);
    let mut sender = Client::opened(&recv);
    assert_eq!(sender.ask(&put_range("d/a", &content, 0..1 << 19, 1)), Status::Stored);
    let mut client = browser(&recv, "in");
    for is_recursive in [false, true] {
        client.does_not(&remove("d", is_recursive), "in/d is a folder in which something is being received");
    }
    assert_eq!(sender.ask(&put_range("d/a", &content, 1 << 19..1 << 20, 1)), Status::Published);
    assert_eq!(sender.ask(&put_range("d/b", &content, 0..1 << 19, 1)), Status::Stored);
    // What came of it stays, and nobody is at it.
    sender.finish();
    drop(sender);
    assert_eq!(leftovers(root.path()).len(), 2);
    client.does(&remove("d/a", false));
    assert_eq!(client.used(), (1 << 19, 1));
    client.does(&remove("d", false));
    assert_eq!((client.used(), list(root.path())), ((0, 0), vec!["in".to_owned()]));
}

// C19 D01 D09
#[test]
fn what_is_removed_is_given_back_at_once_and_is_so_after_a_kill() {
    let root = temp_dir();
    let quota = ["--quota", "1M", "--quota_files", "30000"];
    for number in 0..20_000 {
        write(&root.path().join(format!("in/t/{}/{number}", number % 100)), "0123456789");
    }
    let start = || Recv::start_with(root.path(), &quota);
    let mut recv = start();
    let mut client = browser(&recv, "in");
    assert_eq!(client.used(), (200_000, 20_000));
    let mut other = Client::opened(&recv);
    thread::scope(|scope| {
        let removing = scope.spawn(|| client.does(&remove("t", true)));
        let mut turns = 0;
        while !removing.is_finished() {
            other.puts("beside", &noise(turns % 100, 1));
            turns += 1;
        }
        removing.join().unwrap();
        other.puts("beside", b"");
    });
    assert_eq!(client.used(), (0, 1));
    other.puts("all", &noise(1 << 19, 1));
    other.puts("of it", &noise(1 << 19, 2));
    assert_eq!(
        other.asks(&put("more", b"x")),
        Reply::Answer(Answer {
            status: Status::Refused,
            reason: "needs 1 bytes, 0 bytes of 1 MiB left: remove something, or have the quota raised, for in/more".to_owned(),
        })
    );
    client.does(&remove("of it", false));
    client.does(&rename("all", "half"));
    let used = client.used();
    recv.process.signal("KILL");
    recv.process.wait();
    let recv = start();
    assert_eq!((browser(&recv, "in").used(), used), (used, (1 << 19, 2)));
}

// D02 D07
#[test]
fn many_who_put_remove_and_rename_at_once_leave_what_a_fresh_count_finds() {
    let root = temp_dir();
    fs::create_dir(root.path().join("in")).unwrap();
    let flags = ["--quota", "1M"];
    let recv = Recv::start_with(root.path(), &flags);
    let name = |seed: u64| format!("d{}/f{}", seed % 3, seed / 3 % 4);
    thread::scope(|scope| {
        for number in 0..4 {
            let (recv, name) = (&recv, &name);
            scope.spawn(move || {
                let mut client = browser(recv, "in");
                for turn in 0..150 {
                    let seed = turn * 7 + number * 5;
                    let act = match (turn + number) % 5 {
                        0 => remove(&name(seed), false),
                        1 => rename(&name(seed), &name(seed + 4)),
                        2 if turn % 10 == 2 => remove(&format!("d{}", seed % 3), true),
                        _ => put(&name(seed), &noise((seed * 31 % 5000) as usize, seed)),
                    };
                    client.asks(&act);
                }
            });
        }
    });
    let used = browser(&recv, "in").used();
    assert_eq!(leftovers(root.path()), [""; 0]);
    drop(recv);
    assert_eq!(browser(&Recv::start_with(root.path(), &flags), "in").used(), used);
}

fn opens(service: &Service, password: &str) -> Reply {
    Guest::greeted(service).asks(&open_as("alice", password, new_token()))
}

#[test]
fn an_account_changes_its_own_tree_and_the_trail_tells_it() {
    let service = Service::start(&["--log_format", "json"]);
    let mut guest = Guest::opened(&service, "alice", new_token());
    expect_acts(&mut guest, "in", &service.home(1).join("in"), |asking, name, content| asking.puts(name, content));
    assert_eq!(guest.used(), (0, 0));
    guest.does(&make_directory("d", false));
    guest.does(&rename("d", "e"));
    guest.does(&remove("e", false));
    guest.does_not(&remove("e", false), "can't remove in/e: No such file or directory (os error 2)");
    let log = || service.recv.process.log();
    for words in [
        &[r#""event":"mkdir""#, r#""path":"in/d""#][..],
        &[r#""event":"rename""#, r#""from":"in/d""#, r#""path":"in/e""#],
        &[r#""event":"remove""#, r#""path":"in/e""#],
        &[r#""event":"remove""#, r#""outcome":"refused""#, "No such file", r#""path":"in/e""#],
    ] {
        let has = |line: &str| line.contains(r#""user":"alice""#) && words.iter().all(|word| line.contains(word));
        wait_until(&format!("the trail has {words:?}"), || log().lines().any(has));
    }
}

// B20
#[test]
fn a_password_is_changed_by_who_knows_it_and_only_that_job_goes_on() {
    let service = Service::start(&["--log_format", "json"]);
    let mut guest = Guest::opened(&service, "alice", new_token());
    let mut other = Guest::opened(&service, "alice", new_token());
    guest.does_not(&change_password("pw of bob", "new"), "that is not the password");
    guest.does_not(&change_password("pw of alice", ""), "a password has 1 to 1024 bytes");
    guest.does(&change_password("pw of alice", "new"));
    assert!(other.refusal().contains("the password or a key of the account was changed"));
    // All others have ended: this one has not, nor by another change.
    guest.does(&change_password("new", "newer"));
    assert!(matches!(opens(&service, "newer"), Reply::Opened { .. }));
    for old in ["pw of alice", "new"] {
        assert!(matches!(opens(&service, old), Reply::Refused(why) if why.contains("wrong name, password or key")));
    }
    guest.does(&make_directory("d", false));
    let log = service.recv.process.log();
    let told = |outcome: &str| {
        let has = |line: &&str| line.contains(r#""event":"passwd""#) && line.contains(&format!(r#""outcome":"{outcome}""#));
        log.lines().filter(has).count()
    };
    assert_eq!((told("accepted"), told("denied")), (2, 2));
    assert!(!log.contains("newer") && !log.contains("pw of"));
}

// B17
#[test]
fn one_who_guesses_the_old_password_is_not_listened_to() {
    let service = Service::start(&["--login_tries", "3"]);
    let mut guest = Guest::opened(&service, "alice", new_token());
    for _ in 0..3 {
        guest.does_not(&change_password("guess", "mine"), "that is not the password");
    }
    match guest.asks(&change_password("pw of alice", "mine")) {
        Reply::Refused(why) => assert!(why.contains("too many tries"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(opens(&service, "pw of alice"), Reply::Refused(why) if why.contains("too many tries")));
}
