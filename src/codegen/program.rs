//! Which kernel every step calls, with which operands. Equal kernels are there once.

use super::parallel_map;
use crate::error::{Error, ErrorKind, NodeContext};
use crate::kir;
use crate::kir::verify::verify;
use crate::lir::{Access, BufferKind, Module, Step, StepInfo};
use crate::machine::Machine;
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
    /// Those of the best version of the target in the order of their first use, then what the others
    /// have besides.
    pub kernels: PrimaryMap<Kernel, KernelInfo>,
    /// `None` for a step that writes no element.
    pub calls: SecondaryMap<Step, Option<Call>>,
}

/// A kernel of a program.
#[derive(Clone, Debug)]
pub struct KernelInfo {
    /// What it does. It takes the operands of a step in the step's order, the result last.
    pub kernel: kir::Kernel,
    /// How many iterations of its outermost loop are worth a thread: no call gets fewer. Not less than
    /// the loop's extent: the kernel is always called once.
    pub grain: i64,
    /// Operations on elements, roughly: some 2^15 take a microsecond.
    pub work: i64,
}

/// What a program does at least for threads to share any of its loops: a quarter of a millisecond.
/// Less is over before what the cores take from each other has paid.
const WORTH_SHARING: i64 = 1 << 23;

/// A step as a call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Of what, in every version of the target, the best first.
    pub kernels: Vec<Kernel>,
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
    /// Bytes from the start of the second memory.
    Fast(i64),
    /// So many bytes behind where a pointer points to, which is in the arena.
    Outside {
        /// Bytes from the arena's start to the pointer.
        pointer: i64,
        /// Bytes from where it points to.
        offset: i64,
    },
}

/// The program of a module for `versions` of a target (one, or those of a fat object), with the kernels
/// that `build` makes of its steps, for a version's machine and with a name. Steps with equal `key`s
/// share one, and so do versions whose kernels are equal; a step that writes no element calls none.
///
/// # Errors
///
/// What `build` cannot do. A kernel that its verifier refuses is a bug of ours.
pub fn select(
    module: &Module,
    versions: &[Machine],
    key: impl Fn(&StepInfo) -> String,
    build: impl Fn(&StepInfo, &Machine, &str) -> Result<KernelInfo, ErrorKind> + Sync,
) -> Result<Program, Error> {
    // Steps that share their kernels, and for each step the number of its like.
    let mut keys = BTreeMap::new();
    let mut firsts: Vec<Step> = vec![];
    let mut likes: Vec<(Step, usize)> = vec![];
    for (step, info) in module.steps.iter().filter(|(_, info)| !info.result.is_empty()) {
        let like = *keys.entry(key(info)).or_insert(firsts.len());
        if like == firsts.len() {
            firsts.push(step);
        }
        likes.push((step, like));
    }
    let wanted: Vec<(&Machine, Step)> =
        versions.iter().flat_map(|machine| firsts.iter().map(move |&s| (machine, s))).collect();
    let built = parallel_map(&wanted, |&(machine, step)| {
        let info = &module.steps[step];
        let kernel = build(info, machine, info.op.name()).map_err(|kind| at(module, step, kind))?;
        verified(module, step, kernel)
    });
    let mut kernels: PrimaryMap<Kernel, KernelInfo> = PrimaryMap::new();
    let mut of_like: Vec<Vec<Kernel>> = vec![vec![]; firsts.len()];
    for (at, info) in built.into_iter().enumerate() {
        let (info, known) = (info?, &mut of_like[at % firsts.len()]);
        let text = (versions.len() > 1).then(|| info.kernel.to_string());
        let same = |k: &Kernel| Some(kernels[*k].kernel.to_string()) == text;
        let kernel = match known.iter().copied().find(same) {
            Some(kernel) => kernel,
            None => kernels.push(info),
        };
        known.push(kernel);
    }
    let mut calls: SecondaryMap<Step, Option<Call>> = SecondaryMap::new();
    for (step, like) in likes {
        let table = module.accesses(step).map(|access| pointer(module, access)).collect();
        let kernels_of_step = of_like[like].clone();
        for &kernel in &kernels_of_step {
            fits(module, step, &kernels[kernel].kernel)?;
        }
        calls[step] = Some(Call { kernels: kernels_of_step, table });
    }
    let mut program = Program { kernels, calls };
    if program.work() < WORTH_SHARING {
        for info in program.kernels.values_mut() {
            info.grain = info.grain.max(info.kernel.range.extent);
        }
    }
    Ok(program)
}

