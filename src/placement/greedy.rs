//! Placements that are found at once: one item after the other, each into a gap between those that it
//! meets.

use super::{Item, Sections};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

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

/// What has been placed, by offset. Times are sections.
#[derive(Default)]
struct Shelf {
    lives: Vec<Range<u32>>,
    bytes: Vec<Range<u64>>,
}

/// So many of what is placed are looked at together.
const BLOCK: usize = 128;

impl Shelf {
    /// The lowest offset at which an item may lie. Counts the looks at something that is placed.
    fn gap(&self, item: &Item, life: &Range<u32>, looks: &mut u64) -> u64 {
        let mut free_from = item.aligned(0);
        let mut meets = [0; BLOCK];
        for (lives, bytes) in self.lives.chunks(BLOCK).zip(self.bytes.chunks(BLOCK)) {
            *looks += lives.len() as u64;
            let mut count = 0;
            for (at, other) in lives.iter().enumerate() {
                meets[count] = at;
                count += usize::from(other.start < life.end && life.start < other.end);
            }
            for &at in &meets[..count] {
                if free_from + item.size <= bytes[at].start {
                    return free_from;
                }
                free_from = free_from.max(item.aligned(bytes[at].end));
            }
        }
        free_from
    }

    fn put(&mut self, item: &Item, life: &Range<u32>, offset: u64) {
        let at = self.bytes.partition_point(|other| other.start <= offset);
        self.lives.insert(at, life.clone());
        self.bytes.insert(at, offset..offset + item.size);
    }
}

/// Shelves for spans of time, so that only what lives at about the same time is looked at: at each level
/// time is cut into spans of one width, four times as wide as those of the level below.
struct Shelves {
    /// The width of a span as a power of two, and the spans.
    levels: Vec<(u32, Vec<Shelf>)>,
    /// What an item of several spans meets.
    meets: Vec<Range<u64>>,
    /// Looks at something that is placed.
    looks: u64,
}

/// With fewer items one shelf is quicker.
const SHELVED: usize = 1000;

/// An item belongs to the first level of which it touches so many spans at most.
const SPANS: usize = 4;

impl Shelves {
    /// For these lifetimes. The narrowest spans are wider than most lives, or all lay on many shelves.
    fn new(lives: &[Range<u32>]) -> Shelves {
        let end = lives.iter().map(|life| life.end).max().unwrap_or(0);
        let all = u32::BITS - end.leading_zeros();
        let lengths = || lives.iter().map(|life| life.end - life.start);
        let total = lengths().map(u64::from).sum::<u64>();
        let average = total / (lives.len() as u64).max(1);
        let longest = lengths().max().unwrap_or(0);
        let mut power = average.checked_ilog2().map_or(0, |log| log + 2).min(all);
        if lives.len() < SHELVED {
            power = all;
        }
        let mut levels = vec![];
        loop {
            let spans = (0..=end >> power).map(|_| Shelf::default()).collect();
            levels.push((power, spans));
            // The longest touches one span more than it is long.
            if u64::from(longest) <= (SPANS as u64 - 1) << power {
                return Shelves { levels, meets: vec![], looks: 0 };
            }
            power += 2;
        }
    }

    /// The lowest offset at which an item may lie.
    fn gap(&mut self, item: &Item, life: &Range<u32>) -> u64 {
        let fits = |(power, _): &&(u32, Vec<Shelf>)| span(life, *power).count() <= SPANS;
        let level = self.levels.iter().find(fits).or(self.levels.last());
        let shelves = level.map_or(&[][..], |(power, shelves)| &shelves[span(life, *power)]);
        if let [shelf] = shelves {
            return shelf.gap(item, life, &mut self.looks);
        }
        self.meets.clear();
        for shelf in shelves {
            self.looks += shelf.lives.len() as u64;
            let all = shelf.lives.iter().zip(&shelf.bytes);
            let meets = all.filter(|(other, _)| other.start < life.end && life.start < other.end);
            self.meets.extend(meets.map(|(_, bytes)| bytes.clone()));
        }
        self.looks += 8 * self.meets.len() as u64;
        self.meets.sort_unstable_by_key(|bytes| bytes.start);
        let mut free_from = item.aligned(0);
        for bytes in &self.meets {
            if free_from + item.size <= bytes.start {
                break;
            }
            free_from = free_from.max(item.aligned(bytes.end));
        }
        free_from
    }

    fn put(&mut self, item: &Item, life: &Range<u32>, offset: u64) {
        for (power, shelves) in &mut self.levels {
            shelves[span(life, *power)].iter_mut().for_each(|shelf| shelf.put(item, life, offset));
        }
    }
}

/// The spans of so wide a level that a life touches.
fn span(life: &Range<u32>, power: u32) -> std::ops::RangeInclusive<usize> {
    let behind = life.end.saturating_sub(1).max(life.start);
    (life.start >> power) as usize..=(behind >> power) as usize
}

/// The items of a problem with what orders are made of.
pub(super) struct Orders<'a> {
    items: &'a [Item],
    lives: Vec<Range<u32>>,
    /// The most that is alive with each item, itself included.
    crowds: Vec<u64>,
    /// Looks at an item that all placements took.
    pub(super) looks: u64,
}

/// What comes first in an order.
#[derive(Clone, Copy, Debug)]
pub(super) enum First {
    /// What is alive with the most, and of that the longest.
    CrowdLength,
    /// What is alive with the most, and of that the largest.
    CrowdSize,
    /// The largest product of size and lifetime.
    Area,
    /// The largest.
    Size,
    /// The longest.
    Length,
}

