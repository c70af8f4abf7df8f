//! The best elements along an axis.

use super::tools::{self, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The `k` largest (smallest) elements along `axis` and their places, the best one first; of equal ones those
/// with the lower places. A NaN counts as larger than everything else. `k` has to be known when the model is
/// compiled. What need not be sorted is sorted, too.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    axis: i64,
    largest: bool,
    /// In version 1 it is an attribute.
    k: Option<i64>,
}

impl Op for TopK {
    const NAME: &'static str = "TopK";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let axis = attrs.int_or("axis", -1)?;
        let k = if attrs.opset() < 10 { Some(tools::required(attrs.int("k")?, "k")?) } else { None };
        let mut largest = true;
        if attrs.opset() >= 11 {
            largest = attrs.flag("largest", true)?;
            attrs.flag("sorted", true)?;
        }
        Ok(TopK { axis, largest, k })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let ty = match self.k {
            Some(_) => inputs.arity(1, 1).and_then(|()| inputs.ty(0))?,
            None => inputs.arity(2, 2).and_then(|()| inputs.ty(0))?,
        };
        tools::dtype_in(ty, &NUMBERS, &NUMBERS)?;
        let axis = tools::axis(self.axis, ty.rank())?;
        let k = match self.k {
            Some(k) => k,
            None => {
                tools::single(inputs.ty(1)?, "the number of elements")?;
                inputs.known(1, "the number of elements")?.map_or(0, |k| k.int_at(0))
            }
        };
        let extent = ty.dims[axis];
        let count = usize::try_from(k).ok().filter(|&k| k <= extent).ok_or_else(|| {
            let kind = ErrorKind::wrong(format!("{k} elements of axis {axis} of {ty} are asked for"));
            kind.help(format!("it must be in 0..={extent}"))
        })?;
        let mut dims = ty.dims.clone();
        dims[axis] = count;
        Ok(vec![tools::sized(ty.dtype, dims.clone())?, tools::sized(DType::I64, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(&Some(x)) = inputs.first() else { return vec![] };
        let (ty, places_ty) = (&outputs[0], &outputs[1]);
        let axis = tools::axis(self.axis, ty.rank()).unwrap_or(0);
        let (extent, count) = (x.dims()[axis], ty.dims[axis]);
        let inner: usize = ty.dims[axis + 1..].iter().product();
        let float = ty.dtype.is_float();
        let (floats, ints) = if float { (x.f64s(), vec![]) } else { (vec![], tools::integers(x)) };
        let compare = |a: usize, b: usize| {
            if !float {
                return ints[a].cmp(&ints[b]);
            }
            let (a, b) = (floats[a], floats[b]);
            a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        };
        let mut data = vec![0; ty.bytes()];
        let mut places = vec![0; ty.elements()];
        let size = ty.dtype.bytes();
        for row in 0..ty.elements() / count.max(1) {
            let first = row / inner * inner * extent + row % inner;
            let mut order: Vec<usize> = (0..extent).collect();
            order.sort_by(|&a, &b| {
                let order = compare(first + a * inner, first + b * inner);
                if self.largest { order.reverse() } else { order }
            });
            for (i, &place) in order[..count].iter().enumerate() {
                let at = row / inner * inner * count + row % inner + i * inner;
                data[at * size..][..size].copy_from_slice(x.element(first + place * inner));
                places[at] = place as i64;
            }
        }
        let places = Tensor::from_ints(places_ty.clone(), places);
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().chain([places]).collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let Some(&Some(x)) = inputs.first() else { return vec![] };
        let ty = &outputs[0];
        if ty.elements() == 0 {
            return outputs.iter().map(|ty| mir.constant(Tensor::zeros(ty.clone()))).collect();
        }
        let axis = tools::axis(self.axis, ty.rank()).unwrap_or(0);
        let last = ty.rank() - 1;
        // The axis in the last one's place, and back: the same change.
        let mut perm: Vec<usize> = (0..ty.rank()).collect();
        perm.swap(axis, last);
        let rows = mir.permute(x, &perm);
        let count = ty.dims[axis];
        let places = match (self.largest, count) {
            (true, 1) => mir.arg_reduce(rows, true, last, false),
            _ => mir.sort(rows, self.largest, count),
        };
        let dims = mir.dims(rows);
        let mut flat = places;
        let all: usize = dims[..last].iter().product();
        if all > 1 {
            let first = super::gather::ramp(mir, 2, 0, all, dims[last] as i64);
            let first = mir.reshape(first, [&dims[..last], &[1]].concat());
            flat = mir.binary(mir::Binary::Add, places, first);
        }
        let table = mir.reshape(rows, [dims.iter().product::<usize>()]);
        let values = mir.gather(table, flat, 0);
        vec![mir.permute(values, &perm), mir.permute(places, &perm)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{Known, infer_known, infer_with, int};
    use crate::types::DType::*;

    #[test]
    fn dims() {
        let operand = Known::Type(F32, &[2, 5]);
        let top = |axis, k| infer_known("TopK", 11, &[("axis", int(axis))], &[operand, Known::Ints(&[k])]);
        let types = top(-1, 3).expect("fits");
        assert_eq!([types[0].to_string(), types[1].to_string()], ["f32[2, 3]", "i64[2, 3]"]);
        assert!(top(0, 2).is_ok() && top(0, 0).is_ok());
        assert!(top(0, 3).is_err() && top(1, -1).is_err() && top(2, 1).is_err());
        let old = infer_known("TopK", 1, &[("k", int(2))], &[operand]);
        assert_eq!(old.expect("fits")[1].to_string(), "i64[2, 2]");
        assert!(infer_with("TopK", &[], &[(F32, &[5]), (I64, &[1])]).is_err());
    }
}
