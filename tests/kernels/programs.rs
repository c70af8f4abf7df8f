//! Whole kernels with odd sizes, and plain loops that do the same.

use crate::cases::{Case, always, blocks, map};
use crate::data::{Data, Tolerance, some};
use rlx_aot::kernels::math;
use rlx_aot::kir::build::Builder;
use rlx_aot::kir::{IndexOp, Kernel, Memory, Reduction, Value};
use rlx_aot::machine::Machine;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        matmul(1, 1, 1, None),
        matmul(7, 33, 5, None),
        matmul(13, 64, 3, None),
        matmul(29, 50, 17, None),
        matmul(127, 100, 77, None),
        // More than fits in the registers.
        matmul(40, 70, 9, Some(20)),
        softmax(1, 1),
        softmax(5, 67),
        softmax(3, 7),
        gelu(1003),
        clamp(777),
        depthwise(5, 7, 37),
        depthwise(1, 1, 3),
        gather(),
        running_sum(),
        many_operands(),
        transpose(),
    ]
}

fn case(
    name: String,
    kernel: impl Fn(Machine) -> Kernel + 'static,
    inputs: impl Fn(u32) -> Vec<Data> + 'static,
    expected: Data,
) -> Case {
    let output = Data::unset(expected.memory(), expected.elements());
    let operands = move |m: Machine| {
        let mut operands = inputs(m.lanes);
        operands.push(output.clone());
        operands
    };
    let (kernel, operands) = (Box::new(kernel), Box::new(operands));
    let tolerance = Tolerance::Relative(1e-6);
    Case {
        name,
        scalar: false,
        doubles: false,
        kernel,
        operands,
        expected: always(expected),
        tolerance,
        tight: true,
    }
}

/// C = relu(A B + bias).
///
/// A is read in place by broadcasts. B comes in panels of `panel` columns, the last one filled with
/// zeros: element (k, n) is at `n / panel * (depth * panel) + k * panel + n % panel`. A tile of C
/// stays in registers over all of K. The range counts panels.
#[derive(Clone, Copy, Debug)]
struct Matmul {
    rows: i64,
    columns: i64,
    depth: i64,
    /// Rows and vectors of a tile.
    tile: (i64, i64),
}

fn matmul(rows: i64, columns: i64, depth: i64, most_rows: Option<i64>) -> Case {
    let kernel = move |machine: Machine| {
        let tile = most_rows.map_or(tile_for(&machine, rows), |rows| (rows, 2));
        matmul_kernel(machine, &Matmul { rows, columns, depth, tile })
    };
    let (a, b, bias) = (some(rows * depth, 1), some(columns * depth, 2), some(columns, 3));
    let [_, n, k] = [rows, columns, depth].map(|d| d as usize);
    let element = |i: usize| {
        let (row, column) = (i / n, i % n);
        let product = |j| f64::from(a[row * k + j]) * f64::from(b[j * n + column]);
        ((0..k).map(product).sum::<f64>() + f64::from(bias[column])).max(0.0)
    };
    let expected = Data::Floats(Memory::F32, (0..rows as usize * n).map(element).collect());
    let inputs = move |lanes: u32| {
        let panels = panels(&b, n, 2 * lanes as usize);
        [&a, &panels, &bias].map(|v| Data::f32(v.iter().copied())).to_vec()
    };
    let tolerance = Tolerance::Relative(3e-7 * (depth as f64).sqrt());
    let name = format!("matmul {rows}x{columns}x{depth}");
    Case { tolerance, ..case(name, kernel, inputs, expected) }
}

/// `[depth, columns]` to panels of `panel` columns, the last filled with zeros.
fn panels(b: &[f32], columns: usize, panel: usize) -> Vec<f32> {
    let depth = b.len() / columns;
    let mut out = vec![0.0; columns.div_ceil(panel) * panel * depth];
    for (i, &value) in b.iter().enumerate() {
        let (k, n) = (i / columns, i % columns);
        out[n / panel * depth * panel + k * panel + n % panel] = value;
    }
    out
}

