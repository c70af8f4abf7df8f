//! Operators that hand a state from one run of a model to the next: the past is an operand, the present a result.

use super::formula::Formula;
use super::gather::ramp;
use super::tools::{self, FLOATS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Unary};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};

/// A convolution of every channel by itself that looks back only: X `[batch, channels, length]` behind its past
/// `[batch, channels, k - 1]` (zeros where it is left out), by W `[channels, 1, k]`, plus B `[channels]`, and then
/// perhaps `y * sigmoid(y)`. The second result is the past of what follows: the last `k - 1` of all elements.
#[derive(Clone, Debug, PartialEq)]
pub struct CausalConvWithState {
    silu: bool,
}

impl Op for CausalConvWithState {
    const NAME: &'static str = "CausalConvWithState";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(CausalConvWithState { silu: attrs.choice("activation", &["none", "silu", "swish"])? > 0 })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 4)?;
        let (x, w) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(x, &FLOATS, &FLOATS)?;
        let (&[batch, channels, _], Some(&taps @ 1..)) = (&x.dims[..], w.dims.last()) else {
            let kind = ErrorKind::wrong(format!("operands {x} and {w}"));
            return Err(kind.help("they must be [batch, channels, length] and [channels, 1, k]"));
        };
        let state = Type::new(x.dtype, [batch, channels, taps - 1]);
        let expected = [x.with_dims([channels, 1, taps]), x.with_dims([channels]), state.clone()];
        for (i, expected) in (1..).zip(expected) {
            if let Some(ty) = inputs.get(i)
                && *ty != expected
            {
                let kind = ErrorKind::wrong(format!("operand {i} is {ty}"));
                return Err(kind.help(format!("it must be {expected}")));
            }
        }
        tools::sized(x.dtype, [batch, channels, x.dims[2].saturating_add(taps)])?;
        Ok(vec![x.clone(), state])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(w), ..] = inputs else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten().map(Tensor::f64s);
        let (taps, length, channels) = (w.dims()[2], x.dims()[2], x.dims()[1]);
        let (bias, past) = (operand(2), operand(3));
        let (x, w) = (x.f64s(), w.f64s());
        let (mut y, mut present) = (vec![], vec![]);
        for row in 0..outputs[0].dims[0] * channels {
            let past = past.as_ref().map_or(vec![0.0; taps - 1], |p| p[row * (taps - 1)..][..taps - 1].to_vec());
            let all = [&past[..], &x[row * length..][..length]].concat();
            let channel = row % channels;
            for at in 0..length {
                let products = (0..taps).map(|t| all[at + t] * w[channel * taps + t]);
                let sum = products.sum::<f64>() + bias.as_ref().map_or(0.0, |b| b[channel]);
                y.push(if self.silu { sum / (1.0 + (-sum).exp()) } else { sum });
            }
            present.extend_from_slice(&all[length..]);
        }
        vec![Tensor::from_f64s(outputs[0].clone(), y), Tensor::from_f64s(outputs[1].clone(), present)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x), Some(w), ref more @ ..] = inputs else { return vec![] };
        let operand = |i: usize| more.get(i).copied().flatten();
        let (length, taps) = (mir.dims(x)[2], mir.dims(w)[2]);
        let all = match operand(1) {
            Some(past) if taps > 1 => mir.concat(&[past, x], 2),
            _ => mir.pad(x, &[0, 0, taps - 1], &[0; 3], 0.0),
        };
        let present = match outputs[1].elements() {
            0 => mir.constant(Tensor::zeros(outputs[1].clone())),
            _ => mir.narrow(all, 2, length, taps - 1),
        };
        if outputs[0].elements() == 0 {
            return vec![mir.constant(Tensor::zeros(outputs[0].clone())), present];
        }
        let last = mir.channels_last(all);
        let filters = mir.permute(w, &[2, 1, 0]);
        let mut y = mir.conv(last, filters, &[1], &[1], outputs[0].dims[1]);
        if let Some(bias) = operand(0) {
            y = mir.binary(Binary::Add, y, bias);
        }
        if self.silu {
            let mut f = Formula::new(outputs[0].dtype);
            let sum = f.operand(0);
            let gate = f.sigmoid(sum);
            let result = f.mul(sum, gate);
            y = mir.map(f.finish(result), &[y]);
        }
        vec![mir.channels_first(y), present]
    }
}

