//! What it costs that a root takes a place, and whether it may.

use super::{Candidate, Fresh, Homes, User};
use crate::lir::Access;
use crate::lir::accepts::{accepts, accepts_result, accepts_window};
use crate::lir::orders::{is_whole, unit_axis};
use crate::lir::state::Reader;
use crate::lir::storage::operand_dims;
use crate::lir::views::{unview, view, window};
use crate::mir::{self, Value};

/// Where more is written to a buffer, it is not looked at.
const WRITTEN: usize = 600;

impl Homes<'_> {
    /// Whether what computes a root may write there.
    pub(super) fn fits(&self, root: Value, access: &Access) -> bool {
        let node = &self.graph.nodes[root];
        match &self.ops[root] {
            Some(op) => accepts_result(op, access),
            // A reshape that is copied is written with the dimensions that its operand has.
            None if node.op.is_view() => {
                unview(node, &self.graph.ty(node.operands[0]).dims, access).is_some()
                    || access.is_dense()
            }
            // Whoever does not write there at speed is copied.
            None => true,
        }
    }

    /// Whether all who need the old value of a state have read it, or read it just then, when what computes a
    /// root writes there.
    pub(super) fn leaves_states(&self, root: Value, access: &Access) -> bool {
        let Some((_, readers)) = self.states.iter().find(|(buffer, _)| *buffer == access.buffer)
        else {
            return true;
        };
        let in_place = |reader: &Reader| match (&reader.operand, &self.ops[root]) {
            (Some((user, index, read)), Some(op)) if *user == root => {
                let dims = operand_dims(self.graph, root, *index);
                op.in_place(*index) && read.broadcast(&dims).same(access)
            }
            _ => false,
        };
        let now = self.position[root];
        !self.invariant[root] && readers.iter().all(|r| r.at < now || in_place(r))
    }

    /// Whether a place in a buffer that is there already is inside of it, and nothing is written over it before
    /// the step that works in place, or who composes the whole.
    fn is_free(&self, root: Value, candidate: &Candidate) -> bool {
        let access = &candidate.access;
        let Some((low, high)) = access.span() else { return true };
        let end = (high + 1) as u64 * access.dtype.bytes() as u64;
        if low < 0 || end > self.buffers[access.buffer].bytes.max(candidate.room) {
            return false;
        }
        if self.is_spread[access.buffer] && self.graph.nodes[root].op.is_view() {
            // What it is copied from may lie there, and be needed for longer.
            return false;
        }
        let now = self.position[root];
        let between = |&&value: &&Value| (now + 1..candidate.until).contains(&self.position[value]);
        let mut others = self.written[access.buffer].iter().filter(between);
        let overlaps = |value| self.access(value).is_some_and(|a| a.overlaps(access));
        candidate.spread
            || !self.is_spread[access.buffer]
            || !others.any(|&value| overlaps(value) && !self.is_part(root, access, value))
    }

    /// Whether a root that lies there is in its window of a concatenation or border, which leaves it as it is.
    fn is_part(&self, root: Value, access: &Access, whole: Value) -> bool {
        let mut open = vec![(root, access.clone())];
        while let Some((value, access)) = open.pop() {
            for user in &self.users[value] {
                let &User::Node(user, index) = user else { continue };
                if self.graph.nodes[user].op.is_view() {
                    open.extend(view(&self.graph.nodes[user], &access).map(|seen| (user, seen)));
                } else if self.is_composed(user)
                    && let Some(place) = &self.places[user]
                    && window(self.graph, user, index, &place.access)
                        .is_some_and(|w| w.same(&access))
                {
                    if user == whole {
                        return true;
                    }
                    open.push((user, place.access.clone()));
                }
            }
        }
        false
    }

    /// Whether something is written over what a user reads of a root before it has read it, or by that user
    /// without working in place.
    fn is_overwritten(&self, root: Value, user: Value, read: &Access, in_place: bool) -> bool {
        let written = &self.written[read.buffer];
        let (now, then) = (self.position[root], self.position[user]);
        written.len() > WRITTEN
            || written.iter().any(|&value| {
                let at = self.position[value];
                let before = now < at && (at < then || value == user && !in_place);
                before && self.access(value).is_some_and(|access| access.overlaps(read))
            })
    }

    /// Bytes of the operands of a concatenation or border that lie in another order than `access`, and
    /// must be copied: those copies are slow.
    fn reordered_windows(&self, root: Value, access: &Access) -> u64 {
        if !self.is_composed(root) {
            return 0;
        }
        let reordered = |operand: &&Value| {
            let given = self.given(**operand);
            given.is_some_and(|given| unit_axis(&given) != unit_axis(access))
        };
        let operands = self.graph.nodes[root].operands.iter().filter(reordered);
        operands.map(|&operand| self.graph.ty(operand).bytes() as u64).sum()
    }

    /// Bytes of the operands of a concatenation or border that their producers cannot write straight
    /// into windows of `access`, twice: they are scattered there one by one.
    fn refused_windows(&self, root: Value, access: &Access) -> u64 {
        let node = &self.graph.nodes[root];
        if self.ops[root].is_some() || node.op.is_view() || accepts_window(access) {
            return 0;
        }
        let computed = |value: Value| {
            let mut root = value;
            while self.graph.nodes[root].op.is_view() {
                root = self.graph.nodes[root].operands[0];
            }
            !matches!(self.graph.nodes[root].op, mir::Op::Input { .. } | mir::Op::Constant(_))
        };
        let operands = node.operands.iter().filter(|&&operand| computed(operand));
        operands.map(|&operand| 2 * self.graph.ty(operand).bytes() as u64).sum()
    }

    /// Bytes that must be copied when a root lies there; `None` when a user would read what the step
    /// that works in place has overwritten.
    pub(super) fn cost(&self, root: Value, candidate: &Candidate) -> Option<u64> {
        let bytes = |value: Value| self.graph.ty(value).bytes() as u64;
        let is_port = |access: &Access| match &candidate.fresh {
            Some(Fresh::Output(_)) => is_whole(access, bytes(root)),
            Some(Fresh::Temporary) => false,
            // Who works in place takes it away again.
            None => candidate.until == usize::MAX && self.is_port(access),
        };
        if candidate.fresh.is_none() && !self.is_free(root, candidate) {
            return None;
        }
        // What works in the place of a slice may come before others that read it.
        let readable = |user: Value, access: &Access, in_place: bool| match candidate.spread {
            true => !self.is_overwritten(root, user, access, in_place),
            false => self.position[user] < candidate.until || in_place,
        };
        let mut cost = self.refused_windows(root, &candidate.access)
            + self.reordered_windows(root, &candidate.access);
        let mut open = vec![(root, candidate.access.clone())];
        while let Some((value, access)) = open.pop() {
            let mut refused = false;
            for &user in &self.users[value] {
                let (user, index) = match user {
                    User::Node(user, index) => (user, index),
                    User::Output(_) if is_port(&access) => continue,
                    User::Output(_) => {
                        // The copy is made as soon as the value is there.
                        cost += bytes(value);
                        if self.position[value] >= candidate.until {
                            return None;
                        }
                        continue;
                    }
                    User::State(state) => {
                        let there = access.buffer == self.states[state].0
                            && is_whole(&access, bytes(value));
                        if !there || candidate.fresh.is_some() {
                            // The copy is made at the end.
                            cost += bytes(value);
                            if candidate.until < usize::MAX {
                                return None;
                            }
                        }
                        continue;
                    }
                };
                let node = &self.graph.nodes[user];
                if node.op.is_view() {
                    match view(node, &access).filter(|_| self.options.alias) {
                        Some(access) => open.push((user, access)),
                        None if readable(user, &access, false) => cost += bytes(user),
                        None => return None,
                    }
                    continue;
                }
                // Users that were decided on before, all but dead ones.
                let Some(place) = &self.places[user] else { continue };
                let Some(op) = &self.ops[user] else {
                    let window = window(self.graph, user, index, &place.access);
                    if window.is_some_and(|w| w.same(&access)) {
                        continue;
                    }
                    if !readable(user, &access, false) {
                        return None;
                    }
                    cost += bytes(value);
                    continue;
                };
                let read = access.broadcast(&operand_dims(self.graph, user, index));
                let in_place = (candidate.in_place == Some(user) || candidate.spread)
                    && op.in_place(index)
                    && read.same(&place.access);
                if !readable(user, &read, in_place) {
                    return None;
                }
                refused |= !accepts(op, index, &read, &place.access.dims);
            }
            if refused {
                cost += bytes(value);
            }
        }
        Some(cost)
    }
}
