//! Which rows of its operands a node needs for some rows of its result.

use crate::mir::{Graph, Op, Rows, Side, Value};
use crate::types::Type;
use std::ops::Range;

/// The rows of a tensor: `unit` neighbouring elements of one axis each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Axis {
    /// Along which axis they follow one another.
    pub axis: usize,
    /// Elements of the axis in one of them.
    pub unit: usize,
}

impl Axis {
    /// How many rows a tensor has.
    pub fn count(self, ty: &Type) -> usize {
        ty.dims[self.axis] / self.unit
    }
}

/// What of an operand is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// All of it.
    Whole,
    /// Some rows.
    Rows(Axis, Window),
}

/// Row `r` of the result needs rows `(r + before) / block * stride + first` up to that with `last`, those that the
/// operand has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Window {
    before: i64,
    block: i64,
    stride: i64,
    first: i64,
    last: i64,
}

impl Window {
    const SAME: Window = Window { before: 0, block: 1, stride: 1, first: 0, last: 0 };

    fn moved(by: i64) -> Window {
        Window { first: by, last: by, ..Window::SAME }
    }

    /// The rows of an operand with `count` of them; none where it has no part in the result's.
    pub(super) fn of(self, rows: &Range<usize>, count: usize) -> Range<usize> {
        let clip = |row: i64| row.clamp(0, count as i64) as usize;
        let [a, b] = [rows.start, rows.end.max(1) - 1]
            .map(|row| (row as i64 + self.before).div_euclid(self.block));
        let (start, end) =
            (clip(a * self.stride + self.first), clip(b * self.stride + self.last + 1));
        start..end.max(start)
    }
}

