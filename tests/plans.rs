//! Random graphs: what a planned program computes over one arena, in every way of planning, is bit for
//! bit what the graph means.

use cranelift_entity::SecondaryMap;
use rlx_aot::fit::{Bands, fit};
use rlx_aot::interp::arena::Session;
use rlx_aot::lir::over::{Clear, overlap};
use rlx_aot::lir::region::Region;
use rlx_aot::lir::{self, Options, Outside};
use rlx_aot::machine::Machine;
use rlx_aot::mir::{self, Binary, Builder, Graph, Output, Reduction, Role, Unary, Value};
use rlx_aot::passes::bands::{Again, Sites, split};
use rlx_aot::passes::{self, Filtering, Level};
use rlx_aot::tensor::Tensor;
use rlx_aot::types::{DType, Type};

/// So many elements has a tensor, at most.
const LARGEST: usize = 3000;

/// Numbers that look random and are the same everywhere.
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n.max(1)
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

fn random_graph(noise: &mut Noise) -> Graph {
    let mut mir = Builder::new("random");
    let shapes: [&[usize]; 6] = [&[6, 16], &[1, 4, 24], &[2, 5, 5, 8], &[40], &[0, 3], &[3, 1, 7]];
    let mut pool: Vec<Value> = vec![];
    for i in 0..1 + noise.below(3) {
        let role = if noise.below(4) == 0 { Role::Parameter } else { Role::Input };
        let ty = Type::new(DType::F32, noise.pick(&shapes));
        pool.push(mir.input(format!("x{i}"), role, ty));
    }
    let constant = noise.pick(&shapes);
    pool.push(mir.constant(numbers(&Type::new(DType::F32, constant), 3)));
    for i in 0..4 + noise.below(14) {
        mir.set_origin(&format!("node{i}"));
        // The last values are the likeliest, so that chains come about.
        let at = pool.len() - 1 - noise.below(pool.len()).min(noise.below(pool.len()));
        if let Some(new) = random_node(&mut mir, noise, pool[at], &pool)
            && mir.ty(new).elements() <= LARGEST
        {
            pool.push(new);
        }
    }
    let mut outputs = vec![*pool.last().unwrap_or(&pool[0])];
    (0..noise.below(4)).for_each(|_| outputs.push(noise.pick(&pool)));
    let outputs = outputs.into_iter().enumerate();
    mir.finish(outputs.map(|(i, value)| Output { name: format!("y{i}"), value }).collect())
}

