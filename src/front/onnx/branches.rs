//! `If`: the nodes of both branches become the graph's own, and an operator chooses between what they give.
//!
//! A branch's nodes hold only under its condition: where that is known when the model is checked, those of the
//! other branch are dropped, whatever is wrong with them. Names of a branch are its own; it sees those around it.

use super::functions::{Inliner, MAX_DEPTH};
use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto};
use crate::error::ErrorKind;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a node has branches.
pub(super) fn is_choice(node: &NodeProto) -> bool {
    node.op_type == "If" && super::functions::domain(&node.domain).is_empty()
}

/// The graph that an attribute holds.
fn graph(attribute: &AttributeProto) -> Result<Option<GraphProto>, ErrorKind> {
    let Some(bytes) = &attribute.g else { return Ok(None) };
    let decoded = GraphProto::decode(bytes.clone());
    decoded.map(Some).map_err(|e| {
        ErrorKind::wrong(format!("attribute \"{}\" is no valid graph: {e}", attribute.name))
    })
}

/// The graph that a node has to have as this attribute.
pub(super) fn required(node: &NodeProto, name: &str) -> Result<GraphProto, ErrorKind> {
    let attribute = node.attribute.iter().find(|a| a.name == name);
    let found = attribute.map(graph).transpose()?.flatten();
    found.ok_or_else(|| ErrorKind::wrong(format!("attribute \"{name}\" is missing, or no graph")))
}

/// The same node, where its graphs call values around them by their new names; not those that they define
/// themselves.
pub(super) fn renamed(
    node: &mut NodeProto,
    names: &BTreeMap<&str, String>,
) -> Result<(), ErrorKind> {
    renamed_but(node, names, &BTreeSet::new(), 0)
}

fn renamed_but(
    node: &mut NodeProto,
    names: &BTreeMap<&str, String>,
    hidden: &BTreeSet<String>,
    depth: usize,
) -> Result<(), ErrorKind> {
    for attribute in &mut node.attribute {
        let Some(mut inner) = graph(attribute)? else { continue };
        shallow(depth)?;
        let mut hidden = hidden.clone();
        hidden.extend(inner.initializer.iter().map(|tensor| tensor.name.clone()));
        hidden.extend(inner.input.iter().map(|input| input.name.clone()));
        hidden.extend(inner.node.iter().flat_map(|node| node.output.iter().cloned()));
        let new = |name: &mut String| {
            if let Some(new) = names.get(name.as_str()).filter(|_| !hidden.contains(name)) {
                name.clone_from(new);
            }
        };
        for node in &mut inner.node {
            node.input.iter_mut().for_each(new);
            renamed_but(node, names, &hidden, depth + 1)?;
        }
        inner.output.iter_mut().for_each(|output| new(&mut output.name));
        attribute.g = Some(inner.encode_to_vec().into());
    }
    Ok(())
}

/// An error where a graph is in too many others.
fn shallow(depth: usize) -> Result<(), ErrorKind> {
    if depth < MAX_DEPTH {
        return Ok(());
    }
    Err(ErrorKind::limit(format!("branches and loops are nested more than {MAX_DEPTH} deep")))
}

