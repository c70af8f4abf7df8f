//! Scaled dot-product attention.

use super::formula::Formula;
use super::{Attrs, Op, Operands, Tolerance, softmax, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Comparison, Expr, Reduction};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type, broadcast};

/// `softmax(cap(scale * Q K') + bias) V`, for heads of Q `[batch, heads, length, size]` or `[batch, length,
/// heads * size]` (with `q_num_heads` and `kv_num_heads`), and K and V likewise. K and V may have fewer heads,
/// each for as many successive ones of Q. The cap is `c * tanh(s / c)`.
///
/// The bias is minus infinity where something hides a key, else what `attn_mask` says: a mask of booleans
/// hides where it is false, one of floats is added; keys behind its end are hidden. With `is_causal`, query
/// `i` sees the keys up to `i + offset`; windows bound them at both sides; `nonpad_kv_seqlen` hides the keys
/// from there on. The offset is the length of the past, or `nonpad_kv_seqlen` less the length of Q.
/// A row that sees no key gives zeros.
///
/// Further results: K and V behind their past, as `[batch, heads, length, size]`, and of `Q K'` what
/// `qk_matmul_output_mode` says: 0 scaled, 1 capped, 2 with the bias, 3 after softmax.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub(super) causal: bool,
    pub(super) q_heads: Option<usize>,
    pub(super) kv_heads: Option<usize>,
    pub(super) scale: Option<f64>,
    pub(super) softcap: f64,
    pub(super) output: i64,
    pub(super) precision: Option<DType>,
    /// How many keys before and behind a query's position it sees.
    pub(super) windows: [Option<i64>; 2],
}

/// Extents.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    length: usize,
    past: usize,
    /// Keys, the past included.
    keys: usize,
    size: usize,
    v_size: usize,
}

impl Sizes {
    fn scores(&self) -> [usize; 4] {
        [self.batch, self.heads, self.length, self.keys]
    }
}

const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const MASK: usize = 3;
const PAST_K: usize = 4;
const PAST_V: usize = 5;
const LENGTHS: usize = 6;

impl Attention {
    fn sizes(&self, types: [&Type; 3], past: usize) -> Result<Sizes, ErrorKind> {
        let split = |i: usize, heads: Option<usize>| match (&types[i].dims[..], heads) {
            (&[batch, heads, length, size], _) => Ok([batch, heads, length, size]),
            (&[batch, length, width], Some(heads)) if width % heads == 0 => {
                Ok([batch, heads, length, width / heads])
            }
            (&[_, _, _], None) => Err(ErrorKind::wrong("attributes \"q_num_heads\" and \"kv_num_heads\" are missing")
                .help("operands of rank 3 need them")),
            _ => Err(ErrorKind::wrong(format!("operand {i} is {}", types[i]))
                .help("it must have rank 4, or rank 3 and a last extent that the heads divide")),
        };
        let ([b, heads, length, size], [kb, kv_heads, keys, k_size], [vb, v_heads, v_keys, v_size]) =
            (split(Q, self.q_heads)?, split(K, self.kv_heads)?, split(V, self.kv_heads)?);
        let fits = b == kb && b == vb && size == k_size && keys == v_keys && v_heads == kv_heads;
        if !fits || types.iter().any(|t| t.rank() != types[0].rank()) {
            return Err(ErrorKind::wrong(format!(
                "operands do not fit: {}, {} and {}",
                types[0], types[1], types[2]
            )));
        }
        if kv_heads == 0 || heads % kv_heads != 0 {
            return Err(ErrorKind::wrong(format!("{heads} heads of Q share {kv_heads} of K and V")));
        }
        let keys = keys + past;
        Ok(Sizes { batch: b, heads, kv_heads, length, past, keys, size, v_size })
    }

    fn factor(&self, s: Sizes) -> f64 {
        self.scale.unwrap_or(1.0 / (s.size as f64).sqrt())
    }

    /// Whether a query at position `at` of the keys sees key `j`, as far as positions say.
    fn sees(&self, at: i64, j: i64) -> bool {
        (!self.causal || j <= at)
            && self.windows[0].is_none_or(|n| at.saturating_sub(n) <= j)
            && self.windows[1].is_none_or(|n| j <= at.saturating_add(n))
    }

    fn by_position(&self) -> bool {
        self.causal || self.windows.iter().any(Option::is_some)
    }
}

