//! How elementary functions are called, and what they cost.

use super::math::{self, Ratio};
use crate::kir::build::Builder;
use crate::kir::{Type, Value};
use crate::lir::Unary;

/// Roughly how many instructions it takes.
pub(super) fn cost(op: Unary) -> i64 {
    use Unary::*;
    match op {
        Neg | Abs | Not | Floor | Ceil | Round | Trunc => 1,
        Sign => 3,
        Sqrt => 6,
        Exp | Sigmoid => 20,
        Log | Sin | Cos | Tanh | Erf | Sinh | Cosh => 30,
        Tan | Asin | Acos | Atan | Asinh | Acosh | Atanh => 40,
    }
}

/// Whether it takes nothing but floats and masks in registers, on machines that round.
pub(super) fn is_plain(op: Unary) -> bool {
    use Unary::*;
    match op {
        Neg | Abs | Sign | Sqrt | Floor | Ceil | Round | Trunc => true,
        Exp | Log | Sin | Cos | Tan | Asin | Acos | Atan | Sinh | Cosh | Tanh => false,
        Asinh | Acosh | Atanh | Erf | Sigmoid | Not => false,
    }
}

/// Of floats.
pub(super) fn unary(b: &mut Builder, op: Unary, a: Value) -> Value {
    use Unary::*;
    match op {
        Sqrt => b.sqrt(a),
        Floor => b.floor(a),
        Ceil => b.ceil(a),
        Round => b.round(a),
        Trunc => b.trunc(a),
        Exp => math::exp(b, a),
        Log => math::log(b, a),
        Sin => math::sin(b, a),
        Cos => math::cos(b, a),
        Tan => math::tan(b, a),
        Asin => math::asin(b, a),
        Acos => math::acos(b, a),
        Atan => math::atan(b, a),
        Sinh => math::sinh(b, a),
        Cosh => math::cosh(b, a),
        Tanh => math::tanh(b, a),
        Asinh => math::asinh(b, a),
        Acosh => math::acosh(b, a),
        Atanh => math::atanh(b, a),
        Erf => math::erf(b, a),
        Sigmoid => math::sigmoid(b, a),
        Neg | Abs | Sign | Not => unreachable!("every number has them"),
    }
}

/// A faster function that is exact enough for a sum with 1, if there is one.
pub(super) fn for_sums(op: Unary) -> Option<fn(&mut Builder, Value) -> Value> {
    match op {
        Unary::Erf => Some(math::erf_for_sums),
        Unary::Tanh => Some(math::tanh_for_sums),
        _ => None,
    }
}

/// A function that is written as a ratio.
pub(super) type AsRatio = fn(&mut Builder, Value) -> Ratio;

/// The function as a ratio whose product with that of another function has room, if there is one: of a gate,
/// and of what goes through it.
pub(super) fn as_ratio(op: Unary) -> Option<AsRatio> {
    match op {
        Unary::Sigmoid => Some(math::sigmoid_ratio),
        Unary::Tanh => Some(math::tanh_ratio),
        _ => None,
    }
}

/// `x` to the power of `y`; `known` is `y` where it is a literal.
pub(super) fn power(b: &mut Builder, x: Value, y: Value, known: Option<f64>) -> Value {
    match known {
        Some(n) if n.fract() == 0.0 && n.abs() <= 8.0 => math::integer_power(b, x, n as i32),
        _ => math::pow(b, x, y),
    }
}

/// The remainder with the sign of `x`, exactly: C's `fmod`.
///
/// Multiples `|y| 2^n` are taken off `|x|`, from the largest power that there is to the first. Each
/// difference is exact, since what is left is below twice the multiple.
pub(super) fn remainder(b: &mut Builder, x: Value, y: Value) -> Value {
    let ty = b.type_of(x);
    let (top, bias, mantissa) = if ty == Type::F64 { (2097, 1023, 52) } else { (276, 127, 23) };
    let (dividend, divisor) = (b.abs(x), b.abs(y));
    let integers = if ty == Type::F64 { Type::I64 } else { Type::I32 };
    let rest = b.fold(0, top + 1, &[], &[dividend], |b, it| {
        // 2^n may be more than one number can hold: it is a product of three.
        let n = b.from_index(integers, it.index);
        let last = b.integer(integers, top);
        let n = b.sub(last, n);
        let limit = b.integer(integers, bias);
        let first = b.min(n, limit);
        let n = b.sub(n, first);
        let second = b.min(n, limit);
        let third = b.sub(n, second);
        let multiple = [first, second, third].into_iter().fold(divisor, |value, n| {
            let bias = b.integer(integers, bias);
            let exponent = b.add(n, bias);
            let bits = b.shift(crate::kir::Shift::Left, exponent, mantissa);
            let power = b.unary(crate::kir::Unary::FromBits, bits);
            b.mul(value, power)
        });
        let rest = it.carried[0];
        let less = b.sub(rest, multiple);
        let fits = b.less_equal(multiple, rest);
        vec![b.select(fits, less, rest)]
    });
    let rest = b.copy_sign(rest[0], x);
    // NaN for what has no remainder: x infinite, y zero, or either a NaN.
    let infinity = b.float(ty, f64::INFINITY);
    let zero = b.float(ty, 0.0);
    let (finite, divides) = (b.less(dividend, infinity), b.less(zero, divisor));
    let valid = b.and(finite, divides);
    let nan = b.float(ty, f64::NAN);
    b.select(valid, rest, nan)
}
