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
        Side::Output { epilogue } => epilogue.as_ref(),
    };
    let body = Body::new(epilogue.unwrap_or(&identity), &extra)?;
    let channel = |shape: &super::Shape| shape.stride(-1);
    let last = frame.inputs().len();
    let mut shapes = frame.shapes().enumerate();
    let unit = shapes.all(|(i, shape)| {
        shape.dims.last() == Some(&1)
            || channel(shape) == 4
            || channel(shape) == 0 && i > 0 && i < last
    });
    if frame.machine.lanes > 1 && !(unit && body.in_vectors(&frame.machine)) {
        return Ok(None);
    }
    let matrices = Matrices::new(winograd.tile);
    let tile = winograd.tile as i64;
    let plan = match &winograd.side {
        Side::Input { before, tiles } => {
            let before = before.map(|n| n as i64);
            input(&Input { frame, matrix: &matrices.input, tile, before }, tiles.map(|n| n as i64))
        }
        Side::Output { .. } => output(&Output { frame, matrix: &matrices.output, tile, body }),
    };
    Ok(Some(plan))
}

/// A loop whose iterations fall into segments of equal work.
struct Axis {
    /// Bytes from an iteration to the next, for every pointer.
    steps: Vec<i64>,
    segments: Vec<Segment>,
}

/// Neighbouring iterations of which each takes the same `part` of what belongs to it.
struct Segment {
    iterations: Range<i64>,
    part: Range<i64>,
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
type Inside<'a> = dyn FnMut(&mut Builder, &[Value], &[Range<i64>]) + 'a;

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
fn descend(
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
struct Input<'a> {
    frame: &'a Frame<'a>,
    matrix: &'a [Vec<f64>],
    tile: i64,
    before: [i64; 2],
}

fn input(side: &Input<'_>, tiles: [i64; 2]) -> KernelPlan {
    let (frame, m) = (side.frame, side.tile);
    let (x, v) = (&frame.inputs()[0], frame.result());
    let points = m + 2;
    let inside = |axis: usize| {
        let (before, extent) = (side.before[axis], x.dims[axis + 1]);
        move |tile: i64| {
            let first = tile * m - before;
            (-first).clamp(0, points)..(extent - first).clamp(0, points)
        }
    };
    let axes = [
        Axis::new(x.dims[0], vec![x.strides[0], tiles[0] * tiles[1] * v.strides[1]], |_| 0..1),
        Axis::new(tiles[0], vec![m * x.strides[1], tiles[1] * v.strides[1]], inside(0)),
        Axis::new(tiles[1], vec![m * x.strides[2], v.strides[1]], inside(1)),
        Axis::vectors(frame, [x.strides[3], v.strides[2]].into_iter()),
    ];
    let work = 4 * v.dims.iter().product::<i64>();
    loops(frame, &axes, work, &mut |b, p, parts| {
        let lanes = parts[3].end as u32;
        // Points and their opposites together.
        let pairs = (1..points as usize - 1).step_by(2).map(|i| i..i + 2);
        for rows in pairs.chain([0..1, points as usize - 1..points as usize]) {
            let columns = (0..points).map(|column| {
                let values: Vec<Option<Value>> = (0..points)
                    .map(|row| {
                        let is_inside = parts[1].contains(&row) && parts[2].contains(&column);
                        let at = (row - side.before[0]) * x.strides[1]
                            + (column - side.before[1]) * x.strides[2];
                        is_inside.then_some(at)
                    })
                    .enumerate()
                    .map(|(row, at)| {
                        let used = rows.clone().any(|r| side.matrix[r][row] != 0.0);
                        at.filter(|_| used)
                            .map(|at| expr::load(b, DType::F32, p[0], at, lanes, false))
                    })
                    .collect();
                side.points(b, rows.clone(), &values)
            });
            let columns: Vec<Vec<Option<Value>>> = columns.collect();
            for (i, row) in rows.clone().enumerate() {
                let values: Vec<Option<Value>> = columns.iter().map(|column| column[i]).collect();
                let all = 0..points as usize;
                for (column, value) in all.clone().zip(side.all_points(b, all, &values)) {
                    let value = match value {
                        Some(value) => value,
                        None => b.f32(0.0),
                    };
                    let at = (row * points as usize + column) as i64 * v.strides[0];
                    expr::store(b, DType::F32, value, p[1], at, lanes);
                }
            }
        }
    })
}

impl Input<'_> {
    /// These points of a row or column: one, or two that are opposite. `None` is zero.
    fn points(
        &self,
        b: &mut Builder,
        points: Range<usize>,
        values: &[Option<Value>],
    ) -> Vec<Option<Value>> {
        let terms = |matches: &dyn Fn(usize) -> bool| -> Vec<(f64, Value)> {
            let row = self.matrix[points.start].iter().zip(values).enumerate();
            row.filter_map(|(i, (&c, value))| Some((c, (*value)?)).filter(|_| matches(i))).collect()
        };
        if points.len() == 1 {
            return vec![dot(b, &terms(&|_| true))];
        }
        let (plus, minus) = (&self.matrix[points.start], &self.matrix[points.start + 1]);
        let even = dot(b, &terms(&|i| plus[i] == minus[i]));
        let odd = dot(b, &terms(&|i| plus[i] != minus[i]));
        match (even, odd) {
            (Some(even), Some(odd)) => vec![Some(b.add(even, odd)), Some(b.sub(even, odd))],
            (None, Some(odd)) => vec![Some(odd), Some(b.neg(odd))],
            (even, None) => vec![even, even],
        }
    }

