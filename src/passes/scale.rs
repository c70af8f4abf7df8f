//! Constant factors and summands of a product's columns move into its weights and one bias: batch
//! normalization and scales after a matrix product or a convolution.
//!
//! What is done to a sum is followed through the epilogue as `factor * sum + summand` per column, in
//! 64 bits; weights and bias are rounded once.
//!
//! Sums of integers keep their weights: what is done to them as floats becomes one factor and one summand. Where
//! the summand is as much as an integer that is added to the sum before, as biases are that were quantized, it is
//! that: then nothing is rounded but the product.

use super::rewrite::Rewriter;
use crate::mir::{
    Binary, Contract, Conv, Expr, Graph, Node, Op, Scalar, Unary, Value, Weights, sums,
};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// See the module's text.
pub fn fold(graph: Graph) -> Graph {
    let uses = graph.uses();
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        // Weights that others read, too, would be there twice.
        let own = node.operands.get(1).is_some_and(|&weights| uses[weights] == 1);
        let new = match of_integers(&graph, node) {
            Some(new) => Some(new),
            None => folded(&graph, node).filter(|_| own),
        };
        match new {
            Some(new) => {
                let new = rebuilt(&mut r, old, new);
                r.set(old, new);
            }
            None => {
                r.copy(old);
            }
        }
    }
    r.finish()
}

/// What becomes of a product.
struct Folded {
    /// If they are new.
    weights: Option<Tensor>,
    /// Of integers: what is added to the sum before it becomes a float that is multiplied by the second.
    integers: Option<(Option<Tensor>, Tensor)>,
    bias: Option<Tensor>,
    epilogue: Expr,
    /// The epilogue's node that is the sum with its bias, and which takes the place of what leads to it.
    sum: usize,
}

/// What a node of an epilogue is, per column.
#[derive(Clone)]
enum Form {
    Constant(Vec<f64>),
    /// Factor of the sum, and summand.
    Affine(Vec<f64>, Vec<f64>),
    Other,
}

fn folded(graph: &Graph, node: &Node) -> Option<Folded> {
    let (weights, epilogue) = match &node.op {
        Op::Contract(Contract { weights, epilogue, .. }) => (weights, epilogue.as_ref()?),
        Op::Conv(Conv { weights, epilogue, .. }) => (weights, epilogue.as_ref()?),
        _ => return None,
    };
    let tensor = graph.constant(node.operands[1])?;
    let columns = *tensor.dims().last()?;
    if *weights != Weights::Plain || tensor.ty().dtype != DType::F32 || columns == 0 {
        return None;
    }
    let constants: Vec<Option<Vec<f64>>> =
        node.operands[2..].iter().map(|&v| per_column(graph, v, columns)).collect();
    let forms = forms(epilogue, columns, &constants);
    let (sum, factor, summand) =
        forms.iter().enumerate().rev().find_map(|(i, form)| match form {
            Form::Affine(factor, summand) => Some((i, factor, summand)),
            Form::Constant(_) | Form::Other => None,
        })?;
    // A bias alone is as good as it gets.
    if factor.iter().all(|&f| f == 1.0) || needs_sum(epilogue, sum) {
        return None;
    }
    let bias: Vec<f32> = summand.iter().map(|&b| b as f32).collect();
    let weights = times(tensor, factor);
    // What is certain without computing the weights comes first.
    let largest = factor.iter().fold(1.0, |most: f64, f| most.max(f.abs()));
    let known = factor.iter().all(|f| f.is_finite())
        && tensor.is_within((f64::from(f32::MAX) / 2.0 / largest) as f32);
    let finite = bias.iter().all(|b| b.is_finite()) && (known || weights.is_within(f32::MAX));
    if !finite {
        return None;
    }
    let some = bias.iter().any(|&b| b != 0.0);
    let bias = some.then(|| Tensor::from_f32s([columns], &bias));
    let (weights, integers) = (Some(weights), None);
    Some(Folded { weights, integers, bias, epilogue: epilogue.clone(), sum })
}

