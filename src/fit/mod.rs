//! Plans that fit into a given arena: what is there whole at the peak is computed in bands of rows
//! ([`bands`]), what only waits there for a later step is computed again just before it ([`again`]), and steps
//! are given less working memory, until the plan fits.
//!
//! The state is a list of changes of the model's graph. Each turn lowers the graph with its changes, looks which
//! step needs most, and tries more of them around it ([`candidates`]): of those that are expected to fit the
//! one that costs least time is taken, and where none fits the one that needs least memory. What is
//! expected is then seen in the next turn. All work is counted, so the outcome does not depend on the
//! machine's speed.

mod again;
mod candidates;
mod change;
mod cost;
mod known;
mod offer;
mod sketch;

pub use offer::{Offer, offer};

use crate::error::ErrorKind;
use crate::lir::liveness::Lives;
use crate::lir::storage::Traces;
use crate::lir::{self, Module};
use crate::machine::Machine;
use crate::mir::{Graph, Value};
use candidates::{Reach, Scene};
use change::{Change, Changes};
use cost::Threads;
use cranelift_entity::SecondaryMap;
use known::Known;
use std::cell::Cell;
use std::cmp::{self, Ordering};
use std::panic::resume_unwind;
use std::sync::Arc;

/// So many turns at most.
const TURNS: usize = 32;

/// The goals on the way to a limit: below it by one of so many parts, or by none.
const BELOW: [u64; 4] = [0, 256, 64, 16];

/// What takes so many times as long at most is cheap enough not to look for a cheaper one.
const CHEAP: f64 = 1.3;

/// So many where it must cost no time.
const FREE_TURNS: usize = 10;

/// Each turn that must cost no time is to lower what is needed by one of so many parts.
const FREE_PARTS: [u64; 2] = [8, 32];

/// Bands that nobody asked for make the arena lower by at least one of so many parts.
const WORTH: u64 = 32;

/// To store a node takes as long as to write so many.
const DRAFTED: usize = 4;

/// What is no time: a part of what two threads take. One takes less.
const FREE: f64 = 0.02;

/// Where chains of steps are computed in bands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bands {
    /// Where an arena is asked for that is not to be had otherwise.
    Off,
    /// Also where the arena is smaller for it and the run takes no longer.
    #[default]
    Auto,
}

/// What it cost to fit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Price {
    /// Bytes of the arena before.
    pub plain: u64,
    /// Chains of nodes that are computed in bands.
    pub regions: usize,
    /// Steps that have less working memory than they would take: fewer shares of it, or smaller blocks.
    pub working: usize,
    /// Nodes that are computed again where they are read late, each as often as it is.
    pub again: usize,
    /// Steps that are written over operands which die, so that one thread computes each.
    pub over: usize,
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

/// A graph with changes.
struct Changed {
    changes: Changes,
    graph: Graph,
    from: SecondaryMap<Value, Option<Value>>,
}

/// A lowered graph with its changes.
struct Turn {
    changes: Changes,
    graph: Graph,
    /// The node of the model's graph that each node comes from.
    from: SecondaryMap<Value, Option<Value>>,
    module: Module,
    traces: Traces,
}

/// Lays results over operands that die, where a module's arena is smaller for it ([`lir::over`]): those that no threads
/// share, or all where that is asked for.
pub type Over<'a> = dyn Fn(Module, bool) -> Result<Module, ErrorKind> + 'a;

