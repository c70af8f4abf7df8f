//! Windows that move over spatial axes, as convolutions and pools have them: their attributes, where
//! they lie, and how a naive loop walks over them.

use super::{Attrs, tools};
use crate::error::ErrorKind;
use crate::types::DType;

/// What `auto_pad` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AutoPad {
    Explicit,
    SameUpper,
    SameLower,
    Valid,
}

/// The attributes that convolutions and pools have in common. Empty lists stand for the defaults:
/// extent 1 everywhere and no padding.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attributes {
    /// `kernel_shape`, if it is given.
    pub kernel: Option<Vec<usize>>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    /// All low ends, then all high ends.
    pub pads: Vec<usize>,
    pub auto_pad: AutoPad,
    /// Whether a window that hangs out at the high end counts.
    pub ceil: bool,
}

/// The windows along one axis. Window `i` starts at `i * stride - low`, its taps are `dilation` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// Of the operand.
    pub extent: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    /// Padding before the first element, as the model says.
    pub low: usize,
    /// Padding behind the last element, as the model says.
    pub high: usize,
    /// How many windows there are.
    pub windows: usize,
}

impl Axis {
    /// Extent of a window.
    pub(super) fn span(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Padding behind the last element that the windows reach: less than `high` where the last ones
    /// do not need it, more where a window hangs out.
    pub(super) fn reach(&self) -> usize {
        match self.windows {
            0 => 0,
            n => ((n - 1) * self.stride + self.span()).saturating_sub(self.extent + self.low),
        }
    }
}

impl Attributes {
    /// From a node's attributes.
    pub(super) fn parse(attrs: &mut Attrs) -> Result<Attributes, ErrorKind> {
        let kernel = match attrs.ints("kernel_shape")? {
            Some(list) => Some(positive("kernel_shape", &list)?),
            None => None,
        };
        let strides = positive("strides", &attrs.ints("strides")?.unwrap_or_default())?;
        let dilations = positive("dilations", &attrs.ints("dilations")?.unwrap_or_default())?;
        let pads = bounded("pads", 0, &attrs.ints("pads")?.unwrap_or_default())?;
        let names = ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"];
        let auto_pad = match attrs.choice("auto_pad", &names)? {
            0 => AutoPad::Explicit,
            1 => AutoPad::SameUpper,
            2 => AutoPad::SameLower,
            _ => AutoPad::Valid,
        };
        if auto_pad != AutoPad::Explicit && pads.iter().any(|&p| p > 0) {
            let kind = ErrorKind::wrong("attributes \"pads\" and \"auto_pad\" are both given");
            return Err(kind.help("leave one of them out"));
        }
        Ok(Attributes { kernel, strides, dilations, pads, auto_pad, ceil: false })
    }

    /// The lists, one entry per axis, or an error when one has another length.
    pub(super) fn per_axis(&self, rank: usize) -> Result<[Vec<usize>; 4], ErrorKind> {
        let list = |name: &str, list: &[usize], default: usize| {
            if !list.is_empty() && list.len() != rank {
                let found = list.len();
                return Err(ErrorKind::wrong(format!(
                    "attribute \"{name}\" has {found} entries for {rank} spatial axes"
                )));
            }
            Ok(if list.is_empty() { vec![default; rank] } else { list.to_vec() })
        };
        if !self.pads.is_empty() && self.pads.len() != 2 * rank {
            let found = self.pads.len();
            return Err(ErrorKind::wrong(format!(
                "attribute \"pads\" has {found} entries for {rank} spatial axes"
            ))
            .help(format!("it must have {}: all low ends, then all high ends", 2 * rank)));
        }
        let at = |end: usize| match self.pads.is_empty() {
            true => vec![0; rank],
            false => self.pads[end * rank..][..rank].to_vec(),
        };
        Ok([
            list("strides", &self.strides, 1)?,
            list("dilations", &self.dilations, 1)?,
            at(0),
            at(1),
        ])
    }

