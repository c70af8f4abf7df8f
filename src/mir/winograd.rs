//! Minimal filtering: convolutions of few taps with fewer products (Winograd, "Arithmetic complexity of
//! computations", 1980; Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016).
//!
//! F(m, 3) computes m neighbouring results of a convolution with 3 taps `g` from m + 2 elements `d` as
//! `A^T [(G g) * (B^T d)]` with m + 2 products; for both axes of an image the transformations are
//! applied to rows and columns. Summed over channels, the products of all tiles are (m + 2)^2
//! independent matrix products. F(m, r) of r taps takes m + r - 1 products; an axis with 1 tap stays as it is.
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
//! | F(2, 5) | 3/4, 3/2 | 3e-6 |
//! | F(4, 5), F(2, 7) | 1/2, 1, 2 | 7e-6 |
//!
//! A convolution with steps of 2 (in fact two interleaved ones of the even elements with 2 taps and of the
//! odd ones with 1) takes F(m, 2) for the even elements, m + 1 products, and one product for each of the
//! m odd ones: 2 m + 1 instead of 3 m. With 4 taps it takes F(m, 2) for both: 2 m + 2 instead of 4 m; with 5
//! F(m, 3) and F(m, 2): 2 m + 3 instead of 5 m.
//!
//! | an even number of taps | points besides infinity | error |
//! | --- | --- | ---: |
//! | F(2, 2) | 1 | 4.5e-7 |
//! | F(4, 2), F(2, 4) | 1/2, 5/4 | 6.3e-7, 9e-7 |
//! | F(4, 4) | 1/4, 3/4, 2 | 4e-6 |
//!
//! Infinities in the input make NaN of all results of their tile.

use super::{Contract, Expr, Op, Weights};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A convolution by minimal filtering along two spatial axes, or one side of it; the products between both
/// sides are an [`Op::Contract`](super::Op::Contract) then. Only f32.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Winograd {
    /// How, along both axes.
    pub axes: [Filter; 2],
    /// Which side.
    pub side: Side,
}

/// How a convolution is filtered along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Filter {
    /// m, the extent of a tile of results.
    pub tile: usize,
    /// Extent of the kernel.
    pub taps: usize,
    /// From one window of the input to the next.
    pub stride: usize,
}

impl Filter {
    /// Extent of a tile of inputs, which is the number of points.
    pub fn points(self) -> usize {
        self.step() - self.stride + self.taps
    }

    /// From one tile of inputs to the next.
    pub fn step(self) -> usize {
        self.tile * self.stride
    }

    /// How many tiles cover so many results.
    pub fn tiles(self, results: usize) -> usize {
        results.div_ceil(self.tile)
    }

    /// Whether there are matrices for it.
    pub fn is_known(self) -> bool {
        match (self.taps, self.stride) {
            (1, 1) => self.tile == 1,
            (2 | 4 | 5, 1) | (3..=5, 2) => matches!(self.tile, 2 | 4),
            (3, 1) => matches!(self.tile, 2 | 4 | 6),
            (7, 1) => self.tile == 2,
            _ => false,
        }
    }
}

