//! Second runs, what is at the target already, and sources that change while they are sent.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a test is no peer, and says what it skips")]
mod common;

use std::fs;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::judge::*;
use common::link::Link;
use common::sender::*;
use common::*;

#[test]
fn an_unchanged_tree_is_not_sent_again_and_a_changed_file_alone_is() {
    let source = temp_dir();
    make_awkward_tree(source.path());
    in_each_way(|way| {
        let flags = ["--length", "500000"];
        let first = Ended::of(&mut way.send(source.path(), &flags)).expect(0);
        assert!(first.sent() > 3_000_000 && first.number("unchanged_files") == 0);
        let inode = || fs::metadata(way.target.join("a/large")).unwrap().ino();
        let before = inode();
        let second = Ended::of(&mut way.send(source.path(), &flags)).expect(0);
        assert_eq!((second.sent(), second.number("unchanged_files")), (0, first.number("files")), "{}", way.name);
        assert_eq!((second.number("files"), inode()), (first.number("files"), before), "{}", way.name);
        assert_kept_in(source.path(), &way.target, |_| false);

        write(&source.path().join("a/small"), way.name);
        let third = Ended::of(&mut way.send(source.path(), &flags)).expect(0);
        assert_eq!((third.sent(), inode()), (way.name.len() as u64, before), "{}", way.name);
        assert_kept_in(source.path(), &way.target, |_| false);
    });
    open_up(source.path());
}

#[test]
fn a_second_run_costs_few_bytes_on_the_wire() {
    let (source, root) = (temp_dir(), temp_dir());
    for index in 0..200 {
        write(&source.path().join(format!("d{}/f{index}", index % 7)), noise(20_000, index));
    }
    let recv = Recv::start(root.path());
    for flags in [&["--plain"][..], &[]] {
        let sent = |expected: u64| {
            let link = Link::to(recv.port);
            let ended = Ended::of(&mut send_to(link.port, source.path(), "in", flags)).expect(0);
            assert_eq!(ended.sent(), expected);
            link.forth()
        };
        assert!(sent(4_000_000) > 4_000_000);
        assert!(sent(0) < 100 * 200, "more than some bytes a file");
        fs::remove_dir_all(root.path().join("in")).unwrap();
    }
}

#[test]
fn modes_and_times_that_alone_are_other_are_put_right_without_content() {
    let source = temp_dir();
    make_tree(source.path());
    symlink("one byte", source.path().join("link")).unwrap();
    in_each_way(|way| {
        Ended::of(&mut way.send(source.path(), &[])).expect(0);
        // At the source, and behind our back at the target.
        for (top, name, mode) in [
            (source.path(), "a/large", 0o640),
            (source.path(), "exact", 0o444),
            (source.path(), "hollow", 0o711),
            (&way.target, "a/small", 0o777),
            (&way.target, "empty", 0o000),
            (&way.target, "a/b", 0o700),
        ] {
            set_mode(&top.join(name), mode);
        }
        for name in ["link", "a"] {
            set_mtime(&way.target.join(name), 77, 88);
        }
        let ended = Ended::of(&mut way.send(source.path(), &[])).expect(0);
        assert_eq!(ended.sent(), 0, "{}", way.name);
        assert_kept_in(source.path(), &way.target, |_| false);
    });
}

#[test]
fn a_target_with_another_time_or_size_is_replaced_and_the_rest_of_the_folder_stays() {
    let source = temp_dir();
    write(&source.path().join("time"), "same");
    write(&source.path().join("size"), "same");
    in_each_way(|way| {
        Ended::of(&mut way.send(source.path(), &[])).expect(0);
        write(&way.target.join("size"), "altered");
        write(&way.target.join("more"), "not ours");
        let about = fs::metadata(source.path().join("size")).unwrap();
        set_mtime(&way.target.join("size"), about.mtime(), about.mtime_nsec());
        set_mtime(&way.target.join("time"), about.mtime(), about.mtime_nsec() ^ 1);
        let ended = Ended::of(&mut way.send(source.path(), &[])).expect(0);
        assert_eq!(ended.sent(), 8, "{}", way.name);
        assert_eq!(fs::read(way.target.join("more")).unwrap(), b"not ours");
        assert_kept_in(source.path(), &way.target, |path| path == Path::new("more"));
    });
}

