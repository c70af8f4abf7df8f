//! RLX's normalizations of one axis.

use crate::error::ErrorKind;
use crate::mir::{self, Binary, Expr, Unary};
use crate::ops::{Attrs, Op, Operands, Tolerance, tools};
use crate::tensor::{Tensor, for_each_index};
use crate::types::Type;

/// With `v = x (+ residual) (+ bias)`, along `axis` (the last): `(v - mean) / sqrt(variance + epsilon) *
/// gamma + beta`, or with `rms` `v / sqrt(mean of v^2 + epsilon) * gamma + beta`. Operands: x, the residual
/// if `residual`, the bias if `bias`, gamma, beta (with `rms` it may be left out); the last three have one
/// element for each of the axis. With `ada` there are x, scale and shift instead, which broadcast to x, and
/// the factor is `1 + scale`.
///
/// The variance is that of the population. A NaN or infinity makes its row NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct RlxNorm {
    epsilon: f64,
    axis: i64,
    rms: bool,
    residual: bool,
    bias: bool,
    ada: bool,
}

impl RlxNorm {
    /// Numbers of the operands: what is added to x, the factor, the term.
    fn places(&self) -> (Vec<usize>, usize, usize) {
        let added = usize::from(self.residual) + usize::from(self.bias);
        ((1..=added).collect(), added + 1, added + 2)
    }

    /// Whether operand `i` has an element for each of the axis.
    fn along_axis(&self, i: usize) -> bool {
        !(self.ada || i == 0 || (self.residual && i == 1))
    }

    /// The dimensions by which operand `i` broadcasts to x.
    fn spread(&self, i: usize, own: &[usize], x: &[usize]) -> Vec<usize> {
        let Ok(axis) = tools::axis(self.axis, x.len()) else { return own.to_vec() };
        match self.along_axis(i) {
            true => [own, &vec![1; x.len() - 1 - axis]].concat(),
            false => own.to_vec(),
        }
    }
}

impl Op for RlxNorm {
    const NAME: &'static str = "rlx:Norm";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let op = RlxNorm {
            epsilon: attrs.float_or("epsilon", 1e-5)?,
            axis: attrs.int_or("axis", -1)?,
            rms: attrs.flag("rms", false)?,
            residual: attrs.flag("residual", false)?,
            bias: attrs.flag("bias", false)?,
            ada: attrs.flag("ada", false)?,
        };
        match op.ada && (op.residual || op.bias) {
            true => Err(ErrorKind::wrong("\"ada\" goes with neither \"residual\" nor \"bias\"")),
            false => Ok(op),
        }
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let (_, factor, term) = self.places();
        inputs.arity(if self.rms { factor + 1 } else { term + 1 }, term + 1)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        let axis = tools::axis(self.axis, x.rank())?;
        for i in 1..inputs.len() {
            let ty = inputs.ty(i)?;
            let fits = match self.along_axis(i) {
                true => ty.dims == [x.dims[axis]],
                false => crate::types::broadcast(&x.dims, &ty.dims).is_some_and(|dims| dims == x.dims),
            };
            if !fits || ty.dtype != x.dtype {
                let kind = ErrorKind::wrong(format!("operand {i} is {ty}"));
                return Err(match self.along_axis(i) {
                    true => kind.help(format!("it must be {}[{}]", x.dtype, x.dims[axis])),
                    false => kind.help(format!("it must broadcast to {x}")),
                });
            }
        }
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let dims = x.dims();
        let (added, factor, term) = self.places();
        let Ok(axis) = tools::axis(self.axis, dims.len()) else { return vec![] };
        let spread = |i: usize| {
            let t = inputs.get(i).copied().flatten()?;
            let (own, all) = (self.spread(i, t.dims(), dims), t.f64s());
            let mut values = Vec::with_capacity(x.ty().elements());
            for_each_index(dims, |index| values.push(all[tools::broadcast_index(index, &own)]));
            Some(values)
        };
        let mut values = x.f64s();
        for other in added.into_iter().filter_map(spread) {
            values.iter_mut().zip(other).for_each(|(v, o)| *v += o);
        }
        let (along, inner) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
        for block in values.chunks_exact_mut((along * inner).max(1)) {
            for i in 0..inner {
                let row = || (0..along).map(|k| k * inner + i);
                let mean = match self.rms {
                    true => 0.0,
                    false => row().map(|at| block[at]).sum::<f64>() / along as f64,
                };
                let square = |at: usize| (block[at] - mean) * (block[at] - mean);
                let variance = row().map(square).sum::<f64>() / along as f64;
                let root = (variance + self.epsilon).sqrt();
                row().for_each(|at| block[at] = (block[at] - mean) / root);
            }
        }
        let one = f64::from(u8::from(self.ada));
        for (v, f) in values.iter_mut().zip(spread(factor).unwrap_or_default()) {
            *v *= f + one;
        }
        for (v, t) in values.iter_mut().zip(spread(term).unwrap_or_default()) {
            *v += t;
        }
        vec![Tensor::from_f64s(outputs[0].clone(), values)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let ty = mir.ty(x).clone();
        let (added, factor, term) = self.places();
        let Ok(axis) = tools::axis(self.axis, ty.rank()) else { return vec![] };
        let spread = |mir: &mut mir::Builder, i: usize| {
            let v = inputs.get(i).copied().flatten()?;
            let dims = self.spread(i, &mir.dims(v), &ty.dims);
            Some(mir.reshape(v, dims))
        };
        let mut v = x;
        for i in added {
            if let Some(other) = spread(mir, i) {
                v = mir.binary(Binary::Add, v, other);
            }
        }
        if !self.rms {
            let mean = mir.mean(v, &[axis]);
            v = mir.binary(Binary::Sub, v, mean);
        }
        let squares = mir.binary(Binary::Mul, v, v);
        let variance = mir.mean(squares, &[axis]);
        let mut e = Expr::new();
        let [value, eps, one] =
            [e.operand(0), e.literal(ty.dtype, self.epsilon), e.literal(ty.dtype, 1.0)];
        let shifted = e.binary(Binary::Add, value, eps);
        let root = e.unary(Unary::Sqrt, shifted);
        let result = e.binary(Binary::Div, one, root);
        let inverse = mir.map(e.returning(result), &[variance]);
        let mut e = Expr::new();
        let [value, inverse_] = [0, 1].map(|i| e.operand(i));
        let mut operands = vec![v, inverse];
        let mut result = e.binary(Binary::Mul, value, inverse_);
        if let Some(factor) = spread(mir, factor) {
            let mut f = e.operand(operands.len());
            operands.push(factor);
            if self.ada {
                let one = e.literal(ty.dtype, 1.0);
                f = e.binary(Binary::Add, f, one);
            }
            result = e.binary(Binary::Mul, result, f);
        }
        if let Some(term) = spread(mir, term) {
            let t = e.operand(operands.len());
            operands.push(term);
            result = e.binary(Binary::Add, result, t);
        }
        vec![mir.map(e.returning(result), &operands)]
    }
}
