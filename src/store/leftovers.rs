//! What processes that were killed left under temporary names below the root: found by their indexes,
//! removed where nobody can go on with it or nobody did for long.
//!
//! Nothing is touched but regular files of such names. Whoever goes on with a file holds its lock, so
//! what has a lock is let be; what is about to be removed is locked first.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, FlockOperation, OFlags, Statx, StatxTimestamp};
use rustix::io::Errno;

use super::index::{Found, Index};
use super::journal::Journal;
use super::quota::Usage;
use super::temp::TempName;
use super::{Store, index, jail, lock, usage};
use crate::limits::{LEFTOVERS_MAX, UNCLAIMED_AFTER};
use crate::path::{Escaped, RemotePath};

/// A file under a temporary name.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// The folder that it is in.
    pub folder: RemotePath,
    /// Its name there.
    pub name: String,
    /// Which file it is to be and how many of its bytes are there, if it has a journal that says so.
    pub journal: Option<(RemotePath, u64)>,
    /// Bytes that it will have, or has.
    pub size: u64,
    /// The time since its last change.
    pub age: Duration,
    /// May a process be at it?
    pub in_use: bool,
    /// Was it removed just now?
    pub is_removed: bool,
    /// Bytes that it counts as, where it counts.
    pub(super) counted: Option<u64>,
}

/// What is to be done with files under temporary names.
pub(super) struct Rule<'a> {
    /// Whose names begin so have ended.
    pub(super) ended: &'a BTreeSet<u64>,
    /// From which age on what it left is removed, if it is.
    pub(super) ended_after: Option<Duration>,
    /// From which age on what can be gone on with is removed, if it is.
    pub(super) kept_after: Option<Duration>,
    /// From which age on at the earliest what may be a living process's that has no index.
    pub(super) unclaimed_after: Duration,
    /// Is there a process, or the index of one, whose names begin so?
    pub(super) is_claimed: &'a dyn Fn(u64) -> bool,
    /// Is it to be told what journals say?
    pub(super) reads_journals: bool,
}

impl Store {
    /// Records from here on in which folders temporary names may be, in an index in `state_folder`; and
    /// finds those of earlier processes, for [`Store::adopt`]. Where there is no such folder, or no index
    /// can be made in it, that is logged, and all else is as it would be.
    pub fn keep_index_below(&mut self, state_folder: Option<&Path>) {
        let Some(folder) = state_folder else {
            tracing::debug!("no index of incoming files: there is no state folder, for HOME is not set");
            return;
        };
        if let Err(error) = self.keep_index(folder) {
            let folder = Escaped::path(folder);
            tracing::warn!(
                "no index of incoming files in '{folder}': {error}; what an interrupted run leaves is not found again"
            );
        }
    }

    /// The roots below which earlier processes may have left something, as their indexes in `state_folder`
    /// say.
    #[must_use]
    pub fn roots_with_leftovers(state_folder: &Path) -> BTreeSet<PathBuf> {
        let roots = RefCell::new(BTreeSet::new());
        let found = index::find_all(state_folder, |root| {
            roots.borrow_mut().insert(root.to_owned());
            false
        });
        if let Err(error) = found {
            tracing::debug!("can't look for indexes in '{}': {error}", Escaped::path(state_folder));
        }
        roots.into_inner()
    }

    fn keep_index(&mut self, state_folder: &Path) -> io::Result<()> {
        let state_folder = std::path::absolute(state_folder)?;
        let root = self.path().to_owned();
        self.index = Some(Index::create(&state_folder, self.temp_names.half(), &root, &self.boot)?);
        let mut found = index::find_all(&state_folder, |path| path == root)?;
        found.retain(|found| !found.is_alive);
        self.adopted = found.into();
        Ok(())
    }

    /// Looks through the folders in which earlier processes may have left something. Small files go; those
    /// with a journal that nobody went on with for as long as `keep` go as well, and the others stay.
    /// `going` is called between folders, and says whether to go on.
    pub fn adopt(&self, keep: Duration, going: &mut dyn FnMut() -> bool) {
        let Some(own) = &self.index else { return };
        loop {
            let Some(found) = lock(&self.adopted).pop() else { return };
            if let Err(error) = self.adopt_one(own, found, keep, going) {
                tracing::debug!("can't read an index of incoming files: {error}");
            }
        }
    }

