//! Every flag of `recv`, and the configuration that they make.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory as _, Parser, Subcommand, ValueEnum};
use parallel_transfer::flags::{parse_duration, parse_ip_version, parse_listen, parse_size};
use parallel_transfer::limits::{LOG_KEEP_DAYS_DEFAULT, LOG_KEEP_DAYS_MAX};
use parallel_transfer::net::congestion::{AUTO, Congestion};
use parallel_transfer::net::host_key::HostKey;
use parallel_transfer::net::{IpVersion, Listener};
use parallel_transfer::server::{Allowed, Config, IpNet, Terms};
use parallel_transfer::store::{Bounds, Limits};
use parallel_transfer::terminal::{LogFormat, Logging, Loudness};

use crate::access::Access;
use crate::fence::Fence;
use crate::shared::compress::Compression;
use crate::shared::folders::state_folder;
use crate::{admin, incoming};

const EXAMPLES: &str = "\
Examples:
  recv --port 9000
          receive below the current folder, from this machine and its local network
  recv --port 9000 --root /srv/in --allow 203.0.113.0/24
          receive below /srv/in, from that network as well
  recv --port 0 --once
          receive one job from whoever gets the ticket that this prints
  recv --config /etc/parallel-transfer/recv.toml
          receive as that file says
  recv incoming list
          show what was not received whole, and is kept to be gone on with
  recv user add alice
          make an account; 'recv user --help' tells of quotas, keys and rights
  recv --port 9000 --root /
          let every path mean what it says, as the Python original does
  recv --server HOST --port 9000 --file photos --local_dir .
          fetch from another receiver; 'recv --server HOST --help' has the flags of that

Every flag may be written with '-' instead of '_'.

Exit codes: 0 stopped with nothing cut short, or the one job is done; 1 failed; 2 wrong usage;
3 the one job is done, with some entries failed; 130 stopped with work cut short.";

/// Receive files and whole trees over many connections at once.
#[derive(Debug, Parser)]
#[command(name = "recv", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The port to listen on; 0 picks a free one [default: the socket that a service manager passes]
    #[arg(long, value_name = "N")]
    port: Option<u16>,

    /// The address to listen on [default: all]
    #[arg(long, value_name = "IP")]
    addr: Option<IpAddr>,

    /// 4: listen on IPv4 only; 6: on IPv6, and IPv4 through it [default: 6 where there is IPv6]
    #[arg(long = "ip_ver", alias = "ip-ver", value_name = "4|6", value_parser = parse_ip_version)]
    ip_ver: Option<IpVersion>,

    /// The folder to receive into: nothing outside of it is touched [default: the current one]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Serve one job, to whoever has the ticket that is printed, then end with its outcome
    #[arg(long)]
    pub(crate) once: bool,

    /// The folder of the key that senders know this receiver by, and of its index of incoming files
    /// [default: ~/.local/state/parallel-transfer]
    #[arg(long = "state_dir", alias = "state-dir", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Networks that may connect, beside loopback, private and link-local addresses
    #[arg(long, value_name = "CIDR", value_parser = parse_network, value_delimiter = ',')]
    allow: Vec<IpNet>,

    #[command(flatten)]
    pub(crate) access: Access,

    #[command(flatten)]
    compression: Compression,

    /// How long a sender may make no progress in the middle of something [default: 2m]
    #[arg(long = "stall_timeout", alias = "stall-timeout", value_name = "TIME", value_parser = parse_duration)]
    stall_timeout: Option<Duration>,

    /// How long jobs that are under way may take to end when asked to stop [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    drain: Option<Duration>,

    /// How long a file that was not received whole is kept, for its sender to go on with [default: 7d]
    #[arg(long = "keep_incoming", alias = "keep-incoming", value_name = "TIME", value_parser = parse_duration)]
    keep_incoming: Option<Duration>,

    /// Read what is not said here from this file (TOML: keys are the names of flags); SIGHUP reads it again
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Don't have the kernel keep this process to its root, its state folder and the folder of --config
    #[arg(long = "no_fence", alias = "no-fence")]
    no_fence: bool,

    /// Log who did what, from where, and what came of it: one line an act; with --accounts that is so anyway
    #[arg(long)]
    audit: bool,

    /// How log lines look: sentences, or JSON objects
    #[arg(long = "log_format", alias = "log-format", value_name = "FORMAT", default_value = "human")]
    log_format: Format,

    /// Log to FILE.DATE, another one each day, instead of standard error
    #[arg(long = "log_file", alias = "log-file", value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,

    /// The kernel's congestion control to send with; 'auto' is the system's, bbr once a long path loses segments that no
    /// queue explains, and cubic in the place of bbr where that sends more than the path carries, or the path is short
    #[arg(long, value_name = "NAME", default_value = AUTO)]
    congestion: String,

    /// For how many days such files are kept
    #[arg(long = "log_keep", alias = "log-keep", value_name = "DAYS", default_value_t = LOG_KEEP_DAYS_DEFAULT,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(LOG_KEEP_DAYS_MAX)))]
    log_keep: u32,

    /// Where metrics can be read by Prometheus, as http://ADDR:PORT/metrics; a port alone means this machine only
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = parse_listen)]
    pub(crate) metrics: Option<SocketAddr>,

    /// Bytes of all files below the root together; refuses senders that speak protocol v1
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "accounts")]
    quota: Option<u64>,

    /// The same for the number of files
    #[arg(long = "quota_files", alias = "quota-files", value_name = "N", conflicts_with = "accounts")]
    quota_files: Option<u64>,

    /// Bytes of the largest file that is taken
    #[arg(long = "max_file", alias = "max-file", value_name = "SIZE", value_parser = parse_size)]
    max_file: Option<u64>,

    /// Bytes of the disk that stay free
    #[arg(long = "min_free", alias = "min-free", value_name = "SIZE", value_parser = parse_size)]
    min_free: Option<u64>,

    /// Log only what was refused or failed
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Log more
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A sentence a line
    Human,
    /// A JSON object a line
    Json,
}

