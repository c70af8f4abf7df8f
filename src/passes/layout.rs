//! Permutations move towards the outputs until they meet their inverse.
//!
//! Operators of models with channels in the second place come as `permute, convolution, permute back`.
//! Element-wise work, padding, concatenation, slices, repetitions, gathers along an axis, reductions, and
//! reshapes that split axes or join neighbours do not care about the order of axes: they are done before the
//! permutation instead, which then meets the next one and both are gone (`simplify`). What is left
//! stands at the edges of the model; where the tensor grows on the way to such an edge (a picture that is scaled up at
//! the end), it stays where it is small.

use super::rewrite::Rewriter;
use crate::mir::{Graph, Op, Scan, Value};
use cranelift_entity::SecondaryMap;
use std::ops::Range;

/// See the module's text.
pub fn propagate(graph: Graph) -> Graph {
    let wanted = wanted(&graph);
    let rests = rests(&graph);
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let operands = r.operands(old);
        if rests[old].is_some_and(|rest| !pays(&r, &operands, rest)) {
            r.copy(old);
            continue;
        }
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
            | Op::Reduce { .. }
            | Op::Scan(_) => sunk(&mut r, old, &operands).unwrap_or_else(|| r.copy(old)),
            Op::Reshape => {
                let wanted = wanted[old].as_deref();
                reshaped(&mut r, old, operands[0], wanted).unwrap_or_else(|| r.copy(old))
            }
            Op::Broadcast => repeated(&mut r, old, operands[0]).unwrap_or_else(|| r.copy(old)),
            Op::Gather { axis } => {
                gathered(&mut r, old, &operands, *axis).unwrap_or_else(|| r.copy(old))
            }
            Op::Input { .. }
            | Op::Constant(_)
            | Op::ArgReduce { .. }
            | Op::Rows(_)
            | Op::Contract(_)
            | Op::Conv(_)
            | Op::Attention(_)
            | Op::Winograd(_)
            | Op::Scatter { .. }
            | Op::Sort { .. }
            | Op::Pool(_) => r.copy(old),
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
    // A new permutation must cost nothing: of a constant (folded), or one that leaves long axes in their order.
    let free = |v: Value| {
        let node = &r.new.nodes[v];
        match &node.op {
            Op::Permute(other) if *other == perm => true,
            Op::Constant(_) => true,
            _ => {
                let dims = &node.ty.dims;
                let new = rank - dims.len();
                inverse.iter().filter(|&&i| i >= new && dims[i - new] != 1).is_sorted()
            }
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
        Op::Scan(scan) => Op::Scan(Scan { axis: perm[scan.axis], ..scan.clone() }),
        op => op.clone(),
    };
    let ty = node.ty.with_dims(back(&node.ty.dims));
    let value = r.push(op, sources, ty, node.origins.clone());
    Some(r.permute(value, &perm))
}

/// The operand and the order of its axes, when a value is a permutation.
fn permutation(r: &Rewriter<'_>, value: Value) -> Option<(Value, Vec<usize>)> {
    let node = &r.new.nodes[value];
    match &node.op {
        Op::Permute(perm) => Some((node.operands[0], perm.clone())),
        _ => None,
    }
}

/// Whether a permutation of an operand is to be moved on, to where it rests among so many elements in the end.
fn pays(r: &Rewriter<'_>, operands: &[Value], rest: usize) -> bool {
    const GROWTH: usize = 2;
    let turned = operands.iter().filter(|&&v| permutation(r, v).is_some());
    turned.map(|&v| r.new.ty(v).elements()).max().is_none_or(|now| rest < GROWTH * now)
}

/// Of what does not care about the order of axes, how many elements there are where a permutation that is moved past
/// it comes to rest; `None` where it meets another one, and of all others.
fn rests(graph: &Graph) -> SecondaryMap<Value, Option<usize>> {
    // Of every value, the same for a permutation of it; the outer `None` where nothing reads it yet.
    let mut ahead: SecondaryMap<Value, Option<Option<usize>>> = SecondaryMap::new();
    let mut rests: SecondaryMap<Value, Option<usize>> = SecondaryMap::new();
    let join = |ahead: &mut Option<Option<usize>>, rest: Option<usize>| {
        let known = ahead.unwrap_or(Some(0));
        *ahead = Some(known.zip(rest).map(|(a, b)| a.max(b)));
    };
    for output in &graph.outputs {
        join(&mut ahead[output.value], Some(graph.ty(output.value).elements()));
    }
    for (value, node) in graph.nodes.iter().rev() {
        let passes = match &node.op {
            Op::Map(_)
            | Op::Concat { .. }
            | Op::Pad { .. }
            | Op::Slice { .. }
            | Op::Reduce { .. }
            | Op::Scan(_)
            | Op::Reshape
            | Op::Broadcast
            | Op::Gather { .. } => true,
            Op::Permute(_)
            | Op::Input { .. }
            | Op::Constant(_)
            | Op::ArgReduce { .. }
            | Op::Rows(_)
            | Op::Contract(_)
            | Op::Conv(_)
            | Op::Attention(_)
            | Op::Winograd(_)
            | Op::Pool(_)
            | Op::Scatter { .. }
            | Op::Sort { .. } => false,
        };
        if passes {
            rests[value] = ahead[value].unwrap_or(Some(node.ty.elements()));
        }
        for &operand in &node.operands {
            let rest = match node.op {
                Op::Permute(_) => None,
                _ if passes => rests[value],
                _ => Some(graph.ty(operand).elements()),
            };
            join(&mut ahead[operand], rest);
        }
    }
    rests
}

/// The order of axes in which a value is read by some permutation, past what does not care.
fn wanted(graph: &Graph) -> SecondaryMap<Value, Option<Vec<usize>>> {
    let mut wanted: SecondaryMap<Value, Option<Vec<usize>>> = SecondaryMap::new();
    for (value, node) in graph.nodes.iter().rev() {
        let order = match &node.op {
            Op::Permute(perm) => Some(perm.clone()),
            op => wanted[value].clone().filter(|_| op.keeps_axes() && !matches!(op, Op::Broadcast)),
        };
        let Some(order) = order else { continue };
        for &operand in &node.operands {
            if graph.ty(operand).rank() == order.len() && wanted[operand].is_none() {
                wanted[operand] = Some(order.clone());
            }
        }
    }
    wanted
}

/// A reshape of a permutation as a permutation of a reshape: every axis becomes some axes, or some axes
/// become one. Where these were no neighbours before the permutation, it is cut in two: they become
/// neighbours in the order that is wanted, and what is left comes after the reshape.
fn reshaped(
    r: &mut Rewriter<'_>,
    old: Value,
    operand: Value,
    wanted: Option<&[usize]>,
) -> Option<Value> {
    let node = &r.old.nodes[old];
    let (source, perm) = permutation(r, operand)?;
    let pieces = pieces(&r.new.ty(operand).dims, &node.ty.dims)?;
    let axes = |order: &[usize]| -> Vec<usize> {
        let axes = order.iter().flat_map(|&piece| pieces[piece].0.clone());
        axes.map(|axis| perm[axis]).collect()
    };
    // The pieces in the order in which the source has them, or in which they are wanted.
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|&piece| perm[pieces[piece].0.start]);
    if !axes(&order).is_sorted() {
        let wanted = wanted?;
        let place = |piece: usize| {
            let long = pieces[piece].1.clone().find(|&axis| node.ty.dims[axis] > 1);
            long.or(pieces[piece].1.clone().next())
                .and_then(|axis| wanted.iter().position(|&w| w == axis))
        };
        order.sort_by_key(|&piece| place(piece));
    }
    let from: Vec<usize> = order.iter().flat_map(|&piece| pieces[piece].1.clone()).collect();
    let mut back = vec![0; from.len()];
    from.iter().enumerate().for_each(|(at, &axis)| back[axis] = at);
    let inner = axes(&order);
    if back.is_sorted() && !inner.is_sorted() {
        return None;
    }
    let source = r.permute(source, &inner);
    let ty = node.ty.with_dims(from.iter().map(|&axis| node.ty.dims[axis]).collect::<Vec<_>>());
    let value = r.push(Op::Reshape, vec![source], ty, node.origins.clone());
    Some(r.permute(value, &back))
}

