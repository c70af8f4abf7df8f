//! Weights that are not in the object.

use crate::Error;
use crate::arena::Memory;
use alloc::sync::Arc;

/// Packed weights of a model that was compiled with `--weights external` or `--weights arena`. Clones share the memory.
///
/// The compiler writes them as a safetensors file with one tensor and the model's fingerprint.
#[derive(Clone, Debug)]
pub struct Weights {
    bytes: Bytes,
    fingerprint: Option<[u8; 32]>,
}

#[derive(Clone, Debug)]
enum Bytes {
    Static(&'static [u8]),
    /// With the length, since memory is never empty.
    Shared(Arc<Memory>, usize),
}

/// What the object's code relies on.
const ALIGN: usize = 64;

impl Weights {
    /// Reads a weights file into memory.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::WeightsFile`], [`Error::WeightsModel`] if it has no fingerprint, and [`Error::OutOfMemory`].
    #[cfg(feature = "std")]
    pub fn read(path: impl AsRef<std::path::Path>) -> Result<Weights, Error> {
        use std::io::Read;
        let path = path.as_ref();
        let io = |error: std::io::Error| Error::Io {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        let mut file = std::fs::File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut length = [0; 8];
        if size < 8 {
            return Err(Error::WeightsFile);
        }
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > size - 8 {
            return Err(Error::WeightsFile);
        }
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header).map_err(io)?;
        let Header { count, fingerprint } = Header::parse(&header)?;
        if count != size - 8 - length {
            return Err(Error::WeightsFile);
        }
        let count = usize::try_from(count).map_err(|_| Error::WeightsFile)?;
        let mut memory = Memory::new(count, ALIGN)?;
        file.read_exact(&mut memory.bytes_mut()[..count]).map_err(io)?;
        Ok(Weights {
            bytes: Bytes::Shared(Arc::new(memory), count),
            fingerprint: Some(fingerprint),
        })
    }

    /// Takes the weights out of a file that is in memory already, by a copy.
    ///
    /// # Errors
    /// [`Error::WeightsFile`], [`Error::WeightsModel`] if it has no fingerprint, and [`Error::OutOfMemory`].
    pub fn from_file_bytes(file: &[u8]) -> Result<Weights, Error> {
        let (length, rest) = file.split_first_chunk::<8>().ok_or(Error::WeightsFile)?;
        let length =
            usize::try_from(u64::from_le_bytes(*length)).map_err(|_| Error::WeightsFile)?;
        let (header, data) = rest.split_at_checked(length).ok_or(Error::WeightsFile)?;
        let Header { count, fingerprint } = Header::parse(header)?;
        if count != data.len() as u64 {
            return Err(Error::WeightsFile);
        }
        Ok(Weights { fingerprint: Some(fingerprint), ..Weights::from_bytes(data)? })
    }

    /// Copies bare weights, without a fingerprint: that they are the model's is for the caller to know.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Weights, Error> {
        let mut memory = Memory::new(bytes.len(), ALIGN)?;
        memory.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(Weights { bytes: Bytes::Shared(Arc::new(memory), bytes.len()), fingerprint: None })
    }

    /// Uses bare weights where they are, as in flash: no copy, no fingerprint.
    ///
    /// # Errors
    /// [`Error::WeightsAlign`] unless they are aligned to 64 bytes.
    pub fn from_static(bytes: &'static [u8]) -> Result<Weights, Error> {
        if bytes.as_ptr().addr().is_multiple_of(ALIGN) {
            Ok(Weights { bytes: Bytes::Static(bytes), fingerprint: None })
        } else {
            Err(Error::WeightsAlign)
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Static(bytes) => bytes,
            Bytes::Shared(memory, length) => &memory.bytes()[..*length],
        }
    }

    pub(crate) fn fingerprint(&self) -> Option<&[u8; 32]> {
        self.fingerprint.as_ref()
    }
}

/// The header of a weights file: JSON of exactly this form, with members in any order.
///
/// ```text
/// {"__metadata__":{"fingerprint":"<64 hex digits>", ...},
///  "weights":{"dtype":"U8","shape":[N],"data_offsets":[0,N]}}
/// ```
struct Header {
    count: u64,
    fingerprint: [u8; 32],
}

impl Header {
    fn parse(text: &[u8]) -> Result<Header, Error> {
        let (count, fingerprint) = Header::members(text).ok_or(Error::WeightsFile)?;
        let fingerprint = fingerprint.and_then(parse_hex).ok_or(Error::WeightsModel)?;
        Ok(Header { count, fingerprint })
    }

    /// The tensor's length and the fingerprint's text.
    fn members(text: &[u8]) -> Option<(u64, Option<&[u8]>)> {
        let mut reader = Reader { rest: text };
        let (mut count, mut fingerprint) = (None, None);
        reader.object(|reader, name| match name {
            b"__metadata__" => reader.object(|reader, name| {
                let value = reader.string()?;
                if name == b"fingerprint" {
                    fingerprint = Some(value);
                }
                Some(())
            }),
            b"weights" if count.is_none() => {
                count = Some(reader.tensor()?);
                Some(())
            }
            _ => None,
        })?;
        reader.skip_space();
        reader.rest.is_empty().then_some((count?, fingerprint))
    }
}

