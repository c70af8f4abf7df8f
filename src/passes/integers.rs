//! Products of numbers that were integers of 8 bits a moment ago, as products of these integers.
//!
//! A matrix product or a convolution of `(a - zero) * scale` by `(b - zero) * scale`, where `a` and `b` are
//! bytes and `b` with its numbers is known, is `scale * scale * (sum of (a - zero) * (b - zero))`. The sum is
//! one of integers, and exact, while that of the products in floats is rounded many times: so the result is
//! nearer to what the definitions of the operators say, but not the same in its last bits; where it is
//! quantized again, what lies between two integers may become the other one. Without scales (sums that are
//! integers in the model) nothing changes.
//!
//! The first operand becomes `u8` and the second `i8`, without their zero points: `sum of (a - z) * (w + c)` is
//! `sum of a * w + c * (sum of a) - z * (sum of (w + c))`, of which the last term is known, and `c`, one for each
//! column, is needed only where `b - zero` has no room in `i8`. Views and padding between are done on the bytes.

mod right;

use super::rewrite::Rewriter;
use crate::machine::Machine;
use crate::mir::expr::Ref;
use crate::mir::{
    Binary, Contract, Conv, Expr, Graph, Literal, Node, Op, Scalar, Unary, Value, Weights, eval,
};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use cranelift_entity::SecondaryMap;
use right::{Plan, columns_of, plan_scale, right};
use std::collections::BTreeMap;

/// How products of what was dequantized are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dequantized {
    /// In floats, as the model says.
    Floats,
    /// As sums of integers, where that is possible and faster.
    #[default]
    Auto,
    /// As sums of integers, where that is possible.
    Integers,
}

impl Dequantized {
    /// Whether a product is one of integers, on a machine: those that add four products at a time are faster
    /// for it, the others where they wait for the weights, which are a quarter as large.
    fn is_for_integers(self, node: &Node, machine: &Machine) -> bool {
        const FEW_ROWS: usize = 4;
        let columns = node.ty.dims.last().copied().unwrap_or(1).max(1);
        match self {
            Dequantized::Floats => false,
            Dequantized::Auto => machine.dots || node.ty.elements() / columns <= FEW_ROWS,
            Dequantized::Integers => true,
        }
    }
}

/// Bytes of a known result that is computed here.
const LARGEST: usize = 64 << 20;

/// See the module's text. What is left of known integers that are dequantized is computed.
pub fn find(graph: Graph, dequantized: Dequantized, machine: &Machine) -> Graph {
    let graph = super::dce::eliminate(products(graph, dequantized, machine));
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        match dequantized_now(&graph, node) {
            Some(tensor) => {
                let op = Op::Constant(tensor);
                let new = r.push(op, vec![], node.ty.clone(), node.origins.clone());
                r.set(old, new);
            }
            None => {
                r.copy(old);
            }
        }
    }
    r.finish()
}

fn dequantized_now(graph: &Graph, node: &Node) -> Option<Tensor> {
    let Op::Map(expr) = &node.op else { return None };
    shifted(graph, node, expr).filter(|_| node.ty.bytes() <= LARGEST)?;
    let operands: Vec<Tensor> =
        node.operands.iter().map(|&v| value_of(graph, v)).collect::<Option<_>>()?;
    Some(eval::later(&node.op, &operands.iter().collect::<Vec<_>>(), &node.ty))
}

/// The products that are found.
fn products(graph: Graph, dequantized: Dequantized, machine: &Machine) -> Graph {
    let wanted = wanted(&graph);
    if wanted.values().all(|&w| !w) {
        return graph;
    }
    let uses = graph.uses();
    let rewriter = Rewriter::new(&graph);
    let mut f = Finder { r: rewriter, unsigned: BTreeMap::new(), sources: BTreeMap::new() };
    for (old, node) in &graph.nodes {
        let found = match &node.op {
            Op::Contract(Contract { weights: Weights::Plain, epilogue: None, .. })
            | Op::Conv(Conv { weights: Weights::Plain, epilogue: None, .. }) => {
                let floats = node.ty.dtype == DType::F32;
                let may = !floats || dequantized.is_for_integers(node, machine);
                if may { f.product(node) } else { None }
            }
            Op::Map(_) if wanted[old] && node.ty.dtype == DType::I8 && uses[old] > 0 => {
                f.without_sign(old)
            }
            Op::Map(expr) => f.of_unsigned(node, expr),
            _ => None,
        };
        match found {
            Some(new) => f.r.set(old, new),
            None => {
                f.r.copy(old);
            }
        }
    }
    f.r.finish()
}

