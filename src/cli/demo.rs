//! `rlx-aot demo`: a small digit classifier, from the model file to a program that runs.

use super::driver::{self, Driver};
use super::output::{bytes, duration};
use super::progress::Progress;
use super::{Outcome, output};
use rlx_aot::compile::{self, Compiled, Options};
use rlx_aot::error::{Error, ErrorKind, Errors};
use rlx_aot::front::{self, ReadOptions};
use rlx_aot::report::Report;
use rlx_aot::tensor::Tensor;
use rlx_aot::types::{DType, Type};
use std::path::Path;

const MODEL: &str = include_str!("../../examples/quickstart/digits.json");
const WEIGHTS: &[u8] = include_bytes!("../../examples/quickstart/weights.safetensors");
const HELD_OUT: &[u8] = include_bytes!("../../examples/quickstart/held_out.safetensors");

/// Arguments of `rlx-aot demo`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    driver: driver::Args,
}

/// Pictures that are shown.
const SHOWN: usize = 4;
/// Pixels of a side.
const SIDE: usize = 8;

/// Runs the command.
pub(crate) fn run(args: &Args, quiet: bool) -> Outcome {
    let progress = Progress::new(quiet);
    let folder =
        tempfile::tempdir().map_err(|e| ErrorKind::io(format!("temporary folder: {e}")))?;
    let path = folder.path().join("digits.json");
    for (path, data) in
        [(&path, MODEL.as_bytes()), (&folder.path().join("weights.safetensors"), WEIGHTS)]
    {
        output::write(path, |to| to.write_all(data))?;
    }
    let (images, labels) = held_out()?;
    let count = labels.len();
    let pixels: Vec<f32> = images.iter().map(|&p| f32::from(p)).collect();

    // All held-out digits at once for the accuracy, one at a time for the latency.
    let all = compiled(&path, count, &progress)?;
    let outputs = Driver::build(&all, &args.driver, &progress)?.run(
        &[Tensor::from_f32s([count, SIDE * SIDE], &pixels)],
        1,
        1,
    )?;
    let scores = outputs[0].f32s();
    let answers: Vec<u8> = scores.chunks(10).map(best).collect();
    let right = answers.iter().zip(&labels).filter(|(a, l)| a == l).count();
    let one = compiled(&path, 1, &progress)?;
    let driver = Driver::build(&one, &args.driver, &progress)?;
    let first = Tensor::from_f32s([1, SIDE * SIDE], &pixels[..SIDE * SIDE]);
    let measured = driver.start("bench", &[first], &["10".into(), "1000".into(), "0.2".into()])?;
    let measured = driver::parsed(&measured)?;
    drop(progress);

    output::print(pictures(&images, &answers, &scores))?;
    let (plan, contract) = (&one.module.plan, &one.object.contract);
    let median = measured["median_us"].as_f64().unwrap_or(f64::NAN) / 1e6;
    output::print(format!(
        "accuracy  {right} of {count} held-out digits ({:.1} %)\nlatency   {} for one digit\nobject    {} of code, {} of weights, needs an arena of {}\n\n{}",
        100.0 * right as f64 / count as f64,
        duration(median),
        bytes(one.object.code_bytes),
        bytes(contract.weights_size),
        bytes(plan.arena_size),
        Report::new(&one.module, None).table(),
    ))
}

fn compiled(path: &Path, batch: usize, progress: &Progress) -> Result<Compiled, Errors> {
    progress.phase("compiling");
    let source = front::read(path, &ReadOptions::default())?;
    let options = Options {
        prefix: "digits".into(),
        dims: [("batch".to_owned(), batch)].into(),
        ..Options::default()
    };
    compile::compile(source, &options)
}

/// Images, a byte per pixel (0 to 16), and labels.
fn held_out() -> Result<(Vec<u8>, Vec<u8>), Error> {
    let file = safetensors::SafeTensors::deserialize(HELD_OUT)
        .map_err(|e| ErrorKind::bug(format!("the demo's digits: {e}")))?;
    let read = |name: &str, ty: fn(usize) -> Type| {
        let view =
            file.tensor(name).map_err(|e| ErrorKind::bug(format!("the demo's digits: {e}")))?;
        let count = view.shape().first().copied().unwrap_or(0);
        let fits = view.data().len() == ty(count).bytes();
        if fits {
            Ok(view.data().to_vec())
        } else {
            Err(ErrorKind::bug("the demo's digits have another size"))
        }
    };
    let images = read("images", |n| Type::new(DType::U8, [n, SIDE * SIDE]))?;
    let labels = read("labels", |n| Type::new(DType::U8, [n]))?;
    Ok((images, labels))
}

fn best(scores: &[f32]) -> u8 {
    let (i, _) = scores
        .iter()
        .enumerate()
        .fold((0, f32::MIN), |best, (i, &s)| if s > best.1 { (i, s) } else { best });
    i as u8
}

/// The first digits side by side, with what the model says of them.
fn pictures(images: &[u8], answers: &[u8], scores: &[f32]) -> String {
    const SHADES: &[u8] = b" .:-=+*#@";
    let mut text = String::new();
    for y in 0..SIDE {
        for picture in 0..SHOWN {
            for x in 0..SIDE {
                let pixel = images[(picture * SIDE + y) * SIDE + x];
                let shade = char::from(SHADES[usize::from(pixel.min(16)) / 2]);
                text.extend([shade, shade]);
            }
            text.push_str("  ");
        }
        text.push('\n');
    }
    for picture in 0..SHOWN {
        let answer = answers[picture];
        let sure = 100.0 * scores[picture * 10 + usize::from(answer)];
        let says = format!("a {answer} ({sure:.0} %)");
        text += &format!("{says:<18}");
    }
    text + "\n"
}
