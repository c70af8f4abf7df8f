//! Outputs that are longer than the inputs that they become in the next run: a decoder's `present`, which is its
//! `past` with a row more.
//!
//! A buffer that grows from run to run would need shapes that change. What can be had is a window over the last
//! rows: the output is cut to the end that is as long as the input, and has its type from then on.

use super::*;
use crate::error::ErrorKind;
use crate::ops::{Attrs, DEFAULT_OPSET};

/// The graph with each of these outputs cut to the last elements, as many as the input of the pair has. Names that
/// the model does not have are left to whoever links inputs and outputs.
///
/// # Errors
///
/// Two tensors of which the output is not the longer one along one axis, and equal otherwise.
pub fn cut(checked: &Checked, pairs: &[(String, String)]) -> Result<Graph, ErrorKind> {
    let mut graph = checked.graph().clone();
    for (from, to) in pairs {
        let named = |value: &Value| graph.values[*value].name == *from;
        let input = graph.inputs.iter().map(|input| input.value).find(named);
        let output = graph.outputs.iter().position(|&value| graph.values[value].name == *to);
        let (Some(input), Some(output)) = (input, output) else { continue };
        let whole = graph.outputs[output];
        // Who links them says whether this is right for what is cut already, or for what is handed through.
        let is_input = graph.inputs.iter().any(|input| input.value == whole);
        if is_input || whole != checked.graph().outputs[output] {
            continue;
        }
        let (before, after) = (checked.ty(input), checked.ty(whole));
        if before == after {
            continue;
        }
        let Some(axis) = longer(before, after) else {
            let kind = ErrorKind::usage(format!(
                "--window {from}={to}: the input is {before} and the output {after}"
            ));
            return Err(kind.help(
                "the last elements of the output along one axis become the input of the next run: it must be longer along that axis, and alike otherwise",
            ));
        };
        let name = graph.values[whole].name.clone();
        let bounds = [
            ("start", (after.dims[axis] - before.dims[axis]) as i64),
            ("end", after.dims[axis] as i64),
            ("axis", axis as i64),
        ];
        let mut operands = vec![Some(whole)];
        for (what, bound) in bounds {
            operands.push(Some(graph.values.push(ValueInfo {
                name: format!("{name}.{what}"),
                constant: Some(Tensor::from_i64s([1], &[bound])),
                declared: None,
            })));
        }
        graph.values[whole].name = format!("{name}.whole");
        let window = ValueInfo { name: name.clone(), constant: None, declared: None };
        let window = graph.values.push(window);
        graph.nodes.push(NodeInfo {
            name: format!("{name}.window"),
            op: AnyOp::parse(
                "Slice",
                &mut Attrs::new(Default::default(), DEFAULT_OPSET, vec![true]),
            )?,
            inputs: operands,
            outputs: vec![Some(window)],
            guards: vec![],
        });
        graph.outputs[output] = window;
    }
    Ok(graph)
}

/// The axis along which `after` is longer, where all else is equal.
pub fn longer(before: &Type, after: &Type) -> Option<usize> {
    if before.dtype != after.dtype || before.rank() != after.rank() {
        return None;
    }
    let mut differ = (0..before.rank()).filter(|&axis| before.dims[axis] != after.dims[axis]);
    let axis = differ.next().filter(|&axis| before.dims[axis] < after.dims[axis])?;
    differ.next().is_none().then_some(axis)
}