/// Which side of the products, or all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// One operand X `[N, H, W, C]`; result `[points, N * tiles, C]`, with the points of both axes. Tile
    /// (i, j) is made of rows `i * m * stride - before[0] ..` and columns `j * m * stride - before[1] ..`, as many
    /// of each as there are points; elements outside of X are zero.
    Input {
        /// Zeros above the first row and left of the first column; fewer than points.
        before: [usize; 2],
        /// Number of tiles along both axes.
        tiles: [usize; 2],
    },
    /// Operands: products `[points, N * tiles, K]`, then those of the epilogue; result
    /// `[N, H, W, K]`, with as many tiles along both axes as cover it.
    Output {
        /// As in [`Contract`](super::Contract).
        epilogue: Option<Expr>,
    },
    /// Operands: the parts of X by its channels, `[N, H, W, C_i]` each; the transformed weights in panels,
    /// `[points, K / width, C, width]`, rounded up; then those of the epilogue. Result
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

    /// Points of a tile.
    pub fn points(&self) -> usize {
        self.axes.iter().map(|axis| axis.points()).product()
    }

    /// Whether there are matrices for it.
    pub fn is_known(&self) -> bool {
        self.axes.iter().all(|axis| axis.is_known())
    }

    /// Rows and columns of tiles for a result of so many rows and columns.
    pub fn tiles(&self, results: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| self.axes[axis].tiles(results[axis]))
    }

    /// The first operand that belongs to the epilogue.
    pub fn first_extra(&self) -> usize {
        match self.side {
            Side::Input { .. } | Side::Output { .. } => 1,
            Side::Both { parts, .. } => parts + 1,
        }
    }

    /// The same with less working memory: of at most so many shares, and for blocks of at most so many tiles, which are
    /// whole rows of the result, of four dimensions, or even parts of a row.
    pub fn limit(&mut self, most: Working, result: &[usize]) {
        let (Side::Both { block, shares, .. }, &[_, _, width, _]) = (&mut self.side, result) else {
            return;
        };
        *shares = most.shares.clamp(1, *shares);
        let columns = self.axes[1].tiles(width).max(1);
        let tiles = most.tiles.max(1);
        let whole = block[1].min(columns);
        *block = match tiles / whole {
            0 => [1, columns.div_ceil(columns.div_ceil(tiles))],
            rows => [block[0].min(rows), block[1]],
        };
    }

    /// How [`Side::Both`] is cut, for inputs with so many channels in all and a result of these four
    /// dimensions; `None` for one side.
    pub fn blocks(&self, channels: usize, result: &[usize]) -> Option<Blocks> {
        let (&Side::Both { block, shares, .. }, &[images, height, width, outputs]) =
            (&self.side, result)
        else {
            return None;
        };
        let tiles = self.tiles([height, width]);
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
            all: self.points(),
        })
    }
}

/// How much working memory a convolution may have at most; what it has by default if both are the largest numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Working {
    /// Shares of the work.
    pub shares: usize,
    /// Tiles in a block.
    pub tiles: usize,
}

impl Working {
    /// No limit.
    pub const ALL: Working = Working { shares: usize::MAX, tiles: usize::MAX };
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
    /// How many blocks of an image have so many tiles: the last ones along an axis may have fewer.
    pub fn sizes(&self) -> impl Iterator<Item = (usize, usize)> {
        let along = |axis: usize| {
            let (all, size) = (self.tiles[axis], self.block[axis]);
            [(all / size, size), (usize::from(all % size > 0), all % size)]
        };
        let columns = along(1);
        let all = along(0).into_iter().flat_map(move |rows| columns.map(|columns| (rows, columns)));
        all.map(|((rows, height), (columns, width))| (rows * columns, height * width))
            .filter(|&(count, _)| count > 0)
    }

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
    /// G, of points by taps, for weights.
    pub weights: Vec<Vec<f64>>,
    /// A^T, of m by points, for products.
    pub output: Vec<Vec<f64>>,
    /// All points in order: two that are opposite, or one.
    pub groups: Vec<Range<usize>>,
}

impl Matrices {
    /// Those of an axis ([`Filter::is_known`]).
    pub fn new(axis: Filter) -> Matrices {
        let m = axis.tile;
        if axis.stride == 1 {
            return Matrices::of(m, axis.taps);
        }
        // The even elements, then the odd ones.
        let (mut input, mut weights, mut output) = (vec![], vec![], vec![vec![]; m]);
        let mut groups: Vec<Range<usize>> = vec![];
        for parity in 0..2 {
            let taps = (axis.taps + 1 - parity) / 2;
            let part = Matrices::of(m, taps);
            let spread = |row: &Vec<f64>, extent: usize| -> Vec<f64> {
                let at = |i: usize| i.checked_sub(parity).filter(|i| i % 2 == 0).map(|i| i / 2);
                (0..extent)
                    .map(|i| at(i).and_then(|i| row.get(i)).copied().unwrap_or(0.0))
                    .collect()
            };
            let before = input.len();
            groups.extend(part.groups.iter().map(|g| before + g.start..before + g.end));
            input.extend(part.input.iter().map(|row| spread(row, axis.points())));
            weights.extend(part.weights.iter().map(|row| spread(row, axis.taps)));
            output.iter_mut().zip(part.output).for_each(|(all, row)| all.extend(row));
        }
        Matrices { input, weights, output, groups }
    }

