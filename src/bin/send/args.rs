//! Every flag of `send`, and the job that they make.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory as _, Parser, ValueEnum};
use parallel_transfer::client::{Job, Look, Remote};
use parallel_transfer::flags::{parse_duration, parse_ip_version, parse_size};
use parallel_transfer::limits::{
    CHUNK_LEN_DEFAULT, PROCESS_NUM_MAX, RETRY_FOR_DEFAULT, STALL_DEFAULT, THREAD_NUM_DEFAULT, THREAD_NUM_MAX,
};
use parallel_transfer::net::IpVersion;
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::path::Escaped;
use parallel_transfer::terminal::Loudness;

use crate::select::{RULES, Select};

const EXAMPLES: &str = "\
Examples:
  send --file photos --remote_dir /backup/photos
          copy a folder on this machine, in parallel
  send --server 192.168.1.7 --port 9000 --file photos --remote_dir /photos
          send the contents of photos to a receiver ('recv --port 9000' there)
  send --server backup --port 9000 --file disk.img --remote_dir /images --thread_num 8
          send one file over more connections

Every flag may be written with '-' instead of '_'. Sizes take the suffixes K, M, G, T (powers of 1024).

Exit codes: 0 all is there and verified; 1 failed; 2 wrong usage; 3 some entries failed, each named,
the rest is there; 130 interrupted.";

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

    /// The protocol to speak [default: v1, that of Parallel-transfer-file]
    #[arg(long, value_enum, value_name = "v1", default_value_t = Protocol::V1, hide_default_value = true, hide_possible_values = true)]
    protocol: Protocol,

    /// How long to dial again when the receiver is lost [default: 30s]
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

/// The protocols that can be spoken.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Protocol {
    /// That of Parallel-transfer-file
    V1,
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

    /// The folder at the receiver; one that makes no sense ends the program.
    pub(crate) fn remote(&self) -> Remote {
        Remote::parse(self.remote_dir.as_bytes()).unwrap_or_else(|error| {
            let message = format!("invalid value '{}' for '--remote_dir <DIR>': {error:#}", self.remote_dir());
            Self::command().error(ErrorKind::ValueValidation, message).exit()
        })
    }

    /// The job of sending to a host.
    pub(crate) fn job(&self, server: &str) -> anyhow::Result<Job> {
        let remote = self.remote();
        let look = self.select.look(false)?;
        let retry_for = self.retry_for.unwrap_or(RETRY_FOR_DEFAULT);
        let port = self.port.unwrap_or_default();
        Ok(self.job_to(Dialer::to_host(server, port, self.ip_version, self.stall(), retry_for)?, remote, look))
    }

    /// The job of sending to whoever answers `dialer`.
    pub(crate) fn job_to(&self, dialer: Dialer, remote: Remote, look: Look) -> Job {
        let Protocol::V1 = self.protocol;
        Job {
            file: self.file.clone(),
            look,
            dialer,
            remote,
            length: self.length,
            process_num: self.process_num.unwrap_or_else(|| num_cpus::get().clamp(1, PROCESS_NUM_MAX)),
            thread_num: self.thread_num,
            program: std::env::current_exe().ok(),
        }
    }
}

fn parse_count<const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(count) => Ok(MAX.min(count)),
        Err(_) => Err(format!("a number from 1 to {MAX} is needed")),
    }
}
