//! From names to a graph: who makes what, in which order.

use super::*;
use crate::error::{Error, ErrorKind, Errors, NodeContext, nearest};
use std::collections::BTreeMap;

/// For so many missing names the nearest one is looked for.
const MOST_COMPARED: usize = 20;

/// Collects inputs, constants and nodes by name, in any order.
#[derive(Debug, Default)]
pub struct Builder {
    name: String,
    inputs: Vec<(String, DType, Vec<Dim>, bool)>,
    constants: Vec<(String, Tensor)>,
    nodes: Vec<PendingNode>,
    outputs: Vec<String>,
    declared: BTreeMap<String, (DType, Vec<Dim>)>,
    errors: Vec<Error>,
}

#[derive(Debug)]
struct PendingNode {
    name: String,
    op: AnyOp,
    inputs: Vec<String>,
    outputs: Vec<String>,
    guards: Vec<(String, bool)>,
}

impl Builder {
    /// Starts a model with this name.
    pub fn new(name: impl Into<String>) -> Builder {
        Builder { name: name.into(), ..Builder::default() }
    }

    /// A tensor that the caller sets: before every run, or (a parameter) once.
    pub fn input(
        &mut self,
        name: impl Into<String>,
        dtype: DType,
        dims: Vec<Dim>,
        parameter: bool,
    ) {
        self.inputs.push((name.into(), dtype, dims, parameter));
    }

    /// A tensor with a value.
    pub fn constant(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.constants.push((name.into(), tensor));
    }

    /// An operator. An empty name among `inputs` or `outputs` is one that is left out.
    pub fn node(
        &mut self,
        name: impl Into<String>,
        op: AnyOp,
        inputs: Vec<String>,
        outputs: Vec<String>,
    ) {
        self.guarded(name, op, inputs, outputs, vec![]);
    }

    /// An operator that means something only where these truth values are what is said.
    pub fn guarded(
        &mut self,
        name: impl Into<String>,
        op: AnyOp,
        inputs: Vec<String>,
        outputs: Vec<String>,
        guards: Vec<(String, bool)>,
    ) {
        let mut name = name.into();
        if name.is_empty() {
            name = outputs.iter().find(|o| !o.is_empty()).cloned().unwrap_or_default();
        }
        self.nodes.push(PendingNode { name, op, inputs, outputs, guards });
    }

    /// The type that a tensor must have. A result of another type is an error of [`check`].
    pub fn declare(&mut self, name: impl Into<String>, dtype: DType, dims: Vec<Dim>) {
        self.declared.insert(name.into(), (dtype, dims));
    }

    /// The next result of the model.
    pub fn output(&mut self, name: impl Into<String>) {
        self.outputs.push(name.into());
    }

    /// An error that the reader met; it is reported together with those of [`Builder::finish`].
    pub fn error(&mut self, error: Error) {
        self.errors.push(error);
    }

