//! What a smaller arena would cost, for advice: no plan, and few turns.

use super::*;
use crate::mir::Node;
use std::collections::BTreeSet;

/// So many turns.
const OFFERED: usize = 4;

/// Nobody is advised what takes so many times as long in addition.
const DEAR: f64 = 0.5;

/// What a smaller arena would cost.
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    /// Bytes of the arena, if no gaps are left between its slots.
    pub bytes: u64,
    /// Whether chains of steps are computed in bands for it.
    pub bands: bool,
    /// The model's nodes that are computed again for it.
    pub again: Vec<String>,
    /// Estimated time, as a multiple of that now.
    pub time: f64,
}

/// The first arena of at most `goal` bytes that a few turns come to from what was fitted, or else the smallest one; `None` where
/// nothing can be lowered.
///
/// # Errors
///
/// As [`lir::lower`].
pub fn offer(
    fitted: &Fitted,
    options: &lir::Options,
    machine: &Machine,
    goal: u64,
) -> Result<Option<Offer>, ErrorKind> {
    let graph = fitted.graph.reordered(&lir::order(&fitted.graph, options)?);
    let known = Known::default();
    let search = Search::new(&graph, options, machine, &known);
    let mut now = search.draft(Changes::default())?;
    let mut tried = vec![];
    let most = DEAR * search.cycles(&graph, Threads::Any);
    let aim = Aim { goal, most, free: false, bold: true, effort: Effort::LEAST };
    for _ in 0..OFFERED {
        if now.module.plan.bound <= goal {
            break;
        }
        match search.turn(&now, aim, &mut tried)? {
            Some(next) => now = next,
            None => break,
        }
    }
    let bytes = now.module.plan.bound;
    let time =
        search.cycles(&now.graph, Threads::One) / search.cycles(&graph, Threads::One).max(1.0);
    let Changes { cuts, again, .. } = &now.changes;
    let nodes: BTreeSet<Value> = again.iter().flat_map(|again| again.nodes.clone()).collect();
    let nodes = nodes.into_iter().map(|value| &graph.nodes[value]);
    let steps = nodes.filter(|node| !node.op.is_view());
    let name = |node: &Node| Some(graph.origins[*node.origins.last()?].clone());
    let mut again: Vec<String> = steps.filter_map(name).collect();
    again.dedup();
    let bands = !cuts.is_empty();
    let lower = bytes < fitted.module.plan.arena_size;
    Ok(lower.then_some(Offer { bytes, bands, again, time }))
}
