//! Sums of products over named axes.

use super::tools::{self, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Reduction};
use crate::tensor::{Tensor, for_each_index};
use crate::types::Type;
use std::collections::{BTreeMap, BTreeSet};

/// The equation names each operand's axes by letters, as in `bij,bjk->bik`: the result is the product of
/// the operands' elements with equal letters, summed over the letters that the result does not have. Without
/// `->` the result has the letters that occur once, in alphabetic order. A letter twice in one operand is its
/// diagonal. `...` stands for the axes that have no letter, which broadcast; they are aligned at the last, and
/// without `->` the result has them first. Integers wrap.
#[derive(Clone, Debug, PartialEq)]
pub struct Einsum {
    terms: Vec<Vec<Term>>,
    result: Option<Vec<Term>>,
}

/// A part of an equation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Term {
    Letter(char),
    /// `...`
    Rest,
}

/// The name of an axis: a letter, or a broadcast one by its distance from the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Axis {
    Rest(usize),
    Letter(char),
}

/// An equation for operands of known ranks.
struct Names {
    operands: Vec<Vec<Axis>>,
    result: Vec<Axis>,
}

fn parse_term(text: &str) -> Result<Vec<Term>, ErrorKind> {
    let mut terms = vec![];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            if terms.contains(&Term::Rest) {
                return Err(ErrorKind::wrong(format!("\"...\" occurs twice in \"{text}\"")));
            }
            terms.push(Term::Rest);
            rest = after;
        } else if c.is_ascii_alphabetic() {
            terms.push(Term::Letter(c));
            rest = &rest[1..];
        } else {
            return Err(ErrorKind::wrong(format!("\"{text}\" is no list of letters")));
        }
    }
    Ok(terms)
}

impl Einsum {
    fn new(equation: &str) -> Result<Einsum, ErrorKind> {
        let text: String = equation.chars().filter(|c| *c != ' ').collect();
        let (operands, result) = match text.split_once("->") {
            Some((operands, result)) => (operands, Some(parse_term(result)?)),
            None => (&text[..], None),
        };
        let terms = operands.split(',').map(parse_term).collect::<Result<Vec<_>, _>>()?;
        for (i, term) in result.iter().flatten().enumerate() {
            let known = *term == Term::Rest || terms.iter().any(|t| t.contains(term));
            let twice = result.iter().flatten().take(i).any(|t| t == term);
            if !known || twice {
                let what = if twice { "occurs twice" } else { "is not one of an operand" };
                return Err(ErrorKind::wrong(format!("an axis of the result of \"{text}\" {what}")));
            }
        }
        Ok(Einsum { terms, result })
    }

    /// The axes of operands of these ranks.
    fn names(&self, ranks: &[usize]) -> Result<Names, ErrorKind> {
        if ranks.len() != self.terms.len() {
            let (n, found) = (self.terms.len(), ranks.len());
            return Err(ErrorKind::wrong(format!("the equation has {n} operands, the node {found}")));
        }
        let mut most = 0;
        let mut operands = vec![];
        for (i, (terms, &rank)) in self.terms.iter().zip(ranks).enumerate() {
            let letters = terms.iter().filter(|t| **t != Term::Rest).count();
            let rest = rank.checked_sub(letters).filter(|&n| n == 0 || terms.contains(&Term::Rest));
            let rest = rest.ok_or_else(|| {
                ErrorKind::wrong(format!("operand {i} of rank {rank} does not have {letters} axes"))
            })?;
            most = most.max(rest);
            operands.push(spelled(terms, rest));
        }
        let result = match &self.result {
            Some(terms) => spelled(terms, if terms.contains(&Term::Rest) { most } else { 0 }),
            None => {
                let mut counts: BTreeMap<Axis, usize> = BTreeMap::new();
                operands.iter().flatten().for_each(|&axis| *counts.entry(axis).or_default() += 1);
                let once = |(axis, n): (Axis, usize)| {
                    (n == 1 && matches!(axis, Axis::Letter(_))).then_some(axis)
                };
                let letters = counts.into_iter().filter_map(once);
                (0..most).rev().map(Axis::Rest).chain(letters).collect()
            }
        };
        Ok(Names { operands, result })
    }
}

