//! Disks that are full, read-only or locked: what is refused changes nothing, and the rest goes on.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "rows that are skipped are named")]
mod common;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::mount::*;
use common::yard::*;
use common::*;

/// A file or folder that nobody may change until the test ends.
struct Locked(PathBuf);

impl Locked {
    /// By an attribute that holds for root as well; `None` where it can't be set.
    fn immutable(path: &Path) -> Option<Self> {
        can(Command::new("chattr").arg("+i").arg(path)).then(|| Self(path.to_path_buf()))
    }

    /// A folder, by its mode; `None` where that does not keep this user out.
    fn read_only(path: &Path) -> Option<Self> {
        assert!(can(Command::new("chmod").arg("u-w").arg(path)));
        let locked = Self(path.to_path_buf());
        let probe = path.join("probe");
        fs::write(&probe, "").is_err().then_some(locked).or_else(|| fs::remove_file(probe).ok().and(None))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = can(Command::new("chattr").arg("-i").arg(&self.0)) | can(Command::new("chmod").arg("u+w").arg(&self.0));
    }
}

// C15
#[test]
fn a_read_only_file_system_refuses_and_the_rest_goes_on() {
    let mut yard = Yard::new();
    let Some(mount) = Mount::new(&yard.recv.path("disk"), "size=1m", "C15 (read-only)") else { return };
    write(&yard.recv.path("disk/old"), "old");
    yard.stores("disk/made", b"made");
    mount.set_options("ro");
    for operation in ["cd", "cf", "wf"] {
        yard.refuses(&frame(operation, b"disk/new", b"new"), "'disk/new'");
    }
    yard.refuses(&cf("disk/old"), "Read-only file system");
    yard.refuses(&wf("disk/made", 0, b"new"), "Read-only file system");
    assert_eq!(yard.recv.raw(&[cd("disk"), cf("disk/new"), cd("in"), cf("in/x")].concat()), b"0100");
    yard.stores("in/x", b"abc");
    assert_eq!(list(&yard.recv.path("disk")), ["made", "old"]);
    mount.set_options("rw");
    yard.stores("disk/new", b"new");
}

// C15
#[test]
fn a_folder_without_permission_refuses_and_the_rest_goes_on() {
    let mut yard = Yard::new();
    write(&yard.recv.path("locked/old"), "old");
    yard.stores("locked/made", b"made");
    let locked = yard.recv.path("locked");
    let Some(_lock) = Locked::immutable(&locked).or_else(|| Locked::read_only(&locked)) else {
        println!("SKIPPED C15 (no permission): nothing is forbidden to this user");
        return;
    };
    // "Operation not permitted" or "Permission denied".
    for operation in ["cd", "cf"] {
        yard.refuses(&frame(operation, b"locked/new", b""), "ermi");
    }
    yard.refuses(&cf("locked/old"), "ermi");
    assert_eq!(yard.recv.raw(&[cd("locked"), cf("locked/new"), cf("x")].concat()), b"010");
    assert_eq!(list(&locked), ["made", "old"]);
    // What is there already can be written to.
    assert_eq!(yard.recv.raw(&wf("locked/made", 0, b"MADE")), md5_hex(b"MADE"));
    yard.expect_well();
}

// C15
#[test]
fn an_immutable_file_is_neither_replaced_nor_written_to() {
    let mut yard = Yard::new();
    yard.stores("x", b"old");
    let Some(lock) = Locked::immutable(&yard.recv.path("x")) else {
        println!("SKIPPED C15 (immutable): can't set that attribute here");
        return;
    };
    yard.refuses(&cf("x"), "Operation not permitted");
    yard.refuses(&wf("x", 0, b"new"), "Operation not permitted");
    assert_eq!(yard.recv.raw(&cf("x\ny")), b"1");
    assert_eq!(fs::read(yard.recv.path("x")).unwrap(), b"old");
    drop(lock);
    yard.stores("x", b"new");
    yard.expect_well();
}

/// The files of a folder with their contents.
fn contents(folder: &Path) -> Vec<(OsString, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut contents: Vec<_> = entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap_or_default())).collect();
    contents.sort();
    contents
}

