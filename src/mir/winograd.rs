//! Minimal filtering: 3 x 3 convolutions with fewer products (Winograd, "Arithmetic complexity of
//! computations", 1980; Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016).
//!
//! F(m, 3) computes m neighbouring results of a convolution with 3 taps `g` from m + 2 elements `d` as
//! `A^T [(G g) * (B^T d)]` with m + 2 products; for both axes of an image the transformations are
//! applied to rows and columns. Summed over channels, the products of all tiles are (m + 2)^2
//! independent matrix products.
//!
//! The matrices come from polynomial multiplication (Toom and Cook), transposed: for the points `p` of
//! evaluation, one of which is infinity, row p of G is `[1, p, p^2] / N` with `N` the product of
//! `p - q` over the other finite points q, column p of A^T is the powers of p, and row p of B^T has the
//! coefficients of the product of `x - q`.
//!
//! Points come in pairs of opposite signs, which share most of their work. They decide how much is lost
//! by rounding. Measured with 128 channels of half-normal inputs, f32, root mean square of the error
//! over the mean magnitude of the results (direct summation: 5e-7):
//!
//! | | points besides 0 and infinity | error |
//! | --- | --- | ---: |
//! | F(2, 3) | 1 | 3e-7 |
//! | F(4, 3) | 3/4, 3/2 | 1.3e-6 |
//! | F(4, 3), not used | 1, 2 | 2.6e-6 |
//! | F(6, 3) | 1/2, 1, 2 | 5e-6 |
//!
//! A convolution with steps of 2 (in fact two interleaved ones of the even elements with 2 taps and of the
//! odd ones with 1) takes F(m, 2) for the even elements, m + 1 products, and one product for each of the
//! m odd ones: 2 m + 1 instead of 3 m.
//!
//! | by 2 | points besides infinity | error |
//! | --- | --- | ---: |
//! | F(2, 2) | 1 | 4.5e-7 |
//! | F(4, 2) | 1/2, 5/4 | 6.3e-7 |
//!
//! Infinities in the input make NaN of all results of their tile.

use super::{Contract, Expr, Op, Weights};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A convolution by F(m, 3) along two spatial axes, or one side of it; the products between both sides
/// are an [`Op::Contract`](super::Op::Contract) then. Only f32.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Winograd {
    /// m, the extent of a tile of results along both axes: 2, 4 or 6.
    pub tile: usize,
    /// From one window of the input to the next, along both axes: 1, or 2 with tiles of 2 or 4.
    pub stride: usize,
    /// Which side.
    pub side: Side,
}

/// Which side of the products, or all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// One operand X `[N, H, W, C]`; result `[points^2, N * tiles, C]`. Tile (i, j) is made of rows
    /// `i * m * stride - before[0] ..` and columns `j * m * stride - before[1] ..`, as many of each as there
    /// are points; elements outside of X are zero.
    Input {
        /// Zeros above the first row and left of the first column; fewer than points.
        before: [usize; 2],
        /// Number of tiles along both axes.
        tiles: [usize; 2],
    },
    /// Operands: products `[points^2, N * tiles, K]`, then those of the epilogue; result
    /// `[N, H, W, K]`, with as many tiles along both axes as cover it.
    Output {
        /// As in [`Contract`](super::Contract).
        epilogue: Option<Expr>,
    },
    /// Operands: the parts of X by its channels, `[N, H, W, C_i]` each; the transformed weights in panels,
    /// `[points^2, K / width, C, width]`, rounded up; then those of the epilogue. Result
    /// `[N, H', W', K]`: tiles as for [`Side::Input`], as many as cover it. What lies between the sides
    /// is in working memory, a block of tiles at a time.
    Both {
        /// As for [`Side::Input`].
        before: [usize; 2],
        /// How many parts X has.
        parts: usize,
        /// Rows and columns of tiles in a block (the last ones of an image may have fewer).
        block: [usize; 2],
        /// Shares of the work at most, each with working memory of its own ([`Winograd::SHARES`]).
        shares: usize,
        /// Columns of a panel.
        width: usize,
        /// As in [`Contract`](super::Contract).
        epilogue: Option<Expr>,
    },
}

impl Winograd {
    /// Shares where memory is no matter: more would take more of it, fewer would leave threads idle.
    pub const SHARES: usize = 8;

