//! Pools: reductions over windows of the spatial axes of X `[N, C, spatial..]`, or over all of them.

use super::window::{self, Attributes, AutoPad, Axis};
use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Comparison, Expr, Reduction, Unary};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};

/// The largest element of each window; padding does not count. NaN where one element is NaN. The
/// lowest value of the type where a window is all padding.
///
/// The second result, done where it is used, is the flat index in X of the first of the largest (of a NaN, if
/// there is one; -1 less than the plane's first where a window is all padding); with `storage_order` 1, spatial
/// axes count as if the first of them were the innermost.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxPool {
    pool: Windows,
    indices: bool,
    reversed: bool,
}

/// The mean of each window's elements: of those that are no padding or, with `count_include_pad`, of
/// those that are no further out than the padding that the model asks for (which is zero). NaN where a
/// window is all padding.
#[derive(Clone, Debug, PartialEq)]
pub struct AveragePool {
    pool: Windows,
    count_padding: bool,
}

/// `(sum of |x|^p)^(1/p)` of each window's elements; padding does not count.
#[derive(Clone, Debug, PartialEq)]
pub struct LpPool {
    pool: Windows,
    p: i64,
}

/// The windows of a pool.
#[derive(Clone, Debug, PartialEq)]
struct Windows {
    attributes: Attributes,
    kernel: Vec<usize>,
}

impl Windows {
    fn parse(attrs: &mut Attrs) -> Result<Windows, ErrorKind> {
        let mut attributes = Attributes::parse(attrs)?;
        attributes.ceil = attrs.flag("ceil_mode", false)?;
        if attributes.ceil && matches!(attributes.auto_pad, AutoPad::SameUpper | AutoPad::SameLower) {
            attributes.ceil = false; // Windows are as many as strides fit, in either mode.
        }
        let kernel = attributes
            .kernel
            .clone()
            .ok_or_else(|| ErrorKind::wrong("attribute \"kernel_shape\" is missing"))?;
        Ok(Windows { attributes, kernel })
    }

    fn axes(&self, x: &[usize]) -> Result<Vec<Axis>, ErrorKind> {
        self.attributes.axes(&x[2..], &self.kernel)
    }

    fn infer(&self, x: &Type) -> Result<Type, ErrorKind> {
        check_rank(x)?;
        let axes = self.axes(&x.dims)?;
        window::check_padded(x.dtype, [x.dims[0], x.dims[1]], &axes)?;
        let dims = x.dims[..2].iter().copied().chain(axes.iter().map(|a| a.windows));
        tools::sized(x.dtype, dims.collect::<Vec<_>>())
    }

    /// Every window's elements folded from `start` on, and then finished with the window's index.
    fn fold(
        &self,
        x: &Tensor,
        start: f64,
        step: fn(f64, f64) -> f64,
        finish: impl Fn(usize, f64) -> f64,
    ) -> Vec<f64> {
        let Ok(axes) = self.axes(x.dims()) else { return vec![] };
        let runs = window::runs(&axes);
        let plane: usize = x.dims()[2..].iter().product();
        let planes = x.dims()[0] * x.dims()[1];
        let windows: usize = axes.iter().map(|a| a.windows).product();
        let x = x.f64s();
        let mut y = vec![];
        let mut folded = vec![start; windows];
        for i in 0..planes {
            let x = &x[i * plane..][..plane];
            folded.fill(start);
            for run in runs.iter().flatten() {
                for i in 0..run.count {
                    let at = &mut folded[run.window + i];
                    *at = step(*at, x[run.element + i * run.step]);
                }
            }
            y.extend(folded.iter().enumerate().map(|(i, &v)| finish(i, v)));
        }
        y
    }