impl Op for Attention {
    const NAME: &'static str = "Attention";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let mut heads = |name: &'static str| -> Result<Option<usize>, ErrorKind> {
            match attrs.int(name)? {
                None | Some(0) => Ok(None),
                Some(n) => Ok(Some(super::window::positive(name, &[n])?[0])),
            }
        };
        let (q_heads, kv_heads) = (heads("q_num_heads")?, heads("kv_num_heads")?);
        let mut window = |name: &'static str| match attrs.int_or(name, -1)? {
            -1 => Ok(None),
            n if n >= 0 => Ok(Some(n.min(1 << 40))), // Longer than any sequence, and sums do not overflow.
            n => Err(ErrorKind::wrong(format!("attribute \"{name}\" is {n}"))),
        };
        let windows = [window("left_window_size")?, window("right_window_size")?];
        let output = attrs.int_or("qk_matmul_output_mode", 0)?;
        if !(0..4).contains(&output) {
            let kind = ErrorKind::wrong(format!("attribute \"qk_matmul_output_mode\" is {output}"));
            return Err(kind.help("it must be 0, 1, 2 or 3"));
        }
        let scale = attrs.float("scale")?;
        if scale.is_some_and(|s| s < 0.0 || s.is_nan()) {
            return Err(ErrorKind::wrong("attribute \"scale\" is negative").help("its root is taken"));
        }
        let precision = match attrs.int("softmax_precision")? {
            None | Some(0) => None,
            Some(n) => {
                let dtype = u32::try_from(n).ok().and_then(DType::from_onnx).filter(|t| t.is_float());
                Some(dtype.ok_or_else(|| {
                    let kind = ErrorKind::wrong(format!("attribute \"softmax_precision\" is {n}"));
                    kind.help("it must be the number of a floating-point type")
                })?)
            }
        };
        let softcap = attrs.float_or("softcap", 0.0)?;
        Ok(Attention {
            causal: attrs.flag("is_causal", false)?,
            q_heads,
            kv_heads,
            scale,
            softcap,
            output,
            precision,
            windows,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 7)?;
        let types = [inputs.ty(Q)?, inputs.ty(K)?, inputs.ty(V)?];
        tools::dtype_in(types[0], &tools::FLOATS, &tools::FLOATS)?;
        if let Some(other) = types.iter().find(|t| t.dtype != types[0].dtype) {
            let kind = format!("element types differ: {} and {}", types[0].dtype, other.dtype);
            return Err(ErrorKind::unsupported(kind));
        }
        let (past_k, past_v) = (inputs.get(PAST_K), inputs.get(PAST_V));
        if past_k.is_some() != past_v.is_some() {
            return Err(ErrorKind::wrong("one of the past keys and values is given without the other"));
        }
        let past = past_k.map_or(0, |ty| ty.dims.get(2).copied().unwrap_or(0));
        let s = self.sizes(types, past)?;
        for (i, ty, size) in [(PAST_K, past_k, s.size), (PAST_V, past_v, s.v_size)] {
            let expected = types[0].with_dims([s.batch, s.kv_heads, past, size]);
            if let Some(ty) = ty.filter(|ty| **ty != expected) {
                let kind = ErrorKind::wrong(format!("operand {i} is {ty}"));
                return Err(kind.help(format!("it must be {expected}")));
            }
        }
        let scores = tools::sized(types[0].dtype, s.scores())?;
        if let Some(mask) = inputs.get(MASK) {
            let mut whole = mask.dims.clone();
            if let Some(last) = whole.last_mut().filter(|n| **n <= s.keys) {
                *last = s.keys;
            }
            let fits = mask.rank() > 0
                && (mask.dtype == DType::Bool || mask.dtype.is_float())
                && broadcast(&whole, &scores.dims).is_some_and(|dims| dims == scores.dims);
            if !fits {
                let kind = ErrorKind::wrong(format!("the mask is {mask}"));
                return Err(kind.help(format!("it must be of booleans or floats and broadcast to {scores}")));
            }
        }
        if let Some(lengths) = inputs.get(LENGTHS) {
            if *lengths != Type::new(DType::I64, [s.batch]) {
                let kind = ErrorKind::wrong(format!("operand {LENGTHS} is {lengths}"));
                return Err(kind.help(format!("it must be i64[{}]", s.batch)));
            }
            if past_k.is_some() {
                return Err(ErrorKind::wrong("both a past and \"nonpad_kv_seqlen\" are given"));
            }
        }
        let dims = match types[0].rank() {
            3 => vec![s.batch, s.length, s.heads.saturating_mul(s.v_size)],
            _ => vec![s.batch, s.heads, s.length, s.v_size],
        };
        let present = |size: usize| tools::sized(types[0].dtype, [s.batch, s.kv_heads, s.keys, size]);
        Ok(vec![tools::sized(types[0].dtype, dims)?, present(s.size)?, present(s.v_size)?, scores])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(q), Some(k), Some(v), ..] = inputs else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let past = operand(PAST_K).map_or(0, |t| t.dims()[2]);
        let Ok(s) = self.sizes([q.ty(), k.ty(), v.ty()], past) else { return vec![] };
        // [batch, heads, length, size], the past in front.
        let whole = |t: &Tensor, past: Option<&Tensor>, heads: usize, size: usize| {
            let (values, old) = (t.f64s(), past.map(Tensor::f64s));
            let before = past.map_or(0, |p| p.dims()[2]);
            let length = if t.ty().rank() == 3 { t.dims()[1] } else { t.dims()[2] };
            let mut all = Vec::with_capacity(values.len());
            for_each_index(&[s.batch, heads, before + length], |i| {
                let (b, h) = (i[0], i[1]);
                let (from, row) = match &old {
                    Some(old) if i[2] < before => (old, (b * heads + h) * before + i[2]),
                    _ if t.ty().rank() == 3 => (&values, (b * length + i[2] - before) * heads + h),
                    _ => (&values, (b * heads + h) * length + i[2] - before),
                };
                all.extend_from_slice(&from[row * size..][..size]);
            });
            all
        };
        let xq = whole(q, None, s.heads, s.size);
        let xk = whole(k, operand(PAST_K), s.kv_heads, s.size);
        let xv = whole(v, operand(PAST_V), s.kv_heads, s.v_size);
        let mask = operand(MASK).map(|t| (t.f64s(), t.ty()));
        let lengths = operand(LENGTHS).map(Tensor::ints);
        let bias = |index: [usize; 4]| {
            let [b, _, i, j] = index;
            let offset = match &lengths {
                Some(lengths) => lengths[b].saturating_sub(s.length as i64),
                None => s.past as i64,
            };
            let seen = self.sees(offset.saturating_add(i as i64), j as i64)
                && lengths.as_ref().is_none_or(|l| (j as i64) < l[b]);
            let Some((values, ty)) = &mask else { return if seen { 0.0 } else { f64::NEG_INFINITY } };
            let width = ty.dims[ty.rank() - 1];
            if !seen || j >= width {
                return f64::NEG_INFINITY;
            }
            let value = values[tools::broadcast_index(&index[4 - ty.rank()..], &ty.dims)];
            match (ty.dtype, value == 0.0) {
                (DType::Bool, true) => f64::NEG_INFINITY,
                (DType::Bool, false) => 0.0,
                _ => value,
            }
        };
        let factor = self.factor(s);
        let group = s.heads / s.kv_heads;
        let mut y = vec![0.0; outputs[0].elements()];
        let mut shown = vec![0.0; outputs[3].elements()];
        let mut row = vec![0.0; s.keys];
        for_each_index(&[s.batch, s.heads, s.length], |index| {
            let [b, h, i] = [index[0], index[1], index[2]];
            let own = b * s.kv_heads + h / group;
            let at = (b * s.heads + h) * s.length + i;
            let query = &xq[at * s.size..][..s.size];
            let shown = &mut shown[at * s.keys..][..s.keys];
            let mut hidden = true;
            for (j, score) in row.iter_mut().enumerate() {
                let key = &xk[(own * s.keys + j) * s.size..][..s.size];
                let mut v = query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() * factor;
                if self.output == 0 {
                    shown[j] = v;
                }
                if self.softcap > 0.0 {
                    v = self.softcap * (v / self.softcap).tanh();
                }
                if self.output == 1 {
                    shown[j] = v;
                }
                let bias = bias([b, h, i, j]);
                hidden &= bias == f64::NEG_INFINITY;
                *score = v + bias;
                if self.output == 2 {
                    shown[j] = *score;
                }
            }
            let max = row.iter().fold(f64::NEG_INFINITY, |a, &b| if b.is_nan() || b > a { b } else { a });
            row.iter_mut().for_each(|v| *v = (*v - max).exp());
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|v| *v = if hidden { 0.0 } else { *v / sum });
            if self.output == 3 {
                shown.copy_from_slice(&row);
            }
            let to = if q.ty().rank() == 3 { (b * s.length + i) * s.heads + h } else { at };
            let result = &mut y[to * s.v_size..][..s.v_size];
            for (j, share) in row.iter().enumerate() {
                let value = &xv[(own * s.keys + j) * s.v_size..][..s.v_size];
                result.iter_mut().zip(value).for_each(|(r, v)| *r += share * v);
            }
        });
        [y, xk, xv, shown].into_iter().zip(outputs).map(|(v, ty)| Tensor::from_f64s(ty.clone(), v)).collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let [Some(q), Some(k), Some(v), ..] = *inputs else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let past = operand(PAST_K).map_or(0, |v| mir.dims(v)[2]);
        let types = [q, k, v].map(|v| mir.ty(v).clone());
        let Ok(s) = self.sizes([&types[0], &types[1], &types[2]], past) else { return vec![] };
        let flat = types[0].rank() == 3;
        let dtype = types[0].dtype;
        let mut split = |v: mir::Value, heads: usize, size: usize| {
            if !flat {
                return v;
            }
            let length = mir.dims(v)[1];
            let v = mir.reshape(v, [s.batch, length, heads, size]);
            mir.permute(v, &[0, 2, 1, 3])
        };
        let (q, mut k, mut v) = (split(q, s.heads, s.size), split(k, s.kv_heads, s.size), split(v, s.kv_heads, s.v_size));
        if let (Some(past_k), Some(past_v)) = (operand(PAST_K), operand(PAST_V)) {
            k = mir.concat(&[past_k, k], 2);
            v = mir.concat(&[past_v, v], 2);
        }
        // What is narrower than 32 bits is computed in 32, and rounded once.
        let narrow = dtype;
        let dtype = if narrow.bytes() < 4 { DType::F32 } else { narrow };
        let presents = [k, v];
        let [q, k, v] = [q, k, v].map(|v| mir.cast(v, dtype));
        // The heads of Q that share one of K and V are rows of one product.
        let grouped = |columns: usize| [s.batch, s.kv_heads, s.heads / s.kv_heads * s.length, columns];
        let q = mir.reshape(q, grouped(s.size));
        let turned = mir.permute(k, &[0, 1, 3, 2]);
        let products = mir.contract(q, turned);
        let products = mir.reshape(products, s.scores());
        let bias = self.bias(mir, s, dtype, operand(MASK), operand(LENGTHS));
        // One expression up to the softmax; what is asked for on the way has one of its own.
        let staged = |mir: &mut mir::Builder, capped: bool, biased: bool| {
            let mut f = Formula::new(dtype);
            let mut score = f.operand(0);
            score = f.scale(score, self.factor(s));
            if capped && self.softcap > 0.0 {
                let small = f.scale(score, 1.0 / self.softcap);
                let tanh = f.tanh(small);
                score = f.scale(tanh, self.softcap);
            }
            match bias.filter(|_| biased) {
                Some(bias) => {
                    let term = f.operand(1);
                    score = f.add(score, term);
                    mir.map(f.finish(score), &[products, bias])
                }
                None => mir.map(f.finish(score), &[products]),
            }
        };
        let scores = staged(mir, true, true);
        let wide = self.precision.filter(|p| p.bytes() > dtype.bytes()).unwrap_or(dtype);
        let scores_wide = mir.cast(scores, wide);
        let shares = softmax::softmax(mir, scores_wide, 3);
        let mut shares = mir.cast(shares, dtype);
        if let Some(bias) = bias {
            shares = unhidden(mir, shares, bias);
        }
        let shown = match self.output {
            0 => staged(mir, false, false),
            1 => staged(mir, true, false),
            2 => scores,
            _ => shares,
        };
        let shares = mir.reshape(shares, grouped(s.keys));
        let y = mir.contract(shares, v);
        let y = mir.reshape(y, [s.batch, s.heads, s.length, s.v_size]);
        let y = if flat { mir.permute(y, &[0, 2, 1, 3]) } else { y };
        let y = mir.reshape(y, outputs[0].dims.clone());
        let [y, shown] = [y, shown].map(|v| mir.cast(v, narrow));
        vec![y, presents[0], presents[1], shown]
    }
}

