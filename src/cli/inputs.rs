//! Values for a model's inputs: from files, or made up from a seed.

use rlx_aot::error::{ErrorKind, Errors, nearest};
use rlx_aot::front;
use rlx_aot::lir::Port;
use rlx_aot::tensor::Tensor;
use rlx_aot::types::{DType, Type};
use std::path::Path;

/// A value for every port: those of `given` (as `NAME=FILE` or `INDEX=FILE`), the others made up.
///
/// # Errors
///
/// A name that no port has, and a file that does not fit its type.
pub(crate) fn collect(ports: &[&Port], given: &[String], seed: u64) -> Result<Vec<Tensor>, Errors> {
    let mut values: Vec<Option<Tensor>> = vec![None; ports.len()];
    for text in given {
        let (name, file) = text.split_once('=').ok_or_else(|| {
            ErrorKind::usage(format!("--input {text} has no file")).help("write --input NAME=FILE")
        })?;
        let index = match ports.iter().position(|p| p.name == name) {
            Some(index) => index,
            None => match name.parse::<usize>() {
                Ok(index) if index < ports.len() => index,
                _ => return Err(unknown(ports, name).into()),
            },
        };
        values[index] = Some(front::read_tensor(Path::new(file), Some(&ports[index].ty))?);
    }
    let made = |(port, value): (&&Port, Option<Tensor>)| {
        value.unwrap_or_else(|| random(&port.ty, &port.name, seed))
    };
    Ok(ports.iter().zip(values).map(made).collect())
}

fn unknown(ports: &[&Port], name: &str) -> ErrorKind {
    let kind = ErrorKind::usage(format!("the model has no input \"{name}\""));
    let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
    match nearest(name, names.iter().copied()) {
        Some(near) => kind.help(format!("did you mean \"{near}\"?")),
        None => kind.help(format!("it has: {}", names.join(", "))),
    }
}

/// Values that depend on the name and the seed only: floats from -1 to 1, small integers that are
/// valid indices of most tables, zeros and ones.
pub(crate) fn random(ty: &Type, name: &str, seed: u64) -> Tensor {
    let start = name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    let mut state = start;
    // Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014).
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    match ty.dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Tensor::from_f64s(
            ty.clone(),
            (0..ty.elements()).map(|_| (next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0),
        ),
        DType::Bool => {
            Tensor::from_ints(ty.clone(), (0..ty.elements()).map(|_| (next() >> 63) as i64))
        }
        _ => Tensor::from_ints(ty.clone(), (0..ty.elements()).map(|_| (next() >> 61) as i64)),
    }
}
