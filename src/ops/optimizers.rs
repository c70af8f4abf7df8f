//! One step of training: new values of variables from their gradients.
//!
//! Operands are the learning rate R, the number T of steps so far, then all variables X, all their gradients G, and all
//! that is accumulated for them, in lists of one length; results are the new X, and the new of what is accumulated.

use super::formula::Formula;
use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::mir::expr::Ref;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// How a variable changes.
trait Rule {
    /// Lists of operands: variables, gradients, and what is accumulated.
    const LISTS: usize;

    /// What is the same for all elements.
    fn common(&self, rate: f64, steps: f64) -> f64;

    /// The new values of an element, from R, what is common, and its elements of all lists.
    fn element(&self, rate: f64, common: f64, lists: &[f64]) -> Vec<f64>;

    /// [`Rule::common`] as an expression.
    fn common_in(&self, f: &mut Formula, rate: Ref, steps: Ref) -> Ref;

    /// [`Rule::element`] as expressions.
    fn element_in(&self, f: &mut Formula, rate: Ref, common: Ref, lists: &[Ref]) -> Vec<Ref>;
}

fn infer<R: Rule>(inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
    const FLOATS: [DType; 2] = [DType::F32, DType::F64];
    inputs.arity(2 + R::LISTS, usize::MAX)?;
    tools::dtype_in(tools::single(inputs.ty(0)?, "the learning rate")?, &FLOATS, &[])?;
    tools::dtype_in(tools::single(inputs.ty(1)?, "the number of steps")?, &[DType::I64], &[])?;
    let count = (inputs.len() - 2) / R::LISTS;
    if inputs.len() != 2 + count * R::LISTS {
        let kind = ErrorKind::wrong(format!("{} operands behind the first two", inputs.len() - 2));
        return Err(kind.help(format!("they must be {} lists of one length", R::LISTS)));
    }
    for i in 0..count * R::LISTS {
        let (own, of) = (inputs.ty(2 + i)?, inputs.ty(2 + i % count)?);
        tools::dtype_in(own, &FLOATS, &[])?;
        if own != of {
            let kind = ErrorKind::wrong(format!("operand {} is {own}", 2 + i));
            return Err(kind.help(format!("it must be {of}, as its variable")));
        }
    }
    let variables = (0..count).map(|i| inputs.ty(2 + i).cloned()).collect::<Result<Vec<_>, _>>()?;
    Ok(variables.iter().cycle().take(count * (R::LISTS - 1)).cloned().collect())
}

fn reference<R: Rule>(rule: &R, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
    let [Some(rate), Some(steps), lists @ ..] = inputs else { return vec![] };
    let count = lists.len() / R::LISTS;
    let (rate, steps) = (rate.f64_at(0), steps.int_at(0) as f64);
    let common = rule.common(rate, steps);
    let mut results = vec![vec![]; outputs.len()];
    for i in 0..count {
        let own: Vec<Vec<f64>> =
            (0..R::LISTS).filter_map(|list| lists[list * count + i].map(Tensor::f64s)).collect();
        for element in 0..outputs[i].elements() {
            let values: Vec<f64> = own.iter().map(|list| list[element]).collect();
            for (list, value) in rule.element(rate, common, &values).into_iter().enumerate() {
                results[list * count + i].push(value);
            }
        }
    }
    let tensor = |(ty, values): (&Type, Vec<f64>)| Tensor::from_f64s(ty.clone(), values);
    outputs.iter().zip(results).map(tensor).collect()
}

fn expand<R: Rule>(
    rule: &R,
    mir: &mut mir::Builder,
    inputs: &[Option<mir::Value>],
    outputs: &[Type],
) -> Vec<mir::Value> {
    let &[Some(rate), Some(steps), ref lists @ ..] = inputs else { return vec![] };
    let count = lists.len() / R::LISTS;
    let [rate, steps] = [rate, steps].map(|scalar| {
        let scalar = mir.reshape(scalar, []);
        mir.cast(scalar, DType::F64)
    });
    // What is near to 1 is subtracted from 1 there.
    let mut f = Formula::new(DType::F64);
    let (r, t) = (f.operand(0), f.operand(1));
    let common = rule.common_in(&mut f, r, t);
    let common = mir.map(f.finish(common), &[rate, steps]);
    let mut results = vec![];
    for (i, ty) in outputs[..count].iter().enumerate() {
        let mut operands = vec![mir.cast(rate, ty.dtype), mir.cast(common, ty.dtype)];
        operands.extend((0..R::LISTS).filter_map(|list| lists[list * count + i]));
        let mut f = Formula::new(ty.dtype);
        let (r, c) = (f.operand(0), f.operand(1));
        let own: Vec<Ref> = (0..R::LISTS).map(|list| f.operand(2 + list)).collect();
        let new = rule.element_in(&mut f, r, c, &own);
        for (list, new) in new.into_iter().enumerate() {
            results.push((list * count + i, mir.map(f.copy(new), &operands)));
        }
    }
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, value)| value).collect()
}

