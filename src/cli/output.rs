//! Writing results: to standard output, and to files that are there whole or not at all.

use super::{Failure, Outcome};
use rlx_aot::error::ErrorKind;
use rlx_aot::fit::Price;
use rlx_aot::lir::SLACK_BYTES;
pub(crate) use rlx_aot::report::bytes;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

/// Prints a line (or several) to standard output. That nobody reads it is no error.
pub(crate) fn print(text: impl Display) -> Outcome {
    let text = text.to_string();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match io::stdout().write_all(format!("{text}{newline}").as_bytes()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Closed),
        Err(e) => Err(ErrorKind::io(format!("standard output: {e}")).into()),
    }
}

/// Writes a file through a temporary one beside it, which is renamed when it is whole. `-` is
/// standard output.
pub(crate) fn write(
    path: &Path,
    contents: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ErrorKind> {
    let failed = |e: io::Error| ErrorKind::io(format!("{}: {e}", path.display()));
    if path.as_os_str() == "-" {
        let mut out = io::stdout().lock();
        return contents(&mut out).and_then(|()| out.flush()).map_err(failed);
    }
    if path.is_dir() {
        return Err(ErrorKind::io(format!("{}: it is a directory", path.display()))
            .help("give the name of a file: -o model.o"));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(".rlx-aot-").tempfile_in(folder).map_err(|e| {
            let kind = failed(e);
            if folder.is_dir() {
                kind
            } else {
                kind.help(format!("the folder {} does not exist", folder.display()))
            }
        })?;
    let mut buffered = io::BufWriter::with_capacity(1 << 20, file.as_file_mut());
    contents(&mut buffered).and_then(|()| buffered.flush()).map_err(failed)?;
    drop(buffered);
    permit(file.as_file()).map_err(failed)?;
    file.persist(path).map(drop).map_err(|e| failed(e.error))
}

/// Temporary files are the owner's alone; what was asked for is made as any other file.
#[cfg(unix)]
fn permit(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn permit(_: &std::fs::File) -> io::Result<()> {
    Ok(())
}

/// What it cost to fit into an arena, in one line.
pub(crate) fn price(price: &Price) -> String {
    let Price { plain, regions, shares, steps: [before, after], time } = price;
    let count = |n: usize, one: &str, more: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{n} {more}")),
    };
    let chains = count(*regions, "chain of steps in bands", "chains of steps in bands");
    let shared = count(*shares, "step for fewer threads", "steps for fewer threads");
    let what: Vec<String> = chains.into_iter().chain(shared).collect();
    format!(
        "{}, for an arena of less than {}: {after} steps instead of {before}, some {:.0} % more work",
        what.join(", "),
        bytes(plain + SLACK_BYTES),
        (time - 1.0).max(0.0) * 100.0,
    )
}

/// A time for people.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.2} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}
