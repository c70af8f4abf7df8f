//! Steps of every kind, with random shapes, layouts and types: their kernels against MIR's definition.

use crate::cases::Case;
use crate::data::{Data, Tolerance};
use cranelift_entity::EntityRef;
use rlx_aot::kernels;
use rlx_aot::kir::{Kernel, Memory};
use rlx_aot::lir::{Access, Buffer, Op, StepInfo};
use rlx_aot::machine::Machine;
use rlx_aot::mir::expr::{Binary, Comparison, Expr, Literal, Unary};
use rlx_aot::mir::{self, Contract, Conv, Pool, Reduction, Rows, Stage, Weights, windows};
use rlx_aot::mir::{Attention, Scalar, Shares, Side, Winograd};
use rlx_aot::tensor::Tensor;
use rlx_aot::types::{DType, Type};

/// So many random steps.
pub(crate) fn cases(count: u64) -> Vec<Case> {
    (0..count).map(case).collect()
}

/// A small generator of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Mostly small.
    fn extent(&mut self) -> usize {
        self.pick(&[1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 40])
    }

    fn dims(&mut self, rank: usize, most: usize) -> Vec<usize> {
        loop {
            let dims: Vec<usize> = (0..rank).map(|_| self.extent()).collect();
            if dims.iter().product::<usize>() <= most {
                return dims;
            }
        }
    }
}

/// A tensor somewhere in a buffer.
struct Placed {
    tensor: Tensor,
    access: Access,
}

/// Values that are exact in every type and stay so in short sums.
fn tensor(r: &mut Random, dtype: DType, dims: &[usize]) -> Tensor {
    let ty = Type::new(dtype, dims.to_vec());
    let count = ty.elements();
    // Which NaN two-byte floats become is not said.
    let special = r.chance(15) && dtype.bytes() > 2;
    let values: Vec<f64> = (0..count)
        .map(|_| match r.below(40) {
            0 if special && dtype.is_float() => f64::NAN,
            1 if special && dtype.is_float() => f64::INFINITY,
            2 => -0.0,
            _ if dtype == DType::Bool => r.below(2) as f64,
            _ if dtype.is_float() => r.below(65) as f64 / 16.0 - 2.0,
            _ if dtype.is_signed() => r.below(21) as f64 - 10.0,
            _ => r.below(21) as f64,
        })
        .collect();
    Tensor::from_f64s(ty, values)
}

/// An access for dimensions, with axes in another order, room between and in front, and reversed ones.
fn layout(r: &mut Random, buffer: usize, dtype: DType, dims: &[usize], plain: bool) -> Access {
    let mut access = Access::dense(Buffer::new(buffer), &Type::new(dtype, dims.to_vec()));
    if plain || r.chance(40) {
        return access;
    }
    let mut order: Vec<usize> = (0..dims.len()).collect();
    if r.chance(35) {
        for i in (1..order.len()).rev() {
            order.swap(i, r.below(i + 1));
        }
    }
    let mut step = if r.chance(15) { 2 } else { 1 };
    for &axis in order.iter().rev() {
        access.strides[axis] = step;
        step *= dims[axis] as i64;
        step += if r.chance(20) { 3 } else { 0 };
    }
    for axis in 0..dims.len() {
        if r.chance(8) {
            access.offset += access.strides[axis] * (dims[axis] as i64 - 1);
            access.strides[axis] = -access.strides[axis];
        }
    }
    access.offset += r.below(3) as i64;
    access
}

fn place(r: &mut Random, buffer: usize, tensor: Tensor) -> Placed {
    let access = layout(r, buffer, tensor.ty().dtype, tensor.dims(), false);
    Placed { tensor, access }
}

/// A tensor that broadcasts to `dims`, with an access of these dimensions.
fn broadcast(r: &mut Random, buffer: usize, dtype: DType, dims: &[usize]) -> Placed {
    let own: Vec<usize> = dims.iter().map(|&d| if r.chance(30) { 1 } else { d }).collect();
    let placed = tensor(r, dtype, &own);
    let placed = place(r, buffer, placed);
    Placed { access: placed.access.broadcast(dims), ..placed }
}

