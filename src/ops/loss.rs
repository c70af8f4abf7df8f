//! Losses of classifiers: how little of the scores `[N, C, ..]` is on the classes that labels `[N, ..]` name.
//!
//! The loss of a label is what the score of its class lacks, times the class's weight (1 without weights). Labels
//! that are to be ignored, and those that name no class, have a loss and a weight of 0. Losses are given as they
//! are, summed up, or as their mean: their sum over the sum of the weights, NaN where that is 0.

use super::softmax::log_softmax;
use super::tools::{self, FLOATS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Comparison, Reduction, Unary};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// What is made of the losses.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Summary {
    Mean,
    Sum,
    None,
}

/// The attributes of a loss.
#[derive(Clone, Debug, PartialEq)]
struct Loss {
    ignored: Option<i64>,
    summary: Summary,
}

impl Loss {
    fn parse(attrs: &mut Attrs) -> Result<Loss, ErrorKind> {
        let all = [Summary::Mean, Summary::Sum, Summary::None];
        let summary = all[attrs.choice("reduction", &["mean", "sum", "none"])?];
        Ok(Loss { ignored: attrs.int("ignore_index")?, summary })
    }

    /// The type of the result.
    fn infer(&self, inputs: &Operands<'_>) -> Result<Type, ErrorKind> {
        inputs.arity(2, 3)?;
        let (scores, labels) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(scores, &FLOATS, &FLOATS)?;
        tools::dtype_in(labels, &[DType::I32, DType::I64], &[])?;
        let [batch, classes, places @ ..] = &scores.dims[..] else {
            let kind = ErrorKind::wrong(format!("the scores are {scores}"));
            return Err(kind.help("they must be [N, C, ..]"));
        };
        let expected = [&[*batch], places].concat();
        if labels.dims != expected {
            let kind = ErrorKind::wrong(format!("the labels are {labels} for scores {scores}"));
            return Err(kind.help(format!("they must be {expected:?}")));
        }
        if let Some(weights) = inputs.get(2)
            && (weights.dtype != scores.dtype || weights.dims != [*classes])
        {
            let kind = ErrorKind::wrong(format!("the weights are {weights}"));
            return Err(kind.help(format!("they must be {}[{classes}]", scores.dtype)));
        }
        let dims = if self.summary == Summary::None { expected } else { vec![] };
        Ok(Type::new(scores.dtype, dims))
    }

    fn reference(&self, scores: &Tensor, labels: &Tensor, weights: Option<&Tensor>, ty: &Type) -> Tensor {
        let classes = scores.dims()[1];
        let inner: usize = scores.dims()[2..].iter().product();
        let (scores, weights) = (scores.f64s(), weights.map(Tensor::f64s));
        let (mut losses, mut sum) = (vec![], 0.0);
        for (i, label) in labels.ints().into_iter().enumerate() {
            let class = usize::try_from(label).ok().filter(|&class| class < classes);
            let Some(class) = class.filter(|_| self.ignored != Some(label)) else {
                losses.push(0.0);
                continue;
            };
            let weight = weights.as_ref().map_or(1.0, |weights| weights[class]);
            losses.push(-weight * scores[(i / inner * classes + class) * inner + i % inner]);
            sum += weight;
        }
        let all = || losses.iter().sum::<f64>();
        match self.summary {
            Summary::Mean => Tensor::from_f64s(ty.clone(), [all() / sum]),
            Summary::Sum => Tensor::from_f64s(ty.clone(), [all()]),
            Summary::None => Tensor::from_f64s(ty.clone(), losses),
        }
    }

