//! Names that lead to one file: the first is the file, the others are links to it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::hash::Hash;

use crate::limits::{LINK_COST, LINK_NAMES_LEN_MAX};
use crate::path::RemotePath;

/// The files with several names of which one was met so far, but not yet all.
#[derive(Debug)]
pub(super) struct Links<Id> {
    first_names: HashMap<Id, First>,
    /// What they cost, in bytes.
    len: usize,
    was_full: bool,
}

#[derive(Debug)]
struct First {
    name: RemotePath,
    /// Names that were not met yet; they may lie outside the tree.
    others: u32,
}

impl<Id> Default for Links<Id> {
    fn default() -> Self {
        Self { first_names: HashMap::new(), len: 0, was_full: false }
    }
}

impl<Id: Eq + Hash> Links<Id> {
    /// Takes note of a name of the file that `id` tells from all others, which has `names` names in all.
    /// Gives the first name that was met, if this is not it.
    pub(super) fn meet(&mut self, id: Id, names: u32, name: &RemotePath) -> Option<RemotePath> {
        match self.first_names.entry(id) {
            Place::Occupied(mut known) if known.get().others > 1 => {
                known.get_mut().others -= 1;
                Some(known.get().name.clone())
            }
            Place::Occupied(known) => {
                let first = known.remove().name;
                self.len = self.len.saturating_sub(cost_of(&first));
                Some(first)
            }
            Place::Vacant(place) => {
                let others = names.saturating_sub(1);
                let len = self.len.saturating_add(cost_of(name));
                if others > 0 && len <= LINK_NAMES_LEN_MAX {
                    place.insert(First { name: name.clone(), others });
                    self.len = len;
                } else if others > 0 && !self.was_full {
                    self.was_full = true;
                    tracing::warn!(
                        "{name}: too many files have several names: from here on some of them are taken for files of their own"
                    );
                }
                None
            }
        }
    }
}

fn cost_of(name: &RemotePath) -> usize {
    name.as_bytes().len().saturating_add(LINK_COST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> RemotePath {
        RemotePath::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn every_name_but_the_first_is_a_link_to_it() {
        let mut links = Links::<(u64, u64)>::default();
        assert_eq!(links.meet((1, 7), 3, &path("a")), None);
        assert_eq!(links.meet((2, 7), 2, &path("other device")), None);
        assert_eq!(links.meet((1, 7), 3, &path("d/b")), Some(path("a")));
        assert_eq!(links.meet((1, 7), 3, &path("c")), Some(path("a")));
        assert_eq!(links.first_names.len(), 1, "a file whose names were all met is forgotten");
        assert_eq!(links.len, cost_of(&path("other device")));
        assert_eq!(links.meet((1, 8), 1, &path("single")), None);
        assert_eq!(links.first_names.len(), 1);
    }

    #[test]
    fn beyond_the_bound_a_file_is_one_of_its_own() {
        let mut links = Links::<(u64, u64)> { len: LINK_NAMES_LEN_MAX - cost_of(&path("a")), ..Links::<(u64, u64)>::default() };
        assert_eq!((links.meet((1, 1), 2, &path("a")), links.was_full), (None, false));
        assert_eq!((links.meet((1, 2), 2, &path("b")), links.was_full), (None, true));
        assert_eq!(links.meet((1, 2), 2, &path("c")), None);
        assert_eq!(links.meet((1, 1), 2, &path("d")), Some(path("a")));
        // There is room again.
        assert_eq!(links.meet((1, 3), 2, &path("e")), None);
        assert_eq!(links.meet((1, 3), 2, &path("f")), Some(path("e")));
    }
}