/// Lowers a graph, with `bands` where they are asked for, and so that its arena has at most `limit` bytes
/// ([`lir::Plan::arena_size`]).
///
/// # Errors
///
/// An arena that cannot be had, with the lowest that was reached and what holds it; else as [`lir::lower`].
pub fn fit(
    graph: Graph,
    options: &lir::Options,
    machine: &Machine,
    bands: Bands,
    limit: Option<u64>,
    over: &Over<'_>,
) -> Result<Fitted, ErrorKind> {
    let alone = lir::lower(&graph, options.clone())?;
    let before = alone.steps.len();
    let plain = over(alone, false)?;
    let limit = limit.unwrap_or(u64::MAX);
    if bands == Bands::Off && plain.plan.arena_size <= limit {
        return Ok(Fitted { graph, module: plain, price: None });
    }
    let ordered = graph.reordered(&lir::order(&graph, options)?);
    let known = Known::default();
    let search = Search { over: Some(over), ..Search::new(&ordered, options, machine, &known) };
    let mut now = search.draft(Changes::default())?;
    if bands == Bands::Auto {
        now = search.free(&now)?;
    }
    let free = match now.changes == Changes::default() {
        true => None,
        false => Some(over(lir::lower(&now.graph, options.clone())?, false)?),
    };
    let fits = |module: &Module| module.plan.arena_size <= limit;
    let worth = |module: &Module| {
        let size = plain.plan.arena_size;
        module.plan.arena_size <= size - size / WORTH
    };
    let (module, now) = match free.filter(|module| worth(module)) {
        Some(module) if fits(&module) => (module, now),
        None if fits(&plain) => return Ok(Fitted { graph, module: plain, price: None }),
        free => {
            // Where one thread is enough, this costs nothing.
            let all = over(plain.clone(), true)?;
            let free = free.map(|module| over(module, true)).transpose()?;
            match free {
                _ if fits(&all) => (all, search.draft(Changes::default())?),
                Some(module) if fits(&module) => (module, now),
                free => {
                    let lower = |a, b| cmp::min_by_key(a, b, |m: &Module| m.plan.arena_size);
                    search.fit(&now, &free.into_iter().fold(all, lower), limit)?
                }
            }
        }
    };
    let price = Price {
        plain: plain.plan.arena_size,
        regions: now.changes.cuts.len(),
        working: now.changes.lowered(&ordered),
        again: now.changes.repeated(&ordered),
        over: module.steps.values().filter(|info| info.is_over()).count(),
        steps: [before, module.steps.len()],
        time: search.cycles(&now.graph, Threads::One)
            / search.cycles(&ordered, Threads::One).max(1.0),
    };
    Ok(Fitted { graph: now.graph.clone(), module, price: Some(price) })
}

/// What a turn is for.
#[derive(Clone, Copy, Debug)]
struct Aim {
    /// As many bytes as should be alive at most.
    goal: u64,
    /// Cycles that it may cost.
    most: f64,
    /// Nobody asked for it: it may cost no one any time.
    free: bool,
    /// Also nodes in bands that may lie where an operand of theirs does, and smaller blocks.
    bold: bool,
    effort: Effort,
}

/// How far a turn looks.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Times at which a cut is looked for.
    looks: usize,
    /// Changes that are tried in all.
    tried: usize,
    /// Nodes that are written in all, of graphs that are tried.
    written: usize,
    /// How far is looked for regions.
    reach: &'static Reach,
}

impl Effort {
    /// For an arena that is asked for.
    const FULL: Effort = Effort { looks: 24, tried: 200, written: 4_000_000, reach: &Reach::FAR };
    /// For what nobody waits for.
    const SMALL: Effort = Effort { looks: 6, tried: 30, written: 70_000, reach: &Reach::NEAR };
    /// For advice.
    const LEAST: Effort = Effort { written: 40_000, ..Effort::SMALL };
}

impl Aim {
    /// Whose time counts: nobody's may grow, but for an arena that is asked for.
    fn threads(self) -> Threads {
        if self.free { Threads::Two } else { Threads::Any }
    }
}

/// For cuts of a graph.
struct Search<'a> {
    graph: &'a Graph,
    options: &'a lir::Options,
    machine: &'a Machine,
    known: &'a Known,
    /// Nodes that were written so far, of all graphs that were tried.
    written: Cell<usize>,
    /// For plans that are to fit.
    over: Option<&'a Over<'a>>,
}

