//! Convolutions.

use super::window::{self, Attributes, Axis, Run};
use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary};
use crate::tensor::Tensor;
use crate::types::Type;

/// Convolution of X `[N, C, spatial..]` by W `[K, C / group, taps..]`, plus B `[K]`:
///
/// `Y[n, k, o] = B[k] + sum of W[k, c, t] * X[n, c + C / group * (k / (K / group)), o * stride + t *
/// dilation - low]` over `c` and `t`; X is zero outside its bounds.
///
/// NaN and infinities spread to the windows that have them, a zero tap included. Of no channels, the
/// bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    window: Attributes,
    groups: usize,
}

impl Conv {
    /// The windows, for operands that fit.
    ///
    /// # Errors
    ///
    /// When they do not.
    pub(super) fn axes(&self, x: &[usize], w: &[usize]) -> Result<Vec<Axis>, ErrorKind> {
        self.window.axes(&x[2..], &w[2..])
    }

    /// Dimensions of the result, for operands of these shapes (their element types do not matter) and a bias.
    ///
    /// # Errors
    ///
    /// When they do not fit.
    pub(super) fn result_dims(
        &self,
        x: &Type,
        w: &Type,
        bias: Option<&Type>,
    ) -> Result<Vec<usize>, ErrorKind> {
        check_shapes(x, w, &self.window)?;
        let (channels, results) = (x.dims[1], w.dims[0]);
        if w.dims[1].checked_mul(self.groups) != Some(channels) {
            let kind = ErrorKind::wrong(format!("{x} has {channels} channels"));
            let expected = w.dims[1].saturating_mul(self.groups);
            return Err(kind.help(format!("weights {w} in {} groups take {expected}", self.groups)));
        }
        check_results(bias, results, self.groups)?;
        let axes = self.axes(&x.dims, &w.dims)?;
        window::check_padded(x.dtype, [x.dims[0], channels], &axes)?;
        Ok([x.dims[0], results].into_iter().chain(axes.iter().map(|a| a.windows)).collect())
    }

    /// The sums by definition, of operands of these dimensions, from a bias on. `None` where they do not fit.
    pub(super) fn sums(
        &self,
        (x, dx): (&[f64], &[usize]),
        (w, dw): (&[f64], &[usize]),
        bias: Option<&[f64]>,
    ) -> Option<Vec<f64>> {
        let axes = self.axes(dx, dw).ok()?;
        let runs = window::runs(&axes);
        let plane: usize = dx[2..].iter().product();
        let windows: usize = axes.iter().map(|a| a.windows).product();
        let (taps, depth) = (runs.len(), dw[1]);
        let mut y = Vec::with_capacity(dx[0] * dw[0] * windows);
        let mut sums = vec![0.0; windows];
        for n in 0..dx[0] {
            for k in 0..dw[0] {
                let group = k / (dw[0] / self.groups);
                sums.fill(bias.map_or(0.0, |b| b[k]));
                for c in 0..depth {
                    let x = &x[(n * dx[1] + group * depth + c) * plane..][..plane];
                    let w = &w[(k * depth + c) * taps..][..taps];
                    for (runs, &w) in runs.iter().zip(w) {
                        runs.iter().for_each(|run| accumulate(run, w, x, &mut sums));
                    }
                }
                y.extend_from_slice(&sums);
            }
        }
        Some(y)
    }

    /// The sums in MIR, without a bias, channels last. `None` where the operands do not fit.
    pub(super) fn expand_sums(
        &self,
        mir: &mut mir::Builder,
        x: mir::Value,
        w: mir::Value,
    ) -> Option<mir::Value> {
        let (dx, dw) = (mir.dims(x), mir.dims(w));
        let axes = self.axes(&dx, &dw).ok()?;
        let x = mir.channels_last(x);
        let low: Vec<_> = bordered(axes.iter().map(|a| a.low));
        let high: Vec<_> = bordered(axes.iter().map(Axis::reach));
        let x = mir.pad(x, &low, &high, 0.0);
        let perm: Vec<_> = (2..dw.len()).chain([1, 0]).collect();
        let w = mir.permute(w, &perm);
        let [strides, dilations] =
            [|a: &Axis| a.stride, |a: &Axis| a.dilation].map(|f| axes.iter().map(f).collect::<Vec<_>>());
        Some(mir.conv(x, w, &strides, &dilations, self.groups))
    }
}

