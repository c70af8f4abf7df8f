//! Where the elements of a tensor lie in a buffer.

use super::Buffer;
use crate::types::{DType, Type};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Something about each axis: of most tensors it lies in place.
pub type Axes<T> = SmallVec<[T; 6]>;

/// Element `(i, j, ..)` of the tensor is `offset + i * strides[0] + j * strides[1] + ..` elements from
/// the buffer's start.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Access {
    /// In which buffer.
    pub buffer: Buffer,
    /// Type of the elements.
    pub dtype: DType,
    /// Extent of each axis.
    #[serde(with = "axes")]
    pub dims: Axes<usize>,
    /// Distance of neighbours along each axis, in elements: 0 where the tensor is broadcast, negative
    /// where it is reversed.
    #[serde(with = "axes")]
    pub strides: Axes<i64>,
    /// Element (0, 0, ..), in elements from the buffer's start.
    pub offset: i64,
}

/// As a sequence.
mod axes {
    use super::{Axes, Deserialize, Serialize};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        axes: &Axes<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        axes[..].serialize(to)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Axes<T>, D::Error> {
        Vec::deserialize(from).map(Axes::from_vec)
    }
}

/// Row-major strides of these dimensions, in elements.
pub fn strides(dims: &[usize]) -> Axes<i64> {
    let mut strides = Axes::from_elem(1, dims.len());
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis].max(1) as i64;
    }
    strides
}

impl Access {
    /// A dense tensor from the buffer's start.
    pub fn dense(buffer: Buffer, ty: &Type) -> Access {
        Access {
            buffer,
            dtype: ty.dtype,
            dims: Axes::from_slice(&ty.dims),
            strides: strides(&ty.dims),
            offset: 0,
        }
    }

    /// The same with a line of a cache between the planes of its outermost axis, if they lie so far apart
    /// that together they have too few lines in a cache of eight ways of 4096 bytes.
    #[must_use]
    pub fn with_planes_apart(mut self) -> Access {
        const LINE: i64 = 64;
        const WAY: i64 = 4096;
        const CACHE: i64 = 8 * WAY;
        let size = self.dtype.bytes() as i64;
        if let (Some(&planes), Some(stride)) = (self.dims.first(), self.strides.first_mut()) {
            // They meet again where a multiple of their distance is one of a way.
            let apart = 1 << (*stride * size).trailing_zeros().min(WAY.trailing_zeros());
            if planes as i64 * apart > CACHE {
                *stride += LINE / size;
            }
        }
        self
    }

    /// Type of the tensor.
    pub fn ty(&self) -> Type {
        Type::new(self.dtype, &self.dims[..])
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.dims.contains(&0)
    }

    /// The lowest and the highest element that is reached, from the buffer's start; `None` when empty.
    pub fn span(&self) -> Option<(i64, i64)> {
        if self.is_empty() {
            return None;
        }
        let reach = self.dims.iter().zip(&self.strides).map(|(&d, &s)| (d as i64 - 1) * s);
        Some(
            reach.fold((self.offset, self.offset), |(low, high), r| {
                (low + r.min(0), high + r.max(0))
            }),
        )
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether both reach the same element with every index.
    pub fn same(&self, other: &Access) -> bool {
        let axes = || self.dims.iter().zip(self.strides.iter().zip(&other.strides));
        self.buffer == other.buffer
            && self.dtype == other.dtype
            && self.dims == other.dims
            && (self.is_empty()
                || self.offset == other.offset && axes().all(|(&d, (a, b))| d == 1 || a == b))
    }

    /// Sets the strides of axes with extent 1, which mean nothing, to those of a dense tensor, so that
    /// accesses that are the same are equal.
    pub fn normalize(&mut self) {
        for axis in (0..self.dims.len()).rev() {
            if self.dims[axis] == 1 {
                let next = self.dims.get(axis + 1).zip(self.strides.get(axis + 1));
                self.strides[axis] = next.map_or(1, |(&d, &s)| s * d as i64);
            }
        }
    }

    /// Calls `visit` with the place of every element (in elements from the buffer's start), in
    /// row-major order.
    pub fn for_each(&self, mut visit: impl FnMut(i64)) {
        if self.is_empty() {
            return;
        }
        let mut index = vec![0; self.dims.len()];
        let mut at = self.offset;
        loop {
            visit(at);
            let mut axis = self.dims.len();
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.dims[axis] {
                    break;
                }
                at -= self.strides[axis] * self.dims[axis] as i64;
                index[axis] = 0;
            }
        }
    }

