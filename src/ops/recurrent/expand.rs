//! Recurrent operators in MIR: unrolled over time. The products with W are contractions over bands of
//! steps, each just before its first step: a band is long enough to be computed as fast as the whole. A step is a
//! contraction with R and element-wise expressions, the same nodes every time, so that one kernel serves all steps.

use super::*;
use crate::mir::expr::Ref;
use crate::mir::{Binary, Builder, Comparison, Expr, Value};

/// Rows of a band, at least, for a W that stays in a cache, and for one that has to come from farther away in each
/// band: fewer would take longer.
const BANDS: [usize; 2] = [8, 64];

/// Elements of a W that stays in a cache.
const CACHED: usize = 1 << 18;

/// What the steps of one direction read.
struct Direction {
    /// `[inputs, gates * hidden]`.
    w: Value,
    /// Biases of the products with W, and of those with R that are added to the same: `[gates * hidden]`.
    bias: Option<Value>,
    /// `[hidden, gates * hidden]`.
    r: Value,
    /// Biases of the products with R that have to be added to them alone: `[hidden]`.
    own_bias: Option<Value>,
    /// `[hidden]` for each of i, o, f.
    peepholes: Option<[Value; 3]>,
}

impl Recurrent {
    pub(super) fn expand(
        &self,
        mir: &mut Builder,
        inputs: &[Option<Value>],
        outputs: &[Type],
    ) -> Vec<Value> {
        let (Some(x), Some(w), Some(r)) = (inputs[X], inputs[W], inputs[R]) else { return vec![] };
        let s = self.sizes(&mir.dims(x), &mir.dims(r));
        let dtype = mir.ty(x).dtype;
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let x = if self.batch_first { mir.permute(x, &[1, 0, 2]) } else { x };
        let valid = operand(LENGTHS).map(|lengths| {
            let numbers = Tensor::from_ints(Type::new(DType::I32, [s.steps, 1, 1]), 0..s.steps as i64);
            let numbers = mir.constant(numbers);
            let lengths = mir.reshape(lengths, [s.batch, 1]);
            mir.compare(Comparison::Less, numbers, lengths)
        });
        let zeros = mir.constant(Tensor::zeros(Type::new(dtype, [s.batch, s.hidden])));
        let state_axis = usize::from(self.batch_first);
        let time_axis = state_axis;
        let (mut all, mut last) = (vec![], [vec![], vec![]]);
        for (d, &backward) in self.backward.iter().enumerate() {
            let direction = self.direction(mir, d, s, [w, r], [operand(B), operand(PEEPHOLES)]);
            let cached = s.inputs * self.cell.gates() * s.hidden <= CACHED;
            let least = BANDS[usize::from(!cached)];
            let band = s.steps.div_ceil((s.steps * s.batch / least).max(1)).max(1);
            let mut products: Option<(usize, Value)> = None;
            let mut initial = |i: usize| match operand(i) {
                Some(v) => {
                    let own = mir.narrow(v, state_axis, d, 1);
                    mir.reshape(own, [s.batch, s.hidden])
                }
                None => zeros,
            };
            let (mut h, mut c) = (initial(INITIAL_H), initial(INITIAL_C));
            let mut results = vec![];
            for i in 0..s.steps {
                let t = if backward { s.steps - 1 - i } else { i };
                let first = t / band * band;
                let (_, rows) = match products {
                    Some(known) if known.0 == first => known,
                    _ => {
                        let own = mir.narrow(x, 0, first, band.min(s.steps - first));
                        *products.insert((first, direction.inputs(mir, own)))
                    }
                };
                let row = mir.narrow(rows, 0, t - first, 1);
                let row = mir.reshape(row, [s.batch, self.cell.gates() * s.hidden]);
                let (new_h, new_c) = self.step_in_mir(mir, d, &direction, row, h, c);
                let mut result = new_h;
                (h, c) = match valid {
                    Some(valid) => {
                        let valid = mir.narrow(valid, 0, t, 1);
                        let valid = mir.reshape(valid, [s.batch, 1]);
                        result = mir.select(valid, new_h, zeros);
                        let c = if new_c == c { c } else { mir.select(valid, new_c, c) };
                        (mir.select(valid, new_h, h), c)
                    }
                    None => (new_h, new_c),
                };
                let mut dims = vec![1, 1, s.batch, s.hidden];
                if self.batch_first {
                    dims = vec![s.batch, 1, 1, s.hidden];
                }
                results.push(mir.reshape(result, dims));
            }
            if backward {
                results.reverse();
            }
            all.push(match results.is_empty() {
                true => mir.constant(Tensor::zeros(outputs[0].clone())),
                false => mir.concat(&results, time_axis),
            });
            let mut dims = self.state_dims(s);
            dims[state_axis] = 1;
            last[0].push(mir.reshape(h, dims));
            last[1].push(mir.reshape(c, dims));
        }
        let y = if s.steps == 0 { all[0] } else { mir.concat(&all, 1 + state_axis) };
        let mut values = vec![y];
        values.extend(last.iter().take(outputs.len() - 1).map(|states| mir.concat(states, state_axis)));
        values
    }

