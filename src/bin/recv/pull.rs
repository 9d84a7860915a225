//! `recv --server`: fetches a file or a tree from another receiver.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use parallel_transfer::client::{self, Pull};
use parallel_transfer::path::{Escaped, RemotePath};
use parallel_transfer::progress::Progress;
use parallel_transfer::protocol::{Open, Purpose};
use parallel_transfer::stop::Stop;
use parallel_transfer::store::{Store, take_umask};

use crate::shared::drive::{self, Told};
use crate::shared::folders::state_folder;
use crate::shared::place;
use crate::shared::select::RULES;
use crate::shared::transfer::Transfer;
use crate::shared::wire::Protocol;

const EXAMPLES: &str = "\
Examples:
  recv --server 192.168.1.7 --port 9000 --file photos --local_dir /backup/photos
          fetch the contents of photos from a receiver ('recv --port 9000' there)
  recv --server backup --port 9000 --user alice --file /images/disk.img --local_dir .
          fetch one file from an account, as ./disk.img

Every flag may be written with '-' instead of '_'. Sizes take the suffixes K, M, G, T (powers of 1024).

Exit codes: 0 all is here and verified; 1 failed; 2 wrong usage; 3 some entries failed, each named,
the rest is here; 4 refused before anything landed; 130 interrupted.";

/// Fetch a file or a whole tree from a receiver, over many connections at once.
#[derive(Debug, Parser)]
#[command(name = "recv", version, after_help = format!("{RULES}\n\n{EXAMPLES}"))]
struct Args {
    /// The receiver's name or address
    #[arg(long, value_name = "HOST", requires = "port")]
    server: Option<String>,

    /// The receiver's port
    #[arg(long, value_name = "N", requires = "server", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// The file or folder to fetch, below the receiver's root; of a folder its contents
    #[arg(long, value_name = "REMOTE")]
    file: OsString,

    /// The folder on this machine to fetch it into; made where it is missing
    #[arg(long = "local_dir", alias = "local-dir", value_name = "DIR")]
    local_dir: PathBuf,

    #[command(flatten)]
    transfer: Transfer,
}

/// Do these words ask for a pull? A receiver has none of these flags.
pub(crate) fn is_meant(words: &[OsString]) -> bool {
    let flags = ["--server", "--file", "--local_dir", "--local-dir", "--ticket_file", "--ticket-file"];
    let is_one = |word: &OsString| {
        let name = word.as_bytes().split(|&byte| byte == b'=').next().unwrap_or_default();
        flags.iter().any(|flag| flag.as_bytes() == name)
    };
    words.iter().skip(1).take_while(|word| *word != OsStr::new("--")).any(is_one)
}

/// Fetches what the words ask for.
pub(crate) fn run(words: &[OsString]) -> ExitCode {
    let args = Args::parse_from(words);
    let landed = Escaped::path(&args.local_dir).to_string();
    drive::run("recv", &args.transfer, landed, |landed, progress, stop| args.fetch(landed, progress, stop))
}

impl Args {
    fn fetch(&self, landed: &mut String, progress: &Progress, stop: &Stop) -> anyhow::Result<()> {
        let transfer = &self.transfer;
        ensure!(transfer.reach.wire.protocol == Protocol::V2, "nothing can be fetched over protocol v1: leave --protocol out");
        let ticket = if self.server.is_some() { None } else { transfer.ticket(&mut Self::command())? };
        if ticket.is_none() && self.server.is_none() {
            let message = "--server and --port are needed, or a ticket: with --ticket_file, or in PTF_TICKET";
            Self::command().error(ErrorKind::MissingRequiredArgument, message).exit()
        }
        let (dialer, login) = transfer.reach.dialer(ticket.as_ref(), self.server.as_deref().zip(self.port))?;
        let umask = take_umask();
        let shown = Escaped::path(&self.local_dir);
        let local_dir = if self.local_dir.as_os_str().is_empty() { ".".into() } else { self.local_dir.clone() };
        let (root, into) =
            place::split(&local_dir, umask, transfer.dry_run).with_context(|| format!("can't make folder '{shown}'"))?;
        let mut store = Store::open(&root, umask).with_context(|| format!("can't write below '{}'", Escaped::path(&root)))?;
        let into =
            RemotePath::parse_loosely(into.as_os_str().as_bytes()).with_context(|| format!("can't fetch into '{shown}'"))?;
        let place = Escaped::path(&store.path().join(into.as_path())).to_string();
        if !transfer.dry_run {
            store.keep_index_below(state_folder().as_deref());
        }
        let job = Pull {
            from: Open { purpose: Purpose::Browse, ..transfer.open(self.file.as_bytes())? },
            features: transfer.reach.wire.compression.features(),
            is_folder: None,
            look: transfer.select.look(true)?,
            threads: transfer.reach.fetching_threads(),
            far_threads: transfer.reach.far_fetching_threads(),
            dialer: dialer.into(),
            login,
            store: &store,
            into,
            length: transfer.reach.length,
            pace: transfer.reach.wire.pace(),
        };
        let what = format!("{} of {}", Escaped(self.file.as_bytes()), job.dialer);
        let told = Told { act: ["fetching", "would fetch"], what: &what, place: &|_| place.clone() };
        drive::watch(transfer, &told, &job.dialer, landed, progress, |watcher| client::pull(&job, watcher, progress, stop))
    }
}
