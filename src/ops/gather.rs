//! Elements at places that other tensors name. An index counts from the end where it is negative; one
//! out of range is an error where it is known when the model is compiled, else the nearest is taken.

use super::formula::Formula;
use super::tools::{self, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::expr::Ref;
use crate::mir::{self, Expr};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type, strides};

/// What indices may be.
pub(super) const INDICES: [DType; 2] = [DType::I32, DType::I64];

/// An index by its definition.
pub(super) fn place(index: i64, extent: usize) -> usize {
    let extent = extent as i64;
    let index = if index < 0 { index.saturating_add(extent) } else { index };
    index.clamp(0, (extent - 1).max(0)) as usize
}

/// An error where an index for an axis of this extent is known to be out of range.
pub(super) fn in_range(indices: impl Iterator<Item = i64>, extent: usize) -> Result<(), ErrorKind> {
    let extent = i64::try_from(extent).unwrap_or(i64::MAX);
    for index in indices {
        if index < -extent || index >= extent {
            let kind = ErrorKind::wrong(format!("index {index} of an axis of extent {extent}"));
            return Err(kind.help(format!("it must be in {}..{extent}", -extent)));
        }
    }
    Ok(())
}

/// An error where something is to be taken from nothing.
pub(super) fn not_empty(extent: usize, indices: &Type) -> Result<(), ErrorKind> {
    if extent == 0 && indices.elements() > 0 {
        return Err(ErrorKind::wrong("an element of an empty axis is asked for"));
    }
    Ok(())
}

/// An error where a tensor cannot have an index for each of its elements that is along `axis` of another one.
pub(super) fn fits(ty: &Type, indices: &Type, axis: usize) -> Result<(), ErrorKind> {
    let fits =
        indices.rank() == ty.rank() && (0..ty.rank()).all(|a| a == axis || indices.dims[a] <= ty.dims[a]);
    if !fits {
        let message = format!("indices {:?} do not fit the operand's {:?}", indices.dims, ty.dims);
        let help = format!("all extents but that of axis {axis} must be at most the operand's");
        return Err(ErrorKind::wrong(message).help(help));
    }
    not_empty(ty.dims[axis], indices)
}

/// The expression of a position from an index: counted from the end where negative, clamped.
pub(super) fn position(f: &mut Formula, index: Ref, extent: usize) -> Ref {
    let (zero, last) = (f.lit(0.0), f.lit(extent.saturating_sub(1) as f64));
    let (negative, shifted) = (f.less(index, zero), f.offset(index, extent as f64));
    let counted = f.select(negative, shifted, index);
    let low = f.max(counted, zero);
    f.min(low, last)
}

/// The operand's slices along `axis` that the indices name: dimensions `data[..axis] ++ indices ++
/// data[axis + 1..]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    axis: i64,
}

impl Op for Gather {
    const NAME: &'static str = "Gather";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Gather { axis: attrs.int_or("axis", 0)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (ty, indices) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(indices, &INDICES, &INDICES)?;
        let axis = tools::axis(self.axis, ty.rank())?;
        not_empty(ty.dims[axis], indices)?;
        if let Some(indices) = inputs.constant(1) {
            in_range(indices.ints().into_iter(), ty.dims[axis])?;
        }
        let dims = [&ty.dims[..axis], &indices.dims, &ty.dims[axis + 1..]].concat();
        Ok(vec![tools::sized(ty.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(indices)] = inputs else { return vec![] };
        let (ty, dims) = (&outputs[0], x.dims());
        let axis = tools::axis(self.axis, dims.len()).unwrap_or(0);
        let outer: usize = dims[..axis].iter().product();
        let run = dims[axis + 1..].iter().product::<usize>() * ty.dtype.bytes();
        let indices = indices.ints();
        let mut data = Vec::with_capacity(ty.bytes());
        for row in 0..outer {
            for &index in &indices {
                let at = (row * dims[axis] + place(index, dims[axis])) * run;
                data.extend_from_slice(&x.bytes()[at..at + run]);
            }
        }
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x), Some(indices)] = inputs else { return vec![] };
        let dims = mir.dims(x);
        let axis = tools::axis(self.axis, dims.len()).unwrap_or(0);
        let dims_out = outputs[0].dims.clone();
        // Neighbours that are known are a slice, which costs nothing.
        let known = mir.constant_of(indices).map(Tensor::ints).unwrap_or_default();
        let extent = dims[axis] as i64;
        let known: Vec<_> = known.into_iter().map(|i| if i < 0 { i + extent } else { i }).collect();
        if let (Some(&first), true) = (known.first(), known.windows(2).all(|w| w[1] == w[0] + 1)) {
            let slice = mir.narrow(x, axis, first as usize, known.len());
            return vec![mir.reshape(slice, dims_out)];
        }
        vec![mir.gather(x, indices, axis)]
    }
}

