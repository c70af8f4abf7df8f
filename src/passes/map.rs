//! Chains of element-wise nodes become one, in the simplest form that is known for them.

use super::epilogue::is_for_vectors;
use super::identities::simpler;
use super::rewrite::{Rewriter, merged};
use crate::mir::{Expr, Graph, Op, Value};
use crate::types::DType;

/// Operands of a chain.
const MOST_OPERANDS: usize = 8;
/// Operations of a chain.
const MOST_COST: usize = 64;

/// See the module's text.
pub fn fuse(graph: Graph) -> Graph {
    let uses = graph.uses();
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let Op::Map(expr) = &node.op else {
            r.copy(old);
            continue;
        };
        let (mut expr, mut operands) = (expr.clone(), r.operands(old));
        let mut origins = node.origins.clone();
        for &v in &node.operands {
            let before = r.get(v);
            if uses[v] != 1 || r.new.ty(before).dims != node.ty.dims {
                continue;
            }
            let Some(found) = joined(&r.new, &expr, &operands, before) else { continue };
            origins = merged([&r.new.nodes[before].origins[..], &origins]);
            (expr, operands) = found;
        }
        let new = r.push(Op::Map(expr), operands, node.ty.clone(), origins);
        r.set(old, new);
    }
    r.finish()
}

/// `expr` with its operand `before` replaced by what computes it.
fn joined(
    graph: &Graph,
    expr: &Expr,
    operands: &[Value],
    before: Value,
) -> Option<(Expr, Vec<Value>)> {
    let producer = &graph.nodes[before];
    let Op::Map(first) = &producer.op else { return None };
    let mut all: Vec<Value> = vec![];
    let mut out = Expr::new();
    let mut place = |out: &mut Expr, v: Value| {
        let at = all.iter().position(|&o| o == v).unwrap_or(all.len());
        if at == all.len() {
            all.push(v);
        }
        out.operand(at)
    };
    let inner: Vec<u32> = producer.operands.iter().map(|&v| place(&mut out, v)).collect();
    let made = out.inline(first, &inner);
    let outer: Vec<u32> =
        operands.iter().map(|&v| if v == before { made } else { place(&mut out, v) }).collect();
    let result = out.inline(expr, &outer);
    let out = simpler(out.returning(result), graph.ty(before).dtype);
    let dtypes = |list: &[Value]| list.iter().map(|&v| graph.ty(v).dtype).collect::<Vec<DType>>();
    // Vector code stays vector code.
    let same = is_for_vectors(first, &dtypes(&producer.operands))
        == is_for_vectors(expr, &dtypes(operands));
    (same && all.len() <= MOST_OPERANDS && out.cost() <= MOST_COST).then_some((out, all))
}
