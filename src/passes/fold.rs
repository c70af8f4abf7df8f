//! Makes constants of what is known: nodes over constants (large ones are evaluated when their bytes are asked
//! for), constant operands of element-wise expressions, scalar operations on literals; makes equal nodes one.
//!
//! Broadcasts of constants are not evaluated (they are free), and nothing is that becomes much larger
//! than what it is made of.

use super::rewrite::Rewriter;
use crate::mir::{Binary, Expr, Graph, Literal, Op, Scalar, Unary, Value, eval};
use crate::tensor::Tensor;
use crate::types::{Type, broadcast};
use std::collections::BTreeMap;

/// What a constant may grow to by folding, in bytes, when it is not smaller than its operands.
const SMALL: usize = 64 << 10;

/// See the module's text.
pub fn fold(graph: Graph) -> Graph {
    let mut r = Rewriter::new(&graph);
    let mut known: BTreeMap<(String, Vec<Value>), Value> = BTreeMap::new();
    for (old, node) in &graph.nodes {
        let mut operands = r.operands(old);
        let mut op = node.op.clone();
        if let Op::Map(expr) = &op {
            let (expr, rest) = inlined(&r.new, expr, &operands, &node.ty);
            (op, operands) = (Op::Map(expr), rest);
        }
        if let Some(tensor) = evaluated(&r.new, &op, &operands, &node.ty) {
            let value = r.push(Op::Constant(tensor), vec![], node.ty.clone(), node.origins.clone());
            r.set(old, value);
            continue;
        }
        let key = match &op {
            Op::Constant(_) | Op::Input { .. } => None,
            op => Some((format!("{op:?} {}", node.ty), operands.clone())),
        };
        if let Some(&same) = key.as_ref().and_then(|key| known.get(key)) {
            r.set(old, same);
            continue;
        }
        let value = r.push(op, operands, node.ty.clone(), node.origins.clone());
        r.set(old, value);
        key.into_iter().for_each(|key| _ = known.insert(key, value));
    }
    r.finish()
}

fn evaluated(graph: &Graph, op: &Op, operands: &[Value], ty: &Type) -> Option<Tensor> {
    if matches!(op, Op::Input { .. } | Op::Constant(_) | Op::Broadcast) {
        return None;
    }
    let tensors: Vec<&Tensor> =
        operands.iter().map(|&v| graph.constant(v)).collect::<Option<_>>()?;
    let from: usize = tensors.iter().map(|t| t.ty().bytes()).sum();
    (ty.bytes() <= from.max(SMALL)).then(|| eval::later(op, &tensors, ty))
}

/// The expression with operands that are one value everywhere as literals, and simplified; and the
/// operands that are left. The result's shape must still follow from them.
fn inlined(graph: &Graph, expr: &Expr, operands: &[Value], ty: &Type) -> (Expr, Vec<Value>) {
    let literal = |v: Value| {
        let tensor = graph.constant(v)?;
        tensor.splat().map(|bytes| Literal::from_bytes(tensor.ty().dtype, bytes))
    };
    let mut literals: Vec<Option<Literal>> = operands.iter().map(|&v| literal(v)).collect();
    let left = |literals: &[Option<Literal>]| {
        let mut kept = operands.iter().zip(literals).filter(|(_, l)| l.is_none());
        kept.try_fold(vec![], |dims, (&v, _)| broadcast(&dims, &graph.ty(v).dims))
    };
    if left(&literals).as_ref() != Some(&ty.dims) {
        literals.fill(None);
    }
    let mut rest = vec![];
    let mut out = Expr::new();
    let mut refs = vec![];
    for (&v, literal) in operands.iter().zip(&literals) {
        refs.push(match literal {
            Some(l) => out.push(Scalar::Literal(*l)),
            None => {
                let at = rest.iter().position(|&r| r == v).unwrap_or(rest.len());
                if at == rest.len() {
                    rest.push(v);
                }
                out.operand(at)
            }
        });
    }
    let result = simplified(&mut out, expr, &refs);
    (out.returning(result), rest)
}

/// Appends `expr` to `out` with its operands replaced; gives its result.
fn simplified(out: &mut Expr, expr: &Expr, operands: &[u32]) -> u32 {
    let mut at: Vec<u32> = vec![];
    for node in &expr.nodes {
        let new = match *node {
            Scalar::Operand(n) => operands[n as usize],
            node => scalar(out, node.with_args(|a| at[a as usize])),
        };
        at.push(new);
    }
    *at.last().expect("an expression is not empty")
}

/// Appends one operation, or what is equal to it and simpler. Only what holds for every value, NaN
/// and signed zeros included.
fn scalar(out: &mut Expr, node: Scalar) -> u32 {
    let literal = |r: u32| match out.nodes[r as usize] {
        Scalar::Literal(l) => Some(l),
        _ => None,
    };
    let args = node.args();
    if !args.is_empty() && args.iter().all(|&a| literal(a).is_some()) {
        let mut alone = Expr::new();
        let new: BTreeMap<u32, u32> =
            args.iter().map(|&a| (a, alone.push(out.nodes[a as usize]))).collect();
        let node = node.with_args(|a| new[&a]);
        alone.nodes.push(node);
        if let Some(dtype) = alone.result_type(&[]) {
            let value = eval::op(&Op::Map(alone), &[], &Type::scalar(dtype));
            return out.push(Scalar::Literal(Literal::from_bytes(dtype, value.element(0))));
        }
    }
    match node {
        Scalar::Binary(Binary::Pow, x, y) if let Some(y) = literal(y) => match y.f64() {
            1.0 => x,
            2.0 => out.binary(Binary::Mul, x, x),
            3.0 => {
                let square = out.binary(Binary::Mul, x, x);
                out.binary(Binary::Mul, square, x)
            }
            _ => out.push(node),
        },
        Scalar::Binary(Binary::Mul, x, y) if literal(y).is_some_and(|l| l.f64() == 1.0) => x,
        Scalar::Binary(Binary::Mul, x, y) if literal(x).is_some_and(|l| l.f64() == 1.0) => y,
        Scalar::Binary(Binary::Div, x, y) if let Some(y) = literal(y) => {
            let inverse = 1.0 / y.f64();
            let power_of_two =
                y.dtype.is_float() && inverse.is_normal() && y.f64().to_bits() << 12 == 0;
            match power_of_two {
                true => {
                    let inverse = out.literal(y.dtype, inverse);
                    out.binary(Binary::Mul, x, inverse)
                }
                false => out.push(node),
            }
        }
        Scalar::Binary(Binary::Sub, x, y) if literal(y).is_some_and(|l| l.bits == 0) => x,
        Scalar::Unary(Unary::Neg, x)
            if let Scalar::Unary(Unary::Neg, y) = out.nodes[x as usize] =>
        {
            y
        }
        node => out.push(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Builder, Output, Role};
    use crate::types::DType;

    #[test]
    fn scalars_become_literals() {
        let mut b = Builder::new("test");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [2, 3]));
        let three = b.scalar(DType::F32, 3.0);
        let cube = b.binary(Binary::Pow, x, three);
        let half = b.scalar(DType::F32, 2.0);
        let y = b.binary(Binary::Div, cube, half);
        let graph = fold(b.finish(vec![Output { name: "y".into(), value: y }]));
        let text = crate::passes::dce::eliminate(graph).to_string();
        assert!(
            text.contains("map {Mul(Mul($0, $0), $0)}") && text.contains("map {Mul($0, 0.5)}"),
            "{text}"
        );
    }
}
