//! The reference interpreter: every operator by its own definition, one after the other.

use crate::hir::{Checked, Value};
use crate::tensor::Tensor;
use cranelift_entity::SecondaryMap;

/// The outputs of the model for these inputs, which are as many as [`Graph::inputs`] and of their types, parameters
/// included.
///
/// # Panics
///
/// When they are not.
///
/// [`Graph::inputs`]: crate::hir::Graph::inputs
pub fn run(checked: &Checked, inputs: &[Tensor]) -> Vec<Tensor> {
    let graph = checked.graph();
    assert_eq!(inputs.len(), graph.inputs.len(), "one tensor per input");
    let mut tensors: SecondaryMap<Value, Option<Tensor>> = SecondaryMap::new();
    for (input, tensor) in graph.inputs.iter().zip(inputs) {
        assert_eq!(
            tensor.ty(),
            checked.ty(input.value),
            "type of \"{}\"",
            graph.values[input.value].name
        );
        tensors[input.value] = Some(tensor.clone());
    }
    let live = checked.live();
    // Where a value is read for the last time it is dropped; outputs are read at the end.
    let mut uses: SecondaryMap<Value, usize> = SecondaryMap::new();
    graph.outputs.iter().for_each(|&v| uses[v] += 1);
    for &node in &live {
        graph.nodes[node].inputs.iter().flatten().for_each(|&v| uses[v] += 1);
    }
    for node in live {
        let info = &graph.nodes[node];
        let operands: Vec<_> = info
            .inputs
            .iter()
            .map(|v| {
                v.map(|v| checked.constant(v).or(tensors[v].as_ref()).expect("operands come first"))
            })
            .collect();
        let types = checked.result_types(node);
        let results = info.op.reference(&operands, &types);
        for (value, tensor) in info.outputs.iter().zip(results) {
            if let Some(value) = value.filter(|&v| uses[v] > 0) {
                tensors[value] = Some(tensor);
            }
        }
        for value in info.inputs.iter().flatten() {
            uses[*value] -= 1;
            if uses[*value] == 0 {
                tensors[*value] = None;
            }
        }
    }
    let output = |&v: &Value| checked.constant(v).or(tensors[v].as_ref()).cloned();
    graph.outputs.iter().map(|v| output(v).expect("live nodes make all outputs")).collect()
}
