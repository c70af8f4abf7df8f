//! Threads that share the loops of a run.

use crate::Error;
use crate::abi::{Body, ParallelFor};
use core::ffi::c_void;
use core::hint::spin_loop;
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Threads that share the loops of a model's runs, for [`Model::set_pool`](crate::Model::set_pool).
///
/// They spin for some microseconds after work and then sleep. A pool serves any number of models; one that finds it busy
/// runs its loop by itself. The threads end with the last clone and the last model that uses it.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// A job is a loop cut into chunks. `ticket` holds the number of the job and how many of its chunks nobody has claimed; a
/// claim is a decrement by compare-and-swap.
///
/// Invariant: the job's fields change only when every chunk has been counted in `done`. So a claim that succeeds proves that
/// the fields that were read before it belong to the same job; a thread that wakes up late fails its claim, and
/// the caller waits for chunks, never for threads.
#[derive(Debug)]
struct Shared {
    ticket: AtomicU64,
    /// A `Body`.
    body: AtomicPtr<c_void>,
    table: AtomicPtr<*const c_void>,
    extent: AtomicI64,
    step: AtomicI64,
    chunks: AtomicU32,
    done: AtomicU32,
    sleepers: AtomicU32,
    busy: AtomicBool,
    stop: AtomicBool,
    threads: u32,
    mutex: Mutex<()>,
    wake: Condvar,
}

const MOST_THREADS: u32 = 1024;
const CHUNKS_PER_THREAD: i64 = 4;
const CHUNK_BITS: u32 = 16;
const SPINS: u32 = 4000;

/// What a context gets; its argument is [`Pool::argument`].
pub(crate) const PARALLEL_FOR: ParallelFor = parallel_for;

impl Pool {
    /// Starts `threads - 1` threads; the one that runs a model is the last.
    ///
    /// # Errors
    /// [`Error::Thread`], also if `threads` is 0 or above 1024.
    pub fn new(threads: usize) -> Result<Pool, Error> {
        let count = u32::try_from(threads).ok().filter(|count| (1..=MOST_THREADS).contains(count));
        let threads = count
            .ok_or_else(|| Error::Thread { reason: format!("{threads} is not from 1 to 1024") })?;
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(0),
            body: AtomicPtr::new(null_mut()),
            table: AtomicPtr::new(null_mut()),
            extent: AtomicI64::new(0),
            step: AtomicI64::new(0),
            chunks: AtomicU32::new(0),
            done: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            busy: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            threads,
            mutex: Mutex::new(()),
            wake: Condvar::new(),
        });
        // Dropped on failure, it ends the threads that were started.
        let mut inner = Inner { shared, workers: Vec::new() };
        for _ in 1..threads {
            let shared = Arc::clone(&inner.shared);
            let worker =
                std::thread::Builder::new().name("rlx-pool".into()).spawn(move || shared.serve());
            inner
                .workers
                .push(worker.map_err(|error| Error::Thread { reason: error.to_string() })?);
        }
        Ok(Pool { inner: Arc::new(inner) })
    }

    /// How many threads work, the caller included.
    pub fn threads(&self) -> usize {
        self.inner.shared.threads as usize
    }

    /// Good as long as a clone of the pool lives.
    pub(crate) fn argument(&self) -> *mut c_void {
        Arc::as_ptr(&self.inner.shared).cast_mut().cast()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_sleepers();
        for worker in self.workers.drain(..) {
            // A worker runs compiled code only, which does not panic.
            let _ = worker.join();
        }
    }
}

fn unclaimed(ticket: u64) -> u64 {
    ticket & ((1 << CHUNK_BITS) - 1)
}

