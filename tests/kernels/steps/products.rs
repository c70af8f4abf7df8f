//! Steps that sum products: contractions, attention, convolutions, minimal filtering.

use super::*;

/// An epilogue over the sum, of which the operands are there, and new operands of `dims`.
pub(super) fn epilogue(
    r: &mut Random,
    ty: DType,
    dims: &[usize],
    operands: &mut Vec<Placed>,
) -> Option<Expr> {
    let own = operands.len();
    if r.chance(30) {
        return None;
    }
    let mut e = Expr::new();
    let mut sum = e.operand(0);
    for _ in 0..r.below(3) {
        operands.push(broadcast(r, operands.len(), ty, dims));
        let other = e.operand(operands.len() - own);
        sum = e.binary(r.pick(&[Binary::Add, Binary::Mul, Binary::Max]), sum, other);
    }
    if ty == DType::F32 && r.chance(40) {
        let small = e.literal(ty, 0.01);
        let x = e.binary(Binary::Mul, sum, small);
        let exp = e.unary(Unary::Exp, x);
        sum = e.binary(Binary::Add, exp, sum);
    }
    Some(e.returning(sum))
}

/// Columns of `[.., depth, columns]` per batch or group, in panels.
pub(super) fn panels(
    plain: &Tensor,
    batch: &[usize],
    depth: usize,
    columns: usize,
    width: usize,
) -> Tensor {
    let count = columns.div_ceil(width);
    let all: usize = batch.iter().product();
    let values = plain.f64s();
    let mut out = vec![0.0; all * count * depth * width];
    for g in 0..all {
        for k in 0..depth {
            for n in 0..columns {
                let at = ((g * count + n / width) * depth + k) * width + n % width;
                out[at] = values[(g * depth + k) * columns + n];
            }
        }
    }
    let dims = [batch, &[count, depth, width]].concat();
    Tensor::from_f64s(Type::new(plain.ty().dtype, dims), out)
}

/// Mostly, so often in a hundred, `f32`; what is left is half `f64`.
pub(super) fn product_type(r: &mut Random, percent: usize) -> DType {
    match () {
        () if r.chance(percent) => DType::F32,
        () if r.chance(50) => DType::F64,
        () => r.pick(&TYPES[..10]),
    }
}

