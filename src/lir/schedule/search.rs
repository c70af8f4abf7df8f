//! The search for the order with the lowest peak.
//!
//! What is alive depends on which tasks are done, not on their order, so an order is a path through
//! the sets of tasks that are closed under "must be done before". The path whose highest point is lowest
//! is found by Dijkstra's method with the maximum for the sum: the sets are visited from the lowest
//! peak upwards, and of those with the same peak the largest first. (Ahn et al., "Ordering Chaos:
//! Memory-Aware Scheduling of Irregularly Wired Neural Networks for Edge Devices", 2020, visit them by size.)
//!
//! Two things keep the sets few:
//!
//! - A task that all others come before or after cuts the problem into two that do not know of each other.
//! - What costs nothing is done at once: a chain of tasks after which no more is alive than before,
//!   and during which no more than has to be alive at some time anyway. Doing a task earlier never
//!   makes later ones dearer (what is alive is submodular in the set of tasks), so no better path is lost.
//!
//! Where they are still too many, a beam is followed: of the sets of each size those with the lowest
//! peaks; and where even one set of each size has too many ways on (recurrences that are unrolled have
//! hundreds), what is left of the section is done in its own order. All work is counted, so that the
//! outcome does not depend on the machine.

use super::problem::{Problem, Progress};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Work for all sections that may be spent on exact search, and on each beam.
pub(super) const EXACT_WORK: usize = 200_000;
const BEAM_WORK: usize = 200_000;
/// Work after which even the narrowest beam ends: what is left is done in the problem's own order.
const MOST_WORK: usize = 4_000_000;

/// Sets of each size in the beam, at most.
const WIDTH: usize = 24;

/// Tasks that free themselves of what they make within so many steps are done as one.
const CHAIN: usize = 12;

/// A larger section is left as it is.
const LARGEST: usize = 4000;

/// The best order that is found with so much work. Where the problem's own order is as good, it stays.
pub(super) fn search(problem: &Problem, exact_work: usize) -> Vec<usize> {
    let mut progress = Progress::new(problem);
    let mut sections: Vec<Section> = sections(problem)
        .into_iter()
        .map(|tasks| Section { peak: peak(&mut progress, tasks.clone()), order: tasks.collect() })
        .collect();
    // The hungriest first: what it needs, all others may have for nothing.
    let mut hungry: Vec<usize> = (0..sections.len()).collect();
    hungry.sort_by_key(|&i| (Reverse(sections[i].peak), i));
    let (mut level, mut work) = (problem.floor(), exact_work);
    for i in hungry {
        let Section { order, peak: own } = &mut sections[i];
        if *own > level {
            let (start, end) = (order[0], order[0] + order.len());
            let mut progress = Progress::new(problem);
            (0..start).for_each(|task| progress.apply(task));
            let mut finder = Finder::new(progress, start..end, level);
            let solution = finder.exact(work);
            work = work.saturating_sub(finder.spent());
            if let Some(found) = solution.or_else(|| finder.beam()) {
                finder.go_to(&Set::empty(found.len()));
                let peak = peak(&mut finder.progress, found.iter().copied());
                if peak < *own {
                    (*order, *own) = (found, peak);
                }
            }
        }
        level = level.max(*own);
    }
    sections.into_iter().flat_map(|section| section.order).collect()
}

/// Tasks between two cuts.
struct Section {
    order: Vec<usize>,
    peak: u64,
}

/// The most that is alive while these tasks are done.
fn peak(progress: &mut Progress<'_>, tasks: impl Iterator<Item = usize>) -> u64 {
    let mut peak = 0;
    for task in tasks {
        peak = peak.max(progress.during(task));
        progress.apply(task);
    }
    peak
}

/// The ranges of tasks between two cuts.
fn sections(problem: &Problem) -> Vec<std::ops::Range<usize>> {
    let count = problem.tasks.len();
    // A task is a cut if every one before it has a user up to it, and every one behind it needs one from it on.
    let mut first_user = vec![usize::MAX; count];
    for (index, task) in problem.tasks.iter().enumerate() {
        for &other in &task.after {
            first_user[other] = first_user[other].min(index);
        }
    }
    // The last one that each needs, plus one, and the least of those from each on.
    let mut least_need = vec![usize::MAX; count + 1];
    for (index, task) in problem.tasks.iter().enumerate().rev() {
        let need = task.after.last().map_or(0, |&last| last + 1);
        least_need[index] = least_need[index + 1].min(need);
    }
    let (mut sections, mut start, mut used_by) = (vec![], 0, 0);
    for index in 0..count {
        let is_cut = used_by <= index && least_need[index + 1] > index;
        if is_cut {
            sections.push(start..index + 1);
            start = index + 1;
        }
        used_by = used_by.max(first_user[index]);
    }
    if start < count {
        sections.push(start..count);
    }
    sections
}