    /// The graph, sorted.
    ///
    /// # Errors
    ///
    /// A name that is defined twice or not at all, a cycle, a model without outputs; all of them.
    pub fn finish(self) -> Result<Graph, Errors> {
        let Builder { name, inputs, constants, nodes, outputs, mut declared, mut errors } = self;
        let mut graph = Graph {
            name,
            values: PrimaryMap::new(),
            nodes: PrimaryMap::new(),
            inputs: vec![],
            outputs: vec![],
        };
        let mut names: BTreeMap<String, Value> = BTreeMap::new();
        let mut define = |graph: &mut Graph, name: &str, constant: Option<Tensor>| {
            let declared = declared.remove(name);
            let info = ValueInfo { name: name.to_owned(), constant, declared };
            let value = graph.values.push(info);
            (names.insert(name.to_owned(), value).is_none()).then_some(value)
        };
        let twice = |name: &str| ErrorKind::wrong(format!("\"{name}\" is defined twice"));
        for (name, dtype, dims, parameter) in inputs {
            match define(&mut graph, &name, None) {
                Some(value) => graph.inputs.push(Input { value, dtype, dims, parameter }),
                None => errors.push(twice(&name).into()),
            }
        }
        for (name, tensor) in constants {
            if define(&mut graph, &name, Some(tensor)).is_none() {
                errors.push(twice(&name).into());
            }
        }
        let mut results: Vec<Vec<Option<Value>>> = vec![];
        for node in &nodes {
            let mut row = vec![];
            for name in &node.outputs {
                row.push(if name.is_empty() { None } else { define(&mut graph, name, None) });
                if !name.is_empty() && row.last() == Some(&None) {
                    errors.push(Error::from(twice(name)).at(context(node)));
                }
            }
            results.push(row);
        }
        // A name is compared with all others: in a broken model not for every one that is missing.
        let compared = std::cell::Cell::new(0);
        let find = |name: &str| {
            names.get(name).copied().ok_or_else(|| {
                let kind = ErrorKind::wrong(format!("nothing defines \"{name}\""));
                if compared.replace(compared.get() + 1) >= MOST_COMPARED {
                    return kind;
                }
                match nearest(name, names.keys().map(String::as_str)) {
                    Some(near) => kind.help(format!("did you mean \"{near}\"?")),
                    None => kind,
                }
            })
        };
        // What a node needs: its operands, and behind them the conditions that it holds under.
        let mut operands: Vec<Vec<Option<Value>>> = vec![];
        for node in &nodes {
            let mut row = vec![];
            for name in node.inputs.iter().chain(node.guards.iter().map(|(name, _)| name)) {
                row.push(match name.is_empty() {
                    true => None,
                    false => {
                        find(name).map_err(|e| errors.push(Error::from(e).at(context(node)))).ok()
                    }
                });
            }
            operands.push(row);
        }
        for name in &outputs {
            match find(name) {
                Ok(value) => graph.outputs.push(value),
                Err(e) => errors.push(e.into()),
            }
        }
        if outputs.is_empty() {
            errors.push(ErrorKind::wrong("the model has no outputs").into());
        }
        if !errors.is_empty() {
            return Err(Errors(errors));
        }
        let order = sorted(graph.values.len(), &operands, &results).map_err(|cycle| {
            let node = &nodes[cycle];
            Error::from(ErrorKind::wrong("the node needs its own result: a cycle"))
                .at(context(node))
        })?;
        let mut nodes: Vec<_> = nodes.into_iter().map(Some).collect();
        for index in order {
            let PendingNode { name, op, inputs, guards, .. } =
                nodes[index].take().expect("each node is placed once");
            let count = inputs.len();
            let [mut inputs, outputs] =
                [&mut operands, &mut results].map(|rows| std::mem::take(&mut rows[index]));
            let conditions = inputs.split_off(count).into_iter().flatten();
            let guards = conditions.zip(guards).map(|(value, (_, holds))| (value, holds)).collect();
            graph.nodes.push(NodeInfo { name, op, inputs, outputs, guards });
        }
        Ok(graph)
    }
}

fn context(node: &PendingNode) -> NodeContext {
    let inputs = node.inputs.iter().map(|name| (name.clone(), None::<Type>)).collect();
    NodeContext { name: node.name.clone(), op: node.op.name().to_owned(), inputs }
}

/// The nodes with operands before users, otherwise in the order given; or a node in a cycle.
fn sorted(
    values: usize,
    operands: &[Vec<Option<Value>>],
    results: &[Vec<Option<Value>>],
) -> Result<Vec<usize>, usize> {
    let mut maker = vec![None; values];
    for (node, row) in results.iter().enumerate() {
        row.iter().flatten().for_each(|v| maker[v.as_u32() as usize] = Some(node));
    }
    let makers =
        |node: usize| operands[node].iter().flatten().filter_map(|v| maker[v.as_u32() as usize]);
    // Depth first, with an explicit stack: models have chains of any length.
    let mut order = vec![];
    let mut state = vec![0u8; operands.len()];
    for root in 0..operands.len() {
        let mut stack = vec![root];
        while let Some(&node) = stack.last() {
            match state[node] {
                0 => {
                    state[node] = 1;
                    for before in makers(node) {
                        match state[before] {
                            0 => stack.push(before),
                            1 => return Err(before),
                            _ => {}
                        }
                    }
                }
                1 => {
                    state[node] = 2;
                    order.push(node);
                    stack.pop();
                }
                _ => _ = stack.pop(),
            }
        }
    }
    Ok(order)
}
