//! Files that come in several pieces, over several connections: whoever brings a piece finds the file
//! that others brought pieces of.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::ptr;
use std::sync::{Arc, Mutex, Weak};

use rustix::fs::{FallocateFlags, FsWord};
use rustix::io::Errno;

use super::temp::Creation;
use super::{Error, Folders, Incoming, OnExisting, Store, There, incoming, kept, lock, refusal};
use crate::entry::{FileMeta, Identity};
use crate::limits::{INCOMING_MAX, KEPT_FOLDERS_MAX};
use crate::path::RemotePath;

/// What whoever brings a piece of a file finds.
#[derive(Debug)]
pub enum Joined {
    /// The file, being received.
    Incoming(Arc<Incoming>),
    /// It is published already: no piece is needed.
    Had,
}

/// Under which a file is found: another state of the source, or another source, is another file.
type Key = (RemotePath, Identity);

/// The files being received by anybody.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) files: Mutex<HashMap<Key, Weak<Incoming>>>,
    /// The folders in which something stayed to be gone on with; a few more than are looked through.
    kept: Mutex<BTreeSet<RemotePath>>,
}

impl Shared {
    /// A file that has ended is not found any more, unless another one took its place.
    pub(super) fn leave(&self, incoming: &Incoming) {
        let mut files = lock(&self.files);
        match files.entry((incoming.path().clone(), *incoming.identity())) {
            Entry::Occupied(found) if ptr::eq(found.get().as_ptr(), incoming) => _ = found.remove(),
            _ => {}
        }
    }

    /// Of the file of this path something stays, to be gone on with.
    pub(super) fn note_kept(&self, path: &RemotePath) {
        if let Some((folder, _)) = path.split() {
            self.note_kept_in(folder);
        }
    }

    /// In this folder something stays.
    pub(super) fn note_kept_in(&self, folder: RemotePath) {
        let mut kept = lock(&self.kept);
        if kept.len() <= KEPT_FOLDERS_MAX {
            kept.insert(folder);
        }
    }

    /// The folders in which something stayed; none where they were too many.
    pub(super) fn take_kept(&self) -> Option<BTreeSet<RemotePath>> {
        let kept = std::mem::take(&mut *lock(&self.kept));
        (kept.len() <= KEPT_FOLDERS_MAX).then_some(kept)
    }
}

