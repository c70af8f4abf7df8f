//! Instruction selection: one pass over the kernel. What folds into an operand (constants, and the
//! loads that `fold` names) is not emitted where it is defined but where it is used.

use super::codes::*;
use super::doubles::of_doubles;
use super::fold::{self, Uses};
use super::halves::{self, Halves};
use super::regalloc::PARAMETERS;
use super::*;
use crate::kir::{self, Address, Loop, Scalar, Statement, Type, Value};
use cranelift_entity::SecondaryMap;
use iced_x86::Code::*;
use regalloc2::{Inst as InstIndex, PReg};
use std::collections::BTreeMap;

pub(super) fn select(checked: &Checked<'_>) -> Program {
    let kernel = checked.kernel();
    let width = match kernel.machine.vector_bytes() {
        32 => Width::Avx2,
        64 => Width::Avx512,
        bytes => panic!("this is not for vectors of {bytes} bytes"),
    };
    let halves = halves::analyze(&kernel.body, kernel.machine.lanes);
    let mut s = Selector {
        checked,
        program: Program { width, insts: vec![], blocks: vec![], registers: 0, pool: vec![] },
        places: SecondaryMap::new(),
        uses: fold::analyze(&kernel.body, halves.clone(), kernel.machine.lanes, width),
        halves,
        half: false,
        pooled: BTreeMap::new(),
        vectors: BTreeMap::new(),
        masks: BTreeMap::new(),
        at: Block::new(0),
        first: 0,
    };
    let entry = s.new_block();
    s.start(entry);
    s.parameters(kernel);
    s.block(&kernel.body);
    s.end(Kind::Return, vec![], vec![]);
    s.program
}

pub(super) struct Selector<'a> {
    checked: &'a Checked<'a>,
    pub program: Program,
    places: SecondaryMap<Value, Option<Place>>,
    pub uses: Uses,
    pub halves: Halves,
    /// Instructions are for the lower halves of vectors, where there are such.
    pub half: bool,
    /// Constants to their offsets in the pool.
    pooled: BTreeMap<u64, u32>,
    /// Vectors to their offsets in the pool.
    vectors: BTreeMap<Vec<u32>, u32>,
    /// Masks that the block has in registers already.
    masks: BTreeMap<u32, VReg>,
    /// The block that is being filled and its first instruction.
    at: Block,
    first: usize,
}

/// Where a value is when it is used.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Register(VReg),
    Memory {
        base: VReg,
        offset: i32,
        broadcast: bool,
    },
    /// In all lanes: its low bits, as many as they have.
    Constant(u64),
}

/// How much of its register an instruction's result is.
#[derive(Clone, Copy)]
enum Extent {
    Whole,
    Lower,
    Small,
}

/// One operand of an instruction, in the order of the manual.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Use(VReg),
    /// Its lowest part: 32 bits of an integer, 128 of a vector.
    Small(VReg),
    /// Its lower half, if a whole vector is meant, else its lowest part.
    Lower(VReg),
    /// Overwritten by the result.
    Tied(VReg),
    /// The result again, where what it held before does not matter.
    Result,
    Any(Place),
    Pool(u32),
    Byte(u8),
    Integer(i32),
    Long(i64),
    /// The write mask; `true` makes the other lanes zero.
    Mask(VReg, bool),
}
use Part::{Any, Byte, Integer, Long, Lower, Mask, Pool, Result, Small, Tied, Use};

impl Place {
    /// So many bytes further on in memory.
    pub(super) fn after(self, bytes: u32) -> Place {
        match self {
            Place::Memory { base, offset, broadcast } => {
                Place::Memory { base, offset: offset + bytes as i32, broadcast }
            }
            Place::Register(_) | Place::Constant(_) => self,
        }
    }
}

