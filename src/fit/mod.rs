//! Plans that fit into a given arena: what is there whole at the peak is computed in bands of rows
//! ([`bands`]), until the plan fits.
//!
//! The state is a list of cuts of the model's graph. Each turn lowers the graph with its cuts, looks which
//! step needs most, and tries regions around it ([`candidates`]): of those that are expected to fit the
//! one that costs least time is taken, and where none fits the one that needs least memory. What is
//! expected is then seen in the next turn. All work is counted, so the outcome does not depend on the
//! machine's speed.

mod candidates;
mod cost;

use crate::error::ErrorKind;
use crate::lir::liveness::{Range, ranges};
use crate::lir::storage::Traces;
use crate::lir::{self, Buffer, Module, Step};
use crate::machine::Machine;
use crate::mir::{Graph, Value};
use crate::passes::bands::{Cut, split};
use candidates::Candidate;
use cranelift_entity::{EntityRef, SecondaryMap};

/// So many turns at most.
const TURNS: usize = 64;

/// What it cost to fit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Price {
    /// Bytes of the arena before.
    pub plain: u64,
    /// Chains of nodes that are computed in bands.
    pub regions: usize,
    /// Steps before and after.
    pub steps: [usize; 2],
    /// Estimated time, as a multiple of that before.
    pub time: f64,
}

/// A graph whose plan fits.
#[derive(Debug)]
pub struct Fitted {
    /// The graph with its bands.
    pub graph: Graph,
    /// Its steps and plan.
    pub module: Module,
    /// What it cost; `None` where the plain plan fits.
    pub price: Option<Price>,
}

/// A lowered graph with its cuts.
struct Turn {
    cuts: Vec<Cut>,
    graph: Graph,
    /// The node of the model's graph that each node comes from.
    from: SecondaryMap<Value, Option<Value>>,
    module: Module,
    traces: Traces,
}

impl Turn {
    fn new(graph: &Graph, cuts: Vec<Cut>, options: &lir::Options) -> Result<Turn, ErrorKind> {
        let (graph, from) = split(graph, &cuts);
        let (module, traces) = lir::lower_traced(&graph, options.clone())?;
        Ok(Turn { cuts, graph, from, module, traces })
    }
}

/// The time at which most is alive.
struct Peak {
    /// The step that runs then, if one does.
    step: Option<Step>,
    /// What is alive, with the bytes of each slot.
    alive: Vec<(Buffer, u64)>,
}

impl Peak {
    fn new(module: &Module) -> Peak {
        let align = module.plan.options.alignment.max(1);
        let ranges = ranges(module);
        let size = |buffer: Buffer| module.buffers[buffer].bytes.next_multiple_of(align);
        let all = module.buffers.keys().filter_map(|b| Some((b, ranges[b]?, size(b))));
        let all: Vec<(Buffer, Range, u64)> = all.collect();
        let mut change = vec![0i64; module.steps.len() + 3];
        for (_, range, bytes) in &all {
            change[range.first as usize] += *bytes as i64;
            change[range.last as usize + 1] -= *bytes as i64;
        }
        let sum = |now: &mut i64, change: &i64| {
            *now += change;
            Some(*now)
        };
        let live: Vec<i64> = change.iter().scan(0, sum).collect();
        let most = live.iter().copied().max().unwrap_or(0);
        // A step says more than the times before and behind all of them.
        let steps = 1..=module.steps.len();
        let time = steps.into_iter().chain([0]).find(|&t| live[t] == most).unwrap_or(0);
        let at = |range: &Range| (range.first..=range.last).contains(&(time as u32));
        let alive = all.iter().filter(|(_, range, _)| at(range));
        Peak {
            step: time.checked_sub(1).map(Step::new),
            alive: alive.map(|&(buffer, _, bytes)| (buffer, bytes)).collect(),
        }
    }
}

/// Lowers a graph so that its arena has at most `limit` bytes ([`lir::Plan::arena_size`]).
///
/// # Errors
///
/// An arena that cannot be had, with the lowest that was reached and what holds it; else as [`lir::lower`].
pub fn fit(
    graph: Graph,
    options: &lir::Options,
    machine: &Machine,
    limit: u64,
) -> Result<Fitted, ErrorKind> {
    let plain = Turn::new(&graph, vec![], options)?;
    let (plain_size, plain_steps) = (plain.module.plan.arena_size, plain.module.steps.len());
    let mut now = plain;
    let mut tried: Vec<Cut> = vec![];
    for _ in 0..TURNS {
        if now.module.plan.arena_size <= limit {
            break;
        }
        // Gaps between slots are paid for by what is alive.
        let gaps = now.module.plan.arena_size.saturating_sub(now.module.plan.bound);
        let goal = limit.saturating_sub(gaps);
        let peak = Peak::new(&now.module);
        let Some(Candidate { cut, .. }) =
            candidates::best(&graph, &now, &peak, machine, goal, &tried)
        else {
            break;
        };
        tried.push(cut.clone());
        let inside = |other: &&Cut| !candidates::meets(other, &cut);
        let cuts = now.cuts.iter().filter(inside).cloned().chain([cut.clone()]).collect();
        let next = Turn::new(&graph, cuts, options)?;
        if next.module.plan.bound <= now.module.plan.bound {
            now = next;
        }
    }
    let Turn { cuts, graph: new, module, .. } = now;
    if module.plan.arena_size > limit {
        return Err(refused(&module, limit));
    }
    let price = (!cuts.is_empty()).then(|| Price {
        plain: plain_size,
        regions: cuts.len(),
        steps: [plain_steps, module.steps.len()],
        time: cost::cycles(&new, machine) / cost::cycles(&graph, machine).max(1.0),
    });
    Ok(Fitted { graph: new, module, price })
}

/// The error that a module does not fit: what was reached, and what holds it.
pub fn refused(module: &Module, limit: u64) -> ErrorKind {
    let peak = Peak::new(module);
    let mut alive = peak.alive;
    alive.sort_by_key(|&(buffer, bytes)| (std::cmp::Reverse(bytes), buffer));
    let held = alive.iter().filter(|(_, bytes)| *bytes > 0).take(4);
    let held: Vec<String> = held
        .map(|&(buffer, bytes)| format!("\"{}\" ({bytes} bytes)", module.buffers[buffer].name))
        .collect();
    let step = peak.step.and_then(|step| module.steps.get(step)).map_or_else(
        || "before the first step".to_owned(),
        |info| format!("at {} for {}", info.op.name(), info.origins.join(" + ")),
    );
    let lowest = module.plan.arena_size + lir::SLACK_BYTES;
    ErrorKind::limit(format!(
        "no plan fits into {} bytes; the lowest that was found has {lowest}: {step} it is held by {}",
        limit + lir::SLACK_BYTES,
        held.join(", "),
    ))
    .help(format!("allow {lowest} bytes or more"))
}

#[cfg(test)]
mod tests;
