//! The index of a process that receives: in which folders below its root there may be files under
//! temporary names. It is a file of the state folder, locked for the life of the process. Who finds
//! it unlocked can look after what was left, without searching the tree.
//!
//! docs/JOURNAL.md has the format. A folder costs one write, a file nothing.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::records::BootId;
use super::{chain, lock};
use crate::digest::check;
use crate::limits::{INDEX_FOLDERS_MAX, INDEXES_MAX, PATH_LEN_MAX};
use crate::path::{Escaped, RemotePath};

const MAGIC: &[u8; 4] = b"PTFI";

/// Of the whole format: a new kind of record is a new version.
const VERSION: u8 = 1;

/// A folder below the root.
const FOLDER: u8 = 1;

/// Kind and path.
const BODY_LEN_MAX: usize = 1 + PATH_LEN_MAX;

/// Magic, version, boot and length of the root's path.
const HEAD_LEN: usize = 4 + 1 + 16 + 2;

const NAME_PREFIX: &str = "incoming-";

/// Others have no business with it.
const MODE: u32 = 0o600;

/// The index of this process.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    file: File,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where the next record goes, and the check of what is before it.
    position: u64,
    check: u64,
    /// Hashes of the folders that are recorded, eight bytes each.
    noted: HashSet<u64>,
    was_refused: bool,
}

impl Index {
    /// Makes the index of a process whose temporary names begin with `half`, and locks it.
    ///
    /// # Errors
    /// It can't be made there.
    pub(super) fn create(state_folder: &Path, half: u64, root: &Path, boot: &BootId) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(state_folder)?;
        let path = path_of(state_folder, half);
        let (header, check) = encode_header(boot, root);
        let file = create_locked(state_folder, &path, &header)?;
        let state = State { position: header.len() as u64, check, noted: HashSet::new(), was_refused: false };
        Ok(Self { path, file, hasher: RandomState::new(), state: Mutex::new(state) })
    }

    /// Records a folder, by its path below the root, unless it is recorded. Where that fails it is said
    /// once, and told.
    pub(super) fn note(&self, folder: &[u8]) -> bool {
        let hash = self.hasher.hash_one(folder);
        let mut state = lock(&self.state);
        if state.noted.contains(&hash) {
            return true;
        }
        let mut bytes = Vec::new();
        let check = chain::encode(&mut bytes, &[&[FOLDER], folder].concat(), state.check);
        // At its place: what a write that failed left there is written over.
        if let Err(error) = self.file.write_all_at(&bytes, state.position) {
            if !state.was_refused {
                let path = Escaped::path(&self.path);
                tracing::warn!("can't write '{path}': {error}; what an interrupted run leaves may have to be removed by hand");
            }
            state.was_refused = true;
            return false;
        }
        state.position = state.position.saturating_add(bytes.len() as u64);
        state.check = check;
        if state.noted.len() >= INDEX_FOLDERS_MAX {
            state.noted.clear();
        }
        state.noted.insert(hash);
        true
    }

    /// Is there the index of a process, this or another, whose temporary names begin with `half`?
    pub(super) fn has_neighbour(&self, half: u64) -> bool {
        self.path.parent().is_some_and(|folder| is_there(folder, half))
    }

    /// Nothing is left that it could tell of.
    pub(super) fn remove(&self) {
        remove(&self.path);
    }
}

/// Is there the index of a process whose temporary names begin with `half`?
pub(super) fn is_there(state_folder: &Path, half: u64) -> bool {
    path_of(state_folder, half).symlink_metadata().is_ok()
}

fn path_of(state_folder: &Path, half: u64) -> PathBuf {
    state_folder.join(format!("{NAME_PREFIX}{half:016x}"))
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!("can't remove '{}': {error}", Escaped::path(path));
    }
}

fn encode_header(boot: &BootId, root: &Path) -> (Vec<u8>, u64) {
    let root = root.as_os_str().as_bytes();
    // A path that a folder was opened by has 4095 bytes at the most.
    let root_len = u16::try_from(root.len()).unwrap_or(u16::MAX);
    let mut bytes = [MAGIC, &[VERSION][..], boot, &root_len.to_be_bytes(), root].concat();
    let own = check(&bytes, 0);
    bytes.extend_from_slice(&own.to_be_bytes());
    (bytes, own)
}

