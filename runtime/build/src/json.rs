//! JSON, as much as a manifest needs: no fractions, no negative numbers.

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(u64),
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

const MOST_DEPTH: u32 = 32;

impl Value {
    /// The value that `text` is.
    pub(crate) fn parse(text: &str) -> Result<Value, String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0);
        reader.skip_space();
        match value {
            Some(value) if reader.at == text.len() => Ok(value),
            _ => {
                let line = text.as_bytes()[..reader.at.min(text.len())]
                    .iter()
                    .filter(|&&byte| byte == b'\n')
                    .count();
                Err(format!("line {} is not the JSON that is expected", line + 1))
            }
        }
    }

    /// A member of an object.
    pub(crate) fn get(&self, name: &str) -> Result<&Value, String> {
        match self {
            Value::Object(members) => {
                members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
        .ok_or_else(|| format!("there is no {name:?}"))
    }

    pub(crate) fn number(&self) -> Result<u64, String> {
        match self {
            Value::Number(number) => Ok(*number),
            other => Err(format!("{other:?} is not a number")),
        }
    }

    pub(crate) fn string(&self) -> Result<&str, String> {
        match self {
            Value::String(string) => Ok(string),
            other => Err(format!("{other:?} is not a string")),
        }
    }

    pub(crate) fn array(&self) -> Result<&[Value], String> {
        match self {
            Value::Array(values) => Ok(values),
            other => Err(format!("{other:?} is not an array")),
        }
    }
}

/// Reads from the front; `None` at the first byte that does not fit.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn take(&mut self, word: &str) -> Option<()> {
        self.skip_space();
        self.rest().starts_with(word).then(|| self.at += word.len())
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        self.skip_space();
        if depth > MOST_DEPTH {
            return None;
        }
        match self.rest().as_bytes().first()? {
            b'n' => self.take("null").map(|()| Value::Null),
            b't' => self.take("true").map(|()| Value::Bool(true)),
            b'f' => self.take("false").map(|()| Value::Bool(false)),
            b'"' => self.string().map(Value::String),
            b'[' => {
                let mut values = Vec::new();
                self.sequence("[", "]", |reader| {
                    values.push(reader.value(depth + 1)?);
                    Some(())
                })?;
                Some(Value::Array(values))
            }
            b'{' => {
                let mut members = Vec::new();
                self.sequence("{", "}", |reader| {
                    let name = reader.string()?;
                    reader.take(":")?;
                    members.push((name, reader.value(depth + 1)?));
                    Some(())
                })?;
                Some(Value::Object(members))
            }
            _ => {
                let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
                let number = self.rest()[..digits].parse().ok()?;
                self.at += digits;
                Some(Value::Number(number))
            }
        }
    }

    fn sequence(
        &mut self,
        open: &str,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.take(open)?;
        if self.take(close).is_some() {
            return Some(());
        }
        loop {
            item(self)?;
            if self.take(close).is_some() {
                return Some(());
            }
            self.take(",")?;
        }
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut string = String::new();
        loop {
            let c = self.rest().chars().next()?;
            self.at += c.len_utf8();
            match c {
                '"' => return Some(string),
                '\\' => string.push(self.escape()?),
                '\0'..='\x1f' => return None,
                c => string.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(match c {
            '"' | '\\' | '/' => c,
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => match self.hex()? {
                high @ 0xd800..0xdc00 => {
                    self.rest().starts_with("\\u").then(|| self.at += 2)?;
                    let low = self.hex().filter(|low| (0xdc00..0xe000).contains(low))?;
                    char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
                }
                code => char::from_u32(code)?,
            },
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self
            .rest()
            .get(..4)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        let code = u32::from_str_radix(digits, 16).ok()?;
        self.at += 4;
        Some(code)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let text = r#" { "a" : [ 1 , [ ] , {} , true , false , null ] , "\u00e9\ud83d\ude00\n" : "x\"\\" } "#;
        let Value::Object(members) = Value::parse(text).unwrap() else { panic!() };
        assert_eq!(members[0].1.array().unwrap().len(), 6);
        assert_eq!(members[1], ("é😀\n".into(), Value::String("x\"\\".into())));
    }

    #[test]
    fn what_is_refused() {
        let deep = "[".repeat(100_000);
        let big = "18446744073709551616";
        for text in [
            "",
            "{",
            "{}}",
            "[1,]",
            "{\"a\"}",
            "-1",
            "1.5",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\n\"",
            "nul",
            big,
            &deep,
        ] {
            assert!(Value::parse(text).is_err(), "{text}");
        }
        assert_eq!(Value::parse("{\n\n!").unwrap_err(), "line 3 is not the JSON that is expected");
    }
}
