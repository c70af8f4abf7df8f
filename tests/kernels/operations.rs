//! Every operation on every type that it takes, on numbers that are special and on some that are not.

use crate::cases::{Case, always, map};
use crate::data::{Data, Tolerance};
use rlx_aot::kir::build::Builder;
use rlx_aot::kir::{Binary, Comparison, Memory, Reduction, Shift, Type, Unary, Value};
use rlx_aot::machine::Machine;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = float_cases(Memory::F32);
    cases.extend(float_cases(Memory::F64));
    cases.extend((1..=17).map(doubles));
    cases.extend(integer_cases(Memory::I32));
    cases.extend(integer_cases(Memory::I64));
    cases.extend(divisions(Memory::I32));
    cases.extend(divisions(Memory::I64));
    cases.extend(memories());
    cases.extend(conversions());
    cases.extend(across_lanes());
    cases.push(dots());
    cases
}

/// Four products of bytes, which end at the ends of their ranges, and sums that wrap.
fn dots() -> Case {
    let (mut left, mut right, mut sums) = (vec![], vec![], vec![]);
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state
    };
    for i in 0..131 {
        left.push(if i % 5 == 0 { u32::MAX } else { next() } as i32);
        right.push(if i % 7 == 0 { 0x8080_8080 } else { next() } as i32);
        sums.push(if i % 11 == 0 { i32::MAX } else { next() as i32 >> 8 });
    }
    let dot = |((&a, &b), &sum): ((&i32, &i32), &i32)| {
        let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
        products.fold(sum, |s: i32, (a, b)| s.wrapping_add(i32::from(a) * i32::from(b as i8)))
    };
    let expected: Vec<i32> = left.iter().zip(&right).zip(&sums).map(dot).collect();
    let inputs = [left, right, sums].map(Data::i32).to_vec();
    map("dot", inputs, Data::i32(expected), |b, x| {
        let (left, right) = (b.bytes(x[0], false), b.bytes(x[1], true));
        b.dot(&left, &right, x[2])
    })
}

const FLOATS: [f64; 36] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    0.25,
    -0.75,
    1.5,
    -1.5,
    2.5,
    -2.5,
    3.5,
    0.99999994,
    -1.0000001,
    1e-40,
    -1e-45,
    f32::MIN_POSITIVE as f64,
    f32::MAX as f64,
    f32::MIN as f64,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    4194304.5,
    8388607.5,
    -8388607.0,
    8388609.0,
    16777215.0,
    4503599627370495.5,
    9007199254740993.0,
    2147483520.0,
    -2147483648.0,
    3.1412,
    1e10,
    -1e-10,
    123.456,
];

const INTEGERS: [i64; 26] = [
    0,
    1,
    -1,
    2,
    -2,
    3,
    -3,
    7,
    100,
    -100,
    127,
    128,
    -128,
    255,
    256,
    -256,
    32767,
    65535,
    123456789,
    -987654321,
    i32::MAX as i64,
    i32::MAX as i64 - 1,
    i32::MIN as i64,
    1 << 40,
    i64::MAX,
    i64::MIN,
];

fn floats(memory: Memory) -> Vec<f64> {
    let as_stored = |&v: &f64| if memory == Memory::F32 { f64::from(v as f32) } else { v };
    FLOATS.iter().map(as_stored).collect()
}

fn integers(memory: Memory) -> Vec<i64> {
    INTEGERS.iter().map(|&v| if memory == Memory::I32 { i64::from(v as i32) } else { v }).collect()
}

/// Every pair.
fn pairs<T: Copy>(values: &[T]) -> (Vec<T>, Vec<T>) {
    values.iter().flat_map(|&a| values.iter().map(move |&b| (a, b))).unzip()
}

