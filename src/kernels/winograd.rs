//! Convolutions by minimal filtering: what is done to tiles of inputs before the products, and to
//! tiles of products after them. Vectors lie over the channels, a tile is written out.
//!
//! Opposite points share their work (see [`Matrices`]): their rows of the input's matrix are a sum and a
//! difference of the same two values, and the output's side begins with the sum and the difference of
//! their products. Only some rows of a tile are transformed along the first axis at a time, so that they
//! stay in registers for the second.

use super::expr::{self, Body};
use super::finish::Finish;
use super::nest::{Level, Shares, Span, advancing, moved};
use super::{Frame, KernelPlan};
use crate::error::ErrorKind;
use crate::kir::build::Builder;
use crate::kir::{IndexOp, Value};
use crate::lir::{Expr, Matrices, Side, Winograd};
use crate::types::DType;
use std::ops::Range;

/// The kernel; `None` where it is not for vectors.
pub(super) fn kernel(
    frame: &Frame<'_>,
    winograd: &Winograd,
) -> Result<Option<KernelPlan>, ErrorKind> {
    if frame.shapes().any(|shape| shape.dtype != DType::F32) {
        return Err(ErrorKind::bug("minimal filtering of what is not f32"));
    }
    let (identity, extra) = (Expr::identity(), vec![DType::F32; frame.inputs().len()]);
    let epilogue = match &winograd.side {
        Side::Input { .. } => None,
        Side::Output { epilogue } | Side::Both { epilogue, .. } => epilogue.as_ref(),
    };
    let body = Body::new(epilogue.unwrap_or(&identity), &extra)?;
    if !is_for_lanes(frame, &body) {
        return Ok(None);
    }
    let matrices = winograd.axes.map(Matrices::new);
    let (tile, step) = extents(winograd);
    Ok(Some(match &winograd.side {
        Side::Input { before, tiles } => {
            let before = before.map(|n| n as i64);
            let side = Input { frame, matrices: &matrices, step, before };
            let work = 4 * frame.result().dims.iter().product::<i64>();
            loops(
                frame,
                &side.axes(tiles.map(|n| n as i64), tiles[1] as i64),
                work,
                &mut |b, p, parts| {
                    side.points_of(b, p, parts);
                },
            )
        }
        Side::Output { .. } => {
            let side = Output { frame, matrices: &matrices, tile, body };
            let work = 4 * frame.inputs()[0].dims.iter().product::<i64>();
            loops(frame, &side.axes(side.tiles()[1]), work, &mut |b, p, parts| {
                side.results_of(b, p, parts)
            })
        }
        Side::Both { .. } => return Err(ErrorKind::bug("both sides are a kernel of their own")),
    }))
}

/// Rows and columns of a tile of results, and of the input from a tile to the next.
pub(super) fn extents(winograd: &Winograd) -> ([i64; 2], [i64; 2]) {
    (winograd.axes.map(|axis| axis.tile as i64), winograd.axes.map(|axis| axis.step() as i64))
}

/// Whether the channels lie one behind the other, or there is but one lane.
pub(super) fn is_for_lanes(frame: &Frame<'_>, body: &Body<'_>) -> bool {
    let last = frame.inputs().len();
    let channel = |shape: &super::Shape| shape.stride(-1);
    let mut shapes = frame.shapes().enumerate();
    let unit = shapes.all(|(i, shape)| {
        shape.dims.last() == Some(&1)
            || channel(shape) == 4
            || channel(shape) == 0 && i > 0 && i < last
    });
    frame.machine.lanes == 1 || unit && body.in_vectors(&frame.machine)
}

/// A loop whose iterations fall into segments of equal work.
pub(super) struct Axis {
    /// Bytes from an iteration to the next, for every pointer.
    pub(super) steps: Vec<i64>,
    pub(super) segments: Vec<Segment>,
}

/// Neighbouring iterations of which each takes the same `part` of what belongs to it.
pub(super) struct Segment {
    pub(super) iterations: Range<i64>,
    pub(super) part: Range<i64>,
}

