//! The plan in a lowered module, checked.
//!
//! Invariants of [`Plan`]:
//!
//! 1. Every slot is inside the arena, aligned, and as large as its tensor; only views and tensors of size
//!    zero have none.
//! 2. Every view lies inside its root, and in the root's slot.
//! 3. The schedule names every node once, operands before users.
//! 4. Slots of tensors that are alive at the same step do not overlap. Inputs, parameters and constants
//!    are alive always, outputs until the end, all others from the step that makes them to the last that
//!    reads them or a view of them, both included.

use super::{Extent, Inner, Op, dtype};
use crate::error::{Error, ErrorKind, Errors};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Where every tensor of a lowered module lies, by the ids of its nodes.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Bytes of the arena. RLX does not round it up to the alignment.
    pub arena_size: u64,
    /// Of every slot; a power of two.
    pub alignment: u64,
    /// Slots by node.
    pub slots: BTreeMap<usize, Slot>,
    /// Nodes that are views of another one's tensor.
    pub views: BTreeMap<usize, View>,
    /// Order in which the nodes run.
    pub schedule: Vec<usize>,
    /// The nodes.
    pub nodes: Vec<PlanNode>,
}

/// Bytes of the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Slot {
    /// From the arena's start.
    pub offset: u64,
    /// How many.
    pub size: u64,
}

/// A tensor that lies inside another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct View {
    /// The node in whose tensor it lies.
    pub root: usize,
    /// Where its first byte is in there.
    pub byte_offset: u64,
}

/// What the plan has to know of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanNode {
    /// Name of its tensor in the graph that was read.
    pub name: String,
    /// Nodes that it reads.
    pub operands: Vec<usize>,
    /// Bytes of its tensor.
    pub bytes: u64,
    /// Whether it is an input, a parameter or a constant.
    pub leaf: bool,
    /// Whether it is an output of the model.
    pub output: bool,
}

/// The plan as the file has it. What is not looked at (phases, the manifest, symbols) follows from the graph.
#[derive(Deserialize)]
pub(super) struct Buffers {
    arena_size: u64,
    assignments: BTreeMap<usize, Slot>,
    schedule: Vec<usize>,
    #[serde(default)]
    view_aliases: BTreeMap<usize, View>,
    #[serde(default = "usual_alignment")]
    alignment: u64,
}

fn usual_alignment() -> u64 {
    64
}

impl Plan {
    /// The plan of this graph, checked; `names` are those of the nodes' tensors.
    pub(super) fn new(inner: &Inner, names: Vec<String>, buffers: Buffers) -> Result<Plan, Errors> {
        let Buffers { arena_size, assignments, schedule, view_aliases, alignment } = buffers;
        let mut nodes = vec![];
        for (index, (node, name)) in inner.nodes.iter().zip(names).enumerate() {
            let mut bytes = dtype(&node.shape.dtype)?.bytes() as u64;
            for extent in &node.shape.dims {
                let Extent::Static(n) = extent else {
                    let kind = ErrorKind::unsupported("a plan with symbolic dimensions");
                    return Err(kind.help("leave out --plan keep: it is then planned anew").into());
                };
                bytes = bytes.saturating_mul(*n as u64);
            }
            nodes.push(PlanNode {
                name,
                operands: node.inputs.clone(),
                bytes,
                leaf: match &node.op {
                    Op::Constant(_) => true,
                    Op::Other(op, _) => op == "Input" || op == "Param",
                },
                output: inner.outputs.contains(&index),
            });
        }
        let slots = assignments;
        let plan = Plan { arena_size, alignment, slots, views: view_aliases, schedule, nodes };
        let errors = plan.errors();
        if errors.is_empty() { Ok(plan) } else { Err(Errors(errors)) }
    }

    /// What is wrong with the plan. What depends on a thing that is wrong is not looked at.
    fn errors(&self) -> Vec<Error> {
        let mut errors = vec![];
        let mut wrong = |message: String| {
            errors.push(Error::from(ErrorKind::wrong(format!("plan: {message}"))))
        };
        let known = |node: usize| node < self.nodes.len();
        let ids =
            self.slots.keys().chain(self.views.keys()).chain(self.views.values().map(|v| &v.root));
        for id in ids.chain(&self.schedule) {
            if !known(*id) {
                wrong(format!("there is no node {id}"));
                return errors;
            }
        }
        if !self.alignment.is_power_of_two() {
            wrong(format!("the alignment is {}, not a power of two", self.alignment));
            return errors;
        }
        for (&id, slot) in &self.slots {
            self.slot(id, *slot).unwrap_or_else(&mut wrong);
        }
        let roots: Vec<Result<(usize, u64), String>> =
            (0..self.nodes.len()).map(|id| self.root(id)).collect();
        for (id, root) in roots.iter().enumerate() {
            root.clone().and_then(|root| self.view(id, root)).unwrap_or_else(&mut wrong);
        }
        let steps = self.steps().unwrap_or_else(|messages| {
            messages.into_iter().for_each(&mut wrong);
            vec![]
        });
        if errors.is_empty() {
            let roots: Vec<usize> =
                roots.into_iter().enumerate().map(|(id, r)| r.map_or(id, |r| r.0)).collect();
            let overlaps = self.overlaps(&steps, &roots);
            errors.extend(
                overlaps.into_iter().map(|m| Error::from(ErrorKind::wrong(format!("plan: {m}")))),
            );
        }
        errors
    }

