//! What kernels are written for: the abstract machine from which tiles, panels and block sizes follow.

/// The features of a target that kernels depend on. Two targets with equal machines get equal kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// For listings: `scalar`, `clif`, `avx2`, `avx512`, `avx2 f64`, `avx512 f64`.
    pub name: &'static str,
    /// Lanes in a vector; 1 makes scalar code, which has types of four and of eight bytes.
    pub lanes: u32,
    /// Whether lanes have eight bytes instead of four: vectors are of `f64` then, and of nothing else.
    pub doubles: bool,
    /// Vector registers that a kernel may keep values in.
    pub registers: u32,
    /// Whether a multiplication takes one operand from memory, in all lanes.
    pub broadcasts: bool,
    /// Whether `a * 2^n` is one instruction.
    pub scales: bool,
    /// Places of a table in which lanes are looked up by one instruction: 8 or 16, or 0 without one.
    pub tables: u32,
    /// Whether multiply-add is one instruction. Without it kernels multiply and add.
    pub fuses: bool,
    /// Whether floats are rounded to integers by an instruction. (SSE4.1 on x86-64, and all others.)
    pub rounds: bool,
    /// Whether floats of two bytes (binary16) are converted by an instruction.
    pub half_floats: bool,
    /// Whether four products of bytes are added to a sum by one instruction (VNNI).
    pub dots: bool,
    /// The largest offset that an address takes for nothing. Kernels that reach further take more
    /// pointers.
    pub max_displacement: i64,
    /// Whether the least significant byte of a number comes last. (Data is laid out for the target.)
    pub big_endian: bool,
    /// Bytes of the first-level data cache.
    pub l1: u64,
    /// Bytes of the second-level cache.
    pub l2: u64,
}

impl Machine {
    /// Four lanes through Cranelift. Of 16 registers it needs some for copies.
    pub const CLIF: Machine = Machine {
        name: "clif",
        lanes: 4,
        doubles: false,
        registers: 12,
        broadcasts: false,
        scales: false,
        tables: 0,
        fuses: false,
        rounds: false,
        half_floats: false,
        dots: false,
        max_displacement: i32::MAX as i64,
        big_endian: false,
        l1: 32 << 10,
        l2: 512 << 10,
    };

    /// AVX2, FMA and F16C, which every processor with AVX2 has. Those of today have 1 MB of L2 or more.
    pub const AVX2: Machine = Machine {
        name: "avx2",
        lanes: 8,
        registers: 16,
        tables: 8,
        fuses: true,
        rounds: true,
        half_floats: true,
        l2: 1 << 20,
        ..Machine::CLIF
    };

    /// AVX-512 (F, BW, DQ, VL).
    pub const AVX512: Machine = Machine {
        name: "avx512",
        lanes: 16,
        registers: 32,
        broadcasts: true,
        scales: true,
        tables: 16,
        fuses: true,
        rounds: true,
        half_floats: true,
        l2: 1 << 20,
        ..Machine::CLIF
    };

    /// The same target with lanes of eight bytes, half as many, where there is an emitter for it: vectors
    /// of `f64`.
    #[must_use]
    pub fn doubles(self) -> Option<Machine> {
        let name = match self.lanes {
            _ if self.doubles => return None,
            8 => "avx2 f64",
            16 => "avx512 f64",
            _ => return None,
        };
        let lanes = self.lanes / 2;
        Some(Machine {
            name,
            lanes,
            doubles: true,
            scales: false,
            tables: 0,
            half_floats: false,
            dots: false,
            ..self
        })
    }

    /// Bytes of a vector.
    pub fn vector_bytes(&self) -> u32 {
        self.lanes * if self.doubles { 8 } else { 4 }
    }

    /// The same target, one lane at a time: for element types that vectors do not have.
    #[must_use]
    pub fn scalar(self) -> Machine {
        Machine {
            name: "scalar",
            lanes: 1,
            doubles: false,
            broadcasts: false,
            scales: false,
            tables: 0,
            half_floats: false,
            dots: false,
            ..self
        }
    }

    /// The same target as products of bytes see it, for the choice of tiles: no factor comes from memory, and
    /// without an instruction for four of them each factor is in two registers.
    #[must_use]
    pub fn of_bytes(self) -> Machine {
        let spare = if self.dots || self.lanes == 1 { 0 } else { 4 };
        Machine { broadcasts: false, registers: self.registers - spare, ..self }
    }
}

impl Machine {
    /// The same target as products by blocks of small numbers see it, for the choice of tiles: each sum is there twice,
    /// of all blocks and of one.
    #[must_use]
    pub fn of_blocks(self) -> Machine {
        Machine { registers: self.registers.div_ceil(2), ..self }
    }

