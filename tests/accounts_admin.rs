//! `recv user`: accounts as an administrator makes, shows, changes and removes them; and `send key`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::judge::set_mode;
use common::mount::can;
use common::*;
use parallel_transfer::server::accounts::{Accounts, Denied};
use serde_json::Value;

/// `recv user` with accounts below `place`.
fn user(place: &Path, words: &[&str]) -> Command {
    let mut command = recv_command();
    command.arg("user").args(words).arg("--accounts").arg(place.join("state/accounts.db"));
    command
}

/// What such a command says where it works.
fn done(place: &Path, words: &[&str]) -> String {
    text(&expect_code(&mut user(place, words), 0).stdout)
}

/// What it says where it does not.
fn refused(command: &mut Command, code: i32) -> String {
    let output = expect_code(command, code);
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    text(&output.stderr)
}

fn add(place: &Path, name: &str, password: &str) {
    expect_code(user(place, &["add", name]).env("PTF_PASSWORD", password), 0);
}

fn accounts(place: &Path) -> Accounts {
    Accounts::open(&place.join("state/accounts.db")).unwrap()
}

/// All of them, as `list --json` tells.
fn listed(place: &Path) -> Vec<Value> {
    let all: Value = serde_json::from_str(&done(place, &["list", "--json"])).unwrap();
    all["accounts"].as_array().unwrap().clone()
}

fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Has `outer` run a command as it is.
fn around<'a>(outer: &'a mut Command, command: &Command) -> &'a mut Command {
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// Runs a command on a terminal of its own and answers what it asks; gives its exit code and its screen.
fn on_terminal(command: &Command, answers: &[[&str; 2]]) -> (i32, String) {
    const SCRIPT: &str = "
import json, os, pty, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
screen, rest = b'', b''
def more():
    global screen, rest
    try:
        piece = os.read(fd, 4096)
    except OSError:
        piece = b''
    screen, rest = screen + piece, rest + piece
    return piece
for prompt, answer in json.loads(sys.argv[1]):
    while prompt.encode() not in rest and more():
        pass
    rest = rest.partition(prompt.encode())[2]
    # What is typed before a secret is asked for is shown, as on any terminal.
    while 'assword' in screen.decode() and termios.tcgetattr(fd)[3] & termios.ECHO:
        time.sleep(0.001)
    os.write(fd, answer.encode() + b'\\n')
while more():
    pass
sys.stdout.buffer.write(screen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT, &serde_json::to_string(answers).unwrap()]);
    let output = run(around(&mut python, command));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    (output.status.code().unwrap(), text(&output.stdout))
}

/// The same command away from any terminal.
fn without_terminal(command: &Command) -> Command {
    let mut alone = Command::new("setsid");
    around(alone.arg("--wait"), command);
    alone
}

