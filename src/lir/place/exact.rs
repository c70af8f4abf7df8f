//! Exact search for a placement below a given height.
//!
//! Items are placed from the bottom up. Of every item that is left the search knows how low it can lie
//! at best; of every section of time, how low the lowest of those alive in it can. At each node a
//! section is chosen, and the cases are that one of its lowest items lies as low as it can, or that none
//! does. In the second case each of them rests on another one that is left (in a placement with the
//! least sum of offsets everything rests on something), so it can be raised to the end of the lowest of
//! these. A section may be chosen only when nothing that is left fits under its lowest items: then
//! whatever meets an item that was placed lies above it, and the state is no more than how low each item
//! can lie.
//!
//! A branch ends when a section's floor and what is left in it go over the height, when something fits
//! into the room that it leaves empty, or in a state that is known to fail. Items that no longer meet, by
//! way of others, are searched one group after the other. What is chosen first decides how long a search
//! takes, and no choice is good for all problems: short searches with different ones take turns.
//!
//! The idea to place from the bottom up, to infer from sections of time and to decompose is that of M.
//! Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning",
//! ASPLOS 2023.

use super::{Item, height};
use std::cmp::Reverse;
use std::ops::Range;

/// More items than this are not searched: the depth of the search is their number.
const MOST_ITEMS: usize = 800;

/// Entries of the table of states that fail. A power of two.
const TABLE: usize = 1 << 14;

/// A lower placement than one of height `upper`, at best of height `lower`, found in about `steps`
/// looks at an item; `None` if there is none to be found.
pub(super) fn improve(items: &[Item], lower: u64, upper: u64, steps: u64) -> Option<Vec<u64>> {
    if items.len() > MOST_ITEMS {
        return None;
    }
    let mut search = Search::new(items);
    let (mut lower, mut upper, mut best) = (lower, upper, None);
    let mut quota = (items.len() * items.len()) as u64 + 1000;
    let mut noise = 1;
    while lower < upper && search.steps < steps {
        // The lowest at first; what fails is above the rest of the round.
        let (mut failed, mut target) = (lower, lower);
        while target < upper {
            let tries = search.tries(target, quota, steps, &mut noise);
            match tries {
                Outcome::Placed => {
                    upper = height(items, &search.lows);
                    best = Some(search.lows.clone());
                    search.undo(0, 0);
                }
                Outcome::Impossible => {
                    lower = target + 1;
                    failed = failed.max(target);
                }
                Outcome::Stopped => failed = failed.max(target),
            }
            if search.steps >= steps || upper - failed <= upper / 256 {
                break;
            }
            target = failed + (upper - failed) / 2;
        }
        quota *= 2;
    }
    best
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Everything is placed: the lowest offsets are those of the placement.
    Placed,
    /// There is no placement of this height.
    Impossible,
    /// The steps have run out.
    Stopped,
}

/// Which section is branched on.
#[derive(Clone, Copy, Debug)]
enum Pivot {
    /// With the fewest cases, then the least room.
    Cases,
    /// With the lowest floor, then the fewest cases.
    Low,
    /// With the lowest floor, then the least room.
    LowTight,
    /// With the least room.
    Tight,
}

/// What decides which item is tried first.
#[derive(Clone, Copy, Debug)]
enum First {
    Length,
    Crowd,
    CrowdLength,
    Sections,
    Size,
    Area,
}

/// All choices, one after the other.
const PIVOTS: [Pivot; 4] = [Pivot::Cases, Pivot::Low, Pivot::LowTight, Pivot::Tight];
const FIRSTS: [First; 6] =
    [First::Length, First::CrowdLength, First::Size, First::Sections, First::Crowd, First::Area];

/// A state that fails, for heights up to that.
#[derive(Clone, Copy, Default)]
struct Failure {
    key: [u64; 2],
    capacity: u64,
}

