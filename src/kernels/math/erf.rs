//! The error function.

use super::{constants, exp_of_small, number, polynomial};
use crate::kir::build::Builder;
use crate::kir::{Type, Value};
use std::f64::consts::FRAC_2_SQRT_PI;

/// The error function, within 2 ulp (polynomials by N. Juffa).
pub fn erf(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    if b.type_of(x) == Type::F64 {
        let result = long_erf(b, magnitude);
        return b.copy_sign(result, x);
    }
    // From here on it is 1.
    let most = number(b, x, 4.0);
    let t = b.min(most, magnitude);
    let s = b.mul(t, t);
    let r = polynomial(b, t, &[-1.728_534_7e-5, 3.831_972e-4]);
    let u = polynomial(b, t, &[-3.883_964_4e-3, 2.425_462_2e-2]);
    let r = b.mul_add(r, s, u);
    let r = [-1.067_777_9e-1, -6.348_469e-1, -1.287_175_1e-1].into_iter().fold(r, |r, c| {
        let c = number(b, x, c);
        b.mul_add(r, t, c)
    });
    let minus_t = b.neg(t);
    let r = b.mul_add(r, t, minus_t);
    let e = exp_of_small(b, r);
    let [one, limit] = constants(b, x, [1.0, 0.921_875]);
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

/// The error function, within 6 ulp and in half the time: for sums with 1, which lose more than that.
/// (A rational minimax fit, of Eigen and XLA.)
#[expect(clippy::approx_constant, reason = "a coefficient of a fit, which is near a constant")]
pub fn erf_for_sums(b: &mut Builder, x: Value) -> Value {
    if b.type_of(x) == Type::F64 {
        return erf(b, x);
    }
    let above = [2.290_506_6e-4, 3.408_291e-3, 5.095_569_5e-2, 1.852_083_2e-1, 1.128_379_1];
    let below = [
        -1.179_160_3e-7,
        2.354_796_6e-5,
        1.017_962_5e-3,
        1.407_047e-2,
        1.109_850_5e-1,
        4.974_692_5e-1,
        1.0,
    ];
    super::ratio(b, x, 3.743_921, &above, &below).value(b)
}

/// For `x >= 0`: below 3 by a series of positive terms, `2 / sqrt(pi) x exp(-x^2) sum (2 x^2)^n / (2n + 1)!!`,
/// above by a continued fraction of the complement.
fn long_erf(b: &mut Builder, x: Value) -> Value {
    let [limit, most, one] = constants(b, x, [3.0, 7.0, 1.0]);
    let [per_root, two_per_root] = constants(b, x, [0.5 * FRAC_2_SQRT_PI, FRAC_2_SQRT_PI]);
    let x = b.min(most, x);
    let square = b.mul(x, x);
    let minus = b.neg(square);
    let e = exp_of_small(b, minus);
    let mut term = 1.0;
    let terms = (0..60).map(|n| {
        let this = term;
        term *= 2.0 / f64::from(2 * n + 3);
        this
    });
    let mut terms: Vec<_> = terms.collect();
    terms.reverse();
    let sum = polynomial(b, square, &terms);
    let product = b.mul(sum, x);
    let product = b.mul(product, two_per_root);
    let near = b.mul(product, e);
    let fraction = (1..60).rev().fold(x, |fraction, n| {
        let half = number(b, x, f64::from(n) / 2.0);
        let ratio = b.div(half, fraction);
        b.add(x, ratio)
    });
    let complement = b.div(e, fraction);
    let complement = b.mul(complement, per_root);
    let far = b.sub(one, complement);
    let is_near = b.less(x, limit);
    b.select(is_near, near, far)
}
