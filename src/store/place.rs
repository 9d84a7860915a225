//! A file that was received, or a link, gets its name, in the place of whatever had it but a folder;
//! and the ledger learns what went by that.

use std::ffi::OsStr;

use super::charge::Charge;
use super::folders::{Folder, name_of};
use super::{Error, OnExisting, aside, jail, refusal, spelling, usage};
use crate::entry::Identity;
use crate::path::RemotePath;

/// What becomes of what is there, and what comes in its place, if that is a file.
pub(super) type Rule<'a> = (OnExisting, Option<&'a Identity>);

/// Gives the last name of `path` to what is called `temp` in the same folder. What it is charged with
/// is settled by that, and `charge` taken; if it can't have the name, all is as before.
///
/// # Errors
/// It can't have the name; or there is no room for it beside what it was to replace, which is
/// elsewhere by now.
pub(super) fn give_name(
    folder: &Folder, temp: &OsStr, path: &RemotePath, rule: Rule<'_>, charge: &mut Option<Charge>,
) -> Result<(), Error> {
    let _spelled = spelling::claim(folder, temp, path)?;
    let Some(charged) = charge.as_mut().filter(|charge| charge.is_counted()) else {
        rename(folder, temp, path, rule, || Ok(()))?;
        *charge = None;
        return Ok(());
    };
    let name = name_of(path);
    // Where nothing has the name this costs no more than the rename that replaces.
    let allowance = charged.allowance();
    if !charged.is_credited() {
        // Whoever takes the name again gives back what is settled by then.
        let _turn = allowance.share_turn();
        if jail::rename_to_new(folder.as_fd(), temp, name).is_ok() {
            charge.take().into_iter().for_each(|charge| charge.settle(None));
            return Ok(());
        }
    }
    // Of two who replace one file at once, the second replaces the first one's.
    let _turn = allowance.take_turn();
    let mut old = None;
    rename(folder, temp, path, rule, || {
        old = usage::behind(folder.as_fd(), name);
        charged.expect(path, old.map(|(inode, _)| inode))
    })?;
    charge.take().into_iter().for_each(|charge| charge.settle(old));
    Ok(())
}

/// Renames, once the old version is kept aside where that was asked for and `check` has no objection.
fn rename(
    folder: &Folder, temp: &OsStr, path: &RemotePath, (on_existing, new): Rule<'_>, check: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let (folder, name) = (folder.as_fd(), name_of(path));
    let kept = match on_existing {
        OnExisting::Replace => None,
        OnExisting::KeepAside => aside::keep_aside(folder, name, path, new)?,
    };
    let renamed = check().and_then(|()| jail::rename_over(folder, temp, name).map_err(|errno| refusal(path, "publish", errno)));
    if let (Err(_), Some(kept)) = (&renamed, kept) {
        aside::put_back(folder, &kept, name);
    }
    renamed
}
