//! What is to be placed, and what a right answer is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

/// Something that needs bytes for some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item {
    /// How many bytes it needs.
    pub size: u64,
    /// When it comes to life.
    pub lower: i64,
    /// The first moment at which it is no longer alive.
    pub upper: i64,
    /// Its offset is a multiple of this, unless it is fixed. At least 1.
    pub alignment: u64,
    /// The offset that it has to have, where that may not be chosen.
    pub fixed: Option<u64>,
}

impl Item {
    /// An item that may lie anywhere.
    pub fn new(size: u64, lower: i64, upper: i64) -> Item {
        Item { size, lower, upper, alignment: 1, fixed: None }
    }

    /// Whether it never takes a byte.
    pub fn is_empty(&self) -> bool {
        self.size == 0 || self.lower >= self.upper
    }

    /// Whether both need bytes at the same time.
    pub fn meets(&self, other: &Item) -> bool {
        let empty = self.is_empty() || other.is_empty();
        !empty && self.lower < other.upper && other.lower < self.upper
    }

    /// The lowest offset at or above `from` that its alignment allows.
    pub fn aligned(&self, from: u64) -> u64 {
        // Almost all alignments are 1: where all sizes are multiples of it, an alignment is none.
        if self.alignment <= 1 { from } else { from.next_multiple_of(self.alignment) }
    }
}

/// Items to be placed: each gets an offset so that no two that are alive at the same time share bytes,
/// and the highest end is as low as can be.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Problem {
    /// In any order. A placement is a list of offsets in the same order.
    pub items: Vec<Item>,
}

/// Why some offsets are no placement. Items are named by their indices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clash {
    /// There is not one offset for each item.
    Count,
    /// Both are alive at some time and share bytes.
    Overlap(usize, usize),
    /// The offset is no multiple of the item's alignment.
    Misaligned(usize),
    /// The item has to be elsewhere.
    Moved(usize),
}

impl Display for Clash {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Clash::Count => write!(f, "there is not one offset for each item"),
            Clash::Overlap(a, b) => write!(f, "items {a} and {b} share bytes while both are alive"),
            Clash::Misaligned(a) => write!(f, "item {a} is not aligned"),
            Clash::Moved(a) => write!(f, "item {a} is not where it has to be"),
        }
    }
}

impl Problem {
    /// Which items take bytes at a fixed offset.
    pub fn fixed(&self) -> Vec<usize> {
        let fixed = |&i: &usize| self.items[i].fixed.is_some() && !self.items[i].is_empty();
        (0..self.items.len()).filter(fixed).collect()
    }

    /// The largest sum of sizes that are alive at one time, or the end of what is fixed: no placement
    /// is lower.
    pub fn bound(&self) -> u64 {
        let mut changes: Vec<(i64, bool, u64)> = vec![];
        for item in self.items.iter().filter(|item| !item.is_empty()) {
            changes.push((item.lower, true, item.size));
            changes.push((item.upper, false, item.size));
        }
        // At one moment, what ends goes first.
        changes.sort_unstable();
        let (mut live, mut most) = (0, 0);
        for (_, starts, size) in changes {
            live = if starts { live + size } else { live - size };
            most = most.max(live);
        }
        let fixed = self.items.iter().filter(|item| !item.is_empty());
        let ends = fixed.filter_map(|item| Some(item.fixed? + item.size));
        most.max(ends.max().unwrap_or(0))
    }

    /// The highest end of all.
    pub fn height(&self, offsets: &[u64]) -> u64 {
        let taken = self.items.iter().zip(offsets).filter(|(item, _)| !item.is_empty());
        taken.map(|(item, offset)| offset + item.size).max().unwrap_or(0)
    }

