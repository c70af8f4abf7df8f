//! RLX's attention and rotary embedding.

use super::super::softmax;
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Unary};
use crate::ops::formula::Formula;
use crate::ops::{Attrs, Op, Operands, Tolerance, matmul, tools};
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};

/// What a masked score is.
const MASKED: f64 = -1e9;

/// Scaled dot-product attention of Q, K, V and, for the masks `Custom` and `Bias`, a mask. Rank 3 is `[B, S,
/// heads * head_dim]`; rank 4 `[B, heads, S, head_dim]` where Q's axis 1 has as many elements as there are
/// heads, else `[B, S, heads, head_dim]`. K and V may have fewer heads, each for as many successive heads of
/// Q; V's may be of another size.
///
/// `softmax(mask(cap(scale * Q K'))) V`. Scale is `head_dim^-0.5` unless it is given, the cap `c * tanh(s /
/// c)`. `Causal` lets query `i` see the keys up to `i + Sk - Sq`, `SlidingWindow` only the last `window` before
/// it and its own, `Custom` (`[B, Sk]`) the keys whose mask is at least 0.5; the score of what is not seen is
/// -1e9, so that a row that sees nothing is a mean. `Bias` is added to the scores.
#[derive(Clone, Debug, PartialEq)]
pub struct RlxAttention {
    heads: usize,
    head_dim: usize,
    v_head_dim: usize,
    mask: Mask,
    scale: f64,
    softcap: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mask {
    None,
    Causal,
    SlidingWindow(usize),
    Custom,
    Bias,
}

impl Mask {
    /// Whether key `j` is seen from the query at position `at` of the keys.
    fn sees(self, at: i64, j: usize) -> bool {
        let before = at - j as i64;
        match self {
            Mask::Causal => before >= 0,
            Mask::SlidingWindow(window) => before >= 0 && before <= window as i64,
            Mask::None | Mask::Custom | Mask::Bias => true,
        }
    }
}

/// How an operand `[B, S, H * D]`, `[B, S, H, D]` or `[B, H, S, D]` lies.
#[derive(Clone, Copy)]
struct Heads {
    batch: usize,
    heads: usize,
    length: usize,
    size: usize,
    heads_first: bool,
}

impl Heads {
    fn at(&self, b: usize, h: usize, i: usize) -> usize {
        let row = match self.heads_first {
            true => (b * self.heads + h) * self.length + i,
            false => (b * self.length + i) * self.heads + h,
        };
        row * self.size
    }

    /// The operand as `[B, H, S, D]`.
    fn split(&self, mir: &mut mir::Builder, v: mir::Value) -> mir::Value {
        if self.heads_first {
            return v;
        }
        let v = mir.reshape(v, [self.batch, self.length, self.heads, self.size]);
        mir.permute(v, &[0, 2, 1, 3])
    }
}

impl RlxAttention {
    fn heads_first(&self, q: &Type) -> bool {
        q.rank() == 4 && q.dims[1] == self.heads
    }

    fn layout(&self, ty: &Type, heads_first: bool, size: usize) -> Option<Heads> {
        let [batch, a, b] = [0, 1, 2].map(|i| ty.dims.get(i).copied().unwrap_or(0));
        let (heads, length, fits) = match (ty.rank(), heads_first) {
            (3, _) => (b / size, a, b % size == 0),
            (4, true) => (a, b, ty.dims[3] == size),
            (4, false) => (b, a, ty.dims[3] == size),
            _ => return None,
        };
        (fits && heads > 0).then_some(Heads { batch, heads, length, size, heads_first })
    }

