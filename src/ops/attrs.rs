//! The attributes of a node, taken one by one; what is left over is an error.

use crate::error::{ErrorKind, nearest};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A text.
    Text(String),
    /// A tensor.
    Tensor(Tensor),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A list of floats.
    Floats(Vec<f64>),
    /// A list of texts.
    Texts(Vec<String>),
    /// Something that is not done, by its name: a graph, a sparse tensor, ...
    Other(&'static str),
}

impl Attribute {
    fn kind(&self) -> &'static str {
        match self {
            Attribute::Int(_) => "an integer",
            Attribute::Float(_) => "a float",
            Attribute::Text(_) => "a text",
            Attribute::Tensor(_) => "a tensor",
            Attribute::Ints(_) => "a list of integers",
            Attribute::Floats(_) => "a list of floats",
            Attribute::Texts(_) => "a list of texts",
            Attribute::Other(what) => what,
        }
    }
}

/// The attributes of a node, and what else its meaning depends on.
#[derive(Clone, Debug)]
pub struct Attrs {
    values: BTreeMap<String, Attribute>,
    /// Names that were asked for, for the message about one that was not.
    asked: Vec<&'static str>,
    /// The version of the operator set.
    opset: i64,
    /// Which of the results are used.
    used: Vec<bool>,
}

/// The operator set that JSON models mean when they do not say.
pub const DEFAULT_OPSET: i64 = 21;

impl Attrs {
    /// The attributes of a node in this version of the operator set; `used` says which results are.
    pub fn new(values: BTreeMap<String, Attribute>, opset: i64, used: Vec<bool>) -> Attrs {
        Attrs { values, asked: vec![], opset, used }
    }

    /// The version of the operator set.
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Whether result `i` is used.
    pub fn is_used(&self, i: usize) -> bool {
        self.used.get(i).copied().unwrap_or(false)
    }

    /// How many results the node names, used or not.
    pub fn outputs(&self) -> usize {
        self.used.len()
    }

    /// Whether there is an attribute of this name.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    fn take(&mut self, name: &'static str) -> Option<Attribute> {
        self.asked.push(name);
        self.values.remove(name)
    }

    /// Takes an attribute that says nothing that matters here.
    pub fn ignore(&mut self, name: &'static str) {
        self.take(name);
    }

    /// An integer, if it is there.
    ///
    /// # Errors
    ///
    /// When the attribute has another type. The same holds for the other methods.
    pub fn int(&mut self, name: &'static str) -> Result<Option<i64>, ErrorKind> {
        match self.take(name) {
            None => Ok(None),
            Some(Attribute::Int(value)) => Ok(Some(value)),
            Some(other) => Err(mistyped(name, "an integer", &other)),
        }
    }

    /// An integer, or `default`.
    #[expect(clippy::missing_errors_doc, reason = "as `int`")]
    pub fn int_or(&mut self, name: &'static str, default: i64) -> Result<i64, ErrorKind> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// 0 or 1 as a flag, or `default`.
    #[expect(clippy::missing_errors_doc, reason = "as `int`")]
    pub fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, ErrorKind> {
        match self.int(name)? {
            None => Ok(default),
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(other) => Err(ErrorKind::wrong(format!(
                "attribute \"{name}\" is {other}, and must be 0 or 1"
            ))),
        }
    }

    /// A float (an integer is taken for one), if it is there.
    #[expect(clippy::missing_errors_doc, reason = "as `int`")]
    pub fn float(&mut self, name: &'static str) -> Result<Option<f64>, ErrorKind> {
        match self.take(name) {
            None => Ok(None),
            Some(Attribute::Float(value)) => Ok(Some(value)),
            Some(Attribute::Int(value)) => Ok(Some(value as f64)),
            Some(other) => Err(mistyped(name, "a float", &other)),
        }
    }

    /// A float, or `default`.
    #[expect(clippy::missing_errors_doc, reason = "as `int`")]
    pub fn float_or(&mut self, name: &'static str, default: f64) -> Result<f64, ErrorKind> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    /// A text, if it is there.
    #[expect(clippy::missing_errors_doc, reason = "as `int`")]
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, ErrorKind> {
        match self.take(name) {
            None => Ok(None),
            Some(Attribute::Text(value)) => Ok(Some(value)),
            Some(other) => Err(mistyped(name, "a text", &other)),
        }
    }

    /// One of these texts, as its index; the first where the attribute is not there.
    #[expect(clippy::missing_errors_doc, reason = "as `int`")]
    pub fn choice(&mut self, name: &'static str, choices: &[&str]) -> Result<usize, ErrorKind> {
        let Some(text) = self.text(name)? else { return Ok(0) };
        choices.iter().position(|c| *c == text).ok_or_else(|| {
            let kind = ErrorKind::wrong(format!("attribute \"{name}\" is \"{text}\""));
            kind.help(format!("it must be one of: {}", choices.join(", ")))
        })
    }

    /// A list of integers (or one integer), if it is there.
    #[expect(clippy::missing_errors_doc, reason = "as `int`")]
    pub fn ints(&mut self, name: &'static str) -> Result<Option<Vec<i64>>, ErrorKind> {
        match self.take(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            // JSON and ONNX write empty lists without saying of what.
            Some(Attribute::Floats(values)) if values.is_empty() => Ok(Some(vec![])),
            Some(other) => Err(mistyped(name, "a list of integers", &other)),
        }
    }

    /// A list of floats, if it is there.
    #[expect(clippy::missing_errors_doc, reason = "as `int`")]
    pub fn floats(&mut self, name: &'static str) -> Result<Option<Vec<f64>>, ErrorKind> {
        match self.take(name) {
            None => Ok(None),
            Some(Attribute::Floats(values)) => Ok(Some(values)),
            Some(Attribute::Ints(values)) => {
                Ok(Some(values.into_iter().map(|v| v as f64).collect()))
            }
            Some(other) => Err(mistyped(name, "a list of floats", &other)),
        }
    }

    /// A list of texts, if it is there.
    #[expect(clippy::missing_errors_doc, reason = "as `int`")]
    pub fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, ErrorKind> {
        match self.take(name) {
            None => Ok(None),
            Some(Attribute::Texts(values)) => Ok(Some(values)),
            Some(Attribute::Ints(values)) if values.is_empty() => Ok(Some(vec![])),
            Some(other) => Err(mistyped(name, "a list of texts", &other)),
        }
    }

    /// A tensor, if it is there.
    #[expect(clippy::missing_errors_doc, reason = "as `int`")]
    pub fn tensor(&mut self, name: &'static str) -> Result<Option<Tensor>, ErrorKind> {
        match self.take(name) {
            None => Ok(None),
            Some(Attribute::Tensor(value)) => Ok(Some(value)),
            Some(other) => Err(mistyped(name, "a tensor", &other)),
        }
    }

    /// What is left over is an error.
    pub(super) fn finish(&self) -> Result<(), ErrorKind> {
        let Some(name) = self.values.keys().next() else { return Ok(()) };
        let kind = ErrorKind::wrong(format!("the operator has no attribute \"{name}\""));
        Err(match nearest(name, self.asked.iter().copied()) {
            Some(near) => kind.help(format!("did you mean \"{near}\"?")),
            None if self.asked.is_empty() => kind.help("it has no attributes"),
            None => kind.help(format!("it has: {}", self.asked.join(", "))),
        })
    }
}

fn mistyped(name: &str, expected: &str, found: &Attribute) -> ErrorKind {
    ErrorKind::wrong(format!("attribute \"{name}\" must be {expected}, and is {}", found.kind()))
}
