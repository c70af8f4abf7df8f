//! Operations on elements that are held in registers, type by type.

use super::elementary;
use super::expr::{register, size};
use super::math::half;
use crate::kir::build::Builder;
use crate::kir::{self, Shift, Type, Value};
use crate::lir::{Binary, Comparison, Unary};
use crate::types::DType;

pub(super) fn is_not_zero(b: &mut Builder, value: Value) -> Value {
    let zero = zero_like(b, value);
    let zero = b.equal(value, zero);
    b.not(zero)
}

fn zero_like(b: &mut Builder, value: Value) -> Value {
    zero(b, b.type_of(value))
}

/// 0 in all lanes.
pub(super) fn zero(b: &mut Builder, ty: Type) -> Value {
    if ty.is_float() { b.float(ty, 0.0) } else { b.integer(ty, 0) }
}

/// `x * y` added to a sum, of which `None` is that of nothing: it begins with the product.
pub(super) fn add_product(b: &mut Builder, x: Value, y: Value, sum: Option<Value>) -> Value {
    match sum {
        Some(sum) if b.type_of(x).is_float() => b.mul_add(x, y, sum),
        Some(sum) => {
            let product = b.mul(x, y);
            b.add(product, sum)
        }
        None => b.mul(x, y),
    }
}

/// All values, of which there is one at least, as one: neighbours first.
pub(super) fn in_pairs(
    mut values: Vec<Value>,
    mut join: impl FnMut(Value, Value) -> Value,
) -> Value {
    while values.len() > 1 {
        let pairs = values.chunks(2);
        let join = |pair: &[Value]| match *pair {
            [x, y] => join(x, y),
            _ => pair[0],
        };
        values = pairs.map(join).collect();
    }
    values[0]
}

/// A mask as 0 and 1.
pub(super) fn as_number(b: &mut Builder, mask: Value) -> Value {
    let (one, zero) = (b.i32(1), b.i32(0));
    b.select(mask, one, zero)
}

/// What arithmetic leaves, as memory would have it: high bits of integers go, floats are rounded.
pub(super) fn wrap(b: &mut Builder, ty: DType, value: Value) -> Value {
    let extended = |b: &mut Builder, bits| {
        let high = b.shift(Shift::Left, value, bits);
        b.shift(Shift::RightSigned, high, bits)
    };
    let masked = |b: &mut Builder, mask: i64| {
        let mask = b.integer(b.type_of(value), mask);
        b.and(value, mask)
    };
    match ty {
        DType::I8 => extended(b, 24),
        DType::I16 => extended(b, 16),
        DType::U8 => masked(b, 0xff),
        DType::U16 => masked(b, 0xffff),
        DType::U32 => masked(b, 0xffff_ffff),
        DType::F16 => half::round_f16(b, value),
        DType::BF16 => half::round_bf16(b, value),
        DType::F32 | DType::F64 => value,
        DType::I32 | DType::I64 | DType::U64 | DType::Bool => value,
    }
}

pub(super) fn unary(b: &mut Builder, op: Unary, ty: DType, a: Value) -> Value {
    match op {
        Unary::Neg => {
            let value = b.neg(a);
            wrap(b, ty, value)
        }
        Unary::Abs if ty.is_float() || ty.is_signed() => {
            let value = b.abs(a);
            wrap(b, ty, value)
        }
        Unary::Abs => a,
        Unary::Sign => sign(b, ty, a),
        Unary::Not => {
            let value = b.not(a);
            wrap(b, ty, value)
        }
        op => {
            let value = elementary::unary(b, op, a);
            wrap(b, ty, value)
        }
    }
}

fn sign(b: &mut Builder, ty: DType, a: Value) -> Value {
    let of = b.type_of(a);
    let zero = zero_like(b, a);
    let number = |b: &mut Builder, n: i64| match of.is_float() {
        true => b.float(of, n as f64),
        false => b.integer(of, n),
    };
    let (one, minus_one) = (number(b, 1), number(b, -1));
    if !ty.is_float() && !ty.is_signed() {
        let none = b.equal(a, zero);
        return b.select(none, zero, one);
    }
    let (positive, negative) = (b.less(zero, a), b.less(a, zero));
    let value = b.select(negative, minus_one, a);
    b.select(positive, one, value)
}

