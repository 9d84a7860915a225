//! The flags of `send` that say how the receiver is spoken to, and why it may be trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use parallel_transfer::digest::Checksum;
use parallel_transfer::flags::parse_size;
use parallel_transfer::limits::TICKET_LEN_MAX;
use parallel_transfer::net::congestion::{self, Congestion};
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::net::pace::Pace;
use parallel_transfer::net::tls::{Client, Fingerprint};
use parallel_transfer::path::Escaped;
use parallel_transfer::secret::{Secret, read_bounded};
use parallel_transfer::ticket::Ticket;

use super::compress::Compression;
use super::folders::config_folder;

/// The variable that a ticket may be in.
pub(crate) const TICKET_VARIABLE: &str = "PTF_TICKET";

/// How the receiver is spoken to.
#[derive(Debug, clap::Args)]
pub(crate) struct Wire {
    /// The protocol to speak: v2, or v1 to receivers of Parallel-transfer-file [default: v2]
    #[arg(long, value_enum, value_name = "v1|v2", default_value_t = Protocol::V2, hide_default_value = true, hide_possible_values = true)]
    pub(crate) protocol: Protocol,

    /// Take the receiver's address, key and secret from the ticket that 'recv --once' printed, in
    /// place of --server and --port; '-' reads it from standard input. The environment's PTF_TICKET
    /// does the same
    #[arg(long = "ticket_file", alias = "ticket-file", value_name = "FILE", conflicts_with_all = ["server", "host_key", "strict", "known_hosts"])]
    ticket_file: Option<PathBuf>,

    /// Don't encrypt (a trusted network only; blocks are verified all the same)
    #[arg(long, conflicts_with_all = ["host_key", "strict", "known_hosts", "ticket_file"])]
    plain: bool,

    /// The receiver's key must have this fingerprint, which 'recv' prints
    #[arg(long = "host_key", alias = "host-key", value_name = "FINGERPRINT")]
    host_key: Option<Fingerprint>,

    /// Refuse receivers whose key is not known
    #[arg(long)]
    strict: bool,

    /// Where the keys of known receivers are kept [default: ~/.config/parallel-transfer/known_hosts]
    #[arg(long = "known_hosts", alias = "known-hosts", value_name = "FILE")]
    known_hosts: Option<PathBuf>,

    /// How each block is verified end to end: xxh3, blake3 or none [default: xxh3]
    #[arg(long, value_enum, value_name = "NAME", hide_possible_values = true)]
    checksum: Option<Algorithm>,

    #[command(flatten)]
    pub(crate) compression: Compression,

    /// Bytes a second to transfer at the most, over all connections together
    #[arg(long, value_name = "BYTES", value_parser = parse_size, allow_negative_numbers = true)]
    pub(crate) bwlimit: Option<u64>,

    /// The kernel's congestion control to send with; 'auto' is the system's, bbr once a long path loses segments that no
    /// queue explains, and cubic in the place of bbr where that sends more than the path carries, or the path is short
    #[arg(long, value_name = "NAME", default_value = congestion::AUTO)]
    congestion: String,
}

/// The protocols that can be spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// That of Parallel-transfer-file
    V1,
    /// That of this program
    V2,
}

/// What can verify a block.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Algorithm {
    Xxh3,
    Blake3,
    None,
}

impl Protocol {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

impl Wire {
    /// How blocks are verified; the digests of whole files come from BLAKE3 alone.
    pub(crate) fn checksum(&self, wants_digests: bool) -> anyhow::Result<Checksum> {
        Ok(match self.checksum {
            None if wants_digests => Checksum::Blake3,
            Some(Algorithm::Xxh3 | Algorithm::None) if wants_digests => bail!("--manifest needs --checksum blake3"),
            None | Some(Algorithm::Xxh3) => Checksum::Xxh3,
            Some(Algorithm::Blake3) => Checksum::Blake3,
            Some(Algorithm::None) => Checksum::None,
        })
    }