/// The axes that these terms name, `rest` of them broadcast ones.
fn spelled(terms: &[Term], rest: usize) -> Vec<Axis> {
    let axes = |term: &Term| match *term {
        Term::Letter(c) => vec![Axis::Letter(c)],
        Term::Rest => (0..rest).rev().map(Axis::Rest).collect(),
    };
    terms.iter().flat_map(axes).collect()
}

impl Names {
    /// Whether the result or an operand from this one on has the axis.
    fn needs(&self, axis: &Axis, from: usize) -> bool {
        self.result.contains(axis) || self.operands[from..].iter().any(|o| o.contains(axis))
    }

    /// Extent of every axis.
    fn extents<'a>(
        &self,
        dims: impl Iterator<Item = &'a [usize]>,
    ) -> Result<BTreeMap<Axis, usize>, ErrorKind> {
        let mut extents: BTreeMap<Axis, usize> = BTreeMap::new();
        for (axes, dims) in self.operands.iter().zip(dims) {
            for (&axis, &d) in axes.iter().zip(dims) {
                let extent = extents.entry(axis).or_insert(d);
                if *extent == 1 {
                    *extent = d;
                } else if d != 1 && d != *extent {
                    let name = match axis {
                        Axis::Letter(c) => c.to_string(),
                        Axis::Rest(_) => "...".to_owned(),
                    };
                    let message = format!("the extents of {name} differ: {extent} and {d}");
                    return Err(ErrorKind::wrong(message));
                }
            }
        }
        Ok(extents)
    }
}

