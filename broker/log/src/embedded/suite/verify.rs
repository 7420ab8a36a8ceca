//! Looking at a directory from outside.

use super::super::verify::verify_on;
use super::stage::{Stage, given_up};
use super::*;
use crate::ledger::Settlement;

fn verified(disk: &SimulatedDisk) -> Result<VerifiedLog, OpenError> {
    let before = disk.files();
    let on: Arc<dyn Disk> = Arc::new(disk.clone());
    let operations = disk.operations();
    let logs = verify_on(&on, Path::new("/data"))?;
    assert_eq!(disk.files(), before, "nothing is changed");
    assert_eq!(disk.operations(), operations, "nothing is even tried");
    assert_eq!(logs.len(), 1);
    Ok(logs.into_iter().next().expect("there is one"))
}

async fn directory() -> SimulatedDisk {
    let stage = Stage::open(&SimulatedDisk::new());
    for _ in 0..10 {
        stage.owe(&["t"], 10, 9_000).await;
    }
    for entry in stage.take("t", 8).await {
        let letter = Settlement::DeadLettered(given_up(), None);
        stage.ledger("t").settle(entry.position.offset, letter, None).expect("it is settled");
    }
    stage.flush();
    stage.disk.after_power_loss(Loss::All)
}

#[tokio::test]
async fn an_intact_directory_is_told_as_it_is() {
    let disk = directory().await;
    let found = verified(&disk).expect("it is readable");
    assert_eq!((found.namespace.as_str(), found.name.as_str()), ("suite", "broker"));
    assert_eq!((found.records, &found.damage, &found.harmless), (100, &vec![], &vec![]));
    assert!(found.segments > 2 && found.bytes > 900_000, "{found:?}");
    let json = serde_json::to_value(&found).expect("it is told as JSON");
    assert!(json["damage"].is_array() && json["harmless"].is_array() && json["segments"].is_number());
}

#[tokio::test]
async fn damage_is_told_with_its_file_and_place() {
    let disk = directory().await;
    let mut told = Vec::new();
    for (path, bytes) in disk.files() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name == "LOCK" || name == "RESERVE" || bytes.is_empty() {
            continue;
        }
        let copy = disk.after_power_loss(Loss::Nothing);
        let mut hurt = bytes.clone();
        if name == "checkpoint.redb" {
            // Most of its bytes are in no page that is used.
            hurt[4_096..].fill(0xff);
        } else {
            let at = if name.ends_with("ids") { 20 } else { bytes.len().min(2_000) / 2 };
            hurt[at] ^= 1;
        }
        copy.overwrite(&path, hurt);
        match verified(&copy) {
            Ok(found) => {
                let sentences: Vec<&String> = found.damage.iter().chain(&found.harmless).collect();
                assert!(sentences.iter().any(|sentence| sentence.contains(&name)), "{name}: {sentences:?}");
                let harmless = found.damage.is_empty();
                assert!(harmless || found.damage.iter().all(|sentence| sentence.contains("corrupt")));
                told.push(name);
            }
            Err(error) => assert!(error.to_string().contains(&name) || name == "VERSION", "{name}: {error}"),
        }
    }
    assert!(told.len() > 6, "{told:?}");
}

#[tokio::test]
async fn a_torn_tail_is_told_apart() {
    let disk = directory().await;
    let (path, mut bytes) = disk
        .files()
        .into_iter()
        .rfind(|(path, _)| path.extension().is_some_and(|extension| extension == "outcomes"))
        .expect("there is a journal");
    bytes.extend([7; 100]);
    disk.overwrite(&path, bytes);
    let found = verified(&disk).expect("it is readable");
    assert_eq!(found.damage, Vec::<String>::new());
    assert!(found.harmless.len() == 1 && found.harmless[0].contains("torn tail"), "{found:?}");
}

#[test]
fn a_directory_in_use_or_without_data_is_refused() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let error = verify_directory(directory.path()).expect_err("it is empty");
    assert!(matches!(error, OpenError::Failed { .. }), "{error}");
    let store =
        EmbeddedStore::open(EmbeddedOptions::new(directory.path()), Clock::system()).expect("it is free");
    let error = verify_directory(directory.path()).expect_err("it is in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(store);
    assert_eq!(verify_directory(directory.path()), Ok(vec![]));
}
