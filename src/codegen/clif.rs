//! KIR to Cranelift IR, with vectors of four lanes or with scalars: for every target that Cranelift
//! has. Nothing here becomes a call, as long as the machine's facts (`fuses`, `rounds`) are true of
//! the target.

use crate::kir::verify::Checked;
use crate::kir::*;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{
    self, AbiParam, BlockArg, Endianness, InstBuilder, MemFlagsData,
    types::{F32, F64, I8, I8X16, I16X8, I32, I32X4, I64},
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_entity::SecondaryMap;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

/// The function of a kernel whose machine has one lane or four, and no `Scale`.
pub fn emit(checked: &Checked<'_>, isa: &dyn TargetIsa) -> ir::Function {
    let kernel = checked.kernel();
    let lanes = kernel.machine.lanes;
    assert!(lanes == 1 || lanes == 4, "Cranelift's vectors have 128 bits, not {lanes} lanes");
    assert!(!kernel.machine.scales, "no machine that Cranelift is used for has `Scale`");
    let mut function = ir::Function::new();
    function.signature = ir::Signature::new(isa.default_call_conv());
    function.signature.params = vec![AbiParam::new(I64); 3];
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let [table, begin, end] = [0, 1, 2].map(|i| b.block_params(entry)[i]);
    let values = SecondaryMap::with_default(table);
    let endianness = isa.endianness();
    let mut e = Emitter { checked, b, values, endianness };
    e.values[kernel.range.begin] = begin;
    e.values[kernel.range.end] = end;
    for (i, operand) in kernel.operands.iter().enumerate() {
        e.values[operand.pointer] = e.b.ins().load(I64, FLAGS, table, i as i32 * 8);
    }
    e.block(&kernel.body);
    e.b.ins().return_(&[]);
    e.b.seal_all_blocks();
    e.b.finalize(isa.frontend_config());
    function
}

struct Emitter<'a> {
    checked: &'a Checked<'a>,
    b: FunctionBuilder<'a>,
    values: SecondaryMap<Value, ir::Value>,
    endianness: Endianness,
}

/// The verifier has seen to it that no access traps. Vectors are aligned as their elements are, which
/// is not what Cranelift means by aligned.
const FLAGS: MemFlagsData = MemFlagsData::new().with_notrap();