impl Axis {
    fn new(count: i64, steps: Vec<i64>, part: impl Fn(i64) -> Range<i64>) -> Axis {
        let mut segments: Vec<Segment> = vec![];
        for i in 0..count {
            let part = part(i);
            match segments.last_mut() {
                Some(last) if last.part == part => last.iterations.end = i + 1,
                _ => segments.push(Segment { iterations: i..i + 1, part }),
            }
        }
        Axis { steps, segments }
    }

    /// The channels, in vectors.
    fn vectors(frame: &Frame<'_>, steps: impl Iterator<Item = i64>) -> Axis {
        let (lanes, channels) = (frame.lanes(), frame.result().dims.last().copied().unwrap_or(1));
        let steps = steps.map(|step| step * lanes).collect();
        Axis::new((channels + lanes - 1) / lanes, steps, |i| 0..lanes.min(channels - i * lanes))
    }

    fn count(&self) -> i64 {
        self.segments.last().map_or(0, |segment| segment.iterations.end)
    }
}

/// What is inside the loops: it gets the pointers and the part of every axis.
pub(super) type Inside<'a> = dyn FnMut(&mut Builder, &[Value], &[Range<i64>]) + 'a;

/// Writes loops over the axes around `body`, once for each combination of segments.
fn loops(frame: &Frame<'_>, axes: &[Axis], work: i64, body: &mut Inside<'_>) -> KernelPlan {
    let levels: Vec<Level> = axes.iter().map(|a| Level::axis(a.count(), vec![])).collect();
    let shares = Shares::of(&levels);
    let (mut b, pointers) = frame.open(shares.extent());
    let span = shares.span(&b);
    descend(&mut b, axes, span, &pointers, &mut vec![], body);
    frame.close(b, work)
}

/// The loop over the axis behind those of which there are parts.
pub(super) fn descend(
    b: &mut Builder,
    axes: &[Axis],
    span: Option<Span>,
    pointers: &[Value],
    parts: &mut Vec<Range<i64>>,
    body: &mut Inside<'_>,
) {
    let at = parts.len();
    let Some(axis) = axes.get(at) else {
        return body(b, pointers, parts);
    };
    for Segment { iterations, part } in &axis.segments {
        parts.push(part.clone());
        let (start, end) = (iterations.start, iterations.end);
        if let Some(span) = &span
            && let Some((mut from, mut to)) = span.iterations(b, at)
        {
            if start > 0 {
                from = b.index(IndexOp::Max, from, start);
            }
            if end < axis.count() {
                to = b.index(IndexOp::Min, to, end);
            }
            b.each(from, to, &[], |b, it| {
                let pointers = moved(b, pointers, it.index, &axis.steps);
                let span = span.within(b, at, it.index.into());
                descend(b, axes, span, &pointers, parts, body);
            });
        } else {
            let first = moved(b, pointers, start, &axis.steps);
            if end - start == 1 {
                descend(b, axes, None, &first, parts, body);
            } else {
                advancing(b, end - start, &first, &axis.steps, &[], |b, pointers, _| {
                    descend(b, axes, None, pointers, parts, body);
                    vec![]
                });
            }
        }
        parts.pop();
    }
}

/// The sum of products with constants; `None` when nothing is summed.
fn dot(b: &mut Builder, terms: &[(f64, Value)]) -> Option<Value> {
    let mut terms: Vec<(f64, Value)> = terms.iter().copied().filter(|t| t.0 != 0.0).collect();
    // What is added as it is begins, and takes no multiplication.
    terms.sort_by_key(|t| (t.0 != 1.0, t.0 != -1.0));
    let (&(factor, value), rest) = terms.split_first()?;
    let times = |b: &mut Builder| b.f32(factor as f32);
    let mut sum = value;
    if factor != 1.0 {
        let factor = times(b);
        sum = b.mul(factor, value);
    }
    for &(factor, value) in rest {
        sum = match factor {
            1.0 => b.add(sum, value),
            -1.0 => b.sub(sum, value),
            _ => {
                let factor = b.f32(factor as f32);
                b.mul_add(factor, value, sum)
            }
        };
    }
    Some(sum)
}

