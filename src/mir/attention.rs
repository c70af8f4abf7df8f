//! Attention: a product, a row program over its result and a product with that, a block of rows at a
//! time, so that what lies between never exists as a whole.

use super::{Binary, Expr, Reduction, Rows, Scalar, Stage, Unary};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// `rows(epilogue(Q K)) V`, with batch dimensions: operands Q `[batch.., M, D]`, K `[batch.., D, N]`
/// (a column for each key), V `[batch.., N, E]`, then those of the epilogue, broadcast to the scores
/// `[batch.., M, N]`; result `[batch.., M, E]`. All but the epilogue's operands are f32.
///
/// Sums are made in any order; a quotient by what is the same for a whole row may be taken after the
/// second product instead of before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attention {
    /// What is done to each score: `Scalar::Operand(0)` is the sum, `Operand(i)` the node's operand
    /// `i + 2`.
    pub epilogue: Option<Expr>,
    /// What is done to each row of scores, which are its only operand; not reduced at its end.
    pub rows: Rows,
    /// Which keys count for which queries: of a softmax that gives all others the weight 0, whatever the
    /// operands are. In order, and for all queries; or none, where all keys count for all. (What is not
    /// finite in a key or value that does not count need not show in the result.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<Span>,
}

/// Keys that count for some queries of every matrix.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Span {
    /// One more than the last query; the first one follows the last of the span before.
    pub queries: usize,
    /// The keys, of which there is at least one.
    pub keys: Range<usize>,
}

impl Attention {
    /// How many pairs of a query and a key count in a matrix of `queries` by `keys`.
    pub fn pairs(&self, queries: usize, keys: usize) -> usize {
        let mut first = 0;
        let of_span = |span: &Span| {
            let count = span.queries.saturating_sub(first);
            first = span.queries;
            count * span.keys.len()
        };
        if self.spans.is_empty() { queries * keys } else { self.spans.iter().map(of_span).sum() }
    }

    /// Leaves the spans of these queries, which are then all.
    pub fn narrow(&mut self, queries: Range<usize>) {
        let mut start = 0;
        let of_span = |span: Span| {
            let own = start.max(queries.start)..span.queries.min(queries.end);
            start = span.queries;
            let some = own.start < own.end;
            some.then(|| Span { queries: own.end - queries.start, keys: span.keys })
        };
        self.spans = std::mem::take(&mut self.spans).into_iter().filter_map(of_span).collect();
    }
}

impl Rows {
    /// Of a softmax of the only operand, what is done to an element and the largest one.
    pub fn softmax(&self) -> Option<&Expr> {
        use Scalar::Operand;
        let [max, exp, sum, last] = &self.stages[..] else { return None };
        let is = |stage: &Stage, reduce: Option<Reduction>, text: &[Scalar]| {
            stage.reduce == reduce && in_order(&stage.expr) == text
        };
        let differences = [
            Operand(0),
            Operand(1),
            Scalar::Binary(Binary::Sub, 0, 1),
            Scalar::Unary(Unary::Exp, 2),
        ];
        let quotients = [Operand(2), Operand(3), Scalar::Binary(Binary::Div, 0, 1)];
        let softmax = is(max, Some(Reduction::Max), &[Operand(0)])
            && is(exp, None, &differences)
            && is(sum, Some(Reduction::Sum), &[Operand(2)])
            && is(last, None, &quotients);
        softmax.then_some(&exp.expr)
    }
}

/// The nodes of an expression in the order in which its result needs them.
fn in_order(expr: &Expr) -> Vec<Scalar> {
    fn visit(expr: &Expr, node: u32, order: &mut Vec<u32>) {
        if !order.contains(&node) {
            expr.nodes[node as usize].args().into_iter().for_each(|arg| visit(expr, arg, order));
            order.push(node);
        }
    }
    let mut order = vec![];
    visit(expr, expr.nodes.len() as u32 - 1, &mut order);
    let place = |arg: u32| order.iter().position(|&node| node == arg).unwrap_or(0) as u32;
    order.iter().map(|&node| expr.nodes[node as usize].with_args(place)).collect()
}

/// How the work is cut into shares, each with working memory of its own, and what that holds. It
/// follows from the dimensions alone: the arena's size depends on it.
///
/// A piece of the work are some blocks of queries of one matrix of the batch; a share is some pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// How many there are; they may be computed side by side.
    pub count: usize,
    /// Pieces of a share (the last one may have fewer).
    pub pieces: usize,
    /// Blocks of a piece (the last one of a matrix may have fewer).
    pub blocks: usize,
    /// Queries of a block (the last one of a matrix may have fewer).
    pub queries: usize,
    /// Elements from the scores of a query to those of the next.
    pub row: usize,
    /// Elements for the keys of one matrix, when they are brought into another order.
    pub keys: usize,
}

