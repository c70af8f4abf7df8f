//! Fourier transforms and windows.
//!
//! A transform is a product by the matrix of its roots of unity, which is known when the model is compiled:
//! exact, in one kernel, and no slower than a fast one for the extents of speech and text.

use super::cast::element_type;
use super::tools::{self, FLOATS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::{self, Binary};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use std::f64::consts::TAU;

/// Element types of transforms.
const TYPES: [DType; 2] = [DType::F32, DType::F64];

/// The largest matrix, in elements.
const LARGEST: usize = 1 << 26;

/// e^(2 pi i k / n) as cosine and sine, for `k` reduced first.
fn root(k: usize, n: usize) -> (f64, f64) {
    let angle = TAU * ((k % n) as f64 / n as f64);
    (angle.cos(), angle.sin())
}

/// A transform of period `period`: of so many elements that are read, of `parts` numbers each (1: real, 2: complex),
/// to `count` elements.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Transform {
    period: usize,
    read: usize,
    parts: usize,
    count: usize,
    /// Numbers of a result.
    numbers: usize,
    inverse: bool,
}

impl Transform {
    /// With `onesided`, complex numbers are the first half of those that belong to real ones, and real ones have the
    /// first half as results.
    fn new(period: i64, parts: usize, inverse: bool, onesided: bool) -> Result<Transform, ErrorKind> {
        let found = || ErrorKind::wrong(format!("a transform of {period} elements"));
        let period = usize::try_from(period).ok().filter(|&n| n > 0).ok_or_else(found)?;
        if onesided && parts != 1 && !inverse {
            let kind = ErrorKind::wrong("one side is asked for of complex numbers");
            return Err(kind.help("of real ones both sides are equal, of complex ones they are not"));
        }
        let half = period / 2 + 1;
        let (read, count, numbers) = match (onesided, parts) {
            (false, _) => (period, period, 2),
            (true, 1) => (period, half, 2),
            (true, _) => (half, period, 1),
        };
        let elements = (read.checked_mul(parts)).zip(count.checked_mul(numbers));
        let elements = elements.and_then(|(rows, columns)| rows.checked_mul(columns));
        match elements.filter(|&n| n <= LARGEST) {
            Some(_) => Ok(Transform { period, read, parts, count, numbers, inverse }),
            None => Err(ErrorKind::unsupported(format!("a transform of {period} elements"))),
        }
    }

    /// What the sum is multiplied by.
    fn scale(&self) -> f64 {
        if self.inverse { 1.0 / self.period as f64 } else { 1.0 }
    }

    /// How often an element counts: those of a half, but for the first and the middle one, stand for two.
    fn weight(&self, j: usize) -> f64 {
        if self.numbers == 2 || j == 0 || 2 * j == self.period { 1.0 } else { 2.0 }
    }

    /// The matrix `[read, parts, numbers count]`.
    fn matrix(&self, dtype: DType) -> Tensor {
        let mut values = Vec::with_capacity(self.read * self.parts * self.numbers * self.count);
        for j in 0..self.read {
            let scale = self.scale() * self.weight(j);
            let sign = if self.inverse { scale } else { -scale };
            for part in 0..self.parts {
                for k in 0..self.count {
                    let (cos, sin) = root(j * k, self.period);
                    let (real, imaginary) = (scale * cos, sign * sin);
                    let both = if part == 0 { [real, imaginary] } else { [-imaginary, real] };
                    values.extend(&both[..self.numbers]);
                }
            }
        }
        let dims = [self.read, self.parts, self.numbers * self.count];
        Tensor::from_f64s(Type::new(dtype, dims), values)
    }