struct Search<'a> {
    items: &'a [Item],
    /// The sections in which each is alive.
    spans: Vec<Range<usize>>,
    /// Which others each meets.
    meets: Vec<Vec<usize>>,
    /// The one before of those that are the same.
    twins: Vec<Option<usize>>,
    /// The sums of sizes alive in each section.
    live: Vec<u64>,
    /// The height that is searched for.
    capacity: u64,
    pivot: Pivot,
    /// What is tried first has the lower rank.
    ranks: Vec<usize>,
    /// The lowest offset that each can have; of those that are placed, theirs.
    lows: Vec<u64>,
    placed: Vec<bool>,
    /// The sums of what is left in each section.
    left: Vec<u64>,
    /// The offsets that were raised, with what they were; what was placed, in this order.
    raised: Vec<(usize, u64)>,
    stack: Vec<usize>,
    /// Of each section the lowest offset and the lowest end of what is left.
    floors: Vec<u64>,
    tops: Vec<u64>,
    /// How many lie at the floor at best; whether something fits under one of them.
    cases: Vec<(u64, bool)>,
    failures: Vec<Failure>,
    steps: u64,
    limit: u64,
}

impl<'a> Search<'a> {
    fn new(items: &'a [Item]) -> Search<'a> {
        let (spans, sections) = sections(items);
        let mut live = vec![0; sections];
        for (item, span) in items.iter().zip(&spans) {
            live[span.clone()].iter_mut().for_each(|sum| *sum += item.size);
        }
        let others = |i: usize| {
            let meets = |&j: &usize| j != i && items[i].range.meets(items[j].range);
            (0..items.len()).filter(meets).collect()
        };
        let twin = |i: usize| {
            let same = |&j: &usize| spans[i] == spans[j] && items[i].size == items[j].size;
            (0..i).rev().find(same)
        };
        Search {
            meets: (0..items.len()).map(others).collect(),
            twins: (0..items.len()).map(twin).collect(),
            left: live.clone(),
            live,
            capacity: 0,
            pivot: Pivot::Cases,
            ranks: vec![0; items.len()],
            lows: vec![0; items.len()],
            placed: vec![false; items.len()],
            raised: vec![],
            stack: vec![],
            floors: vec![0; sections],
            tops: vec![0; sections],
            cases: vec![(0, false); sections],
            failures: vec![Failure::default(); TABLE],
            steps: 0,
            limit: 0,
            items,
            spans,
        }
    }

    /// Searches with every choice for so many steps each.
    fn tries(&mut self, capacity: u64, quota: u64, steps: u64, noise: &mut u64) -> Outcome {
        for turn in 0..PIVOTS.len() * FIRSTS.len() {
            self.pivot = PIVOTS[turn % PIVOTS.len()];
            self.rank(FIRSTS[(turn / PIVOTS.len() + turn) % FIRSTS.len()], noise);
            self.capacity = capacity;
            self.limit = (self.steps + quota).min(steps);
            let mut all: Vec<usize> = (0..self.items.len()).collect();
            all.sort_by_key(|&i| (self.spans[i].start, i));
            match self.groups(&all) {
                Outcome::Stopped => self.undo(0, 0),
                outcome => return outcome,
            }
            if self.steps >= steps {
                break;
            }
        }
        Outcome::Stopped
    }

    /// Ranks the items. Those that are alike in what counts change places from time to time.
    fn rank(&mut self, first: First, noise: &mut u64) {
        let Search { items, spans, live, .. } = self;
        let length = |i: usize| u64::from(items[i].range.last - items[i].range.first) + 1;
        let crowd = |i: usize| live[spans[i].clone()].iter().copied().max().unwrap_or(0);
        let mut weigh = |i: usize| {
            let (one, two) = match first {
                First::Length => (length(i), items[i].size),
                First::Crowd => (crowd(i), length(i)),
                First::CrowdLength => (crowd(i), spans[i].len() as u64),
                First::Sections => (spans[i].len() as u64, items[i].size),
                First::Size => (items[i].size, length(i)),
                First::Area => (spans[i].len() as u64, items[i].size),
            };
            let weight = match first {
                First::Area => u128::from(one) * u128::from(two),
                _ => u128::from(one) << 32 | u128::from(two.min(u64::from(u32::MAX))),
            };
            // The first round of turns is by the weights alone.
            *noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let share = if self.steps == 0 { 0 } else { (*noise >> 33) as u128 % 64 };
            weight.saturating_mul(256 + share)
        };
        let weights: Vec<u128> = (0..items.len()).map(&mut weigh).collect();
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&i| (Reverse(weights[i]), i));
        for (rank, i) in order.into_iter().enumerate() {
            self.ranks[i] = rank;
        }
    }

