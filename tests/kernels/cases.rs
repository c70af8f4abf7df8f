//! What is compiled, run and compared.

use crate::data::{Data, Tolerance};
use crate::{across, functions, operations, programs, random, steps};
use rlx_aot::kir::build::Builder;
use rlx_aot::kir::{Kernel, Memory, Value};
use rlx_aot::machine::Machine;

pub(crate) struct Case {
    pub(crate) name: String,
    /// Whether it takes a machine with one lane.
    pub(crate) scalar: bool,
    /// Whether it takes no more than vectors of `f64`.
    pub(crate) doubles: bool,
    pub(crate) kernel: Box<dyn Fn(Machine) -> Kernel>,
    /// What all operands hold at first; the layout of some depends on the number of lanes.
    pub(crate) operands: Box<dyn Fn(Machine) -> Vec<Data>>,
    /// What the operands that are written hold in the end. Empty where it is enough that all emitters
    /// agree.
    pub(crate) expected: Box<dyn Fn(Machine) -> Vec<Data>>,
    pub(crate) tolerance: Tolerance,
    /// Whether the kernel reaches the end of every operand.
    pub(crate) tight: bool,
}

impl Case {
    /// Whether the machine has all that the kernel is made of.
    pub(crate) fn takes(&self, machine: &Machine) -> bool {
        machine.lanes == 1 || if machine.doubles { self.doubles } else { !self.scalar }
    }
}

/// All of them, with so many random kernels; see `Target::converts`.
pub(crate) fn all(random: u64, converts: bool) -> Vec<Case> {
    let mut cases = operations::cases();
    cases.extend(programs::cases());
    cases.extend(across::cases());
    cases.extend(functions::cases(1 << 16));
    cases.extend(steps::cases(random * 4, converts));
    cases.extend((0..random).map(|seed| random::case(seed, converts)));
    cases
}

/// The same for every machine.
pub(crate) fn always(expected: Data) -> Box<dyn Fn(Machine) -> Vec<Data>> {
    Box::new(move |_| vec![expected.clone()])
}

/// An element-wise function of operands of the same length.
pub(crate) fn map(
    name: impl Into<String>,
    inputs: Vec<Data>,
    expected: Data,
    f: impl Fn(&mut Builder, &[Value]) -> Value + 'static,
) -> Case {
    let name = name.into();
    let (memories, output) = (inputs.iter().map(Data::memory).collect(), expected.memory());
    let elements = expected.elements();
    let scalar = inputs.iter().chain([&expected]).any(|data| !data.memory().is_on(&Machine::AVX2));
    let kernel = {
        let name = name.clone();
        let memories: Vec<Memory> = memories;
        move |m| map_kernel(&name, m, elements as i64, &memories, output, &f)
    };
    let operands = move |_| {
        let mut operands = inputs.clone();
        operands.push(Data::unset(output, elements));
        operands
    };
    Case {
        name,
        scalar,
        doubles: false,
        kernel: Box::new(kernel),
        operands: Box::new(operands),
        expected: always(expected),
        tolerance: Tolerance::Exact,
        tight: true,
    }
}

const BLOCK: i64 = 4;

/// The range counts blocks of `BLOCK` vectors.
fn map_kernel(
    name: &str,
    machine: Machine,
    elements: i64,
    inputs: &[Memory],
    output: Memory,
    f: &dyn Fn(&mut Builder, &[Value]) -> Value,
) -> Kernel {
    let block = BLOCK * i64::from(machine.lanes);
    let mut b = Builder::new(name, machine, (elements + block - 1) / block);
    let mut operands: Vec<_> =
        inputs.iter().map(|&m| (b.input("x", elements * m.bytes()), m.bytes())).collect();
    operands.push((b.output("y", elements * output.bytes()), output.bytes()));
    blocks(&mut b, elements, block, |b, i, elements| {
        let pointers: Vec<_> =
            operands.iter().map(|&(p, bytes)| (b.offset(p, i, block * bytes), bytes)).collect();
        b.fold_row_by(elements, &pointers, &[], |b, p, _, lanes| {
            let x: Vec<_> =
                inputs.iter().zip(p).map(|(&m, &p)| b.load_as(m, p, 0, lanes)).collect();
            let y = f(b, &x);
            b.store_as(output, y, p[x.len()], 0, lanes);
            vec![]
        });
    });
    b.finish()
}

/// Runs `body` for the range's blocks of `per_block` out of `total`: in a loop for the whole blocks,
/// and once more, as a loop of at most one iteration, for the block that is left.
pub(crate) fn blocks(
    b: &mut Builder,
    total: i64,
    per_block: i64,
    mut body: impl FnMut(&mut Builder, Value, i64),
) {
    use rlx_aot::kir::IndexOp::{Max, Min};
    let (whole, left) = (total / per_block, total % per_block);
    let (begin, end) = (b.begin(), b.end());
    if whole > 0 {
        let to = b.index(Min, end, whole);
        b.each(begin, to, &[], |b, it| body(b, it.index, per_block));
    }
    if left > 0 {
        let from = b.index(Max, begin, whole);
        b.each(from, end, &[], |b, it| body(b, it.index, left));
    }
}
