//! What takes several operations, on some machines or on all.

use super::*;

impl Builder {
    /// `a * b + c` of floats: rounded once where the machine fuses, else twice.
    pub fn mul_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.kernel.machine.fuses {
            return self.define(self.type_of(a), Op::MulAdd(a, b, c));
        }
        let product = self.mul(a, b);
        self.add(product, c)
    }

    /// The bytes of `I32` as a factor for [`Builder::dot`]: the left ones have no signs, the right ones have.
    pub fn bytes(&mut self, of: Value, signed: bool) -> Vec<Value> {
        let machine = self.kernel.machine;
        if machine.dots {
            return vec![of];
        }
        if machine.lanes > 1 {
            let bytes = |upper| Op::Bytes { of, upper, signed };
            return [false, true].map(|upper| self.define(Type::I32, bytes(upper))).to_vec();
        }
        let kind = if signed { Shift::RightSigned } else { Shift::RightUnsigned };
        let mut byte = |up: u8| {
            let high = self.shift(Shift::Left, of, up);
            self.shift(kind, high, 24)
        };
        [24, 16, 8, 0].map(&mut byte).to_vec()
    }

    /// `sum` plus, in each lane, the products of four bytes by four bytes: exactly, but for sums that wrap.
    pub fn dot(&mut self, left: &[Value], right: &[Value], sum: Value) -> Value {
        match (left, right) {
            (&[left], &[right]) => self.define(Type::I32, Op::Dot { left, right, sum }),
            _ => left.iter().zip(right).fold(sum, |sum, (&left, &right)| {
                let product = match self.kernel.machine.lanes {
                    1 => self.mul(left, right),
                    _ => self.define(Type::I32, Op::Pairs(left, right)),
                };
                self.add(sum, product)
            }),
        }
    }

    /// `sum` plus the products of bytes without signs, each widened to a lane, by bytes with signs.
    pub fn byte_product(&mut self, left: Value, right: Value, sum: Value) -> Value {
        let product = match self.kernel.machine.lanes {
            1 => self.mul(left, right),
            // The upper half of the left one is zero.
            _ => self.define(Type::I32, Op::Pairs(left, right)),
        };
        self.add(sum, product)
    }

    /// To the nearest integer, ties to even. Like the next three, it keeps NaN, infinities and the
    /// sign of zeros.
    pub fn round(&mut self, a: Value) -> Value {
        if self.kernel.machine.rounds {
            return self.unary(Unary::Round, a);
        }
        let absolute = self.abs(a);
        let rounded = self.round_positive(absolute);
        self.copy_sign(rounded, a)
    }

    /// The next integer downwards.
    pub fn floor(&mut self, a: Value) -> Value {
        if self.kernel.machine.rounds {
            return self.unary(Unary::Floor, a);
        }
        let rounded = self.round(a);
        let above = self.less(a, rounded);
        self.corrected(rounded, above, -1.0, a)
    }

    /// The next integer upwards.
    pub fn ceil(&mut self, a: Value) -> Value {
        if self.kernel.machine.rounds {
            return self.unary(Unary::Ceil, a);
        }
        let rounded = self.round(a);
        let below = self.less(rounded, a);
        self.corrected(rounded, below, 1.0, a)
    }

    /// The next integer towards zero.
    pub fn trunc(&mut self, a: Value) -> Value {
        if self.kernel.machine.rounds {
            return self.unary(Unary::Trunc, a);
        }
        let absolute = self.abs(a);
        let rounded = self.round_positive(absolute);
        let above = self.less(absolute, rounded);
        self.corrected(rounded, above, -1.0, a)
    }

    /// Adding a number whose last bit is 1 rounds; what is larger has no fraction (or is a NaN).
    fn round_positive(&mut self, a: Value) -> Value {
        let ty = self.type_of(a);
        let whole = if ty == Type::F64 { (1u64 << 52) as f64 } else { (1u64 << 23) as f64 };
        let whole = self.float(ty, whole);
        let sum = self.add(a, whole);
        let rounded = self.sub(sum, whole);
        let small = self.less(a, whole);
        self.select(small, rounded, a)
    }

    /// `rounded` plus `by` where the mask is set, with the sign of `a`.
    fn corrected(&mut self, rounded: Value, mask: Value, by: f64, a: Value) -> Value {
        let by = self.float(self.type_of(a), by);
        let other = self.add(rounded, by);
        let result = self.select(mask, other, rounded);
        self.copy_sign(result, a)
    }

    /// The magnitude of `a` with the sign bit of `sign`.
    pub fn copy_sign(&mut self, a: Value, sign: Value) -> Value {
        let ty = self.type_of(a);
        let absolute = self.abs(a);
        let [absolute, sign] = [absolute, sign].map(|v| self.unary(Unary::ToBits, v));
        let bit = match ty {
            Type::F64 => self.i64(i64::MIN),
            _ => self.i32(i32::MIN),
        };
        let sign = self.and(sign, bit);
        let bits = self.or(absolute, sign);
        self.unary(Unary::FromBits, bits)
    }

    /// `I32` of `F32`, towards zero: the nearest number there is when it does not fit, 0 for NaN.
    pub fn to_i32_saturating(&mut self, a: Value) -> Value {
        let value = self.unary(Unary::ToI32, a);
        let [low, high] = [-2147483648.0, 2147483648.0].map(|c| self.f32(c));
        let [least, most, zero] = [i32::MIN, i32::MAX, 0].map(|c| self.i32(c));
        let (above, below) = (self.less_equal(high, a), self.less(a, low));
        let value = self.select(above, most, value);
        let value = self.select(below, least, value);
        let number = self.equal(a, a);
        self.select(number, value, zero)
    }
}
