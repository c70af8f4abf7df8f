//! MIR: tensors of known type and shape under a small closed set of kinds, without framework words.
//!
//! A [`Graph`] is a table of nodes in topological order; a node is named by the [`Value`] that it
//! computes and has one result. Tensors are dense and row-major in meaning; how they lie in memory
//! is decided in LIR, where [`Op::Reshape`], [`Op::Permute`], [`Op::Slice`] and [`Op::Broadcast`]
//! are mostly free.
//!
//! - Convolutions and pools are channels-last and do not pad: [`Op::Pad`] is a kind of its own.
//! - Operands of [`Op::Map`], of row programs and of epilogues broadcast by NumPy's rule.
//! - Every node keeps the names of the model's nodes that it came from.
//!
//! Absent on purpose: control flow, symbolic shapes, layouts other than panels of weights.

pub mod attention;
pub mod build;
pub mod eval;
pub mod expr;
pub mod nibbles;
pub mod print;
pub mod quads;
pub mod runs;
pub mod verify;
pub mod winograd;

pub use attention::{Attention, Shares, Span};
pub use build::Builder;
pub use expr::{Binary, Comparison, Expr, Literal, Scalar, Unary};
pub use runs::Runs;
pub use winograd::{Filter, Side, Winograd};

use crate::tensor::Tensor;
use crate::types::{DType, Type};
use cranelift_entity::{PrimaryMap, entity_impl};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A node and its result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Value(u32);
entity_impl!(Value, "%");

/// A node of the model, for messages and listings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin(u32);
entity_impl!(Origin, "node");

/// A program over tensors.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Name of the model.
    pub name: String,
    /// The nodes, operands before users.
    pub nodes: PrimaryMap<Value, Node>,
    /// The inputs and parameters, in the model's order. All are kept, used or not.
    pub inputs: Vec<Value>,
    /// The results, in the model's order.
    pub outputs: Vec<Output>,
    /// Names of the model's nodes, shared with the graphs that are made of this one.
    pub origins: Arc<PrimaryMap<Origin, String>>,
}

/// A result of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Name given by the model.
    pub name: String,
    /// What is returned. May be an input, a constant, or another output's value.
    pub value: Value,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// From what.
    pub operands: Vec<Value>,
    /// Type of the result.
    pub ty: Type,
    /// The model's nodes that it came from, in order and without repetition.
    pub origins: Vec<Origin>,
}

/// Who sets an [`Op::Input`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Set before every run.
    Input,
    /// A parameter whose value is not known when the model is compiled: set once, before the first run.
    Parameter,
}

