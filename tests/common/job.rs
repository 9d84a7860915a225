//! A job that takes a while, and how far it has come.

use super::judge::*;
use super::*;

/// A tree of small files and a large one, with what is put in place at the end.
pub fn make_job(top: &Path, large: usize) {
    for index in 0..400 {
        write(&top.join(format!("d{}/small {index}", index % 7)), noise(3000, index));
    }
    write(&top.join("large"), noise(large, 1000));
    std::os::unix::fs::symlink("large", top.join("link")).unwrap();
    fs::hard_link(top.join("large"), top.join("twin")).unwrap();
    for index in 0..7 {
        set_mode(&top.join(format!("d{index}")), 0o750);
        set_mtime(&top.join(format!("d{index}")), 1_600_000_000, 7);
    }
}

/// Files that are there whole, in a tree that changes meanwhile.
pub fn files_in(top: &Path) -> usize {
    let Ok(entries) = fs::read_dir(top) else { return 0 };
    let count = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files_in(&entry.path()),
        Ok(kind) => usize::from(kind.is_file() && !entry.file_name().as_encoded_bytes().starts_with(b".ptf-")),
        Err(_) => 0,
    };
    entries.flatten().map(count).sum()
}

/// The large file alone, as it is received.
pub fn incoming_bytes(top: &Path) -> u64 {
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    let is_journal = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().ends_with(b"j");
    let journals = entries.filter(is_journal).map(|entry| entry.metadata().map_or(0, |metadata| metadata.len()));
    // A journal has 16 bytes for each block of 64 KiB.
    journals.sum::<u64>() / 16 * 65_536
}
