//! What computes nothing: copies, gathers and constants.
//!
//! The type of the elements does not matter, only their size. Those of 8 bytes are pairs of words of
//! 4, so that vectors copy all of them.

mod reorder;

use super::expr::{self, reach};
use super::nest::{self, Level, Shares, nest, strips};
use super::{Frame, KernelPlan};
use crate::error::ErrorKind;
use crate::kir::build::Builder;
use crate::kir::{Memory, Value};
use crate::lir::Literal;
use crate::types::DType;

/// What is copied at once: its kind, its bytes, and how many make an element.
#[derive(Clone, Copy)]
pub(super) struct Word {
    memory: Memory,
    pub(super) bytes: i64,
    count: i64,
}

impl Word {
    pub(super) fn of(dtype: DType) -> Word {
        match expr::size(dtype) {
            size @ (4 | 8) => Word { memory: Memory::I32, bytes: 4, count: size / 4 },
            2 => Word { memory: Memory::I16, bytes: 2, count: 1 },
            _ => Word { memory: Memory::I8, bytes: 1, count: 1 },
        }
    }

    /// The axis over the words of an element.
    pub(super) fn level(self, pointers: usize) -> Level {
        Level::axis(self.count, vec![self.bytes; pointers])
    }

    pub(super) fn load(self, b: &mut Builder, pointer: Value, offset: i64, lanes: u32) -> Value {
        let (pointer, offset) = reach(b, pointer, offset);
        b.load_as(self.memory, pointer, offset, lanes)
    }

    pub(super) fn store(
        self,
        b: &mut Builder,
        value: Value,
        pointer: Value,
        offset: i64,
        lanes: u32,
    ) {
        let (pointer, offset) = reach(b, pointer, offset);
        b.store_as(self.memory, value, pointer, offset, lanes);
    }

    /// Copies a row whose elements lie one behind the other in both.
    fn copy_row(self, b: &mut Builder, words: i64, from: Value, to: Value) {
        let steps = [self.bytes; 2];
        strips(b, words, 8, &[from, to], &steps, &[], &mut |b, p, _, parts| {
            let values: Vec<Value> =
                parts.iter().map(|&(at, n)| self.load(b, p[0], at * self.bytes, n)).collect();
            for (value, &(at, lanes)) in values.into_iter().zip(parts) {
                self.store(b, value, p[1], at * self.bytes, lanes);
            }
            vec![]
        });
    }
}

/// Copies the operand; `None` where vectors are of no use.
pub(super) fn copy(frame: &Frame<'_>) -> Option<KernelPlan> {
    let word = Word::of(frame.result().dtype);
    let mut levels: Vec<Level> = frame.levels(0..frame.result().dims.len()).collect();
    levels.sort_by_key(|level| std::cmp::Reverse(level.steps[1].abs()));
    levels.push(word.level(2));
    let levels = nest::merge(levels);
    let rows = match levels.last() {
        Some(level) => level.steps == [word.bytes; 2],
        None => return Some(copy_rows(frame, vec![word.level(2)], word)),
    };
    if frame.machine.lanes == 1 {
        let copy = if rows { copy_rows } else { copy_elements };
        return Some(copy(frame, levels, word));
    }
    match reorder::copy(frame, &levels, word) {
        Some(plan) => Some(plan),
        None => rows.then(|| copy_rows(frame, levels, word)),
    }
}

fn copy_rows(frame: &Frame<'_>, mut levels: Vec<Level>, word: Word) -> KernelPlan {
    const BLOCK: i64 = 64;
    let Some(row) = levels.pop() else { unreachable!("there is at least a row of one word") };
    let around: i64 = levels.iter().map(Level::pieces).product();
    let size = if around >= 16 { row.extent } else { BLOCK * frame.lanes() };
    let work = around * row.extent;
    levels.push(row.in_pieces(size));
    let last = levels.len() - 1;
    let shares = Shares::of(&levels);
    let (mut b, pointers) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, sizes| {
        word.copy_row(b, sizes[last], p[0], p[1]);
    });
    frame.close(b, work)
}

