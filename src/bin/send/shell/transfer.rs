//! `put` and `get`: whole transfers, each over connections of its own.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use indicatif::BinaryBytes;
use parallel_transfer::client::{self, Filter, Job, Look, Pull, Target, Watcher, new_token};
use parallel_transfer::exit::Verdict;
use parallel_transfer::path::{Escaped, RemotePath};
use parallel_transfer::progress::Progress;
use parallel_transfer::protocol::{Open, Purpose};
use parallel_transfer::stop::Stop;
use parallel_transfer::store::{Store, take_umask};
use parallel_transfer::terminal;

use super::interrupt::Interrupted;
use super::{Shell, code_of, paths};
use crate::shared::folders::state_folder;

/// What came of several transfers.
#[derive(Debug, Default)]
struct Sum {
    succeeded: u64,
    failed: u64,
    bytes: u64,
    /// The exit code of the first that did not happen at all.
    code: Option<u8>,
    time: Duration,
}

impl Sum {
    /// Counts what one came to; says why it did not happen.
    fn add(&mut self, name: &str, progress: &Progress, done: anyhow::Result<()>) -> anyhow::Result<()> {
        self.succeeded += progress.done_files.sum() + progress.done_links.sum();
        self.failed += progress.failed();
        self.bytes += progress.done_bytes.sum();
        match done {
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                terminal::print_error(name, &error);
                self.failed += 1;
                self.code.get_or_insert_with(|| code_of(&error));
            }
            // A folder of nothing is something.
            Ok(()) if progress.found_files.sum() + progress.found_links.sum() + progress.failed() == 0 => self.succeeded += 1,
            Ok(()) => {}
        }
        Ok(())
    }

    fn finish(&self, is_quiet: bool) -> anyhow::Result<u8> {
        if !is_quiet {
            let (bytes, seconds) = (BinaryBytes(self.bytes), self.time.as_secs_f64());
            let line = format!("{} succeeded, {} failed ({bytes} in {seconds:.2} s)", self.succeeded, self.failed);
            terminal::print_lines(&[line])?;
        }
        Ok(match (self.failed, self.succeeded, self.code) {
            (0, ..) => Verdict::Complete.code(),
            (_, 0, Some(code)) => code,
            _ => Verdict::Partial.code(),
        })
    }
}

/// Sends files and folders of this machine into a folder at the receiver; gives the exit code.
pub(super) fn put(shell: &Shell, sources: &[Vec<u8>], into: &RemotePath) -> anyhow::Result<u8> {
    let (mut sum, started) = (Sum::default(), Instant::now());
    let mut names = HashSet::new();
    for source in sources {
        let source = Path::new(OsStr::from_bytes(source));
        let progress = Progress::default();
        let is_new = source.file_name().is_none_or(|name| names.insert(name));
        let done = follow(shell, &progress, || {
            ensure!(is_new, "can't send '{}': it would replace what was just sent under that name", Escaped::path(source));
            put_one(shell, source, into, &progress)
        });
        sum.add("put", &progress, done)?;
    }
    sum.time = started.elapsed();
    sum.finish(shell.args.quiet)
}

fn put_one(shell: &Shell, source: &Path, into: &RemotePath, progress: &Progress) -> anyhow::Result<()> {
    let (reach, shown) = (&shell.args.reach, Escaped::path(source));
    // It would be all that is here.
    ensure!(!source.as_os_str().is_empty(), "can't send '': the name is empty");
    let path = shell.local.join(source);
    let is_folder = path.metadata().with_context(|| format!("can't send '{shown}'"))?.is_dir();
    // Of what has no name, such as '.', the contents.
    let directory = match source.file_name().filter(|_| is_folder) {
        Some(name) => RemotePath::parse(name.as_bytes()).and_then(|name| into.join(&name)),
        None => Ok(into.clone()),
    };
    let directory = directory.with_context(|| format!("can't send '{shown}'"))?;
    let job = Job {
        file: path,
        look: look(),
        dialer: Arc::clone(shell.session.dialer()),
        login: shell.session.login().clone(),
        target: Target::Session(open(shell, &directory)?),
        features: reach.wire.compression.features(),
        length: reach.length,
        process_num: reach.process_num(),
        thread_num: reach.thread_num(),
        far_thread_num: reach.far_thread_num(),
        // A rate is kept by one process.
        program: std::env::current_exe().ok().filter(|_| reach.wire.bwlimit.is_none()),
    };
    client::run(&job, &WATCHER, progress, &shell.stop)
}

