//! Exponentials, and powers of two.

use super::{constants, is_long, keep_zero, number, polynomial, round_small};
use crate::kir::build::Builder;
use crate::kir::{Binary, Shift, Unary, Value};
use std::f64::consts::LOG2_E;

/// ln 2 in two parts. The first has so few bits that its products with exponents are exact.
pub(super) fn ln_2(b: &mut Builder, like: Value) -> [Value; 2] {
    let parts = ln_2_parts(b, like);
    constants(b, like, parts)
}

fn ln_2_parts(b: &Builder, like: Value) -> [f64; 2] {
    match is_long(b, like) {
        true => [0.693_147_180_485_539_1, 7.440_617_110_012_397e-11],
        false => [355.0 / 512.0, -2.121_944_4e-4],
    }
}

/// Where the exponential has become zero, and where infinity.
pub(super) fn exp_limits(b: &Builder, x: Value) -> (f64, f64) {
    if is_long(b, x) { (-746.0, 710.0) } else { (-104.0, 89.0) }
}

/// e to the power of `x`, within 2 ulp.
pub fn exp(b: &mut Builder, x: Value) -> Value {
    let (low, high) = exp_limits(b, x);
    if b.machine().scales {
        let (power, n) = exp_parts(b, x, low, high);
        return scale(b, power, n);
    }
    let x = limited(b, x, low, high);
    let bias = 2 * exponent_bias(b, x);
    if b.machine().tables > 0 {
        let (rest, digits) = exp_in_eighths(b, x, bias);
        // 2^n in two powers, as in `scale_by_digits`; the second one with the eighths.
        let half = b.shift(Shift::RightUnsigned, digits, 1 + EIGHTHS);
        let half = b.shift(Shift::Left, half, mantissa_digits(b, x));
        let all = power_of_eighths(b, digits);
        let other = b.sub(all, half);
        let [half, other] = [half, other].map(|bits| b.unary(Unary::FromBits, bits));
        let power = b.mul_add(other, rest, other);
        return b.mul(power, half);
    }
    let (power, digits) = exp_and_digits(b, x, bias);
    scale_by_digits(b, power, digits)
}

/// The largest number that [`exp_of_small`] takes.
pub(super) const SMALL: f64 = 40.0;

/// The same for an `x` up to [`SMALL`]: what it is for others is not defined.
pub fn exp_of_small(b: &mut Builder, x: Value) -> Value {
    let (power, of_one) = exp_in_proportion(b, x);
    match of_one {
        Some(one) => {
            let rest = number(b, x, 1.0 / one);
            b.mul(power, rest)
        }
        None => power,
    }
}

/// e to the power of an `x` up to [`SMALL`] in proportion to the second result, which is what 1 would be: 1
/// itself where it is `None`.
pub(super) fn exp_in_proportion(b: &mut Builder, x: Value) -> (Value, Option<f64>) {
    let (least, _) = exp_limits(b, x);
    let low = number(b, x, least);
    let x = b.max(low, x); // A NaN is the second operand and passes.
    if b.machine().scales {
        let (n, r) = exp_split(b, x);
        let power = exp_of_rest(b, r);
        return (scale(b, power, n), None);
    }
    // 2^(n + 64) is a normal number in both types.
    const MORE: i32 = 64;
    let bias = exponent_bias(b, x) + MORE;
    if b.machine().tables > 0 {
        let (rest, digits) = exp_in_eighths(b, x, bias);
        let bits = power_of_eighths(b, digits);
        let power = b.unary(Unary::FromBits, bits);
        return (b.mul_add(power, rest, power), Some(2f64.powi(MORE)));
    }
    let (power, digits) = exp_and_digits(b, x, bias);
    let mantissa = mantissa_digits(b, x);
    let times = b.shift(Shift::Left, digits, mantissa);
    let times = b.unary(Unary::FromBits, times);
    (b.mul(power, times), Some(2f64.powi(MORE)))
}