fn random_node(mir: &mut Builder, noise: &mut Noise, x: Value, pool: &[Value]) -> Option<Value> {
    let dims = mir.dims(x);
    let rank = dims.len();
    let axis = noise.below(rank);
    let fits = |dims: &[usize]| dims.iter().product::<usize>() <= LARGEST;
    Some(match noise.below(18) {
        0 | 1 => {
            let op = noise.pick(&[Unary::Neg, Unary::Abs, Unary::Floor, Unary::Sigmoid]);
            mir.unary(op, x)
        }
        2 | 3 => {
            let mut others: Vec<Value> = pool.to_vec();
            others.retain(|&o| {
                rlx_aot::types::broadcast(&dims, &mir.dims(o)).is_some_and(|d| fits(&d))
            });
            let other = noise.pick(&others);
            mir.binary(noise.pick(&[Binary::Add, Binary::Sub, Binary::Max]), x, other)
        }
        4 => mir.reduce(noise.pick(&[Reduction::Sum, Reduction::Max]), x, &[axis]),
        5 if rank > 0 && dims[axis] > 0 => {
            let index = mir.arg_reduce(x, noise.below(2) == 0, axis, false);
            mir.cast(index, DType::F32)
        }
        6 if rank >= 2 => {
            let perm: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
            let turned = mir.permute(x, &perm);
            let (a, b) = if noise.below(2) == 0 { (x, turned) } else { (turned, x) };
            mir.contract(a, b)
        }
        7 if rank == 4 => {
            let w = Type::new(DType::F32, [3, 3, dims[3], 8]);
            if dims[3] > 24 {
                return None;
            }
            let padded = mir.pad(x, &[0, 1, 1, 0], &[0, 1, 1, 0], 0.0);
            let w = mir.constant(numbers(&w, 5));
            mir.conv(padded, w, &[1 + noise.below(2), 1], &[1, 1], 1)
        }
        8 if rank == 4 => mir.pool(Reduction::Max, x, &[2, 2], &[1 + noise.below(2), 1], &[1, 1]),
        9 if rank > 0 && dims[axis] > 0 => {
            let indices = Tensor::from_i64s([3], &[0, -1, noise.below(dims[axis]) as i64]);
            let indices = mir.constant(indices);
            mir.gather(x, indices, axis)
        }
        10 => {
            let mut border = || dims.iter().map(|_| noise.below(3)).collect::<Vec<_>>();
            let (low, high) = (border(), border());
            mir.pad(x, &low, &high, -1.5)
        }
        11 => {
            let some = |noise: &mut Noise| dims.iter().map(|_| noise.below(2)).collect::<Vec<_>>();
            let (low, high, interior) = (some(noise), some(noise), some(noise));
            mir.pad_interior(x, &low, &high, &interior, 2.5)
        }
        12 if rank > 0 => {
            let mut others: Vec<Value> = pool.to_vec();
            others.retain(|&o| {
                let other = mir.dims(o);
                let same = |a: usize| a == axis || other[a] == dims[a];
                other.len() == rank && (0..rank).all(same)
            });
            let all: Vec<Value> = (0..2 + noise.below(2)).map(|_| noise.pick(&others)).collect();
            mir.concat(&all, axis)
        }
        13 => {
            let count: usize = dims.iter().product();
            let split: Vec<usize> =
                (2..9).filter(|n| count > 0 && count.is_multiple_of(*n)).collect();
            match split.is_empty() {
                true => mir.reshape(x, [1, count]),
                false => {
                    let n = noise.pick(&split);
                    let to = noise.pick(&[[n, count / n], [count / n, n]]);
                    mir.reshape(x, to)
                }
            }
        }
        14 | 15 if rank > 1 => {
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(axis, noise.below(rank));
            perm.swap(0, noise.below(rank));
            mir.permute(x, &perm)
        }
        16 if rank > 0 && dims[axis] > 1 => {
            let (mut starts, mut counts, mut steps) = (vec![0; rank], dims.clone(), vec![1; rank]);
            match noise.below(3) {
                0 => (starts[axis], steps[axis]) = (dims[axis] - 1, -1),
                1 => (counts[axis], steps[axis]) = (dims[axis].div_ceil(2), 2),
                _ => (starts[axis], counts[axis]) = (1, dims[axis] - 1),
            }
            mir.slice(x, &starts, &counts, &steps)
        }
        17 => {
            let to: Vec<usize> = dims.iter().map(|&d| if d == 1 { 3 } else { d }).collect();
            let to = [&[1 + noise.below(2)], &to[..]].concat();
            if fits(&to) { mir.broadcast(x, to) } else { return None }
        }
        _ => return None,
    })
}

/// Small integers and halves, so that most sums are exact.
fn numbers(ty: &Type, seed: usize) -> Tensor {
    let value = |i: usize| ((i * 7 + seed * 5) % 23) as f64 / 2.0 - 5.0;
    Tensor::from_f64s(ty.clone(), (0..ty.elements()).map(value))
}

