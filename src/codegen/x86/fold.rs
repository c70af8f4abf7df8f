//! Which loads become memory operands of the instructions that use them: those whose uses all stand
//! in the same block, before the next store or loop, and are few enough. A use may still turn out
//! not to take a memory operand; then the load is emitted there, which is as right.

use super::Width;
use super::halves::Halves;
use crate::kir::{Block, Op, Scalar, Statement, Value};
use cranelift_entity::SecondaryMap;
use std::collections::BTreeMap;

pub(super) struct Uses {
    pub count: SecondaryMap<Value, u32>,
    pub folds: SecondaryMap<Value, bool>,
    halves: Halves,
    lanes: u32,
    width: Width,
}

pub(super) fn analyze(block: &Block, halves: Halves, lanes: u32, width: Width) -> Uses {
    let (count, folds) = (SecondaryMap::new(), SecondaryMap::new());
    let mut uses = Uses { count, folds, halves, lanes, width };
    uses.block(block);
    uses
}

impl Uses {
    fn block(&mut self, block: &Block) {
        // The loads since the last store or loop: their uses, and how many may fold.
        let mut near: BTreeMap<Value, (u32, u32)> = BTreeMap::new();
        let mut far = vec![];
        for statement in block {
            match statement {
                Statement::Let(value, op) => {
                    op.for_each_operand(|v| {
                        self.count[v] += 1;
                        near.entry(v).and_modify(|(count, _)| *count += 1);
                    });
                    // One that is used often and takes no memory is loaded once.
                    if let Op::Dot { left, .. } = op {
                        far.extend(near.remove_entry(left).map(|(v, (_, _))| (v, (0, 0))));
                    }
                    let limit = self.limit(*value, op);
                    if limit > 0 {
                        near.insert(*value, (0, limit));
                    }
                }
                Statement::Store { value, to, .. } => {
                    far.extend(std::mem::take(&mut near));
                    self.count[*value] += 1;
                    self.count[to.pointer] += 1;
                }
                Statement::Prefetch(at) => self.count[at.pointer] += 1,
                Statement::Loop(l) => {
                    far.extend(std::mem::take(&mut near));
                    for bound in [l.from, l.to] {
                        if let Scalar::Value(v) = bound {
                            self.count[v] += 1;
                        }
                    }
                    let carried = l.carried.iter().flat_map(|c| [c.start, c.next]);
                    for v in l.pointers.iter().map(|p| p.start).chain(carried) {
                        self.count[v] += 1;
                    }
                    self.block(&l.body);
                }
            }
        }
        // All uses of this block's values are counted now.
        for (value, (count, limit)) in far.into_iter().chain(near) {
            self.folds[value] = count == self.count[value] && count <= limit;
        }
    }

    fn limit(&self, value: Value, op: &Op) -> u32 {
        // The one user of a vector of which half matters is an instruction for half of it.
        let whole = if self.halves.is_half(value) { self.halves.lanes } else { self.lanes };
        match (op, self.width) {
            (Op::Load { memory, lanes, .. }, _) if memory.bytes() >= 4 && *lanes >= whole => 1,
            // A broadcast in an operand costs nothing, and saves a register.
            (Op::Broadcast(_, memory), Width::Avx512) if memory.bytes() >= 4 => 2,
            _ => 0,
        }
    }
}
