//! A plan for people: what is where and when, what the peak is made of, and what everything costs.
//!
//! A [`Report`] is plain data, made of a placed module and, where there is one, of its code. It is
//! printed as text ([`Report::text`]), as JSON (its fields are the format, [`SCHEMA`] says what they mean), as
//! a picture ([`Report::svg`]) and as a page ([`Report::html`]) that need nothing but themselves.
//!
//! Times are those of [`Range`](crate::lir::liveness::Range): 0 is before the first step, step `s` runs
//! at `s + 1`, and the last time is behind the last step.

mod axis;
mod contents;
mod page;
mod peak;
mod svg;
mod text;

pub use axis::bytes;
use peak::Memory;
pub use peak::{Holder, Peak};

use crate::codegen::{Object, Program};
use crate::lir::liveness::ranges;
use crate::lir::permanent::gaps;
use crate::lir::phase::{Phase, phases};
use crate::lir::room::room;
use crate::lir::{Access, BufferInfo, BufferKind, CONTEXT_BYTES, Module, StepInfo};
use cranelift_entity::EntityRef;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Name and version of the JSON. Fields may be added to a version, and mean what they meant.
pub const FORMAT: &str = "rlx-aot-plan/1";

/// The JSON Schema (draft 2020-12) of a report.
pub const SCHEMA: &str = include_str!("schema.json");

/// A plan, as it is shown. Sizes and offsets are in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: &'static str,
    /// Name of the model.
    pub model: String,
    /// Of every slot, and of the arena.
    pub alignment: u64,
    /// Of all regions.
    pub arena_size: u64,
    /// No plan for this schedule is smaller.
    pub bound: u64,
    /// Whether the arena is as small as that.
    pub optimal: bool,
    /// What the arena would be if no two buffers shared bytes.
    pub unshared: u64,
    /// Of all constants.
    pub weights_size: u64,
    /// Steps that depend on parameters and constants only.
    pub prepare_steps: usize,
    /// The memories that the arena is in.
    pub regions: Vec<Region>,
    /// The roots of storage; elsewhere a number stands for an entry of this list.
    pub buffers: Vec<Buffer>,
    /// The schedule; elsewhere a number stands for an entry of this list.
    pub steps: Vec<Step>,
    /// What the steps of each kind need together, the largest first.
    pub operators: Vec<Operator>,
    /// The code, if it was made.
    pub code: Option<Code>,
}

/// A memory of its own addresses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Region {
    /// What it is called.
    pub name: String,
    /// How long it is.
    pub size: u64,
    /// No placement of what is in it is smaller.
    pub bound: u64,
    /// What is no buffer's at any time: the context, weights with a slot in the arena, and what another plan has
    /// between parameters that both share.
    pub reserved: u64,
    /// How much is taken at each time.
    pub live: Vec<u64>,
    /// Where that is most.
    pub peak: Peak,
}

/// A root of storage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Buffer {
    /// Its handle, as in listings.
    pub id: String,
    /// The tensor that it was made for.
    pub name: String,
    /// What it holds: `input`, `parameter`, `output`, `state`, `temporary` or `constant`.
    pub kind: &'static str,
    /// Type of the elements: as the buffer is used whole first, else of the largest tensor in it.
    pub dtype: Option<&'static str>,
    /// Of the same tensor.
    pub shape: Vec<usize>,
    /// Its size.
    pub bytes: u64,
    /// What the plan keeps for it: its size, rounded up to the alignment, with the guard behind it and what makes
    /// its slot uniform.
    pub room: u64,
    /// Which region it is in; none for constants that are in flash, and for what no step touches.
    pub region: Option<usize>,
    /// From the region's start, or for a constant from the weights' start.
    pub offset: Option<u64>,
    /// When it is first needed; none for constants.
    pub first: Option<u32>,
    /// When it is last needed.
    pub last: Option<u32>,
    /// What it holds one after the other and side by side: in-place results and windows.
    pub contents: Vec<Content>,
}

