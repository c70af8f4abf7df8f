//! Row programs: element-wise expressions, and chains of them with reductions over rows.
//!
//! A program of one stage without a reduction is a loop nest in whatever order suits the result. Any
//! other goes over each row in passes: a reduced stage ends the pass that computes it, and what
//! comes after is a pass of its own, in which cheap expressions are computed again. An expensive one
//! is computed once and kept in the row of the result until that is written. Short rows are kept in
//! registers instead, and those of a vector or two lie side by side in lanes (`short`).

mod short;

use super::combine::Combine;
use super::expr::{self, Body};
use super::nest::{self, Level, Part, Shares, nest, strips};
use super::{Frame, KernelPlan, Shape};
use crate::error::ErrorKind;
use crate::kir::Value;
use crate::kir::build::Builder;
use crate::lir::{Reduction, Rows, Scalar};

/// What is computed of a stage, above which it is worth a store and a load.
const EXPENSIVE: i64 = 12;

/// The kernel, or `None` where the accesses or the types are not for vectors.
pub(super) fn kernel(frame: &Frame<'_>, rows: &Rows) -> Result<Option<KernelPlan>, ErrorKind> {
    let program = Program::new(frame, rows)?;
    if frame.machine.lanes > 1 && !program.fits_vectors(frame) {
        return Ok(None);
    }
    if let [stage] = &program.stages[..]
        && stage.reduce.is_none()
    {
        return Ok(Some(map(frame, &program)));
    }
    Ok(Some(short::kernel(frame, &program).unwrap_or_else(|| program.passes(frame))))
}

/// A program, ready to be written for rows.
pub(super) struct Program<'a> {
    operands: usize,
    width: i64,
    stages: Vec<Stage<'a>>,
    /// How many reductions must have ended before a stage can be computed.
    pass: Vec<usize>,
    /// Whether the result depends on it.
    needed: Vec<bool>,
    /// The stage that is kept in the result's row.
    kept: Option<usize>,
}

struct Stage<'a> {
    body: Body<'a>,
    reduce: Option<Combine>,
}

