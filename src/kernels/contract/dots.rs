//! Sums along the depth: for few rows, where the depth of both operands lies in vectors.

use super::tiling::{Streams, Tiling};
use crate::kernels::expr;
use crate::kernels::nest::Part;
use crate::kernels::operations;
use crate::kir::Value;
use crate::kir::build::Builder;

impl Tiling<'_> {
    /// The sums of a tile, part by part in each row. One column is read after the other, so that what comes from
    /// far away comes in its order.
    pub(super) fn dots(
        &self,
        b: &mut Builder,
        Streams { left, right, .. }: Streams,
        rows: &[(i64, i64)],
        parts: &[Part],
    ) -> Vec<Option<Value>> {
        let step = self.within_panel()[self.problem.right()];
        let mut sums = vec![];
        for &row in rows {
            let at = self.place(self.problem.left, row, (0, 0));
            let left = if at == 0 { left } else { b.offset(left, at, 1) };
            for &(at, lanes) in parts {
                let columns: Vec<Value> = (at..at + i64::from(lanes))
                    .map(|column| {
                        let right = b.offset(right, column, step);
                        self.dot(b, [left, right])
                    })
                    .collect();
                sums.push(Some(b.sums_of_lanes(&columns)));
            }
        }
        sums
    }

    /// A row and a column: a vector whose lanes have to be added yet.
    fn dot(&self, b: &mut Builder, [left, right]: [Value; 2]) -> Value {
        /// Vectors that are written out instead of looped over.
        const WRITTEN_OUT: i64 = 16;
        let inputs = self.problem.frame.inputs();
        let [left_type, right_type] =
            [self.problem.left, self.problem.right()].map(|operand| inputs[operand].dtype);
        let whole = b.machine().lanes;
        let lanes = i64::from(whole);
        let [left_step, right_step] = [left_type, right_type].map(|ty| expr::size(ty) * lanes);
        let depth = self.problem.depth[0].extent;
        let (vectors, tail) = (depth / lanes, depth % lanes);
        // As many as it takes until a sum is there for the next product.
        let apart = if b.machine().registers >= 32 { 8 } else { 4 };
        let (rounds, rest) = match vectors {
            0..=WRITTEN_OUT => (0, vectors),
            _ => (vectors / apart, vectors % apart),
        };
        let add = |b: &mut Builder, [left, right]: [Value; 2], at: i64, lanes, sum| {
            let left = expr::load(b, left_type, left, at * left_step, lanes, false);
            let right = expr::load(b, right_type, right, at * right_step, lanes, false);
            operations::add_product(b, left, right, sum)
        };
        let mut sums: Vec<Option<Value>> = vec![None; apart as usize];
        let mut ends = [left, right];
        if rounds > 0 {
            let zero = operations::zero(b, expr::register(self.dtype));
            let start = vec![zero; apart as usize];
            let pointers = [(left, left_step * apart), (right, right_step * apart)];
            let looped = b.fold(0, rounds, &pointers, &start, |b, it| {
                let pointers = [it.pointers[0], it.pointers[1]];
                let sums = (0..).zip(it.carried);
                sums.map(|(at, &sum)| add(b, pointers, at, whole, Some(sum))).collect()
            });
            sums = looped.into_iter().map(Some).collect();
            ends = pointers.map(|(pointer, step)| b.offset(pointer, rounds, step));
        }
        for at in 0..rest {
            let sum = &mut sums[(at % apart) as usize];
            *sum = Some(add(b, ends, at, whole, *sum));
        }
        if tail > 0 {
            let sum = &mut sums[(rest % apart) as usize];
            *sum = Some(add(b, ends, rest, tail as u32, *sum));
        }
        operations::in_pairs(sums.into_iter().flatten().collect(), |one, other| b.add(one, other))
    }
}
