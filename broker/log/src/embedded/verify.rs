//! Looking at a data directory that no process uses, without changing anything in it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use waypost_core::manifest::ResourceName;

use super::disk::overlay::Overlay;
use super::disk::{Disk, DiskFile, Opening, SystemDisk};
use super::frame::{FILE_HEADER, FileHeader, FileKind, scan};
use super::{EmbeddedOptions, EmbeddedStore, OpenError, Retention, directory_of, ids};
use crate::clock::Clock;

/// What was found of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedLog {
    /// The namespace of its broker.
    pub namespace: String,
    /// The name of its broker.
    pub name: String,
    /// The files of records.
    pub segments: usize,
    /// The records that it should hold.
    pub records: u64,
    /// The bytes of all its files.
    pub bytes: u64,
    /// What is damaged, in sentences with file and place. What an operator accepted is not told again.
    pub damage: Vec<String>,
    /// What is no loss, in sentences: a last write that was cut off and never acknowledged, an index that is built anew.
    pub harmless: Vec<String>,
}

/// Reads everything in a data directory, and says what is damaged in each log. Nothing in it is changed, and no other
/// process may have it open. Blocks for as long as reading it all takes.
pub fn verify_directory(directory: &Path) -> Result<Vec<VerifiedLog>, OpenError> {
    verify_on(&(Arc::new(SystemDisk) as Arc<dyn Disk>), directory)
}

pub(super) fn verify_on(disk: &Arc<dyn Disk>, directory: &Path) -> Result<Vec<VerifiedLog>, OpenError> {
    let failed = |error: io::Error| OpenError::of(directory, &error);
    if disk.list(directory).map_err(failed)?.is_empty() {
        let reason = "there is no data in it".to_owned();
        return Err(OpenError::Failed { path: directory.to_owned(), reason });
    }
    let overlay: Arc<dyn Disk> = Arc::new(Overlay::new(Arc::clone(disk)));
    let options = EmbeddedOptions { limit: Some(u64::MAX), ring_bytes: 0, ..EmbeddedOptions::new(directory) };
    let store = EmbeddedStore::open_on(overlay, options, Clock::system())?;
    store.logs()?.iter().map(|name| verify_log(&**disk, &store, name)).collect()
}

fn verify_log(disk: &dyn Disk, store: &EmbeddedStore, name: &ResourceName) -> Result<VerifiedLog, OpenError> {
    let directory = directory_of(&store.shared.directory, name);
    let mut verified = VerifiedLog {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        segments: 0,
        records: 0,
        bytes: 0,
        damage: Vec::new(),
        harmless: Vec::new(),
    };
    let retention = Retention { age: Duration::MAX, size: u64::MAX };
    match store.open_log(name, retention) {
        Err(error) => verified.damage.push(error.to_string()),
        Ok(log) => {
            let bounds = log.bounds(0);
            verified.records = bounds.end - bounds.start;
            match store.verify(name) {
                Ok(damage) => verified.damage.extend(damage),
                Err(error) => verified.damage.push(error.to_string()),
            }
        }
    }
    let log = store.shared.logs.lock().get(name).cloned();
    verified.damage.extend(log.iter().flat_map(|log| log.lost_lists()));
    let failed = |error: io::Error| OpenError::of(&directory, &error);
    for file in disk.list(&directory).map_err(failed)? {
        verified.look_at(disk, &directory.join(file)).map_err(failed)?;
    }
    verified.damage.retain(|sentence| !log.as_ref().is_some_and(|log| log.has_accepted(sentence)));
    verified.damage.dedup();
    Ok(verified)
}

impl VerifiedLog {
    /// Reads a file from its beginning to its end.
    fn look_at(&mut self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let file = disk.open(path, Opening::Reading)?;
        self.bytes += file.length()?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => {
                self.segments += 1;
                self.look_at_frames(&*file, path, FileKind::Segment)
            }
            Some("matches") => self.look_at_frames(&*file, path, FileKind::Matches),
            Some("outcomes") => self.look_at_frames(&*file, path, FileKind::Outcomes),
            Some("ids") => {
                if let Err(error) = ids::check(&*file) {
                    let path = path.display();
                    self.harmless
                        .push(format!("{path} is corrupt: {error}; it is built anew when it is used"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn look_at_frames(&mut self, file: &dyn DiskFile, path: &Path, kind: FileKind) -> io::Result<()> {
        let mut header = [0; FILE_HEADER];
        file.read_at(&mut header, 0)?;
        let shown = path.display();
        let Ok(FileHeader { generation, .. }) = FileHeader::decode(&header, kind) else {
            if header.iter().all(|byte| *byte == 0) {
                self.harmless.push(format!("{shown} is a torn tail at byte 0: the file was being made"));
            } else {
                self.tell(format!("{shown} is corrupt at byte 0: the file header is damaged"));
            }
            return Ok(());
        };
        let found = scan(file, generation, FILE_HEADER as u64, 0, |_, _, _| Ok(()))?;
        for gap in &found.gaps {
            self.tell(format!("{shown} is corrupt at bytes {}..{}: {}", gap.from, gap.to, gap.reason));
        }
        let told = |sentence: &String| sentence.contains(&shown.to_string());
        if let Some(gap) = found.torn.filter(|_| !self.damage.iter().any(told)) {
            let sentence =
                format!("{shown} has a torn tail at bytes {}..{}: {}", gap.from, gap.to, gap.reason);
            self.harmless.push(sentence);
        }
        Ok(())
    }

    /// Adds a sentence, where the place is not told of already.
    fn tell(&mut self, sentence: String) {
        let place = sentence.split(": ").next().unwrap_or_default();
        if !self.damage.iter().any(|known| known.starts_with(place)) {
            self.damage.push(sentence);
        }
    }
}
