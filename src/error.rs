//! What can go wrong, and where.

use crate::types::{Type, printable};
use std::fmt;

/// What kind of thing went wrong; the command line's exit code follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// The model breaks a rule, or results differ.
    Wrong,
    /// A valid model that this compiler does not do (yet).
    Unsupported,
    /// A limit or budget is exceeded.
    Limit,
    /// Files and other tools.
    Io,
    /// What was asked for on the command line or in the options does not exist.
    Usage,
    /// Our mistake: it should have been found before.
    Bug,
}

impl Class {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Wrong => 1,
            Class::Usage => 2,
            Class::Unsupported => 3,
            Class::Io => 4,
            Class::Limit => 5,
            Class::Bug => 101,
        }
    }
}

/// What is wrong, without where. `help` says what would have been right.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorKind {
    /// Which kind.
    pub class: Class,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// What would have been right, or what to do.
    pub help: Option<String>,
}

impl ErrorKind {
    fn new(class: Class, message: impl Into<String>) -> ErrorKind {
        ErrorKind { class, message: message.into(), help: None }
    }
    /// The model breaks a rule.
    pub fn wrong(message: impl Into<String>) -> ErrorKind {
        ErrorKind::new(Class::Wrong, message)
    }
    /// Valid, and not done by this compiler.
    pub fn unsupported(message: impl Into<String>) -> ErrorKind {
        ErrorKind::new(Class::Unsupported, message)
    }
    /// Over a limit or budget.
    pub fn limit(message: impl Into<String>) -> ErrorKind {
        ErrorKind::new(Class::Limit, message)
    }
    /// A file or another tool failed.
    pub fn io(message: impl Into<String>) -> ErrorKind {
        ErrorKind::new(Class::Io, message)
    }
    /// A flag or option that does not exist or does not fit.
    pub fn usage(message: impl Into<String>) -> ErrorKind {
        ErrorKind::new(Class::Usage, message)
    }
    /// Our mistake.
    pub fn bug(message: impl Into<String>) -> ErrorKind {
        ErrorKind::new(Class::Bug, message)
    }
    /// Adds what would have been right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> ErrorKind {
        self.help = Some(help.into());
        self
    }
}

/// The node that an error is about.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeContext {
    /// Name given by the model.
    pub name: String,
    /// Operator name.
    pub op: String,
    /// Name of each operand, and its type where it is known.
    pub inputs: Vec<(String, Option<Type>)>,
}

/// An error: what is wrong, at which node of which file, and what the node was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorKind,
    /// The file, as the user named it.
    pub file: Option<String>,
    /// The node, if the error is about one.
    pub node: Option<Box<NodeContext>>,
}

impl Error {
    /// The error in this file, if none is named yet.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Error {
        self.file.get_or_insert_with(|| file.into());
        self
    }
    /// The error at this node, if none is named yet.
    #[must_use]
    pub fn at(mut self, node: NodeContext) -> Error {
        self.node.get_or_insert_with(|| Box::new(node));
        self
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Error {
        Error { kind, file: None, node: None }
    }
}

/// One or more errors; independent ones are reported together.
#[derive(Clone, Debug, PartialEq)]
pub struct Errors(pub Vec<Error>);

impl Errors {
    /// The class that decides the exit code: a wrong model before an unsupported one.
    pub fn class(&self) -> Class {
        let order =
            [Class::Bug, Class::Usage, Class::Io, Class::Wrong, Class::Limit, Class::Unsupported];
        let found = |class: &Class| self.0.iter().any(|e| e.kind.class == *class);
        order.into_iter().find(found).unwrap_or(Class::Bug)
    }
    /// The same errors, in this file where none is named.
    #[must_use]
    pub fn in_file(self, file: &str) -> Errors {
        Errors(self.0.into_iter().map(|e| e.in_file(file)).collect())
    }
}

impl From<Error> for Errors {
    fn from(error: Error) -> Errors {
        Errors(vec![error])
    }
}

impl From<ErrorKind> for Errors {
    fn from(kind: ErrorKind) -> Errors {
        Errors(vec![kind.into()])
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.message))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.class {
            Class::Unsupported => {
                let op =
                    self.node.as_ref().map_or(String::new(), |n| format!("{}: ", printable(&n.op)));
                write!(f, "unsupported: {op}{}", self.kind)?;
            }
            Class::Bug => write!(f, "internal error: {}", self.kind)?,
            Class::Wrong | Class::Limit | Class::Io | Class::Usage => {
                write!(f, "error: {}", self.kind)?
            }
        }
        match (&self.node, &self.file) {
            (Some(node), file) => {
                write!(f, "\n --> node \"{}\" ({})", printable(&node.name), printable(&node.op))?;
                if let Some(file) = file {
                    write!(f, ", in {}", printable(file))?;
                }
                for (i, (name, ty)) in node.inputs.iter().enumerate() {
                    let ty = ty.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
                    write!(f, "\n  |  input {i}: \"{}\"  {ty}", printable(name))?;
                }
            }
            (None, Some(file)) => write!(f, "\n --> {}", printable(file))?,
            (None, None) => {}
        }
        if let Some(help) = &self.kind.help {
            write!(f, "\n  = {}", printable(help))?;
        }
        Ok(())
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i > 0 { "\n\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
impl std::error::Error for Errors {}

/// The one of `names` that was probably meant by `word`: the nearest by edits, if it is near.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(64).map(|c| c.to_ascii_lowercase()).collect();
    let limit = (word.len() / 3).max(1);
    let distances = names.into_iter().map(|name| (distance(&word, name), name));
    distances.filter(|(d, _)| *d <= limit).min_by_key(|(d, _)| *d).map(|(_, name)| name)
}

/// Levenshtein's distance, letters without case.
fn distance(word: &[char], name: &str) -> usize {
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (i, c) in name.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, w) in word.iter().enumerate() {
            let change = diagonal + usize::from(c.to_ascii_lowercase() != *w);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[word.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        assert_eq!(nearest("Matmul", ["Gemm", "MatMul", "Mul"]), Some("MatMul"));
        assert_eq!(nearest("Frobnicate", ["Gemm", "MatMul"]), None);
    }
}
