//! Operators that onnxruntime's optimizer makes of ONNX's (domain `com.microsoft`), taken apart again: what they
//! fuse is fused anew, as far as it pays here. Definitions are those of onnxruntime's `docs/ContribOperators.md`.

mod attention;
mod quantized;

use super::functions::{Inliner, domain};
use super::proto::{AttributeProto, NodeProto, TensorProto};
use super::tensor;
use crate::error::ErrorKind;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The version of ONNX's operators that the parts are written in.
pub(super) const OPSET: i64 = 24;

/// The domain of these operators.
pub(super) const DOMAIN: &str = "com.microsoft";

/// The names of these operators.
pub const FUSED: &[&str] = &[
    "Attention",
    "BiasGelu",
    "DequantizeLinear",
    "DynamicQuantizeMatMul",
    "EmbedLayerNormalization",
    "FastGelu",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gelu",
    "MatMulIntegerToFloat",
    "MultiHeadAttention",
    "QAttention",
    "QEmbedLayerNormalization",
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
    "QuantizeLinear",
    "QuickGelu",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

/// The parts of a node; `None` where it is of another kind.
pub(super) fn parts(
    inliner: &mut Inliner<'_>,
    node: &NodeProto,
) -> Result<Option<Vec<NodeProto>>, ErrorKind> {
    let simplified = node.op_type == "SimplifiedLayerNormalization";
    let own = domain(&node.domain) == DOMAIN || simplified && domain(&node.domain).is_empty();
    if !own {
        return Ok(None);
    }
    let mut p = Parts { inliner, node, nodes: vec![] };
    match node.op_type.as_str() {
        "Gelu" => p.last("Gelu", &[&p.input(0)], vec![]),
        "QuickGelu" => {
            let alpha = p.float("alpha", 1.702);
            p.last("Swish", &[&p.input(0)], vec![float("alpha", alpha)]);
        }
        "FastGelu" | "BiasGelu" => {
            let x = p.biased(p.input(0), p.input(1))?;
            let tanh = text("approximate", "tanh");
            let fast = node.op_type == "FastGelu";
            p.last("Gelu", &[&x], if fast { vec![tanh] } else { vec![] });
        }
        "SimplifiedLayerNormalization" => {
            p.only(1)?;
            let kept = node.attribute.clone();
            p.last("RMSNormalization", &[&p.input(0), &p.input(1)], kept);
        }
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => p.skip()?,
        "EmbedLayerNormalization" => p.embed()?,
        "FusedConv" => {
            let kept = passed_on(node);
            let conv = p.op_with("Conv", &[&p.input(0), &p.input(1), &p.input(2)], kept)?;
            let sum = p.biased(conv, p.input(3))?;
            let given = p.floats("activation_params").into_iter().map(Some);
            p.activated(&sum, &given.collect::<Vec<_>>())?;
        }
        "FusedGemm" => {
            let kept = passed_on(node);
            let sum = p.op_with("Gemm", &[&p.input(0), &p.input(1), &p.input(2)], kept)?;
            let given = ["activation_alpha", "activation_beta"].map(|name| p.given_float(name));
            p.activated(&sum, &given)?;
        }
        "FusedMatMul" => p.product()?,
        "DynamicQuantizeMatMul" | "MatMulIntegerToFloat" => p.integers()?,
        // The same as ONNX's own, for more element types.
        "QuantizeLinear" | "DequantizeLinear" => {
            let operands = [0, 1, 2].map(|i| p.input(i));
            let kept = node.attribute.clone();
            p.last(&node.op_type, &operands.each_ref().map(String::as_str), kept);
        }
        "QLinearAdd" => p.of_two("Add")?,
        "QLinearMul" => p.of_two("Mul")?,
        "QLinearSigmoid" => p.of_one("Sigmoid", vec![])?,
        "QLinearLeakyRelu" => p.of_one("LeakyRelu", node.attribute.clone())?,
        "QLinearSoftmax" => p.of_one("Softmax", passed_on(node))?,
        "QLinearGlobalAveragePool" | "QLinearAveragePool" => p.pooled()?,
        "QLinearConcat" => p.joined()?,
        "QLinearWhere" => p.chosen()?,
        "QGemm" => p.affine()?,
        "QEmbedLayerNormalization" => p.embed_dequantized()?,
        "QAttention" => p.attention_of_integers()?,
        "RotaryEmbedding" => p.rotated()?,
        "MultiHeadAttention" => p.heads()?,
        "Attention" => p.attention()?,
        _ => return Ok(None),
    }
    let nodes = p.nodes;
    checked(node).map(|()| Some(nodes))
}

/// Types of attributes.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const TEXT: i32 = 3;
const FLOATS: i32 = 6;
const INTS: i32 = 7;

/// The attributes of an operator that are looked at here; all that it has, but where another operator gets
/// the others.
fn attributes(op: &str) -> &'static [(&'static str, i32)] {
    match op {
        "QuickGelu" => &[("alpha", FLOAT)],
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => &[("epsilon", FLOAT)],
        "EmbedLayerNormalization" => &[("epsilon", FLOAT), ("mask_index_type", INT)],
        "QEmbedLayerNormalization" => &[("epsilon", FLOAT)],
        "QGemm" => &[("alpha", FLOAT), ("transA", INT), ("transB", INT)],
        "QLinearGlobalAveragePool" | "QLinearAveragePool" => &[("channels_last", INT)],
        "QLinearSoftmax" => &[("opset", INT)],
        "QAttention" => &[
            ("do_rotary", INT),
            ("mask_filter_value", FLOAT),
            ("num_heads", INT),
            ("past_present_share_buffer", INT),
            ("scale", FLOAT),
            ("unidirectional", INT),
        ],
        "FusedConv" => &[("activation", TEXT), ("activation_params", FLOATS)],
        "FusedGemm" => &[
            ("activation", TEXT),
            ("activation_alpha", FLOAT),
            ("activation_beta", FLOAT),
            ("activation_gamma", FLOAT),
        ],
        "FusedMatMul" => &[
            ("alpha", FLOAT),
            ("transA", INT),
            ("transB", INT),
            ("transBatchA", INT),
            ("transBatchB", INT),
        ],
        "RotaryEmbedding" => &[
            ("interleaved", INT),
            ("is_packed_batching", INT),
            ("num_heads", INT),
            ("rotary_embedding_dim", INT),
            ("scale", FLOAT),
        ],
        "MultiHeadAttention" => &[
            ("mask_filter_value", FLOAT),
            ("num_heads", INT),
            ("scale", FLOAT),
            ("unidirectional", INT),
        ],
        "Attention" => &[
            ("do_rotary", INT),
            ("mask_filter_value", FLOAT),
            ("num_heads", INT),
            ("past_present_share_buffer", INT),
            ("qkv_hidden_sizes", INTS),
            ("rotary_embedding_dim", INT),
            ("scale", FLOAT),
            ("unidirectional", INT),
        ],
        _ => &[],
    }
}