impl Shared {
    /// Claims and runs chunks until none is left.
    fn work(&self) {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        while unclaimed(ticket) != 0 {
            let body = self.body.load(Ordering::Relaxed);
            let table = self.table.load(Ordering::Relaxed);
            let extent = self.extent.load(Ordering::Relaxed);
            let step = self.step.load(Ordering::Relaxed);
            let chunks = self.chunks.load(Ordering::Relaxed);
            let claim = self.ticket.compare_exchange_weak(
                ticket,
                ticket - 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            if let Err(current) = claim {
                ticket = current;
                continue;
            }
            let begin = (u64::from(chunks) - unclaimed(ticket)) as i64 * step;
            let end = if extent - begin < step { extent } else { begin + step };
            // SAFETY: the claim proves that the fields are the current job's: `body` is the function that `parallel_for` was given,
            // and its caller waits until this chunk is done. No other thread has this chunk.
            unsafe { transmute::<*mut c_void, Body>(body)(table, begin, end) };
            self.done.fetch_add(1, Ordering::Release);
            ticket = self.ticket.load(Ordering::Acquire);
        }
    }

    fn idle(&self) -> bool {
        unclaimed(self.ticket.load(Ordering::SeqCst)) == 0 && !self.stop.load(Ordering::SeqCst)
    }

    /// The life of a worker.
    fn serve(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            for _ in 0..SPINS {
                if !self.idle() {
                    break;
                }
                spin_loop();
            }
            if self.idle() {
                // Either the caller sees this sleeper, or this sleeper sees the job.
                let mut guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                while self.idle() {
                    guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            self.work();
        }
    }

    fn wake_sleepers(&self) {
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            let _guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }
}

/// # Safety
/// `argument` is a living pool's [`Pool::argument`]; `body` may be called with `table` for any part of `0..extent` from any thread,
/// for disjoint parts at the same time.
unsafe extern "C" fn parallel_for(
    argument: *mut c_void,
    body: Body,
    table: *const *const c_void,
    extent: i64,
    grain: i64,
) {
    if extent <= 0 {
        return;
    }
    // SAFETY: the caller's promise.
    let shared = unsafe { &*argument.cast::<Shared>() };
    let grain = grain.max(1);
    let grains = 1 + (extent - 1) / grain;
    if grains == 1 || shared.threads == 1 || shared.busy.swap(true, Ordering::Acquire) {
        // SAFETY: the caller's promise.
        return unsafe { body(table, 0, extent) };
    }
    let most = i64::from(shared.threads) * CHUNKS_PER_THREAD;
    let step = if grains > most { (1 + (grains - 1) / most) * grain } else { grain };
    // At most `most`, so it fits.
    let chunks = (1 + (extent - 1) / step) as u32;
    shared.body.store(body as *mut c_void, Ordering::Relaxed);
    shared.table.store(table.cast_mut(), Ordering::Relaxed);
    shared.extent.store(extent, Ordering::Relaxed);
    shared.step.store(step, Ordering::Relaxed);
    shared.chunks.store(chunks, Ordering::Relaxed);
    shared.done.store(0, Ordering::Relaxed);
    let job = (shared.ticket.load(Ordering::Relaxed) >> CHUNK_BITS) + 1;
    shared.ticket.store(job << CHUNK_BITS | u64::from(chunks), Ordering::SeqCst);
    shared.wake_sleepers();
    shared.work();
    let mut spins = 0;
    while shared.done.load(Ordering::Acquire) != chunks {
        spins += 1;
        if spins < SPINS { spin_loop() } else { std::thread::yield_now() }
    }
    shared.busy.store(false, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn count(table: *const *const c_void, begin: i64, end: i64) {
        // SAFETY: the tests' tables begin with a pointer to as many counters as the extent.
        let counters = unsafe { (*table).cast::<AtomicU32>() };
        for i in begin..end {
            // SAFETY: as above.
            unsafe { &*counters.add(i as usize) }.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn hammer(pool: &Pool) {
        let counters: Vec<AtomicU32> = (0..1000).map(|_| AtomicU32::new(0)).collect();
        let table = [counters.as_ptr().cast::<c_void>()];
        for _ in 0..30 {
            for extent in [0, 1, 2, 7, 64, 1000] {
                for grain in [0, 1, 3, 64, i64::MAX] {
                    // SAFETY: `count` is made for this table.
                    unsafe { parallel_for(pool.argument(), count, table.as_ptr(), extent, grain) };
                    for (i, counter) in counters.iter().enumerate() {
                        assert_eq!(
                            counter.swap(0, Ordering::Relaxed),
                            u32::from((i as i64) < extent)
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_iteration_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads).unwrap();
            hammer(&pool);
            std::thread::scope(|scope| {
                scope.spawn(|| hammer(&pool));
                hammer(&pool);
            });
        }
    }

    #[test]
    fn counts_out_of_range() {
        assert!(matches!(Pool::new(0), Err(Error::Thread { .. })));
        assert!(matches!(Pool::new(1025), Err(Error::Thread { .. })));
    }
}