/// For every index the element of the operand at the same place, but for the coordinate along `axis`,
/// which is the index.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherElements {
    axis: i64,
}

impl Op for GatherElements {
    const NAME: &'static str = "GatherElements";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(GatherElements { axis: attrs.int_or("axis", 0)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (ty, indices) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(indices, &INDICES, &INDICES)?;
        let axis = tools::axis(self.axis, ty.rank())?;
        fits(ty, indices, axis)?;
        if let Some(indices) = inputs.constant(1) {
            in_range(indices.ints().into_iter(), ty.dims[axis])?;
        }
        Ok(vec![tools::sized(ty.dtype, indices.dims.clone())?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(indices)] = inputs else { return vec![] };
        let (ty, own) = (&outputs[0], x.ty().strides());
        let axis = tools::axis(self.axis, ty.rank()).unwrap_or(0);
        let indices = indices.ints();
        let (mut data, mut next) = (Vec::with_capacity(ty.bytes()), 0);
        for_each_index(&ty.dims, |index| {
            let at = (0..index.len()).map(|a| {
                let i = if a == axis { place(indices[next], x.dims()[axis]) } else { index[a] };
                i * own[a] as usize
            });
            data.extend_from_slice(x.element(at.sum()));
            next += 1;
        });
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(mut x), Some(indices)] = inputs else { return vec![] };
        let axis = tools::axis(self.axis, mir.ty(x).rank()).unwrap_or(0);
        // What is expanded only to be indexed is read where it is.
        for a in 0..axis {
            if mir.dims(x)[a] > 1 && mir.repeats(x, a) {
                x = mir.narrow(x, a, 0, 1);
            }
        }
        let ty = mir.ty(x).clone();
        let (flat, slice) = flat_places(mir, x, indices, axis, &outputs[0].dims[axis + 1..]);
        let (outer, inner) = ty.dims.split_at(ty.rank() - slice);
        let table = mir.reshape(x, [&[outer.iter().product()], inner].concat());
        vec![mir.gather(table, flat, 0)]
    }
}

/// For each index along `axis` of `x`, the number of the element at the index' own place but for that axis.
/// Where all indices along the last axes are equal, and there are as many as `x` has elements (`behind` are the
/// extents behind the axis), it is the number of a slice of the last so many axes. Where `x` has one element along
/// another axis, all indices along it mean that one.
pub(super) fn flat_places(
    mir: &mut mir::Builder,
    x: mir::Value,
    indices: mir::Value,
    axis: usize,
    behind: &[usize],
) -> (mir::Value, usize) {
    let ty = mir.ty(x).clone();
    let rank = ty.rank();
    let whole = |a: usize| behind[a - axis - 1] == ty.dims[a];
    let slice = (axis + 1..rank).rev().take_while(|&a| whole(a) && mir.repeats(indices, a)).count();
    let mut indices = indices;
    for a in rank - slice..rank {
        indices = mir.narrow(indices, a, 0, 1);
    }
    let dims = mir.dims(indices)[..rank - slice].to_vec();
    let indices = mir.reshape(indices, dims.clone());
    let moves = strides(&ty.dims[..rank - slice]);
    let mut operands = vec![mir.cast(indices, DType::I64)];
    let mut f = Formula::new(DType::I64);
    let index = f.operand(0);
    let along = position(&mut f, index, ty.dims[axis]);
    let mut flat = f.scale(along, moves[axis] as f64);
    for (a, &extent) in dims.iter().enumerate() {
        if a == axis || extent <= 1 || ty.dims[a] == 1 {
            continue;
        }
        operands.push(ramp(mir, dims.len(), a, extent, moves[a]));
        let term = f.operand(operands.len() - 1);
        flat = f.add(flat, term);
    }
    (mir.map(f.finish(flat), &operands), slice)
}

