//! Results that have as many elements as the operands' values say: they have to be known when the model is
//! compiled, as the operands of exporters' arithmetic with shapes and masks are.

use super::tools;
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};
use std::collections::BTreeMap;

/// The places of all elements that are not zero, `[rank, count]`, in order. The operand has to be known when the
/// model is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct NonZero;

impl NonZero {
    fn places(x: &Tensor) -> Tensor {
        let (rank, values) = (x.dims().len(), x.f64s());
        let (mut columns, mut next) = (vec![vec![]; rank], 0);
        for_each_index(x.dims(), |index| {
            if values[next] != 0.0 {
                columns.iter_mut().zip(index).for_each(|(column, &i)| column.push(i as i64));
            }
            next += 1;
        });
        // Of a scalar, there is a place without coordinates: a list of no rows.
        let count = values.iter().filter(|&&v| v != 0.0).count();
        Tensor::from_i64s([rank, count], &columns.concat())
    }
}

impl Op for NonZero {
    const NAME: &'static str = "NonZero";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(NonZero)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let known = inputs.known(0, "what is looked through")?;
        Ok(known.map(|x| NonZero::places(x).ty().clone()).into_iter().collect())
    }

    fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        inputs.iter().flatten().map(|x| NonZero::places(x)).collect()
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        _: &[Type],
    ) -> Vec<mir::Value> {
        let places = inputs.first().copied().flatten().and_then(|x| mir.constant_of(x));
        places.map(NonZero::places).map(|places| mir.constant(places)).into_iter().collect()
    }
}

/// The slices along an axis (without one, the elements) whose entry of the condition holds; what is behind the
/// condition's end is left out. The condition has to be known when the model is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Compress {
    axis: Option<i64>,
}

impl Compress {
    /// The places that are kept.
    fn kept(condition: &Tensor) -> Vec<i64> {
        let holds = condition.ints().into_iter().enumerate().filter(|(_, holds)| *holds != 0);
        holds.map(|(i, _)| i as i64).collect()
    }

    /// The operand's dimensions as looked at, and the axis.
    fn dims(&self, x: &Type) -> Result<(Vec<usize>, usize), ErrorKind> {
        match self.axis {
            Some(axis) => Ok((x.dims.clone(), tools::axis(axis, x.rank())?)),
            None => Ok((vec![x.elements()], 0)),
        }
    }
}

impl Op for Compress {
    const NAME: &'static str = "Compress";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Compress { axis: attrs.int("axis")? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (x, condition) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(condition, &[DType::Bool], &[])?;
        let (mut dims, axis) = self.dims(x)?;
        let kept = inputs.known(1, "the condition")?.map(Compress::kept).unwrap_or_default();
        if condition.rank() != 1 || kept.last().is_some_and(|&last| last as usize >= dims[axis]) {
            let kind = ErrorKind::wrong(format!("the condition is {condition}"));
            return Err(kind.help(format!("it must be bool[{}]", dims[axis])));
        }
        dims[axis] = kept.len();
        Ok(vec![tools::sized(x.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(condition)] = inputs else { return vec![] };
        let Ok((dims, axis)) = self.dims(x.ty()) else { return vec![] };
        let kept = Compress::kept(condition);
        let inner: usize = dims[axis + 1..].iter().product();
        let mut data = Vec::with_capacity(outputs[0].bytes());
        for outer in 0..dims[..axis].iter().product::<usize>() {
            for &place in &kept {
                let first = (outer * dims[axis] + place as usize) * inner;
                (first..first + inner).for_each(|i| data.extend_from_slice(x.element(i)));
            }
        }
        Tensor::from_bytes(outputs[0].clone(), data.into()).into_iter().collect()
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let &[Some(x), Some(condition)] = inputs else { return vec![] };
        let kept = mir.constant_of(condition).map(Compress::kept);
        let (Some(kept), Ok((dims, axis))) = (kept, self.dims(mir.ty(x))) else { return vec![] };
        if outputs[0].elements() == 0 {
            return vec![mir.constant(Tensor::zeros(outputs[0].clone()))];
        }
        let x = mir.reshape(x, dims);
        let places = mir.constant(Tensor::from_i64s([kept.len()], &kept));
        vec![mir.gather(x, places, axis)]
    }
}

/// The different elements, or with an axis the different slices along it, in ascending order (NaN behind all numbers)
/// or, not `sorted`, in order of their first occurrence. Further results: where each occurs first, which one each of the
/// operand's is, and how often each occurs. The operand has to be known when the model is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Unique {
    axis: Option<i64>,
    sorted: bool,
    results: usize,
}