fn check(graph: &Graph, seed: u64) {
    let tensors = graph.inputs.iter().enumerate().map(|(i, &value)| numbers(graph.ty(value), i));
    let tensors: Vec<Tensor> = tensors.collect();
    let expected = mir::eval::graph(graph, &tensors);
    let of_role = |wanted: Role| -> Vec<Tensor> {
        let is = |value: &Value| matches!(&graph.nodes[*value].op, mir::Op::Input { role, .. } if *role == wanted);
        let all = graph.inputs.iter().zip(&tensors).filter(|(value, _)| is(value));
        all.map(|(_, tensor)| tensor.clone()).collect()
    };
    for (alias, no_reuse, weights_in_arena) in
        [(false, false, false), (true, false, false), (true, true, true)]
    {
        let (guard, uniform) =
            (if seed.is_multiple_of(3) { 100 } else { 0 }, seed.is_multiple_of(2));
        let bytes = [100, 1000, 10_000][seed as usize % 3];
        let region = (seed % 5 < 3).then(|| Region {
            name: "fast".to_owned(),
            bytes,
            keeps: seed.is_multiple_of(2),
        });
        let some = |n: u64| seed.is_multiple_of(n);
        let outside = Outside { inputs: some(2), outputs: some(3), parameters: some(5) };
        let overwrite_inputs = some(7) || some(4);
        let common =
            Options { guard, uniform, region, outside, overwrite_inputs, ..Options::default() };
        let options = Options { alias, no_reuse, weights_in_arena, ..common };
        let module =
            lir::lower(graph, options.clone()).unwrap_or_else(|e| panic!("{seed}: {e}\n{graph}"));
        let context = || format!("seed {seed}, {options:?}\n{graph}\n{module}");
        if let Err(broken) = lir::verify::verify(&module) {
            panic!("{}\n{}", broken.join("\n"), context());
        }
        let mut session = Session::new(&module, &of_role(Role::Parameter)).expect("they fit");
        // What one run leaves behind is nothing to the next.
        let others = of_role(Role::Input);
        let others = others.iter().map(|t| numbers(t.ty(), 11));
        let first = session.run(&others.collect::<Vec<_>>());
        let results = first.and_then(|_| session.run(&of_role(Role::Input)));
        let results = results.unwrap_or_else(|e| panic!("{e}\n{}", context()));
        assert_eq!(results.len(), expected.len());
        for (i, (result, expected)) in results.iter().zip(&expected).enumerate() {
            let same = result.ty() == expected.ty() && result.bytes() == expected.bytes();
            assert!(same, "output {i} is {result:?}, not {expected:?}\n{}", context());
        }
        let text = lir::json::to_json(&module, true);
        let again = lir::json::from_json(&text).unwrap_or_else(|e| panic!("{e}\n{}", context()));
        assert_eq!(lir::json::to_json(&again, true), text);
    }
}

/// What is computed in bands of rows, so that the arena is smaller, is what is computed at once.
#[test]
fn random_graphs_in_bands() {
    let mut banded = 0;
    for seed in 0..400 {
        let graph = random_graph(&mut Noise(seed));
        let tensors = graph.inputs.iter().enumerate().map(|(i, &v)| numbers(graph.ty(v), i));
        let tensors: Vec<Tensor> = tensors.collect();
        let expected = mir::eval::graph(&graph, &tensors);
        let options = Options::default();
        let plain = lir::lower(&graph, options.clone()).expect("it is small");
        let bands = if seed % 2 == 0 { Bands::Auto } else { Bands::Off };
        for part in [4, 3, 2] {
            let limit = plain.plan.arena_size * part / 5;
            let found =
                fit(graph.clone(), &options, &Machine::AVX2, bands, Some(limit), &|m, _| Ok(m));
            let Ok(found) = found else { break };
            let context = || format!("seed {seed}, {limit}\n{graph}\n{}", found.module);
            assert!(found.module.plan.arena_size <= limit, "{}", context());
            assert_eq!(lir::verify::verify(&found.module), Ok(()), "{}", context());
            let of_role = |wanted: Role| -> Vec<Tensor> {
                let is = |value: &Value| matches!(&graph.nodes[*value].op, mir::Op::Input { role, .. } if *role == wanted);
                let all = graph.inputs.iter().zip(&tensors).filter(|(value, _)| is(value));
                all.map(|(_, tensor)| tensor.clone()).collect()
            };
            let mut session =
                Session::new(&found.module, &of_role(Role::Parameter)).expect("they fit");
            let results = session.run(&of_role(Role::Input)).expect("the plan holds");
            for (result, expected) in results.iter().zip(&expected) {
                assert_eq!(result.bytes(), expected.bytes(), "{}", context());
            }
            banded += 1;
        }
    }
    assert!(banded > 5, "{banded}");
}

