//! Attention with a cache of keys and values, as decoders of onnxruntime have it.

use super::attention::Attention;
use super::formula::Formula;
use super::rotary::RotaryEmbedding;
use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};

/// [`Attention`] of new positions to these and to those before them (`docs/ContribOperators.md` of onnxruntime).
///
/// Operands: Q `[batch, length, heads * size]`, K and V likewise with `kv_num_heads` (or all three one behind the other
/// in Q), the past keys and values `[batch, kv heads, past, size]`, `seqlens_k` (i32, one for each row of the batch: how
/// many positions there are with the new ones, less one), how many there are at most (i32), the tables of
/// [`RotaryEmbedding`] and its position ids, and what is added to the scores.
///
/// New positions begin at `max(seqlens_k + 1 - length, 0)`, or before that if the cache ends too soon; there K and V become part of the cache, which is the second
/// and the third result. It has as many positions as the past, or as many as there are at most if these are known and
/// more. With `do_rotary`, Q and K are turned by their positions before. Each query sees the keys up to its own
/// position, the last `local_window_size` of them at most.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupQueryAttention {
    heads: usize,
    kv_heads: usize,
    scale: Option<f64>,
    softcap: f64,
    window: Option<i64>,
    rotary: bool,
    interleaved: bool,
}

/// Extents.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    length: usize,
    size: usize,
    past: usize,
    present: usize,
}

const KEYS: usize = 1;
const VALUES: usize = 2;
const PAST_KEYS: usize = 3;
const PAST_VALUES: usize = 4;
const LENGTHS: usize = 5;
const MOST: usize = 6;
const COS: usize = 7;
const SIN: usize = 8;
const POSITIONS: usize = 9;
const BIAS: usize = 10;

impl GroupQueryAttention {
    /// The extents, from the types of Q, of the past, and of what is known of the positions there are at most.
    fn sizes(&self, q: &Type, packed: bool, past: usize, most: usize) -> Result<Sizes, ErrorKind> {
        let all = if packed { self.heads + 2 * self.kv_heads } else { self.heads };
        match q.dims[..] {
            [batch, length, width] if width % all == 0 => {
                Ok(Sizes { batch, length, size: width / all, past, present: past.max(most).max(length) })
            }
            _ => Err(ErrorKind::wrong(format!("operand 0 is {q}"))
                .help(format!("it must have rank 3, and {all} heads in its last extent"))),
        }
    }

    /// The attention of all new positions to the cache, in which heads come before positions.
    fn attention(&self) -> Attention {
        Attention {
            causal: true,
            q_heads: None,
            kv_heads: None,
            scale: self.scale,
            softcap: self.softcap,
            output: 0,
            precision: None,
            windows: [self.window, None],
        }
    }

    fn rotation(&self, table: &Type) -> RotaryEmbedding {
        let rotated = 2 * table.dims.last().copied().unwrap_or(0);
        RotaryEmbedding { heads: 0, rotated, interleaved: self.interleaved }
    }

    /// The first head of Q, K and V in what they lie in.
    fn first_heads(&self, packed: bool) -> [usize; 3] {
        if packed { [0, self.heads, self.heads + self.kv_heads] } else { [0; 3] }
    }

    fn counts(&self) -> [usize; 3] {
        [self.heads, self.kv_heads, self.kv_heads]
    }

    fn types(&self, s: Sizes, dtype: DType) -> Result<[Type; 4], ErrorKind> {
        let present = tools::sized(dtype, [s.batch, self.kv_heads, s.present, s.size])?;
        let q = tools::sized(dtype, [s.batch, self.heads, s.length, s.size])?;
        let scores = tools::sized(dtype, [s.batch, self.heads, s.length, s.present])?;
        Ok([q, present.clone(), present, scores])
    }
}

