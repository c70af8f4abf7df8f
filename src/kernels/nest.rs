//! Loop nests over the axes of tensors, for as many pointers as a kernel has.

use crate::kir::build::Builder;
use crate::kir::{IndexOp, Scalar, Value};

/// A loop over an axis, in pieces of `size`; the last piece may be smaller, or the last ones by 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Level {
    /// How long the axis is.
    pub extent: i64,
    /// How long a piece is.
    pub size: i64,
    /// Bytes from an element to the next, for every pointer.
    pub steps: Vec<i64>,
    /// Whether all pieces are as long as each other, or longer by 1; no level that threads share is.
    pub even: bool,
}

impl Level {
    /// A loop over single elements.
    pub(super) fn axis(extent: i64, steps: Vec<i64>) -> Level {
        Level { extent, size: 1, steps, even: false }
    }

    /// The axis that is not there.
    pub(super) fn unit(pointers: usize) -> Level {
        Level::axis(1, vec![0; pointers])
    }

    /// The same in pieces of at most `size`.
    pub(super) fn in_pieces(self, size: i64) -> Level {
        Level { size: size.clamp(1, self.extent.max(1)), ..self }
    }

    /// The same in as many pieces as if they were of `most`, but of even sizes.
    pub(super) fn in_even_pieces(self, most: i64) -> Level {
        let pieces = self.clone().in_pieces(most).pieces();
        let size = (self.extent + pieces - 1) / pieces.max(1);
        Level { even: true, ..self.in_pieces(size) }
    }

    /// How many pieces there are of which sizes, in order.
    pub(super) fn groups(&self) -> [(i64, i64); 2] {
        let (whole, left) = (self.extent / self.size, self.extent % self.size);
        if self.even {
            let pieces = self.pieces();
            let long = self.extent - (self.size - 1) * pieces;
            return [(long, self.size), (pieces - long, self.size - 1)];
        }
        [(whole, self.size), (i64::from(left > 0), left)]
    }

    /// How many pieces there are.
    pub(super) fn pieces(&self) -> i64 {
        (self.extent + self.size - 1) / self.size
    }

    /// Whether `inner`, an iteration of this, continues it: both are one longer axis.
    pub(super) fn continues(&self, inner: &Level) -> bool {
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

/// What threads share of a nest: the pieces of some of its levels, counted through.
///
/// The order of the count is that of the results' rows, whatever the order of the loops is: a thread
/// that gets the first part of every step reads what it has written itself. What another core has
/// written, or only read, is far away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shares {
    /// The first counts slowest.
    levels: Vec<Counted>,
    extent: i64,
}

/// A level that is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Counted {
    level: usize,
    pieces: i64,
    /// How many counts an iteration is.
    counts: i64,
}

impl Shares {
    /// As many of the outermost levels as give plenty of pieces.
    pub(super) fn of(levels: &[Level]) -> Shares {
        Shares::counting(levels, 0..levels.len())
    }

    /// As many levels, in this order, as give plenty of pieces.
    pub(super) fn counting(levels: &[Level], order: impl IntoIterator<Item = usize>) -> Shares {
        const PLENTY: i64 = 32;
        let mut shares = Shares { levels: vec![], extent: 1 };
        for at in order {
            if shares.extent >= PLENTY {
                break;
            }
            let pieces = levels[at].pieces();
            shares.levels.iter_mut().for_each(|outer| outer.counts *= pieces);
            shares.levels.push(Counted { level: at, pieces, counts: 1 });
            shares.extent *= pieces;
        }
        shares
    }

    /// How many pieces there are: the extent of the kernel's range.
    pub(super) fn extent(&self) -> i64 {
        self.extent
    }

    /// The pieces that the kernel is called for.
    pub(super) fn span(self, b: &Builder) -> Option<Span> {
        let Shares { levels, extent } = self;
        (extent > 0).then(|| Span { begin: b.begin(), end: b.end(), levels, most: extent })
    }
}

/// Pieces `begin..end` of those of some levels, the loops over which are still to be written.
#[derive(Clone, Debug)]
pub(super) struct Span {
    begin: Value,
    end: Value,
    /// As in [`Shares`].
    levels: Vec<Counted>,
    /// One more than the largest count of a piece.
    most: i64,
}

impl Span {
    /// Whether pieces of the level `at` are counted.
    fn counts(&self, at: usize) -> bool {
        self.levels.iter().any(|counted| counted.level == at)
    }

    /// The iterations of the level `at` that may have pieces in the span; `None` where that is all.
    pub(super) fn iterations(&self, b: &mut Builder, at: usize) -> Option<(Value, Value)> {
        let counts = self.levels.first().filter(|first| first.level == at)?.counts;
        // Of the last piece of an iteration, relative to its first.
        let last = (self.most - 1) % counts;
        let mut up = |of: Value, more: i64| {
            let of = if more == 0 { of } else { b.index(IndexOp::Add, of, more) };
            let of = if counts > 1 { b.index(IndexOp::Max, of, 0) } else { of };
            if counts > 1 { b.index(IndexOp::Div, of, counts) } else { of }
        };
        Some((up(self.begin, counts - 1 - last), up(self.end, counts - 1)))
    }

