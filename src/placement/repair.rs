//! Lower placements by small ones where a whole one is out of reach.
//!
//! A few items end above what is asked for. Around each of them those that live at about the same time
//! are taken out, and put back between all others, which stay where they are: greedily in orders that
//! learn, and if that is not low enough, by an exact search.

use super::greedy::{First, Orders};
use super::{Item, LOOKS, Problem, exact};
use std::cmp::Reverse;

/// How many items are taken out at once: few at first.
const SIZES: [usize; 5] = [16, 40, 100, 200, 400];

/// Orders in which they are put back, and how often each learns.
const ORDERS: [First; 3] = [First::CrowdLength, First::CrowdSize, First::Area];
const ROUNDS: usize = 8;

/// Fewer are not searched exactly: what surrounds them leaves no choice.
const SEARCHED: usize = 100;

/// Looks at an item that one search may take, for each item squared.
const SEARCH: u64 = 8;

/// The part of the steps that is left which one height may take.
const SHARE: u64 = 3;

/// Lowers what ends above `goal`, in about so many steps; how many were taken.
pub(super) fn repair(problem: &Problem, offsets: &mut [u64], goal: u64, steps: u64) -> u64 {
    let items = &problem.items;
    let mut repair = Repair { items, goal, by_start: ByStart::new(items), offsets, taken: 0 };
    // Heights that were not reached are below `low`.
    let (mut low, mut high) = (goal, problem.height(repair.offsets));
    while low < high && repair.taken < steps {
        let limit = repair.taken + (steps - repair.taken).div_ceil(SHARE);
        repair.lower(limit);
        high = problem.height(repair.offsets);
        if high > repair.goal {
            low = repair.goal + 1;
        }
        repair.goal = low + (high.max(low) - low) / 2;
    }
    repair.taken
}

struct Repair<'a> {
    items: &'a [Item],
    /// The height that is asked for now.
    goal: u64,
    by_start: ByStart,
    offsets: &'a mut [u64],
    /// Steps so far.
    taken: u64,
}

/// How high some items lie: the highest end, and by how much all are above the goal.
type Excess = (u64, u64);

