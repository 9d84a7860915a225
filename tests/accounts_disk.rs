//! Homes on the disk: no way out of one, by whatever flips there; what counts is what is there; and accounts
//! whose database is locked, or whose folder is full.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::accounts::*;
use common::judge::{look_at_all, set_mtime};
use common::metrics::*;
use common::mount::Mount;
use common::sender::*;
use common::*;
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// A receiver in bob's home of which is something, and a judge of that.
fn with_bob() -> (Service, impl Fn(&Service) -> String) {
    let (service, source) = (Service::start(&[]), temp_dir());
    write(&source.path().join("d/secret"), "of bob");
    Ended::of(&mut service.send_as("bob", "pw of bob", source.path(), &[])).expect(0);
    let look = |service: &Service| {
        format!("{:?} {:?}", look_at_all(&service.home(2), true), fs::read(service.home(2).join("in/d/secret")))
    };
    (service, look)
}

// C03
#[test]
fn a_folder_that_becomes_a_link_to_another_home_and_back_lets_nothing_into_it() {
    let (service, look) = with_bob();
    let before = look(&service);
    let source = temp_dir();
    let send = |round: i64, flags: &[&str]| {
        // New versions of each, and a folder that is not there yet.
        for name in ["d/secret".to_owned(), "d/other".to_owned(), format!("d/new{round}/er")] {
            write(&source.path().join(&name), format!("{name} of alice {round}"));
            set_mtime(&source.path().join(&name), 1_600_000_000 + round, 0);
        }
        Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[flags, &["--retry_for", "1s"]].concat()))
    };
    send(0, &[]).expect(0);
    let (folder, link) = (service.home(1).join("in/d"), service.home(1).join("in/link"));
    symlink("../../2/in/d", &link).unwrap();
    let (flips, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (mut stored, mut failed) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                flips.fetch_add(1, Ordering::Relaxed);
            }
        });
        let deadline = Instant::now() + PATIENCE / 2;
        let mut round = 0;
        while (flips.load(Ordering::Relaxed) < 10_000 || stored < 3 || failed < 3) && Instant::now() < deadline {
            round += 1;
            let ended = send(round, if round % 2 == 0 { &["--backup"] } else { &[] });
            failed += usize::from(ended.code == Some(3));
            stored += usize::from(ended.json["files"].as_u64().is_some_and(|files| files > 0));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(flips.into_inner() >= 10_000 && stored >= 3 && failed >= 3, "{stored} stored, {failed} failed");
    assert_eq!(look(&service), before);
}

// C03
#[test]
fn links_to_another_home_arrive_as_text_and_nothing_goes_through_them() {
    let (service, look) = with_bob();
    let before = look(&service);
    let source = temp_dir();
    let targets = [("leaf", "../../2/in/d/secret"), ("home", "../../2"), ("folder", "../../2/in/d")];
    for (name, target) in targets {
        symlink(target, source.path().join(name)).unwrap();
    }
    Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), &[])).expect(0);
    for (name, target) in targets {
        assert_eq!(fs::read_link(service.home(1).join("in").join(name)).unwrap(), Path::new(target));
    }
    let through = temp_dir();
    for name in ["leaf", "home/in/d/secret", "folder/secret", "folder/new"] {
        write(&through.path().join(name), "of alice");
    }
    for flags in [&[][..], &["--backup"]] {
        let ended = Ended::of(&mut service.send_as("alice", "pw of alice", through.path(), flags));
        assert!([Some(0), Some(3)].contains(&ended.code), "{}", ended.said);
        assert_eq!(look(&service), before);
        // A link is replaced at the leaf.
        assert_eq!(fs::read_link(service.home(1).join("in/leaf")).ok(), None);
        assert_eq!(fs::read(service.home(1).join("in/leaf")).unwrap(), b"of alice");
    }
}

/// Bytes of all below a folder as a quota counts them: each file once, links by their text.
fn counted(top: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = walkdir::WalkDir::new(top).into_iter().map(Result::unwrap);
    let mut seen = std::collections::BTreeMap::new();
    for entry in entries.filter(|entry| !entry.file_type().is_dir()) {
        let about = entry.path().symlink_metadata().unwrap();
        seen.insert(about.ino(), about.len());
    }
    seen.values().sum()
}

// D07
#[test]
fn what_counts_for_a_quota_is_what_a_walk_of_the_home_finds_whatever_was_done() {
    let service = Service::start(&["--metrics", "0"]);
    let port = metrics_port(&service.recv);
    let used = || numbers(port)["ptf_quota_used_bytes"] as u64;
    let source = temp_dir();
    let put = |name: &str, len: usize| {
        let path = source.path().join(name);
        let _ = fs::remove_file(&path);
        write(&path, noise(len, len as u64));
    };
    let send = |flags: &[&str]| Ended::of(&mut service.send_as("alice", "pw of alice", source.path(), flags));
    let check = |what: &str| assert_eq!(used(), counted(&service.home(1)), "{what}");
    put("a", 1000);
    put("b/c", 200_000);
    put("b/empty", 0);
    symlink("somewhere/else", source.path().join("b/link")).unwrap();
    fs::hard_link(source.path().join("b/c"), source.path().join("b/twin")).unwrap();
    send(&[]).expect(0);
    check("after a put");
    for (len, flags) in [(5000, &[][..]), (10, &[]), (70_000, &["--backup"]), (3, &["--backup"])] {
        put("a", len);
        send(flags).expect(0);
        check("after it was replaced");
    }
    put("b/twin", 33);
    send(&[]).expect(0);
    check("after one of two names was replaced");
    fs::remove_file(source.path().join("a")).unwrap();
    symlink("x", source.path().join("a")).unwrap();
    send(&[]).expect(0);
    check("after a link replaced a file");
    fs::remove_file(source.path().join("a")).unwrap();
    put("a", 12);
    send(&[]).expect(0);
    check("after a file replaced a link");
    service.user(&["quota", "alice", "600000"]);
    wait_until("the quota counts", || numbers(port)["ptf_quota_limit_bytes"] as u64 == 600_000);
    put("large", 500_000);
    send(&[]).expect(3);
    check("after a file was refused");
}

