//! ONNX files: opsets 1 to [`NEWEST_OPSET`], weights inside or beside the file, model-local functions.
//!
//! The order: the file is decoded (weights stay where they are, in the file's bytes), functions,
//! branches and loops are inlined, every node's attributes are parsed by its operator, and [`Builder`] sorts and links what
//! comes out. Not here: the types that a file declares for anything but inputs ([`check`] infers them; only how
//! long a scan is may be taken from them, and is then checked).
//! Sequences and optionals are gone behind that, if it follows from the file what is in them. Other subgraphs, sparse
//! tensors, and values of the model that are no tensors are refused by name.
//!
//! [`check`]: crate::hir::check

mod branches;
mod crowd;
mod functions;
mod fused;
mod known;
mod lists;
mod loops;
mod narrow;
#[expect(unreachable_pub, clippy::enum_variant_names, reason = "generated")]
mod proto;
mod scans;
mod tensor;
#[cfg(test)]
mod tests;

pub use functions::{MAX_DEPTH, MAX_NAMES};
pub use fused::FUSED;
pub(super) use proto::TensorProto;
pub(super) use tensor::{exactly, read as read_tensor, write as write_tensor};

use super::file::Folder;
use super::{merged, of};
use crate::error::{Class, Error, ErrorKind, Errors, NodeContext};
use crate::hir::{Builder, Dim, Graph};
use crate::ops::{AnyOp, Attribute, Attrs};
use crate::types::{DType, Type};
use bytes::Bytes;
use functions::FlatNode;
use prost::Message;
use proto::{AttributeProto, ModelProto, OperatorSetIdProto, ValueInfoProto, type_proto};
use std::collections::{BTreeMap, BTreeSet};

/// The newest version of ONNX's operators that is known.
pub const NEWEST_OPSET: i64 = 28;

/// The model in `data`; `name` is what it is called if it does not say. With `selections`, `NonMaxSuppression` gives so
/// many rows.
///
/// # Errors
///
/// All that are independent of each other: what cannot be decoded, does not belong together, or is not
/// supported.
pub(super) fn read(
    name: &str,
    data: Bytes,
    folder: &mut Folder,
    selections: Option<usize>,
) -> Result<Graph, Errors> {
    let length = data.len();
    crowd::check(&data)?;
    let mut model = ModelProto::decode(data).map_err(|e| damaged(&e, length))?;
    let Some(mut graph) = model.graph.take() else {
        let kind = ErrorKind::wrong("the file has no graph");
        return Err(kind.help("it is cut off, or not an ONNX model").into());
    };
    let name = if graph.name.is_empty() { name } else { &graph.name };
    let mut reader = Reader {
        builder: Builder::new(name),
        constants: BTreeSet::new(),
        types: BTreeMap::new(),
        narrow: BTreeMap::new(),
        opsets: BTreeMap::new(),
        selections,
        errors: vec![],
    };
    if model.ir_version < 1 {
        reader.refuse(ErrorKind::wrong(
            "the file does not say which version of ONNX it is (ir_version)",
        ));
    }
    if !model.training_info.is_empty() {
        reader.refuse(ErrorKind::unsupported("training information"));
    }
    if !graph.sparse_initializer.is_empty() {
        reader.refuse(ErrorKind::unsupported("sparse initializers"));
    }
    reader.opsets(&model.opset_import);
    let mut known = known::Known::default();
    for proto in std::mem::take(&mut graph.initializer) {
        known.initializer(&proto);
        if let Some(narrow) = narrow::narrow(proto.data_type) {
            reader.narrow.insert(proto.name.clone(), narrow.name);
        }
        let read = tensor::read(&proto, folder);
        reader.constant(proto.name, read, "initializer");
    }
    for info in &graph.input {
        reader.input(info);
        known.input(info);
    }
    if graph.input.iter().any(is_list) {
        // That they cannot be given is said; what follows from them is not known.
        return Err(Errors(reader.errors));
    }
    graph.value_info.iter().for_each(|info| known.declaration(info));
    let (nodes, errors) = functions::inline(&model, &graph, known);
    if !errors.is_empty() {
        // What the calls would have defined is not known.
        return Err(Errors(reader.errors.into_iter().chain(errors).collect()));
    }
    let outputs = graph.output.iter().map(|o| o.name.as_str());
    let used: BTreeSet<&str> =
        nodes.iter().flat_map(|n| n.inputs.iter().map(String::as_str)).chain(outputs).collect();
    for node in &nodes {
        reader.node(node, &used, folder);
    }
    for output in &graph.output {
        if let Some(name) = reader.narrow.get(&output.name) {
            reader.refuse(ErrorKind::unsupported(format!(
                "the result \"{}\" of {name}",
                output.name
            )));
        }
        reader.builder.output(&output.name);
    }
    reader.finish()
}

