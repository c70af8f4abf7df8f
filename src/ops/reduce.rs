//! Reductions over axes. Each row of the table is an operator: from which operator set on the axes are an
//! operand, its element types (those that are done, those of the specification), its definition on 64-bit
//! floats and on integers (the value of nothing, how an element is added to it, what is done at the end,
//! given also the number of elements and the type), and its expansion (what is done to each element, how
//! they are reduced, what is done to the result).
//!
//! Without axes all are reduced, or with `noop_with_empty_axes` none: then only what is done to each
//! element and at the end remains. Without `keepdims` the axes go, else they stay with extent 1.

use super::formula::Formula;
use super::tools::{self, FLOATS, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::expr::Ref;
use crate::mir::{self, Reduction};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};
use std::cmp::Ordering;

/// The attributes of all reductions.
#[derive(Clone, Debug, PartialEq)]
struct Axes {
    attribute: Option<Vec<i64>>,
    is_operand: bool,
    keep: bool,
    none_is_none: bool,
}

impl Axes {
    fn parse(attrs: &mut Attrs, operand_since: i64) -> Result<Axes, ErrorKind> {
        let is_operand = attrs.opset() >= operand_since;
        Ok(Axes {
            attribute: if is_operand { None } else { attrs.ints("axes")? },
            is_operand,
            keep: attrs.flag("keepdims", true)?,
            none_is_none: is_operand && attrs.flag("noop_with_empty_axes", false)?,
        })
    }

    /// The axes that are reduced, in order.
    fn find(&self, rank: usize, operand: Option<&Tensor>) -> Result<Vec<usize>, ErrorKind> {
        let list = match operand {
            Some(axes) => tools::int_list(axes, "the list of axes")?,
            None => self.attribute.clone().unwrap_or_default(),
        };
        if list.is_empty() && !self.none_is_none {
            return Ok((0..rank).collect());
        }
        let mut axes = tools::axes(&list, rank)?;
        axes.sort_unstable();
        Ok(axes)
    }

    fn infer(&self, inputs: &Operands<'_>, done: &[DType], specified: &[DType]) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, if self.is_operand { 2 } else { 1 })?;
        let ty = inputs.ty(0)?;
        tools::dtype_in(ty, done, specified)?;
        let axes = self.find(ty.rank(), inputs.known(1, "the list of axes")?)?;
        let extent = |axis: usize| match (axes.contains(&axis), self.keep) {
            (false, _) => Some(ty.dims[axis]),
            (true, keep) => keep.then_some(1),
        };
        Ok(vec![ty.with_dims((0..ty.rank()).filter_map(extent).collect::<Vec<_>>())])
    }

    /// For every element of `x` calls `visit` with its index and that of the result that it belongs to;
    /// gives the number of elements of one result.
    fn each(&self, inputs: &[Option<&Tensor>], mut visit: impl FnMut(usize, usize)) -> usize {
        let Some(x) = inputs[0] else { return 0 };
        let dims = x.dims();
        let axes = self.find(dims.len(), inputs.get(1).copied().flatten()).unwrap_or_default();
        let kept: Vec<_> =
            dims.iter().enumerate().map(|(axis, &d)| if axes.contains(&axis) { 1 } else { d }).collect();
        let mut next = 0;
        for_each_index(dims, |index| {
            visit(next, tools::broadcast_index(index, &kept));
            next += 1;
        });
        axes.iter().map(|&axis| dims[axis]).product()
    }

    /// The axes, in MIR.
    fn expanded(&self, mir: &mir::Builder, inputs: &[Option<mir::Value>]) -> Vec<usize> {
        let rank = inputs[0].map_or(0, |x| mir.ty(x).rank());
        let operand = inputs.get(1).copied().flatten().and_then(|v| mir.constant_of(v));
        self.find(rank, operand).unwrap_or_default()
    }
}

