//! Convolutions with one channel in a group, and of each one result, two or four: vectors lie over the results'
//! channels. (Where there are several, each element is repeated in its vector.)
//!
//! Several columns of a row of the result are summed at a time, enough to keep the machine busy, while
//! the weights of one row of taps after the other are in registers. All channels of these columns come
//! before the next ones, so that memory is read in its order. Where rows have but one tap, neighbours along another
//! axis have elements in common, and the columns are those of that axis.
//!
//! A row of taps with more weights than there are registers is taken in groups of them.
//!
//! Cranelift puts a sum as late as it can, behind all loads of its block: there the rows of taps are looped
//! over where as many registers as that takes make enough sums.

mod short;

use super::expr::{self, Body};
use super::finish::Finish;
use super::nest::{self, Level, Part, Shares, nest};
use super::{Frame, KernelPlan, operations};
use crate::error::ErrorKind;
use crate::kir::Value;
use crate::kir::build::Builder;
use crate::lir::{Conv, Expr, Weights, sums};
use crate::types::DType;
use std::collections::{BTreeMap, BTreeSet};

/// More taps than this are always looped over.
const WRITTEN_OUT: i64 = 64;

/// Columns at a time: that many independent sums keep two multiply-adders busy.
const MOST: i64 = 12;

/// With fewer at a time, a loop over rows of taps takes longer than loading again what was in a register.
const LEAST: i64 = 4;

/// Bytes of a line of the cache.
const LINE: i64 = 64;

/// Pieces of a kernel that are enough for threads.
const PLENTY: i64 = 32;

/// Whether a convolution is one of these.
pub(super) fn is_one(frame: &Frame<'_>, conv: &Conv) -> bool {
    let channel = conv.taps.len() + 1;
    let (x, result) = (&frame.inputs()[0], frame.result());
    let repeats = conv.repeats(x.dims[channel] as usize, result.dims[channel] as usize);
    let (lanes, words) = (frame.lanes(), expr::size(x.dtype) == 4 && !frame.machine.doubles);
    conv.weights == Weights::Plain
        && repeats.is_some_and(|n| n == 1 || lanes > 1 && lanes % n as i64 == 0 && words)
}

/// The kernel; `None` where it is not for vectors.
pub(super) fn kernel(frame: &Frame<'_>, conv: &Conv) -> Result<Option<KernelPlan>, ErrorKind> {
    let (x, w) = (&frame.inputs()[0], &frame.inputs()[1]);
    let Some(dtype) = sums(x.dtype, w.dtype).filter(|&dtype| dtype != DType::Bool) else {
        return Err(ErrorKind::unsupported(format!("products of {} and {}", x.dtype, w.dtype)));
    };
    let identity = Expr::identity();
    let types: Vec<DType> =
        [dtype].into_iter().chain(frame.inputs()[2..].iter().map(|s| s.dtype)).collect();
    let body = Body::new(conv.epilogue.as_ref().unwrap_or(&identity), &types)?;
    let spatial = conv.taps.len();
    let axis = |axis: usize, times: i64, w: i64| {
        let rest = frame.shapes[2..].iter().map(|shape| shape.strides[axis]);
        let steps = [x.strides[axis] * times, w].into_iter().chain(rest).collect();
        Level::axis(frame.result().dims[axis], steps)
    };
    let mut channels = axis(spatial + 1, 1, w.strides[spatial + 1]);
    let repeats = channels.extent / conv.groups as i64;
    let is_dense = channels.steps[0] == expr::size(x.dtype);
    channels.steps[0] /= repeats;
    let mut around = vec![axis(0, 1, 0)];
    around.extend((0..spatial).map(|i| axis(i + 1, conv.strides[i] as i64, 0)));
    // The last axis along which neighbours have elements in common.
    let long = |&at: &usize| around[at].extent >= LEAST;
    let along = (1..=spatial).rev().find(|&at| conv.taps[at - 1] > 1).filter(long);
    let along = along.filter(|_| !frame.in_order).unwrap_or(spatial);
    let upright = along < spatial;
    let columns = around.remove(along);
    let taps = (0..spatial).map(|i| {
        let step = x.strides[i + 1] * conv.dilations[i] as i64;
        Level::axis(conv.taps[i] as i64, vec![step, w.strides[i]])
    });
    let taps = nest::merge(taps);
    if frame.machine.lanes > 1 {
        let types = frame.shapes().all(|shape| expr::in_vectors(shape.dtype, &frame.machine));
        let product = matches!(dtype, DType::F32 | DType::F64 | DType::I32);
        let unit = is_dense && unit(frame, &channels);
        if !product || !types || !body.in_vectors(&frame.machine) || !unit {
            return Ok(None);
        }
    }
    let tile = tile(frame, &taps, &columns, &channels);
    let kernel = Depthwise { frame, body, dtype, taps, upright, columns, tile, channels, repeats };
    Ok(Some(kernel.write(around)))
}