    fn named(&self, id: usize) -> String {
        format!("node {id} \"{}\"", self.nodes[id].name)
    }

    fn slot(&self, id: usize, Slot { offset, size }: Slot) -> Result<(), String> {
        let (named, arena, alignment) = (self.named(id), self.arena_size, self.alignment);
        if offset % alignment != 0 && !self.views.contains_key(&id) {
            return Err(format!("{named} is at {offset}, which is not aligned to {alignment}"));
        }
        if offset.checked_add(size).is_none_or(|end| end > arena) {
            return Err(format!("{named} has {size} bytes at {offset}, and the arena has {arena}"));
        }
        let bytes = self.nodes[id].bytes;
        if size < bytes {
            return Err(format!("{named} has {bytes} bytes, and a slot of {size}"));
        }
        Ok(())
    }

    /// The node whose slot the tensor lies in, and where it starts there.
    fn root(&self, id: usize) -> Result<(usize, u64), String> {
        let (mut root, mut start) = (id, 0u64);
        for _ in 0..=self.views.len() {
            let Some(view) = self.views.get(&root) else { return Ok((root, start)) };
            start = start.saturating_add(view.byte_offset);
            root = view.root;
        }
        Err(format!("{} is a view of itself", self.named(id)))
    }

    fn view(&self, id: usize, (root, start): (usize, u64)) -> Result<(), String> {
        let bytes = self.nodes[id].bytes;
        let named = self.named(id);
        let Some(slot) = self.slots.get(&root) else {
            return if bytes == 0 { Ok(()) } else { Err(format!("{named} has no slot")) };
        };
        if root == id {
            return Ok(());
        }
        let (limit, inside) = (self.nodes[root].bytes, self.named(root));
        if start.checked_add(bytes).is_none_or(|end| end > limit) {
            return Err(format!(
                "{named} has {bytes} bytes at {start} of {inside}, which has {limit}"
            ));
        }
        match self.slots.get(&id) {
            Some(own) if own.offset != slot.offset.saturating_add(start) => {
                let (own, expected) = (own.offset, slot.offset.saturating_add(start));
                Err(format!("{named} is at {own}, and as a view of {inside} must be at {expected}"))
            }
            _ => Ok(()),
        }
    }

    /// The step at which each node runs.
    fn steps(&self) -> Result<Vec<usize>, Vec<String>> {
        let mut steps: Vec<Option<usize>> = vec![None; self.nodes.len()];
        let mut wrong = vec![];
        for (step, &id) in self.schedule.iter().enumerate() {
            for &operand in &self.nodes[id].operands {
                if steps[operand].is_none() && !self.nodes[operand].leaf {
                    let (id, operand) = (self.named(id), self.named(operand));
                    wrong.push(format!("{id} runs before its operand, {operand}"));
                }
            }
            if steps[id].replace(step).is_some() {
                wrong.push(format!("{} runs twice", self.named(id)));
            }
        }
        for (id, node) in self.nodes.iter().enumerate() {
            if steps[id].is_none() && !node.leaf {
                wrong.push(format!("{} is not in the schedule", self.named(id)));
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(steps.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Pairs of slots that share bytes at a step at which both are alive: the first for each slot.
    fn overlaps(&self, steps: &[usize], roots: &[usize]) -> Vec<String> {
        let end = self.schedule.len();
        // First and last step of every root.
        let mut lives: Vec<(usize, usize)> = steps.iter().map(|&step| (step, step)).collect();
        for (id, node) in self.nodes.iter().enumerate() {
            let root = roots[id];
            if self.nodes[root].leaf {
                lives[root] = (0, end);
            }
            if node.output {
                lives[root].1 = end;
            }
            for &operand in &node.operands {
                let last = &mut lives[roots[operand]].1;
                *last = (*last).max(steps[id]);
            }
        }
        // Slots come and go step by step; those that are there are kept by offset and never overlap, so
        // that a new one needs to be compared with its neighbours only.
        let mut events: Vec<(usize, bool, usize)> = vec![];
        for (&id, slot) in &self.slots {
            if roots[id] == id && slot.size > 0 {
                events.extend([(lives[id].0, true, id), (lives[id].1 + 1, false, id)]);
            }
        }
        // At a step, those that end before it leave first.
        events.sort_unstable();
        let mut alive: BTreeMap<u64, usize> = BTreeMap::new();
        let mut overlaps = vec![];
        for (_, starts, id) in events {
            let Slot { offset, size } = self.slots[&id];
            if !starts {
                if alive.get(&offset) == Some(&id) {
                    alive.remove(&offset);
                }
                continue;
            }
            let below = alive.range(..offset + size).next_back();
            let other = below.map(|(_, &other)| other);
            match other.filter(|o| self.slots[o].offset + self.slots[o].size > offset) {
                Some(other) => {
                    let at = |id: usize| {
                        let Slot { offset, size } = self.slots[&id];
                        format!("{} ({offset}..{})", self.named(id), offset + size)
                    };
                    overlaps.push(format!(
                        "{} and {} overlap and are alive at once",
                        at(other),
                        at(id)
                    ));
                }
                None => _ = alive.insert(offset, id),
            }
        }
        overlaps
    }
}