    /// Checks that these offsets are a placement. Knows nothing of how they were found.
    ///
    /// # Errors
    ///
    /// The first clash in the order of time.
    pub fn check(&self, offsets: &[u64]) -> Result<(), Clash> {
        if offsets.len() != self.items.len() {
            return Err(Clash::Count);
        }
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        order.sort_by_key(|&i| (self.items[i].lower, i));
        // What is alive by its offset, with its end: what comes may meet only its neighbours.
        let mut alive: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        let mut ends: BTreeSet<(i64, u64)> = BTreeSet::new();
        for i in order {
            let (item, offset) = (&self.items[i], offsets[i]);
            if item.fixed.is_some_and(|fixed| fixed != offset) {
                return Err(Clash::Moved(i));
            }
            if item.fixed.is_none() && item.alignment > 1 && offset % item.alignment != 0 {
                return Err(Clash::Misaligned(i));
            }
            if item.is_empty() {
                continue;
            }
            while let Some(&(upper, start)) = ends.first()
                && upper <= item.lower
            {
                ends.pop_first();
                alive.remove(&start);
            }
            let end = offset.saturating_add(item.size);
            if let Some((_, &(its_end, other))) = alive.range(..end).next_back()
                && its_end > offset
            {
                return Err(Clash::Overlap(other.min(i), other.max(i)));
            }
            alive.insert(offset, (end, i));
            ends.insert((item.upper, offset));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> (Problem, Vec<u64>) {
        let mut items =
            vec![Item::new(4, 0, 2), Item::new(8, 1, 3), Item::new(4, 2, 4), Item::new(16, 0, 4)];
        items[1].alignment = 8;
        items[3].fixed = Some(16);
        (Problem { items }, vec![0, 8, 0, 16])
    }

    #[test]
    fn wrong_offsets_are_found() {
        let (problem, offsets) = small();
        assert_eq!(problem.check(&offsets), Ok(()));
        assert_eq!((problem.height(&offsets), problem.bound()), (32, 32));
        let with = |i: usize, offset: u64| {
            let mut offsets = offsets.clone();
            offsets[i] = offset;
            problem.check(&offsets)
        };
        assert_eq!(with(0, 8), Err(Clash::Overlap(0, 1)));
        assert_eq!(with(0, 5), Err(Clash::Overlap(0, 1)));
        assert_eq!(with(0, 4), Ok(()));
        assert_eq!(with(1, 0), Err(Clash::Overlap(0, 1)));
        assert_eq!(with(1, 4), Err(Clash::Misaligned(1)));
        assert_eq!(with(2, 17), Err(Clash::Overlap(2, 3)));
        assert_eq!(with(2, u64::MAX - 4), Ok(()));
        assert_eq!(with(3, 32), Err(Clash::Moved(3)));
        assert_eq!(problem.check(&offsets[1..]), Err(Clash::Count));
    }

    #[test]
    fn what_takes_no_bytes_lies_anywhere() {
        let items = vec![Item::new(0, 0, 9), Item::new(5, 3, 3), Item::new(7, 0, 9)];
        let problem = Problem { items };
        assert_eq!(problem.check(&[3, 1, 0]), Ok(()));
        assert_eq!((problem.bound(), problem.height(&[30, 20, 0])), (7, 7));
    }

    /// Against all pairs.
    #[test]
    fn agrees_with_all_pairs() {
        let mut state = 3;
        for _ in 0..2000 {
            let mut below = |n: u64| super::super::tests::noise(&mut state) % n;
            let item = |_| {
                let lower = below(8) as i64;
                (Item::new(below(5), lower, lower + below(5) as i64), below(12))
            };
            let (items, offsets): (Vec<Item>, Vec<u64>) = (0..4).map(item).unzip();
            let apart = |i: usize, j: usize| {
                !items[i].meets(&items[j])
                    || offsets[i] + items[i].size <= offsets[j]
                    || offsets[j] + items[j].size <= offsets[i]
            };
            let right = (0..4).all(|i| (0..i).all(|j| apart(i, j)));
            let problem = Problem { items: items.clone() };
            assert_eq!(problem.check(&offsets).is_ok(), right, "{items:?} {offsets:?}");
        }
    }
}
