//! The flags that say how a receiver is reached, and by how many connections: those of all that connect to one.

use std::path::Path;
use std::time::Duration;

use parallel_transfer::client::Login;
use parallel_transfer::flags::{parse_duration, parse_ip_version, parse_size};
use parallel_transfer::limits::{
    CHUNK_LEN_DEFAULT, PROCESS_NUM_MAX, RETRY_FOR_DEFAULT, RETRY_FOR_FORGETFUL, STALL_DEFAULT, THREAD_NUM_DEFAULT,
    THREAD_NUM_FAR, THREAD_NUM_MAX,
};
use parallel_transfer::net::IpVersion;
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::ticket::Ticket;

use super::routes::{Goal, Routes};
use super::who::Who;
use super::wire::{Protocol, Wire};

/// How a receiver is reached.
#[derive(Debug, clap::Args)]
pub(crate) struct Reach {
    /// Bytes of the pieces that files are cut into [default: 16MiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_size, allow_negative_numbers = true, default_value_t = CHUNK_LEN_DEFAULT, hide_default_value = true)]
    pub(crate) length: u64,

    /// Worker processes at the most [default: the number of cores]
    #[arg(long = "process_num", alias = "process-num", value_name = "N", value_parser = parse_count::<PROCESS_NUM_MAX>, allow_negative_numbers = true)]
    process_num: Option<usize>,

    /// Threads in each process at the most, each with a connection [default: 3; over a long path 6]
    #[arg(long = "thread_num", alias = "thread-num", value_name = "N", value_parser = parse_count::<THREAD_NUM_MAX>, allow_negative_numbers = true)]
    thread_num: Option<usize>,

    /// Use only addresses of this IP version, 4 or 6 [default: all]
    #[arg(long = "ip_version", alias = "ip-version", value_name = "4|6", value_parser = parse_ip_version)]
    ip_version: Option<IpVersion>,

    #[command(flatten)]
    who: Who,

    #[command(flatten)]
    pub(crate) wire: Wire,

    #[command(flatten)]
    pub(crate) routes: Routes,

    /// How long to go on without progress when the other end is lost [default: 10m; over v1 30s]
    #[arg(long = "retry_for", alias = "retry-for", value_name = "TIME", value_parser = parse_duration)]
    retry_for: Option<Duration>,

    /// How long the other end may make no progress before a connection is given up [default: 2m]
    #[arg(long = "stall_timeout", alias = "stall-timeout", value_name = "TIME", value_parser = parse_duration)]
    stall_timeout: Option<Duration>,
}

impl Reach {
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

    /// Connections that content is fetched over at the most.
    pub(crate) fn fetching_threads(&self) -> usize {
        self.process_num().saturating_mul(self.thread_num())
    }

    /// The same for a long path.
    pub(crate) fn far_fetching_threads(&self) -> usize {
        self.process_num().saturating_mul(self.far_thread_num())
    }

    /// Is standard input named as where a secret comes from?
    #[allow(dead_code, reason = "only the shell has another use for it")]
    pub(crate) fn reads_stdin(&self) -> bool {
        self.who.password_file.as_deref() == Some(Path::new("-")) || self.routes.reads_stdin()
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
}

fn parse_count<const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(count) => Ok(MAX.min(count)),
        Err(_) => Err(format!("a number from 1 to {MAX} is needed")),
    }
}