    /// Searches for each group of these items (by their first sections) that meet, by way of others.
    fn groups(&mut self, part: &[usize]) -> Outcome {
        let mut groups: Vec<Range<usize>> = vec![];
        let (mut start, mut end) = (0, 0);
        for (at, &i) in part.iter().enumerate() {
            if at > start && self.spans[i].start >= end {
                groups.push(start..at);
                start = at;
            }
            end = end.max(self.spans[i].end);
        }
        if start < part.len() {
            groups.push(start..part.len());
        }
        // What fails soon first.
        groups.sort_by_key(|group| (group.len(), group.start));
        for group in groups {
            let outcome = self.explore(&part[group]);
            if outcome != Outcome::Placed {
                return outcome;
            }
        }
        Outcome::Placed
    }

    /// Searches unless the state is known to fail.
    fn explore(&mut self, part: &[usize]) -> Outcome {
        self.steps += part.len() as u64;
        if self.steps > self.limit {
            return Outcome::Stopped;
        }
        let mut key = [0; 2];
        for &i in part {
            let mixed = mix(self.lows[i] ^ mix(i as u64 + 1));
            key[0] ^= mixed;
            key[1] ^= mix(mixed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        }
        let slot = key[0] as usize % TABLE;
        let known = self.failures[slot];
        if known.key == key && known.capacity >= self.capacity {
            return Outcome::Impossible;
        }
        let outcome = self.branch(part);
        if outcome == Outcome::Impossible {
            self.failures[slot] = Failure { key, capacity: self.capacity };
        }
        outcome
    }

    fn branch(&mut self, part: &[usize]) -> Outcome {
        let Some(pivot) = self.choose(part) else { return Outcome::Impossible };
        let floor = self.floors[pivot];
        let room = self.capacity - floor - self.left[pivot];
        let lowest = |&&i: &&usize| self.spans[i].contains(&pivot) && self.lows[i] == floor;
        let mut lowest: Vec<usize> = part.iter().filter(lowest).copied().collect();
        lowest.sort_by_key(|&i| self.ranks[i]);
        for &i in &lowest {
            // Of two that are the same, the first is placed first.
            let twin = self.twins[i].filter(|&twin| !self.placed[twin]);
            if twin.is_some_and(|twin| self.lows[twin] == floor) {
                continue;
            }
            let (raised, placed) = (self.raised.len(), self.stack.len());
            if self.put(i) {
                let rest: Vec<usize> = part.iter().copied().filter(|&j| j != i).collect();
                let outcome = self.groups(&rest);
                if outcome != Outcome::Impossible {
                    return outcome;
                }
            }
            self.undo(raised, placed);
        }
        // Without room there is nothing to leave empty.
        if room == 0 {
            return Outcome::Impossible;
        }
        let (raised, placed) = (self.raised.len(), self.stack.len());
        if self.put_none(part, &lowest) {
            let outcome = self.explore(part);
            if outcome != Outcome::Impossible {
                return outcome;
            }
        }
        self.undo(raised, placed);
        Outcome::Impossible
    }

    /// The section to branch on; `None` if a section cannot take what is left in it.
    fn choose(&mut self, part: &[usize]) -> Option<usize> {
        let sections = self.extent(part);
        self.find_floors(part, sections.clone());
        self.tops[sections.clone()].fill(u64::MAX);
        self.cases[sections.clone()].fill((0, false));
        for &i in part {
            let top = self.lows[i] + self.items[i].size;
            self.tops[self.spans[i].clone()].iter_mut().for_each(|t| *t = top.min(*t));
        }
        if !self.fits(sections.clone()) {
            return None;
        }
        for &i in part {
            let low = self.lows[i];
            let under = self.tops[self.spans[i].clone()].iter().any(|&top| top <= low);
            for s in self.spans[i].clone() {
                if self.floors[s] == low {
                    self.cases[s].0 += 1;
                    self.cases[s].1 |= under;
                }
            }
        }
        // The section of the lowest end is always one of them.
        let open = sections.filter(|&s| self.left[s] > 0 && !self.cases[s].1);
        open.min_by_key(|&s| {
            let (floor, room) = (self.floors[s], self.capacity - self.floors[s] - self.left[s]);
            let cases = self.cases[s].0 + u64::from(room > 0);
            match self.pivot {
                Pivot::Cases => [cases, room, 0],
                Pivot::Low => [floor, cases, room],
                Pivot::LowTight => [floor, room, cases],
                Pivot::Tight => [room, cases, 0],
            }
        })
    }

    /// The sections of a group.
    fn extent(&self, part: &[usize]) -> Range<usize> {
        let first = part.iter().map(|&i| self.spans[i].start).min().unwrap_or(0);
        first..part.iter().map(|&i| self.spans[i].end).max().unwrap_or(first)
    }

    fn find_floors(&mut self, part: &[usize], sections: Range<usize>) {
        self.floors[sections].fill(u64::MAX);
        for &i in part {
            let low = self.lows[i];
            self.floors[self.spans[i].clone()].iter_mut().for_each(|f| *f = low.min(*f));
        }
    }

    /// Whether what is left fits between the floors and the height.
    fn fits(&self, mut sections: Range<usize>) -> bool {
        sections.all(|s| self.left[s] == 0 || self.floors[s] + self.left[s] <= self.capacity)
    }

    /// Places an item as low as it can lie; `false` if there is then no room for another.
    fn put(&mut self, i: usize) -> bool {
        let (low, size, span) = (self.lows[i], self.items[i].size, self.spans[i].clone());
        if self.left[span.clone()].iter().any(|&left| low + left > self.capacity) {
            return false;
        }
        self.placed[i] = true;
        self.stack.push(i);
        self.left[span].iter_mut().for_each(|left| *left -= size);
        (0..self.meets[i].len()).all(|at| {
            let j = self.meets[i][at];
            self.placed[j] || self.lows[j] >= low + size || self.raise(j, low + size)
        })
    }

    /// Raises the lowest items of a section, since none of them lies there; `false` if there is no room
    /// for that or no use in it.
    fn put_none(&mut self, part: &[usize], lowest: &[usize]) -> bool {
        // What each rests on at best: another one, or one of them that does.
        let least = |&i: &usize| {
            let others = self.meets[i].iter().filter(|j| !self.placed[**j] && !lowest.contains(j));
            others.map(|&j| self.lows[j] + self.items[j].size).min().unwrap_or(u64::MAX)
        };
        let leasts: Vec<u64> = lowest.iter().map(least).collect();
        let base = leasts.iter().copied().min().unwrap_or(u64::MAX);
        let (raised, sizes) = (self.raised.len(), lowest.iter().map(|&i| self.items[i].size));
        let mut sizes: Vec<u64> = sizes.collect();
        sizes.sort_unstable();
        for (&i, &least) in lowest.iter().zip(&leasts) {
            let other = if self.items[i].size == sizes[0] { sizes.get(1) } else { sizes.first() };
            let on_other = other.map_or(u64::MAX, |&size| base.saturating_add(size));
            if !self.raise(i, least.min(on_other)) {
                return false;
            }
        }
        let sections = self.extent(part);
        self.find_floors(part, sections.clone());
        // Below the floors is empty room: what fits there may as well lie there.
        let fits_below = |&(i, was): &(usize, u64)| {
            let top = was + self.items[i].size;
            self.floors[self.spans[i].clone()].iter().all(|&floor| floor >= top)
        };
        self.fits(sections) && !self.raised[raised..].iter().any(fits_below)
    }

    /// Notes that an item lies no lower; `false` if it then ends above the height.
    fn raise(&mut self, i: usize, low: u64) -> bool {
        self.raised.push((i, self.lows[i]));
        self.lows[i] = low;
        low.saturating_add(self.items[i].size) <= self.capacity
    }

    /// Back to when so much had been raised and placed.
    fn undo(&mut self, raised: usize, placed: usize) {
        for i in self.stack.split_off(placed) {
            self.placed[i] = false;
            let size = self.items[i].size;
            self.left[self.spans[i].clone()].iter_mut().for_each(|left| *left += size);
        }
        for (i, low) in self.raised.split_off(raised).into_iter().rev() {
            self.lows[i] = low;
        }
    }
}

/// The sections in which each item is alive, and how many there are. Of the moments between two changes
/// only those count at which no other has all that is alive at them: items meet if they share one.
fn sections(items: &[Item]) -> (Vec<Range<usize>>, usize) {
    let mut changes: Vec<(u32, bool, usize)> = vec![];
    for (i, item) in items.iter().enumerate() {
        changes.push((item.range.first, true, i));
        changes.push((item.range.last + 1, false, i));
    }
    changes.sort_unstable();
    let (mut spans, mut section, mut grows) = (vec![0..0; items.len()], 0, false);
    for (_, starts, i) in changes {
        if starts {
            spans[i].start = section;
        } else {
            section += usize::from(grows);
            spans[i].end = section;
        }
        grows = starts;
    }
    (spans, section)
}

/// A number that looks random, from another; none comes from two.
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, items, noise};
    use super::super::{in_order, peak};
    use super::*;

    /// The lowest height, from all orders: the lowest placement is that of one of them.
    fn lowest(items: &[Item], order: &mut Vec<usize>) -> u64 {
        if order.len() == items.len() {
            let meets: Vec<Vec<u32>> = (0..items.len())
                .map(|i| {
                    let meets = |&j: &usize| j != i && items[i].range.meets(items[j].range);
                    (0..items.len()).filter(meets).map(|j| j as u32).collect()
                })
                .collect();
            return height(items, &in_order(items, &meets, order, false));
        }
        let mut least = u64::MAX;
        for i in 0..items.len() {
            if !order.contains(&i) {
                order.push(i);
                least = least.min(lowest(items, order));
                order.pop();
            }
        }
        least
    }

    #[test]
    fn finds_what_all_orders_find() {
        let mut state = 5;
        for _ in 0..150 {
            let count = 2 + noise(&mut state) % 5;
            let item = |_| {
                let first = (noise(&mut state) % 6) as u32;
                (64 * (1 + noise(&mut state) % 5), first, first + (noise(&mut state) % 4) as u32)
            };
            let list = items(&(0..count).map(item).collect::<Vec<_>>());
            let all = lowest(&list, &mut vec![]);
            let upper = list.iter().map(|item| item.size).sum::<u64>() + 1;
            let offsets = improve(&list, peak(&list), upper, 1_000_000).unwrap();
            check(&list, &offsets);
            assert_eq!(height(&list, &offsets), all, "{list:?}");
            assert_eq!(improve(&list, peak(&list), all, 1_000_000), None);
        }
    }

    /// A packing without any empty room, cut out of a rectangle: no order by size or time finds it.
    #[test]
    fn finds_packings_without_room() {
        let mut state = 11;
        for _ in 0..5 {
            let mut blocks = vec![(0u32, 60u32, 0u64, 64 * 64u64)];
            while blocks.len() < 40 {
                let at = (noise(&mut state) % blocks.len() as u64) as usize;
                let (first, behind, low, high) = blocks[at];
                if noise(&mut state) % 2 == 0 && behind - first > 1 {
                    let cut = first + 1 + noise(&mut state) as u32 % (behind - first - 1);
                    blocks[at].1 = cut;
                    blocks.push((cut, behind, low, high));
                } else if high - low > 64 {
                    let cut = low + 64 * (1 + noise(&mut state) % ((high - low) / 64 - 1));
                    blocks[at].3 = cut;
                    blocks.push((first, behind, cut, high));
                }
            }
            let list: Vec<_> = blocks.iter().map(|b| (b.3 - b.2, b.0, b.1 - 1)).collect();
            let list = items(&list);
            let offsets = improve(&list, peak(&list), u64::MAX / 2, 2_000_000).unwrap();
            check(&list, &offsets);
            assert_eq!(height(&list, &offsets), 64 * 64);
            assert_eq!(Some(offsets), improve(&list, peak(&list), u64::MAX / 2, 2_000_000));
        }
    }
}
