//! Which files that have their names may not have reached the disk before the power failed: those
//! changed since the last sync, if this is another boot. What was last synced when is kept in a file.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Statx;
use rustix::time::{ClockId, clock_gettime};

use super::{BootId, lock};
use crate::digest;
use crate::entry::Time;

/// What is known of the syncs of one root.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    /// Was a file published since the last sync?
    dirty: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where it is kept; nowhere where nobody asked for it.
    file: Option<PathBuf>,
    boot: BootId,
    synced: Time,
    /// What changed in this time may be lost: after the first, up to the second.
    doubt: Option<(Time, Time)>,
}

const MARK: &str = "parallel-transfer syncs 1";

impl Syncs {
    /// Reads what was known before, and keeps from now on what becomes known.
    pub(super) fn keep_in(&self, folder: &Path, root: &Path, boot: BootId) -> io::Result<()> {
        let [high, low] = digest::name_of(root.as_os_str().as_bytes());
        let file = folder.join(format!("syncs-{high:016x}{low:016x}"));
        let mut state = lock(&self.state);
        let known = match fs::metadata(&file) {
            Ok(about) if about.len() <= FILE_LEN_MAX => decode(&fs::read(&file)?),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => None,
        };
        *state = match known {
            Some(known) if known.boot == boot => known,
            Some(known) => {
                let from = known.doubt.map_or(known.synced, |(from, _)| from.min(known.synced));
                State { boot, synced: now(), doubt: Some((from, now())), file: None }
            }
            // Nothing is known of what was there before this program: it is taken for what it seems.
            None => State { boot, synced: now(), doubt: None, file: None },
        };
        state.file = Some(file);
        state.write()
    }

    /// Notes that a file was published.
    pub(super) fn note_published(&self) {
        self.dirty.store(true, Ordering::Relaxed);
    }

    /// Was a file published since this was asked last, and is it kept when it was synced?
    pub(super) fn take_dirty(&self) -> bool {
        self.dirty.swap(false, Ordering::Relaxed) && lock(&self.state).file.is_some()
    }

    /// Notes that all is on the disk that was written before `begun`.
    pub(super) fn note_synced(&self, begun: Time) {
        let mut state = lock(&self.state);
        state.synced = begun;
        if let Err(error) = state.write() {
            tracing::debug!("the time of the last sync is not kept: {error}");
        }
    }

    /// May a file with these attributes have lost what was written to it?
    pub(super) fn doubts(&self, stat: &Statx) -> bool {
        let changed = (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
        lock(&self.state).doubt.is_some_and(|(from, to)| from < changed && changed <= to)
    }
}

/// The present time, as files get it.
pub(super) fn now() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Bytes of such a file at the most.
const FILE_LEN_MAX: u64 = 1024;

impl State {
    fn write(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let new = file.with_extension("new");
        #[allow(clippy::disallowed_methods, reason = "no file of a tree")]
        let mut out = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        out.write_all(self.encode().as_bytes())?;
        out.sync_data()?;
        fs::rename(new, file)
    }

    fn encode(&self) -> String {
        let time = |(seconds, nanoseconds): Time| format!("{seconds} {nanoseconds}");
        let boot = u128::from_be_bytes(self.boot);
        let doubt = self.doubt.map_or_else(String::new, |(from, to)| format!("doubt {} {}\n", time(from), time(to)));
        format!("{MARK}\nboot {boot:032x}\nsynced {}\n{doubt}", time(self.synced))
    }
}

/// What such a file says; none where it is damaged: then nothing is known.
fn decode(bytes: &[u8]) -> Option<State> {
    let mut lines = str::from_utf8(bytes).ok()?.lines();
    let time = |words: &[&str]| Some((words.first()?.parse().ok()?, words.get(1)?.parse().ok()?));
    if lines.next()? != MARK {
        return None;
    }
    let boot = u128::from_str_radix(lines.next()?.strip_prefix("boot ")?, 16).ok()?.to_be_bytes();
    let words: Vec<&str> = lines.next()?.strip_prefix("synced ")?.split(' ').collect();
    let synced = time(&words)?;
    let doubt = match lines.next() {
        None => None,
        Some(line) => {
            let words: Vec<&str> = line.strip_prefix("doubt ")?.split(' ').collect();
            Some((time(&words)?, time(words.get(2..)?)?))
        }
    };
    Some(State { file: None, boot, synced, doubt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_says_nothing() {
        for doubt in [None, Some(((1, 2), (3, 4)))] {
            let state = State { file: None, boot: [7; 16], synced: (-5, 6), doubt };
            let text = state.encode();
            let read = decode(text.as_bytes()).unwrap();
            assert_eq!((read.boot, read.synced, read.doubt), ([7; 16], (-5, 6), doubt));
            for len in 0..text.len() - 12 {
                assert!(decode(&text.as_bytes()[..len]).is_none_or(|read| read.doubt.is_none()), "{len}");
            }
        }
    }

    #[test]
    fn another_boot_doubts_what_came_after_the_last_sync() {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new("/srv/in");
        let syncs = |boot| {
            let syncs = Syncs::default();
            syncs.keep_in(folder.path(), root, [boot; 16]).unwrap();
            syncs
        };
        let doubt = |syncs: &Syncs| lock(&syncs.state).doubt;
        let first = syncs(1);
        assert_eq!(doubt(&first), None);
        first.note_synced((100, 0));
        assert_eq!(doubt(&syncs(1)), None);
        let (from, to) = doubt(&syncs(2)).unwrap();
        assert!(from == (100, 0) && to > (1_700_000_000, 0));
        // It stays in doubt however often the machine starts.
        let third = syncs(3);
        assert_eq!(doubt(&third).unwrap().0, (100, 0));
    }
}