/// 0, step, 2 step .. along one axis of a tensor of this rank, as i64.
pub(super) fn ramp(mir: &mut mir::Builder, rank: usize, axis: usize, extent: usize, step: i64) -> mir::Value {
    let positions = super::constant::iota(mir, extent);
    let scaled = mir.binary_scalar(mir::Binary::Mul, positions, step as f64);
    let mut dims = vec![1; rank];
    dims[axis] = extent;
    mir.reshape(scaled, dims)
}

/// Every row of the indices (their last axis, of extent k) names a place on the k axes of the operand
/// behind the first `batch_dims`, which are common to both: the result is what lies there.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherND {
    batch_dims: i64,
}

impl GatherND {
    /// The number of common axes, and of those that are indexed.
    fn axes(&self, data: &Type, indices: &Type) -> Result<(usize, usize), ErrorKind> {
        let most = data.rank().min(indices.rank());
        let batch = usize::try_from(self.batch_dims).ok().filter(|&b| b < most).ok_or_else(|| {
            let message = format!("batch_dims {} for {data} and {indices}", self.batch_dims);
            ErrorKind::wrong(message).help("it must be less than both ranks")
        })?;
        if data.dims[..batch] != indices.dims[..batch] {
            let (a, b) = (&data.dims[..batch], &indices.dims[..batch]);
            return Err(ErrorKind::wrong(format!("batch dimensions differ: {a:?} and {b:?}")));
        }
        let depth = indices.dims[indices.rank() - 1];
        if depth == 0 || depth > data.rank() - batch {
            let message = format!("rows of {depth} indices for {data}");
            let help = format!("there are {} axes to be indexed", data.rank() - batch);
            return Err(ErrorKind::wrong(message).help(help));
        }
        Ok((batch, depth))
    }
}

impl Op for GatherND {
    const NAME: &'static str = "GatherND";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(GatherND { batch_dims: attrs.int_or("batch_dims", 0)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (ty, indices) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(indices, &[DType::I64], &[DType::I64])?;
        let (batch, depth) = self.axes(ty, indices)?;
        let known = inputs.constant(1).map(Tensor::ints).unwrap_or_default();
        for (i, &extent) in ty.dims[batch..batch + depth].iter().enumerate() {
            not_empty(extent, indices)?;
            in_range(known.iter().copied().skip(i).step_by(depth), extent)?;
        }
        let dims = [&indices.dims[..indices.rank() - 1], &ty.dims[batch + depth..]].concat();
        Ok(vec![tools::sized(ty.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(indices)] = inputs else { return vec![] };
        let Ok((batch, depth)) = self.axes(x.ty(), indices.ty()) else { return vec![] };
        if outputs[0].elements() == 0 {
            return vec![Tensor::zeros(outputs[0].clone())];
        }
        let (dims, own) = (x.dims(), x.ty().strides());
        let run = dims[batch + depth..].iter().product::<usize>() * x.ty().dtype.bytes();
        let rows = indices.ints();
        let batches: usize = dims[..batch].iter().product();
        let per_batch = (rows.len() / depth) / batches.max(1);
        let mut data = Vec::with_capacity(outputs[0].bytes());
        for (i, row) in rows.chunks_exact(depth).enumerate() {
            let mut at = i / per_batch * if batch == 0 { 0 } else { own[batch - 1] as usize };
            for (k, &index) in row.iter().enumerate() {
                at += place(index, dims[batch + k]) * own[batch + k] as usize;
            }
            let at = at * x.ty().dtype.bytes();
            data.extend_from_slice(&x.bytes()[at..at + run]);
        }
        Tensor::from_bytes(outputs[0].clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x), Some(indices)] = inputs else { return vec![] };
        let (ty, rows) = (mir.ty(x).clone(), mir.ty(indices).clone());
        let Ok((batch, depth)) = self.axes(&ty, &rows) else { return vec![] };
        let (outer, inner) = ty.dims.split_at(batch + depth);
        let moves = strides(outer);
        let (last, row_dims) = (rows.rank() - 1, &rows.dims[..rows.rank() - 1]);
        let (mut f, mut operands, mut flat) = (Formula::new(DType::I64), vec![], None);
        let mut add = |f: &mut Formula, term| flat = Some(flat.map_or(term, |sum| f.add(sum, term)));
        for k in 0..depth {
            let column = mir.narrow(indices, last, k, 1);
            operands.push(mir.reshape(column, row_dims));
            let index = f.operand(k);
            let along = position(&mut f, index, outer[batch + k]);
            let term = f.scale(along, moves[batch + k] as f64);
            add(&mut f, term);
        }
        for axis in 0..batch {
            operands.push(ramp(mir, row_dims.len(), axis, row_dims[axis], moves[axis]));
            let term = f.operand(depth + axis);
            add(&mut f, term);
        }
        let expr = flat.map_or_else(Expr::identity, |flat| f.finish(flat));
        let flat = mir.map(expr, &operands);
        let table = mir.reshape(x, [&[outer.iter().product()], inner].concat());
        let gathered = mir.gather(table, flat, 0);
        vec![mir.reshape(gathered, outputs[0].dims.clone())]
    }
}

