//! Static placement: items with a size and a lifetime get offsets, so that no two that are alive at the
//! same time share bytes, and the highest end is as low as can be.
//!
//! Nothing here knows where the items come from: [`Problem`] is data, [`Problem::check`] says whether an
//! answer is right, [`solve`] finds one, and [`csv`] reads and writes files.
//!
//! A problem is taken apart first: items that never meet those of another part are placed on their own,
//! and what is alive for the whole time of a part lies at its bottom, which is no loss. Parts that remain
//! are placed greedily in several orders, which learn from what they lead to; and where that is not as low
//! as can be, by a search that is exact: of the whole part, or where that is too large, of what is around the
//! highest items. All work is counted in steps, looks at an item, and not by a clock: an answer
//! does not depend on the machine.

pub mod csv;
mod exact;
mod greedy;
mod parts;
mod problem;
mod repair;
mod search;
mod sections;

pub use problem::{Clash, Item, Problem};

use greedy::{Fit, Orders};
use parts::{Part, parts};
use sections::Sections;

/// How much is done for a good answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Looks at an item, about 80 ns each, that the search may take.
    pub steps: u64,
    /// A height that is low enough: no lower one is searched for.
    pub enough: u64,
}

/// A placement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Solution {
    /// For each item its offset.
    pub offsets: Vec<u64>,
    /// The highest end.
    pub height: u64,
    /// No placement is lower than this.
    pub bound: u64,
    /// Looks at an item that the search took.
    pub steps: u64,
}

impl Solution {
    /// Whether it is known that no placement is lower.
    pub fn is_optimal(&self) -> bool {
        self.height <= self.bound
    }
}

/// Looks at an item that all greedy placements of a part in orders may take, for each step of the effort.
/// They are that much shorter.
const LOOKS: u64 = 12;

/// So often each order is improved.
const ROUNDS: usize = 16;

/// The lowest placement that is found with so much effort. What is fixed must not clash already
/// ([`Problem::check`] the fixed ones for themselves), or the answer clashes too.
pub fn solve(problem: &Problem, effort: Effort) -> Solution {
    let mut parts: Vec<Placed> = parts(problem).into_iter().map(Placed::new).collect();
    // What any part needs, all others may have too.
    let bound = parts.iter().map(|p| p.part.base + p.bound).max().unwrap_or(0);
    let mut goal = bound.max(effort.enough);
    for part in &mut parts {
        part.place(goal, effort.steps.saturating_mul(LOOKS));
    }
    // The highest first: how low it can be is then known for all others.
    parts.sort_by_key(|p| (std::cmp::Reverse(p.top()), p.part.indices.first().copied()));
    let mut steps = 0;
    for part in &mut parts {
        steps += part.search(goal, effort.steps.saturating_sub(steps));
        goal = goal.max(part.part.base + part.bound);
    }
    let mut offsets: Vec<u64> = problem.items.iter().map(|i| i.fixed.unwrap_or(0)).collect();
    for Placed { part, offsets: found, .. } in &parts {
        for (&i, offset) in part.indices.iter().zip(found) {
            offsets[i] = part.base + offset;
        }
    }
    let height = problem.height(&offsets);
    let bound = parts.iter().map(|p| p.part.base + p.bound).max().unwrap_or(0);
    Solution { offsets, height, bound, steps }
}

/// The offsets when the items are placed one after the other in this order of their indices, each as low
/// as it can lie beside those before; what is fixed comes first. What the order leaves out stays at 0.
pub fn in_order(items: &[Item], order: &[usize]) -> Vec<u64> {
    Orders::new(items).placed(order)
}

/// A part with the best placement so far.
struct Placed {
    part: Part,
    offsets: Vec<u64>,
    height: u64,
    bound: u64,
}

impl Placed {
    fn new(part: Part) -> Placed {
        let bound = part.problem.bound();
        Placed { offsets: vec![], height: u64::MAX, bound, part }
    }

    fn top(&self) -> u64 {
        self.part.base + self.height
    }

    fn keep(&mut self, offsets: Vec<u64>) {
        let height = self.part.problem.height(&offsets);
        if height < self.height {
            (self.height, self.offsets) = (height, offsets);
        }
    }

    /// Greedily, until it is low enough or so many looks are done.
    fn place(&mut self, goal: u64, looks: u64) {
        let problem = self.part.problem.clone();
        let items = &problem.items;
        let length = |item: &Item| item.lower.abs_diff(item.upper);
        if items.iter().all(|item| item.fixed.is_none()) {
            self.keep(greedy::in_time(items, Fit::First, |item| item.size));
            if self.top() > goal {
                self.keep(greedy::in_time(items, Fit::Best, length));
            }
        }
        let mut orders = Orders::new(items);
        let mut lists: Vec<Vec<usize>> = vec![];
        for round in 0..ROUNDS {
            for (at, first) in Orders::ALL.into_iter().enumerate() {
                if round == 0 {
                    lists.push(orders.order(first));
                }
                // Twice: the second one is the better in most cases.
                for _ in 0..2 {
                    if self.top() <= goal || self.height < u64::MAX && orders.looks >= looks {
                        return;
                    }
                    let offsets = orders.placed(&lists[at]);
                    let height = goal.saturating_sub(self.part.base);
                    orders.promote(&mut lists[at], &offsets, height);
                    self.keep(offsets);
                }
            }
        }
    }

    /// Exactly, with so many steps at most; how many were taken.
    fn search(&mut self, goal: u64, steps: u64) -> u64 {
        if self.top() <= goal {
            return 0;
        }
        let goal = goal.saturating_sub(self.part.base);
        let found = exact::improve(&self.part.problem, self.bound, goal, self.height, steps);
        self.bound = found.bound;
        if let Some(offsets) = found.offsets {
            self.keep(offsets);
        }
        let mut taken = found.steps;
        // It was too large.
        if self.top() > goal + self.part.base && found.steps == 0 {
            let mut offsets = self.offsets.clone();
            taken += repair::repair(&self.part.problem, &mut offsets, goal, steps / 2);
            self.keep(offsets);
        }
        taken
    }
}

#[cfg(test)]
mod tests;