pub(super) fn contract(r: &mut Random) -> Trial {
    let ty = product_type(r, 65);
    let batch = if r.chance(60) { vec![] } else { vec![1 + r.below(3)] };
    let (mut m, mut k, n) = (r.extent(), r.extent(), r.extent());
    // Few rows, and columns whose elements lie one behind the other.
    let along = r.chance(25);
    if along {
        (m, k) = (1 + r.below(4), k + r.below(300));
    }
    let a = tensor(r, ty, &[&batch[..], &[m, k]].concat());
    let a = Placed { access: layout(r, 0, ty, a.dims(), along), tensor: a };
    let narrow = ty == DType::F32 && r.chance(25);
    let of = if narrow { r.pick(&[DType::F16, DType::BF16]) } else { ty };
    let b = tensor(r, of, &[&batch[..], &[k, n]].concat());
    let (b, weights) = if along {
        let access = layout(r, 1, of, &[&batch[..], &[n, k]].concat(), true);
        let order: Vec<usize> = (0..batch.len()).chain([batch.len() + 1, batch.len()]).collect();
        (Placed { access: access.permuted(&order), tensor: b }, Weights::Plain)
    } else if r.chance(50) {
        let width = r.pick(&[4, 8, 16, 32, 12]);
        let packed = panels(&b, &batch, k, n, width);
        let access = layout(r, 1, of, packed.dims(), true);
        (Placed { tensor: packed, access }, Weights::Panels { width, columns: n })
    } else {
        (place(r, 1, b), Weights::Plain)
    };
    let mut operands = vec![a, b];
    let dims = [&batch[..], &[m, n]].concat();
    let epilogue = epilogue(r, ty, &dims, &mut operands);
    let backwards = r.below(2) == 0;
    let contract = Contract { weights, epilogue, backwards, rides: false };
    Trial {
        op: Op::Contract(contract.clone()),
        mir: mir::Op::Contract(contract),
        operands,
        ty: Type::new(ty, dims),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

/// Of numbers of four bits in blocks.
pub(super) fn contract_in_blocks(r: &mut Random) -> Trial {
    let blocks = Blocks { block: r.pick(&[8, 16, 32, 64]), zeros: r.chance(50) };
    let (m, k, n) = (1 + r.below(9), 1 + r.below(150), r.extent());
    // Of an infinity, which is taken off itself, may come what is no number.
    let values = (0..m * k).map(|_| r.below(65) as f64 / 16.0 - 2.0).collect::<Vec<_>>();
    let a = Tensor::from_f64s(Type::new(DType::F32, [m, k]), values);
    let a = Placed { access: layout(r, 0, DType::F32, a.dims(), true), tensor: a };
    let count = k.div_ceil(blocks.block);
    let bytes = (0..n * count * blocks.block / 2).map(|_| r.below(256) as i64);
    let ty = Type::new(DType::U8, [n, count, blocks.block / 2]);
    let numbers = Tensor::from_ints(ty, bytes.collect::<Vec<_>>());
    let mut of_blocks = |most: usize, scale: f64| {
        let values = (0..n * count).map(|_| r.below(most) as f64 * scale);
        Tensor::from_f64s(Type::new(DType::F32, [n, count]), values.collect::<Vec<_>>())
    };
    let (scales, zeros) = (of_blocks(9, 0.125), of_blocks(16, 1.0));
    let zeros = blocks.zeros.then_some(&zeros);
    let words = nibbles::words(&numbers, &scales, zeros, blocks, [k, n]);
    let width = if r.chance(30) { n.max(1) } else { r.pick(&[4, 8, 16, 32, 48, 12]) };
    let (words, rows) = (words.clone(), words.dims()[0]);
    // Elements are bits.
    let at = |i: usize| {
        let (panel, row, column) = (i / (rows * width), i / width % rows, i % width);
        let n = (panel * width + column < n).then_some(row * n + panel * width + column);
        n.map_or(0, |at| words.int_at(at))
    };
    let dims = [n.div_ceil(width), rows, width];
    let values = (0..dims.iter().product()).map(at).collect::<Vec<_>>();
    let packed = Tensor::from_ints(Type::new(DType::I32, dims), values);
    let access = layout(r, 1, DType::I32, packed.dims(), true);
    let mut operands = vec![a, Placed { tensor: packed, access }];
    let epilogue = epilogue(r, DType::F32, &[m, n], &mut operands);
    let weights = Weights::Nibbles { width, columns: n, blocks };
    let contract = Contract { weights, epilogue, backwards: false, rides: false };
    Trial {
        op: Op::Contract(contract.clone()),
        mir: mir::Op::Contract(contract),
        operands,
        ty: Type::new(DType::F32, [m, n]),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

/// Spans of some queries each, or none.
fn spans(r: &mut Random, queries: usize, keys: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = vec![];
    while keys > 0 && spans.last().map_or(0, |span| span.queries) < queries {
        let seen = spans.last().map_or(0, |span| span.queries);
        let start = r.below(keys);
        let end = start + 1 + r.below(keys - start);
        let queries = (seen + 1 + r.below(40)).min(queries);
        spans.push(Span { queries, keys: start..end });
    }
    spans
}

pub(super) fn attention(r: &mut Random) -> Trial {
    let batch: Vec<usize> = (0..r.below(3)).map(|_| 1 + r.below(4)).collect();
    let queries = if r.chance(20) { r.pick(&[65, 100, 150]) } else { r.extent() };
    let keys = if r.chance(20) { r.pick(&[65, 100, 197]) } else { r.extent() };
    let (depth, width) = if r.chance(20) { (64, 64) } else { (r.extent(), r.extent()) };
    let dims = |rows, columns| [&batch[..], &[rows, columns]].concat();
    // Keys and values may be shared along the batch.
    let shared = !batch.is_empty() && r.chance(30);
    let mut operands = vec![];
    for (i, dims) in
        [dims(queries, depth), dims(depth, keys), dims(keys, width)].into_iter().enumerate()
    {
        let mut own = dims.clone();
        if i > 0 && shared {
            own[batch.len() - 1] = 1;
        }
        let tensor = tensor(r, DType::F32, &own);
        let mut placed = place(r, i, tensor);
        // As a projection has them: a row for each key.
        if i == 1 && r.chance(70) {
            let rank = own.len();
            let swap: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
            let rows = swap.iter().map(|&axis| own[axis]).collect::<Vec<_>>();
            let ty = Type::new(DType::F32, rows);
            placed.access = Access::dense(Buffer::new(i), &ty).permuted(&swap);
        }
        let full = Type::new(DType::F32, dims.clone());
        let tensor = mir::eval::op(&mir::Op::Broadcast, &[&placed.tensor], &full);
        operands.push(Placed { access: placed.access.broadcast(&dims), tensor });
    }
    let scores = dims(queries, keys);
    let mut first = epilogue(r, DType::F32, &scores, &mut operands);
    if first.is_none() && r.chance(60) {
        let mut e = Expr::new();
        let (sum, mask) = (e.operand(0), e.operand(1));
        let lowest = e.literal(DType::F32, f64::NEG_INFINITY);
        e.select(mask, sum, lowest);
        operands.push(broadcast(r, 3, DType::Bool, &scores));
        first = Some(e);
    }
    let spans = if first.is_none() && r.chance(80) { spans(r, queries, keys) } else { vec![] };
    if !spans.is_empty() {
        // In a span, all but some keys count.
        let mut values = vec![];
        for query in 0..queries {
            let span = spans.iter().find(|span| query < span.queries).expect("it has a span");
            values.extend((0..keys).map(|key| {
                let counts = span.keys.start == key || span.keys.contains(&key) && !r.chance(10);
                f64::from(counts)
            }));
        }
        let tensor = Tensor::from_f64s(Type::new(DType::Bool, [queries, keys]), values);
        let placed = place(r, 3, tensor);
        let full = Type::new(DType::Bool, scores.clone());
        let tensor = mir::eval::op(&mir::Op::Broadcast, &[&placed.tensor], &full);
        operands.push(Placed { access: placed.access.broadcast(&scores), tensor });
        let mut e = Expr::new();
        let (sum, mask) = (e.operand(0), e.operand(1));
        let lowest = e.literal(DType::F32, f64::NEG_INFINITY);
        e.select(mask, sum, lowest);
        first = Some(e);
    }
    let mut stages = softmax(1).to_vec();
    if !spans.is_empty() {
        // Of a softmax only.
    } else if r.chance(30) {
        // A row of nothing but NaN is one of zeros.
        let mut e = Expr::new();
        let (x, sum) = (e.operand(2), e.operand(3));
        let quotient = e.binary(Binary::Div, x, sum);
        let same = e.compare(Comparison::Equal, quotient, quotient);
        let zero = e.literal(DType::F32, 0.0);
        e.select(same, quotient, zero);
        stages[3].expr = e;
    } else if r.chance(20) {
        let mut e = Expr::new();
        let x = e.operand(0);
        let square = e.push(Scalar::Binary(Binary::Mul, x, x));
        let sum = Stage { expr: e.returning(square), reduce: Some(Reduction::Sum) };
        let mut e = Expr::new();
        let (x, sum_of) = (e.operand(0), e.operand(1));
        e.binary(Binary::Div, x, sum_of);
        stages = vec![sum, Stage { expr: e, reduce: None }];
    }
    let rows = Rows { stages, width: keys };
    let attention = Attention { epilogue: first, rows, spans };
    Trial {
        op: Op::Attention(attention.clone()),
        mir: mir::Op::Attention(attention),
        operands,
        ty: Type::new(DType::F32, dims(queries, width)),
        tolerance: Tolerance::Relative(1e-3),
        result: None,
    }
}

/// Windows and groups, without an epilogue; the extents of its input, and how many channels go into a group and come out.
fn convolution(r: &mut Random, taps: &[usize]) -> (Conv, Vec<usize>, usize, usize) {
    let spatial = r.pick(&[1, 2, 2, 2, 3]);
    let mut taps: Vec<usize> = (0..spatial).map(|_| r.pick(taps)).collect();
    if spatial == 1 && r.chance(30) {
        taps[0] = r.pick(&[15, 31, 66]);
    }
    let strides: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 1, 2, 3])).collect();
    let dilations: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 1, 1, 2])).collect();
    let extents: Vec<usize> =
        (0..spatial).map(|i| (taps[i] - 1) * dilations[i] + 1 + r.below(9)).collect();
    let (groups, inside, outside) = match r.below(4) {
        0 => (r.pick(&[3, 16, 19, 33]), 1, r.pick(&[1, 1, 1, 2, 2, 4])),
        1 => (2, 1 + r.below(9), 1 + r.below(17)),
        _ => (1, 1 + r.below(9), r.extent()),
    };
    let weights = Weights::Plain;
    let conv = Conv { taps, strides, dilations, groups, weights, epilogue: None };
    (conv, extents, inside, outside)
}

