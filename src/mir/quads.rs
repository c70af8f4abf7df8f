//! Weights of bytes for products of four at a time: which elements of a column stand side by side.
//!
//! A run of elements that lie one behind the other is in fours. Where the last four would reach beyond its end,
//! they are the last four of the run: those that the four before them have, too, count as zero. So what is
//! multiplied by them is read within the run. A run of less than four is filled with zeros at its end.

use crate::tensor::Tensor;
use crate::types::Type;

/// How many fours a run is in.
pub fn fours(run: usize) -> usize {
    run.div_ceil(4)
}

/// The element of a run whose factor the four-th four meets in its first byte.
pub fn first(run: usize, four: usize) -> usize {
    (4 * four).min(run.saturating_sub(4))
}

/// The element of a run that is byte `byte` of a four; `None` for a zero.
pub fn element(run: usize, four: usize, byte: usize) -> Option<usize> {
    let element = first(run, four) + byte;
    (element >= 4 * four && element < run).then_some(element)
}

/// The dimensions of panels in fours.
pub fn packed_dims(dims: &[usize], run: usize) -> Vec<usize> {
    converted(dims, run, true)
}

/// From panels `[.., panels, depth, width]` to fours `[.., panels, runs * fours, width, 4]`.
pub fn packed(panels: &Tensor, run: usize) -> Tensor {
    let (from, to) = (panels.dims(), packed_dims(panels.dims(), run));
    let [depth, width] = [from[from.len() - 2], from[from.len() - 1]];
    let bytes = panels.bytes();
    let mut data = Vec::with_capacity(to.iter().product());
    for matrix in 0..from[..from.len() - 2].iter().product() {
        for start in (0..depth).step_by(run.max(1)) {
            for four in 0..fours(run) {
                for column in 0..width {
                    data.extend((0..4).map(|byte| {
                        let at = |e: usize| (matrix * depth + start + e) * width + column;
                        element(run, four, byte).map_or(0, |e| bytes[at(e)])
                    }));
                }
            }
        }
    }
    let ty = Type::new(panels.ty().dtype, to);
    Tensor::from_bytes(ty, data.into()).expect("as many bytes as the type has")
}

/// The opposite of [`packed`].
pub fn unpacked(fours_of: &Tensor, run: usize) -> Tensor {
    let (from, to) = (fours_of.dims(), converted(fours_of.dims(), run, false));
    let (groups, width) = (from[from.len() - 3], from[from.len() - 2]);
    let depth = to[to.len() - 2];
    let bytes = fours_of.bytes();
    let mut data = vec![0; to.iter().product()];
    for (at, &value) in bytes.iter().enumerate() {
        let (byte, column, group) = (at % 4, at / 4 % width, at / (4 * width) % groups);
        let matrix = at / (4 * width * groups);
        let start = group / fours(run) * run;
        if let Some(e) = element(run, group % fours(run), byte) {
            data[(matrix * depth + start + e) * width + column] = value;
        }
    }
    let ty = Type::new(fours_of.ty().dtype, to);
    Tensor::from_bytes(ty, data.into()).expect("as many bytes as the type has")
}

/// The dimensions of panels in fours, or the other way round.
fn converted(dims: &[usize], run: usize, pack: bool) -> Vec<usize> {
    let (run, fours) = (run.max(1), fours(run).max(1));
    match (pack, dims) {
        (true, [outer @ .., depth, width]) => [outer, &[depth / run * fours, *width, 4]].concat(),
        (false, [outer @ .., groups, width, _]) => {
            [outer, &[groups / fours * run, *width]].concat()
        }
        _ => dims.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DType;

    #[test]
    fn fours_of_runs() {
        let of = |run: usize| -> Vec<Vec<Option<usize>>> {
            let four = |four| (0..4).map(|byte| element(run, four, byte)).collect();
            (0..fours(run)).map(four).collect()
        };
        assert_eq!(of(3), [[Some(0), Some(1), Some(2), None]]);
        assert_eq!(of(4), [[Some(0), Some(1), Some(2), Some(3)]]);
        assert_eq!(of(6)[1], [None, None, Some(4), Some(5)]);
        assert_eq!(of(9)[2], [None, None, None, Some(8)]);
    }

    #[test]
    fn nothing_is_lost() {
        for (runs, run) in [(1, 1), (2, 3), (3, 4), (2, 5), (1, 7), (2, 8), (2, 9)] {
            let ty = Type::new(DType::I8, [2, 3, runs * run, 5]);
            let panels =
                Tensor::from_ints(ty.clone(), (0..ty.elements() as i64).map(|v| v % 127 + 1));
            let packed = packed(&panels, run);
            assert_eq!(packed.dims(), [2, 3, runs * fours(run), 5, 4]);
            assert_eq!(unpacked(&packed, run), panels);
        }
    }
}
