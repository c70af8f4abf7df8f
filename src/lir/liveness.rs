//! When every buffer holds something that is still needed.

use super::{Buffer, BufferKind, Module};
use crate::placement::Item;
use cranelift_entity::{EntityRef, SecondaryMap};

/// The times at which a buffer is alive, both ends included. Step `s` runs at time `s + 1`; before
/// it, at time 0, the caller has written the inputs; after the last step, it reads the outputs.
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
    for (step, info) in &module.steps {
        let now = time(step.index());
        for access in info.accesses() {
            let range = ranges[access.buffer].get_or_insert(Range { first: now, last: now });
            range.last = now;
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

/// The time at which the step with this index runs.
fn time(index: usize) -> u32 {
    u32::try_from(index + 1).expect("steps are numbered in 32 bits")
}