fn parse_hex(text: &[u8]) -> Option<[u8; 32]> {
    let text = core::str::from_utf8(text).ok()?;
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Reads JSON from the front; `None` at the first byte that does not fit.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    /// Escapes stay as they are: what is looked for has none.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let mut length = 0;
        while *self.rest.get(length)? != b'"' {
            length += if self.rest[length] == b'\\' { 2 } else { 1 };
        }
        let (string, rest) = self.rest.split_at(length);
        self.rest = &rest[1..];
        Some(string)
    }

    fn number(&mut self) -> Option<u64> {
        self.skip_space();
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        core::str::from_utf8(number).ok()?.parse().ok()
    }

    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            let name = self.string()?;
            self.take(b':')?;
            member(self, name)?;
            if self.take(b'}').is_some() {
                return Some(());
            }
            self.take(b',')?;
        }
    }

    /// The length of the one tensor.
    fn tensor(&mut self) -> Option<u64> {
        let (mut is_bytes, mut shape, mut range) = (false, None, None);
        self.object(|reader, name| {
            match name {
                b"dtype" => is_bytes = reader.string()? == b"U8",
                b"shape" => {
                    reader.take(b'[')?;
                    shape = Some(reader.number()?);
                    reader.take(b']')?;
                }
                b"data_offsets" => {
                    reader.take(b'[')?;
                    let begin = reader.number()?;
                    reader.take(b',')?;
                    range = Some((begin, reader.number()?));
                    reader.take(b']')?;
                }
                _ => return None,
            }
            Some(())
        })?;
        (is_bytes && range? == (0, shape?)).then_some(shape?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENSOR: &str = r#""weights":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}"#;
    const PRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn file(header: &str) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), b"12345"].concat()
    }

    fn right() -> Vec<u8> {
        file(&format!(
            r#"{{ "__metadata__": {{"a\"}}":"b","fingerprint":"{PRINT}"}}, {TENSOR}}}  "#
        ))
    }

    #[test]
    fn whole_file() {
        let weights = Weights::from_file_bytes(&right()).unwrap();
        assert_eq!(weights.bytes(), b"12345");
        assert_eq!(weights.fingerprint().unwrap()[..3], [0, 0x11, 0x22]);
        assert_eq!(weights.bytes().as_ptr().addr() % ALIGN, 0);
    }

    #[test]
    fn file_cut_at_every_byte() {
        let right = right();
        let path = std::env::temp_dir().join(format!("rlx-weights-{}", std::process::id()));
        for length in 0..right.len() {
            assert_eq!(Weights::from_file_bytes(&right[..length]).unwrap_err(), Error::WeightsFile);
            std::fs::write(&path, &right[..length]).unwrap();
            assert_eq!(Weights::read(&path).unwrap_err(), Error::WeightsFile);
        }
        std::fs::write(&path, &right).unwrap();
        assert_eq!(Weights::read(&path).unwrap().bytes(), b"12345");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Weights::read(&path), Err(Error::Io { .. })));
    }

    #[test]
    fn headers_that_are_refused() {
        for header in [
            "".into(),
            "{}".into(),
            "[]".into(),
            format!("{{{TENSOR},}}"),
            format!("{{{TENSOR}}}}}"),
            format!("{{{TENSOR},{TENSOR}}}"),
            format!(r#"{{{TENSOR},"more":{{"dtype":"U8","shape":[0],"data_offsets":[5,5]}}}}"#),
            TENSOR.replace("U8", "I8"),
            format!("{{{}}}", TENSOR.replace("U8", "I8")),
            format!("{{{}}}", TENSOR.replace("[5]", "[1,5]")),
            format!("{{{}}}", TENSOR.replace("[5]", "[-5]")),
            format!("{{{}}}", TENSOR.replace("[5]", "[18446744073709551621]")),
            format!("{{{}}}", TENSOR.replace("[0,5]", "[1,6]")),
            format!("{{{}}}", TENSOR.replace(r#","shape":[5]"#, "")),
        ] {
            assert_eq!(
                Weights::from_file_bytes(&file(&header)).unwrap_err(),
                Error::WeightsFile,
                "{header}"
            );
        }
        let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
        assert_eq!(Weights::from_file_bytes(&huge).unwrap_err(), Error::WeightsFile);
    }

    #[test]
    fn damaged_headers_do_not_panic() {
        let right = right();
        let mut state = 1u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..100_000 {
            let mut damaged = right.clone();
            for _ in 0..1 + next() % 4 {
                let at = next() as usize % damaged.len();
                damaged[at] = if next() % 2 == 0 {
                    next() as u8
                } else {
                    b"{}[]\":,\\ 01"[next() as usize % 11]
                };
            }
            let _ = Weights::from_file_bytes(&damaged);
        }
    }
}
