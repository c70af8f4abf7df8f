//! Passes over MIR: each a function from graph to graph, one file, one exported function.
//!
//! [`run`] is the list of them. Three are asked for by others: [`widen`] and [`integers`] before all of these, as the options say
//! ([`compile`](mod@crate::compile)), and [`bands`] afterwards, where an arena is to be smaller ([`fit`](crate::fit)).

pub mod apart;
pub mod attention;
pub mod bands;
pub mod channels;
pub mod dce;
pub mod depth;
pub mod epilogue;
pub mod factor;
pub mod fold;
mod identities;
pub mod integers;
pub mod layout;
pub mod map;
pub mod margins;
pub mod neighbours;
pub mod outward;
pub mod pack;
pub mod parts;
pub mod phases;
pub mod pieces;
pub mod places;
mod reach;
mod rewrite;
pub mod ride;
pub mod rows;
pub mod scale;
pub mod simplify;
pub mod single;
pub mod stacks;
pub mod tables;
pub mod turns;
pub mod unpack;
pub mod widen;
pub mod winograd;

use crate::machine::Machine;
use crate::mir::{Graph, verify::verify};

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Level {
    /// Nothing: every node as its operator wrote it.
    None,
    /// Everything.
    #[default]
    Speed,
}

/// Which convolutions of few taps are done by minimal filtering, which rounds more than direct sums do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Filtering {
    /// None.
    Off,
    /// Where it is faster.
    #[default]
    Auto,
}

/// The pipeline. Without a level of speed, nothing is filtered.
pub fn run(graph: Graph, level: Level, filtering: Filtering, machine: &Machine) -> Graph {
    if level == Level::None {
        return dce::eliminate(graph);
    }
    let ride = |graph| ride::cut(graph, machine);
    let pack = |graph| pack::pack(graph, machine);
    let deep = |graph| depth::cut(graph, machine);
    let turns = |graph| turns::take(graph, machine);
    let split = |graph| phases::split(graph, machine);
    let cut = |graph| margins::cut(graph, machine);
    let join = |graph| neighbours::join(graph, machine);
    let filter = |graph| match filtering {
        Filtering::Off => graph,
        Filtering::Auto => winograd::filter(graph, machine),
    };
    let share = |graph| tables::share(graph, machine);
    let passes: [(&str, &dyn Fn(Graph) -> Graph); 31] = [
        ("unpack", &unpack::unpack),
        ("fold", &fold::fold),
        ("simplify", &simplify::simplify),
        ("places", &places::reduce),
        ("apart", &apart::keep),
        ("layout", &layout::propagate),
        ("stacks", &stacks::stack),
        ("fold", &fold::fold),
        ("simplify", &simplify::simplify),
        ("pieces", &pieces::cut),
        ("channels", &channels::reorder),
        ("fold", &fold::fold),
        ("epilogue", &epilogue::fuse),
        ("factor", &factor::pull),
        ("scale", &scale::fold),
        ("rows", &rows::fuse),
        ("map", &map::fuse),
        ("epilogue", &epilogue::fuse),
        ("outward", &outward::split),
        ("single", &single::flatten),
        ("phases", &split),
        ("attention", &attention::fuse),
        ("winograd", &filter),
        ("margins", &cut),
        ("neighbours", &join),
        ("tables", &share),
        ("depth", &deep),
        ("parts", &parts::split),
        ("ride", &ride),
        ("pack", &pack),
        ("turns", &turns),
    ];
    passes.into_iter().fold(dce::eliminate(graph), |graph, (name, pass)| {
        let graph = dce::eliminate(pass(graph));
        if cfg!(debug_assertions)
            && let Err(errors) = verify(&graph)
        {
            panic!("after {name}: {}\n{graph}", errors.join("\n"));
        }
        graph
    })
}

#[cfg(test)]
mod tests;
