use serde_json::{Value, json};
use tempfile::TempDir;
use waypost_core::manifest::{ResourceName, Secrets};
use waypost_core::{Class, codes};

use super::*;

fn event(id: usize) -> Event {
    Event::builder(id.to_string(), "/s", "t").json_data("{\n\"a\": 1}").build().unwrap()
}

async fn sink(settings: Value) -> Arc<dyn Sink> {
    let config: FileConfig = serde_json::from_value(settings).unwrap();
    assert!(config.validate().is_empty());
    let context = ComponentContext { name: ResourceName::new("default", "f"), secrets: Secrets::default() };
    config.build(context).await.unwrap()
}

fn ids(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let id = |line: &str| {
        serde_json::from_str::<Value>(line).map(|event| event["id"].as_str().unwrap().to_owned())
    };
    text.lines().map(|line| id(line).unwrap_or_else(|_| "broken".to_owned())).collect()
}

async fn deliver(sink: &dyn Sink, numbers: std::ops::Range<usize>) {
    let events: Vec<_> = numbers.map(event).collect();
    let outcomes = sink.deliver(&events).await;
    assert_eq!(outcomes, vec![Outcome::Delivered; events.len()]);
}

#[tokio::test]
async fn each_event_is_one_line_and_a_later_process_goes_on() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("events.jsonl");
    deliver(&*sink(json!({"path": path})).await, 0..3).await;
    deliver(&*sink(json!({"path": path})).await, 3..5).await;
    assert_eq!(ids(&path), ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_line_that_was_cut_off_does_not_break_the_next() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("events.jsonl");
    std::fs::write(&path, "{\"specver").unwrap();
    deliver(&*sink(json!({"path": path})).await, 0..1).await;
    assert_eq!(ids(&path), ["broken", "0"]);
}

#[tokio::test]
async fn full_files_are_numbered_and_the_oldest_goes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut line = Vec::new();
    push_line(&mut line, &event(0));
    let limit = (line.len() * 2).to_string();
    let sink = sink(json!({"path": path, "rotate": {"size": limit, "keep": 2}})).await;
    deliver(&*sink, 0..3).await;
    deliver(&*sink, 3..7).await;
    let numbered = |number: u32| folder.path().join(format!("events.jsonl.{number}"));
    assert_eq!(ids(&path), ["6"]);
    assert_eq!(ids(&numbered(1)), ["4", "5"]);
    assert_eq!(ids(&numbered(2)), ["2", "3"]);
    assert!(!numbered(3).exists());
}

#[tokio::test]
async fn a_number_that_a_kill_left_free_is_filled() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("events.jsonl");
    let numbered = |number: u32| folder.path().join(format!("events.jsonl.{number}"));
    // The kill came when 2 had become 3 and 1 was to become 2.
    for number in [1, 3, 4] {
        std::fs::write(numbered(number), format!("{}\n", json!({"id": number.to_string()}))).unwrap();
    }
    let sink = sink(json!({"path": path, "rotate": {"size": "1B", "keep": 9}})).await;
    deliver(&*sink, 10..12).await;
    assert_eq!((ids(&path), ids(&numbered(1))), (vec!["11".to_owned()], vec!["10".to_owned()]));
    let left: Vec<_> = (2..=5).flat_map(|number| ids(&numbered(number))).collect();
    assert_eq!(left, ["1", "3", "4"]);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_told_until_it_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("later/events.jsonl");
    let sink = sink(json!({"path": path})).await;
    let error = sink.check().await.unwrap_err();
    assert_eq!((error.class, error.code), (Class::Misconfigured, codes::SINK_TARGET_ABSENT));
    let outcomes = sink.deliver(&[event(0)]).await;
    assert!(
        matches!(&outcomes[..], [Outcome::Failed(error)] if error.code == codes::SINK_TARGET_ABSENT),
        "{outcomes:?}"
    );
    std::fs::create_dir(folder.path().join("later")).unwrap();
    sink.check().await.unwrap();
    assert!(!path.exists(), "a check changes nothing");
    deliver(&*sink, 0..1).await;
    assert_eq!(ids(&path), ["0"]);
}

#[test]
fn each_failure_has_its_meaning() {
    use io::ErrorKind as Kind;
    for (error, kind) in [
        (Kind::NotFound, ProblemKind::Absent),
        (Kind::PermissionDenied, ProblemKind::Unauthorized),
        (Kind::ReadOnlyFilesystem, ProblemKind::Unauthorized),
        (Kind::IsADirectory, ProblemKind::Settings),
        (Kind::StorageFull, ProblemKind::Unavailable),
        (Kind::Other, ProblemKind::Unavailable),
    ] {
        assert_eq!(classify(Path::new("/f"), &error.into()).kind, kind, "{error:?}");
    }
}

#[test]
fn settings_that_cannot_work_are_told_by_field() {
    for (settings, path) in [
        (json!({"path": "/"}), "path"),
        (json!({"path": "f", "rotate": {"size": "much", "keep": 1}}), "rotate.size"),
        (json!({"path": "f", "rotate": {"size": "1MiB", "keep": 0}}), "rotate.keep"),
    ] {
        let config: FileConfig = serde_json::from_value(settings).unwrap();
        let problems = config.validate();
        assert_eq!(problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), [path]);
    }
}
