//! Cases of operators that make, move, repeat and pick elements.

use super::case::{Case, case};
use super::text::read;
use super::{int, ints, text};
use crate::ops::Attribute;
use crate::tensor::Tensor;
use crate::types::DType::{self, *};
use crate::types::Type;

/// Cases of this file.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![];
    makers(&mut cases);
    shapes(&mut cases);
    arrangements(&mut cases);
    slices(&mut cases);
    pads(&mut cases);
    gathers(&mut cases);
    choices(&mut cases);
    scatters(&mut cases);
    orders(&mut cases);
    samples(&mut cases);
    scans(&mut cases);
    sequences(&mut cases);
    folds(&mut cases);
    counts(&mut cases);
    cases.extend(STATES.iter().map(|(node, operands)| read(node, operands)));
    cases
}

const STATES: &[(&str, &[&str])] = &[
    ("TensorScatter", &["f32[2,5,3]", "f32[2,2,3]", "i64[2]=3,1"]),
    ("TensorScatter", &["f32[2,5,3]", "f32[2,2,3]"]),
    ("TensorScatter", &["f32[2,5,3]", "f32[2,5,3]"]),
    ("TensorScatter", &["f32[2,5,3]", "f32[2,2,3]", "i64[2]=0,3"]),
    ("TensorScatter axis=3 mode=circular", &["f16[2,3,2,5]", "f16[2,3,2,4]", "i64[2]=-3,14"]),
    ("TensorScatter axis=1 mode=circular", &["i8[2,3,2]", "i8[2,3,2]", "i64[2]=1,2"]),
    ("TensorScatter", &["f32[2,5,3]", "f32[2,0,3]", "i64[2]=5,0"]),
    (
        "NonMaxSuppression center_point_box=1",
        &[
            "const f32[1,5,4]",
            "const f32[1,2,5]",
            "const i64[]=3",
            "const f32[]=0.1",
            "const f32[]=0",
        ],
    ),
    ("NonMaxSuppression", &["const f32[2,3,4]", "const f32[2,1,3]"]),
    (
        "rlx:NonMaxSuppression count=40",
        &["f32[2,9,4]", "f32[2,3,9]", "const i64[1]=5", "f32[1]=0.2", "f32[]=-0.5"],
    ),
    ("rlx:NonMaxSuppression count=7", &["f32[2,9,4]", "f32[2,3,9]", "const i64[]=4", "f32[]=0.3"]),
    (
        "rlx:NonMaxSuppression count=3 center_point_box=1",
        &["f32[1,12,4]", "f32[1,1,12]", "const i64[]=100", "f32[]=0.01", "f32[]=0"],
    ),
    (
        "rlx:NonMaxSuppression count=6",
        &[
            "f32[1,4,4]=0,0,1,1,0,0,1,1,2,2,3,3,nan,0,1,1",
            "f32[1,1,4]=1,1,nan,-inf",
            "const i64[]=9",
        ],
    ),
    ("rlx:NonMaxSuppression count=2", &["f32[1,4,4]", "f32[1,1,4]", "const i64[]=0"]),
    ("rlx:NonMaxSuppression count=2", &["f32[1,4,4]", "f32[1,0,4]", "const i64[]=3"]),
    ("rlx:NonMaxSuppression count=0", &["f32[1,4,4]", "f32[1,1,4]", "const i64[]=3"]),
    (
        "TfIdfVectorizer mode=TF min_gram_length=1 max_gram_length=3 max_skip_count=1 ngram_counts=[0,2,6] \
         ngram_indexes=[3,0,1,1,5] pool_int64s=[1,2,1,2,2,1,0,1,2]",
        &["i64[2,7]=0,1,2,1,2,2,1,1,1,1,0,1,2,0"],
    ),
    (
        "TfIdfVectorizer mode=IDF min_gram_length=2 max_gram_length=2 max_skip_count=0 ngram_counts=[0,1] \
         ngram_indexes=[0,1,2] weights=[5.0,0.5,2.0] pool_int64s=[1,1,2,9999999999,2]",
        &["i32[6]=1,2,1,2,2,1"],
    ),
    (
        "TfIdfVectorizer mode=TFIDF min_gram_length=1 max_gram_length=2 max_skip_count=9 ngram_counts=[0,1] \
         ngram_indexes=[0,1] weights=[0.5,3.0] pool_int64s=[1,1,2]",
        &["i64[3,2]=1,2,1,1,2,2"],
    ),
    (
        "TfIdfVectorizer mode=TF min_gram_length=3 max_gram_length=3 max_skip_count=0 ngram_counts=[0,0,0] \
         ngram_indexes=[1] pool_int64s=[1,1,2]",
        &["i64[2]=1,1"],
    ),
    ("BitCast to=6", &["const f32[4]=1,-0,nan,-inf"]),
    ("BitCast to=3", &["u8[3]=255,0,127"]),
    ("BitCast to=13", &["i64[2,2]"]),
    ("BitCast to=2", &["bool[2]=0,1"]),
];

