//! A tile of a result: its sums, over all of the depth, and what becomes of them.

use super::{LINE, Problem, Right, Streams, Tiling, machine};
use crate::kernels::nest::{Level, Part};
use crate::kernels::{expr, nest, operations};
use crate::kir::Value;
use crate::kir::build::Builder;
use crate::machine::{Machine, Tile};
use crate::types::DType;
use std::ops::Range;

/// Sums over this depth or more last while a line comes from memory.
const LONG: i64 = 128;

/// Depths up to this are written out instead of looped over.
const WRITTEN_OUT: i64 = 4;

impl Tiling<'_> {
    /// A tile of the result: so many rows along both axes, and columns.
    pub(super) fn tile(&self, b: &mut Builder, p: &[Value], rows: [i64; 2], columns: i64) {
        let parts = nest::parts(b, columns);
        let rows: Vec<(i64, i64)> =
            (0..rows[0]).flat_map(|i| (0..rows[1]).map(move |j| (i, j))).collect();
        let mut sums = vec![None; rows.len() * parts.len()];
        let last = self.last();
        if !self.empty {
            self.call_for_operands(b, p, &rows, &parts);
            let ahead = self.ahead.map(|_| p[last + 1]);
            let streams =
                Streams { left: p[self.problem.left], right: p[self.problem.right()], ahead };
            sums = match self.right {
                _ if self.problem.blocks.is_some() => self.in_blocks(b, streams, &rows, &parts),
                Right::Dots => self.dots(b, streams, &rows, &parts),
                Right::Rows | Right::Same | Right::Squares => {
                    self.sum(b, &self.problem.depth, streams, sums, &rows, &parts)
                }
            };
        }
        self.store_tile(b, p, &rows, &parts, sums);
    }

    /// What becomes of the sums of a tile.
    pub(in crate::kernels::contract) fn store_tile(
        &self,
        b: &mut Builder,
        p: &[Value],
        rows: &[(i64, i64)],
        parts: &[Part],
        sums: Vec<Option<Value>>,
    ) {
        let sums: Vec<Value> = self
            .or_zeros(b, sums)
            .into_iter()
            .map(|sum| operations::wrap(b, self.dtype, sum))
            .collect();
        if self.is_apart() {
            for (&row, sums) in rows.iter().zip(sums.chunks(parts.len())) {
                for (&sum, &part) in sums.iter().zip(parts) {
                    self.store(b, p, row, part, sum);
                }
            }
            return;
        }
        let mut loaded: Vec<((usize, i64), Value)> = vec![];
        for (&row, sums) in rows.iter().zip(sums.chunks(parts.len())) {
            for (&sum, &part) in sums.iter().zip(parts) {
                let value = self.body.emit(b, &[], &mut |b, n| match n {
                    0 => sum,
                    n => self.operand(b, p, n + 1, row, part, &mut loaded),
                });
                self.store(b, p, row, part, value);
            }
        }
    }

    /// What the epilogue reads of each row is on its way while the products are summed, and where results go if
    /// that is far: a store that waits for its line holds up those behind it.
    fn call_for_operands(&self, b: &mut Builder, p: &[Value], rows: &[(i64, i64)], parts: &[Part]) {
        let moves = |n: usize| self.rows.iter().any(|level| level.steps[n] != 0);
        for pointer in (2..self.last()).filter(|&n| moves(n)) {
            let places = rows.iter().flat_map(|&row| parts.iter().map(move |&part| (row, part)));
            let mut places: Vec<i64> =
                places.map(|(row, part)| self.place(pointer, row, part)).collect();
            places.dedup();
            for at in places {
                let (pointer, at) = expr::reach(b, p[pointer], at);
                b.prefetch(pointer, at);
            }
        }
        let (last, Some(&end)) = (self.last(), parts.last()) else { return };
        if !self.writes_far() {
            return;
        }
        let size = expr::size(self.problem.frame.result().dtype);
        let aligned = self.rows.iter().all(|level| level.steps[last] % LINE as i64 == 0);
        for &row in rows {
            let from = self.place(last, row, (0, 0));
            let to = self.place(last, row, end) + i64::from(end.1) * size - 1;
            for at in (from..=to).step_by(LINE).chain((!aligned).then_some(to)) {
                let (pointer, at) = expr::reach(b, p[last], at);
                b.prefetch(pointer, at);
            }
        }
    }

    /// Whether results go to rows of a tensor that is hardly in the first-level cache, nothing else that is read
    /// lies there, and the sums take long enough for it to come nearer.
    fn writes_far(&self) -> bool {
        let Problem { frame, depth, columns, .. } = &self.problem;
        let result = frame.result();
        let size = expr::size(result.dtype);
        let bytes = result.dims.iter().fold(size, |all, &dim| all.saturating_mul(dim));
        let depth: i64 = depth.iter().map(|level| level.extent).product();
        columns.steps[self.last()] == size
            && frame.machine.lanes > 1
            && bytes > frame.machine.l1 as i64
            && depth >= LONG
            && !(2..frame.inputs().len()).any(|n| frame.in_place(n))
    }

    /// Bytes from the tile's corner to a row's part.
    pub(in crate::kernels::contract) fn place(
        &self,
        pointer: usize,
        row: (i64, i64),
        part: Part,
    ) -> i64 {
        let [outer, inner] = &self.rows;
        row.0 * outer.steps[pointer]
            + row.1 * inner.steps[pointer]
            + part.0 * self.problem.columns.steps[pointer]
    }

    /// The result's pointer.
    fn last(&self) -> usize {
        self.problem.frame.shapes().count() - 1
    }

    fn store(&self, b: &mut Builder, p: &[Value], row: (i64, i64), part: Part, value: Value) {
        let last = self.last();
        let at = self.place(last, row, part);
        expr::store(b, self.problem.frame.result().dtype, value, p[last], at, part.1);
    }

    /// An operand of the epilogue. What all rows have in common is loaded once.
    fn operand(
        &self,
        b: &mut Builder,
        p: &[Value],
        pointer: usize,
        row: (i64, i64),
        part: Part,
        loaded: &mut Vec<((usize, i64), Value)>,
    ) -> Value {
        let at = self.place(pointer, row, part);
        let known = loaded.iter().find(|(key, _)| *key == (pointer, at));
        if let Some(&(_, value)) = known {
            return value;
        }
        let dtype = self.problem.frame.inputs()[pointer].dtype;
        let splat = self.problem.columns.steps[pointer] == 0 && b.lanes() > 1;
        let value = expr::load(b, dtype, p[pointer], at, part.1, splat);
        if self.rows.iter().all(|level| level.steps[pointer] == 0) {
            loaded.push(((pointer, at), value));
        }
        value
    }

    /// Sums, of which `None` is that of nothing.
    pub(in crate::kernels::contract) fn or_zeros(
        &self,
        b: &mut Builder,
        sums: Vec<Option<Value>>,
    ) -> Vec<Value> {
        let zero = |b: &mut Builder| operations::zero(b, expr::register(self.dtype));
        sums.into_iter().map(|sum| sum.unwrap_or_else(|| zero(b))).collect()
    }

    /// A loop over the depth that carries the sums.
    fn repeat(
        &self,
        b: &mut Builder,
        count: i64,
        pointers: &[(Value, i64)],
        sums: Vec<Option<Value>>,
        body: impl FnOnce(&mut Builder, Streams, Vec<Option<Value>>) -> Vec<Option<Value>>,
    ) -> Vec<Option<Value>> {
        let start = self.or_zeros(b, sums);
        let sums = b.fold(0, count, pointers, &start, |b, it| {
            let sums = it.carried.iter().copied().map(Some).collect();
            let sums = body(b, Streams::of(it.pointers), sums);
            self.or_zeros(b, sums)
        });
        sums.into_iter().map(Some).collect()
    }

    /// Steps of the depth in an iteration. A tile of short vectors is done soon, and with fewer iterations
    /// the processor foresees the last one, so that the next tile begins in time.
    pub(super) fn at_once(&self, machine: &Machine, sums: usize) -> i64 {
        const PRODUCTS: i64 = 48;
        if self.right == Right::Squares {
            i64::from(machine.lanes)
        } else if machine.vector_bytes() == 32 {
            (PRODUCTS / sums as i64).clamp(1, 4)
        } else {
            1
        }
    }

    /// The sums after all of the depth.
    fn sum(
        &self,
        b: &mut Builder,
        depth: &[Level],
        streams: Streams,
        sums: Vec<Option<Value>>,
        rows: &[(i64, i64)],
        parts: &[Part],
    ) -> Vec<Option<Value>> {
        let Some((level, inner)) = depth.split_first() else {
            // A depth of one element.
            return self.products(b, streams, (0, 0), 0..1, sums, rows, parts);
        };
        let within: i64 = inner.iter().map(|l| l.extent).product();
        let steps = (level.steps[self.problem.left], level.steps[self.problem.right()]);
        let moving = |times: i64| {
            let ahead = streams.ahead.zip(self.ahead);
            let ahead = ahead.map(|(p, ahead)| (p, ahead.in_steps(within * times)));
            [(streams.left, steps.0 * times), (streams.right, steps.1 * times)]
                .into_iter()
                .chain(ahead)
                .collect::<Vec<_>>()
        };
        if !inner.is_empty() {
            return self.repeat(b, level.extent, &moving(1), sums, |b, streams, sums| {
                self.sum(b, inner, streams, sums, rows, parts)
            });
        }
        let at_once = self.at_once(b.machine(), sums.len());
        let (whole, rest) = match &self.problem.run {
            Some(run) => (run.whole() / at_once, run.fours() - run.whole() / at_once * at_once),
            None => (level.extent / at_once, level.extent % at_once),
        };
        let mut sums = sums;
        if self.right != Right::Squares && level.extent <= WRITTEN_OUT {
            return self.products(b, streams, steps, 0..level.extent, sums, rows, parts);
        }
        if whole > 0 {
            sums = self.repeat(b, whole, &moving(at_once), sums, |b, streams, sums| {
                self.products(b, streams, steps, 0..at_once, sums, rows, parts)
            });
        }
        if rest > 0 && self.problem.run.is_some() {
            let left = whole * at_once..level.extent;
            return self.products(b, streams, steps, left, sums, rows, parts);
        }
        if rest > 0 {
            let ends = moving(at_once).into_iter().map(|(p, step)| b.offset(p, whole, step));
            let ends = Streams::of(&ends.collect::<Vec<_>>());
            sums = self.products(b, ends, steps, 0..rest, sums, rows, parts);
        }
        sums
    }

    /// The products of some steps of the depth, added to the sums.
    #[expect(clippy::too_many_arguments, reason = "it is the innermost part of `sum`")]
    pub(in crate::kernels::contract) fn products(
        &self,
        b: &mut Builder,
        Streams { left, right, ahead }: Streams,
        (left_step, right_step): (i64, i64),
        depth: Range<i64>,
        mut sums: Vec<Option<Value>>,
        rows: &[(i64, i64)],
        parts: &[Part],
    ) -> Vec<Option<Value>> {
        if let Some((pointer, ahead)) = ahead.zip(self.ahead) {
            let lines = ahead.in_steps(depth.start)..ahead.in_steps(depth.end);
            lines.step_by(LINE).for_each(|line| b.prefetch(pointer, line));
        }
        let [left_type, right_type] = [self.problem.left, self.problem.right()].map(|operand| {
            // Fours are numbers of `i32`.
            let bytes = self.problem.run.is_some();
            if bytes { DType::I32 } else { self.problem.frame.inputs()[operand].dtype }
        });
        let column_step = self.within_panel()[self.problem.right()];
        let squares = match self.right {
            Right::Squares => parts
                .iter()
                .map(|&(at, lanes)| {
                    let count = (depth.end - depth.start) as u32;
                    square(b, right_type, right, at * column_step, column_step, lanes, count)
                })
                .collect(),
            Right::Rows | Right::Same | Right::Dots => vec![],
        };
        let vector = |b: &mut Builder, step: i64, i: usize| {
            if let Some(square) = squares.get(i) {
                return Factor::One(square[step as usize]);
            }
            let (at, lanes) = parts[i];
            let offset = step * right_step + at * column_step;
            // The filling of a panel may be read.
            let lanes = if self.fills_panel(b, at) { b.machine().lanes } else { lanes };
            let vector = expr::load(b, right_type, right, offset, lanes, self.right == Right::Same);
            match self.problem.run {
                Some(_) => Factor::Bytes(b.bytes(vector, true)),
                None => Factor::One(vector),
            }
        };
        let element = |b: &mut Builder, step: i64, row: (i64, i64)| {
            let at = self.place(self.problem.left, row, (0, 0));
            match &self.problem.run {
                Some(run) => {
                    let four = run.load(b, left, at, step);
                    Factor::Bytes(b.bytes(four, false))
                }
                None => {
                    let at = at + step * left_step;
                    Factor::One(expr::load(b, left_type, left, at, 1, true))
                }
            }
        };
        let tile = Tile { rows: rows.len(), vectors: parts.len() };
        let holds_elements = machine(&self.problem).holds_elements(tile);
        for step in depth {
            if holds_elements {
                let elements: Vec<Factor> = rows.iter().map(|&row| element(b, step, row)).collect();
                for i in 0..parts.len() {
                    let vector = vector(b, step, i);
                    let sums = sums[i..].iter_mut().step_by(parts.len());
                    for (sum, element) in sums.zip(&elements) {
                        *sum = Some(product(b, element, &vector, *sum));
                    }
                }
                continue;
            }
            let vectors: Vec<Factor> = (0..parts.len()).map(|i| vector(b, step, i)).collect();
            for (&row, sums) in rows.iter().zip(sums.chunks_mut(parts.len())) {
                let element = element(b, step, row);
                for (sum, vector) in sums.iter_mut().zip(&vectors) {
                    *sum = Some(product(b, &element, vector, *sum));
                }
            }
        }
        sums
    }

    /// Whether a panel has a whole vector at this column of a tile.
    pub(in crate::kernels::contract) fn fills_panel(&self, b: &Builder, at: i64) -> bool {
        let lanes = b.lanes();
        self.problem.panel.is_some_and(|width| {
            let tile = self.vectors * lanes;
            width % tile == 0 && at + lanes <= tile
        })
    }
}