    /// The windows over an operand `[N, C, spatial..]` of these spatial extents.
    ///
    /// # Errors
    ///
    /// Lists of another length, a window that is larger than the padded operand.
    pub(super) fn axes(&self, spatial: &[usize], kernel: &[usize]) -> Result<Vec<Axis>, ErrorKind> {
        let rank = spatial.len();
        let [strides, dilations, lows, highs] = self.per_axis(rank)?;
        if kernel.len() != rank {
            let found = kernel.len();
            return Err(ErrorKind::wrong(format!(
                "attribute \"kernel_shape\" has {found} entries for {rank} spatial axes"
            )));
        }
        let axis = |i: usize| {
            let (extent, stride) = (spatial[i], strides[i]);
            let mut axis = Axis {
                extent,
                kernel: kernel[i],
                stride,
                dilation: dilations[i],
                low: lows[i],
                high: highs[i],
                windows: 0,
            };
            let span = (axis.kernel - 1)
                .checked_mul(axis.dilation)
                .filter(|&n| n < LARGEST)
                .ok_or_else(|| ErrorKind::limit("a window is too large"))?
                + 1;
            match self.auto_pad {
                AutoPad::SameUpper | AutoPad::SameLower => {
                    axis.windows = extent.div_ceil(stride);
                    let needed = axis.windows.saturating_sub(1).saturating_mul(stride) + span;
                    let total = needed.saturating_sub(extent);
                    let (less, more) = (total / 2, total - total / 2);
                    let upper = self.auto_pad == AutoPad::SameUpper;
                    (axis.low, axis.high) = if upper { (less, more) } else { (more, less) };
                    return Ok(axis);
                }
                AutoPad::Valid => (axis.low, axis.high) = (0, 0),
                AutoPad::Explicit => {}
            }
            let padded = extent + axis.low + axis.high;
            let Some(rest) = padded.checked_sub(span) else {
                let kind = ErrorKind::wrong(format!(
                    "a window of {span} does not fit into spatial axis {i} with {padded} elements"
                ));
                return Err(kind.help("padding counts, and so does dilation"));
            };
            axis.windows = rest / stride + 1;
            if self.ceil {
                // A window counts when it starts inside the operand or its low padding.
                axis.windows = rest.div_ceil(stride) + 1;
                if (axis.windows - 1) * stride >= extent + axis.low {
                    axis.windows = (axis.windows - 1).max(1);
                }
            }
            Ok(axis)
        };
        (0..rank).map(axis).collect()
    }
}

/// An error when the operand with its padding is too large.
pub(super) fn check_padded(
    dtype: DType,
    outer: [usize; 2],
    axes: &[Axis],
) -> Result<(), ErrorKind> {
    let dims = axes.iter().map(|a| a.extent + a.low + a.high.max(a.reach()));
    tools::sized(dtype, outer.into_iter().chain(dims).collect::<Vec<_>>()).map(|_| ())
}

/// Extents and paddings from files stay below this, so that sums of a few of them cannot overflow.
const LARGEST: usize = 1 << 40;

/// A list of integers that are at least 1.
pub(super) fn positive(name: &str, list: &[i64]) -> Result<Vec<usize>, ErrorKind> {
    bounded(name, 1, list)
}

/// A list of integers that are at least `least`.
pub(super) fn bounded(name: &str, least: i64, list: &[i64]) -> Result<Vec<usize>, ErrorKind> {
    let check = |&n: &i64| match usize::try_from(n) {
        Ok(size) if n >= least && size < LARGEST => Ok(size),
        _ if n < least => Err(ErrorKind::wrong(format!(
            "attribute \"{name}\" has the entry {n}, and must have at least {least}"
        ))),
        _ => Err(ErrorKind::limit(format!("attribute \"{name}\" has the entry {n}"))),
    };
    list.iter().map(check).collect()
}

/// A run of windows along the last axis, for one tap: window `window + i` reads element
/// `element + i * step`, for `i < count`; indices are flat over the spatial axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub window: usize,
    pub element: usize,
    pub step: usize,
    pub count: usize,
}

