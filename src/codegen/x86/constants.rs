//! Constants that stay in registers. With 256 bits, every operand from the constants behind the code is a
//! load of a whole vector, and a processor makes hardly more of those than it adds and multiplies. So where
//! a block leaves registers over, a constant is loaded once: for all iterations of a loop without another
//! one inside, or else for neighbouring uses.
//!
//! It knows what is alive where, and so how many registers are free, from the program before registers
//! are allocated.

use super::*;
use iced_x86::Code::*;
use regalloc2::{Inst as InstIndex, OperandKind};
use std::collections::{BTreeMap, BTreeSet};

/// So many vectors may be alive at a time: of 16 registers the allocator keeps some for its own moves.
const MOST: usize = 14;

/// Lets constants stay in registers where there is room.
pub(super) fn keep(program: &mut Program) {
    if program.width != Width::Avx2 || program.pool.is_empty() {
        return;
    }
    let out = alive_at_end(program);
    let mut changes = Changes { loads: vec![], gone: BTreeSet::new() };
    for (block, out) in out.iter().enumerate() {
        Room::new(program, block, out).fill(program, &mut changes);
    }
    changes.apply(program);
}

/// What becomes of a program's instructions.
struct Changes {
    loads: Vec<Load>,
    /// Those that do nothing any more.
    gone: BTreeSet<usize>,
}

/// A constant that is loaded into a register, before the instruction of this index.
struct Load {
    before: usize,
    offset: u32,
    to: VReg,
}

/// The instructions of a block.
fn range(program: &Program, block: usize) -> std::ops::Range<usize> {
    let all = program.blocks[block].insts.expect("every block is finished");
    all.first().index()..all.last().index() + 1
}

/// The vectors among the operands of one kind.
fn vectors(inst: &Inst, kind: OperandKind) -> impl Iterator<Item = VReg> + '_ {
    let of_kind = inst.operands.iter().filter(move |operand| operand.kind() == kind);
    of_kind.map(|operand| operand.vreg()).filter(|vreg| vreg.class() == VECTOR)
}

/// The vectors that a block passes on to the parameters of the next one.
fn passed(block: &BasicBlock) -> impl Iterator<Item = VReg> + '_ {
    block.arguments.iter().copied().filter(|vreg| vreg.class() == VECTOR)
}

/// The vectors that are used behind each block.
fn alive_at_end(program: &Program) -> Vec<BTreeSet<VReg>> {
    let count = program.blocks.len();
    let mut starts: Vec<BTreeSet<VReg>> = vec![BTreeSet::new(); count];
    let mut ends = starts.clone();
    let mut changed = true;
    while changed {
        changed = false;
        for at in (0..count).rev() {
            let block = &program.blocks[at];
            let successors = block.successors.iter();
            let end: BTreeSet<VReg> =
                successors.flat_map(|s| starts[s.index()].iter().copied()).collect();
            let mut alive = end.clone();
            alive.extend(passed(block));
            for inst in program.insts[range(program, at)].iter().rev() {
                for vreg in vectors(inst, OperandKind::Def) {
                    alive.remove(&vreg);
                }
                alive.extend(vectors(inst, OperandKind::Use));
            }
            alive.retain(|vreg| !block.parameters.contains(vreg));
            ends[at] = end;
            if alive != starts[at] {
                starts[at] = alive;
                changed = true;
            }
        }
    }
    ends
}

/// A block's constants, and how many vectors are alive at each of its instructions.
struct Room {
    first: usize,
    alive: Vec<usize>,
    /// For each constant in the pool the instructions that have it as an operand, or load it: then with
    /// the register, and the last instruction that uses that.
    uses: BTreeMap<u32, Vec<Use>>,
    /// Where an innermost loop is entered from: the end of that block.
    entry: Option<usize>,
}

#[derive(Clone, Copy)]
struct Use {
    first: usize,
    last: usize,
    loaded: Option<VReg>,
}