/// Weights with each column multiplied in 64 bits.
fn times(weights: &Tensor, factor: &[f64]) -> Tensor {
    let ty = Type::new(DType::F64, [factor.len()]);
    let factor = Tensor::from_f64s(ty, factor.iter().copied());
    Tensor::later(weights.ty().clone(), "columns multiplied", &[weights, &factor], |of| {
        let (mut values, factor) = (of[0].f32s(), of[1].f64s());
        for row in values.chunks_mut(factor.len()) {
            row.iter_mut().zip(&factor).for_each(|(w, f)| *w = (f64::from(*w) * f) as f32);
        }
        Tensor::from_f32s(of[0].dims(), &values)
    })
}

/// The same for sums of integers that become floats.
fn of_integers(graph: &Graph, node: &Node) -> Option<Folded> {
    let (weights, epilogue) = match &node.op {
        Op::Contract(Contract { weights, epilogue, .. }) => (weights, epilogue.as_ref()?),
        Op::Conv(Conv { weights, epilogue, .. }) => (weights, epilogue.as_ref()?),
        _ => return None,
    };
    let [left, right] = [0, 1].map(|i| graph.ty(node.operands[i]));
    let columns = *node.ty.dims.last()?;
    if *weights != Weights::Plain
        || sums(left.dtype, right.dtype) != Some(DType::I32)
        || columns == 0
    {
        return None;
    }
    let constants: Vec<Option<Vec<f64>>> =
        node.operands[2..].iter().map(|&v| per_column(graph, v, columns)).collect();
    let types: Vec<DType> = [DType::I32]
        .into_iter()
        .chain(node.operands[2..].iter().map(|&v| graph.ty(v).dtype))
        .collect();
    let epilogue = &divided_first(epilogue);
    let types = epilogue.types(&types)?;
    let forms = forms(epilogue, columns, &constants);
    let (sum, factor, summand) =
        forms.iter().enumerate().rev().find_map(|(i, form)| match form {
            Form::Affine(factor, summand) if types[i] == DType::F32 => Some((i, factor, summand)),
            Form::Affine(..) | Form::Constant(_) | Form::Other => None,
        })?;
    let factors: Vec<f32> = factor.iter().map(|&f| f as f32).collect();
    // One operation on integers, the conversion, and the product are as good as it gets.
    let mut before = epilogue.clone();
    before.nodes.truncate(sum + 1);
    if before.cost() <= 3 || needs_sum(epilogue, sum) || factors.contains(&0.0) {
        return None;
    }
    let tensor = |values: &[f64]| {
        Tensor::from_f32s([columns], &values.iter().map(|&v| v as f32).collect::<Vec<_>>())
    };
    let whole: Vec<f64> =
        summand.iter().zip(factor).map(|(summand, factor)| (summand / factor).round()).collect();
    let exact = (whole.iter().zip(summand).zip(factor)).all(|((whole, summand), factor)| {
        let error = (summand / factor - whole).abs();
        error <= 1e-4 + 1e-6 * whole.abs() && whole.abs() < f64::from(1 << 24)
    });
    if !factors.iter().all(|f| f.is_finite()) || !summand.iter().all(|&s| (s as f32).is_finite()) {
        return None;
    }
    let (added, bias) = match exact {
        true => (Tensor::from_f64s(Type::new(DType::I32, [columns]), whole.iter().copied()), None),
        false => (Tensor::zeros(Type::new(DType::I32, [columns])), Some(tensor(summand))),
    };
    let added = Some(added).filter(|a| a.ints().iter().any(|&v| v != 0));
    let integers = Some((added, tensor(factor)));
    Some(Folded { weights: None, integers, bias, epilogue: epilogue.clone(), sum })
}

/// Quotients by a number above zero of what was cut at numbers before, `Max(x, a) / c`, as what is cut afterwards,
/// `Max(x / c, a / c)`: so that an activation stands not between a sum and its quantization.
fn divided_first(epilogue: &Expr) -> Expr {
    let mut out = Expr::new();
    let mut new: Vec<u32> = vec![];
    for node in &epilogue.nodes {
        let node = node.with_args(|a| new[a as usize]);
        new.push(match node {
            Scalar::Binary(Binary::Div, a, by) => quotient(&mut out, a, by),
            node => out.push(node),
        });
    }
    let result = new.last().copied().unwrap_or(0);
    out.returning(result)
}

