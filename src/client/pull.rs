//! A pull: the same transfer with the ends exchanged. What is there is listed, not walked; ranges are read
//! from the server over many connections, and land in a store of this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, bail};

use super::attempts::{Attempts, Interrupted, dial_first, interrupted};
use super::fetch::Site;
use super::grow::{named, start_workers, tell_routes};
use super::lister::{self, Lister, Listing};
use super::live::Live;
use super::login::Login;
use super::outcome::{PULL, Taken, Terms, Wait};
use super::queue::Queue;
use super::talk::{Opened, Talk, out_of_turn};
use super::trouble::Trouble;
use super::worker::{Way, Worker};
use super::{Look, Watcher, chunk_len, leave_out, missing, new_token};
use crate::entry::{FileMeta, Listed, ListedKind};
use crate::landing::{End, Landing, Rules};
use crate::limits::{CHUNK_TRIES_MAX, JOURNALED_LEN_MIN, KEEP_INCOMING_DEFAULT, OPEN_TIMEOUT};
use crate::net;
use crate::net::dial::Dialer;
use crate::net::pace::Pace;
use crate::path::{Escaped, RemotePath};
use crate::progress::Progress;
use crate::protocol::{Features, Open, Reply, Session, v2};
use crate::stop::Stop;
use crate::store::{Made, Store};

/// What is to be fetched, and where it lands.
#[derive(Debug)]
pub struct Pull<'a> {
    /// The session to open: its folder is what is fetched, a folder or a file.
    pub from: Open,
    /// What we say that we can do: without zstd, nothing is to be compressed.
    pub features: Features,
    /// Was it seen to be a folder, or a file? One lands elsewhere than the other: a folder in the place of a
    /// file would bring names that nobody asked for.
    pub is_folder: Option<bool>,
    /// What is fetched of it.
    pub look: Look,
    /// The server.
    pub dialer: Arc<Dialer>,
    /// Who the user says to be.
    pub login: Login,
    /// The tree that it lands in.
    pub store: &'a Store,
    /// The folder of that tree that gets the contents of a folder, or a file.
    pub into: RemotePath,
    /// Bytes of a chunk at the most.
    pub length: u64,
    /// Connections that content comes over at the most.
    pub threads: usize,
    /// The same on a long path, where threads wait more than they work.
    pub far_threads: usize,
    /// The rate at which it may come, if there is one.
    pub pace: Option<Arc<Pace>>,
}

impl Pull<'_> {
    /// What is fetched, for a person.
    pub(super) fn shown(&self) -> String {
        Escaped::start_of(&self.from.directory).to_string()
    }

    /// Connections that content comes over at the most, once the server was dialled.
    fn connections_max(&self) -> usize {
        if self.dialer.is_far() { self.far_threads } else { self.threads }
    }

    /// Is it what it was seen to be?
    ///
    /// # Errors
    /// It is not.
    fn check_kind(&self, kind: &ListedKind) -> anyhow::Result<()> {
        let is_folder = matches!(kind, ListedKind::Directory { .. });
        let now = match self.is_folder {
            Some(true) if !is_folder => "it is no folder any more",
            Some(false) if is_folder => "it is a folder now",
            _ => return Ok(()),
        };
        bail!("'{}' changed since it was looked at: {now}; try again", self.shown())
    }

    /// The name that a file lands under.
    ///
    /// # Errors
    /// It is the name of a folder.
    pub(super) fn file_name(&self) -> anyhow::Result<RemotePath> {
        let path = RemotePath::parse_loosely(&self.from.directory)?;
        let (_, name) = path.split_bytes();
        RemotePath::parse(name).with_context(|| format!("{} says that '{}' is a file", self.dialer, self.shown()))
    }
}

/// Fetches it. What fails of single entries is in `progress`, and the rest goes on. What earlier runs left in the
/// store, and nobody goes on with, is removed.
///
/// # Errors
/// What ends the whole run, as of [`run`](super::run); [`Refused`](super::Refused) where the server did not want it.
pub fn pull(job: &Pull<'_>, watcher: &Watcher<'_>, progress: &Progress, stop: &Stop) -> anyhow::Result<()> {
    net::raise_descriptor_limit();
    progress.processes.add(1);
    progress.waits.set_inbound();
    tell_routes(&job.dialer, progress);
    let ended = attempt_patiently(job, watcher, progress, stop);
    if !job.from.is_dry {
        // Behind the attempts, which go on with what they may, however old.
        job.store.adopt(KEEP_INCOMING_DEFAULT, &mut || !stop.is_asked());
        job.store.end_index();
    }
    ended
}

