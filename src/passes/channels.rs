//! The order of channels follows from where they come from and go to: what takes the last axis of a
//! product's result apart and puts its parts in another order has that order in the product's weights
//! instead, and so has what puts together the last axis of a product's operand from parts in another
//! order. So pixels are shuffled, channels flattened and groups exchanged without a copy, or with one that
//! moves longer runs.

use super::rewrite::Rewriter;
use crate::mir::{Graph, Node, Op, Value, Weights, eval};
use crate::tensor::Tensor;
use cranelift_entity::SecondaryMap;

/// See the module's text.
pub fn reorder(graph: Graph) -> Graph {
    let uses = graph.uses();
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let new = match &node.op {
            Op::Permute(perm) => apart(&mut r, &uses, old, perm),
            Op::Contract(_) | Op::Conv(_) => together(&mut r, &uses, old),
            _ => None,
        };
        match new {
            Some(new) => r.set(old, new),
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

/// An axis as several, and in which order these are wanted.
struct Order {
    dims: Vec<usize>,
    perm: Vec<usize>,
}

impl Order {
    /// How many elements the axis has.
    fn extent(&self) -> usize {
        self.dims.iter().product()
    }

    /// The tensor with one axis in this order.
    fn of(&self, tensor: &Tensor, axis: usize) -> Option<Tensor> {
        let dims = tensor.dims();
        let [before, behind] = [&dims[..axis], &dims[axis + 1..]];
        let split = tensor.reshaped([before, &self.dims, behind].concat())?;
        let count = self.dims.len();
        let mut perm: Vec<usize> = (0..split.dims().len()).collect();
        (0..count).for_each(|i| perm[axis + i] = axis + self.perm[i]);
        let ty = split.ty().with_dims(perm.iter().map(|&p| split.dims()[p]).collect::<Vec<_>>());
        eval::op(&Op::Permute(perm), &[&split], &ty).reshaped(dims)
    }
}

/// A reshape's operand, when it leaves all axes but the last `count` of the result as they are: those are
/// the operand's last.
fn split_last(graph: &Graph, node: &Node) -> Option<(Value, usize)> {
    let from = &graph.ty(*node.operands.first()?).dims;
    let kept = from.len().checked_sub(1)?;
    let whole = node.op == Op::Reshape && node.ty.dims.get(..kept) == Some(&from[..kept]);
    let several = node.ty.dims.len() > from.len() && !node.ty.dims.contains(&0);
    (whole && several).then(|| (node.operands[0], node.ty.dims.len() - kept))
}

/// A permutation of the parts of a last axis, with their order in what makes it.
fn apart(
    r: &mut Rewriter<'_>,
    uses: &SecondaryMap<Value, u32>,
    old: Value,
    perm: &[usize],
) -> Option<Value> {
    let node = &r.old.nodes[old];
    let split = node.operands[0];
    let (source, count) = split_last(r.old, &r.old.nodes[split])?;
    let dims = &r.old.ty(split).dims;
    let first = dims.len() - count;
    let order: Vec<usize> = perm.iter().filter(|&&p| p >= first).map(|p| p - first).collect();
    if order.is_sorted() || uses[split] != 1 {
        return None;
    }
    let order = Order { dims: dims[first..].to_vec(), perm: order };
    let source = reordered(r, uses, source, &order)?;
    let mut all = dims[..first].to_vec();
    all.extend(order.perm.iter().map(|&p| order.dims[p]));
    let split = r.reshape(source, &all);
    let mut place = vec![0; count];
    order.perm.iter().enumerate().for_each(|(at, &p)| place[p] = at);
    let perm: Vec<usize> =
        perm.iter().map(|&p| if p < first { p } else { first + place[p - first] }).collect();
    Some(r.permute(split, &perm))
}

/// A value of the old graph with its last axis in another order, made anew; `None` where its makers are
/// not all known and this value's alone.
fn reordered(
    r: &mut Rewriter<'_>,
    uses: &SecondaryMap<Value, u32>,
    value: Value,
    order: &Order,
) -> Option<Value> {
    let node = r.old.nodes[value].clone();
    if node.ty.dims.last().is_none_or(|&d| d == 1) {
        return Some(r.get(value));
    }
    if *node.ty.dims.last()? != order.extent() {
        return None;
    }
    let last = node.ty.rank() - 1;
    if let Op::Constant(tensor) = &node.op {
        let tensor = order.of(tensor, last)?;
        return Some(r.push(Op::Constant(tensor), vec![], node.ty, node.origins));
    }
    if uses[value] != 1 {
        return None;
    }
    // Operands that have the axis, and those that stay as they are.
    let follows = |index: usize| match &node.op {
        Op::Map(_) => Some(true),
        Op::Contract(c) if c.weights == Weights::Plain => Some(index != 0),
        Op::Conv(c) if c.weights == Weights::Plain && c.groups == 1 => Some(index != 0),
        Op::Concat { axis } if *axis != last => Some(true),
        Op::Pool(_) => Some(true),
        Op::Pad { low, high, interior, .. } => {
            [low, high, interior].iter().all(|p| p[last] == 0).then_some(true)
        }
        _ => None,
    };
    let mut operands = vec![];
    for (index, &operand) in node.operands.iter().enumerate() {
        operands.push(match follows(index)? {
            true => reordered(r, uses, operand, order)?,
            false => r.get(operand),
        });
    }
    Some(r.push(node.op, operands, node.ty, node.origins))
}

/// A product whose first operand's last axis was put together, with the order of its parts in memory in the
/// weights.
fn together(r: &mut Rewriter<'_>, uses: &SecondaryMap<Value, u32>, old: Value) -> Option<Value> {
    let node = r.old.nodes[old].clone();
    let weights = r.old.constant(node.operands[1])?.clone();
    let plain = match &node.op {
        Op::Contract(c) => c.weights == Weights::Plain && weights.dims().len() == 2,
        Op::Conv(c) => c.weights == Weights::Plain && c.groups == 1,
        _ => false,
    };
    if !plain || node.ty.elements() == 0 {
        return None;
    }
    // What is done to every channel alike on the way.
    let mut way = vec![];
    let mut value = node.operands[0];
    loop {
        let inner = &r.old.nodes[value];
        let last = inner.ty.rank().checked_sub(1)?;
        match &inner.op {
            _ if uses[value] != 1 => return None,
            Op::Map(_) if inner.operands.len() == 1 => {}
            Op::Pad { low, high, interior, .. }
                if [low, high, interior].iter().all(|p| p[last] == 0) => {}
            Op::Reshape => break,
            _ => return None,
        }
        way.push(value);
        value = inner.operands[0];
    }
    let joined = &r.old.nodes[value];
    let permuted = joined.operands[0];
    let Op::Permute(perm) = &r.old.nodes[permuted].op else { return None };
    let (dims, last) = (&r.old.ty(permuted).dims, *joined.ty.dims.last()?);
    // The axes that are the last one's parts.
    let mut first = dims.len();
    let mut extent = 1;
    while extent < last {
        first = first.checked_sub(1)?;
        extent *= dims[first];
    }
    let parts = &perm[first..];
    if extent != last || parts.is_sorted() {
        return None;
    }
    let mut sorted: Vec<usize> = (0..parts.len()).collect();
    sorted.sort_by_key(|&part| parts[part]);
    let order = Order { dims: dims[first..].to_vec(), perm: sorted };
    let weights = order.of(&weights, weights.dims().len() - 2)?;
    let mut inner = perm[..first].to_vec();
    inner.extend(order.perm.iter().map(|&part| parts[part]));
    let source = r.get(r.old.nodes[permuted].operands[0]);
    let permuted = r.permute(source, &inner);
    let mut value = r.reshape(permuted, &joined.ty.dims);
    for old in way.into_iter().rev() {
        let Node { op, ty, origins, .. } = r.old.nodes[old].clone();
        value = r.push(op, vec![value], ty, origins);
    }
    let ty = weights.ty().clone();
    let origins = r.old.nodes[node.operands[1]].origins.clone();
    let weights = r.push(Op::Constant(weights), vec![], ty, origins);
    let rest = node.operands[2..].iter().map(|&v| r.get(v));
    let operands: Vec<Value> = [value, weights].into_iter().chain(rest).collect();
    Some(r.push(node.op, operands, node.ty, node.origins))
}
