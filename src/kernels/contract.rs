//! Matrix products and convolutions.
//!
//! Both are one problem: sums over *depth* axes of products of an element of A and one of B, for
//! *rows* (axes that B does not know) and *columns* (that A does not know), and loops around for the
//! rest (batch, groups). A tile of the result stays in registers over all of the depth: B is read in
//! vectors of columns, A by broadcasts in place. B in panels is packed for that; where B's columns
//! lie apart but its depth does not (a transposed right operand), squares of it are transposed in
//! registers, or for few rows its columns are summed one by one.
//!
//! Bytes in fours ([`Weights::Quads`]) are multiplied four at a time: the depth counts fours then, each of
//! which is one element of `i32` in both operands.

pub(super) mod abreast;
mod dots;
mod fours;
mod inwords;
mod tiling;

use super::expr::{self, Body};
use super::nest::{self, Level, nest};
use super::{Frame, KernelPlan};
use crate::error::ErrorKind;
use crate::kir::Value;
use crate::kir::build::Builder;
use crate::lir::{Contract, Conv, Expr, Weights, quads, sums};
use crate::types::DType;
use fours::Run;
use inwords::InBlocks;
use tiling::Tiling;

/// Matrix product; `None` where it is not for vectors.
pub(super) fn product(
    frame: &Frame<'_>,
    contract: &Contract,
) -> Result<Option<KernelPlan>, ErrorKind> {
    let mut problem = Problem::product(frame, contract);
    problem.swap_if_better();
    problem.kernel(contract.epilogue.as_ref())
}

/// Convolution; `None` where it is not for vectors.
pub(super) fn convolution(frame: &Frame<'_>, conv: &Conv) -> Result<Option<KernelPlan>, ErrorKind> {
    let (x, w) = (&frame.inputs()[0], &frame.inputs()[1]);
    let spatial = conv.taps.len();
    let channel = spatial + 1;
    let groups = conv.groups as i64;
    let (inside, outside) = (x.dims[channel] / groups, frame.result().dims[channel] / groups);
    let steps = |x: i64, w: i64, axis: usize, times: i64| {
        let rest = frame.shapes[2..].iter().map(|shape| shape.strides[axis] * times);
        [x, w].into_iter().chain(rest).collect::<Vec<i64>>()
    };
    let size = expr::size(w.dtype);
    // A run in fours, and how many of the spatial axes are outside of it.
    let mut run = None;
    let mut outer = spatial;
    // Bytes in W: from a group to the next, from a column, from an input channel, from a tap.
    let (panel, group_step, column_step, channel_step, tap_steps) = match conv.weights {
        Weights::Plain => {
            let column = w.strides[channel];
            (None, column * outside, column, w.strides[spatial], w.strides[..spatial].to_vec())
        }
        Weights::Nibbles { .. } => return Err(ErrorKind::unsupported("a convolution by words")),
        Weights::Panels { width, .. } => {
            let row = width as i64 * size;
            let (steps, all) = outward(&conv.taps, inside * row);
            (Some(width as i64), w.strides[0], all / width as i64, row, steps)
        }
        Weights::Quads { width, run: elements, .. } => {
            let row = 4 * width as i64;
            let all = elements as i64 != inside;
            let along = if all && spatial > 0 { conv.taps[spatial - 1] as i64 } else { 1 };
            outer = spatial - usize::from(all && spatial > 0);
            let tap_step = if outer < spatial { x.strides[spatial] } else { 0 };
            let places = (0..along).flat_map(|tap| (0..inside).map(move |c| (tap, c)));
            let place = |(tap, c): (i64, i64)| tap * tap_step + c * x.strides[channel];
            run = Some(Run::new(places.map(place).collect()));
            let (steps, all) = outward(&conv.taps[..outer], quads::fours(elements) as i64 * row);
            (Some(width as i64), w.strides[0], all / width as i64, row, steps)
        }
    };
    let result = frame.result();
    let group =
        Level::axis(groups, steps(x.strides[channel] * inside, group_step, channel, outside));
    let batch = Level::axis(result.dims[0], steps(x.strides[0], 0, 0, 1));
    let windows = (0..spatial).map(|i| {
        let step = x.strides[i + 1] * conv.strides[i] as i64;
        Level::axis(result.dims[i + 1], steps(step, 0, i + 1, 1))
    });
    let innermost = match &run {
        Some(run) => Level::axis(run.fours(), vec![4, channel_step]),
        None => Level::axis(inside, vec![x.strides[channel], channel_step]),
    };
    let depth = (0..outer).map(|i| {
        let step = x.strides[i + 1] * conv.dilations[i] as i64;
        Level::axis(conv.taps[i] as i64, vec![step, tap_steps[i]])
    });
    let problem = Problem {
        frame,
        around: [group, batch].into_iter().chain(windows).collect(),
        columns: Level::axis(outside, steps(0, column_step, channel, 1)),
        depth: depth.chain([innermost]).collect(),
        panel,
        run,
        blocks: None,
        left: 0,
        backwards: false,
    };
    problem.kernel(conv.epilogue.as_ref())
}