/// Tiles of inputs.
pub(super) struct Input<'a> {
    pub(super) frame: &'a Frame<'a>,
    /// Of both axes.
    pub(super) matrices: &'a [Matrices; 2],
    /// Rows and columns of the input from a tile to the next.
    pub(super) step: [i64; 2],
    /// Zeros above the first row and left of the first column.
    pub(super) before: [i64; 2],
}

impl Input<'_> {
    /// The loops around a tile, over images, tiles and channels; points have `row` tiles from a row of
    /// tiles to the next.
    pub(super) fn axes(&self, tiles: [i64; 2], row: i64) -> [Axis; 4] {
        let (frame, m) = (self.frame, self.step);
        let (x, v) = (&frame.inputs()[0], frame.result());
        let inside = |axis: usize| {
            let (m, points) = (m[axis], self.matrices[axis].input.len() as i64);
            let (before, extent) = (self.before[axis], x.dims[axis + 1]);
            move |tile: i64| {
                let first = tile * m - before;
                (-first).clamp(0, points)..(extent - first).clamp(0, points)
            }
        };
        [
            Axis::new(x.dims[0], vec![x.strides[0], tiles[0] * tiles[1] * v.strides[1]], |_| 0..1),
            Axis::new(tiles[0], vec![m[0] * x.strides[1], row * v.strides[1]], inside(0)),
            Axis::new(tiles[1], vec![m[1] * x.strides[2], v.strides[1]], inside(1)),
            Axis::vectors(frame, [x.strides[3], v.strides[2]].into_iter()),
        ]
    }

    /// All points of a tile, from those of its parts that are there.
    pub(super) fn points_of(&self, b: &mut Builder, p: &[Value], parts: &[Range<i64>]) {
        let (x, v) = (&self.frame.inputs()[0], self.frame.result());
        let [first, second] = self.matrices;
        let points = [first, second].map(|matrices| matrices.input.len() as i64);
        let lanes = parts[3].end as u32;
        // Points and their opposites together.
        let (pairs, single): (Vec<_>, Vec<_>) =
            first.groups.iter().cloned().partition(|group| group.len() == 2);
        for rows in pairs.into_iter().chain(single) {
            let columns = (0..points[1]).map(|column| {
                let values: Vec<Option<Value>> = (0..points[0])
                    .map(|row| {
                        let is_inside = parts[1].contains(&row) && parts[2].contains(&column);
                        let at = (row - self.before[0]) * x.strides[1]
                            + (column - self.before[1]) * x.strides[2];
                        is_inside.then_some(at)
                    })
                    .enumerate()
                    .map(|(row, at)| {
                        let used = rows.clone().any(|r| first.input[r][row] != 0.0);
                        at.filter(|_| used)
                            .map(|at| expr::load(b, DType::F32, p[0], at, lanes, false))
                    })
                    .collect();
                points_of(b, first, rows.clone(), &values)
            });
            let columns: Vec<Vec<Option<Value>>> = columns.collect();
            for (i, row) in rows.clone().enumerate() {
                let values: Vec<Option<Value>> = columns.iter().map(|column| column[i]).collect();
                let groups = second.groups.iter();
                let all = groups.flat_map(|g| points_of(b, second, g.clone(), &values));
                let all: Vec<Option<Value>> = all.collect();
                for (column, value) in all.into_iter().enumerate() {
                    let value = match value {
                        Some(value) => value,
                        None => b.f32(0.0),
                    };
                    let at = (row as i64 * points[1] + column as i64) * v.strides[0];
                    expr::store(b, DType::F32, value, p[1], at, lanes);
                }
            }
        }
    }
}

