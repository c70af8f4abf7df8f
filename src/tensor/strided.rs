//! Copies of tensors in another order: permutations, slices and broadcasts of constants, which may have
//! hundreds of megabytes.
//!
//! Axes that are one in memory become one. Where elements along the last axis lie side by side, whole
//! rows are copied; else strips of a few columns are, over the axis along which the operand's elements are
//! closest together, so that every cache line of either side is used while it is there.

use super::{Tensor, for_each_index};
use crate::types::strides;

/// A strip's columns: a cache line of f32, and as many lines of the operand as the smallest caches keep.
const STRIP: usize = 16;

impl Tensor {
    /// The tensor of these dimensions whose element at an index is element `first` + the sum of index
    /// times `by` of this one: what everything that only moves elements comes down to. Strides are
    /// in elements, one for each axis. Large ones are made when somebody asks for them ([`Tensor::moved`]).
    ///
    /// # Panics
    ///
    /// When that element is not there, as soon as it is asked for.
    pub fn strided(&self, dims: impl Into<Vec<usize>>, first: i64, by: &[i64]) -> Tensor {
        let ty = self.ty.with_dims(dims);
        if ty.elements() == 0 {
            return Tensor::zeros(ty);
        }
        let (dims, by) = joined(&ty.dims, by);
        let (how, own) = (format!("elements of {dims:?} from {first} by {by:?}"), ty.clone());
        Tensor::moved(ty, &how, &[self], move |of| {
            let data = match own.dtype.bytes() {
                1 => elements::<1>(of[0].bytes(), first, &by, &dims),
                2 => elements::<2>(of[0].bytes(), first, &by, &dims),
                4 => elements::<4>(of[0].bytes(), first, &by, &dims),
                8 => elements::<8>(of[0].bytes(), first, &by, &dims),
                size => unreachable!("elements of {size} bytes"),
            };
            Tensor::from_bytes(own, data.into()).expect("a copy has as many bytes")
        })
    }
}

/// The same elements with as few axes as can be, two at least.
fn joined(dims: &[usize], by: &[i64]) -> (Vec<usize>, Vec<i64>) {
    let mut axes: Vec<(usize, i64)> = vec![];
    for (&dim, &by) in dims.iter().zip(by).filter(|&(&dim, _)| dim != 1) {
        match axes.last_mut() {
            Some((outer, stride)) if *stride == by * dim as i64 => {
                (*outer, *stride) = (*outer * dim, by);
            }
            _ => axes.push((dim, by)),
        }
    }
    while axes.len() < 2 {
        axes.insert(0, (1, 0));
    }
    axes.into_iter().unzip()
}

/// The same in elements of `N` bytes, for two axes at least, none of them empty.
fn elements<const N: usize>(from: &[u8], first: i64, by: &[i64], dims: &[usize]) -> Vec<u8> {
    let byte = |element: i64| element as usize * N;
    let at = |index: &[usize], strides: &[i64]| -> i64 {
        index.iter().zip(strides).map(|(&i, stride)| i as i64 * stride).sum()
    };
    let last = dims.len() - 1;
    let size = dims.iter().product::<usize>() * N;
    if by[last] == 1 {
        let mut to = Vec::with_capacity(size);
        for_each_index(&dims[..last], |index| {
            to.extend_from_slice(&from[byte(first + at(index, by))..][..dims[last] * N]);
        });
        return to;
    }
    let mut to = vec![0; size];
    let own = strides(dims);
    let close = (0..last).min_by_key(|&axis| by[axis].unsigned_abs()).unwrap_or(0);
    let (rows, columns) = (dims[close], dims[last]);
    // All but the rows and columns of the strips.
    let mut others = dims[..last].to_vec();
    others[close] = 1;
    for_each_index(&others, |index| {
        let (source, target) = (first + at(index, by), at(index, &own));
        for column in (0..columns).step_by(STRIP) {
            let width = STRIP.min(columns - column);
            for row in 0..rows as i64 {
                let to = &mut to[byte(target + row * own[close] + column as i64)..][..width * N];
                let mut at = source + row * by[close] + column as i64 * by[last];
                for element in to.chunks_exact_mut(N) {
                    element.copy_from_slice(&from[byte(at)..][..N]);
                    at += by[last];
                }
            }
        }
    });
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DType, Type};

    fn numbered(dtype: DType, dims: &[usize]) -> Tensor {
        let ty = Type::new(dtype, dims);
        let count = ty.elements() as i64;
        Tensor::from_ints(ty, (0..count).map(|i| i * 37 + 11))
    }

    /// Compares with the definition, element by element.
    fn check(from: &Tensor, dims: &[usize], first: i64, by: &[i64]) {
        let mut expected = vec![];
        for_each_index(dims, |index| {
            let at: i64 = index.iter().zip(by).map(|(&i, stride)| i as i64 * stride).sum();
            expected.extend_from_slice(from.element((first + at) as usize));
        });
        let found = from.strided(dims, first, by);
        assert_eq!(
            (found.dims(), &found.bytes()[..]),
            (dims, &expected[..]),
            "{} {by:?}",
            from.ty()
        );
    }

    const TYPES: [DType; 6] =
        [DType::Bool, DType::I8, DType::F16, DType::F32, DType::I64, DType::F64];

    #[test]
    fn permutations() {
        let shapes: &[&[usize]] = &[
            &[],
            &[5],
            &[1, 1],
            &[17, 33],
            &[16, 32],
            &[1, 40],
            &[3, 0, 2],
            &[2, 19, 35],
            &[18, 1, 17],
            &[3, 17, 2, 5],
            &[2, 3, 1, 4, 21],
        ];
        for (dims, dtype) in shapes.iter().flat_map(|dims| TYPES.map(|dtype| (dims, dtype))) {
            let from = numbered(dtype, dims);
            let rank = dims.len();
            for_each_index(&vec![rank; rank], |perm| {
                if (0..rank).all(|axis| perm.contains(&axis)) {
                    let to: Vec<usize> = perm.iter().map(|&p| dims[p]).collect();
                    let by: Vec<i64> = perm.iter().map(|&p| strides(dims)[p]).collect();
                    check(&from, &to, 0, &by);
                }
            });
        }
    }

    #[test]
    fn slices_and_broadcasts() {
        let cases: &[([usize; 3], i64, [i64; 3])] = &[
            ([2, 19, 35], 0, [665, 35, 1]),
            ([2, 19, 34], 1, [665, 35, 1]),
            ([2, 7, 17], 104, [665, 70, -2]),
            ([2, 19, 35], 1329, [-665, -35, -1]),
            ([1, 19, 1], 668, [665, 35, 1]),
            ([2, 1, 18], 175, [665, 35, 2]),
            ([1, 0, 4], 0, [665, 35, 1]),
            ([3, 18, 17], 5, [0, 35, 0]),
            ([3, 18, 17], 5, [1, 0, 1]),
            ([3, 18, 17], 700, [-1, 0, 17]),
            ([2, 5, 33], 1329, [0, 0, 0]),
        ];
        for ((dims, first, by), dtype) in
            cases.iter().flat_map(|case| TYPES.map(|dtype| (case, dtype)))
        {
            check(&numbered(dtype, &[2, 19, 35]), dims, *first, by);
        }
    }
}