    /// The definition, for `at` giving the real and the imaginary part of an element that is read.
    fn sums(&self, at: impl Fn(usize) -> (f64, f64)) -> Vec<f64> {
        // The other half is the first one's mirror image.
        let whole = |j: usize| {
            if j < self.read {
                return at(j);
            }
            let (re, im) = at(self.period - j);
            (re, -im)
        };
        let sum = |k: usize| {
            let mut sum = (0.0, 0.0);
            for j in 0..self.period {
                let ((re, im), (cos, sin)) = (whole(j), root(j * k, self.period));
                let sin = if self.inverse { sin } else { -sin };
                sum = (sum.0 + re * cos - im * sin, sum.1 + re * sin + im * cos);
            }
            [sum.0 * self.scale(), sum.1 * self.scale()]
        };
        (0..self.count).flat_map(|k| sum(k).into_iter().take(self.numbers)).collect()
    }
}

/// The discrete Fourier transform along an axis of numbers whose real and imaginary parts lie on the last one (of
/// extent 1 where they are real): y(k) = sum over j of x(j) e^(-2 pi i j k / n), or with `inverse` that with the
/// other sign, divided by n. The axis is cut or filled with zeros to `dft_length`. With `onesided`, of real numbers
/// the first n / 2 + 1 results are left; with `inverse`, too, those are the operand, and the results are n real
/// ones, 2 (extent - 1) without a length. Length and axis have to be known when the model is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct DFT {
    inverse: bool,
    onesided: bool,
    /// Before version 20 it is an attribute.
    axis: Option<i64>,
}

impl DFT {
    fn axis(&self, x: &Type, given: Option<&Tensor>) -> Result<usize, ErrorKind> {
        let axis = self.axis.unwrap_or_else(|| given.map_or(-2, |axis| axis.int_at(0)));
        let axis = tools::axis(axis, x.rank())?;
        if axis + 1 == x.rank() {
            return Err(ErrorKind::wrong(format!("the last axis of {x} holds real and imaginary parts")));
        }
        Ok(axis)
    }

    fn transform(&self, x: &Type, axis: usize, length: Option<&Tensor>) -> Result<Transform, ErrorKind> {
        let parts = x.dims[x.rank() - 1];
        let own = match self.inverse && self.onesided && parts == 2 {
            true => 2 * x.dims[axis].saturating_sub(1),
            false => x.dims[axis],
        };
        let length = length.map_or(own as i64, |length| length.int_at(0));
        Transform::new(length, parts, self.inverse, self.onesided)
    }
}

