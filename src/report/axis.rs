//! Numbers for people, and where an axis has its marks.

/// A number of bytes for people.
pub fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

/// `part` of `whole`, in percent.
pub(super) fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// Round numbers from 0 to `most`, about `wanted` of them.
pub(super) fn marks(most: u64, wanted: u64) -> Vec<u64> {
    let least = (most / wanted.max(1)).max(1);
    let mut unit = 1;
    while unit * 10 <= least {
        unit *= 10;
    }
    let step = [1, 2, 5, 10].map(|n| n * unit).into_iter().find(|&n| n >= least).unwrap_or(least);
    (0..=most / step).map(|i| i * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        assert_eq!(marks(6_709_696, 6), [0, 2_000_000, 4_000_000, 6_000_000]);
        assert_eq!(marks(3, 8), [0, 1, 2, 3]);
        assert_eq!(marks(0, 8), [0]);
    }
}
