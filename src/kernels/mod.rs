//!
pub mod math;
