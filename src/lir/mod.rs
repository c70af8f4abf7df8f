//! LIR: a schedule of steps over buffers, and the plan that gives every buffer its bytes.
//!
//! A [`Module`] is what is compiled, interpreted, printed and serialized. Its buffers are the roots of
//! storage; a step reads and writes them through [`Access`]es, which say where each element of a
//! tensor lies. So a reshape, a permutation, a slice, a broadcast, the operand of a concatenation and
//! the inside of a border are no steps but other accesses to the same buffer.
//!
//! What holds for every module is listed in [`verify`].

pub mod accepts;
pub mod access;
pub mod collapse;
pub mod fingerprint;
mod homes;
pub mod json;
pub mod liveness;
mod orders;
pub mod over;
pub mod permanent;
pub mod phase;
pub mod place;
pub mod print;
pub mod region;
pub mod room;
pub mod schedule;
pub mod state;
pub mod storage;
mod stored;
pub mod verify;
pub mod views;

pub use access::Access;

use crate::mir;
pub use crate::mir::Runs;
pub use crate::mir::winograd::{Blocks, Matrices, Side, Winograd};
pub use crate::mir::{Attention, Shares, Span};
pub use crate::mir::{Binary, Comparison, Expr, Literal, Scalar, Unary};
pub use crate::mir::{Contract, Conv, Pool, Reduction, Role, Rows, Scan, Stage, Weights};
pub use crate::mir::{nibbles, quads, sums};
use crate::tensor::Tensor;
use crate::types::Type;
use cranelift_entity::{PrimaryMap, entity_impl};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use storage::Windows;
use stored::stored;

/// Bytes at the arena's start that hold the context: weights, threads. No buffer lies there.
pub const CONTEXT_BYTES: u64 = 64;

/// Bytes of a pointer in the arena to a buffer outside of it.
pub const POINTER_BYTES: u64 = 8;

/// Bytes behind the arena and behind the weights that may be read and mean nothing.
pub const SLACK_BYTES: u64 = 64;

/// Looks at an item for a search, where nothing else is asked for: about 50 ms.
pub const PLAN_BUDGET: u64 = 1_000_000;

/// A root of storage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Buffer(u32);
entity_impl!(Buffer, "b");

/// A step of the schedule; steps run in the order of their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Step(u32);
entity_impl!(Step, "s");

/// What may be chosen about a plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Of every slot and of the arena's size. A power of two, at least 16.
    pub alignment: u64,
    /// Give every buffer bytes of its own, for debugging.
    pub no_reuse: bool,
    /// Give constants slots in the arena (they are copied in once).
    pub weights_in_arena: bool,
    /// Windows, in-place results and view aliases (off at -O0: every value is computed to its own buffer).
    pub alias: bool,
    /// Run what depends on parameters and constants only once, in a function of its own ([`phase`]).
    pub prepare: bool,
    /// Inputs give their bytes away behind the last step that reads them: the caller sets them before every run.
    #[serde(default)]
    pub overwrite_inputs: bool,
    /// So many bytes behind every input, output and state are no buffer's while it is alive: no step reads or
    /// writes them.
    #[serde(default)]
    pub guard: u64,
    /// The slot of a tensor has at least 4 bytes for each element, as if all of them were 32 bits wide; the
    /// tensor lies dense at its start. So tensors of equal shapes have slots of equal sizes, whatever their
    /// types (but for those of 8 bytes), and a narrow tensor can be made a wide one where it is.
    #[serde(default)]
    pub uniform: bool,
    /// Where another plan has parameters of these names: they lie there too.
    #[serde(default)]
    pub parameters: BTreeMap<String, permanent::Fixed>,
    /// What does not live between runs lies behind so many bytes ([`permanent::share`]).
    #[serde(default)]
    pub scratch: Option<u64>,
    /// What of the model's border has no slot in the arena.
    #[serde(default)]
    pub outside: Outside,
    /// A second memory, for what is touched most.
    #[serde(default)]
    pub region: Option<region::Region>,
    /// Inputs and outputs by name: the output's bytes become the input of the next run ([`state`]).
    #[serde(default)]
    pub states: Vec<(String, String)>,
    /// Looks at an item that the search for a lower placement may take ([`crate::placement`]).
    #[serde(default)]
    pub budget: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            alignment: 64,
            no_reuse: false,
            weights_in_arena: false,
            alias: true,
            prepare: true,
            overwrite_inputs: false,
            guard: 0,
            uniform: false,
            parameters: BTreeMap::new(),
            scratch: None,
            outside: Outside::default(),
            region: None,
            states: vec![],
            budget: PLAN_BUDGET,
        }
    }
}

