//! Starts workers as there is work for them.

use std::thread::{self, Scope};
use std::time::Instant;

use super::attempts::Interrupted;
use super::outcome::{Event, GaveUp, Outcome};
use super::plan::Chunk;
use super::queue::Queue;
use super::tune::Tuner;
use super::worker::Worker;
use crate::limits::{GROW_PROCESS_BYTES, GROW_THREAD_BYTES, READY_AFTER, THREAD_NUM_DEFAULT, TUNE_EVERY, TUNE_START};
use crate::net::dial::Dialer;
use crate::progress::Progress;

/// Has it counted what each route carries, unless there is but the usual one.
pub(super) fn tell_routes(dialer: &Dialer, progress: &Progress) {
    if dialer.has_routes() {
        progress.set_routes(dialer.routes().iter().map(Dialer::route_name));
    }
}

/// Starts workers as there is work for them: the threads of this process, by each route in turn, then further
/// processes, which `start_process` does. Returns when there is nothing more to do.
///
/// # Errors
/// The last worker gave up, and there is work left.
pub(super) fn start_workers<'scope, 'a: 'scope>(
    scope: &'scope Scope<'scope, '_>, queue: &'a Queue<'a>, worker: Worker<'a>, (thread_num, process_num): (usize, usize),
    start_process: impl Fn(usize) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let (mut threads, mut processes) = (0, 1);
    let routes = worker.dialer.routes().len();
    // Each route has a connection.
    let (of_process, thread_num) = (thread_num, thread_num.max(routes));
    let ceiling = thread_num.saturating_mul(process_num);
    let mut tuner = Tuner::new(TUNE_START.max(num_cpus::get() * THREAD_NUM_DEFAULT).max(routes), ceiling);
    let (mut since, mut before) = (Instant::now(), 0);
    loop {
        let connections = threads + (processes - 1) * of_process;
        let enough_work = match () {
            () if connections >= tuner.number() => None,
            // The route of those there are may lead nowhere, however little there is to do.
            () if threads < routes => Some(1),
            () if threads < thread_num => Some(GROW_THREAD_BYTES),
            () => (processes < process_num).then_some(GROW_PROCESS_BYTES),
        };
        match queue.wait_event(enough_work, since + TUNE_EVERY) {
            Event::Finished => return Ok(()),
            Event::Tick(confirmed, has_work) => {
                let (now, work) = (Instant::now(), confirmed.saturating_sub(before));
                if has_work && connections >= tuner.number() {
                    tuner.note(work, now - since, routes == 1 && is_short(worker.progress));
                    queue.set_at_work(tuner.number());
                    worker.progress.set_at_work(tuner.number());
                } else {
                    tuner.forget();
                }
                (since, before) = (now, confirmed);
            }
            // Another route may lead there.
            Event::Abandoned(_) if threads < routes => {
                start_thread(scope, queue, worker, threads)?;
                threads += 1;
            }
            Event::Abandoned(GaveUp::Unreachable(why)) => anyhow::bail!("the {} went away: {why}", queue.words().peer),
            Event::Abandoned(GaveUp::Refused(why)) => return Err(Interrupted(why).into()),
            Event::Backlog if threads < thread_num => {
                start_thread(scope, queue, worker, threads)?;
                threads += 1;
            }
            Event::Backlog => {
                processes += 1;
                start_process(processes)?;
            }
        }
    }
}

/// Is the path a short one, as far as that is known?
fn is_short(progress: &Progress) -> bool {
    progress.waits.round_trip.known().is_some_and(|trip| trip < READY_AFTER)
}

/// Starts a worker of this process.
fn start_thread<'scope, 'a: 'scope>(
    scope: &'scope Scope<'scope, '_>, queue: &'a Queue<'a>, worker: Worker<'a>, number: usize,
) -> std::io::Result<()> {
    let routes = worker.dialer.routes();
    let of_route = number % routes.len();
    let (dialer, route) = (&routes[of_route], worker.progress.route(of_route));
    let holder = queue.enter(1, of_route);
    let work = move || {
        let report = |outcomes: Vec<(Chunk, Outcome)>| {
            if let Some(route) = route {
                route.bytes.add(outcomes.iter().map(|(chunk, outcome)| outcome.carried(chunk)).sum());
            }
            (worker.report)(outcomes);
        };
        let worker = Worker { holder, dialer, route, report: &report, ..worker };
        queue.leave(holder, worker.run().err());
    };
    named(scope, &format!("w{number}"), work).map(drop)
}

/// Starts a thread that ends before its scope does.
///
/// # Errors
/// The system has no more threads to give.
pub(super) fn named<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>, name: &str, work: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<thread::ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work)
}
