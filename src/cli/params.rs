//! Where another plan has its parameters, from what was written of it.

use rlx_aot::error::ErrorKind;
use rlx_aot::lir::permanent::Fixed;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The parameters in a manifest, in a lowered module as JSON, or in what `plan --json` prints, by their names.
///
/// # Errors
///
/// A file that cannot be read, or is none of these, or has no parameters.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, Fixed>, ErrorKind> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| ErrorKind::io(failed(&e)))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| ErrorKind::wrong(failed(&e)))?;
    let found = of_manifest(&value).or_else(|| of_module(&value)).or_else(|| of_report(&value));
    let found = found.ok_or_else(|| {
        let kind = ErrorKind::wrong(failed(&"it says nothing of a plan's parameters"));
        kind.help("write the other model's with: build --emit obj,header,manifest")
    })?;
    if found.is_empty() {
        let kind = ErrorKind::wrong(failed(&"the plan has no parameters"));
        return Err(kind
            .help("parameters are what a model gets at run time; those with values are weights"));
    }
    Ok(found)
}

fn of_manifest(value: &Value) -> Option<BTreeMap<String, Fixed>> {
    let parameter = |tensor: &Value| {
        let fixed = Fixed { offset: tensor["offset"].as_u64()?, bytes: tensor["bytes"].as_u64()? };
        Some((tensor["name"].as_str()?.to_owned(), fixed))
    };
    value["params"].as_array()?.iter().map(parameter).collect()
}

fn of_module(value: &Value) -> Option<BTreeMap<String, Fixed>> {
    let parameter = |port: &Value| {
        let buffer = port["buffer"].as_u64()?;
        let bytes = value["buffers"][usize::try_from(buffer).ok()?]["bytes"].as_u64()?;
        let offset = value["plan"]["slots"][buffer.to_string()].as_u64()?;
        Some((port["name"].as_str()?.to_owned(), Fixed { offset, bytes }))
    };
    value["io"]["parameters"].as_array()?.iter().map(parameter).collect()
}

fn of_report(value: &Value) -> Option<BTreeMap<String, Fixed>> {
    let buffers = value["buffers"].as_array()?.iter();
    let parameters = buffers.filter(|buffer| buffer["kind"] == "parameter");
    let parameter = |buffer: &Value| {
        let fixed = Fixed { offset: buffer["offset"].as_u64()?, bytes: buffer["bytes"].as_u64()? };
        Some((buffer["name"].as_str()?.to_owned(), fixed))
    };
    parameters.map(parameter).collect()
}
