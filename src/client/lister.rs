//! The control connection of a pull: opens the session, lists folder by folder, finds out what is here
//! already, has folders and links noted, and queues the files that are to be fetched.
//!
//! A server that lists goes on whether or not there is room for more files: what can't be queued at once
//! waits in an unnamed file, so that no server waits until it gives the client up.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;

use anyhow::{Context as _, bail};

use super::digests::note_there;
use super::fetch::Site;
use super::leave_out;
use super::links::Links;
use super::plan::Sending;
use super::pull::Pull;
use super::queue::Queue;
use super::talk::{Talk, out_of_turn};
use super::trouble::Trouble;
use super::{NoteDigest, TellPath};
use crate::entry::{Attributes, Entry, FileMeta, Identity, Kind, Listed, ListedKind};
use crate::limits::{
    ASKED_LEN_MAX, FOLDERS_LISTED_LEN_MAX, LINK_COST, LISTED_AT_ONCE_MAX, LISTED_MAX, NAME_LEN_MAX, PATH_LEN_MAX,
};
use crate::path::RemotePath;
use crate::progress::Progress;
use crate::protocol::{Answer, BUSY, Known, List, Page, Reply, Status, v2};
use crate::stop::Stop;
use crate::store::{Folders, Pending, Spool, There};

/// Who lists.
#[derive(Clone, Copy)]
pub(super) struct Lister<'a> {
    pub(super) job: &'a Pull<'a>,
    pub(super) site: Site<'a>,
    pub(super) queue: &'a Queue<'a>,
    pub(super) progress: &'a Progress,
    pub(super) stop: &'a Stop,
    /// Larger files come in parts, of which some may be here already.
    pub(super) part_len: u64,
    /// Told the digest of each file that is here, where that is wanted.
    pub(super) digest: Option<NoteDigest<'a>>,
    /// Told of what would be fetched, where nothing is to be fetched.
    pub(super) dry: Option<TellPath<'a>>,
}

/// How far the listing is.
pub(super) struct Listing {
    /// Folders that are still to be listed, the one found last first.
    waiting: Vec<RemotePath>,
    waiting_len: usize,
    /// Folders that the server was asked to list, in that order, and bytes of those requests.
    asked: VecDeque<(RemotePath, usize)>,
    asked_len: usize,
    /// Names that were listed so far.
    listed: u64,
    links: Links<Identity>,
    folders: Folders,
    /// Files to be queued.
    files: Vec<Sending>,
    /// What was listed while there was no room for more.
    spool: Option<Spool>,
    /// Hard links, until all files are settled.
    held: Pending,
    /// Files that are here already and whose digest is wanted: who lists is not to wait while they are read.
    unread: Spool,
}

/// Asks what is at `path`.
///
/// # Errors
/// It can't be said; those of the stream.
pub(super) fn look(talk: &mut Talk<'_>, job: &Pull<'_>, path: &RemotePath) -> Result<Listed, Trouble> {
    let mut bytes = Vec::new();
    v2::request::encode_list(&mut bytes, &list_of(job, path.clone(), true));
    talk.say(&bytes)?;
    talk.flush()?;
    loop {
        match talk.next_reply(&job.dialer)? {
            Reply::Heartbeat => {}
            Reply::Listed(Page { is_last: true, mut entries }) if entries.len() == 1 => {
                return entries.pop().ok_or_else(|| out_of_turn(&job.dialer));
            }
            Reply::Answer(Answer { status: Status::Refused, reason }) | Reply::Refused(reason) => {
                return Err(Trouble::Fatal(anyhow::anyhow!("{} refuses: {reason}", job.dialer)));
            }
            _ => return Err(out_of_turn(&job.dialer)),
        }
    }
}

fn list_of(job: &Pull<'_>, path: RemotePath, itself: bool) -> List {
    List { path, itself, owner: job.look.owner, xattrs: job.look.xattrs }
}

/// All about a file that is listed, but its names.
pub(super) fn meta_of(listed: &Listed) -> Option<FileMeta> {
    match listed.kind {
        ListedKind::File { identity, is_sparse, .. } => {
            Some(FileMeta { identity, attributes: listed.attributes.clone(), is_sparse })
        }
        _ => None,
    }
}

