//! The C header: prototypes, and the numbers as macros. It is enough by itself for a program without
//! the runtime, from C99 and C++98 on.
//!
//! Names come from the model, so they are mangled where they are part of macros and escaped where
//! they are in comments.

use super::contract::{Contract, Tensor, WeightsMode};
use super::run::CONTEXT_REGION;
use crate::types::DType;
use std::collections::BTreeSet;
use std::fmt::Write;

/// The header's text. `profile`: whether the object has `<prefix>_run_profiled`, for so many steps.
pub fn text(contract: &Contract, profile: Option<usize>) -> String {
    let Contract { prefix, arena_size, arena_align, .. } = contract;
    let macros = prefix.to_uppercase();
    let guard = format!("{macros}_H_{}", &contract.fingerprint_hex()[..8].to_uppercase());
    let mut h = String::new();
    let name = comment(&contract.name);
    line(&mut h, &format!("/* The model {name}, compiled by rlx-aot."));
    line(&mut h, "");
    line(&mut h, "   A zeroed buffer of this size and alignment is an arena:");
    static_arena(&mut h, &macros);
    line(
        &mut h,
        "   Offsets are in bytes from the arena's start. Tensors are dense and row-major. Where there is a
   POINTER in place of an OFFSET, the tensor is the program's own memory, aligned to its elements: its
   address is written into the arena there. */",
    );
    line(&mut h, &format!("#ifndef {guard}\n#define {guard}\n"));
    line(&mut h, "#include <stdint.h>\n");
    line(&mut h, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n");
    line(&mut h, &run_comment(contract));
    line(&mut h, &format!("int32_t {prefix}_run(void *arena);\n"));
    if contract.prepare {
        line(
            &mut h,
            "/* Computes once what depends on the parameters only, and keeps it in the arena: to be",
        );
        line(
            &mut h,
            "   called before the first run, and again when a parameter was set. Inputs stay, outputs",
        );
        line(&mut h, "   of the last run do not. The statuses are those of a run. */");
        line(&mut h, &format!("int32_t {prefix}_prepare(void *arena);\n"));
    }
    if let Some(steps) = profile {
        line(
            &mut h,
            "/* The same, and adds to nanoseconds[i] the time of step i by the clock `now`, which is",
        );
        line(&mut h, "   called with `argument`. */");
        line(&mut h, &format!("#define {macros}_STEPS {steps}"));
        line(
            &mut h,
            &format!(
                "int32_t {prefix}_run_profiled(void *arena, uint64_t (*now)(void *argument), void *argument,"
            ),
        );
        let indent = " ".repeat(format!("int32_t {prefix}_run_profiled(").len());
        line(&mut h, &format!("{indent}uint64_t *nanoseconds);\n"));
    }
    line(&mut h, "/* For programs that include the runtime before. */");
    line(&mut h, &format!("#ifdef RLX_RT_H\nextern const rlx_model {prefix}_model;\n#endif\n"));
    define(&mut h, &format!("{macros}_ARENA_SIZE"), *arena_size);
    define(&mut h, &format!("{macros}_ARENA_ALIGN"), *arena_align);
    if contract.guard > 0 {
        line(
            &mut h,
            "/* So many bytes behind each input, state and output are nobody's: rlx_check_guards looks at them. */",
        );
        define(&mut h, &format!("{macros}_GUARD"), u64::from(contract.guard));
    }
    if contract.region_size > 0 {
        let whose = if contract.region_keeps {
            "and nobody else writes to it: what is prepared may lie\n   there, and is prepared again where the address changes."
        } else {
            "shared with nobody during a run, and of no value between\n   runs."
        };
        line(
            &mut h,
            &format!(
                "/* The second memory, aligned as the arena is, {whose}\n   \
                 Its address is written into the arena at this offset, before the first run. */"
            ),
        );
        define(&mut h, &format!("{macros}_REGION_SIZE"), contract.region_size);
        define(&mut h, &format!("{macros}_REGION_POINTER"), CONTEXT_REGION as u64);
    }
    if contract.weights_mode != WeightsMode::None {
        define(&mut h, &format!("{macros}_WEIGHTS_SIZE"), contract.weights_size);
    }
    let lists =
        [("INPUT", &contract.inputs), ("OUTPUT", &contract.outputs), ("PARAM", &contract.params)];
    for (kind, tensors) in lists {
        define(&mut h, &format!("{macros}_{kind}S"), tensors.len() as u64);
        let names = macro_names(tensors);
        for (i, (tensor, name)) in tensors.iter().zip(names).enumerate() {
            tensor_macros(&mut h, &format!("{macros}_{kind}_{name}"), kind, i, tensor);
        }
    }
    states(&mut h, contract);
    line(&mut h, "\n#ifdef __cplusplus\n}\n#endif\n\n#endif");
    h
}

/// The header of an arena that several models share: for each its header's name and how far its own arena begins
/// behind the start.
pub fn shared(name: &str, models: &[(&Contract, u64)], size: u64) -> String {
    let macros = name.to_uppercase();
    let align = models.iter().map(|(contract, _)| contract.arena_align).max().unwrap_or(1);
    let mut h = String::new();
    line(
        &mut h,
        "/* One arena for several models, compiled by rlx-aot. A zeroed buffer of this size and alignment",
    );
    line(&mut h, "   is one:");
    static_arena(&mut h, &macros);
    line(&mut h, "   The arena of each model begins at its base in it:");
    line(&mut h, "");
    for (Contract { prefix, .. }, _) in models {
        line(
            &mut h,
            &format!("       {prefix}_run(arena + {macros}_{}_BASE)", prefix.to_uppercase()),
        );
    }
    line(&mut h, "");
    line(
        &mut h,
        "   Parameters, states and what was prepared are each model's own and stay. All else lies where the",
    );
    line(
        &mut h,
        "   others have theirs: no two may run (or be prepared) at the same time, and the inputs of a run are set",
    );
    line(&mut h, "   and its outputs read before another model runs. */");
    let guard = format!("{macros}_H");
    line(&mut h, &format!("#ifndef {guard}\n#define {guard}\n"));
    for (Contract { prefix, .. }, _) in models {
        line(&mut h, &format!("#include \"{prefix}.h\""));
    }
    line(&mut h, "");
    define(&mut h, &format!("{macros}_ARENA_SIZE"), size);
    define(&mut h, &format!("{macros}_ARENA_ALIGN"), align);
    for (Contract { prefix, .. }, base) in models {
        define(&mut h, &format!("{macros}_{}_BASE", prefix.to_uppercase()), *base);
    }
    line(&mut h, "\n#endif");
    h
}

/// The line of a program that makes an arena.
fn static_arena(h: &mut String, macros: &str) {
    let arena = format!("arena[{macros}_ARENA_SIZE]");
    line(h, &format!("\n       static _Alignas({macros}_ARENA_ALIGN) unsigned char {arena};\n"));
}

fn run_comment(contract: &Contract) -> String {
    let mut statuses = "1: the arena is null; 5: it is misaligned".to_owned();
    if contract.weights_mode == WeightsMode::External {
        statuses += "; 9: the first 8 bytes of\n   the arena do not point to the weights";
    }
    if !contract.versions.is_empty() {
        statuses += "; 20: the processor can run none\n   of the versions";
    }
    let tensors = [&contract.inputs, &contract.outputs, &contract.params];
    if tensors.into_iter().flatten().any(|tensor| tensor.pointer().is_some()) {
        statuses += "; 24: a pointer to\n   a tensor outside of the arena is null";
    }
    if contract.region_size > 0 {
        statuses += "; 21, 23: the pointer to the second\n   memory is null or misaligned";
    }
    if contract.prepare {
        let _ = write!(statuses, "; 19: {}_prepare was\n   not called", contract.prefix);
    }
    let mut text = format!(
        "/* One inference. 0, or a status of rlx_rt.h ({statuses}).\n   \
         Calls on different arenas may run at the same time."
    );
    if contract.overwrites_inputs {
        text += "\n   A run overwrites its inputs: they are set before each.";
    }
    if let [rest @ .., last] = &contract.versions[..] {
        let _ = write!(
            text,
            "\n   There are versions for {} and {last}; the first call on an\n   \
             arena finds out which one the processor can run.",
            rest.join(", ")
        );
    }
    text + " */"
}

/// What lives between runs. A state has the macros of its input and of its output; these are for all of them.
fn states(h: &mut String, contract: &Contract) {
    let macros = contract.prefix.to_uppercase();
    if contract.states.is_empty() {
        return;
    }
    line(
        h,
        "\n/* Inputs that each run leaves the next value of, at the same place as an output. They are zero at",
    );
    line(h, "   first, in a zeroed arena; to start anew, set them to zero. */");
    define(h, &format!("{macros}_STATES"), contract.states.len() as u64);
    for (i, state) in contract.states.iter().enumerate() {
        let [input, output] =
            [contract.inputs.get(state.input), contract.outputs.get(state.output)];
        let (Some(input), Some(output)) = (input, output) else { continue };
        let (from, to) = (comment(&input.name), comment(&output.name));
        line(h, &format!("\n/* state {i}: input {from} is output {to} of the last run */"));
        define(h, &format!("{macros}_STATE_{i}_INPUT"), state.input as u64);
        define(h, &format!("{macros}_STATE_{i}_OUTPUT"), state.output as u64);
        define(h, &format!("{macros}_STATE_{i}_OFFSET"), input.offset);
        define(h, &format!("{macros}_STATE_{i}_BYTES"), input.bytes);
    }
}

fn tensor_macros(h: &mut String, name: &str, kind: &str, index: usize, tensor: &Tensor) {
    let shape: Vec<_> = tensor.dims.iter().map(ToString::to_string).collect();
    let (label, ty) = (comment(&tensor.name), c_type(tensor.dtype));
    let kind = kind.to_lowercase();
    let dtype = tensor.dtype;
    line(h, &format!("\n/* {kind} {index}: {label}, {dtype}[{}], as {ty} */", shape.join(", ")));
    define(h, &format!("{name}_INDEX"), index as u64);
    match tensor.pointer() {
        Some(pointer) => define(h, &format!("{name}_POINTER"), pointer),
        None => define(h, &format!("{name}_OFFSET"), tensor.offset),
    }
    define(h, &format!("{name}_BYTES"), tensor.bytes);
    define(h, &format!("{name}_COUNT"), tensor.elements());
    define(h, &format!("{name}_RANK"), tensor.dims.len() as u64);
    for (axis, &dim) in tensor.dims.iter().enumerate() {
        define(h, &format!("{name}_DIM_{axis}"), dim as u64);
    }
}

fn line(h: &mut String, text: &str) {
    h.push_str(text);
    h.push('\n');
}

/// Without a suffix C takes the first signed type that the number fits into.
fn define(h: &mut String, name: &str, value: u64) {
    let _ = writeln!(h, "#define {name} {value}");
}

/// A part of a macro's name for each tensor: unique, of letters, digits and underscores.
fn macro_names(tensors: &[Tensor]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut names = vec![];
    for (i, tensor) in tensors.iter().enumerate() {
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let mut name: String = tensor.name.chars().take(100).map(upper).collect();
        if name.is_empty() || !taken.insert(name.clone()) {
            // A number that no other name ends with: the index is unique, the loop makes it certain.
            let base = name.clone();
            let mut number = i;
            loop {
                name = format!("{base}_{number}");
                if taken.insert(name.clone()) {
                    break;
                }
                number += tensors.len();
            }
        }
        names.push(name);
    }
    names
}

/// The name in quotes, as it may stand in a C comment: printable ASCII without an end of the comment,
/// a trigraph or a line continuation.
fn comment(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars().take(200) {
        match c {
            '*' | '?' | '\\' => {
                let _ = write!(text, "%{:02x}", c as u32);
            }
            ' '..='~' => text.push(c),
            _ => {
                let _ = write!(text, "U+{:04x}", c as u32);
            }
        }
    }
    format!("\"{text}\"")
}

fn c_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::F64 => "double",
        DType::F16 | DType::BF16 | DType::U16 => "uint16_t",
        DType::I8 => "int8_t",
        DType::I16 => "int16_t",
        DType::I32 => "int32_t",
        DType::I64 => "int64_t",
        DType::U8 | DType::Bool => "uint8_t",
        DType::U32 => "uint32_t",
        DType::U64 => "uint64_t",
    }
}
