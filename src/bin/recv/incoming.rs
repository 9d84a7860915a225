//! `recv incoming`: shows and removes files that were not received whole.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{BinaryBytes, HumanDuration};
use parallel_transfer::exit::Verdict;
use parallel_transfer::flags::parse_duration;
use parallel_transfer::path::{Escaped, RemotePath};
use parallel_transfer::store::{Leftover, Survey, survey, take_umask};
use parallel_transfer::terminal;
use serde_json::{Value, json};

use crate::shared::folders::state_folder;

pub(crate) const EXAMPLES: &str = "\
Examples:
  recv incoming list
          show each file that is being received, or was not received whole
  recv incoming clean --older 2d
          remove those that nobody receives and that did not change for two days
  recv incoming clean --root /srv/in
          remove all below /srv/in that nobody receives";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show each file that is being received, or was not received whole
    List {
        #[command(flatten)]
        place: Place,

        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove files that were not received whole and that nobody receives
    Clean {
        #[command(flatten)]
        place: Place,

        /// Only those that did not change for so long
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        older: Option<Duration>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The state folder of the receivers [default: ~/.local/state/parallel-transfer]
    #[arg(long = "state_dir", alias = "state-dir", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Only what is below the root of this receiver [default: of all]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// What was found, for people and for programs.
#[derive(Default)]
struct Found {
    lines: Vec<String>,
    files: Vec<Value>,
    unknown: Vec<Value>,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<Verdict> {
    let (place, clean, as_json) = match command {
        Command::List { place, json } => (place, None, *json),
        Command::Clean { place, older } => (place, Some(older.unwrap_or_default()), false),
    };
    let state_dir = place.state_dir.clone().or_else(state_folder);
    let state_dir = state_dir.context("no state folder: HOME is not set; name a folder with --state_dir")?;
    let mut found = Found::default();
    let mut tell = |event: Survey<'_>| match event {
        Survey::File(root, file) if clean.is_none() || file.is_removed => found.take(root, &file),
        Survey::File(..) => {}
        Survey::Unknown(root, error) => {
            let root = Escaped::path(root).to_string();
            tracing::warn!("can't look through '{root}': {error}; what is there stays as it is");
            found.unknown.push(json!({"root": root, "reason": error.to_string()}));
        }
    };
    survey(&state_dir, place.root.as_deref(), clean, take_umask(), &mut tell)
        .with_context(|| format!("can't look into '{}'", Escaped::path(&state_dir)))?;
    let lines = match as_json {
        true => vec![json!({"incoming": found.files, "unknown": found.unknown}).to_string()],
        false => found.lines,
    };
    // A reader who left early has seen enough.
    let _ = terminal::print_lines(&lines);
    Ok(Verdict::Complete)
}

impl Found {
    fn take(&mut self, root: &Path, file: &Leftover) {
        let path = below(root, &file.folder).join(&file.name);
        let path = Escaped::path(&path).to_string();
        let (target, here_bytes) = match &file.journal {
            Some((target, here_bytes)) => (Some(Escaped::path(&below(root, target)).to_string()), *here_bytes),
            None => (None, 0),
        };
        let size = BinaryBytes(file.size);
        let line = if file.is_removed {
            format!("removed {path} ({size})")
        } else {
            let (here, age) = (BinaryBytes(here_bytes), HumanDuration(file.age));
            let to_be = target.as_ref().map_or_else(String::new, |target| format!(", to be {target}"));
            let in_use = if file.in_use { ", in use" } else { "" };
            format!("{path}: {here} of {size}, {age} old{in_use}{to_be}")
        };
        self.lines.push(line);
        self.files.push(json!({
            "path": path,
            "target": target,
            "size": file.size,
            "bytes": here_bytes,
            "age_seconds": file.age.as_secs_f64(),
            "in_use": file.in_use,
        }));
    }
}

fn below(root: &Path, path: &RemotePath) -> PathBuf {
    if path.is_root() { root.to_owned() } else { root.join(std::ffi::OsStr::from_bytes(path.as_bytes())) }
}
