//! Bytes in fours ([`Weights::Quads`](crate::lir::Weights::Quads)): one operand is read in runs of them.

use crate::kernels::expr;
use crate::kernels::nest::{self, Level};
use crate::kir::build::Builder;
use crate::kir::{Shift, Value};
use crate::lir::quads;
use crate::types::DType;

/// A run of bytes of the left operand, in fours.
pub(super) struct Run {
    /// Bytes from its beginning to each element.
    places: Vec<i64>,
}

impl Run {
    pub(super) fn new(places: Vec<i64>) -> Run {
        Run { places }
    }

    fn extent(&self) -> i64 {
        self.places.len() as i64
    }

    pub(super) fn fours(&self) -> i64 {
        quads::fours(self.places.len()) as i64
    }

    /// How many fours are whole, and lie one behind the other.
    pub(super) fn whole(&self) -> i64 {
        let dense = self.places.iter().enumerate().all(|(i, &place)| place == i as i64);
        if dense { self.extent() / 4 } else { 0 }
    }

    /// The levels of a depth of which this is the innermost: those that continue each other are one. The run
    /// grows by what continues it.
    pub(super) fn merged(&self, mut depth: Vec<Level>) -> (Vec<Level>, Option<Run>) {
        let innermost = depth.pop();
        let mut depth = nest::merge(depth);
        let mut places = self.places.clone();
        if let Some(mut innermost) = innermost {
            // The last four of others is read where it is not expected.
            while self.whole() == self.fours()
                && let Some(outer) = depth.pop_if(|outer| outer.continues(&innermost))
            {
                innermost.extent *= outer.extent;
                places = (0..4 * innermost.extent).collect();
            }
            depth.push(innermost);
        }
        (depth, Some(Run { places }))
    }

    /// A four, in all lanes.
    pub(super) fn load(&self, b: &mut Builder, left: Value, at: i64, four: i64) -> Value {
        let first = quads::first(self.places.len(), four as usize);
        let dense =
            |bytes: &[i64]| bytes.iter().zip(bytes[0]..).all(|(&place, next)| place == next);
        if let Some(bytes) = self.places.get(first..first + 4)
            && dense(bytes)
        {
            return expr::load(b, DType::I32, left, at + bytes[0], 1, true);
        }
        let mut all = b.i32(0);
        for byte in 0..4 {
            let element = quads::element(self.places.len(), four as usize, byte as usize);
            let Some(element) = element else { continue };
            let value = expr::load(b, DType::U8, left, at + self.places[element], 1, true);
            let up = if b.machine().big_endian { 24 - 8 * byte } else { 8 * byte };
            let value = b.shift(Shift::Left, value, up);
            all = b.or(all, value);
        }
        all
    }
}
