//! Static libraries: the common archive format with GNU's symbol table, for one object.
//!
//! Dates, owners and modes are zero, so that equal objects give equal archives.

use super::object::Object;
use crate::error::ErrorKind;
use std::fmt::Write;

/// A static library with this object in it, called `<prefix>.o`.
///
/// # Errors
///
/// As [`Object::to_bytes`].
pub fn archive(object: &Object) -> Result<Vec<u8>, ErrorKind> {
    let bytes = object.to_bytes()?;
    let symbols = object.exports();
    // The table: how many symbols, where each one's member begins, their names.
    let names: String = symbols.iter().fold(String::new(), |all, name| all + name + "\0");
    let table = (4 + 4 * symbols.len() + names.len()).next_multiple_of(2);
    let member = MAGIC.len() + HEADER + table;
    let member = u32::try_from(member).map_err(|_| ErrorKind::bug("a huge symbol table"))?;
    let mut file = Vec::with_capacity(member as usize + HEADER + bytes.len() + 1);
    file.extend(MAGIC);
    file.extend(header("/", table).bytes());
    file.extend((symbols.len() as u32).to_be_bytes());
    symbols.iter().for_each(|_| file.extend(member.to_be_bytes()));
    file.extend(names.bytes());
    file.resize(member as usize, 0);
    // Names of up to 15 characters stand in the header.
    let name: String = object.contract.prefix.chars().take(13).collect();
    file.extend(header(&format!("{name}.o/"), bytes.len()).bytes());
    file.extend(&bytes);
    if bytes.len() % 2 == 1 {
        file.push(b'\n');
    }
    Ok(file)
}

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;

fn header(name: &str, size: usize) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`", 0, 0, 0, 644);
    text
}
