//! Tiles for vectors shorter than a line, of which the machine multiplies two at a time.

use super::{LINE, Tile, WRITTEN_OUT, is_repeated};
use crate::kernels::Frame;
use crate::kernels::expr;
use crate::kernels::nest::Level;
use crate::types::DType;
use std::collections::BTreeSet;

/// The tile in which the sums take least time.
pub(super) fn tile(frame: &Frame<'_>, taps: &[Level], columns: &Level, channels: &Level) -> Tile {
    let in_row = taps.last().map_or(1, |l| l.extent).min(WRITTEN_OUT);
    let (x, result) = (&frame.inputs()[0], frame.result());
    // Besides the sums and the weights an element; of integers a product, too, and what it is made of.
    let spare = if matches!(x.dtype, DType::F32 | DType::F64) { 1 } else { 3 };
    let spare = spare + i64::from(is_repeated(frame, channels));
    let free = i64::from(frame.machine.registers) - spare;
    let narrow = expr::size(x.dtype) < 4 || expr::size(result.dtype) < 4;
    let in_line = LINE / i64::from(frame.machine.vector_bytes());
    let mut best: Option<(f64, Tile)> = None;
    for vectors in 1..=if narrow { 1 } else { in_line } {
        for most in 1..=(free - 1) / vectors {
            let taps_at_once = (free - most * vectors).min(in_row);
            let tile =
                Tile { columns: most, vectors, taps: taps_at_once, written_out: WRITTEN_OUT };
            let time = time(&tile, taps, columns, channels, frame.lanes());
            if best.as_ref().is_none_or(|&(least, _)| time < least) {
                best = Some((time, tile));
            }
        }
    }
    let least = Tile { columns: 1, vectors: 1, taps: 1, written_out: WRITTEN_OUT };
    best.map_or(least, |(_, tile)| tile)
}

/// The time of a row of results, in multiply-adds of a vector.
fn time(tile: &Tile, taps: &[Level], columns: &Level, channels: &Level, lanes: i64) -> f64 {
    let vectors = (channels.extent + lanes - 1) / lanes;
    let (whole, rest) = (vectors / tile.vectors, vectors % tile.vectors);
    let pieces = columns.clone().in_even_pieces(tile.columns).groups();
    let row = |vectors: i64| -> f64 {
        let pieces = pieces.iter().filter(|(count, _)| *count > 0);
        pieces.map(|&(n, size)| n as f64 * of_tile(tile.taps, size, vectors, taps, columns)).sum()
    };
    whole as f64 * row(tile.vectors) + if rest > 0 { row(rest) } else { 0.0 }
}

/// The same of so many columns and vectors of channels. Of less than eight independent multiply-adds some wait, and
/// where there are as many loads all do. Half a line of the result at a time, the second half finds the first one
/// still on its way. (Measured on Zen 4.)
fn of_tile(at_once: i64, size: i64, vectors: i64, taps: &[Level], columns: &Level) -> f64 {
    let (in_row, step) = taps.last().map_or((1, 0), |l| (l.extent, l.steps[0]));
    let all: i64 = taps.iter().map(|l| l.extent).product();
    let elements = |taps: i64| {
        let of = |column| (0..taps).map(move |tap| column * columns.steps[0] + tap * step);
        (0..size).flat_map(of).collect::<BTreeSet<i64>>().len() as i64
    };
    let (groups, rest) = (in_row / at_once, in_row % at_once);
    let in_row_loads = groups * elements(at_once) + elements(rest) + in_row;
    let loads = 1.5 * (all / in_row * vectors * in_row_loads) as f64;
    let sums = (size * vectors) as f64;
    let products = all as f64 * (sums.max(8.0) + 0.1 * (10.0 - sums).max(0.0));
    products.max(loads) * if vectors == 1 { 1.2 } else { 1.0 }
}