    /// The pool of X, channels last, within a border of `value`.
    fn expand(&self, mir: &mut mir::Builder, op: Reduction, x: mir::Value, value: f64) -> mir::Value {
        let x_dims = mir.dims(x);
        let rank = x_dims.len();
        let dims: Vec<_> = [x_dims[0], x_dims[rank - 1]]
            .into_iter()
            .chain(x_dims[1..rank - 1].iter().copied())
            .collect();
        let Ok(axes) = self.axes(&dims) else { return x };
        let bordered =
            |f: fn(&Axis) -> usize| -> Vec<usize> {
                std::iter::once(0).chain(axes.iter().map(f)).chain([0]).collect()
            };
        let x = mir.pad(x, &bordered(|a| a.low), &bordered(Axis::reach), value);
        let list = |f: fn(&Axis) -> usize| axes.iter().map(f).collect::<Vec<_>>();
        let [window, strides, dilations] = [list(|a| a.kernel), list(|a| a.stride), list(|a| a.dilation)];
        mir.pool(op, x, &window, &strides, &dilations)
    }
}

impl Op for MaxPool {
    const NAME: &'static str = "MaxPool";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let (indices, reversed) = (attrs.is_used(1), attrs.flag("storage_order", false)?);
        Ok(MaxPool { pool: Windows::parse(attrs)?, indices, reversed })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        const DONE: [DType; 6] =
            [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I8, DType::U8];
        tools::dtype_in(x, &DONE, &DONE)?;
        let y = self.pool.infer(x)?;
        if !self.indices {
            return Ok(vec![y]);
        }
        let taps: usize = self.pool.kernel.iter().product();
        if taps > MOST_TAPS {
            let kind = ErrorKind::unsupported(format!("indices (result 1) of windows of {taps}"));
            return Err(kind.help(format!("at most {MOST_TAPS} are done")));
        }
        let indices = tools::sized(DType::I64, y.dims.clone())?;
        Ok(vec![y, indices])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let larger = |a: f64, b: f64| if b.is_nan() || b > a { b } else { a };
        let y = self.pool.fold(x, f64::NEG_INFINITY, larger, |_, v| v);
        let mut results = vec![Tensor::from_f64s(outputs[0].clone(), y)];
        if let Some(ty) = outputs.get(1) {
            results.push(Tensor::from_ints(ty.clone(), self.places(x)));
        }
        results
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let x = mir.channels_last(x);
        let y = self.pool.expand(mir, Reduction::Max, x, f64::NEG_INFINITY);
        let mut results = vec![mir.channels_first(y)];
        if self.indices {
            let places = self.expand_places(mir, x);
            results.push(mir.channels_first(places));
        }
        results
    }
}

/// Indices are found tap by tap.
const MOST_TAPS: usize = 256;

impl MaxPool {
    /// For every element of a plane, its index in it as the model counts.
    fn numbers(&self, spatial: &[usize]) -> Vec<i64> {
        let mut numbers = vec![];
        for_each_index(spatial, |index| {
            let pairs = index.iter().zip(spatial);
            let step = |at: usize, (i, d): (&usize, &usize)| at * d + i;
            let at = if self.reversed { pairs.rev().fold(0, step) } else { pairs.fold(0, step) };
            numbers.push(at as i64);
        });
        numbers
    }

    /// The second result by its definition.
    fn places(&self, x: &Tensor) -> Vec<i64> {
        let Ok(axes) = self.pool.axes(x.dims()) else { return vec![] };
        let runs = window::runs(&axes);
        let numbers = self.numbers(&x.dims()[2..]);
        let windows: usize = axes.iter().map(|a| a.windows).product();
        let (planes, plane) = (x.dims()[0] * x.dims()[1], numbers.len());
        let values = x.f64s();
        let mut places = vec![];
        for p in 0..planes {
            let own = &values[p * plane..][..plane];
            let mut best = vec![None::<usize>; windows];
            for run in runs.iter().flatten() {
                for i in 0..run.count {
                    let (at, best) = (run.element + i * run.step, &mut best[run.window + i]);
                    let better = |old: usize| {
                        own[at] > own[old] || (own[at].is_nan() && !own[old].is_nan())
                    };
                    if best.is_none_or(better) {
                        *best = Some(at);
                    }
                }
            }
            places.extend(best.iter().map(|b| (p * plane) as i64 + b.map_or(-1, |at| numbers[at])));
        }
        places
    }

