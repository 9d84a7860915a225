//! `RemotePath`: the only name that may cross the wire. It parses or it refuses.
//!
//! Paths are bytes, as Linux has them. Nothing here asks the file system anything.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::limits::{NAME_LEN_MAX, NAME_SHOWN_LEN_MAX, PATH_LEN_MAX};

/// How the names of files begin that are still being received: no name in a path may begin so, so
/// that nobody asks for such a file, or puts something else in its place.
pub const TEMP_PREFIX: &[u8] = b".ptf-";

/// A path below a root: names joined by `/`, with no `.`, no `..`, no empty name and no NUL.
/// The empty path is the root itself.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(Box<[u8]>);

/// Why a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No name at all.
    #[error("the path is empty")]
    Empty,
    /// Two slashes in a row, or one at the end.
    #[error("the path has an empty name in it")]
    EmptyName,
    /// A name `.` or `..`.
    #[error("the path has '.' or '..' in it")]
    Dots,
    /// A NUL byte.
    #[error("the path has a NUL byte in it")]
    Nul,
    /// A name of more than [`NAME_LEN_MAX`] bytes.
    #[error("a name in the path is longer than {NAME_LEN_MAX} bytes")]
    NameTooLong,
    /// More than [`PATH_LEN_MAX`] bytes.
    #[error("the path is longer than {PATH_LEN_MAX} bytes")]
    TooLong,
    /// A name that begins with [`TEMP_PREFIX`].
    #[error("a name in the path is a name that this program keeps for files being received")]
    Reserved,
}

impl RemotePath {
    /// The root itself.
    #[must_use]
    pub fn root() -> Self {
        Self(Box::default())
    }

    /// Parses a path as it must come: relative and in its one spelling.
    ///
    /// # Errors
    /// The first rule that `bytes` breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > PATH_LEN_MAX {
            return Err(PathError::TooLong);
        }
        for name in bytes.split(|&byte| byte == b'/') {
            check_name(name)?;
        }
        Ok(Self(bytes.into()))
    }

    /// Parses a path as a person writes it: `/` at either end, doubled slashes and `.` mean nothing.
    /// The result may be the root.
    ///
    /// # Errors
    /// `..`, a NUL and what is too long are refused.
    pub fn parse_loosely(bytes: &[u8]) -> Result<Self, PathError> {
        let names: Vec<&[u8]> = bytes.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
        if names.is_empty() {
            return Ok(Self::root());
        }
        Self::parse(&names.join(&b'/'))
    }

    /// The one rule by which a name from the wire becomes a path below the receiver's root: `/` is
    /// that root, and an absolute path that already lies inside one of the root's own paths is taken
    /// as it is. One `/` at the end is allowed.
    ///
    /// # Errors
    /// What [`RemotePath::parse`] refuses.
    pub fn below(roots: &[impl AsRef<Path>], name: &[u8]) -> Result<Self, PathError> {
        let Some(absolute) = name.strip_prefix(b"/") else {
            return Self::parse(name.strip_suffix(b"/").unwrap_or(name));
        };
        if absolute.is_empty() {
            return Ok(Self::root());
        }
        let path = absolute.strip_suffix(b"/").unwrap_or(absolute);
        for root in roots {
            let own = root.as_ref().as_os_str().as_bytes();
            let own = own.strip_prefix(b"/").unwrap_or(own);
            match path.strip_prefix(own) {
                _ if own.is_empty() => {}
                Some(b"") => return Ok(Self::root()),
                Some([b'/', inside @ ..]) => return Self::parse(inside),
                _ => {}
            }
        }
        Self::parse(path)
    }

    /// The same of a folder that a person named: doubled slashes and `.` mean nothing.
    ///
    /// # Errors
    /// What [`RemotePath::parse_loosely`] refuses.
    pub fn below_loosely(roots: &[impl AsRef<Path>], name: &[u8]) -> Result<Self, PathError> {
        let path = Self::parse_loosely(name)?;
        if path.is_root() || !name.starts_with(b"/") {
            return Ok(path);
        }
        Self::below(roots, &[b"/", &path.0[..]].concat())
    }

    /// This path with `path` below it.
    ///
    /// # Errors
    /// [`PathError::TooLong`].
    pub fn join(&self, path: &Self) -> Result<Self, PathError> {
        match (self.is_root(), path.is_root()) {
            (true, _) => Ok(path.clone()),
            (_, true) => Ok(self.clone()),
            _ if self.0.len() + 1 + path.0.len() > PATH_LEN_MAX => Err(PathError::TooLong),
            _ => Ok(Self([&self.0, &b"/"[..], &path.0].concat().into())),
        }
    }

    /// This path as it is called below `above`; `None` where it is not.
    #[must_use]
    pub fn strip(&self, above: &Self) -> Option<Self> {
        if above.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&above.0[..])? {
            [] => Some(Self::root()),
            [b'/', below @ ..] => Some(Self(below.into())),
            _ => None,
        }
    }

    /// Is this the root itself?
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path's bytes, relative to its root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same for system calls, where the root is `.`.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(if self.is_root() { b"." } else { &self.0 }))
    }

    /// The folder above and the last name; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &OsStr)> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (Self(self.0[..slash].into()), OsStr::from_bytes(&self.0[slash + 1..])),
            None => (Self::root(), OsStr::from_bytes(&self.0)),
        })
    }

    /// The same as bytes, where a copy would cost too much. The root has no name.
    #[must_use]
    pub fn split_bytes(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        }
    }
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::EmptyName),
        b"." | b".." => Err(PathError::Dots),
        _ if name.len() > NAME_LEN_MAX => Err(PathError::NameTooLong),
        _ if name.contains(&0) => Err(PathError::Nul),
        _ if name.starts_with(TEMP_PREFIX) => Err(PathError::Reserved),
        _ => Ok(()),
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { Escaped(&self.0).fmt(f) }
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemotePath({self})")
    }
}

