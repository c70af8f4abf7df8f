//! Element types of 8 bits and less that are not ours: constants of them are widened to the next type of ours that has
//! all their values, when they are read.

use super::functions::FlatNode;
use crate::error::ErrorKind;
use crate::types::DType;

/// A type that is widened.
pub(super) struct Narrow {
    /// Its number in ONNX.
    pub(super) number: i32,
    /// Its name in ONNX.
    pub(super) name: &'static str,
    /// Bits of an element, of which as many as fit are in a byte, the first one in the lowest bits.
    bits: usize,
    /// What it is widened to.
    pub(super) wide: DType,
    /// What its bits mean.
    meaning: Meaning,
}

enum Meaning {
    Unsigned,
    Signed,
    Float(Float),
}

/// A sign (if there is one), an exponent and a mantissa: `(1 + m / 2^mantissa) 2^(e - bias)`, and for e = 0 `m /
/// 2^mantissa 2^(1 - bias)`.
struct Float {
    signed: bool,
    mantissa: u32,
    bias: i32,
    special: Special,
}

/// What some bits mean that would be numbers else.
enum Special {
    None,
    /// All ones, but for the sign, are NaN.
    Ones,
    /// Minus zero is NaN (`fnuz`).
    MinusZero,
    /// As in IEEE 754: the largest exponent is that of infinities and NaN.
    Ieee,
    /// All ones are NaN, and there is neither zero nor mantissa: powers of two.
    Powers,
}

const TYPES: [Narrow; 10] = {
    const fn float(number: i32, name: &'static str, bits: usize, float: Float) -> Narrow {
        let wide = if matches!(float.special, Special::Powers) { DType::F32 } else { DType::F16 };
        Narrow { number, name, bits, wide, meaning: Meaning::Float(float) }
    }
    const fn signed(mantissa: u32, bias: i32, special: Special) -> Float {
        Float { signed: true, mantissa, bias, special }
    }
    use Meaning::{Signed, Unsigned};
    [
        float(17, "float8e4m3fn", 8, signed(3, 7, Special::Ones)),
        float(18, "float8e4m3fnuz", 8, signed(3, 8, Special::MinusZero)),
        float(19, "float8e5m2", 8, signed(2, 15, Special::Ieee)),
        float(20, "float8e5m2fnuz", 8, signed(2, 16, Special::MinusZero)),
        Narrow { number: 21, name: "uint4", bits: 4, wide: DType::U8, meaning: Unsigned },
        Narrow { number: 22, name: "int4", bits: 4, wide: DType::I8, meaning: Signed },
        float(23, "float4e2m1", 4, signed(1, 1, Special::None)),
        float(
            24,
            "float8e8m0",
            8,
            Float { signed: false, mantissa: 0, bias: 127, special: Special::Powers },
        ),
        Narrow { number: 25, name: "uint2", bits: 2, wide: DType::U8, meaning: Unsigned },
        Narrow { number: 26, name: "int2", bits: 2, wide: DType::I8, meaning: Signed },
    ]
};

/// The type with this number.
pub(super) fn narrow(number: i32) -> Option<&'static Narrow> {
    TYPES.iter().find(|narrow| narrow.number == number)
}

impl Float {
    fn value(&self, bits: u8, width: usize) -> f64 {
        let field = |from: u32, width: u32| (i32::from(bits) >> from) & ((1 << width) - 1);
        let sign = u32::from(self.signed);
        let exponent_bits = width as u32 - sign - self.mantissa;
        let (m, e) = (field(0, self.mantissa), field(self.mantissa, exponent_bits));
        let negative = self.signed && bits >> (width - 1) & 1 == 1;
        let ones = e == (1 << exponent_bits) - 1 && m == (1 << self.mantissa) - 1;
        let last = e == (1 << exponent_bits) - 1;
        let size = match self.special {
            Special::Ones | Special::Powers if ones => f64::NAN,
            Special::MinusZero if negative && e == 0 && m == 0 => f64::NAN,
            Special::Ieee if last && m > 0 => f64::NAN,
            Special::Ieee if last => f64::INFINITY,
            Special::Powers => 2f64.powi(e - self.bias),
            _ => {
                let part = f64::from(m) / 2f64.powi(self.mantissa as i32);
                match e {
                    0 => part * 2f64.powi(1 - self.bias),
                    e => (1.0 + part) * 2f64.powi(e - self.bias),
                }
            }
        };
        if negative { -size } else { size }
    }
}

