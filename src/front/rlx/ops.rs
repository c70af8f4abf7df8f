//! RLX's operators in terms of ours: the table of [`ops::rlx`](crate::ops::rlx), line by line.

use super::{dtype, fixed};
use crate::error::{ErrorKind, nearest};
use crate::hir::Dim;
use crate::ops::Attribute;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The operator that one of RLX's stands for.
pub(super) struct Call {
    pub(super) op: &'static str,
    pub(super) attributes: BTreeMap<String, Attribute>,
    pub(super) operands: Vec<Operand>,
    /// The type to convert the result to.
    pub(super) cast: Option<DType>,
}

pub(super) enum Operand {
    /// Operand of the node by its number.
    Input(usize),
    Constant(Tensor),
    /// An optional one that is left out.
    Absent,
}

impl Call {
    fn new(op: &'static str, inputs: usize) -> Call {
        let operands = (0..inputs).map(Operand::Input).collect();
        Call { op, attributes: BTreeMap::new(), operands, cast: None }
    }
    fn with(mut self, name: &str, value: Attribute) -> Call {
        self.attributes.insert(name.to_owned(), value);
        self
    }
    fn int(self, name: &str, value: impl TryInto<i64>) -> Call {
        self.with(name, Attribute::Int(value.try_into().unwrap_or(i64::MAX)))
    }
    fn flag(self, name: &str, value: bool) -> Call {
        self.with(name, Attribute::Int(value.into()))
    }
    fn float(self, name: &str, value: f32) -> Call {
        self.with(name, Attribute::Float(value.into()))
    }
    fn text(self, name: &str, value: impl Into<String>) -> Call {
        self.with(name, Attribute::Text(value.into()))
    }
    fn ints<T: TryInto<i64>>(self, name: &str, values: impl IntoIterator<Item = T>) -> Call {
        self.with(name, Attribute::Ints(numbers(values)))
    }
    fn steps<S: Into<String>>(self, steps: impl IntoIterator<Item = S>) -> Call {
        self.with("steps", Attribute::Texts(steps.into_iter().map(Into::into).collect()))
    }
    /// One more operand, a list of integers.
    fn list<T: TryInto<i64>>(mut self, values: impl IntoIterator<Item = T>) -> Call {
        let values = numbers(values);
        self.operands.push(Operand::Constant(Tensor::from_i64s([values.len()], &values)));
        self
    }
    /// One more operand, an integer.
    fn number(mut self, value: i64) -> Call {
        self.operands.push(Operand::Constant(Tensor::from_i64s([], &[value])));
        self
    }
    fn absent(mut self) -> Call {
        self.operands.push(Operand::Absent);
        self
    }
}

/// Numbers beyond `i64` fit nothing, and saying so is left to the operator.
fn numbers<T: TryInto<i64>>(values: impl IntoIterator<Item = T>) -> Vec<i64> {
    values.into_iter().map(|v| v.try_into().unwrap_or(i64::MAX)).collect()
}

/// The attributes of a cast.
pub(super) fn cast(to: DType) -> BTreeMap<String, Attribute> {
    BTreeMap::from([("to".to_owned(), Attribute::Int(to.onnx().into()))])
}

/// The fields of an operator, taken one by one.
struct Fields<'a> {
    op: &'a str,
    fields: Map<String, Value>,
    /// The whole value, of an operator with one field without a name.
    value: &'a Value,
}

impl Fields<'_> {
    /// The one field without a name.
    fn only<T: DeserializeOwned>(&self) -> Result<T, ErrorKind> {
        T::deserialize(self.value)
            .map_err(|e| ErrorKind::wrong(format!("field of {}: {e}", self.op)))
    }
    /// A field; `null` and one that is not there are `default`.
    fn or<T: DeserializeOwned>(&mut self, name: &str, default: T) -> Result<T, ErrorKind> {
        match self.fields.remove(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => T::deserialize(value)
                .map_err(|e| ErrorKind::wrong(format!("field \"{name}\" of {}: {e}", self.op))),
        }
    }
    /// A field that has to be there.
    fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ErrorKind> {
        let op = self.op;
        let missing = || ErrorKind::wrong(format!("{op} has no field \"{name}\""));
        self.or(name, None)?.ok_or_else(missing)
    }
    /// A float that may be infinite, which JSON writes as null.
    fn bound(&mut self, name: &str) -> Result<Option<f32>, ErrorKind> {
        self.or(name, None)
    }
    fn ints(&mut self, name: &str) -> Result<Vec<usize>, ErrorKind> {
        self.take(name)
    }
    /// An activation, if there is one.
    fn activation(&mut self, call: Call) -> Result<Call, ErrorKind> {
        Ok(match self.or::<Option<String>>("activation", None)? {
            Some(activation) => call.text("activation", activation),
            None => call,
        })
    }
    /// What is left over is an error: it may change the meaning.
    fn finish(&self, call: Call) -> Result<Call, ErrorKind> {
        match self.fields.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(call),
            Some((name, _)) => {
                let kind = ErrorKind::unsupported(format!("{} has the field \"{name}\"", self.op));
                Err(kind.help("it is not of RLX 0.2.2 to 0.2.19"))
            }
        }
    }
}

