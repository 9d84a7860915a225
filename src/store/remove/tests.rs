//! Tests of what is removed, and of what must not be.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags};

use super::super::yard::{BLOCK, Yard, is_root, leftovers, meta, path};
use super::super::{Folders, Incoming, Joined, Limits, OnExisting, State, take_umask};
use super::*;
use crate::digest::{Binding, Checksum};
use crate::entry::{Entry, Kind};

fn remove(yard: &Yard, name: &str, is_recursive: bool) -> Result<(), String> {
    yard.store.remove(&path(name), is_recursive, &mut || Ok(())).map_err(|error| error.to_string())
}

fn limited(prepare: impl FnOnce(&Yard)) -> Yard {
    let mut yard = Yard::new();
    prepare(&yard);
    yard.store.limit(Limits { bytes: 1 << 40, files: 1 << 40 }).unwrap();
    yard
}

fn used(yard: &Yard) -> (u64, u64) {
    let usage = yard.store.ledger().unwrap().usage();
    (usage.bytes, usage.files)
}

/// Fails unless the ledger says what a fresh count finds, which is given.
fn counted(yard: &Yard) -> (u64, u64) {
    let counted = usage::count(yard.store.root.as_fd()).unwrap();
    assert_eq!(used(yard), (counted.bytes, counted.files));
    used(yard)
}

fn names_outside(yard: &Yard) -> usize {
    walkdir::WalkDir::new(yard.outside("")).into_iter().map(Result::unwrap).count()
}

// C03 C09
#[test]
fn what_is_named_goes_and_what_links_point_to_stays() {
    let yard = limited(|yard| {
        fs::write(yard.outside("kept"), "x").unwrap();
        fs::create_dir_all(yard.at("full/empty")).unwrap();
        for name in ["file", "full/file"] {
            fs::write(yard.at(name), "12345").unwrap();
            fs::set_permissions(yard.at(name), Permissions::from_mode(0o000)).unwrap();
        }
        symlink(yard.outside(""), yard.at("link")).unwrap();
        symlink(yard.outside(""), yard.at("full/link")).unwrap();
        symlink("nowhere", yard.at("full/dangling")).unwrap();
    });
    for (name, is_recursive, why) in [
        ("missing", false, "can't remove missing: No such file or directory (os error 2)"),
        ("missing/x", true, "can't open missing: No such file or directory (os error 2)"),
        ("link/kept", false, "link is a symbolic link, or below one"),
        ("link/kept", true, "link is a symbolic link, or below one"),
        ("file/x", true, "file is not a folder, or below something that is not"),
        ("full", false, "full is a folder that is not empty"),
    ] {
        assert_eq!(remove(&yard, name, is_recursive).unwrap_err(), why);
    }
    let root = yard.store.remove(&RemotePath::root(), true, &mut || Ok(())).unwrap_err().to_string();
    assert!(root.ends_with("is the root"), "{root}");
    for (name, is_recursive) in [("link", true), ("file", false), ("full/empty", false), ("full/link", false), ("full", true)] {
        remove(&yard, name, is_recursive).unwrap();
        assert!(yard.at(name).symlink_metadata().is_err());
        counted(&yard);
    }
    assert_eq!((counted(&yard), names_outside(&yard)), ((0, 0), 2));
}

// C10: deeper than a path may be long, so that it can be named but by its top.
#[test]
fn a_tree_deeper_than_a_path_goes_with_one_folder_open() {
    let yard = Yard::new();
    fs::create_dir(yard.at("d")).unwrap();
    let mut top = jail::open_readable(yard.store.root.as_fd(), Path::new("d")).unwrap();
    for _ in 0..2100 {
        fs::write(format!("/proc/self/fd/{}/f", std::os::fd::AsRawFd::as_raw_fd(&top)), "").unwrap();
        jail::make_directory(top.as_fd(), OsStr::new("x"), 0o700).unwrap();
        top = jail::open_child(top.as_fd(), OsStr::new("x")).unwrap();
    }
    drop(top);
    // The stack of a thread of the receiver.
    let yard = &yard;
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(128 * 1024);
        thread.spawn_scoped(scope, || remove(yard, "d", true).unwrap()).unwrap().join().unwrap();
    });
    assert!(!yard.at("d").exists());
}

