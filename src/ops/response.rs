//! Normalizations by a norm: of neighbouring channels, or along an axis.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Comparison, Expr, Reduction, Unary};
use crate::tensor::Tensor;
use crate::types::Type;

/// Local response normalization over channels (axis 1): `X / (bias + alpha / size * s)^beta`, s being the
/// sum of squares of the channels from `c - floor((size - 1) / 2)` to `c + ceil((size - 1) / 2)` that
/// exist. Squares overflow to infinity, and X by infinity is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct LRN {
    alpha: f64,
    beta: f64,
    bias: f64,
    size: usize,
}

impl Op for LRN {
    const NAME: &'static str = "LRN";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let size =
            attrs.int("size")?.ok_or_else(|| ErrorKind::wrong("attribute \"size\" is missing"))?;
        Ok(LRN {
            alpha: attrs.float_or("alpha", 1e-4)?,
            beta: attrs.float_or("beta", 0.75)?,
            bias: attrs.float_or("bias", 1.0)?,
            size: super::window::positive("size", &[size])?[0],
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        if x.rank() < 2 {
            let kind = ErrorKind::wrong(format!("{x} has no channels"));
            return Err(kind.help("the first two axes are the batch and the channels"));
        }
        let mut padded = x.dims.clone();
        padded[1] = padded[1].saturating_add(self.size);
        tools::sized(x.dtype, padded)?;
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let dims = x.dims();
        let (channels, plane) = (dims[1], dims[2..].iter().product::<usize>());
        let values = x.f64s();
        let y = values.iter().enumerate().map(|(at, v)| {
            let c = at / plane % channels;
            let first = c.saturating_sub((self.size - 1) / 2);
            let last = (c + self.size / 2).min(channels - 1);
            let square = |other: usize| values[at + other * plane - c * plane].powi(2);
            let sum: f64 = (first..=last).map(square).sum();
            v / (self.bias + self.alpha / self.size as f64 * sum).powf(self.beta)
        });
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let ty = mir.ty(x).clone();
        // The channels are the axis that the window moves along, so they take a spatial axis's place.
        let rest: usize = ty.dims[2..].iter().product();
        let squares = mir.binary(Binary::Mul, x, x);
        let squares = mir.reshape(squares, [ty.dims[0], ty.dims[1], rest]);
        let (low, high) = ((self.size - 1) / 2, self.size / 2);
        let squares = mir.pad(squares, &[0, low, 0], &[0, high, 0], 0.0);
        let sums = mir.pool(Reduction::Sum, squares, &[self.size], &[1], &[1]);
        let sums = mir.reshape(sums, ty.dims.clone());
        let mut e = Expr::new();
        let [v, sum] = [0, 1].map(|i| e.operand(i));
        let [alpha, beta, bias] = [self.alpha / self.size as f64, self.beta, self.bias]
            .map(|value| e.literal(ty.dtype, value));
        let share = e.binary(Binary::Mul, sum, alpha);
        let base = e.binary(Binary::Add, share, bias);
        let power = e.binary(Binary::Pow, base, beta);
        let result = e.binary(Binary::Div, v, power);
        vec![mir.map(e.returning(result), &[x, sums])]
    }
}

/// Along `axis`: X by the sum of its magnitudes (p = 1), or by the root of the sum of its squares (p =
/// 2). Where that is 0, 0.
#[derive(Clone, Debug, PartialEq)]
pub struct LpNormalization {
    axis: i64,
    p: i64,
}

impl Op for LpNormalization {
    const NAME: &'static str = "LpNormalization";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let p = attrs.int_or("p", 2)?;
        if !(1..=2).contains(&p) {
            return Err(ErrorKind::wrong(format!("attribute \"p\" is {p}, and must be 1 or 2")));
        }
        Ok(LpNormalization { axis: attrs.int_or("axis", -1)?, p })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        tools::axis(self.axis, x.rank())?;
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let Ok(axis) = tools::axis(self.axis, x.ty().rank()) else { return vec![] };
        let (along, inner) = (x.dims()[axis], x.dims()[axis + 1..].iter().product::<usize>());
        let mut values = x.f64s();
        for block in values.chunks_exact_mut((along * inner).max(1)) {
            for i in 0..inner {
                let row = || (0..along).map(|k| k * inner + i);
                let norm = match self.p {
                    1 => row().map(|at| block[at].abs()).sum::<f64>(),
                    _ => row().map(|at| block[at].powi(2)).sum::<f64>().sqrt(),
                };
                row().for_each(|at| block[at] = if norm == 0.0 { 0.0 } else { block[at] / norm });
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), values)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let ty = mir.ty(x).clone();
        let Ok(axis) = tools::axis(self.axis, ty.rank()) else { return vec![] };
        let norm = match self.p {
            1 => {
                let magnitudes = mir.unary(Unary::Abs, x);
                mir.reduce(Reduction::Sum, magnitudes, &[axis])
            }
            _ => {
                let squares = mir.binary(Binary::Mul, x, x);
                let sum = mir.reduce(Reduction::Sum, squares, &[axis]);
                mir.unary(Unary::Sqrt, sum)
            }
        };
        let mut e = Expr::new();
        let [v, norm_, zero] = [e.operand(0), e.operand(1), e.literal(ty.dtype, 0.0)];
        let none = e.compare(Comparison::Equal, norm_, zero);
        let quotient = e.binary(Binary::Div, v, norm_);
        let result = e.select(none, zero, quotient);
        vec![mir.map(e.returning(result), &[x, norm])]
    }
}