/// What else it can do than receive.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show or remove files that were not received whole
    #[command(subcommand, after_help = incoming::EXAMPLES)]
    Incoming(incoming::Command),
    /// Make, show, change or remove accounts
    #[command(after_help = admin::EXAMPLES)]
    User(admin::User),
}

/// What SIGHUP can't change. All other flags may be changed in the file of `--config`.
pub(crate) const FIXED: &[&str] = &[
    "port",
    "addr",
    "ip_ver",
    "root",
    "once",
    "read_only",
    "write_only",
    "relay_only",
    "state_dir",
    "keep_incoming",
    "no_fence",
    "log_format",
    "log_file",
    "log_keep",
    "metrics",
    "quota",
    "quota_files",
    "max_file",
    "min_free",
    "accounts",
    "signup",
    "signup_quota",
    "signup_files",
    "bwlimit",
    "bwlimit_account",
    "congestion",
];

impl Args {
    /// Where it listens: with the socket that was passed, or at a port.
    pub(crate) fn listener(&self, passed: Option<Listener>) -> anyhow::Result<Listener> {
        let Some(passed) = passed else {
            let port = self.port.unwrap_or_else(|| {
                let why = "a port to listen on is needed: --port <N>";
                Self::command().error(ErrorKind::MissingRequiredArgument, why).exit()
            });
            return Listener::bind(self.addr, port, self.ip_ver).with_context(|| match self.addr {
                Some(addr) => format!("can't listen on {addr} port {port}"),
                None => format!("can't listen on port {port}"),
            });
        };
        if self.port.is_some() || self.addr.is_some() || self.ip_ver.is_some() {
            tracing::warn!("--port, --addr and --ip_ver don't count: a socket was passed by the service manager");
        }
        Ok(passed)
    }

