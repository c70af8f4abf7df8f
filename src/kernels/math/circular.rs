//! Sines, tangents and their inverses.

use super::{constants, integer_of, keep_zero, number, polynomial, round_small};
use crate::kir::build::Builder;
use crate::kir::{Binary, Shift, Type, Unary, Value};
use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, PI};

/// The sine, within 2 ulp for `|x|` up to 400,000; beyond, some number from -1 to 1.
pub fn sin(b: &mut Builder, x: Value) -> Value {
    let (quadrant, r) = quadrant_and_rest(b, x);
    let result = sine_or_cosine(b, quadrant, r);
    keep_zero(b, x, result)
}

/// The cosine, within 2 ulp for `|x|` up to 400,000; beyond, some number from -1 to 1.
pub fn cos(b: &mut Builder, x: Value) -> Value {
    let (quadrant, r) = quadrant_and_rest(b, x);
    let one = b.integer(b.type_of(quadrant), 1);
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
    let ty = b.type_of(quadrant);
    let two = b.integer(ty, 2);
    let second = b.and(quadrant, two);
    let sign = b.shift(Shift::Left, second, if ty == Type::I64 { 62 } else { 30 });
    let bits = b.unary(Unary::ToBits, value);
    let bits = b.binary(Binary::Xor, bits, sign);
    b.unary(Unary::FromBits, bits)
}

fn is_odd(b: &mut Builder, x: Value) -> Value {
    let one = b.integer(b.type_of(x), 1);
    let bit = b.and(x, one);
    b.equal(bit, one)
}

/// On `|r| <= pi / 4` (Cephes, `sinf`; or Taylor's series).
fn sine_of_small(b: &mut Builder, r: Value) -> Value {
    let z = b.mul(r, r);
    let p = match b.type_of(r) {
        Type::F64 => alternating_factorials(b, z, 3),
        _ => polynomial(b, z, &[-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]),
    };
    let cube = b.mul(z, r);
    b.mul_add(cube, p, r)
}

/// On `|r| <= pi / 4` (Cephes, `cosf`; or Taylor's series).
fn cosine_of_small(b: &mut Builder, r: Value) -> Value {
    let z = b.mul(r, r);
    if b.type_of(r) == Type::F64 {
        let p = alternating_factorials(b, z, 2);
        let one = number(b, r, 1.0);
        return b.mul_add(z, p, one);
    }
    polynomial(b, z, &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2, -0.5, 1.0])
}

/// `-1/first! + z/(first + 2)! - z^2/(first + 4)! + ...`
fn alternating_factorials(b: &mut Builder, z: Value, first: u32) -> Value {
    let term = |k: u32| {
        let factorial: f64 = (1..=first + 2 * k).map(f64::from).product();
        if k.is_multiple_of(2) { -1.0 / factorial } else { 1.0 / factorial }
    };
    let terms: Vec<_> = (0..9).rev().map(term).collect();
    polynomial(b, z, &terms)
}

/// `x = q pi / 2 + r`, `|r|` a little over `pi / 4` at most (Cody and Waite, with pi / 2 in parts so short
/// that products are exact: for `F32` three of 24 bits where they are not rounded, else six of 13).
fn quadrant_and_rest(b: &mut Builder, x: Value) -> (Value, Value) {
    let long = b.type_of(x) == Type::F64;
    let [per_quadrant, most] = constants(b, x, [FRAC_2_PI, 2f64.powi(if long { 20 } else { 18 })]);
    let n = b.mul(x, per_quadrant);
    let least = b.neg(most);
    let n = b.min(most, n);
    let n = b.max(least, n);
    let n = round_small(b, n);
    let r = if long {
        // 33 bits each.
        let parts =
            [1.570_796_326_734_125_6, 6.077_100_506_303_966e-11, 2.022_266_248_711_166_5e-21];
        without_multiples(b, x, &[n], &parts)
    } else if b.machine().fuses {
        [1.570_796_4, -4.371_139e-8, -1.715_124_5e-15].into_iter().fold(x, |r, part| {
            let part = number(b, x, -part);
            b.mul_add(n, part, r)
        })
    } else {
        // Of 11 bits and of 10.
        let [down, up] = constants(b, x, [1.0 / 1024.0, 1024.0]);
        let high = b.mul(n, down);
        let high = round_small(b, high);
        let high = b.mul(high, up);
        let low = b.sub(n, high);
        let parts = [
            1.570_800_8,
            -4.454_516e-6,
            6.076_561_5e-11,
            5.390_653e-15,
            -3.503_54e-19,
            1.056_299_9e-23,
        ];
        without_multiples(b, x, &[high, low], &parts)
    };
    // What is beyond the range stays a sine.
    let [low, high] = constants(b, x, [-1.0, 1.0]);
    let inside = b.min(high, r);
    let inside = b.max(low, inside);
    // Of infinities NaN: their difference from themselves.
    let nothing = b.sub(x, x);
    let to_integer = if integer_of(b, x) == Type::I64 { Unary::ToI64 } else { Unary::ToI32 };
    (b.unary(to_integer, n), b.add(inside, nothing))
}

