//! Convolutions by minimal filtering as a whole: both sides and the products between them, for one
//! band of rows of tiles after the other, with what lies between in working memory that stays in the
//! cache.
//!
//! A share of the work is some neighbouring bands. All that a call is given it does in the working
//! memory of its first share, so that threads meet only at the edges of their rows.

use super::contract::Block;
use super::expr::Body;
use super::nest::{Level, advancing, moved};
use super::winograd::{self, Axis, Input, Output, Segment};
use super::{Frame, KernelPlan, Shape};
use crate::error::ErrorKind;
use crate::kir::build::Builder;
use crate::kir::{IndexOp, Value};
use crate::lir::{Bands, Expr, Matrices, Side, Winograd};
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
    let Side::Both { before, parts, rows, width, epilogue } = &winograd.side else {
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
    let bands = winograd.bands(channels as usize, &dims).ok_or_else(wrong)?;
    let rows = (*rows as i64).clamp(1, bands.tiles[0] as i64);

    let between = |channels: i64, all: i64, point: usize| {
        let tiles = rows * bands.tiles[1] as i64;
        let dims = vec![bands.all as i64, tiles, channels];
        let strides = vec![point as i64 * SIZE, all * SIZE, SIZE];
        Shape { dtype: DType::F32, dims, strides, first: 0, bytes: 0 }
    };
    let part = |shapes: Vec<Shape>, in_place: Vec<bool>| Frame {
        name: frame.name,
        machine: frame.machine,
        shapes,
        in_place,
        scratch: false,
    };
    let sums = between(outputs, outputs, bands.points[1]);
    let transformed = |shape: &Shape| between(last(shape), channels, bands.points[0]);
    let sides = images.iter().map(|x| part(vec![x.clone(), transformed(x)], vec![false; 2]));
    let sides: Vec<Frame<'_>> = sides.collect();
    let all = between(channels, channels, bands.points[0]);
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
    let tile = winograd.tile as i64;
    let matrices = Matrices::new(winograd.tile);
    let before = before.map(|n| n as i64);
    let inputs = sides.iter().map(|frame| Input { frame, matrix: &matrices.input, tile, before });
    let writer = Writer {
        frame,
        bands,
        rows,
        inputs: inputs.collect(),
        output: Output { frame: &finished, matrix: &matrices.output, tile, body },
        products: vec![],
    };
    let (whole, rest) = (writer.tiles(0) / rows, writer.tiles(0) % rows);
    let mut blocks = vec![];
    for (count, bands) in [(rows, 0..whole), (rest, whole..bands.of_image as i64)] {
        if count == 0 || bands.is_empty() {
            continue;
        }
        let panel = *width as i64;
        let levels = [
            Level::axis(count * writer.tiles(1), vec![channels * SIZE, 0, outputs * SIZE]),
            Level::axis(outputs, vec![0, channels * SIZE, SIZE]),
            Level::axis(channels, vec![SIZE, panel * SIZE]),
        ];
        let Some(product) = Block::new(&products, levels, Some(panel), &identity)? else {
            return Ok(None);
        };
        blocks.push(Products { count, bands, product });
    }
    Ok(Some(Writer { products: blocks, ..writer }.write()))
}

/// The products of bands of one height.
struct Products<'a> {
    /// Rows of tiles.
    count: i64,
    /// Which bands of an image.
    bands: Range<i64>,
    product: Block<'a>,
}

struct Writer<'a> {
    frame: &'a Frame<'a>,
    bands: Bands,
    /// Rows of tiles in a whole band.
    rows: i64,
    /// For each part of the image.
    inputs: Vec<Input<'a>>,
    output: Output<'a>,
    products: Vec<Products<'a>>,
}

/// Where a band is.
struct Place<'a> {
    /// Its first row of tiles in the image.
    first: Value,
    /// How many rows it has.
    count: i64,
    /// All rows of bands like it.
    reach: Range<i64>,
    /// The pointers of the kernel, for the image and the share.
    pointers: &'a [Value],
}

