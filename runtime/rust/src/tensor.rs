//! Tensors of a model's interface, and the Rust types of their elements.

use crate::abi::RawTensor;
use crate::{Error, Role};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $bytes:literal;)+) => {
        /// The type of a tensor's elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Dtype { $($(#[$doc])* $name,)+ }

        impl Dtype {
            pub(crate) fn from_code(code: u32) -> Option<Dtype> {
                match code {
                    $($code => Some(Dtype::$name),)+
                    _ => None,
                }
            }

            /// Bytes of one element.
            pub const fn bytes(self) -> usize {
                match self { $(Dtype::$name => $bytes,)+ }
            }
        }

        impl fmt::Display for Dtype {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Dtype::$name => $text,)+ })
            }
        }
    };
}

dtypes! {
    /// `f32`
    F32 = 1, "f32", 4;
    /// `u8`
    U8 = 2, "u8", 1;
    /// `i8`
    I8 = 3, "i8", 1;
    /// `u16`
    U16 = 4, "u16", 2;
    /// `i16`
    I16 = 5, "i16", 2;
    /// `i32`
    I32 = 6, "i32", 4;
    /// `i64`
    I64 = 7, "i64", 8;
    /// One byte, 0 or 1; seen as `u8`.
    Bool = 9, "bool", 1;
    /// IEEE half precision; its bits are seen as `u16`.
    F16 = 10, "f16", 2;
    /// `f64`
    F64 = 11, "f64", 8;
    /// `u32`
    U32 = 12, "u32", 4;
    /// `u64`
    U64 = 13, "u64", 8;
    /// The upper half of an `f32`; its bits are seen as `u16`.
    Bf16 = 16, "bf16", 2;
}

/// An input, output or parameter: dense, row-major, at a fixed place of the arena, or in memory of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub(crate) name: &'static str,
    pub(crate) shape: &'static [i64],
    pub(crate) dtype: Dtype,
    /// Where in the arena it is, or the pointer to it.
    pub(crate) offset: usize,
    pub(crate) outside: bool,
    pub(crate) bytes: usize,
}

impl Tensor {
    /// The name in the model.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The dimensions; none for a scalar.
    pub fn shape(&self) -> &'static [i64] {
        self.shape
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// How many elements there are.
    pub fn elements(&self) -> usize {
        self.bytes / self.dtype.bytes()
    }

    /// The place in the arena; `None` for a tensor outside of it.
    pub fn offset(&self) -> Option<usize> {
        (!self.outside).then_some(self.offset)
    }

    /// Whether it is memory of the program (`--outside`), which is bound and not set:
    /// [`Model::bind`](crate::Model::bind).
    pub fn is_outside(&self) -> bool {
        self.outside
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Checks a tensor of a descriptor. Its memory, or the pointer to it, lies in `0..arena_size`, behind the context, and is
    /// aligned for its elements when the arena is.
    ///
    /// # Safety
    /// The pointers in `raw` are null, or point to a string that ends and to `rank` numbers, for ever.
    pub(crate) unsafe fn new(raw: &RawTensor, arena_size: usize) -> Result<Tensor, Error> {
        let wrong = |reason| Error::Descriptor { reason };
        if raw.name.is_null() || (raw.dims.is_null() && raw.rank != 0) {
            return Err(wrong("a tensor has no name or no shape"));
        }
        // SAFETY: not null, so a string that ends.
        let name = unsafe { CStr::from_ptr(raw.name) }
            .to_str()
            .map_err(|_| wrong("a name is not UTF-8"))?;
        let shape = match raw.rank {
            0 => &[],
            // SAFETY: not null, so `rank` numbers.
            rank => unsafe { core::slice::from_raw_parts(raw.dims, rank as usize) },
        };
        let dtype = Dtype::from_code(raw.dtype).ok_or(wrong("an element type is unknown"))?;
        let bytes = shape
            .iter()
            .try_fold(dtype.bytes() as u64, |product, &dim| {
                product.checked_mul(u64::try_from(dim).ok()?)
            })
            .ok_or(wrong("a shape is out of range"))?;
        let outside = raw.offset & OUTSIDE != 0;
        let offset = raw.offset & !OUTSIDE;
        let (size, align) =
            if outside { (POINTER, POINTER) } else { (raw.bytes, dtype.bytes() as u64) };
        let end = offset.checked_add(size).ok_or(wrong("a tensor lies outside the arena"))?;
        if bytes != raw.bytes {
            return Err(wrong("a tensor's size is not that of its shape"));
        }
        if offset < 64 || end > arena_size as u64 {
            return Err(wrong("a tensor lies outside the arena"));
        }
        if !offset.is_multiple_of(align) {
            return Err(wrong("a tensor is misaligned"));
        }
        let bytes = usize::try_from(bytes).map_err(|_| wrong("a shape is out of range"))?;
        Ok(Tensor { name, shape, dtype, offset: offset as usize, outside, bytes })
    }
}

/// `RLX_OUTSIDE`.
const OUTSIDE: u64 = 1 << 63;

/// Bytes of a pointer in the arena, on every target.
const POINTER: u64 = 8;

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}{:?}", self.name, self.dtype, self.shape)
    }
}

mod sealed {
    pub trait Element {}
    pub trait Key {}
}

/// Rust types that elements are seen as. Every bit pattern of them is a value.
pub trait Element: sealed::Element + Copy + Send + Sync + 'static {
    /// How messages call it.
    #[doc(hidden)]
    const NAME: &'static str;

    /// Whether elements of this type are seen as `Self`.
    #[doc(hidden)]
    fn accepts(dtype: Dtype) -> bool;
}

macro_rules! elements {
    ($($ty:ident: $($dtype:ident)|+;)+) => {
        $(
            impl sealed::Element for $ty {}
            impl Element for $ty {
                const NAME: &'static str = stringify!($ty);
                fn accepts(dtype: Dtype) -> bool {
                    matches!(dtype, $(Dtype::$dtype)|+)
                }
            }
        )+
    };
}

elements! {
    f32: F32;
    f64: F64;
    i8: I8;
    i16: I16;
    i32: I32;
    i64: I64;
    u8: U8 | Bool;
    u16: U16 | F16 | Bf16;
    u32: U32;
    u64: U64;
}

/// What names a tensor: its name, or its index in the order of the model.
pub trait Key: sealed::Key {
    /// The tensor meant.
    #[doc(hidden)]
    fn find<'a>(&self, role: Role, tensors: &'a [Tensor]) -> Result<&'a Tensor, Error>;
}

impl sealed::Key for usize {}
impl Key for usize {
    fn find<'a>(&self, role: Role, tensors: &'a [Tensor]) -> Result<&'a Tensor, Error> {
        tensors.get(*self).ok_or(Error::UnknownIndex { role, index: *self, count: tensors.len() })
    }
}

impl sealed::Key for &str {}
impl Key for &str {
    fn find<'a>(&self, role: Role, tensors: &'a [Tensor]) -> Result<&'a Tensor, Error> {
        tensors.iter().find(|tensor| tensor.name == *self).ok_or_else(|| {
            let names: Vec<String> =
                tensors.iter().map(|tensor| alloc::format!("{:?}", tensor.name)).collect();
            let known = if names.is_empty() { "none".to_string() } else { names.join(", ") };
            Error::UnknownName { role, name: self.to_string(), known }
        })
    }
}
