//! Jobs in progress: what a client opened, found again by its token from each of its connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Config;
use super::finish::Finish;
use super::homes::{Admitted, Home};
use crate::landing::{Landing, Rules};
use crate::limits::SESSION_LINGER;
use crate::net::congestion::Congestion;
use crate::path::RemotePath;
use crate::progress::Counter;
use crate::protocol::{BUSY, Credential, Open, Purpose, Token, Totals};
use crate::stop::Stop;
use crate::store::Made;

/// All sessions of a receiver.
#[derive(Debug)]
pub(super) struct Sessions {
    by_token: Mutex<HashMap<Token, Arc<Session>>>,
    /// How many there were, those that ended included.
    opened: Counter,
    /// A session was opened or ended.
    changed: Condvar,
    /// The ticket of the one job that is served, where it is only one.
    ticket: Option<Token>,
}

/// One job.
#[derive(Debug)]
pub(super) struct Session {
    /// The tree that it works in.
    pub(super) home: Arc<Home>,
    /// Which it is of this receiver's, for its owner: unlike the token it is no secret.
    pub(super) number: u64,
    /// What the account was when it was opened, or when its password was changed here; and what it is to
    /// be by that.
    generation: AtomicI64,
    next_generation: AtomicI64,
    /// Where what it brings lands.
    pub(super) landing: Landing,
    /// What the client asked for.
    pub(super) open: Open,
    /// How segments go to its client, and to whoever its connections are passed on to.
    pub(super) congestion: Congestion,
    pub(super) congestion_beyond: Arc<Congestion>,
    connections: AtomicUsize,
    /// Is a connection of it passed on, or was one?
    is_passed_on: AtomicBool,
    opened: Instant,
    /// When something was last done for it, in milliseconds since it was opened.
    active_ms: AtomicU64,
    is_idle: AtomicBool,
    left: Mutex<Option<Instant>>,
    /// How it ends.
    pub(super) finish: Finish,
}

/// A connection's place in a session, left when dropped.
#[derive(Debug)]
pub(super) struct Attached<'a> {
    pub(super) session: Arc<Session>,
    sessions: &'a Sessions,
}

