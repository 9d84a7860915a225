//! The whole transfer: what the user asked for, and how it is done.
//!
//! walk → entries → control connection → queue → workers here and in child processes, each with a
//! connection → confirmations → verdict.

mod announce;
mod attempts;
mod browser;
mod connection;
mod create;
mod digests;
mod entries;
mod fetch;
mod filter;
mod flight;
mod grow;
mod keep;
mod links;
mod lister;
mod live;
mod login;
mod lost;
mod outcome;
mod plan;
mod process;
mod pull;
mod queue;
mod ready;
mod refusals;
mod relay;
mod sign_up;
mod source;
mod starting;
mod talk;
mod trouble;
mod tune;
mod walk;
mod walker;
mod window;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Scope};
use std::time::Duration;

pub use announce::Refused;
pub use browser::{BrowseError, Browser};
pub use filter::{Filter, Rule};
pub use login::Login;
pub use process::serve_parent;
pub use pull::{Pull, pull};
pub use relay::through;
pub use sign_up::sign_up;
pub use source::lands_in_itself;
pub use walk::Look;

use crate::compress::Level;
use crate::digest::Checksum;
use crate::limits::{BLOCK_LEN, GROW_THREAD_BYTES, JOURNALED_LEN_MIN, READY_NUM_MAX, WRITE_NUMBER_MAX};
use crate::net;
use crate::net::dial::{DialError, Dialer};
use crate::net::tls::Client;
use crate::path::RemotePath;
use crate::progress::Progress;
use crate::protocol::v2::pipe::Setup;
use crate::protocol::{Features, Open, Session, Token, Totals};
use crate::stop::Stop;
use announce::{Announcer, Line, NotBegun};
use attempts::{Attempts, dial_first, interrupted};
use create::Creator;
use grow::{named, start_workers};
use live::Live;
use outcome::{PUSH, Taken, Terms, Wait};
use process::Process;
use queue::Queue;
use ready::Ready;
use source::Source;
use walk::Walk;
use worker::{Way, Worker};

/// A token, or another secret, that nobody can guess.
///
/// # Errors
/// The system has no randomness to give.
pub fn new_token() -> std::io::Result<Token> {
    let mut token = [0; 32];
    aws_lc_rs::rand::fill(&mut token).map_err(|_| std::io::Error::other("the system has no randomness to give"))?;
    Ok(Token(token))
}

/// What the user asked for.
#[derive(Debug)]
pub struct Job {
    /// The file or folder to send.
    pub file: PathBuf,
    /// What is looked at in it.
    pub look: Look,
    /// The receiver.
    pub dialer: Arc<Dialer>,
    /// Who the user says to be.
    pub login: Login,
    /// Where it is to land, and how that is asked for.
    pub target: Target,
    /// What we say that we can do: without zstd, nothing is compressed.
    pub features: Features,
    /// Bytes of a chunk at the most.
    pub length: u64,
    /// Processes that work at the most, this one included.
    pub process_num: usize,
    /// Threads in each process at the most.
    pub thread_num: usize,
    /// The same on a long path, where threads wait more than they work.
    pub far_thread_num: usize,
    /// The program to start further processes from; without one the threads of all processes are
    /// threads of this one.
    pub program: Option<PathBuf>,
}

/// Where a job lands.
#[derive(Debug, Clone)]
pub enum Target {
    /// In a folder of a receiver whose files are created before they are written, in place.
    InPlace(Remote),
    /// In the folder of a session, whose files are published when they are whole.
    Session(Open),
}

impl Target {
    /// The same for another attempt, which nobody takes for the one before.
    fn anew(&self) -> std::io::Result<Self> {
        Ok(match self {
            Self::InPlace(_) => self.clone(),
            Self::Session(open) => Self::Session(Open { token: new_token()?, ..open.clone() }),
        })
    }

    /// What connections that carry chunks say.
    fn session(&self, features: Features) -> Session {
        match self {
            Self::InPlace(remote) => Session::V1 { prefix: remote.prefix.clone() },
            Self::Session(open) => Session::V2 { token: open.token, checksum: open.checksum, features, level: None },
        }
    }

    /// The length of chunks where the user asked for `length`.
    fn chunk_len(&self, length: u64) -> u64 {
        match self {
            Self::InPlace(_) => length.min(WRITE_NUMBER_MAX),
            Self::Session(open) => chunk_len(open.checksum, length),
        }
    }
}