/// For every tap, in row-major order, where it reads the operand: what falls on padding is left out.
pub(super) fn runs(axes: &[Axis]) -> Vec<Vec<Run>> {
    let taps: usize = axes.iter().map(|a| a.kernel).product();
    (0..taps).map(|tap| runs_of_tap(axes, tap)).collect()
}

fn runs_of_tap(axes: &[Axis], tap: usize) -> Vec<Run> {
    // Flat positions over the axes so far; the last axis makes runs of them.
    let mut rows = vec![(0, 0)];
    let mut rest = axes.iter().map(|a| a.kernel).product::<usize>();
    for (i, a) in axes.iter().enumerate() {
        rest /= a.kernel;
        let shift = tap / rest % a.kernel * a.dilation;
        // Element of window w: w * stride + shift - low.
        let first = a.low.saturating_sub(shift).div_ceil(a.stride).min(a.windows);
        let past = (a.extent + a.low).saturating_sub(shift).div_ceil(a.stride).min(a.windows);
        let at = |w: usize| w * a.stride + shift - a.low;
        if i + 1 == axes.len() {
            let count = past.saturating_sub(first);
            let run = |(window, element)| Run {
                window: window * a.windows + first,
                element: element * a.extent + at(first),
                step: a.stride,
                count,
            };
            return if count == 0 { vec![] } else { rows.into_iter().map(run).collect() };
        }
        let inner = |(window, element): (usize, usize)| {
            (first..past).map(move |w| (window * a.windows + w, element * a.extent + at(w)))
        };
        rows = rows.into_iter().flat_map(inner).collect();
    }
    // No spatial axes: one window over one element.
    vec![Run { window: 0, element: 0, step: 1, count: 1 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(extent: usize, kernel: usize, stride: usize, pads: [usize; 2], ceil: bool) -> Axis {
        let attributes = Attributes {
            kernel: None,
            strides: vec![stride],
            dilations: vec![],
            pads: pads.to_vec(),
            auto_pad: AutoPad::Explicit,
            ceil,
        };
        attributes.axes(&[extent], &[kernel]).unwrap()[0]
    }

    #[test]
    fn windows_are_counted() {
        assert_eq!(axis(4, 3, 2, [0, 0], false).windows, 1);
        assert_eq!(axis(4, 3, 2, [0, 0], true).windows, 2);
        assert_eq!(axis(4, 3, 2, [0, 0], true).reach(), 1);
        // The window that would start in the padding behind does not count.
        assert_eq!(axis(2, 1, 2, [0, 1], true).windows, 1);
        assert_eq!(axis(5, 2, 2, [0, 1], false).reach(), 1);
        assert_eq!(axis(5, 2, 2, [0, 0], false).reach(), 0);
    }

    #[test]
    fn same_padding() {
        let mut attributes = Attributes {
            kernel: None,
            strides: vec![2],
            dilations: vec![],
            pads: vec![],
            auto_pad: AutoPad::SameUpper,
            ceil: false,
        };
        let a = attributes.axes(&[4], &[3]).unwrap()[0];
        assert_eq!((a.windows, a.low, a.high), (2, 0, 1));
        attributes.auto_pad = AutoPad::SameLower;
        let a = attributes.axes(&[4], &[3]).unwrap()[0];
        assert_eq!((a.windows, a.low, a.high), (2, 1, 0));
    }

    #[test]
    fn runs_leave_padding_out() {
        let a = axis(3, 3, 1, [1, 1], false);
        let all = runs(&[a]);
        let found: Vec<_> = all.iter().map(|r| (r[0].window, r[0].element, r[0].count)).collect();
        assert_eq!(found, [(1, 0, 2), (0, 0, 3), (0, 1, 2)]);
    }
}
