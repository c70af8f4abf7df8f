//! Elementary functions in KIR: for `F32` with any number of lanes, and for `F64` with one.
//!
//! The errors of `F32` are stated in units in the last place of the exact result (ulp), as measured
//! against 64-bit references by `tests/kernels` with and without fused multiply-add. Those of `F64`,
//! which models hardly use, are at most 5 ulp. `F32` has polynomials of its own, `F64` Taylor series.
//! NaN gives NaN, infinities and signed zeros are as in C's annex F. Denormals count as numbers, both
//! ways.

mod circular;
mod erf;
mod exp;
pub mod half;
mod hyperbolic;

pub use circular::{acos, asin, atan, cos, sin, tan};
pub use erf::{erf, erf_for_sums};
pub use exp::{exp, exp_m1, exp_of_small, scale};
pub use hyperbolic::{acosh, asinh, atanh, cosh, sinh, tanh, tanh_for_sums, tanh_ratio};

use crate::kir::build::Builder;
use crate::kir::{Shift, Type, Unary, Value};
use exp::{SMALL, exp_in_proportion, exp_limits, exp_parts, exp_reduced, exp_rest, ln_2, shifter};
use std::f64::consts::FRAC_1_SQRT_2;

/// A constant of the type of `like`.
fn number(b: &mut Builder, like: Value, value: f64) -> Value {
    b.float(b.type_of(like), value)
}

/// Several constants of the type of `like`.
fn constants<const N: usize>(b: &mut Builder, like: Value, values: [f64; N]) -> [Value; N] {
    values.map(|value| number(b, like, value))
}

/// Whether there are 53 bits.
fn is_long(b: &Builder, x: Value) -> bool {
    b.type_of(x) == Type::F64
}

/// The integers of the size of a float.
fn integer_of(b: &Builder, x: Value) -> Type {
    if is_long(b, x) { Type::I64 } else { Type::I32 }
}

/// To the nearest integer, ties to even, for a magnitude up to 2^22 (for `F64` 2^51): the same as
/// `Builder::round`, and cheaper where the machine does not round. NaN stays NaN.
fn round_small(b: &mut Builder, x: Value) -> Value {
    if b.machine().rounds {
        return b.unary(Unary::Round, x);
    }
    let shifter = shifter(b, x, 0);
    let sum = b.add(x, shifter);
    b.sub(sum, shifter)
}

/// `x` where it is zero, else `result`.
fn keep_zero(b: &mut Builder, x: Value, result: Value) -> Value {
    let zero = number(b, x, 0.0);
    let is_zero = b.equal(x, zero);
    b.select(is_zero, x, result)
}

/// Horner's rule, the highest power's coefficient first.
pub fn polynomial(b: &mut Builder, x: Value, coefficients: &[f64]) -> Value {
    let first = number(b, x, coefficients[0]);
    coefficients[1..].iter().fold(first, |sum, &c| {
        let c = number(b, x, c);
        b.mul_add(sum, x, c)
    })
}

/// A number as a ratio that has not been divided yet: the product of two takes one division.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// The numerator.
    pub above: Value,
    /// The denominator, which is positive.
    pub below: Value,
}

impl Ratio {
    /// The number.
    pub fn value(self, b: &mut Builder) -> Value {
        b.div(self.above, self.below)
    }

    /// The product. Its parts must not overflow.
    #[must_use]
    pub fn times(self, b: &mut Builder, other: Ratio) -> Ratio {
        Ratio { above: b.mul(self.above, other.above), below: b.mul(self.below, other.below) }
    }
}

/// An odd function as a ratio of polynomials in the square, `x` forced into `-most..=most`.
fn ratio(b: &mut Builder, x: Value, most: f64, above: &[f64], below: &[f64]) -> Ratio {
    let [least, most] = constants(b, x, [-most, most]);
    let x = b.min(most, x); // A NaN is the second operand and passes.
    let x = b.max(least, x);
    let square = b.mul(x, x);
    let above = polynomial(b, square, above);
    let below = polynomial(b, square, below);
    Ratio { above: b.mul(above, x), below }
}

/// The natural logarithm, within 1 ulp.
pub fn log(b: &mut Builder, x: Value) -> Value {
    log_with(b, x, None)
}

