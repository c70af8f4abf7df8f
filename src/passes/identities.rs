//! Chains of functions that are simpler than their parts.

use crate::mir::expr::Ref;
use crate::mir::{Binary, Expr, Scalar, Unary};
use crate::types::DType;

/// The expression, over elements of `dtype`, with what is simpler in place of what it is equal to.
///
/// - `tanh(log(1 + e^x))`, of which Mish is made, is `n / (n + 2)` with `n = e^x (e^x + 2)`, and 1 beyond 20 (in
///   `f16`, which holds no such `n`, beyond 5).
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
    let most = if dtype == DType::F16 { 5.0 } else { 20.0 };
    let [two, most] = [2.0, most].map(|value| out.literal(dtype, value));
    let bounded = out.binary(Binary::Min, x, most);
    let e = out.unary(Unary::Exp, bounded);
    let sum = out.binary(Binary::Add, e, two);
    let n = out.binary(Binary::Mul, e, sum);
    let denominator = out.binary(Binary::Add, n, two);
    out.binary(Binary::Div, n, denominator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Op, eval};
    use crate::tensor::Tensor;
    use crate::types::Type;

    /// Also where an exponential has no room in the type.
    #[test]
    fn gates_are_fractions() {
        for (dtype, tolerance) in [(DType::F16, 4e-3), (DType::BF16, 3e-2), (DType::F32, 1e-6)] {
            let mut gate = Expr::softplus(dtype);
            let last = u32::try_from(gate.nodes.len() - 1).unwrap();
            gate.unary(Unary::Tanh, last);
            let fraction = simpler(gate.clone(), dtype);
            assert_ne!(gate, fraction);
            let x = [-200.0, -5.0, 0.0, 1.0, 4.9, 5.1, 8.0, 12.0, 21.0, 200.0];
            let x = Tensor::from_f64s(Type::new(dtype, [x.len()]), x);
            let [gate, fraction] =
                [gate, fraction].map(|e| eval::op(&Op::Map(e), &[&x], x.ty()).f64s());
            for (a, b) in gate.into_iter().zip(fraction) {
                assert!((a - b).abs() <= tolerance, "{dtype} {a} {b}");
            }
        }
    }
}