    fn direction(
        &self,
        mir: &mut Builder,
        d: usize,
        s: Sizes,
        [w, r]: [Value; 2],
        [biases, peepholes]: [Option<Value>; 2],
    ) -> Direction {
        let rows = self.cell.gates() * s.hidden;
        let turned = |mir: &mut Builder, v: Value, columns: usize| {
            let own = mir.narrow(v, 0, d, 1);
            let own = mir.reshape(own, [rows, columns]);
            mir.permute(own, &[1, 0])
        };
        let w = turned(mir, w, s.inputs);
        let r = turned(mir, r, s.hidden);
        let mut own_bias = None;
        let bias = biases.map(|biases| {
            let part = |mir: &mut Builder, start: usize, count: usize| {
                let own = mir.narrow(biases, 0, d, 1);
                let own = mir.narrow(own, 1, start, count);
                mir.reshape(own, [count])
            };
            // With the reset behind the product, the candidate's bias goes through the reset as well.
            let shared = if self.cell == (Cell::Gru { linear: true }) { 2 * s.hidden } else { rows };
            let of_w = part(mir, 0, rows);
            let of_r = part(mir, rows, shared);
            let of_r = if shared < rows {
                own_bias = Some(part(mir, rows + shared, s.hidden));
                mir.pad(of_r, &[0], &[s.hidden], 0.0)
            } else {
                of_r
            };
            mir.binary(Binary::Add, of_w, of_r)
        });
        let peepholes = peepholes.map(|p| {
            [0, 1, 2].map(|g| {
                let own = mir.narrow(p, 0, d, 1);
                let own = mir.narrow(own, 1, g * s.hidden, s.hidden);
                mir.reshape(own, [s.hidden])
            })
        });
        Direction { w, bias, r, own_bias, peepholes }
    }

    /// One step, whose inputs are `x`: the new state, and the new cell state (the old one where the cell has none).
    fn step_in_mir(
        &self,
        mir: &mut Builder,
        d: usize,
        direction: &Direction,
        x: Value,
        h: Value,
        c: Value,
    ) -> (Value, Value) {
        let hidden = mir.dims(h)[1];
        let gate = |mir: &mut Builder, v: Value, g: usize| mir.narrow(v, 1, g * hidden, hidden);
        let mut f = Formula { op: self, d, dtype: mir.ty(h).dtype, e: Expr::new(), operands: vec![] };
        match self.cell {
            Cell::Rnn => {
                let product = mir.contract(h, direction.r);
                let sum = f.sum(&[product, x]);
                let result = f.act(0, sum);
                (f.finish(mir, result), c)
            }
            Cell::Gru { linear: true } => {
                let products = mir.contract(h, direction.r);
                let [z, r, n] = [0, 1, 2].map(|g| [gate(mir, products, g), gate(mir, x, g)]);
                let reset = f.sum(&r);
                let reset = f.act(0, reset);
                let own: Vec<_> = [n[0]].into_iter().chain(direction.own_bias).collect();
                let own = f.sum(&own);
                let own = f.e.binary(Binary::Mul, reset, own);
                let input = f.operand(n[1]);
                let sum = f.e.binary(Binary::Add, input, own);
                let result = f.blend(&z, sum, h);
                (f.finish(mir, result), c)
            }
            Cell::Gru { linear: false } => {
                let [r_gates, r_own] = [
                    mir.narrow(direction.r, 1, 0, 2 * hidden),
                    mir.narrow(direction.r, 1, 2 * hidden, hidden),
                ];
                let products = mir.contract(h, r_gates);
                let [z, r] = [0, 1].map(|g| [gate(mir, products, g), gate(mir, x, g)]);
                let reset = f.sum(&r);
                let reset = f.act(0, reset);
                let state = f.operand(h);
                let result = f.e.binary(Binary::Mul, reset, state);
                let scaled = f.finish(mir, result);
                let own = mir.contract(scaled, r_own);
                let input = gate(mir, x, 2);
                let sum = f.sum(&[own, input]);
                let result = f.blend(&z, sum, h);
                (f.finish(mir, result), c)
            }
            Cell::Lstm { coupled } => {
                let products = mir.contract(h, direction.r);
                let sums = mir.binary(Binary::Add, products, x);
                let [input, output, forget, cell] = [0, 1, 2, 3].map(|g| gate(mir, sums, g));
                let state = f.operand(c);
                let peephole = |i: usize| direction.peepholes.map(|p| p[i]);
                let sum = f.peeped(input, peephole(0), state);
                let input = f.act(0, sum);
                let forget = match coupled {
                    true => {
                        let one = f.literal(1.0);
                        f.e.binary(Binary::Sub, one, input)
                    }
                    false => {
                        let sum = f.peeped(forget, peephole(2), state);
                        f.act(0, sum)
                    }
                };
                let kept = f.e.binary(Binary::Mul, forget, state);
                let candidate = f.operand(cell);
                let candidate = f.act(1, candidate);
                let new = f.e.binary(Binary::Mul, input, candidate);
                let result = f.e.binary(Binary::Add, kept, new);
                let c = f.finish(mir, result);
                let state = f.operand(c);
                let sum = f.peeped(output, peephole(1), state);
                let output = f.act(0, sum);
                let state = f.act(2, state);
                let result = f.e.binary(Binary::Mul, output, state);
                (f.finish(mir, result), c)
            }
        }
    }
}