    /// Q, K and V.
    fn layouts(&self, types: [&Type; 3]) -> Result<[Heads; 3], ErrorKind> {
        let first = self.heads_first(types[0]);
        let sizes = [self.head_dim, self.head_dim, self.v_head_dim];
        let mut found = vec![];
        for i in 0..3 {
            let heads = self.layout(types[i], first, sizes[i]).filter(|_| types[i].rank() == types[0].rank());
            found.push(heads.ok_or_else(|| {
                let kind = ErrorKind::wrong(format!("operand {i} is {}", types[i]));
                kind.help(format!("it has no heads of {} elements", sizes[i]))
            })?);
        }
        let [q, k, v] = [found[0], found[1], found[2]];
        if q.heads != self.heads || !self.heads.is_multiple_of(k.heads) || v.heads != k.heads {
            return Err(ErrorKind::wrong(format!(
                "there are {} heads of Q, {} of K and {} of V, and {} are declared",
                q.heads, k.heads, v.heads, self.heads
            )));
        }
        if k.length != v.length || q.batch != k.batch || q.batch != v.batch {
            return Err(ErrorKind::wrong(format!(
                "operands do not fit: {}, {} and {}",
                types[0], types[1], types[2]
            )));
        }
        Ok([q, k, v])
    }
}

impl Op for RlxAttention {
    const NAME: &'static str = "rlx:Attention";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let head_dim = positive(attrs, "head_dim")?;
        let names = ["None", "Causal", "SlidingWindow", "Custom", "Bias"];
        let mask = match attrs.choice("mask", &names)? {
            0 => Mask::None,
            1 => Mask::Causal,
            2 => {
                let window = attrs.int_or("window", 0)?;
                Mask::SlidingWindow(crate::ops::window::bounded("window", 0, &[window])?[0])
            }
            3 => Mask::Custom,
            _ => Mask::Bias,
        };
        let v_head_dim = match attrs.has("v_head_dim") {
            true => positive(attrs, "v_head_dim")?,
            false => head_dim,
        };
        Ok(RlxAttention {
            heads: positive(attrs, "num_heads")?,
            head_dim,
            v_head_dim,
            mask,
            scale: attrs.float_or("scale", 1.0 / (head_dim as f64).sqrt())?,
            softcap: attrs.float("softcap")?,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let masked = matches!(self.mask, Mask::Custom | Mask::Bias);
        inputs.arity(3 + usize::from(masked), 3 + usize::from(masked))?;
        let types = [inputs.ty(0)?, inputs.ty(1)?, inputs.ty(2)?];
        tools::dtype_in(types[0], &tools::FLOATS, &tools::FLOATS)?;
        if let Some(other) = types.iter().find(|t| t.dtype != types[0].dtype) {
            return Err(ErrorKind::wrong(format!(
                "element types differ: {} and {}",
                types[0].dtype, other.dtype
            )));
        }
        let [q, k, _] = self.layouts(types)?;
        let scores = tools::sized(types[0].dtype, [q.batch, q.heads, q.length, k.length])?;
        if masked {
            let mask = inputs.ty(3)?;
            let fits = match self.mask {
                Mask::Custom => mask.dims == [q.batch, k.length],
                _ => {
                    mask.dtype == scores.dtype
                        && crate::types::broadcast(&mask.dims, &scores.dims).is_some_and(|d| d == scores.dims)
                }
            };
            if !fits || !mask.dtype.is_float() {
                let kind = ErrorKind::wrong(format!("the mask is {mask}"));
                return Err(match self.mask {
                    Mask::Custom => kind.help(format!("it must be f32[{}, {}]", q.batch, k.length)),
                    _ => kind.help(format!("it must broadcast to {scores}")),
                });
            }
        }
        let mut dims = types[0].dims.clone();
        if let Some(last) = dims.last_mut() {
            *last = (*last / self.head_dim).saturating_mul(self.v_head_dim);
        }
        Ok(vec![tools::sized(types[0].dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(tq), Some(tk), Some(tv), ..] = inputs else { return vec![] };
        let Ok([q, k, v]) = self.layouts([tq.ty(), tk.ty(), tv.ty()]) else { return vec![] };
        let (xq, xk, xv) = (tq.f64s(), tk.f64s(), tv.f64s());
        let scores_dims = [q.batch, q.heads, q.length, k.length];
        let mask = inputs.get(3).copied().flatten();
        let values = mask.map(Tensor::f64s);
        let y_layout = Heads { size: v.size, ..q };
        let mut y = vec![0.0; outputs[0].elements()];
        let mut scores = vec![0.0; k.length];
        for_each_index(&scores_dims[..3], |index| {
            let [b, h, i] = [index[0], index[1], index[2]];
            let own = h / (q.heads / k.heads);
            let query = &xq[q.at(b, h, i)..][..q.size];
            let at = (i + k.length) as i64 - q.length as i64;
            for (j, score) in scores.iter_mut().enumerate() {
                let key = &xk[k.at(b, own, j)..][..k.size];
                let mut s = query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() * self.scale;
                if let Some(cap) = self.softcap {
                    s = cap * (s / cap).tanh();
                }
                *score = match (self.mask, &values, mask) {
                    (Mask::Custom, Some(m), _) if m[b * k.length + j] < 0.5 => MASKED,
                    (Mask::Bias, Some(m), Some(t)) => {
                        s + m[tools::broadcast_index(&[b, h, i, j][4 - t.ty().rank()..], t.dims())]
                    }
                    _ if !self.mask.sees(at, j) => MASKED,
                    _ => s,
                };
            }
            let max = scores.iter().fold(f64::NEG_INFINITY, |a, &b| if b.is_nan() || b > a { b } else { a });
            scores.iter_mut().for_each(|s| *s = (*s - max).exp());
            let sum: f64 = scores.iter().sum();
            let result = &mut y[y_layout.at(b, h, i)..][..v.size];
            for (j, score) in scores.iter().enumerate() {
                let value = &xv[v.at(b, own, j)..][..v.size];
                result.iter_mut().zip(value).for_each(|(r, v)| *r += score / sum * v);
            }
        });
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(vq), Some(vk), Some(vv), ..] = *inputs else { return vec![] };
        let types = [vq, vk, vv].map(|v| mir.ty(v).clone());
        let Ok([q, k, v]) = self.layouts([&types[0], &types[1], &types[2]]) else { return vec![] };
        let dtype = types[0].dtype;
        // The heads of Q that share one of K and V are rows of one product.
        let group = q.heads / k.heads;
        let (vq, vk, vv) = (q.split(mir, vq), k.split(mir, vk), v.split(mir, vv));
        let vq = mir.reshape(vq, [q.batch, k.heads, group * q.length, q.size]);
        let turned = mir.permute(vk, &[0, 1, 3, 2]);
        let scores = mir.contract(vq, turned);
        let mut f = Formula::new(dtype);
        let mut score = f.operand(0);
        score = f.scale(score, self.scale);
        if let Some(cap) = self.softcap {
            let scaled = f.scale(score, 1.0 / cap);
            let tanh = f.unary(Unary::Tanh, scaled);
            score = f.scale(tanh, cap);
        }
        let mut operands = vec![mir.reshape(scores, [q.batch, q.heads, q.length, k.length])];
        match (self.mask, inputs.get(3).copied().flatten()) {
            (Mask::Custom, Some(mask)) => {
                let mask = mir.reshape(mask, [q.batch, 1, 1, k.length]);
                operands.push(mir.cast(mask, dtype));
                let (value, half, masked) = (f.operand(1), f.lit(0.5), f.lit(MASKED));
                let hidden = f.less(value, half);
                score = f.select(hidden, masked, score);
            }
            (Mask::Bias, Some(bias)) => {
                operands.push(bias);
                let bias = f.operand(1);
                score = f.add(score, bias);
            }
            (Mask::Causal | Mask::SlidingWindow(_), _) => {
                let shift = k.length as i64 - q.length as i64;
                let seen = (0..q.length)
                    .flat_map(|i| (0..k.length).map(move |j| self.mask.sees(i as i64 + shift, j)));
                let ty = Type::new(DType::Bool, [q.length, k.length]);
                let seen = Tensor::from_ints(ty, seen.map(i64::from).collect::<Vec<_>>());
                operands.push(mir.constant(seen));
                let (seen, masked) = (f.operand(1), f.lit(MASKED));
                score = f.select(seen, score, masked);
            }
            _ => {}
        }
        let scores = mir.map(f.finish(score), &operands);
        let shares = softmax::softmax(mir, scores, 3);
        let shares = mir.reshape(shares, [q.batch, k.heads, group * q.length, k.length]);
        let y = mir.contract(shares, vv);
        let y = mir.reshape(y, [q.batch, q.heads, q.length, v.size]);
        let y = if q.heads_first { y } else { mir.permute(y, &[0, 2, 1, 3]) };
        vec![mir.reshape(y, outputs[0].dims.clone())]
    }
}

fn positive(attrs: &mut Attrs, name: &'static str) -> Result<usize, ErrorKind> {
    let value = attrs
        .int(name)?
        .ok_or_else(|| ErrorKind::wrong(format!("attribute \"{name}\" is missing")))?;
    Ok(crate::ops::window::positive(name, &[value])?[0])
}

/// Rotary embedding of x `[B, S, heads * head_dim]` (or `[.., S, heads, head_dim]`) by tables cos and sin `[S,
/// n_rot / 2]` (or more rows): of each head's first `n_rot` elements, pairs are turned, `(a, b)` to `(a cos -
/// b sin, b cos + a sin)`. `NeoX` pairs elements `i` and `i + n_rot / 2`, `GptJ` `2 i` and `2 i + 1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    head_dim: usize,
    rotated: usize,
    adjacent: bool,
}

impl Rope {
    /// Batch, positions, heads.
    fn sizes(&self, x: &[usize]) -> [usize; 3] {
        match *x {
            [b, s, width] => [b, s, width / self.head_dim],
            [b, s, h, _] => [b, s, h],
            [s, width] => [1, s, width / self.head_dim],
            _ => [0, 0, 0],
        }
    }
}

impl Op for Rope {
    const NAME: &'static str = "rlx:Rope";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let head_dim = positive(attrs, "head_dim")?;
        let rotated = match attrs.has("n_rot") {
            true => positive(attrs, "n_rot")?,
            false => head_dim,
        };
        if rotated % 2 != 0 || rotated > head_dim {
            let kind = ErrorKind::wrong(format!("attribute \"n_rot\" is {rotated}"));
            return Err(kind.help(format!("it must be even and at most {head_dim}")));
        }
        Ok(Rope { head_dim, rotated, adjacent: attrs.choice("style", &["NeoX", "GptJ"])? == 1 })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 3)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        let last = x.dims.last().copied().unwrap_or(0);
        let fits = match x.rank() {
            2 | 3 => last % self.head_dim == 0,
            4 => last == self.head_dim,
            _ => false,
        };
        if !fits {
            let kind = ErrorKind::wrong(format!("operand 0 is {x}"));
            return Err(kind.help(format!("it must be [B, S, heads * {}]", self.head_dim)));
        }
        let [_, positions, _] = self.sizes(&x.dims);
        for i in 1..3 {
            let table = inputs.ty(i)?;
            let fits = matches!(table.dims[..], [rows, n] if rows >= positions && n == self.rotated / 2);
            if !fits || table.dtype != x.dtype {
                let kind = ErrorKind::wrong(format!("operand {i} is {table}"));
                return Err(kind.help(format!("it must be {}[{positions}, {}]", x.dtype, self.rotated / 2)));
            }
        }
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(cos), Some(sin)] = inputs else { return vec![] };
        let [_, positions, heads] = self.sizes(x.dims());
        let (cos, sin) = (cos.f64s(), sin.f64s());
        let half = self.rotated / 2;
        let mut values = x.f64s();
        for (row, head) in values.chunks_exact_mut(self.head_dim).enumerate() {
            let position = row / heads % positions;
            for i in 0..half {
                let (a, b) = if self.adjacent { (2 * i, 2 * i + 1) } else { (i, i + half) };
                let (c, s) = (cos[position * half + i], sin[position * half + i]);
                (head[a], head[b]) = (head[a] * c - head[b] * s, head[b] * c + head[a] * s);
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), values)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let [Some(x), Some(cos), Some(sin)] = *inputs else { return vec![] };
        let dims = mir.dims(x);
        let [batch, positions, heads] = self.sizes(&dims);
        let half = self.rotated / 2;
        let [cos, sin] = [cos, sin].map(|table| {
            let table = mir.narrow(table, 0, 0, positions);
            mir.reshape(table, [1, positions, 1, half])
        });
        let x = mir.reshape(x, [batch, positions, heads, self.head_dim]);
        let y = rotate(mir, x, cos, sin, self.rotated, self.adjacent);
        vec![mir.reshape(y, dims)]
    }
}

