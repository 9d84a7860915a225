//! All that is being received or was left, below any root: what the indexes of a state folder tell.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::index::{self, Found};
use super::leftovers::Rule;
use super::{Leftover, Store, Umask};
use crate::limits::UNCLAIMED_AFTER;
use crate::path::RemotePath;

/// What is told of indexes and what they lead to.
#[derive(Debug)]
pub enum Survey<'a> {
    /// A file below this root.
    File(&'a Path, Leftover),
    /// What is below this root could not be looked at, or not all of it.
    Unknown(&'a Path, io::Error),
}

/// Tells of each file under a temporary name that the indexes below `state_folder` lead to, of one root
/// or of all. What is as old as `clean` and not in use is removed, if that is given.
///
/// # Errors
/// The state folder can't be listed.
pub fn survey(
    state_folder: &Path, root: Option<&Path>, clean: Option<Duration>, umask: Umask, tell: &mut dyn FnMut(Survey<'_>),
) -> io::Result<()> {
    let root = root.map(|root| root.canonicalize().or_else(|_| std::path::absolute(root))).transpose()?;
    let found = index::find_all(state_folder, |path| root.as_ref().is_none_or(|root| root == path))?;
    let mut by_root: BTreeMap<PathBuf, Vec<Found>> = BTreeMap::new();
    for found in found {
        by_root.entry(found.root.clone()).or_default().push(found);
    }
    for (root, found) in by_root {
        let store = Store::open(&root, umask);
        match store.and_then(|store| {
            survey_root(&store, state_folder, found, clean, &mut |leftover| tell(Survey::File(&root, leftover)))
        }) {
            Ok(()) => {}
            Err(error) => tell(Survey::Unknown(&root, error)),
        }
    }
    Ok(())
}

fn survey_root(
    store: &Store, state_folder: &Path, mut found: Vec<Found>, clean: Option<Duration>, tell: &mut dyn FnMut(Leftover),
) -> io::Result<()> {
    let mut folders = BTreeSet::<RemotePath>::new();
    for found in &mut found {
        while let Some(folder) = found.next_folder()? {
            folders.insert(folder);
        }
    }
    let ended: BTreeSet<u64> = found.iter().filter(|found| !found.is_alive).map(|found| found.half).collect();
    let is_claimed = |half| !ended.contains(&half) && index::is_there(state_folder, half);
    let rule = Rule {
        ended: &ended,
        ended_after: clean,
        kept_after: clean,
        unclaimed_after: UNCLAIMED_AFTER,
        is_claimed: &is_claimed,
        reads_journals: true,
    };
    let (mut stays, mut failed) = (false, None);
    for folder in &folders {
        let looked = store.look_through(folder, &rule, &mut |leftover| {
            stays |= !leftover.is_removed;
            tell(leftover);
        });
        failed = failed.or_else(|| looked.err());
    }
    if clean.is_some() && !stays && failed.is_none() {
        found.into_iter().filter(|found| !found.is_alive).for_each(Found::remove);
    }
    failed.map_or(Ok(()), Err)
}
