//! How often sequences of numbers occur in others.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Comparison, Reduction};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use std::collections::BTreeMap;

/// What is made of the counts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// The count.
    Count,
    /// The weight, where the count is not 0.
    Weight,
    /// Their product.
    Both,
}

/// Of each row of X (integers `[C]` or `[N, C]`), how often each n-gram of a pool occurs in it, at the coordinate of
/// its own: the items one behind the other, or with the same number of others between any two, from 0 to
/// `max_skip_count`; single ones count once. Of n-grams that are twice in the pool, the last one counts.
#[derive(Clone, Debug, PartialEq)]
pub struct TfIdfVectorizer {
    mode: Mode,
    /// N-grams and their coordinates.
    grams: BTreeMap<Vec<i64>, usize>,
    /// One for each coordinate; empty: 1.
    weights: Vec<f64>,
    /// Extent of a row of the result.
    width: usize,
    skips: usize,
}

/// The largest row of the result.
const WIDEST: usize = 1 << 24;

impl TfIdfVectorizer {
    /// Rows and columns.
    fn rows(x: &Type) -> [usize; 2] {
        match x.dims[..] {
            [rows, columns] => [rows, columns],
            _ => [1, x.elements()],
        }
    }

    /// Distances of neighbours in n-grams of this length.
    fn distances(&self, length: usize) -> std::ops::RangeInclusive<usize> {
        1..=if length == 1 { 1 } else { self.skips + 1 }
    }
}

