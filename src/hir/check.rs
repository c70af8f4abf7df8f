//! Binds symbolic dimensions, infers every type, folds constants.
//!
//! A node whose operands are all known is evaluated here by its reference definition, within a
//! budget: that is how shape arithmetic goes away, whatever operators an exporter used for it. What
//! is over the budget stays a step of the program.

use super::*;
use crate::error::{Error, ErrorKind, Errors, NodeContext, nearest};
use crate::ops::{Operand, Operands};
use cranelift_entity::SecondaryMap;
use std::collections::{BTreeMap, BTreeSet};

/// What may be spent on a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one folded constant.
    pub folded_bytes: usize,
    /// Bytes of all folded constants.
    pub folded_total: usize,
    /// Nodes of a model.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { folded_bytes: 256 << 20, folded_total: 1 << 30, nodes: 1_000_000 }
    }
}

/// A graph with the type of every value and the value of every constant.
#[derive(Clone, Debug)]
pub struct Checked {
    graph: Graph,
    types: SecondaryMap<Value, Option<Type>>,
    constants: SecondaryMap<Value, Option<Tensor>>,
}

impl Checked {
    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Type of a value.
    pub fn ty(&self, value: Value) -> &Type {
        self.types[value].as_ref().expect("check gave every value a type")
    }

    /// The value, if it is known now.
    pub fn constant(&self, value: Value) -> Option<&Tensor> {
        self.constants[value].as_ref()
    }

    /// Types of all results of a node, of those that nobody uses too.
    pub fn result_types(&self, node: Node) -> Vec<Type> {
        let info = &self.graph.nodes[node];
        let operand = |v: Value| Operand { ty: self.ty(v), constant: self.constant(v) };
        let operands = Operands::new(info.inputs.iter().map(|v| v.map(operand)).collect());
        info.op.infer(&operands).expect("check has inferred it")
    }

    /// The nodes that have to run: those with a result that is not known now, and on which an output
    /// depends.
    pub fn live(&self) -> Vec<Node> {
        let mut needed: SecondaryMap<Value, bool> = SecondaryMap::new();
        self.graph.outputs.iter().for_each(|&v| needed[v] = true);
        let mut live = vec![];
        for (node, info) in self.graph.nodes.iter().rev() {
            let wanted = |v: &Value| needed[*v] && self.constants[*v].is_none();
            if info.outputs.iter().flatten().any(wanted) {
                info.inputs.iter().flatten().for_each(|&v| needed[v] = true);
                live.push(node);
            }
        }
        live.reverse();
        live
    }
}

/// Checks the graph with these values for its symbolic dimensions.
///
/// # Errors
///
/// Symbols that are not bound, bindings that bind nothing, and every node that does not fit; what
/// depends on a node with an error is not reported again.
pub fn check(
    mut graph: Graph,
    bindings: &BTreeMap<String, usize>,
    limits: Limits,
) -> Result<Checked, Errors> {
    let mut errors = vec![];
    if graph.nodes.len() > limits.nodes {
        let (found, most) = (graph.nodes.len(), limits.nodes);
        errors.push(
            ErrorKind::limit(format!("the model has {found} nodes, and {most} is the limit"))
                .into(),
        );
        return Err(Errors(errors));
    }
    let mut checker = Checker {
        types: SecondaryMap::with_capacity(graph.values.len()),
        constants: SecondaryMap::with_capacity(graph.values.len()),
        limits,
        folded: 0,
        errors,
    };
    checker.inputs(&graph, bindings);
    for (value, info) in &graph.values {
        if let Some(tensor) = &info.constant {
            checker.types[value] = Some(tensor.ty().clone());
            checker.constants[value] = Some(tensor.clone());
        }
    }
    let mut kept = PrimaryMap::with_capacity(graph.nodes.len());
    for (_, mut info) in std::mem::take(&mut graph.nodes) {
        if checker.holds(&info) {
            checker.choose(&mut info);
            checker.node(&graph, &info);
            kept.push(info);
        }
    }
    graph.nodes = kept;
    let Checker { types, constants, errors, .. } = checker;
    if errors.is_empty() { Ok(Checked { graph, types, constants }) } else { Err(Errors(errors)) }
}

struct Checker {
    types: SecondaryMap<Value, Option<Type>>,
    constants: SecondaryMap<Value, Option<Tensor>>,
    limits: Limits,
    folded: usize,
    errors: Vec<Error>,
}

