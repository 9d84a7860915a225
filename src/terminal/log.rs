//! Where a receiver's log lines go: to standard error, or to one file a day. A line that can't be
//! written is counted, and stops nobody.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing_subscriber::fmt::MakeWriter;

use super::date::date_of;
use crate::path::Escaped;
use crate::progress::Counter;

/// A log that all threads write to, whole lines at a time.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None` for standard error.
    file: Option<Mutex<Daily>>,
    lost: Arc<Counter>,
    has_complained: AtomicBool,
}

impl Log {
    pub(super) fn to_stderr() -> Self {
        Self::new(None)
    }

    /// Writes to `path` with the day's date behind its name, and keeps the files of `keep_days` days. A
    /// device is written to as it is.
    ///
    /// # Errors
    /// There is no such file to be had. A disk that is full is no error: it may have room later.
    pub(super) fn to_file(path: &Path, keep_days: u32) -> io::Result<Self> {
        Ok(Self::new(Some(Mutex::new(Daily::open(path, keep_days, today())?))))
    }

    fn new(file: Option<Mutex<Daily>>) -> Self {
        Self(Arc::new(Shared { file, lost: Arc::default(), has_complained: AtomicBool::new(false) }))
    }

    /// The number of lines that were lost, which grows on.
    pub(super) fn lost(&self) -> Arc<Counter> {
        Arc::clone(&self.0.lost)
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Shared { file, lost, has_complained } = &*self.0;
        let written = match file {
            None => io::stderr().write_all(line),
            Some(daily) => daily.lock().unwrap_or_else(PoisonError::into_inner).write_line(line, today()),
        };
        if let Err(error) = written {
            lost.add(1);
            if file.is_some() && !has_complained.swap(true, Ordering::Relaxed) {
                let _ =
                    writeln!(io::stderr(), "recv: can't write to the log: {error}; going on, lines that are lost are counted");
            }
        }
        // Work goes on where nobody can hear of it.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One file a day. (Not `tracing-appender`: that takes every name with the same beginning for an old log
/// file and removes it, and panics where a new day finds both the disk and standard error full.)
#[derive(Debug)]
struct Daily {
    path: PathBuf,
    keep_days: u32,
    /// A device has no days.
    is_device: bool,
    day: i64,
    file: Option<File>,
    /// A line was written in part: the next one begins another.
    is_torn: bool,
}

impl Daily {
    fn open(path: &Path, keep_days: u32, day: i64) -> io::Result<Self> {
        let kind = fs::metadata(path).map(|metadata| metadata.file_type()).ok();
        if path.file_name().is_none() || kind.is_some_and(|kind| kind.is_dir()) {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder; name a file in it"));
        }
        let is_device = kind.is_some_and(|kind| kind.is_char_device());
        let mut daily = Self { path: path.to_owned(), keep_days, is_device, day, file: None, is_torn: false };
        match daily.turn_to(day) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Err(error),
            _ => Ok(daily),
        }
    }

    /// Sees to it that the file of this day is open.
    fn turn_to(&mut self, day: i64) -> io::Result<()> {
        if self.file.is_some() && (self.is_device || day == self.day) {
            return Ok(());
        }
        let name = if self.is_device { self.path.clone() } else { self.path_of(day) };
        // The umask is taken off while a receiver runs.
        #[allow(clippy::disallowed_methods, reason = "a log is no file of a served tree")]
        let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(name);
        match opened {
            Ok(file) => (self.file, self.day, self.is_torn) = (Some(file), day, false),
            // The file of the day before is better than none.
            Err(_) if self.file.is_some() => return Ok(()),
            Err(error) => return Err(error),
        }
        if !self.is_device {
            self.remove_old();
        }
        Ok(())
    }

    fn path_of(&self, day: i64) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(".");
        path.push(date_of(day));
        path.into()
    }