/// A chain of what reads windows and of products of places, with borders in between.
fn random_chain(noise: &mut Noise) -> Graph {
    let mut mir = Builder::new("chain");
    let (channels, height, width) = (1 + noise.below(5), 4 + noise.below(9), 3 + noise.below(7));
    let ty = Type::new(DType::F32, [1 + noise.below(2), height, width, channels]);
    let mut x = mir.input("x", Role::Input, ty);
    for i in 0..3 + noise.below(6) {
        mir.set_origin(&format!("node{i}"));
        let dims = mir.dims(x);
        let channels = dims[3];
        let step = 1 + noise.below(2);
        x = match noise.below(6) {
            0 => mir.pad(x, &[0, 1, 1, 0], &[0, 1, 1, 0], 0.0),
            1 if dims[1] > 2 && dims[2] > 2 => {
                mir.pool(Reduction::Max, x, &[2, 3], &[step, 1], &[1, 1])
            }
            2 if dims[1] > 4 && dims[2] > 2 => {
                let w = mir.constant(numbers(&Type::new(DType::F32, [3, 3, 1, channels]), i));
                let dilation = if dims[1] > 4 && dims[2] > 4 { step } else { 1 };
                mir.conv(x, w, &[1, 1], &[dilation, dilation], channels)
            }
            3 if dims[1] > 2 && dims[2] > 2 => {
                let ty = Type::new(DType::F32, [3, 3, channels, 1 + noise.below(6)]);
                let w = mir.constant(numbers(&ty, i));
                mir.conv(x, w, &[step, step], &[1, 1], 1)
            }
            _ => {
                let w = Type::new(DType::F32, [channels, 1 + noise.below(9)]);
                let w = mir.constant(numbers(&w, i));
                mir.contract(x, w)
            }
        };
    }
    let value = mir.unary(Unary::Neg, x);
    mir.finish(vec![Output { name: "y".into(), value }])
}

/// Results over operands that die are what they are elsewhere, whatever the kernels would allow.
#[test]
fn random_chains_over_operands() {
    let mut over = 0;
    for seed in 0..300 {
        let graph = random_chain(&mut Noise(seed));
        let options = Options::default();
        let plain = lir::lower(&graph, options).expect("it is small");
        let all = Clear { at_most: i64::MAX, at_least: i64::MIN };
        let found = overlap(&plain, &|_, _| Some(all)).expect("it is smaller");
        let Some(module) = found else { continue };
        let context = || format!("seed {seed}\n{graph}\n{module}");
        assert!(module.plan.arena_size < plain.plan.arena_size, "{}", context());
        assert_eq!(lir::verify::verify(&module), Ok(()), "{}", context());
        let inputs = graph.inputs.iter().map(|&value| numbers(graph.ty(value), 1));
        let inputs: Vec<Tensor> = inputs.collect();
        let expected = mir::eval::graph(&graph, &inputs);
        let mut session = Session::new(&module, &[]).expect("there are none");
        let results = session.run(&inputs).unwrap_or_else(|e| panic!("{e}\n{}", context()));
        assert_eq!(results[0].bytes(), expected[0].bytes(), "{}", context());
        over += 1;
        // One row more, and something is written too early.
        let moved = module.steps.iter().filter(|(_, info)| info.is_over()).any(|(step, info)| {
            let Some(clear) = lir::over::order(info, 0) else { return false };
            let Some(distance) = info.distance(0) else { return false };
            let size = info.result.dtype.bytes() as i64;
            let mut wrong = module.clone();
            let by = (clear.at_most + size - distance).max(0) / size;
            wrong.steps[step].result.offset += by;
            let clash = by > 0 && clear.at_least > clear.at_most + size;
            clash && lir::verify::verify(&wrong).is_ok()
        });
        assert!(!moved, "{}", context());
    }
    assert!(over > 30, "{over}");
}

/// What has other axes than its operand may lie over it as well, and is computed from its first row on.
#[test]
fn rows_that_are_gathered_over_their_table() {
    let mut mir = Builder::new("gather");
    let table = mir.input("table", Role::Input, Type::new(DType::F32, [64, 8]));
    let table = mir.unary(Unary::Neg, table);
    let rows = mir.constant(Tensor::from_i64s([4, 4, 4], &[5; 64]));
    let rows = mir.gather(table, rows, 0);
    let value = mir.unary(Unary::Neg, rows);
    let graph = mir.finish(vec![Output { name: "y".into(), value }]);
    let plain = lir::lower(&graph, Options::default()).expect("it is small");
    let all = Clear { at_most: i64::MAX, at_least: i64::MIN };
    overlap(&plain, &|_, _| Some(all)).expect("it is no larger");
}

