//! The flags of a transfer, whichever way it goes.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, Command};
use parallel_transfer::client::new_token;
use parallel_transfer::protocol::{Open, Purpose};
use parallel_transfer::terminal::Loudness;
use parallel_transfer::ticket::Ticket;

use super::reach::Reach;
use super::select::Select;
use super::wire::TICKET_VARIABLE;

/// The flags as they are given.
#[derive(Debug, clap::Args)]
pub(crate) struct Transfer {
    #[command(flatten)]
    pub(crate) reach: Reach,

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

    /// The ticket, if there is one. Flags that it leaves no room for end the program, as wrong words of
    /// `command`; the parser knows only of those beside a ticket in a file.
    pub(crate) fn ticket(&self, command: &mut Command) -> anyhow::Result<Option<Ticket>> {
        let ticket = self.reach.wire.ticket()?;
        if let (Some(_), Some(flag)) = (&ticket, self.reach.wire.trust_flag()) {
            let message = format!(
                "the ticket in {TICKET_VARIABLE} says which key the receiver has: \
                 leave {flag} out, or unset {TICKET_VARIABLE}, or name the receiver with --server and --port"
            );
            command.error(ErrorKind::ArgumentConflict, message).exit()
        }
        Ok(ticket)
    }

    /// The session to open in `directory` of the receiver.
    pub(crate) fn open(&self, directory: &[u8]) -> anyhow::Result<Open> {
        Ok(Open {
            directory: directory.to_vec(),
            checksum: self.reach.wire.checksum(self.manifest.is_some())?,
            keeps_old: self.backup,
            syncs: self.fsync,
            is_dry: self.dry_run,
            compression: self.reach.wire.compression.level(),
            ..Open::plain(new_token()?, Purpose::Bring)
        })
    }
}
