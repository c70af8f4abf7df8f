//! Which keys count for which queries, where a mask says so that is known.
//!
//! What is done to a score is followed for every pair of a query and a key: whether it stays a number
//! like any score, or becomes so low that its exponential is 0 beside that of any score. A query for
//! which no key is known to count may see nothing but masked keys, which then all weigh the same.

use crate::mir::{Binary, Comparison, Expr, Scalar, Shares, Span, Unary};
use crate::tensor::Tensor;

/// What is added to a score, or stands for it, so that it does not count. (Frameworks take negative
/// infinity or the lowest number.)
const LOW: f64 = -1e30;
/// Numbers up to this leave a score what it is.
const SMALL: f64 = 1e6;
/// At most so many spans.
const SPANS: usize = 8;
/// At most so many pairs are looked at.
const MOST_PAIRS: usize = 1 << 24;

/// A known operand, the same for all matrices.
pub(super) struct Mask {
    values: Vec<f64>,
    /// Elements from a query to the next, from a key to the next.
    steps: [usize; 2],
}

impl Mask {
    /// An operand that broadcasts to queries by keys.
    pub(super) fn new(tensor: &Tensor, dims: &[usize]) -> Mask {
        let keys = dims.last().copied().unwrap_or(1);
        let queries = if dims.len() == 2 { dims[0] } else { 1 };
        let step = |extent: usize, by: usize| if extent == 1 { 0 } else { by };
        Mask { values: tensor.f64s(), steps: [step(queries, keys), step(keys, 1)] }
    }
}

/// What is known of a number.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    Number(f64),
    /// As large as a score may be.
    Score,
    /// So low that it does not count.
    Masked,
    Nothing,
}

use Known::{Masked, Nothing, Number, Score};

/// The spans for a mask of scores: its operand `n + 1` is what `operand(n)` says, if that is known.
/// None where there is little to gain.
pub(super) fn spans(
    mask: &Expr,
    queries: usize,
    keys: usize,
    operand: impl Fn(usize) -> Option<Mask>,
) -> Vec<Span> {
    let block = Shares::new(1, queries, keys, 1).queries;
    if queries <= block || queries.saturating_mul(keys) > MOST_PAIRS {
        return vec![];
    }
    let operands = mask.nodes.iter().filter_map(|node| match *node {
        Scalar::Operand(n) => Some(n as usize),
        _ => None,
    });
    let count = operands.max().unwrap_or(0);
    let operands: Vec<Option<Mask>> = (0..count).map(operand).collect();
    if operands.iter().all(|operand| operand.is_none()) {
        return vec![];
    }
    let reach = |query: usize| {
        let known = |key: usize| {
            let at = |mask: &Mask| mask.values[query * mask.steps[0] + key * mask.steps[1]];
            result(mask, |n| match n {
                0 => Score,
                n => operands[n - 1].as_ref().map_or(Nothing, |mask| Number(at(mask))),
            })
        };
        let (mut first, mut end, mut sure) = (keys, 0, false);
        for key in 0..keys {
            let known = known(key);
            if known != Masked {
                (first, end) = (first.min(key), key + 1);
                sure |= known == Score;
            }
        }
        if sure { first..end } else { 0..keys }
    };
    // As many blocks in a span as in any other.
    let blocks = queries.div_ceil(block);
    let length = blocks.div_ceil(SPANS) * block;
    let mut spans: Vec<Span> = vec![];
    for start in (0..queries).step_by(length) {
        let own = start..(start + length).min(queries);
        let seen = own.clone().map(reach).reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
        let seen = seen.unwrap_or(0..keys);
        match spans.last_mut() {
            Some(last) if last.keys == seen => last.queries = own.end,
            _ => spans.push(Span { queries: own.end, keys: seen }),
        }
    }
    let mut first = 0;
    let pairs = spans.iter().map(|span| {
        let count = span.queries - first;
        first = span.queries;
        count * span.keys.len()
    });
    if pairs.sum::<usize>() > queries * keys / 8 * 7 { vec![] } else { spans }
}