    /// Those of F(m, taps).
    fn of(m: usize, taps: usize) -> Matrices {
        if taps == 1 {
            let identity = |i: usize| (0..m).map(|j| f64::from(u8::from(i == j))).collect();
            let input: Vec<Vec<f64>> = (0..m).map(identity).collect();
            let (output, weights) = (input.clone(), vec![vec![1.0]; m]);
            return Matrices {
                input,
                weights,
                output,
                groups: (0..m).map(|at| at..at + 1).collect(),
            };
        }
        let extent = m + taps - 1;
        // But for infinity.
        let magnitudes: &[f64] = match extent - 1 {
            2 | 3 => &[1.0],
            4 => &[0.5, 1.25],
            5 => &[0.75, 1.5],
            6 => &[0.75, 2.0, 0.25],
            _ => &[1.0, 2.0, 0.5],
        };
        let pairs = magnitudes.iter().flat_map(|&p| [p, -p]);
        let zero = extent.is_multiple_of(2).then_some(0.0);
        let finite: Vec<f64> = zero.into_iter().chain(pairs).collect();
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
        let output: Vec<Vec<f64>> = (0..m).map(row).collect();
        let first = finite.len() - 2 * magnitudes.len();
        let pairs = (first..finite.len()).step_by(2).map(|at| at..at + 2);
        let mut groups: Vec<Range<usize>> = (0..first).map(|at| at..at + 1).chain(pairs).collect();
        groups.push(finite.len()..finite.len() + 1);
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

/// `first * block * second^T` of a block of rows.
pub fn both_axes([first, second]: [&[Vec<f64>]; 2], block: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dot = |row: &[f64], column: &dyn Fn(usize) -> f64| -> f64 {
        row.iter().enumerate().map(|(i, a)| a * column(i)).sum()
    };
    let along = |row: &[f64], j: usize| dot(row, &|i| block[i][j]);
    let rows = first.iter().map(|row| (0..block[0].len()).map(|j| along(row, j)).collect());
    let rows: Vec<Vec<f64>> = rows.collect();
    rows.iter().map(|r| second.iter().map(|row| dot(row, &|j| r[j])).collect()).collect()
}

/// All of it by its definition, without the epilogue.
pub(super) fn both(w: &Winograd, operands: &[&Tensor], ty: &Type) -> Tensor {
    let Side::Both { before, parts, width, .. } = w.side else {
        unreachable!("one side has a definition of its own")
    };
    let [n, height, columns, outputs] = [0, 1, 2, 3].map(|axis| ty.dims[axis]);
    let tiles = w.tiles([height, columns]);
    let points = w.points();
    let of = |channels: usize| Type::new(DType::F32, [points, n * tiles[0] * tiles[1], channels]);
    let transformed: Vec<Tensor> =
        operands[..parts].iter().map(|x| input(w, before, tiles, x, &of(x.dims()[3]))).collect();
    let transformed: Vec<&Tensor> = transformed.iter().collect();
    let channels = transformed.iter().map(|x| x.dims()[2]).sum();
    let transformed = super::eval::op(&Op::Concat { axis: 2 }, &transformed, &of(channels));
    let weights = Weights::Panels { width, columns: outputs };
    let products = Op::Contract(Contract::of(weights));
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
    let (values, points) = (x.f64s(), w.axes.map(Filter::points));
    let [n, h, width, c] = [0, 1, 2, 3].map(|axis| x.dims()[axis]);
    let matrices = w.axes.map(|axis| Matrices::new(axis).input);
    let count = n * tiles[0] * tiles[1];
    let mut out = vec![0.0; ty.elements()];
    let inside = |axis: usize, tile: usize, i: usize, extent: usize| {
        (tile * w.axes[axis].step() + i).checked_sub(before[axis]).filter(|&at| at < extent)
    };
    for tile in 0..count {
        let (row, column) = (tile / tiles[1] % tiles[0], tile % tiles[1]);
        let image = tile / (tiles[0] * tiles[1]);
        for channel in 0..c {
            let element = |i: usize, j: usize| {
                let at = inside(0, row, i, h).zip(inside(1, column, j, width));
                at.map_or(0.0, |(i, j)| values[((image * h + i) * width + j) * c + channel])
            };
            let block: Vec<Vec<f64>> =
                (0..points[0]).map(|i| (0..points[1]).map(|j| element(i, j)).collect()).collect();
            let both = both_axes([&matrices[0], &matrices[1]], &block);
            for (point, value) in both.concat().into_iter().enumerate() {
                out[(point * count + tile) * c + channel] = value;
            }
        }
    }
    Tensor::from_f64s(ty.clone(), out)
}

/// The output's side by its definition, without the epilogue.
pub(super) fn output(winograd: &Winograd, products: &Tensor, ty: &Type) -> Tensor {
    let (values, points) = (products.f64s(), winograd.axes.map(Filter::points));
    let [_, h, w, k] = [0, 1, 2, 3].map(|axis| ty.dims[axis]);
    let (tiles, m) = (winograd.tiles([h, w]), winograd.axes.map(|axis| axis.tile));
    let matrices = winograd.axes.map(|axis| Matrices::new(axis).output);
    let count = products.dims()[1];
    let ty = ty.with_dtype(DType::F32);
    let mut out = vec![0.0; ty.elements()];
    for tile in 0..count {
        let (row, column) = (tile / tiles[1] % tiles[0], tile % tiles[1]);
        let image = tile / (tiles[0] * tiles[1]);
        for channel in 0..k {
            let element =
                |i: usize, j: usize| values[((i * points[1] + j) * count + tile) * k + channel];
            let block: Vec<Vec<f64>> =
                (0..points[0]).map(|i| (0..points[1]).map(|j| element(i, j)).collect()).collect();
            let both = both_axes([&matrices[0], &matrices[1]], &block);
            for (i, results) in both.iter().enumerate() {
                for (j, value) in results.iter().enumerate() {
                    let (i, j) = (row * m[0] + i, column * m[1] + j);
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
        let known = (1..7).flat_map(|tile| {
            (1..9).flat_map(move |taps| (1..3).map(move |stride| Filter { tile, taps, stride }))
        });
        for axis in known.filter(|axis| axis.is_known()) {
            let Matrices { input, weights, output, groups } = Matrices::new(axis);
            let Filter { tile: m, taps, stride } = axis;
            let points = axis.points();
            assert_eq!(
                groups.iter().flat_map(Clone::clone).collect::<Vec<_>>(),
                Vec::from_iter(0..points)
            );
            let number = |i: usize| ((i * 37 + 11) % 19) as f64 - 9.0;
            let d: Vec<Vec<f64>> =
                (0..points).map(|i| (0..points).map(|j| number(i * 9 + j)).collect()).collect();
            let g: Vec<Vec<f64>> =
                (0..taps).map(|i| (0..taps).map(|j| number(i * 3 + j + 100)).collect()).collect();
            let u = both_axes([&weights, &weights], &g);
            let v = both_axes([&input, &input], &d);
            let products: Vec<Vec<f64>> = (u.iter().zip(&v))
                .map(|(u, v)| u.iter().zip(v).map(|(u, v)| u * v).collect())
                .collect();
            let y = both_axes([&output, &output], &products);
            for i in 0..m {
                for j in 0..m {
                    let at = |i: usize, tap: usize| i * stride + tap;
                    let all = (0..taps * taps).map(|t| (t / taps, t % taps));
                    let direct: f64 = all.map(|(s, t)| d[at(i, s)][at(j, t)] * g[s][t]).sum();
                    assert!((y[i][j] - direct).abs() < 1e-9, "{axis:?}: {} {direct}", y[i][j]);
                }
            }
        }
    }
}