/// The kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Set by the caller. No operands.
    Input {
        /// Name given by the model.
        name: String,
        /// Input or parameter.
        role: Role,
    },
    /// Known now. No operands.
    Constant(Tensor),
    /// Element by element: the expression over the operands, each broadcast to the result's dimensions.
    Map(Expr),
    /// Reduction over `axes` (ascending, not empty), which stay with extent 1. One operand; the
    /// reduction of no elements is its identity (0, 1, or the type's lowest or highest value;
    /// infinities for floats).
    Reduce {
        /// With what.
        op: Reduction,
        /// Over which axes.
        axes: Vec<usize>,
    },
    /// Index (i64) of the largest or smallest element along `axis`, which stays with extent 1. A NaN
    /// is larger and smaller than everything else, the first one wins.
    ArgReduce {
        /// The largest, else the smallest.
        largest: bool,
        /// Along which axis.
        axis: usize,
        /// Of equal elements the last, else the first.
        last: bool,
    },
    /// A fused program over rows (the last axis). Made by passes.
    Rows(Rows),
    /// Matrix product.
    Contract(Contract),
    /// Two products with a row program between them. Made by passes.
    Attention(Attention),
    /// Convolution, channels last.
    Conv(Conv),
    /// A convolution by minimal filtering, or one side of it. Made by passes.
    Winograd(Winograd),
    /// Reduction over windows, channels last. One operand `[N, spatial.., C]`.
    Pool(Pool),
    /// Operands: data, indices (i32 or i64). Result: `data[..axis] ++ indices ++ data[axis + 1..]`.
    /// A negative index counts from the end; one out of range is clamped to the nearest.
    Gather {
        /// Which axis of the data is indexed.
        axis: usize,
    },
    /// Operands: data, indices (i32 or i64), updates `indices ++ data[1..]`. Result: the data, where the slices along
    /// the first axis that the indices name are replaced by the updates, or combined with them, one after the other
    /// in the order of the indices. An index counts as that of a [`Op::Gather`] does.
    Scatter {
        /// How a slice is combined with its update; `None`: it is replaced.
        op: Option<Reduction>,
    },
    /// Places (i64) of the `count` largest or smallest elements of each row (the last axis), the best one first;
    /// of equal ones those that come first. A NaN is larger than everything else. One operand; the last extent of
    /// the result is `count`.
    Sort {
        /// The largest, else the smallest.
        largest: bool,
        /// How many, from 1 to all.
        count: usize,
    },
    /// Running reductions.
    Scan(Scan),
    /// One operand, within a border of `value`: per axis `low` elements before it, `high` after it,
    /// `interior` between neighbours.
    Pad {
        /// Elements before, per axis.
        low: Vec<usize>,
        /// Elements behind, per axis.
        high: Vec<usize>,
        /// Elements between two neighbours, per axis.
        interior: Vec<usize>,
        /// Of the operand's element type.
        value: Literal,
    },
    /// The operands one behind the other along `axis`.
    Concat {
        /// Along which axis.
        axis: usize,
    },
    /// The same elements in row-major order, with other dimensions.
    Reshape,
    /// Axis `i` of the result is axis `perm[i]` of the operand.
    Permute(Vec<usize>),
    /// Element `i` of an axis of the result is element `starts + i * steps` of the operand's.
    Slice {
        /// The first element, per axis.
        starts: Vec<usize>,
        /// Distance of neighbours, per axis; not zero.
        steps: Vec<i64>,
    },
    /// One operand, repeated to the result's dimensions by NumPy's rule.
    Broadcast,
}

/// With what elements are reduced. On floats `Max` and `Min` give NaN when one element is NaN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Reduction {
    Sum,
    Product,
    Max,
    Min,
}

impl Reduction {
    /// The operation that combines two partial results.
    pub fn combine(self) -> Binary {
        match self {
            Reduction::Sum => Binary::Add,
            Reduction::Product => Binary::Mul,
            Reduction::Max => Binary::Max,
            Reduction::Min => Binary::Min,
        }
    }
}

/// For each element the reduction of all up to it along an axis. One operand, whose type the result has. Sums are made
/// in any order; those of floats of two bytes are rounded at the end only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scan {
    /// With what.
    pub op: Reduction,
    /// Along which axis.
    pub axis: usize,
    /// Whether it begins at the axis' end.
    pub reverse: bool,
    /// Whether the element itself is left out: the first result is the reduction of nothing.
    pub exclusive: bool,
}

/// A chain of element-wise expressions and reductions over the last axis of a common domain.
///
/// The domain is the broadcast of the operands; its last axis is a row. `Scalar::Operand(i)` in a
/// stage's expression is operand `i` for `i < operands`, else stage `i - operands`; a reduced stage
/// is one value per row. The last stage is the result, with last extent 1 if it is reduced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rows {
    /// In order; not empty.
    pub stages: Vec<Stage>,
    /// Extent of a row.
    pub width: usize,
}

/// One stage of a row program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stage {
    /// What is computed for every element.
    pub expr: Expr,
    /// How the elements of a row are then reduced, if they are.
    pub reduce: Option<Reduction>,
}

/// The type of the sums of products of elements of these types; `None` where there are none. Bytes of
/// different signs, first those without, have sums of `i32`; `f32` and floats of two bytes have those of `f32`, as have
/// `f32` and words of [`nibbles`].
pub fn sums(left: DType, right: DType) -> Option<DType> {
    match (left, right) {
        (DType::U8, DType::I8) => Some(DType::I32),
        (DType::F32, DType::F16 | DType::BF16 | DType::I32) => Some(DType::F32),
        (left, right) => (left == right).then_some(left),
    }
}