/// These points of a row or column: one, or two that are opposite. `None` is zero.
fn points_of(
    b: &mut Builder,
    matrices: &Matrices,
    points: Range<usize>,
    values: &[Option<Value>],
) -> Vec<Option<Value>> {
    let terms = |matches: &dyn Fn(usize) -> bool| -> Vec<(f64, Value)> {
        let row = matrices.input[points.start].iter().zip(values).enumerate();
        row.filter_map(|(i, (&c, value))| Some((c, (*value)?)).filter(|_| matches(i))).collect()
    };
    if points.len() == 1 {
        return vec![dot(b, &terms(&|_| true))];
    }
    let matrix = &matrices.input;
    let (plus, minus) = (&matrix[points.start], &matrix[points.start + 1]);
    let even = dot(b, &terms(&|i| plus[i] == minus[i]));
    let odd = dot(b, &terms(&|i| plus[i] != minus[i]));
    match (even, odd) {
        (Some(even), Some(odd)) => vec![Some(b.add(even, odd)), Some(b.sub(even, odd))],
        (None, Some(odd)) => vec![Some(odd), Some(b.neg(odd))],
        (even, None) => vec![even, even],
    }
}

/// Tiles of products.
pub(super) struct Output<'a> {
    pub(super) frame: &'a Frame<'a>,
    /// Of both axes.
    pub(super) matrices: &'a [Matrices; 2],
    /// Rows and columns of a tile.
    pub(super) tile: [i64; 2],
    pub(super) body: Body<'a>,
}

