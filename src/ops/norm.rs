//! Normalizations: elements are shifted and scaled so that groups of them have mean 0 and variance 1.
//!
//! Variances are those of the population, and made in two passes: mean, then the mean of squared
//! differences. A NaN or infinity makes its whole group NaN. Groups of no elements have no results.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Expr, Unary};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};

/// With statistics that are given per channel (axis 1): `(X - mean) / sqrt(variance + epsilon) * scale +
/// B`. Training is unsupported.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormalization {
    epsilon: f64,
}

impl Op for BatchNormalization {
    const NAME: &'static str = "BatchNormalization";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        attrs.ignore("momentum"); // Only training looks at it.
        let mut training = attrs.flag("training_mode", false)?;
        if attrs.opset() < 7 {
            training = !attrs.flag("is_test", false)?;
            attrs.ignore("consumed_inputs"); // It says what may be overwritten.
        }
        if training || (1..5).any(|i| attrs.is_used(i)) {
            return Err(ErrorKind::unsupported("training (running statistics are asked for)"));
        }
        if !attrs.flag("spatial", true)? {
            return Err(ErrorKind::unsupported("statistics per element (\"spatial\" is 0)"));
        }
        Ok(BatchNormalization { epsilon: epsilon(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(5, 5)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        let Some(&channels) = x.dims.get(1) else {
            let kind = ErrorKind::wrong(format!("{x} has no channels"));
            return Err(kind.help("the first two axes are the batch and the channels"));
        };
        for i in 1..5 {
            let ty = inputs.ty(i)?;
            tools::dtype_in(ty, &tools::FLOATS, &tools::FLOATS)?;
            check_dims(inputs, i, &[channels])?;
        }
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), rest @ ..] = inputs else { return vec![] };
        let [scale, bias, mean, variance] =
            [0, 1, 2, 3].map(|i| rest[i].map_or(vec![], |t| t.f64s()));
        let channels = x.dims()[1];
        let plane: usize = x.dims()[2..].iter().product();
        let y = x.f64s().into_iter().enumerate().map(|(i, v)| {
            let c = i / plane % channels;
            (v - mean[c]) / (variance[c] + self.epsilon).sqrt() * scale[c] + bias[c]
        });
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let [Some(x), Some(scale), Some(bias), Some(mean), Some(variance)] = *inputs else {
            return vec![];
        };
        // One factor and one term per channel, so that X is read by a single multiply and add.
        let ty = mir.ty(x).clone();
        let [scale, bias, mean, variance] = [scale, bias, mean, variance].map(|v| mir.cast(v, ty.dtype));
        let mut e = Expr::new();
        let [v, s, eps] = [e.operand(0), e.operand(1), e.literal(ty.dtype, self.epsilon)];
        let shifted = e.binary(Binary::Add, v, eps);
        let root = e.unary(Unary::Sqrt, shifted);
        let result = e.binary(Binary::Div, s, root);
        let factor = mir.map(e.returning(result), &[variance, scale]);
        let mut e = Expr::new();
        let [b, m, f] = [0, 1, 2].map(|i| e.operand(i));
        let product = e.binary(Binary::Mul, m, f);
        let result = e.binary(Binary::Sub, b, product);
        let term = mir.map(e.returning(result), &[bias, mean, factor]);
        let dims = per_channel(&ty, ty.dims[1]);
        let [factor, term] = [factor, term].map(|v| mir.reshape(v, dims.clone()));
        vec![scaled(mir, x, None, Some(factor), Some(term))]
    }
}

/// Per batch and channel, over the spatial axes: `(X - mean) / sqrt(variance + epsilon) * scale + B`.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceNormalization {
    epsilon: f64,
}

impl Op for InstanceNormalization {
    const NAME: &'static str = "InstanceNormalization";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(InstanceNormalization { epsilon: epsilon(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        infer_channels(inputs, Ok)
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(scale), Some(bias)] = inputs else { return vec![] };
        let axes: Vec<_> = (2..x.ty().rank()).collect();
        let mut values = x.f64s();
        normalize(&mut values, x.dims(), &axes, self.epsilon);
        affine(&mut values, x.dims(), &per_channel(x.ty(), x.dims()[1]), scale, bias);
        vec![Tensor::from_f64s(outputs[0].clone(), values)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let [Some(x), Some(scale), Some(bias)] = *inputs else { return vec![] };
        let ty = mir.ty(x).clone();
        let axes: Vec<_> = (2..ty.rank()).collect();
        let dims = per_channel(&ty, ty.dims[1]);
        let [scale, bias] = [scale, bias].map(|v| mir.reshape(v, dims.clone()));
        let moments = moments(mir, x, &axes, self.epsilon, true);
        vec![scaled(mir, moments.centered, Some(moments.inverse), Some(scale), Some(bias))]
    }
}

