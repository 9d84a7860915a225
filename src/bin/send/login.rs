//! `send signup`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use parallel_transfer::client;
use parallel_transfer::exit::Verdict;
use parallel_transfer::flags::parse_ip_version;
use parallel_transfer::limits::{RETRY_FOR_DEFAULT, STALL_DEFAULT};
use parallel_transfer::net::IpVersion;
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::path::Escaped;
use parallel_transfer::stop::Stop;
use parallel_transfer::terminal::{self, Loudness, Terminal};

use crate::secrets::password;
use crate::wire::{Wire, tell_of_new_key};

const EXAMPLES: &str = "\
Example:
  send signup --server backup --port 9000 --user alice
          asks for a password, and makes the account where the receiver lets anyone have one

Exit codes: 0 there is an account now; 1 failed; 2 wrong usage; 4 refused.";

/// Make an account at a receiver that lets anyone have one.
#[derive(Debug, Parser)]
#[command(name = "send signup", bin_name = "send signup", version, after_help = EXAMPLES)]
struct SignUp {
    /// The receiver's name or address
    #[arg(long, value_name = "HOST")]
    server: String,

    /// The receiver's port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// The name that the account is to have
    #[arg(long, value_name = "NAME")]
    user: String,

    /// The first line of this file is the password; '-' reads it from standard input; so does the
    /// environment's PTF_PASSWORD
    #[arg(long = "password_file", alias = "password-file", value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Use only addresses of this IP version, 4 or 6 [default: all]
    #[arg(long = "ip_version", alias = "ip-version", value_name = "4|6", value_parser = parse_ip_version)]
    ip_version: Option<IpVersion>,

    #[command(flatten)]
    wire: Wire,
}

/// `send signup`, with the words after that.
pub(crate) fn sign_up() -> ExitCode {
    let words = std::env::args_os();
    let args = SignUp::parse_from(words.take(1).chain(std::env::args_os().skip(2)));
    let _ = Terminal::for_transfer("send", Loudness::Normal);
    let verdict = match args.run() {
        Ok(()) => Verdict::Complete,
        Err(error) => {
            let is_refused = client::is_refusal(&error);
            terminal::print_error("send signup", &error);
            if is_refused { Verdict::Refused } else { Verdict::Failed }
        }
    };
    ExitCode::from(verdict.code())
}

impl SignUp {
    fn run(&self) -> anyhow::Result<()> {
        let Self { server, port, user, .. } = self;
        let dialer = Dialer::to_host(server, *port, self.ip_version, STALL_DEFAULT, RETRY_FOR_DEFAULT)?;
        let tls = self.wire.client(&format!("{server}:{port}"), None)?;
        let dialer = self.wire.dress(dialer, self.wire.pace()).with_tls(tls);
        let password = password(user, server, self.password_file.as_deref())?;
        let stop = Arc::new(Stop::new()?);
        client::sign_up(&dialer, user, &password, &stop)?;
        tell_of_new_key(&dialer);
        let line = format!("there is an account '{}' now", Escaped(user.as_bytes()));
        terminal::print_lines(&[line]).context("can't say so on standard output")
    }
}
