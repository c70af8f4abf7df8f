//! Tensors whose bytes are computed when they are first asked for: weights in another order, which no plan needs.
//!
//! They can be told apart, and found to be the same, by how they are made.

use super::{Data, Tensor};
use crate::types::{DType, Type};
use bytes::Bytes;
use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, LazyLock};

/// Bytes, of operands and result together, that are computed at once: fewer are soon done.
const SMALL: usize = 64 << 10;

/// So many recipes may be in one: what is made of more is computed at once, so that nothing runs deep.
const DEEPEST: usize = 64;

/// Bytes that may not be there yet. The tensors that they are made of are given up when they are; the recipe keeps
/// the bytes that were there from the beginning.
pub(super) struct Later {
    bytes: LazyLock<Bytes, Box<dyn FnOnce() -> Bytes + Send>>,
    recipe: Arc<Recipe>,
}

/// How a tensor is made.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Recipe {
    /// What is done, and of what type it is.
    how: String,
    of: Vec<(Type, Identity)>,
    elements: Elements,
    /// Recipes in it, itself included.
    size: usize,
}

/// Where the elements of a tensor come from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Elements {
    Computed,
    /// All are the operands'.
    Moved,
    /// All are the only operand's, as `f32` now, which was of this type of two bytes.
    Widened(DType),
}

/// What tells a tensor's bytes from another's without them: two of the same identity have the same bytes. The
/// reverse holds but for what is computed later.
#[derive(Clone)]
pub struct Identity(Content);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Known(Bytes),
    Made(Arc<Recipe>),
}

impl Tensor {
    /// The tensor of this type that `make` makes of others, which it is called with: when its bytes are first
    /// asked for, unless that is little work. `how` says what it does, with all that the result depends on but
    /// the others and the type.
    ///
    /// # Panics
    ///
    /// When `make` gives another number of bytes, as soon as they are asked for.
    pub fn later(
        ty: Type,
        how: &str,
        of: &[&Tensor],
        make: impl FnOnce(&[&Tensor]) -> Tensor + Send + 'static,
    ) -> Tensor {
        made(ty, how, of, Elements::Computed, make)
    }

    /// The same, of nothing but elements of the others.
    pub fn moved(
        ty: Type,
        how: &str,
        of: &[&Tensor],
        make: impl FnOnce(&[&Tensor]) -> Tensor + Send + 'static,
    ) -> Tensor {
        made(ty, how, of, Elements::Moved, make)
    }

    /// The numbers of a tensor of `f16` or `bf16` as `f32`.
    pub fn widened(&self) -> Tensor {
        let (ty, from) = (self.ty.with_dtype(DType::F32), self.ty.dtype);
        made(ty.clone(), "widened", &[self], Elements::Widened(from), move |of| {
            let data: Vec<u8> = of[0].f32s().into_iter().flat_map(f32::to_le_bytes).collect();
            Tensor::from_bytes(ty, data.into()).expect("as many elements")
        })
    }

    /// A type of two bytes that has all elements, of type `f32`, as they are: of those asked for the first one. Bytes
    /// that are not there yet are not asked for: it is known by what they are made of, or not.
    pub fn narrow(&self, types: &[DType]) -> Option<DType> {
        let has = |dtype: &&DType| match &self.data {
            Data::Known(bytes) => are_of(bytes, **dtype),
            Data::Later(later) => later.recipe.is_of(**dtype),
        };
        types.iter().find(has).copied().filter(|_| self.ty.dtype == DType::F32)
    }

    /// All elements, of type `f32`, in a type of two bytes that has them ([`Tensor::narrow`]).
    pub fn narrowed(&self, dtype: DType) -> Tensor {
        let ty = self.ty.with_dtype(dtype);
        Tensor::later(ty.clone(), "narrowed", &[self], move |of| {
            let words = of[0].bytes().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            let data: Vec<u8> = words.flat_map(|v| halved(v, dtype).to_le_bytes()).collect();
            Tensor::from_bytes(ty, data.into()).expect("as many elements")
        })
    }

    /// See [`Identity`].
    pub fn identity(&self) -> Identity {
        Identity(match &self.data {
            Data::Known(bytes) => Content::Known(bytes.clone()),
            Data::Later(later) => Content::Made(later.recipe.clone()),
        })
    }

    /// In how many steps it is made, of bytes that are there.
    fn recipes(&self) -> usize {
        match &self.data {
            Data::Known(_) => 0,
            Data::Later(later) => later.recipe.size,
        }
    }

