//! Sums of products, and what goes over windows.

use super::*;

/// One row of sums per visit: `sums += x * row` over 64-bit floats or wrapping integers.
pub(super) fn contract(c: &Contract, a: &Tensor, b: &Tensor, ty: &Type) -> Tensor {
    if let Weights::Quads { width, columns, run } = c.weights {
        let weights = Weights::Panels { width, columns };
        return contract(&Contract { weights, ..c.clone() }, a, &quads::unpacked(b, run), ty);
    }
    if let Weights::Nibbles { columns, blocks, .. } = c.weights {
        let b = nibbles::unpacked(b, blocks, [a.dims()[1], columns]);
        return contract(&Contract { weights: Weights::Plain, ..c.clone() }, a, &b, ty);
    }
    let rank = ty.rank();
    let (m, n, k) = (ty.dims[rank - 2], ty.dims[rank - 1], a.dims()[rank - 1]);
    let batch: usize = ty.dims[..rank - 2].iter().product();
    let columns = Columns::new(c.weights, n, k);
    let accumulate = Accumulator::new(a, b);
    let mut out = Vec::with_capacity(ty.bytes());
    for group in 0..batch {
        for row in 0..m {
            let taps = (0..k).map(|i| ((group * m + row) * k + i, i));
            accumulate.row(n, taps, |i| (group, i), &columns, &mut out);
        }
    }
    made(&accumulate.ty(ty), out)
}

pub(super) fn attended(attention: &Attention, operands: &[&Tensor], ty: &Type) -> Tensor {
    let product = Contract::of(Weights::Plain);
    let mut scores = ty.clone();
    *scores.dims.last_mut().expect("scores have columns") =
        *operands[1].dims().last().expect("there is a column for each key");
    let sums = contract(&product, operands[0], operands[1], &scores);
    let sums = epilogue(attention.epilogue.as_ref(), sums, &operands[3..], &scores);
    let weights = rows(&attention.rows, &[&sums], &scores);
    contract(&product, &weights, operands[2], ty)
}

pub(super) fn conv(c: &Conv, x: &Tensor, w: &Tensor, ty: &Type) -> Tensor {
    if let Weights::Quads { width, columns, run } = c.weights {
        let weights = Weights::Panels { width, columns };
        return conv(&Conv { weights, ..c.clone() }, x, &quads::unpacked(w, run), ty);
    }
    let spatial = c.taps.len();
    let (channels, outputs) = (x.dims()[spatial + 1], ty.dims[spatial + 1]);
    let (per_group, columns_per_group) = (channels / c.groups, outputs / c.groups);
    let taps: usize = c.taps.iter().product();
    let depth = taps * per_group;
    let grouped_plain = c.weights == Weights::Plain;
    let columns = Columns::new(c.weights, columns_per_group, depth);
    let own = strides(x.dims());
    // Offsets of the taps in X, in W's order.
    let mut offsets = vec![];
    let by: Vec<i64> = (0..spatial).map(|i| own[i + 1] * c.dilations[i] as i64).collect();
    walk(&c.taps, [&by], |[at]| offsets.push(at));
    let mut first = own[..spatial + 1].to_vec();
    (0..spatial).for_each(|i| first[i + 1] *= c.strides[i] as i64);
    let accumulate = Accumulator::new(x, w);
    let mut out = Vec::with_capacity(ty.bytes());
    walk(&ty.dims[..spatial + 1], [&first], |[at]| {
        for group in 0..c.groups {
            let channel = (group * per_group) as i64;
            let places = offsets.iter().enumerate().flat_map(|(tap, offset)| {
                (0..per_group)
                    .map(move |i| ((at + offset + channel) as usize + i, tap * per_group + i))
            });
            if grouped_plain {
                // W's rows hold the columns of all groups.
                let rows = Columns { panels: None, columns: outputs, depth };
                accumulate.row_from(
                    columns_per_group,
                    group * columns_per_group,
                    places,
                    |i| (0, i),
                    &rows,
                    &mut out,
                );
            } else {
                accumulate.row(columns_per_group, places, |i| (group, i), &columns, &mut out);
            }
        }
    });
    made(&accumulate.ty(ty), out)
}

