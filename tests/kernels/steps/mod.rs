//! Steps of every kind, with random shapes, layouts and types: their kernels against MIR's definition.

mod draw;
mod products;

use crate::cases::Case;
use crate::data::{Data, Tolerance};
use cranelift_entity::EntityRef;
use draw::*;
use products::*;
use rlx_aot::kernels;
use rlx_aot::kir::{Kernel, Memory};
use rlx_aot::lir::{Access, Buffer, Op, StepInfo};
use rlx_aot::machine::Machine;
use rlx_aot::mir::expr::{Binary, Comparison, Expr, Literal, Unary};
use rlx_aot::mir::nibbles::{self, Blocks};
use rlx_aot::mir::{self, Contract, Conv, Pool, Reduction, Rows, Stage, Weights, windows};
use rlx_aot::mir::{Attention, Filter, Scalar, Scan, Side, Span, Winograd, quads};
use rlx_aot::tensor::Tensor;
use rlx_aot::types::{DType, Type};

/// So many random steps; see `Target::converts`.
pub(crate) fn cases(count: u64, converts: bool) -> Vec<Case> {
    let of_bytes = (0..count / 6).map(|seed| case_of_bytes(seed, converts));
    let abreast = (0..count / 6).map(case_abreast);
    let depthwise = (0..count / 24).map(case_depthwise);
    (0..count).map(case).chain(of_bytes).chain(abreast).chain(depthwise).collect()
}

/// What one step is tested with.
struct Trial {
    op: Op,
    mir: mir::Op,
    operands: Vec<Placed>,
    ty: Type,
    tolerance: Tolerance,
    /// The layout of the result, if it is not any.
    result: Option<Access>,
}

fn map(r: &mut Random) -> Trial {
    let rank = 1 + r.below(4);
    let dims = r.dims(rank, 2000);
    let types: Vec<DType> = (0..1 + r.below(3)).map(|_| dtype(r)).collect();
    let operands: Vec<Placed> =
        types.iter().enumerate().map(|(i, &ty)| broadcast(r, i, ty, &dims)).collect();
    let to = if r.chance(70) { types[0] } else { dtype(r) };
    let expr = expression(r, &types, to);
    let rows =
        Rows { stages: vec![Stage { expr: expr.clone(), reduce: None }], width: dims[rank - 1] };
    Trial {
        op: Op::Rows(rows),
        mir: mir::Op::Map(expr),
        operands,
        ty: Type::new(to, dims),
        tolerance: Tolerance::Relative(1e-5),
        result: None,
    }
}

/// A softmax of the first of so many operands.
fn softmax(operands: usize) -> [Stage; 4] {
    let first = Stage { expr: Expr::identity(), reduce: Some(Reduction::Max) };
    let mut e = Expr::new();
    let (x, max) = (e.operand(0), e.operand(operands));
    let d = e.binary(Binary::Sub, x, max);
    let _ = e.unary(Unary::Exp, d);
    let exp = Stage { expr: e, reduce: None };
    let mut e = Expr::new();
    e.operand(operands + 1);
    let sum = Stage { expr: e, reduce: Some(Reduction::Sum) };
    let mut e = Expr::new();
    let (x, sum_of) = (e.operand(operands + 1), e.operand(operands + 2));
    let _ = e.binary(Binary::Div, x, sum_of);
    [first, exp, sum, Stage { expr: e, reduce: None }]
}