/// What is computed again just before some reader is what was computed at first, through views or not.
#[test]
fn random_graphs_computed_again() {
    let mut repeated = 0;
    for seed in 0..300 {
        let noise = &mut Noise(seed);
        let graph = random_graph(noise);
        let tensors = graph.inputs.iter().enumerate().map(|(i, &v)| numbers(graph.ty(v), i));
        let tensors: Vec<Tensor> = tensors.collect();
        let expected = mir::eval::graph(&graph, &tensors);
        let of_role = |wanted: Role| -> Vec<Tensor> {
            let is = |value: &Value| matches!(&graph.nodes[*value].op, mir::Op::Input { role, .. } if *role == wanted);
            let all = graph.inputs.iter().zip(&tensors).filter(|(value, _)| is(value));
            all.map(|(_, tensor)| tensor.clone()).collect()
        };
        let mut users: SecondaryMap<Value, Vec<Value>> = SecondaryMap::new();
        for (value, node) in &graph.nodes {
            node.operands.iter().for_each(|&operand| users[operand].push(value));
        }
        let is_computed = |value: &Value| {
            let op = &graph.nodes[*value].op;
            !op.is_view() && !matches!(op, mir::Op::Input { .. } | mir::Op::Constant(_))
        };
        let computed: Vec<Value> = graph.nodes.keys().filter(is_computed).collect();
        if computed.is_empty() {
            continue;
        }
        // One behind the other: the nodes of later ones may have been computed again before.
        let mut all: Vec<Again> = vec![];
        for _ in 0..4 {
            let value = noise.pick(&computed);
            let readers: Vec<Value> = computed.iter().copied().filter(|&v| v > value).collect();
            if readers.is_empty() {
                continue;
            }
            let reader = noise.pick(&readers);
            let deeper = graph.nodes[value].operands.iter().copied().filter(is_computed);
            let nodes = deeper.filter(|_| noise.below(2) == 0).chain([value]).collect();
            if all.iter().all(|again| again.reader != reader) {
                all.push(Again::new(&graph, &users, &Sites::new([]), nodes, reader));
            }
        }
        let (new, from) = split(&graph, &[], &all);
        assert_eq!(mir::verify::verify(&new), Ok(()), "{seed}\n{graph}\n{new}");
        assert!(new.nodes.keys().all(|value| from[value].is_some()));
        repeated += new.nodes.len() - graph.nodes.len();
        let options = Options { overwrite_inputs: seed % 2 == 0, ..Options::default() };
        let module = lir::lower(&new, options).expect("it is small");
        let context = || format!("seed {seed}, {all:?}\n{graph}\n{module}");
        assert_eq!(lir::verify::verify(&module), Ok(()), "{}", context());
        let mut session = Session::new(&module, &of_role(Role::Parameter)).expect("they fit");
        let results = session.run(&of_role(Role::Input)).expect("the plan holds");
        for (result, expected) in results.iter().zip(&expected) {
            assert_eq!(result.bytes(), expected.bytes(), "{}", context());
        }
    }
    assert!(repeated > 300, "{repeated}");
}

/// The graph with an output for each input of a type that some value has, and which belong together.
fn with_states(mut graph: Graph, noise: &mut Noise) -> (Graph, Vec<(String, String)>) {
    let mut states = vec![];
    for (i, &input) in graph.inputs.iter().enumerate() {
        let mir::Op::Input { name, role: Role::Input } = &graph.nodes[input].op else { continue };
        let values = graph.nodes.keys().filter(|&value| graph.ty(value) == graph.ty(input));
        let mut values: Vec<Value> = values.collect();
        // The input itself is seldom of interest.
        if values.len() > 1 && noise.below(4) > 0 {
            values.retain(|&value| value != input);
        }
        let value = noise.pick(&values);
        states.push((name.clone(), format!("next{i}")));
        graph.outputs.push(Output { name: format!("next{i}"), value });
    }
    (graph, states)
}

