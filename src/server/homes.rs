//! Whose files are where: one tree for all who may come in.

use std::sync::Arc;
use std::time::Duration;

use crate::store::Store;

/// A tree, and whose it is.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) store: Store,
}

/// All trees that a receiver serves.
#[derive(Debug)]
pub struct Homes {
    tree: Arc<Home>,
}

impl Homes {
    /// One tree, for all who may come in.
    #[must_use]
    pub fn of(store: Store) -> Self {
        Self { tree: Arc::new(Home { store }) }
    }

    /// The tree that needs no login.
    pub(super) fn tree(&self) -> &Arc<Home> {
        &self.tree
    }

    /// Looks after what earlier processes left, see [`Store::adopt`].
    pub(super) fn adopt(&self, keep: Duration, going: &mut dyn FnMut() -> bool) {
        self.tree.store.adopt(keep, going);
    }

    /// Brings to the disk what was published since the last time.
    pub(super) fn sync_if_needed(&self) {
        self.tree.store.sync_if_needed();
    }

    /// Ends the indexes, once no session is left.
    pub(super) fn end(&self) {
        self.tree.store.end_index();
    }
}
