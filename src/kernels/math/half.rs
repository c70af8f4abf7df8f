//! Floats of two bytes, as the low bits of `I32` (which is what `Memory::U16` loads and stores). All
//! conversions are exact or round to nearest, ties to even; NaN gives a quiet NaN.

use crate::kir::build::Builder;
use crate::kir::{Shift, Unary, Value};

/// `F32` of a bfloat16.
pub fn of_bf16(b: &mut Builder, bits: Value) -> Value {
    let bits = b.shift(Shift::Left, bits, 16);
    b.unary(Unary::FromBits, bits)
}

/// A bfloat16 of `F32`.
pub fn to_bf16(b: &mut Builder, x: Value) -> Value {
    let bits = b.unary(Unary::ToBits, x);
    let bits = rounded(b, bits, 16);
    let (quiet, low) = (b.i32(0x7fc0), b.i32(0xffff));
    let bits = b.and(bits, low);
    let number = b.equal(x, x);
    b.select(number, bits, quiet)
}

/// `F32` of a binary16.
pub fn of_f16(b: &mut Builder, bits: Value) -> Value {
    let [magnitude, sign, infinity, exponent] =
        [0x7fff, 0x8000, 0x7c00, 0x7f80_0000].map(|c| b.i32(c));
    let (magnitude, sign) = (b.and(bits, magnitude), b.and(bits, sign));
    // The exponent is 112 too small, for what is denormal too.
    let shifted = b.shift(Shift::Left, magnitude, 13);
    let small = b.unary(Unary::FromBits, shifted);
    let power = b.f32(2f32.powi(112));
    let value = b.mul(small, power);
    let value = b.unary(Unary::ToBits, value);
    let special = b.or(shifted, exponent);
    let is_special = b.less_equal(infinity, magnitude);
    let value = b.select(is_special, special, value);
    let sign = b.shift(Shift::Left, sign, 16);
    let value = b.or(value, sign);
    b.unary(Unary::FromBits, value)
}

/// A binary16 of `F32`.
pub fn to_f16(b: &mut Builder, x: Value) -> Value {
    let magnitude = b.abs(x);
    let bits = b.unary(Unary::ToBits, magnitude);
    // Normal numbers: 112 off the exponent.
    let normal = rounded(b, bits, 13);
    let bias = b.i32(112 << 10);
    let normal = b.sub(normal, bias);
    // Denormal ones are rounded where one half has its last bit, 2^-24.
    let half = b.f32(0.5);
    let sum = b.add(magnitude, half);
    let (sum, half) = (b.unary(Unary::ToBits, sum), b.unary(Unary::ToBits, half));
    let denormal = b.sub(sum, half);
    let [least, most] = [2f32.powi(-14), 65520.0].map(|c| b.f32(c));
    let is_denormal = b.less(magnitude, least);
    let result = b.select(is_denormal, denormal, normal);
    let [infinity, quiet] = [0x7c00, 0x7e00].map(|c| b.i32(c));
    let is_large = b.less_equal(most, magnitude);
    let result = b.select(is_large, infinity, result);
    let number = b.equal(x, x);
    let result = b.select(number, result, quiet);
    let bits = b.unary(Unary::ToBits, x);
    let sign = b.shift(Shift::RightUnsigned, bits, 31);
    let sign = b.shift(Shift::Left, sign, 15);
    b.or(result, sign)
}

/// `F32` rounded to a binary16.
pub fn round_f16(b: &mut Builder, x: Value) -> Value {
    if b.machine().half_floats {
        return b.unary(Unary::RoundF16, x);
    }
    let bits = to_f16(b, x);
    of_f16(b, bits)
}

/// `F32` rounded to a bfloat16.
pub fn round_bf16(b: &mut Builder, x: Value) -> Value {
    let bits = to_bf16(b, x);
    of_bf16(b, bits)
}

/// Without the low `digits` bits, the rest rounded to nearest, ties to even.
fn rounded(b: &mut Builder, bits: Value, digits: u8) -> Value {
    let last = b.shift(Shift::RightUnsigned, bits, digits);
    let one = b.i32(1);
    let last = b.and(last, one);
    let almost_half = b.i32((1 << (digits - 1)) - 1);
    let more = b.add(last, almost_half);
    let sum = b.add(bits, more);
    b.shift(Shift::RightUnsigned, sum, digits)
}
