//! Quantization: floats as small integers with a scale and a zero point.
//!
//! Scales and zero points are one for all elements, one for each index of an axis, or (from version 21 on) one
//! for each block of an axis.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::expr::Ref;
use crate::mir::{self, Binary, Comparison, Expr, Reduction, Unary};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};

/// What elements are quantized to.
const QUANTIZED: [DType; 4] = [DType::U8, DType::I8, DType::U16, DType::I16];
/// What scales may be.
const SCALES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// The least and the largest number of an integer type of at most 16 bits.
fn bounds(dtype: DType) -> (f64, f64) {
    let bits = 8 * dtype.bytes() as i32;
    match dtype.is_signed() {
        true => (-2f64.powi(bits - 1), 2f64.powi(bits - 1) - 1.0),
        false => (0.0, 2f64.powi(bits) - 1.0),
    }
}

/// Along which axis scales and zero points differ, and of how many elements a block is (0: not in blocks).
#[derive(Clone, Debug, PartialEq)]
struct Granularity {
    axis: i64,
    block: usize,
}

impl Granularity {
    fn parse(attrs: &mut Attrs) -> Result<Granularity, ErrorKind> {
        let block = attrs.int_or("block_size", 0)?;
        let block = super::window::bounded("block_size", 0, &[block])?[0];
        Ok(Granularity { axis: attrs.int_or("axis", 1)?, block })
    }

    /// An error unless a scale or zero point of this type is for elements of X.
    fn check(&self, x: &Type, other: &Type, what: &str) -> Result<(), ErrorKind> {
        if tools::single(other, what).is_ok() {
            return Ok(());
        }
        let axis = tools::axis(self.axis, x.rank())?;
        let mut dims = vec![x.dims[axis]];
        if self.block > 0 {
            dims.clone_from(&x.dims);
            dims[axis] = x.dims[axis].div_ceil(self.block);
        }
        if other.dims != dims {
            let kind = ErrorKind::wrong(format!("{what} is {other}"));
            return Err(kind.help(format!("it must be a scalar or {}{dims:?}", other.dtype)));
        }
        Ok(())
    }

    /// Which element of a scale or zero point belongs to each element of X.
    fn places(&self, x: &[usize], other: &Type) -> Vec<usize> {
        let mut places = Vec::with_capacity(x.iter().product());
        let single = tools::single(other, "").is_ok();
        let axis = tools::axis(self.axis, x.len()).unwrap_or(0);
        let strides = other.strides();
        for_each_index(x, |index| {
            places.push(match self.block {
                _ if single => 0,
                0 => index[axis],
                block => (index.iter().zip(&strides).enumerate())
                    .map(|(a, (&i, &s))| if a == axis { i / block } else { i } * s as usize)
                    .sum(),
            });
        });
        places
    }

    /// A scale or zero point as a tensor that broadcasts to X.
    fn spread(&self, mir: &mut mir::Builder, x: &[usize], other: mir::Value) -> mir::Value {
        let ty = mir.ty(other).clone();
        if tools::single(&ty, "").is_ok() {
            return mir.reshape(other, []);
        }
        let axis = tools::axis(self.axis, x.len()).unwrap_or(0);
        if self.block == 0 {
            let mut dims = vec![1; x.len() - axis];
            dims[0] = x[axis];
            return mir.reshape(other, dims);
        }
        // A block that is longer than the axis is all of it.
        let block = self.block.min(x[axis]);
        let mut dims = ty.dims.clone();
        dims.insert(axis + 1, 1);
        let single = mir.reshape(other, dims.clone());
        dims[axis + 1] = block;
        let repeated = mir.broadcast(single, dims.clone());
        dims.remove(axis + 1);
        dims[axis] *= block;
        let whole = mir.reshape(repeated, dims);
        mir.narrow(whole, axis, 0, x[axis])
    }
}

/// `saturate(round(x / y_scale) + y_zero_point)`: to the nearest integer, ties to even, in `u8` or the zero
/// point's element type. The quotient has the scale's element type, or that of `precision`.
///
/// NaN gives any number. What is beyond the result's range gives its end.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizeLinear {
    granularity: Granularity,
    output: Option<DType>,
    precision: Option<DType>,
}

