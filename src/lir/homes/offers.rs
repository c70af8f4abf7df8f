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
    /// A place in a buffer that there is.
    fn there(access: Access) -> Candidate {
        Candidate {
            access,
            until: usize::MAX,
            in_place: None,
            spread: false,
            fresh: None,
            room: 0,
            asks: Asked::default(),
        }
    }

    /// A buffer that does not exist yet.
    fn fresh(access: Access, fresh: Fresh) -> Candidate {
        Candidate { fresh: Some(fresh), ..Homes::there(access) }
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
                        outputs.extend(access.filter(|_| self.options.alias).map(Homes::there));
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
                let behind = self.position[user] - self.position[root];
                let mut asks = Asked::default();
                let (access, until, user) = match &self.ops[user] {
                    Some(op) => {
                        let beside = self.beside(root, user, op, index, &place.access);
                        asks.wait = beside.is_some_and(|beside| beside > 0);
                        if beside.is_none() || asks.wait && !self.windows.wait {
                            continue;
                        }
                        (self.unbroadcast(value, &place.access), self.position[user], Some(user))
                    }
                    None if is_slice => continue,
                    None if has_interior(node, self.graph) => continue,
                    // It is there to wait in less room than that.
                    None if self.graph.nodes[root].is_copy() => continue,
                    None if !rides && self.windows.apart.contains(&(user, index)) => continue,
                    // It would keep room for all of its neighbours meanwhile.
                    None if !rides && behind > self.windows.reach => continue,
                    None => {
                        asks.reach = if rides { 0 } else { behind };
                        (window(self.graph, user, index, &place.access), place.until, None)
                    }
                };
                let Some(access) = access.and_then(|a| self.pull_back(root, value, a)) else {
                    continue;
                };
                let list = if user.is_some() { &mut in_place } else { &mut windows };
                list.push(Candidate {
                    until,
                    in_place: user,
                    spread: is_slice,
                    asks,
                    ..Homes::there(access)
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
        let ty = self.graph.ty(root);
        let (bytes, size) = (ty.bytes() as u64, ty.dtype.bytes());
        // What is written before cannot take its room.
        let behind = |&&joined: &&Value| {
            self.places[joined].as_ref().is_some_and(|place| {
                let written = &self.ends[place.access.buffer];
                let first = written.iter().map(|&(at, _)| at).min();
                place.access.dtype.bytes() == size
                    && first.is_some_and(|first| first > self.position[root])
            })
        };
        let near = || self.joined.iter().rev().take(CANDIDATES).filter(behind);
        near().next()?;
        let reads = self.reads(root)?;
        let last = reads.iter().map(|&(at, _)| at).max()?;
        let place = |&joined: &Value| {
            let access = &self.places[joined].as_ref()?.access;
            let written = &self.ends[access.buffer];
            let first = written.iter().map(|&(at, _)| at).min()?;
            // Where both are not needed at one time, one buffer would be kept in between.
            if last <= first {
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
            let candidate = Candidate { until: first, spread: true, room, ..Homes::there(access) };
            (won >= all.min(bytes) / 4).then_some((won, joined, candidate))
        };
        let best = near().filter_map(place).max_by_key(|(won, ..)| *won);
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

    /// How many bytes more than the whole root there are where a step writes that may still work in place of operand
    /// `index`; `None` where it may not, or there is too little room, or much more: it is kept as long.
    fn beside(
        &self,
        root: Value,
        user: Value,
        op: &Op,
        index: usize,
        access: &Access,
    ) -> Option<u64> {
        let bytes = self.graph.ty(root).bytes() as u64;
        let beside = self.buffers[access.buffer].bytes.checked_sub(bytes)?;
        let may = beside <= bytes / 2 && op.in_place(index) && !self.taken[user];
        may.then_some(beside)
    }
}