/// The logarithm of `1 + x`, within 2 ulp.
pub fn log_1p(b: &mut Builder, x: Value) -> Value {
    let one = number(b, x, 1.0);
    let sum = b.add(one, x);
    // What the sum lost: exact, whichever is larger.
    let part = b.sub(sum, one);
    let other = b.sub(sum, part);
    let (lost_of_one, lost_of_x) = (b.sub(one, other), b.sub(x, part));
    let lost = b.add(lost_of_one, lost_of_x);
    let correction = b.div(lost, sum);
    let result = log_with(b, sum, Some(correction));
    keep_zero(b, x, result)
}

/// `log(x) + more`.
fn log_with(b: &mut Builder, x: Value, more: Option<Value>) -> Value {
    let (n, m) = exponent_and_fraction(b, x);
    let [ln2_high, ln2_low] = ln_2(b, x);
    let mut small = b.mul(n, ln2_low);
    if let Some(more) = more {
        small = b.add(small, more);
    }
    let sum = if is_long(b, x) {
        log_of_fraction_long(b, m, small)
    } else {
        log_of_fraction(b, m, small)
    };
    let result = b.mul_add(n, ln2_high, sum);
    let special = [0.0, f64::NEG_INFINITY, f64::INFINITY, f64::NAN];
    let [zero, least, most, nan] = constants(b, x, special);
    let is_zero = b.equal(x, zero);
    let special = b.select(is_zero, least, nan);
    let positive = b.less(zero, x);
    let result = b.select(positive, result, special);
    let infinite = b.equal(x, most);
    b.select(infinite, most, result)
}

/// `log(m) + small`, by `log(1 + f) = f - f^2 / 2 + f^3 P(f)` (Cephes, `logf`).
fn log_of_fraction(b: &mut Builder, m: Value, small: Value) -> Value {
    let [one, minus_half] = constants(b, m, [1.0, -0.5]);
    let f = b.sub(m, one);
    let coefficients = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let p = polynomial(b, f, &coefficients);
    let square = b.mul(f, f);
    let cube = b.mul(square, f);
    let small = b.mul_add(cube, p, small);
    let small = b.mul_add(square, minus_half, small);
    b.add(f, small)
}

/// The same by `log(m) = 2 atanh(s)`, `s = (m - 1) / (m + 1)`.
fn log_of_fraction_long(b: &mut Builder, m: Value, small: Value) -> Value {
    let one = number(b, m, 1.0);
    let (f, d) = (b.sub(m, one), b.add(m, one));
    let s = b.div(f, d);
    let z = b.mul(s, s);
    let p = inverse_odd_numbers(b, z);
    let cube = b.mul(z, s);
    let rest = b.mul(cube, p);
    let rest = b.add(rest, rest);
    let rest = b.add(rest, small);
    let two_s = b.add(s, s);
    b.add(two_s, rest)
}

/// `1/3 + z/5 + z^2/7 + ...`, for `z` up to 0.03.
fn inverse_odd_numbers(b: &mut Builder, z: Value) -> Value {
    let terms: Vec<_> = (0..11).rev().map(|k| 1.0 / f64::from(2 * k + 3)).collect();
    polynomial(b, z, &terms)
}

/// `n` as a float and `m` from sqrt(1/2) to sqrt(2), so that `x = 2^n m`, for `x` above zero and
/// finite.
fn exponent_and_fraction(b: &mut Builder, x: Value) -> (Value, Value) {
    let (digits, least, root, to_float) = match is_long(b, x) {
        true => (52u8, f64::MIN_POSITIVE, FRAC_1_SQRT_2.to_bits() as i64, Unary::ToF64),
        false => {
            let root = (FRAC_1_SQRT_2 as f32).to_bits();
            (23, f64::from(f32::MIN_POSITIVE), i64::from(root), Unary::ToF32)
        }
    };
    // Denormals are made large first.
    let values = [least, 2f64.powi(digits.into()), -f64::from(digits), 0.0];
    let [least, up, down, zero] = constants(b, x, values);
    let denormal = b.less(x, least);
    let larger = b.mul(x, up);
    let (x, shift) = (b.select(denormal, larger, x), b.select(denormal, down, zero));
    let bits = b.unary(Unary::ToBits, x);
    let root = b.integer(b.type_of(bits), root);
    let above = b.sub(bits, root);
    let exponent = b.shift(Shift::RightSigned, above, digits);
    let high_bits = b.shift(Shift::Left, exponent, digits);
    let fraction = b.sub(bits, high_bits);
    let n = b.unary(to_float, exponent);
    (b.add(n, shift), b.unary(Unary::FromBits, fraction))
}

