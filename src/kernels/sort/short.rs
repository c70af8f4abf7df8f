//! A few of each of many rows: as many rows as there are lanes at a time, each lane with a list of its row's best
//! elements so far.

use super::super::nest::{Level, Shares, nest};
use super::super::{Frame, KernelPlan, expr};
use super::{Order, Pair, Sort};
use crate::kir::build::Builder;
use crate::kir::{Memory, Value};
use crate::types::DType;

/// More rows than this part of the lanes are worth it.
const PART: i64 = 2;

/// The kernel, for rows along `levels`; `None` where it is not for these.
pub(super) fn kernel(
    frame: &Frame<'_>,
    sort: &Sort,
    width: i64,
    mut levels: Vec<Level>,
) -> Option<KernelPlan> {
    let (lanes, size) = (frame.lanes(), expr::size(sort.dtype));
    let rows = levels.pop()?;
    let many = lanes > 1 && 2 * sort.count <= lanes && rows.extent * PART >= lanes;
    let in_columns = rows.steps[0] == size;
    let lies = in_columns || sort.step == size;
    let word = expr::size(DType::I64);
    let dense = rows.steps[1] == sort.count * word
        && (sort.count == 1 || frame.result().stride(-1) == word);
    if !many || !lies || !dense || sort.memory != Memory::I32 {
        return None;
    }
    let around = levels.iter().map(Level::pieces).product::<i64>();
    let work = around * rows.extent * width * (sort.count + 1) * 4;
    let [row, result] = [rows.steps[0], rows.steps[1]];
    levels.push(rows.in_pieces(lanes));
    let last = levels.len() - 1;
    let shares = Shares::of(&levels);
    let (mut b, p) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &[p[0], p[2]], &mut |b, p, sizes| {
        let lists = Lists { sort, row, rows: sizes[last], in_columns };
        let best = lists.search(b, p[0], width);
        let zero = b.i32(0);
        let big = b.machine().big_endian;
        let words: Vec<Value> = (best.iter())
            .flat_map(|pair| if big { [zero, pair[1]] } else { [pair[1], zero] })
            .collect();
        let count = words.len() as u32;
        let columns = b.columns(&words, sizes[last] as usize);
        for (i, words) in (0..).zip(columns) {
            let (to, at) = expr::reach(b, p[1], i * result);
            b.store_as(Memory::I32, words, to, at, count);
        }
    });
    Some(frame.close(b, work))
}

/// Rows that are looked at side by side.
struct Lists<'a> {
    sort: &'a Sort,
    /// Bytes from a row to the next.
    row: i64,
    /// How many there are.
    rows: i64,
    /// Whether the elements of one column lie one behind the other, rather than those of a row.
    in_columns: bool,
}

impl Lists<'_> {
    /// The best elements of all rows, in order.
    fn search(&self, b: &mut Builder, x: Value, width: i64) -> Vec<Pair> {
        let step = if self.in_columns { 1 } else { b.lanes() };
        let (worst, nowhere, zero) = (self.sort.worst(b), b.i32(i32::MAX), b.i32(0));
        let mut state: Vec<Value> = (0..self.sort.count).flat_map(|_| [worst, nowhere]).collect();
        state.push(zero);
        let (whole, left) = (width / step, width % step);
        if whole > 0 {
            let by = step * self.sort.step;
            state = b.fold(0, whole, &[(x, by)], &state, |b, it| {
                self.columns(b, it.pointers[0], step, it.carried)
            });
        }
        if left > 0 {
            let x = b.offset(x, whole, step * self.sort.step);
            state = self.columns(b, x, left, &state);
        }
        state.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect()
    }

    /// The lists after so many more columns, and the next one's place.
    fn columns(&self, b: &mut Builder, x: Value, count: i64, state: &[Value]) -> Vec<Value> {
        let (mut lists, mut place) = (state.to_vec(), state[state.len() - 1]);
        lists.pop();
        let one = b.i32(1);
        let mut load = |at: i64, count: i64| {
            let (x, at) = expr::reach(b, x, at);
            let x = expr::load(b, self.sort.dtype, x, at, count as u32, false);
            self.sort.key(b, x)
        };
        let elements = if self.in_columns {
            vec![load(0, self.rows)]
        } else {
            let load = |row: i64| load(row * self.row, count);
            let rows: Vec<Value> = (0..self.rows).map(load).collect();
            b.columns(&rows, count as usize)
        };
        for x in elements {
            let mut new = [x, place];
            for list in lists.chunks_exact_mut(2) {
                let [better, worse] =
                    self.sort.compare(b, [list[0], list[1]], new, Order::BestFirst);
                list.copy_from_slice(&better);
                new = worse;
            }
            place = b.add(place, one);
        }
        lists.push(place);
        lists
    }
}
