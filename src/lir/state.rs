//! Inputs whose next value each run leaves behind: what a recurrent network or a decoder keeps from run
//! to run.
//!
//! Such an input and its output are one buffer ([`BufferKind::State`](super::BufferKind::State)), alive
//! always and zero at first. The caller may set it as any input, but need not. The output is written there as soon as
//! no step needs the old value any more, in place of it where its step can do that; where something else
//! still reads the old value later, it is copied there at the end.

use super::Options;
use super::access::Access;
use super::views::view;
use crate::error::{ErrorKind, nearest};
use crate::mir::{Graph, Op, Role, Value};
use crate::types::Type;
use cranelift_entity::SecondaryMap;
use serde::{Deserialize, Serialize};

/// An input and the output whose value it has in the next run, by their indices in [`Io`](super::Io).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Which input.
    pub input: usize,
    /// Which output.
    pub output: usize,
}

/// A state of a graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The input.
    pub(super) input: Value,
    /// Index of the output.
    pub(super) output: usize,
}

/// The states that the options name, in their order.
///
/// # Errors
///
/// A name that no input or output has, an input that is a parameter or has two outputs, and two tensors of
/// different types.
pub fn links(graph: &Graph, options: &Options) -> Result<Vec<Link>, ErrorKind> {
    let mut links: Vec<Link> = vec![];
    for (from, to) in &options.states {
        let usage = |what: String| ErrorKind::usage(format!("state {from}={to}: {what}"));
        let inputs = graph.inputs.iter().filter_map(|&value| match &graph.nodes[value].op {
            Op::Input { name, role } => Some((name.as_str(), *role, value)),
            _ => None,
        });
        let names = inputs.clone().filter(|(_, role, _)| *role == Role::Input);
        let names: Vec<&str> = names.map(|(name, ..)| name).collect();
        let input = match inputs.clone().find(|(name, ..)| name == from) {
            Some((_, Role::Input, value)) => value,
            Some((_, Role::Parameter, _)) => {
                let kind = usage(format!("\"{from}\" is a parameter, which no run changes"));
                return Err(kind.help(listed("inputs", from, &names)));
            }
            None => {
                let kind = usage(format!("the model has no input \"{from}\""));
                return Err(kind.help(listed("inputs", from, &names)));
            }
        };
        let outputs: Vec<&str> = graph.outputs.iter().map(|output| output.name.as_str()).collect();
        let Some(output) = outputs.iter().position(|name| name == to) else {
            let kind = usage(format!("the model has no output \"{to}\""));
            return Err(kind.help(listed("outputs", to, &outputs)));
        };
        let (before, after) = (graph.ty(input), graph.ty(graph.outputs[output].value));
        if before != after {
            let kind = usage(format!("the input is {before} and the output {after}"));
            return Err(kind.help(misfit(before, after)));
        }
        if links.iter().any(|link| link.input == input) {
            let kind = usage(format!("\"{from}\" is the state of another output already"));
            return Err(kind.help("an input has one value: name each once"));
        }
        links.push(Link { input, output });
    }
    Ok(links)
}

/// What would be right where an input cannot have the value of an output.
fn misfit(before: &Type, after: &Type) -> String {
    let mut differ = before.dims.iter().zip(&after.dims).filter(|(a, b)| a != b);
    let alike = before.dtype == after.dtype && before.rank() == after.rank();
    match (differ.next(), differ.next()) {
        (Some((past, present)), None) if alike && past < present => format!(
            "shapes do not change from run to run, so that a state cannot grow: --window keeps the last {past} of {present}, or the model writes to a place of a state of its full length (as ScatterND or Where do)"
        ),
        _ => "the output becomes the input of the next run: both must have one type and shape"
            .to_owned(),
    }
}

fn listed(what: &str, name: &str, names: &[&str]) -> String {
    match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if names.is_empty() => format!("it has no {what}"),
        None => format!("its {what} are \"{}\"", names.join("\", \"")),
    }
}

/// A use of what a state was before the run.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    /// When, as a position in the order; that of a state's copy is behind all.
    pub(super) at: usize,
    /// The operand of a step that reads it there, as an access to the state's buffer.
    pub(super) operand: Option<(Value, usize, Access)>,
}

