//! Attention: the kernels of its parts, one behind the other over a block of queries, with what lies
//! between in working memory that stays in the cache.
//!
//! The scores of a block are a product whose epilogue scales and masks them, the rows become weights
//! in place, and the weights times the values are a product again. Keys that lie in rows, as a
//! projection or a cache has them, are brought into panels once for all queries of a matrix; for few
//! queries they are read in place, in squares that are transposed in registers.
//!
//! Of a softmax, the second product's results are multiplied by the inverse of their row's sum: there are fewer of
//! them than weights. A row with a NaN, or with nothing but negative infinities, has a NaN as its sum, and so becomes
//! NaN as a whole.

use super::contract::Block;
use super::expr::{self, Body};
use super::nest::{self, Level, moved, nest, strips};
use super::rows::Program;
use super::{Frame, KernelPlan, Shape};
use crate::error::ErrorKind;
use crate::kir::build::Builder;
use crate::kir::{self, IndexOp, Scalar, Value};
use crate::lir::{Attention, Binary, Expr, Shares, Span};
use crate::types::DType;
use std::ops::Range;

/// Bytes of an element of what is multiplied.
const SIZE: i64 = 4;

/// The kernel, or `None` where the accesses or the types are not for vectors.
pub(super) fn kernel(
    frame: &Frame<'_>,
    attention: &Attention,
) -> Result<Option<KernelPlan>, ErrorKind> {
    let layout = Layout::new(frame)?;
    let Some(panel) = layout.panel(frame) else { return Ok(None) };
    let softmax = attention.rows.softmax();
    let working = |dims: Vec<i64>, strides: Vec<i64>| Shape {
        dtype: DType::F32,
        dims,
        strides,
        first: 0,
        bytes: 0,
    };
    let scores = working(vec![], vec![]);
    let part = |shapes: Vec<Shape>, in_place: bool| {
        let in_place = vec![in_place; shapes.len()];
        Frame {
            name: frame.name,
            machine: frame.machine,
            shapes,
            in_place,
            scratch: false,
            in_order: false,
        }
    };
    let [q, k, v, extra @ ..] = frame.inputs() else { return Err(operands()) };
    let first = [q, k].into_iter().chain(extra).chain([&scores]).cloned().collect();
    let totals = softmax.is_some().then(|| scores.clone());
    let second = [scores.clone(), v.clone()].into_iter().chain(totals);
    let second = second.chain([frame.result().clone()]).collect();
    let row = working(vec![layout.keys], vec![SIZE]);
    let frames = [part(first, false), part(second, false), part(vec![row.clone(), row], true)];
    let identity = Expr::identity();
    let mut scaled = Expr::new();
    let (sum, inverse) = (scaled.operand(0), scaled.operand(1));
    scaled.binary(Binary::Mul, sum, inverse);

    let program = match softmax {
        Some(exp) => {
            let mut exp = Body::new(exp, &[DType::F32; 2])?;
            exp.know_largest(|largest, of| (largest, of) == (1, 0));
            Weights::Softmax(exp)
        }
        None => {
            let program = Program::new(&frames[2], &attention.rows)?;
            if frame.machine.lanes > 1 && !program.fits_vectors(&frames[2]) {
                return Ok(None);
            }
            Weights::Program(&frames[2], program)
        }
    };
    let epilogues = [
        attention.epilogue.as_ref().unwrap_or(&identity),
        if softmax.is_some() { &scaled } else { &identity },
    ];
    let mut blocks = vec![];
    for (queries, from, to, keys) in layout.blocks(&attention.spans) {
        let extents = [queries, keys.end - keys.start];
        let [first, second] = layout.products(frame, extents, panel, softmax.is_some());
        let first = Block::new(&frames[0], first, panel, epilogues[0])?;
        let second = Block::new(&frames[1], second, None, epilogues[1])?;
        let (Some(scores), Some(results)) = (first, second) else { return Ok(None) };
        blocks.push(Queries { count: queries, from, to, keys, scores, results });
    }
    let writer = Writer { frame, layout, panel, program, blocks };
    Ok(Some(writer.write()))
}

fn operands() -> ErrorKind {
    ErrorKind::bug("attention has three operands and a scratch")
}

/// Extents, and how the work is cut.
struct Layout {
    shares: Shares,
    queries: i64,
    keys: i64,
    depth: i64,
    /// Columns of the values.
    width: i64,
    /// Bytes from a query's scores to the next one's.
    row: i64,
    /// The batch, with steps for all shapes of the frame.
    batch: Vec<Level>,
}

