//! HIR to MIR: every live node by its operator's `expand`.

use crate::hir::{self, Checked};
use crate::mir;
use cranelift_entity::SecondaryMap;

/// The model in terms of MIR. What is known already appears as constants.
pub fn expand(checked: &Checked) -> mir::Graph {
    let graph = checked.graph();
    let mut mir = mir::Builder::new(&graph.name);
    let mut values: SecondaryMap<hir::Value, Option<mir::Value>> = SecondaryMap::new();
    for input in &graph.inputs {
        let role = if input.parameter { mir::Role::Parameter } else { mir::Role::Input };
        let name = &graph.values[input.value].name;
        values[input.value] = Some(mir.input(name, role, checked.ty(input.value).clone()));
    }
    // A constant enters where it is first needed.
    let lowered = |mir: &mut mir::Builder,
                   values: &mut SecondaryMap<hir::Value, Option<mir::Value>>,
                   v: hir::Value| {
        if values[v].is_none() {
            let tensor = checked.constant(v).expect("what is not computed before is known");
            values[v] = Some(mir.constant(tensor.clone()));
        }
        values[v]
    };
    for node in checked.live() {
        let info = &graph.nodes[node];
        mir.set_origin(&info.name);
        let inputs: Vec<_> =
            info.inputs.iter().map(|v| v.and_then(|v| lowered(&mut mir, &mut values, v))).collect();
        let types = checked.result_types(node);
        let results = info.op.expand(&mut mir, &inputs, &types);
        for (i, output) in info.outputs.iter().enumerate() {
            let Some(output) = *output else { continue };
            let (expected, found) = (checked.ty(output), mir.ty(results[i]));
            assert_eq!(expected, found, "result {i} of {} \"{}\"", info.op.name(), info.name);
            values[output] = Some(results[i]);
        }
    }
    let outputs = graph.outputs.iter().map(|&v| {
        let value = lowered(&mut mir, &mut values, v).expect("an output is computed or known");
        mir::Output { name: graph.values[v].name.clone(), value }
    });
    let outputs = outputs.collect();
    mir.finish(outputs)
}