/// A tensor in a buffer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Content {
    /// Which step writes it; none for what is there before the first.
    pub writer: Option<usize>,
    /// Which steps read it.
    pub readers: Vec<usize>,
    /// When it is written.
    pub first: u32,
    /// When it is used last.
    pub last: u32,
    /// Type of the elements.
    pub dtype: &'static str,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// The first byte that is reached, from the buffer's start, and the end of the last one.
    pub span: (u64, u64),
    /// Where a picture shows it, in bytes from the buffer's start: the span, or for the columns of a
    /// wider tensor their share of it.
    pub shown: (u64, u64),
    /// Whether some bytes in the span are not its own.
    pub strided: bool,
    /// Which entry of the buffer's contents it is computed in place of.
    pub in_place_of: Option<usize>,
}

/// A step of the schedule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Its handle, as in listings.
    pub id: String,
    /// What kind it is.
    pub operator: &'static str,
    /// What it computes, in full.
    pub computes: String,
    /// The model's nodes that it came from.
    pub nodes: Vec<String>,
    /// `prepare` if it depends on parameters and constants only, else `run`.
    pub phase: &'static str,
    /// The buffers that it reads.
    pub reads: Vec<usize>,
    /// The buffer that it writes.
    pub writes: usize,
    /// How much of all regions is taken while it runs.
    pub live: u64,
    /// Bytes of the arena that it reads and writes.
    pub touched: u64,
    /// Bytes of the constants that it reads.
    pub weights: u64,
    /// Which kernel it calls, if code was made and it computes anything.
    pub kernel: Option<usize>,
}

/// The steps of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operator {
    /// Which kind.
    pub operator: &'static str,
    /// How many.
    pub steps: usize,
    /// The most that is taken while one of them runs.
    pub live: u64,
    /// Bytes of the arena that they read and write.
    pub touched: u64,
    /// Bytes of the constants that they read, each counted once.
    pub weights: u64,
    /// Bytes of their kernels, each counted once; none without code.
    pub code: Option<u64>,
}

/// The code.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Code {
    /// What it is for.
    pub target: String,
    /// Bytes of all functions.
    pub bytes: u64,
    /// Bytes of those that are no kernels: they call the kernels one after the other.
    pub calls: u64,
    /// The kernels.
    pub kernels: Vec<Kernel>,
}

/// A function that one or more steps call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kernel {
    /// Its name, without the model's prefix.
    pub name: String,
    /// Its size, constants included.
    pub bytes: u64,
    /// Which steps call it.
    pub steps: Vec<usize>,
}

/// The code of a module, for [`Report::new`].
#[derive(Clone, Copy, Debug)]
pub struct Compiled<'a> {
    /// What it is for.
    pub target: &'a str,
    /// Which kernel every step calls.
    pub program: &'a Program,
    /// How long they are.
    pub object: &'a Object,
}

impl Report {
    /// The report on a module, with its code if that was made.
    pub fn new(module: &Module, code: Option<Compiled<'_>>) -> Report {
        let code_of = |c: Compiled<'_>| self::code(module, &c);
        let buffers = buffers(module);
        let mut steps = steps(module, code.map(|c| c.program));
        let code = code.map(code_of);
        let plan = &module.plan;
        let regions = regions(module, &buffers, &steps);
        for region in &regions {
            let live = region.live.iter().skip(1);
            steps.iter_mut().zip(live).for_each(|(step, live)| step.live += live);
        }
        let fast = buffers.iter().filter(|b| b.region == Some(1)).map(|b| b.room).sum::<u64>();
        let operators = operators(&buffers, &steps, code.as_ref());
        Report {
            format: FORMAT,
            model: module.name.clone(),
            alignment: plan.options.alignment,
            arena_size: regions.iter().map(|r| r.size).sum(),
            bound: regions.iter().map(|r| r.bound).sum(),
            optimal: regions.iter().all(|r| r.size <= r.bound),
            unshared: plan.unshared + fast,
            weights_size: plan.weights_size,
            prepare_steps: steps.iter().filter(|s| s.phase == "prepare").count(),
            regions,
            buffers,
            steps,
            operators,
            code,
        }
    }