/// The least or the greatest number of an integer type.
fn bound(dtype: DType, greatest: bool) -> i128 {
    let bits = 8 * dtype.bytes() as u32;
    match (dtype == DType::Bool, dtype.is_signed(), greatest) {
        (true, _, _) => i128::from(greatest),
        (_, false, false) => 0,
        (_, false, true) => (1 << bits) - 1,
        (_, true, false) => -(1 << (bits - 1)),
        (_, true, true) => (1 << (bits - 1)) - 1,
    }
}

/// The number that an integer type has in place of this one.
fn wrapped(value: i128, dtype: DType) -> i128 {
    tools::integers(&tools::from_integers(&Type::scalar(dtype), [value]))[0]
}

macro_rules! reduce {
    ($($(#[$doc:meta])* $Name:ident since $since:literal $done:expr, $specified:expr,
        float $float:expr, $add_float:expr, $end_float:expr;
        int $int:expr, $add_int:expr, $end_int:expr;
        expand $element:expr, $op:expr, $end:expr;
    )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name(Axes);

        impl Op for $Name {
            const NAME: &'static str = stringify!($Name);
            const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

            fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
                Ok($Name(Axes::parse(attrs, $since)?))
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                self.0.infer(inputs, &$done, &$specified)
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                let Some(x) = inputs[0] else { return vec![] };
                let (ty, results) = (&outputs[0], outputs[0].elements());
                if ty.dtype.is_float() {
                    let add: fn(f64, f64) -> f64 = $add_float;
                    let end: fn(f64, usize) -> f64 = $end_float;
                    let (values, mut sums) = (x.f64s(), vec![$float; results]);
                    let count = self.0.each(inputs, |from, to| sums[to] = add(sums[to], values[from]));
                    return vec![Tensor::from_f64s(ty.clone(), sums.into_iter().map(|sum| end(sum, count)))];
                }
                let of_nothing: fn(DType) -> i128 = $int;
                let add: fn(i128, i128) -> i128 = $add_int;
                let end: fn(i128, usize, DType) -> i128 = $end_int;
                let (values, mut sums) = (tools::integers(x), vec![of_nothing(ty.dtype); results]);
                let count = self.0.each(inputs, |from, to| sums[to] = add(sums[to], values[from]));
                vec![tools::from_integers(ty, sums.into_iter().map(|sum| end(sum, count, ty.dtype)))]
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
                let (element, end): (fn(&mut Formula, Ref) -> Ref, fn(&mut Formula, Ref, usize) -> Ref) =
                    ($element, $end);
                let Some(x) = inputs[0] else { return vec![] };
                let axes = self.0.expanded(mir, inputs);
                let count = axes.iter().map(|&axis| mir.ty(x).dims[axis]).product();
                let x = apply(mir, x, element);
                let reduced = mir.reduce($op, x, &axes);
                let result = apply(mir, reduced, |f, x| end(f, x, count));
                vec![mir.reshape(result, outputs[0].dims.clone())]
            }
        }
    )*};
}

/// One expression over one operand; nothing where it is the operand itself.
fn apply(mir: &mut mir::Builder, x: mir::Value, build: impl FnOnce(&mut Formula, Ref) -> Ref) -> mir::Value {
    let mut f = Formula::new(mir.ty(x).dtype);
    let operand = f.operand(0);
    let result = build(&mut f, operand);
    if result == operand { x } else { mir.map(f.finish(result), &[x]) }
}

/// Element types of most reductions.
const WIDE: [DType; 8] = {
    use DType::*;
    [F32, F64, F16, BF16, I32, I64, U32, U64]
};

