//! What the user wants left out: rules as in a `.gitignore`, held against names below the source.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::limits::{RULES_FILE_LEN_MAX, RULES_MAX};
use crate::path::Escaped;

/// One rule, or a file of them. Of the rules that match a name the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Leave out what the pattern matches; a folder with all that is in it.
    Exclude(String),
    /// Send what the pattern matches, after all.
    Include(String),
    /// The rules of a file, one a line, as git reads them.
    From(PathBuf),
}

impl Rule {
    /// Can its pattern be understood, and match anything?
    ///
    /// # Errors
    /// Why not, for a person who knows the pattern.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Exclude(pattern) | Self::Include(pattern) => {
                let inner = pattern.trim_matches('/');
                if inner.is_empty() {
                    return Err("it matches nothing".to_owned());
                }
                if inner.split('/').any(|name| matches!(name, "" | "." | "..")) {
                    return Err("it matches nothing: names are those below the source, without '.', '..' and '//'".to_owned());
                }
                add(&mut builder(), &self.line()).map(drop)
            }
            Self::From(_) => Ok(()),
        }
    }

    /// The rule as a line of a `.gitignore`, where some characters mean what they don't in a flag.
    fn line(&self) -> String {
        let (sign, pattern) = match self {
            Self::Exclude(pattern) if pattern.starts_with(['!', '#']) => ("\\", pattern),
            Self::Exclude(pattern) => ("", pattern),
            Self::Include(pattern) => ("!", pattern),
            Self::From(_) => return String::new(),
        };
        match pattern.char_indices().next_back() {
            // Space at the end of a line is dropped.
            Some((at, last)) if last.is_whitespace() && !pattern[..at].ends_with('\\') => {
                format!("{sign}{}[{last}]", &pattern[..at])
            }
            _ => format!("{sign}{pattern}"),
        }
    }
}

/// Which names are left out.
#[derive(Debug, Clone)]
pub struct Filter {
    rules: Arc<Gitignore>,
    /// What no rule matches is left out as well, unless it is in a folder that one includes.
    wants_match: bool,
}

impl Default for Filter {
    /// Leaves nothing out.
    fn default() -> Self {
        Self { rules: Arc::new(Gitignore::empty()), wants_match: false }
    }
}

impl Filter {
    /// The filter that `rules` make. If the first one is an [`Rule::Include`], files that no rule
    /// matches are left out: who names what to send means that nothing else is to be sent.
    ///
    /// # Errors
    /// A pattern is malformed, there are too many, or a file of them can't be read.
    pub fn of(rules: &[Rule]) -> anyhow::Result<Self> {
        let mut builder = builder();
        let mut count = 0;
        for rule in rules {
            match rule {
                Rule::From(file) => count += add_file(&mut builder, file)?,
                Rule::Exclude(pattern) | Rule::Include(pattern) => {
                    let named = || format!("'{}' is no pattern", Escaped(pattern.as_bytes()));
                    rule.check()
                        .and_then(|()| add(&mut builder, &rule.line()))
                        .map_err(anyhow::Error::msg)
                        .with_context(named)?;
                    count += 1;
                }
            }
            ensure!(count <= RULES_MAX, "there are more than {RULES_MAX} rules of what to leave out");
        }
        let rules_built = builder.build().context("the rules of what to leave out are too large")?;
        Ok(Self { rules: Arc::new(rules_built), wants_match: matches!(rules.first(), Some(Rule::Include(_))) })
    }

    /// Is a name left out? It is the path below the source, and the folders above were not.
    #[must_use]
    pub fn leaves_out(&self, path: &Path, is_folder: bool) -> bool {
        if self.wants_match {
            match self.rules.matched_path_or_any_parents(path, is_folder) {
                Match::None => !is_folder,
                matched => matched.is_ignore(),
            }
        } else {
            self.rules.matched(path, is_folder).is_ignore()
        }
    }
}

fn builder() -> GitignoreBuilder {
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    builder
}

fn add(builder: &mut GitignoreBuilder, line: &str) -> Result<(), String> {
    match builder.add_line(None, line) {
        Ok(_) => Ok(()),
        Err(ignore::Error::Glob { err, .. }) => Err(err),
        Err(error) => Err(error.to_string()),
    }
}

/// Adds the rules of a file; gives the number of its lines.
#[allow(clippy::disallowed_methods, reason = "it is no source file, and what is read has a bound")]
fn add_file(builder: &mut GitignoreBuilder, file: &Path) -> anyhow::Result<usize> {
    let shown = Escaped::path(file);
    let mut bytes = Vec::new();
    let cant_read = || format!("can't read the rules in '{shown}'");
    File::open(file).with_context(cant_read)?.take(RULES_FILE_LEN_MAX + 1).read_to_end(&mut bytes).with_context(cant_read)?;
    ensure!(bytes.len() as u64 <= RULES_FILE_LEN_MAX, "'{shown}' has more than {} KiB of rules", RULES_FILE_LEN_MAX / 1024);
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
            bail!("line {line} of '{shown}' is not UTF-8; write '?' for a byte that is not")
        }
    };
    let mut count = 0;
    for line in text.lines() {
        count += 1;
        ensure!(count <= RULES_MAX, "'{shown}' has more than {RULES_MAX} lines");
        if let Err(why) = add(builder, line) {
            bail!("line {count} of '{shown}', '{}', is no pattern: {why}", Escaped(line.as_bytes()));
        }
    }
    Ok(count)
}
