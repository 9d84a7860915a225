//! The whole transfer: what the user asked for, and how it is done.
//!
//! walk → entries → creation at the receiver → queue → workers here and in child processes, each
//! with a connection → confirmations → verdict.

mod connection;
mod create;
mod filter;
mod keep;
mod links;
mod live;
mod plan;
mod process;
mod queue;
mod source;
mod walk;
mod walker;
mod worker;

use std::path::{Path, PathBuf};
use std::thread::{self, Scope};
use std::time::Duration;

use anyhow::Context as _;

pub use filter::{Filter, Rule};
pub use process::serve_parent;
pub use source::lands_in_itself;
pub use walk::Look;

use crate::limits::{GROW_PROCESS_BYTES, GROW_THREAD_BYTES, WALKED_MAX, WRITE_NUMBER_MAX};
use crate::net;
use crate::net::dial::Dialer;
use crate::path::RemotePath;
use crate::progress::Progress;
use crate::protocol::v2::Setup;
use crate::stop::Stop;
use create::Creator;
use live::Live;
use process::Process;
use queue::{Event, Queue, Taken, Wait};
use source::Source;
use walk::Walk;
use worker::Worker;

/// What the user asked for.
#[derive(Debug)]
pub struct Job {
    /// The file or folder to send.
    pub file: PathBuf,
    /// What is looked at in it.
    pub look: Look,
    /// The receiver.
    pub dialer: Dialer,
    /// Where it is to land.
    pub remote: Remote,
    /// Bytes of a chunk at the most.
    pub length: u64,
    /// Processes that work at the most, this one included.
    pub process_num: usize,
    /// Threads in each process at the most.
    pub thread_num: usize,
    /// The program to start further processes from; without one the threads of all processes are
    /// threads of this one.
    pub program: Option<PathBuf>,
}

/// A folder at the receiver, as it is called on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The folder's own name; empty for the one that the receiver is in.
    pub directory: Vec<u8>,
    /// What stands before the path of each entry.
    pub prefix: Vec<u8>,
}

impl Remote {
    /// The folder that a user calls `text`. An absolute one stays absolute: a receiver may take
    /// that for the root of its machine.
    ///
    /// # Errors
    /// What is no path, or can't be carried.
    pub fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let path = RemotePath::parse_loosely(text)?;
        anyhow::ensure!(
            crate::protocol::v1::can_list(path.as_bytes()),
            "protocol v1 can't carry it: it has a line feed or is not UTF-8"
        );
        let slash: &[u8] = if text.starts_with(b"/") { b"/" } else { b"" };
        let directory = [slash, path.as_bytes()].concat();
        let prefix = if path.is_root() { slash.to_vec() } else { [&directory, &b"/"[..]].concat() };
        Ok(Self { directory, prefix })
    }
}

/// Can `file` be sent at all?
///
/// # Errors
/// It is missing, unreadable, or neither a folder nor a regular file.
pub fn check_source(file: &Path) -> anyhow::Result<()> {
    Walk::of(file, Look::default()).map(drop)
}

/// Does the job. What fails of single entries is in `progress`, and the rest goes on.
///
/// # Errors
/// What ends the whole run: the source or the receiver can't be reached, the receiver forgot the
/// job, or the run was stopped.
pub fn run(job: &Job, progress: &Progress, stop: &Stop) -> anyhow::Result<()> {
    let walk = Walk::of(&job.file, job.look.clone())?;
    let source = walk.source();
    let first = job.dialer.dial(stop).context("nothing was sent")?;
    progress.connections.add(1);
    progress.processes.add(1);

    let queue = Queue::new(job.length.min(WRITE_NUMBER_MAX), progress);
    let (live, done) = (Live::default(), Stop::new()?);
    let creator = Creator { remote: &job.remote, dialer: &job.dialer, queue: &queue, progress, live: &live, stop };
    let take = |wait| match wait {
        Wait::Yes => queue.take().map_or(Taken::Finished, Taken::Chunk),
        Wait::No => queue.try_take(),
    };
    let report = |outcomes| queue.settle(outcomes);
    let worker = Worker {
        source: &source,
        name_prefix: &job.remote.prefix,
        dialer: &job.dialer,
        take: &take,
        report: &report,
        progress,
        live: &live,
        stop,
    };
    let (give, entries) = crossbeam_channel::bounded(WALKED_MAX);
    let ended = thread::scope(|scope| {
        let drive = || {
            named(scope, "watch", || {
                net::wait_either(stop, &done);
                if stop.is_asked() {
                    queue.abort();
                    live.shut_down();
                }
            })?;
            named(scope, "walk", move || walk.run(&give, progress))?;
            let control = named(scope, "control", || {
                let created = creator.run(first, &entries);
                drop(entries);
                if created.is_ok() {
                    queue.close();
                } else {
                    queue.abort();
                }
                created
            })?;
            let worked = start_workers(scope, job, &source, &queue, worker, progress);
            if worked.is_err() {
                queue.abort();
            }
            // All is done, or nothing more is to be done: nobody uses a stream any more.
            live.shut_down();
            let created = control.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the control thread failed")));
            worked.map(|()| created)
        };
        let ended = drive();
        queue.abort();
        done.ask();
        ended
    });
    anyhow::ensure!(!stop.is_asked(), "stopped{}", missing(&queue, progress));
    let not_finished = |error: anyhow::Error| error.context(format!("not finished{}", missing(&queue, progress)));
    let created = ended.map_err(not_finished)?;
    match queue.refusal() {
        Some(refusal) if refusal.of_all => {
            anyhow::bail!("the receiver takes no more, its log says why ({}){}", refusal.why, missing(&queue, progress))
        }
        Some(refusal) if !remembers(job, &refusal.known, stop) => {
            anyhow::bail!(
                "the receiver does not know the files of this run any more: was it restarted?{}",
                missing(&queue, progress)
            )
        }
        _ => created.map_err(not_finished)?,
    }
    let (found, sent) = (progress.found_files.sum(), progress.done_files.sum());
    anyhow::ensure!(sent == found || progress.failed() > 0, "{sent} of {found} files were confirmed, and none failed");
    Ok(())
}

