//! The order of the steps.
//!
//! Which order needs the least memory is hard to know, so a few are proposed, and [`lower`] keeps the
//! one whose plan has the lowest bound: that of the model; always the step that leaves the least
//! alive, from the inputs on and from the outputs back; and depth first, the hungrier operand before
//! the other (after Sethi and Ullman, "The generation of optimal code for arithmetic expressions").
//!
//! Steps here are the nodes that are no views, no constants and no inputs; the others are put just before
//! their first user.
//!
//! [`lower`]: super::lower

use super::views::is_view;
use crate::mir::{Graph, Op, Value};
use cranelift_entity::SecondaryMap;
use std::collections::BTreeSet;

/// Orders of all values, operands before users, without repetition; the model's own order is the first.
pub fn orders(graph: &Graph) -> Vec<Vec<Value>> {
    let steps = Steps::new(graph);
    let own: Vec<Value> = graph.nodes.keys().collect();
    let mut orders = vec![own];
    for order in [steps.forward(), steps.backward(), steps.depth_first()] {
        let order = steps.with_views(&order);
        if !orders.contains(&order) {
            orders.push(order);
        }
    }
    orders
}

/// The steps that the outputs need, as a graph of their own, by the index in the model's order.
struct Steps<'a> {
    graph: &'a Graph,
    values: Vec<Value>,
    /// Bytes of each result.
    sizes: Vec<i64>,
    /// The steps that each reads, through views, ascending and without repetition.
    operands: Vec<Vec<usize>>,
    users: Vec<Vec<usize>>,
    /// Whether the result is kept to the end.
    kept: Vec<bool>,
}