/// The message about a file that cannot be decoded.
fn damaged(e: &prost::DecodeError, length: usize) -> ErrorKind {
    let text = e.to_string();
    let text = text.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&text);
    ErrorKind::wrong(format!("the file is not a valid ONNX model: {text}"))
        .help(format!("it is cut off or damaged, or of another kind (bytes read: {length})"))
}

struct Reader {
    builder: Builder,
    /// Names of the initializers.
    constants: BTreeSet<String>,
    /// Types of inputs and initializers, for messages.
    types: BTreeMap<String, Type>,
    /// Names of the types, narrower than ours, of the constants that are widened.
    narrow: BTreeMap<String, &'static str>,
    /// Version by domain; none for one that is not imported.
    opsets: BTreeMap<String, Option<i64>>,
    /// How many rows `NonMaxSuppression` gives, if that is said.
    selections: Option<usize>,
    errors: Vec<Error>,
}

impl Reader {
    fn refuse(&mut self, kind: ErrorKind) {
        self.errors.push(kind.into());
    }

    fn opsets(&mut self, imports: &[OperatorSetIdProto]) {
        if imports.is_empty() {
            self.refuse(ErrorKind::wrong(
                "the file does not say which version of the operators it uses (opset_import)",
            ));
            self.opsets.insert(String::new(), Some(NEWEST_OPSET));
        }
        for OperatorSetIdProto { domain, version } in imports {
            let domain = functions::domain(domain);
            let called = if domain.is_empty() { "ai.onnx" } else { domain };
            if *version < 1 {
                self.refuse(ErrorKind::wrong(format!("\"{called}\" has no version {version}")));
            } else if domain.is_empty() && *version > NEWEST_OPSET {
                let kind = ErrorKind::unsupported(format!("opset {version}"));
                self.refuse(kind.help(format!("the newest one that is known is {NEWEST_OPSET}")));
            }
            match self.opsets.insert(domain.to_owned(), Some(*version)) {
                Some(Some(other)) if other != *version => self.refuse(ErrorKind::wrong(format!(
                    "two versions of \"{called}\" are imported: {other} and {version}"
                ))),
                _ => {}
            }
        }
    }

    /// The version of a domain's operators; one that is not imported is an error, once.
    fn opset(&mut self, node: &FlatNode) -> Option<i64> {
        if node.opset.is_some() {
            return node.opset;
        }
        if let Some(version) = self.opsets.get(&node.domain) {
            return *version;
        }
        let called = if node.domain.is_empty() { "ai.onnx" } else { &node.domain };
        let kind = ErrorKind::wrong(format!("\"{called}\" is used and not imported"));
        let error = Error::from(kind.help("opset_import must name every domain"));
        self.errors.push(error.at(self.context(node)));
        self.opsets.insert(node.domain.clone(), None);
        None
    }

    /// A tensor with a value. One that cannot be read still has its name, so that its users do not
    /// report it as well.
    fn constant(
        &mut self,
        name: String,
        read: Result<crate::tensor::Tensor, ErrorKind>,
        what: &str,
    ) {
        self.constants.insert(name.clone());
        match read {
            Ok(tensor) => {
                self.types.insert(name.clone(), tensor.ty().clone());
                self.builder.constant(name, tensor);
            }
            Err(kind) => {
                self.refuse(of(&format!("{what} \"{name}\""), kind));
                self.placeholder(name);
            }
        }
    }

