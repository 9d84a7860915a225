//! `recv`: flags → receiver → exit code.

mod access;
mod admin;
mod args;
mod config;
mod fence;
mod incoming;
mod pull;
mod reload;
mod service;
#[path = "../shared/mod.rs"]
mod shared;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use parallel_transfer::client;
use parallel_transfer::exit::Verdict;
use parallel_transfer::limits::ADDRESSES_MAX;
use parallel_transfer::net::Listener;
use parallel_transfer::path::Escaped;
use parallel_transfer::progress::Counter;
use parallel_transfer::server::accounts::Accounts;
use parallel_transfer::server::{self, Allowed, Homes, LiveConfig, Served};
use parallel_transfer::signals;
use parallel_transfer::stop::Stop;
use parallel_transfer::store::{Ledger, Store, take_umask};
use parallel_transfer::terminal::{self, LogLevel, Terminal};
use parallel_transfer::ticket::Ticket;

use args::{Args, Command};
use config::Refused;
use fence::Drawn;
use reload::Reload;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if pull::is_meant(&arguments) {
        return pull::run(&arguments);
    }
    let (args, matches) = parse(&arguments);
    let done = take_log(&args).and_then(|(level, lost)| match &args.command {
        None => run(&args, lost, |live, status| Reload { arguments, matches, live, level, status }),
        Some(Command::Incoming(command)) => incoming::run(command),
        Some(Command::User(user)) => admin::run(user),
    });
    let verdict = done.unwrap_or_else(|error| {
        terminal::print_error("recv", &error);
        Verdict::Failed
    });
    ExitCode::from(verdict.code())
}

/// The flags; a command line or a configuration that makes no sense ends here.
fn parse(arguments: &[OsString]) -> (Args, ArgMatches) {
    let parsed = config::parse(arguments).and_then(|matches| {
        let args = Args::from_arg_matches(&matches).map_err(Refused::CommandLine)?;
        Ok((args, matches))
    });
    parsed.unwrap_or_else(|refused| match refused {
        Refused::CommandLine(error) => error.exit(),
        Refused::File(why) => Args::command().error(ErrorKind::ValueValidation, why).exit(),
    })
}

/// Gives what its log says, and the number of log lines that could not be written.
fn take_log(args: &Args) -> anyhow::Result<(LogLevel, Arc<Counter>)> {
    Terminal::for_recv(&args.logging()).with_context(|| match &args.log_file {
        Some(path) => format!("can't log to '{}'", Escaped::path(path)),
        None => "can't log".to_owned(),
    })
}

