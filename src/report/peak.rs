//! The time at which most is taken: what is there, and what would lower it.

use super::axis::{bytes, percent};
use super::{Buffer, Step, count};
use crate::lir::{Module, place};
use serde::Serialize;

/// The time at which most of a region is taken; the first, where there are several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Peak {
    /// When.
    pub time: u32,
    /// Which step runs then, if one does.
    pub step: Option<usize>,
    /// How much is taken.
    pub bytes: u64,
    /// At how many times it is as much.
    pub times: usize,
    /// What is there, the largest first.
    pub holders: Vec<Holder>,
    /// The most that is taken at any other time, apart from neighbours that hold the same.
    pub next: Option<Next>,
    /// What would lower it, in sentences.
    pub advice: Vec<String>,
}

/// A buffer that is there at the peak.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Holder {
    /// Which.
    pub buffer: usize,
    /// Its bytes, with all that is kept for it.
    pub bytes: u64,
    /// Whether the step at the peak reads or writes it. If not, it only waits for a later one.
    pub used: bool,
}

/// The highest time but for the peak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Next {
    /// When.
    pub time: u32,
    /// How much is taken then.
    pub bytes: u64,
}

/// What holds less than this part of the peak is not worth a sentence.
const WORTHWHILE: u64 = 20;

/// A plan that takes so many times as long is no advice.
const DEAR: f64 = 2.0;

/// The memory that a peak is of.
pub(super) struct Memory<'a> {
    pub(super) index: usize,
    pub(super) name: &'a str,
    pub(super) size: u64,
    /// What is no buffer's.
    pub(super) reserved: u64,
}

pub(super) fn peak(
    module: &Module,
    buffers: &[Buffer],
    steps: &[Step],
    live: &[u64],
    region: &Memory<'_>,
) -> Peak {
    let reserved = region.reserved;
    let most = live.iter().copied().max().unwrap_or(reserved);
    // A step says more than the times before and behind all of them.
    let at = |t: &usize| live[*t] == most;
    let time = (1..=steps.len()).find(at).or_else(|| (0..live.len()).find(at)).unwrap_or(0);
    let step = time.checked_sub(1).filter(|&s| s < steps.len());
    let now = count(time);
    let uses = |buffer: usize| {
        step.is_some_and(|s| steps[s].writes == buffer || steps[s].reads.contains(&buffer))
    };
    let mut holders: Vec<Holder> = buffers
        .iter()
        .enumerate()
        .filter(|(_, b)| b.region == Some(region.index) && b.bytes > 0)
        .filter(|(_, b)| b.first.is_some_and(|f| f <= now) && b.last.is_some_and(|l| l >= now))
        .map(|(buffer, b)| Holder { buffer, bytes: b.room, used: uses(buffer) })
        .collect();
    holders.sort_by_key(|h| (std::cmp::Reverse(h.bytes), h.buffer));
    let times = live.iter().filter(|&&l| l == most).count();
    let next = next(live, time);
    let mut peak = Peak { time: now, step, bytes: most, times, holders, next, advice: vec![] };
    peak.advice = advice(&peak, module, buffers, steps, region);
    peak
}

/// The highest time that is none of the peak's.
fn next(live: &[u64], time: usize) -> Option<Next> {
    let most = live[time];
    let others = live.iter().enumerate().filter(|&(t, &l)| t != time && l < most);
    let (time, &bytes) = others.max_by_key(|&(t, &l)| (l, std::cmp::Reverse(t)))?;
    Some(Next { time: count(time), bytes })
}