/// The length of chunks that travel in blocks, where the user asked for `length`.
fn chunk_len(checksum: Checksum, length: u64) -> u64 {
    match checksum {
        // BLAKE3 of a file comes from blocks that are aligned to it.
        Checksum::Blake3 => length.checked_next_multiple_of(BLOCK_LEN as u64).unwrap_or(u64::MAX / 2),
        _ => length,
    }
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

/// Is this the error of a receiver that was not to be had for this job, before anything landed?
#[must_use]
pub fn is_refusal(error: &anyhow::Error) -> bool {
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Refused>() || cause.downcast_ref::<DialError>().is_some_and(DialError::is_refusal)
    };
    error.chain().any(refused)
}

/// Can `file` be sent at all?
///
/// # Errors
/// It is missing, unreadable, or neither a folder nor a regular file.
pub fn check_source(file: &Path) -> anyhow::Result<()> {
    Walk::of(file, Look::default()).map(drop)
}

/// Takes the BLAKE3 digest of a file.
pub type NoteDigest<'a> = &'a (dyn Fn(&RemotePath, [u8; 32]) + Sync);

/// Takes the path of an entry.
pub type TellPath<'a> = &'a (dyn Fn(&RemotePath) + Sync);

/// Who is told of a job while it runs.
pub struct Watcher<'a> {
    /// Where it lands, before the first byte is sent; none where the receiver does not say.
    pub landing: &'a (dyn Fn(Option<&[u8]>) + Sync),
    /// The BLAKE3 digest of each file that is there, where digests are wanted.
    pub digest: Option<NoteDigest<'a>>,
    /// The job begins again, with what is not there yet: the digests told before will be told again.
    pub again: &'a (dyn Fn() + Sync),
    /// What would be sent, where nothing is to be sent.
    pub dry: Option<TellPath<'a>>,
}

impl std::fmt::Debug for Watcher<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

/// Does the job. What fails of single entries is in `progress`, and the rest goes on.
///
/// # Errors
/// What ends the whole run: the source or the receiver can't be reached, the receiver forgot the
/// job, or the run was stopped. [`Refused`] where the receiver did not want the job.
pub fn run(job: &Job, watcher: &Watcher<'_>, progress: &Progress, stop: &Stop) -> anyhow::Result<()> {
    progress.processes.add(1);
    grow::tell_routes(&job.dialer, progress);
    let mut target = job.target.clone();
    let mut attempts = Attempts::new(job.dialer.retry_for());
    let mut is_first = true;
    loop {
        match attempt(job, &target, watcher, is_first, progress, stop) {
            Err(error) if attempts.may_go_on(&error, progress, stop) => {
                target = target.anew()?;
                is_first = false;
                (watcher.again)();
            }
            ended => return ended,
        }
    }
}

/// One attempt.
fn attempt(
    job: &Job, target: &Target, watcher: &Watcher<'_>, is_first: bool, progress: &Progress, stop: &Stop,
) -> anyhow::Result<()> {
    let walk = Walk::of(&job.file, job.look.clone())?;
    let source = walk.source();
    if let Target::InPlace(_) = target {
        (watcher.landing)(None);
    }
    let session = target.session(job.features);
    let look = |path: &RemotePath| walk::look_again(&source, &job.look, path, progress);
    let terms = Terms {
        length: target.chunk_len(job.length),
        is_whole_when_stored: session.is_whole_when_stored(),
        // On this machine no stream is slower than the others.
        repeats: session.takes_repeats() && !job.dialer.is_local(),
        look: &look,
        note_digest: watcher.digest,
        has_routes: job.dialer.routes().len() > 1,
        words: &PUSH,
    };
    let queue = Queue::new(terms, progress);
    let (live, control_live, done, over) = (Live::default(), Live::default(), Stop::new()?, Stop::new()?);
    let take = |holder, wait| match wait {
        Wait::Yes => queue.take(holder).map_or(Taken::Finished, Taken::Chunk),
        Wait::No => queue.try_take(holder),
    };
    let report = |outcomes| queue.settle(outcomes);
    let ready = Ready::to(&job.dialer);
    let worker = Worker {
        way: Way::Out(&source),
        session: &session,
        wants_subtrees: watcher.digest.is_some(),
        dialer: &job.dialer,
        route: None,
        ready: Some(&ready),
        holder: 0,
        take: &take,
        report: &report,
        progress,
        live: &live,
        stop: &over,
    };
    let agreed = OnceLock::new();
    let live = &control_live;
    let crew = Crew { job, source: &source, target, watcher, is_first, queue: &queue, worker, agreed: &agreed, live, stop };
    let ended = thread::scope(|scope| -> anyhow::Result<_> {
        let (ready, over) = (&ready, &over);
        let number = crew.number_ahead();
        if number > 0 {
            named(scope, "ready", move || ready.dial(scope, number, over))?;
        }
        let first = dial_first(&job.dialer, &PUSH, is_first, progress, stop);
        let ended = first.map(|first| crew.work(scope, walk, first, &done));
        queue.abort();
        over.ask();
        done.ask();
        ended
    })?;
    anyhow::ensure!(!stop.is_asked(), "stopped{}", missing(&queue, progress));
    crew.conclude(ended)
}

