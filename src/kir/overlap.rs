//! Whether a kernel may write over what it reads.
//!
//! A kernel that is called once for its whole range does its loads and stores in one order, which its text says: no
//! address but those of indices from memory depends on data. So it is known how far an operand that is written may lie
//! from one that is read, with bytes in common, so that no byte is written before it is read for the last time.

use super::*;
use cranelift_entity::SecondaryMap;

/// So many statements are gone through, at most.
const MOST: usize = 1 << 20;

/// How far an operand that is written may begin behind one that is read, in bytes: at most so far, as where rows come
/// in the order of memory, or at least so far, as where the last row comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clear {
    /// At most.
    pub at_most: i64,
    /// At least.
    pub at_least: i64,
}

/// Where operand `written` may lie over operand `read` when the kernel is called for its whole range; `None` where it
/// takes too long to find out, or cannot be known.
pub fn clear(kernel: &Kernel, read: usize, written: usize) -> Option<Clear> {
    let mut walk = Walk {
        operands: [read, written],
        known: SecondaryMap::with_capacity(kernel.values.len()),
        does: SecondaryMap::with_capacity(kernel.values.len()),
        clear: Clear { at_most: i64::MAX, at_least: i64::MIN },
        stored: None,
        left: MOST,
    };
    for (index, operand) in kernel.operands.iter().enumerate() {
        walk.known[operand.pointer] = Known::Pointer(index, Interval::exactly(0));
    }
    walk.look(&kernel.body);
    walk.known[kernel.range.begin] = Known::Index(Interval::exactly(0));
    walk.known[kernel.range.end] = Known::Index(Interval::exactly(kernel.range.extent));
    walk.block(&kernel.body)?;
    Some(walk.clear)
}

#[derive(Clone, Copy, Default)]
enum Known {
    #[default]
    Nothing,
    Index(Interval),
    /// Bytes from the start of an operand.
    Pointer(usize, Interval),
}

/// Both ends included.
#[derive(Clone, Copy)]
struct Interval {
    low: i64,
    high: i64,
}

impl Interval {
    fn exactly(value: i64) -> Interval {
        Interval { low: value, high: value }
    }

    fn plus(self, other: Interval) -> Interval {
        Interval { low: self.low + other.low, high: self.high + other.high }
    }

    fn times(self, other: Interval) -> Interval {
        let all = [self.low, self.high].map(|a| [other.low, other.high].map(|b| a * b));
        let all = all.as_flattened();
        let (low, high) = (all.iter().min(), all.iter().max());
        Interval { low: low.copied().unwrap_or(0), high: high.copied().unwrap_or(0) }
    }

    fn exact(self) -> Option<i64> {
        (self.low == self.high).then_some(self.low)
    }
}

/// What a block does to the two operands.
#[derive(Clone, Copy, Default)]
struct Does {
    reads: bool,
    writes: bool,
}

struct Walk {
    /// Which is read, and which is written.
    operands: [usize; 2],
    known: SecondaryMap<Value, Known>,
    /// Of each loop, by its index.
    does: SecondaryMap<Value, Does>,
    clear: Clear,
    /// The least byte that was stored so far, and the end of the greatest.
    stored: Option<(i64, i64)>,
    left: usize,
}

impl Walk {
    /// Finds what each loop does: from which operands pointers come is known without any numbers.
    fn look(&mut self, block: &Block) -> Does {
        let mut does = Does::default();
        for statement in block {
            match statement {
                Statement::Let(value, op) => {
                    if let Op::Offset { pointer, .. } = op {
                        self.known[*value] = self.known[*pointer];
                    }
                    if let Some((from, ..)) = op.loads() {
                        does.reads |= self.operand(from.pointer) == Some(self.operands[0]);
                    }
                }
                Statement::Store { to, .. } => {
                    does.writes |= self.operand(to.pointer) == Some(self.operands[1]);
                }
                Statement::Prefetch(_) => {}
                Statement::Loop(l) => {
                    l.pointers.iter().for_each(|p| self.known[p.value] = self.known[p.start]);
                    let inside = self.look(&l.body);
                    self.does[l.index] = inside;
                    does.reads |= inside.reads;
                    does.writes |= inside.writes;
                }
            }
        }
        does
    }

