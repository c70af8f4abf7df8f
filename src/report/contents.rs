//! What a buffer holds, one after the other and side by side, and as what it is used whole.

use super::{Content, count};
use crate::lir::{Access, Buffer, BufferKind, Module};
use crate::types::Type;
use cranelift_entity::{EntityRef, SecondaryMap};

/// What a buffer holds.
#[derive(Clone, Default)]
pub(super) struct Contents {
    /// In the order in which they are written.
    pub(super) all: Vec<Content>,
    /// As what all of its bytes are used first.
    pub(super) whole: Option<Type>,
}

/// The contents of every buffer. Where a result lies over an operand that dies, what was there before is gone, also
/// what it leaves as it is.
pub(super) fn contents(module: &Module) -> SecondaryMap<Buffer, Contents> {
    let mut all: SecondaryMap<Buffer, Held> = SecondaryMap::new();
    all.resize(module.buffers.len());
    let set = module.io.inputs.iter().chain(&module.io.parameters);
    let set = set.map(|port| Access::dense(port.buffer, &port.ty));
    let constants = module.buffers.iter().filter_map(|(buffer, info)| match &info.kind {
        BufferKind::Constant(tensor) => Some(Access::dense(buffer, tensor.ty())),
        BufferKind::Input
        | BufferKind::Parameter
        | BufferKind::Output
        | BufferKind::State
        | BufferKind::Temporary => None,
    });
    for access in set.chain(constants) {
        all[access.buffer].see(&access, module);
        all[access.buffer].write(&access, None, 0, false);
    }
    for (step, info) in &module.steps {
        let (index, now) = (step.index(), count(step.index() + 1));
        info.accesses().for_each(|access| all[access.buffer].see(access, module));
        for operand in &info.operands {
            all[operand.buffer].read(operand, index, now);
        }
        let in_place = info.operands.iter().any(|operand| operand.same(&info.result));
        if info.is_over() {
            all[info.result.buffer].current.clear();
        }
        all[info.result.buffer].write(&info.result, Some(index), now, in_place);
        if let Some(scratch) = &info.scratch {
            all[scratch.buffer].write(scratch, Some(index), now, false);
        }
    }
    let end = count(module.steps.len() + 1);
    for port in &module.io.outputs {
        let Held { contents, current, .. } = &mut all[port.buffer];
        current.iter().for_each(|(i, _)| contents[*i].last = end);
    }
    let mut contents: SecondaryMap<Buffer, Contents> = SecondaryMap::new();
    contents.resize(module.buffers.len());
    for buffer in module.buffers.keys() {
        let Held { contents: all, whole, current: _ } = std::mem::take(&mut all[buffer]);
        contents[buffer] = Contents { all, whole };
    }
    contents
}

/// The contents of one buffer, as far as the steps have run.
#[derive(Clone, Default)]
struct Held {
    contents: Vec<Content>,
    /// Those that nothing has been written over, and where they lie.
    current: Vec<(usize, Access)>,
    whole: Option<Type>,
}

impl Held {
    fn see(&mut self, access: &Access, module: &Module) {
        let bytes = module.buffers[access.buffer].bytes;
        if self.whole.is_none() && access.is_dense() && access.ty().bytes() as u64 == bytes {
            self.whole = Some(access.ty());
        }
    }

    fn read(&mut self, operand: &Access, step: usize, now: u32) {
        for (i, access) in &self.current {
            if access.overlaps(operand) {
                let content = &mut self.contents[*i];
                content.last = now;
                if content.readers.last() != Some(&step) {
                    content.readers.push(step);
                }
            }
        }
    }

