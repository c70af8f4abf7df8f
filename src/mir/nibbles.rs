//! Weights of four bits in blocks: words of eight numbers, and what they mean.
//!
//! The depth is in blocks of `block` elements, a multiple of eight. A matrix of words (`i32`) has a row for the scales of a
//! block (the bits of `f32`), where blocks have zero points a row for 8 less each of them (likewise), and a row for each
//! eight elements: the k-th of them in the bits from `4 k` on. An element means `scale * (number - zero)`, where the zero
//! point is 8 if there is none. So all that a column needs for a block lies in the order in which it is read. Elements
//! behind the end of the depth count for nothing.

use crate::tensor::Tensor;
use crate::types::{DType, Type};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Numbers in a word.
pub const IN_A_WORD: usize = 8;

/// How a column is in blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Blocks {
    /// Elements of a block: a multiple of eight.
    pub block: usize,
    /// Whether blocks have zero points.
    pub zeros: bool,
}

impl Blocks {
    /// Whether there can be such blocks.
    pub fn is_possible(self) -> bool {
        self.block > 0 && self.block.is_multiple_of(IN_A_WORD)
    }

    /// Rows before the numbers of a block.
    pub fn header(self) -> usize {
        1 + usize::from(self.zeros)
    }

    /// Rows of a block.
    pub fn rows(self) -> usize {
        self.header() + self.block / IN_A_WORD
    }

    /// Rows of all blocks of a depth.
    pub fn words(self, depth: usize) -> usize {
        depth.div_ceil(self.block) * self.rows()
    }
}

/// The matrix of words `[words, columns]` of `columns` rows of numbers, two to a byte and the lower one first, in whole
/// blocks; of a scale for each block of each row, and perhaps of a zero point.
///
/// # Panics
///
/// When they are not as many as `depth` and the columns ask for.
pub fn words(
    numbers: &Tensor,
    scales: &Tensor,
    zeros: Option<&Tensor>,
    blocks: Blocks,
    [depth, columns]: [usize; 2],
) -> Tensor {
    let ty = Type::new(DType::I32, [blocks.words(depth), columns]);
    let of = [Some(numbers), Some(scales), zeros].into_iter().flatten().collect::<Vec<_>>();
    let (own, count) = (ty.clone(), depth.div_ceil(blocks.block));
    Tensor::later(ty, &format!("words {blocks:?} of {depth}"), &of, move |of| {
        let (numbers, scales) = (of[0].bytes(), of[1].f32s());
        let zeros = of.get(2).map(|zeros| zeros.f32s());
        let row = blocks.block / 2;
        let mut data = Vec::with_capacity(own.bytes());
        for block in 0..count {
            let at = |column: usize| column * count + block;
            (0..columns).for_each(|n| data.extend(scales[at(n)].to_le_bytes()));
            if let Some(zeros) = &zeros {
                (0..columns).for_each(|n| data.extend((8.0 - zeros[at(n)]).to_le_bytes()));
            }
            for word in 0..blocks.block / IN_A_WORD {
                for n in 0..columns {
                    data.extend_from_slice(&numbers[at(n) * row + 4 * word..][..4]);
                }
            }
        }
        Tensor::from_bytes(own, Bytes::from(data)).expect("it has these rows")
    })
}

/// What a matrix of words in panels `[panels, words, width]` means: `[depth, columns]` of `f32`.
pub fn unpacked(panels: &Tensor, blocks: Blocks, [depth, columns]: [usize; 2]) -> Tensor {
    let ty = Type::new(DType::F32, [depth, columns]);
    let own = ty.clone();
    Tensor::later(ty, &format!("numbers of words {blocks:?}"), &[panels], move |of| {
        let words = of[0].bytes().as_chunks::<4>().0;
        let [_, rows, width] = *of[0].dims() else { return Tensor::zeros(own) };
        let mut data = Vec::with_capacity(own.bytes());
        for k in 0..depth {
            let first = k / blocks.block * blocks.rows();
            let (within, bits) = (k % blocks.block / IN_A_WORD, k % IN_A_WORD * 4);
            for n in 0..columns {
                let word = |row: usize| words[(n / width * rows + first + row) * width + n % width];
                let number = u32::from_le_bytes(word(blocks.header() + within)) >> bits & 15;
                let less = if blocks.zeros { f32::from_le_bytes(word(1)) } else { 0.0 };
                let value = f32::from_le_bytes(word(0)) * (number as f32 - 8.0 + less);
                data.extend(value.to_le_bytes());
            }
        }
        Tensor::from_bytes(own, Bytes::from(data)).expect("it has these elements")
    })
}