/// All that work on a run.
#[derive(Clone, Copy)]
struct Crew<'a> {
    job: &'a Job,
    source: &'a Source,
    target: &'a Target,
    watcher: &'a Watcher<'a>,
    is_first: bool,
    queue: &'a Queue<'a>,
    /// What each worker works with. Its flag is set as well when all is confirmed.
    worker: Worker<'a>,
    /// What connections say, and how content travels, once that is agreed on.
    agreed: &'a OnceLock<Session>,
    /// The stream of the control connection, which is needed for longer than the workers'.
    live: &'a Live,
    /// Asked to end?
    stop: &'a Stop,
}

/// The control connection of a run, once it is open.
enum Control<'a> {
    Create(&'a Remote, net::Stream),
    Announce(Announcer<'a>, Box<Line<'a>>),
}

/// What the receiver said at the end, where it says something, or why it could not be asked.
type LastWord = anyhow::Result<Option<Totals>>;

impl<'a> Crew<'a> {
    /// Sees the run to its end.
    ///
    /// # Errors
    /// The receiver was lost to all workers, or did not want the job.
    fn work<'scope>(
        &'a self, scope: &'scope Scope<'scope, 'a>, walk: Walk, first: net::Stream, done: &'a Stop,
    ) -> anyhow::Result<LastWord> {
        let progress = self.worker.progress;
        named(scope, "watch", || {
            net::wait_either(self.stop, done);
            if self.stop.is_asked() {
                self.queue.abort();
                self.end_workers();
                self.live.shut_down();
            }
        })?;
        let control = match self.target {
            Target::InPlace(remote) => Control::Create(remote, first),
            Target::Session(open) => {
                let announcer = self.announcer(open);
                let line = announcer.start(first).map_err(|error| interrupted(error, self.is_first))?;
                self.agree(line.level);
                if self.is_first {
                    (self.watcher.landing)(Some(&line.landed));
                }
                Control::Announce(announcer, Box::new(line))
            }
        };
        let (giver, mut entries) = entries::channel();
        named(scope, "walk", move || walk.run(giver, progress))?;
        let all_sent = Arc::new(Stop::new()?);
        let until = Arc::clone(&all_sent);
        let control = named(scope, "control", move || {
            let announced = match control {
                Control::Create(remote, stream) => {
                    self.creator(remote).run(stream, &mut entries).map(|()| self.queue.close()).map(|()| None)
                }
                Control::Announce(announcer, mut line) => announcer
                    .run(&mut line, &mut entries)
                    .map(|()| self.queue.close())
                    .and_then(|()| announcer.watch(&mut line, &until))
                    .map(|()| Some((announcer, line))),
            };
            drop(entries);
            if announced.is_err() {
                self.queue.abort();
            }
            announced
        })?;
        let worked = self.start_workers(scope);
        all_sent.ask();
        // Whoever still sends something sends what others brought meanwhile, or what is lost with all.
        self.end_workers();
        if worked.is_err() {
            self.queue.abort();
            self.live.shut_down();
        }
        let announced = control.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the control thread failed")));
        worked?;
        let last_word = announced.and_then(|line| match line {
            Some((announcer, mut line)) if !self.queue.is_aborted() => announcer.finish(&mut line).map(Some),
            _ => Ok(None),
        });
        // The receiver has all it needs: nobody waits while this is read.
        if let Ok(Some(_)) = last_word {
            self.queue.read_for_digests(&|path, identity| self.source.digest(path, identity, self.stop));
        }
        Ok(last_word)
    }

    /// Connections that are worth dialling before it is known how much there is to do.
    fn number_ahead(&self) -> usize {
        let is_usual = matches!(self.target, Target::Session(_)) && !self.job.dialer.has_routes() && !self.job.dialer.is_local();
        let enough_for = match self.source {
            _ if !is_usual => return 0,
            // One that can't be read is sent by nobody.
            Source::File(path) => std::fs::metadata(path).map_or(0, |meta| meta.len()).div_ceil(GROW_THREAD_BYTES).max(1),
            Source::Tree(_) => u64::MAX,
        };
        let threads = self.job.far_thread_num.saturating_mul(self.job.process_num).min(READY_NUM_MAX);
        usize::try_from(enough_for).unwrap_or(usize::MAX).min(threads)
    }

    /// Ends all workers of this process, whatever they hold.
    fn end_workers(&self) {
        self.worker.stop.ask();
        self.worker.live.shut_down();
    }

    /// Content travels compressed like this from here on, if it does.
    fn agree(&self, level: Option<Level>) {
        self.agreed.get_or_init(|| self.worker.session.with_level(level));
        if level.is_some() {
            self.worker.progress.set_compressed();
        }
    }

    fn creator(&self, remote: &'a Remote) -> Creator<'a> {
        let Worker { dialer, progress, .. } = self.worker;
        Creator { remote, dialer, queue: self.queue, progress, live: self.live, stop: self.stop }
    }

    fn announcer(&self, open: &'a Open) -> Announcer<'a> {
        let Worker { dialer, progress, .. } = self.worker;
        let Watcher { digest, dry, .. } = *self.watcher;
        let part_len = self.target.chunk_len(self.job.length).min(JOURNALED_LEN_MIN);
        let (source, queue, live, stop) = (self.source, self.queue, self.live, self.stop);
        Announcer {
            open,
            features: self.job.features,
            login: &self.job.login,
            source,
            dialer,
            queue,
            progress,
            live,
            stop,
            part_len,
            digest,
            dry,
        }
    }

    /// The one place where a run is said to have gone well.
    fn conclude(&self, ended: anyhow::Result<LastWord>) -> anyhow::Result<()> {
        let Worker { progress, session, .. } = self.worker;
        let not_finished = |error: anyhow::Error| {
            if error.is::<Refused>() || error.is::<NotBegun>() {
                error
            } else {
                error.context(format!("not finished{}", missing(self.queue, progress)))
            }
        };
        let last_word = ended.map_err(not_finished)?;
        match self.queue.refusal() {
            Some(refusal) if refusal.of_all => {
                anyhow::bail!("the receiver takes no more, its log says why ({}){}", refusal.why, missing(self.queue, progress))
            }
            Some(refusal) if session.is_whole_when_stored() && !remembers(self.job, session, &refusal.known, self.stop) => {
                anyhow::bail!(
                    "the receiver does not know the files of this run any more: was it restarted?{}",
                    missing(self.queue, progress)
                )
            }
            _ => {
                if let Some(totals) = last_word.map_err(not_finished)? {
                    note_totals(&totals, progress);
                }
            }
        }
        let (found, sent) = (progress.found_files.sum(), progress.done_files.sum());
        let is_all_there = sent == found || progress.failed() > 0 || self.watcher.dry.is_some();
        anyhow::ensure!(is_all_there, "{sent} of {found} files were confirmed, and none failed");
        Ok(())
    }

    fn start_workers<'scope>(&self, scope: &'scope Scope<'scope, 'a>) -> anyhow::Result<()> {
        let (job, queue, session) = (self.job, self.queue, self.agreed.get());
        let worker = Worker { session: session.unwrap_or(self.worker.session), ..self.worker };
        let thread_num = job.thread_num;
        // A child knows one way to the receiver; and where that is long, it would be there too late for small files, and
        // processors are not what is waited for.
        let is_near = !job.dialer.is_far();
        let Some(program) = job.program.as_ref().filter(|_| is_near) else {
            let thread_num = if is_near { thread_num } else { job.far_thread_num };
            return start_workers(scope, queue, worker, (thread_num.saturating_mul(job.process_num), 1), |_| Ok(()));
        };
        start_workers(scope, queue, worker, (thread_num, job.process_num), |number| {
            match Process::start(program, setup(job, self.source, &worker), job.length) {
                Ok(process) => {
                    worker.progress.processes.add(1);
                    let holder = queue.enter(thread_num, 0);
                    let feed = move || queue.leave(holder, process.feed(holder, queue, worker.progress).err());
                    named(scope, &format!("p{number}"), feed).map(drop)
                }
                Err(error) => {
                    tracing::warn!("one process less: {error:#}");
                    Ok(())
                }
            }
        })
    }
}

fn note_totals(totals: &Totals, progress: &Progress) {
    let waits = &progress.waits;
    waits.receiving.add(Duration::from_micros(totals.receiving_us));
    waits.verifying.add(Duration::from_micros(totals.verifying_us));
    waits.writing.add(Duration::from_micros(totals.writing_us));
}

/// Does the receiver still know a file of this run?
fn remembers(job: &Job, session: &Session, path: &RemotePath, stop: &Stop) -> bool {
    job.dialer.dial(stop).is_ok_and(|stream| connection::is_known(stream, session, path).unwrap_or(false))
}

fn setup(job: &Job, source: &Source, worker: &Worker<'_>) -> Setup {
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
        session: worker.session.clone(),
        host_key: job.dialer.tls().and_then(Client::seen).map(|seen| *seen.fingerprint.as_bytes()),
        congestion: job.dialer.congestion().map(|congestion| congestion.name().to_owned()).unwrap_or_default(),
        wants_subtrees: worker.wants_subtrees,
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
