//! Worker processes: started from this program's own file, fed with headers of writes over a pipe.
//!
//! The child ends when its standard input does. So it ends with its parent, however that ends.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::flight::Holder;
use super::live::Live;
use super::outcome::{GaveUp, Outcome, Taken, Wait};
use super::plan::{Chunk, Sending};
use super::queue::Queue;
use super::source::Source;
use super::window::Window;
use super::worker::{Way, Worker};
use crate::limits::{CHILD_CHUNKS_GROWN_MAX, CHILD_CHUNKS_MAX, CHILD_END_MAX, FRAME_LEN_MAX, PIPE_WRITE_LEN, WINDOW_FRAMES_MAX};
use crate::net::congestion::Congestion;
use crate::net::dial::Dialer;
use crate::net::tls::{Client, Fingerprint};
use crate::progress::Progress;
use crate::protocol::Wanted;
use crate::protocol::v2::pipe::{self, Ending, Frame, Report, Setup, Task};
use crate::pump::Inbox;
use crate::secret::{PASSWORD_VARIABLE, VIA_PASSWORD_VARIABLE};
use crate::stop::Stop;

/// A child process, and what it holds.
#[derive(Debug)]
pub(super) struct Process {
    child: Mutex<Child>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    /// Bytes of chunks that a child may hold before it gets no more.
    held_bytes_max: u64,
    /// The same for their number, as long as the path is not known to be long.
    held_max: usize,
    held: Mutex<Held>,
    /// Something was answered, or nothing will be any more.
    answered: Condvar,
}

/// How long to wait for room in a child between two looks at whether the run goes on.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct Held {
    chunks: HashMap<u32, Chunk>,
    bytes: u64,
    next_ticket: u32,
    gone: bool,
}

