//! Fewer and longer axes for steps whose elements may be visited in any grouping.

use super::Access;
use super::access::Axes;

/// Merges neighbouring axes that continue each other in all `accesses`, and drops those of extent 1.
/// All have the same dimensions; with `keep_last` the last axis stays as it is (and may differ in its
/// extent). At least one axis is left.
pub fn collapse(accesses: &mut [Access], keep_last: bool) {
    let Some(first) = accesses.first() else { return };
    let outer = first.dims.len() - usize::from(keep_last && !first.dims.is_empty());
    let dims: Axes<usize> = Axes::from_slice(&first.dims[..outer]);
    // Groups of axes as (extent, the last axis in it), the outermost first.
    let mut groups: Axes<(usize, usize)> = Axes::new();
    for (axis, &extent) in dims.iter().enumerate().filter(|&(_, &d)| d != 1) {
        let continues = |last: usize| {
            accesses.iter().all(|a| a.strides[last] == a.strides[axis] * extent as i64)
        };
        match groups.last_mut() {
            Some((length, last)) if continues(*last) => (*length, *last) = (*length * extent, axis),
            _ => groups.push((extent, axis)),
        }
    }
    for access in accesses {
        let (mut new_dims, mut new_strides): (Axes<_>, Axes<_>) =
            groups.iter().map(|&(extent, axis)| (extent, access.strides[axis])).unzip();
        new_dims.extend_from_slice(&access.dims[outer..]);
        new_strides.extend_from_slice(&access.strides[outer..]);
        if new_dims.is_empty() {
            new_dims.push(1);
            new_strides.push(1);
        }
        (access.dims, access.strides) = (new_dims, new_strides);
        access.normalize();
    }
}

/// Orders the axes of all `accesses` so that the last one's strides fall from the first axis to the
/// last. For steps in which no axis means anything.
pub fn sort_axes(accesses: &mut [Access]) {
    let Some(result) = accesses.last() else { return };
    let mut perm: Axes<usize> = (0..result.dims.len()).collect();
    perm.sort_by_key(|&axis| std::cmp::Reverse(result.strides[axis].abs()));
    for access in accesses {
        *access = access.permuted(&perm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::Buffer;
    use crate::types::{DType, Type};
    use cranelift_entity::EntityRef;

    fn dense(dims: &[usize]) -> Access {
        Access::dense(Buffer::new(0), &Type::new(DType::F32, dims))
    }

    #[test]
    fn merges_what_continues() {
        let mut all = [dense(&[1, 128, 384]), dense(&[1, 128, 384])];
        collapse(&mut all, false);
        assert_eq!(all[0].dims[..], [49152]);
        let mut rows = [dense(&[1, 128, 384]), dense(&[384]).broadcast(&[1, 128, 384])];
        collapse(&mut rows, false);
        assert_eq!((&rows[1].dims[..], &rows[1].strides[..]), (&[128, 384][..], &[0, 1][..]));
        let mut reduced = [dense(&[2, 3, 4]), dense(&[2, 3, 1])];
        collapse(&mut reduced, true);
        assert_eq!((&reduced[0].dims[..], &reduced[1].dims[..]), (&[6, 4][..], &[6, 1][..]));
        let mut scalar = [dense(&[])];
        collapse(&mut scalar, false);
        assert_eq!(scalar[0].dims[..], [1]);
    }

    #[test]
    fn orders_axes_by_the_result() {
        let mut all = [dense(&[4, 5]), dense(&[5, 4]).permuted(&[1, 0])];
        sort_axes(&mut all);
        assert_eq!((&all[0].strides[..], &all[1].strides[..]), (&[1, 5][..], &[4, 1][..]));
    }
}