/// The first `rotated` elements of the last axis of x `[a, b, c, d]` turned in pairs by tables that broadcast
/// to `[a, b, c, rotated / 2]`.
pub(in crate::ops) fn rotate(
    mir: &mut mir::Builder,
    x: mir::Value,
    cos: mir::Value,
    sin: mir::Value,
    rotated: usize,
    adjacent: bool,
) -> mir::Value {
    let dims = mir.dims(x);
    let (outer, size, half) = ([dims[0], dims[1], dims[2]], dims[3], rotated / 2);
    let turned = mir.narrow(x, 3, 0, rotated);
    let [a, b] = if adjacent {
        let pairs = mir.reshape(turned, [outer[0], outer[1], outer[2], half, 2]);
        [0, 1].map(|i| {
            let own = mir.narrow(pairs, 4, i, 1);
            mir.reshape(own, [outer[0], outer[1], outer[2], half])
        })
    } else {
        [0, half].map(|start| mir.narrow(turned, 3, start, half))
    };
    let dtype = mir.ty(x).dtype;
    let mut combined = |a: mir::Value, b: mir::Value, op: Binary| {
        let mut f = Formula::new(dtype);
        let [a_, b_, c, s] = [0, 1, 2, 3].map(|i| f.operand(i));
        let (kept, other) = (f.mul(a_, c), f.mul(b_, s));
        let result = if op == Binary::Sub { f.sub(kept, other) } else { f.add(kept, other) };
        mir.map(f.finish(result), &[a, b, cos, sin])
    };
    let (low, high) = (combined(a, b, Binary::Sub), combined(b, a, Binary::Add));
    let turned = if adjacent {
        let [low, high] =
            [low, high].map(|v| mir.reshape(v, [outer[0], outer[1], outer[2], half, 1]));
        let pairs = mir.concat(&[low, high], 4);
        mir.reshape(pairs, [outer[0], outer[1], outer[2], rotated])
    } else {
        mir.concat(&[low, high], 3)
    };
    if rotated == size {
        return turned;
    }
    let rest = mir.narrow(x, 3, rotated, size - rotated);
    mir.concat(&[turned, rest], 3)
}

