//! `Ranges`: a set of half-open byte ranges of one file: what is here, what is missing.

use std::ops::Range;

use crate::limits::RANGES_MAX;

/// Bytes of ranges that don't overlap.
#[must_use]
pub fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum()
}

/// A set of offsets, kept as ranges that neither overlap nor touch, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

/// A range was not put in: the set would have more than [`RANGES_MAX`] pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has more than {RANGES_MAX} pieces")]
pub struct TooMany;

impl Ranges {
    /// Puts `range` in, whole or in part there already or not. One that is empty changes nothing.
    ///
    /// # Errors
    /// [`TooMany`]; the set is as it was.
    pub fn insert(&mut self, range: Range<u64>) -> Result<(), TooMany> {
        if range.is_empty() {
            return Ok(());
        }
        // Those that overlap or touch it become one with it.
        let first = self.0.partition_point(|known| known.end < range.start);
        let past = self.0.partition_point(|known| known.start <= range.end);
        if first == past {
            if self.0.len() >= RANGES_MAX {
                return Err(TooMany);
            }
            self.0.insert(first, range);
            return Ok(());
        }
        let start = range.start.min(self.0[first].start);
        let end = range.end.max(self.0[past - 1].end);
        self.0[first] = start..end;
        self.0.drain(first + 1..past);
        Ok(())
    }

    /// Takes `range` out, as far as it is there.
    ///
    /// # Errors
    /// [`TooMany`], where a piece would become two; the set is as it was.
    pub fn remove(&mut self, range: Range<u64>) -> Result<(), TooMany> {
        let first = self.0.partition_point(|known| known.end <= range.start);
        let past = self.0.partition_point(|known| known.start < range.end);
        if range.is_empty() || first >= past {
            return Ok(());
        }
        let left = self.0[first].start..range.start;
        let right = range.end..self.0[past - 1].end;
        if first + 1 == past && !left.is_empty() && !right.is_empty() && self.0.len() >= RANGES_MAX {
            return Err(TooMany);
        }
        self.0.splice(first..past, [left, right].into_iter().filter(|rest| !rest.is_empty()));
        Ok(())
    }

