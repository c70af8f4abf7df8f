//! Where every value is kept: decided from the last value to the first, so that a producer knows what
//! its users want.
//!
//! A value that a step computes is a root; views of it are accesses to the same storage. For each root
//! the places that its users offer are weighed: an output's buffer, a window in a concatenation or
//! border, the place of a user that works in place, and buffers of its own in an order of axes
//! that some user asks for. The place that leads to the fewest copied bytes wins.

use super::accepts::{accepts, accepts_result, accepts_window};
use super::orders::{in_order_of, is_whole, outermost, unit_axis};
use super::state::{Link, Reader, readers};
use super::storage::{Asked, Windows, operand_dims, step_op};
use super::views::{has_interior, is_block, shows_once, unslice, unview, view, window};
use super::{Access, Buffer, BufferInfo, BufferKind, Op, Options};
use crate::mir::winograd::Side;
use crate::mir::{self, Graph, Role, Value};
use crate::tensor::{Identity, Tensor};
use crate::types::DType;
use cranelift_entity::{PrimaryMap, SecondaryMap};
use std::cell::Cell;
use std::collections::BTreeMap;

/// So many places are weighed for one root, at most.
const CANDIDATES: usize = 12;

/// Where more is written to a buffer, it is not looked at.
const WRITTEN: usize = 600;

/// A copy of a constant that is made when the model is compiled has at most so many bytes.
const CONSTANT_COPY: usize = 1 << 26;

/// Where all values lie.
pub(super) struct Homes<'a> {
    graph: &'a Graph,
    options: &'a Options,
    links: &'a [Link],
    /// The buffer of each state, and who reads its old value.
    states: Vec<(Buffer, Vec<Reader>)>,
    /// What is computed once. It lies nowhere where something else is written in every run.
    invariant: SecondaryMap<Value, bool>,
    windows: &'a Windows,
    /// All buffers; their order means nothing yet.
    pub(super) buffers: PrimaryMap<Buffer, BufferInfo>,
    /// The kind of step that computes each value, if one does.
    pub(super) ops: SecondaryMap<Value, Option<Op>>,
    places: SecondaryMap<Value, Option<Place>>,
    /// The step already works in place of one of its operands; it has room for no other.
    taken: SecondaryMap<Value, bool>,
    /// What is written to each buffer: roots and copied views.
    written: SecondaryMap<Buffer, Vec<Value>>,
    /// A value lies there in more than the room of the user that works in its place.
    is_spread: SecondaryMap<Buffer, bool>,
    /// Concatenations in buffers of their own, the last one first.
    joined: Vec<Value>,
    /// What else might have lain where a concatenation does.
    pub(super) over: Vec<Over>,
    /// Who reads each value.
    users: SecondaryMap<Value, Vec<User>>,
    position: SecondaryMap<Value, usize>,
    constants: BTreeMap<(usize, DType, Identity), Buffer>,
    /// What of the windows mattered.
    asked: Cell<Asked>,
}

/// Where one value lies.
#[derive(Clone, Debug)]
struct Place {
    access: Access,
    /// Position of the step that overwrites it by working in place; only reads before are right.
    until: usize,
    /// The value is a view that must be copied.
    copied: bool,
}

#[derive(Clone, Copy, Debug)]
enum User {
    /// It is operand `.1` of this node.
    Node(Value, usize),
    /// It is a result of the model, by this index.
    Output(usize),
    /// It is the next value of this state.
    State(usize),
}

/// A value that may lie where a later concatenation does, which takes its room part by part.
#[derive(Clone, Debug)]
pub struct Over {
    /// The value.
    pub value: Value,
    /// The concatenation.
    pub joined: Value,
    /// Bytes of it that are needed before the value.
    pub ahead: u64,
}

/// A place that a root might take.
struct Candidate {
    access: Access,
    until: usize,
    /// The user that then works in place.
    in_place: Option<Value>,
    /// That user reads only a slice of it: others take the place of the rest, by and by.
    spread: bool,
    /// What the buffer is to hold, if it is to be made.
    fresh: Option<Fresh>,
    /// Bytes that the buffer must have, if it is there.
    room: u64,
}