/// A cache `[batch, .., positions, ..]` in which the updates `[batch, .., length, ..]` take the places along `axis`
/// from the batch element's index on (0 where indices are left out): behind each other, and with `circular` from
/// the first one on again. An index that leaves no room for them is an error where it is known, else the nearest is
/// taken.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorScatter {
    axis: i64,
    circular: bool,
}

impl TensorScatter {
    /// Where the update at this position goes.
    fn place(&self, first: i64, at: usize, positions: usize, length: usize) -> usize {
        match self.circular {
            true => (first.rem_euclid(positions.max(1) as i64) as usize + at) % positions.max(1),
            false => first.clamp(0, (positions - length) as i64) as usize + at,
        }
    }
}

impl Op for TensorScatter {
    const NAME: &'static str = "TensorScatter";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let circular = attrs.choice("mode", &["linear", "circular"])? == 1;
        Ok(TensorScatter { axis: attrs.int_or("axis", -2)?, circular })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 3)?;
        let (ty, updates) = (inputs.ty(0)?, inputs.ty(1)?);
        let axis = tools::axis(self.axis, ty.rank())?;
        if axis == 0 {
            return Err(ErrorKind::wrong("the axis is the batch's").help("it must be another one"));
        }
        let fits = updates.rank() == ty.rank()
            && updates.dtype == ty.dtype
            && (0..ty.rank()).all(|a| updates.dims[a] == ty.dims[a] || a == axis && updates.dims[a] <= ty.dims[a]);
        if !fits {
            let kind = ErrorKind::wrong(format!("updates {updates} do not fit the cache {ty}"));
            return Err(kind.help(format!("they must be the same, but for at most as many along axis {axis}")));
        }
        if let Some(indices) = inputs.get(2)
            && *indices != Type::new(DType::I64, [ty.dims[0]])
        {
            let kind = ErrorKind::wrong(format!("the indices are {indices}"));
            return Err(kind.help(format!("they must be i64[{}]", ty.dims[0])));
        }
        let most = (ty.dims[axis] - updates.dims[axis]) as i64;
        let known = inputs.constant(2).map(Tensor::ints).unwrap_or_default();
        if let Some(index) = known.into_iter().find(|i| !self.circular && !(0..=most).contains(i)) {
            let kind = ErrorKind::wrong(format!("index {index} leaves no room for the updates"));
            return Err(kind.help(format!("it must be in 0..={most}")));
        }
        Ok(vec![ty.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(cache), Some(updates), ..] = inputs else { return vec![] };
        let (ty, size) = (&outputs[0], outputs[0].dtype.bytes());
        let indices = inputs.get(2).copied().flatten().map(Tensor::ints);
        let axis = tools::axis(self.axis, ty.rank()).unwrap_or(1);
        let (strides, mut next) = (ty.strides(), 0);
        let mut data = cache.bytes().to_vec();
        for_each_index(updates.dims(), |index| {
            let first = indices.as_ref().map_or(0, |list| list[index[0]]);
            let to = |(a, &at): (usize, &usize)| {
                let along = a == axis;
                let to = if along { self.place(first, at, ty.dims[a], updates.dims()[a]) } else { at };
                to * strides[a] as usize
            };
            let place: usize = index.iter().enumerate().map(to).sum();
            data[place * size..][..size].copy_from_slice(updates.element(next));
            next += 1;
        });
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(cache), Some(updates), ref more @ ..] = inputs else { return vec![] };
        let ty = &outputs[0];
        if mir.ty(updates).elements() == 0 {
            return vec![cache];
        }
        let axis = tools::axis(self.axis, ty.rank()).unwrap_or(1);
        let (positions, length) = (ty.dims[axis], mir.dims(updates)[axis]);
        let Some(indices) = more.first().copied().flatten() else {
            // The first ones: what is behind them stays.
            let rest = (length < positions).then(|| mir.narrow(cache, axis, length, positions - length));
            return vec![mir.concat(&[Some(updates), rest].into_iter().flatten().collect::<Vec<_>>(), axis)];
        };
        // Rows are the slices behind the axis; they are numbered by batch element, by what is between it and the
        // axis, and by position.
        let (batch, inner) = (ty.dims[0], ty.dims[axis + 1..].to_vec());
        let outer: usize = ty.dims[1..axis].iter().product();
        let first = mir.reshape(indices, [batch, 1, 1]);
        let base = [ramp(mir, 3, 0, batch, (outer * positions) as i64), ramp(mir, 3, 1, outer, positions as i64)];
        let at = ramp(mir, 3, 2, length, 1);
        let mut f = Formula::new(DType::I64);
        let [first_, batch_, outer_, at_] = [0, 1, 2, 3].map(|i| f.operand(i));
        let place = if self.circular {
            let extent = f.lit(positions as f64);
            let rest = f.rem(first_, extent);
            let (up, zero) = (f.add(rest, extent), f.lit(0.0));
            let negative = f.less(rest, zero);
            let first = f.select(negative, up, rest);
            let place = f.add(first, at_);
            f.rem(place, extent)
        } else {
            let (zero, last) = (f.lit(0.0), f.lit((positions - length) as f64));
            let low = f.max(first_, zero);
            let first = f.min(low, last);
            f.add(first, at_)
        };
        let row = f.add(batch_, outer_);
        let flat = f.add(row, place);
        let flat = mir.map(f.finish(flat), &[first, base[0], base[1], at]);
        let table = mir.reshape(cache, [&[batch * outer * positions], &inner[..]].concat());
        let updates = mir.reshape(updates, [&[batch, outer, length], &inner[..]].concat());
        let result = mir.scatter(None, table, flat, updates);
        vec![mir.reshape(result, ty.dims.clone())]
    }
}

