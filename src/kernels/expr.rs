//! Scalar expressions of MIR as operations of KIR.
//!
//! How elements are held in registers: two-byte floats as `F32`, rounded after every operation; narrow
//! integers as `I32` and `u32` as `I64`, always with the value that memory has; `u64` as the bits in an
//! `I64`; `bool` as a mask.

use super::elementary;
use super::math::{self, half};
use super::operations::{
    as_number, binary, cast, compare, extremum, extremum_of_any, is_not_zero, select, shift,
    shift_by_constant, unary, wrap,
};
use crate::error::ErrorKind;
use crate::kir::build::Builder;
use crate::kir::{Memory, Type, Value};
use crate::lir::{Binary, Expr, Literal, Scalar, Unary};
use crate::machine::Machine;
use crate::types::DType;

/// What memory holds.
pub(super) fn memory(dtype: DType) -> Memory {
    match dtype {
        DType::F32 => Memory::F32,
        DType::F64 => Memory::F64,
        DType::I8 => Memory::I8,
        DType::I16 => Memory::I16,
        DType::I32 => Memory::I32,
        DType::I64 | DType::U64 => Memory::I64,
        DType::U8 | DType::Bool => Memory::U8,
        DType::F16 | DType::BF16 | DType::U16 => Memory::U16,
        DType::U32 => Memory::U32,
    }
}

/// The same where the machine may convert it.
fn memory_on(b: &Builder, dtype: DType) -> Memory {
    match dtype {
        DType::F16 if b.machine().half_floats => Memory::F16,
        dtype => memory(dtype),
    }
}

/// How an element that is a number is held in registers.
pub(super) fn register(dtype: DType) -> Type {
    if is_half(dtype) { Type::F32 } else { memory(dtype).value() }
}

/// Whether it is a float of two bytes.
fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Whether the machine's vectors can hold elements of this type.
pub(super) fn in_vectors(dtype: DType, machine: &Machine) -> bool {
    memory(dtype).is_on(machine)
}

/// An element's bytes.
pub(super) fn size(dtype: DType) -> i64 {
    dtype.bytes() as i64
}

/// Loads the first `lanes` lanes; with `splat`, one element into all lanes.
pub(super) fn load(
    b: &mut Builder,
    dtype: DType,
    pointer: Value,
    offset: i64,
    lanes: u32,
    splat: bool,
) -> Value {
    let memory = memory_on(b, dtype);
    let (pointer, offset) = reach(b, pointer, offset);
    let value = match splat {
        true => b.broadcast_as(memory, pointer, offset),
        false => b.load_as(memory, pointer, offset, lanes),
    };
    match dtype {
        DType::Bool => is_not_zero(b, value),
        DType::F16 if memory != Memory::F16 => half::of_f16(b, value),
        DType::BF16 => half::of_bf16(b, value),
        _ => value,
    }
}

/// Stores the first `lanes` lanes.
pub(super) fn store(
    b: &mut Builder,
    dtype: DType,
    value: Value,
    pointer: Value,
    offset: i64,
    lanes: u32,
) {
    let memory = memory_on(b, dtype);
    let (pointer, offset) = reach(b, pointer, offset);
    let value = match dtype {
        DType::Bool => as_number(b, value),
        DType::F16 if memory != Memory::F16 => half::to_f16(b, value),
        DType::BF16 => half::to_bf16(b, value),
        _ => value,
    };
    b.store_as(memory, value, pointer, offset, lanes);
}

/// An address whose constant part fits.
pub(super) fn reach(b: &mut Builder, pointer: Value, offset: i64) -> (Value, i64) {
    if i32::try_from(offset).is_ok() {
        (pointer, offset)
    } else {
        (b.offset(pointer, 1, offset), 0)
    }
}

/// An expression that is written many times.
#[derive(Debug)]
pub(super) struct Body<'a> {
    expr: &'a Expr,
    types: Vec<DType>,
    /// Products that only a sum reads: they are fused with it.
    fused: Vec<bool>,
    /// For each node, whether only literals lead to it.
    literal: Vec<bool>,
    /// Functions that only sums with 1 read.
    summed: Vec<bool>,
    /// Quotients by a literal that only such functions read, which may be products with its inverse: a
    /// relative error of the argument is at most as large in the result.
    by_inverse: Vec<bool>,
    /// Functions that only a product with another one reads, a gate and what goes through it: one division
    /// serves both.
    gated: Vec<bool>,
    /// What is never above zero, unless it is a NaN.
    not_positive: Vec<bool>,
}

