//! The nodes of a graph that become steps, as a graph of their own and as a problem.

use super::problem::{Problem, Task};
use crate::lir::storage::step_op;
use crate::lir::views::has_interior;
use crate::mir::{Graph, Op, Value};
use crate::types::{DType, Type};
use cranelift_entity::SecondaryMap;
use std::collections::BTreeSet;

/// The steps that the outputs need, as a graph of their own, by the index in the model's order.
pub(super) struct Nodes<'a> {
    graph: &'a Graph,
    pub(super) values: Vec<Value>,
    /// Bytes of each result.
    pub(super) sizes: Vec<i64>,
    /// The steps that each reads, through views, ascending and without repetition.
    pub(super) operands: Vec<Vec<usize>>,
    pub(super) users: Vec<Vec<usize>>,
    /// Whether the result is kept to the end.
    pub(super) kept: Vec<bool>,
    /// The step whose result a value is, or is a view of.
    step_of: SecondaryMap<Value, Option<usize>>,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(graph: &'a Graph) -> Nodes<'a> {
        let mut needed: SecondaryMap<Value, bool> = SecondaryMap::new();
        graph.outputs.iter().for_each(|o| needed[o.value] = true);
        for (value, node) in graph.nodes.iter().rev() {
            if needed[value] {
                node.operands.iter().for_each(|&operand| needed[operand] = true);
            }
        }
        let mut step_of: SecondaryMap<Value, Option<usize>> = SecondaryMap::new();
        let mut steps = Nodes {
            graph,
            values: vec![],
            sizes: vec![],
            operands: vec![],
            users: vec![],
            kept: vec![],
            step_of: SecondaryMap::new(),
        };
        for (value, node) in graph.nodes.iter().filter(|(value, _)| needed[*value]) {
            step_of[value] = match &node.op {
                Op::Input { .. } | Op::Constant(_) => None,
                op if op.is_view() => step_of[node.operands[0]],
                _ => {
                    let index = steps.values.len();
                    let operands: BTreeSet<usize> =
                        node.operands.iter().filter_map(|&v| step_of[v]).collect();
                    operands.iter().for_each(|&operand| steps.users[operand].push(index));
                    steps.values.push(value);
                    steps.sizes.push(i64::try_from(node.ty.bytes()).unwrap_or(i64::MAX));
                    steps.operands.push(operands.into_iter().collect());
                    steps.users.push(vec![]);
                    steps.kept.push(false);
                    Some(index)
                }
            };
        }
        graph.outputs.iter().filter_map(|o| step_of[o.value]).for_each(|i| steps.kept[i] = true);
        steps.tie();
        steps.step_of = step_of;
        steps
    }

    /// A product that rides ([`Contract::rides`]) is taken just before the one that carries it: when that could be.
    ///
    /// [`Contract::rides`]: crate::mir::Contract::rides
    fn tie(&mut self) {
        for carrier in 1..self.values.len() {
            let rider = carrier - 1;
            if !self.graph.nodes[self.values[rider]].rides()
                || self.operands[carrier].contains(&rider)
            {
                continue;
            }
            let own = BTreeSet::from_iter(self.operands[rider].iter().copied());
            let theirs = BTreeSet::from_iter(self.operands[carrier].iter().copied());
            theirs.difference(&own).for_each(|&operand| self.users[operand].push(rider));
            theirs.iter().for_each(|&operand| self.users[operand].sort_unstable());
            self.users[rider].push(carrier);
            self.users[rider].sort_unstable();
            self.operands[rider] = own.union(&theirs).copied().collect();
            self.operands[carrier].push(rider);
        }
    }

    /// What storage will make of the steps, as far as it is known before: operands of concatenations and
    /// borders are written into their windows, and element-wise work is done in place.
    pub(super) fn problem(&self) -> Problem {
        const ALIGN: u64 = 64;
        let count = self.values.len();
        // Each step's object is its own or that of a later step, whose window the result is.
        let mut objects: Vec<usize> = (0..count).collect();
        let mut is_window = vec![false; count];
        for index in (0..count).rev() {
            let node = &self.graph.nodes[self.values[index]];
            let joins = match &node.op {
                Op::Concat { .. } => true,
                Op::Pad { .. } => !has_interior(node, self.graph),
                _ => false,
            };
            for &operand in node.operands.iter().filter(|_| joins) {
                let Some(step) = self.step_of[operand] else { continue };
                let is_free = objects[step] == step
                    && !self.kept[step]
                    && !self.graph.nodes[self.values[step]].is_copy();
                if is_free && self.values[step] == operand {
                    objects[step] = objects[index];
                    is_window[step] = true;
                    is_window[index] = true;
                }
            }
        }
        let mut problem = Problem::default();
        for (&size, &kept) in self.sizes.iter().zip(&self.kept) {
            let object = problem.object(size.unsigned_abs().next_multiple_of(ALIGN));
            problem.kept[object] = kept;
        }
        for index in 0..count {
            let after = self.operands[index].clone();
            let mut touches: Vec<usize> = after.iter().map(|&step| objects[step]).collect();
            touches.push(objects[index]);
            touches.sort_unstable();
            touches.dedup();
            let in_place = if is_window[index] { vec![] } else { self.in_place(index, &objects) };
            let result = Some(objects[index]);
            let working = self.working(index).next_multiple_of(ALIGN);
            problem.tasks.push(Task { after, touches, result, in_place, working });
        }
        problem
    }

    /// Bytes of a step's working memory.
    fn working(&self, index: usize) -> u64 {
        let node = &self.graph.nodes[self.values[index]];
        let operands: Vec<Type> =
            node.operands.iter().map(|&operand| self.graph.ty(operand).clone()).collect();
        let has_any = matches!(node.op, Op::Attention(_) | Op::Winograd(_) | Op::Sort { .. });
        let op = if has_any { step_op(self.graph, node) } else { None };
        let dims = op.and_then(|op| op.scratch(&operands, &node.ty.dims));
        dims.map_or(0, |dims| Type::new(DType::F32, dims).bytes() as u64)
    }

    /// The objects that a step's result may take the room of.
    fn in_place(&self, index: usize, objects: &[usize]) -> Vec<usize> {
        let node = &self.graph.nodes[self.values[index]];
        let Some(op) = step_op(self.graph, node) else { return vec![] };
        let operands = node.operands.iter().enumerate();
        let fitting = operands.filter_map(|(at, &operand)| {
            let ty = self.graph.ty(operand);
            let same = ty.dtype == node.ty.dtype && ty.elements() == node.ty.elements();
            // A step's own buffer, whole.
            let step = self.step_of[operand].filter(|&step| objects[step] == step)?;
            let whole = self.sizes[step] == self.sizes[index];
            (same && whole && op.in_place(at)).then_some(step)
        });
        fitting.collect()
    }

    /// All values of the graph, for the steps in this order.
    pub(super) fn with_views(&self, steps: &[usize]) -> Vec<Value> {
        let graph = self.graph;
        // Views that are outputs are taken as soon as their step is done.
        let mut follow: SecondaryMap<Value, Vec<Value>> = SecondaryMap::new();
        for output in &graph.outputs {
            let mut root = output.value;
            while graph.nodes[root].op.is_view() {
                root = graph.nodes[root].operands[0];
            }
            follow[root].push(output.value);
        }
        let mut order = Vec::with_capacity(graph.nodes.len());
        let mut seen: SecondaryMap<Value, bool> = SecondaryMap::new();
        let mut add = |value: Value| {
            let mut open = vec![(value, 0)];
            while let Some((value, next)) = open.pop() {
                if next == 0 && std::mem::replace(&mut seen[value], true) {
                    continue;
                }
                match graph.nodes[value].operands.get(next) {
                    Some(&operand) => open.extend([(value, next + 1), (operand, 0)]),
                    None => order.push(value),
                }
            }
        };
        for &step in steps {
            let value = self.values[step];
            add(value);
            follow[value].iter().for_each(|&view| add(view));
        }
        graph.nodes.keys().for_each(add);
        order
    }
}
