//! The best places of each row, by networks of comparisons (Batcher's bitonic sort): what is compared with what
//! depends on no element, so vectors do as many at once as they have lanes.
//!
//! An element is held as an integer that is larger for a better one, beside its place; of equals the lower place
//! is better, so the order is total, and any network gives the same.
//!
//! A row that is longer than a block ([`Runs`]) is filtered ([`select`]).

mod select;
mod short;

use super::expr::{self, reach};
use super::nest::{self, Level};
use super::operations::{as_number, flip};
use super::{Frame, KernelPlan};
use crate::error::ErrorKind;
use crate::kir::build::Builder;
use crate::kir::{IndexOp, Memory, Shift, Type, Unary, Value};
use crate::lir::Runs;
use crate::types::{self, DType};

/// Bytes of a place while it is held.
const PLACE: i64 = 4;

/// The kernel; `None` where it is not for vectors.
pub(super) fn kernel(
    frame: &Frame<'_>,
    largest: bool,
    count: usize,
) -> Result<Option<KernelPlan>, ErrorKind> {
    let ([x], result, true) = (frame.inputs(), frame.result(), frame.scratch) else {
        return Err(ErrorKind::bug("a sort has an operand and a scratch"));
    };
    let (&width, outer) = x.dims.split_last().ok_or_else(|| ErrorKind::bug("a sort has rows"))?;
    if i32::try_from(width).is_err() {
        return Err(ErrorKind::limit(format!("rows of {width} elements are sorted")));
    }
    let dims: Vec<usize> = x.dims.iter().map(|&d| d as usize).collect();
    let runs = Runs::of(&types::Type::new(x.dtype, dims), count);
    let (lanes, count) = (frame.lanes(), count as i64);
    let steps = [x.stride(-1), result.stride(-1)];
    let is_dense = (width == 1 || steps[0] == expr::size(x.dtype))
        && (count == 1 || steps[1] == expr::size(DType::I64));
    if lanes > 1 && !expr::in_vectors(x.dtype, &frame.machine) {
        return Ok(None);
    }
    let one_block = runs.blocks <= 1;
    // A single block need not be longer than the row.
    let block = match one_block {
        true => (width as u64).next_power_of_two().max(2 * lanes as u64) as i64,
        false => runs.block as i64,
    };
    let memory = if runs.words == 2 { Memory::I64 } else { Memory::I32 };
    let sort = Sort { dtype: x.dtype, step: steps[0], largest, memory, block, count };
    let axes =
        (0..outer.len()).map(|i| Level::axis(outer[i], vec![x.strides[i], result.strides[i]]));
    let levels = nest::merge(axes);
    let rows: i64 = outer.iter().product();
    if let Some(plan) = short::kernel(frame, &sort, width, levels.clone()) {
        return Ok(Some(plan));
    }
    if lanes > 1 && !is_dense {
        return Ok(None);
    }
    let (mut b, p) = frame.open(runs.shares as i64);
    let (begin, end) = (b.begin(), b.end());
    b.each(begin, end, &[], |b, share| {
        let first = b.index(IndexOp::Mul, share.index, runs.rows as i64);
        let last = b.index(IndexOp::Add, first, runs.rows as i64);
        let last = b.index(IndexOp::Min, last, rows);
        let scratch = b.offset(p[1], share.index, runs.elements() as i64 * 4);
        // The elements that are held, then their places, then a flag.
        let (elements, all) = (4 * runs.words as i64 * block, if one_block { 1 } else { 2 });
        let places = all * elements;
        let best = Held { elements: scratch, places: b.offset(scratch, 1, places) };
        b.each(first, last, &[], |b, row| {
            let [from, to] = at_row(b, &levels, row.index, [p[0], p[2]]);
            if one_block {
                sort.read(b, from, None, width, best);
                sort.order(b, best, false);
            } else {
                let here = Held {
                    elements: b.offset(scratch, 1, elements),
                    places: b.offset(scratch, 1, places + PLACE * block),
                };
                let mut at = places + 2 * PLACE * block;
                let notes = sort.notes(|bytes| {
                    at += bytes;
                    b.offset(scratch, 1, at - bytes)
                });
                sort.select(b, from, width, [best, here], notes);
            }
            sort.write(b, best, to, steps[1]);
        });
    });
    let bits = i64::from(block.ilog2());
    Ok(Some(frame.close(b, rows * width * bits * (bits + 1) * 2)))
}