    /// Whether all elements, of type `f32`, are finite and at most so large.
    pub fn is_within(&self, most: f32) -> bool {
        let moved = match &self.data {
            Data::Known(_) => false,
            Data::Later(later) => later.recipe.is_moved_within(most),
        };
        moved || are_within(self.bytes(), most)
    }
}

fn made(
    ty: Type,
    how: &str,
    of: &[&Tensor],
    elements: Elements,
    make: impl FnOnce(&[&Tensor]) -> Tensor + Send + 'static,
) -> Tensor {
    let count = ty.bytes();
    let make = move |of: &[&Tensor]| {
        let bytes = make(of).bytes().clone();
        assert_eq!(bytes.len(), count, "as many bytes as the type asks for");
        bytes
    };
    let bytes = of.iter().map(|tensor| tensor.ty.bytes()).sum::<usize>() + count;
    let size = 1 + of.iter().map(|tensor| tensor.recipes()).sum::<usize>();
    if bytes <= SMALL || size > DEEPEST {
        return Tensor { ty, data: Data::Known(make(of)) };
    }
    let identities = of.iter().map(|tensor| (tensor.ty.clone(), tensor.identity())).collect();
    let recipe = Arc::new(Recipe { how: format!("{how} {ty}"), of: identities, elements, size });
    let operands: Vec<Tensor> = of.iter().map(|&tensor| tensor.clone()).collect();
    let make = move || make(&operands.iter().collect::<Vec<_>>());
    let later = Later { bytes: LazyLock::new(Box::new(make)), recipe };
    Tensor { ty, data: Data::Later(Arc::new(later)) }
}

