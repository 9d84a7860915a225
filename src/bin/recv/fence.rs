//! A second fence, behind the store's own rules: Landlock keeps this process to the folders that it needs, whatever
//! goes wrong in it. It counts for threads that start later, so it is drawn before any does.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, make_bitflags,
};
use parallel_transfer::path::Escaped;

/// Where this process may do what.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    /// Folders in which it makes, changes and removes files, folders and links. Devices and programs are for nobody.
    pub(crate) trees: Vec<PathBuf>,
    /// What it reads.
    pub(crate) readable: Vec<PathBuf>,
}

/// What the kernel made of a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drawn {
    /// All of it.
    Full,
    /// As much as it knows of.
    Partial,
    /// Nothing: it has no Landlock, or one that keeps hard links from being made (before Linux 5.19).
    None,
}

/// The latest rights that are ruled on; those of later kernels are not files'.
const KNOWN: ABI = ABI::V5;

/// What is needed in a folder that is written to.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | MakeSym | RemoveFile | RemoveDir | Refer
});

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// What the system's libraries read, what this program asks of its own process, and what tells this machine's files
/// from another's.
const OF_SYSTEM: [&str; 7] =
    ["/proc/self", "/proc/sys", "/sys/devices/system/cpu", "/dev/null", "/dev/urandom", "/etc/localtime", "/etc/machine-id"];

impl Fence {
    /// Draws it around this thread and those that it starts. What is not there is left out.
    ///
    /// # Errors
    /// The kernel knows of fences and refuses this one.
    pub(crate) fn draw(&self) -> Result<Drawn, RulesetError> {
        let mut rules = Ruleset::default()
            // Without it no hard link to a file in another folder could be made: rather none at all.
            .set_compatibility(CompatLevel::SoftRequirement)
            .handle_access(AccessFs::Refer)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))?
            .create()?;
        let writable = self.trees.iter().map(|path| (path.as_path(), WRITE));
        let readable = self.readable.iter().map(PathBuf::as_path).chain(OF_SYSTEM.map(Path::new)).map(|path| (path, READ));
        for (path, rights) in writable.chain(readable) {
            match PathFd::new(path) {
                Ok(at) => {
                    let of_kind = if path.is_dir() { rights } else { rights & AccessFs::from_file(KNOWN) };
                    rules = rules.add_rule(PathBeneath::new(at, of_kind))?;
                }
                Err(error) => tracing::debug!("fence: '{}' is left out: {error}", Escaped::path(path)),
            }
        }
        Ok(match rules.restrict_self()?.ruleset {
            RulesetStatus::FullyEnforced => Drawn::Full,
            RulesetStatus::PartiallyEnforced => Drawn::Partial,
            RulesetStatus::NotEnforced => Drawn::None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail; what is skipped is named")]
#[allow(clippy::disallowed_methods, reason = "a test is no peer")]
mod tests {
    use std::fs::{self, File};
    use std::io;

    use super::*;

    /// Runs `check` behind a fence around `trees`: in a thread of its own, which alone is fenced in.
    fn behind(trees: &[&Path], check: impl FnOnce() + Send) {
        let fence = Fence { trees: trees.iter().map(|path| path.to_path_buf()).collect(), readable: Vec::new() };
        std::thread::scope(|scope| {
            let fenced = scope.spawn(move || match fence.draw().unwrap() {
                Drawn::None => println!("SKIPPED: no Landlock here"),
                Drawn::Full | Drawn::Partial => check(),
            });
            fenced.join().unwrap();
        });
    }

    fn refused<T>(result: io::Result<T>) {
        let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::CrossesDevices];
        assert!(kinds.contains(&result.err().unwrap().kind()));
    }

    #[test]
    fn nothing_outside_can_be_opened_made_or_removed() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (inside, outside) = (inside.path(), outside.path());
        fs::write(outside.join("there"), "x").unwrap();
        fs::write(inside.join("here"), "x").unwrap();
        std::os::unix::fs::symlink(outside, inside.join("way out")).unwrap();
        behind(&[inside], || {
            refused(File::open("/etc/passwd"));
            refused(File::open(outside.join("there")));
            refused(File::open(inside.join("way out/there")));
            refused(File::create(outside.join("new")));
            refused(fs::remove_file(outside.join("there")));
            refused(fs::read_dir(outside));
            refused(fs::rename(inside.join("here"), outside.join("here")));
            refused(fs::hard_link(outside.join("there"), inside.join("there")));
        });
        assert_eq!(fs::read(outside.join("there")).unwrap(), b"x");
    }

    #[test]
    fn inside_all_is_as_without_it() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        behind(&[place.path()], || {
            fs::create_dir_all(at("a/b")).unwrap();
            fs::write(at("a/file"), "abc").unwrap();
            fs::rename(at("a/file"), at("a/b/moved")).unwrap();
            fs::hard_link(at("a/b/moved"), at("twin")).unwrap();
            File::options().write(true).open(at("twin")).unwrap().set_len(1).unwrap();
            std::os::unix::fs::symlink("twin", at("link")).unwrap();
            fs::remove_file(at("a/b/moved")).unwrap();
            fs::remove_dir(at("a/b")).unwrap();
            assert_eq!(fs::read(at("link")).unwrap(), b"a");
            drop(tempfile::tempfile_in(place.path()).unwrap());
            drop(File::open("/dev/null").unwrap());
        });
    }
}
