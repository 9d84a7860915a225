//! `send key`: makes a key to log in with, and prints the line that its receivers are told.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser;
use parallel_transfer::exit::Verdict;
use parallel_transfer::login_key::{PrivateKey, PublicKey};
use parallel_transfer::path::Escaped;
use parallel_transfer::terminal::{self, Loudness, Terminal};

use crate::secrets::{default_key, load_key};

const EXAMPLES: &str = "\
Example:
  send key
          prints a line; on the receiver's machine: recv user key add NAME 'LINE'";

/// Make a key to log in with, and print the line that 'recv user key add' takes.
#[derive(Debug, Parser)]
#[command(name = "send key", bin_name = "send key", version, after_help = EXAMPLES)]
struct Args {
    /// The file to keep the key in, which is never one that is there
    /// [default: ~/.config/parallel-transfer/id_ed25519]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// What the line says of the key, for people [default: the user's name]
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,

    /// Print the line of the key that is there, and make none
    #[arg(long)]
    show: bool,
}

pub(crate) fn run() -> ExitCode {
    // Without the word itself.
    let words = std::env::args_os();
    let args = Args::parse_from(words.take(1).chain(std::env::args_os().skip(2)));
    let _ = Terminal::for_transfer("send", Loudness::Normal);
    let verdict = match make(&args) {
        Ok(()) => Verdict::Complete,
        Err(error) => {
            terminal::print_error("send key", &error);
            Verdict::Failed
        }
    };
    ExitCode::from(verdict.code())
}

fn make(args: &Args) -> anyhow::Result<()> {
    let file = args.out.clone().map_or_else(default_key, Ok)?;
    let comment = args.comment.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_default();
    let (key, pem) = if args.show { (load_key(&file)?, None) } else { PrivateKey::make().map(|(key, pem)| (key, Some(pem)))? };
    let line = PublicKey { bytes: key.public(), comment }.to_string();
    // A line that can't be read back is of no use, nor is a key that has no other.
    let _: PublicKey = line.parse().context("--comment")?;
    pem.map(|pem| keep(&file, &pem)).transpose()?;
    terminal::print_lines(&[line]).context("standard output")
}

/// Writes a new file, whole or not at all, and never over another.
fn keep(file: &Path, pem: &str) -> anyhow::Result<()> {
    let shown = Escaped::path(file);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let write = || {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut new = tempfile::Builder::new().prefix(".key.").permissions(Permissions::from_mode(0o600)).tempfile_in(folder)?;
        new.write_all(pem.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist_noclobber(file).map(drop).map_err(|error| error.error)
    };
    match write() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("'{shown}' is there already and stays as it is; 'send key --show' prints its line, --out names another file")
        }
        done => done.with_context(|| format!("can't keep a key in '{shown}'")),
    }
}
