//! One case: an operator, its attributes, and operands with values.

use super::parse;
use crate::mir;
use crate::ops::{Attribute, DEFAULT_OPSET, Operand, Operands, Tolerance};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// A node with the values of its operands. Built step by step; operands are in order.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    opset: i64,
    attrs: Vec<(String, Attribute)>,
    operands: Vec<Option<Value>>,
    results: usize,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Value {
    tensor: Tensor,
    /// Whether the compiler sees the value, or its type only.
    known: bool,
}

/// A case of this operator, with one result and in the default operator set.
pub(super) fn case(name: &str) -> Case {
    let seed = name.bytes().fold(1, |seed: u64, b| seed.wrapping_mul(31).wrapping_add(b.into()));
    Case {
        name: name.to_owned(),
        opset: DEFAULT_OPSET,
        attrs: vec![],
        operands: vec![],
        results: 1,
        seed,
    }
}

impl Case {
    /// In this operator set.
    pub(super) fn opset(mut self, opset: i64) -> Case {
        self.opset = opset;
        self
    }

    /// With so many results.
    pub(super) fn results(mut self, results: usize) -> Case {
        self.results = results;
        self
    }

    /// With this attribute.
    pub(super) fn attr(mut self, name: &str, value: Attribute) -> Case {
        self.attrs.push((name.to_owned(), value));
        self
    }

    fn operand(mut self, tensor: Tensor, known: bool) -> Case {
        self.operands.push(Some(Value { tensor, known }));
        self
    }

    /// An optional operand that is left out.
    pub(super) fn none(mut self) -> Case {
        self.operands.push(None);
        self
    }

    /// An operand with this value, which only the run knows.
    pub(super) fn given(self, tensor: Tensor) -> Case {
        self.operand(tensor, false)
    }

    /// An operand with this value, which the compiler knows.
    pub(super) fn known(self, tensor: Tensor) -> Case {
        self.operand(tensor, true)
    }

    /// A list of i64 that the compiler knows.
    pub(super) fn list(self, values: &[i64]) -> Case {
        self.known(Tensor::from_i64s([values.len()], values))
    }

    /// A list of i64 that only the run knows.
    pub(super) fn indices(self, dims: &[usize], values: &[i64]) -> Case {
        self.given(Tensor::from_i64s(dims, values))
    }

    /// Random numbers from -4 to 4 (0 to 4 for unsigned types), integers for integers.
    pub(super) fn random(self, dtype: DType, dims: &[usize]) -> Case {
        self.range(dtype, dims, -4.0, 4.0)
    }

    /// Random f32 from -4 to 4.
    pub(super) fn f32(self, dims: &[usize]) -> Case {
        self.random(DType::F32, dims)
    }

    /// Random numbers in a range.
    pub(super) fn range(mut self, dtype: DType, dims: &[usize], low: f64, high: f64) -> Case {
        let ty = Type::new(dtype, dims);
        let low = if dtype.is_float() || dtype.is_signed() { low } else { low.max(0.0) };
        let mut next = || {
            self.seed =
                self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let unit = (self.seed >> 11) as f64 / (1u64 << 53) as f64;
            let value = low + (high - low) * unit;
            if dtype.is_float() { value } else { value.round() }
        };
        let values: Vec<_> = (0..ty.elements()).map(|_| next()).collect();
        let values =
            values.into_iter().map(|v| if dtype == DType::Bool { f64::from(v > 2.0) } else { v });
        self.given(Tensor::from_f64s(ty, values))
    }

    /// Every pair of the numbers where definitions go wrong, as one operand (`side` is which of a pair).
    pub(super) fn corners(self, dtype: DType, side: usize) -> Case {
        let pool = corners(dtype);
        let n = pool.len();
        let pick = |i: usize| if side == 0 { i / n } else { i % n };
        let bytes: Vec<u8> = (0..n * n).flat_map(|i| pool[pick(i)].clone()).collect();
        let ty = Type::new(dtype, [n * n]);
        self.given(Tensor::from_bytes(ty, bytes.into()).unwrap())
    }

    /// Runs both definitions, with operands known to the compiler as the case says and then with all known.
    pub(super) fn run(&self) -> Result<(), String> {
        self.run_with(false).and_then(|()| self.run_with(true))
    }

