//! Loop nests over the axes of tensors, for as many pointers as a kernel has.

use crate::kir::build::Builder;
use crate::kir::{IndexOp, Scalar, Value};

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

/// What threads share of a nest: the pieces of its outermost levels, counted through in their order.
///
/// The order is that of memory, so that a thread that gets the first half of every step reads what it
/// has written itself: what another core has written is far away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shares {
    /// So many levels.
    levels: usize,
    /// Whether the last of them is looped over outside of the one before.
    turned: bool,
}

impl Shares {
    /// As many levels as give plenty of pieces.
    pub(super) fn of(levels: &[Level]) -> Shares {
        const PLENTY: i64 = 32;
        let mut pieces = 1;
        let plenty = levels.iter().position(|level| {
            pieces *= level.pieces();
            pieces >= PLENTY
        });
        Shares { levels: plenty.map_or(levels.len(), |last| last + 1), turned: false }
    }

    /// The same, with the loop over the last level outside of that over the one before, where both are
    /// shared.
    pub(super) fn turned(self, levels: &[Level]) -> Shares {
        let last = levels.last().is_some_and(|level| level.pieces() > 1);
        Shares { turned: last && self.levels == levels.len() && self.levels > 1, ..self }
    }

    /// The pieces of an iteration of a level: those of the shared levels inside of it.
    pub(super) fn inner(self, levels: &[Level], at: usize) -> i64 {
        let inside = levels.get(at + 1..self.levels).unwrap_or_default();
        inside.iter().map(Level::pieces).product::<i64>().max(1)
    }

    /// The pieces that the kernel is called for.
    pub(super) fn span(self, b: &Builder) -> Span {
        Span { shares: self, begin: b.begin(), end: b.end() }
    }

    /// How many pieces there are: the extent of the kernel's range.
    pub(super) fn extent(self, levels: &[Level]) -> i64 {
        levels[..self.levels].iter().map(Level::pieces).product()
    }
}

/// What is inside a nest: it gets the pointers and the sizes of the pieces.
pub(super) type Inside<'a> = dyn FnMut(&mut Builder, &[Value], &[i64]) + 'a;

/// Writes the loops. The body gets the pointers and, for every level, the size of the piece; it is
/// written once for each combination of whole and partial pieces. With `shares`, the kernel's range
/// says which pieces.
pub(super) fn nest(
    b: &mut Builder,
    levels: &[Level],
    shares: Option<Shares>,
    pointers: &[Value],
    body: &mut Inside<'_>,
) {
    let mut order: Vec<usize> = (0..levels.len()).collect();
    let mut span = None;
    if let Some(shares) = shares.filter(|shares| shares.levels > 0) {
        if shares.turned {
            order.swap(shares.levels - 2, shares.levels - 1);
        }
        span = Some(shares.span(b));
    }
    let mut sizes = vec![1; levels.len()];
    descend(b, levels, &order, span, pointers, &mut sizes, body);
}

/// Pieces `begin..end` of those that are left of what is shared.
#[derive(Clone, Copy)]
pub(super) struct Span {
    shares: Shares,
    begin: Value,
    end: Value,
}

impl Span {
    /// The iterations of a level of which each is `inner` pieces, not all of which need be in the span.
    pub(super) fn iterations(self, b: &mut Builder, inner: i64) -> (Value, Value) {
        if inner == 1 {
            return (self.begin, self.end);
        }
        let first = b.index(IndexOp::Div, self.begin, inner);
        let end = b.index(IndexOp::Add, self.end, inner - 1);
        (first, b.index(IndexOp::Div, end, inner))
    }

    /// The span within an iteration of these.
    pub(super) fn within(self, b: &mut Builder, iteration: Scalar, inner: i64) -> Option<Span> {
        if inner == 1 {
            return None;
        }
        let before = match iteration {
            Scalar::Constant(iteration) => Scalar::Constant(-iteration * inner),
            Scalar::Value(iteration) => b.index(IndexOp::Mul, iteration, -inner).into(),
        };
        let begin = b.index(IndexOp::Add, self.begin, before);
        let end = b.index(IndexOp::Add, self.end, before);
        let [begin, end] = [begin, end].map(|at| b.index(IndexOp::Max, at, 0));
        Some(Span { begin, end: b.index(IndexOp::Min, end, inner), ..self })
    }

    /// The iterations of the last level but one, outside of which is the loop over the last: of each
    /// `inner` pieces the one at `iteration`.
    fn across(self, b: &mut Builder, iteration: Scalar, inner: i64) -> Span {
        let mut first_behind = |of: Value| {
            let of = match iteration {
                Scalar::Constant(iteration) => b.index(IndexOp::Add, of, inner - 1 - iteration),
                Scalar::Value(iteration) => {
                    let before = b.index(IndexOp::Mul, iteration, -1);
                    let before = b.index(IndexOp::Add, before, inner - 1);
                    b.index(IndexOp::Add, of, before)
                }
            };
            b.index(IndexOp::Div, of, inner)
        };
        Span { begin: first_behind(self.begin), end: first_behind(self.end), ..self }
    }
}

fn descend(
    b: &mut Builder,
    levels: &[Level],
    order: &[usize],
    span: Option<Span>,
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
    let last = |span: Span| span.shares.levels - 1;
    // Of a turned pair: the outer loop, which is not cut, and the inner one, which is.
    let outer = span.filter(|&span| span.shares.turned && at == last(span));
    let inner = |span: Span| match span.shares.turned && at + 1 == last(span) {
        true => 1,
        false => span.shares.inner(levels, at),
    };
    // What is left of the span for the levels inside.
    let rest = |b: &mut Builder, iteration: Scalar| match (span, outer) {
        (_, Some(span)) => Some(span.across(b, iteration, level.pieces())),
        (Some(span), None) => span.within(b, iteration, inner(span)),
        (None, None) => None,
    };
    let cut = span.filter(|_| outer.is_none()).map(|span| span.iterations(b, inner(span)));
    if whole > 0 {
        sizes[at] = level.size;
        if let Some((from, to)) = cut {
            let to = if left > 0 { b.index(IndexOp::Min, to, whole) } else { to };
            b.each(from, to, &[], |b, it| {
                let pointers = moved(b, pointers, it.index, &by);
                let rest = rest(b, it.index.into());
                descend(b, levels, order, rest, &pointers, sizes, body);
            });
        } else if whole == 1 {
            let rest = rest(b, Scalar::Constant(0));
            descend(b, levels, order, rest, pointers, sizes, body);
        } else if outer.is_some() {
            b.each(0, whole, &[], |b, it| {
                let pointers = moved(b, pointers, it.index, &by);
                let rest = rest(b, it.index.into());
                descend(b, levels, order, rest, &pointers, sizes, body);
            });
        } else {
            advancing(b, whole, pointers, &by, &[], |b, pointers, _| {
                descend(b, levels, order, None, pointers, sizes, body);
                vec![]
            });
        }
    }
    if left > 0 {
        sizes[at] = left;
        let mut last = |b: &mut Builder| {
            let pointers = moved(b, pointers, whole, &by);
            let rest = rest(b, Scalar::Constant(whole));
            descend(b, levels, order, rest, &pointers, sizes, body);
        };
        if let Some((from, to)) = cut {
            let from = if whole > 0 { b.index(IndexOp::Max, from, whole) } else { from };
            b.each(from, to, &[], |b, _| last(b));
        } else {
            last(b);
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
    index: impl Into<Scalar>,
    by: &[i64],
) -> Vec<Value> {
    let index = index.into();
    let still = index == Scalar::Constant(0);
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
