//! What commands read besides manifests: events and data, from files and from stdin.

use std::io::Read;
use std::path::Path;

use waypost_core::codes;

use crate::failure::Failure;

/// The path that means stdin.
pub(crate) const STDIN: &str = "-";

/// The most bytes of an event, a batch or data that are read.
const MAX_INPUT_BYTES: u64 = 256 * 1024 * 1024;

/// The content of a file, or of stdin where the path is `-`.
///
/// # Errors
/// It cannot be read, or is larger than an input may be.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    if path == Path::new(STDIN) {
        return read_stdin();
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path);
    read(file.map_err(|error| unreadable(&name, &error.to_string()))?, &name)
}

/// The content of a file whose path is relative to a directory.
///
/// # Errors
/// As [`read_file`].
pub(crate) fn read_beside(directory: &Path, path: &Path) -> Result<Vec<u8>, Failure> {
    let path = directory.join(path);
    let name = path.display().to_string();
    // What a manifest names must not wait for a person, or for another process.
    if std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(unreadable(&name, "it is no file"));
    }
    let file = std::fs::File::open(&path);
    read(file.map_err(|error| unreadable(&name, &error.to_string()))?, &name)
}

/// What stdin holds.
///
/// # Errors
/// As [`read_file`].
pub(crate) fn read_stdin() -> Result<Vec<u8>, Failure> {
    read(std::io::stdin().lock(), "stdin")
}

fn read(from: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    from.take(MAX_INPUT_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(|error| unreadable(name, &error.to_string()))?;
    if content.len() as u64 > MAX_INPUT_BYTES {
        return Err(unreadable(name, &format!("it is larger than {MAX_INPUT_BYTES} bytes")));
    }
    Ok(content)
}

fn unreadable(name: &str, reason: &str) -> Failure {
    Failure::new(codes::INPUT_UNREADABLE, format!("{name} cannot be read: {reason}"))
}