impl Op for QuantizeLinear {
    const NAME: &'static str = "QuantizeLinear";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        attrs.ignore("saturate"); // It is for floats of 8 bits.
        Ok(QuantizeLinear {
            granularity: Granularity::parse(attrs)?,
            output: chosen(attrs, "output_dtype")?,
            precision: chosen(attrs, "precision")?,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 3)?;
        let (x, scale) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(x, &[&SCALES[..], &[DType::I32]].concat(), &[])?;
        tools::dtype_in(scale, &SCALES, &[])?;
        self.granularity.check(x, scale, "the scale")?;
        if self.precision.is_some_and(|p| !SCALES.contains(&p)) {
            return Err(ErrorKind::wrong("attribute \"precision\" is no type of floats"));
        }
        let dtype = match inputs.get(2) {
            Some(zero) => {
                self.granularity.check(x, zero, "the zero point")?;
                if self.output.is_some_and(|output| output != zero.dtype) {
                    let kind = ErrorKind::wrong(format!("the zero point is {zero}"));
                    return Err(kind.help("attribute \"output_dtype\" names another type"));
                }
                zero.dtype
            }
            None => self.output.unwrap_or(DType::U8),
        };
        let ty = x.with_dtype(dtype);
        tools::dtype_in(&ty, &QUANTIZED, &[])?;
        Ok(vec![ty])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(scale), ..] = inputs else { return vec![] };
        let zero = inputs.get(2).copied().flatten();
        let places = self.granularity.places(x.dims(), scale.ty());
        let zeros = zero.map(|z| (self.granularity.places(x.dims(), z.ty()), z.f64s()));
        let divided = Type::scalar(self.precision.unwrap_or(scale.ty().dtype));
        let rounded = |v: f64| Tensor::from_f64s(divided.clone(), [v]).f64_at(0);
        let (low, high) = bounds(outputs[0].dtype);
        let scales = scale.f64s();
        let y = x.f64s().into_iter().enumerate().map(|(i, v)| {
            let zero = zeros.as_ref().map_or(0.0, |(places, z)| z[places[i]]);
            let quotient = rounded(rounded(v) / rounded(scales[places[i]]));
            (quotient.round_ties_even() + zero).clamp(low, high)
        });
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(x), Some(scale), ..] = *inputs else { return vec![] };
        let dims = mir.dims(x);
        let divided = self.precision.unwrap_or(mir.ty(scale).dtype);
        let mut operands = vec![x, self.granularity.spread(mir, &dims, scale)];
        let mut e = Expr::new();
        let operand = e.operand(0);
        let operand = converted(&mut e, mir.ty(x).dtype, divided, operand);
        let by = e.operand(1);
        let by = converted(&mut e, mir.ty(scale).dtype, divided, by);
        let quotient = e.binary(Binary::Div, operand, by);
        let zero = inputs.get(2).copied().flatten().map(|zero| {
            operands.push(self.granularity.spread(mir, &dims, zero));
            e.operand(2)
        });
        let result = quantized(&mut e, divided, quotient, zero, outputs[0].dtype);
        vec![mir.map(e.returning(result), &operands)]
    }
}

/// `(x - x_zero_point) * x_scale`, in the scale's element type or that of `output_dtype`. The difference is that
/// of the integers. Floats of 8 bits and less are `f16` here, which has all of their values.
#[derive(Clone, Debug, PartialEq)]
pub struct DequantizeLinear {
    granularity: Granularity,
    output: Option<DType>,
}

