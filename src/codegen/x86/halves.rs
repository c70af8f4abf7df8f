//! Which vectors matter in their lower half only: those that tails are made of. Instructions for half of
//! a vector take half the time on many processors, and half a vector is loaded and stored without a
//! mask.

use crate::kir::{Block, Carry, Op, Statement, Value};
use cranelift_entity::SecondaryMap;

/// The result of [`analyze`].
#[derive(Clone)]
pub(super) struct Halves {
    /// Lanes of half a vector.
    pub lanes: u32,
    /// Whether a lane of the upper half matters.
    whole: SecondaryMap<Value, bool>,
}

/// Goes backwards over the kernel, from what is stored to what that is made of.
pub(super) fn analyze(block: &Block, lanes: u32) -> Halves {
    let mut halves = Halves { lanes: lanes / 2, whole: SecondaryMap::new() };
    halves.block(block);
    halves
}

impl Halves {
    /// Whether nothing but the lower half of a vector matters.
    pub(super) fn is_half(&self, value: Value) -> bool {
        !self.whole[value]
    }

    fn block(&mut self, block: &Block) {
        for statement in block.iter().rev() {
            match statement {
                Statement::Let(value, op) => self.op(*value, op),
                Statement::Store { value, lanes, .. } => self.whole[*value] |= *lanes > self.lanes,
                Statement::Prefetch(_) => {}
                // What is carried from one iteration to the next may matter in an earlier one.
                Statement::Loop(l) => loop {
                    for c in &l.carried {
                        let whole = self.whole[c.result] || self.whole[c.value];
                        self.whole[c.next] |= whole;
                        self.whole[c.start] |= whole;
                    }
                    self.block(&l.body);
                    let settled = |c: &Carry| self.whole[c.next] || !self.whole[c.value];
                    if l.carried.iter().all(settled) {
                        break;
                    }
                },
            }
        }
    }

    fn op(&mut self, value: Value, op: &Op) {
        let whole = match op {
            // Across the lanes.
            Op::Reduce(..) | Op::Shuffle { .. } => true,
            // The instruction for half a vector has eight places.
            Op::Lookup(table, _) => {
                self.whole[value] |= table[..8] != table[8..];
                self.whole[value]
            }
            Op::Index(..)
            | Op::LoadIndex { .. }
            | Op::Offset { .. }
            | Op::F32(_)
            | Op::I32(_)
            | Op::F64(_)
            | Op::I64(_)
            | Op::FromIndex(..)
            | Op::LaneNumbers
            | Op::Load { .. }
            | Op::Broadcast(..)
            | Op::Unary(..)
            | Op::Binary(..)
            | Op::Shift(..)
            | Op::ShiftBy(..)
            | Op::MulAdd(..)
            | Op::Dot { .. }
            | Op::Pairs(..)
            | Op::Bytes { .. }
            | Op::Compare(..)
            | Op::Select(..)
            | Op::First { .. } => self.whole[value],
        };
        if whole {
            op.for_each_operand(|operand| self.whole[operand] = true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::build::Builder;
    use crate::kir::{Memory, Reduction};
    use crate::machine::Machine;

    #[test]
    fn what_leads_to_whole_vectors_is_whole() {
        let mut b = Builder::new("k", Machine::AVX512, 1);
        let (x, y) = (b.input("x", 128), b.output("y", 128));
        let [zero, tail, whole, summed] =
            [0, 0, 64, 32].map(|at| b.load_as(Memory::F32, x, at, 16));
        // The second value that is carried becomes the first one.
        let last = b.fold(0, 4, &[], &[tail, whole, zero], |b, it| {
            let next = b.add(it.carried[0], it.carried[1]);
            vec![it.carried[1], next, it.carried[2]]
        });
        let sum = b.reduce(Reduction::Sum, summed);
        b.store_as(Memory::F32, last[0], y, 0, 16);
        b.store_as(Memory::F32, last[2], y, 0, 8);
        b.store_as(Memory::F32, sum, y, 64, 1);
        let kernel = b.finish();
        let halves = analyze(&kernel.body, 16);
        let is_half = |v| halves.is_half(v);
        assert_eq!(
            [zero, tail, whole, summed, sum].map(is_half),
            [true, false, false, false, true]
        );
    }

    #[test]
    fn tables_of_sixteen_are_for_whole_vectors() {
        let mut b = Builder::new("k", Machine::AVX512, 1);
        let (x, y) = (b.input("x", 20), b.output("y", 20));
        let place = b.load_as(Memory::I32, x, 0, 5);
        let wide = b.lookup::<16>(std::array::from_fn(|i| i as i32), place);
        let narrow = b.lookup::<8>(std::array::from_fn(|i| i as i32), place);
        let sum = b.add(wide, narrow);
        b.store_as(Memory::I32, sum, y, 0, 5);
        let kernel = b.finish();
        let halves = analyze(&kernel.body, 16);
        assert_eq!(
            [place, wide, narrow, sum].map(|v| halves.is_half(v)),
            [false, false, true, true]
        );
    }
}
