//! Lower placements by small searches where a large one is out of reach.
//!
//! A few items end above what is asked for. Around each of them the items that live in some span of time
//! are taken out, and put back by an exact search between all others, which stay where they are.

use super::{Problem, exact};

/// How many items are taken out at once: few at first.
const SIZES: [usize; 3] = [24, 60, 120];

/// Looks at an item that one search may take, for each item squared.
const LOOKS: u64 = 8;

/// Lowers what ends above `goal`, in about so many steps; how many were taken.
pub(super) fn repair(problem: &Problem, offsets: &mut [u64], goal: u64, steps: u64) -> u64 {
    let items = &problem.items;
    let mut by_start: Vec<usize> = (0..items.len()).collect();
    by_start.sort_by_key(|&i| (items[i].lower, i));
    let mut taken = 0;
    for size in SIZES {
        let above = |offsets: &[u64], i: usize| offsets[i] + items[i].size > goal;
        let mut tall: Vec<usize> = (0..items.len()).filter(|&i| above(offsets, i)).collect();
        tall.sort_by_key(|&i| (std::cmp::Reverse(offsets[i] + items[i].size), i));
        for i in tall {
            if taken >= steps {
                return taken;
            }
            if above(offsets, i) {
                let steps = steps - taken;
                taken += around(problem, offsets, &by_start, i, size, goal, steps);
            }
        }
    }
    taken
}

/// Searches for lower offsets of the items around one of them.
fn around(
    problem: &Problem,
    offsets: &mut [u64],
    by_start: &[usize],
    centre: usize,
    size: usize,
    goal: u64,
    steps: u64,
) -> u64 {
    let items = &problem.items;
    let (first, behind) = span(problem, by_start, centre, size);
    let mut part = Problem::default();
    let mut free = vec![];
    for (i, item) in items.iter().enumerate().filter(|(_, item)| !item.is_empty()) {
        if item.lower >= behind || item.upper <= first {
            continue;
        }
        let mut item = *item;
        if item.lower >= first && item.upper <= behind && item.fixed.is_none() {
            free.push((part.items.len(), i));
        } else {
            item.fixed = Some(offsets[i]);
            (item.lower, item.upper) = (item.lower.max(first), item.upper.min(behind));
        }
        part.items.push(item);
    }
    let height = free.iter().map(|&(_, i)| offsets[i] + items[i].size).max().unwrap_or(0);
    let bound = part.bound();
    let count = free.len() as u64;
    let quota = (count * (part.items.len() as u64) * LOOKS).min(steps);
    let found = exact::improve(&part, bound, goal, height, quota);
    if let Some(lower) = found.offsets {
        free.iter().for_each(|&(at, i)| offsets[i] = lower[at]);
    }
    // To come here takes time too.
    found.steps + items.len() as u64 / 4 + (part.items.len() * part.items.len()) as u64 / 4
}

/// The time around an item in which about so many others live.
fn span(problem: &Problem, by_start: &[usize], centre: usize, size: usize) -> (i64, i64) {
    let items = &problem.items;
    let (mut first, mut behind) = (items[centre].lower, items[centre].upper);
    let at = by_start.partition_point(|&i| items[i].lower < first);
    let near = &by_start[at.saturating_sub(size / 2)..(at + size / 2).min(by_start.len())];
    for &i in near {
        first = first.min(items[i].lower);
        behind = behind.max(items[i].lower + 1);
    }
    (first, behind)
}
