//! Sequences of different lengths in one tensor.

use super::{Attrs, Op, Operands, Tolerance, constant, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::ops::formula::Formula;
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};

/// For each place along the batch axis the first elements along the time axis, as many as the second
/// operand says, in reverse order; the others stay. One of both axes is 0, the other 1. A length beyond
/// the axis is an error where it is known when the model is compiled, else the nearest is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct ReverseSequence {
    batch: usize,
    time: usize,
}

impl Op for ReverseSequence {
    const NAME: &'static str = "ReverseSequence";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        match (attrs.int_or("batch_axis", 1)?, attrs.int_or("time_axis", 0)?) {
            (1, 0) => Ok(ReverseSequence { batch: 1, time: 0 }),
            (0, 1) => Ok(ReverseSequence { batch: 0, time: 1 }),
            (batch, time) => {
                let kind = ErrorKind::wrong(format!("batch_axis is {batch} and time_axis {time}"));
                Err(kind.help("one must be 0 and the other 1"))
            }
        }
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (ty, lengths) = (inputs.ty(0)?, inputs.ty(1)?);
        if ty.rank() < 2 {
            return Err(ErrorKind::wrong(format!("the operand is {ty}")).help("it must have two axes"));
        }
        tools::dtype_in(lengths, &[DType::I64], &[DType::I64])?;
        if lengths.dims != [ty.dims[self.batch]] {
            let kind = ErrorKind::wrong(format!("the lengths are {lengths} for {ty}"));
            return Err(kind.help(format!("they must be i64[{}]", ty.dims[self.batch])));
        }
        let most = ty.dims[self.time] as i64;
        let known = inputs.constant(1).map(Tensor::ints).unwrap_or_default();
        if let Some(length) = known.into_iter().find(|n| !(0..=most).contains(n)) {
            return Err(ErrorKind::wrong(format!("a length of {length} along an axis of {most}")));
        }
        Ok(vec![ty.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(lengths)] = inputs else { return vec![] };
        let (ty, strides, lengths) = (&outputs[0], x.ty().strides(), lengths.ints());
        let run = ty.dims[2..].iter().product::<usize>() * ty.dtype.bytes();
        let mut data = Vec::with_capacity(ty.bytes());
        for_each_index(&ty.dims[..2], |index| {
            let (batch, time) = (index[self.batch], index[self.time]);
            let length = lengths[batch].clamp(0, ty.dims[self.time] as i64) as usize;
            let from = if time < length { length - 1 - time } else { time };
            let place = batch * strides[self.batch] as usize + from * strides[self.time] as usize;
            let place = if run == 0 { 0 } else { place * ty.dtype.bytes() };
            data.extend_from_slice(&x.bytes()[place..place + run]);
        });
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x), Some(lengths)] = inputs else { return vec![] };
        let dims = &outputs[0].dims;
        let (batches, times) = (dims[self.batch], dims[self.time]);
        if outputs[0].elements() == 0 {
            return vec![x];
        }
        // All pairs of the first two axes are one, of which the elements are picked.
        let along = |mir: &mut mir::Builder, axis: usize, value: mir::Value| {
            let mut pair = [1, 1];
            pair[axis] = dims[axis];
            mir.reshape(value, pair)
        };
        let (batch, time) = (constant::iota(mir, batches), constant::iota(mir, times));
        let batch = along(mir, self.batch, batch);
        let time = along(mir, self.time, time);
        let lengths = along(mir, self.batch, lengths);
        let mut f = Formula::new(DType::I64);
        let [b, t, n] = [0, 1, 2].map(|i| f.operand(i));
        let (zero, most) = (f.lit(0.0), f.lit(times as f64));
        let low = f.max(n, zero);
        let length = f.min(low, most);
        let last = f.offset(length, -1.0);
        let (mirrored, reversed) = (f.sub(last, t), f.less(t, length));
        let from = f.select(reversed, mirrored, t);
        let strides = if self.batch == 0 { [times, 1] } else { [1, batches] };
        let (major, minor) = (f.scale(b, strides[0] as f64), f.scale(from, strides[1] as f64));
        let place = f.add(major, minor);
        let places = mir.map(f.finish(place), &[batch, time, lengths]);
        let table = mir.reshape(x, [&[batches * times], &dims[2..]].concat());
        vec![mir.gather(table, places, 0)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{infer, infer_with, int};
    use crate::types::DType::*;

    #[test]
    fn types() {
        assert!(infer("ReverseSequence", &[(F32, &[4, 3, 2]), (I64, &[3])]).is_ok());
        assert!(infer("ReverseSequence", &[(F32, &[4, 3]), (I64, &[4])]).is_err());
        assert!(infer("ReverseSequence", &[(F32, &[4]), (I64, &[4])]).is_err());
        let same = infer_with("ReverseSequence", &[("time_axis", int(1))], &[(F32, &[3, 3]), (I64, &[3])]);
        assert!(same.is_err());
    }
}