// C19
#[test]
fn a_wide_tree_goes_in_several_rounds() {
    let yard = limited(|yard| {
        for number in 0..750 {
            let folder = yard.at(format!("d/folder of some name {number}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("file"), "12").unwrap();
            fs::write(yard.at(format!("d/file {number}")), "1").unwrap();
        }
    });
    let mut calls = 0;
    let told = yard.store.remove(&path("d"), true, &mut || {
        calls += 1;
        if calls == 1500 { Err(io::Error::other("enough")) } else { Ok(()) }
    });
    assert_eq!(told.unwrap_err().to_string(), "can't remove d: enough");
    let (_, files) = counted(&yard);
    assert!(files > 0 && files < 1500, "{files}");
    remove(&yard, "d", true).unwrap();
    assert!(!yard.at("d").exists());
    assert_eq!(counted(&yard), (0, 0));
}

// C15
#[test]
fn what_can_not_be_removed_is_told_and_the_rest_goes() {
    let yard = limited(|yard| {
        for name in ["a", "b/1", "b/2", "b/c/3", "d/4"] {
            let file = yard.at("t").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "1234").unwrap();
        }
        // As it was received.
        fs::set_permissions(yard.at("t/d"), Permissions::from_mode(0o555)).unwrap();
        fs::set_permissions(yard.at("t/b/c"), Permissions::from_mode(0o000)).unwrap();
    });
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(yard.at("t/b/c")).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED C15: can't mount a tmpfs here");
        remove(&yard, "t", true).unwrap();
        return;
    }
    let left = yard.store.remove(&path("t"), true, &mut || Ok(()));
    let unmounted = std::process::Command::new("umount").arg(yard.at("t/b/c")).output().unwrap();
    assert!(unmounted.status.success());
    let left = left.unwrap_err();
    assert_eq!((left.to_string().as_str(), left.more), ("can't remove t/b/c: Device or resource busy (os error 16)", 0));
    assert_eq!(counted(&yard), (4, 1));
    remove(&yard, "t", true).unwrap();
    assert_eq!(counted(&yard), (0, 0));
}

// C03: a folder becomes a link to another tree, over and over, while it is being removed.
#[test]
fn a_folder_that_becomes_a_link_half_way_leads_nowhere() {
    let yard = Yard::new();
    for number in 0..200 {
        fs::write(yard.outside(&format!("{number}")), "").unwrap();
    }
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            symlink(yard.outside(""), yard.at("link")).unwrap();
            while !ended.load(Ordering::Relaxed) {
                for name in ["t/a", "t/a/b"] {
                    let _ = rustix::fs::renameat_with(CWD, yard.at("link"), CWD, yard.at(name), RenameFlags::EXCHANGE);
                }
            }
        });
        for _ in 0..200 {
            for name in ["t/a/b", "t/a/c"] {
                if fs::create_dir_all(yard.at(name)).is_ok() {
                    for number in 0..5 {
                        let _ = jail::create_file(yard.store.root.as_fd(), &path(format!("{name}/new{number}")), 0o600);
                    }
                }
            }
            let _ = remove(&yard, "t", true);
        }
        ended.store(true, Ordering::Relaxed);
    });
    let _ = remove(&yard, "t", true);
    let left = (0..200).filter(|number| yard.outside(&number.to_string()).exists()).count();
    assert_eq!(left, 200);
}

fn join(yard: &Yard, name: &str, size: u64) -> std::sync::Arc<Incoming> {
    match yard.store.join(&mut Folders::default(), &path(name), &meta(size, 1), OnExisting::Replace, &mut || Ok(())).unwrap() {
        Joined::Incoming(incoming) => incoming,
        Joined::Had => panic!("{name} is there"),
    }
}

/// One of which a block came.
fn begun(yard: &Yard, name: &str) -> std::sync::Arc<Incoming> {
    let incoming = join(yard, name, 3 * BLOCK);
    let mut blocks = incoming.begin_blocks(Binding::of(b"x"), Checksum::Xxh3);
    blocks.write(0, &[7; BLOCK as usize], &[1; 16]).unwrap();
    drop(blocks);
    assert_eq!(incoming.note(0..BLOCK).unwrap(), State::Stored);
    incoming
}

// C16 D07
#[test]
fn what_is_being_received_stays_and_what_interrupted_runs_left_goes_with_its_folder() {
    for is_recursive in [false, true] {
        let yard = limited(|_| {});
        let incoming = begun(&yard, "d/e/a");
        let one = yard.store.begin(&mut Folders::default(), &path("d/f/b"), &meta(3, 1), OnExisting::Replace).unwrap();
        for name in ["d/e", "d/f"] {
            assert_eq!(
                remove(&yard, name, is_recursive).unwrap_err(),
                format!("{name} is a folder in which something is being received")
            );
        }
        let both = yard.store.remove(&path("d"), true, &mut || Ok(())).unwrap_err();
        assert_eq!(both.more, 1);
        one.write_at(0, b"one").unwrap();
        one.note(0..3).unwrap();
        drop(incoming);
        assert_eq!(leftovers(&yard.at("")).len(), 2);
        assert_eq!(counted(&yard), (BLOCK + 3, 2));
        remove(&yard, "d/e", is_recursive).unwrap();
        assert_eq!(counted(&yard), (3, 1));
        remove(&yard, "d", true).unwrap();
        assert_eq!(counted(&yard), (0, 0));
        yard.assert_clean();
    }
}

