//! Two products side by side, one of which waits for its weights while the other one has them.
//!
//! A row times a matrix that comes from the second-level cache (the carrier) leaves half of the multiply-adds free: as
//! much again could be done by rows that are in the first-level cache. Some rows times a few columns (the rider) are just
//! that. So with each panel of the carrier some panels of the rider are computed, tile by tile in the same loop over the
//! depth; when the one's depth is done, the other one's goes on alone. Each sum is made in the order that it is made in
//! otherwise, whoever computes which panels.
//!
//! (Zen 4, 128 units: 2.30 us for `[1, 128] x [128, 512]` and 1.17 for an eighth of `[8, 128] x [128, 512]`, 2.80 for
//! both.)

use super::tiling::{Streams, Tiling};
use super::{Problem, Right};
use crate::error::ErrorKind;
use crate::kernels::nest::{self, Level, Part, moved};
use crate::kernels::{Frame, KernelPlan, Shape};
use crate::kir::build::Builder;
use crate::kir::{IndexOp, Value};
use crate::lir::{Contract, Expr};
use crate::types::DType;
use std::collections::BTreeSet;

/// Registers besides the sums and what is multiplied with many of them.
const SPARE: i64 = 2;

/// Both products.
pub(in crate::kernels) struct Abreast<'a> {
    rider: Tiling<'a>,
    carrier: Tiling<'a>,
}

/// A tile of one of them.
struct Tile<'t, 'a> {
    tiling: &'t Tiling<'a>,
    pointers: Vec<Value>,
    rows: Vec<(i64, i64)>,
    parts: Vec<Part>,
}

/// Neighbouring panels of the carrier with as many panels of the rider each.
struct Span {
    first: i64,
    end: i64,
    /// Columns of the carrier's panel.
    columns: i64,
    /// Panels of the rider for each: the first is so many further than the number of the carrier's panel times their
    /// count.
    count: i64,
    further: i64,
    /// Columns of the last of them.
    last: i64,
}

impl<'a> Abreast<'a> {
    /// Of the rider and of the carrier; `ends` is the epilogue of products that have none. `None` where tiles of both do
    /// not fit into the registers together, or one of them is no plain product of vectors with panels.
    pub(in crate::kernels) fn new(
        [first, second]: [&'a Frame<'a>; 2],
        [rider, carrier]: [&'a Contract; 2],
        ends: &'a Expr,
    ) -> Result<Option<Abreast<'a>>, ErrorKind> {
        let tiling = |frame: &'a Frame<'a>, contract: &'a Contract| {
            let problem = Problem::product(frame, contract);
            problem.tiling(contract.epilogue.as_ref().unwrap_or(ends))
        };
        let tilings = (tiling(first, rider)?, tiling(second, carrier)?);
        let (Some(rider), Some(mut carrier)) = tilings else { return Ok(None) };
        let lanes = first.lanes();
        let is_plain = |tiling: &Tiling<'_>| {
            let whole = tiling.problem.panel.is_some_and(|width| width % lanes == 0);
            let flat = tiling.around.is_empty() && tiling.rows[0].extent == 1;
            let one = tiling.problem.depth.len() == 1 && !tiling.empty;
            whole
                && flat
                && one
                && tiling.right == Right::Rows
                && tiling.problem.run.is_none()
                && tiling.dtype == DType::F32
                && !tiling.is_apart()
        };
        if lanes == 1 || !is_plain(&rider) || !is_plain(&carrier) || carrier.rows[1].extent > 1 {
            return Ok(None);
        }
        let (width, panel) = (rider.panel_width() / lanes, carrier.panel_width() / lanes);
        let taken = rider.rows[1].extent * width + width + SPARE;
        let free = i64::from(first.machine.registers) - taken;
        let Some(vectors) = (1..=panel).rev().find(|&v| panel % v == 0 && v <= free) else {
            return Ok(None);
        };
        // So few sums would wait for each other.
        if vectors < panel.min(4) {
            return Ok(None);
        }
        carrier.vectors = vectors;
        Ok(Some(Abreast { rider, carrier }))
    }

    /// The kernel: its range is the carrier's panels.
    pub(in crate::kernels) fn write(mut self) -> KernelPlan {
        let [rider, carrier] = [&self.rider, &self.carrier].map(|t| t.problem.frame);
        let by_panel = |tiling: &Tiling<'_>| -> Vec<i64> {
            let width = tiling.panel_width();
            tiling.problem.columns.steps.iter().map(|step| step * width).collect()
        };
        let (rider_by, mut carrier_by) = (by_panel(&self.rider), by_panel(&self.carrier));
        let mut b = Builder::new(carrier.name, carrier.machine, panels(&self.carrier));
        let rider_at = rider.operands(&mut b);
        let mut carrier_at = carrier.operands(&mut b);
        let spans = self.spans();
        if self.carrier.is_read_backwards() {
            carrier_at = self.carrier.turned(&mut b, &carrier_at);
            carrier_by.iter_mut().for_each(|step| *step = -*step);
        }
        for span in spans {
            let from = b.index(IndexOp::Max, b.begin(), span.first);
            let to = b.index(IndexOp::Min, b.end(), span.end);
            b.each(from, to, &[], |b, it| {
                let carrier_at = moved(b, &carrier_at, it.index, &carrier_by);
                let rider_at = moved(b, &rider_at, span.further, &rider_by);
                let by: Vec<i64> = rider_by.iter().map(|step| step * span.count).collect();
                let rider_at = moved(b, &rider_at, it.index, &by);
                self.panel(b, &span, [&rider_at, &carrier_at], &rider_by);
            });
        }
        let work = |tiling: &Tiling<'_>| {
            let depth: i64 = tiling.problem.depth.iter().map(|level| level.extent).product();
            let all = tiling.rows[1].extent * tiling.problem.columns.extent;
            all * (depth + tiling.body.cost()) / 2
        };
        let bytes = rider.shapes().chain(carrier.shapes()).map(Shape::distinct).sum();
        carrier.close_with(b, work(&self.rider) + work(&self.carrier), 0, bytes)
    }

    /// The carrier's panels, with those of the rider shared evenly by them.
    fn spans(&self) -> Vec<Span> {
        let columns = |tiling: &Tiling<'_>| (tiling.panel_width(), tiling.problem.columns.extent);
        let ((narrow, riding), (wide, carried)) = (columns(&self.rider), columns(&self.carrier));
        let (all, tiles) = (panels(&self.carrier), panels(&self.rider));
        let (few, more) = (tiles / all, tiles % all);
        // The last panel of each may be narrower, and so one by itself.
        let last_of_rider = if few > 0 { all - 1 } else { more - 1 };
        let mut cuts = BTreeSet::from([0, more, all]);
        if riding % narrow != 0 {
            cuts.extend([last_of_rider, last_of_rider + 1]);
        }
        if carried % wide != 0 {
            cuts.insert(all - 1);
        }
        let cuts: Vec<i64> = cuts.into_iter().collect();
        let span = |pair: &[i64]| {
            let (first, end) = (pair[0], pair[1]);
            let (count, further) = if first < more { (few + 1, 0) } else { (few, more) };
            let rest = |all: i64, width: i64| (all - 1) % width + 1;
            let columns = if end == all { rest(carried, wide) } else { wide };
            let last = if end == last_of_rider + 1 { rest(riding, narrow) } else { narrow };
            Span { first, end, columns, count, further, last }
        };
        cuts.windows(2).map(span).collect()
    }

    /// A panel of the carrier and those of the rider.
    fn panel(&self, b: &mut Builder, span: &Span, at: [&[Value]; 2], rider_by: &[i64]) {
        let whole = self.carrier.vectors * b.lanes();
        let rows = |tiling: &Tiling<'_>| (0..tiling.rows[1].extent).map(|row| (0, row)).collect();
        let carried = (0..span.columns).step_by(whole as usize);
        let mut carried = carried.map(|first| (first, whole.min(span.columns - first)));
        let mut riding = 0..span.count;
        loop {
            let mut tiles = vec![];
            if let Some((first, columns)) = carried.next() {
                let pointers = moved(b, at[1], first, &self.carrier.within_panel());
                let (tiling, parts) = (&self.carrier, nest::parts(b, columns));
                tiles.push(Tile { tiling, pointers, rows: rows(tiling), parts });
            }
            if let Some(panel) = riding.next() {
                let pointers = moved(b, at[0], panel, rider_by);
                let is_last = panel + 1 == span.count;
                let columns = if is_last { span.last } else { self.rider.panel_width() };
                let (tiling, parts) = (&self.rider, nest::parts(b, columns));
                tiles.push(Tile { tiling, pointers, rows: rows(tiling), parts });
            }
            if tiles.is_empty() {
                return;
            }
            compute(b, &tiles);
        }
    }
}

