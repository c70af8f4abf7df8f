//! The best of a row that is longer than a block.
//!
//! The row is filtered: what is no better than the bound is passed over, the others are collected. Where a
//! block of them is full, it is sorted, the worst first; the better ones of these and of the best so far, place by place, are the best of both in an order that half a network sorts. The bound
//! is the last one that is kept by then. The first bound comes from the largest of each of as many classes of
//! elements as a block has: no more of all elements are above it than a few times of what is kept, mostly.

use super::super::expr::reach;
use super::{Held, Order, PLACE, Pair, Sort};
use crate::kir::build::Builder;
use crate::kir::{IndexOp, Memory, Reduction, Type, Value};
use crate::lir::Runs;

/// Vectors of a row that are read in an iteration.
const AT_ONCE: i64 = 4;

/// What is written down beside the blocks.
#[derive(Clone, Copy)]
pub(super) struct Notes {
    /// A vector, and which of its elements are taken.
    vector: Held,
    set: Value,
    /// The number that each element gets.
    numbers: Value,
    /// The worst element that is of interest.
    bound: Held,
    /// How many elements were collected.
    count: Value,
    flag: Value,
}

/// A vector of elements, and which of them are taken.
struct Candidates {
    pair: Pair,
    mask: Value,
}

impl Sort {
    /// The notes, each a line of working memory.
    pub(super) fn notes(&self, mut line: impl FnMut(i64) -> Value) -> Notes {
        let bytes = 4 * Runs::LINE as i64;
        let vector = Held { elements: line(2 * bytes), places: line(bytes) };
        let [set, numbers] = [line(bytes), line(bytes)];
        let bound = Held { elements: line(8), places: line(8) };
        Notes { vector, set, numbers, bound, count: line(8), flag: line(8) }
    }

    /// The vectors of a block of which `elements` are there: their first elements, and how many they have.
    fn vectors(&self, b: &Builder, elements: i64) -> impl Iterator<Item = (i64, u32)> + use<> {
        let lanes = b.lanes();
        let starts = (0..elements).step_by(lanes as usize);
        starts.map(move |at| (at, lanes.min(elements - at) as u32))
    }

    /// Fills a block with what is worse than everything.
    fn clear(&self, b: &mut Builder, held: Held) {
        let lanes = b.lanes();
        let (worst, nowhere) = (self.worst(b), b.i32(i32::MAX));
        self.each(b, self.block / lanes, lanes, held, |b, held| {
            self.put(b, [worst, nowhere], held, 0);
        });
    }

    /// One element of a block and its place, in all lanes.
    fn one(&self, b: &mut Builder, held: Held, at: i64) -> Pair {
        let (elements, offset) = reach(b, held.elements, at * self.bytes());
        let x = b.broadcast_as(self.memory, elements, offset);
        let (places, offset) = reach(b, held.places, at * PLACE);
        [x, b.broadcast_as(Memory::I32, places, offset)]
    }

