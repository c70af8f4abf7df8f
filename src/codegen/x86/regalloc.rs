//! The program as regalloc2 sees it, and the registers it may use.

use super::*;
use regalloc2::{Function, Inst as InstIndex, MachineEnv, Output, PReg, PRegSet, RegallocOptions};

/// Where the parameters arrive: rdi, rsi, rdx.
pub(super) const PARAMETERS: [usize; 3] = [7, 6, 2];
/// Saved by the callee: rbx, rbp, r12 to r15.
pub(super) const SAVED: [usize; 6] = [3, 5, 12, 13, 14, 15];

pub(super) fn allocate(program: &Program, check: bool) -> Output {
    let set = |class, registers: &mut dyn Iterator<Item = usize>| {
        registers.map(|r| PReg::new(r, class)).collect::<PRegSet>()
    };
    let vectors = if program.width == Width::Avx512 { 32 } else { 16 };
    let env = MachineEnv {
        preferred_regs_by_class: [
            set(INTEGER, &mut [0, 1, 2, 6, 7, 8, 9, 10, 11].into_iter()),
            set(VECTOR, &mut (0..vectors)),
            // k0 as a write mask means none.
            set(MASK, &mut (1..8)),
        ],
        non_preferred_regs_by_class: [
            set(INTEGER, &mut SAVED.into_iter()),
            PRegSet::empty(),
            PRegSet::empty(),
        ],
        scratch_by_class: [None; 3],
        fixed_stack_slots: vec![],
    };
    let options = RegallocOptions { validate_ssa: check, ..Default::default() };
    let output = regalloc2::run(program, &env, &options)
        .expect("the program is in the form that regalloc2 asks for");
    if check {
        let mut checker = regalloc2::checker::Checker::new(program, &env);
        checker.prepare(&output);
        checker.run().expect("regalloc2's result passes its checker");
    }
    output
}

impl Function for Program {
    fn num_insts(&self) -> usize {
        self.insts.len()
    }

    fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn entry_block(&self) -> Block {
        Block::new(0)
    }

    fn block_insns(&self, block: Block) -> InstRange {
        self.blocks[block.index()].insts.expect("every block is finished")
    }

    fn block_succs(&self, block: Block) -> &[Block] {
        &self.blocks[block.index()].successors
    }

    fn block_preds(&self, block: Block) -> &[Block] {
        &self.blocks[block.index()].predecessors
    }

    fn block_params(&self, block: Block) -> &[VReg] {
        &self.blocks[block.index()].parameters
    }

    fn is_ret(&self, inst: InstIndex) -> bool {
        matches!(self.insts[inst.index()].kind, Kind::Return)
    }

    fn is_branch(&self, inst: InstIndex) -> bool {
        matches!(self.insts[inst.index()].kind, Kind::Jump | Kind::Branch(_))
    }

    fn branch_blockparams(&self, block: Block, _: InstIndex, _: usize) -> &[VReg] {
        &self.blocks[block.index()].arguments
    }

    fn inst_operands(&self, inst: InstIndex) -> &[Operand] {
        &self.insts[inst.index()].operands
    }

    fn inst_clobbers(&self, _: InstIndex) -> PRegSet {
        PRegSet::empty()
    }

    fn num_vregs(&self) -> usize {
        self.registers
    }

    /// In slots of eight bytes.
    fn spillslot_size(&self, class: RegClass) -> usize {
        match (class, self.width) {
            (VECTOR, Width::Avx2) => 4,
            (VECTOR, Width::Avx512) => 8,
            (INTEGER | MASK, _) => 1,
        }
    }
}
