//! Elementary functions in KIR, for `F32` with any number of lanes.
//!
//! Errors are stated in units in the last place of the exact result (ulp), measured against 64-bit
//! references by `tests/kernels` with and without fused multiply-add. NaN gives NaN, infinities and
//! signed zeros are as in C's annex F. Denormals count as numbers, both ways.

use crate::kir::build::Builder;
use crate::kir::{Binary, Shift, Unary, Value};
use std::f32::consts::{FRAC_2_PI, FRAC_PI_2, LN_2, LOG2_E};

/// ln 2 in two parts. The first has 9 bits, so that its products with small integers are exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// e to the power of `x`, within 1 ulp (2 without fused multiply-add).
pub fn exp(b: &mut Builder, x: Value) -> Value {
    let (power, n) = exp_parts(b, x, -104.0, 89.0);
    scale(b, power, n)
}

/// `p` and an integral `n`, so that the exponential of `x` is `p * 2^n`; for `x` outside of `low
/// ..high` that of the limit.
///
/// `x = n ln 2 + r`, and a polynomial for `e^r` on `|r| <= ln 2 / 2` (relative minimax fit of
/// degree 6, error 3.1e-9).
fn exp_parts(b: &mut Builder, x: Value, low: f32, high: f32) -> (Value, Value) {
    let (n, r) = exp_reduced(b, x, low, high);
    let coefficients = [0.001381454, 0.008368745, 0.04166839, 0.16666521, 0.49999994, 1.0, 1.0];
    (polynomial(b, r, &coefficients), n)
}

/// `n` and `r`, so that `x` forced into `low..high` is `n ln 2 + r`, `|r| <= ln 2 / 2`.
fn exp_reduced(b: &mut Builder, x: Value, low: f32, high: f32) -> (Value, Value) {
    let [low, high] = [low, high].map(|c| b.f32(c));
    let x = b.min(high, x); // A NaN is the second operand and passes.
    let x = b.max(low, x);
    let log2_e = b.f32(LOG2_E);
    let n = b.mul(x, log2_e);
    let n = round_small(b, n);
    let [minus_high, minus_low] = [-LN_2_HIGH, -LN_2_LOW].map(|c| b.f32(c));
    let r = b.mul_add(n, minus_high, x);
    (n, b.mul_add(n, minus_low, r))
}

/// e to the power of `x`, less 1, within 2 ulp.
pub fn exp_m1(b: &mut Builder, x: Value) -> Value {
    // exp(-18) is lost beside 1.
    let (n, r) = exp_reduced(b, x, -18.0, 89.0);
    let square = b.mul(r, r);
    let q = exp_rest(b, r);
    let q = b.mul_add(square, q, r);
    // Half of it, 2^(n - 1) (q + 1) - 1/2, so that 2^128 does not occur.
    let one = b.f32(1.0);
    let m = b.sub(n, one);
    let power = scale(b, one, m);
    let half = b.f32(0.5);
    let rest = b.sub(power, half);
    let result = b.mul_add(power, q, rest);
    let result = b.add(result, result);
    // Of a zero, its sign.
    keep_zero(b, x, result)
}

