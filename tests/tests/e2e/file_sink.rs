//! The `file` sink, its files read line by line.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use waypost_tests::client::{batch, event};
use waypost_tests::eventually;
use waypost_tests::ledger::count;
use waypost_tests::process::{Setup, Waypost};

use crate::manifests::{default_broker, sink, sink_ref, trigger_to};

const INGRESS: &str = "/default/default";

#[allow(clippy::needless_pass_by_value, reason = "`json!` stands in the place of the argument")]
fn writing(settings: Value) -> String {
    default_broker(&[trigger_to("all", sink_ref("out"), json!({})), sink("out", json!({"file": settings}))])
}

/// Sends events with the ids of these numbers, in requests of many.
async fn accept_many(waypost: &Waypost, numbers: std::ops::Range<usize>) {
    for start in numbers.clone().step_by(500) {
        let events: Vec<_> = (start..(start + 500).min(numbers.end))
            .map(|number| {
                json!({
                    "specversion": "1.0", "id": number.to_string(), "source": "/s", "type": "t", "data": {"number": number},
                })
            })
            .collect();
        waypost.accept(batch(INGRESS, Value::from(events).to_string())).await;
    }
}

/// How often each id stands in the files of a folder, and how large each file is.
fn written(folder: &Path) -> (HashMap<String, usize>, BTreeMap<String, u64>) {
    let (mut ids, mut sizes) = (HashMap::new(), BTreeMap::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "a line is not at its end");
        for line in text.lines() {
            // What a kill cut off is no JSON, and stands on a line of its own.
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            let id = event["id"].as_str().unwrap().to_owned();
            assert_eq!(event["data"]["number"].to_string(), id);
            *ids.entry(id).or_default() += 1;
        }
        sizes.insert(entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len());
    }
    (ids, sizes)
}

#[tokio::test]
async fn ten_thousand_events_are_in_files_that_turn_though_waypost_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let manifests = writing(json!({"path": path, "rotate": {"size": "128KiB", "keep": 50}}));
    let waypost = Setup::new(&manifests).start().await;
    accept_many(&waypost, 0..2_500).await;
    waypost.settled().await;
    let waypost = waypost.restart(|setup| setup).await;
    accept_many(&waypost, 2_500..5_000).await;
    let waypost = waypost.kill(|setup| setup).await;
    accept_many(&waypost, 5_000..10_000).await;
    eventually("all to be written", async || {
        (count(&waypost.trigger("all").await, "delivered") == 10_000).then_some(())
    })
    .await;
    let (ids, sizes) = written(folder.path());
    assert_eq!(ids.len(), 10_000);
    assert!(sizes.len() > 3, "{sizes:?}");
    assert!(sizes.values().all(|size| *size <= 128 * 1024), "{sizes:?}");
    let expected = (1..sizes.len()).map(|number| format!("events.jsonl.{number}"));
    assert!(expected.clone().all(|name| sizes.contains_key(&name)), "numbered without a gap: {sizes:?}");
    // What was delivered shortly before the kill may not have been noted yet, and stand there twice. What the process before
    // it noted, and what came after it, does not.
    let may_repeat = |id: &String| (2_500..5_000).contains(&id.parse::<usize>().unwrap());
    assert!(ids.iter().all(|(id, times)| *times == 1 || (*times == 2 && may_repeat(id))), "{ids:?}");
    waypost.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_is_full_holds_events_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let (link, path) = (folder.path().join("link"), folder.path().join("room"));
    // Whatever is written there finds no room.
    std::os::unix::fs::symlink("/dev/full", &link).unwrap();
    let delivery = json!({"delivery": {"retry": 100, "backoffPolicy": "linear", "backoffDelay": "PT0.2S"}});
    let manifests = default_broker(&[
        trigger_to("all", sink_ref("out"), delivery),
        sink("out", json!({"file": {"path": link}})),
    ]);
    let waypost = Setup::new(&manifests).allow("E0420").start().await;
    waypost.accept(event(INGRESS, "1", "t", &[], "x")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "delivered"), count(&row, "pending")), (0, 1), "{row}");
    let spare = folder.path().join("spare");
    std::os::unix::fs::symlink(&path, &spare).unwrap();
    std::fs::rename(&spare, &link).unwrap();
    waypost.settled().await;
    let row = waypost.trigger("all").await;
    assert_eq!((count(&row, "delivered"), count(&row, "deadLettered")), (1, 0), "{row}");
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(line["id"], "1");
    waypost.stop().await;
}
