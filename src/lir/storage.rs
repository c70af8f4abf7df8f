//! From values to steps over buffers.
//!
//! [`Homes`] has decided where every value lies; here each value becomes the steps that put it there.
//! Views that are accesses need none, an operand of a concatenation or border that its producer
//! wrote into its window needs none either, and an operand that lies in a way that the kernel is slow
//! with is copied first.

use super::accepts::accepts;
use super::access::Axes;
use super::collapse::{collapse, sort_axes};
use super::homes::{Homes, Over, table};
use super::phase;
use super::state::{Link, State};
use super::views::{borders, view, window};
use super::{Access, Buffer, BufferInfo, BufferKind, Io, Module, Op, Options, Plan, Port, Step};
use super::{Rows, StepInfo};
use crate::mir::Stage;
use crate::mir::{self, Graph, Role, Value};
use crate::types::{DType, Type};
use cranelift_entity::{PrimaryMap, SecondaryMap};
use std::collections::{BTreeMap, BTreeSet};

/// Which windows of concatenations and borders are written before their time: from then on there is room for all
/// of the whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Windows {
    /// A value is written straight into the window of its user when at most so many values lie between.
    pub reach: usize,
    /// A value is also written where another one will be in its place.
    pub wait: bool,
    /// Operands of concatenations, by their index, that are copied there when all others are.
    pub apart: BTreeSet<(Value, usize)>,
    /// Values that lie where a later concatenation does, which takes their room part by part while they are read.
    pub over: BTreeSet<Value>,
}

impl Windows {
    /// All of them.
    pub const ALL: Windows =
        Windows { reach: usize::MAX, wait: true, apart: BTreeSet::new(), over: BTreeSet::new() };
}

/// What of the windows made a difference: with others that are the same as far as this goes, all is stored alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// Whether somebody waits for another's place.
    pub wait: bool,
    /// How far a window is behind, at most.
    pub reach: usize,
}

impl Asked {
    /// What both need.
    pub(super) fn and(self, other: Asked) -> Asked {
        Asked { wait: self.wait || other.wait, reach: self.reach.max(other.reach) }
    }
}

/// Steps over buffers for the values in this order, without places for the buffers.
pub fn assign(
    graph: &Graph,
    order: &[Value],
    links: &[Link],
    options: &Options,
    windows: &Windows,
) -> Module {
    traced(graph, order, links, options, windows, true).0
}

/// What has become of values.
#[derive(Clone, Debug)]
pub struct Traces {
    /// The buffer in which each value lies, if something needs it.
    pub buffers: SecondaryMap<Value, Option<Buffer>>,
    /// For which value each step is.
    pub steps: PrimaryMap<Step, Value>,
    /// What it depends on.
    pub asked: Asked,
    /// Values that may lie where others do ([`Windows::over`]), but do not.
    pub over: Vec<Over>,
}

/// As [`assign`], with what has become of all values. Without names, neither buffers nor steps have any.
pub fn traced(
    graph: &Graph,
    order: &[Value],
    links: &[Link],
    options: &Options,
    windows: &Windows,
    named: bool,
) -> (Module, Traces) {
    let invariant = phase::invariants(graph, options);
    let order = &phase::invariants_first(order, &invariant);
    let homes = Homes::new(graph, order, links, invariant, options, windows, named);
    let mut writer = Writer {
        graph,
        links,
        homes,
        named,
        steps: PrimaryMap::new(),
        values: PrimaryMap::new(),
        copies: BTreeMap::new(),
        outputs: vec![None; graph.outputs.len()],
    };
    let mut outputs: SecondaryMap<Value, Vec<usize>> = table(graph);
    for (index, output) in graph.outputs.iter().enumerate() {
        if !links.iter().any(|link| link.output == index) {
            outputs[output.value].push(index);
        }
    }
    for &value in order {
        if writer.homes.access(value).is_some() {
            writer.write(value);
            writer.write_outputs(value, &outputs[value]);
        }
    }
    writer.write_states();
    writer.finish(options)
}