    fn write(&mut self, access: &Access, writer: Option<usize>, now: u32, in_place: bool) {
        let replaced = self.current.iter().rev().find(|(_, old)| in_place && old.overlaps(access));
        let in_place_of = replaced.map(|(i, _)| *i);
        self.current.retain(|(_, old)| !covers(access, old));
        self.current.push((self.contents.len(), access.clone()));
        let bytes = access.dtype.bytes() as u64;
        let of = |(from, to): (i64, i64)| (from.max(0) as u64 * bytes, to.max(0) as u64 * bytes);
        let (low, high) = access.span().unwrap_or((access.offset, access.offset - 1));
        let (from, to) = share(access).unwrap_or((low, high + 1));
        self.contents.push(Content {
            writer,
            readers: vec![],
            first: now,
            last: now,
            dtype: access.dtype.name(),
            shape: access.dims.to_vec(),
            span: of((low, high + 1)),
            shown: of((from, to)),
            strided: access.span().is_some() && !is_solid(access),
            in_place_of,
        });
    }
}

/// Whether every element in the span is reached.
fn is_solid(access: &Access) -> bool {
    access.span().is_none_or(|(low, high)| high - low < access.elements() as i64)
}

/// Whether every element of `old` is one of `new`.
fn covers(new: &Access, old: &Access) -> bool {
    let (Some((low, high)), Some((from, to))) = (new.span(), old.span()) else {
        return old.is_empty();
    };
    new.same(old) || is_solid(new) && low <= from && to <= high
}

/// For columns of a wider tensor, their share of the rows that they are in, in elements from the
/// buffer's start; `None` where the elements lie one behind the other.
fn share(access: &Access) -> Option<(i64, i64)> {
    let (low, high) = access.span()?;
    let mut axes: Vec<(i64, i64)> =
        access.strides.iter().zip(&access.dims).map(|(s, &d)| (s.abs(), d as i64)).collect();
    axes.retain(|&(stride, dim)| dim > 1 && stride > 0);
    axes.sort_unstable();
    let mut run = 1;
    for (stride, dim) in axes {
        if stride > run {
            // Runs of this length, a stride apart: rows, of which each takes the same part.
            let (row, column) = (low / stride * stride, low % stride);
            let rows = high / stride * stride + stride - row;
            let part = |at: i64| row + (rows as i128 * i128::from(at) / i128::from(stride)) as i64;
            return Some((part(column), part((column + run).min(stride))));
        }
        run = run.max(stride * dim);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DType;

    fn access(dims: &[usize], strides: &[i64], offset: i64) -> Access {
        let (dims, strides) = (dims.to_vec(), strides.to_vec());
        let (buffer, dtype) = (Buffer::new(0), DType::F32);
        Access { buffer, dtype, dims: dims.into(), strides: strides.into(), offset }
    }

    #[test]
    fn columns_have_their_share() {
        assert_eq!(share(&access(&[4, 10], &[10, 1], 0)), None);
        // Columns 2..5 of ten.
        assert_eq!(share(&access(&[4, 3], &[10, 1], 2)), Some((8, 20)));
        // The same of the last two rows.
        assert_eq!(share(&access(&[2, 3], &[10, 1], 22)), Some((24, 30)));
        assert_eq!(share(&access(&[4], &[-1], 3)), None);
        assert_eq!(share(&access(&[0, 3], &[3, 1], 0)), None);
    }

    #[test]
    fn what_is_written_over_is_gone() {
        let mut held = Held::default();
        let whole = access(&[4, 10], &[10, 1], 0);
        held.write(&whole, Some(0), 1, false);
        held.write(&access(&[4, 3], &[10, 1], 2), Some(1), 2, false);
        held.read(&whole, 2, 3);
        held.write(&whole, Some(2), 3, true);
        let found: Vec<_> = held.contents.iter().map(|c| (c.first, c.last, c.strided)).collect();
        assert_eq!(found, [(1, 3, false), (2, 3, true), (3, 3, false)]);
        assert_eq!(held.contents[2].in_place_of, Some(1));
        assert_eq!((held.contents[1].span, held.contents[1].shown), ((8, 140), (32, 80)));
        assert_eq!(held.current.len(), 1);
    }
}
