//! What a machine can do at best: the peaks that `bench --profile` holds every step against.
//!
//! A small program of our own kernels is compiled for the target of the model and run by the same
//! driver, on as many threads:
//!
//! - flops: independent multiply-adds (a multiplication and an addition where the target does not
//!   fuse them), all operands in registers;
//! - for each level of memory, reading a buffer of vectors and writing one, the buffer as long as half
//!   of the first or the second level's cache of the [`Machine`], 8 MB (a cache that cores share) and
//!   128 MB (memory).
//!
//! The least of a few times counts. From them follows how long a step takes at least
//! ([`Peaks::least_us`]): as long as its operations or its bytes, whichever is longer.

use super::driver::{self, Driver, Parts};
use super::progress::Progress;
use rlx_aot::codegen::program::KernelInfo;
use rlx_aot::codegen::{self, EmitOptions, Target};
use rlx_aot::error::{Error, ErrorKind};
use rlx_aot::kir::Kernel;
use rlx_aot::kir::build::Builder;
use rlx_aot::lir::{self, Access, Buffer, BufferInfo, BufferKind, Module, Op, Reduction, StepInfo};
use rlx_aot::machine::Machine;
use rlx_aot::types::{DType, Type};
use serde::Serialize;

/// Pieces that threads share.
const SHARES: i64 = 64;

/// Vectors in an iteration.
const VECTORS: i64 = 8;

/// Multiply-adds of each register in a share.
const ROUNDS: i64 = 1024;

/// Bytes that a kernel for a private cache reads or writes in all.
const PRIVATE_BYTES: i64 = 32 << 20;

/// What one level of memory gives and takes.
#[derive(Clone, Copy, Serialize, Debug)]
pub(crate) struct Level {
    /// `l1`, `l2`, `shared`, `memory`.
    pub(crate) name: &'static str,
    /// Bytes that it holds.
    holds: u64,
    /// Read by all threads together, in 10^9 bytes a second.
    pub(crate) read_gbytes: f64,
    /// Written by all threads together.
    pub(crate) write_gbytes: f64,
}

/// What a machine can do at best, with a number of threads.
#[derive(Clone, Serialize, Debug)]
pub(crate) struct Peaks {
    /// 10^9 operations on floats of 32 bits in a second; a multiply-add is two.
    pub(crate) gflops: f64,
    /// From the nearest to the farthest.
    pub(crate) levels: [Level; 4],
}

/// What a step does: operations, bytes of constants and of other operands that it reads, bytes that
/// it writes.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Demand {
    pub(crate) flops: u64,
    pub(crate) constant_bytes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

