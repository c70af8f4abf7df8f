//! Windows that are put back where they were taken from, and affine grids.

use super::tools::{self, FLOATS, NUMBERS};
use super::window::{Attributes, Axis};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type, strides};

/// The picture `[N, C, image_shape..]` of which the columns of `[N, C * block, L]` are the blocks, in order: what
/// lies on top of each other is added. Shapes have to be known when the model is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Col2Im {
    attributes: Attributes,
}

impl Col2Im {
    /// The blocks along each axis, and the type of the result.
    fn blocks(
        &self,
        x: &Type,
        image: &Tensor,
        block: &Tensor,
    ) -> Result<(Vec<Axis>, Type), ErrorKind> {
        let image = tools::dims(&tools::int_list(image, "the picture's shape")?)?;
        let block = tools::int_list(block, "the block's shape")?;
        let block = super::window::positive("block_shape", &block)?;
        let axes = self.attributes.axes(&image, &block)?;
        let (taps, columns) =
            (block.iter().product::<usize>(), axes.iter().map(|a| a.windows).product::<usize>());
        if x.rank() != 3 || !x.dims[1].is_multiple_of(taps.max(1)) || x.dims[2] != columns {
            let kind = ErrorKind::wrong(format!("the columns are {x}"));
            return Err(kind.help(format!("they must be [N, {taps} C, {columns}]")));
        }
        super::window::check_padded(x.dtype, [x.dims[0], x.dims[1] / taps], &axes)?;
        let ty = tools::sized(x.dtype, [&[x.dims[0], x.dims[1] / taps], &image[..]].concat())?;
        Ok((axes, ty))
    }

    /// For each tap and block, in order, the place in a picture of these extents with its padding.
    fn places(axes: &[Axis], extents: &[usize]) -> Vec<usize> {
        let taps: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
        let windows: Vec<usize> = axes.iter().map(|a| a.windows).collect();
        let moves = strides(extents);
        let mut places = vec![];
        for_each_index(&taps, |tap| {
            for_each_index(&windows, |window| {
                let along = |(k, axis): (usize, &Axis)| {
                    (window[k] * axis.stride + tap[k] * axis.dilation) * moves[k] as usize
                };
                places.push(axes.iter().enumerate().map(along).sum());
            });
        });
        places
    }
}

impl Op for Col2Im {
    const NAME: &'static str = "Col2Im";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Col2Im { attributes: Attributes::parse(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 3)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &FLOATS, &NUMBERS)?;
        let image = inputs.known(1, "the picture's shape")?;
        let block = inputs.known(2, "the block's shape")?;
        let (Some(image), Some(block)) = (image, block) else { return Ok(vec![]) };
        Ok(vec![self.blocks(x, image, block)?.1])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(image), Some(block)] = inputs else { return vec![] };
        let Ok((axes, _)) = self.blocks(x.ty(), image, block) else { return vec![] };
        let (ty, values) = (&outputs[0], x.f64s());
        let columns = x.dims()[2];
        let size: usize = ty.dims[2..].iter().product();
        let taps: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
        let windows: Vec<usize> = axes.iter().map(|a| a.windows).collect();
        let moves = strides(&ty.dims[2..]);
        let mut result = vec![0.0; ty.elements()];
        for plane in 0..ty.dims[0] * ty.dims[1] {
            let mut row = plane * taps.iter().product::<usize>();
            for_each_index(&taps, |tap| {
                let mut column = 0;
                for_each_index(&windows, |window| {
                    let mut place = Some(plane * size);
                    for (k, axis) in axes.iter().enumerate() {
                        let at = (window[k] * axis.stride + tap[k] * axis.dilation).checked_sub(axis.low);
                        let at = at.filter(|&at| at < axis.extent);
                        place = place.zip(at).map(|(place, at)| place + at * moves[k] as usize);
                    }
                    if let Some(place) = place {
                        result[place] += values[row * columns + column];
                    }
                    column += 1;
                });
                row += 1;
            });
        }
        vec![Tensor::from_f64s(ty.clone(), result)]
    }

    /// Rows of all channels are added to the places of a picture with its padding, which is cut away.
    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let &[Some(x), Some(image), Some(block)] = inputs else { return vec![] };
        let ty = &outputs[0];
        let known = mir.constant_of(image).zip(mir.constant_of(block));
        let axes = known.map(|(image, block)| self.blocks(mir.ty(x), image, block));
        let Some(Ok((axes, _))) = axes else { return vec![] };
        if ty.elements() == 0 || mir.ty(x).elements() == 0 {
            return vec![mir.constant(Tensor::zeros(ty.clone()))];
        }
        let (batch, channels) = (ty.dims[0], ty.dims[1]);
        let extents: Vec<usize> =
            axes.iter().map(|a| a.extent + a.low + a.high.max(a.reach())).collect();
        let size: usize = extents.iter().product();
        let places = Self::places(&axes, &extents);
        let taps = places.len() / mir.dims(x)[2];
        // [N, C, taps, L] to a row of N C numbers for each tap and block.
        let rows = mir.reshape(x, [batch, channels, taps, places.len() / taps]);
        let rows = mir.permute(rows, &[2, 3, 0, 1]);
        let rows = mir.reshape(rows, [places.len(), batch * channels]);
        let places: Vec<i64> = places.into_iter().map(|p| p as i64).collect();
        let places = mir.constant(Tensor::from_i64s([places.len()], &places));
        let zeros = mir.scalar(ty.dtype, 0.0);
        let zeros = mir.broadcast(zeros, [size, batch * channels]);
        let sums = mir.scatter(Some(mir::Reduction::Sum), zeros, places, rows);
        let mut picture = mir.reshape(sums, [&extents[..], &[batch, channels]].concat());
        for (k, axis) in axes.iter().enumerate() {
            picture = mir.narrow(picture, k, axis.low, axis.extent);
        }
        let spatial = axes.len();
        let perm: Vec<usize> = [spatial, spatial + 1].into_iter().chain(0..spatial).collect();
        vec![mir.permute(picture, &perm)]
    }
}

