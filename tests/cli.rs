//! Flags, messages and exit codes of both programs, as a user and as a script meet them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may fail, and is no peer")]
mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use common::*;

/// A copy on this machine of a tree of one file.
fn copy(place: &Path, flags: &[&str]) -> Command {
    write(&place.join("from/file"), "content");
    let mut command = send_command();
    command.arg("--file").arg(place.join("from")).arg("--remote_dir").arg(place.join("to")).args(flags);
    command
}

// F01, F03, E14
#[test]
fn flags_that_make_no_sense_end_with_2_and_say_which() {
    let place = temp_dir();
    for (flags, word) in [
        (&["--length", "0"][..], "--length"),
        (&["--length", "-1"], "--length"),
        (&["--length", "1X"], "--length"),
        (&["--length", "18446744073709551616"], "--length"),
        (&["--ip_version", "5"], "--ip_version"),
        (&["--process_num", "0"], "--process_num"),
        (&["--process_num", "-3"], "--process_num"),
        (&["--thread_num", "x"], "--thread_num"),
        (&["--retry_for", "soon"], "--retry_for"),
        (&["--protocol", "v9"], "--protocol"),
        (&["--port", "9000"], "--server"),
        (&["--server", "localhost"], "--port"),
        (&["--server", "localhost", "--port", "0"], "--port"),
        (&["--server", "localhost", "--port", "65536"], "--port"),
        (&["--server", "localhost", "--port", "abc"], "--port"),
        (&["--nonsense"], "--nonsense"),
        (&["--length", "1", "--length", "2"], "--length"),
        (&["--quiet", "--verbose"], "--quiet"),
    ] {
        let output = expect_code(&mut copy(place.path(), flags), 2);
        assert!(text(&output.stderr).contains(word), "{flags:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
    expect_code(&mut send_command(), 2);
    expect_code(&mut recv_command(), 2);
    expect_code(&mut send_v1(1, place.path(), "a/../b", &[]), 2);
    assert!(!place.path().join("to").exists());
}

// F01, E14
#[test]
fn sizes_counts_and_spellings_that_make_sense_work() {
    for flags in [
        &["--length", "1"][..],
        &["--length", "1572864"],
        &["--length", "1.5M"],
        &["--length", "9223372036854775808"],
        &["--thread-num", "1000000", "--process-num", "1000000"],
        &["--thread_num", "1", "--process_num", "1", "--retry-for", "1s", "--stall-timeout", "1m"],
        &["--protocol", "v1"],
    ] {
        let place = temp_dir();
        expect_code(&mut copy(place.path(), flags), 0);
        assert_same(&place.path().join("from"), &place.path().join("to"));
    }
    let root = temp_dir();
    for flags in [["--max-connections", "10"], ["--stall-timeout", "5s"], ["--ip-ver", "4"]] {
        Recv::start_with(root.path(), &flags);
    }
}

// E10
#[test]
fn a_receiver_that_can_not_listen_says_why_in_one_line() {
    let root = temp_dir();
    write(&root.path().join("file"), "");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let file = root.path().join("file");
    for (flags, code, word) in [
        (vec!["--port", &port, "--addr", "127.0.0.1"], 1, "in use"),
        (vec!["--port", "0", "--addr", "127.0.0.1", "--ip_ver", "6"], 1, "127.0.0.1"),
        (vec!["--port", "0", "--addr", "192.0.2.77"], 1, "can't listen"),
        (vec!["--port", "0", "--root", "/no/such/folder"], 1, "/no/such/folder"),
        (vec!["--port", "0", "--root", file.to_str().unwrap()], 1, "file"),
        (vec!["--port", "0", "--addr", "nonsense"], 2, "--addr"),
        (vec!["--port", "65536"], 2, "--port"),
        (vec!["--port", "0", "--ip_ver", "5"], 2, "--ip_ver"),
        (vec!["--port", "0", "--allow", "10.0.0.0/33"], 2, "--allow"),
    ] {
        let output = expect_code(recv_command().args(&flags).current_dir(root.path()), code);
        let said = text(&output.stderr);
        assert!(said.contains(word), "{flags:?}: {said}");
        assert!(code == 2 || said.lines().count() == 1, "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_first_line_of_a_receiver_says_address_port_and_root() {
    let root = temp_dir();
    let recv = Recv::start(root.path());
    let real = root.path().canonicalize().unwrap();
    assert_eq!(recv.process.first_line, format!("listening on 127.0.0.1:{}, root {}", recv.port, real.display()));
    // Without --root it is the folder that it was started in.
    let process = Running::start(recv_command().args(["--port", "0", "--ip_ver", "4"]).current_dir(root.path()));
    assert!(process.first_line.starts_with("listening on 0.0.0.0:") && process.first_line.ends_with(real.to_str().unwrap()));
}

// E11
#[test]
fn a_name_with_several_addresses_is_tried_in_both_families() {
    let (place, root) = (temp_dir(), temp_dir());
    write(&place.path().join("file"), "x");
    let file = place.path().join("file");
    let send = |host: &str, port: u16, flags: &[&str]| {
        let mut command = send_command();
        command.args(["--server", host, "--port", &port.to_string(), "--remote_dir", "in", "--file"]).arg(&file).args(flags);
        command
    };
    let recv = Recv::start(root.path());
    expect_code(&mut send("localhost", recv.port, &[]), 0);
    expect_code(&mut send("localhost", recv.port, &["--ip_version", "4"]), 0);
    expect_code(&mut send("::ffff:127.0.0.1", recv.port, &[]), 0);
    let output = expect_code(&mut send("127.0.0.1", recv.port, &["--ip_version", "6"]), 1);
    assert!(text(&output.stderr).contains("IPv6"), "{}", text(&output.stderr));
    let output = expect_code(&mut send("no-such-host.invalid", recv.port, &[]), 1);
    assert!(text(&output.stderr).contains("no-such-host.invalid"));
    if TcpListener::bind("[::1]:0").is_err() {
        println!("SKIPPED E11: this machine has no IPv6");
        return;
    }
    let both = Running::start(recv_command().args(["--port", "0", "--root"]).arg(root.path()));
    let port = both.first_line.split(['[', ']', ':', ',']).filter_map(|part| part.parse().ok()).next_back().unwrap();
    for host in ["127.0.0.1", "::1", "[::1]"] {
        expect_code(&mut send(host, port, &[]), 0);
    }
}

#[test]
fn help_has_examples_and_exit_codes_and_hides_what_is_not_for_users() {
    for mut command in [send_command(), recv_command()] {
        let help = text(&expect_code(command.arg("--help"), 0).stdout);
        assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
        assert!(!help.contains("--worker"), "{help}");
    }
    assert!(text(&expect_code(send_command().arg("--version"), 0).stdout).starts_with("send "));
}

#[test]
fn results_go_to_standard_output_and_all_else_to_standard_error() {
    let place = temp_dir();
    let output = expect_code(&mut copy(place.path(), &[]), 0);
    let (summary, said) = (text(&output.stdout), text(&output.stderr));
    let target = place.path().join("to");
    assert_eq!(summary.lines().count(), 1);
    for word in ["complete: 1 file and 0 folders, 7 B in ", " s (", "/s) into ", target.to_str().unwrap()] {
        assert!(summary.contains(word), "{summary}");
    }
    assert!(said.lines().next().unwrap().contains(target.to_str().unwrap()), "{said}");
    assert!(!said.contains('\r') && !said.contains('\x1b'), "a bar where there is no terminal: {said:?}");

    let quiet = expect_code(&mut copy(place.path(), &["-q"]), 0);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty());
    let verbose = expect_code(&mut copy(place.path(), &["-v"]), 0);
    assert!(verbose.stderr.len() > output.stderr.len());
}

fn json(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn json_is_one_object_with_the_outcome_however_it_ends() {
    let place = temp_dir();
    let complete = json(&expect_code(&mut copy(place.path(), &["--json"]), 0));
    assert_eq!((&complete["outcome"], &complete["exit_code"]), (&"complete".into(), &0.into()));
    assert_eq!((&complete["files"], &complete["bytes"], &complete["failed"]), (&1.into(), &7.into(), &0.into()));
    assert!(complete["seconds"].as_f64() > Some(0.0) && complete["landed"].as_str().unwrap().contains("to"));

    make_fifo(&place.path().join("from/li\nnk"));
    let partial = json(&expect_code(&mut copy(place.path(), &["--json", "-q"]), 3));
    assert_eq!((&partial["outcome"], &partial["files"], &partial["failed"]), (&"partial".into(), &1.into(), &1.into()));
    assert_eq!(partial["failures"][0]["path"], "li\\nnk");
    assert!(partial["failures"][0]["reason"].as_str().unwrap().contains("a FIFO"));

    let failed = json(&expect_code(&mut send_v1(1, place.path(), "in", &["--json"]), 1));
    assert_eq!((&failed["outcome"], &failed["files"]), (&"failed".into(), &0.into()));
    assert!(failed["error"].as_str().unwrap().contains("127.0.0.1:1"));
}

// D15
#[test]
fn output_that_nobody_takes_changes_nothing() {
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let place = temp_dir();
    assert_eq!(copy(place.path(), &[]).stdout(full()).stderr(full()).status().unwrap().code(), Some(0));
    assert_eq!(copy(place.path(), &["--json"]).stdout(full()).stderr(Stdio::null()).status().unwrap().code(), Some(0));
    let mut recv = recv_command();
    assert_eq!(recv.args(["--port", "0", "--root", "/no/such"]).stderr(full()).status().unwrap().code(), Some(1));
    let mut closed = copy(place.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((closed.stdout.take(), closed.stderr.take()));
    assert_eq!(closed.wait().unwrap().code(), Some(0));
}

#[test]
fn a_worker_without_a_parent_ends_with_1() {
    for input in ["", "nonsense", "\0\0\0\x04\x02oops"] {
        let mut child = send_command();
        let mut child = child.arg("--worker").stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(!text(&output.stderr).contains("panicked") && !output.stderr.is_empty(), "{}", text(&output.stderr));
    }
}

/// Runs a command on a terminal of its own, and gives all that it wrote there.
const ON_A_TERMINAL: &str = "
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    try:
        data = os.read(terminal, 65536)
    except OSError:
        break
    if not data:
        break
    sys.stdout.buffer.write(data)
sys.stdout.buffer.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn on_a_terminal_there_is_a_bar_and_messages_stay_readable() {
    let place = temp_dir();
    // Slow enough for some looks at the bar.
    let from = place.path().join("from");
    write(&from.join("file"), noise(10 << 20, 1));
    make_fifo(&from.join("\x1b[31mlink"));
    let mut command = Command::new("python3");
    command
        .args(["-c", ON_A_TERMINAL, env!("CARGO_BIN_EXE_send"), "--file"])
        .arg(&from)
        .arg("--remote_dir")
        .arg(place.path().join("to"))
        .args(["--bwlimit", "15M", "--length", "1M"]);
    let output = expect_code(command.env("TERM", "xterm"), 3);
    let shown = text(&output.stdout);
    for word in ["MiB of 10.00 MiB", "MiB/s", "ETA", " of 1 files, 1 failed"] {
        assert!(shown.contains(word), "no '{word}' in {shown:?}");
    }
    assert!(shown.contains("send: warning: \\u{1b}[31mlink: left out: a FIFO"), "{shown:?}");
    // The bar is gone when the summary comes.
    let last: Vec<&str> = shown.trim_end().lines().rev().take(2).collect();
    assert!(last[0].starts_with("limited by"), "{shown:?}");
    assert!(last[1].contains("partial: 1 file and 0 folders, 10.00 MiB"), "{shown:?}");
}

#[test]
fn a_receiver_that_is_not_allowed_to_serve_an_address_closes_at_once() {
    let root = temp_dir();
    let recv = Recv::start_with(root.path(), &["--allow", "203.0.113.0/24,2001:db8::1"]);
    // Loopback always may: what is added does not take away.
    let stream = TcpStream::connect(("127.0.0.1", recv.port)).unwrap();
    assert_eq!(raw(&stream, &cf("x")), b"0");
}