    /// Whether the instructions of a kernel are in the order in which it was written. Cranelift, which makes
    /// all code of at most four lanes, moves what only computes to where it is needed.
    pub fn keeps_order(&self) -> bool {
        self.lanes > 4
    }
}

/// What of a contraction's result stays in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Rows.
    pub rows: usize,
    /// Vectors of columns.
    pub vectors: usize,
}

impl Machine {
    /// The tile for a contraction of `rows`, which lie `distance` bytes apart in A, by `columns`: of
    /// all that fit into the registers, with one for each vector of B and where it is needed one for
    /// an element of A, or the other way around ([`holds_elements`](Machine::holds_elements)), the one that takes
    /// least time.
    pub fn tile(&self, rows: usize, columns: usize, distance: u64) -> Tile {
        self.tile_where(rows, columns, distance, |_| true)
    }

    /// The same, within panels of so many vectors, which were made for wider ones perhaps.
    pub fn tile_within(&self, panel: usize, rows: usize, columns: usize, distance: u64) -> Tile {
        self.tile_where(rows, columns, distance, |vectors| panel.is_multiple_of(vectors))
    }

    fn tile_where(
        &self,
        rows: usize,
        columns: usize,
        distance: u64,
        may: impl Fn(usize) -> bool,
    ) -> Tile {
        // A row of sums and an element of A must fit, and as many vectors of B where they do not come from
        // memory just in time. A row of eight makes whole lines of vectors of half a line.
        let most = (self.registers as usize / 2).clamp(1, 8);
        let tiles = (1..=most).filter(|&vectors| may(vectors));
        let tiles = tiles.map(|vectors| self.tile_of(rows, vectors, distance));
        let time = |tile: &Tile| self.time(*tile, rows, columns);
        let best = tiles.min_by(|a, b| time(a).total_cmp(&time(b)));
        best.expect("one vector always may be")
    }

    /// The tallest tile of so many vectors whose tiles share the rows evenly.
    pub fn tile_of(&self, rows: usize, vectors: usize, distance: u64) -> Tile {
        let registers = self.registers as usize;
        let free = registers.saturating_sub(vectors + self.for_an_element(vectors));
        // Of a row more, the elements of A may fit where the vectors of B do not.
        let more = Tile { rows: free / vectors + 1, vectors };
        let fits = more.rows * (vectors + 1) < registers;
        let most = if self.holds_elements(more) && fits { more.rows } else { free / vectors };
        let most = most.clamp(1, self.rows_at_once(distance));
        let tiles = rows.div_ceil(most).max(1);
        Tile { rows: rows.div_ceil(tiles).max(1), vectors }
    }

    /// A product takes a broadcast from memory where it has at most two uses; else it takes a register.
    fn for_an_element(&self, vectors: usize) -> usize {
        usize::from(!self.broadcasts || vectors > 2)
    }

    /// Whether a tile's products have the elements of A in registers and one vector of B after the other, because
    /// the vectors do not fit beside the sums and are more.
    pub fn holds_elements(&self, Tile { rows, vectors }: Tile) -> bool {
        let held = rows * vectors + vectors + self.for_an_element(vectors);
        self.keeps_order() && rows < vectors && held > self.registers as usize
    }

    /// How many rows that lie `distance` bytes apart can be read side by side from the first-level
    /// cache: those whose distance is a multiple of a way share the sets of one line, and there are
    /// as many of these as ways.
    fn rows_at_once(&self, distance: u64) -> usize {
        const WAY: u64 = 4096;
        const LINE: u64 = 64;
        let ways = (self.l1 / WAY).max(1);
        // The largest power of two in the distance says after how many rows they meet again.
        let apart = (1 << distance.trailing_zeros().min(WAY.ilog2())).max(LINE);
        usize::try_from(ways * (WAY / apart)).unwrap_or(usize::MAX)
    }

    /// The time of each step along K of a contraction of `rows`, `distance` bytes apart in A, by `columns` in
    /// its best tile, roughly, in multiply-adds of a vector.
    pub fn product(&self, rows: usize, columns: usize, distance: u64) -> f64 {
        self.time(self.tile(rows, columns, distance), rows, columns)
    }

