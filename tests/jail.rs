//! What a peer may name, and what the receiver then touches: never anything outside its root.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "rows that are skipped are named")]
mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use common::yard::*;
use common::*;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags};

// C01
#[test]
fn a_path_with_more_than_plain_names_is_refused() {
    let mut yard = Yard::new();
    let own = yard.root().to_str().unwrap().to_owned();
    let inside_own = [format!("{own}/../sentinel"), format!("{own}//x"), format!("{own}/./x"), format!("{own}/..")];
    let plain = [
        "..",
        ".",
        "../sentinel",
        "../outside/x",
        "a/../../b",
        "a/..",
        "..//",
        "//x",
        "/../x",
        "/..",
        "/.",
        "./x",
        "x/.",
        "x/./y",
        "a//b",
        "/in//",
        "x/../x",
        "//",
        "/a/../../outside/x",
    ];
    for name in plain.into_iter().chain(inside_own.iter().map(|name| &name[..])) {
        yard.refuses_all(name, &format!("'{name}'"));
        assert!(yard.names().is_empty(), "{name}");
    }
}

// C01
#[test]
fn a_backslash_and_a_long_row_of_dots_are_names_like_others() {
    let mut yard = Yard::new();
    for name in ["\\..\\x", "...", "....", "..a", "a..", "~", "C:\\x", "\\"] {
        yard.stores(name, name.as_bytes());
        assert_eq!(fs::read(yard.recv.path(name)).unwrap(), name.as_bytes());
    }
    assert_eq!(yard.names().len(), 8);
}

// C01: several names in one list
#[test]
fn one_bad_name_in_a_list_fails_it_and_nothing_lands_outside() {
    let mut yard = Yard::new();
    yard.refuses(&cd("in\n../outside/new\nin/more"), "'../outside/new'");
    yard.refuses(&cf("in/x\n../outside/sentinel"), "'../outside/sentinel'");
}

// C02
#[test]
fn a_neighbour_whose_name_begins_like_the_root_is_out_of_reach() {
    let mut yard = Yard::new();
    let neighbour = yard.outside("root2");
    let neighbour = neighbour.to_str().unwrap();
    yard.refuses_all("../root2/x", "'../root2/x'");
    // An absolute path that is not inside the root's own means one below the root.
    yard.stores(format!("{neighbour}/sentinel"), b"new");
    assert_eq!(fs::read(yard.recv.path(&neighbour[1..]).join("sentinel")).unwrap(), b"new");
    assert_eq!(yard.recv.raw(&cd(neighbour)), b"0");
    yard.expect_well();
}

#[test]
fn an_absolute_path_lands_below_the_root() {
    let mut yard = Yard::new();
    assert_eq!(yard.recv.raw(&cd("/etc/\n/\n/in")), b"0");
    yard.stores("/etc/passwd", b"mine");
    yard.stores("/x", b"top");
    assert_eq!(yard.names(), ["etc", "etc/passwd", "in", "x"]);
    assert_eq!(fs::read(yard.recv.path("etc/passwd")).unwrap(), b"mine");
}

#[test]
fn an_absolute_path_inside_the_roots_own_is_the_same_place_as_the_relative_one() {
    let mut yard = Yard::new();
    let own = yard.root().to_str().unwrap().to_owned();
    assert_eq!(yard.recv.raw(&cd(&format!("{own}/in/\n{own}\n{own}/"))), b"0");
    let names = [format!("{own}/in/x"), "in/x".to_owned(), "/in/x".to_owned()];
    assert_eq!(yard.recv.raw(&cf(&names[0])), b"0");
    for (offset, name) in names.iter().enumerate() {
        assert_eq!(yard.recv.raw(&wf(name, offset as u64, b"abc")), md5_hex(b"abc"));
    }
    assert_eq!(fs::read(yard.recv.path("in/x")).unwrap(), b"aaabc");
    assert_eq!(yard.names(), ["in", "in/x"]);
    yard.expect_well();
}

#[test]
fn with_a_root_named_by_a_link_the_links_path_is_the_roots_own() {
    let outer = temp_dir();
    fs::create_dir(outer.path().join("real")).unwrap();
    symlink("real", outer.path().join("link")).unwrap();
    let mut recv = Recv::start(&outer.path().join("link"));
    for top in ["real", "link"] {
        let path = outer.path().join(top).join(format!("by {top}"));
        assert_eq!(recv.raw(&cf(path.to_str().unwrap())), b"0");
    }
    recv.expect_idle();
    assert_eq!(list(&outer.path().join("real")), ["by link", "by real"]);
}