impl Emitter<'_> {
    fn is_scalar(&self) -> bool {
        self.checked.kernel().machine.lanes == 1
    }

    /// Cranelift's type for a value's.
    fn ty(&self, ty: Type) -> ir::Type {
        let element = match ty {
            Type::Index | Type::Pointer => return I64,
            Type::Mask if self.is_scalar() => I8,
            Type::F32 => F32,
            Type::I32 | Type::Mask => I32,
            Type::F64 => F64,
            Type::I64 => I64,
        };
        if self.is_scalar() { element } else { element.by(4).expect("vectors of four lanes exist") }
    }

    fn type_of(&self, value: Value) -> Type {
        self.checked.kernel().values[value]
    }

    fn block(&mut self, block: &Block) {
        for statement in block {
            match statement {
                Statement::Let(value, op) => self.values[*value] = self.op(*value, op),
                Statement::Store { value, memory, to, lanes } => {
                    self.store(self.values[*value], *memory, *to, *lanes);
                }
                // Cranelift has no such hint.
                Statement::Prefetch(_) => {}
                Statement::Loop(l) => self.repeat(l),
            }
        }
    }

    fn repeat(&mut self, l: &Loop) {
        let (body, exit) = (self.b.create_block(), self.b.create_block());
        let [from, to] = [l.from, l.to].map(|bound| self.scalar(bound));
        let start: Vec<BlockArg> = l.carried.iter().map(|c| self.values[c.start].into()).collect();
        let mut enter = vec![BlockArg::from(from)];
        enter.extend(l.pointers.iter().map(|p| BlockArg::from(self.values[p.start])));
        enter.extend(&start);
        if self.checked.always_runs(l) {
            self.b.ins().jump(body, &enter);
        } else {
            let runs = self.b.ins().icmp(IntCC::SignedLessThan, from, to);
            self.b.ins().brif(runs, body, &enter, exit, &start);
        }
        self.b.switch_to_block(body);
        self.values[l.index] = self.b.append_block_param(body, I64);
        for p in &l.pointers {
            self.values[p.value] = self.b.append_block_param(body, I64);
        }
        for c in &l.carried {
            let ty = self.b.func.dfg.value_type(self.values[c.start]);
            self.values[c.value] = self.b.append_block_param(body, ty);
            self.values[c.result] = self.b.append_block_param(exit, ty);
        }
        self.block(&l.body);
        let index = self.b.ins().iadd_imm_s(self.values[l.index], 1);
        let mut again = vec![BlockArg::from(index)];
        for p in &l.pointers {
            again.push(self.b.ins().iadd_imm_s(self.values[p.value], p.step).into());
        }
        let next: Vec<BlockArg> = l.carried.iter().map(|c| self.values[c.next].into()).collect();
        again.extend(&next);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, index, to);
        self.b.ins().brif(more, body, &again, exit, &next);
        self.b.switch_to_block(exit);
    }

    // Memory.

    fn element(&mut self, memory: Memory, pointer: ir::Value, offset: i32) -> ir::Value {
        let b = self.b.ins();
        match memory {
            Memory::F32 => b.load(F32, FLAGS, pointer, offset),
            Memory::F64 => b.load(F64, FLAGS, pointer, offset),
            Memory::I32 => b.load(I32, FLAGS, pointer, offset),
            Memory::I64 => b.load(I64, FLAGS, pointer, offset),
            Memory::I8 => b.sload8(I32, FLAGS, pointer, offset),
            Memory::U8 => b.uload8(I32, FLAGS, pointer, offset),
            Memory::I16 => b.sload16(I32, FLAGS, pointer, offset),
            Memory::U16 => b.uload16(I32, FLAGS, pointer, offset),
            Memory::U32 => b.uload32(FLAGS, pointer, offset),
            Memory::F16 => unreachable!("the verifier wants a machine that converts"),
        }
    }

    fn store_element(&mut self, value: ir::Value, memory: Memory, pointer: ir::Value, offset: i32) {
        let b = self.b.ins();
        match memory {
            Memory::F32 | Memory::F64 | Memory::I32 | Memory::I64 => {
                b.store(FLAGS, value, pointer, offset)
            }
            Memory::I8 | Memory::U8 => b.istore8(FLAGS, value, pointer, offset),
            Memory::I16 | Memory::U16 => b.istore16(FLAGS, value, pointer, offset),
            Memory::U32 => b.istore32(FLAGS, value, pointer, offset),
            Memory::F16 => unreachable!("the verifier wants a machine that converts"),
        };
    }

    fn load(&mut self, from: Address, memory: Memory, lanes: u32) -> ir::Value {
        let pointer = self.values[from.pointer];
        let ty = self.ty(memory.value());
        if self.is_scalar() {
            return self.element(memory, pointer, from.offset);
        }
        if lanes == 4 && memory.bytes() == 4 {
            return self.b.ins().load(ty, FLAGS, pointer, from.offset);
        }
        let zeros = match memory {
            Memory::F32 => self.f32(0.0),
            _ => self.i32(0),
        };
        (0..lanes as u8).fold(zeros, |vector, lane| {
            let offset = from.offset + i32::from(lane) * memory.bytes() as i32;
            let element = self.element(memory, pointer, offset);
            self.b.ins().insertlane(vector, element, lane)
        })
    }

    fn store(&mut self, value: ir::Value, memory: Memory, to: Address, lanes: u32) {
        let pointer = self.values[to.pointer];
        if self.is_scalar() || lanes == 4 && memory.bytes() == 4 {
            return self.store_element(value, memory, pointer, to.offset);
        }
        for lane in 0..lanes as u8 {
            let element = self.b.ins().extractlane(value, lane);
            let offset = to.offset + i32::from(lane) * memory.bytes() as i32;
            self.store_element(element, memory, pointer, offset);
        }
    }

    fn load_index(&mut self, from: Address, memory: Memory, extent: i64, wrap: bool) -> ir::Value {
        let mut index = self.element(memory, self.values[from.pointer], from.offset);
        if memory == Memory::I32 {
            index = self.b.ins().sextend(I64, index);
        }
        let [zero, last] = [0, extent - 1].map(|c| self.b.ins().iconst(I64, c));
        if wrap {
            let negative = self.b.ins().icmp(IntCC::SignedLessThan, index, zero);
            let wrapped = self.b.ins().iadd_imm_s(index, extent);
            index = self.b.ins().select(negative, wrapped, index);
        }
        let index = self.smaller(zero, index, IntCC::SignedGreaterThan);
        self.smaller(last, index, IntCC::SignedLessThan)
    }

    // Operations.

    /// A splat, or the scalar.
    fn splat(&mut self, ty: Type, element: ir::Value) -> ir::Value {
        let ty = self.ty(ty);
        if self.is_scalar() { element } else { self.b.ins().splat(ty, element) }
    }

    fn f32(&mut self, c: f32) -> ir::Value {
        let c = self.b.ins().f32const(c);
        self.splat(Type::F32, c)
    }

    fn i32(&mut self, c: i32) -> ir::Value {
        let c = self.b.ins().iconst(I32, i64::from(c as u32));
        self.splat(Type::I32, c)
    }

    fn scalar(&mut self, scalar: Scalar) -> ir::Value {
        match scalar {
            Scalar::Constant(c) => self.b.ins().iconst(I64, c),
            Scalar::Value(v) => self.values[v],
        }
    }

    /// `a` if `a condition b`, else `b`.
    fn smaller(&mut self, a: ir::Value, b: ir::Value, condition: IntCC) -> ir::Value {
        let holds = self.b.ins().icmp(condition, a, b);
        self.b.ins().select(holds, a, b)
    }

    fn op(&mut self, value: Value, op: &Op) -> ir::Value {
        let v = |value: Value| self.values[value];
        match *op {
            Op::Index(op, a, b) => self.index(op, v(a), b),
            Op::LoadIndex { from, memory, extent, wrap } => {
                self.load_index(from, memory, extent, wrap)
            }
            Op::Offset { pointer, index: Scalar::Constant(c), scale } => {
                self.b.ins().iadd_imm_s(v(pointer), c * scale)
            }
            Op::Offset { pointer, index: Scalar::Value(index), scale } => {
                let (pointer, index) = (v(pointer), v(index));
                let by = self.b.ins().imul_imm_s(index, scale);
                self.b.ins().iadd(pointer, by)
            }
            Op::F32(c) => self.f32(c),
            Op::I32(c) => self.i32(c),
            Op::F64(c) => self.b.ins().f64const(c),
            Op::I64(c) => self.b.ins().iconst(I64, c),
            Op::FromIndex(ty, index) => {
                let index = self.scalar(index);
                if ty == Type::I64 {
                    return index;
                }
                let low = self.b.ins().ireduce(I32, index);
                self.splat(ty, low)
            }
            Op::LaneNumbers if self.is_scalar() => self.i32(0),
            Op::LaneNumbers => self.lanes([0, 1, 2, 3]),
            Op::Load { from, memory, lanes } => self.load(from, memory, lanes),
            Op::Broadcast(from, memory) => {
                let element = self.element(memory, v(from.pointer), from.offset);
                self.splat(memory.value(), element)
            }
            Op::Unary(op, a) => self.unary(op, v(a), self.type_of(a), self.type_of(value)),
            Op::Binary(op, a, b) => self.binary(op, self.type_of(a), v(a), v(b)),
            Op::Shift(op, a, bits) => {
                let (a, bits) = (v(a), self.b.ins().iconst(I32, i64::from(bits)));
                self.shift(op, a, bits)
            }
            Op::ShiftBy(op, a, bits) => self.shift(op, v(a), v(bits)),
            Op::MulAdd(a, b, c) => {
                let [a, b, c] = [a, b, c].map(v);
                self.b.ins().fma(a, b, c)
            }
            Op::Lookup(..) => unreachable!("no machine that Cranelift is used for has tables"),
            Op::Dot { .. } => unreachable!("no machine that Cranelift is used for has `Dot`"),
            Op::Pairs(a, b) => {
                let [a, b] = [a, b].map(v).map(|halves| self.as_type(I16X8, halves));
                let low = [a, b].map(|halves| self.b.ins().swiden_low(halves));
                let high = [a, b].map(|halves| self.b.ins().swiden_high(halves));
                // Known to Cranelift as one instruction of x86-64.
                let [low, high] = [low, high].map(|[a, b]| self.b.ins().imul(a, b));
                self.b.ins().iadd_pairwise(low, high)
            }
            Op::Bytes { of, upper, signed } => {
                let halves = self.as_type(I16X8, v(of));
                let bytes = self.halves_of_bytes(halves, upper, signed);
                self.as_type(I32X4, bytes)
            }
            Op::Compare(op, a, b) => self.compare(op, self.type_of(a), v(a), v(b)),
            Op::Select(mask, a, b) => {
                let [mask, a, b] = [mask, a, b].map(v);
                self.select(mask, a, b)
            }
            Op::First { value, .. } if self.is_scalar() => v(value),
            Op::First { value, rest, lanes } => {
                let [value, rest] = [value, rest].map(v);
                let mask = self.lanes(std::array::from_fn(|i| -i32::from(i < lanes as usize)));
                self.select(mask, value, rest)
            }
            Op::Reduce(_, a) if self.is_scalar() => v(a),
            Op::Reduce(op, a) => {
                [[2, 3, 0, 1], [1, 0, 3, 2]].into_iter().fold(v(a), |partial, order| {
                    let other = self.shuffle(partial, partial, order);
                    self.binary(op.combine(), self.type_of(a), partial, other)
                })
            }
            Op::Shuffle { a, b, order } => self.reorder(v(a), v(b), order),
        }
    }

    fn halves_of_bytes(&mut self, a: ir::Value, upper: bool, signed: bool) -> ir::Value {
        let bits = self.b.ins().iconst(I32, 8);
        let high = if upper { a } else { self.b.ins().ishl(a, bits) };
        match signed {
            true => self.b.ins().sshr(high, bits),
            false => self.b.ins().ushr(high, bits),
        }
    }

    fn index(&mut self, op: IndexOp, a: ir::Value, b: Scalar) -> ir::Value {
        let b = self.scalar(b);
        match op {
            IndexOp::Add => self.b.ins().iadd(a, b),
            IndexOp::Mul => self.b.ins().imul(a, b),
            IndexOp::Min => self.smaller(a, b, IntCC::SignedLessThan),
            IndexOp::Max => self.smaller(a, b, IntCC::SignedGreaterThan),
            IndexOp::Div => self.b.ins().udiv(a, b),
            IndexOp::Rem => self.b.ins().urem(a, b),
        }
    }

    fn unary(&mut self, op: Unary, a: ir::Value, from: Type, to: Type) -> ir::Value {
        let ty = self.ty(to);
        match op {
            Unary::Neg if from.is_float() => self.b.ins().fneg(a),
            Unary::Neg => self.b.ins().ineg(a),
            Unary::Abs if from.is_float() => self.b.ins().fabs(a),
            Unary::Abs => self.b.ins().iabs(a),
            Unary::Not if ty == I8 => self.b.ins().bxor_imm_u(a, 1),
            Unary::Not => self.b.ins().bnot(a),
            Unary::Sqrt => self.b.ins().sqrt(a),
            Unary::Round => self.b.ins().nearest(a),
            Unary::Floor => self.b.ins().floor(a),
            Unary::Ceil => self.b.ins().ceil(a),
            Unary::Trunc => self.b.ins().trunc(a),
            Unary::ToF32 if from == Type::F64 => self.b.ins().fdemote(ty, a),
            Unary::ToF64 if from == Type::F32 => self.b.ins().fpromote(ty, a),
            Unary::ToF32 | Unary::ToF64 => self.b.ins().fcvt_from_sint(ty, a),
            Unary::ToI32 if from == Type::I64 => self.b.ins().ireduce(ty, a),
            Unary::ToI64 if from == Type::I32 => self.b.ins().sextend(ty, a),
            Unary::ToI32 | Unary::ToI64 => self.b.ins().fcvt_to_sint_sat(ty, a),
            Unary::ToBits | Unary::FromBits => self.as_type(ty, a),
            Unary::RoundF16 => unreachable!("the verifier wants a machine that converts"),
        }
    }

    fn binary(&mut self, op: Binary, ty: Type, a: ir::Value, b: ir::Value) -> ir::Value {
        let float = ty.is_float();
        match op {
            Binary::Add if float => self.b.ins().fadd(a, b),
            Binary::Sub if float => self.b.ins().fsub(a, b),
            Binary::Mul if float => self.b.ins().fmul(a, b),
            Binary::Div if float => self.b.ins().fdiv(a, b),
            Binary::Add => self.b.ins().iadd(a, b),
            Binary::Sub => self.b.ins().isub(a, b),
            Binary::Mul => self.b.ins().imul(a, b),
            Binary::Div | Binary::Rem => self.divide(op, a, b),
            Binary::And => self.b.ins().band(a, b),
            Binary::Or => self.b.ins().bor(a, b),
            Binary::Xor => self.b.ins().bxor(a, b),
            // For floats, the forms that Cranelift lowers to `minps` and `maxps`.
            Binary::Min => {
                let less = self.compare(Comparison::Less, ty, a, b);
                self.select(less, a, b)
            }
            Binary::Max => {
                let less = self.compare(Comparison::Less, ty, b, a);
                self.select(less, a, b)
            }
            Binary::Scale => unreachable!("`emit` has asked"),
        }
    }

    /// Of integers. The division that takes place is by 1 where another would trap.
    fn divide(&mut self, op: Binary, a: ir::Value, b: ir::Value) -> ir::Value {
        let ty = self.b.func.dfg.value_type(a);
        let [zero, one] = [0, 1].map(|c| self.b.ins().iconst(ty, c));
        let by_zero = self.b.ins().icmp(IntCC::Equal, b, zero);
        let by_minus_one = self.b.ins().icmp_imm_s(IntCC::Equal, b, -1);
        let special = self.b.ins().bor(by_zero, by_minus_one);
        let divisor = self.b.ins().select(special, one, b);
        if op == Binary::Rem {
            let remainder = self.b.ins().srem(a, divisor);
            return self.b.ins().select(by_zero, a, remainder);
        }
        let quotient = self.b.ins().sdiv(a, divisor);
        let negative = self.b.ins().ineg(a);
        let quotient = self.b.ins().select(by_minus_one, negative, quotient);
        self.b.ins().select(by_zero, zero, quotient)
    }

    fn shift(&mut self, op: Shift, a: ir::Value, bits: ir::Value) -> ir::Value {
        match op {
            Shift::Left => self.b.ins().ishl(a, bits),
            Shift::RightSigned => self.b.ins().sshr(a, bits),
            Shift::RightUnsigned => self.b.ins().ushr(a, bits),
        }
    }

    fn compare(&mut self, op: Comparison, ty: Type, a: ir::Value, b: ir::Value) -> ir::Value {
        let (float, integer) = match op {
            Comparison::Equal => (FloatCC::Equal, IntCC::Equal),
            Comparison::Less => (FloatCC::LessThan, IntCC::SignedLessThan),
            Comparison::LessEqual => (FloatCC::LessThanOrEqual, IntCC::SignedLessThanOrEqual),
        };
        match ty.is_float() {
            true => self.b.ins().fcmp(float, a, b),
            false => self.b.ins().icmp(integer, a, b),
        }
    }

    fn select(&mut self, mask: ir::Value, a: ir::Value, b: ir::Value) -> ir::Value {
        if self.is_scalar() {
            return self.b.ins().select(mask, a, b);
        }
        let mask = self.as_type(self.b.func.dfg.value_type(a), mask);
        self.b.ins().bitselect(mask, a, b)
    }

    /// The same bits. Lanes keep their order, which on each target is that of its memory.
    fn as_type(&mut self, ty: ir::Type, value: ir::Value) -> ir::Value {
        if self.b.func.dfg.value_type(value) == ty {
            return value;
        }
        let flags = MemFlagsData::new().with_endianness(self.endianness);
        self.b.ins().bitcast(ty, flags, value)
    }

    /// A constant vector.
    fn lanes(&mut self, lanes: [i32; 4]) -> ir::Value {
        let bytes: Vec<u8> = lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect();
        let constant = self.b.func.dfg.constants.insert(bytes.into());
        self.b.ins().vconst(I32X4, constant)
    }

    /// Any order of lanes, in steps that every target has: two from the first, then two from the second; and
    /// any order of one.
    fn reorder(&mut self, a: ir::Value, b: ir::Value, order: Order) -> ir::Value {
        let order: [u8; 4] = std::array::from_fn(|i| order.places()[i]);
        let of = |second: bool| -> Vec<u8> {
            let mut places = order.to_vec();
            places.retain(|&place| (place >= 4) == second);
            places.sort_unstable();
            places.dedup();
            places
        };
        let (first, second) = (of(false), of(true));
        // Where each lane lies in a vector of these places.
        let back = |places: &[u8]| -> [u8; 4] {
            order.map(|place| places.iter().position(|&p| p == place).unwrap_or(0) as u8)
        };
        match (&first[..], &second[..]) {
            (_, []) => self.shuffle(a, a, order),
            ([], _) => self.shuffle(b, b, order.map(|place| place - 4)),
            ([.., _, _, z], &[w]) => {
                let both = self.shuffle(a, b, [*z, *z, w, w]);
                let all = self.shuffle(a, both, [first[0], first[1], 4, 6]);
                self.shuffle(all, all, back(&[first[0], first[1], *z, w]))
            }
            (&[z], [.., _, _, w]) => {
                let both = self.shuffle(a, b, [z, z, *w, *w]);
                let (x, y) = (second[0] - 4, second[1] - 4);
                let all = self.shuffle(both, b, [0, 2, x + 4, y + 4]);
                self.shuffle(all, all, back(&[z, *w, second[0], second[1]]))
            }
            ([x, more @ ..], [z, rest @ ..]) => {
                let (y, w) = (more.first().unwrap_or(x), rest.first().unwrap_or(z));
                let both = [*x, *y, *z, *w];
                let all = self.shuffle(a, b, both);
                if both == order { all } else { self.shuffle(all, all, back(&both)) }
            }
        }
    }

    /// The four lanes that `order` names among the eight of `a` and `b`.
    fn shuffle(&mut self, a: ir::Value, b: ir::Value, order: [u8; 4]) -> ir::Value {
        let ty = self.b.func.dfg.value_type(a);
        let bytes: Vec<u8> =
            order.iter().flat_map(|&lane| (0..4).map(move |byte| lane * 4 + byte)).collect();
        let mask = self.b.func.dfg.immediates.push(bytes.into());
        let [a, b] = [a, b].map(|v| self.as_type(I8X16, v));
        let result = self.b.ins().shuffle(a, b, mask);
        self.as_type(ty, result)
    }
}