fn run(
    args: &Args, log_lines_lost: Arc<Counter>, reload: impl FnOnce(Arc<LiveConfig>, String) -> Reload,
) -> anyhow::Result<Verdict> {
    let passed = service::take_socket()?;
    let umask = take_umask();
    let mut config = args.config()?;
    config.log_lines_lost = log_lines_lost;
    let root = Escaped::path(&config.root).to_string();
    let listener = args.listener(passed)?;
    listener.set_congestion(&config.congestion).context("can't do as --congestion says")?;
    let mut store = Store::open(&config.root, umask).with_context(|| format!("can't serve '{root}'"))?;
    let key = args.host_key()?;
    config.tls = Some(key.server());
    if let Some(address) = args.metrics {
        let listener = Listener::bind(Some(address.ip()), address.port(), None);
        config.metrics = Some(Arc::new(listener.with_context(|| format!("can't listen on {address} for --metrics"))?));
    }
    // Of homes each has its own.
    if args.access.accounts.is_none() {
        store.keep_index_below(args.state_dir().as_deref());
        store.keep_syncs_below(args.state_dir().filter(|_| !args.once).as_deref());
    }
    store.set_bounds(args.bounds());
    if let Some(limits) = args.limits() {
        store.limit(limits).with_context(|| format!("can't count what is in '{root}'"))?;
        let there = store.ledger().map(Ledger::usage).unwrap_or_default();
        tracing::info!("{} bytes in {} files are there, which count for the quota", there.bytes, there.files);
    }
    fence_in(args, store.path());
    let stop = Arc::new(Stop::new()?);
    let signalled = Arc::new(AtomicBool::new(false));
    let address = listener.address().context("the socket has no address")?;
    let status = format!("listening on {address}, root {}", Escaped::path(store.path()));
    let mut lines = vec![status.clone()];
    if args.once {
        let ticket = Ticket {
            addresses: reachable_at(address.ip())?,
            port: address.port(),
            fingerprint: key.fingerprint(),
            secret: client::new_token().context("no randomness for a ticket")?,
        };
        config.ticket = Some(ticket.secret);
        // Whoever has the ticket may take the time it takes.
        config.idle = None;
        // The ticket says who may: nobody else gets in, and nothing but encrypted.
        config.allowed = Allowed::everyone();
        (config.serves_v1, config.serves_plain) = (false, false);
        lines.push(format!("ticket {ticket}"));
    } else {
        lines.push(format!("host key {}", key.fingerprint()));
    }
    if let Some(address) = config.metrics.as_ref().and_then(|listener| listener.address()) {
        lines.push(format!("metrics on http://{address}/metrics"));
    }
    let homes = match &args.access.accounts {
        None => Homes::of(store, args.access.rights()),
        Some(file) => {
            let accounts = Accounts::open(file)?;
            // Each would count for itself what is in a home.
            anyhow::ensure!(store.take_root(), "another receiver with accounts serves '{root}'");
            Homes::of_accounts(accounts, store, umask, args.state_dir(), args.terms())
        }
    };
    let live = Arc::new(LiveConfig::new(config));
    listen_to_signals(&stop, &signalled, reload(Arc::clone(&live), status.clone()))?;
    terminal::print_lines(&lines).context("can't say where this listens: standard output")?;
    service::tell_ready(&status);
    Ok(match server::serve(&listener, &homes, &live, &stop)? {
        Served::Whole => Verdict::Complete,
        Served::Partial => Verdict::Partial,
        Served::Unfinished if signalled.load(Ordering::Relaxed) => Verdict::Interrupted,
        Served::Unfinished => Verdict::Failed,
        Served::Cut => Verdict::Interrupted,
    })
}

/// The addresses under which others reach a socket that is bound to `address`.
fn reachable_at(address: IpAddr) -> anyhow::Result<Vec<IpAddr>> {
    if !address.is_unspecified() {
        return Ok(vec![address]);
    }
    let found = if_addrs::get_if_addrs().context("can't tell this machine's addresses; name one with --addr")?;
    // A link-local address means nothing without the name of a link.
    let is_useful = |found: &IpAddr| match found {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => address.is_ipv6() && !v6.is_unicast_link_local(),
    };
    let mut addresses: Vec<IpAddr> = found.iter().map(if_addrs::Interface::ip).filter(is_useful).collect();
    // Those of this machine alone come last.
    addresses.sort_by_key(IpAddr::is_loopback);
    addresses.truncate(ADDRESSES_MAX);
    Ok(addresses)
}

/// Keeps this process to its folders, as far as the kernel can.
fn fence_in(args: &Args, root: &Path) {
    let Some(fence) = args.fence(root) else { return };
    if let Some(folder) = args.state_dir().filter(|folder| folder.is_dir()) {
        // What waits in unnamed files would be outside otherwise.
        let _ = tempfile::env::override_temp_dir(&folder);
    }
    match fence.draw() {
        Ok(Drawn::Full) => tracing::debug!("fence: this process is kept to its folders (Landlock)"),
        Ok(Drawn::Partial) => tracing::debug!("fence: this process is kept to its folders as far as this kernel can (Landlock)"),
        Ok(Drawn::None) => tracing::debug!("fence: none, this kernel has no Landlock, or one before Linux 5.19"),
        Err(error) => tracing::warn!("fence: none, the kernel refuses it: {error}"),
    }
}

fn listen_to_signals(stop: &Arc<Stop>, signalled: &Arc<AtomicBool>, reload: Reload) -> anyhow::Result<()> {
    let (signals, stop, signalled) = (signals::listen()?, Arc::clone(stop), Arc::clone(signalled));
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let tell = || {
            signalled.store(true, Ordering::Relaxed);
            service::tell_stopping();
        };
        signals::forward(signals, &stop, tell, Some(&|| reload.run()));
        #[allow(clippy::disallowed_methods, reason = "asked a second time, and at once")]
        std::process::exit(i32::from(Verdict::Interrupted.code()));
    })?;
    Ok(())
}
