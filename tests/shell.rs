//! `send shell`: what its commands do, how they end, and how it behaves at a terminal.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::accounts::*;
use common::fake_server::*;
use common::link::{Knobs, Link};
use common::sender::*;
use common::*;
use parallel_transfer::protocol::{Reply, Request};

/// A shell on a port of 127.0.0.1, whose local folder is `local`.
fn shell(port: u16, local: &Path, flags: &[&str]) -> Command {
    let mut command = send_command();
    command.args(["shell", "--server", "127.0.0.1", "--port", &port.to_string(), "--process_num", "1"]).args(flags);
    command.current_dir(local).stdin(Stdio::null());
    command
}

/// Does commands; gives the exit code, what was printed and what was said.
fn run_commands(command: &mut Command, commands: impl AsRef<OsStr>) -> (i32, String, String) {
    ended(run(command.arg("-c").arg(commands)))
}

fn ended(output: Output) -> (i32, String, String) {
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// The same from standard input.
fn run_script(command: &mut Command, script: &[u8]) -> (i32, String, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A shell that has had enough reads no more.
    let _ = child.stdin.take().unwrap().write_all(script);
    ended(child.wait_with_output().unwrap())
}

/// Runs a shell at a terminal; gives its exit code and what was shown.
fn at_terminal(command: &Command, steps: &[(&str, &str)]) -> (i32, String) {
    let mut driver = Command::new("python3");
    driver.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/terminal.py"));
    driver.arg(serde_json::to_string(steps).unwrap()).arg(command.get_program()).args(command.get_args());
    driver.current_dir(command.get_current_dir().unwrap()).env("TERM", "xterm");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => driver.env(name, value),
            None => driver.env_remove(name),
        };
    }
    let (code, shown, said) = ended(run(&mut driver));
    assert!(code != 200, "{shown}{said}");
    (code, shown)
}

/// A receiver of a small tree.
fn recv_of_tree() -> (TempDir, Recv) {
    let root = temp_dir();
    for name in ["docs/a.txt", "docs/b.txt", "docs/deep/c.txt", "docs/.hidden", "top.txt", "two words/x y"] {
        write(&root.path().join(name), name);
    }
    let recv = Recv::start(root.path());
    (root, recv)
}

