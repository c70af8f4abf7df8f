//! A function that says what the processor can do that the program runs on: `uint64_t f(void)`.
//!
//! Bit i of its result is feature i of [`PLACES`], where the processor has it and the operating system
//! keeps the registers that it takes; [`KNOWN`] is always set. The numbers are kept in arenas, where
//! objects of other builds may find them, so they never change: new features come behind the others.

use iced_x86::Register;
use iced_x86::{BlockEncoder, BlockEncoderOptions, Code, IcedError, Instruction, InstructionBlock};

/// Set in every result.
pub const KNOWN: u64 = 1 << 63;

/// A word that `cpuid` gives.
#[derive(Clone, Copy)]
enum Word {
    /// ECX of leaf 1.
    Basic,
    /// EBX of leaf 7.
    Extended,
    /// ECX of leaf 7.
    Further,
    /// EAX of leaf 7, subleaf 1.
    Later,
    /// ECX of leaf 0x80000001.
    Amd,
}

/// Which registers the operating system must keep: bits of XCR0.
const YMM: u32 = 0b110;
const ZMM: u32 = 0b1110_0110;

/// Name, word, bit of it, and registers.
const PLACES: [(&str, Word, u32, u32); 17] = [
    ("sse3", Word::Basic, 0, 0),
    ("ssse3", Word::Basic, 9, 0),
    ("sse4.1", Word::Basic, 19, 0),
    ("sse4.2", Word::Basic, 20, 0),
    ("popcnt", Word::Basic, 23, 0),
    ("lzcnt", Word::Amd, 5, 0),
    ("bmi1", Word::Extended, 3, 0),
    ("bmi2", Word::Extended, 8, 0),
    ("avx", Word::Basic, 28, YMM),
    ("fma", Word::Basic, 12, YMM),
    ("avx2", Word::Extended, 5, YMM),
    ("avx512f", Word::Extended, 16, ZMM),
    ("avx512bw", Word::Extended, 30, ZMM),
    ("avx512dq", Word::Extended, 17, ZMM),
    ("avx512vl", Word::Extended, 31, ZMM),
    ("avx512vnni", Word::Further, 11, ZMM),
    ("avxvnni", Word::Later, 4, YMM),
];

/// The bits of these features; `None` where there is none for one of them.
pub fn bits<'a>(features: impl IntoIterator<Item = &'a str>) -> Option<u64> {
    let bit = |name: &str| Some(1 << PLACES.iter().position(|place| place.0 == name)?);
    features.into_iter().map(bit).try_fold(0, |all, bit| Some(all | bit?))
}