impl Room {
    fn new(program: &Program, block: usize, out: &BTreeSet<VReg>) -> Room {
        let (all, basic) = (range(program, block), &program.blocks[block]);
        let mut now = out.clone();
        now.extend(passed(basic));
        let beyond = now.clone();
        let mut alive = vec![0; all.len()];
        let mut last: BTreeMap<VReg, usize> = BTreeMap::new();
        let mut uses: BTreeMap<u32, Vec<Use>> = BTreeMap::new();
        for at in all.clone().rev() {
            let inst = &program.insts[at];
            now.extend(vectors(inst, OperandKind::Def));
            let behind = now.len();
            for vreg in vectors(inst, OperandKind::Def) {
                now.remove(&vreg);
            }
            now.extend(vectors(inst, OperandKind::Use));
            alive[at - all.start] = behind.max(now.len());
            for vreg in vectors(inst, OperandKind::Use) {
                last.entry(vreg).or_insert(at);
            }
            let Some(offset) = constant(inst) else { continue };
            let loaded = loads_only(inst).then(|| inst.operands[0].vreg());
            if loaded.is_some_and(|vreg| beyond.contains(&vreg)) {
                continue;
            }
            let end = loaded.and_then(|vreg| last.get(&vreg).copied()).unwrap_or(at);
            uses.entry(offset).or_default().push(Use { first: at, last: end, loaded });
        }
        uses.values_mut().for_each(|uses| uses.reverse());
        Room { first: all.start, alive, uses, entry: entry(program, block) }
    }

    /// Chooses constants, renames their uses and adds what loads them.
    fn fill(mut self, program: &mut Program, changes: &mut Changes) {
        let mut constants: Vec<(u32, Vec<Use>)> =
            std::mem::take(&mut self.uses).into_iter().collect();
        constants.sort_by_key(|(_, uses)| std::cmp::Reverse(uses.len()));
        for (offset, uses) in constants {
            let all = self.first..self.first + self.alive.len();
            if let Some(entry) = self.entry.filter(|_| self.has_room(all.clone())) {
                self.take(all);
                let to = changes.rename(program, &uses);
                changes.loads.push(Load { before: entry, offset, to });
                continue;
            }
            // Neighbours between which there is room all along.
            let mut rest = &uses[..];
            while let [first, others @ ..] = rest {
                let mut known = first.first;
                let near = others.iter().take_while(|next| {
                    let free = self.has_room(known..next.last + 1);
                    known = known.max(next.last);
                    free
                });
                let (some, behind) = rest.split_at(near.count() + 1);
                rest = behind;
                if some.len() > 1 {
                    let end = some.iter().map(|u| u.last + 1).max().unwrap_or(first.first);
                    self.take(first.first..end);
                    let to = changes.rename(program, some);
                    changes.loads.push(Load { before: first.first, offset, to });
                }
            }
        }
    }

    fn has_room(&self, range: std::ops::Range<usize>) -> bool {
        range.into_iter().all(|at| self.alive[at - self.first] < MOST)
    }

    fn take(&mut self, range: std::ops::Range<usize>) {
        range.for_each(|at| self.alive[at - self.first] += 1);
    }
}

/// The end of the block from which one that loops over itself is entered.
fn entry(program: &Program, block: usize) -> Option<usize> {
    let this = Block::new(block);
    let basic = &program.blocks[block];
    let is_latch = |b: &Block| program.blocks[b.index()].successors == [this];
    let latch = *basic.successors.iter().find(|b| is_latch(b))?;
    let before = basic.predecessors.iter().find(|&&b| b != latch)?;
    Some(range(program, before.index()).end - 1)
}

/// Where the constant is that an instruction has as an operand.
fn constant(inst: &Inst) -> Option<u32> {
    inst.arguments.iter().find_map(|argument| match argument {
        Argument::Pool { offset, broadcast: false } => Some(*offset),
        Argument::Pool { broadcast: true, .. }
        | Argument::Register(_)
        | Argument::Small(_)
        | Argument::Lower(_)
        | Argument::Memory { .. }
        | Argument::Byte(_)
        | Argument::Integer(_)
        | Argument::Long(_) => None,
    })
}

