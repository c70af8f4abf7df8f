//! Placements that are found at once: one item after the other, each into a gap between those that it
//! meets.

use super::{Item, Problem};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Which of the gaps that are large enough is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// The lowest.
    First,
    /// The smallest.
    Best,
}

/// Places in the order of time. Near-linear. Nothing may be fixed.
pub(super) fn in_time(items: &[Item], fit: Fit, first: impl Fn(&Item) -> u64) -> Vec<u64> {
    let mut order: Vec<usize> = (0..items.len()).filter(|&i| !items[i].is_empty()).collect();
    order.sort_by_cached_key(|&i| (items[i].lower, Reverse(first(&items[i])), i));
    let mut offsets = vec![0; items.len()];
    let mut ends: BTreeSet<(i64, usize)> = BTreeSet::new();
    // Free blocks by offset; the last one has no end.
    let mut free: BTreeMap<u64, u64> = BTreeMap::from([(0, u64::MAX)]);
    for i in order {
        while let Some(&(upper, j)) = ends.first()
            && upper <= items[i].lower
        {
            ends.pop_first();
            release(&mut free, offsets[j], items[j].size);
        }
        let item = &items[i];
        let fits = |&(&start, &end): &(&u64, &u64)| item.aligned(start) + item.size <= end;
        let mut blocks = free.iter().filter(fits);
        let block = match fit {
            Fit::First => blocks.next(),
            Fit::Best => blocks.min_by_key(|(start, end)| *end - *start),
        };
        let (&start, &end) = block.expect("the last block has no end");
        offsets[i] = item.aligned(start);
        free.remove(&start);
        for (start, end) in [(start, offsets[i]), (offsets[i] + item.size, end)] {
            if start < end {
                free.insert(start, end);
            }
        }
        ends.insert((item.upper, i));
    }
    offsets
}

/// Gives a block back, joined with its free neighbours.
fn release(free: &mut BTreeMap<u64, u64>, offset: u64, size: u64) {
    let (mut start, mut end) = (offset, offset + size);
    if let Some((&before, &its_end)) = free.range(..offset).next_back()
        && its_end == offset
    {
        start = before;
    }
    if let Some(behind) = free.remove(&end) {
        end = behind;
    }
    free.insert(start, end);
}

/// What has been placed, by offset.
#[derive(Default)]
struct Shelf {
    taken: Vec<Taken>,
    /// Looks at something that is placed.
    looks: u64,
}

/// Bytes that are taken for some time.
struct Taken {
    start: u64,
    end: u64,
    lower: i64,
    upper: i64,
}

impl Shelf {
    /// Where an item may lie.
    fn gap(&mut self, item: &Item, fit: Fit) -> u64 {
        let (mut free_from, mut best) = (0, None);
        for (at, other) in self.taken.iter().enumerate() {
            if other.lower >= item.upper || item.lower >= other.upper {
                continue;
            }
            let offset = item.aligned(free_from);
            if offset + item.size <= other.start {
                if fit == Fit::First {
                    self.looks += at as u64;
                    return offset;
                }
                let gap = other.start - free_from;
                if best.is_none_or(|(smallest, _)| gap < smallest) {
                    best = Some((gap, offset));
                }
            }
            free_from = free_from.max(other.end);
        }
        self.looks += self.taken.len() as u64;
        best.map_or(item.aligned(free_from), |(_, offset)| offset)
    }

    fn put(&mut self, item: &Item, offset: u64) {
        let at = self.taken.partition_point(|other| other.start <= offset);
        let end = offset + item.size;
        let taken = Taken { start: offset, end, lower: item.lower, upper: item.upper };
        self.taken.insert(at, taken);
    }
}

/// Places in this order, what is fixed before all else, and the looks at an item that it took.
pub(super) fn in_order(items: &[Item], order: &[usize], fit: Fit) -> (Vec<u64>, u64) {
    let mut shelf = Shelf::default();
    let mut offsets = vec![0; items.len()];
    for (item, place) in items.iter().zip(&mut offsets).filter(|(item, _)| !item.is_empty()) {
        if let Some(fixed) = item.fixed {
            *place = fixed;
            shelf.put(item, fixed);
        }
    }
    let free = |&&i: &&usize| items[i].fixed.is_none() && !items[i].is_empty();
    for &i in order.iter().filter(free) {
        offsets[i] = shelf.gap(&items[i], fit);
        shelf.put(&items[i], offsets[i]);
    }
    (offsets, shelf.looks)
}

/// Orders that are good for some problems.
pub(super) fn orders(problem: &Problem) -> Vec<Vec<usize>> {
    let items = &problem.items;
    let length = |i: usize| items[i].lower.abs_diff(items[i].upper);
    let area = |i: usize| u128::from(items[i].size) * u128::from(length(i));
    let [mut size, mut lifetime, mut large, mut start, mut end] =
        std::array::from_fn(|_| (0..items.len()).collect::<Vec<usize>>());
    size.sort_by_key(|&i| (Reverse(items[i].size), Reverse(length(i)), items[i].lower));
    lifetime.sort_by_key(|&i| (Reverse(length(i)), Reverse(items[i].size), items[i].lower));
    large.sort_by_key(|&i| (Reverse(area(i)), items[i].lower));
    start.sort_by_key(|&i| (items[i].lower, Reverse(items[i].size)));
    end.sort_by_key(|&i| (Reverse(items[i].upper), Reverse(items[i].size)));
    vec![size, large, lifetime, start, end]
}