impl Layout {
    fn new(frame: &Frame<'_>) -> Result<Layout, ErrorKind> {
        let [q, k, v, ..] = frame.inputs() else { return Err(operands()) };
        let rank = q.dims.len();
        let dims = |shape: &Shape| shape.dims.iter().map(|&d| d as usize).collect::<Vec<_>>();
        let shares = Shares::of(&dims(q), &dims(k));
        let scratch = frame.shapes.len() - 2;
        let batch = (0..rank - 2).map(|axis| {
            let steps = frame.shapes().enumerate();
            let steps = steps.map(|(i, s)| if i == scratch { 0 } else { s.strides[axis] });
            Level::axis(q.dims[axis], steps.collect())
        });
        Ok(Layout {
            shares,
            queries: q.dims[rank - 2],
            keys: k.dims[rank - 1],
            depth: q.dims[rank - 1],
            width: v.dims[rank - 1],
            row: shares.row as i64 * SIZE,
            batch: nest::merge(batch),
        })
    }

    /// Columns of a panel of keys, if they are brought into panels; `None` where they lie in no way
    /// that vectors can read.
    fn panel(&self, frame: &Frame<'_>) -> Option<Option<i64>> {
        let k = &frame.inputs()[1];
        let vectors = frame.lanes() > 1;
        if !vectors || self.keys == 1 || k.stride(-1) == SIZE {
            return Some(None);
        }
        if self.depth > 1 && k.stride(-2) != SIZE {
            return None;
        }
        if self.shares.keys == 0 && self.depth > 1 {
            return Some(None);
        }
        let (queries, keys) = (self.shares.queries, self.keys as usize);
        let distance = frame.inputs()[0].stride(-2).unsigned_abs();
        let tile = frame.machine.tile(queries, keys, distance).vectors as i64;
        let mut width = Shares::PANEL as i64;
        while width > tile * frame.lanes() {
            width /= 2;
        }
        (self.shares.keys > 0).then_some(Some(width))
    }

    /// Blocks of as many queries as each other and for the same keys: how many queries a block has, the
    /// first block and the one behind the last, and the keys.
    fn blocks(&self, spans: &[Span]) -> Vec<(i64, i64, i64, Range<i64>)> {
        let (block, panel) = (self.shares.queries as i64, Shares::PANEL as i64);
        let (whole, rest) = (self.queries / block, self.queries % block);
        // Keys of the queries in these blocks, from the start of a panel to that of another, or the end.
        let keys = |blocks: &Range<i64>| -> Range<i64> {
            let queries = blocks.start * block..blocks.end * block;
            let mut first = 0;
            let seen = spans.iter().filter_map(|span| {
                let own = first..span.queries as i64;
                first = own.end;
                (own.start < queries.end && queries.start < own.end).then_some(&span.keys)
            });
            let seen = seen.fold(None, |all: Option<Range<usize>>, keys| match all {
                Some(all) => Some(all.start.min(keys.start)..all.end.max(keys.end)),
                None => Some(keys.clone()),
            });
            let seen = seen.map_or(0..self.keys, |keys| keys.start as i64..keys.end as i64);
            let end = (seen.end + panel - 1) / panel * panel;
            seen.start / panel * panel..end.min(self.keys)
        };
        let mut all: Vec<(i64, i64, i64, Range<i64>)> = vec![];
        for at in 0..whole + i64::from(rest > 0) {
            let (count, keys) = (if at < whole { block } else { rest }, keys(&(at..at + 1)));
            match all.last_mut() {
                Some((queries, _, to, same)) if *queries == count && *same == keys => *to = at + 1,
                _ => all.push((count, at, at + 1, keys)),
            }
        }
        all
    }