/// A new axis of extent `depth` (known when the model is compiled) at place `axis`, with the second of
/// `values` where its coordinate is the index (counted from the end where negative), else the first.
/// Indices that are no integers are truncated.
#[derive(Clone, Debug, PartialEq)]
pub struct OneHot {
    axis: i64,
}

impl Op for OneHot {
    const NAME: &'static str = "OneHot";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(OneHot { axis: attrs.int_or("axis", -1)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 3)?;
        let (indices, values) = (inputs.ty(0)?, inputs.ty(2)?);
        tools::dtype_in(indices, &NUMBERS, &NUMBERS)?;
        tools::dtype_in(inputs.ty(1)?, &NUMBERS, &NUMBERS)?;
        tools::single(inputs.ty(1)?, "the depth")?;
        if values.dims != [2] {
            return Err(ErrorKind::wrong(format!("the values are {values}")).help("they must be two"));
        }
        let axis = tools::axis(self.axis, indices.rank() + 1)?;
        let depth = inputs.known(1, "the depth")?.map_or(0, |d| d.int_at(0));
        if depth < 1 {
            return Err(ErrorKind::wrong(format!("the depth is {depth}")).help("it must be positive"));
        }
        let mut dims = indices.dims.clone();
        dims.insert(axis, depth as usize);
        Ok(vec![tools::sized(values.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(indices), _, Some(values)] = inputs else { return vec![] };
        let ty = &outputs[0];
        let axis = tools::axis(self.axis, ty.rank()).unwrap_or(0);
        let depth = ty.dims[axis] as i64;
        let inner: usize = ty.dims[axis + 1..].iter().product();
        let indices = indices.ints();
        let mut data = Vec::with_capacity(ty.bytes());
        for i in 0..ty.elements() {
            let at = (i / inner) as i64 % depth;
            let index = indices[i / inner / depth as usize * inner + i % inner];
            let hot = index == at || index.checked_add(depth) == Some(at);
            data.extend_from_slice(values.element(usize::from(hot)));
        }
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(indices), _, Some(values)] = inputs else { return vec![] };
        let ty = &outputs[0];
        let axis = tools::axis(self.axis, ty.rank()).unwrap_or(0);
        let depth = ty.dims[axis];
        let mut dims = ty.dims.clone();
        dims[axis] = 1;
        let indices = mir.cast(indices, DType::I64);
        let indices = mir.reshape(indices, dims);
        let places = ramp(mir, ty.rank(), axis, depth, 1);
        let mut pick = |i| {
            let value = mir.narrow(values, 0, i, 1);
            mir.reshape(value, [])
        };
        let (off, on) = (pick(0), pick(1));
        let mut f = Formula::new(DType::I64);
        let [index, place, off_value, on_value] = [0, 1, 2, 3].map(|n| f.operand(n));
        let behind = f.offset(place, -(depth as f64));
        let (exact, wrapped) = (f.equal(index, place), f.equal(index, behind));
        let hot = f.or(exact, wrapped);
        let result = f.select(hot, on_value, off_value);
        vec![mir.map(f.finish(result), &[indices, places, off, on])]
    }
}

