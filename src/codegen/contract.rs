//! What an object promises to the program that links it: names, shapes, places and sizes. The
//! descriptor in the object, the header and the manifest are three spellings of it.

use crate::lir::state::State;
use crate::lir::{self, CONTEXT_BYTES, SLACK_BYTES};
use crate::types::DType;
use std::fmt;

/// `RLX_ABI_VERSION` of `runtime/rlx_rt.h`.
pub const ABI_VERSION: u32 = 1;

/// `RLX_OUTSIDE`: the bit of an offset that says that a pointer is there, and not the tensor.
pub const OUTSIDE: u64 = 1 << 63;

/// Alignment of weights, embedded or not.
pub const WEIGHTS_ALIGN: u64 = 64;

/// Where a model's weights are. The numbers are those of `rlx_rt.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WeightsMode {
    /// There are none.
    None,
    /// In the object.
    Embedded,
    /// In memory that the program binds.
    External,
    /// In a slot of the arena, copied in once.
    Arena,
}

impl WeightsMode {
    /// All of them, in the order of their numbers.
    pub const ALL: [WeightsMode; 4] = {
        use WeightsMode::*;
        [None, Embedded, External, Arena]
    };

    /// Whether there is a weights file beside the object.
    pub fn has_file(self) -> bool {
        matches!(self, WeightsMode::External | WeightsMode::Arena)
    }
}

impl fmt::Display for WeightsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            WeightsMode::None => "none",
            WeightsMode::Embedded => "embedded",
            WeightsMode::External => "external",
            WeightsMode::Arena => "arena",
        })
    }
}

/// A tensor of the model's interface: dense, row-major, in the byte order of the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    /// Name given by the model.
    pub name: String,
    /// Type of the elements.
    pub dtype: DType,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Bytes from the arena's start; with [`OUTSIDE`], to the pointer to the program's own memory.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
}

impl Tensor {
    /// Where the pointer to it is, if it is outside of the arena.
    pub fn pointer(&self) -> Option<u64> {
        (self.offset & OUTSIDE != 0).then_some(self.offset & !OUTSIDE)
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.bytes / self.dtype.bytes() as u64
    }
}

/// What the descriptor says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contract {
    /// Of every symbol. A C identifier.
    pub prefix: String,
    /// Name of the model.
    pub name: String,
    /// Bytes of the arena: context, slots and slack.
    pub arena_size: u64,
    /// Alignment of the arena.
    pub arena_align: u64,
    /// Set before every run.
    pub inputs: Vec<Tensor>,
    /// Results.
    pub outputs: Vec<Tensor>,
    /// Set once.
    pub params: Vec<Tensor>,
    /// Inputs that have the value that an output had in the last run: both are in one place. Zero at first.
    pub states: Vec<State>,
    /// Where the weights are.
    pub weights_mode: WeightsMode,
    /// Bytes of the weights, with slack behind them unless they are in the arena; 0 if there are none.
    pub weights_size: u64,
    /// Where they are in the arena, for [`WeightsMode::Arena`].
    pub weights_offset: u64,
    /// Bytes behind each input, state and output that nobody uses while it holds something.
    pub guard: u32,
    /// Bytes of the second memory, with slack behind it; 0 if there is none. It is aligned as the arena is.
    pub region_size: u64,
    /// Whether it may hold what is prepared, and so is the model's also between runs. (The object's descriptor does
    /// not say it.)
    pub region_keeps: bool,
    /// Of everything that the object depends on.
    pub fingerprint: [u8; 32],
    /// Whether there is `<prefix>_prepare`, to be called before the first run and when parameters change.
    pub prepare: bool,
    /// The processors that a fat object has versions of its kernels for, the best first; else none.
    pub versions: Vec<String>,
    /// Whether a run leaves other values in its inputs. (The object's descriptor does not say it.)
    pub overwrites_inputs: bool,
}

impl Contract {
    /// The contract of a placed module. `external`: weights that have no slot in the arena are not in
    /// the object either.
    pub fn new(
        module: &lir::Module,
        prefix: &str,
        external: bool,
        fingerprint: [u8; 32],
    ) -> Contract {
        let plan = &module.plan;
        let align = plan.options.alignment;
        let tensor = |port: &lir::Port| Tensor {
            name: port.name.clone(),
            dtype: port.ty.dtype,
            dims: port.ty.dims.clone(),
            // What has no bytes may have no slot.
            offset: match (plan.slots.get(&port.buffer), plan.pointers.get(&port.buffer)) {
                (None, Some(pointer)) => OUTSIDE | pointer,
                (slot, _) => slot.copied().unwrap_or(CONTEXT_BYTES),
            },
            bytes: port.ty.bytes() as u64,
        };
        let weights_mode = match plan.weights_slot {
            _ if plan.weights_size == 0 => WeightsMode::None,
            Some(_) => WeightsMode::Arena,
            None if external => WeightsMode::External,
            None => WeightsMode::Embedded,
        };
        let weights_size = match weights_mode {
            WeightsMode::None => 0,
            // The slot is followed by other slots, and in the end by the arena's slack.
            WeightsMode::Arena => plan.weights_size,
            WeightsMode::Embedded | WeightsMode::External => plan.weights_size + SLACK_BYTES,
        };
        Contract {
            prefix: prefix.to_owned(),
            name: module.name.clone(),
            arena_size: (plan.arena_size + SLACK_BYTES).next_multiple_of(align),
            arena_align: align,
            inputs: module.io.inputs.iter().map(tensor).collect(),
            outputs: module.io.outputs.iter().map(tensor).collect(),
            params: module.io.parameters.iter().map(tensor).collect(),
            states: module.io.states.clone(),
            weights_mode,
            weights_size,
            weights_offset: plan.weights_slot.unwrap_or(0),
            // The command line allows no more than fits.
            guard: u32::try_from(plan.options.guard).unwrap_or(u32::MAX),
            region_size: if plan.fast_size > 0 { plan.fast_size + SLACK_BYTES } else { 0 },
            region_keeps: plan.options.region.as_ref().is_some_and(|region| region.keeps),
            fingerprint,
            prepare: plan.prologue > 0,
            versions: vec![],
            overwrites_inputs: plan.options.overwrite_inputs,
        }
    }

    /// The fingerprint in hexadecimal.
    pub fn fingerprint_hex(&self) -> String {
        self.fingerprint.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// The prefix for an output file of this name (without its extension): a C identifier that does not
/// clash with the runtime's names.
pub fn prefix_of(stem: &str) -> String {
    let word: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if is_prefix(&word) { word } else { format!("model_{word}") }
}

/// Whether `text` may be a prefix: a C identifier of a program (no underscore in front) that is not
/// the runtime's.
pub fn is_prefix(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && text != "rlx"
        && !text.starts_with("rlx_")
        && text.len() <= 200
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        assert_eq!(prefix_of("mlp"), "mlp");
        assert_eq!(prefix_of("mobilenet-v2.1"), "mobilenet_v2_1");
        assert_eq!(prefix_of("7b"), "model_7b");
        assert_eq!(prefix_of("rlx"), "model_rlx");
        assert_eq!(prefix_of(""), "model_");
        assert!(is_prefix(&prefix_of("\u{e4}*/;")));
    }
}