impl Output<'_> {
    /// Rows and columns of tiles in an image.
    fn tiles(&self) -> [i64; 2] {
        let dims = &self.frame.result().dims;
        [0, 1].map(|axis| (dims[axis + 1] + self.tile[axis] - 1) / self.tile[axis])
    }

    /// The loops around a tile, over images, tiles and channels; products have `row` tiles from a row of
    /// tiles to the next.
    pub(super) fn axes(&self, row: i64) -> [Axis; 4] {
        let (frame, m) = (self.frame, self.tile);
        let (products, y) = (&frame.inputs()[0], frame.result());
        let extents = [y.dims[1], y.dims[2]];
        let tiles = self.tiles();
        let tile = products.strides[1];
        let inside = |axis: usize| move |tile: i64| 0..m[axis].min(extents[axis] - tile * m[axis]);
        [
            Axis::new(y.dims[0], self.steps(tiles[0] * tiles[1] * tile, 0, 1), |_| 0..1),
            Axis::new(tiles[0], self.steps(row * tile, 1, m[0]), inside(0)),
            Axis::new(tiles[1], self.steps(tile, 2, m[1]), inside(1)),
            Axis::vectors(frame, self.steps(products.strides[2], 3, 1).into_iter()),
        ]
    }

    /// Bytes from an element along an axis of the result to the one `times` further, for all pointers.
    fn steps(&self, of_products: i64, axis: usize, times: i64) -> Vec<i64> {
        let rest = self.frame.shapes[1..].iter().map(|shape| shape.strides[axis] * times);
        std::iter::once(of_products).chain(rest).collect()
    }

    /// The results of a tile.
    pub(super) fn results_of(&self, b: &mut Builder, p: &[Value], parts: &[Range<i64>]) {
        let (frame, m) = (self.frame, self.tile);
        let products = &frame.inputs()[0];
        let points = [0, 1].map(|axis| self.matrices[axis].input.len());
        // All rows at once if they stay in registers, else the even and the odd ones.
        let at_once = points[1] as i64 * m[0] + 8 <= i64::from(frame.machine.registers);
        let groups: &[(usize, usize)] = if at_once { &[(0, 1)] } else { &[(0, 2), (1, 2)] };
        let channels: Vec<i64> = frame.shapes().map(|shape| shape.stride(-1)).collect();
        let finish = Finish { frame, body: &self.body, first: 0, columns: &channels };
        let apart = finish.is_apart();
        let lanes = parts[3].end as u32;
        let (height, width) = (parts[1].end as usize, parts[2].end as usize);
        let mut loaded = vec![];
        for &(first, step) in groups {
            let rows: Vec<usize> = (first..height).step_by(step).collect();
            let columns = (0..points[1]).map(|column| {
                let values: Vec<Option<Value>> = (0..points[0])
                    .map(|row| {
                        let used = rows.iter().any(|&r| self.matrices[0].output[r][row] != 0.0);
                        let at = (row * points[1] + column) as i64 * products.strides[0];
                        used.then(|| expr::load(b, DType::F32, p[0], at, lanes, false))
                    })
                    .collect();
                results(b, &self.matrices[0], &rows, &values)
            });
            let columns: Vec<Vec<Value>> = columns.collect();
            for (i, &row) in rows.iter().enumerate() {
                let values: Vec<Option<Value>> = columns.iter().map(|c| Some(c[i])).collect();
                let all: Vec<usize> = (0..width).collect();
                for (column, sum) in all.iter().zip(results(b, &self.matrices[1], &all, &values)) {
                    let place = (row as i64, *column as i64);
                    match apart {
                        true => self.store(b, p, place, lanes, sum),
                        false => self.finish(b, p, place, lanes, sum, &mut loaded),
                    }
                }
            }
        }
        if apart {
            let level =
                |extent: usize, axis: usize| Level::axis(extent as i64, self.steps(0, axis, 1));
            finish.write(b, p, &[level(height, 1), level(width, 2)], &[(0, lanes)]);
        }
    }

    /// Bytes from the tile's corner.
    fn place(&self, pointer: usize, (row, column): (i64, i64)) -> i64 {
        let strides = &self.frame.shapes[pointer].strides;
        row * strides[1] + column * strides[2]
    }

    fn store(&self, b: &mut Builder, p: &[Value], place: (i64, i64), lanes: u32, value: Value) {
        let last = p.len() - 1;
        expr::store(b, DType::F32, value, p[last], self.place(last, place), lanes);
    }

    /// Applies the epilogue and stores. What several elements have in common is loaded once.
    fn finish(
        &self,
        b: &mut Builder,
        p: &[Value],
        place: (i64, i64),
        lanes: u32,
        sum: Value,
        loaded: &mut Vec<((usize, i64), Value)>,
    ) {
        let value = self.body.emit(b, &[], &mut |b, n| {
            if n == 0 {
                return sum;
            }
            let key = (n, self.place(n, place));
            if let Some(&(_, value)) = loaded.iter().find(|(known, _)| *known == key) {
                return value;
            }
            let splat = self.frame.shapes[n].stride(-1) == 0 && b.lanes() > 1;
            let value = expr::load(b, DType::F32, p[n], key.1, lanes, splat);
            if [1, 2].iter().all(|&axis| self.frame.shapes[n].strides[axis] == 0) {
                loaded.push((key, value));
            }
            value
        });
        self.store(b, p, place, lanes, value);
    }
}

/// These results of a row or column of products, of which `None` is not needed for them.
fn results(
    b: &mut Builder,
    matrices: &Matrices,
    rows: &[usize],
    values: &[Option<Value>],
) -> Vec<Value> {
    let of = |count: usize| matrices.groups.iter().filter(move |g| g.len() == count);
    let mut pairs: [Vec<Value>; 2] = [vec![], vec![]];
    for parity in [0, 1] {
        if rows.iter().any(|row| row % 2 == parity) {
            let opposite = |group: &Range<usize>| values[group.start].zip(values[group.start + 1]);
            let all = of(2).filter_map(opposite);
            let combined = all.map(|(x, y)| if parity == 0 { b.add(x, y) } else { b.sub(x, y) });
            pairs[parity] = combined.collect();
        }
    }
    let result = |&row: &usize| {
        let factors = &matrices.output[row];
        let pairs = of(2).zip(&pairs[row % 2]).map(|(group, &v)| (factors[group.start], v));
        let single = of(1).filter_map(|g| Some((factors[g.start], values[g.start]?)));
        let terms: Vec<(f64, Value)> = pairs.chain(single).collect();
        dot(b, &terms).unwrap_or_else(|| b.f32(0.0))
    };
    rows.iter().map(result).collect()
}
