//! Integers with scales.

use super::{Parts, float, int, passed_on};
use crate::error::ErrorKind;
use crate::front::onnx::proto::AttributeProto;

impl Parts<'_, '_> {
    /// The numbers that operands `first` (integers), and the next two (scale, zero point) mean.
    fn meant(&mut self, first: usize) -> Result<String, ErrorKind> {
        let [x, scale, zero] = [0, 1, 2].map(|i| self.input(first + i));
        self.op("DequantizeLinear", &[&x, &scale, &zero])
    }

    /// The first result: integers for numbers, with operands `first` as scale and the next one as zero point;
    /// without one, 0 of the element type of `like`.
    fn quantized(&mut self, x: &str, first: usize, like: usize) -> Result<(), ErrorKind> {
        let [scale, mut zero] = [0, 1].map(|i| self.input(first + i));
        if zero.is_empty() {
            zero = self.number(0.0, &self.input(like))?;
        }
        self.last("QuantizeLinear", &[x, &scale, &zero], vec![]);
        Ok(())
    }

    /// An operator of one operand.
    pub(super) fn of_one(
        &mut self,
        op: &str,
        attributes: Vec<AttributeProto>,
    ) -> Result<(), ErrorKind> {
        // Softmax before version 13 is over all axes from one on.
        if op == "Softmax" && self.int("opset", 13) < 13 {
            return Err(ErrorKind::unsupported("the definition before version 13"));
        }
        let x = self.meant(0)?;
        let y = self.op_with(op, &[&x], attributes)?;
        self.quantized(&y, 3, 0)
    }

    /// An operator of two operands that broadcast.
    pub(super) fn of_two(&mut self, op: &str) -> Result<(), ErrorKind> {
        let (a, b) = (self.meant(0)?, self.meant(3)?);
        let y = self.op(op, &[&a, &b])?;
        self.quantized(&y, 6, 0)
    }

    pub(super) fn pooled(&mut self) -> Result<(), ErrorKind> {
        if self.int("channels_last", 0) != 0 {
            return Err(ErrorKind::unsupported("channels that come last"));
        }
        let all = self.node.op_type == "QLinearGlobalAveragePool";
        self.of_one(if all { "GlobalAveragePool" } else { "AveragePool" }, passed_on(self.node))
    }

    pub(super) fn joined(&mut self) -> Result<(), ErrorKind> {
        let count = self.node.input.len().saturating_sub(2);
        if count == 0 || !count.is_multiple_of(3) {
            return Err(ErrorKind::wrong(format!("{} operands are given", count + 2))
                .help("a scale and a zero point are asked for, and three for each tensor"));
        }
        let parts: Vec<String> =
            (0..count / 3).map(|i| self.meant(2 + 3 * i)).collect::<Result<_, _>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let y = self.op_with("Concat", &parts, passed_on(self.node))?;
        self.quantized(&y, 0, 2)
    }

    pub(super) fn chosen(&mut self) -> Result<(), ErrorKind> {
        let (a, b) = (self.meant(1)?, self.meant(4)?);
        let y = self.op("Where", &[&self.input(0), &a, &b])?;
        self.quantized(&y, 7, 1)
    }

    /// A product with a sum, of which the operands are integers, and perhaps the result.
    pub(super) fn affine(&mut self) -> Result<(), ErrorKind> {
        let alpha = self.float("alpha", 1.0);
        let turned = ["transA", "transB"].map(|name| self.int(name, 0));
        let a = self.meant(0)?;
        let [b, b_scale, b_zero] = [3, 4, 5].map(|i| self.input(i));
        // Scales of columns.
        let columns = vec![int("axis", if turned[1] != 0 { 0 } else { 1 })];
        let b = self.op_with("DequantizeLinear", &[&b, &b_scale, &b_zero], columns)?;
        let mut bias = self.input(6);
        if !bias.is_empty() {
            let mut scale = self.op("Mul", &[&self.input(1), &b_scale])?;
            if alpha.to_bits() != 1f32.to_bits() {
                let alpha = self.number(alpha, &scale)?;
                scale = self.op("Mul", &[&scale, &alpha])?;
            }
            bias = self.op_with("DequantizeLinear", &[&bias, &scale], vec![int("axis", -1)])?;
        }
        let mut attributes = vec![int("transA", turned[0]), int("transB", turned[1])];
        attributes.push(float("alpha", alpha));
        if self.input(7).is_empty() {
            self.last("Gemm", &[&a, &b, &bias], attributes);
            return Ok(());
        }
        let y = self.op_with("Gemm", &[&a, &b, &bias], attributes)?;
        self.quantized(&y, 7, 0)
    }

    pub(super) fn embed_dequantized(&mut self) -> Result<(), ErrorKind> {
        let mut tables = [2, 3, 4, 5, 6].map(|i| self.input(i));
        for (i, table) in tables.iter_mut().enumerate().filter(|(_, table)| !table.is_empty()) {
            let (scale, zero) = (self.input(8 + i), self.input(13 + i));
            *table = self.op("DequantizeLinear", &[table, &scale, &zero])?;
        }
        self.embedded(tables, String::new())
    }

    pub(super) fn integers(&mut self) -> Result<(), ErrorKind> {
        let b = self.input(1);
        let (a, a_scale, b_scale, a_zero, b_zero, bias);
        if self.node.op_type == "DynamicQuantizeMatMul" {
            let names = ["y", "y_scale", "y_zero_point"].map(|name| self.fresh(name));
            let [y, scale, zero] = names;
            (a, a_scale, a_zero) = (y?, scale?, zero?);
            let outputs = vec![a.clone(), a_scale.clone(), a_zero.clone()];
            let x = self.input(0);
            self.push("DynamicQuantizeLinear", &[&x], outputs, vec![]);
            (b_scale, b_zero, bias) = (self.input(2), self.input(3), self.input(4));
        } else {
            (a, a_scale, b_scale) = (self.input(0), self.input(2), self.input(3));
            (a_zero, b_zero, bias) = (self.input(4), self.input(5), self.input(6));
        }
        let sums = self.op("MatMulInteger", &[&a, &b, &a_zero, &b_zero])?;
        let sums = self.op_with("Cast", &[&sums], vec![int("to", 1)])?;
        let scale = self.op("Mul", &[&a_scale, &b_scale])?;
        if bias.is_empty() {
            self.last("Mul", &[&sums, &scale], vec![]);
        } else {
            let scaled = self.op("Mul", &[&sums, &scale])?;
            self.last("Add", &[&scaled, &bias], vec![]);
        }
        Ok(())
    }
}