impl Op for Einsum {
    const NAME: &'static str = "Einsum";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Einsum::new(&tools::required(attrs.text("equation")?, "equation")?)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, usize::MAX)?;
        let types = inputs.types()?;
        for ty in &types {
            tools::dtype_in(ty, &NUMBERS, &NUMBERS)?;
            tools::broadcast_types(&[&Type::scalar(types[0].dtype), &Type::scalar(ty.dtype)])?;
        }
        let names = self.names(&types.iter().map(|ty| ty.rank()).collect::<Vec<_>>())?;
        let extents = names.extents(types.iter().map(|ty| &ty.dims[..]))?;
        let sized = |axes: &[Axis]| {
            tools::sized(types[0].dtype, axes.iter().map(|axis| extents[axis]).collect::<Vec<_>>())
        };
        // What is made on the way has limits too: products keep the axes that are needed later.
        let mut left: BTreeSet<Axis> = BTreeSet::new();
        for (i, axes) in names.operands.iter().enumerate() {
            sized(axes)?;
            left.extend(axes);
            left.retain(|axis| names.needs(axis, i + 1));
            sized(&left.iter().copied().collect::<Vec<_>>())?;
        }
        Ok(vec![sized(&names.result)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let tensors: Vec<&Tensor> = inputs.iter().flatten().copied().collect();
        let ty = &outputs[0];
        let Ok(names) = self.names(&tensors.iter().map(|x| x.dims().len()).collect::<Vec<_>>()) else {
            return vec![];
        };
        let extents = names.extents(tensors.iter().map(|x| x.dims())).unwrap_or_default();
        let axes: Vec<Axis> = extents.keys().copied().collect();
        let dims: Vec<usize> = extents.values().copied().collect();
        // How far each of all axes moves in an operand or the result; several times for a diagonal.
        let moves = |names: &[Axis], ty: &Type| -> Vec<usize> {
            let own = || names.iter().zip(&ty.dims).zip(ty.strides());
            let along = |axis: &Axis| {
                own().filter(|((a, d), _)| *a == axis && **d != 1).map(|(_, stride)| stride as usize).sum()
            };
            axes.iter().map(along).collect()
        };
        let reads: Vec<_> =
            names.operands.iter().zip(&tensors).map(|(names, x)| moves(names, x.ty())).collect();
        let write = moves(&names.result, ty);
        let at = |moves: &[usize], index: &[usize]| -> usize {
            moves.iter().zip(index).map(|(stride, i)| stride * i).sum()
        };
        if ty.dtype.is_float() {
            let values: Vec<_> = tensors.iter().map(|x| x.f64s()).collect();
            let mut sums = vec![0.0; ty.elements()];
            for_each_index(&dims, |index| {
                let factors = values.iter().zip(&reads).map(|(x, moves)| x[at(moves, index)]);
                sums[at(&write, index)] += factors.product::<f64>();
            });
            return vec![Tensor::from_f64s(ty.clone(), sums)];
        }
        let values: Vec<_> = tensors.iter().map(|x| x.ints()).collect();
        let mut sums = vec![0i64; ty.elements()];
        for_each_index(&dims, |index| {
            let factors = values.iter().zip(&reads).map(|(x, moves)| x[at(moves, index)]);
            let place = at(&write, index);
            sums[place] = sums[place].wrapping_add(factors.fold(1, i64::wrapping_mul));
        });
        vec![Tensor::from_ints(ty.clone(), sums)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let values: Vec<_> = inputs.iter().copied().flatten().collect();
        let Ok(names) = self.names(&values.iter().map(|&v| mir.ty(v).rank()).collect::<Vec<_>>()) else {
            return vec![];
        };
        let both = names.operands.iter().zip(values).enumerate();
        // From left to right: what no later operand and not the result needs is summed at once.
        let product = both.fold(None, |left, (i, (axes, value))| {
            let right = diagonal(mir, Named { value, axes: axes.clone() });
            Some(match left {
                None => right,
                Some(left) => product(mir, left, right, |axis| names.needs(axis, i + 1)),
            })
        });
        let Some(left) = product else { return vec![] };
        let summed = sum(mir, left, |axis| names.result.contains(axis));
        let aligned = align(mir, &summed, &names.result);
        vec![mir.broadcast(aligned, outputs[0].dims.clone())]
    }
}

/// A value with the names of its axes.
#[derive(Clone, Debug)]
struct Named {
    value: mir::Value,
    axes: Vec<Axis>,
}

/// Without repeated names.
fn diagonal(mir: &mut mir::Builder, mut x: Named) -> Named {
    while let Some(second) = (0..x.axes.len()).find(|&i| x.axes[..i].contains(&x.axes[i])) {
        let first = x.axes.iter().position(|axis| *axis == x.axes[second]).unwrap_or(second);
        let dims = mir.dims(x.value);
        let extent = dims[first].max(dims[second]);
        if dims[first] != dims[second] {
            // One of them is 1 and is repeated.
            let mut wide = dims.clone();
            (wide[first], wide[second]) = (extent, extent);
            x.value = mir.broadcast(x.value, wide);
        }
        let others = (0..dims.len()).filter(|&axis| axis != first && axis != second);
        let perm: Vec<_> = others.chain([first, second]).collect();
        x.value = mir.permute(x.value, &perm);
        x.axes = perm.iter().map(|&axis| x.axes[axis]).collect();
        x.axes.pop();
        let mut dims: Vec<_> = mir.dims(x.value);
        dims.truncate(perm.len() - 2);
        let last = dims.len();
        dims.push(extent * extent);
        x.value = mir.reshape(x.value, dims.clone());
        let (starts, mut steps) = (vec![0; last + 1], vec![1; last + 1]);
        (dims[last], steps[last]) = (extent, extent as i64 + 1);
        x.value = mir.slice(x.value, &starts, &dims, &steps);
    }
    x
}

/// Summed over the axes that are not needed.
fn sum(mir: &mut mir::Builder, x: Named, needed: impl Fn(&Axis) -> bool) -> Named {
    let gone: Vec<_> = (0..x.axes.len()).filter(|&i| !needed(&x.axes[i])).collect();
    let summed = mir.reduce(Reduction::Sum, x.value, &gone);
    let kept: Vec<_> = (0..x.axes.len()).filter(|i| !gone.contains(i)).collect();
    let dims = mir.dims(summed);
    let dims: Vec<_> = kept.iter().map(|&i| dims[i]).collect();
    Named { value: mir.reshape(summed, dims), axes: kept.iter().map(|&i| x.axes[i]).collect() }
}

/// With axes in this order; those that it does not have get extent 1.
fn align(mir: &mut mir::Builder, x: &Named, axes: &[Axis]) -> mir::Value {
    let place = |axis: &Axis| x.axes.iter().position(|a| a == axis);
    let perm: Vec<_> = axes.iter().filter_map(place).collect();
    let moved = mir.permute(x.value, &perm);
    let old = mir.dims(x.value);
    let dims: Vec<_> = axes.iter().map(|axis| place(axis).map_or(1, |i| old[i])).collect();
    mir.reshape(moved, dims)
}

/// The product, summed over what is not needed: axes of one operand only at once, those of both by a
/// matrix product.
fn product(mir: &mut mir::Builder, a: Named, b: Named, needed: impl Fn(&Axis) -> bool) -> Named {
    let (in_a, in_b) = (a.axes.clone(), b.axes.clone());
    let a = sum(mir, a, |axis| needed(axis) || in_b.contains(axis));
    let b = sum(mir, b, |axis| needed(axis) || in_a.contains(axis));
    let extent = |mir: &mir::Builder, x: &Named, axis: &Axis| {
        x.axes.iter().position(|a| a == axis).map_or(1, |i| mir.ty(x.value).dims[i])
    };
    let both = |mir: &mir::Builder, axis: &Axis| {
        let (m, n) = (extent(mir, &a, axis), extent(mir, &b, axis));
        if m == 1 { n } else { m }
    };
    let common: Vec<_> = a.axes.iter().copied().filter(|axis| b.axes.contains(axis)).collect();
    let (batch, inner): (Vec<_>, Vec<_>) = common.iter().copied().partition(|axis| needed(axis));
    let rows: Vec<_> = a.axes.iter().copied().filter(|axis| !common.contains(axis)).collect();
    let columns: Vec<_> = b.axes.iter().copied().filter(|axis| !common.contains(axis)).collect();
    let axes = [&batch[..], &rows, &columns].concat();
    let dims: Vec<_> = axes.iter().map(|axis| both(mir, axis)).collect();
    if inner.is_empty() {
        let (x, y) = (align(mir, &a, &axes), align(mir, &b, &axes));
        return Named { value: mir.binary(Binary::Mul, x, y), axes };
    }
    let mut matrix = |x: &Named, first: &[Axis], second: &[Axis]| {
        let order = [&batch[..], first, second].concat();
        let aligned = align(mir, x, &order);
        let full: Vec<_> = order.iter().map(|axis| both(mir, axis)).collect();
        let wide = mir.broadcast(aligned, full.clone());
        let split = batch.len() + first.len();
        let [m, n] = [&full[batch.len()..split], &full[split..]].map(|d| d.iter().product());
        mir.reshape(wide, [&full[..batch.len()], &[m, n]].concat())
    };
    let (x, y) = (matrix(&a, &rows, &inner), matrix(&b, &inner, &columns));
    let contracted = mir.contract(x, y);
    Named { value: mir.reshape(contracted, dims), axes }
}

#[cfg(test)]
mod tests {
    use crate::error::ErrorKind;
    use crate::ops::tests::{infer_with, text};
    use crate::types::DType::*;

    fn einsum(equation: &str, operands: &[&[usize]]) -> Result<String, ErrorKind> {
        let operands: Vec<_> = operands.iter().map(|&dims| (F32, dims)).collect();
        infer_with("Einsum", &[("equation", text(equation))], &operands).map(|t| t[0].to_string())
    }

    #[test]
    fn equations() {
        assert_eq!(einsum("bij, bjk -> bik", &[&[2, 3, 4], &[2, 4, 5]]).expect("fits"), "f32[2, 3, 5]");
        assert_eq!(einsum("ij,jk", &[&[3, 4], &[4, 5]]).expect("fits"), "f32[3, 5]");
        assert_eq!(einsum("ba", &[&[3, 4]]).expect("fits"), "f32[4, 3]");
        assert_eq!(einsum("...ii->...i", &[&[2, 4, 4]]).expect("fits"), "f32[2, 4]");
        assert_eq!(einsum("i,i", &[&[3], &[3]]).expect("fits"), "f32[]");
        for (equation, operands) in [
            ("ij,jk", &[&[3, 4][..]][..]),
            ("ij", &[&[3]]),
            ("ij", &[&[3, 4, 5]]),
            ("ij->k", &[&[3, 4]]),
            ("ij->ii", &[&[3, 4]]),
            ("i1", &[&[3, 4]]),
            ("i....", &[&[3, 4]]),
            ("......", &[&[3, 4]]),
            ("ii", &[&[3, 4]]),
            ("i,i", &[&[3], &[4]]),
            ("\u{e9}", &[&[3]]),
        ] {
            assert!(einsum(equation, operands).is_err(), "{equation}");
        }
    }
}
