//! Taking a problem apart.

use super::{Item, Problem};

/// Parts are taken from parts so often at most.
const DEPTH: usize = 64;

/// Items that can be placed without a look at the others.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Which items of the whole problem.
    pub(super) indices: Vec<usize>,
    /// The same items, in the same order.
    pub(super) problem: Problem,
    /// Where their offset 0 lies.
    pub(super) base: u64,
}

/// The parts of a problem; items that take no bytes are in none.
///
/// Items that do not meet, by way of others, are parts of their own. What is alive all the time of a
/// part can lie at its bottom: cut everything at the two ends of such an item, turn the pieces
/// around, and no offset has changed but by whole sizes. What remains may come apart again.
pub(super) fn parts(problem: &Problem) -> Vec<Part> {
    let mut order: Vec<usize> =
        (0..problem.items.len()).filter(|&i| !problem.items[i].is_empty()).collect();
    order.sort_by_key(|&i| (problem.items[i].lower, i));
    let part = |indices: Vec<usize>, base: u64| {
        let items = indices.iter().map(|&i| problem.items[i]).collect();
        Part { indices, problem: Problem { items }, base }
    };
    let (mut parts, mut open) = (vec![], vec![(order, 0, 0)]);
    while let Some((indices, base, depth)) = open.pop() {
        for group in groups(&problem.items, &indices) {
            let (through, rest) = split(&problem.items, group);
            if depth == DEPTH || through.is_empty() || rest.is_empty() {
                parts.push(part(group.to_vec(), base));
                continue;
            }
            let size = through.iter().map(|&i| problem.items[i].size).sum::<u64>();
            parts.push(part(through, base));
            open.push((rest, base + size, depth + 1));
        }
    }
    parts
}
/// The items, ascending by their starts, in groups that do not meet each other.
fn groups<'a>(items: &[Item], indices: &'a [usize]) -> Vec<&'a [usize]> {
    let (mut groups, mut start, mut end) = (vec![], 0, i64::MIN);
    for (at, &i) in indices.iter().enumerate() {
        if at > start && items[i].lower >= end {
            groups.push(&indices[start..at]);
            start = at;
        }
        end = end.max(items[i].upper);
    }
    if start < indices.len() {
        groups.push(&indices[start..]);
    }
    groups
}

/// Which items of a group are alive all the time and may lie at the bottom, and the others. None may if
/// the others would feel it: with a fixed offset, or an alignment that the sizes do not keep.
fn split(items: &[Item], group: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let first = group.iter().map(|&i| items[i].lower).min();
    let last = group.iter().map(|&i| items[i].upper).max();
    let fixed = group.iter().any(|&i| items[i].fixed.is_some());
    let alignment = group.iter().map(|&i| items[i].alignment).max().unwrap_or(1);
    let divides = group.iter().all(|&i| alignment.is_multiple_of(items[i].alignment));
    if fixed || !divides {
        return (vec![], group.to_vec());
    }
    let through = |&i: &usize| {
        let Item { size, lower, upper, .. } = items[i];
        Some(lower) == first && Some(upper) == last && size.is_multiple_of(alignment)
    };
    group.iter().copied().partition(through)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_apart() {
        let items = vec![
            Item::new(4, 0, 10),
            Item::new(3, 0, 5),
            Item::new(2, 5, 10),
            Item::new(1, 6, 8),
            Item::new(9, 10, 12),
            Item::new(0, 0, 12),
        ];
        let found = |items: &[Item]| {
            let mut parts = parts(&Problem { items: items.to_vec() });
            parts.sort_by_key(|part| part.indices[0]);
            parts.into_iter().map(|part| (part.indices, part.base)).collect::<Vec<_>>()
        };
        let all = [(vec![0], 0), (vec![1], 4), (vec![2], 4), (vec![3], 6), (vec![4], 0)];
        assert_eq!(found(&items), all);
        // Nothing may be moved under what is aligned or fixed.
        let mut aligned = items.clone();
        aligned[1].alignment = 8;
        assert_eq!(found(&aligned), [(vec![0, 1, 2, 3], 0), (vec![4], 0)]);
        let mut fixed = items;
        fixed[3].fixed = Some(4);
        assert_eq!(found(&fixed), [(vec![0, 1, 2, 3], 0), (vec![4], 0)]);
    }
}