    /// Whether some element of one is an element of the other.
    pub fn overlaps(&self, other: &Access) -> bool {
        if self.buffer != other.buffer {
            return false;
        }
        let (Some((low, high)), Some((other_low, other_high))) = (self.span(), other.span()) else {
            return false;
        };
        if high < other_low || other_high < low {
            return false;
        }
        // Elements meet where the sum of `stride * k` over both tensors' axes, `k` in the axis' range
        // (negative for the other tensor's), is the distance of the first elements.
        let mut axes: SmallVec<[(i64, i64, i64); 12]> = SmallVec::new();
        for (access, sign) in [(self, 1), (other, -1)] {
            for (&d, &stride) in access.dims.iter().zip(&access.strides).filter(|a| *a.1 != 0) {
                let end = (d as i64 - 1) * sign * stride.signum();
                axes.push((stride.abs(), end.min(0), end.max(0)));
            }
        }
        axes.sort_unstable_by_key(|a| std::cmp::Reverse(a.0));
        axes.dedup_by(|b, a| {
            let equal = a.0 == b.0;
            if equal {
                (a.1, a.2) = (a.1 + b.1, a.2 + b.2);
            }
            equal
        });
        // What the axes from each on can reach.
        let mut reach: SmallVec<[(i64, i64); 13]> = SmallVec::from_elem((0, 0), axes.len() + 1);
        for (i, (stride, low, high)) in axes.iter().enumerate().rev() {
            reach[i] = (reach[i + 1].0 + stride * low, reach[i + 1].1 + stride * high);
        }
        let mut open: SmallVec<[(usize, i64); 13]> = SmallVec::new();
        open.push((0, other.offset - self.offset));
        while let Some((i, distance)) = open.pop() {
            if distance < reach[i].0 || distance > reach[i].1 {
                continue;
            }
            let Some(&(stride, low, high)) = axes.get(i) else { return true };
            // Only counts from which the rest can still meet.
            let first = (distance - reach[i + 1].1).div_euclid(stride).max(low);
            let last = (distance - reach[i + 1].0).div_euclid(stride).min(high);
            open.extend((first..=last).map(|k| (i + 1, distance - k * stride)));
        }
        false
    }

    /// Whether the elements lie one behind the other in row-major order.
    pub fn is_dense(&self) -> bool {
        let mut axes = self.dims.iter().zip(&self.strides).rev();
        let mut next = 1;
        let mut follows = |(&d, &s): (&usize, &i64)| {
            let follows = d == 1 || s == next;
            next *= d as i64;
            follows
        };
        self.is_empty() || axes.all(&mut follows)
    }

    /// The same elements with other dimensions, if no copy is needed for that.
    #[must_use]
    pub fn reshaped(&self, dims: &[usize]) -> Option<Access> {
        if self.is_empty() {
            return Some(Access { dims: Axes::from_slice(dims), strides: strides(dims), ..*self });
        }
        // Axes of extent 1 do not count; neighbours that continue each other are one.
        let mut runs: Axes<(usize, i64)> = Axes::new();
        for (&d, &s) in self.dims.iter().zip(&self.strides).filter(|&(&d, _)| d != 1) {
            match runs.last_mut() {
                Some((length, stride)) if *stride == s * d as i64 => {
                    (*length, *stride) = (*length * d, s)
                }
                _ => runs.push((d, s)),
            }
        }
        // From the last axis on, each new axis takes a part of a run.
        let mut new = Axes::from_elem(0, dims.len());
        let mut left = runs.pop();
        for axis in (0..dims.len()).rev() {
            if dims[axis] == 1 {
                continue;
            }
            let (length, stride) = left?;
            if length % dims[axis] != 0 {
                return None;
            }
            new[axis] = stride;
            left = match length / dims[axis] {
                1 => runs.pop(),
                rest => Some((rest, stride * dims[axis] as i64)),
            };
        }
        Some(Access { dims: Axes::from_slice(dims), strides: new, ..*self })
    }

