//! Numbers, lists of them, and attributes, as JSON spells them.

use crate::error::ErrorKind;
use crate::front::of;
use crate::ops::Attribute;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// One element.
#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    /// Beyond `i64`.
    Large(u64),
    Float(f64),
    Bool(bool),
}

/// One element, or lists of as many of them at every depth.
pub(super) struct Data {
    dims: Vec<usize>,
    numbers: Vec<Number>,
}

impl Data {
    /// The elements as a tensor: in lists as its shape says, or in one list.
    pub(super) fn tensor(&self, ty: &Type) -> Result<Tensor, ErrorKind> {
        if self.dims != ty.dims && (self.dims.len() != 1 || self.numbers.len() != ty.elements()) {
            let found = match self.dims[..] {
                [] | [1] => "one".to_owned(),
                [n] => n.to_string(),
                _ => format!("lists of {:?}", self.dims),
            };
            return Err(ErrorKind::wrong(format!(
                "{ty} needs {} elements, and has {found}",
                ty.elements()
            ))
            .help("write them as one list, or as lists in lists as the shape says"));
        }
        let mut data = Vec::with_capacity(ty.bytes());
        for &number in &self.numbers {
            push(&mut data, ty.dtype, number)?;
        }
        super::super::onnx::exactly(ty.clone(), data.into())
    }
}

/// The element, if the type can hold it; floats are rounded.
fn push(data: &mut Vec<u8>, dtype: DType, number: Number) -> Result<(), ErrorKind> {
    use crate::tensor::{push_f64, push_int};
    let (shown, fits) = match number {
        Number::Bool(v) if dtype == DType::Bool => {
            push_int(data, dtype, v.into());
            return Ok(());
        }
        Number::Bool(v) => (v.to_string(), false),
        Number::Int(v) if dtype.is_float() => return push(data, dtype, Number::Float(v as f64)),
        Number::Large(v) if dtype.is_float() => return push(data, dtype, Number::Float(v as f64)),
        Number::Int(v) => (v.to_string(), range(dtype).contains(&v.into())),
        Number::Large(v) => (v.to_string(), range(dtype).contains(&v.into())),
        Number::Float(v) if dtype.is_float() => {
            let start = data.len();
            push_f64(data, dtype, v);
            let finite = crate::tensor::read_f64(dtype, &data[start..]).is_finite();
            if finite || !v.is_finite() {
                return Ok(());
            }
            (format!("{v:?}"), false)
        }
        Number::Float(v) => (format!("{v:?}"), false),
    };
    match number {
        Number::Int(v) if fits => push_int(data, dtype, v),
        // Only a u64 holds it, and takes its bits.
        Number::Large(v) if fits => push_int(data, dtype, v as i64),
        _ => return Err(ErrorKind::wrong(format!("the element {shown} does not fit in {dtype}"))),
    }
    Ok(())
}

/// The integers that an integer type holds.
fn range(dtype: DType) -> std::ops::RangeInclusive<i128> {
    let bits = 8 * dtype.bytes() as u32;
    match dtype {
        DType::Bool => 0..=1,
        _ if dtype.is_signed() => -(1 << (bits - 1))..=(1 << (bits - 1)) - 1,
        _ => 0..=(1 << bits) - 1,
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Data, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

fn one<E>(number: Number) -> Result<Data, E> {
    Ok(Data { dims: vec![], numbers: vec![number] })
}

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, true, false, \"nan\", \"inf\", \"-inf\", or a list of them")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Data, E> {
        one(Number::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Data, E> {
        one(Number::Int(v))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Data, E> {
        one(i64::try_from(v).map_or(Number::Large(v), Number::Int))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Data, E> {
        one(Number::Float(v))
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<Data, E> {
        match v {
            "nan" => one(Number::Float(f64::NAN)),
            "inf" => one(Number::Float(f64::INFINITY)),
            "-inf" => one(Number::Float(f64::NEG_INFINITY)),
            _ => Err(E::invalid_value(de::Unexpected::Str(v), &self)),
        }
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Data, A::Error> {
        let mut data = Data { dims: vec![0], numbers: vec![] };
        while let Some(item) = list.next_element::<Data>()? {
            if data.dims[0] == 0 {
                data.dims.extend(&item.dims);
            } else if data.dims[1..] != item.dims {
                return Err(de::Error::custom("lists of different lengths"));
            }
            data.dims[0] += 1;
            data.numbers.extend(item.numbers);
        }
        Ok(data)
    }
}

/// The attributes of a node.
#[derive(Default)]
pub(super) struct Attributes(BTreeMap<String, Value>);

enum Value {
    Int(i64),
    Float(f64),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
    Tensor(Box<TensorValue>),
}

/// A tensor as an attribute.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorValue {
    dtype: DType,
    shape: Vec<u64>,
    data: Data,
}

impl Attributes {
    /// The attributes as operators take them.
    pub(super) fn values(self) -> Result<BTreeMap<String, Attribute>, ErrorKind> {
        let convert = |(name, value)| {
            let value = match value {
                Value::Int(v) => Attribute::Int(v),
                Value::Float(v) => Attribute::Float(v),
                Value::Text(v) => Attribute::Text(v),
                Value::Ints(v) => Attribute::Ints(v),
                Value::Floats(v) => Attribute::Floats(v),
                Value::Texts(v) => Attribute::Texts(v),
                Value::Tensor(v) => {
                    let dims: Option<Vec<_>> =
                        v.shape.iter().map(|&d| usize::try_from(d).ok()).collect();
                    let ty = dims.and_then(|dims| Type::try_new(v.dtype, dims));
                    let ty = ty.ok_or_else(|| ErrorKind::limit("the tensor is too large"));
                    let tensor = ty.and_then(|ty| v.data.tensor(&ty));
                    Attribute::Tensor(tensor.map_err(|e| of(&format!("attribute \"{name}\""), e))?)
                }
            };
            Ok((name, value))
        };
        self.0.into_iter().map(convert).collect()
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Attributes, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Attributes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of attributes")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
                let mut values = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if values.contains_key(&name) {
                        return Err(de::Error::custom(format!(
                            "attribute \"{name}\" is given twice"
                        )));
                    }
                    values.insert(name, map.next_value()?);
                }
                Ok(Attributes(values))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a number, a text, a list of numbers or of texts, or a tensor {dtype, shape, data}",
        )
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v))
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Value, E> {
        i64::try_from(v).map(Value::Int).map_err(|_| E::custom(format!("{v} is too large")))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Float(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Text(v.to_owned()))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        TensorValue::deserialize(de::value::MapAccessDeserializer::new(map))
            .map(|v| Value::Tensor(Box::new(v)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = vec![];
        while let Some(item) = list.next_element::<Value>()? {
            items.push(item);
        }
        // A list with one float in it is one of floats: 1 and 1.0 are the same number in JSON.
        let ints = items.iter().map(|v| if let Value::Int(v) = v { Some(*v) } else { None });
        if let Some(ints) = ints.collect() {
            return Ok(Value::Ints(ints));
        }
        let float = |v: &Value| match v {
            Value::Int(v) => Some(*v as f64),
            Value::Float(v) => Some(*v),
            _ => None,
        };
        if let Some(floats) = items.iter().map(float).collect() {
            return Ok(Value::Floats(floats));
        }
        let text = |v| if let Value::Text(v) = v { Some(v) } else { None };
        let texts: Option<Vec<_>> = items.into_iter().map(text).collect();
        texts.map(Value::Texts).ok_or_else(|| de::Error::custom("a list of different things"))
    }
}
