//! A convolution of one tap with one channel of results (the head of a network that finds one class) is a product of a
//! matrix with a vector: sums along the depth, of which vectors hold as many as there are rows.

use super::rewrite::Rewriter;
use crate::mir::{Contract, Graph, Node, Op, Value, Weights};
use crate::types::DType;

/// See the module's text.
pub fn flatten(graph: Graph) -> Graph {
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        match product(&mut r, old, node) {
            Some(new) => r.set(old, new),
            None => _ = r.copy(old),
        }
    }
    r.finish()
}

fn product(r: &mut Rewriter<'_>, old: Value, node: &Node) -> Option<Value> {
    let Op::Conv(conv) = &node.op else { return None };
    let float = |&v: &Value| matches!(r.old.ty(v).dtype, DType::F32 | DType::F64);
    let pointwise = conv.taps.iter().chain(&conv.strides).all(|&n| n == 1);
    let plain = conv.weights == Weights::Plain && conv.groups == 1;
    if !pointwise || !plain || node.ty.dims.last() != Some(&1) || !node.operands.iter().all(float) {
        return None;
    }
    // Of the epilogue's operands each is one number, or has one for each row.
    let rows = node.ty.elements();
    let fits = |&v: &Value| r.old.ty(v).elements() == 1 || r.old.ty(v).dims == node.ty.dims;
    if !node.operands[2..].iter().all(fits) {
        return None;
    }
    let operands = r.operands(old);
    let depth = *r.new.ty(operands[0]).dims.last()?;
    let flat = |(at, &v): (usize, &Value)| match at {
        0 => r.reshape(v, &[rows, depth]),
        1 => r.reshape(v, &[depth, 1]),
        _ if r.new.ty(v).elements() == 1 => r.reshape(v, &[]),
        _ => r.reshape(v, &[rows, 1]),
    };
    let operands: Vec<Value> = operands.iter().enumerate().map(flat).collect();
    let contract = Contract { epilogue: conv.epilogue.clone(), ..Contract::of(Weights::Plain) };
    let ty = node.ty.with_dims([rows, 1]);
    let new = r.push(Op::Contract(contract), operands, ty, node.origins.clone());
    Some(r.reshape(new, &node.ty.dims))
}
