//! The flags of `send` that say what of the source is sent.

use std::path::PathBuf;

use anyhow::ensure;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use parallel_transfer::client::{Filter, Look, Rule};

/// What the rules mean; stands below the flags.
pub(crate) const RULES: &str = "\
Rules of --exclude, --include and --exclude_from are those of a .gitignore, for names below --file:
  *.tmp    at any depth               /a/b     only at the top
  cache/   only folders               a/**/b   at any depth below the top's a
The last rule that matches wins: --include makes exceptions from rules before it. What is in an
excluded folder is not looked at. If the first rule is an --include, files that no rule matches are
left out; folders are made all the same. What --file itself names is always sent.
  --include '*.jpg'
          only these
  --exclude '*' --include '*/' --include '*.jpg'
          the same
  --include photos/ --exclude '*.tmp'
          what is in folders called photos, without its *.tmp
  --exclude '*.o' --include keep.o
          all without *.o, but with keep.o";

const HEADING: &str = "What is transferred";

/// The flags as they are given.
#[derive(Debug, Args)]
struct Flags {
    /// Leave out what matches; may be given many times, see below
    #[arg(long, help_heading = HEADING, value_name = "GLOB", value_parser = parse_exclude)]
    exclude: Vec<Rule>,

    /// Transfer what matches all the same; may be given many times, see below
    #[arg(long, help_heading = HEADING, value_name = "GLOB", value_parser = parse_include)]
    include: Vec<Rule>,

    /// Read rules from a file, one a line
    #[arg(long = "exclude_from", alias = "exclude-from", help_heading = HEADING, value_name = "FILE")]
    exclude_from: Vec<PathBuf>,

    /// Keep users and groups, by number
    #[arg(long, help_heading = HEADING)]
    owner: bool,

    /// Keep extended attributes: user.*, and trusted.* for root; never ACLs, labels, capabilities
    #[arg(long, help_heading = HEADING)]
    xattrs: bool,
}

/// What of the source is sent.
#[derive(Debug)]
pub(crate) struct Select {
    /// The rules, in the order that they were given in.
    rules: Vec<Rule>,
    owner: bool,
    xattrs: bool,
}

impl Select {
    /// What the walk is to look at, with a protocol that keeps metadata or with one that can't.
    ///
    /// # Errors
    /// A file of rules can't be read, or what is to be kept can't be.
    pub(crate) fn look(&self, keeps_metadata: bool) -> anyhow::Result<Look> {
        ensure!(keeps_metadata || !self.owner, "--owner: protocol v1 can't keep users and groups");
        ensure!(keeps_metadata || !self.xattrs, "--xattrs: protocol v1 can't keep extended attributes");
        Ok(Look { keeps_metadata, owner: self.owner, xattrs: self.xattrs, filter: Filter::of(&self.rules)? })
    }
}

impl FromArgMatches for Select {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let flags = Flags::from_arg_matches(matches)?;
        let mut rules: Vec<(usize, Rule)> = Vec::new();
        let from = flags.exclude_from.into_iter().map(Rule::From).collect();
        for (id, values) in [("exclude", flags.exclude), ("include", flags.include), ("exclude_from", from)] {
            rules.extend(matches.indices_of(id).into_iter().flatten().zip(values));
        }
        rules.sort_by_key(|(index, _)| *index);
        let rules: Vec<Rule> = rules.into_iter().map(|(_, rule)| rule).collect();
        check_order(&rules)?;
        Ok(Self { rules, owner: flags.owner, xattrs: flags.xattrs })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Select {
    fn augment_args(command: Command) -> Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args_for_update(command)
    }
}

/// Users of rsync, where the first rule wins, end with `--exclude '*'`, which here leaves nothing.
fn check_order(rules: &[Rule]) -> Result<(), Error> {
    let includes = rules.iter().position(|rule| matches!(rule, Rule::Include(_)));
    let is_all = |rule: &Rule| matches!(rule, Rule::Exclude(glob) if matches!(&**glob, "*" | "/*" | "**" | "/**" | "**/*"));
    let excludes_all = rules.iter().rposition(is_all);
    match (includes, excludes_all) {
        (Some(first), Some(last)) if first < last => Err(Error::raw(
            ErrorKind::ValueValidation,
            "'--exclude' of everything overrules the '--include' before it: the last rule that matches wins, so write it first",
        )),
        _ => Ok(()),
    }
}

fn parse_exclude(glob: &str) -> Result<Rule, String> {
    let rule = Rule::Exclude(glob.to_owned());
    rule.check().map(|()| rule)
}

fn parse_include(glob: &str) -> Result<Rule, String> {
    let rule = Rule::Include(glob.to_owned());
    rule.check().map(|()| rule)
}
