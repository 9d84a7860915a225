//! The flags of a transfer, whichever way it goes.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Command};
use parallel_transfer::client::{Login, new_token};
use parallel_transfer::flags::{parse_duration, parse_ip_version, parse_size};
use parallel_transfer::limits::{
    CHUNK_LEN_DEFAULT, PROCESS_NUM_MAX, RETRY_FOR_DEFAULT, RETRY_FOR_FORGETFUL, STALL_DEFAULT, THREAD_NUM_DEFAULT,
    THREAD_NUM_FAR, THREAD_NUM_MAX,
};
use parallel_transfer::net::IpVersion;
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::protocol::{Open, Purpose};
use parallel_transfer::terminal::Loudness;
use parallel_transfer::ticket::Ticket;

use super::routes::{Goal, Routes};
use super::select::Select;
use super::who::Who;
use super::wire::{Protocol, TICKET_VARIABLE, Wire};

/// The flags as they are given.
#[derive(Debug, clap::Args)]
pub(crate) struct Transfer {
    /// Bytes of the pieces that files are cut into [default: 16MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_size, allow_negative_numbers = true, default_value_t = CHUNK_LEN_DEFAULT, hide_default_value = true)]
    pub(crate) length: u64,

    /// Worker processes at the most [default: the number of cores]
    #[arg(long = "process_num", alias = "process-num", value_name = "N", value_parser = parse_count::<PROCESS_NUM_MAX>, allow_negative_numbers = true)]
    pub(crate) process_num: Option<usize>,

    /// Threads in each process at the most, each with a connection [default: 3; over a long path 6]
    #[arg(long = "thread_num", alias = "thread-num", value_name = "N", value_parser = parse_count::<THREAD_NUM_MAX>, allow_negative_numbers = true)]
    thread_num: Option<usize>,

    /// Use only addresses of this IP version, 4 or 6 [default: all]
    #[arg(long = "ip_version", alias = "ip-version", value_name = "4|6", value_parser = parse_ip_version)]
    pub(crate) ip_version: Option<IpVersion>,

    #[command(flatten)]
    pub(crate) who: Who,

    #[command(flatten)]
    pub(crate) wire: Wire,

    #[command(flatten)]
    pub(crate) routes: Routes,

    /// Keep files that are replaced, under NAME_ and the time
    #[arg(long)]
    pub(crate) backup: bool,

    /// Say what would be transferred, and change nothing
    #[arg(long = "dry_run", alias = "dry-run")]
    pub(crate) dry_run: bool,

    /// Write the BLAKE3 of each file that is there to FILE, as 'b3sum --check' reads it
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub(crate) manifest: Option<PathBuf>,

    /// Have all on the disk that it lands on before the run ends
    #[arg(long)]
    pub(crate) fsync: bool,

    /// How long to go on without progress when the other end is lost [default: 10m; over v1 30s]
    #[arg(long = "retry_for", alias = "retry-for", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) retry_for: Option<Duration>,

    /// How long the other end may make no progress before a connection is given up [default: 2m]
    #[arg(long = "stall_timeout", alias = "stall-timeout", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) stall_timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) select: Select,

    /// Print the outcome as one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    /// Say only what failed
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say more
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Transfer {
    pub(crate) fn loudness(&self) -> Loudness {
        Loudness::of(self.quiet, self.verbose)
    }

    pub(crate) fn stall(&self) -> Duration {
        self.stall_timeout.unwrap_or(STALL_DEFAULT)
    }

    pub(crate) fn thread_num(&self) -> usize {
        self.thread_num.unwrap_or(THREAD_NUM_DEFAULT)
    }

    /// The same for a long path.
    pub(crate) fn far_thread_num(&self) -> usize {
        self.thread_num.unwrap_or(THREAD_NUM_FAR)
    }

    pub(crate) fn process_num(&self) -> usize {
        self.process_num.unwrap_or_else(|| num_cpus::get().clamp(1, PROCESS_NUM_MAX))
    }

    fn retry_for(&self) -> Duration {
        self.retry_for.unwrap_or(match self.wire.protocol {
            Protocol::V1 => RETRY_FOR_FORGETFUL,
            Protocol::V2 => RETRY_FOR_DEFAULT,
        })
    }

    /// The ticket, if there is one. Flags that it leaves no room for end the program, as wrong words of
    /// `command`; the parser knows only of those beside a ticket in a file.
    pub(crate) fn ticket(&self, command: &mut Command) -> anyhow::Result<Option<Ticket>> {
        let ticket = self.wire.ticket()?;
        if let (Some(_), Some(flag)) = (&ticket, self.wire.trust_flag()) {
            let message = format!(
                "the ticket in {TICKET_VARIABLE} says which key the receiver has: \
                 leave {flag} out, or unset {TICKET_VARIABLE}, or name the receiver with --server and --port"
            );
            command.error(ErrorKind::ArgumentConflict, message).exit()
        }
        Ok(ticket)
    }

    /// Who is to be dialled, and who the user says to be there.
    pub(crate) fn dialer(&self, ticket: Option<&Ticket>, server: Option<(&str, u16)>) -> anyhow::Result<(Dialer, Login)> {
        let host = server.map_or(String::new(), |(server, port)| format!("{server}:{port}"));
        let (stall, retry_for, pace) = (self.stall(), self.retry_for(), self.wire.pace());
        let tls = self.wire.client(&host, ticket)?;
        let goal = Goal { server, ticket, ip_version: self.ip_version, stall, retry_for, wire: &self.wire, pace, tls };
        let dialer = self.routes.dialer(&goal)?;
        let login = match ticket {
            Some(ticket) => Login::Ticket(ticket.secret),
            None => self.who.login(&host)?,
        };
        Ok((dialer, login))
    }

    /// The session to open in `directory` of the receiver.
    pub(crate) fn open(&self, directory: &[u8]) -> anyhow::Result<Open> {
        Ok(Open {
            directory: directory.to_vec(),
            checksum: self.wire.checksum(self.manifest.is_some())?,
            keeps_old: self.backup,
            syncs: self.fsync,
            is_dry: self.dry_run,
            compression: self.wire.compression.level(),
            ..Open::plain(new_token()?, Purpose::Bring)
        })
    }
}

pub(crate) fn parse_count<const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(count) => Ok(MAX.min(count)),
        Err(_) => Err(format!("a number from 1 to {MAX} is needed")),
    }
}
