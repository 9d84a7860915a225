//! Tests of files being received.
#![allow(clippy::single_range_in_vec_init, reason = "one range is missing")]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::super::There;
use super::super::yard::{Yard, attributes, meta, path, published};
use super::*;
use crate::entry::Attributes;

// C10 C11 C12 C17
#[test]
fn a_file_has_its_name_content_mode_and_time() {
    let yard = Yard::new();
    let long = [b'x'; 255];
    let names =
        [&long[..], b"\xff\xfe", b"a\nb\t\x1b[31m", b"new/folder/...", "e\u{301}".as_bytes(), "\u{e9}".as_bytes(), b"-*%s"];
    let modes = [0o644, 0o000, 0o444, 0o777, 0o4755, 0o1777, 0o2711];
    let times = [(0, 0), (-1, 999_999_999), (-2_000_000_000, 1), (1_700_000_000, 123_456_789), (1, 0), (2, 2), (3, 3)];
    for ((name, mode), mtime) in names.into_iter().zip(modes).zip(times) {
        let mut meta = meta(5, 1);
        (meta.identity.mtime, meta.attributes.mode) = (mtime, mode);
        let mut folders = Folders::default();
        let incoming = yard.store.begin(&mut folders, &path(name), &meta, OnExisting::Replace).unwrap();
        incoming.write_at(2, b"llo").unwrap();
        assert_eq!(incoming.note(2..5).unwrap(), State::Stored);
        assert_eq!(incoming.missing(), [0..2]);
        incoming.write_at(0, b"he").unwrap();
        assert_eq!(incoming.note(0..2).unwrap(), published());
        let about = fs::metadata(yard.at(OsStr::from_bytes(name))).unwrap();
        assert_eq!((about.mtime(), about.mtime_nsec()), (mtime.0, i64::from(mtime.1)));
        assert_eq!(about.mode() & 0o7777, u32::from(mode & 0o777));
        assert_eq!(yard.store.has(&mut folders, &path(name), &meta.identity, &meta.attributes).unwrap(), There::Yes);
    }
    fs::set_permissions(yard.at(OsStr::from_bytes(b"\xff\xfe")), Permissions::from_mode(0o600)).unwrap();
    for name in names {
        assert_eq!(fs::read(yard.at(OsStr::from_bytes(name))).unwrap(), b"hello");
    }
    yard.assert_clean();
}