impl Op for DFT {
    const NAME: &'static str = "DFT";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let axis = if attrs.opset() < 20 { Some(attrs.int_or("axis", 1)?) } else { None };
        let inverse = attrs.flag("inverse", false)?;
        Ok(DFT { inverse, onesided: attrs.flag("onesided", false)?, axis })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, if self.axis.is_some() { 2 } else { 3 })?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &TYPES, &FLOATS)?;
        if x.rank() < 2 || !matches!(x.dims[x.rank() - 1], 1 | 2) {
            let kind = ErrorKind::wrong(format!("the operand is {x}"));
            return Err(kind.help("the last axis must hold the real part, or both parts"));
        }
        for (i, what) in [(1, "the length"), (2, "the axis")] {
            inputs.get(i).map_or(Ok(x), |ty| tools::single(ty, what))?;
        }
        let axis = self.axis(x, inputs.known(2, "the axis")?)?;
        let transform = self.transform(x, axis, inputs.known(1, "the length")?)?;
        let mut dims = x.dims.clone();
        (dims[axis], dims[x.rank() - 1]) = (transform.count, transform.numbers);
        Ok(vec![tools::sized(x.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let Some(x) = operand(0) else { return vec![] };
        let Ok(axis) = self.axis(x.ty(), operand(2)) else { return vec![] };
        let Ok(transform) = self.transform(x.ty(), axis, operand(1)) else { return vec![] };
        let (parts, extent, values) = (transform.parts, x.dims()[axis], x.f64s());
        let inner: usize = x.dims()[axis + 1..x.dims().len() - 1].iter().product();
        let outer: usize = x.dims()[..axis].iter().product();
        let mut result = vec![0.0; outputs[0].elements()];
        for line in 0..outer * inner {
            let (o, i) = (line / inner, line % inner);
            let sums = transform.sums(|j| {
                let at = ((o * extent + j) * inner + i) * parts;
                let part = |p: usize| if j < extent && p < parts { values[at + p] } else { 0.0 };
                (part(0), part(1))
            });
            let numbers = transform.numbers;
            for (k, sum) in sums.chunks(numbers).enumerate() {
                let at = ((o * transform.count + k) * inner + i) * numbers;
                result[at..at + numbers].copy_from_slice(sum);
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), result)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let Some(x) = operand(0) else { return vec![] };
        let ty = mir.ty(x).clone();
        let known = |mir: &mir::Builder, i: usize| operand(i).and_then(|v| mir.constant_of(v).cloned());
        let (length, axis) = (known(mir, 1), known(mir, 2));
        let Ok(axis) = self.axis(&ty, axis.as_ref()) else { return vec![] };
        let Ok(transform) = self.transform(&ty, axis, length.as_ref()) else { return vec![] };
        // The axis beside that of the parts.
        let rank = ty.rank();
        let mut perm: Vec<usize> = (0..rank).filter(|&a| a != axis).collect();
        perm.insert(rank - 2, axis);
        let mut rows = mir.permute(x, &perm);
        let (extent, length) = (ty.dims[axis], transform.read);
        if length < extent {
            rows = mir.narrow(rows, rank - 2, 0, length);
        }
        let mut high = vec![0; rank];
        high[rank - 2] = length.saturating_sub(extent);
        rows = mir.pad(rows, &vec![0; rank], &high, 0.0);
        let mut dims = mir.dims(rows);
        let outer: usize = dims[..rank - 2].iter().product();
        let depth = length * transform.parts;
        let rows = mir.reshape(rows, [outer, depth]);
        let matrix = mir.constant(transform.matrix(ty.dtype));
        let matrix = mir.reshape(matrix, [depth, transform.numbers * transform.count]);
        let product = mir.contract(rows, matrix);
        (dims[rank - 2], dims[rank - 1]) = (transform.count, transform.numbers);
        let product = mir.reshape(product, dims);
        let mut back: Vec<usize> = (0..rank - 2).collect();
        back.insert(axis, rank - 2);
        back.push(rank - 1);
        let result = mir.permute(product, &back);
        debug_assert_eq!(mir.ty(result), &outputs[0]);
        vec![result]
    }
}

/// The Fourier transforms of parts of a signal `[batch, length, 1 or 2]`: one from every `frame_step` elements on,
/// each of `frame_length` elements that are multiplied by a window. Results `[batch, frames, n / 2 + 1 or n, 2]`.
/// Step and length have to be known when the model is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct STFT {
    onesided: bool,
}

impl STFT {
    /// The step, the transform, and the number of frames.
    fn frames(
        &self,
        x: &Type,
        step: Option<&Tensor>,
        window: Option<&Type>,
        length: Option<&Tensor>,
    ) -> Result<(usize, Transform, usize), ErrorKind> {
        let step = step.map_or(1, |step| step.int_at(0));
        let step = usize::try_from(step).ok().filter(|&s| s > 0);
        let step = step.ok_or_else(|| ErrorKind::wrong("the step must be at least 1"))?;
        let length = match (length, window) {
            (Some(length), _) => length.int_at(0),
            (None, Some(window)) => window.elements() as i64,
            (None, None) => return Err(ErrorKind::wrong("neither a window nor a length is given")),
        };
        // Real numbers may come as complex ones without an imaginary part, too.
        let parts = x.dims[2];
        let transform = Transform::new(length, parts, false, self.onesided)?;
        if let Some(window) = window.filter(|w| w.dims != [transform.period]) {
            let kind = ErrorKind::wrong(format!("the window is {window}"));
            return Err(kind.help(format!("it must be {}[{length}]", x.dtype)));
        }
        let Some(rest) = x.dims[1].checked_sub(transform.period) else {
            return Err(ErrorKind::wrong(format!("a frame of {length} elements does not fit into {x}")));
        };
        Ok((step, transform, rest / step + 1))
    }
}

