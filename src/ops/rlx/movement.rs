//! RLX's operators that move elements.

use crate::error::ErrorKind;
use crate::mir;
use crate::ops::{Attrs, Op, Operands, Tolerance, tools};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};

/// Element `j` along `axis` is element `start + j * step` of the operand, for `j < len`.
#[derive(Clone, Debug, PartialEq)]
pub struct RlxSlice {
    axis: usize,
    start: usize,
    len: usize,
    step: i64,
}

/// The elements in reverse order along each of `axes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reverse {
    axes: Vec<usize>,
}

/// For each entry of `dims` in turn, element `i` along it is element `i - shift` of the operand, modulo
/// the extent.
#[derive(Clone, Debug, PartialEq)]
pub struct Roll {
    shifts: Vec<i64>,
    dims: Vec<usize>,
}

/// Operands cache and row: the first `pos` elements of the cache along `axis`, and the row behind them.
/// (RLX writes the row into the cache and gives that part of it: an update in place of what is here a
/// value.)
#[derive(Clone, Debug, PartialEq)]
pub struct KvAppend {
    axis: usize,
    pos: usize,
}

/// Operands table and indices, which may be floats: `table[..axis] ++ indices ++ table[axis + 1..]`. Indices
/// are truncated; negative ones count from the end, and those out of range are clamped.
#[derive(Clone, Debug, PartialEq)]
pub struct RlxGather {
    axis: usize,
}

fn size(attrs: &mut Attrs, name: &'static str) -> Result<usize, ErrorKind> {
    let value = attrs
        .int(name)?
        .ok_or_else(|| ErrorKind::wrong(format!("attribute \"{name}\" is missing")))?;
    Ok(crate::ops::window::bounded(name, 0, &[value])?[0])
}

fn sizes(attrs: &mut Attrs, name: &'static str) -> Result<Vec<usize>, ErrorKind> {
    crate::ops::window::bounded(name, 0, &attrs.ints(name)?.unwrap_or_default())
}

fn check_axis(axis: usize, ty: &Type) -> Result<(), ErrorKind> {
    tools::axis(i64::try_from(axis).unwrap_or(i64::MAX), ty.rank()).map(|_| ())
}

/// The elements that `from` names for every index of the result.
fn moved(x: &Tensor, ty: &Type, from: impl Fn(&[usize]) -> Vec<usize>) -> Tensor {
    let mut data = Vec::with_capacity(ty.bytes());
    for_each_index(&ty.dims, |index| {
        let flat = from(index).iter().zip(x.dims()).fold(0, |flat, (i, d)| flat * d + i);
        data.extend_from_slice(x.element(flat));
    });
    Tensor::from_bytes(ty.clone(), data.into()).unwrap_or_else(|| Tensor::zeros(ty.clone()))
}

impl Op for RlxSlice {
    const NAME: &'static str = "rlx:Slice";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let step = attrs.int_or("step", 1)?;
        if step == 0 {
            return Err(ErrorKind::wrong("attribute \"step\" is 0"));
        }
        Ok(RlxSlice {
            axis: size(attrs, "axis")?,
            start: size(attrs, "start")?,
            len: size(attrs, "len")?,
            step,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        check_axis(self.axis, x)?;
        let extent = x.dims[self.axis];
        let last = i128::from(self.step) * (self.len as i128 - 1) + self.start as i128;
        let inside = |i: i128| (0..extent as i128).contains(&i);
        if self.len > 0 && !(inside(self.start as i128) && inside(last)) {
            let kind = ErrorKind::wrong(format!("elements {} to {last} of axis {}", self.start, self.axis));
            return Err(kind.help(format!("it has {extent}")));
        }
        let mut ty = x.clone();
        ty.dims[self.axis] = self.len;
        Ok(vec![ty])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        vec![moved(x, &outputs[0], |index| {
            let mut from = index.to_vec();
            let at = self.start as i64 + self.step * index[self.axis] as i64;
            from[self.axis] = at as usize;
            from
        })]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let rank = outputs[0].rank();
        let (mut starts, mut steps) = (vec![0; rank], vec![1; rank]);
        // Of at most one element, the step does not matter; it may be out of any range.
        let step = if self.len > 1 { self.step } else { 1 };
        (starts[self.axis], steps[self.axis]) = (if self.len > 0 { self.start } else { 0 }, step);
        vec![mir.slice(x, &starts, &outputs[0].dims, &steps)]
    }
}

impl Op for Reverse {
    const NAME: &'static str = "rlx:Reverse";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Reverse { axes: sizes(attrs, "axes")? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        self.axes.iter().try_for_each(|&axis| check_axis(axis, x))?;
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        vec![moved(x, &outputs[0], |index| {
            let turned = |(axis, &i): (usize, &usize)| match self.axes.contains(&axis) {
                true => x.dims()[axis] - 1 - i,
                false => i,
            };
            index.iter().enumerate().map(turned).collect()
        })]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let dims = mir.dims(x);
        let turned = |axis: usize| self.axes.contains(&axis) && dims[axis] > 1;
        let starts: Vec<_> = (0..dims.len()).map(|a| if turned(a) { dims[a] - 1 } else { 0 }).collect();
        let steps: Vec<_> = (0..dims.len()).map(|a| if turned(a) { -1 } else { 1 }).collect();
        vec![mir.slice(x, &starts, &dims, &steps)]
    }
}

