//! Elements in another order, repeated, put together or taken apart.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::{Type, strides};

/// Axis `i` of the result is axis `perm[i]` of the operand; without `perm`, in reverse order.
#[derive(Clone, Debug, PartialEq)]
pub struct Transpose {
    perm: Option<Vec<i64>>,
}

impl Transpose {
    fn perm(&self, rank: usize) -> Result<Vec<usize>, ErrorKind> {
        let Some(perm) = &self.perm else { return Ok((0..rank).rev().collect()) };
        if perm.len() != rank {
            return Err(ErrorKind::wrong(format!("perm {perm:?} for an operand of rank {rank}")));
        }
        tools::axes(perm, rank)
    }
}

impl Op for Transpose {
    const NAME: &'static str = "Transpose";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Transpose { perm: attrs.ints("perm")? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        let dims: Vec<_> = self.perm(ty.rank())?.into_iter().map(|axis| ty.dims[axis]).collect();
        Ok(vec![tools::sized(ty.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let own = x.ty().strides();
        let perm = self.perm(own.len()).unwrap_or_default();
        let strides: Vec<_> = perm.into_iter().map(|axis| own[axis]).collect();
        vec![x.strided(&outputs[0].dims[..], 0, &strides)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let perm = self.perm(mir.ty(x).rank()).unwrap_or_default();
        vec![mir.permute(x, &perm)]
    }
}

/// The operands one behind the other along `axis`. They agree in element type and all other extents.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat {
    axis: i64,
}

impl Op for Concat {
    const NAME: &'static str = "Concat";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Concat { axis: tools::required(attrs.int("axis")?, "axis")? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, usize::MAX)?;
        let types = inputs.types()?;
        let mut dims = types[0].dims.clone();
        let axis = tools::axis(self.axis, dims.len())?;
        for (i, ty) in types.iter().enumerate().skip(1) {
            let others = |dims: &[usize]| [&dims[..axis], &dims[axis + 1..]].concat();
            let fits = ty.dtype == types[0].dtype
                && ty.rank() == dims.len()
                && others(&ty.dims) == others(&dims);
            if !fits {
                let message = format!("operands 0 and {i} do not fit: {} and {ty}", types[0]);
                let help = format!("all but the extents of axis {axis} must be equal");
                return Err(ErrorKind::wrong(message).help(help));
            }
            dims[axis] = dims[axis].saturating_add(ty.dims[axis]);
        }
        Ok(vec![tools::sized(types[0].dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let ty = &outputs[0];
        let axis = tools::axis(self.axis, ty.rank()).unwrap_or(0);
        let outer: usize = ty.dims[..axis].iter().product();
        let mut data = Vec::with_capacity(ty.bytes());
        for row in 0..outer {
            for x in inputs.iter().flatten() {
                let run = x.bytes().len() / outer;
                data.extend_from_slice(&x.bytes()[row * run..][..run]);
            }
        }
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let axis = tools::axis(self.axis, outputs[0].rank()).unwrap_or(0);
        let operands: Vec<_> = inputs.iter().copied().flatten().collect();
        // Empty pieces add nothing.
        let full: Vec<_> = operands.iter().copied().filter(|&v| mir.ty(v).dims[axis] > 0).collect();
        vec![mir.concat(if full.is_empty() { &operands[..1] } else { &full }, axis)]
    }
}

/// The operand in pieces along `axis`: of sizes that are given (an attribute before operator set 13, then
/// an operand), or `num_outputs` of one size, the last one smaller where it does not come out even, or as
/// many as the node has results.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    axis: i64,
    sizes: Option<Vec<i64>>,
    pieces: usize,
    /// Whether the last piece may be smaller.
    uneven: bool,
}

impl Split {
    fn even(&self, extent: usize) -> Result<Vec<usize>, ErrorKind> {
        let n = self.pieces;
        let size = extent.div_ceil(n.max(1));
        let last = size.checked_mul(n.saturating_sub(1)).and_then(|others| extent.checked_sub(others));
        match last {
            Some(last) if n > 0 && (last == size || self.uneven) => {
                let mut sizes = vec![size; n];
                sizes[n - 1] = last;
                Ok(sizes)
            }
            _ => Err(ErrorKind::wrong(format!("an extent of {extent} is not divided into {n} pieces"))),
        }
    }
}

impl Op for Split {
    const NAME: &'static str = "Split";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let axis = attrs.int_or("axis", 0)?;
        let sizes = if attrs.opset() < 13 { attrs.ints("split")? } else { None };
        let count = if attrs.opset() < 18 { None } else { attrs.int("num_outputs")? };
        let pieces = match count {
            None => attrs.outputs(),
            Some(n) => usize::try_from(n).ok().filter(|&n| n == attrs.outputs()).ok_or_else(|| {
                let outputs = attrs.outputs();
                ErrorKind::wrong(format!("num_outputs is {n}, and the node has {outputs} outputs"))
            })?,
        };
        Ok(Split { axis, sizes, pieces, uneven: count.is_some() })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, if self.sizes.is_some() { 1 } else { 2 })?;
        let ty = inputs.ty(0)?;
        let axis = tools::axis(self.axis, ty.rank())?;
        let extent = ty.dims[axis];
        let sizes = match inputs.known(1, "the list of sizes")? {
            Some(_) if self.uneven => {
                return Err(ErrorKind::wrong("both sizes and num_outputs are given"));
            }
            Some(sizes) => Some(tools::int_list(sizes, "the list of sizes")?),
            None => self.sizes.clone(),
        };
        let sizes = match sizes {
            Some(sizes) => {
                let sizes = tools::dims(&sizes)?;
                if sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(extent) {
                    let message = format!("the sizes {sizes:?} do not add up to {extent}");
                    return Err(ErrorKind::wrong(message));
                }
                if sizes.len() != self.pieces {
                    let (n, outputs) = (sizes.len(), self.pieces);
                    let message = format!("{n} sizes, and the node has {outputs} outputs");
                    return Err(ErrorKind::wrong(message));
                }
                sizes
            }
            None => self.even(extent)?,
        };
        let piece = |size| {
            let mut dims = ty.dims.clone();
            dims[axis] = size;
            tools::sized(ty.dtype, dims)
        };
        sizes.into_iter().map(piece).collect()
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let axis = tools::axis(self.axis, x.dims().len()).unwrap_or(0);
        let strides = x.ty().strides();
        let mut start = 0;
        let pieces = outputs.iter().map(|ty| {
            let piece = x.strided(&ty.dims[..], start * strides[axis], &strides);
            start += ty.dims[axis] as i64;
            piece
        });
        pieces.collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let axis = tools::axis(self.axis, mir.ty(x).rank()).unwrap_or(0);
        let mut start = 0;
        let pieces = outputs.iter().map(|ty| {
            let count = ty.dims[axis];
            let piece = mir.narrow(x, axis, if count == 0 { 0 } else { start }, count);
            start += count;
            piece
        });
        pieces.collect()
    }
}

/// The operand repeated by NumPy's rule to its common shape with the one that the second operand gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Expand;

impl Op for Expand {
    const NAME: &'static str = "Expand";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Expand)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (ty, shape) = (inputs.ty(0)?, inputs.known(1, "the shape")?);
        let shape = shape.map_or(Ok(vec![]), |s| tools::int_list(s, "the shape"))?;
        Ok(vec![tools::sized(ty.dtype, tools::broadcast_dims(&ty.dims, &tools::dims(&shape)?)?)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        inputs[0].map(|x| tools::broadcast_to(x, &outputs[0].dims)).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        inputs[0].map(|x| mir.broadcast(x, outputs[0].dims.clone())).into_iter().collect()
    }
}

/// The operand so many times along each axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile;

impl Op for Tile {
    const NAME: &'static str = "Tile";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Tile)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (ty, repeats) = (inputs.ty(0)?, inputs.known(1, "the list of repeats")?);
        let repeats = repeats.map_or(Ok(vec![]), |r| tools::int_list(r, "the list of repeats"))?;
        if repeats.len() != ty.rank() {
            let message = format!("{} repeats for an operand of rank {}", repeats.len(), ty.rank());
            return Err(ErrorKind::wrong(message));
        }
        let repeats = tools::dims(&repeats)?;
        let dims = ty.dims.iter().zip(repeats).map(|(&d, n)| d.saturating_mul(n));
        Ok(vec![tools::sized(ty.dtype, dims.collect::<Vec<_>>())?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(repeats)] = inputs else { return vec![] };
        // Every axis as two: the repeats, which do not move, and the operand's.
        let (mut dims, mut moves) = (vec![], vec![]);
        for ((&d, n), stride) in x.dims().iter().zip(repeats.ints()).zip(x.ty().strides()) {
            dims.extend([n as usize, d]);
            moves.extend([0, stride]);
        }
        let tiled = x.strided(dims, 0, &moves);
        tiled.reshaped(outputs[0].dims.clone()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let dims = mir.dims(x);
        if outputs[0].elements() == 0 {
            let zero = mir.scalar(outputs[0].dtype, 0.0);
            return vec![mir.broadcast(zero, outputs[0].dims.clone())];
        }
        let pairs = |repeat: &dyn Fn(usize) -> usize| {
            (0..dims.len()).flat_map(|axis| [repeat(axis), dims[axis]]).collect::<Vec<_>>()
        };
        let single = mir.reshape(x, pairs(&|_| 1));
        let repeated = mir.broadcast(single, pairs(&|axis| outputs[0].dims[axis] / dims[axis]));
        vec![mir.reshape(repeated, outputs[0].dims.clone())]
    }
}

/// Which axis of the depth comes first when it is taken apart.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// Block row, block column, depth.
    BlocksFirst,
    /// Depth, block row, block column.
    DepthFirst,
}

/// The attributes of both: the block's extent and the order.
fn parse_blocks(attrs: &mut Attrs) -> Result<(usize, Order), ErrorKind> {
    let size = tools::required(attrs.int("blocksize")?, "blocksize")?;
    let order = attrs.choice("mode", &["DCR", "CRD"])?;
    // Its square must fit too.
    let size = u32::try_from(size).ok().filter(|&n| n > 0);
    let size = size.ok_or_else(|| ErrorKind::wrong("attribute \"blocksize\" is out of range"))?;
    Ok((size as usize, [Order::BlocksFirst, Order::DepthFirst][order]))
}

/// The operand's `[N, C, H, W]`.
fn image(inputs: &Operands<'_>) -> Result<[usize; 4], ErrorKind> {
    inputs.arity(1, 1)?;
    let ty = inputs.ty(0)?;
    let dims = <[usize; 4]>::try_from(ty.dims.clone());
    dims.map_err(|_| ErrorKind::wrong(format!("the operand is {ty}")).help("it must be [N, C, H, W]"))
}

/// `[N, C, H, W]` to `[N, C / b^2, H b, W b]`: depth becomes blocks of b x b. The depth is (block row,
/// block column, new depth), or with `mode = "CRD"` (new depth, block row, block column).
#[derive(Clone, Debug, PartialEq)]
pub struct DepthToSpace {
    size: usize,
    order: Order,
}

impl Op for DepthToSpace {
    const NAME: &'static str = "DepthToSpace";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let (size, order) = parse_blocks(attrs)?;
        Ok(DepthToSpace { size, order })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let ([n, c, h, w], b) = (image(inputs)?, self.size);
        if c % (b * b) != 0 {
            let message = format!("a depth of {c} is not divided by blocks of {b} x {b}");
            return Err(ErrorKind::wrong(message));
        }
        let dims = [n, c / (b * b), h.saturating_mul(b), w.saturating_mul(b)];
        Ok(vec![tools::sized(inputs.ty(0)?.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let &[n, depth, height, width] = &outputs[0].dims[..] else { return vec![] };
        let b = self.size;
        let dims = [n, depth, height / b, b, width / b, b];
        let own = strides(x.dims());
        let (block, channel) = match self.order {
            Order::BlocksFirst => (depth as i64, 1),
            Order::DepthFirst => (1, (b * b) as i64),
        };
        let moves = [own[0], channel * own[1], own[2], block * b as i64 * own[1], own[3], block * own[1]];
        let moved = x.strided(dims, 0, &moves);
        moved.reshaped(outputs[0].dims.clone()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let (d, b) = (mir.dims(x), self.size);
        let depth = d[1] / (b * b);
        let (apart, perm) = match self.order {
            Order::BlocksFirst => ([d[0], b, b, depth, d[2], d[3]], [0, 3, 4, 1, 5, 2]),
            Order::DepthFirst => ([d[0], depth, b, b, d[2], d[3]], [0, 1, 4, 2, 5, 3]),
        };
        let apart = mir.reshape(x, apart);
        let moved = mir.permute(apart, &perm);
        vec![mir.reshape(moved, outputs[0].dims.clone())]
    }
}

/// `[N, C, H, W]` to `[N, C b^2, H / b, W / b]`: the inverse of [`DepthToSpace`].
#[derive(Clone, Debug, PartialEq)]
pub struct SpaceToDepth {
    size: usize,
    order: Order,
}

impl Op for SpaceToDepth {
    const NAME: &'static str = "SpaceToDepth";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let (size, order) = parse_blocks(attrs)?;
        Ok(SpaceToDepth { size, order })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let ([n, c, h, w], b) = (image(inputs)?, self.size);
        if h % b != 0 || w % b != 0 {
            return Err(ErrorKind::wrong(format!("{h} x {w} is not divided by blocks of {b} x {b}")));
        }
        let dims = [n, c.saturating_mul(b * b), h / b, w / b];
        Ok(vec![tools::sized(inputs.ty(0)?.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let (&[_, depth, _, _], &[n, _, height, width]) = (x.dims(), &outputs[0].dims[..]) else {
            return vec![];
        };
        let (b, own) = (self.size, strides(x.dims()));
        let size = b as i64;
        let (dims, moves) = match self.order {
            Order::BlocksFirst => ([n, b, b, depth, height, width], [own[2], own[3], own[1]]),
            Order::DepthFirst => ([n, depth, b, b, height, width], [own[1], own[2], own[3]]),
        };
        let moves = [own[0], moves[0], moves[1], moves[2], size * own[2], size * own[3]];
        let moved = x.strided(dims, 0, &moves);
        moved.reshaped(outputs[0].dims.clone()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let (d, b) = (mir.dims(x), self.size);
        let apart = mir.reshape(x, [d[0], d[1], d[2] / b, b, d[3] / b, b]);
        let perm = match self.order {
            Order::BlocksFirst => [0, 3, 5, 1, 2, 4],
            Order::DepthFirst => [0, 1, 3, 5, 2, 4],
        };
        let moved = mir.permute(apart, &perm);
        vec![mir.reshape(moved, outputs[0].dims.clone())]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{Known, infer_known, infer_with, int, ints};
    use crate::types::DType::*;

    #[test]
    fn transpose_and_concat() {
        let transpose = |perm: &[i64]| {
            infer_with("Transpose", &[("perm", ints(perm))], &[(F32, &[2, 3, 4])])
        };
        assert_eq!(transpose(&[1, 2, 0]).expect("fits")[0].to_string(), "f32[3, 4, 2]");
        assert!(transpose(&[0, 0, 1]).is_err());
        assert!(transpose(&[0, 1]).is_err());
        assert!(transpose(&[0, 1, 3]).is_err());
        let concat = |axis, a: &[usize], b: &[usize]| {
            infer_with("Concat", &[("axis", int(axis))], &[(F32, a), (F32, b)])
        };
        assert_eq!(concat(-1, &[2, 3], &[2, 0]).expect("fits")[0].to_string(), "f32[2, 3]");
        assert!(concat(0, &[2, 3], &[2, 4]).is_err());
        assert!(concat(0, &[], &[]).is_err());
        assert!(infer_with("Concat", &[], &[(F32, &[1])]).is_err());
    }

    #[test]
    fn split() {
        let operands = |extent| [Known::Type(F32, extent)];
        let split = |opset, attrs: &[_], extent| infer_known("Split", opset, attrs, &operands(extent));
        // The harness' nodes have one result where nothing else is said.
        assert_eq!(split(11, &[], &[7]).expect("fits").len(), 1);
        assert!(split(18, &[("num_outputs", int(2))], &[7]).is_err());
        assert!(split(11, &[("split", ints(&[-1, 8]))], &[7]).is_err());
        assert!(split(11, &[("split", ints(&[i64::MAX, 8]))], &[7]).is_err());
    }

    #[test]
    fn blocks() {
        let infer = |name, size| {
            infer_with(name, &[("blocksize", int(size))], &[(F32, &[1, 8, 2, 4])])
        };
        assert_eq!(infer("DepthToSpace", 2).expect("fits")[0].to_string(), "f32[1, 2, 4, 8]");
        assert_eq!(infer("SpaceToDepth", 2).expect("fits")[0].to_string(), "f32[1, 32, 1, 2]");
        for size in [0, -1, 3, i64::MAX, 1 << 31] {
            assert!(infer("DepthToSpace", size).is_err() && infer("SpaceToDepth", size).is_err());
        }
    }
}