impl Sessions {
    pub(super) fn new(ticket: Option<Token>) -> Self {
        Self { by_token: Mutex::default(), opened: Counter::default(), changed: Condvar::new(), ticket }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Token, Arc<Session>>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are, and how many there were so far.
    pub(super) fn count(&self) -> (usize, u64) {
        (self.lock().len(), self.opened.sum())
    }

    /// May a session be opened with this credential?
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admit(&self, credential: &Credential) -> Result<(), String> {
        match (&self.ticket, credential) {
            (None, _) => Ok(()),
            (Some(ticket), Credential::Ticket(shown)) if is_same(ticket, shown) => Ok(()),
            (Some(_), _) => Err("this receiver serves one job, whose ticket was not shown (--ticket_file)".to_owned()),
        }
    }

    /// Marks the sessions for which nothing was done for as long as `idle`; true if there are any.
    pub(super) fn limit_idle(&self, idle: Duration) -> bool {
        let sessions = self.lock();
        sessions.values().for_each(|session| session.limit_idle(idle));
        sessions.values().any(|session| session.over().is_some())
    }

    /// Forgets the sessions that nobody works on any more; their unfinished files go with them.
    pub(super) fn sweep(&self) {
        // The one job that is served is waited for.
        let may_go = |session: &Session| self.ticket.is_none() || !session.counts_as_job();
        let stale: Vec<_> = self.lock().extract_if(|_, session| may_go(session) && session.is_stale()).collect();
        stale.iter().for_each(|(_, session)| session.let_folders_go());
    }

    /// Forgets the sessions whose accounts are no more what they were.
    pub(super) fn end_over(&self) {
        let over: Vec<_> = self.lock().extract_if(|_, session| session.over().is_some()).collect();
        over.iter().for_each(|(_, session)| session.let_folders_go());
        self.changed.notify_all();
    }

    /// Forgets all sessions, at the end.
    pub(super) fn end_all(&self) {
        let all = std::mem::take(&mut *self.lock());
        all.values().for_each(|session| session.let_folders_go());
    }

    /// Opens a session, or finds it where it is open already; says which. `make_base` makes the folder
    /// of a new one, and says whether it was not there before; there may be as many as `config` says.
    ///
    /// # Errors
    /// There are too many, or one with another folder has this token, or the one job was begun.
    pub(super) fn open(
        &self, admitted: &Admitted, open: Open, (base, config): (RemotePath, &Config),
        make_base: impl FnOnce(&RemotePath, &Made) -> Result<bool, String>,
    ) -> Result<(Attached<'_>, bool), String> {
        let home = &admitted.home;
        let mut sessions = self.lock();
        if let Some(session) = sessions.get(&open.token) {
            if !Arc::ptr_eq(&session.home, home) || session.landing.base != base || session.open != open {
                return Err("another session has this token".to_owned());
            }
            return Ok((self.attach(session), true));
        }
        if self.ticket.is_some() && sessions.values().any(|session| session.counts_as_job()) {
            return Err(BEGUN.to_owned());
        }
        // Those that have ended stay a moment, for who asks again what came of them.
        let max = config.sessions_max;
        let open_now = || sessions.values().filter(|session| !session.has_ended());
        if open_now().count() >= max || sessions.len() >= max.saturating_mul(ENDED_FACTOR) {
            return Err(format!("{BUSY}{max} jobs are being served; try again later"));
        }
        let max = config.account_sessions_max;
        if home.owner.is_some() && open_now().filter(|session| Arc::ptr_eq(&session.home, home)).count() >= max {
            return Err(format!("{BUSY}{max} jobs of this account are being served; try again later"));
        }
        let made = Arc::default();
        let is_new = make_base(&base, &made)?;
        let token = open.token;
        let rules = Rules { checksum: open.checksum, keeps_old: open.keeps_old, syncs: open.syncs, is_dry: open.is_dry };
        self.opened.add(1);
        let number = self.opened.sum();
        let session = Arc::new(Session {
            home: Arc::clone(home),
            number,
            generation: AtomicI64::new(admitted.generation),
            next_generation: AtomicI64::new(admitted.generation),
            landing: Landing::new(base, is_new, made, rules),
            open,
            congestion: config.congestion.afresh(&format!("job {number}, to its client")),
            congestion_beyond: Arc::new(config.congestion.afresh(&format!("job {number}, passed on"))),
            connections: AtomicUsize::new(0),
            is_passed_on: AtomicBool::new(false),
            opened: Instant::now(),
            active_ms: AtomicU64::new(0),
            is_idle: AtomicBool::new(false),
            left: Mutex::default(),
            finish: Finish::default(),
        });
        let attached = self.attach(&session);
        sessions.insert(token, session);
        drop(sessions);
        self.changed.notify_all();
        Ok((attached, false))
    }

    /// Finds the session of a token, waiting for it to be opened.
    ///
    /// # Errors
    /// It was not opened until `deadline`, or has ended.
    pub(super) fn join(&self, token: &Token, deadline: Instant, stop: &Stop) -> Result<Attached<'_>, String> {
        let mut sessions = self.lock();
        loop {
            if let Some(session) = sessions.get(token) {
                if session.has_ended() {
                    return Err("this job has ended".to_owned());
                }
                if let Some(why) = session.over() {
                    return Err(why.to_owned());
                }
                return Ok(self.attach(session));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || stop.is_asked() {
                return Err("this receiver knows no such job: was it restarted?".to_owned());
            }
            sessions = self.changed.wait_timeout(sessions, left.min(LOOK)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes that a connection of a session is about to be passed on.
    ///
    /// # Errors
    /// Only one job is served, and another one was begun.
    pub(super) fn pass_on(&self, session: &Session) -> Result<(), String> {
        let sessions = self.lock();
        let is_other = |other: &Session| other.number != session.number && other.counts_as_job();
        if self.ticket.is_some() && sessions.values().any(|other| is_other(other)) {
            return Err(BEGUN.to_owned());
        }
        session.is_passed_on.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn attach(&self, session: &Arc<Session>) -> Attached<'_> {
        session.connections.fetch_add(1, Ordering::SeqCst);
        Attached { session: Arc::clone(session), sessions: self }
    }

    /// Waits until the one job has ended, or nobody works on it any more; how it ended. Gives up when
    /// asked to stop.
    pub(super) fn wait_for_end(&self, stop: &Stop) -> Option<Totals> {
        let mut sessions = self.lock();
        loop {
            if let Some(session) = sessions.values().find(|session| session.counts_as_job()) {
                if let Some(outcome) = session.finish.outcome() {
                    return Some(outcome.totals);
                }
                // Whose connections are passed on says nothing of its end, and need not.
                let is_relayed = session.open.purpose == Purpose::Relay;
                let has_left = session.connections.load(Ordering::SeqCst) == 0;
                if session.is_stale() || is_relayed && has_left && stop.is_asked() {
                    return is_relayed.then(|| session.landing.counts.totals());
                }
            }
            if stop.is_asked() {
                return None;
            }
            sessions = self.changed.wait_timeout(sessions, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What is said to a second job where one is served.
const BEGUN: &str = "this receiver serves one job, which was begun already";

/// So many times the jobs that are served at once are remembered with those that have ended.
const ENDED_FACTOR: usize = 16;

/// How long to wait between two looks at the flag that says stop.
const LOOK: Duration = Duration::from_millis(200);

impl Session {
    /// Why it must end before its time, if it must.
    pub(super) fn over(&self) -> Option<&'static str> {
        if self.is_idle.load(Ordering::Relaxed) {
            return Some("nothing was done for too long");
        }
        self.home.over(self.generation.load(Ordering::Relaxed), self.open.purpose)?;
        self.home.over(self.next_generation.load(Ordering::Relaxed), self.open.purpose)
    }

    /// It goes on while the account is `now`, and when that is `next` by what is done in it.
    pub(super) fn go_on_through(&self, now: i64, next: i64) {
        // In this order: at no moment does the account look like one of another time.
        self.generation.store(now, Ordering::SeqCst);
        self.next_generation.store(next, Ordering::SeqCst);
    }

    /// Notes that something is done for it.
    pub(super) fn note_active(&self, now: Instant) {
        let since = now.saturating_duration_since(self.opened).as_millis();
        self.active_ms.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Ends it if nothing was done for it for as long as `idle`.
    fn limit_idle(&self, idle: Duration) {
        let active = self.opened + Duration::from_millis(self.active_ms.load(Ordering::Relaxed));
        if active.elapsed() >= idle && !self.finish.has_begun() {
            self.is_idle.store(true, Ordering::Relaxed);
        }
    }

    /// Gives folders that nobody described the usual mode, where no end of the job did.
    fn let_folders_go(&self) {
        self.landing.let_folders_go(&self.home.store);
    }

    /// Is it the one job where only one is served? Who asks what would be sent has sent nothing, and who asked for
    /// nobody that is reached from here has begun nothing.
    fn counts_as_job(&self) -> bool {
        match self.open.purpose {
            Purpose::Relay => self.is_passed_on.load(Ordering::SeqCst),
            Purpose::Bring | Purpose::Browse => !self.open.is_dry,
        }
    }

    /// Has it come to its end?
    pub(super) fn has_ended(&self) -> bool {
        self.finish.outcome().is_some()
    }

    /// Has nobody worked on it for so long that nobody will?
    fn is_stale(&self) -> bool {
        self.connections.load(Ordering::SeqCst) == 0
            && lock(&self.left).is_some_and(|left| left.elapsed() >= SESSION_LINGER || self.has_ended())
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        // The sessions are held while it is decided that nobody is left.
        let sessions = self.sessions.lock();
        *lock(&self.session.left) = Some(Instant::now());
        self.session.connections.fetch_sub(1, Ordering::SeqCst);
        drop(sessions);
        self.sessions.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compares secrets in a time that does not tell how much of them is the same.
fn is_same(one: &Token, other: &Token) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(&one.0, &other.0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Homes;
    use crate::server::accounts::Rights;
    use crate::store::{Store, take_umask};

    #[test]
    fn a_relay_for_one_run_ends_when_nobody_has_come_back_for_a_while() {
        let top = tempfile::tempdir().unwrap();
        let homes = Homes::of(Store::open(top.path(), take_umask()).unwrap(), Rights::ALL);
        let (sessions, config) = (Sessions::new(Some(Token([7; 32]))), Config::new(top.path().to_path_buf()));
        let admitted = homes.admit(&Credential::None, None, &Token([1; 32])).unwrap();
        let open = |token| {
            let base = admitted.home.resolve_folder(b"").unwrap();
            let open = Open::plain(Token([token; 32]), Purpose::Relay);
            sessions.open(&admitted, open, (base, &config), |_, _| Ok(false)).map(|(attached, _)| attached)
        };
        // Two have nothing passed on yet: the first that has is the one.
        let (refused, attached) = (open(1).unwrap(), open(2).unwrap());
        let session = Arc::clone(&attached.session);
        sessions.pass_on(&session).unwrap();
        assert_eq!(sessions.pass_on(&refused.session), Err(BEGUN.to_owned()));
        assert_eq!(open(3).unwrap_err(), BEGUN);
        sessions.pass_on(&open(2).unwrap().session).unwrap();
        drop((refused, attached));
        assert!(!session.is_stale(), "it may come back");
        *lock(&session.left) = Instant::now().checked_sub(SESSION_LINGER);
        sessions.sweep();
        let never = Stop::new().unwrap();
        assert_eq!(sessions.wait_for_end(&never).map(|totals| totals.failed), Some(0));
    }
}