impl Op for STFT {
    const NAME: &'static str = "STFT";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(STFT { onesided: attrs.flag("onesided", true)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 4)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &TYPES, &FLOATS)?;
        if x.rank() != 3 || !matches!(x.dims[2], 1 | 2) {
            let kind = ErrorKind::wrong(format!("the signal is {x}"));
            return Err(kind.help("it must be [batch, length, 1 or 2]"));
        }
        tools::single(inputs.ty(1)?, "the step")?;
        inputs.get(3).map_or(Ok(x), |ty| tools::single(ty, "the length"))?;
        if let Some(window) = inputs.get(2) {
            tools::dtype_in(window, &[x.dtype], &[])?;
        }
        let step = inputs.known(1, "the step")?;
        let length = inputs.known(3, "the length")?;
        let (_, transform, frames) = self.frames(x, step, inputs.get(2), length)?;
        Ok(vec![tools::sized(x.dtype, [x.dims[0], frames, transform.count, 2])?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let Some(x) = operand(0) else { return vec![] };
        let window = operand(2);
        let frames = self.frames(x.ty(), operand(1), window.map(Tensor::ty), operand(3));
        let Ok((step, transform, frames)) = frames else { return vec![] };
        let (values, window) = (x.f64s(), window.map(Tensor::f64s));
        let (extent, parts) = (x.dims()[1], x.dims()[2]);
        let mut result = Vec::with_capacity(outputs[0].elements());
        for frame in 0..x.dims()[0] * frames {
            let first = (frame / frames) * extent + frame % frames * step;
            result.extend(transform.sums(|j| {
                let factor = window.as_ref().map_or(1.0, |w| w[j]);
                let part = |p: usize| if p < parts { values[(first + j) * parts + p] } else { 0.0 };
                (part(0) * factor, part(1) * factor)
            }));
        }
        vec![Tensor::from_f64s(outputs[0].clone(), result)]
    }

    /// A convolution whose filters are the matrix' columns, each times the window.
    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let Some(x) = operand(0) else { return vec![] };
        let known = |mir: &mir::Builder, i: usize| operand(i).and_then(|v| mir.constant_of(v).cloned());
        let (ty, window) = (mir.ty(x).clone(), operand(2).map(|w| mir.ty(w).clone()));
        let (step, length) = (known(mir, 1), known(mir, 3));
        let frames = self.frames(&ty, step.as_ref(), window.as_ref(), length.as_ref());
        let Ok((step, transform, _)) = frames else { return vec![] };
        let mut filters = mir.constant(transform.matrix(ty.dtype));
        if let Some(window) = operand(2) {
            let window = mir.reshape(window, [transform.period, 1, 1]);
            filters = mir.binary(Binary::Mul, filters, window);
        }
        let sums = mir.conv(x, filters, &[step], &[1], 1);
        vec![mir.reshape(sums, outputs[0].dims.clone())]
    }
}

/// What windows have in common: `size` numbers of cosines (known when the model is compiled), of a period of
/// `size` or, not `periodic`, of one less.
#[derive(Clone, Debug, PartialEq)]
struct Window {
    dtype: DType,
    periodic: bool,
}

