//! The commands of the prompt: a table, and how they are called.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use parallel_transfer::entry::{Listed, ListedKind};
use parallel_transfer::exit::Verdict;
use parallel_transfer::limits::NAMES_SHOWN_MAX;
use parallel_transfer::path::{Escaped, RemotePath};
use parallel_transfer::terminal;

use super::interrupt::Interrupted;
use super::session::{Listing, is_denial};
use super::show::Style;
use super::words::Word;
use super::{Shell, code_of, glob, local, paths, tree};

/// A command that was called in a way that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// A pattern that stands for nothing.
#[derive(Debug, thiserror::Error)]
#[error("nothing matches '{0}'")]
pub(super) struct NoMatch(String);

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// This exit code.
    Done(u8),
    /// The user has had enough.
    Leave,
}

/// What the words behind a command are names of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Commands,
    Remote,
    RemoteFolders,
    Local,
}

/// A row of the table.
pub(super) struct Command {
    /// Its names, the usual one first.
    names: &'static [&'static str],
    /// Its flags, as `getopt` has them: a letter each, one that takes a value with `:` behind it.
    flags: &'static str,
    /// Flags of a word, and the letters that they stand for.
    long_flags: &'static [(&'static str, char)],
    /// How many words it takes beside its flags.
    counts: RangeInclusive<usize>,
    pub(super) takes: Takes,
    usage: &'static str,
    about: &'static str,
    run: fn(&mut Shell, &Call) -> anyhow::Result<u8>,
}

/// How a command was called.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) name: &'static str,
    flags: Vec<char>,
    /// The value of the flag that takes one.
    pub(super) value: Option<Word>,
    pub(super) words: Vec<Word>,
}

impl Call {
    pub(super) fn has(&self, flag: char) -> bool {
        self.flags.contains(&flag)
    }
}

const MANY: usize = usize::MAX;

/// What most commands have in common.
const PLAIN: Command = Command {
    names: &[],
    flags: "",
    long_flags: &[],
    counts: 0..=0,
    takes: Takes::Nothing,
    usage: "",
    about: "",
    run: |_, _| Ok(0),
};

/// All of them, in the order that `help` has them in.
const TABLE: &[Command] = &[
    Command {
        names: &["ls", "show", "dir"],
        flags: "la1h",
        counts: 0..=MANY,
        takes: Takes::Remote,
        usage: "ls [-l] [-a] [-1] [-h] [NAME...]",
        about: "list folders; -l with all that is known, in UTC; -a names with a dot, too; -1 one a line; -h sizes with units",
        run: tree::ls,
        ..PLAIN
    },
    Command {
        names: &["cd"],
        counts: 0..=1,
        takes: Takes::RemoteFolders,
        usage: "cd [DIR]",
        about: "go to a folder; to '/', which is the top of all, without one; '-' is the folder before",
        run: tree::cd,
        ..PLAIN
    },
    Command { names: &["pwd"], usage: "pwd", about: "say which folder this is", run: tree::pwd, ..PLAIN },
    Command {
        names: &["get"],
        counts: 1..=MANY,
        takes: Takes::Remote,
        usage: "get NAME...",
        about: "bring files and folders to the local folder, under their own names",
        run: tree::get,
        ..PLAIN
    },
    Command {
        names: &["put"],
        flags: "t:",
        counts: 1..=MANY,
        takes: Takes::Local,
        usage: "put [-t DIR] LOCAL...",
        about: "send files and folders to this folder, under their own names; to DIR with -t, made where it is missing",
        run: tree::put,
        ..PLAIN
    },
    Command {
        names: &["mkdir"],
        flags: "p",
        counts: 1..=MANY,
        takes: Takes::RemoteFolders,
        usage: "mkdir [-p] DIR...",
        about: "make folders; -p with those above them, and content with what is there",
        run: tree::mkdir,
        ..PLAIN
    },
    Command {
        names: &["rm", "remove"],
        flags: "rRf",
        counts: 0..=MANY,
        takes: Takes::Remote,
        usage: "rm [-r] [-f] NAME...",
        about: "remove files; -r folders with all that is in them, which is asked for at a prompt; -f without a question, and content with what is missing",
        run: tree::rm,
        ..PLAIN
    },
    Command {
        names: &["rmdir"],
        counts: 1..=MANY,
        takes: Takes::RemoteFolders,
        usage: "rmdir DIR...",
        about: "remove folders with nothing in them",
        run: tree::rmdir,
        ..PLAIN
    },
    Command {
        names: &["mv", "rename"],
        counts: 2..=MANY,
        takes: Takes::Remote,
        usage: "mv FROM TO, mv NAME... DIR",
        about: "rename, or move into a folder; nothing that is there is replaced",
        run: tree::mv,
        ..PLAIN
    },
    Command {
        names: &["stat"],
        counts: 1..=MANY,
        takes: Takes::Remote,
        usage: "stat NAME...",
        about: "say all that is known of names",
        run: tree::stat,
        ..PLAIN
    },
    Command {
        names: &["sum"],
        flags: "m3",
        long_flags: &[("--md5", 'm'), ("--blake3", '3')],
        counts: 1..=MANY,
        takes: Takes::Remote,
        usage: "sum [--md5|--blake3] FILE...",
        about: "print the digests of files, made where they are: BLAKE3, or MD5",
        run: tree::sum,
    },
    Command { names: &["df", "quota"], usage: "df", about: "say how much room there is", run: tree::df, ..PLAIN },
    Command {
        names: &["lls"],
        flags: "la1h",
        counts: 0..=MANY,
        takes: Takes::Local,
        usage: "lls [-l] [-a] [-1] [-h] [NAME...]",
        about: "list folders of this machine",
        run: local::lls,
        ..PLAIN
    },
    Command {
        names: &["lcd"],
        counts: 0..=1,
        takes: Takes::Local,
        usage: "lcd [DIR]",
        about: "go to a folder of this machine; home without one",
        run: local::lcd,
        ..PLAIN
    },
    Command { names: &["lpwd"], usage: "lpwd", about: "say which folder of this machine this is", run: local::lpwd, ..PLAIN },
    Command { names: &["passwd"], usage: "passwd", about: "change the account's password", run: tree::passwd, ..PLAIN },
    Command {
        names: &["help", "?"],
        counts: 0..=1,
        takes: Takes::Commands,
        usage: "help [COMMAND]",
        about: "say what commands there are, or what one does",
        run: help,
        ..PLAIN
    },
    Command { names: &["quit", "exit", "bye"], usage: "quit", about: "leave", ..PLAIN },
];

