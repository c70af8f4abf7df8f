//! Elements that change their lanes: transpositions, rows in turn, and what lies apart.
//!
//! An element may take a group of neighbouring lanes, a power of two below their number: elements of eight
//! bytes, or short runs, are moved as a whole.

use super::*;

impl Builder {
    /// Lanes of two vectors, or of one twice, in any order.
    pub fn shuffle(&mut self, a: Value, b: Value, place: impl Fn(u32) -> u32) -> Value {
        let order = Order::new(self.kernel.machine.lanes, place);
        match (order.from_second(), order.within()) {
            (0, order) if order.is_first() => a,
            (0, order) => self.define(self.type_of(a), Op::Shuffle { a, b: a, order }),
            (second, within) if within.is_first() && second.count_ones() == order.lanes() => b,
            _ => self.define(self.type_of(a), Op::Shuffle { a, b, order }),
        }
    }

    /// A vector of elements of rows that lie one behind the other: lane `i` is element `place(i)` of them.
    pub fn pick(&mut self, rows: &[Value], place: impl Fn(i64) -> i64) -> Value {
        let lanes = self.lanes();
        let row = |lane: u32| (place(lane.into()) / lanes) as usize;
        let mut used: Vec<usize> = (0..lanes as u32).map(row).collect();
        used.sort_unstable();
        used.dedup();
        let within = |lane: u32| (place(lane.into()) % lanes) as u32;
        let first = self.shuffle(rows[used[0]], rows[used[0]], |lane| match row(lane) == used[0] {
            true if used.len() == 1 => within(lane),
            // What is not to be moved costs nothing.
            true | false => lane,
        });
        let mut known = used[0];
        used.iter().skip(1).enumerate().fold(first, |picked, (n, &next)| {
            let before = std::mem::replace(&mut known, next);
            self.shuffle(picked, rows[next], |lane| match row(lane) {
                at if at == next => lanes as u32 + within(lane),
                at if n == 0 && at == before => within(lane),
                _ => lane,
            })
        })
    }

    /// Rows to columns: `lanes` vectors of `lanes` elements; element `i` of vector `j` becomes
    /// element `j` of vector `i`.
    pub fn transpose(&mut self, rows: &[Value]) -> Vec<Value> {
        assert_eq!(rows.len() as i64, self.lanes(), "a square is transposed");
        self.columns(rows, rows.len())
    }

    /// The sums over the lanes of each row, of which there are at most as many as lanes: element `i` is that of
    /// row `i`, the others are zero.
    pub fn sums_of_lanes(&mut self, rows: &[Value]) -> Value {
        let lanes = self.lanes() as usize;
        assert!((1..=lanes).contains(&rows.len()), "each has a lane");
        let ty = self.type_of(rows[0]);
        let zero = if ty.is_float() { self.float(ty, 0.0) } else { self.integer(ty, 0) };
        let mut rows: Vec<Option<Value>> = rows.iter().copied().map(Some).collect();
        rows.resize(lanes, None);
        while rows.len() > 1 {
            let distance = rows.len() / 2;
            let others = rows.split_off(distance);
            for (row, other) in rows.iter_mut().zip(others) {
                // Only the first may stand alone.
                let Some(a) = *row else { continue };
                let b = other.unwrap_or(zero);
                let [even, odd] = [false, true].map(|odd| self.weave(a, b, distance as u32, odd));
                *row = Some(self.add(even, odd));
            }
        }
        rows.into_iter().flatten().next().unwrap_or(zero)
    }

    /// The first `wanted` columns of a square whose first rows these are: element `i` of row `j` becomes
    /// element `j` of column `i`. The other rows are zeros.
    pub fn columns(&mut self, rows: &[Value], wanted: usize) -> Vec<Value> {
        self.columns_of_groups(rows, wanted, 1)
    }

    /// The same of elements that take `group` lanes.
    pub fn columns_of_groups(&mut self, rows: &[Value], wanted: usize, group: u32) -> Vec<Value> {
        let size = (self.lanes() / i64::from(group)) as usize;
        assert!(rows.len() <= size && wanted <= size && !rows.is_empty(), "they are of a square");
        let zero = match self.type_of(rows[0]).is_float() {
            true => self.f32(0.0),
            false => self.i32(0),
        };
        let mut all: Vec<Option<Value>> = rows.iter().copied().map(Some).collect();
        all.resize(size, None);
        // The steps of a transposition that lead to what is wanted.
        let mut needed = vec![vec![false; size]];
        needed[0][..wanted].fill(true);
        let mut distance = 1;
        while distance < size {
            let behind = &needed[needed.len() - 1];
            needed.push((0..size).map(|i| behind[i] || behind[i ^ distance]).collect());
            distance *= 2;
        }
        needed.pop();
        while let Some(needed) = needed.pop() {
            distance /= 2;
            for i in (0..size).filter(|i| i & distance == 0) {
                let pair = [all[i], all[i + distance]];
                let [a, b] = pair.map(|row| row.unwrap_or(zero));
                for (odd, to) in [(false, i), (true, i + distance)] {
                    let lanes = distance as u32 * group;
                    let wanted = needed[to] && pair != [None; 2];
                    all[to] = wanted.then(|| self.weave(a, b, lanes, odd));
                }
            }
        }
        all.into_iter().take(wanted).map(|column| column.unwrap_or(zero)).collect()
    }

    /// The elements of `rows` in turn: element `i` of row `j` becomes element `i * rows + j` of all that is
    /// returned.
    pub fn interleave(&mut self, rows: &[Value]) -> Vec<Value> {
        self.interleave_groups(rows, 1)
    }