/// How a reshape cuts the axes on both sides into pieces of as many elements: all of them have axes on the
/// left side. `None` where there is nothing to cut.
fn pieces(from: &[usize], to: &[usize]) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    if from.contains(&0) {
        return None;
    }
    let mut pieces: Vec<(Range<usize>, Range<usize>)> = vec![];
    let (mut i, mut j) = (0, 0);
    while i < from.len() {
        let (start, first) = (i, j);
        let (mut left, mut right) = (from[i], 1);
        i += 1;
        if left == 1 && to.get(j) == Some(&1) {
            j += 1;
        }
        while left != right {
            if left < right {
                left *= *from.get(i)?;
                i += 1;
            } else {
                right *= *to.get(j)?;
                j += 1;
            }
        }
        pieces.push((start..i, first..j));
    }
    // What is left on the right has one element.
    pieces.last_mut()?.1.end = to.len();
    Some(pieces)
}

/// A repetition of a permutation as a permutation of a repetition.
fn repeated(r: &mut Rewriter<'_>, old: Value, operand: Value) -> Option<Value> {
    let node = &r.old.nodes[old];
    let (source, perm) = permutation(r, operand)?;
    let dims = &node.ty.dims;
    let new = dims.len() - perm.len();
    let mut inner = dims.clone();
    perm.iter().enumerate().for_each(|(axis, &p)| inner[new + p] = dims[new + axis]);
    let perm: Vec<usize> = (0..new).chain(perm.iter().map(|&p| new + p)).collect();
    let value = r.push(Op::Broadcast, vec![source], node.ty.with_dims(inner), node.origins.clone());
    Some(r.permute(value, &perm))
}