/// What leads, by views and by what takes a zero point away, to the first operand of a product.
fn wanted(graph: &Graph) -> SecondaryMap<Value, bool> {
    let mut wanted: SecondaryMap<Value, bool> = SecondaryMap::with_capacity(graph.nodes.len());
    for (value, node) in graph.nodes.iter().rev() {
        let first = match &node.op {
            Op::Contract(_) | Op::Conv(_) => node.operands.first(),
            Op::Pad { .. } if wanted[value] => node.operands.first(),
            op if op.is_view() && wanted[value] => node.operands.first(),
            Op::Map(expr) if wanted[value] => shifted(graph, node, expr)
                .map(|found| &node.operands[found.bytes])
                .filter(|&&bytes| graph.ty(bytes).dims == node.ty.dims),
            _ => None,
        };
        if let Some(&operand) = first {
            wanted[operand] = true;
        }
    }
    wanted
}

/// A number in an expression.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Number {
    Operand(usize),
    Literal(Literal),
}

/// `(bytes - zero) * scale`, as operands of a map.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Shifted {
    bytes: usize,
    zero: Option<Number>,
    scale: Option<Number>,
}

/// What a map computes, if it is that: of type `i32`, or with a scale `f32`.
fn shifted(graph: &Graph, node: &Node, expr: &Expr) -> Option<Shifted> {
    let is_byte = |n: u32| {
        let ty = graph.ty(node.operands[n as usize]);
        matches!(ty.dtype, DType::U8 | DType::I8)
    };
    // What the node of the expression is, if it is a number of bytes with less than all of that done to it.
    fn form(expr: &Expr, at: Ref, is_byte: &impl Fn(u32) -> bool) -> Option<Shifted> {
        let form = |at: Ref| form(expr, at, is_byte);
        let bare =
            |at: Ref| form(at).filter(|f| f.zero.is_none() && f.scale.is_none()).map(|f| f.bytes);
        match expr.nodes[at as usize] {
            Scalar::Operand(n) => {
                is_byte(n).then_some(Shifted { bytes: n as usize, zero: None, scale: None })
            }
            Scalar::Cast(DType::I32 | DType::F32, a) => form(a).filter(|f| f.scale.is_none()),
            Scalar::Binary(Binary::Sub, a, b) => {
                let bytes = bare(a)?;
                let zero = match expr.nodes[b as usize] {
                    Scalar::Literal(zero) if zero.f64().fract() != 0.0 => return None,
                    Scalar::Literal(zero) if zero.f64().abs() > 255.0 => return None,
                    Scalar::Literal(zero) => Number::Literal(zero),
                    _ => Number::Operand(bare(b)?),
                };
                Some(Shifted { bytes, zero: Some(zero), scale: None })
            }
            Scalar::Binary(Binary::Mul, a, b) => {
                let found = form(a).filter(|f| f.scale.is_none())?;
                let scale = match expr.nodes[b as usize] {
                    Scalar::Operand(n) => Number::Operand(n as usize),
                    Scalar::Literal(literal) => Number::Literal(literal),
                    _ => return None,
                };
                Some(Shifted { scale: Some(scale), ..found })
            }
            _ => None,
        }
    }
    let last = expr.nodes.len().checked_sub(1)?;
    let found = form(expr, Ref::try_from(last).ok()?, &is_byte)?;
    let dtype = if found.scale.is_some() { DType::F32 } else { DType::I32 };
    // The types in between are those of the result: differences of bytes would wrap in theirs.
    let types: Vec<DType> = node.operands.iter().map(|&v| graph.ty(v).dtype).collect();
    let types = expr.types(&types)?;
    let exact = expr.nodes.iter().zip(types).all(|(scalar, ty)| match ty {
        DType::U8 | DType::I8 => matches!(scalar, Scalar::Operand(_)),
        ty => ty == DType::I32 || ty == DType::F32 && dtype == ty,
    });
    (exact && node.ty.dtype == dtype && graph.ty(node.operands[found.bytes]).dims == node.ty.dims)
        .then_some(found)
}

