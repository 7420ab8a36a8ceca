//! What is kept for a later process besides logs, and logs that are not kept any longer.

use std::sync::Arc;

use waypost_core::manifest::ResourceName;

use super::disk::Opening;
use super::{EmbeddedStore, OpenError, Retention, directory_of};
use crate::error::WriteError;

/// A change of what is kept: the name, and the value or none to take it out.
pub type KeptChange = (String, Option<Vec<u8>>);

impl EmbeddedStore {
    /// What [`EmbeddedStore::keep`] was told of names that begin with `prefix`, in the order of the names. Blocks.
    pub fn kept(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, OpenError> {
        Ok(self.shared.checkpoint.kept(prefix)?)
    }

    /// Keeps small values by name for a later process: all of them or none, durably, and after everything that logs
    /// were told before. Blocks.
    pub fn keep(&self, changes: &[KeptChange]) -> Result<(), WriteError> {
        let kept = self.shared.exclusively(|flusher| {
            flusher.flush(true)?;
            self.shared.checkpoint.keep(changes)
        });
        kept.map_err(|reason| WriteError::Failed { reason })
    }

    /// Changes what an open log keeps although nobody is owed it.
    pub fn set_retention(&self, name: &ResourceName, retention: Retention) {
        if let Some(log) = self.shared.logs.lock().get(name) {
            log.set_retention(retention);
        }
    }

    /// Deletes the log of a broker with everything in it, open or not. One that does not exist is no error, and a
    /// deletion that was cut off is done again. Not cancel-safe.
    pub async fn forget_log(&self, name: &ResourceName) -> Result<(), WriteError> {
        let open = self.shared.logs.lock().remove(name);
        let bodies = match &open {
            Some(log) => {
                log.stop().await;
                log.bodies()
            }
            None => 0,
        };
        let (shared, name) = (Arc::clone(&self.shared), name.clone());
        let deleting = tokio::task::spawn_blocking(move || {
            shared.exclusively(|_| {
                let directory = directory_of(&shared.directory, &name);
                let failed = |error: std::io::Error| {
                    format!("the log in {} cannot be deleted: {error}", directory.display())
                };
                // Files first: rows without files are told as damage, files without rows would be taken for new events.
                let mut lists = 0;
                let files = shared.disk.list(&directory).map_err(failed)?;
                for file in &files {
                    let path = directory.join(file);
                    // Segments are in `bodies`, and indexes do not count.
                    if open.is_some() && !file.ends_with(".log") && !file.ends_with(".ids") {
                        lists += shared
                            .disk
                            .open(&path, Opening::Existing)
                            .and_then(|file| file.length())
                            .map_err(failed)?;
                    }
                    shared.disk.remove(&path).map_err(failed)?;
                }
                shared.give_back(bodies + lists);
                if !files.is_empty() {
                    shared.disk.sync_directory(&directory).map_err(failed)?;
                }
                shared.checkpoint.forget(&name).map_err(|error| error.to_string())?;
                shared.disk.remove_directory(&directory).map_err(failed)
            })
        });
        let deleted =
            deleting.await.unwrap_or_else(|_| Err("deleting a log panicked; please report this".to_owned()));
        deleted.map_err(|reason| WriteError::Failed { reason })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use waypost_core::Event;

    use crate::clock::Clock;
    use crate::embedded::EmbeddedOptions;
    use crate::record::{Batch, Metadata, Record};

    use super::*;

    const RETENTION: Retention = Retention { age: Duration::from_secs(3600), size: u64::MAX };

    fn open(directory: &std::path::Path) -> Arc<EmbeddedStore> {
        EmbeddedStore::open(EmbeddedOptions::new(directory), Clock::system()).unwrap()
    }

    fn kept_below(directory: &std::path::Path, prefix: &str) -> Vec<(String, Vec<u8>)> {
        open(directory).kept(prefix).unwrap()
    }

    fn change(name: &str, value: Option<&str>) -> KeptChange {
        (name.to_owned(), value.map(|value| value.as_bytes().to_vec()))
    }

    #[tokio::test]
    async fn what_is_kept_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        assert_eq!(store.kept("").unwrap(), []);
        store.keep(&[change("b", Some("1")), change("a", Some("2")), change("c", Some("3"))]).unwrap();
        store
            .keep(&[change("b", Some("4")), change("c", None), change("d", None), change("bb", Some("5"))])
            .unwrap();
        store.close().await;
        drop(store);
        let kept = open(directory.path()).kept("").unwrap();
        let value = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        assert_eq!(kept, [value("a", "2"), value("b", "4"), value("bb", "5")]);
        assert_eq!(kept_below(directory.path(), "b"), [value("b", "4"), value("bb", "5")]);
    }

    #[tokio::test]
    async fn a_forgotten_log_leaves_nothing_and_takes_nothing_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let (one, other) = (ResourceName::new("n", "one"), ResourceName::new("n", "one-more"));
        let event = Event::builder("1", "/s", "t").build().unwrap();
        for name in [&one, &other] {
            let log = store.open_log(name, RETENTION).unwrap();
            log.trigger(&ResourceName::new("n", "t"));
            let record = Record { metadata: Metadata::default(), event: event.clone() };
            log.append(Batch::of([record])).unwrap().await.unwrap();
        }
        let used = store.open_log(&other, RETENTION).unwrap().usage().used;
        store.forget_log(&one).await.unwrap();
        let left = store.open_log(&other, RETENTION).unwrap().usage().used;
        assert!(left < used && left > 0, "{left} of {used}");
        assert_eq!(store.logs().unwrap(), std::slice::from_ref(&other));
        store.close().await;
        drop(store);

        let store = open(directory.path());
        store.forget_log(&one).await.unwrap();
        let (fresh, kept) =
            (store.open_log(&one, RETENTION).unwrap(), store.open_log(&other, RETENTION).unwrap());
        assert_eq!((fresh.bounds(0).end, fresh.triggers().len()), (0, 0));
        assert_eq!((kept.bounds(0).end, kept.triggers().len()), (1, 1));
    }

    #[test]
    fn the_directory_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        let store = open(&directory);
        store.open_log(&ResourceName::new("n", "one"), RETENTION).unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for name in ["", "logs", "logs/n", "logs/n/one"] {
            assert_eq!(mode(&directory.join(name)), 0o700, "{name}");
        }
        for name in ["LOCK", "VERSION", "checkpoint.redb"] {
            assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
        }
    }
}