impl Checker {
    fn inputs(&mut self, graph: &Graph, bindings: &BTreeMap<String, usize>) {
        let mut known = BTreeSet::new();
        let mut unbound = BTreeSet::new();
        for input in &graph.inputs {
            let name = &graph.values[input.value].name;
            let mut dims = vec![];
            for (axis, dim) in input.dims.iter().enumerate() {
                let symbol = match dim {
                    Dim::Fixed(n) => {
                        dims.push(*n);
                        continue;
                    }
                    Dim::Symbol(symbol) => symbol.clone(),
                    Dim::Unknown => format!("{name}.{axis}"),
                };
                match bindings.get(&symbol) {
                    Some(&n) => dims.push(n),
                    None if unbound.insert(symbol.clone()) => {
                        let shape: Vec<_> = input.dims.iter().map(ToString::to_string).collect();
                        let kind = ErrorKind::wrong(format!(
                            "dimension \"{symbol}\" of input \"{name}\" {}[{}] is not bound",
                            input.dtype,
                            shape.join(", ")
                        ));
                        self.errors
                            .push(kind.help(format!("give it a value: --dim {symbol}=1")).into());
                    }
                    None => {}
                }
                known.insert(symbol);
            }
            if dims.len() < input.dims.len() {
                continue;
            }
            match Type::try_new(input.dtype, dims) {
                Some(ty) => self.types[input.value] = Some(ty),
                None => self
                    .errors
                    .push(ErrorKind::limit(format!("input \"{name}\" is too large")).into()),
            }
        }
        for name in bindings.keys().filter(|&name| !known.contains(name)) {
            let kind = ErrorKind::usage(format!("the model has no symbolic dimension \"{name}\""));
            let near = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
            let all: Vec<_> = known.iter().map(String::as_str).collect();
            let help = match (near, all.is_empty()) {
                (Some(near), _) => format!("did you mean \"{near}\"?"),
                (None, true) => "it has none".to_owned(),
                (None, false) => format!("it has: {}", all.join(", ")),
            };
            self.errors.push(kind.help(help).into());
        }
    }

    /// Whether no branch that the node is in is known not to be taken.
    fn holds(&self, info: &NodeInfo) -> bool {
        info.guards.iter().all(|&(condition, wanted)| match &self.constants[condition] {
            Some(known) if known.ty().elements() == 1 => (known.int_at(0) != 0) == wanted,
            _ => true,
        })
    }

    /// Leaves of a choice under a known condition what is chosen.
    fn choose(&self, info: &mut NodeInfo) {
        let AnyOp::If(choice) = &info.op else { return };
        let condition = choice.condition(&info.inputs).flatten();
        if let Some(known) = condition.and_then(|v| self.constants[v].as_ref())
            && known.ty().elements() == 1
            && known.ty().dtype == DType::Bool
        {
            info.inputs = choice.chosen(&info.inputs, known.int_at(0) != 0);
        }
    }

    fn node(&mut self, graph: &Graph, info: &NodeInfo) {
        let known = |v: &Option<Value>| v.is_none_or(|v| self.types[v].is_some());
        if !info.inputs.iter().all(known) {
            return; // The error was reported where it arose.
        }
        let operand = |v: Value| Operand {
            ty: self.types[v].as_ref().expect("all types are known"),
            constant: self.constants[v].as_ref(),
        };
        let operands = Operands::new(info.inputs.iter().map(|v| v.map(operand)).collect());
        let types = match info.op.infer(&operands) {
            Ok(types) => types,
            Err(kind) => return self.errors.push(Error::from(kind).at(self.context(graph, info))),
        };
        if types.len() < info.outputs.len() {
            let (found, most) = (info.outputs.len(), types.len());
            let kind =
                ErrorKind::wrong(format!("the node has {found} outputs, and the operator {most}"));
            return self.errors.push(Error::from(kind).at(self.context(graph, info)));
        }
        for (&value, ty) in info.outputs.iter().zip(&types) {
            let declared = value.and_then(|v| graph.values[v].declared.as_ref());
            if let Some((dtype, dims)) = declared.filter(|declared| !fits(ty, declared)) {
                let dims: Vec<_> = dims.iter().map(ToString::to_string).collect();
                let dims = dims.join(", ");
                let kind =
                    ErrorKind::wrong(format!("the result is {ty}, and declared {dtype}[{dims}]"));
                return self.errors.push(Error::from(kind).at(self.context(graph, info)));
            }
        }
        let bytes: usize = types.iter().map(Type::bytes).sum();
        let cheap =
            bytes <= self.limits.folded_bytes && self.folded + bytes <= self.limits.folded_total;
        let folds = operands.all_constant() && cheap && !info.op.is_left(&types);
        let folded = match (info.op.value_of_types(&operands), folds) {
            (Some(tensors), _) => Some(tensors),
            (None, true) => {
                self.folded += bytes;
                let inputs: Vec<_> = info
                    .inputs
                    .iter()
                    .map(|v| v.and_then(|v| self.constants[v].as_ref()))
                    .collect();
                Some(info.op.reference(&inputs, &types))
            }
            (None, false) => None,
        };
        for (i, &value) in info.outputs.iter().enumerate() {
            let Some(value) = value else { continue };
            self.types[value] = Some(types[i].clone());
            self.constants[value] = folded.as_ref().map(|tensors| tensors[i].clone());
        }
    }

    fn context(&self, graph: &Graph, info: &NodeInfo) -> NodeContext {
        let input = |v: &Option<Value>| match *v {
            Some(v) => (graph.values[v].name.clone(), self.types[v].clone()),
            None => (String::new(), None),
        };
        let inputs = info.inputs.iter().map(input).collect();
        NodeContext { name: info.name.clone(), op: info.op.name().to_owned(), inputs }
    }
}

/// Whether the type is what was declared, symbolic dimensions aside.
fn fits(ty: &Type, (dtype, dims): &(DType, Vec<Dim>)) -> bool {
    let same = |(dim, &n): (&Dim, &usize)| !matches!(dim, Dim::Fixed(m) if *m != n);
    ty.dtype == *dtype && ty.rank() == dims.len() && dims.iter().zip(&ty.dims).all(same)
}