/// How many panels there are.
fn panels(tiling: &Tiling<'_>) -> i64 {
    let width = tiling.panel_width();
    (tiling.problem.columns.extent + width - 1) / width
}

/// These tiles, in step along the depth.
fn compute(b: &mut Builder, tiles: &[Tile<'_, '_>]) {
    let levels: Vec<&Level> = tiles.iter().map(|tile| &tile.tiling.problem.depth[0]).collect();
    let mut sums: Vec<Vec<Value>> = tiles
        .iter()
        .map(|t| t.tiling.or_zeros(b, vec![None; t.rows.len() * t.parts.len()]))
        .collect();
    let mut done = 0;
    for end in levels.iter().map(|level| level.extent).collect::<BTreeSet<i64>>() {
        let going: Vec<usize> = (0..tiles.len()).filter(|&i| levels[i].extent >= end).collect();
        let mut streams = vec![];
        for &i in &going {
            for side in 0..2 {
                let step = levels[i].steps[side];
                streams.push((b.offset(tiles[i].pointers[side], done, step), step));
            }
        }
        let start: Vec<Value> = going.iter().flat_map(|&i| sums[i].iter().copied()).collect();
        // Short vectors are done with a step of the depth before the loop is.
        let at_once = if b.machine().vector_bytes() == 32 && (end - done) % 2 == 0 { 2 } else { 1 };
        streams.iter_mut().for_each(|(_, step)| *step *= at_once);
        let ends = b.fold(0, (end - done) / at_once, &streams, &start, |b, it| {
            let mut all = it.carried.to_vec();
            for at in 0..at_once {
                let mut carried = std::mem::take(&mut all).into_iter();
                for (&i, pointers) in going.iter().zip(it.pointers.chunks(2)) {
                    let (Tile { tiling, rows, parts, .. }, level) = (&tiles[i], levels[i]);
                    let own = carried.by_ref().take(sums[i].len()).map(Some).collect();
                    let (steps, at) = ((level.steps[0], level.steps[1]), at..at + 1);
                    let own =
                        tiling.products(b, Streams::of(pointers), steps, at, own, rows, parts);
                    all.extend(tiling.or_zeros(b, own));
                }
            }
            all
        });
        let mut ends = ends.into_iter();
        for &i in &going {
            let count = sums[i].len();
            sums[i] = ends.by_ref().take(count).collect();
        }
        done = end;
    }
    for (tile, sums) in tiles.iter().zip(sums) {
        let sums = sums.into_iter().map(Some).collect();
        tile.tiling.store_tile(b, &tile.pointers, &tile.rows, &tile.parts, sums);
    }
}