/// Where the rows of a node's result come from, per operand; `None` if it cannot be computed by rows of
/// this axis.
pub(super) fn sources(graph: &Graph, value: Value, rows: Axis) -> Option<Vec<Source>> {
    let node = &graph.nodes[value];
    let Axis { axis, unit } = rows;
    let dims = &node.ty.dims;
    let operand = |index: usize| graph.ty(node.operands[index]);
    let same = |axis: usize| Source::Rows(Axis { axis, unit }, Window::SAME);
    // Operands from `start` on, broadcast to dimensions.
    let broadcast = |start: usize, dims: &[usize]| -> Vec<Source> {
        let source = |&value: &Value| {
            let from = &graph.ty(value).dims;
            match (axis + from.len()).checked_sub(dims.len()) {
                Some(at) if from[at] == dims[axis] => same(at),
                _ => Source::Whole,
            }
        };
        node.operands[start..].iter().map(source).collect()
    };
    // One row of the operand for each row of the result, along an axis where windows are `extent` long.
    let windows = |at: usize, stride: usize, extent: usize| {
        let window = Window { stride: stride as i64, last: extent as i64 - 1, ..Window::SAME };
        (unit == 1).then_some(Source::Rows(Axis { axis: at, unit }, window))
    };
    let spatial = axis.checked_sub(1).filter(|&at| at + 2 < dims.len());
    Some(match &node.op {
        Op::Input { .. } | Op::Constant(_) => return None,
        Op::Map(_) => broadcast(0, dims),
        Op::Rows(Rows { width, .. }) => {
            let mut domain = dims.clone();
            *domain.last_mut().filter(|_| axis + 1 < dims.len())? = *width;
            broadcast(0, &domain)
        }
        Op::Reduce { axes, .. } if axes.contains(&axis) => return None,
        Op::ArgReduce { axis: along, .. } if *along == axis => return None,
        Op::Reduce { .. } | Op::ArgReduce { .. } => vec![same(axis)],
        Op::Contract(_) => {
            let mut sources = match dims.len() - axis {
                1 => return None,
                2 => vec![same(axis), Source::Whole],
                _ => vec![same(axis), same(axis)],
            };
            sources.extend(broadcast(2, dims));
            sources
        }
        Op::Attention(_) => {
            let mut sources = match dims.len() - axis {
                1 => return None,
                2 => vec![same(axis), Source::Whole, Source::Whole],
                _ => vec![same(axis); 3],
            };
            let mut scores = dims.clone();
            *scores.last_mut()? = *operand(1).dims.last()?;
            sources.extend(broadcast(3, &scores));
            sources
        }
        Op::Conv(conv) => {
            let x = match spatial {
                Some(at) => {
                    let extent = (conv.taps[at] - 1) * conv.dilations[at] + 1;
                    windows(axis, conv.strides[at], extent)?
                }
                None if axis == 0 => same(0),
                None => return None,
            };
            [vec![x, Source::Whole], broadcast(2, dims)].concat()
        }
        Op::Pool(pool) => vec![match spatial {
            Some(at) => {
                let extent = (pool.window[at] - 1) * pool.dilations[at] + 1;
                windows(axis, pool.strides[at], extent)?
            }
            None => same(axis),
        }],
        Op::Winograd(w) => match &w.side {
            Side::Input { before, tiles } => {
                if axis != 1 || unit != tiles[1] || operand(0).dims[0] != 1 {
                    return None;
                }
                let first = -(before[0] as i64);
                let last = first + w.axes[0].points() as i64 - 1;
                let stride = w.axes[0].step() as i64;
                let window = Window { stride, first, last, ..Window::SAME };
                vec![Source::Rows(Axis { axis: 1, unit: 1 }, window)]
            }
            Side::Both { before, parts, .. } => {
                let x = match axis {
                    0 => same(0),
                    1 if unit == 1 => {
                        let first = -(before[0] as i64);
                        let stride = w.axes[0].stride as i64;
                        let last = first + w.axes[0].taps as i64 - 1;
                        let window = Window { stride, first, last, ..Window::SAME };
                        Source::Rows(Axis { axis: 1, unit: 1 }, window)
                    }
                    _ => return None,
                };
                let weights = broadcast(parts + 1, dims);
                [vec![x; *parts], vec![Source::Whole], weights].concat()
            }
            Side::Output { .. } => {
                if axis != 1 || unit != 1 || dims[0] != 1 {
                    return None;
                }
                let tiles = Axis { axis: 1, unit: w.axes[1].tiles(dims[2]) };
                let window = Window { block: w.axes[0].tile as i64, ..Window::SAME };
                [vec![Source::Rows(tiles, window)], broadcast(1, dims)].concat()
            }
        },
        Op::Gather { axis: along } => {
            let indices = operand(1).dims.len();
            match axis.checked_sub(*along) {
                None => vec![same(axis), Source::Whole],
                Some(at) if at < indices => vec![Source::Whole, same(at)],
                Some(_) => vec![same(axis + 1 - indices), Source::Whole],
            }
        }
        // Any update may go to any slice.
        Op::Scatter { .. } => {
            let other = axis.checked_sub(1)? + operand(1).dims.len();
            vec![same(axis), Source::Whole, same(other)]
        }
        Op::Sort { .. } if axis + 1 == dims.len() => return None,
        Op::Scan(scan) if scan.axis == axis => return None,
        Op::Sort { .. } | Op::Scan(_) => vec![same(axis)],
        Op::Pad { low, high, interior, .. } => {
            if low[axis] == 0 && high[axis] == 0 && interior[axis] == 0 {
                return Some(vec![same(axis)]);
            }
            if unit != 1 || operand(0).dims[axis] == 0 {
                return None;
            }
            let (before, block) = (-(low[axis] as i64), interior[axis] as i64 + 1);
            vec![Source::Rows(rows, Window { before, block, ..Window::SAME })]
        }
        Op::Concat { axis: along } if *along != axis => vec![same(axis); node.operands.len()],
        Op::Concat { .. } => {
            let mut before = 0;
            let part = |&value: &Value| {
                let extent = graph.ty(value).dims[axis];
                let window = Window::moved(-((before / unit) as i64));
                let fits = before.is_multiple_of(unit) && extent.is_multiple_of(unit);
                before += extent;
                fits.then_some(Source::Rows(rows, window))
            };
            node.operands.iter().map(part).collect::<Option<_>>()?
        }
        Op::Reshape => {
            let (axis, block) = reshaped(dims, rows, &operand(0).dims)?;
            vec![Source::Rows(axis, Window { block: block as i64, ..Window::SAME })]
        }
        Op::Permute(perm) => vec![same(perm[axis])],
        Op::Slice { starts, steps } => {
            if starts[axis] == 0 && steps[axis] == 1 && operand(0).dims[axis] == dims[axis] {
                return Some(vec![same(axis)]);
            }
            let stride = Some(steps[axis]).filter(|&step| step > 0 && unit == 1)?;
            let window = Window { stride, ..Window::moved(starts[axis] as i64) };
            vec![Source::Rows(rows, window)]
        }
        Op::Broadcast => broadcast(0, dims),
    })
}

