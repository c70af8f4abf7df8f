//! Which tiles and bands, by what the steps cost on the machine.

use super::Case;
use crate::machine::Machine;
use crate::mir::winograd::{Blocks, Filter, Side, Winograd};

/// How much longer steps may take on one thread than one step that threads share better.
const EXCHANGED: f64 = 1.15;

/// How one convolution is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How, along rows and columns.
    pub(super) axes: [Filter; 2],
    /// Rows and columns of tiles that are done at a time: a band is as wide as the image.
    pub(super) block: [usize; 2],
    /// Whether it is one step, else three for each band.
    whole: bool,
}

impl Plan {
    /// Points of a tile.
    pub(super) fn points(&self) -> usize {
        self.axes.iter().map(|axis| axis.points()).product()
    }

    /// Cycles for a point of a tile: its share of the sums along both axes, a load, a store.
    fn each(&self) -> f64 {
        let sums = |axis: &Filter| match axis.stride {
            1 => axis.tile.max(axis.points().saturating_sub(2)) as f64 / 2.0,
            _ => axis.tile as f64 / 2.0,
        };
        self.axes.iter().map(sums).sum::<f64>() + 3.0
    }
}

impl Case<'_> {
    /// The best plan, if it is better than none. What it keeps between its steps should fit into `room`
    /// bytes, or, where threads share it better as one step, into `slack` bytes.
    pub(super) fn plan(&self, machine: &Machine, room: u64, slack: u64) -> Option<Plan> {
        let mut best: Option<(f64, Plan)> = None;
        // The more points, the more is lost by rounding.
        let rough = |axes: &[Filter; 2]| axes.iter().any(|a| a.stride == 1 && a.points() >= 8);
        let mut all: Vec<[Filter; 2]> = [4, 2, 6].iter().filter_map(|&t| self.axes(t)).collect();
        all.sort_by_key(rough);
        for axes in all {
            let [rows, columns] = self.tiles(axes);
            let bands = shares(rows).into_iter().flat_map(|rows| {
                let block = [rows, columns];
                [true, false].map(|whole| Plan { axes, block, whole })
            });
            let parts = shares(columns).into_iter().skip(1).map(|columns| {
                let block = [1, columns];
                Plan { axes, block, whole: true }
            });
            for plan in bands.chain(parts) {
                // The lowest bands must do if nothing fits.
                let fits = match plan.whole {
                    true => self.between(plan) <= room.max(slack),
                    false => self.between(plan) <= room || plan.block[0] == 1,
                };
                let cost = match plan.whole {
                    _ if !fits => continue,
                    true => self.cost_as_one(machine, plan),
                    // Much of what a thread reads then another has written.
                    false => Some(EXCHANGED * self.cost(machine, plan)),
                };
                let worth = if rough(&axes) { 0.85 } else { 1.0 };
                if let Some(cost) = cost
                    && best.is_none_or(|(least, _)| cost < least * worth)
                {
                    best = Some((cost, plan));
                }
            }
        }
        let worth = |(cost, plan): &(f64, Plan)| {
            let cost = if plan.whole { *cost } else { cost / EXCHANGED };
            cost < 0.92 * self.direct(machine)
        };
        best.filter(worth).map(|(_, plan)| plan)
    }

    /// Bytes that are kept between the transformations, at a time.
    pub(super) fn between(&self, plan: Plan) -> u64 {
        let points = plan.points();
        let one = points * self.rows(plan) * (self.channels + self.outputs) * 4;
        let blocks = self.blocks(plan);
        blocks.map_or(one, |blocks| blocks.shares * blocks.elements() * 4) as u64
    }

    /// How it is cut as one step.
    fn blocks(&self, plan: Plan) -> Option<Blocks> {
        let side = self.both(plan, 1)?;
        Winograd { axes: plan.axes, side }.blocks(self.channels, &self.dims())
    }

    /// It as one step, with panels of so many columns.
    pub(super) fn both(&self, plan: Plan, width: usize) -> Option<Side> {
        let parts = self.inputs.len() * self.planes();
        let (before, block) = (self.before, plan.block);
        let epilogue = self.conv.epilogue.clone();
        let shares = Winograd::SHARES;
        plan.whole.then_some(Side::Both { before, parts, block, shares, width, epilogue })
    }

    /// Tiles that are done at a time: rows of the products.
    pub(super) fn rows(&self, plan: Plan) -> usize {
        let images = if plan.whole { 1 } else { self.images };
        images * plan.block[0] * plan.block[1]
    }

    /// Bytes from one row of the product's first operand to the next.
    pub(super) fn distance(&self) -> u64 {
        4 * self.channels as u64
    }

    /// Cycles that the convolution takes as it is.
    fn direct(&self, machine: &Machine) -> f64 {
        let rows = (self.images * self.results[0]) as f64;
        let depth = (self.taps[0] * self.taps[1] * self.channels) as f64;
        let products =
            rows * machine.product(self.results[1], self.outputs, self.distance()) * depth;
        products.max(4.0 * depth * self.outputs as f64 / self.stream)
    }

    /// Cycles that a plan takes.
    fn cost(&self, machine: &Machine, plan: Plan) -> f64 {
        let points = plan.points() as f64;
        let tiles = self.tiles(plan.axes);
        let bands = tiles[0].div_ceil(plan.block[0]) as f64;
        let rows = self.rows(plan);
        let vectors = |channels: usize| channels.div_ceil(machine.lanes as usize) as f64;
        let each = rows as f64 * points * plan.each();
        let transformations = each * (vectors(self.channels) + vectors(self.outputs));
        let products =
            points * machine.product(rows, self.outputs, self.distance()) * self.channels as f64;
        let weights = points * 4.0 * (self.channels * self.outputs) as f64;
        let between = self.between(plan) as f64;
        let l2 = machine.l2 as f64;
        // Weights that do not stay in the cache come anew for every band.
        let loads = if weights + between > l2 { bands } else { 1.0 };
        let loading = weights / self.stream;
        // Not all of their way is beside products.
        let loaded = products.max(loading) + 0.2 * loading;
        // What does not fit waits in a larger cache, which is not as far away as the weights.
        let spilled = if between > 0.75 * l2 { between / machine.stream() } else { 0.0 };
        const STEPS: f64 = 1000.0;
        let band = transformations + spilled + STEPS;
        bands * band + loads * loaded + (bands - loads) * products
    }

    /// Cycles that a plan of one step takes; `None` where there are too few blocks to share, or each
    /// would wait for the weights.
    fn cost_as_one(&self, machine: &Machine, plan: Plan) -> Option<f64> {
        let blocks = self.blocks(plan)?;
        let count = self.images * blocks.count[0] * blocks.count[1];
        let points = blocks.all as f64;
        let weights = points * 4.0 * (self.channels * self.outputs) as f64;
        let loading = weights / self.stream;
        // Weights that do not stay in the cache come anew for every block.
        let far = weights + 4.0 * blocks.elements() as f64 > 0.9 * machine.l2 as f64;
        let products = |tiles: usize| {
            let products = machine.product(tiles, self.outputs, self.distance());
            let products = points * products * self.channels as f64;
            if far { products.max(loading) + 0.2 * loading } else { products }
        };
        if count < 4 || far && products(self.rows(plan)) < 2.0 * loading {
            return None;
        }
        let vectors = |channels: usize| channels.div_ceil(machine.lanes as usize) as f64;
        let each = points * plan.each();
        let each = each * (vectors(self.channels) + vectors(self.outputs));
        let tiles = (blocks.tiles[0] * blocks.tiles[1]) as f64;
        const BLOCK: f64 = 100.0;
        let mut cost = tiles * each + BLOCK * blocks.count.iter().product::<usize>() as f64;
        cost += blocks.sizes().map(|(count, tiles)| count as f64 * products(tiles)).sum::<f64>();
        let cost = self.images as f64 * cost + if far { 0.0 } else { loading };
        // Two threads have as many blocks each; working memory is new to the cache.
        let uneven = (count.div_ceil(2) * 2) as f64 / count as f64 - 1.0;
        let memory = self.between(plan) as f64 / machine.l2 as f64;
        Some(cost * (1.0 + uneven / 4.0 + memory / 64.0))
    }
}

/// The largest of 1, 2, 3.. even shares of so many tiles, each size once, the largest first.
fn shares(tiles: usize) -> Vec<usize> {
    // No other size is between those of a number of shares and of the most that are as large.
    let next = |&size: &usize| (size > 1).then(|| tiles.div_ceil((tiles - 1) / (size - 1) + 1));
    std::iter::successors((tiles > 0).then_some(tiles), next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_each_size() {
        for tiles in 0..300usize {
            let mut all: Vec<usize> = (1..=tiles).map(|parts| tiles.div_ceil(parts)).collect();
            all.dedup();
            assert_eq!(shares(tiles), all, "{tiles}");
        }
        assert!(shares(1 << 30).len() < 1 << 17);
    }
}