#[test]
fn an_account_is_made_shown_changed_and_removed() {
    let place = temp_dir();
    let place = place.path();
    add(place, "Alice", "secret");
    done(place, &["add", "bob", "--no_password", "--quota", "20G", "--files", "7"]);
    let names = |all: &[Value]| all.iter().map(|account| account["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let all = listed(place);
    assert_eq!(names(&all), ["alice", "bob"]);
    let (alice, bob) = (&all[0], &all[1]);
    assert_eq!((&alice["quota_bytes"], &alice["quota_files"]), (&Value::from(500 << 20), &Value::from(100_000)));
    assert_eq!(
        (&alice["password"], &alice["state"], &alice["keys"]),
        (&Value::from(true), &Value::from("active"), &Value::from(0))
    );
    assert_eq!((&bob["quota_bytes"], &bob["quota_files"]), (&Value::from(20u64 << 30), &Value::from(7)));
    assert_eq!((&bob["password"], &bob["last_login"]), (&Value::from(false), &Value::Null));

    for (words, field, value) in [
        (&["quota", "alice", "1GiB"][..], "quota_bytes", Value::from(1 << 30)),
        (&["quota", "alice", "1GiB", "--files", "9"], "quota_files", Value::from(9)),
        (&["rights", "alice", "read,list"], "rights", serde_json::json!(["read", "list"])),
        (&["lock", "alice"], "state", Value::from("locked")),
        (&["unlock", "ALICE"], "state", Value::from("active")),
    ] {
        let said = done(place, words);
        assert!(said.starts_with("alice: id 1, ") && said.lines().count() == 1, "{said}");
        assert_eq!(listed(place)[0][field], value, "{words:?}");
    }
    expect_code(user(place, &["passwd", "alice"]).env("PTF_PASSWORD", "other"), 0);
    assert_eq!(accounts(place).verify(b"alice", b"secret"), Err(Denied::WrongPassword));
    accounts(place).verify(b"alice", b"other").unwrap();
    let said = done(place, &["list"]);
    assert!(said.contains("read,list") && said.lines().count() == 2 && !said.contains("argon2"), "{said}");

    assert!(done(place, &["remove", "alice"]).contains("still in 1 below the root"));
    add(place, "alice", "secret");
    assert_eq!(listed(place)[0]["id"], 3, "nobody gets the home of another");
    assert_eq!(fs::metadata(place.join("state/accounts.db")).unwrap().mode() & 0o777, 0o600);
}

// B15, F01
#[test]
fn what_makes_no_sense_ends_with_2_and_what_is_not_there_with_1() {
    let place = temp_dir();
    let place = place.path();
    let error = refused(&mut user(place, &["list"]), 1);
    assert!(error.contains("recv user add"), "{error}");
    assert!(!place.join("state").exists());
    add(place, "alice", "secret");
    for name in
        ["", ".", "..", "../a", "a/b", "-a", "a b", "a\n", "é", "аlice", "user@host", &"x".repeat(33), &"x".repeat(100_000)]
    {
        for act in ["add", "lock", "passwd", "remove"] {
            let error = refused(user(place, &[act, name]).env("PTF_PASSWORD", "x"), 2);
            assert!(error.contains("user's name") || name.starts_with('-'), "{error:.300}");
        }
    }
    for words in [
        &["quota", "alice", "0"][..],
        &["quota", "alice", "-1"],
        &["quota", "alice", "lots"],
        &["quota", "alice"],
        &["quota", "alice", "1G", "--files", "x"],
        &["rights", "alice", "fly"],
        &["rights", "alice", ""],
        &["key", "add", "alice"],
        &["add", "bob", "--no_password", "--password_file", "x"],
        &["add"],
        &["remove", "alice", "--delete_files"],
        &["remove", "alice", "--keep_files", "--delete_files", "--root", "/tmp"],
        &["dance"],
    ] {
        refused(&mut user(place, words), 2);
    }
    for words in [
        &["lock", "nobody"][..],
        &["unlock", "nobody"],
        &["quota", "nobody", "1G"],
        &["rights", "nobody", "read"],
        &["remove", "nobody"],
        &["key", "list", "nobody"],
        &["passwd", "nobody"],
    ] {
        let error = refused(&mut user(place, words), 1);
        assert!(error.contains("no account 'nobody'"), "{error}");
    }
    let error = refused(user(place, &["add", "ALICE"]).env("PTF_PASSWORD", "x"), 1);
    assert!(error.contains("an account 'alice' already"), "{error}");
    let error = refused(&mut user(place, &["key", "add", "alice", "ssh-ed25519", "AAAA"]), 1);
    assert!(error.contains("ptf-ed25519"), "{error}");
    assert_eq!(listed(place).len(), 1);
    accounts(place).verify(b"alice", b"secret").unwrap();
}

// B16
#[test]
fn a_password_comes_from_a_file_standard_input_the_environment_or_the_terminal() {
    let place = temp_dir();
    let place = place.path();
    let file = place.join("password");
    write(&file, b"from\xff a\0file\nmore");
    set_mode(&file, 0o600);
    let named = format!("--password_file={}", file.display());
    let output = expect_code(user(place, &["add", "one", &named]).env("PTF_PASSWORD", "unused"), 0);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    set_mode(&file, 0o644);
    let output = expect_code(&mut user(place, &["passwd", "one", &named]), 0);
    assert!(text(&output.stderr).contains("chmod 600"), "{}", text(&output.stderr));
    let output = with_input(&mut user(place, &["add", "two", "--password-file", "-"]), b"from input\r\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    add(place, "three", "from the environment");

    let ask = |name: &str, answers: &[[&str; 2]]| on_terminal(&user(place, &["add", name]), answers);
    let (code, screen) = ask("four", &[["Password for four:", "typed"], ["again:", "typed"]]);
    assert!(code == 0 && screen.contains("four: id 4") && !screen.contains("typed"), "{code} {screen}");
    let (code, screen) = ask("five", &[["Password for five:", "typed"], ["again:", "other"]]);
    assert!(code == 1 && screen.contains("differ"), "{code} {screen}");
    let (code, screen) = ask("five", &[["Password for five:", ""], ["again:", ""]]);
    assert!(code == 1 && screen.contains("empty"), "{code} {screen}");

    let error = refused(&mut without_terminal(&user(place, &["add", "five"])), 2);
    assert!(error.contains("--password_file") && error.contains("PTF_PASSWORD"), "{error}");
    let longest = "x".repeat(1024);
    for (password, code) in [("", 1), (&*longest, 0), (&*(longest.clone() + "x"), 1)] {
        expect_code(user(place, &["add", &format!("of{}", password.len())]).env("PTF_PASSWORD", password), code);
    }
    refused(&mut user(place, &["add", "five", "--password_file", "/nowhere"]), 1);
    assert!(!listed(place).iter().any(|account| account["name"] == "five"));

    let accounts = accounts(place);
    for (name, password) in [
        ("one", &b"from\xff a\0file"[..]),
        ("two", b"from input"),
        ("three", b"from the environment"),
        ("four", b"typed"),
        ("of1024", longest.as_bytes()),
    ] {
        assert!(accounts.verify(name.as_bytes(), password).is_ok(), "{name}");
    }
}

// D16
#[test]
fn many_administrators_at_once_lose_nothing() {
    let place = temp_dir();
    let place = place.path();
    let adds: Vec<_> = (0..6)
        .map(|number| user(place, &["add", &format!("user{number}"), "--no_password"]).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for mut add in adds {
        assert!(add.wait().unwrap().success());
    }
    let before = accounts(place).list().unwrap();
    let locks: Vec<_> = (0..6).map(|_| user(place, &["lock", "user0"]).stdout(Stdio::null()).spawn().unwrap()).collect();
    for mut lock in locks {
        assert!(lock.wait().unwrap().success());
    }
    let after = accounts(place).list().unwrap();
    assert_eq!((before.len(), after.len(), after[0].generation), (6, 6, before[0].generation + 6));
    assert_eq!(list(&place.join("state")), ["accounts.db"], "nothing else is left behind");
}

// D16
#[test]
fn a_file_of_a_later_version_or_a_damaged_one_is_refused_with_advice() {
    let place = temp_dir();
    let place = place.path();
    add(place, "alice", "secret");
    let file = place.join("state/accounts.db");
    let shell = rusqlite::Connection::open(&file).unwrap();
    shell.execute_batch("PRAGMA user_version = 9").unwrap();
    drop(shell);
    let error = refused(&mut user(place, &["list"]), 1);
    assert!(error.contains("format 9") && error.contains("accounts.db"), "{error}");
    write(&file, noise(20_000, 1));
    let error = refused(user(place, &["add", "bob"]).env("PTF_PASSWORD", "x"), 1);
    assert!(error.contains("damaged") && error.contains("put back a copy"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), noise(20_000, 1));
    set_mode(&place.join("state"), 0o777);
    fs::remove_file(&file).unwrap();
    let output = expect_code(&mut user(place, &["add", "bob", "--no_password"]), 0);
    assert!(text(&output.stderr).contains("chmod o-w"), "{}", text(&output.stderr));
}

#[test]
fn a_home_is_made_by_id_and_deleted_only_by_who_says_so_twice() {
    let place = temp_dir();
    let place = place.path();
    let root = place.join("root");
    let below = format!("--root={}", root.display());
    let error = refused(&mut user(place, &["add", "alice", "--no_password", &below]), 1);
    assert!(error.contains("no folder"), "{error}");
    fs::create_dir(&root).unwrap();
    for (id, name) in [(1, "alice"), (2, "bob"), (3, "carol")] {
        done(place, &["add", name, "--no_password", &below]);
        assert_eq!(fs::metadata(root.join(id.to_string())).unwrap().mode() & 0o7777, 0o700);
        write(&root.join(format!("{id}/deep/file")), "content");
        write(&place.join("outside/file"), "content");
        symlink(place.join("outside"), root.join(format!("{id}/link"))).unwrap();
    }
    done(place, &["remove", "alice"]);
    assert!(root.join("1/deep/file").exists());

    let delete = |name: &str| user(place, &["remove", name, "--delete_files", &below]);
    let error = refused(&mut delete("bob"), 2);
    assert!(error.contains("-y"), "{error}");
    for answer in ["n", "", "yess"] {
        let (code, screen) = on_terminal(&delete("bob"), &[["[y/N]", answer]]);
        assert!(code == 1 && screen.contains("nothing was removed"), "{code} {screen}");
    }
    assert!(root.join("2/deep/file").exists() && listed(place).len() == 2);
    let (code, screen) = on_terminal(&delete("bob"), &[["[y/N]", "y"]]);
    assert!(code == 0 && !root.join("2").exists(), "{code} {screen}");
    expect_code(delete("carol").arg("-y"), 0);
    assert_eq!(list(&root), ["1", "1/deep", "1/deep/file", "1/link"]);
    assert!(place.join("outside/file").exists() && listed(place).is_empty());
    // One that was never made.
    done(place, &["add", "dave", "--no_password"]);
    expect_code(delete("dave").arg("--yes"), 0);
}

#[test]
fn a_key_is_made_once_and_its_line_lets_in() {
    let place = temp_dir();
    let place = place.path();
    let file = place.join("config/key");
    let key = |words: &[&str]| {
        let mut command = send_command();
        command.arg("key").args(words).arg("--out").arg(&file).env("USER", "me");
        command
    };
    let line = text(&expect_code(&mut key(&["--comment", "my laptop"]), 0).stdout);
    assert!(line.starts_with("ptf-ed25519 ") && line.ends_with("= my laptop\n") && line.lines().count() == 1, "{line}");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let kept = fs::read(&file).unwrap();
    let error = refused(&mut key(&[]), 1);
    assert!(error.contains("there already") && error.contains("--show"), "{error}");
    assert_eq!((fs::read(&file).unwrap(), list(file.parent().unwrap())), (kept, vec!["key".to_owned()]));
    let shown = text(&expect_code(&mut key(&["--show"]), 0).stdout);
    assert_eq!(shown.replace(" me\n", " my laptop\n"), line);
    assert!(refused(&mut key(&["--comment", "a\nb", "--out", "other"]), 2).contains("--out"));
    refused(send_command().args(["key", "--comment", "a\nb", "--out"]).arg(place.join("other")), 1);
    assert!(!place.join("other").exists());
    refused(send_command().args(["key", "--nonsense"]), 2);
    assert!(text(&expect_code(send_command().args(["key", "--help"]), 0).stdout).contains("Usage: send key"));
    expect_code(send_command().arg("key").env("XDG_CONFIG_HOME", place), 0);
    assert!(place.join("parallel-transfer/id_ed25519").exists());

    add(place, "alice", "secret");
    assert!(done(place, &["key", "add", "alice", line.trim()]).contains("my laptop"));
    let error = refused(&mut user(place, &["key", "add", "alice", line.trim()]), 1);
    assert!(error.contains("already"), "{error}");
    assert_eq!(done(place, &["key", "list", "alice"]), line);
    assert_eq!(listed(place)[0]["keys"], 1);
    done(place, &["key", "remove", "alice", "my", "laptop"]);
    assert_eq!(done(place, &["key", "list", "alice"]), "");
    // In words, as somebody pastes it who forgets the quotes.
    done(place, &[&["key", "add", "alice"], &line.split_whitespace().collect::<Vec<_>>()[..]].concat());
    assert_eq!(done(place, &["key", "list", "alice"]), line);
}

#[test]
fn openssl_reads_the_key_and_has_the_same_other_half() {
    use base64::Engine as _;
    let place = temp_dir();
    let file = place.path().join("key");
    let line = text(&expect_code(send_command().args(["key", "--out"]).arg(&file), 0).stdout);
    let mut openssl = Command::new("openssl");
    openssl.args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(&file);
    if !can(Command::new("openssl").arg("version")) {
        println!("SKIPPED: no openssl here");
        return;
    }
    let output = expect_code(&mut openssl, 0);
    let told = base64::engine::general_purpose::STANDARD.decode(line.split_whitespace().nth(1).unwrap()).unwrap();
    // Twelve bytes say which kind it is (RFC 8410).
    assert_eq!(output.stdout[12..], told);
}
