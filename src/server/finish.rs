//! The end of a session: what is missing is named, links are made, folders get their attributes, and
//! all is brought to disk where that was asked for. It is done once, and told as often as it is asked.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::Instant;

use super::audit::Audit;
use super::session::Session;
use crate::entry::Kind;
use crate::limits::{FAILURES_KEPT_MAX, HEARTBEAT};
use crate::path::RemotePath;
use crate::protocol::{Reply, Totals};
use crate::ranges;
use crate::store::{Event, Pending, Store};

/// How far the end of a session has come.
#[derive(Debug, Default)]
pub(super) struct Finish {
    state: Mutex<State>,
    changed: Condvar,
    /// Has the end begun? Held by whoever changes the tree meanwhile.
    is_shut: RwLock<bool>,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Open,
    Running,
    Done(Arc<Outcome>),
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The first entries that are not as they should be. All are counted.
    failed: Vec<(RemotePath, String)>,
    pub(super) totals: Totals,
}

impl Finish {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds off the end of the session while the tree is changed; `None` where it has begun. What a
    /// connection that was given up still held must not be written over what came after.
    pub(super) fn hold_open(&self) -> Option<RwLockReadGuard<'_, bool>> {
        let is_shut = self.is_shut.read().unwrap_or_else(PoisonError::into_inner);
        (!*is_shut).then_some(is_shut)
    }

    /// Is the session being ended, or has it?
    pub(super) fn has_begun(&self) -> bool {
        !matches!(*self.lock(), State::Open)
    }

    /// How it ended, once it has.
    pub(super) fn outcome(&self) -> Option<Arc<Outcome>> {
        match &*self.lock() {
            State::Done(outcome) => Some(Arc::clone(outcome)),
            State::Open | State::Running => None,
        }
    }
}

/// Takes what is to be said to the client; once that has failed nothing more is.
struct Speaker<'a> {
    send: &'a mut dyn FnMut(&Reply) -> io::Result<()>,
    spoke: Instant,
    result: io::Result<()>,
}

impl Speaker<'_> {
    fn say(&mut self, reply: &Reply) {
        if self.result.is_ok() {
            self.result = (self.send)(reply);
            self.spoke = Instant::now();
        }
    }

    /// Says now and then that work goes on.
    fn beat(&mut self) {
        if self.spoke.elapsed() >= HEARTBEAT {
            self.say(&Reply::Heartbeat);
        }
    }
}

/// Ends `session`, or waits until another connection has ended it, and says what came of it.
///
/// # Errors
/// Those of `send`. The session ends all the same.
pub(super) fn finish(session: &Session, audit: &Audit<'_>, send: &mut dyn FnMut(&Reply) -> io::Result<()>) -> io::Result<()> {
    let mut speaker = Speaker { send, spoke: Instant::now(), result: Ok(()) };
    let outcome = loop {
        let mut state = session.finish.lock();
        match &*state {
            State::Done(outcome) => break Arc::clone(outcome),
            State::Open => {
                *state = State::Running;
                drop(state);
                let outcome = Arc::new(work(session, audit, &mut speaker));
                audit.job_ended(&outcome.totals);
                *session.finish.lock() = State::Done(Arc::clone(&outcome));
                session.finish.changed.notify_all();
                break outcome;
            }
            State::Running => {
                drop(session.finish.changed.wait_timeout(state, HEARTBEAT).unwrap_or_else(PoisonError::into_inner));
                speaker.beat();
            }
        }
    };
    for (path, reason) in &outcome.failed {
        speaker.say(&Reply::Missing { path: path.clone(), reason: reason.clone() });
    }
    speaker.say(&Reply::Finished(outcome.totals));
    speaker.result
}

fn work(session: &Session, audit: &Audit<'_>, speaker: &mut Speaker<'_>) -> Outcome {
    let store = &session.home.store;
    *session.finish.is_shut.write().unwrap_or_else(PoisonError::into_inner) = true;
    // Before folders get their times: a copy that comes late, or never, would change them when it goes.
    session.discard_in_one_piece();
    let mut failed = Vec::new();
    let mut fail = |path: &RemotePath, reason: String| {
        session.counts.failed.add(1);
        audit.failed(path, &reason);
        if failed.len() < FAILURES_KEPT_MAX {
            // As the client knows it: below the session's folder.
            failed.push((path.strip(&session.base).unwrap_or_else(RemotePath::root), reason));
        }
    };
    for incoming in session.take_incoming() {
        let path = incoming.path();
        if session.is_published(path, incoming.identity()) {
            // A late copy of a piece: the file is whole.
            incoming.discard();
            continue;
        }
        // What came of a file after it was voided is not missed.
        if !incoming.is_published() && !session.is_voided(path, incoming.identity()) {
            fail(path, format!("{} of its bytes never came", ranges::total(&incoming.missing())));
        }
    }
    let pending = std::mem::take::<Pending>(&mut session.pending.lock().unwrap_or_else(PoisonError::into_inner));
    let applied = pending.apply(store, &session.made, session.on_existing(), &mut |event| {
        match event {
            Event::Made(entry) if matches!(entry.kind, Kind::Directory { .. }) => {}
            Event::Made(entry) => {
                session.counts.links.add(1);
                audit.made_link(&entry.path);
            }
            Event::Failed(path, reason) => fail(path, reason),
            // A folder that was there before may be somebody else's.
            Event::Noted(path, _) if *path == session.base && !session.is_new => {}
            Event::Noted(path, note) => fail(path, format!("is there, but {note}")),
        }
        speaker.beat();
    });
    if let Err(error) = applied {
        fail(&session.base, format!("not all links and folders are as they should be: {error}"));
    }
    if session.open.syncs
        && let Err(error) = sync(store, speaker)
    {
        fail(&session.base, format!("not all is known to be on disk: {error}"));
    }
    Outcome { failed, totals: session.totals() }
}

/// Syncs, which may take minutes, and says now and then that it goes on.
fn sync(store: &Store, speaker: &mut Speaker<'_>) -> anyhow::Result<()> {
    let (done, changed) = (Mutex::new(false), Condvar::new());
    thread::scope(|scope| {
        let syncing = thread::Builder::new().name("sync".to_owned()).spawn_scoped(scope, || {
            let synced = store.sync();
            *done.lock().unwrap_or_else(PoisonError::into_inner) = true;
            changed.notify_all();
            synced
        })?;
        let mut is_done = done.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_done {
            is_done = changed.wait_timeout(is_done, HEARTBEAT).unwrap_or_else(PoisonError::into_inner).0;
            if !*is_done {
                drop(is_done);
                speaker.beat();
                is_done = done.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(is_done);
        syncing.join().map_err(|_| anyhow::anyhow!("the thread that syncs failed"))?.map_err(Into::into)
    })
}