impl Peaks {
    /// Microseconds that a step takes at least: by its operations, or by its bytes. Constants come
    /// from the level that holds all constants of the model (each is read once in a run), the rest
    /// from the one that holds what the step reads and writes.
    pub(crate) fn least_us(&self, demand: &Demand, all_constants: u64) -> f64 {
        let level = |bytes: u64| {
            let found = self.levels.iter().find(|l| bytes <= l.holds);
            found.unwrap_or(&self.levels[self.levels.len() - 1])
        };
        let us =
            |amount: u64, rate: f64| if amount == 0 { 0.0 } else { amount as f64 / rate / 1e3 };
        let near = level(demand.constant_bytes + demand.read_bytes + demand.written_bytes);
        let bytes = us(demand.constant_bytes, level(all_constants).read_gbytes)
            + us(demand.read_bytes, near.read_gbytes)
            + us(demand.written_bytes, near.write_gbytes);
        bytes.max(us(demand.flops, self.gflops))
    }
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Probe {
    Flops,
    /// Reads, or writes, of `levels[level]`.
    Read {
        level: usize,
    },
    Write {
        level: usize,
    },
}

/// Name, bytes that it holds, bytes of the buffer.
type Place = (&'static str, u64, u64);

fn places(machine: &Machine) -> [Place; 4] {
    [
        ("l1", machine.l1, machine.l1 / 2),
        ("l2", machine.l2, machine.l2 / 2),
        ("shared", 16 << 20, 8 << 20),
        ("memory", u64::MAX, 128 << 20),
    ]
}

/// Measures the machine of `target` with so many threads.
///
/// # Errors
///
/// As the driver.
pub(crate) fn measure(
    target: &Target,
    threads: u32,
    args: &driver::Args,
    progress: &Progress,
) -> Result<Peaks, Error> {
    progress.phase("calibrating");
    let machine = target.machine;
    let places = places(&machine);
    let (module, probes) = program(&places)?;
    let bench = Bench { machine, places };
    let key = |steps: &[&StepInfo]| -> String {
        steps.iter().flat_map(|step| &step.origins).map(String::as_str).collect()
    };
    let build = |steps: &[&StepInfo], _: &Machine, _: &str| {
        let probe = key(steps).parse().ok().and_then(|i: usize| probes.get(i));
        let probe = probe.ok_or_else(|| ErrorKind::bug("a step without a probe"))?;
        Ok(KernelInfo { kernel: bench.kernel(*probe), grain: 1, work: i64::MAX })
    };
    let program = codegen::select(&module, &[machine], |_, _| false, key, build)?;
    let options = EmitOptions {
        prefix: "peaks".to_owned(),
        external: false,
        fingerprint: [0; 32],
        profile: true,
        listing: false,
    };
    let object = codegen::emit(&module, &program, &options, target)?;
    let parts = Parts { target, module: &module, object: &object };
    let driver = Driver::build(parts, args, progress)?;
    let words = ["1", "5", "0", "--threads"].map(str::to_owned);
    let text = driver.start("profile", &[], &[&words[..], &[threads.to_string()]].concat())?;
    let measured = driver::parsed(&text)?;
    let ns = |probe: Probe| {
        // Buffers are written once before they are read: the last time counts.
        let at = probes.iter().rposition(|&p| p == probe)?;
        measured["steps_min_us"][at].as_f64().map(|us| (us * 1e3).max(1.0))
    };
    let rate = |probe: Probe| {
        let ns = ns(probe).ok_or_else(|| ErrorKind::bug("the driver left out a step"))?;
        Ok::<f64, ErrorKind>(bench.amount(probe) as f64 / ns)
    };
    let level = |i: usize| {
        let (name, holds, _) = places[i];
        let read_gbytes = rate(Probe::Read { level: i })?;
        let write_gbytes = rate(Probe::Write { level: i })?;
        Ok::<Level, ErrorKind>(Level { name, holds, read_gbytes, write_gbytes })
    };
    let levels = [level(0)?, level(1)?, level(2)?, level(3)?];
    Ok(Peaks { gflops: rate(Probe::Flops)?, levels })
}

/// A module whose steps are the probes, in this order. A step's origin is the number of its probe; its
/// operation says no more than what it reads and writes.
fn program(places: &[Place; 4]) -> Result<(Module, Vec<Probe>), ErrorKind> {
    let mut module = Module {
        name: "peaks".to_owned(),
        buffers: cranelift_entity::PrimaryMap::new(),
        steps: cranelift_entity::PrimaryMap::new(),
        io: lir::Io::default(),
        plan: lir::Plan::default(),
    };
    let mut buffer = |name: &str, bytes: u64, kind: BufferKind| {
        let buffer = module.buffers.push(BufferInfo { name: name.to_owned(), bytes, kind });
        let ty = Type::new(DType::F32, [bytes as usize / 4]);
        (buffer, ty)
    };
    // Sums of every share.
    let sums = buffer("sums", SHARES as u64 * 4096, BufferKind::Output);
    let buffers = places.map(|(name, _, bytes)| buffer(name, bytes, BufferKind::Temporary));
    let access = |(buffer, ty): &(Buffer, Type)| Access::dense(*buffer, ty);
    let mut probes = vec![];
    for (level, buffer) in buffers.iter().enumerate() {
        let write = Probe::Write { level };
        let flops = (level == 0).then_some(Probe::Flops);
        // The first one is for the pages; then the cache is warm.
        let these = [write, Probe::Read { level }, write].into_iter().chain(flops);
        for probe in these {
            let (op, operands, result) = match probe {
                Probe::Write { .. } => {
                    (Op::Fill(lir::Literal::from_f64(DType::F32, 1.0)), vec![], access(buffer))
                }
                Probe::Read { .. } | Probe::Flops => {
                    let op = Op::Reduce { op: Reduction::Max, axes: vec![0] };
                    (op, vec![access(buffer)], access(&sums))
                }
            };
            let origins = vec![probes.len().to_string()];
            module.steps.push(StepInfo { op, operands, result, scratch: None, origins });
            probes.push(probe);
        }
    }
    lir::place::place(&mut module)?;
    Ok((module, probes))
}

struct Bench {
    machine: Machine,
    places: [Place; 4],
}

impl Bench {
    fn lanes(&self) -> i64 {
        i64::from(self.machine.lanes)
    }

    /// Registers that are summed in.
    fn sums(&self) -> i64 {
        (i64::from(self.machine.registers) - 4).clamp(1, 24)
    }

    /// Bytes that a share goes over, how often, and from one share to the next.
    fn window(&self, level: usize) -> (i64, i64, i64) {
        let bytes = self.places[level].2 as i64;
        match level {
            0 | 1 => (bytes, (PRIVATE_BYTES / SHARES / bytes).max(1), 0),
            _ => (bytes / SHARES, 1, bytes / SHARES),
        }
    }

    /// Operations, or bytes.
    fn amount(&self, probe: Probe) -> i64 {
        match probe {
            Probe::Flops => SHARES * ROUNDS * self.sums() * self.lanes() * 2,
            Probe::Read { level } | Probe::Write { level } => {
                let (bytes, passes, _) = self.window(level);
                SHARES * bytes * passes
            }
        }
    }

    fn kernel(&self, probe: Probe) -> Kernel {
        let vector = 4 * self.lanes();
        let mut b = Builder::new("peak", self.machine, SHARES);
        let (begin, end) = (b.begin(), b.end());
        let all = |level: usize| self.places[level].2 as i64;
        match probe {
            Probe::Flops => {
                let from = b.input("a", all(0));
                let result = b.output("result", SHARES * 4096);
                b.each(begin, end, &[], |b, it| {
                    let start: Vec<_> =
                        (0..self.sums()).map(|i| b.load(from, i * vector)).collect();
                    let (x, y) = (b.load(from, 24 * vector), b.load(from, 25 * vector));
                    let sums = b.fold(0, ROUNDS, &[], &start, |b, it| {
                        it.carried.iter().map(|&sum| b.mul_add(x, y, sum)).collect()
                    });
                    let to = b.offset(result, it.index, 4096);
                    for (i, sum) in (0..).zip(sums) {
                        b.store_first(sum, to, i * vector, self.machine.lanes);
                    }
                });
            }
            Probe::Read { level } => {
                let (bytes, passes, step) = self.window(level);
                let from = b.input("a", all(level));
                let result = b.output("result", SHARES * 4096);
                b.each(begin, end, &[], |b, it| {
                    let window = b.offset(from, it.index, step);
                    let start: Vec<_> = (0..VECTORS).map(|i| b.load(window, i * vector)).collect();
                    let most = b.fold(0, passes, &[], &start, |b, it| {
                        let (strip, start) = (VECTORS * vector, it.carried.to_vec());
                        b.fold(0, bytes / strip, &[(window, strip)], &start, |b, it| {
                            let vectors = (0..).zip(it.carried);
                            let max = |(i, &most): (i64, &_)| {
                                let next = b.load(it.pointers[0], i * vector);
                                b.max(most, next)
                            };
                            vectors.map(max).collect()
                        })
                    });
                    let to = b.offset(result, it.index, 4096);
                    for (i, most) in (0..).zip(most) {
                        b.store_first(most, to, i * vector, self.machine.lanes);
                    }
                });
            }
            Probe::Write { level } => {
                let (bytes, passes, step) = self.window(level);
                let result = b.output("result", all(level));
                b.each(begin, end, &[], |b, it| {
                    let window = b.offset(result, it.index, step);
                    let one = b.f32(1.0);
                    b.each(0, passes, &[], |b, _| {
                        let strip = VECTORS * vector;
                        b.each(0, bytes / strip, &[(window, strip)], |b, it| {
                            for i in 0..VECTORS {
                                b.store_first(one, it.pointers[0], i * vector, self.machine.lanes);
                            }
                        });
                    });
                });
            }
        }
        b.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlx_aot::kir::verify::verify;

    #[test]
    fn kernels_stay_inside() {
        for machine in [Machine::CLIF.scalar(), Machine::CLIF, Machine::AVX2, Machine::AVX512] {
            let places = places(&machine);
            let (module, probes) = program(&places).unwrap();
            let bench = Bench { machine, places };
            for (probe, step) in probes.iter().zip(module.steps.values()) {
                let kernel = bench.kernel(*probe);
                verify(&kernel).unwrap_or_else(|e| panic!("{e:?}\n{kernel}"));
                assert_eq!(kernel.operands.len(), step.operands.len() + 1);
                assert!(bench.amount(*probe) > 0);
            }
        }
    }

    #[test]
    fn the_longer_one_counts() {
        let level = |name, holds, gbytes| Level {
            name,
            holds,
            read_gbytes: gbytes,
            write_gbytes: gbytes / 2.0,
        };
        let levels = [
            level("l1", 1 << 15, 200.0),
            level("l2", 1 << 20, 100.0),
            level("shared", 1 << 24, 50.0),
            level("memory", u64::MAX, 10.0),
        ];
        let peaks = Peaks { gflops: 100.0, levels };
        let least = |flops, constant_bytes, read_bytes, written_bytes, all| {
            peaks.least_us(&Demand { flops, constant_bytes, read_bytes, written_bytes }, all)
        };
        assert_eq!(least(100_000, 0, 0, 0, 0), 1.0);
        assert_eq!(least(0, 0, 20_000, 10_000, 0), 0.2);
        assert_eq!(least(1000, 0, 0, 500_000, 0), 10.0);
        assert_eq!(least(0, 10_000, 0, 0, 1 << 30), 1.0);
        assert_eq!(least(0, 0, 0, 0, 0), 0.0);
    }
}