/// A set of tasks of a section.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Set(Box<[u64]>);

impl Set {
    fn empty(count: usize) -> Set {
        Set(vec![0; count.div_ceil(64)].into())
    }

    fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn contains(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    /// The indices that are in one of two sets only, ascending.
    fn differences<'a>(&'a self, other: &'a Set) -> impl Iterator<Item = usize> + 'a {
        let words = self.0.iter().zip(&other.0).enumerate();
        words.flat_map(|(at, (a, b))| {
            let mut bits = a ^ b;
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                (bit < 64).then(|| {
                    bits &= bits - 1;
                    at * 64 + bit
                })
            })
        })
    }
}

/// A set with the way to it.
struct State {
    parent: usize,
    /// The tasks that lead here from the parent.
    tasks: Vec<usize>,
    set: Set,
    /// How many tasks are done.
    size: usize,
    peak: u64,
    live: u64,
}

struct Finder<'a> {
    progress: Progress<'a>,
    section: std::ops::Range<usize>,
    /// So much is alive at some time whatever is done.
    level: u64,
    states: Vec<State>,
    at: Set,
}

impl<'a> Finder<'a> {
    fn new(mut progress: Progress<'a>, section: std::ops::Range<usize>, level: u64) -> Finder<'a> {
        progress.work = 0;
        let at = Set::empty(section.len());
        Finder { progress, section, level, states: vec![], at }
    }

    /// Makes `set` what is done.
    fn go_to(&mut self, set: &Set) {
        let start = self.section.start;
        let changes: Vec<usize> = self.at.differences(set).map(|i| i + start).collect();
        let (new, old): (Vec<usize>, Vec<usize>) =
            changes.into_iter().partition(|&task| set.contains(task - start));
        old.into_iter().rev().for_each(|task| self.progress.undo(task));
        new.into_iter().for_each(|task| self.progress.apply(task));
        self.at = set.clone();
    }

    /// Does at once what costs nothing at this level; the tasks in their order.
    fn closure(&mut self, level: u64) -> Vec<usize> {
        let mut done = vec![];
        loop {
            let ready = self.progress.ready.range(self.section.clone()).copied();
            let ready: Vec<usize> = ready.collect();
            let Some(chain) = ready.into_iter().find_map(|task| self.free_chain(task, level))
            else {
                return done;
            };
            done.extend(chain);
        }
    }

    /// The chain from a ready task on that costs nothing, done, if there is one.
    fn free_chain(&mut self, first: usize, level: u64) -> Option<Vec<usize>> {
        let before = self.progress.live;
        let (mut chain, mut next) = (vec![], Some(first));
        while let Some(task) = next.filter(|t| self.section.contains(t) && chain.len() < CHAIN) {
            if self.progress.during(task) > level {
                break;
            }
            self.progress.apply(task);
            chain.push(task);
            if self.progress.live <= before {
                return Some(chain);
            }
            next = self.progress.only_next(task);
        }
        chain.iter().rev().for_each(|&task| self.progress.undo(task));
        None
    }

    /// The state that is reached from the present set, which is that of `parent`, by these tasks and
    /// by what then costs nothing. Leaves the present set where it is.
    fn extended(&mut self, parent: usize, tasks: Vec<usize>, peak: u64) -> State {
        let (mut peak, mut tasks) = (peak, tasks);
        for &task in &tasks {
            peak = peak.max(self.progress.during(task));
            self.progress.apply(task);
        }
        tasks.extend(self.closure(peak.max(self.level)));
        let live = self.progress.live;
        tasks.iter().rev().for_each(|&task| self.progress.undo(task));
        let mut set = self.at.clone();
        tasks.iter().for_each(|&task| set.insert(task - self.section.start));
        let size = tasks.len() + self.states.get(parent).map_or(0, |state| state.size);
        State { parent, tasks, set, size, peak: peak.max(self.level), live }
    }

    /// All children of a state.
    fn children(&mut self, state: usize) -> Vec<State> {
        self.go_to(&self.states[state].set.clone());
        let ready: Vec<usize> = self.progress.ready.range(self.section.clone()).copied().collect();
        let peak = self.states[state].peak;
        ready.into_iter().map(|task| self.extended(state, vec![task], peak)).collect()
    }

    /// The tasks on the way to a state.
    fn way(&self, mut state: usize) -> Vec<usize> {
        let mut order = vec![];
        loop {
            order.extend(self.states[state].tasks.iter().rev());
            if state == self.states[state].parent {
                break;
            }
            state = self.states[state].parent;
        }
        order.reverse();
        order
    }

    /// The way to a state, and from there the tasks that are left, in their own order.
    fn finished(&self, state: usize) -> Vec<usize> {
        let (mut order, start) = (self.way(state), self.section.start);
        let set = &self.states[state].set;
        order.extend(self.section.clone().filter(|task| !set.contains(task - start)));
        order
    }

    fn begin(&mut self) {
        self.states.clear();
        self.progress.work = 0;
        self.go_to(&Set::empty(self.section.len()));
        let first = self.extended(0, vec![], 0);
        self.states.push(first);
    }

    /// The best order, if it is found with so much work.
    fn exact(&mut self, work: usize) -> Option<Vec<usize>> {
        self.begin();
        let count = self.section.len();
        let key = |state: &State| (Reverse(state.peak), state.size);
        let mut open = BinaryHeap::from([(key(&self.states[0]), Reverse(0))]);
        let mut lowest: BTreeMap<Set, u64> = BTreeMap::new();
        while let Some((_, Reverse(index))) = open.pop() {
            let state = &self.states[index];
            if state.size == count {
                return Some(self.way(index));
            }
            if self.spent() > work || count > LARGEST {
                return None;
            }
            if lowest.get(&state.set).is_some_and(|&peak| peak < state.peak) {
                continue;
            }
            for child in self.children(index) {
                let known = lowest.get(&child.set).copied().unwrap_or(u64::MAX);
                if child.peak < known {
                    lowest.insert(child.set.clone(), child.peak);
                    open.push((key(&child), Reverse(self.states.len())));
                    self.states.push(child);
                }
            }
        }
        None
    }

    /// Work that was done since the section was begun, in steps and words.
    fn spent(&self) -> usize {
        self.progress.work + self.states.len() * (self.section.len() / 16 + 8)
    }

    /// A good order.
    fn beam(&mut self) -> Option<Vec<usize>> {
        let count = self.section.len();
        if count > LARGEST {
            return None;
        }
        self.begin();
        let mut by_size: BTreeMap<usize, Vec<usize>> =
            BTreeMap::from([(self.states[0].size, vec![0])]);
        let mut lowest: BTreeMap<Set, u64> = BTreeMap::new();
        while let Some((size, mut indices)) = by_size.pop_first() {
            indices.sort_by_key(|&i| (self.states[i].peak, self.states[i].live, i));
            if size == count {
                return indices.first().map(|&index| self.way(index));
            }
            // Narrower, as the work runs out.
            let spent = self.spent() * count;
            let width = if spent > size.max(1) * BEAM_WORK { 1 } else { WIDTH };
            if self.spent() > MOST_WORK {
                return indices.first().map(|&index| self.finished(index));
            }
            for index in indices.into_iter().take(width) {
                for child in self.children(index) {
                    let known = lowest.get(&child.set).copied();
                    if known.is_none_or(|peak| child.peak < peak) {
                        lowest.insert(child.set.clone(), child.peak);
                        by_size.entry(child.size).or_default().push(self.states.len());
                        self.states.push(child);
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::Task;
    use super::*;

    /// Numbers that look random and are the same everywhere.
    fn noise(state: &mut u64, below: usize) -> usize {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 33) as usize % below
    }

    /// A random problem: some tasks write windows of a later one's object, some may work in place.
    fn random(state: &mut u64, count: usize, window: usize) -> Problem {
        let mut problem = Problem::default();
        let mut objects: Vec<usize> = vec![];
        for index in 0..count {
            let joins = index > 0 && noise(state, 6) == 0;
            let size = 1 + noise(state, 9) as u64;
            let object = if joins { objects[index - 1] } else { problem.object(size) };
            problem.kept[object] |= noise(state, 12) == 0;
            let mut after: Vec<usize> =
                (index.saturating_sub(window)..index).filter(|_| noise(state, 3) == 0).collect();
            if noise(state, 5) > 0 && index > 0 && after.is_empty() {
                after.push(index - 1);
            }
            let mut touches: Vec<usize> = after.iter().map(|&task| objects[task]).collect();
            touches.push(object);
            touches.sort_unstable();
            touches.dedup();
            objects.push(object);
            problem.tasks.push(Task { after, touches, result: Some(object), ..Task::default() });
        }
        for index in 0..count {
            let own = |object: usize| objects.iter().filter(|&&o| o == object).count() == 1;
            let object = objects[index];
            let fits = |&o: &usize| o != object && problem.sizes[o] == problem.sizes[object];
            let touches = problem.tasks[index].touches.iter().copied();
            let in_place = touches.filter(|o| own(object) && fits(o) && noise(state, 2) == 0);
            problem.tasks[index].in_place = in_place.collect();
        }
        problem
    }

    /// The lowest peak, by trying all orders.
    fn lowest(problem: &Problem) -> u64 {
        fn go(progress: &mut Progress<'_>, peak: u64, count: usize, best: &mut u64) {
            if peak >= *best {
                return;
            }
            if count == 0 {
                *best = peak;
                return;
            }
            for task in progress.ready.clone() {
                let peak = peak.max(progress.during(task));
                progress.apply(task);
                go(progress, peak, count - 1, best);
                progress.undo(task);
            }
        }
        let mut best = u64::MAX;
        go(&mut Progress::new(problem), 0, problem.tasks.len(), &mut best);
        best
    }

    fn check(problem: &Problem, order: &[usize]) -> u64 {
        let mut seen = vec![false; problem.tasks.len()];
        for &task in order {
            assert!(problem.tasks[task].after.iter().all(|&other| seen[other]));
            assert!(!std::mem::replace(&mut seen[task], true));
        }
        assert_eq!(order.len(), problem.tasks.len());
        problem.cost(order).peak
    }

    #[test]
    fn exact_is_lowest() {
        let mut state = 1;
        for round in 0..600 {
            let (count, window) = (1 + noise(&mut state, 9), 1 + noise(&mut state, 9));
            let problem = random(&mut state, count, window);
            let found = search(&problem, EXACT_WORK);
            let peak = check(&problem, &found);
            assert_eq!(peak, lowest(&problem), "round {round}: {problem:?}");
        }
    }

    #[test]
    fn beams_are_orders() {
        let mut state = 5;
        let (mut exact_sum, mut beam_sum) = (0, 0);
        for _ in 0..60 {
            let count = 10 + noise(&mut state, 60);
            let problem = random(&mut state, count, 6);
            let (exact, beam) = (search(&problem, EXACT_WORK), search(&problem, 0));
            let peaks = [&exact, &beam].map(|order| check(&problem, order));
            exact_sum += peaks[0];
            beam_sum += peaks[1];
        }
        assert!(beam_sum * 100 <= exact_sum * 103, "{beam_sum} for {exact_sum}");
    }

    /// Adds a task that reads the results of others; gives its own.
    fn task(problem: &mut Problem, after: Vec<usize>, size: u64) -> usize {
        let object = problem.object(size);
        let mut touches = after.clone();
        touches.push(object);
        problem.tasks.push(Task { after, touches, result: Some(object), ..Task::default() });
        object
    }

    /// What an unrolled recurrence over many inputs is: every step could be prepared at any time.
    #[test]
    fn many_ways_on_come_to_an_end() {
        let mut problem = Problem::default();
        let mut task = |after, size| task(&mut problem, after, size);
        let first = task(vec![], 600);
        let mut states = [first; 2];
        for step in 0..600 {
            let input = task(vec![first], 3);
            let prepared = task(vec![input], 4);
            states[step % 2] = task(vec![states[step % 2], prepared], 2);
        }
        task(states.to_vec(), 1);
        let problem = &problem;
        let mut finder = Finder::new(Progress::new(problem), 0..problem.tasks.len(), 0);
        let order = finder.beam().expect("it is not too large");
        assert!(finder.spent() < 2 * MOST_WORK, "{}", finder.spent());
        check(problem, &order);
    }

    #[test]
    fn long_branches_are_few_states() {
        // Five branches of sixteen tasks between two cuts: 17^5 sets.
        let mut problem = Problem::default();
        let mut task = |after, size| task(&mut problem, after, size);
        let first = task(vec![], 4);
        let mut ends = vec![];
        for branch in 0..5 {
            let mut last = first;
            for depth in 0..16 {
                last = task(vec![last], if depth < 15 { 10 + branch } else { 1 });
            }
            ends.push(last);
        }
        task(ends, 4);
        let found = search(&problem, EXACT_WORK);
        assert_eq!(check(&problem, &found), 4 + 2 * 14);
    }
}