impl<'a> Orders<'a> {
    /// All kinds of orders; the first ones are the best for large problems.
    pub(super) const ALL: [First; 5] =
        [First::CrowdLength, First::CrowdSize, First::Area, First::Size, First::Length];

    pub(super) fn new(items: &'a [Item]) -> Orders<'a> {
        let sections = Sections::new(items);
        let most = Most::new(sections.live(items));
        let crowds = sections.spans.iter().map(|span| most.of(span)).collect();
        let section = |s: usize| u32::try_from(s).unwrap_or(u32::MAX);
        let life = |span: &Range<usize>| section(span.start)..section(span.end);
        Orders { items, lives: sections.spans.iter().map(life).collect(), crowds, looks: 0 }
    }

    /// The items in such an order.
    pub(super) fn order(&self, first: First) -> Vec<usize> {
        let key = |i: usize| {
            let (size, length) =
                (self.items[i].size, self.items[i].lower.abs_diff(self.items[i].upper));
            let (one, two) = match first {
                First::CrowdLength => (self.crowds[i].into(), length),
                First::CrowdSize => (self.crowds[i].into(), size),
                First::Area => (u128::from(size) * u128::from(length), 0),
                First::Size => (size.into(), length),
                First::Length => (length.into(), size),
            };
            Reverse((one, two))
        };
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        order.sort_by_cached_key(|&i| (key(i), self.items[i].lower, i));
        order
    }

    /// Places in this order, what is fixed before all else, everything as low as it can lie.
    pub(super) fn placed(&mut self, order: &[usize]) -> Vec<u64> {
        let Orders { items, lives, looks, .. } = self;
        let mut shelf = Shelves::new(lives);
        let mut offsets = vec![0; items.len()];
        let fixed = |i: usize| items[i].fixed.filter(|_| !items[i].is_empty());
        for i in 0..items.len() {
            if let Some(fixed) = fixed(i) {
                offsets[i] = fixed;
                shelf.put(&items[i], &lives[i], fixed);
            }
        }
        for &i in order.iter().filter(|&&i| items[i].fixed.is_none() && !items[i].is_empty()) {
            offsets[i] = shelf.gap(&items[i], &lives[i]);
            shelf.put(&items[i], &lives[i], offsets[i]);
        }
        *looks += shelf.looks + 16 * items.len() as u64;
        offsets
    }

    /// Brings those that ended above a height half way to the front.
    ///
    /// D. Joslin and D. Clements, "Squeaky Wheel Optimization", Journal of Artificial Intelligence
    /// Research 10, 1999.
    pub(super) fn promote(&self, order: &mut [usize], offsets: &[u64], height: u64) {
        let mut ranks = vec![0; order.len()];
        for (at, &i) in order.iter().enumerate() {
            let above = offsets[i] + self.items[i].size > height;
            ranks[i] = if above { at } else { 2 * at + 1 };
        }
        order.sort_by_key(|&i| ranks[i]);
    }
}

/// The largest of consecutive numbers, from a table of those of all ranges whose lengths are powers of 2.
struct Most {
    tables: Vec<Vec<u64>>,
}

impl Most {
    fn new(numbers: Vec<u64>) -> Most {
        let (mut width, mut tables) = (1, vec![numbers]);
        while let Some(last) = tables.last().filter(|last| last.len() > width) {
            let pairs = last.iter().zip(&last[width..]);
            tables.push(pairs.map(|(&a, &b)| a.max(b)).collect());
            width *= 2;
        }
        Most { tables }
    }

    /// Of the numbers in a range.
    fn of(&self, range: &Range<usize>) -> u64 {
        let Some(power) = range.len().checked_ilog2() else { return 0 };
        let table = &self.tables[power as usize];
        table[range.start].max(table[range.end - (1 << power)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    #[test]
    fn the_largest_in_a_range() {
        let mut state = 4;
        for count in [1, 2, 3, 7, 8, 9, 40] {
            let numbers: Vec<u64> = (0..count).map(|_| noise(&mut state) % 100).collect();
            let most = Most::new(numbers.clone());
            for start in 0..numbers.len() {
                for end in start..=numbers.len() {
                    let largest = numbers[start..end].iter().copied().max().unwrap_or(0);
                    assert_eq!(most.of(&(start..end)), largest);
                }
            }
        }
    }

    /// Shelves for spans of time change no offset.
    #[test]
    fn many_lie_as_low_as_they_can() {
        let mut state = 8;
        let mut below = |n: u64| noise(&mut state) % n;
        let mut items = vec![];
        for i in 0..SHELVED + 200 {
            let lower = below(1000) as i64;
            let length = 1 + below(if i % 50 == 0 { 900 } else { 20 }) as i64;
            let mut item = Item::new(below(90), lower, lower + length);
            item.alignment = 1 << below(5);
            items.push(item);
        }
        let mut orders = Orders::new(&items);
        assert!(Shelves::new(&orders.lives).levels.len() > 1);
        let order = orders.order(First::Size);
        let offsets = orders.placed(&order);
        for (at, &i) in order.iter().enumerate().filter(|(_, i)| !items[**i].is_empty()) {
            let before = order[..at].iter().filter(|j| items[**j].meets(&items[i]));
            let mut taken: Vec<Range<u64>> =
                before.map(|&j| offsets[j]..offsets[j] + items[j].size).collect();
            taken.sort_by_key(|bytes| bytes.start);
            let mut low = 0;
            for bytes in taken {
                if low + items[i].size > bytes.start {
                    low = low.max(items[i].aligned(bytes.end));
                }
            }
            assert_eq!(offsets[i], low, "{i}");
        }
    }
}