/// Tensors of the model's border that are the program's own memory: the arena holds but a pointer to each. States
/// are always inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outside {
    /// All inputs.
    pub inputs: bool,
    /// All outputs, but for those that are an input or a parameter as it is.
    pub outputs: bool,
    /// All parameters.
    pub parameters: bool,
}

impl Outside {
    /// Whether a buffer that holds this is outside.
    pub fn has(self, kind: &BufferKind) -> bool {
        match kind {
            BufferKind::Input => self.inputs,
            BufferKind::Output => self.outputs,
            BufferKind::Parameter => self.parameters,
            BufferKind::State | BufferKind::Temporary | BufferKind::Constant(_) => false,
        }
    }
}

/// A program with its plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// Name of the model.
    pub name: String,
    /// The roots of storage.
    pub buffers: PrimaryMap<Buffer, BufferInfo>,
    /// The schedule.
    pub steps: PrimaryMap<Step, StepInfo>,
    /// What the caller sets and gets.
    pub io: Io,
    /// Where everything lies.
    pub plan: Plan,
}

/// A root of storage.
#[derive(Clone, Debug, PartialEq)]
pub struct BufferInfo {
    /// For listings: the name of the tensor that it was made for.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What it holds.
    pub kind: BufferKind,
}

/// What a buffer holds.
#[derive(Clone, Debug, PartialEq)]
pub enum BufferKind {
    /// An input of the model: written by the caller, alive from the start to the end of the run.
    Input,
    /// A parameter: written by the caller once, alive always.
    Parameter,
    /// An output: alive until the end of the run.
    Output,
    /// An input whose next value each run leaves behind: alive always, and zero at first.
    State,
    /// Alive from the first step that writes it to the last that uses it.
    Temporary,
    /// Read-only weights.
    Constant(Tensor),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepInfo {
    /// What it computes.
    pub op: Op,
    /// From what. The accesses' dimensions are those that the kind asks for ([`mir::Op`]); for `Rows`
    /// each operand has the dimensions of the domain (stride 0 where it is broadcast), likewise the
    /// operands of epilogues, which have those of the result.
    pub operands: Vec<Access>,
    /// To where.
    pub result: Access,
    /// What it may write and nobody else reads: a whole buffer of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Access>,
    /// Names of the model's nodes that it came from.
    pub origins: Vec<String>,
}

impl StepInfo {
    /// All accesses: the operands, the scratch, and the result last. It is the order of a kernel's
    /// operands.
    pub fn accesses(&self) -> impl Iterator<Item = &Access> {
        self.operands.iter().chain(&self.scratch).chain([&self.result])
    }

    /// Whether it is best computed side by side with the step behind it ([`Contract::rides`]).
    pub fn rides(&self) -> bool {
        matches!(&self.op, Op::Contract(contract) if contract.rides)
    }
}

/// What a step computes: the kinds of MIR without its views, with `Map` as a row program of one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Row program, element-wise expressions above all. Its domain's last axis is the row.
    Rows(Rows),
    /// Reduction over any axes; see [`mir::Op::Reduce`].
    Reduce {
        /// With what.
        op: Reduction,
        /// Over which axes of the operand.
        axes: Vec<usize>,
    },
    /// See [`mir::Op::ArgReduce`].
    ArgReduce {
        /// The largest, else the smallest.
        largest: bool,
        /// Along which axis.
        axis: usize,
        /// Of equal elements the last.
        last: bool,
    },
    /// Matrix product.
    Contract(Contract),
    /// See [`mir::Op::Attention`]. Its scratch has a row for each of its [`Shares`].
    Attention(Attention),
    /// Convolution.
    Conv(Conv),
    /// See [`mir::Op::Winograd`]. The scratch of both sides has a row for each share of their
    /// [`Blocks`].
    Winograd(Winograd),
    /// Reduction over windows.
    Pool(Pool),
    /// See [`mir::Op::Gather`].
    Gather {
        /// Which axis of the data is indexed.
        axis: usize,
        /// What the indices are, each below the axis' extent, where they are known and are for elements that lie
        /// one behind the other.
        #[serde(default)]
        known: Option<Vec<u32>>,
    },
    /// See [`mir::Op::Scatter`].
    Scatter {
        /// How a slice is combined with its update; `None`: it is replaced.
        op: Option<Reduction>,
    },
    /// See [`mir::Op::Sort`]. Its scratch has a row for each share of its [`Runs`].
    Sort {
        /// The largest, else the smallest.
        largest: bool,
        /// How many, from 1 to all.
        count: usize,
    },
    /// See [`mir::Op::Scan`].
    Scan(Scan),
    /// Copies the operand, element by element; both have the same dimensions.
    Move,
    /// Sets every element.
    Fill(Literal),
}

