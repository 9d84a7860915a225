//! Every flag of `send`, and the job that they make.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use anyhow::bail;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use parallel_transfer::client::{Job, Login, Remote, Target};
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::path::{Escaped, RemotePath};
use parallel_transfer::ticket::Ticket;

use crate::select::RULES;
use crate::transfer::Transfer;
use crate::wire::Protocol;

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
  send shell --server backup --port 9000 --user alice
          look at what is there, at a prompt; 'send shell --help' tells more
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

    #[command(flatten)]
    pub(crate) transfer: Transfer,
}

impl Args {
    /// `--remote_dir` as it can be shown.
    pub(crate) fn remote_dir(&self) -> String {
        Escaped(self.remote_dir.as_bytes()).to_string()
    }

    /// The ticket, if there is one and no receiver is named.
    pub(crate) fn ticket(&self) -> anyhow::Result<Option<Ticket>> {
        if self.server.is_some() { Ok(None) } else { self.transfer.ticket(&mut Self::command()) }
    }

    /// The folder at the receiver; one that makes no sense ends the program.
    fn check_remote_dir<T>(&self, parsed: anyhow::Result<T>) -> T {
        parsed.unwrap_or_else(|error| {
            let message = format!("invalid value '{}' for '--remote_dir <DIR>': {error:#}", self.remote_dir());
            Self::command().error(ErrorKind::ValueValidation, message).exit()
        })
    }

    /// The job of sending to another machine, or a program on this one.
    pub(crate) fn job(&self, ticket: Option<&Ticket>) -> anyhow::Result<Job> {
        let directory = self.remote_dir.as_bytes();
        let target = match self.transfer.reach.wire.protocol {
            Protocol::V1 => {
                if let Some(flag) = flag_beyond_v1(&self.transfer) {
                    bail!("{flag}: protocol v1 can't do that");
                }
                Target::InPlace(self.check_remote_dir(Remote::parse(directory)))
            }
            Protocol::V2 => {
                self.check_remote_dir(RemotePath::parse_loosely(directory).map_err(Into::into));
                Target::Session(self.transfer.open(directory)?)
            }
        };
        let (dialer, login) = self.transfer.reach.dialer(ticket, self.server.as_deref().zip(self.port))?;
        self.job_to(dialer, login, target)
    }

    /// The job of sending to whoever answers `dialer`.
    pub(crate) fn job_to(&self, dialer: Dialer, login: Login, target: Target) -> anyhow::Result<Job> {
        Ok(Job {
            file: self.file.clone(),
            look: self.transfer.select.look(matches!(target, Target::Session(_)))?,
            dialer: dialer.into(),
            login,
            target,
            features: self.transfer.reach.wire.compression.features(),
            length: self.transfer.reach.length,
            process_num: self.transfer.reach.process_num(),
            thread_num: self.transfer.reach.thread_num(),
            far_thread_num: self.transfer.reach.far_thread_num(),
            // A rate is kept by one process.
            program: std::env::current_exe().ok().filter(|_| self.transfer.reach.wire.bwlimit.is_none()),
        })
    }
}

/// The flag, if one was given, that means nothing over protocol v1.
fn flag_beyond_v1(transfer: &Transfer) -> Option<&'static str> {
    let compresses = transfer.reach.wire.compression.level().is_some();
    let flags = [
        (transfer.dry_run, "--dry_run"),
        (transfer.manifest.is_some(), "--manifest"),
        (transfer.fsync, "--fsync"),
        (compresses, "--compress"),
    ];
    flags.into_iter().find_map(|(is_given, flag)| is_given.then_some(flag))
}