// C03 C09 C16
#[test]
fn what_has_the_name_is_replaced_whole_or_refused() {
    let yard = Yard::new();
    let secret = yard.outside("secret");
    fs::write(&secret, "secret").unwrap();
    fs::write(yard.at("file"), "old").unwrap();
    fs::write(yard.at("read-only"), "old").unwrap();
    fs::set_permissions(yard.at("read-only"), Permissions::from_mode(0o400)).unwrap();
    for (name, target) in [
        ("link", secret.as_path()),
        ("inside", "file".as_ref()),
        ("dangling", "nowhere".as_ref()),
        ("loop", "loop".as_ref()),
        ("mem", "/proc/self/mem".as_ref()),
        ("folder-link", secret.parent().unwrap()),
    ] {
        symlink(target, yard.at(name)).unwrap();
    }
    mknodat(CWD, yard.at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    fs::create_dir(yard.at("folder")).unwrap();
    for on_existing in [OnExisting::Replace, OnExisting::KeepAside] {
        for name in ["inside", "file", "read-only", "link", "dangling", "loop", "mem", "folder-link", "fifo"] {
            assert_eq!(yard.put(name, b"new", on_existing).unwrap(), published());
            assert!(fs::symlink_metadata(yard.at(name)).unwrap().is_file(), "{name}");
            assert_eq!(fs::read(yard.at(name)).unwrap(), b"new");
        }
        let refused = yard.put("folder", b"new", on_existing).unwrap_err().to_string();
        assert_eq!(refused, "folder is a folder");
    }
    assert!(yard.at("folder").is_dir());
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    let refused = yard.put("file/below", b"new", OnExisting::Replace).unwrap_err().to_string();
    assert_eq!(refused, "file is not a folder, or below something that is not");
    yard.assert_clean();
}

// C03
#[test]
fn a_link_as_a_parent_is_refused() {
    let yard = Yard::new();
    fs::create_dir(yard.at("real")).unwrap();
    symlink(yard.outside(""), yard.at("out")).unwrap();
    symlink("real", yard.at("in")).unwrap();
    for name in ["out/x", "in/x", "out/a/b/x"] {
        let refused = yard.put(name, b"x", OnExisting::Replace).unwrap_err().to_string();
        assert!(refused.ends_with("is a symbolic link, or below one"), "{refused}");
        let has = yard.store.has(&mut Folders::default(), &path(name), &meta(1, 1).identity, &attributes(0o644));
        assert_eq!(has.unwrap(), There::No);
    }
    assert_eq!(fs::read_dir(yard.outside("")).unwrap().count(), 0);
}

// B06
#[test]
fn nothing_is_written_past_the_end_or_after_it_has_ended() {
    let yard = Yard::new();
    let begin = |name| yard.store.begin(&mut Folders::default(), &path(name), &meta(4, 1), OnExisting::Replace).unwrap();
    let incoming = begin("a");
    for (offset, len) in [(0, 5), (4, 1), (u64::MAX, 1), (u64::MAX, 0)] {
        assert!(incoming.write_at(offset, &vec![1; len]).is_err(), "{offset} {len}");
    }
    let backwards = Range { start: 3, end: 2 };
    for range in [0..5, 5..5, backwards, u64::MAX..u64::MAX] {
        assert!(incoming.note(range.clone()).is_err(), "{range:?}");
    }
    incoming.write_at(0, b"once").unwrap();
    assert_eq!(incoming.note(0..4).unwrap(), published());
    assert_eq!(incoming.note(0..4).unwrap(), published());
    assert_eq!(incoming.write_at(0, b"more").unwrap_err().to_string(), "a is published already");
    incoming.abandon();
    assert!(incoming.is_published() && incoming.missing().is_empty());
    let given_up = begin("b");
    given_up.abandon();
    yard.assert_clean();
    assert_eq!(given_up.write_at(0, b"more").unwrap_err().to_string(), "b is no longer being received");
    assert!(given_up.note(0..1).is_err() && given_up.note(0..4).is_err());
    drop((incoming, given_up));
    assert_eq!(fs::read(yard.at("a")).unwrap(), b"once");
    assert!(!yard.at("b").exists());
    let mut no_time = meta(0, 1);
    no_time.identity.mtime.1 = 1_000_000_000;
    assert!(yard.store.begin(&mut Folders::default(), &path("c"), &no_time, OnExisting::Replace).is_err());
}

#[test]
fn one_that_nobody_holds_any_more_is_gone() {
    let yard = Yard::new();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let mut folders = Folders::default();
    for number in 0..200 {
        let incoming = yard.store.begin(&mut folders, &path(format!("d/{number}")), &meta(9, 1), OnExisting::Replace).unwrap();
        incoming.write_at(0, b"part").unwrap();
    }
    drop(folders);
    yard.assert_clean();
    // Other tests run beside this one.
    assert!(descriptors() < before + 100);
}

#[test]
fn a_hole_takes_no_room() {
    let yard = Yard::new();
    let mut meta = meta(1 << 30, 1);
    meta.is_sparse = true;
    let incoming = yard.store.begin(&mut Folders::default(), &path("a"), &meta, OnExisting::Replace).unwrap();
    incoming.write_at(1 << 20, b"x").unwrap();
    incoming.note(0..1 << 29).unwrap();
    assert_eq!(incoming.note(1 << 29..1 << 30).unwrap(), published());
    let about = fs::metadata(yard.at("a")).unwrap();
    assert!(about.len() == 1 << 30 && about.blocks() < 1024, "{} blocks", about.blocks());
}

#[test]
fn what_can_not_be_put_on_a_file_is_noted() {
    let yard = Yard::new();
    let mut meta = meta(0, 1);
    meta.attributes = Attributes {
        mode: 0o400,
        owner: Some((u32::MAX, 0)),
        xattrs: vec![(b"security.capability"[..].into(), b"x"[..].into()), (b"user.\xff"[..].into(), b"\0y"[..].into())],
    };
    let incoming = yard.store.begin(&mut Folders::default(), &path("a"), &meta, OnExisting::Replace).unwrap();
    let State::Published { note: Some(note) } = incoming.note(0..0).unwrap() else { panic!() };
    assert!(note.starts_with("could not set attribute security.capability: only those of users are kept"), "{note}");
    assert!(note.contains("could not set owner 4294967295:0: Invalid argument"), "{note}");
    let mut value = [0; 8];
    match rustix::fs::getxattr(yard.at("a"), OsStr::from_bytes(b"user.\xff"), &mut value) {
        Ok(len) => assert_eq!(value[..len], *b"\0y"),
        Err(_) => assert!(note.contains("user.\\xff")),
    }
    assert_eq!(fs::metadata(yard.at("a")).unwrap().mode() & 0o7777, 0o400);
}

// C03: a folder becomes a link to the outside and back, all the time.
#[test]
fn nothing_outside_changes_while_a_folder_flips() {
    let yard = Yard::new();
    fs::create_dir(yard.at("d")).unwrap();
    symlink(yard.outside(""), yard.at("link")).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            for _ in 0..10_000 {
                rustix::fs::renameat_with(CWD, yard.at("d"), CWD, yard.at("link"), flags).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        for number in 0.. {
            // Refused or put in the folder, wherever that is.
            let _ = yard.put(&format!("d/{number}"), b"x", OnExisting::Replace);
            if done.load(Ordering::Relaxed) {
                break;
            }
        }
    });
    assert_eq!(fs::read_dir(yard.outside("")).unwrap().count(), 0);
    yard.assert_clean();
}