impl Later {
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Recipe {
    /// Whether it is known by its operands that all elements are of a type of two bytes.
    fn is_of(&self, dtype: DType) -> bool {
        let moved = |(_, identity): &(Type, Identity)| match &identity.0 {
            Content::Known(bytes) => are_of(bytes, dtype),
            Content::Made(recipe) => recipe.is_of(dtype),
        };
        match self.elements {
            Elements::Computed => false,
            Elements::Moved => self.of.iter().all(moved),
            Elements::Widened(from) => from == dtype,
        }
    }

    /// Whether it is known by its operands that all elements are at most so large.
    fn is_moved_within(&self, most: f32) -> bool {
        self.elements == Elements::Moved
            && self.of.iter().all(|(_, identity)| match &identity.0 {
                Content::Known(bytes) => are_within(bytes, most),
                Content::Made(recipe) => recipe.is_moved_within(most),
            })
    }
}

/// Of `f32`.
fn are_within(bytes: &[u8], most: f32) -> bool {
    // Without the sign, bits are in the order of the numbers, and those of NaN are behind all.
    let magnitude = |b: &[u8; 4]| i32::from_le_bytes(*b) & i32::MAX;
    let limit = magnitude(&most.min(f32::MAX).to_le_bytes());
    let mut parts = bytes.as_chunks::<4>().0.chunks(4096);
    most >= 0.0 && parts.all(|part| part.iter().map(magnitude).fold(0, i32::max) <= limit)
}

/// The bits of a number in a type of two bytes.
fn halved(v: f32, dtype: DType) -> u16 {
    match dtype {
        DType::BF16 => half::bf16::from_f32(v).to_bits(),
        _ => half::f16::from_f32(v).to_bits(),
    }
}

/// Whether all numbers of `f32` are of a type of two bytes, too; NaN is of none.
fn are_of(bytes: &[u8], dtype: DType) -> bool {
    bytes.as_chunks::<4>().0.iter().all(|b| {
        let (v, bits) = (f32::from_le_bytes(*b), u32::from_le_bytes(*b));
        !v.is_nan()
            && match dtype {
                DType::BF16 => bits & 0xffff == 0,
                DType::F16 => half::f16::from_f32(v).to_f32().to_bits() == bits,
                _ => false,
            }
    })
}

impl Ord for Identity {
    fn cmp(&self, other: &Identity) -> Ordering {
        let same = match (&self.0, &other.0) {
            (Content::Known(a), Content::Known(b)) => {
                (a.as_ptr(), a.len()) == (b.as_ptr(), b.len())
            }
            (Content::Made(a), Content::Made(b)) => Arc::ptr_eq(a, b),
            (Content::Known(_), Content::Made(_)) | (Content::Made(_), Content::Known(_)) => false,
        };
        if same { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Identity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::Known(bytes) => write!(f, "{} bytes", bytes.len()),
            Content::Made(recipe) => write!(f, "{} of {:?}", recipe.how, recipe.of),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    fn doubled(of: &Tensor, calls: &Arc<AtomicUsize>) -> Tensor {
        let calls = calls.clone();
        Tensor::later(of.ty().clone(), "twice", &[of], move |of| {
            calls.fetch_add(1, Relaxed);
            let twice: Vec<f32> = of[0].f32s().iter().map(|v| 2.0 * v).collect();
            Tensor::from_f32s(of[0].dims(), &twice)
        })
    }

    #[test]
    fn bytes_are_computed_once_and_late() {
        let calls = Arc::default();
        let x = Tensor::noise(&[300, 100], 1);
        let y = doubled(&doubled(&x, &calls), &calls);
        let z = y.reshaped([100, 300]).expect("as many elements");
        assert_eq!(calls.load(Relaxed), 0);
        assert_eq!(z.f32s()[7], 4.0 * x.f32s()[7]);
        assert_eq!(y.bytes(), z.bytes());
        assert_eq!(calls.load(Relaxed), 2);
        assert_eq!(doubled(&Tensor::noise(&[3], 1), &calls).f32s().len(), 3);
    }

    #[test]
    fn what_is_made_alike_is_the_same() {
        let calls = Arc::default();
        let [x, same, other] = [1, 1, 2].map(|seed| Tensor::noise(&[300, 100], seed));
        assert_eq!(x.identity(), same.identity());
        assert_eq!(doubled(&x, &calls).identity(), doubled(&same, &calls).identity());
        assert_ne!(doubled(&x, &calls).identity(), doubled(&other, &calls).identity());
        assert_ne!(doubled(&x, &calls).identity(), x.identity());
        let split = x.reshaped([100, 300]).expect("as many elements");
        assert_ne!(doubled(&x, &calls).identity(), doubled(&split, &calls).identity());
        assert_eq!(calls.load(Relaxed), 0);
    }

    #[test]
    fn a_long_way_is_cut() {
        let calls = Arc::default();
        let x = Tensor::noise(&[300, 100], 1);
        let all = (0..1000).fold(x, |x, _| doubled(&x, &calls));
        assert!(calls.load(Relaxed) > 900);
        assert_eq!(all.f32s().len(), 30_000);
    }

    #[test]
    fn numbers_of_two_bytes() {
        const BOTH: [DType; 2] = [DType::F16, DType::BF16];
        let of = |values: &[f32]| Tensor::from_f32s([values.len()], values);
        let all = of(&[0.0, -0.0, 1.5, -2.25, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(all.narrow(&BOTH), Some(DType::F16));
        assert_eq!(of(&[1e30f32.trunc(), 0.1]).narrow(&BOTH), None);
        let [power, fine] = [2f32.powi(100), 1.0 + 2f32.powi(-10)];
        assert_eq!(of(&[power]).narrow(&BOTH), Some(DType::BF16));
        assert_eq!(of(&[fine]).narrow(&BOTH), Some(DType::F16));
        assert_eq!(of(&[f32::NAN]).narrow(&BOTH), None);
        // The least number of f16, and half of it.
        assert_eq!(of(&[2f32.powi(-24)]).narrow(&[DType::F16]), Some(DType::F16));
        assert_eq!(of(&[2f32.powi(-25)]).narrow(&[DType::F16]), None);
        for dtype in BOTH {
            let ty = Type::new(dtype, [300, 100]);
            let values = Tensor::noise(&[300, 100], 1).f64s();
            let narrow = Tensor::from_f64s(ty, values);
            let wide = narrow.widened().strided([100, 300], 0, &[1, 100]);
            assert_eq!(wide.narrow(&BOTH), Some(dtype));
            assert_eq!(
                wide.narrowed(dtype).bytes(),
                narrow.strided([100, 300], 0, &[1, 100]).bytes()
            );
        }
    }

    #[test]
    fn magnitudes() {
        let x = Tensor::from_f32s([3], &[1.5, -2.0, 0.0]);
        assert!(x.is_within(2.0) && !x.is_within(1.9));
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            assert!(!Tensor::from_f32s([2], &[0.0, odd]).is_within(f32::INFINITY), "{odd}");
        }
        let (large, ty) = (Tensor::noise(&[300, 100], 1), Type::new(x.ty().dtype, [100, 300]));
        let moved = Tensor::moved(ty, "none", &[&large], |_| unreachable!("nobody asks for it"));
        assert!(moved.is_within(1.0));
    }
}
