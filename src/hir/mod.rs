//! HIR: the model as written. Named values, framework operators, symbolic dimensions.
//!
//! Readers make a [`Graph`] through [`Builder`], by names, in any order; [`check`](check::check) binds
//! the symbolic dimensions, infers every type, folds what is constant (shape arithmetic above all)
//! and makes the [`Checked`] graph that can be lowered or interpreted.

mod build;
pub mod check;
pub mod window;

pub use build::Builder;
pub use check::{Checked, Limits};

use crate::ops::AnyOp;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use cranelift_entity::{PrimaryMap, entity_impl};
use std::fmt;

/// A tensor of the model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(u32);
entity_impl!(Value, "value");

/// An operator of the model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(u32);
entity_impl!(Node, "node");

/// A model. Nodes are in topological order, operands before users.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Name of the model.
    pub name: String,
    /// The tensors.
    pub values: PrimaryMap<Value, ValueInfo>,
    /// The operators.
    pub nodes: PrimaryMap<Node, NodeInfo>,
    /// What the caller sets, in the model's order: inputs and parameters without a value.
    pub inputs: Vec<Input>,
    /// What the caller gets, in the model's order.
    pub outputs: Vec<Value>,
}

/// A tensor of the model.
#[derive(Clone, Debug)]
pub struct ValueInfo {
    /// Name given by the model.
    pub name: String,
    /// Its value, if the model gives one.
    pub constant: Option<Tensor>,
    /// What the model says of its type, where that has to be so.
    pub declared: Option<(DType, Vec<Dim>)>,
}

/// An operator of the model.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// Name given by the model; the name of its first output if it gives none.
    pub name: String,
    /// What it computes.
    pub op: AnyOp,
    /// Its operands; `None` for an optional one that is left out.
    pub inputs: Vec<Option<Value>>,
    /// Its results; `None` for one that is not used.
    pub outputs: Vec<Option<Value>>,
    /// Where it is in branches: their conditions, and what these have to be for the node to mean anything.
    pub guards: Vec<(Value, bool)>,
}

/// What the caller sets.
#[derive(Clone, Debug)]
pub struct Input {
    /// The tensor.
    pub value: Value,
    /// Type of the elements.
    pub dtype: DType,
    /// Its dimensions, perhaps symbolic.
    pub dims: Vec<Dim>,
    /// Whether it is a parameter (set once) rather than an input (set before every run).
    pub parameter: bool,
}

/// A dimension of an input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dim {
    /// Known.
    Fixed(usize),
    /// To be bound by name.
    Symbol(String),
    /// The model says nothing of it. It is bound as `NAME.AXIS`.
    Unknown,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}
