//! Lower and lower placements by exact search.

use super::search::{Outcome, Search};
use super::{Item, Problem};

/// More items than this are not searched: the depth of the search is their number.
const MOST_ITEMS: usize = 800;

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
    let mut found = Found { offsets: None, bound, steps: 0 };
    let items = &problem.items;
    if items.len() > MOST_ITEMS || goal.max(bound) >= upper {
        return found;
    }
    let unit = unit(items);
    let mut search = Search::new(items);
    let mut upper = upper;
    let mut quota = (items.len() * items.len()) as u64 + 1000;
    while search.steps() < steps {
        // The lowest at first; what fails is above the rest of the round.
        let lowest = goal.max(found.bound).next_multiple_of(unit);
        let (mut failed, mut target) = (lowest, lowest);
        while target < upper {
            match search.tries(target, quota, steps) {
                Outcome::Placed => {
                    let offsets = search.take();
                    upper = problem.height(&offsets);
                    found.offsets = Some(offsets);
                }
                Outcome::Impossible => {
                    found.bound = target + unit;
                    failed = target;
                }
                Outcome::Stopped => failed = target,
            }
            if search.steps() >= steps || upper.saturating_sub(failed) <= unit.max(upper / 256) {
                break;
            }
            target = failed + ((upper - failed) / 2 / unit).max(1) * unit;
        }
        if goal.max(found.bound) >= upper {
            break;
        }
        quota *= 2;
    }
    found.steps = search.steps();
    found
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