impl Attention {
    /// What is added to the scores, if anything: it broadcasts to them.
    fn bias(
        &self,
        mir: &mut mir::Builder,
        s: Sizes,
        dtype: DType,
        mask: Option<mir::Value>,
        lengths: Option<mir::Value>,
    ) -> Option<mir::Value> {
        let mut seen = None;
        if let Some(lengths) = lengths {
            seen = Some(self.seen_by_lengths(mir, s, lengths));
        } else if self.by_position() {
            let pairs = (0..s.length).flat_map(|i| (0..s.keys).map(move |j| (i + s.past, j)));
            let seen_at = pairs.map(|(at, j)| i64::from(self.sees(at as i64, j as i64)));
            let ty = Type::new(DType::Bool, [s.length, s.keys]);
            seen = Some(mir.constant(Tensor::from_ints(ty, seen_at.collect::<Vec<_>>())));
        }
        let mask = mask.map(|mask| {
            let width = mir.dims(mask).last().copied().unwrap_or(0);
            let rest = s.keys - width;
            let boolean = mir.ty(mask).dtype == DType::Bool;
            let mut high = vec![0; mir.ty(mask).rank()];
            if let Some(last) = high.last_mut() {
                *last = rest;
            }
            let hidden = if boolean { 0.0 } else { f64::NEG_INFINITY };
            let low = vec![0; high.len()];
            let mask = mir.pad(mask, &low, &high, hidden);
            if boolean { mask } else { mir.cast(mask, dtype) }
        });
        let mut f = Formula::new(dtype);
        let none = f.lit(f64::NEG_INFINITY);
        let operands: Vec<_> = mask.into_iter().chain(seen).collect();
        let mut value = f.lit(0.0);
        if let Some(mask) = mask {
            let given = f.operand(0);
            value = if mir.ty(mask).dtype == DType::Bool { f.select(given, value, none) } else { given };
        }
        if seen.is_some() {
            let condition = f.operand(operands.len() - 1);
            value = f.select(condition, value, none);
        }
        (!operands.is_empty()).then(|| mir.map(f.finish(value), &operands))
    }