/// Operands hidden, qkv weights, out weights, mask, qkv bias and out bias if `has_bias`, cos and sin if
/// `has_rope`: Q, K and V are the thirds of `hidden @ qkv weights + qkv bias`, Q and K rotated (`NeoX`), and
/// the result is their attention under the mask (`Custom`) `@ out weights + out bias`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionBlock {
    attention: RlxAttention,
    rope: Option<Rope>,
    bias: bool,
}

impl AttentionBlock {
    /// Types of Q (and K and V), and of the mask.
    fn part(&self, hidden: &Type) -> Type {
        let width = self.attention.heads * self.attention.head_dim;
        hidden.with_dims([hidden.dims[0], hidden.dims[1], width])
    }

    /// Numbers of the operands cos and sin.
    fn tables(&self) -> [usize; 2] {
        if self.bias { [6, 7] } else { [4, 5] }
    }
}

impl Op for AttentionBlock {
    const NAME: &'static str = "rlx:AttentionBlock";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let (heads, head_dim) = (positive(attrs, "num_heads")?, positive(attrs, "head_dim")?);
        heads
            .checked_mul(head_dim)
            .filter(|&n| n < 1 << 40)
            .ok_or_else(|| ErrorKind::limit("the heads are too large"))?;
        let rope = Rope { head_dim, rotated: head_dim, adjacent: false };
        let rope = attrs.flag("has_rope", false)?.then_some(rope);
        if rope.is_some() && head_dim % 2 != 0 {
            return Err(ErrorKind::wrong(format!("rotation of heads of {head_dim} elements")));
        }
        let attention = RlxAttention {
            heads,
            head_dim,
            v_head_dim: head_dim,
            mask: Mask::Custom,
            scale: 1.0 / (head_dim as f64).sqrt(),
            softcap: None,
        };
        Ok(AttentionBlock { attention, rope, bias: attrs.flag("has_bias", false)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let count = 4 + 2 * usize::from(self.bias) + 2 * usize::from(self.rope.is_some());
        inputs.arity(count, count)?;
        let hidden = inputs.ty(0)?;
        tools::dtype_in(hidden, &tools::FLOATS, &tools::FLOATS)?;
        let [batch, length, width] = hidden.dims[..] else {
            return Err(ErrorKind::wrong(format!("operand 0 is {hidden}")).help("it must be [B, S, width]"));
        };
        let part = self.part(hidden);
        let inner = part.dims[2];
        let out = inputs.ty(2)?.dims.get(1).copied().unwrap_or(0);
        let mut expected = vec![
            (1, vec![width, 3 * inner]),
            (2, vec![inner, out]),
            (3, vec![batch, length]),
        ];
        if self.bias {
            expected.extend([(4, vec![3 * inner]), (5, vec![out])]);
        }
        for (i, dims) in expected {
            let expected = tools::sized(hidden.dtype, dims)?;
            if *inputs.ty(i)? != expected {
                let kind = ErrorKind::wrong(format!("operand {i} is {}", inputs.ty(i)?));
                return Err(kind.help(format!("it must be {expected}")));
            }
        }
        if let Some(rope) = &self.rope {
            let tables = self.tables().map(|i| inputs.0.get(i).copied().flatten());
            let part = crate::ops::Operand { ty: &part, constant: None };
            rope.infer(&Operands::new(vec![Some(part), tables[0], tables[1]]))?;
        }
        tools::sized(hidden.dtype, [batch, self.attention.heads, length, length])?;
        Ok(vec![tools::sized(hidden.dtype, [batch, length, out])?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(hidden), Some(qkv), Some(out), Some(mask), ..] = inputs else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let part = self.part(hidden.ty()).with_dtype(DType::F64);
        let inner = part.dims[2];
        let with_bias = |sums: Tensor, bias: Option<&Tensor>| {
            let bias = bias.filter(|_| self.bias).map(Tensor::f64s);
            let values = sums.f64s().into_iter().enumerate();
            let add = |(i, v): (usize, f64)| bias.as_ref().map_or(v, |b| v + b[i % b.len()]);
            Tensor::from_f64s(sums.ty().clone(), values.map(add).collect::<Vec<_>>())
        };
        let all = part.with_dims([part.dims[0], part.dims[1], 3 * inner]);
        let all = with_bias(matmul::product(hidden, qkv, &all), operand(4)).f64s();
        let mut parts = [0, 1, 2].map(|i| {
            let rows = all.chunks_exact(3 * inner).flat_map(|row| row[i * inner..][..inner].to_vec());
            Tensor::from_f64s(part.clone(), rows.collect::<Vec<_>>())
        });
        if let Some(rope) = &self.rope {
            let [cos, sin] = self.tables().map(operand);
            for x in &mut parts[..2] {
                if let Some(turned) = rope.reference(&[Some(x), cos, sin], std::slice::from_ref(&part)).pop() {
                    *x = turned;
                }
            }
        }
        let [q, k, v] = &parts;
        let y = self.attention.reference(&[Some(q), Some(k), Some(v), Some(mask)], std::slice::from_ref(&part));
        let Some(y) = y.first() else { return vec![] };
        let y = with_bias(matmul::product(y, out, &outputs[0].with_dtype(DType::F64)), operand(5));
        vec![Tensor::from_f64s(outputs[0].clone(), y.f64s())]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(hidden), Some(qkv), Some(out), mask, ..] = *inputs else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let part = self.part(mir.ty(hidden));
        let inner = part.dims[2];
        let mut all = mir.contract(hidden, qkv);
        if let Some(bias) = operand(4).filter(|_| self.bias) {
            all = mir.binary(Binary::Add, all, bias);
        }
        let mut parts = [0, 1, 2].map(|i| Some(mir.narrow(all, 2, i * inner, inner)));
        if let Some(rope) = &self.rope {
            let [cos, sin] = self.tables().map(operand);
            for x in &mut parts[..2] {
                *x = rope.expand(mir, &[*x, cos, sin], std::slice::from_ref(&part)).pop();
            }
        }
        let [q, k, v] = parts;
        let Some(y) = self.attention.expand(mir, &[q, k, v, mask], &[part]).pop() else { return vec![] };
        let mut y = matmul::expand_product(mir, y, out, &outputs[0]);
        if let Some(bias) = operand(5).filter(|_| self.bias) {
            y = mir.binary(Binary::Add, y, bias);
        }
        vec![y]
    }
}