impl Unique {
    /// All four results.
    fn results(&self, x: &Tensor) -> Result<[Tensor; 4], ErrorKind> {
        let axis = self.axis.map(|axis| tools::axis(axis, x.dims().len())).transpose()?;
        let (outer, count, inner) = match axis {
            Some(a) => {
                let dims = x.dims();
                (dims[..a].iter().product(), dims[a], dims[a + 1..].iter().product())
            }
            None => (1, x.ty().elements(), 1),
        };
        // Keys in whose order the elements are: of floats their bits, those of negative ones turned.
        let key = |i: usize| -> i128 {
            match x.ty().dtype.is_float() {
                true => {
                    let value = x.f64_at(i);
                    let bits = if value == 0.0 { 0 } else { value.to_bits() as i64 };
                    match value.is_nan() {
                        true => i128::MAX,
                        false => i128::from(bits ^ (((bits >> 63) as u64) >> 1) as i64),
                    }
                }
                false if x.ty().dtype == DType::U64 => i128::from(x.int_at(i) as u64),
                false => i128::from(x.int_at(i)),
            }
        };
        let places = |slice: usize| {
            (0..outer).flat_map(move |o| (0..inner).map(move |i| (o * count + slice) * inner + i))
        };
        let mut classes: BTreeMap<Vec<i128>, Vec<usize>> = BTreeMap::new();
        for slice in 0..count {
            classes.entry(places(slice).map(key).collect()).or_default().push(slice);
        }
        let mut classes: Vec<Vec<usize>> = classes.into_values().collect();
        if !self.sorted {
            classes.sort_by_key(|class| class.first().copied());
        }
        let mut of = vec![0; count];
        for (number, class) in classes.iter().enumerate() {
            class.iter().for_each(|&slice| of[slice] = number as i64);
        }
        let firsts: Vec<usize> = classes.iter().filter_map(|class| class.first().copied()).collect();
        let mut data = vec![];
        for o in 0..outer {
            for first in &firsts {
                let from = (o * count + first) * inner;
                (from..from + inner).for_each(|i| data.extend_from_slice(x.element(i)));
            }
        }
        let mut dims = axis.map_or(vec![0], |_| x.dims().to_vec());
        dims[axis.unwrap_or(0)] = firsts.len();
        let unique = Tensor::from_bytes(x.ty().with_dims(dims), data.into());
        let unique = unique.ok_or_else(|| ErrorKind::limit("the result is too large"))?;
        let list = |values: Vec<i64>| Tensor::from_i64s([values.len()], &values);
        let firsts = firsts.into_iter().map(|i| i as i64).collect();
        let counts = classes.iter().map(|class| class.len() as i64).collect();
        Ok([unique, list(firsts), list(of), list(counts)])
    }
}

impl Op for Unique {
    const NAME: &'static str = "Unique";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let (axis, sorted) = (attrs.int("axis")?, attrs.flag("sorted", true)?);
        Ok(Unique { axis, sorted, results: attrs.outputs().clamp(1, 4) })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let known = inputs.known(0, "what is looked through")?;
        let results = known.map(|x| self.results(x)).transpose()?;
        Ok(results.iter().flatten().take(self.results).map(|t| t.ty().clone()).collect())
    }

    fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        let results = inputs.iter().flatten().filter_map(|x| self.results(x).ok());
        results.flatten().take(self.results).collect()
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        _: &[Type],
    ) -> Vec<mir::Value> {
        let known = inputs.first().copied().flatten().and_then(|x| mir.constant_of(x));
        let results = known.and_then(|x| self.results(x).ok());
        let results = results.into_iter().flatten().take(self.results);
        results.map(|result| mir.constant(result)).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn shapes_follow_from_values() {
        let places = definition("NonZero", &["const i64[2,2]=1,0,1,1"]);
        assert_eq!(places[0].ints(), [0, 1, 1, 0, 0, 1]);
        assert_eq!(definition("NonZero", &["const f32[]=3"])[0].dims(), [0, 1]);
        refused("NonZero", &["i64[2,2]"]);
        refused("Compress", &["f32[2]", "bool[2]"]);
        refused("Compress", &["f32[2]", "const bool[3]=0,0,1"]);
        refused("Compress axis=2", &["f32[2,2]", "const bool[2]=0,1"]);
    }
    #[test]
    fn unique_elements_and_slices() {
        let node = "Unique sorted=0";
        let y = definition(node, &["const f32[6]=2,1,1,3,4,3"]);
        assert_eq!(y[0].f64s(), [2.0, 1.0, 3.0, 4.0]);
        let y = definition("Unique axis=0", &["const i64[3,3]=2,3,4,1,0,0,1,0,0"]);
        assert_eq!((y[0].dims(), y[0].ints()), (&[2, 3][..], vec![1, 0, 0, 2, 3, 4]));
        let y = definition("Unique", &["const f32[6]=-1,nan,inf,-inf,0,-0"]);
        assert_eq!(y[0].f64s()[..4], [f64::NEG_INFINITY, -1.0, 0.0, f64::INFINITY]);
        assert_eq!(y[0].dims(), [5]);
        refused("Unique", &["f32[2]"]);
        refused("Unique axis=1", &["const f32[2]=1,2"]);
    }
}
