//! Modules and graphs that RLX (crates `rlx-*`, versions 0.2.2 to 0.2.19) writes as JSON.
//!
//! A lowered module is `{"mir": {"inner": GRAPH}, "buffers": PLAN}`; a graph is GRAPH by itself. There
//! is neither a version nor a mark: the keys tell. Fields that only say where a node came from are
//! skipped; a field of an operator that is not known is an error, one that an older version does not
//! write has the value that it had there. Of a constant's bytes the last ones may be missing: they are
//! zero. What each operator means here is in the table of [`ops::rlx`](crate::ops::rlx).

mod ops;
mod plan;
mod record;
#[cfg(test)]
mod tests;

pub use plan::{Plan, PlanNode, Slot, View};
pub use record::{Record, read_record};

use super::safetensors::Params;
use super::{merged, of};
use crate::error::{Error, ErrorKind, Errors, NodeContext};
use crate::hir::{Builder, Dim, Graph};
use crate::ops::{AnyOp, Attrs, DEFAULT_OPSET};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use ops::{Call, Operand};
use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A lowered module.
#[derive(Deserialize)]
struct Module {
    mir: Mir,
    buffers: Option<plan::Buffers>,
}

#[derive(Deserialize)]
struct Mir {
    inner: Inner,
}

/// A graph.
#[derive(Deserialize)]
struct Inner {
    name: String,
    nodes: Vec<Node>,
    outputs: Vec<usize>,
}

#[derive(Deserialize)]
struct Node {
    id: usize,
    op: Op,
    inputs: Vec<usize>,
    shape: Shape,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Shape {
    dims: Vec<Extent>,
    dtype: String,
}

#[derive(Clone, Copy, Deserialize)]
enum Extent {
    Static(usize),
    Dynamic(u32),
}

/// An operator: its name, or one key with its fields.
enum Op {
    Constant(Vec<u8>),
    Other(String, Value),
}

impl<'de> Deserialize<'de> for Op {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Op, D::Error> {
        /// Numbers, one by one: as a JSON value they would take thirty times the space.
        #[derive(Deserialize)]
        struct Data {
            data: Vec<u8>,
        }
        struct OpVisitor;
        impl<'de> Visitor<'de> for OpVisitor {
            type Value = Op;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an operator, or an object with its name as the one key")
            }
            fn visit_str<E>(self, name: &str) -> Result<Op, E> {
                Ok(Op::Other(name.to_owned(), Value::Null))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Op, A::Error> {
                let Some(name) = map.next_key::<String>()? else {
                    return Err(de::Error::invalid_length(0, &self));
                };
                let op = match name.as_str() {
                    "Constant" => Op::Constant(map.next_value::<Data>()?.data),
                    _ => Op::Other(name, map.next_value()?),
                };
                match map.next_key::<String>()? {
                    None => Ok(op),
                    Some(_) => Err(de::Error::invalid_length(2, &self)),
                }
            }
        }
        deserializer.deserialize_any(OpVisitor)
    }
}

/// The lowered module (or, if not `lowered`, the graph) in `text`, and its plan if it is to be kept.
///
/// # Errors
///
/// Text that is not of this format; otherwise all that is wrong or unsupported.
pub(super) fn read(
    text: &[u8],
    lowered: bool,
    keep_plan: bool,
    params: &mut Params,
) -> Result<(Graph, Option<Plan>), Errors> {
    let syntax = |e| super::json::syntax(&e);
    let (inner, buffers) = if lowered {
        let Module { mir, buffers } = serde_json::from_slice(text).map_err(syntax)?;
        (mir.inner, buffers)
    } else {
        (serde_json::from_slice(text).map_err(syntax)?, None)
    };
    let names = names(&inner)?;
    let graph = Reader {
        inner: &inner,
        names: &names,
        builder: Builder::new(&inner.name),
        params,
        types: vec![],
        errors: vec![],
    };
    let graph = graph.read()?;
    let plan = buffers.filter(|_| keep_plan).map(|buffers| Plan::new(&inner, names, buffers));
    Ok((graph, plan.transpose()?))
}

/// A name for the value of each node: its own where it is the first to have it, else one by its number.
fn names(inner: &Inner) -> Result<Vec<String>, ErrorKind> {
    for (index, node) in inner.nodes.iter().enumerate() {
        if node.id != index {
            return Err(ErrorKind::wrong(format!("the node at {index} has the id {}", node.id)));
        }
        let known = |&i: &usize| i < inner.nodes.len();
        if let Some(operand) = node.inputs.iter().find(|i| !known(i)) {
            return Err(ErrorKind::wrong(format!(
                "node {index} has the operand {operand}, which is no node"
            )));
        }
    }
    if let Some(output) = inner.outputs.iter().find(|&&o| o >= inner.nodes.len()) {
        return Err(ErrorKind::wrong(format!("the output {output} is no node")));
    }
    // The names of inputs and parameters are the caller's: they come first.
    let given = |node: &Node| match &node.op {
        Op::Other(op, fields) if op == "Input" || op == "Param" => {
            fields.get("name").and_then(Value::as_str).map(str::to_owned)
        }
        _ => None,
    };
    let mut taken: BTreeSet<String> = inner.nodes.iter().filter_map(given).collect();
    let outputs: BTreeMap<usize, usize> =
        inner.outputs.iter().enumerate().rev().map(|(i, &node)| (node, i)).collect();
    let mut name = |(index, node): (usize, &Node)| {
        if let Some(name) = given(node) {
            return name;
        }
        let mut name = match (outputs.get(&index), &node.name) {
            (_, Some(name)) if !name.is_empty() && !taken.contains(name) => name.clone(),
            (Some(_), _) if inner.outputs.len() == 1 => "output".to_owned(),
            (Some(i), _) => format!("output_{i}"),
            (None, _) => format!("n{index}"),
        };
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        name
    };
    Ok(inner.nodes.iter().enumerate().map(&mut name).collect())
}

struct Reader<'a> {
    inner: &'a Inner,
    names: &'a [String],
    builder: Builder,
    params: &'a mut Params,
    /// Types of the nodes so far, where nothing in them is symbolic; for messages.
    types: Vec<Option<Type>>,
    errors: Vec<Error>,
}

