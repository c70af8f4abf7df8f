//! Where the elements of a tensor lie in a buffer.

use super::Buffer;
use crate::types::{DType, Type, strides};
use serde::{Deserialize, Serialize};

/// Element `(i, j, ..)` of the tensor is `offset + i * strides[0] + j * strides[1] + ..` elements from
/// the buffer's start.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Access {
    /// In which buffer.
    pub buffer: Buffer,
    /// Type of the elements.
    pub dtype: DType,
    /// Extent of each axis.
    pub dims: Vec<usize>,
    /// Distance of neighbours along each axis, in elements: 0 where the tensor is broadcast, negative
    /// where it is reversed.
    pub strides: Vec<i64>,
    /// Element (0, 0, ..), in elements from the buffer's start.
    pub offset: i64,
}

impl Access {
    /// A dense tensor from the buffer's start.
    pub fn dense(buffer: Buffer, ty: &Type) -> Access {
        Access {
            buffer,
            dtype: ty.dtype,
            dims: ty.dims.clone(),
            strides: strides(&ty.dims),
            offset: 0,
        }
    }

    /// Type of the tensor.
    pub fn ty(&self) -> Type {
        Type::new(self.dtype, self.dims.clone())
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

    /// Whether the elements lie one behind the other in row-major order.
    pub fn is_dense(&self) -> bool {
        let dense = strides(&self.dims);
        let mut axes = self.dims.iter().zip(self.strides.iter().zip(&dense));
        self.is_empty() || axes.all(|(&d, (&s, &expected))| d == 1 || s == expected)
    }

    /// The same elements with other dimensions, if no copy is needed for that.
    #[must_use]
    pub fn reshaped(&self, dims: &[usize]) -> Option<Access> {
        if self.is_empty() {
            return Some(Access { dims: dims.to_vec(), strides: strides(dims), ..self.clone() });
        }
        // Axes of extent 1 do not count; neighbours that continue each other are one.
        let mut runs: Vec<(usize, i64)> = vec![];
        for (&d, &s) in self.dims.iter().zip(&self.strides).filter(|&(&d, _)| d != 1) {
            match runs.last_mut() {
                Some((length, stride)) if *stride == s * d as i64 => {
                    (*length, *stride) = (*length * d, s)
                }
                _ => runs.push((d, s)),
            }
        }
        // From the last axis on, each new axis takes a part of a run.
        let mut new = vec![0; dims.len()];
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
        Some(Access { dims: dims.to_vec(), strides: new, ..self.clone() })
    }

    /// Axis `i` of the result is axis `perm[i]`.
    #[must_use]
    pub fn permuted(&self, perm: &[usize]) -> Access {
        let dims = perm.iter().map(|&p| self.dims[p]).collect();
        let strides = perm.iter().map(|&p| self.strides[p]).collect();
        Access { dims, strides, ..self.clone() }
    }

    /// Elements `starts + i * steps` of every axis, `dims` of them.
    #[must_use]
    pub fn sliced(&self, starts: &[usize], steps: &[i64], dims: &[usize]) -> Access {
        let offset =
            starts.iter().zip(&self.strides).map(|(&start, s)| start as i64 * s).sum::<i64>();
        let offset = if dims.contains(&0) { self.offset } else { self.offset + offset };
        let strides = self.strides.iter().zip(steps).map(|(s, step)| s * step).collect();
        Access { dims: dims.to_vec(), strides, offset, ..self.clone() }
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
            dims: dims.to_vec(),
            strides: (0..dims.len()).map(stride).collect(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cranelift_entity::EntityRef;

    fn access(dims: &[usize], strides: &[i64]) -> Access {
        let (dims, strides) = (dims.to_vec(), strides.to_vec());
        Access { buffer: Buffer::new(0), dtype: DType::F32, dims, strides, offset: 0 }
    }

    #[test]
    fn reshapes_without_copies() {
        let heads = access(&[128, 4, 32], &[384, 32, 1]).permuted(&[1, 0, 2]);
        assert_eq!(heads.strides, [32, 384, 1]);
        assert_eq!(heads.reshaped(&[1, 4, 128, 32]).map(|a| a.strides), Some(vec![0, 32, 384, 1]));
        assert_eq!(heads.reshaped(&[512, 32]), None);
        let window = access(&[4, 6], &[10, 1]);
        assert_eq!(window.reshaped(&[2, 2, 3, 2]).map(|a| a.strides), Some(vec![20, 10, 2, 1]));
        assert_eq!(window.reshaped(&[24]), None);
        assert_eq!(access(&[0, 3], &[3, 1]).reshaped(&[7, 0]).map(|a| a.dims), Some(vec![7, 0]));
    }

    #[test]
    fn spans() {
        let reversed = access(&[5], &[1]).sliced(&[4], &[-1], &[5]);
        assert_eq!((reversed.offset, reversed.span()), (4, Some((0, 4))));
        assert_eq!(access(&[2, 0], &[0, 1]).span(), None);
    }
}