/// Per batch and group of channels, over their channels and the spatial axes: `(X - mean) /
/// sqrt(variance + epsilon) * scale + bias`, with a scale and bias per channel (from version 21 on) or
/// per group (before).
#[derive(Clone, Debug, PartialEq)]
pub struct GroupNormalization {
    epsilon: f64,
    groups: usize,
    per_group: bool,
    stash: DType,
}

impl GroupNormalization {
    /// `[N, groups, the rest]`.
    fn grouped(&self, dims: &[usize]) -> Vec<usize> {
        let rest: usize = dims[1..].iter().product();
        vec![dims[0], self.groups, rest / self.groups]
    }
}

impl Op for GroupNormalization {
    const NAME: &'static str = "GroupNormalization";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let groups = attrs
            .int("num_groups")?
            .ok_or_else(|| ErrorKind::wrong("attribute \"num_groups\" is missing"))?;
        Ok(GroupNormalization {
            epsilon: epsilon(attrs)?,
            groups: super::window::positive("num_groups", &[groups])?[0],
            per_group: attrs.opset() < 21,
            stash: stash(attrs)?,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        infer_channels(inputs, |channels| {
            if channels % self.groups != 0 {
                let groups = self.groups;
                return Err(ErrorKind::wrong(format!("{channels} channels in {groups} groups")));
            }
            Ok(if self.per_group { self.groups } else { channels })
        })
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(scale), Some(bias)] = inputs else { return vec![] };
        let dims = self.grouped(x.dims());
        let mut values = x.f64s();
        normalize(&mut values, &dims, &[2], self.epsilon);
        match self.per_group {
            true => affine(&mut values, &dims, &[self.groups, 1], scale, bias),
            false => {
                affine(&mut values, x.dims(), &per_channel(x.ty(), x.dims()[1]), scale, bias);
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), values)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let [Some(x), Some(scale), Some(bias)] = *inputs else { return vec![] };
        let ty = mir.ty(x).clone();
        let wide = wide(ty.dtype, self.stash);
        let x = mir.reshape(x, self.grouped(&ty.dims));
        let x = mir.cast(x, wide);
        let moments = moments(mir, x, &[2], self.epsilon, true);
        let dims = if self.per_group { vec![self.groups, 1] } else { per_channel(&ty, ty.dims[1]) };
        let [scale, bias] = [scale, bias].map(|v| {
            let v = mir.cast(v, wide);
            mir.reshape(v, dims.clone())
        });
        let y = if self.per_group {
            scaled(mir, moments.centered, Some(moments.inverse), Some(scale), Some(bias))
        } else {
            let y = mir.binary(Binary::Mul, moments.centered, moments.inverse);
            let y = mir.reshape(y, ty.dims.clone());
            scaled(mir, y, None, Some(scale), Some(bias))
        };
        let y = mir.reshape(y, ty.dims.clone());
        vec![mir.cast(y, ty.dtype)]
    }
}

/// Over all axes from `axis` on: `(X - mean) / sqrt(variance + epsilon) * Scale + B`; Scale and B
/// broadcast to X. Further results: the mean, and `1 / sqrt(variance + epsilon)`, in the type
/// `stash_type`, with extent 1 along those axes.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNormalization {
    axis: i64,
    epsilon: f64,
    stash: DType,
}