/// The pointers, at the row with this number.
fn at_row(b: &mut Builder, levels: &[Level], row: Value, pointers: [Value; 2]) -> [Value; 2] {
    let (mut left, mut at) = (row, pointers);
    for (i, level) in levels.iter().enumerate().rev() {
        let here = if i == 0 { left } else { b.index(IndexOp::Rem, left, level.extent) };
        at = [0, 1].map(|i| b.offset(at[i], here, level.steps[i]));
        if i > 0 {
            left = b.index(IndexOp::Div, left, level.extent);
        }
    }
    at
}

/// A block of elements and their places.
#[derive(Clone, Copy)]
struct Held {
    elements: Value,
    places: Value,
}

/// Elements of a vector, and their places.
type Pair = [Value; 2];

/// Which of two places the better one of a pair comes to.
#[derive(Clone, Copy)]
enum Order {
    BestFirst,
    WorstFirst,
    /// The first one where the mask is set, else the last one.
    Mixed(Value),
}

#[derive(Clone, Copy)]
struct Sort {
    dtype: DType,
    /// Bytes from an element of a row to the next.
    step: i64,
    largest: bool,
    /// What elements are held as.
    memory: Memory,
    block: i64,
    count: i64,
}

impl Sort {
    fn bytes(&self) -> i64 {
        if self.memory == Memory::I64 { 8 } else { 4 }
    }

    fn integer(&self, b: &mut Builder, value: i64) -> Value {
        b.integer(self.memory.value(), value)
    }

    /// What nothing is worse than.
    fn worst(&self, b: &mut Builder) -> Value {
        let least = if self.memory == Memory::I64 { i64::MIN } else { i32::MIN.into() };
        self.integer(b, least)
    }

    /// Elements from memory as integers in their order.
    fn load(&self, b: &mut Builder, from: Value, at: i64, lanes: u32) -> Value {
        let x = expr::load(b, self.dtype, from, at * self.step, lanes, false);
        self.key(b, x)
    }

