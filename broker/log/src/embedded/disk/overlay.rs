//! A disk that is only read: whatever is written to it stays in memory, and is gone with it.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, Opening};

const PAGE: u64 = 4096;

/// The disk below, and what was changed above it.
#[derive(Debug)]
pub(crate) struct Overlay {
    below: Arc<dyn Disk>,
    /// The files that were opened; none where one was removed.
    files: Mutex<BTreeMap<PathBuf, Option<Arc<Mutex<Content>>>>>,
}

/// What a file holds above the one below.
#[derive(Debug, Default)]
struct Content {
    length: u64,
    /// The bytes before this place are those of the file below, where no page says otherwise.
    kept: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

#[derive(Debug)]
struct OverlayFile {
    below: Option<Arc<dyn DiskFile>>,
    content: Arc<Mutex<Content>>,
}

impl Overlay {
    pub(crate) fn new(below: Arc<dyn Disk>) -> Self {
        Self { below, files: Mutex::default() }
    }
}

impl Disk for Overlay {
    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names: BTreeSet<String> = self.below.list(path)?.into_iter().collect();
        for (file, content) in self.files.lock().iter().filter(|(file, _)| file.parent() == Some(path)) {
            let Some(name) = file.file_name().and_then(|name| name.to_str()) else { continue };
            if content.is_some() {
                names.insert(name.to_owned());
            } else {
                names.remove(name);
            }
        }
        Ok(names.into_iter().collect())
    }

    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn DiskFile>> {
        let below = match self.below.open(path, Opening::Reading) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut files = self.files.lock();
        let known = files.get(path);
        let there = known.map_or(below.is_some(), Option::is_some);
        match how {
            Opening::New if there => return Err(io::ErrorKind::AlreadyExists.into()),
            Opening::Existing | Opening::Reading | Opening::Writing if !there => {
                return Err(io::ErrorKind::NotFound.into());
            }
            _ => {}
        }
        let content = match known {
            Some(Some(content)) => Arc::clone(content),
            Some(None) => Arc::default(),
            None => {
                let length = below.as_ref().map_or(Ok(0), |below| below.length())?;
                Arc::new(Mutex::new(Content { length, kept: length, pages: BTreeMap::new() }))
            }
        };
        files.insert(path.to_owned(), Some(Arc::clone(&content)));
        Ok(Arc::new(OverlayFile { below, content }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().insert(path.to_owned(), None);
        Ok(())
    }

    fn remove_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        // Where nothing was ever locked there is nobody to keep out, and no file is made to do so.
        let there = match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
            (Some(parent), Some(name)) => self.below.list(parent)?.iter().any(|known| known == name),
            _ => false,
        };
        if there { self.below.lock(path) } else { Ok(Box::new(())) }
    }

    fn capacity(&self, path: &Path) -> Option<u64> {
        self.below.capacity(path)
    }

    fn free(&self, _path: &Path) -> Option<u64> {
        None
    }
}

impl OverlayFile {
    /// Reads what lies within one page, or below all pages.
    fn read_part(&self, content: &Content, part: &mut [u8], at: u64) -> io::Result<()> {
        if let Some(page) = content.pages.get(&(at / PAGE)) {
            let from = usize::try_from(at % PAGE).map_err(io::Error::other)?;
            part.copy_from_slice(&page[from..from + part.len()]);
            return Ok(());
        }
        part.fill(0);
        let there = usize::try_from(content.kept.saturating_sub(at)).unwrap_or(usize::MAX).min(part.len());
        match &self.below {
            Some(below) if there > 0 => below.read_at(&mut part[..there], at).map(drop),
            _ => Ok(()),
        }
    }
}

/// The pieces of a range that each lie within a page.
fn pieces(at: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let place = at + done as u64;
        let left = usize::try_from(PAGE - place % PAGE).unwrap_or(usize::MAX).min(length - done);
        let piece = (place, done..done + left);
        done += left;
        (left > 0).then_some(piece)
    })
}

impl DiskFile for OverlayFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.content.lock().length)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let there = usize::try_from(content.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let length = buffer.len().min(there);
        if content.pages.is_empty() && at + length as u64 <= content.kept {
            drop(content);
            return self.below.as_ref().map_or(Ok(0), |below| below.read_at(&mut buffer[..length], at));
        }
        for (place, range) in pieces(at, length) {
            self.read_part(&content, &mut buffer[range], place)?;
        }
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        for (place, range) in pieces(at, bytes.len()) {
            let number = place / PAGE;
            let mut page = vec![0; usize::try_from(PAGE).map_err(io::Error::other)?];
            self.read_part(&content, &mut page, number * PAGE)?;
            let from = usize::try_from(place % PAGE).map_err(io::Error::other)?;
            page[from..from + range.len()].copy_from_slice(&bytes[range]);
            content.pages.insert(number, page.into_boxed_slice());
        }
        content.length = content.length.max(at + bytes.len() as u64);
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        content.length = content.length.max(length);
        Ok(())
    }

    fn take_room(&self, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        content.kept = content.kept.min(length);
        content.pages.retain(|number, _| number * PAGE < length);
        let from = usize::try_from(length % PAGE).map_err(io::Error::other)?;
        if let Some(page) = content.pages.get_mut(&(length / PAGE)) {
            page[from..].fill(0);
        }
        content.length = length;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn forget(&self) {}
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::embedded::disk::simulated::SimulatedDisk;

    proptest! {
        #[test]
        fn it_reads_what_was_written_and_leaves_what_is_below(
            before in vec(any::<u8>(), 0..12_000),
            steps in vec((0_u64..16_000, vec(any::<u8>(), 0..5_000), any::<bool>()), 0..8),
            look in 0_u64..16_000,
        ) {
            let (below, path) = (SimulatedDisk::new(), Path::new("/d/f"));
            let file = below.open(path, Opening::New).expect("it is new");
            file.write_at(&before, 0).expect("there is room");
            let overlay = Overlay::new(Arc::new(below.clone()));
            let plain = SimulatedDisk::new();
            let model = plain.open(path, Opening::New).expect("it is new");
            model.write_at(&before, 0).expect("there is room");
            for (at, bytes, cut) in steps {
                let file = overlay.open(path, Opening::Existing).expect("it is there");
                for file in [&file, &model] {
                    if cut {
                        file.set_length(at).expect("it works");
                    } else if !bytes.is_empty() {
                        file.write_at(&bytes, at).expect("it works");
                    }
                }
            }
            let file = overlay.open(path, Opening::Either).expect("it is there");
            prop_assert_eq!(file.length().ok(), model.length().ok());
            let (mut read, mut expected) = (vec![0; 9_000], vec![0; 9_000]);
            let length = file.read_at(&mut read, look).expect("it works");
            prop_assert_eq!(length, model.read_at(&mut expected, look).expect("it works"));
            prop_assert_eq!(&read[..length], &expected[..length]);
            prop_assert_eq!(&below.files()[0].1, &before);
            overlay.remove(path).expect("it works");
            prop_assert!(overlay.open(path, Opening::Existing).is_err());
            prop_assert!(overlay.list(Path::new("/d")).expect("it works").is_empty());
            prop_assert_eq!(overlay.open(path, Opening::New).expect("it is new").length().ok(), Some(0));
        }
    }
}