fn advice(
    peak: &Peak,
    module: &Module,
    buffers: &[Buffer],
    steps: &[Step],
    region: &Memory<'_>,
) -> Vec<String> {
    let mut advice = vec![];
    let name = |h: &Holder| format!("\"{}\" ({})", buffers[h.buffer].name, bytes(h.bytes));
    let least = peak.bytes / WORTHWHILE;
    let temporary = |h: &&Holder| buffers[h.buffer].kind == "temporary";
    if let Some(step) = peak.step.map(|s| &steps[s]) {
        // A vector has no rows to be cut into bands.
        let rows = |h: &&Holder| buffers[h.buffer].shape.iter().rev().skip(1).any(|&d| d > 1);
        let used = peak.holders.iter().filter(temporary).filter(|h| h.used && h.bytes >= least);
        let used: Vec<&Holder> = used.filter(rows).collect();
        if let [first, second, ..] = used[..] {
            advice.push(format!(
                "{} and {} are there at once because {} ({}) reads and writes whole tensors.",
                name(first),
                name(second),
                step.id,
                step.operator
            ));
        }
    }
    let idle: Vec<&Holder> = peak.holders.iter().filter(temporary).filter(|h| !h.used).collect();
    let waiting: u64 = idle.iter().map(|h| h.bytes).sum();
    if let Some(first) = idle.first().filter(|_| waiting >= least) {
        let contents = &buffers[first.buffer].contents;
        let writers = contents.iter().filter(|c| c.first < peak.time).filter_map(|c| c.writer);
        let readers = contents.iter().flat_map(|c| &c.readers).map(|&s| count(s + 1));
        let written = writers.max().map_or_else(String::new, |s| format!(" by {}", steps[s].id));
        let read = readers.filter(|&t| t > peak.time).min();
        let read = read.and_then(|t| steps.get(t as usize - 1));
        let read = read.map_or_else(String::new, |s| format!(" and next used by {}", s.id));
        let many = match idle.len() {
            1 => "One temporary waits".to_owned(),
            n => format!("{n} temporaries wait"),
        };
        advice.push(format!(
            "{many} there for later steps ({}, {} of the peak): the largest is {}, written{written}{read}. To compute it again then, or to use it before, would free it.",
            bytes(waiting), percent(waiting, peak.bytes), name(first)
        ));
    }
    if region.index == 0 {
        advice.extend(options(module, least));
    }
    if let Some(next) = peak.next {
        let at = match next.time.checked_sub(1).and_then(|s| steps.get(s as usize)) {
            Some(step) => step.id.clone(),
            None if next.time == 0 => "the start".to_owned(),
            None => "the end".to_owned(),
        };
        let several = if peak.times > 1 {
            format!("the peak's {} times", peak.times)
        } else {
            "this step".to_owned()
        };
        advice.push(format!(
            "Apart from {several} the most is {}, at {at}: {} is what can be gained here.",
            bytes(next.bytes),
            bytes(peak.bytes - next.bytes)
        ));
    }
    let size = region.size;
    if size > peak.bytes && !module.plan.options.no_reuse {
        advice.push(format!(
            "The {} is {} ({}) larger than what is live at the peak: gaps between the slots.",
            region.name,
            bytes(size - peak.bytes),
            percent(size - peak.bytes, peak.bytes)
        ));
    }
    advice
}

/// What bands of rows would give, and nodes that are computed `again`, if that is worth a sentence.
pub(super) fn smaller(
    now: u64,
    size: u64,
    time: f64,
    bands: bool,
    again: &[String],
) -> Option<String> {
    let less = now.checked_sub(size).filter(|less| *less > now / WORTHWHILE && time < DEAR)?;
    let again = match again {
        [] => None,
        [one] => Some(format!("with \"{one}\" computed again where it is read late")),
        [one, rest @ ..] => Some(format!(
            "with \"{one}\" and {} more computed again where they are read late",
            rest.len()
        )),
    };
    let how = match (bands, again) {
        (true, Some(again)) => format!("In bands of rows and {again}"),
        (true, None) => "In bands of rows".to_owned(),
        (false, Some(again)) => again.replacen('w', "W", 1),
        (false, None) => "With less working memory".to_owned(),
    };
    Some(format!(
        "{how} (--max-arena) it could be some {} ({}) less, {}, for about {:.0} % more work.",
        bytes(less),
        percent(less, now),
        bytes(size),
        (time - 1.0).max(0.0) * 100.0,
    ))
}

/// An option that a plan was made without, and what makes it so.
type Choice = (&'static str, fn(&mut Module));

/// Other options for the same steps, each by itself, that lower the arena by `least` bytes at least; those that lower
/// it most first.
fn options(module: &Module, least: u64) -> Vec<String> {
    let all: [Choice; 9] = [
        ("With --overwrite-inputs, whose inputs are set before every run,", |m| {
            m.plan.options.overwrite_inputs = true;
        }),
        ("With --outside inputs, which lie in memory of the program,", |m| {
            m.plan.options.outside.inputs = true;
        }),
        ("With --outside outputs, which lie in memory of the program,", |m| {
            m.plan.options.outside.outputs = true;
        }),
        ("With --outside params, which lie in memory of the program,", |m| {
            m.plan.options.outside.parameters = true;
        }),
        ("With --weights embed or external, in the object or a file,", |m| {
            m.plan.options.weights_in_arena = false;
        }),
        ("With --no-prepare, where all is computed in every run,", |m| m.plan.prologue = 0),
        ("Without --no-reuse, which is for debugging,", |m| m.plan.options.no_reuse = false),
        ("Without --guard", |m| m.plan.options.guard = 0),
        ("Without --uniform-slots", |m| m.plan.options.uniform = false),
    ];
    let now = module.plan.arena_size;
    let mut found: Vec<(u64, &str)> = vec![];
    for (name, change) in all {
        let mut other = module.clone();
        change(&mut other);
        let same = other.plan.options == module.plan.options
            && other.plan.prologue == module.plan.prologue;
        let size = if same { now } else { place::bound(&other) };
        if size.saturating_add(least.max(1)) <= now {
            found.push((size, name));
        }
    }
    found.sort_by_key(|&(size, _)| size);
    let sentence = |(size, name): (u64, &str)| {
        let (less, part) = (bytes(now - size), percent(now - size, now));
        format!("{name} these steps would need {less} ({part}) less: {size} bytes.")
    };
    found.into_iter().map(sentence).collect()
}