/// The first operand of a product: `(source - zero) * scale`.
#[derive(Clone, Copy)]
struct Left {
    /// Of `u8`.
    source: Value,
    zero: Zero,
    /// A single `f32`.
    scale: Option<Value>,
}

#[derive(Clone, Copy)]
enum Zero {
    Known(i64),
    /// A single `u8` or `i8`, and what is added to it.
    Given(Value, i64),
}

struct Finder<'a> {
    r: Rewriter<'a>,
    /// What was `i8`, plus 128: new values, by old ones and (for what is not made here) by new ones.
    unsigned: BTreeMap<Value, Value>,
    /// First operands that were found, by old values.
    sources: BTreeMap<Value, Left>,
}

impl Finder<'_> {
    fn constant(&mut self, tensor: Tensor) -> Value {
        let ty = tensor.ty().clone();
        self.r.push(Op::Constant(tensor), vec![], ty, vec![])
    }

    fn map(&mut self, expr: Expr, operands: Vec<Value>, ty: Type, like: &Node) -> Value {
        self.r.push(Op::Map(expr), operands, ty, like.origins.clone())
    }

    /// `i8` as a `u8` that is 128 more, from which it is made again for whoever reads it.
    fn without_sign(&mut self, old: Value) -> Option<Value> {
        let node = &self.r.old.nodes[old];
        let Op::Map(expr) = &node.op else { return None };
        let operands = self.r.operands(old);
        let expr = match saturated(self.r.old, node, expr) {
            Some(expr) => expr,
            None => moved(expr.clone(), 128.0, DType::U8),
        };
        let unsigned = self.map(expr, operands, node.ty.with_dtype(DType::U8), node);
        self.unsigned.insert(old, unsigned);
        let signed = moved(Expr::identity(), -128.0, DType::I8);
        Some(self.map(signed, vec![unsigned], node.ty.clone(), node))
    }

    /// A map that dequantizes what is `u8` now, with a known zero point.
    fn of_unsigned(&mut self, node: &Node, expr: &Expr) -> Option<Value> {
        let found = shifted(self.r.old, node, expr)?;
        let unsigned = *self.unsigned.get(&node.operands[found.bytes])?;
        let zero = match found.zero {
            None => 0.0,
            Some(Number::Literal(literal)) => literal.f64(),
            Some(Number::Operand(n)) => match self.single(node.operands[n])? {
                Zero::Known(zero) => zero as f64,
                Zero::Given(..) => return None,
            },
        };
        let mut e = Expr::new();
        let bytes = e.operand(0);
        let whole = e.cast(DType::I32, bytes);
        let zero = e.literal(DType::I32, zero + 128.0);
        let mut result = e.binary(Binary::Sub, whole, zero);
        let mut operands = vec![unsigned];
        if let Some(scale) = found.scale {
            let number = e.cast(DType::F32, result);
            let scale = match scale {
                Number::Literal(literal) => e.push(Scalar::Literal(literal)),
                Number::Operand(n) => {
                    operands.push(self.r.get(node.operands[n]));
                    e.operand(1)
                }
            };
            result = e.binary(Binary::Mul, number, scale);
        }
        Some(self.map(e.returning(result), operands, node.ty.clone(), node))
    }

    /// An old value's bytes as a new value of `u8`, and what was added to them.
    fn bytes(&mut self, old: Value) -> (Value, i64) {
        let node = &self.r.old.nodes[old];
        let new = self.r.get(old);
        if node.ty.dtype == DType::U8 {
            return (new, 0);
        }
        if let Some(&unsigned) = self.unsigned.get(&old) {
            return (unsigned, 128);
        }
        if node.op.is_view() {
            let (source, by) = self.bytes(node.operands[0]);
            let ty = node.ty.with_dtype(DType::U8);
            let new = self.r.push(node.op.clone(), vec![source], ty, node.origins.clone());
            self.unsigned.insert(old, new);
            return (new, by);
        }
        let expr = moved(Expr::identity(), 128.0, DType::U8);
        let unsigned = self.map(expr, vec![new], node.ty.with_dtype(DType::U8), node);
        self.unsigned.insert(old, unsigned);
        (unsigned, 128)
    }

    fn left(&mut self, old: Value) -> Option<Left> {
        if let Some(&left) = self.sources.get(&old) {
            return Some(left);
        }
        let node = &self.r.old.nodes[old];
        let left = match &node.op {
            Op::Map(expr) => {
                let found = shifted(self.r.old, node, expr)?;
                let zero = match found.zero {
                    None => Zero::Known(0),
                    Some(Number::Literal(literal)) => Zero::Known(literal.int()),
                    Some(Number::Operand(n)) => self.single(node.operands[n])?,
                };
                let scale = match found.scale {
                    None => None,
                    Some(Number::Literal(literal)) => {
                        let scale = Tensor::from_f64s(Type::scalar(DType::F32), [literal.f64()]);
                        Some(self.constant(scale))
                    }
                    Some(Number::Operand(n)) => {
                        let scale = node.operands[n];
                        let ty = self.r.old.ty(scale);
                        if ty.elements() != 1 || ty.dtype != DType::F32 {
                            return None;
                        }
                        let new = self.r.get(scale);
                        Some(self.r.reshape(new, &[]))
                    }
                };
                let (source, by) = self.bytes(node.operands[found.bytes]);
                let zero = match zero {
                    Zero::Known(zero) => Zero::Known(zero + by),
                    Zero::Given(zero, before) => Zero::Given(zero, before + by),
                };
                Left { source, zero, scale }
            }
            Op::Pad { low, high, interior, value } => {
                let left = self.left(node.operands[0])?;
                let zero = match left.zero {
                    Zero::Known(zero) => Some(zero),
                    Zero::Given(..) => None,
                };
                if value.f64() != 0.0 || zero.is_some_and(|zero| !(0..256).contains(&zero)) {
                    return None;
                }
                let [low, high, interior] = [low, high, interior].map(Clone::clone);
                let value = Literal::from_int(DType::U8, zero.unwrap_or(0));
                let op = Op::Pad { low, high, interior, value };
                let padded = self.same(op, left.source, node);
                let source = match left.zero {
                    Zero::Known(_) => padded,
                    Zero::Given(zero, by) => self.bordered(node, padded, zero, by),
                };
                Left { source, ..left }
            }
            op if op.is_view() => {
                let left = self.left(node.operands[0])?;
                Left { source: self.same(op.clone(), left.source, node), ..left }
            }
            _ => return None,
        };
        self.sources.insert(old, left);
        Some(left)
    }

    /// What was padded with a zero point that is known only when it runs, from what was padded with anything.
    fn bordered(&mut self, node: &Node, padded: Value, zero: Value, by: i64) -> Value {
        let Op::Pad { low, high, interior, .. } = &node.op else { return padded };
        let [low, high, interior] = [low, high, interior].map(Clone::clone);
        // The axes along which nothing is padded have one element.
        let inside = &self.r.old.ty(node.operands[0]).dims;
        let is_padded = |axis: usize| low[axis] + high[axis] + interior[axis] > 0;
        let of = |dims: &[usize]| -> Vec<usize> {
            dims.iter().enumerate().map(|(i, &d)| if is_padded(i) { d } else { 1 }).collect()
        };
        let (inside, outside) = (of(inside), of(&node.ty.dims));
        let ty = Type::new(DType::Bool, inside);
        let count = ty.elements();
        let ones = Tensor::from_ints(ty, std::iter::repeat_n(1, count));
        let value = Literal::from_int(DType::Bool, 0);
        let pad = Op::Pad { low, high, interior, value };
        let mask = eval::op(&pad, &[&ones], &Type::new(DType::Bool, outside));
        let mask = self.constant(mask);
        let mut e = Expr::new();
        let zero_of = e.operand(2);
        let whole = e.cast(DType::I32, zero_of);
        let by = e.literal(DType::I32, by as f64);
        let sum = e.binary(Binary::Add, whole, by);
        let border = e.cast(DType::U8, sum);
        let (is_inside, number) = (e.operand(0), e.operand(1));
        e.select(is_inside, number, border);
        self.map(e, vec![mask, padded, zero], node.ty.with_dtype(DType::U8), node)
    }

    /// A node as it was, of bytes.
    fn same(&mut self, op: Op, source: Value, node: &Node) -> Value {
        self.r.push(op, vec![source], node.ty.with_dtype(DType::U8), node.origins.clone())
    }

    /// A zero point that is one for all.
    fn single(&mut self, old: Value) -> Option<Zero> {
        let graph = self.r.old;
        if graph.ty(old).elements() != 1 {
            return None;
        }
        Some(match value_of(graph, old) {
            Some(tensor) => Zero::Known(tensor.int_at(0)),
            None => {
                let new = self.r.get(old);
                Zero::Given(self.r.reshape(new, &[]), 0)
            }
        })
    }

    fn product(&mut self, node: &Node) -> Option<Value> {
        let graph = self.r.old;
        let dtype = node.ty.dtype;
        if !matches!(dtype, DType::F32 | DType::I32) || node.ty.elements() == 0 {
            return None;
        }
        let right = right(graph, node.operands[1])?;
        let plan = Plan::new(node, &right)?;
        let left = self.left(node.operands[0])?;
        if left.scale.is_some() != (dtype == DType::F32)
            || right.scale.is_some() != left.scale.is_some()
        {
            return None;
        }
        let weights = self.constant(plan.weights);
        let ty = node.ty.with_dtype(DType::I32);
        let sums = self.r.push(
            node.op.clone(),
            vec![left.source, weights],
            ty.clone(),
            node.origins.clone(),
        );
        let mut operands = vec![sums];
        let mut e = Expr::new();
        let mut sum = e.operand(0);
        if let Some((ones, offsets)) = plan.offsets {
            // The sums of the first operand alone are products with ones.
            let mut dims = ty.dims.clone();
            *dims.last_mut()? = *ones.dims().last()?;
            let ones = self.constant(ones);
            let op = node.op.clone();
            let total =
                self.r.push(op, vec![left.source, ones], ty.with_dims(dims), node.origins.clone());
            operands.extend([total, self.constant(offsets)]);
            let (total, offsets) = (e.operand(1), e.operand(2));
            let product = e.binary(Binary::Mul, total, offsets);
            sum = e.binary(Binary::Add, sum, product);
        }
        let columns = Type::new(DType::I32, plan.dims.clone());
        let known = |by: i64| {
            let totals = columns_of(&right, &plan.shape).totals;
            Tensor::from_ints(columns.clone(), totals.iter().map(|total| total.wrapping_mul(by)))
        };
        match left.zero {
            Zero::Known(0) => {}
            Zero::Known(zero) => {
                operands.push(self.constant(known(-zero)));
                let term = e.operand(operands.len() - 1);
                sum = e.binary(Binary::Add, sum, term);
            }
            Zero::Given(zero, by) => {
                operands.extend([self.constant(known(-1)), zero]);
                let (totals, zero) = (operands.len() - 2, operands.len() - 1);
                let (totals, zero) = (e.operand(totals), e.operand(zero));
                let whole = e.cast(DType::I32, zero);
                let by = e.literal(DType::I32, by as f64);
                let zero = e.binary(Binary::Add, whole, by);
                let term = e.binary(Binary::Mul, totals, zero);
                sum = e.binary(Binary::Add, sum, term);
            }
        }
        if let (Some(left), Some(right)) = (left.scale, right.scale) {
            let number = e.cast(DType::F32, sum);
            let right = plan_scale(&right, &plan.dims)?;
            let factor = match value_of(&self.r.new, left) {
                Some(left) => {
                    let left = left.f32s()[0];
                    let both: Vec<f32> = right.f32s().into_iter().map(|s| left * s).collect();
                    self.constant(Tensor::from_f32s(right.dims(), &both))
                }
                None => {
                    let mut product = Expr::new();
                    let (a, b) = (product.operand(0), product.operand(1));
                    product.binary(Binary::Mul, a, b);
                    let (ty, right) = (right.ty().clone(), self.constant(right));
                    self.map(product, vec![left, right], ty, node)
                }
            };
            operands.push(factor);
            let factor = e.operand(operands.len() - 1);
            sum = e.binary(Binary::Mul, number, factor);
        }
        let result = e.returning(sum);
        if result == Expr::identity() {
            return Some(sums);
        }
        Some(self.map(result, operands, node.ty.clone(), node))
    }
}