impl Window {
    fn parse(attrs: &mut Attrs) -> Result<Window, ErrorKind> {
        let dtype = element_type(attrs.int_or("output_datatype", 1)?, "output_datatype")?;
        Ok(Window { dtype, periodic: attrs.flag("periodic", true)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        tools::dtype_in(&Type::scalar(self.dtype), &FLOATS, &tools::NUMBERS)?;
        tools::single(inputs.ty(0)?, "the size")?;
        let size = inputs.known(0, "the size")?.map_or(0, |size| size.int_at(0));
        Ok(vec![tools::sized(self.dtype, tools::dims(&[size])?)?])
    }

    /// The sum of cosines with these factors; the window of one element is 1.
    fn values(&self, ty: &Type, factors: [f64; 3]) -> Tensor {
        let n = ty.elements();
        let period = if self.periodic { n } else { n.saturating_sub(1) };
        let value = |i: usize| {
            let terms = factors.iter().enumerate();
            terms.map(|(k, factor)| factor * root(i * k, period.max(1)).0).sum::<f64>()
        };
        Tensor::from_f64s(ty.clone(), (0..n).map(|i| if n == 1 { 1.0 } else { value(i) }))
    }
}

/// One window: its name, and the factors of its cosines.
macro_rules! window {
    ($(#[$doc:meta])* $Name:ident, $name:literal, $factors:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name(Window);

        impl Op for $Name {
            const NAME: &'static str = $name;
            const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

            fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
                Ok($Name(Window::parse(attrs)?))
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                self.0.infer(inputs)
            }

            fn reference(&self, _: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                vec![self.0.values(&outputs[0], $factors)]
            }

            fn expand(&self, mir: &mut mir::Builder, _: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
                vec![mir.constant(self.0.values(&outputs[0], $factors))]
            }
        }
    };
}

window! {
    /// 0.5 - 0.5 cos(2 pi i / n).
    HannWindow, "HannWindow", [0.5, -0.5, 0.0]
}
window! {
    /// 25/46 - 21/46 cos(2 pi i / n).
    HammingWindow, "HammingWindow", [25.0 / 46.0, -21.0 / 46.0, 0.0]
}
window! {
    /// 0.42 - 0.5 cos(2 pi i / n) + 0.08 cos(4 pi i / n).
    BlackmanWindow, "BlackmanWindow", [0.42, -0.5, 0.08]
}

/// How much of each of `dft_length / 2 + 1` frequencies belongs to each of `num_mel_bins` bands: a matrix of triangles
/// of height 1, whose corners are spread evenly from `lower_edge_hertz` to `upper_edge_hertz` on the scale
/// `2595 log10(1 + f / 700)` and rounded down to frequencies. All operands have to be known when the model is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct MelWeightMatrix {
    dtype: DType,
}

impl MelWeightMatrix {
    /// Numbers of frequencies and bands, and the corners of the triangles, from the operands' values.
    fn corners(operands: [&Tensor; 5]) -> Result<(usize, usize, Vec<usize>), ErrorKind> {
        const MOST: i64 = 1 << 24;
        let [bands, length, rate] = [0, 1, 2].map(|i| operands[i].int_at(0));
        let [low, high] = [3, 4].map(|i| operands[i].f64_at(0));
        let range = |what: &str, value: i64| match value {
            1..MOST => Ok(value as usize),
            MOST.. => Err(ErrorKind::limit(format!("{what} is {value}"))),
            _ => Err(ErrorKind::wrong(format!("{what} is {value}")).help("it must be positive")),
        };
        let (bands, length) = (range("num_mel_bins", bands)?, range("dft_length", length)?);
        let rate = range("sample_rate", rate)? as f64;
        let frequencies = length / 2 + 1;
        let mel = |hertz: f64| 2595.0 * (hertz / 700.0).ln_1p() / 10f64.ln();
        let hertz = |mel: f64| 700.0 * (mel / 2595.0 * 10f64.ln()).exp_m1();
        let step = (mel(high) - mel(low)) / (bands + 2) as f64;
        let corner = |i: usize| ((length + 1) as f64 * hertz(i as f64 * step + mel(low)) / rate).floor();
        let corners: Vec<f64> = (0..bands + 2).map(corner).collect();
        if corners.iter().any(|c| !(0.0..frequencies as f64).contains(c)) || corners.windows(2).any(|c| c[0] > c[1]) {
            let kind = ErrorKind::wrong(format!("bands from {low} to {high} Hz of {frequencies} frequencies"));
            return Err(kind.help("they must rise, from 0 to at most half of sample_rate"));
        }
        Ok((frequencies, bands, corners.into_iter().map(|c| c as usize).collect()))
    }

