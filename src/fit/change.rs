//! What is changed about a graph so that its plan is smaller.

use crate::mir::winograd::{Side, Winograd};
use crate::mir::{Graph, Op, Value};
use crate::passes::bands::{Again, Cut, split};
use cranelift_entity::SecondaryMap;
use std::collections::BTreeMap;

/// One change, in the values of the model's graph.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A chain of nodes is computed in bands.
    Cut(Cut),
    /// A node has working memory for so many shares of its work at most.
    Shares(Value, usize),
    /// Nodes are computed again where they are read late, each time they are.
    Again(Vec<Again>),
}

/// All changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Changes {
    pub(super) cuts: Vec<Cut>,
    pub(super) shares: BTreeMap<Value, usize>,
    /// No two before the same reader; none of their nodes is in a cut.
    pub(super) again: Vec<Again>,
}

/// Whether two cuts have nodes in common.
fn meets(a: &Cut, b: &Cut) -> bool {
    a.region.nodes.keys().any(|value| b.region.nodes.contains_key(value))
}

impl Changes {
    /// These and some more, each in the place of those that it contradicts.
    pub(super) fn with(&self, new: &[Change]) -> Changes {
        let mut changes = self.clone();
        for change in new {
            match change {
                Change::Cut(cut) => {
                    changes.cuts.retain(|old| !meets(old, cut));
                    let inside = |value: &Value| cut.region.nodes.contains_key(value);
                    changes.again.retain(|again| !again.nodes.iter().any(inside));
                    changes.cuts.push(cut.clone());
                }
                Change::Again(all) => {
                    for again in all {
                        let inside = |value: &Value| again.nodes.contains(value);
                        changes.cuts.retain(|cut| !cut.region.nodes.keys().any(inside));
                        match changes.again.iter_mut().find(|old| old.reader == again.reader) {
                            Some(old) => old.nodes.extend(&again.nodes),
                            None => changes.again.push(again.clone()),
                        }
                    }
                }
                Change::Shares(value, count) => {
                    changes.shares.insert(*value, *count);
                }
            }
        }
        changes
    }

    /// How many nodes are computed once more.
    pub(super) fn repeated(&self, graph: &Graph) -> usize {
        let all = self.again.iter().flat_map(|again| &again.nodes);
        all.filter(|&&value| !graph.nodes[value].op.is_view()).count()
    }

    /// The changed graph, and for each of its nodes the one that it comes from.
    pub(super) fn apply(&self, graph: &Graph) -> (Graph, SecondaryMap<Value, Option<Value>>) {
        let (mut graph, from) = split(graph, &self.cuts, &self.again);
        for (new, node) in &mut graph.nodes {
            let count = from[new].and_then(|old| self.shares.get(&old));
            if let (Some(&count), Some(shares)) = (count, shares(&mut node.op)) {
                *shares = count;
            }
        }
        (graph, from)
    }
}

/// Whether it can be chosen how many shares of a node's work have working memory.
pub(super) fn has_shares(op: &Op) -> bool {
    matches!(op, Op::Winograd(Winograd { side: Side::Both { .. }, .. }))
}

/// Of how many shares a node has working memory at most, if that can be chosen.
fn shares(op: &mut Op) -> Option<&mut usize> {
    let Op::Winograd(Winograd { side: Side::Both { shares, .. }, .. }) = op else { return None };
    Some(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interp;
    use crate::lir::{Options, lower};
    use crate::mir::winograd::Filter;
    use crate::mir::{Builder, Node, Output, Role, eval};
    use crate::tensor::Tensor;
    use crate::types::{DType, Type};

    #[test]
    fn fewer_shares_have_less_working_memory() {
        let mut b = Builder::new("filtered");
        let x = b.input("x", Role::Input, Type::new(DType::F32, [1, 34, 30, 32]));
        let w = b.constant(Tensor::noise(&[16, 2, 32, 16], 3));
        let mut graph = b.finish(vec![]);
        let (before, block) = ([0, 0], [2, 3]);
        let side = Side::Both { before, parts: 1, block, shares: 8, width: 16, epilogue: None };
        let axes = [Filter { tile: 2, taps: 3, stride: 1 }; 2];
        let op = Op::Winograd(Winograd { axes, side });
        let ty = Type::new(DType::F32, [1, 32, 28, 32]);
        let filtered = graph.nodes.push(Node { op, operands: vec![x, w], ty, origins: vec![] });
        graph.outputs.push(Output { name: "y".into(), value: filtered });
        let input = [Tensor::noise(&[1, 34, 30, 32], 5)];
        let expected = eval::graph(&graph, &input)[0].f64s();
        let sizes = [8, 3, 1].map(|count| {
            let changes = Changes::default().with(&[Change::Shares(filtered, count)]);
            let (changed, _) = changes.apply(&graph);
            let module = lower(&changed, Options::default()).expect("it is small");
            let found = interp::arena::run(&module, &input, &[]).expect("the plan holds");
            for (a, b) in expected.iter().zip(found[0].f64s()) {
                assert!((a - b).abs() <= 1e-3 * a.abs().max(1.0), "{a} {b}");
            }
            module.plan.arena_size
        });
        assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
    }
}