impl<'a> Body<'a> {
    /// The expression over operands of these types.
    ///
    /// # Errors
    ///
    /// A bug of ours, where the expression does not fit its operands.
    pub(super) fn new(expr: &'a Expr, operands: &[DType]) -> Result<Body<'a>, ErrorKind> {
        let types = expr.types(operands).ok_or_else(|| {
            ErrorKind::bug(format!("the expression {expr:?} does not fit its operands"))
        })?;
        let mut uses = vec![0; types.len()];
        for node in &expr.nodes {
            node.args().into_iter().for_each(|a| uses[a as usize] += 1);
        }
        let mut fused = vec![false; types.len()];
        let mut gated = vec![false; types.len()];
        for (i, node) in expr.nodes.iter().enumerate() {
            let Scalar::Binary(Binary::Mul, x, y) = *node else { continue };
            let function = |a: u32| match expr.nodes[a as usize] {
                Scalar::Unary(op, _) if uses[a as usize] == 1 => Some(op),
                _ => None,
            };
            let both = matches!(
                (function(x), function(y)),
                (Some(Unary::Sigmoid), Some(Unary::Tanh))
                    | (Some(Unary::Tanh), Some(Unary::Sigmoid))
            );
            if both && types[i] == DType::F32 {
                [x, y].into_iter().for_each(|a| gated[a as usize] = true);
            }
        }
        let mut literal = vec![false; types.len()];
        let mut summed = vec![0; types.len()];
        for (i, node) in expr.nodes.iter().enumerate() {
            let args = node.args();
            literal[i] = matches!(node, Scalar::Literal(_))
                || !args.is_empty() && args.iter().all(|&a| literal[a as usize]);
            if let Scalar::Binary(Binary::Add, x, y) = *node {
                let product = |&a: &u32| {
                    let a = a as usize;
                    let product = |node| match node {
                        Scalar::Binary(Binary::Mul, x, _) => !gated[x as usize],
                        _ => false,
                    };
                    uses[a] == 1 && product(expr.nodes[a])
                };
                if let Some(a) = [x, y].into_iter().find(product) {
                    fused[a as usize] = types[i].is_float() && !is_half(types[i]);
                }
                let one = |a: u32| match expr.nodes[a as usize] {
                    Scalar::Literal(literal) => literal.f64() == 1.0,
                    _ => false,
                };
                summed[x as usize] += i32::from(one(y));
                summed[y as usize] += i32::from(one(x));
            }
        }
        let summed: Vec<bool> =
            summed.iter().zip(&uses).map(|(of, all)| *of > 0 && of == all).collect();
        let mut inverted = vec![0; types.len()];
        for (i, node) in expr.nodes.iter().enumerate() {
            if let Scalar::Unary(op, a) = *node {
                let may = summed[i] && elementary::for_sums(op).is_some();
                inverted[a as usize] += i32::from(may);
            }
        }
        let quotient = |i: usize| match expr.nodes[i] {
            Scalar::Binary(Binary::Div, _, by) => match expr.nodes[by as usize] {
                Scalar::Literal(by) => types[i] == DType::F32 && has_inverse(by.f64()),
                _ => false,
            },
            _ => false,
        };
        let by_inverse = (inverted.iter().zip(&uses).enumerate())
            .map(|(i, (of, all))| *of > 0 && of == all && quotient(i))
            .collect();
        let not_positive = vec![];
        let mut body =
            Body { expr, types, fused, literal, summed, by_inverse, gated, not_positive };
        body.know_largest(|_, _| false);
        Ok(body)
    }

    /// Says which operand is at least as large as which one: `is_largest(a, b)` where `a` is the largest of
    /// elements of which `b` is one. A difference of these takes simpler functions.
    pub(super) fn know_largest(&mut self, is_largest: impl Fn(usize, usize) -> bool) {
        let nodes = &self.expr.nodes;
        let node = |a: u32| nodes[a as usize];
        let not_negative = |a: u32| match node(a) {
            Scalar::Unary(Unary::Abs, _) => true,
            Scalar::Binary(Binary::Mul, x, y) => x == y,
            _ => false,
        };
        let not_positive = |of: &Scalar| match *of {
            Scalar::Unary(Unary::Neg, a) => not_negative(a),
            Scalar::Binary(Binary::Sub, x, y) => match (node(x), node(y)) {
                (Scalar::Operand(x), Scalar::Operand(y)) => is_largest(y as usize, x as usize),
                _ => false,
            },
            _ => false,
        };
        self.not_positive = nodes.iter().map(not_positive).collect();
    }

    /// Whether vectors have all types and operations that are needed.
    pub(super) fn in_vectors(&self, machine: &Machine) -> bool {
        let mut nodes = self.expr.nodes.iter().zip(&self.types);
        nodes.all(|(node, &ty)| {
            in_vectors(ty, machine)
                && match *node {
                    Scalar::Unary(op, _) if machine.doubles => elementary::is_plain(op),
                    Scalar::Binary(Binary::Pow | Binary::Rem, ..) if machine.doubles => false,
                    Scalar::Binary(Binary::Div | Binary::Rem, ..) => ty.is_float(),
                    Scalar::Binary(Binary::Shl | Binary::Shr, _, by) => self.amount(by).is_some(),
                    Scalar::Operand(_)
                    | Scalar::Literal(_)
                    | Scalar::Unary(..)
                    | Scalar::Binary(..)
                    | Scalar::Compare(..)
                    | Scalar::Select(..)
                    | Scalar::Cast(..) => true,
                }
        })
    }

    /// Type of the result.
    pub(super) fn dtype(&self) -> DType {
        self.types[self.types.len() - 1]
    }

    /// The operands that are read, each once.
    pub(super) fn operands(&self) -> Vec<usize> {
        let mut operands: Vec<usize> = vec![];
        for node in &self.expr.nodes {
            match *node {
                Scalar::Operand(n) if !operands.contains(&(n as usize)) => {
                    operands.push(n as usize)
                }
                _ => {}
            }
        }
        operands
    }

    /// Roughly how many instructions it takes.
    pub(super) fn cost(&self) -> i64 {
        let node = |node: &Scalar| match *node {
            Scalar::Operand(_) | Scalar::Literal(_) => 0,
            Scalar::Unary(op, _) => elementary::cost(op),
            Scalar::Binary(Binary::Pow, ..) => 60,
            Scalar::Binary(Binary::Div | Binary::Rem, ..) => 6,
            Scalar::Binary(Binary::Min | Binary::Max, ..) => 2,
            Scalar::Binary(..) | Scalar::Compare(..) | Scalar::Select(..) | Scalar::Cast(..) => 1,
        };
        self.expr.nodes.iter().map(node).sum()
    }

    /// Writes the operations whose operands are all `uniform`, and gives their values.
    pub(super) fn hoist(
        &self,
        b: &mut Builder,
        uniform: &dyn Fn(usize) -> Option<Value>,
    ) -> Vec<Option<Value>> {
        let mut known: Vec<Option<Value>> = vec![None; self.types.len()];
        for (i, node) in self.expr.nodes.iter().enumerate() {
            known[i] = match *node {
                Scalar::Operand(n) => uniform(n as usize),
                // Constants cost nothing where they are used.
                _ if self.literal[i] => None,
                node => {
                    let ready = |a: u32| known[a as usize].is_some() || self.literal[a as usize];
                    let ready = node.args().into_iter().all(ready);
                    ready.then(|| {
                        self.value(b, i, &mut known.clone(), &mut |_, _| {
                            unreachable!("only uniform operands lead here")
                        })
                    })
                }
            };
        }
        known
    }

    /// Writes the expression. `known` is what [`Body::hoist`] gave, or nothing.
    pub(super) fn emit(
        &self,
        b: &mut Builder,
        known: &[Option<Value>],
        operand: &mut dyn FnMut(&mut Builder, usize) -> Value,
    ) -> Value {
        let hoisted = known;
        let mut known = hoisted.to_vec();
        known.resize(self.types.len(), None);
        // A function takes many registers, of which there may be few: what is read again behind it is loaded
        // again.
        let few = b.machine().registers <= 16;
        let forget = |known: &mut [Option<Value>]| {
            for (i, value) in known.iter_mut().enumerate() {
                if matches!(self.expr.nodes[i], Scalar::Operand(_)) {
                    *value = hoisted.get(i).copied().flatten();
                }
            }
        };
        for i in 0..self.types.len() {
            // What is within another operation is written only when it is needed by itself.
            let within_another = self.fused[i] || self.gated[i];
            if known[i].is_none() && !within_another && !self.literal[i] {
                known[i] = Some(self.value(b, i, &mut known, operand));
                let is_long =
                    |node| matches!(node, Scalar::Unary(op, _) if !elementary::is_plain(op));
                if few && is_long(self.expr.nodes[i]) {
                    forget(&mut known[..i]);
                }
            }
        }
        self.known(b, self.types.len() - 1, &mut known, operand)
    }

    fn known(
        &self,
        b: &mut Builder,
        i: usize,
        known: &mut Vec<Option<Value>>,
        operand: &mut dyn FnMut(&mut Builder, usize) -> Value,
    ) -> Value {
        if let Some(value) = known[i] {
            return value;
        }
        let value = self.value(b, i, known, operand);
        known[i] = Some(value);
        value
    }

    fn value(
        &self,
        b: &mut Builder,
        i: usize,
        known: &mut Vec<Option<Value>>,
        operand: &mut dyn FnMut(&mut Builder, usize) -> Value,
    ) -> Value {
        if let Some(gate) = self.gate(i, known) {
            let ratios = gate.map(|(function, of)| {
                let of = self.known(b, of as usize, known, operand);
                function(b, of)
            });
            return ratios[0].times(b, ratios[1]).value(b);
        }
        let ty = self.types[i];
        let mut arg = |b: &mut Builder, a: u32| self.known(b, a as usize, known, operand);
        match self.expr.nodes[i] {
            Scalar::Operand(n) => operand(b, n as usize),
            Scalar::Literal(literal) => constant(b, literal),
            Scalar::Unary(Unary::Exp, a) if self.not_positive[a as usize] && ty.is_float() => {
                let a = arg(b, a);
                let value = math::exp_of_small(b, a);
                wrap(b, ty, value)
            }
            Scalar::Unary(op, a) => {
                let a = arg(b, a);
                match elementary::for_sums(op) {
                    Some(function) if self.summed[i] => {
                        let value = function(b, a);
                        wrap(b, ty, value)
                    }
                    _ => unary(b, op, ty, a),
                }
            }
            Scalar::Binary(Binary::Add, x, y)
                if self.fused[x as usize] || self.fused[y as usize] =>
            {
                let (product, other) = if self.fused[x as usize] { (x, y) } else { (y, x) };
                let Scalar::Binary(Binary::Mul, x, y) = self.expr.nodes[product as usize] else {
                    unreachable!("only products are fused");
                };
                if known[product as usize].is_some() {
                    let [product, other] =
                        [product, other].map(|a| self.known(b, a as usize, known, operand));
                    return b.add(product, other);
                }
                let [x, y, other] =
                    [x, y, other].map(|a| self.known(b, a as usize, known, operand));
                b.mul_add(x, y, other)
            }
            Scalar::Binary(op @ (Binary::Min | Binary::Max), x, y) if ty.is_float() => {
                let number = |a: u32| match self.expr.nodes[a as usize] {
                    Scalar::Literal(literal) => !literal.f64().is_nan(),
                    _ => false,
                };
                // What is no NaN goes first; the second passes when it is one.
                let (x, y) = if number(y) { (y, x) } else { (x, y) };
                let [first, second] = [x, y].map(|a| arg(b, a));
                match number(x) {
                    true => extremum(b, op, first, second),
                    false => extremum_of_any(b, op, first, second),
                }
            }
            Scalar::Binary(op @ (Binary::Shl | Binary::Shr), a, by) => {
                let a = arg(b, a);
                match self.amount(by) {
                    Some(bits) => shift_by_constant(b, op, ty, a, bits),
                    None => {
                        let by = arg(b, by);
                        shift(b, op, ty, a, by)
                    }
                }
            }
            Scalar::Binary(Binary::Pow, x, y) => {
                let known = match self.expr.nodes[y as usize] {
                    Scalar::Literal(literal) => Some(literal.f64()),
                    _ => None,
                };
                let [x, y] = [x, y].map(|a| arg(b, a));
                let value = elementary::power(b, x, y, known);
                wrap(b, ty, value)
            }
            Scalar::Binary(op, x, y) => {
                let literal = match self.expr.nodes[y as usize] {
                    Scalar::Literal(literal) if self.by_inverse[i] => Some(literal.f64()),
                    _ => None,
                };
                if let Some(by) = literal {
                    let x = arg(b, x);
                    let inverse = b.f32((1.0 / by) as f32);
                    return b.mul(x, inverse);
                }
                let [x, y] = [x, y].map(|a| arg(b, a));
                binary(b, op, ty, x, y)
            }
            Scalar::Compare(op, x, y) => {
                let of = self.types[x as usize];
                let [x, y] = [x, y].map(|a| arg(b, a));
                compare(b, op, of, x, y)
            }
            Scalar::Select(mask, x, y) => {
                let [mask, x, y] = [mask, x, y].map(|a| arg(b, a));
                select(b, mask, x, y)
            }
            Scalar::Cast(to, a) => {
                let (from, saturated) = (self.types[a as usize], self.is_within(a, to));
                let a = arg(b, a);
                // What has room needs no bits taken away.
                let by_way_of = if saturated { DType::I32 } else { to };
                cast(b, from, by_way_of, a)
            }
        }
    }

    /// The functions of a gate and of what goes through it, and of what they are, where neither is known yet.
    fn gate(&self, i: usize, known: &[Option<Value>]) -> Option<[(elementary::AsRatio, u32); 2]> {
        let Scalar::Binary(Binary::Mul, x, y) = self.expr.nodes[i] else { return None };
        let function = |a: u32| match self.expr.nodes[a as usize] {
            Scalar::Unary(op, of) if self.gated[a as usize] && known[a as usize].is_none() => {
                Some((elementary::as_ratio(op)?, of))
            }
            _ => None,
        };
        Some([function(x)?, function(y)?])
    }

    /// Whether a float has been forced into the range of an integer type of at most 16 bits. (A NaN becomes
    /// anything.)
    fn is_within(&self, a: u32, to: DType) -> bool {
        if !matches!(to, DType::I8 | DType::U8 | DType::I16 | DType::U16) {
            return false;
        }
        let bits = 8 * size(to) as i32 - i32::from(to.is_signed());
        let (most, least) =
            (2f64.powi(bits) - 1.0, if to.is_signed() { -2f64.powi(bits) } else { 0.0 });
        let literal = |a: u32| match self.expr.nodes[a as usize] {
            Scalar::Literal(literal) => Some(literal.f64()),
            _ => None,
        };
        let Scalar::Binary(Binary::Min, above, high) = self.expr.nodes[a as usize] else {
            return false;
        };
        let Scalar::Binary(Binary::Max, _, low) = self.expr.nodes[above as usize] else {
            return false;
        };
        self.types[a as usize] == DType::F32
            // Where they are the wrong way round, all is `high`.
            && literal(high).is_some_and(|high| (least..=most).contains(&high))
            && literal(low).is_some_and(|low| low >= least)
    }

    /// The number of bits, if it is a literal.
    fn amount(&self, by: u32) -> Option<i64> {
        match self.expr.nodes[by as usize] {
            Scalar::Literal(literal) => Some(literal.int()),
            _ => None,
        }
    }
}

/// Whether a number and its inverse are far from the ends of what `f32` holds.
fn has_inverse(by: f64) -> bool {
    (1e-30..=1e30).contains(&by.abs())
}

/// A constant.
pub(super) fn constant(b: &mut Builder, literal: Literal) -> Value {
    match literal.dtype {
        DType::F32 => b.f32(f32::from_bits(literal.bits as u32)),
        DType::F16 | DType::BF16 => b.f32(literal.f64() as f32),
        DType::F64 => b.f64(f64::from_bits(literal.bits)),
        DType::Bool => {
            let (zero, value) = (b.i32(0), b.i32(i32::from(literal.bits != 0)));
            b.less(zero, value)
        }
        DType::U32 | DType::I64 | DType::U64 => b.i64(literal.int()),
        _ => b.i32(literal.int() as i32),
    }
}
