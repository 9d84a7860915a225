//! Patterns of names: `*`, `?`, `[a-z]`, `[!a-z]`; and the names that they stand for.

use anyhow::ensure;
use parallel_transfer::limits::NAMES_SHOWN_MAX;

use super::words::{is_pattern, unescape};

/// Lists a folder, which is called as the user calls it: names, and whether each is a folder. What can't be
/// listed has no names.
pub(super) type Names<'a> = &'a mut dyn FnMut(&[u8]) -> anyhow::Result<Vec<(Vec<u8>, bool)>>;

/// Does a name match a pattern? Both are one name of a path. A dot at its start is matched by a dot alone.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.starts_with(b".") && !(pattern.starts_with(b".") || pattern.starts_with(b"\\.")) {
        return false;
    }
    let (mut pattern_at, mut name_at) = (0, 0);
    // Where the last star stood, and how much of the name it took: it takes one more where the rest fails.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let next = match pattern.get(pattern_at) {
            Some(b'*') => {
                star = Some((pattern_at + 1, name_at));
                pattern_at += 1;
                continue;
            }
            None if name_at == name.len() => return true,
            None => None,
            Some(_) => match_one(&pattern[pattern_at..], &name[name_at..]),
        };
        match (next, star) {
            (Some((taken, len)), _) => {
                pattern_at += taken;
                name_at += len;
            }
            (None, Some((behind, from))) if from < name.len() => {
                star = Some((behind, from + 1));
                pattern_at = behind;
                name_at = from + 1;
            }
            (None, _) => return false,
        }
    }
}

/// Matches what stands first in a pattern, no star, with what stands first in a name: how many bytes of each
/// that took.
fn match_one(pattern: &[u8], name: &[u8]) -> Option<(usize, usize)> {
    let (char, len) = first_char(name)?;
    match pattern {
        [b'?', ..] => Some((1, len)),
        [b'[', rest @ ..] => match match_class(rest, char) {
            Some((true, taken)) => Some((1 + taken, len)),
            Some((false, _)) => None,
            // What is never closed means itself.
            None => (name[0] == b'[').then_some((1, 1)),
        },
        [b'\\', byte, ..] => (*byte == name[0]).then_some((2, 1)),
        [byte, ..] => (*byte == name[0]).then_some((1, 1)),
        [] => None,
    }
}

/// Is a character one of those in brackets? With how many bytes they take, the closing one included.
fn match_class(class: &[u8], char: u32) -> Option<(bool, usize)> {
    let mut at = 0;
    let is_negated = matches!(class.first(), Some(b'!' | b'^'));
    at += usize::from(is_negated);
    let (mut is_in, first) = (false, at);
    loop {
        if *class.get(at)? == b']' && at > first {
            return Some((is_in != is_negated, at + 1));
        }
        let (low, len) = class_char(&class[at..])?;
        at += len;
        let mut high = low;
        if class.get(at) == Some(&b'-') && class.get(at + 1).is_some_and(|&byte| byte != b']') {
            let (end, len) = class_char(&class[at + 1..])?;
            high = end;
            at += 1 + len;
        }
        is_in |= (low..=high).contains(&char);
    }
}

fn class_char(class: &[u8]) -> Option<(u32, usize)> {
    match class {
        [b'\\', rest @ ..] => first_char(rest).map(|(char, len)| (char, len + 1)),
        _ => first_char(class),
    }
}

/// The first character, and its bytes. A byte that belongs to none stands for itself, beyond all characters.
fn first_char(bytes: &[u8]) -> Option<(u32, usize)> {
    let start = &bytes[..bytes.len().min(4)];
    let chunk = start.utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(char) => Some((u32::from(char), char.len_utf8())),
        None => Some((0x11_0000 + u32::from(bytes[0]), 1)),
    }
}