/// The most positions that are written out.
const MOST: usize = 4096;

/// Attention without softmax, as a recurrence over positions. For Q `[batch, length, q_num_heads * dk]`, K and V with
/// `kv_num_heads` of `dk` and `dv` (each for as many successive heads of Q), a state S `[batch, kv heads, dk, dv]` (zeros
/// at first, or the past), a decay g by head and position or by element of K, and a rate b by position and perhaps by
/// head:
///
/// `S = exp(g) S + k b (v - (exp(g) S)' k)'`, `y = scale * S' q`,
///
/// where `linear` has neither decay nor correction (`S + k v'`), `gated` no correction, and `delta` no decay. The
/// second result is the last state, of the past's element type (without one, Q's).
#[derive(Clone, Debug, PartialEq)]
pub struct LinearAttention {
    heads: usize,
    kv_heads: usize,
    scale: f64,
    gated: bool,
    delta: bool,
}

/// Extents.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    length: usize,
    dk: usize,
    dv: usize,
}

const PAST: usize = 3;
const DECAY: usize = 4;
const RATE: usize = 5;

impl LinearAttention {
    fn sizes(&self, q: &[usize], v: &[usize]) -> Sizes {
        let of = |dims: &[usize], axis: usize| dims.get(axis).copied().unwrap_or(0);
        let (dk, dv) = (of(q, 2) / self.heads, of(v, 2) / self.kv_heads);
        Sizes { batch: of(q, 0), length: of(q, 1), dk, dv }
    }

    fn factor(&self, s: Sizes) -> f64 {
        if self.scale == 0.0 { 1.0 / (s.dk.max(1) as f64).sqrt() } else { self.scale }
    }
}