impl Program {
    /// Operations on elements of all calls of the best version, roughly.
    fn work(&self) -> i64 {
        let best = self.calls.values().flatten().filter_map(|call| call.kernels.first());
        best.map(|&kernel| self.kernels[kernel].work).fold(0, i64::saturating_add)
    }

    /// For every kernel, the last version that calls it: the one with the fewest features.
    pub fn least_versions(&self) -> SecondaryMap<Kernel, usize> {
        let mut least = SecondaryMap::new();
        for call in self.calls.values().flatten() {
            for (version, &kernel) in call.kernels.iter().enumerate() {
                least[kernel] = version.max(least[kernel]);
            }
        }
        least
    }
}

fn verified(module: &Module, step: Step, kernel: KernelInfo) -> Result<KernelInfo, Error> {
    match verify(&kernel.kernel) {
        Ok(_) => Ok(kernel),
        Err(errors) => {
            let what = format!("{}\n{}", errors.join("; "), kernel.kernel);
            Err(at(module, step, ErrorKind::bug(format!("the kernel breaks a rule: {what}"))))
        }
    }
}

/// What the verifier has proved of the operands' bytes holds for those that the accesses reach.
fn fits(module: &Module, step: Step, kernel: &kir::Kernel) -> Result<(), Error> {
    let bug = |what: String| Err(at(module, step, ErrorKind::bug(format!("{what}\n{kernel}"))));
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
    Ok(())
}

/// The error with the step that it is about.
fn at(module: &Module, step: Step, kind: ErrorKind) -> Error {
    let info = &module.steps[step];
    let operands = info.operands.iter();
    Error::from(kind).at(NodeContext {
        name: info.origins.join(" + "),
        op: info.op.name().to_owned(),
        inputs: operands.map(|a| (module.buffers[a.buffer].name.clone(), Some(a.ty()))).collect(),
    })
}

fn pointer(module: &Module, access: &Access) -> Pointer {
    let low = access.span().map_or(0, |(low, _)| low) * access.dtype.bytes() as i64;
    let plan = &module.plan;
    match (&module.buffers[access.buffer].kind, plan.slots.get(&access.buffer)) {
        (BufferKind::Constant(_), _) => {
            Pointer::Weights(plan.weights.get(&access.buffer).map_or(0, |&o| o as i64) + low)
        }
        (_, None) if plan.fast.contains_key(&access.buffer) => {
            Pointer::Fast(plan.fast[&access.buffer] as i64 + low)
        }
        (_, None) if plan.pointers.contains_key(&access.buffer) => {
            Pointer::Outside { pointer: plan.pointers[&access.buffer] as i64, offset: low }
        }
        // What has no bytes may have no slot.
        (_, slot) => Pointer::Arena(slot.map_or(0, |&offset| offset as i64) + low),
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kernel, plan) in &self.kernels {
            let users =
                self.calls.iter().filter(|(_, c)| c.iter().any(|c| c.kernels.contains(&kernel)));
            let users: Vec<_> = users.map(|(step, _)| format!("{step:?}")).collect();
            writeln!(f, "; {kernel:?}: {}, grain {}", users.join(" "), plan.grain)?;
            writeln!(f, "{}", plan.kernel)?;
        }
        Ok(())
    }
}
