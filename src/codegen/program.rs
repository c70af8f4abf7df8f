//! Which kernel every step calls, with which operands. Equal kernels are there once.

use super::parallel_map;
use crate::error::{Error, ErrorKind, NodeContext};
use crate::kir;
use crate::kir::verify::verify;
use crate::lir::{Access, BufferKind, Module, Step, StepInfo};
use crate::machine::Machine;
use cranelift_entity::{EntityRef, PrimaryMap, SecondaryMap, entity_impl};
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
    /// `None` for a step that writes no element, and for one that is computed along with the step behind it.
    pub calls: SecondaryMap<Step, Option<Call>>,
}

/// A kernel of a program.
#[derive(Clone, Debug)]
pub struct KernelInfo {
    /// What it does. It takes the operands of a step in the step's order, the result last; or those of two steps.
    pub kernel: kir::Kernel,
    /// How many iterations of its outermost loop are worth a thread: no call gets fewer. Not less than
    /// the loop's extent: the kernel is always called once.
    pub grain: i64,
    /// Operations on elements, roughly: some 2^15 take a microsecond.
    pub work: i64,
}

/// What a program does at least for threads to share any of its loops: a quarter of a millisecond.
/// Less is over before what the cores take from each other has paid.
pub const WORTH_SHARING: i64 = 1 << 23;

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
/// share one, and so do versions whose kernels are equal; a step that writes no element calls none. A product
/// that rides on the step behind it is one call with it, where every version's machine has a kernel for both
/// (`abreast`) and neither writes what the other one touches.
///
/// # Errors
///
/// What `build` cannot do. A kernel that its verifier refuses is a bug of ours.
pub fn select(
    module: &Module,
    versions: &[Machine],
    abreast: impl Fn([&StepInfo; 2], &Machine) -> bool,
    key: impl Fn(&[&StepInfo]) -> String,
    build: impl Fn(&[&StepInfo], &Machine, &str) -> Result<KernelInfo, ErrorKind> + Sync,
) -> Result<Program, Error> {
    let mut called: Vec<Called> = vec![];
    for (step, info) in module.steps.iter().filter(|(_, info)| !info.result.is_empty()) {
        let carried = |&before: &Called| {
            let pair = [&module.steps[before.step], info];
            before.rider.is_none()
                && may_ride(module, before.step, step)
                && versions.iter().all(|machine| abreast(pair, machine))
        };
        let rider = called.pop_if(|before| carried(before)).map(|before| before.step);
        called.push(Called { rider, step });
    }
    // Calls that share their kernels, and for each call the number of its like.
    let mut keys = BTreeMap::new();
    let mut firsts: Vec<Called> = vec![];
    let mut likes: Vec<(Called, usize)> = vec![];
    for called in called {
        let like = *keys.entry(key(&called.infos(module))).or_insert(firsts.len());
        if like == firsts.len() {
            firsts.push(called);
        }
        likes.push((called, like));
    }
    let wanted: Vec<(&Machine, Called)> =
        versions.iter().flat_map(|machine| firsts.iter().map(move |&c| (machine, c))).collect();
    let built = parallel_map(&wanted, |&(machine, called)| {
        let (infos, step) = (called.infos(module), called.step);
        let name = module.steps[step].op.name();
        let kernel = build(&infos, machine, name).map_err(|kind| at(module, step, kind))?;
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
    for (called, like) in likes {
        let table = called.accesses(module).map(|access| pointer(module, access)).collect();
        let kernels_of_step = of_like[like].clone();
        for &kernel in &kernels_of_step {
            fits(module, called, &kernels[kernel].kernel)?;
        }
        calls[called.step] = Some(Call { kernels: kernels_of_step, table });
    }
    let mut program = Program { kernels, calls };
    if program.work() < WORTH_SHARING {
        for info in program.kernels.values_mut() {
            info.grain = info.grain.max(info.kernel.range.extent);
        }
    }
    Ok(program)
}

/// The step that a call is, and the one before it that is computed along with it.
#[derive(Clone, Copy)]
struct Called {
    rider: Option<Step>,
    step: Step,
}

impl Called {
    fn steps(self) -> impl Iterator<Item = Step> {
        self.rider.into_iter().chain([self.step])
    }

    fn infos(self, module: &Module) -> Vec<&StepInfo> {
        self.steps().map(|step| &module.steps[step]).collect()
    }

    fn accesses(self, module: &Module) -> impl Iterator<Item = &Access> {
        self.steps().flat_map(|step| module.accesses(step))
    }
}

/// Whether a step may be computed along with the one behind it: it wants to be, in the same run, and neither of them
/// writes what the other one touches.
fn may_ride(module: &Module, rider: Step, carrier: Step) -> bool {
    let apart = |written: &Access, other: &Access| {
        let [(one, length), (two, other)] = [written, other].map(|access| {
            let bytes = access.span().map_or(0, |(low, high)| high - low + 1);
            (pointer(module, access), bytes * access.dtype.bytes() as i64)
        });
        one.distance(two).is_none_or(|ahead| ahead >= length || -ahead >= other)
    };
    let [first, second] = [rider, carrier].map(|step| &module.steps[step]);
    first.rides()
        && rider.index() + 1 == carrier.index()
        && carrier.index() != module.plan.prologue
        && second.accesses().all(|access| apart(&first.result, access))
        && first.accesses().all(|access| apart(&second.result, access))
}

impl Pointer {
    /// How many bytes `other` is ahead, if both point into the same memory.
    fn distance(self, other: Pointer) -> Option<i64> {
        match (self, other) {
            (Pointer::Arena(one), Pointer::Arena(other))
            | (Pointer::Weights(one), Pointer::Weights(other))
            | (Pointer::Fast(one), Pointer::Fast(other)) => Some(other - one),
            (
                Pointer::Outside { pointer: one, offset: at },
                Pointer::Outside { pointer: other, offset },
            ) if one == other => Some(offset - at),
            (
                Pointer::Arena(_)
                | Pointer::Weights(_)
                | Pointer::Fast(_)
                | Pointer::Outside { .. },
                _,
            ) => None,
        }
    }
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
fn fits(module: &Module, called: Called, kernel: &kir::Kernel) -> Result<(), Error> {
    let bug =
        |what: String| Err(at(module, called.step, ErrorKind::bug(format!("{what}\n{kernel}"))));
    let accesses: Vec<_> = called.accesses(module).collect();
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