impl Direction {
    /// The products of some steps with W, and biases: `[steps, batch, gates * hidden]` of `[steps, batch, inputs]`.
    fn inputs(&self, mir: &mut Builder, x: Value) -> Value {
        let [steps, batch, inputs] = [0, 1, 2].map(|axis| mir.dims(x)[axis]);
        let rows = mir.dims(self.w)[1];
        let x = mir.reshape(x, [steps * batch, inputs]);
        let mut x = mir.contract(x, self.w);
        if let Some(bias) = self.bias {
            x = mir.binary(Binary::Add, x, bias);
        }
        mir.reshape(x, [steps, batch, rows])
    }
}

/// An expression of a step under construction, with its operands.
struct Formula<'a> {
    op: &'a Recurrent,
    d: usize,
    dtype: DType,
    e: Expr,
    operands: Vec<Value>,
}

impl Formula<'_> {
    fn operand(&mut self, value: Value) -> Ref {
        let known = self.operands.iter().position(|&v| v == value);
        let index = known.unwrap_or_else(|| {
            self.operands.push(value);
            self.operands.len() - 1
        });
        self.e.operand(index)
    }

    fn literal(&mut self, value: f64) -> Ref {
        self.e.literal(self.dtype, value)
    }

    fn sum(&mut self, values: &[Value]) -> Ref {
        let first = self.operand(values[0]);
        values[1..].iter().fold(first, |sum, &v| {
            let other = self.operand(v);
            self.e.binary(Binary::Add, sum, other)
        })
    }

    /// `gate + peephole * state`.
    fn peeped(&mut self, gate: Value, peephole: Option<Value>, state: Ref) -> Ref {
        let gate = self.operand(gate);
        let Some(peephole) = peephole else { return gate };
        let peephole = self.operand(peephole);
        let product = self.e.binary(Binary::Mul, peephole, state);
        self.e.binary(Binary::Add, gate, product)
    }

    /// The i-th activation function of the direction, its argument clipped.
    fn act(&mut self, i: usize, mut x: Ref) -> Ref {
        if let Some(clip) = self.op.clip {
            let [low, high] = [self.literal(-clip), self.literal(clip)];
            x = self.e.binary(Binary::Max, x, low);
            x = self.e.binary(Binary::Min, x, high);
        }
        self.op.functions(self.d)[i].expand(&mut self.e, self.dtype, x)
    }

    /// `(1 - z) * n + z * h`, z and n being the activations of these sums.
    fn blend(&mut self, z: &[Value], n: Ref, h: Value) -> Ref {
        let z = self.sum(z);
        let z = self.act(0, z);
        let n = self.act(1, n);
        let one = self.literal(1.0);
        let rest = self.e.binary(Binary::Sub, one, z);
        let new = self.e.binary(Binary::Mul, rest, n);
        let h = self.operand(h);
        let kept = self.e.binary(Binary::Mul, z, h);
        self.e.binary(Binary::Add, new, kept)
    }

    /// The node that computes it; what follows starts anew.
    fn finish(&mut self, mir: &mut Builder, result: Ref) -> Value {
        let expr = std::mem::take(&mut self.e).returning(result);
        let operands = std::mem::take(&mut self.operands);
        // An operand that the result does not need would still be asked for.
        let mut used: Vec<u32> = vec![];
        for node in &expr.nodes {
            if let mir::Scalar::Operand(n) = *node {
                used.push(n);
            }
        }
        used.sort_unstable();
        let place = |n: u32| used.iter().position(|&u| u == n).unwrap_or(0) as u32;
        let operands: Vec<_> = used.iter().map(|&n| operands[n as usize]).collect();
        mir.map(expr.with_operands(place), &operands)
    }
}
