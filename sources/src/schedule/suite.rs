use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;
use waypost_core::codes;
use waypost_core::sink::BoxFuture;
use waypost_core::source::Emit;

use super::*;

fn config(value: Value) -> ScheduleConfig {
    serde_json::from_value(value).expect("the settings are well formed")
}

fn schedule(settings: Value) -> Box<Schedule<impl Fn() -> Timestamp + Send + Sync>> {
    let start = Instant::now();
    // 2020-01-01T00:00:00.25Z, and from there as tokio's clock, which the tests hold still.
    let now = move || Timestamp::from_millisecond(1_577_836_800_250).unwrap() + start.elapsed();
    Box::new(Schedule { config: config(settings), name: ResourceName::new("shop", "beat"), now })
}

/// A broker that notes what it is offered and answers by a script; once that is at its end it accepts.
#[derive(Default)]
struct Broker {
    script: Mutex<VecDeque<EmitError>>,
    offered: Mutex<Vec<(Event, Bytes)>>,
    start: Option<Bytes>,
}

impl Broker {
    fn refusing(errors: impl IntoIterator<Item = EmitError>) -> Arc<Self> {
        Arc::new(Self { script: Mutex::new(errors.into_iter().collect()), ..Self::default() })
    }

    fn events(&self) -> Vec<Event> {
        self.offered.lock().unwrap().iter().map(|(event, _)| event.clone()).collect()
    }
}

impl Emit for Broker {
    fn emit(
        &self,
        events: Vec<Event>,
        checkpoint: Option<Bytes>,
    ) -> BoxFuture<'_, Result<Commit, EmitError>> {
        let [event] = <[Event; 1]>::try_from(events).unwrap();
        self.offered.lock().unwrap().push((event, checkpoint.unwrap()));
        let answer = self.script.lock().unwrap().pop_front();
        Box::pin(async move { Ok(Commit::new(async move { answer.map_or(Ok(()), Err) })) })
    }

    fn checkpoint(&self) -> Option<Bytes> {
        self.start.clone()
    }

    fn report(&self, problem: Option<SourceError>) {
        assert_eq!(problem, None);
    }
}

