//! Whole trees: every attribute that is to be kept, in TLS, in clear and on this machine.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command;

use common::judge::*;
use common::link::Link;
use common::sender::*;
use common::*;
use rustix::fs::XattrFlags;

// C10, C11, C12, C17, C19, C09
#[test]
fn an_awkward_tree_arrives_with_all_that_is_to_be_kept_of_it() {
    let source = temp_dir();
    make_awkward_tree(source.path());
    in_each_way(|way| {
        for (index, flags) in
            [&[][..], &["--length", "100000", "--process_num", "2", "--thread_num", "2"]].into_iter().enumerate()
        {
            let ended = Ended::of(&mut way.send(source.path(), flags)).expect(0);
            assert_kept(source.path(), &way.target, is_root(), |_| false);
            assert_same(source.path(), &way.target);
            assert_eq!(ended.number("found_files"), ended.number("files"), "{} {index}", way.name);
            open_up(&way.target);
            fs::remove_dir_all(&way.target).unwrap();
        }
    });
    open_up(source.path());
}

// C09, C21
#[test]
fn what_can_not_be_sent_is_named_and_all_the_rest_is_kept() {
    let source = temp_dir();
    make_awkward_tree(source.path());
    let specials = make_specials(source.path());
    in_each_way(|way| {
        Ended::of(&mut way.send(source.path(), &[])).expect_failed(&specials, "left out: a");
        assert_kept(source.path(), &way.target, is_root(), |path| specials.iter().any(|&special| path == Path::new(special)));
        assert!(specials.iter().all(|special| !way.target.join(special).exists()), "{}", way.name);
    });
    open_up(source.path());
}

// C11
#[test]
fn names_that_play_tricks_are_printed_escaped() {
    let (source, root) = (temp_dir(), temp_dir());
    for name in AWKWARD_NAMES {
        let path = source.path().join(OsStr::from_bytes(&[name, b"f"].concat()));
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        write(&source.path().join("d").join(OsStr::from_bytes(name)), name);
    }
    let mut recv = Recv::start_with(root.path(), &["--verbose"]);
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "in", &["--verbose"])).expect(3);
    assert_eq!(ended.failed().len(), AWKWARD_NAMES.len());
    let shown = ended.said + &text(&expect_code(&mut send_to(recv.port, source.path(), "dry", &["--dry_run"]), 3).stdout);
    recv.expect_idle();
    for said in [shown, recv.process.log()] {
        yard::expect_printable(&said);
    }
}

// C19
#[test]
fn holes_stay_holes_and_cost_nothing_on_the_wire() {
    let (source, root) = (temp_dir(), temp_dir());
    let (sparse, hole) = (source.path().join("sparse"), source.path().join("hole"));
    write_sparse(&sparse, 1 << 40, 256 << 10, 4);
    fs::File::create(&hole).unwrap().set_len(3 << 30).unwrap();
    let recv = Recv::start(root.path());
    let link = Link::to(recv.port);
    Ended::of(&mut send_to(link.port, source.path(), "in", &["--plain"])).expect(0);
    // A MiB of data, and a frame for every 16 MiB.
    assert!((1 << 20..16 << 20).contains(&link.forth()), "{} bytes", link.forth());
    let about = |path: &Path| fs::metadata(path).unwrap();
    assert_eq!(about(&recv.path("in/sparse")).len(), 1 << 40);
    let (there, here) = (about(&sparse).blocks(), about(&recv.path("in/sparse")).blocks());
    assert!(here <= there + 64, "{here} blocks of {there}");
    assert!(about(&recv.path("in/hole")).blocks() <= 8);
    use std::os::unix::fs::FileExt as _;
    for top in [source.path(), &recv.path("in")] {
        let file = fs::File::open(top.join("sparse")).unwrap();
        let mut bytes = vec![0; 300 << 10];
        for place in 0..4 {
            file.read_exact_at(&mut bytes, place << 38).unwrap();
            assert!(bytes[..256 << 10] == noise(256 << 10, place + 1) && bytes[256 << 10..].iter().all(|&byte| byte == 0));
        }
    }
    // And on this machine.
    let local = temp_dir();
    Ended::of(&mut copy_to(source.path(), local.path(), &[])).expect(0);
    assert!(about(&local.path().join("sparse")).blocks() <= there + 64);
}

// C19
#[test]
fn a_thousand_empty_files_and_folders_arrive() {
    let source = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| temp_dir());
    for index in 0..1000 {
        write(&source.path().join(format!("{}/{index}", index % 50)), "");
        fs::create_dir_all(source.path().join(format!("hollow/{index}"))).unwrap();
    }
    in_each_way(|way| {
        let ended = Ended::of(&mut way.send(source.path(), &[])).expect(0);
        assert_eq!([ended.number("files"), ended.number("folders"), ended.number("bytes")], [1000, 1051, 0]);
        assert_kept(source.path(), &way.target, false, |_| false);
    });
}

