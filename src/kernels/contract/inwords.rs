//! Words of numbers of four bits ([`nibbles`](crate::lir::nibbles)): their products with rows, block by block.
//!
//! The sums of a block are made of the numbers as they are, and then multiplied by its scales: so a number takes a shift,
//! a look-up (or a mask and a conversion) and the multiply-add for each row. Zero points are what the sum of the
//! row's elements is multiplied by. (So an infinity in a row may give NaN where the definition gives an infinity.)

use super::tiling::{Streams, Tiling};
use crate::kernels::expr;
use crate::kernels::nest::Part;
use crate::kernels::operations;
use crate::kir::build::Builder;
use crate::kir::{Reduction, Shift, Unary, Value};
use crate::lir::nibbles::{Blocks, IN_A_WORD};
use crate::types::DType;

/// Bytes of a word.
const WORD: i64 = 4;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// What lies so many bytes behind a word is called for: there is so much to do for each that few of the words to come are
/// seen by the processor itself. (Measured on Zen 4: words of 5 MB from memory, 715 us without it and 520 with it.)
const AHEAD: i64 = 8192;

/// The zero point of numbers that have none.
const CENTRE: f32 = 8.0;

/// A depth in blocks.
#[derive(Clone, Copy)]
pub(super) struct InBlocks {
    pub(super) of: Blocks,
    /// Elements.
    pub(super) depth: i64,
}

