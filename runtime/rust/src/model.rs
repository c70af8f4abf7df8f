//! A model with its arena.

use crate::abi::{Context, Descriptor, Function, RawState, RawTensor, weights_mode};
use crate::arena::Memory;
use crate::guard::guard_of;
use crate::tensor::{Element, Key, Tensor};
use crate::{ABI_VERSION, Binding, Error, Role, Weights};
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::ffi::{CStr, c_void};

/// A compiled model with an arena of its own.
///
/// Inputs and parameters keep their values between runs, outputs until the next run; all are zero at first.
#[derive(Debug)]
pub struct Model {
    descriptor: &'static Descriptor,
    run: Function,
    name: &'static str,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    params: Vec<Tensor>,
    /// Indices of the inputs whose next value each run leaves behind.
    states: Vec<usize>,
    bound: bool,
    /// What the pointers to tensors outside point to that nobody else binds, by the pointers' places.
    shared: Vec<(usize, Box<dyn Any + Send + Sync>)>,
    /// What a [`Binding`] points to, by the places: written there while it runs the model, and at no other time.
    pub(crate) borrowed: Vec<(usize, *mut c_void)>,
    /// Whether parameters that were borrowed are what was prepared.
    pub(crate) stale: bool,
    /// What the arena's context points to.
    weights: Option<Weights>,
    #[cfg(feature = "std")]
    pool: Option<crate::Pool>,
    #[cfg(feature = "std")]
    pace: crate::pace::Pace,
    /// Invariant: at least `arena_size` bytes, aligned to `arena_align`; views are made only of tensors that `Tensor::new`
    /// checked against that.
    arena: Memory,
}

// SAFETY: the object's code keeps all its state in the arena, which `Model` owns. What the arena points to (weights, pool, shared
// tensors) may be used from any thread, and what was borrowed only while a `Binding` runs the model, which borrows it as slices of
// numbers do.
unsafe impl Send for Model {}
// SAFETY: by shared reference a model is only read, and nothing follows its pointers.
unsafe impl Sync for Model {}

impl Model {
    /// Checks the descriptor and allocates an arena.
    ///
    /// # Errors
    /// [`Error::Abi`], [`Error::Descriptor`] and [`Error::OutOfMemory`].
    pub fn new(descriptor: &'static Descriptor) -> Result<Model, Error> {
        let wrong = |reason| Error::Descriptor { reason };
        if descriptor.abi != ABI_VERSION || (descriptor.size as usize) < size_of::<Descriptor>() {
            return Err(Error::Abi { object: descriptor.abi });
        }
        let run = descriptor.run.ok_or(wrong("no function"))?;
        if descriptor.name.is_null() {
            return Err(wrong("no name"));
        }
        // SAFETY: a descriptor's name is a string that ends.
        let name = unsafe { CStr::from_ptr(descriptor.name) }
            .to_str()
            .map_err(|_| wrong("a name is not UTF-8"))?;
        let align =
            usize::try_from(descriptor.arena_align).map_err(|_| wrong("alignment out of range"))?;
        let size =
            usize::try_from(descriptor.arena_size).map_err(|_| wrong("arena out of range"))?;
        if !align.is_power_of_two() || align < align_of::<Context>() {
            return Err(wrong("alignment out of range"));
        }
        if size < size_of::<Context>() {
            return Err(wrong("arena out of range"));
        }
        let weights_fit = match descriptor.weights_mode {
            weights_mode::NONE | weights_mode::EXTERNAL => true,
            weights_mode::EMBEDDED => !descriptor.weights.is_null(),
            weights_mode::ARENA => {
                descriptor.weights_offset >= size_of::<Context>() as u64
                    && descriptor
                        .weights_offset
                        .checked_add(descriptor.weights_size)
                        .is_some_and(|end| end <= descriptor.arena_size)
            }
            _ => false,
        };
        if !weights_fit {
            return Err(wrong("weights out of range"));
        }
        // SAFETY: a descriptor points to as many tensors as it counts.
        let (inputs, outputs, params) = unsafe {
            (
                tensors(descriptor.inputs, descriptor.input_count, size)?,
                tensors(descriptor.outputs, descriptor.output_count, size)?,
                tensors(descriptor.params, descriptor.param_count, size)?,
            )
        };
        let states = states(descriptor, &inputs, &outputs)?;
        // The second memory lies behind the arena.
        let all = usize::try_from(descriptor.region_size)
            .ok()
            .and_then(|region| size.checked_next_multiple_of(align)?.checked_add(region))
            .ok_or(wrong("region out of range"))?;
        let region = all - descriptor.region_size as usize;
        // Elements have up to 8 bytes, which any alignment here allows.
        let mut model = Model {
            descriptor,
            run,
            name,
            inputs,
            outputs,
            params,
            states,
            bound: false,
            shared: Vec::new(),
            borrowed: Vec::new(),
            stale: false,
            weights: None,
            #[cfg(feature = "std")]
            pool: None,
            #[cfg(feature = "std")]
            pace: crate::pace::Pace::default(),
            arena: Memory::new(all, align)?,
        };
        if descriptor.region_size > 0 {
            let first = model.arena.bytes_mut()[region..].as_mut_ptr();
            model.context().region = first.cast();
        }
        if !model.guarded().all(|tensor| guard_of(&model, tensor).is_some()) {
            return Err(wrong("a guard lies outside the arena"));
        }
        model.fill_guards();
        Ok(model)
    }