impl Op for TfIdfVectorizer {
    const NAME: &'static str = "TfIdfVectorizer";
    const TOLERANCE: Tolerance = Tolerance::Ulps(1);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        if attrs.has("pool_strings") {
            return Err(ErrorKind::unsupported("texts"));
        }
        let mode = tools::required(attrs.text("mode")?, "mode")?;
        let mode = match mode.as_str() {
            "TF" => Mode::Count,
            "IDF" => Mode::Weight,
            "TFIDF" => Mode::Both,
            _ => {
                let kind = ErrorKind::wrong(format!("attribute \"mode\" is \"{mode}\""));
                return Err(kind.help("it must be one of: TF, IDF, TFIDF"));
            }
        };
        let mut number = |name: &'static str, least: i64| {
            let value = tools::required(attrs.int(name)?, name)?;
            Ok::<_, ErrorKind>(super::window::bounded(name, least, &[value])?[0])
        };
        let (shortest, longest) = (number("min_gram_length", 1)?, number("max_gram_length", 1)?);
        let skips = number("max_skip_count", 0)?;
        let mut list = |name: &'static str| tools::required(attrs.ints(name)?, name);
        let pool = list("pool_int64s")?;
        let starts = super::window::bounded("ngram_counts", 0, &list("ngram_counts")?)?;
        let places = super::window::bounded("ngram_indexes", 0, &list("ngram_indexes")?)?;
        let weights = attrs.floats("weights")?.unwrap_or_default();
        let width = places.iter().max().map_or(0, |&most| most + 1);
        if width > WIDEST {
            return Err(ErrorKind::limit(format!("{width} coordinates")));
        }
        let (mut grams, mut next) = (BTreeMap::new(), 0);
        for (i, &start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(pool.len());
            let Some(own) = pool.get(start..end).filter(|own| own.len() % (i + 1) == 0) else {
                let kind = ErrorKind::wrong(format!("attribute \"ngram_counts\" is {starts:?}"));
                return Err(kind.help("it must say where in the pool those of one item begin, those of two, ..."));
            };
            for gram in own.chunks_exact(i + 1) {
                let place = places.get(next).copied().ok_or_else(|| {
                    ErrorKind::wrong(format!("attribute \"ngram_indexes\" has {} entries", places.len()))
                        .help("there must be one for each n-gram of the pool")
                })?;
                next += 1;
                if (shortest..=longest).contains(&gram.len()) {
                    grams.insert(gram.to_vec(), place);
                }
            }
        }
        if !weights.is_empty() && mode != Mode::Count && weights.len() != places.len() {
            let (found, asked) = (weights.len(), places.len());
            return Err(ErrorKind::wrong(format!("attribute \"weights\" has {found} entries for {asked} n-grams")));
        }
        // The specification gives weights to n-grams, implementations to coordinates.
        let in_order = places.iter().enumerate().all(|(i, &place)| i == place);
        if mode != Mode::Count && !in_order && weights.windows(2).any(|w| w[0] != w[1]) {
            return Err(ErrorKind::unsupported("weights of n-grams whose coordinates are in another order"));
        }
        let weights = match weights.first() {
            Some(&weight) if !in_order => vec![weight; width],
            _ => weights,
        };
        Ok(TfIdfVectorizer { mode, grams, weights, width, skips })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &[DType::I32, DType::I64], &[])?;
        if !(1..=2).contains(&x.rank()) {
            return Err(ErrorKind::wrong(format!("the operand is {x}")).help("it must be [C] or [N, C]"));
        }
        let [rows, columns] = TfIdfVectorizer::rows(x);
        tools::sized(DType::F32, [rows, columns, self.grams.len()])?;
        let dims = if x.rank() == 2 { vec![rows, self.width] } else { vec![self.width] };
        Ok(vec![tools::sized(DType::F32, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x)] = inputs else { return vec![] };
        let [rows, columns] = TfIdfVectorizer::rows(x.ty());
        let items = x.ints();
        let mut y = vec![0.0; rows * self.width];
        for row in 0..rows {
            let (items, y) = (&items[row * columns..][..columns], &mut y[row * self.width..][..self.width]);
            for (gram, &place) in &self.grams {
                for distance in self.distances(gram.len()) {
                    let span = (gram.len() - 1).saturating_mul(distance);
                    let occurs = |&at: &usize| (0..gram.len()).all(|k| items[at + k * distance] == gram[k]);
                    y[place] += (0..columns.saturating_sub(span)).filter(occurs).count() as f64;
                }
            }
            for (i, value) in y.iter_mut().enumerate() {
                let weight = self.weights.get(i).copied().unwrap_or(1.0);
                *value = match self.mode {
                    Mode::Count => *value,
                    Mode::Weight if *value > 0.0 => weight,
                    Mode::Weight => 0.0,
                    Mode::Both => *value * weight,
                };
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    /// All windows of a length and distance are compared with all n-grams of that length.
    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x)] = inputs else { return vec![] };
        let (ty, [rows, columns]) = (mir.ty(x).clone(), TfIdfVectorizer::rows(mir.ty(x)));
        let x = mir.reshape(x, [rows, columns, 1]);
        let mut by_length: BTreeMap<usize, Vec<(&Vec<i64>, usize)>> = BTreeMap::new();
        for (gram, &place) in &self.grams {
            // Items that X cannot have are never found.
            if ty.dtype == DType::I64 || gram.iter().all(|&item| i32::try_from(item).is_ok()) {
                by_length.entry(gram.len()).or_default().push((gram, place));
            }
        }
        let (mut counts, mut places) = (vec![], vec![]);
        for (length, grams) in by_length {
            let mut sum: Option<mir::Value> = None;
            for distance in self.distances(length) {
                let Some(windows) = columns.checked_sub((length - 1).saturating_mul(distance)).filter(|&n| n > 0) else {
                    break;
                };
                let mut same: Option<mir::Value> = None;
                for k in 0..length {
                    let own = mir.narrow(x, 1, k * distance, windows);
                    let items = Type::new(ty.dtype, [1, 1, grams.len()]);
                    let items = mir.constant(Tensor::from_ints(items, grams.iter().map(|(gram, _)| gram[k])));
                    let equal = mir.compare(Comparison::Equal, own, items);
                    same = Some(same.map_or(equal, |same| mir.binary(Binary::And, same, equal)));
                }
                let Some(same) = same else { continue };
                let ones = mir.cast(same, DType::F32);
                let count = mir.reduce(Reduction::Sum, ones, &[1]);
                sum = Some(sum.map_or(count, |sum| mir.binary(Binary::Add, sum, count)));
            }
            if let Some(sum) = sum.filter(|_| rows > 0) {
                counts.push(mir.reshape(sum, [rows, grams.len()]));
                places.extend(grams.iter().map(|&(_, place)| place as i64));
            }
        }
        if counts.is_empty() {
            return vec![mir.constant(Tensor::zeros(outputs[0].clone()))];
        }
        let counts = mir.concat(&counts, 1);
        let counts = mir.permute(counts, &[1, 0]);
        let zero = mir.scalar(DType::F32, 0.0);
        let zeros = mir.broadcast(zero, [self.width, rows]);
        let places = mir.constant(Tensor::from_i64s([places.len()], &places));
        let sums = mir.scatter(Some(Reduction::Sum), zeros, places, counts);
        let mut y = mir.permute(sums, &[1, 0]);
        if self.mode == Mode::Weight {
            let zero = mir.scalar(DType::F32, 0.0);
            let found = mir.compare(Comparison::Greater, y, zero);
            y = mir.cast(found, DType::F32);
        }
        if self.mode != Mode::Count && !self.weights.is_empty() {
            let weights = Type::new(DType::F32, [1, self.width]);
            let weights = mir.constant(Tensor::from_f64s(weights, self.weights.iter().copied()));
            y = mir.binary(Binary::Mul, y, weights);
        }
        vec![mir.reshape(y, outputs[0].dims.clone())]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    const NODE: &str = "TfIdfVectorizer mode=TF ngram_counts=[0,4] ngram_indexes=[0,1,2,3,4,5,6] \
                        pool_int64s=[2,3,5,4,5,6,7,8,6,7]";

    #[test]
    fn n_grams_are_counted() {
        let count = |more: &str| {
            let node = format!("{NODE} {more}");
            definition(&node, &["i64[2,6]=1,1,3,3,3,7,8,6,7,5,6,8"])[0].ints()
        };
        let pairs = count("min_gram_length=2 max_gram_length=2 max_skip_count=0");
        assert_eq!(pairs, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
        let skipping = count("min_gram_length=1 max_gram_length=2 max_skip_count=5");
        assert_eq!(skipping, [0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1]);
    }

    #[test]
    fn misfits_are_refused() {
        let lengths = "min_gram_length=1 max_gram_length=2 max_skip_count=0";
        refused(&format!("{NODE} {lengths}"), &["f32[4]"]);
        refused(&format!("{NODE} {lengths}"), &["i64[1,1,4]"]);
        let node = |counts: &str, places: &str| {
            let pool = "TfIdfVectorizer mode=TF pool_int64s=[1,2,3]";
            refused(&format!("{pool} ngram_counts={counts} ngram_indexes={places} {lengths}"), &["i64[4]"]);
        };
        node("[0,2]", "[0,1]");
        node("[0,1]", "[0]");
        node("[5]", "[0]");
        node("[0]", "[0,1]");
    }
}
