//! Products by matrices of small numbers.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::nibbles::{Blocks, words};
use crate::mir::{self, Contract, Weights};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// `X W + bias`, where W is `[K, N]` of numbers of four bits with a scale for each block of a column
/// (`docs/ContribOperators.md` of onnxruntime).
///
/// Operands: X `[.., K]`; the columns of W, `[N, blocks, block_size / 2]` bytes with two numbers in each, the lower one
/// first; scales `[N * blocks]`; zero points, two to a byte in whole bytes for each column, or numbers like the scales (none:
/// 8); no order of groups; the bias `[N]`. An element is `scale * (number - zero)`. W is known when the model is compiled.
/// `accuracy_level`, which allows for less, is not made use of: sums are those of `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMulNBits {
    depth: usize,
    columns: usize,
    blocks: Blocks,
}

const NUMBERS: usize = 1;
const SCALES: usize = 2;
const ZEROS: usize = 3;
const BIAS: usize = 5;

impl MatMulNBits {
    /// Blocks of a column.
    fn count(&self) -> usize {
        self.depth.div_ceil(self.blocks.block)
    }

    /// The zero points as floats, one for each block of each column.
    fn zeros(&self, zeros: &Tensor) -> Tensor {
        let count = self.count();
        if zeros.ty().dtype != DType::U8 {
            return Tensor::from_f32s([self.columns, count], &zeros.f32s());
        }
        let row = count.div_ceil(2);
        let zero = |i: usize| {
            let (column, block) = (i / count, i % count);
            f32::from(zeros.bytes()[column * row + block / 2] >> (block % 2 * 4) & 15)
        };
        let all: Vec<f32> = (0..self.columns * count).map(zero).collect();
        Tensor::from_f32s([self.columns, count], &all)
    }
}

impl Op for MatMulNBits {
    const NAME: &'static str = "com.microsoft:MatMulNBits";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        attrs.ignore("accuracy_level");
        let mut extent = |name: &'static str| match attrs.int(name)? {
            // Larger ones are of no tensor.
            Some(n) if n > 0 && n <= i64::from(i32::MAX) => Ok(n as usize),
            Some(n) => Err(ErrorKind::unsupported(format!("attribute \"{name}\" is {n}"))),
            None => Err(ErrorKind::wrong(format!("attribute \"{name}\" is missing"))),
        };
        let (depth, columns, block) = (extent("K")?, extent("N")?, extent("block_size")?);
        let bits = attrs.int_or("bits", 4)?;
        let blocks = Blocks { block, zeros: false };
        if bits != 4 || !blocks.is_possible() || attrs.int_or("weight_prepacked", 0)? != 0 {
            return Err(ErrorKind::unsupported(format!("{bits} bits in blocks of {block}")));
        }
        Ok(MatMulNBits { depth, columns, blocks })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 6)?;
        let x = inputs.ty(0)?;
        const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
        tools::dtype_in(x, &FLOATS, &FLOATS)?;
        if inputs.get(4).is_some() {
            return Err(ErrorKind::unsupported("an order of groups (operand 4)"));
        }
        if x.dims.last() != Some(&self.depth) {
            let kind = ErrorKind::wrong(format!("operand 0 is {x}"));
            return Err(kind.help(format!("its last extent must be {}", self.depth)));
        }
        inputs.known(NUMBERS, "the matrix")?;
        inputs.known(SCALES, "the scales")?;
        inputs.known(ZEROS, "the zero points")?;
        let all = self.columns.saturating_mul(self.count());
        let row = self.blocks.block / 2;
        let expect = |i: usize, fits: bool, expected: String| match inputs.get(i).filter(|_| !fits) {
            Some(ty) => {
                Err(ErrorKind::wrong(format!("operand {i} is {ty}")).help(format!("it must be {expected}")))
            }
            None => Ok(()),
        };
        let (numbers, scales) = (inputs.ty(NUMBERS)?, inputs.ty(SCALES)?);
        let fits = numbers.dtype == DType::U8 && numbers.elements() == all.saturating_mul(row);
        expect(NUMBERS, fits, format!("u8[{}, {}, {row}]", self.columns, self.count()))?;
        let fits = |ty: &Type| FLOATS.contains(&ty.dtype) && ty.elements() == all;
        expect(SCALES, fits(scales), format!("{}[{all}]", x.dtype))?;
        if let Some(zeros) = inputs.get(ZEROS) {
            let bytes = self.columns.saturating_mul(self.count().div_ceil(2));
            let packed = zeros.dtype == DType::U8 && zeros.elements() == bytes;
            expect(ZEROS, packed || fits(zeros), format!("u8[{bytes}]"))?;
        }
        if let Some(bias) = inputs.get(BIAS) {
            let fits = *bias == Type::new(x.dtype, [self.columns]);
            expect(BIAS, fits, format!("{}[{}]", x.dtype, self.columns))?;
        }
        let mut dims = x.dims.clone();
        dims.pop();
        dims.push(self.columns);
        Ok(vec![tools::sized(x.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(numbers), Some(scales), ..] = inputs else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let zeros = operand(ZEROS).map(|zeros| self.zeros(zeros).f64s());
        let bias = operand(BIAS).map(Tensor::f64s);
        let (x, scales, bytes) = (x.f64s(), scales.f64s(), numbers.bytes());
        let (count, block) = (self.count(), self.blocks.block);
        let mut y = vec![];
        for row in x.chunks_exact(self.depth) {
            for n in 0..self.columns {
                let mut sum = bias.as_ref().map_or(0.0, |bias| bias[n]);
                for (k, x) in row.iter().enumerate() {
                    let at = n * count + k / block;
                    let byte = bytes[at * block / 2 + k % block / 2];
                    let number = f64::from(byte >> (k % 2 * 4) & 15);
                    let zero = zeros.as_ref().map_or(8.0, |zeros| zeros[at]);
                    sum += x * scales[at] * (number - zero);
                }
                y.push(sum);
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let known = |mir: &mir::Builder, i: usize| operand(i).and_then(|v| mir.constant_of(v).cloned());
        let (Some(x), Some(numbers), Some(scales)) = (operand(0), known(mir, NUMBERS), known(mir, SCALES))
        else {
            return vec![];
        };
        let zeros = known(mir, ZEROS).map(|zeros| self.zeros(&zeros));
        let blocks = Blocks { zeros: zeros.is_some(), ..self.blocks };
        let words = words(&numbers, &scales, zeros.as_ref(), blocks, [self.depth, self.columns]);
        let rows = words.dims()[0];
        let words = words.reshaped([1, rows, self.columns]).expect("a matrix is one of one");
        let words = mir.constant(words);
        let all = outputs[0].elements() / self.columns;
        let rows = mir.reshape(x, [all, self.depth]);
        let rows = mir.cast(rows, DType::F32);
        let weights = Weights::Nibbles { width: self.columns, columns: self.columns, blocks };
        let ty = Type::new(DType::F32, [all, self.columns]);
        let mut y = mir.product(Contract::of(weights), rows, words, ty);
        if let Some(bias) = operand(BIAS) {
            let bias = mir.cast(bias, DType::F32);
            y = mir.binary(mir::Binary::Add, y, bias);
        }
        let y = mir.cast(y, outputs[0].dtype);
        vec![mir.reshape(y, outputs[0].dims.clone())]
    }
}
