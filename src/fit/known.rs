//! What was found out about changes, for all who ask again: turns come back to the same, and so does the other search
//! beside this one.

use super::change::Changes;
use super::cost::Threads;
use super::sketch::Sketch;
use super::{Changed, Turn};
use crate::error::ErrorKind;
use crate::mir::Value;
use crate::mir::winograd::Working;
use crate::passes::bands::Cut;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What was found for each key, made once: who asks meanwhile waits for it.
#[derive(Debug)]
struct Table<K, V>(Mutex<BTreeMap<K, Arc<OnceLock<V>>>>);

impl<K: Ord, V: Clone> Table<K, V> {
    fn get(&self, key: K, make: impl FnOnce() -> V) -> V {
        let found = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(key).or_default())
        };
        found.get_or_init(make).clone()
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table(Mutex::default())
    }
}

/// What a sketch depends on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Sketched {
    pub(super) cut: Cut,
    /// Of the nodes that have less working memory.
    pub(super) limits: Vec<(Value, Working)>,
    pub(super) threads: Threads,
}

/// Of one graph, with one set of options for one machine.
#[derive(Default)]
pub(super) struct Known {
    turns: Table<Changes, Result<Arc<Turn>, ErrorKind>>,
    sketches: Table<Sketched, Sketch>,
}

impl Known {
    /// What a changed graph is lowered to.
    pub(super) fn turn(
        &self,
        changed: Changed,
        make: impl FnOnce(Changed) -> Result<Turn, ErrorKind>,
    ) -> Result<Arc<Turn>, ErrorKind> {
        self.turns.get(changed.changes.clone(), || make(changed).map(Arc::new))
    }

    /// A region in bands.
    pub(super) fn sketch(&self, of: Sketched, make: impl FnOnce() -> Sketch) -> Sketch {
        self.sketches.get(of, make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    #[test]
    fn what_all_ask_for_is_made_once() {
        let (table, made) = (Table::default(), AtomicU32::new(0));
        let get = |key: u32| {
            table.get(key, || {
                made.fetch_add(1, Ordering::Relaxed);
                key * 2
            })
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|key| assert_eq!(get(key % 10), key % 10 * 2)));
            }
        });
        assert_eq!(made.into_inner(), 10);
    }
}
