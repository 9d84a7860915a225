//! Every flag of `send`, and the job that they make.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory as _, Parser};
use parallel_transfer::client::{Job, Login, Remote, Target, new_token};
use parallel_transfer::flags::{parse_duration, parse_ip_version, parse_size};
use parallel_transfer::limits::{
    CHUNK_LEN_DEFAULT, PROCESS_NUM_MAX, RETRY_FOR_DEFAULT, RETRY_FOR_FORGETFUL, STALL_DEFAULT, THREAD_NUM_DEFAULT, THREAD_NUM_MAX,
};
use parallel_transfer::net::IpVersion;
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::path::{Escaped, RemotePath};
use parallel_transfer::protocol::{Credential, Open};
use parallel_transfer::terminal::Loudness;
use parallel_transfer::ticket::Ticket;

use crate::login::Who;
use crate::select::{RULES, Select};
use crate::wire::{Protocol, TICKET_VARIABLE, Wire};

const EXAMPLES: &str = "\
Examples:
  send --file photos --remote_dir /backup/photos
          copy a folder on this machine, in parallel
  send --server 192.168.1.7 --port 9000 --file photos --remote_dir /photos
          send the contents of photos to a receiver ('recv --port 9000' there)
  send --server backup --port 9000 --file disk.img --remote_dir /images --thread_num 8
          send one file over more connections
  send --server backup --port 9000 --user alice --file photos --remote_dir /photos
          log in to an account ('send signup' makes one where anyone may have one)
  send key
          make a key to log in with; 'send key --help' tells more

Every flag may be written with '-' instead of '_'. Sizes take the suffixes K, M, G, T (powers of 1024).

Exit codes: 0 all is there and verified; 1 failed; 2 wrong usage; 3 some entries failed, each named,
the rest is there; 4 refused before anything landed; 130 interrupted.";

/// Send a file or a whole tree over many connections at once.
#[derive(Debug, Parser)]
#[command(name = "send", version, after_help = format!("{RULES}\n\n{EXAMPLES}"))]
pub(crate) struct Args {
    /// The receiver's name or address; without it the copy stays on this machine
    #[arg(long, value_name = "HOST", requires = "port")]
    pub(crate) server: Option<String>,

    /// The receiver's port
    #[arg(long, value_name = "N", requires = "server", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// The file or folder to send; of a folder its contents
    #[arg(long, value_name = "PATH")]
    pub(crate) file: PathBuf,

    /// The folder to send it into, below the receiver's root; made where it is missing
    #[arg(long = "remote_dir", alias = "remote-dir", value_name = "DIR")]
    pub(crate) remote_dir: OsString,

    /// Bytes of the pieces that files are cut into [default: 16MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_size, allow_negative_numbers = true, default_value_t = CHUNK_LEN_DEFAULT, hide_default_value = true)]
    length: u64,

    /// Worker processes at the most [default: the number of cores]
    #[arg(long = "process_num", alias = "process-num", value_name = "N", value_parser = parse_count::<PROCESS_NUM_MAX>, allow_negative_numbers = true)]
    process_num: Option<usize>,

    /// Threads in each process at the most, each with a connection [default: 3]
    #[arg(long = "thread_num", alias = "thread-num", value_name = "N", value_parser = parse_count::<THREAD_NUM_MAX>, allow_negative_numbers = true, default_value_t = THREAD_NUM_DEFAULT, hide_default_value = true)]
    thread_num: usize,

    /// Use only addresses of this IP version, 4 or 6 [default: all]
    #[arg(long = "ip_version", alias = "ip-version", value_name = "4|6", value_parser = parse_ip_version)]
    ip_version: Option<IpVersion>,

    #[command(flatten)]
    who: Who,

    #[command(flatten)]
    pub(crate) wire: Wire,

    /// Keep files that are replaced, under NAME_ and the time
    #[arg(long)]
    backup: bool,

    /// Say what would be sent, and change nothing
    #[arg(long = "dry_run", alias = "dry-run")]
    pub(crate) dry_run: bool,

    /// Write the BLAKE3 of each file that is there to FILE, as 'b3sum --check' reads it
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub(crate) manifest: Option<PathBuf>,

    /// Have all on the receiver's disk before the run ends
    #[arg(long)]
    fsync: bool,

    /// How long to go on without progress when the receiver is lost [default: 10m; over v1 30s]
    #[arg(long = "retry_for", alias = "retry-for", value_name = "TIME", value_parser = parse_duration)]
    retry_for: Option<Duration>,

    /// How long the receiver may make no progress before a connection is given up [default: 2m]
    #[arg(long = "stall_timeout", alias = "stall-timeout", value_name = "TIME", value_parser = parse_duration)]
    stall_timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) select: Select,

    /// Print the outcome as one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    /// Say only what failed
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Say more
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

