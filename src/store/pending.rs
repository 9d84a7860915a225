//! What must wait for the end: links, whose targets come first, and the attributes of folders, whose
//! times change with everything that is put in them. A million of them need no memory.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;

use super::Error;
use crate::entry::{Attributes, Entry, Kind, Time};
use crate::limits::{PENDING_BLOCK_LEN, PENDING_ENTRY_LEN_MAX, PENDING_LEN_MAX};
use crate::path::RemotePath;

/// Links and folders that get their place and their attributes at the end. Small amounts stay in
/// memory; the rest is in a file without a name, which goes with it.
#[derive(Debug, Default)]
pub struct Pending {
    pub(super) links: Spool,
    pub(super) folders: Spool,
}

impl Pending {
    /// Adds a link or a folder. Folders must come before what is in them.
    ///
    /// # Errors
    /// It is a file, or there is no room for it.
    pub fn add(&mut self, entry: &Entry) -> Result<(), Error> {
        let spool = match entry.kind {
            Kind::Directory { .. } => &mut self.folders,
            Kind::Symlink { .. } | Kind::HardLink { .. } => &mut self.links,
            Kind::File { .. } => {
                return Err(Error::Refused { path: entry.path.clone(), what: "a file, which waits for nothing" });
            }
        };
        let record = encode(entry);
        if record.len() > PENDING_ENTRY_LEN_MAX {
            return Err(Error::Refused { path: entry.path.clone(), what: "described at too great a length" });
        }
        let pushed = spool.push(&record);
        pushed.map_err(|source| Error::Io { path: entry.path.clone(), act: "keep for the end what is known of", source })
    }

    /// Hands the links to `take` in the order they were added, until it has enough.
    ///
    /// # Errors
    /// What was kept can't be read back.
    pub fn each_link(&self, mut take: impl FnMut(Entry) -> ControlFlow<()>) -> io::Result<()> {
        let mut is_damaged = false;
        self.links.read(Order::AsAdded, |record| match decode(record) {
            Some(entry) => take(entry),
            None => {
                is_damaged = true;
                ControlFlow::Break(())
            }
        })?;
        if is_damaged { Err(damaged()) } else { Ok(()) }
    }

    /// Is there nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.folders.is_empty()
    }
}

/// In which order records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    AsAdded,
    Reversed,
}

/// Records in blocks. Each block of the file stands between two copies of its length (4 bytes), so that
/// it can be read from either end; each record in it follows its own.
#[derive(Debug, Default)]
pub struct Spool {
    block: Vec<u8>,
    file: Option<File>,
    file_len: u64,
}

const LEN_LEN: u64 = 4;

impl Spool {
    fn is_empty(&self) -> bool {
        self.block.is_empty() && self.file_len == 0
    }

    /// Adds a record.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn push(&mut self, record: &[u8]) -> io::Result<()> {
        if self.file_len > PENDING_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too much waits for the end"));
        }
        put(&mut self.block, record);
        if self.block.len() < PENDING_BLOCK_LEN {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        let mut bytes = Vec::with_capacity(self.block.len().saturating_add(8));
        let len = u32::try_from(self.block.len()).map_err(io::Error::other)?.to_be_bytes();
        bytes.extend_from_slice(&len);
        bytes.extend_from_slice(&self.block);
        bytes.extend_from_slice(&len);
        file.write_all_at(&bytes, self.file_len)?;
        self.file_len = self.file_len.saturating_add(bytes.len() as u64);
        self.block.clear();
        Ok(())
    }

    /// Hands all records to `take` in the order they were added, until it has enough.
    ///
    /// # Errors
    /// What was kept can't be read back.
    pub fn each(&self, take: impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
        self.read(Order::AsAdded, take)
    }

    /// Hands all records to `take`, until it has enough.
    pub(super) fn read(&self, order: Order, mut take: impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
        if order == Order::Reversed && read_block(&self.block, order, &mut take)?.is_break() {
            return Ok(());
        }
        let mut block = Vec::new();
        let (mut start, mut end) = (0, self.file_len);
        while let (Some(file), true) = (&self.file, start < end) {
            let mut len = [0; LEN_LEN as usize];
            let at = if order == Order::AsAdded { start } else { end.saturating_sub(LEN_LEN) };
            file.read_exact_at(&mut len, at)?;
            let len = u32::from_be_bytes(len);
            let whole = u64::from(len).saturating_add(2 * LEN_LEN);
            if whole > end.saturating_sub(start) {
                return Err(damaged());
            }
            let at = if order == Order::AsAdded { start } else { end.saturating_sub(whole) };
            block.resize(len as usize, 0);
            file.read_exact_at(&mut block, at.saturating_add(LEN_LEN))?;
            match order {
                Order::AsAdded => start = start.saturating_add(whole),
                Order::Reversed => end = at,
            }
            if read_block(&block, order, &mut take)?.is_break() {
                return Ok(());
            }
        }
        if order == Order::AsAdded {
            let _ = read_block(&self.block, order, &mut take)?;
        }
        Ok(())
    }
}

