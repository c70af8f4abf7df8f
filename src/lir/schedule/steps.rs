//! The stored steps of a module as a problem.

use super::problem::{Problem, Task};
use crate::lir::room::room;
use crate::lir::{Access, Buffer, BufferKind, Module};
use cranelift_entity::SecondaryMap;
use std::collections::BTreeSet;

/// Of buffers that are touched more often, each step that writes is taken to need all of it.
const TOUCHES: usize = 600;

/// The steps as tasks, the buffers as objects. A step must follow those that wrote what it reads, and
/// those that touched what it writes. Behind the prologue's steps is one more task that waits for all of them and
/// for which all others wait, where there are any, or where inputs that are overwritten begin to live.
pub(super) fn problem(module: &Module) -> Problem {
    let mut problem = Problem::default();
    let align = module.plan.options.alignment.max(1);
    let room = room(module);
    let mut objects: SecondaryMap<Buffer, Option<usize>> = SecondaryMap::new();
    let mut working: SecondaryMap<Buffer, bool> = SecondaryMap::new();
    let scratch = module.steps.values().filter_map(|info| info.scratch.as_ref());
    scratch.for_each(|access| working[access.buffer] = true);
    let mut inputs = vec![];
    for (buffer, info) in &module.buffers {
        if working[buffer] {
            continue;
        }
        objects[buffer] = match info.kind {
            BufferKind::Input if module.plan.options.overwrite_inputs => {
                let object = problem.object(room[buffer].next_multiple_of(align));
                problem.kept[object] = module.is_output(buffer);
                inputs.push(object);
                Some(object)
            }
            // Alive always.
            BufferKind::Input | BufferKind::Parameter | BufferKind::Constant(_) => None,
            BufferKind::Output | BufferKind::Temporary => {
                let object = problem.object(room[buffer].next_multiple_of(align));
                problem.kept[object] = info.kind == BufferKind::Output;
                Some(object)
            }
            // Alive always, so it counts for nothing; but it is written after it was read.
            BufferKind::State => Some(problem.object(0)),
        };
    }
    // Who touched each buffer so far, and whether by writing.
    let mut touched: SecondaryMap<Buffer, Vec<(usize, &Access, bool)>> = SecondaryMap::new();
    let prologue = module.plan.prologue;
    let mut rides = false;
    let has_begin = prologue > 0 || !inputs.is_empty();
    for (step, info) in module.steps.values().enumerate() {
        if step == prologue && has_begin {
            let touches = std::mem::take(&mut inputs);
            problem.tasks.push(Task { after: (0..prologue).collect(), touches, ..Task::default() });
            rides = false;
        }
        let index = problem.tasks.len();
        let (mut after, mut touches) = (BTreeSet::new(), BTreeSet::new());
        after.extend((index > prologue && has_begin).then_some(prologue));
        let accesses = info.operands.iter().map(|access| (access, false));
        let written = [(&info.result, true)];
        for (access, writes) in accesses.clone().chain(written) {
            let Some(object) = objects[access.buffer] else { continue };
            touches.insert(object);
            let earlier = &touched[access.buffer];
            let all = earlier.len() > TOUCHES;
            let meets = |&&(_, other, wrote): &&(usize, &Access, bool)| {
                (writes || wrote) && (all || access.overlaps(other))
            };
            after.extend(earlier.iter().filter(meets).map(|&(step, ..)| step));
        }
        for (access, writes) in accesses.chain(written) {
            touched[access.buffer].push((index, access, writes));
        }
        problem.tasks.push(Task {
            after: after.into_iter().collect(),
            touches: touches.into_iter().collect(),
            result: objects[info.result.buffer],
            in_place: vec![],
            working: info.scratch.as_ref().map_or(0, |s| room[s.buffer].next_multiple_of(align)),
        });
        if rides && index > 0 {
            tie(&mut problem, index - 1);
        }
        rides = info.rides();
    }
    problem
}

/// A step that rides on the next one waits for what that waits for, and is done before it.
fn tie(problem: &mut Problem, rider: usize) {
    let carrier = rider + 1;
    let theirs = problem.tasks[carrier].after.clone();
    if theirs.last().is_some_and(|&last| last >= rider) {
        return;
    }
    problem.tasks[carrier].after.push(rider);
    let after = &mut problem.tasks[rider].after;
    after.extend(theirs);
    after.sort_unstable();
    after.dedup();
}
