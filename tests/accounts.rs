//! A receiver with accounts: who gets in, where, and what ends it.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use common::accounts::*;
use common::link::Link;
use common::sender::*;
use common::*;

fn tree() -> TempDir {
    let source = temp_dir();
    make_tree(source.path());
    source
}

const DENIED: &str = "wrong name, password or key";

#[test]
fn everyone_has_a_home_and_the_top_is_the_home() {
    let service = Service::start(&[]);
    let source = tree();
    for (id, name) in [(1, "alice"), (2, "bob")] {
        let ended = Ended::of(&mut service.send_as(name, &format!("pw of {name}"), source.path(), &[])).expect(0);
        assert_same(source.path(), &service.home(id).join("in"));
        assert_eq!(fs::metadata(service.home(id)).unwrap().permissions().mode() & 0o777, 0o700);
        let landed = ended.json["landed"].as_str().unwrap().to_owned();
        assert!(landed.starts_with("/in at "), "{landed}");
    }
    // An absolute path is below the home, also one that the receiver's root has.
    let absolute = service.root.path().join("2/in");
    let mut command = send_to(service.recv.port, source.path(), &absolute, &["--user", "alice", "--host_key", &service.host_key]);
    Ended::of(command.env("PTF_PASSWORD", "pw of alice")).expect(0);
    assert_same(source.path(), &service.home(1).join(absolute.strip_prefix("/").unwrap()));
    // What is there already is not sent again, by the one whose it is.
    let again = Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(0);
    assert_eq!(again.sent(), 0, "{}", again.json);
}

