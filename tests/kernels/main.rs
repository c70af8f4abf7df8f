//! Every operation of KIR, whole kernels, elementary functions and random kernels: compiled through
//! both emitters for every machine and target, run behind guard pages, and compared with plain loops
//! and with each other.

mod cases;
mod data;
mod operations;
mod programs;
mod random;
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
    for outcome in target::run(&target, &cases) {
        let case = outcome.case;
        let expected = match (&(case.expected)(outcome.machine)[..], &agreed) {
            ([], Some((name, results))) if *name == case.name => results.clone(),
            ([], _) => {
                agreed = Some((&case.name, outcome.results));
                continue;
            }
            (expected, _) => expected.to_vec(),
        };
        let mut worst = 0.0;
        for (got, expected) in outcome.results.iter().zip(&expected) {
            match case.tolerance.check(got, expected) {
                Ok(error) => worst = f64::max(worst, error),
                Err(message) => {
                    let (triple, machine) = (target.triple, outcome.machine);
                    let kernel = (case.kernel)(machine);
                    panic!("{triple}, {}: {}: {message}\n{kernel}", machine.name, case.name);
                }
            }
        }
        if worst > 0.0 {
            println!("{:8} {:24} error {worst:.2e}", outcome.machine.name, case.name);
        }
    }
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