fn rows(r: &mut Random) -> Trial {
    let rank = 1 + r.below(3);
    let mut dims = r.dims(rank, 2000);
    if r.chance(30) {
        dims[rank - 1] = r.pick(&[100, 127, 384]);
    } else if rank > 1 && r.chance(40) {
        // Many short rows.
        (dims[rank - 2], dims[rank - 1]) = (5 + r.below(60), 1 + r.below(33));
    }
    let others = [DType::F64, DType::F64, DType::I32, DType::I64];
    let ty = if r.chance(75) { DType::F32 } else { r.pick(&others) };
    let count = 1 + r.below(2);
    let operands: Vec<Placed> = (0..count).map(|i| broadcast(r, i, ty, &dims)).collect();
    let mut types = vec![ty; count];
    let mut stages = vec![];
    if ty == DType::F32 && r.chance(40) {
        stages.extend(softmax(count));
    } else {
        for _ in 0..1 + r.below(4) {
            let expr = expression(r, &types, ty);
            let reduce =
                r.chance(50).then(|| r.pick(&[Reduction::Sum, Reduction::Max, Reduction::Min]));
            stages.push(Stage { expr, reduce });
            types.push(ty);
        }
    }
    let width = dims[rank - 1];
    let mut result = dims.clone();
    if stages[stages.len() - 1].reduce.is_some() {
        result[rank - 1] = 1;
    }
    let rows = Rows { stages, width };
    Trial {
        op: Op::Rows(rows.clone()),
        mir: mir::Op::Rows(rows),
        operands,
        ty: Type::new(ty, result),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

fn reduce(r: &mut Random) -> Trial {
    let rank = 1 + r.below(4);
    let dims = r.dims(rank, 3000);
    let mut axes: Vec<usize> = (0..rank).filter(|_| r.chance(50)).collect();
    if axes.is_empty() {
        axes.push(r.below(rank));
    }
    let ty = dtype(r);
    let mut result = dims.clone();
    axes.iter().for_each(|&axis| result[axis] = 1);
    let mut op = r.pick(&[Reduction::Sum, Reduction::Max, Reduction::Min, Reduction::Product]);
    if ty.is_float() && ty.bytes() == 2 && op == Reduction::Product {
        // Rounded once by the definition.
        op = Reduction::Sum;
    }
    let x = tensor(r, ty, &dims);
    Trial {
        op: Op::Reduce { op, axes: axes.clone() },
        mir: mir::Op::Reduce { op, axes },
        operands: vec![place(r, 0, x)],
        ty: Type::new(ty, result),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

fn arg_reduce(r: &mut Random) -> Trial {
    let rank = 1 + r.below(3);
    let mut dims = r.dims(rank, 1000);
    let (axis, largest, last) = (r.below(rank), r.chance(50), r.chance(30));
    let mut ty = dtype(r);
    if rank > 1 && r.chance(40) {
        // Many rows, in either order.
        ty = DType::F32;
        (dims[rank - 2], dims[rank - 1]) = (1 + r.below(70), 1 + r.below(40));
    }
    let mut result = dims.clone();
    result[axis] = 1;
    let x = tensor(r, ty, &dims);
    Trial {
        op: Op::ArgReduce { largest, axis, last },
        mir: mir::Op::ArgReduce { largest, axis, last },
        operands: vec![place(r, 0, x)],
        ty: Type::new(DType::I64, result),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

fn pool(r: &mut Random) -> Trial {
    let ty = dtype(r);
    let spatial = 1 + r.below(2);
    let window: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 2, 3, 5])).collect();
    let strides: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 2, 3])).collect();
    let dilations: Vec<usize> = (0..spatial).map(|_| r.pick(&[1, 1, 2])).collect();
    let extents: Vec<usize> =
        (0..spatial).map(|i| (window[i] - 1) * dilations[i] + 1 + r.below(5)).collect();
    let (n, c) = (1 + r.below(2), r.extent());
    let outputs: Vec<usize> =
        (0..spatial).map(|i| windows(extents[i], window[i], strides[i], dilations[i])).collect();
    let x = tensor(r, ty, &[&[n][..], &extents, &[c]].concat());
    let op = r.pick(&[Reduction::Sum, Reduction::Max, Reduction::Min]);
    let pool = Pool { op, window, strides, dilations };
    Trial {
        op: Op::Pool(pool.clone()),
        mir: mir::Op::Pool(pool),
        operands: vec![place(r, 0, x)],
        ty: Type::new(ty, [&[n][..], &outputs, &[c]].concat()),
        tolerance: Tolerance::Relative(1e-4),
        result: None,
    }
}