pub(super) fn binary(b: &mut Builder, op: Binary, ty: DType, x: Value, y: Value) -> Value {
    let plain = |b: &mut Builder, op: kir::Binary| {
        let value = b.binary(op, x, y);
        wrap(b, ty, value)
    };
    match op {
        Binary::Add => plain(b, kir::Binary::Add),
        Binary::Sub => plain(b, kir::Binary::Sub),
        Binary::Mul => plain(b, kir::Binary::Mul),
        Binary::Div if ty == DType::U64 => divide_unsigned(b, x, y).0,
        Binary::Div => plain(b, kir::Binary::Div),
        Binary::Rem if ty.is_float() => {
            let value = elementary::remainder(b, x, y);
            wrap(b, ty, value)
        }
        Binary::Rem => {
            let value = match ty {
                DType::U64 => divide_unsigned(b, x, y).1,
                _ => b.binary(kir::Binary::Rem, x, y),
            };
            let zero = zero_like(b, y);
            let by_zero = b.equal(y, zero);
            b.select(by_zero, zero, value)
        }
        Binary::Pow => unreachable!("`Body::value` knows whether the exponent is a literal"),
        Binary::Min | Binary::Max if ty.is_float() => extremum_of_any(b, op, x, y),
        Binary::Min if ty == DType::Bool => b.and(x, y),
        Binary::Max if ty == DType::Bool => b.or(x, y),
        Binary::Min | Binary::Max if ty == DType::U64 => {
            let [signed_x, signed_y] = [x, y].map(|v| flip(b, v));
            let first = match op {
                Binary::Min => b.less(signed_x, signed_y),
                _ => b.less(signed_y, signed_x),
            };
            b.select(first, x, y)
        }
        Binary::Min | Binary::Max => extremum(b, op, x, y),
        Binary::And => b.and(x, y),
        Binary::Or => b.or(x, y),
        Binary::Xor => b.binary(kir::Binary::Xor, x, y),
        Binary::Shl | Binary::Shr => shift(b, op, ty, x, y),
    }
}

/// KIR's operation; of floats the second operand when either is a NaN.
pub(super) fn extremum(b: &mut Builder, op: Binary, x: Value, y: Value) -> Value {
    if op == Binary::Min { b.min(x, y) } else { b.max(x, y) }
}

/// Of floats, NaN when either is one.
pub(super) fn extremum_of_any(b: &mut Builder, op: Binary, x: Value, y: Value) -> Value {
    let value = extremum(b, op, x, y);
    let number = b.equal(x, x);
    b.select(number, value, x)
}

/// Turns the order of `u64` into that of `i64`.
pub(super) fn flip(b: &mut Builder, value: Value) -> Value {
    let bit = b.i64(i64::MIN);
    b.binary(kir::Binary::Xor, value, bit)
}

/// Quotient and remainder of `u64`; by 0, they are 0 and anything.
fn divide_unsigned(b: &mut Builder, x: Value, y: Value) -> (Value, Value) {
    // Half the dividend is not negative; twice the quotient of that is at most one too small.
    let half = b.shift(Shift::RightUnsigned, x, 1);
    let quotient = b.div(half, y);
    let quotient = b.shift(Shift::Left, quotient, 1);
    let product = b.mul(quotient, y);
    let rest = b.sub(x, product);
    let [signed_rest, signed_x, signed_y] = [rest, x, y].map(|v| flip(b, v));
    let (zero, one) = (b.i64(0), b.i64(1));
    let more = b.less_equal(signed_y, signed_rest);
    let more = b.select(more, one, zero);
    let small = b.add(quotient, more);
    // A divisor of 2^63 and more goes in once or not at all.
    let once = b.less_equal(signed_y, signed_x);
    let once = b.select(once, one, zero);
    let is_large = b.less(y, zero);
    let value = b.select(is_large, once, small);
    let by_zero = b.equal(y, zero);
    let value = b.select(by_zero, zero, value);
    let product = b.mul(value, y);
    (value, b.sub(x, product))
}

fn bits(ty: DType) -> i64 {
    size(ty) * 8
}