reduce! {
    /// Sum; of nothing, 0; integers wrap.
    ReduceSum since 13 WIDE, WIDE,
        float 0.0, |sum, x| sum + x, |sum, _| sum;
        int |_| 0, |sum, x| sum + x, |sum, _, _| sum;
        expand |_, x| x, Reduction::Sum, |_, x, _| x;
    /// Sum divided by the number of elements; of nothing, NaN. The sum of integers wraps, the quotient
    /// truncates, and of nothing it is 0.
    ReduceMean since 18 WIDE, WIDE,
        float 0.0, |sum, x| sum + x, |sum, n| sum / n as f64;
        int |_| 0, |sum, x| sum + x, |sum, n, ty| wrapped(sum, ty).checked_div(n as i128).unwrap_or(0);
        expand |_, x| x, Reduction::Sum, |f, x, n| {
            if f.dtype().is_float() {
                f.scale(x, 1.0 / n as f64)
            } else {
                let count = f.lit(n as f64);
                f.div(x, count)
            }
        };
    /// Product; of nothing, 1; integers wrap.
    ReduceProd since 18 WIDE, WIDE,
        float 1.0, |product, x| product * x, |product, _| product;
        int |_| 1, |product, x| i128::from((product as i64).wrapping_mul(x as i64)), |product, _, _| product;
        expand |_, x| x, Reduction::Product, |_, x, _| x;
    /// Sum of magnitudes; of nothing, 0.
    ReduceL1 since 18 WIDE, WIDE,
        float 0.0, |sum, x| sum + x.abs(), |sum, _| sum;
        int |_| 0, |sum, x| sum + x.abs(), |sum, _, _| sum;
        expand |f, x| if f.dtype().is_float() || f.dtype().is_signed() { f.abs(x) } else { x }, Reduction::Sum,
            |_, x, _| x;
    /// Square root of the sum of squares; of nothing, 0.
    ReduceL2 since 18 FLOATS, WIDE,
        float 0.0, |sum, x| sum + x * x, |sum, _| sum.sqrt();
        int |_| 0, |sum, _| sum, |sum, _, _| sum;
        expand |f, x| f.mul(x, x), Reduction::Sum, |f, x, _| f.sqrt(x);
    /// Sum of squares; of nothing, 0; integers wrap.
    ReduceSumSquare since 18 WIDE, WIDE,
        float 0.0, |sum, x| sum + x * x, |sum, _| sum;
        int |_| 0, |sum, x| i128::from((sum as i64).wrapping_add((x as i64).wrapping_mul(x as i64))),
            |sum, _, _| sum;
        expand |f, x| f.mul(x, x), Reduction::Sum, |_, x, _| x;
    /// Logarithm of the sum; of nothing, minus infinity.
    ReduceLogSum since 18 FLOATS, WIDE,
        float 0.0, |sum, x| sum + x, |sum, _| sum.ln();
        int |_| 0, |sum, _| sum, |sum, _, _| sum;
        expand |_, x| x, Reduction::Sum, |f, x, _| f.log(x);
}

/// Element types of the largest and smallest.
const ORDERED: [DType; 13] = DType::ALL;

macro_rules! extremum {
    ($($(#[$doc:meta])* $Name:ident $greatest:literal $op:expr, $better:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name(Axes);

        impl Op for $Name {
            const NAME: &'static str = stringify!($Name);
            const TOLERANCE: Tolerance = Tolerance::Exact;

            fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
                Ok($Name(Axes::parse(attrs, 18)?))
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                self.0.infer(inputs, &ORDERED, &ORDERED)
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                let Some(x) = inputs[0] else { return vec![] };
                let (ty, results) = (&outputs[0], outputs[0].elements());
                if ty.dtype.is_float() {
                    let better: fn(&f64, &f64) -> bool = $better;
                    let nothing = if $greatest { f64::NEG_INFINITY } else { f64::INFINITY };
                    let (values, mut best) = (x.f64s(), vec![nothing; results]);
                    self.0.each(inputs, |from, to| {
                        if values[from].is_nan() || better(&values[from], &best[to]) {
                            best[to] = values[from];
                        }
                    });
                    return vec![Tensor::from_f64s(ty.clone(), best)];
                }
                let better: fn(&i128, &i128) -> bool = $better;
                let (values, mut best) = (tools::integers(x), vec![bound(ty.dtype, !$greatest); results]);
                self.0.each(inputs, |from, to| {
                    if better(&values[from], &best[to]) {
                        best[to] = values[from];
                    }
                });
                vec![tools::from_integers(ty, best)]
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
                let Some(x) = inputs[0] else { return vec![] };
                let axes = self.0.expanded(mir, inputs);
                // Booleans are ordered as the numbers 0 and 1.
                let dtype = outputs[0].dtype;
                let x = mir.cast(x, if dtype == DType::Bool { DType::U8 } else { dtype });
                let reduced = mir.reduce($op, x, &axes);
                let result = mir.cast(reduced, dtype);
                vec![mir.reshape(result, outputs[0].dims.clone())]
            }
        }
    )*};
}