impl<'a> Program<'a> {
    /// The program for rows that lie as the frame says.
    pub(super) fn new(frame: &Frame<'_>, rows: &'a Rows) -> Result<Program<'a>, ErrorKind> {
        let operands = frame.inputs().len();
        let mut types: Vec<_> = frame.inputs().iter().map(|shape| shape.dtype).collect();
        let mut stages: Vec<Stage<'a>> = vec![];
        let mut pass: Vec<usize> = vec![];
        for stage in &rows.stages {
            let mut body = Body::new(&stage.expr, &types)?;
            body.know_largest(|largest, of| {
                let stage = largest.checked_sub(operands).map(|stage| &rows.stages[stage]);
                stage.is_some_and(|stage| {
                    stage.reduce == Some(Reduction::Max)
                        && matches!(stage.expr.nodes[..], [Scalar::Operand(n)] if n as usize == of)
                })
            });
            types.push(body.dtype());
            let after = |i: usize| match i.checked_sub(operands) {
                Some(i) => pass[i] + usize::from(stages[i].reduce.is_some()),
                None => 0,
            };
            pass.push(body.operands().into_iter().map(after).max().unwrap_or(0));
            let reduce = stage.reduce.map(|op| Combine::new(op, body.dtype()));
            stages.push(Stage { body, reduce });
        }
        let mut needed = vec![false; stages.len()];
        if let Some(last) = needed.last_mut() {
            *last = true;
        }
        for i in (0..stages.len()).rev() {
            if needed[i] {
                let stages = stages[i].body.operands().into_iter();
                stages.filter_map(|n| n.checked_sub(operands)).for_each(|n| needed[n] = true);
            }
        }
        let width = rows.width as i64;
        let mut program = Program { operands, width, stages, pass, needed, kept: None };
        program.kept = program.worth_keeping(frame);
        Ok(program)
    }

    fn last(&self) -> usize {
        self.stages.len() - 1
    }

    /// An expensive stage that a later pass needs, if the result's row has place for it: nothing that
    /// a later pass reads may lie there.
    fn worth_keeping(&self, frame: &Frame<'_>) -> Option<usize> {
        let last = self.last();
        let result = frame.result();
        let place = self.stages[last].reduce.is_none() && result.stride(-1) != 0;
        let candidate = |&i: &usize| {
            let body = &self.stages[i].body;
            self.needed[i]
                && self.stages[i].reduce.is_none()
                && self.pass[i] < self.pass[last]
                && body.cost() >= EXPENSIVE
                && body.dtype() == result.dtype
                && !self.read_after(i).iter().any(|&operand| frame.in_place(operand))
        };
        (0..last).filter(|_| place).filter(candidate).max_by_key(|&i| self.stages[i].body.cost())
    }

    /// The operands that passes after that of `kept` read, when `kept` need not be computed again.
    fn read_after(&self, kept: usize) -> Vec<usize> {
        let mut read = vec![];
        let mut todo: Vec<usize> = (0..self.stages.len())
            .filter(|&i| self.needed[i] && self.pass[i] > self.pass[kept])
            .filter(|&i| i == self.last() || self.stages[i].reduce.is_some())
            .collect();
        while let Some(stage) = todo.pop() {
            for n in self.stages[stage].body.operands() {
                match n.checked_sub(self.operands) {
                    None => read.push(n),
                    Some(n) if n != kept && self.stages[n].reduce.is_none() => todo.push(n),
                    Some(_) => {}
                }
            }
        }
        read
    }

    /// Whether vectors have all types and operations, and rows lie as they need.
    pub(super) fn fits_vectors(&self, frame: &Frame<'_>) -> bool {
        let map = self.stages.len() == 1 && self.stages[0].reduce.is_none();
        let unit = |shape: &Shape, step: i64| step == expr::size(shape.dtype);
        let types = frame.shapes().all(|shape| expr::in_vectors(shape.dtype, &frame.machine));
        types
            && (map || !frame.machine.doubles)
            && self.stages.iter().all(|stage| stage.body.in_vectors(&frame.machine))
            && if map {
                let steps = map_levels(frame).pop().map(|row| row.steps);
                steps.is_none_or(|steps| {
                    let (result, operands) = steps.split_last().expect("there is a result");
                    let mut inputs = frame.inputs().iter().zip(operands);
                    unit(frame.result(), *result)
                        && inputs.all(|(shape, &step)| step == 0 || unit(shape, step))
                })
            } else {
                let one = |shape: &Shape| shape.dims.last().is_none_or(|&d| d == 1);
                frame.shapes().all(|s| s.stride(-1) == 0 || one(s) || unit(s, s.stride(-1)))
            }
    }

    fn passes(&self, frame: &Frame<'_>) -> KernelPlan {
        let rank = frame.result().dims.len();
        let mut levels = nest::merge(frame.levels(0..rank.saturating_sub(1)));
        if levels.is_empty() {
            levels.push(Level::unit(frame.shapes().count()));
        }
        let shares = Shares::of(&levels);
        let cost: i64 = self.stages.iter().map(|s| s.body.cost() + 2).sum();
        let work = levels.iter().map(Level::pieces).product::<i64>() * self.width * cost;
        let (mut b, pointers) = frame.open(shares.extent());
        nest(&mut b, &levels, Some(shares), &pointers, &mut |b, pointers, _| {
            self.write(frame, b, pointers);
        });
        frame.close(b, work)
    }

    /// Writes the program for one row.
    pub(super) fn write(&self, frame: &Frame<'_>, b: &mut Builder, pointers: &[Value]) {
        let vectors = (self.width + b.lanes() - 1) / b.lanes();
        Row::new(self, frame, b, pointers, vectors <= 4).write(b);
    }
}

/// One row that is being written.
struct Row<'a> {
    program: &'a Program<'a>,
    frame: &'a Frame<'a>,
    pointers: &'a [Value],
    /// Bytes from an element to the next, per pointer.
    steps: Vec<i64>,
    /// What is the same for the whole row: of operands, then of stages.
    uniform: Vec<Option<Value>>,
    /// Per stage, what is uniform in its expression.
    hoisted: Vec<Vec<Option<Value>>>,
    /// Values of the parts of a row that stays in registers.
    parts: Option<Vec<Memo>>,
}

/// What is known of a part of a row: of operands, then of stages.
type Memo = Vec<Option<Value>>;