    /// The levels of both products for so many queries and keys.
    fn products(
        &self,
        frame: &Frame<'_>,
        [queries, keys]: [i64; 2],
        panel: Option<i64>,
        totals: bool,
    ) -> [[Level; 3]; 2] {
        let (inputs, result) = (frame.inputs(), frame.result());
        let [q, k, v] = [0, 1, 2].map(|i| &inputs[i]);
        let first = |q: i64, k: i64, axis: isize, scores: i64| -> Vec<i64> {
            let extra = inputs[3..].iter().map(|shape| shape.stride(axis));
            [q, k].into_iter().chain(extra).chain([scores]).collect()
        };
        // Bytes from a key to the next, and from an element of it.
        let (key, element) = match panel {
            Some(width) => (self.depth * SIZE, width * SIZE),
            None => (k.stride(-1), k.stride(-2)),
        };
        let second = |scores: i64, v: i64, total: i64, result: i64| -> Vec<i64> {
            [scores, v].into_iter().chain(totals.then_some(total)).chain([result]).collect()
        };
        [
            [
                Level::axis(queries, first(q.stride(-2), 0, -2, self.row)),
                Level::axis(keys, first(0, key, -1, SIZE)),
                Level::axis(self.depth, vec![q.stride(-1), element]),
            ],
            [
                Level::axis(queries, second(self.row, 0, SIZE, result.stride(-2))),
                Level::axis(self.width, second(0, v.stride(-1), 0, result.stride(-1))),
                Level::axis(keys, vec![SIZE, v.stride(-2)]),
            ],
        ]
    }
}

/// How scores become weights.
enum Weights<'a> {
    /// `exp` of them less the largest; the inverse of their sum scales the results.
    Softmax(Body<'a>),
    /// By a program over a row that lies as the frame says.
    Program(&'a Frame<'a>, Program<'a>),
}

/// Blocks `from..to` of `count` queries each, for which these keys count.
struct Queries<'a> {
    count: i64,
    from: i64,
    to: i64,
    keys: Range<i64>,
    scores: Block<'a>,
    results: Block<'a>,
}

struct Writer<'a> {
    frame: &'a Frame<'a>,
    layout: Layout,
    panel: Option<i64>,
    program: Weights<'a>,
    /// All blocks, in order.
    blocks: Vec<Queries<'a>>,
}

