//! How the rows of a [`super::Op::Sort`] are shared and cut.
//!
//! What is asked for is kept in a block of elements, as many as a power of two. Of a longer row what may be among
//! them is collected in another one; a full block is sorted and joined with the best so far.

use crate::types::{DType, Type};

/// At most so many shares: more would take more working memory, fewer would leave threads idle.
const SHARES: usize = 8;

/// A block has at least so many elements: two vectors of any machine.
const LEAST: usize = 32;

/// It follows from the dimensions alone: the arena's size depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// How many there are; they may be computed side by side.
    pub shares: usize,
    /// Rows of a share (the last one may have fewer).
    pub rows: usize,
    /// Elements of a block, a power of two.
    pub block: usize,
    /// Blocks of a row (the last one may have fewer elements).
    pub blocks: usize,
    /// Words of 4 bytes that hold an element.
    pub words: usize,
}

impl Runs {
    /// For `count` places of each row of a tensor of this type.
    pub fn of(ty: &Type, count: usize) -> Runs {
        let (&width, outer) = ty.dims.split_last().unwrap_or((&1, &[]));
        let all: usize = outer.iter().product();
        let rows = all.div_ceil(SHARES).max(1);
        let block = count.max(LEAST).next_power_of_two();
        Runs {
            shares: all.div_ceil(rows),
            rows,
            block,
            blocks: width.div_ceil(block),
            // Unsigned ones of 4 bytes are held in 8.
            words: if ty.dtype.bytes() == 8 || ty.dtype == DType::U32 { 2 } else { 1 },
        }
    }

    /// Words of the largest vector.
    pub const LINE: usize = 16;

    /// Words of 4 bytes that a share works in: elements and their places, of a block and, if there are more, of the
    /// best so far and six lines of notes.
    pub fn elements(&self) -> usize {
        let block = self.block * (self.words + 1);
        if self.blocks > 1 { 2 * block + 6 * Runs::LINE } else { block }
    }
}
