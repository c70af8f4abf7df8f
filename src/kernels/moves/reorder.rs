//! Copies in which neighbours do not stay neighbours: transpositions, rows in turn, every n-th element.
//!
//! What moves is a group: a few words that do stay together, as many as a power of two below the lanes of a
//! vector. An element of eight bytes is two words.

use super::super::nest::{Level, Shares, nest};
use super::super::{Frame, KernelPlan};
use super::Word;
use crate::kir::Value;
use crate::kir::build::Builder;

/// So many rows, at most, are woven together.
const MOST_ROWS: i64 = 8;

/// Groups that lie further apart, in words, are not worth the vectors that lie between them.
const MOST_APART: i64 = 8;

/// The words that stay together, and how many of them a vector has.
#[derive(Clone, Copy)]
struct Group {
    word: Word,
    words: i64,
    /// Groups in a vector.
    lanes: i64,
}

impl Group {
    fn bytes(self) -> i64 {
        self.words * self.word.bytes
    }

    /// The first of so many groups.
    fn load(self, b: &mut Builder, pointer: Value, offset: i64, groups: i64) -> Value {
        self.word.load(b, pointer, offset, (groups * self.words) as u32)
    }

    fn store(self, b: &mut Builder, value: Value, pointer: Value, offset: i64, groups: i64) {
        self.word.store(b, value, pointer, offset, (groups * self.words) as u32);
    }
}

/// The copy, if vectors make it faster.
pub(super) fn copy(frame: &Frame<'_>, levels: &[Level], word: Word) -> Option<KernelPlan> {
    let (words, levels) = match levels.split_last()? {
        (run, outer) if run.steps == [word.bytes; 2] => (run.extent, outer),
        _ => (1, levels),
    };
    if words * 2 > frame.lanes() || !(words as u64).is_power_of_two() {
        return None;
    }
    let group = Group { word, words, lanes: frame.lanes() / words };
    let unit = |pointer: usize| levels.iter().position(|l| l.steps[pointer] == group.bytes());
    let to = unit(1)?;
    let Some(from) = unit(0) else {
        let apart = levels[to].steps[0] / word.bytes;
        return (apart.abs() <= MOST_APART).then(|| strided(frame, levels.to_vec(), group, to));
    };
    let narrow = |axis: usize, pointer: usize, other: usize| {
        let Level { extent, .. } = levels[axis];
        (2..=MOST_ROWS).contains(&extent) && levels[other].steps[pointer] == extent * group.bytes()
    };
    let levels = levels.to_vec();
    Some(match (narrow(to, 1, from), narrow(from, 0, to)) {
        (true, _) => weave(frame, levels, group, Weave::Together { rows: to, along: from }),
        (_, true) => weave(frame, levels, group, Weave::Apart { rows: from, along: to }),
        _ => transpose(frame, levels, group, from, to),
    })
}

/// A few rows and their elements in turn.
#[derive(Clone, Copy)]
enum Weave {
    /// From rows to turns.
    Together { rows: usize, along: usize },
    /// From turns to rows.
    Apart { rows: usize, along: usize },
}

fn weave(frame: &Frame<'_>, mut levels: Vec<Level>, group: Group, way: Weave) -> KernelPlan {
    let (Weave::Together { rows, along } | Weave::Apart { rows, along }) = way;
    let count = levels[rows].extent;
    let work = levels.iter().map(Level::pieces).product::<i64>() * group.words;
    let steps = levels[rows].steps.clone();
    levels[rows] = levels[rows].clone().in_pieces(count);
    levels[along] = levels[along].clone().in_pieces(group.lanes);
    let shares = Shares::of(&levels);
    let (mut b, pointers) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, sizes| {
        let columns = sizes[along];
        // What is in turn, as vectors: where each begins, and how much of it there is.
        let turns = |row: i64| {
            let first = row * group.lanes;
            (first * group.bytes(), (count * columns - first).clamp(0, group.lanes))
        };
        let zero = b.i32(0);
        let load = |b: &mut Builder, (offset, groups): (i64, i64)| match groups {
            0 => zero,
            _ => group.load(b, p[0], offset, groups),
        };
        let store = |b: &mut Builder, value: Value, (offset, groups): (i64, i64)| match groups {
            0 => {}
            _ => group.store(b, value, p[1], offset, groups),
        };
        let words = group.words as u32;
        match way {
            Weave::Together { .. } => {
                let values: Vec<Value> =
                    (0..count).map(|row| load(b, (row * steps[0], columns))).collect();
                for (row, value) in (0..).zip(b.interleave_groups(&values, words)) {
                    store(b, value, turns(row));
                }
            }
            Weave::Apart { .. } => {
                let values: Vec<Value> = (0..count).map(|row| load(b, turns(row))).collect();
                for (row, value) in (0..).zip(b.separate_groups(&values, words)) {
                    store(b, value, (row * steps[1], columns));
                }
            }
        }
    });
    frame.close(b, work)
}