    fn placeholder(&mut self, name: String) {
        self.builder.input(name, DType::F32, vec![], false);
    }

    /// An input, unless it has a value: files of IR 3 list the initializers among the inputs, later ones
    /// those that a caller may replace.
    fn input(&mut self, info: &ValueInfoProto) {
        if self.constants.contains(&info.name) {
            return;
        }
        match input_type(info) {
            Ok((dtype, dims)) => {
                let fixed = |d: &Dim| if let Dim::Fixed(n) = d { Some(*n) } else { None };
                if let Some(dims) = dims.iter().map(fixed).collect::<Option<Vec<_>>>() {
                    self.types.insert(info.name.clone(), Type::new(dtype, dims));
                }
                self.builder.input(&info.name, dtype, dims, false);
            }
            Err(kind) => {
                self.refuse(of(&format!("input \"{}\"", info.name), kind));
                self.placeholder(info.name.clone());
            }
        }
    }

    fn node(&mut self, node: &FlatNode, used: &BTreeSet<&str>, folder: &mut Folder) {
        let FlatNode { name, inputs, outputs, .. } = node;
        if let Some(opset) = self.opset(node) {
            let parsed = self.operator(node, opset, used, folder);
            let parsed = if node.domain.is_empty() { aged(parsed, opset) } else { parsed };
            match parsed {
                Ok((op, aligned)) => {
                    let inputs = match aligned {
                        Some(axis) => self.align(node, axis),
                        None => inputs.clone(),
                    };
                    let guards = node.guards.clone();
                    return self.builder.guarded(name, op, inputs, outputs.clone(), guards);
                }
                Err(kind) => self.errors.push(Error::from(kind).at(self.context(node))),
            }
        }
        outputs.iter().filter(|o| !o.is_empty()).for_each(|o| self.placeholder(o.clone()));
    }

    /// The operator of a node, and the axis of its first operand to which the second one is brought.
    fn operator(
        &mut self,
        node: &FlatNode,
        opset: i64,
        used: &BTreeSet<&str>,
        folder: &mut Folder,
    ) -> Result<(AnyOp, Option<i64>), ErrorKind> {
        self.widened(node)?;
        let mut values = attributes(&node.attributes, folder)?;
        let (mut called, mut aligned) = (node.called(), None);
        if node.domain.is_empty() && opset < FIRST_NUMPY {
            aligned = broadcast(&called, &mut values)?;
        }
        if let Some(count) = self.selections.filter(|_| called == "NonMaxSuppression") {
            values.insert("count".to_owned(), Attribute::Int(count as i64));
            called = "rlx:NonMaxSuppression".to_owned();
        }
        let used = node.outputs.iter().map(|o| !o.is_empty() && used.contains(o.as_str()));
        let op = AnyOp::parse(&called, &mut Attrs::new(values, opset, used.collect()))?;
        Ok((op, aligned))
    }

    /// Takes note of what becomes of constants of types narrower than ours.
    fn widened(&mut self, node: &FlatNode) -> Result<(), ErrorKind> {
        let of = |a: &AttributeProto| narrow::narrow(a.t.as_ref()?.data_type).map(|n| n.name);
        let name = match node.attributes.iter().find_map(of) {
            Some(name) if node.called() == "Constant" => name,
            Some(name) => return Err(ErrorKind::unsupported(format!("the element type {name}"))),
            None => {
                let found = node.inputs.iter().find_map(|input| self.narrow.get(input)).copied();
                let Some(name) = found else { return Ok(()) };
                match narrow::used(node, name, |input| self.narrow.contains_key(input))? {
                    narrow::Use::Widens => return Ok(()),
                    narrow::Use::Moves => name,
                }
            }
        };
        self.narrow.extend(node.outputs.iter().map(|output| (output.clone(), name)));
        Ok(())
    }