impl Narrow {
    /// How many bytes so many elements take.
    pub(super) fn bytes(&self, elements: usize) -> usize {
        elements.div_ceil(8 / self.bits)
    }

    /// The elements in their wide type.
    pub(super) fn widened(&self, packed: &[u8], elements: usize) -> Vec<u8> {
        let (per_byte, mask) = (8 / self.bits, (0xff_u16 >> (8 - self.bits)) as u8);
        // What each of the few bits means.
        let table: Vec<Vec<u8>> = (0..=mask)
            .map(|bits| {
                let mut element = vec![];
                match &self.meaning {
                    Meaning::Unsigned => element.push(bits),
                    Meaning::Signed => {
                        let unused = 8 - self.bits;
                        element.extend((((bits << unused) as i8) >> unused).to_le_bytes());
                    }
                    Meaning::Float(float) => {
                        let value = float.value(bits, self.bits);
                        crate::tensor::push_f64(&mut element, self.wide, value);
                    }
                }
                element
            })
            .collect();
        let bits = |i: usize| packed[i / per_byte] >> (i % per_byte * self.bits) & mask;
        let mut wide = Vec::with_capacity(elements * self.wide.bytes());
        (0..elements).for_each(|i| wide.extend_from_slice(&table[usize::from(bits(i))]));
        wide
    }
}

/// What a node makes of an operand of such a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Numbers of another type.
    Widens,
    /// The same numbers at other places.
    Moves,
}

/// What the node makes of its operands of a type with this name, which are those that `is_narrow` says.
///
/// # Errors
///
/// Where it would compute with the wide type what is defined for the narrow one.
pub(super) fn used(
    node: &FlatNode,
    name: &str,
    is_narrow: impl Fn(&str) -> bool,
) -> Result<Use, ErrorKind> {
    const MOVERS: [&str; 8] =
        ["Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"];
    let only_first = node.inputs.iter().skip(1).all(|input| !is_narrow(input));
    match node.called().as_str() {
        "DequantizeLinear" => Ok(Use::Widens),
        "Cast" if only_first => Ok(Use::Widens),
        op if MOVERS.contains(&op) && only_first => Ok(Use::Moves),
        _ => Err(ErrorKind::unsupported(format!("operands of {name}"))
            .help("constants of it may be widened, by DequantizeLinear or Cast, and moved about before that")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;
    use crate::types::Type;

    fn values(number: i32, packed: &[u8], count: usize) -> Vec<f64> {
        let narrow = narrow(number).unwrap();
        let bytes = narrow.widened(packed, count);
        Tensor::from_bytes(Type::new(narrow.wide, [count]), bytes.into()).unwrap().f64s()
    }

    #[test]
    fn every_value_is_kept() {
        assert_eq!(values(21, &[0x1f, 0x08], 3), [15.0, 1.0, 8.0]);
        assert_eq!(values(22, &[0x1f, 0x08], 3), [-1.0, 1.0, -8.0]);
        assert_eq!(values(25, &[0b11_10_01_00], 4), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(values(26, &[0b11_10_01_00], 4), [0.0, 1.0, -2.0, -1.0]);
        let fours: Vec<u8> = (0..8).map(|i| (2 * i) | ((2 * i + 1) << 4)).collect();
        let sizes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        assert_eq!(values(23, &fours, 16), [sizes, sizes.map(|v| -v)].concat());
        assert_eq!(values(17, &[0x7e, 0x01, 0xc0], 3), [448.0, 2f64.powi(-9), -2.0]);
        assert_eq!(values(18, &[0x7f, 0x01, 0xc0], 3), [240.0, 2f64.powi(-10), -1.0]);
        assert_eq!(
            values(19, &[0x7b, 0x01, 0xfc], 3),
            [57344.0, 2f64.powi(-16), f64::NEG_INFINITY]
        );
        assert_eq!(values(20, &[0x7f, 0x01, 0xc0], 3), [57344.0, 2f64.powi(-17), -1.0]);
        assert_eq!(values(24, &[0, 127, 254], 3), [2f64.powi(-127), 1.0, 2f64.powi(127)]);
        for (number, bits) in
            [(17, 0x7f), (17, 0xff), (18, 0x80), (19, 0x7d), (20, 0x80), (24, 0xff)]
        {
            assert!(values(number, &[bits], 1)[0].is_nan(), "{number}");
        }
    }
}
