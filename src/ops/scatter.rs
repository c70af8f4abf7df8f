//! Elements that go to places which other tensors name. An index counts from the end where it is negative; one
//! out of range is an error where it is known when the model is compiled, else the nearest is taken. Updates
//! are made in the order of their indices: of those for one place the last one wins, or all are combined.

use super::formula::Formula;
use super::gather::{self, INDICES};
use super::tools::{self, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Reduction};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type, strides};

/// How an update is combined with what is there; `None`: it takes its place.
fn reduction(attrs: &mut Attrs) -> Result<Option<Reduction>, ErrorKind> {
    const NAMES: [&str; 5] = ["none", "add", "mul", "max", "min"];
    const ALL: [Option<Reduction>; 5] = {
        use Reduction::{Max, Min, Product, Sum};
        [None, Some(Sum), Some(Product), Some(Max), Some(Min)]
    };
    let names = match attrs.opset() {
        ..16 => return Ok(None),
        16 | 17 => &NAMES[..3],
        _ => &NAMES[..],
    };
    Ok(ALL[attrs.choice("reduction", names)?])
}

/// An error where the types are not for this.
fn typed(data: &Type, updates: &Type, op: Option<Reduction>) -> Result<(), ErrorKind> {
    if data.dtype != updates.dtype {
        let (a, b) = (data.dtype, updates.dtype);
        let kind = ErrorKind::wrong(format!("the data is of {a} and the updates of {b}"));
        return Err(kind.help("both must have one element type"));
    }
    if op.is_some() { tools::dtype_in(data, &NUMBERS, &NUMBERS) } else { Ok(()) }
}

/// Puts an element into the bytes of a tensor, by the definition.
fn put(data: &mut [u8], at: usize, updates: &Tensor, from: usize, op: Option<Reduction>) {
    let dtype = updates.ty().dtype;
    let size = dtype.bytes();
    let place = &mut data[at * size..][..size];
    let Some(op) = op else { return place.copy_from_slice(updates.element(from)) };
    let one = Type::scalar(dtype);
    let Some(old) = Tensor::from_bytes(one.clone(), place.to_vec().into()) else { return };
    let Some(new) = Tensor::from_bytes(one.clone(), updates.element(from).to_vec().into()) else { return };
    let combined = tools::map_two(
        &old,
        &new,
        &one,
        |a, b| match op {
            Reduction::Sum => a + b,
            Reduction::Product => a * b,
            Reduction::Max | Reduction::Min if a.is_nan() || b.is_nan() => f64::NAN,
            Reduction::Max => a.max(b),
            Reduction::Min => a.min(b),
        },
        |a, b| match op {
            Reduction::Sum => a.wrapping_add(b),
            Reduction::Product => a.wrapping_mul(b),
            Reduction::Max => a.max(b),
            Reduction::Min => a.min(b),
        },
    );
    place.copy_from_slice(combined.element(0));
}

/// The data, where every update goes to the place of its own, but for the coordinate along `axis`, which is
/// the index.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterElements {
    axis: i64,
    op: Option<Reduction>,
}

impl Op for ScatterElements {
    const NAME: &'static str = "ScatterElements";
    const TOLERANCE: Tolerance = Tolerance::Ulps(1);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(ScatterElements { axis: attrs.int_or("axis", 0)?, op: reduction(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 3)?;
        let (ty, indices, updates) = (inputs.ty(0)?, inputs.ty(1)?, inputs.ty(2)?);
        typed(ty, updates, self.op)?;
        tools::dtype_in(indices, &INDICES, &INDICES)?;
        let axis = tools::axis(self.axis, ty.rank())?;
        if indices.dims != updates.dims {
            let (a, b) = (&indices.dims, &updates.dims);
            let kind = ErrorKind::wrong(format!("indices {a:?} and updates {b:?} differ"));
            return Err(kind.help("there must be an index for each update"));
        }
        gather::fits(ty, indices, axis)?;
        if let Some(indices) = inputs.constant(1) {
            gather::in_range(indices.ints().into_iter(), ty.dims[axis])?;
        }
        Ok(vec![ty.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(indices), Some(updates)] = inputs else { return vec![] };
        let own = x.ty().strides();
        let axis = tools::axis(self.axis, own.len()).unwrap_or(0);
        let (dims, places) = (indices.dims().to_vec(), indices.ints());
        let (mut data, mut next) = (x.bytes().to_vec(), 0);
        for_each_index(&dims, |index| {
            let at = (0..index.len()).map(|a| {
                let i = if a == axis { gather::place(places[next], x.dims()[axis]) } else { index[a] };
                i * own[a] as usize
            });
            put(&mut data, at.sum(), updates, next, self.op);
            next += 1;
        });
        Tensor::from_bytes(outputs[0].clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x), Some(indices), Some(updates)] = inputs else { return vec![] };
        let ty = &outputs[0];
        if mir.ty(indices).elements() == 0 {
            return vec![x];
        }
        let axis = tools::axis(self.axis, ty.rank()).unwrap_or(0);
        let (flat, slice) = gather::flat_places(mir, x, indices, axis, &mir.dims(updates)[axis + 1..]);
        let (outer, inner) = ty.dims.split_at(ty.rank() - slice);
        let table = mir.reshape(x, [&[outer.iter().product()], inner].concat());
        let result = mir.scatter(self.op, table, flat, updates);
        vec![mir.reshape(result, ty.dims.clone())]
    }
}

/// [`ScatterElements`] by its name before version 11.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter(ScatterElements);

impl Op for Scatter {
    const NAME: &'static str = "Scatter";
    const TOLERANCE: Tolerance = ScatterElements::TOLERANCE;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Scatter(ScatterElements { axis: attrs.int_or("axis", 0)?, op: None }))
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        self.0.infer(inputs)
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        self.0.reference(inputs, outputs)
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        self.0.expand(mir, inputs, outputs)
    }
}