/// What a pattern with `/` in it stands for, sorted: paths that begin as the pattern does. None where
/// nothing matches. `exists` is asked of names without a pattern in them below others with one.
///
/// # Errors
/// Those of `names` and `exists`; more than [`NAMES_SHOWN_MAX`] match.
pub(super) fn expand(
    pattern: &[u8], names: Names<'_>, exists: &mut dyn FnMut(&[u8]) -> anyhow::Result<bool>,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let pieces: Vec<&[u8]> = pattern.split(|&byte| byte == b'/').collect();
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    let mut is_sought = false;
    for (index, piece) in pieces.iter().enumerate() {
        let is_last = index + 1 == pieces.len();
        let slash: &[u8] = if index == 0 { b"" } else { b"/" };
        let mut next = Vec::new();
        for path in found {
            let start = [&path, slash].concat();
            if !is_pattern(piece) {
                let path = [start, unescape(piece)].concat();
                if !is_sought || piece.is_empty() || exists(&path)? {
                    next.push(path);
                }
                continue;
            }
            let folder: &[u8] = if start.is_empty() { b"." } else { &start };
            let mut here = names(folder)?;
            here.retain(|(name, is_folder)| (is_last || *is_folder) && matches(piece, name));
            here.sort();
            next.extend(here.into_iter().map(|(name, _)| [&start, &name[..]].concat()));
            ensure!(next.len() <= NAMES_SHOWN_MAX, "more than {NAMES_SHOWN_MAX} names match");
        }
        is_sought |= is_pattern(piece);
        found = next;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, matching, others) in [
            ("*", vec!["a", "a b", "ü", "[", "-"], vec![".a"]),
            (".*", vec![".a", "."], vec!["a"]),
            ("\\.*", vec![".a"], vec!["a"]),
            ("*.jpg", vec!["a.jpg", "a.b.jpg"], vec![".jpg", "a.jpg.x", "a.JPG", ""]),
            ("a*b*c", vec!["abc", "aXbXc", "abbcc", "abcbc"], vec!["ab", "acb", "abcd"]),
            ("?", vec!["a", "ü", "文"], vec!["", "ab", "."]),
            ("a?c", vec!["abc", "aüc"], vec!["ac", "abbc"]),
            ("[a-c]x", vec!["ax", "bx", "cx"], vec!["dx", "x", "[a-c]x"]),
            ("[!a-c]", vec!["d", "文"], vec!["a", "c"]),
            ("[^a]", vec!["b"], vec!["a"]),
            ("[]a]", vec!["]", "a"], vec!["b"]),
            ("[a-]", vec!["a", "-"], vec!["b"]),
            ("[a\\-c]", vec!["a", "-", "c"], vec!["b"]),
            ("[ä-ü]", vec!["ö"], vec!["a", "z"]),
            ("[a", vec!["[a"], vec!["a"]),
            ("\\*", vec!["*"], vec!["a", "\\*"]),
            ("a\\[b", vec!["a[b"], vec!["ab"]),
            ("", vec![""], vec!["a"]),
        ] {
            for name in matching {
                assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
            }
            for name in others {
                assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
            }
        }
        assert!(matches(b"a?b", b"a\xffb") && matches(b"*\xff", b"a\xff") && !matches(b"[a-z]", b"\xff"));
        // What would take for ever if each star tried all that those behind it did.
        assert!(!matches(&b"*a".repeat(100), &[b'a'; 255][..99]));
        assert!(!matches(&[&b"*a".repeat(100)[..], b"b"].concat(), &[b'a'; 255]));
    }

    #[test]
    fn patterns_in_paths_stand_for_what_is_there() {
        let tree: BTreeMap<&str, Vec<(&str, bool)>> = BTreeMap::from([
            (".", vec![("b", true), ("a", true), ("f.txt", false), (".h", true)]),
            ("a/", vec![("x.txt", false), ("y", true)]),
            ("b/", vec![("x.txt", false)]),
            ("/", vec![("top", true)]),
        ]);
        let expand = |pattern: &str| {
            let mut names = |folder: &[u8]| {
                let listed = tree.get(str::from_utf8(folder).unwrap()).cloned().unwrap_or_default();
                Ok(listed.into_iter().map(|(name, is_folder)| (name.as_bytes().to_vec(), is_folder)).collect())
            };
            let mut exists = |path: &[u8]| Ok(path == b"a/y" || path == b"b/x.txt");
            let found = expand(pattern.as_bytes(), &mut names, &mut exists).unwrap();
            found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(expand("*"), ["a", "b", "f.txt"]);
        assert_eq!(expand("*/*.txt"), ["a/x.txt", "b/x.txt"]);
        assert_eq!(expand("*/y"), ["a/y"]);
        assert_eq!(expand("*/"), ["a/", "b/"]);
        assert_eq!(expand("a/*"), ["a/x.txt", "a/y"]);
        assert_eq!(expand("/*"), ["/top"]);
        assert_eq!(expand(".*"), [".h"]);
        assert!(expand("*.jpg").is_empty() && expand("none/*").is_empty() && expand("f.txt/*").is_empty());
        assert_eq!(expand("plain\\*"), ["plain*"]);
    }
}