    /// The second result in MIR, channels last: element by element over strided slices, one for each tap.
    fn expand_places(&self, mir: &mut mir::Builder, x: mir::Value) -> mir::Value {
        let ty = mir.ty(x).clone();
        let rank = ty.rank();
        let (batch, channels, spatial) = (ty.dims[0], ty.dims[rank - 1], &ty.dims[1..rank - 1]);
        let dims = [&[batch, channels], spatial].concat();
        let Ok(axes) = self.pool.axes(&dims) else { return x };
        let bordered = |f: &dyn Fn(&Axis) -> usize| -> Vec<usize> {
            [0].into_iter().chain(axes.iter().map(f)).chain([0]).collect()
        };
        let (low, high) = (bordered(&|a| a.low), bordered(&Axis::reach));
        let single = |dims: &[usize]| [&[1], dims, &[1]].concat();
        let numbers = Tensor::from_i64s(single(spatial), &self.numbers(spatial));
        let numbers = mir.constant(numbers);
        let numbers = mir.pad(numbers, &low, &high, -1.0);
        let padded = mir.pad(x, &low, &high, f64::NEG_INFINITY);
        let windows: Vec<_> = axes.iter().map(|a| a.windows).collect();
        let steps: Vec<_> =
            [1].into_iter().chain(axes.iter().map(|a| a.stride as i64)).chain([1]).collect();
        let mut best = None;
        let kernel: Vec<_> = axes.iter().map(|a| a.kernel).collect();
        for_each_index(&kernel, |tap| {
            let starts = tap.iter().zip(&axes).map(|(t, a)| t * a.dilation);
            let starts: Vec<_> = [0].into_iter().chain(starts).chain([0]).collect();
            let counts = [&[batch], &windows[..], &[channels]].concat();
            let value = mir.slice(padded, &starts, &counts, &steps);
            let number = mir.slice(numbers, &starts, &single(&windows), &steps);
            best = Some(match best {
                None => (value, number),
                Some((old, place)) => {
                    let operands = [value, number, old, place];
                    (better(mir, &operands, ty.dtype, false), better(mir, &operands, ty.dtype, true))
                }
            });
        });
        let Some((_, place)) = best else { return x };
        let plane: usize = spatial.iter().product();
        let firsts = (0..batch * channels).map(|p| (p * plane) as i64).collect::<Vec<_>>();
        let dims = [&[batch], &vec![1; windows.len()][..], &[channels]].concat();
        let firsts = mir.constant(Tensor::from_i64s(dims, &firsts));
        mir.binary(Binary::Add, place, firsts)
    }
}

/// Of operands value, number, old value and old number, the value or number that wins: the new one where it
/// is larger or the first NaN, or where the old one is padding.
fn better(mir: &mut mir::Builder, operands: &[mir::Value; 4], dtype: DType, number: bool) -> mir::Value {
    let mut e = Expr::new();
    let [new, place, old, old_place] = [0, 1, 2, 3].map(|i| e.operand(i));
    let none = e.literal(DType::I64, 0.0);
    let larger = e.compare(Comparison::Greater, new, old);
    let empty = e.compare(Comparison::Less, old_place, none);
    let exists = e.compare(Comparison::GreaterEqual, place, none);
    let mut wins = e.binary(Binary::Or, larger, empty);
    if dtype.is_float() {
        let [is_nan, was_number] =
            [(Comparison::NotEqual, new), (Comparison::Equal, old)].map(|(op, v)| e.compare(op, v, v));
        let first = e.binary(Binary::And, is_nan, was_number);
        wins = e.binary(Binary::Or, wins, first);
    }
    wins = e.binary(Binary::And, wins, exists);
    let result = if number { e.select(wins, place, old_place) } else { e.select(wins, new, old) };
    // Every operand broadcasts to the result's dimensions, those of the values among them.
    mir.map(e.returning(result), operands)
}

impl AveragePool {
    /// How many elements a window has that count, along one axis.
    fn count(&self, a: &Axis, window: usize) -> usize {
        let bounds = match self.count_padding {
            true => 0..a.low + a.extent + a.high,
            false => a.low..a.low + a.extent,
        };
        (0..a.kernel).filter(|t| bounds.contains(&(window * a.stride + t * a.dilation))).count()
    }

