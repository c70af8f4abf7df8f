//! `rlx-aot plan --compare`: the arena beside those of other ways to plan the same model.

use crate::cli::output::bytes;
use rlx_aot::hir::Node;
use rlx_aot::hir::check::Checked;
use rlx_aot::lir::Module;
use rlx_aot::placement::{self, Item};
use serde::Serialize;
use std::collections::BTreeMap;

/// What other planners align tensors to.
const ALIGN: u64 = 16;

/// Operators that only name bytes anew: in no runtime their results have bytes of their own.
const VIEWS: [&str; 6] = ["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"];

/// Operators that converters fuse into the one before, where nobody else reads what that computes.
const FUSED: [&str; 6] =
    ["Relu", "Clip", "LeakyRelu", "HardSwish", "BatchNormalization", "Sigmoid"];

/// Arenas for the activations of one model, in bytes. Weights are in none of them.
#[derive(Serialize, Debug)]
pub(super) struct Comparison {
    /// Of our plan: our steps, their order, and the placement.
    arena: u64,
    /// The least that any placement of our steps in our order can have.
    bound: u64,
    /// Of our plan if inputs keep their bytes through a run, and if a run overwrites them
    /// (--overwrite-inputs). One of them is `arena`. None where the file brings its plan along.
    inputs_kept: Option<u64>,
    inputs_overwritten: Option<u64>,
    /// The model's nodes in the order of the file, each result with bytes of its own but for reshapes,
    /// largest first, at the lowest place that is free while it lives (as TensorFlow Lite Micro plans).
    /// An input's bytes are free after its last use, as with --overwrite-inputs.
    greedy_by_size: u64,
    /// The same, inputs kept.
    greedy_inputs_kept: u64,
    /// The same, of a model in which a converter has fused activations into the operators before.
    greedy_fused: u64,
    /// The same tensors, each with bytes of its own (as RLX plans).
    without_reuse: u64,
    /// Our steps' tensors, each with bytes of its own.
    steps_unshared: u64,
    /// Our arena's part of `greedy_by_size` that is saved.
    saved: f64,
}

impl Comparison {
    /// Of this plan, and `other` with inputs overwritten if they are kept here, else kept.
    pub(super) fn new(checked: &Checked, module: &Module, other: Option<&Module>) -> Comparison {
        let tensors = tensors_of(checked, Inputs::Freed, false);
        let (arena, greedy) = (module.plan.arena_size, greedy_by_size(&tensors));
        let with = |overwrite: bool| {
            let here = module.plan.options.overwrite_inputs == overwrite;
            other.map(|other| if here { arena } else { other.plan.arena_size })
        };
        Comparison {
            arena,
            bound: module.plan.bound,
            inputs_kept: with(false),
            inputs_overwritten: with(true),
            greedy_by_size: greedy,
            greedy_inputs_kept: greedy_by_size(&tensors_of(checked, Inputs::Kept, false)),
            greedy_fused: greedy_by_size(&tensors_of(checked, Inputs::Freed, true)),
            without_reuse: tensors.iter().map(|tensor| tensor.size).sum(),
            steps_unshared: module.plan.unshared,
            saved: if greedy == 0 { 0.0 } else { 1.0 - arena as f64 / greedy as f64 },
        }
    }

    /// The table.
    pub(super) fn text(&self) -> String {
        let rows = [
            ("this plan", Some(self.arena)),
            ("its bound", Some(self.bound)),
            ("our plan, inputs kept", self.inputs_kept),
            ("our plan, inputs overwritten", self.inputs_overwritten),
            ("greedy by size, the file's nodes, inputs freed", Some(self.greedy_by_size)),
            ("the same, inputs kept", Some(self.greedy_inputs_kept)),
            ("inputs freed, activations fused", Some(self.greedy_fused)),
            ("no reuse, the file's nodes (RLX)", Some(self.without_reuse)),
            ("no reuse, our steps", Some(self.steps_unshared)),
        ];
        let rows = rows.into_iter().filter_map(|(name, size)| Some((name, size?)));
        let mut text = format!("{:<46} {:>12} {:>10} {:>7}\n", "way", "bytes", "", "saved");
        for (name, size) in rows {
            let saved =
                if size == 0 { 0.0 } else { 100.0 - 100.0 * self.arena as f64 / size as f64 };
            text += &format!("{name:<46} {size:>12} {:>10} {saved:>6.1}%\n", bytes(size));
        }
        text
    }
}

