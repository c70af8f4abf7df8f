//! Constant factors of a product's operands move into its epilogue: where both queries and keys are
//! scaled before they are multiplied, that is two passes over memory less.

use super::rewrite::{Rewriter, merged};
use crate::mir::{Binary, Contract, Expr, Graph, Literal, Node, Op, Scalar, Value};
use crate::types::DType;

/// See the module's text.
pub fn pull(graph: Graph) -> Graph {
    let uses = graph.uses();
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        let found: Vec<(usize, Factor)> = match &node.op {
            Op::Contract(_) if node.ty.dtype == DType::F32 => (0..2)
                .filter_map(|i| Some((i, factor(&graph, node.operands[i], |v| uses[v] == 1)?)))
                .collect(),
            _ => vec![],
        };
        let (Op::Contract(contract), false) = (&node.op, found.is_empty()) else {
            r.copy(old);
            continue;
        };
        let mut operands = r.operands(old);
        let mut origins = node.origins.clone();
        let mut factor = 1.0;
        for (i, found) in found {
            factor *= found.value;
            operands[i] = r.get(found.of);
            for &view in found.views.iter().rev() {
                let Node { op, ty, origins, .. } = graph.nodes[view].clone();
                operands[i] = r.push(op, vec![operands[i]], ty, origins);
            }
            origins = merged([&origins[..], &graph.nodes[found.map].origins]);
        }
        let epilogue = Some(scaled(factor, contract.epilogue.as_ref(), operands.len() - 2));
        let op = Op::Contract(Contract { epilogue, ..contract.clone() });
        let new = r.push(op, operands, node.ty.clone(), origins);
        r.set(old, new);
    }
    r.finish()
}

/// An operand that is a view of a tensor times a constant.
struct Factor {
    value: f64,
    of: Value,
    /// What multiplies.
    map: Value,
    /// From the operand to the product with the constant.
    views: Vec<Value>,
}

fn factor(graph: &Graph, operand: Value, single: impl Fn(Value) -> bool) -> Option<Factor> {
    let (mut map, mut views) = (operand, vec![]);
    while let Op::Permute(_) | Op::Reshape = graph.nodes[map].op {
        views.push(map);
        map = graph.nodes[map].operands[0];
    }
    if !views.iter().chain([&map]).all(|&value| single(value)) {
        return None;
    }
    let Node { op: Op::Map(expr), operands, ty, .. } = &graph.nodes[map] else { return None };
    let (&[of], Scalar::Binary(Binary::Mul, x, y)) = (&operands[..], *expr.nodes.last()?) else {
        return None;
    };
    let value = match [x, y].map(|i| expr.nodes[i as usize]) {
        [Scalar::Operand(0), Scalar::Literal(l)] | [Scalar::Literal(l), Scalar::Operand(0)] => {
            l.f64()
        }
        _ => return None,
    };
    (graph.ty(of) == ty && value.is_finite()).then_some(Factor { value, of, map, views })
}

/// The epilogue, of so many operands, after a multiplication.
fn scaled(factor: f64, epilogue: Option<&Expr>, operands: usize) -> Expr {
    let mut out = Expr::new();
    let sum = out.operand(0);
    let factor = out.push(Scalar::Literal(Literal::from_f64(DType::F32, factor)));
    let scaled = out.binary(Binary::Mul, sum, factor);
    let result = match epilogue {
        None => scaled,
        Some(rest) => {
            let mut refs = vec![scaled];
            for i in 1..=operands {
                refs.push(out.operand(i));
            }
            out.inline(rest, &refs)
        }
    };
    out.returning(result)
}
