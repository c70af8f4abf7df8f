//! Model-local functions: calls are replaced by the nodes of the function.
//!
//! A function's names are its own; each call gives them fresh ones, under the call's name. Attributes may
//! refer to those of the call, or to the function's defaults.

use super::branches;
use super::fused;
use super::known::Known;
use super::lists::{self, List};
use super::loops;
use super::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};
use super::scans;
use crate::error::{Error, ErrorKind, NodeContext};
use crate::hir::Limits;
use std::collections::{BTreeMap, BTreeSet};

/// How deep calls may be nested, and how deep branches and loops.
pub const MAX_DEPTH: usize = 32;

/// How many bytes of names and attributes inlining may make.
pub const MAX_NAMES: usize = 256 << 20;

/// A node of an operator that is not a function.
#[derive(Debug)]
pub(super) struct FlatNode {
    pub(super) name: String,
    pub(super) domain: String,
    op: String,
    /// The version that the node's function imports; otherwise the model's holds.
    pub(super) opset: Option<i64>,
    pub(super) attributes: Vec<AttributeProto>,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    /// The conditions under which it holds, and what they have to be.
    pub(super) guards: Vec<(String, bool)>,
}

impl FlatNode {
    /// The operator with its domain, as [`Op::NAME`](crate::ops::Op::NAME) writes it.
    pub(super) fn called(&self) -> String {
        match self.domain.as_str() {
            "" => self.op.clone(),
            domain => format!("{domain}:{}", self.op),
        }
    }

    /// What messages call the node.
    pub(super) fn label(&self) -> &str {
        label(&self.name, &self.outputs)
    }
}

pub(super) fn label<'a>(name: &'a str, outputs: &'a [String]) -> &'a str {
    let first = || outputs.iter().map(String::as_str).find(|o| !o.is_empty()).unwrap_or("");
    if name.is_empty() { first() } else { name }
}

/// The domain's name; ONNX's own has two.
pub(super) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// The nodes of the graph, with calls replaced, and what is wrong with the functions. `known` is what follows from
/// inputs and initializers.
pub(super) fn inline(
    model: &ModelProto,
    graph: &GraphProto,
    known: Known,
) -> (Vec<FlatNode>, Vec<Error>) {
    let mut inliner = Inliner {
        functions: BTreeMap::new(),
        taken: BTreeSet::new(),
        counts: BTreeMap::new(),
        known,
        lists: BTreeMap::new(),
        stack: vec![],
        guards: vec![],
        depth: 0,
        made: 0,
        nodes: vec![],
        errors: vec![],
    };
    for function in &model.functions {
        let key = (domain(&function.domain), function.name.as_str(), function.overload.as_str());
        if inliner.functions.insert(key, function).is_some() {
            let kind =
                ErrorKind::wrong(format!("the function \"{}\" is defined twice", function.name));
            inliner.errors.push(kind.into());
        }
    }
    // Names are only made for calls and branches; without any nothing has to be looked up.
    if !model.functions.is_empty() || graph.node.iter().any(makes_names) {
        let names = graph.node.iter().flat_map(|n| n.input.iter().chain(&n.output));
        inliner.taken.extend(names.map(String::as_str).map(str::to_owned));
        inliner.taken.extend(graph.input.iter().map(|i| i.name.clone()));
        inliner.taken.extend(inliner.known.names().cloned());
    }
    for node in &graph.node {
        if let Err(kind) = inliner.node(node.clone(), None) {
            let label = label(&node.name, &node.output).to_owned();
            let context = NodeContext { name: label, op: node.op_type.clone(), inputs: vec![] };
            inliner.errors.push(Error::from(kind).at(context));
            if inliner.made > MAX_NAMES || inliner.nodes.len() > Limits::default().nodes {
                break;
            }
        }
    }
    for output in graph.output.iter().filter(|o| inliner.lists.contains_key(&o.name)) {
        let kind = ErrorKind::unsupported(format!("the result \"{}\" is no tensor", output.name));
        inliner.errors.push(kind.help("let the model give the tensors of the sequence").into());
    }
    (inliner.nodes, inliner.errors)
}

/// Whether a node that is no call becomes several.
fn makes_names(node: &NodeProto) -> bool {
    branches::is_choice(node)
        || loops::is_loop(node)
        || scans::is_scan(node)
        || lists::is_list(node)
        || domain(&node.domain) == fused::DOMAIN
}

/// Domain, name, overload.
type Key<'a> = (&'a str, &'a str, &'a str);