/// What one step is tested with.
struct Trial {
    op: Op,
    mir: mir::Op,
    operands: Vec<Placed>,
    ty: Type,
    tolerance: Tolerance,
    /// The layout of the result, if it is not any.
    result: Option<Access>,
}

const TYPES: [DType; 13] = [
    DType::F32,
    DType::F64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::Bool,
    DType::F16,
    DType::BF16,
];

fn dtype(r: &mut Random) -> DType {
    if r.chance(60) { DType::F32 } else { r.pick(&TYPES) }
}

/// A random expression over operands of these types that ends with `to`.
fn expression(r: &mut Random, operands: &[DType], to: DType) -> Expr {
    let mut e = Expr::new();
    let mut known: Vec<(mir::expr::Ref, DType)> =
        operands.iter().enumerate().map(|(i, &ty)| (e.operand(i), ty)).collect();
    for _ in 0..r.below(6) {
        let (a, ty) = known[r.below(known.len())];
        let same: Vec<_> = known.iter().filter(|k| k.1 == ty).map(|k| k.0).collect();
        let b = match r.chance(30) {
            true => e.literal(ty, r.below(3) as f64),
            false => same[r.below(same.len())],
        };
        let next = match r.below(10) {
            0..=4 => {
                let mut ops = vec![Binary::Min, Binary::Max];
                if ty != DType::Bool {
                    ops.extend([Binary::Add, Binary::Sub, Binary::Mul, Binary::Add]);
                }
                if ty != DType::Bool && !ty.is_float() {
                    ops.extend([Binary::Div, Binary::Rem, Binary::Shl, Binary::Shr]);
                }
                if !ty.is_float() {
                    ops.extend([Binary::And, Binary::Or, Binary::Xor]);
                } else {
                    ops.push(Binary::Rem);
                }
                (e.binary(r.pick(&ops), a, b), ty)
            }
            5 | 6 => {
                let op = match () {
                    () if ty == DType::Bool => Unary::Not,
                    () if ty.is_float() => r.pick(&[
                        Unary::Neg,
                        Unary::Abs,
                        Unary::Sign,
                        Unary::Floor,
                        Unary::Ceil,
                        Unary::Round,
                        Unary::Trunc,
                    ]),
                    () => r.pick(&[Unary::Neg, Unary::Abs, Unary::Sign, Unary::Not]),
                };
                (e.unary(op, a), ty)
            }
            7 => {
                let op = r.pick(&[
                    Comparison::Equal,
                    Comparison::NotEqual,
                    Comparison::Less,
                    Comparison::LessEqual,
                    Comparison::Greater,
                    Comparison::GreaterEqual,
                ]);
                (e.compare(op, a, b), DType::Bool)
            }
            8 => {
                let masks: Vec<_> =
                    known.iter().filter(|k| k.1 == DType::Bool).map(|k| k.0).collect();
                match masks.is_empty() {
                    true => continue,
                    false => (e.select(r.pick(&masks), a, b), ty),
                }
            }
            _ => {
                let to = r.pick(&TYPES);
                // A float that does not fit may become anything.
                if ty.is_float() && !to.is_float() && to != DType::Bool {
                    let limit = if to.is_signed() { -100.0 } else { 0.0 };
                    let (low, high) = (e.literal(ty, limit), e.literal(ty, 100.0));
                    let nan = e.compare(Comparison::Equal, a, a);
                    let a = e.select(nan, a, high);
                    let a = e.binary(Binary::Max, a, low);
                    let a = e.binary(Binary::Min, a, high);
                    (e.cast(to, a), to)
                } else {
                    (e.cast(to, a), to)
                }
            }
        };
        known.push(next);
    }
    let (mut last, ty) = known[known.len() - 1];
    if ty != to {
        if ty.is_float() && !to.is_float() && to != DType::Bool {
            let limit = if to.is_signed() { -100.0 } else { 0.0 };
            let (low, high) = (e.literal(ty, limit), e.literal(ty, 100.0));
            let nan = e.compare(Comparison::Equal, last, last);
            last = e.select(nan, last, high);
            last = e.binary(Binary::Max, last, low);
            last = e.binary(Binary::Min, last, high);
        }
        last = e.cast(to, last);
    }
    e.returning(last)
}