impl Op for DequantizeLinear {
    const NAME: &'static str = "DequantizeLinear";
    const TOLERANCE: Tolerance = Tolerance::Ulps(1);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let output = chosen(attrs, "output_dtype")?;
        Ok(DequantizeLinear { granularity: Granularity::parse(attrs)?, output })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 3)?;
        let (x, scale) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(x, &[&QUANTIZED[..], &[DType::I32, DType::F16]].concat(), &[])?;
        tools::dtype_in(scale, &SCALES, &[])?;
        self.granularity.check(x, scale, "the scale")?;
        if let Some(zero) = inputs.get(2) {
            self.granularity.check(x, zero, "the zero point")?;
            if zero.dtype != x.dtype {
                return Err(ErrorKind::wrong(format!("the zero point is {zero}, and X {x}")));
            }
        }
        let ty = x.with_dtype(self.output.unwrap_or(scale.dtype));
        tools::dtype_in(&ty, &SCALES, &[])?;
        Ok(vec![ty])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(scale), ..] = inputs else { return vec![] };
        let zero = inputs.get(2).copied().flatten();
        let places = self.granularity.places(x.dims(), scale.ty());
        let zeros = zero.map(|z| (self.granularity.places(x.dims(), z.ty()), z.f64s()));
        let scales = scale.f64s();
        let y = x.f64s().into_iter().enumerate().map(|(i, v)| {
            let zero = zeros.as_ref().map_or(0.0, |(places, z)| z[places[i]]);
            f64::from((v - zero) as f32) * scales[places[i]]
        });
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(x), Some(scale), ..] = *inputs else { return vec![] };
        let ty = mir.ty(x).clone();
        let mut operands = vec![x, self.granularity.spread(mir, &ty.dims, scale)];
        let mut e = Expr::new();
        let exact = if ty.dtype.is_float() { DType::F32 } else { DType::I32 };
        let x = e.operand(0);
        let mut whole = converted(&mut e, ty.dtype, exact, x);
        if let Some(zero) = inputs.get(2).copied().flatten() {
            operands.push(self.granularity.spread(mir, &ty.dims, zero));
            let zero = e.operand(2);
            let zero = converted(&mut e, ty.dtype, exact, zero);
            whole = e.binary(Binary::Sub, whole, zero);
        }
        let number = converted(&mut e, exact, DType::F32, whole);
        let factor = e.operand(1);
        let factor = converted(&mut e, mir.ty(scale).dtype, DType::F32, factor);
        let product = e.binary(Binary::Mul, number, factor);
        let result = converted(&mut e, DType::F32, outputs[0].dtype, product);
        vec![mir.map(e.returning(result), &operands)]
    }
}

/// Quantization to `u8` by the range of the elements: with `least = min(0, min(x))` and `most = max(0,
/// max(x))`, `y_scale = (most - least) / 255`, `y_zero_point = round(saturate(-least / y_scale))`, and
/// `y = saturate(round(x / y_scale) + y_zero_point)`, ties to even. Of zeros alone, the scale is 1. NaN and
/// infinities give any numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicQuantizeLinear;

impl Op for DynamicQuantizeLinear {
    const NAME: &'static str = "DynamicQuantizeLinear";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(DynamicQuantizeLinear)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &[DType::F32], &[])?;
        Ok(vec![x.with_dtype(DType::U8), Type::scalar(DType::F32), Type::scalar(DType::U8)])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0].map(Tensor::f32s) else { return vec![] };
        let least = x.iter().fold(0f32, |a, &b| a.min(b));
        let most = x.iter().fold(0f32, |a, &b| a.max(b));
        let scale = if most == least { 1.0 } else { (most - least) / 255.0 };
        let zero = (-least / scale).clamp(0.0, 255.0).round_ties_even();
        let quantized = |v: f32| f64::from(((v / scale).round_ties_even() + zero).clamp(0.0, 255.0));
        vec![
            Tensor::from_f64s(outputs[0].clone(), x.into_iter().map(quantized)),
            Tensor::from_f64s(outputs[1].clone(), [f64::from(scale)]),
            Tensor::from_f64s(outputs[2].clone(), [f64::from(zero)]),
        ]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        _: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(x)] = *inputs else { return vec![] };
        let axes: Vec<usize> = (0..mir.ty(x).rank()).collect();
        let [least, most] = [(Reduction::Min, Binary::Min), (Reduction::Max, Binary::Max)].map(
            |(reduction, binary)| {
                let all = mir.reduce(reduction, x, &axes);
                let all = mir.reshape(all, []);
                mir.binary_scalar(binary, all, 0.0)
            },
        );
        let mut e = Expr::new();
        let [least_of, most_of] = [0, 1].map(|n| e.operand(n));
        let range = e.binary(Binary::Sub, most_of, least_of);
        let (count, one) = (e.literal(DType::F32, 255.0), e.literal(DType::F32, 1.0));
        let scale = e.binary(Binary::Div, range, count);
        let same = e.compare(Comparison::Equal, most_of, least_of);
        let result = e.select(same, one, scale);
        let scale = mir.map(e.returning(result), &[least, most]);
        let mut e = Expr::new();
        let [least_of, by] = [0, 1].map(|n| e.operand(n));
        let above = e.unary(Unary::Neg, least_of);
        let quotient = e.binary(Binary::Div, above, by);
        let result = quantized(&mut e, DType::F32, quotient, None, DType::U8);
        let zero = mir.map(e.returning(result), &[least, scale]);
        let mut e = Expr::new();
        let [of, by, zero_of] = [0, 1, 2].map(|n| e.operand(n));
        let quotient = e.binary(Binary::Div, of, by);
        let result = quantized(&mut e, DType::F32, quotient, Some(zero_of), DType::U8);
        let y = mir.map(e.returning(result), &[x, scale, zero]);
        vec![y, scale, zero]
    }
}

