//! Regions of pictures, brought to one size.

use super::formula::Formula;
use super::tools::{self, FLOATS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Reduction};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// Of X `[N, C, H, W]`, for each region `[x1, y1, x2, y2]` (times `spatial_scale`) of the picture that its index names, a
/// grid of `output_height` by `output_width` bins: the mean (or the largest) of `sampling_ratio` by as many samples that
/// are spread evenly over each bin.
///
/// A sample is joined of the four nearest elements by linear weights, those at the edge standing for what is up to one
/// element outside; farther away it is 0. With `max`, it is the largest of the four weighted elements. With
/// `half_pixel`, coordinates are those of the elements' corners, else (before version 16 always) of their centres, and
/// a region is at least one element large. An index of no picture takes the nearest.
#[derive(Clone, Debug, PartialEq)]
pub struct RoiAlign {
    largest: bool,
    half_pixel: bool,
    /// Bins along H and W.
    bins: [usize; 2],
    /// Samples of a bin along an axis.
    samples: usize,
    scale: f64,
}

impl RoiAlign {
    fn shift(&self) -> f64 {
        if self.half_pixel { -0.5 } else { 0.0 }
    }

    /// Distances of the samples along an axis from the region's start, in bins.
    fn distances(&self, axis: usize) -> Vec<f64> {
        let (bins, samples) = (self.bins[axis], self.samples);
        let distance = |i: usize| (i / samples) as f64 + ((i % samples) as f64 + 0.5) / samples as f64;
        (0..bins * samples).map(distance).collect()
    }

    /// Where a sample is along an axis of this extent: two elements and their weights, by the definition.
    fn taps(&self, at: f64, extent: usize) -> [(usize, f64); 2] {
        if at.is_nan() || at < -1.0 || at > extent as f64 {
            return [(0, 0.0); 2];
        }
        let at = at.max(0.0);
        let low = (at as usize).min(extent - 1);
        let rest = if low + 1 < extent { at - low as f64 } else { 0.0 };
        [(low, 1.0 - rest), ((low + 1).min(extent - 1), rest)]
    }

    /// The two elements of each sample along an axis and their weights, for regions `[count, 4]`, each `[count, samples]`.
    fn along(&self, mir: &mut mir::Builder, regions: mir::Value, axis: usize, extent: usize) -> [[mir::Value; 2]; 2] {
        let dtype = mir.ty(regions).dtype;
        let distances = Tensor::from_f64s(Type::new(dtype, [1, self.bins[axis] * self.samples]), self.distances(axis));
        let [start, end] = [1 - axis, 3 - axis].map(|column| mir.narrow(regions, 1, column, 1));
        let operands = [start, end, mir.constant(distances)];
        let mut f = Formula::new(dtype);
        let [start, end, distance] = [0, 1, 2].map(|i| f.operand(i));
        let [start, end] = [start, end].map(|edge| {
            let scaled = f.scale(edge, self.scale);
            f.offset(scaled, self.shift())
        });
        let mut size = f.sub(end, start);
        if !self.half_pixel {
            let one = f.lit(1.0);
            size = f.max(size, one);
        }
        let bin = f.scale(size, 1.0 / self.bins[axis] as f64);
        let moved = f.mul(bin, distance);
        let at = f.add(start, moved);
        let (before, behind) = (f.lit(-1.0), f.lit(extent as f64));
        let (from, to) = (f.greater_equal(at, before), f.less_equal(at, behind));
        let inside = f.and(from, to);
        let (zero, one, last) = (f.lit(0.0), f.lit(1.0), f.lit(extent as f64 - 1.0));
        let at = f.max(at, zero);
        let low = f.floor(at);
        let low = f.min(low, last);
        let next = f.add(low, one);
        let high = f.min(next, last);
        let (rest, more) = (f.sub(at, low), f.less(low, last));
        let rest = f.select(more, rest, zero);
        let kept = f.sub(one, rest);
        let weights = [kept, rest].map(|w| f.select(inside, w, zero));
        // A place that is no number is not inside, and any element will do.
        let elements = [low, high].map(|e| {
            let e = f.select(inside, e, zero);
            f.cast(DType::I64, e)
        });
        [elements, weights].map(|pair| pair.map(|part| mir.map(f.copy(part), &operands)))
    }
}