    fn run_with(&self, all_known: bool) -> Result<(), String> {
        let context = |what: String| {
            let types: Vec<_> = self
                .operands
                .iter()
                .map(|o| o.as_ref().map(|v| v.tensor.ty().to_string()))
                .collect();
            format!("{} {:?} of {types:?}, all known: {all_known}: {what}", self.name, self.attrs)
        };
        let attrs: Vec<_> = self.attrs.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
        let op =
            parse(&self.name, self.opset, &attrs, self.results).map_err(|e| context(e.message))?;
        let known = |v: &Value| v.known || all_known;
        let operands = self.operands.iter().map(|o| {
            o.as_ref()
                .map(|v| Operand { ty: v.tensor.ty(), constant: known(v).then_some(&v.tensor) })
        });
        let types = op.infer(&Operands::new(operands.collect())).map_err(|e| context(e.message))?;
        let tensors: Vec<_> = self.operands.iter().map(|o| o.as_ref().map(|v| &v.tensor)).collect();
        let expected = op.reference(&tensors, &types);
        let found_types: Vec<_> = expected.iter().map(|t| t.ty().clone()).collect();
        if found_types != types {
            return Err(context(format!(
                "inferred {types:?}, the reference gives {found_types:?}"
            )));
        }
        let mut builder = mir::Builder::new(&self.name);
        let (mut values, mut inputs) = (vec![], vec![]);
        for (i, operand) in self.operands.iter().enumerate() {
            values.push(operand.as_ref().map(|v| {
                if known(v) {
                    return builder.constant(v.tensor.clone());
                }
                inputs.push(v.tensor.clone());
                builder.input(format!("x{i}"), mir::Role::Input, v.tensor.ty().clone())
            }));
        }
        let results = op.expand(&mut builder, &values, &types);
        if results.len() != types.len() {
            return Err(context(format!(
                "expands to {} results, not {}",
                results.len(),
                types.len()
            )));
        }
        let outputs = results.iter().map(|&value| mir::Output { name: String::new(), value });
        let graph = builder.finish(outputs.collect());
        for (i, found) in mir::eval::graph(&graph, &inputs).iter().enumerate() {
            let difference = if found.ty() == &types[i] {
                difference(&expected[i], found, op.tolerance())
            } else {
                Some(format!("expanded to {}, inferred {}", found.ty(), types[i]))
            };
            if let Some(difference) = difference {
                return Err(context(format!("result {i}: {difference}\n{graph}")));
            }
        }
        Ok(())
    }
}

/// Numbers where definitions go wrong, as their bytes.
fn corners(dtype: DType) -> Vec<Vec<u8>> {
    let elements = |t: Tensor| (0..t.ty().elements()).map(|i| t.element(i).to_vec()).collect();
    if dtype.is_float() {
        let inf = f64::INFINITY;
        let values = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            2.0,
            -3.0,
            2.5,
            1e-30,
            -1e-30,
            1e-6,
            30.0,
            -30.0,
            100.0,
            -100.0,
            inf,
            -inf,
            f64::NAN,
        ];
        return elements(Tensor::from_f64s(Type::new(dtype, [values.len()]), values));
    }
    let bits = 8 * dtype.bytes() as u32;
    let top = 1i64.wrapping_shl(bits - 1);
    let values: &[i64] =
        &[0, 1, -1, 2, -2, 3, 7, -7, 63, 64, 100, top, top.wrapping_sub(1), top.wrapping_add(1)];
    let values = if dtype == DType::Bool { &values[..2] } else { values };
    elements(Tensor::from_ints(Type::new(dtype, [values.len()]), values.iter().copied()))
}

/// What is wrong with `found`, if something is. Zeros of both signs are equal, and all NaNs.
fn difference(expected: &Tensor, found: &Tensor, tolerance: Tolerance) -> Option<String> {
    let dtype = expected.ty().dtype;
    let epsilon = match dtype {
        DType::F64 => f64::EPSILON,
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => f64::from(f32::EPSILON),
    };
    let (a, b) = (expected.f64s(), found.f64s());
    let largest = a.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let bound = |a: f64| match tolerance {
        Tolerance::Exact => 0.0,
        Tolerance::Ulps(n) => f64::from(n) * epsilon * a.abs().max(1e-30),
        Tolerance::Relative(r) => r.max(8.0 * epsilon) * largest,
    };
    let exact = tolerance == Tolerance::Exact && !dtype.is_float();
    let wrong = (0..a.len()).find(|&i| {
        if exact {
            return expected.element(i) != found.element(i);
        }
        let (a, b) = (a[i], b[i]);
        let near = if a.is_finite() { (a - b).abs() <= bound(a) } else { a == b };
        !(near || a.is_nan() && b.is_nan())
    })?;
    Some(format!("element {wrong}: expected {}, found {}", a[wrong], b[wrong]))
}
