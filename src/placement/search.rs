//! Exact search for a placement of at most a given height.
//!
//! Items are placed from the bottom up. Of every item that is left the search knows how low it can lie
//! at best; of every section of time, how low the lowest of those alive in it can. At each node a
//! section is chosen, and the cases are that one of its lowest items lies as low as it can, or that none
//! does. In the second case each of them rests on another one that is left (in a placement with the
//! least sum of offsets everything rests on something), so it can be raised to the end of the lowest of
//! these. A section may be chosen only when nothing that is left fits under its lowest items: then
//! whatever meets an item that was placed lies above it, and the state is no more than how low each item
//! can lie. Alignment rounds that up; what is fixed can only lie where it has to, which ends a branch
//! that would raise it.
//!
//! A branch ends when a section's floor and what is left in it go over the height, when something fits
//! into the room that it leaves empty, or in a state that is known to fail. Items that no longer meet, by
//! way of others, are searched one group after the other. What is chosen first decides how long a search
//! takes, and no choice is good for all problems: short searches with different ones take turns.
//!
//! The idea to place from the bottom up, to infer from sections of time and to decompose is that of M.
//! Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning",
//! ASPLOS 2023.

use super::{Item, Sections};
use std::cmp::Reverse;
use std::ops::Range;

/// A search that goes deeper is stopped.
pub(super) const MOST_DEPTH: usize = 8192;

/// So many items are looked at in the time of one step: only what has changed is looked at closely.
pub(super) const AT_ONCE: u64 = 2;

/// What an item with the most blame weighs more, in 256ths, once that has been so for long.
const BLAME: u32 = 256;

/// Blame fades by such a part with each search.
const FADES: u32 = 6;

/// Entries of the table of states that fail. A power of two.
const TABLE: usize = 1 << 14;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
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

const PIVOTS: [Pivot; 4] = [Pivot::Cases, Pivot::Low, Pivot::LowTight, Pivot::Tight];
const FIRSTS: [First; 6] =
    [First::Length, First::CrowdLength, First::Size, First::Sections, First::Crowd, First::Area];

/// How many choices there are.
pub(super) const CHOICES: usize = PIVOTS.len() * FIRSTS.len();

/// A state that fails, for heights up to that.
#[derive(Clone, Copy, Default)]
struct Failure {
    key: [u64; 2],
    capacity: u32,
}

pub(super) struct Search<'a> {
    items: &'a [Item],
    /// All numbers of bytes below are in these units, and fit in 32 bits.
    unit: u64,
    sizes: Vec<u32>,
    alignments: Vec<u32>,
    fixed: Vec<Option<u32>>,
    /// The sections in which each is alive.
    spans: Vec<Range<usize>>,
    /// Which others each meets.
    meets: Vec<Vec<usize>>,
    /// Which are alive in each section.
    members: Vec<Vec<usize>>,
    /// The one before of those that are the same.
    twins: Vec<Option<usize>>,
    /// The sums of sizes alive in each section.
    live: Vec<u64>,
    /// The height that is searched for.
    capacity: u32,
    pivot: Pivot,
    /// What is tried first has the lower rank.
    ranks: Vec<usize>,
    /// How often a search ended for want of room for each: in this one, and in those before, which fade.
    blame: Vec<u32>,
    blamed: Vec<u32>,
    /// The lowest offset that each can have; of those that are placed, theirs.
    lows: Vec<u32>,
    /// What stands for it in the key of a state.
    keys: Vec<[u64; 2]>,
    placed: Vec<bool>,
    /// The lowest offset and the lowest end of each that is left, and the highest numbers of those that are placed.
    left_at: Vec<[u32; 2]>,
    /// The sums of what is left in each section.
    left: Vec<u32>,
    /// The offsets that were raised, with what they were; what was placed, in this order.
    raised: Vec<(usize, u32)>,
    stack: Vec<usize>,
    /// Of each section the lowest offset and the lowest end of what is left, and how many can lie at the floor.
    floors: Vec<u32>,
    tops: Vec<u32>,
    cases: Vec<u32>,
    /// Where these have to be found anew.
    stale: Vec<bool>,
    failures: Vec<Failure>,
    /// A number that looks random.
    noise: u64,
    steps: u64,
    limit: u64,
    depth: usize,
}