impl Repair<'_> {
    fn end(&self, i: usize) -> u64 {
        self.offsets[i] + self.items[i].size
    }

    /// What ends above the goal, the highest first.
    fn tall(&self) -> Vec<usize> {
        let tall = |&i: &usize| !self.items[i].is_empty() && self.end(i) > self.goal;
        let mut tall: Vec<usize> = (0..self.items.len()).filter(tall).collect();
        tall.sort_by_key(|&i| (Reverse(self.end(i)), i));
        tall
    }

    /// Brings what it can below the goal.
    fn lower(&mut self, steps: u64) {
        for size in SIZES {
            for i in self.tall() {
                if self.taken >= steps {
                    return;
                }
                if self.end(i) > self.goal {
                    self.around(i, size, steps);
                }
            }
        }
    }

    /// Lowers items around one of them.
    fn around(&mut self, centre: usize, size: usize, steps: u64) {
        let free = self.near(centre, size);
        let mut part = self.part(&free);
        let excess = |offsets: &[u64]| {
            let ends = offsets.iter().zip(&free).map(|(offset, &i)| offset + self.items[i].size);
            ends.fold((0, 0), |(top, sum): Excess, end| {
                (top.max(end), sum + end.saturating_sub(self.goal))
            })
        };
        let before: Vec<u64> = free.iter().map(|&i| self.offsets[i]).collect();
        let (mut least, mut best) = (excess(&before), None);
        let mut orders = Orders::new(&part.items);
        'orders: for first in ORDERS {
            let mut order = orders.order(first);
            for _ in 0..ROUNDS {
                let offsets = orders.placed(&order);
                orders.promote(&mut order, &offsets, self.goal);
                let found = excess(&offsets);
                if found < least {
                    (least, best) = (found, Some(offsets));
                }
                if least.1 == 0 {
                    break 'orders;
                }
            }
        }
        self.taken += orders.looks / LOOKS + part.items.len() as u64;
        if least.1 > 0 && size >= SEARCHED && self.taken < steps {
            // What others do above the goal is no matter.
            part.items.retain_mut(|item| {
                let room = item.fixed.map_or(u64::MAX, |fixed| self.goal.saturating_sub(fixed));
                item.size = item.size.min(room);
                item.size > 0
            });
            let count = (free.len() * part.items.len()) as u64;
            let quota = (count * SEARCH).min(steps - self.taken);
            let found = exact::improve(&part, part.bound(), self.goal, self.goal + 1, quota);
            // To come here takes time too.
            self.taken += found.steps + (part.items.len() * part.items.len()) as u64 / 4;
            best = found.offsets.or(best);
        }
        if let Some(lower) = best {
            free.iter().zip(lower).for_each(|(&i, offset)| self.offsets[i] = offset);
        }
    }

    /// So many items whose lifetimes are the nearest to that of one of them, itself included.
    fn near(&mut self, centre: usize, size: usize) -> Vec<usize> {
        let Item { lower, upper, .. } = self.items[centre];
        let mut near = self.by_start.meeting(self.items, lower, upper);
        near.extend(self.by_start.beside(self.items, lower, 2 * size));
        near.retain(|&i| self.items[i].fixed.is_none());
        self.taken += near.len() as u64;
        let apart = |i: usize| {
            let item = &self.items[i];
            u128::from(item.lower.abs_diff(lower)) + u128::from(item.upper.abs_diff(upper))
        };
        near.sort_by_cached_key(|&i| (apart(i), i));
        near.dedup();
        near.truncate(size);
        near
    }

    /// Those that are free, then all that they meet, fixed where they are.
    fn part(&mut self, free: &[usize]) -> Problem {
        let lives = free.iter().map(|&i| &self.items[i]);
        let first = lives.clone().map(|item| item.lower).min().unwrap_or(0);
        let behind = lives.map(|item| item.upper).max().unwrap_or(0);
        let mut sorted = free.to_vec();
        sorted.sort_unstable();
        let others = self.by_start.meeting(self.items, first, behind);
        let others = others.into_iter().filter(|i| sorted.binary_search(i).is_err());
        let fixed = others.map(|i| {
            let item = self.items[i];
            let (lower, upper) = (item.lower.max(first), item.upper.min(behind));
            Item { lower, upper, fixed: Some(self.offsets[i]), ..item }
        });
        Problem { items: free.iter().map(|&i| self.items[i]).chain(fixed).collect() }
    }
}

/// Items by their starts.
struct ByStart {
    order: Vec<usize>,
    /// The latest end of each and all before.
    latest: Vec<i64>,
}

impl ByStart {
    fn new(items: &[Item]) -> ByStart {
        let mut order: Vec<usize> = (0..items.len()).filter(|&i| !items[i].is_empty()).collect();
        order.sort_by_key(|&i| (items[i].lower, i));
        let latest = order.iter().scan(i64::MIN, |latest, &i| {
            *latest = items[i].upper.max(*latest);
            Some(*latest)
        });
        ByStart { latest: latest.collect(), order }
    }

    /// What is alive in this time.
    fn meeting(&self, items: &[Item], lower: i64, upper: i64) -> Vec<usize> {
        let first = self.latest.partition_point(|&latest| latest <= lower);
        let behind = self.order.partition_point(|&i| items[i].lower < upper);
        let some = self.order[first.min(behind)..behind].iter().copied();
        some.filter(|&i| items[i].upper > lower).collect()
    }

    /// So many that start before and after this time.
    fn beside(&self, items: &[Item], time: i64, count: usize) -> Vec<usize> {
        let at = self.order.partition_point(|&i| items[i].lower < time);
        self.order[at.saturating_sub(count)..(at + count).min(self.order.len())].to_vec()
    }
}
