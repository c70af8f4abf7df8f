//! Kernels: each step of the schedule as a loop program.
//!
//! A kernel depends on a step's kind, on the shapes of its accesses and on the machine, not on where
//! the buffers lie, so that equal steps share one kernel (see [`key`]). It is written for the
//! machine's vectors where they have the types and operations that the step needs and its accesses
//! lie one behind the other, else for one lane.

mod attention;
mod combine;
mod contract;
mod depthwise;
mod elementary;
mod expr;
mod filtered;
mod finish;
pub mod math;
mod moves;
mod nest;
mod operations;
mod reduce;
mod rows;
mod scan;
mod scatter;
mod sort;
mod winograd;

use crate::error::ErrorKind;
use crate::kir::Value;
use crate::kir::build::Builder;
use crate::kir::{Kernel, overlap, verify};
use crate::lir::over::Clear;
use crate::lir::{self, Access, Op, StepInfo};
use crate::machine::Machine;
use crate::types::DType;
use contract::abreast::Abreast;
use nest::Level;
use std::fmt::Write;
use std::ops::Range;

/// A step's kernel.
#[derive(Clone, Debug)]
pub struct KernelPlan {
    /// Its operands are the step's, and then the result. Each pointer is that of the lowest element
    /// of the access's [`Access::span`] (anything where that is empty).
    pub kernel: Kernel,
    /// How many iterations of the kernel's range are worth a thread's while.
    pub grain: i64,
    /// Operations on elements, roughly: some 2^15 take a microsecond.
    pub work: i64,
}

/// The kernel of a step, or of two that go [`abreast`]: its operands are those of the one, and then those of the
/// other. Where the result is empty it does nothing.
///
/// # Errors
///
/// `unsupported`, where a type or an operation is missing.
pub fn build(steps: &[&StepInfo], machine: &Machine, name: &str) -> Result<KernelPlan, ErrorKind> {
    match *steps {
        [step] => match step.is_over() {
            true => in_order(step, machine, name),
            false => alone(step, machine, name, false),
        },
        [rider, carrier] => side_by_side([rider, carrier], machine, name, |both| both.write())?
            .map(checked)
            .ok_or_else(|| ErrorKind::bug("two steps that do not go abreast")),
        _ => Err(ErrorKind::bug(format!("{} steps as one kernel", steps.len()))),
    }
}

/// Whether there is one kernel for both of these steps ([`Contract::rides`]). What the one writes, the other one does not
/// touch: that is for the caller to see to.
///
/// [`Contract::rides`]: crate::lir::Contract::rides
pub fn abreast(steps: [&StepInfo; 2], machine: &Machine) -> bool {
    matches!(side_by_side(steps, machine, "", |_| ()), Ok(Some(())))
}