impl<'a> Lister<'a> {
    /// Lists all that is below `top`, which was looked at, and queues what is to be fetched.
    ///
    /// # Errors
    /// The connection broke, or the server refuses or lists what can't be.
    pub(super) fn run(&self, talk: &mut Talk<'_>, top: Listed) -> Result<Listing, Trouble> {
        let mut listing = Listing {
            waiting: Vec::new(),
            waiting_len: 0,
            asked: VecDeque::new(),
            asked_len: 0,
            listed: 0,
            links: Links::default(),
            folders: self.site.landing.folders(),
            files: Vec::new(),
            spool: None,
            held: Pending::default(),
            unread: Spool::default(),
        };
        self.take_top(&mut listing, top).map_err(Trouble::Fatal)?;
        self.push(&mut listing);
        while !self.queue.is_aborted() {
            self.ask_for_more(&mut listing, talk)?;
            if listing.asked.is_empty() {
                // Nobody waits for this end now.
                if self.read_spool(&mut listing).map_err(Trouble::Fatal)? || !listing.waiting.is_empty() {
                    continue;
                }
                break;
            }
            let reply = talk.next_reply(&self.job.dialer)?;
            self.take_reply(&mut listing, reply)?;
        }
        Ok(listing)
    }

    /// Takes note of what the session's own path is.
    fn take_top(&self, listing: &mut Listing, top: Listed) -> anyhow::Result<()> {
        let shown = self.job.shown();
        match &top.kind {
            ListedKind::Directory { mtime } => {
                let kind = Kind::Directory { mtime: *mtime };
                self.describe(listing, Entry { path: RemotePath::root(), kind, attributes: top.attributes });
                listing.waiting.push(RemotePath::root());
                Ok(())
            }
            ListedKind::File { identity, is_sparse, .. } => {
                let kind = Kind::File { identity: *identity, is_sparse: *is_sparse };
                self.take_entry(listing, Entry { path: self.job.file_name()?, kind, attributes: top.attributes });
                Ok(())
            }
            ListedKind::Symlink { .. } => bail!("can't fetch '{shown}': it is a symbolic link; name what it leads to"),
            ListedKind::Special { .. } => bail!("can't fetch '{shown}': it is neither a folder nor a regular file"),
        }
    }

    /// Asks for the next folders, as far as that may be ahead.
    fn ask_for_more(&self, listing: &mut Listing, talk: &mut Talk<'_>) -> Result<(), Trouble> {
        // What waits already is more than there is room for.
        if listing.spool.is_some() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        while listing.asked.len() < LISTED_AT_ONCE_MAX
            && listing.asked_len + PATH_LEN_MAX + NAME_LEN_MAX < ASKED_LEN_MAX
            && let Some(folder) = listing.waiting.pop()
        {
            let before = bytes.len();
            v2::request::encode_list(&mut bytes, &list_of(self.job, folder.clone(), false));
            let len = bytes.len() - before;
            listing.waiting_len = listing.waiting_len.saturating_sub(folder.as_bytes().len() + LINK_COST);
            listing.asked_len += len;
            listing.asked.push_back((folder, len));
        }
        if !bytes.is_empty() {
            talk.say(&bytes)?;
            talk.flush()?;
        }
        Ok(())
    }

    fn take_reply(&self, listing: &mut Listing, reply: Reply) -> Result<(), Trouble> {
        let Some((folder, len)) = listing.asked.front().cloned() else { return Err(out_of_turn(&self.job.dialer)) };
        let nonsense = |what: &str| Trouble::Fatal(anyhow::anyhow!("{} {what}", self.job.dialer));
        match reply {
            Reply::Heartbeat => return Ok(()),
            Reply::Listed(page) => {
                if page.entries.is_empty() && !page.is_last {
                    return Err(nonsense("lists nothing, and does not end"));
                }
                listing.listed += page.entries.len() as u64;
                if listing.listed > LISTED_MAX {
                    return Err(nonsense(&format!("lists more than {LISTED_MAX} names")));
                }
                let is_last = page.is_last;
                if listing.spool.is_some() || self.queue.is_full() {
                    keep(listing, &folder, page).map_err(|error| Trouble::Fatal(error.into()))?;
                } else {
                    self.take_page(listing, &folder, page).map_err(Trouble::Fatal)?;
                    self.push(listing);
                }
                if !is_last {
                    return Ok(());
                }
            }
            Reply::Answer(Answer { status: Status::Refused, reason }) => leave_out(self.progress, &folder, &reason),
            // It may pass.
            Reply::Refused(why) if why.starts_with(BUSY) => return Err(Trouble::Broken(io::Error::other(why))),
            Reply::Refused(why) => return Err(nonsense(&format!("refuses: {why}"))),
            _ => return Err(out_of_turn(&self.job.dialer)),
        }
        listing.asked.pop_front();
        listing.asked_len -= len;
        Ok(())
    }

