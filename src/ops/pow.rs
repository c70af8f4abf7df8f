//! Powers.

use super::formula::Formula;
use super::tools::{self, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir;
use crate::mir::expr::Ref;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// x to the power of y, with broadcasting, of x's element type.
///
/// - Float x: y is converted to x's type, then as C's `pow` (of 0 and 0, 1; negative x with y that is no
///   integer, NaN).
/// - Integer x and y: the product, which wraps; for negative y 0, but for x = 1 and -1. Any y above 127,
///   where only powers of 0, 1 and -1 fit, is as 126 or 127.
/// - Integer x and float y: the power of floats, truncated. (Within the tolerance it may be computed as
///   an integer where it is nearly one.)
#[derive(Clone, Debug, PartialEq)]
pub struct Pow;

/// What x may be.
const BASES: [DType; 6] = [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I32, DType::I64];

impl Op for Pow {
    const NAME: &'static str = "Pow";
    const TOLERANCE: Tolerance = Tolerance::Relative(2e-6);

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Pow)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (x, y) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(x, &BASES, &BASES)?;
        tools::dtype_in(y, &NUMBERS, &NUMBERS)?;
        Ok(vec![tools::sized(x.dtype, tools::broadcast_dims(&x.dims, &y.dims)?)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(y)] = inputs else { return vec![] };
        let ty = &outputs[0];
        let (x, y) = (tools::broadcast_to(x, &ty.dims), tools::broadcast_to(y, &ty.dims));
        if ty.dtype.is_float() || y.ty().dtype.is_float() {
            let exponent = if ty.dtype.is_float() { ty.dtype } else { y.ty().dtype };
            let y = Tensor::from_f64s(y.ty().with_dtype(exponent), y.f64s());
            let powers = x.f64s().into_iter().zip(y.f64s()).map(|(x, y)| x.powf(y));
            return vec![Tensor::from_f64s(ty.clone(), powers)];
        }
        let power = |(x, y): (i128, i128)| match (x, u64::try_from(y)) {
            (_, Ok(y)) => wrapping_power(x as i64, if y > 127 { 126 + y % 2 } else { y }),
            (1, Err(_)) => 1,
            (-1, Err(_)) => if y % 2 == 0 { 1 } else { -1 },
            (_, Err(_)) => 0,
        };
        let pairs = tools::integers(&x).into_iter().zip(tools::integers(&y));
        vec![Tensor::from_ints(ty.clone(), pairs.map(power))]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x), Some(y)] = inputs else { return vec![] };
        let (base, exponent) = (mir.ty(x).dtype, mir.ty(y).dtype);
        let known = mir.constant_of(y).filter(|y| y.splat().is_some()).map(|y| y.f64_at(0));
        let mut f = Formula::new(base);
        let operand = f.operand(0);
        if let Some(result) = known.and_then(|y| by_known(&mut f, operand, y)) {
            let power = mir.map(f.finish(result), &[x]);
            return vec![mir.broadcast(power, outputs[0].dims.clone())];
        }
        let power = match (base.is_float(), exponent.is_float()) {
            (true, _) => {
                let y = mir.cast(y, base);
                mir.binary(mir::Binary::Pow, x, y)
            }
            (false, true) => {
                let wide = if exponent == DType::F64 { DType::F64 } else { DType::F32 };
                let (x, y) = (mir.cast(x, wide), mir.cast(y, wide));
                let mut f = Formula::new(wide);
                let (x_ref, y_ref) = (f.operand(0), f.operand(1));
                let power = f.pow(x_ref, y_ref);
                let snapped = snap(&mut f, power);
                let result = f.cast(base, snapped);
                mir.map(f.finish(result), &[x, y])
            }
            (false, false) => {
                let y = mir.cast(y, DType::I64);
                let mut f = Formula::new(base);
                let (x_ref, y_ref) = (f.operand(0), f.operand(1));
                let result = by_squaring(&mut f, x_ref, y_ref);
                mir.map(f.finish(result), &[x, y])
            }
        };
        vec![power]
    }
}

