//! Where things may land, and what links are.

use std::fs;
use std::os::unix::fs::symlink;

use parallel_transfer::protocol::{Open, Reply, Status};

use crate::client::*;
use crate::common::yard::Yard;
use crate::common::*;

#[test]
fn the_target_of_a_link_is_text_and_never_followed() {
    let mut yard = Yard::new();
    let outside = yard.outside("outside/sentinel");
    let absolute = outside.to_str().unwrap().to_owned();
    let targets = ["../../outside/sentinel", &absolute, "/etc/passwd", "..", ".", "nowhere/at/all", "link0"];
    let mut client = Client::opened(&yard.recv);
    for (index, target) in targets.iter().enumerate() {
        assert_eq!(client.ask(&symlink_to(&format!("link{index}"), target)), Status::Stored);
    }
    assert_eq!(client.finish_well().links, 7);
    drop(client);
    // Now they are there: files take their places, and what they point to stays what it is.
    let mut client = Client::opened(&yard.recv);
    for (index, target) in targets.iter().enumerate() {
        let name = format!("link{index}");
        assert_eq!(fs::read_link(yard.root().join("in").join(&name)).unwrap().to_str().unwrap(), *target);
        client.send(&have(&[(&name, 8)]));
        assert_eq!(client.reply(), Some(Reply::Had(vec![false])));
        assert_eq!(client.ask(&put(&name, b"new")), Status::Published);
        assert!(fs::symlink_metadata(yard.root().join("in").join(&name)).unwrap().is_file());
    }
    client.finish_well();
    drop(client);
    yard.expect_well();
}

#[test]
fn a_link_as_a_parent_is_refused() {
    let mut yard = Yard::prepared(|root| {
        fs::create_dir_all(root.join("in/real")).unwrap();
        symlink("../../outside", root.join("in/out")).unwrap();
        symlink("real", root.join("in/inside")).unwrap();
        symlink("../outside", root.join("job")).unwrap();
    });
    let content = noise(700_000, 1);
    let mut client = Client::opened(&yard.recv);
    for parent in ["out", "inside"] {
        let name = |name: &str| format!("{parent}/{name}");
        assert_eq!(client.ask(&put(&name("x"), b"new")), Status::Refused);
        assert_eq!(client.ask(&put(&name("sentinel"), b"new")), Status::Refused);
        assert_eq!(client.ask(&put_range(&name("y"), &content, 0..400_000, 1)), Status::Refused);
        assert_eq!(client.ask(&folder(&name("f"))), Status::Refused);
        client.send(&have(&[(&name("sentinel"), 16)]));
        assert_eq!(client.reply(), Some(Reply::Had(vec![false])));
        // Links wait for the end, and are named there.
        assert_eq!(client.ask(&symlink_to(&name("l"), "x")), Status::Stored);
        assert_eq!(client.ask(&hard_link(&name("h"), "there")), Status::Stored);
        assert_eq!(client.ask(&hard_link(&format!("from {parent}"), &name("sentinel"))), Status::Stored);
    }
    // The rest goes on.
    assert_eq!(client.ask(&put("there", b"there")), Status::Published);
    let (missing, totals) = client.finish();
    let mut missing: Vec<_> = missing.into_iter().map(|(path, _)| path).collect();
    missing.sort();
    assert_eq!(missing, ["from inside", "from out", "inside/h", "inside/l", "out/h", "out/l"]);
    assert_eq!((totals.failed, totals.files), (6, 1));
    drop(client);
    for folder in ["job", "job/below", "../outside", "in/../../outside", "in/out"] {
        let open = Open { directory: folder.as_bytes().to_vec(), ..open(new_token()) };
        Client::greeted(&yard.recv).expect_refusal(&open_frame(&open), "");
    }
    yard.expect_well();
    assert_eq!(list(yard.root()), ["in", "in/inside", "in/out", "in/real", "in/there", "job"]);
}

#[test]
fn names_that_the_receiver_keeps_for_itself_are_refused() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let holder = Client::with(&yard.recv, &open(token));
    // No client of ours can say them.
    let said = |name: &str| {
        let numbers = [3_u64, 7].map(u64::to_be_bytes).concat();
        let body = [&[0][..], &numbers, &[0; 20], &[0; 8], &3_u64.to_be_bytes(), &run_of(name.as_bytes()), &[1, 0o244]];
        let described = [&[0][..], &run_of(name.as_bytes()), &[0], &[0; 12], &[1, 0o355]];
        let linked = [&[0][..], &run_of(b"h"), &[2], &run_of(name.as_bytes()), &[1, 0o244]];
        [frame(4, &body.concat()), frame(6, &described.concat()), frame(6, &linked.concat())]
    };
    for name in [".ptf-x", "a/.ptf-", ".ptf-x/y"] {
        for bytes in said(name) {
            Client::joined(&yard.recv, token).expect_refusal(&bytes, "keeps for files");
        }
        let open = Open { directory: name.as_bytes().to_vec(), ..open(new_token()) };
        Client::greeted(&yard.recv).expect_refusal(&open_frame(&open), "keeps for files");
    }
    drop(holder);
    bystander.expect_well(&mut yard);
}

#[test]
fn a_folder_in_the_place_of_a_file_is_refused_and_the_reverse() {
    let mut yard = Yard::prepared(|root| {
        write(&root.join("in/folder/within"), "within");
        write(&root.join("in/file"), "file");
    });
    let mut client = Client::opened(&yard.recv);
    assert_eq!(client.ask(&put("folder", b"new")), Status::Refused);
    assert_eq!(client.ask(&put("file/below", b"new")), Status::Refused);
    assert_eq!(client.ask(&folder("file")), Status::Refused);
    assert_eq!(client.ask(&symlink_to("folder", "elsewhere")), Status::Stored);
    let (missing, _) = client.finish();
    assert!(matches!(&missing[..], [(path, _)] if path == "folder"), "{missing:?}");
    drop(client);
    yard.expect_well();
    assert_eq!(list(yard.root()), ["in", "in/file", "in/folder", "in/folder/within"]);
    assert_eq!(fs::read(yard.root().join("in/file")).unwrap(), b"file");
}

#[test]
fn a_job_that_is_to_change_nothing_changes_nothing() {
    let mut yard = Yard::prepared(|root| write(&root.join("in/file"), "file"));
    let before = list(yard.root());
    for directory in [&b"in"[..], b"new/below"] {
        let open = Open { directory: directory.to_vec(), is_dry: true, ..open(new_token()) };
        let mut client = Client::with(&yard.recv, &open);
        client.send(&have(&[("file", 4), ("other", 4)]));
        assert!(matches!(client.reply(), Some(Reply::Had(_))));
        for bytes in [put("x", b"new"), put("file", b"new"), folder("f"), symlink_to("l", "x")] {
            client.send(&bytes);
        }
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        while client.reply().is_some() {}
        drop(client);
        yard.expect_well();
        assert_eq!(list(yard.root()), before, "{}", text(directory));
        assert_eq!(fs::read(yard.root().join("in/file")).unwrap(), b"file");
    }
}

#[test]
fn a_job_that_is_refused_makes_no_folder() {
    let mut yard = Yard::new();
    let bystander = Bystander::new(&yard);
    let token = new_token();
    let holder = Client::with(&yard.recv, &open(token));
    let other = Open { directory: b"another".to_vec(), ..open(token) };
    Client::greeted(&yard.recv).expect_refusal(&open_frame(&other), "another session has this token");
    assert!(!yard.root().join("another").exists());
    drop(holder);
    bystander.expect_well(&mut yard);
}
