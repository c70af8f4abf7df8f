//! Tensors in memory of the program.

use crate::model::check_outside;
use crate::tensor::{Element, Key, Tensor};
use crate::{Error, Model, Role};
use core::ffi::c_void;

/// A model whose tensors outside of the arena (`--outside`) are bound to memory that is borrowed for as long as this lives: inputs
/// and parameters to be read, outputs to be written. Outputs are for the program to read when it is gone.
///
/// What is bound here goes before what the model shares ([`Model::share_input`]). The tensors in the arena are set before it is made,
/// and read after it.
#[derive(Debug)]
pub struct Binding<'a> {
    model: &'a mut Model,
}

impl<'a> Binding<'a> {
    pub(crate) fn new(model: &'a mut Model) -> Binding<'a> {
        // Of a binding before.
        model.forget_borrowed();
        Binding { model }
    }

    /// Binds an input.
    ///
    /// # Errors
    /// [`Error::Inside`], [`Error::Length`], and as [`Model::input_mut`].
    pub fn input<T: Element>(&mut self, key: impl Key, data: &'a [T]) -> Result<&mut Self, Error> {
        let tensor = *key.find(Role::Input, self.model.inputs())?;
        check_outside::<T>(tensor, data.len())?;
        Ok(self.point(tensor, data.as_ptr().cast_mut().cast()))
    }

    /// Binds a parameter. What depends on parameters only is computed anew by the next run, and by the first one after the binding:
    /// a parameter that stays is better shared ([`Model::share_param`]).
    ///
    /// # Errors
    /// As [`Binding::input`].
    pub fn param<T: Element>(&mut self, key: impl Key, data: &'a [T]) -> Result<&mut Self, Error> {
        let tensor = *key.find(Role::Parameter, self.model.params())?;
        check_outside::<T>(tensor, data.len())?;
        self.model.context().prepared = 0;
        self.model.stale = true;
        Ok(self.point(tensor, data.as_ptr().cast_mut().cast()))
    }

    /// Binds an output.
    ///
    /// # Errors
    /// As [`Binding::input`].
    pub fn output<T: Element>(
        &mut self,
        key: impl Key,
        data: &'a mut [T],
    ) -> Result<&mut Self, Error> {
        let tensor = *key.find(Role::Output, self.model.outputs())?;
        check_outside::<T>(tensor, data.len())?;
        Ok(self.point(tensor, data.as_mut_ptr().cast()))
    }

    /// One inference, as [`Model::run`].
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn run(&mut self) -> Result<(), Error> {
        self.exchange();
        let result = self.model.run_bound();
        self.exchange();
        result
    }

    /// As [`Model::prepare`].
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn prepare(&mut self) -> Result<(), Error> {
        self.exchange();
        let result = self.model.prepare_bound();
        self.exchange();
        result
    }

    fn point(&mut self, tensor: Tensor, to: *mut c_void) -> &mut Self {
        self.model.borrowed.retain(|&(place, _)| place != tensor.offset);
        self.model.borrowed.push((tensor.offset, to));
        self
    }

    /// Writes the pointers into the arena, or takes them out again: they are there only while the model runs, so that no later run
    /// finds one whose memory is gone, even if this is never dropped.
    fn exchange(&mut self) {
        for i in 0..self.model.borrowed.len() {
            let (place, mut pointer) = self.model.borrowed[i];
            core::mem::swap(self.model.pointer_mut(place), &mut pointer);
            self.model.borrowed[i].1 = pointer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Context, Descriptor, RawTensor, weights_mode};
    use crate::fake::{descriptor, leak, tensor};
    use std::sync::Arc;

    const OUTSIDE: u64 = 1 << 63;

    /// `y = x + p`, where the parameter is copied into the arena by `prepare`.
    unsafe extern "C" fn prepare(arena: *mut c_void) -> i32 {
        // SAFETY: the caller gives an arena as the descriptor asks.
        unsafe {
            let p = *arena.byte_add(72).cast::<*const [f32; 3]>();
            if p.is_null() {
                return 24;
            }
            *arena.byte_add(128).cast() = *p;
            (*arena.cast::<Context>()).prepared = 1;
        }
        0
    }

    unsafe extern "C" fn run(arena: *mut c_void) -> i32 {
        // SAFETY: as above.
        unsafe {
            let [x, p, y] = *arena.byte_add(64).cast::<[*mut [f32; 3]; 3]>();
            if x.is_null() || p.is_null() || y.is_null() {
                return 24;
            }
            let prepared = *arena.byte_add(128).cast::<[f32; 3]>();
            for (i, prepared) in prepared.iter().enumerate() {
                (*y)[i] = (*x)[i] + prepared;
            }
        }
        0
    }

    fn model() -> Model {
        let one = |name, place| -> *const RawTensor {
            Box::leak(Box::new(tensor(name, &[3], 1, OUTSIDE | place, 12)))
        };
        Model::new(leak(Descriptor {
            inputs: one(c"x", 64),
            params: one(c"p", 72),
            outputs: one(c"y", 80),
            input_count: 1,
            output_count: 1,
            run: Some(run),
            prepare: Some(prepare),
            ..descriptor(weights_mode::EMBEDDED)
        }))
        .unwrap()
    }

    #[test]
    fn memory_is_borrowed_or_shared() {
        let mut model = model();
        let (x, p) = ([1.0f32, 2.0, 3.0], [10.0f32; 3]);
        let mut y = [0.0f32; 3];
        assert_eq!(model.run(), Err(Error::NotBound));
        model
            .bind()
            .input("x", &x)
            .unwrap()
            .param("p", &p)
            .unwrap()
            .output("y", &mut y)
            .unwrap()
            .run()
            .unwrap();
        assert_eq!(y, [11.0, 12.0, 13.0]);
        // What was borrowed is gone, with what was prepared from it.
        assert_eq!(model.run(), Err(Error::NotBound));
        assert_eq!(
            model.bind().output("y", &mut y).unwrap().input("x", &x).unwrap().run(),
            Err(Error::NotBound)
        );
        let shared: Arc<[f32]> = Arc::from([20.0f32; 3]);
        model.share_param("p", Arc::clone(&shared)).unwrap();
        model.share_input("x", Arc::from(x)).unwrap();
        model.bind().output("y", &mut y).unwrap().run().unwrap();
        assert_eq!(y, [21.0, 22.0, 23.0]);
        assert_eq!(Arc::strong_count(&shared), 2);
        // What is borrowed goes before it, and only as long.
        let mut other = [0.0f32; 3];
        let mut binding = model.bind();
        binding
            .param("p", &p)
            .unwrap()
            .output("y", &mut y)
            .unwrap()
            .output("y", &mut other)
            .unwrap();
        binding.prepare().unwrap();
        binding.run().unwrap();
        binding.run().unwrap();
        assert_eq!((y, other), ([21.0, 22.0, 23.0], [11.0, 12.0, 13.0]));
        model.bind().output("y", &mut y).unwrap().run().unwrap();
        assert_eq!(y, [21.0, 22.0, 23.0]);
        model.share_param("p", Arc::from([0.0f32; 3])).unwrap();
        assert_eq!(Arc::strong_count(&shared), 1);
        model.bind().output("y", &mut y).unwrap().run().unwrap();
        assert_eq!(y, x);
    }

    #[test]
    fn a_forgotten_binding_leaves_no_pointer() {
        let mut model = model();
        {
            let (x, p, mut y) = ([1.0f32; 3], [1.0f32; 3], [0.0f32; 3]);
            let mut binding = model.bind();
            binding.input(0, &x).unwrap().param(0, &p).unwrap().output(0, &mut y).unwrap();
            binding.run().unwrap();
            let _ = core::mem::ManuallyDrop::new(binding);
        }
        assert_eq!(model.run(), Err(Error::NotBound));
        for place in [64, 72, 80] {
            assert!(model.pointer_mut(place).is_null());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut model = model();
        assert!(model.inputs()[0].is_outside() && model.inputs()[0].offset().is_none());
        let outside = |name: &str| Error::Outside { name: name.into() };
        assert_eq!(model.input_mut::<f32>("x").unwrap_err(), outside("x"));
        assert_eq!(model.set_param("p", &[0f32; 3]).unwrap_err(), outside("p"));
        assert_eq!(model.output_array::<f32, 3>("y").unwrap_err(), outside("y"));
        let short = Error::Length { name: "x".into(), elements: 3, given: 2 };
        assert_eq!(model.bind().input("x", &[0f32; 2]).unwrap_err(), short);
        assert_eq!(model.share_input("x", Arc::from([0f32; 2])).unwrap_err(), short);
        assert!(matches!(model.bind().input("x", &[0u32; 3]), Err(Error::Type { .. })));
        assert!(matches!(model.bind().output("x", &mut [0f32; 3]), Err(Error::UnknownName { .. })));
        let mut inside = Model::new(leak(descriptor(weights_mode::EMBEDDED))).unwrap();
        let inside = inside.bind().input("x", &[0f32; 6]).unwrap_err();
        assert_eq!(inside, Error::Inside { name: "x".into() });
        for place in [0, 63, 68, 572, (1 << 63) - 8] {
            let damaged = Box::leak(Box::new(tensor(c"x", &[3], 1, OUTSIDE | place, 12)));
            let damaged = Descriptor { inputs: damaged, input_count: 1, ..descriptor(0) };
            assert!(matches!(Model::new(leak(damaged)), Err(Error::Descriptor { .. })), "{place}");
        }
    }
}