impl Writer<'_> {
    fn write(&self) -> KernelPlan {
        let Layout { shares, depth, width, .. } = self.layout;
        let matrices: i64 = self.layout.batch.iter().map(|level| level.extent).product();
        let (mut b, pointers) = self.frame.open(shares.count as i64);
        let parts = self.parts();
        let (begin, end) = (b.begin(), b.end());
        let scratch = pointers.len() - 2;
        b.each(begin, end, &[], |b, it| {
            let mut p = pointers.clone();
            p[scratch] = b.offset(p[scratch], it.index, shares.elements() as i64 * SIZE);
            if shares.pieces == 1 {
                return self.piece(b, &p, it.index, parts);
            }
            let from = b.index(IndexOp::Mul, it.index, shares.pieces as i64);
            let to = b.index(IndexOp::Add, from, shares.pieces as i64);
            let to = b.index(IndexOp::Min, to, matrices * parts);
            b.each(from, to, &[], |b, it| self.piece(b, &p, it.index, parts));
        });
        // An exponential is worth some ten multiplications.
        let pairs =
            self.blocks.iter().map(|q| q.count * (q.to - q.from) * (q.keys.end - q.keys.start));
        self.frame.close(b, matrices * pairs.sum::<i64>() * (depth + width + 20) / 2)
    }

    /// Pieces of a matrix.
    fn parts(&self) -> i64 {
        let blocks = self.layout.shares.blocks as i64;
        (self.blocks_of_matrix() + blocks - 1) / blocks
    }

    fn blocks_of_matrix(&self) -> i64 {
        let block = self.layout.shares.queries as i64;
        (self.layout.queries + block - 1) / block
    }

    /// A piece of the work, of which there are `parts` for each matrix.
    fn piece(&self, b: &mut Builder, p: &[Value], piece: Value, parts: i64) {
        let shares = &self.layout.shares;
        let all = self.blocks_of_matrix();
        let (mut matrix, mut span) = (piece, None);
        if parts > 1 {
            matrix = b.index(IndexOp::Div, piece, parts);
            let part = b.index(IndexOp::Rem, piece, parts);
            let from = b.index(IndexOp::Mul, part, shares.blocks as i64);
            let to = b.index(IndexOp::Add, from, shares.blocks as i64);
            span = Some((from, b.index(IndexOp::Min, to, all)));
        }
        let mut p = p.to_vec();
        for (i, level) in self.layout.batch.iter().enumerate().rev() {
            let index = match i {
                0 => matrix,
                _ => b.index(IndexOp::Rem, matrix, level.extent),
            };
            p = moved(b, &p, index, &level.steps);
            if i > 0 {
                matrix = b.index(IndexOp::Div, matrix, level.extent);
            }
        }
        if let Some(width) = self.panel {
            self.order_keys(b, p[1], p[p.len() - 2], width);
        }
        let steps: Vec<i64> = self.frame.shapes().map(|shape| shape.stride(-2)).collect();
        let block = shares.queries as i64;
        let by =
            |i: usize| if matches!(i, 1 | 2) || i == p.len() - 2 { 0 } else { steps[i] * block };
        let by: Vec<i64> = (0..p.len()).map(by).collect();
        for queries in &self.blocks {
            let (from, to) = (queries.from, queries.to);
            let (from, to) = match span {
                None if from + 1 == to => {
                    let p = moved(b, &p, from, &by);
                    self.queries(b, &p, queries);
                    continue;
                }
                None => (Scalar::Constant(from), Scalar::Constant(to)),
                Some((first, last)) => {
                    let from = b.index(IndexOp::Max, first, from);
                    (from.into(), b.index(IndexOp::Min, last, to).into())
                }
            };
            b.each(from, to, &[], |b, it| {
                let p = moved(b, &p, it.index, &by);
                self.queries(b, &p, queries);
            });
        }
    }

    /// Copies keys, which lie in rows, to panels.
    fn order_keys(&self, b: &mut Builder, from: Value, to: Value, width: i64) {
        let (keys, depth, lanes) = (self.layout.keys, self.layout.depth, self.frame.lanes());
        let key = self.frame.inputs()[1].stride(-1);
        let panels = Level::axis(keys, vec![key, depth * SIZE]);
        nest(b, &[panels.in_pieces(width)], None, &[from, to], &mut |b, p, sizes| {
            let keys = Level::axis(sizes[0], vec![key, SIZE]);
            let elements = Level::axis(depth, vec![SIZE, width * SIZE]);
            let levels = [keys.in_pieces(lanes), elements.in_pieces(lanes)];
            nest(b, &levels, None, p, &mut |b, p, sizes| {
                let (keys, elements) = (sizes[0], sizes[1]);
                let zero = b.f32(0.0);
                let rows: Vec<Value> = (0..lanes)
                    .map(|i| match i < keys {
                        true => expr::load(b, DType::F32, p[0], i * key, elements as u32, false),
                        false => zero,
                    })
                    .collect();
                let columns = b.transpose(&rows);
                for (i, &column) in (0..elements).zip(&columns) {
                    let at = i * width * SIZE;
                    expr::store(b, DType::F32, column, p[1], at, keys as u32);
                }
            });
        });
    }

    /// The results of a block of queries.
    fn queries(&self, b: &mut Builder, p: &[Value], queries: &Queries<'_>) {
        let shares = &self.layout.shares;
        let last = p.len() - 1;
        let within = |b: &mut Builder, at: usize| b.offset(p[last - 1], 1, at as i64 * SIZE);
        let (scores, totals) = (within(b, shares.scores()), within(b, shares.totals()));
        let (k, v) = (&self.frame.inputs()[1], &self.frame.inputs()[2]);
        let (keys, key) = match self.panel {
            Some(_) => (p[last - 1], self.layout.depth * SIZE),
            None => (p[1], k.stride(-1)),
        };
        // From the first key on that counts.
        let from = |b: &mut Builder, pointer: Value, step: i64| {
            moved(b, &[pointer], queries.keys.start, &[step])[0]
        };
        let keys = from(b, keys, key);
        let values = from(b, p[2], v.stride(-2));
        let masks = p[3..last - 1].iter().zip(&self.frame.inputs()[3..]);
        let masks: Vec<Value> =
            masks.map(|(&pointer, shape)| from(b, pointer, shape.stride(-1))).collect();
        let first: Vec<Value> = [p[0], keys].into_iter().chain(masks).chain([scores]).collect();
        queries.scores.write(b, &first);
        let row = Level::axis(queries.count, vec![self.layout.row, SIZE]);
        match &self.program {
            Weights::Softmax(exp) => {
                let rows = [row.in_pieces(SOFTMAX_ROWS)];
                nest(b, &rows, None, &[scores, totals], &mut |b, p, sizes| {
                    let keys = queries.keys.end - queries.keys.start;
                    softmax(b, exp, [sizes[0], keys], self.layout.row, p[0], p[1]);
                });
            }
            Weights::Program(frame, program) => {
                nest(b, &[row], None, &[scores], &mut |b, p, _| {
                    program.write(frame, b, &[p[0], p[0]]);
                });
            }
        }
        let totals = matches!(self.program, Weights::Softmax(_)).then_some(totals);
        let second: Vec<Value> =
            [scores, values].into_iter().chain(totals).chain([p[last]]).collect();
        queries.results.write(b, &second);
    }
}