/// The attributes that are not looked at here.
fn passed_on(node: &NodeProto) -> Vec<AttributeProto> {
    let own = attributes(&node.op_type);
    let others = node.attribute.iter().filter(|a| own.iter().all(|(name, _)| *name != a.name));
    others.cloned().collect()
}

/// An error where an attribute is none of the operator's, or not of its type.
fn checked(node: &NodeProto) -> Result<(), ErrorKind> {
    const PASSED_ON: &[&str] = &[
        "DequantizeLinear",
        "FusedConv",
        "FusedGemm",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearLeakyRelu",
        "QLinearSoftmax",
        "QuantizeLinear",
        "SimplifiedLayerNormalization",
    ];
    let known = attributes(&node.op_type);
    for (i, a) in node.attribute.iter().enumerate() {
        let name = &a.name;
        match known.iter().find(|(known, _)| known == name) {
            None if PASSED_ON.contains(&node.op_type.as_str()) => {}
            None => {
                let message = format!("the operator has no attribute \"{name}\"");
                return Err(ErrorKind::wrong(message));
            }
            // Files of the first versions declare no types.
            Some(&(_, ty)) if a.r#type != ty && a.r#type != 0 => {
                return Err(ErrorKind::wrong(format!(
                    "attribute \"{name}\" is of type {}, and {ty} is asked for",
                    a.r#type
                )));
            }
            Some(_) if node.attribute[..i].iter().any(|b| b.name == *name) => {
                let message = format!("attribute \"{name}\" is given twice");
                return Err(ErrorKind::wrong(message));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn empty(name: &str, r#type: i32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type, ..AttributeProto::default() }
}
fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f: Some(f), ..empty(name, FLOAT) }
}
fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i: Some(i), ..empty(name, INT) }
}
fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { s: Some(s.as_bytes().to_vec().into()), ..empty(name, TEXT) }
}
fn value(t: TensorProto) -> AttributeProto {
    let t = Some(Box::new(t));
    AttributeProto { name: "value".to_owned(), r#type: 4, t, ..AttributeProto::default() }
}

struct Parts<'p, 'a> {
    inliner: &'p mut Inliner<'a>,
    node: &'p NodeProto,
    nodes: Vec<NodeProto>,
}

impl Parts<'_, '_> {
    /// An operand's name; empty where it is left out.
    fn input(&self, i: usize) -> String {
        self.node.input.get(i).cloned().unwrap_or_default()
    }

    fn output(&self, i: usize) -> String {
        self.node.output.get(i).cloned().unwrap_or_default()
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    fn given_float(&self, name: &str) -> Option<f32> {
        self.attribute(name).and_then(|a| a.f)
    }

    fn float(&self, name: &str, default: f32) -> f32 {
        self.given_float(name).unwrap_or(default)
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.attribute(name).map_or(vec![], |a| a.floats.clone())
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    /// An error where results behind so many are used.
    fn only(&self, results: usize) -> Result<(), ErrorKind> {
        match self.node.output.iter().skip(results).position(|o| !o.is_empty()) {
            Some(i) => Err(ErrorKind::unsupported(format!("its result {}", results + i))),
            None => Ok(()),
        }
    }

    /// An error where one of these operands is given.
    fn without(&self, operands: &[(usize, &str)]) -> Result<(), ErrorKind> {
        match operands.iter().find(|(i, _)| !self.input(*i).is_empty()) {
            Some((i, what)) => Err(ErrorKind::unsupported(format!("{what} (operand {i})"))),
            None => Ok(()),
        }
    }

    fn push(
        &mut self,
        op: &str,
        inputs: &[&str],
        outputs: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) {
        let mut input: Vec<String> = inputs.iter().map(|&i| i.to_owned()).collect();
        while input.last().is_some_and(String::is_empty) {
            input.pop();
        }
        let name = self.node.name.clone();
        let op_type = op.to_owned();
        self.nodes.push(NodeProto {
            name,
            op_type,
            input,
            output: outputs,
            attribute,
            ..NodeProto::default()
        });
    }

    fn fresh(&mut self, what: &str) -> Result<String, ErrorKind> {
        let prefix = super::functions::label(&self.node.name, &self.node.output).to_owned();
        self.inliner.fresh(&prefix, what)
    }

    fn op_with(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Result<String, ErrorKind> {
        let name = self.fresh(op)?;
        self.push(op, inputs, vec![name.clone()], attributes);
        Ok(name)
    }

    fn op(&mut self, op: &str, inputs: &[&str]) -> Result<String, ErrorKind> {
        self.op_with(op, inputs, vec![])
    }

    /// The node of the first result.
    fn last(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) {
        let output = self.output(0);
        self.push(op, inputs, vec![output], attributes);
    }

    fn constant(&mut self, tensor: &Tensor) -> Result<String, ErrorKind> {
        self.op_with("Constant", &[], vec![value(tensor::write("", tensor))])
    }

    fn ints(&mut self, values: &[i64]) -> Result<String, ErrorKind> {
        self.constant(&Tensor::from_i64s([values.len()], values))
    }

    /// A number of the same element type as another value.
    fn number(&mut self, number: f32, like: &str) -> Result<String, ErrorKind> {
        let number = self.constant(&Tensor::from_f32s([], &[number]))?;
        self.op("CastLike", &[&number, like])
    }

    /// The sum with an operand that may be left out.
    fn biased(&mut self, x: String, bias: String) -> Result<String, ErrorKind> {
        if bias.is_empty() { Ok(x) } else { self.op("Add", &[&x, &bias]) }
    }

    fn skip(&mut self) -> Result<(), ErrorKind> {
        let simplified = self.node.op_type == "SkipSimplifiedLayerNormalization";
        let (beta, bias) = if simplified {
            (String::new(), self.input(3))
        } else {
            (self.input(3), self.input(4))
        };
        let sum = self.op("Add", &[&self.input(0), &self.input(1)])?;
        let sum = self.biased(sum, bias)?;
        let attributes = vec![int("axis", -1), float("epsilon", self.float("epsilon", 1e-12))];
        let mut outputs: Vec<String> = (0..3).map(|i| self.output(i)).collect();
        while outputs.last().is_some_and(String::is_empty) {
            outputs.pop();
        }
        let op = if simplified { "RMSNormalization" } else { "LayerNormalization" };
        self.push(op, &[&sum, &self.input(2), &beta], outputs, attributes);
        if !self.output(3).is_empty() {
            let output = self.output(3);
            self.push("Identity", &[&sum], vec![output], vec![]);
        }
        Ok(())
    }

    fn embed(&mut self) -> Result<(), ErrorKind> {
        let [words, positions, segments, gamma, beta] = [2, 3, 4, 5, 6].map(|i| self.input(i));
        self.embedded([words, positions, segments, gamma, beta], self.input(8))
    }

    /// The sums of rows of tables of words, positions and segments, normalized with a scale and an offset.
    fn embedded(&mut self, tables: [String; 5], mut places: String) -> Result<(), ErrorKind> {
        let [words, positions, segments, gamma, beta] = tables;
        if !self.output(1).is_empty() && !self.input(7).is_empty() {
            return Err(ErrorKind::unsupported("a mask (operand 7)"));
        }
        let ids = self.input(0);
        let mut sum = self.op("Gather", &[&words, &ids])?;
        if places.is_empty() {
            let extent = self.op_with("Shape", &[&ids], vec![int("start", 1), int("end", 2)])?;
            let none = self.ints(&[0])?;
            let extent = self.op("Squeeze", &[&extent, &none])?;
            let [zero, one] = [0, 1].map(|i| Tensor::from_i64s([], &[i]));
            let (zero, one) = (self.constant(&zero)?, self.constant(&one)?);
            places = self.op("Range", &[&zero, &extent, &one])?;
        }
        let there = self.op("Gather", &[&positions, &places])?;
        sum = self.op("Add", &[&sum, &there])?;
        if !self.input(1).is_empty() && !segments.is_empty() {
            let segments = self.op("Gather", &[&segments, &self.input(1)])?;
            sum = self.op("Add", &[&sum, &segments])?;
        }
        let attributes = vec![int("axis", -1), float("epsilon", self.float("epsilon", 1e-12))];
        self.last("LayerNormalization", &[&sum, &gamma, &beta], attributes);
        if !self.output(2).is_empty() {
            let output = self.output(2);
            self.push("Identity", &[&sum], vec![output], vec![]);
        }
        if !self.output(1).is_empty() {
            // Without a mask, nothing is said of the extents: zeros, one for each row.
            let rows = self.op_with("Shape", &[&ids], vec![int("start", 0), int("end", 1)])?;
            let zero = Tensor::zeros(Type::new(DType::I32, [1]));
            let output = self.output(1);
            self.push(
                "ConstantOfShape",
                &[&rows],
                vec![output],
                vec![value(tensor::write("", &zero))],
            );
        }
        Ok(())
    }

    /// The first result: an activation by its name and parameters.
    fn activated(&mut self, x: &str, parameters: &[Option<f32>]) -> Result<(), ErrorKind> {
        let name = self.attribute("activation").and_then(|a| a.s.clone()).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).into_owned();
        let parameter = |i: usize, name: &str| Some(float(name, (*parameters.get(i)?)?));
        let both = || [parameter(0, "alpha"), parameter(1, "beta")].into_iter().flatten().collect();
        match name.as_str() {
            "" => self.last("Identity", &[x], vec![]),
            "Relu" | "Tanh" | "Sigmoid" | "Softplus" | "Softsign" | "HardSwish" => {
                self.last(&name, &[x], vec![])
            }
            "LeakyRelu" | "Elu" => {
                self.last(&name, &[x], parameter(0, "alpha").into_iter().collect())
            }
            "HardSigmoid" => self.last(&name, &[x], both()),
            "Clip" => {
                let &[Some(low), Some(high)] = parameters else {
                    return Err(ErrorKind::wrong(
                        "attribute \"activation_params\" must have two entries",
                    ));
                };
                let (low, high) = (self.number(low, x)?, self.number(high, x)?);
                self.last("Clip", &[x, &low, &high], vec![]);
            }
            other => return Err(ErrorKind::unsupported(format!("the activation \"{other}\""))),
        }
        Ok(())
    }

    fn product(&mut self) -> Result<(), ErrorKind> {
        if self.int("transBatchA", 0) != 0 || self.int("transBatchB", 0) != 0 {
            return Err(ErrorKind::unsupported("transposed batches"));
        }
        let a = if self.int("transA", 0) != 0 { "ki" } else { "ik" };
        let b = if self.int("transB", 0) != 0 { "jk" } else { "kj" };
        let equation = text("equation", &format!("...{a},...{b}->...ij"));
        let alpha = self.float("alpha", 1.0);
        let operands = [self.input(0), self.input(1)];
        if alpha.to_bits() == 1f32.to_bits() {
            self.last("Einsum", &[&operands[0], &operands[1]], vec![equation]);
            return Ok(());
        }
        let product = self.op_with("Einsum", &[&operands[0], &operands[1]], vec![equation])?;
        let alpha = self.number(alpha, &product)?;
        self.last("Mul", &[&product, &alpha], vec![]);
        Ok(())
    }
}
