//! When two results match: the rule of the ONNX project's test runner.

use rlx_aot::tensor::Tensor;
use rlx_aot::types::DType;

/// How far a result may be from what is expected: `|got - want| <= absolute + relative * |want|`, NaN equal
/// to NaN, infinities by sign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) relative: f64,
    pub(crate) absolute: f64,
}

/// How a result differs, in a line; `None` when it matches.
pub(crate) fn difference(got: &Tensor, want: &Tensor, bounds: Bounds) -> Option<String> {
    if got.ty() != want.ty() {
        return Some(format!("it is {}, and {} is expected", got.ty(), want.ty()));
    }
    let relative = if got.ty().dtype == DType::BF16 {
        bounds.relative.max(1.0 / 64.0)
    } else {
        bounds.relative
    };
    let exact = |i: usize| got.element(i) == want.element(i);
    let (mut wrong, mut worst) = (0usize, (0, -1.0));
    for i in 0..got.ty().elements() {
        if exact(i) {
            continue;
        }
        let (g, w) = (got.f64_at(i), want.f64_at(i));
        let error = (g - w).abs();
        let fits = g == w
            || g.is_nan() && w.is_nan()
            || error <= bounds.absolute + relative * w.abs() && w.is_finite();
        if fits {
            continue;
        }
        wrong += 1;
        let excess = if error.is_nan() {
            f64::INFINITY
        } else {
            error - (bounds.absolute + relative * w.abs())
        };
        if excess > worst.1 {
            worst = (i, excess);
        }
    }
    let (i, _) = worst;
    (wrong > 0).then(|| {
        let all = got.ty().elements();
        let (g, w) = (got.f64_at(i), want.f64_at(i));
        format!("{wrong} of {all} elements differ; the worst is element {i}: {g} and not {w}")
    })
}

/// The largest difference, relative to the largest magnitude that is expected.
pub(crate) fn error(got: &Tensor, want: &Tensor) -> f64 {
    let pairs = || got.f64s().into_iter().zip(want.f64s());
    let scale = pairs().map(|(_, w)| w.abs()).filter(|w| w.is_finite()).fold(0.0, f64::max);
    let error = pairs().map(|(g, w)| (g - w).abs()).filter(|e| e.is_finite()).fold(0.0, f64::max);
    if scale > 0.0 { error / scale } else { error }
}
