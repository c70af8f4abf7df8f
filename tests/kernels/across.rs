//! Elements that change their lanes.

use crate::cases::Case;
use crate::data::{Data, Tolerance};
use rlx_aot::kir::build::Builder;
use rlx_aot::kir::{Memory, Value};
use rlx_aot::machine::Machine;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for seed in 0..40 {
        cases.push(moved(
            format!("shuffle {seed}"),
            |_| 2,
            move |b, x| {
                let lanes = b.lanes() as u32;
                vec![b.shuffle(x[0], x[1], |i| order(seed, lanes, i))]
            },
            move |lanes, i| order(seed, lanes as u32, i as u32) as usize,
        ));
    }
    for (stride, first) in [(2, 0), (2, 1), (3, 2), (5, 0), (-1, -1), (-2, -1), (-3, -2)] {
        let vectors = i64::abs(stride) as usize;
        let place = move |lanes: i64, lane: i64| {
            let all = vectors as i64 * lanes;
            (all + first + lane * stride) % all
        };
        cases.push(moved(
            format!("every {stride}th from {first}"),
            move |_| vectors,
            move |b, x| {
                let lanes = b.lanes();
                vec![b.pick(x, |lane| place(lanes, lane))]
            },
            move |lanes, i| place(lanes as i64, i as i64) as usize,
        ));
    }
    for group in [1, 2] {
        for count in 1..=12 {
            let place = move |lanes: usize, i: usize| {
                let group = group.min(lanes);
                let elements = lanes / group;
                let (element, part) = (i / group, i % group);
                (element % elements * count + element / elements) * group + part
            };
            cases.push(moved(
                format!("separate {count} of {group}"),
                move |_| count,
                move |b, x| b.separate_groups(x, b.lanes().min(group as i64) as u32),
                place,
            ));
            cases.push(moved(
                format!("interleave {count} of {group}"),
                move |_| count,
                move |b, x| b.interleave_groups(x, b.lanes().min(group as i64) as u32),
                move |lanes, i| {
                    let group = group.min(lanes);
                    let (element, part) = (i / group, i % group);
                    element % count * lanes + element / count * group + part
                },
            ));
        }
        cases.push(moved(
            format!("columns of {group}"),
            move |lanes| lanes / group.min(lanes),
            move |b, x| b.columns_of_groups(x, x.len(), b.lanes().min(group as i64) as u32),
            move |lanes, i| {
                let group = group.min(lanes);
                let (row, column, part) = (i / lanes, i % lanes / group, i % group);
                column * lanes + row * group + part
            },
        ));
    }
    cases
}

/// Any order: of both vectors, of one, with lanes twice; of some lanes with a step, and of a quarter each.
fn order(seed: u64, lanes: u32, lane: u32) -> u32 {
    let mut state = (seed << 32 | u64::from(lane)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ state >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let any = (state >> 33) as u32;
    match seed {
        _ if lanes < 4 => any % (2 * lanes),
        // Lanes that stay, of both.
        0..4 => lane + any % 2 * lanes,
        // In every four, two of each.
        4 => lane / 4 * 4 + [2, 0, 3, 3][lane as usize % 4] + lane % 4 / 2 * lanes,
        5 => lane / 4 * 4 + [1, 1, 0, 2][lane as usize % 4],
        6 => lanes - 1 - lane,
        7 => 2 * lanes - 1 - lane,
        8 => lane + 1,
        9 => lane + lanes,
        10..16 => any % lanes,
        16..22 => lanes + any % lanes,
        // One or a few of one, the others of the other.
        22..30 => any % lanes + if u64::from(lane) < seed - 20 { 0 } else { lanes },
        _ => any % (2 * lanes),
    }
}

/// Some vectors made of others, as `f32` and as `i32`: element `i` of the result is element `from(lanes, i)`.
fn moved(
    name: String,
    vectors: impl Fn(usize) -> usize + Copy + 'static,
    f: impl Fn(&mut Builder, &[Value]) -> Vec<Value> + 'static,
    from: impl Fn(usize, usize) -> usize + 'static,
) -> Case {
    let inputs = move |m: Machine| -> Vec<f32> {
        let elements = vectors(m.lanes as usize) * m.lanes as usize;
        (0..elements).map(|i| i as f32 - 2.5).collect()
    };
    // How many there are in the end is known when the kernel is written only.
    let results = {
        let f = std::rc::Rc::new(f);
        let kernel = f.clone();
        let count = move |m: Machine| {
            let mut b = Builder::new("count", m, 1);
            let x = b.input("x", 0);
            let lanes = i64::from(m.lanes) * 4;
            let rows: Vec<Value> = (0..vectors(m.lanes as usize) as i64)
                .map(|i| b.load_as(Memory::F32, x, i * lanes, m.lanes))
                .collect();
            f(&mut b, &rows).len()
        };
        (kernel, std::rc::Rc::new(count))
    };
    let (f, count) = results;
    let kernel = {
        let (name, count) = (name.clone(), count.clone());
        move |m: Machine| {
            let bytes = i64::from(m.lanes) * 4;
            let inputs = vectors(m.lanes as usize) as i64;
            let outputs = count(m) as i64;
            let mut b = Builder::new(name.clone(), m, 1);
            let x = b.input("x", inputs * bytes);
            let [y, z] = ["y", "z"].map(|name| b.output(name, outputs * bytes));
            let (begin, end) = (b.begin(), b.end());
            b.each(begin, end, &[], |b, _| {
                for (memory, to) in [(Memory::F32, y), (Memory::I32, z)] {
                    let rows: Vec<Value> =
                        (0..inputs).map(|i| b.load_as(memory, x, i * bytes, m.lanes)).collect();
                    for (i, value) in (0..).zip(f(b, &rows)) {
                        b.store_as(memory, value, to, i * bytes, m.lanes);
                    }
                }
            });
            b.finish()
        }
    };
    let operands = {
        let count = count.clone();
        move |m: Machine| {
            let unset = Data::unset(Memory::F32, count(m) * m.lanes as usize);
            vec![Data::f32(inputs(m)), unset.clone(), unset]
        }
    };
    let expected = move |m: Machine| {
        let (x, lanes) = (inputs(m), m.lanes as usize);
        let all = Data::f32((0..count(m) * lanes).map(|i| x[from(lanes, i)]));
        vec![all.clone(), all]
    };
    Case {
        name,
        scalar: false,
        doubles: false,
        kernel: Box::new(kernel),
        operands: Box::new(operands),
        expected: Box::new(expected),
        tolerance: Tolerance::Exact,
        tight: true,
    }
}