    /// Extent of a tile of inputs, which is the number of points: m + 2, or 2 m + 1 by 2.
    pub fn points(&self) -> usize {
        (self.tile - 1) * self.stride + 3
    }

    /// Whether there are matrices for it.
    pub fn is_known(&self) -> bool {
        matches!((self.tile, self.stride), (2 | 4 | 6, 1) | (2 | 4, 2))
    }

    /// The first operand that belongs to the epilogue.
    pub fn first_extra(&self) -> usize {
        match self.side {
            Side::Input { .. } | Side::Output { .. } => 1,
            Side::Both { parts, .. } => parts + 1,
        }
    }

    /// How [`Side::Both`] is cut, for inputs with so many channels in all and a result of these four
    /// dimensions; `None` for one side.
    pub fn blocks(&self, channels: usize, result: &[usize]) -> Option<Blocks> {
        let (&Side::Both { block, shares, .. }, &[images, height, width, outputs]) =
            (&self.side, result)
        else {
            return None;
        };
        let tiles = [height, width].map(|extent| extent.div_ceil(self.tile));
        let block = [0, 1].map(|axis| block[axis].clamp(1, tiles[axis].max(1)));
        let count = [0, 1].map(|axis| tiles[axis].div_ceil(block[axis]));
        // What belongs to one point, with a line between: points that lie a power of two apart
        // meet in the same lines of the cache.
        const LINE: usize = 16;
        let point =
            |channels: usize| (block[0] * block[1] * channels).next_multiple_of(LINE) + LINE;
        Some(Blocks {
            tiles,
            block,
            count,
            shares: (images * count[0] * count[1]).min(shares.max(1)),
            points: [channels, outputs].map(point),
            all: self.points().pow(2),
        })
    }
}

/// How a convolution is cut into blocks of tiles, and those into shares, each with working memory of its
/// own. It follows from the dimensions alone: the arena's size depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Rows and columns of tiles in an image.
    pub tiles: [usize; 2],
    /// Rows and columns of tiles in a block.
    pub block: [usize; 2],
    /// Rows and columns of blocks in an image.
    pub count: [usize; 2],
    /// How many shares there are, of which each has its part of all blocks; they may be computed side
    /// by side.
    pub shares: usize,
    /// Elements from one point of a block to the next, of inputs and of products.
    pub points: [usize; 2],
    /// Points of a tile.
    pub all: usize,
}

impl Blocks {
    /// Elements of working memory for a share: the inputs of all points, then the products.
    pub fn elements(&self) -> usize {
        self.points.iter().fold(0, |sum, point| sum.saturating_add(self.all.saturating_mul(*point)))
    }
}

/// The matrices of one tile, by rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrices {
    /// B^T, of points by points, for inputs.
    pub input: Vec<Vec<f64>>,
    /// G, of points by 3, for weights.
    pub weights: Vec<Vec<f64>>,
    /// A^T, of m by points, for products.
    pub output: Vec<Vec<f64>>,
    /// All points in order: two that are opposite, or one.
    pub groups: Vec<Range<usize>>,
}

