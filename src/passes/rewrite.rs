//! Rebuilding a graph node by node, with a map from old values to new ones.

use crate::mir::{Graph, Node, Op, Origin, Output, Value};
use crate::tensor::Tensor;
use crate::types::Type;
use bytes::Bytes;
use cranelift_entity::SecondaryMap;

/// A graph under reconstruction.
pub(super) struct Rewriter<'a> {
    pub(super) old: &'a Graph,
    pub(super) new: Graph,
    values: SecondaryMap<Value, Option<Value>>,
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(old: &'a Graph) -> Rewriter<'a> {
        let values = SecondaryMap::with_capacity(old.nodes.len());
        let mut new = old.skeleton();
        new.nodes.reserve(old.nodes.len());
        Rewriter { old, new, values }
    }

    /// What has become of an old value.
    pub(super) fn get(&self, old: Value) -> Value {
        self.values[old].expect("operands are rewritten before their users")
    }

    /// What has become of an old node's operands.
    pub(super) fn operands(&self, old: Value) -> Vec<Value> {
        self.old.nodes[old].operands.iter().map(|&v| self.get(v)).collect()
    }

    /// From now on `old` is `new`.
    pub(super) fn set(&mut self, old: Value, new: Value) {
        self.values[old] = Some(new);
    }

    /// Appends a new node.
    pub(super) fn push(
        &mut self,
        op: Op,
        operands: Vec<Value>,
        ty: Type,
        origins: Vec<Origin>,
    ) -> Value {
        self.new.nodes.push(Node { op, operands, ty, origins })
    }

    /// The old node with its rewritten operands.
    pub(super) fn copy(&mut self, old: Value) -> Value {
        let Node { op, ty, origins, .. } = self.old.nodes[old].clone();
        let operands = self.operands(old);
        let new = self.push(op, operands, ty, origins);
        self.set(old, new);
        new
    }

    /// `value` with other dimensions (itself when it has them).
    pub(super) fn reshape(&mut self, value: Value, dims: &[usize]) -> Value {
        let ty = self.new.ty(value);
        if ty.dims == dims {
            return value;
        }
        let (ty, origins) = (ty.with_dims(dims), self.new.nodes[value].origins.clone());
        self.push(Op::Reshape, vec![value], ty, origins)
    }

    /// `value` with its axes permuted (itself when nothing changes).
    pub(super) fn permute(&mut self, value: Value, perm: &[usize]) -> Value {
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            return value;
        }
        let ty = self.new.ty(value);
        let ty = ty.with_dims(perm.iter().map(|&p| ty.dims[p]).collect::<Vec<_>>());
        let origins = self.new.nodes[value].origins.clone();
        self.push(Op::Permute(perm.to_vec()), vec![value], ty, origins)
    }

    /// Elements `start..start + count` of one axis of `value` (itself when that is all).
    pub(super) fn narrow(
        &mut self,
        value: Value,
        axis: usize,
        start: usize,
        count: usize,
    ) -> Value {
        let ty = self.new.ty(value);
        if ty.dims[axis] == count {
            return value;
        }
        let (mut dims, rank) = (ty.dims.clone(), ty.rank());
        let mut starts = vec![0; rank];
        (dims[axis], starts[axis]) = (count, start);
        let (ty, origins) = (ty.with_dims(dims), self.new.nodes[value].origins.clone());
        self.push(Op::Slice { starts, steps: vec![1; rank] }, vec![value], ty, origins)
    }

    /// An operand of an epilogue ([`is_repeatable`]) for the channels of so many neighbouring results, one
    /// behind the other.
    pub(super) fn repeated(&mut self, value: Value, times: usize) -> Value {
        let Node { op: Op::Constant(tensor), ty, origins, .. } = &self.new.nodes[value] else {
            return value;
        };
        let Some(&channels) = ty.dims.last().filter(|&&d| d > 1 && times > 1) else { return value };
        let row = channels * ty.dtype.bytes();
        let data: Vec<u8> = tensor.bytes().chunks(row).flat_map(|row| row.repeat(times)).collect();
        let mut dims = ty.dims.clone();
        dims.iter_mut().next_back().into_iter().for_each(|channels| *channels *= times);
        let (ty, origins) = (ty.with_dims(dims), origins.clone());
        let tensor = Tensor::from_bytes(ty.clone(), Bytes::from(data)).expect("it has these bytes");
        self.push(Op::Constant(tensor), vec![], ty, origins)
    }

    /// The new graph.
    pub(super) fn finish(self) -> Graph {
        let get = |v: Value| self.values[v].expect("inputs and outputs are rewritten");
        let inputs = self.old.inputs.iter().map(|&v| get(v)).collect();
        let outputs = (self.old.outputs.iter())
            .map(|o| Output { name: o.name.clone(), value: get(o.value) })
            .collect();
        Graph { inputs, outputs, ..self.new }
    }
}

/// Whether an operand of an epilogue is the same for all results of a channel, and known or the same for all
/// channels.
pub(super) fn is_repeatable(graph: &Graph, operand: Value) -> bool {
    let ty = graph.ty(operand);
    let uniform = ty.dims.iter().rev().skip(1).all(|&d| d == 1);
    let one = ty.dims.last().is_none_or(|&d| d == 1);
    uniform && (one || graph.constant(operand).is_some())
}

/// The origins of several nodes, in order and without repetition.
pub(super) fn merged<'a>(lists: impl IntoIterator<Item = &'a [Origin]>) -> Vec<Origin> {
    let mut all: Vec<Origin> = lists.into_iter().flatten().copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}
