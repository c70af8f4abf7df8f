//! What follows from a model's constants and from the shapes of its inputs before any type is inferred: as much as
//! it takes to say how often a loop turns.

use super::proto::tensor_shape_proto::dimension::Value;
use super::proto::{AttributeProto, NodeProto, TensorProto, ValueInfoProto, type_proto};
use crate::types::DType;
use std::collections::BTreeMap;

/// Integers and booleans, in order; those that are not known are none.
type List = Vec<Option<i64>>;

/// The most elements of a list that is kept.
const MOST: usize = 64;

/// What is known of values, by name.
#[derive(Default)]
pub(super) struct Known {
    /// The elements of tensors of one axis, and of those of one element.
    lists: BTreeMap<String, List>,
    /// Extents of inputs, of initializers and of what follows from them.
    dims: BTreeMap<String, List>,
    /// Extents that the file declares of what nodes give. Whoever uses them has to see that they hold.
    declared: BTreeMap<String, List>,
}

impl Known {
    /// Takes note of an initializer.
    pub(super) fn initializer(&mut self, tensor: &TensorProto) {
        self.dims.insert(tensor.name.clone(), tensor.dims.iter().copied().map(Some).collect());
        if let Some(list) = elements(tensor) {
            self.lists.insert(tensor.name.clone(), list);
        }
    }

    /// Takes note of an input of the model.
    pub(super) fn input(&mut self, info: &ValueInfoProto) {
        if let Some(dims) = dims(info) {
            self.dims.entry(info.name.clone()).or_insert(dims);
        }
    }

    /// Takes note of what the file says of a node's result.
    pub(super) fn declaration(&mut self, info: &ValueInfoProto) {
        if let Some(dims) = dims(info) {
            self.declared.insert(info.name.clone(), dims);
        }
    }

    /// Takes note of what the node gives, one of ONNX's operators with one result.
    pub(super) fn node(&mut self, node: &NodeProto) {
        let [output] = &node.output[..] else { return };
        if let Some(dims) = self.shape(node) {
            self.dims.insert(output.clone(), dims);
        }
        if let Some(list) = self.result(node) {
            self.lists.insert(output.clone(), list);
        }
    }

    /// Names of inputs and initializers.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.dims.keys()
    }

    /// The value of a single integer or boolean.
    pub(super) fn single(&self, name: &str) -> Option<i64> {
        match self.lists.get(name)?[..] {
            [value] => value,
            _ => None,
        }
    }

    /// The elements of a list of integers, all of which are known.
    pub(super) fn list(&self, name: &str) -> Option<Vec<i64>> {
        self.lists.get(name)?.iter().copied().collect()
    }

    /// The extent of an axis, which may be counted from the last one (-1); it may be one that is declared only.
    pub(super) fn extent(&self, name: &str, axis: i64) -> Option<i64> {
        let dims = self.dims.get(name).or_else(|| self.declared.get(name))?;
        place(axis, dims.len()).and_then(|axis| dims[axis])
    }

    /// The extents of what a node gives.
    fn shape(&self, node: &NodeProto) -> Option<List> {
        let dims = self.dims.get(node.input.first()?)?;
        let ints = |name: &str| node.attribute.iter().find(|a| a.name == name).map(|a| &a.ints[..]);
        match node.op_type.as_str() {
            op if KEEPERS.contains(&op) => Some(dims.clone()),
            // Before opset 7 attributes say how the second one broadcasts, and the first has the result's extents.
            "Add" | "Div" | "Mul" | "Sub" if !node.attribute.is_empty() => Some(dims.clone()),
            "Add" | "Div" | "Mul" | "Sub" => {
                Some(broadcast(dims, self.dims.get(node.input.get(1)?)?))
            }
            "MatMul" => {
                let other = self.dims.get(node.input.get(1)?)?;
                let [outer @ .., rows, _] = &dims[..] else { return None };
                let [others @ .., _, columns] = &other[..] else { return None };
                Some([&broadcast(outer, others)[..], &[*rows, *columns]].concat())
            }
            "Transpose" => match ints("perm") {
                Some(order) => order
                    .iter()
                    .map(|&axis| dims.get(usize::try_from(axis).ok()?).copied())
                    .collect(),
                None => Some(dims.iter().rev().copied().collect()),
            },
            "Reshape" if node.attribute.is_empty() => {
                let new = self.lists.get(node.input.get(1)?)?.iter().enumerate();
                let extent = |(axis, &n): (usize, &Option<i64>)| match n {
                    Some(0) => dims.get(axis).copied(),
                    // What is left for -1 is not known.
                    n => Some(n.filter(|&n| n > 0)),
                };
                new.map(extent).collect()
            }
            _ => None,
        }
    }

    fn result(&self, node: &NodeProto) -> Option<List> {
        let input = |i: usize| node.input.get(i).filter(|name| !name.is_empty());
        let list = |i: usize| self.lists.get(input(i)?);
        let single = |i: usize| self.single(input(i)?);
        let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name);
        let int = |name: &str, or: i64| attribute(name).map_or(Some(or), |a| a.i);
        let one = |value: i64| Some(vec![Some(value)]);
        match node.op_type.as_str() {
            "Constant" => node.attribute.iter().find_map(constant),
            "Identity" | "Squeeze" => list(0).cloned(),
            "Unsqueeze" => one(single(0)?),
            "Cast" => {
                let to = int("to", 0)?;
                let is = |dtype: DType| i64::from(dtype.onnx()) == to;
                if is(DType::Bool) {
                    return Some(list(0)?.iter().map(|v| v.map(|v| i64::from(v != 0))).collect());
                }
                let narrow = |v: &Option<i64>| v.filter(|&v| i32::try_from(v).is_ok());
                (is(DType::I64) || is(DType::I32)).then_some(list(0)?.iter().map(narrow).collect())
            }
            "Shape" => {
                let dims = self.dims.get(input(0)?)?;
                let end =
                    |at: i64| place(at, dims.len()).unwrap_or(if at < 0 { 0 } else { dims.len() });
                let (start, stop) = (end(int("start", 0)?), end(int("end", i64::MAX)?));
                Some(dims[start.min(stop)..stop].to_vec())
            }
            "Gather" if int("axis", 0)? == 0 => {
                let (list, places) = (list(0)?, list(1)?);
                Some(places.iter().map(|&at| list[place(at?, list.len())?]).collect())
            }
            "Concat" if int("axis", 0)? == 0 => {
                let parts = node.input.iter().map(|name| self.lists.get(name).cloned());
                let list = parts.collect::<Option<Vec<_>>>()?.concat();
                (list.len() <= MOST).then_some(list)
            }
            "Not" => one(i64::from(single(0)? == 0)),
            op if node.input.len() == 2 => one(combined(op, single(0)?, single(1)?)?),
            _ => None,
        }
    }
}

