//! LIR to an object file and what goes with it.
//!
//! [`program`] chooses the kernels of a module, [`module`] makes code of them by one of two emitters
//! ([`x86`] for vectors of 256 and 512 bits, [`clif`] for all else), adds the function that calls them
//! one after the other ([`run`]), the descriptor and the weights ([`object`]). What the object promises
//! is a [`contract::Contract`]; the C header, the manifest and the bundle are made of it.
//!
//! Nothing here reads or writes files, and the same module, options and target give the same bytes.

pub mod archive;
pub mod bundle;
pub mod clif;
pub mod contract;
pub mod header;
pub mod inspect;
pub mod manifest;
pub mod module;
pub mod object;
mod processors;
pub mod program;
mod run;
pub mod target;
pub mod weights;
pub mod x86;

pub use contract::{Contract, WeightsMode};
pub use module::{EmitOptions, emit};
pub use object::Object;
pub use program::{Program, select};
pub use target::Target;

use std::sync::atomic::{AtomicUsize, Ordering};

/// `f` of every item, by as many threads as there are processors, in the items' order.
fn parallel_map<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    if threads <= 1 {
        return items.iter().map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = vec![];
        while let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some(item) = items.get(index)
        {
            done.push((index, f(item)));
        }
        done
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, Vec<(usize, R)>>| {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        handles.into_iter().flat_map(join).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