impl Args {
    pub(crate) fn loudness(&self) -> Loudness {
        Loudness::of(self.quiet, self.verbose)
    }

    pub(crate) fn stall(&self) -> Duration {
        self.stall_timeout.unwrap_or(STALL_DEFAULT)
    }

    /// `--remote_dir` as it can be shown.
    pub(crate) fn remote_dir(&self) -> String {
        Escaped(self.remote_dir.as_bytes()).to_string()
    }

    /// The ticket, if there is one and no receiver is named. Flags that it leaves no room for end the
    /// program; the parser knows only of those beside a ticket in a file.
    pub(crate) fn ticket(&self) -> anyhow::Result<Option<Ticket>> {
        if self.server.is_some() {
            return Ok(None);
        }
        let ticket = self.wire.ticket()?;
        if let (Some(_), Some(flag)) = (&ticket, self.wire.trust_flag()) {
            let message = format!(
                "the ticket in {TICKET_VARIABLE} says which key the receiver has: \
                 leave {flag} out, or unset {TICKET_VARIABLE}, or name the receiver with --server and --port"
            );
            Self::command().error(ErrorKind::ArgumentConflict, message).exit()
        }
        Ok(ticket)
    }

    /// The folder at the receiver; one that makes no sense ends the program.
    fn check_remote_dir<T>(&self, parsed: anyhow::Result<T>) -> T {
        parsed.unwrap_or_else(|error| {
            let message = format!("invalid value '{}' for '--remote_dir <DIR>': {error:#}", self.remote_dir());
            Self::command().error(ErrorKind::ValueValidation, message).exit()
        })
    }

    fn retry_for(&self) -> Duration {
        self.retry_for.unwrap_or(match self.wire.protocol {
            Protocol::V1 => RETRY_FOR_FORGETFUL,
            Protocol::V2 => RETRY_FOR_DEFAULT,
        })
    }

    /// The job of sending to another machine, or a program on this one.
    pub(crate) fn job(&self, ticket: Option<&Ticket>) -> anyhow::Result<Job> {
        let directory = self.remote_dir.as_bytes();
        let target = match self.wire.protocol {
            Protocol::V1 => {
                for (is_given, flag) in
                    [(self.dry_run, "--dry_run"), (self.manifest.is_some(), "--manifest"), (self.fsync, "--fsync")]
                {
                    ensure!(!is_given, "{flag}: protocol v1 can't do that");
                }
                Target::InPlace(self.check_remote_dir(Remote::parse(directory)))
            }
            Protocol::V2 => {
                self.check_remote_dir(RemotePath::parse_loosely(directory).map_err(Into::into));
                Target::Session(self.open(directory)?)
            }
        };
        let (dialer, host) = match (ticket, &self.server, self.port) {
            (Some(ticket), ..) => (Dialer::to_addresses(ticket.sockets(), self.stall(), self.retry_for()), String::new()),
            (None, Some(server), Some(port)) => {
                let dialer = Dialer::to_host(server, port, self.ip_version, self.stall(), self.retry_for())?;
                (dialer, format!("{server}:{port}"))
            }
            _ => bail!("--server and --port are needed"),
        };
        let login = match ticket {
            Some(ticket) => Login::Ticket(ticket.secret),
            None => self.who.login(&host)?,
        };
        self.job_to(self.wire.set_up(dialer, &host, ticket)?, login, target)
    }

    /// The session to open in `directory` of the receiver.
    pub(crate) fn open(&self, directory: &[u8]) -> anyhow::Result<Open> {
        Ok(Open {
            token: new_token()?,
            directory: directory.to_vec(),
            credential: Credential::None,
            checksum: self.wire.checksum(self.manifest.is_some())?,
            keeps_old: self.backup,
            syncs: self.fsync,
            is_dry: self.dry_run,
            is_browsing: false,
        })
    }

    /// The job of sending to whoever answers `dialer`.
    pub(crate) fn job_to(&self, dialer: Dialer, login: Login, target: Target) -> anyhow::Result<Job> {
        Ok(Job {
            file: self.file.clone(),
            look: self.select.look(matches!(target, Target::Session(_)))?,
            dialer,
            login,
            target,
            length: self.length,
            process_num: self.process_num.unwrap_or_else(|| num_cpus::get().clamp(1, PROCESS_NUM_MAX)),
            thread_num: self.thread_num,
            // A rate is kept by one process.
            program: std::env::current_exe().ok().filter(|_| self.wire.bwlimit.is_none()),
        })
    }
}

fn parse_count<const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(count) => Ok(MAX.min(count)),
        Err(_) => Err(format!("a number from 1 to {MAX} is needed")),
    }
}