/// `x` less all products of `multiples` and `parts`, which are exact.
fn without_multiples(b: &mut Builder, x: Value, multiples: &[Value], parts: &[f64]) -> Value {
    let (mut r, mut lost) = (x, number(b, x, 0.0));
    for part in parts {
        let part = number(b, x, -part);
        for &n in multiples {
            let product = b.mul(n, part);
            let sum = b.add(r, product);
            // Exact where the sum is much smaller than its parts.
            let change = b.sub(sum, r);
            let error = b.sub(product, change);
            (r, lost) = (sum, b.add(lost, error));
        }
    }
    b.add(r, lost)
}

/// The arcsine, within 2 ulp; NaN outside of -1..=1.
pub fn asin(b: &mut Builder, x: Value) -> Value {
    if b.type_of(x) == Type::F64 {
        // The other side of the triangle.
        let one = number(b, x, 1.0);
        let (more, less) = (b.add(one, x), b.sub(one, x));
        let square = b.mul(more, less);
        let side = b.sqrt(square);
        let tangent = b.div(x, side);
        return atan(b, tangent);
    }
    let (far, arc) = arcsine_parts(b, x);
    let right_angle = number(b, x, FRAC_PI_2);
    let twice = b.add(arc, arc);
    let complement = b.sub(right_angle, twice);
    let result = b.select(far, complement, arc);
    b.copy_sign(result, x)
}

/// The arccosine, within 2 ulp; NaN outside of -1..=1.
pub fn acos(b: &mut Builder, x: Value) -> Value {
    if b.type_of(x) == Type::F64 {
        // Twice the half angle.
        let one = number(b, x, 1.0);
        let (more, less) = (b.add(one, x), b.sub(one, x));
        let square = b.div(less, more);
        let tangent = b.sqrt(square);
        let half = atan(b, tangent);
        return b.add(half, half);
    }
    let (far, arc) = arcsine_parts(b, x);
    let zero = number(b, x, 0.0);
    let negative = b.less(x, zero);
    // Far from zero, twice the arc from the end; near to it, the complement.
    let twice = b.add(arc, arc);
    let straight = number(b, x, PI);
    let from_other_end = b.sub(straight, twice);
    let far_result = b.select(negative, from_other_end, twice);
    let signed = b.copy_sign(arc, x);
    let [right_angle, right_angle_low] = constants(b, x, [FRAC_PI_2, -4.371_139e-8]);
    let rest = b.sub(signed, right_angle_low);
    let near_result = b.sub(right_angle, rest);
    b.select(far, far_result, near_result)
}

/// Whether `|x|` is over 1/2; the arcsine of `|x|`, or where it is, of `sqrt((1 - |x|) / 2)` (Cephes,
/// `asinf`).
fn arcsine_parts(b: &mut Builder, x: Value) -> (Value, Value) {
    let magnitude = b.abs(x);
    let half = number(b, x, 0.5);
    let far = b.less(half, magnitude);
    let minus_half = number(b, x, -0.5);
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
    let one = number(b, x, 1.0);
    let far = b.less(one, magnitude);
    let inverse = b.div(one, magnitude);
    let t = b.select(far, inverse, magnitude);
    let arc = match b.type_of(x) {
        Type::F64 => arc_of_quarters(b, t),
        _ => arc_of_tangent(b, t),
    };
    let right_angle = number(b, x, FRAC_PI_2);
    let complement = b.sub(right_angle, arc);
    let result = b.select(far, complement, arc);
    b.copy_sign(result, x)
}

/// The arctangent of what is from 0 to 1 (relative minimax fit, error 4.5e-9).
fn arc_of_tangent(b: &mut Builder, t: Value) -> Value {
    let z = b.mul(t, t);
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
    b.mul_add(cube, p, t)
}

/// The same by the series, for a quarter of the angle.
fn arc_of_quarters(b: &mut Builder, t: Value) -> Value {
    let one = number(b, t, 1.0);
    // tan(a / 2) = tan a / (1 + sqrt(1 + tan^2 a))
    let t = (0..2).fold(t, |t, _| {
        let square = b.mul(t, t);
        let sum = b.add(one, square);
        let root = b.sqrt(sum);
        let sum = b.add(one, root);
        b.div(t, sum)
    });
    let z = b.mul(t, t);
    let term = |k: u32| (if k.is_multiple_of(2) { -1.0 } else { 1.0 }) / f64::from(2 * k + 3);
    let terms: Vec<_> = (0..13).rev().map(term).collect();
    let p = polynomial(b, z, &terms);
    let cube = b.mul(z, t);
    let quarter = b.mul_add(cube, p, t);
    let four = number(b, t, 4.0);
    b.mul(quarter, four)
}
