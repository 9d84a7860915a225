//! The file of known hosts: one line a host, `name:port SHA256:...`. Empty lines and those that
//! begin with `#` say nothing. What can't be understood is an error and never "unknown host":
//! otherwise a damaged file would make a stranger's key acceptable.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{FlockOperation, OFlags, flock};

use super::tls::Fingerprint;
use crate::limits::{KNOWN_HOSTS_LEN_MAX, KNOWN_HOSTS_POLL, KNOWN_HOSTS_WAIT};

/// Why the file is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the file of known hosts {file:?}{} {cause}; {way_out}, or name the receiver's key with --host_key", in_line(.line))]
pub struct KnownHostsError {
    /// The file.
    pub file: PathBuf,
    /// The line, where one is to blame; the first is 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub cause: String,
    /// What can be done.
    pub way_out: String,
}

fn in_line(line: &Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line},"))
}

/// What the file says about a host's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The host is not in it.
    Unknown,
    /// It has this key.
    Known,
    /// It has another.
    Changed {
        /// The one that the file has.
        known: Fingerprint,
        /// The line.
        line: usize,
    },
}

/// What does `file` say about `found` as the key of `host`? Nothing if it does not exist.
///
/// # Errors
/// The file can't be read or understood, or others may write to it.
pub fn look_up(file: &Path, host: &str, found: Fingerprint) -> Result<Verdict, KnownHostsError> {
    let known = KnownHosts { file, host };
    match known.open(OpenOptions::new().read(true)) {
        Ok(opened) => known.judge(&known.read(&opened, FlockOperation::NonBlockingLockShared)?, found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Verdict::Unknown),
        Err(error) => Err(known.unusable(format!("can't be read: {error}"), "see to that")),
    }
}

/// Adds `host`, in lower case, with the key `found` unless the host is there by now; tells what was there before.
///
/// # Errors
/// Those of [`look_up`]; the file can't be written.
pub fn add(file: &Path, host: &str, found: Fingerprint) -> Result<Verdict, KnownHostsError> {
    let known = KnownHosts { file, host };
    let unwritable = |error: io::Error| known.unusable(format!("can't be written: {error}"), "see to that");
    if !has_port(host) || host.starts_with('#') || host.contains(|char: char| char.is_whitespace() || char.is_control()) {
        return Err(known.unusable(format!("can't hold a host called {host:?}"), "use another name"));
    }
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unwritable)?;
    }
    let opened = known.open(OpenOptions::new().read(true).append(true).create(true).mode(0o600)).map_err(unwritable)?;
    let bytes = known.read(&opened, FlockOperation::NonBlockingLockExclusive)?;
    let verdict = known.judge(&bytes, found)?;
    if verdict != Verdict::Unknown {
        return Ok(verdict);
    }
    let break_line = if bytes.is_empty() || bytes.ends_with(b"\n") { "" } else { "\n" };
    let line = format!("{break_line}{} {found}\n", host.to_ascii_lowercase());
    if bytes.len() + line.len() > KNOWN_HOSTS_LEN_MAX {
        return Err(known.too_large());
    }
    // In one piece: whoever reads without heeding the lock sees the line or does not.
    let written = (&opened)
        .write(line.as_bytes())
        .and_then(|len| if len == line.len() { opened.sync_data() } else { Err(io::ErrorKind::WriteZero.into()) });
    if let Err(error) = written {
        // Half a line would spoil the file for all other hosts.
        let _ = opened.set_len(bytes.len() as u64);
        return Err(unwritable(error));
    }
    Ok(Verdict::Unknown)
}

/// One question to one file.
#[derive(Clone, Copy)]
struct KnownHosts<'a> {
    file: &'a Path,
    host: &'a str,
}