    /// The best of a row of many blocks.
    pub(super) fn select(
        &self,
        b: &mut Builder,
        from: Value,
        width: i64,
        held: [Held; 2],
        notes: Notes,
    ) {
        let lanes = b.lanes();
        let [best, here] = held;
        self.classes(b, from, width, here);
        self.order(b, here, false);
        let [bound, _] = self.one(b, here, self.count - 1);
        let (zero, nowhere) = (b.i32(0), b.i32(i32::MAX));
        b.store_as(self.memory, bound, notes.bound.elements, 0, 1);
        b.store_as(Memory::I32, nowhere, notes.bound.places, 0, 1);
        b.store_as(Memory::I32, zero, notes.count, 0, 1);
        self.clear(b, best);
        // So many vectors at a time that a block has room for them as long as it is half full.
        let group = (self.block / (2 * lanes)).min(AT_ONCE) * lanes;
        let (whole, left) = (width / group, width % group);
        let by = group * self.step;
        if left > 0 {
            let tail = b.offset(from, whole, by);
            let first = b.i32((whole * group) as i32);
            let better = self.better(b, tail, left, first, notes);
            self.collect(b, &better, here, notes);
        }
        b.each(0, whole, &[(from, by)], |b, it| {
            let first = b.index(IndexOp::Mul, it.index, group);
            let first = b.from_index(Type::I32, first);
            let better = self.better(b, it.pointers[0], group, first, notes);
            let now = b.from_index(Type::I32, it.index);
            let last = b.i32((whole - 1) as i32);
            let is_last = b.equal(now, last);
            let found =
                better.iter().skip(1).fold(better[0].mask, |any, part| b.or(any, part.mask));
            let due = b.or(found, is_last);
            self.when(b, due, notes, |b| {
                self.collect(b, &better, here, notes);
                let count = b.broadcast_as(Memory::I32, notes.count, 0);
                let most = b.i32((self.block - group) as i32);
                let full = b.less(most, count);
                let due = b.or(full, is_last);
                self.when(b, due, notes, |b| self.join(b, [best, here], notes));
            });
        });
    }

    /// The largest of each class of elements: of those whose places have the same remainder.
    fn classes(&self, b: &mut Builder, from: Value, width: i64, to: Held) {
        let lanes = b.lanes();
        let all = lanes as u32;
        self.read(b, from, None, self.block, to);
        let (whole, left) = (width / self.block, width % self.block);
        let by = self.block * self.step;
        let join = |b: &mut Builder, from: Value, elements: Value, lanes: u32| {
            let old = b.load_as(self.memory, elements, 0, lanes);
            let new = self.load(b, from, 0, lanes);
            let larger = b.max(old, new);
            b.store_as(self.memory, larger, elements, 0, lanes);
        };
        let second = b.offset(from, 1, by);
        if whole > 1 {
            b.each(1, whole, &[(second, by)], |b, it| {
                let pointers =
                    [(it.pointers[0], lanes * self.step), (to.elements, lanes * self.bytes())];
                b.each(0, self.block / lanes, &pointers, |b, it| {
                    join(b, it.pointers[0], it.pointers[1], all);
                });
            });
        }
        let tail = b.offset(from, whole, by);
        for (at, count) in self.vectors(b, left) {
            let from = b.offset(tail, at, self.step);
            let elements = b.offset(to.elements, at, self.bytes());
            join(b, from, elements, count);
        }
    }

    /// The elements of some vectors, and which of them are better than the bound. `first` is the first
    /// one's place.
    fn better(
        &self,
        b: &mut Builder,
        from: Value,
        elements: i64,
        first: Value,
        notes: Notes,
    ) -> Vec<Candidates> {
        let bound = self.one(b, notes.bound, 0);
        let numbers = b.lane_numbers();
        let first = b.add(numbers, first);
        self.vectors(b, elements)
            .map(|(at, lanes)| {
                let x = self.load(b, from, at, lanes);
                let at = b.i32(at as i32);
                let places = b.add(first, at);
                let (above, equal) = (b.less(bound[0], x), b.equal(bound[0], x));
                let earlier = b.less(places, bound[1]);
                let tie = b.and(equal, earlier);
                let mut mask = b.or(above, tie);
                if i64::from(lanes) < b.lanes() {
                    let there = b.i32(lanes as i32);
                    let there = b.less(numbers, there);
                    mask = b.and(mask, there);
                }
                Candidates { pair: [x, places], mask }
            })
            .collect()
    }

    /// Runs the body where any lane of the mask is set.
    fn when(&self, b: &mut Builder, mask: Value, notes: Notes, body: impl FnOnce(&mut Builder)) {
        let (zero, one) = (b.i32(0), b.i32(1));
        let set = b.select(mask, one, zero);
        let any = b.reduce(Reduction::Max, set);
        b.store_as(Memory::I32, any, notes.flag, 0, 1);
        let any = b.load_index(Memory::I32, notes.flag, 0, 2, false);
        b.each(0, any, &[], |b, _| body(b));
    }