fn read_block(mut block: &[u8], order: Order, take: &mut impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<ControlFlow<()>> {
    let mut records = Vec::new();
    while !block.is_empty() {
        records.push(run(&mut block).ok_or_else(damaged)?);
    }
    if order == Order::Reversed {
        records.reverse();
    }
    Ok(records.into_iter().try_for_each(take))
}

pub(super) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what was kept for the end can't be read back")
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    // Longer than that is refused as a record, and truncated nowhere.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&len.to_be_bytes());
    to.extend_from_slice(bytes);
}

fn encode(entry: &Entry) -> Vec<u8> {
    let Attributes { mode, owner, xattrs } = &entry.attributes;
    let (kind, mtime, text) = match &entry.kind {
        Kind::Symlink { target, mtime } => (b's', *mtime, &target[..]),
        Kind::HardLink { to } => (b'h', (0, 0), to.as_bytes()),
        Kind::Directory { mtime } => (b'd', *mtime, &b""[..]),
        Kind::File { identity, .. } => (b'f', identity.mtime, &b""[..]),
    };
    let mut record = vec![kind];
    put(&mut record, entry.path.as_bytes());
    put(&mut record, text);
    record.extend_from_slice(&mtime.0.to_be_bytes());
    record.extend_from_slice(&mtime.1.to_be_bytes());
    record.extend_from_slice(&mode.to_be_bytes());
    let (user, group) = owner.unwrap_or_default();
    record.push(owner.is_some().into());
    record.extend_from_slice(&user.to_be_bytes());
    record.extend_from_slice(&group.to_be_bytes());
    for (name, value) in xattrs {
        put(&mut record, name);
        put(&mut record, value);
    }
    record
}

/// The entry of a record; `None` if the disk did not give back what it was given.
pub(super) fn decode(mut record: &[u8]) -> Option<Entry> {
    let rest = &mut record;
    let [kind] = array(rest)?;
    let path = decode_path(run(rest)?)?;
    let text = run(rest)?;
    let mtime: Time = (i64::from_be_bytes(array(rest)?), u32::from_be_bytes(array(rest)?));
    let mode = u16::from_be_bytes(array(rest)?);
    let [has_owner] = array(rest)?;
    let owner = (u32::from_be_bytes(array(rest)?), u32::from_be_bytes(array(rest)?));
    let mut xattrs = Vec::new();
    while !rest.is_empty() {
        xattrs.push((run(rest)?.into(), run(rest)?.into()));
    }
    let kind = match kind {
        b's' => Kind::Symlink { target: text.into(), mtime },
        b'h' => Kind::HardLink { to: decode_path(text)? },
        b'd' => Kind::Directory { mtime },
        _ => return None,
    };
    let owner = (has_owner != 0).then_some(owner);
    Some(Entry { path, kind, attributes: Attributes { mode, owner, xattrs } })
}

