//! Files on the way in: small ones are read, large ones mapped; both are [`Bytes`] that tensors share.

use crate::error::{ErrorKind, nearest};
use bytes::Bytes;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

/// From this size on a file is mapped and not read: weights are then never copied.
const MAPPED_FROM: u64 = 64 << 20;

/// The bytes of a file.
///
/// # Errors
///
/// When it is not there, is not a regular file, or cannot be read.
pub(super) fn bytes(path: &Path) -> Result<Bytes, ErrorKind> {
    let failed = |e: std::io::Error| {
        let kind = ErrorKind::io(format!("\"{}\" cannot be read: {e}", path.display()));
        match e.kind() {
            std::io::ErrorKind::NotFound => {
                ErrorKind::io(format!("there is no file \"{}\"", path.display()))
            }
            _ => kind,
        }
    };
    // Asked before it is opened: opening a pipe would wait for a writer.
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return Err(ErrorKind::io(format!("\"{}\" is a directory", path.display())));
    }
    if !metadata.is_file() {
        return Err(ErrorKind::io(format!("\"{}\" is not a regular file", path.display())));
    }
    if metadata.len() < MAPPED_FROM {
        return fs::read(path).map(Bytes::from).map_err(failed);
    }
    File::open(path).and_then(|file| map(&file)).map_err(failed)
}

/// The bytes of a file that a person has named: an error says what may have been meant.
///
/// # Errors
///
/// As [`bytes`].
pub(super) fn named(path: &Path) -> Result<Bytes, ErrorKind> {
    bytes(path).map_err(|kind| match meant(path) {
        Some(help) => kind.help(help),
        None => kind,
    })
}

/// Where the way to a file ends, or what is there instead of it.
fn meant(path: &Path) -> Option<String> {
    if path.is_dir() {
        let names = names(path);
        let model = names.iter().find(|name| name.ends_with(".onnx"))?;
        return Some(format!("name a file in it: {}", path.join(model).display()));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if path.exists() {
        return None;
    }
    if !folder.is_dir() {
        return Some(format!("there is no folder \"{}\"", folder.display()));
    }
    let (name, names) = (path.file_name()?.to_string_lossy(), names(folder));
    let near = nearest(&name, names.iter().map(String::as_str))?;
    Some(format!("did you mean \"{}\"?", path.with_file_name(near).display()))
}

/// The names of what is in a folder, sorted, as far as it can be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// The file as memory. Whoever cuts it off while the compiler runs gets a signal (SIGBUS) for an answer.
#[expect(unsafe_code, reason = "no safe interface to memory maps exists")]
fn map(file: &File) -> std::io::Result<Bytes> {
    // SAFETY: the map is private and read-only, and lives as long as the bytes that own it. A file that
    // another process changes meanwhile gives other weights; they are only ever taken as plain bytes.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}

/// The file that a model calls `location`, in the model's `folder`.
///
/// # Errors
///
/// When `location` could lead out of the folder: an absolute path, one with `..`, or a link.
fn inside(folder: &Path, location: &str) -> Result<PathBuf, ErrorKind> {
    let leaves = |why: &str| {
        ErrorKind::wrong(format!("the file \"{location}\" {why}"))
            .help("files beside a model must be inside its folder")
    };
    let relative = Path::new(location);
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || location.contains('\0') {
        return Err(leaves("has no usable name"));
    }
    // A model may have been written on Windows: its separator and drives lead nowhere good either.
    if !relative.components().all(plain) || location.contains('\\') || location.contains(':') {
        return Err(leaves("is not named by a plain relative path"));
    }
    let path = folder.join(relative);
    let missing = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => {
            ErrorKind::io(format!("there is no file \"{location}\" in the model's folder"))
                .help("the model keeps tensors in that file: copy it to where the model is")
        }
        _ => ErrorKind::io(format!("\"{location}\" cannot be read: {e}")),
    };
    let home = fs::canonicalize(folder).map_err(missing)?;
    if !fs::canonicalize(&path).map_err(missing)?.starts_with(home) {
        return Err(leaves("is a link that leads out of the model's folder"));
    }
    Ok(path)
}

/// Where the files that a model refers to are, and which of them were read.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// None for a model that comes from memory: it can refer to nothing.
    path: Option<PathBuf>,
    files: std::collections::BTreeMap<PathBuf, Bytes>,
}

impl Folder {
    /// The folder of this model file; without one, nothing can be referred to.
    pub(super) fn of(model: Option<&Path>) -> Folder {
        let parent = |model: &Path| match model.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Folder { path: model.map(parent), files: Default::default() }
    }

    /// The bytes of the file called `location`; each file is opened once.
    ///
    /// # Errors
    ///
    /// Those of [`inside`] and [`bytes`].
    pub(super) fn open(&mut self, location: &str) -> Result<Bytes, ErrorKind> {
        let Some(folder) = &self.path else {
            let kind = ErrorKind::wrong(format!("the model refers to the file \"{location}\""));
            return Err(kind.help("a model that does not come from a file has no folder"));
        };
        let path = inside(folder, location)?;
        if let Some(found) = self.files.get(&path) {
            return Ok(found.clone());
        }
        let data = bytes(&path)?;
        self.files.insert(path, data.clone());
        Ok(data)
    }

    /// The files that were read, sorted.
    pub(super) fn into_files(self) -> Vec<PathBuf> {
        self.files.into_keys().collect()
    }
}
