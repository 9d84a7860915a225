//! The end: what is missing is named, links are made, folders get their attributes, and all is brought to
//! disk where that was asked for.

use std::sync::PoisonError;

use super::{Landing, lock};
use crate::entry::Kind;
use crate::path::RemotePath;
use crate::ranges;
use crate::store::{Event, Store};

/// What is told while the end is worked off.
#[derive(Debug)]
pub enum End<'a> {
    /// This link is there; its path is below the store's root.
    Linked(&'a RemotePath),
    /// This entry, below the store's root, is not as it should be: why.
    Failed(&'a RemotePath, String),
    /// Work goes on.
    Going,
}

impl Landing {
    /// Ends it, once: nothing is taken any more. `sync` brings all to disk, where that was asked for.
    pub fn end(
        &self, store: &Store, tell: &mut dyn FnMut(End<'_>), sync: impl FnOnce(&mut dyn FnMut(End<'_>)) -> anyhow::Result<()>,
    ) {
        *self.is_shut.write().unwrap_or_else(PoisonError::into_inner) = true;
        // Before folders get their times: a copy that comes late, or never, would change them when it goes.
        self.discard_in_one_piece();
        let mut tell = |end: End<'_>| {
            match end {
                End::Failed(..) => self.counts.failed.add(1),
                End::Linked(_) => self.counts.links.add(1),
                End::Going => {}
            }
            tell(end);
        };
        let incoming: Vec<_> = lock(&self.incoming).drain().map(|(_, incoming)| incoming).collect();
        for incoming in incoming {
            let path = incoming.path();
            if self.is_published(path, incoming.identity()) {
                // A late copy of a piece: the file is whole.
                incoming.discard();
                continue;
            }
            // What came of a file after it was voided is not missed.
            if !incoming.is_published() && !self.is_voided(path, incoming.identity()) {
                tell(End::Failed(path, format!("{} of its bytes never came", ranges::total(&incoming.missing()))));
            }
        }
        let pending = std::mem::take(&mut *lock(&self.pending));
        let applied = pending.apply(store, &self.made, self.on_existing(), &mut |event| {
            match event {
                Event::Made(entry) if matches!(entry.kind, Kind::Directory { .. }) => {}
                Event::Made(entry) => tell(End::Linked(&entry.path)),
                Event::Failed(path, reason) => tell(End::Failed(path, reason)),
                // A folder that was there before may be somebody else's.
                Event::Noted(path, _) if *path == self.base && !self.is_new => {}
                Event::Noted(path, note) => tell(End::Failed(path, format!("is there, but {note}"))),
            }
            tell(End::Going);
        });
        if let Err(error) = applied {
            tell(End::Failed(&self.base, format!("not all links and folders are as they should be: {error}")));
        }
        if self.rules.syncs
            && let Err(error) = sync(&mut tell)
        {
            tell(End::Failed(&self.base, format!("not all is known to be on disk: {error}")));
        }
    }

    /// Removes the files that come in one piece and are not whole. Whoever brings one may go on doing so.
    fn discard_in_one_piece(&self) {
        let all = std::mem::take(&mut *lock(&self.in_one_piece));
        all.iter().for_each(|incoming| incoming.discard());
    }
}