/// The exponential of `x` without its power of two, `2^n`, and an integer whose lowest bits, as many as an
/// exponent and a sign have, are `n + bias`.
fn exp_and_digits(b: &mut Builder, x: Value, bias: i32) -> (Value, Value) {
    let shifter = shifter(b, x, bias);
    let log2_e = number(b, x, LOG2_E);
    let shifted = b.mul_add(x, log2_e, shifter);
    let n = b.sub(shifted, shifter);
    let r = exp_remainder(b, x, n);
    (exp_of_rest(b, r), b.unary(Unary::ToBits, shifted))
}

/// Binary digits behind the point of an exponent whose power comes from a table.
const EIGHTHS: u8 = 3;

/// `e^r - 1` and an integer `digits`, so that `x` is `n ln 2 + r` for a multiple `n` of 1/8, `|r| <= ln 2 / 16`,
/// and the lowest bits of `digits`, three more than an exponent and a sign have, are those of `8 (n + bias)`.
fn exp_in_eighths(b: &mut Builder, x: Value, bias: i32) -> (Value, Value) {
    let shifter = 1.5 * 2f64.powi((mantissa_digits(b, x) - EIGHTHS).into()) + f64::from(bias);
    let (shifter, log2_e) = (number(b, x, shifter), number(b, x, LOG2_E));
    let shifted = b.mul_add(x, log2_e, shifter);
    let n = b.sub(shifted, shifter);
    let r = exp_remainder(b, x, n);
    // Minimax fit for e^r, error 2.6e-8.
    let p = polynomial(b, r, &[0.166_668_58, 0.500_064_55, 1.0]);
    (b.mul(p, r), b.unary(Unary::ToBits, shifted))
}

/// The bits of 2 to the power of an eighth of `digits`, with it instead of it and the bias as the exponent.
fn power_of_eighths(b: &mut Builder, digits: Value) -> Value {
    const MANTISSA: u32 = f32::MANTISSA_DIGITS - 1;
    // The eighths of the exponent reach into the mantissa: that much less of it is in the table.
    let table = [0, 1, 2, 3, 4, 5, 6, 7].map(|eighths: i32| {
        let power = 2f64.powf(f64::from(eighths) / 8.0) as f32;
        let mantissa = power.to_bits() as i32 & ((1 << MANTISSA) - 1);
        mantissa - (eighths << (MANTISSA - u32::from(EIGHTHS)))
    });
    let mantissa = b.lookup(table, digits);
    let exponent = b.shift(Shift::Left, digits, MANTISSA as u8 - EIGHTHS);
    b.add(exponent, mantissa)
}

/// Bits of a float behind its exponent.
fn mantissa_digits(b: &Builder, x: Value) -> u8 {
    if is_long(b, x) { 52 } else { 23 }
}

/// What is added to the exponent of a float in its bits.
fn exponent_bias(b: &Builder, x: Value) -> i32 {
    if is_long(b, x) { 1023 } else { 127 }
}

/// A float whose last digit is one: adding it rounds to an integer, and the lowest bits of the sum are those
/// of that integer and `bias`.
pub(super) fn shifter(b: &mut Builder, x: Value, bias: i32) -> Value {
    let digits = mantissa_digits(b, x);
    number(b, x, 1.5 * 2f64.powi(digits.into()) + f64::from(bias))
}

/// `p` and an integral `n`, so that the exponential of `x` is `p * 2^n`; for `x` outside of `low
/// ..high` that of the limit.
pub(super) fn exp_parts(b: &mut Builder, x: Value, low: f64, high: f64) -> (Value, Value) {
    let (n, r) = exp_reduced(b, x, low, high);
    (exp_of_rest(b, r), n)
}

/// e to the power of `r`, `|r| <= ln 2 / 2`.
fn exp_of_rest(b: &mut Builder, r: Value) -> Value {
    if is_long(b, r) {
        let rest = exp_rest(b, r);
        let square = b.mul(r, r);
        let rest = b.mul_add(square, rest, r);
        let one = number(b, r, 1.0);
        return b.add(rest, one);
    }
    // Relative minimax fit of degree 6, error 3.1e-9.
    let coefficients = [0.001381454, 0.008368745, 0.04166839, 0.16666521, 0.49999994, 1.0, 1.0];
    polynomial(b, r, &coefficients)
}

