//! Where a job's entries land: files that come whole or in ranges, folders and links that wait for the
//! end. A receiver has one for each session that brings something; who pulls has one of its own.

mod end;
mod take;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::digest::Checksum;
use crate::entry::{Entry, Identity, Kind};
use crate::limits::{PUBLISHED_MAX, VOIDED_MAX};
use crate::path::RemotePath;
use crate::progress::{Counter, Timer};
use crate::protocol::{Known, Totals};
use crate::store::{self, Event, Folders, Incoming, Made, OnExisting, Pending, Store, There};

pub use end::End;
pub use take::Taker;

/// How entries land.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How blocks are verified.
    pub checksum: Checksum,
    /// Are files that are replaced kept under another name?
    pub keeps_old: bool,
    /// Is all to be on disk before the end?
    pub syncs: bool,
    /// Is only to be told what is there, and nothing changed?
    pub is_dry: bool,
}

/// What lands in one folder of a store, which each call is given.
#[derive(Debug)]
pub struct Landing {
    /// The folder that its paths are below.
    pub base: RemotePath,
    /// Was it made for this?
    pub is_new: bool,
    rules: Rules,
    /// What waits for the end.
    pending: Mutex<Pending>,
    /// The folders that were made for it and not described.
    made: Arc<Made>,
    /// Files of which something is missing.
    incoming: Mutex<HashMap<(RemotePath, Identity), Arc<Incoming>>>,
    /// Files that come in one piece, while they come: one a connection at the most.
    in_one_piece: Mutex<Vec<Arc<Incoming>>>,
    /// Files whose source changed.
    voided: Mutex<HashSet<(RemotePath, Identity)>>,
    published: Mutex<Published>,
    /// Has the end begun? Held by whoever changes the tree meanwhile.
    is_shut: RwLock<bool>,
    /// What was done.
    pub counts: Counts,
}

/// The files that came in pieces and were published last.
#[derive(Debug, Default)]
struct Published {
    known: HashSet<(RemotePath, Identity)>,
    in_order: VecDeque<(RemotePath, Identity)>,
}

impl Published {
    fn add(&mut self, key: (RemotePath, Identity)) {
        if !self.known.insert(key.clone()) {
            return;
        }
        self.in_order.push_back(key);
        if self.in_order.len() > PUBLISHED_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// What was done, and where the time went.
#[derive(Debug, Default)]
pub struct Counts {
    /// Files published.
    pub files: Counter,
    /// Bytes written.
    pub bytes: Counter,
    /// Folders described.
    pub folders: Counter,
    /// Links made.
    pub links: Counter,
    /// Entries that are not as they should be.
    pub failed: Counter,
    /// Waiting for bytes.
    pub receiving: Timer,
    /// In digests.
    pub verifying: Timer,
    /// In the file system.
    pub writing: Timer,
}

impl Counts {
    /// All of them, as they are told.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let microseconds = |timer: &Timer| u64::try_from(timer.sum().as_micros()).unwrap_or(u64::MAX);
        Totals {
            files: self.files.sum(),
            bytes: self.bytes.sum(),
            folders: self.folders.sum(),
            links: self.links.sum(),
            failed: self.failed.sum(),
            receiving_us: microseconds(&self.receiving),
            verifying_us: microseconds(&self.verifying),
            writing_us: microseconds(&self.writing),
        }
    }
}

/// Why an entry is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The end has begun.
    #[error("the job has ended")]
    TooLate,
    /// Nothing is to be changed.
    #[error("this job is to change nothing")]
    OnlyAsking,
    /// It can't be.
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl Landing {
    /// One in the folder `base`, that `made` notes what was made for, and which was made itself where it
    /// `is_new`.
    #[must_use]
    pub fn new(base: RemotePath, is_new: bool, made: Arc<Made>, rules: Rules) -> Self {
        Self {
            base,
            is_new,
            rules,
            pending: Mutex::default(),
            made,
            incoming: Mutex::default(),
            in_one_piece: Mutex::default(),
            voided: Mutex::default(),
            published: Mutex::default(),
            is_shut: RwLock::default(),
            counts: Counts::default(),
        }
    }

    /// The folders that one who works on it holds open.
    #[must_use]
    pub fn folders(&self) -> Folders {
        Folders::of(Arc::clone(&self.made))
    }

    /// Holds off the end while the tree is changed; `None` where it has begun. What a connection that was
    /// given up still held must not be written over what came after.
    pub fn hold_open(&self) -> Option<RwLockReadGuard<'_, bool>> {
        let is_shut = self.is_shut.read().unwrap_or_else(PoisonError::into_inner);
        (!*is_shut).then_some(is_shut)
    }

    /// Which of these files are there already?
    pub fn have(&self, store: &Store, folders: &mut Folders, batch: &[Known]) -> Vec<There> {
        let mut is_there = |known: &Known| {
            let path = self.base.join(&known.path).map_err(store::Error::from)?;
            let identity = identity_of(known);
            if self.rules.is_dry {
                Ok(if store.has_as_is(folders, &path, &identity)? { There::Yes } else { There::No })
            } else {
                store.has(folders, &path, &identity, &known.attributes)
            }
        };
        let Some(_open) = self.hold_open() else { return vec![There::No; batch.len()] };
        // What can't be looked at is brought, and refused by name if it can't be written either.
        batch.iter().map(|known| is_there(known).unwrap_or(There::No)).collect()
    }