impl Selector<'_> {
    // Blocks and instructions.

    pub(super) fn new_register(&mut self, class: RegClass) -> VReg {
        self.program.registers += 1;
        VReg::new(self.program.registers - 1, class)
    }

    fn new_block(&mut self) -> Block {
        self.program.blocks.push(BasicBlock::default());
        Block::new(self.program.blocks.len() - 1)
    }

    fn start(&mut self, block: Block) {
        self.at = block;
        self.first = self.program.insts.len();
        self.masks.clear();
    }

    /// Ends the block. A successor that has no number yet is added by `link`.
    fn end(&mut self, kind: Kind, successors: Vec<Block>, arguments: Vec<VReg>) {
        let (operands, parts) = (vec![], vec![]);
        let inst = Inst { kind, half: false, operands, arguments: parts, mask: None };
        self.program.insts.push(inst);
        let [first, end] = [self.first, self.program.insts.len()].map(InstIndex::new);
        let block = &mut self.program.blocks[self.at.index()];
        (block.insts, block.arguments) = (Some(InstRange::new(first, end)), arguments);
        successors.into_iter().for_each(|s| self.link(self.at, s));
    }

    fn link(&mut self, from: Block, to: Block) {
        self.program.blocks[from.index()].successors.push(to);
        self.program.blocks[to.index()].predecessors.push(from);
    }

    /// An instruction with a result, which is its first operand.
    pub(super) fn make<const N: usize>(
        &mut self,
        class: RegClass,
        code: Codes,
        parts: [Part; N],
    ) -> VReg {
        let result = self.new_register(class);
        self.push(code, Some((result, Extent::Whole)), &parts);
        result
    }

    /// The same for a result that is the lower half of its register, if a whole vector is meant, else its
    /// lowest part.
    pub(super) fn make_lower<const N: usize>(&mut self, code: Codes, parts: [Part; N]) -> VReg {
        let result = self.new_register(VECTOR);
        self.push(code, Some((result, Extent::Lower)), &parts);
        result
    }

    /// The same for a result that is only the lowest part of its register.
    pub(super) fn make_small<const N: usize>(
        &mut self,
        class: RegClass,
        code: Codes,
        parts: [Part; N],
    ) -> VReg {
        let result = self.new_register(class);
        self.push(code, Some((result, Extent::Small)), &parts);
        result
    }

    pub(super) fn act<const N: usize>(&mut self, code: Codes, parts: [Part; N]) {
        self.push(code, None, &parts);
    }

    fn push(&mut self, code: Codes, result: Option<(VReg, Extent)>, parts: &[Part]) {
        let mut operands = vec![];
        let mut add = |operand| {
            operands.push(operand);
            operands.len() - 1
        };
        let (mut arguments, mut mask) = (vec![], None);
        match (result, parts) {
            (Some(_), [Tied(_), ..]) | (None, _) => {}
            (Some((result, extent)), _) => {
                let result = add(Operand::reg_def(result));
                arguments.push(match extent {
                    Extent::Whole => Argument::Register(result),
                    Extent::Lower if !self.half => Argument::Lower(result),
                    Extent::Lower | Extent::Small => Argument::Small(result),
                });
            }
        }
        for &part in parts {
            arguments.push(match part {
                Use(from) => Argument::Register(add(Operand::reg_use(from))),
                // Where a vector may come from memory, it may come from a slot of the stack.
                Any(Place::Register(from)) => Argument::Register(add(match from.class() {
                    VECTOR => Operand::any_use(from),
                    INTEGER | MASK => Operand::reg_use(from),
                })),
                Small(from) => Argument::Small(add(Operand::reg_use(from))),
                Lower(from) if !self.half => Argument::Lower(add(Operand::reg_use(from))),
                Lower(from) => Argument::Small(add(Operand::reg_use(from))),
                Tied(from) => {
                    let from = add(Operand::reg_use(from));
                    let (result, _) = result.expect("what is tied is tied to the result");
                    Argument::Register(add(Operand::reg_reuse_def(result, from)))
                }
                Any(Place::Memory { base, offset, broadcast }) => {
                    let base = add(Operand::reg_use(base));
                    Argument::Memory { base, offset, broadcast }
                }
                Any(Place::Constant(bits)) => {
                    let broadcast = self.program.width == Width::Avx512;
                    Argument::Pool { offset: self.pooled(bits), broadcast }
                }
                Result => Argument::Register(0),
                Pool(offset) => Argument::Pool { offset, broadcast: false },
                Byte(value) => Argument::Byte(value),
                Integer(value) => Argument::Integer(value),
                Long(value) => Argument::Long(value),
                Mask(register, zeroing) => {
                    mask = Some((add(Operand::reg_use(register)), zeroing));
                    continue;
                }
            });
        }
        let half = code.half.filter(|_| self.half);
        let code = half.unwrap_or(code.whole)[self.program.width as usize];
        let kind = Kind::Code(if self.doubles() { of_doubles(code) } else { code });
        let half = half.is_some();
        self.program.insts.push(Inst { kind, half, operands, arguments, mask });
    }

    /// A constant in the pool: a whole vector for 256 bits, one lane (to be broadcast) for 512.
    fn pooled(&mut self, bits: u64) -> u32 {
        let bytes = if self.doubles() { 8 } else { 4 };
        let copies = if self.program.width == Width::Avx2 { 32 / bytes } else { 1 };
        let pool = &mut self.program.pool;
        *self.pooled.entry(bits).or_insert_with(|| {
            pool.extend(bits.to_le_bytes()[..bytes].repeat(copies));
            (pool.len() - bytes * copies) as u32
        })
    }

    // Operands.

    pub(super) fn place(&self, value: Value) -> Place {
        self.places[value].expect("definitions stand before uses")
    }

    pub(super) fn is_register(&self, value: Value) -> bool {
        matches!(self.place(value), Place::Register(_))
    }

    pub(super) fn register(&mut self, value: Value) -> VReg {
        match self.place(value) {
            Place::Register(register) => register,
            Place::Constant(0) => self.make(VECTOR, XOR, [Result, Result]),
            Place::Constant(bits) => {
                let offset = self.pooled(bits);
                self.make(VECTOR, BROADCAST, [Pool(offset)])
            }
            Place::Memory { base, offset, broadcast } => {
                let code = if broadcast { BROADCAST } else { LOAD };
                let from = Any(Place::Memory { base, offset, broadcast: false });
                self.make(VECTOR, code, [from])
            }
        }
    }

    /// The register of a value all lanes of which matter, whatever matters of the result.
    pub(super) fn whole_register(&mut self, value: Value) -> VReg {
        let half = std::mem::take(&mut self.half);
        let register = self.register(value);
        self.half = half;
        register
    }

    pub(super) fn memory(&mut self, at: Address) -> Place {
        Place::Memory { base: self.register(at.pointer), offset: at.offset, broadcast: false }
    }

    pub(super) fn integer(&mut self, value: i64) -> VReg {
        match i32::try_from(value) {
            Ok(small) => self.make(INTEGER, both(Mov_rm64_imm32), [Integer(small)]),
            Err(_) => self.make(INTEGER, both(Mov_r64_imm64), [Long(value)]),
        }
    }

    pub(super) fn scalar(&mut self, scalar: Scalar) -> VReg {
        match scalar {
            Scalar::Constant(c) => self.integer(c),
            Scalar::Value(v) => self.register(v),
        }
    }

    /// The first `lanes` lanes as a mask: in a mask register, or as a vector from the pool.
    pub(super) fn first_lanes(&mut self, lanes: u32) -> VReg {
        match self.program.width {
            Width::Avx512 => self.mask((1 << lanes) - 1),
            Width::Avx2 => {
                let words = if self.doubles() { 2 * lanes } else { lanes };
                self.words(|word| if word < words { u32::MAX } else { 0 })
            }
        }
    }

    /// Lanes by their bits, in a mask register.
    pub(super) fn mask(&mut self, lanes: u32) -> VReg {
        if let Some(&known) = self.masks.get(&lanes) {
            return known;
        }
        let bits = self.integer(lanes.into());
        let mask = self.make(MASK, both(VEX_Kmovq_kr_r64), [Use(bits)]);
        self.masks.insert(lanes, mask);
        mask
    }

    /// A vector from the pool, in words of four bytes.
    pub(super) fn words(&mut self, word: impl Fn(u32) -> u32) -> VReg {
        let offset = self.pool_of(word);
        self.make(VECTOR, LOAD, [Pool(offset)])
    }

    /// Where a vector is in the pool.
    pub(super) fn pool_of(&mut self, word: impl Fn(u32) -> u32) -> u32 {
        let words = self.checked.kernel().machine.vector_bytes() / 4;
        let vector: Vec<u32> = (0..words).map(word).collect();
        let pool = &mut self.program.pool;
        *self.vectors.entry(vector).or_insert_with_key(|vector| {
            pool.resize(pool.len().next_multiple_of(vector.len() * 4), 0);
            let offset = pool.len() as u32;
            pool.extend(vector.iter().flat_map(|word| word.to_le_bytes()));
            offset
        })
    }

    /// How many lanes the instructions have that are being made.
    pub(super) fn lanes_now(&self) -> u32 {
        if self.half { self.halves.lanes } else { self.all_lanes() }
    }

    pub(super) fn all_lanes(&self) -> u32 {
        self.checked.kernel().machine.lanes
    }

    /// Whether lanes have eight bytes.
    pub(super) fn doubles(&self) -> bool {
        self.checked.kernel().machine.doubles
    }

    pub(super) fn is_wide(&self) -> bool {
        self.program.width == Width::Avx512
    }

    pub(super) fn type_of(&self, value: Value) -> Type {
        self.checked.kernel().values[value]
    }

    pub(super) fn class(&self, value: Value) -> RegClass {
        match (self.checked.kernel().values[value], self.program.width) {
            (Type::Index | Type::Pointer, _) => INTEGER,
            (Type::Mask, Width::Avx512) => MASK,
            (Type::F32 | Type::I32 | Type::F64 | Type::Mask, _) => VECTOR,
            (Type::I64, _) => unreachable!("the verifier wants one lane for it"),
        }
    }

    // Statements.

    /// The table of operands and the range; and the operands from the table.
    fn parameters(&mut self, kernel: &kir::Kernel) {
        let registers = PARAMETERS.map(|_| self.new_register(INTEGER));
        let fixed = |(&to, from)| Operand::reg_fixed_def(to, PReg::new(from, INTEGER));
        let operands = registers.iter().zip(PARAMETERS).map(fixed).collect();
        let (kind, arguments, mask) = (Kind::Parameters, vec![], None);
        self.program.insts.push(Inst { kind, half: false, operands, arguments, mask });
        let [table, begin, end] = registers;
        self.places[kernel.range.begin] = Some(Place::Register(begin));
        self.places[kernel.range.end] = Some(Place::Register(end));
        for (i, operand) in kernel.operands.iter().enumerate() {
            let entry = Place::Memory { base: table, offset: i as i32 * 8, broadcast: false };
            let pointer = self.make(INTEGER, both(Mov_r64_rm64), [Any(entry)]);
            self.places[operand.pointer] = Some(Place::Register(pointer));
        }
    }

    fn block(&mut self, block: &kir::Block) {
        for statement in block {
            match statement {
                Statement::Let(value, op) => {
                    self.half = self.halves.is_half(*value);
                    self.places[*value] = Some(self.op(*value, op));
                    self.half = false;
                }
                Statement::Store { value, memory, to, lanes } => {
                    self.half = *lanes <= self.halves.lanes;
                    self.store(*value, *memory, *to, *lanes);
                    self.half = false;
                }
                Statement::Prefetch(at) => {
                    let at = self.memory(*at);
                    self.act(both(Prefetcht1_m8), [Any(at)]);
                }
                Statement::Loop(l) => self.repeat(l),
            }
        }
    }

    /// ```text
    ///     before: if from < to           (where it is not known to run)
    ///     enter:  -> body(starts)
    ///     body:   ...; if more
    ///     latch:  -> body(nexts)         (nothing is left of it when the registers fit)
    ///     done:   -> exit(nexts)         (where it always runs, `done` is what follows)
    ///     skip:   -> exit(starts)
    ///     exit:
    /// ```
    fn repeat(&mut self, l: &Loop) {
        // Without uses of the index, a counter that goes down to zero needs no comparison.
        let down = self.checked.trips(l).filter(|_| self.uses.count[l.index] == 0);
        let index = match down {
            Some(trips) => self.integer(trips),
            None => self.scalar(l.from),
        };
        let pointers: Vec<_> = l.pointers.iter().map(|p| self.register(p.start)).collect();
        let starts: Vec<_> = l.carried.iter().map(|c| self.register(c.start)).collect();
        let before = self.at;
        let always = self.checked.always_runs(l);
        if !always {
            self.compare(index, l.to);
            let enter = self.new_block();
            self.end(Kind::Branch(Condition::Less), vec![enter], vec![]);
            self.start(enter);
        }
        let body = self.new_block();
        self.end(Kind::Jump, vec![body], [&[index][..], &pointers, &starts].concat());
        self.start(body);
        let index = self.parameter(body, l.index);
        let pointers: Vec<_> = l.pointers.iter().map(|p| self.parameter(body, p.value)).collect();
        for c in &l.carried {
            self.parameter(body, c.value);
        }
        self.block(&l.body);
        let nexts: Vec<_> = l.carried.iter().map(|c| self.register(c.next)).collect();
        let steps = l.pointers.iter().map(|p| p.step);
        let moved: Vec<_> = pointers.into_iter().zip(steps).map(|(p, s)| self.add(p, s)).collect();
        let (next_index, condition) = match down {
            Some(_) => (self.make(INTEGER, both(Dec_rm64), [Tied(index)]), Condition::NotZero),
            None => {
                let next = self.add(index, 1);
                self.compare(next, l.to);
                (next, Condition::Less)
            }
        };
        let (latch, done) = (self.new_block(), self.new_block());
        self.end(Kind::Branch(condition), vec![latch, done], vec![]);
        self.start(latch);
        self.end(Kind::Jump, vec![body], [&[next_index][..], &moved, &nexts].concat());
        self.start(done);
        if always {
            for (c, next) in l.carried.iter().zip(nexts) {
                self.places[c.result] = Some(Place::Register(next));
            }
            return;
        }
        let (skip, exit) = (self.new_block(), self.new_block());
        self.link(before, skip);
        self.end(Kind::Jump, vec![exit], nexts);
        self.start(skip);
        self.end(Kind::Jump, vec![exit], starts);
        self.start(exit);
        for c in &l.carried {
            self.parameter(exit, c.result);
        }
    }

    fn parameter(&mut self, block: Block, value: Value) -> VReg {
        let register = self.new_register(self.class(value));
        self.program.blocks[block.index()].parameters.push(register);
        self.places[value] = Some(Place::Register(register));
        register
    }

    fn compare(&mut self, a: VReg, b: Scalar) {
        match b {
            Scalar::Constant(c) if i32::try_from(c).is_ok() => {
                self.act(both(Cmp_rm64_imm32), [Use(a), Integer(c as i32)]);
            }
            b => {
                let b = self.scalar(b);
                self.act(both(Cmp_r64_rm64), [Use(a), Use(b)]);
            }
        }
    }

    pub(super) fn add(&mut self, a: VReg, c: i64) -> VReg {
        if c == 0 {
            return a;
        }
        match i32::try_from(c) {
            Ok(offset) => {
                let sum = Any(Place::Memory { base: a, offset, broadcast: false });
                self.make(INTEGER, both(Lea_r64_m), [sum])
            }
            Err(_) => {
                let c = self.integer(c);
                self.make(INTEGER, both(Add_r64_rm64), [Tied(c), Use(a)])
            }
        }
    }

    pub(super) fn multiply(&mut self, a: VReg, c: i64) -> VReg {
        match i32::try_from(c) {
            Ok(c) => self.make(INTEGER, both(Imul_r64_rm64_imm32), [Use(a), Integer(c)]),
            Err(_) => {
                let c = self.integer(c);
                self.make(INTEGER, both(Imul_r64_rm64), [Tied(c), Use(a)])
            }
        }
    }
}
