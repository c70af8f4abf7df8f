//! Where every value is kept: decided from the last value to the first, so that a producer knows what
//! its users want.
//!
//! A value that a step computes is a root; views of it are accesses to the same storage. For each root
//! the places that its users offer are weighed: an output's buffer, a window in a concatenation or
//! border, the place of a user that works in place, and buffers of its own in an order of axes
//! that some user asks for. The place that leads to the fewest copied bytes wins.

mod cost;
mod offers;

use super::orders::is_whole;
use super::state::{Link, Reader, readers};
use super::storage::{Asked, Windows, step_op};
use super::views::view;
use super::{Access, Buffer, BufferInfo, BufferKind, Op, Options};
use crate::mir::{self, Graph, Role, Value};
use crate::tensor::{Identity, Tensor};
use crate::types::DType;
use cranelift_entity::{PrimaryMap, SecondaryMap};
use std::collections::BTreeMap;

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
    /// Whether buffers have names.
    named: bool,
    /// All buffers; their order means nothing yet.
    pub(super) buffers: PrimaryMap<Buffer, BufferInfo>,
    /// The kind of step that computes each value, if one does.
    pub(super) ops: SecondaryMap<Value, Option<Op>>,
    places: SecondaryMap<Value, Option<Place>>,
    /// The step already works in place of one of its operands; it has room for no other.
    taken: SecondaryMap<Value, bool>,
    /// What is written to each buffer: roots and copied views.
    written: SecondaryMap<Buffer, Vec<Value>>,
    /// When each of these is written, and the end of its elements; but for those without any.
    ends: SecondaryMap<Buffer, Vec<(usize, i64)>>,
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
    asked: Asked,
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
    /// What of the windows it needs.
    asks: Asked,
}

/// What a buffer is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    /// A result of the model, by its index.
    Output(usize),
    /// A root that nobody sees.
    Temporary,
}

/// Something about every value, with room for all of them.
pub(super) fn table<T: Clone + Default>(graph: &Graph) -> SecondaryMap<Value, T> {
    let mut table = SecondaryMap::new();
    table.resize(graph.nodes.len());
    table
}

impl<'a> Homes<'a> {
    /// Finds a place for every value that the outputs need, and for all inputs. Without names, nothing has one.
    pub(super) fn new(
        graph: &'a Graph,
        order: &[Value],
        links: &'a [Link],
        invariant: SecondaryMap<Value, bool>,
        options: &'a Options,
        windows: &'a Windows,
        named: bool,
    ) -> Homes<'a> {
        let mut homes = Homes {
            graph,
            links,
            states: vec![],
            invariant,
            options,
            windows,
            named,
            buffers: PrimaryMap::new(),
            ops: table(graph),
            places: table(graph),
            taken: table(graph),
            written: SecondaryMap::new(),
            ends: SecondaryMap::new(),
            is_spread: SecondaryMap::new(),
            joined: vec![],
            over: vec![],
            users: table(graph),
            position: table(graph),
            constants: BTreeMap::new(),
            asked: Asked::default(),
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

    /// What of the windows has made a difference so far.
    pub(super) fn asked(&self) -> Asked {
        self.asked
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
        if !self.named {
            return String::new();
        }
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
                let end = place.access.span().map(|(_, high)| (self.position[value], high + 1));
                self.ends[place.access.buffer].extend(end);
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
        // The first of the cheapest. A buffer of its own is always possible.
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
        self.asked = self.asked.and(best.asks);
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
}