pub(super) struct Inliner<'a> {
    functions: BTreeMap<Key<'a>, &'a FunctionProto>,
    /// Names of values that are in use.
    taken: BTreeSet<String>,
    /// How often a name was wanted that is in use.
    counts: BTreeMap<String, usize>,
    /// What follows from constants and shapes of inputs.
    pub(super) known: Known,
    /// What the values are that are no tensors.
    pub(super) lists: BTreeMap<String, List>,
    /// The calls that are being inlined.
    stack: Vec<&'a FunctionProto>,
    /// The branches that are being inlined: the conditions under which they are taken.
    pub(super) guards: Vec<(String, bool)>,
    /// How many branches and bodies of loops are being inlined.
    pub(super) depth: usize,
    /// Bytes made so far.
    made: usize,
    nodes: Vec<FlatNode>,
    errors: Vec<Error>,
}

impl<'a> Inliner<'a> {
    /// Adds the node, or what it calls. `function` is the one whose body it is in.
    pub(super) fn node(
        &mut self,
        node: NodeProto,
        function: Option<&'a FunctionProto>,
    ) -> Result<(), ErrorKind> {
        let key = (domain(&node.domain), node.op_type.as_str(), node.overload.as_str());
        if let Some(&callee) = self.functions.get(&key) {
            return self.call(node, callee);
        }
        if branches::is_choice(&node) {
            return self.choice(node, function);
        }
        if loops::is_loop(&node) {
            return self.turns(node, function);
        }
        if scans::is_scan(&node) {
            return self.scan(&node, function);
        }
        if lists::is_list(&node) {
            return self.listed(&node, function);
        }
        if self.takes_lists(&node) {
            if node.op_type == "Identity" {
                return self.passed(&node, &node.input[0]);
            }
            return Err(ErrorKind::wrong("an operand is a sequence or an optional, and no tensor"));
        }
        if let Some(parts) = fused::parts(self, &node)? {
            let first = self.nodes.len();
            parts.into_iter().try_for_each(|part| self.plain(part, None))?;
            self.nodes[first..].iter_mut().for_each(|part| part.opset = Some(fused::OPSET));
            return Ok(());
        }
        self.plain(node, function)
    }

    /// Adds a node that calls nothing.
    pub(super) fn plain(
        &mut self,
        node: NodeProto,
        function: Option<&'a FunctionProto>,
    ) -> Result<(), ErrorKind> {
        if self.nodes.len() >= Limits::default().nodes {
            let most = Limits::default().nodes;
            return Err(ErrorKind::limit(format!("the model has more than {most} nodes")));
        }
        let imports = function.map_or(&[][..], |f| &f.opset_import);
        let domain = domain(&node.domain).to_owned();
        if domain.is_empty() {
            self.known.node(&node);
        }
        let import = imports.iter().find(|i| self::domain(&i.domain) == domain);
        self.nodes.push(FlatNode {
            name: node.name,
            opset: import.map(|i| i.version),
            domain,
            op: node.op_type,
            attributes: node.attribute,
            inputs: node.input,
            outputs: node.output,
            guards: self.guards.clone(),
        });
        Ok(())
    }

    /// Adds a node of ONNX's operators in this version.
    pub(super) fn written(&mut self, node: NodeProto, opset: i64) -> Result<(), ErrorKind> {
        self.plain(node, None)?;
        self.nodes.last_mut().into_iter().for_each(|node| node.opset = Some(opset));
        Ok(())
    }

    fn call(&mut self, call: NodeProto, callee: &'a FunctionProto) -> Result<(), ErrorKind> {
        let name = &callee.name;
        if self.stack.iter().any(|f| std::ptr::eq(*f, callee)) {
            return Err(ErrorKind::wrong(format!("the function \"{name}\" calls itself")));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(ErrorKind::limit(format!(
                "functions are nested more than {MAX_DEPTH} deep"
            )));
        }
        for (what, given, known) in
            [("inputs", &call.input, &callee.input), ("outputs", &call.output, &callee.output)]
        {
            if given.len() > known.len() {
                let (given, known) = (given.len(), known.len());
                return Err(ErrorKind::wrong(format!(
                    "the function \"{name}\" has {known} {what}, and {given} are given"
                )));
            }
        }
        let declares = |attribute: &AttributeProto| {
            callee.attribute.contains(&attribute.name)
                || callee.attribute_proto.iter().any(|a| a.name == attribute.name)
        };
        if let Some(extra) = call.attribute.iter().find(|a| !declares(a)) {
            let extra = &extra.name;
            return Err(ErrorKind::wrong(format!(
                "the function \"{name}\" has no attribute \"{extra}\""
            )));
        }
        self.stack.push(callee);
        let done = self.body(&call, callee);
        self.stack.pop();
        done
    }

