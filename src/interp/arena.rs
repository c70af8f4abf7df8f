//! Runs a planned program over the bytes of one arena, each step by its definition.
//!
//! The arena is filled with 0xFF first (a NaN as a float), and every byte knows which buffer was
//! written there last, so that a read of bytes that are stale, unwritten or someone else's is an
//! error and no wrong number.

use crate::error::ErrorKind;
use crate::lir::liveness::ranges;
use crate::lir::{Access, Buffer, BufferKind, CONTEXT_BYTES, Module, Op, Port, StepInfo};
use crate::mir;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// The outputs for these inputs and parameters, all in the order of [`Module::io`].
///
/// # Errors
///
/// Tensors that do not fit the ports; a program that reads what it did not write (our bug).
pub fn run(
    module: &Module,
    inputs: &[Tensor],
    parameters: &[Tensor],
) -> Result<Vec<Tensor>, ErrorKind> {
    Session::new(module, parameters)?.run(inputs)
}

/// Runs that follow each other over one arena. Between them everything is poisoned that the plan does
/// not promise to keep.
#[derive(Debug)]
pub struct Session<'a> {
    arena: Arena<'a>,
    /// Whether the prologue has run.
    prepared: bool,
}

impl<'a> Session<'a> {
    /// An arena with these parameters.
    ///
    /// # Errors
    ///
    /// Tensors that do not fit the ports.
    pub fn new(module: &'a Module, parameters: &[Tensor]) -> Result<Session<'a>, ErrorKind> {
        let mut arena = Arena::new(module)?;
        arena.set("parameter", &module.io.parameters, parameters)?;
        Ok(Session { arena, prepared: false })
    }

    /// The outputs for these inputs, states set too; before the first run, the prologue is run.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, ErrorKind> {
        self.arena.set("input", &self.arena.module.io.inputs, inputs)?;
        self.run_as_set()
    }

    /// The outputs for these inputs, which are those that are no states; states are as the last run left them,
    /// zero before the first.
    ///
    /// # Errors
    ///
    /// As [`run`].
    pub fn next(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, ErrorKind> {
        let io = &self.arena.module.io;
        let fed = |(index, port): (usize, &Port)| {
            let state = io.states.iter().any(|state| state.input == index);
            (!state).then(|| port.clone())
        };
        let ports: Vec<Port> = io.inputs.iter().enumerate().filter_map(fed).collect();
        self.arena.set("input", &ports, inputs)?;
        self.run_as_set()
    }

    fn run_as_set(&mut self) -> Result<Vec<Tensor>, ErrorKind> {
        let module = self.arena.module;
        self.arena.forget();
        let done = if self.prepared { module.plan.prologue } else { 0 };
        for (step, info) in module.steps.iter().skip(done) {
            self.arena.step(info).map_err(|e| ErrorKind::bug(format!("{step}: {}", e.message)))?;
        }
        self.prepared = true;
        module.io.outputs.iter().map(|port| self.arena.read(&port_access(port))).collect()
    }
}

/// In so many parts a result is written that lies over an operand, if it has as many rows.
const PARTS: usize = 8;

fn port_access(port: &Port) -> Access {
    Access::dense(port.buffer, &port.ty)
}

#[derive(Debug)]
struct Arena<'a> {
    module: &'a Module,
    /// The arena, and behind it the second memory and what is outside.
    bytes: Vec<u8>,
    /// Where what is outside begins in `bytes`.
    outside: BTreeMap<Buffer, u64>,
    /// For each byte of the arena, the buffer that was written there last.
    owners: Vec<Option<Buffer>>,
}