fn gather(r: &mut Random) -> Trial {
    let ty = dtype(r);
    let rank = 1 + r.below(3);
    let dims = r.dims(rank, 500);
    let axis = r.below(rank);
    let places: Vec<usize> = (0..r.below(3)).map(|_| 1 + r.below(4)).collect();
    let count: usize = places.iter().product();
    let indices: Vec<f64> = (0..count).map(|_| r.below(60) as f64 - 30.0).collect();
    let index_type = r.pick(&[DType::I32, DType::I64]);
    let indices = Tensor::from_f64s(Type::new(index_type, places.clone()), indices);
    let result = [&dims[..axis], &places, &dims[axis + 1..]].concat();
    let data = tensor(r, ty, &dims);
    Trial {
        op: Op::Gather { axis, known: None },
        mir: mir::Op::Gather { axis },
        operands: vec![place(r, 0, data), place(r, 1, indices)],
        ty: Type::new(ty, result),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

/// Rows in an order that the kernel knows: any, or of neighbours.
fn pick(r: &mut Random) -> Trial {
    let ty = dtype(r);
    let (outer, extent) = (1 + r.below(5), r.pick(&[1, 3, 16, 31, 64, 100, 200]));
    let count = r.pick(&[1, 2, 7, 16, 33, 50, 120]);
    let (near, scale) = (r.chance(60), r.pick(&[1, 2, 3]));
    let known: Vec<u32> = (0..count)
        .map(|i| match near {
            true => (i * scale / 2).min(extent - 1) as u32,
            false => r.below(extent) as u32,
        })
        .collect();
    let places =
        if count.is_multiple_of(2) && r.chance(20) { vec![2, count / 2] } else { vec![count] };
    let indices = known.iter().map(|&place| f64::from(place));
    let indices = Tensor::from_f64s(Type::new(DType::I64, places.clone()), indices);
    let data = tensor(r, ty, &[outer, extent]);
    Trial {
        op: Op::Gather { axis: 1, known: Some(known) },
        mir: mir::Op::Gather { axis: 1 },
        operands: vec![place(r, 0, data), place(r, 1, indices)],
        ty: Type::new(ty, [&[outer], &places[..]].concat()),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

/// Running sums and products, of few elements so that they stay small.
fn scan(r: &mut Random) -> Trial {
    let mut ty = dtype(r);
    if ty == DType::Bool || ty.bytes() == 2 {
        ty = DType::F32;
    }
    let rank = 1 + r.below(3);
    let mut dims = r.dims(rank, 2000);
    if r.chance(30) {
        dims[rank - 1] = r.pick(&[1, 7, 16, 17, 50, 130]);
    }
    let axis = r.below(rank);
    let op = r.pick(&[Reduction::Sum, Reduction::Sum, Reduction::Product, Reduction::Max]);
    let scan = Scan { op, axis, reverse: r.chance(40), exclusive: r.chance(40) };
    let x = match op {
        // Exact.
        Reduction::Product => {
            let values = (0..dims.iter().product()).map(|_| r.pick(&[1.0, 1.0, -1.0, 0.5]));
            let values: Vec<f64> = values.collect();
            Tensor::from_f64s(Type::new(ty, dims.clone()), values)
        }
        _ => tensor(r, ty, &dims),
    };
    Trial {
        op: Op::Scan(scan.clone()),
        mir: mir::Op::Scan(scan),
        operands: vec![place(r, 0, x)],
        ty: Type::new(ty, dims),
        tolerance: Tolerance::Relative(1e-5),
        result: None,
    }
}

fn scatter(r: &mut Random) -> Trial {
    let ops = [
        None,
        Some(Reduction::Sum),
        Some(Reduction::Product),
        Some(Reduction::Max),
        Some(Reduction::Min),
    ];
    let mut ty = dtype(r);
    let op = if ty == DType::Bool { None } else { r.pick(&ops) };
    if ty.is_float() && ty.bytes() == 2 && op.is_some() {
        // Rounded once by the definition where sums are exact.
        ty = DType::F32;
    }
    let rank = 1 + r.below(3);
    let mut dims = r.dims(rank, 500);
    if r.chance(20) {
        dims.push(r.pick(&[130, 1024, 1100]));
    }
    let places: Vec<usize> = (0..r.below(3)).map(|_| 1 + r.below(4)).collect();
    let count: usize = places.iter().product();
    let indices: Vec<f64> = (0..count).map(|_| r.below(12) as f64 - 6.0).collect();
    let index_type = r.pick(&[DType::I32, DType::I64]);
    let indices = Tensor::from_f64s(Type::new(index_type, places.clone()), indices);
    let (data, updates) = (tensor(r, ty, &dims), [&places[..], &dims[1..]].concat());
    let updates = tensor(r, ty, &updates);
    Trial {
        op: Op::Scatter { op },
        mir: mir::Op::Scatter { op },
        operands: vec![place(r, 0, data), place(r, 1, indices), place(r, 2, updates)],
        ty: Type::new(ty, dims),
        tolerance: Tolerance::Relative(1e-5),
        result: None,
    }
}

fn sort(r: &mut Random) -> Trial {
    let rank = 1 + r.below(3);
    let mut dims = r.dims(rank, 300);
    dims[rank - 1] = r.pick(&[1, 2, 5, 16, 31, 32, 33, 64, 100, 129, 300]);
    if rank > 1 && r.chance(40) {
        // Many rows.
        (dims[rank - 2], dims[rank - 1]) = (1 + r.below(40), 1 + r.below(20));
    } else if r.chance(15) {
        dims = vec![r.pick(&[700, 1500, 2111])];
    }
    let (rank, width) = (dims.len(), dims[dims.len() - 1]);
    let (ty, largest) = (dtype(r), r.chance(50));
    let most = r.pick(&[3, 8, 80]);
    let count = if r.chance(20) { width } else { 1 + r.below(width.min(most)) };
    let x = tensor(r, ty, &dims);
    dims[rank - 1] = count;
    Trial {
        op: Op::Sort { largest, count },
        mir: mir::Op::Sort { largest, count },
        operands: vec![place(r, 0, x)],
        ty: Type::new(DType::I64, dims),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

/// Rows whose elements, or short runs of them, lie in turn, in the operand or in the result.
fn weave(r: &mut Random) -> Trial {
    let ty = dtype(r);
    let (outer, rows) = (1 + r.below(3), r.pick(&[2, 3, 4, 5, 6, 7, 8, 9, 12, 20]));
    let (columns, run) = (r.pick(&[1, 5, 16, 31, 33, 40]), r.pick(&[1, 1, 1, 2, 3, 4, 8]));
    let dims = [outer, rows, columns, run];
    let x = tensor(r, ty, &dims);
    let [mut turns, apart] =
        [0, 1].map(|buffer| Access::dense(Buffer::new(buffer), &Type::new(ty, dims.to_vec())));
    turns.strides = [rows * columns * run, run, rows * run, 1].map(|step| step as i64)[..].into();
    let (access, result) = match r.chance(50) {
        true => (turns, None),
        false => (apart, Some(Access { buffer: Buffer::new(1), ..turns })),
    };
    Trial {
        op: Op::Move,
        mir: mir::Op::Broadcast,
        operands: vec![Placed { tensor: x, access: Access { buffer: Buffer::new(0), ..access } }],
        ty: Type::new(ty, dims.to_vec()),
        tolerance: Tolerance::Exact,
        result,
    }
}

/// Every n-th element, or short run, in either direction.
fn apart(r: &mut Random) -> Trial {
    let ty = dtype(r);
    let (outer, columns) = (1 + r.below(3), r.pick(&[2, 5, 16, 31, 33, 70, 130]));
    let (run, step) =
        (r.pick(&[1, 1, 1, 2, 4]), r.pick(&[0i64, 1, 2, 3, 4, 5, 8, 9, -1, -2, -3, -8]));
    let dims = [outer, columns, run];
    let row = (columns as i64 - 1) * step.abs() + run as i64;
    let access = Access {
        buffer: Buffer::new(0),
        dtype: ty,
        dims: dims[..].into(),
        strides: [row, step, 1][..].into(),
        offset: if step < 0 { -step * (columns as i64 - 1) } else { 0 },
    };
    let mut x = tensor(r, ty, &dims);
    // What lies in one place is the same.
    if step.abs() < run as i64 {
        x = tensor(r, ty, &[1]);
        let all = x.bytes().repeat(dims.iter().product());
        x = Tensor::from_bytes(Type::new(ty, dims.to_vec()), all.into()).expect("as many bytes");
    }
    Trial {
        op: Op::Move,
        mir: mir::Op::Broadcast,
        operands: vec![Placed { tensor: x, access }],
        ty: Type::new(ty, dims.to_vec()),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

fn copy(r: &mut Random) -> Trial {
    if r.chance(30) {
        return weave(r);
    }
    if r.chance(30) {
        return apart(r);
    }
    let ty = dtype(r);
    let rank = r.below(5);
    let dims = r.dims(rank, 3000);
    let x = broadcast(r, 0, ty, &dims);
    Trial {
        op: Op::Move,
        mir: mir::Op::Broadcast,
        operands: vec![x],
        ty: Type::new(ty, dims),
        tolerance: Tolerance::Exact,
        result: None,
    }
}

fn fill(r: &mut Random) -> Trial {
    let ty = dtype(r);
    let rank = r.below(4);
    let dims = r.dims(rank, 2000);
    let literal = Literal::from_f64(ty, r.pick(&[0.0, 1.0, 3.0]));
    let all = Type::new(ty, dims.clone());
    let values = vec![literal.f64(); all.elements()];
    Trial {
        op: Op::Fill(literal),
        mir: mir::Op::Constant(Tensor::from_f64s(all.clone(), values)),
        operands: vec![],
        ty: all,
        tolerance: Tolerance::Exact,
        result: None,
    }
}

fn memory(dtype: DType) -> Memory {
    match dtype {
        DType::F32 => Memory::F32,
        DType::F64 => Memory::F64,
        DType::I8 => Memory::I8,
        DType::I16 => Memory::I16,
        DType::I32 => Memory::I32,
        DType::I64 | DType::U64 => Memory::I64,
        DType::U8 | DType::Bool => Memory::U8,
        DType::U16 | DType::F16 | DType::BF16 => Memory::U16,
        DType::U32 => Memory::U32,
    }
}

/// Calls `f` with the flat index of every element of an access, from its lowest one, in row-major
/// order of its dimensions.
fn elements(access: &Access) -> Vec<usize> {
    let Some((low, _)) = access.span() else { return vec![] };
    let mut all = vec![access.offset - low];
    for (&extent, &stride) in access.dims.iter().zip(&access.strides) {
        all = all.iter().flat_map(|&at| (0..extent as i64).map(move |i| at + i * stride)).collect();
    }
    all.into_iter()
        .map(|at| usize::try_from(at).expect("the span's low end is the lowest"))
        .collect()
}

/// What memory holds from the lowest to the highest element of an access.
fn spread(access: &Access, tensor: Option<&Tensor>) -> Data {
    let kind = memory(access.dtype);
    let count = access.span().map_or(0, |(low, high)| high - low + 1) as usize;
    let mut data = Data::unset(kind, count);
    if let Some(tensor) = tensor {
        for (i, at) in elements(access).into_iter().enumerate() {
            match &mut data {
                Data::Floats(_, values) => values[at] = tensor.f64_at(i),
                Data::Integers(_, values) if access.dtype.is_float() => {
                    let bytes = tensor.element(i);
                    values[at] = i64::from(u16::from_le_bytes([bytes[0], bytes[1]]));
                }
                Data::Integers(_, values) => values[at] = tensor.int_at(i),
            }
        }
    }
    data
}

fn case(seed: u64) -> Case {
    let mut r = Random(seed);
    let kinds = [map, rows, reduce, arg_reduce, contract, conv, pool, gather, copy, fill];
    let kinds = [&kinds[..], &[map, rows, contract, contract, conv, winograd]].concat();
    let kinds = [&kinds[..], &[attention, attention, scatter, sort, sort]].concat();
    let kinds = [&kinds[..], &[copy, copy, pick, pick, scan, scan, scan]].concat();
    let kinds = [&kinds[..], &[contract_in_blocks]].concat();
    let trial = kinds[seed as usize % kinds.len()](&mut r);
    tried(seed, trial, r)
}

fn case_of_bytes(seed: u64, converts: bool) -> Case {
    let mut r = Random(seed);
    let kinds = [contract_of_bytes, conv_of_bytes];
    let trial = kinds[seed as usize % kinds.len()](&mut r, converts);
    tried(seed, trial, r)
}

fn case_depthwise(seed: u64) -> Case {
    let mut r = Random(seed);
    let trial = depthwise(&mut r);
    tried(seed, trial, r)
}

/// Two products side by side; the second one alone where the machine has no kernel for both.
fn case_abreast(seed: u64) -> Case {
    let steps = move |machine: Machine| -> Vec<Step> {
        let mut r = Random(seed);
        let lanes = machine.lanes as usize;
        let (rows, vectors) = (1 + r.below(8), r.pick(&[1, 2, 3, 4, 8]));
        let width = lanes * if r.chance(20) { 2 } else { 1 };
        let rider = panelled(&mut r, rows, width).step(&mut r);
        let carrier = panelled(&mut r, 1, lanes * vectors).step(&mut r);
        match kernels::abreast([&rider.info, &carrier.info], &machine) {
            true => vec![rider, carrier],
            false => vec![carrier],
        }
    };
    let kernel = move |machine: Machine| -> Kernel {
        let steps = steps(machine);
        let infos: Vec<&StepInfo> = steps.iter().map(|step| &step.info).collect();
        match kernels::build(&infos, &machine, "steps") {
            Ok(plan) => plan.kernel,
            Err(error) => panic!("{error:?}: {infos:?}"),
        }
    };
    let operands = move |step: Step| [step.data, vec![spread(&step.info.result, None)]].concat();
    Case {
        name: format!("steps {seed} abreast"),
        scalar: false,
        doubles: false,
        kernel: Box::new(kernel),
        operands: Box::new(move |machine| steps(machine).into_iter().flat_map(operands).collect()),
        expected: Box::new(move |machine| {
            steps(machine).into_iter().map(|step| step.expected).collect()
        }),
        tolerance: Tolerance::Relative(1e-4),
        tight: false,
    }
}

/// A step with what its operands hold, and what its result is to hold.
struct Step {
    info: StepInfo,
    data: Vec<Data>,
    expected: Data,
}

fn tried(seed: u64, trial: Trial, mut r: Random) -> Case {
    let tolerance = trial.tolerance;
    let Step { info, data, expected } = trial.step(&mut r);
    let name = format!("step {seed}: {:?}", info.op);
    let operands = [data, vec![spread(&info.result, None)]].concat();
    let kernel = move |machine: Machine| -> Kernel {
        match kernels::build(&[&info], &machine, "step") {
            Ok(plan) => plan.kernel,
            Err(error) => panic!("{error:?}: {info:?}"),
        }
    };
    Case {
        name,
        scalar: false,
        doubles: false,
        kernel: Box::new(kernel),
        operands: Box::new(move |_| operands.clone()),
        expected: Box::new(move |_| vec![expected.clone()]),
        tolerance,
        tight: false,
    }
}

impl Trial {
    fn step(self, r: &mut Random) -> Step {
        let trial = self;
        let tensors: Vec<&Tensor> = trial.operands.iter().map(|o| &o.tensor).collect();
        let expected = mir::eval::op(&trial.mir, &tensors, &trial.ty);
        let count = trial.operands.len();
        let result =
            trial.result.unwrap_or_else(|| layout(r, count, trial.ty.dtype, &trial.ty.dims, false));
        // A tensor that is broadcast has the elements of its repeated access.
        let data: Vec<Data> = (trial.operands.iter())
            .map(|placed| {
                let full = Type::new(placed.tensor.ty().dtype, &placed.access.dims[..]);
                let full = mir::eval::op(&mir::Op::Broadcast, &[&placed.tensor], &full);
                spread(&placed.access, Some(&full))
            })
            .collect();
        let types: Vec<Type> = trial.operands.iter().map(|o| o.access.ty()).collect();
        let scratch = trial.op.scratch(&types, &trial.ty.dims);
        let scratch =
            scratch.map(|dims| Access::dense(Buffer::new(count + 1), &Type::new(DType::F32, dims)));
        let working = scratch.iter().map(|access| spread(access, None));
        let data: Vec<Data> = data.into_iter().chain(working).collect();
        let info = StepInfo {
            op: trial.op,
            operands: trial.operands.into_iter().map(|placed| placed.access).collect(),
            result,
            scratch,
            origins: vec![],
        };
        let expected = spread(&info.result, Some(&expected));
        Step { info, data, expected }
    }
}
