//! Hard links: to files that arrive, that arrive late, and that do not arrive.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use common::judge::*;
use common::link::{Knobs, Link};
use common::sender::*;
use common::*;

/// Long enough to be held in the middle.
const LONG: usize = 16 << 20;

/// In one range, and in several.
const CUTS: [&[&str]; 2] = [
    &["--length", "64M", "--process_num", "1", "--thread_num", "1"],
    &["--length", "1M", "--process_num", "1", "--thread_num", "2"],
];

/// The names of one file.
const NAMES: [&str; 3] = ["a", "b", "z/c"];

/// A tree of a file of this length with all its names, and a symbolic link.
fn linked_tree(len: usize) -> TempDir {
    let source = temp_dir();
    write(&source.path().join(NAMES[0]), noise(len, 1));
    fs::create_dir(source.path().join("z")).unwrap();
    for name in &NAMES[1..] {
        fs::hard_link(source.path().join(NAMES[0]), source.path().join(name)).unwrap();
    }
    symlink("a", source.path().join("symlink")).unwrap();
    source
}

/// Fails unless all names below `top` are of one file; gives its content.
fn content_of_all(top: &Path) -> Vec<u8> {
    let inode = |name: &str| fs::symlink_metadata(top.join(name)).unwrap().ino();
    assert_eq!(NAMES.map(inode), [inode(NAMES[0]); 3]);
    fs::read(top.join(NAMES[0])).unwrap()
}

// C20
#[test]
fn a_link_to_a_file_that_did_not_arrive_is_named_and_left_as_it_was() {
    for flags in CUTS {
        let (source, root) = (linked_tree(LONG), temp_dir());
        let recv = Recv::start(root.path());
        for name in NAMES {
            write(&recv.path("in").join(name), format!("old {name}"));
        }
        let ended = send_while(&recv, source.path(), "in", flags, |top| {
            // Whichever name the walk met first.
            NAMES.iter().for_each(|name| fs::remove_file(top.join(name)).unwrap());
        })
        .expect(3);
        assert_eq!(ended.failed(), NAMES.map(str::to_owned).into(), "{}", ended.said);
        let reasons = ended.json["failures"].as_array().unwrap().iter().map(|failure| failure["reason"].as_str().unwrap());
        assert_eq!(reasons.filter(|reason| reason.ends_with("which it is a link to, did not arrive")).count(), 2);
        for name in NAMES {
            assert_eq!(fs::read_to_string(recv.path("in").join(name)).unwrap(), format!("old {name}"), "{flags:?}");
        }
        assert_eq!([ended.number("links"), ended.number("files")], [1, 0], "{flags:?}");
        assert_eq!(leftovers(root.path()), [""; 0]);
    }
}

// C20
#[test]
fn a_link_to_a_file_that_is_sent_anew_is_to_what_arrived() {
    for flags in CUTS {
        let (source, root) = (linked_tree(LONG), temp_dir());
        let recv = Recv::start(root.path());
        write(&recv.path("in/b"), "old");
        let ended = send_while(&recv, source.path(), "in", flags, |top| {
            fs::OpenOptions::new().append(true).open(top.join("a")).unwrap().write_all(&noise(1 << 20, 9)).unwrap();
        })
        .expect(0);
        assert!(ended.said.contains("changed"), "{flags:?}: {}", ended.said);
        assert!(content_of_all(&recv.path("in")) == fs::read(source.path().join("a")).unwrap(), "{flags:?}");
        assert_eq!([ended.number("links"), ended.number("files")], [3, 1]);
    }
}

#[test]
fn a_link_to_a_file_that_is_there_but_for_its_owner_is_made() {
    let (place, source, target) = (temp_dir(), linked_tree(100), temp_dir());
    set_mode(source.path(), 0o755);
    set_mode(target.path(), 0o777);
    let Some(mut command) = as_nobody(env!("CARGO_BIN_EXE_send"), place.path()).filter(|_| is_root()) else {
        println!("SKIPPED: can't run as another user");
        return;
    };
    command.args(["--owner", "--file"]).arg(source.path()).arg("--remote_dir").arg(target.path().join("in"));
    let ended = Ended::of(&mut command).expect(3);
    assert_eq!(ended.failed().iter().filter(|name| NAMES.contains(&name.as_str())).count(), 1, "{}", ended.said);
    assert_eq!(content_of_all(&target.path().join("in")), noise(100, 1));
}

#[test]
fn many_links_are_made_once_each_over_a_connection_that_breaks_meanwhile() {
    const COUNT: usize = 5000;
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("file"), "content");
    for index in 0..COUNT {
        fs::hard_link(source.path().join("file"), source.path().join(format!("link {index}"))).unwrap();
    }
    let recv = Recv::start(root.path());
    // More than the file, less than all links: the first connection is the one that describes them.
    let cut = |index| Knobs { cut: (index == 0).then_some(100_000), ..Knobs::default() };
    let link = Link::with(recv.port, cut);
    let ended = Ended::of(&mut send_to(link.port, source.path(), "in", &["--plain"])).expect(0);
    assert_eq!([ended.number("lost_connections"), ended.number("links"), ended.number("files")], [1, COUNT as u64, 1]);
    let file = fs::metadata(recv.path("in/file")).unwrap();
    assert_eq!((file.nlink(), list(&recv.path("in")).len()), (COUNT as u64 + 1, COUNT + 1));
    assert_kept(source.path(), &recv.path("in"), false, |_| false);
}

#[test]
fn a_link_that_could_not_be_made_is_not_counted() {
    let source = linked_tree(100);
    in_each_way(|way| {
        for name in ["symlink", "z/c"] {
            write(&way.target.join(name).join("within"), "in the way");
        }
        let ended = Ended::of(&mut way.send(source.path(), &[])).expect_failed(&["symlink", "z/c"], "is a folder");
        assert_eq!([ended.number("links"), ended.number("files")], [1, 1], "{}: {}", way.name, ended.json);
    });
}

// C12 C20
#[test]
fn a_second_name_that_is_sent_is_not_linked_to_what_took_the_place_of_the_first() {
    for is_replaced in [false, true] {
        let (source, root) = (temp_dir(), temp_dir());
        let (first, second) = (source.path().join("first"), source.path().join("e/second"));
        write(&first, noise(6_000_000, 1));
        fs::create_dir(source.path().join("e")).unwrap();
        fs::hard_link(&first, &second).unwrap();
        let recv = Recv::start(root.path());
        let link = Link::holding(recv.port, 1 << 20);
        let flags = ["--length", "500K", "--process_num", "1", "--thread_num", "1"];
        let sender = Sender::start(&mut send_to(link.port, source.path(), "in", &flags));
        link.wait_until_it_holds();
        wait_until("the folder of the second name is there", || recv.path("in/e").exists());
        if is_replaced {
            let other = temp_dir();
            write(&other.path().join("new"), noise(6_000_000, 9));
            fs::copy(other.path().join("new"), source.path().join("new")).unwrap();
            fs::rename(source.path().join("new"), &first).unwrap();
        } else {
            fs::OpenOptions::new().append(true).open(&first).unwrap().write_all(b"more").unwrap();
        }
        link.release();
        let ended = sender.wait();
        if is_replaced {
            // One of the two is met first by the walk, and the other is the link.
            let ended = ended.expect(3);
            assert!(ended.said.contains("which it was another name of, changed meanwhile"), "{}", ended.said);
        } else {
            ended.expect(0);
        }
        Ended::of(&mut send_to(recv.port, source.path(), "in", &[])).expect(0);
        assert_kept(source.path(), &recv.path("in"), is_root(), |_| false);
    }
}