/// A gather along one axis of a permutation as a permutation of a gather.
fn gathered(r: &mut Rewriter<'_>, old: Value, operands: &[Value], axis: usize) -> Option<Value> {
    let node = &r.old.nodes[old];
    let (source, perm) = permutation(r, operands[0])?;
    if r.new.ty(operands[1]).rank() != 1 {
        return None;
    }
    let mut dims = node.ty.dims.clone();
    perm.iter().enumerate().for_each(|(axis, &p)| dims[p] = node.ty.dims[axis]);
    let op = Op::Gather { axis: perm[axis] };
    let ty = node.ty.with_dims(dims);
    let value = r.push(op, vec![source, operands[1]], ty, node.origins.clone());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Binary, Builder, Output, Role};
    use crate::types::{DType, Type};

    /// Elements of the permutations that are left when a turned picture gets larger along its width, and is then
    /// turned back or not.
    fn left(back: bool) -> Vec<usize> {
        let mut b = Builder::new("layout");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 8, 8, 3]));
        let turned = b.permute(x, &[0, 3, 1, 2]);
        let indices: Vec<i64> = (0..32).map(|i| i / 4).collect();
        let indices = b.constant(crate::tensor::Tensor::from_i64s([32], &indices));
        let wide = b.gather(turned, indices, 3);
        let value = if back { b.permute(wide, &[0, 2, 3, 1]) } else { wide };
        let graph = propagate(b.finish(vec![Output { name: "y".into(), value }]));
        let graph = super::super::dce::eliminate(super::super::simplify::simplify(graph));
        let permutes = graph.nodes.values().filter(|n| matches!(n.op, Op::Permute(_)));
        permutes.map(|n| n.ty.elements()).collect()
    }

    #[test]
    fn one_channel_lies_as_any_order_wants_it() {
        let mut b = Builder::new("layout");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 8, 6, 3]));
        let gate = b.input("gate", Role::Input, Type::new(DType::F32, [1, 8, 6]));
        let turned = b.permute(x, &[0, 3, 1, 2]);
        let gated = b.binary(Binary::Mul, turned, gate);
        let value = b.permute(gated, &[0, 2, 3, 1]);
        let graph = propagate(b.finish(vec![Output { name: "y".into(), value }]));
        let graph = super::super::dce::eliminate(super::super::simplify::simplify(graph));
        let permutes = graph.nodes.values().filter(|n| matches!(n.op, Op::Permute(_)));
        assert!(permutes.map(|n| n.ty.elements()).all(|n| n == 48), "{graph}");
    }

    #[test]
    fn permutations_rest_where_tensors_are_small() {
        assert_eq!(left(false), [192]);
        assert!(left(true).is_empty());
    }
}
