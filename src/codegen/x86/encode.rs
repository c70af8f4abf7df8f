//! Virtual registers replaced by what the allocator chose, its moves put in, and bytes made of it.

use super::regalloc::SAVED;
use super::*;
use iced_x86::{Encoder, Instruction, OpKind, Register};
use regalloc2::{
    Allocation, AllocationKind, Edit, Inst as InstIndex, InstOrEdit, Output, PReg, SpillSlot,
};

pub(super) fn encode(program: &Program, output: &Output) -> Emitted {
    let used = |r: usize| {
        let register = Allocation::reg(PReg::new(r, INTEGER));
        let moved = output
            .edits
            .iter()
            .any(|(_, Edit::Move { from, to })| *from == register || *to == register);
        moved || output.allocs.contains(&register)
    };
    let saved: Vec<_> = SAVED
        .into_iter()
        .filter(|&r| used(r))
        .map(|r| register(program, PReg::new(r, INTEGER), false))
        .collect();
    let frame = output.num_spillslots as i32 * 8;
    let mut e = Writer {
        program,
        output,
        encoder: Encoder::new(64),
        at: 0,
        starts: vec![0; program.blocks.len()],
        jumps: vec![],
        pooled: vec![],
    };
    saved.iter().for_each(|&r| e.put(Instruction::with1(Code::Push_r64, r).expect("push")));
    if frame > 0 {
        e.put(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, frame).expect("sub"));
    }
    for block in 0..program.blocks.len() {
        e.starts[block] = e.at;
        if e.forwarded(Block::new(block)) != Block::new(block) {
            continue; // Who jumps here jumps on at once; who falls through falls through.
        }
        for item in output.block_insts_and_edits(program, Block::new(block)) {
            match item {
                InstOrEdit::Edit(Edit::Move { from, to }) => e.copy(*from, *to),
                InstOrEdit::Inst(index) => e.inst(block, index, frame, &saved),
            }
        }
    }
    e.finish(output.num_spillslots)
}

struct Writer<'a> {
    program: &'a Program,
    output: &'a Output,
    encoder: Encoder,
    /// The offset of the next byte.
    at: usize,
    starts: Vec<usize>,
    /// Where 32-bit displacements end and the block that they lead to.
    jumps: Vec<(usize, Block)>,
    /// Where a displacement stands, where its instruction ends, and the offset in the pool.
    pooled: Vec<(usize, usize, u32)>,
}