/// All uses of a state's old value, with those of its views.
pub(super) fn readers(
    graph: &Graph,
    order: &[Value],
    links: &[Link],
    input: Value,
    buffer: super::Buffer,
) -> Vec<Reader> {
    let mut shown: SecondaryMap<Value, Option<Access>> = SecondaryMap::new();
    shown[input] = Some(Access::dense(buffer, graph.ty(input)));
    let mut readers = vec![];
    for (position, &value) in order.iter().enumerate() {
        let node = &graph.nodes[value];
        for (index, &operand) in node.operands.iter().enumerate() {
            let Some(access) = shown[operand].clone() else { continue };
            // A view that is no access is a copy.
            match view(node, &access).filter(|_| node.op.is_view()) {
                Some(seen) => shown[value] = Some(seen),
                None => {
                    readers.push(Reader { at: position, operand: Some((value, index, access)) });
                }
            }
        }
        if shown[value].is_some() {
            for (index, output) in graph.outputs.iter().enumerate() {
                if output.value == value {
                    let state = links.iter().any(|link| link.output == index);
                    let at = if state { usize::MAX } else { position };
                    readers.push(Reader { at, operand: None });
                }
            }
        }
    }
    readers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::{Module, lower};
    use crate::mir::{Binary, Builder, Output, Unary};
    use crate::types::{DType, Type};

    fn named(outputs: &[(&str, Value)]) -> Vec<Output> {
        let output = |&(name, value): &(&str, Value)| Output { name: name.to_owned(), value };
        outputs.iter().map(output).collect()
    }

    fn options(states: &[(&str, &str)]) -> Options {
        let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        Options { states: states.iter().map(own).collect(), ..Options::default() }
    }

    fn vectors(mir: &mut Builder, names: &[&str]) -> Vec<Value> {
        let ty = Type::new(DType::F32, [32]);
        names.iter().map(|name| mir.input(*name, Role::Input, ty.clone())).collect()
    }

    fn moves(module: &Module) -> usize {
        module.steps.values().filter(|step| step.op == crate::lir::Op::Move).count()
    }

    /// A sum is added to where it is, and is found there as the output.
    #[test]
    fn sums_are_in_place() {
        let mut mir = Builder::new("m");
        let [x, sum] = vectors(&mut mir, &["x", "sum"])[..] else { return };
        let more = mir.binary(Binary::Add, sum, x);
        let y = mir.unary(Unary::Exp, more);
        let graph = mir.finish(named(&[("y", y), ("more", more)]));
        let module = lower(&graph, options(&[("sum", "more")])).expect("it is small");
        assert_eq!(module.steps.len(), 2, "{module}");
        assert_eq!(module.io.states, [State { input: 1, output: 1 }]);
        assert_eq!(module.io.inputs[1].buffer, module.io.outputs[1].buffer);
        assert_eq!(module.buffers.len(), 3, "{module}");
    }

    /// What is read later is written at the end; states that change places need room for one.
    #[test]
    fn states_change_places() {
        let mut mir = Builder::new("m");
        let [x, a, b] = vectors(&mut mir, &["x", "a", "b"])[..] else { return };
        let y = mir.binary(Binary::Add, x, a);
        let graph = mir.finish(named(&[("y", y), ("a1", b), ("b1", a), ("c1", x)]));
        let swapped = lower(&graph, options(&[("a", "a1"), ("b", "b1")])).expect("it is small");
        assert_eq!(moves(&swapped), 3, "{swapped}");
        // A register that is shifted needs none.
        let shifted = lower(&graph, options(&[("a", "a1"), ("b", "c1")])).expect("it is small");
        assert_eq!(moves(&shifted), 2 + 1, "{shifted}");
        let kept = lower(&graph, options(&[("a", "b1")])).expect("it is small");
        assert_eq!(moves(&kept), 0, "{kept}");
    }

    #[test]
    fn wrong_states_are_errors() {
        let mut mir = Builder::new("m");
        let [x, other] = vectors(&mut mir, &["x", "state"])[..] else { return };
        let w = mir.input("w", Role::Parameter, Type::new(DType::F32, [32]));
        let y = mir.binary(Binary::Add, x, w);
        let z = mir.reshape(other, [4, 8]);
        let graph = mir.finish(named(&[("y", y), ("z", z)]));
        let says = |states: &[(&str, &str)], text: &str| {
            let error = lower(&graph, options(states)).expect_err(text);
            assert!(format!("{} {:?}", error.message, error.help).contains(text), "{error}");
        };
        says(&[("stat", "y")], "did you mean \\\"state\\\"");
        says(&[("x", "yy")], "did you mean \\\"y\\\"");
        says(&[("w", "y")], "is a parameter");
        says(&[("x", "z")], "f32[32] and the output f32[4, 8]");
        says(&[("x", "y"), ("x", "y")], "another output already");
    }
}