impl<'a> Search<'a> {
    /// A search among items that take bytes, with sizes, alignments and fixed offsets that are multiples of
    /// the unit, and sums of them that have 31 bits in it.
    pub(super) fn new(items: &'a [Item], unit: u64) -> Search<'a> {
        let units = |bytes: u64| u32::try_from(bytes / unit).unwrap_or(u32::MAX);
        let sections = Sections::new(items);
        let (live, count) = (sections.live(items), sections.count);
        let spans = sections.spans;
        let others = |i: usize| {
            let meets = |&j: &usize| j != i && items[i].meets(&items[j]);
            (0..items.len()).filter(meets).collect()
        };
        let twin = |i: usize| {
            let sort = |i: usize| (&spans[i], items[i].size, items[i].alignment, items[i].fixed);
            let same = |&j: &usize| sort(i) == sort(j) && items[i].fixed.is_none();
            (0..i).rev().find(same)
        };
        let mut members = vec![vec![]; count];
        for (i, span) in spans.iter().enumerate() {
            members[span.clone()].iter_mut().for_each(|list| list.push(i));
        }
        let lows: Vec<u32> = items.iter().map(|item| item.fixed.map_or(0, units)).collect();
        Search {
            members,
            blame: vec![0; items.len()],
            blamed: vec![0; items.len()],
            keys: lows.iter().enumerate().map(|(i, &low)| key_of(i, low)).collect(),
            meets: (0..items.len()).map(others).collect(),
            twins: (0..items.len()).map(twin).collect(),
            left: live.iter().map(|&l| units(l)).collect(),
            sizes: items.iter().map(|item| units(item.size)).collect(),
            alignments: items.iter().map(|item| units(item.alignment).max(1)).collect(),
            fixed: items.iter().map(|item| item.fixed.map(units)).collect(),
            unit,
            live,
            capacity: 0,
            pivot: Pivot::Cases,
            ranks: vec![0; items.len()],
            left_at: lows
                .iter()
                .zip(items)
                .map(|(&low, item)| [low, low + units(item.size)])
                .collect(),
            lows,
            placed: vec![false; items.len()],
            raised: vec![],
            stack: vec![],
            floors: vec![0; count],
            tops: vec![0; count],
            cases: vec![0; count],
            stale: vec![true; count],
            failures: vec![Failure::default(); TABLE],
            noise: 1,
            steps: 0,
            limit: 0,
            depth: 0,
            items,
            spans,
        }
    }

    /// Searches for a placement of at most this height with one of the choices, for so many steps. If it
    /// is placed, [`Search::take`] has to follow. Later rounds of all choices are a little different.
    pub(super) fn attempt(
        &mut self,
        choice: usize,
        round: u64,
        height: u64,
        steps: u64,
    ) -> Outcome {
        self.pivot = PIVOTS[choice % PIVOTS.len()];
        self.rank(FIRSTS[(choice / PIVOTS.len() + choice) % FIRSTS.len()], round);
        self.capacity = u32::try_from(height / self.unit).unwrap_or(u32::MAX);
        self.limit = self.steps + steps;
        let mut all: Vec<usize> = (0..self.items.len()).collect();
        all.sort_by_key(|&i| (self.spans[i].start, i));
        let outcome = self.groups(&all);
        if outcome == Outcome::Stopped {
            self.undo(0, 0);
        }
        outcome
    }

    /// The offsets that were found; all items are then free again.
    pub(super) fn take(&mut self) -> Vec<u64> {
        let offsets = self.lows.iter().map(|&low| u64::from(low) * self.unit).collect();
        self.undo(0, 0);
        offsets
    }

    /// Steps that were done so far: looks at an item.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Ranks the items. Those that are alike in what counts change places from round to round, and what had no room
    /// comes earlier.
    ///
    /// F. Boussemart, F. Hemery, C. Lecoutre and L. Sais, "Boosting Systematic Search by Weighting
    /// Constraints", ECAI 2004.
    fn rank(&mut self, first: First, round: u64) {
        let most = self.blame.iter().copied().max().unwrap_or(0).max(1);
        for (blamed, blame) in self.blamed.iter_mut().zip(&mut self.blame) {
            let share = u64::from(std::mem::take(blame)) * u64::from(BLAME) / u64::from(most);
            *blamed = *blamed - *blamed / FADES + share as u32 / FADES;
        }
        let Search { items, spans, live, noise, blamed, .. } = self;
        let length = |i: usize| items[i].lower.abs_diff(items[i].upper);
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
            // The first time is by the weights alone.
            *noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let share = u128::from((*noise >> 33) % 64) + u128::from(blamed[i]);
            weight.saturating_mul(256 + if round == 0 { 0 } else { share })
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
        self.steps += 1 + part.len() as u64 / AT_ONCE;
        if self.steps > self.limit || self.depth == MOST_DEPTH {
            return Outcome::Stopped;
        }
        let mut key = [0; 2];
        for &i in part {
            key[0] ^= self.keys[i][0];
            key[1] ^= self.keys[i][1];
        }
        let slot = key[0] as usize % TABLE;
        let known = self.failures[slot];
        if known.key == key && known.capacity >= self.capacity {
            return Outcome::Impossible;
        }
        self.depth += 1;
        let outcome = self.branch(part);
        self.depth -= 1;
        if outcome == Outcome::Impossible {
            self.failures[slot] = Failure { key, capacity: self.capacity };
        }
        outcome
    }

    fn branch(&mut self, part: &[usize]) -> Outcome {
        let Some(pivot) = self.choose(part) else { return Outcome::Impossible };
        let floor = self.floors[pivot];
        let room = self.capacity - floor - self.left[pivot];
        let lowest = |&&i: &&usize| self.left_at[i][0] == floor;
        let mut lowest: Vec<usize> = self.members[pivot].iter().filter(lowest).copied().collect();
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
        if !self.fits(sections.clone()) {
            return None;
        }
        // Nothing fits under what is lowest in the section of the lowest end: there is always one.
        let mut best: Option<([u32; 3], usize)> = None;
        for s in sections.filter(|&s| self.left[s] > 0) {
            let key = self.key(s);
            if best.is_none_or(|(least, _)| key < least) && !self.fits_under(s) {
                best = Some((key, s));
            }
        }
        best.map(|(_, s)| s)
    }

    /// The lower, the rather a section is branched on.
    fn key(&self, s: usize) -> [u32; 3] {
        let (floor, room) = (self.floors[s], self.capacity - self.floors[s] - self.left[s]);
        let cases = self.cases[s] + u32::from(room > 0);
        match self.pivot {
            Pivot::Cases => [cases, room, 0],
            Pivot::Low => [floor, cases, room],
            Pivot::LowTight => [floor, room, cases],
            Pivot::Tight => [room, cases, 0],
        }
    }

    /// Whether something that is left fits under one of the lowest items of a section.
    fn fits_under(&self, s: usize) -> bool {
        let floor = self.floors[s];
        let mut lowest = self.members[s].iter().filter(|&&i| self.left_at[i][0] == floor);
        lowest.any(|&i| self.tops[self.spans[i].clone()].iter().any(|&top| top <= floor))
    }

    /// The sections of a group.
    fn extent(&self, part: &[usize]) -> Range<usize> {
        let first = part.iter().map(|&i| self.spans[i].start).min().unwrap_or(0);
        first..part.iter().map(|&i| self.spans[i].end).max().unwrap_or(first)
    }

    /// Whether what is left fits between the floors, which are found, and the height.
    fn fits(&mut self, sections: Range<usize>) -> bool {
        for s in sections.clone().filter(|&s| std::mem::take(&mut self.stale[s])) {
            let (mut floor, mut top, mut cases) = (u32::MAX, u32::MAX, 0);
            for &i in &self.members[s] {
                let [low, its_top] = self.left_at[i];
                top = top.min(its_top);
                cases = if low < floor { 1 } else { cases + u32::from(low == floor) };
                floor = floor.min(low);
            }
            (self.floors[s], self.tops[s], self.cases[s]) = (floor, top, cases);
        }
        let over = |&s: &usize| self.left[s] > 0 && self.floors[s] + self.left[s] > self.capacity;
        let Some(over) = sections.clone().find(over) else { return true };
        for &i in self.members[over].iter().filter(|&&i| !self.placed[i]) {
            self.blame[i] += 1;
        }
        false
    }

    /// Notes for the sections of an item that it can lie there, or could.
    fn touch(&mut self, i: usize, low: u32) {
        let (span, top) = (self.spans[i].clone(), low + self.sizes[i]);
        let found = self.floors[span.clone()].iter().zip(&self.tops[span.clone()]);
        for (stale, (&floor, &its_top)) in self.stale[span].iter_mut().zip(found) {
            *stale |= low <= floor || top <= its_top;
        }
    }

    fn set_low(&mut self, i: usize, low: u32) {
        self.touch(i, low.min(self.lows[i]));
        (self.lows[i], self.keys[i]) = (low, key_of(i, low));
        self.left_at[i] = [low, low + self.sizes[i]];
    }

    /// Places an item as low as it can lie; `false` if there is then no room for another.
    fn put(&mut self, i: usize) -> bool {
        let (low, size, span) = (self.lows[i], self.sizes[i], self.spans[i].clone());
        if self.left[span.clone()].iter().any(|&left| low + left > self.capacity) {
            return false;
        }
        self.placed[i] = true;
        self.touch(i, low);
        self.left_at[i] = [u32::MAX; 2];
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
            others.map(|&j| self.lows[j] + self.sizes[j]).min().unwrap_or(u32::MAX)
        };
        let leasts: Vec<u32> = lowest.iter().map(least).collect();
        let base = leasts.iter().copied().min().unwrap_or(u32::MAX);
        let (raised, sizes) = (self.raised.len(), lowest.iter().map(|&i| self.sizes[i]));
        let mut sizes: Vec<u32> = sizes.collect();
        sizes.sort_unstable();
        for (&i, &least) in lowest.iter().zip(&leasts) {
            let other = if self.sizes[i] == sizes[0] { sizes.get(1) } else { sizes.first() };
            let on_other = other.map_or(u32::MAX, |&size| base.saturating_add(size));
            if !self.raise(i, least.min(on_other)) {
                return false;
            }
        }
        let sections = self.extent(part);
        if !self.fits(sections) {
            return false;
        }
        // Below the floors is empty room: what fits there may as well lie there.
        let fits_below = |&(i, was): &(usize, u32)| {
            let top = was + self.sizes[i];
            self.floors[self.spans[i].clone()].iter().all(|&floor| floor >= top)
        };
        !self.raised[raised..].iter().any(fits_below)
    }