fn map(r: &mut Random) -> Trial {
    let rank = 1 + r.below(4);
    let dims = r.dims(rank, 2000);
    let types: Vec<DType> = (0..1 + r.below(3)).map(|_| dtype(r)).collect();
    let operands: Vec<Placed> =
        types.iter().enumerate().map(|(i, &ty)| broadcast(r, i, ty, &dims)).collect();
    let to = if r.chance(70) { types[0] } else { dtype(r) };
    let expr = expression(r, &types, to);
    let rows =
        Rows { stages: vec![Stage { expr: expr.clone(), reduce: None }], width: dims[rank - 1] };
    Trial {
        op: Op::Rows(rows),
        mir: mir::Op::Map(expr),
        operands,
        ty: Type::new(to, dims),
        tolerance: Tolerance::Relative(1e-5),
        result: None,
    }
}

/// A softmax of the first of so many operands.
fn softmax(operands: usize) -> [Stage; 4] {
    let first = Stage { expr: Expr::identity(), reduce: Some(Reduction::Max) };
    let mut e = Expr::new();
    let (x, max) = (e.operand(0), e.operand(operands));
    let d = e.binary(Binary::Sub, x, max);
    let _ = e.unary(Unary::Exp, d);
    let exp = Stage { expr: e, reduce: None };
    let mut e = Expr::new();
    e.operand(operands + 1);
    let sum = Stage { expr: e, reduce: Some(Reduction::Sum) };
    let mut e = Expr::new();
    let (x, sum_of) = (e.operand(operands + 1), e.operand(operands + 2));
    let _ = e.binary(Binary::Div, x, sum_of);
    [first, exp, sum, Stage { expr: e, reduce: None }]
}

