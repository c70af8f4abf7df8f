//! What a graph costs in time, roughly: enough to choose between ways of computing the same.

use crate::machine::Machine;
use crate::mir::{Graph, Node, Op, Side, Weights};

/// Cycles that it takes to call a kernel, and to get it going.
const CALL: f64 = 250.0;

/// Cycles of one run on one core.
pub(super) fn cycles(graph: &Graph, machine: &Machine) -> f64 {
    graph.nodes.values().map(|node| step(graph, node, machine)).sum()
}

fn step(graph: &Graph, node: &Node, machine: &Machine) -> f64 {
    let lanes = f64::from(machine.lanes);
    let results = node.ty.elements() as f64;
    let read = |index: usize| {
        node.operands.get(index).map_or(0.0, |&operand| graph.ty(operand).elements() as f64)
    };
    // Four bytes of each element, from and to the second-level cache.
    let moved = |elements: f64| elements / lanes;
    let worked = match &node.op {
        Op::Input { .. } | Op::Constant(_) => return 0.0,
        op if op.is_view() => return 0.0,
        Op::Contract(c) => {
            let depth = *graph.ty(node.operands[0]).dims.last().unwrap_or(&1) as f64;
            // Few rows have the weights read for little work.
            let weights = if c.weights == Weights::Plain { 0.0 } else { moved(read(1)) };
            results * depth / lanes + weights
        }
        Op::Attention(attention) => {
            let columns = |index: usize| *graph.ty(node.operands[index]).dims.last().unwrap_or(&1);
            let (depth, keys, width) = (columns(0), columns(1), columns(2).max(1));
            let stages = &attention.rows.stages;
            let each: usize = stages.iter().map(|stage| stage.expr.nodes.len() + 1).sum();
            let scores = results / width as f64 * keys as f64;
            (scores * (depth + each) as f64 + results * keys as f64) / lanes
        }
        Op::Conv(c) => {
            let channels = *graph.ty(node.operands[0]).dims.last().unwrap_or(&1);
            let each = (c.taps.iter().product::<usize>() * channels / c.groups.max(1)) as f64;
            let slow = if c.groups > 1 { 2.0 } else { 1.0 };
            slow * results * each / lanes + moved(read(1))
        }
        Op::Pool(p) => results * p.window.iter().product::<usize>() as f64 / lanes,
        Op::Map(expr) => results * expr.nodes.len() as f64 / lanes,
        Op::Rows(rows) => {
            let each: usize = rows.stages.iter().map(|stage| stage.expr.nodes.len() + 1).sum();
            let domain = results.max(read(0));
            domain * each as f64 / lanes
        }
        Op::Winograd(w) => {
            let sides = |inputs: f64| (results + inputs) * (w.tile as f64 + 3.0) / lanes;
            match w.side {
                Side::Input { .. } | Side::Output { .. } => sides(read(0)),
                Side::Both { parts, .. } => {
                    let inputs: f64 = (0..parts).map(read).sum();
                    let outputs = *node.ty.dims.last().unwrap_or(&1);
                    let points = (w.points() as f64 / w.tile as f64).powi(2);
                    let products = inputs * points * outputs as f64 / lanes;
                    sides(inputs) * points + products + moved(read(parts))
                }
            }
        }
        Op::Reduce { .. } | Op::ArgReduce { .. } => moved(read(0)),
        Op::Gather { .. } => moved(2.0 * results),
        Op::Pad { .. } => moved(results - read(0)),
        // Its operands are mostly written where they belong.
        Op::Concat { .. } => return 0.0,
        Op::Reshape | Op::Permute(_) | Op::Slice { .. } | Op::Broadcast => 0.0,
    };
    worked + CALL
}