fn matmul_kernel(machine: Machine, m: &Matmul) -> Kernel {
    let panel = m.tile.1 * i64::from(machine.lanes);
    let panels = (m.columns + panel - 1) / panel;
    let mut b = Builder::new("matmul", machine, panels);
    let left = b.input("a", m.rows * m.depth * 4);
    let right = b.input("panels", panels * panel * m.depth * 4);
    let bias = b.input("bias", m.columns * 4);
    let out = b.output("c", m.rows * m.columns * 4);
    blocks(&mut b, m.columns, panel, |b, j, columns| {
        let right = b.offset(right, j, panel * m.depth * 4);
        let [bias, out] = [bias, out].map(|p| b.offset(p, j, panel * 4));
        let (tiles, rows) = (m.rows / m.tile.0, m.tile.0);
        let (left_step, out_step) = (rows * m.depth * 4, rows * m.columns * 4);
        if tiles > 0 {
            b.each(0, tiles, &[(left, left_step), (out, out_step)], |b, it| {
                tile(b, m, (rows, columns), it.pointers[0], right, bias, it.pointers[1]);
            });
        }
        if m.rows % rows > 0 {
            let (left, out) = (b.offset(left, tiles, left_step), b.offset(out, tiles, out_step));
            tile(b, m, (m.rows % rows, columns), left, right, bias, out);
        }
    });
    b.finish()
}

/// Tiles of two vectors and as many rows as leave registers for two vectors of B and, where the
/// machine needs one, for an element of A; fewer where that makes the last tile of `rows` as tall
/// as the others.
fn tile_for(machine: &Machine, rows: i64) -> (i64, i64) {
    let free = i64::from(machine.registers) - 2 - i64::from(!machine.broadcasts);
    let tiles = (rows + free / 2 - 1) / (free / 2);
    ((rows + tiles - 1) / tiles, 2)
}

fn tile(
    b: &mut Builder,
    m: &Matmul,
    (rows, columns): (i64, i64),
    left: Value,
    right: Value,
    bias: Value,
    out: Value,
) {
    // The vectors of a row of the tile, and how many lanes of each are columns of C.
    let lanes = b.lanes();
    let vectors: Vec<_> = (0..columns)
        .step_by(lanes as usize)
        .map(|at| (at * 4, lanes.min(columns - at) as u32))
        .collect();
    let load_bias =
        |_| vectors.iter().map(|&(at, n)| b.load_first(bias, at, n)).collect::<Vec<_>>();
    let start: Vec<_> = (0..rows).flat_map(load_bias).collect();
    let steps = [(left, 4), (right, m.tile.1 * lanes * 4)];
    let sums = b.fold(0, m.depth, &steps, &start, |b, it| {
        let right: Vec<_> = vectors.iter().map(|&(at, _)| b.load(it.pointers[1], at)).collect();
        let mut next = vec![];
        for (row, sums) in it.carried.chunks(vectors.len()).enumerate() {
            let left = b.broadcast(it.pointers[0], row as i64 * m.depth * 4);
            next.extend(sums.iter().zip(&right).map(|(&sum, &right)| b.mul_add(right, left, sum)));
        }
        next
    });
    let zero = b.f32(0.0);
    for (row, sums) in sums.chunks(vectors.len()).enumerate() {
        for (&sum, &(at, lanes)) in sums.iter().zip(&vectors) {
            let sum = b.max(zero, sum);
            b.store_first(sum, out, row as i64 * m.columns * 4 + at, lanes);
        }
    }
}

/// Over the rows of a matrix. The range counts rows.
fn softmax(rows: i64, columns: i64) -> Case {
    let x: Vec<_> = some(rows * columns, 1).iter().map(|x| x * 20.0).collect();
    let row = |row: &[f32]| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let e: Vec<f64> = row.iter().map(|&x| f64::from(x - max).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(move |e| e / sum).collect::<Vec<_>>()
    };
    let expected = Data::Floats(Memory::F32, x.chunks(columns as usize).flat_map(row).collect());
    let kernel = move |m| softmax_kernel(m, rows, columns);
    let inputs = move |_| vec![Data::f32(x.iter().copied())];
    case(format!("softmax {rows}x{columns}"), kernel, inputs, expected)
}