impl Op for Conv {
    const NAME: &'static str = "Conv";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Conv { window: Attributes::parse(attrs)?, groups: groups(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 3)?;
        let (x, w) = (inputs.ty(0)?, inputs.ty(1)?);
        check_types(inputs)?;
        Ok(vec![tools::sized(x.dtype, self.result_dims(x, w, inputs.get(2))?)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(w), ..] = inputs else { return vec![] };
        let bias = inputs.get(2).copied().flatten().map(Tensor::f64s);
        let sums = self.sums((&x.f64s(), x.dims()), (&w.f64s(), w.dims()), bias.as_deref());
        sums.map(|y| Tensor::from_f64s(outputs[0].clone(), y)).into_iter().collect()
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        _: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(x), Some(w), ..] = *inputs else { return vec![] };
        let Some(mut y) = self.expand_sums(mir, x, w) else { return vec![] };
        if let Some(bias) = inputs.get(2).copied().flatten() {
            y = mir.binary(Binary::Add, y, bias);
        }
        vec![mir.channels_first(y)]
    }
}

/// The gradient of [`Conv`] with respect to X, as an operator: X `[N, C, spatial..]`, W `[C, K / group,
/// taps..]`, B `[K]`. Every element of X is spread over a window of the result:
///
/// `Y[n, k, i * stride + t * dilation - low] += W[c, k, t] * X[n, c, i]`, from `B[k]` on.
///
/// The result has `stride * (spatial - 1) + output_padding + span - low - high` elements along an axis,
/// or `output_shape` of them; the padding then follows. NaN and infinities spread as there.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvTranspose {
    window: Attributes,
    groups: usize,
    output_padding: Vec<usize>,
    output_shape: Option<Vec<usize>>,
}

impl ConvTranspose {
    /// The windows over the *result*: what is a window there is an element of X.
    fn axes(&self, x: &[usize], w: &[usize]) -> Result<Vec<Axis>, ErrorKind> {
        let rank = x.len() - 2;
        let [strides, dilations, lows, highs] = self.window.per_axis(rank)?;
        let lengths = [
            ("output_padding", self.output_padding.len(), 0),
            ("output_shape", self.output_shape.as_ref().map_or(rank, Vec::len), rank),
        ];
        for (name, found, other) in lengths {
            if found != rank && found != other {
                return Err(ErrorKind::wrong(format!(
                    "attribute \"{name}\" has {found} entries for {rank} spatial axes"
                )));
            }
        }
        let axis = |i: usize| {
            let (windows, kernel, stride, dilation) = (x[2 + i], w[2 + i], strides[i], dilations[i]);
            if windows == 0 {
                return Err(ErrorKind::wrong(format!("spatial axis {i} has no elements")));
            }
            let extra = self.output_padding.get(i).copied().unwrap_or(0);
            let span = (kernel - 1).checked_mul(dilation).and_then(|n| n.checked_add(1 + extra));
            let full = stride.checked_mul(windows - 1).zip(span).and_then(|(a, b)| a.checked_add(b));
            let full = full
                .filter(|&n| n < 1 << 40)
                .ok_or_else(|| ErrorKind::limit("the result is too large"))?;
            let wanted = match (&self.output_shape, self.window.auto_pad) {
                (Some(shape), _) => Some(shape[i]),
                (None, window::AutoPad::SameUpper | window::AutoPad::SameLower) => Some(windows * stride),
                (None, _) => None,
            };
            let (low, extent) = match wanted {
                Some(extent) => {
                    let total = full.saturating_sub(extent);
                    let upper = self.window.auto_pad == window::AutoPad::SameUpper;
                    (if upper { total / 2 } else { total - total / 2 }, extent)
                }
                None => {
                    let extent = full.checked_sub(lows[i] + highs[i]).filter(|&n| n > 0);
                    let none = || ErrorKind::wrong(format!("padding leaves nothing of axis {i}"));
                    (lows[i], extent.ok_or_else(none)?)
                }
            };
            Ok(Axis { extent, kernel, stride, dilation, low, high: 0, windows })
        };
        (0..rank).map(axis).collect()
    }
}

