//! Which file it is, in which state: the same answer for whoever reads it, on either side.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::Statx;
use twox_hash::XxHash3_128;

use crate::digest::Digest;
use crate::entry::{Identity, Time};
use crate::limits::{MACHINE_ID_LEN_MAX, MACHINE_ID_LEN_MIN};

/// The identity of a file in its present state.
#[must_use]
pub fn identify(metadata: &Metadata) -> Identity {
    let nanoseconds = |number: i64| u32::try_from(number).unwrap_or_default();
    let changed = (metadata.ctime(), nanoseconds(metadata.ctime_nsec()));
    let mtime = (metadata.mtime(), nanoseconds(metadata.mtime_nsec()));
    Identity { size: metadata.size(), mtime, tag: tag_of(metadata.dev(), metadata.ino(), changed) }
}

/// The same from what was seen of a name.
#[must_use]
pub fn identify_seen(seen: &Statx) -> Identity {
    let changed = (seen.stx_ctime.tv_sec, seen.stx_ctime.tv_nsec);
    Identity { size: seen.stx_size, mtime: mtime_of(seen), tag: tag_of(device_of(seen), seen.stx_ino, changed) }
}

/// The time of the last change of content.
#[must_use]
pub fn mtime_of(seen: &Statx) -> Time {
    (seen.stx_mtime.tv_sec, seen.stx_mtime.tv_nsec)
}

/// The file system that a name is in.
#[must_use]
pub fn device_of(seen: &Statx) -> u64 {
    rustix::fs::makedev(seen.stx_dev_major, seen.stx_dev_minor)
}

/// Has a file holes? Where it takes less of the disk than it has bytes.
#[must_use]
pub fn is_sparse(seen: &Statx) -> bool {
    const BLOCK_LEN: u64 = 512;
    seen.stx_blocks.saturating_mul(BLOCK_LEN) < seen.stx_size
}

/// Which file of which machine, in which state. It is asked for twice a file, and nobody gains by
/// forging it: a fast hash will do.
fn tag_of(device: u64, inode: u64, changed: Time) -> [u8; 16] {
    let mut bytes = [0; 48];
    let (head, rest) = bytes.split_at_mut(16);
    head.copy_from_slice(machine());
    let numbers = [device, inode, changed.0.cast_unsigned(), u64::from(changed.1)];
    for (place, number) in rest.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    XxHash3_128::oneshot(&bytes).to_be_bytes()
}

/// What stands for this machine in a tag, so that equal inodes of two machines are two files. The
/// id itself is not to leave the machine (machine-id(5)), and a fast hash might be turned back.
fn machine() -> &'static [u8; 16] {
    static MACHINE: OnceLock<[u8; 16]> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let ids = ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"];
        let id = ids.iter().find_map(|file| read_machine_id(Path::new(file)));
        Digest::of(&[b"parallel-transfer ", &id.unwrap_or_default()[..]].concat()).0
    })
}

/// An id from a file; `None` where there is none, or only a word instead (`uninitialized`).
#[allow(clippy::disallowed_methods, reason = "it is no file of the tree, and what is read has a bound")]
fn read_machine_id(file: &Path) -> Option<Vec<u8>> {
    let mut id = Vec::new();
    File::open(file).ok()?.take(MACHINE_ID_LEN_MAX).read_to_end(&mut id).ok()?;
    let id = id.trim_ascii();
    (id.len() >= MACHINE_ID_LEN_MIN).then(|| id.to_vec())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;

    use super::super::jail;
    use super::*;

    #[test]
    fn times_before_1970_and_every_number_count() {
        let tags =
            [tag_of(1, 2, (3, 4)), tag_of(2, 2, (3, 4)), tag_of(1, 3, (3, 4)), tag_of(1, 2, (-3, 4)), tag_of(1, 2, (3, 5))];
        let different: std::collections::HashSet<_> = tags.iter().collect();
        assert_eq!(different.len(), tags.len());
        let file = tempfile::NamedTempFile::new().unwrap();
        let old = std::time::UNIX_EPOCH - std::time::Duration::from_millis(1500);
        file.as_file().set_modified(old).unwrap();
        let identity = identify(&file.as_file().metadata().unwrap());
        assert_eq!(identity.mtime, (-2, 500_000_000));
        assert_eq!(identity, identify_seen(&jail::look_at(file.as_file().as_fd()).unwrap()));
    }

    #[test]
    fn a_machine_id_is_read_to_a_bound_and_may_be_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        for (content, read) in [(format!("{id}\n"), Some(id)), ("uninitialized\n".to_owned(), None), (String::new(), None)] {
            fs::write(file.path(), content).unwrap();
            assert_eq!(read_machine_id(file.path()).as_deref(), read.map(str::as_bytes));
        }
        fs::write(file.path(), "x".repeat(1000)).unwrap();
        assert_eq!(read_machine_id(file.path()).unwrap().len() as u64, MACHINE_ID_LEN_MAX);
        assert_eq!(read_machine_id(Path::new("/no/such/file")), None);
        assert!(read_machine_id(Path::new("/proc/sys/kernel/random/boot_id")).is_some());
    }
}
