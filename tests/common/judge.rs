//! Judges of whole trees: every attribute that is to be kept, asked of `lstat` on both sides; and the
//! awkward tree that they are for.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::*;

/// What `lstat` says of an entry, as far as it is to be kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    kind: u32,
    mode: u32,
    size: u64,
    mtime: (i64, i64),
    /// The first of the names that this file has.
    first_name: OsString,
    link: Option<PathBuf>,
    owner: Option<(u32, u32)>,
}

/// All entries of a tree, the top among them, with what is to be kept of each.
pub fn look_at_all(top: &Path, with_owner: bool) -> BTreeMap<PathBuf, Seen> {
    let mut names = HashMap::new();
    let entries = walkdir::WalkDir::new(top).sort_by_file_name().into_iter().map(|entry| entry.unwrap().into_path());
    let look = |path: PathBuf| {
        let (about, name) = (fs::symlink_metadata(&path).unwrap(), path.strip_prefix(top).unwrap().to_path_buf());
        let first_name = names.entry((about.dev(), about.ino())).or_insert_with(|| name.clone().into_os_string()).clone();
        let (is_folder, is_link) = (about.is_dir(), about.is_symlink());
        let seen = Seen {
            kind: about.mode() & 0o170_000,
            mode: if is_link { 0 } else { about.mode() & 0o7777 },
            size: if is_folder { 0 } else { about.size() },
            mtime: (about.mtime(), about.mtime_nsec()),
            first_name,
            link: is_link.then(|| fs::read_link(&path).unwrap()),
            owner: with_owner.then(|| (about.uid(), about.gid())),
        };
        (name, seen)
    };
    entries.map(look).collect()
}

/// Fails unless both trees are the same in all that is kept, content included. Of modes, the bits that
/// are kept; of entries, those that `is_left_out` does not
/// name, on neither side.
pub fn assert_kept(source: &Path, target: &Path, with_owner: bool, is_left_out: impl Fn(&Path) -> bool) {
    let (mut there, mut here) = (look_at_all(source, with_owner), look_at_all(target, with_owner));
    there.retain(|path, _| !is_left_out(path));
    here.retain(|path, _| !is_left_out(path));
    let (given, found): (Vec<_>, Vec<_>) = (there.keys().collect(), here.keys().collect());
    assert_eq!(given, found, "not the same names");
    for (path, seen) in &mut there {
        seen.mode &= 0o777;
        let found = here.get_mut(path).unwrap();
        assert_eq!(seen, found, "{}", path.display());
        if seen.kind == 0o100_000 {
            let read = |top: &Path| fs::read(top.join(path)).unwrap();
            assert!(seen.size > 64 << 20 || read(source) == read(target), "another content: {}", path.display());
        }
    }
}

/// The same of all that is in a folder that was there before: what that folder itself is like is not
/// the sender's business then.
pub fn assert_kept_in(source: &Path, target: &Path, is_left_out: impl Fn(&Path) -> bool) {
    assert_kept(source, target, sender::is_root(), |path| path.as_os_str().is_empty() || is_left_out(path));
}

/// Sets the time of the last change, of a link itself where it is one.
pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: Timespec { tv_sec: 5, tv_nsec: 6 }, last_modification };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A file of holes with some data in a few places.
pub fn write_sparse(path: &Path, size: u64, data_len: usize, places: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    for place in 0..places {
        file.write_all_at(&noise(data_len, place + 1), size / places * place).unwrap();
    }
}

pub const AWKWARD_NAMES: [&[u8]; 27] = [
    b"line\nfeed",
    b"tab\t",
    b"cr\r",
    b"\x1b[31mred",
    b"\xc2\x9b31mred",
    b"\x9b31m",
    "\u{202e}gpj.exe".as_bytes(),
    b"\xff\xfe\x80",
    b"latin-\xe9",
    b"-rf",
    b"--file",
    b" ",
    b" spaces ",
    b"...",
    b"..a",
    b".hidden",
    b"*",
    b"?[a]",
    b"%s%n",
    b"'\"`$(x)",
    b"|a:b;c&<>",
    b"back\\slash",
    b"\x01\x7f",
    "caf\u{e9}".as_bytes(),
    "cafe\u{301}".as_bytes(),
    b"~",
    b"{a,b}#!",
];