impl Op {
    /// What the kind is called in symbols, listings and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Rows(_) => "rows",
            Op::Reduce { .. } => "reduce",
            Op::ArgReduce { .. } => "arg_reduce",
            Op::Contract(_) => "contract",
            Op::Attention(_) => "attention",
            Op::Conv(_) => "conv",
            Op::Winograd(_) => "winograd",
            Op::Pool(_) => "pool",
            Op::Gather { .. } => "gather",
            Op::Scatter { .. } => "scatter",
            Op::Sort { .. } => "sort",
            Op::Scan(_) => "scan",
            Op::Move => "move",
            Op::Fill(_) => "fill",
        }
    }

    /// Whether a step of this kind may need working memory ([`Op::scratch`]).
    pub fn has_scratch(&self) -> bool {
        match self {
            Op::Attention(_) | Op::Winograd(_) | Op::Sort { .. } => true,
            Op::Rows(_)
            | Op::Reduce { .. }
            | Op::ArgReduce { .. }
            | Op::Contract(_)
            | Op::Conv(_)
            | Op::Pool(_)
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Scan(_)
            | Op::Move
            | Op::Fill(_) => false,
        }
    }

    /// The dimensions of the working memory that a step of this kind needs, with operands of these types
    /// and a result of these dimensions: a row of elements for each share of the work.
    pub fn scratch(&self, operands: &[Type], result: &[usize]) -> Option<[usize; 2]> {
        match self {
            Op::Attention(_) => {
                let shares = Shares::of(&operands.first()?.dims, &operands.get(1)?.dims);
                Some([shares.count, shares.elements()])
            }
            Op::Winograd(w) => {
                let parts = operands.get(..w.first_extra() - 1)?;
                let channels = parts.iter().filter_map(|ty| ty.dims.last()).sum();
                let blocks = w.blocks(channels, result)?;
                Some([blocks.shares, blocks.elements()])
            }
            Op::Sort { count, .. } => {
                let runs = Runs::of(operands.first()?, *count);
                Some([runs.shares, runs.elements()])
            }
            Op::Rows(_)
            | Op::Reduce { .. }
            | Op::ArgReduce { .. }
            | Op::Contract(_)
            | Op::Conv(_)
            | Op::Pool(_)
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Scan(_)
            | Op::Move
            | Op::Fill(_) => None,
        }
    }

    /// Whether the result may lie exactly where operand `operand` lies: every element of the result
    /// is written after all reads of the operand that are needed for it and for later ones.
    pub fn in_place(&self, operand: usize) -> bool {
        match self {
            // A row is read whole before it is written, or element by element in step.
            Op::Rows(_) | Op::Scan(_) => true,
            // The epilogue's operands are read just before the result is stored.
            Op::Contract(_) | Op::Conv(_) => operand >= 2,
            // A block of queries is read before its results are stored.
            Op::Attention(_) => operand == 0,
            Op::Winograd(w) => operand >= w.first_extra(),
            // Where it is not there, it is copied first.
            Op::Scatter { .. } => operand == 0,
            Op::Reduce { .. }
            | Op::ArgReduce { .. }
            | Op::Pool(_)
            | Op::Gather { .. }
            | Op::Sort { .. }
            | Op::Move
            | Op::Fill(_) => false,
        }
    }
}

/// What the caller sets and gets, in the model's order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Io {
    /// Set before every run.
    pub inputs: Vec<Port>,
    /// Set once.
    pub parameters: Vec<Port>,
    /// Results.
    pub outputs: Vec<Port>,
    /// Which inputs have the value that an output had in the last run. Both are one buffer.
    #[serde(default)]
    pub states: Vec<state::State>,
}

/// A tensor at the border of the model: dense, from the start of its buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Name given by the model.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// Where it is. Two outputs may share a buffer; an output may be an input's or parameter's.
    pub buffer: Buffer,
}