impl<'a> Search<'a> {
    fn new(
        graph: &'a Graph,
        options: &'a lir::Options,
        machine: &'a Machine,
        known: &'a Known,
    ) -> Search<'a> {
        Search { graph, options, machine, known, written: Cell::new(0), over: None }
    }

    /// The graph with changes in its own order, without places.
    fn draft(&self, changes: Changes) -> Result<Arc<Turn>, ErrorKind> {
        self.store(self.changed(changes))
    }

    fn changed(&self, changes: Changes) -> Changed {
        let (graph, from) = changes.apply(self.graph);
        Changed { changes, graph, from }
    }

    fn store(&self, changed: Changed) -> Result<Arc<Turn>, ErrorKind> {
        self.known.turn(changed, |Changed { changes, graph, from }| {
            let (module, traces) = lir::draft(&graph, self.options)?;
            Ok(Turn { changes, graph, from, module, traces })
        })
    }

    fn cycles(&self, graph: &Graph, threads: Threads) -> f64 {
        cost::cycles(graph, self.machine, threads)
    }

    /// Lowers what is needed as far as that costs no time, timidly and boldly, side by side: either may lead further.
    fn free(&self, plain: &Arc<Turn>) -> Result<Arc<Turn>, ErrorKind> {
        let &Search { graph, options, machine, known, .. } = self;
        let search = |bold| {
            let search = Search::new(graph, options, machine, known);
            search.freely(Arc::clone(plain), bold)
        };
        let (timid, bold) = std::thread::scope(|scope| {
            let bold = scope.spawn(|| search(true));
            (search(false), bold.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        Ok(cmp::min_by_key(timid?, bold?, |turn| turn.module.plan.bound))
    }

    /// Lowers what is needed by a part at each turn, and by smaller ones where that is too much at once.
    fn freely(&self, now: Arc<Turn>, bold: bool) -> Result<Arc<Turn>, ErrorKind> {
        let plain = self.cycles(self.graph, Threads::Two);
        let mut lowest = now;
        for part in FREE_PARTS {
            let mut tried = vec![];
            // Where many times need the same, it takes some turns before less is needed.
            let mut on_the_way: Option<Arc<Turn>> = None;
            for _ in 0..FREE_TURNS {
                let now = on_the_way.as_ref().unwrap_or(&lowest);
                let spent = self.cycles(&now.graph, Threads::Two) - plain;
                let goal = now.module.plan.bound - now.module.plan.bound / part;
                let most = (plain * FREE - spent).max(0.0);
                let aim = Aim { goal, most, free: true, bold, effort: Effort::SMALL };
                let Some(next) = self.turn(now, aim, &mut tried)? else { break };
                match next.module.plan.bound < lowest.module.plan.bound {
                    true => (lowest, on_the_way) = (next, None),
                    false => on_the_way = Some(next),
                }
            }
            lowest = self.needed(lowest)?;
        }
        Ok(lowest)
    }

    /// The same without the changes that are of no use, now that there are others.
    fn needed(&self, mut now: Arc<Turn>) -> Result<Arc<Turn>, ErrorKind> {
        for change in now.changes.all(self.graph) {
            let next = self.changed(now.changes.without(&change));
            self.written.update(|written| written + DRAFTED * next.graph.nodes.len());
            let cycles = |graph: &Graph| self.cycles(graph, Threads::Two);
            if cycles(&next.graph) > cycles(&now.graph) {
                continue;
            }
            let next = self.store(next)?;
            if next.module.plan.bound <= now.module.plan.bound {
                now = next;
            }
        }
        Ok(now)
    }

    /// Lowers what is needed until a plan fits. On the way to each goal other changes are taken, so there are
    /// several; the one that costs least time is taken.
    fn fit(
        &self,
        now: &Arc<Turn>,
        plain: &Module,
        limit: u64,
    ) -> Result<(Module, Arc<Turn>), ErrorKind> {
        let most = CHEAP * self.cycles(self.graph, Threads::One);
        let mut best: Option<(f64, (Module, Arc<Turn>))> = None;
        for part in BELOW {
            let goal = limit - limit.checked_div(part).unwrap_or(0);
            let found = self.towards(goal, Arc::clone(now), limit)?;
            let time = self.cycles(&found.1.graph, Threads::One);
            let fits = found.0.plan.arena_size <= limit;
            if fits && best.as_ref().is_none_or(|(least, _)| time < *least) {
                best = Some((time, found));
            }
            if best.as_ref().is_some_and(|(least, _)| *least <= most) {
                break;
            }
        }
        if let Some((_, found)) = best {
            return Ok(found);
        }
        // Where this one leads does not depend on the limit, so that what the error says can be had.
        let found = self.towards(0, Arc::clone(now), limit)?;
        if found.0.plan.arena_size <= limit {
            return Ok(found);
        }
        let lowest = cmp::min_by_key(&found.0, plain, |module| module.plan.arena_size);
        Err(refused(lowest, limit))
    }

    /// Lowers what is needed to a goal, or as far as that goes; stops where a plan fits.
    fn towards(
        &self,
        mut goal: u64,
        mut now: Arc<Turn>,
        limit: u64,
    ) -> Result<(Module, Arc<Turn>), ErrorKind> {
        let mut tried = vec![];
        self.written.set(0);
        for _ in 0..TURNS {
            if now.module.plan.bound <= goal {
                let module = self.placed(&now)?;
                let plan = &module.plan;
                if plan.arena_size <= limit {
                    return Ok((module, now));
                }
                // Gaps between slots are paid for by what is alive.
                goal = goal.min(plan.bound).saturating_sub(plan.arena_size - limit);
            }
            let aim =
                Aim { goal, most: f64::INFINITY, free: false, bold: true, effort: Effort::FULL };
            match self.turn(&now, aim, &mut tried)? {
                Some(next) => now = next,
                None => break,
            }
        }
        Ok((self.placed(&now)?, now))
    }

    /// With a plan, results over operands wherever that is of use.
    fn placed(&self, now: &Turn) -> Result<Module, ErrorKind> {
        let module = lir::lower(&now.graph, self.options.clone())?;
        match self.over {
            Some(over) => over(module, true),
            None => Ok(module),
        }
    }

    /// Changes what needs most; `None` where nothing is left to be tried.
    fn turn(
        &self,
        now: &Turn,
        aim: Aim,
        tried: &mut Vec<Change>,
    ) -> Result<Option<Arc<Turn>>, ErrorKind> {
        let lives = Lives::new(&now.module);
        let before = self.cycles(&now.graph, aim.threads());
        loop {
            let mut scene = Scene::new(self, now, &lives);
            let mut left = aim.effort.looks;
            for &time in &lives.times {
                let over = self.written.get() > aim.effort.written;
                if left == 0 || over || lives.sums[time] + lir::CONTEXT_BYTES <= aim.goal {
                    break;
                }
                left -= usize::from(scene.look(&lives.at(time), aim, tried));
            }
            let taken = scene.taken;
            if taken.is_empty() || tried.len() > aim.effort.tried {
                return Ok(None);
            }
            tried.extend(taken.iter().cloned());
            // All of them, or if that is no good the first, those of the highest times.
            let mut counts = vec![taken.len(), taken.len().div_ceil(2), 1];
            counts.dedup();
            let mut best: Option<(u64, f64, Arc<Turn>)> = None;
            for count in counts {
                let next = self.changed(now.changes.with(&taken[..count]));
                self.written.update(|written| written + DRAFTED * next.graph.nodes.len());
                let grown = self.cycles(&next.graph, aim.threads()) - before;
                if grown > aim.most {
                    continue;
                }
                let next = self.store(next)?;
                let bound = next.module.plan.bound;
                let lower = |(least, cheapest, _): &(u64, f64, Arc<Turn>)| {
                    (bound, grown).partial_cmp(&(*least, *cheapest)) == Some(Ordering::Less)
                };
                if bound <= now.module.plan.bound && best.as_ref().is_none_or(lower) {
                    best = Some((bound, grown, next));
                    if !aim.free {
                        break;
                    }
                }
            }
            if let Some((.., next)) = best {
                return Ok(Some(next));
            }
        }
    }
}

/// The error that a module does not fit: what was reached, and what holds it.
pub fn refused(module: &Module, limit: u64) -> ErrorKind {
    let lives = Lives::new(module);
    let peak = lives.at(lives.times[0]);
    let mut alive = peak.alive;
    alive.sort_by_key(|&(buffer, bytes)| (cmp::Reverse(bytes), buffer));
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
