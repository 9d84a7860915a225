//! The receiver: accepts connections, serves each in a thread of its own, ends in order.

pub mod accounts;
mod acts;
mod answering;
mod audit;
mod connection;
mod finish;
mod guard;
mod handlers;
mod homes;
mod listing;
mod live;
mod metrics;
mod penalties;
mod reading;
mod rights_of;
mod scrape;
mod session;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use audit::Audit;
use connection::Shared;
pub use guard::Allowed;
use guard::Guard;
pub use homes::{Homes, Terms};
pub use ipnet::IpNet;
pub use live::LiveConfig;
use metrics::{Elsewhere, Metrics};
use penalties::Penalties;
use session::Sessions;

use crate::compress::Level;
use crate::limits::{
    ACCOUNTS_EVERY, CONNECTION_STACK_LEN, CONNECTIONS_MAX, CONNECTIONS_PER_ACCOUNT_MAX, CONNECTIONS_PER_ADDRESS_MAX,
    DRAIN_DEFAULT, KEEP_INCOMING_DEFAULT, LOGIN_TIMEOUT, LOGIN_TRIES_DEFAULT, SESSIONS_MAX, SESSIONS_PER_ACCOUNT_MAX,
    STALL_DEFAULT, SWEEP_EVERY,
};
use crate::net;
use crate::net::congestion::{self, Congestion};
use crate::net::host::HostPort;
use crate::net::pace::Pace;
use crate::net::{Listener, Peer, tls};
use crate::progress::Counter;
use crate::protocol::{Features, Token};
use crate::stop::Stop;

/// What a receiver is to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder that it writes below.
    pub root: PathBuf,
    /// Who may connect.
    pub allowed: Allowed,
    /// Do all have to log in?
    pub wants_login: bool,
    /// Connections served at once; further ones wait.
    pub connections_max: usize,
    /// Connections from one address; further ones are closed.
    pub per_address_max: usize,
    /// Connections of one account.
    pub per_account_max: usize,
    /// Jobs of one account served at once.
    pub account_sessions_max: usize,
    /// Jobs served at once.
    pub sessions_max: usize,
    /// How long a connection may take to log in and join a job.
    pub login: Duration,
    /// Wrong logins that are answered to one address.
    pub login_tries: u32,
    /// How long a job may do nothing, if there is a limit.
    pub idle: Option<Duration>,
    /// What it says that it can do: without zstd, nothing is to be compressed.
    pub features: Features,
    /// How it asks those who can do that to compress content, if it does.
    pub compression: Option<Level>,
    /// Bytes a second to take in and to send at the most, over all connections together.
    pub rate: Option<u64>,
    /// A peer that makes no progress within a frame for this long is given up.
    pub stall: Duration,
    /// How long jobs and frames that are under way may take to end once asked to stop.
    pub drain: Duration,
    /// How segments are sent to clients, and to where connections are passed on to.
    pub congestion: Arc<Congestion>,
    /// How long a file that was not received whole is kept for its sender to go on with.
    pub keep_incoming: Duration,
    /// What encrypts; without it only what comes in clear is served.
    pub tls: Option<tls::Server>,
    /// Are v1 clients served?
    pub serves_v1: bool,
    /// Are v2 clients served that don't encrypt?
    pub serves_plain: bool,
    /// Where connections may be passed on to.
    pub relay_to: Vec<HostPort>,
    /// Is nothing else done than that?
    pub relays_only: bool,
    /// The ticket of the one job that is to be served, if it is only one.
    pub ticket: Option<Token>,
    /// Is it told who did what? One event an act, with target `audit`.
    pub audits: bool,
    /// Where its metrics can be read, by everyone who can connect there.
    pub metrics: Option<Arc<Listener>>,
    /// Log lines that could not be written, for the metrics.
    pub log_lines_lost: Arc<Counter>,
}

