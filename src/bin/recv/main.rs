//! `recv`: flags → receiver → exit code.

mod args;
mod incoming;

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context as _;
use clap::Parser as _;
use parallel_transfer::client;
use parallel_transfer::exit::Verdict;
use parallel_transfer::limits::ADDRESSES_MAX;
use parallel_transfer::net::Listener;
use parallel_transfer::path::Escaped;
use parallel_transfer::server::{self, Allowed, Homes, Served};
use parallel_transfer::signals;
use parallel_transfer::stop::Stop;
use parallel_transfer::store::{Store, take_umask};
use parallel_transfer::terminal::{self, Terminal};
use parallel_transfer::ticket::Ticket;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    Terminal::for_recv(args.loudness());
    let done = match &args.command {
        None => run(&args),
        Some(Command::Incoming(command)) => incoming::run(command),
    };
    let verdict = done.unwrap_or_else(|error| {
        terminal::print_error("recv", &error);
        Verdict::Failed
    });
    ExitCode::from(verdict.code())
}

fn run(args: &Args) -> anyhow::Result<Verdict> {
    let umask = take_umask();
    let mut config = args.config()?;
    let root = Escaped::path(&config.root).to_string();
    let mut store = Store::open(&config.root, umask).with_context(|| format!("can't serve '{root}'"))?;
    let key = args.host_key()?;
    config.tls = Some(key.server());
    if !args.once
        && let Some(folder) = args.state_dir()
        && let Err(error) = store.keep_syncs(&folder)
    {
        tracing::warn!("{}: {error}; what a power failure damages is not found", Escaped::path(&folder));
    }
    let listener = Listener::bind(args.addr, args.port(), args.ip_ver).with_context(|| match args.addr {
        Some(addr) => format!("can't listen on {addr} port {}", args.port()),
        None => format!("can't listen on port {}", args.port()),
    })?;
    store.keep_index_below(args.state_dir().as_deref());
    let stop = Arc::new(Stop::new()?);
    let signalled = Arc::new(AtomicBool::new(false));
    listen_to_signals(&stop, &signalled)?;
    let address = listener.address().context("the socket has no address")?;
    let mut lines = vec![format!("listening on {address}, root {}", Escaped::path(store.path()))];
    if args.once {
        let ticket = Ticket {
            addresses: reachable_at(address.ip())?,
            port: address.port(),
            fingerprint: key.fingerprint(),
            secret: client::new_token().context("no randomness for a ticket")?,
        };
        config.ticket = Some(ticket.secret);
        // The ticket says who may: nobody else gets in, and nothing but encrypted.
        config.allowed = Allowed::everyone();
        (config.serves_v1, config.serves_plain) = (false, false);
        lines.push(format!("ticket {ticket}"));
    } else {
        lines.push(format!("host key {}", key.fingerprint()));
    }
    terminal::print_lines(&lines).context("can't say where this listens: standard output")?;
    Ok(match server::serve(&listener, &Homes::of(store), &config, &stop)? {
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

fn listen_to_signals(stop: &Arc<Stop>, signalled: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let (signals, stop, signalled) = (signals::listen()?, Arc::clone(stop), Arc::clone(signalled));
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        signals::forward(signals, &stop, || signalled.store(true, Ordering::Relaxed));
        #[allow(clippy::disallowed_methods, reason = "asked a second time, and at once")]
        std::process::exit(i32::from(Verdict::Interrupted.code()));
    })?;
    Ok(())
}