    /// Removes the files of days that are not kept any more; what has any other name is not ours.
    fn remove_old(&self) {
        let oldest = date_of(self.day + 1 - i64::from(self.keep_days));
        let (Some(name), Some(folder)) = (self.path.file_name(), self.path.parent()) else { return };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let entry_name = entry.file_name();
            let date = entry_name.as_bytes().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
            if date.is_some_and(|date| is_date(date) && date < oldest.as_bytes())
                && entry.file_type().is_ok_and(|kind| kind.is_file())
                && let Err(error) = fs::remove_file(entry.path())
            {
                // The log itself is being written to.
                let _ = writeln!(io::stderr(), "recv: can't remove '{}': {error}", Escaped::path(&entry.path()));
            }
        }
    }

    fn write_line(&mut self, line: &[u8], day: i64) -> io::Result<()> {
        self.turn_to(day)?;
        if self.is_torn {
            self.write_all(b"\n")?;
            self.is_torn = false;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let mut left = bytes;
        while !left.is_empty() {
            match file.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => left = &left[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_torn |= left.len() < bytes.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Days since 1970, as the log's times have them: in UTC.
fn today() -> i64 {
    #[allow(clippy::disallowed_methods, reason = "log files have names of days")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs() / 86_400).unwrap_or_default()
}

fn is_date(bytes: &[u8]) -> bool {
    let is_like = |(byte, like): (&u8, u8)| if like == b'0' { byte.is_ascii_digit() } else { *byte == like };
    bytes.len() == 10 && bytes.iter().zip(*b"0000-00-00").all(is_like)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_date_is_not_taken_for_one() {
        assert!(is_date(date_of(20_778).as_bytes()));
        for text in ["", "2026-11-2", "2026-11-211", "2026_11-21", "2026-1x-21"] {
            assert!(!is_date(text.as_bytes()), "{text}");
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_day_has_a_file_and_only_old_ones_of_this_log_go() {
        let folder = tempfile::tempdir().unwrap();
        let others = ["log", "log.1", "log.2000-01-01.gz", "log.precious", "other.2000-01-01", "xlog.2000-01-01"];
        for name in others {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::create_dir(folder.path().join("log.1999-01-01")).unwrap();
        fs::write(folder.path().join("log.2000-01-01"), "").unwrap();
        let first = 20_778;
        let mut daily = Daily::open(&folder.path().join("log"), 2, first).unwrap();
        for day in [first, first, first + 1, first + 2] {
            daily.write_line(format!("{}\n", day - first).as_bytes(), day).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((&read("log.2026-11-22")[..], &read("log.2026-11-23")[..]), ("1\n", "2\n"));
        let mut expected: Vec<_> = others.iter().map(|&name| name.to_owned()).collect();
        expected.extend(["log.1999-01-01", "log.2026-11-22", "log.2026-11-23"].map(str::to_owned));
        expected.sort();
        assert_eq!(names(folder.path()), expected);
        // Opened again, it goes on.
        Daily::open(&folder.path().join("log"), 2, first + 2).unwrap().write_line(b"3\n", first + 2).unwrap();
        assert_eq!(read("log.2026-11-23"), "2\n3\n");
        // A folder that is gone costs the new day's file, and no line.
        daily.path = folder.path().join("gone/log");
        daily.write_line(b"4\n", first + 3).unwrap();
        assert_eq!(read("log.2026-11-23"), "2\n3\n4\n");
    }

    #[test]
    fn no_log_file_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), Path::new("/"), Path::new(".."), &folder.path().join("missing/log")] {
            assert!(Daily::open(path, 1, 0).is_err(), "{path:?}");
        }
    }

    #[test]
    fn what_follows_a_torn_line_begins_another() {
        let folder = tempfile::tempdir().unwrap();
        let mut daily = Daily::open(&folder.path().join("log"), 1, 0).unwrap();
        daily.write_line(b"{\"half", 0).unwrap();
        daily.is_torn = true;
        daily.write_line(b"{}\n", 0).unwrap();
        daily.write_line(b"{}\n", 0).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("log.1970-01-01")).unwrap(), "{\"half\n{}\n{}\n");
    }
}