/// For each place of a picture of `size` (N, C and two or three extents, known when the model is compiled) where
/// the matrix of its row of the batch, `[N, d, d + 1]`, takes its coordinates: from -1 to 1, those of the last
/// axis first. They mean the centres of the outermost elements (`align_corners`) or their outer edges.
#[derive(Clone, Debug, PartialEq)]
pub struct AffineGrid {
    align: bool,
}

impl AffineGrid {
    /// A coordinate.
    fn coordinate(&self, i: usize, extent: usize) -> f64 {
        match (self.align, extent) {
            // As ONNX's reference does; torch takes 0, where both corners would meet.
            (true, 1) => -1.0,
            (true, n) => 2.0 * i as f64 / (n as f64 - 1.0) - 1.0,
            (false, n) => (2.0 * i as f64 + 1.0) / n as f64 - 1.0,
        }
    }

    /// Coordinates of all places, the last axis' first, and 1 behind them.
    fn base(&self, extents: &[usize]) -> Vec<f64> {
        let mut base = vec![];
        for_each_index(extents, |index| {
            let along = index.iter().zip(extents).rev();
            base.extend(along.map(|(&i, &n)| self.coordinate(i, n)));
            base.push(1.0);
        });
        base
    }
}

impl Op for AffineGrid {
    const NAME: &'static str = "AffineGrid";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(AffineGrid { align: attrs.flag("align_corners", false)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let theta = inputs.ty(0)?;
        tools::dtype_in(theta, &[DType::F32, DType::F64], &FLOATS)?;
        let size = inputs.known(1, "the size")?;
        let size = size.map_or(Ok(vec![]), |size| tools::int_list(size, "the size"))?;
        let size = tools::dims(&size)?;
        let axes = size.len().saturating_sub(2);
        if !matches!(axes, 2 | 3) || theta.dims != [size[0], axes, axes + 1] {
            let kind = ErrorKind::wrong(format!("matrices {theta} for a picture of {size:?}"));
            return Err(kind.help("[N, 2, 3] and [N, C, H, W], or [N, 3, 4] and [N, C, D, H, W]"));
        }
        Ok(vec![tools::sized(theta.dtype, [&size[..1], &size[2..], &[axes]].concat())?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(&Some(theta)) = inputs.first() else { return vec![] };
        let (ty, values) = (&outputs[0], theta.f64s());
        let axes = theta.dims()[1];
        let base = self.base(&ty.dims[1..=axes]);
        let row = |n: usize, a: usize| &values[(n * axes + a) * (axes + 1)..][..axes + 1];
        let mut result = Vec::with_capacity(ty.elements());
        for n in 0..ty.dims[0] {
            for place in base.chunks(axes + 1) {
                let sum = |a| row(n, a).iter().zip(place).map(|(t, x)| t * x).sum::<f64>();
                result.extend((0..axes).map(sum));
            }
        }
        vec![Tensor::from_f64s(ty.clone(), result)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let Some(&Some(theta)) = inputs.first() else { return vec![] };
        let ty = &outputs[0];
        let axes = ty.rank() - 2;
        let base = self.base(&ty.dims[1..=axes]);
        let places = Type::new(ty.dtype, [base.len() / (axes + 1), axes + 1]);
        let base = mir.constant(Tensor::from_f64s(places, base));
        let columns = mir.permute(theta, &[0, 2, 1]);
        let grid = mir.contract(base, columns);
        vec![mir.reshape(grid, ty.dims.clone())]
    }
}

/// The maxima of a pool put back where they were found: the second operand has, for each, its flat index in the
/// operand of the pool, which the attributes of the pool give the shape of. What is larger in `output_shape`
/// (known when the model is compiled), and all else, is zero.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxUnpool {
    attributes: Attributes,
    kernel: Vec<usize>,
}

impl MaxUnpool {
    /// The dimensions of the pool's operand.
    fn dims(&self, x: &Type) -> Result<Vec<usize>, ErrorKind> {
        let axes = x.rank().saturating_sub(2);
        let [strides, _, lows, highs] = self.attributes.per_axis(axes)?;
        if axes == 0 || self.kernel.len() != axes {
            return Err(ErrorKind::wrong(format!("a window of {:?} for {x}", self.kernel)));
        }
        let extent = |i: usize| {
            let last = x.dims[i + 2].checked_sub(1)?.checked_mul(strides[i])?;
            last.checked_add(self.kernel[i])?.checked_sub(lows[i])?.checked_sub(highs[i])
        };
        let extents: Option<Vec<usize>> = (0..axes).map(extent).collect();
        let extents = extents.ok_or_else(|| ErrorKind::wrong(format!("windows that do not fit {x}")))?;
        Ok([&x.dims[..2], &extents].concat())
    }
}

impl Op for MaxUnpool {
    const NAME: &'static str = "MaxUnpool";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let attributes = Attributes::parse(attrs)?;
        let kernel = tools::required(attributes.kernel.clone(), "kernel_shape")?;
        Ok(MaxUnpool { attributes, kernel })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 3)?;
        let (x, indices) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(x, &FLOATS, &NUMBERS)?;
        tools::dtype_in(indices, &[DType::I64], &[])?;
        if x.dims != indices.dims {
            return Err(ErrorKind::wrong(format!("indices {indices} for {x}")));
        }
        let own = tools::sized(x.dtype, self.dims(x)?)?;
        let Some(shape) = inputs.known(2, "the result's shape")? else { return Ok(vec![own]) };
        let dims = tools::dims(&tools::int_list(shape, "the result's shape")?)?;
        let fits = dims.len() == own.rank() && dims.iter().zip(&own.dims).all(|(a, b)| a >= b);
        if !fits {
            let kind = ErrorKind::wrong(format!("a result of {dims:?}"));
            return Err(kind.help(format!("it must be no smaller than {:?}", own.dims)));
        }
        Ok(vec![tools::sized(x.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(indices), ..] = *inputs else { return vec![] };
        let Ok(own) = self.dims(x.ty()) else { return vec![] };
        let ty = Type::new(x.ty().dtype, own);
        let mut found = vec![0.0; ty.elements()];
        let count = found.len() as i64;
        for (value, index) in x.f64s().into_iter().zip(indices.ints()) {
            let index = if index < 0 { index.saturating_add(count) } else { index };
            if let Some(place) = found.get_mut(index.clamp(0, count - 1) as usize) {
                *place = value;
            }
        }
        let mut result = vec![0.0; outputs[0].elements()];
        let (moves, mut next) = (outputs[0].strides(), 0);
        for_each_index(&ty.dims, |index| {
            let place: i64 = index.iter().zip(&moves).map(|(&i, &by)| i as i64 * by).sum();
            result[place as usize] = found[next];
            next += 1;
        });
        vec![Tensor::from_f64s(outputs[0].clone(), result)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(x), Some(indices), ..] = *inputs else { return vec![] };
        let Ok(own) = self.dims(mir.ty(x)) else { return vec![] };
        let ty = &outputs[0];
        let (all, count) = (own.iter().product::<usize>(), mir.ty(x).elements());
        if count == 0 || all == 0 {
            return vec![mir.constant(Tensor::zeros(ty.clone()))];
        }
        let (x, indices) = (mir.reshape(x, [count]), mir.reshape(indices, [count]));
        let zeros = mir.scalar(ty.dtype, 0.0);
        let zeros = mir.broadcast(zeros, [all]);
        let found = mir.scatter(None, zeros, indices, x);
        let found = mir.reshape(found, own.clone());
        let high: Vec<usize> = ty.dims.iter().zip(&own).map(|(a, b)| a - b).collect();
        vec![mir.pad(found, &vec![0; own.len()], &high, 0.0)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::refused;

    #[test]
    fn misfits_are_refused() {
        let block = "const i64[2]=2,2";
        refused("Col2Im", &["f32[1,8,9]", "const i64[2]=4,4", "i64[2]"]);
        refused("Col2Im", &["f32[1,8,8]", "const i64[2]=4,4", block]);
        refused("Col2Im", &["f32[1,7,9]", "const i64[2]=4,4", block]);
        refused("Col2Im", &["f32[1,8,9]", "const i64[2]=4,4", "const i64[2]=0,2"]);
        refused("AffineGrid", &["f32[1,2,3]", "i64[4]"]);
        refused("AffineGrid", &["f32[1,2,3]", "const i64[5]=1,1,2,3,4"]);
        refused("AffineGrid", &["f32[1,2,3]", "const i64[4]=2,1,3,4"]);
        refused("MaxUnpool kernel_shape=[2,2]", &["f32[1,1,2,2]", "i64[1,1,2,1]"]);
        refused("MaxUnpool kernel_shape=[2]", &["f32[1,1,2,2]", "i64[1,1,2,2]"]);
        let small = "const i64[4]=1,1,2,2";
        refused("MaxUnpool kernel_shape=[2,2]", &["f32[1,1,2,2]", "i64[1,1,2,2]", small]);
    }
}
