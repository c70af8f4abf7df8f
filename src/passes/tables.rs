//! Weights that are there twice, as a table of rows (which a gather reads: the words of a language model) and
//! transposed (as the last product's matrix), are there once: a product of few rows reads the table as it is.

use super::rewrite::Rewriter;
use crate::machine::Machine;
use crate::mir::{Contract, Graph, Node, Op, Value, Weights};
use crate::tensor::Tensor;

/// See the module's text. Only what is larger than the second-level cache: from behind it both come as fast.
pub fn share(graph: Graph, machine: &Machine) -> Graph {
    let tables: Vec<(Value, &Tensor)> = tables(&graph)
        .filter_map(|table| Some((table, graph.constant(table)?)))
        .filter(|(_, tensor)| tensor.bytes().len() as u64 > machine.l2)
        .collect();
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        // A table that comes later is not there yet.
        let before = tables.iter().filter(|(table, _)| *table < old);
        let same = weights(&graph, node)
            .and_then(|weights| before.into_iter().find(|(_, table)| is_transpose(weights, table)));
        let Some(&(table, _)) = same else {
            r.copy(old);
            continue;
        };
        let mut operands = r.operands(old);
        operands[1] = r.permute(r.get(table), &[1, 0]);
        let new = r.push(node.op.clone(), operands, node.ty.clone(), node.origins.clone());
        r.set(old, new);
    }
    r.finish()
}

/// The matrices whose rows are gathered.
fn tables(graph: &Graph) -> impl Iterator<Item = Value> {
    let gathered = graph.nodes.values().filter(|node| matches!(node.op, Op::Gather { axis: 0 }));
    gathered.map(|node| node.operands[0])
}

/// The constant matrix of a product of few rows.
fn weights<'a>(graph: &'a Graph, node: &Node) -> Option<&'a Tensor> {
    let Op::Contract(Contract { weights: Weights::Plain, .. }) = node.op else { return None };
    let rows = node.ty.dims.iter().rev().skip(1).product::<usize>();
    let tensor = graph.constant(node.operands[1])?;
    (rows <= Contract::FEW_ROWS && tensor.dims().len() == 2).then_some(tensor)
}

/// Whether two matrices have the same bytes, one of them transposed.
fn is_transpose(a: &Tensor, b: &Tensor) -> bool {
    let ([depth, columns], [rows, width]) = (a.dims(), b.dims()) else { return false };
    if (depth, columns, a.ty().dtype) != (width, rows, b.ty().dtype) {
        return false;
    }
    let size = a.ty().dtype.bytes();
    // Lines of both, a few at a time, so that they are in the cache.
    const SIDE: usize = 16;
    (0..*depth).step_by(SIDE).all(|first| {
        let part = first * size..(first + SIDE).min(*depth) * size;
        b.bytes().chunks_exact(width * size).enumerate().all(|(column, row)| {
            row[part.clone()].chunks_exact(size).enumerate().all(|(k, element)| {
                let at = ((first + k) * columns + column) * size;
                &a.bytes()[at..at + size] == element
            })
        })
    })
}
