//! Indices of extrema, of as many rows as there are lanes at a time. They are counted in lanes of four bytes
//! and stored as words of an `i64`.

use super::super::expr;
use super::super::nest::{self, Level, Shares, nest};
use super::super::{Frame, KernelPlan};
use super::Extremum;
use crate::kir::build::Builder;
use crate::kir::{Memory, Value};
use crate::types::DType;

/// Vectors of rows at a time, where these lie one behind the other.
const AT_ONCE: i64 = 4;

/// The kernel, for rows along `levels`; `None` where it is not for vectors.
pub(super) fn kernel(
    frame: &Frame<'_>,
    extremum: Extremum,
    axis: usize,
    mut levels: Vec<Level>,
) -> Option<KernelPlan> {
    let x = &frame.inputs()[0];
    let (lanes, size) = (frame.lanes(), expr::size(x.dtype));
    let (extent, step) = (x.dims[axis], x.strides[axis]);
    let rows = levels.pop()?;
    let known = x.dtype == DType::F32 && !frame.machine.doubles && i32::try_from(extent).is_ok();
    let dense = rows.steps[1] == expr::size(DType::I64);
    let in_columns = rows.steps[0] == size;
    if !known || !dense || !in_columns && step != size || rows.extent * 2 < lanes {
        return None;
    }
    let at_once = if in_columns { AT_ONCE } else { 1 };
    let work = levels.iter().map(Level::pieces).product::<i64>() * rows.extent * extent;
    let row = rows.steps[0];
    levels.push(rows.in_pieces(lanes * at_once));
    let last = levels.len() - 1;
    let shares = Shares::of(&levels);
    let (mut b, pointers) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, sizes| {
        let search = Search { extremum, extent, step, row, rows: sizes[last] };
        let places = if in_columns { search.columns(b, p[0]) } else { search.squares(b, p[0]) };
        for (vector, place) in (0..).zip(places) {
            store(b, p[1], vector * lanes, (sizes[last] - vector * lanes).min(lanes), place);
        }
    });
    Some(frame.close(b, work))
}

/// Indices as `i64`, of so many rows from one on.
fn store(b: &mut Builder, to: Value, first: i64, rows: i64, places: Value) {
    let zero = b.i32(0);
    let words = if b.machine().big_endian { [zero, places] } else { [places, zero] };
    let lanes = b.lanes();
    for (half, words) in (0..).zip(b.interleave(&words)) {
        let count = (2 * rows - half * lanes).clamp(0, lanes);
        if count > 0 {
            let at = first * expr::size(DType::I64) + half * lanes * 4;
            let (to, at) = expr::reach(b, to, at);
            b.store_as(Memory::I32, words, to, at, count as u32);
        }
    }
}

struct Search {
    extremum: Extremum,
    /// Elements of a row, and the bytes from one to the next.
    extent: i64,
    step: i64,
    /// Bytes from a row to the next.
    row: i64,
    /// How many there are.
    rows: i64,
}

impl Search {
    /// The better of two elements, and its place. The first NaN is better than everything.
    fn better(&self, b: &mut Builder, best: [Value; 2], new: [Value; 2]) -> [Value; 2] {
        let Extremum { largest, last } = self.extremum;
        let (low, high) = if largest { (new[0], best[0]) } else { (best[0], new[0]) };
        let stays = if last { b.less(low, high) } else { b.less_equal(low, high) };
        let (goes, number) = (b.not(stays), b.equal(best[0], best[0]));
        let goes = b.and(goes, number);
        [0, 1].map(|i| b.select(goes, new[i], best[i]))
    }

    /// Of rows whose elements of one column lie one behind the other.
    fn columns(&self, b: &mut Builder, x: Value) -> Vec<Value> {
        let parts = nest::parts(b, self.rows);
        let load = |b: &mut Builder, x: Value, at: i64| -> Vec<Value> {
            let load = |&(first, lanes): &(i64, u32)| {
                expr::load(b, DType::F32, x, at + first * self.row, lanes, false)
            };
            parts.iter().map(load).collect()
        };
        let zero = b.i32(0);
        let mut state: Vec<Value> =
            load(b, x, 0).into_iter().flat_map(|best| [best, zero]).collect();
        if self.extent > 1 {
            let (one, second) = (b.i32(1), b.offset(x, 1, self.step));
            state.push(one);
            state = b.fold(1, self.extent, &[(second, self.step)], &state, |b, it| {
                let here = it.carried[it.carried.len() - 1];
                let mut state = vec![];
                for (best, new) in it.carried.chunks(2).zip(load(b, it.pointers[0], 0)) {
                    state.extend(self.better(b, [best[0], best[1]], [new, here]));
                }
                state.push(b.add(here, one));
                state
            });
        }
        state.chunks_exact(2).map(|best| best[1]).collect()
    }

    /// Of rows that lie one behind the other: squares are transposed.
    fn squares(&self, b: &mut Builder, x: Value) -> Vec<Value> {
        let lanes = b.lanes();
        let square = |b: &mut Builder, x: Value, count: i64, state: &[Value]| -> Vec<Value> {
            let load = |row: i64| expr::load(b, DType::F32, x, row * self.row, count as u32, false);
            let rows: Vec<Value> = (0..self.rows).map(load).collect();
            let (mut best, first) = ([state[0], state[1]], state[2]);
            for (column, new) in (0..).zip(b.columns(&rows, count as usize)) {
                let column = b.i32(column);
                let here = b.add(first, column);
                best = self.better(b, best, [new, here]);
            }
            let next = b.i32(count as i32);
            vec![best[0], best[1], b.add(first, next)]
        };
        let (whole, rest) = (self.extent / lanes, self.extent % lanes);
        // What any element is better than, and then the first one wins.
        let none = if self.extremum.largest { f32::NEG_INFINITY } else { f32::INFINITY };
        let (zero, none) = (b.i32(0), b.f32(none));
        let mut state = vec![none, zero, zero];
        if whole > 0 {
            state = b.fold(0, whole, &[(x, lanes * self.step)], &state, |b, it| {
                square(b, it.pointers[0], lanes, it.carried)
            });
        }
        if rest > 0 {
            let x = b.offset(x, whole, lanes * self.step);
            state = square(b, x, rest, &state);
        }
        vec![state[1]]
    }
}