impl<'a> Arena<'a> {
    fn new(module: &'a Module) -> Result<Arena<'a>, ErrorKind> {
        let size = module.plan.arena_size.saturating_add(module.plan.fast_size);
        let mut outside = BTreeMap::new();
        let mut size = size;
        for &buffer in module.plan.pointers.keys() {
            outside.insert(buffer, size);
            size = size.saturating_add(module.buffers[buffer].bytes);
        }
        let size = usize::try_from(size)
            .map_err(|_| ErrorKind::limit("the arena does not fit in this machine's memory"))?;
        let mut arena =
            Arena { module, bytes: vec![0xff; size], outside, owners: vec![None; size] };
        let context = size.min(CONTEXT_BYTES as usize);
        arena.bytes[..context].fill(0);
        for state in &module.io.states {
            let port = module.io.inputs.get(state.input);
            let port = port.ok_or_else(|| ErrorKind::bug("a state of no input"))?;
            arena.write(&port_access(port), &Tensor::zeros(port.ty.clone()))?;
        }
        if module.plan.weights_slot.is_some() {
            for (buffer, info) in &module.buffers {
                if let BufferKind::Constant(tensor) = &info.kind {
                    arena.write(&Access::dense(buffer, tensor.ty()), tensor)?;
                }
            }
        }
        Ok(arena)
    }

    /// Poisons what is not alive from the start of a run to its end.
    fn forget(&mut self) {
        let ranges = ranges(self.module);
        let stays = |buffer: Buffer| match self.module.buffers[buffer].kind {
            BufferKind::Constant(_) => true,
            BufferKind::Input
            | BufferKind::Parameter
            | BufferKind::Output
            | BufferKind::State
            | BufferKind::Temporary => ranges[buffer].is_some_and(|range| range.first == 0),
        };
        for (byte, owner) in self.bytes.iter_mut().zip(&mut self.owners) {
            if owner.is_some_and(|buffer| !stays(buffer)) {
                (*byte, *owner) = (0xff, None);
            }
        }
    }

    fn set(&mut self, what: &str, ports: &[Port], tensors: &[Tensor]) -> Result<(), ErrorKind> {
        if ports.len() != tensors.len() {
            let (asked, given) = (ports.len(), tensors.len());
            return Err(ErrorKind::wrong(format!("{given} {what}s are given for {asked}")));
        }
        for (port, tensor) in ports.iter().zip(tensors) {
            if port.ty != *tensor.ty() {
                let (name, asked, given) = (&port.name, &port.ty, tensor.ty());
                return Err(ErrorKind::wrong(format!("{what} \"{name}\" is {asked}, not {given}")));
            }
            self.write(&port_access(port), tensor)?;
        }
        Ok(())
    }

    /// A result that lies over an operand is written part by part, each from what is there by then.
    fn step(&mut self, info: &StepInfo) -> Result<(), ErrorKind> {
        if !info.is_over() {
            let result = self.result(info)?;
            return self.write(&info.result, &result);
        }
        let (rank, dims) = (info.result.dims.len(), &info.result.dims);
        let axis = (0..rank.saturating_sub(1)).find(|&axis| dims[axis] > 1).unwrap_or(0);
        let rows = dims.get(axis).copied().unwrap_or(1);
        let whole = Access::dense(info.result.buffer, &info.result.ty());
        for part in 0..PARTS.min(rows) {
            let [from, to] = [part, part + 1].map(|part| part * rows / PARTS.min(rows));
            let (mut starts, mut dims) = (vec![0; rank], dims.clone());
            if rank > 0 {
                (starts[axis], dims[axis]) = (from, to - from);
            }
            let [at, of] =
                [&info.result, &whole].map(|access| access.sliced(&starts, &vec![1; rank], &dims));
            let result = self.result(info)?.strided(&dims[..], of.offset, &of.strides);
            self.write(&at, &result)?;
        }
        Ok(())
    }

    fn result(&mut self, info: &StepInfo) -> Result<Tensor, ErrorKind> {
        let operands = info.operands.iter().map(|access| self.read(access));
        let operands = operands.collect::<Result<Vec<Tensor>, ErrorKind>>()?;
        let ty = info.result.ty();
        let by_definition = |op: mir::Op| {
            let operands: Vec<&Tensor> = operands.iter().collect();
            mir::eval::op(&op, &operands, &ty)
        };
        let result = match &info.op {
            Op::Rows(rows) => by_definition(mir::Op::Rows(rows.clone())),
            Op::Reduce { op, axes } => {
                by_definition(mir::Op::Reduce { op: *op, axes: axes.clone() })
            }
            Op::ArgReduce { largest, axis, last } => {
                by_definition(mir::Op::ArgReduce { largest: *largest, axis: *axis, last: *last })
            }
            Op::Contract(contract) => by_definition(mir::Op::Contract(contract.clone())),
            Op::Attention(attention) => by_definition(mir::Op::Attention(attention.clone())),
            Op::Conv(conv) => by_definition(mir::Op::Conv(conv.clone())),
            Op::Winograd(winograd) => by_definition(mir::Op::Winograd(winograd.clone())),
            Op::Pool(pool) => by_definition(mir::Op::Pool(pool.clone())),
            Op::Gather { axis, .. } => by_definition(mir::Op::Gather { axis: *axis }),
            Op::Scatter { op } => by_definition(mir::Op::Scatter { op: *op }),
            Op::Sort { largest, count } => {
                by_definition(mir::Op::Sort { largest: *largest, count: *count })
            }
            Op::Scan(scan) => by_definition(mir::Op::Scan(scan.clone())),
            Op::Move => operands[0].clone(),
            Op::Fill(literal) => {
                let bytes = literal.bytes().repeat(ty.elements());
                Tensor::from_bytes(ty, bytes.into())
                    .ok_or_else(|| ErrorKind::bug("a literal of another type"))?
            }
        };
        if let Some(scratch) = &info.scratch {
            let ty = scratch.ty();
            let garbage = Tensor::from_bytes(ty.clone(), vec![0xff; ty.bytes()].into());
            self.write(
                scratch,
                &garbage.ok_or_else(|| ErrorKind::bug("a scratch of other size"))?,
            )?;
        }
        Ok(result)
    }

    /// The first byte of a buffer in the arena.
    fn slot(&self, buffer: Buffer) -> Option<u64> {
        let plan = &self.module.plan;
        match self.module.buffers[buffer].kind {
            BufferKind::Constant(_) => Some(plan.weights_slot? + plan.weights.get(&buffer)?),
            _ => match plan.fast.get(&buffer) {
                Some(offset) => plan.arena_size.checked_add(*offset),
                None => self.outside.get(&buffer).or(plan.slots.get(&buffer)).copied(),
            },
        }
    }

    /// Calls `visit` with the bytes' range in the arena for each element.
    fn for_each(&self, access: &Access, mut visit: impl FnMut(usize)) -> Result<(), ErrorKind> {
        let Some((low, high)) = access.span() else { return Ok(()) };
        let info = &self.module.buffers[access.buffer];
        let size = access.dtype.bytes() as i64;
        let slot = self.slot(access.buffer);
        let slot = slot.ok_or_else(|| ErrorKind::bug(format!("{} has no slot", access.buffer)))?;
        if low < 0 || (high + 1) * size > info.bytes as i64 {
            return Err(ErrorKind::bug(format!("an element outside of {}", access.buffer)));
        }
        if slot.checked_add(info.bytes).is_none_or(|end| end > self.bytes.len() as u64) {
            return Err(ErrorKind::bug(format!("{} lies outside of the arena", access.buffer)));
        }
        access.for_each(|at| visit(slot as usize + (at * size) as usize));
        Ok(())
    }

    fn read(&self, access: &Access) -> Result<Tensor, ErrorKind> {
        let (ty, size) = (access.ty(), access.dtype.bytes());
        let mut data = Vec::with_capacity(ty.bytes());
        let buffer = access.buffer;
        match &self.module.buffers[buffer].kind {
            BufferKind::Constant(tensor) if self.module.plan.weights_slot.is_none() => {
                access.for_each(|at| data.extend_from_slice(tensor.element(at as usize)));
            }
            _ => {
                let mut strangers = 0;
                self.for_each(access, |at| {
                    data.extend_from_slice(&self.bytes[at..at + size]);
                    let owned = self.owners[at..at + size].iter().all(|o| *o == Some(buffer));
                    strangers += usize::from(!owned);
                })?;
                if strangers > 0 {
                    let name = &self.module.buffers[buffer].name;
                    let all = ty.elements();
                    return Err(ErrorKind::bug(format!(
                        "{strangers} of {all} elements that are read from {buffer} (\"{name}\") are not its own"
                    )));
                }
            }
        }
        Tensor::from_bytes(ty, data.into()).ok_or_else(|| ErrorKind::bug("a tensor of other size"))
    }

    fn write(&mut self, access: &Access, tensor: &Tensor) -> Result<(), ErrorKind> {
        let size = access.dtype.bytes();
        let mut places = Vec::with_capacity(tensor.ty().elements());
        self.for_each(access, |at| places.push(at))?;
        for (index, at) in places.into_iter().enumerate() {
            self.bytes[at..at + size].copy_from_slice(tensor.element(index));
            self.owners[at..at + size].fill(Some(access.buffer));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::{Options, lower};
    use crate::mir::{Binary, Builder, Graph, Output, Reduction, Role, Unary, Value};
    use crate::types::{DType, Type};

    /// Runs a graph by its definition and as planned, in all ways of planning.
    pub(super) fn check(graph: &Graph, inputs: &[Tensor]) {
        let expected = mir::eval::graph(graph, inputs);
        let by_role = |wanted: Role| -> Vec<Tensor> {
            let all = graph.inputs.iter().zip(inputs);
            let wanted = all.filter(|(value, _)| {
                matches!(&graph.nodes[**value].op, mir::Op::Input { role, .. } if *role == wanted)
            });
            wanted.map(|(_, tensor)| tensor.clone()).collect()
        };
        for (alias, no_reuse, weights_in_arena) in
            [(false, false, false), (true, false, false), (true, true, true)]
        {
            let options = Options { alias, no_reuse, weights_in_arena, ..Options::default() };
            let module = lower(graph, options.clone()).expect("it is small");
            let session = Session::new(&module, &by_role(Role::Parameter));
            let mut session = session.unwrap_or_else(|e| panic!("{e}\n{graph}"));
            let first = session.run(&by_role(Role::Input));
            let results = first.and_then(|_| session.run(&by_role(Role::Input)));
            let results = results.unwrap_or_else(|e| panic!("{e}\n{graph}\n{module:#?}"));
            for (index, (result, expected)) in results.iter().zip(&expected).enumerate() {
                assert!(
                    result.bytes() == expected.bytes() && result.ty() == expected.ty(),
                    "output {index} is {result:?}, not {expected:?} ({options:?})\n{graph}\n{module:#?}"
                );
            }
            assert_eq!(results.len(), expected.len());
        }
    }

    fn numbers(ty: &Type, seed: usize) -> Tensor {
        let values = (0..ty.elements()).map(|i| ((i * 7 + seed * 5) % 23) as f64 - 11.0);
        Tensor::from_f64s(ty.clone(), values)
    }

    fn case(dims: &[&[usize]], build: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>) {
        let mut mir = Builder::new("case");
        let types: Vec<Type> = dims.iter().map(|&d| Type::new(DType::F32, d)).collect();
        let input = |(i, ty): (usize, &Type)| mir.input(format!("x{i}"), Role::Input, ty.clone());
        let inputs: Vec<Value> = types.iter().enumerate().map(input).collect();
        let outputs = build(&mut mir, &inputs).into_iter().enumerate();
        let outputs = outputs.map(|(i, value)| Output { name: format!("y{i}"), value }).collect();
        let graph = mir.finish(outputs);
        let tensors: Vec<Tensor> = types.iter().enumerate().map(|(i, ty)| numbers(ty, i)).collect();
        check(&graph, &tensors);
    }

    #[test]
    fn outputs_of_every_sort() {
        case(&[&[2, 3]], |mir, x| {
            let y = mir.unary(Unary::Neg, x[0]);
            let r = mir.reshape(y, [6]);
            let t = mir.permute(y, &[1, 0]);
            let row = mir.narrow(y, 0, 1, 1);
            let c = mir.constant(Tensor::from_f32s([2], &[1.0, 2.0]));
            let input = mir.reshape(x[0], [3, 2]);
            vec![x[0], y, y, r, t, row, c, input]
        });
    }

    #[test]
    fn windows_in_windows() {
        case(&[&[4, 5], &[4, 20]], |mir, x| {
            let a = mir.unary(Unary::Neg, x[0]);
            let b = mir.unary(Unary::Abs, x[1]);
            let c = mir.concat(&[a, b, a], 1);
            let p = mir.pad(c, &[1, 2], &[0, 3], 7.0);
            let q = mir.unary(Unary::Neg, p);
            let again = mir.concat(&[p, q], 0);
            let spread = mir.pad_interior(a, &[1, 0], &[0, 0], &[1, 2], 3.0);
            vec![again, b, spread]
        });
    }

    #[test]
    fn heads_are_views() {
        case(&[&[1, 8, 32]], |mir, x| {
            let h = mir.unary(Unary::Neg, x[0]);
            let h = mir.reshape(h, [8, 4, 8]);
            let q = mir.permute(h, &[1, 0, 2]);
            let k = mir.permute(h, &[1, 2, 0]);
            let scores = mir.contract(q, k);
            let mixed = mir.contract(scores, q);
            let back = mir.permute(mixed, &[1, 0, 2]);
            let out = mir.reshape(back, [1, 8, 32]);
            vec![mir.binary(Binary::Add, out, x[0])]
        });
    }

    #[test]
    fn nothing_is_something() {
        case(&[&[0, 3], &[2, 3]], |mir, x| {
            let a = mir.unary(Unary::Neg, x[0]);
            let c = mir.concat(&[a, x[1]], 0);
            let sums = mir.reduce(Reduction::Sum, a, &[0]);
            vec![a, c, sums]
        });
    }

    #[test]
    fn wrong_tensors_are_errors() {
        let mut mir = Builder::new("case");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [2]));
        let y = mir.unary(Unary::Neg, x);
        let graph = mir.finish(vec![Output { name: "y".into(), value: y }]);
        let module = lower(&graph, Options::default()).expect("it is small");
        assert!(run(&module, &[], &[]).is_err());
        assert!(run(&module, &[Tensor::from_f32s([3], &[0.0; 3])], &[]).is_err());
    }
}
