//! Distances of rows that a first-level cache holds side by side.
//!
//! A product reads a tile of rows of A at the same column. Where the distance of two rows is a multiple
//! of a large power of two, all of the tile falls into one or two sets of the cache and each row evicts
//! another: 128 x 768 x 3072 ran at half the speed of 128 x 768 x 3056. A line's gap behind every row
//! spreads them.

use super::{Access, Op};

/// Addresses at this distance fall into the same set of the first-level cache: its ways are as large
/// as the smallest page on all processors that find a set before they know the physical address.
const WAY: u64 = 4096;

/// Bytes of a cache's line, the gap behind a row.
const LINE: usize = 64;

/// So many rows are read at one time, at most.
const ROWS: u64 = 16;

/// So many lines of one set may be in use without loss: half of eight ways; B's panels pass through
/// the others.
const LINES: u64 = 4;

/// The same tensor with a gap behind each row, when dense rows would fall into few sets.
pub(super) fn pitched(dense: &Access) -> Option<Access> {
    let (&width, outer) = dense.dims.split_last()?;
    let rows: usize = outer.iter().product();
    let size = dense.dtype.bytes();
    if !crowded((width * size) as u64, rows as u64) {
        return None;
    }
    let mut access = dense.clone();
    let mut stride = (width + LINE / size) as i64;
    for (axis, &extent) in outer.iter().enumerate().rev() {
        access.strides[axis] = stride;
        stride *= extent as i64;
    }
    Some(access)
}

/// What a step loses that reads its operand so, in bytes that could be copied in that time.
pub(super) fn penalty(op: &Op, index: usize, access: &Access) -> u64 {
    if index != 0 {
        return 0;
    }
    // The axis along which the rows of a tile lie, and how many of its elements from one to the next.
    let Some(axis) = access.dims.len().checked_sub(2) else { return 0 };
    let step = match op {
        Op::Contract(_) => 1,
        Op::Conv(conv) if conv.groups == 1 => conv.strides.last().map_or(1, |&s| s as u64),
        Op::Conv(_)
        | Op::Rows(_)
        | Op::Reduce { .. }
        | Op::ArgReduce { .. }
        | Op::Pool(_)
        | Op::Gather { .. }
        | Op::Move
        | Op::Fill(_) => return 0,
    };
    let rows = access.dims[..=axis].iter().product::<usize>() as u64;
    let stride = access.strides[axis].unsigned_abs() * access.dtype.bytes() as u64 * step;
    if crowded(stride, rows) { 2 * access.ty().bytes() as u64 } else { 0 }
}

/// Whether rows at this distance crowd into few sets.
fn crowded(stride: u64, rows: u64) -> bool {
    let rows = rows.min(ROWS);
    let sets = WAY >> stride.trailing_zeros().min(WAY.trailing_zeros());
    stride > 0 && rows > LINES * sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::{Buffer, BufferInfo, BufferKind, Options};
    use crate::mir::{Builder, Output, Role, Unary};
    use crate::tensor::Tensor;
    use crate::types::{DType, Type};
    use cranelift_entity::EntityRef;

    #[test]
    fn only_crowded_rows_are_spread() {
        let dense = |dims: &[usize]| Access::dense(Buffer::new(0), &Type::new(DType::F32, dims));
        let spread = pitched(&dense(&[1, 128, 3072])).expect("128 rows in one set");
        assert_eq!(spread.strides, [128 * 3088, 3088, 1]);
        assert!(pitched(&dense(&[14, 14, 512])).is_some());
        assert!(pitched(&dense(&[128, 384])).is_none());
        assert!(pitched(&dense(&[4, 1024])).is_none());
        assert!(pitched(&dense(&[1024])).is_none());
    }

    #[test]
    fn what_a_product_reads_is_spread() {
        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [12, 1024]));
        let a = mir.unary(Unary::Exp, x);
        // In place of what the product reads.
        let a = mir.unary(Unary::Tanh, a);
        let b = mir.constant(Tensor::from_f32s(&[1024, 2], &[0.5; 2048]));
        let y = mir.contract(a, b);
        let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
        let module = crate::lir::lower(&graph, Options::default()).expect("it is small");
        let strides: Vec<_> = module.steps.values().map(|step| step.result.strides[0]).collect();
        assert_eq!(strides, [1040, 1040, 2], "{module}");
        let temporaries = |b: &&BufferInfo| b.kind == BufferKind::Temporary;
        assert_eq!(module.buffers.values().filter(temporaries).count(), 1, "{module}");
        assert_eq!(crate::lir::verify::verify(&module), Ok(()));
    }
}
