//! When every buffer holds something that is still needed.

use super::{Buffer, BufferKind, Module, Step, StepInfo};
use crate::placement::Item;
use cranelift_entity::{EntityRef, SecondaryMap};

/// The times at which a buffer is alive, both ends included. Step `s` runs at time `s + 1`; one that rides on the next
/// one ([`StepInfo::rides`]) runs at both times, and so does that one. Before them, at time 0, the caller has written the
/// inputs; after the last step, it reads the outputs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Range {
    /// When it is written first.
    pub first: u32,
    /// When it is used last.
    pub last: u32,
}

impl Range {
    /// Whether both are alive at some time.
    pub fn meets(self, other: Range) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// As many bytes that are needed at these times.
    pub fn item(self, size: u64) -> Item {
        Item::new(size, i64::from(self.first), i64::from(self.last) + 1)
    }
}

/// The live range of every buffer that has a slot in the arena; none for constants and for buffers
/// that no step touches.
pub fn ranges(module: &Module) -> SecondaryMap<Buffer, Option<Range>> {
    let end = time(module.steps.len());
    let always = Some(Range { first: 0, last: end });
    let prologue = time(module.plan.prologue);
    let overwritten = module.plan.options.overwrite_inputs;
    let mut ranges: SecondaryMap<Buffer, Option<Range>> = SecondaryMap::new();
    ranges.resize(module.buffers.len());
    let rides = |index: usize| module.steps.get(Step::new(index)).is_some_and(StepInfo::rides);
    for (step, info) in &module.steps {
        // What rides may run at the same time as what is behind it.
        let before = step.index().saturating_sub(1);
        let first = if rides(before) { before } else { step.index() };
        let last =
            step.index() + usize::from(info.rides() && step.index() + 1 < module.steps.len());
        let now = Range { first: time(first), last: time(last) };
        for access in info.accesses() {
            let range = ranges[access.buffer].get_or_insert(now);
            *range = Range { first: range.first.min(now.first), last: range.last.max(now.last) };
        }
    }
    for (buffer, info) in &module.buffers {
        let range = &mut ranges[buffer];
        match info.kind {
            BufferKind::Input if overwritten && !module.is_output(buffer) => {
                *range = Some(Range { first: 0, last: range.map_or(0, |r| r.last) });
                continue;
            }
            // The caller may set inputs once and run many times.
            BufferKind::Input | BufferKind::Parameter | BufferKind::State => *range = always,
            BufferKind::Output => {
                let first = range.map_or(end, |r| r.first);
                *range = Some(Range { first, last: end });
            }
            BufferKind::Temporary => {}
            BufferKind::Constant(_) => *range = None,
        }
        // What the prologue has made for runs stays.
        if range.is_some_and(|r| r.first < prologue && r.last >= prologue) {
            *range = always;
        }
    }
    ranges
}

/// A time at which too much is alive.
#[derive(Debug)]
pub struct Peak {
    /// The step that runs then, if one does.
    pub step: Option<Step>,
    /// What is alive, with the bytes of each slot.
    pub alive: Vec<(Buffer, u64)>,
}

/// What is alive at each time.
#[derive(Debug)]
pub struct Lives {
    /// Every buffer in the arena, with the bytes of its slot.
    slots: Vec<(Buffer, Range, u64)>,
    /// The sum at each time.
    pub sums: Vec<u64>,
    /// The times that a step runs at, those with the largest sums first; then the start.
    pub times: Vec<usize>,
}

impl Lives {
    /// Of a module's buffers.
    pub fn new(module: &Module) -> Lives {
        let align = module.plan.options.alignment.max(1);
        let ranges = ranges(module);
        let size = |buffer: Buffer| module.buffers[buffer].bytes.next_multiple_of(align);
        let slots = module.buffers.keys().filter_map(|b| Some((b, ranges[b]?, size(b))));
        let slots: Vec<(Buffer, Range, u64)> = slots.collect();
        let mut changes = vec![(0u64, 0u64); module.steps.len() + 3];
        for (_, range, bytes) in &slots {
            changes[range.first as usize].0 += bytes;
            changes[range.last as usize + 1].1 += bytes;
        }
        let sum = |now: &mut u64, &(more, less): &(u64, u64)| {
            *now = *now + more - less;
            Some(*now)
        };
        let sums: Vec<u64> = changes.iter().scan(0, sum).collect();
        let mut times: Vec<usize> = (1..=module.steps.len()).chain([0]).collect();
        times.sort_by_key(|&time| std::cmp::Reverse(sums[time]));
        Lives { slots, sums, times }
    }

    /// One time.
    pub fn at(&self, time: usize) -> Peak {
        let now = |range: &Range| (range.first as usize..=range.last as usize).contains(&time);
        let alive = self.slots.iter().filter(|(_, range, _)| now(range));
        let alive = alive.map(|&(buffer, _, bytes)| (buffer, bytes)).collect();
        Peak { step: time.checked_sub(1).map(Step::new), alive }
    }
}

/// The time at which the step with this index runs.
fn time(index: usize) -> u32 {
    u32::try_from(index + 1).expect("steps are numbered in 32 bits")
}