/// `(e^r - 1 - r) / r^2` on `|r| <= ln 2 / 2` (minimax fit that makes `e^r - 1` right to 4.7e-10).
fn exp_rest(b: &mut Builder, r: Value) -> Value {
    let coefficients =
        [1.966_347_9e-4, 1.393_507e-3, 8.333_644e-3, 0.041_666_467, 0.166_666_66, 0.5];
    polynomial(b, r, &coefficients)
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

/// `x` where it is zero, else `result`.
fn keep_zero(b: &mut Builder, x: Value, result: Value) -> Value {
    let zero = b.f32(0.0);
    let is_zero = b.equal(x, zero);
    b.select(is_zero, x, result)
}

/// Horner's rule, the highest power's coefficient first.
pub fn polynomial(b: &mut Builder, x: Value, coefficients: &[f32]) -> Value {
    let first = b.f32(coefficients[0]);
    coefficients[1..].iter().fold(first, |sum, &c| {
        let c = b.f32(c);
        b.mul_add(sum, x, c)
    })
}

/// The natural logarithm, within 1 ulp (2 without fused multiply-add).
pub fn log(b: &mut Builder, x: Value) -> Value {
    log_with(b, x, None)
}

/// The logarithm of `1 + x`, within 2 ulp.
pub fn log_1p(b: &mut Builder, x: Value) -> Value {
    let one = b.f32(1.0);
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
///
/// `x = 2^n m`, and `log(1 + f) = f - f^2 / 2 + f^3 P(f)` (Cephes, `logf`).
fn log_with(b: &mut Builder, x: Value, more: Option<Value>) -> Value {
    let (n, m) = exponent_and_fraction(b, x);
    let one = b.f32(1.0);
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
    let [ln2_high, ln2_low, minus_half] = [LN_2_HIGH, LN_2_LOW, -0.5].map(|c| b.f32(c));
    let mut small = b.mul(n, ln2_low);
    if let Some(more) = more {
        small = b.add(small, more);
    }
    let small = b.mul_add(cube, p, small);
    let small = b.mul_add(square, minus_half, small);
    let sum = b.add(f, small);
    let result = b.mul_add(n, ln2_high, sum);
    let [zero, least, most, nan] =
        [0.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN].map(|c| b.f32(c));
    let is_zero = b.equal(x, zero);
    let special = b.select(is_zero, least, nan);
    let positive = b.less(zero, x);
    let result = b.select(positive, result, special);
    let infinite = b.equal(x, most);
    b.select(infinite, most, result)
}

/// `n` as a float and `m` from sqrt(1/2) to sqrt(2), so that `x = 2^n m`, for `x` above zero and
/// finite.
fn exponent_and_fraction(b: &mut Builder, x: Value) -> (Value, Value) {
    // Denormals are made large first.
    let [least, up, down, zero] =
        [f32::MIN_POSITIVE, (1 << 23) as f32, -23.0, 0.0].map(|c| b.f32(c));
    let denormal = b.less(x, least);
    let larger = b.mul(x, up);
    let (x, shift) = (b.select(denormal, larger, x), b.select(denormal, down, zero));
    let bits = b.unary(Unary::ToBits, x);
    let root = b.i32(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32);
    let above = b.sub(bits, root);
    let exponent = b.shift(Shift::RightSigned, above, 23);
    let high_bits = b.shift(Shift::Left, exponent, 23);
    let fraction = b.sub(bits, high_bits);
    let n = b.unary(Unary::ToF32, exponent);
    (b.add(n, shift), b.unary(Unary::FromBits, fraction))
}

/// `product + error` is exactly `x * y`, as long as neither overflows nor underflows.
fn exact_product(b: &mut Builder, x: Value, y: Value) -> (Value, Value) {
    let product = b.mul(x, y);
    if b.machine().fuses {
        let minus = b.neg(product);
        return (product, b.mul_add(x, y, minus));
    }
    // Halves of 12 bits (Dekker).
    let mut halves = |v| {
        let (bits, mask) = (b.unary(Unary::ToBits, v), b.i32(!0xfff));
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

/// `x` to the power of `y`, within 5 ulp (at the largest and smallest results), with C's special cases: 1 for a `y` of zero and an `x` of 1
/// whatever the other is; of a negative `x`, NaN unless `y` is integral, and its sign for an odd `y`.
///
/// The exponential of `y log |x|`, with the logarithm and the product in two floats.
pub fn pow(b: &mut Builder, x: Value, y: Value) -> Value {
    let magnitude = b.abs(x);
    let (log, log_low) = precise_log(b, magnitude);
    let (product, error) = exact_product(b, log, y);
    let low = b.mul_add(log_low, y, error);
    // Where something overflowed, nothing small matters.
    let (limit, size) = (b.f32(200.0), b.abs(product));
    let [zero, one, half] = [0.0, 1.0, 0.5].map(|c| b.f32(c));
    let small = b.less(size, limit);
    let low = b.select(small, low, zero);
    let (n, r) = exp_reduced(b, product, -104.0, 89.0);
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
    let nan = b.f32(f32::NAN);
    let magnitude_is_one = b.equal(magnitude, one);
    let power = b.select(magnitude_is_one, one, power);
    // 1 to the power of NaN is 1, but -1 to the power of it is not.
    let number = b.equal(y, y);
    let power = b.select(number, power, nan);
    let signed = b.copy_sign(power, x);
    let of_negative = b.select(even, power, signed);
    let of_negative_number = b.select(integral, of_negative, nan);
    // -0 and -infinity have powers of any kind.
    let infinity = b.f32(f32::INFINITY);
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

/// The logarithm of a number that is not negative, as a float and what it lacks: together to some 30
/// bits. `log(m) = 2 atanh(s)`, `s = (m - 1) / (m + 1)`.
fn precise_log(b: &mut Builder, x: Value) -> (Value, Value) {
    let (n, m) = exponent_and_fraction(b, x);
    let one = b.f32(1.0);
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
    // Relative minimax fit of `(atanh(s) / s - 1) / s^2`, error 2.5e-11 in the end.
    let z = b.mul(s, s);
    let p = polynomial(b, z, &[0.121_394_284, 0.142_493_96, 0.200_004_86, 0.333_333_3]);
    let cube = b.mul(z, s);
    let small = b.mul_add(cube, p, s_low);
    let [ln2_high, ln2_low] = [LN_2_HIGH, LN_2_LOW].map(|c| b.f32(c));
    let two_s = b.add(s, s);
    let exponent = b.mul(n, ln2_high); // Exact.
    let sum = b.add(exponent, two_s);
    let part = b.sub(sum, exponent);
    let lost = b.sub(two_s, part);
    let low = b.mul_add(n, ln2_low, lost);
    let small = b.add(small, small);
    let low = b.add(low, small);
    let result = b.add(sum, low);
    let part = b.sub(result, sum);
    let result_low = b.sub(low, part);
    // Zero and infinity; NaN is the power's concern.
    let [zero, least, most] = [0.0, f32::NEG_INFINITY, f32::INFINITY].map(|c| b.f32(c));
    let (is_zero, is_infinite) = (b.equal(x, zero), b.equal(x, most));
    let result = b.select(is_zero, least, result);
    let result = b.select(is_infinite, most, result);
    (result, result_low)
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

/// The sine, within 2 ulp for `|x|` up to 400,000; beyond, some number from -1 to 1.
pub fn sin(b: &mut Builder, x: Value) -> Value {
    let (quadrant, r) = quadrant_and_rest(b, x);
    let result = sine_or_cosine(b, quadrant, r);
    keep_zero(b, x, result)
}

/// The cosine, within 2 ulp for `|x|` up to 400,000; beyond, some number from -1 to 1.
pub fn cos(b: &mut Builder, x: Value) -> Value {
    let (quadrant, r) = quadrant_and_rest(b, x);
    let one = b.i32(1);
    let quadrant = b.add(quadrant, one);
    sine_or_cosine(b, quadrant, r)
}

/// The tangent, within 4 ulp for `|x|` up to 400,000; beyond, some number.
pub fn tan(b: &mut Builder, x: Value) -> Value {
    let (quadrant, r) = quadrant_and_rest(b, x);
    let (sine, cosine) = (sine_of_small(b, r), cosine_of_small(b, r));
    let odd = is_odd(b, quadrant);
    let minus_cosine = b.neg(cosine);
    let (numerator, denominator) = (b.select(odd, minus_cosine, sine), b.select(odd, sine, cosine));
    let result = b.div(numerator, denominator);
    keep_zero(b, x, result)
}

/// The sine in even quadrants, else the cosine; with the other sign in two of four.
fn sine_or_cosine(b: &mut Builder, quadrant: Value, r: Value) -> Value {
    let (sine, cosine) = (sine_of_small(b, r), cosine_of_small(b, r));
    let odd = is_odd(b, quadrant);
    let value = b.select(odd, cosine, sine);
    let two = b.i32(2);
    let second = b.and(quadrant, two);
    let sign = b.shift(Shift::Left, second, 30);
    let bits = b.unary(Unary::ToBits, value);
    let bits = b.binary(Binary::Xor, bits, sign);
    b.unary(Unary::FromBits, bits)
}

fn is_odd(b: &mut Builder, x: Value) -> Value {
    let one = b.i32(1);
    let bit = b.and(x, one);
    b.equal(bit, one)
}

/// On `|r| <= pi / 4` (Cephes, `sinf`).
fn sine_of_small(b: &mut Builder, r: Value) -> Value {
    let z = b.mul(r, r);
    let p = polynomial(b, z, &[-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let cube = b.mul(z, r);
    b.mul_add(cube, p, r)
}

/// On `|r| <= pi / 4` (Cephes, `cosf`).
fn cosine_of_small(b: &mut Builder, r: Value) -> Value {
    let z = b.mul(r, r);
    let p = polynomial(b, z, &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2, -0.5, 1.0]);
    // NaN for NaN and infinities, by way of `z`.
    p
}

/// `x = q pi / 2 + r`, `|r|` a little over `pi / 4` at most (Cody and Waite, with pi / 2 in three parts of
/// 24 bits, or in six of 13 where products are rounded).
fn quadrant_and_rest(b: &mut Builder, x: Value) -> (Value, Value) {
    let [per_quadrant, most] = [FRAC_2_PI, (1 << 18) as f32].map(|c| b.f32(c));
    let n = b.mul(x, per_quadrant);
    let least = b.neg(most);
    let n = b.min(most, n);
    let n = b.max(least, n);
    let n = round_small(b, n);
    let r = if b.machine().fuses {
        [1.570_796_4f32, -4.371_139e-8, -1.715_124_5e-15].into_iter().fold(x, |r, part| {
            let part = b.f32(-part);
            b.mul_add(n, part, r)
        })
    } else {
        // Products of 13 bits with 11 and with 10 are exact.
        let [down, up] = [1.0 / 1024.0, 1024.0].map(|c| b.f32(c));
        let high = b.mul(n, down);
        let high = round_small(b, high);
        let high = b.mul(high, up);
        let low = b.sub(n, high);
        let parts = [
            1.570_800_8f32,
            -4.454_516e-6,
            6.076_561_5e-11,
            5.390_653e-15,
            -3.503_54e-19,
            1.056_299_9e-23,
        ];
        let (mut r, mut lost) = (x, b.f32(0.0));
        for part in parts {
            let part = b.f32(-part);
            for n in [high, low] {
                let product = b.mul(n, part);
                let sum = b.add(r, product);
                // Exact where the sum is much smaller than its parts.
                let change = b.sub(sum, r);
                let error = b.sub(product, change);
                (r, lost) = (sum, b.add(lost, error));
            }
        }
        b.add(r, lost)
    };
    // What is beyond the range stays a sine.
    let [low, high] = [-1.0, 1.0].map(|c| b.f32(c));
    let inside = b.min(high, r);
    let inside = b.max(low, inside);
    // Of infinities NaN: their difference from themselves.
    let nothing = b.sub(x, x);
    (b.unary(Unary::ToI32, n), b.add(inside, nothing))
}

/// The hyperbolic tangent, within 2 ulp (Cephes, `tanhf`).
pub fn tanh(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let z = b.mul(magnitude, magnitude);
    let coefficients =
        [-5.704_988_7e-3, 2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];
    let p = polynomial(b, z, &coefficients);
    let cube = b.mul(z, magnitude);
    let near = b.mul_add(cube, p, magnitude);
    let [limit, one, minus_two] = [0.625, 1.0, -2.0].map(|c| b.f32(c));
    let twice = b.add(magnitude, magnitude);
    let e = exp(b, twice);
    let e = b.add(e, one);
    let ratio = b.div(minus_two, e);
    let far = b.add(one, ratio);
    let is_near = b.less(magnitude, limit);
    let result = b.select(is_near, near, far);
    b.copy_sign(result, x)
}

/// `1 / (1 + exp(-x))`, within 3 ulp.
pub fn sigmoid(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let minus = b.neg(magnitude);
    let e = exp(b, minus);
    let [zero, one] = [0.0, 1.0].map(|c| b.f32(c));
    let sum = b.add(one, e);
    let negative = b.less(x, zero);
    let numerator = b.select(negative, e, one);
    b.div(numerator, sum)
}

/// The error function, within 2 ulp (polynomials by N. Juffa).
pub fn erf(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    // From here on it is 1.
    let most = b.f32(4.0);
    let t = b.min(most, magnitude);
    let s = b.mul(t, t);
    let r = polynomial(b, t, &[-1.728_534_7e-5, 3.831_972e-4]);
    let u = polynomial(b, t, &[-3.883_964_4e-3, 2.425_462_2e-2]);
    let r = b.mul_add(r, s, u);
    let r = [-1.067_777_9e-1, -6.348_469e-1, -1.287_175_1e-1].into_iter().fold(r, |r, c| {
        let c = b.f32(c);
        b.mul_add(r, t, c)
    });
    let minus_t = b.neg(t);
    let r = b.mul_add(r, t, minus_t);
    let e = exp(b, r);
    let [one, limit] = [1.0, 0.921_875].map(|c| b.f32(c));
    let far = b.sub(one, e);
    let coefficients = [
        -5.967_617e-4,
        4.991_194_2e-3,
        -2.676_813_5e-2,
        1.128_199_2e-1,
        -3.761_253_4e-1,
        1.283_791_7e-1,
    ];
    let p = polynomial(b, s, &coefficients);
    let near = b.mul_add(p, t, t);
    let is_near = b.less(magnitude, limit);
    let result = b.select(is_near, near, far);
    b.copy_sign(result, x)
}

/// The hyperbolic sine, within 2 ulp.
pub fn sinh(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let z = b.mul(magnitude, magnitude);
    // Relative minimax fit on `|x| <= 1`, error 2.4e-8.
    let p = polynomial(b, z, &[2.037_317_8e-4, 8.330_272e-3, 1.666_671_6e-1]);
    let cube = b.mul(z, magnitude);
    let near = b.mul_add(cube, p, magnitude);
    let (half_e, rest) = half_exponentials(b, magnitude);
    let far = b.sub(half_e, rest);
    let one = b.f32(1.0);
    let is_near = b.less(magnitude, one);
    let result = b.select(is_near, near, far);
    b.copy_sign(result, x)
}

/// The hyperbolic cosine, within 2 ulp.
pub fn cosh(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let (half_e, rest) = half_exponentials(b, magnitude);
    b.add(half_e, rest)
}

/// Half of e to the power of `x`, and of `-x`; `x` is not negative.
fn half_exponentials(b: &mut Builder, x: Value) -> (Value, Value) {
    let (power, n) = exp_parts(b, x, 0.0, 90.0);
    let [one, quarter] = [1.0, 0.25].map(|c| b.f32(c));
    let n = b.sub(n, one);
    let half = scale(b, power, n);
    (half, b.div(quarter, half))
}

/// The arcsine, within 2 ulp; NaN outside of -1..=1.
pub fn asin(b: &mut Builder, x: Value) -> Value {
    let (far, arc) = arcsine_parts(b, x);
    let right_angle = b.f32(FRAC_PI_2);
    let twice = b.add(arc, arc);
    let complement = b.sub(right_angle, twice);
    let result = b.select(far, complement, arc);
    b.copy_sign(result, x)
}

/// The arccosine, within 2 ulp; NaN outside of -1..=1.
pub fn acos(b: &mut Builder, x: Value) -> Value {
    let (far, arc) = arcsine_parts(b, x);
    let zero = b.f32(0.0);
    let negative = b.less(x, zero);
    // Far from zero, twice the arc from the end; near to it, the complement.
    let twice = b.add(arc, arc);
    let straight = b.f32(std::f32::consts::PI);
    let from_other_end = b.sub(straight, twice);
    let far_result = b.select(negative, from_other_end, twice);
    let signed = b.copy_sign(arc, x);
    let [right_angle, right_angle_low] = [FRAC_PI_2, -4.371_139e-8].map(|c| b.f32(c));
    let rest = b.sub(signed, right_angle_low);
    let near_result = b.sub(right_angle, rest);
    b.select(far, far_result, near_result)
}

/// Whether `|x|` is over 1/2; the arcsine of `|x|`, or where it is, of `sqrt((1 - |x|) / 2)` (Cephes,
/// `asinf`).
fn arcsine_parts(b: &mut Builder, x: Value) -> (Value, Value) {
    let magnitude = b.abs(x);
    let half = b.f32(0.5);
    let far = b.less(half, magnitude);
    let minus_half = b.f32(-0.5);
    let rest = b.mul_add(magnitude, minus_half, half);
    let square = b.mul(magnitude, magnitude);
    let z = b.select(far, rest, square);
    let root = b.sqrt(rest);
    let s = b.select(far, root, magnitude);
    let coefficients =
        [4.216_32e-2, 2.418_131_1e-2, 4.547_002_6e-2, 7.495_300_3e-2, 1.666_675_2e-1];
    let p = polynomial(b, z, &coefficients);
    let cube = b.mul(z, s);
    (far, b.mul_add(cube, p, s))
}

/// The arctangent, within 2 ulp.
pub fn atan(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let one = b.f32(1.0);
    let far = b.less(one, magnitude);
    let inverse = b.div(one, magnitude);
    let t = b.select(far, inverse, magnitude);
    let z = b.mul(t, t);
    // Relative minimax fit on `t <= 1`, error 4.5e-9.
    let coefficients = [
        -1.788_906e-3,
        0.010_884_942,
        -0.031_111_995,
        0.057_886_783,
        -0.083_993_636,
        0.109_508_82,
        -0.142_640_16,
        0.199_985_3,
        -0.333_332_98,
    ];
    let p = polynomial(b, z, &coefficients);
    let cube = b.mul(z, t);
    let arc = b.mul_add(cube, p, t);
    let right_angle = b.f32(FRAC_PI_2);
    let complement = b.sub(right_angle, arc);
    let result = b.select(far, complement, arc);
    b.copy_sign(result, x)
}

/// The inverse of the hyperbolic sine, within 3 ulp.
pub fn asinh(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let [one, large, ln2] = [1.0, (1 << 13) as f32, LN_2].map(|c| b.f32(c));
    // log(|x| + sqrt(x^2 + 1)), without losing a small `x` beside 1.
    let small = b.min(large, magnitude);
    let square = b.mul(small, small);
    let sum = b.add(square, one);
    let root = b.sqrt(sum);
    let root = b.add(root, one);
    let ratio = b.div(square, root);
    let argument = b.add(small, ratio);
    // A large one is log(2 |x|).
    let is_large = b.less(large, magnitude);
    let less_one = b.sub(magnitude, one);
    let argument = b.select(is_large, less_one, argument);
    let result = log_1p(b, argument);
    let doubled = b.add(result, ln2);
    let result = b.select(is_large, doubled, result);
    b.copy_sign(result, x)
}

/// The inverse of the hyperbolic cosine, within 3 ulp; NaN below 1.
pub fn acosh(b: &mut Builder, x: Value) -> Value {
    let [one, large, ln2] = [1.0, (1 << 13) as f32, LN_2].map(|c| b.f32(c));
    let t = b.sub(x, one);
    let small = b.min(large, t);
    let two_t = b.add(small, small);
    let square = b.mul_add(small, small, two_t);
    let root = b.sqrt(square);
    let argument = b.add(small, root);
    let is_large = b.less(large, t);
    let argument = b.select(is_large, t, argument);
    let result = log_1p(b, argument);
    let doubled = b.add(result, ln2);
    let result = b.select(is_large, doubled, result);
    let (nan, valid) = (b.f32(f32::NAN), b.less_equal(one, x));
    b.select(valid, result, nan)
}

/// The inverse of the hyperbolic tangent, within 3 ulp; NaN outside of -1..=1.
pub fn atanh(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let [one, half] = [1.0, 0.5].map(|c| b.f32(c));
    let twice = b.add(magnitude, magnitude);
    let rest = b.sub(one, magnitude);
    let ratio = b.div(twice, rest);
    let result = log_1p(b, ratio);
    let result = b.mul(result, half);
    b.copy_sign(result, x)
}
