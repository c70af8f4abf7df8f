//! In which order the axes of an access lie in memory.

use super::Access;
use super::access::{Axes, strides};

/// The axis along which neighbours lie one behind the other.
pub(super) fn unit_axis(access: &Access) -> Option<usize> {
    (0..access.dims.len()).rev().find(|&axis| access.dims[axis] > 1 && access.strides[axis] == 1)
}

/// A dense tensor as `access`, with its axes in the order of those of `like`.
pub(super) fn in_order_of(like: &Access, access: Access) -> Access {
    let mut axes: Axes<usize> = (0..access.dims.len()).collect();
    axes.sort_by_key(|&axis| std::cmp::Reverse(like.strides[axis].abs()));
    let (mut strides, mut next) = (Axes::from_elem(0, axes.len()), 1);
    for &axis in axes.iter().rev() {
        strides[axis] = next;
        next *= access.dims[axis] as i64;
    }
    Access { strides, ..access }
}

/// A dense tensor with one of its axes outermost.
pub(super) fn outermost(axis: usize, access: Access) -> Access {
    let mut perm: Axes<usize> = (0..access.dims.len()).collect();
    perm[..=axis].rotate_right(1);
    let dims: Axes<usize> = perm.iter().map(|&p| access.dims[p]).collect();
    let mut new = Axes::from_elem(0, dims.len());
    perm.iter().zip(strides(&dims)).for_each(|(&p, stride)| new[p] = stride);
    Access { strides: new, ..access }
}

/// Whether an access is dense and all of its buffer.
pub(super) fn is_whole(access: &Access, bytes: u64) -> bool {
    let all = (access.elements() * access.dtype.bytes()) as u64 == bytes;
    all && (access.is_empty() || access.offset == 0 && access.is_dense())
}
