//! Every operation of KIR, whole kernels, elementary functions and random kernels: compiled through
//! both emitters for every machine and target, run behind guard pages, and compared with plain loops
//! and with each other.

mod across;
mod cases;
mod data;
mod functions;
mod operations;
mod programs;
mod random;
mod steps;
mod target;

use target::Target;

/// Runs all cases. Where nothing is expected, all machines of the target give the same bits.
fn check(target: Option<Target>, random: u64) {
    let Some(target) = target else {
        return eprintln!("skipped: this is another machine");
    };
    if let Some(tool) = target.missing() {
        return eprintln!("skipped: {} needs {tool}", target.triple);
    }
    let cases = cases::all(random, target.converts);
    let mut agreed: Option<(&str, Vec<data::Data>)> = None;
    let mut failures = vec![];
    for outcome in target::run(&target, &cases) {
        let (case, machine) = (outcome.case, outcome.machine);
        let expected = match (&(case.expected)(machine)[..], &agreed) {
            ([], Some((name, results))) if *name == case.name => results.clone(),
            ([], _) => {
                agreed = Some((&case.name, outcome.results));
                continue;
            }
            (expected, _) => expected.to_vec(),
        };
        // Working memory, which is not compared, comes before the results.
        for (got, expected) in outcome.results.iter().rev().zip(expected.iter().rev()) {
            match case.tolerance.check(got, expected) {
                Ok(0.0) => {}
                Ok(error) => println!("{:8} {:24} error {error:.2e}", machine.name, case.name),
                Err(message) => {
                    failures.push(format!("{}, {}: {message}", machine.name, case.name));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}\n{}", target.triple, failures.join("\n"));
}

#[test]
fn host() {
    check(Target::host(), 400);
}

#[test]
fn baseline() {
    check(Target::baseline(), 100);
}

#[test]
fn aarch64() {
    check(Some(Target::aarch64()), 100);
}

#[test]
fn riscv64() {
    check(Some(Target::riscv64()), 100);
}

#[test]
fn s390x() {
    check(Some(Target::s390x()), 100);
}
