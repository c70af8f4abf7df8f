//! Which steps may be written over operands that die ([`lir::over`]): those of which the kernels of every version of the
//! target keep an order. That takes one thread for each, so it is of all of them only where an arena is asked for or
//! threads share nothing; else of those that no threads would share anyhow.

use crate::codegen::program::WORTH_SHARING;
use crate::error::ErrorKind;
use crate::kernels;
use crate::lir::over::Clear;
use crate::lir::{self, Module, StepInfo};
use crate::machine::Machine;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The kernels of a model's steps, as far as they were asked for.
pub(super) struct Kernels<'a> {
    /// Of each version.
    machines: &'a [Machine],
    clear: RefCell<BTreeMap<(String, usize), Option<Clear>>>,
    /// How much a step does, and whether threads may share it.
    work: RefCell<BTreeMap<String, (i64, bool)>>,
}

impl<'a> Kernels<'a> {
    pub(super) fn new(machines: &'a [Machine]) -> Kernels<'a> {
        Kernels { machines, clear: RefCell::default(), work: RefCell::default() }
    }

    /// The module with results over operands that die, where its arena is lower for it: those that no threads share, so
    /// that no run takes longer, or `all`.
    ///
    /// # Errors
    ///
    /// As [`lir::over::overlap`].
    pub(super) fn overlap(&self, module: Module, all: bool) -> Result<Module, ErrorKind> {
        let is_small = std::cell::OnceCell::new();
        let clear = |step: &StepInfo, operand: usize| {
            let alone =
                all || *is_small.get_or_init(|| self.is_small(&module)) || !self.work(step).1;
            alone.then(|| self.clear(step, operand)).flatten()
        };
        let over = lir::over::overlap(&module, &clear)?;
        Ok(over.unwrap_or(module))
    }

    /// Whether no threads share any of a module's steps.
    fn is_small(&self, module: &Module) -> bool {
        let mut left = WORTH_SHARING;
        module.steps.values().all(|step| {
            left -= self.work(step).0;
            left > 0
        })
    }

    fn work(&self, step: &StepInfo) -> (i64, bool) {
        let key = kernels::key(&[step]);
        *self.work.borrow_mut().entry(key).or_insert_with(|| {
            let plans = self.machines.iter().map(|machine| kernels::build(&[step], machine, ""));
            plans.fold((0, false), |(work, shared), plan| match plan {
                Ok(plan) => (work.max(plan.work), shared || plan.grain < plan.kernel.range.extent),
                // It is refused later on.
                Err(_) => (work, true),
            })
        })
    }

    fn clear(&self, step: &StepInfo, operand: usize) -> Option<Clear> {
        let key = (kernels::key(&[step]), operand);
        *self.clear.borrow_mut().entry(key).or_insert_with(|| {
            let each = |machine| kernels::clear(step, operand, machine).ok().flatten();
            let all = self.machines.iter().map(each);
            all.reduce(|one, other| Some(one?.and(other?))).flatten()
        })
    }
}