/// Fetches files and folders of the receiver into the local folder, each under its own name; gives the exit
/// code; `missing` was told of already.
pub(super) fn get(shell: &Shell, sources: &[Source], missing: &Missing) -> anyhow::Result<u8> {
    let (mut sum, started) = (Sum { failed: missing.count, code: missing.code, ..Sum::default() }, Instant::now());
    for source in sources {
        let progress = Progress::default();
        let done = follow(shell, &progress, || get_one(shell, source, &progress));
        sum.add("get", &progress, done)?;
    }
    sum.time = started.elapsed();
    sum.finish(shell.args.quiet)
}

/// What is to be fetched.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: RemotePath,
    pub(super) is_folder: bool,
}

/// What can't be fetched, because nobody knows what it is.
#[derive(Debug, Default)]
pub(super) struct Missing {
    pub(super) count: u64,
    /// The exit code of the first.
    pub(super) code: Option<u8>,
}

fn get_one(shell: &Shell, source: &Source, progress: &Progress) -> anyhow::Result<()> {
    let (reach, umask) = (&shell.args.reach, take_umask());
    let shown = paths::shown(&source.path);
    let at = || format!("can't fetch '{shown}' into '{}'", Escaped::path(&shell.local));
    // Nobody named the folder that it becomes here: through a link of that name it would land anywhere.
    let into = match source.path.split().filter(|_| source.is_folder) {
        Some((_, name)) => RemotePath::parse(name.as_bytes()).with_context(at)?,
        None => RemotePath::root(),
    };
    let (from, dialer) = (Open { purpose: Purpose::Browse, ..open(shell, &source.path)? }, Arc::clone(shell.session.dialer()));
    let mut store = Store::open(&shell.local, umask).with_context(at)?;
    store.keep_index_below(state_folder().as_deref());
    let pull = Pull {
        from,
        features: reach.wire.compression.features(),
        is_folder: Some(source.is_folder),
        look: look(),
        threads: reach.fetching_threads(),
        far_threads: reach.far_fetching_threads(),
        dialer,
        login: shell.session.login().clone(),
        store: &store,
        into,
        length: reach.length,
        pace: reach.wire.pace(),
    };
    client::pull(&pull, &WATCHER, progress, &shell.stop).with_context(|| format!("can't fetch '{shown}'"))
}

/// Nobody is told of a transfer while it runs.
const WATCHER: Watcher<'static> = Watcher { landing: &|_| (), digest: None, again: &|| (), dry: None };

fn look() -> Look {
    Look { keeps_metadata: true, owner: false, xattrs: false, filter: Filter::default() }
}

fn open(shell: &Shell, directory: &RemotePath) -> anyhow::Result<Open> {
    Ok(Open {
        // Below the root, whatever the root is called.
        directory: directory.as_bytes().to_vec(),
        checksum: shell.args.reach.wire.checksum(false)?,
        compression: shell.args.reach.wire.compression.level(),
        ..Open::plain(new_token()?, Purpose::Bring)
    })
}

/// Does a transfer, with a bar where there is a terminal.
fn follow(shell: &Shell, progress: &Progress, transfer: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (done, terminal) = (Stop::new()?, &shell.terminal);
    let result = thread::scope(|scope| {
        let bar = thread::Builder::new().name("bar".to_owned());
        let follower = bar.spawn_scoped(scope, || terminal.follow(progress, &done))?;
        let result = transfer();
        done.ask();
        drop(follower.join());
        result
    });
    result.map_err(|error| if shell.stop.is_asked() { Interrupted.into() } else { error })
}
