//! Convolutions by minimal filtering as a whole: both sides and the products between them, for one
//! block of tiles after the other, with what lies between in working memory that stays in the cache.
//!
//! A share of the work is some neighbouring blocks. All that a call is given it does in the working
//! memory of its first share, so that threads meet only at the edges of their rows.

use super::contract::Block;
use super::expr::Body;
use super::nest::{Level, advancing, moved};
use super::winograd::{self, Axis, Input, Output, Segment};
use super::{Frame, KernelPlan, Shape};
use crate::error::ErrorKind;
use crate::kir::build::Builder;
use crate::kir::{IndexOp, Value};
use crate::lir::{Blocks, Expr, Matrices, Side, Winograd};
use crate::types::DType;
use std::ops::Range;

/// Bytes of an element.
const SIZE: i64 = 4;

/// Whether it is a convolution as a whole.
pub(super) fn is_one(winograd: &Winograd) -> bool {
    matches!(winograd.side, Side::Both { .. })
}

/// The kernel; `None` where it is not for vectors.
pub(super) fn kernel(
    frame: &Frame<'_>,
    winograd: &Winograd,
) -> Result<Option<KernelPlan>, ErrorKind> {
    let wrong = || ErrorKind::bug("minimal filtering without its operands");
    let Side::Both { before, parts, block: _, shares: _, width, epilogue } = &winograd.side else {
        return Err(wrong());
    };
    if frame.shapes().any(|shape| shape.dtype != DType::F32) || !frame.scratch {
        return Err(ErrorKind::bug("minimal filtering of what is not f32"));
    }
    let (inputs, result) = (frame.inputs(), frame.result());
    let (images, rest) = inputs.split_at_checked(*parts).ok_or_else(wrong)?;
    let (weights, extra) = rest.split_first().ok_or_else(wrong)?;
    let last = |shape: &Shape| shape.dims.last().copied().unwrap_or(0);
    let channels: i64 = images.iter().map(last).sum();
    let outputs = last(result);
    let dims: Vec<usize> = result.dims.iter().map(|&d| d as usize).collect();
    let blocks = winograd.blocks(channels as usize, &dims).ok_or_else(wrong)?;

    let between = |channels: i64, all: i64, point: usize| {
        let tiles = (blocks.block[0] * blocks.block[1]) as i64;
        let dims = vec![blocks.all as i64, tiles, channels];
        let strides = vec![point as i64 * SIZE, all * SIZE, SIZE];
        Shape { dtype: DType::F32, dims, strides, first: 0, bytes: 0 }
    };
    let part = |shapes: Vec<Shape>, in_place: Vec<bool>| Frame {
        name: frame.name,
        machine: frame.machine,
        shapes,
        in_place,
        scratch: false,
        in_order: false,
    };
    let sums = between(outputs, outputs, blocks.points[1]);
    let transformed = |shape: &Shape| between(last(shape), channels, blocks.points[0]);
    let sides = images.iter().map(|x| part(vec![x.clone(), transformed(x)], vec![false; 2]));
    let sides: Vec<Frame<'_>> = sides.collect();
    let all = between(channels, channels, blocks.points[0]);
    let products = part(vec![all, weights.clone(), sums.clone()], vec![false; 3]);
    let shapes = [&sums].into_iter().chain(extra).chain([result]).cloned().collect();
    let in_place = (0..extra.len()).map(|i| frame.in_place(parts + 1 + i));
    let in_place = [false].into_iter().chain(in_place).chain([false]).collect();
    let finished = part(shapes, in_place);

    let identity = Expr::identity();
    let body =
        Body::new(epilogue.as_ref().unwrap_or(&identity), &vec![DType::F32; extra.len() + 1])?;
    let same = Body::new(&identity, &[DType::F32])?;
    let fits = sides.iter().all(|side| winograd::is_for_lanes(side, &same))
        && winograd::is_for_lanes(&finished, &body);
    if !fits {
        return Ok(None);
    }
    let (tile, step) = winograd::extents(winograd);
    let matrices = winograd.axes.map(Matrices::new);
    let before = before.map(|n| n as i64);
    let inputs = sides.iter().map(|frame| Input { frame, matrices: &matrices, step, before });
    let (inputs, matrices) = (inputs.collect(), &matrices);
    let output = Output { frame: &finished, matrices, tile, body };
    let panels = (outputs + *width as i64 - 1) / *width as i64;
    let bytes = blocks.all as i64 * panels * *width as i64 * channels * SIZE;
    let far = bytes + blocks.elements() as i64 * SIZE > frame.machine.l2 as i64;
    // Whole blocks, and those at the end of an axis if they are smaller.
    let along = |axis: usize| {
        let (all, size) = (blocks.tiles[axis] as i64, blocks.block[axis] as i64);
        let (whole, rest) = (all / size, all % size);
        let kinds = [(size, 0..whole), (rest, whole..whole + 1)];
        kinds.into_iter().filter(|(size, which)| *size > 0 && !which.is_empty())
    };
    let mut kinds = vec![];
    for (height, rows) in along(0) {
        for (columns, which) in along(1) {
            let panel = *width as i64;
            let levels = [
                Level::axis(height * columns, vec![channels * SIZE, 0, outputs * SIZE]),
                Level::axis(outputs, vec![0, channels * SIZE, SIZE]),
                Level::axis(channels, vec![SIZE, panel * SIZE]),
            ];
            let Some(product) = Block::new(&products, levels, Some(panel), &identity)? else {
                return Ok(None);
            };
            let product = if far { product.looking_ahead() } else { product };
            kinds.push(Kind { tiles: [height, columns], which: [rows.clone(), which], product });
        }
    }
    Ok(Some(Writer { frame, blocks, inputs, output, kinds }.write()))
}

