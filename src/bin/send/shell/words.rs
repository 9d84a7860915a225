//! Lines of commands → words, with quotes as a shell has them.

/// A word, as a pattern: in it `\` takes from the byte behind it what it means. What was quoted means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Word(Vec<u8>);

/// A line that goes on: a quote is open, or `\` stands at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a quote is not closed")]
pub(super) struct Unfinished;

/// What a line ends in that is being typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Partial {
    /// The words of its last command before the one that is being typed.
    pub(super) words: Vec<Word>,
    /// Where that one begins in the line, in bytes, its quote included.
    pub(super) start: usize,
    /// What it says so far.
    pub(super) text: Vec<u8>,
    /// The quote that is open in it.
    pub(super) quote: Option<u8>,
}

/// What means something in a pattern, or inside its brackets.
const SPECIAL: &[u8] = b"*?[]\\!^-";

impl Word {
    /// A word that means itself.
    pub(super) fn literal(text: &[u8]) -> Self {
        let mut word = Self::default();
        text.iter().for_each(|&byte| word.push_quoted(byte));
        word
    }

    fn push_quoted(&mut self, byte: u8) {
        if SPECIAL.contains(&byte) {
            self.0.push(b'\\');
        }
        self.0.push(byte);
    }

    /// The word as a pattern.
    pub(super) fn pattern(&self) -> &[u8] {
        &self.0
    }

    /// What it says.
    pub(super) fn text(&self) -> Vec<u8> {
        unescape(&self.0)
    }

    /// Does it stand for names that are to be found?
    pub(super) fn is_pattern(&self) -> bool {
        is_pattern(&self.0)
    }
}

/// Has a pattern anything in it that means more than itself?
pub(super) fn is_pattern(pattern: &[u8]) -> bool {
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// What a pattern says that means nothing more.
pub(super) fn unescape(pattern: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(pattern.len());
    let mut bytes = pattern.iter();
    while let Some(&byte) = bytes.next() {
        text.push(if byte == b'\\' { bytes.next().copied().unwrap_or(byte) } else { byte });
    }
    text
}

/// What was read of a line so far.
#[derive(Default)]
struct Reader {
    commands: Vec<Vec<Word>>,
    words: Vec<Word>,
    /// The word that is being read, and where it began.
    word: Option<(usize, Word)>,
    quote: Option<u8>,
    is_escaped: bool,
    is_comment: bool,
}

impl Reader {
    fn of(line: &[u8]) -> Self {
        let mut reader = Self::default();
        line.iter().enumerate().for_each(|(at, &byte)| reader.take(at, byte));
        reader
    }

    fn take(&mut self, at: usize, byte: u8) {
        if self.is_comment && byte != b'\n' {
            return;
        }
        self.is_comment = false;
        if self.is_escaped {
            self.is_escaped = false;
            // As in a shell: in double quotes `\` means itself before most, and a line goes on after it.
            match (self.quote, byte) {
                (_, b'\n') => {}
                (Some(_), byte) if !matches!(byte, b'"' | b'\\' | b'$' | b'`') => {
                    self.word(at).push_quoted(b'\\');
                    self.word(at).push_quoted(byte);
                }
                _ => self.word(at - 1).push_quoted(byte),
            }
            return;
        }
        match (self.quote, byte) {
            (Some(quote), byte) if byte == quote => self.quote = None,
            (Some(b'\'') | None, b'\\') if self.quote.is_some() => self.word(at).push_quoted(byte),
            (_, b'\\') => {
                self.is_escaped = true;
                self.word(at);
            }
            (Some(_), byte) => self.word(at).push_quoted(byte),
            (None, b'\'' | b'"') => {
                self.quote = Some(byte);
                self.word(at);
            }
            (None, b';' | b'\n') => self.end_command(),
            (None, b' ' | b'\t' | b'\r') => self.end_word(),
            (None, b'#') if self.word.is_none() => self.is_comment = true,
            (None, byte) => self.word(at).0.push(byte),
        }
    }

    fn word(&mut self, at: usize) -> &mut Word {
        &mut self.word.get_or_insert_with(|| (at, Word::default())).1
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take().map(|(_, word)| word));
    }

    fn end_command(&mut self) {
        self.end_word();
        if !self.words.is_empty() {
            self.commands.push(std::mem::take(&mut self.words));
        }
    }
}

/// The commands in a line, or in several, each of one word at least.
///
/// # Errors
/// [`Unfinished`].
pub(super) fn parse(line: &[u8]) -> Result<Vec<Vec<Word>>, Unfinished> {
    let mut reader = Reader::of(line);
    reader.end_command();
    if reader.quote.is_some() || reader.is_escaped { Err(Unfinished) } else { Ok(reader.commands) }
}

/// What is being typed at the end of a line; nothing in a comment.
pub(super) fn parse_partial(line: &[u8]) -> Option<Partial> {
    let reader = Reader::of(line);
    if reader.is_comment || reader.is_escaped {
        return None;
    }
    let (start, word) = reader.word.unwrap_or_else(|| (line.len(), Word::default()));
    Some(Partial { words: reader.words, start, text: word.text(), quote: reader.quote })
}