/// Operators whose result has the extents of their first operand.
const KEEPERS: [&str; 32] = [
    "Abs",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Clip",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Mish",
    "Neg",
    "Not",
    "RMSNormalization",
    "Reciprocal",
    "Relu",
    "Round",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Swish",
    "Tanh",
];

/// The extents of what two operands broadcast to.
fn broadcast(a: &[Option<i64>], b: &[Option<i64>]) -> List {
    let rank = a.len().max(b.len());
    let extent = |dims: &[Option<i64>], axis: usize| match (axis + dims.len()).checked_sub(rank) {
        Some(own) => dims[own],
        None => Some(1),
    };
    let both = |axis: usize| match (extent(a, axis), extent(b, axis)) {
        (Some(1), other) | (other, Some(1)) => other,
        // One that is not known is this one, or 1.
        (known, other) => known.or(other),
    };
    (0..rank).map(both).collect()
}

/// The result of an operator of two integers or booleans, if it is the same whatever their type is.
fn combined(op: &str, a: i64, b: i64) -> Option<i64> {
    let value = match op {
        "Add" => a.checked_add(b)?,
        "Sub" => a.checked_sub(b)?,
        "Mul" => a.checked_mul(b)?,
        "Div" => a.checked_div(b)?,
        "Min" => a.min(b),
        "Max" => a.max(b),
        "Less" => i64::from(a < b),
        "LessOrEqual" => i64::from(a <= b),
        "Greater" => i64::from(a > b),
        "GreaterOrEqual" => i64::from(a >= b),
        "Equal" => i64::from(a == b),
        "And" => i64::from(a != 0 && b != 0),
        "Or" => i64::from(a != 0 || b != 0),
        _ => return None,
    };
    i32::try_from(value).is_ok().then_some(value)
}

/// A place counted from the first, of one that may be counted from the last (-1).
fn place(at: i64, count: usize) -> Option<usize> {
    let count = i64::try_from(count).ok()?;
    let at = if at < 0 { at.checked_add(count)? } else { at };
    (0..count).contains(&at).then_some(at as usize)
}

/// The value of a `Constant`.
fn constant(value: &AttributeProto) -> Option<List> {
    match value.name.as_str() {
        "value" => elements(value.t.as_ref()?),
        "value_int" => Some(vec![Some(value.i?)]),
        "value_ints" => Some(value.ints.iter().copied().map(Some).collect()),
        _ => None,
    }
}

/// The elements of a short list of integers or booleans, or the only one of a tensor, that lie in the file.
fn elements(tensor: &TensorProto) -> Option<List> {
    let width = [(DType::I64, 8), (DType::I32, 4), (DType::Bool, 1)]
        .into_iter()
        .find_map(|(t, width)| (t.onnx() as i32 == tensor.data_type).then_some(width))?;
    let count = match tensor.dims[..] {
        [count] => usize::try_from(count).ok()?,
        _ if tensor.dims.iter().all(|&n| n == 1) => 1,
        _ => return None,
    };
    if count > MOST || tensor.data_location != 0 {
        return None;
    }
    let raw = tensor.raw_data.as_deref().unwrap_or_default();
    let list: List = match (raw.is_empty(), width) {
        (true, 8) => tensor.int64_data.iter().copied().map(Some).collect(),
        (true, _) => tensor.int32_data.iter().map(|&v| Some(i64::from(v))).collect(),
        (false, 8) => {
            raw.chunks_exact(8).map(|b| Some(i64::from_le_bytes(b.try_into().ok()?))).collect()
        }
        (false, 4) => {
            let int = |b: &[u8]| Some(i64::from(i32::from_le_bytes(b.try_into().ok()?)));
            raw.chunks_exact(4).map(int).collect()
        }
        (false, _) => raw.iter().map(|&b| Some(i64::from(b))).collect(),
    };
    (list.len() == count).then_some(list)
}

fn dims(info: &ValueInfoProto) -> Option<List> {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref()?.value.as_ref() else {
        return None;
    };
    let dim = |dim: &super::proto::tensor_shape_proto::Dimension| match dim.value {
        Some(Value::DimValue(n)) => Some(n),
        Some(Value::DimParam(_)) | None => None,
    };
    Some(tensor.shape.as_ref()?.dim.iter().map(dim).collect())
}
