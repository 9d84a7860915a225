//! The end of a session: what is missing is named, links are made, folders get their attributes, and
//! all is brought to disk where that was asked for.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::session::Session;
use crate::limits::HEARTBEAT;
use crate::path::RemotePath;
use crate::protocol::Reply;
use crate::store::{Event, Pending, Store};

/// Ends `session`; `send` takes what is to be said meanwhile.
///
/// # Errors
/// Those of `send`. What could not be done is said, not returned.
pub(super) fn finish(store: &Store, session: &Session, send: &mut dyn FnMut(&Reply) -> io::Result<()>) -> io::Result<()> {
    if let Some(totals) = session.totals() {
        // It was ended before, and the answer was lost.
        return send(&Reply::Finished(totals));
    }
    let mut failed = Vec::new();
    for (path, incoming) in session.take_incoming() {
        let bytes: u64 = incoming.missing().iter().map(|range| range.end - range.start).sum();
        if !incoming.is_published() {
            failed.push((path, format!("{bytes} of its bytes never came")));
        }
    }
    let pending = std::mem::take::<Pending>(&mut session.pending.lock().unwrap_or_else(PoisonError::into_inner));
    let mut beaten = Instant::now();
    let mut broken = Ok(());
    let applied = pending.apply(store, session.on_existing(), &mut |event| {
        match event {
            Event::Going => {}
            Event::Failed(path, reason) => failed.push((below(path, &session.base), reason)),
            Event::Noted(path, note) => failed.push((below(path, &session.base), format!("is there, but {note}"))),
        }
        if beaten.elapsed() >= HEARTBEAT && broken.is_ok() {
            broken = send(&Reply::Heartbeat);
            beaten = Instant::now();
        }
    });
    broken?;
    if let Err(error) = applied {
        failed.push((RemotePath::root(), error.to_string()));
    }
    if session.open.syncs
        && let Err(error) = sync(store, send)?
    {
        failed.push((RemotePath::root(), format!("not all is known to be on disk: {error}")));
    }
    for (path, reason) in failed {
        session.counts.failed.add(1);
        send(&Reply::Missing { path, reason })?;
    }
    send(&Reply::Finished(session.end()))
}

/// A path below the root as the client knows it: below the session's folder.
fn below(path: &RemotePath, base: &RemotePath) -> RemotePath {
    path.strip(base).unwrap_or_else(RemotePath::root)
}

/// Syncs, which may take minutes, and says now and then that it goes on.
fn sync(store: &Store, send: &mut dyn FnMut(&Reply) -> io::Result<()>) -> io::Result<Result<(), crate::store::Error>> {
    let (done, changed) = (Mutex::new(false), Condvar::new());
    thread::scope(|scope| {
        let syncing = thread::Builder::new().name("sync".to_owned()).spawn_scoped(scope, || {
            let synced = store.sync();
            *done.lock().unwrap_or_else(PoisonError::into_inner) = true;
            changed.notify_all();
            synced
        })?;
        loop {
            let is_done = done.lock().unwrap_or_else(PoisonError::into_inner);
            let (is_done, _) =
                changed.wait_timeout_while(is_done, HEARTBEAT, |is_done| !*is_done).unwrap_or_else(PoisonError::into_inner);
            if *is_done {
                drop(is_done);
                return syncing.join().map_err(|_| io::Error::other("the thread that syncs failed"));
            }
            drop(is_done);
            send(&Reply::Heartbeat)?;
        }
    })
}
