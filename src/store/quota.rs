//! What a store may hold, what it holds, and what is promised to files on their way: arithmetic alone.
//!
//! A file is counted from before its first byte until it goes. What is promised is given back by
//! itself, so no failure can forget it. One lock, held for a few additions.

use std::collections::HashMap;
use std::fmt;
use std::sync::PoisonError;

use super::sync::{Arc, Mutex, MutexGuard};
use crate::limits::{QUOTA_BYTES_DEFAULT, QUOTA_FILES_DEFAULT};

/// What a store may hold at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, and whatever else is no folder.
    pub files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: QUOTA_BYTES_DEFAULT, files: QUOTA_FILES_DEFAULT }
    }
}

/// What a store holds, or a part of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes.
    pub bytes: u64,
    /// Files, and whatever else is no folder.
    pub files: u64,
}

impl Usage {
    pub(super) const NONE: Self = Self { bytes: 0, files: 0 };

    /// One file of this size.
    pub(super) fn file(bytes: u64) -> Self {
        Self { bytes, files: 1 }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), files: self.files.saturating_add(other.files) }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), files: self.files.saturating_sub(other.files) }
    }

    /// What is in both.
    fn shared(self, other: Self) -> Self {
        Self { bytes: self.bytes.min(other.bytes), files: self.files.min(other.files) }
    }

    fn is_within(self, other: Self) -> bool {
        self.bytes <= other.bytes && self.files <= other.files
    }
}

/// Which file it is, whatever its names: the numbers of its device and its inode.
pub(super) type Inode = (u32, u32, u64);

/// What is needed and is not left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What is needed beyond what is held.
    pub needs: Usage,
    /// What is left.
    pub left: Usage,
    /// What there may be.
    pub limits: Limits,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needs, left, limits } = self;
        if needs.bytes > left.bytes {
            let [needs, left, limit] = sizes([needs.bytes, left.bytes, limits.bytes]);
            return write!(f, "needs {needs}, {left} of {limit} left");
        }
        let plural = if needs.files == 1 { "" } else { "s" };
        write!(f, "needs {} more file{plural}, {} of {} files left", needs.files, left.files, limits.files)
    }
}

/// Sizes for people: `1.2 GiB`. In bytes where the first two, of which one is too large, would look the
/// same.
pub(super) fn sizes<const N: usize>(bytes: [u64; N]) -> [String; N] {
    let rounded = bytes.map(|bytes| {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let (mut size, mut unit) = (bytes as f64, "bytes");
        for larger in UNITS {
            // Rounded it would be written as 1024 of the smaller one.
            if size < 1023.995 {
                break;
            }
            (size, unit) = (size / 1024.0, larger);
        }
        let digits = format!("{size:.2}");
        format!("{} {unit}", digits.trim_end_matches('0').trim_end_matches('.'))
    });
    match rounded.as_slice() {
        [one, other, ..] if one == other => bytes.map(|bytes| format!("{bytes} bytes")),
        _ => rounded,
    }
}

/// The account of a store. Clones are of one account.
#[derive(Debug, Clone)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
}

#[derive(Debug)]
struct Book {
    limits: Limits,
    /// By what is there, and on its way nowhere.
    settled: Usage,
    /// For what is on its way.
    reserved: Usage,
    /// Files that are to be replaced, and who was credited with what.
    claims: HashMap<Inode, Claim>,
    claimed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    inode: Inode,
    /// Of all claims that ever were.
    number: u64,
    credit: Usage,
}

impl Book {
    fn used(&self) -> Usage {
        self.settled.plus(self.reserved)
    }

    fn check(&self, needs: Usage) -> Result<(), Refusal> {
        let limits = Usage { bytes: self.limits.bytes, files: self.limits.files };
        let left = limits.minus(self.used());
        if needs.is_within(left) { Ok(()) } else { Err(Refusal { needs, left, limits: self.limits }) }
    }

    fn reserve(&mut self, needs: Usage) -> Result<(), Refusal> {
        self.check(needs)?;
        self.reserved = self.reserved.plus(needs);
        Ok(())
    }

    fn release(&mut self, held: Usage) {
        debug_assert!(held.is_within(self.reserved), "{held:?} of {:?} given back", self.reserved);
        self.reserved = self.reserved.minus(held);
    }

    /// What was there is gone. Whoever was credited with it is charged from here on, which is never
    /// more than what went.
    fn forget(&mut self, inode: Inode, gone: Usage) {
        // Somebody else may have put it there since all was counted.
        self.settled = self.settled.minus(gone);
        if let Some(claim) = self.claims.remove(&inode) {
            self.reserved = self.reserved.plus(claim.credit);
        }
    }
}

impl Ledger {
    /// The account of a store that holds so much.
    #[must_use]
    pub fn new(limits: Limits, usage: Usage) -> Self {
        let book = Book { limits, settled: usage, reserved: Usage::NONE, claims: HashMap::new(), claimed: 0 };
        Self { book: Arc::new(Mutex::new(book)) }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Whole: nothing panics half-way through a change.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store may hold.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.lock().limits
    }

