//! Which files a path stands for.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The most directories within each other.
const MAX_DEPTH: usize = 32;
/// The endings of manifests in a directory. A file that is named itself may end in anything.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// What the names of files with events end in, which lie beside the tests that name them.
const EVENT_ENDING: &str = ".event.json";

/// A path of the command line.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// What it was when it was last there.
    was: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
}

/// A file to read, or one that cannot be had, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) reason: Option<String>,
}

/// The files that were found already: a file that two paths lead to is read once.
#[derive(Debug, Default)]
pub(super) struct Seen(HashSet<PathBuf>);

impl Root {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), was: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files of this path now. A named file that was there and is gone is none; a directory that was there
    /// and is gone is rather unmounted than empty, so its `known` files count as unreadable.
    pub(super) fn find(&mut self, known: &[PathBuf], seen: &mut Seen) -> Vec<Found> {
        let mut found = Vec::new();
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => {
                self.was = Some(Kind::Directory);
                let mut walk = Walk { known, seen, found: &mut found, within: Vec::new() };
                walk.directory(&self.path);
            }
            Ok(_) => {
                self.was = Some(Kind::File);
                seen.add(&self.path, &mut found);
            }
            Err(reason) if reason.kind() == io::ErrorKind::NotFound && self.was == Some(Kind::File) => {}
            Err(reason) => unreadable(&self.path, &reason, known, &mut found),
        }
        found
    }
}

impl Seen {
    fn add(&mut self, path: &Path, found: &mut Vec<Found>) {
        let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if self.0.insert(whole) {
            found.push(Found { path: path.to_owned(), reason: None });
        }
    }
}

/// Notes a place that cannot be looked into: the files that were known below it, or else the place itself.
fn unreadable(place: &Path, reason: &io::Error, known: &[PathBuf], found: &mut Vec<Found>) {
    let reason = Some(reason.to_string());
    let before = found.len();
    let below = known.iter().filter(|path| path.starts_with(place));
    found.extend(below.map(|path| Found { path: path.clone(), reason: reason.clone() }));
    if found.len() == before {
        found.push(Found { path: place.to_owned(), reason });
    }
}

struct Walk<'a> {
    known: &'a [PathBuf],
    seen: &'a mut Seen,
    found: &'a mut Vec<Found>,
    /// The directories that lead here, links resolved, so that a link to one of them ends the walk.
    within: Vec<PathBuf>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path) {
        let whole = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        if self.within.len() >= MAX_DEPTH || self.within.contains(&whole) {
            return;
        }
        match entries(directory) {
            Ok(entries) => {
                self.within.push(whole);
                for path in entries {
                    self.entry(&path);
                }
                self.within.pop();
            }
            Err(reason) => unreadable(directory, &reason, self.known, self.found),
        }
    }

    fn entry(&mut self, path: &Path) {
        let is_event = path.as_os_str().as_encoded_bytes().ends_with(EVENT_ENDING.as_bytes());
        let is_manifest =
            !is_event && path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.directory(path),
            Ok(metadata) if metadata.is_file() && is_manifest => self.seen.add(path, self.found),
            Ok(_) => {}
            // Gone since the directory was listed.
            Err(reason) if reason.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {}
            Err(reason) if is_manifest => unreadable(path, &reason, self.known, self.found),
            Err(_) => {}
        }
    }
}

/// The entries of a directory in the order of their names. Hidden ones are left out, and with them the
/// generations of a mounted ConfigMap, whose files are links into the current one.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn found(root: &Path) -> Vec<String> {
        let found = Root::new(root).find(&[], &mut Seen::default());
        assert!(found.iter().all(|found| found.reason.is_none()), "{found:?}");
        let relative = |found: &Found| found.path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        found.iter().map(relative).collect()
    }

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn a_directory_is_walked_in_order_of_names() {
        let directory = tempfile::tempdir().unwrap();
        let read = ["a.yaml", "b.test.yaml", "b.yml", "c/d.json"];
        let others = ["c/e.txt", "README", ".hidden.yaml", ".git/f.yaml", "a.yaml~", "c/order.event.json"];
        for name in read.iter().rev().chain(&others) {
            write(&directory.path().join(name));
        }
        assert_eq!(found(directory.path()), read);
    }

    #[test]
    fn a_mounted_config_map_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(&root.join("..2026_11_21/broker.yaml"));
        symlink("..2026_11_21", root.join("..data")).unwrap();
        symlink("..data/broker.yaml", root.join("broker.yaml")).unwrap();
        assert_eq!(found(root), ["broker.yaml"]);
    }

    #[test]
    fn links_in_a_circle_end() {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("a/b.yaml"));
        symlink("..", directory.path().join("a/up")).unwrap();
        assert_eq!(found(directory.path()), ["a/b.yaml"]);
    }

    #[test]
    fn a_broken_link_is_told() {
        let directory = tempfile::tempdir().unwrap();
        symlink("nowhere", directory.path().join("a.yaml")).unwrap();
        let found = Root::new(directory.path()).find(&[], &mut Seen::default());
        assert_eq!(found[0].path, directory.path().join("a.yaml"));
        assert!(found[0].reason.is_some());
    }

    #[test]
    fn a_file_that_two_paths_lead_to_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        write(&file);
        let mut seen = Seen::default();
        assert_eq!(Root::new(&file).find(&[], &mut seen).len(), 1);
        assert_eq!(Root::new(directory.path()).find(&[], &mut seen), []);
    }
}