// D16
#[test]
fn people_log_in_while_another_program_has_the_accounts_locked() {
    let (service, source) = (Service::start(&[]), temp_dir());
    write(&source.path().join("file"), "x");
    let script = "import sqlite3, sys, threading\n\
        db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN EXCLUSIVE')\n\
        print('locked', flush=True); threading.Event().wait()";
    let file = service.place.path().join("accounts.db");
    let shell = Running::start(Command::new("python3").args(["-c", script]).arg(&file));
    assert_eq!(shell.first_line, "locked");
    for name in ["alice", "bob", "alice"] {
        let before = Instant::now();
        let ended = Ended::of(&mut service.send_as(name, &format!("pw of {name}"), source.path(), &[]));
        assert!(ended.code == Some(0) || ended.said.contains("busy"), "{}", ended.said);
        assert!(before.elapsed() < Duration::from_secs(15), "{:?}", before.elapsed());
    }
    Ended::of(&mut service.send_as("alice", "guess", source.path(), &[])).expect(4);
    let output = expect_code(&mut user(service.place.path(), &["lock", "bob"], ""), 1);
    assert!(text(&output.stderr).contains("busy"), "{}", text(&output.stderr));
    drop(shell);
    // What waited is noted, and what changes takes effect.
    service.user(&["lock", "bob"]);
    Ended::of(&mut service.send_as("bob", "pw of bob", source.path(), &[])).expect(4);
    let noted = || {
        let accounts: serde_json::Value = serde_json::from_str(&service.user(&["list", "--json"])).unwrap();
        accounts["accounts"].as_array().unwrap().iter().find(|account| account["name"] == "alice").unwrap()["last_login"]
            .is_number()
    };
    wait_until("the login is noted", noted);
}

// B20 D16
#[test]
fn a_job_of_an_account_that_is_locked_ends_in_time_although_logins_can_not_be_noted() {
    let (service, source) = (Service::start(&[]), temp_dir());
    write(&source.path().join("file"), vec![7; 8 << 20]);
    // It lets nobody else write, but for the moment in which it has locked an account.
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN IMMEDIATE')\n\
        print('held', flush=True); sys.stdin.readline()\n\
        db.execute('UPDATE accounts SET is_locked = 1 WHERE name = ?', ['alice'])\n\
        db.execute('COMMIT'); db.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.readline()";
    let file = service.place.path().join("accounts.db");
    let mut shell =
        Command::new("python3").args(["-c", script]).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "held");
    let sender = Sender::start(&mut service.send_as("alice", "pw of alice", source.path(), &["--bwlimit", "256K"]));
    wait_until("it has begun, and its login waits to be noted", || service.home(1).join("in").exists());
    let before = Instant::now();
    shell.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "locked");
    let ended = sender.wait();
    drop(shell.stdin.take());
    shell.wait().unwrap();
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
    assert!(ended.code != Some(0) && ended.said.contains("locked"), "{:?} {}", ended.code, ended.said);
}

// D14
#[test]
fn people_log_in_and_send_while_the_state_folder_is_full_or_can_not_be_written() {
    let (place, root, source) = (temp_dir(), temp_dir(), temp_dir());
    let Some(mount) = Mount::new(place.path(), "size=2m", "D14") else { return };
    for name in ["alice", "bob"] {
        expect_code(&mut user(place.path(), &["add", name], &format!("pw of {name}")), 0);
    }
    let service = Service::start_in(place, root, &[]);
    let fill = service.place.path().join("fill");
    let _ = fs::write(&fill, vec![1; 4 << 20]);
    make_tree(source.path());
    let check = |name: &str| {
        let ended = Ended::of(&mut service.send_as(name, &format!("pw of {name}"), source.path(), &["--length", "1M"]));
        ended.expect(0);
    };
    check("alice");
    assert_same(source.path(), &service.home(1).join("in"));
    fs::remove_file(&fill).unwrap();
    // Whoever has files open there for writing keeps it from being read-only: then it is full alone.
    let output = run(Command::new("mount").args(["-o", "remount,ro"]).arg(service.place.path()));
    if !output.status.success() {
        let _ = fs::write(&fill, vec![1; 4 << 20]);
    }
    check("bob");
    assert_same(source.path(), &service.home(2).join("in"));
    let Service { recv, place, .. } = service;
    drop(recv);
    drop(mount);
    drop(place);
}
