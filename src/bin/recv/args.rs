//! Every flag of `recv`, and the configuration that they make.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Parser};
use parallel_transfer::flags::{folder_of_user, parse_duration, parse_ip_version};
use parallel_transfer::limits::CONNECTIONS_MAX;
use parallel_transfer::net::IpVersion;
use parallel_transfer::net::host_key::HostKey;
use parallel_transfer::server::{Allowed, Config, IpNet};
use parallel_transfer::terminal::Loudness;

const EXAMPLES: &str = "\
Examples:
  recv --port 9000
          receive below the current folder, from this machine and its local network
  recv --port 9000 --root /srv/in --allow 203.0.113.0/24
          receive below /srv/in, from that network as well
  recv --port 0 --once
          receive one job from whoever gets the ticket that this prints
  recv --port 9000 --root /
          let every path mean what it says, as the Python original does

Every flag may be written with '-' instead of '_'.

Exit codes: 0 stopped with nothing cut short, or the one job is done; 1 failed; 2 wrong usage;
3 the one job is done, with some entries failed; 130 stopped with work cut short.";

/// Receive files and whole trees over many connections at once.
#[derive(Debug, Parser)]
#[command(name = "recv", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The port to listen on; 0 picks a free one
    #[arg(long, value_name = "N")]
    pub(crate) port: u16,

    /// The address to listen on [default: all]
    #[arg(long, value_name = "IP")]
    pub(crate) addr: Option<IpAddr>,

    /// 4: listen on IPv4 only; 6: on IPv6, and IPv4 through it [default: 6 where there is IPv6]
    #[arg(long = "ip_ver", alias = "ip-ver", value_name = "4|6", value_parser = parse_ip_version)]
    pub(crate) ip_ver: Option<IpVersion>,

    /// The folder to receive into: nothing outside of it is touched [default: the current one]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Serve one job, to whoever has the ticket that is printed, then end with its outcome
    #[arg(long)]
    pub(crate) once: bool,

    /// The folder of the key that senders know this receiver by [default: ~/.local/state/parallel-transfer]
    #[arg(long = "state_dir", alias = "state-dir", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Networks that may connect, beside loopback, private and link-local addresses
    #[arg(long, value_name = "CIDR", value_parser = parse_network, value_delimiter = ',')]
    allow: Vec<IpNet>,

    /// Connections served at once; further ones wait
    #[arg(long = "max_connections", alias = "max-connections", value_name = "N", default_value_t = CONNECTIONS_MAX)]
    max_connections: usize,

    /// How long a sender may make no progress in the middle of something [default: 2m]
    #[arg(long = "stall_timeout", alias = "stall-timeout", value_name = "TIME", value_parser = parse_duration)]
    stall_timeout: Option<Duration>,

    /// How long running writes may take to end when asked to stop [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    drain: Option<Duration>,

    /// Log only what was refused or failed
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Log more
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

impl Args {
    pub(crate) fn loudness(&self) -> Loudness {
        Loudness::of(self.quiet, self.verbose)
    }

    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let root = match &self.root {
            Some(root) => root.clone(),
            None => std::env::current_dir().context("can't tell which folder this is; name one with --root")?,
        };
        let mut config = Config::new(root);
        config.allowed = Allowed(self.allow.clone());
        config.connections_max = self.max_connections.clamp(1, CONNECTIONS_MAX * 16);
        config.stall = self.stall_timeout.unwrap_or(config.stall);
        config.drain = self.drain.unwrap_or(config.drain);
        Ok(config)
    }

    /// The key of this receiver, made where there is none; one that serves a single job has its own.
    pub(crate) fn host_key(&self) -> anyhow::Result<HostKey> {
        if self.once {
            return Ok(HostKey::for_one_job()?);
        }
        Ok(HostKey::load_or_make(&self.state_dir()?)?)
    }

    /// Where is kept what outlives this process.
    pub(crate) fn state_dir(&self) -> anyhow::Result<PathBuf> {
        self.state_dir.clone().map_or_else(default_state_dir, Ok)
    }
}

fn default_state_dir() -> anyhow::Result<PathBuf> {
    folder_of_user(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"), ".local/state")
        .context("no place for this receiver's key: HOME is not set; name a folder with --state_dir")
}

/// A network, or one address.
fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse().map(|address: IpAddr| address.into()))
        .map_err(|_| format!("'{text}' is neither a network like 203.0.113.0/24 nor an address"))
}