pub(super) fn shift_by_constant(
    b: &mut Builder,
    op: Binary,
    ty: DType,
    a: Value,
    by: i64,
) -> Value {
    let inside = (0..bits(ty)).contains(&by);
    match op {
        Binary::Shr if ty.is_signed() => {
            let by = if inside { by } else { bits(ty) - 1 };
            b.shift(Shift::RightSigned, a, by as u8)
        }
        _ if !inside => zero_like(b, a),
        Binary::Shr => b.shift(Shift::RightUnsigned, a, by as u8),
        _ => {
            let value = b.shift(Shift::Left, a, by as u8);
            wrap(b, ty, value)
        }
    }
}

/// With one lane.
pub(super) fn shift(b: &mut Builder, op: Binary, ty: DType, a: Value, by: Value) -> Value {
    let of = b.type_of(a);
    let [zero, last] = [0, bits(ty) - 1].map(|n| b.integer(of, n));
    let not_negative = b.less_equal(zero, by);
    let not_large = b.less_equal(by, last);
    let inside = b.and(not_negative, not_large);
    if op == Binary::Shr && ty.is_signed() {
        let by = b.select(inside, by, last);
        return b.shift_by(Shift::RightSigned, a, by);
    }
    let direction = if op == Binary::Shr { Shift::RightUnsigned } else { Shift::Left };
    let value = b.shift_by(direction, a, by);
    let value = wrap(b, ty, value);
    b.select(inside, value, zero)
}

pub(super) fn compare(b: &mut Builder, op: Comparison, ty: DType, x: Value, y: Value) -> Value {
    let [x, y] = match ty {
        DType::Bool => [x, y].map(|v| as_number(b, v)),
        DType::U64 => [x, y].map(|v| flip(b, v)),
        _ => [x, y],
    };
    match op {
        Comparison::Equal => b.equal(x, y),
        Comparison::NotEqual => {
            let equal = b.equal(x, y);
            b.not(equal)
        }
        Comparison::Less => b.less(x, y),
        Comparison::LessEqual => b.less_equal(x, y),
        Comparison::Greater => b.less(y, x),
        Comparison::GreaterEqual => b.less_equal(y, x),
    }
}

pub(super) fn select(b: &mut Builder, mask: Value, x: Value, y: Value) -> Value {
    if b.type_of(x) != Type::Mask {
        return b.select(mask, x, y);
    }
    let other = b.not(mask);
    let (x, y) = (b.and(mask, x), b.and(other, y));
    b.or(x, y)
}

pub(super) fn cast(b: &mut Builder, from: DType, to: DType, a: Value) -> Value {
    if from == to {
        return a;
    }
    if to == DType::Bool {
        return is_not_zero(b, a);
    }
    let a = if from == DType::Bool { as_number(b, a) } else { a };
    let of = b.type_of(a);
    match to {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            let op = if to == DType::F64 { kir::Unary::ToF64 } else { kir::Unary::ToF32 };
            let value = match from {
                DType::U64 => unsigned_to_float(b, op, a),
                _ if of == register(to) => a,
                _ => b.unary(op, a),
            };
            wrap(b, to, value)
        }
        DType::U64 if from.is_float() => float_to_unsigned(b, a),
        DType::I64 | DType::U64 | DType::U32 => {
            let wide = if of == Type::I64 { a } else { b.unary(kir::Unary::ToI64, a) };
            wrap(b, to, wide)
        }
        _ => {
            let narrow = if of == Type::I32 { a } else { b.unary(kir::Unary::ToI32, a) };
            wrap(b, to, narrow)
        }
    }
}

fn unsigned_to_float(b: &mut Builder, op: kir::Unary, a: Value) -> Value {
    let (zero, one) = (b.i64(0), b.i64(1));
    let is_large = b.less(a, zero);
    // Half of it, rounded to odd so that what follows rounds once.
    let (half, low) = (b.shift(Shift::RightUnsigned, a, 1), b.and(a, one));
    let half = b.or(half, low);
    let [value, half] = [a, half].map(|v| b.unary(op, v));
    let double = b.add(half, half);
    b.select(is_large, double, value)
}

fn float_to_unsigned(b: &mut Builder, a: Value) -> Value {
    let limit = b.float(b.type_of(a), (1u64 << 63) as f64);
    let rest = b.sub(a, limit);
    let [value, rest] = [a, rest].map(|v| b.unary(kir::Unary::ToI64, v));
    let rest = flip(b, rest);
    let is_large = b.less_equal(limit, a);
    b.select(is_large, rest, value)
}
