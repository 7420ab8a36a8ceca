//! Replays: what they send, what they leave alone, and where they go on.

use std::path::Path;

use serde_json::{Value, json};
use waypost_core::manifest::ResourceName;
use waypost_log::embedded::{EmbeddedOptions, EmbeddedStore};

use super::*;
use crate::{ReplayError, ReplayRequest, ReplayStatus};

const DURABLE: &str = "
apiVersion: waypost.dev/v1alpha1
kind: Broker
metadata: {name: b}
---";

/// A native replay `name` of broker `b`.
fn replay(name: &str, spec: &str) -> String {
    format!(
        "
apiVersion: waypost.dev/v1alpha1
kind: Replay
metadata: {{name: {name}}}
spec: {{broker: b, {spec}}}
---"
    )
}

fn named(name: &str) -> ResourceName {
    ResourceName::new("default", name)
}

fn request(name: &str, spec: Value) -> ReplayRequest {
    ReplayRequest { namespace: "default".to_owned(), name: Some(name.to_owned()), spec }
}

/// Promise P2.
fn adds_up(line: &ReplayStatus) -> bool {
    line.matched == line.delivered + line.dead_lettered + line.dropped + line.pending
        && line.in_flight <= line.pending
}

impl Stage {
    fn replay(&self, name: &str) -> ReplayStatus {
        let line = self.engine.replay(&named(name)).expect("the replay is told of");
        assert!(adds_up(&line), "{line:?}");
        line
    }

    async fn replay_until(&self, name: &str, wanted: impl Fn(&ReplayStatus) -> bool) -> ReplayStatus {
        let waited = async {
            loop {
                let line = self.replay(name);
                if wanted(&line) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(4 * 60), waited).await {
            Ok(line) => line,
            Err(_) => panic!("never came: {:?}", self.replay(name)),
        }
    }

    async fn completed(&self, name: &str) -> ReplayStatus {
        self.replay_until(name, |line| line.state == "Completed").await
    }
}

fn sorted(hand: &Hand) -> Vec<usize> {
    let mut sent: Vec<usize> = hand.sent().iter().map(|id| id.parse().expect("ids are numbers")).collect();
    sent.sort_unstable();
    sent
}

/// A broker with a trigger `t` that was sent events before there was any replay.
async fn with_past(hand: &str, count: usize) -> (Stage, String) {
    let manifests = [BROKER, &sink(hand), &trigger("t", hand, "")].concat();
    let stage = Stage::of(&manifests).await;
    stage.publish("b", 0..count).await;
    stage.until("t", |line| line.delivered == count as u64).await;
    (stage, manifests)
}

#[test]
fn a_range_is_sent_again_once_and_marked_and_the_trigger_counts_none_of_it() {
    on_one_thread(async {
        let marks = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&marks);
        let hand = Hand::on("rprange", move |event, _| {
            let mark = event.attribute("waypostreplay").map(|value| value.text.to_owned());
            seen.lock().push(mark);
            Outcome::Delivered
        });
        let (mut stage, manifests) = with_past("rprange", 10).await;
        hand.sent.lock().clear();
        let again = replay("again", "trigger: t, from: '0:2', to: '0:6'");
        for _ in 0..3 {
            stage.apply(&[manifests.as_str(), &again].concat()).await;
            assert_eq!(stage.plan.problems, []);
        }
        let line = stage.completed("again").await;
        assert_eq!((line.expected, line.matched, line.delivered), (Some(4), 4, 4), "{line:?}");
        assert_eq!((line.from.as_str(), line.to.as_str(), line.position), ("0:2", "0:6", None));
        assert_eq!(sorted(&hand), [2, 3, 4, 5]);
        let marks = marks.lock().clone();
        assert_eq!(marks[..10], vec![None; 10], "what the trigger itself sends has none");
        assert_eq!(marks[10..], vec![Some("again".to_owned()); 4]);
        stage.publish("b", 10..12).await;
        let line = stage.until("t", |line| line.delivered == 12).await;
        assert_eq!(line.matched, 12, "{line:?}");
        assert_eq!(stage.replay("again").matched, 4);
        let status = stage.engine.status(&StatusQuery::default()).await;
        assert_eq!((status.triggers.len(), status.replays.len()), (1, 1));
        let resource = status.resources.iter().find(|line| line.kind == "Replay").expect("it is told of");
        assert!(resource.ready && resource.reason == "Completed", "{resource:?}");
        stage.shut_down().await;
    });
}