/// The power modulo 2^64.
fn wrapping_power(mut base: i64, mut exponent: u64) -> i64 {
    let mut power = 1i64;
    while exponent > 0 {
        if exponent % 2 == 1 {
            power = power.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent /= 2;
    }
    power
}

/// The power for an exponent for which there is something cheaper than the general function.
fn by_known(f: &mut Formula, x: Ref, y: f64) -> Option<Ref> {
    let float = f.dtype().is_float();
    if y == 1.0 {
        return Some(x);
    }
    if y == 2.0 {
        return Some(f.mul(x, x));
    }
    if y == 3.0 {
        let square = f.mul(x, x);
        return Some(f.mul(square, x));
    }
    if y == 4.0 {
        let square = f.mul(x, x);
        return Some(f.mul(square, square));
    }
    if float && (y == -1.0 || y == -2.0) {
        let (one, square) = (f.lit(1.0), f.mul(x, x));
        return Some(f.div(one, if y == -1.0 { x } else { square }));
    }
    if float && (y == 0.5 || y == -0.5) {
        // pow(-0, 1/2) is 0 and pow(-inf, 1/2) is inf, where the root would be -0 and NaN.
        let (low, high) = (f.lit(f64::NEG_INFINITY), f.lit(f64::INFINITY));
        let (zero, root) = (f.lit(0.0), f.sqrt(x));
        let (root, infinite) = (f.add(root, zero), f.equal(x, low));
        let power = f.select(infinite, high, root);
        let one = f.lit(1.0);
        return Some(if y == 0.5 { power } else { f.div(one, power) });
    }
    None
}

/// The nearest integer where that is within the tolerance, else the value.
fn snap(f: &mut Formula, value: Ref) -> Ref {
    let nearest = f.round(value);
    let difference = f.sub(value, nearest);
    let (error, magnitude) = (f.abs(difference), f.abs(nearest));
    let bound = f.scale(magnitude, 1e-6);
    let near = f.less_equal(error, bound);
    f.select(near, nearest, value)
}

/// Integer power by repeated squaring; `y` is i64, `x` and the formula of any integer type.
fn by_squaring(f: &mut Formula, x: Ref, y: Ref) -> Ref {
    let base = f.dtype();
    f.set_dtype(DType::I64);
    let (zero, one, most) = (f.lit(0.0), f.lit(1.0), f.lit(126.0));
    let parity = f.and(y, one);
    let reduced = f.or(most, parity);
    let (limit, magnitude) = (f.lit(127.0), f.abs(y));
    let large = f.greater(magnitude, limit);
    let exponent = f.select(large, reduced, magnitude);
    let bits: Vec<Ref> = (0..7)
        .map(|bit| {
            let mask = f.lit(f64::from(1 << bit));
            let masked = f.and(exponent, mask);
            f.not_equal(masked, zero)
        })
        .collect();
    let negative = f.less(y, zero);
    f.set_dtype(base);
    let mut power = f.lit(1.0);
    let mut square = x;
    for bit in bits {
        let product = f.mul(power, square);
        power = f.select(bit, product, power);
        square = f.mul(square, square);
    }
    // 1 / x: of 1 and -1 the same as x, else nothing is left.
    let (zero, one, magnitude) = (f.lit(0.0), f.lit(1.0), f.abs(x));
    let unit = f.equal(magnitude, one);
    let inverse = f.select(unit, power, zero);
    f.select(negative, inverse, power)
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::infer;
    use crate::types::DType::*;

    #[test]
    fn types() {
        let operands: &[(_, &[usize])] = &[(F32, &[2, 1]), (I64, &[3])];
        assert_eq!(infer("Pow", operands).expect("fits")[0].to_string(), "f32[2, 3]");
        assert!(infer("Pow", &[(I8, &[2]), (I8, &[2])]).is_err());
        assert!(infer("Pow", &[(F32, &[2]), (Bool, &[2])]).is_err());
    }
}
