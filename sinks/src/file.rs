//! `file`: appends events to a file, as lines of JSON.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use waypost_clients::{Problem, ProblemKind};
use waypost_core::manifest::FieldProblem;
use waypost_core::sink::{BatchUnity, Batching, ComponentContext, Outcome, Sink, SinkConfig};
use waypost_core::{DeliveryError, Event, size};

use crate::json_lines::push_line;

/// The most files that are kept beside the one that is written.
const MOST_KEPT: u32 = 1_000;

/// Appends each event to a file as one line of JSON, a structured CloudEvent.
///
/// An event counts as delivered when its line is synced to the disk. A line that a crash cut off stays as it is; the next
/// one starts on a line of its own, and the event that it was of is written again. The folder must be there. One sink
/// writes to a file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileConfig {
    /// The file. It is created where it is not there.
    path: PathBuf,
    /// When to start a new file. Without it there is one file that grows.
    rotate: Option<Rotation>,
}

/// When to start a new file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rotation {
    /// The most that a file holds, such as `100MiB`. One event that is larger has a file of its own.
    size: String,
    /// How many full files are kept, from 1 to 1,000. They are named `PATH.1` (the newest), `PATH.2`, and so on.
    keep: u32,
}

impl Rotation {
    fn limit(&self) -> Result<u64, size::InvalidSize> {
        size::parse(&self.size)
    }
}

impl SinkConfig for FileConfig {
    const TYPE: &'static str = "file";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: String| {
            problems.push(FieldProblem { path: path.to_owned(), message });
        };
        if self.path.file_name().is_none() {
            problem("path", format!("`{}` names no file", self.path.display()));
        }
        if let Some(rotation) = &self.rotate {
            if let Err(invalid) = rotation.limit() {
                problem("rotate.size", format!("`{}`: {invalid}", rotation.size));
            }
            if !(1..=MOST_KEPT).contains(&rotation.keep) {
                problem("rotate.keep", format!("write a number from 1 to {MOST_KEPT}"));
            }
        }
        problems
    }

    async fn build(&self, _context: ComponentContext) -> Result<Arc<dyn Sink>, DeliveryError> {
        let rotate = match &self.rotate {
            Some(rotation) => {
                let invalid =
                    |error: size::InvalidSize| Problem::new(ProblemKind::Settings, error.to_string());
                Some((rotation.limit().map_err(invalid)?, rotation.keep))
            }
            None => None,
        };
        Ok(Arc::new(FileSink {
            written: Arc::new(Mutex::new(Written { path: self.path.clone(), rotate, open: None })),
        }))
    }
}

#[derive(Debug)]
struct FileSink {
    written: Arc<Mutex<Written>>,
}

/// The file that is written, and those before it.
#[derive(Debug)]
struct Written {
    path: PathBuf,
    /// The most bytes in a file, and how many full files are kept.
    rotate: Option<(u64, u32)>,
    /// The file and its length; none where it is to be opened, after a failure too.
    open: Option<(File, u64)>,
}

#[async_trait]
impl Sink for FileSink {
    async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        let lines: Vec<Vec<u8>> = events
            .iter()
            .map(|event| {
                let mut line = Vec::new();
                push_line(&mut line, event);
                line
            })
            .collect();
        let written = self.blocking(move |written| written.append(&lines)).await;
        let outcome = match written {
            Ok(()) => Outcome::Delivered,
            Err(problem) => Outcome::Failed(problem.into()),
        };
        vec![outcome; events.len()]
    }

    async fn check(&self) -> Result<(), DeliveryError> {
        // Opening for appending changes nothing in a file that is there; where none is, its folder must be.
        self.blocking(|written| {
            if written.path.exists() {
                return OpenOptions::new().append(true).open(&written.path).map(drop);
            }
            std::fs::metadata(folder_of(&written.path)).map(drop)
        })
        .await
        .map_err(Into::into)
    }

    fn batching(&self) -> Batching {
        Batching {
            max_events: 1_000,
            max_bytes: 1024 * 1024,
            linger: Duration::from_millis(5),
            unity: BatchUnity::Independent,
        }
    }
}

impl FileSink {
    /// Does something with the files, where waiting for the disk holds up nobody else.
    async fn blocking(
        &self,
        work: impl FnOnce(&mut Written) -> io::Result<()> + Send + 'static,
    ) -> Result<(), Problem> {
        let mut written = Arc::clone(&self.written).lock_owned().await;
        let path = written.path.clone();
        // Whoever waits for the lock waits until the work is done, also where nobody waits for the work any more.
        let done = tokio::task::spawn_blocking(move || work(&mut written)).await;
        done.map_err(io::Error::other).flatten().map_err(|error| classify(&path, &error))
    }
}

/// What a failure of the disk means.
fn classify(path: &Path, error: &io::Error) -> Problem {
    let (kind, advice) = match error.kind() {
        io::ErrorKind::NotFound => (ProblemKind::Absent, "; create its folder, or correct `path`"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (ProblemKind::Unauthorized, "; let the process write there, or correct `path`")
        }
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            (ProblemKind::Settings, "; correct `path`")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ProblemKind::Unavailable, "; make room on its disk")
        }
        _ => (ProblemKind::Unavailable, ""),
    };
    Problem::new(kind, format!("the file {} cannot be written: {error}{advice}", path.display()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Written {
    /// Appends lines and syncs them.
    fn append(&mut self, lines: &[Vec<u8>]) -> io::Result<()> {
        // Until all is done the file counts as one to be looked at anew.
        let (mut file, mut length) = match self.open.take() {
            Some(open) => open,
            None => self.open_file()?,
        };
        let mut text: Vec<u8> = Vec::new();
        for line in lines {
            let full = self.rotate.is_some_and(|(limit, _)| {
                length + text.len() as u64 > 0 && length + (text.len() + line.len()) as u64 > limit
            });
            if full {
                file.write_all(&text)?;
                file.sync_data()?;
                text.clear();
                self.rotate_files()?;
                (file, length) = self.open_file()?;
            }
            text.extend_from_slice(line);
        }
        file.write_all(&text)?;
        file.sync_data()?;
        self.open = Some((file, length + text.len() as u64));
        Ok(())
    }

    fn open_file(&self) -> io::Result<(File, u64)> {
        let new = !self.path.exists();
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
        if new {
            // That the file is there must survive as its lines do.
            File::open(folder_of(&self.path))?.sync_all()?;
        }
        let mut length = file.metadata()?.len();
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                length += 1;
            }
        }
        Ok((file, length))
    }

    /// Gives each full file the next number, the oldest up; the oldest goes where as many as may be are kept. Those behind a
    /// number that is free, such as a kill in the middle leaves, keep theirs, so that none stays free.
    fn rotate_files(&self) -> io::Result<()> {
        let Some((_, keep)) = self.rotate else { return Ok(()) };
        let mut free = 1;
        while free < keep && self.numbered(free).try_exists()? {
            free += 1;
        }
        for number in (1..free).rev() {
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                // Whoever collects full files may take one away at any moment.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod suite;