impl Writer<'_> {
    fn tiles(&self, axis: usize) -> i64 {
        self.bands.tiles[axis] as i64
    }

    fn write(&self) -> KernelPlan {
        let Bands { of_image, shares, all, .. } = self.bands;
        let (shares, of_image) = (shares as i64, of_image as i64);
        let images = self.frame.result().dims[0];
        let (mut b, mut pointers) = self.frame.open(shares);
        let scratch = pointers.len() - 2;
        let first = b.begin();
        let first = b.index(IndexOp::Min, first, shares - 1);
        pointers[scratch] = b.offset(pointers[scratch], first, self.bands.elements() as i64 * SIZE);
        let [begin, end] = [b.begin(), b.end()].map(|share| match images * of_image {
            bands if bands == shares => share,
            bands => {
                let share = b.index(IndexOp::Mul, share, bands);
                b.index(IndexOp::Div, share, shares)
            }
        });
        let by: Vec<i64> = self
            .frame
            .shapes()
            .enumerate()
            .map(|(i, shape)| match i {
                _ if i == scratch || i == self.inputs.len() => 0,
                _ => shape.strides[0],
            })
            .collect();
        b.each(begin, end, &[], |b, it| {
            if images == 1 {
                return self.band(b, &pointers, it.index);
            }
            let image = b.index(IndexOp::Div, it.index, of_image);
            let band = b.index(IndexOp::Rem, it.index, of_image);
            let pointers = moved(b, &pointers, image, &by);
            self.band(b, &pointers, band);
        });
        let tiles = images * self.tiles(0) * self.tiles(1);
        let last = |shape: &Shape| shape.dims.last().copied().unwrap_or(0);
        let inputs: i64 = self.inputs.iter().map(|input| last(input.frame.result())).sum();
        let outputs = last(self.frame.result());
        self.frame.close(b, tiles * all as i64 * (inputs * outputs / 2 + 4 * (inputs + outputs)))
    }

    /// A band of an image.
    fn band(&self, b: &mut Builder, p: &[Value], index: Value) {
        for products in &self.products {
            let one = |b: &mut Builder, index: Value| {
                let first = b.index(IndexOp::Mul, index, self.rows);
                let (bands, count) = (&products.bands, products.count);
                let reach = bands.start * self.rows..(bands.end - 1) * self.rows + count;
                let place = Place { first, count, reach, pointers: p };
                self.transform(b, &place);
                self.multiply(b, &place, products);
                self.finish(b, &place);
            };
            if self.products.len() == 1 {
                return one(b, index);
            }
            // At most once.
            let Range { start, end } = products.bands;
            let next = b.index(IndexOp::Add, index, 1);
            let from = b.index(IndexOp::Max, index, start);
            let to = b.index(IndexOp::Min, next, end);
            b.each(from, to, &[], |b, it| one(b, it.index));
        }
    }

    /// Where the working memory has the inputs, and the products.
    fn between(&self, b: &mut Builder, p: &[Value]) -> [Value; 2] {
        let scratch = p[p.len() - 2];
        let products = (self.bands.all * self.bands.points[0]) as i64;
        [scratch, b.offset(scratch, products, SIZE)]
    }

    /// The tiles of a band of the image, for all pointers: those that are `near` step through the band,
    /// the others through the image.
    fn tiles_of(
        &self,
        b: &mut Builder,
        place: &Place<'_>,
        axes: &[Axis],
        (pointers, near): (&[Value], usize),
        body: &mut winograd::Inside<'_>,
    ) {
        let rows = &axes[1];
        let (mut in_image, mut in_band) = (rows.steps.clone(), vec![0; rows.steps.len()]);
        std::mem::swap(&mut in_image[near], &mut in_band[near]);
        let (begin, back) = (place.first, b.index(IndexOp::Mul, place.first, -1));
        let end = b.index(IndexOp::Add, begin, place.count);
        let reached = |segment: &&Segment| {
            let Range { start, end } = segment.iterations;
            start < place.reach.end && place.reach.start < end
        };
        for segment in rows.segments.iter().filter(reached) {
            let from = b.index(IndexOp::Max, begin, segment.iterations.start);
            let to = b.index(IndexOp::Min, end, segment.iterations.end);
            b.each(from, to, &[], |b, it| {
                let mut p = moved(b, pointers, it.index, &in_image);
                if place.count > 1 {
                    // It is between these anyhow.
                    let row = b.index(IndexOp::Add, it.index, back);
                    let row = b.index(IndexOp::Max, row, 0);
                    let row = b.index(IndexOp::Min, row, place.count - 1);
                    p = moved(b, &p, row, &in_band);
                }
                let mut parts = vec![0..1, segment.part.clone()];
                winograd::descend(b, axes, None, &p, &mut parts, body);
            });
        }
    }

    fn transform(&self, b: &mut Builder, place: &Place<'_>) {
        let [mut to, _] = self.between(b, place.pointers);
        for (input, &x) in self.inputs.iter().zip(place.pointers) {
            let axes = input.axes([0, 1].map(|axis| self.tiles(axis)));
            self.tiles_of(b, place, &axes, (&[x, to], 1), &mut |b, p, parts| {
                input.points_of(b, p, parts);
            });
            to = b.offset(to, input.frame.result().dims[2], SIZE);
        }
    }

    fn multiply(&self, b: &mut Builder, place: &Place<'_>, products: &Products<'_>) {
        let [from, to] = self.between(b, place.pointers);
        let weights = self.inputs.len();
        let pointers = [from, place.pointers[weights], to];
        let [inputs, outputs] = self.bands.points.map(|point| point as i64 * SIZE);
        let by = [inputs, self.frame.inputs()[weights].strides[0], outputs];
        advancing(b, self.bands.all as i64, &pointers, &by, &[], |b, p, _| {
            products.product.write(b, p);
            vec![]
        });
    }

    fn finish(&self, b: &mut Builder, place: &Place<'_>) {
        let [_, products] = self.between(b, place.pointers);
        let (extra, last) = (self.inputs.len() + 1, place.pointers.len() - 1);
        let mut pointers = vec![products];
        pointers.extend(&place.pointers[extra..last - 1]);
        pointers.push(place.pointers[last]);
        self.tiles_of(b, place, &self.output.axes(), (&pointers, 0), &mut |b, p, parts| {
            self.output.results_of(b, p, parts);
        });
    }
}
