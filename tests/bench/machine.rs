//! The machine, without which no figure means anything.

use std::fs::OpenOptions;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::failure::Failure;
use crate::histogram::{Histogram, Quantiles};

/// How many synced writes the probe of the disk makes.
const PROBE_WRITES: usize = 300;
const PROBE_BYTES: usize = 4096;
/// The probe writes over the same blocks again, as a log does that reuses or preallocates its segments.
const PROBE_FILE_BLOCKS: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mebibytes: u64,
    pub(crate) kernel: String,
    /// Of the data directories.
    pub(crate) file_system: String,
    /// Write of 4 KiB and fdatasync, in microseconds, over blocks that were written before.
    pub(crate) sync: Quantiles,
    /// The load average of the last minute before the measurement: above 0.5 something else ran.
    pub(crate) load_before: f64,
}

impl Machine {
    /// What this machine is, with data directories below `scratch`.
    pub(crate) fn look(scratch: &Path) -> Result<Self, Failure> {
        let cpu = field("/proc/cpuinfo", "model name");
        let memory = field("/proc/meminfo", "MemTotal");
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            cpu: cpu.unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_mebibytes: memory.and_then(|text| text.trim_end_matches(" kB").parse().ok()).unwrap_or(0)
                / 1024,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            file_system: file_system(scratch),
            sync: probe(scratch)?,
            load_before: load.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0),
        })
    }
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the file system that holds the directory.
fn file_system(directory: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    file_system_of(&mounts, &directory).unwrap_or_else(|| "unknown".to_owned())
}

/// The last of the mounts with the longest path hides the others.
fn file_system_of(mounts: &str, directory: &Path) -> Option<String> {
    let parsed = mounts.lines().filter_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        Some((PathBuf::from(mount.split(' ').nth(4)?), rest.split(' ').next()?))
    });
    let holding = parsed.filter(|(point, _)| directory.starts_with(point));
    holding.max_by_key(|(point, _)| point.components().count()).map(|(_, kind)| kind.to_owned())
}

fn probe(scratch: &Path) -> Result<Quantiles, Failure> {
    let path = scratch.join("probe");
    let doing = || Failure::io("probing the disk");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(doing())?;
    let block = [7_u8; PROBE_BYTES];
    for _ in 0..PROBE_FILE_BLOCKS {
        file.write_all(&block).map_err(doing())?;
    }
    file.sync_all().map_err(doing())?;
    let mut times = Histogram::new();
    for write in 0..PROBE_WRITES {
        if write % PROBE_FILE_BLOCKS == 0 {
            file.rewind().map_err(doing())?;
        }
        let start = clock::now();
        file.write_all(&block).map_err(doing())?;
        file.sync_data().map_err(doing())?;
        times.record(clock::now() - start);
    }
    std::fs::remove_file(&path).map_err(doing())?;
    Ok(times.quantiles())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_with_the_longest_path_holds_a_directory() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                      2 1 0:5 / /tmp rw shared:1 - tmpfs none rw\n\
                      3 1 0:6 / /tmp/x rw - xfs /dev/b rw\n";
        for (directory, expected) in
            [("/home", "ext4"), ("/tmp/y", "tmpfs"), ("/tmp/x/z", "xfs"), ("/tmpfile", "ext4")]
        {
            assert_eq!(
                file_system_of(mounts, Path::new(directory)).as_deref(),
                Some(expected),
                "{directory}"
            );
        }
    }
}