/// Blocks of one size.
struct Kind<'a> {
    /// Rows and columns of tiles.
    tiles: [i64; 2],
    /// Which rows and columns of blocks.
    which: [Range<i64>; 2],
    product: Block<'a>,
}

struct Writer<'a> {
    frame: &'a Frame<'a>,
    blocks: Blocks,
    /// For each part of the image.
    inputs: Vec<Input<'a>>,
    output: Output<'a>,
    kinds: Vec<Kind<'a>>,
}

/// Where a block is.
struct Place<'a> {
    kind: &'a Kind<'a>,
    /// Its first row and column of tiles in the image.
    first: [Value; 2],
    /// The pointers of the kernel, for the image and the share.
    pointers: &'a [Value],
}

impl Writer<'_> {
    fn write(&self) -> KernelPlan {
        let Blocks { tiles, count, shares, all, .. } = self.blocks;
        let shares = shares as i64;
        let images = self.frame.result().dims[0];
        let (rows, columns) = (count[0] as i64, count[1] as i64);
        let (mut b, mut pointers) = self.frame.open(shares);
        let scratch = pointers.len() - 2;
        let first = b.begin();
        let first = b.index(IndexOp::Min, first, shares - 1);
        let elements = self.blocks.elements() as i64;
        pointers[scratch] = b.offset(pointers[scratch], first, elements * SIZE);
        let [begin, end] = [b.begin(), b.end()].map(|share| match images * rows * columns {
            blocks if blocks == shares => share,
            blocks => {
                let share = b.index(IndexOp::Mul, share, blocks);
                b.index(IndexOp::Div, share, shares)
            }
        });
        let of_image = |(i, shape): (usize, &Shape)| match i {
            _ if i == scratch || i == self.inputs.len() => 0,
            _ => shape.strides[0],
        };
        let by: Vec<i64> = self.frame.shapes().enumerate().map(of_image).collect();
        b.each(begin, end, &[], |b, it| {
            let (mut pointers, mut row) = (pointers.clone(), it.index);
            if images > 1 {
                let image = b.index(IndexOp::Div, row, rows * columns);
                row = b.index(IndexOp::Rem, row, rows * columns);
                pointers = moved(b, &pointers, image, &by);
            }
            let column = b.index(IndexOp::Rem, row, columns);
            let row = b.index(IndexOp::Div, row, columns);
            for kind in &self.kinds {
                self.only(b, kind, [row, column], &pointers);
            }
        });
        let tiles = images * (tiles[0] * tiles[1]) as i64;
        let last = |shape: &Shape| shape.dims.last().copied().unwrap_or(0);
        let inputs: i64 = self.inputs.iter().map(|input| last(input.frame.result())).sum();
        let outputs = last(self.frame.result());
        self.frame.close(b, tiles * all as i64 * (inputs * outputs / 2 + 4 * (inputs + outputs)))
    }

    /// The block in this row and column, if it is one of the kind.
    fn only(&self, b: &mut Builder, kind: &Kind<'_>, at: [Value; 2], p: &[Value]) {
        let among = |b: &mut Builder, axis: usize| {
            let Range { start, end } = kind.which[axis];
            let next = b.index(IndexOp::Add, at[axis], 1);
            [b.index(IndexOp::Max, at[axis], start), b.index(IndexOp::Min, next, end)]
        };
        if self.kinds.len() == 1 {
            return self.block(b, kind, at, p);
        }
        // At most once.
        let [from, to] = among(b, 0);
        b.each(from, to, &[], |b, it| {
            let row = it.index;
            let [from, to] = among(b, 1);
            b.each(from, to, &[], |b, it| self.block(b, kind, [row, it.index], p));
        });
    }

    fn block(&self, b: &mut Builder, kind: &Kind<'_>, at: [Value; 2], p: &[Value]) {
        let size = self.blocks.block.map(|tiles| tiles as i64);
        let first = [0, 1].map(|axis| b.index(IndexOp::Mul, at[axis], size[axis]));
        let place = Place { kind, first, pointers: p };
        self.transform(b, &place);
        self.multiply(b, &place);
        self.finish(b, &place);
    }

    /// Where the working memory has the inputs, and the products.
    fn between(&self, b: &mut Builder, p: &[Value]) -> [Value; 2] {
        let scratch = p[p.len() - 2];
        let products = (self.blocks.all * self.blocks.points[0]) as i64;
        [scratch, b.offset(scratch, products, SIZE)]
    }

    /// The tiles of a block, for all pointers: the one that is `near` steps through the block, the others
    /// through the image. `parts` has those of the axes that are done.
    fn tiles_of(
        &self,
        b: &mut Builder,
        place: &Place<'_>,
        axes: &[Axis],
        (pointers, near): (&[Value], usize),
        parts: &mut Vec<Range<i64>>,
        body: &mut winograd::Inside<'_>,
    ) {
        let Some(at) = parts.len().checked_sub(1).filter(|&at| at < 2) else {
            return winograd::descend(b, axes, None, pointers, parts, body);
        };
        let (axis, size) = (&axes[at + 1], self.blocks.block[at] as i64);
        let (count, which) = (place.kind.tiles[at], &place.kind.which[at]);
        // All tiles of blocks like it.
        let reach = which.start * size..(which.end - 1) * size + count;
        let (mut in_image, mut in_block) = (axis.steps.clone(), vec![0; axis.steps.len()]);
        std::mem::swap(&mut in_image[near], &mut in_block[near]);
        let begin = place.first[at];
        let end = b.index(IndexOp::Add, begin, count);
        let back = b.index(IndexOp::Mul, begin, -1);
        for Segment { iterations, part } in &axis.segments {
            if iterations.start >= reach.end || reach.start >= iterations.end {
                continue;
            }
            let from = b.index(IndexOp::Max, begin, iterations.start);
            let to = b.index(IndexOp::Min, end, iterations.end);
            parts.push(part.clone());
            b.each(from, to, &[], |b, it| {
                let mut p = moved(b, pointers, it.index, &in_image);
                if count > 1 {
                    // It is between these anyhow.
                    let tile = b.index(IndexOp::Add, it.index, back);
                    let tile = b.index(IndexOp::Max, tile, 0);
                    let tile = b.index(IndexOp::Min, tile, count - 1);
                    p = moved(b, &p, tile, &in_block);
                }
                self.tiles_of(b, place, axes, (&p, near), parts, body);
            });
            parts.pop();
        }
    }

    fn transform(&self, b: &mut Builder, place: &Place<'_>) {
        let [mut to, _] = self.between(b, place.pointers);
        for (input, &x) in self.inputs.iter().zip(place.pointers) {
            let axes = input.axes(self.blocks.tiles.map(|n| n as i64), place.kind.tiles[1]);
            self.tiles_of(b, place, &axes, (&[x, to], 1), &mut vec![0..1], &mut |b, p, parts| {
                input.points_of(b, p, parts);
            });
            to = b.offset(to, input.frame.result().dims[2], SIZE);
        }
    }

    fn multiply(&self, b: &mut Builder, place: &Place<'_>) {
        let [from, to] = self.between(b, place.pointers);
        let weights = self.inputs.len();
        let pointers = [from, place.pointers[weights], to];
        let [inputs, outputs] = self.blocks.points.map(|point| point as i64 * SIZE);
        let by = [inputs, self.frame.inputs()[weights].strides[0], outputs];
        advancing(b, self.blocks.all as i64, &pointers, &by, &[], |b, p, _| {
            place.kind.product.write(b, p);
            vec![]
        });
    }

    fn finish(&self, b: &mut Builder, place: &Place<'_>) {
        let [_, products] = self.between(b, place.pointers);
        let (extra, last) = (self.inputs.len() + 1, place.pointers.len() - 1);
        let mut pointers = vec![products];
        pointers.extend(&place.pointers[extra..last - 1]);
        pointers.push(place.pointers[last]);
        let axes = self.output.axes(place.kind.tiles[1]);
        self.tiles_of(b, place, &axes, (&pointers, 0), &mut vec![0..1], &mut |b, p, parts| {
            self.output.results_of(b, p, parts);
        });
    }
}