/// One word at a time.
fn copy_elements(frame: &Frame<'_>, mut levels: Vec<Level>, word: Word) -> KernelPlan {
    let work = levels.iter().map(Level::pieces).product::<i64>() * 2;
    let row = if levels.len() > 1 { levels.pop() } else { None };
    let row = row.unwrap_or_else(|| Level::unit(2));
    let shares = Shares::of(&levels);
    let (mut b, pointers) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, _| {
        strips(b, row.extent, 8, p, &row.steps, &[], &mut |b, p, _, parts| {
            let load = |&(at, n)| word.load(b, p[0], at * row.steps[0], n);
            let values: Vec<Value> = parts.iter().map(load).collect();
            for (value, &(at, lanes)) in values.into_iter().zip(parts) {
                word.store(b, value, p[1], at * row.steps[1], lanes);
            }
            vec![]
        });
    });
    frame.close(b, work)
}

/// Rows, or elements, of the data at places that the indices say.
pub(super) fn gather(frame: &Frame<'_>, axis: usize) -> Result<Option<KernelPlan>, ErrorKind> {
    let [data, indices] = frame.inputs() else {
        return Err(ErrorKind::bug("a gather has two operands"));
    };
    let result = frame.result();
    let memory = match indices.dtype {
        DType::I32 => Memory::I32,
        DType::I64 => Memory::I64,
        other => return Err(ErrorKind::unsupported(format!("indices of type {other}"))),
    };
    let (extent, step) = (data.dims[axis], data.strides[axis]);
    if extent == 0 {
        return Err(ErrorKind::wrong("elements are gathered from an empty axis"));
    }
    let word = Word::of(result.dtype);
    let rank = indices.dims.len();
    let outer =
        (0..axis).map(|i| Level::axis(result.dims[i], vec![data.strides[i], 0, result.strides[i]]));
    let places = (0..rank).map(|i| {
        let steps = vec![0, indices.strides[i], result.strides[axis + i]];
        Level::axis(indices.dims[i], steps)
    });
    let inner = (axis + 1..data.dims.len()).map(|i| {
        let steps = vec![data.strides[i], result.strides[i - 1 + rank]];
        Level::axis(data.dims[i], steps)
    });
    let mut inner = nest::merge(inner.chain([word.level(2)]));
    let row = inner.pop().unwrap_or_else(|| word.level(2));
    let dense = row.steps == [word.bytes; 2];
    if frame.machine.lanes > 1 && !dense {
        return Ok(None);
    }
    let mut levels = nest::merge(outer.chain(places));
    if levels.is_empty() {
        levels.push(Level::unit(3));
    }
    let around: i64 = levels.iter().chain(&inner).map(Level::pieces).product();
    let shares = Shares::of(&levels);
    let (mut b, pointers) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, _| {
        let index = b.load_index(memory, p[1], 0, extent, true);
        let from = b.offset(p[0], index, step);
        nest(b, &inner, None, &[from, p[2]], &mut |b, p, _| {
            if dense {
                word.copy_row(b, row.extent, p[0], p[1]);
            } else {
                nest(b, std::slice::from_ref(&row), None, p, &mut |b, p, _| {
                    let value = word.load(b, p[0], 0, 1);
                    word.store(b, value, p[1], 0, 1);
                });
            }
        });
    });
    // Of the table, what is picked.
    let bytes = 2 * frame.result().bytes;
    Ok(Some(frame.close_with(b, around * (row.extent + 8), bytes, 0)))
}

