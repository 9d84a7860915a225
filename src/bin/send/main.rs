//! `send`: flags → job → exit code.

mod args;
mod key;
mod local;
mod login;
mod manifest;
mod secrets;
mod select;
mod wire;

use std::panic;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Parser as _;
use parallel_transfer::client::{self, Job, Watcher};
use parallel_transfer::exit::Verdict;
use parallel_transfer::net::tls::Client;
use parallel_transfer::path::{Escaped, RemotePath};
use parallel_transfer::progress::Progress;
use parallel_transfer::signals;
use parallel_transfer::stop::Stop;
use parallel_transfer::terminal::{self, Report, Terminal};

use args::Args;
use manifest::Manifest;

fn main() -> ExitCode {
    // A thread that panics has found a mistake of ours. The others would wait for it for ever.
    panic::set_hook(Box::new(|mistake| {
        terminal::print_error("send", &anyhow::anyhow!("internal error: {mistake}"));
        #[allow(clippy::disallowed_methods, reason = "there is nobody left to return to")]
        std::process::exit(i32::from(Verdict::Failed.code()));
    }));
    if std::env::args_os().skip(1).eq(["--worker"]) {
        return work_for_parent();
    }
    if std::env::args_os().nth(1).is_some_and(|first| first == "key") {
        return key::run();
    }
    if std::env::args_os().nth(1).is_some_and(|first| first == "signup") {
        return login::sign_up();
    }
    let args = Args::parse();
    let terminal = Terminal::for_send(args.loudness());
    let (progress, started) = (Progress::default(), Instant::now());
    let run = run(&args, &terminal, &progress);
    let (verdict, error) = match run.result {
        Ok(()) => (Verdict::of(&progress), None),
        Err(error) if run.stopped => (Verdict::Interrupted, Some(error)),
        Err(error) if client::is_refusal(&error) => (Verdict::Refused, Some(error)),
        Err(error) => (Verdict::Failed, Some(error)),
    };
    let error = error.map(|error| format!("{error:#}"));
    let protocol = args.wire.protocol.name();
    let report = Report { verdict, error, landed: &run.landed, protocol, progress: &progress, elapsed: started.elapsed() };
    report.print(args.json, args.loudness());
    ExitCode::from(verdict.code())
}

/// What came of a run.
struct Run {
    result: anyhow::Result<()>,
    stopped: bool,
    landed: String,
}

fn run(args: &Args, terminal: &Terminal, progress: &Progress) -> Run {
    let (stop, done) = match (Stop::new(), Stop::new()) {
        (Ok(stop), Ok(done)) => (Arc::new(stop), done),
        (Err(error), _) | (_, Err(error)) => return Run { result: Err(error.into()), stopped: false, landed: args.remote_dir() },
    };
    let mut landed = args.remote_dir();
    let result = listen_to_signals(&stop).and_then(|()| {
        thread::scope(|scope| {
            let follower =
                thread::Builder::new().name("bar".to_owned()).spawn_scoped(scope, || terminal.follow(progress, &done))?;
            let result = send(args, &mut landed, progress, &stop);
            done.ask();
            drop(follower.join());
            result
        })
    });
    Run { result, stopped: stop.is_asked(), landed }
}

fn send(args: &Args, landed: &mut String, progress: &Progress, stop: &Stop) -> anyhow::Result<()> {
    let ticket = args.ticket()?;
    if args.server.is_none() && ticket.is_none() {
        return local::copy(args, landed, progress, stop);
    }
    let job = args.job(ticket.as_ref())?;
    *landed = format!("{} below the receiver's root at {}", args.remote_dir(), job.dialer);
    start(args, &job, landed, progress, stop)
}

/// Does the job; says before the first byte where all lands.
fn start(args: &Args, job: &Job, landed: &mut String, progress: &Progress, stop: &Stop) -> anyhow::Result<()> {
    let place = Mutex::new(std::mem::take(landed));
    let landing = |folder: Option<&[u8]>| {
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folder {
            *place = match job.dialer.addresses().first() {
                Some(address) => format!("{} at {address}", Escaped(folder)),
                None => Escaped(folder).to_string(),
            };
        }
        if let Some(seen) = job.dialer.tls().and_then(Client::seen).filter(|seen| seen.is_new) {
            tracing::warn!("new receiver: its key {} is accepted and kept", seen.fingerprint);
        }
        let act = if args.dry_run { "would send" } else { "sending" };
        tracing::info!("{act} {} into {place}", Escaped::path(&job.file));
    };
    let manifest = args.manifest.as_deref().map(Manifest::create).transpose()?;
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
        if !args.json {
            terminal::print_would_send(path);
        }
    };
    let watcher = Watcher {
        landing: &landing,
        digest: if manifest.is_some() { Some(&digest) } else { None },
        again: &again,
        dry: if args.dry_run { Some(&tell) } else { None },
    };
    let done = client::run(job, &watcher, progress, stop);
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

/// A worker process: its parent hands it work and hears of what became of it.
fn work_for_parent() -> ExitCode {
    match client::serve_parent(&mut std::io::stdin().lock(), std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::print_error("send (worker process)", &error);
            ExitCode::from(Verdict::Failed.code())
        }
    }
}
