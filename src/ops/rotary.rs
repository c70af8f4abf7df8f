//! Rotary position embedding.

use super::{Attrs, Op, Operands, Tolerance, rlx, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// Of each head's first `rotary_embedding_dim` elements (all, if it is 0), pairs are turned: `(a, b)` to
/// `(a cos - b sin, a sin + b cos)`. A pair is an element of the first half and its fellow of the second, or
/// two neighbours if `interleaved`. X is `[batch, heads, positions, size]`, or `[batch, positions, heads *
/// size]` with `num_heads`. The tables cos and sin are `[positions.., n / 2]`, looked up by position ids
/// `[batch, positions]` (out of range: the nearest row), or `[batch, positions, n / 2]` without them.
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryEmbedding {
    pub(super) heads: usize,
    pub(super) rotated: usize,
    pub(super) interleaved: bool,
}

/// Extents of X.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    positions: usize,
    size: usize,
    rotated: usize,
    heads_first: bool,
}

impl RotaryEmbedding {
    fn sizes(&self, x: &Type) -> Result<Sizes, ErrorKind> {
        let (batch, heads, positions, size) = match x.dims[..] {
            [batch, heads, positions, size] => (batch, heads, positions, size),
            [batch, positions, width] if self.heads > 0 && width % self.heads == 0 => {
                (batch, self.heads, positions, width / self.heads)
            }
            [_, _, width] => {
                let heads = self.heads;
                return Err(ErrorKind::wrong(format!("{width} elements in {heads} heads"))
                    .help("attribute \"num_heads\" must divide them"));
            }
            _ => return Err(ErrorKind::wrong(format!("X is {x}")).help("it must have rank 3 or 4")),
        };
        let rotated = if self.rotated == 0 { size } else { self.rotated };
        if rotated > size || rotated % 2 != 0 {
            return Err(ErrorKind::wrong(format!("{rotated} of the {size} elements of a head are turned"))
                .help("it must be an even number of them"));
        }
        Ok(Sizes { batch, heads, positions, size, rotated, heads_first: x.rank() == 4 })
    }
}

impl Op for RotaryEmbedding {
    const NAME: &'static str = "RotaryEmbedding";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-6);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let mut size = |name: &'static str| -> Result<usize, ErrorKind> {
            Ok(super::window::bounded(name, 0, &[attrs.int_or(name, 0)?])?[0])
        };
        let (heads, rotated) = (size("num_heads")?, size("rotary_embedding_dim")?);
        Ok(RotaryEmbedding { heads, rotated, interleaved: attrs.flag("interleaved", false)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 4)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        let s = self.sizes(x)?;
        if let Some(ids) = inputs.get(3)
            && *ids != Type::new(DType::I64, [s.batch, s.positions])
        {
            let kind = ErrorKind::wrong(format!("the position ids are {ids}"));
            return Err(kind.help(format!("they must be i64[{}, {}]", s.batch, s.positions)));
        }
        for i in 1..3 {
            let table = inputs.ty(i)?;
            let fits = match (&table.dims[..], inputs.get(3)) {
                (&[rows, n], Some(_)) => n == s.rotated / 2 && (rows > 0 || s.batch * s.positions == 0),
                (dims, None) => dims == [s.batch, s.positions, s.rotated / 2],
                _ => false,
            };
            if !fits || table.dtype != x.dtype {
                let kind = ErrorKind::wrong(format!("operand {i} is {table}"));
                let (dtype, n) = (x.dtype, s.rotated / 2);
                return Err(match inputs.get(3) {
                    Some(_) => kind.help(format!("it must be {dtype}[positions, {n}]")),
                    None => kind.help(format!("it must be {dtype}[{}, {}, {n}]", s.batch, s.positions)),
                });
            }
        }
        let (cos, sin) = (inputs.ty(1)?, inputs.ty(2)?);
        if cos != sin {
            let kind = ErrorKind::wrong(format!("the tables are {cos} and {sin}"));
            return Err(kind.help("they must have as many rows"));
        }
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(cos), Some(sin), ..] = inputs else { return vec![] };
        let Ok(s) = self.sizes(x.ty()) else { return vec![] };
        let ids = inputs.get(3).copied().flatten().map(Tensor::ints);
        let rows = cos.dims()[0] as i64;
        let half = s.rotated / 2;
        let (cos, sin) = (cos.f64s(), sin.f64s());
        let mut values = x.f64s();
        for (i, head) in values.chunks_exact_mut(s.size.max(1)).enumerate() {
            let (batch, position) = match s.heads_first {
                true => (i / (s.heads * s.positions), i % s.positions),
                false => (i / (s.heads * s.positions), i / s.heads % s.positions),
            };
            let at = batch * s.positions + position;
            let row = match &ids {
                Some(ids) if ids[at] < 0 => (ids[at] + rows).max(0) as usize,
                Some(ids) => ids[at].min(rows - 1) as usize,
                None => at,
            };
            for k in 0..half {
                let (a, b) = if self.interleaved { (2 * k, 2 * k + 1) } else { (k, k + half) };
                let (c, s) = (cos[row * half + k], sin[row * half + k]);
                (head[a], head[b]) = (head[a] * c - head[b] * s, head[a] * s + head[b] * c);
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), values)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let [Some(x), Some(cos), Some(sin), ..] = *inputs else { return vec![] };
        let Ok(s) = self.sizes(&outputs[0]) else { return vec![] };
        let ids = inputs.get(3).copied().flatten();
        let half = s.rotated / 2;
        let between = match s.heads_first {
            true => [s.batch, 1, s.positions, half],
            false => [s.batch, s.positions, 1, half],
        };
        let [cos, sin] = [cos, sin].map(|table| {
            let table = ids.map_or(table, |ids| mir.gather(table, ids, 0));
            mir.reshape(table, between)
        });
        let split = match s.heads_first {
            true => [s.batch, s.heads, s.positions, s.size],
            false => [s.batch, s.positions, s.heads, s.size],
        };
        let x = mir.reshape(x, split);
        let y = rlx::rotate(mir, x, cos, sin, s.rotated, self.interleaved);
        vec![mir.reshape(y, outputs[0].dims.clone())]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::refused;

    #[test]
    fn misfits_are_refused() {
        refused("RotaryEmbedding", &["f32[2,3,8]", "f32[5,2]", "f32[5,2]", "i64[2,3]"]);
        refused("RotaryEmbedding num_heads=2", &["f32[2,3,8]", "f32[5,3]", "f32[5,2]", "i64[2,3]"]);
        refused("RotaryEmbedding num_heads=2", &["f32[2,3,8]", "f32[5,2]", "f32[5,2]"]);
        refused("RotaryEmbedding", &["f32[2,2,3,4]", "f32[5,2]", "f32[4,2]", "i64[2,3]"]);
        refused("RotaryEmbedding rotary_embedding_dim=3", &["f32[2,2,3,4]", "f32[2,3,1]", "f32[2,3,1]"]);
    }
}
