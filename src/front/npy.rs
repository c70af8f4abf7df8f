//! NumPy's array files, versions 1 to 3 (numpy.org/neps/nep-0001-npy-format.html).
//!
//! The header is a Python literal; it is read by a grammar that knows the three keys and nothing else.

use super::onnx::exactly;
use crate::error::ErrorKind;
use crate::tensor::{Tensor, for_each_index};
use crate::types::{DType, Type};
use bytes::Bytes;

const MAGIC: &[u8] = b"\x93NUMPY";

/// The array in these bytes: of any byte order and layout, converted to ours.
///
/// # Errors
///
/// Bytes that are no array, elements that are not ours, and a wrong number of them.
pub fn read(data: &Bytes) -> Result<Tensor, ErrorKind> {
    let Header { dtype, big_endian, fortran, dims, start } = header(data)?;
    let shown = format!("{dtype}{dims:?}");
    let ty = Type::try_new(dtype, dims)
        .ok_or_else(|| ErrorKind::limit(format!("{shown} is too large")))?;
    let mut data = data.slice(start..);
    if big_endian && dtype.bytes() > 1 {
        let swapped = data.chunks(dtype.bytes()).flat_map(|e| e.iter().rev().copied());
        data = swapped.collect();
    }
    if !fortran || ty.rank() < 2 {
        return exactly(ty, data);
    }
    // The first axis runs fastest: the transpose of the array with the axes reversed.
    let reversed: Vec<usize> = ty.dims.iter().rev().copied().collect();
    let strides = crate::types::strides(&reversed);
    let source = exactly(ty.with_dims(reversed), data)?;
    let mut rows = Vec::with_capacity(ty.bytes());
    for_each_index(&ty.dims, |index| {
        let at: i64 = index.iter().rev().zip(&strides).map(|(&i, stride)| i as i64 * stride).sum();
        rows.extend_from_slice(source.element(at as usize));
    });
    exactly(ty, rows.into())
}

/// The array as a file of version 1. `BF16`, which NumPy does not have, is written as `u16` bits.
pub fn write(tensor: &Tensor) -> Vec<u8> {
    let code = CODES.iter().find(|(dtype, _)| *dtype == tensor.ty().dtype).map_or("u2", |(_, c)| c);
    let order = if tensor.ty().dtype.bytes() == 1 { '|' } else { '<' };
    let dims: Vec<_> = tensor.dims().iter().map(usize::to_string).collect();
    let comma = if dims.len() == 1 { "," } else { "" };
    let mut header = format!(
        "{{'descr': '{order}{code}', 'fortran_order': False, 'shape': ({}{comma}), }}",
        dims.join(", ")
    );
    // The elements start at a multiple of 64.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [MAGIC, &[1, 0], &length, header.as_bytes(), tensor.bytes()].concat()
}

/// NumPy's codes, without the byte order.
const CODES: [(DType, &str); 12] = [
    (DType::F32, "f4"),
    (DType::F64, "f8"),
    (DType::F16, "f2"),
    (DType::I8, "i1"),
    (DType::I16, "i2"),
    (DType::I32, "i4"),
    (DType::I64, "i8"),
    (DType::U8, "u1"),
    (DType::U16, "u2"),
    (DType::U32, "u4"),
    (DType::U64, "u8"),
    (DType::Bool, "b1"),
];

struct Header {
    dtype: DType,
    big_endian: bool,
    fortran: bool,
    dims: Vec<usize>,
    /// Where the elements start.
    start: usize,
}

