//! Arenas of a given size.

use super::*;

/// Two blocks that widen an image, filter it and make it narrow again, with what is left over at its borders.
fn blocks() -> Value {
    let mut state = 1u64;
    let mut parameter = |name: String, shape: [usize; 4]| {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as f64 / (1u64 << 31) as f64 - 0.5
        };
        let data: Vec<f64> = (0..shape.iter().product()).map(|_| next()).collect();
        json!({ "name": name, "shape": shape, "data": data })
    };
    let (mut parameters, mut nodes, mut last) = (vec![], vec![], "x".to_owned());
    for block in 0..2 {
        let convolutions = [
            ("wide", [48, 6, 1, 1], json!({})),
            ("deep", [48, 1, 3, 3], json!({ "group": 48, "pads": [1, 1, 1, 1] })),
            ("narrow", [6, 48, 1, 1], json!({})),
        ];
        let first = last.clone();
        for (name, shape, attributes) in convolutions {
            let [weights, result] = ["w", "y"].map(|kind| format!("{name}{block}.{kind}"));
            nodes.push(json!({ "op": "Conv", "inputs": [last, weights], "outputs": [result], "attributes": attributes }));
            parameters.push(parameter(weights, shape));
            last = result;
        }
        let sum = format!("sum{block}");
        nodes.push(json!({ "op": "Add", "inputs": [first, last], "outputs": [sum] }));
        last = sum;
    }
    json!({
        "format": "rlx-aot/1", "name": "blocks", "parameters": parameters, "nodes": nodes,
        "inputs": [{ "name": "x", "shape": [1, 6, 37, 29] }], "outputs": [last],
    })
}

/// What is wide is computed in bands of rows: the arena is less than half, and the results are the same.
#[test]
fn arena_of_a_given_size() {
    let folder = folder("bands");
    write(&folder, "m.json", blocks().to_string());
    let size = |limit: &[&str]| arena_size(limit, &folder);
    let plain = size(&[]);
    for part in [2, 3] {
        let limit = format!("--max-arena={}", plain / part);
        assert!(size(&[&limit]) <= plain / part);
        output(COMPILER, &["verify", "m.json", &limit], &folder);
        output(COMPILER, &["verify", "m.json", &limit, "--cpu", "x86-64"], &folder);
        output(COMPILER, &["verify", "m.json", "--engine", "arena", &limit], &folder);
        output(COMPILER, &["verify", "m.json", &limit, "--threads", "3"], &folder);
        let first = std::fs::read(folder.join("m.o")).unwrap();
        size(&[&limit]);
        assert!(first == std::fs::read(folder.join("m.o")).unwrap(), "the same every time");
    }
    assert_eq!(size(&["--max-arena", "1M"]), plain);
    let wrong = refused(&["verify", "m.json", "--engine", "arena", "--threads", "2"], &folder);
    assert!(wrong.contains("--threads: the interpreters run on one"), "{wrong}");
    let wrong = refused(&["build", "m.json", "--max-arena", "40K"], &folder);
    assert!(wrong.contains("no plan fits into 40960 bytes"), "{wrong}");
    assert!(wrong.contains("it is held by \"") && wrong.contains("bytes or more"), "{wrong}");
    let wrong = refused(&["build", "m.json", "--max-arena", "half"], &folder);
    assert!(wrong.contains("a size is"), "{wrong}");
    let wrong = refused(&["build", "m.json", "-O0", "--max-arena", "40K"], &folder);
    assert!(wrong.contains("no plan fits"), "{wrong}");
}
