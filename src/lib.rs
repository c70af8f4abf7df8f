//! An ahead-of-time compiler from trained models to native object files.

pub mod codegen;
pub mod error;
pub mod front;
pub mod hir;
pub mod interp;
pub mod kernels;
pub mod kir;
pub mod lir;
pub mod lower;
pub mod machine;
pub mod mir;
pub mod ops;
pub mod passes;
pub mod tensor;
pub mod types;
