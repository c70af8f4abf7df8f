//! What a region in bands would need and cost, from its first bands.

use super::change::{Changes, limit};
use super::cost::{self, Threads};
use crate::lir::schedule;
use crate::machine::Machine;
use crate::mir::Graph;
use crate::passes::bands::{Cut, Overlap, Region, alone, preview};

/// So many bands are written; the others are like the last one of them.
const WRITTEN: usize = 4;

/// A region of a graph as one of its own.
pub(super) struct Sketcher<'a> {
    part: Graph,
    region: Region,
    overlap: Overlap,
    machine: &'a Machine,
    threads: Threads,
    /// Cycles that it takes as a whole.
    plain: f64,
}

/// What is expected of a region in bands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sketch {
    /// Bytes that are alive at most, besides its sink and what it reads.
    pub(super) inside: u64,
    /// Cycles that it takes longer.
    pub(super) cycles: f64,
    /// Nodes that were written for it.
    pub(super) written: usize,
}

impl Sketcher<'_> {
    pub(super) fn new<'a>(
        graph: &Graph,
        region: &Region,
        overlap: Overlap,
        changes: &Changes,
        machine: &'a Machine,
        threads: Threads,
    ) -> Sketcher<'a> {
        let (mut part, alone) = alone(graph, region);
        let plain = cost::cycles(&part, machine, threads);
        for (&old, &new) in region.nodes.keys().zip(alone.nodes.keys()) {
            limit(&mut part.nodes[new], changes.most(old, true));
        }
        Sketcher { part, region: alone, overlap, machine, threads, plain }
    }

    /// With bands of so many rows.
    pub(super) fn sketch(&self, height: usize) -> Sketch {
        let cut = Cut { region: self.region.clone(), height, overlap: self.overlap };
        let (some, ends) = preview(&self.part, &cut, WRITTEN);
        let sink: usize = some.outputs.iter().map(|output| some.ty(output.value).bytes()).sum();
        let running = cost::running(&some, self.machine, self.threads);
        let until = |band: usize| {
            let end = band.checked_sub(1).and_then(|band| ends.get(band)).copied().unwrap_or(0);
            end.checked_sub(1).map_or(0.0, |last| running[last])
        };
        let written = ends.len();
        let more = self.region.rows(&self.part).div_ceil(height).saturating_sub(written);
        // The first one may be special, and others take turns.
        let (first, others) = (1.min(written - 1), written.max(2) - 1);
        let each = (until(written) - until(first)) / others as f64;
        let cycles = until(written) + more as f64 * each;
        Sketch {
            inside: schedule::estimate(&some).saturating_sub(sink as u64),
            cycles: cycles - self.plain,
            written: some.nodes.len(),
        }
    }
}
