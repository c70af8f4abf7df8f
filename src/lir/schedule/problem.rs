//! What an order of the steps is chosen for, without tensors: tasks that must follow one another, and
//! objects that take room from the first task that writes them to the last that touches them.

use std::collections::BTreeSet;

/// A task: a step, or a node that becomes one.
#[derive(Clone, Debug, Default)]
pub(super) struct Task {
    /// The tasks that must be done before, all with lower indices; ascending.
    pub(super) after: Vec<usize>,
    /// The objects that it reads or writes; ascending.
    pub(super) touches: Vec<usize>,
    /// The one of them that it writes.
    pub(super) result: Option<usize>,
    /// Those whose room the result takes over if this task is the last to touch them. They are as
    /// large as the result, which no other task writes.
    pub(super) in_place: Vec<usize>,
    /// Bytes that are its own while it runs.
    pub(super) working: u64,
}

/// Tasks in one possible order, and the bytes of all objects.
#[derive(Clone, Debug, Default)]
pub(super) struct Problem {
    pub(super) tasks: Vec<Task>,
    pub(super) sizes: Vec<u64>,
    /// Whether an object stays to the end once it is written.
    pub(super) kept: Vec<bool>,
}

/// What an order costs: the less, the better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Cost {
    /// The most bytes that are alive during one task.
    pub(super) peak: u64,
    /// The sum of what is alive during all tasks: lower when results are used soon.
    pub(super) area: u128,
}

impl Problem {
    /// Sets an object's place in all that touches it; for making problems.
    pub(super) fn object(&mut self, size: u64) -> usize {
        self.sizes.push(size);
        self.kept.push(false);
        self.sizes.len() - 1
    }

    /// The cost of an order of all tasks.
    pub(super) fn cost(&self, order: &[usize]) -> Cost {
        let mut progress = Progress::new(self);
        let mut cost = Cost { peak: 0, area: 0 };
        for &task in order {
            let during = progress.during(task);
            cost.peak = cost.peak.max(during);
            cost.area += u128::from(during);
            progress.apply(task);
        }
        cost
    }

    /// No order has a lower peak than this: what the hungriest task touches.
    pub(super) fn floor(&self) -> u64 {
        let need = |task: &Task| {
            let all: u64 = task.touches.iter().map(|&object| self.sizes[object]).sum();
            let shared = task.in_place.iter().map(|&object| self.sizes[object]).max();
            all - shared.unwrap_or(0) + task.working
        };
        self.tasks.iter().map(need).max().unwrap_or(0)
    }
}

/// The tasks that are done, and what is alive then: a function of their set, not of their order.
pub(super) struct Progress<'a> {
    problem: &'a Problem,
    /// The tasks that each task lets go on.
    before: Vec<Vec<usize>>,
    /// Per task, how many that must be done before are not.
    waiting: Vec<usize>,
    /// Per object, how many tasks will touch it (one more for what is kept).
    left: Vec<usize>,
    /// Per object, how many of the tasks that write it are done.
    written: Vec<usize>,
    /// Tasks that are not done and wait for none.
    pub(super) ready: BTreeSet<usize>,
    /// Bytes alive between two tasks.
    pub(super) live: u64,
    /// Tasks done and undone so far, weighed by what they touch.
    pub(super) work: usize,
}

impl<'a> Progress<'a> {
    pub(super) fn new(problem: &'a Problem) -> Progress<'a> {
        let mut before = vec![vec![]; problem.tasks.len()];
        let mut left: Vec<usize> = problem.kept.iter().map(|&kept| usize::from(kept)).collect();
        for (index, task) in problem.tasks.iter().enumerate() {
            task.after.iter().for_each(|&other| before[other].push(index));
            task.touches.iter().for_each(|&object| left[object] += 1);
        }
        let waiting: Vec<usize> = problem.tasks.iter().map(|task| task.after.len()).collect();
        let ready = (0..waiting.len()).filter(|&task| waiting[task] == 0).collect();
        let written = vec![0; left.len()];
        Progress { problem, before, waiting, left, written, ready, live: 0, work: 0 }
    }

    fn alive(&self, object: usize) -> bool {
        self.written[object] > 0 && self.left[object] > 0
    }

    /// Bytes that are alive while a task runs next.
    pub(super) fn during(&self, task: usize) -> u64 {
        let Task { result, in_place, working, .. } = &self.problem.tasks[task];
        let live = self.live + working;
        let Some(result) = result.filter(|&object| !self.alive(object)) else { return live };
        let size = self.problem.sizes[result];
        let taken = in_place.iter().any(|&object| self.left[object] == 1 && self.alive(object));
        if taken { live } else { live + size }
    }

    /// The task that alone became ready by this one, which has just been done.
    pub(super) fn only_next(&self, task: usize) -> Option<usize> {
        let mut next = self.before[task].iter().copied().filter(|&t| self.waiting[t] == 0);
        let first = next.next()?;
        next.next().is_none().then_some(first)
    }

    /// Does a ready task.
    pub(super) fn apply(&mut self, task: usize) {
        self.ready.remove(&task);
        self.change(task, true);
        for &next in &self.before[task] {
            self.waiting[next] -= 1;
            if self.waiting[next] == 0 {
                self.ready.insert(next);
            }
        }
    }

    /// Takes a task back. Those that need it may be taken back later, but before anything is asked.
    pub(super) fn undo(&mut self, task: usize) {
        for &next in &self.before[task] {
            if self.waiting[next] == 0 {
                self.ready.remove(&next);
            }
            self.waiting[next] += 1;
        }
        self.change(task, false);
        if self.waiting[task] == 0 {
            self.ready.insert(task);
        }
    }

    fn change(&mut self, task: usize, forward: bool) {
        let Task { touches, result, .. } = &self.problem.tasks[task];
        self.work += 1 + touches.len() + self.before[task].len();
        for &object in touches {
            let was = self.alive(object);
            let writes = usize::from(*result == Some(object));
            if forward {
                self.left[object] -= 1;
                self.written[object] += writes;
            } else {
                self.left[object] += 1;
                self.written[object] -= writes;
            }
            match (was, self.alive(object)) {
                (false, true) => self.live += self.problem.sizes[object],
                (true, false) => self.live -= self.problem.sizes[object],
                (true, true) | (false, false) => {}
            }
        }
    }
}