/// The operator that is a rule.
macro_rules! operator {
    ($Name:ident, $name:literal, $attrs:ident => $parse:expr) => {
        impl Op for $Name {
            const NAME: &'static str = concat!("ai.onnx.preview.training:", $name);
            const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

            fn parse($attrs: &mut Attrs) -> Result<Self, ErrorKind> {
                Ok($parse)
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                infer::<$Name>(inputs)
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                reference(self, inputs, outputs)
            }

            fn expand(
                &self,
                mir: &mut mir::Builder,
                inputs: &[Option<mir::Value>],
                outputs: &[Type],
            ) -> Vec<mir::Value> {
                expand(self, mir, inputs, outputs)
            }
        }
    };
}

/// `factor * X + G`: the gradient with that of `factor / 2` times the sum of the squares of X.
fn regularized(f: &mut Formula, factor: f64, x: Ref, gradient: Ref) -> Ref {
    let own = f.scale(x, factor);
    f.add(own, gradient)
}

/// With `g = norm_coefficient X + G`: `H' = H + g^2`, `X' = X - R / (1 + T decay_factor) g / (sqrt(H') + epsilon)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adagrad {
    norm: f64,
    decay: f64,
    epsilon: f64,
}

operator!(Adagrad, "Adagrad", attrs => Adagrad {
    norm: attrs.float_or("norm_coefficient", 0.0)?,
    decay: attrs.float_or("decay_factor", 0.0)?,
    epsilon: attrs.float_or("epsilon", 1e-6)?,
});

impl Rule for Adagrad {
    const LISTS: usize = 3;

    fn common(&self, rate: f64, steps: f64) -> f64 {
        rate / (1.0 + steps * self.decay)
    }

    fn element(&self, _: f64, rate: f64, lists: &[f64]) -> Vec<f64> {
        let (x, gradient) = (lists[0], self.norm * lists[0] + lists[1]);
        let sum = lists[2] + gradient * gradient;
        vec![x - rate * gradient / (sum.sqrt() + self.epsilon), sum]
    }

    fn common_in(&self, f: &mut Formula, rate: Ref, steps: Ref) -> Ref {
        let decay = f.scale(steps, self.decay);
        let by = f.offset(decay, 1.0);
        f.div(rate, by)
    }

    fn element_in(&self, f: &mut Formula, _: Ref, rate: Ref, lists: &[Ref]) -> Vec<Ref> {
        let gradient = regularized(f, self.norm, lists[0], lists[1]);
        let square = f.mul(gradient, gradient);
        let sum = f.add(lists[2], square);
        let root = f.sqrt(sum);
        let by = f.offset(root, self.epsilon);
        let step = f.mul(rate, gradient);
        let step = f.div(step, by);
        vec![f.sub(lists[0], step), sum]
    }
}

/// With `g = norm_coefficient X + G`: `V' = alpha V + (1 - alpha) g`, `H' = beta H + (1 - beta) g^2`, and `X' = (1 -
/// norm_coefficient_post) (X - r V' / (sqrt(H') + epsilon))`, where `r = R sqrt(1 - beta^T) / (1 - alpha^T)`, and R
/// where T is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    norm: f64,
    norm_post: f64,
    alpha: f64,
    beta: f64,
    epsilon: f64,
}

operator!(Adam, "Adam", attrs => Adam {
    norm: attrs.float_or("norm_coefficient", 0.0)?,
    norm_post: attrs.float_or("norm_coefficient_post", 0.0)?,
    alpha: attrs.float_or("alpha", f64::from(0.9f32))?,
    beta: attrs.float_or("beta", f64::from(0.999f32))?,
    epsilon: attrs.float_or("epsilon", 1e-6)?,
});

impl Rule for Adam {
    const LISTS: usize = 4;

    fn common(&self, rate: f64, steps: f64) -> f64 {
        match steps > 0.0 {
            true => rate * (1.0 - self.beta.powf(steps)).sqrt() / (1.0 - self.alpha.powf(steps)),
            false => rate,
        }
    }

    fn element(&self, _: f64, rate: f64, lists: &[f64]) -> Vec<f64> {
        let (x, gradient) = (lists[0], self.norm * lists[0] + lists[1]);
        let mean = self.alpha * lists[2] + (1.0 - self.alpha) * gradient;
        let square = self.beta * lists[3] + (1.0 - self.beta) * gradient * gradient;
        let x = x - rate * mean / (square.sqrt() + self.epsilon);
        vec![(1.0 - self.norm_post) * x, mean, square]
    }

