//! The error function.

use super::{constants, exp_of_small, number, polynomial};
use crate::kir::build::Builder;
use crate::kir::{Type, Unary, Value};
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

/// The error function, within 6e-7 (with tables of 16 places, 1.8e-7) and in half the time: for sums with 1, which
/// lose as much. Far from 0 it is 1 exactly: what is multiplied by such a sum may be large.
#[expect(clippy::approx_constant, reason = "a coefficient of a fit, which is near a constant")]
pub fn erf_for_sums(b: &mut Builder, x: Value) -> Value {
    if b.type_of(x) == Type::F64 {
        return erf(b, x);
    }
    if b.machine().tables as usize >= PIECES {
        return erf_in_pieces(b, x);
    }
    // A rational minimax fit, of Eigen and XLA; at its end it is 1, with fused multiply-add and without.
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
    super::ratio(b, x, 3.832, &above, &below).value(b)
}

/// The error function by a polynomial around the nearest multiple of 1/4.
fn erf_in_pieces(b: &mut Builder, x: Value) -> Value {
    // From the end of the last piece on it is 1. What lies before that is rounded to a place of the table, which
    // then stands in the lowest bits.
    let end = (PIECES as f32 - 0.5) / 4.0;
    let shifter = 1.5 * 2f64.powi(f32::MANTISSA_DIGITS as i32 - 1) / 4.0;
    let [most, shifter] = constants(b, x, [end.next_down().into(), shifter]);
    let magnitude = b.abs(x);
    let t = b.min(most, magnitude); // A NaN is the second operand and passes.
    let shifted = b.add(t, shifter);
    let nearest = b.sub(shifted, shifter);
    let rest = b.sub(t, nearest);
    let place = b.unary(Unary::ToBits, shifted);
    let sum = QUARTERS.iter().fold(None, |sum, coefficients| {
        let table = coefficients.map(|c| c.to_bits() as i32);
        let bits = b.lookup(table, place);
        let coefficient = b.unary(Unary::FromBits, bits);
        Some(match sum {
            Some(sum) => b.mul_add(sum, rest, coefficient),
            None => coefficient,
        })
    });
    // It has no sign: that of `x` is added.
    let [bits, sign] = [sum.unwrap_or(rest), x].map(|v| b.unary(Unary::ToBits, v));
    let bit = b.i32(i32::MIN);
    let sign = b.and(sign, bit);
    let bits = b.or(bits, sign);
    b.unary(Unary::FromBits, bits)
}

/// Places of a table.
const PIECES: usize = 16;

/// The error function around multiples `k / 4`: for each power of what is left, the highest first, the coefficients
/// of all `k`. Minimax fits of erf(k / 4 + d) for `|d| <= 1/8`, error 3.2e-8; the last one reaches 1.
#[rustfmt::skip]
#[expect(clippy::approx_constant, reason = "coefficients of fits, some near constants")]
const QUARTERS: [[f32; PIECES]; 6] = [
    [
        0.110_465_58, 0.079_549_92, 0.007_490_576_7, -0.052_669_525, -0.068_715_16, -0.047_067_16, -0.015_013_315, 0.006_435_666_2,
        0.012_984_943, 0.010_636_481, 0.006_134_125, 0.002_775_947_6, 0.001_028_762_5, 3.191_277_5e-4, 8.394_561e-5, 1.888_391_1e-5,
    ],
    [
        4.328_923e-4, 0.126_035_24, 0.181_911_29, 0.150_058_36, 0.069_289_88, -0.005_662_68, -0.044_146_966, -0.047_891_88,
        -0.034_433_78, -0.019_151_01, -0.008_687_847, -0.003_296_992_5, -0.001_061_752_1, -2.927_802_6e-4, -6.955_447e-5, -1.429_767_7e-5,
    ],
    [
        -0.376_155_94, -0.309_166_13, -0.146_465_32, 0.026_783_487, 0.138_364_85, 0.167_534_74, 0.138_753_37, 0.090_159_036,
        0.048_223_913, 0.021_724_751, 0.008_349_935, 0.002_760_202, 7.889_872_6e-4, 1.957_602e-4, 4.227_850_5e-5, 7.964_843_5e-6,
    ],
    [
        7.937_444e-7, -0.264_998, -0.439_384_46, -0.482_194_63, -0.415_108_1, -0.295_654_3, -0.178_398_07, -0.092_357_48,
        -0.041_334_037, -0.016_069_822, -0.005_445_327, -0.001_612_034_6, -4.176_573_7e-4, -9.482_787_6e-5, -1.888_720_5e-5, -2.520_430_8e-6,
    ],
    [
        1.128_379_1, 1.060_014_1, 0.878_782_6, 0.642_931_1, 0.415_107_52, 0.236_521_12, 0.118_930_29, 0.052_774_99,
        0.020_666_983, 0.007_142_318_4, 0.002_178_284_6, 5.862_777e-4, 1.392_533_3e-4, 2.918_914_8e-5, 5.399_468_6e-6, 1.077_008_2e-6,
    ],
    [
        0.0, 0.276_326_4, 0.520_499_9, 0.711_155_65, 0.842_700_8, 0.922_900_14, 0.966_105_16, 0.986_671_7,
        0.995_322_3, 0.998_537_3, 0.999_593, 0.999_899_4, 0.999_977_9, 0.999_995_7, 0.999_999_3, 0.999_999_9,
    ],
];

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