    fn operand(&self, pointer: Value) -> Option<usize> {
        match self.known[pointer] {
            Known::Pointer(operand, _) => Some(operand),
            Known::Nothing | Known::Index(_) => None,
        }
    }

    fn block(&mut self, block: &Block) -> Option<()> {
        for statement in block {
            self.left = self.left.checked_sub(1)?;
            match statement {
                Statement::Let(value, op) => self.op(*value, op)?,
                Statement::Store { to, memory, lanes, .. } => {
                    if let Some((low, end)) =
                        self.bytes(*to, *memory, i64::from(*lanes), self.operands[1])?
                    {
                        let (least, most) = self.stored.unwrap_or((low, end));
                        self.stored = Some((least.min(low), most.max(end)));
                    }
                }
                Statement::Prefetch(_) => {}
                Statement::Loop(l) => self.repeat(l)?,
            }
        }
        Some(())
    }

    /// Goes through a loop turn by turn where it both reads and writes; else all of its turns at once.
    fn repeat(&mut self, l: &Loop) -> Option<()> {
        let Does { reads, writes } = self.does[l.index];
        if !reads && !writes {
            return Some(());
        }
        let (from, to) = (self.index(l.from)?, self.index(l.to)?);
        let starts: Vec<(usize, Interval)> =
            l.pointers.iter().map(|p| self.pointer(p.start)).collect::<Option<_>>()?;
        if !(reads && writes) {
            let turns = Interval { low: 0, high: to.high - 1 - from.low };
            if turns.high < 0 {
                return Some(());
            }
            self.known[l.index] = Known::Index(Interval { low: from.low, high: to.high - 1 });
            for (p, &(operand, start)) in l.pointers.iter().zip(&starts) {
                let at = start.plus(turns.times(Interval::exactly(p.step)));
                self.known[p.value] = Known::Pointer(operand, at);
            }
            return self.block(&l.body);
        }
        let (from, to) = (from.exact()?, to.exact()?);
        for turn in from..to {
            self.known[l.index] = Known::Index(Interval::exactly(turn));
            for (p, &(operand, start)) in l.pointers.iter().zip(&starts) {
                let at = start.plus(Interval::exactly((turn - from) * p.step));
                self.known[p.value] = Known::Pointer(operand, at);
            }
            self.block(&l.body)?;
        }
        Some(())
    }

    fn op(&mut self, value: Value, op: &Op) -> Option<()> {
        if let Some((from, memory, lanes)) = op.loads() {
            self.load(from, memory, i64::from(lanes))?;
        }
        if let Op::LoadIndex { extent, .. } = *op {
            self.known[value] = Known::Index(Interval { low: 0, high: extent - 1 });
        }
        if let Op::Offset { pointer, index, scale } = *op {
            let ((operand, at), index) = (self.pointer(pointer)?, self.index(index)?);
            let at = at.plus(index.times(Interval::exactly(scale)));
            self.known[value] = Known::Pointer(operand, at);
        }
        if let Op::Index(op, a, b) = *op {
            let (a, b) = (self.index(Scalar::Value(a))?, self.index(b)?);
            let each =
                |f: fn(i64, i64) -> i64| Interval { low: f(a.low, b.low), high: f(a.high, b.high) };
            let result = match op {
                IndexOp::Add => a.plus(b),
                IndexOp::Mul => a.times(b),
                IndexOp::Min => each(i64::min),
                IndexOp::Max => each(i64::max),
                IndexOp::Div => {
                    let by = b.exact().filter(|&by| by > 0)?;
                    Interval { low: a.low.div_euclid(by), high: a.high.div_euclid(by) }
                }
                IndexOp::Rem => {
                    let by = b.exact().filter(|&by| by > 0)?;
                    match a.exact() {
                        Some(a) => Interval::exactly(a.rem_euclid(by)),
                        None => Interval { low: 0, high: by - 1 },
                    }
                }
            };
            self.known[value] = Known::Index(result);
        }
        Some(())
    }