impl Op for RoiAlign {
    const NAME: &'static str = "RoiAlign";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-4);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let half_pixel = match attrs.opset() {
            ..16 => false,
            _ => {
                let modes = ["half_pixel", "output_half_pixel"];
                attrs.choice("coordinate_transformation_mode", &modes)? == 0
            }
        };
        let mut count = |name: &'static str| {
            Ok::<_, ErrorKind>(super::window::positive(name, &[attrs.int_or(name, 1)?])?[0])
        };
        let bins = [count("output_height")?, count("output_width")?];
        let samples = match attrs.int_or("sampling_ratio", 0)? {
            0 => {
                let kind = ErrorKind::unsupported("as many samples as a region is large (sampling_ratio 0)");
                return Err(kind.help("export the model with a fixed sampling_ratio: 2 is usual"));
            }
            samples => super::window::positive("sampling_ratio", &[samples])?[0],
        };
        let sizes = bins.map(|bins| bins.checked_mul(samples).filter(|&n| n < 1 << 20));
        if sizes.contains(&None) {
            return Err(ErrorKind::limit("there are too many samples"));
        }
        Ok(RoiAlign {
            largest: attrs.choice("mode", &["avg", "max"])? == 1,
            half_pixel,
            bins,
            samples,
            scale: attrs.float_or("spatial_scale", 1.0)?,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 3)?;
        let (x, regions, indices) = (inputs.ty(0)?, inputs.ty(1)?, inputs.ty(2)?);
        tools::dtype_in(x, &FLOATS, &FLOATS)?;
        let &[count, 4] = &regions.dims[..] else {
            return Err(ErrorKind::wrong(format!("the regions are {regions}")).help("they must be [count, 4]"));
        };
        if x.rank() != 4 || x.elements() == 0 || regions.dtype != x.dtype {
            let kind = ErrorKind::wrong(format!("regions {regions} of a picture {x}"));
            return Err(kind.help("the picture must be [N, C, H, W], not empty, and of the regions' element type"));
        }
        if *indices != Type::new(DType::I64, [count]) {
            let kind = ErrorKind::wrong(format!("the indices of pictures are {indices}"));
            return Err(kind.help(format!("they must be i64[{count}]")));
        }
        if let Some(indices) = inputs.constant(2) {
            super::gather::in_range(indices.ints().into_iter(), x.dims[0])?;
        }
        let [height, width] = self.bins;
        tools::sized(DType::I64, [count, x.dims[1], height * self.samples, width * self.samples])?;
        Ok(vec![tools::sized(x.dtype, [count, x.dims[1], height, width])?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(regions), Some(indices)] = inputs else { return vec![] };
        let &[pictures, channels, height, width] = x.dims() else { return vec![] };
        let (x, indices) = (x.f64s(), indices.ints());
        let mut y = vec![];
        for (region, index) in regions.f64s().chunks_exact(4).zip(indices) {
            let picture = super::gather::place(index, pictures);
            let taps = [(0, height), (1, width)].map(|(axis, extent)| {
                let [start, end] = [1 - axis, 3 - axis].map(|i| region[i] * self.scale + self.shift());
                let size = if self.half_pixel { end - start } else { (end - start).max(1.0) };
                let bin = size / self.bins[axis] as f64;
                let at = self.distances(axis).into_iter().map(|d| start + d * bin);
                at.map(|at| self.taps(at, extent)).collect::<Vec<_>>()
            });
            for channel in 0..channels {
                let plane = &x[(picture * channels + channel) * height * width..][..height * width];
                for bin in 0..self.bins[0] * self.bins[1] {
                    let [row, column] = [bin / self.bins[1], bin % self.bins[1]].map(|b| b * self.samples);
                    let mut found = vec![];
                    for i in 0..self.samples * self.samples {
                        let [ys, xs] = [taps[0][row + i / self.samples], taps[1][column + i % self.samples]];
                        let products = ys.iter().flat_map(|&(y, wy)| {
                            xs.iter().map(move |&(x, wx)| plane[y * width + x] * wy * wx)
                        });
                        match self.largest {
                            true => found.extend(products),
                            false => found.push(products.sum()),
                        }
                    }
                    let larger = |a: f64, &b: &f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) };
                    y.push(match self.largest {
                        true => found.iter().fold(f64::NEG_INFINITY, larger),
                        false => found.iter().sum::<f64>() / found.len() as f64,
                    });
                }
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x), Some(regions), Some(indices)] = inputs else { return vec![] };
        let (dims, ty) = (mir.dims(x), &outputs[0]);
        let &[pictures, channels, height, width] = &dims[..] else { return vec![] };
        if ty.elements() == 0 {
            return vec![mir.constant(Tensor::zeros(ty.clone()))];
        }
        let count = ty.dims[0];
        let float = if ty.dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let regions = mir.cast(regions, float);
        let last = mir.channels_last(x);
        let table = mir.reshape(last, [pictures * height * width, channels]);
        let sizes = self.bins.map(|bins| bins * self.samples);
        let [rows, columns] = [(0, height), (1, width)].map(|(axis, extent)| {
            let parts = self.along(mir, regions, axis, extent);
            let dims = if axis == 0 { [count, sizes[0], 1] } else { [count, 1, sizes[1]] };
            parts.map(|pair| pair.map(|part| mir.reshape(part, dims)))
        });
        let picture = mir.reshape(indices, [count, 1, 1]);
        let (mut f, mut operands, mut found) = (Formula::new(ty.dtype), vec![], None);
        for corner in 0..4 {
            let (y, x) = (corner / 2, corner % 2);
            let mut g = Formula::new(DType::I64);
            let [index, row, column] = [0, 1, 2].map(|i| g.operand(i));
            let index = super::gather::position(&mut g, index, pictures);
            let base = g.scale(index, (height * width) as f64);
            let line = g.scale(row, width as f64);
            let line = g.add(base, line);
            let element = g.add(line, column);
            let element = mir.map(g.finish(element), &[picture, rows[0][y], columns[0][x]]);
            let weight = mir.binary(Binary::Mul, rows[1][y], columns[1][x]);
            let weight = mir.reshape(weight, [count, sizes[0], sizes[1], 1]);
            operands.extend([mir.gather(table, element, 0), mir.cast(weight, ty.dtype)]);
            let [value, weight] = [0, 1].map(|i| f.operand(2 * corner + i));
            let term = f.mul(value, weight);
            found = Some(match found {
                None => term,
                Some(found) if self.largest => f.max(found, term),
                Some(found) => f.add(found, term),
            });
        }
        let Some(found) = found else { return vec![] };
        let samples = mir.map(f.finish(found), &operands);
        let samples =
            mir.reshape(samples, [count, self.bins[0], self.samples, self.bins[1], self.samples, channels]);
        let y = match self.largest {
            true => mir.reduce(Reduction::Max, samples, &[2, 4]),
            false => mir.mean(samples, &[2, 4]),
        };
        let y = mir.reshape(y, [count, self.bins[0], self.bins[1], channels]);
        vec![mir.channels_first(y)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn a_bin_is_the_mean_of_its_samples() {
        let node = "RoiAlign output_height=1 output_width=1 sampling_ratio=2 \
                    coordinate_transformation_mode=output_half_pixel";
        let picture = "f32[1,1,2,2]=0,1,2,3";
        // Samples at 0.25 and 0.75 along both axes.
        let y = definition(node, &[picture, "f32[1,4]=0,0,1,1", "i64[1]=0"]);
        assert_eq!(y[0].f64s(), [1.5]);
    }

    #[test]
    fn misfits_are_refused() {
        let node = "RoiAlign sampling_ratio=1";
        refused("RoiAlign", &["f32[1,2,3,3]", "f32[2,4]", "i64[2]"]);
        refused(node, &["f32[1,2,3,3]", "f32[2,5]", "i64[2]"]);
        refused(node, &["f32[1,2,3,3]", "f32[2,4]", "i64[3]"]);
        refused(node, &["f32[1,2,3,3]", "f32[2,4]", "const i64[2]=0,1"]);
        refused(node, &["f32[1,2,0,3]", "f32[2,4]", "i64[2]"]);
    }
}
