//! Reductions over axes and over windows, and the place of the extremum.
//!
//! Both are loops over what is kept around loops over what is reduced. Vectors lie along a kept axis
//! where the operand's and the result's elements lie one behind the other there, else along such an
//! axis of what is reduced.

mod places;

use super::combine::Combine;
use super::expr;
use super::nest::{self, Level, Shares, nest, strips};
use super::{Frame, KernelPlan};
use crate::error::ErrorKind;
use crate::kir::Value;
use crate::kir::build::Builder;
use crate::lir::{Pool, Reduction};
use crate::types::DType;

/// Windows of up to so many elements are written out instead of looped over.
const WRITTEN_OUT: i64 = 16;

/// Reduction over axes; `None` where it is not for vectors.
pub(super) fn axes(
    frame: &Frame<'_>,
    op: Reduction,
    axes: &[usize],
) -> Result<Option<KernelPlan>, ErrorKind> {
    let x = &frame.inputs()[0];
    let (mut kept, mut reduced) = (vec![], vec![]);
    for axis in 0..x.dims.len() {
        if axes.contains(&axis) {
            reduced.push(Level::axis(x.dims[axis], vec![x.strides[axis]]));
        } else {
            let steps = vec![x.strides[axis], frame.result().strides[axis]];
            kept.push(Level::axis(x.dims[axis], steps));
        }
    }
    kernel(frame, op, kept, reduced)
}

/// Reduction over windows; `None` where it is not for vectors.
pub(super) fn windows(frame: &Frame<'_>, pool: &Pool) -> Result<Option<KernelPlan>, ErrorKind> {
    let (x, result) = (&frame.inputs()[0], frame.result());
    let mut kept: Vec<Level> = (0..x.dims.len())
        .map(|axis| Level::axis(result.dims[axis], vec![x.strides[axis], result.strides[axis]]))
        .collect();
    let mut reduced = vec![];
    for (i, &extent) in pool.window.iter().enumerate() {
        kept[i + 1].steps[0] *= pool.strides[i] as i64;
        let step = x.strides[i + 1] * pool.dilations[i] as i64;
        reduced.push(Level::axis(extent as i64, vec![step]));
    }
    kernel(frame, pool.op, kept, reduced)
}

fn kernel(
    frame: &Frame<'_>,
    op: Reduction,
    kept: Vec<Level>,
    reduced: Vec<Level>,
) -> Result<Option<KernelPlan>, ErrorKind> {
    let dtype = frame.result().dtype;
    let (mut kept, mut reduced) = (nest::merge(kept), nest::merge(reduced));
    let size = expr::size(dtype);
    let scalar = frame.machine.lanes == 1;
    if !scalar && !expr::in_vectors(dtype, &frame.machine) {
        return Ok(None);
    }
    let work = kept.iter().chain(&reduced).map(|l| l.extent).product::<i64>() * 2;
    let combine = Combine::new(op, dtype);
    let across = kept.iter().position(|l| l.steps == [size, size]);
    let along = reduced.iter().position(|l| l.steps == [size]);
    // The longest steps outermost.
    reduced.sort_by_key(|l| std::cmp::Reverse(l.steps[0].abs()));
    let plan = match (across, along) {
        (Some(at), _) => {
            let row = kept.remove(at);
            Reduce { frame, combine, dtype, reduced }.across(kept, row, work)
        }
        (None, Some(_)) => {
            let at = reduced.iter().position(|l| l.steps == [size]).unwrap_or(0);
            let row = reduced.remove(at);
            Reduce { frame, combine, dtype, reduced }.along(kept, row, work)
        }
        (None, None) if scalar => {
            let row = kept.pop().unwrap_or_else(|| Level::unit(2));
            Reduce { frame, combine, dtype, reduced }.across(kept, row, work)
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(plan))
}

struct Reduce<'a> {
    frame: &'a Frame<'a>,
    combine: Combine,
    dtype: DType,
    reduced: Vec<Level>,
}