/// Whether neighbouring channels of all but the input are one behind the other, or the same to the epilogue.
fn unit(frame: &Frame<'_>, channels: &Level) -> bool {
    let last = channels.steps.len() - 1;
    let mut steps = channels.steps.iter().zip(frame.shapes()).enumerate().skip(1);
    steps.all(|(i, (&step, shape))| {
        step == expr::size(shape.dtype) || step == 0 && i >= 2 && i < last
    })
}

/// What is summed at a time.
struct Tile {
    /// Columns, at most.
    columns: i64,
    /// Vectors of channels, at most.
    vectors: i64,
    /// Taps of a row, at most: their weights are in registers.
    taps: i64,
    /// More taps than this are looped over.
    written_out: i64,
}

/// The tile in which the sums take least time.
fn tile(frame: &Frame<'_>, taps: &[Level], columns: &Level, channels: &Level) -> Tile {
    let registers = i64::from(frame.machine.registers) - i64::from(is_repeated(frame, channels));
    let (in_row, step) = taps.last().map_or((1, 0), |l| (l.extent, l.steps[0]));
    if !frame.machine.keeps_order() && in_row <= WRITTEN_OUT {
        // The weights of a row of taps, all elements and all sums are in registers.
        let fits = |&most: &i64| {
            let of = |column| (0..in_row).map(move |tap| column * columns.steps[0] + tap * step);
            let elements: BTreeSet<i64> = (0..most).flat_map(of).collect();
            in_row + elements.len() as i64 + most <= registers
        };
        if let Some(most) = (LEAST..=MOST).rev().find(fits) {
            return Tile { columns: most, vectors: 1, taps: in_row, written_out: in_row };
        }
    }
    if frame.machine.keeps_order() && i64::from(frame.machine.vector_bytes()) < LINE {
        return short::tile(frame, taps, columns, channels);
    }
    // Besides the sums the weights, an element and a product.
    let fits = |&most: &i64| most + weights_at_once(in_row, step, columns, most) + 2 <= registers;
    let columns = (2..=MOST).rev().find(fits).unwrap_or(2);
    Tile { columns, vectors: 1, taps: in_row, written_out: WRITTEN_OUT }
}

/// Whether elements are repeated in their vectors, the order of which is in a register.
fn is_repeated(frame: &Frame<'_>, channels: &Level) -> bool {
    channels.steps[0] < expr::size(frame.inputs()[0].dtype)
}

/// How many weights of a row of taps, `step` bytes apart, are in registers while so many columns are summed: those that
/// an element and its neighbours meet, which are not all in a long row that is gone through from left to right.
fn weights_at_once(in_row: i64, step: i64, columns: &Level, most: i64) -> i64 {
    let width = most * columns.steps[0];
    if in_row > WRITTEN_OUT {
        return 1;
    }
    if step > 0 && width > 0 { in_row.min((width + step - 1) / step) } else { in_row }
}

struct Depthwise<'a> {
    frame: &'a Frame<'a>,
    body: Body<'a>,
    dtype: DType,
    /// Steps of the input and of the weights.
    taps: Vec<Level>,
    /// Whether the columns are not those of the rows, but of another axis.
    upright: bool,
    columns: Level,
    tile: Tile,
    /// Of the results.
    channels: Level,
    /// How many of them each channel of the input has.
    repeats: i64,
}