fn softmax_kernel(machine: Machine, rows: i64, columns: i64) -> Kernel {
    let mut b = Builder::new("softmax", machine, rows);
    let bytes = rows * columns * 4;
    let (input, output) = (b.input("x", bytes), b.output("y", bytes));
    let (begin, end) = (b.begin(), b.end());
    b.each(begin, end, &[], |b, it| {
        let [x, y] = [input, output].map(|p| b.offset(p, it.index, columns * 4));
        let lowest = b.f32(f32::NEG_INFINITY);
        let max = b.fold_row(columns, &[x], &[lowest], |b, p, max, lanes| {
            let value = b.load_first(p[0], 0, lanes);
            let value = b.first(value, lowest, lanes);
            vec![b.max(max[0], value)]
        });
        let max = b.reduce(Reduction::Max, max[0]);
        let zero = b.f32(0.0);
        let sum = b.fold_row(columns, &[x, y], &[zero], |b, p, sum, lanes| {
            let value = b.load_first(p[0], 0, lanes);
            let value = b.sub(value, max);
            let e = math::exp(b, value);
            b.store_first(e, p[1], 0, lanes);
            let e = b.first(e, zero, lanes);
            vec![b.add(sum[0], e)]
        });
        let sum = b.reduce(Reduction::Sum, sum[0]);
        let one = b.f32(1.0);
        let scale = b.div(one, sum);
        b.fold_row(columns, &[y], &[], |b, p, _, lanes| {
            let e = b.load_first(p[0], 0, lanes);
            let value = b.mul(e, scale);
            b.store_first(value, p[0], 0, lanes);
            vec![]
        });
    });
    b.finish()
}

/// `x / (1 + exp(-2 u))`, `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
fn gelu(elements: i64) -> Case {
    let x: Vec<_> = some(elements, 1).iter().map(|x| x * 4.0).collect();
    let reference = |&x: &f32| {
        let x = f64::from(x);
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        0.5 * x * (1.0 + u.tanh())
    };
    let expected = Data::Floats(Memory::F32, x.iter().map(reference).collect());
    let case = map("gelu", vec![Data::f32(x)], expected, |b, x| {
        let square = b.mul(x[0], x[0]);
        let minus_2u = math::polynomial(b, square, &[-0.071354814, -1.595769]);
        let minus_2u = b.mul(minus_2u, x[0]);
        let e = math::exp(b, minus_2u);
        let one = b.f32(1.0);
        let sum = b.add(e, one);
        b.div(x[0], sum)
    });
    Case { tolerance: Tolerance::Relative(1e-6), ..case }
}

/// `x <= -1 ? -1 : x < 2 ? sqrt(|x|) : 2`.
fn clamp(elements: i64) -> Case {
    let x: Vec<_> = some(elements, 1).iter().map(|x| x * 4.0).collect();
    let expected = x.iter().map(|&x| match x {
        x if x <= -1.0 => -1.0,
        x if x < 2.0 => x.abs().sqrt(),
        _ => 2.0,
    });
    map("clamp", vec![Data::f32(x.clone())], Data::f32(expected), |b, x| {
        let [low, high] = [-1.0, 2.0].map(|c| b.f32(c));
        let absolute = b.abs(x[0]);
        let root = b.sqrt(absolute);
        let is_low = b.less_equal(x[0], low);
        let is_middle = b.less(x[0], high);
        let value = b.select(is_middle, root, high);
        b.select(is_low, low, value)
    })
}

/// 3 x 3, stride 1, channels last. The input has its border of zeros. The weights are `[9,
/// channels]`. The range counts rows of the output.
fn depthwise(height: i64, width: i64, channels: i64) -> Case {
    let x = some((height + 2) * (width + 2) * channels, 1);
    let (w, bias) = (some(9 * channels, 2), some(channels, 3));
    let [wide, deep] = [width, channels].map(|d| d as usize);
    let element = |i: usize| {
        let (y0, x0, c) = (i / deep / wide, i / deep % wide, i % deep);
        let at = |k: usize| f64::from(x[((y0 + k / 3) * (wide + 2) + x0 + k % 3) * deep + c]);
        let products = (0..9).map(|k| at(k) * f64::from(w[k * deep + c]));
        products.sum::<f64>() + f64::from(bias[c])
    };
    let elements = (height * width * channels) as usize;
    let expected = Data::Floats(Memory::F32, (0..elements).map(element).collect());
    let kernel = move |m| depthwise_kernel(m, height, width, channels);
    let inputs = move |_| [&x, &w, &bias].map(|v| Data::f32(v.iter().copied())).to_vec();
    case(format!("depthwise {height}x{width}x{channels}"), kernel, inputs, expected)
}

