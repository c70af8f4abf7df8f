//! Threads that share the loops of a run.

use crate::Error;
use crate::abi::{Body, ParallelFor};
use core::ffi::c_void;
use core::hint::spin_loop;
use core::mem::transmute;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
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

/// What one thread has to do of a job, which is a loop cut into equal lanes. Every thread goes through its own, so that it goes
/// on where it went in the loop before, and what it wrote then is near; a thread whose lane is empty takes from the others'. A
/// lane is cut into chunks, each half of what is left, but for the last: few claims, and little to wait for at the end.
/// `ticket` holds the number of the job and how many of the lane's chunks nobody has claimed; a claim is a
/// decrement by compare-and-swap.
///
/// Invariant: a lane's fields change only when every chunk of the job is done: the caller counts its own, the others count in
/// `done`. So a claim that succeeds proves that the fields that were read before it belong to the same job; a thread that wakes
/// up late fails its claim, and the caller waits for chunks, never for threads.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Lane {
    ticket: AtomicU64,
    /// A `Body`.
    body: AtomicPtr<c_void>,
    table: AtomicPtr<*const c_void>,
    extent: AtomicI64,
    /// Of each lane.
    chunks: AtomicU32,
    /// Of the job.
    lanes: AtomicU32,
}

/// What has a cache line to itself.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Alone<T>(T);

#[derive(Debug)]
struct Shared {
    /// Chunks of the job that others than the caller have done.
    done: Alone<AtomicU32>,
    sleepers: Alone<AtomicU32>,
    /// Threads that wait look at `stop`, which would take the caller's line away at every loop.
    busy: Alone<AtomicBool>,
    stop: AtomicBool,
    /// One for each thread, the caller's first.
    lanes: Box<[Lane]>,
    mutex: Mutex<()>,
    wake: Condvar,
}

