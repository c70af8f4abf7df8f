//! What is changed about a graph so that its plan is smaller.

use super::cost::ENOUGH_SHARES;
use crate::mir::winograd::{Side, Winograd, Working};
use crate::mir::{Graph, Node, Op, Value};
use crate::passes::bands::{Again, Cut, Sites, split};
use cranelift_entity::SecondaryMap;
use std::collections::{BTreeMap, BTreeSet};

/// One change, in the values of the model's graph.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A chain of nodes is computed in bands.
    Cut(Cut),
    /// A node has at most so much working memory.
    Working(Value, Working),
    /// Nodes are computed again where they are read late, each time they are.
    Again(Vec<Again>),
}

/// All changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Changes {
    pub(super) cuts: Vec<Cut>,
    pub(super) working: BTreeMap<Value, Working>,
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
                Change::Working(value, most) => {
                    changes.working.insert(*value, *most);
                }
            }
        }
        changes
    }

    /// All of them, one by one; and little working memory of what is in bands.
    pub(super) fn all(&self, graph: &Graph) -> Vec<Change> {
        let cuts = self.cuts.iter().cloned().map(Change::Cut);
        let again = self.again.iter().map(|again| Change::Again(vec![again.clone()]));
        let inside = self.cuts.iter().flat_map(|cut| cut.region.nodes.keys());
        let inside = inside.filter(|&&value| is_filtered(&graph.nodes[value].op));
        let limited = self.working.keys().chain(inside).collect::<BTreeSet<_>>().into_iter();
        let working = limited.map(|&value| Change::Working(value, self.most(value, true)));
        cuts.chain(again).chain(working).collect()
    }

    /// These without one of them.
    pub(super) fn without(&self, change: &Change) -> Changes {
        let mut changes = self.clone();
        match change {
            Change::Cut(cut) => changes.cuts.retain(|other| other != cut),
            Change::Again(all) => changes.again.retain(|other| !all.contains(other)),
            Change::Working(value, _) => {
                changes.working.insert(*value, Working::ALL);
            }
        }
        changes
    }

    /// How many nodes are computed once more.
    pub(super) fn repeated(&self, graph: &Graph) -> usize {
        let all = self.again.iter().flat_map(|again| &again.nodes);
        all.filter(|&&value| !graph.nodes[value].op.is_view()).count()
    }

    /// How much working memory a node has at most. In bands it takes little where nothing else is said, since that is
    /// what they are for.
    pub(super) fn most(&self, value: Value, in_bands: bool) -> Working {
        let shares = if in_bands { ENOUGH_SHARES } else { usize::MAX };
        self.working.get(&value).copied().unwrap_or(Working { shares, ..Working::ALL })
    }

    /// How many nodes have less working memory than they would take.
    pub(super) fn lowered(&self, graph: &Graph) -> usize {
        let sites = Sites::new(&self.cuts);
        let is_lower = |&(value, node): &(Value, &Node)| {
            let mut limited = node.clone();
            limit(&mut limited, self.most(value, sites.is_cut(value)));
            limited != *node
        };
        graph.nodes.iter().filter(is_lower).count()
    }

    /// The changed graph, and for each of its nodes the one that it comes from.
    pub(super) fn apply(&self, graph: &Graph) -> (Graph, SecondaryMap<Value, Option<Value>>) {
        let (mut graph, from) = split(graph, &self.cuts, &self.again);
        let sites = Sites::new(&self.cuts);
        for (new, node) in &mut graph.nodes {
            if let Some(old) = from[new] {
                limit(node, self.most(old, sites.is_cut(old)));
            }
        }
        (graph, from)
    }
}

/// Whether it can be chosen how much working memory a node has.
fn is_filtered(op: &Op) -> bool {
    matches!(op, Op::Winograd(Winograd { side: Side::Both { .. }, .. }))
}

/// Gives a node no more working memory than that, if it can be chosen.
pub(super) fn limit(node: &mut Node, most: Working) {
    if let Op::Winograd(winograd) = &mut node.op {
        winograd.limit(most, &node.ty.dims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interp;
    use crate::lir::{Options, lower};
    use crate::mir::winograd::Filter;
    use crate::mir::{Builder, Output, Role, eval};
    use crate::tensor::Tensor;
    use crate::types::{DType, Type};

    #[test]
    fn fewer_shares_and_tiles_have_less_working_memory() {
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
        let limits = [(8, 6), (3, 6), (3, 4), (1, 3), (1, 2), (1, 1)];
        let sizes = limits.map(|(shares, tiles)| {
            let most = Working { shares, tiles };
            let changes = Changes::default().with(&[Change::Working(filtered, most)]);
            let (changed, _) = changes.apply(&graph);
            let module = lower(&changed, Options::default()).expect("it is small");
            let found = interp::arena::run(&module, &input, &[]).expect("the plan holds");
            for (a, b) in expected.iter().zip(found[0].f64s()) {
                assert!((a - b).abs() <= 1e-3 * a.abs().max(1.0), "{a} {b}");
            }
            module.plan.arena_size
        });
        assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
    }
}