    /// Which keys are seen, `[batch, 1, length or 1, keys]`, where lengths are known at run time.
    fn seen_by_lengths(&self, mir: &mut mir::Builder, s: Sizes, lengths: mir::Value) -> mir::Value {
        let mut numbers = |dims: [usize; 4]| {
            let count: usize = dims.iter().product();
            let tensor = Tensor::from_ints(Type::new(DType::I64, dims), 0..count as i64);
            mir.constant(tensor)
        };
        let (rows, keys) = (numbers([1, 1, s.length, 1]), numbers([1, 1, 1, s.keys]));
        let lengths = mir.reshape(lengths, [s.batch, 1, 1, 1]);
        let mut f = Formula::new(DType::I64);
        let [j, length] = [0, 1].map(|i| f.operand(i));
        let mut seen = f.less(j, length);
        let mut operands = vec![keys, lengths];
        if self.by_position() {
            operands.push(rows);
            let i = f.operand(2);
            let sum = f.add(i, length);
            let at = f.offset(sum, -(s.length as f64));
            let bounds = [self.causal.then_some(0), self.windows[1]];
            for n in bounds.into_iter().flatten() {
                let last = f.offset(at, n as f64);
                let within = f.less_equal(j, last);
                seen = f.and(seen, within);
            }
            if let Some(n) = self.windows[0] {
                let first = f.offset(at, -(n as f64));
                let within = f.less_equal(first, j);
                seen = f.and(seen, within);
            }
        }
        mir.map(f.finish(seen), &operands)
    }
}

