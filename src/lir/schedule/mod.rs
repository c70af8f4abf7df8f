//! The order of the steps.
//!
//! It is chosen in two turns, since storage depends on the order and the best order on the storage:
//!
//! 1. [`orders`] proposes orders of the graph's nodes: the model's own, three greedy ones, and the best
//!    that a search over a model of storage finds. Each is stored, and the lowest bound wins.
//! 2. [`improve`] searches again over the stored steps, whose buffers with all copies, windows and
//!    in-place results are known by then: what it finds is what the plan needs, to the byte.
//!
//! Nodes here are those that are no views, no constants and no inputs; the others are put just before
//! their first user.

mod greedy;
mod nodes;
mod problem;
mod search;
mod steps;

use crate::lir::Module;
use crate::mir::{Graph, Value};
use nodes::Nodes;

/// Orders of all values, operands before users, without repetition; the model's own order is the first.
pub fn orders(graph: &Graph) -> Vec<Vec<Value>> {
    let nodes = Nodes::new(graph);
    let own: Vec<Value> = graph.nodes.keys().collect();
    let mut orders = vec![own];
    let searched = search::search(&nodes.problem(), search::EXACT_WORK);
    for order in [searched, nodes.forward(), nodes.backward(), nodes.depth_first()] {
        let order = nodes.with_views(&order);
        if !orders.contains(&order) {
            orders.push(order);
        }
    }
    orders
}

/// Bytes that a graph needs in its own order besides its inputs and constants, as far as that is known
/// before it is stored.
pub fn estimate(graph: &Graph) -> u64 {
    let problem = Nodes::new(graph).problem();
    let own: Vec<usize> = (0..problem.tasks.len()).collect();
    problem.cost(&own).peak
}

/// Puts the steps in an order that needs less memory, or as much for a shorter time; leaves them where
/// they are if none is found.
pub fn improve(module: &mut Module) {
    let problem = steps::problem(module);
    let own: Vec<usize> = (0..problem.tasks.len()).collect();
    let found = search::search(&problem, search::EXACT_WORK);
    if problem.cost(&found) < problem.cost(&own) {
        let prologue = module.plan.prologue;
        let mut steps: Vec<_> = module.steps.values().cloned().map(Some).collect();
        // The task behind the prologue is no step.
        if problem.tasks.len() > steps.len() {
            steps.insert(prologue, None);
        }
        module.steps = found.into_iter().filter_map(|task| steps[task].take()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Binary, Builder, Output, Role, Unary};
    use crate::types::{DType, Type};
    use cranelift_entity::SecondaryMap;

    #[test]
    fn orders_are_orders() {
        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [64]));
        let mut ends = vec![];
        for _ in 0..4 {
            let wide = mir.broadcast(x, [32, 64]);
            let wide = mir.unary(Unary::Neg, wide);
            ends.push(mir.reduce(crate::mir::Reduction::Sum, wide, &[0]));
        }
        let sum = ends[1..].iter().fold(ends[0], |a, &b| mir.binary(Binary::Add, a, b));
        let view = mir.reshape(sum, [8, 8]);
        let graph = mir.finish(vec![Output { name: "y".into(), value: view }]);
        let orders = orders(&graph);
        for order in &orders {
            let mut seen: SecondaryMap<Value, bool> = SecondaryMap::new();
            for &value in order {
                assert!(graph.nodes[value].operands.iter().all(|&o| seen[o]));
                assert!(!std::mem::replace(&mut seen[value], true));
            }
            assert_eq!(order.len(), graph.nodes.len());
        }
    }
}