/// Does the receiver still know a file of this run?
fn remembers(job: &Job, path: &RemotePath, stop: &Stop) -> bool {
    let name = worker::wire_name(&job.remote.prefix, path);
    job.dialer.dial(stop).is_ok_and(|stream| connection::is_known(stream, &name).unwrap_or(false))
}

fn named<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>, name: &str, work: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<thread::ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work)
}

/// Starts workers as there is work for them: the threads of this process, then child processes.
/// Returns when there is nothing more to do.
fn start_workers<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>, job: &'env Job, source: &'env Source, queue: &'env Queue<'env>, worker: Worker<'env>,
    progress: &'env Progress,
) -> anyhow::Result<()> {
    let (thread_num, process_num) = match job.program {
        Some(_) => (job.thread_num, job.process_num),
        None => (job.thread_num.saturating_mul(job.process_num), 1),
    };
    let (mut threads, mut processes) = (0, 1);
    loop {
        let enough_work =
            if threads < thread_num { Some(GROW_THREAD_BYTES) } else { (processes < process_num).then_some(GROW_PROCESS_BYTES) };
        match queue.wait_event(enough_work) {
            Event::Finished => return Ok(()),
            Event::Abandoned(why) => anyhow::bail!("the receiver went away: {why}"),
            Event::Backlog if threads < thread_num => {
                queue.enter();
                named(scope, &format!("w{threads}"), move || {
                    queue.leave(worker.run().err().map(|error| format!("{error:#}")));
                })?;
                threads += 1;
            }
            Event::Backlog => {
                let Some(program) = &job.program else { continue };
                processes += 1;
                match Process::start(program, setup(job, source), job.length) {
                    Ok(process) => {
                        progress.processes.add(1);
                        queue.enter();
                        named(scope, &format!("p{processes}"), move || queue.leave(process.feed(queue, progress).err()))?;
                    }
                    Err(error) => tracing::warn!("one process less: {error:#}"),
                }
            }
        }
    }
}

fn setup(job: &Job, source: &Source) -> Setup {
    use std::os::unix::ffi::OsStrExt as _;
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (is_tree, path) = match source {
        Source::Tree(top) => (true, top.path()),
        Source::File(file) => (false, file.as_path()),
    };
    Setup {
        addresses: job.dialer.addresses(),
        thread_num: u32::try_from(job.thread_num).unwrap_or(u32::MAX),
        stall_ms: milliseconds(job.dialer.stall()),
        retry_ms: milliseconds(job.dialer.retry_for()),
        name_prefix: job.remote.prefix.clone(),
        is_tree,
        source: path.as_os_str().as_bytes().to_vec(),
    }
}

/// Notes an entry that is not sent, or not to the end, and says so.
fn leave_out(progress: &Progress, path: &RemotePath, reason: &str) {
    tracing::warn!("{path}: {reason}");
    progress.fail(path, reason);
}

/// Says how much is missing, and the first few names.
fn missing(queue: &Queue<'_>, progress: &Progress) -> String {
    const NAMES_MAX: usize = 10;
    let files = progress.found_files.sum().saturating_sub(progress.done_files.sum());
    let (known, names) = queue.missing(NAMES_MAX);
    if files == 0 {
        return String::new();
    }
    let mut text = format!("; {files} of the {} files found are not all there", progress.found_files.sum());
    for (index, name) in names.iter().enumerate() {
        text.push_str(if index == 0 { ": " } else { ", " });
        text.push_str(&name.to_string());
    }
    if known > names.len() || (files as usize > names.len() && !names.is_empty()) {
        text.push_str(", ...");
    }
    text
}
