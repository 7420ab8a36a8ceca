//! Manifest files: found, read, and watched.

mod discovery;
mod watch;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use waypost_core::codes;
use waypost_core::manifest::{MAX_FILE_BYTES, ManifestFile, Manifests, Piece};

use self::discovery::{Found, Root};
pub(crate) use self::watch::Watch;
use crate::failure::Failure;

/// The path that means stdin.
const STDIN: &str = "-";

/// The places that manifests come from.
#[derive(Debug)]
pub(crate) struct Files {
    places: Vec<Place>,
    /// The paths of the last reading: a place that cannot be listed keeps those below it.
    known: Vec<PathBuf>,
    fingerprint: Option<u64>,
}

#[derive(Debug)]
enum Place {
    /// Read again and again.
    Root(Root),
    /// Stdin, or a pipe: read once, and what it said stays.
    Once { path: Arc<str>, content: Vec<u8> },
}

/// One reading of all places.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) manifests: Manifests,
    /// Whether anything is different from the reading before.
    pub(crate) changed: bool,
}

impl Files {
    /// Takes the paths of the command line. Stdin and pipes are read here and never again.
    pub(crate) fn new(paths: &[PathBuf]) -> Result<Self, Failure> {
        let mut places = Vec::with_capacity(paths.len());
        for path in paths {
            if path == Path::new(STDIN) {
                if places
                    .iter()
                    .any(|place| matches!(place, Place::Once { path, .. } if &**path == STDIN_NAME))
                {
                    return Err(Failure::new(
                        codes::INPUT_UNREADABLE,
                        "stdin is given twice: write -f - once",
                    ));
                }
                let content = read_bounded(std::io::stdin().lock()).map_err(|reason| {
                    Failure::new(codes::INPUT_UNREADABLE, format!("stdin cannot be read: {reason}"))
                })?;
                places.push(Place::Once { path: STDIN_NAME.into(), content });
            } else if is_pipe(path) {
                let name: Arc<str> = path.display().to_string().into();
                let content = std::fs::File::open(path).and_then(read_bounded).map_err(|reason| {
                    Failure::new(codes::INPUT_UNREADABLE, format!("{name} cannot be read: {reason}"))
                })?;
                places.push(Place::Once { path: name, content });
            } else {
                places.push(Place::Root(Root::new(path)));
            }
        }
        Ok(Self { places, known: Vec::new(), fingerprint: None })
    }

    /// The paths that can change.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        let root = |place: &Place| match place {
            Place::Root(root) => Some(root.path().to_owned()),
            Place::Once { .. } => None,
        };
        self.places.iter().filter_map(root).collect()
    }

    /// Reads everything, in the order of the command line and of names. What cannot be read is a problem in the
    /// result and never an error of the reading.
    pub(crate) fn read(&mut self) -> Reading {
        let mut hasher = DefaultHasher::new();
        let mut contents: Vec<Content> = Vec::new();
        let mut known = Vec::new();
        let mut seen = discovery::Seen::default();
        for place in &mut self.places {
            match place {
                Place::Once { path, content } => contents.push((Arc::clone(path), Ok(content.clone()))),
                Place::Root(root) => {
                    for Found { path, reason } in root.find(&self.known, &mut seen) {
                        let content = match reason {
                            None => std::fs::File::open(&path)
                                .and_then(read_bounded)
                                .map_err(|reason| reason.to_string()),
                            Some(reason) => Err(reason),
                        };
                        contents.push((path.display().to_string().into(), content));
                        known.push(path);
                    }
                }
            }
        }
        contents.hash(&mut hasher);
        self.known = known;
        let fingerprint = Some(hasher.finish());
        let changed = self.fingerprint != fingerprint;
        self.fingerprint = fingerprint;
        let files = contents.into_iter().map(|(path, content)| match content {
            Ok(content) => read(&path, &content),
            Err(reason) => ManifestFile::unreadable(path, &reason),
        });
        Reading { manifests: Manifests { files: files.collect() }, changed }
    }
}

/// Reads the content of a file: a large one in pieces, on as many threads as there are processors.
fn read(path: &Arc<str>, content: &[u8]) -> ManifestFile {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut pieces = Piece::divide(content, threads.min(MAX_READING_THREADS)).into_iter();
    let first = pieces.next().expect("a content has at least one piece");
    std::thread::scope(|scope| {
        let others: Vec<_> = pieces
            .map(|piece| scope.spawn(move || ManifestFile::read_piece(Arc::clone(path), piece)))
            .collect();
        let first = ManifestFile::read_piece(Arc::clone(path), first);
        // The first error of the text is the error of the file.
        let (Ok(file) | Err(file)) = others.into_iter().fold(first, |file, other| {
            let next = other.join().expect("a manifest is read without a panic");
            Ok(file?.join(next?))
        });
        file
    })
}

/// The most threads that read one file.
const MAX_READING_THREADS: usize = 8;

/// A path, and what it holds or why that cannot be read.
type Content = (Arc<str>, Result<Vec<u8>, String>);

/// How problems name what came from stdin.
const STDIN_NAME: &str = "<stdin>";

/// Reads up to one byte more than a manifest may have: the parser then says that it is too large.
fn read_bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    from.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// Whether a path gives its content only once, as `<(...)` of a shell does.
fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const BROKER: &str = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: default}\n";

    fn paths(reading: &Reading) -> Vec<String> {
        let name =
            |file: &ManifestFile| Path::new(&*file.path).file_name().unwrap().to_str().unwrap().to_owned();
        reading.manifests.files.iter().map(name).collect()
    }

    #[test]
    fn tells_whether_anything_changed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, BROKER).unwrap();
        let mut files = Files::new(&[directory.path().to_owned()]).unwrap();
        assert!(files.read().changed);
        assert!(!files.read().changed);
        fs::write(&file, BROKER.replace("default", "other")).unwrap();
        assert!(files.read().changed);
        fs::remove_file(&file).unwrap();
        let reading = files.read();
        assert!(reading.changed);
        assert!(reading.manifests.files.is_empty());
    }

    #[test]
    fn a_path_that_never_was_is_a_problem_and_one_that_vanished_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        let mut files = Files::new(std::slice::from_ref(&file)).unwrap();
        let reading = files.read();
        assert_eq!(reading.manifests.files[0].problems[0].code, codes::MANIFEST_UNREADABLE);
        fs::write(&file, BROKER).unwrap();
        assert_eq!(paths(&files.read()), ["a.yaml"]);
        fs::remove_file(&file).unwrap();
        assert!(files.read().manifests.files.is_empty());
    }

    #[test]
    fn a_directory_that_vanished_keeps_what_it_declared() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("manifests");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a.yaml"), BROKER).unwrap();
        let mut files = Files::new(std::slice::from_ref(&root)).unwrap();
        assert_eq!(paths(&files.read()), ["a.yaml"]);
        fs::remove_dir_all(&root).unwrap();
        for _ in 0..2 {
            let reading = files.read();
            assert_eq!(paths(&reading), ["a.yaml"]);
            assert!(!reading.manifests.files[0].complete);
        }
    }
}
