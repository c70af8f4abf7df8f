//! Cases of the operators of neural networks: matrix products, windows, normalizations, recurrences.

use super::case::Case;

/// Cases of this file.
pub(super) fn cases() -> Vec<Case> {
    vec![]
}