/// What a buffer is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    /// A result of the model, by its index.
    Output(usize),
    /// A root that nobody sees.
    Temporary,
}

impl<'a> Homes<'a> {
    /// Finds a place for every value that the outputs need, and for all inputs.
    pub(super) fn new(
        graph: &'a Graph,
        order: &[Value],
        links: &'a [Link],
        invariant: SecondaryMap<Value, bool>,
        options: &'a Options,
        windows: &'a Windows,
    ) -> Homes<'a> {
        let mut homes = Homes {
            graph,
            links,
            states: vec![],
            invariant,
            options,
            windows,
            buffers: PrimaryMap::new(),
            ops: SecondaryMap::with_capacity(graph.nodes.len()),
            places: SecondaryMap::with_capacity(graph.nodes.len()),
            taken: SecondaryMap::with_capacity(graph.nodes.len()),
            written: SecondaryMap::new(),
            is_spread: SecondaryMap::new(),
            joined: vec![],
            over: vec![],
            users: SecondaryMap::with_capacity(graph.nodes.len()),
            position: SecondaryMap::with_capacity(graph.nodes.len()),
            constants: BTreeMap::new(),
            asked: Cell::default(),
        };
        let mut needed: SecondaryMap<Value, bool> = SecondaryMap::new();
        for (index, output) in graph.outputs.iter().enumerate() {
            needed[output.value] = true;
            let states = (0..links.len()).filter(|&state| links[state].output == index);
            let users = &mut homes.users[output.value];
            let count = users.len();
            users.extend(states.map(User::State));
            if users.len() == count {
                users.push(User::Output(index));
            }
        }
        for &Link { input, .. } in links {
            let (name, bytes) = (homes.name(input), graph.ty(input).bytes() as u64);
            let info = BufferInfo { name, bytes, kind: BufferKind::State };
            let buffer = homes.buffers.push(info);
            homes.states.push((buffer, readers(graph, order, links, input, buffer)));
        }
        for (position, &value) in order.iter().enumerate().rev() {
            homes.position[value] = position;
            let node = &graph.nodes[value];
            if needed[value] {
                for (index, &operand) in node.operands.iter().enumerate() {
                    needed[operand] = true;
                    homes.users[operand].push(User::Node(value, index));
                }
            }
            if needed[value] || matches!(node.op, mir::Op::Input { .. }) {
                homes.decide(value);
            }
        }
        homes
    }

    /// Where a value lies; `None` when nothing needs it.
    pub(super) fn access(&self, value: Value) -> Option<&Access> {
        self.places[value].as_ref().map(|p| &p.access)
    }

    /// What of the windows has made a difference so far, or could have.
    pub(super) fn asked(&self) -> Asked {
        self.asked.get()
    }

    /// The buffers of the states.
    pub(super) fn states(&self) -> Vec<Buffer> {
        self.states.iter().map(|(buffer, _)| *buffer).collect()
    }

    /// Whether a view is computed by a copy.
    pub(super) fn is_copied(&self, value: Value) -> bool {
        self.places[value].as_ref().is_some_and(|p| p.copied)
    }

    /// A buffer with this constant, as one access.
    pub(super) fn constant(&mut self, name: String, tensor: &Tensor) -> Access {
        let key = (tensor.ty().bytes(), tensor.ty().dtype, tensor.identity());
        let buffers = &mut self.buffers;
        let buffer = *self.constants.entry(key).or_insert_with(|| {
            let bytes = tensor.ty().bytes() as u64;
            buffers.push(BufferInfo { name, bytes, kind: BufferKind::Constant(tensor.clone()) })
        });
        Access::dense(buffer, tensor.ty())
    }

    /// A dense copy of a constant's elements, which is a constant; `None` when it is no constant or too large.
    pub(super) fn constant_copy(&mut self, name: String, access: &Access) -> Option<Access> {
        let BufferKind::Constant(tensor) = &self.buffers[access.buffer].kind else { return None };
        let ty = access.ty();
        if ty.bytes() > CONSTANT_COPY.max(tensor.ty().bytes()) {
            return None;
        }
        let tensor = tensor.strided(ty.dims, access.offset, &access.strides);
        Some(self.constant(name, &tensor))
    }

    /// Whether an output can be found where its value lies, to the end of the run.
    pub(super) fn is_returned(&self, value: Value) -> bool {
        let stays = |place: &&Place| place.until == usize::MAX;
        self.places[value].as_ref().filter(stays).is_some_and(|p| self.is_port(&p.access))
    }

    /// Whether an access is what a port of the model is: a whole buffer that the caller knows.
    fn is_port(&self, access: &Access) -> bool {
        let info = &self.buffers[access.buffer];
        let known = match info.kind {
            BufferKind::Input | BufferKind::Parameter | BufferKind::Output | BufferKind::State => {
                true
            }
            BufferKind::Temporary | BufferKind::Constant(_) => false,
        };
        known && is_whole(access, info.bytes)
    }

    /// For listings: what a value is called.
    pub(super) fn name(&self, value: Value) -> String {
        let node = &self.graph.nodes[value];
        match (&node.op, node.origins.last()) {
            (mir::Op::Input { name, .. }, _) => name.clone(),
            (_, Some(&origin)) => self.graph.origins[origin].clone(),
            (_, None) => value.to_string(),
        }
    }

    /// Finds the place of a value that is no view, and of all views of it.
    fn decide(&mut self, value: Value) {
        let node = &self.graph.nodes[value];
        let kind = match &node.op {
            mir::Op::Input { role: Role::Input, .. } => Some(BufferKind::Input),
            mir::Op::Input { role: Role::Parameter, .. } => Some(BufferKind::Parameter),
            mir::Op::Constant(_) => None,
            op if op.is_view() => return,
            _ => {
                self.ops[value] = step_op(self.graph, node);
                let place = self.choose(value);
                self.settle(value, place);
                return;
            }
        };
        if let Some(state) = self.links.iter().position(|link| link.input == value) {
            // It is overwritten when all have read it.
            let access = Access::dense(self.states[state].0, &node.ty);
            self.settle(value, Place { access, until: usize::MAX - 1, copied: false });
            return;
        }
        let access = match (kind, &node.op) {
            (None, mir::Op::Constant(tensor)) => self.constant(self.name(value), tensor),
            (kind, _) => {
                let name = self.name(value);
                let (bytes, kind) = (node.ty.bytes() as u64, kind.unwrap_or(BufferKind::Input));
                Access::dense(self.buffers.push(BufferInfo { name, bytes, kind }), &node.ty)
            }
        };
        let place = Place { access, until: usize::MAX, copied: false };
        self.settle(value, place);
    }

    /// Gives a value that is stored, and all views of it, their places.
    fn settle(&mut self, root: Value, place: Place) {
        let mut open = vec![(root, place)];
        while let Some((value, place)) = open.pop() {
            for user in self.views_of(value) {
                let seen = view(&self.graph.nodes[user], &place.access);
                let next = match seen.filter(|_| self.options.alias) {
                    Some(access) => Place { access, until: place.until, copied: false },
                    None => match self.constant_view(user, &place.access) {
                        Some(access) => Place { access, until: usize::MAX, copied: false },
                        None => self.choose(user),
                    },
                };
                open.push((user, next));
            }
            if value == root || place.copied {
                self.written[place.access.buffer].push(value);
            }
            self.places[value] = Some(place);
        }
    }

    fn views_of(&self, value: Value) -> Vec<Value> {
        let views = self.users[value].iter().filter_map(|user| match *user {
            User::Node(user, _) if self.graph.nodes[user].op.is_view() => Some(user),
            User::Node(..) | User::Output(_) | User::State(_) => None,
        });
        views.collect()
    }

    /// The reshape of a constant that lies in no order for it, as another constant.
    fn constant_view(&mut self, user: Value, operand: &Access) -> Option<Access> {
        if !self.options.alias || self.graph.nodes[user].op != mir::Op::Reshape {
            return None;
        }
        self.constant_copy(self.name(user), operand)?.reshaped(&self.graph.ty(user).dims)
    }

    /// The best place for a root: a value that a step computes, or a view that is copied.
    fn choose(&mut self, root: Value) -> Place {
        let copied = self.graph.nodes[root].op.is_view();
        let candidates = self.candidates(root).into_iter();
        let fitting = candidates
            .filter(|c| self.fits(root, &c.access) && self.leaves_states(root, &c.access));
        let weighed = fitting.filter_map(|c| Some((self.cost(root, &c)?, c)));
        // The first of the cheapest. The last candidate, a buffer of its own, is always possible.
        let best = weighed.min_by_key(|(cost, _)| *cost);
        let (cost, best) = best.unwrap_or_else(|| (u64::MAX, self.own(root)));
        if best.fresh == Some(Fresh::Temporary)
            && let Some((joined, other)) = self.turned_into(root)
            && self.fits(root, &other.access)
            && self.cost(root, &other).is_some_and(|other| other <= cost)
        {
            let size = self.graph.ty(root).dtype.bytes() as i64;
            let ahead = u64::try_from(other.access.offset * size).unwrap_or(u64::MAX);
            self.over.push(Over { value: root, joined, ahead });
        }
        if let Some(user) = best.in_place {
            self.taken[user] = true;
        }
        let mut access = best.access;
        let is_joined = matches!(self.graph.nodes[root].op, mir::Op::Concat { .. });
        if best.spread {
            self.joined.extend((is_joined && best.room > 0).then_some(root));
            self.is_spread[access.buffer] = true;
            let bytes = &mut self.buffers[access.buffer].bytes;
            *bytes = best.room.max(*bytes);
        }
        if let Some(fresh) = best.fresh {
            let (kind, name) = match fresh {
                Fresh::Output(index) => {
                    (BufferKind::Output, self.graph.outputs[index].name.clone())
                }
                Fresh::Temporary => (BufferKind::Temporary, self.name(root)),
            };
            let end = access.span().map_or(0, |(_, high)| high as usize + 1);
            let bytes = (end * access.dtype.bytes()).max(self.graph.ty(root).bytes()) as u64;
            self.joined.extend((is_joined && kind == BufferKind::Temporary).then_some(root));
            access.buffer = self.buffers.push(BufferInfo { name, bytes, kind });
        }
        Place { access, until: best.until, copied }
    }

    /// A buffer that does not exist yet.
    fn fresh(access: Access, fresh: Fresh) -> Candidate {
        let fresh = Some(fresh);
        Candidate { access, until: usize::MAX, in_place: None, spread: false, fresh, room: 0 }
    }

    /// A buffer for this root alone: dense, but for planes that would meet in the same lines of a cache.
    fn own(&self, root: Value) -> Candidate {
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
    fn candidates(&self, root: Value) -> Vec<Candidate> {
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
    fn turned_into(&self, root: Value) -> Option<(Value, Candidate)> {
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
    fn is_composed(&self, root: Value) -> bool {
        self.ops[root].is_none() && !self.graph.nodes[root].op.is_view()
    }

    /// How an input, a constant or a view of one lies, in a buffer that is not said.
    fn given(&self, value: Value) -> Option<Access> {
        let node = &self.graph.nodes[value];
        match &node.op {
            mir::Op::Input { .. } | mir::Op::Constant(_) => {
                Some(Access::dense(self.buffers.next_key(), &node.ty))
            }
            op if op.is_view() => view(node, &self.given(node.operands[0])?),
            _ => None,
        }
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

    /// Whether what computes a root may write there.
    fn fits(&self, root: Value, access: &Access) -> bool {
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
    fn leaves_states(&self, root: Value, access: &Access) -> bool {
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
        let between = |&&value: &&Value| {
            let at = self.position[value];
            self.ops[value].is_some() && now < at && at < candidate.until
        };
        let mut others = self.written[access.buffer].iter().filter(between);
        candidate.spread
            || !self.is_spread[access.buffer]
            || !others.any(|&value| self.access(value).is_some_and(|a| a.overlaps(access)))
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
    fn cost(&self, root: Value, candidate: &Candidate) -> Option<u64> {
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