    /// Adds what the arena would be in bands of rows and with nodes that are computed `again`, with how much time as
    /// a multiple of that now.
    pub fn advise_smaller(&mut self, size: u64, time: f64, bands: bool, again: &[String]) {
        if let Some(arena) = self.regions.first_mut() {
            let advice = peak::smaller(arena.size, size, time, bands, again);
            arena.peak.advice.extend(advice);
        }
    }

    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("structures of numbers and strings")
    }

    /// The last time: behind the last step.
    fn end(&self) -> u32 {
        count(self.steps.len() + 1)
    }
}

/// How many, where handles have 32 bits.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn buffers(module: &Module) -> Vec<Buffer> {
    let plan = &module.plan;
    let ranges = ranges(module);
    let room = room(module);
    let mut contents = contents::contents(module);
    let buffer = |(buffer, info): (crate::lir::Buffer, &BufferInfo)| {
        let constant = matches!(info.kind, BufferKind::Constant(_));
        let contents::Contents { all: contents, whole } = std::mem::take(&mut contents[buffer]);
        let largest = contents.iter().rev().max_by_key(|c| c.shape.iter().product::<usize>());
        let (dtype, shape) = match (whole, largest) {
            (Some(ty), _) => (Some(ty.dtype.name()), ty.dims),
            (None, Some(largest)) => (Some(largest.dtype), largest.shape.clone()),
            (None, None) => (None, vec![]),
        };
        let fast = plan.fast.get(&buffer).copied();
        let slot = plan.slots.get(&buffer).copied();
        let weights = plan.weights.get(&buffer).copied();
        let in_arena = |offset| plan.weights_slot.map_or(offset, |slot| slot + offset);
        Buffer {
            id: buffer.to_string(),
            name: info.name.clone(),
            kind: kind(&info.kind),
            dtype,
            shape,
            bytes: info.bytes,
            room: room[buffer].next_multiple_of(plan.options.alignment.max(1)),
            region: match fast {
                Some(_) => Some(1),
                None => (slot.is_some() || constant && plan.weights_slot.is_some()).then_some(0),
            },
            offset: if constant { weights.map(in_arena) } else { fast.or(slot) },
            first: ranges[buffer].map(|r| r.first),
            last: ranges[buffer].map(|r| r.last),
            contents,
        }
    };
    module.buffers.iter().map(buffer).collect()
}

fn kind(kind: &BufferKind) -> &'static str {
    match kind {
        BufferKind::Input => "input",
        BufferKind::Parameter => "parameter",
        BufferKind::Output => "output",
        BufferKind::State => "state",
        BufferKind::Temporary => "temporary",
        BufferKind::Constant(_) => "constant",
    }
}

fn steps(module: &Module, program: Option<&Program>) -> Vec<Step> {
    let phases = phases(module);
    let is_constant =
        |a: &&Access| matches!(module.buffers[a.buffer].kind, BufferKind::Constant(_));
    let step = |(step, info): (crate::lir::Step, &StepInfo)| {
        let constants: BTreeSet<_> =
            info.operands.iter().filter(is_constant).map(|a| a.buffer).collect();
        let moved = module.accesses(step).filter(|a| !is_constant(a)).map(size);
        let reads: BTreeSet<usize> = info.operands.iter().map(|a| a.buffer.index()).collect();
        Step {
            id: step.to_string(),
            operator: info.op.name(),
            computes: info.op.to_string(),
            nodes: info.origins.clone(),
            phase: match phases[step] {
                Phase::Prologue => "prepare",
                Phase::Steady => "run",
            },
            reads: reads.into_iter().collect(),
            writes: info.result.buffer.index(),
            live: 0,
            touched: moved.sum(),
            weights: constants.into_iter().map(|b| module.buffers[b].bytes).sum(),
            kernel: program.and_then(|p| p.calls[step].as_ref()).map(|c| c.kernels[0].index()),
        }
    };
    module.steps.iter().map(step).collect()
}

/// Bytes of the elements that an access reaches, where none is repeated.
fn size(access: &Access) -> u64 {
    let repeated = |(d, s): (&usize, &i64)| if *s == 0 && *d > 0 { 1 } else { *d as u64 };
    let elements: u64 = access.dims.iter().zip(&access.strides).map(repeated).product();
    elements * access.dtype.bytes() as u64
}