/// The code of the function, position-independent.
///
/// # Errors
///
/// None that is not a bug of ours.
pub fn function() -> Result<Vec<u8>, IcedError> {
    use Register::{EAX, EBX, ECX, EDI, EDX, ESI, R8D, R9D, R10D, R11D, RAX, RBX, RCX};
    let register = |word: Word| match word {
        Word::Basic => R8D,
        Word::Extended => R9D,
        Word::Further => EDI,
        Word::Later => ESI,
        Word::Amd => R10D,
    };
    let (xcr0, most) = (R11D, ESI);
    let mut code = Assembler::default();
    code.push(Instruction::with1(Code::Push_r64, RBX)?);
    for word in [R8D, R9D, R10D, EDI, xcr0] {
        code.push(Instruction::with2(Code::Xor_r32_rm32, word, word)?);
    }
    // What a word is in, and the leaf that says how many there are.
    for (word, leaf, first, from) in [
        (Word::Basic, 1, 0, ECX),
        (Word::Extended, 7, 0, EBX),
        (Word::Amd, 0x8000_0001, 0x8000_0000_u32, ECX),
    ] {
        code.cpuid(first)?;
        code.push(Instruction::with2(Code::Mov_r32_rm32, most, EAX)?);
        code.push(Instruction::with2(Code::Cmp_rm32_imm32, most, leaf)?);
        let without = code.jump(Code::Jb_rel32_64)?;
        code.cpuid(leaf)?;
        code.push(Instruction::with2(Code::Mov_r32_rm32, register(word), from)?);
        if leaf == 7 {
            code.push(Instruction::with2(Code::Mov_r32_rm32, register(Word::Further), ECX)?);
        }
        code.land(without);
    }
    // The second part of leaf 7: without it, all is zero.
    code.cpuid(0)?;
    code.push(Instruction::with2(Code::Xor_r32_rm32, ESI, ESI)?);
    code.push(Instruction::with2(Code::Cmp_rm32_imm32, EAX, 7)?);
    let without = code.jump(Code::Jb_rel32_64)?;
    code.cpuid(7)?;
    code.push(Instruction::with2(Code::Cmp_rm32_imm32, EAX, 1)?);
    let alone = code.jump(Code::Jb_rel32_64)?;
    code.push(Instruction::with2(Code::Mov_r32_imm32, EAX, 7)?);
    code.push(Instruction::with2(Code::Mov_r32_imm32, ECX, 1)?);
    code.push(Instruction::with(Code::Cpuid));
    code.push(Instruction::with2(Code::Mov_r32_rm32, register(Word::Later), EAX)?);
    code.land(without);
    code.land(alone);
    const OSXSAVE: u32 = 27;
    code.push(Instruction::with2(Code::Bt_rm32_imm8, register(Word::Basic), OSXSAVE)?);
    let without = code.jump(Code::Jae_rel32_64)?;
    code.push(Instruction::with2(Code::Xor_r32_rm32, ECX, ECX)?);
    code.push(Instruction::with(Code::Xgetbv));
    code.push(Instruction::with2(Code::Mov_r32_rm32, xcr0, EAX)?);
    code.land(without);
    // Each bit is shifted in from below, the last feature's first.
    code.push(Instruction::with2(Code::Xor_r32_rm32, EAX, EAX)?);
    for &(_, word, bit, _) in PLACES.iter().rev() {
        code.push(Instruction::with2(Code::Bt_rm32_imm8, register(word), bit)?);
        code.push(Instruction::with2(Code::Adc_r64_rm64, RAX, RAX)?);
    }
    for state in [YMM, ZMM] {
        code.push(Instruction::with2(Code::Mov_r32_rm32, EDX, xcr0)?);
        code.push(Instruction::with2(Code::And_rm32_imm32, EDX, state)?);
        code.push(Instruction::with2(Code::Cmp_rm32_imm32, EDX, state)?);
        let kept = code.jump(Code::Je_rel32_64)?;
        let others = PLACES.iter().filter(|place| place.3 & state != state).map(|place| place.0);
        let others = bits(others).unwrap_or(0);
        code.push(Instruction::with2(Code::Mov_r64_imm64, RCX, others)?);
        code.push(Instruction::with2(Code::And_r64_rm64, RAX, RCX)?);
        code.land(kept);
    }
    code.push(Instruction::with2(Code::Mov_r64_imm64, RCX, KNOWN)?);
    code.push(Instruction::with2(Code::Or_r64_rm64, RAX, RCX)?);
    code.push(Instruction::with1(Code::Pop_r64, RBX)?);
    code.push(Instruction::with(Code::Retnq));
    code.finish()
}

/// Instructions in order, each at the "address" that is its number, from 1.
#[derive(Default)]
struct Assembler {
    instructions: Vec<Instruction>,
}

impl Assembler {
    fn next(&self) -> u64 {
        self.instructions.len() as u64 + 1
    }

    fn push(&mut self, mut instruction: Instruction) {
        instruction.set_ip(self.next());
        self.instructions.push(instruction);
    }

    fn cpuid(&mut self, leaf: u32) -> Result<(), IcedError> {
        self.push(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, leaf)?);
        self.push(Instruction::with2(Code::Xor_r32_rm32, Register::ECX, Register::ECX)?);
        self.push(Instruction::with(Code::Cpuid));
        Ok(())
    }

    /// A jump to where it will `land`.
    fn jump(&mut self, code: Code) -> Result<usize, IcedError> {
        self.push(Instruction::with_branch(code, 0)?);
        Ok(self.instructions.len() - 1)
    }

    /// The jump goes to the next instruction.
    fn land(&mut self, jump: usize) {
        let next = self.next();
        self.instructions[jump].set_near_branch64(next);
    }

    fn finish(self) -> Result<Vec<u8>, IcedError> {
        let block = InstructionBlock::new(&self.instructions, 0);
        Ok(BlockEncoder::encode(64, block, BlockEncoderOptions::NONE)?.code_buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_bits() {
        assert_eq!(bits(["sse3", "avx512vl"]), Some(1 | 1 << 14));
        assert_eq!(bits(["mmx"]), None);
        assert_eq!(bits([]), Some(0));
    }

    #[test]
    fn the_function_is_complete() {
        let code = function().unwrap();
        let mut decoder = iced_x86::Decoder::new(64, &code, 0);
        let codes: Vec<Code> = decoder.iter().map(|i| i.code()).collect();
        assert!(codes.ends_with(&[Code::Pop_r64, Code::Retnq]), "{codes:?}");
        assert_eq!(codes.iter().filter(|&&c| c == Code::Cpuid).count(), 9);
    }
}