impl Reader<'_> {
    fn read(mut self) -> Result<Graph, Errors> {
        let mut used = vec![false; self.inner.nodes.len()];
        let operands = self.inner.nodes.iter().flat_map(|n| &n.inputs);
        operands.chain(&self.inner.outputs).for_each(|&i| used[i] = true);
        for (index, node) in self.inner.nodes.iter().enumerate() {
            let typed = typed(&node.shape);
            let fixed = typed.as_ref().ok().and_then(|(dtype, dims)| fixed(*dtype, dims));
            self.types.push(fixed);
            let done = typed.and_then(|(dtype, dims)| self.node(index, dtype, dims, used[index]));
            if let Err(kind) = done {
                self.errors.push(Error::from(kind).at(self.context(index)));
                self.builder.input(&self.names[index], DType::F32, vec![], false);
            }
        }
        self.inner.outputs.iter().for_each(|&node| self.builder.output(&self.names[node]));
        merged(self.errors).into_iter().for_each(|e| self.builder.error(e));
        self.builder.finish()
    }

    fn context(&self, index: usize) -> NodeContext {
        let node = &self.inner.nodes[index];
        let op = match &node.op {
            Op::Constant(_) => "Constant".to_owned(),
            Op::Other(name, _) => name.clone(),
        };
        let input = |&i: &usize| (self.names[i].clone(), self.types.get(i).cloned().flatten());
        let inputs = node.inputs.iter().map(input).collect();
        NodeContext { name: self.names[index].clone(), op, inputs }
    }

    fn node(
        &mut self,
        index: usize,
        dtype: DType,
        dims: Vec<Dim>,
        used: bool,
    ) -> Result<(), ErrorKind> {
        let node = &self.inner.nodes[index];
        let name = &self.names[index];
        let (op, fields) = match &node.op {
            Op::Constant(data) => {
                let tensor = constant(data, self.types[index].as_ref())?;
                self.builder.constant(name, tensor);
                return Ok(());
            }
            Op::Other(op, fields) => (op, fields),
        };
        if op == "Input" || op == "Param" {
            if !fields.get("name").is_some_and(Value::is_string) {
                return Err(ErrorKind::wrong("it has no name"));
            }
            let parameter = op == "Param";
            let value = match parameter {
                true => self.params.get(name, dtype, &dims)?,
                false => None,
            };
            match value {
                Some(tensor) => self.builder.constant(name, tensor),
                None => self.builder.input(name, dtype, dims, parameter),
            }
            return Ok(());
        }
        let call = ops::call(op, fields, node.inputs.len(), dtype, &dims)?;
        self.builder.declare(name, dtype, dims);
        self.call(call, index, used)
    }

    /// Adds the operators that one of RLX's stands for, with their constants.
    fn call(&mut self, call: Call, index: usize, used: bool) -> Result<(), ErrorKind> {
        let inputs = &self.inner.nodes[index].inputs;
        let name = &self.names[index];
        let mut operands = vec![];
        for (i, operand) in call.operands.into_iter().enumerate() {
            operands.push(match operand {
                Operand::Input(i) => self.names[inputs[i]].clone(),
                Operand::Absent => String::new(),
                Operand::Constant(tensor) => {
                    let constant = format!("{name}#{i}");
                    self.builder.constant(&constant, tensor);
                    constant
                }
            });
        }
        let parse = |op: &str, attributes, used| {
            AnyOp::parse(op, &mut Attrs::new(attributes, DEFAULT_OPSET, vec![used]))
        };
        let op = parse(call.op, call.attributes, used)?;
        match call.cast {
            None => self.builder.node(name, op, operands, vec![name.clone()]),
            Some(dtype) => {
                let cast = parse("Cast", ops::cast(dtype), used)?;
                let uncast = format!("{name}#uncast");
                self.builder.node(name, op, operands, vec![uncast.clone()]);
                self.builder.node(name, cast, vec![uncast], vec![name.clone()]);
            }
        }
        Ok(())
    }
}

