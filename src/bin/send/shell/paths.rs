//! Paths below the root as a user types them, from the folder that the prompt is in.

use parallel_transfer::path::{Escaped, PathError, RemotePath};

/// The path that a user calls `typed` in the folder `here`. `/` is the root, and `..` stays there.
///
/// # Errors
/// It is empty, or no path.
pub(super) fn resolve(here: &RemotePath, typed: &[u8]) -> Result<RemotePath, PathError> {
    if typed.is_empty() {
        return Err(PathError::Empty);
    }
    let mut names: Vec<&[u8]> = Vec::new();
    if !typed.starts_with(b"/") && !here.is_root() {
        names.extend(here.as_bytes().split(|&byte| byte == b'/'));
    }
    for name in typed.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    if names.is_empty() { Ok(RemotePath::root()) } else { RemotePath::parse(&names.join(&b'/')) }
}

/// A path as it is shown: with the root's slash.
pub(super) fn shown(path: &RemotePath) -> String {
    format!("/{}", Escaped(path.as_bytes()))
}

/// Is `path` the folder `above`, or in it?
pub(super) fn is_within(path: &RemotePath, above: &RemotePath) -> bool {
    path.strip(above).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    // C25
    #[test]
    fn a_path_never_leads_above_the_root() {
        for (here, typed, expected) in [
            ("", ".", ""),
            ("", "..", ""),
            ("", "../../..", ""),
            ("", "/", ""),
            ("", "//", ""),
            ("", "a", "a"),
            ("", "a/", "a"),
            ("", "/a//b/./c", "a/b/c"),
            ("a/b", ".", "a/b"),
            ("a/b", "..", "a"),
            ("a/b", "../..", ""),
            ("a/b", "../../../c", "c"),
            ("a/b", "/", ""),
            ("a/b", "/c", "c"),
            ("a/b", "c d", "a/b/c d"),
            ("a/b", "../../a/../b", "b"),
            ("a/b", "...", "a/b/..."),
            ("a", "~", "a/~"),
        ] {
            let here = RemotePath::parse_loosely(here.as_bytes()).unwrap();
            assert_eq!(resolve(&here, typed.as_bytes()).unwrap().as_bytes(), expected.as_bytes(), "{here} {typed}");
        }
    }

    // C25
    #[test]
    fn what_is_no_path_is_refused_for_its_reason() {
        let here = RemotePath::root();
        let deep = b"a/".repeat(4096);
        for (typed, error) in [
            (&b""[..], PathError::Empty),
            (b"a\0b", PathError::Nul),
            (&[b'a'; 256], PathError::NameTooLong),
            (&deep, PathError::TooLong),
            (b".ptf-1", PathError::Reserved),
        ] {
            assert_eq!(resolve(&here, typed), Err(error));
        }
        // Up again is not deep.
        assert!(resolve(&here, &b"a/../".repeat(4096)).unwrap().is_root());
    }

    #[test]
    fn a_folder_is_within_itself_and_those_above() {
        let path = |text: &str| RemotePath::parse_loosely(text.as_bytes()).unwrap();
        assert!(is_within(&path("a/b"), &path("a")) && is_within(&path("a"), &path("a")) && is_within(&path("a"), &path("")));
        assert!(!is_within(&path("a"), &path("a/b")) && !is_within(&path("ab"), &path("a")));
        assert_eq!((shown(&path("")), shown(&path("a\x1b/b"))), ("/".to_owned(), "/a\\u{1b}/b".to_owned()));
    }
}