/// `A B`, with batch dimensions: operands A `[batch.., M, K]` and B `[batch.., K, N]` (all batch
/// dimensions equal), then those of the epilogue; result `[batch.., M, N]`.
///
/// Sums are made in any order, and have the type that [`sums`] says. Floats: f32 sums for f32. Integers wrap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Contract {
    /// How B lies in memory.
    pub weights: Weights,
    /// What is done to each sum before it is stored: `Scalar::Operand(0)` is the sum, `Operand(i)` the
    /// node's operand `i + 1`, broadcast to the result.
    pub epilogue: Option<Expr>,
    /// Whether B is best read from its end: what was read last lies nearest.
    #[serde(default)]
    pub backwards: bool,
    /// Whether it is best computed side by side with the step that follows it: a product of one row that waits for its
    /// weights.
    #[serde(default)]
    pub rides: bool,
}

impl Contract {
    /// Products of so few rows sum along columns of B whose elements lie one behind the other as fast as they
    /// read its rows: what has a row for each column (a table of words, a transposed matrix) is read where it is.
    pub const FEW_ROWS: usize = 4;

    /// Products with nothing done to them.
    pub const fn of(weights: Weights) -> Contract {
        Contract { weights, epilogue: None, backwards: false, rides: false }
    }
}

/// Convolution without padding: operands X `[N, spatial.., C]`, W `[taps.., C / groups, K]` and those
/// of the epilogue; result `[N, spatial'.., K]`. Output channel `k` reads the input channels of group
/// `k / (K / groups)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Conv {
    /// Extent of the kernel, per spatial axis. (W's dimensions do not say it when it is in panels.)
    pub taps: Vec<usize>,
    /// Distance of neighbouring windows, per spatial axis.
    pub strides: Vec<usize>,
    /// Distance of neighbouring taps, per spatial axis.
    pub dilations: Vec<usize>,
    /// Number of groups.
    pub groups: usize,
    /// How W lies in memory.
    pub weights: Weights,
    /// As in [`Contract`].
    pub epilogue: Option<Expr>,
}

impl Conv {
    /// How many results each of so many channels has, where every one is a group of its own and kernels with vectors
    /// over the results' channels know to repeat it so often: once, twice or four times.
    pub fn repeats(&self, channels: usize, results: usize) -> Option<usize> {
        let each = self.groups > 1 && channels == self.groups;
        [1, 2, 4].into_iter().find(|n| each && results == n * channels)
    }

    /// Whether a run of [`Weights::Quads`] may have so many elements, with as many input channels to a group:
    /// these, or those of all taps of the last axis where they lie one behind the other.
    pub fn has_runs_of(&self, run: usize, per_group: usize) -> bool {
        let taps = self.taps.last().copied().unwrap_or(1);
        let together = self.groups == 1 && self.dilations.last().is_none_or(|&d| d == 1);
        run > 0 && (run == per_group || together && run == taps * per_group)
    }
}

/// How the second operand of a contraction lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Weights {
    /// As the kind says.
    Plain,
    /// A constant in panels of `width` columns, the last one filled with zeros. Contraction:
    /// `[batch.., panels, K, width]`. Convolution: `[groups, panels, taps * C / groups, width]`, with
    /// columns being the K / groups output channels of a group.
    Panels {
        /// Columns of a panel.
        width: usize,
        /// Columns without the filling (per group).
        columns: usize,
    },
    /// A constant of `i8`, multiplied by `u8`, in such panels, with four elements of a column side by side
    /// ([`quads`]): the depth is in runs of `run` elements, and each run in fours. Contraction: `[batch..,
    /// panels, fours, width, 4]`, the depth being one run. Convolution: `[groups, panels, runs * fours, width,
    /// 4]`, a run being the input channels of a group at one tap, or at all taps of the last spatial axis.
    Quads {
        /// Columns of a panel.
        width: usize,
        /// Columns without the filling (per group).
        columns: usize,
        /// Elements of a run.
        run: usize,
    },
    /// A constant of `i32`, multiplied by `f32`: words of numbers of four bits with their scales ([`nibbles`]), in
    /// panels `[panels, words, width]`. Only of a contraction without batch dimensions.
    Nibbles {
        /// Columns of a panel.
        width: usize,
        /// Columns without the filling.
        columns: usize,
        /// How columns are in blocks.
        blocks: nibbles::Blocks,
    },
}

