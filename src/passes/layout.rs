//! Permutations move towards the outputs until they meet their inverse.
//!
//! Operators of models with channels in the second place come as `permute, convolution, permute back`.
//! Element-wise work, padding, concatenation, slices and reductions between two of them do not care
//! about the order of axes: they are done before the permutation instead, which then meets the next
//! one and both are gone (`simplify`). What is left stands at the edges of the model.

use super::rewrite::Rewriter;
use crate::mir::{Graph, Op, Value};

/// See the module's text.
pub fn propagate(graph: Graph) -> Graph {
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let operands = r.operands(old);
        let new = match &node.op {
            Op::Permute(perm) => {
                let inner = &r.new.nodes[operands[0]];
                match &inner.op {
                    Op::Permute(first) => {
                        let perm: Vec<_> = perm.iter().map(|&p| first[p]).collect();
                        let source = inner.operands[0];
                        r.permute(source, &perm)
                    }
                    _ => r.copy(old),
                }
            }
            Op::Map(_)
            | Op::Concat { .. }
            | Op::Pad { .. }
            | Op::Slice { .. }
            | Op::Reduce { .. } => sunk(&mut r, old, &operands).unwrap_or_else(|| r.copy(old)),
            Op::Input { .. }
            | Op::Constant(_)
            | Op::ArgReduce { .. }
            | Op::Rows(_)
            | Op::Contract(_)
            | Op::Conv(_)
            | Op::Winograd(_)
            | Op::Pool(_)
            | Op::Gather { .. }
            | Op::Reshape
            | Op::Broadcast => r.copy(old),
        };
        r.set(old, new);
    }
    r.finish()
}

/// The node done before its operands' common permutation, and that permutation after it.
fn sunk(r: &mut Rewriter<'_>, old: Value, operands: &[Value]) -> Option<Value> {
    let node = &r.old.nodes[old];
    let rank = node.ty.rank();
    let perm = operands.iter().find_map(|&v| match &r.new.nodes[v].op {
        Op::Permute(perm) if perm.len() == rank => Some(perm.clone()),
        _ => None,
    })?;
    let mut inverse = vec![0; rank];
    perm.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
    // A new permutation must cost nothing: of a constant (folded), or of one long axis at most.
    let free = |v: Value| {
        let node = &r.new.nodes[v];
        match &node.op {
            Op::Permute(other) => *other == perm,
            Op::Constant(_) => true,
            _ => node.ty.dims.iter().filter(|&&d| d != 1).count() <= 1,
        }
    };
    if !operands.iter().all(|&v| free(v)) {
        return None;
    }
    let sources: Vec<Value> =
        operands.iter().map(|&v| unpermuted(r, v, &perm, &inverse, rank)).collect();
    let back = |list: &[usize]| inverse.iter().map(|&i| list[i]).collect::<Vec<_>>();
    let op = match &node.op {
        Op::Concat { axis } => Op::Concat { axis: perm[*axis] },
        Op::Pad { low, high, interior, value } => {
            Op::Pad { low: back(low), high: back(high), interior: back(interior), value: *value }
        }
        Op::Slice { starts, steps } => {
            Op::Slice { starts: back(starts), steps: inverse.iter().map(|&i| steps[i]).collect() }
        }
        Op::Reduce { op, axes } => {
            let mut axes: Vec<_> = axes.iter().map(|&a| perm[a]).collect();
            axes.sort_unstable();
            Op::Reduce { op: *op, axes }
        }
        op => op.clone(),
    };
    let ty = node.ty.with_dims(back(&node.ty.dims));
    let value = r.push(op, sources, ty, node.origins.clone());
    Some(r.permute(value, &perm))
}

/// What `v`, of the permutation's rank by leading axes of extent 1, was before it.
fn unpermuted(
    r: &mut Rewriter<'_>,
    v: Value,
    perm: &[usize],
    inverse: &[usize],
    rank: usize,
) -> Value {
    let node = &r.new.nodes[v];
    match &node.op {
        Op::Permute(other) if other == perm => node.operands[0],
        _ => {
            let dims = &node.ty.dims;
            if dims.iter().all(|&d| d == 1) && dims.is_empty() {
                return v;
            }
            let dims = [&vec![1; rank - dims.len()][..], dims].concat();
            let full = r.reshape(v, &dims);
            r.permute(full, inverse)
        }
    }
}
