//! Running sums and products along an axis.
//!
//! Where neighbours of another axis lie one behind the other, they are lanes, and the running results stay in
//! registers. Along rows, each vector is scanned by doubling: after each step a lane holds the result of twice
//! as many as before. What all vectors before it came to is then joined to it.

use super::combine::Combine;
use super::expr::{self, in_vectors};
use super::nest::{self, Level, Part, Shares, nest};
use super::{Frame, KernelPlan};
use crate::kir::build::Builder;
use crate::kir::{Type, Value};
use crate::lir::Scan;

/// The kernel; `None` where vectors are of no use.
pub(super) fn kernel(frame: &Frame<'_>, scan: &Scan) -> Option<KernelPlan> {
    let dtype = frame.result().dtype;
    let axes = |range| frame.levels(range);
    let along = axes(scan.axis..scan.axis + 1).next()?;
    let rank = frame.result().dims.len();
    let mut levels: Vec<Level> = axes(0..scan.axis).chain(axes(scan.axis + 1..rank)).collect();
    levels.sort_by_key(|level| std::cmp::Reverse(level.steps[1].abs()));
    let mut levels = nest::merge(levels);
    let size = expr::size(dtype);
    let unit = |level: &Level| level.steps == [size; 2];
    let run = Run { frame, scan, along, combine: Combine::new(scan.op, dtype) };
    if frame.machine.lanes == 1 {
        return Some(run.columns(levels, None));
    }
    if !in_vectors(dtype, &frame.machine) {
        return None;
    }
    if unit(&run.along) && run.along.extent > 1 {
        let words = matches!(expr::register(dtype), Type::F32 | Type::I32);
        return (words && !frame.machine.doubles).then(|| run.rows(levels));
    }
    let lanes = levels.iter().position(unit)?;
    let level = levels.remove(lanes);
    levels.push(level);
    Some(run.columns(levels, Some(size)))
}

struct Run<'a> {
    frame: &'a Frame<'a>,
    scan: &'a Scan,
    along: Level,
    combine: Combine,
}

impl Run<'_> {
    fn load(&self, b: &mut Builder, pointer: Value, offset: i64, lanes: u32) -> Value {
        let value = expr::load(b, self.frame.result().dtype, pointer, offset, lanes, false);
        self.combine.lift(b, value)
    }

    fn store(&self, b: &mut Builder, value: Value, pointer: Value, offset: i64, lanes: u32) {
        let value = self.combine.lower(b, value);
        expr::store(b, self.frame.result().dtype, value, pointer, offset, lanes);
    }

    /// As many neighbours at a time as fit into some vectors, or one; `size` is their distance.
    fn columns(&self, mut levels: Vec<Level>, size: Option<i64>) -> KernelPlan {
        const VECTORS: i64 = 4;
        let (frame, along) = (self.frame, &self.along);
        let work = levels.iter().map(Level::pieces).product::<i64>() * along.extent * 2;
        if let Some(lanes) = levels.pop() {
            let most = if size.is_some() { VECTORS * frame.lanes() } else { 1 };
            levels.push(lanes.in_pieces(most));
        } else {
            levels.push(Level::unit(2));
        }
        let at = levels.len() - 1;
        let shares = Shares::of(&levels);
        let (mut b, pointers) = frame.open(shares.extent());
        nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, sizes| {
            let parts = nest::parts(b, sizes[at]);
            let (first, by) = match self.scan.reverse {
                true => (along.extent - 1, along.steps.iter().map(|step| -step).collect()),
                false => (0, along.steps.clone()),
            };
            let p = nest::moved(b, p, first, &along.steps);
            let starts: Vec<Value> = parts.iter().map(|_| self.combine.start(b)).collect();
            nest::advancing(b, along.extent, &p, &by, &starts, |b, p, running| {
                let one = |b: &mut Builder, (&(at, lanes), &running): (&Part, &Value)| {
                    let offset = at * size.unwrap_or(0);
                    let value = self.load(b, p[0], offset, lanes);
                    let next = self.combine.join(b, running, value);
                    let result = if self.scan.exclusive { running } else { next };
                    self.store(b, result, p[1], offset, lanes);
                    next
                };
                parts.iter().zip(running).map(|part| one(b, part)).collect()
            });
        });
        frame.close(b, work)
    }

    /// Rows whose elements lie one behind the other.
    fn rows(&self, mut levels: Vec<Level>) -> KernelPlan {
        let (frame, size) = (self.frame, self.along.steps[0]);
        let (lanes, extent) = (frame.lanes(), self.along.extent);
        if levels.is_empty() {
            levels.push(Level::unit(2));
        }
        let work = levels.iter().map(Level::pieces).product::<i64>() * extent * 2;
        let shares = Shares::of(&levels);
        let (mut b, pointers) = frame.open(shares.extent());
        nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, _| {
            let (whole, left) = (extent / lanes, extent % lanes);
            let step = lanes * size;
            let start = self.combine.start(b);
            let vectors = |b: &mut Builder, running: Value| match self.scan.reverse {
                false => nest::advancing(b, whole, p, &[step; 2], &[running], |b, p, running| {
                    vec![self.vector(b, p, lanes as u32, running[0], start)]
                }),
                true => {
                    let p = nest::moved(b, p, whole - 1, &[step; 2]);
                    nest::advancing(b, whole, &p, &[-step; 2], &[running], |b, p, running| {
                        vec![self.vector(b, p, lanes as u32, running[0], start)]
                    })
                }
            };
            let rest = |b: &mut Builder, running: Value| {
                let p = nest::moved(b, p, whole, &[step; 2]);
                self.vector(b, &p, left as u32, running, start)
            };
            let mut running = start;
            if self.scan.reverse && left > 0 {
                running = rest(b, running);
            }
            if whole > 0 {
                running = vectors(b, running)[0];
            }
            if !self.scan.reverse && left > 0 {
                rest(b, running);
            }
        });
        frame.close(b, work)
    }

    /// Writes a vector of a row, and gives what all comes to up to there, in all lanes.
    fn vector(
        &self,
        b: &mut Builder,
        p: &[Value],
        count: u32,
        running: Value,
        nothing: Value,
    ) -> Value {
        let (combine, lanes) = (self.combine, b.lanes() as u32);
        let value = self.load(b, p[0], 0, count);
        let mut sums = b.first(value, nothing, count);
        // Lanes so much earlier, and nothing where there are none.
        let shifted = |b: &mut Builder, sums: Value, by: u32| {
            b.shuffle(sums, nothing, |lane| match self.scan.reverse {
                false => lane.checked_sub(by).unwrap_or(lanes),
                true => (lane + by).min(lanes),
            })
        };
        let mut by = 1;
        while by < lanes {
            let earlier = shifted(b, sums, by);
            sums = combine.join(b, earlier, sums);
            by *= 2;
        }
        let last = if self.scan.reverse { 0 } else { lanes - 1 };
        let all = b.shuffle(sums, sums, |_| last);
        let own = if self.scan.exclusive { shifted(b, sums, 1) } else { sums };
        let result = combine.join(b, running, own);
        self.store(b, result, p[1], 0, count);
        combine.join(b, running, all)
    }
}
