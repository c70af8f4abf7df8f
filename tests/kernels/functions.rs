//! The elementary functions, over all exponents and both signs, against 64-bit ones.

use crate::cases::{Case, map};
use crate::data::{Data, Tolerance};
use rlx_aot::kernels::math;
use rlx_aot::kir::build::Builder;
use rlx_aot::kir::{Memory, Value};

type Function = (&'static str, fn(&mut Builder, Value) -> Value, fn(f64) -> f64, f64);

/// Each over so many numbers.
pub(crate) fn cases(numbers: u32) -> Vec<Case> {
    // With the limits that hold without fused multiply-add, too.
    let everywhere: [Function; 16] = [
        ("exp", math::exp, f64::exp, 2.0),
        ("exp_m1", math::exp_m1, f64::exp_m1, 2.0),
        ("log", math::log, f64::ln, 2.0),
        ("log_1p", math::log_1p, f64::ln_1p, 2.0),
        ("tanh", math::tanh, f64::tanh, 2.0),
        ("sigmoid", math::sigmoid, sigmoid, 3.0),
        ("erf", math::erf, erf, 2.0),
        ("tanh for sums", math::tanh_for_sums, f64::tanh, 6.0),
        ("gated tanh", gated, |x| sigmoid(x) * x.tanh(), 8.0),
        ("sinh", math::sinh, f64::sinh, 2.0),
        ("cosh", math::cosh, f64::cosh, 2.0),
        ("asin", math::asin, f64::asin, 2.0),
        ("acos", math::acos, f64::acos, 2.0),
        ("atan", math::atan, f64::atan, 2.0),
        ("asinh", math::asinh, asinh, 3.0),
        ("atanh", math::atanh, atanh, 3.0),
    ];
    let mut cases: Vec<_> = everywhere.map(|f| case(f, &sweep(numbers))).into();
    cases.push(case(("acosh", math::acosh, acosh, 3.0), &sweep(numbers)));
    let sums: Function = ("erf for sums", math::erf_for_sums, erf, 0.0);
    cases.push(Case { tolerance: Tolerance::Relative(6e-7), ..case(sums, &sweep(numbers)) });
    // What is 1 has to be it: a large number times what it lacks would not be small.
    let far = [9.0, 21.5, 1e3, 1e30, f32::INFINITY].map(|x| [x, -x]).concat();
    let ends: [Function; 2] = [
        ("erf for sums, far out", math::erf_for_sums, f64::signum, 0.0),
        ("tanh for sums, far out", math::tanh_for_sums, f64::signum, 0.0),
    ];
    cases.extend(ends.map(|f| case(f, &far)));
    let circular: Vec<_> =
        sweep(numbers).into_iter().filter(|x| x.abs() <= 4e5 || !x.is_finite()).collect();
    cases.push(case(("sin", math::sin, f64::sin, 2.0), &circular));
    cases.push(case(("cos", math::cos, f64::cos, 2.0), &circular));
    cases.push(case(("tan", math::tan, f64::tan, 4.0), &circular));
    cases.push(pow(numbers));
    cases.extend(long_cases(numbers / 4));
    cases.extend(half_cases(numbers / 4));
    for n in [0, 1, 2, 3, 7, -1, -4] {
        let f = move |b: &mut Builder, x: &[Value]| math::integer_power(b, x[0], n);
        let x = sweep(1000);
        let expected = x.iter().map(|&x| f64::from(x).powi(n)).collect();
        let (x, expected) = (Data::f32(x), Data::Floats(Memory::F32, expected));
        let case = map(format!("power {n}"), vec![x], expected, f);
        // The products on the way may be denormal.
        cases.push(Case { tolerance: Tolerance::Relative(1e-6), ..case });
    }
    cases
}

fn exact_f16(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

/// Every number of two bytes to `F32`, and numbers of all sizes back.
fn half_cases(numbers: u32) -> Vec<Case> {
    use half::{bf16, f16};
    use math::half::{of_bf16, of_f16, to_bf16, to_f16};
    type Pair = (&'static str, fn(&mut Builder, Value) -> Value, fn(u16) -> f32);
    let widened: [Pair; 2] = [
        ("F32 of bf16", of_bf16, |bits| bf16::from_bits(bits).to_f32()),
        ("F32 of f16", of_f16, |bits| f16::from_bits(bits).to_f32()),
    ];
    let all = || Data::Integers(Memory::I32, (0..1 << 16).collect());
    let mut cases: Vec<_> = (widened.into_iter())
        .map(|(name, write, exact)| {
            let expected = Data::f32((0..=u16::MAX).map(exact));
            map(name, vec![all()], expected, move |b, x| write(b, x[0]))
        })
        .collect();
    // Rounded by an instruction where there is one.
    let between =
        || (0..u16::MAX / 4).map(move |i| (exact_f16(4 * i) + exact_f16(4 * i + 1)) / 2.0);
    let rounded = Data::f32(between().map(|x| f16::from_f32(x).to_f32()));
    cases.push(map("F32 rounded to f16", vec![Data::f32(between())], rounded, |b, x| {
        math::half::round_f16(b, x[0])
    }));
    type Back = (&'static str, fn(&mut Builder, Value) -> Value, fn(f32) -> u16, fn(u16) -> f32);
    let narrowed: [Back; 2] = [
        ("bf16 of F32", to_bf16, |x| bf16::from_f32(x).to_bits(), widened[0].2),
        ("f16 of F32", to_f16, |x| f16::from_f32(x).to_bits(), widened[1].2),
    ];
    for (name, write, exact, back) in narrowed {
        // With what lies between two neighbours, where ties are.
        let between = (0..u16::MAX / 4).map(|i| (back(4 * i) + back(4 * i + 1)) / 2.0);
        let x = sweep(numbers).into_iter().chain(between).filter(|x| !x.is_nan());
        let x: Vec<_> = x.collect();
        let expected = Data::i32(x.iter().map(|&x| exact(x).into()));
        cases.push(map(name, vec![Data::f32(x)], expected, move |b, x| write(b, x[0])));
    }
    cases
}

/// In 64 bits, where one has to trust the other implementation, too.
fn long_cases(numbers: u32) -> Vec<Case> {
    let functions: [Function; 18] = [
        ("exp", math::exp, f64::exp, 2.0),
        ("exp_m1", math::exp_m1, f64::exp_m1, 3.0),
        ("log", math::log, f64::ln, 3.0),
        ("log_1p", math::log_1p, f64::ln_1p, 3.0),
        ("tanh", math::tanh, f64::tanh, 4.0),
        ("sigmoid", math::sigmoid, sigmoid, 4.0),
        ("erf", math::erf, erf, 8.0),
        ("sinh", math::sinh, f64::sinh, 4.0),
        ("cosh", math::cosh, f64::cosh, 4.0),
        ("asin", math::asin, f64::asin, 8.0),
        ("acos", math::acos, f64::acos, 8.0),
        ("atan", math::atan, f64::atan, 4.0),
        ("asinh", math::asinh, asinh, 4.0),
        ("atanh", math::atanh, atanh, 4.0),
        ("acosh", math::acosh, acosh, 4.0),
        ("sin", math::sin, f64::sin, 3.0),
        ("cos", math::cos, f64::cos, 3.0),
        ("tan", math::tan, f64::tan, 6.0),
    ];
    let step = (u64::MAX / u64::from(numbers)) | 1;
    let all = (0..u64::from(numbers)).map(|i| f64::from_bits(i.wrapping_mul(step)));
    let mut x: Vec<_> = sweep(numbers).into_iter().map(f64::from).chain(all).collect();
    x.extend((0..numbers).map(|i| (f64::from(i) / f64::from(numbers) - 0.5) * 1500.0));
    let long = |(name, write, exact, ulps): Function| {
        let circular = ["sin", "cos", "tan"].contains(&name);
        let within = |x: &f64| !circular || x.abs() <= 1e6 || !x.is_finite();
        let x: Vec<_> = x.iter().copied().filter(within).collect();
        let expected = Data::Floats(Memory::F64, x.iter().map(|&x| exact(x)).collect());
        let x = Data::Floats(Memory::F64, x);
        let case = map(format!("{name} F64"), vec![x], expected, move |b, x| write(b, x[0]));
        Case { tolerance: Tolerance::Ulps(ulps), ..case }
    };
    let mut cases: Vec<_> = functions.map(long).into();
    let (x, y): (Vec<_>, Vec<_>) = pairs(numbers)
        .into_iter()
        .map(|(x, y)| (f64::from(x), f64::from(y) * if y.is_finite() { 7.9 } else { 1.0 }))
        .unzip();
    let expected = x.iter().zip(&y).map(|(x, &y)| x.powf(y)).collect();
    let inputs = [x, y].map(|v| Data::Floats(Memory::F64, v)).to_vec();
    let expected = Data::Floats(Memory::F64, expected);
    let case = map("pow F64", inputs, expected, |b, x| math::pow(b, x[0], x[1]));
    cases.push(Case { tolerance: Tolerance::Ulps(3.0), ..case });
    cases
}

fn case((name, write, exact, ulps): Function, x: &[f32]) -> Case {
    let expected = x.iter().map(|&x| exact(f64::from(x))).collect();
    let (input, expected) = (Data::f32(x.iter().copied()), Data::Floats(Memory::F32, expected));
    let case = map(name, vec![input], expected, move |b, x| write(b, x[0]));
    Case { tolerance: Tolerance::Ulps(ulps), ..case }
}

/// Numbers of every exponent and sign, with infinities, NaNs and what is next to integers.
fn sweep(numbers: u32) -> Vec<f32> {
    let step = (u32::MAX / numbers) | 1;
    let special = [0.0, 0.5, 1.0, 2.0, 3.0, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE];
    let near = special.into_iter().flat_map(|x| [x, x.next_down(), x.next_up(), -x]);
    // Half of them are of the size of 1.
    let small = (0..numbers / 2).map(|i| (i as f32 / numbers as f32 - 0.25) * 60.0);
    let all = (0..numbers / 2).map(|i| f32::from_bits(i.wrapping_mul(2 * step)));
    near.chain(small).chain(all).chain([f32::NAN]).collect()
}

fn pow(numbers: u32) -> Case {
    let pairs = pairs(numbers);
    let exact = |(x, y): &(f32, f32)| f64::from(*x).powf(f64::from(*y));
    let expected = Data::Floats(Memory::F32, pairs.iter().map(exact).collect());
    let (x, y): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let case =
        map("pow", vec![Data::f32(x), Data::f32(y)], expected, |b, x| math::pow(b, x[0], x[1]));
    Case { tolerance: Tolerance::Ulps(2.0), ..case }
}

/// Bases and exponents: special ones, and powers that are neither too large nor too small.
fn pairs(numbers: u32) -> Vec<(f32, f32)> {
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        3.0,
        -3.0,
        0.5,
        -0.5,
        1.5,
        -2.5,
        1e-40,
        -1e-40,
        1e30,
        -1e30,
        16777217.0,
        -16777215.0,
        0.999_999_94,
        1.000_000_1,
        127.0,
        -149.0,
        1000.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN_POSITIVE,
    ];
    let mut pairs: Vec<(f32, f32)> =
        specials.iter().flat_map(|&x| specials.map(|y| (x, y))).collect();
    let x = sweep(numbers);
    pairs.extend(x.iter().enumerate().map(|(i, &x)| {
        let share = (i as f32 * 0.618_034).fract() * 2.0 - 1.0;
        (x.abs(), (share * 88.0 / x.abs().ln()).clamp(-1e30, 1e30))
    }));
    pairs
}

/// What goes through a gate, with one division.
fn gated(b: &mut Builder, x: Value) -> Value {
    let (gate, tanh) = (math::sigmoid_ratio(b, x), math::tanh_ratio(b, x));
    gate.times(b, tanh).value(b)
}

fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

/// Without the standard library's overflow.
fn asinh(x: f64) -> f64 {
    if x.abs() < 1e9 { x.asinh() } else { (x.abs().ln() + std::f64::consts::LN_2).copysign(x) }
}

fn acosh(x: f64) -> f64 {
    if x < 1e9 { x.acosh() } else { x.ln() + std::f64::consts::LN_2 }
}

/// Without the standard library's loss of digits below 0.
fn atanh(x: f64) -> f64 {
    x.abs().atanh().copysign(x)
}

/// By its series near to 0, and by a continued fraction away from it.
fn erf(x: f64) -> f64 {
    let t = x.abs();
    if x.is_nan() || t == 0.0 {
        return x;
    }
    if t > 6.5 {
        return 1f64.copysign(x);
    }
    if t < 1.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let fraction = (1..2000).rev().fold(t, |f, n| t + f64::from(n) / 2.0 / f);
    let complement = (-t * t).exp() / fraction / std::f64::consts::PI.sqrt();
    (1.0 - complement).copysign(x)
}
