//! The best of boxes that overlap.

use super::formula::Formula;
use super::gather::ramp;
use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Comparison, Reduction};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use std::cmp::Ordering;

/// How boxes are chosen. Of those of a class, from the highest score on (of equal ones the first box), each is taken that
/// does not overlap one that is taken already, up to a number of them: the area that both have in common is at most
/// `iou_threshold` of that of either. Scores that are not above `score_threshold` do not count, NaN and minus infinity
/// never.
#[derive(Clone, Debug, PartialEq)]
struct Suppression {
    /// Boxes are `[x, y, width, height]` around their centers, else `[y1, x1, y2, x2]`, two opposite corners.
    centered: bool,
}

/// A box that was chosen.
struct Chosen {
    /// Numbers of the batch element, the class and the box.
    row: [i64; 3],
    score: f32,
}

const BOXES: usize = 0;
const SCORES: usize = 1;
const MOST: usize = 2;
const OVERLAP: usize = 3;
const THRESHOLD: usize = 4;

/// The order of two scores from the highest on; zeros are equal, and none is NaN.
fn falling(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

impl Suppression {
    fn parse(attrs: &mut Attrs) -> Result<Suppression, ErrorKind> {
        Ok(Suppression { centered: attrs.flag("center_point_box", false)? })
    }

    /// Extents: batch, classes, boxes, and how many boxes of a class are taken at most.
    fn infer(&self, inputs: &Operands<'_>) -> Result<[usize; 4], ErrorKind> {
        inputs.arity(2, 5)?;
        let (boxes, scores) = (inputs.ty(BOXES)?, inputs.ty(SCORES)?);
        let (&[batch, count, 4], &[of, classes, numbers]) = (&boxes.dims[..], &scores.dims[..]) else {
            let kind = ErrorKind::wrong(format!("boxes {boxes} and scores {scores}"));
            return Err(kind.help("they must be f32[batch, boxes, 4] and f32[batch, classes, boxes]"));
        };
        let floats = [boxes, scores].iter().all(|ty| ty.dtype == DType::F32);
        if batch != of || count != numbers || !floats {
            let kind = ErrorKind::wrong(format!("boxes {boxes} and scores {scores}"));
            return Err(kind.help("they must be f32, and have as many batch elements and boxes"));
        }
        for (i, name) in [(OVERLAP, "iou_threshold"), (THRESHOLD, "score_threshold")] {
            if let Some(ty) = inputs.get(i) {
                tools::dtype_in(tools::single(ty, name)?, &[DType::F32], &[])?;
            }
        }
        let most = inputs.known(MOST, "max_output_boxes_per_class")?;
        let most = match most {
            Some(most) => {
                tools::dtype_in(tools::single(most.ty(), "max_output_boxes_per_class")?, &[DType::I64], &[])?;
                usize::try_from(most.int_at(0)).unwrap_or(0)
            }
            None => 0,
        };
        Ok([batch, classes, count, most.min(count)])
    }

    /// The lower and upper ends of a box along both axes.
    fn ends(&self, b: [f32; 4]) -> [(f32, f32); 2] {
        match self.centered {
            true => [(b[0] - b[2] / 2.0, b[0] + b[2] / 2.0), (b[1] - b[3] / 2.0, b[1] + b[3] / 2.0)],
            false => [0, 1].map(|a| if b[a] >= b[a + 2] { (b[a + 2], b[a]) } else { (b[a], b[a + 2]) }),
        }
    }

    fn overlap(&self, a: [f32; 4], b: [f32; 4], most: f32) -> bool {
        let (a, b) = (self.ends(a), self.ends(b));
        let common = [0, 1].map(|i| a[i].1.min(b[i].1) - a[i].0.max(b[i].0));
        let area = |of: [(f32, f32); 2]| (of[0].1 - of[0].0) * (of[1].1 - of[1].0);
        let (shared, first, second) = (common[0] * common[1], area(a), area(b));
        let all = first + second - shared;
        let real = common[0] > 0.0 && shared > 0.0 && first > 0.0 && second > 0.0 && all > 0.0;
        real && shared / all > most
    }

    /// The boxes that are chosen, by batch element, by class, and from the highest score on.
    fn chosen(&self, inputs: &[Option<&Tensor>]) -> Vec<Chosen> {
        let [Some(boxes), Some(scores), ref more @ ..] = *inputs else { return vec![] };
        let operand = |i: usize| more.get(i - MOST).copied().flatten();
        let &[batch, classes, count] = scores.dims() else { return vec![] };
        let most = operand(MOST).map_or(0, |most| usize::try_from(most.int_at(0)).unwrap_or(0));
        let overlap = operand(OVERLAP).map_or(0.0, |t| t.f32s()[0]);
        let least = operand(THRESHOLD).map(|t| t.f32s()[0]);
        let (boxes, scores) = (boxes.f32s(), scores.f32s());
        let mut all: Vec<Chosen> = vec![];
        for row in 0..batch * classes {
            let score = |i: usize| scores[row * count + i];
            let counts = |&i: &usize| score(i) > least.unwrap_or(f32::NEG_INFINITY) && score(i) > f32::NEG_INFINITY;
            let mut order: Vec<usize> = (0..count).filter(counts).collect();
            order.sort_by(|&a, &b| falling(score(a), score(b)).then(a.cmp(&b)));
            let corners = |i: usize| [0, 1, 2, 3].map(|c| boxes[(row / classes * count + i) * 4 + c]);
            let mut taken: Vec<usize> = vec![];
            for i in order {
                let hidden = || taken.iter().any(|&t| self.overlap(corners(t), corners(i), overlap));
                if taken.len() < most && !hidden() {
                    taken.push(i);
                    let row = [row / classes, row % classes, i].map(|n| n as i64);
                    all.push(Chosen { row, score: score(i) });
                }
            }
        }
        all
    }
}

/// The boxes that are chosen (see [`Suppression`]), as rows of the numbers of batch element, class and box: by batch
/// element, by class, and from the highest score on. How many there are has to be known when the model is compiled, and
/// so all operands.
#[derive(Clone, Debug, PartialEq)]
pub struct NonMaxSuppression(Suppression);

impl NonMaxSuppression {
    fn rows(&self, inputs: &[Option<&Tensor>]) -> Tensor {
        let rows: Vec<i64> = self.0.chosen(inputs).into_iter().flat_map(|chosen| chosen.row).collect();
        Tensor::from_i64s([rows.len() / 3, 3], &rows)
    }
}

impl Op for NonMaxSuppression {
    const NAME: &'static str = "NonMaxSuppression";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(NonMaxSuppression(Suppression::parse(attrs)?))
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        self.0.infer(inputs)?;
        if !inputs.all_constant() {
            let kind = ErrorKind::unsupported("how many results there are is known only at run time");
            return Err(kind.help(
                "--selections N makes it give N rows, the last ones of -1 where there are fewer; \
                 or let the model end before it",
            ));
        }
        let known: Vec<_> = (0..inputs.len()).map(|i| inputs.constant(i)).collect();
        Ok(vec![self.rows(&known).ty().clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        vec![self.rows(inputs)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let known: Vec<_> = inputs.iter().map(|v| v.and_then(|v| mir.constant_of(v))).collect();
        let rows = self.rows(&known);
        vec![mir.constant(rows)]
    }
}

/// [`NonMaxSuppression`] with `count` rows: where fewer boxes are chosen, rows of -1 are behind the others; where more
/// are, those with the highest scores are there (of equal ones the first).
#[derive(Clone, Debug, PartialEq)]
pub struct Selections {
    suppression: Suppression,
    count: usize,
}

/// The most boxes of a class that are chosen one after the other: each is a step of its own.
const STEPS: usize = 4096;

impl Op for Selections {
    const NAME: &'static str = "rlx:NonMaxSuppression";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let count = tools::required(attrs.int("count")?, "count")?;
        let count = super::window::bounded("count", 0, &[count])?[0];
        Ok(Selections { suppression: Suppression::parse(attrs)?, count })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let [batch, classes, count, most] = self.suppression.infer(inputs)?;
        if most.min(self.count) > STEPS {
            let kind = ErrorKind::limit(format!("{} boxes of a class", most.min(self.count)));
            return Err(kind.help(format!("at most {STEPS} are chosen")));
        }
        tools::sized(DType::I64, [batch, classes, count.saturating_add(5)])?;
        Ok(vec![tools::sized(DType::I64, [self.count, 3])?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let mut all: Vec<(usize, Chosen)> = self.suppression.chosen(inputs).into_iter().enumerate().collect();
        all.sort_by(|(i, a), (j, b)| falling(a.score, b.score).then(i.cmp(j)));
        all.truncate(self.count);
        all.sort_by_key(|(i, _)| *i);
        let mut rows: Vec<i64> = all.into_iter().flat_map(|(_, chosen)| chosen.row).collect();
        rows.resize(3 * self.count, -1);
        vec![Tensor::from_ints(outputs[0].clone(), rows)]
    }

    /// In each step the best box of every class is taken, and the scores of those that overlap it are gone.
    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let [Some(boxes), Some(scores), ref more @ ..] = *inputs else { return vec![] };
        let operand = |i: usize| more.get(i - MOST).copied().flatten();
        let &[batch, classes, count] = &mir.dims(scores)[..] else { return vec![] };
        let most = operand(MOST).and_then(|most| mir.constant_of(most)).map_or(0, |most| most.int_at(0));
        let steps = usize::try_from(most).unwrap_or(0).min(count).min(self.count);
        if batch * classes * steps == 0 {
            let rows = vec![-1; 3 * self.count];
            return vec![mir.constant(Tensor::from_ints(outputs[0].clone(), rows))];
        }
        let none = f64::NEG_INFINITY;
        // `[batch, 1, boxes]`: lower and upper ends along both axes, and areas.
        let columns = [0, 1, 2, 3].map(|c| {
            let own = mir.narrow(boxes, 2, c, 1);
            mir.reshape(own, [batch, 1, count])
        });
        let ends: Vec<mir::Value> = [(0, false), (0, true), (1, false), (1, true)]
            .map(|(axis, upper)| {
                let mut f = Formula::new(DType::F32);
                let (a, b) = (f.operand(0), f.operand(1));
                let end = match (self.suppression.centered, upper) {
                    (true, _) => {
                        let half = f.scale(b, 0.5);
                        if upper { f.add(a, half) } else { f.sub(a, half) }
                    }
                    (false, true) => f.max(a, b),
                    (false, false) => f.min(a, b),
                };
                mir.map(f.finish(end), &[columns[axis], columns[axis + 2]])
            })
            .to_vec();
        let mut f = Formula::new(DType::F32);
        let [low, high, left, right] = [0, 1, 2, 3].map(|i| f.operand(i));
        let (height, width) = (f.sub(high, low), f.sub(right, left));
        let area = f.mul(height, width);
        let area = mir.map(f.finish(area), &ends);
        let parts: Vec<mir::Value> = ends.iter().copied().chain([area]).collect();
        let table: Vec<mir::Value> = parts.iter().map(|&part| mir.reshape(part, [batch * count, 1])).collect();
        let table = mir.concat(&table, 1);
        let overlap = match operand(OVERLAP) {
            Some(overlap) => mir.reshape(overlap, []),
            None => mir.scalar(DType::F32, 0.0),
        };
        let least = match operand(THRESHOLD) {
            Some(least) => mir.reshape(least, []),
            None => mir.scalar(DType::F32, none),
        };
        let counts = mir.compare(Comparison::Greater, scores, least);
        let gone = mir.scalar(DType::F32, none);
        let mut left = mir.select(counts, scores, gone);
        let firsts = ramp(mir, 3, 0, batch, count as i64);
        let numbers = ramp(mir, 3, 2, count, 1);
        let (mut bests, mut places) = (vec![], vec![]);
        for step in 0..steps {
            let best = mir.reduce(Reduction::Max, left, &[2]);
            let place = mir.arg_reduce(left, true, 2, false);
            bests.push(best);
            places.push(place);
            if step + 1 == steps {
                break;
            }
            let flat = mir.binary(Binary::Add, place, firsts);
            let own = mir.gather(table, flat, 0);
            let own = [0, 1, 2, 3, 4].map(|c| {
                let part = mir.narrow(own, 3, c, 1);
                mir.reshape(part, [batch, classes, 1])
            });
            let operands = [&[left], &parts[..], &own, &[overlap, place, numbers]].concat();
            let mut f = Formula::new(DType::F32);
            let of = |f: &mut Formula, i: usize| [f.operand(1 + i), f.operand(6 + i)];
            let common = [0, 2].map(|axis| {
                let [low, own_low] = of(&mut f, axis);
                let [high, own_high] = of(&mut f, axis + 1);
                let (from, to) = (f.max(low, own_low), f.min(high, own_high));
                f.sub(to, from)
            });
            let [first, second] = of(&mut f, 4);
            let shared = f.mul(common[0], common[1]);
            let both = f.add(first, second);
            let all = f.sub(both, shared);
            let share = f.div(shared, all);
            let (zero, limit) = (f.lit(0.0), f.operand(11));
            let mut hidden = f.greater(share, limit);
            for part in [common[0], shared, first, second, all] {
                let real = f.greater(part, zero);
                hidden = f.and(hidden, real);
            }
            let (place_, number) = (f.operand(12), f.operand(13));
            let taken = f.equal(place_, number);
            let over = f.or(hidden, taken);
            let (score, gone) = (f.operand(0), f.lit(none));
            let rest = f.select(over, gone, score);
            left = mir.map(f.finish(rest), &operands);
        }
        let all = batch * classes * steps;
        let flat = |mir: &mut mir::Builder, values: &[mir::Value]| {
            let joined = mir.concat(values, 2);
            mir.reshape(joined, [all])
        };
        let (bests, places) = (flat(mir, &bests), flat(mir, &places));
        // Numbers of what was chosen, in order; those of what was not are behind all.
        let kept = self.count.min(all);
        let mut order = super::constant::iota(mir, all);
        let mut found = bests;
        if kept < all {
            order = mir.sort(bests, true, kept);
            found = mir.gather(bests, order, 0);
        }
        let chosen = mir.compare(Comparison::Greater, found, gone);
        let behind = mir.scalar(DType::I64, all as f64);
        let order = mir.select(chosen, order, behind);
        let sorted = mir.sort(order, false, kept);
        let order = mir.gather(order, sorted, 0);
        let boxes = mir.gather(places, order, 0);
        let column = |mir: &mut mir::Builder, of: usize| {
            let mut f = Formula::new(DType::I64);
            let (number, own, end) = (f.operand(0), f.operand(1), f.lit(all as f64));
            let (by_class, by_batch) = (f.lit(steps as f64), f.lit((classes * steps) as f64));
            let value = match of {
                0 => f.div(number, by_batch),
                1 => {
                    let rest = f.rem(number, by_batch);
                    f.div(rest, by_class)
                }
                _ => own,
            };
            let (is, nothing) = (f.less(number, end), f.lit(-1.0));
            let value = f.select(is, value, nothing);
            let value = mir.map(f.finish(value), &[order, boxes]);
            mir.reshape(value, [kept, 1])
        };
        let columns = [0, 1, 2].map(|of| column(mir, of));
        let rows = mir.concat(&columns, 1);
        vec![mir.pad(rows, &[0, 0], &[self.count - kept, 0], -1.0)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    const BOXES: &str = "const f32[1,6,4]=0,0,1,1,0,0.1,1,1.1,0,-0.1,1,0.9,0,10,1,11,0,10.1,1,11.1,0,100,1,101";
    const SCORES: &str = "const f32[1,1,6]=0.9,0.75,0.6,0.95,0.5,0.3";

    #[test]
    fn boxes_that_overlap_are_left_out() {
        let chosen = |most: &str, least: &str| {
            let operands = [BOXES, SCORES, most, "const f32[]=0.5", least];
            definition("NonMaxSuppression", &operands)[0].ints()
        };
        assert_eq!(chosen("const i64[1]=3", "const f32[]=0"), [0, 0, 3, 0, 0, 0, 0, 0, 5]);
        assert_eq!(chosen("const i64[1]=2", "const f32[]=0"), [0, 0, 3, 0, 0, 0]);
        assert_eq!(chosen("const i64[1]=9", "const f32[]=0.4"), [0, 0, 3, 0, 0, 0]);
        let zeros = definition("NonMaxSuppression", &["const f32[1,2,4]", "const f32[1,1,2]=-0,0", "const i64[]=1"]);
        assert_eq!(zeros[0].ints(), [0, 0, 0]);
        let none = definition("NonMaxSuppression", &[BOXES, SCORES]);
        assert_eq!(none[0].dims(), [0, 3]);
        let two = ["const i64[]=9", "const f32[]=0.5"];
        let rows = definition("rlx:NonMaxSuppression count=2", &[BOXES, SCORES, two[0], two[1]]);
        assert_eq!(rows[0].ints(), [0, 0, 3, 0, 0, 0]);
        let rows = definition("rlx:NonMaxSuppression count=4", &[BOXES, SCORES, two[0], two[1]]);
        assert_eq!(rows[0].ints()[6..], [0, 0, 5, -1, -1, -1]);
    }

    #[test]
    fn misfits_are_refused() {
        refused("NonMaxSuppression", &["f32[1,6,4]", SCORES, "const i64[]=1"]);
        refused("NonMaxSuppression", &[BOXES, "const f32[1,1,5]"]);
        refused("NonMaxSuppression", &[BOXES, SCORES, "i64[]"]);
        refused("NonMaxSuppression", &[BOXES, SCORES, "const i64[2]=1,2"]);
        refused("rlx:NonMaxSuppression", &[BOXES, SCORES]);
        refused("rlx:NonMaxSuppression count=-1", &[BOXES, SCORES]);
        let many = ["f32[1,9999,4]", "f32[1,1,9999]", "const i64[]=9999"];
        refused("rlx:NonMaxSuppression count=9999", &many);
    }
}