/// Reads a file over and over until told to stop; gives how often each of the contents was seen.
fn read_on<'scope>(
    scope: &'scope thread::Scope<'scope, '_>, path: PathBuf, contents: &'scope [Vec<u8>], stop: &'scope AtomicBool,
) -> thread::ScopedJoinHandle<'scope, Vec<usize>> {
    scope.spawn(move || {
        let mut seen = vec![0; contents.len()];
        while !stop.load(Ordering::SeqCst) {
            let read = fs::read(&path).unwrap_or_else(|error| panic!("it was gone for a moment: {error}"));
            let which = contents.iter().position(|content| *content == read);
            seen[which.unwrap_or_else(|| panic!("half a file: {} bytes", read.len()))] += 1;
        }
        seen
    })
}

// C16
#[test]
fn a_reader_sees_the_old_or_the_new_file_and_never_a_part() {
    let contents = [noise(3_000_000, 1), noise(2_500_000, 2)];
    in_each_way(|way| {
        let source = temp_dir();
        let file = source.path().join("file");
        write(&file, &contents[0]);
        Ended::of(&mut way.send(&file, &[])).expect(0);
        let held = fs::File::open(way.target.join("file")).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = read_on(scope, way.target.join("file"), &contents, &stop);
            for round in 1..6 {
                write(&file, &contents[round % 2]);
                set_mtime(&file, 1000 + round as i64, 0);
                Ended::of(&mut way.send(&file, &["--length", "300000"])).expect(0);
            }
            stop.store(true, Ordering::SeqCst);
            assert!(reader.join().unwrap().iter().sum::<usize>() > 0);
        });
        // Who had it open still has the old one whole.
        assert_eq!(held.metadata().unwrap().len(), 3_000_000);
        assert!(fs::read(way.target.join("file")).unwrap() == contents[1]);
    });
}

// F11, C16
#[test]
fn of_two_senders_to_one_name_one_arrives_whole() {
    // The same size and time: nothing but the source tells them apart.
    let contents = [noise(3_000_000, 1), noise(3_000_000, 2)];
    let sources = [temp_dir(), temp_dir()];
    for (source, content) in sources.iter().zip(&contents) {
        write(&source.path().join("file"), content);
        set_mtime(&source.path().join("file"), 1_700_000_000, 5);
    }
    let one = ["--length", "100000", "--process_num", "1", "--thread_num", "1"];
    for flags in [&[&one[..], &["--plain"]].concat()[..], &one] {
        let root = temp_dir();
        let recv = Recv::start(root.path());
        let link = Link::holding(recv.port, 1_500_000);
        thread::scope(|scope| {
            let send = |source: &TempDir| Ended::of(&mut send_to(link.port, &source.path().join("file"), "in", flags)).expect(0);
            let runs: Vec<_> = sources.iter().map(|source| scope.spawn(move || send(source))).collect();
            link.wait_until_it_holds();
            wait_until("both are being received", || leftovers(root.path()).len() >= 2);
            link.release();
            runs.into_iter().for_each(|run| drop(run.join().unwrap()));
        });
        let arrived = fs::read(recv.path("in/file")).unwrap();
        assert!(contents.contains(&arrived), "a mixture of two files");
        assert_eq!(list(root.path()), ["in", "in/file"]);
    }
}

#[test]
fn what_is_replaced_is_kept_as_a_backup_when_asked_for() {
    let source = temp_dir();
    let long = "n".repeat(255);
    in_each_way(|way| {
        for (round, content) in ["old", "newer", "newest one"].into_iter().enumerate() {
            write(&source.path().join("d/file"), content);
            write(&source.path().join(&long), content);
            write(&source.path().join("unchanged"), "the same");
            set_mtime(&source.path().join("unchanged"), 5, 5);
            let flags = if round == 0 { &[][..] } else { &["--backup"] };
            Ended::of(&mut way.send(source.path(), flags)).expect(0);
            assert_eq!(fs::read_to_string(way.target.join("d/file")).unwrap(), content);
        }
        let names = list(&way.target);
        let backups: Vec<_> = names.iter().filter_map(|name| name.strip_prefix("d/file_")).collect();
        for backup in &backups {
            let (seconds, fraction) = backup.split_once('.').unwrap();
            assert!(seconds.parse::<u64>().unwrap() > 1_600_000_000 && fraction.parse::<u64>().is_ok(), "{backup}");
        }
        let mut kept: Vec<_> =
            backups.iter().map(|backup| fs::read_to_string(way.target.join(format!("d/file_{backup}"))).unwrap()).collect();
        kept.sort();
        assert_eq!(kept, ["newer", "old"], "{}", way.name);
        // C10: the name gives way where there is no room for it.
        let of_long = names.iter().filter(|name| name.starts_with("nnn") && **name != long);
        assert!(of_long.clone().all(|name| name.len() <= 255) && of_long.count() == 2);
        assert!(!names.iter().any(|name| name.starts_with("unchanged_")), "{names:?}");
    });
}

