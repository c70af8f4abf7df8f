//! KIR to x86-64 code with vectors of 256 bits (AVX2 and FMA) or 512 bits (AVX-512 F).
//!
//! `isel` chooses instructions over virtual registers, `constants` keeps some of their operands there,
//! `regalloc` assigns the registers, `encode` writes bytes. A function's constants stand behind its code,
//! so that it has no relocations.

mod codes;
mod constants;
pub mod cpuid;
mod doubles;
mod encode;
mod fold;
mod halves;
mod isel;
mod ops;
mod regalloc;
mod shuffle;

use crate::kir::verify::Checked;
use iced_x86::Code;
use regalloc2::{Block, InstRange, Operand, RegClass, VReg};

/// What one kernel became, and what it cost.
#[derive(Debug)]
pub struct Emitted {
    /// The code, position-independent, for an address that is a multiple of 64.
    pub bytes: Vec<u8>,
    /// Size of the code in `bytes`; the constants are behind it.
    pub code: usize,
    /// How many 8-byte slots of the stack it takes.
    pub spill_slots: usize,
}

/// The function of a kernel whose machine has vectors of 32 or 64 bytes, in the System V calling convention.
/// `check` runs regalloc2's own checker over its result.
pub fn emit(checked: &Checked<'_>, check: bool) -> Emitted {
    let mut program = isel::select(checked);
    constants::keep(&mut program);
    let allocation = regalloc::allocate(&program, check);
    encode::encode(&program, &allocation)
}

/// The function over virtual registers. Blocks are in the order in which they are emitted.
struct Program {
    width: Width,
    insts: Vec<Inst>,
    blocks: Vec<BasicBlock>,
    /// How many virtual registers there are.
    registers: usize,
    /// The constants behind the code.
    pool: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Avx2,
    Avx512,
}

/// Register classes: regalloc2 has three, and so has AVX-512.
const INTEGER: RegClass = RegClass::Int;
const VECTOR: RegClass = RegClass::Float;
const MASK: RegClass = RegClass::Vector;

/// Ends with `Jump`, `Branch` or `Return`. Invariant: a block that ends with `Branch` passes no
/// arguments, and its successors have no other predecessor, so that there is a place for the moves
/// on every edge.
#[derive(Default)]
struct BasicBlock {
    insts: Option<InstRange>,
    parameters: Vec<VReg>,
    successors: Vec<Block>,
    predecessors: Vec<Block>,
    arguments: Vec<VReg>,
}

struct Inst {
    kind: Kind,
    /// Vectors are the lower halves of their registers.
    half: bool,
    /// What the register allocator sees.
    operands: Vec<Operand>,
    /// What is encoded, in the order of the instruction set manual.
    arguments: Vec<Argument>,
    /// The operand that is the write mask, and whether lanes without it become zero.
    mask: Option<(usize, bool)>,
}

enum Kind {
    Code(Code),
    /// Defines the function's parameters in their registers.
    Parameters,
    Jump,
    /// To the first successor if the condition holds, else to the second.
    Branch(Condition),
    Return,
}

#[derive(Clone, Copy)]
enum Condition {
    Less,
    NotZero,
}

enum Argument {
    /// The register of the n-th operand.
    Register(usize),
    /// The lowest part of it: 32 bits of an integer, 128 of a vector.
    Small(usize),
    /// The lower half of it.
    Lower(usize),
    Memory {
        base: usize,
        offset: i32,
        broadcast: bool,
    },
    Pool {
        offset: u32,
        broadcast: bool,
    },
    Byte(u8),
    Integer(i32),
    Long(i64),
}