    fn common_in(&self, f: &mut Formula, rate: Ref, steps: Ref) -> Ref {
        let (zero, one) = (f.lit(0.0), f.lit(1.0));
        let [alpha, beta] = [self.alpha, self.beta].map(|base| {
            let base = f.lit(base);
            let power = f.pow(base, steps);
            f.sub(one, power)
        });
        let root = f.sqrt(beta);
        let product = f.mul(rate, root);
        let adjusted = f.div(product, alpha);
        let later = f.greater(steps, zero);
        f.select(later, adjusted, rate)
    }

    fn element_in(&self, f: &mut Formula, _: Ref, rate: Ref, lists: &[Ref]) -> Vec<Ref> {
        let gradient = regularized(f, self.norm, lists[0], lists[1]);
        let (old, new) = (f.scale(lists[2], self.alpha), f.scale(gradient, 1.0 - self.alpha));
        let mean = f.add(old, new);
        let square = f.mul(gradient, gradient);
        let (old, new) = (f.scale(lists[3], self.beta), f.scale(square, 1.0 - self.beta));
        let square = f.add(old, new);
        let root = f.sqrt(square);
        let by = f.offset(root, self.epsilon);
        let step = f.mul(rate, mean);
        let step = f.div(step, by);
        let x = f.sub(lists[0], step);
        vec![f.scale(x, 1.0 - self.norm_post), mean, square]
    }
}

/// With `g = norm_coefficient X + G`: `V' = alpha V + b g`, where b is `beta`, and 1 where T is 0; `X' = X - R V'`, or with
/// Nesterov's momentum `X - R (g + alpha V')`.
#[derive(Clone, Debug, PartialEq)]
pub struct Momentum {
    norm: f64,
    alpha: f64,
    beta: f64,
    nesterov: bool,
}

operator!(Momentum, "Momentum", attrs => Momentum {
    norm: tools::required(attrs.float("norm_coefficient")?, "norm_coefficient")?,
    alpha: tools::required(attrs.float("alpha")?, "alpha")?,
    beta: tools::required(attrs.float("beta")?, "beta")?,
    nesterov: match attrs.has("mode") {
        true => attrs.choice("mode", &["standard", "nesterov"])? == 1,
        false => return Err(ErrorKind::wrong("attribute \"mode\" is missing")),
    },
});

impl Rule for Momentum {
    const LISTS: usize = 3;

    fn common(&self, _: f64, steps: f64) -> f64 {
        if steps > 0.0 { self.beta } else { 1.0 }
    }

    fn element(&self, rate: f64, beta: f64, lists: &[f64]) -> Vec<f64> {
        let (x, gradient) = (lists[0], self.norm * lists[0] + lists[1]);
        let mean = self.alpha * lists[2] + beta * gradient;
        let step = if self.nesterov { gradient + self.alpha * mean } else { mean };
        vec![x - rate * step, mean]
    }

    fn common_in(&self, f: &mut Formula, _: Ref, steps: Ref) -> Ref {
        let (zero, one, beta) = (f.lit(0.0), f.lit(1.0), f.lit(self.beta));
        let later = f.greater(steps, zero);
        f.select(later, beta, one)
    }

    fn element_in(&self, f: &mut Formula, rate: Ref, beta: Ref, lists: &[Ref]) -> Vec<Ref> {
        let gradient = regularized(f, self.norm, lists[0], lists[1]);
        let (old, new) = (f.scale(lists[2], self.alpha), f.mul(beta, gradient));
        let mean = f.add(old, new);
        let mut step = mean;
        if self.nesterov {
            let ahead = f.scale(mean, self.alpha);
            step = f.add(gradient, ahead);
        }
        let step = f.mul(rate, step);
        vec![f.sub(lists[0], step), mean]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn steps() {
        let node = "ai.onnx.preview.training:Momentum norm_coefficient=0.0 alpha=0.5 beta=2.0 mode=standard";
        let step = |steps: &str| {
            let operands = ["f32[]=0.1", steps, "f32[1]=1", "f32[1]=3", "f32[1]=4"];
            definition(node, &operands).into_iter().map(|t| t.f64_at(0)).collect::<Vec<_>>()
        };
        assert_eq!(step("i64[]=0"), [0.5, 5.0]);
        assert_eq!(step("i64[]=1")[1], 8.0);
        refused(node, &["f32[]", "i64[]", "f32[1]", "f32[1]"]);
        refused(node, &["f32[]", "i64[]", "f32[1]", "f32[1]", "f32[2]"]);
        refused(node, &["f32[]", "i64[]", "f32[1]", "f32[1]", "f32[1]", "f32[1]"]);
        refused("ai.onnx.preview.training:Momentum alpha=0.5", &["f32[]", "i64[]", "f32[1]", "f32[1]", "f32[1]"]);
    }
}
