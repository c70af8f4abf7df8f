//! Constant factors and summands of a product's columns move into its weights and one bias: batch
//! normalization and scales after a matrix product or a convolution.
//!
//! What is done to a sum is followed through the epilogue as `factor * sum + summand` per column, in
//! 64 bits; weights and bias are rounded once.

use super::rewrite::Rewriter;
use crate::mir::{Binary, Contract, Conv, Expr, Graph, Node, Op, Scalar, Unary, Value, Weights};
use crate::tensor::Tensor;
use crate::types::DType;

/// See the module's text.
pub fn fold(graph: Graph) -> Graph {
    let uses = graph.uses();
    let mut r = Rewriter::new(&graph);
    for (old, node) in &graph.nodes {
        // Weights that others read, too, would be there twice.
        let own = node.operands.get(1).is_some_and(|&weights| uses[weights] == 1);
        match folded(&graph, node).filter(|_| own) {
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
    weights: Tensor,
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
    let scaled: Vec<f32> =
        (tensor.f64s().iter().enumerate()).map(|(i, w)| (w * factor[i % columns]) as f32).collect();
    let bias: Vec<f32> = summand.iter().map(|&b| b as f32).collect();
    if !scaled.iter().chain(&bias).all(|x| x.is_finite()) {
        return None;
    }
    let weights = Tensor::from_f32s(tensor.dims(), &scaled);
    let some = bias.iter().any(|&b| b != 0.0);
    let bias = some.then(|| Tensor::from_f32s([columns], &bias));
    Some(Folded { weights, bias, epilogue: epilogue.clone(), sum })
}

/// The values of a constant that depends on the column alone.
fn per_column(graph: &Graph, value: Value, columns: usize) -> Option<Vec<f64>> {
    let tensor = graph.constant(value).filter(|t| t.ty().dtype == DType::F32)?;
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
            Scalar::Literal(l) if l.dtype == DType::F32 => Form::Constant(vec![l.f64(); columns]),
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
    operands[1] = constant(r, folded.weights);
    let mut out = Expr::new();
    let sum = out.operand(0);
    let sum = match folded.bias {
        None => sum,
        Some(bias) => {
            operands.push(constant(r, bias));
            let bias = out.operand(1);
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