    /// The operands of a node, the second one brought to this axis of the first.
    fn align(&mut self, node: &FlatNode, axis: i64) -> Vec<String> {
        let mut inputs = node.inputs.clone();
        if let [_, second, ..] = &mut inputs[..] {
            let (given, outputs) = (node.inputs[..2].to_vec(), format!("{}/aligned", node.label()));
            let values = BTreeMap::from([("axis".to_owned(), Attribute::Int(axis))]);
            match AnyOp::parse("rlx:Align", &mut Attrs::new(values, FIRST_NUMPY, vec![true])) {
                Ok(op) => {
                    second.clone_from(&outputs);
                    let guards = node.guards.clone();
                    self.builder.guarded(node.label(), op, given, vec![outputs], guards);
                }
                Err(kind) => self.errors.push(Error::from(kind).at(self.context(node))),
            }
        }
        inputs
    }

    fn context(&self, node: &FlatNode) -> NodeContext {
        let input = |name: &String| (name.clone(), self.types.get(name).cloned());
        let inputs = node.inputs.iter().map(input).collect();
        NodeContext { name: node.label().to_owned(), op: node.called(), inputs }
    }

    fn finish(mut self) -> Result<Graph, Errors> {
        merged(self.errors).into_iter().for_each(|e| self.builder.error(e));
        self.builder.finish()
    }
}

/// From this opset on operators broadcast by NumPy's rule.
const FIRST_NUMPY: i64 = 7;

/// Takes the attributes by which operators of two operands said, before opset 7, how they broadcast. Gives the
/// axis of the first operand at which the second one begins, where that is not what NumPy's rule says anyway.
fn broadcast(op: &str, values: &mut BTreeMap<String, Attribute>) -> Result<Option<i64>, ErrorKind> {
    const OPERATORS: [&str; 11] =
        ["Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"];
    if op == "PRelu" {
        values.remove("consumed_inputs");
        // A slope for each channel, or one.
        return Ok(Some(1));
    }
    if !OPERATORS.contains(&op) {
        return Ok(None);
    }
    values.remove("consumed_inputs");
    let [broadcast, axis] = ["broadcast", "axis"].map(|name| match values.remove(name) {
        None => Ok(None),
        Some(Attribute::Int(value)) => Ok(Some(value)),
        Some(_) => Err(ErrorKind::wrong(format!("attribute \"{name}\" must be an integer"))),
    });
    let broadcast = broadcast?;
    Ok(axis?.filter(|_| broadcast == Some(1)))
}

/// Before opset 7 some operators meant other things than later. What is the same in both is taken; what is not
/// is valid, and not done.
fn aged<T>(parsed: Result<T, ErrorKind>, opset: i64) -> Result<T, ErrorKind> {
    match parsed {
        Err(kind) if opset < FIRST_NUMPY => {
            Err(ErrorKind { class: Class::Unsupported, ..kind }.help(format!(
                "the model is of opset {opset}; convert it to {FIRST_NUMPY} or later with onnx.version_converter"
            )))
        }
        parsed => parsed,
    }
}

/// Whether an input is a sequence or an optional.
fn is_list(info: &ValueInfoProto) -> bool {
    use type_proto::Value::{OptionalType, SequenceType};
    let value = info.r#type.as_ref().and_then(|ty| ty.value.as_ref());
    matches!(value, Some(SequenceType(_) | OptionalType(_)))
}