    fn matrix(&self, operands: [&Tensor; 5]) -> Option<Tensor> {
        let (frequencies, bands, corners) = MelWeightMatrix::corners(operands).ok()?;
        let mut values = vec![0.0; frequencies * bands];
        for (band, corner) in corners.windows(3).enumerate() {
            let [low, center, high] = [corner[0], corner[1], corner[2]];
            let share = |part: usize, whole: usize| part as f64 / whole as f64;
            (low..center).for_each(|j| values[j * bands + band] = share(j - low, center - low));
            (center..high).for_each(|j| values[j * bands + band] = share(high - j, high - center));
            values[center * bands + band] = 1.0;
        }
        Some(Tensor::from_f64s(Type::new(self.dtype, [frequencies, bands]), values))
    }
}

impl Op for MelWeightMatrix {
    const NAME: &'static str = "MelWeightMatrix";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let dtype = element_type(attrs.int_or("output_datatype", 1)?, "output_datatype")?;
        tools::dtype_in(&Type::scalar(dtype), &tools::NUMBERS, &[])?;
        Ok(MelWeightMatrix { dtype })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(5, 5)?;
        let names = ["num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz"];
        let mut known = vec![];
        for (i, name) in names.into_iter().enumerate() {
            let ty = tools::single(inputs.ty(i)?, name)?;
            let types = if i < 3 { &[DType::I32, DType::I64][..] } else { &FLOATS[..] };
            tools::dtype_in(ty, types, types)?;
            known.extend(inputs.known(i, name)?);
        }
        let &[bands, length, rate, low, high] = &known[..] else { return Ok(vec![]) };
        let (frequencies, bands, _) = MelWeightMatrix::corners([bands, length, rate, low, high])?;
        Ok(vec![tools::sized(self.dtype, [frequencies, bands])?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        let &[Some(a), Some(b), Some(c), Some(d), Some(e)] = inputs else { return vec![] };
        self.matrix([a, b, c, d, e]).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let known = inputs.iter().filter_map(|v| v.and_then(|v| mir.constant_of(v))).collect::<Vec<_>>();
        let &[a, b, c, d, e] = &known[..] else { return vec![] };
        let matrix = self.matrix([a, b, c, d, e]);
        matrix.map(|matrix| mir.constant(matrix)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::refused;

    #[test]
    fn misfits_are_refused() {
        refused("DFT", &["f32[2,8,3]"]);
        refused("DFT", &["f32[2,8,1]", "-", "const i64[]=2"]);
        refused("DFT", &["f32[2,8,1]", "i64[]"]);
        refused("DFT", &["f32[2,8,1]", "const i64[]=0"]);
        refused("DFT onesided=1", &["f32[2,8,2]"]);
        refused("DFT", &["f32[1,100000,1]"]);
        refused("STFT", &["f32[2,8,1]", "const i64[]=2"]);
        refused("STFT", &["f32[2,8,1]", "const i64[]=0", "-", "const i64[]=4"]);
        refused("STFT", &["f32[2,8,1]", "const i64[]=2", "-", "const i64[]=9"]);
        refused("STFT", &["f32[2,8,1]", "const i64[]=2", "f32[3]", "const i64[]=4"]);
        refused("HannWindow", &["const i64[]=-1"]);
        refused("HannWindow", &["i64[]"]);
        let mel = |bands: &str, high: &str| {
            let [length, rate, low] = ["const i64[]=16", "const i64[]=8192", "const f32[]=0"];
            refused("MelWeightMatrix", &[bands, length, rate, low, high]);
        };
        mel("i64[]", "const f32[]=4096");
        mel("const i64[]=0", "const f32[]=4096");
        mel("const i64[]=8", "const f32[]=9000");
        mel("const i64[]=8", "const f32[]=-1");
    }
}