type Write = fn(&mut Builder, &[Value]) -> Value;
/// What is done with one number, as `f32` and as `f64`.
type Floats<const N: usize> = (&'static str, Write, fn([f32; N]) -> f32, fn([f64; N]) -> f64);

fn float_cases(memory: Memory) -> Vec<Case> {
    let unary: [Floats<1>; 9] = [
        ("neg", |b, x| b.neg(x[0]), |[x]| -x, |[x]| -x),
        ("abs", |b, x| b.abs(x[0]), |[x]| x.abs(), |[x]| x.abs()),
        ("sqrt", |b, x| b.sqrt(x[0]), |[x]| x.sqrt(), |[x]| x.sqrt()),
        ("round", |b, x| b.round(x[0]), |[x]| x.round_ties_even(), |[x]| x.round_ties_even()),
        ("floor", |b, x| b.floor(x[0]), |[x]| x.floor(), |[x]| x.floor()),
        ("ceil", |b, x| b.ceil(x[0]), |[x]| x.ceil(), |[x]| x.ceil()),
        ("trunc", |b, x| b.trunc(x[0]), |[x]| x.trunc(), |[x]| x.trunc()),
        (
            "bits",
            |b, x| {
                let bits = b.unary(Unary::ToBits, x[0]);
                let bits = b.not(bits);
                let bits = b.not(bits);
                b.unary(Unary::FromBits, bits)
            },
            |[x]| x,
            |[x]| x,
        ),
        (
            "twice",
            |b, x| {
                let two = b.float(b.type_of(x[0]), 2.0);
                b.mul(two, x[0])
            },
            |[x]| x + x,
            |[x]| x + x,
        ),
    ];
    let binary: [Floats<2>; 10] = [
        ("add", |b, x| b.add(x[0], x[1]), |[a, b]| a + b, |[a, b]| a + b),
        ("sub", |b, x| b.sub(x[0], x[1]), |[a, b]| a - b, |[a, b]| a - b),
        ("mul", |b, x| b.mul(x[0], x[1]), |[a, b]| a * b, |[a, b]| a * b),
        ("div", |b, x| b.div(x[0], x[1]), |[a, b]| a / b, |[a, b]| a / b),
        (
            "min",
            |b, x| b.min(x[0], x[1]),
            |[a, b]| if a < b { a } else { b },
            |[a, b]| if a < b { a } else { b },
        ),
        (
            "max",
            |b, x| b.max(x[0], x[1]),
            |[a, b]| if b < a { a } else { b },
            |[a, b]| if b < a { a } else { b },
        ),
        (
            "copy sign",
            |b, x| b.copy_sign(x[0], x[1]),
            |[a, b]| a.copysign(b),
            |[a, b]| a.copysign(b),
        ),
        (
            "equal",
            |b, x| chosen(b, Comparison::Equal, x),
            |[a, b]| if a == b { 2.0 } else { 3.0 },
            |[a, b]| if a == b { 2.0 } else { 3.0 },
        ),
        (
            "less",
            |b, x| chosen(b, Comparison::Less, x),
            |[a, b]| if a < b { 2.0 } else { 3.0 },
            |[a, b]| if a < b { 2.0 } else { 3.0 },
        ),
        (
            "less equal",
            |b, x| chosen(b, Comparison::LessEqual, x),
            |[a, b]| if a <= b { 2.0 } else { 3.0 },
            |[a, b]| if a <= b { 2.0 } else { 3.0 },
        ),
    ];
    // Bits are integers.
    let doubles = |name| memory == Memory::F64 && !matches!(name, "bits" | "copy sign");
    let values = floats(memory);
    let apply = |x: Vec<f64>, narrow: &dyn Fn(usize) -> f32, wide: &dyn Fn(usize) -> f64| {
        let one = |i| if memory == Memory::F32 { f64::from(narrow(i)) } else { wide(i) };
        Data::Floats(memory, (0..x.len()).map(one).collect())
    };
    let unary = unary.map(|(name, write, narrow, wide)| {
        let expected =
            apply(values.clone(), &|i| narrow([values[i] as f32]), &|i| wide([values[i]]));
        let inputs = vec![Data::Floats(memory, values.clone())];
        Case {
            doubles: doubles(name),
            ..map(format!("{name} {memory:?}"), inputs, expected, write)
        }
    });
    let (left, right) = pairs(&values);
    let binary = binary.map(|(name, write, narrow, wide)| {
        let expected = apply(left.clone(), &|i| narrow([left[i] as f32, right[i] as f32]), &|i| {
            wide([left[i], right[i]])
        });
        let inputs = [&left, &right].map(|v| Data::Floats(memory, v.clone())).to_vec();
        Case {
            doubles: doubles(name),
            ..map(format!("{name} {memory:?}"), inputs, expected, write)
        }
    });
    unary.into_iter().chain(binary).collect()
}

/// `x * y + 2` of so many numbers, in vectors that have tails.
fn doubles(count: usize) -> Case {
    let x: Vec<f64> = (0..count).map(|i| i as f64 + 0.5).collect();
    let y: Vec<f64> = (0..count).map(|i| i as f64 - 5.0).collect();
    let expected = x.iter().zip(&y).map(|(x, y)| x * y + 2.0).collect();
    let [x, y, expected] = [x, y, expected].map(|v| Data::Floats(Memory::F64, v));
    let case = map(format!("{count} of F64"), vec![x, y], expected, |b, x| {
        let two = b.f64(2.0);
        b.mul_add(x[0], x[1], two)
    });
    Case { doubles: true, ..case }
}

/// 2 where it holds, else 3.
fn chosen(b: &mut Builder, op: Comparison, x: &[Value]) -> Value {
    let ty = b.type_of(x[0]);
    let mask = b.compare(op, x[0], x[1]);
    let constant = |b: &mut Builder, c: i64| match ty.is_float() {
        true => b.float(ty, c as f64),
        false => b.integer(ty, c),
    };
    let [two, three] = [2, 3].map(|c| constant(b, c));
    b.select(mask, two, three)
}

type Integers = (&'static str, Write, fn(i32, i32) -> i32, fn(i64, i64) -> i64);

fn integer_map(memory: Memory, (name, write, narrow, wide): Integers) -> Case {
    let (left, right) = pairs(&integers(memory));
    let one = |(&a, &b): (&i64, &i64)| match memory {
        Memory::I32 => i64::from(narrow(a as i32, b as i32)),
        _ => wide(a, b),
    };
    let expected = Data::Integers(memory, left.iter().zip(&right).map(one).collect());
    let inputs = [left, right].map(|v| Data::Integers(memory, v)).to_vec();
    map(format!("{name} {memory:?}"), inputs, expected, write)
}

fn integer_cases(memory: Memory) -> Vec<Case> {
    let cases: [Integers; 18] = [
        ("add", |b, x| b.add(x[0], x[1]), i32::wrapping_add, i64::wrapping_add),
        ("sub", |b, x| b.sub(x[0], x[1]), i32::wrapping_sub, i64::wrapping_sub),
        ("mul", |b, x| b.mul(x[0], x[1]), i32::wrapping_mul, i64::wrapping_mul),
        ("min", |b, x| b.min(x[0], x[1]), i32::min, i64::min),
        ("max", |b, x| b.max(x[0], x[1]), i32::max, i64::max),
        ("and", |b, x| b.and(x[0], x[1]), |a, b| a & b, |a, b| a & b),
        ("or", |b, x| b.or(x[0], x[1]), |a, b| a | b, |a, b| a | b),
        ("xor", |b, x| b.binary(Binary::Xor, x[0], x[1]), |a, b| a ^ b, |a, b| a ^ b),
        ("neg", |b, x| b.neg(x[0]), |a, _| a.wrapping_neg(), |a, _| a.wrapping_neg()),
        ("abs", |b, x| b.abs(x[0]), |a, _| a.wrapping_abs(), |a, _| a.wrapping_abs()),
        ("not", |b, x| b.not(x[0]), |a, _| !a, |a, _| !a),
        ("left", |b, x| b.shift(Shift::Left, x[0], 5), |a, _| a << 5, |a, _| a << 5),
        ("right", |b, x| b.shift(Shift::RightSigned, x[0], 9), |a, _| a >> 9, |a, _| a >> 9),
        (
            "right unsigned",
            |b, x| b.shift(Shift::RightUnsigned, x[0], 31),
            |a, _| ((a as u32) >> 31) as i32,
            |a, _| ((a as u64) >> 31) as i64,
        ),
        (
            "equal",
            |b, x| chosen(b, Comparison::Equal, x),
            |a, b| 3 - i32::from(a == b),
            |a, b| 3 - i64::from(a == b),
        ),
        (
            "less",
            |b, x| chosen(b, Comparison::Less, x),
            |a, b| 3 - i32::from(a < b),
            |a, b| 3 - i64::from(a < b),
        ),
        (
            "less equal",
            |b, x| chosen(b, Comparison::LessEqual, x),
            |a, b| 3 - i32::from(a <= b),
            |a, b| 3 - i64::from(a <= b),
        ),
        (
            "masks",
            |b, x| {
                let (less, equal) = (b.less(x[0], x[1]), b.equal(x[0], x[1]));
                let either = b.or(less, equal);
                let greater = b.not(either);
                let odd = b.binary(Binary::Xor, greater, equal);
                let all = b.and(odd, odd);
                let ty = b.type_of(x[0]);
                let (one, zero) = (b.integer(ty, 1), b.integer(ty, 0));
                b.select(all, one, zero)
            },
            |a, b| i32::from(a >= b),
            |a, b| i64::from(a >= b),
        ),
    ];
    cases.map(|case| integer_map(memory, case)).into()
}

/// What takes one lane; nothing of it traps.
fn divisions(memory: Memory) -> Vec<Case> {
    let cases: [Integers; 5] = [
        (
            "div",
            |b, x| b.div(x[0], x[1]),
            |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
            |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
        ),
        (
            "rem",
            |b, x| b.binary(Binary::Rem, x[0], x[1]),
            |a, b| if b == 0 { a } else { a.wrapping_rem(b) },
            |a, b| if b == 0 { a } else { a.wrapping_rem(b) },
        ),
        (
            "left by",
            |b, x| b.shift_by(Shift::Left, x[0], x[1]),
            |a, b| a.wrapping_shl(b as u32),
            |a, b| a.wrapping_shl(b as u32),
        ),
        (
            "right by",
            |b, x| b.shift_by(Shift::RightSigned, x[0], x[1]),
            |a, b| a.wrapping_shr(b as u32),
            |a, b| a.wrapping_shr(b as u32),
        ),
        (
            "right unsigned by",
            |b, x| b.shift_by(Shift::RightUnsigned, x[0], x[1]),
            |a, b| (a as u32).wrapping_shr(b as u32) as i32,
            |a, b| (a as u64).wrapping_shr(b as u32) as i64,
        ),
    ];
    cases.map(|case| Case { scalar: true, ..integer_map(memory, case) }).into()
}

/// Loads that widen and stores that truncate, from every kind to every kind.
fn memories() -> Vec<Case> {
    use Memory::{I8, I16, I32, I64, U8, U16, U32};
    let extended = |memory, v: i64| match memory {
        I8 => i64::from(v as i8),
        U8 => i64::from(v as u8),
        I16 => i64::from(v as i16),
        U16 => i64::from(v as u16),
        I32 => i64::from(v as i32),
        U32 => i64::from(v as u32),
        _ => v,
    };
    let mut cases = vec![];
    for from in [I8, U8, I16, U16, I32, U32, I64] {
        for to in [I8, U8, I16, U16, I32, U32, I64] {
            // Long enough for whole vectors and every tail.
            let values: Vec<_> = (0..5).flat_map(|_| INTEGERS).collect();
            let input: Vec<_> = values.iter().map(|&v| extended(from, v)).collect();
            let expected = input.iter().map(|&v| extended(to, v)).collect();
            let (input, expected) = (Data::Integers(from, input), Data::Integers(to, expected));
            cases.push(map(
                format!("{from:?} to {to:?}"),
                vec![input],
                expected,
                move |b, x| match (from.value(), to.value()) {
                    (Type::I32, Type::I64) => b.unary(Unary::ToI64, x[0]),
                    (Type::I64, Type::I32) => b.unary(Unary::ToI32, x[0]),
                    _ => x[0],
                },
            ));
        }
    }
    cases
}

fn conversions() -> Vec<Case> {
    use Memory::{F32, F64, I32, I64};
    let (narrow, wide) = (floats(F32), floats(F64));
    let fits = |limit: f64| move |v: &f64| v.abs() < limit;
    let to_integer = |name: &str, from, to: Memory, limit| {
        let input: Vec<_> = floats(from).into_iter().filter(fits(limit)).collect();
        let expected = Data::Integers(to, input.iter().map(|&v| v as i64).collect());
        let op = if to == I32 { Unary::ToI32 } else { Unary::ToI64 };
        map(name, vec![Data::Floats(from, input)], expected, move |b, x| b.unary(op, x[0]))
    };
    let to_float = |name: &str, from, to: Memory| {
        let input = integers(from);
        let one = |&v: &i64| if to == F32 { f64::from(v as f32) } else { v as f64 };
        let expected = Data::Floats(to, input.iter().map(one).collect());
        let op = if to == F32 { Unary::ToF32 } else { Unary::ToF64 };
        map(name, vec![Data::Integers(from, input)], expected, move |b, x| b.unary(op, x[0]))
    };
    let saturated = narrow.iter().map(|&v| (v as f32) as i32);
    let saturated = Data::i32(saturated.collect::<Vec<_>>());
    let demoted = Data::f32(wide.iter().map(|&v| v as f32).collect::<Vec<_>>());
    vec![
        to_integer("F32 to I32", F32, I32, 2147483648.0),
        to_integer("F64 to I32", F64, I32, 2147483648.0),
        to_integer("F32 to I64", F32, I64, 9e18),
        to_integer("F64 to I64", F64, I64, 9e18),
        to_float("I32 to F32", I32, F32),
        to_float("I32 to F64", I32, F64),
        to_float("I64 to F32", I64, F32),
        to_float("I64 to F64", I64, F64),
        map("F32 to I32 saturating", vec![Data::Floats(F32, narrow.clone())], saturated, |b, x| {
            b.to_i32_saturating(x[0])
        }),
        map("F64 to F32", vec![Data::Floats(F64, wide)], demoted, |b, x| {
            b.unary(Unary::ToF32, x[0])
        }),
        map(
            "F32 to F64",
            vec![Data::Floats(F32, narrow.clone())],
            Data::Floats(F64, narrow),
            |b, x| b.unary(Unary::ToF64, x[0]),
        ),
    ]
}

/// Reductions, tails, lane numbers and indices: of one row of numbers that are exact in any order.
fn across_lanes() -> Vec<Case> {
    const ELEMENTS: i64 = 23;
    let reductions = [Reduction::Sum, Reduction::Product, Reduction::Min, Reduction::Max];
    let values: Vec<i64> = (0..ELEMENTS).map(|i| if i % 9 == 0 { i - 12 } else { 1 }).collect();
    let mut cases = vec![];
    for op in reductions {
        for memory in [Memory::F32, Memory::I32] {
            let result = match op {
                Reduction::Sum => values.iter().sum(),
                Reduction::Product => values.iter().product(),
                Reduction::Min => values.iter().copied().min().unwrap_or(0),
                Reduction::Max => values.iter().copied().max().unwrap_or(0),
            };
            let data = |values: Vec<i64>| match memory {
                Memory::F32 => Data::f32(values.into_iter().map(|v| v as f32)),
                _ => Data::Integers(memory, values),
            };
            cases.push(reduction(op, data(values.clone()), data(vec![result; 17])));
        }
    }
    let numbers = (0..100).map(|i| 1000 * (i / 10) + i % 10);
    let kernel = |m: Machine| {
        let mut b = Builder::new("numbers", m, 10);
        let output = b.output("y", 400);
        let (begin, end) = (b.begin(), b.end());
        b.each(begin, end, &[], |b, it| {
            let row = b.offset(output, it.index, 40);
            let base = b.from_index(Type::I32, it.index);
            let thousand = b.from_index(Type::I32, 1000);
            let base = b.mul(thousand, base);
            let from = b.lane_numbers();
            let step = b.i32(m.lanes as i32);
            b.fold_row(10, &[row], &[from], |b, p, number, lanes| {
                let sum = b.add(number[0], base);
                b.store_first(sum, p[0], 0, lanes);
                vec![b.add(number[0], step)]
            });
        });
        b.finish()
    };
    cases.push(Case {
        name: "lane numbers".into(),
        scalar: false,
        doubles: false,
        kernel: Box::new(kernel),
        operands: Box::new(|_| vec![Data::unset(Memory::I32, 100)]),
        expected: always(Data::i32(numbers)),
        tolerance: Tolerance::Exact,
        tight: true,
    });
    cases
}

/// The result, in as many elements as `expected` has.
fn reduction(op: Reduction, input: Data, expected: Data) -> Case {
    let (memory, elements, copies) =
        (input.memory(), input.elements() as i64, expected.elements() as i64);
    let kernel = move |m: Machine| {
        let mut b = Builder::new("reduction", m, 1);
        let (x, y) = (b.input("x", elements * 4), b.output("y", copies * 4));
        let (begin, end) = (b.begin(), b.end());
        b.each(begin, end, &[], |b, _| {
            let start = match (op, memory) {
                (Reduction::Sum, Memory::F32) => b.f32(0.0),
                (Reduction::Sum, _) => b.i32(0),
                (Reduction::Product, Memory::F32) => b.f32(1.0),
                (Reduction::Product, _) => b.i32(1),
                (Reduction::Min, Memory::F32) => b.f32(f32::INFINITY),
                (Reduction::Min, _) => b.i32(i32::MAX),
                (Reduction::Max, Memory::F32) => b.f32(f32::NEG_INFINITY),
                (Reduction::Max, _) => b.i32(i32::MIN),
            };
            let sum = b.fold_row(elements, &[x], &[start], |b, p, sum, lanes| {
                let v = b.load_as(memory, p[0], 0, lanes);
                let v = b.first(v, start, lanes);
                vec![b.binary(op.combine(), sum[0], v)]
            });
            let all = b.reduce(op, sum[0]);
            b.fold_row(copies, &[y], &[], |b, p, _, lanes| {
                b.store_first(all, p[0], 0, lanes);
                vec![]
            });
        });
        b.finish()
    };
    let unset = Data::unset(memory, copies as usize);
    Case {
        name: format!("{op:?} of {memory:?}"),
        scalar: false,
        doubles: false,
        kernel: Box::new(kernel),
        operands: Box::new(move |_| vec![input.clone(), unset.clone()]),
        expected: always(expected),
        tolerance: Tolerance::Exact,
        tight: true,
    }
}
