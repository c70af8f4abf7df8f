//! What operands hold, and how results are compared.

use rlx_aot::kir::Memory;

/// The elements of one operand, as numbers that hold them exactly.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Floats(Memory, Vec<f64>),
    Integers(Memory, Vec<i64>),
}

impl Data {
    pub(crate) fn f32(values: impl IntoIterator<Item = f32>) -> Self {
        Data::Floats(Memory::F32, values.into_iter().map(f64::from).collect())
    }

    pub(crate) fn i32(values: impl IntoIterator<Item = i32>) -> Self {
        Data::Integers(Memory::I32, values.into_iter().map(i64::from).collect())
    }

    /// So many elements that no kernel's result should look like.
    pub(crate) fn unset(memory: Memory, elements: usize) -> Self {
        match memory {
            Memory::F32 | Memory::F64 | Memory::F16 => Data::Floats(memory, vec![-7.25; elements]),
            _ => Data::Integers(memory, vec![85; elements]),
        }
    }

    pub(crate) fn memory(&self) -> Memory {
        match self {
            Data::Floats(memory, _) | Data::Integers(memory, _) => *memory,
        }
    }

    pub(crate) fn elements(&self) -> usize {
        match self {
            Data::Floats(_, values) => values.len(),
            Data::Integers(_, values) => values.len(),
        }
    }

    pub(crate) fn bytes(&self, big_endian: bool) -> Vec<u8> {
        let swap = |mut bytes: Vec<u8>| {
            if big_endian {
                bytes.reverse();
            }
            bytes
        };
        match self {
            Data::Floats(Memory::F32, values) => {
                values.iter().flat_map(|&v| swap((v as f32).to_le_bytes().to_vec())).collect()
            }
            Data::Floats(Memory::F16, values) => values
                .iter()
                .flat_map(|&v| swap(half::f16::from_f64(v).to_le_bytes().to_vec()))
                .collect(),
            Data::Floats(_, values) => {
                values.iter().flat_map(|v| swap(v.to_le_bytes().to_vec())).collect()
            }
            Data::Integers(memory, values) => {
                let bytes = memory.bytes() as usize;
                values.iter().flat_map(|v| swap(v.to_le_bytes()[..bytes].to_vec())).collect()
            }
        }
    }

    /// `like`'s elements from bytes.
    pub(crate) fn from_bytes(like: &Data, bytes: &[u8], big_endian: bool) -> Self {
        let memory = like.memory();
        let raw = bytes.chunks(memory.bytes() as usize).map(|chunk| {
            let number = chunk.iter().enumerate().map(|(i, &byte)| {
                let place = if big_endian { chunk.len() - 1 - i } else { i };
                u64::from(byte) << (8 * place)
            });
            number.sum::<u64>()
        });
        match memory {
            Memory::F32 => {
                Data::Floats(memory, raw.map(|r| f32::from_bits(r as u32).into()).collect())
            }
            Memory::F64 => Data::Floats(memory, raw.map(f64::from_bits).collect()),
            Memory::F16 => {
                Data::Floats(memory, raw.map(|r| half::f16::from_bits(r as u16).to_f64()).collect())
            }
            Memory::I8 => Data::Integers(memory, raw.map(|r| (r as i8).into()).collect()),
            Memory::I16 => Data::Integers(memory, raw.map(|r| (r as i16).into()).collect()),
            Memory::I32 => Data::Integers(memory, raw.map(|r| (r as i32).into()).collect()),
            Memory::U8 | Memory::U16 | Memory::U32 | Memory::I64 => {
                Data::Integers(memory, raw.map(|r| r as i64).collect())
            }
        }
    }
}

/// How far a result may be from what was expected.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tolerance {
    /// The same number, and the same sign of a zero; any NaN for a NaN.
    Exact,
    /// In units of the last place of the exact result.
    Ulps(f64),
    /// Relative to the result or to 1, whichever is larger.
    Relative(f64),
}

impl Tolerance {
    /// Compares; returns the largest error.
    pub(crate) fn check(self, got: &Data, expected: &Data) -> Result<f64, String> {
        match (got, expected) {
            (Data::Floats(memory, got), Data::Floats(_, expected)) => {
                let mut worst = 0.0;
                for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
                    let error = self.error(*memory, got, expected);
                    if error.is_nan() || error > self.limit() {
                        return Err(format!(
                            "element {i} is {got:e} and not {expected:e}: {error}"
                        ));
                    }
                    worst = f64::max(worst, error);
                }
                Ok(worst)
            }
            (Data::Integers(_, got), Data::Integers(_, expected)) => {
                match got.iter().zip(expected).position(|(got, expected)| got != expected) {
                    None => Ok(0.0),
                    Some(i) => Err(format!("element {i} is {} and not {}", got[i], expected[i])),
                }
            }
            _ => Err("floats are compared with integers".into()),
        }
    }

    fn limit(self) -> f64 {
        match self {
            Tolerance::Exact => 0.0,
            Tolerance::Ulps(limit) | Tolerance::Relative(limit) => limit,
        }
    }

    fn error(self, memory: Memory, got: f64, exact: f64) -> f64 {
        let rounded = if memory == Memory::F32 { f64::from(exact as f32) } else { exact };
        if rounded.is_nan() && got.is_nan() {
            return 0.0;
        }
        if got == rounded {
            let sign_matters =
                matches!(self, Tolerance::Exact | Tolerance::Ulps(_)) && exact == 0.0;
            let differs = sign_matters && got.is_sign_negative() != exact.is_sign_negative();
            return if differs { f64::INFINITY } else { 0.0 };
        }
        match self {
            Tolerance::Exact => f64::INFINITY,
            Tolerance::Relative(_) => (got - exact).abs() / exact.abs().max(1.0),
            Tolerance::Ulps(_) => {
                if memory == Memory::F64 {
                    return (got - exact).abs() / (exact.abs().next_up() - exact.abs());
                }
                // What is beyond the largest number counts as the next one.
                let got = if got.is_infinite() { 2f64.powi(128).copysign(got) } else { got };
                let exponent = exact.abs().log2().floor().clamp(-126.0, 127.0);
                (got - exact).abs() / 2f64.powi(exponent as i32 - 23)
            }
        }
    }
}

/// Numbers from -1 to 1.
pub(crate) fn some(n: i64, seed: usize) -> Vec<f32> {
    (0..n as usize).map(|i| ((i * 37 + seed * 101) % 113) as f32 / 56.5 - 1.0).collect()
}