impl Op for LayerNormalization {
    const NAME: &'static str = "LayerNormalization";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let axis = attrs.int_or("axis", -1)?;
        Ok(LayerNormalization { axis, epsilon: epsilon(attrs)?, stash: stash(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 3)?;
        let x = inputs.ty(0)?;
        let axes = infer_trailing(inputs, self.axis)?;
        let mut one = x.with_dtype(self.stash);
        axes.iter().for_each(|&axis| one.dims[axis] = 1);
        Ok(vec![x.clone(), one.clone(), one])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(scale), ..] = inputs else { return vec![] };
        let axes = trailing(self.axis, x.ty().rank());
        let mut values = x.f64s();
        let (mean, inverse) = normalize(&mut values, x.dims(), &axes, self.epsilon);
        multiply_add(&mut values, x.dims(), scale, inputs.get(2).copied().flatten());
        vec![
            Tensor::from_f64s(outputs[0].clone(), values),
            Tensor::from_f64s(outputs[1].clone(), mean),
            Tensor::from_f64s(outputs[2].clone(), inverse),
        ]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(x), Some(scale), ..] = *inputs else { return vec![] };
        let ty = mir.ty(x).clone();
        let wide = wide(ty.dtype, self.stash);
        let x = mir.cast(x, wide);
        let moments = moments(mir, x, &trailing(self.axis, ty.rank()), self.epsilon, true);
        let scale = mir.cast(scale, wide);
        let bias = inputs.get(2).copied().flatten().map(|b| mir.cast(b, wide));
        let y = scaled(mir, moments.centered, Some(moments.inverse), Some(scale), bias);
        let y = mir.cast(y, ty.dtype);
        let [mean, inverse] = [moments.mean, moments.inverse].map(|v| mir.cast(v, outputs[1].dtype));
        vec![y, mean, inverse]
    }
}

/// Over all axes from `axis` on: `X / sqrt(mean(X^2) + epsilon) * scale`; the scale broadcasts to X.
#[derive(Clone, Debug, PartialEq)]
pub struct RMSNormalization {
    axis: i64,
    epsilon: f64,
    stash: DType,
}

