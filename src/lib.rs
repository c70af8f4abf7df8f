//! An ahead-of-time compiler from trained models to native object files.
//!
//! A model file goes in; an object file comes out that any C or Rust program links and calls as
//! `run(arena)`. It needs nothing at run time: no interpreter, no heap, no libc.
//!
//! # The way of the data
//!
//! ```text
//!  model.onnx ─┐
//!  model.json ─┼─ front ─▶ hir::Graph ─ check ─▶ hir::Checked ─ lower ─▶ mir::Graph
//!  RLX JSON   ─┘                                      │                      │ passes
//!                                                     │                      ▼
//!                                                     │                  mir::Graph
//!                                                     │                      │ lir: storage, schedule, place
//!                                                     │                      ▼
//!                                                     │                  lir::Module ─ fingerprint
//!                                                     │                   │      │ kernels
//!                                                     │                   │      ▼
//!                                                     │                   │   kir::Kernel
//!                                                     │                   │      │ codegen
//!                                                     ▼                   ▼      ▼
//!                                              interp::reference  interp::arena  codegen::Object
//! ```
//!
//! Each arrow is a function, each box a type; [`compile::compile`] is this picture.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`front`] | readers of model and tensor files; everything in them is untrusted |
//! | [`hir`] | the model as written: named values, framework operators, symbolic dimensions |
//! | [`ops`] | the operators, one file each: attributes, types, definition, expansion |
//! | [`lower`](mod@lower) | HIR to MIR, by the operators' expansions |
//! | [`mir`] | tensors of known type under a small closed set of kinds |
//! | [`passes`] | MIR to better MIR: one list of functions |
//! | [`placement`] | where sized things with lifetimes lie so that they need the fewest bytes: a problem by itself |
//! | [`lir`] | a schedule of steps over buffers, some over operands that die, and the plan that gives each buffer its bytes |
//! | [`fit`] | a graph in bands of rows, with steps computed again, so that its plan fits into a given arena |
//! | [`kernels`] | a loop program for each step |
//! | [`kir`] | the language of loop programs over vectors, and the proof that they stay inside their operands |
//! | [`codegen`] | loop programs to machine code, and the object file with all that belongs to it |
//! | [`interp`] | two engines to check against: the operators' definitions, and LIR over poisoned bytes |
//! | [`report`] | a plan for people: text, JSON, a picture, a page |
//! | [`compile`] | the whole way, and its options |
//! | [`machine`] | the features of a target that kernels and layouts depend on |
//! | [`tensor`], [`types`], [`error`] | values, element types and shapes, what can go wrong |
//!
//! # What holds everywhere
//!
//! - A model that passes [`hir::check`] compiles, or is unsupported, or over a limit: each with an error
//!   that names the node. A failure later on is a bug of ours and says so.
//! - MIR, LIR and KIR each have a verifier, whose header lists its invariants. Whatever a model says,
//!   no generated load or store leaves the operand that it was made for.
//! - The same files, options and version give the same bytes: nothing depends on a hash's order, on time, on
//!   threads or on the host.
//! - Handles (`u32` in typed tables) print the same in listings, errors and symbols.
//!
//! # What is absent on purpose
//!
//! Dynamic shapes in models, and loops whose number of turns has no known bound (others are written out; of an `If`, both
//! branches are computed and one is chosen, unless the condition is known); pass managers, plug-ins and global state;
//! calls out of the generated code, but for the caller's own `parallel_for`; `unsafe`, but for mapping a file.

pub mod codegen;
pub mod compile;
pub mod error;
pub mod fit;
pub mod front;
pub mod hir;
pub mod interp;
pub mod kernels;
pub mod kir;
pub mod lir;
pub mod lower;
pub mod machine;
pub mod mir;
pub mod ops;
pub mod passes;
pub mod placement;
pub mod report;
pub mod tensor;
pub mod types;