/// Whether an instruction does nothing but load a constant.
fn loads_only(inst: &Inst) -> bool {
    let Kind::Code(code) = inst.kind else { return false };
    matches!(
        code,
        VEX_Vbroadcastss_ymm_m32
            | VEX_Vbroadcastss_xmm_m32
            | VEX_Vbroadcastsd_ymm_m64
            | VEX_Vmovddup_xmm_xmmm64
            | VEX_Vmovups_ymm_ymmm256
            | VEX_Vmovups_xmm_xmmm128
            | VEX_Vmovupd_ymm_ymmm256
            | VEX_Vmovupd_xmm_xmmm128
    )
}

impl Changes {
    /// Makes these uses of a constant uses of a new register.
    fn rename(&mut self, program: &mut Program, uses: &[Use]) -> VReg {
        program.registers += 1;
        let to = VReg::new(program.registers - 1, VECTOR);
        for &Use { first, last, loaded } in uses {
            let Some(from) = loaded else {
                let inst = &mut program.insts[first];
                inst.operands.push(Operand::any_use(to));
                let operand = inst.operands.len() - 1;
                for argument in &mut inst.arguments {
                    if matches!(argument, Argument::Pool { .. }) {
                        *argument = Argument::Register(operand);
                    }
                }
                continue;
            };
            self.gone.insert(first);
            for inst in &mut program.insts[first + 1..=last] {
                for operand in inst.operands.iter_mut().filter(|o| o.vreg() == from) {
                    let (kind, at) = (operand.kind(), operand.pos());
                    *operand = Operand::new(to, operand.constraint(), kind, at);
                }
            }
        }
        to
    }

