//! Which kernel every step calls, with which operands. Equal kernels are there once.

use super::parallel_map;
use crate::error::ErrorKind;
use crate::kir;
use crate::kir::verify::verify;
use crate::lir::{self, Access, BufferKind, Module, Step, StepInfo};
use cranelift_entity::{PrimaryMap, SecondaryMap, entity_impl};
use std::collections::BTreeMap;
use std::fmt;

/// A kernel of a program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kernel(u32);
entity_impl!(Kernel, "k");

/// The kernels of a module, and the call that each step is.
#[derive(Clone, Debug)]
pub struct Program {
    /// In the order of their first use.
    pub kernels: PrimaryMap<Kernel, KernelInfo>,
    /// `None` for a step that writes no element.
    pub calls: SecondaryMap<Step, Option<Call>>,
}

/// A kernel of a program.
#[derive(Clone, Debug)]
pub struct KernelInfo {
    /// What it does. It takes the operands of a step in the step's order, the result last.
    pub kernel: kir::Kernel,
    /// How many iterations of its outermost loop are worth a thread; calls get multiples of it. Not
    /// less than the loop's extent: the kernel is always called once.
    pub grain: i64,
}

/// A step as a call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Of what.
    pub kernel: Kernel,
    /// The kernel's operands, in its order.
    pub table: Vec<Pointer>,
}

/// Where an operand begins: the lowest element that its access reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pointer {
    /// Bytes from the arena's start.
    Arena(i64),
    /// Bytes from the weights' start.
    Weights(i64),
}

/// The program of a module, with the kernels that `build` makes of its steps (and of a name for each).
///
/// # Errors
///
/// What `build` cannot do. A kernel that its verifier refuses is a bug of ours.
pub fn select(
    module: &Module,
    build: impl Fn(&StepInfo, &str) -> Result<KernelInfo, ErrorKind> + Sync,
) -> Result<Program, ErrorKind> {
    let steps: Vec<Step> =
        module.steps.iter().filter(|(_, s)| !s.result.is_empty()).map(|(step, _)| step).collect();
    let built = parallel_map(&steps, |&step| {
        let info = &module.steps[step];
        check(module, step, build(info, name_of(&info.op))?)
    });
    let mut program = Program { kernels: PrimaryMap::new(), calls: SecondaryMap::new() };
    let mut known: BTreeMap<[u8; 32], Kernel> = BTreeMap::new();
    for (&step, built) in steps.iter().zip(built) {
        let (hash, plan) = built?;
        let kernel = *known.entry(hash).or_insert_with(|| program.kernels.push(plan));
        let table = module.accesses(step).map(|access| pointer(module, access)).collect();
        program.calls[step] = Some(Call { kernel, table });
    }
    Ok(program)
}

/// The kernel after all checks, and a hash that equal kernels have in common.
fn check(
    module: &Module,
    step: Step,
    plan: KernelInfo,
) -> Result<([u8; 32], KernelInfo), ErrorKind> {
    let info = &module.steps[step];
    let kernel = &plan.kernel;
    let bug = |what: String| {
        let (origins, kernel) = (info.origins.join(" + "), &plan.kernel);
        Err(ErrorKind::bug(format!("kernel of {step:?} ({origins}): {what}\n{kernel}")))
    };
    if let Err(errors) = verify(kernel) {
        return bug(errors.join("; "));
    }
    // What the verifier has proved of the operands' bytes holds for those that the accesses reach.
    let accesses: Vec<_> = module.accesses(step).collect();
    if kernel.operands.len() != accesses.len() {
        return bug(format!("{} operands for {}", kernel.operands.len(), accesses.len()));
    }
    for (operand, access) in kernel.operands.iter().zip(accesses) {
        let reached = access.span().map_or(0, |(low, high)| high - low + 1);
        if operand.bytes > reached * access.dtype.bytes() as i64 {
            return bug(format!("operand {} is longer than {access:?}", operand.name));
        }
    }
    let hash = blake3::hash(format!("{} {kernel}", plan.grain).as_bytes());
    Ok((*hash.as_bytes(), plan))
}

fn pointer(module: &Module, access: &Access) -> Pointer {
    let low = access.span().map_or(0, |(low, _)| low) * access.dtype.bytes() as i64;
    let plan = &module.plan;
    match (&module.buffers[access.buffer].kind, plan.slots.get(&access.buffer)) {
        (BufferKind::Constant(_), _) => {
            Pointer::Weights(plan.weights.get(&access.buffer).map_or(0, |&o| o as i64) + low)
        }
        // What has no bytes may have no slot.
        (_, slot) => Pointer::Arena(slot.map_or(0, |&offset| offset as i64) + low),
    }
}

/// What a kernel is called in symbols and listings.
fn name_of(op: &lir::Op) -> &'static str {
    match op {
        lir::Op::Rows(_) => "rows",
        lir::Op::Reduce { .. } => "reduce",
        lir::Op::ArgReduce { .. } => "arg_reduce",
        lir::Op::Contract(_) => "contract",
        lir::Op::Conv(_) => "conv",
        lir::Op::Pool(_) => "pool",
        lir::Op::Gather { .. } => "gather",
        lir::Op::Move => "move",
        lir::Op::Fill(_) => "fill",
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kernel, plan) in &self.kernels {
            let users =
                self.calls.iter().filter(|(_, c)| c.as_ref().is_some_and(|c| c.kernel == kernel));
            let users: Vec<_> = users.map(|(step, _)| format!("{step:?}")).collect();
            writeln!(f, "; {kernel:?}: {}, grain {}", users.join(" "), plan.grain)?;
            writeln!(f, "{}", plan.kernel)?;
        }
        Ok(())
    }
}
