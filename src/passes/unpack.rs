//! Products of many rows by words of small numbers, as products of floats: the numbers are taken out of the words when
//! the model is compiled, instead of again for each few rows.

use super::rewrite::Rewriter;
use crate::mir::{Contract, Graph, Op, Weights, nibbles};

/// So many rows are multiplied as soon as memory brings the words, or nearly. (Measured on Zen 4: 11 rows take as long as
/// with floats.)
const MOST_ROWS: usize = 8;

/// See the module's text.
pub fn unpack(graph: Graph) -> Graph {
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let (Op::Contract(contract), [rows, words, ..]) = (&node.op, &node.operands[..]) else {
            r.copy(old);
            continue;
        };
        let (Weights::Nibbles { columns, blocks, .. }, Some(tensor)) =
            (contract.weights, graph.constant(*words))
        else {
            r.copy(old);
            continue;
        };
        let [count, depth] = graph.ty(*rows).dims[..] else {
            r.copy(old);
            continue;
        };
        if count <= MOST_ROWS {
            r.copy(old);
            continue;
        }
        let tensor = nibbles::unpacked(tensor, blocks, [depth, columns]);
        let (ty, origins) = (tensor.ty().clone(), graph.nodes[*words].origins.clone());
        let mut operands = r.operands(old);
        operands[1] = r.push(Op::Constant(tensor), vec![], ty, origins);
        let op = Op::Contract(Contract { weights: Weights::Plain, ..contract.clone() });
        let new = r.push(op, operands, node.ty.clone(), node.origins.clone());
        r.set(old, new);
    }
    r.finish()
}