    fn adopt_one(&self, own: &Index, mut found: Found, keep: Duration, going: &mut dyn FnMut() -> bool) -> io::Result<()> {
        let is_claimed = |half| own.has_neighbour(half);
        let rule = Rule {
            ended: &[found.half].into(),
            ended_after: Some(Duration::ZERO),
            kept_after: Some(keep),
            unclaimed_after: UNCLAIMED_AFTER,
            is_claimed: &is_claimed,
            reads_journals: false,
        };
        let mut is_noted = true;
        while let Some(folder) = found.next_folder()? {
            if !going() {
                return Ok(());
            }
            let mut stays = false;
            let looked = self.look_through(&folder, &rule, &mut |leftover| {
                stays |= !leftover.is_removed;
                if leftover.is_removed {
                    tracing::info!("{}/{} was left by a receiver that was killed: removed", leftover.folder, leftover.name);
                }
            });
            if stays || looked.is_err() {
                is_noted &= own.note(folder.as_bytes());
                self.shared.note_kept_in(folder);
            }
        }
        // What stays is known by at least one index at any time.
        if is_noted {
            found.remove();
        }
        Ok(())
    }

    /// Ends the index in order: it stays only where something is left that can be gone on with.
    pub fn end_index(&self) {
        let Some(own) = &self.index else { return };
        let is_claimed = |half| own.has_neighbour(half);
        let rule = Rule {
            ended: &BTreeSet::new(),
            ended_after: None,
            kept_after: None,
            unclaimed_after: UNCLAIMED_AFTER,
            is_claimed: &is_claimed,
            reads_journals: false,
        };
        let stays_in = |folder: &RemotePath| {
            let mut stays = false;
            self.look_through(folder, &rule, &mut |_| stays = true).is_err() || stays
        };
        if self.shared.take_kept().is_some_and(|kept| !kept.iter().any(stays_in)) {
            own.remove();
        }
    }

    /// Tells of each file under a temporary name in a folder, and does with it what is to be done. One
    /// that is gone, or no folder any more, has none. What is another process's small file is not told.
    ///
    /// # Errors
    /// The folder can't be looked through, or not all of it at once.
    pub(super) fn look_through(&self, folder: &RemotePath, rule: &Rule<'_>, tell: &mut dyn FnMut(Leftover)) -> io::Result<()> {
        let opened = match jail::open_readable(self.root.as_fd(), folder.as_path()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => return Ok(()),
            opened => opened?,
        };
        self.look_through_open(opened.as_fd(), folder, rule, tell)
    }

    /// Removes what is under temporary names in an open folder and nobody is at.
    ///
    /// # Errors
    /// As [`Store::look_through`].
    pub(super) fn remove_leftovers(&self, opened: BorrowedFd<'_>, folder: &RemotePath) -> io::Result<()> {
        let is_claimed = |half| self.is_claimed(half);
        let rule = Rule {
            ended: &BTreeSet::new(),
            ended_after: None,
            kept_after: Some(Duration::ZERO),
            unclaimed_after: UNCLAIMED_AFTER,
            is_claimed: &is_claimed,
            reads_journals: false,
        };
        self.look_through_open(opened, folder, &rule, &mut |_| {})
    }

    /// Is there a process, this or another, whose temporary names begin with `half`?
    pub(super) fn is_claimed(&self, half: u64) -> bool {
        half == self.temp_names.half() || self.index.as_ref().is_some_and(|index| index.has_neighbour(half))
    }

    fn look_through_open(
        &self, opened: BorrowedFd<'_>, folder: &RemotePath, rule: &Rule<'_>, tell: &mut dyn FnMut(Leftover),
    ) -> io::Result<()> {
        let mut names = BTreeSet::new();
        for entry in rustix::fs::Dir::read_from(opened)? {
            names.extend(TempName::parse(entry?.file_name().to_bytes()));
            if names.len() > LEFTOVERS_MAX {
                break;
            }
        }
        for temp in names.iter().take(LEFTOVERS_MAX) {
            // Whoever begins to receive a file here at this moment has it before or behind us.
            let _turn = lock(&self.shared.files);
            if let Some(leftover) = look_after(opened, *temp, folder, rule) {
                if let (true, Some(bytes)) = (leftover.is_removed, leftover.counted) {
                    self.give_back(Usage::file(bytes));
                }
                tell(leftover);
            }
        }
        if names.len() > LEFTOVERS_MAX { Err(io::Error::other("too many files being received in it")) } else { Ok(()) }
    }
}