fn header(data: &[u8]) -> Result<Header, ErrorKind> {
    let wrong = |what: &str| ErrorKind::wrong(format!("not a valid .npy file: {what}"));
    let rest = data.strip_prefix(MAGIC).ok_or_else(|| wrong("it does not start as one"))?;
    let (length, before) = match *rest {
        [1, 0, a, b, ..] => (u16::from_le_bytes([a, b]) as usize, MAGIC.len() + 4),
        [2 | 3, 0, a, b, c, d, ..] => (u32::from_le_bytes([a, b, c, d]) as usize, MAGIC.len() + 6),
        [major, minor, ..] => return Err(wrong(&format!("version {major}.{minor}"))),
        _ => return Err(wrong("it is cut off")),
    };
    let start = before.checked_add(length).filter(|&end| end <= data.len());
    let start = start.ok_or_else(|| wrong("its header is cut off"))?;
    let text =
        std::str::from_utf8(&data[before..start]).map_err(|_| wrong("its header is no text"))?;
    let mut literal = Literal(text);
    let (mut descr, mut fortran, mut dims) = (None, None, None);
    let parsed = literal.dict(|key, literal| {
        match key {
            "descr" if descr.is_none() => descr = Some(literal.text()?),
            "fortran_order" if fortran.is_none() => fortran = Some(literal.flag()?),
            "shape" if dims.is_none() => dims = Some(literal.tuple()?),
            _ => return None,
        }
        Some(())
    });
    let (Some(()), Some(descr), Some(fortran), Some(dims)) = (parsed, descr, fortran, dims) else {
        return Err(wrong("its header is not a dictionary of descr, fortran_order and shape"));
    };
    let (order, code) = descr.split_at_checked(1).unwrap_or(("", ""));
    let dtype = CODES.iter().find(|(_, known)| *known == code).map(|(dtype, _)| *dtype);
    let (Some(dtype), "<" | ">" | "|" | "=") = (dtype, order) else {
        return Err(ErrorKind::unsupported(format!("an array with elements of type '{descr}'")));
    };
    Ok(Header { dtype, big_endian: order == ">", fortran, dims, start })
}

/// What is left of the header.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    fn skip(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn dict(&mut self, mut entry: impl FnMut(&str, &mut Literal<'a>) -> Option<()>) -> Option<()> {
        self.skip("{")?;
        while self.skip("}").is_none() {
            let key = self.text()?;
            self.skip(":")?;
            entry(key, self)?;
            if self.skip(",").is_none() {
                self.skip("}")?;
                break;
            }
        }
        self.0.trim().is_empty().then_some(())
    }

    fn text(&mut self) -> Option<&'a str> {
        let quote = if self.skip("'").is_some() { '\'' } else { self.skip("\"").map(|()| '"')? };
        let (text, rest) = self.0.split_once(quote)?;
        self.0 = rest;
        (!text.contains('\\')).then_some(text)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.skip("True") {
            Some(()) => Some(true),
            None => self.skip("False").map(|()| false),
        }
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        self.skip("(")?;
        let mut items = vec![];
        while self.skip(")").is_none() {
            self.0 = self.0.trim_start();
            let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
            items.push(self.0[..end].parse().ok()?);
            self.0 = &self.0[end..];
            // Python 2 wrote long integers with an L.
            let _ = self.skip("L");
            if self.skip(",").is_none() {
                self.skip(")")?;
                // One number in brackets is no tuple.
                return (items.len() > 1).then_some(items);
            }
        }
        Some(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Bytes {
        let header =
            format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data]
            .concat()
            .into()
    }

    #[test]
    fn there_and_back() {
        for dtype in DType::ALL.into_iter().filter(|t| *t != DType::BF16) {
            for dims in [vec![], vec![3], vec![2, 3], vec![0, 4]] {
                let ty = Type::new(dtype, dims);
                let tensor =
                    Tensor::from_ints(ty.clone(), (0..ty.elements() as i64).map(|i| i % 2));
                let written = write(&tensor);
                assert_eq!((written.len() - ty.bytes()) % 64, 0);
                assert_eq!(read(&written.into()).unwrap(), tensor);
            }
        }
    }

    #[test]
    fn layouts() {
        let bytes: Vec<u8> =
            [1, 4, 2, 5, 3, 6].iter().flat_map(|v: &i16| v.to_be_bytes()).collect();
        let tensor = read(&file("'>i2'", "True", "(2, 3)", &bytes)).unwrap();
        assert_eq!((tensor.dims(), tensor.ints()), (&[2, 3][..], vec![1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn refused() {
        for (descr, fortran, shape) in [
            ("'<f4'", "False", "(2)"),
            ("'<f4'", "0", "(2,)"),
            ("'<f4'", "False", "(-2,)"),
            ("'<f4'", "False", "(99999999999999999999,)"),
            ("'<f4'", "False", "(1099511627776, 1099511627776)"),
            ("__import__('os')", "False", "(2,)"),
            ("'|O'", "False", "(1,)"),
            ("[('a', '<f4')]", "False", "(2,)"),
            ("'<f4'", "False", "(3,)"),
            ("'<f4'", "False", "(1,)"),
            ("'<f4', 'descr': '<f4'", "False", "(2,)"),
        ] {
            assert!(read(&file(descr, fortran, shape, &[0; 8])).is_err());
        }
        let whole = write(&Tensor::from_f32s([2], &[1.0, 2.0]));
        for end in 0..whole.len() {
            assert!(read(&Bytes::copy_from_slice(&whole[..end])).is_err());
        }
    }
}
