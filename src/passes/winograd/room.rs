//! Memory that a graph needs without what is added to it.

use crate::mir::{Graph, Op, Value};
use std::collections::BTreeSet;

/// How much memory the values of a graph need in its own order, roughly: every value that has memory of its
/// own, from where it is computed to its last use. Others lie in their operands' (views, and what
/// has a border), or their operands in theirs (concatenations).
pub(super) struct Room {
    /// Bytes that are alive at each node.
    alive: Vec<u64>,
    /// The most of them.
    pub(super) most: u64,
}

impl Room {
    pub(super) fn new(graph: &Graph) -> Room {
        let count = graph.nodes.len();
        // The values whose memory each one has.
        let mut roots: Vec<BTreeSet<usize>> = Vec::with_capacity(count);
        let mut last: Vec<usize> = (0..count).collect();
        let shares = |op: &Op| op.is_view() || matches!(op, Op::Pad { .. } | Op::Concat { .. });
        for (at, node) in graph.nodes.values().enumerate() {
            let operands = node.operands.iter().map(|v| &roots[v.as_u32() as usize]);
            let operands: BTreeSet<usize> = operands.flatten().copied().collect();
            operands.iter().for_each(|&root| last[root] = at);
            roots.push(if shares(&node.op) { operands } else { BTreeSet::from([at]) });
        }
        for output in &graph.outputs {
            roots[output.value.as_u32() as usize].iter().for_each(|&root| last[root] = count);
        }
        let in_place = |at: usize| {
            let node = &graph.nodes[Value::from_u32(at as u32)];
            let operands = match &node.op {
                Op::Map(_) | Op::Rows(_) => &node.operands[..],
                Op::Contract(_) | Op::Conv(_) => node.operands.get(2..).unwrap_or_default(),
                _ => &[],
            };
            operands.iter().any(|&v| {
                let at_once = roots[v.as_u32() as usize].iter().all(|&root| last[root] == at);
                let temporary = !matches!(graph.nodes[v].op, Op::Input { .. } | Op::Constant(_));
                at_once && temporary && graph.ty(v).bytes() == node.ty.bytes()
            })
        };
        let mut change = vec![0i64; count + 2];
        for (at, node) in graph.nodes.values().enumerate() {
            let (bytes, from, to) = match &node.op {
                Op::Constant(_) => continue,
                Op::Input { .. } => (node.ty.bytes(), 0, count),
                op if shares(op) => continue,
                // It may lie where an operand does that nobody needs any more.
                _ if in_place(at) => (node.ty.bytes(), (at + 1).min(last[at]), last[at]),
                _ => (node.ty.bytes(), at, last[at]),
            };
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX >> 16);
            change[from] = change[from].saturating_add(bytes);
            change[to + 1] = change[to + 1].saturating_sub(bytes);
        }
        let mut now = 0i64;
        let sums = change.iter().map(|c| {
            now = now.saturating_add(*c);
            now.max(0) as u64
        });
        let alive: Vec<u64> = sums.collect();
        let most = alive.iter().copied().max().unwrap_or(0);
        Room { alive, most }
    }

    /// What may be used beside the operands and the result of a node without needing more than another
    /// node does.
    pub(super) fn beside(&self, value: Value) -> u64 {
        self.most - self.alive[value.as_u32() as usize]
    }

    /// So many bytes are used beside a node, so that nodes after it may need as much.
    pub(super) fn take(&mut self, value: Value, bytes: u64) {
        self.most = self.most.max(self.alive[value.as_u32() as usize].saturating_add(bytes));
    }
}