    /// In how many parts the depth of such a contraction of floats is best taken. While a panel of the weights
    /// goes by the rows, the next one is brought nearer: both should find room beside the rows in the
    /// second-level cache. Of many rows only some are there at a time, however deep they are. (Measured on Zen 4.)
    pub fn depths(&self, rows: usize, columns: usize, depth: usize) -> usize {
        const SIZE: usize = 4;
        const MOST_ROWS: usize = 256;
        const AT_A_TIME: usize = 128;
        let tile = self.tile(rows, columns, (depth * SIZE) as u64);
        let panel = tile.vectors * self.lanes as usize;
        // A panel that is used once comes from memory anyhow, and so do few of them.
        if rows <= tile.rows || columns <= 2 * panel {
            return 1;
        }
        let rows = if rows <= MOST_ROWS { rows } else { AT_A_TIME };
        let taken = (rows + 2 * panel) * depth * SIZE;
        let room = usize::try_from(self.l2 / 5 * 4).unwrap_or(usize::MAX);
        taken.div_ceil(room)
    }

    /// Vectors that are multiplied and added in a cycle: those shorter than a line two at a time.
    pub fn in_a_cycle(&self) -> f64 {
        if self.vector_bytes() >= 64 { 1.0 } else { 2.0 }
    }

    /// Bytes, roughly, that come from behind the second-level cache in the time of a multiply-add of a
    /// vector: 8 in a cycle.
    pub fn stream(&self) -> f64 {
        8.0 / self.in_a_cycle()
    }

    /// The time of each step along K, roughly, in multiply-adds of a vector, with rows in even tiles.
    fn time(&self, tile: Tile, rows: usize, columns: usize) -> f64 {
        let tiles = rows.div_ceil(tile.rows).max(1);
        let (short, longer) = (rows / tiles, rows % tiles);
        let panel = |vectors: f64| {
            let one = |rows: usize| self.time_of_tile(rows as f64, vectors);
            longer as f64 * one(short + 1) + (tiles - longer) as f64 * one(short)
        };
        // The x86-64 emitter computes a tail of half a vector as such.
        let least = if self.vector_bytes() > 16 { 0.5 } else { 1.0 };
        let vectors = (columns as f64 / (f64::from(self.lanes) * least)).ceil() * least;
        let whole = (vectors / tile.vectors as f64).floor();
        whole * panel(tile.vectors as f64) + panel(vectors - whole * tile.vectors as f64)
    }

    /// The same of one tile. Of less than eight independent multiply-adds some wait; vectors of B
    /// come from the second-level cache, elements of A from the first. Vectors shorter than a line are
    /// multiplied two at a time, and as many loaded: that takes more that are independent, and loads
    /// count. (Measured on Zen 4.)
    fn time_of_tile(&self, rows: f64, vectors: f64) -> f64 {
        let (sums, loads) = (rows * vectors, rows + vectors);
        if sums == 0.0 {
            0.0
        } else if self.vector_bytes() >= 64 {
            sums.max(8.0) + 0.4 * vectors + 0.1 * rows
        } else {
            let sums = sums.max(8.0);
            let waits = 0.2 * (12.0 - sums).max(0.0);
            sums.max(loads) + waits + 0.07 * vectors + 0.04 * rows
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_the_shape() {
        let tile = |rows, columns| Machine::AVX512.tile(rows, columns, 1536);
        assert_eq!(tile(128, 384), Tile { rows: 15, vectors: 2 });
        assert_eq!(tile(1, 1000).rows, 1);
        assert!(tile(1, 1000).vectors >= 4);
        assert!(tile(7, 512).vectors >= 3);
        // Rows of 3072 floats meet in the same lines.
        assert_eq!(Machine::AVX512.tile(128, 384, 4 * 3072), Tile { rows: 8, vectors: 3 });
        // In a panel of 32 or 48 columns for wider vectors.
        assert!(4 % Machine::AVX2.tile_within(4, 128, 384, 1536).vectors == 0);
        assert!(6 % Machine::AVX2.tile_within(6, 128, 384, 1536).vectors == 0);
        assert!(8 % Machine::CLIF.tile_within(8, 128, 384, 1536).vectors == 0);
        // One vector wide, it would wait for loads.
        assert_eq!(Machine::AVX2.tile(128, 1536, 1536), Tile { rows: 4, vectors: 3 });
        // Where a row more fits because its elements are held instead of the vectors.
        let tile = Machine::AVX2.tile(9, 64, 256);
        assert_eq!(tile, Tile { rows: 3, vectors: 4 });
        assert!(Machine::AVX2.holds_elements(tile));
        assert!(!Machine::AVX2.holds_elements(Machine::AVX2.tile(128, 1536, 1536)));
        for machine in [Machine::CLIF, Machine::AVX2, Machine::AVX512] {
            for (rows, columns) in [(1, 1), (1, 4096), (3, 10), (7, 64), (49, 160), (3136, 64)] {
                let tile = machine.tile(rows, columns, 256);
                let held = if machine.holds_elements(tile) { tile.rows } else { tile.vectors };
                assert!(tile.rows * tile.vectors + held <= machine.registers as usize, "{tile:?}");
            }
        }
    }
}