fn refused() -> EmitError {
    EmitError::Refused { code: codes::SINK_UNAVAILABLE, detail: "the log is full".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn emits_on_whole_multiples_of_the_interval_until_the_count_is_reached() {
    let broker = Broker::refusing([]);
    let source = schedule(json!({"interval": "PT1S", "count": 3, "event": {"type": "tick"}}));
    source.run(Emitter::new(broker.clone()), CancellationToken::new()).await.unwrap();
    let events = broker.events();
    let times: Vec<_> = events.iter().map(|event| event.time().unwrap()).collect();
    assert_eq!(times, ["2020-01-01T00:00:01Z", "2020-01-01T00:00:02Z", "2020-01-01T00:00:03Z"]);
    assert_eq!(events[0].id(), "shop/beat/2020-01-01T00:00:01Z");
    assert_eq!(events[0].source(), "/apis/waypost.dev/v1alpha1/namespaces/shop/sources/beat");
    assert_eq!(events[0].event_type(), "tick");
    assert_eq!(events[0].data(), None);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_is_offered_again_unchanged_and_missed_ticks_are_skipped() {
    let broker = Broker::refusing(std::iter::repeat_n(refused(), 8));
    let source = schedule(json!({"interval": "PT1S", "count": 2, "event": {"type": "tick"}}));
    source.run(Emitter::new(broker.clone()), CancellationToken::new()).await.unwrap();
    let events = broker.events();
    assert_eq!(events.len(), 10);
    assert!(events[..9].iter().all(|event| *event == events[0]));
    // 0.1 + 0.2 + 0.4 + ... + 6.4 + 10 seconds of pauses have passed since the first tick.
    assert_eq!(events[9].time(), Some("2020-01-01T00:00:24Z"));
}

#[tokio::test(start_paused = true)]
async fn stops_when_the_broker_is_gone() {
    let broker = Broker::refusing([EmitError::Closed]);
    let source = schedule(json!({"interval": "PT1S", "event": {"type": "tick"}}));
    source.run(Emitter::new(broker.clone()), CancellationToken::new()).await.unwrap();
    assert_eq!(broker.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn stops_when_told_to_also_between_two_offers() {
    for script in [vec![], vec![refused(); 100]] {
        let broker = Broker::refusing(script);
        let source = schedule(json!({"interval": "PT1S", "event": {"type": "tick"}}));
        let shutdown = CancellationToken::new();
        let stopping = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            shutdown.cancel();
        };
        let (result, ()) = tokio::join!(source.run(Emitter::new(broker.clone()), shutdown.clone()), stopping);
        result.unwrap();
        assert!(!broker.events().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn goes_on_after_the_checkpoint() {
    let first = Broker::refusing([]);
    let settings = json!({"interval": "PT1S", "count": 2, "event": {"type": "tick"}});
    schedule(settings).run(Emitter::new(first.clone()), CancellationToken::new()).await.unwrap();
    let checkpoint = first.offered.lock().unwrap()[0].1.clone();

    let second = Arc::new(Broker { start: Some(checkpoint), ..Broker::default() });
    let settings = json!({"interval": "PT1S", "count": 3, "event": {"type": "tick"}});
    schedule(settings).run(Emitter::new(second.clone()), CancellationToken::new()).await.unwrap();
    let times: Vec<_> = second.events().iter().map(|event| event.time().unwrap().to_owned()).collect();
    assert_eq!(times, ["2020-01-01T00:00:02Z", "2020-01-01T00:00:03Z"]);
}

#[test]
fn a_tick_never_repeats_and_the_wait_is_bounded_whatever_the_clock_does() {
    let second = Duration::from_secs(1);
    let at = |milliseconds| Timestamp::from_millisecond(milliseconds).unwrap();
    assert_eq!(next_tick(at(2_250), second, None), (at(3_000), Duration::from_millis(750)));
    assert_eq!(next_tick(at(3_000), second, Some(3_000_000_000)), (at(4_000), second));
    // Behind by two and a half ticks: they are skipped.
    assert_eq!(next_tick(at(6_500), second, Some(3_000_000_000)), (at(7_000), Duration::from_millis(500)));
    // The clock was set back by an hour.
    assert_eq!(next_tick(at(3_000), second, Some(3_603_000_000_000)), (at(3_604_000), second));
    assert_eq!(next_tick(at(-1_500), second, None), (at(-1_000), Duration::from_millis(500)));
}

#[test]
fn data_is_written_as_its_content_type_asks() {
    let name = ResourceName::new("default", "s");
    for (template, data, content_type) in [
        (json!({"type": "t"}), None, None),
        (json!({"type": "t", "data": null}), Some("null"), Some("application/json")),
        (
            json!({"type": "t", "data": {"b": 1, "a": [true]}}),
            Some(r#"{"b":1,"a":[true]}"#),
            Some("application/json"),
        ),
        (json!({"type": "t", "data": "text"}), Some(r#""text""#), Some("application/json")),
        (
            json!({"type": "t", "data": {}, "dataContentType": "application/vnd.x+json"}),
            Some("{}"),
            Some("application/vnd.x+json"),
        ),
        (
            json!({"type": "t", "data": "text", "dataContentType": "text/plain"}),
            Some("text"),
            Some("text/plain"),
        ),
    ] {
        let template: EventTemplate = serde_json::from_value(template).unwrap();
        let event = template.event(&name, "1".to_owned(), "2020-01-01T00:00:00Z".to_owned()).unwrap();
        assert_eq!(event.data_bytes(), data.map(str::as_bytes));
        assert_eq!(event.data_content_type(), content_type);
    }
}

#[test]
fn extensions_keep_their_types() {
    use waypost_core::event::AttributeType;
    let template =
        json!({"type": "t", "subject": "s", "source": "urn:x", "extensions": {"a": 1, "b": true, "c": "1"}});
    let template: EventTemplate = serde_json::from_value(template).unwrap();
    let name = ResourceName::new("default", "s");
    let event = template.event(&name, "1".to_owned(), "2020-01-01T00:00:00Z".to_owned()).unwrap();
    let types = ["a", "b", "c"].map(|name| event.attribute(name).unwrap().attribute_type);
    assert_eq!(types, [AttributeType::Integer, AttributeType::Boolean, AttributeType::String]);
    assert_eq!((event.subject(), event.source()), (Some("s"), "urn:x"));
}

#[test]
fn what_cannot_be_emitted_is_refused_with_its_field() {
    for (settings, path, hint) in [
        (json!({"interval": "PT0S", "event": {"type": "t"}}), "interval", "PT0.001S"),
        (json!({"interval": "P5000D", "event": {"type": "t"}}), "interval", "not an interval"),
        (json!({"interval": "PT1S", "count": 0, "event": {"type": "t"}}), "count", "positive"),
        (json!({"interval": "PT1S", "event": {"type": ""}}), "event.type", "E0603"),
        (json!({"interval": "PT1S", "event": {"type": "t", "subject": ""}}), "event.subject", "E0603"),
        (json!({"interval": "PT1S", "event": {"type": "t", "source": "a b"}}), "event.source", "E0609"),
        (
            json!({"interval": "PT1S", "event": {"type": "t", "dataContentType": "x"}}),
            "event.dataContentType",
            "E0612",
        ),
        (
            json!({"interval": "PT1S", "event": {"type": "t", "extensions": {"trace-id": "x"}}}),
            "event.extensions.trace-id",
            "E0604",
        ),
        (
            json!({"interval": "PT1S", "event": {"type": "t", "extensions": {"id": "x"}}}),
            "event.extensions.id",
            "not an extension",
        ),
        (
            json!({"interval": "PT1S", "event": {"type": "t", "data": {}, "dataContentType": "text/plain"}}),
            "event.data",
            "not a string",
        ),
    ] {
        let problems = config(settings).validate();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].path, path, "{problems:?}");
        assert!(problems[0].message.contains(hint), "{problems:?}");
    }
    assert_eq!(config(json!({"interval": "PT1S", "event": {"type": "t"}})).validate(), []);
}