    /// Axis `i` of the result is axis `perm[i]`.
    #[must_use]
    pub fn permuted(&self, perm: &[usize]) -> Access {
        let dims = perm.iter().map(|&p| self.dims[p]).collect();
        let strides = perm.iter().map(|&p| self.strides[p]).collect();
        Access { dims, strides, ..*self }
    }

    /// Elements `starts + i * steps` of every axis, `dims` of them.
    #[must_use]
    pub fn sliced(&self, starts: &[usize], steps: &[i64], dims: &[usize]) -> Access {
        let offset =
            starts.iter().zip(&self.strides).map(|(&start, s)| start as i64 * s).sum::<i64>();
        let offset = if dims.contains(&0) { self.offset } else { self.offset + offset };
        let strides = self.strides.iter().zip(steps).map(|(s, step)| s * step).collect();
        Access { dims: Axes::from_slice(dims), strides, offset, ..*self }
    }

    /// Repeated to `dims` by NumPy's rule.
    #[must_use]
    pub fn broadcast(&self, dims: &[usize]) -> Access {
        let new = dims.len() - self.dims.len();
        let stride = |axis: usize| match axis.checked_sub(new) {
            Some(old) if self.dims[old] == dims[axis] => self.strides[old],
            _ => 0,
        };
        Access {
            dims: Axes::from_slice(dims),
            strides: (0..dims.len()).map(stride).collect(),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cranelift_entity::EntityRef;

    fn access(dims: &[usize], strides: &[i64]) -> Access {
        let (dims, strides) = (Axes::from_slice(dims), Axes::from_slice(strides));
        Access { buffer: Buffer::new(0), dtype: DType::F32, dims, strides, offset: 0 }
    }

    #[test]
    fn reshapes_without_copies() {
        let heads = access(&[128, 4, 32], &[384, 32, 1]).permuted(&[1, 0, 2]);
        assert_eq!(heads.strides[..], [32, 384, 1]);
        let strides = |a: Option<Access>| a.map(|a| a.strides.to_vec());
        assert_eq!(strides(heads.reshaped(&[1, 4, 128, 32])), Some(vec![0, 32, 384, 1]));
        assert_eq!(heads.reshaped(&[512, 32]), None);
        let window = access(&[4, 6], &[10, 1]);
        assert_eq!(strides(window.reshaped(&[2, 2, 3, 2])), Some(vec![20, 10, 2, 1]));
        assert_eq!(window.reshaped(&[24]), None);
        let empty = access(&[0, 3], &[3, 1]).reshaped(&[7, 0]);
        assert_eq!(empty.map(|a| a.dims.to_vec()), Some(vec![7, 0]));
    }

    #[test]
    fn overlaps_by_element() {
        // Columns 0..2 and 2..5 of one matrix interleave and do not meet.
        let whole = access(&[4, 5], &[5, 1]);
        let left = whole.sliced(&[0, 0], &[1, 1], &[4, 2]);
        let right = whole.sliced(&[0, 2], &[1, 1], &[4, 3]);
        assert!(!left.overlaps(&right) && left.overlaps(&whole));
        assert!(!left.overlaps(&right.sliced(&[1, 0], &[-1, 1], &[2, 3]).broadcast(&[7, 2, 3])));
        let even = access(&[10], &[2]);
        let odd = Access { offset: 1, ..even.clone() };
        assert!(!even.overlaps(&odd) && !odd.overlaps(&even));
        assert!(access(&[3, 3], &[3, 1]).overlaps(&access(&[3, 3], &[1, 3])));
    }

    #[test]
    fn visits_every_element() {
        let mut seen = vec![];
        access(&[2, 3], &[1, -2]).sliced(&[0, 0], &[1, 1], &[2, 3]).for_each(|at| seen.push(at));
        assert_eq!(seen, [0, -2, -4, 1, -1, -3]);
    }

    #[test]
    fn spans() {
        let reversed = access(&[5], &[1]).sliced(&[4], &[-1], &[5]);
        assert_eq!((reversed.offset, reversed.span()), (4, Some((0, 4))));
        assert_eq!(access(&[2, 0], &[0, 1]).span(), None);
    }
}
