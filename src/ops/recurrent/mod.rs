//! Recurrent operators: a state that goes from step to step of a sequence.
//!
//! X is `[steps, batch, inputs]` (`[batch, steps, inputs]` with `layout` 1), W `[directions, gates *
//! hidden, inputs]`, R `[directions, gates * hidden, hidden]`, B `[directions, 2 * gates * hidden]`: first
//! the biases of W's products, then of R's. In the direction `reverse` the steps are taken from the last
//! to the first; `bidirectional` does both. With `sequence_lens`, a sequence's steps from its length on
//! leave its state alone and give zeros.
//!
//! `clip` bounds what goes into an activation function. NaN spreads along the steps. Below, `x` and `h`
//! stand for the products of a gate's rows of W and R with the input and the state, biases added; `*` is
//! element by element.

mod activation;
mod expand;

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use activation::Activation;

/// The longest sequence that is unrolled.
const LONGEST: usize = 4096;

/// What a step computes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    Rnn,
    Gru {
        /// Whether R's product is made before the reset gate is applied.
        linear: bool,
    },
    Lstm {
        /// Whether the forget gate is what the input gate leaves.
        coupled: bool,
    },
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm { .. } => 4,
        }
    }
}

/// A recurrent operator.
#[derive(Clone, Debug, PartialEq)]
struct Recurrent {
    cell: Cell,
    /// For each direction, whether it is backward.
    backward: Vec<bool>,
    /// Those of the first direction, then of the second.
    activations: Vec<Activation>,
    clip: Option<f64>,
    hidden: Option<usize>,
    batch_first: bool,
}

/// Extents.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
}

/// Numbers of the operands.
const X: usize = 0;
const W: usize = 1;
const R: usize = 2;
const B: usize = 3;
const LENGTHS: usize = 4;
const INITIAL_H: usize = 5;
const INITIAL_C: usize = 6;
const PEEPHOLES: usize = 7;

impl Recurrent {
    fn parse(attrs: &mut Attrs, cell: Cell, defaults: &[&str]) -> Result<Recurrent, ErrorKind> {
        let backward = match attrs.choice("direction", &["forward", "reverse", "bidirectional"])? {
            0 => vec![false],
            1 => vec![true],
            _ => vec![false, true],
        };
        let count = defaults.len() * backward.len();
        let hidden = match attrs.int("hidden_size")? {
            Some(n) => Some(super::window::positive("hidden_size", &[n])?[0]),
            None => None,
        };
        Ok(Recurrent {
            cell,
            activations: activation::parse(attrs, defaults, count)?,
            clip: attrs.float("clip")?.filter(|&c| c > 0.0),
            hidden,
            batch_first: attrs.flag("layout", false)?,
            backward,
        })
    }

    fn sizes(&self, x: &[usize], r: &[usize]) -> Sizes {
        let (steps, batch) = if self.batch_first { (x[1], x[0]) } else { (x[0], x[1]) };
        Sizes { steps, batch, inputs: x[2], hidden: r[2] }
    }

    /// The activation functions of a direction.
    fn functions(&self, direction: usize) -> &[Activation] {
        let each = self.activations.len() / self.backward.len();
        &self.activations[direction * each..][..each]
    }