impl Tiling<'_> {
    /// The sums of a tile, part by part in each row.
    pub(super) fn in_blocks(
        &self,
        b: &mut Builder,
        Streams { left, right, .. }: Streams,
        rows: &[(i64, i64)],
        parts: &[Part],
    ) -> Vec<Option<Value>> {
        let Some(InBlocks { of, depth }) = self.problem.blocks else { return vec![] };
        let block = of.block as i64;
        let (whole, rest) = (depth / block, depth % block);
        let steps = [block * WORD, of.rows() as i64 * self.word_step()];
        let zero = operations::zero(b, expr::register(DType::F32));
        let mut sums = vec![zero; rows.len() * parts.len()];
        let mut ends = [left, right];
        if whole > 0 {
            let pointers = [(left, steps[0]), (right, steps[1])];
            sums = b.fold(0, whole, &pointers, &sums, |b, it| {
                let pointers = [it.pointers[0], it.pointers[1]];
                self.block(b, pointers, block, it.carried, rows, parts)
            });
            ends = [0, 1].map(|i| b.offset(ends[i], whole, steps[i]));
        }
        if rest > 0 {
            sums = self.block(b, ends, rest, &sums, rows, parts);
        }
        sums.into_iter().map(Some).collect()
    }

    /// Bytes from a row of words to the next.
    fn word_step(&self) -> i64 {
        self.panel_width() * WORD
    }

    /// The sums, with those of the first elements of a block.
    fn block(
        &self,
        b: &mut Builder,
        [left, right]: [Value; 2],
        count: i64,
        sums: &[Value],
        rows: &[(i64, i64)],
        parts: &[Part],
    ) -> Vec<Value> {
        let Some(InBlocks { of, .. }) = self.problem.blocks else { return vec![] };
        const IN_A_WORD: i64 = self::IN_A_WORD as i64;
        let words = b.offset(right, of.header() as i64, self.word_step());
        let (whole, rest) = (count / IN_A_WORD, count % IN_A_WORD);
        let zero = operations::zero(b, expr::register(DType::F32));
        let mut own = vec![zero; sums.len()];
        let mut ends = [left, words];
        if whole > 0 {
            let steps = [IN_A_WORD * WORD, self.word_step()];
            let pointers = [(left, steps[0]), (words, steps[1])];
            own = b.fold(0, whole, &pointers, &own, |b, it| {
                let pointers = [it.pointers[0], it.pointers[1]];
                self.word(b, pointers, IN_A_WORD, it.carried, rows, parts)
            });
            ends = [0, 1].map(|i| b.offset(ends[i], whole, steps[i]));
        }
        if rest > 0 {
            own = self.word(b, ends, rest, &own, rows, parts);
        }
        // What is not taken off the numbers is taken off their sums.
        let missing = if b.machine().tables == 16 { 0.0 } else { CENTRE };
        let offsets: Option<Vec<Value>> = match (of.zeros, missing) {
            (false, 0.0) => None,
            (false, missing) => Some(vec![b.f32(-missing); parts.len()]),
            (true, missing) => {
                let row = b.offset(right, 1, self.word_step());
                let missing = (missing != 0.0).then(|| b.f32(missing));
                let offset = |&part: &Part| {
                    let value = self.columns_of(b, DType::F32, row, part);
                    missing.map_or(value, |missing| b.sub(value, missing))
                };
                Some(parts.iter().map(offset).collect())
            }
        };
        if let Some(offsets) = offsets {
            for (&row, own) in rows.iter().zip(own.chunks_mut(parts.len())) {
                let all = self.sum_of_row(b, left, row, count);
                for (own, &offset) in own.iter_mut().zip(&offsets) {
                    *own = b.mul_add(all, offset, *own);
                }
            }
        }
        let scales: Vec<Value> =
            parts.iter().map(|&part| self.columns_of(b, DType::F32, right, part)).collect();
        let scales = scales.iter().cycle();
        let all = own.into_iter().zip(scales).zip(sums);
        all.map(|((own, &scale), &sum)| b.mul_add(own, scale, sum)).collect()
    }

    /// A part of a row of words.
    fn columns_of(&self, b: &mut Builder, dtype: DType, row: Value, (at, lanes): Part) -> Value {
        let lanes = if self.fills_panel(b, at) { b.machine().lanes } else { lanes };
        expr::load(b, dtype, row, at * WORD, lanes, false)
    }

    /// The sums, with those of the first elements of a word.
    fn word(
        &self,
        b: &mut Builder,
        [left, right]: [Value; 2],
        count: i64,
        sums: &[Value],
        rows: &[(i64, i64)],
        parts: &[Part],
    ) -> Vec<Value> {
        let words: Vec<Value> =
            parts.iter().map(|&part| self.columns_of(b, DType::I32, right, part)).collect();
        let bytes: i64 = parts.iter().map(|&(_, lanes)| i64::from(lanes) * WORD).sum();
        (0..bytes).step_by(LINE).for_each(|line| b.prefetch(right, AHEAD + line));
        let mut sums = sums.to_vec();
        for k in 0..count {
            let numbers: Vec<Value> = words.iter().map(|&word| number(b, word, k as u8)).collect();
            for (&row, sums) in rows.iter().zip(sums.chunks_mut(parts.len())) {
                let at = self.place(self.problem.left, row, (0, 0)) + k * WORD;
                let element = expr::load(b, DType::F32, left, at, 1, true);
                for (sum, &number) in sums.iter_mut().zip(&numbers) {
                    *sum = b.mul_add(number, element, *sum);
                }
            }
        }
        sums
    }

    /// The sum of the first elements of a block, in all lanes.
    fn sum_of_row(&self, b: &mut Builder, left: Value, row: (i64, i64), count: i64) -> Value {
        let at = self.place(self.problem.left, row, (0, 0));
        let lanes = b.lanes();
        let vectors = (0..count).step_by(lanes as usize).map(|k| {
            let lanes = lanes.min(count - k) as u32;
            expr::load(b, DType::F32, left, at + k * WORD, lanes, false)
        });
        let vectors = vectors.collect();
        let sum = operations::in_pairs(vectors, |one, other| b.add(one, other));
        b.reduce(Reduction::Sum, sum)
    }
}

/// The k-th number of each word: less its centre where that is in the table.
fn number(b: &mut Builder, words: Value, k: u8) -> Value {
    let low = if k == 0 { words } else { b.shift(Shift::RightUnsigned, words, 4 * k) };
    if b.machine().tables == 16 {
        let table: [i32; 16] = std::array::from_fn(|i| (i as f32 - CENTRE).to_bits() as i32);
        let bits = b.lookup(table, low);
        return b.unary(Unary::FromBits, bits);
    }
    let mask = b.i32(15);
    let low = if k == 7 { low } else { b.and(low, mask) };
    b.unary(Unary::ToF32, low)
}