/// Weights with the columns of each group apart: `[groups, depth, columns]`.
fn apart(w: &Tensor, [groups, depth, columns]: [usize; 3]) -> Tensor {
    let values = w.f64s();
    let mut apart = vec![];
    for g in 0..groups {
        for k in 0..depth {
            let at = (k * groups + g) * columns;
            apart.extend_from_slice(&values[at..at + columns]);
        }
    }
    Tensor::from_f64s(Type::new(w.ty().dtype, [groups, depth, columns]), apart)
}

/// Results along the spatial axes.
fn results(conv: &Conv, extents: &[usize]) -> Vec<usize> {
    let along = |(i, &extent): (usize, &usize)| {
        windows(extent, conv.taps[i], conv.strides[i], conv.dilations[i])
    };
    extents.iter().enumerate().map(along).collect()
}

pub(super) fn conv(r: &mut Random) -> Trial {
    let ty = product_type(r, 80);
    let (conv, extents, inside, outside) = convolution(r, &[1, 2, 3]);
    let n = 1 + r.below(2);
    convolved(r, ty, conv, &[&[n][..], &extents].concat(), [inside, outside])
}

/// One channel in a group, of which often so many are in a place that the rows of a window do not stay in the
/// first-level cache.
pub(super) fn depthwise(r: &mut Random) -> Trial {
    let (stride, groups) = (r.pick(&[1, 1, 2]), r.pick(&[20, 48, 128, 136, 144, 160]));
    let taps = r.pick(&[[3, 3], [3, 3], [5, 5], [2, 4], [1, 17]]).to_vec();
    let (strides, dilations) = (vec![stride; 2], vec![1, r.pick(&[1, 1, 2])]);
    let width = (taps[1] - 1) * dilations[1] + r.pick(&[1, 7, 14]) + r.below(6);
    let weights = Weights::Plain;
    let conv = Conv { taps, strides, dilations, groups, weights, epilogue: None };
    let extents = [1, 9 + r.below(4), width];
    let dtype = product_type(r, 60);
    convolved(r, dtype, conv, &extents, [1, 1])
}