impl Op for LinearAttention {
    const NAME: &'static str = "LinearAttention";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        // How many positions are best computed at once; the result is the same.
        attrs.ignore("chunk_size");
        let mut count = |name: &'static str| {
            let heads = tools::required(attrs.int(name)?, name)?;
            Ok::<_, ErrorKind>(super::window::positive(name, &[heads])?[0])
        };
        let (heads, kv_heads) = (count("q_num_heads")?, count("kv_num_heads")?);
        if heads % kv_heads != 0 {
            return Err(ErrorKind::wrong(format!("{heads} heads of Q share {kv_heads} of K and V")));
        }
        let (gated, delta) = match attrs.choice("update_rule", &["gated_delta", "linear", "gated", "delta"])? {
            0 => (true, true),
            1 => (false, false),
            2 => (true, false),
            _ => (false, true),
        };
        Ok(LinearAttention { heads, kv_heads, scale: attrs.float_or("scale", 0.0)?, gated, delta })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        const SINGLE: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
        inputs.arity(3, 6)?;
        let (q, v) = (inputs.ty(0)?, inputs.ty(2)?);
        tools::dtype_in(q, &SINGLE, &SINGLE)?;
        if q.rank() != 3 || v.rank() != 3 || q.dims[2] % self.heads != 0 || v.dims[2] % self.kv_heads != 0 {
            let kind = ErrorKind::wrong(format!("operands {q} and {v} for {} and {} heads", self.heads, self.kv_heads));
            return Err(kind.help("they must be [batch, length, heads * size]"));
        }
        let s = self.sizes(&q.dims, &v.dims);
        if s.length > MOST {
            return Err(ErrorKind::limit(format!("{} positions", s.length)).help(format!("at most {MOST} are done")));
        }
        let row = |width: usize| q.with_dims([s.batch, s.length, width]);
        let of_heads = self.kv_heads.checked_mul(s.dk).ok_or_else(|| ErrorKind::limit("the keys are too large"))?;
        let state = tools::sized(q.dtype, [s.batch, self.kv_heads, s.dk, s.dv])?;
        let refused = |i: usize, found: Option<&Type>, help: String| {
            let found = found.map_or("left out".to_owned(), ToString::to_string);
            Err(ErrorKind::wrong(format!("operand {i} is {found}")).help(help))
        };
        for (i, width) in [(1, of_heads), (2, v.dims[2])] {
            if inputs.get(i) != Some(&row(width)) {
                return refused(i, inputs.get(i), format!("it must be {}", row(width)));
            }
        }
        let past = inputs.get(PAST);
        if let Some(past) = past {
            tools::dtype_in(past, &SINGLE, &SINGLE)?;
            if past.dims != state.dims {
                return refused(PAST, Some(past), format!("it must be {state}"));
            }
        }
        for (i, asked, widths) in
            [(DECAY, self.gated, [self.kv_heads, of_heads]), (RATE, self.delta, [self.kv_heads, 1])]
        {
            match (inputs.get(i), asked) {
                (None, false) => {}
                (Some(ty), true) if widths.iter().any(|&width| *ty == row(width)) => {}
                (found, true) => {
                    return refused(i, found, format!("it must be {} or {}", row(widths[0]), row(widths[1])));
                }
                (found, false) => return refused(i, found, "the update rule has none".to_owned()),
            }
        }
        let dims = vec![s.batch, s.length, self.heads.saturating_mul(s.dv)];
        Ok(vec![tools::sized(q.dtype, dims)?, state.with_dtype(past.unwrap_or(q).dtype)])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(q), Some(k), Some(v), ..] = inputs else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten().map(|t| (t.dims()[2], t.f64s()));
        let s = self.sizes(q.dims(), v.dims());
        let Sizes { batch, length, dk, dv } = s;
        let (q, k, v) = (q.f64s(), k.f64s(), v.f64s());
        let (decay, rate) = (operand(DECAY), operand(RATE));
        let mut states = match inputs.get(PAST).copied().flatten() {
            Some(past) => past.f64s(),
            None => vec![0.0; outputs[1].elements()],
        };
        let mut y = vec![0.0; outputs[0].elements()];
        for row in 0..batch * self.kv_heads {
            let (b, head) = (row / self.kv_heads, row % self.kv_heads);
            let state = &mut states[row * dk * dv..][..dk * dv];
            for t in 0..length {
                let at = b * length + t;
                let key = &k[(at * self.kv_heads + head) * dk..][..dk];
                let mut value = v[(at * self.kv_heads + head) * dv..][..dv].to_vec();
                if let Some((width, decay)) = &decay {
                    for i in 0..dk {
                        let column = if *width == self.kv_heads { head } else { head * dk + i };
                        let factor = decay[at * width + column].exp();
                        state[i * dv..][..dv].iter_mut().for_each(|s| *s *= factor);
                    }
                }
                if let Some((width, rate)) = &rate {
                    let rate = rate[at * width + if *width == 1 { 0 } else { head }];
                    for (j, value) in value.iter_mut().enumerate() {
                        let found: f64 = (0..dk).map(|i| state[i * dv + j] * key[i]).sum();
                        *value = rate * (*value - found);
                    }
                }
                for (i, key) in key.iter().enumerate() {
                    (0..dv).for_each(|j| state[i * dv + j] += key * value[j]);
                }
                let group = self.heads / self.kv_heads;
                for h in head * group..(head + 1) * group {
                    let query = &q[(at * self.heads + h) * dk..][..dk];
                    for j in 0..dv {
                        let sum: f64 = (0..dk).map(|i| query[i] * state[i * dv + j]).sum();
                        y[(at * self.heads + h) * dv + j] = self.factor(s) * sum;
                    }
                }
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), y), Tensor::from_f64s(outputs[1].clone(), states)]
    }

    /// Position by position: of the state, two products of rows and one pass that decays and adds.
    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(q), Some(k), Some(v), ref more @ ..] = inputs else { return vec![] };
        let operand = |i: usize| more.get(i - 3).copied().flatten();
        let (s, kv, group) = (self.sizes(&mir.dims(q), &mir.dims(v)), self.kv_heads, self.heads / self.kv_heads);
        if outputs[0].elements() == 0 || s.dk == 0 {
            let state = operand(PAST).filter(|_| outputs[1].elements() > 0);
            let y = mir.constant(Tensor::zeros(outputs[0].clone()));
            return vec![y, state.unwrap_or_else(|| mir.constant(Tensor::zeros(outputs[1].clone())))];
        }
        // `[length, batch, heads, rows, columns]`, in f32.
        let split = |mir: &mut mir::Builder, x: mir::Value, dims: [usize; 3]| {
            let wide = mir.cast(x, DType::F32);
            let wide = mir.permute(wide, &[1, 0, 2]);
            mir.reshape(wide, [s.length, s.batch, dims[0], dims[1], dims[2]])
        };
        let q = split(mir, q, [kv, group, s.dk]);
        let q = mir.binary_scalar(Binary::Mul, q, self.factor(s));
        let keys = split(mir, k, [kv, s.dk, 1]);
        let v = split(mir, v, [kv, 1, s.dv]);
        let decay = operand(DECAY).map(|decay| {
            let width = mir.dims(decay)[2];
            let decay = split(mir, decay, if width == kv { [kv, 1, 1] } else { [kv, s.dk, 1] });
            mir.unary(Unary::Exp, decay)
        });
        let rate = operand(RATE).map(|rate| {
            let width = mir.dims(rate)[2];
            split(mir, rate, [width, 1, 1])
        });
        let mut probes = keys;
        if let Some(decay) = decay.filter(|_| self.delta) {
            probes = mir.binary(Binary::Mul, keys, decay);
        }
        let probes = mir.reshape(probes, [s.length, s.batch, kv, 1, s.dk]);
        let mut state = match operand(PAST) {
            Some(past) => mir.cast(past, DType::F32),
            None => mir.constant(Tensor::zeros(Type::new(DType::F32, outputs[1].dims.clone()))),
        };
        let mut rows = vec![];
        for t in 0..s.length {
            let at = |mir: &mut mir::Builder, x: mir::Value| {
                let own = mir.narrow(x, 0, t, 1);
                let dims = mir.dims(own)[1..].to_vec();
                mir.reshape(own, dims)
            };
            let mut value = at(mir, v);
            if let Some(rate) = rate {
                let (probe, rate) = (at(mir, probes), at(mir, rate));
                let found = mir.contract(probe, state);
                let mut f = Formula::new(DType::F32);
                let [value_, found_, rate_] = [0, 1, 2].map(|i| f.operand(i));
                let rest = f.sub(value_, found_);
                let result = f.mul(rest, rate_);
                value = mir.map(f.finish(result), &[value, found, rate]);
            }
            let mut f = Formula::new(DType::F32);
            let [state_, key_, value_, decay_] = [0, 1, 2, 3].map(|i| f.operand(i));
            let mut operands = vec![state, at(mir, keys), value];
            let mut kept = state_;
            if let Some(decay) = decay {
                operands.push(at(mir, decay));
                kept = f.mul(state_, decay_);
            }
            let added = f.mul(key_, value_);
            let sum = f.add(kept, added);
            state = mir.map(f.finish(sum), &operands);
            let query = at(mir, q);
            let row = mir.contract(query, state);
            rows.push(mir.reshape(row, [s.batch, 1, self.heads * s.dv]));
        }
        let y = mir.concat(&rows, 1);
        vec![mir.cast(y, outputs[0].dtype), mir.cast(state, outputs[1].dtype)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::refused;

    #[test]
    fn misfits_are_refused() {
        refused("CausalConvWithState", &["f32[2,3,4]", "f32[3,3]"]);
        refused("CausalConvWithState", &["f32[2,3,4]", "f32[2,1,3]"]);
        refused("CausalConvWithState", &["f32[2,3,4]", "f32[3,1,3]", "f32[4]"]);
        refused("CausalConvWithState", &["f32[2,3,4]", "f32[3,1,3]", "-", "f32[2,3,3]"]);
        refused("CausalConvWithState activation=relu", &["f32[2,3,4]", "f32[3,1,3]"]);
        refused("TensorScatter", &["f32[2,4,3]", "f32[2,5,3]"]);
        refused("TensorScatter axis=0", &["f32[2,4,3]", "f32[2,4,3]"]);
        refused("TensorScatter", &["f32[2,4,3]", "f32[2,1,3]", "i64[1]"]);
        refused("TensorScatter", &["f32[2,4,3]", "f32[2,3,3]", "const i64[2]=0,2"]);
        let heads = "LinearAttention q_num_heads=4 kv_num_heads=2";
        refused("LinearAttention q_num_heads=3 kv_num_heads=2", &["f32[1,2,6]", "f32[1,2,4]", "f32[1,2,4]"]);
        refused(heads, &["f32[1,2,8]", "f32[1,2,4]", "f32[1,2,6]"]);
        refused(&format!("{heads} update_rule=linear"), &["f32[1,2,8]", "f32[1,2,6]", "f32[1,2,6]"]);
        refused(
            &format!("{heads} update_rule=linear"),
            &["f32[1,2,8]", "f32[1,2,4]", "f32[1,2,6]", "-", "f32[1,2,2]"],
        );
        refused(
            &format!("{heads} update_rule=gated"),
            &["f32[1,2,8]", "f32[1,2,4]", "f32[1,2,6]", "-", "f32[1,2,3]"],
        );
    }
}