// C03
#[test]
fn a_link_at_the_target_is_replaced_and_never_followed() {
    let source = temp_dir();
    let names = ["outside", "inside", "dangling", "loop", "folder", "mem"];
    for name in names {
        write(&source.path().join(name), noise(400_000, 1));
        write(&source.path().join("small").join(name), name);
    }
    in_each_way(|way| {
        let outside = temp_dir();
        write(&outside.path().join("secret"), "secret");
        write(&way.target.join("kept"), "kept");
        fs::create_dir(way.target.join("small")).unwrap();
        let targets = [
            outside.path().join("secret"),
            "kept".into(),
            "no/where".into(),
            "loop".into(),
            outside.path().into(),
            "/proc/self/mem".into(),
        ];
        for (name, target) in names.into_iter().zip(&targets) {
            symlink(target, way.target.join(name)).unwrap();
            symlink(target, way.target.join("small").join(name)).unwrap();
        }
        Ended::of(&mut way.send(source.path(), &["--length", "100000"])).expect(0);
        assert_eq!(fs::read(way.target.join("kept")).unwrap(), b"kept");
        assert_kept_in(source.path(), &way.target, |path| path == Path::new("kept"));
        assert_eq!(list(outside.path()), ["secret"]);
        assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    });
}

// C03
#[test]
fn a_link_as_a_parent_is_refused_by_name_and_the_rest_arrives() {
    let source = temp_dir();
    for name in ["out/file", "out/large", "inside/file", "good/file"] {
        write(&source.path().join(name), noise(if name.ends_with("large") { 500_000 } else { 10 }, 1));
    }
    symlink("x", source.path().join("out/link")).unwrap();
    in_each_way(|way| {
        let outside = temp_dir();
        fs::create_dir_all(way.target.join("real")).unwrap();
        symlink(outside.path(), way.target.join("out")).unwrap();
        symlink("real", way.target.join("inside")).unwrap();
        let ended = Ended::of(&mut way.send(source.path(), &["--length", "100000"])).expect(3);
        let failed = ended.failed();
        for name in ["out/file", "out/large", "out/link", "inside/file"] {
            assert!(failed.contains(name), "{}: {name} is not among {failed:?}", way.name);
        }
        assert!(failed.iter().all(|name| name.starts_with("out") || name.starts_with("inside")), "{failed:?}");
        assert!(ended.said.contains("symbolic link"), "{}", ended.said);
        assert_eq!((list(outside.path()), list(&way.target.join("real"))), (vec![], vec![]));
        assert_eq!(fs::read(way.target.join("good/file")).unwrap(), noise(10, 1));
    });
}

// C09, C16
#[test]
fn a_folder_where_a_file_should_go_and_the_reverse_are_refused_by_name() {
    let source = temp_dir();
    for name in ["file", "large", "folder/x", "good"] {
        write(&source.path().join(name), noise(if name == "large" { 500_000 } else { 10 }, 1));
    }
    symlink("x", source.path().join("link")).unwrap();
    in_each_way(|way| {
        for name in ["file", "large", "link"] {
            write(&way.target.join(name).join("within"), name);
        }
        write(&way.target.join("folder"), "a file");
        for flags in [&["--length", "100000"][..], &["--length", "100000", "--backup"]] {
            let ended = Ended::of(&mut way.send(source.path(), flags)).expect(3);
            let expected = ["file", "folder", "folder/x", "large", "link"].map(str::to_owned).into();
            assert_eq!(ended.failed(), expected, "{}: {}", way.name, ended.said);
            assert!(ended.said.contains("is a folder") && ended.said.contains("is not a folder"), "{}", ended.said);
            for name in ["file", "large", "link"] {
                assert_eq!(fs::read_to_string(way.target.join(name).join("within")).unwrap(), name);
            }
            assert_eq!(fs::read(way.target.join("folder")).unwrap(), b"a file");
            assert_eq!(fs::read(way.target.join("good")).unwrap(), noise(10, 1));
        }
    });
}