fn depthwise_kernel(machine: Machine, height: i64, width: i64, channels: i64) -> Kernel {
    let mut b = Builder::new("depthwise", machine, height);
    let input = b.input("x", (height + 2) * (width + 2) * channels * 4);
    let weights = b.input("w", 9 * channels * 4);
    let bias = b.input("bias", channels * 4);
    let output = b.output("y", height * width * channels * 4);
    let (begin, end) = (b.begin(), b.end());
    let row = (width + 2) * channels * 4;
    b.each(begin, end, &[], |b, it| {
        let x = b.offset(input, it.index, row);
        let y = b.offset(output, it.index, width * channels * 4);
        b.fold_row(channels, &[x, weights, bias, y], &[], |b, p, _, lanes| {
            let weights: Vec<_> =
                (0..9).map(|i| b.load_first(p[1], i * channels * 4, lanes)).collect();
            let bias = b.load_first(p[2], 0, lanes);
            b.each(0, width, &[(p[0], channels * 4), (p[3], channels * 4)], |b, it| {
                let sum = (0..9).fold(bias, |sum, i| {
                    let x = b.load_first(it.pointers[0], i / 3 * row + i % 3 * channels * 4, lanes);
                    b.mul_add(x, weights[i as usize], sum)
                });
                b.store_first(sum, it.pointers[1], 0, lanes);
            });
            vec![]
        });
    });
    b.finish()
}

/// Rows by indices of both sizes, some of them wild; one table with wrapping, one without.
fn gather() -> Case {
    const ROWS: i64 = 6;
    const COLUMNS: i64 = 11;
    let x = some(ROWS * COLUMNS, 5);
    let wild = [0i64, 5, 6, -1, -6, -7, 3, i64::MAX, i64::MIN, 1 << 40, -(1 << 33)];
    let narrow = wild.map(|i| i as i32);
    let row = |i: i64| (0..COLUMNS).map(|c| x[(i * COLUMNS + c) as usize]).collect::<Vec<_>>();
    let wrapped = |i: i64| if i < 0 { i.saturating_add(ROWS) } else { i };
    let expected = (wild.iter().map(|&i| wrapped(i)))
        .chain(narrow.map(i64::from))
        .flat_map(|i| row(i.clamp(0, ROWS - 1)));
    let expected = Data::f32(expected.collect::<Vec<_>>());
    let count = wild.len() as i64;
    let kernel = move |m| {
        let mut b = Builder::new("gather", m, count);
        let table = b.input("x", ROWS * COLUMNS * 4);
        let (long, short) = (b.input("long", count * 8), b.input("short", count * 4));
        let output = b.output("y", 2 * count * COLUMNS * 4);
        let (begin, end) = (b.begin(), b.end());
        b.each(begin, end, &[], |b, it| {
            for (indices, memory, at) in [(long, Memory::I64, 0), (short, Memory::I32, count)] {
                let from = b.offset(indices, it.index, memory.bytes());
                let i = b.load_index(memory, from, 0, ROWS, memory == Memory::I64);
                let to = b.offset(output, it.index, COLUMNS * 4);
                let to = b.offset(to, at, COLUMNS * 4);
                let from = b.offset(table, i, COLUMNS * 4);
                b.fold_row(COLUMNS, &[from, to], &[], |b, p, _, lanes| {
                    let v = b.load_first(p[0], 0, lanes);
                    b.store_first(v, p[1], 0, lanes);
                    vec![]
                });
            }
        });
        b.finish()
    };
    let inputs = move |_| {
        let long = Data::Integers(Memory::I64, wild.to_vec());
        vec![Data::f32(x.iter().copied()), long, Data::i32(narrow)]
    };
    case("gather".into(), kernel, inputs, expected)
}