impl Op for GroupQueryAttention {
    const NAME: &'static str = "com.microsoft:GroupQueryAttention";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let mut heads = |name: &'static str| {
            let heads = tools::required(attrs.int(name)?, name)?;
            Ok::<_, ErrorKind>(super::window::positive(name, &[heads])?[0])
        };
        let (heads, kv_heads) = (heads("num_heads")?, heads("kv_num_heads")?);
        if attrs.flag("smooth_softmax", false)? || attrs.int_or("qk_output", 0)? > 0 || attrs.is_used(3) {
            return Err(ErrorKind::unsupported("a softmax with a sink, or scores as a result"));
        }
        for name in ["k_quant_type", "v_quant_type"] {
            if attrs.text(name)?.is_some_and(|ty| ty != "NONE") {
                return Err(ErrorKind::unsupported("a cache of integers"));
            }
        }
        attrs.ignore("kv_cache_bit_width");
        let window = match attrs.int_or("local_window_size", -1)? {
            -1 => None,
            n if n > 0 => Some(n.min(1 << 40) - 1),
            n => return Err(ErrorKind::wrong(format!("attribute \"local_window_size\" is {n}"))),
        };
        let scale = attrs.float("scale")?.filter(|&scale| scale != 0.0);
        if scale.is_some_and(|scale| scale.is_nan() || scale < 0.0) {
            return Err(ErrorKind::unsupported("a negative scale"));
        }
        Ok(GroupQueryAttention {
            heads,
            kv_heads,
            scale,
            softcap: attrs.float_or("softcap", 0.0)?,
            window,
            rotary: attrs.flag("do_rotary", false)?,
            interleaved: attrs.flag("rotary_interleaved", false)?,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 14)?;
        let q = inputs.ty(0)?;
        tools::dtype_in(q, &tools::FLOATS, &tools::FLOATS)?;
        if let Some(i) = (BIAS + 1..inputs.len()).find(|&i| inputs.get(i).is_some()) {
            return Err(ErrorKind::unsupported(format!("a sink, or scales of a cache (operand {i})")));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, kv_heads) = (self.heads, self.kv_heads);
            return Err(ErrorKind::wrong(format!("{heads} heads of Q share {kv_heads} of K and V")));
        }
        let expect = |i: usize, expected: Type| match inputs.get(i) {
            Some(ty) if *ty == expected => Ok(()),
            Some(ty) => Err(ErrorKind::wrong(format!("operand {i} is {ty}")).help(format!("it must be {expected}"))),
            None => Err(ErrorKind::wrong(format!("operand {i} is left out")).help(format!("it must be {expected}"))),
        };
        let packed = inputs.get(KEYS).is_none();
        let past = inputs.get(PAST_KEYS).and_then(|ty| ty.dims.get(2)).copied().unwrap_or(0);
        let most = inputs.constant(MOST).filter(|t| t.ty().elements() == 1).map_or(0, |t| t.int_at(0));
        let s = self.sizes(q, packed, past, usize::try_from(most).unwrap_or(0))?;
        if packed != inputs.get(VALUES).is_none()
            || inputs.get(PAST_KEYS).is_none() != inputs.get(PAST_VALUES).is_none()
        {
            return Err(ErrorKind::wrong("one of keys and values is given without the other"));
        }
        if !packed {
            let kv = tools::sized(q.dtype, [s.batch, s.length, self.kv_heads.saturating_mul(s.size)])?;
            expect(KEYS, kv.clone())?;
            expect(VALUES, kv)?;
        }
        if inputs.get(PAST_KEYS).is_some() {
            let past = tools::sized(q.dtype, [s.batch, self.kv_heads, s.past, s.size])?;
            expect(PAST_KEYS, past.clone())?;
            expect(PAST_VALUES, past)?;
        }
        let lengths = inputs.ty(LENGTHS)?;
        if lengths.dtype != DType::I32 || lengths.elements() != s.batch {
            let kind = ErrorKind::wrong(format!("operand {LENGTHS} is {lengths}"));
            return Err(kind.help(format!("it must be i32[{}]", s.batch)));
        }
        let types = self.types(s, q.dtype)?;
        if self.rotary {
            let table = inputs.ty(COS)?;
            let ids = Type::new(DType::I64, [s.batch, s.length]);
            if inputs.get(POSITIONS).is_some() {
                expect(POSITIONS, ids.clone())?;
            }
            let operand = |ty| Some(super::Operand { ty, constant: None });
            let operands = [&types[0], table, inputs.ty(SIN)?, &ids].map(operand).to_vec();
            self.rotation(table).infer(&Operands::new(operands))?;
        }
        if let Some(bias) = inputs.get(BIAS) {
            let mut whole = bias.dims.clone();
            if let Some(last) = whole.last_mut().filter(|n| **n <= s.present) {
                *last = s.present;
            }
            let scores = &types[3].dims;
            let fits = crate::types::broadcast(&whole, scores).is_some_and(|dims| dims == *scores);
            if bias.rank() != 4 || bias.dtype != q.dtype || !fits {
                let kind = ErrorKind::wrong(format!("operand {BIAS} is {bias}"));
                return Err(kind.help(format!("it must broadcast to {}", types[3])));
            }
        }
        let y = tools::sized(q.dtype, [s.batch, s.length, self.heads.saturating_mul(s.size)])?;
        Ok(vec![y, types[1].clone(), types[2].clone(), types[3].clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let (Some(q), Some(lengths)) = (operand(0), operand(LENGTHS)) else { return vec![] };
        let packed = operand(KEYS).is_none();
        let past = operand(PAST_KEYS).map_or(0, |t| t.dims()[2]);
        let present = outputs[1].dims[2];
        let Ok(s) = self.sizes(q.ty(), packed, past, present) else { return vec![] };
        let Ok(types) = self.types(s, q.ty().dtype) else { return vec![] };
        let (length, last) = (s.length as i64, (s.present - s.length) as i64);
        let first: Vec<i64> = lengths.ints().into_iter().map(|n| (n + 1 - length).clamp(0, last)).collect();
        let positions = first.iter().flat_map(|&first| (0..length).map(move |i| first + i));
        let ids = Type::new(DType::I64, [s.batch, s.length]);
        let own = Tensor::from_ints(ids, positions.collect::<Vec<_>>());
        let ids = operand(POSITIONS).unwrap_or(&own);
        // Q, K and V as [batch, heads, length, size].
        let (from, counts) = (self.first_heads(packed), self.counts());
        let mut parts = (0..3).map(|i| {
            let source = operand(i).unwrap_or(q);
            let (values, heads) = (source.f64s(), source.dims()[2] / s.size.max(1));
            let mut all = vec![];
            for_each_index(&[s.batch, counts[i], s.length], |at| {
                let row = (at[0] * s.length + at[2]) * heads + from[i] + at[1];
                all.extend_from_slice(&values[row * s.size..][..s.size]);
            });
            let ty = Type::new(q.ty().dtype, [s.batch, counts[i], s.length, s.size]);
            let part = Tensor::from_f64s(ty.clone(), all);
            match (operand(COS), operand(SIN)) {
                (Some(cos), Some(sin)) if self.rotary && i < 2 => {
                    let operands = [&part, cos, sin, ids].map(Some);
                    self.rotation(cos.ty()).reference(&operands, &[ty]).swap_remove(0)
                }
                _ => part,
            }
        });
        let (Some(turned), Some(k), Some(v)) = (parts.next(), parts.next(), parts.next()) else { return vec![] };
        let cache = |new: &Tensor, past: Option<&Tensor>, ty: &Type| {
            let (new, old) = (new.f64s(), past.map(Tensor::f64s));
            let mut all = vec![0.0; ty.elements()];
            for_each_index(&[s.batch, self.kv_heads], |at| {
                let head = at[0] * self.kv_heads + at[1];
                let all = &mut all[head * s.present * s.size..][..s.present * s.size];
                if let Some(old) = &old {
                    let rows = s.past * s.size;
                    all[..rows].copy_from_slice(&old[head * rows..][..rows]);
                }
                for i in 0..s.length {
                    let to = first[at[0]] as usize + i;
                    let row = &new[(head * s.length + i) * s.size..][..s.size];
                    all[to * s.size..][..s.size].copy_from_slice(row);
                }
            });
            Tensor::from_f64s(ty.clone(), all)
        };
        let k = cache(&k, operand(PAST_KEYS), &types[1]);
        let v = cache(&v, operand(PAST_VALUES), &types[2]);
        let ends = first.iter().map(|first| first + length);
        let ends = Tensor::from_ints(Type::new(DType::I64, [s.batch]), ends.collect::<Vec<_>>());
        let operands = [Some(&turned), Some(&k), Some(&v), operand(BIAS), None, None, Some(&ends)];
        let results = self.attention().reference(&operands, &types);
        let y = results[0].f64s();
        let mut out = vec![];
        for_each_index(&[s.batch, s.length, self.heads], |at| {
            let row = (at[0] * self.heads + at[2]) * s.length + at[1];
            out.extend_from_slice(&y[row * s.size..][..s.size]);
        });
        vec![Tensor::from_f64s(outputs[0].clone(), out), k, v, results[3].clone()]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let (Some(q), Some(lengths)) = (operand(0), operand(LENGTHS)) else { return vec![] };
        let packed = operand(KEYS).is_none();
        let past = operand(PAST_KEYS).map_or(0, |v| mir.dims(v)[2]);
        let Ok(s) = self.sizes(mir.ty(q), packed, past, outputs[1].dims[2]) else { return vec![] };
        let Ok(types) = self.types(s, outputs[0].dtype) else { return vec![] };
        // Where the new positions begin.
        let lengths = mir.reshape(lengths, [s.batch]);
        let lengths = mir.cast(lengths, DType::I64);
        let mut f = Formula::new(DType::I64);
        let all = f.operand(0);
        let first = f.offset(all, 1.0 - s.length as f64);
        let (none, last) = (f.lit(0.0), f.lit((s.present - s.length) as f64));
        let first = f.max(first, none);
        let first = f.min(first, last);
        let first = mir.map(f.finish(first), &[lengths]);
        // Sums of what is counted by axes of these extents, times so much.
        let mut counted = |dims: &[usize], count: usize, times: usize| {
            let ty = Type::new(DType::I64, dims);
            mir.constant(Tensor::from_ints(ty, (0..count).map(|i| (i * times) as i64)))
        };
        let rows = counted(&[1, s.length], s.length, 1);
        let heads = counted(&[s.batch, self.kv_heads, 1], s.batch * self.kv_heads, s.present);
        let column = mir.reshape(first, [s.batch, 1]);
        let positions = mir.binary(mir::Binary::Add, column, rows);
        let ids = operand(POSITIONS).unwrap_or(positions);
        let (from, counts) = (self.first_heads(packed), self.counts());
        let parts = [0, 1, 2].map(|i| {
            let source = operand(i).unwrap_or(q);
            let heads = mir.dims(source)[2] / s.size.max(1);
            let x = mir.reshape(source, [s.batch, s.length, heads, s.size]);
            let x = mir.narrow(x, 2, from[i], counts[i]);
            let x = mir.permute(x, &[0, 2, 1, 3]);
            match (operand(COS), operand(SIN)) {
                (Some(cos), Some(sin)) if self.rotary && i < 2 => {
                    let (rotation, ty) = (self.rotation(mir.ty(cos)), mir.ty(x).clone());
                    rotation.expand(mir, &[x, cos, sin, ids].map(Some), &[ty])[0]
                }
                _ => x,
            }
        });
        // The cache is a table of rows, in which some are replaced.
        let at = mir.reshape(positions, [s.batch, 1, s.length]);
        let at = mir.binary(mir::Binary::Add, heads, at);
        let new = s.batch * self.kv_heads * s.length;
        let at = mir.reshape(at, [new]);
        let mut cache = |new_rows: mir::Value, past: Option<mir::Value>| {
            if s.past == 0 && s.present == s.length {
                return new_rows;
            }
            let past = match past {
                Some(past) => mir.pad(past, &[0; 4], &[0, 0, s.present - s.past, 0], 0.0),
                None => mir.constant(Tensor::zeros(types[1].clone())),
            };
            let table = mir.reshape(past, [s.batch * self.kv_heads * s.present, s.size]);
            let rows = mir.reshape(new_rows, [new, s.size]);
            let table = mir.scatter(None, table, at, rows);
            mir.reshape(table, [s.batch, self.kv_heads, s.present, s.size])
        };
        let (k, v) = (cache(parts[1], operand(PAST_KEYS)), cache(parts[2], operand(PAST_VALUES)));
        let ends = mir.binary_scalar(mir::Binary::Add, first, s.length as f64);
        let operands = [Some(parts[0]), Some(k), Some(v), operand(BIAS), None, None, Some(ends)];
        let results = self.attention().expand(mir, &operands, &types);
        let y = mir.permute(results[0], &[0, 2, 1, 3]);
        vec![mir.reshape(y, outputs[0].dims.clone()), k, v, results[3]]
    }
}