// C16, C09
#[test]
fn a_read_only_file_and_a_fifo_at_the_target_are_replaced() {
    let source = temp_dir();
    for name in ["read only", "fifo", "socket"] {
        write(&source.path().join(name), noise(300_000, 1));
    }
    in_each_way(|way| {
        write(&way.target.join("read only"), "old");
        set_mode(&way.target.join("read only"), 0o400);
        rustix::fs::mknodat(rustix::fs::CWD, way.target.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        drop(std::os::unix::net::UnixListener::bind(way.target.join("socket")).unwrap());
        Ended::of(&mut way.send(source.path(), &["--length", "100000"])).expect(0);
        assert_kept_in(source.path(), &way.target, |_| false);
    });
}

/// A file that a relay can hold most of back: the kernel takes 4 MiB of each connection.
const LONG: usize = 16 << 20;

/// What becomes of a source file while it is sent.
type Change = (&'static str, fn(&Path));

const CHANGES: [Change; 6] = [
    ("grows", |path| fs::OpenOptions::new().append(true).open(path).unwrap().write_all(&noise(1 << 20, 9)).unwrap()),
    ("shrinks", |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1000).unwrap()),
    ("is written to", |path| {
        let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.seek(std::io::SeekFrom::Start(5 << 20)).unwrap();
        file.write_all(&noise(1 << 20, 8)).unwrap();
    }),
    ("is replaced", |path| {
        let other = path.with_extension("new");
        write(&other, noise(LONG, 7));
        fs::rename(other, path).unwrap();
    }),
    ("is rewritten with the same size and time", |path| {
        let about = fs::metadata(path).unwrap();
        let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all(&noise(LONG, 6)).unwrap();
        set_mtime(path, about.mtime(), about.mtime_nsec());
    }),
    ("is replaced by one of the same size and time", |path| {
        let (about, other) = (fs::metadata(path).unwrap(), path.with_extension("new"));
        write(&other, noise(LONG, 5));
        set_mtime(&other, about.mtime(), about.mtime_nsec());
        fs::rename(other, path).unwrap();
    }),
];

/// In one range, which is in the middle of being read; in ranges of which some were confirmed.
const CUTS: [&[&str]; 3] = [
    &["--plain", "--length", "64M", "--process_num", "1", "--thread_num", "1"],
    &["--length", "64M", "--process_num", "1", "--thread_num", "1"],
    &["--length", "1M", "--process_num", "1", "--thread_num", "2"],
];

// C20
#[test]
fn a_source_that_changes_once_is_sent_anew_as_it_is_then() {
    for (what, change) in CHANGES {
        for flags in CUTS {
            let (source, root) = (temp_dir(), temp_dir());
            let recv = Recv::start(root.path());
            let file = source.path().join("file");
            write(&file, noise(LONG, 1));
            let ended = send_while(&recv, &file, "in", flags, change);
            assert_eq!(ended.code, Some(0), "{what} {flags:?}: {}", ended.said);
            assert!(ended.said.contains("changed"), "{what} {flags:?}: {}", ended.said);
            let arrived = fs::read(recv.path("in/file")).unwrap();
            assert!(arrived == fs::read(&file).unwrap(), "{what} {flags:?}: another content");
            assert_eq!(list(root.path()), ["in", "in/file"], "{what} {flags:?}");
        }
    }
}

// C20
#[test]
fn a_source_that_vanishes_is_named_and_the_old_target_stays() {
    for flags in CUTS {
        let (source, root) = (temp_dir(), temp_dir());
        let recv = Recv::start(root.path());
        let file = source.path().join("file");
        write(&file, noise(LONG, 1));
        write(&recv.path("in/file"), "old");
        let ended = send_while(&recv, &file, "in", flags, |path| fs::remove_file(path).unwrap());
        ended.expect_failed(&["file"], "");
        assert_eq!(fs::read(recv.path("in/file")).unwrap(), b"old", "{flags:?}");
        assert_eq!(list(root.path()), ["in", "in/file"], "{flags:?}");
    }
}

// C20
#[test]
fn a_source_that_keeps_changing_is_named_and_never_mixed() {
    for flags in CUTS {
        let (source, root) = (temp_dir(), temp_dir());
        let recv = Recv::start(root.path());
        let file = source.path().join("file");
        write(&file, vec![0; LONG]);
        write(&recv.path("in/file"), "old");
        let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
        let ended = thread::scope(|scope| {
            scope.spawn(|| {
                // Every version is of one byte alone: a mixture would show.
                for version in (1..=250u8).cycle() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let mut open = fs::OpenOptions::new().write(true).open(&file).unwrap();
                    open.write_all(&vec![version; LONG]).unwrap();
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            });
            let slow = Link::with(recv.port, |_| link::Knobs { delay: Some(Duration::from_micros(300)), ..Default::default() });
            wait_until("it changes", || rounds.load(Ordering::SeqCst) > 2);
            let ended = Ended::of(&mut send_to(slow.port, &file, "in", flags));
            stop.store(true, Ordering::SeqCst);
            ended
        });
        ended.expect_failed(&["file"], "changed");
        assert_eq!(fs::read(recv.path("in/file")).unwrap(), b"old", "{flags:?}");
        assert_eq!(list(root.path()), ["in", "in/file"], "{flags:?}");
    }
}

// C20
#[test]
fn files_that_become_something_else_are_named_and_the_others_arrive() {
    let becomings: [Change; 3] = [
        ("a link", |path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
        ("a folder", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a FIFO", |path| {
            fs::remove_file(path).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        }),
    ];
    for (what, change) in becomings {
        let (source, root) = (temp_dir(), temp_dir());
        let recv = Recv::start(root.path());
        for index in 0..6 {
            write(&source.path().join(format!("f{index}")), noise(2 << 20, index));
        }
        let flags = ["--length", "1M", "--process_num", "1", "--thread_num", "1"];
        let ended = send_while(&recv, source.path(), "in", &flags, |top| {
            (0..6).for_each(|index| change(&top.join(format!("f{index}"))));
        })
        .expect(3);
        let failed = ended.failed();
        assert!((2..=6).contains(&failed.len()), "{what}: {failed:?}");
        for index in 0..6 {
            let (name, arrived) = (format!("f{index}"), recv.path("in").join(format!("f{index}")));
            let is_there = fs::read(&arrived).is_ok_and(|read| read == noise(2 << 20, index));
            assert!(is_there != failed.contains(&name), "{what}: {name}");
            assert!(is_there || !arrived.exists(), "{what}: {name}");
        }
        assert_eq!(leftovers(root.path()), [""; 0], "{what}");
    }
}

// C20: on this machine, where nothing can be held, many are changed while they are copied.
#[test]
fn a_local_copy_of_what_is_written_to_meanwhile_is_never_mixed() {
    let (source, beside, target) = (temp_dir(), temp_dir(), temp_dir());
    let names: Vec<_> = (0..12).map(|index| format!("f{index}")).collect();
    for name in &names {
        write(&source.path().join(name), vec![0; 2 << 20]);
    }
    let stop = AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            for (round, name) in (1usize..).zip(names.iter().cycle()) {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                // At once: no version is a mixture of its own.
                let other = beside.path().join("new");
                fs::write(&other, vec![(round % 250) as u8; 2 << 20]).unwrap();
                fs::rename(other, source.path().join(name)).unwrap();
            }
        });
        let ended = Ended::of(&mut copy_to(source.path(), target.path(), &["--length", "300000"]));
        stop.store(true, Ordering::SeqCst);
        ended
    });
    assert!(matches!(ended.code, Some(0 | 3)), "{}", ended.said);
    let failed = ended.failed();
    for name in &names {
        match fs::read(target.path().join(name)) {
            Ok(read) => assert!(read.len() == 2 << 20 && read.iter().all(|&byte| byte == read[0]), "{name} is mixed"),
            Err(_) => assert!(failed.contains(name), "{name} is neither there nor named"),
        }
    }
    assert_eq!(leftovers(target.path()), [""; 0]);
}