fn side_by_side<T>(
    steps: [&StepInfo; 2],
    machine: &Machine,
    name: &str,
    with: impl FnOnce(Abreast<'_>) -> T,
) -> Result<Option<T>, ErrorKind> {
    let [Op::Contract(rider), Op::Contract(carrier)] = steps.map(|step| &step.op) else {
        return Ok(None);
    };
    let frames = steps.map(|step| Frame::new(step, *machine, name, false));
    let ends = lir::Expr::identity();
    let abreast = Abreast::new(frames.each_ref(), [rider, carrier], &ends)?;
    Ok(abreast.map(with))
}

/// Where the result of a step may lie over an operand, given by its index, if one thread computes it in order; `None` where
/// that is not known.
///
/// # Errors
///
/// As [`build`].
pub fn clear(
    step: &StepInfo,
    operand: usize,
    machine: &Machine,
) -> Result<Option<Clear>, ErrorKind> {
    Ok(clear_of(&alone(step, machine, "", true)?.kernel, step, operand))
}

fn clear_of(kernel: &Kernel, step: &StepInfo, operand: usize) -> Option<Clear> {
    let found = overlap::clear(kernel, operand, step.accesses().count() - 1)?;
    Some(Clear { at_most: found.at_most, at_least: found.at_least })
}

/// The kernel of a step that writes over operands which die. It is never shared, and every byte is read before it is
/// written.
fn in_order(step: &StepInfo, machine: &Machine, name: &str) -> Result<KernelPlan, ErrorKind> {
    let plan = alone(step, machine, name, true)?;
    for operand in 0..step.operands.len() {
        if let Some(distance) = step.distance(operand)
            && !clear_of(&plan.kernel, step, operand).is_some_and(|clear| clear.allows(distance))
        {
            return Err(ErrorKind::bug(format!(
                "operand {operand} is overwritten before it is read"
            )));
        }
    }
    Ok(KernelPlan { grain: plan.kernel.range.extent.max(1), ..plan })
}

/// A kernel for one step; where `in_order` is set, it goes through its rows one after the other, as far as such a
/// kernel is about as fast.
fn alone(
    step: &StepInfo,
    machine: &Machine,
    name: &str,
    in_order: bool,
) -> Result<KernelPlan, ErrorKind> {
    if step.result.is_empty() {
        let (b, _) = Frame::new(step, *machine, name, in_order).open(0);
        return Ok(KernelPlan { kernel: b.finish(), grain: 1, work: 0 });
    }
    let doubles = machine.doubles().filter(|_| is_for_doubles(&step.op));
    for machine in [Some(*machine), doubles, Some(machine.scalar())].into_iter().flatten() {
        if let Some(plan) = write(&Frame::new(step, machine, name, in_order), step)? {
            return Ok(checked(plan));
        }
    }
    Err(ErrorKind::bug("every step has a kernel for one lane"))
}

fn write(frame: &Frame<'_>, step: &StepInfo) -> Result<Option<KernelPlan>, ErrorKind> {
    match &step.op {
        Op::Rows(rows) => rows::kernel(frame, rows),
        Op::Reduce { op, axes } => reduce::axes(frame, *op, axes),
        Op::ArgReduce { largest, axis, last } => reduce::place(frame, *largest, *axis, *last),
        Op::Contract(contract) => contract::product(frame, contract),
        Op::Attention(attention) => attention::kernel(frame, attention),
        Op::Conv(conv) if depthwise::is_one(frame, conv) => depthwise::kernel(frame, conv),
        Op::Conv(conv) => contract::convolution(frame, conv),
        Op::Winograd(winograd) => match filtered::is_one(winograd) {
            true => filtered::kernel(frame, winograd),
            false => winograd::kernel(frame, winograd),
        },
        Op::Pool(pool) => reduce::windows(frame, pool),
        Op::Gather { axis, known } => match known {
            Some(places) => Ok(moves::pick(frame, places)),
            None => moves::gather(frame, *axis),
        },
        Op::Scan(scan) => Ok(scan::kernel(frame, scan)),
        Op::Scatter { op } => scatter::kernel(frame, *op),
        Op::Sort { largest, count } => sort::kernel(frame, *largest, *count),
        Op::Move => Ok(moves::copy(frame)),
        Op::Fill(literal) => Ok(moves::fill(frame, *literal)),
    }
}

/// Whether kernels of this kind may be for vectors of `f64`.
fn is_for_doubles(op: &Op) -> bool {
    match op {
        Op::Rows(_) | Op::Contract(_) | Op::Conv(_) | Op::Scan(_) => true,
        Op::Reduce { .. } | Op::ArgReduce { .. } | Op::Pool(_) => false,
        Op::Attention(_) | Op::Winograd(_) => false,
        Op::Gather { .. } | Op::Scatter { .. } | Op::Sort { .. } | Op::Move | Op::Fill(_) => false,
    }
}

fn checked(plan: KernelPlan) -> KernelPlan {
    if cfg!(debug_assertions)
        && let Err(errors) = verify::verify(&plan.kernel)
    {
        panic!("a kernel breaks the rules: {errors:#?}\n{}", plan.kernel);
    }
    plan
}

/// A text that is the same for two steps, or two pairs of steps, if they may share a kernel.
pub fn key(steps: &[&StepInfo]) -> String {
    let mut key = String::new();
    for step in steps {
        write!(key, "{:?}", step.op).expect("a string takes all text");
        for access in step.accesses() {
            let same = if is_in_place(step, access) { "=" } else { "" };
            let Access { buffer: _, dtype, dims, strides, offset: _ } = access;
            write!(key, " {same}{dtype}{dims:?}{strides:?}").expect("a string takes all text");
        }
        for operand in 0..step.operands.len() {
            if let Some(distance) = step.distance(operand) {
                write!(key, " {operand} over {distance}").expect("a string takes all text");
            }
        }
        key.push('\n');
    }
    key
}

/// Whether an operand lies exactly where the result does.
fn is_in_place(step: &StepInfo, access: &Access) -> bool {
    !std::ptr::eq(access, &step.result) && *access == step.result
}

/// How an operand or the result lies in memory.
#[derive(Clone, Debug)]
struct Shape {
    dtype: DType,
    dims: Vec<i64>,
    /// In bytes, per axis.
    strides: Vec<i64>,
    /// From the lowest element to element (0, 0, ..), in bytes.
    first: i64,
    /// From the lowest element to the end of the highest.
    bytes: i64,
}

impl Shape {
    fn new(access: &Access) -> Shape {
        let size = access.dtype.bytes() as i64;
        let (first, bytes) = match access.span() {
            Some((low, high)) => ((access.offset - low) * size, (high - low + 1) * size),
            None => (0, 0),
        };
        let dims = access.dims.iter().map(|&d| d as i64).collect();
        let strides = access.strides.iter().map(|s| s * size).collect();
        Shape { dtype: access.dtype, dims, strides, first, bytes }
    }

    /// Bytes of the different elements that are reached.
    fn distinct(&self) -> i64 {
        let axes = self.dims.iter().zip(&self.strides).filter(|&(_, &stride)| stride != 0);
        let size = self.dtype.bytes() as i64;
        axes.fold(size, |all, (&dim, _)| all.saturating_mul(dim)).min(self.bytes)
    }

    /// The stride of an axis, counted from the end where it is negative; 0 where there is none.
    fn stride(&self, axis: isize) -> i64 {
        let axis = if axis < 0 {
            self.strides.len().checked_add_signed(axis)
        } else {
            Some(axis as usize)
        };
        axis.and_then(|axis| self.strides.get(axis)).copied().unwrap_or(0)
    }
}

/// What every kernel begins and ends with.
struct Frame<'a> {
    name: &'a str,
    machine: Machine,
    /// The operands, the scratch, and the result.
    shapes: Vec<Shape>,
    in_place: Vec<bool>,
    /// Whether the shape before the result's is that of working memory.
    scratch: bool,
    /// Whether rows should be written in order, soon after they are read: no thread shares them.
    in_order: bool,
}