/// A convolution of images with these extents and so many channels in a group, in and out.
fn convolved(
    r: &mut Random,
    ty: DType,
    mut conv: Conv,
    images: &[usize],
    [inside, outside]: [usize; 2],
) -> Trial {
    let groups = conv.groups;
    let (n, extents) = (images[0], images[1..].to_vec());
    let x = tensor(r, ty, &[&[n][..], &extents, &[groups * inside]].concat());
    let x = place(r, 0, x);
    let w = tensor(r, ty, &[&conv.taps[..], &[inside, groups * outside]].concat());
    let depth: usize = conv.taps.iter().product::<usize>() * inside;
    let w = if groups < 100 && r.chance(50) {
        let apart = apart(&w, [groups, depth, outside]);
        let width = r.pick(&[4, 8, 16, 32]);
        let packed = panels(&apart, &[groups], depth, outside, width);
        let access = layout(r, 1, ty, packed.dims(), true);
        conv.weights = Weights::Panels { width, columns: outside };
        Placed { tensor: packed, access }
    } else {
        place(r, 1, w)
    };
    let dims = [&[n][..], &results(&conv, &extents), &[groups * outside]].concat();
    let mut operands = vec![x, w];
    conv.epilogue = epilogue(r, ty, &dims, &mut operands);
    Trial {
        op: Op::Conv(conv.clone()),
        mir: mir::Op::Conv(conv),
        operands,
        ty: Type::new(ty, dims),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

pub(super) fn winograd(r: &mut Random) -> Trial {
    let mut axis = || {
        let known = [(2, 3, 1), (4, 3, 1), (4, 3, 1), (6, 3, 1), (2, 3, 2), (4, 3, 2)];
        let others = [(1, 1, 1), (2, 2, 1), (4, 2, 1), (2, 4, 2), (4, 4, 2)];
        let long = [(4, 4, 1), (2, 5, 1), (4, 5, 1), (2, 7, 1), (2, 5, 2), (4, 5, 2)];
        let (tile, taps, stride) = r.pick(&[&known[..], &others, &long].concat());
        Filter { tile, taps, stride }
    };
    let axes = [axis(), axis()];
    let (n, c) = (1 + r.below(2), r.extent());
    let extents = [1 + r.below(15), 1 + r.below(15)];
    let points: usize = axes.iter().map(|axis| axis.points()).product();
    // Infinities less infinities are no numbers, and which of them meet is not said.
    let finite = |r: &mut Random, dims: &[usize]| loop {
        let tensor = tensor(r, DType::F32, dims);
        if tensor.f64s().iter().all(|x| x.is_finite()) {
            break tensor;
        }
    };
    let (side, operands, dims) = if r.chance(50) {
        let mut extents = extents;
        if r.chance(20) {
            extents[0] += 4 * axes[0].tile;
        }
        let before = axes.map(|axis| r.below(axis.points().min(3)));
        let windows =
            |axis: Filter, extent: usize| (extent.max(axis.taps) - axis.taps) / axis.stride + 1;
        let dims = [0, 1].map(|i| windows(axes[i], extents[i] + before[i] + r.below(3)));
        let parts = 1 + r.below(2);
        let channels: Vec<usize> = (0..parts).map(|_| r.extent()).collect();
        let mut operands: Vec<Placed> = vec![];
        for (i, &c) in channels.iter().enumerate() {
            let x = finite(r, &[n, extents[0], extents[1], c]);
            operands.push(place(r, i, x));
        }
        let (channels, outputs) = (channels.iter().sum(), r.extent());
        let weights = finite(r, &[points, channels, outputs]);
        let width = r.pick(&[4, 8, 16, 32]);
        let packed = panels(&weights, &[points], channels, outputs, width);
        let access = layout(r, parts, DType::F32, packed.dims(), true);
        operands.push(Placed { tensor: packed, access });
        let dims = vec![n, dims[0], dims[1], outputs];
        let epilogue = epilogue(r, DType::F32, &dims, &mut operands);
        let block = [1 + r.below(4), 1 + r.below(4)];
        let shares = 1 + r.below(8);
        (Side::Both { before, parts, block, shares, width, epilogue }, operands, dims)
    } else if r.chance(50) {
        let before = axes.map(|axis| r.below(axis.points()));
        let tiles = [0, 1].map(|i| axes[i].tiles(extents[i] + r.below(axes[i].tile)));
        let x = finite(r, &[n, extents[0], extents[1], c]);
        let dims = vec![points, n * tiles[0] * tiles[1], c];
        (Side::Input { before, tiles }, vec![place(r, 0, x)], dims)
    } else {
        let tiles: usize = (0..2).map(|i| axes[i].tiles(extents[i])).product();
        let products = finite(r, &[points, n * tiles, c]);
        let mut operands = vec![place(r, 0, products)];
        let dims = vec![n, extents[0], extents[1], c];
        let epilogue = epilogue(r, DType::F32, &dims, &mut operands);
        (Side::Output { epilogue }, operands, dims)
    };
    // With weights that are none, large products of the larger tiles cancel each other.
    let tolerance = match (axes[0].tile.max(axes[1].tile), &side) {
        (4 | 6, Side::Both { .. }) => Tolerance::Relative(3e-2),
        _ => Tolerance::Relative(1e-4),
    };
    let winograd = Winograd { axes, side };
    Trial {
        op: Op::Winograd(winograd.clone()),
        mir: mir::Op::Winograd(winograd),
        operands,
        ty: Type::new(DType::F32, dims),
        tolerance,
        result: None,
    }
}

/// Bytes, the ends of their range among them.
fn bytes(r: &mut Random, dtype: DType, dims: &[usize]) -> Tensor {
    let ty = Type::new(dtype, dims);
    let values: Vec<i64> = (0..ty.elements())
        .map(|_| match r.below(8) {
            0 => 0x80,
            1 => 0xff,
            2 => 0x7f,
            3 => 0,
            _ => r.below(256) as i64,
        })
        .collect();
    Tensor::from_ints(ty, values)
}

/// What is done to sums of products of bytes: as they are, with operands, or quantized.
fn finish_bytes(
    r: &mut Random,
    dims: &[usize],
    operands: &mut Vec<Placed>,
    converts: bool,
) -> (Option<Expr>, DType) {
    if r.chance(40) || !converts {
        return (epilogue(r, DType::I32, dims, operands), DType::I32);
    }
    let to = r.pick(&[DType::U8, DType::I8]);
    operands.push(broadcast(r, operands.len(), DType::I32, dims));
    let mut e = Expr::new();
    let (sum, bias) = (e.operand(0), e.operand(1));
    let sum = e.binary(Binary::Add, sum, bias);
    let number = e.cast(DType::F32, sum);
    let factor = e.literal(DType::F32, r.pick(&[0.0009765625, 0.003, 0.5]));
    let scaled = e.binary(Binary::Mul, number, factor);
    let rounded = e.unary(Unary::Round, scaled);
    let (low, high) = if to == DType::U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
    let (low, high) = (e.literal(DType::F32, low), e.literal(DType::F32, high));
    let above = e.binary(Binary::Max, rounded, low);
    let inside = e.binary(Binary::Min, above, high);
    e.cast(to, inside);
    (Some(e), to)
}

pub(super) fn contract_of_bytes(r: &mut Random, converts: bool) -> Trial {
    let batch = if r.chance(70) { vec![] } else { vec![1 + r.below(3)] };
    let (m, k, n) = (r.extent(), r.extent(), r.extent());
    let a = bytes(r, DType::U8, &[&batch[..], &[m, k]].concat());
    // Mostly where it is read at speed.
    let access = layout(r, 0, DType::U8, a.dims(), false);
    let a = Placed { tensor: a, access };
    let b = bytes(r, DType::I8, &[&batch[..], &[k, n]].concat());
    let (b, weights) = if r.chance(75) {
        let width = r.pick(&[4, 8, 16, 32, 12]);
        let packed = quads::packed(&panels(&b, &batch, k, n, width), k);
        let access = layout(r, 1, DType::I8, packed.dims(), true);
        let weights = Weights::Quads { width, columns: n, run: k };
        (Placed { tensor: packed, access }, weights)
    } else {
        (place(r, 1, b), Weights::Plain)
    };
    let mut operands = vec![a, b];
    let dims = [&batch[..], &[m, n]].concat();
    let (epilogue, ty) = finish_bytes(r, &dims, &mut operands, converts);
    let contract = Contract { weights, epilogue, backwards: r.below(2) == 0, rides: false };
    Trial {
        op: Op::Contract(contract.clone()),
        mir: mir::Op::Contract(contract),
        operands,
        ty: Type::new(ty, dims),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

pub(super) fn conv_of_bytes(r: &mut Random, converts: bool) -> Trial {
    let (mut conv, extents, inside, outside) = convolution(r, &[1, 2, 3, 4]);
    let (spatial, groups) = (extents.len(), conv.groups);
    let n = 1 + r.below(2);
    let x = bytes(r, DType::U8, &[&[n][..], &extents, &[groups * inside]].concat());
    let x = place(r, 0, x);
    let w = bytes(r, DType::I8, &[&conv.taps[..], &[inside, groups * outside]].concat());
    let depth: usize = conv.taps.iter().product::<usize>() * inside;
    let w = if r.chance(70) {
        let apart = apart(&w, [groups, depth, outside]);
        let width = r.pick(&[4, 8, 16, 32]);
        let all = conv.taps[spatial - 1] * inside;
        let run = if r.chance(50) && conv.has_runs_of(all, inside) { all } else { inside };
        conv.weights = Weights::Quads { width, columns: outside, run };
        let packed = quads::packed(&panels(&apart, &[groups], depth, outside, width), run);
        let access = layout(r, 1, DType::I8, packed.dims(), true);
        Placed { tensor: packed, access }
    } else {
        place(r, 1, w)
    };
    let dims = [&[n][..], &results(&conv, &extents), &[groups * outside]].concat();
    let mut operands = vec![x, w];
    let (epilogue, ty) = finish_bytes(r, &dims, &mut operands, converts);
    conv.epilogue = epilogue;
    Trial {
        op: Op::Conv(conv.clone()),
        mir: mir::Op::Conv(conv),
        operands,
        ty: Type::new(ty, dims),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

/// Some rows times a constant in panels of so many columns; everything lies as products side by side want it, mostly.
pub(super) fn panelled(r: &mut Random, rows: usize, width: usize) -> Trial {
    let (k, n) = (2 + r.below(60), 1 + r.below(300));
    let ty = DType::F32;
    let a = tensor(r, ty, &[rows, k]);
    let a = place(r, 0, a);
    let b = tensor(r, ty, &[k, n]);
    let packed = panels(&b, &[], k, n, width);
    let access = layout(r, 1, ty, packed.dims(), true);
    let mut operands = vec![a, Placed { tensor: packed, access }];
    let epilogue = epilogue(r, ty, &[rows, n], &mut operands);
    let weights = Weights::Panels { width, columns: n };
    let contract = Contract { weights, epilogue, backwards: r.below(2) == 0, rides: false };
    let plain = r.chance(80);
    let result = layout(r, operands.len(), ty, &[rows, n], plain);
    Trial {
        op: Op::Contract(contract.clone()),
        mir: mir::Op::Contract(contract),
        operands,
        ty: Type::new(ty, [rows, n]),
        tolerance: Tolerance::Relative(1e-4),
        result: Some(result),
    }
}