extremum! {
    /// The largest; NaN if one is NaN; of nothing, minus infinity, the lowest integer, or false.
    ReduceMax true Reduction::Max, |a, b| a > b;
    /// The smallest; NaN if one is NaN; of nothing, infinity, the highest integer, or true.
    ReduceMin false Reduction::Min, |a, b| a < b;
}

/// Logarithm of the sum of exponentials, without overflow; of nothing, minus infinity.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceLogSumExp(Axes);

impl Op for ReduceLogSumExp {
    const NAME: &'static str = "ReduceLogSumExp";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(ReduceLogSumExp(Axes::parse(attrs, 18)?))
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        self.0.infer(inputs, &FLOATS, &WIDE)
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let values = inputs[0].map_or(vec![], Tensor::f64s);
        let mut largest = vec![f64::NEG_INFINITY; outputs[0].elements()];
        self.0.each(inputs, |from, to| largest[to] = largest[to].max(values[from]));
        let shifts: Vec<_> = largest.iter().map(|&m| if m.is_finite() { m } else { 0.0 }).collect();
        let mut sums = vec![0.0; shifts.len()];
        self.0.each(inputs, |from, to| sums[to] += (values[from] - shifts[to]).exp());
        let logs = sums.iter().zip(&shifts).map(|(sum, shift)| sum.ln() + shift);
        vec![Tensor::from_f64s(outputs[0].clone(), logs)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let axes = self.0.expanded(mir, inputs);
        let largest = mir.reduce(Reduction::Max, x, &axes);
        // An infinite shift would give NaN.
        let shift = apply(mir, largest, |f, x| {
            let (magnitude, infinity, zero) = (f.abs(x), f.lit(f64::INFINITY), f.lit(0.0));
            let finite = f.less(magnitude, infinity);
            f.select(finite, x, zero)
        });
        let shifted = mir.binary(mir::Binary::Sub, x, shift);
        let powers = mir.unary(mir::Unary::Exp, shifted);
        let sum = mir.reduce(Reduction::Sum, powers, &axes);
        let log = mir.unary(mir::Unary::Log, sum);
        let result = mir.binary(mir::Binary::Add, log, shift);
        vec![mir.reshape(result, outputs[0].dims.clone())]
    }
}

/// The attributes of `ArgMax` and `ArgMin`.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    axis: i64,
    keep: bool,
    last: bool,
}

