//! What nobody else may see: a password, or what a file holds that only its owner reads.
//!
//! Wiped from memory when it is dropped, and never shown by `Debug`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::limits::PASSWORD_LEN_MAX;
use crate::path::Escaped;
pub use crate::protocol::Secret;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Nobody gave one, and there is nobody to be asked.
    #[error(
        "no password: there is no terminal to ask on ({0}); give it with --password_file FILE, '-' for standard input, or in {PASSWORD_VARIABLE}"
    )]
    Nowhere(io::Error),
    /// Its file can't be read.
    #[error("can't read a password from {0}: {1}")]
    Unreadable(String, io::Error),
    /// It has no bytes, or too many.
    #[error("the password from {0} is {1}: it has 1 to {PASSWORD_LEN_MAX} bytes")]
    Length(String, &'static str),
    /// The two that were typed differ.
    #[error("the two passwords differ; nothing was changed")]
    Differ,
}

/// The variable of the environment that a password may be in.
pub const PASSWORD_VARIABLE: &str = "PTF_PASSWORD";

/// The same of one for relays.
pub const VIA_PASSWORD_VARIABLE: &str = "PTF_VIA_PASSWORD";

/// Where a password comes from: a file, else the environment, else whoever is asked.
#[derive(Debug, Default)]
pub struct PasswordSource<'a> {
    /// The file whose first line it is; `-` for standard input.
    pub file: Option<&'a Path>,
    /// What [`PASSWORD_VARIABLE`] holds.
    pub variable: Option<Secret>,
}

impl PasswordSource<'_> {
    /// The password; `ask` asks for it where nobody gave one.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub fn password(self, ask: impl FnOnce() -> Result<Secret, PasswordError>) -> Result<Secret, PasswordError> {
        let (secret, source) = match (self.file, self.variable) {
            (Some(file), _) => {
                let source =
                    if file == Path::new("-") { "standard input".to_owned() } else { format!("'{}'", Escaped::path(file)) };
                warn_if_open_to_others(file);
                // One byte too many tells of a longer one; a line feed and a carriage return may follow.
                match read_bounded(file, PASSWORD_LEN_MAX as u64 + 2) {
                    Ok(read) => (first_line(&read), source),
                    Err(error) => return Err(PasswordError::Unreadable(source, error)),
                }
            }
            (None, Some(value)) => (value, PASSWORD_VARIABLE.to_owned()),
            (None, None) => (ask()?, "the terminal".to_owned()),
        };
        match secret.as_bytes().len() {
            1..=PASSWORD_LEN_MAX => Ok(secret),
            0 => Err(PasswordError::Length(source, "empty")),
            _ => Err(PasswordError::Length(source, "too long")),
        }
    }
}

/// What is in a file, or in standard input if that is called `-`, up to so many bytes.
///
/// # Errors
/// It can't be read.
pub fn read_bounded(file: &Path, len_max: u64) -> io::Result<Secret> {
    if file == Path::new("-") {
        return read(io::stdin().lock(), len_max);
    }
    #[allow(clippy::disallowed_methods, reason = "the user named this file")]
    read(File::open(file)?, len_max)
}

fn warn_if_open_to_others(file: &Path) {
    if let Ok(about) = file.metadata()
        && about.is_file()
        && about.mode() & 0o077 != 0
    {
        let (shown, mode) = (Escaped::path(file), about.mode() & 0o777);
        tracing::warn!("the password file '{shown}' may be read or written by others (mode {mode:03o}): chmod 600 it");
    }
}

/// What is in a file that only its owner may read or write; others being able to is an error.
///
/// # Errors
/// It can't be read, is no regular file, is larger than `len_max`, or is open to others.
pub fn read_private(file: &Path, len_max: usize) -> io::Result<Secret> {
    // Not to wait for someone at the other end of a FIFO.
    #[allow(clippy::disallowed_methods, reason = "the user's own key")]
    let opened = {
        use std::os::unix::fs::OpenOptionsExt as _;
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(nonblocking).open(file)?
    };
    let about = opened.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if about.mode() & 0o077 != 0 {
        let mode = about.mode() & 0o777;
        let text = format!(
            "it may be read or written by others (mode {mode:03o}); if nobody did so, chmod 600 it, otherwise make another"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let secret = read(opened, len_max as u64 + 1)?;
    if secret.as_bytes().len() > len_max {
        return Err(io::Error::other(format!("it is larger than {len_max} bytes")));
    }
    Ok(secret)
}

#[allow(clippy::disallowed_methods, reason = "what is read has a bound")]
fn read(from: impl Read, len_max: u64) -> io::Result<Secret> {
    // With room for all of it: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len_max).unwrap_or_default()));
    from.take(len_max).read_to_end(&mut bytes)?;
    Ok(Secret::from(bytes))
}

/// Without what ends the line, on this system or another; any other byte belongs to the password.
fn first_line(read: &Secret) -> Secret {
    let bytes = read.as_bytes();
    let line = match bytes.iter().position(|&byte| byte == b'\n') {
        Some(end) => bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]),
        None => bytes,
    };
    Secret::from(line.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn in_file(bytes: &[u8]) -> Result<Vec<u8>, PasswordError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let source = PasswordSource { file: Some(file.path()), variable: Some(Secret::from(b"unused".to_vec())) };
        source.password(|| panic!("asked")).map(|secret| secret.as_bytes().to_vec())
    }

    // B16
    #[test]
    fn a_password_is_the_first_line_of_a_file_whatever_its_bytes() {
        let longest = vec![b'x'; PASSWORD_LEN_MAX];
        for (bytes, password) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n", b"secret"),
            (b"secret\r\nmore", b"secret"),
            (b" se cret \n", b" se cret "),
            (b"\0\xff\xfe\r", b"\0\xff\xfe\r"),
            (&longest, &longest),
            (&[&longest[..], b"\r\n more"].concat(), &longest),
        ] {
            assert_eq!(in_file(bytes).unwrap(), password, "{}", bytes.escape_ascii());
        }
        for bytes in [&b""[..], b"\n", b"\r\nx", &[&longest[..], b"y"].concat(), &[b'x'; 1 << 20]] {
            assert!(matches!(in_file(bytes), Err(PasswordError::Length(..))), "{} bytes", bytes.len());
        }
        let nowhere = PasswordSource { file: Some(Path::new("/nowhere/at/all")), variable: None };
        assert!(nowhere.password(|| panic!("asked")).unwrap_err().to_string().contains("/nowhere/at/all"));
    }

    #[test]
    fn without_a_file_the_environment_counts_and_then_who_is_asked() {
        let asked = || Ok(Secret::from(b"asked".to_vec()));
        let given = PasswordSource { file: None, variable: Some(Secret::of("given\n".into())) };
        assert_eq!(given.password(asked).unwrap().as_bytes(), b"given\n");
        assert_eq!(PasswordSource::default().password(asked).unwrap().as_bytes(), b"asked");
        let empty = PasswordSource { file: None, variable: Some(Secret::of("".into())) };
        assert!(empty.password(asked).unwrap_err().to_string().contains(PASSWORD_VARIABLE));
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::from(b"secret".to_vec())), "Secret");
    }
}