impl Process {
    /// Starts a child that works as `setup` says. It gets as much work ahead as keeps its threads
    /// busy at chunks of `length` bytes.
    ///
    /// # Errors
    /// The program can't be started.
    pub(super) fn start(program: &Path, setup: Setup, length: u64) -> anyhow::Result<Self> {
        let threads = u64::from(setup.thread_num);
        let mut child = Command::new(program)
            .arg("--worker")
            // Not for it: it has a token.
            .env_remove(PASSWORD_VARIABLE)
            .env_remove(VIA_PASSWORD_VARIABLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A signal from the terminal is for the parent to handle.
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start '{}' as a worker process", program.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let held_max = CHILD_CHUNKS_MAX.min(WINDOW_FRAMES_MAX.saturating_mul(setup.thread_num as usize));
        let mut process = Self {
            child: Mutex::new(child),
            stdin,
            stdout,
            held_bytes_max: threads.saturating_mul(length),
            held_max,
            held: Mutex::default(),
            answered: Condvar::new(),
        };
        let mut bytes = Vec::new();
        pipe::encode(&mut bytes, &Frame::Setup(setup));
        match process.stdin.as_mut().map(|stdin| stdin.write_all(&bytes)) {
            Some(Ok(())) => Ok(process),
            _ => bail!("a worker process ended as soon as it was started"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Feeds the child from the queue until there is nothing more to do, or it is gone. What it did
    /// not confirm goes back to the queue.
    ///
    /// # Errors
    /// The child can't reach the receiver any more.
    pub(super) fn feed(mut self, holder: Holder, queue: &Queue<'_>, progress: &Progress) -> Result<(), GaveUp> {
        let (Some(stdin), Some(stdout)) = (self.stdin.take(), self.stdout.take()) else { return Ok(()) };
        let listened = thread::scope(|scope| {
            let listener = thread::Builder::new().name("replies".to_owned()).spawn_scoped(scope, || {
                let listened = self.listen(stdout, queue, progress);
                self.end(queue);
                listened
            });
            let Ok(listener) = listener else { return Err(Farewell::Broken("no thread to listen to it".to_owned())) };
            if let Err(error) = self.hand_out(stdin, holder, queue, progress) {
                tracing::debug!("a worker process takes no more work: {error}");
            }
            // Its input has ended: it ends, and so does its output.
            let held = self.answered.wait_timeout_while(self.lock(), CHILD_END_MAX, |held| !held.gone);
            drop(held);
            if queue.is_finished() {
                // It has nothing left to do, or nothing that it does counts any more.
                self.kill();
            }
            listener.join().unwrap_or_else(|_| Err(Farewell::Broken("it can't be listened to".to_owned())))
        });
        self.kill();
        match listened {
            Ok(()) => Ok(()),
            Err(Farewell::GaveUp(why)) => Err(why),
            Err(Farewell::Broken(why)) => {
                tracing::warn!("a worker process is given up: {why}");
                Ok(())
            }
        }
    }

    /// Ends the child, if it has not ended.
    fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }

    fn hand_out(&self, mut stdin: ChildStdin, holder: Holder, queue: &Queue<'_>, progress: &Progress) -> io::Result<()> {
        let mut bytes = Vec::new();
        // What its threads' windows may have.
        let mut window = Window::new(false, &progress.waits.round_trip);
        loop {
            let held_max = (self.held_max * window.growth()).min(CHILD_CHUNKS_GROWN_MAX);
            let mut held = self.lock();
            let (is_full, before) = (held.chunks.len() >= held_max, Instant::now());
            while !held.gone && (held.bytes >= self.held_bytes_max || held.chunks.len() >= held_max) {
                held = self.answered.wait_timeout(held, LOOK).unwrap_or_else(PoisonError::into_inner).0;
                // Nobody wakes this when the run is given up.
                held.gone |= queue.is_finished();
            }
            let gone = held.gone;
            drop(held);
            if gone {
                return Ok(());
            }
            if is_full {
                window.note_full(before.elapsed());
            }
            let Some(chunk) = queue.take(holder) else { return Ok(()) };
            bytes.clear();
            let mut held = self.lock();
            if held.gone {
                drop(held);
                queue.settle(vec![(chunk, Outcome::Lost)]);
                return Ok(());
            }
            held.put(&mut bytes, chunk);
            // Small chunks go in company.
            while held.bytes < self.held_bytes_max && held.chunks.len() < held_max && bytes.len() < PIPE_WRITE_LEN {
                let Taken::Chunk(chunk) = queue.try_take(holder) else { break };
                held.put(&mut bytes, chunk);
            }
            drop(held);
            stdin.write_all(&bytes)?;
        }
    }

    /// Takes no more chunks for the child, and gives back to the queue what it holds.
    fn end(&self, queue: &Queue<'_>) {
        let mut held = self.lock();
        held.gone = true;
        let left: Vec<_> = held.chunks.drain().map(|(_, chunk)| (chunk, Outcome::Lost)).collect();
        drop(held);
        self.answered.notify_all();
        if !left.is_empty() && !queue.is_finished() {
            tracing::warn!("a worker process ended early: what it held is sent by others ({} chunks)", left.len());
        }
        queue.settle(left);
    }

    fn listen(&self, mut stdout: ChildStdout, queue: &Queue<'_>, progress: &Progress) -> Result<(), Farewell> {
        let (mut inbox, mut connections) = (Inbox::default(), 0);
        loop {
            let mut outcomes = Vec::new();
            let taken = self.take_reports(&mut inbox, &mut outcomes, progress, |total| {
                progress.connections.add(u64::from(total.saturating_sub(connections)));
                connections = total;
            });
            if !outcomes.is_empty() {
                self.answered.notify_all();
                queue.settle(outcomes);
            }
            taken?;
            match inbox.fill(&mut stdout, 2 * FRAME_LEN_MAX) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(Farewell::Broken(error.to_string())),
                _ => {}
            }
        }
    }

    /// Takes the reports that are here; what became of chunks is in `outcomes` even on an error.
    fn take_reports(
        &self, inbox: &mut Inbox, outcomes: &mut Vec<(Chunk, Outcome)>, progress: &Progress,
        mut note_connections: impl FnMut(u32),
    ) -> Result<(), Farewell> {
        while let Some((frame, len)) = pipe::decode(inbox.bytes()).map_err(|error| Farewell::Broken(error.to_string()))? {
            inbox.consume(len);
            let Frame::Report(Report { ticket, ending, reason, subtrees, wanted }) = frame else {
                return Err(Farewell::Broken("it speaks out of turn".to_owned()));
            };
            let outcome = match ending {
                Ending::Stored => Outcome::Stored,
                Ending::Wanted => Outcome::Wanted(wanted),
                Ending::Whole => Outcome::Whole(Some(reason).filter(|reason| !reason.is_empty())),
                Ending::Mismatched => Outcome::Mismatched,
                Ending::Refused => Outcome::Refused(reason),
                Ending::Denied => Outcome::Denied(reason),
                Ending::Lost => Outcome::Lost,
                Ending::Stalled => Outcome::Stalled,
                Ending::SourceFailed => Outcome::SourceFailed(reason),
                Ending::Changed => Outcome::Changed,
                Ending::GaveUp => return Err(Farewell::GaveUp(GaveUp::Unreachable(reason))),
                Ending::TurnedAway => return Err(Farewell::GaveUp(GaveUp::Refused(reason))),
                Ending::Connections => {
                    note_connections(ticket);
                    continue;
                }
                Ending::WentOut => {
                    progress.wire_bytes.add(ticket.into());
                    continue;
                }
                Ending::Congestion => {
                    progress.note_congestion(&reason);
                    continue;
                }
                Ending::Time => {
                    if let Some(timer) = progress.waits.named(&reason) {
                        timer.add(Duration::from_micros(u64::from(ticket)));
                    }
                    continue;
                }
            };
            let mut held = self.lock();
            let Some(mut chunk) = held.chunks.remove(&ticket) else {
                return Err(Farewell::Broken("it answers what it was not asked".to_owned()));
            };
            held.bytes = held.bytes.saturating_sub(chunk.bytes());
            chunk.subtrees = subtrees;
            outcomes.push((chunk, outcome));
        }
        Ok(())
    }
}

impl Held {
    /// Takes a chunk into what the child holds, and adds its header to `bytes`.
    fn put(&mut self, bytes: &mut Vec<u8>, chunk: Chunk) {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        let task = Task {
            ticket,
            alone: chunk.is_suspect(),
            is_repeat: chunk.hand.is_repeat(),
            path: chunk.file.path.clone(),
            file: chunk.file.meta.clone(),
            range: chunk.range.clone(),
        };
        pipe::encode(bytes, &Frame::Task(task));
        self.bytes = self.bytes.saturating_add(chunk.bytes());
        self.chunks.insert(ticket, chunk);
    }
}

/// Why a child is not listened to any more.
enum Farewell {
    /// It can't work on.
    GaveUp(GaveUp),
    /// It is not what it should be.
    Broken(String),
}

/// The next frame from a pipe; `None` at its end.
fn next_frame(inbox: &mut Inbox, pipe: &mut impl io::Read) -> anyhow::Result<Option<Frame>> {
    loop {
        if let Some((frame, len)) = pipe::decode(inbox.bytes())? {
            inbox.consume(len);
            return Ok(Some(frame));
        }
        match inbox.fill(pipe, 2 * FRAME_LEN_MAX) {
            Ok(0) if inbox.bytes().is_empty() => return Ok(None),
            Ok(0) => bail!("the pipe ended in the middle of a frame"),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            filled => filled.map(drop)?,
        }
    }
}

/// What a child process does, from its start to the end of its input: sends what it is told to and
/// answers what became of it.
///
/// # Errors
/// The input is not a parent's, or the parent is gone.
pub fn serve_parent(input: &mut impl io::Read, output: impl io::Write + Send) -> anyhow::Result<()> {
    let mut inbox = Inbox::default();
    let Some(Frame::Setup(setup)) = next_frame(&mut inbox, input)? else { bail!("no work was handed over") };
    let path = PathBuf::from(OsString::from_vec(setup.source));
    let source = if setup.is_tree { Source::tree(path).context("can't open the source")? } else { Source::File(path) };
    let (stall, retry_for) = (Duration::from_millis(setup.stall_ms), Duration::from_millis(setup.retry_ms));
    let tls = setup.host_key.map(|key| Client::pinned(Fingerprint::from_bytes(key))).transpose()?;
    let congestion = Some(setup.congestion).filter(|name| !name.is_empty()).map(|name| Arc::new(Congestion::named(&name)));
    let dialer = Dialer::to_addresses(setup.addresses, stall, retry_for).with_tls(tls).with_congestion(congestion);
    let (progress, live, stop) = (Progress::default(), Live::default(), Stop::new()?);
    let (give, chunks) = crossbeam_channel::bounded(CHILD_CHUNKS_GROWN_MAX);
    // A thread that is busy with something slow must not take these: it may be that very chunk.
    let (give_repeat, repeats) = crossbeam_channel::bounded(CHILD_CHUNKS_GROWN_MAX);
    // Threads that wait for work, less the chunks that wait for a thread.
    let idle = AtomicI64::new(0);
    let take = |_, wait| match wait {
        Wait::No => chunks.try_recv().map_or(Taken::Nothing, |chunk| {
            idle.fetch_add(1, Ordering::SeqCst);
            Taken::Chunk(chunk)
        }),
        Wait::Yes => {
            idle.fetch_add(1, Ordering::SeqCst);
            let chunk = crossbeam_channel::select! {
                recv(chunks) -> chunk => chunk,
                recv(repeats) -> chunk => chunk,
            };
            chunk.map_or(Taken::Finished, Taken::Chunk)
        }
    };
    let output = Mutex::new(output);
    let report = |outcomes: Vec<(Chunk, Outcome)>| report_to_parent(&output, &progress, outcomes);
    let worker = Worker {
        way: Way::Out(&source),
        session: &setup.session,
        wants_subtrees: setup.wants_subtrees,
        dialer: &dialer,
        route: None,
        ready: None,
        holder: 0,
        take: &take,
        report: &report,
        progress: &progress,
        live: &live,
        stop: &stop,
    };
    thread::scope(|scope| {
        let mut started = 0;
        let mut last: Option<Arc<Sending>> = None;
        let mut serve = || {
            while let Some(frame) = next_frame(&mut inbox, input)? {
                let Frame::Task(task) = frame else { bail!("the parent speaks out of turn") };
                // Chunks of one file in a row share it, and with it the open source.
                let file = match &last {
                    Some(file) if file.path == task.path && file.meta == task.file => Arc::clone(file),
                    _ => Arc::clone(last.insert(Arc::new(Sending::new(task.path, task.file)))),
                };
                let (ticket, refusals) = (task.ticket, u8::from(task.alone));
                let way = if task.is_repeat { &give_repeat } else { &give };
                let is_one_idle = idle.fetch_sub(1, Ordering::SeqCst) > 0;
                way.send(Chunk { ticket, refusals, ..Chunk::of(&file, task.range) })?;
                if started < setup.thread_num && !is_one_idle {
                    let work = || {
                        // The parent ends this process then.
                        match worker.run() {
                            Ok(()) => {}
                            Err(GaveUp::Unreachable(why)) => put_report(&output, Report::of(0, Ending::GaveUp, why)),
                            Err(GaveUp::Refused(why)) => put_report(&output, Report::of(0, Ending::TurnedAway, why)),
                        }
                    };
                    thread::Builder::new().name(format!("w{started}")).spawn_scoped(scope, work)?;
                    started += 1;
                }
            }
            Ok(())
        };
        let served = serve();
        // Whatever is under way now, nobody waits for it any more.
        drop((give, give_repeat));
        stop.ask();
        live.shut_down();
        served
    })
}

fn report_to_parent(output: &Mutex<impl io::Write>, progress: &Progress, outcomes: Vec<(Chunk, Outcome)>) {
    let mut bytes = Vec::new();
    let mut put = |report| {
        pipe::encode(&mut bytes, &Frame::Report(report));
    };
    let connections = u32::try_from(progress.connections.sum()).unwrap_or(u32::MAX);
    put(Report::of(connections, Ending::Connections, String::new()));
    if let Some(name) = progress.take_congestion() {
        put(Report::of(0, Ending::Congestion, name));
    }
    let mut wire_bytes = progress.wire_bytes.take();
    while wire_bytes > 0 {
        let some = u32::try_from(wire_bytes).unwrap_or(u32::MAX);
        put(Report::of(some, Ending::WentOut, String::new()));
        wire_bytes -= u64::from(some);
    }
    for (name, time) in progress.waits.take_new() {
        put(Report::of(u32::try_from(time.as_micros()).unwrap_or(u32::MAX), Ending::Time, name.to_owned()));
    }
    for (chunk, outcome) in outcomes {
        let mut wanted = Wanted::default();
        let (ending, reason) = match outcome {
            Outcome::Wanted(ranges) => {
                wanted = ranges;
                (Ending::Wanted, String::new())
            }
            Outcome::Stored => (Ending::Stored, String::new()),
            Outcome::Whole(note) => (Ending::Whole, note.unwrap_or_default()),
            Outcome::Mismatched => (Ending::Mismatched, String::new()),
            Outcome::Refused(why) => (Ending::Refused, why),
            Outcome::Denied(why) => (Ending::Denied, why),
            Outcome::Lost => (Ending::Lost, String::new()),
            Outcome::Stalled => (Ending::Stalled, String::new()),
            Outcome::SourceFailed(why) => (Ending::SourceFailed, why),
            Outcome::Changed => (Ending::Changed, String::new()),
        };
        put(Report { subtrees: chunk.subtrees, wanted, ..Report::of(chunk.ticket, ending, reason) });
    }
    write_out(output, &bytes);
}

fn put_report(output: &Mutex<impl io::Write>, report: Report) {
    let mut bytes = Vec::new();
    pipe::encode(&mut bytes, &Frame::Report(report));
    write_out(output, &bytes);
}

fn write_out(output: &Mutex<impl io::Write>, bytes: &[u8]) {
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    // A parent that is gone is noticed at the end of the input.
    let _ = output.write_all(bytes).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_tells_the_congestion_control_that_it_changed_to() {
        let (output, progress) = (Mutex::new(Vec::new()), Progress::default());
        let tells = |bytes: &[u8]| {
            let (mut inbox, mut pipe, mut told) = (Inbox::default(), bytes, Vec::new());
            while let Some(Frame::Report(report)) = next_frame(&mut inbox, &mut pipe).unwrap() {
                told.extend(Some(report.reason).filter(|_| report.ending == Ending::Congestion));
            }
            told
        };
        report_to_parent(&output, &progress, Vec::new());
        assert!(tells(&output.lock().unwrap()).is_empty());
        for name in ["cubic", "bbr"] {
            progress.note_congestion(name);
            report_to_parent(&output, &progress, Vec::new());
            report_to_parent(&output, &progress, Vec::new());
        }
        assert_eq!(tells(&output.lock().unwrap()), ["cubic", "bbr"], "each once");
    }
}