    /// The dimensions of the states, of a whole sequence of them, in the model's layout.
    fn state_dims(&self, s: Sizes) -> [usize; 3] {
        let directions = self.backward.len();
        match self.batch_first {
            true => [s.batch, directions, s.hidden],
            false => [directions, s.batch, s.hidden],
        }
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let lstm = matches!(self.cell, Cell::Lstm { .. });
        inputs.arity(3, if lstm { 8 } else { 6 })?;
        let (x, w, r) = (inputs.ty(X)?, inputs.ty(W)?, inputs.ty(R)?);
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        for (i, ty) in [(X, x), (W, w), (R, r)] {
            if ty.rank() != 3 {
                return Err(ErrorKind::wrong(format!("operand {i} is {ty}")).help("it must have rank 3"));
            }
        }
        let s = self.sizes(&x.dims, &r.dims);
        if let Some(hidden) = self.hidden.filter(|&h| h != s.hidden) {
            let kind = ErrorKind::wrong(format!("attribute \"hidden_size\" is {hidden}, and R is {r}"));
            return Err(kind);
        }
        let directions = self.backward.len();
        let rows = s.hidden * self.cell.gates();
        let expected = [
            (W, vec![directions, rows, s.inputs]),
            (R, vec![directions, rows, s.hidden]),
            (B, vec![directions, 2 * rows]),
            (LENGTHS, vec![s.batch]),
            (INITIAL_H, self.state_dims(s).to_vec()),
            (INITIAL_C, self.state_dims(s).to_vec()),
            (PEEPHOLES, vec![directions, 3 * s.hidden]),
        ];
        for (i, dims) in expected {
            let Some(ty) = inputs.get(i) else { continue };
            let dtype = if i == LENGTHS { DType::I32 } else { x.dtype };
            if *ty != Type::new(dtype, dims.clone()) {
                let kind = ErrorKind::wrong(format!("operand {i} is {ty}"));
                return Err(kind.help(format!("it must be {}", Type::new(dtype, dims))));
            }
        }
        if s.steps > LONGEST {
            let kind = ErrorKind::limit(format!("a sequence of {} steps", s.steps));
            return Err(kind.help(format!("at most {LONGEST} are unrolled")));
        }
        // The products with W of all steps are made at once.
        tools::sized(x.dtype, [s.steps, s.batch, rows])?;
        let all = match self.batch_first {
            true => [s.batch, s.steps, directions, s.hidden],
            false => [s.steps, directions, s.batch, s.hidden],
        };
        let state = tools::sized(x.dtype, self.state_dims(s))?;
        let mut types = vec![tools::sized(x.dtype, all)?, state.clone()];
        types.extend(lstm.then_some(state));
        Ok(types)
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let (Some(x), Some(w), Some(r)) = (inputs[X], inputs[W], inputs[R]) else { return vec![] };
        let s = self.sizes(x.dims(), r.dims());
        let gates = self.cell.gates();
        let rows = gates * s.hidden;
        let values = |i: usize| inputs.get(i).copied().flatten().map(Tensor::f64s);
        let (x, w, r) = (x.f64s(), w.f64s(), r.f64s());
        let biases = values(B);
        let lengths = inputs.get(LENGTHS).copied().flatten().map(Tensor::ints);
        let initial = [values(INITIAL_H), values(INITIAL_C)];
        let peepholes = values(PEEPHOLES).unwrap_or(vec![0.0; self.backward.len() * 3 * s.hidden]);
        let mut y = vec![0.0; outputs[0].elements()];
        let mut last = [vec![0.0; outputs[1].elements()], vec![0.0; outputs[1].elements()]];
        for (d, &backward) in self.backward.iter().enumerate() {
            let bias = |part: usize| match &biases {
                Some(b) => b[(d * 2 + part) * rows..][..rows].to_vec(),
                None => vec![0.0; rows],
            };
            let weights = Weights {
                w: &w[d * rows * s.inputs..][..rows * s.inputs],
                r: &r[d * rows * s.hidden..][..rows * s.hidden],
                w_bias: bias(0),
                r_bias: bias(1),
                peepholes: &peepholes[d * 3 * s.hidden..][..3 * s.hidden],
            };
            for b in 0..s.batch {
                let state = match self.batch_first {
                    true => (b * self.backward.len() + d) * s.hidden,
                    false => (d * s.batch + b) * s.hidden,
                };
                let [mut h, mut c] = [0, 1].map(|i| match &initial[i] {
                    Some(values) => values[state..][..s.hidden].to_vec(),
                    None => vec![0.0; s.hidden],
                });
                let length = lengths.as_ref().map_or(s.steps, |l| {
                    usize::try_from(l[b]).unwrap_or(0).min(s.steps)
                });
                for i in 0..length {
                    let t = if backward { length - 1 - i } else { i };
                    let (from, to) = match self.batch_first {
                        true => (b * s.steps + t, (b * s.steps + t) * self.backward.len() + d),
                        false => (t * s.batch + b, (t * self.backward.len() + d) * s.batch + b),
                    };
                    self.step(d, &x[from * s.inputs..][..s.inputs], &weights, &mut h, &mut c);
                    y[to * s.hidden..][..s.hidden].copy_from_slice(&h);
                }
                last[0][state..][..s.hidden].copy_from_slice(&h);
                last[1][state..][..s.hidden].copy_from_slice(&c);
            }
        }
        let mut results = vec![Tensor::from_f64s(outputs[0].clone(), y)];
        let states = outputs[1..].iter().zip(last);
        results.extend(states.map(|(ty, values)| Tensor::from_f64s(ty.clone(), values)));
        results
    }