/// Where element (k, n) of a group of B is.
pub(super) struct Columns {
    pub(super) panels: Option<usize>,
    pub(super) columns: usize,
    pub(super) depth: usize,
}

impl Columns {
    pub(super) fn new(weights: Weights, columns: usize, depth: usize) -> Columns {
        let panels = match weights {
            Weights::Plain => None,
            Weights::Panels { width, .. }
            | Weights::Quads { width, .. }
            | Weights::Nibbles { width, .. } => Some(width),
        };
        Columns { panels, columns, depth }
    }

    pub(super) fn index(&self, group: usize, k: usize, n: usize) -> usize {
        match self.panels {
            None => (group * self.depth + k) * self.columns + n,
            Some(width) => {
                let panels = self.columns.div_ceil(width);
                ((group * panels + n / width) * self.depth + k) * width + n % width
            }
        }
    }
}

pub(super) struct Accumulator {
    pub(super) dtype: DType,
    pub(super) floats: Option<(Vec<f64>, Vec<f64>)>,
    pub(super) ints: Option<(Vec<i64>, Vec<i64>)>,
}

impl Accumulator {
    pub(super) fn new(a: &Tensor, b: &Tensor) -> Accumulator {
        let dtype = sums(a.ty().dtype, b.ty().dtype).expect("products have a type");
        let floats = dtype.is_float().then(|| (a.f64s(), b.f64s()));
        let ints = (!dtype.is_float()).then(|| (a.ints(), b.ints()));
        Accumulator { dtype, floats, ints }
    }

    /// Type of the sums, before an epilogue that may convert.
    pub(super) fn ty(&self, result: &Type) -> Type {
        result.with_dtype(self.dtype)
    }

    pub(super) fn row(
        &self,
        n: usize,
        taps: impl Iterator<Item = (usize, usize)>,
        place: impl Fn(usize) -> (usize, usize),
        columns: &Columns,
        out: &mut Vec<u8>,
    ) {
        self.row_from(n, 0, taps, place, columns, out);
    }

    /// `n` columns from `first` on: for every (index in A, k), `sums += a * B[k]`.
    pub(super) fn row_from(
        &self,
        n: usize,
        first: usize,
        taps: impl Iterator<Item = (usize, usize)>,
        place: impl Fn(usize) -> (usize, usize),
        columns: &Columns,
        out: &mut Vec<u8>,
    ) {
        let width = columns.panels.unwrap_or(n).max(1);
        if let Some((a, b)) = &self.floats {
            let mut sums = vec![0f64; n];
            for (at, k) in taps {
                let (group, k) = place(k);
                for part in (0..n).step_by(width) {
                    let from = columns.index(group, k, first + part);
                    let end = n.min(part + width);
                    let row = &b[from..from + end - part];
                    sums[part..end].iter_mut().zip(row).for_each(|(sum, b)| *sum += a[at] * b);
                }
            }
            sums.into_iter().for_each(|v| push_f64(out, self.dtype, v));
        } else if let Some((a, b)) = &self.ints {
            let mut sums = vec![0i64; n];
            for (at, k) in taps {
                let (group, k) = place(k);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum =
                        sum.wrapping_add(a[at].wrapping_mul(b[columns.index(group, k, first + i)]));
                }
            }
            sums.into_iter().for_each(|v| push_int(out, self.dtype, v));
        }
    }
}

pub(super) fn pool(p: &Pool, x: &Tensor, ty: &Type) -> Tensor {
    let spatial = p.window.len();
    let own = strides(x.dims());
    let by: Vec<i64> = (0..spatial).map(|i| own[i + 1] * p.dilations[i] as i64).collect();
    let mut offsets = vec![];
    walk(&p.window, [&by], |[at]| offsets.push(at));
    let mut first = own.clone();
    (0..spatial).for_each(|i| first[i + 1] *= p.strides[i] as i64);
    let mut data = Vec::with_capacity(ty.bytes());
    walk(&ty.dims, [&first], |[at]| {
        let all = offsets.iter().map(|offset| Number::at(x, (at + offset) as usize));
        all.fold(start(p.op, ty.dtype), |a, b| binary(p.op.combine(), a, b, ty.dtype))
            .push(&mut data, ty.dtype);
    });
    made(ty, data)
}
