//! Runs a transfer: bar, signals, summary, exit code.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use parallel_transfer::client::{self, Watcher};
use parallel_transfer::exit::Verdict;
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::path::RemotePath;
use parallel_transfer::progress::Progress;
use parallel_transfer::signals;
use parallel_transfer::stop::Stop;
use parallel_transfer::terminal::{self, Report, Terminal};

use super::manifest::Manifest;
use super::transfer::Transfer;
use super::wire::tell_of_new_key;

/// Does `work`, which says where it lands; shows how far it is, and prints what came of it.
pub(crate) fn run(
    program: &'static str, transfer: &Transfer, mut landed: String,
    work: impl FnOnce(&mut String, &Progress, &Stop) -> anyhow::Result<()>,
) -> ExitCode {
    let terminal = Terminal::for_transfer(program, transfer.loudness());
    let (progress, started) = (Progress::default(), Instant::now());
    let (result, stopped) = match (Stop::new(), Stop::new()) {
        (Ok(stop), Ok(done)) => {
            let stop = Arc::new(stop);
            let result = listen_to_signals(&stop).and_then(|()| {
                thread::scope(|scope| {
                    let follow = || terminal.follow(&progress, &done);
                    let follower = thread::Builder::new().name("bar".to_owned()).spawn_scoped(scope, follow)?;
                    let result = work(&mut landed, &progress, &stop);
                    done.ask();
                    drop(follower.join());
                    result
                })
            });
            (result, stop.is_asked())
        }
        (Err(error), _) | (_, Err(error)) => (Err(error.into()), false),
    };
    let (verdict, error) = match result {
        Ok(()) => (Verdict::of(&progress), None),
        Err(error) if stopped => (Verdict::Interrupted, Some(error)),
        Err(error) if client::is_refusal(&error) => (Verdict::Refused, Some(error)),
        Err(error) => (Verdict::Failed, Some(error)),
    };
    let error = error.map(|error| format!("{error:#}"));
    let protocol = transfer.reach.wire.protocol.name();
    let congestion = progress.congestion();
    let elapsed = started.elapsed();
    let report = Report { verdict, error, landed: &landed, protocol, congestion, progress: &progress, elapsed };
    report.print(transfer.json, transfer.loudness());
    ExitCode::from(verdict.code())
}

/// What a person is told of a transfer before its first byte.
pub(crate) struct Told<'a> {
    /// What is done, and what would be done.
    pub(crate) act: [&'a str; 2],
    /// To what.
    pub(crate) what: &'a str,
    /// Where that lands, from what the receiver says of it.
    pub(crate) place: &'a (dyn Fn(&[u8]) -> String + Sync),
}

/// Does `work`, and says before its first byte where all lands.
pub(crate) fn watch(
    transfer: &Transfer, told: &Told<'_>, dialer: &Dialer, landed: &mut String, progress: &Progress,
    work: impl FnOnce(&Watcher<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let place = Mutex::new(std::mem::take(landed));
    let landing = |folder: Option<&[u8]>| {
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folder {
            *place = (told.place)(folder);
        }
        tell_of_new_key(dialer);
        let [act, would_act] = told.act;
        tracing::info!("{} {} into {place}", if transfer.dry_run { would_act } else { act }, told.what);
    };
    let manifest = transfer.manifest.as_deref().map(Manifest::create).transpose()?;
    let digest = |path: &RemotePath, digest| {
        if let Some(manifest) = &manifest {
            manifest.add(path, digest, progress);
        }
    };
    let again = || {
        if let Some(manifest) = &manifest {
            manifest.begin_again();
        }
    };
    // In JSON there is but one object: it has the counts.
    let tell = |path: &RemotePath| {
        if !transfer.json {
            terminal::print_would_send(path);
        }
    };
    let watcher = Watcher {
        landing: &landing,
        digest: if manifest.is_some() { Some(&digest) } else { None },
        again: &again,
        dry: if transfer.dry_run { Some(&tell) } else { None },
    };
    let done = work(&watcher);
    if !dialer.is_local() {
        // Where nothing had to be sent, nobody looked.
        let seen = dialer.routes().iter().filter_map(|route| route.congestion()?.look()).last();
        let changed = seen.map(str::to_owned).or_else(|| progress.congestion());
        progress.note_congestion(&transfer.reach.wire.congestion(changed));
    }
    *landed = place.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.and_then(|()| manifest.map_or(Ok(()), Manifest::finish))
}

fn listen_to_signals(stop: &Arc<Stop>) -> anyhow::Result<()> {
    let (signals, stop) = (signals::listen()?, Arc::clone(stop));
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        signals::forward(signals, &stop, || (), None);
        #[allow(clippy::disallowed_methods, reason = "asked a second time, and at once")]
        std::process::exit(i32::from(Verdict::Interrupted.code()));
    })?;
    Ok(())
}