/// Operators that are expressions over the elements of their operands.
fn expression(op: &str, fields: &mut Fields<'_>, inputs: usize) -> Result<Option<Call>, ErrorKind> {
    let call = Call::new("rlx:Elementwise", inputs);
    Ok(Some(match op {
        "Activation" => call.steps([format!("{} i0", fields.only::<String>()?)]),
        "Binary" | "Compare" => call.steps([format!("{} i0 i1", fields.only::<String>()?)]),
        "Where" => call.steps(["Where i0 i1 i2"]),
        "Fma" => call.steps(["Mul i0 i1", "Add s0 i2"]),
        "GatedResidual" => call.steps(["Mul i2 i1", "Add i0 s0"]),
        "BatchNormInference" => {
            let epsilon = format!("Add i4 {}", fields.take::<f32>("eps")?);
            call.steps(["Sub i0 i3", &epsilon, "Rsqrt s1", "Mul s0 s2", "Mul s3 i1", "Add s4 i2"])
        }
        "Clamp" => {
            let bounds = [("Max", fields.bound("min")?), ("Min", fields.bound("max")?)];
            let mut steps = vec![];
            for (name, bound) in bounds {
                let Some(bound) = bound else { continue };
                let operand = if steps.is_empty() { "i0" } else { "s0" };
                steps.push(format!("{name} {operand} {bound}"));
            }
            match steps.is_empty() {
                true => Call::new("Identity", inputs),
                false => call.steps(steps),
            }
        }
        "ElementwiseRegion" => {
            if fields.or("prologue", "None".to_owned())? != "None" {
                return Err(ErrorKind::unsupported("a fused region with a prologue"));
            }
            fields.or("prologue_input", 0)?;
            // Which operands are scalars, their shapes say as well.
            fields.or("scalar_input_mask", 0)?;
            let count: usize = fields.or("num_inputs", inputs)?;
            if count != inputs {
                return Err(ErrorKind::wrong(format!(
                    "{count} operands are declared, and {inputs} given"
                )));
            }
            let chain: Vec<ChainStep> = fields.take("chain")?;
            let steps = chain.into_iter().map(ChainStep::text).collect::<Result<Vec<_>, _>>()?;
            let modulus: Vec<u32> = fields.or("input_modulus", vec![])?;
            match modulus.get(..inputs) {
                Some(modulus) => call.steps(steps).ints("modulus", modulus.iter().copied()),
                None => call.steps(steps),
            }
        }
        _ => return Ok(None),
    }))
}

#[derive(Deserialize)]
enum ChainStep {
    Activation(String, ChainOperand),
    Cast(String, ChainOperand),
    Binary(String, ChainOperand, ChainOperand),
    Compare(String, ChainOperand, ChainOperand),
    Where(ChainOperand, ChainOperand, ChainOperand),
}

#[derive(Deserialize)]
enum ChainOperand {
    Input(u32),
    Step(u32),
}

impl ChainStep {
    fn text(self) -> Result<String, ErrorKind> {
        let operand = |operand| match operand {
            ChainOperand::Input(i) => format!("i{i}"),
            ChainOperand::Step(i) => format!("s{i}"),
        };
        Ok(match self {
            ChainStep::Activation(name, a) => format!("{name} {}", operand(a)),
            ChainStep::Cast(to, a) => format!("Cast:{} {}", dtype(&to)?, operand(a)),
            ChainStep::Binary(name, a, b) | ChainStep::Compare(name, a, b) => {
                format!("{name} {} {}", operand(a), operand(b))
            }
            ChainStep::Where(a, b, c) => {
                format!("Where {} {} {}", operand(a), operand(b), operand(c))
            }
        })
    }
}