/// `a / by`, of the extremes where it may be.
fn quotient(out: &mut Expr, a: u32, by: u32) -> u32 {
    let literal = |out: &Expr, a: u32| match out.nodes[a as usize] {
        Scalar::Literal(l) if l.dtype == DType::F32 => Some(l.f64()),
        _ => None,
    };
    let positive = literal(out, by).filter(|&c| c > 0.0 && c.is_finite());
    match (out.nodes[a as usize], positive) {
        (Scalar::Binary(op @ (Binary::Max | Binary::Min), x, y), Some(c)) => {
            let (x, y, bound) = match (literal(out, x), literal(out, y)) {
                (_, Some(bound)) => (x, y, bound),
                (Some(bound), None) => (y, x, bound),
                (None, None) => return out.binary(Binary::Div, a, by),
            };
            let inside = quotient(out, x, by);
            let bound = if bound == 0.0 { y } else { out.literal(DType::F32, bound / c) };
            out.binary(op, inside, bound)
        }
        _ => out.binary(Binary::Div, a, by),
    }
}

/// The values of a constant that depends on the column alone.
fn per_column(graph: &Graph, value: Value, columns: usize) -> Option<Vec<f64>> {
    let tensor = graph.constant(value)?;
    if !matches!(tensor.ty().dtype, DType::F32 | DType::I32) {
        return None;
    }
    let (&last, rest) = tensor.dims().split_last().unwrap_or((&1, &[]));
    let fits = rest.iter().all(|&d| d == 1) && (last == 1 || last == columns);
    let values = fits.then(|| tensor.f64s())?;
    Some(if last == 1 { vec![values[0]; columns] } else { values })
}

fn forms(expr: &Expr, columns: usize, constants: &[Option<Vec<f64>>]) -> Vec<Form> {
    let mut forms: Vec<Form> = vec![];
    for node in &expr.nodes {
        let form = |a: u32| &forms[a as usize];
        let next = match *node {
            Scalar::Operand(0) => Form::Affine(vec![1.0; columns], vec![0.0; columns]),
            Scalar::Operand(n) => match &constants[n as usize - 1] {
                Some(values) => Form::Constant(values.clone()),
                None => Form::Other,
            },
            Scalar::Literal(l) if matches!(l.dtype, DType::F32 | DType::I32) => {
                Form::Constant(vec![l.f64(); columns])
            }
            Scalar::Cast(DType::F32, a) => form(a).clone(),
            Scalar::Unary(Unary::Neg, a) => {
                binary(Binary::Sub, &Form::Constant(vec![0.0; columns]), form(a))
            }
            Scalar::Unary(Unary::Sqrt, a) => match form(a) {
                Form::Constant(c) => Form::Constant(c.iter().map(|x| x.sqrt()).collect()),
                Form::Affine(..) | Form::Other => Form::Other,
            },
            Scalar::Binary(op, a, b) => binary(op, form(a), form(b)),
            Scalar::Literal(_)
            | Scalar::Unary(..)
            | Scalar::Compare(..)
            | Scalar::Select(..)
            | Scalar::Cast(..) => Form::Other,
        };
        forms.push(next);
    }
    forms
}

