//! Element-wise work on a product's result, or on a reshape of it, moves into the product: bias, activation,
//! residual.
//!
//! Only what vectors have: another element type would turn the product's kernel into scalar code.

use super::rewrite::{Rewriter, merged};
use crate::mir::{Binary, Expr, Graph, Op, Scalar, Value, sums};
use crate::types::{DType, Type};

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
            .filter_map(|(i, &v)| Some((i, product(&r, v, |v| uses[v] == 1)?)))
            .collect();
        products.sort_by_key(|&(_, v)| v);
        let found = products.pop().and_then(|(at, product)| {
            let operands = operands_for(&mut r, old, product)?;
            let (op, operands) = fused(&r.new, expr, &operands, at, product)?;
            Some((op, operands, product))
        });
        let Some((op, operands, product)) = found else {
            r.copy(old);
            continue;
        };
        let origins = merged([&r.new.nodes[product].origins[..], &node.origins]);
        let ty = Type::new(node.ty.dtype, r.new.ty(product).dims.clone());
        let new = r.push(op, operands, ty, origins);
        let new = r.reshape(new, &node.ty.dims);
        r.set(old, new);
    }
    r.finish()
}

/// The product that an operand is, or is a reshape of that nobody else reads.
fn product(r: &Rewriter<'_>, operand: Value, single: impl Fn(Value) -> bool) -> Option<Value> {
    let mut old = operand;
    while r.old.nodes[old].op == Op::Reshape {
        old = r.old.nodes[old].operands[0];
        if !single(old) {
            return None;
        }
    }
    let mut new = r.get(old);
    // What was joined with a product is a reshape of it.
    if r.new.nodes[new].op == Op::Reshape {
        new = r.new.nodes[new].operands[0];
    }
    matches!(r.new.nodes[new].op, Op::Contract(_) | Op::Conv(_)).then_some(new)
}

/// The operands of an element-wise node with the dimensions that they have beside a product, of which one of them is a
/// reshape; `None` where one is repeated along axes that are others there.
fn operands_for(r: &mut Rewriter<'_>, map: Value, product: Value) -> Option<Vec<Value>> {
    let (from, to) = (r.old.ty(map).dims.clone(), r.new.ty(product).dims.clone());
    let operands = r.operands(map);
    if from == to {
        return Some(operands);
    }
    let shared = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| a == b).count();
    let dims = |&operand: &Value| {
        let dims = &r.new.ty(operand).dims;
        let own = &dims[dims.iter().take_while(|&&d| d == 1).count()..];
        match dims == &from {
            true => Some(to.clone()),
            false => (own.len() <= shared).then(|| own.to_vec()),
        }
    };
    let dims = operands.iter().map(dims).collect::<Option<Vec<Vec<usize>>>>()?;
    Some(operands.iter().zip(&dims).map(|(&operand, dims)| r.reshape(operand, dims)).collect())
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
    let sums = sums(graph.ty(all[0]).dtype, graph.ty(all[1]).dtype)?;
    let dtypes: Vec<DType> =
        [sums].into_iter().chain(all[2..].iter().map(|&v| graph.ty(v).dtype)).collect();
    let simple = matches!(sums, DType::F32 | DType::I32)
        && all.len() <= MOST_OPERANDS
        && is_for_vectors(&out, &dtypes);
    let op = match &node.op {
        Op::Contract(c) => Op::Contract(crate::mir::Contract { epilogue: Some(out), ..c.clone() }),
        Op::Conv(c) => Op::Conv(crate::mir::Conv { epilogue: Some(out), ..c.clone() }),
        _ => return None,
    };
    simple.then_some((op, all))
}

/// Whether vectors of four bytes have all operands, results and operations: `f32`, integers of at most as many
/// bytes, and conditions.
pub(super) fn is_for_vectors(expr: &Expr, operands: &[DType]) -> bool {
    let Some(types) = expr.types(operands) else { return false };
    let known = |a: u32| matches!(expr.nodes[a as usize], Scalar::Literal(_));
    let vector = |(node, &ty): (&Scalar, &DType)| {
        let small = ty == DType::F32 || !ty.is_float() && ty.bytes() <= 4 && ty != DType::U32;
        small
            && match *node {
                Scalar::Binary(Binary::Div | Binary::Rem, ..) => ty.is_float(),
                Scalar::Binary(Binary::Shl | Binary::Shr, _, by) => known(by),
                Scalar::Operand(_)
                | Scalar::Literal(_)
                | Scalar::Unary(..)
                | Scalar::Binary(..)
                | Scalar::Compare(..)
                | Scalar::Select(..)
                | Scalar::Cast(..) => true,
            }
    };
    expr.nodes.iter().zip(&types).all(vector)
}