    /// One step of one sequence: the new state from the old one.
    fn step(&self, direction: usize, x: &[f64], weights: &Weights<'_>, h: &mut [f64], c: &mut [f64]) {
        let n = h.len();
        let functions = self.functions(direction);
        let act = |i: usize, v: f64| functions[i].apply(self.clip.map_or(v, |c| v.clamp(-c, c)));
        let xs = products(weights.w, x, &weights.w_bias);
        let hs = products(weights.r, h, &weights.r_bias);
        match self.cell {
            Cell::Rnn => (0..n).for_each(|k| h[k] = act(0, xs[k] + hs[k])),
            Cell::Gru { linear } => {
                let gate = |g: usize, k: usize| act(0, xs[g * n + k] + hs[g * n + k]);
                let reset: Vec<_> = (0..n).map(|k| gate(1, k)).collect();
                let candidate = if linear {
                    (0..n).map(|k| act(1, xs[2 * n + k] + reset[k] * hs[2 * n + k])).collect::<Vec<_>>()
                } else {
                    let scaled: Vec<_> = (0..n).map(|k| reset[k] * h[k]).collect();
                    let own = products(&weights.r[2 * n * n..], &scaled, &weights.r_bias[2 * n..]);
                    (0..n).map(|k| act(1, xs[2 * n + k] + own[k])).collect()
                };
                for k in 0..n {
                    let update = gate(0, k);
                    h[k] = (1.0 - update) * candidate[k] + update * h[k];
                }
            }
            Cell::Lstm { coupled } => {
                for k in 0..n {
                    let [input, output, forget, cell] = [0, 1, 2, 3].map(|g| xs[g * n + k] + hs[g * n + k]);
                    let [p_i, p_o, p_f] = [0, 1, 2].map(|g| weights.peepholes[g * n + k]);
                    let input = act(0, input + p_i * c[k]);
                    let forget = if coupled { 1.0 - input } else { act(0, forget + p_f * c[k]) };
                    c[k] = forget * c[k] + input * act(1, cell);
                    h[k] = act(0, output + p_o * c[k]) * act(2, c[k]);
                }
            }
        }
    }
}

/// The weights of one direction.
struct Weights<'a> {
    w: &'a [f64],
    r: &'a [f64],
    w_bias: Vec<f64>,
    r_bias: Vec<f64>,
    peepholes: &'a [f64],
}

/// `bias + matrix * vector`.
fn products(matrix: &[f64], vector: &[f64], bias: &[f64]) -> Vec<f64> {
    let row = |(i, b): (usize, &f64)| {
        let row = &matrix[i * vector.len()..][..vector.len()];
        b + row.iter().zip(vector).map(|(a, b)| a * b).sum::<f64>()
    };
    bias.iter().enumerate().map(row).collect()
}

macro_rules! recurrent {
    ($($(#[$doc:meta])* $Name:ident $cell:expr, $defaults:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name {
            recurrent: Recurrent,
        }

        impl Op for $Name {
            const NAME: &'static str = stringify!($Name);
            const TOLERANCE: Tolerance = Tolerance::Relative(1e-4);

            fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
                let cell: fn(&mut Attrs) -> Result<Cell, ErrorKind> = $cell;
                let cell = cell(attrs)?;
                Ok($Name { recurrent: Recurrent::parse(attrs, cell, $defaults)? })
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                self.recurrent.infer(inputs)
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                self.recurrent.reference(inputs, outputs)
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
                self.recurrent.expand(mir, inputs, outputs)
            }
        }
    )*};
}

recurrent! {
    /// `H' = f(x + h)`; f is tanh.
    RNN |_| Ok(Cell::Rnn), &["Tanh"];

    /// Gates z, r, h in this order. `z = f(xz + hz)`, `r = f(xr + hr)`, `n = g(xh + Rh * (r * H) + Rbh)`, or
    /// `n = g(xh + r * hh)` with `linear_before_reset`; `H' = (1 - z) * n + z * H`. f is the logistic
    /// function, g tanh.
    GRU |attrs| Ok(Cell::Gru { linear: attrs.int_or("linear_before_reset", 0)? != 0 }), &["Sigmoid", "Tanh"];

    /// Gates i, o, f, c in this order, peepholes p in the order i, o, f. `i = f(xi + hi + pi * C)`, `f =
    /// f(xf + hf + pf * C)` or `1 - i` with `input_forget`, `C' = f * C + i * g(xc + hc)`, `o = f(xo + ho +
    /// po * C')`, `H' = o * h(C')`. f is the logistic function, g and h are tanh.
    LSTM |attrs| Ok(Cell::Lstm { coupled: attrs.int_or("input_forget", 0)? != 0 }), &["Sigmoid", "Tanh", "Tanh"];
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::refused;

    #[test]
    fn misfits_are_refused() {
        refused("LSTM hidden_size=4", &["f32[4,2,3]", "f32[1,20,3]", "f32[1,20,5]"]);
        refused("LSTM", &["f32[4,2,3]", "f32[1,20,2]", "f32[1,20,5]"]);
        refused("LSTM direction=bidirectional", &["f32[4,2,3]", "f32[1,20,3]", "f32[1,20,5]"]);
        refused("LSTM activations=[Tanh]", &["f32[4,2,3]", "f32[1,20,3]", "f32[1,20,5]"]);
        refused("GRU activations=[Tanh,Tann]", &["f32[4,2,3]", "f32[1,15,3]", "f32[1,15,5]"]);
        refused("RNN", &["f32[4097,1,1]", "f32[1,1,1]", "f32[1,1,1]"]);
    }
}