fn binary(op: Binary, a: &Form, b: &Form) -> Form {
    let of = |f: fn(f64, f64) -> f64, a: &[f64], b: &[f64]| -> Vec<f64> {
        a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
    };
    let (add, sub): (fn(f64, f64) -> f64, fn(f64, f64) -> f64) = (|a, b| a + b, |a, b| a - b);
    let (mul, div): (fn(f64, f64) -> f64, fn(f64, f64) -> f64) = (|a, b| a * b, |a, b| a / b);
    match (op, a, b) {
        (Binary::Add, Form::Constant(a), Form::Constant(b)) => Form::Constant(of(add, a, b)),
        (Binary::Sub, Form::Constant(a), Form::Constant(b)) => Form::Constant(of(sub, a, b)),
        (Binary::Mul, Form::Constant(a), Form::Constant(b)) => Form::Constant(of(mul, a, b)),
        (Binary::Div, Form::Constant(a), Form::Constant(b)) => Form::Constant(of(div, a, b)),
        (Binary::Add, Form::Affine(f, s), Form::Constant(c))
        | (Binary::Add, Form::Constant(c), Form::Affine(f, s)) => {
            Form::Affine(f.clone(), of(add, s, c))
        }
        (Binary::Sub, Form::Affine(f, s), Form::Constant(c)) => {
            Form::Affine(f.clone(), of(sub, s, c))
        }
        (Binary::Sub, Form::Constant(c), Form::Affine(f, s)) => {
            Form::Affine(f.iter().map(|f| -f).collect(), of(sub, c, s))
        }
        (Binary::Mul, Form::Affine(f, s), Form::Constant(c))
        | (Binary::Mul, Form::Constant(c), Form::Affine(f, s)) => {
            Form::Affine(of(mul, f, c), of(mul, s, c))
        }
        (Binary::Div, Form::Affine(f, s), Form::Constant(c)) => {
            Form::Affine(of(div, f, c), of(div, s, c))
        }
        _ => Form::Other,
    }
}

/// Whether the result depends on the product's sum by another way than through node `stop`.
fn needs_sum(expr: &Expr, stop: usize) -> bool {
    let mut open = vec![expr.nodes.len() - 1];
    while let Some(i) = open.pop() {
        if expr.nodes[i] == Scalar::Operand(0) && i != stop {
            return true;
        }
        if i != stop {
            open.extend(expr.nodes[i].args().into_iter().map(|a| a as usize));
        }
    }
    false
}

fn rebuilt(r: &mut Rewriter<'_>, old: Value, folded: Folded) -> Value {
    let node = &r.old.nodes[old];
    let mut operands = r.operands(old);
    let rest = operands.split_off(2);
    let constant = |r: &mut Rewriter<'_>, tensor: Tensor| {
        let ty = tensor.ty().clone();
        r.push(Op::Constant(tensor), vec![], ty, node.origins.clone())
    };
    if let Some(weights) = folded.weights {
        operands[1] = constant(r, weights);
    }
    let mut out = Expr::new();
    let mut sum = out.operand(0);
    if let Some((added, factor)) = folded.integers {
        if let Some(added) = added {
            operands.push(constant(r, added));
            let added = out.operand(operands.len() - 2);
            sum = out.binary(Binary::Add, sum, added);
        }
        sum = out.cast(DType::F32, sum);
        operands.push(constant(r, factor));
        let factor = out.operand(operands.len() - 2);
        sum = out.binary(Binary::Mul, sum, factor);
    }
    let sum = match folded.bias {
        None => sum,
        Some(bias) => {
            operands.push(constant(r, bias));
            let bias = out.operand(operands.len() - 2);
            out.binary(Binary::Add, sum, bias)
        }
    };
    // What the sum no longer needs falls away, with its operands.
    let before = &folded.epilogue.nodes;
    let mut needed = vec![false; before.len()];
    needed[before.len() - 1] = true;
    let mut new = vec![sum; before.len()];
    for i in (folded.sum + 1..before.len()).rev().chain((0..folded.sum).rev()) {
        if needed[i] {
            before[i].args().into_iter().for_each(|a| needed[a as usize] = true);
        }
    }
    for (i, node) in before.iter().enumerate() {
        if needed[i] && i != folded.sum {
            new[i] = match *node {
                Scalar::Operand(n) => {
                    operands.push(rest[n as usize - 1]);
                    out.operand(operands.len() - 2)
                }
                node => out.push(node.with_args(|a| new[a as usize])),
            };
        }
    }
    let epilogue = out.returning(new[before.len() - 1]);
    let epilogue = Some(epilogue).filter(|e| *e != Expr::identity());
    let op = match &node.op {
        Op::Contract(c) => Op::Contract(Contract { epilogue, ..c.clone() }),
        Op::Conv(c) => Op::Conv(Conv { epilogue, ..c.clone() }),
        other => other.clone(),
    };
    r.push(op, operands, node.ty.clone(), node.origins.clone())
}