impl KnownHosts<'_> {
    #[allow(clippy::disallowed_methods, reason = "a file of the user's own, not of a served tree")]
    fn open(&self, options: &mut OpenOptions) -> io::Result<File> {
        // Not to wait for someone at the other end of a FIFO.
        options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(self.file)
    }

    /// All of the file, once no one writes to it. The lock lasts as long as `opened`.
    #[allow(clippy::disallowed_methods, reason = "at most the largest file and one byte is read")]
    fn read(&self, opened: &File, lock: FlockOperation) -> Result<Vec<u8>, KnownHostsError> {
        let unreadable = |error: io::Error| self.unusable(format!("can't be read: {error}"), "see to that");
        let metadata = opened.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(self.unusable("is not a regular file".to_owned(), "move it away"));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(self.unusable("may be written by others".to_owned(), "chmod go-w it if its lines are yours"));
        }
        self.lock(opened, lock)?;
        let mut bytes = Vec::new();
        opened.take(KNOWN_HOSTS_LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > KNOWN_HOSTS_LEN_MAX { Err(self.too_large()) } else { Ok(bytes) }
    }

    fn lock(&self, opened: &File, lock: FlockOperation) -> Result<(), KnownHostsError> {
        let deadline = Instant::now() + KNOWN_HOSTS_WAIT;
        loop {
            match flock(opened, lock) {
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(KNOWN_HOSTS_POLL),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(self.unusable("is locked by another program".to_owned(), "end that one"));
                }
                Err(rustix::io::Errno::INTR) => {}
                // Where there are no locks, lines in one piece must do.
                Ok(()) | Err(_) => return Ok(()),
            }
        }
    }

    /// Reads every line, those after the host's as well.
    fn judge(&self, bytes: &[u8], found: Fingerprint) -> Result<Verdict, KnownHostsError> {
        let mut verdict = Verdict::Unknown;
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line_number = index + 1;
            let malformed = || {
                let cause = "is not `name:port SHA256:...`, perhaps only a part of it".to_owned();
                let way_out = "correct or remove that line".to_owned();
                KnownHostsError { file: self.file.to_owned(), line: Some(line_number), cause, way_out }
            };
            let line = str::from_utf8(line).map_err(|_| malformed())?;
            let mut words = line.split_ascii_whitespace();
            let (host, fingerprint) = match (words.next(), words.next(), words.next()) {
                (None, ..) => continue,
                (Some(first), ..) if first.starts_with('#') => continue,
                (Some(host), Some(fingerprint), None) => (host, fingerprint.parse().map_err(|_| malformed())?),
                _ => return Err(malformed()),
            };
            if !has_port(host) {
                return Err(malformed());
            }
            // Names differ in nothing by their case (RFC 4343), and lines may be older than that they are kept in lower case.
            if host.eq_ignore_ascii_case(self.host) {
                match verdict {
                    _ if fingerprint == found => verdict = Verdict::Known,
                    Verdict::Unknown => verdict = Verdict::Changed { known: fingerprint, line: line_number },
                    Verdict::Known | Verdict::Changed { .. } => {}
                }
            }
        }
        Ok(verdict)
    }

    fn too_large(&self) -> KnownHostsError {
        self.unusable(format!("is larger than {KNOWN_HOSTS_LEN_MAX} bytes"), "remove the lines that are not needed")
    }

    fn unusable(&self, cause: String, way_out: &str) -> KnownHostsError {
        KnownHostsError { file: self.file.to_owned(), line: None, cause, way_out: way_out.to_owned() }
    }
}