/// A name as it is typed where `quote` is open, or nothing; the quote is left open.
pub(super) fn quote(name: &str, quote: Option<u8>) -> String {
    let mut typed = String::with_capacity(name.len() + 2);
    match quote {
        Some(b'\'') => {
            typed.push('\'');
            typed.push_str(&name.replace('\'', "'\\''"));
        }
        Some(_) => {
            typed.push('"');
            for char in name.chars() {
                if matches!(char, '"' | '\\' | '$' | '`') {
                    typed.push('\\');
                }
                typed.push(char);
            }
        }
        None => {
            for (index, char) in name.chars().enumerate() {
                let is_special = matches!(char, ' ' | '\t' | '\'' | '"' | '\\' | ';' | '*' | '?' | '[' | ']');
                if is_special || index == 0 && char == '#' {
                    typed.push('\\');
                }
                typed.push(char);
            }
        }
    }
    typed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<Vec<String>> {
        let text = |word: &Word| String::from_utf8(word.text()).unwrap();
        parse(line.as_bytes()).unwrap().iter().map(|words| words.iter().map(text).collect()).collect()
    }

    #[test]
    fn lines_are_words_as_in_a_shell() {
        for (line, expected) in [
            ("", vec![]),
            (" \t ; ;\n", vec![]),
            ("ls", vec![vec!["ls"]]),
            ("ls -l  a\tb", vec![vec!["ls", "-l", "a", "b"]]),
            ("a;b ; c\nd", vec![vec!["a"], vec!["b"], vec!["c"], vec!["d"]]),
            ("a # b; c\nd", vec![vec!["a"], vec!["d"]]),
            ("a b#c", vec![vec!["a", "b#c"]]),
            ("a '#' \\#", vec![vec!["a", "#", "#"]]),
            ("'a b' \"c d\" e\\ f", vec![vec!["a b", "c d", "e f"]]),
            ("a'b c'd\"e f\"", vec![vec!["ab cde f"]]),
            ("'' \"\"", vec![vec!["", ""]]),
            ("'a\\b' \"a\\b\" \"a\\\"b\" a\\b", vec![vec!["a\\b", "a\\b", "a\"b", "ab"]]),
            ("'it'\\''s'", vec![vec!["it's"]]),
            ("a\\\nb", vec![vec!["ab"]]),
            ("'a\nb;c'", vec![vec!["a\nb;c"]]),
            ("ls\r\n", vec![vec!["ls"]]),
            ("ü 文", vec![vec!["ü", "文"]]),
        ] {
            assert_eq!(texts(line), expected, "{line:?}");
        }
        for line in ["'", "\"", "a 'b", "a\\", "\"a\\\"", "'a\nb"] {
            assert_eq!(parse(line.as_bytes()), Err(Unfinished), "{line:?}");
        }
    }

    #[test]
    fn what_is_quoted_is_no_pattern() {
        for (line, is_pattern) in [
            ("*", true),
            ("a?b", true),
            ("[a", true),
            ("\\*", false),
            ("'*?['", false),
            ("\"*\"", false),
            ("'a'*", true),
            ("a]", false),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap()[0][0].is_pattern(), is_pattern, "{line}");
        }
    }

    #[test]
    fn bytes_stay_what_they_are() {
        let words = parse(b"get \xff\\\xfe '\x01'").unwrap();
        assert_eq!(
            words[0].iter().map(Word::text).collect::<Vec<_>>(),
            [b"get".to_vec(), b"\xff\xfe".to_vec(), b"\x01".to_vec()]
        );
    }

    #[test]
    fn what_is_typed_can_be_completed() {
        for (line, words, start, text, quote) in [
            ("", 0, 0, "", None),
            ("ls", 0, 0, "ls", None),
            ("ls ", 1, 3, "", None),
            ("ls a b", 2, 5, "b", None),
            ("x; ls 'a b", 1, 6, "a b", Some(b'\'')),
            ("ls \"a", 1, 3, "a", Some(b'"')),
            ("ls a\\ b", 1, 3, "a b", None),
        ] {
            let partial = parse_partial(line.as_bytes()).unwrap();
            let seen = (partial.words.len(), partial.start, partial.text, partial.quote);
            assert_eq!(seen, (words, start, text.as_bytes().to_vec(), quote), "{line}");
        }
        assert_eq!(parse_partial(b"ls # a"), None);
        assert_eq!(parse_partial(b"ls a\\"), None);
    }

    #[test]
    fn a_name_that_was_quoted_is_that_name_again() {
        for name in ["a", "a b", "it's", "say \"x\"", "a\\b", "#x", "a;b", "*?[x]", "$a`b", "ü 文", " ", "-a!b^"] {
            for open in [None, Some(b'\''), Some(b'"')] {
                let typed = quote(name, open);
                let closed = format!("{typed}{}", open.map_or(String::new(), |quote| char::from(quote).to_string()));
                let words = parse(closed.as_bytes()).unwrap();
                assert!(matches!(&words[..], [words] if words.len() == 1), "{typed}");
                assert_eq!((words[0][0].text(), words[0][0].is_pattern()), (name.as_bytes().to_vec(), false), "{typed}");
            }
        }
    }
}
