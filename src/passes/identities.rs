//! Chains of functions that are simpler than their parts.

use crate::mir::expr::Ref;
use crate::mir::{Binary, Expr, Scalar, Unary};
use crate::types::DType;

/// The expression, over elements of `dtype`, with what is simpler in place of what it is equal to.
///
/// - `tanh(log(1 + e^x))`, of which Mish is made, is `n / (n + 2)` with `n = e^x (e^x + 2)`, and 1 beyond 20.
pub(super) fn simpler(expr: Expr, dtype: DType) -> Expr {
    let softplus = Expr::softplus(dtype);
    let gate = |node: &Scalar| match *node {
        Scalar::Unary(Unary::Tanh, of) => expr.matches(of, &softplus),
        _ => None,
    };
    if !expr.nodes.iter().any(|node| gate(node).is_some()) {
        return expr;
    }
    let mut out = Expr::new();
    let mut new: Vec<Ref> = vec![];
    for node in &expr.nodes {
        let value = match gate(node) {
            Some(x) => fraction(&mut out, dtype, new[x as usize]),
            None => out.push(node.with_args(|a| new[a as usize])),
        };
        new.push(value);
    }
    match new.last() {
        Some(&last) => out.returning(last),
        None => expr,
    }
}

/// `tanh(log(1 + e^x))`.
fn fraction(out: &mut Expr, dtype: DType, x: Ref) -> Ref {
    let [two, most] = [2.0, 20.0].map(|value| out.literal(dtype, value));
    let bounded = out.binary(Binary::Min, x, most);
    let e = out.unary(Unary::Exp, bounded);
    let sum = out.binary(Binary::Add, e, two);
    let n = out.binary(Binary::Mul, e, sum);
    let denominator = out.binary(Binary::Add, n, two);
    out.binary(Binary::Div, n, denominator)
}
