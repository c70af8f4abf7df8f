//! Row programs over short rows: as many rows as there are lanes at a time, their elements column by
//! column. What would be a reduction across lanes is one of whole vectors then.
//!
//! Where the elements of a row lie one behind the other, squares of them are transposed in registers.

use super::super::expr;
use super::super::nest::{self, Level, Shares, nest};
use super::super::operations::in_pairs;
use super::super::{Frame, KernelPlan, Shape};
use super::Program;
use crate::kir::Value;
use crate::kir::build::Builder;
use crate::types::DType;

/// Rows of so many vectors of elements are short.
const VECTORS: i64 = 2;

/// The kernel; `None` where rows are long or few, or lie otherwise.
pub(super) fn kernel(frame: &Frame<'_>, program: &Program<'_>) -> Option<KernelPlan> {
    let lanes = frame.lanes();
    let rank = frame.result().dims.len();
    let mut levels = nest::merge(frame.levels(0..rank.saturating_sub(1)));
    let rows = levels.pop()?;
    let words = frame.shapes().all(|s| matches!(s.dtype, DType::F32 | DType::I32));
    let short = lanes > 1 && program.width <= VECTORS * lanes && rows.extent * 2 > lanes;
    if !words || !short || frame.machine.doubles {
        return None;
    }
    let mut places = vec![];
    let last = frame.shapes().count() - 1;
    for (n, shape) in frame.shapes().enumerate() {
        let reduced = n == last && program.stages[program.last()].reduce.is_some();
        let one = reduced || program.width == 1 || shape.dims.last().is_none_or(|&d| d == 1);
        let step = if one { 0 } else { shape.stride(-1) };
        places.push(Place::new(shape, rows.steps[n], step, program.width, n == last)?);
    }
    let cost: i64 = program.stages.iter().map(|s| s.body.cost() + 2).sum();
    let around = levels.iter().map(Level::pieces).product::<i64>();
    let work = around * rows.extent * program.width * cost / 2;
    levels.push(rows.in_pieces(lanes));
    let at = levels.len() - 1;
    let shares = Shares::of(&levels);
    let (mut b, pointers) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, pointers, sizes| {
        let values = program.operands + program.stages.len();
        let columns = vec![vec![None; program.width as usize]; values];
        let (uniform, known) = (vec![None; values], vec![None; program.stages.len()]);
        let rows = sizes[at];
        Tile { frame, program, places: &places, pointers, rows, columns, uniform, known }.write(b);
    });
    Some(frame.close(b, work))
}

/// How the elements of some rows lie.
#[derive(Clone, Copy)]
struct Place {
    /// From a row to the next, in bytes, and from an element to the next.
    row: i64,
    step: i64,
    /// How many elements there are: one where all are the same.
    count: i64,
    order: Order,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// All rows are the same.
    Same,
    /// Neighbours in a column lie one behind the other.
    Columns,
    /// Neighbours in a row do.
    Rows,
    /// Rows do too, and are as many elements long as a power of two.
    All,
}

impl Place {
    fn new(shape: &Shape, row: i64, step: i64, width: i64, written: bool) -> Option<Place> {
        let size = expr::size(shape.dtype);
        let count = if step == 0 { 1 } else { width };
        let order = match (row, step) {
            (0, _) if !written => Order::Same,
            (row, _) if row == size => Order::Columns,
            (0, _) => return None,
            (row, step) if step == size && row == size * count && count.count_ones() == 1 => {
                Order::All
            }
            (_, step) if step == size || count == 1 => Order::Rows,
            _ => return None,
        };
        Some(Place { row, step, count, order })
    }
}

/// So many rows that are being written.
struct Tile<'a> {
    frame: &'a Frame<'a>,
    program: &'a Program<'a>,
    /// Of the operands, and of the result.
    places: &'a [Place],
    pointers: &'a [Value],
    rows: i64,
    /// Of operands, then of stages: what is known of their columns.
    columns: Vec<Vec<Option<Value>>>,
    /// Of operands, then of stages: what is the same in all columns.
    uniform: Vec<Option<Value>>,
    /// Per stage, what is uniform in its expression.
    known: Vec<Option<Vec<Option<Value>>>>,
}

