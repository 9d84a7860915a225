//! What is asked for by name of a tree that is there: to change its names, to sum up a file, to tell how
//! much room there is; and to change the password of whose tree it is.

use std::io;
use std::time::Instant;

use super::accounts::Rights;
use super::audit::Audit;
use super::connection::Shared;
use super::connection::login::too_many;
use super::handlers::{Beating, Ending, beating, refused};
use super::homes::NotAdmitted;
use super::rights_of::{TO_READ, TO_REMOVE, refusal_for};
use super::session::Session;
use crate::digest::Hasher;
use crate::landing::NotTaken;
use crate::limits::STALE_AFTER;
use crate::path::RemotePath;
use crate::protocol::{Algorithm, Answer, QuotaSpace, Reply, Request, Secret, Space, Status};
use crate::stop::Stop;
use crate::store;

/// A request that is served here.
#[derive(Debug)]
pub(super) enum Act {
    Change(Change),
    Sum {
        path: RemotePath,
        algorithm: Algorithm,
    },
    Space,
    ChangePassword {
        old: Secret,
        new: Secret,
    },
    /// Any other.
    Unknown,
}

/// What changes the tree.
#[derive(Debug)]
pub(super) enum Change {
    Remove { path: RemotePath, is_recursive: bool },
    Rename { from: RemotePath, to: RemotePath },
    MakeDirectory { path: RemotePath, with_parents: bool },
}

impl Act {
    /// A request without the buffer that it came from.
    pub(super) fn of(request: Request<'_>) -> Self {
        match request {
            Request::Remove { path, is_recursive } => Self::Change(Change::Remove { path, is_recursive }),
            Request::Rename { from, to } => Self::Change(Change::Rename { from, to }),
            Request::MakeDirectory { path, with_parents } => Self::Change(Change::MakeDirectory { path, with_parents }),
            Request::Sum { path, algorithm } => Self::Sum { path, algorithm },
            Request::Space => Self::Space,
            Request::ChangePassword { old, new } => Self::ChangePassword { old, new },
            _ => Self::Unknown,
        }
    }
}

/// Does what was asked for; gives what is to be answered.
///
/// # Errors
/// Nobody at that address is listened to any more.
pub(super) fn serve(
    shared: Shared<'_>, session: &Session, act: Act, stream: &mut impl Beating, audit: &Audit<'_>,
) -> Result<Reply, Ending> {
    Ok(match act {
        Act::Change(change) => Reply::Answer(make(shared.stop, session, &change, stream, audit)),
        Act::Sum { path, algorithm } => sum(shared.stop, session, (&path, algorithm), stream),
        Act::Space => space(session),
        Act::ChangePassword { old, new } => Reply::Answer(change_password(shared, session, (&old, &new), audit)?),
        Act::Unknown => return Err(Ending::refused("not served here")),
    })
}

/// Tells the other end that work goes on, and ends it where the receiver or the job is to end, where what it
/// needs is not given any more, and where nobody waits for it: it is no part of a run that may come back.
fn going<'a>(
    stream: &'a mut impl Beating, session: &'a Session, stop: &'a Stop, needed: Rights,
) -> impl FnMut() -> io::Result<()> + 'a {
    let (mut beat, mut looked) = (beating(session, stop), Instant::now());
    move || {
        let over = session.over().map(str::to_owned);
        if let Some(why) = over.or_else(|| refusal_for(&session.home, needed)) {
            return Err(io::Error::other(why));
        }
        if looked.elapsed() >= STALE_AFTER {
            looked = Instant::now();
            if stream.is_reset() {
                return Err(io::Error::other("who asked for it has left"));
            }
        }
        beat(stream)
    }
}