/// Where every buffer lies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What was asked for.
    pub options: Options,
    /// Bytes of the arena, context included, a multiple of the alignment.
    pub arena_size: u64,
    /// So many steps, the first ones, are run once ([`phase`]).
    pub prologue: usize,
    /// Bytes from the arena's start for each buffer that has a slot there.
    pub slots: BTreeMap<Buffer, u64>,
    /// Bytes from the arena's start to the pointer to each buffer that is outside of it.
    #[serde(default)]
    pub pointers: BTreeMap<Buffer, u64>,
    /// Bytes from the start of the second memory for each buffer that has a slot there, and in no other.
    #[serde(default)]
    pub fast: BTreeMap<Buffer, u64>,
    /// Bytes of the second memory that are used, a multiple of the alignment.
    #[serde(default)]
    pub fast_size: u64,
    /// Bytes from the weights' start for each constant.
    pub weights: BTreeMap<Buffer, u64>,
    /// Bytes of all weights, a multiple of the alignment.
    pub weights_size: u64,
    /// Offset of the weights in the arena, if they have a slot there.
    pub weights_slot: Option<u64>,
    /// No arena for this schedule is smaller than this: the largest sum of what is alive in it at one step, or more
    /// where the search has proved it.
    pub bound: u64,
    /// What the arena would be if no two buffers shared bytes.
    pub unshared: u64,
}

impl Plan {
    /// What the second memory is called.
    pub fn region(&self) -> &str {
        self.options.region.as_ref().map_or("", |region| &region.name)
    }
}

impl Module {
    /// All accesses of a step, see [`StepInfo::accesses`].
    pub fn accesses(&self, step: Step) -> impl Iterator<Item = &Access> {
        self.steps[step].accesses()
    }

    /// Whether the caller reads a buffer after the run.
    fn is_output(&self, buffer: Buffer) -> bool {
        self.io.outputs.iter().any(|port| port.buffer == buffer)
    }
}

/// Orders, stores and places a graph.
///
/// # Errors
///
/// States that are none ([`state::links`]), parameters that cannot lie where another plan has them, and a plan that is over a limit. In debug builds, a broken
/// invariant (our bug) panics.
pub fn lower(graph: &mir::Graph, options: Options) -> Result<Module, crate::error::ErrorKind> {
    // Without aliases, the listing follows the model.
    let tried = if options.alias { usize::MAX } else { 1 };
    let orders: Vec<_> = schedule::orders(graph).into_iter().take(tried).collect();
    let (mut module, _) = stored(graph, &orders, &options, true)?;
    if options.alias {
        schedule::improve(&mut module);
    }
    permanent::check_fixed(&module)?;
    place::place(&mut module)?;
    if cfg!(debug_assertions)
        && let Err(broken) = verify::verify(&module)
    {
        panic!("after lowering: {}\n{module}", broken.join("\n"));
    }
    Ok(module)
}

/// The steps of a graph in its own order, with its plan's bound for the size of its arena but without a
/// place or a name for anything: quick, to see where the peak is.
///
/// # Errors
///
/// As [`lower`].
pub fn draft(
    graph: &mir::Graph,
    options: &Options,
) -> Result<(Module, storage::Traces), crate::error::ErrorKind> {
    let (mut module, traces) = stored(graph, &[graph.nodes.keys().collect()], options, false)?;
    module.plan.bound = place::bound(&module);
    module.plan.arena_size = module.plan.bound;
    Ok((module, traces))
}

/// The order of a graph's nodes that leads to the lowest bound.
///
/// # Errors
///
/// As [`lower`].
pub fn order(
    graph: &mir::Graph,
    options: &Options,
) -> Result<Vec<mir::Value>, crate::error::ErrorKind> {
    let links = state::links(graph, options)?;
    let bound = |order: &Vec<mir::Value>| {
        let (module, _) = storage::traced(graph, order, &links, options, &Windows::ALL, false);
        place::bound(&module)
    };
    let best = schedule::orders(graph).into_iter().min_by_key(bound);
    best.ok_or_else(|| crate::error::ErrorKind::bug("no schedule"))
}

/// Stores a graph as it stands and places it as its file says.
///
/// # Errors
///
/// States that are none, slots that this order of the steps cannot live in, and a plan that is over a limit.
pub fn lower_kept(
    graph: &mir::Graph,
    options: Options,
    kept: &place::Kept,
) -> Result<Module, crate::error::ErrorKind> {
    let order: Vec<_> = graph.nodes.keys().collect();
    // Its slots are for one run from the first step to the last.
    let options = Options { alias: false, prepare: false, ..options };
    let links = state::links(graph, &options)?;
    let mut module = storage::assign(graph, &order, &links, &options, &Windows::ALL);
    place::keep(&mut module, kept)?;
    match verify::verify(&module) {
        Ok(()) => Ok(module),
        Err(broken) => {
            let message = format!("the plan in the file does not fit: {}", broken.join("; "));
            Err(crate::error::ErrorKind::unsupported(message)
                .help("leave out --plan keep: it is then planned anew"))
        }
    }
}

#[cfg(test)]
mod tests;