    /// Elements as integers in their order.
    fn key(&self, b: &mut Builder, x: Value) -> Value {
        let key = match self.dtype {
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
                // Without its sign, the order of a float's bits is its own.
                let ty = b.type_of(x);
                let zero = b.float(ty, 0.0);
                let is_zero = b.equal(x, zero);
                let plain = b.select(is_zero, zero, x);
                let bits = b.unary(Unary::ToBits, plain);
                let (width, most) = match ty {
                    Type::F64 => (64, i64::MAX),
                    _ => (32, i32::MAX.into()),
                };
                let most = self.integer(b, most);
                let sign = b.shift(Shift::RightSigned, bits, width - 1);
                let turned = b.and(sign, most);
                let ordered = b.binary(crate::kir::Binary::Xor, bits, turned);
                let number = b.equal(x, x);
                b.select(number, ordered, most)
            }
            DType::Bool => as_number(b, x),
            DType::U64 => flip(b, x),
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => x,
            DType::U8 | DType::U16 | DType::U32 => x,
        };
        if self.largest { key } else { b.not(key) }
    }

    /// A block of the row, so many elements of which are there (the others are the worst ones).
    /// `number` counts its first element's place in blocks.
    fn read(&self, b: &mut Builder, from: Value, number: Option<Value>, there: i64, to: Held) {
        let lanes = b.lanes();
        let numbers = b.lane_numbers();
        let first = match number {
            Some(number) => {
                let at = b.index(IndexOp::Mul, number, self.block);
                let at = b.from_index(Type::I32, at);
                b.add(numbers, at)
            }
            None => numbers,
        };
        let (whole, left) = (there / lanes, there % lanes);
        let put = |b: &mut Builder, to: [Value; 2], x: Value, place: Value| {
            b.store_as(self.memory, x, to[0], 0, lanes as u32);
            b.store_as(Memory::I32, place, to[1], 0, lanes as u32);
        };
        let by = [lanes * self.step, lanes * self.bytes(), lanes * PLACE];
        let after = |b: &mut Builder, vectors: i64| {
            let mut at = |p: Value, i: usize| b.offset(p, vectors, by[i]);
            [at(from, 0), at(to.elements, 1), at(to.places, 2)]
        };
        let next = b.i32(lanes as i32);
        let mut place = first;
        if whole > 0 {
            let pointers = [(from, by[0]), (to.elements, by[1]), (to.places, by[2])];
            place = b.fold(0, whole, &pointers, &[first], |b, it| {
                let [from, elements, places] = [0, 1, 2].map(|i| it.pointers[i]);
                let x = self.load(b, from, 0, lanes as u32);
                put(b, [elements, places], x, it.carried[0]);
                vec![b.add(it.carried[0], next)]
            })[0];
        }
        // Behind the row is what is worse than all of it.
        let mut filled = whole;
        let (worst, nowhere) = (self.worst(b), b.i32(i32::MAX));
        if left > 0 {
            let [from, elements, places] = after(b, whole);
            let x = self.load(b, from, 0, left as u32);
            let x = b.first(x, worst, left as u32);
            let place = b.first(place, nowhere, left as u32);
            put(b, [elements, places], x, place);
            filled += 1;
        }
        if filled * lanes < self.block {
            let [_, elements, places] = after(b, filled);
            let pointers = [(elements, by[1]), (places, by[2])];
            b.each(0, self.block / lanes - filled, &pointers, |b, it| {
                put(b, [it.pointers[0], it.pointers[1]], worst, nowhere);
            });
        }
    }

    /// Puts the better ones of two vectors' elements where the order says.
    fn compare(&self, b: &mut Builder, first: Pair, last: Pair, order: Order) -> [Pair; 2] {
        let less = b.less(first[0], last[0]);
        let equal = b.equal(first[0], last[0]);
        let earlier = b.less(last[1], first[1]);
        let tie = b.and(equal, earlier);
        let swap = b.or(less, tie);
        let pick = |b: &mut Builder, mask: Value, yes: Pair, no: Pair| {
            [0, 1].map(|i| b.select(mask, yes[i], no[i]))
        };
        match order {
            Order::BestFirst => [pick(b, swap, last, first), pick(b, swap, first, last)],
            Order::WorstFirst => [pick(b, swap, first, last), pick(b, swap, last, first)],
            Order::Mixed(mask) => {
                let stays = b.binary(crate::kir::Binary::Xor, swap, mask);
                [pick(b, stays, first, last), pick(b, stays, last, first)]
            }
        }
    }

    fn get(&self, b: &mut Builder, from: Held, at: i64) -> Pair {
        let lanes = b.lanes() as u32;
        let (elements, offset) = reach(b, from.elements, at * self.bytes());
        let x = b.load_as(self.memory, elements, offset, lanes);
        let (places, offset) = reach(b, from.places, at * PLACE);
        [x, b.load_as(Memory::I32, places, offset, lanes)]
    }

    fn put(&self, b: &mut Builder, pair: Pair, to: Held, at: i64) {
        let lanes = b.lanes() as u32;
        let (elements, offset) = reach(b, to.elements, at * self.bytes());
        b.store_as(self.memory, pair[0], elements, offset, lanes);
        let (places, offset) = reach(b, to.places, at * PLACE);
        b.store_as(Memory::I32, pair[1], places, offset, lanes);
    }

    /// `count` iterations over a block, so many elements apart.
    fn each(
        &self,
        b: &mut Builder,
        count: i64,
        apart: i64,
        held: Held,
        body: impl FnOnce(&mut Builder, Held),
    ) {
        if count == 1 {
            return body(b, held);
        }
        let pointers = [(held.elements, apart * self.bytes()), (held.places, apart * PLACE)];
        b.each(0, count, &pointers, |b, it| {
            body(b, Held { elements: it.pointers[0], places: it.pointers[1] });
        });
    }

    /// The same, so many elements further.
    fn further(&self, b: &mut Builder, held: Held, by: i64) -> Held {
        Held {
            elements: b.offset(held.elements, by, self.bytes()),
            places: b.offset(held.places, by, PLACE),
        }
    }

    /// Sorts a block.
    fn order(&self, b: &mut Builder, held: Held, worst_first: bool) {
        let pair = 2 * b.lanes();
        let last = if worst_first { Order::WorstFirst } else { Order::BestFirst };
        // Runs of two vectors, in registers.
        self.alternate(b, held, pair, last, |b, held, order| {
            let (mut first, mut second) = (self.get(b, held, 0), self.get(b, held, b.lanes()));
            let mut run = 2;
            while run <= pair {
                [first, second] = self.merge_pair(b, [first, second], run, order);
                run *= 2;
            }
            self.put(b, first, held, 0);
            self.put(b, second, held, b.lanes());
        });
        let mut run = 2 * pair;
        while run <= self.block {
            self.alternate(b, held, run, last, |b, held, order| self.merge(b, held, run, order));
            run *= 2;
        }
    }

    /// Every run of a block: the best first and the worst first in turn, the last one as it is said.
    fn alternate(
        &self,
        b: &mut Builder,
        held: Held,
        run: i64,
        last: Order,
        mut body: impl FnMut(&mut Builder, Held, Order),
    ) {
        if run == self.block {
            return body(b, held, last);
        }
        self.each(b, self.block / (2 * run), 2 * run, held, |b, held| {
            body(b, held, Order::BestFirst);
            let next = self.further(b, held, run);
            body(b, next, Order::WorstFirst);
        });
    }

    /// Sorts a run whose halves are sorted the other way round.
    fn merge(&self, b: &mut Builder, held: Held, run: i64, order: Order) {
        let lanes = b.lanes();
        let mut distance = run / 2;
        while distance >= 2 * lanes {
            self.each(b, run / (2 * distance), 2 * distance, held, |b, held| {
                self.each(b, distance / lanes, lanes, held, |b, first| {
                    let second = self.further(b, first, distance);
                    let pairs = [self.get(b, first, 0), self.get(b, second, 0)];
                    let [x, y] = self.compare(b, pairs[0], pairs[1], order);
                    self.put(b, x, first, 0);
                    self.put(b, y, second, 0);
                });
            });
            distance /= 2;
        }
        self.each(b, run / (2 * lanes), 2 * lanes, held, |b, held| {
            let pairs = [self.get(b, held, 0), self.get(b, held, lanes)];
            let [x, y] = self.merge_pair(b, pairs, 2 * lanes, order);
            self.put(b, x, held, 0);
            self.put(b, y, held, lanes);
        });
    }

    /// The same for all runs of this length in two vectors; shorter ones are sorted in turn.
    fn merge_pair(&self, b: &mut Builder, pairs: [Pair; 2], run: i64, order: Order) -> [Pair; 2] {
        let lanes = b.lanes();
        let [mut first, mut second] = pairs;
        let mut distance = run / 2;
        if distance == lanes {
            [first, second] = self.compare(b, first, second, order);
            distance /= 2;
        }
        while distance > 0 {
            let weave = |b: &mut Builder, first: Pair, second: Pair| {
                let woven = [0, 1].map(|i| b.exchange_pair(first[i], second[i], distance as u32));
                [[woven[0][0], woven[1][0]], [woven[0][1], woven[1][1]]]
            };
            [first, second] = weave(b, first, second);
            let mixed = match run < 2 * lanes {
                // Of the lanes as they are woven, those whose runs are to have the worst first.
                true => {
                    let bit = if run == lanes { distance } else { run };
                    let (numbers, bit, zero) = (b.lane_numbers(), b.i32(bit as i32), b.i32(0));
                    let bits = b.and(numbers, bit);
                    let first = b.equal(bits, zero);
                    Order::Mixed(first)
                }
                false => order,
            };
            [first, second] = self.compare(b, first, second, mixed);
            [first, second] = weave(b, first, second);
            distance /= 2;
        }
        [first, second]
    }

    /// The places that are asked for, as `i64`.
    fn write(&self, b: &mut Builder, best: Held, to: Value, step: i64) {
        let lanes = b.lanes();
        if lanes == 1 {
            let pointers = [(best.places, PLACE), (to, step)];
            return b.each(0, self.count, &pointers, |b, it| {
                let place = b.load_as(Memory::I32, it.pointers[0], 0, 1);
                let place = b.unary(Unary::ToI64, place);
                b.store_as(Memory::I64, place, it.pointers[1], 0, 1);
            });
        }
        let size = expr::size(DType::I64);
        let vector = |b: &mut Builder, from: Value, to: Value, count: i64| {
            let (places, zero) = (b.load_as(Memory::I32, from, 0, lanes as u32), b.i32(0));
            let words = if b.machine().big_endian { [zero, places] } else { [places, zero] };
            for (half, words) in (0..).zip(b.interleave(&words)) {
                let words_left = (2 * count - half * lanes).clamp(0, lanes);
                if words_left > 0 {
                    b.store_as(Memory::I32, words, to, half * lanes * 4, words_left as u32);
                }
            }
        };
        let (whole, left) = (self.count / lanes, self.count % lanes);
        if whole > 0 {
            let pointers = [(best.places, lanes * PLACE), (to, lanes * size)];
            b.each(0, whole, &pointers, |b, it| {
                vector(b, it.pointers[0], it.pointers[1], lanes);
            });
        }
        if left > 0 {
            let from = b.offset(best.places, whole, lanes * PLACE);
            let to = b.offset(to, whole, lanes * size);
            vector(b, from, to, left);
        }
    }
}