fn make(stop: &Stop, session: &Session, change: &Change, stream: &mut impl Beating, audit: &Audit<'_>) -> Answer {
    let Some(_open) = session.landing.hold_open() else { return refused(&NotTaken::TooLate) };
    if session.open.is_dry {
        return refused(&NotTaken::OnlyAsking);
    }
    let store = &session.home.store;
    let (event, path) = match change {
        Change::Remove { path, .. } => ("remove", path),
        Change::Rename { from, .. } => ("rename", from),
        Change::MakeDirectory { path, .. } => ("mkdir", path),
    };
    let path = match session.landing.base.join(path) {
        Ok(path) => path,
        Err(error) => return refused(&error),
    };
    let made = match change {
        Change::Remove { is_recursive, .. } => {
            let removed = store.remove(&path, *is_recursive, &mut going(stream, session, stop, TO_REMOVE));
            removed.map(|()| audit.removed(&path)).map_err(|error| error.to_string())
        }
        Change::Rename { to, .. } => {
            let to = session.landing.base.join(to).map_err(store::Error::from);
            let renamed = to.and_then(|to| store.rename(&path, &to).map(|()| audit.renamed(&path, &to)));
            renamed.map_err(|error| error.to_string())
        }
        Change::MakeDirectory { with_parents, .. } => {
            let made = if *with_parents { store.make_directory(&path) } else { store.make_new_directory(&path) };
            made.map(|()| audit.made_folder(&path)).map_err(|error| error.to_string())
        }
    };
    match made {
        Ok(()) => Answer::of(Status::Stored),
        Err(reason) => {
            audit.refused_act(event, &path, &reason);
            Answer { status: Status::Refused, reason }
        }
    }
}

fn sum(stop: &Stop, session: &Session, (path, algorithm): (&RemotePath, Algorithm), stream: &mut impl Beating) -> Reply {
    let going = &mut going(stream, session, stop, TO_READ);
    let summed = session.landing.base.join(path).map_err(store::Error::from).and_then(|path| {
        let store = &session.home.store;
        match algorithm {
            Algorithm::Md5 => {
                let mut hasher = Hasher::default();
                store.sum_up(&path, &mut |bytes| hasher.update(bytes), going)?;
                Ok(hasher.finish().0.to_vec())
            }
            Algorithm::Blake3 => {
                let mut hasher = blake3::Hasher::new();
                store.sum_up(&path, &mut |bytes| _ = hasher.update(bytes), going)?;
                Ok(hasher.finalize().as_bytes().to_vec())
            }
        }
    });
    summed.map_or_else(|error| Reply::Answer(refused(&error)), Reply::Sum)
}

fn space(session: &Session) -> Reply {
    let store = &session.home.store;
    let quota = store.ledger().map(|ledger| {
        let (usage, limits) = (ledger.usage(), ledger.limits());
        QuotaSpace { bytes: usage.bytes, files: usage.files, bytes_max: limits.bytes, files_max: limits.files }
    });
    match store.disk_space() {
        Ok((free, size)) => Reply::Space(Space { quota, free, size }),
        Err(error) => Reply::Answer(refused(&error)),
    }
}

/// Changes the password of the account whose job this is, which goes on; its others end.
fn change_password(
    shared: Shared<'_>, session: &Session, (old, new): (&Secret, &Secret), audit: &Audit<'_>,
) -> Result<Answer, Ending> {
    let said = |reason: &str| Answer { status: Status::Refused, reason: reason.to_owned() };
    if session.home.owner.is_none() {
        return Ok(said("this receiver has no accounts"));
    }
    let (peer, tries_max) = (audit.peer(), shared.config.login_tries);
    let check = || shared.penalties.check(peer, tries_max, Instant::now()).map_err(too_many);
    check()?;
    let account = shared.homes.account_of(&session.home, old);
    if account.is_ok() {
        // Others may have guessed while this one's hash was computed.
        check()?;
    }
    let changed = account.and_then(|account| {
        session.go_on_through(account.generation, account.generation.saturating_add(1));
        let changed = shared.homes.change_password(&account, new);
        changed.inspect_err(|_| session.go_on_through(account.generation, account.generation))
    });
    let not = match changed {
        Ok(()) => {
            tracing::info!("{peer}: the password of {} was changed", session.home);
            audit.changed_password(Ok(()));
            return Ok(Answer::of(Status::Stored));
        }
        Err(not) => not,
    };
    let NotAdmitted { said: told, why, is_guess } = not;
    tracing::warn!("{peer}: the password of {} was not changed: {why}", session.home);
    audit.changed_password(Err(&why));
    if is_guess {
        let delay = shared.penalties.note(peer, tries_max, Instant::now()).map_err(too_many)?;
        shared.stop.wait(delay);
    }
    Ok(said(&told))
}
