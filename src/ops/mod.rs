//! The operators: one file each (or one per family), one line each in the table below.
//!
//! A file holds, in this order: the definition (and what it does with NaN, -0, empty tensors,
//! overflow), the attributes, `parse`, `infer`, `reference`, `expand`, its tolerance, and tests for its
//! shape rules. `reference` uses only `tensor`, `expand` only the builder of MIR: they share no code,
//! which is what makes comparing them worth something.

mod attrs;
pub mod formula;
#[cfg(test)]
mod tests;
pub mod tools;
mod window;

pub use attrs::{Attribute, Attrs, DEFAULT_OPSET};

use crate::error::{ErrorKind, nearest};
use crate::mir;
use crate::tensor::Tensor;
use crate::types::Type;

/// How far an operator's result may be from its definition.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Tolerance {
    /// The same bits (any NaN is as good as another).
    Exact,
    /// So many units in the last place.
    Ulps(u32),
    /// Relative to the largest magnitude in the result.
    Relative(f64),
}

/// Everything that the compiler knows about one operator. No method has a default: an operator that
/// lacks one does not compile.
pub trait Op: Sized {
    /// Spelling in model files. Operators of another domain than ONNX's have it before a colon:
    /// `rlx:FusedSwiGLU`, `com.microsoft:Gelu`.
    const NAME: &'static str;
    /// How exact a result has to be.
    const TOLERANCE: Tolerance;

    /// From its attributes. What is not taken is an error (made by the caller).
    ///
    /// # Errors
    ///
    /// An attribute that is missing, of another type, out of range, or not honoured.
    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind>;

    /// Types of all results, optional ones too.
    ///
    /// # Errors
    ///
    /// Operands that do not fit (`wrong`), or that this compiler does not do (`unsupported`: an
    /// element type, or an operand that has to be known when the model is compiled and is not).
    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind>;

    /// The operator's meaning, for inputs that `infer` has accepted and the types that it gave: naive
    /// loops with 64-bit accumulation, from the specification.
    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor>;

    /// The operator in terms of MIR. Operands that `infer` wants to be constant are constants here.
    /// Gives a value of exactly the type in `outputs` for each.
    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value>;
}

/// What `infer` sees of an operand.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Its type.
    pub ty: &'a Type,
    /// Its value, where it is known when the model is compiled.
    pub constant: Option<&'a Tensor>,
}

/// The operands of a node, optional ones that are left out included.
#[derive(Clone, Debug)]
pub struct Operands<'a>(Vec<Option<Operand<'a>>>);

impl<'a> Operands<'a> {
    /// The operands in order. Trailing ones that are left out count as not there.
    pub fn new(mut operands: Vec<Option<Operand<'a>>>) -> Operands<'a> {
        while let Some(None) = operands.last() {
            operands.pop();
        }
        Operands(operands)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An error unless there are `least..=most` and the first `least` are all there.
    ///
    /// # Errors
    ///
    /// As said.
    pub fn arity(&self, least: usize, most: usize) -> Result<(), ErrorKind> {
        let found = self.len();
        let expected = match (least, most) {
            (a, b) if a == b => format!("{a}"),
            (a, usize::MAX) => format!("at least {a}"),
            (a, b) => format!("{a} to {b}"),
        };
        if found < least || found > most {
            return Err(ErrorKind::wrong(format!(
                "{expected} operands are asked for, and {found} are given"
            )));
        }
        match self.0.iter().take(least).position(Option::is_none) {
            Some(i) => {
                Err(ErrorKind::wrong(format!("operand {i} is left out, and it is not optional")))
            }
            None => Ok(()),
        }
    }

    /// Type of operand `i`, if it is there.
    pub fn get(&self, i: usize) -> Option<&'a Type> {
        self.0.get(i).copied().flatten().map(|o| o.ty)
    }

    /// Type of operand `i`.
    ///
    /// # Errors
    ///
    /// When it is left out.
    pub fn ty(&self, i: usize) -> Result<&'a Type, ErrorKind> {
        self.get(i).ok_or_else(|| {
            ErrorKind::wrong(format!("operand {i} is left out, and it is not optional"))
        })
    }