/// The axis of other dimensions whose rows are the same elements in row-major order, and of how many rows
/// each of its own is made.
fn reshaped(from: &[usize], rows: Axis, to: &[usize]) -> Option<(Axis, usize)> {
    let product = |dims: &[usize]| dims.iter().product::<usize>();
    let outer = product(&from[..rows.axis]);
    let row = product(&from[rows.axis + 1..]) * rows.unit;
    let inner = |axis: usize| product(&to[axis + 1..]);
    let fitting = || (0..to.len()).filter(|&axis| product(&to[..axis]) == outer && inner(axis) > 0);
    let several = fitting().find_map(|axis| {
        let unit = row / inner(axis);
        let fits = row.is_multiple_of(inner(axis)) && unit > 0 && to[axis].is_multiple_of(unit);
        fits.then_some((Axis { axis, unit }, 1))
    });
    let part = |axis: usize| {
        let fits = row > 0 && to[axis] > 1 && inner(axis).is_multiple_of(row);
        fits.then(|| (Axis { axis, unit: 1 }, inner(axis) / row))
    };
    several.or_else(|| fitting().find_map(part))
}

/// The rows that are computed where some are needed: whole tiles, whole rows of what is
/// reshaped, and of a border some of the operand.
pub(super) fn computed(
    graph: &Graph,
    value: Value,
    rows: Axis,
    need: Range<usize>,
) -> Range<usize> {
    let node = &graph.nodes[value];
    let count = rows.count(&node.ty);
    if let Op::Winograd(w) = &node.op
        && rows.axis == 1
        && let Side::Output { .. } | Side::Both { .. } = w.side
    {
        let tile = w.axes[0].tile;
        return need.start / tile * tile..need.end.next_multiple_of(tile).min(count);
    }
    if let Op::Reshape = node.op
        && let Some((_, block)) = reshaped(&node.ty.dims, rows, &graph.ty(node.operands[0]).dims)
    {
        return need.start / block * block..need.end.next_multiple_of(block).min(count);
    }
    if let Op::Pad { low, interior, .. } = &node.op
        && rows.unit == 1
    {
        // From an element of the operand to before the next one.
        let (low, block) = (low[rows.axis], interior[rows.axis] + 1);
        let inside = (graph.ty(node.operands[0]).dims[rows.axis].max(1) - 1) * block;
        let start = match need.start.checked_sub(low) {
            Some(behind) => low + behind.min(inside) / block * block,
            None => need.start,
        };
        let end = match need.end.saturating_sub(low) {
            behind if behind > inside => count,
            behind => low + behind.max(1).next_multiple_of(block),
        };
        return start..end.min(count);
    }
    need
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_through_reshapes() {
        let axis = |axis, unit| Axis { axis, unit };
        let of = |from: &[usize], rows, to: &[usize]| reshaped(from, rows, to);
        assert_eq!(of(&[1, 56, 56, 24], axis(1, 1), &[3136, 24]), Some((axis(0, 56), 1)));
        assert_eq!(of(&[3136, 24], axis(0, 56), &[1, 56, 56, 24]), Some((axis(1, 1), 1)));
        assert_eq!(of(&[2, 8, 6], axis(1, 2), &[2, 4, 12]), Some((axis(1, 1), 1)));
        assert_eq!(of(&[2, 8, 6], axis(1, 1), &[16, 6]), None);
        // A row of the operand has several.
        assert_eq!(of(&[3136, 24], axis(0, 1), &[1, 56, 56, 24]), Some((axis(1, 1), 56)));
        assert_eq!(of(&[2, 8, 6], axis(1, 1), &[2, 4, 2, 6]), Some((axis(1, 1), 2)));
        assert_eq!(of(&[2, 9, 4], axis(1, 1), &[2, 6, 6]), None);
    }

    #[test]
    fn windows_are_clipped() {
        let window = Window { stride: 2, first: -1, last: 1, ..Window::SAME };
        assert_eq!(window.of(&(0..3), 10), 0..6);
        assert_eq!(window.of(&(3..6), 10), 5..10);
        assert_eq!(Window::moved(-4).of(&(0..3), 10), 0..0);
    }
}