/// The step that computes a node; `None` for inputs, constants, views, concatenations and borders.
pub(super) fn step_op(graph: &Graph, node: &mir::Node) -> Option<Op> {
    Some(match &node.op {
        mir::Op::Map(expr) => {
            let stages = vec![Stage { expr: expr.clone(), reduce: None }];
            // The width is that of the collapsed domain; it is set with the accesses.
            Op::Rows(Rows { stages, width: node.ty.dims.last().copied().unwrap_or(1) })
        }
        mir::Op::Rows(rows) => Op::Rows(rows.clone()),
        mir::Op::Reduce { op, axes } => Op::Reduce { op: *op, axes: axes.clone() },
        mir::Op::ArgReduce { largest, axis, last } => {
            Op::ArgReduce { largest: *largest, axis: *axis, last: *last }
        }
        mir::Op::Contract(contract) => Op::Contract(contract.clone()),
        mir::Op::Attention(attention) => Op::Attention(attention.clone()),
        mir::Op::Conv(conv) => Op::Conv(conv.clone()),
        mir::Op::Winograd(winograd) => Op::Winograd(winograd.clone()),
        mir::Op::Pool(pool) => Op::Pool(pool.clone()),
        mir::Op::Gather { axis } => {
            Op::Gather { axis: *axis, known: known_places(graph, node, *axis) }
        }
        mir::Op::Scan(scan) => Op::Scan(scan.clone()),
        mir::Op::Scatter { op } => Op::Scatter { op: *op },
        mir::Op::Sort { largest, count } => Op::Sort { largest: *largest, count: *count },
        mir::Op::Input { .. }
        | mir::Op::Constant(_)
        | mir::Op::Pad { .. }
        | mir::Op::Concat { .. }
        | mir::Op::Reshape
        | mir::Op::Permute(_)
        | mir::Op::Slice { .. }
        | mir::Op::Broadcast => return None,
    })
}

/// The places that a gather takes elements from, where a kernel may know them: rows of elements that lie one behind
/// the other, all of them in the same order, which are more than it takes to say it.
fn known_places(graph: &Graph, node: &mir::Node, axis: usize) -> Option<Vec<u32>> {
    const LONGEST: usize = 4096;
    const ROWS: usize = 4;
    let &[data, indices] = &node.operands[..] else { return None };
    let (extent, indices) = (*graph.ty(data).dims.get(axis)? as i64, graph.constant(indices)?);
    let count = indices.ty().elements();
    let rows = node.ty.elements() / count.max(1);
    if axis + 1 != graph.ty(data).rank() || count > LONGEST || rows < ROWS || extent == 0 {
        return None;
    }
    let place = |index: i64| {
        let index = if index < 0 { index.saturating_add(extent) } else { index };
        u32::try_from(index.clamp(0, extent - 1)).ok()
    };
    indices.ints().into_iter().map(place).collect()
}

/// The dimensions with which a step reads the operand `index` of a node.
pub(super) fn operand_dims(graph: &Graph, user: Value, index: usize) -> Axes<usize> {
    let node = &graph.nodes[user];
    let with_last = |last: usize| {
        let mut dims = Axes::from_slice(&node.ty.dims);
        dims.iter_mut().next_back().into_iter().for_each(|d| *d = last);
        dims
    };
    match &node.op {
        mir::Op::Map(_) => Axes::from_slice(&node.ty.dims),
        mir::Op::Rows(rows) => with_last(rows.width),
        mir::Op::Contract(_) | mir::Op::Conv(_) if index >= 2 => Axes::from_slice(&node.ty.dims),
        mir::Op::Attention(_) if index >= 3 => {
            with_last(graph.ty(node.operands[1]).dims.last().copied().unwrap_or(1))
        }
        mir::Op::Winograd(w) if index >= w.first_extra() => Axes::from_slice(&node.ty.dims),
        _ => Axes::from_slice(&graph.ty(node.operands[index]).dims),
    }
}

struct Writer<'a> {
    graph: &'a Graph,
    links: &'a [Link],
    homes: Homes<'a>,
    named: bool,
    steps: PrimaryMap<Step, StepInfo>,
    /// For which value each is.
    values: PrimaryMap<Step, Value>,
    /// Dense copies that were made of values for steps that refuse their accesses.
    copies: BTreeMap<Value, Access>,
    outputs: Vec<Option<Buffer>>,
}