/// The element type with RLX's name.
fn dtype(name: &str) -> Result<DType, ErrorKind> {
    DType::from_name(&name.to_lowercase())
        .ok_or_else(|| ErrorKind::unsupported(format!("the element type {name}")))
}

fn typed(shape: &Shape) -> Result<(DType, Vec<Dim>), ErrorKind> {
    let dtype = dtype(&shape.dtype)?;
    let dim = |extent: &Extent| match *extent {
        Extent::Static(n) => Dim::Fixed(n),
        Extent::Dynamic(symbol) => Dim::Symbol(format!("d{symbol}")),
    };
    let dims: Vec<_> = shape.dims.iter().map(dim).collect();
    let known: Vec<_> = dims.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { 1 }).collect();
    match Type::try_new(dtype, known) {
        Some(_) => Ok((dtype, dims)),
        None => Err(ErrorKind::limit("the tensor is too large")),
    }
}

/// The type, if no dimension is symbolic.
fn fixed(dtype: DType, dims: &[Dim]) -> Option<Type> {
    let dims = dims.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None });
    dims.collect::<Option<Vec<_>>>().map(|dims| Type::new(dtype, dims))
}

/// A constant's value. Zeros at its end may have been left out, as long as that is no way to ask for much
/// with little.
fn constant(data: &[u8], ty: Option<&Type>) -> Result<Tensor, ErrorKind> {
    /// What may be filled up.
    const LONGEST: usize = 16 << 20;
    let Some(ty) = ty else {
        return Err(ErrorKind::wrong("a constant has a symbolic dimension"));
    };
    let needed = ty.bytes();
    if needed > LONGEST && data.len() < needed {
        let found = data.len();
        return Err(ErrorKind::wrong(format!(
            "{ty} needs {needed} bytes, and the file has {found} for it"
        )));
    }
    let mut data = data.to_vec();
    data.resize(data.len().max(needed), 0);
    super::onnx::exactly(ty.clone(), data.into()).map_err(|e| of("constant", e))
}
