//! The loops around tiles.

mod tile;

use super::{Problem, Right};
use crate::kernels::KernelPlan;
use crate::kernels::expr::{self, Body};
use crate::kernels::finish::Finish;
use crate::kernels::nest::{self, Level, Shares, moved, nest};
use crate::kir::Value;
use crate::kir::build::Builder;
use crate::machine::Machine;
use crate::types::DType;

/// Bytes that one call brings nearer.
const LINE: usize = 64;

/// Fewer rows are multiplied sooner than memory brings what they are multiplied by.
const FEW: i64 = 6;

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

/// The machine as the tiles of a problem are chosen for it.
fn machine(problem: &Problem<'_>) -> Machine {
    match (&problem.run, &problem.blocks) {
        (Some(_), _) => problem.frame.machine.of_bytes(),
        (None, Some(_)) => problem.frame.machine.of_blocks(),
        (None, None) => problem.frame.machine,
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
        let machine = machine(&problem);
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
        let panel =
            width.min(self.vectors * self.problem.frame.lanes()) * self.problem.right_size();
        let steps = self.at_once(&self.problem.frame.machine, (tile * self.vectors) as usize);
        let each = panel * tile / rows;
        let few = rows < FEW;
        let blocks = self.problem.blocks.is_some();
        if self.problem.frame.machine.lanes == 1 || self.empty || few || blocks || each == 0 {
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
        let matrix = depth * extent * self.problem.right_size();
        let heavy = matrix > l2 || matrix * groups.product::<i64>() > 4 * l2;
        // Not so small that the panels are read for little.
        let spread = in_tiles((all / 64).max(tile * 4 / of_rest.min(4)));
        let in_order = frame.in_order && !heavy;
        let columns_first = all <= fits && (heavy || all / spread < 16) && !in_order;
        let block = match panels {
            // All columns of a tile's rows are written before the next ones are read.
            _ if in_order => tile,
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
        frame.close_beside(b, work / 2, right)
    }

    /// Whether the panels and the depth are taken from the end.
    pub(super) fn is_read_backwards(&self) -> bool {
        self.problem.backwards
            && self.problem.panel.is_some()
            && self.problem.run.is_none()
            && self.problem.blocks.is_none()
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
            steps[self.problem.right()] = self.problem.right_size();
        }
        steps
    }
}