impl Op for RMSNormalization {
    const NAME: &'static str = "RMSNormalization";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let axis = attrs.int_or("axis", -1)?;
        Ok(RMSNormalization { axis, epsilon: epsilon(attrs)?, stash: stash(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        infer_trailing(inputs, self.axis)?;
        // In the scale's type, which may differ from X's.
        Ok(vec![inputs.ty(0)?.with_dtype(inputs.ty(1)?.dtype)])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(scale)] = inputs else { return vec![] };
        let axes = trailing(self.axis, x.ty().rank());
        let mut values = x.f64s();
        let group = groups(x.dims(), &axes);
        let squares: Vec<_> = values.iter().map(|v| v * v).collect();
        let means = means(&squares, &group, x.dims(), &axes);
        values.iter_mut().zip(&group).for_each(|(v, &g)| *v /= (means[g] + self.epsilon).sqrt());
        multiply_add(&mut values, x.dims(), scale, None);
        vec![Tensor::from_f64s(outputs[0].clone(), values)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(x), Some(scale)] = *inputs else { return vec![] };
        let ty = mir.ty(x).clone();
        let wide = wide(ty.dtype, self.stash);
        let x = mir.cast(x, wide);
        let moments = moments(mir, x, &trailing(self.axis, ty.rank()), self.epsilon, false);
        let scale = mir.cast(scale, wide);
        let y = scaled(mir, x, Some(moments.inverse), Some(scale), None);
        vec![mir.cast(y, outputs[0].dtype)]
    }
}

/// Over `axes`: `(X - mean) / (standard deviation + 1e-9)`.
#[derive(Clone, Debug, PartialEq)]
pub struct MeanVarianceNormalization {
    axes: Vec<i64>,
}

impl Op for MeanVarianceNormalization {
    const NAME: &'static str = "MeanVarianceNormalization";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(MeanVarianceNormalization { axes: attrs.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]) })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        tools::axes(&self.axes, x.rank())?;
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let Ok(axes) = tools::axes(&self.axes, x.ty().rank()) else { return vec![] };
        let mut values = x.f64s();
        let group = groups(x.dims(), &axes);
        let mean = means(&values, &group, x.dims(), &axes);
        values.iter_mut().zip(&group).for_each(|(v, &g)| *v -= mean[g]);
        let squares: Vec<_> = values.iter().map(|v| v * v).collect();
        let variance = means(&squares, &group, x.dims(), &axes);
        values.iter_mut().zip(&group).for_each(|(v, &g)| *v /= variance[g].sqrt() + 1e-9);
        vec![Tensor::from_f64s(outputs[0].clone(), values)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let Ok(axes) = tools::axes(&self.axes, mir.ty(x).rank()) else { return vec![] };
        let dtype = mir.ty(x).dtype;
        let mean = mir.mean(x, &axes);
        let centered = mir.binary(Binary::Sub, x, mean);
        let squares = mir.binary(Binary::Mul, centered, centered);
        let variance = mir.mean(squares, &axes);
        let mut e = Expr::new();
        let [v, var, tiny] = [e.operand(0), e.operand(1), e.literal(dtype, 1e-9)];
        let deviation = e.unary(Unary::Sqrt, var);
        let divisor = e.binary(Binary::Add, deviation, tiny);
        let result = e.binary(Binary::Div, v, divisor);
        vec![mir.map(e.returning(result), &[centered, variance])]
    }
}

fn epsilon(attrs: &mut Attrs) -> Result<f64, ErrorKind> {
    attrs.float_or("epsilon", 1e-5)
}

/// The type that means and the like are computed and returned in.
fn stash(attrs: &mut Attrs) -> Result<DType, ErrorKind> {
    let number = attrs.int_or("stash_type", 1)?;
    let found = u32::try_from(number).ok().and_then(DType::from_onnx).filter(|t| t.is_float());
    found.ok_or_else(|| {
        let kind = ErrorKind::wrong(format!("attribute \"stash_type\" is {number}"));
        kind.help("it must be the number of a floating-point type")
    })
}

/// The wider of an operand's type and the type that the model wants to compute in.
fn wide(dtype: DType, stash: DType) -> DType {
    if dtype.bytes() >= stash.bytes() { dtype } else { stash }
}

/// `[channels, 1, ..]`: what broadcasts along axis 1.
fn per_channel(x: &Type, channels: usize) -> Vec<usize> {
    [vec![channels], vec![1; x.rank() - 2]].concat()
}

fn check_dims(inputs: &Operands<'_>, i: usize, dims: &[usize]) -> Result<(), ErrorKind> {
    let ty = inputs.ty(i)?;
    if ty.dims == dims {
        return Ok(());
    }
    Err(ErrorKind::wrong(format!("operand {i} is {ty}")).help(format!("its shape must be {dims:?}")))
}

/// X with a scale and a bias of as many elements as `expected` says for so many channels.
fn infer_channels(
    inputs: &Operands<'_>,
    expected: impl Fn(usize) -> Result<usize, ErrorKind>,
) -> Result<Vec<Type>, ErrorKind> {
    inputs.arity(3, 3)?;
    let x = inputs.ty(0)?;
    tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
    if x.rank() < 3 {
        let kind = ErrorKind::wrong(format!("{x} has no spatial axes"));
        return Err(kind.help("the first two axes are the batch and the channels"));
    }
    let elements = expected(x.dims[1])?;
    for i in 1..3 {
        check_dims(inputs, i, &[elements])?;
        if inputs.ty(i)?.dtype != x.dtype {
            let kind = ErrorKind::wrong(format!("operand {i} is {}", inputs.ty(i)?));
            return Err(kind.help(format!("its element type must be {}", x.dtype)));
        }
    }
    Ok(vec![x.clone()])
}

/// The axes from `axis` on, for X with operands that broadcast to it.
fn infer_trailing(inputs: &Operands<'_>, axis: i64) -> Result<Vec<usize>, ErrorKind> {
    let x = inputs.ty(0)?;
    tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
    let axis = tools::axis(axis, x.rank())?;
    for (i, ty) in (1..inputs.len()).filter_map(|i| inputs.get(i).map(|ty| (i, ty))) {
        tools::dtype_in(ty, &tools::FLOATS, &tools::FLOATS)?;
        if crate::types::broadcast(&x.dims, &ty.dims).is_none_or(|dims| dims != x.dims) {
            let kind = ErrorKind::wrong(format!("operand {i} is {ty}"));
            return Err(kind.help(format!("it must broadcast to {x}")));
        }
    }
    Ok((axis..x.rank()).collect())
}

fn trailing(axis: i64, rank: usize) -> Vec<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    (axis as usize..rank).collect()
}

/// For every element, the number of its group: elements that differ only along `axes` are one.
fn groups(dims: &[usize], axes: &[usize]) -> Vec<usize> {
    let kept: Vec<_> =
        dims.iter().enumerate().map(|(a, &d)| if axes.contains(&a) { 1 } else { d }).collect();
    let mut groups = vec![];
    for_each_index(dims, |index| groups.push(tools::broadcast_index(index, &kept)));
    groups
}

/// The mean of each group.
fn means(values: &[f64], group: &[usize], dims: &[usize], axes: &[usize]) -> Vec<f64> {
    let size: usize = axes.iter().map(|&a| dims[a]).product();
    let kept = (0..dims.len()).filter(|a| !axes.contains(a));
    let count = kept.map(|a| dims[a]).product();
    let mut sums = vec![0.0; count];
    values.iter().zip(group).for_each(|(v, &g)| sums[g] += v);
    sums.iter_mut().for_each(|s| *s /= size as f64);
    sums
}

