//! Where along an axis the elements of the result come from, and with which weights.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    CropAndResize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Nearest {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

/// The result along an axis: each element's taps (all have as many), index and weight.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) axis: usize,
    pub(super) taps: Vec<Vec<(usize, f64)>>,
    /// Elements that take the extrapolation value instead.
    pub(super) outside: Vec<bool>,
}

/// Of computing coordinates.
pub(super) const ERROR: f64 = 1e-9;

impl Axis {
    /// The element that each element of the result is, if each is one.
    pub(super) fn indices(&self) -> Option<Vec<usize>> {
        let single = |taps: &Vec<(usize, f64)>| match taps[..] {
            [(index, 1.0)] => Some(index),
            _ => None,
        };
        self.taps.iter().map(single).collect()
    }
}

/// Neighbouring elements of the result that are made of the operand's elements in the same way: their number,
/// and the taps of the first; those of the next are one further.
pub(super) struct Run {
    pub(super) count: usize,
    pub(super) taps: Vec<(usize, f64)>,
}

impl Axis {
    /// How often each element is repeated, if that is all.
    pub(super) fn repeats(&self, extent: usize) -> Option<usize> {
        let times = self.taps.len().checked_div(extent)?;
        let mut indices = self.indices()?.into_iter().enumerate();
        let each = times * extent == self.taps.len() && indices.all(|(o, i)| i == o / times);
        (each && !self.outside.contains(&true)).then_some(times)
    }

    /// The weight of all taps together, if it is the same for every element of the result.
    pub(super) fn weight(&self) -> Option<f64> {
        let sum = |taps: &Vec<(usize, f64)>| taps.iter().map(|t| t.1).sum::<f64>();
        let first = sum(self.taps.first()?);
        let mut all = self.taps.iter();
        all.all(|taps| (sum(taps) - first).abs() < ERROR).then_some(first)
    }

    /// With a whole scale `s`, the results `r`, `s + r`, `2 s + r`, .. for each `r` below it, as runs. `None`
    /// where it is no such scale, or the runs are many.
    pub(super) fn phases(&self, extent: usize) -> Option<Vec<Vec<Run>>> {
        const LARGEST: usize = 8;
        const RUNS: usize = 4;
        let scale = self.taps.len().checked_div(extent)?;
        if scale * extent != self.taps.len() || !(2..=LARGEST).contains(&scale) {
            return None;
        }
        let phase = |r: usize| {
            let mut runs: Vec<Run> = vec![];
            for taps in self.taps.iter().skip(r).step_by(scale) {
                match runs.last_mut() {
                    Some(run) if run.is_continued_by(taps) => run.count += 1,
                    _ => runs.push(Run { count: 1, taps: taps.clone() }),
                }
            }
            if runs.len() > RUNS {
                return None;
            }
            Some(runs)
        };
        (0..scale).map(phase).collect()
    }
}

impl Run {
    pub(super) fn is_continued_by(&self, taps: &[(usize, f64)]) -> bool {
        let mut pairs = self.taps.iter().zip(taps);
        pairs.all(|(a, b)| a.0 + self.count == b.0 && (a.1 - b.1).abs() < ERROR)
    }
}

/// How an axis is scaled.
#[derive(Clone, Copy)]
pub(super) struct Scaled {
    pub(super) extent: usize,
    pub(super) result: usize,
    pub(super) scale: f64,
    pub(super) roi: [f64; 2],
}

impl Resize {
    /// The coordinate in the operand of element `o` of the result.
    pub(super) fn coordinate(&self, s: Scaled, o: usize) -> f64 {
        let (o, extent, length) = (o as f64, s.extent as f64, s.scale * s.extent as f64);
        let half = (o + 0.5) / s.scale - 0.5;
        match self.coordinates {
            Coordinates::HalfPixel => half,
            Coordinates::PytorchHalfPixel => if length > 1.0 { half } else { 0.0 },
            Coordinates::HalfPixelSymmetric => extent / 2.0 * (1.0 - s.result as f64 / length) + half,
            Coordinates::Asymmetric => o / s.scale,
            Coordinates::AlignCorners if length == 1.0 => 0.0,
            Coordinates::AlignCorners => o * (extent - 1.0) / (length - 1.0),
            Coordinates::CropAndResize => {
                let [start, end] = s.roi;
                let along = if length == 1.0 { 0.5 } else { o / (length - 1.0) };
                (start + along * (end - start)) * (extent - 1.0)
            }
        }
    }

    pub(super) fn axis(&self, axis: usize, s: Scaled) -> Axis {
        let last = s.extent.saturating_sub(1) as f64;
        let (mut taps, mut outside) = (vec![], vec![]);
        for o in 0..s.result {
            let at = self.coordinate(s, o);
            outside.push(self.coordinates == Coordinates::CropAndResize && !(0.0..=last).contains(&at));
            taps.push(self.taps(s, at));
        }
        Axis { axis, taps, outside }
    }

    pub(super) fn taps(&self, s: Scaled, at: f64) -> Vec<(usize, f64)> {
        let last = s.extent.saturating_sub(1) as f64;
        let clamped = |i: f64| i.clamp(0.0, last) as usize;
        let (floor, ratio) = (at.floor(), at - at.floor());
        let shrink = if self.antialias { s.scale.min(1.0) } else { 1.0 };
        let a = self.cubic;
        let reach = match self.mode {
            Mode::Nearest => {
                let up = match self.nearest {
                    Nearest::PreferFloor => ratio > 0.5,
                    Nearest::PreferCeil => ratio >= 0.5,
                    Nearest::Floor => false,
                    Nearest::Ceil => ratio > 0.0,
                };
                return vec![(clamped(floor + f64::from(u8::from(up))), 1.0)];
            }
            Mode::Linear => (1.0 / shrink).ceil(),
            Mode::Cubic => (2.0 / shrink).ceil(),
        };
        let weight = |distance: f64| {
            let d = (distance * shrink).abs();
            match self.mode {
                Mode::Nearest | Mode::Linear => (1.0 - d).max(0.0),
                Mode::Cubic if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                Mode::Cubic if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
                Mode::Cubic => 0.0,
            }
        };
        let count = 2 * reach as usize;
        let mut taps: Vec<_> = (0..count)
            .map(|i| {
                let offset = i as f64 + 1.0 - reach;
                (floor + offset, weight(offset - ratio))
            })
            .collect();
        if self.exclude_outside {
            taps.iter_mut().filter(|t| t.0 < 0.0 || t.0 > last).for_each(|t| t.1 = 0.0);
        }
        if self.exclude_outside || self.antialias {
            let sum: f64 = taps.iter().map(|t| t.1).sum();
            taps.iter_mut().for_each(|t| t.1 /= sum);
        }
        taps.into_iter().map(|(i, w)| (clamped(i), w)).collect()
    }
}