/// The arena, and the second memory if there is one.
fn regions(module: &Module, buffers: &[Buffer], steps: &[Step]) -> Vec<Region> {
    let plan = &module.plan;
    let weights = if plan.weights_slot.is_some() { plan.weights_size } else { 0 };
    let context = CONTEXT_BYTES.next_multiple_of(plan.options.alignment.max(1));
    let reserved = context + weights + gaps(module);
    let arena = Memory { index: 0, name: "arena", size: plan.arena_size, reserved };
    let mut regions = vec![region(module, buffers, steps, &arena)];
    regions[0].bound = plan.bound;
    if plan.options.region.is_some() {
        let fast = Memory { index: 1, name: plan.region(), size: plan.fast_size, reserved: 0 };
        regions.push(region(module, buffers, steps, &fast));
    }
    regions
}

fn region(module: &Module, buffers: &[Buffer], steps: &[Step], memory: &Memory<'_>) -> Region {
    let &Memory { index, name, size, reserved } = memory;
    let end = steps.len() + 1;
    // What comes and what goes at each time.
    let mut come = vec![0; end + 2];
    let mut go = vec![0; end + 2];
    for buffer in buffers.iter().filter(|b| b.region == Some(index)) {
        if let (Some(first), Some(last)) = (buffer.first, buffer.last) {
            come[first as usize] += buffer.room;
            go[last as usize + 1] += buffer.room;
        }
    }
    let mut now = reserved;
    let live: Vec<u64> = come
        .iter()
        .zip(&go)
        .take(end + 1)
        .map(|(come, go)| {
            now = now + come - go;
            now
        })
        .collect();
    let peak = peak::peak(module, buffers, steps, &live, memory);
    Region { name: name.to_owned(), size, bound: peak.bytes, reserved, live, peak }
}

fn operators(buffers: &[Buffer], steps: &[Step], code: Option<&Code>) -> Vec<Operator> {
    let mut kinds: BTreeMap<&'static str, Vec<&Step>> = BTreeMap::new();
    for step in steps {
        kinds.entry(step.operator).or_default().push(step);
    }
    let operator = |(operator, steps): (&'static str, Vec<&Step>)| {
        let constants: BTreeSet<usize> = steps.iter().flat_map(|s| s.reads.clone()).collect();
        let constants = constants.into_iter().map(|b| &buffers[b]);
        let kernels: BTreeSet<usize> = steps.iter().filter_map(|s| s.kernel).collect();
        Operator {
            operator,
            steps: steps.len(),
            live: steps.iter().map(|s| s.live).max().unwrap_or(0),
            touched: steps.iter().map(|s| s.touched).sum(),
            weights: constants.filter(|b| b.kind == "constant").map(|b| b.bytes).sum(),
            code: code.map(|code| kernels.into_iter().map(|k| code.kernels[k].bytes).sum()),
        }
    };
    let mut operators: Vec<Operator> = kinds.into_iter().map(operator).collect();
    operators.sort_by_key(|o| std::cmp::Reverse((o.weights + o.code.unwrap_or(0), o.steps)));
    operators
}

fn code(module: &Module, compiled: &Compiled<'_>) -> Code {
    let Compiled { target, program, object } = compiled;
    let mut kernels: Vec<Kernel> = program
        .kernels
        .iter()
        .map(|(kernel, info)| Kernel {
            name: format!("{kernel}.{}", info.kernel.name),
            bytes: object.kernel_bytes.get(kernel.index()).copied().unwrap_or(0),
            steps: vec![],
        })
        .collect();
    for step in module.steps.keys() {
        if let Some(call) = &program.calls[step] {
            let called: BTreeSet<_> = call.kernels.iter().collect();
            called.into_iter().for_each(|k| kernels[k.index()].steps.push(step.index()));
        }
    }
    let in_kernels = kernels.iter().map(|k| k.bytes).sum();
    Code {
        target: (*target).to_owned(),
        bytes: object.code_bytes,
        calls: object.code_bytes.saturating_sub(in_kernels),
        kernels,
    }
}

/// `f32[1, 3, 224, 224]`.
fn type_text(dtype: Option<&str>, shape: &[usize]) -> String {
    let Some(dtype) = dtype else { return String::new() };
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("{dtype}[{}]", dims.join(", "))
}

#[cfg(test)]
mod tests;