    /// Nothing of what is loaded was stored to before.
    fn load(&mut self, from: Address, memory: Memory, elements: i64) -> Option<()> {
        let bytes = self.bytes(from, memory, elements, self.operands[0])?;
        if let (Some((low, end)), Some((least, most))) = (bytes, self.stored) {
            self.clear.at_most = self.clear.at_most.min(low - most);
            self.clear.at_least = self.clear.at_least.max(end - least);
        }
        Some(())
    }

    /// Which bytes of an operand may be meant, from the least one to the end; `None` inside where they are another's.
    fn bytes(
        &self,
        at: Address,
        memory: Memory,
        elements: i64,
        of: usize,
    ) -> Option<Option<(i64, i64)>> {
        let (operand, from) = self.pointer(at.pointer)?;
        let offset = i64::from(at.offset);
        let end = from.high + offset + elements * memory.bytes();
        Some((operand == of).then_some((from.low + offset, end)))
    }

    fn index(&self, scalar: Scalar) -> Option<Interval> {
        match scalar {
            Scalar::Constant(c) => Some(Interval::exactly(c)),
            Scalar::Value(value) => match self.known[value] {
                Known::Index(interval) => Some(interval),
                Known::Nothing | Known::Pointer(..) => None,
            },
        }
    }

    fn pointer(&self, value: Value) -> Option<(usize, Interval)> {
        match self.known[value] {
            Known::Pointer(operand, at) => Some((operand, at)),
            Known::Nothing | Known::Index(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::build::Builder;
    use crate::machine::Machine;

    /// Of each of `rows` rows, `window` elements from `ahead` on are read, `wide` elements apart, and one is written.
    fn rows(rows: i64, [wide, window, step]: [i64; 3]) -> Kernel {
        let size = 4;
        let mut b = Builder::new("rows", Machine::AVX2.scalar(), rows);
        let x = b.input("x", ((rows - 1) * wide + window) * size);
        let y = b.output("y", ((rows - 1) * step.abs() + 1) * size);
        let (begin, end) = (Scalar::Value(b.begin()), Scalar::Value(b.end()));
        let first = if step < 0 { b.offset(y, 1, (1 - rows) * step * size) } else { y };
        let (x, y) = (b.offset(x, begin, wide * size), b.offset(first, begin, step * size));
        b.fold(begin, end, &[(x, wide * size), (y, step * size)], &[], |b, it| {
            let zero = b.f32(0.0);
            let sum = b.fold(0, window, &[(it.pointers[0], size)], &[zero], |b, it| {
                let value = b.load(it.pointers[0], 0);
                vec![b.add(it.carried[0], value)]
            })[0];
            b.store_as(Memory::F32, sum, it.pointers[1], 0, 1);
            vec![]
        });
        b.finish()
    }

    #[test]
    fn rows_in_order() {
        // Row i is elements 4 i to 4 i + 6, and its result is element i: the first one may be at the start of row 1.
        let found = clear(&rows(5, [4, 6, 1]), 0, 1);
        assert_eq!(found, Some(Clear { at_most: 12, at_least: 88 }));
        // Rows that grow: the result ends where the last row begins, at the latest.
        let found = clear(&rows(5, [1, 1, 3]), 0, 1).map(|clear| clear.at_most);
        assert_eq!(found, Some(4 * (4 - 9 - 1)));
        // Results from the last one on: they may lie before all that is read later, or behind it.
        let found = clear(&rows(5, [1, 1, -3]), 0, 1);
        assert_eq!(found, Some(Clear { at_most: 4 * (1 - 13), at_least: 8 }));
    }
}
