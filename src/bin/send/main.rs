//! `send`: flags → job → exit code.

mod args;
mod key;
mod local;
mod login;
#[path = "../shared/mod.rs"]
mod shared;
mod shell;

use std::panic;
use std::process::ExitCode;

use clap::Parser as _;
use parallel_transfer::client::{self, Job};
use parallel_transfer::exit::Verdict;
use parallel_transfer::path::Escaped;
use parallel_transfer::progress::Progress;
use parallel_transfer::stop::Stop;
use parallel_transfer::terminal;

use args::Args;
use shared::drive::Told;
use shared::{drive, place, secrets, select, transfer, wire};

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
    if std::env::args_os().nth(1).is_some_and(|first| first == "shell") {
        return shell::run();
    }
    let args = Args::parse();
    let landed = args.remote_dir();
    drive::run("send", &args.transfer, landed, |landed, progress, stop| send(&args, landed, progress, stop))
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
    let what = Escaped::path(&job.file).to_string();
    let place = |folder: &[u8]| match job.dialer.addresses().first() {
        Some(address) => format!("{} at {address}", Escaped(folder)),
        None => Escaped(folder).to_string(),
    };
    let told = Told { act: ["sending", "would send"], what: &what, place: &place };
    drive::watch(&args.transfer, &told, &job.dialer, landed, progress, |watcher| client::run(job, watcher, progress, stop))
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