impl<'a> Row<'a> {
    fn new(
        program: &'a Program<'a>,
        frame: &'a Frame<'a>,
        b: &mut Builder,
        pointers: &'a [Value],
        resident: bool,
    ) -> Row<'a> {
        let single = program.width == 1;
        let mut steps: Vec<i64> =
            frame.shapes().map(|s| if single { 0 } else { s.stride(-1) }).collect();
        if program.stages[program.last()].reduce.is_some() {
            // One element a row.
            steps.pop();
            steps.push(0);
        }
        let values = program.operands + program.stages.len();
        let mut uniform = vec![None; values];
        for (i, shape) in frame.inputs().iter().enumerate() {
            if steps[i] == 0 && program.width > 1 {
                uniform[i] = Some(expr::load(b, shape.dtype, pointers[i], 0, 1, true));
            }
        }
        let parts = nest::parts(b, program.width).len();
        let parts = resident.then(|| vec![vec![None; values]; parts]);
        Row { program, frame, pointers, steps, uniform, hoisted: vec![], parts }
    }

    fn write(&mut self, b: &mut Builder) {
        let program = self.program;
        let passes = program.pass.iter().max().map_or(0, |last| last + 1);
        for pass in 0..passes {
            let in_pass = |&i: &usize| program.needed[i] && program.pass[i] == pass;
            let stages: Vec<usize> = (0..program.stages.len()).filter(in_pass).collect();
            let reduced: Vec<usize> =
                stages.iter().copied().filter(|&i| program.stages[i].reduce.is_some()).collect();
            let kept = program.kept.filter(|kept| self.parts.is_none() && stages.contains(kept));
            let last = Some(program.last())
                .filter(|last| stages.contains(last) && program.stages[*last].reduce.is_none());
            if reduced.is_empty() && last.is_none() {
                continue;
            }
            self.hoist(b, pass);
            self.pass(b, pass, &reduced, kept.into_iter().chain(last).next());
        }
        if program.stages[program.last()].reduce.is_some() {
            let value = self.uniform[program.operands + program.last()];
            let value = value.expect("every pass was written");
            let at = self.pointers[self.pointers.len() - 1];
            expr::store(b, self.frame.result().dtype, value, at, 0, 1);
        }
    }

    fn hoist(&mut self, b: &mut Builder, pass: usize) {
        let known = &self.uniform;
        let stages = self.program.stages.iter().zip(&self.program.pass);
        self.hoisted = stages
            .map(|(stage, &needs)| match needs <= pass {
                true => stage.body.hoist(b, &|n| known[n]),
                false => vec![],
            })
            .collect();
    }

    /// Goes over the row once: reduces stages, and stores one in the result's row.
    fn pass(&mut self, b: &mut Builder, pass: usize, reduced: &[usize], stored: Option<usize>) {
        let program = self.program;
        let combine = |i: usize| program.stages[i].reduce.expect("only reduced stages are asked");
        let cost: i64 = reduced.iter().chain(&stored).map(|&i| self.cost(i, pass)).sum();
        let unroll = match (&self.parts, cost) {
            (Some(parts), _) => parts.len() as i64,
            (None, ..=8) => 4,
            (None, _) => b.at_once(),
        };
        let unroll = unroll.max(1);
        let start: Vec<Value> = reduced
            .iter()
            .flat_map(|&i| {
                let start = combine(i).start(b);
                vec![start; unroll as usize]
            })
            .collect();
        let (pointers, steps) = (self.pointers, self.steps.clone());
        let sums =
            strips(b, program.width, unroll, pointers, &steps, &start, &mut |b, p, sums, parts| {
                let mut sums = sums.to_vec();
                let slots: Vec<(usize, Part)> = parts.iter().copied().enumerate().collect();
                b.in_turn(&slots, |b, &(slot, part)| {
                    let fresh = || vec![None; program.operands + program.stages.len()];
                    let mut memo = match &mut self.parts {
                        Some(parts) => std::mem::take(&mut parts[slot]),
                        None => fresh(),
                    };
                    for (n, &i) in reduced.iter().enumerate() {
                        let value = self.value(b, p, program.operands + i, part, pass, &mut memo);
                        let value = combine(i).lift(b, value);
                        let nothing = start[n * unroll as usize];
                        let value = b.first(value, nothing, part.1);
                        let at = n * unroll as usize + slot;
                        sums[at] = combine(i).join(b, sums[at], value);
                    }
                    if let Some(i) = stored {
                        let value = self.value(b, p, program.operands + i, part, pass, &mut memo);
                        let to = p.len() - 1;
                        let offset = part.0 * self.steps[to];
                        expr::store(b, self.frame.result().dtype, value, p[to], offset, part.1);
                    }
                    if let Some(parts) = &mut self.parts {
                        parts[slot] = memo;
                    }
                });
                sums
            });
        for (n, &i) in reduced.iter().enumerate() {
            let partial = &sums[n * unroll as usize..][..unroll as usize];
            let value = combine(i).across(b, partial);
            self.uniform[program.operands + i] = Some(combine(i).lower(b, value));
        }
    }

    /// What it costs to compute a stage in a pass, with all that it needs.
    fn cost(&self, stage: usize, pass: usize) -> i64 {
        let program = self.program;
        let body = &program.stages[stage].body;
        let inner = body.operands().into_iter().filter_map(|n| n.checked_sub(program.operands));
        let inner = inner.filter(|&n| program.stages[n].reduce.is_none());
        let inner = inner.filter(|&n| !self.is_kept(n, pass));
        body.cost() + 1 + inner.map(|n| self.cost(n, pass)).sum::<i64>()
    }

    fn is_kept(&self, stage: usize, pass: usize) -> bool {
        self.parts.is_none() && self.program.kept == Some(stage) && pass > self.program.pass[stage]
    }

    /// The value of an operand or a stage in a part of the row.
    fn value(
        &self,
        b: &mut Builder,
        p: &[Value],
        index: usize,
        part: Part,
        pass: usize,
        memo: &mut Memo,
    ) -> Value {
        if let Some(value) = self.uniform[index].or(memo[index]) {
            return value;
        }
        let (at, lanes) = part;
        let load = |b: &mut Builder, n: usize, dtype| {
            expr::load(b, dtype, p[n], at * self.steps[n], lanes, false)
        };
        let value = match index.checked_sub(self.program.operands) {
            None => load(b, index, self.frame.inputs()[index].dtype),
            Some(stage) if self.is_kept(stage, pass) => {
                load(b, p.len() - 1, self.frame.result().dtype)
            }
            Some(stage) => {
                let known = self.hoisted[stage].clone();
                self.program.stages[stage]
                    .body
                    .emit(b, &known, &mut |b, n| self.value(b, p, n, part, pass, memo))
            }
        };
        memo[index] = Some(value);
        value
    }
}