/// Mean 0 and variance 1 for each group; gives the means and `1 / sqrt(variance + epsilon)`.
fn normalize(values: &mut [f64], dims: &[usize], axes: &[usize], epsilon: f64) -> (Vec<f64>, Vec<f64>) {
    let group = groups(dims, axes);
    let mean = means(values, &group, dims, axes);
    values.iter_mut().zip(&group).for_each(|(v, &g)| *v -= mean[g]);
    let squares: Vec<_> = values.iter().map(|v| v * v).collect();
    let variance = means(&squares, &group, dims, axes);
    let inverse: Vec<_> = variance.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
    values.iter_mut().zip(&group).for_each(|(v, &g)| *v *= inverse[g]);
    (mean, inverse)
}

/// `values * scale + bias`, both taken as having `shape` and broadcast to `dims`.
fn affine(values: &mut [f64], dims: &[usize], shape: &[usize], scale: &Tensor, bias: &Tensor) {
    let [scale, bias] = [scale, bias].map(|t| t.reshaped(shape).unwrap_or_else(|| t.clone()));
    multiply_add(values, dims, &scale, Some(&bias));
}

fn multiply_add(values: &mut [f64], dims: &[usize], scale: &Tensor, bias: Option<&Tensor>) {
    let factors = scale.f64s();
    let terms = bias.map(|b| (b.f64s(), b.dims()));
    let mut values = values.iter_mut();
    for_each_index(dims, |index| {
        let Some(v) = values.next() else { return };
        *v *= factors[tools::broadcast_index(index, scale.dims())];
        if let Some((terms, dims)) = &terms {
            *v += terms[tools::broadcast_index(index, dims)];
        }
    });
}

/// What normalization needs, in MIR.
struct Moments {
    mean: mir::Value,
    /// X less the mean.
    centered: mir::Value,
    /// `1 / sqrt(mean of centered squares + epsilon)`.
    inverse: mir::Value,
}

/// The moments over `axes`; without `center`, the mean is taken for 0.
fn moments(mir: &mut mir::Builder, x: mir::Value, axes: &[usize], epsilon: f64, center: bool) -> Moments {
    let dtype = mir.ty(x).dtype;
    let (mean, centered) = match center {
        true => {
            let mean = mir.mean(x, axes);
            (mean, mir.binary(Binary::Sub, x, mean))
        }
        false => (x, x),
    };
    let squares = mir.binary(Binary::Mul, centered, centered);
    let variance = mir.mean(squares, axes);
    let mut e = Expr::new();
    let [v, eps, one] = [e.operand(0), e.literal(dtype, epsilon), e.literal(dtype, 1.0)];
    let shifted = e.binary(Binary::Add, v, eps);
    let root = e.unary(Unary::Sqrt, shifted);
    let result = e.binary(Binary::Div, one, root);
    Moments { mean, centered, inverse: mir.map(e.returning(result), &[variance]) }
}

/// `x * inverse * scale + bias`, what there is of it, in one step.
fn scaled(
    mir: &mut mir::Builder,
    x: mir::Value,
    inverse: Option<mir::Value>,
    scale: Option<mir::Value>,
    bias: Option<mir::Value>,
) -> mir::Value {
    let mut e = Expr::new();
    let mut operands = vec![x];
    let mut result = e.operand(0);
    let steps = [(Binary::Mul, inverse), (Binary::Mul, scale), (Binary::Add, bias)];
    for (op, value) in steps.into_iter().filter_map(|(op, v)| v.map(|v| (op, v))) {
        let other = e.operand(operands.len());
        operands.push(value);
        result = e.binary(op, result, other);
    }
    mir.map(e.returning(result), &operands)
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::refused;

    #[test]
    fn misfits_are_refused() {
        refused("BatchNormalization", &["f32[2,3]", "f32[3]", "f32[3]", "f32[3]", "f32[2]"]);
        refused("BatchNormalization training_mode=1", &["f32[2,3]"]);
        refused("GroupNormalization num_groups=3", &["f32[2,4,3]", "f32[4]", "f32[4]"]);
        refused("GroupNormalization num_groups=0", &["f32[2,4,3]", "f32[4]", "f32[4]"]);
        refused("LayerNormalization axis=3", &["f32[2,3,4]", "f32[4]"]);
        refused("LayerNormalization", &["f32[2,3,4]", "f32[3]"]);
        refused("LayerNormalization stash_type=7", &["f32[2,3,4]", "f32[4]"]);
        refused("LRN", &["f32[1,5,2,3]"]);
        refused("LpNormalization p=3", &["f32[2,3]"]);
    }
}