/// Squares that are transposed in registers: rows lie along axis `from` in the operand and along
/// axis `to` in the result.
fn transpose(
    frame: &Frame<'_>,
    mut levels: Vec<Level>,
    group: Group,
    from: usize,
    to: usize,
) -> KernelPlan {
    let work = levels.iter().map(Level::pieces).product::<i64>() * 2 * group.words;
    for axis in [from, to] {
        levels[axis] = levels[axis].clone().in_pieces(group.lanes);
    }
    let shares = Shares::of(&levels);
    let (row_step, column_step) = (levels[to].steps[0], levels[from].steps[1]);
    let (mut b, pointers) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, sizes| {
        let (columns, rows) = (sizes[from], sizes[to]);
        let square: Vec<Value> =
            (0..rows).map(|row| group.load(b, p[0], row * row_step, columns)).collect();
        let square = b.columns_of_groups(&square, columns as usize, group.words as u32);
        for (column, value) in (0..).zip(square) {
            group.store(b, value, p[1], column * column_step, rows);
        }
    });
    frame.close(b, work)
}

/// Groups that lie one behind the other in the result only: what lies between them is loaded, too.
fn strided(frame: &Frame<'_>, mut levels: Vec<Level>, group: Group, to: usize) -> KernelPlan {
    const UNROLL: i64 = 4;
    let (lanes, words, bytes) = (frame.lanes(), group.words, group.word.bytes);
    let apart = levels[to].steps[0] / bytes;
    let work = levels.iter().map(Level::pieces).product::<i64>() * words * apart.abs().max(1);
    levels[to] = levels[to].clone().in_pieces(UNROLL * group.lanes);
    let shares = Shares::of(&levels);
    let (mut b, pointers) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, sizes| {
        let size = sizes[to];
        for first in (0..size).step_by(group.lanes as usize) {
            let groups = group.lanes.min(size - first);
            // The lowest word, and how many there are to the highest.
            let [one, other] = [first, first + groups - 1].map(|at| at * apart);
            let (low, span) = (one.min(other), (one - other).abs() + words);
            let vectors: Vec<Value> = (0..span)
                .step_by(lanes as usize)
                .map(|at| {
                    let lanes = lanes.min(span - at) as u32;
                    group.word.load(b, p[0], (low + at) * bytes, lanes)
                })
                .collect();
            let value = b.pick(&vectors, |lane| {
                // Lanes that are not stored may be anything.
                let lane = if lane < groups * words { lane } else { 0 };
                one - low + lane / words * apart + lane % words
            });
            group.store(b, value, p[1], first * group.bytes(), groups);
        }
    });
    frame.close(b, work)
}

/// Vectors that are loaded for one, at most.
const MOST_VECTORS: i64 = 6;

/// The first word of the first of the vectors of a row that such words are in.
fn first(words: &[i64], all: i64, lanes: i64) -> i64 {
    // From the row's beginning they are the same vectors for others, too.
    if all <= MOST_VECTORS * lanes { 0 } else { words.iter().copied().min().unwrap_or(0) }
}

/// Whether words of a row with so many are in few vectors.
pub(super) fn is_near(words: &[i64], all: i64, lanes: i64) -> bool {
    let first = first(words, all, lanes);
    words.iter().all(|word| (word - first) / lanes < MOST_VECTORS)
}

/// A vector of words of a row with so many, in this order.
pub(super) fn near(b: &mut Builder, word: Word, row: Value, all: i64, words: &[i64]) -> Value {
    let lanes = b.lanes();
    let first = first(words, all, lanes);
    let count = words.iter().map(|at| (at - first) / lanes + 1).max().unwrap_or(1);
    let vectors: Vec<Value> = (0..count)
        .map(|vector| {
            let at = first + vector * lanes;
            word.load(b, row, at * word.bytes, lanes.min(all - at) as u32)
        })
        .collect();
    b.pick(&vectors, |lane| words.get(lane as usize).unwrap_or(&words[0]) - first)
}