#[cfg(test)]
mod tests {
    use crate::mir;
    use crate::ops::Op;
    use crate::ops::tests::{Known, infer_known, infer_with, int};
    use crate::tensor::Tensor;
    use crate::types::DType::*;
    use crate::types::Type;

    #[test]
    fn dims() {
        let gather = |axis, dims, indices| {
            infer_with("Gather", &[("axis", int(axis))], &[(F32, dims), (I64, indices)])
        };
        assert_eq!(gather(1, &[2, 3, 4], &[5, 6]).expect("fits")[0].to_string(), "f32[2, 5, 6, 4]");
        assert_eq!(gather(-1, &[2, 3], &[]).expect("fits")[0].to_string(), "f32[2]");
        assert!(gather(0, &[], &[1]).is_err());
        assert!(gather(0, &[0, 2], &[1]).is_err());
        assert!(gather(0, &[0, 2], &[0]).is_ok());
        let known = |index: &[i64]| infer_known("Gather", 21, &[], &[Known::Type(F32, &[3]), Known::Ints(index)]);
        assert!(known(&[-3, 2]).is_ok());
        assert!(known(&[3]).is_err() && known(&[-4]).is_err() && known(&[i64::MIN]).is_err());
        let nd = |batch, dims, indices| {
            infer_with("GatherND", &[("batch_dims", int(batch))], &[(F32, dims), (I64, indices)])
        };
        assert_eq!(nd(1, &[2, 3, 4], &[2, 5, 1]).expect("fits")[0].to_string(), "f32[2, 5, 4]");
        assert!(nd(0, &[2, 3], &[2, 3]).is_err());
        assert!(nd(1, &[2, 3], &[3, 1]).is_err());
        assert!(nd(2, &[2, 3], &[2, 3]).is_err());
        assert!(nd(-1, &[2, 3], &[2, 1]).is_err());
        let elements = |dims, indices| infer_with("GatherElements", &[], &[(F32, dims), (I32, indices)]);
        assert_eq!(elements(&[2, 3], &[7, 3]).expect("fits")[0].to_string(), "f32[7, 3]");
        assert!(elements(&[2, 3], &[2, 4]).is_err());
        assert!(elements(&[2, 3], &[2]).is_err());
    }

    #[test]
    fn expanded_elements_are_read_where_they_are() {
        let mut b = mir::Builder::new("expanded");
        let x = Tensor::noise(&[2, 1, 6, 4], 1);
        let places = Tensor::from_ints(Type::new(I64, [1, 5, 3, 1]), (0..15).map(|i| i * 7 % 13 - 6));
        let value = b.input("x", mir::Role::Input, x.ty().clone());
        let indices = b.constant(places.clone());
        let (value, indices) = (b.broadcast(value, [2, 5, 6, 4]), b.broadcast(indices, [2, 5, 3, 4]));
        let ty = Type::new(F32, [2, 5, 3, 4]);
        let result = super::GatherElements { axis: 2 }.expand(&mut b, &[Some(value), Some(indices)], &[ty]);
        let graph = b.finish(vec![mir::Output { name: "y".into(), value: result[0] }]);
        let table = |node: &mir::Node| match node.op {
            mir::Op::Gather { .. } => Some(graph.ty(node.operands[0]).dims.clone()),
            _ => None,
        };
        assert_eq!(graph.nodes.values().find_map(table), Some(vec![12, 4]));
        let (x, places) = (x.f64s(), places.ints());
        let expected = (0..120).map(|i| {
            let (image, group, at, column) = (i / 60, i / 12 % 5, i / 4 % 3, i % 4);
            let row = super::place(places[group * 3 + at], 6);
            x[(image * 6 + row) * 4 + column]
        });
        assert_eq!(mir::eval::graph(&graph, &[Tensor::noise(&[2, 1, 6, 4], 1)])[0].f64s(), Vec::from_iter(expected));
    }
}