impl Store {
    /// Finds, goes on with or begins a file that comes in several pieces. `going` is called now and then
    /// where that takes long; what it says ends that.
    ///
    /// # Errors
    /// No file can be created in its folder, that can't be had, or there is no room for the file; that
    /// of `going`.
    pub fn join(
        &self, folders: &mut Folders, path: &RemotePath, meta: &FileMeta, on_existing: OnExisting,
        going: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Joined, Error> {
        incoming::check(meta, path)?;
        loop {
            let (incoming, sized, room) = match self.find_or_begin(folders, path, meta, on_existing)? {
                Found::Published => return Ok(Joined::Had),
                Found::Begun(incoming, sized) if meta.is_sparse => (incoming, sized, 0),
                Found::Begun(incoming, sized) => (incoming, sized, meta.identity.size),
                Found::Joined(incoming) => (incoming, Ok(()), 0),
            };
            let sized = sized.map_err(|errno| refusal(path, RESERVE, errno));
            let has_room = sized.and_then(|()| incoming.reserve(room));
            // Somebody else ended it after it was found. By now it is found no more.
            if has_room.is_err() && incoming.is_abandoned() {
                continue;
            }
            let has_room = has_room.inspect_err(|_| incoming.abandon());
            return match has_room.and_then(|()| incoming.make_ready(going)) {
                Ok(()) => Ok(Joined::Incoming(incoming)),
                // All of it was there, and somebody else found that out first.
                Err(_) if incoming.is_published() => Ok(Joined::Had),
                Err(error) => Err(error),
            };
        }
    }

    /// Looks for a file that others bring pieces of, and begins one where there is none.
    fn find_or_begin(
        &self, folders: &mut Folders, path: &RemotePath, meta: &FileMeta, on_existing: OnExisting,
    ) -> Result<Found, Error> {
        let key = (path.clone(), meta.identity);
        // Held while the file is created, so that two who come at once get the same one.
        let mut files = lock(&self.shared.files);
        if let Some(incoming) = files.get(&key).and_then(Weak::upgrade) {
            return Ok(Found::Joined(incoming));
        }
        let folder = self.need_folder(folders, path)?;
        if self.has_in(&folder, path, &meta.identity, &meta.attributes)? == There::Yes {
            return Ok(Found::Published);
        }
        if files.len() >= INCOMING_MAX {
            return Err(Error::Refused { path: path.clone(), what: "one of too many files being received at once" });
        }
        let mut charge = self.charge_joined(folder.as_fd(), path, meta, on_existing)?;
        let begun = self.in_folder(folders, path, "create", |folder| {
            self.note_folder(folder, path);
            kept::begin(&Creation::kept(folder, meta), path, &meta.identity, self.boot, || self.temp_names.next())
        });
        let begun = begun.and_then(|begun| {
            let left = charge.as_mut().map_or(Ok(()), |charge| charge.leave_part(folder.as_fd(), path, meta, begun.temp));
            left.inspect_err(|_| kept::remove(folder.as_fd(), begun.temp, begun.kept.is_some()))?;
            Ok(begun)
        });
        let begun = match begun {
            Ok(begun) => begun,
            Err(error) => {
                if let Some(charge) = charge {
                    charge.keep_part(folder.as_fd(), path, meta);
                }
                return Err(error);
            }
        };
        let incoming = Arc::new(Incoming::new(path, meta, on_existing, (begun, charge), Some(Arc::clone(&self.shared))));
        // Whoever finds it may be the one who publishes it.
        let sized = incoming.set_len();
        if sized.is_ok() {
            files.insert(key, Arc::downgrade(&incoming));
        }
        Ok(Found::Begun(incoming, sized))
    }
}

/// What there is of a file for one who brings a piece.
enum Found {
    Published,
    /// Others bring pieces of it.
    Joined(Arc<Incoming>),
    /// With what became of making it as long as it is to be.
    Begun(Arc<Incoming>, Result<(), Errno>),
}

const RESERVE: &str = "reserve room for";

impl Incoming {
    /// Makes sure that there is room for `size` bytes of it, and that it is not published meanwhile.
    fn reserve(&self, size: u64) -> Result<(), Error> {
        let _open = self.hold_open()?;
        if reserve(self.file(), size).map_err(|errno| refusal(self.path(), RESERVE, errno))? {
            self.note_reserved();
        }
        Ok(())
    }
}

/// Makes sure at the start that there is room for all of a file; tells whether that is set aside.
///
/// How much is free is asked first: where it is too little, ext4 keeps what it found, and a file that
/// stays to be gone on with would leave nothing to others.
///
/// Memory that is a file system hands out each page as it is reserved: 1.4 s for 4 GiB before the first
/// byte comes, where a disk takes 10 ms. There it must do to ask.
fn reserve(file: &File, size: u64) -> Result<bool, Errno> {
    const TMPFS_MAGIC: FsWord = 0x0102_1994;
    if size == 0 {
        return Ok(false);
    }
    let about = rustix::fs::fstatfs(file)?;
    // What is there of it already takes no more room.
    let here = rustix::fs::fstat(file)?.st_blocks.unsigned_abs().saturating_mul(512);
    let free = about.f_bavail.saturating_mul(about.f_bsize.unsigned_abs());
    // No blocks at all: it has no limit.
    if about.f_blocks > 0 && free < size.saturating_sub(here) {
        return Err(Errno::NOSPC);
    }
    if about.f_type == TMPFS_MAGIC {
        return Ok(false);
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(false),
            reserved => return reserved.map(|()| true),
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one range is missing")]
#[allow(clippy::disallowed_methods, reason = "a test may make files")]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::super::State;
    use super::super::temp::TempName;
    use super::super::yard::{Yard, is_root, leftovers, meta, path, published};
    use super::*;
    use crate::digest::{Binding, Checksum};

    fn join_in(store: &Store, name: &str, meta: &FileMeta) -> Result<Joined, Error> {
        store.join(&mut Folders::default(), &path(name), meta, OnExisting::Replace, &mut || Ok(()))
    }

    fn incoming(store: &Store, name: &str, meta: &FileMeta) -> Arc<Incoming> {
        match join_in(store, name, meta).unwrap() {
            Joined::Incoming(incoming) => incoming,
            Joined::Had => panic!("{name} is there"),
        }
    }

    // C16
    #[test]
    fn the_same_state_joins_and_another_is_another_file() {
        let yard = Yard::new();
        let (one, same) = (incoming(&yard.store, "d/a", &meta(6, 1)), incoming(&yard.store, "d/a", &meta(6, 1)));
        let other = incoming(&yard.store, "d/a", &meta(6, 2));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        one.write_at(0, b"one").unwrap();
        other.write_at(3, b"HER").unwrap();
        assert_eq!(one.note(0..3).unwrap(), State::Stored);
        assert_eq!(other.note(3..6).unwrap(), State::Stored);
        assert_eq!((same.missing(), other.missing()), (vec![3..6], vec![0..3]));
        same.write_at(3, b"one").unwrap();
        assert_eq!(same.note(3..6).unwrap(), published());
        assert_eq!(fs::read(yard.at("d/a")).unwrap(), b"oneone");
        other.write_at(0, b"OTH").unwrap();
        assert_eq!(other.note(0..3).unwrap(), published());
        assert_eq!(fs::read(yard.at("d/a")).unwrap(), b"OTHHER");
        // The published ones are still held, and not found.
        assert!(matches!(join_in(&yard.store, "d/a", &meta(6, 1)).unwrap(), Joined::Had));
        assert!(lock(&yard.store.shared.files).is_empty());
        yard.assert_clean();
    }

    #[test]
    fn one_that_ended_is_begun_anew() {
        let yard = Yard::new();
        let first = incoming(&yard.store, "a", &meta(4, 1));
        first.write_at(0, b"ba").unwrap();
        first.note(0..2).unwrap();
        first.abandon();
        let second = incoming(&yard.store, "a", &meta(4, 1));
        assert!(!Arc::ptr_eq(&first, &second) && second.missing() == [0..4]);
        drop(first);
        assert!(Arc::ptr_eq(&second, &incoming(&yard.store, "a", &meta(4, 1))));
        second.write_at(0, b"good").unwrap();
        assert_eq!(second.note(0..4).unwrap(), published());
        assert_eq!(fs::read(yard.at("a")).unwrap(), b"good");
        yard.assert_clean();
    }

    #[test]
    fn one_that_ends_while_it_is_found_is_begun_anew() {
        let yard = Yard::new();
        let (meta, is_over) = (meta(4, 1), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    incoming(&yard.store, "a", &meta).discard();
                }
            });
            let found: Result<Vec<_>, _> = (0..2000).map(|_| join_in(&yard.store, "a", &meta).map(|_| ())).collect();
            is_over.store(true, Ordering::Relaxed);
            found.unwrap();
        });
        yard.assert_clean();
    }

    #[test]
    fn what_an_earlier_process_left_makes_room_and_what_a_living_one_has_does_not() {
        let yard = Yard::new();
        let meta = meta(4, 1);
        fs::write(yard.at(TempName::of(&path("a"), &meta.identity).as_name()), "left over").unwrap();
        let ours = incoming(&yard.store, "a", &meta);
        // The file and its journal.
        assert_eq!(leftovers(&yard.at("")).len(), 2);
        let another = Store::open(&yard.at(""), super::super::take_umask()).unwrap();
        let theirs = incoming(&another, "a", &meta);
        assert_eq!(leftovers(&yard.at("")).len(), 3);
        for (incoming, content) in [(ours, b"ours"), (theirs, b"them")] {
            incoming.write_at(0, content).unwrap();
            assert_eq!(incoming.note(0..4).unwrap(), published());
            assert_eq!(fs::read(yard.at("a")).unwrap(), content);
        }
        yard.assert_clean();
    }

    #[test]
    fn many_who_bring_pieces_at_once_make_one_file() {
        let yard = Yard::new();
        let (piece, count) = (10_000, 64);
        let meta = meta(piece * count, 1);
        let (next, published_num) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // Held by nobody between two pieces it would be removed and begun anew.
        let held = incoming(&yard.store, "d/a", &meta);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut folders = Folders::default();
                    // Each piece comes twice.
                    while let Some(number) =
                        Some(next.fetch_add(1, Ordering::Relaxed) as u64).filter(|number| *number < 2 * count)
                    {
                        let number = number % count;
                        let joined =
                            yard.store.join(&mut folders, &path("d/a"), &meta, OnExisting::Replace, &mut || Ok(())).unwrap();
                        let Joined::Incoming(incoming) = joined else { continue };
                        let written = incoming.write_at(number * piece, &vec![number as u8; piece as usize]);
                        assert!(written.is_ok() || incoming.is_published());
                        if written.is_ok() && incoming.note(number * piece..(number + 1) * piece).unwrap() == published() {
                            published_num.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(published_num.into_inner() > 0 && held.is_published());
        let content = fs::read(yard.at("d/a")).unwrap();
        assert!(content.chunks(piece as usize).enumerate().all(|(number, piece)| piece.iter().all(|byte| *byte == number as u8)));
        yard.assert_clean();
    }

    #[test]
    fn holes_stay_holes_and_the_rest_is_reserved() {
        let yard = Yard::new();
        let mut sparse = meta(1 << 40, 1);
        sparse.is_sparse = true;
        let file = incoming(&yard.store, "a", &sparse);
        file.write_at((1 << 40) - 1, b"x").unwrap();
        assert_eq!(file.note(0..1 << 40).unwrap(), published());
        let about = fs::metadata(yard.at("a")).unwrap();
        assert!(about.len() == 1 << 40 && about.blocks() < 1024);
        // More than any disk here has; so nothing is left of it.
        assert!(join_in(&yard.store, "b", &meta(1 << 60, 1)).is_err());
        assert!(lock(&yard.store.shared.files).is_empty());
        yard.assert_clean();
    }

    // E06: the file is gone and its journal is not, and then the power again.
    #[test]
    fn a_journal_says_nothing_of_another_file() {
        let yard = Yard::new();
        let meta = meta(8, 1);
        let name = TempName::of(&path("a"), &meta.identity);
        let first = incoming(&yard.store, "a", &meta);
        let mut blocks = first.begin_blocks(Binding::of(b"x"), Checksum::Xxh3);
        blocks.write(0, b"all of it"[..8].into(), &[1; 16]).unwrap();
        drop(blocks);
        drop(first);
        fs::remove_file(yard.at(name.as_name())).unwrap();
        for empty in [false, true] {
            if empty {
                fs::write(yard.at(name.as_name()), "").unwrap();
            }
            let again = incoming(&Store::open(&yard.at(""), super::super::take_umask()).unwrap(), "a", &meta);
            assert_eq!(again.missing(), [0..8], "{empty}");
        }
        assert!(!yard.at("a").exists());
    }

    #[test]
    fn of_two_who_receive_one_file_the_second_takes_nothing_from_the_first() {
        let yard = Yard::new();
        let meta = meta(4, 1);
        let ours = incoming(&yard.store, "a", &meta);
        // As where the file system has no locks.
        kept::leave_to_others(ours.file());
        let another = Store::open(&yard.at(""), super::super::take_umask()).unwrap();
        let theirs = incoming(&another, "a", &meta);
        for incoming in [&ours, &theirs] {
            incoming.write_at(0, b"same").unwrap();
        }
        assert_eq!(ours.note(0..4).unwrap(), published());
        let _ = theirs.note(0..4);
        drop(theirs);
        assert_eq!(fs::read(yard.at("a")).unwrap(), b"same");
    }

    /// Tests in a small file system that `mount` makes of one folder of a yard.
    fn in_small(mount: &mut Command, rows: &str, test: impl Fn(&Yard) + std::panic::RefUnwindSafe) {
        let yard = Yard::new();
        let top = yard.at("small");
        fs::create_dir(&top).unwrap();
        let system = |command: &mut Command| command.arg(&top).output().is_ok_and(|output| output.status.success());
        if !is_root() || !system(mount) {
            println!("SKIPPED {rows}: can't mount a small file system here");
            return;
        }
        let tested = std::panic::catch_unwind(|| test(&yard));
        assert!(system(Command::new("umount").arg("--lazy")));
        tested.unwrap();
    }

    // C03 C09 D12: a journal that can't be opened now, and files that others made or can reach.
    #[test]
    fn what_is_not_known_to_be_ones_own_is_let_be() {
        type Change = fn(&Path, &Path);
        let cases: [(&str, Change); 4] = [
            ("a folder in the journal's place", |_, journal| {
                fs::rename(journal, journal.with_extension("old")).unwrap();
                fs::create_dir(journal).unwrap();
            }),
            ("a second name of the file", |file, _| fs::hard_link(file, file.with_extension("old")).unwrap()),
            ("a second name of the journal", |_, journal| fs::hard_link(journal, journal.with_extension("old")).unwrap()),
            ("somebody else's file", |file, _| {
                if is_root() {
                    std::os::unix::fs::chown(file, Some(65534), None).unwrap();
                } else {
                    fs::hard_link(file, file.with_extension("old")).unwrap();
                }
            }),
        ];
        for (told, change) in cases {
            let yard = Yard::new();
            let meta = meta(8, 1);
            let name = TempName::of(&path("a"), &meta.identity);
            let (file, journal) = (yard.at(name.as_name()), yard.at(name.journal().as_name()));
            let first = incoming(&yard.store, "a", &meta);
            let mut blocks = first.begin_blocks(Binding::of(b"x"), Checksum::Xxh3);
            blocks.write(0, b"left", &[1; 16]).unwrap();
            drop(blocks);
            drop(first);
            change(&file, &journal);
            let again = incoming(&yard.store, "a", &meta);
            assert_eq!(again.missing(), [0..8], "{told}");
            again.write_at(0, b"anew new").unwrap();
            assert_eq!(again.note(0..8).unwrap(), published(), "{told}");
            assert_eq!(fs::read(yard.at("a")).unwrap(), b"anew new", "{told}");
            assert_eq!(fs::read(&file).unwrap(), b"left\0\0\0\0", "{told}");
            assert!(journal.exists(), "{told}");
        }
    }

    #[test]
    fn no_room_is_reserved_in_a_file_that_has_its_name() {
        let yard = Yard::new();
        let one = incoming(&yard.store, "a", &meta(4, 1));
        one.write_at(0, b"once").unwrap();
        one.note(0..4).unwrap();
        fs::write(yard.at("a"), "").unwrap();
        assert_eq!(one.reserve(1 << 20).unwrap_err().to_string(), "a is published already");
        assert_eq!(fs::metadata(yard.at("a")).unwrap().blocks(), 0);
    }

    /// Something of a file came before this machine was last started, which is to be hashed: so many bytes.
    fn half_a_file_of_another_boot(yard: &mut Yard, meta: &FileMeta, len: u64) {
        let first = incoming(&yard.store, "a", meta);
        let binding = Binding::of(b"x");
        let mut blocks = first.begin_blocks(binding, Checksum::Xxh3);
        for offset in (0..len).step_by(65_536) {
            let bytes = [offset as u8; 65_536];
            let (digest, _) = Checksum::Xxh3.seal(binding.of_block(offset, 65_536, false), offset, &bytes, false);
            blocks.write(offset, &bytes, &digest[..16]).unwrap();
        }
        drop(blocks);
        drop(first);
        yard.store = Store::open(&yard.at(""), super::super::take_umask()).unwrap();
        yard.store.boot = [9; 16];
    }

    // E06 E15
    #[test]
    fn a_rehash_ends_when_it_is_told_to_and_loses_nothing() {
        let (mut yard, meta, half) = (Yard::new(), meta(24 << 20, 1), 12 << 20);
        half_a_file_of_another_boot(&mut yard, &meta, half);
        let mut count = 0;
        let mut going = || {
            count += 1;
            Err(io::Error::other("enough"))
        };
        let told =
            yard.store.join(&mut Folders::default(), &path("a"), &meta, OnExisting::Replace, &mut going).unwrap_err().to_string();
        assert_eq!((told.as_str(), count), ("can't read back a: enough", 1));
        assert_eq!(leftovers(&yard.at("")).len(), 2);
        assert_eq!(incoming(&yard.store, "a", &meta).missing(), [half..24 << 20]);
    }

    // E06 E15
    #[test]
    fn of_two_who_wait_for_a_rehash_the_second_goes_on_where_the_first_was_told_to_end() {
        let (mut yard, meta, half) = (Yard::new(), meta(24 << 20, 1), 12 << 20);
        half_a_file_of_another_boot(&mut yard, &meta, half);
        let (yard, meta, waits) = (&yard, &meta, AtomicUsize::new(0));
        let join = |going: &mut dyn FnMut() -> io::Result<()>| {
            yard.store.join(&mut Folders::default(), &path("a"), meta, OnExisting::Replace, going)
        };
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                join(&mut || {
                    while waits.load(Ordering::Relaxed) == 0 {
                        thread::yield_now();
                    }
                    Err(io::Error::other("enough"))
                })
            });
            while lock(&yard.store.shared.files).is_empty() {
                thread::yield_now();
            }
            waits.store(1, Ordering::Relaxed);
            let Ok(Joined::Incoming(incoming)) = join(&mut || Ok(())) else { panic!() };
            assert_eq!(incoming.missing(), [half..24 << 20]);
            let _ = first.join().unwrap();
            assert!(incoming.write_at(half, b"more").is_ok());
        });
    }

    // D11 D13
    #[test]
    fn a_full_disk_leaves_what_was_there() {
        in_small(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,nr_inodes=8", "none"]), "D11 D13", fill);
    }

    // D11: what was reserved before the disk was full would stay reserved, for a file that stays.
    #[test]
    fn a_file_that_is_gone_on_with_and_refused_takes_no_more_room_than_before() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).output().is_ok_and(|made| made.status.success());
        if !made {
            println!("SKIPPED D11 (ext4): no such file system can be made here");
            return;
        }
        in_small(Command::new("mount").args(["-o", "loop"]).arg(&image), "D11 (ext4)", |yard| {
            let meta = meta(40 << 20, 1);
            let first = incoming(&yard.store, "small/a", &meta);
            let mut blocks = first.begin_blocks(Binding::of(b"x"), Checksum::Xxh3);
            blocks.write(0, &[7; 65_536], &[1; 16]).unwrap();
            drop(blocks);
            // As where its journal reached the disk and what was reserved did not.
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(first.file(), punch, 65_536, (40 << 20) - 65_536).unwrap();
            drop(first);
            let other = File::create(yard.at("small/other")).unwrap();
            rustix::fs::fallocate(&other, FallocateFlags::empty(), 0, 30 << 20).unwrap();
            let free = || rustix::fs::statvfs(yard.at("small")).unwrap().f_bavail;
            let before = free();
            let full = join_in(&yard.store, "small/a", &meta).unwrap_err().to_string();
            assert!(full.starts_with("can't reserve room for small/a: No space left on device"), "{full}");
            assert_eq!(free(), before);
            // With room for the rest of it alone it goes on.
            drop(other);
            fs::remove_file(yard.at("small/other")).unwrap();
            assert_eq!(incoming(&yard.store, "small/a", &meta).missing(), [65_536..40 << 20]);
            drop(incoming(&yard.store, "small/a", &meta));
            rustix::fs::fallocate(File::create(yard.at("small/other")).unwrap(), FallocateFlags::empty(), 0, 8 << 20).unwrap();
            assert_eq!(incoming(&yard.store, "small/a", &meta).missing(), [65_536..40 << 20]);
        });
    }

    fn fill(yard: &Yard) {
        yard.put("small/a", b"old", OnExisting::Replace).unwrap();
        let large = vec![1; 2 << 20];
        let full = yard.put("small/a", &large, OnExisting::Replace).unwrap_err().to_string();
        assert!(full.starts_with("can't write small/a: No space left on device"), "{full}");
        let full = join_in(&yard.store, "small/a", &meta(2 << 20, 1)).unwrap_err().to_string();
        assert!(full.starts_with("can't reserve room for small/a: No space left on device"), "{full}");
        let mut sparse = meta(2 << 20, 2);
        sparse.is_sparse = true;
        let file = incoming(&yard.store, "small/a", &sparse);
        assert!(file.write_at(0, &large).is_err());
        assert_eq!(leftovers(&yard.at("small")).len(), 0);
        assert!(file.write_at(0, b"x").is_err() && file.note(0..1).is_err());
        let fitted = (0..8).take_while(|name| yard.put(&format!("small/{name}"), b"", OnExisting::Replace).is_ok()).count();
        assert!((1..8).contains(&fitted));
        let full = yard.put("small/a", b"new", OnExisting::Replace).unwrap_err().to_string();
        assert!(full.starts_with("can't create small/a: No space left on device"), "{full}");
        assert_eq!(fs::read(yard.at("small/a")).unwrap(), b"old");
        assert_eq!(leftovers(&yard.at("small")).len(), 0);
        fs::remove_file(yard.at("small/0")).unwrap();
        yard.put("small/a", b"new", OnExisting::Replace).unwrap();
    }
}