    /// The span within an iteration of the level `at`, for the levels inside; `None` when all of their
    /// pieces are in it.
    pub(super) fn within(&self, b: &mut Builder, at: usize, iteration: Scalar) -> Option<Span> {
        let Some(place) = self.levels.iter().position(|counted| counted.level == at) else {
            return Some(self.clone());
        };
        let mut levels = self.levels.clone();
        let Counted { pieces, counts, .. } = levels.remove(place);
        if levels.is_empty() {
            return None;
        }
        let before = match iteration {
            Scalar::Constant(iteration) => Scalar::Constant(-iteration * counts),
            Scalar::Value(iteration) => b.index(IndexOp::Mul, iteration, -counts).into(),
        };
        let [mut begin, mut end] = [self.begin, self.end];
        if before != Scalar::Constant(0) {
            [begin, end] = [begin, end].map(|of| b.index(IndexOp::Add, of, before));
        }
        let mut most = self.most;
        if place == 0 {
            most = (most - 1) % counts + 1;
            begin = b.index(IndexOp::Max, begin, 0);
            end = b.index(IndexOp::Min, end, most);
        } else {
            most -= (pieces - 1) * counts;
        }
        Some(Span { begin, end, levels, most })
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
    let span = shares.and_then(|shares| shares.span(b));
    descend(b, levels, span, pointers, &mut vec![], body);
}

fn descend(
    b: &mut Builder,
    levels: &[Level],
    span: Option<Span>,
    pointers: &[Value],
    sizes: &mut Vec<i64>,
    body: &mut Inside<'_>,
) {
    let at = sizes.len();
    let Some(level) = levels.get(at) else {
        return body(b, pointers, sizes);
    };
    if level.even {
        let mut start = 0;
        for (count, size) in level.groups().into_iter().filter(|&(count, size)| count * size > 0) {
            sizes.push(size);
            let by: Vec<i64> = level.steps.iter().map(|step| step * size).collect();
            let pointers = moved(b, pointers, start, &level.steps);
            if count == 1 {
                descend(b, levels, span.clone(), &pointers, sizes, body);
            } else {
                advancing(b, count, &pointers, &by, &[], |b, pointers, _| {
                    descend(b, levels, span.clone(), pointers, sizes, body);
                    vec![]
                });
            }
            sizes.pop();
            start += count * size;
        }
        return;
    }
    let (whole, left) = (level.extent / level.size, level.extent % level.size);
    let by: Vec<i64> = level.steps.iter().map(|step| step * level.size).collect();
    let cut = span.as_ref().and_then(|span| span.iterations(b, at));
    let within = |b: &mut Builder, iteration: Scalar| span.as_ref()?.within(b, at, iteration);
    if whole > 0 {
        sizes.push(level.size);
        if let Some((from, to)) = cut {
            let to = if left > 0 { b.index(IndexOp::Min, to, whole) } else { to };
            b.each(from, to, &[], |b, it| {
                let pointers = moved(b, pointers, it.index, &by);
                let span = within(b, it.index.into());
                descend(b, levels, span, &pointers, sizes, body);
            });
        } else if whole == 1 {
            let span = within(b, Scalar::Constant(0));
            descend(b, levels, span, pointers, sizes, body);
        } else if span.as_ref().is_some_and(|span| span.counts(at)) {
            b.each(0, whole, &[], |b, it| {
                let pointers = moved(b, pointers, it.index, &by);
                let span = within(b, it.index.into());
                descend(b, levels, span, &pointers, sizes, body);
            });
        } else {
            advancing(b, whole, pointers, &by, &[], |b, pointers, _| {
                descend(b, levels, span.clone(), pointers, sizes, body);
                vec![]
            });
        }
        sizes.pop();
    }
    if left > 0 {
        sizes.push(left);
        let mut last = |b: &mut Builder| {
            let pointers = moved(b, pointers, whole, &by);
            let span = within(b, Scalar::Constant(whole));
            descend(b, levels, span, &pointers, sizes, body);
        };
        if let Some((from, to)) = cut {
            let from = if whole > 0 { b.index(IndexOp::Max, from, whole) } else { from };
            b.each(from, to, &[], |b, _| last(b));
        } else {
            last(b);
        }
        sizes.pop();
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

    #[test]
    fn pieces_are_even() {
        let groups = |extent, most| Level::axis(extent, vec![4]).in_even_pieces(most).groups();
        assert_eq!(groups(49, 4), [(10, 4), (3, 3)]);
        assert_eq!(groups(56, 6), [(6, 6), (4, 5)]);
        assert_eq!(groups(12, 6), [(2, 6), (0, 5)]);
        assert_eq!(groups(5, 9), [(1, 5), (0, 4)]);
        assert_eq!(groups(3, 1), [(3, 1), (0, 0)]);
        for (extent, most) in [(1, 1), (7, 3), (100, 7), (13, 12), (10_007, 64)] {
            let [(long, size), (short, less)] = groups(extent, most);
            assert!(size <= most && long > 0 && short >= 0);
            assert_eq!(long * size + short * less, extent);
        }
    }
}
