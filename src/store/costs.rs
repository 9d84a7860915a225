//! What a small file costs, in system calls: counted from outside, by `strace`.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::process::Command;

    use super::super::yard::{Yard, meta, path};
    use super::super::{Folders, Limits, OnExisting};

    const COUNTED: &str = "PARALLEL_TRANSFER_COUNTED_FILES";
    const QUOTA: &str = "PARALLEL_TRANSFER_COUNTED_QUOTA";

    /// What the next test looks at from outside.
    #[test]
    fn small_files_to_be_counted() {
        let Ok(count) = std::env::var(COUNTED) else { return };
        let (mut yard, mut folders) = (Yard::new(), Folders::default());
        if std::env::var(QUOTA).is_ok() {
            yard.store.limit(Limits::default()).unwrap();
        }
        for number in 0..count.parse().unwrap() {
            let incoming =
                yard.store.begin(&mut folders, &path(format!("{number:03}")), &meta(4, 1), OnExisting::Replace).unwrap();
            incoming.write_at(0, b"four").unwrap();
            incoming.note(0..4).unwrap();
        }
        // Not removed one by one, which would be counted.
        std::mem::forget(yard);
    }

    #[test]
    fn a_small_file_costs_five_system_calls() {
        expect_calls(&[], ["close", "openat", "pwrite64", "renameat", "utimensat"]);
    }

    #[test]
    fn a_small_file_costs_as_many_with_a_quota() {
        expect_calls(&[QUOTA], ["close", "openat", "pwrite64", "renameat2", "utimensat"]);
    }

    fn expect_calls(variables: &[&str], expected: [&str; 5]) {
        let folder = tempfile::tempdir().unwrap();
        let count = |files: &str| {
            let log = folder.path().join("log");
            let mut strace = Command::new("strace");
            strace.arg("-f").arg("-o").arg(&log).arg(std::env::current_exe().unwrap());
            strace.args(["--exact", "store::costs::tests::small_files_to_be_counted"]);
            strace.envs(variables.iter().map(|name| (name, "1")));
            strace.env(COUNTED, files).env("TMPDIR", folder.path()).output().ok()?;
            let mut calls: BTreeMap<String, i32> = BTreeMap::new();
            for line in fs::read_to_string(&log).ok()?.lines() {
                // The second half of a call that was interrupted is no call.
                let Some((call, _)) = line.split_once('(') else { continue };
                *calls.entry(call.split_whitespace().last()?.to_owned()).or_default() += 1;
            }
            calls.contains_key("openat2").then_some(calls)
        };
        let (Some(few), Some(many)) = (count("10"), count("110")) else {
            println!("SKIPPED the count of system calls: no strace here");
            return;
        };
        // A file, rounded: on a machine that is very busy the folder may be looked up once more.
        let more = many.iter().map(|(call, count)| (call.as_str(), (count - few.get(call).unwrap_or(&0) + 50) / 100));
        // Memory and threads, and what a build for tests asks before each close.
        let unrelated = ["mmap", "munmap", "brk", "madvise", "futex", "fcntl"];
        let more = more.filter(|(call, count)| *count > 0 && !unrelated.contains(call));
        assert_eq!(more.collect::<Vec<_>>(), expected.map(|call| (call, 1)));
    }
}