/// So many rows become weights at a time: what a row waits for, its largest and its sum, the others do not.
const SOFTMAX_ROWS: i64 = 4;

/// The exponentials of rows of `keys`, less their largest, in place, and the inverses of their sums. From a row to the
/// next are `step` bytes.
fn softmax(
    b: &mut Builder,
    exp: &Body<'_>,
    [rows, keys]: [i64; 2],
    step: i64,
    scores: Value,
    totals: Value,
) {
    let one = b.f32(1.0);
    let rows: Vec<i64> = (0..rows).map(|row| row * step).collect();
    // Vectors of a row at a time: few, whose exponentials stand beside their sums, but of one row several.
    let registers = b.machine().registers as usize;
    let at_once = |most: usize| (most / rows.len()).max(1);
    let (most, exponentials) = (at_once(4), at_once((registers / 8).clamp(2, 4)));
    let (lowest, zero) = (b.f32(f32::NEG_INFINITY), b.f32(0.0));
    // The parts of all rows, row by row, with what each has carried so far.
    let of_rows = |carried: &[Value], parts: &[nest::Part]| -> Vec<(Value, i64, nest::Part)> {
        let carried = carried.chunks(carried.len() / rows.len());
        let rows = rows.iter().zip(carried);
        rows.flat_map(|(&row, of)| of.iter().zip(parts).map(move |(&v, &part)| (v, row, part)))
            .collect()
    };
    // What a tail does not need stays as it is.
    let all = |next: Vec<Value>, carried: &[Value], parts: usize| -> Vec<Value> {
        let each = carried.len() / rows.len();
        let of_row = next.chunks(parts).zip(carried.chunks(each));
        of_row.flat_map(|(next, old)| next.iter().chain(&old[parts..]).copied()).collect()
    };
    let load = |b: &mut Builder, p: &[Value], row: i64, (at, lanes): nest::Part| {
        expr::load(b, DType::F32, p[0], row + at * SIZE, lanes, false)
    };
    let start = vec![lowest; most * rows.len()];
    let largest =
        strips(b, keys, most as i64, &[scores], &[SIZE], &start, &mut |b, p, now, parts| {
            let next = of_rows(now, parts).into_iter().map(|(largest, row, part)| {
                let x = load(b, p, row, part);
                let x = b.first(x, lowest, part.1);
                b.max(largest, x)
            });
            all(next.collect(), now, parts.len())
        });
    // A NaN may be lost here: it comes back with its exponential.
    let largest: Vec<Value> = (largest.chunks(most))
        .map(|all| all.iter().copied().reduce(|x, y| b.max(x, y)).unwrap_or(lowest))
        .collect();
    let largest: Vec<Value> =
        largest.into_iter().map(|all| b.reduce(kir::Reduction::Max, all)).collect();
    let known: Vec<_> =
        largest.iter().map(|&of| exp.hoist(b, &|n| (n == 1).then_some(of))).collect();
    let start = vec![zero; exponentials * rows.len()];
    let unroll = exponentials as i64;
    let sums = strips(b, keys, unroll, &[scores], &[SIZE], &start, &mut |b, p, now, parts| {
        let places: Vec<_> = of_rows(now, parts).into_iter().enumerate().collect();
        let next = b.in_turn(&places, |b, &(i, (sum, row, part))| {
            let of = i / parts.len();
            let x = load(b, p, row, part);
            let e = exp.emit(b, &known[of], &mut |_, n| if n == 0 { x } else { largest[of] });
            expr::store(b, DType::F32, e, p[0], row + part.0 * SIZE, part.1);
            let e = b.first(e, zero, part.1);
            b.add(sum, e)
        });
        all(next, now, parts.len())
    });
    for (row, sums) in sums.chunks(exponentials).enumerate() {
        let sum = sums.iter().copied().reduce(|x, y| b.add(x, y)).unwrap_or(zero);
        let sum = b.reduce(kir::Reduction::Sum, sum);
        let inverse = b.div(one, sum);
        expr::store(b, DType::F32, inverse, totals, row as i64 * SIZE, 1);
    }
}