/// Matrix products, normalizations and attention.
fn block(op: &str, fields: &mut Fields<'_>, inputs: usize) -> Result<Option<Call>, ErrorKind> {
    let new = |op| Call::new(op, inputs);
    let norm = |fields: &mut Fields<'_>| Ok(new("rlx:Norm").float("epsilon", fields.take("eps")?));
    Ok(Some(match op {
        "MatMul" => new("MatMul"),
        "DotGeneral" => {
            let mut call = new("rlx:DotGeneral");
            for name in ["lhs_contracting", "rhs_contracting", "lhs_batch", "rhs_batch"] {
                call = call.ints(name, fields.ints(name)?);
            }
            call
        }
        "FusedMatMulBiasAct" => fields.activation(new("rlx:MatMulBiasAct"))?,
        "FusedMatMulResidual" => new("rlx:MatMulBiasAct"),
        "LoraMatMul" => new("rlx:LoraMatMul").float("scale", fields.take("scale")?),
        "LayerNorm" | "RmsNorm" => {
            // It is always the last axis, whatever the file says.
            fields.or("axis", -1)?;
            norm(fields)?.flag("rms", op == "RmsNorm")
        }
        "LayerNorm2d" => norm(fields)?.int("axis", 1),
        "FusedResidualLN" | "FusedResidualRmsNorm" => norm(fields)?
            .flag("rms", op == "FusedResidualRmsNorm")
            .flag("residual", true)
            .flag("bias", fields.or("has_bias", false)?),
        "AdaLayerNorm" => {
            let rms = match fields.or("norm", "LayerNorm".to_owned())?.as_str() {
                "LayerNorm" => false,
                "RmsNorm" => true,
                other => return Err(ErrorKind::unsupported(format!("the normalization {other}"))),
            };
            norm(fields)?.flag("rms", rms).flag("ada", true)
        }
        "GroupNorm" => new("GroupNormalization")
            .int("num_groups", fields.take::<usize>("num_groups")?)
            .float("epsilon", fields.take("eps")?),
        "Attention" => attention(fields, new("rlx:Attention"))?,
        "Rope" => new("rlx:Rope")
            .int("head_dim", fields.take::<usize>("head_dim")?)
            .int("n_rot", fields.take::<usize>("n_rot")?)
            .text("style", fields.or("style", "NeoX".to_owned())?),
        "FusedAttentionBlock" => new("rlx:AttentionBlock")
            .int("num_heads", fields.take::<usize>("num_heads")?)
            .int("head_dim", fields.take::<usize>("head_dim")?)
            .flag("has_bias", fields.or("has_bias", false)?)
            .flag("has_rope", fields.or("has_rope", false)?),
        "FusedSwiGLU" => {
            let mut call = new("rlx:SwiGlu").flag("gate_first", fields.or("gate_first", false)?);
            let to: Option<String> = fields.or("cast_to", None)?;
            call.cast = to.map(|to| dtype(&to)).transpose()?;
            call
        }
        "Softmax" => new("Softmax").int("axis", fields.take::<i32>("axis")?),
        _ => return Ok(None),
    }))
}

fn attention(fields: &mut Fields<'_>, call: Call) -> Result<Call, ErrorKind> {
    #[derive(Deserialize)]
    enum Mask {
        None,
        Causal,
        SlidingWindow(usize),
        Custom,
        Bias,
    }
    let mut call = call
        .int("num_heads", fields.take::<usize>("num_heads")?)
        .int("head_dim", fields.take::<usize>("head_dim")?);
    if let Some(size) = fields.or::<Option<usize>>("v_head_dim", None)? {
        call = call.int("v_head_dim", size);
    }
    if let Some(scale) = fields.or::<Option<f32>>("score_scale", None)? {
        call = call.float("scale", scale);
    }
    if let Some(cap) = fields.or::<Option<f32>>("attn_logit_softcap", None)? {
        call = call.float("softcap", cap);
    }
    Ok(match fields.take("mask_kind")? {
        Mask::None => call.text("mask", "None"),
        Mask::Causal => call.text("mask", "Causal"),
        Mask::SlidingWindow(window) => call.text("mask", "SlidingWindow").int("window", window),
        Mask::Custom => call.text("mask", "Custom"),
        Mask::Bias => call.text("mask", "Bias"),
    })
}

