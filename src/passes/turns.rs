//! Weights that are read again and again, step after step of a recurrence, are read forwards and
//! backwards in turn: what the last step read at the end is in the first-level cache still.

use super::rewrite::Rewriter;
use crate::machine::Machine;
use crate::mir::{Contract, Graph, Op, Value, Weights};
use cranelift_entity::SecondaryMap;

/// With more rows, time is spent on products and not on reading.
const MOST_ROWS: usize = 4;

/// See the module's text.
pub fn take(graph: Graph, machine: &Machine) -> Graph {
    let mut r = Rewriter::new(&graph);
    let mut backwards: SecondaryMap<Value, bool> = SecondaryMap::new();
    for (old, node) in &graph.nodes {
        let new = r.copy(old);
        let Op::Contract(Contract { weights: Weights::Panels { .. }, .. }) = &node.op else {
            continue;
        };
        let (rows, weights) = (graph.ty(node.operands[0]), node.operands[1]);
        let rows: usize = rows.dims.iter().rev().skip(1).product();
        if rows > MOST_ROWS || (graph.ty(weights).bytes() as u64) < machine.l1 {
            continue;
        }
        if let Op::Contract(contract) = &mut r.new.nodes[new].op {
            contract.backwards = backwards[weights];
        }
        backwards[weights] = !backwards[weights];
    }
    r.finish()
}