impl Matrices {
    /// Those for tiles of `m` results of windows `stride` apart ([`Winograd::is_known`]).
    pub fn new(m: usize, stride: usize) -> Matrices {
        let by_two = stride == 2;
        let magnitudes: &[f64] = match m {
            2 => &[1.0],
            4 if by_two => &[0.5, 1.25],
            4 => &[0.75, 1.5],
            _ => &[1.0, 2.0, 0.5],
        };
        let pairs = magnitudes.iter().flat_map(|&p| [p, -p]);
        let zero = (!by_two).then_some(0.0);
        let finite: Vec<f64> = zero.into_iter().chain(pairs).collect();
        // So many taps, and elements for them.
        let taps = if by_two { 2 } else { 3 };
        let extent = m + taps - 1;
        let others = |at: usize| {
            let all = finite.iter().enumerate();
            all.filter(move |&(i, _)| i != at).map(|(_, &q)| q).collect::<Vec<f64>>()
        };
        let (mut input, mut weights): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (vec![], vec![]);
        for (at, &p) in finite.iter().enumerate() {
            let norm: f64 = others(at).iter().map(|q| p - q).product();
            weights.push((0..taps).map(|power| p.powi(power as i32) / norm).collect());
            input.push(polynomial(&others(at), extent));
        }
        weights.push((0..taps).map(|tap| f64::from(u8::from(tap + 1 == taps))).collect());
        input.push(polynomial(&finite, extent));
        let row = |k: usize| {
            let powers = finite.iter().map(|p| p.powi(k as i32));
            powers.chain([if k + 1 == m { 1.0 } else { 0.0 }]).collect()
        };
        let mut output: Vec<Vec<f64>> = (0..m).map(row).collect();
        let first = finite.len() - 2 * magnitudes.len();
        let pairs = (first..finite.len()).step_by(2).map(|at| at..at + 2);
        let mut groups: Vec<Range<usize>> = (0..first).map(|at| at..at + 1).chain(pairs).collect();
        groups.push(finite.len()..finite.len() + 1);
        if by_two {
            // Of the even elements so far.
            let spread =
                |row: &Vec<f64>| row.iter().flat_map(|&c| [c, 0.0]).take(2 * m + 1).collect();
            input = input.iter().map(spread).collect();
            weights = weights.iter().map(|row| vec![row[0], 0.0, row[1]]).collect();
            for odd in 0..m {
                groups.push(input.len()..input.len() + 1);
                input.push((0..2 * m + 1).map(|i| f64::from(u8::from(i == 2 * odd + 1))).collect());
                weights.push(vec![0.0, 1.0, 0.0]);
                for (i, row) in output.iter_mut().enumerate() {
                    row.push(f64::from(u8::from(i == odd)));
                }
            }
        }
        Matrices { input, weights, output, groups }
    }
}

/// The first `count` coefficients of the polynomial with these roots, the constant first.
fn polynomial(roots: &[f64], count: usize) -> Vec<f64> {
    let mut coefficients = vec![0.0; count];
    coefficients[0] = 1.0;
    for root in roots {
        for i in (0..count).rev() {
            let below = if i > 0 { coefficients[i - 1] } else { 0.0 };
            coefficients[i] = below - root * coefficients[i];
        }
    }
    coefficients
}

/// `matrix * square * matrix^T` of a square (or, for weights, any) block of rows.
pub fn both_axes(matrix: &[Vec<f64>], block: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dot = |row: &[f64], column: &dyn Fn(usize) -> f64| -> f64 {
        row.iter().enumerate().map(|(i, a)| a * column(i)).sum()
    };
    let along = |row: &[f64], j: usize| dot(row, &|i| block[i][j]);
    let rows = matrix.iter().map(|row| (0..block[0].len()).map(|j| along(row, j)).collect());
    let rows: Vec<Vec<f64>> = rows.collect();
    rows.iter().map(|r| matrix.iter().map(|row| dot(row, &|j| r[j])).collect()).collect()
}

/// All of it by its definition, without the epilogue.
pub(super) fn both(w: &Winograd, operands: &[&Tensor], ty: &Type) -> Tensor {
    let Side::Both { before, parts, width, .. } = w.side else {
        unreachable!("one side has a definition of its own")
    };
    let [n, height, columns, outputs] = [0, 1, 2, 3].map(|axis| ty.dims[axis]);
    let tiles = [height, columns].map(|extent| extent.div_ceil(w.tile));
    let points = w.points().pow(2);
    let of = |channels: usize| Type::new(DType::F32, [points, n * tiles[0] * tiles[1], channels]);
    let transformed: Vec<Tensor> =
        operands[..parts].iter().map(|x| input(w, before, tiles, x, &of(x.dims()[3]))).collect();
    let transformed: Vec<&Tensor> = transformed.iter().collect();
    let channels = transformed.iter().map(|x| x.dims()[2]).sum();
    let transformed = super::eval::op(&Op::Concat { axis: 2 }, &transformed, &of(channels));
    let weights = Weights::Panels { width, columns: outputs };
    let products = Op::Contract(Contract { weights, epilogue: None, backwards: false });
    let products = super::eval::op(&products, &[&transformed, operands[parts]], &of(outputs));
    output(w, &products, ty)
}