    /// Value of operand `i`, if it is there and known.
    pub fn constant(&self, i: usize) -> Option<&'a Tensor> {
        self.0.get(i).copied().flatten().and_then(|o| o.constant)
    }

    /// Value of operand `i`, called `what` in the message, if it is there.
    ///
    /// # Errors
    ///
    /// When it is there and its value is known only at run time.
    pub fn known(&self, i: usize, what: &str) -> Result<Option<&'a Tensor>, ErrorKind> {
        match self.0.get(i).copied().flatten() {
            None => Ok(None),
            Some(Operand { constant: Some(tensor), .. }) => Ok(Some(tensor)),
            Some(_) => Err(ErrorKind::unsupported(format!(
                "{what} (operand {i}) is known only at run time"
            ))
            .help("make it a constant of the model: shapes have to be known when it is compiled")),
        }
    }

    /// Whether all operands that are there are known (and there is at least one, or none at all).
    pub fn all_constant(&self) -> bool {
        self.0.iter().flatten().all(|o| o.constant.is_some())
    }

    /// All operands' types; an error when one is left out.
    ///
    /// # Errors
    ///
    /// As said.
    pub fn types(&self) -> Result<Vec<&'a Type>, ErrorKind> {
        (0..self.len()).map(|i| self.ty(i)).collect()
    }
}

macro_rules! ops {
    ($($module:ident::{$($Op:ident),* $(,)?}),* $(,)?) => {
        $(pub mod $module;)*

        /// Any operator.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each variant is documented on its struct")]
        pub enum AnyOp { $($($Op($module::$Op)),*),* }

        impl AnyOp {
            /// Names of all operators, in the table's order.
            pub const NAMES: &[&str] = &[$($($module::$Op::NAME),*),*];

            /// The operator called `name` (with its domain, see [`Op::NAME`]) with these attributes.
            ///
            /// # Errors
            ///
            /// An unknown name, attributes that do not fit, and attributes that it does not know.
            pub fn parse(name: &str, attrs: &mut Attrs) -> Result<AnyOp, ErrorKind> {
                let op = match name {
                    $($($module::$Op::NAME => AnyOp::$Op($module::$Op::parse(attrs)?),)*)*
                    _ => return Err(unknown(name)),
                };
                attrs.finish()?;
                Ok(op)
            }

            /// See [`Op::NAME`].
            pub fn name(&self) -> &'static str {
                match self { $($(AnyOp::$Op(_) => $module::$Op::NAME),*),* }
            }

            /// See [`Op::TOLERANCE`].
            pub fn tolerance(&self) -> Tolerance {
                match self { $($(AnyOp::$Op(_) => $module::$Op::TOLERANCE),*),* }
            }

            /// See [`Op::infer`].
            ///
            /// # Errors
            ///
            /// As there.
            pub fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                match self { $($(AnyOp::$Op(op) => op.infer(inputs)),*),* }
            }

            /// See [`Op::reference`].
            pub fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                match self { $($(AnyOp::$Op(op) => op.reference(inputs, outputs)),*),* }
            }

            /// See [`Op::expand`].
            pub fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
                match self { $($(AnyOp::$Op(op) => op.expand(mir, inputs, outputs)),*),* }
            }
        }
    };
}