    /// The folders that this process needs, if it is to be kept to them.
    pub(crate) fn fence(&self, root: &Path) -> Option<Fence> {
        // What comes in the place of a file has another inode.
        let folder_of = |file: &Path| std::path::absolute(file).ok()?.parent().map(Path::to_owned);
        let logs = self.log_file.as_deref().and_then(folder_of);
        let accounts = self.access.accounts.as_deref().and_then(folder_of);
        let fence = Fence {
            trees: [Some(root.to_owned()), self.state_dir(), logs, accounts].into_iter().flatten().collect(),
            readable: self.config.as_deref().and_then(folder_of).into_iter().chain(self.resolver_files()).collect(),
        };
        (!self.no_fence).then_some(fence)
    }

    /// What a name is looked up in: where connections are passed on it is looked up for each. A configuration that is
    /// read again may ask for that later.
    fn resolver_files(&self) -> impl Iterator<Item = PathBuf> {
        const FILES: [&str; 6] = ["/etc", "/run/systemd/resolve", "/lib", "/usr/lib", "/lib64", "/run/nscd"];
        FILES.into_iter().map(PathBuf::from).filter(|_| !self.access.relay_to.is_empty() || self.config.is_some())
    }

    pub(crate) fn loudness(&self) -> Loudness {
        Loudness::of(self.quiet, self.verbose)
    }

    pub(crate) fn logging(&self) -> Logging<'_> {
        Logging {
            loudness: self.loudness(),
            format: match self.log_format {
                Format::Human => LogFormat::Human,
                Format::Json => LogFormat::Json,
            },
            file: self.log_file.as_deref(),
            keep_days: self.log_keep,
        }
    }

    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let root = match &self.root {
            Some(root) => root.clone(),
            None => std::env::current_dir().context("can't tell which folder this is; name one with --root")?,
        };
        let mut config = Config::new(root);
        config.allowed = match self.access.accounts {
            // A login says who may.
            Some(_) if self.allow.is_empty() => Allowed::everyone(),
            _ => Allowed(self.allow.clone()),
        };
        self.access.set_up(&mut config);
        config.stall = self.stall_timeout.unwrap_or(config.stall);
        config.audits = self.audit || self.access.accounts.is_some();
        (config.features, config.compression) = (self.compression.features(), self.compression.level());
        config.congestion = Arc::new(Congestion::named(&self.congestion));
        config.drain = self.drain.unwrap_or(config.drain);
        config.keep_incoming = self.keep_incoming.unwrap_or(config.keep_incoming);
        // It writes to files whose size nobody knows.
        config.serves_v1 &= self.limits().is_none();
        Ok(config)
    }

    /// What all files below the root may come to, if that is limited.
    pub(crate) fn limits(&self) -> Option<Limits> {
        let limits = Limits { bytes: self.quota.unwrap_or(u64::MAX), files: self.quota_files.unwrap_or(u64::MAX) };
        (self.quota.is_some() || self.quota_files.is_some()).then_some(limits)
    }

    /// What holds for all accounts.
    pub(crate) fn terms(&self) -> Terms {
        Terms { sign_up: self.access.sign_up(), rate: self.access.bwlimit_account, bounds: self.bounds() }
    }

    /// What each file has to keep to.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { max_file: self.max_file, min_free: self.min_free }
    }

    /// The key of this receiver, made where there is none; one that serves a single job has its own.
    pub(crate) fn host_key(&self) -> anyhow::Result<HostKey> {
        if self.once {
            return Ok(HostKey::for_one_job()?);
        }
        let folder =
            self.state_dir().context("no place for this receiver's key: HOME is not set; name a folder with --state_dir")?;
        Ok(HostKey::load_or_make(&folder)?)
    }

    /// Where this receiver keeps what it must remember; none where nothing was named and there is no home.
    pub(crate) fn state_dir(&self) -> Option<PathBuf> {
        self.state_dir.clone().or_else(state_folder)
    }
}

/// A network, or one address.
fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse().map(|address: IpAddr| address.into()))
        .map_err(|_| format!("'{text}' is neither a network like 203.0.113.0/24 nor an address"))
}
