//! Sequences and optionals: which tensors are in them has to follow from the file. Their operators then only say which
//! tensor is meant, and none of them is left.

use super::branches::required;
use super::functions::{Inliner, domain, label};
use super::loops::{MOST, along};
use super::proto::{FunctionProto, NodeProto};
use crate::error::ErrorKind;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// Names of the operators.
const OPERATORS: &[&str] = &[
    "ConcatFromSequence",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SequenceMap",
    "SplitToSequence",
];

/// What a value is that is no tensor.
#[derive(Clone, Debug)]
pub(super) enum List {
    /// A sequence of these tensors.
    Of(Vec<String>),
    /// An optional without a value. (One with a value is its value.)
    Nothing,
}

/// Whether a node is one of these operators.
pub(super) fn is_list(node: &NodeProto) -> bool {
    OPERATORS.contains(&node.op_type.as_str()) && domain(&node.domain).is_empty()
}

impl<'a> Inliner<'a> {
    /// Whether one of the node's operands is no tensor.
    pub(super) fn takes_lists(&self, node: &NodeProto) -> bool {
        !self.lists.is_empty() && node.input.iter().any(|name| self.lists.contains_key(name))
    }

    /// Takes note of what a node of these operators gives, and adds nodes for what it gives as a tensor.
    pub(super) fn listed(
        &mut self,
        node: &NodeProto,
        function: Option<&'a FunctionProto>,
    ) -> Result<(), ErrorKind> {
        let input = |i: usize| node.input.get(i).filter(|name| !name.is_empty());
        let operand = |i: usize| {
            input(i).cloned().ok_or_else(|| {
                ErrorKind::wrong(format!("operand {i} is left out, and it is not optional"))
            })
        };
        let int = |name: &str| node.attribute.iter().find(|a| a.name == name).and_then(|a| a.i);
        let gives = |inliner: &mut Inliner<'a>, list: List| {
            let output = node.output.first().filter(|name| !name.is_empty());
            output
                .into_iter()
                .for_each(|name| _ = inliner.lists.insert(name.clone(), list.clone()));
            Ok(())
        };
        match node.op_type.as_str() {
            "SequenceConstruct" => {
                if node.input.is_empty() {
                    return Err(ErrorKind::wrong("a sequence is made of nothing"));
                }
                let all = (0..node.input.len()).map(operand).collect::<Result<_, _>>()?;
                gives(self, List::Of(all))
            }
            "SequenceEmpty" => gives(self, List::Of(vec![])),
            "SequenceInsert" => {
                let (mut list, new) = (self.members(&operand(0)?)?, operand(1)?);
                let at = match input(2) {
                    Some(name) => self.place(name, list.len(), list.len() + 1)?,
                    None => list.len(),
                };
                list.insert(at, new);
                gives(self, List::Of(list))
            }
            "SequenceErase" => {
                let mut list = self.members(&operand(0)?)?;
                let at = match input(1) {
                    Some(name) => self.place(name, list.len(), list.len())?,
                    None => list.len().checked_sub(1).ok_or_else(|| {
                        ErrorKind::wrong("the last one of an empty sequence is to be erased")
                    })?,
                };
                list.remove(at);
                gives(self, List::Of(list))
            }
            "SequenceAt" => {
                let list = self.members(&operand(0)?)?;
                let at = self.place(&operand(1)?, list.len(), list.len())?;
                self.add(node, "Identity", vec![list[at].clone()], node.output.clone(), vec![])
            }
            "SequenceLength" => {
                let length = self.members(&operand(0)?)?.len();
                let value = self.constant(node, Tensor::from_i64s([], &[length as i64]))?;
                self.add(node, "Identity", vec![value], node.output.clone(), vec![])
            }
            "ConcatFromSequence" => {
                let list = self.members(&operand(0)?)?;
                if list.is_empty() {
                    return Err(ErrorKind::wrong("there is nothing in the sequence"));
                }
                let axis =
                    int("axis").ok_or_else(|| ErrorKind::wrong("attribute \"axis\" is missing"))?;
                match (int("new_axis").unwrap_or(0), &node.output[..]) {
                    (_, [] | [_, _, ..]) => Err(ErrorKind::wrong("it gives one result")),
                    (0, outputs) => {
                        self.add(node, "Concat", list, outputs.to_vec(), vec![along(axis)])
                    }
                    (_, [output]) => self.stack(node, list, output, axis),
                }
            }
            "SplitToSequence" => {
                let parts = self.parts(node, &operand(0)?, input(1), int("axis").unwrap_or(0))?;
                gives(self, List::Of(parts))
            }
            "SequenceMap" => self.mapped(node, function),
            "Optional" => match input(0) {
                None => gives(self, List::Nothing),
                Some(name) => self.passed(node, name),
            },
            "OptionalGetElement" => {
                let name = operand(0)?;
                if matches!(self.lists.get(&name), Some(List::Nothing)) {
                    return Err(ErrorKind::wrong("the optional has no value"));
                }
                self.passed(node, &name)
            }
            // "OptionalHasElement".
            _ => {
                let value = input(0).map(|name| self.lists.get(name));
                let has = !matches!(value, None | Some(Some(List::Nothing)));
                let has = Tensor::from_ints(Type::scalar(DType::Bool), [i64::from(has)]);
                let has = self.constant(node, has)?;
                self.add(node, "Identity", vec![has], node.output.clone(), vec![])
            }
        }
    }

    /// The node's first result is this value, tensor or not.
    pub(super) fn passed(&mut self, node: &NodeProto, name: &str) -> Result<(), ErrorKind> {
        let Some(output) = node.output.first().filter(|name| !name.is_empty()) else {
            return Ok(());
        };
        match self.lists.get(name).cloned() {
            Some(list) => _ = self.lists.insert(output.clone(), list),
            None => {
                let (from, to) = (vec![name.to_owned()], vec![output.clone()]);
                self.add(node, "Identity", from, to, vec![])?;
            }
        }
        Ok(())
    }

    /// The tensors of a sequence.
    fn members(&self, name: &str) -> Result<Vec<String>, ErrorKind> {
        match self.lists.get(name) {
            Some(List::Of(list)) => Ok(list.clone()),
            Some(List::Nothing) => Err(ErrorKind::wrong("the optional has no value")),
            None => Err(ErrorKind::wrong(format!("\"{name}\" is no sequence, or not known here"))),
        }
    }

    /// The place that a value names among so many, counted from the end of `count` where it is negative.
    fn place(&self, name: &str, count: usize, places: usize) -> Result<usize, ErrorKind> {
        let at = self.known.single(name).ok_or_else(|| {
            ErrorKind::unsupported("the place in the sequence is known only at run time")
                .help("it must follow from constants of the model and shapes of its inputs")
        })?;
        let from = if at < 0 { at.saturating_add(count as i64) } else { at };
        usize::try_from(from)
            .ok()
            .filter(|&at| at < places)
            .ok_or_else(|| ErrorKind::wrong(format!("place {at} of a sequence of {count} tensors")))
    }

    /// Adds the nodes that take a tensor apart: into slices without the axis (or with it), into parts of one length, or
    /// into parts of these lengths.
    fn parts(
        &mut self,
        node: &NodeProto,
        tensor: &str,
        lengths: Option<&String>,
        axis: i64,
    ) -> Result<Vec<String>, ErrorKind> {
        let unknown = |what: &str| {
            ErrorKind::unsupported(format!("{what} is known only at run time")).help(
                "sequences are written out: the file must give the extents of what is split (onnx.shape_inference)",
            )
        };
        let keeps =
            node.attribute.iter().find(|a| a.name == "keepdims").and_then(|a| a.i) != Some(0);
        let list = match lengths {
            Some(name) => self.known.list(name).ok_or_else(|| unknown("how it is split"))?,
            None => vec![1],
        };
        // One number by itself is the length of every part; a list of one is that of the only part.
        let alike = lengths.is_none_or(|name| self.known.extent(name, 0).is_none());
        let list = match list[..] {
            [length] if alike => {
                let extent = self.known.extent(tensor, axis);
                let extent = extent.ok_or_else(|| unknown("how long it is"))?;
                if length < 1 {
                    return Err(ErrorKind::wrong(format!("parts of length {length}")));
                }
                if extent / length >= MOST {
                    let count = extent / length;
                    return Err(ErrorKind::limit(format!(
                        "{count} parts, and {MOST} are the most"
                    )));
                }
                let mut list = vec![length; usize::try_from(extent / length).unwrap_or(0)];
                list.extend(Some(extent % length).filter(|&rest| rest > 0));
                list
            }
            _ => list,
        };
        if list.is_empty() {
            return Ok(vec![]);
        }
        if lengths.is_none() && !keeps {
            return self.slices(node, tensor, axis, list.len() as i64);
        }
        let prefix = label(&node.name, &node.output).to_owned();
        let parts =
            list.iter().map(|_| self.fresh(&prefix, "part")).collect::<Result<Vec<_>, _>>()?;
        let lengths = self.constant(node, Tensor::from_i64s([list.len()], &list))?;
        self.add(
            node,
            "Split",
            vec![tensor.to_owned(), lengths],
            parts.clone(),
            vec![along(axis)],
        )?;
        Ok(parts)
    }

    /// Adds the nodes of the body, once for each tensor of the sequence.
    fn mapped(
        &mut self,
        node: &NodeProto,
        function: Option<&'a FunctionProto>,
    ) -> Result<(), ErrorKind> {
        let body = required(node, "body")?;
        let (first, more) = node
            .input
            .split_first()
            .ok_or_else(|| ErrorKind::wrong("operand 0 is left out, and it is not optional"))?;
        if body.input.len() != node.input.len() || body.output.len() < node.output.len() {
            let (inputs, outputs) = (body.input.len(), body.output.len());
            return Err(ErrorKind::wrong(format!(
                "\"body\" has {inputs} inputs and {outputs} outputs"
            )));
        }
        let members = self.members(first)?;
        for name in more {
            if let Some(List::Of(list)) = self.lists.get(name)
                && list.len() != members.len()
            {
                return Err(ErrorKind::wrong(format!(
                    "the sequence \"{name}\" has {} tensors, and the first one {}",
                    list.len(),
                    members.len()
                )));
            }
        }
        let mut results: Vec<Vec<String>> = vec![vec![]; body.output.len()];
        for (i, member) in members.into_iter().enumerate() {
            let own = |name: &String| match self.lists.get(name) {
                Some(List::Of(list)) => list[i].clone(),
                Some(List::Nothing) | None => name.clone(),
            };
            let given = [member].into_iter().chain(more.iter().map(own));
            let bound = body.input.iter().map(|input| input.name.clone()).zip(given).collect();
            let turn = self.branch(node, &i.to_string(), body.clone(), bound, function)?;
            results.iter_mut().zip(turn).for_each(|(list, name)| list.push(name));
        }
        for (output, list) in node.output.iter().zip(results) {
            self.lists.insert(output.clone(), List::Of(list));
        }
        Ok(())
    }
}