/// As many attempts as may be made.
fn attempt_patiently(job: &Pull<'_>, watcher: &Watcher<'_>, progress: &Progress, stop: &Stop) -> anyhow::Result<()> {
    let mut open = job.from.clone();
    let mut attempts = Attempts::new(job.dialer.retry_for());
    let mut is_first = true;
    loop {
        match attempt(job, &open, watcher, is_first, progress, stop) {
            Err(error) if attempts.may_go_on(&error, progress, stop) => {
                open = Open { token: new_token()?, ..open };
                is_first = false;
                (watcher.again)();
            }
            ended => return ended,
        }
    }
}

/// One attempt.
fn attempt(
    job: &Pull<'_>, open: &Open, watcher: &Watcher<'_>, is_first: bool, progress: &Progress, stop: &Stop,
) -> anyhow::Result<()> {
    let stream = dial_first(&job.dialer, &PULL, is_first, progress, stop)?;
    let (live, control_live, done, over) = (Live::default(), Live::default(), Stop::new()?, Stop::new()?);
    let mut talk = Talk::over(control_live.register(stream));
    let (Opened { landed, level, .. }, top) = begin(job, open, &mut talk).map_err(|error| interrupted(error, is_first))?;
    job.check_kind(&top.kind)?;
    if level.is_some() {
        progress.set_compressed();
    }
    if is_first {
        (watcher.landing)(Some(&landed));
    }
    let landing = make_landing(job, open)?;
    let is_one_file = matches!(top.kind, ListedKind::File { .. });
    let site = Site { landing: &landing, store: job.store, is_one_file, pace: job.pace.as_ref() };
    let session = Session::V2 { token: open.token, checksum: open.checksum, features: job.features, level: None };
    let length = chunk_len(open.checksum, job.length);
    let look = |path: &RemotePath| look_again(job, &session, site, &control_live, path, &over);
    let terms = Terms {
        length,
        is_whole_when_stored: session.is_whole_when_stored(),
        repeats: session.takes_repeats(),
        look: &look,
        note_digest: watcher.digest,
        has_routes: job.dialer.routes().len() > 1,
        words: &PULL,
    };
    let queue = Queue::new(terms, progress);
    let take = |holder, wait| match wait {
        Wait::Yes => queue.take(holder).map_or(Taken::Finished, Taken::Chunk),
        Wait::No => queue.try_take(holder),
    };
    let report = |outcomes| queue.settle(outcomes);
    let worker = Worker {
        way: Way::In(site),
        session: &session,
        wants_subtrees: watcher.digest.is_some(),
        dialer: &job.dialer,
        route: None,
        ready: None,
        holder: 0,
        take: &take,
        report: &report,
        progress,
        live: &live,
        stop: &over,
    };
    let (part_len, digest, dry) = (length.min(JOURNALED_LEN_MIN), watcher.digest, watcher.dry);
    let lister = Lister { job, site, queue: &queue, progress, stop, part_len, digest, dry };
    let ended = thread::scope(|scope| {
        named(scope, "watch", || {
            net::wait_either(stop, &done);
            if stop.is_asked() {
                queue.abort();
                over.ask();
                live.shut_down();
                control_live.shut_down();
            }
        })?;
        let talk = &mut talk;
        let control = named(scope, "control", || {
            let listed = lister.run(talk, top);
            match &listed {
                Ok(_) => queue.close(),
                Err(_) => queue.abort(),
            }
            listed
        })?;
        let worked = start_workers(scope, &queue, worker, (job.connections_max(), 1), |_| Ok(()));
        // What somebody still asks for others brought meanwhile, or it is lost with all.
        over.ask();
        live.shut_down();
        if worked.is_err() {
            queue.abort();
            control_live.shut_down();
        }
        let listed = control.join().unwrap_or_else(|_| Err(Trouble::Fatal(anyhow::anyhow!("the control thread failed"))));
        queue.abort();
        done.ask();
        worked?;
        listed.map_err(|error| match error {
            Trouble::Fatal(error) => error,
            Trouble::Broken(error) => Interrupted(format!("the connection to {} broke: {error}", job.dialer)).into(),
        })
    });
    let look = |path: &RemotePath| look_again(job, &session, site, &control_live, path, stop);
    let ended = ended.and_then(|mut listing| conclude(&lister, &mut listing, &look, stop).map(|()| listing));
    if ended.is_err() || stop.is_asked() {
        landing.let_folders_go(job.store);
    }
    anyhow::ensure!(!stop.is_asked(), "stopped{}", missing(&queue, progress));
    let listing = ended.map_err(|error| match error.is::<Interrupted>() {
        true => error,
        false => error.context(format!("not finished{}", missing(&queue, progress))),
    })?;
    // Before all is read that may have to be: nothing depends on the server any more.
    end_session(job, open, &mut talk, &control_live, stop);
    if digest.is_some() {
        queue.read_for_digests(&|path, identity| lister.read_digest(path, identity));
        lister.read_for_digests(&listing)?;
        anyhow::ensure!(!stop.is_asked(), "stopped: all is here, but the manifest does not name all of it");
    }
    Ok(())
}

