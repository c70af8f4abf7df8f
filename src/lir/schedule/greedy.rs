//! Orders that are found by always taking what looks best: from the inputs on, from the outputs back, and
//! depth first.

use super::nodes::Nodes;
use std::collections::BTreeSet;

impl Nodes<'_> {
    /// Always the ready step after which the least is alive.
    pub(super) fn forward(&self) -> Vec<usize> {
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
    pub(super) fn backward(&self) -> Vec<usize> {
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

    /// Operands right before their user, the one first that needs more beyond its result (after Sethi
    /// and Ullman, "The generation of optimal code for arithmetic expressions").
    pub(super) fn depth_first(&self) -> Vec<usize> {
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
}