/// What is to be done with one file under a temporary name, and its journal; none where there is none.
fn look_after(above: BorrowedFd<'_>, temp: TempName, folder: &RemotePath, rule: &Rule<'_>) -> Option<Leftover> {
    let about = match jail::look(above, temp.as_name()) {
        Ok(about) => regular(about)?,
        Err(Errno::NOENT) => {
            if rule.kept_after.is_some() {
                remove_lone_journal(above, temp);
            }
            return None;
        }
        Err(_) => return None,
    };
    let name = temp.as_name().to_string_lossy().into_owned();
    let age = age_of(&about.stx_mtime);
    let (journal, in_use, is_removed) = (None, false, false);
    let counted = usage::only_name(&about).then_some(about.stx_size);
    let size = about.stx_size;
    let mut leftover = Leftover { folder: folder.clone(), name, journal, size, age, in_use, is_removed, counted };
    let has_journal = || jail::look(above, temp.journal().as_name()).is_ok_and(|about| regular(about).is_some());
    let is_old = |age, after: Option<Duration>| after.is_some_and(|after| age >= after);
    if !has_journal() {
        if rule.ended.contains(&temp.half()) {
            // Nobody else makes such names.
            leftover.is_removed = is_old(age, rule.ended_after) && jail::remove(above, temp.as_name()).is_ok();
            return Some(leftover);
        }
        if (rule.is_claimed)(temp.half()) {
            leftover.in_use = true;
            return rule.reads_journals.then_some(leftover);
        }
    }
    let open = |access| jail::open_child_for(above, temp.as_name(), access);
    let file = open(OFlags::RDWR).or_else(|_| open(OFlags::RDONLY));
    let locked = file.as_ref().map_err(|errno| *errno).and_then(|file| {
        rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)?;
        jail::look_at(file.as_fd())
    });
    leftover.in_use = matches!(locked, Err(Errno::WOULDBLOCK));
    if rule.reads_journals
        && let Ok(journal) = jail::open_child_file(above, temp.journal().as_name())
    {
        leftover.journal = Journal::look(&journal).unwrap_or_default();
    }
    let Ok(locked) = locked else { return Some(leftover) };
    // It may have got its own name meanwhile, and another one this.
    let is_it = jail::look(above, temp.as_name()).is_ok_and(|now| jail::is_one(&now, &locked));
    if !is_it {
        return None;
    }
    if has_journal() {
        if is_old(age, rule.kept_after) {
            leftover.counted = leftover.counted.map(|_| usage::of_incoming(above, temp, &about));
            // The file is removed last: without its lock another may have the journal.
            let gone = jail::remove(above, temp.journal().as_name()).and_then(|()| jail::remove(above, temp.as_name()));
            leftover.is_removed = gone.is_ok();
        }
    } else if is_old(age.min(age_of(&about.stx_ctime)), Some(rule.unclaimed_after)) {
        leftover.is_removed = is_old(age, rule.kept_after) && jail::remove(above, temp.as_name()).is_ok();
    } else {
        // Whose it is nobody knows.
        leftover.in_use = true;
    }
    Some(leftover)
}

/// Removes a journal whose file is gone: under the lock of a file of that name, for whoever begins one
/// makes the file first.
fn remove_lone_journal(above: BorrowedFd<'_>, temp: TempName) {
    let journal = temp.journal();
    let is_there = || jail::look(above, journal.as_name()).is_ok_and(|about| regular(about).is_some());
    if !is_there() {
        return;
    }
    let Ok(file) = jail::create_child(above, temp.as_name(), OFlags::RDWR, 0o600) else { return };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = jail::remove(above, journal.as_name());
        let _ = jail::remove(above, temp.as_name());
    }
}

/// Is it a regular file?
fn regular(about: Statx) -> Option<Statx> {
    (FileType::from_raw_mode(about.stx_mode.into()) == FileType::RegularFile).then_some(about)
}

