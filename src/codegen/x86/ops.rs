//! Instruction selection for operations.

use super::codes::*;
use super::isel::Part::{Any, Byte, Lower, Mask, Pool, Result, Small, Tied, Use};
use super::isel::{Place, Selector};
use super::*;
use crate::kir::{Address, Comparison, IndexOp, Memory, Op, Reduction, Scalar, Unary, Value};
use iced_x86::Code::*;
use regalloc2::PReg;

impl Selector<'_> {
    pub(super) fn op(&mut self, value: Value, op: &Op) -> Place {
        Place::Register(match *op {
            Op::Index(op, a, b) => self.index(op, a, b),
            Op::LoadIndex { from, memory, extent, wrap } => {
                self.load_index(from, memory, extent, wrap)
            }
            Op::Offset { pointer, index: Scalar::Constant(c), scale } => {
                let pointer = self.register(pointer);
                self.add(pointer, c * scale)
            }
            Op::Offset { pointer, index: Scalar::Value(index), scale } => {
                let (pointer, index) = (self.register(pointer), self.register(index));
                let by = self.multiply(index, scale);
                self.make(INTEGER, both(Add_r64_rm64), [Tied(by), Use(pointer)])
            }
            Op::F32(c) => return Place::Constant(u64::from(c.to_bits())),
            Op::F64(c) => return Place::Constant(c.to_bits()),
            Op::I32(c) => return Place::Constant(u64::from(c as u32)),
            Op::I64(_) | Op::ShiftBy(..) => {
                unreachable!("the verifier wants one lane for it")
            }
            Op::FromIndex(_, Scalar::Constant(c)) => {
                return Place::Constant(u64::from(c as u32));
            }
            Op::FromIndex(_, Scalar::Value(index)) => {
                let index = self.register(index);
                self.splat(index)
            }
            Op::LaneNumbers => self.words(|lane| lane),
            Op::Broadcast(from, Memory::U8) => {
                let from = Any(self.memory(from));
                let element = self.make_small(INTEGER, both(Movzx_r32_rm8), [from]);
                self.splat(element)
            }
            Op::Broadcast(from, Memory::I8) => {
                let from = Any(self.memory(from));
                let element = self.make_small(INTEGER, both(Movsx_r32_rm8), [from]);
                self.splat(element)
            }
            Op::Broadcast(from, Memory::U16) => {
                let from = Any(self.memory(from));
                let element = self.make_small(INTEGER, both(Movzx_r32_rm16), [from]);
                self.splat(element)
            }
            Op::Broadcast(from, Memory::I16) => {
                let from = Any(self.memory(from));
                let element = self.make_small(INTEGER, both(Movsx_r32_rm16), [from]);
                self.splat(element)
            }
            Op::Broadcast(from, Memory::F16) => {
                let from = Any(self.memory(from));
                let elements = self.make_lower(BROADCAST_16, [from]);
                self.make(VECTOR, OF_F16, [Lower(elements)])
            }
            Op::Broadcast(from, _) if self.uses.folds[value] => {
                let base = self.register(from.pointer);
                return Place::Memory { base, offset: from.offset, broadcast: true };
            }
            Op::Broadcast(from, _) => {
                let from = Any(self.memory(from));
                self.make(VECTOR, BROADCAST, [from])
            }
            Op::Load { from, .. } if self.uses.folds[value] => return self.memory(from),
            Op::Load { from, memory, lanes } => self.load(from, memory, lanes),
            Op::Unary(op, a) => self.unary(value, op, a),
            Op::Binary(op, a, b) => {
                let ty = self.type_of(a);
                let swap = op.commutes() && self.is_register(b) && !self.is_register(a);
                let (a, b) = if swap { (b, a) } else { (a, b) };
                let (a, b) = (self.register(a), Any(self.place(b)));
                let code = binary(op, ty, self.program.width);
                self.make(self.class(value), code, [Use(a), b])
            }
            Op::Shift(op, a, bits) => {
                let a = self.register(a);
                self.make(VECTOR, shift(op), [Use(a), Byte(bits)])
            }
            Op::MulAdd(a, b, c) => self.mul_add(a, b, c),
            Op::Dot { left, right, sum } => {
                let (left, right) = (self.register(left), Any(self.place(right)));
                let sum = self.register(sum);
                self.make(VECTOR, DOT, [Tied(sum), Use(left), right])
            }
            Op::Pairs(a, b) => {
                let (a, b) = (self.register(a), self.register(b));
                self.make(VECTOR, PAIRS, [Use(a), Use(b)])
            }
            Op::Bytes { of, upper, signed } => self.bytes(of, upper, signed),
            Op::Lookup(table, place) => {
                let place = self.register(place);
                let table = self.pool_of(|lane| table[lane as usize % table.len()] as u32);
                let code = if self.is_wide() { LOOKUP_WIDE } else { LOOKUP };
                self.make(VECTOR, code, [Use(place), Pool(table)])
            }
            Op::Compare(op, a, b) => self.compare_lanes(value, op, a, b),
            Op::Select(mask, a, b) => {
                let (mask, b, a) = (self.register(mask), self.register(b), Any(self.place(a)));
                let mask = if self.is_wide() { Mask(mask, false) } else { Use(mask) };
                self.make(VECTOR, SELECT, [Use(b), a, mask])
            }
            Op::First { value, rest, lanes } => {
                let (rest, value) = (self.register(rest), Any(self.place(value)));
                let lanes = match self.program.width {
                    Width::Avx2 => Byte(((1u32 << lanes) - 1) as u8),
                    Width::Avx512 => Mask(self.first_lanes(lanes), false),
                };
                self.make(VECTOR, FIRST, [Use(rest), value, lanes])
            }
            Op::Reduce(op, a) => self.reduce(op, a),
            Op::Shuffle { a, b, order } => self.shuffle(a, b, order),
        })
    }

    fn index(&mut self, op: IndexOp, a: Value, b: Scalar) -> VReg {
        let a = self.register(a);
        match (op, b) {
            (IndexOp::Add, Scalar::Constant(c)) => return self.add(a, c),
            (IndexOp::Mul, Scalar::Constant(c)) => return self.multiply(a, c),
            _ => {}
        }
        let b = self.scalar(b);
        match op {
            IndexOp::Add => self.make(INTEGER, both(Add_r64_rm64), [Tied(a), Use(b)]),
            IndexOp::Mul => self.make(INTEGER, both(Imul_r64_rm64), [Tied(a), Use(b)]),
            IndexOp::Min => self.conditional(Cmovg_r64_rm64, a, b),
            IndexOp::Max => self.conditional(Cmovl_r64_rm64, a, b),
            IndexOp::Div | IndexOp::Rem => self.divide(op, a, b),
        }
    }

    /// `b` if `a` compares to it as the conditional move says, else `a`.
    fn conditional(&mut self, move_if: Code, a: VReg, b: VReg) -> VReg {
        self.act(both(Cmp_r64_rm64), [Use(a), Use(b)]);
        self.make(INTEGER, both(move_if), [Tied(a), Use(b)])
    }

    /// Of what is not negative: rax and rdx hold the dividend, then quotient and remainder.
    fn divide(&mut self, op: IndexOp, a: VReg, b: VReg) -> VReg {
        let zero = self.integer(0);
        let [quotient, remainder] = [(); 2].map(|()| self.new_register(INTEGER));
        let [rax, rdx] = [0, 2].map(|r| PReg::new(r, INTEGER));
        let operands = vec![
            Operand::reg_fixed_use(a, rax),
            Operand::reg_fixed_use(zero, rdx),
            Operand::reg_use(b),
            Operand::reg_fixed_def(quotient, rax),
            Operand::reg_fixed_def(remainder, rdx),
        ];
        let (kind, arguments) = (Kind::Code(Div_rm64), vec![Argument::Register(2)]);
        self.program.insts.push(Inst { kind, half: false, operands, arguments, mask: None });
        if op == IndexOp::Div { quotient } else { remainder }
    }

    fn load_index(&mut self, from: Address, memory: Memory, extent: i64, wrap: bool) -> VReg {
        let code = if memory == Memory::I64 { Mov_r64_rm64 } else { Movsxd_r64_rm32 };
        let from = Any(self.memory(from));
        let mut index = self.make(INTEGER, both(code), [from]);
        let zero = self.integer(0);
        if wrap {
            let wrapped = self.add(index, extent);
            self.act(both(Cmp_r64_rm64), [Use(index), Use(zero)]);
            index = self.make(INTEGER, both(Cmovl_r64_rm64), [Tied(index), Use(wrapped)]);
        }
        let last = self.integer(extent - 1);
        let index = self.conditional(Cmovl_r64_rm64, index, zero);
        self.conditional(Cmovg_r64_rm64, index, last)
    }

    /// The low 4 bytes of an integer register, in all lanes.
    fn splat(&mut self, element: VReg) -> VReg {
        if self.is_wide() {
            return self.make(VECTOR, both(EVEX_Vpbroadcastd_zmm_k1z_r32), [Small(element)]);
        }
        let first = self.make_small(VECTOR, both(VEX_Vmovd_xmm_rm32), [Small(element)]);
        self.make(VECTOR, both(VEX_Vpbroadcastd_ymm_xmmm32), [Small(first)])
    }

    fn load(&mut self, from: Address, memory: Memory, lanes: u32) -> VReg {
        let whole = lanes >= self.lanes_now();
        let code = match memory {
            Memory::U8 => WIDEN_UNSIGNED,
            Memory::I8 => WIDEN_SIGNED,
            Memory::U16 => WIDEN_UNSIGNED_16,
            Memory::I16 => WIDEN_SIGNED_16,
            Memory::F16 => OF_F16,
            Memory::F32 | Memory::F64 | Memory::I32 => LOAD,
            Memory::I64 | Memory::U32 => {
                unreachable!("the verifier wants one lane for it")
            }
        };
        let from = self.memory(from);
        match self.program.width {
            _ if whole => self.make(VECTOR, code, [Any(from)]),
            _ if lanes == 1 && matches!(memory, Memory::F32 | Memory::I32) => {
                self.make_small(VECTOR, LOAD_ONE, [Any(from)])
            }
            Width::Avx512 => {
                let mask = self.first_lanes(lanes);
                self.make(VECTOR, code, [Any(from), Mask(mask, true)])
            }
            Width::Avx2 if memory.bytes() < 4 => {
                let bytes = memory.bytes() as u32;
                let insert = match bytes {
                    1 => VEX_Vpinsrb_xmm_xmm_r32m8_imm8,
                    _ => VEX_Vpinsrw_xmm_xmm_r32m16_imm8,
                };
                let zeros = self.make(VECTOR, XOR, [Result, Result]);
                let some = (0..lanes).fold(zeros, |some, lane| {
                    let element = [Small(some), Any(from.after(lane * bytes)), Byte(lane as u8)];
                    self.make_small(VECTOR, both(insert), element)
                });
                self.make(VECTOR, code, [Small(some)])
            }
            Width::Avx2 => {
                let mask = self.first_lanes(lanes);
                self.make(VECTOR, MASKED_LOAD, [Use(mask), Any(from)])
            }
        }
    }

    pub(super) fn store(&mut self, value: Value, memory: Memory, to: Address, lanes: u32) {
        let (value, to) = (self.register(value), self.memory(to));
        let whole = lanes == self.lanes_now();
        let narrow = memory.bytes() < 4;
        match self.program.width {
            _ if memory == Memory::F16 => self.store_f16(value, to, lanes, whole),
            Width::Avx2 if narrow => self.store_narrow(value, memory, to, lanes),
            Width::Avx512 if narrow => {
                let code = if memory.bytes() == 1 { NARROW } else { NARROW_16 };
                if whole {
                    return self.act(code, [Any(to), Use(value)]);
                }
                let mask = self.first_lanes(lanes);
                self.act(code, [Any(to), Use(value), Mask(mask, false)]);
            }
            _ if whole => self.act(STORE, [Any(to), Use(value)]),
            _ if lanes == 1 && matches!(memory, Memory::F32 | Memory::I32) => {
                self.act(STORE_ONE, [Any(to), Small(value)]);
            }
            Width::Avx2 => self.store_in_pieces(value, to, lanes * memory.bytes() as u32),
            Width::Avx512 => {
                let mask = self.first_lanes(lanes);
                self.act(STORE, [Any(to), Use(value), Mask(mask, false)]);
            }
        }
    }

    /// The first bytes of a vector, neither all nor half of it, in pieces of 16, 8 and 4: a store with a mask
    /// takes some processors a dozen cycles or more.
    fn store_in_pieces(&mut self, value: VReg, to: Place, bytes: u32) {
        let (value, to, bytes) = match bytes {
            0..16 => (value, to, bytes),
            16.. => {
                self.act(both(VEX_Vmovups_xmmm128_xmm), [Any(to), Small(value)]);
                let upper = both(VEX_Vextractf128_xmmm128_ymm_imm8);
                let upper = self.make_small(VECTOR, upper, [Use(value), Byte(1)]);
                (upper, to.after(16), bytes - 16)
            }
        };
        match bytes {
            0..8 => self.act(both(VEX_Vmovss_m32_xmm), [Any(to), Small(value)]),
            8.. => self.act(both(VEX_Vmovlps_m64_xmm), [Any(to), Small(value)]),
        }
        if bytes > 8 {
            let third = [Any(to.after(8)), Small(value), Byte(2)];
            self.act(both(VEX_Vextractps_rm32_xmm_imm8), third);
        }
    }

    fn store_f16(&mut self, value: VReg, to: Place, lanes: u32, whole: bool) {
        // To nearest, ties to even.
        let mode = Byte(0);
        match self.program.width {
            _ if whole => self.act(TO_F16, [Any(to), Use(value), mode]),
            Width::Avx512 => {
                let mask = self.first_lanes(lanes);
                self.act(TO_F16, [Any(to), Use(value), mode, Mask(mask, false)]);
            }
            Width::Avx2 => {
                let all = self.make_lower(TO_F16, [Use(value), mode]);
                self.store_words(all, to, lanes);
            }
        }
    }

    /// The low bytes, one or two, of eight lanes: together in each half, then both in the lower one.
    fn store_narrow(&mut self, value: VReg, memory: Memory, to: Place, lanes: u32) {
        let one = memory.bytes() == 1;
        let order = self.pool_of(|lane| match lane % 4 {
            0 if one => 0x0c08_0400,
            0 => 0x0504_0100,
            1 if !one => 0x0d0c_0908,
            _ => 0x8080_8080,
        });
        let low_bytes = both(VEX_Vpshufb_ymm_ymm_ymmm256);
        let halves = self.make(VECTOR, low_bytes, [Use(value), Pool(order)]);
        let upper = both(VEX_Vextracti128_xmmm128_ymm_imm8);
        let upper = self.make_small(VECTOR, upper, [Use(halves), Byte(1)]);
        let join = match one {
            true => VEX_Vpunpckldq_xmm_xmm_xmmm128,
            false => VEX_Vpunpcklqdq_xmm_xmm_xmmm128,
        };
        let all = self.make_small(VECTOR, both(join), [Small(halves), Small(upper)]);
        match (one, lanes == self.all_lanes()) {
            (true, true) => self.act(both(VEX_Vmovq_xmmm64_xmm), [Any(to), Small(all)]),
            (false, true) => self.act(both(VEX_Vmovups_xmmm128_xmm), [Any(to), Small(all)]),
            (true, false) => {
                for lane in 0..lanes {
                    let parts = [Any(to.after(lane)), Small(all), Byte(lane as u8)];
                    self.act(both(VEX_Vpextrb_r32m8_xmm_imm8), parts);
                }
            }
            (false, false) => self.store_words(all, to, lanes),
        }
    }

    /// The first words of a register, one by one.
    fn store_words(&mut self, all: VReg, to: Place, lanes: u32) {
        for lane in 0..lanes {
            let parts = [Any(to.after(2 * lane)), Small(all), Byte(lane as u8)];
            self.act(both(VEX_Vpextrw_r32m16_xmm_imm8), parts);
        }
    }

    fn unary(&mut self, value: Value, op: Unary, a: Value) -> VReg {
        let float = self.type_of(a).is_float();
        let sign = if self.doubles() { 1 << 63 } else { 1 << 31 };
        match op {
            // The same register under another type.
            Unary::ToBits | Unary::FromBits => self.register(a),
            Unary::Neg if float => self.with_constant(a, XOR, sign),
            Unary::Abs if float => self.with_constant(a, AND, self.ones() & !sign),
            Unary::Neg => {
                let a = Any(self.place(a));
                let zero = self.make(VECTOR, XOR, [Result, Result]);
                self.make(VECTOR, SUB_I32, [Use(zero), a])
            }
            Unary::Not if self.class(value) == MASK => {
                let a = self.register(a);
                self.make(MASK, both(VEX_Knotw_kr_kr), [Use(a)])
            }
            Unary::Not => self.with_constant(a, XOR, self.ones()),
            Unary::RoundF16 => {
                let a = self.register(a);
                let narrow = self.make_lower(TO_F16, [Use(a), Byte(0)]);
                self.make(VECTOR, OF_F16, [Lower(narrow)])
            }
            op => {
                let a = Any(self.place(a));
                match rounding(op) {
                    Some(mode) => self.make(VECTOR, ROUND, [a, Byte(mode)]),
                    None => {
                        let code = unary(op).expect("what takes one lane is not verified here");
                        self.make(VECTOR, code, [a])
                    }
                }
            }
        }
    }

    /// A lane whose bits are all set.
    fn ones(&self) -> u64 {
        if self.doubles() { u64::MAX } else { u64::from(u32::MAX) }
    }

    fn with_constant(&mut self, a: Value, code: Codes, bits: u64) -> VReg {
        let a = self.register(a);
        self.make(VECTOR, code, [Use(a), Any(Place::Constant(bits))])
    }

    fn bytes(&mut self, of: Value, upper: bool, signed: bool) -> VReg {
        let whole = self.register(of);
        match (upper, signed) {
            (false, false) => self.with_constant(of, AND, 0x00ff_00ff),
            (true, false) => self.make(VECTOR, HALVES_RIGHT, [Use(whole), Byte(8)]),
            (true, true) => self.make(VECTOR, HALVES_RIGHT_SIGNED, [Use(whole), Byte(8)]),
            (false, true) => {
                let high = self.make(VECTOR, HALVES_LEFT, [Use(whole), Byte(8)]);
                self.make(VECTOR, HALVES_RIGHT_SIGNED, [Use(high), Byte(8)])
            }
        }
    }

    fn compare_lanes(&mut self, value: Value, op: Comparison, a: Value, b: Value) -> VReg {
        let class = self.class(value);
        if self.type_of(a).is_float() {
            let (a, b) = (self.register(a), Any(self.place(b)));
            return self.make(class, COMPARE, [Use(a), b, Byte(float_predicate(op))]);
        }
        if self.is_wide() {
            let (a, b) = (self.register(a), Any(self.place(b)));
            return self.make(class, COMPARE_I32, [Use(a), b, Byte(integer_predicate(op))]);
        }
        // There is "equal" and "greater".
        let (code, a, b) = match op {
            Comparison::Equal => (EQUAL_I32, a, b),
            Comparison::Less => (GREATER_I32, b, a),
            Comparison::LessEqual => (GREATER_I32, a, b),
        };
        let (a, b) = (self.register(a), Any(self.place(b)));
        let holds = self.make(VECTOR, code, [Use(a), b]);
        match op {
            Comparison::Equal | Comparison::Less => holds,
            Comparison::LessEqual => {
                self.make(VECTOR, XOR, [Use(holds), Any(Place::Constant(self.ones()))])
            }
        }
    }

    /// The sum's register is overwritten (231), unless it comes from memory: then a factor's (213).
    fn mul_add(&mut self, a: Value, b: Value, c: Value) -> VReg {
        if self.is_register(c) {
            let (a, b) = if self.is_register(a) { (a, b) } else { (b, a) };
            let (a, b, c) = (self.register(a), Any(self.place(b)), self.register(c));
            return self.make(VECTOR, MUL_ADD_231, [Tied(c), Use(a), b]);
        }
        // The first factor is best one that nothing else needs.
        let dies = |v| !self.is_register(v) || self.uses.count[v] == 1;
        let (a, b) = if dies(a) || !dies(b) { (a, b) } else { (b, a) };
        let (a, b, c) = (self.register(a), self.register(b), Any(self.place(c)));
        self.make(VECTOR, MUL_ADD_213, [Tied(a), Use(b), c])
    }

    /// Halves, quarters and so on change places and are combined.
    fn reduce(&mut self, op: Reduction, a: Value) -> VReg {
        let code = binary(op.combine(), self.type_of(a), self.program.width);
        let start = self.whole_register(a);
        exchanges(self.program.width).iter().fold(start, |a, &(exchange, order)| {
            let other = self.make(VECTOR, both(exchange), [Use(a), Use(a), Byte(order)]);
            self.make(VECTOR, code, [Use(a), Use(other)])
        })
    }
}
