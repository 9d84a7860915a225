//! The end of a session: what is missing is named, links are made, folders get their attributes, and
//! all is brought to disk where that was asked for. It is done once, and told as often as it is asked.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::audit::Audit;
use super::session::Session;
use crate::landing::End;
use crate::limits::{FAILURES_KEPT_MAX, HEARTBEAT};
use crate::path::RemotePath;
use crate::protocol::{Reply, Totals};
use crate::store::Store;

/// How far the end of a session has come.
#[derive(Debug, Default)]
pub(super) struct Finish {
    state: Mutex<State>,
    changed: Condvar,
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
    let (store, landing) = (&session.home.store, &session.landing);
    let mut failed = Vec::new();
    let mut tell = |end: End<'_>| match end {
        End::Linked(path) => audit.made_link(path),
        End::Failed(path, reason) => {
            audit.failed(path, &reason);
            if failed.len() < FAILURES_KEPT_MAX {
                // As the client knows it: below the session's folder.
                failed.push((path.strip(&landing.base).unwrap_or_else(RemotePath::root), reason));
            }
        }
        End::Going => speaker.beat(),
    };
    landing.end(store, &mut tell, |tell| sync(store, tell));
    Outcome { failed, totals: landing.counts.totals() }
}

/// Syncs, which may take minutes, and says now and then that it goes on.
fn sync(store: &Store, tell: &mut dyn FnMut(End<'_>)) -> anyhow::Result<()> {
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
                tell(End::Going);
                is_done = done.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(is_done);
        syncing.join().map_err(|_| anyhow::anyhow!("the thread that syncs failed"))?.map_err(Into::into)
    })
}