fn folds(cases: &mut Vec<Case>) {
    let fold =
        |case: Case, rows, columns| case.f32(&[2, rows, columns]).list(&[5, 6]).list(&[2, 3]);
    cases.push(fold(case("Col2Im"), 12, 16));
    cases.push(fold(case("Col2Im").attr("strides", ints(&[2, 3])), 6, 4));
    cases.push(fold(case("Col2Im").attr("dilations", ints(&[2, 1])), 6, 12));
    let padded = case("Col2Im").attr("pads", ints(&[1, 0, 2, 1])).attr("strides", ints(&[3, 2]));
    cases.push(fold(padded, 12, 9));
    cases.push(case("Col2Im").f32(&[1, 4, 3]).list(&[6]).list(&[4]));
    for align in [0, 1] {
        let grid = || case("AffineGrid").attr("align_corners", int(align));
        cases.push(grid().f32(&[2, 2, 3]).list(&[2, 1, 3, 4]));
        cases.push(grid().f32(&[1, 3, 4]).list(&[1, 1, 2, 1, 3]));
    }
    let unpool = || {
        let unpool = case("MaxUnpool").attr("kernel_shape", ints(&[2, 2]));
        let unpool = unpool.attr("strides", ints(&[2, 2]));
        unpool.f32(&[1, 2, 2, 2]).indices(&[1, 2, 2, 2], &[5, 7, 13, 15, 16, 18, 24, 27])
    };
    cases.extend([unpool(), unpool().list(&[1, 2, 5, 6])]);
}