/// The data, where every slice of the updates goes to the place on the first axes of the data that a row of
/// the indices (their last axis) names.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterND {
    op: Option<Reduction>,
}

/// A box on the first axes of a tensor: where it begins, and how long it is.
struct Region {
    starts: Vec<usize>,
    counts: Vec<usize>,
}

impl Region {
    /// The box whose places, in order, these rows of indices name; `None` where they name something else.
    fn of(rows: &[i64], dims: &[usize]) -> Option<Region> {
        let depth = dims.len();
        let column = |k: usize| {
            rows.iter().skip(k).step_by(depth).map(move |&i| gather::place(i, dims[k]))
        };
        let starts: Vec<usize> = (0..depth).map(|k| column(k).min()).collect::<Option<_>>()?;
        let ends: Vec<usize> = (0..depth).map(|k| column(k).max()).collect::<Option<_>>()?;
        let counts: Vec<usize> = (0..depth).map(|k| ends[k] + 1 - starts[k]).collect();
        let (mut next, mut is_box) = (0, counts.iter().product::<usize>() == rows.len() / depth);
        if is_box {
            for_each_index(&counts, |index| {
                let row = &rows[next * depth..][..depth];
                let here = |k: usize| gather::place(row[k], dims[k]) == starts[k] + index[k];
                is_box = is_box && (0..depth).all(here);
                next += 1;
            });
        }
        is_box.then_some(Region { starts, counts })
    }

    /// The data with the box, from `axis` on, replaced by the updates or combined with them.
    fn changed(
        &self,
        mir: &mut mir::Builder,
        data: mir::Value,
        updates: mir::Value,
        op: Option<Binary>,
        axis: usize,
    ) -> mir::Value {
        let (Some(&start), Some(&count)) = (self.starts.get(axis), self.counts.get(axis)) else {
            return match op {
                Some(op) => mir.binary(op, data, updates),
                None => updates,
            };
        };
        let extent = mir.dims(data)[axis];
        let middle = mir.narrow(data, axis, start, count);
        let middle = self.changed(mir, middle, updates, op, axis + 1);
        let mut parts = vec![];
        if start > 0 {
            parts.push(mir.narrow(data, axis, 0, start));
        }
        parts.push(middle);
        if start + count < extent {
            parts.push(mir.narrow(data, axis, start + count, extent - start - count));
        }
        mir.concat(&parts, axis)
    }
}

