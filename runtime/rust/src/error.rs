//! What can go wrong.

use crate::{ABI_VERSION, Dtype};
use alloc::string::String;
use core::fmt;

/// What a tensor is to its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Set before each run, or left as it was.
    Input,
    /// Written by each run.
    Output,
    /// A parameter that the program sets, usually once.
    Parameter,
}

/// What can go wrong. Nothing has changed when a call returns one of these, but after a failed run the outputs mean nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The object was compiled for another version of this crate.
    Abi {
        /// The object's version.
        object: u32,
    },
    /// The object's descriptor contradicts itself: it is damaged, or no descriptor.
    Descriptor {
        /// What contradicts.
        reason: &'static str,
    },
    /// The generated module and the linked object are of different builds.
    Fingerprint,
    /// No tensor has this name.
    UnknownName {
        /// Where it was looked for.
        role: Role,
        /// The name.
        name: String,
        /// The names that are there.
        known: String,
    },
    /// No tensor has this index.
    UnknownIndex {
        /// Where it was looked for.
        role: Role,
        /// The index.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The tensor's elements are of another type.
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
        /// The type that was asked for.
        asked: &'static str,
    },
    /// The data has another length than the tensor.
    Length {
        /// The tensor.
        name: String,
        /// Its element count.
        elements: usize,
        /// The length of the data.
        given: usize,
    },
    /// The tensor is memory of the program, and is bound: [`Model::bind`](crate::Model::bind).
    Outside {
        /// The tensor.
        name: String,
    },
    /// The tensor has its place in the arena, and is set.
    Inside {
        /// The tensor.
        name: String,
    },
    /// A tensor outside of the arena is not bound.
    NotBound,
    /// Somebody wrote behind the end of a tensor.
    Guard {
        /// The tensor.
        name: String,
    },
    /// The model has no guards ([`Model::check_guards`](crate::Model::check_guards)).
    NoGuards,
    /// The model waits for weights that are not bound.
    NoWeights,
    /// The model takes no weights from outside.
    WeightsMode,
    /// The weights' size is not the model's.
    WeightsSize {
        /// What the model waits for, in bytes.
        model: u64,
        /// What was given.
        given: u64,
    },
    /// Static weights are not aligned to 64 bytes.
    WeightsAlign,
    /// The weights file is damaged, or no weights file.
    WeightsFile,
    /// The weights are of another model, or of another build of it.
    WeightsModel,
    /// An allocation failed.
    OutOfMemory {
        /// How much was asked for.
        bytes: usize,
    },
    /// A file cannot be read.
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        reason: String,
    },
    /// A thread cannot be started or pinned, for this reason; or the number of threads is 0 or above 1024.
    Thread {
        /// The reason.
        reason: String,
    },
    /// The model was compiled for several processors, and this is none of them.
    Processor,
    /// An index in the data, as of Gather, is out of range.
    Data,
    /// A status of the compiled model that this version does not know.
    Status(i32),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Input => "input",
            Role::Output => "output",
            Role::Parameter => "parameter",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Abi { object } => {
                write!(
                    f,
                    "the object has ABI version {object}, this runtime reads version {ABI_VERSION}"
                )
            }
            Error::Descriptor { reason } => {
                write!(f, "the model's descriptor contradicts itself: {reason}")
            }
            Error::Fingerprint => {
                f.write_str("the generated module is of another build than the linked object")
            }
            Error::UnknownName { role, name, known } => {
                write!(f, "no {role} is called {name:?}; there are: {known}")
            }
            Error::UnknownIndex { role, index, count } => {
                write!(f, "no {role} has index {index}; there are {count}")
            }
            Error::Type { name, dtype, asked } => write!(f, "{name:?} holds {dtype}, not {asked}"),
            Error::Length { name, elements, given } => {
                write!(f, "{name:?} has {elements} elements, not {given}")
            }
            Error::Outside { name } => {
                write!(f, "{name:?} is outside of the arena: bind its memory")
            }
            Error::Inside { name } => write!(f, "{name:?} has its place in the arena: set it"),
            Error::NotBound => f.write_str("a tensor outside of the arena is not bound to memory"),
            Error::Guard { name } => write!(f, "somebody wrote behind the end of {name:?}"),
            Error::NoGuards => f.write_str("the model was compiled without guards"),
            Error::NoWeights => f.write_str("the model waits for weights that are not bound"),
            Error::WeightsMode => f.write_str("the model takes no weights from outside"),
            Error::WeightsSize { model, given } => {
                write!(f, "the model's weights have {model} bytes, not {given}")
            }
            Error::WeightsAlign => f.write_str("the weights are not aligned to 64 bytes"),
            Error::WeightsFile => f.write_str("the weights file is damaged, or not a weights file"),
            Error::WeightsModel => {
                f.write_str("the weights are of another model, or of another build of it")
            }
            Error::OutOfMemory { bytes } => write!(f, "out of memory: {bytes} bytes"),
            Error::Io { path, reason } => write!(f, "{path}: {reason}"),
            Error::Thread { reason } => write!(f, "a thread cannot be started or pinned: {reason}"),
            Error::Processor => {
                f.write_str("the model was compiled for other processors than this one")
            }
            Error::Data => f.write_str("an index in the model's data is out of range"),
            Error::Status(status) => write!(f, "the model failed with status {status}"),
        }
    }
}

impl core::error::Error for Error {}
