//! `--config FILE`: what it says becomes flags, and whatever reads flags reads it. So a new flag is a new key.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::builder::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory as _};
use parallel_transfer::limits::CONFIG_FILE_LEN_MAX;
use parallel_transfer::path::Escaped;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::args::Args;

/// Why flags were not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The command line makes no sense, or asks for help.
    CommandLine(clap::Error),
    /// The file does not.
    File(String),
}

/// What one key of a file stands for.
struct Key {
    /// The flag's name, for the parser.
    id: clap::Id,
    /// Where its name stands.
    at: Range<usize>,
    /// Several where the value is a list.
    flags: Vec<Flag>,
}

/// A flag as it would be written, with its value, and where that stands.
type Flag = (OsString, Range<usize>);

/// All flags: of the command line, and of the file that it names for whatever it does not say itself.
///
/// # Errors
/// [`Refused`].
pub(crate) fn parse(arguments: &[OsString]) -> Result<ArgMatches, Refused> {
    let mut command = Args::command();
    let given = command.clone().try_get_matches_from(arguments).map_err(Refused::CommandLine)?;
    let Some(path) = given.get_one::<PathBuf>("config") else { return Ok(given) };
    command.build();
    let flags = read(path).and_then(|text| flags_of(&text, &command, &given));
    let merged = flags.and_then(|flags| {
        let (program, rest) = arguments.split_at(arguments.len().min(1));
        let all = program.iter().chain(&flags).chain(rest);
        // The command line alone was right, and each key was.
        command.try_get_matches_from(all).map_err(|error| first_paragraph(&error))
    });
    merged.map_err(|why| Refused::File(format!("config file '{}': {why}", Escaped::path(path))))
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = Vec::new();
    #[allow(clippy::disallowed_methods, reason = "this user's own file, read so far and no further")]
    let read = File::open(path).and_then(|file| file.take(CONFIG_FILE_LEN_MAX + 1).read_to_end(&mut text));
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > CONFIG_FILE_LEN_MAX {
        return Err(format!("it has more than {CONFIG_FILE_LEN_MAX} bytes"));
    }
    String::from_utf8(text)
        .map_err(|error| format!("line {}: not UTF-8", line_of(error.as_bytes(), error.utf8_error().valid_up_to())))
}

/// What the keys of a file stand for, but those that the command line has a word on.
fn flags_of(text: &str, command: &Command, given: &ArgMatches) -> Result<Vec<OsString>, String> {
    let at = |range: &Range<usize>, why: &str| format!("line {}: {why}", line_of(text.as_bytes(), range.start));
    let table = DeTable::parse(text).map_err(|error| at(&error.span().unwrap_or_default(), error.message()))?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let mut keys: Vec<Key> = Vec::new();
    for (name, value) in entries {
        let arg = find(command, name.get_ref()).ok_or_else(|| at(&name.span(), &unknown(command, name.get_ref())))?;
        if let Some(before) = keys.iter().find(|key| key.id == *arg.get_id()) {
            let line = line_of(text.as_bytes(), before.at.start);
            return Err(at(&name.span(), &format!("'{}' is on line {line}, too", name.get_ref())));
        }
        let flags = spell(arg, value).map_err(|(range, why)| at(&range, &format!("'{}': {why}", name.get_ref())))?;
        for (flag, range) in &flags {
            check(command, flag).map_err(|why| at(range, &why))?;
        }
        keys.push(Key { id: arg.get_id().clone(), at: name.span(), flags });
    }
    let said: Vec<&Arg> = command.get_arguments().filter(|arg| is_given(given, arg)).collect();
    let counts = |key: &Key| {
        let Some(arg) = command.get_arguments().find(|arg| *arg.get_id() == key.id) else { return false };
        !said.iter().any(|said| {
            let excludes = |one: &Arg, other: &Arg| command.get_arg_conflicts_with(one).contains(&other);
            *said == arg || excludes(said, arg) || excludes(arg, said)
        })
    };
    Ok(keys.into_iter().filter(counts).flat_map(|key| key.flags).map(|(flag, _)| flag).collect())
}

fn is_given(given: &ArgMatches, arg: &Arg) -> bool {
    let id = arg.get_id().as_str();
    // Help and version are in no match.
    given.try_contains_id(id).is_ok() && given.value_source(id) == Some(ValueSource::CommandLine)
}

/// The flag that a key names, with `_` or `-`.
fn find<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let is_own = |arg: &&Arg| !matches!(arg.get_action(), ArgAction::Help | ArgAction::Version) && arg.get_id() != "config";
    let is_named = |arg: &&Arg| arg.get_long().is_some_and(|long| long.replace('-', "_") == key.replace('-', "_"));
    command.get_arguments().filter(is_own).find(is_named)
}

fn unknown(command: &Command, key: &str) -> String {
    let like = command.clone().try_get_matches_from(["recv", &format!("--{key}")]).err();
    let near = match like.as_ref().and_then(|error| error.get(ContextKind::SuggestedArg)) {
        Some(ContextValue::String(flag)) => Some(flag.trim_start_matches('-')),
        _ => None,
    };
    let near = near.filter(|near| find(command, near).is_some());
    let hint = near.map_or_else(String::new, |near| format!("; '{near}' is the nearest"));
    format!("there is no '{key}'{hint} (keys are the names of flags)")
}

/// A key as flags.
fn spell(arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<Flag>, (Range<usize>, String)> {
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    let wants = |what: &str| Err((value.span(), format!("{what} is wanted here")));
    let one = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::String(text) => Ok((format!("{flag}={text}").into(), value.span())),
        DeValue::Integer(number) => Ok((format!("{flag}={number}").into(), value.span())),
        _ => Err((value.span(), "a string or a whole number is wanted here".to_owned())),
    };
    match (arg.get_action(), value.get_ref()) {
        (ArgAction::SetTrue | ArgAction::Count, DeValue::Boolean(is_set)) => {
            Ok(is_set.then(|| (flag.into(), value.span())).into_iter().collect())
        }
        (ArgAction::Count, DeValue::Integer(number)) => match number.to_string().parse::<u8>() {
            Ok(count) => Ok(vec![(flag.into(), value.span()); usize::from(count)]),
            Err(_) => wants("a number from 0 to 255"),
        },
        (ArgAction::SetTrue | ArgAction::Count, _) => wants("true or false"),
        (ArgAction::Append, DeValue::Array(values)) => values.iter().map(one).collect(),
        _ => Ok(vec![one(value)?]),
    }
}

/// Is this right as far as it can be told of one flag alone?
fn check(command: &Command, flag: &OsString) -> Result<(), String> {
    match command.clone().try_get_matches_from(["recv".as_ref(), flag.as_os_str()]) {
        Err(error) if !matches!(error.kind(), ErrorKind::MissingRequiredArgument) => Err(first_paragraph(&error)),
        _ => Ok(()),
    }
}

/// What the parser has to say, without its advice.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

/// The line, counted from 1, in which a byte is.
fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|&&byte| byte == b'\n').count()
}