/// A factor of a product.
enum Factor {
    One(Value),
    /// Fours, as [`Builder::bytes`] has them.
    Bytes(Vec<Value>),
}

/// A sum with the product of an element of A and a vector of B.
fn product(b: &mut Builder, element: &Factor, vector: &Factor, sum: Option<Value>) -> Value {
    match (element, vector) {
        (Factor::Bytes(left), Factor::Bytes(right)) => {
            let before = sum.unwrap_or_else(|| b.i32(0));
            b.dot(left, right, before)
        }
        (Factor::One(element), Factor::One(vector)) => {
            operations::add_product(b, *vector, *element, sum)
        }
        _ => unreachable!("both factors are in fours, or none is"),
    }
}

/// `count` vectors of columns from as many rows along the depth as there are columns.
fn square(
    b: &mut Builder,
    dtype: DType,
    right: Value,
    at: i64,
    column_step: i64,
    columns: u32,
    count: u32,
) -> Vec<Value> {
    let ty = expr::register(dtype);
    let zero = if ty.is_float() { b.float(ty, 0.0) } else { b.integer(ty, 0) };
    let rows: Vec<Value> = (0..b.lanes())
        .map(|column| {
            if column >= i64::from(columns) {
                return zero;
            }
            expr::load(b, dtype, right, at + column * column_step, count, false)
        })
        .collect();
    b.transpose(&rows)
}