/// The element type that an attribute names; 0 names none.
fn chosen(attrs: &mut Attrs, name: &'static str) -> Result<Option<DType>, ErrorKind> {
    match attrs.int_or(name, 0)? {
        0 => Ok(None),
        number => super::cast::element_type(number, name).map(Some),
    }
}

/// A conversion, where the types differ.
fn converted(e: &mut Expr, from: DType, to: DType, a: Ref) -> Ref {
    if from == to { a } else { e.cast(to, a) }
}

/// `saturate(round(a) + zero)` in MIR, for `a` of element type `of` and a zero point of the result's.
pub(super) fn quantized(e: &mut Expr, of: DType, a: Ref, zero: Option<Ref>, to: DType) -> Ref {
    let rounded = e.unary(Unary::Round, a);
    let mut sum = converted(e, of, DType::F32, rounded);
    if let Some(zero) = zero {
        let zero = e.cast(DType::F32, zero);
        sum = e.binary(Binary::Add, sum, zero);
    }
    let (low, high) = bounds(to);
    let (low, high) = (e.literal(DType::F32, low), e.literal(DType::F32, high));
    let above = e.binary(Binary::Max, sum, low);
    let inside = e.binary(Binary::Min, above, high);
    e.cast(to, inside)
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn ties_go_to_even_numbers() {
        let x = "f32[8]=0.5,1.5,2.5,-0.5,-1.5,200,-300,0";
        let y = definition("QuantizeLinear", &[x, "f32[]=1", "i8[]=1"]);
        assert_eq!(y[0].ints(), [1, 3, 3, 1, -1, 127, -128, 1]);
        let y = definition("QuantizeLinear", &["f32[2]=2,-2", "f32[]=0.5"]);
        assert_eq!(y[0].ints(), [4, 0]);
        let x = "u8[2,3]=0,128,255,1,2,3";
        let y = definition("DequantizeLinear", &[x, "f32[3]=1,2,0.5", "u8[3]=0,128,3"]);
        assert_eq!(y[0].f64s(), [0.0, 0.0, 126.0, 1.0, -252.0, 0.0]);
    }

    #[test]
    fn ranges_are_found() {
        let y = definition("DynamicQuantizeLinear", &["f32[3]=0,0,0"]);
        assert_eq!((y[1].f64_at(0), y[2].int_at(0)), (1.0, 0));
        let y = definition("DynamicQuantizeLinear", &["f32[3]=-1,0,254"]);
        assert_eq!((y[0].ints(), y[2].int_at(0)), (vec![0, 1, 255], 1));
    }

    #[test]
    fn misfits_are_refused() {
        refused("QuantizeLinear", &["f32[2,3]", "f32[2]"]);
        refused("QuantizeLinear axis=2", &["f32[2,3]", "f32[3]"]);
        refused("QuantizeLinear output_dtype=3", &["f32[2,3]", "f32[]", "u8[]"]);
        refused("QuantizeLinear block_size=2", &["f32[2,4]", "f32[2,4]"]);
        refused("DequantizeLinear", &["u8[2,3]", "f32[]", "i8[]"]);
        refused("DequantizeLinear", &["f32[2,3]", "f32[]"]);
        refused("DequantizeLinear", &["f16[2,3]", "f32[]", "i8[]"]);
        refused("DynamicQuantizeLinear", &["f64[2]"]);
    }
}