fn rows(r: &mut Random) -> Trial {
    let rank = 1 + r.below(3);
    let mut dims = r.dims(rank, 2000);
    if r.chance(30) {
        dims[rank - 1] = r.pick(&[100, 127, 384]);
    }
    let others = [DType::F64, DType::F64, DType::I32, DType::I64];
    let ty = if r.chance(75) { DType::F32 } else { r.pick(&others) };
    let count = 1 + r.below(2);
    let operands: Vec<Placed> = (0..count).map(|i| broadcast(r, i, ty, &dims)).collect();
    let mut types = vec![ty; count];
    let mut stages = vec![];
    if ty == DType::F32 && r.chance(40) {
        stages.extend(softmax(count));
    } else {
        for _ in 0..1 + r.below(4) {
            let expr = expression(r, &types, ty);
            let reduce =
                r.chance(50).then(|| r.pick(&[Reduction::Sum, Reduction::Max, Reduction::Min]));
            stages.push(Stage { expr, reduce });
            types.push(ty);
        }
    }
    let width = dims[rank - 1];
    let mut result = dims.clone();
    if stages[stages.len() - 1].reduce.is_some() {
        result[rank - 1] = 1;
    }
    let rows = Rows { stages, width };
    Trial {
        op: Op::Rows(rows.clone()),
        mir: mir::Op::Rows(rows),
        operands,
        ty: Type::new(ty, result),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

fn reduce(r: &mut Random) -> Trial {
    let rank = 1 + r.below(4);
    let dims = r.dims(rank, 3000);
    let mut axes: Vec<usize> = (0..rank).filter(|_| r.chance(50)).collect();
    if axes.is_empty() {
        axes.push(r.below(rank));
    }
    let ty = dtype(r);
    let mut result = dims.clone();
    axes.iter().for_each(|&axis| result[axis] = 1);
    let mut op = r.pick(&[Reduction::Sum, Reduction::Max, Reduction::Min, Reduction::Product]);
    if ty.is_float() && ty.bytes() == 2 && op == Reduction::Product {
        // Rounded once by the definition.
        op = Reduction::Sum;
    }
    let x = tensor(r, ty, &dims);
    Trial {
        op: Op::Reduce { op, axes: axes.clone() },
        mir: mir::Op::Reduce { op, axes },
        operands: vec![place(r, 0, x)],
        ty: Type::new(ty, result),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

fn arg_reduce(r: &mut Random) -> Trial {
    let rank = 1 + r.below(3);
    let dims = r.dims(rank, 1000);
    let (axis, largest, last) = (r.below(rank), r.chance(50), r.chance(30));
    let ty = dtype(r);
    let mut result = dims.clone();
    result[axis] = 1;
    let x = tensor(r, ty, &dims);
    Trial {
        op: Op::ArgReduce { largest, axis, last },
        mir: mir::Op::ArgReduce { largest, axis, last },
        operands: vec![place(r, 0, x)],
        ty: Type::new(DType::I64, result),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

/// An epilogue over the sum, of which the operands are there, and new operands of `dims`.
fn epilogue(r: &mut Random, ty: DType, dims: &[usize], operands: &mut Vec<Placed>) -> Option<Expr> {
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
fn panels(plain: &Tensor, batch: &[usize], depth: usize, columns: usize, width: usize) -> Tensor {
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
fn product_type(r: &mut Random, percent: usize) -> DType {
    match () {
        () if r.chance(percent) => DType::F32,
        () if r.chance(50) => DType::F64,
        () => r.pick(&TYPES[..10]),
    }
}

fn contract(r: &mut Random) -> Trial {
    let ty = product_type(r, 65);
    let batch = if r.chance(60) { vec![] } else { vec![1 + r.below(3)] };
    let (m, k, n) = (r.extent(), r.extent(), r.extent());
    let a = tensor(r, ty, &[&batch[..], &[m, k]].concat());
    let a = place(r, 0, a);
    let b = tensor(r, ty, &[&batch[..], &[k, n]].concat());
    let (b, weights) = if r.chance(50) {
        let width = r.pick(&[4, 8, 16, 32, 12]);
        let packed = panels(&b, &batch, k, n, width);
        let access = layout(r, 1, ty, packed.dims(), true);
        (Placed { tensor: packed, access }, Weights::Panels { width, columns: n })
    } else {
        (place(r, 1, b), Weights::Plain)
    };
    let mut operands = vec![a, b];
    let dims = [&batch[..], &[m, n]].concat();
    let epilogue = epilogue(r, ty, &dims, &mut operands);
    let backwards = r.below(2) == 0;
    let contract = Contract { weights, epilogue, backwards };
    Trial {
        op: Op::Contract(contract.clone()),
        mir: mir::Op::Contract(contract),
        operands,
        ty: Type::new(ty, dims),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

fn attention(r: &mut Random) -> Trial {
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
    let mut stages = softmax(1).to_vec();
    if r.chance(30) {
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
    let attention = Attention { epilogue: first, rows: Rows { stages, width: keys } };
    Trial {
        op: Op::Attention(attention.clone()),
        mir: mir::Op::Attention(attention),
        operands,
        ty: Type::new(DType::F32, dims(queries, width)),
        tolerance: Tolerance::Relative(1e-3),
        result: None,
    }
}

fn conv(r: &mut Random) -> Trial {
    let ty = product_type(r, 80);
    let spatial = r.pick(&[1, 2, 2, 2, 3]);
    let taps: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 2, 3])).collect();
    let strides: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 1, 2, 3])).collect();
    let dilations: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 1, 1, 2])).collect();
    let extents: Vec<usize> =
        (0..spatial).map(|i| (taps[i] - 1) * dilations[i] + 1 + r.below(9)).collect();
    let (groups, inside, outside) = match r.below(4) {
        0 => (r.pick(&[3, 16, 19, 33]), 1, r.pick(&[1, 1, 1, 2])),
        1 => (2, 1 + r.below(9), 1 + r.below(17)),
        _ => (1, 1 + r.below(9), r.extent()),
    };
    let n = 1 + r.below(2);
    let x = tensor(r, ty, &[&[n][..], &extents, &[groups * inside]].concat());
    let x = place(r, 0, x);
    let w = tensor(r, ty, &[&taps[..], &[inside, groups * outside]].concat());
    let depth: usize = taps.iter().product::<usize>() * inside;
    let (w, weights) = if r.chance(50) {
        // The columns of each group apart.
        let values = w.f64s();
        let mut apart = vec![];
        for g in 0..groups {
            for k in 0..depth {
                let at = (k * groups + g) * outside;
                apart.extend_from_slice(&values[at..at + outside]);
            }
        }
        let apart = Tensor::from_f64s(Type::new(ty, [groups, depth, outside]), apart);
        let width = r.pick(&[4, 8, 16, 32]);
        let packed = panels(&apart, &[groups], depth, outside, width);
        let access = layout(r, 1, ty, packed.dims(), true);
        (Placed { tensor: packed, access }, Weights::Panels { width, columns: outside })
    } else {
        (place(r, 1, w), Weights::Plain)
    };
    let outputs: Vec<usize> =
        (0..spatial).map(|i| windows(extents[i], taps[i], strides[i], dilations[i])).collect();
    let dims = [&[n][..], &outputs, &[groups * outside]].concat();
    let mut operands = vec![x, w];
    let epilogue = epilogue(r, ty, &dims, &mut operands);
    let conv = Conv { taps, strides, dilations, groups, weights, epilogue };
    Trial {
        op: Op::Conv(conv.clone()),
        mir: mir::Op::Conv(conv),
        operands,
        ty: Type::new(ty, dims),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

fn winograd(r: &mut Random) -> Trial {
    let tile = r.pick(&[2, 4, 4, 6]);
    let (n, c) = (1 + r.below(2), r.extent());
    let extents = [1 + r.below(15), 1 + r.below(15)];
    let points = tile + 2;
    // Infinities less infinities are no numbers, and which of them meet is not said.
    let finite = |r: &mut Random, dims: &[usize]| loop {
        let tensor = tensor(r, DType::F32, dims);
        if tensor.f64s().iter().all(|x| x.is_finite()) {
            break tensor;
        }
    };
    let (side, operands, dims) = if r.chance(50) {
        let before = [r.below(points), r.below(points)];
        let tiles = [0, 1].map(|axis| (extents[axis] + r.below(tile)).div_ceil(tile));
        let x = finite(r, &[n, extents[0], extents[1], c]);
        let dims = vec![points * points, n * tiles[0] * tiles[1], c];
        (Side::Input { before, tiles }, vec![place(r, 0, x)], dims)
    } else {
        let tiles: usize = extents.iter().map(|e| e.div_ceil(tile)).product();
        let products = finite(r, &[points * points, n * tiles, c]);
        let mut operands = vec![place(r, 0, products)];
        let dims = vec![n, extents[0], extents[1], c];
        let epilogue = epilogue(r, DType::F32, &dims, &mut operands);
        (Side::Output { epilogue }, operands, dims)
    };
    let winograd = Winograd { tile, side };
    Trial {
        op: Op::Winograd(winograd.clone()),
        mir: mir::Op::Winograd(winograd),
        operands,
        ty: Type::new(DType::F32, dims),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

fn pool(r: &mut Random) -> Trial {
    let ty = dtype(r);
    let spatial = 1 + r.below(2);
    let window: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 2, 3, 5])).collect();
    let strides: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 2, 3])).collect();
    let dilations: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 1, 2])).collect();
    let extents: Vec<usize> =
        (0..spatial).map(|i| (window[i] - 1) * dilations[i] + 1 + r.below(5)).collect();
    let (n, c) = (1 + r.below(2), r.extent());
    let outputs: Vec<usize> =
        (0..spatial).map(|i| windows(extents[i], window[i], strides[i], dilations[i])).collect();
    let x = tensor(r, ty, &[&[n][..], &extents, &[c]].concat());
    let op = r.pick(&[Reduction::Sum, Reduction::Max, Reduction::Min]);
    let pool = Pool { op, window, strides, dilations };
    Trial {
        op: Op::Pool(pool.clone()),
        mir: mir::Op::Pool(pool),
        operands: vec![place(r, 0, x)],
        ty: Type::new(ty, [&[n][..], &outputs, &[c]].concat()),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

fn gather(r: &mut Random) -> Trial {
    let ty = dtype(r);
    let rank = 1 + r.below(3);
    let dims = r.dims(rank, 500);
    let axis = r.below(rank);
    let places: Vec<usize> = (0..r.below(3)).map(|_| 1 + r.below(4)).collect();
    let count: usize = places.iter().product();
    let indices: Vec<f64> = (0..count).map(|_| r.below(60) as f64 - 30.0).collect();
    let index_type = r.pick(&[DType::I32, DType::I64]);
    let indices = Tensor::from_f64s(Type::new(index_type, places.clone()), indices);
    let result = [&dims[..axis], &places, &dims[axis + 1..]].concat();
    let data = tensor(r, ty, &dims);
    Trial {
        op: Op::Gather { axis },
        mir: mir::Op::Gather { axis },
        operands: vec![place(r, 0, data), place(r, 1, indices)],
        ty: Type::new(ty, result),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

/// Rows whose elements lie in turn, in the operand or in the result.
fn weave(r: &mut Random) -> Trial {
    let ty = dtype(r);
    let (outer, rows) = (1 + r.below(3), r.pick(&[2, 3, 4, 8]));
    let columns = r.pick(&[1, 5, 16, 31, 33, 40]);
    let dims = [outer, rows, columns];
    let x = tensor(r, ty, &dims);
    let [mut turns, apart] =
        [0, 1].map(|buffer| Access::dense(Buffer::new(buffer), &Type::new(ty, dims.to_vec())));
    turns.strides = vec![(rows * columns) as i64, 1, rows as i64];
    let (access, result) = match r.chance(50) {
        true => (turns, None),
        false => (apart, Some(Access { buffer: Buffer::new(1), ..turns })),
    };
    Trial {
        op: Op::Move,
        mir: mir::Op::Broadcast,
        operands: vec![Placed { tensor: x, access: Access { buffer: Buffer::new(0), ..access } }],
        ty: Type::new(ty, dims.to_vec()),
        tolerance: Tolerance::Exact,
        result,
    }
}

fn copy(r: &mut Random) -> Trial {
    if r.chance(30) {
        return weave(r);
    }
    let ty = dtype(r);
    let rank = r.below(5);
    let dims = r.dims(rank, 3000);
    let x = broadcast(r, 0, ty, &dims);
    Trial {
        op: Op::Move,
        mir: mir::Op::Broadcast,
        operands: vec![x],
        ty: Type::new(ty, dims),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

fn fill(r: &mut Random) -> Trial {
    let ty = dtype(r);
    let rank = r.below(4);
    let dims = r.dims(rank, 2000);
    let literal = Literal::from_f64(ty, r.pick(&[0.0, 1.0, 3.0]));
    let all = Type::new(ty, dims.clone());
    let values = vec![literal.f64(); all.elements()];
    Trial {
        op: Op::Fill(literal),
        mir: mir::Op::Constant(Tensor::from_f64s(all.clone(), values)),
        operands: vec![],
        ty: all,
        tolerance: Tolerance::Exact,
        result: None,
    }
}

fn memory(dtype: DType) -> Memory {
    match dtype {
        DType::F32 => Memory::F32,
        DType::F64 => Memory::F64,
        DType::I8 => Memory::I8,
        DType::I16 => Memory::I16,
        DType::I32 => Memory::I32,
        DType::I64 | DType::U64 => Memory::I64,
        DType::U8 | DType::Bool => Memory::U8,
        DType::U16 | DType::F16 | DType::BF16 => Memory::U16,
        DType::U32 => Memory::U32,
    }
}

/// Calls `f` with the flat index of every element of an access, from its lowest one, in row-major
/// order of its dimensions.
fn elements(access: &Access) -> Vec<usize> {
    let Some((low, _)) = access.span() else { return vec![] };
    let mut all = vec![access.offset - low];
    for (&extent, &stride) in access.dims.iter().zip(&access.strides) {
        all = all.iter().flat_map(|&at| (0..extent as i64).map(move |i| at + i * stride)).collect();
    }
    all.into_iter()
        .map(|at| usize::try_from(at).expect("the span's low end is the lowest"))
        .collect()
}

/// What memory holds from the lowest to the highest element of an access.
fn spread(access: &Access, tensor: Option<&Tensor>) -> Data {
    let kind = memory(access.dtype);
    let count = access.span().map_or(0, |(low, high)| high - low + 1) as usize;
    let mut data = Data::unset(kind, count);
    if let Some(tensor) = tensor {
        for (i, at) in elements(access).into_iter().enumerate() {
            match &mut data {
                Data::Floats(_, values) => values[at] = tensor.f64_at(i),
                Data::Integers(_, values) if access.dtype.is_float() => {
                    let bytes = tensor.element(i);
                    values[at] = i64::from(u16::from_le_bytes([bytes[0], bytes[1]]));
                }
                Data::Integers(_, values) => values[at] = tensor.int_at(i),
            }
        }
    }
    data
}

fn case(seed: u64) -> Case {
    let mut r = Random(seed);
    let kinds = [map, rows, reduce, arg_reduce, contract, conv, pool, gather, copy, fill];
    let kinds = [&kinds[..], &[map, rows, contract, contract, conv, winograd]].concat();
    let kinds = [&kinds[..], &[attention, attention]].concat();
    let trial = kinds[seed as usize % kinds.len()](&mut r);
    let tensors: Vec<&Tensor> = trial.operands.iter().map(|o| &o.tensor).collect();
    let expected = mir::eval::op(&trial.mir, &tensors, &trial.ty);
    let count = trial.operands.len();
    let result = trial
        .result
        .unwrap_or_else(|| layout(&mut r, count, trial.ty.dtype, &trial.ty.dims, false));
    // A tensor that is broadcast has the elements of its repeated access.
    let data: Vec<Data> = (trial.operands.iter())
        .map(|placed| {
            let full = Type::new(placed.tensor.ty().dtype, placed.access.dims.clone());
            let full = mir::eval::op(&mir::Op::Broadcast, &[&placed.tensor], &full);
            spread(&placed.access, Some(&full))
        })
        .collect();
    let scratch = matches!(trial.op, Op::Attention(_)).then(|| {
        let [q, k] = [0, 1].map(|i| &trial.operands[i].access.dims);
        let shares = Shares::of(q, k);
        let ty = Type::new(DType::F32, [shares.count, shares.elements()]);
        Access::dense(Buffer::new(count + 1), &ty)
    });
    let working = scratch.iter().map(|access| spread(access, None));
    let data: Vec<Data> = data.into_iter().chain(working).collect();
    let step = StepInfo {
        op: trial.op,
        operands: trial.operands.into_iter().map(|placed| placed.access).collect(),
        result,
        scratch,
        origins: vec![],
    };
    let name = format!("step {seed}: {:?}", step.op);
    let expected = spread(&step.result, Some(&expected));
    let operands = [data, vec![spread(&step.result, None)]].concat();
    let kernel = move |machine: Machine| -> Kernel {
        match kernels::build(&step, &machine, "step") {
            Ok(plan) => plan.kernel,
            Err(error) => panic!("{error:?}: {step:?}"),
        }
    };
    Case {
        name,
        scalar: false,
        doubles: false,
        kernel: Box::new(kernel),
        operands: Box::new(move |_| operands.clone()),
        expected: Box::new(move |_| vec![expected.clone()]),
        tolerance: trial.tolerance,
        tight: false,
    }
}