/// Reduction over windows of the spatial axes of `[N, spatial.., C]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pool {
    /// With what.
    pub op: Reduction,
    /// Extent of a window, per spatial axis.
    pub window: Vec<usize>,
    /// Distance of neighbouring windows.
    pub strides: Vec<usize>,
    /// Distance of neighbouring elements of a window.
    pub dilations: Vec<usize>,
}

/// Extent of a windowed axis' result: how many windows fit.
pub fn windows(extent: usize, window: usize, stride: usize, dilation: usize) -> usize {
    match extent.checked_sub((window - 1) * dilation + 1) {
        Some(rest) => rest / stride + 1,
        None => 0,
    }
}

impl Op {
    /// Whether a node of this kind only looks at its operand.
    pub fn is_view(&self) -> bool {
        match self {
            Op::Reshape | Op::Permute(_) | Op::Slice { .. } | Op::Broadcast => true,
            Op::Input { .. }
            | Op::Constant(_)
            | Op::Map(_)
            | Op::Reduce { .. }
            | Op::ArgReduce { .. }
            | Op::Rows(_)
            | Op::Contract(_)
            | Op::Attention(_)
            | Op::Conv(_)
            | Op::Winograd(_)
            | Op::Pool(_)
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Sort { .. }
            | Op::Scan(_)
            | Op::Pad { .. }
            | Op::Concat { .. } => false,
        }
    }

    /// Whether the result has the axes of the operands, whatever their order is.
    pub fn keeps_axes(&self) -> bool {
        match self {
            Op::Map(_)
            | Op::Concat { .. }
            | Op::Pad { .. }
            | Op::Slice { .. }
            | Op::Reduce { .. }
            | Op::Broadcast
            | Op::Scan(_) => true,
            Op::Input { .. }
            | Op::Constant(_)
            | Op::ArgReduce { .. }
            | Op::Rows(_)
            | Op::Contract(_)
            | Op::Attention(_)
            | Op::Conv(_)
            | Op::Winograd(_)
            | Op::Pool(_)
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Sort { .. }
            | Op::Reshape
            | Op::Permute(_) => false,
        }
    }
}

impl Node {
    /// Whether it is best computed side by side with another ([`Contract::rides`]).
    pub fn rides(&self) -> bool {
        matches!(&self.op, Op::Contract(contract) if contract.rides)
    }

    /// Whether the result is the operand, which is to be copied: kept apart from it.
    pub fn is_copy(&self) -> bool {
        matches!(&self.op, Op::Map(expr) if expr.nodes == [Scalar::Operand(0)])
    }
}

impl Graph {
    /// Type of a value.
    pub fn ty(&self, value: Value) -> &Type {
        &self.nodes[value].ty
    }

    /// The tensor, if `value` is a constant.
    pub fn constant(&self, value: Value) -> Option<&Tensor> {
        match &self.nodes[value].op {
            Op::Constant(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// For every value, how many operands and outputs it is.
    pub fn uses(&self) -> cranelift_entity::SecondaryMap<Value, u32> {
        let mut uses = cranelift_entity::SecondaryMap::with_capacity(self.nodes.len());
        let operands = self.nodes.values().flat_map(|n| n.operands.iter().copied());
        operands.chain(self.outputs.iter().map(|o| o.value)).for_each(|v| uses[v] += 1);
        uses
    }

    /// The same graph with its nodes in another order, operands before users.
    #[must_use]
    pub fn reordered(&self, order: &[Value]) -> Graph {
        let mut new = self.skeleton();
        let mut values = cranelift_entity::SecondaryMap::with_default(Value(0));
        for &old in order {
            let mut node = self.nodes[old].clone();
            node.operands.iter_mut().for_each(|operand| *operand = values[*operand]);
            values[old] = new.nodes.push(node);
        }
        new.inputs = self.inputs.iter().map(|&input| values[input]).collect();
        let output = |o: &Output| Output { name: o.name.clone(), value: values[o.value] };
        new.outputs = self.outputs.iter().map(output).collect();
        new
    }

    /// A graph with the same name, origins and nothing else, for passes that rebuild.
    #[must_use]
    pub fn skeleton(&self) -> Graph {
        Graph { name: self.name.clone(), origins: self.origins.clone(), ..Graph::default() }
    }
}