/// `n` and `r`, so that `x` forced into `low..high` is `n ln 2 + r`, `|r| <= ln 2 / 2`.
pub(super) fn exp_reduced(b: &mut Builder, x: Value, low: f64, high: f64) -> (Value, Value) {
    let x = limited(b, x, low, high);
    exp_split(b, x)
}

/// `x` forced into `low..high`, or NaN.
fn limited(b: &mut Builder, x: Value, low: f64, high: f64) -> Value {
    let [low, high] = constants(b, x, [low, high]);
    let x = b.min(high, x); // A NaN is the second operand and passes.
    b.max(low, x)
}

/// `n` and `r`, so that `x` is `n ln 2 + r`, `|r| <= ln 2 / 2`.
fn exp_split(b: &mut Builder, x: Value) -> (Value, Value) {
    let log2_e = number(b, x, LOG2_E);
    let n = b.mul(x, log2_e);
    let n = round_small(b, n);
    (n, exp_remainder(b, x, n))
}

/// `x - n ln 2`
fn exp_remainder(b: &mut Builder, x: Value, n: Value) -> Value {
    let minus = ln_2_parts(b, x).map(|part| -part);
    let [high, low] = constants(b, x, minus);
    let r = b.mul_add(n, high, x);
    b.mul_add(n, low, r)
}

/// e to the power of `x`, less 1, within 2 ulp.
pub fn exp_m1(b: &mut Builder, x: Value) -> Value {
    // The exponential of that is lost beside 1.
    let low = if is_long(b, x) { -40.0 } else { -18.0 };
    let (n, r) = exp_reduced(b, x, low, exp_limits(b, x).1);
    let square = b.mul(r, r);
    let q = exp_rest(b, r);
    let q = b.mul_add(square, q, r);
    // Half of it, 2^(n - 1) (q + 1) - 1/2, so that 2^128 does not occur.
    let one = number(b, x, 1.0);
    let m = b.sub(n, one);
    let power = scale(b, one, m);
    let half = number(b, x, 0.5);
    let rest = b.sub(power, half);
    let result = b.mul_add(power, q, rest);
    let result = b.add(result, result);
    // Of a zero, its sign.
    keep_zero(b, x, result)
}

/// `(e^r - 1 - r) / r^2` on `|r| <= ln 2 / 2` (minimax fit that makes `e^r - 1` right to
/// 4.7e-10, or a Taylor series).
pub(super) fn exp_rest(b: &mut Builder, r: Value) -> Value {
    if is_long(b, r) {
        let mut factorial = 1.0;
        let terms = (2..=14).map(|k| {
            factorial *= f64::from(k);
            1.0 / factorial
        });
        let mut terms: Vec<_> = terms.collect();
        terms.reverse();
        return polynomial(b, r, &terms);
    }
    let coefficients =
        [1.966_347_9e-4, 1.393_507e-3, 8.333_644e-3, 0.041_666_467, 0.166_666_66, 0.5];
    polynomial(b, r, &coefficients)
}

/// `a * 2^n` for integral `n` from -252 to 254 (for `F64` from -2044 to 2046), rounded once.
pub fn scale(b: &mut Builder, a: Value, n: Value) -> Value {
    if b.machine().scales {
        return b.binary(Binary::Scale, a, n);
    }
    let shifter = shifter(b, a, 2 * exponent_bias(b, a));
    let shifted = b.add(n, shifter);
    let digits = b.unary(Unary::ToBits, shifted);
    scale_by_digits(b, a, digits)
}

/// The same, for an integer whose lowest bits are `n` and twice the bias of an exponent. It takes two powers,
/// of half of `n` (downwards) and of what is left: both are normal numbers, and the first product is exact.
fn scale_by_digits(b: &mut Builder, a: Value, digits: Value) -> Value {
    let mantissa = mantissa_digits(b, a);
    let half = b.shift(Shift::RightUnsigned, digits, 1);
    let half = b.shift(Shift::Left, half, mantissa);
    let all = b.shift(Shift::Left, digits, mantissa);
    let rest = b.sub(all, half);
    [half, rest].into_iter().fold(a, |a, bits| {
        let power = b.unary(Unary::FromBits, bits);
        b.mul(a, power)
    })
}