/// The command of a name.
pub(super) fn find(name: &[u8]) -> Option<&'static Command> {
    TABLE.iter().find(|command| command.names.iter().any(|known| known.as_bytes() == name))
}

/// The names of all commands.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|command| command.names).copied()
}

/// Has a line what nobody else should see? `passwd` takes nothing, but who knows that.
pub(super) fn tells_secrets(commands: &[Vec<Word>]) -> bool {
    commands.iter().any(|words| words.len() > 1 && words[0].text() == b"passwd")
}

/// Does a command, and says what went wrong.
pub(super) fn run(shell: &mut Shell, words: &[Word]) -> Flow {
    let Some((name, words)) = words.split_first() else { return Flow::Done(0) };
    let Some(command) = find(&name.text()) else {
        let error = Usage("there is no such command; 'help' lists those there are".to_owned());
        terminal::print_error(&Escaped(&name.text()).to_string(), &error.into());
        return Flow::Done(super::WRONG_USAGE);
    };
    let name = command.names[0];
    if name == "quit" && words.is_empty() {
        return Flow::Leave;
    }
    let done = call_of(command, words).and_then(|call| (command.run)(shell, &call));
    Flow::Done(done.unwrap_or_else(|error| {
        terminal::print_error(name, &error);
        code_of(&error)
    }))
}

/// Tells flags from other words.
fn call_of(command: &Command, words: &[Word]) -> anyhow::Result<Call> {
    let wrong = |what: String| Usage(format!("{what}; usage: {}", command.usage));
    let mut call = Call { name: command.names[0], ..Call::default() };
    let mut words = words.iter().cloned();
    let mut are_flags = true;
    while let Some(word) = words.next() {
        let text = word.text();
        if !are_flags || !text.starts_with(b"-") || text == b"-" {
            call.words.push(word);
            continue;
        }
        if text == b"--" {
            are_flags = false;
            continue;
        }
        if let Some((_, letter)) = command.long_flags.iter().find(|(long, _)| long.as_bytes() == text) {
            call.flags.push(*letter);
            continue;
        }
        let unknown = || wrong(format!("there is no flag '{}'", Escaped(&text)));
        for (at, &byte) in text.iter().enumerate().skip(1) {
            let letter = char::from(byte);
            let known = command.flags.find(letter).filter(|_| letter != ':' && !text.starts_with(b"--")).ok_or_else(unknown)?;
            call.flags.push(letter);
            if command.flags[known + 1..].starts_with(':') {
                call.value = match &text[at + 1..] {
                    [] => Some(words.next().ok_or_else(|| wrong(format!("-{letter} needs a value")))?),
                    rest => Some(Word::literal(rest)),
                };
                break;
            }
        }
    }
    let count = call.words.len();
    ensure!(count >= *command.counts.start(), wrong("a name is missing".to_owned()));
    ensure!(count <= *command.counts.end(), wrong("there are too many words".to_owned()));
    Ok(call)
}

