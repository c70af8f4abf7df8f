//! Time in sections: the moments at which most is alive.
//!
//! Of the moments between two changes only those matter at which no other one has all that is alive at
//! them. So there are at most as many sections as items, each item is alive in consecutive ones, and two
//! items meet exactly if they share one.

use super::Item;
use std::ops::Range;

/// The sections of some items.
#[derive(Clone, Debug)]
pub(super) struct Sections {
    /// How many there are.
    pub(super) count: usize,
    /// For each item the sections in which it is alive. Empty for those that take no bytes.
    pub(super) spans: Vec<Range<usize>>,
}

impl Sections {
    pub(super) fn new(items: &[Item]) -> Sections {
        let mut changes: Vec<(i64, bool, usize)> = vec![];
        for (i, item) in items.iter().enumerate().filter(|(_, item)| !item.is_empty()) {
            changes.push((item.lower, true, i));
            changes.push((item.upper, false, i));
        }
        changes.sort_unstable();
        let (mut spans, mut section, mut grows) = (vec![0..0; items.len()], 0, false);
        for (_, starts, i) in changes {
            if starts {
                spans[i].start = section;
            } else {
                section += usize::from(grows);
                spans[i].end = section;
            }
            grows = starts;
        }
        Sections { count: section, spans }
    }

    /// The sum of the sizes alive in each section.
    pub(super) fn live(&self, items: &[Item]) -> Vec<u64> {
        let (mut come, mut go) = (vec![0; self.count + 1], vec![0; self.count + 1]);
        for (item, span) in items.iter().zip(&self.spans).filter(|(_, span)| !span.is_empty()) {
            come[span.start] += item.size;
            go[span.end] += item.size;
        }
        let mut live = 0;
        let sum = |(come, go): (u64, u64)| {
            live = live + come - go;
            live
        };
        come.into_iter().zip(go).take(self.count).map(sum).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    #[test]
    fn items_that_meet_share_a_section() {
        let mut state = 9;
        for _ in 0..300 {
            let mut below = |n: u64| noise(&mut state) % n;
            let item = |_| {
                let lower = below(20) as i64 - 10;
                Item::new(below(4), lower, lower + below(6) as i64)
            };
            let items: Vec<Item> = (0..12).map(item).collect();
            let sections = Sections::new(&items);
            assert!(sections.count <= items.len());
            for (a, one) in items.iter().zip(&sections.spans) {
                assert_eq!(one.is_empty(), a.is_empty());
                for (b, other) in items.iter().zip(&sections.spans) {
                    let share = one.start.max(other.start) < one.end.min(other.end);
                    assert_eq!(share, a.meets(b), "{a:?} {b:?}");
                }
            }
            let live = sections.live(&items);
            let alive = |s: usize| {
                let alive = items.iter().zip(&sections.spans).filter(|(_, span)| span.contains(&s));
                alive.map(|(item, _)| item.size).sum::<u64>()
            };
            assert_eq!(live, (0..sections.count).map(alive).collect::<Vec<_>>());
        }
    }
}