impl Writer<'_> {
    fn inst(&mut self, block: usize, index: InstIndex, frame: i32, saved: &[Register]) {
        let inst = &self.program.insts[index.index()];
        let next = Block::new(block + 1);
        let successors = &self.program.blocks[block].successors;
        match inst.kind {
            Kind::Parameters => {}
            Kind::Code(code) => self.code(code, inst, self.output.inst_allocs(index)),
            Kind::Jump => self.jump(Code::Jmp_rel32_64, successors[0], next),
            Kind::Branch(condition) => {
                let (yes, no) = match condition {
                    Condition::Less => (Code::Jl_rel32_64, Code::Jge_rel32_64),
                    Condition::NotZero => (Code::Jne_rel32_64, Code::Je_rel32_64),
                };
                if self.reaches(next, successors[0]) {
                    self.jump(no, successors[1], next);
                } else {
                    self.put_jump(yes, successors[0]);
                    self.jump(Code::Jmp_rel32_64, successors[1], next);
                }
            }
            Kind::Return => {
                if frame > 0 {
                    self.put(
                        Instruction::with2(Code::Add_rm64_imm32, Register::RSP, frame)
                            .expect("add"),
                    );
                }
                saved
                    .iter()
                    .rev()
                    .for_each(|&r| self.put(Instruction::with1(Code::Pop_r64, r).expect("pop")));
                self.put(Instruction::with(Code::VEX_Vzeroupper));
                self.put(Instruction::with(Code::Retnq));
            }
        }
    }

    /// Where a jump to `block` ends: past blocks that are nothing but a jump.
    fn forwarded(&self, block: Block) -> Block {
        let mut items = self.output.block_insts_and_edits(self.program, block);
        match items.next() {
            Some(InstOrEdit::Inst(inst))
                if matches!(self.program.insts[inst.index()].kind, Kind::Jump) =>
            {
                self.forwarded(self.program.blocks[block.index()].successors[0])
            }
            _ => block,
        }
    }

    /// Whether falling through to `next` gets to `block`: between them are only blocks of which
    /// nothing is left.
    fn reaches(&self, next: Block, block: Block) -> bool {
        let block = self.forwarded(block).index();
        next.index() <= block
            && (next.index()..block)
                .all(|between| self.forwarded(Block::new(between)).index() != between)
    }

    fn jump(&mut self, code: Code, to: Block, next: Block) {
        if !self.reaches(next, to) {
            self.put_jump(code, to);
        }
    }

    fn put_jump(&mut self, code: Code, to: Block) {
        self.put(Instruction::with_branch(code, self.at as u64).expect("a jump"));
        self.jumps.push((self.at, self.forwarded(to)));
    }

    fn code(&mut self, code: Code, inst: &Inst, places: &[Allocation]) {
        let place = |operand: usize| {
            let place = places[operand].as_reg().expect("operands are in registers");
            register(self.program, place, inst.half)
        };
        let mut out = Instruction::default();
        out.set_code(code);
        let mut pooled = None;
        for (i, argument) in inst.arguments.iter().enumerate() {
            let i = i as u32;
            match *argument {
                Argument::Register(operand) => match places[operand].as_stack() {
                    Some(slot) => spilled(&mut out, i, slot),
                    None => out.set_op_register(i, place(operand)),
                },
                Argument::Small(operand) => {
                    let place = places[operand].as_reg().expect("operands are in registers");
                    out.set_op_register(i, small(place));
                }
                Argument::Lower(operand) => {
                    let place = places[operand].as_reg().expect("operands are in registers");
                    out.set_op_register(i, register(self.program, place, true));
                }
                Argument::Memory { base, offset, broadcast } => {
                    memory(&mut out, i, place(base), offset);
                    out.set_is_broadcast(broadcast);
                }
                Argument::Pool { offset, broadcast } => {
                    memory(&mut out, i, Register::RIP, 0);
                    out.set_memory_displacement64(self.at as u64);
                    out.set_memory_displ_size(8);
                    out.set_is_broadcast(broadcast);
                    pooled = Some(offset);
                }
                Argument::Byte(value) => {
                    out.set_op_kind(i, OpKind::Immediate8);
                    out.set_immediate8(value);
                }
                Argument::Integer(value) => {
                    out.set_op_kind(i, OpKind::Immediate32to64);
                    out.set_immediate32to64(value as i64);
                }
                Argument::Long(value) => {
                    out.set_op_kind(i, OpKind::Immediate64);
                    out.set_immediate64(value as u64);
                }
            }
        }
        if let Some((mask, zeroing)) = inst.mask {
            out.set_op_mask(place(mask));
            out.set_zeroing_masking(zeroing);
        }
        let start = self.at;
        self.put(out);
        if let Some(offset) = pooled {
            let displacement = start + self.encoder.get_constant_offsets().displacement_offset();
            self.pooled.push((displacement, self.at, offset));
        }
    }

    /// A move of the allocator's: registers, or a register and a slot.
    fn copy(&mut self, from: Allocation, to: Allocation) {
        if from == to {
            return;
        }
        let wide = self.program.width == Width::Avx512;
        let class = from.as_reg().or(to.as_reg()).expect("one side is a register").class();
        let (load, store) = match class {
            INTEGER => (Code::Mov_r64_rm64, Code::Mov_rm64_r64),
            VECTOR if wide => {
                (Code::EVEX_Vmovups_zmm_k1z_zmmm512, Code::EVEX_Vmovups_zmmm512_k1z_zmm)
            }
            VECTOR => (Code::VEX_Vmovups_ymm_ymmm256, Code::VEX_Vmovups_ymmm256_ymm),
            MASK => (Code::VEX_Kmovq_kr_km64, Code::VEX_Kmovq_m64_kr),
        };
        let mut out = Instruction::default();
        out.set_code(if to.kind() == AllocationKind::Stack { store } else { load });
        for (i, side) in [to, from].into_iter().enumerate() {
            match (side.as_reg(), side.as_stack()) {
                (Some(r), _) => out.set_op_register(i as u32, register(self.program, r, false)),
                (_, Some(slot)) => spilled(&mut out, i as u32, slot),
                _ => unreachable!("a move is between places"),
            }
        }
        self.put(out);
    }

    fn put(&mut self, instruction: Instruction) {
        let length = self.encoder.encode(&instruction, self.at as u64);
        self.at +=
            length.unwrap_or_else(|e| panic!("{:?} is not encodable: {e}", instruction.code()));
    }

    fn finish(mut self, spill_slots: usize) -> Emitted {
        let mut bytes = self.encoder.take_buffer();
        let code = bytes.len();
        bytes.resize(code.next_multiple_of(64), 0xcc);
        let pool = bytes.len();
        bytes.extend(&self.program.pool);
        let mut patch = |at: usize, value: usize, from: usize| {
            bytes[at..at + 4].copy_from_slice(&(value as i32 - from as i32).to_le_bytes());
        };
        self.jumps.iter().for_each(|&(end, to)| patch(end - 4, self.starts[to.index()], end));
        self.pooled.iter().for_each(|&(at, end, offset)| patch(at, pool + offset as usize, end));
        Emitted { bytes, code, spill_slots }
    }
}

fn spilled(out: &mut Instruction, operand: u32, slot: SpillSlot) {
    memory(out, operand, Register::RSP, slot.index() as i32 * 8);
}

fn memory(out: &mut Instruction, operand: u32, base: Register, offset: i32) {
    out.set_op_kind(operand, OpKind::Memory);
    out.set_memory_base(base);
    out.set_memory_displacement64(offset as i64 as u64);
    out.set_memory_displ_size((offset != 0) as u32);
}

fn register(program: &Program, register: PReg, half: bool) -> Register {
    let first = match (register.class(), program.width) {
        (INTEGER, _) => Register::RAX,
        (VECTOR, Width::Avx2) if half => Register::XMM0,
        (VECTOR, Width::Avx512) if !half => Register::ZMM0,
        (VECTOR, Width::Avx2 | Width::Avx512) => Register::YMM0,
        (MASK, _) => Register::K0,
    };
    first + register.hw_enc() as u32
}

fn small(register: PReg) -> Register {
    let first = if register.class() == INTEGER { Register::EAX } else { Register::XMM0 };
    first + register.hw_enc() as u32
}