impl<'a> Inliner<'a> {
    /// Adds the nodes of both branches, and the choice.
    pub(super) fn choice(
        &mut self,
        node: NodeProto,
        function: Option<&'a FunctionProto>,
    ) -> Result<(), ErrorKind> {
        let [condition] = &node.input[..] else {
            return Err(ErrorKind::wrong(format!(
                "{} operands are given, and 1 is asked for",
                node.input.len()
            )));
        };
        let mut inputs = vec![condition.clone()];
        for (name, holds) in [("then_branch", true), ("else_branch", false)] {
            let branch = required(&node, name)?;
            if branch.output.len() != node.output.len() {
                let (given, asked) = (branch.output.len(), node.output.len());
                return Err(ErrorKind::wrong(format!(
                    "\"{name}\" gives {given} results for {asked}"
                )));
            }
            self.guards.push((condition.clone(), holds));
            let results = self.branch(&node, name, branch, vec![], function);
            self.guards.pop();
            inputs.extend(results?);
        }
        let mut outputs = vec![];
        let (mut kept, count) = (vec![condition.clone()], node.output.len());
        let tensors = |inliner: &Inliner<'a>, i: usize| {
            let both = [&inputs[1 + i], &inputs[1 + count + i]];
            both.into_iter().all(|name| !inliner.lists.contains_key(name))
        };
        for branch in [1, 1 + count] {
            let own = (0..count).filter(|&i| tensors(self, i)).map(|i| inputs[branch + i].clone());
            kept.extend(own);
        }
        for (i, output) in node.output.iter().enumerate() {
            if tensors(self, i) {
                outputs.push(output.clone());
                continue;
            }
            let holds = self.known.single(condition).ok_or_else(|| {
                ErrorKind::unsupported("which sequence or optional it gives is known only at run time")
                    .help("the condition must follow from constants of the model and shapes of its inputs")
            })?;
            let taken = if holds != 0 { &inputs[1 + i] } else { &inputs[1 + count + i] };
            let identity = NodeProto { output: vec![output.clone()], ..node.clone() };
            self.passed(&identity, taken)?;
        }
        if outputs.is_empty() && count > 0 {
            return Ok(());
        }
        let choice = NodeProto { attribute: vec![], input: kept, output: outputs, ..node };
        self.plain(choice, function)
    }

    /// Adds the nodes of a branch, whose inputs are these values around it; gives the names of its results.
    pub(super) fn branch(
        &mut self,
        choice: &NodeProto,
        which: &str,
        branch: GraphProto,
        bound: Vec<(String, String)>,
        function: Option<&'a FunctionProto>,
    ) -> Result<Vec<String>, ErrorKind> {
        shallow(self.depth)?;
        self.depth += 1;
        let results = self.inside(choice, which, branch, bound, function);
        self.depth -= 1;
        results
    }

    fn inside(
        &mut self,
        choice: &NodeProto,
        which: &str,
        branch: GraphProto,
        bound: Vec<(String, String)>,
        function: Option<&'a FunctionProto>,
    ) -> Result<Vec<String>, ErrorKind> {
        if !branch.sparse_initializer.is_empty() {
            return Err(ErrorKind::unsupported("sparse initializers"));
        }
        let prefix = format!("{}/{which}", super::functions::label(&choice.name, &choice.output));
        let mut names: BTreeMap<&str, String> = BTreeMap::new();
        names.extend(bound.iter().map(|(input, value)| (input.as_str(), value.clone())));
        for tensor in &branch.initializer {
            let name = self.fresh(&prefix, &tensor.name)?;
            names.insert(&tensor.name, name.clone());
            self.plain(constant(tensor.clone(), name), None)?;
        }
        for node in &branch.node {
            for output in node.output.iter().filter(|o| !o.is_empty()) {
                let name = self.fresh(&prefix, output)?;
                names.insert(output, name);
            }
        }
        for node in &branch.node {
            self.spend(super::functions::weight(node) + prefix.len())?;
            let mut copy = node.clone();
            for name in copy.input.iter_mut().chain(&mut copy.output) {
                if let Some(new) = names.get(name.as_str()) {
                    name.clone_from(new);
                }
            }
            renamed(&mut copy, &names)?;
            if !copy.name.is_empty() {
                copy.name = format!("{prefix}/{}", copy.name);
            }
            self.node(copy, function)?;
        }
        let result = |name: &String| names.get(name.as_str()).unwrap_or(name).clone();
        Ok(branch.output.iter().map(|output| result(&output.name)).collect())
    }
}

/// A tensor as a node.
fn constant(tensor: TensorProto, name: String) -> NodeProto {
    /// The type of an attribute that is a tensor.
    const TENSOR: i32 = 4;
    let value = AttributeProto {
        name: "value".to_owned(),
        t: Some(Box::new(tensor)),
        r#type: TENSOR,
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: "Constant".to_owned(),
        attribute: vec![value],
        output: vec![name],
        ..NodeProto::default()
    }
}
