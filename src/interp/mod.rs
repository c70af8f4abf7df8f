//! Interpreters: the model by its definition, and (not compiled) the planned program.

pub mod arena;
pub mod reference;
