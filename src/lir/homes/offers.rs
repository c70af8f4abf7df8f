//! The places that a root might take.

use super::{Candidate, Fresh, Homes, User};
use crate::lir::orders::{in_order_of, outermost};
use crate::lir::storage::Asked;
use crate::lir::views::{has_interior, is_block, shows_once, unslice, unview, view, window};
use crate::lir::{Access, Op};
use crate::mir::winograd::Side;
use crate::mir::{self, Value};

/// So many places are weighed for one root, at most.
const CANDIDATES: usize = 12;

impl Homes<'_> {
    /// A buffer that does not exist yet.
    fn fresh(access: Access, fresh: Fresh) -> Candidate {
        let fresh = Some(fresh);
        Candidate { access, until: usize::MAX, in_place: None, spread: false, fresh, room: 0 }
    }

    /// A buffer for this root alone: dense, but for planes that would meet in the same lines of a cache.
    pub(super) fn own(&self, root: Value) -> Candidate {
        let mut access = Access::dense(self.buffers.next_key(), self.graph.ty(root));
        if self.is_in_planes(root) {
            access = access.with_planes_apart();
        }
        Homes::fresh(access, Fresh::Temporary)
    }

    /// Whether elements of all planes of a root, its outermost axis, are read or written side by side.
    fn is_in_planes(&self, root: Value) -> bool {
        let writes = |value: Value| match &self.graph.nodes[value].op {
            mir::Op::Winograd(winograd) => matches!(winograd.side, Side::Input { .. }),
            _ => false,
        };
        let node = &self.graph.nodes[root];
        let parts = match node.op {
            mir::Op::Concat { axis } if axis > 0 => &node.operands[..],
            _ => &[root],
        };
        let reads = |user: &User| match *user {
            User::Node(user, 0) => match &self.graph.nodes[user].op {
                mir::Op::Winograd(winograd) => matches!(winograd.side, Side::Output { .. }),
                _ => false,
            },
            User::Node(..) | User::Output(_) | User::State(_) => false,
        };
        parts.iter().any(|&part| writes(part)) || self.users[root].iter().any(reads)
    }

    /// Places that the users of a root and of its views would like, those that save most first.
    pub(super) fn candidates(&self, root: Value) -> Vec<Candidate> {
        let next = self.buffers.next_key();
        let dense = |value: Value| Access::dense(next, self.graph.ty(value));
        let (mut outputs, mut windows, mut in_place, mut orders) = (vec![], vec![], vec![], vec![]);
        // To copy what costs nothing to compute would be all that it costs.
        let rides = self.graph.nodes[root].rides();
        let mut open = vec![(root, false)];
        while let Some((value, is_slice)) = open.pop() {
            for &user in &self.users[value] {
                if outputs.len() + windows.len() + in_place.len() + orders.len() >= CANDIDATES {
                    break;
                }
                let (user, index) = match user {
                    User::Output(_) | User::State(_) if is_slice => continue,
                    User::Output(index) => {
                        let access = self.pull_back(root, value, dense(value));
                        outputs.extend(access.map(|a| Homes::fresh(a, Fresh::Output(index))));
                        continue;
                    }
                    User::State(state) => {
                        let whole = Access::dense(self.states[state].0, self.graph.ty(value));
                        let access = self.pull_back(root, value, whole);
                        outputs.extend(access.filter(|_| self.options.alias).map(|access| {
                            let until = usize::MAX;
                            let (in_place, fresh) = (None, None);
                            Candidate { access, until, in_place, spread: false, fresh, room: 0 }
                        }));
                        continue;
                    }
                    User::Node(user, index) => (user, index),
                };
                let node = &self.graph.nodes[user];
                if !self.options.alias {
                    continue;
                }
                if node.op.is_view() {
                    if !shows_once(self.graph, user) {
                        // What is copied together is not written by one step, at one time.
                        let is_slice = is_block(node) && self.ops[root].is_some();
                        open.extend(is_slice.then_some((user, true)));
                        continue;
                    }
                    let order = (!is_slice).then(|| self.pull_back(root, user, dense(user)));
                    orders.extend(
                        order
                            .flatten()
                            .filter(|order| !order.is_dense())
                            .map(|order| Homes::fresh(order, Fresh::Temporary)),
                    );
                    open.push((user, is_slice));
                    continue;
                }
                if self.invariant[root] && !self.invariant[user] {
                    continue;
                }
                let Some(place) = &self.places[user] else { continue };
                let (access, until, user) = match &self.ops[user] {
                    Some(op) if self.has_room(root, user, op, index, &place.access) => {
                        (self.unbroadcast(value, &place.access), self.position[user], Some(user))
                    }
                    Some(_) => continue,
                    None if is_slice => continue,
                    None if has_interior(node, self.graph) => continue,
                    // It is there to wait in less room than that.
                    None if self.graph.nodes[root].is_copy() => continue,
                    None if !rides && self.windows.apart.contains(&(user, index)) => continue,
                    // It would keep room for all of its neighbours meanwhile.
                    None if !rides && !self.is_reached(root, user) => continue,
                    None => (window(self.graph, user, index, &place.access), place.until, None),
                };
                let Some(access) = access.and_then(|a| self.pull_back(root, value, a)) else {
                    continue;
                };
                let list = if user.is_some() { &mut in_place } else { &mut windows };
                list.push(Candidate {
                    access,
                    until,
                    in_place: user,
                    spread: is_slice,
                    fresh: None,
                    room: 0,
                });
            }
        }
        if self.options.alias {
            // All operands of a concatenation one behind the other.
            if let mir::Op::Concat { axis } = self.graph.nodes[root].op {
                let access = outermost(axis, dense(root));
                if !access.is_dense() {
                    orders.push(Homes::fresh(access, Fresh::Temporary));
                }
            }
            let given = self.graph.nodes[root].operands.iter().filter(|_| self.is_composed(root));
            let given = given.filter_map(|&operand| self.given(operand)).next();
            orders.extend(given.filter(|given| !given.is_dense()).map(|given| {
                let access = in_order_of(&given, dense(root));
                Homes::fresh(access, Fresh::Temporary)
            }));
        }
        let over = self.windows.over.contains(&root).then(|| self.turned_into(root));
        let over = over.flatten().map(|(_, candidate)| candidate);
        let all = outputs.into_iter().chain(windows).chain(in_place).chain(over);
        all.chain([self.own(root)]).chain(orders).collect()
    }

    /// The place of a later concatenation, part after part of which takes the room of a root while the rest of that
    /// is still read: behind as many elements as there are of parts that are written too early.
    pub(super) fn turned_into(&self, root: Value) -> Option<(Value, Candidate)> {
        if !self.options.alias || self.joined.is_empty() || self.invariant[root] {
            return None;
        }
        /// Where a slot begins, so does a line of the cache.
        const LINE: usize = 64;
        let (reads, ty) = (self.reads(root)?, self.graph.ty(root));
        let last = reads.iter().map(|&(at, _)| at).max()?;
        let (bytes, size) = (ty.bytes() as u64, ty.dtype.bytes());
        let place = |&joined: &Value| {
            let access = &self.places[joined].as_ref()?.access;
            if access.dtype.bytes() != size {
                return None;
            }
            let written = self.written[access.buffer].iter();
            let written = written.filter_map(|&value| {
                let (_, high) = self.access(value)?.span()?;
                Some((self.position[value], high + 1))
            });
            let written: Vec<(usize, i64)> = written.collect();
            let first = written.iter().map(|&(at, _)| at).min()?;
            // Where both are not needed at one time, one buffer would be kept in between.
            if first <= self.position[root] || last <= first {
                return None;
            }
            let before = reads.iter().flat_map(|&(at, low)| {
                let early = written.iter().filter(move |&&(then, _)| then <= at);
                early.map(move |&(_, end)| end - low)
            });
            let before = usize::try_from(before.max()?.max(0)).ok()?;
            let before = before.next_multiple_of(LINE / size);
            let all = self.buffers[access.buffer].bytes;
            let room = all.max((before * size) as u64 + bytes);
            let won = (all + bytes).checked_sub(room)?;
            let access = Access { offset: before as i64, ..Access::dense(access.buffer, ty) };
            let candidate =
                Candidate { access, until: first, in_place: None, spread: true, fresh: None, room };
            (won >= all.min(bytes) / 4).then_some((won, joined, candidate))
        };
        let near = self.joined.iter().rev().take(CANDIDATES);
        let best = near.filter_map(place).max_by_key(|(won, ..)| *won);
        best.map(|(_, joined, candidate)| (joined, candidate))
    }

    /// When a root or a view of it is read, and from which of its elements on; `None` where results are made of it.
    fn reads(&self, root: Value) -> Option<Vec<(usize, i64)>> {
        let whole = Access::dense(self.buffers.next_key(), self.graph.ty(root));
        let (mut reads, mut open) = (vec![], vec![(root, whole)]);
        while let Some((value, access)) = open.pop() {
            for user in &self.users[value] {
                let User::Node(user, _) = *user else { return None };
                let node = &self.graph.nodes[user];
                if node.op.is_view()
                    && let Some(seen) = view(node, &access)
                {
                    open.push((user, seen));
                } else if let Some((low, _)) = access.span() {
                    // What rides on the next step is done when that is.
                    reads.push((self.position[user] + usize::from(node.rides()), low));
                }
            }
        }
        Some(reads)
    }

    /// Whether a root is a concatenation or a border.
    pub(super) fn is_composed(&self, root: Value) -> bool {
        self.ops[root].is_none() && !self.graph.nodes[root].op.is_view()
    }

    /// How an input, a constant or a view of one lies, in a buffer that is not said.
    pub(super) fn given(&self, value: Value) -> Option<Access> {
        let node = &self.graph.nodes[value];
        match &node.op {
            mir::Op::Input { .. } | mir::Op::Constant(_) => {
                Some(Access::dense(self.buffers.next_key(), &node.ty))
            }
            op if op.is_view() => view(node, &self.given(node.operands[0])?),
            _ => None,
        }
    }

    /// The access to `root` for which its view `value` is `access`.
    fn pull_back(&self, root: Value, mut value: Value, mut access: Access) -> Option<Access> {
        while value != root {
            let node = &self.graph.nodes[value];
            let operand = node.operands[0];
            let dims = &self.graph.ty(operand).dims;
            access = unview(node, dims, &access).or_else(|| unslice(node, dims, &access))?;
            value = operand;
        }
        Some(access)
    }

    /// The access to an operand that is not repeated when it is broadcast to `access`.
    fn unbroadcast(&self, operand: Value, access: &Access) -> Option<Access> {
        let ty = self.graph.ty(operand);
        let same = ty.dtype == access.dtype && ty.elements() == access.elements();
        if same { access.reshaped(&ty.dims) } else { None }
    }

    /// Whether a step that writes there may still work in place of operand `index`.
    /// There has to be room for the whole root, and not for much more: it is kept as long.
    fn has_room(&self, root: Value, user: Value, op: &Op, index: usize, access: &Access) -> bool {
        let bytes = self.graph.ty(root).bytes() as u64;
        let all = self.buffers[access.buffer].bytes;
        let Some(beside) = all.checked_sub(bytes) else { return false };
        if beside > bytes / 2 || !op.in_place(index) || self.taken[user] {
            return false;
        }
        if beside > 0 {
            self.asked.update(|asked| Asked { wait: true, ..asked });
        }
        beside == 0 || self.windows.wait
    }

    /// Whether a root may be written into the window of a user so far behind it.
    fn is_reached(&self, root: Value, user: Value) -> bool {
        let behind = self.position[user] - self.position[root];
        self.asked.update(|asked| Asked { reach: asked.reach.max(behind), ..asked });
        behind <= self.windows.reach
    }
}
