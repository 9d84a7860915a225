//! `--manifest`: the BLAKE3 of each file, a line each, as `b3sum --check` reads it in the target folder.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use parallel_transfer::path::{Escaped, RemotePath};
use parallel_transfer::progress::Progress;
use parallel_transfer::store::take_umask;

/// The file while it is written.
#[derive(Debug)]
pub(crate) struct Manifest {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Manifest {
    /// Begins a manifest; one that is there is replaced.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        #[allow(clippy::disallowed_methods, reason = "the user named this file")]
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(take_umask().of(0o666)).open(path);
        let file = file.with_context(|| format!("can't write manifest '{}'", Escaped::path(path)))?;
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { file: BufWriter::new(file), failed: None }) })
    }

    /// Adds a file. A name that `b3sum` can't read is left out, and named.
    pub(crate) fn add(&self, path: &RemotePath, digest: [u8; 32], progress: &Progress) {
        let Ok(name) = str::from_utf8(path.as_bytes()) else {
            let reason = "is there, but not in the manifest: its name is not UTF-8";
            tracing::warn!("{path}: {reason}");
            progress.fail(path, reason);
            return;
        };
        let is_escaped = name.contains(['\\', '\n', '\r']);
        let name = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        let mut line = if is_escaped { "\\".to_owned() } else { String::new() };
        line.push_str(&blake3::Hash::from_bytes(digest).to_hex());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(state.file, "{line}  {name}") {
            state.failed.get_or_insert(error);
        }
    }

    /// Takes back what was added: each file comes again.
    pub(crate) fn begin_again(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // What is in a pipe stays there, and a line that comes twice is no harm.
        if !state.file.get_ref().metadata().is_ok_and(|metadata| metadata.is_file()) {
            return;
        }
        if let Err(error) = state.file.rewind().and_then(|()| state.file.get_ref().set_len(0)) {
            state.failed.get_or_insert(error);
        }
    }

    /// Ends the manifest.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let State { mut file, failed } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let written = failed.map_or(Ok(()), Err).and_then(|()| file.flush());
        written.with_context(|| format!("all is there, but manifest '{}' can't be written", Escaped::path(&self.path)))
    }
}