fn counts(cases: &mut Vec<Case>) {
    let mask = Tensor::from_f64s(Type::new(Bool, [2, 3]), [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    cases.push(case("NonZero").known(mask));
    cases.push(case("NonZero").known(scalar(F32, 0.0)));
    cases.push(case("NonZero").known(scalar(I64, 2.0)));
    let slices = Tensor::from_i64s([2, 3, 2], &[1, 2, 5, 6, 1, 2, 3, 4, 7, 8, 3, 4]);
    cases.push(case("Unique").attr("axis", int(1)).known(slices.clone()).results(4));
    cases.push(case("Unique").attr("sorted", int(0)).known(slices).results(3));
    cases.push(case("Unique").known(Tensor::zeros(Type::new(U8, [0]))).results(2));
    let condition = Tensor::from_f64s(Type::new(Bool, [3]), [1.0, 0.0, 1.0]);
    let none = Tensor::from_f64s(Type::new(Bool, [2]), [0.0, 0.0]);
    cases.extend([
        case("Compress").f32(&[2, 3]).known(condition.clone()),
        case("Compress").attr("axis", int(-1)).random(I8, &[2, 3, 2, 4]).known(condition.clone()),
        case("Compress").attr("axis", int(1)).f32(&[2, 3]).known(condition),
        case("Compress").attr("axis", int(0)).f32(&[2, 3]).known(none),
    ]);
}

fn scalar(dtype: DType, value: f64) -> Tensor {
    Tensor::from_f64s(Type::scalar(dtype), [value])
}

fn makers(cases: &mut Vec<Case>) {
    let tensor = Tensor::from_f32s([2], &[1.5, f32::NAN]);
    cases.extend([
        case("Constant").attr("value", Attribute::Tensor(tensor)),
        case("Constant").attr("value_float", Attribute::Float(0.1)),
        case("Constant").attr("value_floats", Attribute::Floats(vec![0.1, 2.0])),
        case("Constant").attr("value_int", int(i64::MIN)),
        case("Constant").attr("value_ints", ints(&[])),
        case("ConstantOfShape").list(&[2, 3]),
        case("ConstantOfShape").list(&[]),
        case("ConstantOfShape").list(&[2, 0]),
        case("ConstantOfShape")
            .attr("value", Attribute::Tensor(Tensor::from_i64s([1], &[7])))
            .list(&[2, 3]),
        case("Shape").f32(&[2, 3]),
        case("Shape").attr("start", int(-9)).attr("end", int(-1)).f32(&[2, 3]),
        case("Shape").attr("start", int(2)).attr("end", int(1)).f32(&[2, 3]),
        case("Size").f32(&[2, 3]),
        case("Size").f32(&[]),
        case("EyeLike").f32(&[3, 4]),
        case("EyeLike").attr("dtype", int(9)).attr("k", int(-1)).f32(&[3, 4]),
        case("EyeLike").attr("k", int(i64::MAX)).random(I32, &[3, 0]),
        case("EyeLike").attr("k", int(i64::MIN)).random(I32, &[2, 2]),
    ]);
    let ranges = [
        (F32, 1.0, 9.5, 0.7),
        (F64, 5.0, -1.0, -0.5),
        (I32, 3.0, 9.0, 3.0),
        (I64, 10.0, 4.0, -2.0),
    ];
    for (t, start, limit, delta) in
        ranges.into_iter().chain([(I16, 4.0, 4.0, 1.0), (I64, 0.0, 70000.0, 1.0)])
    {
        let range = case("Range").known(scalar(t, start)).known(scalar(t, limit));
        cases.push(range.known(scalar(t, delta)));
    }
    for upper in [0, 1] {
        for k in [-1, 0, 2, i64::MIN, i64::MAX] {
            let triangle = case("Trilu").attr("upper", int(upper)).f32(&[2, 3, 4]);
            cases.push(triangle.given(Tensor::from_i64s([], &[k])));
        }
        cases.push(case("Trilu").attr("upper", int(upper)).random(Bool, &[4, 3]));
        cases.push(case("Trilu").attr("upper", int(upper)).f32(&[2, 0, 3]));
    }
}

fn shapes(cases: &mut Vec<Case>) {
    cases.extend([
        case("Reshape").f32(&[2, 3, 4]).list(&[0, -1]),
        case("Reshape").f32(&[1]).list(&[]),
        case("Reshape").attr("allowzero", int(1)).f32(&[2, 0]).list(&[0, 7]),
        case("Flatten").f32(&[2, 3, 4]),
        case("Flatten").attr("axis", int(0)).f32(&[]),
        case("Flatten").attr("axis", int(-1)).random(U8, &[2, 3, 4]),
        case("Squeeze").f32(&[1, 2, 1]),
        case("Squeeze").f32(&[1, 2, 1]).list(&[-1]),
        case("Squeeze").opset(11).attr("axes", ints(&[0])).f32(&[1, 2, 1]),
        case("Unsqueeze").f32(&[2, 3]).list(&[0, -1]),
        case("Unsqueeze").opset(11).attr("axes", ints(&[3, 1])).f32(&[2, 3]),
        case("Expand").f32(&[3, 1]).list(&[2, 1, 4]),
        case("Expand").random(I64, &[]).list(&[2, 0]),
        case("Expand").random(Bool, &[2, 3]).list(&[1]),
        case("Tile").f32(&[2, 3]).list(&[3, 2]),
        case("Tile").f32(&[2, 3]).list(&[0, 2]),
        case("Tile").random(I16, &[0, 3]).list(&[2, 2]),
        case("Tile").f32(&[]).list(&[]),
    ]);
}

fn arrangements(cases: &mut Vec<Case>) {
    cases.extend(DType::ALL.map(|t| case("Transpose").random(t, &[2, 3, 4])));
    cases.extend([
        case("Transpose").attr("perm", ints(&[1, 2, 0])).f32(&[2, 3, 4]),
        case("Transpose").attr("perm", ints(&[0, 2, 1])).f32(&[2, 0, 4]),
        case("Transpose").f32(&[]),
        case("Concat").attr("axis", int(0)).f32(&[2, 3]),
        case("Concat").attr("axis", int(1)).f32(&[2, 3]).f32(&[2, 0]).f32(&[2, 4]),
        case("Concat").attr("axis", int(-2)).random(I64, &[2, 3]).random(I64, &[1, 3]),
        case("Concat").attr("axis", int(0)).f32(&[0]).f32(&[0]),
        case("Split").results(2).f32(&[6, 2]),
        case("Split")
            .opset(11)
            .results(2)
            .attr("axis", int(1))
            .attr("split", ints(&[1, 4]))
            .f32(&[2, 5]),
        case("Split").results(3).attr("axis", int(-1)).f32(&[2, 5]).list(&[0, 2, 3]),
        case("Split").results(3).attr("num_outputs", int(3)).f32(&[7, 2]),
        case("Split").results(1).f32(&[0]),
    ]);
    for name in ["DepthToSpace", "SpaceToDepth"] {
        for mode in ["DCR", "CRD"] {
            let blocks = || case(name).opset(28).attr("mode", text(mode)).attr("blocksize", int(2));
            cases.push(blocks().f32(&[2, 8, 2, 4]));
            cases.push(blocks().f32(&[0, 8, 2, 4]));
            cases.push(blocks().f32(&[1, 8, 0, 4]));
        }
    }
}

fn slices(cases: &mut Vec<Case>) {
    cases.extend([
        case("Slice").f32(&[5, 6]).list(&[1]).list(&[-1]),
        case("Slice")
            .f32(&[5, 6])
            .list(&[-1, 0])
            .list(&[i64::MIN, 99])
            .list(&[1, 0])
            .list(&[-2, 3]),
        case("Slice").f32(&[5, 6]).list(&[0]).list(&[9]).none().list(&[i64::MAX]),
        case("Slice").f32(&[5, 6]).list(&[4]).list(&[2]).list(&[-1]),
        case("Slice").f32(&[5, 0]).list(&[4]).list(&[2]).list(&[0]).list(&[-1]),
        case("Slice").opset(9).attr("starts", ints(&[1])).attr("ends", ints(&[3])).f32(&[5, 6]),
        case("Slice")
            .opset(9)
            .attr("starts", ints(&[1]))
            .attr("ends", ints(&[-1]))
            .attr("axes", ints(&[1]))
            .random(I8, &[5, 6]),
    ]);
}

fn pads(cases: &mut Vec<Case>) {
    for mode in ["constant", "reflect", "edge", "wrap"] {
        let pad = || case("Pad").attr("mode", text(mode));
        for widths in [[1, 2, 0, 1], [-1, 1, 1, -2], [7, 0, 9, 5], [0, 0, 0, 0], [0, 100, 0, 40]] {
            cases.push(pad().f32(&[3, 4]).list(&widths));
            cases.push(pad().f32(&[1, 5]).list(&widths.map(|w| w.max(0))));
            cases.push(pad().random(I64, &[2, 6]).list(&widths));
        }
        cases.push(pad().f32(&[2, 3, 4]).list(&[1, 2, 3, 1]).none().list(&[-1, 0]));
        cases.push(pad().f32(&[0, 3]).list(&[0, 1, 0, 2]));
    }
    cases.extend([
        case("Pad").f32(&[2, 3]).list(&[1, 0, 0, 2]).known(scalar(F32, f64::NEG_INFINITY)),
        case("Pad").f32(&[]).list(&[]),
        case("Pad").f32(&[0]).list(&[1, 1]).known(Tensor::from_f32s([1], &[2.0])),
        case("Pad")
            .random(I64, &[2, 3])
            .list(&[1, 0, 0, 2])
            .known(Tensor::from_i64s([], &[i64::MAX])),
        case("Pad").f32(&[2, 3]).list(&[1, 0, 0, 2]).given(scalar(F32, 0.1)),
        case("Pad").random(Bool, &[2]).list(&[1, 1]).known(scalar(Bool, 1.0)),
        case("Pad")
            .opset(10)
            .attr("pads", ints(&[1, -1]))
            .attr("value", Attribute::Float(0.1))
            .f32(&[3]),
    ]);
}

fn gathers(cases: &mut Vec<Case>) {
    cases.extend([
        case("Gather").f32(&[5, 3]).indices(&[2, 2], &[0, -1, 4, -5]),
        case("Gather").attr("axis", int(1)).f32(&[2, 5, 3]).indices(&[3], &[1, 2, 3]),
        case("Gather").attr("axis", int(-1)).random(I64, &[2, 5]).indices(&[], &[-2]),
        case("Gather").f32(&[5, 3]).indices(&[0], &[]),
        case("Gather").f32(&[5, 0]).indices(&[2], &[1, 1]),
        case("Gather").f32(&[5, 3]).given(Tensor::from_ints(Type::new(I32, [2]), [4, 3])),
        case("GatherElements").f32(&[3, 4]).indices(&[2, 3], &[0, 1, 2, -1, -3, 0]),
        case("GatherElements")
            .attr("axis", int(1))
            .f32(&[3, 4])
            .indices(&[2, 5], &[0, 1, 2, 3, -4, 1, 1, 0, -1, 2]),
        case("GatherElements").attr("axis", int(-1)).random(U8, &[2, 1, 3]).range(
            I32,
            &[2, 1, 4],
            -3.0,
            2.0,
        ),
        case("GatherElements").f32(&[3, 4]).indices(&[0, 4], &[]),
        case("GatherElements").f32(&[3]).indices(&[2], &[2, 0]),
        case("GatherND").f32(&[3, 4]).indices(&[3, 2], &[0, 1, 2, -1, -3, 0]),
        case("GatherND").f32(&[3, 4, 2]).indices(&[2, 1], &[2, -1]),
        case("GatherND").f32(&[3, 4]).indices(&[2], &[2, -1]),
        case("GatherND")
            .attr("batch_dims", int(1))
            .f32(&[2, 3, 4])
            .indices(&[2, 2, 1], &[0, -1, 1, 2]),
        case("GatherND")
            .attr("batch_dims", int(2))
            .random(Bool, &[2, 2, 4])
            .indices(&[2, 2, 1], &[0, -1, 1, 2]),
        case("GatherND").f32(&[3, 0]).indices(&[2, 1], &[1, 2]),
        case("GatherND").f32(&[3, 4]).indices(&[0, 2], &[]),
    ]);
    for axis in [-1, 0, 1] {
        let hot = || case("OneHot").attr("axis", int(axis));
        let values = Tensor::from_f32s([2], &[-1.0, 5.0]);
        let indices = hot().indices(&[2, 3], &[0, 2, -1, -4, 4, 9]);
        cases.push(indices.known(Tensor::from_i64s([1], &[4])).given(values.clone()));
        let floats = hot().given(Tensor::from_f32s([3], &[1.0, -2.0, 3.0]));
        cases.push(floats.known(scalar(F32, 3.0)).given(Tensor::from_i64s([2], &[2, 3])));
        cases.push(hot().indices(&[0], &[]).known(scalar(I32, 3.0)).given(values));
    }
}

fn choices(cases: &mut Vec<Case>) {
    for condition in [0.0, 1.0] {
        let choice = || case("If").results(2).given(scalar(Bool, condition));
        cases.push(choice().f32(&[2]).random(I64, &[]).f32(&[2]).random(I64, &[]));
    }
    cases.push(case("If").f32(&[2, 3]));
    cases.push(case("rlx:Align").attr("axis", int(1)).f32(&[2, 3, 4]).f32(&[3]));
    cases.push(case("rlx:Align").attr("axis", int(-2)).f32(&[2, 3, 4]).f32(&[3, 4]));
}

fn scatters(cases: &mut Vec<Case>) {
    for how in ["none", "add", "mul", "max", "min"] {
        let elements = || case("ScatterElements").attr("reduction", text(how));
        let nd = || case("ScatterND").attr("reduction", text(how));
        cases.extend([
            elements().f32(&[3, 4]).indices(&[2, 3], &[0, 1, 2, -1, -3, 0]).f32(&[2, 3]),
            elements()
                .attr("axis", int(-1))
                .random(I32, &[3, 4])
                .indices(&[2, 5], &[0, 1, 1, 1, -4, 1, 1, 0, -1, 2])
                .random(I32, &[2, 5]),
            elements()
                .attr("axis", int(1))
                .random(U8, &[2, 3, 4])
                .indices(&[2, 2, 4], &[[2; 4], [-3; 4], [1; 4], [1; 4]].concat())
                .random(U8, &[2, 2, 4]),
            elements().attr("axis", int(1)).f32(&[2, 3]).indices(&[2, 0], &[]).f32(&[2, 0]),
            elements().random(U64, &[3]).indices(&[2], &[-1, 2]).random(U64, &[2]),
            nd().f32(&[3, 4]).indices(&[3, 2], &[0, 1, 2, -1, 0, 1]).f32(&[3]),
            nd().random(F64, &[3, 4, 2])
                .indices(&[2, 2, 1], &[2, -1, 0, 0])
                .random(F64, &[2, 2, 4, 2]),
            nd().f32(&[3, 4]).indices(&[2], &[2, -1]).f32(&[]),
            nd().f32(&[3, 4]).indices(&[0, 1], &[]).f32(&[0, 4]),
            nd().f32(&[3, 4]).indices(&[2, 1], &[1, 2]).f32(&[2, 4]),
            nd().f32(&[3, 4]).indices(&[2, 2, 2], &[0, 1, 0, 2, 1, 1, 1, 2]).f32(&[2, 2]),
            nd().f32(&[2, 0]).indices(&[1, 1], &[1]).f32(&[1, 0]),
        ]);
    }
    let nan = Tensor::from_f32s([3], &[f32::NAN, 1.0, -0.0]);
    let max = case("ScatterElements").attr("reduction", text("max"));
    cases.push(max.given(nan.clone()).indices(&[3], &[0, 1, 1]).given(nan));
    cases.push(
        case("Scatter").opset(9).random(Bool, &[3]).indices(&[2], &[1, 1]).random(Bool, &[2]),
    );
}

fn orders(cases: &mut Vec<Case>) {
    for largest in [0, 1] {
        let top = || case("TopK").results(2).attr("largest", int(largest));
        for k in [0, 1, 2, 5] {
            cases.push(top().f32(&[3, 5]).list(&[k]));
            cases.push(top().attr("axis", int(1)).random(I8, &[2, 5, 3]).list(&[k]));
        }
        cases.push(top().attr("axis", int(0)).range(U64, &[40, 2], 0.0, 9.0).list(&[17]));
        let special = [f32::NAN, -0.0, f32::INFINITY, 0.0, f32::NAN, f32::NEG_INFINITY];
        cases.push(top().given(Tensor::from_f32s([6], &special)).list(&[6]));
    }
    cases.push(case("TopK").results(2).opset(1).attr("k", int(2)).f32(&[2, 3]));
}

fn samples(cases: &mut Vec<Case>) {
    for mode in ["linear", "nearest", "cubic"] {
        for padding in ["zeros", "border", "reflection"] {
            for align in [0, 1] {
                let sample = || {
                    let sample = case("GridSample").attr("mode", text(mode));
                    sample.attr("padding_mode", text(padding)).attr("align_corners", int(align))
                };
                cases.push(sample().f32(&[2, 3, 4, 5]).range(F32, &[2, 3, 4, 2], -1.7, 1.7));
                cases.push(sample().f32(&[1, 2, 6]).range(F32, &[1, 5, 1], -4.0, 4.0));
                cases.push(sample().random(F64, &[1, 1, 2, 3]).range(
                    F64,
                    &[1, 2, 2, 2],
                    -1.0,
                    1.0,
                ));
                if mode != "cubic" {
                    cases.push(sample().f32(&[1, 2, 2, 3, 4]).range(
                        F32,
                        &[1, 2, 1, 3, 3],
                        -1.5,
                        1.5,
                    ));
                }
            }
        }
    }
    cases.push(case("GridSample").f32(&[1, 2, 2, 3]).f32(&[1, 0, 2, 2]));
}

fn scans(cases: &mut Vec<Case>) {
    for name in ["CumSum", "CumProd"] {
        for (exclusive, reverse) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let scan =
                || case(name).attr("exclusive", int(exclusive)).attr("reverse", int(reverse));
            cases.push(scan().f32(&[2, 7, 3]).known(Tensor::from_i64s([], &[1])));
            cases.push(scan().random(I32, &[5]).list(&[-1]));
            cases.push(scan().f32(&[1, 2]).list(&[0]));
            cases.push(scan().f32(&[0, 2]).list(&[0]));
            cases.push(scan().random(U64, &[2, 0]).list(&[0]));
        }
    }
}

fn sequences(cases: &mut Vec<Case>) {
    for (time, batch) in [(0, 1), (1, 0)] {
        let reverse =
            || case("ReverseSequence").attr("time_axis", int(time)).attr("batch_axis", int(batch));
        cases.push(reverse().f32(&[3, 3, 2]).indices(&[3], &[1, 3, 2]));
        cases.push(reverse().random(I64, &[3, 3]).indices(&[3], &[0, 3, 2]));
    }
    cases.extend([
        case("CenterCropPad").f32(&[20, 7]).list(&[10, 10]),
        case("CenterCropPad").f32(&[5, 4, 3]).attr("axes", ints(&[-1, 0])).list(&[6, 2]),
        case("CenterCropPad").random(Bool, &[2, 0]).list(&[0, 3]),
    ]);
}
