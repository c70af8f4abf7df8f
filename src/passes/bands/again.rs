//! Nodes that are computed once more, just before they are read, instead of being kept until then.

use super::super::rewrite::Rewriter;
use super::Cut;
use crate::mir::{Graph, Value};
use cranelift_entity::SecondaryMap;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that are computed once more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Again {
    /// Which, with those views of them that are read from then on. None is in bands.
    pub nodes: BTreeSet<Value>,
    /// It and all that come behind it read the new ones. All of the nodes are before it.
    pub reader: Value,
}

/// Where nodes are written: each in its own place, but those of a region where its sink is.
#[derive(Clone, Debug)]
pub struct Sites(SecondaryMap<Value, Option<Value>>);

impl Sites {
    /// Of a graph that is cut so.
    pub fn new<'a>(cuts: impl IntoIterator<Item = &'a Cut>) -> Sites {
        let mut sites: SecondaryMap<Value, Option<Value>> = SecondaryMap::new();
        for Cut { region, .. } in cuts {
            region.nodes.keys().for_each(|&value| sites[value] = Some(region.sink));
        }
        Sites(sites)
    }

    /// The node in whose place a node is written.
    pub fn of(&self, value: Value) -> Value {
        self.0[value].unwrap_or(value)
    }

    /// Whether a node is in bands.
    pub fn is_cut(&self, value: Value) -> bool {
        self.0[value].is_some()
    }
}

/// What is computed again before each node.
pub(super) fn by_reader<'a>(again: &'a [Again], sites: &Sites) -> BTreeMap<Value, Vec<&'a Again>> {
    let mut all: BTreeMap<Value, Vec<&Again>> = BTreeMap::new();
    again.iter().for_each(|again| all.entry(sites.of(again.reader)).or_default().push(again));
    all
}

/// Appends nodes once more, and has all that comes behind read them.
pub(super) fn write(
    r: &mut Rewriter<'_>,
    from: &mut SecondaryMap<Value, Option<Value>>,
    again: &Again,
) {
    for &old in &again.nodes {
        let new = r.copy(old);
        from[new] = Some(old);
    }
}

impl Again {
    /// Nodes of a graph that are computed again before a reader, with the views of them that are needed from then on:
    /// `users` says who reads what.
    pub fn new(
        graph: &Graph,
        users: &SecondaryMap<Value, Vec<Value>>,
        sites: &Sites,
        mut nodes: BTreeSet<Value>,
        reader: Value,
    ) -> Again {
        let site = sites.of(reader);
        // From the last to the first, so that a view's own views are known before it.
        let (mut open, mut views) = (nodes.clone(), BTreeSet::new());
        let mut all = vec![];
        while let Some(value) = open.pop_first() {
            let of = users[value].iter().copied();
            let seen = |&user: &Value| {
                graph.nodes[user].op.is_view() && user < site && !sites.is_cut(user)
            };
            for user in of.filter(seen) {
                open.insert(user);
                all.push(user);
            }
        }
        all.sort_unstable();
        for &view in all.iter().rev() {
            let needs = |user: &Value| {
                nodes.contains(user) || views.contains(user) || sites.of(*user) >= site
            };
            if users[view].iter().any(needs) {
                views.insert(view);
            }
        }
        nodes.append(&mut views);
        Again { nodes, reader }
    }
}