/// Rows of elements, each in the order of `places`; `None` where vectors are of no use.
pub(super) fn pick(frame: &Frame<'_>, places: &[u32]) -> Option<KernelPlan> {
    let (data, result) = (&frame.inputs()[0], frame.result());
    let word = Word::of(result.dtype);
    // All indices are one axis.
    let outer = data.dims.len() - 1;
    let steps = |axis: usize| vec![data.strides[axis], result.strides[axis]];
    let mut levels =
        nest::merge((0..outer).map(|axis| Level::axis(result.dims[axis], steps(axis))));
    if levels.is_empty() {
        levels.push(Level::unit(2));
    }
    let element = word.bytes * word.count;
    let axes =
        || (outer..result.dims.len()).map(|i| Level::axis(result.dims[i], vec![result.strides[i]]));
    let indices = nest::merge(axes());
    let (from, to) = (data.stride(-1), indices.last().map_or(element, |axis| axis.steps[0]));
    let dense = indices.len() <= 1 && from == element && to == element;
    let work = levels.iter().map(Level::pieces).product::<i64>() * places.len() as i64 * 2;
    let shares = Shares::of(&levels);
    let (mut b, pointers) = frame.open(shares.extent());
    // The indices are not read.
    let pointers = [pointers[0], pointers[2]];
    if frame.machine.lanes == 1 {
        let place = |at: i64| {
            let mut rest = at;
            let axes: Vec<Level> = axes().collect();
            axes.iter().rev().fold(0, |offset, axis| {
                let index = rest % axis.extent;
                rest /= axis.extent;
                offset + index * axis.steps[0]
            })
        };
        nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, _| {
            for (at, &index) in (0..).zip(places) {
                for part in 0..word.count {
                    let part = part * word.bytes;
                    let value = word.load(b, p[0], i64::from(index) * from + part, 1);
                    word.store(b, value, p[1], place(at) + part, 1);
                }
            }
        });
        return Some(frame.close(b, work));
    }
    // Of each vector of the result, the words that it is made of.
    let words: Vec<i64> = (places.iter())
        .flat_map(|&place| (0..word.count).map(move |part| i64::from(place) * word.count + part))
        .collect();
    let lanes = frame.lanes();
    let all = data.dims[outer] * word.count;
    if !dense || !words.chunks(lanes as usize).all(|part| reorder::is_near(part, all, lanes)) {
        return None;
    }
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, _| {
        for (first, part) in (0..).step_by(lanes as usize).zip(words.chunks(lanes as usize)) {
            let value = reorder::near(b, word, p[0], all, part);
            word.store(b, value, p[1], first * word.bytes, part.len() as u32);
        }
    });
    Some(frame.close(b, work))
}

/// Sets every element; `None` where vectors do not do it.
pub(super) fn fill(frame: &Frame<'_>, literal: Literal) -> Option<KernelPlan> {
    const BLOCK: i64 = 64;
    let word = Word::of(literal.dtype);
    let parts: Vec<i32> = literal
        .bytes()
        .chunks(word.bytes as usize)
        .map(|chunk| {
            let mut bytes = [0; 4];
            bytes[..chunk.len()].copy_from_slice(chunk);
            i32::from_le_bytes(bytes)
        })
        .collect();
    let same = parts.iter().all(|part| *part == parts[0]);
    let mut levels: Vec<Level> = frame.levels(0..frame.result().dims.len()).collect();
    levels.sort_by_key(|level| std::cmp::Reverse(level.steps[0].abs()));
    if same {
        levels.push(word.level(1));
    }
    let mut levels = nest::merge(levels);
    let row = levels.pop().unwrap_or_else(|| Level::unit(1));
    let dense = same && (row.steps == [word.bytes] || row.extent == 1);
    if frame.machine.lanes > 1 && !dense {
        return None;
    }
    let around: i64 = levels.iter().map(Level::pieces).product();
    let work = around * row.extent;
    let size = if around >= 16 { row.extent } else { BLOCK * frame.lanes() };
    let steps = row.steps.clone();
    levels.push(row.in_pieces(size));
    let last = levels.len() - 1;
    let shares = Shares::of(&levels);
    let (mut b, pointers) = frame.open(shares.extent());
    nest(&mut b, &levels, Some(shares), &pointers, &mut |b, p, sizes| {
        // The parts of an element lie in memory as the target's bytes do.
        let little = !b.machine().big_endian;
        let values: Vec<Value> = match same {
            true => vec![b.i32(parts[0])],
            false => parts.iter().map(|&part| b.i32(part)).collect(),
        };
        strips(b, sizes[last], 8, p, &steps, &[], &mut |b, p, _, parts| {
            for &(at, lanes) in parts {
                for (i, &value) in values.iter().enumerate() {
                    let place = if little { i } else { values.len() - 1 - i } as i64;
                    let offset = at * steps[0] + place * word.bytes;
                    word.store(b, value, p[0], offset, lanes);
                }
            }
            vec![]
        });
    });
    Some(frame.close(b, work))
}
