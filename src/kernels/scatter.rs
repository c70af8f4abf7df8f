//! Slices that go to places which the indices say, one after the other: the last one wins, or all of them are
//! combined. Threads share the slices' elements, never the slices.

use super::expr;
use super::moves::Word;
use super::nest::{self, Level, Shares, nest, strips};
use super::operations::binary;
use super::{Frame, KernelPlan};
use crate::error::ErrorKind;
use crate::kir::build::Builder;
use crate::kir::{Memory, Value};
use crate::lir::{Binary, Reduction};
use crate::types::DType;

/// Fewer words of a slice are not shared.
const PIECE: i64 = 1024;

/// What is done to an element.
#[derive(Clone, Copy)]
enum Change {
    Replaced(Word),
    Combined(Binary, DType),
}

/// The kernel; `None` where vectors do not do it.
pub(super) fn kernel(
    frame: &Frame<'_>,
    op: Option<Reduction>,
) -> Result<Option<KernelPlan>, ErrorKind> {
    let [data, indices, updates] = frame.inputs() else {
        return Err(ErrorKind::bug("a scatter has three operands"));
    };
    let (result, dtype) = (frame.result(), frame.result().dtype);
    let memory = match indices.dtype {
        DType::I32 => Memory::I32,
        DType::I64 => Memory::I64,
        other => return Err(ErrorKind::unsupported(format!("indices of type {other}"))),
    };
    let change = match op {
        None => Change::Replaced(Word::of(dtype)),
        Some(op) => Change::Combined(op.combine(), dtype),
    };
    let size = match change {
        Change::Replaced(word) => word.bytes,
        Change::Combined(..) => expr::size(dtype),
    };
    // The elements of a slice, in the data, the updates and the result.
    let rank = indices.dims.len();
    let slice = (1..data.dims.len()).map(|i| {
        let steps = vec![data.strides[i], updates.strides[rank + i - 1], result.strides[i]];
        Level::axis(data.dims[i], steps)
    });
    let words = match change {
        Change::Replaced(word) => Some(word.level(3)),
        Change::Combined(..) => None,
    };
    let mut slice = nest::merge(slice.chain(words));
    let row = slice.pop().unwrap_or_else(|| Level::axis(1, vec![size; 3]));
    let dense = row.steps == [size; 3];
    let in_vectors = match change {
        Change::Replaced(_) => true,
        Change::Combined(_, dtype) => expr::in_vectors(dtype, &frame.machine),
    };
    if frame.machine.lanes > 1 && !(dense && in_vectors) {
        return Ok(None);
    }
    let steps = row.steps.clone();
    let rows: i64 = slice.iter().map(Level::pieces).product();
    let extent = row.extent;
    slice.push(row.in_pieces(PIECE));
    let places = (0..rank)
        .map(|i| Level::axis(indices.dims[i], vec![indices.strides[i], updates.strides[i]]));
    let mut places = nest::merge(places);
    if places.is_empty() {
        places.push(Level::unit(2));
    }
    let slices: i64 = places.iter().map(Level::pieces).product();
    let (count, stride) = (data.dims[0], [data.strides[0], result.strides[0]]);
    let in_place = frame.in_place(0);
    let copied = if in_place { 0 } else { count };
    let last = slice.len() - 1;
    let shares = Shares::of(&slice);
    let (mut b, p) = frame.open(shares.extent());
    let indices = p[1];
    nest(&mut b, &slice, Some(shares), &[p[0], p[2], p[3]], &mut |b, p, sizes| {
        let (extent, [data, updates, result]) = (sizes[last], [p[0], p[1], p[2]]);
        if !in_place {
            let copy = Change::Replaced(Word::of(dtype));
            let all = Level::axis(count, stride.to_vec());
            let steps = [steps[0], steps[2]];
            nest(b, &[all], None, &[data, result], &mut |b, p, _| {
                change_row(b, extent, [p[0], p[1]], steps, copy, size);
            });
        }
        nest(b, &places, None, &[indices, updates], &mut |b, p, _| {
            let index = b.load_index(memory, p[0], 0, count, true);
            let to = b.offset(result, index, stride[1]);
            change_row(b, extent, [p[1], to], [steps[1], steps[2]], change, size);
        });
    });
    Ok(Some(frame.close(b, (copied + slices) * rows * (extent + 8))))
}

/// A row of what `size` bytes hold each, from the first pointer into the second.
fn change_row(
    b: &mut Builder,
    extent: i64,
    pointers: [Value; 2],
    steps: [i64; 2],
    change: Change,
    size: i64,
) {
    // One lane takes elements that lie anywhere.
    strips(b, extent, 4, &pointers, &steps, &[], &mut |b, p, _, parts| {
        for &(at, lanes) in parts {
            let [from, to] = [at * steps[0], at * steps[1]];
            match change {
                // What is copied whole lies in words of the change's size.
                Change::Replaced(word) => {
                    for at in (0..size).step_by(word.bytes as usize) {
                        let value = word.load(b, p[0], from + at, lanes);
                        word.store(b, value, p[1], to + at, lanes);
                    }
                }
                Change::Combined(op, dtype) => {
                    let update = expr::load(b, dtype, p[0], from, lanes, false);
                    let old = expr::load(b, dtype, p[1], to, lanes, false);
                    let new = binary(b, op, dtype, old, update);
                    expr::store(b, dtype, new, p[1], to, lanes);
                }
            }
        }
        vec![]
    });
}