impl Frame<'_> {
    fn new<'a>(step: &'a StepInfo, machine: Machine, name: &'a str, in_order: bool) -> Frame<'a> {
        let shapes = step.accesses().map(Shape::new).collect();
        let in_place = step.accesses().map(|access| is_in_place(step, access)).collect();
        let scratch = step.scratch.is_some();
        Frame { name, machine, shapes, in_place, scratch, in_order }
    }

    fn inputs(&self) -> &[Shape] {
        &self.shapes[..self.shapes.len() - 1 - usize::from(self.scratch)]
    }

    fn result(&self) -> &Shape {
        &self.shapes[self.shapes.len() - 1]
    }

    fn shapes(&self) -> impl Iterator<Item = &Shape> {
        self.shapes.iter()
    }

    fn lanes(&self) -> i64 {
        i64::from(self.machine.lanes)
    }

    /// Whether the operand lies exactly where the result does.
    fn in_place(&self, operand: usize) -> bool {
        self.in_place[operand]
    }

    /// These axes of the result, for operands that have the same dimensions.
    fn levels(&self, axes: Range<usize>) -> impl Iterator<Item = Level> {
        axes.map(|axis| {
            let steps = self.shapes.iter().map(|shape| shape.strides[axis]).collect();
            Level::axis(self.result().dims[axis], steps)
        })
    }

    /// A builder with the operands, and pointers to their elements (0, 0, ..), in the order of the
    /// shapes.
    fn open(&self, extent: i64) -> (Builder, Vec<Value>) {
        let mut b = Builder::new(self.name, self.machine, extent);
        let pointers = self.operands(&mut b);
        (b, pointers)
    }

    /// Pointers to the elements (0, 0, ..) of the operands, in the order of the shapes, behind those that the kernel
    /// has already.
    fn operands(&self, b: &mut Builder) -> Vec<Value> {
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let (inputs, last) = (self.inputs().len(), self.shapes.len() - 1);
        let lowest: Vec<Value> = (self.shapes.iter().enumerate())
            .map(|(i, shape)| match i {
                _ if i == last => b.output("result", shape.bytes),
                _ if i >= inputs => b.output("scratch", shape.bytes),
                _ => b.input(NAMES.get(i).copied().unwrap_or("operand"), shape.bytes),
            })
            .collect();
        let first = |(pointer, shape): (Value, &Shape)| match shape.first {
            0 => pointer,
            first => b.offset(pointer, 1, first),
        };
        lowest.into_iter().zip(&self.shapes).map(first).collect()
    }

    /// The kernel, which does `work` operations on elements in all, and reaches all elements of its operands.
    fn close(&self, b: Builder, work: i64) -> KernelPlan {
        self.close_with(b, work, self.distinct(), 0)
    }

    /// The same, where the operand `fixed` is what no step writes.
    fn close_beside(&self, b: Builder, work: i64, fixed: usize) -> KernelPlan {
        let fixed = self.shapes[fixed].distinct();
        self.close_with(b, work, self.distinct() - fixed, fixed)
    }

    /// The kernel, which does `work` operations on elements in all, reaches so many bytes that steps write, and so many
    /// others.
    fn close_with(&self, b: Builder, work: i64, written: i64, fixed: i64) -> KernelPlan {
        // A microsecond, twice what it costs to share a loop: as many bytes come from a cache that is near.
        const WORTHWHILE: i64 = 1 << 15;
        const BYTES: i64 = 2;
        // What steps write is where the threads that shared the step before have written it, and will read it. One that
        // has it all to itself takes it from the others, some 10 bytes in a nanosecond, and they take it back.
        const FROM_OTHERS: i64 = 4;
        let kernel = b.finish();
        let extent = kernel.range.extent;
        let bytes = written.saturating_mul(FROM_OTHERS).saturating_add(fixed / BYTES);
        let each = (work.max(bytes) / extent.max(1)).max(1);
        KernelPlan { kernel, grain: (WORTHWHILE / each).clamp(1, extent.max(1)), work }
    }

    /// Bytes of the different elements of all operands.
    fn distinct(&self) -> i64 {
        self.shapes().map(Shape::distinct).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::Statement;
    use crate::lir::{Binary, Buffer, Contract, Expr, Reduction, Rows, Stage, Unary, Weights};
    use crate::types::Type;
    use cranelift_entity::EntityRef;

    fn access(buffer: usize, dtype: DType, dims: &[usize]) -> Access {
        Access::dense(Buffer::new(buffer), &Type::new(dtype, dims.to_vec()))
    }

    fn step(op: Op, operands: Vec<Access>, result: Access) -> StepInfo {
        StepInfo { op, operands, result, scratch: None, origins: vec![] }
    }

    fn sum(dtype: DType, buffers: [usize; 3]) -> StepInfo {
        let mut expr = Expr::new();
        let (x, y) = (expr.operand(0), expr.operand(1));
        expr.binary(Binary::Add, x, y);
        let rows = Rows { stages: vec![Stage { expr, reduce: None }], width: 40 };
        let [x, y, result] = buffers.map(|b| access(b, dtype, &[3, 40]));
        step(Op::Rows(rows), vec![x, y], result)
    }

    fn plan(step: &StepInfo) -> KernelPlan {
        build(&[step], &Machine::AVX512, "k").expect("it is supported")
    }

    #[test]
    fn keys_tell_kernels_apart() {
        let one = sum(DType::F32, [0, 1, 2]);
        let key = |step: &StepInfo| key(&[step]);
        assert_eq!(key(&one), key(&sum(DType::F32, [5, 1, 7])));
        assert_ne!(key(&one), key(&sum(DType::I32, [0, 1, 2])));
        assert_ne!(key(&one), key(&sum(DType::F32, [0, 1, 0])));
        let kernels = [one, sum(DType::F32, [5, 1, 7])].map(|s| plan(&s).kernel.to_string());
        assert_eq!(kernels[0], kernels[1]);
    }

    #[test]
    fn types_choose_the_machine() {
        for (dtype, lanes) in
            [(DType::F32, 16), (DType::I32, 16), (DType::U8, 16), (DType::F64, 8), (DType::I64, 1)]
        {
            assert_eq!(plan(&sum(dtype, [0, 1, 2])).kernel.machine.lanes, lanes, "{dtype}");
        }
    }

    #[test]
    fn nothing_is_done_for_empty_results() {
        let empty = access(0, DType::F32, &[0, 4]);
        let plan =
            plan(&step(Op::Move, vec![empty.clone()], Access { buffer: Buffer::new(1), ..empty }));
        assert_eq!((plan.kernel.range.extent, plan.kernel.body.len()), (0, 0));
    }

    #[test]
    fn sums_of_nothing() {
        let operands = vec![access(0, DType::F32, &[3, 0]), access(1, DType::F32, &[0, 20])];
        let op = Op::Contract(Contract::of(Weights::Plain));
        plan(&step(op, operands, access(2, DType::F32, &[3, 20])));
        let op = Op::Reduce { op: Reduction::Max, axes: vec![1] };
        plan(&step(op, vec![access(0, DType::F32, &[3, 0])], access(1, DType::F32, &[3, 1])));
    }

    #[test]
    fn longer_steps_are_finer_shared() {
        let step = |rows, width| {
            let operands =
                vec![access(0, DType::F32, &[rows, width]), access(1, DType::F32, &[width, width])];
            let op = Op::Contract(Contract::of(Weights::Plain));
            plan(&step(op, operands, access(2, DType::F32, &[rows, width])))
        };
        assert_eq!(step(512, 512).grain, 1);
        let small = step(1, 128);
        assert!(small.grain >= small.kernel.range.extent / 2, "{}", small.grain);
        // A vector times a matrix takes as long as the matrix is on its way.
        assert!(step(1, 512).grain <= 8, "{}", step(1, 512).grain);
    }

    /// A program whose last stage reads `x` again after `exp` was computed.
    fn exponentials(in_place: bool) -> Kernel {
        let mut exp = Expr::new();
        let x = exp.operand(0);
        exp.unary(Unary::Exp, x);
        let mut all = Expr::new();
        all.operand(1);
        let mut last = Expr::new();
        let (x, e, sum) = (last.operand(0), last.operand(1), last.operand(2));
        let quotient = last.binary(Binary::Div, e, sum);
        last.binary(Binary::Mul, quotient, x);
        let stage = |expr, reduce| Stage { expr, reduce };
        let stages = vec![stage(exp, None), stage(all, Some(Reduction::Sum)), stage(last, None)];
        let x = access(0, DType::F32, &[2, 400]);
        let result = access(if in_place { 0 } else { 1 }, DType::F32, &[2, 400]);
        plan(&step(Op::Rows(Rows { stages, width: 400 }), vec![x], result)).kernel
    }

    #[test]
    fn what_is_kept_overwrites_nothing_that_is_read() {
        fn stores(block: &[Statement]) -> usize {
            block
                .iter()
                .map(|statement| match statement {
                    Statement::Store { .. } => 1,
                    Statement::Loop(l) => stores(&l.body),
                    Statement::Let(..) | Statement::Prefetch(_) => 0,
                })
                .sum()
        }
        let [apart, in_place] = [false, true].map(|i| stores(&exponentials(i).body));
        assert!(in_place < apart, "{in_place} and {apart}");
    }
}