#[test]
fn with_the_whole_system_as_root_every_absolute_path_means_what_it_says() {
    let outer = temp_dir();
    let mut recv = Recv::start(Path::new("/"));
    let path = outer.path().join("in/x");
    let name = path.to_str().unwrap();
    assert_eq!(recv.raw(&[cf(name), wf(name, 0, b"abc")].concat()), stored(b"abc"));
    assert_eq!(fs::read(&path).unwrap(), b"abc");
    recv.expect_idle();
}

// C03
#[test]
fn a_link_at_the_end_of_a_path_is_neither_followed_nor_replaced() {
    let mut yard = Yard::prepared(|root| write(&root.join("file"), "old"));
    fs::create_dir(yard.recv.path("folder")).unwrap();
    let targets = [
        ("outside file", yard.outside("sentinel")),
        ("outside file, relative", "../sentinel".into()),
        ("outside folder", yard.outside("outside")),
        ("inside file", "file".into()),
        ("inside folder", "folder".into()),
        ("root", ".".into()),
        ("dangling", "missing".into()),
        ("dangling outside", yard.outside("missing")),
        ("loop", "loop".into()),
        ("memory", "/proc/self/mem".into()),
        ("descriptor", "/proc/self/fd/2".into()),
        ("magic", "/proc/self/root".into()),
        ("device", "/dev/null".into()),
    ];
    for (name, target) in &targets {
        symlink(target, yard.recv.path(name)).unwrap();
    }
    for (name, target) in &targets {
        yard.refuses_all(name, &format!("'{name}'"));
        yard.refuses(&cd(&format!("{name}/")), &format!("'{name}/'"));
        assert_eq!(&fs::read_link(yard.recv.path(name)).unwrap(), target);
    }
    let mut names: Vec<_> = targets.iter().map(|(name, _)| *name).chain(["file", "folder"]).collect();
    names.sort_unstable();
    assert_eq!(yard.names(), names);
    assert_eq!(fs::read(yard.recv.path("file")).unwrap(), b"old");
}

// C03
#[test]
fn a_link_as_a_parent_is_not_followed() {
    let mut yard = Yard::new();
    let outside = yard.outside("outside");
    write(&yard.recv.path("folder/x"), "old");
    for (link, target) in [
        ("out", outside.as_path()),
        ("within", Path::new("folder")),
        ("up", Path::new("..")),
        ("proc", Path::new("/proc/self/root/tmp")),
    ] {
        symlink(target, yard.recv.path(link)).unwrap();
        symlink(Path::new("..").join(target), yard.recv.path("folder").join(link)).unwrap();
    }
    for link in ["out", "within", "up", "proc", "folder/out", "folder/within", "folder/up", "folder/proc"] {
        for below in ["sentinel", "in", "in/x", "new", "new/x"] {
            let name = format!("{link}/{below}");
            yard.refuses_all(&name, &format!("'{name}'"));
        }
    }
    assert_eq!(list(&yard.recv.path("folder")), ["out", "proc", "up", "within", "x"]);
    assert_eq!(fs::read(yard.recv.path("folder/x")).unwrap(), b"old");
}

// C03
#[test]
fn what_replaced_a_created_file_is_not_written_to() {
    let mut yard = Yard::new();
    let sentinel = yard.outside("sentinel");
    // By another name of an outside file, and by a link to one.
    for replace in [|from: &Path, to: &Path| fs::hard_link(from, to), |from: &Path, to: &Path| symlink(from, to)] {
        assert_eq!(yard.recv.raw(&cf("x")), b"0");
        fs::remove_file(yard.recv.path("x")).unwrap();
        replace(&sentinel, &yard.recv.path("x")).unwrap();
        yard.refuses(&wf("x", 0, b"new"), "'x'");
        fs::remove_file(yard.recv.path("x")).unwrap();
    }
    // Creating a name that is an outside file's second one keeps that file as it is.
    fs::hard_link(&sentinel, yard.recv.path("x")).unwrap();
    yard.stores("x", b"new");
    assert_eq!(yard.names().len(), 2);
}

