//! Random element-wise kernels, for the comparison of the emitters with each other: each lane's
//! result depends on its own input only, so that the number of lanes makes no difference.

use crate::cases::{Case, map};
use crate::data::{Data, Tolerance, some};
use rlx_aot::kir::build::Builder;
use rlx_aot::kir::{Binary, Comparison, IndexOp, Memory, Shift, Type, Unary, Value};

pub(crate) fn case(seed: u64, converts: bool) -> Case {
    let elements = 100 + seed as i64 % 40;
    let x: Vec<_> = some(elements, seed as usize).iter().map(|x| x * 100.0).collect();
    let i: Vec<_> = x.iter().enumerate().map(|(n, x)| (x.to_bits() >> (n % 25)) as i32).collect();
    let inputs = vec![Data::f32(x), Data::i32(i)];
    let unset = Data::unset(Memory::F32, elements as usize);
    let f = move |b: &mut Builder, x: &[Value]| function(b, x[0], x[1], seed, converts);
    let case = map(format!("random {seed}"), inputs, unset, f);
    Case { expected: Box::new(|_| vec![]), tolerance: Tolerance::Exact, ..case }
}

/// A function with many values alive at once and loops in it, the same for the same seed.
fn function(b: &mut Builder, x: Value, i: Value, seed: u64, converts: bool) -> Value {
    let mut r =
        Random { state: seed * 2 + 1, floats: vec![x], integers: vec![i], masks: vec![], converts };
    let length = r.below(60);
    (0..4 + length).for_each(|_| r.step(b));
    for _ in 0..r.below(3) {
        let (count, body) = (1 + r.below(4), r.below(20));
        let mut start: Vec<_> = (0..r.below(24)).map(|_| r.float()).collect();
        start.extend((0..r.below(4)).map(|_| r.integer()));
        let outside = [r.floats.len(), r.integers.len(), r.masks.len()];
        // Some loops have a bound that is not known to be above zero.
        let begin = b.begin();
        let bound = b.index(IndexOp::Mul, begin, 0);
        let bound = b.index(IndexOp::Add, bound, count as i64);
        let bound = b.index(IndexOp::Max, bound, begin);
        let bound = b.index(IndexOp::Min, bound, count as i64);
        let results = b.fold(0, bound, &[], &start, |b, it| {
            it.carried.iter().for_each(|&v| r.keep(b, v));
            r.integers.push(b.from_index(Type::I32, it.index));
            (0..body).for_each(|_| r.step(b));
            let next = it.carried.iter().map(|&v| r.like(b, v)).collect();
            r.floats.truncate(outside[0]);
            r.integers.truncate(outside[1]);
            r.masks.truncate(outside[2]);
            next
        });
        results.into_iter().for_each(|v| r.keep(b, v));
        (0..r.below(10)).for_each(|_| r.step(b));
    }
    // Every value is used at the end, without its NaNs.
    let zero = b.f32(0.0);
    r.floats.extend(r.integers.iter().map(|&v| b.unary(Unary::ToF32, v)));
    r.floats.extend(r.masks.iter().map(|&mask| b.select(mask, x, zero)));
    r.floats.iter().fold(zero, |sum, &v| {
        let v = within(b, v, 1e6);
        b.add(sum, v)
    })
}

/// Within limits; for a NaN the upper one, as the second operand of `min`.
fn within(b: &mut Builder, v: Value, limit: f32) -> Value {
    let [low, high] = [-limit, limit].map(|c| b.f32(c));
    let v = b.min(v, high);
    b.max(v, low)
}

struct Random {
    state: u64,
    floats: Vec<Value>,
    integers: Vec<Value>,
    masks: Vec<Value>,
    converts: bool,
}

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 33) % n
    }

    fn float(&mut self) -> Value {
        let i = self.below(self.floats.len() as u64);
        self.floats[i as usize]
    }

    fn integer(&mut self) -> Value {
        let i = self.below(self.integers.len() as u64);
        self.integers[i as usize]
    }

    /// Of the type of `v`.
    fn like(&mut self, b: &Builder, v: Value) -> Value {
        if b.type_of(v) == Type::F32 { self.float() } else { self.integer() }
    }

    fn keep(&mut self, b: &Builder, v: Value) {
        match b.type_of(v) {
            Type::F32 => self.floats.push(v),
            Type::I32 => self.integers.push(v),
            Type::Mask => self.masks.push(v),
            Type::Index | Type::Pointer | Type::F64 | Type::I64 => {}
        }
    }

    fn step(&mut self, b: &mut Builder) {
        let value = match self.below(3) {
            0 => self.integer_step(b),
            _ => self.float_step(b),
        };
        self.keep(b, value);
    }

    fn float_step(&mut self, b: &mut Builder) -> Value {
        let [p, q, s] = [(); 3].map(|()| self.float());
        let small = self.below(31) as u8;
        match self.below(20) {
            0 => b.f32(f32::from(small) / 4.0 - 2.0),
            1 => b.add(p, q),
            2 => b.sub(p, q),
            3 => b.mul(p, q),
            4 => b.div(p, q),
            5 => b.min(p, q),
            6 => b.max(p, q),
            7..=9 => b.mul_add(p, q, s),
            10 => b.sqrt(p),
            11 => b.round(p),
            12 => b.floor(p),
            13 => b.ceil(p),
            14 => b.trunc(p),
            15 => b.neg(p),
            16 => b.abs(p),
            17 => {
                let i = self.integer();
                b.unary(Unary::ToF32, i)
            }
            _ => match self.mask() {
                Some(mask) => b.select(mask, p, q),
                None => b.sub(q, p),
            },
        }
    }

    fn integer_step(&mut self, b: &mut Builder) -> Value {
        use Binary::{Add, And, Max, Min, Mul, Or, Sub, Xor};
        let [i, j] = [(); 2].map(|()| self.integer());
        let [p, q] = [(); 2].map(|()| self.float());
        let small = self.below(31) as u8;
        let comparison =
            [Comparison::Equal, Comparison::Less, Comparison::LessEqual][small as usize % 3];
        match self.below(16) {
            0 => b.i32(i32::from(small) * 1234 - 9999),
            1..=5 => {
                let op = [Add, Sub, Mul, Min, Max, And, Or, Xor][small as usize % 8];
                b.binary(op, i, j)
            }
            6 => {
                let op = [Unary::Neg, Unary::Abs, Unary::Not][small as usize % 3];
                b.unary(op, i)
            }
            7 | 8 => {
                let op = [Shift::Left, Shift::RightSigned, Shift::RightUnsigned];
                b.shift(op[small as usize % 3], i, small)
            }
            9 => b.compare(comparison, i, j),
            10 | 11 => b.compare(comparison, p, q),
            12 => match (self.mask(), self.mask()) {
                (Some(mask), Some(_)) if small.is_multiple_of(4) => b.not(mask),
                (Some(a), Some(c)) => b.binary([And, Or, Xor][small as usize % 3], a, c),
                _ => b.less(q, p),
            },
            13 => match self.mask() {
                Some(mask) => b.select(mask, i, j),
                None => b.add(i, i),
            },
            _ => {
                let v = within(b, p, 1e6);
                let op = if self.converts { Unary::ToI32 } else { Unary::ToBits };
                b.unary(op, v)
            }
        }
    }

    fn mask(&mut self) -> Option<Value> {
        let i = self.below(self.masks.len().max(1) as u64);
        self.masks.get(i as usize).copied()
    }
}
