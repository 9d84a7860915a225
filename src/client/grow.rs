//! Starts workers as there is work for them.

use std::thread::{self, Scope};

use super::attempts::Interrupted;
use super::outcome::{Event, GaveUp};
use super::queue::Queue;
use super::worker::Worker;
use crate::limits::{GROW_PROCESS_BYTES, GROW_THREAD_BYTES};

/// Starts workers as there is work for them: the threads of this process, then further processes, which
/// `start_process` does. Returns when there is nothing more to do.
///
/// # Errors
/// The last worker gave up, and there is work left.
pub(super) fn start_workers<'scope, 'a: 'scope>(
    scope: &'scope Scope<'scope, '_>, queue: &'a Queue<'a>, worker: Worker<'a>, (thread_num, process_num): (usize, usize),
    start_process: impl Fn(usize) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let (mut threads, mut processes) = (0, 1);
    loop {
        let enough_work =
            if threads < thread_num { Some(GROW_THREAD_BYTES) } else { (processes < process_num).then_some(GROW_PROCESS_BYTES) };
        match queue.wait_event(enough_work) {
            Event::Finished => return Ok(()),
            Event::Abandoned(GaveUp::Unreachable(why)) => anyhow::bail!("the {} went away: {why}", queue.words().peer),
            Event::Abandoned(GaveUp::Refused(why)) => return Err(Interrupted(why).into()),
            Event::Backlog if threads < thread_num => {
                let holder = queue.enter(1);
                let worker = Worker { holder, ..worker };
                named(scope, &format!("w{threads}"), move || {
                    queue.leave(holder, worker.run().err());
                })?;
                threads += 1;
            }
            Event::Backlog => {
                processes += 1;
                start_process(processes)?;
            }
        }
    }
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