/// Is this a name and a port?
fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    const HOST: &str = "host:6000";

    fn key(number: u8) -> Fingerprint {
        Fingerprint::of(&[number])
    }

    fn with(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        (folder, file)
    }

    #[test]
    fn a_host_is_found_by_name_and_port() {
        let text = format!("# a note\r\n\n  \t\nother:1 {}\n{HOST}  {} \n[::1]:6000 {}", key(1), key(2), key(3));
        let (_folder, file) = with(text.as_bytes());
        for (host, number, verdict) in [
            (HOST, 2, Verdict::Known),
            ("HOST:6000", 2, Verdict::Known),
            (HOST, 1, Verdict::Changed { known: key(2), line: 5 }),
            ("host:6001", 2, Verdict::Unknown),
            ("host", 2, Verdict::Unknown),
            ("[::1]:6000", 3, Verdict::Known),
        ] {
            assert_eq!(look_up(&file, host, key(number)), Ok(verdict), "{host}");
        }
        assert_eq!(look_up(&file.with_file_name("none"), HOST, key(1)), Ok(Verdict::Unknown));
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        let good = format!("{HOST} {}\n", key(1));
        let half = &good[..good.len() - 5];
        let bad: [&[u8]; 12] = [
            b"host:1\n",
            b"host:1",
            b"SHA256:\n",
            half.as_bytes(),
            b"host:1 SHA256:short\n",
            b"host:1 SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA extra\n",
            b"host SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
            b":1 SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
            b"host:99999 SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
            b"\0\0\0\0\0\0",
            b"\xff\xfe\n",
            b"host ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI\n",
        ];
        for bad in bad {
            // After a line that would settle the matter, and before one.
            for (text, line) in [([good.as_bytes(), bad].concat(), 2), ([bad, b"\n", good.as_bytes()].concat(), 1)] {
                let (_folder, file) = with(&text);
                let error = look_up(&file, HOST, key(1)).unwrap_err();
                assert_eq!(error.line, Some(line), "{}", bad.escape_ascii());
                let shown = error.to_string();
                assert!(
                    shown.contains("known_hosts") && shown.contains("remove that line") && shown.contains("--host_key"),
                    "{shown}"
                );
                assert!(add(&file, "new:1", key(1)).is_err());
                assert_eq!(fs::read(&file).unwrap(), text);
            }
        }
    }

    #[test]
    fn a_file_that_can_not_be_trusted_is_never_an_empty_one() {
        let line = format!("{HOST} {}\n", key(1));
        let (_folder, file) = with(line.as_bytes());
        for mode in [0o664, 0o646, 0o666] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert!(look_up(&file, HOST, key(1)).unwrap_err().to_string().contains("chmod"));
            assert!(add(&file, HOST, key(1)).is_err());
        }
        let (_folder, file) = with(&b"#\n".repeat(KNOWN_HOSTS_LEN_MAX / 2));
        assert_eq!(look_up(&file, HOST, key(1)), Ok(Verdict::Unknown), "the largest");
        assert!(add(&file, HOST, key(1)).unwrap_err().cause.contains("larger"));
        assert_eq!(fs::metadata(&file).unwrap().len(), KNOWN_HOSTS_LEN_MAX as u64);
        fs::write(&file, vec![b'\n'; KNOWN_HOSTS_LEN_MAX + 1]).unwrap();
        assert!(look_up(&file, HOST, key(1)).unwrap_err().cause.contains("larger"));

        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for file in [folder.path(), &fifo] {
            assert!(look_up(file, HOST, key(1)).is_err() && add(file, HOST, key(1)).is_err(), "{file:?}");
        }
        assert!(look_up(&fifo.join("below"), HOST, key(1)).unwrap_err().cause.contains("can't be read"));
        assert!(add(&fifo.join("below"), HOST, key(1)).unwrap_err().cause.contains("can't be written"));
    }

    #[test]
    fn a_host_is_added_once_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/known_hosts");
        assert_eq!(add(&file, HOST, key(1)), Ok(Verdict::Unknown));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(add(&file, HOST, key(1)), Ok(Verdict::Known));
        assert_eq!(add(&file, HOST, key(2)), Ok(Verdict::Changed { known: key(1), line: 1 }));
        let whole = fs::read_to_string(&file).unwrap();
        fs::write(&file, whole.trim_end()).unwrap();
        assert_eq!(add(&file, "NEXT:1", key(2)), Ok(Verdict::Unknown));
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{HOST} {}\nnext:1 {}\n", key(1), key(2)));
        for name in ["", "#x:1", "a b:1", "a\nb:1", "a\0:1", "no_port"] {
            assert!(add(&file, name, key(1)).is_err(), "{name:?}");
        }
    }

    #[test]
    fn many_at_once_do_not_spoil_each_others_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        let verdicts: Vec<Verdict> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|number| {
                    let file = &file;
                    scope.spawn(move || {
                        add(file, &format!("host{number}:1"), key(number)).unwrap();
                        add(file, "same:1", key(number)).unwrap()
                    })
                })
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Unknown).count(), 1);
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 9);
        for number in 0..8 {
            assert_eq!(look_up(&file, &format!("host{number}:1"), key(number)), Ok(Verdict::Known));
        }
    }
}