// C03
#[test]
fn a_folder_that_becomes_a_link_and_back_never_lets_anything_out() {
    let mut yard = Yard::new();
    write(&yard.recv.path("d/old"), "old");
    symlink(yard.outside("outside"), yard.recv.path("link")).unwrap();
    let (d, link) = (yard.recv.path("d"), yard.recv.path("link"));
    let (flips, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (mut stored, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &d, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                flips.fetch_add(1, Ordering::Relaxed);
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while (flips.load(Ordering::Relaxed) < 2000 || stored < 20 || refused < 20) && Instant::now() < deadline {
            let lists = [cd("d/in"), cf("d/sentinel"), cd("d/new/er"), cf("d/in/x"), cf("d/sentinel"), cf("d/old")].concat();
            let answers = yard.recv.raw(&[lists, wf("d/sentinel", 0, b"new"), wf("d/in/x", 0, b"new")].concat());
            let created = answers.iter().take(6).filter(|&&answer| answer == b'0').count();
            stored += created;
            refused += 6 - created;
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(flips.into_inner() >= 2000 && stored >= 20 && refused >= 20, "{stored} stored, {refused} refused");
    yard.expect_well();
}

// C03
#[test]
fn a_file_that_becomes_a_link_and_back_never_lets_anything_out() {
    let mut yard = Yard::new();
    symlink(yard.outside("sentinel"), yard.recv.path("link")).unwrap();
    let flips = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    let (mut written, mut refused) = (0, 0);
    // The first file stays the created one, whatever name it has.
    assert_eq!(yard.recv.raw(&cf("x")), b"0");
    let (x, link) = (yard.recv.path("x"), yard.recv.path("link"));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &x, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                flips.fetch_add(1, Ordering::Relaxed);
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while (flips.load(Ordering::Relaxed) < 2000 || written < 20 || refused < 20) && Instant::now() < deadline {
            let count = yard.recv.raw(&wf("x", 0, b"new").repeat(20)).len() / 32;
            written += count;
            refused += usize::from(count < 20);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(flips.into_inner() >= 2000 && written >= 20 && refused >= 20, "{written} written, {refused} refused");
    yard.expect_well();
}

// C07
#[test]
fn a_root_that_is_renamed_goes_on_under_its_new_name() {
    let mut yard = Yard::new();
    let (own, moved) = (yard.root().to_path_buf(), yard.outside("moved"));
    let stream = yard.recv.connect();
    (&stream).write_all(&cf("x")).unwrap();
    assert_eq!(read_bytes(&stream, 1), b"0");
    fs::rename(&own, &moved).unwrap();
    assert_eq!(raw(&stream, &wf("x", 0, b"abc")), md5_hex(b"abc"));
    let absolute = own.join("in/y");
    let absolute = absolute.to_str().unwrap();
    assert_eq!(yard.recv.raw(&[cf(absolute), wf(absolute, 0, b"abc")].concat()), stored(b"abc"));
    assert!(!own.exists());
    assert_eq!(list(&moved), ["in", "in/y", "x"]);
    assert_eq!(fs::read(moved.join("x")).unwrap(), b"abc");
    drop(stream);
    // Another folder that takes the old name is not the root.
    fs::create_dir(&own).unwrap();
    assert_eq!(yard.recv.raw(&cd("z")), b"0");
    assert!(list(&own).is_empty() && moved.join("z").is_dir());
    yard.recv.expect_idle();
}

// C07
#[test]
fn a_root_that_is_deleted_is_never_made_again() {
    let mut yard = Yard::new();
    let own = yard.root().to_path_buf();
    assert_eq!(yard.recv.raw(&cf("x")), b"0");
    fs::remove_dir_all(&own).unwrap();
    for name in ["x", "in/x", "/x", &format!("{}/x", own.display())] {
        yard.refuses_all(name, "x'");
    }
    assert!(!own.exists());
    // Nor is another that takes its place.
    fs::create_dir(&own).unwrap();
    yard.refuses_all("x", "'x'");
    assert!(list(&own).is_empty());
}

// C07
#[test]
fn a_deleted_root_itself_is_not_said_to_be_there() {
    let mut yard = Yard::new();
    fs::remove_dir(yard.root()).unwrap();
    yard.refuses(&cd("/"), "'/'");
}

// C09
#[test]
fn special_files_are_refused_at_once_and_stay() {
    let mut yard = Yard::new();
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, yard.recv.path(name), kind, Mode::from_raw_mode(0o666), device).is_ok()
    };
    assert!(make("fifo", FileType::Fifo, 0) && make("read fifo", FileType::Fifo, 0));
    let _listener = UnixListener::bind(yard.recv.path("socket")).unwrap();
    let mut names = vec!["fifo", "read fifo", "socket"];
    if make("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)) {
        assert!(make("tty", FileType::CharacterDevice, rustix::fs::makedev(5, 0)));
        names.extend(["null", "tty"]);
    } else {
        println!("SKIPPED C09 for devices: can't make one here");
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut reader = fs::File::from(rustix::fs::open(yard.recv.path("read fifo"), flags, Mode::empty()).unwrap());
    for name in &names {
        yard.refuses_all(name, &format!("'{name}'"));
        let below = format!("{name}/x");
        yard.refuses_all(&below, &format!("'{below}'"));
    }
    names.sort_unstable();
    assert_eq!(yard.names(), names);
    assert!(fs::symlink_metadata(yard.recv.path("fifo")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(yard.recv.path("socket")).unwrap().file_type().is_socket());
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "something was written to the FIFO");
}

// C09
#[test]
fn a_folder_is_no_file_and_a_file_is_no_folder() {
    let mut yard = Yard::new();
    write(&yard.recv.path("folder/x"), "old");
    write(&yard.recv.path("file"), "old");
    yard.refuses(&cf("folder"), "'folder'");
    yard.refuses(&wf("folder", 0, b"new"), "'folder'");
    yard.refuses(&cd("file"), "'file'");
    yard.refuses_all("file/x", "'file/x'");
    yard.refuses_all("file/in/x", "'file/in/x'");
    assert_eq!(yard.names(), ["file", "folder", "folder/x"]);
    assert_eq!(fs::read(yard.recv.path("file")).unwrap(), b"old");
}

/// Is this, of a path below the root, there with this size? Works for any path that a system call takes.
fn size_of(root: &Path, path: &[u8]) -> Option<i64> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    rustix::fs::statat(&root, OsStr::from_bytes(path), rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_size)
}

/// A path of exactly so many bytes, its names as long as they may be.
fn long_path(len: usize) -> Vec<u8> {
    (1..=len).map(|index| if index % 256 == 0 && index < len { b'/' } else { b'n' }).collect()
}

// C10
#[test]
fn a_name_of_255_bytes_is_stored_and_one_of_256_refused() {
    let mut yard = Yard::new();
    let longest = "n".repeat(255);
    yard.stores(&longest, b"abc");
    yard.stores(format!("{}d", "é".repeat(127)), b"abc");
    assert_eq!(yard.recv.raw(&cd(&format!("in/{longest}"))), b"0");
    let before = yard.names();
    let longer = "n".repeat(256);
    for name in [longer.clone(), format!("{longer}/x"), format!("new/{longer}")] {
        yard.refuses_all(name, "longer than 255 bytes");
    }
    assert_eq!(yard.names(), before);
}

// C10
#[test]
fn a_path_of_4095_bytes_is_stored_and_one_of_4096_refused() {
    let mut yard = Yard::new();
    let longest = long_path(4095);
    assert_eq!(longest.len(), 4095);
    yard.stores(&longest, b"abc");
    assert_eq!(size_of(yard.root(), &longest), Some(3));
    // The same with the root's own path before it.
    let own = [yard.root().as_os_str().as_bytes(), b"/", &longest[..]].concat();
    yard.stores(&own, b"abcd");
    assert_eq!(size_of(yard.root(), &longest), Some(4));
    let mut folder = long_path(4095);
    folder[0] = b'd';
    assert_eq!(yard.recv.raw(&frame("cd", &folder, b"")), b"0");
    assert!(size_of(yard.root(), &folder).is_some());
    for len in [4096, 5000, 8192] {
        let mut longer = long_path(len);
        longer[0] = b'e';
        yard.refuses_all(&longer, "longer than");
    }
    assert_eq!(fs::read_dir(yard.root()).unwrap().count(), 2);
}

// C10, C25
#[test]
fn a_tree_may_be_as_deep_as_a_path_is_long() {
    let mut yard = Yard::new();
    for (first, depth) in [(b"a", 300), (b"b", 1000), (b"c", 2048)] {
        let mut path = b"d/".repeat(depth - 1);
        path.push(b'x');
        path[0] = first[0];
        // With all the folders missing, of a file and of a folder.
        yard.stores(&path, b"abc");
        assert_eq!(size_of(yard.root(), &path), Some(3), "{depth}");
        path[0] = first[0].to_ascii_uppercase();
        assert_eq!(yard.recv.raw(&frame("cd", &path, b"")), b"0", "{depth}");
        assert!(size_of(yard.root(), &path).is_some(), "{depth}");
        yard.recv.expect_idle();
    }
}

/// Names that terminals, shells, formats and other systems stumble over.
fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"tab\there"[..],
        b"\x1b[31mred\x1b[0m",
        b"\x1b]0;title\x07",
        b"\x9b31m",
        "c1 \u{9b}31m".as_bytes(),
        "bidi \u{202e}gpj.exe".as_bytes(),
        "isolate \u{2066}x".as_bytes(),
        "zero\u{200b}width".as_bytes(),
        "line\u{2028}separator".as_bytes(),
        "\u{feff}mark".as_bytes(),
        b"-rf",
        b"--help",
        b" ",
        b" before and after ",
        b"...",
        b"*",
        b"?[a-z]",
        b"%s%n%d",
        b"{}",
        b"{0}",
        b"\"double\"",
        b"'single'",
        b"`id`",
        b"$(id)",
        b"$HOME",
        b"a|b",
        b"a;b&c",
        b"a>b<c",
        b"a:b",
        b"CON",
        b"name.",
        b"!history",
        b"#comment",
        b"~root",
        b"\\",
        b"\\x41",
        b"carriage\rreturn",
        b"\x08\x08back",
        b"\x7f",
        b"\x01",
        // Not UTF-8; a character cut short; a surrogate; an overlong slash and dot.
        b"\xff\xfe",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xc0\xae\xc0\xae",
        // One name to the eye: composed and decomposed.
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        "文件 😀".as_bytes(),
        b"cd000004",
        b"000000000000",
    ]
    .map(<[u8]>::to_vec)
    .into();
    names.extend((1..=u8::MAX).filter(|byte| !b"\n/.".contains(byte)).map(|byte| vec![byte, byte, b'#']));
    names
}