/// `product + error` is exactly `x * y`, as long as neither overflows nor underflows.
fn exact_product(b: &mut Builder, x: Value, y: Value) -> (Value, Value) {
    let product = b.mul(x, y);
    if b.machine().fuses {
        let minus = b.neg(product);
        return (product, b.mul_add(x, y, minus));
    }
    // Halves of 12 or of 26 bits (Dekker).
    let low_bits = if is_long(b, x) { (1 << 27) - 1 } else { 0xfff };
    let mut halves = |v| {
        let bits = b.unary(Unary::ToBits, v);
        let mask = b.integer(b.type_of(bits), !low_bits);
        let bits = b.and(bits, mask);
        let high = b.unary(Unary::FromBits, bits);
        (high, b.sub(v, high))
    };
    let ((x, x_low), (y, y_low)) = (halves(x), halves(y));
    let high = b.mul(x, y);
    let error = b.sub(high, product);
    [(x, y_low), (x_low, y), (x_low, y_low)].into_iter().fold(
        (product, error),
        |(p, sum), (x, y)| {
            let part = b.mul(x, y);
            (p, b.add(sum, part))
        },
    )
}

/// `x` to the power of `y`, within 2 ulp, with C's special cases: 1 for a `y` of zero and an `x` of 1
/// whatever the other is; of a negative `x`, NaN unless `y` is integral, and its sign for an odd `y`.
///
/// The exponential of `y log |x|`, with the logarithm and the product in two floats.
pub fn pow(b: &mut Builder, x: Value, y: Value) -> Value {
    let magnitude = b.abs(x);
    let (log, log_low) = precise_log(b, magnitude);
    let (product, error) = exact_product(b, log, y);
    let low = b.mul_add(log_low, y, error);
    // Where something overflowed, nothing small matters.
    let (limit, size) = (number(b, x, 2000.0), b.abs(product));
    let [zero, one, half] = constants(b, x, [0.0, 1.0, 0.5]);
    let small = b.less(size, limit);
    let low = b.select(small, low, zero);
    let (lowest, highest) = exp_limits(b, x);
    let (n, r) = exp_reduced(b, product, lowest, highest);
    let (square, rest) = (b.mul(r, r), exp_rest(b, r));
    // e^(r + low) - 1 = e^r - 1 + low e^r
    let without = b.mul_add(square, rest, r);
    let low = b.mul_add(low, without, low);
    let rest = b.mul_add(square, rest, low);
    let rest = b.add(rest, r);
    let power = b.add(rest, one);
    let power = scale(b, power, n);

    let whole = b.trunc(y);
    let integral = b.equal(whole, y);
    let halved = b.mul(y, half);
    let whole = b.trunc(halved);
    let even = b.equal(whole, halved);
    let nan = number(b, x, f64::NAN);
    let magnitude_is_one = b.equal(magnitude, one);
    let power = b.select(magnitude_is_one, one, power);
    // 1 to the power of NaN is 1, but -1 to the power of it is not.
    let is_number = b.equal(y, y);
    let power = b.select(is_number, power, nan);
    let signed = b.copy_sign(power, x);
    let of_negative = b.select(even, power, signed);
    let of_negative_number = b.select(integral, of_negative, nan);
    // -0 and -infinity have powers of any kind.
    let infinity = number(b, x, f64::INFINITY);
    let (is_zero, is_infinite) = (b.equal(x, zero), b.equal(magnitude, infinity));
    let extreme = b.or(is_zero, is_infinite);
    let of_extreme = b.select(integral, of_negative, power);
    let of_negative = b.select(extreme, of_extreme, of_negative_number);
    let sign = b.copy_sign(one, x);
    let negative = b.less(sign, zero);
    let power = b.select(negative, of_negative, power);
    let (is_one, is_nan) = (b.equal(x, one), b.equal(x, x));
    let power = b.select(is_nan, power, x);
    let to_zero = b.equal(y, zero);
    let certain = b.or(is_one, to_zero);
    b.select(certain, one, power)
}

