//! Loop nests over the axes of tensors, for as many pointers as a kernel has.

use crate::kir::build::Builder;
use crate::kir::{IndexOp, Value};

/// A loop over an axis, in pieces of `size`; the last piece may be smaller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Level {
    /// How long the axis is.
    pub extent: i64,
    /// How long a piece is.
    pub size: i64,
    /// Bytes from an element to the next, for every pointer.
    pub steps: Vec<i64>,
}

impl Level {
    /// A loop over single elements.
    pub(super) fn axis(extent: i64, steps: Vec<i64>) -> Level {
        Level { extent, size: 1, steps }
    }

    /// The axis that is not there.
    pub(super) fn unit(pointers: usize) -> Level {
        Level::axis(1, vec![0; pointers])
    }

    /// The same in pieces of at most `size`.
    pub(super) fn in_pieces(self, size: i64) -> Level {
        Level { size: size.clamp(1, self.extent.max(1)), ..self }
    }

    /// How many pieces there are.
    pub(super) fn pieces(&self) -> i64 {
        (self.extent + self.size - 1) / self.size
    }

    /// Whether `inner`, an iteration of this, continues it: both are one longer axis.
    fn continues(&self, inner: &Level) -> bool {
        let mut steps = self.steps.iter().zip(&inner.steps);
        self.size == 1 && inner.size == 1 && steps.all(|(&o, &i)| o == i * inner.extent)
    }
}

/// The same iterations in as few levels as possible: extents of 1 are dropped, and neighbours that
/// continue each other become one.
pub(super) fn merge(levels: impl IntoIterator<Item = Level>) -> Vec<Level> {
    let mut merged: Vec<Level> = vec![];
    for level in levels.into_iter().filter(|l| l.extent != 1) {
        match merged.last_mut() {
            Some(outer) if outer.continues(&level) => {
                *outer = Level::axis(outer.extent * level.extent, level.steps);
            }
            _ => merged.push(level),
        }
    }
    merged
}

/// The level whose iterations threads share: the first with plenty of pieces, else the one with the
/// most.
pub(super) fn shared(levels: &[Level]) -> usize {
    const PLENTY: i64 = 16;
    let plenty = levels.iter().position(|l| l.pieces() >= PLENTY);
    let most = (0..levels.len()).rev().max_by_key(|&i| levels[i].pieces());
    plenty.or(most).unwrap_or(0)
}

/// What is inside a nest: it gets the pointers and the sizes of the pieces.
pub(super) type Inside<'a> = dyn FnMut(&mut Builder, &[Value], &[i64]) + 'a;

/// Writes the loops. The body gets the pointers and, for every level, the size of the piece; it is
/// written once for each combination of whole and partial pieces. With `range`, that level's pieces
/// are the kernel's range, and its loop is the outermost.
pub(super) fn nest(
    b: &mut Builder,
    levels: &[Level],
    range: Option<usize>,
    pointers: &[Value],
    body: &mut Inside<'_>,
) {
    let rest = (0..levels.len()).filter(|&i| Some(i) != range);
    let order: Vec<usize> = range.into_iter().chain(rest).collect();
    let mut sizes = vec![1; levels.len()];
    descend(b, levels, &order, range.is_some(), pointers, &mut sizes, body);
}

fn descend(
    b: &mut Builder,
    levels: &[Level],
    order: &[usize],
    ranged: bool,
    pointers: &[Value],
    sizes: &mut Vec<i64>,
    body: &mut Inside<'_>,
) {
    let Some((&at, order)) = order.split_first() else {
        return body(b, pointers, sizes);
    };
    let level = &levels[at];
    let (whole, left) = (level.extent / level.size, level.extent % level.size);
    let by: Vec<i64> = level.steps.iter().map(|step| step * level.size).collect();
    let (begin, end) = (b.begin(), b.end());
    if whole > 0 {
        sizes[at] = level.size;
        if ranged {
            let to = if left > 0 { b.index(IndexOp::Min, end, whole) } else { end };
            b.each(begin, to, &[], |b, it| {
                let pointers = moved(b, pointers, it.index, &by);
                descend(b, levels, order, false, &pointers, sizes, body);
            });
        } else if whole == 1 {
            descend(b, levels, order, false, pointers, sizes, body);
        } else {
            advancing(b, whole, pointers, &by, &[], |b, pointers, _| {
                descend(b, levels, order, false, pointers, sizes, body);
                vec![]
            });
        }
    }
    if left > 0 {
        sizes[at] = left;
        let mut rest = |b: &mut Builder| {
            let pointers = moved(b, pointers, whole, &by);
            descend(b, levels, order, false, &pointers, sizes, body);
        };
        if ranged {
            let from = if whole > 0 { b.index(IndexOp::Max, begin, whole) } else { begin };
            b.each(from, end, &[], |b, _| rest(b));
        } else {
            rest(b);
        }
    }
}