/// Shows bytes so that no terminal and no log obeys them: control characters, text that reorders
/// or hides its neighbours, and bytes that are not UTF-8 come out as escapes, `\` as `\\`.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl<'a> Escaped<'a> {
    /// As much of a peer's name as a log line should hold.
    #[must_use]
    pub fn start_of(name: &'a [u8]) -> Self {
        Self(&name[..name.len().min(NAME_SHOWN_LEN_MAX)])
    }

    /// The same for a path of this machine.
    #[must_use]
    pub fn path(path: &'a Path) -> Self {
        Self(path.as_os_str().as_bytes())
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for piece in self.0.utf8_chunks() {
            for char in piece.valid().chars() {
                match char {
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    '\r' => f.write_str("\\r")?,
                    _ if char.is_control() || is_invisible(char) => write!(f, "{}", char.escape_unicode())?,
                    _ => f.write_char(char)?,
                }
            }
            for byte in piece.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Text of a peer, without what a terminal obeys: such characters come out as escapes. Unlike
/// [`Escaped`] it leaves `\` alone, for names in it are escaped already.
#[must_use]
pub fn tame(text: &str) -> String {
    let is_wild = |char: char| char.is_control() || is_invisible(char);
    if !text.contains(is_wild) {
        return text.to_owned();
    }
    let mut tame = String::with_capacity(text.len());
    for char in text.chars() {
        if is_wild(char) { tame.extend(char.escape_unicode()) } else { tame.push(char) }
    }
    tame
}

/// Characters that reorder or hide text (Unicode Technical Report 36, section 2).
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_takes_one_spelling_only() {
        for good in
            [&b"a"[..], b"a/b", b"...", b"\\..\\x", b"a b", b"-x", b"\xff\xfe", b"a\nb", b"*", b"..a", b"a..", b".ptf", b"a.ptf-"]
        {
            assert_eq!(RemotePath::parse(good).unwrap().as_bytes(), good);
        }
        for (bad, why) in [
            (&b""[..], PathError::Empty),
            (b"/", PathError::EmptyName),
            (b"/a", PathError::EmptyName),
            (b"a/", PathError::EmptyName),
            (b"a//b", PathError::EmptyName),
            (b"..", PathError::Dots),
            (b"a/../../b", PathError::Dots),
            (b"./x", PathError::Dots),
            (b"x/.", PathError::Dots),
            (b"a\0b", PathError::Nul),
            (b".ptf-", PathError::Reserved),
            (b"a/.ptf-x/b", PathError::Reserved),
        ] {
            assert_eq!(RemotePath::parse(bad), Err(why), "{}", Escaped(bad));
        }
    }

    #[test]
    fn lengths_end_at_their_limits() {
        assert!(RemotePath::parse(&[b'x'; NAME_LEN_MAX]).is_ok());
        assert_eq!(RemotePath::parse(&[b'x'; NAME_LEN_MAX + 1]), Err(PathError::NameTooLong));
        let mut long = b"a/".repeat(PATH_LEN_MAX / 2);
        long.push(b'a');
        assert_eq!(long.len(), PATH_LEN_MAX);
        assert!(RemotePath::parse(&long).is_ok());
        long.insert(0, b'a');
        assert_eq!(RemotePath::parse(&long), Err(PathError::TooLong));
    }

    #[test]
    fn names_from_the_wire_land_below_the_root() {
        let below = |root: &str, name: &str| {
            RemotePath::below(&[root], name.as_bytes()).map(|path| String::from_utf8(path.as_bytes().to_vec()).unwrap())
        };
        for (root, name, path) in [
            ("/data", "/", ""),
            ("/data", "/in", "in"),
            ("/data", "/in/", "in"),
            ("/data", "in/x", "in/x"),
            ("/data", "/data", ""),
            ("/data", "/data/in", "in"),
            ("/data", "/data/data/in", "data/in"),
            ("/data", "/database/in", "database/in"),
            ("/srv/a", "/srv/ab", "srv/ab"),
            ("/", "/etc/x", "etc/x"),
        ] {
            assert_eq!(below(root, name).as_deref(), Ok(path), "{name} below {root}");
        }
        for name in ["", "//x", "/in//", "/data//x", "/data/../x", "/..", "./x", "x/.", "/data/"] {
            let parsed = below("/data", name);
            assert!(name == "/data/" || parsed.is_err(), "{name} gave {parsed:?}");
        }
    }

    #[test]
    fn a_folder_that_a_person_named_lands_where_its_one_spelling_does() {
        for (name, path) in
            [("/data//in/./", "in"), ("data/in", "data/in"), ("//data", ""), ("", ""), (".", ""), ("/", ""), ("/x", "x")]
        {
            assert_eq!(RemotePath::below_loosely(&["/data"], name.as_bytes()).unwrap().as_bytes(), path.as_bytes(), "{name}");
        }
        assert_eq!(RemotePath::below_loosely(&["/data"], b"/data/../x"), Err(PathError::Dots));
    }

    #[test]
    fn a_person_may_write_a_path_loosely() {
        for (text, path) in [("/in//a/./b/", "in/a/b"), ("", ""), (".", ""), ("/", ""), ("~", "~")] {
            assert_eq!(RemotePath::parse_loosely(text.as_bytes()).unwrap().as_bytes(), path.as_bytes());
        }
        assert_eq!(RemotePath::parse_loosely(b"a/../b"), Err(PathError::Dots));
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        for (bytes, text) in [
            (&b"a\nb\tc"[..], "a\\nb\\tc"),
            (b"\x1b[31m", "\\u{1b}[31m"),
            (b"\x9b", "\\x9b"),
            ("\u{9b}\u{202e}".as_bytes(), "\\u{9b}\\u{202e}"),
            (b"a\\b", "a\\\\b"),
            ("é 文".as_bytes(), "é 文"),
        ] {
            assert_eq!(Escaped(bytes).to_string(), text);
        }
        assert_eq!(tame("a\\n b\nc\u{202e}"), "a\\n b\\u{a}c\\u{202e}");
    }
}
