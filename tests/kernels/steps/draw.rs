//! Random tensors, layouts, types and expressions.

use super::*;

/// A small generator of numbers (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Mostly small.
    pub(super) fn extent(&mut self) -> usize {
        self.pick(&[1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 40])
    }

    pub(super) fn dims(&mut self, rank: usize, most: usize) -> Vec<usize> {
        loop {
            let dims: Vec<usize> = (0..rank).map(|_| self.extent()).collect();
            if dims.iter().product::<usize>() <= most {
                return dims;
            }
        }
    }
}

/// A tensor somewhere in a buffer.
pub(super) struct Placed {
    pub(super) tensor: Tensor,
    pub(super) access: Access,
}

/// Values that are exact in every type and stay so in short sums.
pub(super) fn tensor(r: &mut Random, dtype: DType, dims: &[usize]) -> Tensor {
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
pub(super) fn layout(
    r: &mut Random,
    buffer: usize,
    dtype: DType,
    dims: &[usize],
    plain: bool,
) -> Access {
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
    for (stride, &extent) in access.strides.iter_mut().zip(dims) {
        if r.chance(8) {
            access.offset += *stride * (extent as i64 - 1);
            *stride = -*stride;
        }
    }
    access.offset += r.below(3) as i64;
    access
}

pub(super) fn place(r: &mut Random, buffer: usize, tensor: Tensor) -> Placed {
    let access = layout(r, buffer, tensor.ty().dtype, tensor.dims(), false);
    Placed { tensor, access }
}

/// A tensor that broadcasts to `dims`, with an access of these dimensions.
pub(super) fn broadcast(r: &mut Random, buffer: usize, dtype: DType, dims: &[usize]) -> Placed {
    let own: Vec<usize> = dims.iter().map(|&d| if r.chance(30) { 1 } else { d }).collect();
    let placed = tensor(r, dtype, &own);
    let placed = place(r, buffer, placed);
    Placed { access: placed.access.broadcast(dims), ..placed }
}

pub(super) const TYPES: [DType; 13] = [
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

pub(super) fn dtype(r: &mut Random) -> DType {
    if r.chance(60) { DType::F32 } else { r.pick(&TYPES) }
}

/// A random expression over operands of these types that ends with `to`.
pub(super) fn expression(r: &mut Random, operands: &[DType], to: DType) -> Expr {
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