impl Place {
    fn parse(attrs: &mut Attrs) -> Result<Place, ErrorKind> {
        let last = attrs.opset() >= 12 && attrs.flag("select_last_index", false)?;
        Ok(Place { axis: attrs.int_or("axis", 0)?, keep: attrs.flag("keepdims", true)?, last })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        tools::dtype_in(ty, &NUMBERS, &NUMBERS)?;
        let axis = tools::axis(self.axis, ty.rank())?;
        let mut dims = ty.dims.clone();
        if dims[axis] == 0 {
            return Err(ErrorKind::wrong(format!("axis {axis} of {ty} is empty")));
        }
        if self.keep {
            dims[axis] = 1;
        } else {
            dims.remove(axis);
        }
        Ok(vec![tools::sized(DType::I64, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type], greatest: bool) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let axis = tools::axis(self.axis, x.dims().len()).unwrap_or(0);
        let (extent, inner) = (x.dims()[axis], x.ty().strides()[axis] as usize);
        let float = x.ty().dtype.is_float();
        let (floats, ints) = if float { (x.f64s(), vec![]) } else { (vec![], tools::integers(x)) };
        // Whether a, which comes later, takes the place of b.
        let wins = |a: usize, b: usize| {
            let order = if !float {
                ints[a].cmp(&ints[b])
            } else if floats[a].is_nan() || floats[b].is_nan() {
                return !floats[b].is_nan();
            } else {
                floats[a].partial_cmp(&floats[b]).unwrap_or(Ordering::Equal)
            };
            if order.is_eq() { self.last } else { order.is_gt() == greatest }
        };
        let found = (0..outputs[0].elements()).map(|i| {
            let base = i / inner * inner * extent + i % inner;
            let best = (1..extent).fold(0, |best, k| {
                if wins(base + k * inner, base + best * inner) { k } else { best }
            });
            best as i64
        });
        vec![Tensor::from_ints(outputs[0].clone(), found)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
        greatest: bool,
    ) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let axis = tools::axis(self.axis, mir.ty(x).rank()).unwrap_or(0);
        let places = mir.arg_reduce(x, greatest, axis, self.last);
        vec![mir.reshape(places, outputs[0].dims.clone())]
    }
}

macro_rules! place {
    ($($(#[$doc:meta])* $Name:ident $greatest:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name(Place);

        impl Op for $Name {
            const NAME: &'static str = stringify!($Name);
            const TOLERANCE: Tolerance = Tolerance::Exact;

            fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
                Ok($Name(Place::parse(attrs)?))
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                self.0.infer(inputs)
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                self.0.reference(inputs, outputs, $greatest)
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
                self.0.expand(mir, inputs, outputs, $greatest)
            }
        }
    )*};
}

place! {
    /// Index of the largest element along `axis` (of equal ones the first, or the last with
    /// `select_last_index`); of the first NaN if there is one.
    ArgMax true;
    /// Index of the smallest element along `axis`, as [`ArgMax`].
    ArgMin false;
}

#[cfg(test)]
mod tests {
    use crate::error::Class;
    use crate::ops::tests::{Known, infer_known, infer_with, int, ints};
    use crate::types::DType::*;

    #[test]
    fn axes() {
        let operand = Known::Type(F32, &[2, 3, 4]);
        let old = |attrs: &[_]| infer_known("ReduceMean", 13, attrs, &[operand]).map(|t| t[0].to_string());
        assert_eq!(old(&[("axes", ints(&[-1, 0]))]).expect("fits"), "f32[1, 3, 1]");
        assert_eq!(old(&[("keepdims", int(0))]).expect("fits"), "f32[]");
        assert!(old(&[("axes", ints(&[1, 1]))]).is_err() && old(&[("axes", ints(&[3]))]).is_err());
        assert!(old(&[("keepdims", int(2))]).is_err());
        let new = |attrs: &[_], axes| {
            infer_known("ReduceMax", 18, attrs, &[operand, Known::Ints(axes)]).map(|t| t[0].to_string())
        };
        assert_eq!(new(&[("keepdims", int(0))], &[1]).expect("fits"), "f32[2, 4]");
        assert_eq!(new(&[("noop_with_empty_axes", int(1))], &[]).expect("fits"), "f32[2, 3, 4]");
        let l2 = infer_with("ReduceL2", &[], &[(I32, &[2])]);
        assert_eq!(l2.expect_err("integers").class, Class::Unsupported);
        let arg = |axis, dims| infer_with("ArgMax", &[("axis", int(axis))], &[(F32, dims)]);
        assert_eq!(arg(-1, &[2, 3]).expect("fits")[0].to_string(), "i64[2, 1]");
        assert!(arg(0, &[0]).is_err() && arg(0, &[]).is_err());
    }
}