    fn body(&mut self, call: &NodeProto, callee: &'a FunctionProto) -> Result<(), ErrorKind> {
        let prefix = label(&call.name, &call.output).to_owned();
        let twice = |name: &str| {
            ErrorKind::wrong(format!("the function \"{}\" has two \"{name}\"", callee.name))
        };
        let mut names: BTreeMap<&str, String> = BTreeMap::new();
        for (i, input) in callee.input.iter().enumerate() {
            if names.insert(input, call.input.get(i).cloned().unwrap_or_default()).is_some() {
                return Err(twice(input));
            }
        }
        // A result that is an operand passes through a node of its own: it has two names outside.
        let mut passed = vec![];
        for (i, output) in callee.output.iter().enumerate() {
            let outside = call.output.get(i).filter(|o| !o.is_empty());
            if let Some(inside) = names.get(output.as_str()) {
                if callee.output[..i].contains(output) {
                    return Err(twice(output));
                }
                passed.extend(outside.map(|outside| (inside.clone(), outside.clone())));
                continue;
            }
            let outside = match outside {
                Some(outside) => outside.clone(),
                None => self.fresh(&prefix, output)?,
            };
            names.insert(output, outside);
        }
        for node in &callee.node {
            self.spend(weight(node) + prefix.len())?;
            let mut copy = node.clone();
            copy.attribute =
                node.attribute.iter().filter_map(|a| resolved(a, call, callee)).collect();
            copy.name = format!("{prefix}/{}", label(&node.name, &node.output));
            for (name, original) in copy
                .input
                .iter_mut()
                .zip(&node.input)
                .chain(copy.output.iter_mut().zip(&node.output))
                .filter(|(name, _)| !name.is_empty())
            {
                if !names.contains_key(original.as_str()) {
                    names.insert(original, self.fresh(&prefix, original)?);
                }
                *name = names[original.as_str()].clone();
            }
            branches::renamed(&mut copy, &names)?;
            self.node(copy, Some(callee))?;
        }
        for (inside, outside) in passed {
            let node = NodeProto {
                name: prefix.clone(),
                op_type: "Identity".to_owned(),
                input: vec![inside],
                output: vec![outside],
                ..NodeProto::default()
            };
            self.node(node, Some(callee))?;
        }
        Ok(())
    }

    /// A name that no other value has.
    pub(super) fn fresh(&mut self, prefix: &str, name: &str) -> Result<String, ErrorKind> {
        let plain = format!("{prefix}/{name}");
        self.spend(plain.len())?;
        let mut fresh = plain.clone();
        while !self.taken.insert(fresh.clone()) {
            let count = self.counts.entry(plain.clone()).or_insert(1);
            *count += 1;
            fresh = format!("{plain}.{count}");
        }
        Ok(fresh)
    }

    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), ErrorKind> {
        self.made = self.made.saturating_add(bytes);
        if self.made <= MAX_NAMES {
            return Ok(());
        }
        Err(ErrorKind::limit(format!(
            "its functions take more than {MAX_NAMES} bytes when inlined"
        )))
    }
}

/// The attribute of a function's node in this call; none where it refers to one that is not given.
fn resolved(
    a: &AttributeProto,
    call: &NodeProto,
    callee: &FunctionProto,
) -> Option<AttributeProto> {
    if a.ref_attr_name.is_empty() {
        return Some(a.clone());
    }
    let given =
        call.attribute.iter().chain(&callee.attribute_proto).find(|g| g.name == a.ref_attr_name)?;
    Some(AttributeProto { name: a.name.clone(), ..given.clone() })
}

/// About how many bytes a copy of the node takes; tensors are shared, but for those of graphs.
pub(super) fn weight(node: &NodeProto) -> usize {
    let attribute = |a: &AttributeProto| {
        let graph = a.g.as_ref().map_or(0, |graph| graph.len());
        100 + graph + a.name.len() + 4 * a.floats.len() + 8 * a.ints.len() + 32 * a.strings.len()
    };
    let names: usize = node.input.iter().chain(&node.output).map(|n| 24 + n.len()).sum();
    100 + node.name.len() + names + node.attribute.iter().map(attribute).sum::<usize>()
}