/// Opens the session and looks at what is to be fetched: where that is, and what.
fn begin(job: &Pull<'_>, open: &Open, talk: &mut Talk<'_>) -> anyhow::Result<(Opened, Listed)> {
    let broken = |trouble| match trouble {
        Trouble::Fatal(error) => error,
        Trouble::Broken(error) => super::talk::foreign(&job.dialer, true, Some(error.into())).context("nothing was fetched"),
    };
    let opened = talk.open(&job.dialer, &job.login, open, job.features).map_err(broken)?;
    Ok((opened, lister::look(talk, job, &RemotePath::root()).map_err(broken)?))
}

fn make_landing(job: &Pull<'_>, open: &Open) -> anyhow::Result<Landing> {
    let made = Arc::<Made>::default();
    let is_new =
        if open.is_dry { job.store.is_missing(&job.into) } else { job.store.open_base(&job.into, &made) }.with_context(|| {
            let folder: PathBuf = job.store.path().join(job.into.as_path());
            format!("can't make folder '{}'", Escaped::path(&folder))
        })?;
    let rules = Rules { checksum: open.checksum, keeps_old: open.keeps_old, syncs: open.syncs, is_dry: open.is_dry };
    Ok(Landing::new(job.into.clone(), is_new, made, rules))
}

/// What a file that changed is by now; none where that can't be found out.
fn look_again(
    job: &Pull<'_>, session: &Session, site: Site<'_>, live: &Live, path: &RemotePath, stop: &Stop,
) -> Option<FileMeta> {
    let path = if site.is_one_file { RemotePath::root() } else { path.clone() };
    for _ in 0..CHUNK_TRIES_MAX {
        let stream = job.dialer.dial_patiently(stop).ok()?;
        let mut talk = Talk::over(live.register(stream));
        match talk.join(&job.dialer, session).and_then(|()| lister::look(&mut talk, job, &path)) {
            Err(Trouble::Broken(error)) => tracing::debug!("a connection to {} broke: {error}", job.dialer),
            looked => return lister::meta_of(&looked.ok()?),
        }
    }
    None
}

/// The one place where a pull is said to have gone well: all that was listed is here.
fn conclude(
    lister: &Lister<'_>, listing: &mut Listing, look: &dyn Fn(&RemotePath) -> Option<FileMeta>, stop: &Stop,
) -> anyhow::Result<()> {
    let Lister { job, site, queue, progress, .. } = *lister;
    if let Some(refusal) = queue.refusal().filter(|refusal| refusal.of_all) {
        anyhow::bail!("the server gives no more ({})", refusal.why);
    }
    anyhow::ensure!(!stop.is_asked(), "stopped");
    lister.describe_hard_links(listing, look)?;
    let landing = site.landing;
    let mut tell = |end: End<'_>| {
        if let End::Failed(path, reason) = end {
            let path = path.strip(&landing.base).unwrap_or_else(RemotePath::root);
            if !queue.may_have_lost(&path) {
                leave_out(progress, &path, &reason);
            }
        }
    };
    landing.end(job.store, &mut tell, |_| Ok(job.store.sync()?));
    progress.done_links.add(landing.counts.links.sum());
    let (found, fetched) = (progress.found_files.sum(), progress.done_files.sum());
    let is_all_here = fetched == found || progress.failed() > 0 || lister.dry.is_some();
    anyhow::ensure!(is_all_here, "{fetched} of {found} files came, and none failed");
    Ok(())
}

/// Tells the server that the session has ended. All is here: nothing depends on it.
fn end_session(job: &Pull<'_>, open: &Open, talk: &mut Talk<'_>, live: &Live, stop: &Stop) {
    let mut bytes = Vec::new();
    v2::request::encode_finish(&mut bytes);
    let finish = |talk: &mut Talk<'_>| {
        talk.say(&bytes)?;
        talk.flush()?;
        let until = Instant::now() + OPEN_TIMEOUT;
        loop {
            match talk.next_reply(&job.dialer)? {
                Reply::Finished(_) | Reply::Refused(_) => return Ok::<_, Trouble>(()),
                Reply::Heartbeat | Reply::Missing { .. } if Instant::now() < until => {}
                _ => return Err(out_of_turn(&job.dialer)),
            }
        }
    };
    match finish(talk) {
        Err(Trouble::Broken(_)) => {}
        _ => return,
    }
    // The connection was silent for as long as the content took.
    let again = job.dialer.dial(stop).map_err(|error| Trouble::Fatal(error.into())).and_then(|stream| {
        let mut talk = Talk::over(live.register(stream));
        talk.open(&job.dialer, &job.login, open, job.features)?;
        finish(&mut talk)
    });
    if let Err(error) = again {
        tracing::debug!("{} was not told of the end: {error:?}", job.dialer);
    }
}