/// At most so many shares: more would take more working memory, fewer would leave threads idle.
const SHARES: usize = 8;
/// Scores of a block, unless that would be too few queries or needlessly many.
const SCORES: usize = 4096;
/// With fewer queries, keys are read where they lie.
const FEW_QUERIES: usize = 8;
/// Elements of a line of the cache.
const LINE: usize = 16;

impl Shares {
    /// A panel of keys has so many columns, or a part of them that divides them.
    pub const PANEL: usize = 32;

    /// For so many matrices of `queries` by `keys` with a depth of `depth`.
    pub fn new(matrices: usize, queries: usize, keys: usize, depth: usize) -> Shares {
        let even = |all: usize, most: usize| {
            let parts = all.div_ceil(most.max(1)).max(1);
            all.div_ceil(parts).max(1)
        };
        let block = even(queries, (SCORES / keys.max(1)).clamp(16, 64));
        let blocks = queries.div_ceil(block).max(1);
        // Few matrices are cut, but not so finely that ordering the keys costs more than it gains.
        let cuts = SHARES.div_ceil(matrices.max(1)).min(queries.div_ceil(64)).max(1);
        let blocks_of_piece = if matrices >= 8 { blocks } else { blocks.div_ceil(cuts) };
        let pieces = matrices * blocks.div_ceil(blocks_of_piece);
        let pieces_of_share = pieces.div_ceil(SHARES).max(1);
        Shares {
            count: pieces.div_ceil(pieces_of_share),
            pieces: pieces_of_share,
            blocks: blocks_of_piece,
            queries: block,
            // Not a power of two: rows that lie so far apart meet in the same lines of the cache.
            row: keys.next_multiple_of(LINE) + LINE,
            keys: if queries > FEW_QUERIES {
                keys.next_multiple_of(Shares::PANEL) * depth
            } else {
                0
            },
        }
    }

    /// For operands Q and K of these dimensions.
    pub fn of(q: &[usize], k: &[usize]) -> Shares {
        let rank = q.len();
        Shares::new(q[..rank - 2].iter().product(), q[rank - 2], k[rank - 1], q[rank - 1])
    }

    /// Elements of working memory of a share: the keys, the scores of a block, and a number for each
    /// of its queries.
    pub fn elements(&self) -> usize {
        (self.keys.next_multiple_of(LINE) + self.queries * (self.row + 1)).next_multiple_of(LINE)
    }

    /// Where in a share's memory the scores begin.
    pub fn scores(&self) -> usize {
        self.keys.next_multiple_of(LINE)
    }

    /// Where in a share's memory the numbers of the queries begin.
    pub fn totals(&self) -> usize {
        self.scores() + self.queries * self.row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_some_queries() {
        let span = |queries: usize, keys: Range<usize>| Span { queries, keys };
        let rows = Rows { stages: vec![], width: 9 };
        let spans = vec![span(3, 0..3), span(6, 2..6), span(9, 4..9)];
        let all = Attention { epilogue: None, rows, spans };
        assert_eq!(all.pairs(9, 9), 9 + 12 + 15);
        let narrowed = |queries: Range<usize>| {
            let mut some = all.clone();
            some.narrow(queries);
            some.spans
        };
        assert_eq!(narrowed(0..9), all.spans);
        assert_eq!(narrowed(2..7), [span(1, 0..3), span(4, 2..6), span(5, 4..9)]);
        assert_eq!(narrowed(3..6), [span(3, 2..6)]);
        assert_eq!(narrowed(7..8), [span(1, 4..9)]);
    }

    #[test]
    fn shares_cover_the_work() {
        for matrices in [1, 2, 3, 8, 12, 17, 100] {
            for queries in [1, 7, 9, 64, 100, 197, 4096] {
                for keys in [1, 7, 64, 197, 5000] {
                    let shares = Shares::new(matrices, queries, keys, 33);
                    let blocks = queries.div_ceil(shares.queries);
                    let pieces = matrices * blocks.div_ceil(shares.blocks);
                    assert!(shares.count * shares.pieces >= pieces, "{shares:?}");
                    assert!((shares.count - 1) * shares.pieces < pieces, "{shares:?}");
                    assert!(shares.count <= SHARES && shares.row >= keys, "{shares:?}");
                    assert!(shares.queries <= queries, "{shares:?}");
                }
            }
        }
    }
}