fn decode_path(bytes: &[u8]) -> Option<RemotePath> {
    if bytes.is_empty() { Some(RemotePath::root()) } else { RemotePath::parse(bytes).ok() }
}

fn array<const LEN: usize>(rest: &mut &[u8]) -> Option<[u8; LEN]> {
    rest.split_off(..LEN)?.try_into().ok()
}

fn run<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_be_bytes(array(rest)?);
    rest.split_off(..len as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(number: usize) -> Entry {
        let attributes =
            Attributes { mode: 0o755, owner: Some((1, number as u32)), xattrs: vec![(b"user.a"[..].into(), b""[..].into())] };
        let path = RemotePath::parse(format!("folder {number}").as_bytes()).unwrap();
        Entry { path, kind: Kind::Directory { mtime: (-(number as i64), 5) }, attributes }
    }

    #[test]
    fn what_was_added_comes_back_in_either_order() {
        for count in [0, 1, 2, 700, 20_000] {
            let mut pending = Pending::default();
            for number in 0..count {
                pending.add(&folder(number)).unwrap();
            }
            assert_eq!((pending.is_empty(), pending.folders.file.is_some()), (count == 0, count == 20_000));
            assert!(pending.folders.block.len() < PENDING_BLOCK_LEN);
            for order in [Order::AsAdded, Order::Reversed] {
                let mut seen = 0;
                let all = pending.folders.read(order, |record| {
                    let number = if order == Order::AsAdded { seen } else { count - 1 - seen };
                    assert_eq!(decode(record), Some(folder(number)));
                    seen += 1;
                    ControlFlow::Continue(())
                });
                all.unwrap();
                assert_eq!(seen, count);
            }
        }
    }

    #[test]
    fn links_and_the_root_come_back() {
        for entry in [
            Entry { path: RemotePath::root(), kind: Kind::Directory { mtime: (i64::MIN, 0) }, attributes: Attributes::default() },
            Entry {
                path: RemotePath::parse(b"\xff/\n").unwrap(),
                kind: Kind::Symlink { target: b"/../\xfe"[..].into(), mtime: (i64::MAX, 999_999_999) },
                attributes: Attributes { mode: 0o777, owner: Some((0, u32::MAX)), xattrs: Vec::new() },
            },
            Entry {
                path: RemotePath::parse(b"h").unwrap(),
                kind: Kind::HardLink { to: RemotePath::parse(b"a/b").unwrap() },
                attributes: Attributes::default(),
            },
        ] {
            let record = encode(&entry);
            assert_eq!(decode(&record), Some(entry));
            for cut in 0..record.len() {
                assert_eq!(decode(&record[..cut]), None);
            }
        }
    }

    #[test]
    fn a_disk_that_gives_back_something_else_is_an_error() {
        let mut pending = Pending::default();
        for number in 0..5000 {
            pending.add(&folder(number)).unwrap();
        }
        let spool = &pending.folders;
        let (file, len) = (spool.file.as_ref().unwrap(), spool.file_len);
        for at in [0, len - 4, 4, 8] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x80], at).unwrap();
            let damaged = [Order::AsAdded, Order::Reversed].map(|order| {
                let mut is_whole = true;
                let read = spool.read(order, |record| {
                    is_whole &= decode(record).is_some();
                    ControlFlow::Continue(())
                });
                read.is_err() || !is_whole
            });
            assert!(damaged.contains(&true), "at {at}");
            file.write_all_at(&byte, at).unwrap();
        }
        file.set_len(len / 2).unwrap();
        assert!(spool.read(Order::AsAdded, |_| ControlFlow::Continue(())).is_err());
    }

    #[test]
    fn what_is_described_at_too_great_a_length_is_refused() {
        let mut entry = folder(1);
        entry.attributes.xattrs = vec![(b"user.a"[..].into(), vec![0; PENDING_ENTRY_LEN_MAX].into())];
        assert!(Pending::default().add(&entry).is_err());
    }
}