/// What quantizes to `i8`, `i8(Min(Max(Round(x) + zero, -128), 127))` with a known zero point, to `u8` and a zero
/// point that is 128 more.
fn saturated(graph: &Graph, node: &Node, expr: &Expr) -> Option<Expr> {
    let at = |a: Ref| expr.nodes[a as usize];
    let is = |a: Ref, value: f64| at(a) == Scalar::Literal(Literal::from_f64(DType::F32, value));
    let Scalar::Cast(DType::I8, inside) = *expr.nodes.last()? else { return None };
    let Scalar::Binary(Binary::Min, above, high) = at(inside) else { return None };
    let Scalar::Binary(Binary::Max, sum, low) = at(above) else { return None };
    let Scalar::Binary(Binary::Add, x, zero) = at(sum) else { return None };
    let rounded = match at(x) {
        Scalar::Cast(DType::F32, a) => at(a),
        x => x,
    };
    // Only of whole numbers: others are cut towards zero.
    if !is(high, 127.0) || !is(low, -128.0) || !matches!(rounded, Scalar::Unary(Unary::Round, _)) {
        return None;
    }
    let zero = match at(zero) {
        Scalar::Literal(literal) => literal.f64(),
        Scalar::Cast(DType::F32, zero) => match at(zero) {
            Scalar::Operand(n) => {
                let zero = value_of(graph, node.operands[n as usize])?;
                (zero.ty().elements() == 1).then(|| zero.f64_at(0))?
            }
            _ => return None,
        },
        _ => return None,
    };
    if zero.fract() != 0.0 {
        return None;
    }
    let mut out = expr.clone();
    let mut sum = x;
    if zero != -128.0 {
        let zero = out.literal(DType::F32, zero + 128.0);
        sum = out.binary(Binary::Add, sum, zero);
    }
    let (low, high) = (out.literal(DType::F32, 0.0), out.literal(DType::F32, 255.0));
    let above = out.binary(Binary::Max, sum, low);
    let inside = out.binary(Binary::Min, above, high);
    let result = out.cast(DType::U8, inside);
    Some(out.returning(result))
}

/// An expression of 8 bits plus a number, as another type of 8 bits.
fn moved(expr: Expr, by: f64, to: DType) -> Expr {
    let mut out = expr;
    let last = Ref::try_from(out.nodes.len() - 1).expect("expressions are small");
    let whole = out.cast(DType::I32, last);
    let by = out.literal(DType::I32, by);
    let sum = out.binary(Binary::Add, whole, by);
    let result = out.cast(to, sum);
    out.returning(result)
}

/// A constant, or a view of one.
fn value_of(graph: &Graph, value: Value) -> Option<Tensor> {
    let node = &graph.nodes[value];
    match &node.op {
        Op::Constant(tensor) => Some(tensor.clone()),
        op if op.is_view() => Some(eval::op(op, &[&value_of(graph, node.operands[0])?], &node.ty)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