// D11
#[test]
fn a_full_disk_fails_the_write_and_loses_nothing_that_was_there() {
    let mut yard = Yard::new();
    let disk = yard.recv.path("disk");
    let Some(_mount) = Mount::new(&disk, "size=1m", "D11") else { return };
    let (old, new) = (noise(100_000, 1), noise(600_000, 2));
    write(&disk.join("filler"), noise(500_000, 3));
    write(&disk.join("x"), &old);
    let (create, write) = (cf("disk/x"), wf("disk/x", 0, &new));
    assert_eq!(yard.recv.raw(&create), b"0");
    yard.refuses(&write, "'disk/x': No space left on device");
    let kept = |disk: &Path| contents(disk).into_iter().filter(|(name, bytes)| name != "x" && *bytes == old).count();
    assert_eq!(kept(&disk), 1);
    assert_eq!(yard.recv.raw(&[cd("in"), cf("in/x")].concat()), b"00");
    // Room is made, by another version of the file that goes as well.
    fs::remove_file(disk.join("filler")).unwrap();
    assert_eq!(yard.recv.raw(&write), md5_hex(&new));
    assert!(fs::read(disk.join("x")).unwrap() == new);
    fs::remove_file(disk.join("x")).unwrap();
    assert_eq!(yard.recv.raw(&[create, write].concat()), stored(&new));
    assert!(fs::read(disk.join("x")).unwrap() == new);
    assert_eq!(kept(&disk), 1);
    yard.expect_well();
}

// D11
#[test]
fn a_disk_that_fills_up_under_many_connections_fails_each_by_name() {
    let mut yard = Yard::new();
    let Some(_mount) = Mount::new(&yard.recv.path("disk"), "size=1m", "D11 (many)") else { return };
    let bytes = noise(400_000, 1);
    let whole = AtomicUsize::new(0);
    thread::scope(|scope| {
        for index in 0..6 {
            let (recv, bytes, whole) = (&yard.recv, &bytes, &whole);
            scope.spawn(move || {
                let name = format!("disk/{index}");
                let answer = recv.raw(&[cf(&name), wf(&name, 0, bytes)].concat());
                if answer == stored(bytes) {
                    whole.fetch_add(1, Ordering::Relaxed);
                    assert!(fs::read(recv.path(&name)).unwrap() == *bytes, "{name} was confirmed");
                } else {
                    recv.process.wait_for_log(&format!("'{name}'"));
                }
            });
        }
    });
    assert!(whole.into_inner() <= 2);
    yard.expect_well();
    for index in 0..6 {
        fs::remove_file(yard.recv.path(&format!("disk/{index}"))).unwrap_or_default();
    }
    yard.stores("disk/after", &bytes);
}

// D13
#[test]
fn a_file_system_without_inodes_fails_the_list_and_loses_nothing_that_was_there() {
    let mut yard = Yard::new();
    let disk = yard.recv.path("disk");
    let Some(_mount) = Mount::new(&disk, "size=1m,nr_inodes=12", "D13") else { return };
    write(&disk.join("old"), "old");
    let names: Vec<_> = (0..20).map(|index| format!("disk/{index}")).collect();
    yard.refuses(&cf(&names.join("\n")), "No space left on device");
    yard.refuses(&cd("disk/in"), "No space left on device");
    yard.refuses(&cd("disk/in/deeper"), "No space left on device");
    yard.refuses(&cf("disk/old"), "No space left on device");
    assert_eq!(contents(&disk).iter().filter(|(_, bytes)| bytes == b"old").count(), 1);
    // What was created before can be written, and once there is room so can the rest.
    assert_eq!(yard.recv.raw(&wf("disk/0", 0, b"abc")), md5_hex(b"abc"));
    fs::remove_file(disk.join("1")).unwrap();
    yard.stores("disk/new", b"new");
    fs::remove_file(disk.join("2")).unwrap();
    assert_eq!(yard.recv.raw(&cd("disk/in")), b"0");
    yard.expect_well();
}

// D13
#[test]
fn a_file_that_can_not_be_created_again_keeps_its_name() {
    let mut yard = Yard::new();
    let disk = yard.recv.path("disk");
    let Some(_mount) = Mount::new(&disk, "size=1m,nr_inodes=4", "D13 (name)") else { return };
    write(&disk.join("old"), "old");
    while fs::write(disk.join(format!("filler{}", contents(&disk).len())), "").is_ok() {}
    yard.refuses(&cf("disk/old"), "No space left on device");
    assert_eq!(fs::read(disk.join("old")).unwrap(), b"old", "{:?}", list(&disk));
}