    /// Notes that an item lies no lower; `false` if it then cannot lie anywhere.
    fn raise(&mut self, i: usize, low: u32) -> bool {
        self.raised.push((i, self.lows[i]));
        let alignment = self.alignments[i];
        let low = match alignment {
            1 => low,
            _ => low.checked_next_multiple_of(alignment).unwrap_or(u32::MAX),
        };
        let most = self.fixed[i].unwrap_or(self.capacity);
        if low > most || low + self.sizes[i] > self.capacity {
            self.blame[i] += 4;
            return false;
        }
        self.set_low(i, low);
        true
    }

    /// Back to when so much had been raised and placed.
    fn undo(&mut self, raised: usize, placed: usize) {
        for i in self.stack.split_off(placed) {
            self.placed[i] = false;
            self.touch(i, self.lows[i]);
            self.left_at[i] = [self.lows[i], self.lows[i] + self.sizes[i]];
            let size = self.sizes[i];
            self.left[self.spans[i].clone()].iter_mut().for_each(|left| *left += size);
        }
        for (i, low) in self.raised.split_off(raised).into_iter().rev() {
            self.set_low(i, low);
        }
    }
}

/// What stands for an item that lies no lower than that.
fn key_of(i: usize, low: u32) -> [u64; 2] {
    let mixed = mix(u64::from(low) ^ mix(i as u64 + 1));
    [mixed, mix(mixed.wrapping_add(0x9e37_79b9_7f4a_7c15))]
}

/// A number that looks random, from another; none comes from two.
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