impl Writer<'_> {
    fn access(&self, value: Value) -> Access {
        self.homes.access(value).expect("operands of needed values are needed").clone()
    }

    /// Appends a step, with its accesses in their normal form.
    fn push(&mut self, value: Value, op: Op, operands: Vec<Access>, result: Access) {
        if result.is_empty() {
            return;
        }
        let mut op = op;
        let mut accesses = operands;
        accesses.push(result);
        match &mut op {
            Op::Rows(rows) => {
                // One stage over elements has no rows: any grouping of the elements will do.
                let elementwise = rows.stages.len() == 1 && rows.stages[0].reduce.is_none();
                collapse(&mut accesses, !elementwise);
                if elementwise {
                    rows.width = accesses[0].dims.last().copied().unwrap_or(1);
                }
            }
            Op::Move | Op::Fill(_) => {
                sort_axes(&mut accesses);
                collapse(&mut accesses, false);
            }
            Op::Reduce { .. }
            | Op::ArgReduce { .. }
            | Op::Contract(_)
            | Op::Attention(_)
            | Op::Conv(_)
            | Op::Winograd(_)
            | Op::Pool(_)
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Sort { .. }
            | Op::Scan(_) => accesses.iter_mut().for_each(Access::normalize),
        }
        let result = accesses.pop().expect("the result was pushed");
        let origins = &self.graph.nodes[value].origins;
        let origins = origins.iter().filter(|_| self.named);
        let origins = origins.map(|&o| self.graph.origins[o].clone()).collect();
        let scratch = self.scratch(value, &op);
        self.steps.push(StepInfo { op, operands: accesses, result, scratch, origins });
        self.values.push(value);
    }

    /// Working memory for a step.
    fn scratch(&mut self, value: Value, op: &Op) -> Option<Access> {
        if !op.has_scratch() {
            return None;
        }
        let node = &self.graph.nodes[value];
        let operands: Vec<Type> =
            node.operands.iter().map(|&operand| self.graph.ty(operand).clone()).collect();
        let ty = Type::new(DType::F32, op.scratch(&operands, &node.ty.dims)?);
        let (name, bytes, kind) =
            (self.homes.name(value), ty.bytes() as u64, BufferKind::Temporary);
        let buffer = self.homes.buffers.push(BufferInfo { name, bytes, kind });
        Some(Access::dense(buffer, &ty))
    }

    /// The steps that put a value where it lies.
    fn write(&mut self, value: Value) {
        let graph = self.graph;
        let node = &graph.nodes[value];
        let result = self.access(value);
        if let Some(op) = self.homes.ops[value].take() {
            if result.is_empty() {
                return;
            }
            let operands = node.operands.iter().enumerate();
            let read = |(index, &operand): (usize, &Value)| self.read(&op, value, index, operand);
            let operands = operands.map(read).collect();
            self.push(value, op, operands, result);
        } else if node.op.is_view() {
            if self.homes.is_copied(value) {
                self.copy_view(value, result);
            }
        } else {
            if let mir::Op::Pad { value: literal, .. } = &node.op {
                for part in borders(graph, node, &result) {
                    self.push(value, Op::Fill(*literal), vec![], part);
                }
            }
            for (index, &operand) in node.operands.iter().enumerate() {
                let access = self.access(operand);
                match window(graph, value, index, &result) {
                    Some(window) if !window.same(&access) => {
                        self.push(value, Op::Move, vec![access], window);
                    }
                    _ => {}
                }
            }
        }
    }

    /// A view that is no access to its operand's storage.
    fn copy_view(&mut self, value: Value, result: Access) {
        let node = &self.graph.nodes[value];
        let operand = self.access(node.operands[0]);
        let (from, to) = match view(node, &operand) {
            Some(from) => (from, result),
            None => {
                let to = result.reshaped(&operand.dims).expect("the place was chosen to allow it");
                (operand, to)
            }
        };
        self.push(value, Op::Move, vec![from], to);
    }

    /// An operand as its step takes it, copied if need be.
    fn read(&mut self, op: &Op, user: Value, index: usize, operand: Value) -> Access {
        let dims = operand_dims(self.graph, user, index);
        let access = self.access(operand).broadcast(&dims);
        let result = &self.graph.ty(user).dims;
        if accepts(op, index, &access, result) {
            access
        } else {
            self.dense(operand).broadcast(&dims)
        }
    }

    /// A dense copy of a value (without its repetitions).
    fn dense(&mut self, value: Value) -> Access {
        if let Some(copy) = self.copies.get(&value) {
            return copy.clone();
        }
        let node = &self.graph.nodes[value];
        let name = self.homes.name(value);
        let from = self.access(value);
        let copy = if node.op == mir::Op::Broadcast {
            self.dense(node.operands[0]).broadcast(&node.ty.dims)
        } else if let Some(copy) = self.homes.constant_copy(name, &from) {
            copy
        } else {
            self.copied(value, from)
        };
        self.copies.insert(value, copy.clone());
        copy
    }

    /// A dense copy in a buffer of its own.
    fn copied(&mut self, value: Value, from: Access) -> Access {
        let (name, ty) = (self.homes.name(value), self.graph.ty(value));
        let (bytes, kind) = (ty.bytes() as u64, BufferKind::Temporary);
        let buffer = self.homes.buffers.push(BufferInfo { name, bytes, kind });
        let copy = Access::dense(buffer, ty);
        self.push(value, Op::Move, vec![from], copy.clone());
        copy
    }

    /// Copies the next values of the states that do not lie there yet, each when no other copy needs the old one
    /// any more.
    fn write_states(&mut self) {
        let mut open: Vec<(Value, Access, Access)> = vec![];
        for (link, buffer) in self.links.iter().zip(self.homes.states().to_vec()) {
            let value = self.graph.outputs[link.output].value;
            self.outputs[link.output].get_or_insert(buffer);
            let (from, to) = (self.access(value), Access::dense(buffer, self.graph.ty(value)));
            if !from.same(&to) && !to.is_empty() {
                open.push((value, from, to));
            }
        }
        // A state that is read in another order than it is written.
        for copy in &mut open {
            if copy.1.buffer == copy.2.buffer {
                copy.1 = self.copied(copy.0, copy.1.clone());
            }
        }
        while !open.is_empty() {
            let needed = |buffer: Buffer| open.iter().any(|(_, from, _)| from.buffer == buffer);
            match open.iter().position(|(.., to)| !needed(to.buffer)) {
                Some(next) => {
                    let (value, from, to) = open.remove(next);
                    self.push(value, Op::Move, vec![from], to);
                }
                // States that change places.
                None => open[0].1 = self.copied(open[0].0, open[0].1.clone()),
            }
        }
    }

    /// Gives the outputs that are this value their buffers.
    fn write_outputs(&mut self, value: Value, outputs: &[usize]) {
        let Some(&first) = outputs.first() else { return };
        let access = self.access(value);
        let buffer = if self.homes.is_returned(value) {
            access.buffer
        } else {
            let ty = self.graph.ty(value);
            let name = self.graph.outputs[first].name.clone();
            let (bytes, kind) = (ty.bytes() as u64, BufferKind::Output);
            let buffer = self.homes.buffers.push(BufferInfo { name, bytes, kind });
            self.push(value, Op::Move, vec![access], Access::dense(buffer, ty));
            buffer
        };
        outputs.iter().for_each(|&index| self.outputs[index] = Some(buffer));
    }

    /// The module, its buffers numbered in the order in which they are met.
    fn finish(self, options: &Options) -> (Module, Traces) {
        let Writer { graph, links, mut homes, mut steps, mut values, outputs, .. } = self;
        let mut io = Io::default();
        for &input in &graph.inputs {
            let (mir::Op::Input { name, role }, Some(access)) =
                (&graph.nodes[input].op, homes.access(input))
            else {
                continue;
            };
            let ty = graph.ty(input).clone();
            let port = Port { name: name.clone(), ty, buffer: access.buffer };
            match role {
                Role::Input => {
                    let index = io.inputs.len();
                    let mine = links.iter().filter(|link| link.input == input);
                    io.states.extend(mine.map(|l| State { input: index, output: l.output }));
                    io.inputs.push(port);
                }
                Role::Parameter => io.parameters.push(port),
            }
        }
        for (output, buffer) in graph.outputs.iter().zip(outputs) {
            let ty = graph.ty(output.value).clone();
            io.outputs.extend(buffer.map(|buffer| Port { name: output.name.clone(), ty, buffer }));
        }
        let mut old: SecondaryMap<Buffer, Option<BufferInfo>> = SecondaryMap::new();
        old.resize(homes.buffers.len());
        std::mem::take(&mut homes.buffers)
            .into_iter()
            .for_each(|(key, info)| old[key] = Some(info));
        let mut renamed: SecondaryMap<Buffer, Option<Buffer>> = SecondaryMap::new();
        let mut buffers = PrimaryMap::new();
        let mut rename = |buffer: &mut Buffer| {
            let met = old[*buffer].take();
            let new = &mut renamed[*buffer];
            *new = met.map(|info| buffers.push(info)).or(*new);
            *buffer = new.expect("every access is to a buffer");
        };
        let Io { inputs, parameters, outputs, states: _ } = &mut io;
        inputs.iter_mut().chain(parameters).for_each(|port| rename(&mut port.buffer));
        for step in steps.values_mut() {
            step.operands.iter_mut().for_each(|access| rename(&mut access.buffer));
            step.scratch.iter_mut().for_each(|access| rename(&mut access.buffer));
            rename(&mut step.result.buffer);
        }
        outputs.iter_mut().for_each(|port| rename(&mut port.buffer));
        let prologue = phase::separate(&mut steps, &mut values, &buffers, options);
        let plan = Plan { options: options.clone(), prologue, ..Plan::default() };
        let mut traces = table(graph);
        for value in graph.nodes.keys() {
            let access = homes.access(value);
            traces[value] = access.and_then(|access| renamed[access.buffer]);
        }
        let asked = homes.asked();
        let traces = Traces { buffers: traces, steps: values, asked, over: homes.over };
        (Module { name: graph.name.clone(), buffers, steps, io, plan }, traces)
    }
}