/// A tree of all kinds; nothing in it that can't be sent.
pub fn make_awkward_tree(top: &Path) {
    make_tree(top);
    let at = |name: &[u8]| top.join(OsStr::from_bytes(name));
    let longest = [&b"n"[..]; 255].concat();
    for name in AWKWARD_NAMES.into_iter().chain([&longest[..]]) {
        write(&at(&[b"names/", name].concat()), name);
        write(&at(&[&b"folders/"[..], name, b"/", name].concat()), name);
        fs::create_dir_all(at(&[b"hollows/", name].concat())).unwrap();
        fs::create_dir_all(at(b"links")).unwrap();
        symlink(OsStr::from_bytes(name), at(&[b"links/", name].concat())).unwrap();
    }
    write(&top.join("d/".repeat(120)).join("deep"), "deep");
    // Root alone can read all of them.
    let can_read = |mode: &u32| mode & 0o400 > 0 || sender::is_root();
    let modes = [0o000, 0o444, 0o755, 0o600, 0o777, 0o4755, 0o2755, 0o1777, 0o111];
    for (index, mode) in modes.into_iter().filter(can_read).enumerate() {
        let path = top.join(format!("modes/file {mode:o}"));
        write(&path, noise(index * 1000, 9));
        set_mode(&path, mode);
    }
    let times =
        [(0, 0), (-1, 999_999_999), (-1_900_000_000, 1), (1_700_000_000, 123_456_789), (2_147_483_647, 5), (4_200_000_000, 7)];
    for (index, (seconds, nanoseconds)) in times.into_iter().enumerate() {
        write(&top.join(format!("times/file {index}")), format!("{index}"));
        fs::create_dir_all(top.join(format!("times/folder {index}"))).unwrap();
        symlink("nowhere", top.join(format!("times/link {index}"))).unwrap();
        for kind in ["file", "link", "folder"] {
            set_mtime(&top.join(format!("times/{kind} {index}")), seconds, nanoseconds);
        }
    }
    let far = "x".repeat(4095);
    for (name, target) in [
        ("dangling", "no/where"),
        ("absolute", "/etc/passwd"),
        ("folder", "../a"),
        ("up", "../../../.."),
        ("loop", "loop"),
        ("far", &far),
    ] {
        symlink(target, top.join("links").join(name)).unwrap();
    }
    write(&top.join("hard/one"), noise(300_000, 5));
    fs::create_dir_all(top.join("zz/deeper")).unwrap();
    for name in ["hard/two", "zz/deeper/three", "a/b/four"] {
        fs::hard_link(top.join("hard/one"), top.join(name)).unwrap();
    }
    write(&top.join("hard/hollow"), "");
    fs::hard_link(top.join("hard/hollow"), top.join("zz/hollow")).unwrap();
    set_mode(&top.join("hard/hollow"), 0o640);
    write(&top.join("blocks/exact"), noise(65_536, 6));
    write(&top.join("blocks/four"), noise(262_144, 6));
    write(&top.join("blocks/and one"), noise((1 << 20) + 1, 7));
    write_sparse(&top.join("blocks/sparse"), 32 << 20, 65_536, 4);
    fs::File::create(top.join("blocks/hole")).unwrap().set_len(5 << 20).unwrap();
    for (name, mode) in [("folder 555", 0o555), ("folder 000", 0o000), ("folder 1777", 0o1777), ("folder 2750", 0o2750)] {
        if !can_read(&mode) {
            continue;
        }
        let path = top.join("modes").join(name);
        write(&path.join("within/file"), name);
        set_mtime(&path.join("within"), 1_500_000_000, 11);
        // Before the mode, which may forbid it.
        set_mode(&path, mode);
    }
    // Folders get their times last: what is made in them changes them.
    for (index, name) in ["a/b", "a", "names", "zz", "modes", "hollow", ""].into_iter().enumerate() {
        set_mtime(&top.join(name), 1_600_000_000 + index as i64, 999_999_999 - index as i64);
    }
}

/// Lets a tree be removed, whoever runs the tests.
pub fn open_up(top: &Path) {
    let _ = run(Command::new("chmod").args(["-R", "u+rwX"]).arg(top));
}

/// Special files, which are named and left out.
pub fn make_specials(top: &Path) -> [&'static str; 2] {
    rustix::fs::mknodat(CWD, top.join("a/fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(top.join("socket")).unwrap());
    ["a/fifo", "socket"]
}