impl Depthwise<'_> {
    fn write(&self, around: Vec<Level>) -> KernelPlan {
        let frame = self.frame;
        let taps: i64 = self.taps.iter().map(|l| l.extent).product();
        let mut levels = nest::merge(around);
        let rows: i64 = levels.iter().map(|l| l.extent).product();
        // What neighbouring columns read is read at once: all channels, unless threads get too little. Pieces
        // are of whole lines.
        let lanes = frame.lanes();
        let line = lanes.max(LINE / expr::size(self.dtype));
        let each = match frame.in_order {
            true => self.channels.extent,
            false => (self.channels.extent / (PLENTY / rows).max(1) / line * line).max(line),
        };
        let near = self.near(taps);
        let channels = self.channels.clone().in_pieces(each.min(near.unwrap_or(each)));
        let channels_at = if near.is_some() { 0 } else { levels.len() };
        levels.insert(channels_at, channels);
        let rows = (0..levels.len()).filter(|&level| level != channels_at);
        let shares = Shares::counting(&levels, rows.chain([channels_at]));
        let elements: i64 = frame.result().dims.iter().product();
        let work = elements * (taps + self.body.cost() + 1);
        let (mut b, pointers) = frame.open(shares.extent());
        nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, sizes| {
            let channels = Level { extent: sizes[channels_at], ..self.channels.clone() };
            let tiles = channels.clone().in_pieces(lanes * self.tile.vectors);
            let channels = channels.in_pieces(lanes);
            let inner = [self.columns.clone().in_even_pieces(self.tile.columns), tiles];
            nest(b, &inner, None, p, &mut |b, p, sizes| {
                let parts = nest::parts(b, sizes[1]);
                self.tile(b, p, sizes[0], &parts);
            });
            if self.is_apart() {
                let row = std::slice::from_ref(&self.columns);
                nest(b, &[channels], None, p, &mut |b, p, sizes| {
                    self.finish().write(b, p, row, &[(0, sizes[0] as u32)]);
                });
            }
        });
        frame.close(b, work)
    }

    /// Channels of which so few are done before the next ones that their rows stay in the first-level cache,
    /// where the operands fit into the second one, or vectors are shorter than a line: each of these waits for
    /// every line that comes. `None` where they would not stay, or do anyhow.
    fn near(&self, taps: i64) -> Option<i64> {
        let machine = &self.frame.machine;
        let (l1, l2) = (machine.l1 as i64, machine.l2 as i64);
        let (x, result) = (&self.frame.inputs()[0], self.frame.result());
        let fits = x.bytes + result.bytes <= l2;
        let short = i64::from(machine.vector_bytes()) < LINE;
        // Places in a row of the input, rows of the window, a row of results, and the weights.
        let in_row = self.taps.last().map_or(1, |l| l.extent);
        let row = x.dims[x.dims.len() - 2] + in_row;
        let places = taps / in_row * row + self.columns.extent + taps;
        let size = expr::size(self.dtype);
        let line = LINE / size;
        let channels = (l1 * 3 / 4 / (places * size) / line * line).max(line);
        let pays = machine.keeps_order() && (fits || short) && channels < self.channels.extent;
        (pays && !self.frame.in_order && !self.upright).then_some(channels)
    }

    fn finish(&self) -> Finish<'_> {
        let columns = &self.channels.steps;
        Finish { frame: self.frame, body: &self.body, first: 1, columns }
    }

    /// Whether the epilogue is applied to a whole row, when its sums are in the result.
    fn is_apart(&self) -> bool {
        self.body.dtype() == self.dtype && self.finish().is_apart()
    }

    fn is_of_bytes(&self) -> bool {
        self.frame.inputs()[0].dtype == DType::U8 && self.dtype == DType::I32
    }

    /// Of the input or, as operand 1, of the weights.
    fn load(
        &self,
        b: &mut Builder,
        operand: usize,
        pointer: Value,
        offset: i64,
        part: Part,
    ) -> Value {
        let dtype = self.frame.inputs()[operand].dtype;
        let offset = offset + part.0 * self.channels.steps[operand];
        match (operand, self.repeats as u32) {
            (0, repeats @ 2..) => {
                let value = expr::load(b, dtype, pointer, offset, part.1 / repeats, false);
                b.shuffle(value, value, |lane| lane / repeats)
            }
            _ => expr::load(b, dtype, pointer, offset, part.1, false),
        }
    }

    fn tile(&self, b: &mut Builder, p: &[Value], columns: i64, parts: &[Part]) {
        let sums = vec![vec![None; columns as usize]; parts.len()];
        let sums: Vec<Vec<Value>> =
            (self.sum(b, &self.taps, (p[0], p[1]), sums, parts).into_iter())
                .map(|sums| {
                    let sums = self.or_zeros(b, sums).into_iter();
                    sums.map(|sum| operations::wrap(b, self.dtype, sum)).collect()
                })
                .collect();
        let result = p.len() - 1;
        let place = |n: usize, column: i64, part: Part| {
            column * self.columns.steps[n] + part.0 * self.channels.steps[n]
        };
        for column in 0..columns {
            for (sums, &part) in sums.iter().zip(parts) {
                let sum = sums[column as usize];
                let at = place(result, column, part);
                if self.is_apart() {
                    expr::store(b, self.dtype, sum, p[result], at, part.1);
                    continue;
                }
                let value = self.body.emit(b, &[], &mut |b, n| match n {
                    0 => sum,
                    n => {
                        let dtype = self.frame.inputs()[n + 1].dtype;
                        let splat = self.channels.steps[n + 1] == 0 && b.lanes() > 1;
                        let at = place(n + 1, column, part);
                        expr::load(b, dtype, p[n + 1], at, part.1, splat)
                    }
                });
                expr::store(b, self.frame.result().dtype, value, p[result], at, part.1);
            }
        }
    }

    /// Sums, of which `None` is that of nothing.
    fn or_zeros(&self, b: &mut Builder, sums: Vec<Option<Value>>) -> Vec<Value> {
        let zero = |b: &mut Builder| operations::zero(b, expr::register(self.dtype));
        sums.into_iter().map(|sum| sum.unwrap_or_else(|| zero(b))).collect()
    }

    /// The sums over these taps, and what they begin with, of the columns of each part.
    fn sum(
        &self,
        b: &mut Builder,
        taps: &[Level],
        (x, w): (Value, Value),
        mut sums: Vec<Vec<Option<Value>>>,
        parts: &[Part],
    ) -> Vec<Vec<Option<Value>>> {
        let count: i64 = taps.iter().map(|l| l.extent).product();
        let columns = sums.first().map_or(0, Vec::len);
        if let Some((outer, inner)) = taps.split_first()
            && count > self.tile.written_out
        {
            let steps = [(x, outer.steps[0]), (w, outer.steps[1])];
            let start = self.or_zeros(b, sums.into_iter().flatten().collect());
            let sums = b.fold(0, outer.extent, &steps, &start, |b, it| {
                let pointers = (it.pointers[0], it.pointers[1]);
                let sums = it.carried.chunks(columns);
                let sums = sums.map(|sums| sums.iter().copied().map(Some).collect()).collect();
                let sums = self.sum(b, inner, pointers, sums, parts);
                self.or_zeros(b, sums.into_iter().flatten().collect())
            });
            return sums.chunks(columns).map(|s| s.iter().copied().map(Some).collect()).collect();
        }
        // Each of the input's places is loaded once for a group of taps: neighbouring columns have most of them
        // in common.
        let in_row = taps.last().map_or(1, |l| l.extent);
        let at_once = self.tile.taps.min(in_row);
        let groups = (in_row + at_once - 1) / at_once;
        let mut products: BTreeMap<(i64, i64), Vec<Product>> = BTreeMap::new();
        let places = offsets(taps);
        for (tap, place) in places.iter().enumerate() {
            let (row, in_row) = (tap as i64 / in_row, tap as i64 % in_row);
            let group = row * groups + in_row / at_once;
            for column in 0..columns {
                let at = place[0] + column as i64 * self.columns.steps[0];
                products.entry((group, at)).or_default().push(Product { tap, column });
            }
        }
        // Where an element meets all columns, sums rest in any order, and weights come and go in this one.
        let step = taps.last().map_or(0, |l| l.steps[0]);
        let few = weights_at_once(at_once, step, &self.columns, columns as i64);
        let order = match b.machine().keeps_order() && few == at_once {
            true => spread(&products, columns),
            false => products.keys().copied().collect(),
        };
        for group in order.chunk_by(|(group, _), (other, _)| group == other) {
            for (&part, sums) in parts.iter().zip(&mut sums) {
                let mut weights: BTreeMap<usize, Value> = BTreeMap::new();
                for key in group {
                    let value = self.load(b, 0, x, key.1, part);
                    for &Product { tap, column } in &products[key] {
                        let load = || self.load(b, 1, w, places[tap][1], part);
                        let weight = *weights.entry(tap).or_insert_with(load);
                        let sum = sums[column];
                        sums[column] = Some(match self.is_of_bytes() {
                            true => {
                                let before = sum.unwrap_or_else(|| b.i32(0));
                                b.byte_product(value, weight, before)
                            }
                            false => operations::add_product(b, weight, value, sum),
                        });
                    }
                }
            }
        }
        sums
    }
}