impl Config {
    /// The defaults, for a root.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let allowed = Allowed::default();
        Self {
            root,
            allowed,
            wants_login: false,
            connections_max: CONNECTIONS_MAX,
            account_sessions_max: SESSIONS_PER_ACCOUNT_MAX,
            per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            per_account_max: CONNECTIONS_PER_ACCOUNT_MAX,
            sessions_max: SESSIONS_MAX,
            login: LOGIN_TIMEOUT,
            login_tries: LOGIN_TRIES_DEFAULT,
            idle: None,
            features: Features::OURS,
            compression: None,
            rate: None,
            stall: STALL_DEFAULT,
            drain: DRAIN_DEFAULT,
            congestion: Arc::new(Congestion::named(congestion::AUTO)),
            keep_incoming: KEEP_INCOMING_DEFAULT,
            tls: None,
            serves_v1: true,
            serves_plain: true,
            relay_to: Vec::new(),
            relays_only: false,
            ticket: None,
            audits: false,
            metrics: None,
            log_lines_lost: Arc::default(),
        }
    }
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Nothing was cut.
    Whole,
    /// Frames were cut short by the end.
    Cut,
    /// The one job that was to be served came to its end with some entries failed.
    Partial,
    /// The one job that was to be served did not come to its end.
    Unfinished,
}

/// Serves connections until asked to stop, then lets jobs and frames that are under way end.
///
/// # Errors
/// The listener failed.
pub fn serve(listener: &Listener, homes: &Homes, live: &LiveConfig, stop: &Stop) -> io::Result<Served> {
    net::raise_descriptor_limit();
    let at_start = live.current();
    let guard = Guard::default();
    let cut = AtomicBool::new(false);
    let sessions = Sessions::new(at_start.ticket);
    // Jobs that are under way may need further connections after `stop`, until this is asked.
    let closing = Stop::new()?;
    let metrics = Metrics::new();
    let (penalties, sign_ups) = (Penalties::default(), Penalties::default());
    let pace = at_start.rate.map(|rate| Arc::new(Pace::new(rate)));
    let trail = Audit::new(at_start.audits, Peer::Local, &metrics);
    let acted = AtomicBool::new(false);
    let only = thread::scope(|scope| {
        thread::Builder::new()
            .name("adopt".to_owned())
            .spawn_scoped(scope, || homes.adopt(at_start.keep_incoming, &mut || !stop.is_asked()))?;
        let draining =
            thread::Builder::new().name("drain".to_owned()).spawn_scoped(scope, || drain(&guard, live, stop, &closing))?;
        let (acted, trail) = (&acted, &trail);
        let sweep = || sweep(&guard, &sessions, homes, live, (acted, &closing));
        thread::Builder::new().name("sweep".to_owned()).spawn_scoped(scope, sweep)?;
        if homes.want_login() {
            thread::Builder::new().name("note".to_owned()).spawn_scoped(scope, || note(homes, trail, (acted, &closing)))?;
        }
        if let Some(listener) = &at_start.metrics {
            let (metrics, sessions, at_start) = (&metrics, &sessions, &at_start);
            let page = move || {
                let (sessions, log_lines_lost) = (sessions.count(), at_start.log_lines_lost.sum());
                metrics.page(&Elsewhere { sessions, quota: homes.quota_use(), log_lines_lost })
            };
            let answer = move || scrape::serve(listener, stop, &page);
            thread::Builder::new().name("metrics".to_owned()).spawn_scoped(scope, answer).inspect_err(|_| stop.ask())?;
        }
        let only = match at_start.ticket {
            None => None,
            Some(_) => Some(thread::Builder::new().name("job".to_owned()).spawn_scoped(scope, || {
                let ended = sessions.wait_for_end(&closing);
                stop.ask();
                ended
            })?),
        };
        let accepted = loop {
            let (socket, peer) = match listener.accept(&closing) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => break Ok(()),
                Err(error) if is_want_of_room(&error) => {
                    tracing::warn!("can't take a connection: {error}; waiting for others to end");
                    closing.wait(Duration::from_millis(100));
                    continue;
                }
                Err(error) => break Err(error),
            };
            let config = live.current();
            if let Peer::Host(address) = peer
                && !config.allowed.holds(address.ip())
            {
                tracing::warn!("{peer}: refused, neither a private address nor allowed (--allow {})", address.ip());
                Audit::new(config.audits, peer, &metrics).refused("neither a private address nor allowed");
                continue;
            }
            if !guard.has_room_for(peer, config.per_address_max) {
                tracing::warn!("{peer}: closed, there are {} connections from its address", config.per_address_max);
                continue;
            }
            let Ok(stream) = listener.stream(socket, config.stall) else { continue };
            let connections_max = || live.current().connections_max;
            let Some(slot) = guard.enter(stream.handle(), peer, connections_max, &closing) else { break Ok(()) };
            let (cut, sessions, metrics, pace) = (&cut, &sessions, &metrics, pace.as_ref());
            let (penalties, sign_ups, closing) = (&penalties, &sign_ups, &closing);
            let serve = move || {
                let shared = Shared { homes, config: &config, sessions, metrics, penalties, sign_ups, pace, stop, closing };
                if connection::serve(stream, &slot, shared) == Served::Cut {
                    cut.store(true, Ordering::Relaxed);
                }
            };
            let name = format!("conn {peer}");
            if let Err(error) = thread::Builder::new().name(name).stack_size(CONNECTION_STACK_LEN).spawn_scoped(scope, serve) {
                tracing::warn!("{peer}: no thread to serve it: {error}");
            }
        };
        stop.ask();
        let deadline = draining.join().unwrap_or_else(|_| Instant::now());
        // Those who came last, and those who have nothing to do.
        guard.wake_idle();
        if !guard.wait_until_empty(deadline) {
            guard.cut_all();
            cut.store(true, Ordering::Relaxed);
        }
        accepted.map(|()| only.map(|only| only.join().unwrap_or_default()))
    })?;
    sessions.end_all();
    // What they hold ends as well: then it is known what stays.
    drop(sessions);
    homes.end();
    Ok(match only {
        Some(None) => Served::Unfinished,
        Some(Some(totals)) if totals.failed > 0 => Served::Partial,
        // Whoever else was cut off had nothing to do with it.
        Some(Some(_)) => Served::Whole,
        _ if cut.into_inner() => Served::Cut,
        _ => Served::Whole,
    })
}

