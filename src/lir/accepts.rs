//! Which accesses a kernel takes at speed.
//!
//! Every kernel is correct for every access; this is the policy that decides where a copy into a
//! dense buffer ([`Op::Move`]) pays.

use super::{Access, Op};
use crate::mir::{Contract, Conv, Weights};

/// Tensors with at most this many elements are taken however they lie.
const TINY: usize = 16;

/// A convolution of so few channels reads them wherever they lie: its elements are broadcast one by
/// one, and neighbouring windows have them in common.
const FEW_CHANNELS: usize = 4;

/// Whether a step of this kind, with a result of dimensions `result`, reads `access` as its operand `index` at
/// speed. The access has the dimensions that the step asks for (broadcast to the domain or result where it says so).
pub fn accepts(op: &Op, index: usize, access: &Access, result: &[usize]) -> bool {
    let contiguous = || last_stride(access).is_none_or(|s| s == 0 || s == 1);
    let transposed =
        || last_stride(&access.permuted(&swapped(access.dims.len()))).is_none_or(|s| s == 1);
    let few_rows = || result.iter().rev().nth(1).is_some_and(|&rows| rows <= Contract::FEW_ROWS);
    if access.elements() <= TINY {
        return true;
    }
    match op {
        // Scalar code does not mind.
        Op::Rows(_) | Op::Reduce { .. } | Op::Pool(_) | Op::Scan(_) if access.dtype.bytes() > 4 => {
            true
        }
        Op::Rows(_) | Op::Reduce { .. } | Op::Pool(_) | Op::Scan(_) => contiguous(),
        Op::Gather { .. } => index != 0 || contiguous(),
        Op::Scatter { .. } => index == 1 || contiguous(),
        Op::Sort { .. } => contiguous(),
        // Four at a time are one broadcast.
        Op::Contract(c) if index == 0 && (is_in_fours(c.weights) || is_in_blocks(c.weights)) => {
            contiguous()
        }
        Op::Conv(c) if index == 0 && is_in_fours(c.weights) => has_runs(c, access),
        // A tile of A is read by broadcast loads.
        Op::Contract(_) if index == 0 => true,
        Op::Contract(c) if index == 1 => match c.weights {
            // A single column is read as a row would be.
            Weights::Plain => contiguous() || few_rows() && transposed(),
            Weights::Panels { .. } | Weights::Quads { .. } | Weights::Nibbles { .. } => {
                access.is_dense()
            }
        },
        // Of a query elements are read one by one, of keys those of one or of all neighbours.
        Op::Attention(_) if index == 0 => true,
        Op::Attention(_) if index == 1 => contiguous() || transposed(),
        Op::Conv(_) if index == 1 => access.is_dense(),
        Op::Conv(c) if index == 0 && c.groups == 1 => {
            contiguous() || access.dims.last().is_some_and(|&d| d <= FEW_CHANNELS)
        }
        Op::Contract(_) | Op::Attention(_) | Op::Conv(_) | Op::Winograd(_) => contiguous(),
        Op::ArgReduce { .. } | Op::Move | Op::Fill(_) => true,
    }
}

fn is_in_fours(weights: Weights) -> bool {
    matches!(weights, Weights::Quads { .. })
}

fn is_in_blocks(weights: Weights) -> bool {
    matches!(weights, Weights::Nibbles { .. })
}

/// Whether the elements of each run lie one behind the other.
fn has_runs(conv: &Conv, access: &Access) -> bool {
    let (Some((&channels, outer)), Weights::Quads { run, .. }) =
        (access.dims.split_last(), conv.weights)
    else {
        return false;
    };
    let together = run == channels / conv.groups.max(1)
        || outer.len() > 1 && access.strides[outer.len() - 1] == channels as i64;
    together && (channels == 1 || access.strides[outer.len()] == 1)
}

/// Whether a step of this kind writes `access` at speed.
pub fn accepts_result(op: &Op, access: &Access) -> bool {
    match op {
        Op::Move | Op::Fill(_) | Op::ArgReduce { .. } => true,
        Op::Rows(_)
        | Op::Reduce { .. }
        | Op::Contract(_)
        | Op::Attention(_)
        | Op::Conv(_)
        | Op::Winograd(_)
        | Op::Pool(_)
        | Op::Gather { .. }
        | Op::Scatter { .. }
        | Op::Sort { .. }
        | Op::Scan(_) => accepts_window(access),
    }
}

/// Whether producers write `access` at speed, whatever kind they are.
pub fn accepts_window(access: &Access) -> bool {
    access.elements() <= TINY || last_stride(access).is_none_or(|s| s == 1)
}

/// The last two axes in each other's place.
fn swapped(rank: usize) -> Vec<usize> {
    (0..rank - 2).chain([rank - 1, rank - 2]).collect()
}

/// Stride of the last axis that has more than one element.
fn last_stride(access: &Access) -> Option<i64> {
    let mut axes = access.dims.iter().zip(&access.strides).rev();
    axes.find(|&(&d, _)| d > 1).map(|(_, &s)| s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::{Buffer, Contract};
    use crate::types::{DType, Type};
    use cranelift_entity::EntityRef;

    #[test]
    fn transposed_operands() {
        let dense = Access::dense(Buffer::new(0), &Type::new(DType::F32, [8, 16]));
        let transposed = dense.permuted(&[1, 0]);
        let op = Op::Contract(Contract::of(Weights::Plain));
        assert!(accepts(&op, 0, &transposed, &[16, 9]));
        assert!(!accepts(&op, 1, &transposed, &[9, 8]));
        assert!(accepts(&op, 1, &transposed, &[2, 8]));
        assert!(accepts(&op, 1, &dense, &[9, 16]));
        assert!(accepts(&Op::Move, 0, &transposed, &[16, 8]));
        assert!(!accepts_result(&op, &transposed));
        let row = Access::dense(Buffer::new(0), &Type::new(DType::F32, [1, 16]));
        assert!(accepts(
            &Op::Reduce { op: crate::mir::Reduction::Sum, axes: vec![0] },
            0,
            &row.permuted(&[1, 0]),
            &[1, 1]
        ));
    }
}
