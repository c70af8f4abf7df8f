//! What kernels are written for: the abstract machine from which tiles, panels and block sizes follow.

/// The features of a target that kernels depend on. Two targets with equal machines get equal kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// For listings: `scalar`, `clif`, `avx2`, `avx512`.
    pub name: &'static str,
    /// Lanes of four bytes in a vector; 1 makes scalar code, which also has 8-byte types.
    pub lanes: u32,
    /// Vector registers that a kernel may keep values in.
    pub registers: u32,
    /// Whether a multiplication takes one operand from memory, in all lanes.
    pub broadcasts: bool,
    /// Whether `a * 2^n` is one instruction.
    pub scales: bool,
    /// Whether multiply-add is one instruction. Without it kernels multiply and add.
    pub fuses: bool,
    /// Whether floats are rounded to integers by an instruction. (SSE4.1 on x86-64, and all others.)
    pub rounds: bool,
    /// The largest offset that an address takes for nothing. Kernels that reach further take more
    /// pointers.
    pub max_displacement: i64,
    /// Whether the least significant byte of a number comes last. (Data is laid out for the target.)
    pub big_endian: bool,
    /// Bytes of the first-level data cache.
    pub l1: u64,
    /// Bytes of the second-level cache.
    pub l2: u64,
}

impl Machine {
    /// Four lanes through Cranelift. Of 16 registers it needs some for copies.
    pub const CLIF: Machine = Machine {
        name: "clif",
        lanes: 4,
        registers: 12,
        broadcasts: false,
        scales: false,
        fuses: false,
        rounds: false,
        max_displacement: i32::MAX as i64,
        big_endian: false,
        l1: 32 << 10,
        l2: 512 << 10,
    };

    /// AVX2 and FMA.
    pub const AVX2: Machine = Machine {
        name: "avx2",
        lanes: 8,
        registers: 16,
        fuses: true,
        rounds: true,
        ..Machine::CLIF
    };

    /// AVX-512 (F, BW, DQ, VL).
    pub const AVX512: Machine = Machine {
        name: "avx512",
        lanes: 16,
        registers: 32,
        broadcasts: true,
        scales: true,
        fuses: true,
        rounds: true,
        l2: 1 << 20,
        ..Machine::CLIF
    };

    /// The same target, one lane at a time: for element types that vectors do not have.
    #[must_use]
    pub fn scalar(self) -> Machine {
        Machine { name: "scalar", lanes: 1, broadcasts: false, scales: false, ..self }
    }
}
