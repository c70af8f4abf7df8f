//!
pub mod clif;
pub mod x86;
