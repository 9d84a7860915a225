//! What the prompt completes words to: commands, names at the receiver, names of this machine.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;

use parallel_transfer::limits::NAMES_COMPLETED_MAX;
use parallel_transfer::path::Escaped;
use rustyline::completion::{Completer as Completes, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::Shell;
use super::commands::{self, Takes};
use super::words::{parse, parse_partial, quote};
use super::{paths, session::FolderNames};

/// What the line editor asks.
#[derive(Debug)]
pub(super) struct Completer {
    shell: Rc<RefCell<Shell>>,
}

impl Completer {
    pub(super) fn new(shell: Rc<RefCell<Shell>>) -> Self {
        Self { shell }
    }
}

impl Completes for Completer {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let nothing = Ok((at, Vec::new()));
        let (Some(line), Ok(mut shell)) = (line.as_bytes().get(..at), self.shell.try_borrow_mut()) else { return nothing };
        let Some(partial) = parse_partial(line) else { return nothing };
        let takes = match partial.words.first() {
            None => Takes::Commands,
            Some(command) => commands::find(&command.text()).map_or(Takes::Nothing, |command| command.takes),
        };
        let cut = partial.text.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (folder, start) = partial.text.split_at(cut);
        let names = match takes {
            Takes::Commands => commands::names().map(|name| (name.as_bytes().into(), false)).collect::<Vec<_>>().into(),
            Takes::Remote | Takes::RemoteFolders => remote_names(&mut shell, folder),
            Takes::Local => Some(local_names(&shell, folder)),
            Takes::Nothing => None,
        };
        let names: FolderNames = names.map(Rc::new).unwrap_or_default();
        let only_folders = takes == Takes::RemoteFolders;
        Ok((partial.start, candidates(&names, folder, start, only_folders, partial.quote)))
    }
}

/// The names that begin as what was typed does, as they are typed.
fn candidates(names: &[(Box<[u8]>, bool)], folder: &[u8], start: &[u8], only_folders: bool, open: Option<u8>) -> Vec<Pair> {
    let Ok(folder) = str::from_utf8(folder) else { return Vec::new() };
    let is_hidden = |name: &[u8]| name.starts_with(b".") && !start.starts_with(b".");
    let fitting =
        names.iter().filter(|(name, is_folder)| name.starts_with(start) && !is_hidden(name) && (*is_folder || !only_folders));
    // What can't be shown as it is can't be typed.
    let mut fitting: Vec<(&str, bool)> = fitting
        .filter_map(|(name, is_folder)| str::from_utf8(name).ok().map(|name| (name, *is_folder)))
        .filter(|(name, _)| Escaped(name.as_bytes()).to_string() == name.replace('\\', "\\\\"))
        .collect();
    fitting.sort_unstable();
    let is_one = fitting.len() == 1;
    let pair = |(name, is_folder): (&str, bool)| {
        let slash = if is_folder { "/" } else { "" };
        // It would be taken for flags: one called `-rf` behind `rm`, for one.
        let folder = if folder.is_empty() && name.starts_with('-') { "./" } else { folder };
        let mut replacement = quote(&format!("{folder}{name}{slash}"), open);
        if is_one && !is_folder {
            replacement.extend(open.map(char::from));
            replacement.push(' ');
        }
        Pair { display: format!("{name}{slash}"), replacement }
    };
    fitting.into_iter().map(pair).collect()
}

fn remote_names(shell: &mut Shell, folder: &[u8]) -> Option<Vec<(Box<[u8]>, bool)>> {
    let path = paths::resolve(&shell.here, if folder.is_empty() { b"." } else { folder }).ok()?;
    shell.session.names(&path).map(|names| names.to_vec())
}

fn local_names(shell: &Shell, folder: &[u8]) -> Vec<(Box<[u8]>, bool)> {
    let listed = shell.local.join(OsStr::from_bytes(folder)).read_dir().into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| (entry.file_name().as_bytes().into(), entry.path().is_dir());
    listed.take(NAMES_COMPLETED_MAX).map(name).collect()
}

impl Validator for Completer {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match parse(context.input().as_bytes()) {
            Ok(_) => ValidationResult::Valid(None),
            Err(_) => ValidationResult::Incomplete,
        })
    }
}

impl Hinter for Completer {
    type Hint = String;
}

impl Highlighter for Completer {}

impl Helper for Completer {}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(names: &[(&str, bool)], folder: &str, start: &str, only_folders: bool, open: Option<u8>) -> Vec<String> {
        let names: Vec<(Box<[u8]>, bool)> = names.iter().map(|(name, is_folder)| (name.as_bytes().into(), *is_folder)).collect();
        let pairs = candidates(&names, folder.as_bytes(), start.as_bytes(), only_folders, open);
        pairs.into_iter().map(|pair| pair.replacement).collect()
    }

    #[test]
    fn words_are_completed_to_names_as_they_are_typed() {
        let names =
            [("photos", true), ("photo 1.jpg", false), ("plan", false), (".hidden", false), ("\x1b[2J", false), ("it's", true)];
        for (folder, start, only_folders, open, expected) in [
            ("", "ph", false, None, vec!["photo\\ 1.jpg", "photos/"]),
            ("", "ph", true, None, vec!["photos/"]),
            ("", "pl", false, None, vec!["plan "]),
            ("", "photo ", false, None, vec!["photo\\ 1.jpg "]),
            ("", "photo ", false, Some(b'\''), vec!["'photo 1.jpg' "]),
            ("a b/", "ph", false, Some(b'"'), vec!["\"a b/photo 1.jpg", "\"a b/photos/"]),
            ("", "it", false, None, vec!["it\\'s/"]),
            ("", ".", false, None, vec![".hidden "]),
            ("", "", false, None, vec!["it\\'s/", "photo\\ 1.jpg", "photos/", "plan"]),
            ("", "x", false, None, vec![]),
        ] {
            assert_eq!(typed(&names, folder, start, only_folders, open), expected, "{folder} {start}");
        }
    }

    // C25
    #[test]
    fn a_name_that_looks_like_a_flag_is_typed_as_a_path() {
        let names = [("-rf", false), ("-x y", true), ("a", false)];
        assert_eq!(typed(&names, "", "-", false, None), ["./-rf", "./-x\\ y/"]);
        assert_eq!(typed(&names, "", "-r", false, Some(b'\'')), ["'./-rf' "]);
        assert_eq!(typed(&names, "d/", "-r", false, None), ["d/-rf "]);
    }
}