    /// Has a file that is in doubt this BLAKE3 digest? `going` is called now and then; what it says ends that.
    ///
    /// # Errors
    /// The end has begun.
    pub fn verify(
        &self, store: &Store, folders: &mut Folders, (known, digest): (&Known, &[u8; 32]),
        going: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<bool, NotTaken> {
        let _open = self.hold_open().ok_or(NotTaken::TooLate)?;
        let Ok(path) = self.base.join(&known.path) else { return Ok(false) };
        // What can't be read is brought anew.
        Ok(store.verify(folders, &path, (&identity_of(known), digest), &known.attributes, going).unwrap_or(false))
    }

    /// Takes note of a folder, which is made, or of a link; gives the path of a folder that was made below
    /// the base.
    ///
    /// # Errors
    /// It can't be made, or nothing is taken any more.
    pub fn describe(&self, store: &Store, folders: &mut Folders, entry: &Entry) -> Result<Option<RemotePath>, NotTaken> {
        let _open = self.hold_open().ok_or(NotTaken::TooLate)?;
        if self.rules.is_dry {
            return Err(NotTaken::OnlyAsking);
        }
        let path = self.base.join(&entry.path).map_err(store::Error::from)?;
        let mut entry = Entry { path, ..entry.clone() };
        let mut made = None;
        match &mut entry.kind {
            Kind::Directory { .. } if entry.path == self.base => {
                // The root is the store's own, whatever is brought into it.
                if entry.path.is_root() && !self.is_new {
                    return Ok(None);
                }
                store.make_described_folder(folders, &entry.path)?;
            }
            Kind::Directory { .. } => {
                store.make_described_folder(folders, &entry.path)?;
                self.counts.folders.add(1);
                made = Some(entry.path.clone());
            }
            Kind::HardLink { to } => *to = self.base.join(to).map_err(store::Error::from)?,
            Kind::Symlink { .. } | Kind::File { .. } => {}
        }
        lock(&self.pending).add(&entry)?;
        Ok(made)
    }

    /// What happens to files that are there under the names of others.
    fn on_existing(&self) -> OnExisting {
        if self.rules.keeps_old { OnExisting::KeepAside } else { OnExisting::Replace }
    }

    /// Keeps a file of which something is missing.
    fn keep(&self, incoming: &Arc<Incoming>) {
        // One that was there may have ended with another session's trouble.
        lock(&self.incoming).insert(key_of(incoming), Arc::clone(incoming));
    }

    /// Lets go of a file that is whole, or will never be.
    fn let_go(&self, incoming: &Incoming) {
        lock(&self.incoming).remove(&key_of(incoming));
    }

    /// Notes a file whose source changed: what still comes of it does not count.
    fn void(&self, incoming: &Incoming) {
        let mut voided = lock(&self.voided);
        if voided.len() < VOIDED_MAX {
            voided.insert(key_of(incoming));
        }
        drop(voided);
        // After that: another connection may be about to begin it again.
        self.let_go(incoming);
    }

    /// Notes that nothing more comes of a file, whose source is not what it was or can't be had: what came
    /// of it goes.
    pub fn give_up(&self, path: &RemotePath, identity: &Identity) {
        let Ok(path) = self.base.join(path) else { return };
        let incoming = lock(&self.incoming).get(&(path, *identity)).cloned();
        if let Some(incoming) = incoming {
            self.void(&incoming);
            incoming.void();
        }
    }

    /// Did its source change?
    fn is_voided(&self, path: &RemotePath, identity: &Identity) -> bool {
        let voided = lock(&self.voided);
        !voided.is_empty() && voided.contains(&(path.clone(), *identity))
    }

    /// Notes a file that came in pieces and is whole: no piece of it is needed any more, whatever becomes of it there.
    fn note_published(&self, incoming: &Incoming) {
        lock(&self.published).add(key_of(incoming));
        self.let_go(incoming);
    }

    /// Was it published lately?
    fn is_published(&self, path: &RemotePath, identity: &Identity) -> bool {
        lock(&self.published).known.contains(&(path.clone(), *identity))
    }

    /// Notes a file that comes in one piece, of which only its connection knows otherwise: the end is not
    /// to leave it behind.
    fn note_begun(&self, incoming: &Arc<Incoming>) {
        lock(&self.in_one_piece).push(Arc::clone(incoming));
    }

    /// Notes that such a file comes no more, and removes it if it has not become whole.
    fn note_ended(&self, incoming: &Incoming) {
        // Removed first: an end that does not find it here any more is not to run ahead of that.
        incoming.discard();
        let mut all = lock(&self.in_one_piece);
        if let Some(at) = all.iter().position(|other| ptr::eq(Arc::as_ptr(other), incoming)) {
            all.swap_remove(at);
        }
    }

    /// Gives folders that nobody described the usual mode, where no end did.
    pub fn let_folders_go(&self, store: &Store) {
        store.settle(&self.made, &mut |event| {
            if let Event::Failed(path, why) = event {
                tracing::warn!("the mode of {path}, made for a job that did not end: {why}");
            }
        });
    }
}

fn identity_of(known: &Known) -> Identity {
    Identity { size: known.size, mtime: known.mtime, tag: [0; 16] }
}

/// Under which a file is known here: another state of its source is another file.
fn key_of(incoming: &Incoming) -> (RemotePath, Identity) {
    (incoming.path().clone(), *incoming.identity())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
