//! What is in folders, and what names are: listed, and never followed.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use parallel_transfer::entry::ListedKind;
use parallel_transfer::protocol::Status;
use parallel_transfer::store::identify;

use crate::client::*;
use crate::common::judge::*;
use crate::common::sender::*;
use crate::common::yard::Yard;
use crate::common::*;

// C09 C11 C12 C17
#[test]
fn a_tree_of_every_kind_is_listed_as_it_is() {
    let mut yard = Yard::prepared(|root| {
        make_awkward_tree(&root.join("in"));
        make_specials(&root.join("in"));
        write(&root.join("in/a/.ptf-hidden"), "");
    });
    let top = yard.root().join("in");
    let mut client = Client::browsing(&yard.recv, "in");
    let mut waiting = vec![String::new()];
    let (mut seen, mut specials) = (0, 0);
    while let Some(folder) = waiting.pop() {
        let (all, why) = client.try_list(&folder);
        assert_eq!(why, None, "{folder}");
        for listed in all {
            let path = top.join(&folder).join(std::ffi::OsStr::from_bytes(&listed.name));
            let about = fs::symlink_metadata(&path).unwrap();
            seen += 1;
            match listed.kind {
                // Tags are of this machine, and the receiver's fence lets it know which that is.
                ListedKind::File { identity, .. } => assert_eq!(identity, identify(&about), "{}", path.display()),
                ListedKind::Symlink { target, .. } => {
                    assert_eq!(*target, *fs::read_link(&path).unwrap().as_os_str().as_bytes());
                }
                ListedKind::Special { .. } => specials += 1,
                ListedKind::Directory { .. } => match std::str::from_utf8(&listed.name) {
                    Ok(name) => waiting.push(format!("{folder}{}{name}", if folder.is_empty() { "" } else { "/" })),
                    Err(_) => seen += walkdir::WalkDir::new(&path).min_depth(1).into_iter().count(),
                },
            }
        }
    }
    // But the one that is hidden.
    assert_eq!((seen, specials), (list(&top).len() - 1, 2));
    client.finish_well();
    drop(client);
    fs::remove_file(top.join("a/.ptf-hidden")).unwrap();
    open_up(&top);
    yard.expect_well();
}

// C19 E18
#[test]
fn a_hundred_thousand_names_are_listed_in_little_memory() {
    let root = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| temp_dir());
    fs::create_dir(root.path().join("in")).unwrap();
    for index in 0..100_000 {
        fs::File::create(root.path().join(format!("in/file number {index:06}"))).unwrap();
    }
    let mut recv = Recv::start(root.path());
    let mut client = Client::browsing(&recv, "/");
    assert_eq!(client.names(""), ["in"]);
    let before = recv.process.peak_kib();
    let names = client.names("in");
    assert_eq!(names.len(), 100_000);
    assert!(names.iter().enumerate().all(|(index, name)| *name == format!("file number {index:06}")));
    let after = recv.process.peak_kib();
    assert!(after < before + 2048, "it grew from {before} to {after} KiB");
    drop(client);
    recv.expect_idle();
}