// E05
#[test]
fn what_a_get_that_was_killed_left_of_small_files_goes_with_the_next() {
    let (root, local, state) = (temp_dir(), temp_dir(), temp_dir());
    write(&root.path().join("d/small"), noise(1_000_000, 1));
    let recv = Recv::start(root.path());
    let link = Link::with(recv.port, |_| Knobs { hold_answer: Some(400_000), ..Knobs::default() });
    let get = |port| {
        let mut command = shell(port, local.path(), &["--thread_num", "1", "-c", "get d"]);
        command.env("XDG_STATE_HOME", state.path());
        command
    };
    let mut killed = get(link.port).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("some of it has come", || leftovers(local.path()).len() == 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(leftovers(local.path()).len(), 1);
    expect_code(&mut get(recv.port), 0);
    assert_same(root.path(), local.path());
    let notes = walkdir::WalkDir::new(state.path()).into_iter().map(Result::unwrap);
    let notes: Vec<_> = notes.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect();
    assert!(notes.is_empty(), "nothing is left, and nothing says so: {notes:?}");
}

#[test]
fn commands_come_from_the_command_line_or_from_standard_input() {
    let ((_root, recv), local) = (recv_of_tree(), temp_dir());
    let commands = "pwd; ls # a comment; pwd\ncd 'two words'; pwd\n\nls; cd ..; ls -a docs; ls docs/*.txt docs/deep\nls -1 /docs";
    let printed = "/\ndocs\ntop.txt\ntwo words\n/two words\nx y\n.hidden\na.txt\nb.txt\ndeep\ndocs/a.txt\ndocs/b.txt\n\ndocs/deep:\nc.txt\na.txt\nb.txt\ndeep\n";
    let (code, out, said) = run_commands(&mut shell(recv.port, local.path(), &[]), commands);
    assert_eq!((code, out.as_str()), (0, printed), "{said}");
    for script in [commands.to_owned(), format!("{commands}\n"), format!("{commands}\nquit\nno such command\n")] {
        let (code, out, said) = run_script(&mut shell(recv.port, local.path(), &[]), script.as_bytes());
        assert_eq!((code, out.as_str()), (0, printed), "{said}");
    }
    // A quote goes on over lines.
    let (code, out, said) = run_script(&mut shell(recv.port, local.path(), &[]), b"cd \"two\\\n words\"\npwd\n");
    assert_eq!((code, out.as_str()), (0, "/two words\n"), "{said}");
}

#[test]
fn the_first_command_that_fails_is_the_last_and_its_code_is_the_programs() {
    let ((_root, recv), local) = (recv_of_tree(), temp_dir());
    write(&local.path().join("here"), "x");
    for (commands, expected) in [
        ("", 0),
        (" ; # nothing\n", 0),
        ("quit", 0),
        ("ls docs; exit; nonsense", 0),
        ("ls none", 1),
        ("ls none docs", 3),
        ("ls *.none", 1),
        ("cd top.txt", 1),
        ("get none", 1),
        ("get top.txt none", 3),
        ("put none", 1),
        ("put here none", 3),
        ("put *.none", 1),
        ("nonsense", 2),
        ("ls -x", 2),
        ("ls --long", 2),
        ("cd a b", 2),
        ("get", 2),
        ("mv a", 2),
        ("put -t", 2),
        ("quit now", 2),
        ("sum --md5 --blake3 top.txt", 2),
        ("pwd 'open", 2),
        ("pwd \\", 2),
        ("lcd none", 1),
        ("lls none", 1),
        ("help none", 1),
        ("passwd", 1),
    ] {
        for (code, out, said) in [
            run_commands(
                &mut shell(recv.port, local.path(), &[]),
                format!("{commands}\npwd").trim_end_matches(['\n']).replace("\\\npwd", "\\"),
            ),
            run_script(&mut shell(recv.port, local.path(), &[]), commands.as_bytes()),
        ] {
            assert_eq!(code, expected, "{commands}: {out}{said}");
            assert!(code == 0 || !said.is_empty(), "{commands}");
            assert!(code == 0 || !out.contains("/\n"), "{commands} went on: {out}");
        }
    }
}

#[test]
fn who_is_not_let_in_has_a_code_of_their_own() {
    let local = temp_dir();
    let service = Service::start(&[]);
    for password in ["pw of bob", "x"] {
        let flags = ["--user", "alice", "--host_key", &service.host_key];
        let mut command = shell(service.recv.port, local.path(), &flags);
        let (code, out, said) = run_commands(command.env("PTF_PASSWORD", password), "pwd");
        assert_eq!((code, out.as_str()), (4, ""), "{said}");
        assert!(said.contains("wrong name, password or key"), "{said}");
    }
    let other = format!("SHA256:{}", "A".repeat(43));
    let (code, _, said) = run_commands(&mut shell(service.recv.port, local.path(), &["--host_key", &other]), "pwd");
    assert_eq!(code, 4, "{said}");
    let (code, _, said) = run_commands(&mut shell(service.recv.port, local.path(), &["--protocol", "v1"]), "pwd");
    assert_eq!(code, 2, "{said}");
    let (code, _, said) = run_script(
        &mut shell(service.recv.port, local.path(), &["--user", "alice", "--password_file", "-"]),
        b"pw of alice\npwd\n",
    );
    assert!(code == 1 && said.contains("both a password and commands"), "{said}");
}

#[test]
fn files_and_folders_come_and_go_under_their_own_names() {
    let (root, source, target) = (temp_dir(), temp_dir(), temp_dir());
    make_tree(&source.path().join("tree"));
    write(&source.path().join("one file"), "1");
    write(&source.path().join("-dash"), "2");
    let recv = Recv::start(root.path());

    let (code, _, said) =
        run_commands(&mut shell(recv.port, source.path(), &[]), "put tree 'one file' -- -dash; put -t new/folder on?\\ file");
    assert_eq!(code, 0, "{said}");
    assert_same(&source.path().join("tree"), &root.path().join("tree"));
    assert_eq!(fs::read(root.path().join("one file")).unwrap(), b"1");
    assert_eq!(fs::read(root.path().join("-dash")).unwrap(), b"2");
    assert_eq!(fs::read(root.path().join("new/folder/one file")).unwrap(), b"1");
    // Into the folder that the prompt is in, and the contents of what has no name.
    let (code, out, said) = run_commands(&mut shell(recv.port, source.path(), &[]), "cd new; lcd tree; put a; lcd a; put .");
    assert_eq!(code, 0, "{said}");
    assert!(out.ends_with("s)\n") && out.contains(" succeeded, 0 failed ("), "{out}");
    assert_same(&source.path().join("tree/a"), &root.path().join("new/a"));
    assert_eq!(fs::read(root.path().join("new/small")).unwrap(), fs::read(source.path().join("tree/a/small")).unwrap());

    let (code, out, said) =
        run_commands(&mut shell(recv.port, target.path(), &[]), "get tree '/one file' new/f*; cd tree/a; get small; lls");
    assert_eq!(code, 0, "{said}");
    assert_same(&source.path().join("tree"), &target.path().join("tree"));
    assert_same(&root.path().join("new/folder"), &target.path().join("folder"));
    for name in ["one file", "small"] {
        assert!(target.path().join(name).is_file() && out.contains(name), "{out}");
    }
    // Again, all of it is there.
    let (code, out, said) = run_commands(&mut shell(recv.port, target.path(), &[]), "get tree 'one file' none");
    assert_eq!(code, 3, "{said}");
    assert!(out.contains(", 1 failed") && said.contains("none"), "{out}{said}");
}

#[test]
fn of_two_that_would_land_under_one_name_the_second_is_named_and_not_taken() {
    let (root, local) = (temp_dir(), temp_dir());
    for folder in [root.path(), local.path()] {
        write(&folder.join("a/x"), "of a");
        write(&folder.join("b/x"), "of b");
    }
    let recv = Recv::start(root.path());
    for (commands, top) in [("get a/x b/x", local.path()), ("put a/x b/x", root.path())] {
        let (code, out, said) = run_commands(&mut shell(recv.port, local.path(), &[]), commands);
        assert!(code != 0 && said.contains("b/x': it would replace"), "{code} {said}");
        assert!(format!("{out}{said}").contains("1 succeeded, 1 failed"), "{out}{said}");
        assert_eq!(fs::read(top.join("x")).unwrap(), b"of a");
    }
}

// C25
#[test]
fn a_folder_that_is_none_is_not_gone_to() {
    let ((root, recv), local) = (recv_of_tree(), temp_dir());
    let deep = "d/".repeat(4096);
    for (name, why) in [
        ("../top.txt", "not a folder"),
        ("none", "none"),
        ("deep/none", "none"),
        ("../top.txt/x", "top.txt"),
        (&deep, "longer than"),
        (&"n".repeat(256), "longer than"),
        ("''", "empty"),
    ] {
        let script = format!("cd docs\ncd {name}\n");
        let (code, _, said) = run_script(&mut shell(recv.port, local.path(), &[]), script.as_bytes());
        assert!(code == 1 && said.contains("cd: can't go to") && said.contains(why), "{code} {said}");
    }
    // `/` is the root, and nothing is above it.
    let (code, out, said) = run_commands(
        &mut shell(recv.port, local.path(), &[]),
        "cd ..; pwd; cd docs/deep/../../../..; pwd; cd docs; cd; pwd; cd -; pwd",
    );
    assert_eq!((code, out.as_str()), (0, "/\n/\n/\n/docs\n"), "{said}");
    assert_ne!(root.path().parent(), None);
}

// C25
#[test]
fn a_folder_that_was_removed_meanwhile_is_left_at_a_prompt_and_not_made_again() {
    let ((root, recv), local) = (recv_of_tree(), temp_dir());
    write(&local.path().join("file"), "x");
    let mut talk = Talk::start(&mut shell(recv.port, local.path(), &[]));
    assert_eq!(talk.ask("cd docs/deep; pwd"), "/docs/deep");
    fs::remove_dir_all(root.path().join("docs")).unwrap();
    let (code, said) = talk.end("put file\n");
    assert!(code == 1 && said.contains("put: can't send to /docs/deep"), "{code} {said}");
    assert!(!root.path().join("docs").exists());
}

/// A shell that is asked one thing after another.
struct Talk {
    child: std::process::Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Talk {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Does commands that print one line.
    fn ask(&mut self, commands: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{commands}").unwrap();
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The last commands; gives the exit code and what was said all the time.
    fn end(mut self, commands: &str) -> (i32, String) {
        self.child.stdin.as_mut().unwrap().write_all(commands.as_bytes()).unwrap();
        let (code, _, said) = ended(self.child.wait_with_output().unwrap());
        (code, said)
    }
}

#[test]
fn a_receiver_that_was_restarted_is_logged_in_to_again_without_a_word() {
    let (root, state, local) = (temp_dir(), temp_dir(), temp_dir());
    write(&root.path().join("file"), "x");
    let (recv, key) = recv_with_key(root.path(), state.path(), 0);
    let port = recv.port;
    let mut talk = Talk::start(&mut shell(port, local.path(), &["--host_key", &key]));
    assert_eq!(talk.ask("ls"), "file");
    drop(recv);
    let (_recv, _) = recv_with_key(root.path(), state.path(), port);
    assert_eq!(talk.ask("ls"), "file");
    let (code, said) = talk.end("stat file\n");
    assert!(code == 0 && !said.contains("lost"), "{said}");
}

// C07
#[test]
fn a_name_that_a_terminal_would_obey_reaches_none() {
    let (root, local) = (temp_dir(), temp_dir());
    for name in ["\x1b[2J", "b\x07ell", "line\nfeed", "rtl\u{202e}x"] {
        write(&root.path().join(format!("d{name}")).join(format!("f{name}")), "x");
        std::os::unix::fs::symlink(name, root.path().join(format!("l{name}"))).unwrap();
    }
    let bytes = OsStr::from_bytes(b"not utf-8 \xff");
    write(&root.path().join(bytes), "x");
    let recv = Recv::start(root.path());
    let commands = [
        "ls",
        "ls -la",
        "ls -l *",
        "stat *",
        "cd d*ell; pwd",
        "get *",
        "lls -l",
        "get d*ell/none",
        "cd '\x1b[2J'",
        "\x1bc",
        "put '\x1b'",
    ];
    for commands in commands {
        let (code, out, said) = run_commands(&mut shell(recv.port, local.path(), &[]), commands);
        let all = format!("{out}{said}").replace('\n', "");
        assert!(!all.contains(|char: char| char.is_control() || char == '\u{202e}'), "{commands}: {all:?}");
        assert!(code != 101 && !all.is_empty(), "{commands}");
    }
}

#[test]
fn a_large_folder_is_listed_whole() {
    let (root, local) = (temp_dir(), temp_dir());
    for index in 0..3000 {
        write(&root.path().join(format!("many/{index:05}")), "");
    }
    let recv = Recv::start(root.path());
    let (code, out, said) = run_commands(&mut shell(recv.port, local.path(), &[]), "ls many");
    let expected: Vec<String> = (0..3000).map(|index| format!("{index:05}")).collect();
    assert_eq!((code, out.lines().collect::<Vec<_>>()), (0, expected.iter().map(String::as_str).collect()), "{said}");
}

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";

#[test]
fn a_prompt_lists_completes_and_ends() {
    let ((_root, recv), local) = (recv_of_tree(), temp_dir());
    write(&local.path().join("local file"), "x");
    let state = temp_dir();
    let mut command = shell(recv.port, local.path(), &[]);
    command.env("XDG_STATE_HOME", state.path());
    let (code, shown) = at_terminal(
        &command,
        &[
            ("wait", "127.0.0.1:/> "),
            ("type", "ls\r"),
            ("wait", "docs  top.txt  two words\r\n"),
            ("type", "cd tw\t\r"),
            ("wait", "127.0.0.1:/two words> "),
            ("type", "st\tx\t\r"),
            ("wait", "/two words/x y: file"),
            ("type", "cd /do\t\rls d\t\r"),
            ("wait", "c.txt\r\n"),
            ("type", "pu\tlo\t\r"),
            ("wait", "1 succeeded, 0 failed"),
            ("type", "ls 'unfinished"),
            ("wait", "unfinished"),
            ("type", CTRL_C),
            ("wait", "127.0.0.1:/docs> "),
            ("type", "pwd\r"),
            ("wait", "/docs\r\n"),
            ("type", "nonsense\r"),
            ("wait", "no such command"),
            ("wait", "127.0.0.1:/docs> "),
            ("type", CTRL_D),
        ],
    );
    assert_eq!(code, 0, "{shown}");
    assert!(recv.path("docs/local file").exists());
    let history = state.path().join("parallel-transfer/shell_history");
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        fs::read_to_string(&history).unwrap().contains("put local\\\\ file") || shown.contains("put local\\ file"),
        "{shown}"
    );
}

#[test]
fn a_receiver_that_never_ends_a_list_does_not_hold_the_prompt() {
    let local = temp_dir();
    let server = FakeServer::start(|asked| match asked.request {
        Request::List(list) if !list.itself => Act::ForEver(Box::new(|_| frame(&Reply::Heartbeat))),
        _ => Act::Honest,
    });
    let prompt = "127.0.0.1:/> ";
    let command = shell(server.port, local.path(), &["--plain"]);
    let steps =
        [("wait", prompt), ("type", "ls x\t"), ("wait", "ls x"), ("type", "\x15lpwd\r"), ("wait", "/tmp"), ("wait", prompt)];
    let (code, shown) = at_terminal(&command, &[&steps[..], &[("type", CTRL_D)]].concat());
    assert_eq!(code, 0, "{shown}");
}

#[test]
fn ctrl_c_ends_a_transfer_and_not_the_prompt() {
    let (root, local) = (temp_dir(), temp_dir());
    write(&local.path().join("large"), noise(20_000_000, 1));
    write(&local.path().join("small"), "x");
    let recv = Recv::start(root.path());
    let link = Link::holding(recv.port, 1 << 20);
    let (code, shown) = at_terminal(
        &shell(link.port, local.path(), &["--thread_num", "1"]),
        &[
            ("wait", "127.0.0.1:/> "),
            ("type", "put large\r"),
            ("wait", "ETA"),
            ("type", CTRL_C),
            ("wait", "put: interrupted"),
            ("wait", "127.0.0.1:/> "),
            ("type", "put small\r"),
            ("wait", "1 succeeded, 0 failed"),
            ("wait", "127.0.0.1:/> "),
            ("type", CTRL_C),
            ("wait", "127.0.0.1:/> "),
            ("type", "quit\r"),
        ],
    );
    assert_eq!(code, 0, "{shown}");
    assert!(root.path().join("small").exists() && !root.path().join("large").exists());
}

#[test]
fn a_signal_ends_a_prompt_and_leaves_the_terminal_as_it_was() {
    let ((_root, recv), local) = (recv_of_tree(), temp_dir());
    let steps = [("wait", "127.0.0.1:/> "), ("type", "pwd\r"), ("wait", "/\r\n"), ("wait", "> "), ("signal", "15")];
    let (code, shown) = at_terminal(&shell(recv.port, local.path(), &[]), &steps);
    assert_eq!(code, 130, "{shown}");
}

#[test]
fn a_connection_that_was_lost_meanwhile_is_opened_again_without_a_word() {
    let ((_root, recv), local) = (recv_of_tree(), temp_dir());
    let link = Link::to(recv.port);
    let mut talk = Talk::start(&mut shell(link.port, local.path(), &[]));
    assert_eq!(talk.ask("ls top*"), "top.txt");
    let before = link.connections();
    link.reset_all();
    assert_eq!(talk.ask("ls top*"), "top.txt");
    assert_eq!(link.connections(), before + 1);
    let (code, said) = talk.end("ls\n");
    assert!(code == 0 && !said.contains("lost"), "{said}");
}