impl Op for ScatterND {
    const NAME: &'static str = "ScatterND";
    const TOLERANCE: Tolerance = Tolerance::Ulps(1);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(ScatterND { op: reduction(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 3)?;
        let (ty, indices, updates) = (inputs.ty(0)?, inputs.ty(1)?, inputs.ty(2)?);
        typed(ty, updates, self.op)?;
        tools::dtype_in(indices, &[DType::I64], &[DType::I64])?;
        let Some((&depth, places)) = indices.dims.split_last() else {
            return Err(ErrorKind::wrong("the indices have no axis").help("their last axis is a row of indices"));
        };
        if depth == 0 || depth > ty.rank() {
            let kind = ErrorKind::wrong(format!("rows of {depth} indices for {ty}"));
            return Err(kind.help(format!("there are {} axes to be indexed", ty.rank())));
        }
        let expected = [places, &ty.dims[depth..]].concat();
        if updates.dims != expected {
            let kind = ErrorKind::wrong(format!("the updates are {updates}"));
            return Err(kind.help(format!("they must be {}{expected:?}", ty.dtype)));
        }
        let known = inputs.constant(1).map(Tensor::ints).unwrap_or_default();
        for (i, &extent) in ty.dims[..depth].iter().enumerate() {
            gather::not_empty(extent, indices)?;
            gather::in_range(known.iter().copied().skip(i).step_by(depth), extent)?;
        }
        Ok(vec![ty.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(indices), Some(updates)] = inputs else { return vec![] };
        let depth = indices.dims().last().copied().unwrap_or(1);
        let (dims, own) = (x.dims(), x.ty().strides());
        let run: usize = dims[depth..].iter().product();
        let mut data = x.bytes().to_vec();
        for (i, row) in indices.ints().chunks_exact(depth).enumerate() {
            let along = |(k, &index): (usize, &i64)| gather::place(index, dims[k]) * own[k] as usize;
            let at: usize = row.iter().enumerate().map(along).sum();
            (0..run).for_each(|j| put(&mut data, at + j, updates, i * run + j, self.op));
        }
        Tensor::from_bytes(outputs[0].clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x), Some(indices), Some(updates)] = inputs else { return vec![] };
        let (ty, rows) = (&outputs[0], mir.dims(indices));
        let Some((&depth, places)) = rows.split_last() else { return vec![] };
        if mir.ty(indices).elements() == 0 || ty.elements() == 0 {
            return vec![x];
        }
        let (outer, inner) = ty.dims.split_at(depth);
        // A box that is known, and no small part of the data, is put between the rest of it.
        let large = mir.ty(updates).elements() * 4 >= ty.elements() || mir.constant_of(x).is_some();
        let known = mir.constant_of(indices).filter(|_| large).map(Tensor::ints);
        if let Some(region) = known.and_then(|rows| Region::of(&rows, outer)) {
            let updates = mir.reshape(updates, [&region.counts, inner].concat());
            return vec![region.changed(mir, x, updates, self.op.map(Reduction::combine), 0)];
        }
        let moves = strides(outer);
        let (mut f, mut operands, mut flat) = (Formula::new(DType::I64), vec![], None);
        for k in 0..depth {
            let column = mir.narrow(indices, places.len(), k, 1);
            operands.push(mir.reshape(column, places));
            let index = f.operand(k);
            let along = gather::position(&mut f, index, outer[k]);
            let term = f.scale(along, moves[k] as f64);
            flat = Some(flat.map_or(term, |sum| f.add(sum, term)));
        }
        let Some(flat) = flat else { return vec![] };
        let flat = mir.map(f.finish(flat), &operands);
        let table = mir.reshape(x, [&[outer.iter().product()], inner].concat());
        let result = mir.scatter(self.op, table, flat, updates);
        vec![mir.reshape(result, ty.dims.clone())]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{Known, infer_known, infer_with, int, text};
    use crate::types::DType::*;

    #[test]
    fn dims() {
        let elements = |axis, dims, indices: &[usize], updates: &[usize]| {
            let operands: [(_, &[usize]); 3] = [(F32, dims), (I64, indices), (F32, updates)];
            infer_with("ScatterElements", &[("axis", int(axis))], &operands)
        };
        assert_eq!(elements(-1, &[2, 3], &[2, 7], &[2, 7]).expect("fits")[0].to_string(), "f32[2, 3]");
        assert!(elements(0, &[2, 3], &[2, 4], &[2, 4]).is_err());
        assert!(elements(0, &[2, 3], &[2, 3], &[2, 2]).is_err());
        assert!(elements(2, &[2, 3], &[2, 3], &[2, 3]).is_err());
        let nd = |dims, indices: &[usize], updates: &[usize]| {
            infer_with("ScatterND", &[], &[(F32, dims), (I64, indices), (F32, updates)])
        };
        assert_eq!(nd(&[4, 5], &[3, 1], &[3, 5]).expect("fits")[0].to_string(), "f32[4, 5]");
        assert!(nd(&[4, 5], &[3, 1], &[3, 4]).is_err());
        assert!(nd(&[4, 5], &[3, 3], &[3]).is_err());
        assert!(nd(&[0, 5], &[3, 1], &[3, 5]).is_err());
    }

    #[test]
    fn known_indices_and_reductions() {
        let [data, updates] = [Known::Type(F32, &[4]), Known::Type(F32, &[2])];
        let elements = |opset, how, list: &[i64]| {
            let attrs = [("reduction", text(how))];
            infer_known("ScatterElements", opset, &attrs, &[data, Known::Ints(list), updates])
        };
        assert!(elements(18, "max", &[-4, 3]).is_ok());
        assert!(elements(18, "max", &[-5, 3]).is_err() && elements(18, "max", &[4, 3]).is_err());
        assert!(elements(16, "max", &[0, 0]).is_err() && elements(13, "none", &[0, 0]).is_err());
    }
}
