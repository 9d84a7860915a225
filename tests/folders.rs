//! Folders that are received by somebody who is not root, under any umask.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use common::judge::*;
use common::sender::*;
use common::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The same command under another umask.
fn under(umask: u32, command: &Command) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("umask {umask:03o}; exec \"$0\" \"$@\"")]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if is_root() {
        shell.uid(65534).gid(65534);
    }
    shell
}

/// A program run by nobody, who has a place for what it keeps.
fn nobody(program: &str, place: &Path) -> Option<Command> {
    let command = as_nobody(program, place);
    set_mode(place, 0o777);
    command
}

/// A tree with folders that are narrower and wider than any umask would make them.
fn make_folders(top: &Path) {
    for mode in [0o700, 0o555, 0o777, 0o711] {
        let folder = top.join(format!("d{mode:o}"));
        write(&folder.join("deeper/file"), noise(300_000, u64::from(mode)));
        set_mode(&folder, mode);
    }
    set_mode(top, 0o755);
    // Nobody's, for the copy on this machine.
    for entry in walkdir::WalkDir::new(top).into_iter().map(Result::unwrap).filter(|_| is_root()) {
        std::os::unix::fs::lchown(entry.path(), Some(65534), Some(65534)).unwrap();
    }
}

// C17
#[test]
fn a_receiver_that_is_not_root_takes_all_under_any_umask() {
    let (place, source) = (temp_dir(), temp_dir());
    make_folders(source.path());
    for program in [env!("CARGO_BIN_EXE_recv"), env!("CARGO_BIN_EXE_send")] {
        if nobody(program, place.path()).is_none() {
            println!("SKIPPED C17 (umask): can't run as another user");
            return;
        }
    }
    for umask in [0o000, 0o027, 0o277, 0o777] {
        let root = temp_dir();
        set_mode(root.path(), 0o777);
        let mut command = nobody(env!("CARGO_BIN_EXE_recv"), place.path()).unwrap();
        let recv = recv_with_line(&mut under(umask, command.args(["--port", "0"])), root.path()).0;
        let send = |file: &Path, remote: &str| {
            let home = temp_dir();
            let flags = ["--length", "100000"];
            Ended::of(send_to(recv.port, file, remote, &flags).env("XDG_CONFIG_HOME", home.path())).expect(0)
        };
        send(source.path(), "above/in");
        assert_eq!(mode(&recv.path("above")), 0o777 & !umask, "{umask:03o}");
        assert_kept(source.path(), &recv.path("above/in"), false, |_| false);
        // A folder without attributes of its own gets the usual ones.
        send(&source.path().join("d555/deeper/file"), "single");
        assert_eq!(mode(&recv.path("single")), 0o777 & !umask, "{umask:03o}");
        assert_eq!(list(&recv.path("single")), ["file"]);

        let mut command = nobody(env!("CARGO_BIN_EXE_send"), place.path()).unwrap();
        command.arg("--file").arg(source.path()).arg("--remote_dir").arg(root.path().join("local/in"));
        Ended::of(&mut under(umask, &command)).expect(0);
        assert_eq!(mode(&recv.path("local")), 0o777 & !umask, "{umask:03o}");
        assert_kept(source.path(), &recv.path("local/in"), false, |_| false);
        open_up(root.path());
    }
}

// C17
#[test]
fn a_second_run_gets_into_a_folder_that_its_own_mode_closed() {
    let (place, source, root) = (temp_dir(), temp_dir(), temp_dir());
    write(&source.path().join("file"), "first");
    set_mode(source.path(), 0o555);
    set_mode(root.path(), 0o777);
    let Some(mut command) = nobody(env!("CARGO_BIN_EXE_recv"), place.path()) else {
        println!("SKIPPED C17 (second run): can't run as another user");
        return;
    };
    let recv = recv_with_line(command.args(["--port", "0"]), root.path()).0;
    for content in ["first", "the second"] {
        fs::write(source.path().join("file"), content).unwrap();
        let home = temp_dir();
        Ended::of(send_to(recv.port, source.path(), "in", &[]).env("XDG_CONFIG_HOME", home.path())).expect(0);
        assert_eq!(fs::read_to_string(recv.path("in/file")).unwrap(), content);
        assert_eq!(mode(&recv.path("in")), 0o555);
    }
}