    /// Puts the candidates behind those that are there.
    fn collect(&self, b: &mut Builder, better: &[Candidates], here: Held, notes: Notes) {
        let lanes = b.lanes();
        for candidates in better {
            self.when(b, candidates.mask, notes, |b| {
                let (zero, one) = (b.i32(0), b.i32(1));
                let set = b.select(candidates.mask, one, zero);
                self.put(b, candidates.pair, notes.vector, 0);
                b.store_as(Memory::I32, set, notes.set, 0, lanes as u32);
                let mut count = b.load_as(Memory::I32, notes.count, 0, 1);
                for lane in 0..lanes {
                    b.store_as(Memory::I32, count, notes.numbers, lane * PLACE, 1);
                    let number =
                        b.load_index(Memory::I32, notes.numbers, lane * PLACE, self.block, false);
                    let x = b.load_as(self.memory, notes.vector.elements, lane * self.bytes(), 1);
                    let to = b.offset(here.elements, number, self.bytes());
                    b.store_as(self.memory, x, to, 0, 1);
                    let place = b.load_as(Memory::I32, notes.vector.places, lane * PLACE, 1);
                    let to = b.offset(here.places, number, PLACE);
                    b.store_as(Memory::I32, place, to, 0, 1);
                    let set = b.load_as(Memory::I32, notes.set, lane * PLACE, 1);
                    count = b.add(count, set);
                }
                b.store_as(Memory::I32, count, notes.count, 0, 1);
            });
        }
    }

    /// Joins the best so far and those that were collected, which begin anew.
    fn join(&self, b: &mut Builder, [best, here]: [Held; 2], notes: Notes) {
        let lanes = b.lanes();
        // Behind the last one lies what was written and not counted.
        let count = b.broadcast_as(Memory::I32, notes.count, 0);
        let (worst, nowhere, numbers) = (self.worst(b), b.i32(i32::MAX), b.lane_numbers());
        let pointers = [(here.elements, lanes * self.bytes()), (here.places, lanes * PLACE)];
        b.each(0, self.block / lanes, &pointers, |b, it| {
            let held = Held { elements: it.pointers[0], places: it.pointers[1] };
            let first = b.index(IndexOp::Mul, it.index, lanes);
            let first = b.from_index(Type::I32, first);
            let number = b.add(first, numbers);
            let counted = b.less(number, count);
            let [x, place] = self.get(b, held, 0);
            let pair = [b.select(counted, x, worst), b.select(counted, place, nowhere)];
            self.put(b, pair, held, 0);
        });
        self.order(b, here, true);
        let pointers = [
            (best.elements, lanes * self.bytes()),
            (best.places, lanes * PLACE),
            (here.elements, lanes * self.bytes()),
            (here.places, lanes * PLACE),
        ];
        b.each(0, self.block / lanes, &pointers, |b, it| {
            let [best, here] =
                [0, 2].map(|i| Held { elements: it.pointers[i], places: it.pointers[i + 1] });
            let pairs = [self.get(b, best, 0), self.get(b, here, 0)];
            let [better, _] = self.compare(b, pairs[0], pairs[1], Order::BestFirst);
            self.put(b, better, best, 0);
        });
        self.merge(b, best, self.block, Order::BestFirst);
        // The better one of two bounds, as fewer may be kept so far than are asked for.
        let pairs = [self.one(b, best, self.count - 1), self.one(b, notes.bound, 0)];
        let [bound, _] = self.compare(b, pairs[0], pairs[1], Order::BestFirst);
        b.store_as(self.memory, bound[0], notes.bound.elements, 0, 1);
        b.store_as(Memory::I32, bound[1], notes.bound.places, 0, 1);
        let zero = b.i32(0);
        b.store_as(Memory::I32, zero, notes.count, 0, 1);
    }
}