/// Steps of dense axes, and the bytes of them all, from those of what is inside.
fn outward(extents: &[usize], inside: i64) -> (Vec<i64>, i64) {
    let mut all = inside;
    let mut steps = vec![0; extents.len()];
    for (step, &extent) in steps.iter_mut().zip(extents).rev() {
        *step = all;
        all *= extent as i64;
    }
    (steps, all)
}

/// A matrix product that is a part of a larger kernel.
pub(super) struct Block<'a> {
    tiling: Tiling<'a>,
}

impl<'a> Block<'a> {
    /// Of `rows` by `columns`, which have steps for all shapes of the frame; `depth` has those of the
    /// first two. The second operand is in panels of `panel` columns, or not. `None` where it is not
    /// for vectors.
    pub(super) fn new(
        frame: &'a Frame<'a>,
        [rows, columns, depth]: [Level; 3],
        panel: Option<i64>,
        epilogue: &'a Expr,
    ) -> Result<Option<Block<'a>>, ErrorKind> {
        let (around, depth) = (vec![rows], vec![depth]);
        let (run, left, backwards) = (None, 0, false);
        let blocks = None;
        let problem =
            Problem { frame, around, columns, depth, panel, run, blocks, left, backwards };
        Ok(problem.tiling(epilogue)?.map(|tiling| Block { tiling }))
    }

    /// The same, where the panels come from far: each is called for while the one before is used.
    pub(super) fn looking_ahead(mut self) -> Block<'a> {
        self.tiling.look_ahead(self.tiling.rows.each_ref().map(|level| level.extent));
        self
    }

    /// Computes it all. The pointers are those of the frame's shapes.
    pub(super) fn write(&self, b: &mut Builder, p: &[Value]) {
        let tiling = &self.tiling;
        let mut p = p.to_vec();
        p.extend(tiling.next_panel(b, &p));
        let columns = tiling.problem.columns.clone().in_pieces(tiling.panel_width());
        nest(b, &[columns], None, &p, &mut |b, p, sizes| {
            tiling.panel(b, p, tiling.rows.clone(), sizes[0]);
        });
    }
}

/// Levels have a step for each operand of the kernel, in its order; those of `depth` for the left and
/// the right operand of the product.
struct Problem<'a> {
    frame: &'a Frame<'a>,
    /// Rows and what is around them.
    around: Vec<Level>,
    columns: Level,
    depth: Vec<Level>,
    /// Columns of a panel.
    panel: Option<i64>,
    /// Of bytes in fours: the innermost level of the depth, which counts fours.
    run: Option<Run>,
    /// Of words of numbers of four bits: how the depth, which counts them, is in blocks.
    blocks: Option<InBlocks>,
    /// Which operand is read by broadcasts: 0, or 1 when they have changed places.
    left: usize,
    /// Whether the right operand is read from its end.
    backwards: bool,
}

/// How vectors of columns come from the right operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    /// From columns that lie one behind the other (or, with one lane, anyhow).
    Rows,
    /// All columns are the same.
    Same,
    /// From squares whose rows lie along the depth.
    Squares,
    /// Not at all: vectors lie along the depth, in both operands.
    Dots,
}

impl Problem<'_> {
    fn right(&self) -> usize {
        1 - self.left
    }

    /// Bytes of an element of the right operand, which in fours are one.
    fn right_size(&self) -> i64 {
        match &self.run {
            Some(_) => 4,
            None => expr::size(self.frame.inputs()[self.right()].dtype),
        }
    }

    /// Whether both operands lie in vectors along the depth, and the rows are too few for columns of them.
    fn sums_along_depth(&self) -> bool {
        let [depth] = &self.depth[..] else { return false };
        let size = |operand: usize| expr::size(self.frame.inputs()[operand].dtype);
        let right = self.right();
        let along = [0, 1].iter().all(|&operand| depth.steps[operand] == size(operand));
        let rows = self.around.iter().filter(|l| l.steps[right] == 0).map(|l| l.extent);
        let apart = self.columns.extent == 1 || self.columns.steps[right] != size(right);
        along
            && apart
            && self.columns.steps[right] != 0
            && depth.extent > 1
            && rows.product::<i64>() <= Contract::FEW_ROWS as i64
            && !self.frame.machine.doubles
    }

    /// With A and B in each other's place the rows are columns: better if the result's rows lie apart
    /// and its columns do not.
    fn swap_if_better(&mut self) {
        let last = self.columns.steps.len() - 1;
        let Some(rows) = self.around.last() else { return };
        let size = expr::size(self.frame.result().dtype);
        let lies_apart = self.columns.extent == 1 || self.columns.steps[last] != size;
        if self.panel.is_none() && rows.extent > 1 && lies_apart && rows.steps[last] == size {
            let rows = self.around.pop().into_iter().next();
            if let Some(rows) = rows {
                let columns = std::mem::replace(&mut self.columns, rows);
                self.around.push(columns);
                self.left = 1;
            }
        }
    }

    fn kernel(self, epilogue: Option<&Expr>) -> Result<Option<KernelPlan>, ErrorKind> {
        let identity = Expr::identity();
        let tiling = self.tiling(epilogue.unwrap_or(&identity))?;
        Ok(tiling.map(Tiling::write))
    }
}