    /// The ticket, if there is one.
    pub(crate) fn ticket(&self) -> anyhow::Result<Option<Ticket>> {
        let (read, source) = match &self.ticket_file {
            Some(file) if file == Path::new("-") => (read_bounded(file, TICKET_LEN_MAX), "standard input".to_owned()),
            Some(file) => (read_bounded(file, TICKET_LEN_MAX), format!("'{}'", Escaped::path(file))),
            None => match std::env::var_os(TICKET_VARIABLE) {
                Some(text) => (Ok(Secret::of(text)), TICKET_VARIABLE.to_owned()),
                None => return Ok(None),
            },
        };
        let read = read.with_context(|| format!("can't read a ticket from {source}"))?;
        Ok(Some(String::from_utf8_lossy(read.as_bytes()).parse().with_context(|| source)?))
    }

    /// The flag, if one was given, that says whom to trust: what a ticket says as well.
    pub(crate) fn trust_flag(&self) -> Option<&'static str> {
        let flags =
            [(self.host_key.is_some(), "--host_key"), (self.strict, "--strict"), (self.known_hosts.is_some(), "--known_hosts")];
        flags.into_iter().find_map(|(is_given, flag)| is_given.then_some(flag))
    }

    /// The congestion control that streams had at the end; `changed` is what was changed to.
    pub(crate) fn congestion(&self, changed: Option<String>) -> String {
        match self.congestion.as_str() {
            congestion::AUTO => changed.unwrap_or_else(congestion::system_default),
            asked => asked.to_owned(),
        }
    }

    /// The rate that all connections share, if there is one.
    pub(crate) fn pace(&self) -> Option<Arc<Pace>> {
        self.bwlimit.map(|rate| Arc::new(Pace::new(rate)))
    }

    /// Adds to a dialer that connects itself how its streams are to be, but for whom they trust.
    pub(crate) fn dress(&self, dialer: Dialer, pace: Option<Arc<Pace>>) -> Dialer {
        dialer.with_pace(pace).with_congestion(Some(Arc::new(Congestion::named(&self.congestion))))
    }

    /// Whom the receiver, which the user calls `host`, has to be; none where nothing is encrypted.
    pub(crate) fn client(&self, host: &str, ticket: Option<&Ticket>) -> anyhow::Result<Option<Client>> {
        if self.plain || self.protocol == Protocol::V1 {
            ensure!(ticket.is_none(), "a ticket is for encrypted connections: leave --plain and --protocol v1 out");
            ensure!(
                self.host_key.is_none() && !self.strict,
                "--host_key and --strict are for encrypted connections: leave --protocol v1 out"
            );
            return Ok(None);
        }
        Ok(Some(match ticket.map(|ticket| ticket.fingerprint).or(self.host_key) {
            Some(fingerprint) => Client::pinned(fingerprint)?,
            None => self.client_of_known(host)?,
        }))
    }

    /// Whom a host has to be that is known, or becomes so now.
    pub(crate) fn client_of_known(&self, host: &str) -> anyhow::Result<Client> {
        let file = self.known_hosts.clone().map_or_else(default_known_hosts, Ok)?;
        Ok(Client::known_hosts(file, host.to_owned(), self.strict)?)
    }
}

/// Says which key a receiver has that was not known before.
pub(crate) fn tell_of_new_key(dialer: &Dialer) {
    if let Some(seen) = dialer.tls().and_then(Client::seen).filter(|seen| seen.is_new) {
        tracing::warn!("new receiver: its key {} is accepted and kept", seen.fingerprint);
    }
}

fn default_known_hosts() -> anyhow::Result<PathBuf> {
    let folder = config_folder()
        .context("no place for known hosts: HOME is not set; name one with --known_hosts FILE, or pin the key with --host_key")?;
    Ok(folder.join("known_hosts"))
}