// C11, C12
#[test]
fn odd_names_are_kept_byte_for_byte_and_each_is_its_own() {
    let mut yard = Yard::new();
    let names = odd_names();
    let mut frames = Vec::new();
    for name in &names {
        let file = [name, &b"/"[..], name].concat();
        frames.extend([frame("cd", name, b""), frame("cf", &file, b""), frame("wf", &file, name)].concat());
    }
    let answers: Vec<u8> = names.iter().flat_map(|name| [b"00", &md5_hex(name)[..]].concat()).collect();
    assert_eq!(text(&yard.recv.raw(&frames)), text(&answers));
    for name in &names {
        let name_here = OsStr::from_bytes(name);
        assert_eq!(&fs::read(yard.root().join(name_here).join(name_here)).unwrap(), name, "{name_here:?}");
    }
    let mut here: Vec<_> = fs::read_dir(yard.root()).unwrap().map(|entry| entry.unwrap().file_name().into_vec()).collect();
    here.sort();
    let mut names = names;
    names.sort();
    names.dedup();
    assert_eq!(here, names);
    yard.expect_well();
}

// C11, C12
#[test]
fn a_refusal_of_an_odd_name_shows_it_escaped_on_one_line() {
    let mut yard = Yard::new();
    let names = odd_names();
    let frames: Vec<u8> = names.iter().flat_map(|name| frame("cf", name, b"")).collect();
    assert_eq!(text(&yard.recv.raw(&frames)), "0".repeat(names.len()));
    let frames: Vec<u8> = names.iter().flat_map(|name| frame("cd", name, b"")).collect();
    assert_eq!(text(&yard.recv.raw(&frames)), "1".repeat(names.len()));
    wait_until("each name is in the log", || yard.recv.process.log().lines().count() >= names.len());
    for shown in [
        "'tab\\there'",
        "'\\u{1b}[31mred\\u{1b}[0m'",
        "'\\x9b31m'",
        "'bidi \\u{202e}gpj.exe'",
        "'\\xff\\xfe'",
        "'文件 😀'",
        "'%s%n%d'",
    ] {
        yard.recv.process.wait_for_log(shown);
    }
    assert_eq!(yard.recv.process.log().lines().count(), names.len());
    // A write's refusal shows it as well.
    yard.refuses(&frame("wf", b"\x1b[2J\xff/\x07", b"new"), "'\\u{1b}[2J\\xff/\\u{7}'");
    yard.expect_well();
}

// C11
#[test]
fn an_odd_root_is_shown_escaped_on_one_line_and_works() {
    let outer = temp_dir();
    let root = outer.path().join("a\n\u{1b}[31m, b\u{202e}");
    fs::create_dir(&root).unwrap();
    let mut recv = Recv::start(&root);
    assert!(recv.process.first_line.ends_with("a\\n\\u{1b}[31m, b\\u{202e}"), "{:?}", recv.process.first_line);
    assert_eq!(recv.raw(&[cf("/x"), wf("x", 0, b"abc")].concat()), stored(b"abc"));
    assert_eq!(fs::read(root.join("x")).unwrap(), b"abc");
    recv.expect_idle();
}