// C17
#[test]
fn modes_are_kept_whatever_the_umask() {
    let source = temp_dir();
    for mode in [0o000, 0o644, 0o755, 0o777, 0o600, 0o4777] {
        let path = source.path().join(format!("d{mode:o}/file {mode:o}"));
        write(&path, "x");
        set_mode(&path, mode);
        set_mode(path.parent().unwrap(), mode | 0o700);
    }
    if !is_root() {
        fs::remove_file(source.path().join("d0/file 0")).unwrap();
    }
    for umask in ["000", "077", "777"] {
        let (root, local) = (temp_dir(), temp_dir());
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let under = |command: &Command| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).arg(command.get_program()).args(command.get_args());
            shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            shell
        };
        let mut command = recv_command();
        let recv = recv_with_line(&mut under(command.args(["--port", "0"])), root.path()).0;
        // What is missing above it is made as any program makes folders.
        Ended::of(&mut send_to(recv.port, source.path(), "in", &[])).expect(0);
        assert_kept(source.path(), &recv.path("in"), false, |_| false);
        let target = local.path().join("in");
        Ended::of(&mut under(&copy_to(source.path(), &target, &[]))).expect(0);
        assert_kept(source.path(), &target, false, |_| false);
    }
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).is_ok()
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..len].split(|&byte| byte == 0).filter(|name| name.starts_with(b"user."));
    let mut found: Vec<_> = names
        .map(|name| {
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
            (text(name), value[..len].to_vec())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn extended_attributes_are_kept_when_asked_for_and_only_then() {
    let source = temp_dir();
    let names = ["file", "empty", "read only", "folder", "large", ""];
    fs::create_dir(source.path().join("folder")).unwrap();
    for (name, len) in [("file", 100), ("empty", 0), ("read only", 10), ("large", 700_000)] {
        write(&source.path().join(name), noise(len, 1));
    }
    for name in names {
        let path = source.path().join(name);
        if !set_xattr(&path, "user.note", name.as_bytes()) {
            println!("SKIPPED: no extended attributes in {}", source.path().display());
            return;
        }
        assert!(set_xattr(&path, "user.empty", b"") && set_xattr(&path, "user.\u{1b}[31m\n", b"\0\xff\n"));
    }
    set_mode(&source.path().join("read only"), 0o444);
    in_each_way(|way| {
        Ended::of(&mut way.send(source.path(), &[])).expect(0);
        assert!(names.iter().all(|name| xattrs(&way.target.join(name)).is_empty()), "{}: nobody asked", way.name);
        // What is there is put right without its content.
        let ended = Ended::of(&mut way.send(source.path(), &["--xattrs", "--length", "100000"])).expect(0);
        assert_eq!(ended.sent(), 0, "{}", way.name);
        let check = |names: &[&str]| {
            for name in names {
                assert_eq!(xattrs(&way.target.join(name)), xattrs(&source.path().join(name)), "{}: '{name}'", way.name);
            }
        };
        // Without the job's folder itself, which was there before.
        check(&names[..5]);
        fs::remove_dir_all(&way.target).unwrap();
        Ended::of(&mut way.send(source.path(), &["--xattrs", "--length", "100000"])).expect(0);
        check(&names);
        assert_kept(source.path(), &way.target, false, |_| false);
    });
}

#[test]
fn attributes_of_root_alone_and_of_the_machine_give_no_rights() {
    let (source, root) = (temp_dir(), temp_dir());
    let file = source.path().join("file");
    write(&file, "x");
    if !set_xattr(&file, "user.own", b"1") || !set_xattr(&file, "security.label", b"1") {
        println!("SKIPPED: no right to set security attributes here");
        return;
    }
    let recv = Recv::start(root.path());
    Ended::of(&mut send_to(recv.port, source.path(), "in", &["--xattrs"])).expect(0);
    let mut names = vec![0; 4096];
    let len = rustix::fs::listxattr(recv.path("in/file"), &mut names[..]).unwrap();
    assert_eq!(text(&names[..len]), "user.own\0");
    // The receiver may not take what the sender may show: then it is said, and the file is there.
    assert!(set_xattr(&file, "trusted.x", b"1"));
    let ended = Ended::of(&mut send_to(recv.port, source.path(), "again", &["--xattrs"]));
    let len = rustix::fs::listxattr(recv.path("again/file"), &mut names[..]).unwrap();
    let is_kept = text(&names[..len]).contains("trusted.x");
    assert!(is_kept == (ended.code == Some(0)) && (is_kept || ended.said.contains("trusted.x")), "{}", ended.said);
}

#[test]
fn owners_are_kept_when_root_asks_for_it_and_only_then() {
    if !is_root() {
        println!("SKIPPED: only root can give files away");
        return;
    }
    let source = temp_dir();
    for (name, len) in [("file", 100), ("empty", 0), ("d/large", 700_000)] {
        write(&source.path().join(name), noise(len, 1));
    }
    symlink("nowhere", source.path().join("link")).unwrap();
    for (index, name) in ["file", "empty", "d/large", "d", "link"].into_iter().enumerate() {
        std::os::unix::fs::lchown(source.path().join(name), Some(1234 + index as u32), Some(4321)).unwrap();
    }
    set_mode(&source.path().join("file"), 0o750);
    in_each_way(|way| {
        Ended::of(&mut way.send(source.path(), &[])).expect(0);
        assert!(
            look_at_all(&way.target, false).keys().all(|name| fs::symlink_metadata(way.target.join(name)).unwrap().uid() == 0)
        );
        let ended = Ended::of(&mut way.send(source.path(), &["--owner"])).expect(0);
        assert_eq!(ended.sent(), 0, "{}", way.name);
        assert_kept(source.path(), &way.target, true, |_| false);
        fs::remove_dir_all(&way.target).unwrap();
        Ended::of(&mut way.send(source.path(), &["--owner", "--length", "100000"])).expect(0);
        assert_kept(source.path(), &way.target, true, |_| false);
    });
}

// C15
#[test]
fn an_owner_that_can_not_be_set_is_named_and_the_file_is_there() {
    let (place, source, target) = (temp_dir(), temp_dir(), temp_dir());
    write(&source.path().join("file"), "content");
    set_mode(source.path(), 0o755);
    set_mode(target.path(), 0o777);
    let Some(mut command) = as_nobody(env!("CARGO_BIN_EXE_send"), place.path()).filter(|_| is_root()) else {
        println!("SKIPPED C15 (owner): can't run as another user");
        return;
    };
    command.args(["--owner", "--file"]).arg(source.path().join("file")).arg("--remote_dir").arg(target.path().join("in"));
    let ended = Ended::of(&mut command).expect_failed(&["file"], "owner 0:0");
    assert!(ended.said.contains("is there, but"), "{}", ended.said);
    assert_eq!(fs::read(target.path().join("in/file")).unwrap(), b"content");
    assert_eq!(fs::metadata(target.path().join("in/file")).unwrap().uid(), 65534);
    assert_eq!(leftovers(target.path()), [""; 0]);
}

// C10
#[test]
fn a_path_that_gets_too_long_is_named_and_the_rest_arrives() {
    let (source, root) = (temp_dir(), temp_dir());
    let recv = Recv::start(root.path());
    let (remote, fits, too_long) = names_near_the_limit();
    for name in [&fits, &too_long] {
        write(&source.path().join(name), "x");
    }
    let ended = Ended::of(&mut send_to(recv.port, source.path(), &remote, &[])).expect_failed(&[&too_long], "");
    assert_eq!([ended.number("files"), ended.number("bytes")], [1, 1]);
}

// C10
#[test]
fn a_file_that_takes_long_to_come_may_have_a_name_of_255_bytes() {
    let (source, root) = (temp_dir(), temp_dir());
    let name = "n".repeat(255);
    write(&source.path().join(&name), noise(900_000, 1));
    let recv = Recv::start(root.path());
    for _ in 0..2 {
        expect_code(&mut send_to(recv.port, source.path(), "in", &["--length", "100000", "--backup"]), 0);
        assert_kept(source.path(), &recv.path("in"), false, |_| false);
    }
}

// F04, C01
#[test]
fn a_remote_dir_means_a_place_below_the_root() {
    let (source, root) = (temp_dir(), temp_dir());
    write(&source.path().join("file"), "x");
    let recv = Recv::start(root.path());
    let own = root.path().canonicalize().unwrap().into_os_string();
    let joined = |more: &str| {
        let mut path = own.clone();
        path.push(more);
        path
    };
    let plain =
        [("in", "in"), ("/in///", "in"), ("a//b/./c", "a/b/c"), ("", ""), (".", ""), ("//", ""), ("~/x", "~/x"), ("-", "-")];
    let mut cases: Vec<(OsString, OsString)> = plain.map(|(remote, lands)| (remote.into(), lands.into())).to_vec();
    for bytes in [&b"line\nfeed"[..], b"latin-\xe9", b"\x1b[31m"] {
        cases.push((OsStr::from_bytes(bytes).into(), OsStr::from_bytes(bytes).into()));
    }
    cases.extend([(own.clone(), "".into()), (joined("/in"), "in".into())]);
    cases.push((joined("x/in"), OsStr::from_bytes(&joined("x/in").as_bytes()[1..]).into()));
    for (remote, lands) in cases {
        let ended = Ended::of(&mut send_to(recv.port, source.path(), &remote, &[])).expect(0);
        let landed = root.path().join(lands);
        assert_eq!(fs::read(landed.join("file")).unwrap_or_else(|error| panic!("{remote:?}: {error}")), b"x");
        if let Some(landed) = landed.canonicalize().unwrap().to_str().filter(|name| !name.contains(['\n', '\x1b'])) {
            assert!(ended.json["landed"].as_str().unwrap().starts_with(landed.trim_end_matches('/')), "{}", ended.json);
        }
        for name in fs::read_dir(root.path()).unwrap() {
            let path = name.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
    for remote in ["..", "in/../..", "../x", "/..", "in/.ptf-x", ".ptf-"] {
        let output = run(&mut send_to(recv.port, source.path(), remote, &[]));
        assert!(matches!(output.status.code(), Some(1 | 2 | 4)), "'{remote}': {:?}", output.status);
        assert!(text(&output.stderr).contains(remote), "{}", text(&output.stderr));
    }
    assert_eq!(list(root.path()), [""; 0]);
}
