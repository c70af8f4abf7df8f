//! The functions that recurrent operators may name.

use crate::error::{ErrorKind, nearest};
use crate::mir::expr::Ref;
use crate::mir::{Binary, Comparison, Expr, Unary};
use crate::ops::Attrs;
use crate::types::DType;

/// A function with its parameters alpha and beta.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Activation {
    kind: Kind,
    alpha: f64,
    beta: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Relu,
    Tanh,
    Sigmoid,
    Affine,
    LeakyRelu,
    ThresholdedRelu,
    ScaledTanh,
    HardSigmoid,
    Elu,
    Softsign,
    Softplus,
}

/// Name, function, and the defaults of the parameters that it has.
const TABLE: [(&str, Kind, Option<f64>, Option<f64>); 11] = [
    ("Relu", Kind::Relu, None, None),
    ("Tanh", Kind::Tanh, None, None),
    ("Sigmoid", Kind::Sigmoid, None, None),
    ("Affine", Kind::Affine, Some(1.0), Some(0.0)),
    ("LeakyRelu", Kind::LeakyRelu, Some(0.01), None),
    ("ThresholdedRelu", Kind::ThresholdedRelu, Some(1.0), None),
    ("ScaledTanh", Kind::ScaledTanh, Some(1.0), Some(1.0)),
    ("HardSigmoid", Kind::HardSigmoid, Some(0.2), Some(0.5)),
    ("Elu", Kind::Elu, Some(1.0), None),
    ("Softsign", Kind::Softsign, None, None),
    ("Softplus", Kind::Softplus, None, None),
];

/// The functions of a node, in its order, or `defaults`; there must be `count` of them. Parameters are
/// taken by the functions that have them, in that order.
pub(super) fn parse(
    attrs: &mut Attrs,
    defaults: &[&str],
    count: usize,
) -> Result<Vec<Activation>, ErrorKind> {
    let names = attrs.texts("activations")?.unwrap_or_default();
    let names: Vec<String> = match names.is_empty() {
        true => defaults.iter().cycle().take(count).map(|&n| n.to_owned()).collect(),
        false => names,
    };
    if names.len() != count {
        let found = names.len();
        let message = format!("attribute \"activations\" has {found} entries, and must have {count}");
        return Err(ErrorKind::wrong(message));
    }
    let mut alphas = attrs.floats("activation_alpha")?.unwrap_or_default().into_iter();
    let mut betas = attrs.floats("activation_beta")?.unwrap_or_default().into_iter();
    let mut found = vec![];
    for name in &names {
        let row = TABLE.iter().find(|row| row.0.eq_ignore_ascii_case(name));
        let &(_, kind, alpha, beta) = row.ok_or_else(|| {
            let kind = ErrorKind::wrong(format!("there is no activation function \"{name}\""));
            match nearest(name, TABLE.iter().map(|row| row.0)) {
                Some(near) => kind.help(format!("did you mean \"{near}\"?")),
                None => kind.help(format!("there are: {}", TABLE.map(|row| row.0).join(", "))),
            }
        })?;
        let alpha = alpha.map_or(0.0, |default| alphas.next().unwrap_or(default));
        let beta = beta.map_or(0.0, |default| betas.next().unwrap_or(default));
        found.push(Activation { kind, alpha, beta });
    }
    Ok(found)
}

impl Activation {
    /// The function by its definition.
    pub(super) fn apply(self, x: f64) -> f64 {
        let Activation { alpha, beta, .. } = self;
        match self.kind {
            Kind::Relu => if x > 0.0 || x.is_nan() { x } else { 0.0 },
            Kind::Tanh => x.tanh(),
            Kind::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Kind::Affine => alpha * x + beta,
            Kind::LeakyRelu => if x < 0.0 { alpha * x } else { x },
            Kind::ThresholdedRelu => if x < alpha { 0.0 } else { x },
            Kind::ScaledTanh => alpha * (beta * x).tanh(),
            Kind::HardSigmoid => (alpha * x + beta).clamp(0.0, 1.0),
            Kind::Elu => if x < 0.0 { alpha * x.exp_m1() } else { x },
            Kind::Softsign => x / (1.0 + x.abs()),
            Kind::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        }
    }

    /// The function as an expression.
    pub(super) fn expand(self, e: &mut Expr, dtype: DType, x: Ref) -> Ref {
        let mut literal = |value: f64| e.literal(dtype, value);
        let [zero, one, alpha, beta] = [0.0, 1.0, self.alpha, self.beta].map(&mut literal);
        match self.kind {
            Kind::Relu => e.binary(Binary::Max, x, zero),
            Kind::Tanh => e.unary(Unary::Tanh, x),
            Kind::Sigmoid => e.unary(Unary::Sigmoid, x),
            Kind::Affine => {
                let product = e.binary(Binary::Mul, alpha, x);
                e.binary(Binary::Add, product, beta)
            }
            Kind::LeakyRelu => {
                let (low, product) = (e.compare(Comparison::Less, x, zero), e.binary(Binary::Mul, alpha, x));
                e.select(low, product, x)
            }
            Kind::ThresholdedRelu => {
                let low = e.compare(Comparison::Less, x, alpha);
                e.select(low, zero, x)
            }
            Kind::ScaledTanh => {
                let product = e.binary(Binary::Mul, beta, x);
                let tanh = e.unary(Unary::Tanh, product);
                e.binary(Binary::Mul, alpha, tanh)
            }
            Kind::HardSigmoid => {
                let product = e.binary(Binary::Mul, alpha, x);
                let sum = e.binary(Binary::Add, product, beta);
                let low = e.binary(Binary::Max, sum, zero);
                e.binary(Binary::Min, low, one)
            }
            Kind::Elu => {
                let exp = e.unary(Unary::Exp, x);
                let less = e.binary(Binary::Sub, exp, one);
                let product = e.binary(Binary::Mul, alpha, less);
                let low = e.compare(Comparison::Less, x, zero);
                e.select(low, product, x)
            }
            Kind::Softsign => {
                let size = e.unary(Unary::Abs, x);
                let sum = e.binary(Binary::Add, one, size);
                e.binary(Binary::Div, x, sum)
            }
            Kind::Softplus => {
                let size = e.unary(Unary::Abs, x);
                let turned = e.unary(Unary::Neg, size);
                let exp = e.unary(Unary::Exp, turned);
                let sum = e.binary(Binary::Add, one, exp);
                let log = e.unary(Unary::Log, sum);
                let high = e.binary(Binary::Max, x, zero);
                e.binary(Binary::Add, high, log)
            }
        }
    }
}
