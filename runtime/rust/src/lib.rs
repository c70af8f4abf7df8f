//! Runs models that rlx-aot compiled to native objects.
//!
//! A compiled model is a function over one block of memory, its arena, and a [`Descriptor`] that says what lies
//! where. [`Model`] owns an arena and gives typed views of the inputs, parameters and outputs in it; names, shapes and
//! element types are checked, nothing is copied unless asked for, and a program needs no `unsafe` and no C.
//!
//! Usually the crate `rlx-aot-build` compiles the model from `build.rs` and generates a typed module around all of
//! this. By hand it is:
//!
//! ```no_run
//! # mod object {
//! #     use rlx_aot_runtime::Descriptor;
//! #     pub fn descriptor() -> &'static Descriptor { unimplemented!() }
//! # }
//! # let mlp_model = object::descriptor();
//! // unsafe extern "C" { safe static mlp_model: rlx_aot_runtime::Descriptor; }
//! let mut model = rlx_aot_runtime::Model::new(&mlp_model)?;
//! model.input_mut::<f32>("x")?.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
//! model.run()?;
//! println!("{:?}", model.output::<f32>("y")?);
//! # Ok::<(), rlx_aot_runtime::Error>(())
//! ```
//!
//! Tensors that were compiled to be memory of the program (`--outside`) are bound, for as long as a [`Binding`] lives:
//!
//! ```no_run
//! # fn bound(model: &mut rlx_aot_runtime::Model) -> Result<(), rlx_aot_runtime::Error> {
//! let (x, mut y) = ([1.0f32, 2.0, 3.0, 4.0], [0.0f32; 2]);
//! model.bind().input("x", &x)?.output("y", &mut y)?.run()?;
//! println!("{y:?}");
//! # Ok(())
//! # }
//! ```
//!
//! A [`Model`] is `Send` and `Sync`; to run one model in several threads, give each its own `Model`. They share the code
//! and the [`Weights`]. With the feature `std` (on by default) there is a thread [`Pool`] and weights can be read from a
//! file; without it the crate needs only `alloc`.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

extern crate alloc;

mod abi;
mod arena;
mod binding;
mod error;
mod guard;
mod model;
#[cfg(feature = "std")]
mod pace;
#[cfg(feature = "std")]
mod pool;
mod tensor;
mod weights;

pub use abi::{ABI_VERSION, Descriptor};
pub use binding::Binding;
pub use error::{Error, Role};
pub use model::Model;
#[cfg(feature = "std")]
pub use pool::Pool;
pub use tensor::{Dtype, Element, Key, Tensor};
pub use weights::Weights;

/// Includes the module that `rlx-aot-build` generated for the model of this prefix: `include_model!("mlp")` makes a module `mlp`.
#[macro_export]
macro_rules! include_model {
    ($prefix:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $prefix, ".rs"));
    };
}

#[cfg(test)]
mod fake;