    /// As [`Model::new`], for a module that was generated for one build of the object: its fingerprint must be the object's.
    ///
    /// # Errors
    /// [`Error::Fingerprint`], and those of [`Model::new`].
    pub fn with_fingerprint(
        descriptor: &'static Descriptor,
        fingerprint: &[u8; 32],
    ) -> Result<Model, Error> {
        let model = Model::new(descriptor)?;
        if descriptor.fingerprint == *fingerprint { Ok(model) } else { Err(Error::Fingerprint) }
    }

    /// The model's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The inputs, in the model's order.
    pub fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    /// The outputs, in the model's order.
    pub fn outputs(&self) -> &[Tensor] {
        &self.outputs
    }

    /// The parameters that the program sets.
    pub fn params(&self) -> &[Tensor] {
        &self.params
    }

    /// Bytes of the arena.
    pub fn arena_size(&self) -> usize {
        self.descriptor.arena_size as usize
    }

    /// A hash of everything that the object depends on.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.descriptor.fingerprint
    }

    /// Whether the model waits for [`Weights`].
    pub fn needs_weights(&self) -> bool {
        self.descriptor.weights_mode >= weights_mode::EXTERNAL && !self.bound
    }

    /// The memory of an input, to be written.
    ///
    /// # Errors
    /// [`Error::UnknownName`], [`Error::UnknownIndex`] and [`Error::Type`].
    pub fn input_mut<T: Element>(&mut self, key: impl Key) -> Result<&mut [T], Error> {
        let tensor = *key.find(Role::Input, &self.inputs)?;
        self.view_mut(tensor)
    }

    /// The memory of an input, to be read.
    ///
    /// # Errors
    /// As [`Model::input_mut`].
    pub fn input<T: Element>(&self, key: impl Key) -> Result<&[T], Error> {
        self.view(*key.find(Role::Input, &self.inputs)?)
    }

    /// The memory of a parameter, to be written.
    ///
    /// # Errors
    /// As [`Model::input_mut`].
    pub fn param_mut<T: Element>(&mut self, key: impl Key) -> Result<&mut [T], Error> {
        let tensor = *key.find(Role::Parameter, &self.params)?;
        self.context().prepared = 0;
        self.view_mut(tensor)
    }

    /// The memory of a parameter, to be read.
    ///
    /// # Errors
    /// As [`Model::input_mut`].
    pub fn param<T: Element>(&self, key: impl Key) -> Result<&[T], Error> {
        self.view(*key.find(Role::Parameter, &self.params)?)
    }

    /// The memory of an output: the values of the last run.
    ///
    /// # Errors
    /// As [`Model::input_mut`].
    pub fn output<T: Element>(&self, key: impl Key) -> Result<&[T], Error> {
        self.view(*key.find(Role::Output, &self.outputs)?)
    }

    /// [`Model::input`] as an array.
    ///
    /// # Errors
    /// [`Error::Length`], and as [`Model::input_mut`].
    pub fn input_array<T: Element, const N: usize>(&self, key: impl Key) -> Result<&[T; N], Error> {
        let tensor = *key.find(Role::Input, &self.inputs)?;
        self.view(tensor)?.try_into().map_err(|_| wrong_length(tensor, N))
    }

    /// [`Model::input_mut`] as an array.
    ///
    /// # Errors
    /// As [`Model::input_array`].
    pub fn input_array_mut<T: Element, const N: usize>(
        &mut self,
        key: impl Key,
    ) -> Result<&mut [T; N], Error> {
        let tensor = *key.find(Role::Input, &self.inputs)?;
        self.view_mut(tensor)?.try_into().map_err(|_| wrong_length(tensor, N))
    }

    /// [`Model::param`] as an array.
    ///
    /// # Errors
    /// As [`Model::input_array`].
    pub fn param_array<T: Element, const N: usize>(&self, key: impl Key) -> Result<&[T; N], Error> {
        let tensor = *key.find(Role::Parameter, &self.params)?;
        self.view(tensor)?.try_into().map_err(|_| wrong_length(tensor, N))
    }

    /// [`Model::param_mut`] as an array.
    ///
    /// # Errors
    /// As [`Model::input_array`].
    pub fn param_array_mut<T: Element, const N: usize>(
        &mut self,
        key: impl Key,
    ) -> Result<&mut [T; N], Error> {
        let tensor = *key.find(Role::Parameter, &self.params)?;
        self.context().prepared = 0;
        self.view_mut(tensor)?.try_into().map_err(|_| wrong_length(tensor, N))
    }

    /// [`Model::output`] as an array.
    ///
    /// # Errors
    /// As [`Model::input_array`].
    pub fn output_array<T: Element, const N: usize>(
        &self,
        key: impl Key,
    ) -> Result<&[T; N], Error> {
        let tensor = *key.find(Role::Output, &self.outputs)?;
        self.view(tensor)?.try_into().map_err(|_| wrong_length(tensor, N))
    }

    /// Copies an input in.
    ///
    /// # Errors
    /// [`Error::Length`], and as [`Model::input_mut`].
    pub fn set_input<T: Element>(&mut self, key: impl Key, data: &[T]) -> Result<(), Error> {
        let tensor = *key.find(Role::Input, &self.inputs)?;
        self.set(tensor, data)
    }

    /// Copies a parameter in.
    ///
    /// # Errors
    /// As [`Model::set_input`].
    pub fn set_param<T: Element>(&mut self, key: impl Key, data: &[T]) -> Result<(), Error> {
        let tensor = *key.find(Role::Parameter, &self.params)?;
        self.context().prepared = 0;
        self.set(tensor, data)
    }

    /// Gives an input that is outside of the arena its memory, which the model keeps until the input is given another.
    ///
    /// # Errors
    /// [`Error::Inside`], [`Error::Length`], and as [`Model::input_mut`].
    pub fn share_input<T: Element>(&mut self, key: impl Key, data: Arc<[T]>) -> Result<(), Error> {
        let tensor = *key.find(Role::Input, &self.inputs)?;
        self.share(tensor, data)
    }

    /// Gives a parameter that is outside of the arena its memory, as [`Model::share_input`]. Models can share it.
    ///
    /// # Errors
    /// As [`Model::share_input`].
    pub fn share_param<T: Element>(&mut self, key: impl Key, data: Arc<[T]>) -> Result<(), Error> {
        let tensor = *key.find(Role::Parameter, &self.params)?;
        self.share(tensor, data)?;
        self.context().prepared = 0;
        Ok(())
    }

    /// Binds tensors that are outside of the arena to memory that is borrowed.
    pub fn bind(&mut self) -> Binding<'_> {
        Binding::new(self)
    }

    /// Binds the weights of a model that was compiled without them. Models can share one `Weights`.
    ///
    /// # Errors
    /// [`Error::WeightsMode`], [`Error::WeightsSize`] and [`Error::WeightsModel`].
    pub fn bind_weights(&mut self, weights: &Weights) -> Result<(), Error> {
        let (model, given) = (self.descriptor.weights_size, weights.bytes().len() as u64);
        if self.descriptor.weights_mode < weights_mode::EXTERNAL {
            return Err(Error::WeightsMode);
        }
        if model != given {
            return Err(Error::WeightsSize { model, given });
        }
        if weights
            .fingerprint()
            .is_some_and(|fingerprint| *fingerprint != self.descriptor.fingerprint)
        {
            return Err(Error::WeightsModel);
        }
        if self.descriptor.weights_mode == weights_mode::ARENA {
            let begin = self.descriptor.weights_offset as usize;
            self.arena.bytes_mut()[begin..][..weights.bytes().len()]
                .copy_from_slice(weights.bytes());
        } else {
            self.context().weights = weights.bytes().as_ptr().cast();
            self.weights = Some(weights.clone());
        }
        self.context().prepared = 0;
        self.bound = true;
        Ok(())
    }

    /// Lets runs share their loops among the pool's threads; `None` for one thread. The results have the same bits. Where runs
    /// are found to take longer with the pool than without (short loops, and processors that are far apart or have other work),
    /// they go on with one thread, and try again from time to time.
    #[cfg(feature = "std")]
    pub fn set_pool(&mut self, pool: Option<&crate::Pool>) {
        let (function, argument) = match pool {
            Some(pool) => (Some(crate::pool::PARALLEL_FOR), pool.argument()),
            None => (None, core::ptr::null_mut()),
        };
        let context = self.context();
        context.parallel_for = function;
        context.parallel_argument = argument;
        self.pool = pool.cloned();
        self.pace = crate::pace::Pace::default();
    }

    /// One inference. It does not allocate. After weights or a parameter were set, [`Model::prepare`] is called first.
    ///
    /// # Errors
    /// [`Error::NoWeights`], [`Error::NotBound`], [`Error::Processor`], [`Error::Data`] and [`Error::Status`].
    pub fn run(&mut self) -> Result<(), Error> {
        self.forget_borrowed();
        self.run_bound()
    }

    /// A run with the pointers as they are.
    pub(crate) fn run_bound(&mut self) -> Result<(), Error> {
        if self.context().prepared == 0 {
            self.prepare_bound()?;
        }
        #[cfg(feature = "std")]
        if self.pool.is_some() {
            return self.run_paced();
        }
        self.call(self.run)
    }

    /// A run that may share its loops, and does where that has been found to be faster.
    #[cfg(feature = "std")]
    fn run_paced(&mut self) -> Result<(), Error> {
        let begin = self.pace.watches().then(std::time::Instant::now);
        let parallel_for = self.context().parallel_for;
        if !self.pace.shares() {
            self.context().parallel_for = None;
        }
        let result = self.call(self.run);
        self.context().parallel_for = parallel_for;
        if result.is_ok() {
            self.pace.note(begin.map_or(core::time::Duration::ZERO, |begin| begin.elapsed()));
        }
        result
    }

    /// Computes now what depends on the parameters only and stays the same from run to run, if there is anything of that kind.
    /// A run does it by itself; so its time does not fall to the first run. The values of outputs are lost.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn prepare(&mut self) -> Result<(), Error> {
        self.forget_borrowed();
        self.prepare_bound()
    }

    pub(crate) fn prepare_bound(&mut self) -> Result<(), Error> {
        if self.needs_weights() {
            return Err(Error::NoWeights);
        }
        self.descriptor.prepare.map_or(Ok(()), |prepare| self.call(prepare))
    }

    /// What was prepared from parameters of a binding is not the parameters' that are there now.
    pub(crate) fn forget_borrowed(&mut self) {
        self.borrowed.clear();
        if core::mem::take(&mut self.stale) {
            self.context().prepared = 0;
        }
    }

    /// Sets all states to zero: the next run is the first of a new sequence.
    ///
    /// A state is an input that has in each run the value that an output had in the run before, and is zero at first. It can
    /// be set as any input.
    pub fn reset(&mut self) {
        for index in 0..self.states.len() {
            let tensor = self.inputs[self.states[index]];
            self.arena.bytes_mut()[tensor.offset..][..tensor.bytes()].fill(0);
        }
    }

    /// Indices of the inputs that are states ([`Model::reset`]).
    pub fn states(&self) -> &[usize] {
        &self.states
    }

    fn call(&mut self, function: Function) -> Result<(), Error> {
        // SAFETY: the function is the descriptor's, the arena is as long and as aligned as the descriptor asks, its context is
        // either zero or was set above, and nobody else borrows it.
        let status = unsafe { function(self.arena.pointer().as_ptr().cast()) };
        self.refill_guards();
        match status {
            0 => Ok(()),
            24 => Err(Error::NotBound),
            20 => Err(Error::Processor),
            64 => Err(Error::Data),
            status => Err(Error::Status(status)),
        }
    }

    /// Where the arena and the second memory are.
    #[cfg(test)]
    pub(crate) fn memories(&mut self) -> (usize, usize) {
        (self.arena.pointer().as_ptr() as usize, self.context().region as usize)
    }

    pub(crate) fn guard(&self) -> usize {
        self.descriptor.guard as usize
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.arena.bytes()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.arena.bytes_mut()
    }

    pub(crate) fn context(&mut self) -> &mut Context {
        // SAFETY: the arena begins with a context, is aligned for it (`new` checks), and all its bits are zero or were
        // written through this reference.
        unsafe { self.arena.pointer().cast::<Context>().as_mut() }
    }

    /// The pointer to a tensor outside of the arena.
    pub(crate) fn pointer_mut(&mut self, place: usize) -> &mut *mut c_void {
        // SAFETY: `Tensor::new` has checked that a pointer fits there, aligned; all bits are zero or were written through
        // this reference.
        unsafe { self.arena.pointer().add(place).cast().as_mut() }
    }

    fn share<T: Element>(&mut self, tensor: Tensor, data: Arc<[T]>) -> Result<(), Error> {
        check_outside::<T>(tensor, data.len())?;
        *self.pointer_mut(tensor.offset) = data.as_ptr().cast_mut().cast();
        self.shared.retain(|(place, _)| *place != tensor.offset);
        self.shared.push((tensor.offset, Box::new(data)));
        Ok(())
    }

    fn check_type<T: Element>(tensor: Tensor) -> Result<(), Error> {
        if tensor.outside {
            return Err(Error::Outside { name: tensor.name.to_string() });
        }
        if T::accepts(tensor.dtype) {
            return Ok(());
        }
        Err(Error::Type { name: tensor.name.to_string(), dtype: tensor.dtype, asked: T::NAME })
    }

    fn view<T: Element>(&self, tensor: Tensor) -> Result<&[T], Error> {
        Self::check_type::<T>(tensor)?;
        // SAFETY: the tensor lies inside the arena, aligned for its elements, whose bits are all values of `T`.
        Ok(unsafe {
            let first = self.arena.pointer().add(tensor.offset).cast::<T>();
            core::slice::from_raw_parts(first.as_ptr(), tensor.elements())
        })
    }

    fn view_mut<T: Element>(&mut self, tensor: Tensor) -> Result<&mut [T], Error> {
        Self::check_type::<T>(tensor)?;
        // SAFETY: as in `view`, and the arena is borrowed exclusively.
        Ok(unsafe {
            let first = self.arena.pointer().add(tensor.offset).cast::<T>();
            core::slice::from_raw_parts_mut(first.as_ptr(), tensor.elements())
        })
    }

    fn set<T: Element>(&mut self, tensor: Tensor, data: &[T]) -> Result<(), Error> {
        let view = self.view_mut::<T>(tensor)?;
        if view.len() != data.len() {
            return Err(wrong_length(tensor, data.len()));
        }
        view.copy_from_slice(data);
        Ok(())
    }
}

