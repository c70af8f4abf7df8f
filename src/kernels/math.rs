//! Elementary functions in KIR, for `F32` with any number of lanes.

use crate::kir::build::Builder;
use crate::kir::{Binary, Shift, Unary, Value};

/// e to the power of `x`, within 2 ulp; overflow to infinity, underflow through the denormals to
/// zero, NaN for NaN.
///
/// `x = n ln 2 + r`, and a polynomial for `e^r` on `|r| <= ln 2 / 2` (relative minimax fit of
/// degree 6, error 3.1e-9).
pub fn exp(b: &mut Builder, x: Value) -> Value {
    let [low, high] = [-104.0, 89.0].map(|c| b.f32(c));
    let x = b.min(high, x); // A NaN is the second operand and passes.
    let x = b.max(low, x);
    let log2_e = b.f32(std::f32::consts::LOG2_E);
    let n = b.mul(x, log2_e);
    let n = round_small(b, n);
    // ln 2 in two parts; the first has 9 bits, so that its product with n is exact.
    let [minus_ln2_high, minus_ln2_low] = [-355.0 / 512.0, 2.121_944_4e-4].map(|c| b.f32(c));
    let r = b.mul_add(n, minus_ln2_high, x);
    let r = b.mul_add(n, minus_ln2_low, r);
    let p =
        polynomial(b, r, &[0.001381454, 0.008368745, 0.04166839, 0.16666521, 0.49999994, 1.0, 1.0]);
    scale(b, p, n)
}

/// `a * 2^n` for integral `n` from -252 to 254, rounded once.
pub fn scale(b: &mut Builder, a: Value, n: Value) -> Value {
    if b.machine().scales {
        return b.binary(Binary::Scale, a, n);
    }
    // In two halves, so that both powers are normal numbers and the first product is exact.
    let n = b.unary(Unary::ToI32, n);
    let half = b.shift(Shift::RightSigned, n, 1);
    let rest = b.sub(n, half);
    [half, rest].into_iter().fold(a, |a, n| {
        let bias = b.i32(127);
        let exponent = b.add(n, bias);
        let bits = b.shift(Shift::Left, exponent, 23);
        let power = b.unary(Unary::FromBits, bits);
        b.mul(a, power)
    })
}

/// To the nearest integer, ties to even, for `F32` of a magnitude up to 2^22: the same as
/// `Builder::round`, and cheaper where the machine does not round. NaN stays NaN.
fn round_small(b: &mut Builder, x: Value) -> Value {
    if b.machine().rounds {
        return b.unary(Unary::Round, x);
    }
    let shifter = b.f32(1.5 * (1 << 23) as f32);
    let sum = b.add(x, shifter);
    b.sub(sum, shifter)
}

/// Horner's rule, the highest power's coefficient first.
pub fn polynomial(b: &mut Builder, x: Value, coefficients: &[f32]) -> Value {
    let first = b.f32(coefficients[0]);
    coefficients[1..].iter().fold(first, |sum, &c| {
        let c = b.f32(c);
        b.mul_add(sum, x, c)
    })
}