    /// The same for all windows, in row-major order.
    fn counts(&self, axes: &[Axis]) -> Vec<f64> {
        axes.iter().fold(vec![1.0], |counts, a| {
            let along: Vec<_> = (0..a.windows).map(|w| self.count(a, w) as f64).collect();
            counts.iter().flat_map(|c| along.iter().map(move |n| c * n)).collect()
        })
    }
}

impl Op for AveragePool {
    const NAME: &'static str = "AveragePool";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let count_padding = attrs.flag("count_include_pad", false)?;
        Ok(AveragePool { pool: Windows::parse(attrs)?, count_padding })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        tools::dtype_in(inputs.ty(0)?, &tools::FLOATS, &tools::FLOATS)?;
        Ok(vec![self.pool.infer(inputs.ty(0)?)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let Ok(axes) = self.pool.axes(x.dims()) else { return vec![] };
        let counts = self.counts(&axes);
        let y = self.pool.fold(x, 0.0, |a, b| a + b, |i, sum| sum / counts[i]);
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let Ok(axes) = self.pool.axes(&mir.dims(x)) else { return vec![] };
        let x = mir.channels_last(x);
        let sums = self.pool.expand(mir, Reduction::Sum, x, 0.0);
        let counts = self.counts(&axes);
        let y = match counts.split_first() {
            Some((first, rest)) if rest.iter().any(|c| c != first) => {
                let dims: Vec<_> =
                    [1].into_iter().chain(axes.iter().map(|a| a.windows)).chain([1]).collect();
                let ty = Type::new(mir.ty(x).dtype, dims);
                let shares = Tensor::from_f64s(ty, counts.iter().map(|c| 1.0 / c));
                let shares = mir.constant(shares);
                mir.binary(Binary::Mul, sums, shares)
            }
            Some((first, _)) => mir.binary_scalar(Binary::Mul, sums, 1.0 / first),
            None => sums,
        };
        vec![mir.channels_first(y)]
    }
}

impl Op for LpPool {
    const NAME: &'static str = "LpPool";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(LpPool { pool: Windows::parse(attrs)?, p: power(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        tools::dtype_in(inputs.ty(0)?, &tools::FLOATS, &tools::FLOATS)?;
        Ok(vec![self.pool.infer(inputs.ty(0)?)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let p = self.p as f64;
        let powers = x.f64s().into_iter().map(|v| v.abs().powf(p));
        let powers = Tensor::from_f64s(x.ty().with_dtype(DType::F64), powers);
        let y = self.pool.fold(&powers, 0.0, |a, b| a + b, |_, sum| sum.powf(1.0 / p));
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let x = mir.channels_last(x);
        let powers = raised(mir, x, self.p);
        let sums = self.pool.expand(mir, Reduction::Sum, powers, 0.0);
        let y = rooted(mir, sums, self.p);
        vec![mir.channels_first(y)]
    }
}

macro_rules! global {
    ($(#[$doc:meta])* $Name:ident { $($field:ident),* } $tolerance:expr, $parse:expr, $reference:expr, $expand:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name { $($field: i64),* }

        impl Op for $Name {
            const NAME: &'static str = stringify!($Name);
            const TOLERANCE: Tolerance = $tolerance;

            fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
                let parse: fn(&mut Attrs) -> Result<Self, ErrorKind> = $parse;
                parse(attrs)
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                inputs.arity(1, 1)?;
                let x = inputs.ty(0)?;
                tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
                check_rank(x)?;
                let ones = vec![1; x.rank() - 2];
                Ok(vec![tools::sized(x.dtype, [&x.dims[..2], &ones].concat())?])
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                let Some(x) = inputs[0] else { return vec![] };
                let plane: usize = x.dims()[2..].iter().product();
                let x = x.f64s();
                let of: fn(&Self, &[f64]) -> f64 = $reference;
                let y = (0..outputs[0].elements()).map(|i| of(self, &x[i * plane..][..plane]));
                vec![Tensor::from_f64s(outputs[0].clone(), y)]
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
                let Some(x) = inputs[0] else { return vec![] };
                let axes: Vec<_> = (2..mir.ty(x).rank()).collect();
                let of: fn(&Self, &mut mir::Builder, mir::Value, &[usize]) -> mir::Value = $expand;
                vec![of(self, mir, x, &axes)]
            }
        }
    };
}

global! {
    /// The mean over all spatial axes; NaN of no elements.
    GlobalAveragePool {} Tolerance::Relative(1e-6), |_| Ok(GlobalAveragePool {}),
    |_, x| x.iter().sum::<f64>() / x.len() as f64,
    |_, mir, x, axes| mir.mean(x, axes)
}

global! {
    /// The largest element over all spatial axes; NaN where one is NaN, minus infinity of none.
    GlobalMaxPool {} Tolerance::Exact, |_| Ok(GlobalMaxPool {}),
    |_, x| x.iter().fold(f64::NEG_INFINITY, |a, &b| if b.is_nan() || b > a { b } else { a }),
    |_, mir, x, axes| mir.reduce(Reduction::Max, x, axes)
}

global! {
    /// `(sum of |x|^p)^(1/p)` over all spatial axes.
    GlobalLpPool { p } Tolerance::Relative(1e-5), |attrs| Ok(GlobalLpPool { p: power(attrs)? }),
    |op, x| x.iter().map(|v| v.abs().powf(op.p as f64)).sum::<f64>().powf(1.0 / op.p as f64),
    |op, mir, x, axes| {
        let powers = raised(mir, x, op.p);
        let sums = mir.reduce(Reduction::Sum, powers, axes);
        rooted(mir, sums, op.p)
    }
}

fn check_rank(x: &Type) -> Result<(), ErrorKind> {
    match x.rank() {
        0..3 => {
            let kind = ErrorKind::wrong(format!("{x} has no spatial axes"));
            Err(kind.help("the first two axes are the batch and the channels"))
        }
        _ => Ok(()),
    }
}

fn power(attrs: &mut Attrs) -> Result<i64, ErrorKind> {
    match attrs.int_or("p", 2)? {
        p if p >= 1 => Ok(p),
        p => Err(ErrorKind::wrong(format!("attribute \"p\" is {p}, and must be at least 1"))),
    }
}

/// `|x|^p`.
fn raised(mir: &mut mir::Builder, x: mir::Value, p: i64) -> mir::Value {
    let dtype = mir.ty(x).dtype;
    let mut e = Expr::new();
    let v = e.operand(0);
    let result = match p {
        2 => e.binary(Binary::Mul, v, v),
        1 => e.unary(Unary::Abs, v),
        _ => {
            let (v, p) = (e.unary(Unary::Abs, v), e.literal(dtype, p as f64));
            e.binary(Binary::Pow, v, p)
        }
    };
    mir.map(e.returning(result), &[x])
}

/// `x^(1/p)`.
fn rooted(mir: &mut mir::Builder, x: mir::Value, p: i64) -> mir::Value {
    match p {
        1 => x,
        2 => mir.unary(Unary::Sqrt, x),
        _ => mir.binary_scalar(Binary::Pow, x, 1.0 / p as f64),
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn padding_counts_only_within_its_bounds() {
        let x = "f32[1,1,4]=1,2,3,4";
        let y = definition("AveragePool kernel_shape=[3] strides=[2] ceil_mode=1 count_include_pad=1", &[x]);
        assert_eq!(y[0].f64s(), [2.0, 3.5]);
        let y = definition("AveragePool kernel_shape=[3] pads=[1,1] count_include_pad=1", &[x]);
        assert_eq!(y[0].f32s(), [1.0, 2.0, 3.0, 7.0 / 3.0]);
    }

    #[test]
    fn misfits_are_refused() {
        for node in [
            "MaxPool",
            "MaxPool kernel_shape=[3]",
            "MaxPool kernel_shape=[0,1]",
            "MaxPool kernel_shape=[6,1]",
            "MaxPool kernel_shape=[2,2] strides=[0,1]",
            "MaxPool kernel_shape=[2,2] ceil_mode=2",
            "LpPool kernel_shape=[2,2] p=0",
            "AveragePool kernel_shape=[1099511627776,1] auto_pad=SAME_UPPER",
        ] {
            refused(node, &["f32[1,1,5,5]"]);
        }
        refused("GlobalMaxPool", &["f32[1,1]"]);
    }
}