/// Operators that move elements. `own` is the shape of the result, if it is known.
fn movement(
    op: &str,
    fields: &mut Fields<'_>,
    inputs: usize,
    own: Option<&Type>,
) -> Result<Option<Call>, ErrorKind> {
    let new = |op| Call::new(op, inputs);
    let own = own.map(|ty| numbers(ty.dims.iter().copied()));
    Ok(Some(match op {
        "StopGradient" => new("Identity"),
        "Cast" => {
            let to: String = fields.take("to")?;
            Call { attributes: cast(dtype(&to)?), ..new("Cast") }
        }
        "Reshape" => {
            let shape = own.unwrap_or(fields.take("new_shape")?);
            // A zero is a zero; only where one extent is inferred could it mean another thing.
            let call = if shape.contains(&-1) {
                new("Reshape")
            } else {
                new("Reshape").flag("allowzero", true)
            };
            call.list(shape)
        }
        "Expand" => {
            let shape = own.unwrap_or(fields.take("target_shape")?);
            new("Expand").list(shape)
        }
        "Transpose" => new("Transpose").ints("perm", fields.ints("perm")?),
        "Narrow" | "Slice" => new("rlx:Slice")
            .int("axis", fields.take::<usize>("axis")?)
            .int("start", fields.take::<usize>("start")?)
            .int("len", fields.take::<usize>("len")?)
            .int("step", fields.or::<i64>("step", 1)?),
        "Reverse" => new("rlx:Reverse").ints("axes", fields.ints("axes")?),
        "Roll" => new("rlx:Roll")
            .ints("shifts", fields.take::<Vec<i64>>("shifts")?)
            .ints("dims", fields.ints("dims")?),
        "Concat" => new("Concat").int("axis", fields.take::<usize>("axis")?),
        "KvAppend" => new("rlx:KvAppend")
            .int("axis", fields.take::<usize>("axis")?)
            .int("pos", fields.take::<usize>("pos")?),
        "Gather" => new("rlx:Gather").int("axis", fields.take::<usize>("axis")?),
        "Pad" => pad(fields, new("Pad"))?,
        "Tile" => new("Tile").list(fields.ints("reps")?),
        "Trilu" => {
            let diagonal = fields.or("diagonal", 0)?;
            new("Trilu").flag("upper", fields.take("upper")?).number(diagonal)
        }
        "ResizeNearest2x" => {
            let scales = Tensor::from_f32s([4], &[1.0, 1.0, 2.0, 2.0]);
            let mut call = nearest_resize(new("Resize")).absent();
            call.operands.push(Operand::Constant(scales));
            call
        }
        "Interpolate3d" => {
            let size = fields.ints("size")?;
            match own.as_deref() {
                Some([n, c, rest @ ..]) if numbers(size) == rest => nearest_resize(new("Resize"))
                    .absent()
                    .absent()
                    .list([*n, *c].iter().chain(rest).copied()),
                _ => return Err(ErrorKind::wrong("its size is not that of its result")),
            }
        }
        _ => return Ok(None),
    }))
}

fn nearest_resize(call: Call) -> Call {
    call.text("mode", "nearest")
        .text("coordinate_transformation_mode", "asymmetric")
        .text("nearest_mode", "floor")
}

fn pad(fields: &mut Fields<'_>, call: Call) -> Result<Call, ErrorKind> {
    #[derive(Deserialize)]
    enum Mode {
        Constant(f32),
        Reflect,
        Replicate,
        Circular,
    }
    let pads: Vec<[usize; 2]> = fields.take("pads")?;
    let [before, after] = [0, 1].map(|side| pads.iter().map(move |pad| pad[side]));
    let call = call.list(before.chain(after));
    Ok(match fields.take("mode")? {
        Mode::Constant(value) => {
            let mut call = call.text("mode", "constant");
            call.operands.push(Operand::Constant(Tensor::from_f32s([], &[value])));
            call
        }
        Mode::Reflect => call.text("mode", "reflect"),
        Mode::Replicate => call.text("mode", "edge"),
        Mode::Circular => call.text("mode", "wrap"),
    })
}