impl Op for Roll {
    const NAME: &'static str = "rlx:Roll";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let op = Roll {
            shifts: attrs.ints("shifts")?.unwrap_or_default(),
            dims: sizes(attrs, "dims")?,
        };
        match op.shifts.len() == op.dims.len() {
            true => Ok(op),
            false => Err(ErrorKind::wrong("attributes \"shifts\" and \"dims\" differ in length")),
        }
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        self.dims.iter().try_for_each(|&axis| check_axis(axis, x))?;
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        vec![moved(x, &outputs[0], |index| {
            let mut from = index.to_vec();
            for (&shift, &axis) in self.shifts.iter().zip(&self.dims) {
                let extent = x.dims()[axis] as i64;
                from[axis] = (from[axis] as i64 - shift % extent).rem_euclid(extent) as usize;
            }
            from
        })]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(mut x) = inputs[0] else { return vec![] };
        for (&shift, &axis) in self.shifts.iter().zip(&self.dims) {
            let extent = mir.dims(x)[axis];
            if extent == 0 {
                continue;
            }
            let tail = shift.rem_euclid(extent as i64) as usize;
            if tail > 0 {
                let last = mir.narrow(x, axis, extent - tail, tail);
                let first = mir.narrow(x, axis, 0, extent - tail);
                x = mir.concat(&[last, first], axis);
            }
        }
        vec![x]
    }
}

impl Op for KvAppend {
    const NAME: &'static str = "rlx:KvAppend";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(KvAppend { axis: size(attrs, "axis")?, pos: size(attrs, "pos")? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (cache, row) = (inputs.ty(0)?, inputs.ty(1)?);
        check_axis(self.axis, cache)?;
        let mut expected = cache.clone();
        expected.dims[self.axis] = 1;
        if *row != expected {
            return Err(ErrorKind::wrong(format!("the row is {row}")).help(format!("it must be {expected}")));
        }
        if self.pos >= cache.dims[self.axis] {
            return Err(ErrorKind::wrong(format!("position {} of the cache {cache}", self.pos)));
        }
        expected.dims[self.axis] = self.pos + 1;
        Ok(vec![expected])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(cache), Some(row)] = inputs else { return vec![] };
        let size = cache.ty().dtype.bytes();
        let inner = cache.dims()[self.axis + 1..].iter().product::<usize>() * size;
        let outer: usize = cache.dims()[..self.axis].iter().product();
        let mut data = Vec::with_capacity(outputs[0].bytes());
        for i in 0..outer {
            let whole = &cache.bytes()[i * cache.dims()[self.axis] * inner..];
            data.extend_from_slice(&whole[..self.pos * inner]);
            data.extend_from_slice(&row.bytes()[i * inner..][..inner]);
        }
        Tensor::from_bytes(outputs[0].clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let [Some(cache), Some(row)] = *inputs else { return vec![] };
        if self.pos == 0 {
            return vec![row];
        }
        let kept = mir.narrow(cache, self.axis, 0, self.pos);
        vec![mir.concat(&[kept, row], self.axis)]
    }
}

impl Op for RlxGather {
    const NAME: &'static str = "rlx:Gather";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(RlxGather { axis: size(attrs, "axis")? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (table, indices) = (inputs.ty(0)?, inputs.ty(1)?);
        check_axis(self.axis, table)?;
        if indices.dtype == DType::Bool {
            return Err(ErrorKind::wrong(format!("the indices are {indices}")));
        }
        if table.dims[self.axis] == 0 && indices.elements() > 0 {
            return Err(ErrorKind::wrong(format!("the table {table} has nothing along axis {}", self.axis)));
        }
        let dims = [&table.dims[..self.axis], &indices.dims, &table.dims[self.axis + 1..]].concat();
        Ok(vec![tools::sized(table.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(table), Some(indices)] = inputs else { return vec![] };
        let (rank, extent) = (indices.ty().rank(), table.dims()[self.axis] as i64);
        let (all, dims) = (indices.ints(), indices.dims());
        vec![moved(table, &outputs[0], |index| {
            let own = &index[self.axis..][..rank];
            let i = all[own.iter().zip(dims).fold(0, |flat, (i, d)| flat * d + i)];
            let i = if i < 0 { i.saturating_add(extent) } else { i }.clamp(0, extent - 1);
            [&index[..self.axis], &[i as usize], &index[self.axis + rank..]].concat()
        })]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let [Some(table), Some(indices)] = *inputs else { return vec![] };
        let indices = match mir.ty(indices).dtype {
            DType::I32 | DType::I64 => indices,
            _ => mir.cast(indices, DType::I64),
        };
        vec![mir.gather(table, indices, self.axis)]
    }
}