/// Shares, but zeros for the rows whose bias hides everything.
fn unhidden(mir: &mut mir::Builder, shares: mir::Value, bias: mir::Value) -> mir::Value {
    let axis = mir.ty(bias).rank() - 1;
    let largest = mir.reduce(Reduction::Max, bias, &[axis]);
    let dtype = mir.ty(shares).dtype;
    let mut e = Expr::new();
    let [share, max, zero, none] = [
        e.operand(0),
        e.operand(1),
        e.literal(dtype, 0.0),
        e.literal(dtype, f64::NEG_INFINITY),
    ];
    let hidden = e.compare(Comparison::Equal, max, none);
    let result = e.select(hidden, zero, share);
    mir.map(e.returning(result), &[shares, largest])
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn rows_that_see_nothing_are_zero() {
        let operands = ["f32[1,1,1,2]", "f32[1,1,3,2]", "f32[1,1,3,2]", "bool[1,3]=0,0,0"];
        assert_eq!(definition("Attention", &operands)[0].f64s(), [0.0, 0.0]);
    }

    #[test]
    fn misfits_are_refused() {
        refused("Attention", &["f32[1,3,4]", "f32[1,3,4]", "f32[1,3,4]"]);
        refused("Attention q_num_heads=3 kv_num_heads=3", &["f32[1,3,4]", "f32[1,3,4]", "f32[1,3,4]"]);
        refused("Attention", &["f32[1,3,4,2]", "f32[1,2,4,2]", "f32[1,2,4,2]"]);
        refused("Attention", &["f32[1,2,4,2]", "f32[1,2,4,2]", "f32[1,2,5,2]"]);
        refused("Attention", &["f32[1,2,4,2]", "f32[1,2,4,2]", "f32[1,2,4,2]", "f32[4,5]"]);
        refused("Attention qk_matmul_output_mode=4", &["f32[1,2,4,2]", "f32[1,2,4,2]", "f32[1,2,4,2]"]);
    }
}