    /// The opposite of [`Builder::interleave`].
    pub fn separate(&mut self, rows: &[Value]) -> Vec<Value> {
        self.separate_groups(rows, 1)
    }

    /// [`Builder::interleave`] of elements that take `group` lanes.
    pub fn interleave_groups(&mut self, rows: &[Value], group: u32) -> Vec<Value> {
        let (count, elements) = (rows.len(), self.lanes() / i64::from(group));
        if count.is_power_of_two() {
            let (swaps, order) = interleaving(count, elements);
            let mut rows = rows.to_vec();
            for (row, lane) in swaps {
                self.exchange(&mut rows, row, lane * group);
            }
            return order.into_iter().map(|at| rows[at]).collect();
        }
        let (few, group) = (factor(count), i64::from(group));
        if few == count {
            let (count, lanes) = (count as i64, self.lanes());
            let vector = |b: &mut Builder, to: i64| {
                b.pick(rows, |lane| {
                    let place = to * lanes + lane;
                    let (element, part) = (place / group, place % group);
                    element % count * lanes + element / count * group + part
                })
            };
            return (0..count).map(|to| vector(self, to)).collect();
        }
        // Of every `few`-th row, and then of these.
        let group = group as u32;
        let part = |b: &mut Builder, first: usize| {
            let rows: Vec<Value> = rows.iter().copied().skip(first).step_by(few).collect();
            b.interleave_groups(&rows, group)
        };
        let parts: Vec<Vec<Value>> = (0..few).map(|first| part(self, first)).collect();
        let chunk = |b: &mut Builder, at: usize| {
            let rows: Vec<Value> = parts.iter().map(|part| part[at]).collect();
            b.interleave_groups(&rows, group)
        };
        (0..count / few).flat_map(|at| chunk(self, at)).collect()
    }

    /// [`Builder::separate`] of elements that take `group` lanes.
    pub fn separate_groups(&mut self, rows: &[Value], group: u32) -> Vec<Value> {
        let (count, elements) = (rows.len(), self.lanes() / i64::from(group));
        if count.is_power_of_two() {
            let (swaps, order) = interleaving(count, elements);
            let mut back = rows.to_vec();
            order.into_iter().zip(rows).for_each(|(at, &row)| back[at] = row);
            for (row, lane) in swaps.into_iter().rev() {
                self.exchange(&mut back, row, lane * group);
            }
            return back;
        }
        let few = factor(count);
        if few == count {
            let group = i64::from(group);
            let row = |b: &mut Builder, row: i64| {
                b.pick(rows, |lane| (lane / group * count as i64 + row) * group + lane % group)
            };
            return (0..count as i64).map(|at| row(self, at)).collect();
        }
        // Chunks of `few` vectors, and then the parts of all chunks.
        let chunks: Vec<Vec<Value>> =
            rows.chunks(few).map(|chunk| self.separate_groups(chunk, group)).collect();
        let mut all = vec![Value::from_u32(0); count];
        for first in 0..few {
            let part: Vec<Value> = chunks.iter().map(|chunk| chunk[first]).collect();
            let separated = self.separate_groups(&part, group);
            all.iter_mut().skip(first).step_by(few).zip(separated).for_each(|(to, row)| *to = row);
        }
        all
    }

    /// Two vectors as rows of blocks of `distance` lanes: the even blocks of both, and the odd ones. Done twice, they
    /// are what they were.
    pub fn exchange_pair(&mut self, a: Value, b: Value, distance: u32) -> [Value; 2] {
        let mut rows = [a, b];
        self.exchange(&mut rows, 1, distance);
        rows
    }

    /// Exchanges a bit of the rows' numbers with one of the lanes': elements whose bit is set in only one of
    /// both change places.
    fn exchange(&mut self, rows: &mut [Value], row: usize, lane: u32) {
        for i in (0..rows.len()).filter(|i| i & row == 0) {
            let (a, b) = (rows[i], rows[i + row]);
            (rows[i], rows[i + row]) =
                (self.weave(a, b, lane, false), self.weave(a, b, lane, true));
        }
    }

    /// A step of a transposition, see [`Order::weave`].
    fn weave(&mut self, a: Value, b: Value, distance: u32, odd: bool) -> Value {
        let order = Order::weave(self.kernel.machine.lanes, distance, odd);
        self.define(self.type_of(a), Op::Shuffle { a, b, order })
    }
}

/// The smallest factor of a number above 1.
fn factor(number: usize) -> usize {
    (2..number).find(|&few| number.is_multiple_of(few)).unwrap_or(number)
}

/// How as many rows are interleaved: the bits of the number of a row and of a lane that are exchanged, in
/// order, and then the rows in theirs.
fn interleaving(rows: usize, lanes: i64) -> (Vec<(usize, u32)>, Vec<usize>) {
    assert!(rows.is_power_of_two(), "the bits of a row's number say which it is");
    let (row_bits, lane_bits) = (rows.ilog2() as usize, lanes.ilog2() as usize);
    // Which bit of an element's place in the result each bit stands for: those of lanes, then of rows.
    let mut lane_places: Vec<usize> = (row_bits..row_bits + lane_bits).collect();
    let mut row_places: Vec<usize> = (0..row_bits).collect();
    let mut swaps = vec![];
    for (bit, lane_place) in lane_places.iter_mut().enumerate() {
        if let Some(row) = row_places.iter().position(|&place| place == bit) {
            std::mem::swap(&mut row_places[row], lane_place);
            swaps.push((1 << row, 1 << bit));
        }
    }
    let row = |to: usize| {
        let bits = row_places.iter().enumerate();
        bits.map(|(bit, &place)| (to >> (place - lane_bits) & 1) << bit).sum()
    };
    (swaps, (0..rows).map(row).collect())
}
