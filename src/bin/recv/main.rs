//! `recv`: flags → receiver → exit code.

mod args;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use clap::Parser as _;
use parallel_transfer::exit::Verdict;
use parallel_transfer::net::Listener;
use parallel_transfer::path::Escaped;
use parallel_transfer::server::{self, Served};
use parallel_transfer::signals;
use parallel_transfer::stop::Stop;
use parallel_transfer::store::{Store, take_umask};
use parallel_transfer::terminal::{self, Terminal};

use args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    Terminal::for_recv(args.loudness());
    let verdict = run(&args).unwrap_or_else(|error| {
        terminal::print_error("recv", &error);
        Verdict::Failed
    });
    ExitCode::from(verdict.code())
}

fn run(args: &Args) -> anyhow::Result<Verdict> {
    let config = args.config()?;
    let root = Escaped::path(&config.root);
    let store = Store::open(&config.root, take_umask()).with_context(|| format!("can't serve '{root}'"))?;
    let listener =
        Listener::bind(args.addr, args.port, args.ip_ver).with_context(|| format!("can't listen on port {}", args.port))?;
    let stop = Arc::new(Stop::new()?);
    listen_to_signals(&stop)?;
    let address = listener.address().context("the socket has no address")?;
    terminal::print_listening(&format!("listening on {address}, root {}", Escaped::path(store.path())))?;
    Ok(match server::serve(&listener, &store, &config, &stop)? {
        Served::Whole => Verdict::Complete,
        Served::Cut => Verdict::Interrupted,
    })
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