// D07
#[test]
fn names_of_one_file_count_until_the_last_is_gone() {
    let yard = limited(|yard| {
        fs::create_dir(yard.at("d")).unwrap();
        fs::write(yard.at("d/one"), "12345").unwrap();
        fs::hard_link(yard.at("d/one"), yard.at("d/two")).unwrap();
        fs::hard_link(yard.at("d/one"), yard.at("three")).unwrap();
    });
    assert_eq!(counted(&yard), (5, 1));
    remove(&yard, "d", true).unwrap();
    assert_eq!(counted(&yard), (5, 1));
    remove(&yard, "three", false).unwrap();
    assert_eq!(counted(&yard), (0, 0));
}

// D07: one who is to replace it was promised its room.
#[test]
fn what_was_to_be_replaced_and_is_removed_is_charged_to_whoever_comes() {
    let mut yard = limited(|yard| fs::write(yard.at("a"), [0; 8]).unwrap());
    yard.store.limit(Limits { bytes: 10, files: 9 }).unwrap();
    let incoming = yard.store.begin(&mut Folders::default(), &path("a"), &meta(9, 1), OnExisting::Replace).unwrap();
    assert_eq!(used(&yard), (9, 1));
    remove(&yard, "a", false).unwrap();
    assert_eq!(used(&yard), (9, 1));
    incoming.write_at(0, &[1; 9]).unwrap();
    incoming.note(0..9).unwrap();
    assert_eq!(counted(&yard), (9, 1));
}

// D07: nothing else counts, so that nothing hides what is given back too early.
#[test]
fn what_is_removed_the_moment_it_has_its_name_counts_neither_twice_nor_never() {
    let yard = limited(|_| {});
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let _ = remove(&yard, "a", false);
            }
        });
        for _ in 0..2000 {
            yard.put("a", b"123456789", OnExisting::Replace).unwrap();
        }
        ended.store(true, Ordering::Relaxed);
    });
    counted(&yard);
}

// D02 D07
#[test]
fn whatever_comes_goes_and_is_renamed_at_once_the_ledger_says_what_is_there() {
    let yard = limited(|_| {});
    let (yard, sizes) = (&yard, AtomicU64::new(1));
    let name = |thread: u64, turn: u64| format!("d{}/f{}", (thread + turn) % 3, turn % 4);
    thread::scope(|scope| {
        for thread in 0..3 {
            let sizes = &sizes;
            scope.spawn(move || {
                for turn in 0..400 {
                    let size = sizes.fetch_add(1, Ordering::Relaxed) % 50;
                    let _ = yard.put(&name(thread, turn), &vec![b'x'; size as usize], OnExisting::Replace);
                }
            });
        }
        scope.spawn(|| {
            for turn in 0..400 {
                let _ = yard.store.remove(&path(name(0, turn)), false, &mut || Ok(()));
                if turn % 10 == 0 {
                    let _ = yard.store.remove(&path(format!("d{}", turn % 3)), true, &mut || Ok(()));
                }
            }
        });
        scope.spawn(|| {
            for turn in 0..400 {
                let _ = yard.store.rename(&path(name(1, turn)), &path(name(2, turn + 1)));
                let _ = yard.store.rename(&path(name(1, turn)), &path(format!("moved{}", turn % 5)));
            }
        });
        scope.spawn(|| {
            for turn in 0..200 {
                let mut pending = super::super::Pending::default();
                let kind = Kind::HardLink { to: path(name(0, turn)) };
                pending.add(&Entry { path: path(name(1, turn + 2)), kind, attributes: meta(0, 0).attributes }).unwrap();
                pending.apply(&yard.store, &std::sync::Arc::default(), OnExisting::Replace, &mut |_| {}).unwrap();
            }
        });
    });
    yard.assert_clean();
    counted(yard);
    for name in ["d0", "d1", "d2", "moved0", "moved1", "moved2", "moved3", "moved4"] {
        let _ = remove(yard, name, true);
    }
    assert_eq!(counted(yard), (0, 0));
}

// C15
#[test]
fn a_folder_of_somebody_else_is_not_opened_up() {
    if is_root() {
        println!("SKIPPED C15: root may look into every folder");
        return;
    }
    let yard = Yard::new();
    fs::create_dir_all(yard.at("d/e")).unwrap();
    fs::write(yard.at("d/e/f"), "").unwrap();
    fs::set_permissions(yard.at("d"), Permissions::from_mode(0o500)).unwrap();
    // It is in a folder that stays: that is as it is.
    assert_eq!(remove(&yard, "d/e", true).unwrap_err(), "can't remove d/e: Permission denied (os error 13)");
    assert_eq!(fs::metadata(yard.at("d")).unwrap().mode() & 0o777, 0o500);
    remove(&yard, "d", true).unwrap();
    let _ = take_umask();
}
