//! The loops around tiles, and a tile.

use super::{Problem, Right};
use crate::kernels::expr::{self, Body};
use crate::kernels::finish::Finish;
use crate::kernels::nest::{self, Level, Part, Shares, moved, nest};
use crate::kernels::{KernelPlan, operations};
use crate::kir::Value;
use crate::kir::build::Builder;
use crate::machine;
use crate::types::DType;
use std::ops::Range;

/// Bytes that one call brings nearer.
const LINE: usize = 64;

/// Fewer rows are multiplied sooner than memory brings what they are multiplied by.
const FEW: i64 = 6;

/// Sums over this depth or more last while a line comes from memory.
const LONG: i64 = 128;

/// Depths up to this are written out instead of looped over.
const WRITTEN_OUT: i64 = 4;

/// What is read in step with the depth.
#[derive(Clone, Copy)]
pub(super) struct Streams {
    pub(super) left: Value,
    pub(super) right: Value,
    /// Where the next panel is called for.
    ahead: Option<Value>,
}

impl Streams {
    pub(super) fn of(pointers: &[Value]) -> Streams {
        Streams { left: pointers[0], right: pointers[1], ahead: pointers.get(2).copied() }
    }
}

/// A problem with the loops around its tiles.
pub(super) struct Tiling<'a> {
    pub(super) problem: Problem<'a>,
    pub(super) body: Body<'a>,
    pub(super) dtype: DType,
    pub(super) right: Right,
    /// Nothing is summed.
    pub(super) empty: bool,
    /// Loops around rows.
    pub(super) around: Vec<Level>,
    /// The last two axes of rows.
    pub(super) rows: [Level; 2],
    /// Rows of a tile along both, and its vectors.
    tile: [i64; 2],
    pub(super) vectors: i64,
    /// What of the next panel is called for meanwhile. Levels and pointers have one more then, for where
    /// that is.
    ahead: Option<Ahead>,
}

/// So many bytes are called for in so many steps of the depth.
#[derive(Clone, Copy)]
struct Ahead {
    bytes: i64,
    steps: i64,
}

impl Ahead {
    /// `bytes` in so many steps, or whole lines about as fast: who calls for a line while it is on its way keeps
    /// others waiting.
    fn new(bytes: i64, steps: i64) -> Ahead {
        const LINE: i64 = self::LINE as i64;
        let lines = (bytes - bytes / 16 + LINE - 1) / LINE;
        Ahead { bytes: if bytes < LINE { bytes } else { lines * LINE }, steps }
    }

    /// Bytes that are called for in so many steps.
    fn in_steps(self, steps: i64) -> i64 {
        self.bytes * steps / self.steps
    }
}

