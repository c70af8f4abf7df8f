//! Hyperbolic functions and their inverses.

use super::{Ratio, constants, exp_m1, exp_of_small, exp_parts, log_1p, number, polynomial, scale};
use crate::kir::build::Builder;
use crate::kir::{Type, Value};
use std::f64::consts::LN_2;

/// The hyperbolic tangent, within 2 ulp (Cephes, `tanhf`).
pub fn tanh(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    if b.type_of(x) == Type::F64 {
        let [two, most] = constants(b, x, [2.0, 80.0]);
        let twice = b.add(magnitude, magnitude);
        let twice = b.min(most, twice);
        let e = exp_m1(b, twice);
        let sum = b.add(e, two);
        let result = b.div(e, sum);
        return b.copy_sign(result, x);
    }
    let z = b.mul(magnitude, magnitude);
    let coefficients =
        [-5.704_988_7e-3, 2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];
    let p = polynomial(b, z, &coefficients);
    let cube = b.mul(z, magnitude);
    let near = b.mul_add(cube, p, magnitude);
    let [limit, one, minus_two] = constants(b, x, [0.625, 1.0, -2.0]);
    // From here on it is 1.
    let most = number(b, x, 10.0);
    let some = b.min(most, magnitude);
    let twice = b.add(some, some);
    let e = exp_of_small(b, twice);
    let e = b.add(e, one);
    let ratio = b.div(minus_two, e);
    let far = b.add(one, ratio);
    let is_near = b.less(magnitude, limit);
    let result = b.select(is_near, near, far);
    b.copy_sign(result, x)
}

/// The hyperbolic tangent, within 6 ulp and in half the time: for sums with 1, which lose more than
/// that. Far from 0 it is 1 exactly: what is multiplied by such a sum may be large. (A rational minimax fit, of Eigen.)
pub fn tanh_for_sums(b: &mut Builder, x: Value) -> Value {
    match b.type_of(x) {
        Type::F64 => tanh(b, x),
        _ => tanh_ratio(b, x).value(b),
    }
}

/// The same of an f32, of parts below 250. At its end it is 1, with fused multiply-add and without.
pub fn tanh_ratio(b: &mut Builder, x: Value) -> Ratio {
    let above = [
        -5.641_676_2e-14,
        4.087_417_2e-11,
        -1.758_378_9e-8,
        1.046_749_9e-5,
        3.036_098_3e-3,
        1.302_255_3e-1,
        9.999_998_7e-1,
    ];
    let below = [2.448_660_9e-4, 2.422_276_4e-2, 4.635_583_9e-1, 1.0];
    super::ratio(b, x, 8.394, &above, &below)
}

/// The hyperbolic sine, within 2 ulp.
pub fn sinh(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let near = match b.type_of(x) {
        Type::F64 => {
            let [one, half] = constants(b, x, [1.0, 0.5]);
            let e = exp_m1(b, magnitude);
            let sum = b.add(e, one);
            let ratio = b.div(e, sum);
            let sum = b.add(e, ratio);
            b.mul(sum, half)
        }
        _ => {
            // Relative minimax fit on `|x| <= 1`, error 2.4e-8.
            let z = b.mul(magnitude, magnitude);
            let p = polynomial(b, z, &[2.037_317_8e-4, 8.330_272e-3, 1.666_671_6e-1]);
            let cube = b.mul(z, magnitude);
            b.mul_add(cube, p, magnitude)
        }
    };
    let (half_e, rest) = half_exponentials(b, magnitude);
    let far = b.sub(half_e, rest);
    let one = number(b, x, 1.0);
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
    let (power, n) = exp_parts(b, x, 0.0, if b.type_of(x) == Type::F64 { 711.0 } else { 90.0 });
    let [one, quarter] = constants(b, x, [1.0, 0.25]);
    let n = b.sub(n, one);
    let half = scale(b, power, n);
    (half, b.div(quarter, half))
}

/// 1; what is so large that 1 is lost beside its square; ln 2.
fn large_constants(b: &mut Builder, like: Value) -> [Value; 3] {
    let digits = if b.type_of(like) == Type::F64 { 27 } else { 13 };
    constants(b, like, [1.0, 2f64.powi(digits), LN_2])
}

/// The inverse of the hyperbolic sine, within 3 ulp.
pub fn asinh(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let [one, large, ln2] = large_constants(b, x);
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
    let [one, large, ln2] = large_constants(b, x);
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
    let (nan, valid) = (number(b, x, f64::NAN), b.less_equal(one, x));
    b.select(valid, result, nan)
}

/// The inverse of the hyperbolic tangent, within 3 ulp; NaN outside of -1..=1.
pub fn atanh(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let [one, half] = constants(b, x, [1.0, 0.5]);
    let twice = b.add(magnitude, magnitude);
    let rest = b.sub(one, magnitude);
    let ratio = b.div(twice, rest);
    let result = log_1p(b, ratio);
    let result = b.mul(result, half);
    b.copy_sign(result, x)
}