impl<'a> Problem<'a> {
    /// A matrix product.
    fn product(frame: &'a Frame<'a>, contract: &Contract) -> Problem<'a> {
        let (a, b) = (&frame.inputs()[0], &frame.inputs()[1]);
        let rank = a.dims.len();
        let (m, k, n) = (rank - 2, rank - 1, rank - 1);
        let steps = |a: i64, b: i64, axis: usize| {
            let rest = frame.shapes[2..].iter().map(|shape| shape.strides[axis]);
            [a, b].into_iter().chain(rest).collect::<Vec<i64>>()
        };
        let batch = (0..rank - 2)
            .map(|axis| Level::axis(a.dims[axis], steps(a.strides[axis], b.strides[axis], axis)));
        let rows = Level::axis(a.dims[m], steps(a.strides[m], 0, m));
        let mut extent = a.dims[k];
        let (mut run, mut blocks) = (None, None);
        let (panel, column_step, depth_step) = match contract.weights {
            Weights::Nibbles { width, blocks: of, .. } => {
                blocks = Some(InBlocks { of, depth: extent });
                extent = of.words(extent as usize) as i64;
                let width = width as i64;
                (Some(width), b.strides[0] / width, b.strides[1])
            }
            Weights::Plain => (None, b.strides[n], b.strides[rank - 2]),
            Weights::Quads { width, run: elements, .. } => {
                run = Some(Run::new((0..extent).map(|e| e * a.strides[k]).collect()));
                extent = quads::fours(elements) as i64;
                let width = width as i64;
                (Some(width), b.strides[rank - 2] / width, b.strides[rank - 1])
            }
            Weights::Panels { width, .. } => {
                let width = width as i64;
                (Some(width), b.strides[rank - 2] / width, b.strides[rank - 1])
            }
        };
        let columns = Level::axis(frame.result().dims[n], steps(0, column_step, n));
        let left_step = if run.is_some() { 4 } else { a.strides[k] };
        let depth = Level::axis(extent, vec![left_step, depth_step]);
        Problem {
            frame,
            around: batch.chain([rows]).collect(),
            columns,
            depth: vec![depth],
            panel,
            run,
            blocks,
            left: 0,
            backwards: contract.backwards,
        }
    }

    /// The loops; `None` where it is not for vectors.
    fn tiling(mut self, epilogue: &'a Expr) -> Result<Option<Tiling<'a>>, ErrorKind> {
        let frame = self.frame;
        let [first, second] = [0, 1].map(|i| frame.inputs()[i].dtype);
        let Some(dtype) = sums(first, second).filter(|&dtype| dtype != DType::Bool) else {
            return Err(ErrorKind::unsupported(format!("products of {first} and {second}")));
        };
        let types: Vec<DType> =
            [dtype].into_iter().chain(frame.inputs()[2..].iter().map(|s| s.dtype)).collect();
        let body = Body::new(epilogue, &types)?;
        let empty = self.depth.iter().any(|level| level.extent == 0);
        match &self.run {
            Some(run) => (self.depth, self.run) = run.merged(self.depth),
            None => self.depth = nest::merge(self.depth),
        }
        let right = self.right();
        let scalar = frame.machine.lanes == 1;
        let size = expr::size(frame.inputs()[right].dtype);
        let one = self.columns.extent == 1;
        let inner = self.depth.last().map(|level| level.steps[right]);
        let how = match self.columns.steps[right] {
            _ if self.panel.is_some() || scalar || empty => Right::Rows,
            _ if self.sums_along_depth() => Right::Dots,
            _ if one => Right::Rows,
            step if step == size => Right::Rows,
            0 => Right::Same,
            _ if inner == Some(size) && !frame.machine.doubles => Right::Squares,
            _ => return Ok(None),
        };
        let vectors = || {
            let last = self.columns.steps.len() - 1;
            let steps = self.columns.steps[2..last].iter().zip(&frame.inputs()[2..]);
            let mut steps = steps.map(|(&step, shape)| (step, expr::size(shape.dtype)));
            let result = (self.columns.steps[last], expr::size(frame.result().dtype));
            let types = frame.shapes().all(|shape| expr::in_vectors(shape.dtype, &frame.machine));
            let unit = |(step, size): (i64, i64)| one || step == size;
            types
                && body.in_vectors(&frame.machine)
                && unit(result)
                && steps.all(|(step, size)| step == 0 || unit((step, size)))
        };
        if !scalar && !vectors() {
            return Ok(None);
        }
        Ok(Some(Tiling::new(self, body, dtype, how, empty)))
    }
}