impl Shell {
    /// What names the user means, patterns included.
    pub(super) fn remote_names(&mut self, words: &[Word]) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        for word in words {
            if !word.is_pattern() {
                all.push(word.text());
                continue;
            }
            let (here, stop) = (self.here.clone(), Arc::clone(&self.stop));
            let session = RefCell::new(&mut self.session);
            let listed = |folder: &[u8]| -> anyhow::Result<Vec<(Vec<u8>, bool)>> {
                let path = paths::resolve(&here, folder)?;
                let listing = match session.borrow_mut().list(&stop, &path) {
                    Err(error) if is_denial(&error) => Listing::default(),
                    listing => listing?,
                };
                ensure!(listing.more == 0, "{} has more than {NAMES_SHOWN_MAX} names", paths::shown(&path));
                let is_folder = |entry: &Listed| matches!(entry.kind, ListedKind::Directory { .. });
                Ok(listing.entries.into_iter().map(|entry| (entry.name.to_vec(), is_folder(&entry))).collect())
            };
            let exists = |path: &[u8]| match session.borrow_mut().look(&stop, &paths::resolve(&here, path)?) {
                Err(error) if is_denial(&error) => Ok(false),
                looked => looked.map(|_| true),
            };
            let found = glob::expand(word.pattern(), &mut { listed }, &mut { exists })?;
            ensure!(!found.is_empty(), NoMatch(Escaped(&word.text()).to_string()));
            all.extend(found);
            ensure!(all.len() <= NAMES_SHOWN_MAX, "more than {NAMES_SHOWN_MAX} names match");
        }
        Ok(all)
    }

    /// Does something to each name, and goes on where one fails. Gives the exit code.
    pub(super) fn each(
        &mut self, call: &Call, names: &[Vec<u8>], mut act: impl FnMut(&mut Self, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u8> {
        let (mut done, mut first) = (0_usize, None);
        for name in names {
            match act(self, name) {
                Ok(()) => done += 1,
                Err(error) if error.is::<Interrupted>() || !self.session.is_connected() => return Err(error),
                Err(error) => {
                    terminal::print_error(call.name, &error);
                    first.get_or_insert_with(|| code_of(&error));
                }
            }
        }
        Ok(match first {
            None => Verdict::Complete.code(),
            Some(_) if done > 0 => Verdict::Partial.code(),
            Some(code) => code,
        })
    }

    pub(super) fn path(&self, name: &[u8]) -> anyhow::Result<RemotePath> {
        Ok(paths::resolve(&self.here, name)?)
    }

    /// What a name of the user's is.
    pub(super) fn look(&mut self, name: &[u8]) -> anyhow::Result<(RemotePath, Listed)> {
        let path = self.path(name)?;
        let listed = self.session.look(&Arc::clone(&self.stop), &path)?;
        Ok((path, listed))
    }

    pub(super) fn list(&mut self, path: &RemotePath) -> anyhow::Result<Listing> {
        self.session.list(&Arc::clone(&self.stop), path)
    }

    /// Is there surely nothing of that name?
    pub(super) fn is_missing(&mut self, path: &RemotePath) -> anyhow::Result<bool> {
        let mut path = path.clone();
        while let Some((above, name)) = path.split() {
            match self.list(&above) {
                Ok(listing) => {
                    return Ok(listing.more == 0 && listing.entries.iter().all(|entry| *entry.name != *name.as_bytes()));
                }
                Err(error) if is_denial(&error) => path = above,
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

pub(super) fn style_of(call: &Call) -> Style {
    Style { is_long: call.has('l'), all: call.has('a'), in_one_column: call.has('1'), with_units: call.has('h') }
}

pub(super) fn print(line: String) -> anyhow::Result<u8> {
    terminal::print_lines(&[line]).context("standard output")?;
    Ok(0)
}

fn help(_: &mut Shell, call: &Call) -> anyhow::Result<u8> {
    let Some(word) = call.words.first() else {
        let mut lines: Vec<String> =
            TABLE.iter().map(|command| format!("{:<34}{}", command.usage, first_part(command.about))).collect();
        lines.push(String::new());
        lines.push("Words are quoted as in a shell; *, ? and [a-z] stand for names that are there.".to_owned());
        lines.push("Ctrl-C ends a command, Ctrl-D the prompt; 'help COMMAND' says more.".to_owned());
        terminal::print_lines(&lines).context("standard output")?;
        return Ok(0);
    };
    let name = word.text();
    let command = find(&name).with_context(|| format!("there is no command '{}'", Escaped(&name)))?;
    let mut lines = vec![command.usage.to_owned(), format!("  {}", command.about)];
    if let [_, others @ ..] = command.names
        && !others.is_empty()
    {
        lines.push(format!("  also called {}", others.join(", ")));
    }
    terminal::print_lines(&lines).context("standard output")?;
    Ok(0)
}

fn first_part(about: &str) -> &str {
    about.split(';').next().unwrap_or(about)
}