/// Reductions, convolutions and pools.
fn reduction(op: &str, fields: &mut Fields<'_>, inputs: usize) -> Result<Option<Call>, ErrorKind> {
    let new = |op| Call::new(op, inputs);
    let twice = |pads: Vec<usize>| pads.clone().into_iter().chain(pads);
    Ok(Some(match op {
        "Reduce" => {
            let op = match fields.take::<String>("op")?.as_str() {
                "Sum" => "ReduceSum",
                "Mean" => "ReduceMean",
                "Max" => "ReduceMax",
                "Min" => "ReduceMin",
                "Prod" => "ReduceProd",
                other => return Err(ErrorKind::unsupported(format!("the reduction {other}"))),
            };
            new(op).flag("keepdims", fields.take("keep_dim")?).list(fields.ints("axes")?)
        }
        "ArgMax" | "ArgMin" => {
            let op = if op == "ArgMax" { "ArgMax" } else { "ArgMin" };
            let call = new(op).int("axis", fields.take::<usize>("axis")?);
            Call { cast: Some(DType::F32), ..call.flag("keepdims", fields.take("keep_dim")?) }
        }
        "Cumsum" => {
            let axis: i32 = fields.take("axis")?;
            new("CumSum").flag("exclusive", fields.take("exclusive")?).number(axis.into())
        }
        "Conv" | "Conv3d" | "ConvTranspose2d" | "ConvTranspose3d" => {
            let transposed = op.starts_with("ConvTranspose");
            let mut call = new(if transposed { "ConvTranspose" } else { "Conv" })
                .ints("strides", fields.ints("stride")?)
                .ints("dilations", fields.ints("dilation")?)
                .int("group", fields.take::<usize>("groups")?)
                .ints("pads", twice(fields.ints("padding")?));
            if transposed {
                call = call.ints("output_padding", fields.ints("output_padding")?);
            }
            match fields.or("kernel_size", vec![])? {
                size if size.is_empty() => call,
                size => call.ints::<usize>("kernel_shape", size),
            }
        }
        "FusedConvBiasAct" => {
            // The weight's shape says it as well.
            fields.or("kernel_size", Vec::<usize>::new())?;
            let call = new("rlx:ConvBiasAct")
                .ints("strides", fields.ints("stride")?)
                .ints("padding", fields.ints("padding")?)
                .ints("dilations", fields.ints("dilation")?)
                .int("groups", fields.take::<usize>("groups")?)
                .flag("residual", fields.or("has_residual", false)?);
            fields.activation(call)?
        }
        "Pool" => {
            let op = match fields.take::<String>("kind")?.as_str() {
                "Max" => "MaxPool",
                "Mean" => "AveragePool",
                other => return Err(ErrorKind::unsupported(format!("a pool of kind {other}"))),
            };
            new(op)
                .ints("kernel_shape", fields.ints("kernel_size")?)
                .ints("strides", fields.ints("stride")?)
                .ints("pads", twice(fields.ints("padding")?))
        }
        _ => return Ok(None),
    }))
}

/// Names of all operators that are taken, for the nearest one.
const NAMES: [&str; 56] = [
    "Activation",
    "AdaLayerNorm",
    "ArgMax",
    "ArgMin",
    "Attention",
    "BatchNormInference",
    "Binary",
    "Cast",
    "Clamp",
    "Compare",
    "Concat",
    "Constant",
    "Conv",
    "Conv3d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Cumsum",
    "DotGeneral",
    "ElementwiseRegion",
    "Expand",
    "Fma",
    "FusedAttentionBlock",
    "FusedConvBiasAct",
    "FusedMatMulBiasAct",
    "FusedMatMulResidual",
    "FusedResidualLN",
    "FusedResidualRmsNorm",
    "FusedSwiGLU",
    "GatedResidual",
    "Gather",
    "GroupNorm",
    "Input",
    "Interpolate3d",
    "KvAppend",
    "LayerNorm",
    "LayerNorm2d",
    "LoraMatMul",
    "MatMul",
    "Narrow",
    "Pad",
    "Param",
    "Pool",
    "Reduce",
    "Reshape",
    "ResizeNearest2x",
    "Reverse",
    "RmsNorm",
    "Roll",
    "Rope",
    "Slice",
    "Softmax",
    "StopGradient",
    "Tile",
    "Transpose",
    "Trilu",
    "Where",
];

/// The operator called `op`, with these fields and so many operands, for a result of this type.
///
/// # Errors
///
/// Operators, fields and values that are not known.
pub(super) fn call(
    op: &str,
    value: &Value,
    inputs: usize,
    dtype: DType,
    dims: &[Dim],
) -> Result<Call, ErrorKind> {
    let fields = value.as_object().cloned().unwrap_or_default();
    let mut fields = Fields { op, fields, value };
    let own = fixed(dtype, dims);
    let found = match expression(op, &mut fields, inputs)? {
        None => block(op, &mut fields, inputs)?,
        found => found,
    };
    let found = match found {
        None => movement(op, &mut fields, inputs, own.as_ref())?,
        found => found,
    };
    let found = match found {
        None => reduction(op, &mut fields, inputs)?,
        found => found,
    };
    match found {
        Some(call) => fields.finish(call),
        None => {
            let kind = ErrorKind::unsupported(format!("RLX's operator \"{op}\""));
            Err(match nearest(op, NAMES) {
                Some(near) => kind.help(format!("the nearest one that is known is {near}")),
                None => kind,
            })
        }
    }
}
