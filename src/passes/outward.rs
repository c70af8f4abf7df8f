//! A part of the channels that comes to lie before the columns (pixels that become larger images) is written there by
//! a convolution of its own: their results lie one behind the other in memory, and nothing is moved.

use super::rewrite::Rewriter;
use crate::mir::{Graph, Node, Op, Value, Weights, eval};
use cranelift_entity::SecondaryMap;

/// With more parts the operand would be read too often.
const PARTS: usize = 4;

/// Channels of a part: whole vectors.
const LINE: usize = 16;

/// See the module's text.
pub fn split(graph: Graph) -> Graph {
    let uses = graph.uses();
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        match split_one(&mut r, &uses, node) {
            Some(new) => r.set(old, new),
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

fn split_one(r: &mut Rewriter<'_>, uses: &SecondaryMap<Value, u32>, node: &Node) -> Option<Value> {
    let Op::Permute(perm) = &node.op else { return None };
    let apart = &r.old.nodes[node.operands[0]];
    let source = *apart.operands.first().filter(|_| apart.op == Op::Reshape)?;
    let product = r.old.nodes[source].clone();
    let plain = match &product.op {
        Op::Contract(c) => c.weights == Weights::Plain && product.ty.rank() == 2,
        Op::Conv(c) => c.weights == Weights::Plain && c.groups == 1,
        _ => false,
    };
    let weights = r.old.constant(*product.operands.get(1).filter(|_| plain)?)?;
    // The channels' first part, which goes from its place to another one before it; all else stays.
    let channels = product.ty.rank() - 1;
    let kept = apart.ty.dims.get(..channels) == Some(&product.ty.dims[..channels]);
    let to = perm.iter().position(|&axis| axis == channels).filter(|&to| to < channels)?;
    let rest = perm.iter().filter(|&&axis| axis != channels);
    if !kept || !rest.is_sorted() || uses[source] != 1 || uses[node.operands[0]] != 1 {
        return None;
    }
    let (parts, all) = (apart.ty.dims[channels], product.ty.dims[channels]);
    let each = all / parts.max(1);
    let read = r.old.ty(product.operands[0]).elements();
    // Without rows, the parts need not be those of the channels.
    let whole = (2..=PARTS).contains(&parts) && each * parts == all && each % LINE == 0;
    if !whole || read > product.ty.elements() {
        return None;
    }
    let mut dims = node.ty.dims.clone();
    dims[to] = 1;
    let mut results = vec![];
    for start in (0..all).step_by(each) {
        let mut operands = vec![r.get(product.operands[0])];
        let columns = {
            let (last, mut dims) = (weights.dims().len() - 1, weights.dims().to_vec());
            let (mut starts, steps) = (vec![0; dims.len()], vec![1; dims.len()]);
            (starts[last], dims[last]) = (start, each);
            let ty = weights.ty().with_dims(dims);
            eval::op(&Op::Slice { starts, steps }, &[weights], &ty)
        };
        let (ty, origins) =
            (columns.ty().clone(), r.old.nodes[product.operands[1]].origins.clone());
        operands.push(r.push(Op::Constant(columns), vec![], ty, origins));
        for &extra in &product.operands[2..] {
            let extra = r.get(extra);
            let dims = &r.new.ty(extra).dims;
            operands.push(match dims.len().checked_sub(1) {
                Some(last) if dims[last] == all => r.narrow(extra, last, start, each),
                _ => extra,
            });
        }
        let mut own = product.ty.dims.clone();
        own[channels] = each;
        let ty = product.ty.with_dims(own);
        let part = r.push(product.op.clone(), operands, ty, product.origins.clone());
        results.push(r.reshape(part, &dims));
    }
    Some(r.push(Op::Concat { axis: to }, results, node.ty.clone(), node.origins.clone()))
}
