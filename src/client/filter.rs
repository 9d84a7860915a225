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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::Write as _;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    /// `-x` excludes x, `+x` includes it.
    fn filter(rules: &[&str]) -> Filter {
        let rule = |text: &&str| match text.split_at(1) {
            ("-", glob) => Rule::Exclude(glob.to_owned()),
            (_, glob) => Rule::Include(glob.to_owned()),
        };
        Filter::of(&rules.iter().map(rule).collect::<Vec<_>>()).unwrap()
    }

    /// A walk's decision: no folder above is left out, nor is the name; a slash at the end means a folder.
    fn is_sent(filter: &Filter, name: &str) -> bool {
        let above = name.match_indices('/').map(|(at, _)| &name[..at]).filter(|above| above.len() + 1 < name.len());
        let path = Path::new(name.trim_end_matches('/'));
        above.into_iter().all(|above| !filter.leaves_out(Path::new(above), true)) && !filter.leaves_out(path, name.ends_with('/'))
    }

    #[test]
    fn rules_are_those_of_a_gitignore() {
        let table: &[(&[&str], &str, &str)] = &[
            (&[], "a b/c d/", ""),
            // Without a slash at any depth, with one from the top, with one at the end folders only.
            (&["-*.tmp"], "a tmp a.tmpx", "x.tmp d/x.tmp d/e.tmp/f .tmp"),
            (&["-/a"], "d/a d/", "a a/b"),
            (&["-d/a"], "a x/d/a", "d/a d/a/b"),
            (&["-cache/"], "cache d/cache", "cache/ d/cache/ d/cache/x"),
            (&["-/d/"], "d x/d/", "d/ d/x"),
            (&["-a/**/b"], "b a/ a/c", "a/b a/x/b a/x/y/b"),
            (&["-d/*"], "d/ e/x", "d/x d/y/z"),
            (&["-d/**"], "d/ e/x", "d/x d/y/z"),
            (&["-?"], "ab dd/ab", "a dd/b d/ab"),
            (&["-[a-c]x"], "dx", "ax cx"),
            (&["-[!a-c]x"], "ax", "dx"),
            (&["-\\*"], "ab", "*"),
            // The last rule that matches wins; but what is in a folder that is left out is not looked at.
            (&["-*.o", "+keep.o"], "keep.o d/keep.o x", "a.o"),
            (&["+keep.o", "-*.o"], "", "keep.o a.o x"),
            (&["-d/", "+d/x"], "x", "d/ d/x"),
            (&["-d/*", "+d/x"], "d/x", "d/y"),
            (&["-*", "+*/", "+*.jpg"], "a.jpg d/ d/a.jpg d/e/f/b.jpg", "a.png d/a.png jpg d/e/jpg"),
            (&["-*", "+/d/", "+/d/**"], "d/ d/x d/y/z", "x e/ e/x"),
            // An include first means nothing else; a folder that is included, with all that is in it.
            (&["+*.jpg"], "a.jpg d/ d/a.jpg", "a.png d/a.png"),
            (&["+*.jpg", "-d/"], "a.jpg e/a.jpg", "d/ d/a.jpg a.png e/b"),
            (&["+d/"], "d/x d/y/z e/ e/d/x", "d e/x x"),
            (&["+d/", "-*.tmp"], "d/x", "d/x.tmp x"),
            (&["+/d/e/"], "d/ d/e/x", "d/x x"),
            // What means something else in a file.
            (&["-#*#"], "#a", "#a# d/##"),
            (&["-!x"], "x", "!x"),
            (&["+!x"], "!x", "x"),
            (&["-x "], "x", "x_"),
            (&["-\u{e9}?"], "\u{e9}", "\u{e9}x"),
            (&["-{a,b}.c"], "c.c", "a.c b.c"),
            (&["-A"], "a", "A"),
        ];
        for (rules, sent, left_out) in table {
            let filter = filter(rules);
            for (names, expected) in [(sent, true), (left_out, false)] {
                for name in names.split_ascii_whitespace().map(|name| name.replace('_', " ")) {
                    assert_eq!(is_sent(&filter, &name), expected, "{name} by {rules:?}");
                }
            }
        }
    }

    #[test]
    fn names_that_are_not_utf_8_match_too() {
        let name = |bytes| Path::new(OsStr::from_bytes(bytes));
        let filter = filter(&["-*.tmp", "-x?y"]);
        assert!(filter.leaves_out(name(b"\xff.tmp"), false) && filter.leaves_out(name(b"\xe9/x\xffy"), false));
        assert!(!filter.leaves_out(name(b"\xff"), false));
    }

    #[test]
    fn a_pattern_that_means_nothing_is_refused() {
        for glob in ["", "/", "//", "./x", "../x", "a//b", "a/./b", "[", "x[a", "{a", "[b-a]", "x\\"] {
            for rule in [Rule::Exclude(glob.to_owned()), Rule::Include(glob.to_owned())] {
                assert!(rule.check().is_err(), "{glob}");
                assert!(format!("{:#}", Filter::of(&[rule]).unwrap_err()).contains(&format!("'{}'", Escaped(glob.as_bytes()))));
            }
        }
        let many = vec![Rule::Exclude("x".to_owned()); RULES_MAX + 1];
        assert!(Filter::of(&many[1..]).is_ok());
        assert!(Filter::of(&many).unwrap_err().to_string().contains("more than 4096"));
    }

    fn file_of(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn a_file_of_rules_is_read_as_git_reads_it() {
        let file = file_of("\u{feff}*.o\r\n# a comment\n\n!keep.o\n\\#x\ntrailing   \n/top".as_bytes());
        let filter = Filter::of(&[Rule::From(file.path().to_owned())]).unwrap();
        for (name, sent) in
            [("a.o", false), ("keep.o", true), ("#x", false), ("trailing", false), ("top", false), ("d/top", true)]
        {
            assert_eq!(is_sent(&filter, name), sent, "{name}");
        }
        // Its place among the others counts, and `!` at its start means no more than in git.
        let file = file_of(b"!keep.o");
        let from = || Rule::From(file.path().to_owned());
        let all = || Rule::Exclude("*.o".to_owned());
        assert!(is_sent(&Filter::of(&[all(), from()]).unwrap(), "keep.o"));
        assert!(!is_sent(&Filter::of(&[from(), all()]).unwrap(), "keep.o"));
        assert!(is_sent(&Filter::of(&[from()]).unwrap(), "other"));
    }

    #[test]
    fn a_file_of_rules_that_is_wrong_is_named_with_the_line() {
        let wrong = |content: &[u8]| {
            let file = file_of(content);
            let error = format!("{:#}", Filter::of(&[Rule::From(file.path().to_owned())]).unwrap_err());
            assert!(error.contains(file.path().to_str().unwrap()), "{error}");
            error
        };
        assert!(wrong(b"a\nb\n{x\n").starts_with("line 3 of "));
        assert!(wrong(b"a\n\xff\n").starts_with("line 2 of "));
        assert!(wrong(&b"a\n".repeat(RULES_MAX + 1)).contains("more than 4096 lines"));
        assert!(wrong(&vec![b'#'; usize::try_from(RULES_FILE_LEN_MAX).unwrap() + 1]).contains("more than 1024 KiB"));
        let error = Filter::of(&[Rule::From(PathBuf::from("/no/such/file"))]).unwrap_err();
        assert!(format!("{error:#}").contains("'/no/such/file': No such file"));
    }
}
