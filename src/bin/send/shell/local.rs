//! The commands for what is on this machine.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use parallel_transfer::exit::Verdict;
use parallel_transfer::limits::NAMES_SHOWN_MAX;
use parallel_transfer::path::Escaped;
use parallel_transfer::terminal;

use super::commands::{Call, print, style_of};
use super::show::{self, Row, Style};
use super::words::Word;
use super::{Shell, glob};

impl Shell {
    /// What names of this machine the user means, patterns included.
    pub(super) fn local_names(&self, words: &[Word]) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        for word in words {
            if !word.is_pattern() {
                all.push(word.text());
                continue;
            }
            let mut listed = |folder: &[u8]| {
                let entries = self.local.join(OsStr::from_bytes(folder)).read_dir().into_iter().flatten().flatten();
                let name = |entry: std::fs::DirEntry| (entry.file_name().as_bytes().to_vec(), entry.path().is_dir());
                Ok(entries.take(NAMES_SHOWN_MAX + 1).map(name).collect())
            };
            let mut exists = |path: &[u8]| Ok(self.local.join(OsStr::from_bytes(path)).symlink_metadata().is_ok());
            let found = glob::expand(word.pattern(), &mut listed, &mut exists)?;
            ensure!(!found.is_empty(), "nothing matches '{}'", Escaped(&word.text()));
            all.extend(found);
            ensure!(all.len() <= NAMES_SHOWN_MAX, "more than {NAMES_SHOWN_MAX} names match");
        }
        Ok(all)
    }
}

pub(super) fn lls(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let style = style_of(call);
    let names = if call.words.is_empty() { vec![b".".to_vec()] } else { shell.local_names(&call.words)? };
    let width = show::terminal_width();
    let (mut done, mut failed) = (0_usize, 0_usize);
    for name in &names {
        match local_rows(&shell.local.join(OsStr::from_bytes(name)), name, style) {
            Ok(rows) => {
                let mut lines = if names.len() > 1 { vec![format!("{}:", Escaped(name))] } else { Vec::new() };
                lines.extend(show::lines(rows, style, width));
                terminal::print_lines(&lines)?;
                done += 1;
            }
            Err(error) => {
                terminal::print_error(call.name, &error.context(format!("can't list '{}'", Escaped(name))));
                failed += 1;
            }
        }
    }
    Ok(match (failed, done) {
        (0, _) => Verdict::Complete.code(),
        (_, 0) => Verdict::Failed.code(),
        _ => Verdict::Partial.code(),
    })
}

fn local_rows(path: &Path, name: &[u8], style: Style) -> anyhow::Result<Vec<Row>> {
    if !path.metadata()?.is_dir() {
        return Ok(vec![Row::of_local(name, path, &path.symlink_metadata()?)]);
    }
    let mut rows = Vec::new();
    for entry in path.read_dir()?.take(NAMES_SHOWN_MAX) {
        let entry = entry?;
        let name = entry.file_name();
        if style.all || !name.as_bytes().starts_with(b".") {
            // One that is gone by now is not there.
            rows.extend(entry.metadata().map(|metadata| Row::of_local(name.as_bytes(), &entry.path(), &metadata)));
        }
    }
    Ok(rows)
}

pub(super) fn lcd(shell: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let folder = match call.words.first() {
        Some(word) => shell.local.join(OsStr::from_bytes(&word.text())),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set; name a folder")?),
    };
    let real = folder.canonicalize().and_then(|real| real.read_dir().map(|_| real));
    shell.local = real.with_context(|| format!("can't go to '{}'", Escaped::path(&folder)))?;
    Ok(0)
}

pub(super) fn lpwd(shell: &mut Shell, _: &Call) -> anyhow::Result<u8> {
    print(Escaped::path(&shell.local).to_string())
}
