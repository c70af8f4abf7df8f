//! Attention and what belongs to it.

use super::{INTS, Parts, empty, float, int};
use crate::error::ErrorKind;
use crate::front::onnx::proto::AttributeProto;

impl Parts<'_, '_> {
    pub(super) fn rotated(&mut self) -> Result<(), ErrorKind> {
        if self.int("is_packed_batching", 0) != 0
            || self.float("scale", 1.0).to_bits() != 1f32.to_bits()
        {
            return Err(ErrorKind::unsupported("packed batches, or a scale"));
        }
        let names = ["interleaved", "num_heads", "rotary_embedding_dim"];
        let attributes = names.map(|name| int(name, self.int(name, 0))).to_vec();
        let inputs = [0, 2, 3, 1].map(|i| self.input(i));
        self.last("RotaryEmbedding", &inputs.each_ref().map(String::as_str), attributes);
        Ok(())
    }

    /// Scaled products of queries, keys and values, with what ONNX's own operator gives.
    fn attended(&mut self, operands: [&str; 6]) -> Result<(), ErrorKind> {
        let heads = self.int("num_heads", 0);
        if heads < 1 {
            return Err(ErrorKind::wrong(format!("attribute \"num_heads\" is {heads}")));
        }
        let mut attributes = vec![int("q_num_heads", heads), int("kv_num_heads", heads)];
        attributes.push(int("is_causal", self.int("unidirectional", 0)));
        let scale = self.float("scale", 0.0);
        if scale != 0.0 {
            attributes.push(float("scale", scale));
        }
        self.only(3)?;
        let outputs = (0..3).map(|i| self.output(i)).collect();
        self.push("Attention", &operands, outputs, attributes);
        Ok(())
    }

    pub(super) fn heads(&mut self) -> Result<(), ErrorKind> {
        self.without(&[
            (4, "a padding mask"),
            (8, "the length of the past"),
            (9, "an order of beams"),
        ])?;
        if self.input(1).is_empty() || self.input(2).is_empty() {
            return Err(ErrorKind::unsupported("keys and values in one tensor with the queries"));
        }
        let mut qkv = [0, 1, 2].map(|i| self.input(i));
        if !self.input(3).is_empty() {
            let biases = self.split(&self.input(3))?;
            for (x, bias) in qkv.iter_mut().zip(biases) {
                *x = self.op("Add", &[x, &bias])?;
            }
        }
        let [mask, past_k, past_v] = [5, 6, 7].map(|i| self.input(i));
        self.attended([&qkv[0], &qkv[1], &qkv[2], &mask, &past_k, &past_v])
    }

    /// Three equal parts along the last axis.
    fn split(&mut self, x: &str) -> Result<[String; 3], ErrorKind> {
        let [q, k, v] = ["q", "k", "v"].map(|name| self.fresh(name));
        let parts = [q?, k?, v?];
        self.push("Split", &[x], parts.to_vec(), vec![int("axis", -1), int("num_outputs", 3)]);
        Ok(parts)
    }

    pub(super) fn attention(&mut self) -> Result<(), ErrorKind> {
        self.without(&[(4, "a past"), (6, "the length of the past")])?;
        self.only(1)?;
        if self.int("do_rotary", 0) != 0 || self.attribute("qkv_hidden_sizes").is_some() {
            return Err(ErrorKind::unsupported("rotations, or parts of different sizes"));
        }
        let projected = self.op("MatMul", &[&self.input(0), &self.input(1)])?;
        let projected = self.biased(projected, self.input(2))?;
        self.attended_with(&projected, self.input(3), self.input(5))
    }

    pub(super) fn attention_of_integers(&mut self) -> Result<(), ErrorKind> {
        self.without(&[(8, "a past")])?;
        self.only(1)?;
        if self.int("do_rotary", 0) != 0 {
            return Err(ErrorKind::unsupported("rotations"));
        }
        let [x, weights, bias, x_scale, scale, counts, x_zero, zero] =
            [0, 1, 2, 3, 4, 5, 6, 7].map(|i| self.input(i));
        let sums = self.op("MatMulInteger", &[&x, &weights, &x_zero, &zero])?;
        let sums = self.op_with("Cast", &[&sums], vec![int("to", 1)])?;
        let scale = self.op("Mul", &[&x_scale, &scale])?;
        let projected = self.op("Mul", &[&sums, &scale])?;
        let projected = self.biased(projected, bias)?;
        self.attended_with(&projected, counts, String::new())
    }

    /// Queries, keys and values in one tensor; `counts` says which keys count, `mask` is added.
    fn attended_with(
        &mut self,
        projected: &str,
        counts: String,
        mut mask: String,
    ) -> Result<(), ErrorKind> {
        let [q, k, v] = self.split(projected)?;
        if !counts.is_empty() {
            // Above 0 where a key counts, for each row of the batch and each key (or all of them). Counts of
            // keys, which have another rank, are refused by the transposition.
            let rows = vec![AttributeProto { ints: vec![0, 1], ..empty("perm", INTS) }];
            let counts = self.op_with("Transpose", &[&counts], rows)?;
            let extent = vec![int("start", 1), int("end", 2)];
            let extent = self.op_with("Shape", &[&self.input(0)], extent)?;
            let counts = self.op("Expand", &[&counts, &extent])?;
            let keys = self.ints(&[1, 2])?;
            let counts = self.op("Unsqueeze", &[&counts, &keys])?;
            let zero = self.number(0.0, &counts)?;
            let counts = self.op("Greater", &[&counts, &zero])?;
            let (zero, low) = (0.0, self.float("mask_filter_value", -10000.0));
            let (zero, low) = (self.number(zero, &q)?, self.number(low, &q)?);
            let added = self.op("Where", &[&counts, &zero, &low])?;
            mask = if mask.is_empty() { added } else { self.op("Add", &[&mask, &added])? };
        }
        self.attended([&q, &k, &v, &mask, "", ""])
    }
}