/// The input's side by its definition.
pub(super) fn input(
    w: &Winograd,
    before: [usize; 2],
    tiles: [usize; 2],
    x: &Tensor,
    ty: &Type,
) -> Tensor {
    let (values, points) = (x.f64s(), w.points());
    let [n, h, width, c] = [0, 1, 2, 3].map(|axis| x.dims()[axis]);
    let matrix = Matrices::new(w.tile, w.stride).input;
    let count = n * tiles[0] * tiles[1];
    let mut out = vec![0.0; ty.elements()];
    let inside = |tile: usize, i: usize, before: usize, extent: usize| {
        (tile * w.tile * w.stride + i).checked_sub(before).filter(|&at| at < extent)
    };
    for tile in 0..count {
        let (row, column) = (tile / tiles[1] % tiles[0], tile % tiles[1]);
        let image = tile / (tiles[0] * tiles[1]);
        for channel in 0..c {
            let element = |i: usize, j: usize| {
                let at = inside(row, i, before[0], h).zip(inside(column, j, before[1], width));
                at.map_or(0.0, |(i, j)| values[((image * h + i) * width + j) * c + channel])
            };
            let block: Vec<Vec<f64>> =
                (0..points).map(|i| (0..points).map(|j| element(i, j)).collect()).collect();
            for (point, value) in both_axes(&matrix, &block).concat().into_iter().enumerate() {
                out[(point * count + tile) * c + channel] = value;
            }
        }
    }
    Tensor::from_f64s(ty.clone(), out)
}

/// The output's side by its definition, without the epilogue.
pub(super) fn output(winograd: &Winograd, products: &Tensor, ty: &Type) -> Tensor {
    let (values, points, m) = (products.f64s(), winograd.points(), winograd.tile);
    let [_, h, w, k] = [0, 1, 2, 3].map(|axis| ty.dims[axis]);
    let tiles = [h.div_ceil(m), w.div_ceil(m)];
    let matrix = Matrices::new(m, winograd.stride).output;
    let count = products.dims()[1];
    let ty = ty.with_dtype(DType::F32);
    let mut out = vec![0.0; ty.elements()];
    for tile in 0..count {
        let (row, column) = (tile / tiles[1] % tiles[0], tile % tiles[1]);
        let image = tile / (tiles[0] * tiles[1]);
        for channel in 0..k {
            let element =
                |i: usize, j: usize| values[((i * points + j) * count + tile) * k + channel];
            let block: Vec<Vec<f64>> =
                (0..points).map(|i| (0..points).map(|j| element(i, j)).collect()).collect();
            for (i, results) in both_axes(&matrix, &block).iter().enumerate() {
                for (j, value) in results.iter().enumerate() {
                    let (i, j) = (row * m + i, column * m + j);
                    if i < h && j < w {
                        out[((image * h + i) * w + j) * k + channel] = *value;
                    }
                }
            }
        }
    }
    Tensor::from_f64s(ty, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_convolutions() {
        for (m, stride) in [(2, 1), (4, 1), (6, 1), (2, 2), (4, 2)] {
            let Matrices { input, weights, output, groups } = Matrices::new(m, stride);
            let points = (m - 1) * stride + 3;
            assert_eq!(
                groups.iter().flat_map(Clone::clone).collect::<Vec<_>>(),
                Vec::from_iter(0..points)
            );
            let number = |i: usize| ((i * 37 + 11) % 19) as f64 - 9.0;
            let d: Vec<Vec<f64>> =
                (0..points).map(|i| (0..points).map(|j| number(i * 9 + j)).collect()).collect();
            let g: Vec<Vec<f64>> =
                (0..3).map(|i| (0..3).map(|j| number(i * 3 + j + 100)).collect()).collect();
            let (u, v) = (both_axes(&weights, &g), both_axes(&input, &d));
            let products: Vec<Vec<f64>> = (u.iter().zip(&v))
                .map(|(u, v)| u.iter().zip(v).map(|(u, v)| u * v).collect())
                .collect();
            let y = both_axes(&output, &products);
            for i in 0..m {
                for j in 0..m {
                    let at = |i: usize, tap: usize| i * stride + tap;
                    let taps = (0..9).map(|t| d[at(i, t / 3)][at(j, t % 3)] * g[t / 3][t % 3]);
                    let direct: f64 = taps.sum();
                    assert!((y[i][j] - direct).abs() < 1e-9, "{m}: {} {direct}", y[i][j]);
                }
            }
        }
    }
}