/// `count` iterations in which each pointer advances by its step; those that stay are left alone.
pub(super) fn advancing(
    b: &mut Builder,
    count: i64,
    pointers: &[Value],
    by: &[i64],
    start: &[Value],
    body: impl FnOnce(&mut Builder, &[Value], &[Value]) -> Vec<Value>,
) -> Vec<Value> {
    let moving = pointers.iter().zip(by).filter(|&(_, &by)| by != 0);
    let moving: Vec<(Value, i64)> = moving.map(|(&p, &by)| (p, by)).collect();
    b.fold(0, count, &moving, start, |b, it| {
        let mut advanced = it.pointers.iter();
        let pick =
            |(&p, &by): (&Value, &i64)| if by == 0 { Some(p) } else { advanced.next().copied() };
        let pointers: Vec<Value> = pointers.iter().zip(by).filter_map(pick).collect();
        body(b, &pointers, it.carried)
    })
}

/// Each pointer, `index` steps further.
pub(super) fn moved(
    b: &mut Builder,
    pointers: &[Value],
    index: impl Into<crate::kir::Scalar>,
    by: &[i64],
) -> Vec<Value> {
    let index = index.into();
    let still = index == crate::kir::Scalar::Constant(0);
    let one = |(&p, &by): (&Value, &i64)| if by == 0 || still { p } else { b.offset(p, index, by) };
    pointers.iter().zip(by).map(one).collect()
}

/// Part of a row: its first element, and how many there are (at most a vector).
pub(super) type Part = (i64, u32);

/// What is inside a row: it gets the pointers, the carried values and the parts.
pub(super) type InRow<'a> = dyn FnMut(&mut Builder, &[Value], &[Value], &[Part]) -> Vec<Value> + 'a;

/// A row of `elements` in vectors, `unroll` of them in an iteration, and what is left as a last
/// partial iteration. The body gets the pointers, the carried values and the parts relative to the
/// pointers; `steps` are bytes from an element to the next.
pub(super) fn strips(
    b: &mut Builder,
    elements: i64,
    unroll: i64,
    pointers: &[Value],
    steps: &[i64],
    start: &[Value],
    body: &mut InRow<'_>,
) -> Vec<Value> {
    let strip = unroll * b.lanes();
    let (whole, left) = (elements / strip, elements % strip);
    let by: Vec<i64> = steps.iter().map(|step| step * strip).collect();
    let mut state = start.to_vec();
    if whole > 0 {
        let parts = parts(b, strip);
        state = match whole {
            1 => body(b, pointers, &state, &parts),
            _ => advancing(b, whole, pointers, &by, &state, |b, p, carried| {
                body(b, p, carried, &parts)
            }),
        };
    }
    if left > 0 {
        let parts = parts(b, left);
        let pointers = moved(b, pointers, whole, &by);
        state = body(b, &pointers, &state, &parts);
    }
    state
}

/// The vectors of a row.
pub(super) fn parts(b: &Builder, elements: i64) -> Vec<Part> {
    let lanes = b.lanes();
    let starts = (0..elements).step_by(lanes as usize);
    starts.map(|at| (at, lanes.min(elements - at) as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_merge() {
        let axis = |extent, steps: [i64; 2]| Level::axis(extent, steps.to_vec());
        let dense = [axis(2, [48, 96]), axis(1, [7, 7]), axis(3, [16, 32]), axis(4, [4, 8])];
        assert_eq!(merge(dense), [axis(24, [4, 8])]);
        let window = [axis(2, [48, 100]), axis(3, [16, 32])];
        assert_eq!(merge(window.clone()), window);
        assert_eq!(merge([axis(1, [4, 4])]), []);
    }
}
