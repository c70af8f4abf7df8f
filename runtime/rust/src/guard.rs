//! Bytes behind tensors that nobody uses (`--guard`).

use crate::tensor::Tensor;
use crate::{Error, Model};
use alloc::string::ToString;
use core::ops::Range;

/// `RLX_GUARD`.
const FILLED: u8 = 0xa5;

/// Where the bytes behind a tensor are, perhaps none; `None` where they do not lie in the arena.
pub(crate) fn guard_of(model: &Model, tensor: &Tensor) -> Option<Range<usize>> {
    // An output may be a parameter as it is, and parameters have none.
    let parameter = model.params().iter().any(|p| p.bytes > 0 && p.offset == tensor.offset);
    let guarded = !tensor.outside && !parameter && tensor.bytes > 0;
    let guard = if guarded { model.guard() } else { 0 };
    let begin = if tensor.outside { tensor.offset } else { tensor.offset + tensor.bytes };
    let end = begin.checked_add(guard)?;
    (end <= model.arena_size()).then_some(begin..end)
}

impl Model {
    /// Fills the bytes behind all inputs, states and outputs that nobody uses (`--guard`). [`Model::new`] does it, and a run behind
    /// outputs; it is for programs whose model may overwrite its inputs (`--overwrite-inputs`).
    pub fn fill_guards(&mut self) {
        for i in 0..self.inputs().len() {
            self.fill_guard(self.inputs()[i]);
        }
        for i in 0..self.outputs().len() {
            self.fill_guard(self.outputs()[i]);
        }
    }

    /// Looks whether somebody wrote behind the end of a tensor: C or unsafe code that got its address from here.
    ///
    /// # Errors
    /// [`Error::Guard`] with the first such tensor, and [`Error::NoGuards`] if the model has none.
    pub fn check_guards(&self) -> Result<(), Error> {
        if self.guard() == 0 {
            return Err(Error::NoGuards);
        }
        let overrun = |tensor: &&Tensor| {
            let guard = guard_of(self, tensor).unwrap_or_default();
            self.bytes()[guard].iter().any(|&byte| byte != FILLED)
        };
        match self.guarded().find(overrun) {
            Some(tensor) => Err(Error::Guard { name: tensor.name.to_string() }),
            None => Ok(()),
        }
    }

    /// Behind the outputs that are no inputs: their memory was others' before they were written.
    pub(crate) fn refill_guards(&mut self) {
        if self.guard() == 0 {
            return;
        }
        for i in 0..self.outputs().len() {
            let output = self.outputs()[i];
            let is_it = |input: &Tensor| input.bytes > 0 && input.offset == output.offset;
            if !self.inputs().iter().any(is_it) {
                self.fill_guard(output);
            }
        }
    }

    /// All tensors that may have a guard.
    pub(crate) fn guarded(&self) -> impl Iterator<Item = &Tensor> {
        self.inputs().iter().chain(self.outputs())
    }

    fn fill_guard(&mut self, tensor: Tensor) {
        let guard = guard_of(self, &tensor).unwrap_or_default();
        self.bytes_mut()[guard].fill(FILLED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Descriptor, weights_mode};
    use crate::fake::{descriptor, leak, tensor};
    use alloc::boxed::Box;

    #[test]
    fn who_writes_too_far_is_found() {
        // Behind the 24 bytes of x are 40 that nobody uses.
        let with = |guard| Descriptor { guard, ..descriptor(weights_mode::EMBEDDED) };
        let mut model = Model::new(leak(with(40))).unwrap();
        let guard = |name: &str| Err(Error::Guard { name: name.to_string() });
        assert_eq!(model.check_guards(), Ok(()));
        for (begin, name) in [(64 + 24, "x"), (192 + 24, "y"), (256 + 1, "negate")] {
            for at in [begin, begin + 39] {
                model.bytes_mut()[at] = 0;
                assert_eq!(model.check_guards(), guard(name), "{at}");
                model.run().unwrap();
                assert_eq!(model.check_guards(), if name == "y" { Ok(()) } else { guard(name) });
                model.fill_guards();
                assert_eq!(model.check_guards(), Ok(()));
            }
        }
        // An input without bytes where an output is does not make it an input.
        let none = Box::leak(Box::new(tensor(c"none", &[0], 1, 192, 0)));
        let mut model = Model::new(leak(Descriptor { inputs: none, input_count: 1, ..with(40) }));
        let model = model.as_mut().unwrap();
        model.bytes_mut()[192 + 24] = 0;
        model.run().unwrap();
        assert_eq!(model.check_guards(), Ok(()));
        assert_eq!(Model::new(leak(with(0))).unwrap().check_guards(), Err(Error::NoGuards));
        assert!(matches!(Model::new(leak(with(1000))), Err(Error::Descriptor { .. })));
    }
}