    /// All points of a row or column.
    fn all_points(
        &self,
        b: &mut Builder,
        all: Range<usize>,
        values: &[Option<Value>],
    ) -> Vec<Option<Value>> {
        let last = all.end - 1;
        let mut results = self.points(b, 0..1, values);
        for first in (1..last).step_by(2) {
            results.extend(self.points(b, first..first + 2, values));
        }
        results.extend(self.points(b, last..last + 1, values));
        results
    }
}

/// Tiles of products.
struct Output<'a> {
    frame: &'a Frame<'a>,
    matrix: &'a [Vec<f64>],
    tile: i64,
    body: Body<'a>,
}

fn output(side: &Output<'_>) -> KernelPlan {
    let (frame, m) = (side.frame, side.tile);
    let (products, y) = (&frame.inputs()[0], frame.result());
    let points = (m + 2) as usize;
    let extents = [y.dims[1], y.dims[2]];
    let tiles = extents.map(|extent| (extent + m - 1) / m);
    let steps = |of_products: i64, axis: usize, times: i64| {
        let rest = frame.shapes[1..].iter().map(|shape| shape.strides[axis] * times);
        std::iter::once(of_products).chain(rest).collect::<Vec<i64>>()
    };
    let tile = products.strides[1];
    let inside = |axis: usize| move |tile: i64| 0..m.min(extents[axis] - tile * m);
    let axes = [
        Axis::new(y.dims[0], steps(tiles[0] * tiles[1] * tile, 0, 1), |_| 0..1),
        Axis::new(tiles[0], steps(tiles[1] * tile, 1, m), inside(0)),
        Axis::new(tiles[1], steps(tile, 2, m), inside(1)),
        Axis::vectors(frame, steps(products.strides[2], 3, 1).into_iter()),
    ];
    // All rows at once if they stay in registers, else the even and the odd ones.
    let at_once = points as i64 * m + 8 <= i64::from(frame.machine.registers);
    let groups: &[(usize, usize)] = if at_once { &[(0, 1)] } else { &[(0, 2), (1, 2)] };
    let work = 4 * products.dims.iter().product::<i64>();
    let channels: Vec<i64> = frame.shapes().map(|shape| shape.stride(-1)).collect();
    let finish = Finish { frame, body: &side.body, first: 0, columns: &channels };
    let apart = finish.is_apart();
    loops(frame, &axes, work, &mut |b, p, parts| {
        let lanes = parts[3].end as u32;
        let (height, width) = (parts[1].end as usize, parts[2].end as usize);
        let mut loaded = vec![];
        for &(first, step) in groups {
            let rows: Vec<usize> = (first..height).step_by(step).collect();
            let columns = (0..points).map(|column| {
                let values: Vec<Option<Value>> = (0..points)
                    .map(|row| {
                        let used = rows.iter().any(|&r| side.matrix[r][row] != 0.0);
                        let at = (row * points + column) as i64 * products.strides[0];
                        used.then(|| expr::load(b, DType::F32, p[0], at, lanes, false))
                    })
                    .collect();
                side.results(b, &rows, &values)
            });
            let columns: Vec<Vec<Value>> = columns.collect();
            for (i, &row) in rows.iter().enumerate() {
                let values: Vec<Option<Value>> = columns.iter().map(|c| Some(c[i])).collect();
                let all: Vec<usize> = (0..width).collect();
                for (column, sum) in all.iter().zip(side.results(b, &all, &values)) {
                    let place = (row as i64, *column as i64);
                    match apart {
                        true => side.store(b, p, place, lanes, sum),
                        false => side.finish(b, p, place, lanes, sum, &mut loaded),
                    }
                }
            }
        }
        if apart {
            let level = |extent: usize, axis: usize| Level::axis(extent as i64, steps(0, axis, 1));
            finish.write(b, p, &[level(height, 1), level(width, 2)], &[(0, lanes)]);
        }
    })
}

impl Output<'_> {
    /// These results of a row or column of products, of which `None` is not needed for them.
    fn results(&self, b: &mut Builder, rows: &[usize], values: &[Option<Value>]) -> Vec<Value> {
        let last = values.len() - 1;
        let mut pairs: [Vec<Value>; 2] = [vec![], vec![]];
        for parity in [0, 1] {
            if rows.iter().any(|row| row % 2 == parity) {
                let opposite = |i: usize| values[i].zip(values[i + 1]);
                let all = (1..last).step_by(2).filter_map(opposite);
                let combined =
                    all.map(|(x, y)| if parity == 0 { b.add(x, y) } else { b.sub(x, y) });
                pairs[parity] = combined.collect();
            }
        }
        let result = |&row: &usize| {
            let factors = &self.matrix[row];
            let pairs = pairs[row % 2].iter().enumerate().map(|(i, &v)| (factors[2 * i + 1], v));
            let ends = [0, last].into_iter().filter_map(|i| Some((factors[i], values[i]?)));
            let terms: Vec<(f64, Value)> = pairs.chain(ends).collect();
            dot(b, &terms).unwrap_or_else(|| b.f32(0.0))
        };
        rows.iter().map(result).collect()
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
