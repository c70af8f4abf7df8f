//! Weights at the points of tiles, computed once.

use crate::mir::winograd::{Filter, Matrices};
use crate::passes::pack::{panels_of, panels_of_dims};
use crate::tensor::Tensor;

/// The weights at all points ([`transform`]), in panels.
pub(super) fn transformed_panels(weights: &Tensor, axes: [Filter; 2], width: usize) -> Tensor {
    let ty = weights.ty().with_dims(panels_of_dims(transform_dims(weights, axes), width));
    Tensor::later(
        ty,
        &format!("filtered by {axes:?} in panels of {width}"),
        &[weights],
        move |of| panels_of(&transform(of[0], axes), width),
    )
}

/// The dimensions of what [`transform`] gives.
fn transform_dims(weights: &Tensor, axes: [Filter; 2]) -> [usize; 3] {
    let points = axes[0].points() * axes[1].points();
    let taps = axes[0].taps * axes[1].taps;
    let outputs = weights.dims().last().copied().unwrap_or(1);
    [points, weights.ty().elements() / (taps * outputs).max(1), outputs]
}

/// The weights `[planes.., taps.., C, K]`, with taps along two axes, at all points: `[points, planes * C, K]`.
fn transform(weights: &Tensor, axes: [Filter; 2]) -> Tensor {
    let matrices = axes.map(|axis| Matrices::new(axis).weights);
    let [first, second] = &matrices;
    let [.., channels, outputs] = *weights.dims() else { return weights.clone() };
    let taps = axes.map(|axis| axis.taps);
    let plane = taps[0] * taps[1];
    let values = weights.f32s();
    let dims = transform_dims(weights, axes);
    let inputs = dims[1];
    let mut out = vec![0f32; first.len() * second.len() * inputs * outputs];
    let sum = |to: &mut [f64], from: &[f64], factor: f64| {
        if factor != 0.0 {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
        }
    };
    // A row of output channels at a time.
    for input in 0..inputs {
        let (before, channel) = (input / channels * plane, input % channels);
        let tap = |t: usize| -> Vec<f64> {
            let at = ((before + t) * channels + channel) * outputs;
            values[at..at + outputs].iter().map(|&w| f64::from(w)).collect()
        };
        let all: Vec<Vec<f64>> = (0..plane).map(tap).collect();
        for (i, row) in first.iter().enumerate() {
            let mut along = vec![vec![0.0; outputs]; taps[1]];
            for (t, tap) in all.iter().enumerate() {
                sum(&mut along[t % taps[1]], tap, row[t / taps[1]]);
            }
            for (j, column) in second.iter().enumerate() {
                let mut point = vec![0.0; outputs];
                along.iter().zip(column).for_each(|(a, &factor)| sum(&mut point, a, factor));
                let at = ((i * second.len() + j) * inputs + input) * outputs;
                let to = out[at..at + outputs].iter_mut();
                to.zip(point).for_each(|(to, value)| *to = value as f32);
            }
        }
    }
    Tensor::from_f32s(dims, &out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_transformed() {
        let values: Vec<f32> = (0..9 * 6).map(|i| ((i * 7) % 13) as f32 - 6.0).collect();
        let weights = Tensor::from_f32s([3, 3, 2, 3], &values);
        let axis = Filter { tile: 4, taps: 3, stride: 1 };
        let transformed = transform(&weights, [axis; 2]).f32s();
        let matrix = Matrices::new(axis).weights;
        for (c, k) in (0..2).flat_map(|c| (0..3).map(move |k| (c, k))) {
            let tap = |i: usize, j: usize| f64::from(values[((i * 3 + j) * 2 + c) * 3 + k]);
            let block: Vec<Vec<f64>> =
                (0..3).map(|i| (0..3).map(|j| tap(i, j)).collect()).collect();
            let expected = crate::mir::winograd::both_axes([&matrix, &matrix], &block).concat();
            for (point, expected) in expected.into_iter().enumerate() {
                let found = f64::from(transformed[(point * 2 + c) * 3 + k]);
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }
}
