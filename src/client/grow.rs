//! Starts workers as there is work for them.

use std::thread::{self, Scope};

use super::attempts::Interrupted;
use super::outcome::{Event, GaveUp, Outcome};
use super::plan::Chunk;
use super::queue::Queue;
use super::worker::Worker;
use crate::limits::{GROW_PROCESS_BYTES, GROW_THREAD_BYTES};
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
    let thread_num = thread_num.max(routes);
    loop {
        let enough_work =
            if threads < thread_num { Some(GROW_THREAD_BYTES) } else { (processes < process_num).then_some(GROW_PROCESS_BYTES) };
        match queue.wait_event(enough_work) {
            Event::Finished => return Ok(()),
            // Another route may lead there.
            Event::Backlog | Event::Abandoned(_) if threads < routes => {
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

/// Starts a worker of this process.
fn start_thread<'scope, 'a: 'scope>(
    scope: &'scope Scope<'scope, '_>, queue: &'a Queue<'a>, worker: Worker<'a>, number: usize,
) -> std::io::Result<()> {
    let routes = worker.dialer.routes();
    let of_route = number % routes.len();
    let (dialer, route) = (&routes[of_route], worker.progress.route(of_route));
    let holder = queue.enter(1);
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