/// Runs with states against the graph, whose outputs are fed back by hand.
fn check_states(graph: &Graph, states: &[(String, String)], seed: u64) {
    let name = |value: Value| match &graph.nodes[value].op {
        mir::Op::Input { name, .. } => name.clone(),
        _ => String::new(),
    };
    let parameter = |value: Value| {
        matches!(graph.nodes[value].op, mir::Op::Input { role: Role::Parameter, .. })
    };
    for alias in [false, true] {
        let options = Options { alias, states: states.to_vec(), ..Options::default() };
        let module =
            lir::lower(graph, options.clone()).unwrap_or_else(|e| panic!("{seed}: {e}\n{graph}"));
        let context = || format!("seed {seed}, {options:?}\n{graph}\n{module}");
        if let Err(broken) = lir::verify::verify(&module) {
            panic!("{}\n{}", broken.join("\n"), context());
        }
        let all = graph.inputs.iter().enumerate().map(|(i, &v)| (v, numbers(graph.ty(v), i)));
        let parameters: Vec<Tensor> =
            all.clone().filter(|(v, _)| parameter(*v)).map(|(_, t)| t).collect();
        let mut tensors: Vec<Tensor> = all.map(|(_, t)| t).collect();
        for (&value, tensor) in graph.inputs.iter().zip(&mut tensors) {
            if states.iter().any(|(input, _)| *input == name(value)) {
                *tensor = Tensor::zeros(tensor.ty().clone());
            }
        }
        let mut session = Session::new(&module, &parameters).expect("they fit");
        for turn in 0..3 {
            let expected = mir::eval::graph(graph, &tensors);
            let fed = graph.inputs.iter().zip(&tensors).filter(|(v, _)| {
                !parameter(**v) && !states.iter().any(|(input, _)| *input == name(**v))
            });
            let fed: Vec<Tensor> = fed.map(|(_, t)| t.clone()).collect();
            let results = session.next(&fed).unwrap_or_else(|e| panic!("{e}\n{}", context()));
            for (i, (result, expected)) in results.iter().zip(&expected).enumerate() {
                let same = result.ty() == expected.ty() && result.bytes() == expected.bytes();
                assert!(
                    same,
                    "turn {turn}, output {i} is {result:?}, not {expected:?}\n{}",
                    context()
                );
            }
            for (&value, tensor) in graph.inputs.iter().zip(&mut tensors) {
                if let Some((_, output)) = states.iter().find(|(input, _)| *input == name(value)) {
                    let index = graph.outputs.iter().position(|o| o.name == *output);
                    *tensor = expected[index.expect("it was added")].clone();
                }
            }
        }
    }
}

#[test]
fn random_graphs_with_states() {
    for seed in 0..400 {
        let mut noise = Noise(seed * 104_729 + 3);
        let (graph, states) = {
            let graph = random_graph(&mut noise);
            with_states(graph, &mut noise)
        };
        check_states(&graph, &states, seed);
        let graph = passes::run(graph, Level::Speed, Filtering::Auto, &Machine::AVX2);
        check_states(&graph, &states, seed);
    }
}

/// What works in the place of a slice leaves alone what waits beside it.
#[test]
fn slices_leave_their_neighbours() {
    let rows = |mir: &mut Builder, name: &str, rows: usize| {
        mir.input(name, Role::Input, Type::new(DType::F32, [rows, 3]))
    };
    // A concatenation that is copied together where another one waits.
    let mut mir = Builder::new("m");
    let [x, p, q] = ["x", "p", "q"].map(|name| rows(&mut mir, name, 2));
    let first = mir.unary(Unary::Exp, x);
    let both = mir.concat(&[p, q], 0);
    let last = mir.slice(both, &[2, 0], &[2, 3], &[1, 1]);
    let last = mir.unary(Unary::Neg, last);
    let y = mir.concat(&[first, last], 0);
    check(&mir.finish(vec![Output { name: "y".into(), value: y }]), 1);
    // A product that lies where its operand does.
    let mut mir = Builder::new("m");
    let x = rows(&mut mir, "x", 4);
    let w = rows(&mut mir, "w", 3);
    let x = mir.unary(Unary::Exp, x);
    let [first, last] = [0, 2].map(|row| mir.slice(x, &[row, 0], &[2, 3], &[1, 1]));
    let first = mir.contract(first, w);
    let last = mir.unary(Unary::Neg, last);
    let y = mir.concat(&[first, last], 0);
    check(&mir.finish(vec![Output { name: "y".into(), value: y }]), 1);
}

#[test]
fn random_graphs() {
    for seed in 0..400 {
        let graph = random_graph(&mut Noise(seed * 7919 + 1));
        check(&graph, seed);
        check(&passes::run(graph, Level::Speed, Filtering::Auto, &Machine::AVX2), seed);
    }
}