    /// Puts the loads where they belong, and takes away what does nothing.
    fn apply(mut self, program: &mut Program) {
        self.loads.sort_by_key(|load| load.before);
        let mut loads = self.loads.into_iter().peekable();
        let mut starts = Vec::with_capacity(program.insts.len() + 1);
        let mut insts = Vec::with_capacity(program.insts.len() + loads.len());
        for (at, inst) in std::mem::take(&mut program.insts).into_iter().enumerate() {
            starts.push(insts.len());
            while let Some(Load { offset, to, .. }) = loads.next_if(|load| load.before == at) {
                insts.push(Inst {
                    kind: Kind::Code(VEX_Vmovups_ymm_ymmm256),
                    half: false,
                    operands: vec![Operand::reg_def(to)],
                    arguments: vec![
                        Argument::Register(0),
                        Argument::Pool { offset, broadcast: false },
                    ],
                    mask: None,
                });
            }
            if !self.gone.contains(&at) {
                insts.push(inst);
            }
        }
        starts.push(insts.len());
        for block in &mut program.blocks {
            block.insts = block.insts.map(|all| {
                let [first, end] = [all.first().index(), all.last().index() + 1];
                InstRange::new(InstIndex::new(starts[first]), InstIndex::new(starts[end]))
            });
        }
        program.insts = insts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::build::Builder;
    use crate::kir::verify::verify;
    use crate::kir::{IndexOp, Kernel, Value};
    use crate::machine::Machine;

    /// For each block how many constants its instructions load, and how many they have as operands otherwise.
    fn of_blocks(program: &Program) -> Vec<[usize; 2]> {
        let of_block = |block| {
            let insts = &program.insts[range(program, block)];
            let (loads, operands): (Vec<&Inst>, Vec<_>) = (insts.iter())
                .filter(|inst| constant(inst).is_some())
                .partition(|inst| loads_only(inst));
            [loads.len(), operands.len()]
        };
        (0..program.blocks.len()).map(of_block).filter(|&counts| counts != [0, 0]).collect()
    }

    /// The blocks' constants (those blocks that have any), before and after; and that nothing is spilled.
    fn kept(kernel: &Kernel) -> [Vec<[usize; 2]>; 2] {
        let checked = verify(kernel).expect("the kernel is right");
        let mut program = isel::select(&checked);
        let before = of_blocks(&program);
        keep(&mut program);
        let allocation = regalloc::allocate(&program, true);
        assert_eq!(allocation.num_spillslots, 0);
        encode::encode(&program, &allocation);
        [before, of_blocks(&program)]
    }

    /// A kernel with an element that comes out of what `body` makes of one.
    fn kernel(body: impl FnOnce(&mut Builder, Value) -> Value) -> Kernel {
        let mut b = Builder::new("k", Machine::AVX2, 1);
        let (x, y) = (b.input("x", 32), b.output("y", 32));
        let x = b.load(x, 0);
        let result = body(&mut b, x);
        b.store_as(crate::kir::Memory::F32, result, y, 0, 8);
        b.finish()
    }

    /// So many constants are added, one behind the other.
    fn sums(b: &mut Builder, x: Value, count: usize) -> Value {
        (0..count).fold(x, |x, i| {
            let c = b.f32(i as f32 + 1.0);
            b.add(x, c)
        })
    }

    /// A loop over such sums.
    fn turns(b: &mut Builder, x: Value, count: usize) -> Value {
        b.fold(0, 5, &[], &[x], |b, it| vec![sums(b, it.carried[0], count)])[0]
    }

    #[test]
    fn loops_find_their_constants_in_registers() {
        assert_eq!(kept(&kernel(|b, x| turns(b, x, 4))), [vec![[0, 4]], vec![[4, 0]]]);
        // One value is carried; the constants that have no room are operands.
        let [before, after] = kept(&kernel(|b, x| turns(b, x, 20)));
        assert_eq!(before, [[0, 20]]);
        assert_eq!(after, [[MOST - 1, 0], [0, 20 + 1 - MOST]]);
    }

    #[test]
    fn the_innermost_loop_has_the_registers() {
        let outer = kernel(|b, x| {
            b.fold(0, 3, &[], &[x], |b, it| {
                let x = sums(b, it.carried[0], 1);
                vec![turns(b, x, 2)]
            })[0]
        });
        // Those of the inner loop come before it in each turn of the outer one.
        assert_eq!(kept(&outer), [vec![[0, 1], [0, 2]], vec![[2, 1]]]);
    }

    #[test]
    fn each_path_has_its_own() {
        // A loop that may not run, and the same constants behind it.
        let branch = kernel(|b, x| {
            let (begin, end) = (b.begin(), b.end());
            let to = b.index(IndexOp::Max, begin, end);
            let x = b.fold(begin, to, &[], &[x], |b, it| vec![sums(b, it.carried[0], 2)])[0];
            let x = sums(b, x, 2);
            sums(b, x, 2)
        });
        assert_eq!(kept(&branch), [vec![[0, 2], [0, 4]], vec![[2, 0], [2, 0]]]);
    }

    #[test]
    fn neighbours_share_where_there_is_room() {
        // No loop: a constant that is used once stays where it is.
        assert_eq!(kept(&kernel(|b, x| sums(b, x, 3))), [vec![[0, 3]], vec![[0, 3]]]);
        let twice = |b: &mut Builder, x| {
            let x = sums(b, x, 2);
            sums(b, x, 2)
        };
        assert_eq!(kept(&kernel(twice)), [vec![[0, 4]], vec![[2, 0]]]);
        // Between two uses all registers are taken.
        let crowded = kernel(|b, x| {
            let x = sums(b, x, 1);
            let many: Vec<Value> = (0..MOST).map(|_| b.mul(x, x)).collect();
            let sum = many.into_iter().reduce(|sum, x| b.add(sum, x)).expect("there are some");
            sums(b, sum, 1)
        });
        assert_eq!(kept(&crowded), [vec![[0, 2]], vec![[0, 2]]]);
    }
}