/// Scratch memory: each element is read back as soon as it is written, and stored over a value that
/// was loaded before and is used after.
fn running_sum() -> Case {
    const ELEMENTS: i64 = 37;
    let x = some(ELEMENTS, 3);
    let mut sum = 0.0;
    let sums = x.iter().map(|x| {
        sum += x;
        sum
    });
    let expected = Data::f32(sums.collect::<Vec<_>>());
    let kernel = move |m| {
        let mut b = Builder::new("running_sum", m, 1);
        let (input, output) = (b.input("x", ELEMENTS * 4), b.output("y", ELEMENTS * 4));
        let (begin, end) = (b.begin(), b.end());
        b.each(begin, end, &[], |b, _| {
            let zero = b.f32(0.0);
            b.store_first(zero, output, 0, 1);
            b.each(0, ELEMENTS - 1, &[(input, 4), (output, 4)], |b, it| {
                let (x, y) = (b.load_first(it.pointers[0], 0, 1), it.pointers[1]);
                let before = b.load_first(y, 0, 1);
                let sum = b.add(before, x);
                b.store_first(sum, y, 0, 1);
                let again = b.broadcast(y, 0);
                let zero = b.sub(sum, again);
                // `before` is what was there before the stores.
                let more = b.add(before, x);
                let more = b.add(more, zero);
                b.store_first(more, y, 4, 1);
            });
            let last = b.offset(output, ELEMENTS - 1, 4);
            let x = b.load_first(input, (ELEMENTS - 1) * 4, 1);
            let before = b.load_first(last, 0, 1);
            let sum = b.add(before, x);
            b.store_first(sum, last, 0, 1);
        });
        b.finish()
    };
    case("running sum".into(), kernel, move |_| vec![Data::f32(x.iter().copied())], expected)
}

/// More operands than registers, and their sum.
fn many_operands() -> Case {
    const OPERANDS: usize = 24;
    const ELEMENTS: i64 = 45;
    let inputs: Vec<_> = (0..OPERANDS).map(|i| some(ELEMENTS, i)).collect();
    let sum = |i: usize| inputs.iter().map(|x| f64::from(x[i])).sum();
    let expected = Data::Floats(Memory::F32, (0..ELEMENTS as usize).map(sum).collect());
    let inputs = inputs.into_iter().map(Data::f32).collect();
    let case = map("many operands", inputs, expected, |b, x| {
        x[1..].iter().fold(x[0], |sum, &x| b.add(sum, x))
    });
    Case { tolerance: Tolerance::Relative(1e-6), ..case }
}

/// Squares of a matrix, one of floats and one of integers; the range counts squares of a row.
fn transpose() -> Case {
    const COLUMNS: i64 = 48;
    let values: Vec<_> = (0..16 * COLUMNS).map(|i| i as f32 * 0.5).collect();
    let kernel = |m: Machine| {
        let n = i64::from(m.lanes);
        let mut b = Builder::new("transpose", m, COLUMNS / n);
        let (input, output) = (b.input("x", n * COLUMNS * 4), b.output("y", n * COLUMNS * 4));
        let (begin, end) = (b.begin(), b.end());
        b.each(begin, end, &[], |b, it| {
            let (x, y) = (b.offset(input, it.index, n * 4), b.offset(output, it.index, n * n * 4));
            for memory in [Memory::F32, Memory::I32] {
                let rows: Vec<_> =
                    (0..n).map(|i| b.load_as(memory, x, i * COLUMNS * 4, m.lanes)).collect();
                let columns = b.transpose(&rows);
                for (i, column) in columns.into_iter().enumerate() {
                    b.store_first(column, y, i as i64 * n * 4, m.lanes);
                }
            }
        });
        // An index that is divided, for the sake of it: square 0 again, at 0.
        b.each(begin, end, &[], |b, it| {
            let zero = b.index(IndexOp::Div, it.index, COLUMNS);
            let rest = b.index(IndexOp::Rem, it.index, 1);
            let zero = b.index(IndexOp::Add, zero, rest);
            let (x, y) = (b.offset(input, zero, 4), b.offset(output, zero, 4));
            let first = b.load_first(x, 0, 1);
            b.store_first(first, y, 0, 1);
        });
        b.finish()
    };
    let input = move |m: Machine| values[..(i64::from(m.lanes) * COLUMNS) as usize].to_vec();
    let expected = {
        let input = input.clone();
        move |m: Machine| {
            let (x, n) = (input(m), m.lanes as usize);
            let element = |i: usize| {
                let (square, row, column) = (i / (n * n), i / n % n, i % n);
                x[column * COLUMNS as usize + square * n + row]
            };
            vec![Data::f32((0..x.len()).map(element))]
        }
    };
    let operands = move |m: Machine| {
        let x = input(m);
        let unset = Data::unset(Memory::F32, x.len());
        vec![Data::f32(x), unset]
    };
    Case {
        name: "transpose".into(),
        scalar: false,
        doubles: false,
        kernel: Box::new(kernel),
        operands: Box::new(operands),
        expected: Box::new(expected),
        tolerance: Tolerance::Exact,
        tight: true,
    }
}