// C03 C09
#[test]
fn no_link_is_followed_and_what_is_missing_is_named() {
    let mut yard = Yard::prepared(|root| {
        fs::create_dir_all(root.join("in/real")).unwrap();
        write(&root.join("in/file"), "x");
        symlink("../../outside", root.join("in/out")).unwrap();
        symlink("real", root.join("in/inside")).unwrap();
        make_fifo(&root.join("in/fifo"));
    });
    let mut client = Client::browsing(&yard.recv, "in");
    for (name, why) in [
        ("out", "in/out is a symbolic link"),
        ("out/in", "in/out/in is a symbolic link, or below one"),
        ("inside", "in/inside is a symbolic link"),
        ("missing", "in/missing is not there"),
        ("file", "in/file is not a folder"),
        ("fifo", "in/fifo is not a folder"),
    ] {
        let (all, refused) = client.try_list(name);
        assert!(all.is_empty() && refused.as_ref().is_some_and(|refused| refused.starts_with(why)), "{name}: {refused:?}");
    }
    for (name, why) in [("missing", "in/missing is not there"), ("out/sentinel", "in/out is a symbolic link")] {
        client.send(&list_frame(name, true));
        let answer = client.answer();
        assert!(answer.status == Status::Refused && answer.reason.starts_with(why), "{answer:?}");
    }
    client.finish_well();
    drop(client);
    for (directory, why) in [
        ("in/out", "'in/out' is a symbolic link"),
        ("in/inside", "'in/inside' is a symbolic link"),
        ("in/out/in", "in/out is a symbolic link, or below one"),
        ("in/fifo", "'in/fifo' is neither a file nor a folder"),
        ("missing/x", "there is nothing at 'missing/x'"),
        ("in/file/x", "in/file is not a folder"),
        ("in/../..", "'.' or '..'"),
    ] {
        Client::greeted(&yard.recv).expect_refusal(&open_frame(&browse(directory)), why);
    }
    assert_eq!(list(yard.root()), ["in", "in/fifo", "in/file", "in/inside", "in/out", "in/real"]);
    yard.expect_well();
}

// A06 B02 C01
#[test]
fn a_list_of_what_is_no_path_is_refused() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let holder = Client::with(&yard.recv, &parallel_transfer::protocol::Open { token, ..browse("") });
    for (name, why) in
        [("..", "'..'"), ("a/../b", "'..'"), ("/etc", "empty name"), ("a//b", "empty name"), (".ptf-x", "keeps for files")]
    {
        let bytes = frame(0x0b, &[&[0][..], &run_of(name.as_bytes())].concat());
        Client::joined(&yard.recv, token).expect_refusal(&bytes, why);
    }
    let long = "n".repeat(256);
    for body in [&b""[..], &[0], &[0, 0], &[0, 0, 1], &[0, 0, 0, 0], &[&[0][..], &run_of(long.as_bytes())].concat()] {
        Client::joined(&yard.recv, token).expect_refusal(&frame(0x0b, body), "");
    }
    Client::greeted(&yard.recv).expect_refusal(&list_frame("", false), "before a job was joined");
    drop(holder);
    bystander.expect_well(&mut yard);
}

// C15 D12
#[test]
fn what_can_not_be_read_is_named_and_the_rest_goes_on() {
    let (root, place) = (temp_dir(), temp_dir());
    write(&root.path().join("in/locked/x"), "x");
    write(&root.path().join("in/closed"), "closed");
    write(&root.path().join("in/open"), "open");
    set_mode(root.path(), 0o755);
    let Some(mut command) = as_nobody(env!("CARGO_BIN_EXE_recv"), place.path()) else {
        println!("SKIPPED C15: this user can't become another");
        return;
    };
    let state = temp_dir();
    set_mode(state.path(), 0o777);
    command.args(["--port", "0", "--state_dir"]).arg(state.path());
    let (recv, _) = recv_with_line(&mut command, root.path());
    set_mode(&root.path().join("in/closed"), 0o000);
    let mut client = Client::browsing(&recv, "in");
    assert_eq!(client.names(""), ["closed", "locked", "open"]);
    for (mode, why) in [(0o000, "can't list in/locked: "), (0o444, "can't look at in/locked/x: ")] {
        set_mode(&root.path().join("in/locked"), mode);
        let (all, refused) = client.try_list("locked");
        assert!(all.is_empty() && refused.as_ref().is_some_and(|refused| refused.starts_with(why)), "{refused:?}");
    }
    let closed = client.look("closed");
    client.send(&Asked::of("closed", closed, 0..6).frame);
    let answer = client.answer();
    assert!(answer.status == Status::Refused && answer.reason.starts_with("can't open in/closed: "), "{answer:?}");
    let open = client.look("open");
    assert_eq!(client.read("open", open, 0..4).unwrap(), b"open");
    client.finish_well();
    open_up(root.path());
}