fn input_type(info: &ValueInfoProto) -> Result<(DType, Vec<Dim>), ErrorKind> {
    use proto::tensor_shape_proto::dimension::Value;
    let tensor = match info.r#type.as_ref().and_then(|ty| ty.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor,
        Some(type_proto::Value::SequenceType(_)) => {
            return Err(ErrorKind::unsupported("a sequence"));
        }
        Some(type_proto::Value::MapType(_)) => return Err(ErrorKind::unsupported("a map")),
        Some(type_proto::Value::OptionalType(_)) => {
            return Err(ErrorKind::unsupported("an optional"));
        }
        Some(type_proto::Value::SparseTensorType(_)) => {
            return Err(ErrorKind::unsupported("a sparse tensor"));
        }
        Some(type_proto::Value::OpaqueType(_)) => {
            return Err(ErrorKind::unsupported("an opaque value"));
        }
        None => return Err(ErrorKind::wrong("the type is not given")),
    };
    let dtype = tensor::dtype(tensor.elem_type)?;
    let Some(shape) = &tensor.shape else {
        let kind = ErrorKind::unsupported("the number of its axes is not given");
        return Err(kind.help("give it a shape when the model is exported"));
    };
    let dim = |dim: &proto::tensor_shape_proto::Dimension| match &dim.value {
        Some(Value::DimValue(n)) => usize::try_from(*n)
            .map(Dim::Fixed)
            .map_err(|_| ErrorKind::wrong(format!("a dimension is {n}"))),
        Some(Value::DimParam(name)) if !name.is_empty() => Ok(Dim::Symbol(name.clone())),
        Some(Value::DimParam(_)) | None => Ok(Dim::Unknown),
    };
    let dims = shape.dim.iter().map(dim).collect::<Result<Vec<_>, _>>()?;
    // What is symbolic is bound later and checked then.
    let fixed = dims.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { 1 }).collect::<Vec<_>>();
    match Type::try_new(dtype, fixed) {
        Some(_) => Ok((dtype, dims)),
        None => Err(ErrorKind::limit("the tensor is too large")),
    }
}

fn attributes(
    protos: &[AttributeProto],
    folder: &mut Folder,
) -> Result<BTreeMap<String, Attribute>, ErrorKind> {
    let mut values = BTreeMap::new();
    for proto in protos {
        let name = &proto.name;
        let value =
            attribute(proto, folder).map_err(|e| of(&format!("attribute \"{name}\""), e))?;
        if values.insert(name.clone(), value).is_some() {
            return Err(ErrorKind::wrong(format!("attribute \"{name}\" is given twice")));
        }
    }
    Ok(values)
}

/// The attribute's value, of the type that it declares; files of the first versions declare none.
fn attribute(proto: &AttributeProto, folder: &mut Folder) -> Result<Attribute, ErrorKind> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).ok();
    let declared = match proto.r#type {
        0 if proto.f.is_some() => 1,
        0 if proto.i.is_some() => 2,
        0 if proto.s.is_some() => 3,
        0 if proto.t.is_some() => 4,
        0 if proto.g.is_some() => 5,
        0 if !proto.floats.is_empty() => 6,
        0 if !proto.ints.is_empty() => 7,
        0 if !proto.strings.is_empty() => 8,
        0 if !proto.tensors.is_empty() => 9,
        0 if !proto.graphs.is_empty() => 10,
        declared => declared,
    };
    Ok(match declared {
        1 => Attribute::Float(proto.f.unwrap_or_default().into()),
        2 => Attribute::Int(proto.i.unwrap_or_default()),
        3 => match text(proto.s.as_ref().unwrap_or(&Bytes::new())) {
            Some(text) => Attribute::Text(text),
            None => Attribute::Other("a text that is not UTF-8"),
        },
        4 => match &proto.t {
            Some(t) => Attribute::Tensor(tensor::read(t, folder)?),
            None => return Err(ErrorKind::wrong("it has no tensor")),
        },
        5 => Attribute::Other("a graph"),
        6 => Attribute::Floats(proto.floats.iter().map(|&v| v.into()).collect()),
        7 => Attribute::Ints(proto.ints.clone()),
        8 => match proto.strings.iter().map(text).collect() {
            Some(texts) => Attribute::Texts(texts),
            None => Attribute::Other("a text that is not UTF-8"),
        },
        9 => Attribute::Other("a list of tensors"),
        10 => Attribute::Other("a list of graphs"),
        11 => Attribute::Other("a sparse tensor"),
        12 => Attribute::Other("a list of sparse tensors"),
        13 => Attribute::Other("a type"),
        14 => Attribute::Other("a list of types"),
        0 => return Err(ErrorKind::wrong("it has neither a type nor a value")),
        n => return Err(ErrorKind::wrong(format!("there is no attribute type {n}"))),
    })
}