ops! {
    activation::{Celu, Elu, Gelu, HardSigmoid, LeakyRelu, Selu, Shrink, Swish, ThresholdedRelu},
    arrange::{Concat, DepthToSpace, Expand, SpaceToDepth, Split, Tile, Transpose},
    attention::{Attention},
    bits::{MatMulNBits},
    binary::{
        Add, And, BitShift, BitwiseAnd, BitwiseOr, BitwiseXor, Div, Equal, Greater, GreaterOrEqual, Less,
        LessOrEqual, Mod, Mul, Or, PRelu, Sub, SwiGLU, Xor,
    },
    boxes::{NonMaxSuppression, Selections},
    cast::{BitCast, Cast, CastLike, Dropout, Identity},
    choice::{Align, If},
    constant::{Constant, ConstantOfShape, EyeLike, Range, Trilu},
    conv::{Conv, ConvTranspose},
    count::{Compress, NonZero, Unique},
    crop::{CenterCropPad},
    deform::{DeformConv},
    determinant::{Det},
    einsum::{Einsum},
    fold::{AffineGrid, Col2Im, MaxUnpool},
    grouped::{GroupQueryAttention},
    gather::{Gather, GatherElements, GatherND, OneHot},
    integer::{ConvInteger, MatMulInteger, QLinearConv, QLinearMatMul},
    loss::{NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss},
    matmul::{Gemm, MatMul},
    norm::{BatchNormalization, GroupNormalization, InstanceNormalization, LayerNormalization, MeanVarianceNormalization, RMSNormalization},
    optimizers::{Adagrad, Adam, Momentum},
    order::{TopK},
    pad::{Pad},
    pool::{AveragePool, GlobalAveragePool, GlobalLpPool, GlobalMaxPool, LpPool, MaxPool},
    pow::{Pow},
    quantize::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear},
    recurrent::{GRU, LSTM, RNN},
    reduce::{
        ArgMax, ArgMin, ReduceL1, ReduceL2, ReduceLogSum, ReduceLogSumExp, ReduceMax, ReduceMean,
        ReduceMin, ReduceProd, ReduceSum, ReduceSumSquare,
    },
    region::{RoiAlign},
    reshape::{Flatten, Reshape, Squeeze, Unsqueeze},
    resize::{Resize, Upsample},
    response::{LRN, LpNormalization},
    rlx::{
        AttentionBlock, ConvBiasAct, DotGeneral, Elementwise, FusedSwiGlu, KvAppend, LoraMatMul, MatMulBiasAct,
        Reverse, RlxAttention, RlxGather, RlxNorm, RlxSlice, Roll, Rope,
    },
    sample::{GridSample},
    scan::{CumProd, CumSum},
    scatter::{Scatter, ScatterElements, ScatterND},
    rotary::{RotaryEmbedding},
    select::{Clip, IsInf, IsNaN, Where},
    sequence::{ReverseSequence},
    shape::{Shape, Size},
    slice::{Slice},
    softmax::{Hardmax, LogSoftmax, Softmax},
    spectrum::{BlackmanWindow, DFT, HammingWindow, HannWindow, MelWeightMatrix, STFT},
    state::{CausalConvWithState, LinearAttention, TensorScatter},
    terms::{TfIdfVectorizer},
    unary::{
        Abs, Acos, Acosh, Asin, Asinh, Atan, Atanh, BitwiseNot, Ceil, Cos, Cosh, Erf, Exp, Floor, HardSwish,
        Log, Mish, Neg, Not, Reciprocal, Relu, Round, Sigmoid, Sign, Sin, Sinh, Softplus, Softsign, Sqrt,
        Tan, Tanh,
    },
    variadic::{Max, Mean, Min, Sum},
}

impl AnyOp {
    /// Results that follow from the operands' types alone, whether the operands are known or not.
    pub fn value_of_types(&self, inputs: &Operands<'_>) -> Option<Vec<Tensor>> {
        match self {
            AnyOp::Shape(op) => inputs.get(0).map(|ty| vec![op.value(ty)]),
            AnyOp::Size(op) => inputs.get(0).map(|ty| vec![op.value(ty)]),
            _ => None,
        }
    }
}

impl AnyOp {
    /// Whether results that could be known are left to the passes: matrices of dequantized integers, which may be
    /// multiplied as they are.
    pub fn is_left(&self, results: &[Type]) -> bool {
        matches!(self, AnyOp::DequantizeLinear(_)) && results.iter().any(|ty| ty.rank() > 1)
    }
}

fn unknown(name: &str) -> ErrorKind {
    const RANDOM: [&str; 6] = [
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ];
    const TEXTS: [&str; 4] = ["RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"];
    if RANDOM.contains(&name) {
        let kind = ErrorKind::unsupported("random numbers");
        return kind.help("the same inputs give the same results: make them an input of the model");
    }
    if TEXTS.contains(&name) {
        return ErrorKind::unsupported("texts")
            .help("let the model begin with the numbers that are made of them");
    }
    let kind = ErrorKind::unsupported(format!("the operator \"{name}\" is not known"));
    match nearest(name, AnyOp::NAMES.iter().copied()) {
        Some(near) => kind.help(format!("the nearest name is {near}; `rlx-aot ops` lists all")),
        None => kind.help("`rlx-aot ops` lists all"),
    }
}