    /// Takes what was kept while there was no room; false where nothing was.
    fn read_spool(&self, listing: &mut Listing) -> anyhow::Result<bool> {
        let Some(spool) = listing.spool.take() else { return Ok(false) };
        let mut taken = Ok(());
        spool
            .each(|record| {
                taken = kept(record).and_then(|(folder, page)| self.take_page(listing, &folder, page));
                if taken.is_ok() && self.push(listing) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .context("what was listed can't be read back")?;
        taken.map(|()| true)
    }

    /// Hands the files over that are to be fetched, waiting for room; false when nothing more is to be done.
    fn push(&self, listing: &mut Listing) -> bool {
        listing.files.is_empty() || self.queue.push(std::mem::take(&mut listing.files))
    }

    fn take_page(&self, listing: &mut Listing, folder: &RemotePath, page: Page) -> anyhow::Result<()> {
        for listed in page.entries {
            if listed.name.is_empty() {
                bail!("{} lists something without a name in {folder}", self.job.dialer);
            }
            self.take_listed(listing, folder, listed)?;
        }
        Ok(())
    }

    fn take_listed(&self, listing: &mut Listing, folder: &RemotePath, listed: Listed) -> anyhow::Result<()> {
        let path = match folder.join(&RemotePath::parse(&listed.name)?) {
            Ok(path) => path,
            Err(error) => {
                leave_out(self.progress, folder, &format!("left out what is in it: {error}"));
                return Ok(());
            }
        };
        let is_folder = matches!(listed.kind, ListedKind::Directory { .. });
        if self.job.look.filter.leaves_out(path.as_path(), is_folder) {
            self.progress.excluded.add(1);
            return Ok(());
        }
        let kind = match listed.kind {
            ListedKind::Directory { mtime } => {
                let len = listing.waiting_len + path.as_bytes().len() + LINK_COST;
                if len > FOLDERS_LISTED_LEN_MAX {
                    leave_out(self.progress, &path, "left out: too many folders side by side");
                    return Ok(());
                }
                listing.waiting_len = len;
                listing.waiting.push(path.clone());
                Kind::Directory { mtime }
            }
            ListedKind::Symlink { target, mtime } => Kind::Symlink { target, mtime },
            ListedKind::Special { .. } => {
                leave_out(self.progress, &path, "left out: neither a regular file, nor a folder, nor a symbolic link");
                return Ok(());
            }
            ListedKind::File { identity, is_sparse, names } => {
                // Names of one file are in one state.
                match if names > 1 { listing.links.meet(identity, names, &path) } else { None } {
                    Some(to) => Kind::HardLink { to },
                    None => Kind::File { identity, is_sparse },
                }
            }
        };
        self.take_entry(listing, Entry { path, kind, attributes: listed.attributes });
        Ok(())
    }

    fn take_entry(&self, listing: &mut Listing, entry: Entry) {
        match entry.kind {
            Kind::File { identity, is_sparse } => {
                self.progress.found_files.add(1);
                self.progress.found_bytes.add(identity.size);
                self.take_file(listing, entry.path, FileMeta { identity, attributes: entry.attributes, is_sparse });
            }
            Kind::HardLink { .. } => {
                self.progress.found_links.add(1);
                let entry = Entry { attributes: Attributes::default(), ..entry };
                match self.dry {
                    Some(tell) => tell(&entry.path),
                    None => {
                        if let Err(error) = listing.held.add(&entry) {
                            leave_out(self.progress, &entry.path, &error.to_string());
                        }
                    }
                }
            }
            Kind::Symlink { .. } => {
                self.progress.found_links.add(1);
                self.describe(listing, entry);
            }
            Kind::Directory { .. } => self.describe(listing, entry),
        }
    }

    fn describe(&self, listing: &mut Listing, entry: Entry) {
        let is_folder = matches!(entry.kind, Kind::Directory { .. });
        match self.dry {
            Some(_) if is_folder => return,
            Some(tell) => return tell(&entry.path),
            None => {}
        }
        match self.site.landing.describe(self.site.store, &mut listing.folders, &entry) {
            Ok(_) if is_folder && !entry.path.is_root() => self.progress.done_directories.add(1),
            Ok(_) => {}
            Err(error) => leave_out(self.progress, &entry.path, &error.to_string()),
        }
    }

    /// Counts a file that is here, or has it fetched.
    fn take_file(&self, listing: &mut Listing, path: RemotePath, meta: FileMeta) {
        let (landing, store) = (self.site.landing, self.site.store);
        let known = Known {
            path: path.clone(),
            size: meta.identity.size,
            mtime: meta.identity.mtime,
            attributes: meta.attributes.clone(),
        };
        // What may have lost something when the power failed is fetched anew.
        let is_here = !landing.is_new && landing.have(store, &mut listing.folders, &[known]) == [There::Yes];
        if is_here {
            self.progress.add_unchanged(meta.identity.size);
            if self.digest.is_some()
                && let Err(error) = listing.unread.push(&record_of(&path, &meta.identity))
            {
                leave_out(self.progress, &path, &format!("is there, but its digest is not made: {error}"));
            }
            return;
        }
        if let Some(tell) = self.dry {
            return tell(&path);
        }
        let mut file = Sending::new(path, meta);
        file.asks_first = !landing.is_new && file.meta.identity.size > self.part_len;
        listing.files.push(file);
    }

    /// Reads the files that were here already, where their digests are wanted.
    ///
    /// # Errors
    /// What was kept can't be read back.
    pub(super) fn read_for_digests(&self, listing: &Listing) -> anyhow::Result<()> {
        let read = |path: &RemotePath, identity: &Identity| self.read_digest(path, identity);
        let mut taken = Ok(());
        let each = listing.unread.each(|record| {
            taken = of_record(record).map(|(path, identity)| note_there(self.digest, &read, &path, &identity, self.progress));
            if taken.is_ok() && !self.stop.is_asked() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        each.context("what is here already can't be read back")?;
        taken
    }

    /// The BLAKE3 digest of a file that is here.
    ///
    /// # Errors
    /// It can't be read, is another one, or is not waited for any more.
    pub(super) fn read_digest(&self, path: &RemotePath, identity: &Identity) -> io::Result<[u8; 32]> {
        let mut going = || if self.stop.is_asked() { Err(io::Error::other("stopped")) } else { Ok(()) };
        let path = self.site.landing.base.join(path).map_err(io::Error::other)?;
        self.site.store.digest_of(&path, identity, &mut going).map_err(io::Error::other)
    }

    /// Has hard links noted, when all files are settled: one whose file did not come would be made to
    /// whatever has that file's name here; and one whose file changed, and came anew, to what may have taken
    /// that name alone. `look` looks at a name once more.
    ///
    /// # Errors
    /// What was kept can't be read back.
    pub(super) fn describe_hard_links(
        &self, listing: &mut Listing, look: &dyn Fn(&RemotePath) -> Option<FileMeta>,
    ) -> io::Result<()> {
        let held = std::mem::take(&mut listing.held);
        let identity = |path: &RemotePath| look(path).map(|meta| meta.identity);
        let are_one = |one: &RemotePath, other: &RemotePath| {
            identity(one).is_some_and(|first| identity(other).is_some_and(|second| first == second))
        };
        held.each_link(|link| {
            match &link.kind {
                Kind::HardLink { to } if self.queue.may_have_lost(to) => {
                    leave_out(self.progress, &link.path, &format!("{to}, which it is a link to, did not arrive"));
                }
                Kind::HardLink { to } if self.queue.may_have_changed(to) && !are_one(to, &link.path) => {
                    let why = format!("{to}, which it was another name of, changed meanwhile: fetch it again");
                    leave_out(self.progress, &link.path, &why);
                }
                _ => self.describe(listing, link),
            }
            ControlFlow::Continue(())
        })
    }
}

/// A file that is here, to be read for its digest.
fn record_of(path: &RemotePath, identity: &Identity) -> Vec<u8> {
    let (seconds, nanoseconds) = identity.mtime;
    [&identity.size.to_be_bytes()[..], &seconds.to_be_bytes(), &nanoseconds.to_be_bytes(), path.as_bytes()].concat()
}

/// The same, of whatever tag.
fn of_record(record: &[u8]) -> anyhow::Result<(RemotePath, Identity)> {
    let damaged = || anyhow::anyhow!("what is here already was not read back as it was");
    let (size, rest) = record.split_first_chunk().ok_or_else(damaged)?;
    let (seconds, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
    let (nanoseconds, path) = rest.split_first_chunk().ok_or_else(damaged)?;
    let mtime = (i64::from_be_bytes(*seconds), u32::from_be_bytes(*nanoseconds));
    Ok((RemotePath::parse(path)?, Identity { size: u64::from_be_bytes(*size), mtime, tag: [0; 16] }))
}

/// Keeps a part of a list for later.
fn keep(listing: &mut Listing, folder: &RemotePath, page: Page) -> io::Result<()> {
    let len = u16::try_from(folder.as_bytes().len()).unwrap_or(u16::MAX);
    let mut record = len.to_be_bytes().to_vec();
    record.extend_from_slice(folder.as_bytes());
    v2::reply::encode(&mut record, &Reply::Listed(page));
    listing.spool.get_or_insert_default().push(&record)
}

/// What was kept.
fn kept(record: &[u8]) -> anyhow::Result<(RemotePath, Page)> {
    let damaged = || anyhow::anyhow!("what was listed was not read back as it was");
    let (len, rest) = record.split_first_chunk().ok_or_else(damaged)?;
    let (folder, page) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or_else(damaged)?;
    let folder = if folder.is_empty() { RemotePath::root() } else { RemotePath::parse(folder)? };
    match v2::reply::decode(page)? {
        Some((Reply::Listed(page), _)) => Ok((folder, page)),
        _ => Err(damaged()),
    }
}
