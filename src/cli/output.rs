//! Writing results: to standard output, and to files that are there whole or not at all.

use super::{Failure, Outcome};
use rlx_aot::compile::Times;
use rlx_aot::error::ErrorKind;
use rlx_aot::fit::Price;
use rlx_aot::lir::SLACK_BYTES;
pub(crate) use rlx_aot::report::bytes;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

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
/// standard output, and what is there and no file (a pipe, a device) is written as it is.
pub(crate) fn write(
    path: &Path,
    contents: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ErrorKind> {
    let failed = |e: io::Error| ErrorKind::io(format!("{}: {e}", path.display()));
    if path.as_os_str() == "-" {
        let mut out = io::stdout().lock();
        return contents(&mut out).and_then(|()| out.flush()).map_err(failed);
    }
    let buffered = |file: &mut File| {
        let mut to = io::BufWriter::with_capacity(1 << 20, file);
        contents(&mut to).and_then(|()| to.flush())
    };
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => {
            return Err(ErrorKind::io(format!("{}: it is a directory", path.display()))
                .help("give the name of a file: -o model.o"));
        }
        Ok(there) if !there.is_file() => {
            let opened = File::options().write(true).open(path);
            return opened.and_then(|mut file| buffered(&mut file)).map_err(failed);
        }
        Ok(_) | Err(_) => {}
    }
    // What a link leads to is replaced, not the link.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = temporary().tempfile_in(folder).map_err(|e| {
        let kind = failed(e);
        if folder.is_dir() {
            kind
        } else {
            kind.help(format!("the folder {} does not exist", folder.display()))
        }
    })?;
    buffered(file.as_file_mut()).map_err(failed)?;
    file.persist(&target).map(drop).map_err(|e| failed(e.error))
}

/// Temporary files would be the owner's alone; what was asked for is made as any other file.
fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".rlx-aot-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

/// What it cost to fit into an arena, in one line.
pub(crate) fn price(price: &Price) -> String {
    let Price { plain, regions, working, again, over, steps: [before, after], time } = price;
    let count = |n: usize, one: &str, more: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{n} {more}")),
    };
    let chains = count(*regions, "chain of steps in bands", "chains of steps in bands");
    let working =
        count(*working, "step with less working memory", "steps with less working memory");
    let again = count(*again, "step computed again", "steps computed again");
    let over = count(
        *over,
        "step by one thread, over an operand",
        "steps by one thread each, over operands",
    );
    let what = chains.into_iter().chain(working).chain(again).chain(over);
    let what: Vec<String> = what.collect();
    format!(
        "{}, for an arena of less than {}: {after} steps instead of {before}, some {:.0} % more work",
        what.join(", "),
        bytes(plain + SLACK_BYTES),
        (time - 1.0).max(0.0) * 100.0,
    )
}

/// How long it took to read a model and to plan it.
pub(crate) fn times(reading: Duration, times: &Times) -> String {
    let [reading, passes, planning] =
        [reading, times.passes, times.planning].map(|time| duration(time.as_secs_f64()));
    format!("read in {reading}, passes {passes}, planned in {planning}")
}

/// A time for people.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.2} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::os::unix::fs::FileTypeExt;

    #[test]
    fn a_pipe_is_written_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write(&pipe, |to| to.write_all(b"object")).unwrap();
        assert_eq!(reader.join().unwrap(), b"object");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, |to| to.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "old").unwrap();
        write(&file, |to| to.write_all(b"half").and(Err(io::Error::other("full")))).unwrap_err();
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