impl Tile<'_> {
    fn write(&mut self, b: &mut Builder) {
        let program = self.program;
        for n in 0..program.operands {
            if self.places[n].count == 1 {
                self.uniform[n] = self.load(b, n, 0).first().copied();
            }
        }
        for (i, stage) in program.stages.iter().enumerate().filter(|&(i, _)| program.needed[i]) {
            let Some(combine) = stage.reduce else { continue };
            let n = program.operands + i;
            let mut partial: Vec<Value> = vec![];
            for column in 0..program.width {
                let value = self.value(b, n, column);
                partial.push(combine.lift(b, value));
            }
            if partial.is_empty() {
                partial.push(combine.start(b));
            }
            let joined = in_pairs(partial, |x, y| combine.join(b, x, y));
            self.uniform[n] = Some(combine.lower(b, joined));
        }
        let last = program.operands + program.last();
        let count = self.places[self.places.len() - 1].count;
        let values: Vec<Value> = (0..count).map(|column| self.value(b, last, column)).collect();
        self.store(b, &values);
    }

    /// A column of an operand or a stage.
    fn value(&mut self, b: &mut Builder, n: usize, column: i64) -> Value {
        if let Some(value) = self.uniform[n].or(self.columns[n][column as usize]) {
            return value;
        }
        let Some(stage) = n.checked_sub(self.program.operands) else {
            let values = self.load(b, n, column);
            // One column, or all of them.
            let first = if values.len() == 1 { column as usize } else { 0 };
            for (at, &value) in self.columns[n][first..].iter_mut().zip(&values) {
                *at = Some(value);
            }
            return values[column as usize - first];
        };
        let body = &self.program.stages[stage].body;
        let uniform = &self.uniform;
        let known = self.known[stage].get_or_insert_with(|| body.hoist(b, &|n| uniform[n])).clone();
        let value = body.emit(b, &known, &mut |b, n| self.value(b, n, column));
        self.columns[n][column as usize] = Some(value);
        value
    }

    /// A column of an operand, or all of them.
    fn load(&self, b: &mut Builder, n: usize, column: i64) -> Vec<Value> {
        let (place, dtype, p) = (self.places[n], self.frame.inputs()[n].dtype, self.pointers[n]);
        let (lanes, rows) = (b.lanes(), self.rows);
        match place.order {
            Order::Same => vec![expr::load(b, dtype, p, column * place.step, 1, true)],
            Order::Columns => {
                vec![expr::load(b, dtype, p, column * place.step, rows as u32, false)]
            }
            Order::Rows => {
                let mut columns = vec![];
                for first in (0..place.count).step_by(lanes as usize) {
                    let count = lanes.min(place.count - first);
                    let load = |row: i64| {
                        let at = row * place.row + first * expr::size(dtype);
                        expr::load(b, dtype, p, at, count as u32, false)
                    };
                    let square: Vec<Value> = (0..rows).map(load).collect();
                    columns.extend(b.columns(&square, count as usize));
                }
                columns
            }
            Order::All => {
                let vectors: Vec<Value> = (0..place.count)
                    .map(|vector| {
                        let (first, all) = (vector * lanes, rows * place.count);
                        let count = (all - first).clamp(1, lanes);
                        let first = if first < all { first } else { 0 };
                        expr::load(b, dtype, p, first * expr::size(dtype), count as u32, false)
                    })
                    .collect();
                b.separate(&vectors)
            }
        }
    }

    /// Writes the columns of the result.
    fn store(&self, b: &mut Builder, columns: &[Value]) {
        let last = self.places.len() - 1;
        let (place, dtype, p) = (self.places[last], self.frame.result().dtype, self.pointers[last]);
        let (lanes, rows) = (b.lanes(), self.rows);
        match place.order {
            Order::Same | Order::Columns => {
                for (column, &value) in (0..).zip(columns) {
                    expr::store(b, dtype, value, p, column * place.step, rows as u32);
                }
            }
            Order::Rows => {
                for (square, first) in
                    columns.chunks(lanes as usize).zip((0..).step_by(lanes as usize))
                {
                    for (row, value) in (0..).zip(b.columns(square, rows as usize)) {
                        let at = row * place.row + first * expr::size(dtype);
                        expr::store(b, dtype, value, p, at, square.len() as u32);
                    }
                }
            }
            Order::All => {
                for (vector, value) in (0..).zip(b.interleave(columns)) {
                    let (first, all) = (vector * lanes, rows * place.count);
                    let count = (all - first).clamp(0, lanes);
                    if count > 0 {
                        expr::store(b, dtype, value, p, first * expr::size(dtype), count as u32);
                    }
                }
            }
        }
    }
}
