//! `send`: flags → job → exit code.

mod args;
mod local;
mod select;

use std::panic;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use clap::Parser as _;
use parallel_transfer::client::{self, Job};
use parallel_transfer::exit::Verdict;
use parallel_transfer::progress::Progress;
use parallel_transfer::signals;
use parallel_transfer::stop::Stop;
use parallel_transfer::terminal::{self, Report, Terminal};

use args::Args;

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
    let args = Args::parse();
    let terminal = Terminal::for_send(args.loudness());
    let (progress, started) = (Progress::default(), Instant::now());
    let run = run(&args, &terminal, &progress);
    let (verdict, error) = match run.result {
        Ok(()) => (Verdict::of(&progress), None),
        Err(error) if run.stopped => (Verdict::Interrupted, Some(error)),
        Err(error) => (Verdict::Failed, Some(error)),
    };
    let error = error.map(|error| format!("{error:#}"));
    let report = Report { verdict, error, landed: &run.landed, progress: &progress, elapsed: started.elapsed() };
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
            let result = match &args.server {
                Some(server) => args.job(server).and_then(|job| {
                    landed = format!("{} below the receiver's root at {}", args.remote_dir(), job.dialer);
                    start(&job, &landed, progress, &stop)
                }),
                None => local::copy(args, &mut landed, progress, &stop),
            };
            done.ask();
            drop(follower.join());
            result
        })
    });
    Run { result, stopped: stop.is_asked(), landed }
}

/// Says where all lands, then does the job.
fn start(job: &Job, landed: &str, progress: &Progress, stop: &Stop) -> anyhow::Result<()> {
    tracing::info!("sending {} into {landed}", parallel_transfer::path::Escaped::path(&job.file));
    client::run(job, progress, stop)
}

fn listen_to_signals(stop: &Arc<Stop>) -> anyhow::Result<()> {
    let (signals, stop) = (signals::listen()?, Arc::clone(stop));
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        signals::forward(signals, &stop);
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
