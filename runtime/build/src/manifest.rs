//! What `rlx-aot build --emit manifest=FILE` writes: the object's descriptor as JSON.

use crate::json::Value;

/// The descriptor of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    pub(crate) arena_size: u64,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) params: Vec<Tensor>,
    /// How many inputs live between runs.
    pub(crate) states: usize,
    /// Whether the program binds weights.
    pub(crate) binds_weights: bool,
    pub(crate) fingerprint: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: String,
    /// How its elements are seen in Rust.
    pub(crate) element: &'static str,
    pub(crate) shape: Vec<u64>,
    pub(crate) elements: u64,
    /// Whether it is memory of the program.
    pub(crate) outside: bool,
}

/// The only version of the ABI that generated modules are written for.
const ABI: u64 = 1;

impl Manifest {
    pub(crate) fn parse(text: &str) -> Result<Manifest, String> {
        let root = Value::parse(text)?;
        let abi = root.get("abi")?.number()?;
        if abi != ABI {
            return Err(format!("it is for ABI version {abi}, not {ABI}"));
        }
        let tensors = |name: &str| -> Result<Vec<Tensor>, String> {
            root.get(name)?.array()?.iter().map(Tensor::parse).collect()
        };
        let mode = root.get("weights_mode")?.string()?;
        Ok(Manifest {
            name: root.get("name")?.string()?.to_owned(),
            arena_size: root.get("arena_size")?.number()?,
            inputs: tensors("inputs")?,
            outputs: tensors("outputs")?,
            params: tensors("params")?,
            // Older compilers know of none.
            states: root.get("states").map_or(Ok(0), |s| s.array().map(<[Value]>::len))?,
            binds_weights: match mode {
                "none" | "embedded" => false,
                "external" | "arena" => true,
                _ => return Err(format!("{mode:?} is not a place for weights")),
            },
            fingerprint: parse_fingerprint(root.get("fingerprint")?.string()?)
                .ok_or("the fingerprint is damaged")?,
        })
    }
}

impl Tensor {
    fn parse(value: &Value) -> Result<Tensor, String> {
        let dtype = value.get("dtype")?.string()?;
        let element = match dtype {
            "f32" => "f32",
            "f64" => "f64",
            "i8" => "i8",
            "i16" => "i16",
            "i32" => "i32",
            "i64" => "i64",
            "u8" | "bool" => "u8",
            "u16" | "f16" | "bf16" => "u16",
            "u32" => "u32",
            "u64" => "u64",
            _ => return Err(format!("{dtype:?} is not an element type")),
        };
        let shape = value
            .get("shape")?
            .array()?
            .iter()
            .map(Value::number)
            .collect::<Result<Vec<u64>, String>>()?;
        let elements = shape
            .iter()
            .try_fold(1, |product: u64, &dim| product.checked_mul(dim))
            .ok_or_else(|| format!("the shape {shape:?} is out of range"))?;
        Ok(Tensor {
            name: value.get("name")?.string()?.to_owned(),
            dtype: dtype.to_owned(),
            element,
            shape,
            elements,
            // Older compilers know of none.
            outside: value.get("pointer").is_ok_and(|pointer| pointer.number().is_ok()),
        })
    }
}

fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}
