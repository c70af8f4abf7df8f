//! RLX's operators, where their meaning is not exactly that of an ONNX operator.
//!
//! Definitions are those of rlx-ir 0.2.19 (its `Op`). The reader of RLX's files makes, for each of
//! its operators, the operator in the second column; `Const(..)` is a constant operand. Operators of
//! ONNX are meant in version 21 or newer. Attributes that are not named keep their defaults; an
//! `Option` that is `None` is left out.
//!
//! | RLX | here |
//! | --- | --- |
//! | `Activation(k)` | `rlx:Elementwise` steps=["k i0"] |
//! | `Binary(k)`, `Compare(k)` | `rlx:Elementwise` steps=["k i0 i1"] |
//! | `Where` | `rlx:Elementwise` steps=["Where i0 i1 i2"] |
//! | `Fma` | `rlx:Elementwise` steps=["Mul i0 i1", "Add s0 i2"] |
//! | `Clamp{min,max}` | `rlx:Elementwise` steps=["Max i0 MIN", "Min s0 MAX"], a step left out where its bound is null |
//! | `GatedResidual` | `rlx:Elementwise` steps=["Mul i2 i1", "Add i0 s0"] |
//! | `StopGradient` | ONNX `Identity` |
//! | `Cast{to}` | ONNX `Cast` to=(ONNX number) |
//! | `ElementwiseRegion` (prologue `None`) | `rlx:Elementwise`, a step per entry of `chain`: the name inside (`Activation(Tanh, ..)` is "Tanh", `Cast(I32, ..)` is "Cast:i32", `Where`), then its operands: `Input(n)` is "in", `Step(n)` is "sn"; modulus=`input_modulus[..num_inputs]` |
//! | `BatchElementwiseRegion`, `TransformRegion` | unsupported |
//! | `MatMul` | ONNX `MatMul` |
//! | `DotGeneral` | `rlx:DotGeneral` lhs_contracting, rhs_contracting, lhs_batch, rhs_batch |
//! | `FusedMatMulBiasAct{activation}` | `rlx:MatMulBiasAct` activation |
//! | `FusedMatMulResidual` | `rlx:MatMulBiasAct` |
//! | `LoraMatMul{scale}` | `rlx:LoraMatMul` scale |
//! | `LayerNorm{eps}` | `rlx:Norm` epsilon=eps (RLX's axis is not looked at) |
//! | `RmsNorm{eps}` | `rlx:Norm` epsilon=eps, rms=1 |
//! | `LayerNorm2d{eps}` | `rlx:Norm` epsilon=eps, axis=1 |
//! | `FusedResidualLN{has_bias,eps}` | `rlx:Norm` epsilon=eps, residual=1, bias=has_bias |
//! | `FusedResidualRmsNorm{has_bias,eps}` | `rlx:Norm` epsilon=eps, rms=1, residual=1, bias=has_bias |
//! | `AdaLayerNorm{norm,eps}` | `rlx:Norm` epsilon=eps, rms=(norm is `RmsNorm`), ada=1 |
//! | `GroupNorm{num_groups,eps}` | ONNX `GroupNormalization` (21) num_groups, epsilon=eps |
//! | `BatchNormInference{eps}` | `rlx:Elementwise` steps=["Sub i0 i3", "Add i4 EPS", "Rsqrt s1", "Mul s0 s2", "Mul s3 i1", "Add s4 i2"] |
//! | `Attention` | `rlx:Attention` num_heads, head_dim, v_head_dim, mask="None", "Causal", "SlidingWindow", "Custom" or "Bias", window=n for `SlidingWindow(n)`, scale=score_scale, softcap=attn_logit_softcap |
//! | `Rope{head_dim,n_rot,style}` | `rlx:Rope` head_dim, n_rot, style="NeoX" or "GptJ" |
//! | `FusedAttentionBlock` | `rlx:AttentionBlock` num_heads, head_dim, has_bias, has_rope |
//! | `FusedTransformerLayer` | unsupported |
//! | `FusedSwiGLU{cast_to,gate_first}` | `rlx:SwiGlu` gate_first; an ONNX `Cast` behind it for cast_to |
//! | `Reshape{new_shape}` | ONNX `Reshape` with Const(the node's own shape) |
//! | `Expand{target_shape}` | ONNX `Expand` with Const(the node's own shape) |
//! | `Transpose{perm}` | ONNX `Transpose` perm |
//! | `Narrow{axis,start,len}` | `rlx:Slice` axis, start, len |
//! | `Slice{axis,start,len,step}` | `rlx:Slice` axis, start, len, step |
//! | `Reverse{axes}` | `rlx:Reverse` axes |
//! | `Roll{shifts,dims}` | `rlx:Roll` shifts, dims |
//! | `Concat{axis}` | ONNX `Concat` axis |
//! | `KvAppend{axis,pos}` | `rlx:KvAppend` axis, pos |
//! | `Gather{axis}` | `rlx:Gather` axis |
//! | `Pad{pads,mode}` | ONNX `Pad` mode="constant", "reflect", "edge" (`Replicate`) or "wrap" (`Circular`), with Const(all befores, then all afters), Const(value) |
//! | `Tile{reps}` | ONNX `Tile` with Const(reps) |
//! | `Trilu{upper,diagonal}` | ONNX `Trilu` upper, with Const(scalar diagonal) |
//! | `Reduce{op,axes,keep_dim}` | ONNX `ReduceSum`, `ReduceMean`, `ReduceMax`, `ReduceMin` or `ReduceProd` with Const(axes), keepdims |
//! | `ArgMax`, `ArgMin{axis,keep_dim}` | ONNX `ArgMax`, `ArgMin` axis, keepdims, then ONNX `Cast` to f32 |
//! | `Cumsum{axis,exclusive}` | ONNX `CumSum` exclusive, with Const(scalar axis) |
//! | `Softmax{axis}` | ONNX `Softmax` axis |
//! | `Conv`, `Conv3d` | ONNX `Conv` strides, dilations, group=groups, pads=padding twice |
//! | `ConvTranspose2d`, `ConvTranspose3d` | ONNX `ConvTranspose` strides, dilations, group=groups, pads=padding twice, output_padding |
//! | `FusedConvBiasAct` | `rlx:ConvBiasAct` strides, padding, dilations, groups, activation, residual=has_residual |
//! | `Pool` of `Max` | ONNX `MaxPool` kernel_shape, strides, pads=padding twice |
//! | `Pool` of `Mean` | ONNX `AveragePool` kernel_shape, strides, pads=padding twice |
//! | `Pool` of another kind | unsupported |
//! | `ResizeNearest2x` | ONNX `Resize` mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor", with no roi, Const([1, 1, 2, 2]) |
//! | `Interpolate3d{size}` | ONNX `Resize` likewise, with no roi, no scales, Const([N, C] and size) |
//! | every other one | unsupported |
//!
//! Outputs have the type that the file gives them: where that differs from what is inferred, the
//! reader reports it.

mod attention;
mod conv;
mod elementwise;
mod function;
mod movement;
mod norm;
mod product;

pub use attention::{AttentionBlock, Rope, RlxAttention};
pub use conv::ConvBiasAct;
pub use elementwise::Elementwise;
pub use movement::{KvAppend, Reverse, RlxGather, RlxSlice, Roll};
pub use norm::RlxNorm;
pub use product::{DotGeneral, FusedSwiGlu, LoraMatMul, MatMulBiasAct};

pub(super) use attention::rotate;