/// What is known of an expression's result.
fn result(expr: &Expr, operand: impl Fn(usize) -> Known) -> Known {
    let mut known: Vec<Known> = vec![];
    for node in &expr.nodes {
        let of = |r: u32| known[r as usize];
        known.push(match *node {
            Scalar::Operand(n) => operand(n as usize),
            Scalar::Literal(literal) => Number(literal.f64()),
            Scalar::Unary(op, a) => unary(op, of(a)),
            Scalar::Binary(op, a, b) => binary(op, of(a), of(b)),
            Scalar::Compare(op, a, b) => compare(op, of(a), of(b)),
            Scalar::Select(condition, a, b) => match of(condition) {
                Number(0.0) => of(b),
                Number(_) => of(a),
                Score | Masked | Nothing if of(a) == of(b) => of(a),
                Score | Masked | Nothing => Nothing,
            },
            Scalar::Cast(..) => Nothing,
        });
    }
    match known.last() {
        Some(&Number(number)) if number <= LOW => Masked,
        Some(&known) => known,
        None => Nothing,
    }
}

fn unary(op: Unary, a: Known) -> Known {
    match (op, a) {
        (Unary::Not, Number(a)) => Number(f64::from(a == 0.0)),
        (Unary::Neg, Number(a)) => Number(-a),
        (Unary::Neg | Unary::Abs | Unary::Tanh, Score) => Score,
        _ => Nothing,
    }
}

fn binary(op: Binary, a: Known, b: Known) -> Known {
    match (op, a, b) {
        (Binary::Add, Number(a), Number(b)) => Number(a + b),
        (Binary::Sub, Number(a), Number(b)) => Number(a - b),
        (Binary::Mul, Number(a), Number(b)) => Number(a * b),
        (Binary::Sub, a, Number(b)) => binary(Binary::Add, a, Number(-b)),
        (Binary::Add, Number(_), Score | Masked) => binary(Binary::Add, b, a),
        (Binary::Add, Score | Masked, Number(by)) if by <= LOW => Masked,
        (Binary::Add, Score | Masked, Number(by)) if by.abs() <= SMALL => a,
        (Binary::Add, Score, Score) => Score,
        (Binary::Add, Masked, Score) | (Binary::Add, Score, Masked) => Masked,
        (Binary::Mul, Number(_), Score | Masked) => binary(Binary::Mul, b, a),
        (Binary::Mul, Score, Number(by)) if by.abs() <= SMALL => Score,
        (Binary::Div, Score, Number(by)) if by.abs() >= 1.0 / SMALL => Score,
        _ => Nothing,
    }
}

fn compare(op: Comparison, a: Known, b: Known) -> Known {
    let (Number(a), Number(b)) = (a, b) else { return Nothing };
    Number(f64::from(op.holds(a.partial_cmp(&b))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DType, Type};

    /// The spans of a sum with a mask that is `low` where `masked` says so.
    fn added(
        queries: usize,
        keys: usize,
        low: f64,
        masked: impl Fn(usize, usize) -> bool,
    ) -> Vec<Span> {
        let mut mask = Expr::new();
        let (score, by) = (mask.operand(0), mask.operand(1));
        mask.binary(Binary::Add, score, by);
        let pairs = (0..queries).flat_map(|q| (0..keys).map(move |k| (q, k)));
        let values = pairs.map(|(q, k)| if masked(q, k) { low } else { 0.0 });
        let tensor = Tensor::from_f64s(Type::new(DType::F32, [queries, keys]), values);
        spans(&mask, queries, keys, |_| Some(Mask::new(&tensor, &[queries, keys])))
    }

    #[test]
    fn causal_masks_have_spans() {
        let spans = added(256, 256, f64::NEG_INFINITY, |q, k| k > q);
        let expected = (1..=8).map(|i| Span { queries: 32 * i, keys: 0..32 * i });
        assert_eq!(spans, expected.collect::<Vec<_>>());
        assert_eq!(added(256, 256, -1e4, |q, k| k > q), []);
        assert_eq!(added(256, 256, f64::NEG_INFINITY, |_, _| true), []);
        assert_eq!(added(256, 256, f64::NEG_INFINITY, |q, k| k > q || q % 32 == 5), []);
        let window = added(512, 512, -3e38, |q, k| k > q || k + 64 < q);
        assert_eq!(window[3], Span { queries: 256, keys: 128..256 });
    }
}