#[test]
fn nothing_but_a_replay_reads_old_events_again() {
    on_one_thread(async {
        let hand = Hand::takes_all("rpaccident");
        let (mut stage, manifests) = with_past("rpaccident", 5).await;
        hand.sent.lock().clear();
        let again = replay("again", "trigger: t, from: earliest");
        stage.apply(&[manifests.as_str(), &again].concat()).await;
        stage.completed("again").await;
        // Its manifest goes and comes back, beside a new trigger; and the other one changes what it matches.
        let changed =
            [BROKER, &sink("rpaccident"), &trigger("t", "rpaccident", "filters: [{exact: {type: t}}]")];
        let changed = [&changed.concat(), trigger("u", "rpaccident", "").as_str()].concat();
        for manifests in [&manifests, &[manifests.as_str(), &again].concat(), &changed] {
            stage.apply(manifests).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(sorted(&hand), [0, 1, 2, 3, 4]);
        assert_eq!(stage.replay("again").state, "Completed");
        stage.shut_down().await;
    });
}

#[test]
fn a_filter_and_another_destination_are_its_own() {
    on_one_thread(async {
        let (hand, other) = (Hand::takes_all("rpown"), Hand::takes_all("rpother"));
        let (mut stage, manifests) = with_past("rpown", 3).await;
        for id in 3..6 {
            stage.publish_event("b", event(&id.to_string(), "wanted")).await;
        }
        stage.until("t", |line| line.delivered == 6).await;
        hand.sent.lock().clear();
        let to = "subscriber: {ref: {apiVersion: waypost.dev/v1alpha1, kind: Sink, name: rpother}}";
        let again = replay("again", &format!("{to}, from: earliest, filters: [{{exact: {{type: wanted}}}}]"));
        stage.apply(&[manifests.as_str(), &sink("rpother"), &again].concat()).await;
        assert_eq!(stage.plan.problems, []);
        let line = stage.completed("again").await;
        assert_eq!((line.expected, line.delivered), (Some(3), 3), "{line:?}");
        assert_eq!((sorted(&other), sorted(&hand)), (vec![3, 4, 5], vec![]));
        stage.shut_down().await;
    });
}

#[test]
fn a_rate_of_its_own_holds() {
    on_one_thread(async {
        let _hand = Hand::takes_all("rprate");
        let (stage, _) = with_past("rprate", 50).await;
        let delivery = json!({"ratePerSecond": 10, "burst": 1});
        let spec = json!({"broker": "b", "trigger": "t", "from": "earliest", "delivery": delivery});
        let begun = Instant::now();
        stage.engine.start_replay(request("again", spec)).await.expect("it starts");
        stage.completed("again").await;
        let taken = begun.elapsed();
        assert!((4..=6).contains(&taken.as_secs()), "{taken:?}");
        stage.shut_down().await;
    });
}

#[test]
fn where_the_log_begins_later_is_said() {
    on_one_thread(async {
        let hand = Hand::takes_all("rptrimmed");
        let broker = BROKER.replace("log: memory", "log: memory, retention: {age: PT10S}");
        let manifests = [broker.as_str(), &sink("rptrimmed"), &trigger("t", "rptrimmed", "")].concat();
        let stage = Stage::of(&manifests).await;
        stage.publish("b", 0..5).await;
        stage.until("t", |line| line.delivered == 5).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        stage.publish("b", 5..7).await;
        stage.until("t", |line| line.delivered == 7).await;
        hand.sent.lock().clear();
        for (name, from) in [("position", "0:0"), ("time", "2020-01-01T00:00:00Z")] {
            let spec = json!({"broker": "b", "trigger": "t", "from": from});
            stage.engine.start_replay(request(name, spec)).await.expect("it starts");
            let line = stage.completed(name).await;
            assert_eq!((line.expected, line.delivered), (Some(2), 2), "{line:?}");
            assert!(line.notices[0].contains("the log begins at 0:5"), "{line:?}");
            assert!(line.message.contains("the log begins at 0:5"), "{line:?}");
        }
        let spec = json!({"broker": "b", "trigger": "t", "from": "earliest"});
        stage.engine.start_replay(request("all", spec)).await.expect("it starts");
        assert_eq!(stage.completed("all").await.notices, [] as [String; 0]);
        stage.shut_down().await;
    });
}

#[test]
fn repeats_are_not_sent_again_either() {
    on_one_thread(async {
        let hand = Hand::takes_all("rprepeat");
        let broker = BROKER.replace("log: memory", "log: memory, deduplication: {window: PT10M}");
        let manifests = [broker.as_str(), &sink("rprepeat"), &trigger("t", "rprepeat", "")].concat();
        let mut stage = Stage::of(&manifests).await;
        for ids in [0..4, 2..6] {
            stage.publish("b", ids).await;
        }
        stage.until("t", |line| line.delivered == 6).await;
        hand.sent.lock().clear();
        let again = replay("again", "trigger: t, from: '0:2'");
        let past = trigger("u", "rprepeat", "startFrom: earliest");
        stage.apply(&[manifests.as_str(), &again].concat()).await;
        let line = stage.completed("again").await;
        assert_eq!((line.expected, line.matched), (Some(4), 4), "{line:?}");
        assert_eq!(sorted(&hand), [2, 3, 4, 5]);
        stage.apply(&[manifests.as_str(), &again, &past].concat()).await;
        assert_eq!(stage.until("u", |line| line.delivered == 6).await.matched, 6);
        stage.shut_down().await;
    });
}

#[test]
fn the_filter_of_the_trigger_counts_as_it_was_when_the_replay_started() {
    on_one_thread(async {
        let hand = Hand::takes_all("rpedit");
        let (mut stage, manifests) = with_past("rpedit", 4).await;
        hand.sent.lock().clear();
        hand.shut();
        let again = replay("again", "trigger: t, from: earliest");
        stage.apply(&[manifests.as_str(), &again].concat()).await;
        stage.replay_until("again", |line| line.matched == 4).await;
        let never = trigger("t", "rpedit", "filters: [{exact: {type: never}}]");
        stage.apply(&[BROKER, &sink("rpedit"), &never, &again].concat()).await;
        hand.open();
        assert_eq!(stage.completed("again").await.delivered, 4);
        assert_eq!(sorted(&hand), [0, 1, 2, 3]);
        stage.shut_down().await;
    });
}

#[test]
fn a_trigger_that_is_gone_is_waited_for() {
    on_one_thread(async {
        let hand = Hand::takes_all("rpgone");
        let (mut stage, manifests) = with_past("rpgone", 4).await;
        hand.sent.lock().clear();
        let again = replay("again", "trigger: t, from: earliest, paused: true");
        stage.apply(&[manifests.as_str(), &again].concat()).await;
        stage.replay_until("again", |line| line.state == "Paused" && line.matched == 4).await;
        let again = replay("again", "trigger: t, from: earliest");
        stage.apply(&[BROKER, &sink("rpgone"), &again].concat()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let line = stage.replay("again");
        assert!(!line.ready && line.reason == "Waiting" && line.message.contains("default/t"), "{line:?}");
        assert_eq!((line.pending, sorted(&hand)), (4, vec![]));
        stage.apply(&[manifests.as_str(), &again].concat()).await;
        assert_eq!(stage.completed("again").await.delivered, 4);
        stage.shut_down().await;
    });
}

#[test]
fn a_broker_that_is_detached_halts_its_replays() {
    on_one_thread(async {
        let hand = Hand::takes_all("rpdetached");
        let (mut stage, manifests) = with_past("rpdetached", 4).await;
        hand.sent.lock().clear();
        let again = replay("again", "trigger: t, from: earliest, paused: true");
        stage.apply(&[manifests.as_str(), &again].concat()).await;
        stage.replay_until("again", |line| line.state == "Paused" && line.matched == 4).await;
        let again = replay("again", "trigger: t, from: earliest");
        stage.apply(&[sink("rpdetached"), trigger("t", "rpdetached", ""), again.clone()].concat()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((stage.replay("again").reason.as_str(), sorted(&hand)), ("Waiting", vec![]));
        stage.apply(&[manifests.as_str(), &again].concat()).await;
        assert_eq!(stage.completed("again").await.delivered, 4);
        stage.shut_down().await;
    });
}

#[test]
fn what_waits_for_its_trigger_starts_when_that_is_there() {
    on_one_thread(async {
        let hand = Hand::takes_all("rplate");
        let (mut stage, manifests) = with_past("rplate", 3).await;
        hand.sent.lock().clear();
        let again = replay("again", "trigger: later, from: earliest");
        stage.apply(&[manifests.as_str(), &again].concat()).await;
        let line = stage.replay("again");
        assert!(line.state == "Waiting" && line.message.contains("default/later"), "{line:?}");
        stage.apply(&[manifests.as_str(), &trigger("later", "rplate", ""), &again].concat()).await;
        assert_eq!(stage.completed("again").await.delivered, 3);
        stage.shut_down().await;
    });
}

#[test]
fn an_operator_pauses_resumes_and_cancels() {
    on_one_thread(async {
        let hand = Hand::takes_all("rpoperator");
        let (mut stage, manifests) = with_past("rpoperator", 6).await;
        hand.sent.lock().clear();
        let held = replay("held", "trigger: t, from: earliest, paused: true");
        stage.apply(&[manifests.as_str(), &held].concat()).await;
        let refused = stage.engine.pause_replay(&named("held"), false).await;
        assert_eq!(refused, Err(ReplayError::PausedByManifest(named("held"))));
        let spec = json!({"broker": "b", "trigger": "t", "from": "earliest", "delivery": {"maxInFlight": 1}});
        hand.shut();
        hand.gate.add_permits(2);
        let mut paused = spec.clone();
        paused["paused"] = json!(true);
        stage.engine.start_replay(request("again", paused)).await.expect("it starts");
        stage.replay_until("again", |line| line.state == "Paused" && line.matched == 6).await;
        stage.engine.pause_replay(&named("again"), false).await.expect("it is paused");
        stage.replay_until("again", |line| line.delivered == 2).await;
        let line = stage.engine.pause_replay(&named("again"), true).await.expect("it runs");
        assert_eq!((line.state, line.paused), ("Paused", true));
        hand.open();
        tokio::time::sleep(Duration::from_secs(10)).await;
        // What was with the subscriber has ended.
        assert_eq!(stage.replay("again").delivered, 3);
        hand.shut();
        hand.gate.add_permits(1);
        stage.engine.pause_replay(&named("again"), false).await.expect("it is paused");
        stage.replay_until("again", |line| line.delivered == 4).await;
        let line = stage.engine.cancel_replay(&named("again")).await.expect("it runs");
        assert_eq!(
            (line.state, line.delivered, line.dropped, line.pending),
            ("Cancelled", 4, 2, 0),
            "{line:?}"
        );
        assert_eq!(line.dropped_by_reason.get("operator"), Some(&2));
        hand.open();
        for refused in [
            stage.engine.cancel_replay(&named("again")).await,
            stage.engine.pause_replay(&named("again"), true).await,
        ] {
            assert!(matches!(refused, Err(ReplayError::Ended { .. })), "{refused:?}");
        }
        let twice = stage.engine.start_replay(request("again", spec)).await;
        assert_eq!(twice, Err(ReplayError::Exists(named("again"))));
        let unknown = stage.engine.cancel_replay(&named("other")).await;
        assert_eq!(unknown, Err(ReplayError::Unknown(named("other"))));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(stage.replay("again").delivered, 4);
        stage.shut_down().await;
    });
}

#[test]
fn what_the_api_started_survives_reloads_and_what_a_manifest_started_ends_with_it() {
    on_one_thread(async {
        let hand = Hand::takes_all("rpreload");
        let (mut stage, manifests) = with_past("rpreload", 3).await;
        hand.shut();
        let spec = json!({"broker": "b", "trigger": "t", "from": "earliest"});
        stage.engine.start_replay(request("api", spec)).await.expect("it starts");
        let declared = replay("declared", "trigger: t, from: earliest");
        stage.apply(&[manifests.as_str(), &declared].concat()).await;
        for name in ["api", "declared"] {
            stage.replay_until(name, |line| line.matched == 3).await;
        }
        stage.apply(&manifests).await;
        let line = stage.replay("declared");
        assert_eq!((line.state, line.dropped, line.pending), ("Cancelled", 3, 0), "{line:?}");
        hand.open();
        assert_eq!(stage.completed("api").await.delivered, 3);
        stage.apply(&[manifests.as_str(), &declared].concat()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(stage.replay("declared").delivered, 0, "it runs once");
        stage.apply(&manifests).await;
        stage.apply(&[manifests.as_str(), &replay("declared", "trigger: t, from: '0:1'")].concat()).await;
        let line = stage.replay("declared");
        assert!(!line.ready && line.message.contains("name a new Replay"), "{line:?}");
        stage.shut_down().await;
    });
}

#[test]
fn a_manifest_with_an_error_leaves_what_was_started_alone() {
    on_one_thread(async {
        let hand = Hand::takes_all("rpbroken");
        let (mut stage, manifests) = with_past("rpbroken", 3).await;
        hand.sent.lock().clear();
        let paused = replay("again", "trigger: t, from: earliest, paused: true");
        stage.apply(&[manifests.as_str(), &paused].concat()).await;
        stage.replay_until("again", |line| line.state == "Paused").await;
        for broken in ["trigger: t, from: yesterday", "trigger: t, from: '0:1'"] {
            stage.apply(&[manifests.as_str(), &replay("again", broken)].concat()).await;
            assert_eq!(stage.plan.problems.len(), 1, "{broken}");
            assert_eq!(stage.replay("again").state, "Paused", "{broken}");
        }
        let resumed = replay("again", "trigger: t, from: earliest");
        stage.apply(&[manifests.as_str(), &resumed].concat()).await;
        assert_eq!(stage.completed("again").await.delivered, 3);
        stage.shut_down().await;
    });
}

#[test]
fn an_estimate_counts_and_changes_nothing() {
    on_one_thread(async {
        let hand = Hand::takes_all("rpestimate");
        let (stage, _) = with_past("rpestimate", 8).await;
        hand.sent.lock().clear();
        let spec = json!({"broker": "b", "trigger": "t", "from": "0:5", "to": "0:100"});
        let estimate = stage.engine.estimate_replay(request("again", spec)).await.expect("it is counted");
        assert_eq!(estimate.expected, 3);
        assert!(estimate.notices[0].contains("ends before 0:8"), "{estimate:?}");
        assert_eq!((stage.engine.replays(), sorted(&hand)), (vec![], vec![]));
        for (spec, code) in [
            (json!({"broker": "b", "trigger": "t"}), "E0853"),
            (json!({"broker": "b", "trigger": "absent", "from": "earliest"}), "E0853"),
            (json!({"broker": "absent", "subscriber": {"uri": "http://x/"}, "from": "earliest"}), "E0853"),
            (json!({"broker": "b", "trigger": "t", "from": "7:0"}), "E0853"),
            (json!("earliest"), "E0853"),
        ] {
            let refused =
                stage.engine.start_replay(request("again", spec.clone())).await.expect_err("it is wrong");
            assert_eq!(refused.code().id(), code, "{spec}");
        }
        assert_eq!(stage.engine.replays(), []);
        stage.shut_down().await;
    });
}

#[test]
fn what_cannot_be_delivered_is_a_dead_letter_of_the_replay() {
    on_one_thread(async {
        let hand = Hand::takes_all("rpletters");
        let (stage, _) = with_past("rpletters", 3).await;
        hand.answer(|_, _| permanent());
        let spec = json!({"broker": "b", "trigger": "t", "from": "earliest"});
        stage.engine.start_replay(request("again", spec)).await.expect("it starts");
        let line = stage.completed("again").await;
        assert_eq!((line.dead_lettered, line.dead_letters_stored), (3, 3), "{line:?}");
        let line = stage.trigger("t").await;
        assert_eq!((line.dead_lettered, line.dead_letters_stored, line.delivered), (0, 0, 3), "{line:?}");
        stage.shut_down().await;
    });
}

fn open(directory: &Path) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(EmbeddedOptions::new(directory), Clock::system()).expect("it can be opened")
}

/// What an engine left. An engine lets go of its directory only with the process.
pub(super) fn copied(from: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for file in std::fs::read_dir(from).expect("it can be listed") {
            let file = file.expect("it can be listed");
            let to = to.join(file.file_name());
            if file.path().is_dir() {
                std::fs::create_dir(&to).expect("it is new");
                copy(&file.path(), &to);
            } else {
                std::fs::copy(file.path(), to).expect("there is room");
            }
        }
    }
    let to = tempfile::tempdir().expect("there is room");
    copy(from, to.path());
    to
}

/// An engine over what an earlier one left.
async fn durable(store: &Arc<EmbeddedStore>, version: u64, manifests: &str) -> Stage {
    let engine = Engine::new(EngineOptions {
        clock: Clock::system(),
        limits: Limits::default(),
        store: Some(Arc::clone(store)),
        detached_retention: DEFAULT_DETACHED_RETENTION,
    });
    let mut stage = Stage { engine, plan: Plan::default(), version };
    stage.apply(manifests).await;
    stage
}

#[tokio::test]
async fn a_replay_goes_on_in_a_later_process_and_never_runs_twice() {
    let directory = tempfile::tempdir().expect("there is room");
    let hand = Hand::takes_all("rpdurable");
    let manifests = [DURABLE, &sink("rpdurable"), &trigger("t", "rpdurable", "")].concat();
    let declared = [&manifests, replay("declared", "trigger: t, from: '0:1', to: '0:9'").as_str()].concat();
    let store = open(directory.path());
    let stage = durable(&store, 0, &manifests).await;
    stage.publish("b", 0..10).await;
    stage.until("t", |line| line.delivered == 10).await;
    hand.sent.lock().clear();
    let mut stage = stage;
    let spec = json!({"broker": "b", "trigger": "t", "from": "earliest", "delivery": {"maxInFlight": 1}});
    hand.shut();
    hand.gate.add_permits(3);
    stage.engine.start_replay(request("api", spec)).await.expect("it starts");
    stage.replay_until("api", |line| line.delivered == 3).await;
    stage.apply(&declared).await;
    stage.replay_until("declared", |line| line.matched == 8).await;
    stage.engine.pause_replay(&named("declared"), true).await.expect("it runs");
    let left = stage.engine.shutdown(Instant::now() + Duration::from_secs(4)).await;
    assert_eq!(left, [] as [String; 0], "what hangs is cut");
    drop(stage);
    store.close().await;

    hand.open();
    let directory = copied(directory.path());
    let store = open(directory.path());
    let stage = durable(&store, 10, &declared).await;
    let line = stage.completed("api").await;
    assert_eq!((line.expected, line.matched, line.delivered), (Some(10), 10, 10), "{line:?}");
    let line = stage.replay("declared");
    assert_eq!((line.state, line.matched), ("Paused", 8), "{line:?}");
    stage.engine.pause_replay(&named("declared"), false).await.expect("it is paused");
    stage.completed("declared").await;
    let sent = hand.sent().len();
    stage.shut_down().await;
    store.close().await;

    let directory = copied(directory.path());
    let store = open(directory.path());
    let stage = durable(&store, 20, &declared).await;
    for (name, delivered) in [("api", 10), ("declared", 8)] {
        let line = stage.replay(name);
        assert_eq!((line.state, line.delivered), ("Completed", delivered), "{line:?}");
    }
    assert_eq!(hand.sent().len(), sent, "what has ended stays so");
    assert_eq!(stage.trigger("t").await.matched, 10);
    stage.shut_down().await;
}