impl Reduce<'_> {
    /// Vectors over `row`, an axis that is kept.
    fn across(&self, mut levels: Vec<Level>, row: Level, work: i64) -> KernelPlan {
        let steps = row.steps.clone();
        let vectors = (self.frame.machine.registers as i64 / 2).min(4);
        levels.push(row.in_pieces(vectors * self.frame.lanes()));
        let last = levels.len() - 1;
        let shares = Shares::of(&levels);
        let (mut b, pointers) = self.frame.open(shares.extent());
        nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, sizes| {
            let parts = nest::parts(b, sizes[last]);
            let start: Vec<Value> = parts.iter().map(|_| self.combine.start(b)).collect();
            let sums = accumulate(b, &self.reduced, p[0], start, &mut |b, from, offset, sums| {
                let mut next = vec![];
                for (&sum, &(at, lanes)) in sums.iter().zip(&parts) {
                    let offset = offset + at * steps[0];
                    let value = expr::load(b, self.dtype, from, offset, lanes, false);
                    let value = self.combine.lift(b, value);
                    next.push(self.combine.join(b, sum, value));
                }
                next
            });
            for (&sum, &(at, lanes)) in sums.iter().zip(&parts) {
                let value = self.combine.lower(b, sum);
                expr::store(b, self.dtype, value, p[1], at * steps[1], lanes);
            }
        });
        self.frame.close(b, work)
    }

    /// Vectors over `row`, an axis that is reduced.
    fn along(&self, mut levels: Vec<Level>, row: Level, work: i64) -> KernelPlan {
        const UNROLL: i64 = 4;
        if levels.is_empty() {
            levels.push(Level::unit(2));
        }
        let shares = Shares::of(&levels);
        let (mut b, pointers) = self.frame.open(shares.extent());
        nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, _| {
            let nothing = self.combine.start(b);
            let start = vec![nothing; UNROLL as usize];
            let sums = accumulate(b, &self.reduced, p[0], start, &mut |b, from, offset, sums| {
                let from = if offset == 0 { from } else { b.offset(from, 1, offset) };
                strips(
                    b,
                    row.extent,
                    UNROLL,
                    &[from],
                    &row.steps,
                    sums,
                    &mut |b, p, sums, parts| {
                        let mut sums = sums.to_vec();
                        for (sum, &(at, lanes)) in sums.iter_mut().zip(parts) {
                            let offset = at * row.steps[0];
                            let value = expr::load(b, self.dtype, p[0], offset, lanes, false);
                            let value = self.combine.lift(b, value);
                            let value = b.first(value, nothing, lanes);
                            *sum = self.combine.join(b, *sum, value);
                        }
                        sums
                    },
                )
            });
            let value = self.combine.across(b, &sums);
            let value = self.combine.lower(b, value);
            expr::store(b, self.dtype, value, p[1], 0, 1);
        });
        self.frame.close(b, work)
    }
}

/// Which element of several is asked for.
#[derive(Clone, Copy)]
struct Extremum {
    /// The largest, else the smallest.
    largest: bool,
    /// Of equal ones the last, else the first.
    last: bool,
}

/// What is written for one iteration of all loops: it gets a pointer, an offset and the sums.
type Leaf<'a> = dyn FnMut(&mut Builder, Value, i64, &[Value]) -> Vec<Value> + 'a;

/// Loops over the levels, which carry the sums; few iterations are written out.
fn accumulate(
    b: &mut Builder,
    levels: &[Level],
    pointer: Value,
    sums: Vec<Value>,
    leaf: &mut Leaf<'_>,
) -> Vec<Value> {
    let count: i64 = levels.iter().map(|l| l.extent).product();
    if count == 0 {
        return sums;
    }
    if count <= WRITTEN_OUT {
        let mut offsets = vec![0];
        for level in levels {
            let steps = (0..level.extent).map(|i| i * level.steps[0]);
            offsets =
                (offsets.iter()).flat_map(|o| steps.clone().map(move |step| o + step)).collect();
        }
        return offsets.into_iter().fold(sums, |sums, offset| leaf(b, pointer, offset, &sums));
    }
    let (outer, inner) = levels.split_first().expect("one iteration is written out");
    b.fold(0, outer.extent, &[(pointer, outer.steps[0])], &sums, |b, it| {
        accumulate(b, inner, it.pointers[0], it.carried.to_vec(), leaf)
    })
}

/// The index of the extremum along an axis.
pub(super) fn place(
    frame: &Frame<'_>,
    largest: bool,
    axis: usize,
    last: bool,
) -> Result<Option<KernelPlan>, ErrorKind> {
    let x = &frame.inputs()[0];
    let kept = (0..x.dims.len())
        .filter(|&a| a != axis)
        .map(|a| Level::axis(x.dims[a], vec![x.strides[a], frame.result().strides[a]]));
    let mut levels = nest::merge(kept);
    if frame.machine.lanes > 1 {
        return Ok(places::kernel(frame, Extremum { largest, last }, axis, levels));
    }
    if levels.is_empty() {
        levels.push(Level::unit(2));
    }
    let shares = Shares::of(&levels);
    let (extent, step) = (x.dims[axis], x.strides[axis]);
    let work = levels.iter().map(Level::pieces).product::<i64>() * extent * 4;
    // What is not above the best so far keeps its place.
    let order = Combine::new(if largest { Reduction::Max } else { Reduction::Min }, x.dtype);
    let (mut b, pointers) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, _| {
        let index = b.i64(0);
        let index = if extent > 1 {
            let first = expr::load(b, x.dtype, p[0], 0, 1, false);
            let first = order.lift(b, first);
            let second = b.offset(p[0], 1, step);
            b.fold(1, extent, &[(second, step)], &[first, index], |b, it| {
                let value = expr::load(b, x.dtype, it.pointers[0], 0, 1, false);
                let value = order.lift(b, value);
                let (best, index) = (it.carried[0], it.carried[1]);
                let (low, high) = if largest { (best, value) } else { (value, best) };
                let mut beats = if last { b.less_equal(low, high) } else { b.less(low, high) };
                if x.dtype.is_float() {
                    // The first NaN beats everything.
                    let (new, old) = (b.equal(value, value), b.equal(best, best));
                    let is_nan = b.not(new);
                    let first = b.and(is_nan, old);
                    beats = b.or(beats, first);
                }
                let here = b.from_index(crate::kir::Type::I64, it.index);
                vec![b.select(beats, value, best), b.select(beats, here, index)]
            })[1]
        } else {
            index
        };
        expr::store(b, DType::I64, index, p[1], 0, 1);
    });
    Ok(Some(frame.close(b, work)))
}