impl Op for ConvTranspose {
    const NAME: &'static str = "ConvTranspose";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let padding = attrs.ints("output_padding")?.unwrap_or_default();
        let output_shape = match attrs.ints("output_shape")? {
            Some(list) if !list.is_empty() => Some(window::positive("output_shape", &list)?),
            _ => None,
        };
        Ok(ConvTranspose {
            window: Attributes::parse(attrs)?,
            groups: groups(attrs)?,
            output_padding: window::bounded("output_padding", 0, &padding)?,
            output_shape,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 3)?;
        let (x, w) = (inputs.ty(0)?, inputs.ty(1)?);
        check_types(inputs)?;
        check_shapes(x, w, &self.window)?;
        if x.dims[1] != w.dims[0] || x.dims[1] % self.groups != 0 {
            let kind = ErrorKind::wrong(format!("{x} has {} channels", x.dims[1]));
            let expected = format!("weights {w} take {} in {} groups", w.dims[0], self.groups);
            return Err(kind.help(expected));
        }
        let results = w.dims[1]
            .checked_mul(self.groups)
            .ok_or_else(|| ErrorKind::limit("the result is too large"))?;
        check_results(inputs.get(2), results, self.groups)?;
        let axes = self.axes(&x.dims, &w.dims)?;
        // The convolution that computes it pads X with zeros up to these extents.
        let padded = axes.iter().map(|a| a.extent + 2 * a.span() + a.windows * a.stride);
        let dims: Vec<_> = [x.dims[0], x.dims[1]].into_iter().chain(padded).collect();
        tools::sized(x.dtype, dims)?;
        let dims = [x.dims[0], results].into_iter().chain(axes.iter().map(|a| a.extent));
        Ok(vec![tools::sized(x.dtype, dims.collect::<Vec<_>>())?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(w), ..] = inputs else { return vec![] };
        let Ok(axes) = self.axes(x.dims(), w.dims()) else { return vec![] };
        let (dx, dw) = (x.dims(), w.dims());
        let runs = window::runs(&axes);
        let plane: usize = dx[2..].iter().product();
        let extent: usize = axes.iter().map(|a| a.extent).product();
        let (taps, width, depth) = (runs.len(), dw[1], dx[1] / self.groups);
        let (x, w) = (x.f64s(), w.f64s());
        let bias = inputs.get(2).copied().flatten().map(Tensor::f64s);
        let mut y = Vec::with_capacity(outputs[0].elements());
        let mut sums = vec![0.0; extent];
        for n in 0..dx[0] {
            for k in 0..width * self.groups {
                sums.fill(bias.as_ref().map_or(0.0, |b| b[k]));
                let group = k / width;
                for c in group * depth..(group + 1) * depth {
                    let x = &x[(n * dx[1] + c) * plane..][..plane];
                    let w = &w[(c * width + k % width) * taps..][..taps];
                    for (runs, &w) in runs.iter().zip(w) {
                        for run in runs {
                            for i in 0..run.count {
                                sums[run.element + i * run.step] += w * x[run.window + i];
                            }
                        }
                    }
                }
                y.extend_from_slice(&sums);
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        _: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(x), Some(w), ..] = *inputs else { return vec![] };
        let (dx, dw) = (mir.dims(x), mir.dims(w));
        let Ok(axes) = self.axes(&dx, &dw) else { return vec![] };
        let (rank, groups) = (axes.len(), self.groups);
        // A convolution over X with zeros between its elements, by flipped weights. The zeros at its
        // ends follow from what the result needs; where they are less than none, X is cut.
        let x = mir.channels_last(x);
        let interior = bordered(axes.iter().map(|a| a.stride - 1));
        let ends = |a: &Axis| {
            let low = a.span() as i64 - 1 - a.low as i64;
            let spread = ((a.windows - 1) * a.stride + 1) as i64;
            [low, (a.extent + a.span() - 1) as i64 - spread - low]
        };
        let [low, high] = [0, 1].map(|end| bordered(axes.iter().map(|a| ends(a)[end].max(0) as usize)));
        let x = mir.pad_interior(x, &low, &high, &interior, 0.0);
        let starts = bordered(axes.iter().map(|a| (-ends(a)[0]).max(0) as usize));
        let mut counts = mir.dims(x);
        for (i, a) in axes.iter().enumerate() {
            counts[i + 1] = a.extent + a.span() - 1;
        }
        let x = mir.slice(x, &starts, &counts, &vec![1; rank + 2]);
        // [C, K / groups, taps..] to [taps.., C / groups, K].
        let split: Vec<_> = [groups, dw[0] / groups].into_iter().chain(dw[1..].iter().copied()).collect();
        let w = mir.reshape(w, split);
        let perm: Vec<_> = (3..3 + rank).chain([1, 0, 2]).collect();
        let w = mir.permute(w, &perm);
        let joined: Vec<_> = dw[2..].iter().copied().chain([dw[0] / groups, groups * dw[1]]).collect();
        let w = mir.reshape(w, joined.clone());
        let last: Vec<_> = dw[2..].iter().map(|k| k - 1).chain([0, 0]).collect();
        let steps: Vec<_> = vec![-1; rank].into_iter().chain([1, 1]).collect();
        let w = mir.slice(w, &last, &joined, &steps);
        let dilations: Vec<_> = axes.iter().map(|a| a.dilation).collect();
        let mut y = mir.conv(x, w, &vec![1; rank], &dilations, groups);
        if let Some(bias) = inputs.get(2).copied().flatten() {
            y = mir.binary(Binary::Add, y, bias);
        }
        vec![mir.channels_first(y)]
    }
}

/// `sums[window] += w * x[element]` along a run.
fn accumulate(run: &Run, w: f64, x: &[f64], sums: &mut [f64]) {
    let sums = &mut sums[run.window..][..run.count];
    let x = &x[run.element..];
    if run.step == 1 {
        sums.iter_mut().zip(x).for_each(|(s, x)| *s += w * x);
    } else {
        sums.iter_mut().zip(x.iter().step_by(run.step)).for_each(|(s, x)| *s += w * x);
    }
}

/// One number per axis of `[N, spatial.., C]`: 0 at the ends.
fn bordered(spatial: impl Iterator<Item = usize>) -> Vec<usize> {
    std::iter::once(0).chain(spatial).chain([0]).collect()
}

fn groups(attrs: &mut Attrs) -> Result<usize, ErrorKind> {
    Ok(window::positive("group", &[attrs.int_or("group", 1)?])?[0])
}

/// What element types the operands of both operators have to have.
fn check_types(inputs: &Operands<'_>) -> Result<(), ErrorKind> {
    let x = inputs.ty(0)?;
    tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
    match [1, 2].into_iter().filter_map(|i| inputs.get(i)).find(|t| t.dtype != x.dtype) {
        Some(other) => {
            Err(ErrorKind::wrong(format!("element types differ: {} and {}", x.dtype, other.dtype)))
        }
        None => Ok(()),
    }
}

/// What shapes X and W have to have.
fn check_shapes(x: &Type, w: &Type, window: &Attributes) -> Result<(), ErrorKind> {
    if x.rank() < 3 || w.rank() != x.rank() {
        let kind = ErrorKind::wrong(format!("ranks do not fit: {x} and {w}"));
        return Err(kind.help("both have two axes for the channels and at least one spatial axis"));
    }
    if w.dims[2..].contains(&0) {
        return Err(ErrorKind::wrong(format!("weights {w} have no taps")));
    }
    match &window.kernel {
        Some(kernel) if !kernel.is_empty() && kernel[..] != w.dims[2..] => Err(ErrorKind::wrong(format!(
            "attribute \"kernel_shape\" is {kernel:?}, and the weights are {w}"
        ))),
        _ => Ok(()),
    }
}

/// What the number of result channels has to be.
fn check_results(bias: Option<&Type>, results: usize, groups: usize) -> Result<(), ErrorKind> {
    if !results.is_multiple_of(groups) {
        return Err(ErrorKind::wrong(format!("{results} result channels in {groups} groups")));
    }
    match bias {
        Some(bias) if bias.dims != [results] => {
            let kind = ErrorKind::wrong(format!("the bias is {bias}"));
            Err(kind.help(format!("it must have {results} elements, one per result channel")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn ones_are_counted() {
        let ones = |n: usize| vec!["1"; n].join(",");
        let (x, w) = (format!("f32[1,1,3]={}", ones(3)), format!("f32[1,1,2]={}", ones(2)));
        assert_eq!(definition("Conv pads=[1,1]", &[&x, &w])[0].f64s(), [1.0, 2.0, 2.0, 1.0]);
        assert_eq!(definition("ConvTranspose", &[&x, &w])[0].f64s(), [1.0, 2.0, 2.0, 1.0]);
        assert_eq!(definition("ConvTranspose strides=[2]", &[&x, &w])[0].f64s(), [1.0; 6]);
    }

    #[test]
    fn misfits_are_refused() {
        let x = "f32[1,4,5,5]";
        for (node, w) in [
            ("Conv", "f32[2,3,3,3]"),
            ("Conv group=3", "f32[2,4,3,3]"),
            ("Conv group=0", "f32[2,4,3,3]"),
            ("Conv", "f32[2,4,7,3]"),
            ("Conv", "f32[2,4,0,3]"),
            ("Conv", "f32[2,4,3]"),
            ("Conv strides=[0,1]", "f32[2,4,3,3]"),
            ("Conv strides=[1]", "f32[2,4,3,3]"),
            ("Conv pads=[-1,0,0,0]", "f32[2,4,3,3]"),
            ("Conv pads=[1,1]", "f32[2,4,3,3]"),
            ("Conv pads=[1,1,1,1] auto_pad=VALID", "f32[2,4,3,3]"),
            ("Conv kernel_shape=[2,2]", "f32[2,4,3,3]"),
            ("Conv dilations=[9223372036854775807,1]", "f32[2,4,3,3]"),
            ("Conv pads=[1099511627775,1099511627775,1,1]", "f32[2,4,3,3]"),
            ("ConvTranspose", "f32[2,4,3,3]"),
            ("ConvTranspose strides=[1099511627775,1]", "f32[4,4,3,3]"),
            ("ConvTranspose pads=[9,9,9,9]", "f32[4,4,3,3]"),
        ] {
            refused(node, &[x, w]);
        }
    }
}
