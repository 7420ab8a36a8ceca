//! The version of a data directory, and the way from an older one to ours.
//!
//! The rule: a version knows the formats that its steps begin with, and its own. Opening a directory walks the steps
//! from the format that is found, and writes the new number after each, so that a step that is cut off is done again
//! and must allow for that. A later format is refused, as is one that is older than all steps.

use std::io;
use std::path::Path;

use super::disk::{Disk, Opening};
use super::{DATA_VERSION, OpenError};

/// The file that holds the version.
const FILE: &str = "VERSION";

/// A step from one format to the next.
pub(super) struct Step {
    /// What it does, for the log.
    pub(super) name: &'static str,
    /// Does it. It may have been done before, in part or whole.
    pub(super) run: fn(&dyn Disk, &Path) -> io::Result<()>,
}

/// The steps to [`DATA_VERSION`], the last ends there. Nothing was released before format 1.
///
/// Format 2 adds the keys of deliveries that stay in order to the notes and the pages of schedules. What format 1 wrote
/// is read as it is. Format 3 adds the outputs that subscribers have: a kind of note, and what stands at the end of ledgers and
/// dead letters, where format 2 wrote nothing. Format 4 adds the bounds of batches at the end of ledgers, where format 3
/// wrote nothing.
pub(super) const STEPS: &[Step] = &[
    Step { name: "keys of deliveries that stay in order", run: |_, _| Ok(()) },
    Step { name: "outputs that subscribers have", run: |_, _| Ok(()) },
    Step { name: "bounds of batches", run: |_, _| Ok(()) },
];

/// Reads the version; none where it is missing or empty: then nothing was ever acknowledged from here.
pub(super) fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<String>, OpenError> {
    let failed = |error: io::Error| OpenError::of(directory, &error);
    let path = directory.join(FILE);
    let file = match disk.open(&path, Opening::Existing) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut found = vec![0; 64];
    let length = file.read_at(&mut found, 0).map_err(failed)?;
    found.truncate(length);
    let found = String::from_utf8_lossy(&found).trim().to_owned();
    Ok(Some(found).filter(|found| !found.is_empty()))
}

/// Writes the version and makes it durable.
pub(super) fn write(disk: &dyn Disk, directory: &Path, version: u32) -> Result<(), OpenError> {
    let failed = |error: io::Error| OpenError::of(directory, &error);
    let file = disk.open(&directory.join(FILE), Opening::Either).map_err(failed)?;
    file.write_at(format!("waypost data {version}\n").as_bytes(), 0).map_err(failed)?;
    file.sync().map_err(failed)?;
    disk.sync_directory(directory).map_err(failed)
}

/// Brings a directory whose version was found to be `found` to [`DATA_VERSION`].
pub(super) fn upgrade(disk: &dyn Disk, directory: &Path, found: &str) -> Result<(), OpenError> {
    walk(disk, directory, found, DATA_VERSION, STEPS)
}

fn walk(
    disk: &dyn Disk,
    directory: &Path,
    found: &str,
    newest: u32,
    steps: &[Step],
) -> Result<(), OpenError> {
    let count = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    let oldest = newest.saturating_sub(count);
    let number = found.strip_prefix("waypost data ").and_then(|number| number.parse::<u32>().ok());
    let Some(mut number) = number.filter(|number| (oldest..=newest).contains(number)) else {
        let known = if oldest == newest { newest.to_string() } else { format!("{oldest} to {newest}") };
        return Err(OpenError::Version { directory: directory.to_owned(), found: found.to_owned(), known });
    };
    for step in steps.iter().skip(usize::try_from(number - oldest).unwrap_or(usize::MAX)) {
        tracing::info!(directory = %directory.display(), from = number, step = step.name, "upgrading the data directory");
        (step.run)(disk, directory).map_err(|error| OpenError::of(directory, &error))?;
        number += 1;
        write(disk, directory, number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::disk::simulated::{Loss, SimulatedDisk};

    fn mark(disk: &dyn Disk, directory: &Path, name: &str) -> io::Result<()> {
        disk.open(&directory.join(name), Opening::Either)?;
        disk.sync_directory(directory)
    }

    const THREE: &[Step] = &[
        Step { name: "first", run: |disk, directory| mark(disk, directory, "first") },
        Step { name: "second", run: |disk, directory| mark(disk, directory, "second") },
        Step { name: "third", run: |disk, directory| mark(disk, directory, "third") },
    ];

    fn upgraded(disk: &SimulatedDisk, found: &str) -> Result<Vec<String>, String> {
        let directory = Path::new("/data");
        walk(disk, directory, found, 9, THREE).map_err(|error| error.to_string())?;
        assert_eq!(
            read(disk, directory),
            Ok((found != "waypost data 9").then(|| "waypost data 9".to_owned()))
        );
        Ok(disk.list(directory).expect("it is listed").into_iter().filter(|name| name != FILE).collect())
    }

    #[test]
    fn the_steps_from_what_is_found_are_walked() {
        let walked = |found| upgraded(&SimulatedDisk::new(), found).expect("it is known");
        assert_eq!(walked("waypost data 6"), ["first", "second", "third"]);
        assert_eq!(walked("waypost data 8"), ["third"]);
        assert_eq!(walked("waypost data 9"), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_known_is_refused_and_named() {
        for found in ["waypost data 5", "waypost data 10", "waypost data", "something else"] {
            let error = upgraded(&SimulatedDisk::new(), found).expect_err("it is not known");
            assert!(error.contains(found) && error.contains("6 to 9"), "{error}");
        }
    }

    #[test]
    fn steps_that_are_cut_off_are_walked_again() {
        let directory = Path::new("/data");
        for operation in 1..12 {
            let disk = SimulatedDisk::new();
            write(&disk, directory, 6).expect("the disk works");
            disk.end_power_at(disk.operations() + operation);
            let _ = walk(&disk, directory, "waypost data 6", 9, THREE);
            let disk = disk.after_power_loss(Loss::All);
            let found = read(&disk, directory).expect("it is readable").expect("it is there");
            walk(&disk, directory, &found, 9, THREE).expect("it is walked to the end");
            assert_eq!(disk.list(directory).expect("it is listed"), [FILE, "first", "second", "third"]);
        }
    }
}