    /// Of each label, the one score (and weight) that is its class's, taken from all classes.
    fn expand(
        &self,
        mir: &mut mir::Builder,
        scores: mir::Value,
        labels: mir::Value,
        weights: Option<mir::Value>,
        ty: &Type,
    ) -> mir::Value {
        let (dims, numbers) = (mir.dims(scores), mir.ty(labels).dtype);
        let (classes, mut one) = (dims[1], dims.clone());
        one[1] = 1;
        let mut column = vec![1; dims.len()];
        column[1] = classes;
        let mut labels = mir.reshape(labels, one);
        if let Some(ignored) = self.ignored.filter(|i| (0..classes as i64).contains(i)) {
            let ignored = mir.scalar(numbers, ignored as f64);
            let (is, none) = (mir.compare(Comparison::Equal, labels, ignored), mir.scalar(numbers, -1.0));
            labels = mir.select(is, none, labels);
        }
        let places = Tensor::from_ints(Type::new(numbers, column.clone()), 0..classes as i64);
        let places = mir.constant(places);
        let named = mir.compare(Comparison::Equal, labels, places);
        let dtype = mir.ty(scores).dtype;
        let (zero, unit) = (mir.scalar(dtype, 0.0), mir.scalar(dtype, 1.0));
        let weights = weights.map(|weights| mir.reshape(weights, column));
        let mut lacks = mir.unary(Unary::Neg, scores);
        if let Some(weights) = weights {
            lacks = mir.binary(Binary::Mul, lacks, weights);
        }
        let losses = mir.select(named, lacks, zero);
        let axes: Vec<usize> = match self.summary {
            Summary::Mean | Summary::Sum => (0..dims.len()).collect(),
            Summary::None => vec![1],
        };
        let mut result = mir.reduce(Reduction::Sum, losses, &axes);
        if self.summary == Summary::Mean {
            let weights = mir.select(named, weights.unwrap_or(unit), zero);
            let weights = mir.broadcast(weights, dims);
            let sum = mir.reduce(Reduction::Sum, weights, &axes);
            result = mir.binary(Binary::Div, result, sum);
        }
        let result = mir.cast(result, ty.dtype);
        mir.reshape(result, ty.dims.clone())
    }
}

/// In what sums are made: 16-bit floats in f32.
fn wide(mir: &mut mir::Builder, x: mir::Value) -> mir::Value {
    match mir.ty(x).dtype {
        DType::F16 | DType::BF16 => mir.cast(x, DType::F32),
        _ => x,
    }
}

/// The loss of logarithms of probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct NegativeLogLikelihoodLoss {
    loss: Loss,
}

impl Op for NegativeLogLikelihoodLoss {
    const NAME: &'static str = "NegativeLogLikelihoodLoss";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(NegativeLogLikelihoodLoss { loss: Loss::parse(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        Ok(vec![self.loss.infer(inputs)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(scores), Some(labels), ref weights @ ..] = inputs else { return vec![] };
        let weights = weights.first().copied().flatten();
        vec![self.loss.reference(scores, labels, weights, &outputs[0])]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(scores), Some(labels), ref weights @ ..] = inputs else { return vec![] };
        let scores = wide(mir, scores);
        let weights = weights.first().copied().flatten().map(|weights| wide(mir, weights));
        vec![self.loss.expand(mir, scores, labels, weights, &outputs[0])]
    }
}

/// The loss of scores of any size: of their `LogSoftmax` over the classes, which is the second result.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxCrossEntropyLoss {
    loss: Loss,
}

impl Op for SoftmaxCrossEntropyLoss {
    const NAME: &'static str = "SoftmaxCrossEntropyLoss";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(SoftmaxCrossEntropyLoss { loss: Loss::parse(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        Ok(vec![self.loss.infer(inputs)?, inputs.ty(0)?.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(scores), Some(labels), ref weights @ ..] = inputs else { return vec![] };
        let weights = weights.first().copied().flatten();
        let wide = Type::new(DType::F64, scores.dims());
        let logs = super::softmax::reference_log_softmax(&Tensor::from_f64s(wide, scores.f64s()), 1);
        let loss = self.loss.reference(&logs, labels, weights, &outputs[0]);
        vec![loss, Tensor::from_f64s(outputs[1].clone(), logs.f64s())]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(scores), Some(labels), ref weights @ ..] = inputs else { return vec![] };
        let scores = wide(mir, scores);
        let weights = weights.first().copied().flatten().map(|weights| wide(mir, weights));
        let logs = log_softmax(mir, scores, 1);
        let loss = self.loss.expand(mir, logs, labels, weights, &outputs[0]);
        vec![loss, mir.cast(logs, outputs[1].dtype)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{infer_with, text};
    use crate::types::DType::*;

    #[test]
    fn shapes() {
        let types = |scores: &[usize], labels: &[usize], weights: &[usize], how: &str| {
            let operands: &[(_, &[usize])] = &[(F32, scores), (I64, labels), (F32, weights)];
            let found = infer_with("SoftmaxCrossEntropyLoss", &[("reduction", text(how))], operands);
            found.map(|types| types.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(types(&[2, 5, 3], &[2, 3], &[5], "none").unwrap(), ["f32[2, 3]", "f32[2, 5, 3]"]);
        assert_eq!(types(&[2, 5], &[2], &[5], "mean").unwrap()[0], "f32[]");
        assert!(types(&[2, 5], &[5], &[5], "mean").is_err());
        assert!(types(&[2, 5], &[2], &[2], "sum").is_err());
        assert!(types(&[2], &[2], &[2], "sum").is_err());
        assert!(types(&[2, 5], &[2], &[5], "most").is_err());
    }
}