    /// What it holds, files on their way included.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.lock().used()
    }

    /// From here on it may hold so much. What was promised before stays promised.
    pub fn set_limits(&self, limits: Limits) {
        self.lock().limits = limits;
    }

    /// Promises that there will be room.
    ///
    /// # Errors
    /// There is none.
    pub fn reserve(&self, needs: Usage) -> Result<Reservation, Refusal> {
        self.lock().reserve(needs)?;
        Ok(self.reservation(needs))
    }

    /// The same, only where a quarter of everything is left then: whoever may replace something does not
    /// have to look what.
    pub(super) fn reserve_amply(&self, needs: Usage) -> Option<Reservation> {
        let mut book = self.lock();
        let margin = Usage { bytes: book.limits.bytes / 4, files: book.limits.files / 4 };
        book.check(needs.plus(margin)).ok()?;
        book.reserved = book.reserved.plus(needs);
        drop(book);
        Some(self.reservation(needs))
    }

    /// Promises room for what is to replace a file of so much, which is counted once: what both need is
    /// credited to the first who is to replace it.
    ///
    /// # Errors
    /// There is no room.
    pub(super) fn reserve_in_place_of(&self, (inode, old): (Inode, Usage), needs: Usage) -> Result<Reservation, Refusal> {
        let mut book = self.lock();
        if book.claims.contains_key(&inode) {
            book.reserve(needs)?;
            drop(book);
            return Ok(self.reservation(needs));
        }
        let credit = needs.shared(old);
        let held = needs.minus(credit);
        book.reserve(held)?;
        book.claimed = book.claimed.wrapping_add(1);
        let claim = Claim { inode, number: book.claimed, credit };
        book.claims.insert(inode, claim);
        drop(book);
        Ok(Reservation { ledger: self.clone(), held, claim: Some(claim) })
    }

    /// Promises room for all of a file of which `part` is there and counted.
    ///
    /// # Errors
    /// There is none for the rest.
    pub(super) fn resume(&self, part: Usage, whole: Usage) -> Result<Reservation, Refusal> {
        let mut book = self.lock();
        // Not all of it is counted where somebody else put it there.
        let counted = part.shared(book.settled);
        book.check(whole.minus(counted))?;
        book.settled = book.settled.minus(counted);
        book.reserved = book.reserved.plus(whole);
        drop(book);
        Ok(self.reservation(whole))
    }

    /// What was there is gone.
    pub(super) fn give_back(&self, gone: Usage) {
        let mut book = self.lock();
        book.settled = book.settled.minus(gone);
    }

    /// A file that was there is gone, by nobody who takes its place.
    pub(super) fn forget(&self, (inode, gone): (Inode, Usage)) {
        self.lock().forget(inode, gone);
    }

    fn reservation(&self, held: Usage) -> Reservation {
        Reservation { ledger: self.clone(), held, claim: None }
    }
}

/// Room that was promised; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    ledger: Ledger,
    held: Usage,
    /// On what it is to replace.
    claim: Option<Claim>,
}

impl Reservation {
    /// Promises more.
    ///
    /// # Errors
    /// There is no room for it. What was promised stays promised.
    pub fn grow(&mut self, more: Usage) -> Result<(), Refusal> {
        self.ledger.lock().reserve(more)?;
        self.held = self.held.plus(more);
        Ok(())
    }

    /// Gives back what is beyond so much.
    pub fn shrink_to(&mut self, rest: Usage) {
        let ledger = self.ledger.clone();
        let mut book = ledger.lock();
        self.take_up(&book);
        let rest = rest.shared(self.held);
        book.release(self.held.minus(rest));
        self.held = rest;
    }

    /// What was promised is there from here on.
    pub fn commit(self) {
        self.settle(None);
    }

    /// The same, and `old` is gone by it.
    pub(super) fn commit_in_place_of(self, old: (Inode, Usage)) {
        self.settle(Some(old));
    }

    /// Is it credited with what it is to replace?
    pub(super) fn is_credited(&self) -> bool {
        self.claim.is_some()
    }

    /// What it is about to replace is `old`: where that is not what it was credited with, it has to
    /// have all the room itself.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn expect(&mut self, old: Option<Inode>) -> Result<(), Refusal> {
        let Some(claim) = self.claim.filter(|claim| Some(claim.inode) != old) else { return Ok(()) };
        let ledger = self.ledger.clone();
        let mut book = ledger.lock();
        self.take_up(&book);
        if self.claim.is_some() {
            book.reserve(claim.credit)?;
            book.claims.remove(&claim.inode);
            (self.claim, self.held) = (None, self.held.plus(claim.credit));
        }
        Ok(())
    }

    /// The part that it was to go on with is somebody else's, and counts as before.
    ///
    /// # Errors
    /// There is no room for both.
    pub(super) fn leave_part(&self, part: Usage) -> Result<(), Refusal> {
        let mut book = self.ledger.lock();
        book.check(part)?;
        book.settled = book.settled.plus(part);
        Ok(())
    }

    fn settle(mut self, old: Option<(Inode, Usage)>) {
        let ledger = self.ledger.clone();
        let mut book = ledger.lock();
        self.take_up(&book);
        let (held, claim) = (std::mem::take(&mut self.held), self.claim.take());
        book.release(held);
        book.settled = book.settled.plus(held);
        if let Some(claim) = claim {
            book.claims.remove(&claim.inode);
            book.settled = book.settled.plus(claim.credit);
        }
        if let Some((inode, gone)) = old {
            book.forget(inode, gone);
        }
    }

    /// Notices that what it was credited with is gone.
    fn take_up(&mut self, book: &Book) {
        if let Some(claim) = self.claim
            && book.claims.get(&claim.inode) != Some(&claim)
        {
            (self.claim, self.held) = (None, self.held.plus(claim.credit));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held == Usage::NONE && self.claim.is_none() {
            return;
        }
        let ledger = self.ledger.clone();
        let mut book = ledger.lock();
        self.take_up(&book);
        book.release(self.held);
        if let Some(claim) = self.claim {
            book.claims.remove(&claim.inode);
        }
    }
}