impl<'a> Tiling<'a> {
    pub(super) fn new(
        mut problem: Problem<'a>,
        body: Body<'a>,
        dtype: DType,
        right: Right,
        empty: bool,
    ) -> Tiling<'a> {
        let frame = problem.frame;
        let pointers = frame.shapes().count();
        let mut around = nest::merge(std::mem::take(&mut problem.around));
        let mut row = || {
            let shared = around.last().is_some_and(|l| l.steps[problem.right()] == 0);
            if shared { around.pop() } else { None }.unwrap_or_else(|| Level::unit(pointers))
        };
        let (inner, outer) = (row(), row());
        let machine = &match &problem.run {
            Some(_) => frame.machine.of_bytes(),
            None => frame.machine,
        };
        let all = (inner.extent * outer.extent) as usize;
        let lanes = frame.lanes();
        let columns = problem.columns.extent as usize;
        let distance = inner.steps[problem.left].unsigned_abs();
        let fitting = || machine.tile(all, columns, distance).vectors as i64;
        let vectors = match (right, problem.panel) {
            (Right::Squares | Right::Dots, _) => 1,
            (_, None) => fitting(),
            (_, Some(width)) if lanes > 1 => {
                let whole = (width as usize).div_ceil(lanes as usize);
                machine.tile_within(whole, all, columns, distance).vectors as i64
            }
            (_, Some(width)) => width.min(fitting()),
        };
        // Squares take as many registers as there are lanes.
        let most = match right {
            Right::Squares => (machine.registers as i64 - lanes - 2).clamp(1, 14) as usize,
            Right::Dots => 1,
            Right::Rows | Right::Same => {
                machine.tile_of(usize::MAX >> 1, vectors as usize, distance).rows
            }
        };
        let even = |extent: i64, most: usize| {
            let most = most as i64;
            let tiles = (extent + most - 1) / most;
            (extent + tiles - 1) / tiles
        };
        let first = even(inner.extent, most);
        let second = if first == inner.extent {
            even(outer.extent, (most / first as usize).max(1))
        } else {
            1
        };
        let (tile, rows) = ([second, first], [outer, inner]);
        let ahead = None;
        Tiling { problem, body, dtype, right, empty, around, rows, tile, vectors, ahead }
    }

    /// While the tiles of a panel are computed, the next one is brought nearer, evenly. Where there
    /// are few rows to one panel they wait for memory anyhow, and where there are very many tiles only the
    /// first does. So many rows along both axes go by while a panel is used.
    pub(super) fn look_ahead(&mut self, rows: [i64; 2]) {
        let Some(width) = self.problem.panel else { return };
        let (tile, rows, inside) = (self.tile[0] * self.tile[1], rows[0] * rows[1], rows[1]);
        // A panel that was made for wider vectors is several tiles wide.
        let panel = width.min(self.vectors * self.problem.frame.lanes()) * expr::size(self.dtype);
        let steps = self.at_once(&self.problem.frame.machine, (tile * self.vectors) as usize);
        let each = panel * tile / rows;
        let few = rows < FEW;
        if self.problem.frame.machine.lanes == 1 || self.empty || few || each == 0 {
            return;
        }
        let ahead = Ahead::new(panel * tile * steps / rows, steps);
        let depth: i64 = self.problem.depth.iter().map(|l| l.extent).product();
        let right = self.problem.right();
        let [outer, inner] = &mut self.rows;
        inner.steps.push(ahead.in_steps(depth) / tile);
        outer.steps.push(ahead.in_steps(depth) / tile * inside);
        for level in self.around.iter_mut().chain([&mut self.problem.columns]) {
            level.steps.push(level.steps[right]);
        }
        self.ahead = Some(ahead);
    }

    pub(super) fn write(mut self) -> KernelPlan {
        let frame = self.problem.frame;
        let depth: i64 = self.problem.depth.iter().map(|l| l.extent).product();
        let extent = self.problem.columns.extent;
        // The rows in blocks: what a block reads of A stays in the cache while all columns go by.
        let panel = self.panel_width();
        let (at, tile) =
            if self.rows[0].extent > 1 { (0, self.tile[0]) } else { (1, self.tile[1]) };
        let (all, of_rest) = (self.rows[at].extent, self.rows[1 - at].extent);
        let bytes = of_rest * depth * expr::size(self.dtype);
        let fits = (frame.machine.l2 as i64 / 2 / bytes.max(1)).max(1);
        let around: i64 = self.around.iter().map(|l| l.extent).product();
        let panels = (extent + panel - 1) / panel;
        let in_tiles = |rows: i64| (rows / tile * tile).max(tile);
        // Threads share rows, as steps before and behind do, unless each would have to bring all of
        // the panels from far away.
        let (l2, right) = (frame.machine.l2 as i64, self.problem.right());
        let groups = self.around.iter().filter(|l| l.steps[right] != 0).map(|l| l.extent);
        let matrix = depth * extent * expr::size(self.dtype);
        let heavy = matrix > l2 || matrix * groups.product::<i64>() > 4 * l2;
        // Not so small that the panels are read for little.
        let spread = in_tiles((all / 64).max(tile * 4 / of_rest.min(4)));
        let columns_first = all <= fits && (heavy || all / spread < 16);
        let block = match panels {
            _ if columns_first && heavy => {
                let blocks = (32 / (around * panels).max(1)).max(1);
                in_tiles((all + blocks - 1) / blocks)
            }
            _ if columns_first => in_tiles(all / 64),
            1 => spread,
            _ if heavy => {
                let blocks = (all + fits - 1) / fits;
                in_tiles((all + blocks - 1) / blocks + tile - 1)
            }
            _ => in_tiles(spread.min(fits)),
        };
        // Panels that come from far away do so for each block.
        let again = heavy && !columns_first && panels > 1;
        let mut by = self.rows.each_ref().map(|level| level.extent);
        by[at] = if again { block.min(all) } else { all };
        self.look_ahead(by);
        let mut rows = self.rows[at].clone().in_pieces(block);
        if let Some(step) = rows.steps.last_mut().filter(|_| again && self.ahead.is_some()) {
            *step = 0;
        }
        let backwards = self.is_read_backwards();
        let columns = &self.problem.columns;
        let columns = match backwards {
            true => Level::axis(panels, columns.steps.iter().map(|s| -s * panel).collect()),
            false => columns.clone().in_pieces(panel),
        };
        let mut levels = self.around.clone();
        let (rows_at, columns_at) = match columns_first {
            true => (levels.len() + 1, levels.len()),
            false => (levels.len(), levels.len() + 1),
        };
        levels.extend(if columns_first { [columns, rows] } else { [rows, columns] });
        let shares = if heavy {
            Shares::of(&levels)
        } else {
            let constant = self.problem.panel.is_some();
            let (grouped, batch): (Vec<usize>, Vec<usize>) =
                (0..self.around.len()).partition(|&i| constant && levels[i].steps[right] != 0);
            let rows = batch.into_iter().chain([rows_at]);
            Shares::counting(&levels, rows.chain(grouped).chain([columns_at]))
        };
        let work = around * of_rest * all * extent * (depth + self.body.cost());
        let (mut b, mut pointers) = frame.open(shares.extent());
        let next = self.next_panel(&mut b, &pointers);
        pointers.extend(next);
        if backwards {
            pointers = self.turned(&mut b, &pointers);
        }
        nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, sizes| {
            let columns = if backwards { panel } else { sizes[columns_at] };
            let mut rows = self.rows.clone();
            rows[at].extent = sizes[rows_at];
            self.panel(b, p, rows, columns);
        });
        frame.close(b, work / 2)
    }

    /// Whether the panels and the depth are taken from the end.
    pub(super) fn is_read_backwards(&self) -> bool {
        self.problem.backwards
            && self.problem.panel.is_some()
            && self.problem.run.is_none()
            && self.ahead.is_none()
            && !self.empty
            && self.problem.columns.extent % self.panel_width() == 0
    }

    /// The pointers at the end of the last panel's depth, which is taken from there on to its start; the steps from a
    /// panel to the next one are the caller's.
    pub(super) fn turned(&mut self, b: &mut Builder, pointers: &[Value]) -> Vec<Value> {
        let (columns, panel) = (&self.problem.columns, self.panel_width());
        let last: Vec<i64> = columns.steps.iter().map(|step| step * panel).collect();
        let mut pointers = moved(b, pointers, columns.extent / panel - 1, &last);
        for level in &mut self.problem.depth {
            for (pointer, step) in pointers.iter_mut().zip(&mut level.steps) {
                *pointer = b.offset(*pointer, level.extent - 1, *step);
                *step = -*step;
            }
        }
        pointers
    }

    /// The tiles of these rows in a panel with so many columns.
    pub(super) fn panel(&self, b: &mut Builder, p: &[Value], rows: [Level; 2], columns: i64) {
        // A panel may be wider than a tile.
        let tiles = Level::axis(columns, self.within_panel());
        let tiles = tiles.in_pieces(self.vectors * self.problem.frame.lanes());
        let [outer, inner] = rows.clone();
        let (outer, inner) =
            (outer.in_even_pieces(self.tile[0]), inner.in_even_pieces(self.tile[1]));
        nest(b, &[tiles, outer, inner], None, p, &mut |b, p, sizes| {
            self.tile(b, p, [sizes[1], sizes[2]], sizes[0]);
        });
        if self.is_apart() {
            self.finish().write(b, p, &rows, &nest::parts(b, columns));
        }
    }

    /// Where the next panel is, if it is called for.
    pub(super) fn next_panel(&self, b: &mut Builder, p: &[Value]) -> Option<Value> {
        let right = self.problem.right();
        let step = self.problem.columns.steps[right];
        self.ahead.map(|_| b.offset(p[right], self.panel_width(), step))
    }

    /// Columns that all rows of a block go by before the next ones do.
    pub(super) fn panel_width(&self) -> i64 {
        self.problem.panel.unwrap_or(self.vectors * self.problem.frame.lanes())
    }

    fn finish(&self) -> Finish<'_> {
        let columns = &self.problem.columns.steps;
        Finish { frame: self.problem.frame, body: &self.body, first: 1, columns }
    }

    /// Whether the epilogue is applied to the whole panel, when its sums are in the result.
    pub(super) fn is_apart(&self) -> bool {
        self.body.dtype() == self.dtype && self.finish().is_apart()
    }

    /// Steps from a column to the next.
    pub(super) fn within_panel(&self) -> Vec<i64> {
        let mut steps = self.problem.columns.steps.clone();
        if self.problem.panel.is_some() {
            steps[self.problem.right()] = expr::size(self.dtype);
        }
        steps
    }

    /// A tile of the result: so many rows along both axes, and columns.
    fn tile(&self, b: &mut Builder, p: &[Value], rows: [i64; 2], columns: i64) {
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
                Right::Dots => self.dots(b, streams, &rows, &parts),
                Right::Rows | Right::Same | Right::Squares => {
                    self.sum(b, &self.problem.depth, streams, sums, &rows, &parts)
                }
            };
        }
        self.store_tile(b, p, &rows, &parts, sums);
    }

    /// What becomes of the sums of a tile.
    pub(super) fn store_tile(
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
    pub(super) fn place(&self, pointer: usize, row: (i64, i64), part: Part) -> i64 {
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
    pub(super) fn or_zeros(&self, b: &mut Builder, sums: Vec<Option<Value>>) -> Vec<Value> {
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
    fn at_once(&self, machine: &machine::Machine, sums: usize) -> i64 {
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
    pub(super) fn products(
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
        let tile = machine::Tile { rows: rows.len(), vectors: parts.len() };
        for step in depth {
            if b.machine().holds_elements(tile) {
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
    fn fills_panel(&self, b: &Builder, at: i64) -> bool {
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
