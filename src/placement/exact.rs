//! Lower and lower placements by exact search.
//!
//! Many short searches with different choices do more than a long one: some of them find at once what
//! others never do. They take turns, and so do two heights: the lowest that is possible, which most
//! problems have, and one between it and the best so far, the nearer to that the more searches have failed.

use super::search::{AT_ONCE, CHOICES, Outcome, Search};
use super::{Item, Problem};
use std::collections::VecDeque;
use std::thread;

/// More items than this are not searched.
const MOST_ITEMS: usize = 3000;

/// Bytes of the stack: some kB for each level of the search, which has [`search::MOST_DEPTH`] at most.
const STACK: usize = 64 << 20;

/// Heights above this, in units, are not searched.
const MOST_UNITS: u64 = 1 << 30;

/// What a search has come to.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Offsets of less height than were known, if there are any.
    pub(super) offsets: Option<Vec<u64>>,
    /// No placement is lower, as far as is known now.
    pub(super) bound: u64,
    /// Looks at an item that it took.
    pub(super) steps: u64,
}

/// Searches for a placement of height `goal`, else for any that is lower than `upper`. All items take
/// bytes, and no placement is lower than `bound`.
pub(super) fn improve(problem: &Problem, bound: u64, goal: u64, upper: u64, steps: u64) -> Found {
    let items = &problem.items;
    let unit = unit(items);
    let all: u64 = items.iter().map(|i| i.size + i.alignment + i.fixed.unwrap_or(0)).sum();
    let found = Found { offsets: None, bound, steps: 0 };
    if items.len() > MOST_ITEMS || all / unit > MOST_UNITS || goal.max(bound) >= upper || steps == 0
    {
        return found;
    }
    thread::scope(|scope| {
        let unsearched = found.clone();
        let search = || descend(problem, unit, found, goal, upper, steps);
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, search);
        match thread.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(found)) => found,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // Without the memory for it there is no search.
            Err(_) => unsearched,
        }
    })
}

fn descend(
    problem: &Problem,
    unit: u64,
    mut found: Found,
    goal: u64,
    mut upper: u64,
    steps: u64,
) -> Found {
    let items = &problem.items;
    let mut search = Search::new(items, unit);
    // To place all items without a wrong turn takes half of that.
    let first_quota = (items.len() * items.len()) as u64 / AT_ONCE + 1000;
    let mut descent = Descent::new();
    for turn in 0.. {
        let (choice, round) = (turn % CHOICES, (turn / CHOICES) as u64);
        if choice == 0 {
            descent.begin();
        }
        for descends in [false, true] {
            let lowest = goal.max(found.bound).next_multiple_of(unit);
            if upper <= lowest || search.steps() >= steps {
                found.steps = search.steps();
                return found;
            }
            let height =
                if descends { descent.height(lowest, upper) / unit * unit } else { lowest };
            if descends && height == lowest {
                continue;
            }
            let quota = (first_quota << round.min(32)).min(steps - search.steps());
            let (choice, round) = if descends { descent.choices[0] } else { (choice, round) };
            let outcome = search.attempt(choice, round, height, quota);
            match outcome {
                Outcome::Placed => {
                    let offsets = search.take();
                    upper = problem.height(&offsets);
                    found.offsets = Some(offsets);
                }
                Outcome::Impossible => found.bound = height + unit,
                Outcome::Stopped => {}
            }
            if descends {
                descent.learn(outcome);
            }
        }
    }
    found
}

/// The heights between the best so far and the lowest, and the choices that are tried with them: what has
/// led to a lower placement leads the next search too.
struct Descent {
    /// Which choice and in which round of its own; the first one is tried next.
    choices: VecDeque<(usize, u64)>,
    /// How far down, in parts of `WHOLE` of the way to the lowest.
    stride: u64,
    /// How many searches have failed since it was changed.
    fails: usize,
}

/// The whole way to the lowest height.
const WHOLE: u64 = 256;

/// After so many searches that fail, the stride becomes shorter.
const PATIENCE: usize = 6;

impl Descent {
    fn new() -> Descent {
        let choices = (0..CHOICES).map(|choice| (choice, 0)).collect();
        Descent { choices, stride: WHOLE * 3 / 4, fails: 0 }
    }

    /// Starts anew, from far down.
    fn begin(&mut self) {
        (self.stride, self.fails) = (WHOLE * 3 / 4, 0);
    }

    fn height(&self, lowest: u64, upper: u64) -> u64 {
        let way = u128::from(upper - lowest) * u128::from(self.stride) / u128::from(WHOLE);
        // At most a part of what it is computed from.
        (upper - way as u64).min(upper - 1)
    }

    fn learn(&mut self, outcome: Outcome) {
        if outcome == Outcome::Placed {
            self.fails = 0;
            return;
        }
        self.choices[0].1 += 1;
        self.choices.rotate_left(1);
        self.fails += 1;
        if self.fails == PATIENCE {
            (self.stride, self.fails) = ((self.stride * 3 / 4).max(1), 0);
        }
    }
}

/// All heights of placements in which everything rests on something are multiples of this.
fn unit(items: &[Item]) -> u64 {
    let numbers = items.iter().flat_map(|item| {
        let alignment = Some(item.alignment).filter(|&a| a > 1);
        [Some(item.size), alignment, item.fixed].into_iter().flatten()
    });
    numbers.fold(0, gcd).max(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