/// Whether an input's bytes are free after its last use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Inputs {
    Freed,
    Kept,
}

/// The tensors of the model that need bytes, each alive from the node that makes it to the one before
/// its upper bound, as the file has them, or with activations fused.
fn tensors_of(checked: &Checked, inputs: Inputs, fuse: bool) -> Vec<Item> {
    let graph = checked.graph();
    let mut uses: BTreeMap<_, usize> = BTreeMap::new();
    for info in graph.nodes.values() {
        for &value in info.inputs.iter().flatten() {
            *uses.entry(value).or_default() += 1;
        }
    }
    for &value in &graph.outputs {
        *uses.entry(value).or_default() += 1;
    }
    let end = graph.nodes.len() as i64 + 1;
    let mut tensors: Vec<Item> = vec![];
    // Which tensor has a value's bytes.
    let mut place = BTreeMap::new();
    let size = |value| (checked.ty(value).bytes() as u64).next_multiple_of(ALIGN);
    for input in &graph.inputs {
        place.insert(input.value, tensors.len());
        let end = if input.parameter || inputs == Inputs::Kept { end } else { 1 };
        tensors.push(Item::new(size(input.value), 0, end));
    }
    let made: BTreeMap<_, Node> = (graph.nodes.iter())
        .flat_map(|(node, info)| info.outputs.iter().flatten().map(move |&value| (value, node)))
        .collect();
    for (at, info) in (1..).zip(graph.nodes.values()) {
        for place in info.inputs.iter().flatten().filter_map(|value| place.get(value)) {
            let tensor: &mut Item = &mut tensors[*place];
            tensor.upper = tensor.upper.max(at + 1);
        }
        for &value in info.outputs.iter().flatten() {
            if checked.constant(value).is_some() {
                continue;
            }
            let first = info.inputs.first().copied().flatten();
            let name = info.op.name();
            let alias = first.filter(|first| {
                let fused = fuse && FUSED.contains(&name) && uses.get(first) == Some(&1);
                (VIEWS.contains(&name) || fused && made.contains_key(first))
                    && size(*first) == size(value)
            });
            match alias.and_then(|first| place.get(&first).copied()) {
                Some(alias) => place.insert(value, alias),
                None => {
                    tensors.push(Item::new(size(value), at, at + 1));
                    place.insert(value, tensors.len() - 1)
                }
            };
        }
    }
    for place in graph.outputs.iter().filter_map(|value| place.get(value)) {
        tensors[*place].upper = end;
    }
    tensors
}

/// The height when the largest is placed first, each at the lowest offset that is free.
fn greedy_by_size(tensors: &[Item]) -> u64 {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(tensors[i].size));
    let offsets = placement::in_order(tensors, &order);
    tensors.iter().zip(offsets).map(|(tensor, offset)| offset + tensor.size).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_first() {
        let tensor = Item::new;
        assert_eq!(greedy_by_size(&[]), 0);
        // The second fits below the third, beside the first.
        let tensors = [tensor(64, 0, 2), tensor(16, 1, 3), tensor(48, 2, 4)];
        assert_eq!(greedy_by_size(&tensors), 80);
        let apart = [tensor(32, 0, 1), tensor(32, 1, 2)];
        assert_eq!(greedy_by_size(&apart), 32);
        // A hole is used.
        let hole = [tensor(64, 0, 3), tensor(48, 0, 2), tensor(32, 1, 4), tensor(48, 2, 4)];
        assert_eq!(greedy_by_size(&hole), 144);
    }
}