// B14
#[test]
fn whoever_is_not_let_in_hears_the_same_whatever_the_reason_and_the_log_knows_it() {
    let service = Service::start(&[]);
    let source = tree();
    service.user(&["lock", "bob"]);
    expect_code(&mut user(service.place.path(), &["add", "carol"], "pw of carol"), 0);
    service.user(&["remove", "carol", "-y"]);
    let mut said = Vec::new();
    for (name, password, why) in [
        ("nobody", "x", "no such account"),
        ("alice", "pw of bob", "wrong password"),
        ("alice", "", "wrong password"),
        ("bob", "pw of bob", "the account is locked"),
        ("carol", "pw of carol", "no such account"),
        ("../alice", "pw of alice", "no such account"),
    ] {
        let password = if password.is_empty() { " " } else { password };
        let ended = Ended::of(&mut service.send_as(name, password, source.path(), &[])).expect(4);
        assert!(ended.said.contains(DENIED), "{name}: {}", ended.said);
        said.push(ended.json["error"].as_str().unwrap().to_owned());
        service.recv.process.wait_for_log(&format!("not logged in: {why}"));
        assert!(!service.recv.process.log().contains("pw of"));
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(!service.home(1).exists() || fs::read_dir(service.home(1)).unwrap().next().is_none());
    let upper = Ended::of(&mut service.send_as("Alice", "pw of alice", source.path(), &[])).expect(0);
    assert_eq!(upper.number("failed"), 0);
}

#[test]
fn who_does_not_log_in_and_what_is_not_encrypted_is_refused_and_told_why() {
    let service = Service::start(&[]);
    let source = tree();
    for (flags, code, why) in [
        (&["--host_key", service.host_key.as_str()][..], 4, "--user"),
        (&["--plain"], 4, "encrypted"),
        (&["--protocol", "v1"], 1, ""),
    ] {
        let ended = Ended::of(&mut send_to(service.recv.port, source.path(), "in", flags)).expect(code);
        assert!(ended.said.contains(why), "{}", ended.said);
    }
    service.recv.process.wait_for_log("protocol v1 is not spoken here");
    let mut plain = send_to(service.recv.port, source.path(), "in", &["--plain", "--user", "alice"]);
    let output = expect_code(plain.env("PTF_PASSWORD", "secret"), 2);
    assert!(text(&output.stderr).contains("--plain"), "{}", text(&output.stderr));
    // And one without accounts wants nobody's name.
    let root = temp_dir();
    let recv = Recv::start(root.path());
    let mut named = send_to(recv.port, source.path(), "in", &["--user", "alice"]);
    let ended = Ended::of(named.env("PTF_PASSWORD", "secret")).expect(4);
    assert!(ended.said.contains("no accounts"), "{}", ended.said);
}

#[test]
fn a_key_logs_in_and_no_password_is_asked_for() {
    let service = Service::start(&[]);
    let source = tree();
    let file = service.place.path().join("key");
    let line = text(&expect_code(send_command().arg("key").arg("--out").arg(&file), 0).stdout);
    let command = |name: &str| {
        let mut command = send_to(service.recv.port, source.path(), "in", &["--user", name, "--host_key", &service.host_key]);
        command.arg("--key").arg(&file);
        command
    };
    Ended::of(&mut command("alice")).expect(4);
    service.recv.process.wait_for_log("not logged in: wrong key");
    service.user(&["key", "add", "alice", line.trim()]);
    Ended::of(&mut command("alice")).expect(0);
    assert_same(source.path(), &service.home(1).join("in"));
    let other = Ended::of(&mut command("bob")).expect(4);
    assert!(other.said.contains(DENIED), "{}", other.said);
}

#[test]
fn people_sign_up_where_they_may_and_choose_no_quota() {
    let source = tree();
    let sign_up = |service: &Service, name: &str| {
        let mut command = send_command();
        command.args(["signup", "--server", "127.0.0.1", "--port", &service.recv.port.to_string(), "--user", name]);
        command.args(["--host_key", &service.host_key]).env("PTF_PASSWORD", format!("pw of {name}"));
        command
    };
    let closed = Service::start(&[]);
    let output = expect_code(&mut sign_up(&closed, "carol"), 4);
    assert!(text(&output.stderr).contains("nobody can sign up"), "{}", text(&output.stderr));
    let service = Service::start(&["--signup", "--signup_quota", "1M"]);
    expect_code(&mut sign_up(&service, "carol"), 0);
    Ended::of(&mut service.send_as("carol", "pw of carol", source.path(), &["--exclude", "*"])).expect(0);
    let listed: serde_json::Value = serde_json::from_str(&service.user(&["list", "--json"])).unwrap();
    assert!(listed.to_string().contains("1048576"), "{listed}");
    for (name, why) in [("carol", "already"), ("../x", "name"), ("a/b", "name"), ("кирилл", "name")] {
        let output = expect_code(&mut sign_up(&service, name), 4);
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    }
}

/// A run of alice's that stands in the middle of a file.
fn held(service: &Service) -> (TempDir, Link, Sender) {
    let source = temp_dir();
    write(&source.path().join("large"), noise(8 << 20, 1));
    let link = Link::holding(service.recv.port, 1 << 20);
    let flags = ["--length", "1M", "--process_num", "1", "--thread_num", "2", "--retry_for", "1s"];
    let sender = Sender::start(&mut service.send_by(&link, "alice", source.path(), &flags));
    link.wait_until_it_holds();
    (source, link, sender)
}

// B20
#[test]
fn a_session_ends_within_two_seconds_of_what_is_done_to_its_account() {
    for (words, password, why) in [
        (&["lock", "alice"][..], "", "the account was locked"),
        (&["remove", "alice", "-y"], "", "the account was removed"),
        (&["passwd", "alice"], "new", "the password or a key of the account was changed"),
    ] {
        let service = Service::start(&[]);
        let (_source, link, sender) = held(&service);
        expect_code(&mut user(service.place.path(), words, password), 0);
        let done = Instant::now();
        service.recv.process.wait_for_log(why);
        assert!(done.elapsed() < Duration::from_secs(2), "{:?}", done.elapsed());
        link.release();
        let ended = sender.wait();
        assert!([Some(1), Some(4)].contains(&ended.code), "{:?} {}", ended.code, ended.said);
        assert!(!service.home(1).join("in/large").exists());
        wait_until("no connection is left", || !service.recv.process.threads().iter().any(|name| name.starts_with("conn")));
    }
}

// B20
#[test]
fn what_came_before_an_account_was_locked_is_gone_on_with_after_it_was_unlocked() {
    let service = Service::start(&[]);
    let (source, link, sender) = held(&service);
    wait_until("something of it is there", || incoming_len(&service) > 0);
    service.user(&["lock", "alice"]);
    service.recv.process.wait_for_log("the account was locked");
    link.release();
    sender.wait();
    service.user(&["unlock", "alice"]);
    let ended = Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &["--length", "1M"])).expect(0);
    assert_same(source.path(), &service.home(1).join("in"));
    assert!(ended.number("resumed_bytes") > 0, "{}", ended.json);
}

fn incoming_len(service: &Service) -> usize {
    if service.home(1).join("in").exists() { leftovers(&service.home(1)).len() } else { 0 }
}

// B17
#[test]
fn one_who_guesses_is_not_listened_to_and_others_are() {
    let service = Service::start(&["--login_tries", "5"]);
    let source = tree();
    for _ in 0..5 {
        Ended::of(&mut service.send_as("alice", "guess", source.path(), &[])).expect(4);
    }
    let refused = Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(4);
    assert!(refused.said.contains("too many tries"), "{}", refused.said);
}

// B18, F10
#[test]
fn a_login_that_is_wrong_leaves_no_session_that_could_be_joined() {
    let service = Service::start(&["--login_timeout", "1s"]);
    let source = tree();
    let before = Instant::now();
    Ended::of(&mut service.send_as("alice", "guess", source.path(), &["--retry_for", "1s"])).expect(4);
    assert!(before.elapsed() < PATIENCE);
    assert!(!service.home(1).exists());
}

