//! Epilogues: what is done to sums before they are stored.
//!
//! A cheap one is applied to the sums where they are, in registers. A long one needs registers of its
//! own and takes its time: the sums of a tile are stored first, and then a few at a time are loaded
//! again from the first-level cache, finished in turn and stored.

use super::Frame;
use super::expr::{self, Body};
use super::nest::{self, Level, Part, nest};
use crate::kir::Value;
use crate::kir::build::Builder;

/// Expressions that cost more are applied to sums in memory.
const INLINE: i64 = 8;

/// An epilogue whose operand 0 is the sum, and operand n that of the kernel which is `first` further.
pub(super) struct Finish<'a> {
    /// The kernel's frame.
    pub frame: &'a Frame<'a>,
    /// The expression.
    pub body: &'a Body<'a>,
    /// From operands of the expression to those of the kernel.
    pub first: usize,
    /// Bytes from a column to the next, for every pointer.
    pub columns: &'a [i64],
}

impl Finish<'_> {
    /// Whether the expression is long, and the sums can wait in the result: it has their type, and
    /// nothing else that is read lies there.
    pub(super) fn is_apart(&self) -> bool {
        let mut operands = self.body.operands().into_iter().filter(|&n| n > 0);
        self.body.cost() > INLINE
            && self.body.dtype() == self.frame.result().dtype
            && operands.all(|n| !self.frame.in_place(n + self.first))
    }

    /// Applies the expression to the sums that are in the result: at all places of the levels, these
    /// parts of a row.
    pub(super) fn write(&self, b: &mut Builder, p: &[Value], levels: &[Level], parts: &[Part]) {
        let last = self.frame.inputs().len();
        let load = |b: &mut Builder, p: &[Value], n: usize, moved: i64, part: Part| {
            let dtype = self.frame.shapes[n].dtype;
            let splat = self.columns[n] == 0 && b.lanes() > 1;
            expr::load(b, dtype, p[n], moved + part.0 * self.columns[n], part.1, splat)
        };
        // What is the same in all rows is loaded once.
        let mut known: Vec<((usize, i64), Value)> = vec![];
        let operands = self.body.operands().into_iter().filter(|&n| n > 0);
        let shared = operands.map(|n| n + self.first);
        for n in shared.filter(|&n| levels.iter().all(|level| level.steps[n] == 0)) {
            for &part in parts {
                known.push(((n, part.0), load(b, p, n, 0, part)));
            }
        }
        let mut levels = nest::merge(levels.to_vec());
        let rows = levels.pop().unwrap_or_else(|| Level::unit(p.len()));
        let at_once = b.at_once();
        levels.push(rows.clone().in_pieces(at_once / parts.len() as i64));
        nest(b, &levels, None, p, &mut |b, p, sizes| {
            let count = sizes.last().copied().unwrap_or(1);
            let places = (0..count).flat_map(|row| parts.iter().map(move |&part| (row, part)));
            let places: Vec<(i64, Part)> = places.collect();
            for places in places.chunks(at_once as usize) {
                b.in_turn(places, |b, &(row, part)| {
                    let value = self.body.emit(b, &[], &mut |b, n| {
                        let n = if n == 0 { last } else { n + self.first };
                        let same = known.iter().find(|(key, _)| *key == (n, part.0));
                        match same {
                            Some(&(_, value)) => value,
                            None => load(b, p, n, row * rows.steps[n], part),
                        }
                    });
                    let at = row * rows.steps[last] + part.0 * self.columns[last];
                    let dtype = self.frame.result().dtype;
                    expr::store(b, dtype, value, p[last], at, part.1);
                });
            }
        });
    }
}