/// Until nobody is taken in any more, ends jobs that must end, and lets go of what nobody needs any more.
/// Sets `acted` where somebody did something to accounts.
fn sweep(guard: &Guard, sessions: &Sessions, homes: &Homes, live: &LiveConfig, (acted, closing): (&AtomicBool, &Stop)) {
    let mut swept = Instant::now();
    while !closing.wait(if homes.want_login() { ACCOUNTS_EVERY } else { SWEEP_EVERY }) {
        let is_due = swept.elapsed() >= SWEEP_EVERY;
        let are_changed = homes.refresh();
        let are_idle = is_due && live.current().idle.is_some_and(|idle| sessions.limit_idle(idle));
        if are_changed || are_idle {
            guard.wake_over();
            sessions.end_over();
        }
        if are_changed {
            acted.store(true, Ordering::Relaxed);
        }
        if is_due {
            swept = Instant::now();
            sessions.sweep();
            homes.sweep();
            // Nobody waits for the disk then.
            if guard.wait_until_empty(Instant::now()) {
                homes.sync_if_needed();
            }
        }
    }
}

/// Until nobody is taken in any more, notes who logged in, and tells what administrators did. Either is written to the
/// accounts, and may wait for a disk or another program longer than a job whose account was locked may go on.
fn note(homes: &Homes, audit: &Audit<'_>, (acted, closing): (&AtomicBool, &Stop)) {
    while !closing.wait(ACCOUNTS_EVERY) {
        homes.note_logins();
        if acted.swap(false, Ordering::Relaxed) {
            homes.take_acts().iter().for_each(|act| audit.administered(act));
        }
    }
}

/// Waits until asked to stop; from then on until all is done that is under way, or time is up. Then nobody
/// is taken in any more. Gives the time by which all must have left.
fn drain(guard: &Guard, live: &LiveConfig, stop: &Stop, closing: &Stop) -> Instant {
    while !stop.wait(SWEEP_EVERY) {}
    let deadline = Instant::now() + live.current().drain;
    guard.wake_idle();
    guard.wait_until_idle(deadline);
    closing.ask();
    deadline
}

fn is_want_of_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| lacks.contains(&errno))
}