impl<'a> Steps<'a> {
    fn new(graph: &'a Graph) -> Steps<'a> {
        let mut needed: SecondaryMap<Value, bool> = SecondaryMap::new();
        graph.outputs.iter().for_each(|o| needed[o.value] = true);
        for (value, node) in graph.nodes.iter().rev() {
            if needed[value] {
                node.operands.iter().for_each(|&operand| needed[operand] = true);
            }
        }
        // The step whose result a value is, or is a view of.
        let mut step_of: SecondaryMap<Value, Option<usize>> = SecondaryMap::new();
        let mut steps = Steps {
            graph,
            values: vec![],
            sizes: vec![],
            operands: vec![],
            users: vec![],
            kept: vec![],
        };
        for (value, node) in graph.nodes.iter().filter(|(value, _)| needed[*value]) {
            step_of[value] = match &node.op {
                Op::Input { .. } | Op::Constant(_) => None,
                op if is_view(op) => step_of[node.operands[0]],
                _ => {
                    let index = steps.values.len();
                    let operands: BTreeSet<usize> =
                        node.operands.iter().filter_map(|&v| step_of[v]).collect();
                    operands.iter().for_each(|&operand| steps.users[operand].push(index));
                    steps.values.push(value);
                    steps.sizes.push(i64::try_from(node.ty.bytes()).unwrap_or(i64::MAX));
                    steps.operands.push(operands.into_iter().collect());
                    steps.users.push(vec![]);
                    steps.kept.push(false);
                    Some(index)
                }
            };
        }
        graph.outputs.iter().filter_map(|o| step_of[o.value]).for_each(|i| steps.kept[i] = true);
        steps
    }

    /// Always the ready step after which the least is alive.
    fn forward(&self) -> Vec<usize> {
        let count = self.values.len();
        let mut waiting: Vec<usize> = self.operands.iter().map(Vec::len).collect();
        let mut unread: Vec<usize> = self.users.iter().map(Vec::len).collect();
        let growth = |step: usize, unread: &[usize]| {
            let dies = |&&o: &&usize| unread[o] == 1 && !self.kept[o];
            let freed: i64 = self.operands[step].iter().filter(dies).map(|&o| self.sizes[o]).sum();
            self.sizes[step] - freed
        };
        let mut keys: Vec<Option<i64>> = vec![None; count];
        let mut ready: BTreeSet<(i64, usize)> = BTreeSet::new();
        for step in (0..count).filter(|&s| waiting[s] == 0) {
            let key = growth(step, &unread);
            keys[step] = Some(key);
            ready.insert((key, step));
        }
        let mut order = Vec::with_capacity(count);
        while let Some((_, step)) = ready.pop_first() {
            keys[step] = None;
            order.push(step);
            for &operand in &self.operands[step] {
                unread[operand] -= 1;
                if unread[operand] != 1 {
                    continue;
                }
                // Its last reader would now free it.
                for &user in &self.users[operand] {
                    if let Some(key) = keys[user] {
                        ready.remove(&(key, user));
                        let key = growth(user, &unread);
                        keys[user] = Some(key);
                        ready.insert((key, user));
                    }
                }
            }
            for &user in &self.users[step] {
                waiting[user] -= 1;
                if waiting[user] == 0 {
                    let key = growth(user, &unread);
                    keys[user] = Some(key);
                    ready.insert((key, user));
                }
            }
        }
        order
    }

    /// From the last step to the first, always the one before which the least is alive.
    fn backward(&self) -> Vec<usize> {
        let count = self.values.len();
        let mut waiting: Vec<usize> = self.users.iter().map(Vec::len).collect();
        let mut alive = self.kept.clone();
        let growth = |step: usize, alive: &[bool]| {
            let new = self.operands[step].iter().filter(|&&o| !alive[o]);
            new.map(|&o| self.sizes[o]).sum::<i64>() - self.sizes[step]
        };
        let mut keys: Vec<Option<i64>> = vec![None; count];
        // Of equal ones the last in the model's order.
        let mut ready: BTreeSet<(i64, std::cmp::Reverse<usize>)> = BTreeSet::new();
        for step in (0..count).filter(|&s| waiting[s] == 0) {
            let key = growth(step, &alive);
            keys[step] = Some(key);
            ready.insert((key, std::cmp::Reverse(step)));
        }
        let mut order = Vec::with_capacity(count);
        while let Some((_, std::cmp::Reverse(step))) = ready.pop_first() {
            keys[step] = None;
            order.push(step);
            for &operand in &self.operands[step] {
                let new = !std::mem::replace(&mut alive[operand], true);
                // Other readers now get it for nothing.
                for &user in self.users[operand].iter().filter(|_| new) {
                    if let Some(key) = keys[user] {
                        ready.remove(&(key, std::cmp::Reverse(user)));
                        let key = growth(user, &alive);
                        keys[user] = Some(key);
                        ready.insert((key, std::cmp::Reverse(user)));
                    }
                }
                waiting[operand] -= 1;
                if waiting[operand] == 0 {
                    let key = growth(operand, &alive);
                    keys[operand] = Some(key);
                    ready.insert((key, std::cmp::Reverse(operand)));
                }
            }
        }
        order.reverse();
        order
    }

    /// Operands right before their user, the one first that needs more beyond its result.
    fn depth_first(&self) -> Vec<usize> {
        let count = self.values.len();
        let mut needs = vec![0i64; count];
        let mut operands = self.operands.clone();
        for step in 0..count {
            operands[step].sort_by_key(|&o| (std::cmp::Reverse(needs[o] - self.sizes[o]), o));
            let (mut held, mut most) = (0i64, 0i64);
            for &operand in &operands[step] {
                most = most.max(held.saturating_add(needs[operand]));
                held = held.saturating_add(self.sizes[operand]);
            }
            needs[step] = most.max(held.saturating_add(self.sizes[step]));
        }
        let (mut order, mut seen) = (Vec::with_capacity(count), vec![false; count]);
        for root in (0..count).filter(|&s| self.users[s].is_empty() || self.kept[s]) {
            // A step with the number of its operands that have been looked at.
            let mut open = vec![(root, 0)];
            while let Some((step, next)) = open.pop() {
                if next == 0 && std::mem::replace(&mut seen[step], true) {
                    continue;
                }
                match operands[step].get(next) {
                    Some(&operand) => open.extend([(step, next + 1), (operand, 0)]),
                    None => order.push(step),
                }
            }
        }
        order
    }

    /// All values of the graph, for the steps in this order.
    fn with_views(&self, steps: &[usize]) -> Vec<Value> {
        let graph = self.graph;
        // Views that are outputs are taken as soon as their step is done.
        let mut follow: SecondaryMap<Value, Vec<Value>> = SecondaryMap::new();
        for output in &graph.outputs {
            let mut root = output.value;
            while is_view(&graph.nodes[root].op) {
                root = graph.nodes[root].operands[0];
            }
            follow[root].push(output.value);
        }
        let mut order = Vec::with_capacity(graph.nodes.len());
        let mut seen: SecondaryMap<Value, bool> = SecondaryMap::new();
        let mut add = |value: Value| {
            let mut open = vec![(value, 0)];
            while let Some((value, next)) = open.pop() {
                if next == 0 && std::mem::replace(&mut seen[value], true) {
                    continue;
                }
                match graph.nodes[value].operands.get(next) {
                    Some(&operand) => open.extend([(value, next + 1), (operand, 0)]),
                    None => order.push(value),
                }
            }
        };
        for &step in steps {
            let value = self.values[step];
            add(value);
            follow[value].iter().for_each(|&view| add(view));
        }
        graph.nodes.keys().for_each(add);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mir::{Binary, Builder, Output, Role, Unary};
    use crate::types::{DType, Type};

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