/// The logarithm of a number that is not negative, as a float and what it lacks: together to 10 bits
/// more than a float has. `log(m) = 2 atanh(s)`, `s = (m - 1) / (m + 1)`.
fn precise_log(b: &mut Builder, x: Value) -> (Value, Value) {
    let (n, m) = exponent_and_fraction(b, x);
    let one = number(b, x, 1.0);
    let f = b.sub(m, one);
    let d = b.add(m, one);
    let d_less_one = b.sub(d, one);
    let d_low = b.sub(m, d_less_one);
    let s = b.div(f, d);
    let (product, error) = exact_product(b, s, d);
    let rest = b.sub(f, product);
    let rest = b.sub(rest, error);
    let lacking = b.mul(s, d_low);
    let rest = b.sub(rest, lacking);
    let s_low = b.div(rest, d);
    let (s, s_low) = precise_arc(b, s, s_low);
    let [ln2_high, ln2_low] = ln_2(b, x);
    let two_s = b.add(s, s);
    let exponent = b.mul(n, ln2_high); // Exact.
    let sum = b.add(exponent, two_s);
    let part = b.sub(sum, exponent);
    let lost = b.sub(two_s, part);
    let low = b.mul_add(n, ln2_low, lost);
    let small = b.add(s_low, s_low);
    let low = b.add(low, small);
    let result = b.add(sum, low);
    let part = b.sub(result, sum);
    let result_low = b.sub(low, part);
    // Zero and infinity; NaN is the power's concern.
    let [zero, least, most] = constants(b, x, [0.0, f64::NEG_INFINITY, f64::INFINITY]);
    let (is_zero, is_infinite) = (b.equal(x, zero), b.equal(x, most));
    let result = b.select(is_zero, least, result);
    let result = b.select(is_infinite, most, result);
    (result, result_low)
}

/// `atanh(s + s_low)` as a float and what it lacks: `s + s^3 p(s^2)` with the error of each step.
fn precise_arc(b: &mut Builder, s: Value, s_low: Value) -> (Value, Value) {
    let (z, z_low) = exact_product(b, s, s);
    // `1/3 + z/5 + ...`; for `F32` a relative minimax fit, error 2.5e-11 in the end.
    let ([third, third_low], rest) = match is_long(b, s) {
        true => {
            let terms: Vec<_> = (1..11).rev().map(|k| 1.0 / f64::from(2 * k + 3)).collect();
            (constants(b, s, [1.0 / 3.0, 1.850_371_707_708_594e-17]), polynomial(b, z, &terms))
        }
        false => {
            let rest = polynomial(b, z, &[0.121_394_284, 0.142_493_96, 0.200_004_86]);
            (constants(b, s, [0.333_333_3, 0.0]), rest)
        }
    };
    let rest = b.mul(z, rest);
    let p = b.add(third, rest);
    let part = b.sub(third, p);
    let p_low = b.add(part, rest);
    let p_low = b.add(p_low, third_low);
    let (w, w_low) = exact_product(b, z, p);
    let w_low = b.mul_add(z, p_low, w_low);
    let w_low = b.mul_add(z_low, p, w_low);
    let (t, t_low) = exact_product(b, s, w);
    let t_low = b.mul_add(s, w_low, t_low);
    // The arc changes by 1 + z + ... times what its argument does.
    let s_low = b.mul_add(s_low, z, s_low);
    let sum = b.add(s, t);
    let part = b.sub(s, sum);
    let lost = b.add(part, t);
    let low = b.add(t_low, s_low);
    (sum, b.add(lost, low))
}

/// `x` to a constant integer, by squaring: exact where the partial products are.
pub fn integer_power(b: &mut Builder, x: Value, n: i32) -> Value {
    let mut result = None;
    let (mut square, mut left) = (x, n.unsigned_abs());
    while left > 0 {
        if left & 1 == 1 {
            result = Some(result.map_or(square, |r| b.mul(r, square)));
        }
        left >>= 1;
        if left > 0 {
            square = b.mul(square, square);
        }
    }
    let one = b.float(b.type_of(x), 1.0);
    match result {
        None => one,
        Some(result) if n < 0 => b.div(one, result),
        Some(result) => result,
    }
}

/// `1 / (1 + exp(-x))`, within 3 ulp.
pub fn sigmoid(b: &mut Builder, x: Value) -> Value {
    sigmoid_ratio(b, x).value(b)
}

/// The same, of parts up to `2^90` (in f32).
pub fn sigmoid_ratio(b: &mut Builder, x: Value) -> Ratio {
    // From here on it is 1.
    let most = number(b, x, if is_long(b, x) { SMALL } else { 17.5 });
    let x = b.min(most, x); // A NaN is the second operand and passes.
    let (e, one) = exp_in_proportion(b, x);
    let one = number(b, x, one.unwrap_or(1.0));
    Ratio { above: e, below: b.add(e, one) }
}