/// A product of an element and a tap, for a column's sum.
struct Product {
    tap: usize,
    column: usize,
}

/// The groups of taps one after the other, and of each the places in an order in which sums rest as long as
/// they can between two products: each waits for the one before it.
fn spread(products: &BTreeMap<(i64, i64), Vec<Product>>, columns: usize) -> Vec<(i64, i64)> {
    let mut order = vec![];
    let (mut ready, mut now) = (vec![0; columns], 0);
    let mut left: Vec<_> = products.iter().collect();
    while let Some(&(&(group, _), _)) = left.first() {
        let of_group = left.iter().take_while(|((other, _), _)| *other == group);
        let last = |of: &[Product]| of.iter().map(|p| ready[p.column]).max().unwrap_or(0);
        let best = of_group.enumerate().min_by_key(|(_, (_, of))| last(of));
        let (key, of) = left.remove(best.map_or(0, |(at, _)| at));
        for product in of {
            now += 1;
            ready[product.column] = now;
        }
        order.push(*key);
    }
    order
}

/// For every iteration of the levels, the bytes by which each pointer has moved.
fn offsets(levels: &[Level]) -> Vec<[i64; 2]> {
    let mut all = vec![[0; 2]];
    for level in levels {
        let step = |i: i64| [level.steps[0] * i, level.steps[1] * i];
        all = (all.iter())
            .flat_map(|&[x, w]| (0..level.extent).map(move |i| [x + step(i)[0], w + step(i)[1]]))
            .collect();
    }
    all
}