/// Whether memory of so many elements can be a tensor's that is outside of the arena.
pub(crate) fn check_outside<T: Element>(tensor: Tensor, elements: usize) -> Result<(), Error> {
    let name = || tensor.name.to_string();
    if !tensor.outside {
        return Err(Error::Inside { name: name() });
    }
    if !T::accepts(tensor.dtype) {
        return Err(Error::Type { name: name(), dtype: tensor.dtype, asked: T::NAME });
    }
    if elements == tensor.elements() { Ok(()) } else { Err(wrong_length(tensor, elements)) }
}

fn wrong_length(tensor: Tensor, given: usize) -> Error {
    Error::Length { name: tensor.name.to_string(), elements: tensor.elements(), given }
}

/// The inputs of a descriptor that are states.
fn states(
    descriptor: &Descriptor,
    inputs: &[Tensor],
    outputs: &[Tensor],
) -> Result<Vec<usize>, Error> {
    let wrong = Error::Descriptor { reason: "states are missing" };
    if descriptor.state_count == 0 {
        return Ok(Vec::new());
    }
    if descriptor.states.is_null() {
        return Err(wrong);
    }
    // SAFETY: a descriptor points to as many states as it counts, which are constant data.
    let raw =
        unsafe { core::slice::from_raw_parts(descriptor.states, descriptor.state_count as usize) };
    let input = |state: &RawState| {
        let (input, output) = (state.input as usize, state.output as usize);
        let inside = inputs.get(input).is_some_and(|input| !input.outside);
        (inside && output < outputs.len()).then_some(input)
    };
    raw.iter().map(input).collect::<Option<_>>().ok_or(wrong)
}

/// # Safety
/// `raw` points to `count` tensors of a descriptor, for ever.
unsafe fn tensors(
    raw: *const RawTensor,
    count: u32,
    arena_size: usize,
) -> Result<Vec<Tensor>, Error> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if raw.is_null() {
        return Err(Error::Descriptor { reason: "tensors are missing" });
    }
    // SAFETY: the caller's promise.
    let raw = unsafe { core::slice::from_raw_parts(raw, count as usize) };
    // SAFETY: as above; a descriptor's tensors are constant data.
    raw.iter().map(|tensor| unsafe { Tensor::new(tensor, arena_size) }).collect()
}
