//! Tells when manifest files may have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Changes come in flocks: this much quiet ends one.
const QUIET: Duration = Duration::from_millis(100);
/// A flock that does not end is cut here.
const LONGEST_FLOCK: Duration = Duration::from_secs(2);

/// Watches paths, and the directories that hold them, so that a file which is replaced by another is seen too.
#[derive(Debug)]
pub(crate) struct Watch {
    paths: Vec<PathBuf>,
    touched: Arc<Notify>,
    /// None where the system could not watch; there is SIGHUP then.
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches from now on.
    ///
    /// # Errors
    /// What the system said, where not all could be watched. What could be is.
    pub(crate) fn start(paths: Vec<PathBuf>) -> (Self, Result<(), notify::Error>) {
        let mut watch = Self { paths, touched: Arc::new(Notify::new()), watcher: None };
        let started = watch.renew();
        (watch, started)
    }

    /// Lets the next wait end as if something had changed.
    pub(crate) fn touch(&self) {
        self.touched.notify_one();
    }

    /// Watches what the paths lead to now: a link may lead elsewhere than before, a directory be another one.
    pub(crate) fn renew(&mut self) -> Result<(), notify::Error> {
        if self.paths.is_empty() {
            return Ok(());
        }
        let (touched, roots) = (Arc::clone(&self.touched), self.paths.clone());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may have swallowed changes.
            if event.map_or(true, |event| is_relevant(&event, &roots)) {
                touched.notify_one();
            }
        })?;
        let mut outcome = Ok(());
        for (path, mode) in places(&self.paths) {
            if let Err(error) = watcher.watch(&path, mode) {
                outcome = Err(error);
            }
        }
        // Only now, so that nothing goes unseen in between.
        self.watcher = Some(watcher);
        outcome
    }

    /// Waits until something changed and then was quiet for a moment. Cancel-safe, as long as it is called again:
    /// a change is kept until then, or was the beginning of a flock that is still going on.
    pub(crate) async fn changed(&self) {
        self.touched.notified().await;
        let cut = Instant::now() + LONGEST_FLOCK;
        while Instant::now() < cut && tokio::time::timeout(QUIET, self.touched.notified()).await.is_ok() {}
    }
}

/// What has to be watched to see changes of `paths`.
fn places(paths: &[PathBuf]) -> Vec<(PathBuf, RecursiveMode)> {
    let mut places = BTreeSet::new();
    let mut trees = BTreeSet::new();
    for path in paths {
        if path.is_dir() {
            trees.insert(path.clone());
        }
        // The directory that the name stands in, and the one that the file itself lies in.
        places.insert(parent(path));
        if let Ok(whole) = path.canonicalize() {
            places.insert(parent(&whole));
        }
    }
    places
        .into_iter()
        .filter(|place| !trees.contains(place) && place.is_dir())
        .map(|place| (place, RecursiveMode::NonRecursive))
        .chain(trees.iter().cloned().map(|tree| (tree, RecursiveMode::Recursive)))
        .collect()
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether an event may tell of a manifest. A needless yes costs one reading, and reading itself is an event.
fn is_relevant(event: &Event, roots: &[PathBuf]) -> bool {
    if event.need_rescan() {
        return true;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    event.paths.iter().any(|path| {
        let ending = path.extension().and_then(std::ffi::OsStr::to_str);
        let is_root = || roots.iter().any(|root| root.file_name() == path.file_name());
        // A directory or link has no ending as a rule; `..data` is the link that a ConfigMap's update swaps.
        matches!(ending, Some("yaml" | "yml" | "json"))
            || is_root()
            || is_new_or_gone(event) && ending.is_none()
            || path.file_name().is_some_and(|name| name == "..data")
    })
}

fn is_new_or_gone(event: &Event) -> bool {
    use notify::event::ModifyKind;
    matches!(event.kind, EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use notify::event::{CreateKind, DataChange, ModifyKind};

    use super::*;

    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(PathBuf::from(path))
    }

    #[test]
    fn only_what_may_tell_of_a_manifest_counts() {
        let roots = [PathBuf::from("/etc/waypost.conf")];
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let created = EventKind::Create(CreateKind::Any);
        for (kind, path, relevant) in [
            (data, "/m/a.yaml", true),
            (data, "/etc/waypost.conf", true),
            (data, "/m/segment.log", false),
            (data, "/m/lock", false),
            (created, "/m/directory", true),
            (created, "/m/..data", true),
            (created, "/m/a.yaml.swp", false),
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), "/m/a.yaml", false),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), "/m/a.yaml", true),
        ] {
            assert_eq!(is_relevant(&event(kind, path), &roots), relevant, "{kind:?} {path}");
        }
    }

    #[tokio::test]
    async fn a_replaced_file_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "a").unwrap();
        let (watch, started) = Watch::start(vec![file.clone()]);
        started.unwrap();
        let new = directory.path().join("new");
        fs::write(&new, "b").unwrap();
        fs::rename(&new, &file).unwrap();
        tokio::time::timeout(Duration::from_secs(30), watch.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_is_watched_below() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        let (watch, started) = Watch::start(vec![directory.path().to_owned()]);
        started.unwrap();
        fs::write(directory.path().join("sub/a.yaml"), "a").unwrap();
        tokio::time::timeout(Duration::from_secs(30), watch.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn the_swap_of_a_config_map_is_seen() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for generation in ["..1", "..2"] {
            fs::create_dir(root.join(generation)).unwrap();
            fs::write(root.join(generation).join("a.yaml"), generation).unwrap();
        }
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        let (watch, started) = Watch::start(vec![root.join("a.yaml")]);
        started.unwrap();
        symlink("..2", root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        tokio::time::timeout(Duration::from_secs(30), watch.changed()).await.unwrap();
    }
}