/// The axes of an element-wise kernel, in the order in which the result lies in memory.
fn map_levels(frame: &Frame<'_>) -> Vec<Level> {
    let mut levels: Vec<Level> = frame.levels(0..frame.result().dims.len()).collect();
    let step = |level: &Level| level.steps.last().map_or(0, |step| step.abs());
    levels.sort_by_key(|level| std::cmp::Reverse(step(level)));
    nest::merge(levels)
}

/// One expression over all elements.
fn map(frame: &Frame<'_>, program: &Program<'_>) -> KernelPlan {
    const BLOCK: i64 = 64;
    let mut levels = map_levels(frame);
    let row = levels.pop().unwrap_or_else(|| Level::unit(frame.shapes().count()));
    let body = &program.stages[0].body;
    let lanes = i64::from(frame.machine.lanes);
    let around: i64 = levels.iter().map(Level::pieces).product();
    let size = if around >= 16 { row.extent } else { BLOCK * lanes };
    let steps = row.steps.clone();
    levels.push(row.in_pieces(size));
    let row = levels.len() - 1;
    let shares = Shares::of(&levels);
    let work = around * levels[row].extent * (body.cost() + 2);
    let (mut b, pointers) = frame.open(shares.extent());
    let unroll = if body.cost() <= 8 { 4 } else { b.at_once() };
    let single = levels[row].extent == 1;
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, pointers, sizes| {
        let load = |b: &mut Builder, p: &[Value], n: usize, (at, lanes): Part| {
            let splat = steps[n] == 0 && !single;
            expr::load(b, frame.inputs()[n].dtype, p[n], at * steps[n], lanes, splat)
        };
        let operands = body.operands();
        let mut uniform: Vec<Option<Value>> = vec![None; frame.inputs().len()];
        for n in operands.into_iter().filter(|&n| steps[n] == 0 && !single) {
            uniform[n] = Some(load(b, pointers, n, (0, 1)));
        }
        let known = body.hoist(b, &|n| uniform[n]);
        strips(b, sizes[row], unroll, pointers, &steps, &[], &mut |b, p, _, parts| {
            b.in_turn(parts, |b, &part| {
                let value = body.emit(b, &known, &mut |b, n| match uniform[n] {
                    Some(value) => value,
                    None => load(b, p, n, part),
                });
                let to = p.len() - 1;
                let dtype = frame.result().dtype;
                expr::store(b, dtype, value, p[to], part.0 * steps[to], part.1);
            });
            vec![]
        });
    });
    frame.close(b, work)
}