/// It has its name when it is locked and has its header, where the file system can do that: whoever
/// finds an index unlocked takes its process for dead.
fn create_locked(state_folder: &Path, path: &Path, header: &[u8]) -> io::Result<File> {
    let access = OFlags::RDWR | OFlags::CLOEXEC;
    let unnamed = rustix::fs::open(state_folder, access | OFlags::TMPFILE, Mode::from_raw_mode(MODE));
    let (file, has_name) = match unnamed {
        Ok(file) => (File::from(file), false),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let named = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            (File::from(rustix::fs::open(path, named, Mode::from_raw_mode(MODE))?), true)
        }
        Err(errno) => return Err(errno.into()),
    };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    file.write_all_at(header, 0)?;
    if !has_name {
        let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, itself, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
    }
    Ok(file)
}

/// An index that was found.
#[derive(Debug)]
pub(super) struct Found {
    path: PathBuf,
    /// Open, and locked unless its process lives; reading goes on from the first record.
    reader: BufReader<File>,
    check: u64,
    /// What the temporary names of its process begin with.
    pub(super) half: u64,
    /// The root of its process, as an absolute path.
    pub(super) root: PathBuf,
    /// Has its process not ended?
    pub(super) is_alive: bool,
}

/// The indexes of a state folder whose roots are `wanted`; each whose process has ended is locked by this
/// one from here on. Those of ended processes that say nothing are removed, whatever their root.
///
/// # Errors
/// The folder can't be listed. One that is not there has none.
pub(super) fn find_all(state_folder: &Path, wanted: impl Fn(&Path) -> bool) -> io::Result<Vec<Found>> {
    let entries = match std::fs::read_dir(state_folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let half = |name: &[u8]| parse_half(name.strip_prefix(NAME_PREFIX.as_bytes())?);
    let named = entries.flatten().filter_map(|entry| Some((half(entry.file_name().as_bytes())?, entry.path())));
    let found = named.filter_map(|(half, path)| {
        Found::open(&path, half, &wanted).unwrap_or_else(|error| {
            tracing::debug!("can't read '{}': {error}", Escaped::path(&path));
            None
        })
    });
    Ok(found.take(INDEXES_MAX).collect())
}

/// The number of sixteen hex digits, as temporary names have them.
pub(super) fn parse_half(digits: &[u8]) -> Option<u64> {
    let are_right = digits.len() == 16 && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let text = std::str::from_utf8(digits).ok().filter(|_| are_right)?;
    u64::from_str_radix(text, 16).ok()
}

impl Found {
    fn open(path: &Path, half: u64, wanted: impl Fn(&Path) -> bool) -> io::Result<Option<Self>> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = |access| rustix::fs::open(path, flags | access, Mode::empty());
        // Some file systems lock only what may be written.
        let file = File::from(open(OFlags::RDWR).or_else(|_| open(OFlags::RDONLY))?);
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut reader = BufReader::new(file);
        let header = read_header(&mut reader)?;
        let says = match &header {
            Header::Right { root, len, .. } => wanted(root) || reader.get_ref().metadata()?.len() <= *len,
            Header::Foreign => false,
            Header::Torn => true,
        };
        if !says {
            return Ok(None);
        }
        // Not before: another process may want it at this moment.
        let is_alive = match rustix::fs::flock(reader.get_ref(), FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => true,
            locked => locked.map(|()| false)?,
        };
        let about = reader.get_ref().metadata()?;
        match header {
            _ if about.nlink() == 0 => Ok(None),
            Header::Right { root, check, len } if about.len() > len || is_alive => {
                // What was read ahead may have been torn when it was read.
                reader.seek(SeekFrom::Start(len))?;
                Ok(wanted(&root).then(|| Self { path: path.to_owned(), reader, check, half, root, is_alive }))
            }
            _ if !is_alive => {
                tracing::debug!("'{}' tells of nothing", Escaped::path(path));
                remove(path);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The next of the folders that it names; none behind what is not whole and right. What can be no
    /// path below a root is left out.
    ///
    /// # Errors
    /// It can't be read.
    pub(super) fn next_folder(&mut self) -> io::Result<Option<RemotePath>> {
        while let Some(body) = self.next_body()? {
            let path = match body.split_first() {
                Some((&FOLDER, b"")) => Some(RemotePath::root()),
                Some((&FOLDER, path)) => RemotePath::parse(path).ok(),
                _ => None,
            };
            if path.is_some() {
                return Ok(path);
            }
        }
        Ok(None)
    }

    fn next_body(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut record = chain::Len::default().to_vec();
        if !read_whole(&mut self.reader, &mut record)? {
            return Ok(None);
        }
        let len = record.first_chunk().and_then(|len| chain::body_len(*len, BODY_LEN_MAX));
        let Some(len) = len.map(chain::record_len) else { return Ok(None) };
        let mut rest = vec![0; len.saturating_sub(record.len())];
        if !read_whole(&mut self.reader, &mut rest)? {
            return Ok(None);
        }
        record.append(&mut rest);
        let Some((body, _, own)) = chain::decode(&record, self.check, BODY_LEN_MAX) else { return Ok(None) };
        self.check = own;
        Ok(Some(body.to_vec()))
    }

    /// Nothing is left that it could tell of.
    pub(super) fn remove(self) {
        remove(&self.path);
    }
}

enum Header {
    Right {
        root: PathBuf,
        check: u64,
        len: u64,
    },
    /// Of a version that this program does not know.
    Foreign,
    Torn,
}

fn read_header(reader: &mut BufReader<File>) -> io::Result<Header> {
    let mut head = [0; HEAD_LEN];
    if !read_whole(reader, &mut head)? {
        return Ok(Header::Torn);
    }
    let [magic @ .., _, _] = &head;
    let (Some(version), Some(boot)) = (magic.get(MAGIC.len()), magic.last_chunk::<16>()) else { return Ok(Header::Torn) };
    if !head.starts_with(MAGIC) || *version != VERSION {
        return Ok(if head.starts_with(MAGIC) { Header::Foreign } else { Header::Torn });
    }
    let root_len = head.last_chunk().copied().map_or(0, u16::from_be_bytes);
    let mut rest = vec![0; usize::from(root_len).saturating_add(8)];
    if usize::from(root_len) > PATH_LEN_MAX || !read_whole(reader, &mut rest)? {
        return Ok(Header::Torn);
    }
    let root = PathBuf::from(OsString::from_vec(rest.get(..usize::from(root_len)).unwrap_or_default().to_vec()));
    let (expected, check) = encode_header(boot, &root);
    let is_right = expected == [&head[..], &rest].concat() && root.is_absolute();
    Ok(if is_right { Header::Right { root, check, len: expected.len() as u64 } } else { Header::Torn })
}

/// Fills `bytes`; false where the file ends before.
fn read_whole(reader: &mut BufReader<File>, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::*;

    const HALF: u64 = 0x1234_5678_9abc_def0;

    fn path(place: &TempDir) -> PathBuf {
        place.path().join("incoming-123456789abcdef0")
    }

    fn index_in(place: &TempDir) -> Index {
        Index::create(place.path(), HALF, Path::new("/srv/in"), &[0xbb; 16]).unwrap()
    }

    /// All indexes, once nobody holds them. A process that another test starts has a copy of each
    /// descriptor, and with it the lock, until it is its own program.
    fn let_go(place: &TempDir) -> Vec<Found> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let found = find_all(place.path(), |_| true).unwrap();
            if found.iter().all(|found| !found.is_alive) || Instant::now() >= deadline {
                return found;
            }
            drop(found);
            thread::yield_now();
        }
    }

    /// The folders that the only index of an ended process names; none where there is no such index.
    fn folders_in(place: &TempDir) -> Option<Vec<String>> {
        let mut found = let_go(place).pop()?;
        assert_eq!((found.half, found.root.to_str(), found.is_alive), (HALF, Some("/srv/in"), false));
        let mut folders = Vec::new();
        while let Some(folder) = found.next_folder().unwrap() {
            folders.push(folder.to_string());
        }
        Some(folders)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // These bytes can't change: indexes of other versions of this program are on disks.
    #[test]
    fn an_index_has_the_bytes_that_its_document_says() {
        let place = TempDir::new().unwrap();
        let index = index_in(&place);
        assert!(index.note(b"") && index.note(b"d/e") && index.note(b""));
        let bytes = fs::read(path(&place)).unwrap();
        let header = "5054464901".to_owned() + &"bb".repeat(16) + "00072f7372762f696e";
        assert_eq!(hex(&bytes[..30]), header);
        for (start, end, seed) in [(0, 30, 0), (38, 41, check(&bytes[..30], 0))] {
            assert_eq!(bytes[end..end + 8], check(&bytes[start..end], seed).to_be_bytes());
        }
        assert_eq!((hex(&bytes[38..41]).as_str(), hex(&bytes[49..55]).as_str(), bytes.len()), ("000101", "000401642f65", 63));
    }

    // E06: a kill or a power loss at any byte.
    #[test]
    fn what_is_torn_or_flipped_ends_it_and_one_that_says_nothing_goes() {
        let place = TempDir::new().unwrap();
        let index = index_in(&place);
        let ends = [b"".as_slice(), b"d/e", b"f"].map(|folder| {
            assert!(index.note(folder));
            fs::metadata(path(&place)).unwrap().len() as usize
        });
        drop(index);
        let bytes = fs::read(path(&place)).unwrap();
        let names = [".", "d/e", "f"];
        let expect = |whole: usize| {
            let folders = folders_in(&place);
            assert_eq!(folders.unwrap_or_default(), names[..ends.iter().filter(|end| **end <= whole).count()], "{whole}");
        };
        for len in 0..=bytes.len() {
            for torn in [bytes[..len].to_vec(), [&bytes[..len], &[0; 40]].concat()] {
                fs::write(path(&place), torn).unwrap();
                expect(len);
            }
        }
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(path(&place), flipped).unwrap();
            expect(bit / 8);
        }
        let foreign = [b"PTFI\x02", &[0; 40][..]].concat();
        let cases = [(&b""[..], false), (&bytes[..38], false), (&[0; 100], false), (&foreign, true), (&bytes[..ends[0]], true)];
        for (content, stays) in cases {
            fs::write(path(&place), content).unwrap();
            folders_in(&place);
            assert_eq!(path(&place).exists(), stays, "{content:?}");
        }
    }

    #[test]
    fn who_lives_is_told_from_who_has_ended() {
        let place = TempDir::new().unwrap();
        let index = index_in(&place);
        let found = || find_all(place.path(), |_| true).unwrap();
        assert!(found()[0].is_alive && index.has_neighbour(HALF) && !index.has_neighbour(HALF + 1));
        assert!(index.note(b"d"));
        assert!(find_all(place.path(), |_| false).unwrap().is_empty());
        drop(index);
        let held = let_go(&place);
        assert!(!held[0].is_alive && found()[0].is_alive);
        drop(held);
        assert_eq!(folders_in(&place).unwrap(), ["d"]);
        assert!(Index::create(place.path(), HALF, Path::new("/"), &[0; 16]).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_forgotten_is_recorded_again() {
        let place = TempDir::new().unwrap();
        let index = index_in(&place);
        for number in 0..=INDEX_FOLDERS_MAX as u64 {
            assert!(index.note(&number.to_be_bytes()));
        }
        assert_eq!(lock(&index.state).noted.len(), 1);
        let len = fs::metadata(path(&place)).unwrap().len();
        assert!(index.note(&1_u64.to_be_bytes()) && index.note(&1_u64.to_be_bytes()));
        assert_eq!(fs::metadata(path(&place)).unwrap().len(), len + 2 + 1 + 8 + 8);
    }
}