    /// What of `range` is in it, in order.
    pub fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<'_> {
        let (start, end) = (range.start, range.end);
        let first = self.0.partition_point(|known| known.end <= start);
        let rest = self.0.get(first..).unwrap_or_default().iter();
        let common = rest.map(move |known| known.start.max(start)..known.end.min(end));
        // The first that begins past the end has nothing in common with it, nor have those behind it.
        common.take_while(|common| !common.is_empty())
    }

    /// Is all of `range` in it?
    #[must_use]
    pub fn covers(&self, range: &Range<u64>) -> bool {
        let at = self.0.partition_point(|known| known.end < range.end);
        range.is_empty() || self.0.get(at).is_some_and(|known| known.start <= range.start)
    }

    /// What of `0..size` is not in it, in order.
    pub fn missing(&self, size: u64) -> impl Iterator<Item = Range<u64>> {
        let starts = std::iter::once(0).chain(self.0.iter().map(|known| known.end));
        let ends = self.0.iter().map(|known| known.start).chain(std::iter::once(size));
        starts.zip(ends).map(move |(start, end)| start..end.min(size)).filter(|gap| !gap.is_empty())
    }

    /// Its pieces, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().cloned()
    }

    /// Is nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a set of one range is what is meant")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[Range<u64>]) -> Ranges {
        let mut set = Ranges::default();
        for range in ranges {
            set.insert(range.clone()).unwrap();
        }
        set
    }

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        for (put, left) in [
            (&[0..4, 8..12][..], &[0..4, 8..12][..]),
            (&[8..12, 0..4], &[0..4, 8..12]),
            (&[0..4, 4..8], &[0..8]),
            (&[4..8, 0..4], &[0..8]),
            (&[0..4, 8..12, 2..9], &[0..12]),
            (&[0..4, 8..12, 16..20, 4..16], &[0..20]),
            (&[4..8, 0..20], &[0..20]),
            (&[0..20, 4..8], &[0..20]),
            (&[3..3], &[]),
            (&[0..u64::MAX, u64::MAX - 1..u64::MAX], &[0..u64::MAX]),
        ] {
            assert_eq!(set(put).iter().collect::<Vec<_>>(), left, "{put:?}");
        }
    }

    #[test]
    fn what_is_missing_is_what_was_not_put_in() {
        for (put, size, missing) in [
            (&[][..], 0, &[][..]),
            (&[], 5, &[0..5]),
            (&[0..5], 5, &[]),
            (&[0..9], 5, &[]),
            (&[7..9], 5, &[0..5]),
            (&[1..2, 3..4], 5, &[0..1, 2..3, 4..5]),
        ] {
            assert_eq!(set(put).missing(size).collect::<Vec<_>>(), missing, "{put:?} of {size}");
        }
        assert!(set(&[]).covers(&(7..7)));
        assert!(!set(&[0..4]).covers(&(3..5)));
    }

    #[test]
    fn it_grows_to_its_bound_and_no_further() {
        let mut set = Ranges::default();
        let step = |number: usize| 2 * number as u64..2 * number as u64 + 1;
        for number in 0..RANGES_MAX {
            set.insert(step(number)).unwrap();
        }
        let full = set.clone();
        assert_eq!(set.insert(step(RANGES_MAX)), Err(TooMany));
        assert_eq!(set, full);
        set.insert(0..3).unwrap();
        set.insert(step(RANGES_MAX)).unwrap();
        let full = set.clone();
        assert_eq!(set.remove(1..2), Err(TooMany));
        assert_eq!(set, full);
        set.remove(2..3).unwrap();
        set.remove(0..1).unwrap();
        assert_eq!(set.iter().next(), Some(1..2));
    }

    #[test]
    fn what_is_taken_out_leaves_what_is_beside_it() {
        for (put, out, left) in [
            (&[0..9][..], 3..5, &[0..3, 5..9][..]),
            (&[0..9], 0..5, &[5..9]),
            (&[0..9], 5..12, &[0..5]),
            (&[0..9], 0..9, &[]),
            (&[0..9], 4..4, &[0..9]),
            (&[0..4], 4..8, &[0..4]),
            (&[4..8], 0..4, &[4..8]),
            (&[0..4, 6..9, 12..15], 2..13, &[0..2, 13..15]),
            (&[0..4, 6..9, 12..15], 4..12, &[0..4, 12..15]),
            (&[0..u64::MAX], 5..u64::MAX, &[0..5]),
        ] {
            let mut set = set(put);
            set.remove(out.clone()).unwrap();
            assert_eq!(set.iter().collect::<Vec<_>>(), left, "{put:?} without {out:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_offsets(put in prop::collection::vec((0..96_u64, 0..24_u64), 0..24), asked in (0..120_u64, 0..24_u64)) {
            let (mut set, mut flags) = (Ranges::default(), [false; 128]);
            for (start, len) in put {
                set.insert(start..start + len).unwrap();
                flags[start as usize..(start + len) as usize].fill(true);
            }
            let pieces: Vec<_> = set.iter().collect();
            prop_assert!(pieces.windows(2).all(|pair| pair[0].end < pair[1].start));
            let here: Vec<u64> = pieces.into_iter().flatten().collect();
            let gaps: Vec<u64> = set.missing(128).flatten().collect();
            let expected = |wanted| (0..128).filter(|&offset| flags[offset as usize] == wanted).collect::<Vec<u64>>();
            prop_assert_eq!(here, expected(true));
            prop_assert_eq!(gaps, expected(false));
            let range = asked.0..(asked.0 + asked.1).min(128);
            let is_covered = set.covers(&range);
            prop_assert_eq!(is_covered, range.clone().all(|offset| flags[offset as usize]));
            let common: Vec<u64> = set.within(&range).flatten().collect();
            prop_assert_eq!(common, range.clone().filter(|offset| flags[*offset as usize]).collect::<Vec<_>>());
            set.remove(range.clone()).unwrap();
            flags[range.start as usize..range.end as usize].fill(false);
            let pieces: Vec<_> = set.iter().collect();
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()) && pieces.windows(2).all(|pair| pair[0].end < pair[1].start));
            let left: Vec<u64> = pieces.into_iter().flatten().collect();
            prop_assert_eq!(left, (0..128).filter(|&offset| flags[offset as usize]).collect::<Vec<u64>>());
        }
    }
}