/// The time since then; none where that is to come.
fn age_of(time: &StatxTimestamp) -> Duration {
    #[allow(clippy::disallowed_methods, reason = "files have their times by this clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    now.saturating_sub(Duration::new(seconds, time.tv_nsec.min(999_999_999)))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may look at files and the time")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

    use super::super::yard::Yard;
    use super::*;

    const HALF: u64 = 0xabc;

    fn name(number: u64) -> String {
        format!(".ptf-{HALF:016x}{number:016x}")
    }

    /// Ten seconds ago.
    fn make_old(yard: &Yard, name: &str) {
        #[allow(clippy::disallowed_methods, reason = "files have their times by this clock")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let time = Timespec { tv_sec: now - 10, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, yard.at(name), &times, AtFlags::empty()).unwrap();
    }

    /// What is told of the root, by name: is it removed, is it in use?
    fn look(yard: &Yard, rule: &Rule<'_>) -> Vec<(String, bool, bool)> {
        let mut told = Vec::new();
        yard.store
            .look_through(&RemotePath::root(), rule, &mut |file| told.push((file.name, file.is_removed, file.in_use)))
            .unwrap();
        told
    }

    fn rule<'a>(ended: &'a BTreeSet<u64>, is_claimed: &'a dyn Fn(u64) -> bool, after: Duration) -> Rule<'a> {
        let (ended_after, kept_after) = (Some(Duration::ZERO), Some(after));
        Rule { ended, ended_after, kept_after, unclaimed_after: Duration::ZERO, is_claimed, reads_journals: false }
    }

    #[test]
    fn what_is_nobodys_goes_when_it_is_old_and_what_is_somebodys_stays() {
        let yard = Yard::new();
        let (nobody, minute, second) = (BTreeSet::new(), Duration::from_secs(60), Duration::from_secs(1));
        fs::write(yard.at(name(1)), "x").unwrap();
        make_old(&yard, &name(1));
        let claimed = |half| half == HALF;
        let told = |is_removed, in_use| vec![(name(1), is_removed, in_use)];
        assert_eq!(look(&yard, &rule(&nobody, &claimed, Duration::ZERO)), []);
        assert_eq!(look(&yard, &rule(&nobody, &|_| false, minute)), told(false, false));
        // Nobody can set the time of its last change of any kind.
        let careful = Rule { unclaimed_after: minute, ..rule(&nobody, &|_| false, Duration::ZERO) };
        assert_eq!(look(&yard, &careful), told(false, true));
        let file = jail::open_child_file(yard.store.root.as_fd(), name(1).as_ref()).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).unwrap();
        assert_eq!(look(&yard, &rule(&nobody, &|_| false, second)), told(false, true));
        drop(file);
        assert_eq!(look(&yard, &rule(&nobody, &|_| false, second)), told(true, false));
        // Its process has ended: whose it is is known, and it may be young.
        fs::write(yard.at(name(2)), "x").unwrap();
        assert_eq!(look(&yard, &rule(&[HALF].into(), &claimed, minute)), [(name(2), true, false)]);
        yard.assert_clean();
    }

    #[test]
    fn a_journal_goes_with_its_file_or_without_one_and_never_that_of_a_link() {
        let yard = Yard::new();
        let journal = |number| format!("{}j", name(number));
        for number in 1..=4 {
            fs::write(yard.at(journal(number)), "x").unwrap();
        }
        fs::write(yard.at(name(1)), "x").unwrap();
        make_old(&yard, &name(1));
        fs::write(yard.at(name(2)), "x").unwrap();
        symlink("nowhere", yard.at(name(3))).unwrap();
        let (nobody, second) = (BTreeSet::new(), Duration::from_secs(1));
        // With a journal it can be gone on with, whosever name it has.
        let told = look(&yard, &rule(&[HALF].into(), &|_| true, second));
        assert_eq!(told, [(name(1), true, false), (name(2), false, false)]);
        let mut left: Vec<_> =
            fs::read_dir(yard.at("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [name(2), journal(2), name(3), journal(3)]);
        fs::write(yard.at(journal(4)), "x").unwrap();
        assert_eq!(look(&yard, &Rule { kept_after: None, ..rule(&nobody, &|_| false, second) }), [(name(2), false, false)]);
        assert!(yard.at(journal(4)).exists());
    }
}
