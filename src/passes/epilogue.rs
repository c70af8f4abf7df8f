//! Element-wise work on a product's result moves into the product: bias, activation, residual.
//!
//! Only f32: another element type would turn the product's kernel into scalar code.

use super::rewrite::{Rewriter, merged};
use crate::mir::{Expr, Graph, Op, Scalar, Value};
use crate::types::DType;

/// Operands of a product and its epilogue together.
const MOST_OPERANDS: usize = 8;

/// See the module's text.
pub fn fuse(graph: Graph) -> Graph {
    let uses = graph.uses();
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let Op::Map(expr) = &node.op else {
            r.copy(old);
            continue;
        };
        // The product that comes last: the others are done by then.
        let mut products: Vec<(usize, Value)> = (node.operands.iter().enumerate())
            .filter(|&(_, &v)| uses[v] == 1 && graph.ty(v).dims == node.ty.dims)
            .map(|(i, &v)| (i, r.get(v)))
            .filter(|&(_, v)| matches!(r.new.nodes[v].op, Op::Contract(_) | Op::Conv(_)))
            .collect();
        products.sort_by_key(|&(_, v)| v);
        let operands = r.operands(old);
        let Some((at, product)) = products.pop() else {
            r.copy(old);
            continue;
        };
        let Some((op, operands)) = fused(&r.new, expr, &operands, at, product) else {
            r.copy(old);
            continue;
        };
        let origins = merged([&r.new.nodes[product].origins[..], &node.origins]);
        let new = r.push(op, operands, node.ty.clone(), origins);
        r.set(old, new);
    }
    r.finish()
}

/// The product with `expr` at its end, and its operands.
fn fused(
    graph: &Graph,
    expr: &Expr,
    operands: &[Value],
    at: usize,
    product: Value,
) -> Option<(Op, Vec<Value>)> {
    let node = &graph.nodes[product];
    let mut all = node.operands.clone();
    let before = match &node.op {
        Op::Contract(c) => c.epilogue.clone(),
        Op::Conv(c) => c.epilogue.clone(),
        _ => None,
    };
    let mut out = Expr::new();
    let sum = out.operand(0);
    let done = match &before {
        None => sum,
        Some(first) => {
            let refs: Vec<u32> = (0..all.len() - 1).map(|i| out.operand(i)).collect();
            out.inline(first, &refs)
        }
    };
    let mut refs = vec![];
    for (i, &v) in operands.iter().enumerate() {
        if i == at {
            refs.push(done);
            continue;
        }
        let place = all[2..].iter().position(|&o| o == v).unwrap_or(all.len() - 2);
        if place + 2 == all.len() {
            all.push(v);
        }
        refs.push(out.operand(place + 1));
    }
    let result = out.inline(expr, &refs);
    let out = out.returning(result);
    let dtypes: Vec<DType> =
        [DType::F32].into_iter().chain(all[2..].iter().map(|&v| graph.ty(v).dtype)).collect();
    let simple = graph.ty(product).dtype == DType::F32
        && all.len() <= MOST_OPERANDS
        && is_f32(&out, &dtypes);
    let op = match &node.op {
        Op::Contract(c) => Op::Contract(crate::mir::Contract { epilogue: Some(out), ..c.clone() }),
        Op::Conv(c) => Op::Conv(crate::mir::Conv { epilogue: Some(out), ..c.clone() }),
        _ => return None,
    };
    simple.then_some((op, all))
}

/// Whether operands, result and all that is computed are f32 or conditions.
pub(super) fn is_f32(expr: &Expr, operands: &[DType]) -> bool {
    let Some(types) = expr.types(operands) else { return false };
    let vector = |(node, ty): (&Scalar, &DType)| match node {
        Scalar::Operand(_) | Scalar::Unary(..) | Scalar::Cast(..) => *ty == DType::F32,
        _ => matches!(ty, DType::F32 | DType::Bool),
    };
    expr.nodes.iter().zip(&types).all(vector) && types.last() == Some(&DType::F32)
}