#[test]
fn an_account_without_the_right_to_write_writes_nothing_and_one_that_loses_it_no_more() {
    let service = Service::start(&[]);
    let (_source, link, sender) = held(&service);
    service.user(&["rights", "alice", "read,list"]);
    service.recv.process.wait_for_log("the account may not write any more");
    link.release();
    assert!([Some(1), Some(4)].contains(&sender.wait().code));
    let source = tree();
    let refused = Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(4);
    assert!(refused.said.contains("may not write"), "{}", refused.said);
    service.user(&["rights", "alice", "all"]);
    Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(0);
}

// B17
#[test]
fn nobody_makes_many_accounts_or_finds_out_who_is_here() {
    let service = Service::start(&["--signup", "--login_tries", "3"]);
    let sign_up = |name: &str| {
        let mut command = send_command();
        command.args(["signup", "--server", "127.0.0.1", "--port", &service.recv.port.to_string(), "--user", name]);
        command.args(["--host_key", &service.host_key]).env("PTF_PASSWORD", "a password");
        text(&run(&mut command).stderr)
    };
    assert!(sign_up("alice").contains("already"));
    assert!(sign_up("bob").contains("already"));
    assert_eq!(sign_up("carol"), "");
    assert!(sign_up("dave").contains("too many tries"));
    // Which is not what logging in has to suffer for.
    let source = tree();
    Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(0);
}

// D02
#[test]
fn two_receivers_do_not_count_the_same_homes() {
    let service = Service::start(&[]);
    let mut second = recv_command();
    second.args(["--port", "0", "--root"]).arg(service.root.path());
    second.arg("--accounts").arg(service.place.path().join("accounts.db"));
    let output = expect_code(&mut second, 1);
    assert!(text(&output.stderr).contains("another receiver"), "{}", text(&output.stderr));
}

// B20, E15
#[test]
fn a_lock_counts_also_while_jobs_may_end() {
    let service = Service::start(&["--drain", "60s"]);
    let (_source, link, sender) = held(&service);
    service.recv.process.signal("TERM");
    // New work is refused from then on.
    let other = tree();
    wait_until("it is to end", || {
        Ended::of(&mut service.send_as("bob", "pw of bob", other.path(), &[])).said.contains("is stopping")
    });
    service.user(&["lock", "alice"]);
    service.recv.process.wait_for_log("the account was locked");
    link.release();
    sender.wait();
    assert!(!service.home(1).join("in/large").exists());
}

// B20
#[test]
fn an_account_that_can_not_be_read_is_looked_at_again() {
    let service = Service::start(&[]);
    let (_source, link, sender) = held(&service);
    let file = service.place.path().join("accounts.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    database.execute("UPDATE accounts SET is_locked = 1, rights = 'future' WHERE name = 'alice'", []).unwrap();
    service.recv.process.wait_for_log("can't look at the account");
    database.execute("UPDATE accounts SET rights = 'all' WHERE name = 'alice'", []).unwrap();
    service.recv.process.wait_for_log("the account was locked");
    link.release();
    sender.wait();
    assert!(!service.home(1).join("in/large").exists());
}

#[test]
fn the_trail_says_who_put_what_over_whichever_connection() {
    let service = Service::start(&["--log_format", "json"]);
    let source = temp_dir();
    for index in 0..20 {
        write(&source.path().join(format!("f{index}")), noise(1 << 20, index));
    }
    Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &["--thread_num", "4"])).expect(0);
    let log = service.recv.process.log();
    let puts: Vec<&str> = log.lines().filter(|line| line.contains("\"event\":\"put\"")).collect();
    assert!(puts.len() == 20 && puts.iter().all(|line| line.contains("\"user\":\"alice\"")), "{puts:?}");
}

#[test]
fn the_trail_tells_what_administrators_did_once_and_who_did_it() {
    let service = Service::start(&["--log_format", "json"]);
    service.user(&["lock", "alice"]);
    service.user(&["quota", "bob", "1M"]);
    let told = |what: &str| {
        let log = service.recv.process.log();
        log.lines().filter(|line| line.contains("\"event\":\"admin\"") && line.contains(&format!("{what} by uid "))).count()
    };
    // Those of before it was started as well.
    for what in ["add", "lock", "quota"] {
        wait_until("it is told", || told(what) > 0);
    }
    service.user(&["unlock", "alice"]);
    wait_until("it is told", || told("unlock") > 0);
    assert_eq!(["add", "\"lock", "quota", "unlock"].map(told), [2, 1, 1, 1]);
}

#[test]
fn a_stop_leaves_no_index_of_what_is_not_there() {
    let mut service = Service::start(&[]);
    let source = tree();
    Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(0);
    service.recv.process.signal("TERM");
    assert_eq!(service.recv.process.wait(), Some(0));
    let left = list(&service.place.path().join("state")).into_iter().filter(|name| name.starts_with("incoming-"));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
}