const MOST_THREADS: u32 = 1024;
const CHUNKS_PER_THREAD: u32 = 6;
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
            done: Alone::default(),
            sleepers: Alone::default(),
            busy: Alone::default(),
            stop: AtomicBool::new(false),
            lanes: (0..threads).map(|_| Lane::default()).collect(),
            mutex: Mutex::new(()),
            wake: Condvar::new(),
        });
        // Dropped on failure, it ends the threads that were started.
        let mut inner = Inner { shared, workers: Vec::new() };
        for own in 1..threads as usize {
            let shared = Arc::clone(&inner.shared);
            let worker = std::thread::Builder::new()
                .name("rlx-pool".into())
                .spawn(move || shared.serve(own));
            inner
                .workers
                .push(worker.map_err(|error| Error::Thread { reason: error.to_string() })?);
        }
        Ok(Pool { inner: Arc::new(inner) })
    }

    /// How many threads work, the caller included.
    pub fn threads(&self) -> usize {
        self.inner.shared.lanes.len()
    }

    /// Pins every thread, the calling one too, to a processor of its own: the first ones of those that the calling thread may run
    /// on. On Linux only.
    ///
    /// # Errors
    /// [`Error::Thread`] if there are fewer processors than threads, or the system does not allow it.
    pub fn pin(&self) -> Result<(), Error> {
        affinity::pin(&self.inner.workers)
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

fn unclaimed(ticket: u64) -> u32 {
    (ticket & ((1 << CHUNK_BITS) - 1)) as u32
}

/// Where lane `i` of so many begins in `0..extent`.
fn begin_of(extent: i64, lanes: u32, i: u32) -> i64 {
    let (lanes, i) = (i64::from(lanes), i64::from(i));
    extent / lanes * i + extent % lanes * i / lanes
}

impl Lane {
    /// Claims and runs chunks of this lane, the `own`th, until none is left; gives how many it ran.
    fn drain(&self, own: u32) -> u32 {
        let mut count = 0;
        let mut ticket = self.ticket.load(Ordering::Acquire);
        while unclaimed(ticket) != 0 {
            let body = self.body.load(Ordering::Relaxed);
            let table = self.table.load(Ordering::Relaxed);
            let extent = self.extent.load(Ordering::Relaxed);
            let chunks = self.chunks.load(Ordering::Relaxed);
            let lanes = self.lanes.load(Ordering::Relaxed);
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
            let left = unclaimed(ticket);
            let end = begin_of(extent, lanes, own + 1);
            let length = end - begin_of(extent, lanes, own);
            let from = end - (length >> (chunks - left));
            let to = if left == 1 { end } else { end - (length >> (chunks - left + 1)) };
            // SAFETY: the claim proves that the fields are the current job's: `body` is the function that `parallel_for` was given,
            // and its caller waits until this chunk is done. No other thread has this chunk.
            unsafe { transmute::<*mut c_void, Body>(body)(table, from, to) };
            count += 1;
            // The job does not end before this chunk is counted, so that there is no more to see.
            if left == 1 {
                break;
            }
            ticket = self.ticket.load(Ordering::Acquire);
        }
        count
    }
}

impl Shared {
    /// Runs what is left in a lane; gives how many chunks.
    fn drain(&self, lane: usize) -> u32 {
        self.lanes[lane].drain(lane as u32)
    }

    /// Runs what is left in the other lanes; gives how many chunks.
    fn help(&self, own: usize) -> u32 {
        let lanes = self.lanes[own].lanes.load(Ordering::Relaxed) as usize;
        (1..lanes).map(|i| self.drain((own + i) % lanes)).sum()
    }

    fn count_done(&self, count: u32) {
        if count != 0 {
            self.done.0.fetch_add(count, Ordering::Release);
        }
    }

    fn idle(&self, own: usize) -> bool {
        let ticket = self.lanes[own].ticket.load(Ordering::SeqCst);
        unclaimed(ticket) == 0 && !self.stop.load(Ordering::SeqCst)
    }

    /// The life of a worker.
    fn serve(&self, own: usize) {
        while !self.stop.load(Ordering::SeqCst) {
            for _ in 0..SPINS {
                if !self.idle(own) {
                    break;
                }
                spin_loop();
            }
            if self.idle(own) {
                // Either the caller sees this sleeper, or this sleeper sees the job.
                let mut guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
                self.sleepers.0.fetch_add(1, Ordering::SeqCst);
                while self.idle(own) {
                    guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
            }
            // At once, as the caller may wait for it.
            self.count_done(self.drain(own));
            self.count_done(self.help(own));
        }
    }

    fn wake_sleepers(&self) {
        if self.sleepers.0.load(Ordering::SeqCst) != 0 {
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
    let threads = shared.lanes.len() as u32;
    let grains = extent / grain.max(1);
    if grains <= 1 || threads == 1 || shared.busy.0.swap(true, Ordering::Acquire) {
        // SAFETY: the caller's promise.
        return unsafe { body(table, 0, extent) };
    }
    // At most as many as there are threads, and chunks, so they fit.
    let lanes = grains.min(i64::from(threads)) as u32;
    let each = (1 + (grains / i64::from(lanes)).ilog2()).min(CHUNKS_PER_THREAD);
    shared.done.0.store(0, Ordering::Relaxed);
    let job = (shared.lanes[0].ticket.load(Ordering::Relaxed) >> CHUNK_BITS) + 1;
    for lane in shared.lanes[..lanes as usize].iter().rev() {
        lane.body.store(body as *mut c_void, Ordering::Relaxed);
        lane.table.store(table.cast_mut(), Ordering::Relaxed);
        lane.extent.store(extent, Ordering::Relaxed);
        lane.chunks.store(each, Ordering::Relaxed);
        lane.lanes.store(lanes, Ordering::Relaxed);
        lane.ticket.store(job << CHUNK_BITS | u64::from(each), Ordering::Release);
    }
    // Before `sleepers` is read, as a sleeper reads its lane after it.
    fence(Ordering::SeqCst);
    shared.wake_sleepers();
    let others = lanes * each - shared.drain(0);
    let others = others - shared.help(0);
    let mut spins = 0;
    while shared.done.0.load(Ordering::Acquire) != others {
        spins += 1;
        if spins < SPINS { spin_loop() } else { std::thread::yield_now() }
    }
    shared.busy.0.store(false, Ordering::Release);
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    use super::{Error, JoinHandle};

    pub(super) fn pin(_: &[JoinHandle<()>]) -> Result<(), Error> {
        Err(Error::Thread { reason: "there is no call for it on this system".into() })
    }
}

/// Which processors threads run on.
#[cfg(target_os = "linux")]
mod affinity {
    use super::{Error, JoinHandle};
    use std::os::unix::thread::{JoinHandleExt, RawPthread};

    /// `cpu_set_t`: a bit for each of 1024 processors.
    type Set = [usize; 1024 / usize::BITS as usize];

    unsafe extern "C" {
        safe fn pthread_self() -> RawPthread;
        fn pthread_getaffinity_np(thread: RawPthread, bytes: usize, set: *mut Set) -> i32;
        fn pthread_setaffinity_np(thread: RawPthread, bytes: usize, set: *const Set) -> i32;
    }

    /// The words and bits of the processors in a set.
    fn processors(set: &Set) -> impl Iterator<Item = (usize, usize)> {
        let bits =
            (0..set.len()).flat_map(|word| (0..usize::BITS).map(move |bit| (word, 1 << bit)));
        bits.filter(|&(word, bit)| set[word] & bit != 0)
    }

    /// Pins the calling thread to the first processor that it may run on, the others to the next ones.
    pub(super) fn pin(workers: &[JoinHandle<()>]) -> Result<(), Error> {
        let failed = |code: i32| match code {
            0 => Ok(()),
            code => {
                Err(Error::Thread { reason: std::io::Error::from_raw_os_error(code).to_string() })
            }
        };
        let mut allowed: Set = Default::default();
        // SAFETY: the set is as long as is said.
        failed(unsafe {
            pthread_getaffinity_np(pthread_self(), size_of::<Set>(), &raw mut allowed)
        })?;
        let (threads, count) = (workers.len() + 1, processors(&allowed).count());
        if count < threads {
            return Err(Error::Thread {
                reason: format!("{count} processors for {threads} threads"),
            });
        }
        let threads = [pthread_self()].into_iter().chain(workers.iter().map(|w| w.as_pthread_t()));
        for (thread, (word, bit)) in threads.zip(processors(&allowed)) {
            let mut one: Set = Default::default();
            one[word] = bit;
            // SAFETY: the calling thread lives, and a worker is joined only when the pool is gone.
            failed(unsafe { pthread_setaffinity_np(thread, size_of::<Set>(), &raw const one) })?;
        }
        Ok(())
    }
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

    /// Adds 1 to numbers that are not atomic.
    unsafe extern "C" fn add(table: *const *const c_void, begin: i64, end: i64) {
        // SAFETY: the test's table begins with a pointer to as many numbers as the extent, and no two calls have one in common.
        let numbers = unsafe { (*table).cast_mut().cast::<u64>() };
        for i in begin..end {
            // SAFETY: as above.
            unsafe { *numbers.add(i as usize) += 1 };
        }
    }

    /// What one loop wrote, the next one and the caller see, whichever threads they are. (Under a race detector this is the test of
    /// the order of all that the pool loads and stores.)
    #[test]
    fn loops_see_what_loops_before_them_wrote() {
        let pool = Pool::new(3).unwrap();
        let mut numbers = [0u64; 64];
        for round in 1..=2000 {
            let table = [numbers.as_mut_ptr().cast_const().cast::<c_void>()];
            // SAFETY: `add` is made for this table.
            unsafe { parallel_for(pool.argument(), add, table.as_ptr(), 64, 1 + round % 9) };
            assert!(numbers.iter().all(|&n| n == round as u64), "{numbers:?}");
            // Sometimes the workers sleep in between.
            if round % 500 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }

    /// In a thread of its own, since the calling thread stays pinned.
    #[test]
    #[cfg(target_os = "linux")]
    fn pinned_threads() {
        let allowed = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            line.unwrap().trim().to_owned()
        };
        let processors = std::thread::available_parallelism().unwrap().get();
        let test = move || {
            let too_many = Pool::new(processors + 1).unwrap();
            assert!(matches!(too_many.pin(), Err(Error::Thread { .. })));
            let pool = Pool::new(processors).unwrap();
            pool.pin().unwrap();
            assert!(allowed().parse::<usize>().is_ok(), "{}", allowed());
            hammer(&pool);
        };
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn counts_out_of_range() {
        assert!(matches!(Pool::new(0), Err(Error::Thread { .. })));
        assert!(matches!(Pool::new(1025), Err(Error::Thread { .. })));
    }
}
