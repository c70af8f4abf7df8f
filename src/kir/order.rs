//! Which lanes of two vectors a shuffle takes.

use std::fmt::{self, Display};

/// The most lanes that a vector has.
const MOST: usize = 16;

/// For each lane of the result, a lane of two vectors one behind the other: those of the second are counted
/// on from those of the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    lanes: u8,
    /// Zero behind the last lane.
    places: [u8; MOST],
}

impl Order {
    /// The order in which lane `i` of so many (at most 16) is `place(i)`, which is below twice as many.
    pub fn new(lanes: u32, place: impl Fn(u32) -> u32) -> Order {
        let mut places = [0; MOST];
        for (to, at) in (0..lanes).zip(&mut places) {
            *at = place(to) as u8;
        }
        Order { lanes: lanes as u8, places }
    }

    /// A step of a transposition. Both vectors are rows of blocks of `distance` lanes; the even blocks side
    /// by side, those of the second after those of the first: lane `i` is `a[i]` where `i / distance` is
    /// even, else `b[i - distance]`. With `odd`, it is the odd blocks: `a[i + distance]` where `i /
    /// distance` is even, else `b[i]`.
    pub fn weave(lanes: u32, distance: u32, odd: bool) -> Order {
        Order::new(lanes, |i| match (i & distance == 0, odd) {
            (true, false) => i,
            (true, true) => i + distance,
            (false, false) => lanes + i - distance,
            (false, true) => lanes + i,
        })
    }

    /// The distance of a step of a transposition, and whether it is odd, where this is one.
    pub fn as_weave(&self) -> Option<(u32, bool)> {
        let lanes = u32::from(self.lanes);
        let distances = (0..lanes.ilog2()).map(|bit| 1 << bit);
        let steps = distances.flat_map(|distance| [(distance, false), (distance, true)]);
        steps.into_iter().find(|&(distance, odd)| *self == Order::weave(lanes, distance, odd))
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> u32 {
        self.lanes.into()
    }

    /// Of each lane, where it comes from.
    pub fn places(&self) -> &[u8] {
        &self.places[..self.lanes.into()]
    }

    /// Which lanes come from the second vector, as bits.
    pub fn from_second(&self) -> u32 {
        let second = |i: usize| u32::from(self.places[i] >= self.lanes) << i;
        (0..self.lanes.into()).map(second).sum()
    }

    /// Where each lane comes from within its vector.
    pub fn within(&self) -> Order {
        Order::new(self.lanes(), |i| u32::from(self.places[i as usize]) % self.lanes())
    }

    /// Whether every lane stays where it is in the first vector.
    pub fn is_first(&self) -> bool {
        self.places().iter().enumerate().all(|(i, &place)| i == usize::from(place))
    }
}

impl Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut places = self.places().iter();
        write!(f, "[")?;
        if let Some(first) = places.next() {
            write!(f, "{first}")?;
        }
        places.try_for_each(|place| write!(f, " {place}"))?;
        write!(f, "]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weaves_are_seen() {
        for lanes in [4, 8, 16] {
            for distance in [1, 2, 4, 8].into_iter().filter(|&d| d < lanes) {
                for odd in [false, true] {
                    let order = Order::weave(lanes, distance, odd);
                    assert_eq!(order.as_weave(), Some((distance, odd)));
                }
            }
            assert_eq!(Order::new(lanes, |i| i).as_weave(), None);
            assert!(Order::new(lanes, |i| i).is_first());
        }
        let order = Order::new(4, |i| [2, 7, 4, 1][i as usize]);
        assert_eq!(order.from_second(), 0b0110);
        assert_eq!(order.to_string(), "[2 7 4 1]");
        assert_eq!(order.within().places(), [2, 3, 0, 1]);
    }
}
