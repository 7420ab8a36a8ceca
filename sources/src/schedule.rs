//! `schedule`: one event per interval.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use waypost_core::Event;
use waypost_core::duration::IsoDuration;
use waypost_core::event::{AttributeValue, EventBuilder, InvalidEvent, declares_json};
use waypost_core::manifest::{FieldProblem, ResourceName};
use waypost_core::sink::ComponentContext;
use waypost_core::source::{Commit, EmitError, Emitter, Source, SourceConfig, SourceError};

/// The shortest interval that a schedule takes.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// The longest interval that a schedule takes: ten years.
const MAX_INTERVAL: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The wait before an event that the broker refused is offered again the first time; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest wait before an event that the broker refused is offered again.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Emits one event per interval, at whole multiples of the interval since 1970-01-01T00:00:00Z: `PT1S` on every
/// second, `PT15M` on the quarters of an hour.
///
/// An event is emitted once its predecessor is committed; what falls due in between is skipped. The `id` is made of
/// the source's name and the time of the tick, so that a repeat is recognisable, and `time` is the time of the
/// tick.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The time from one event to the next, at least `PT0.001S`.
    interval: IsoDuration,
    /// The event that each tick emits.
    event: EventTemplate,
    /// How many events to emit before the source is done. Without it there is no end.
    #[schemars(range(min = 1))]
    count: Option<u64>,
}

/// The event that each tick emits. `id`, `time` and `specversion` are filled in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EventTemplate {
    /// The `type` of the event.
    r#type: String,
    /// The `source` of the event, a URI-reference; `/apis/waypost.dev/v1alpha1/namespaces/NAMESPACE/sources/NAME`
    /// where none is given.
    source: Option<String>,
    /// The `subject` of the event.
    subject: Option<String>,
    /// The media type of the data; `application/json` where there is data and nothing is said.
    data_content_type: Option<String>,
    /// The data: any JSON, `null` included; a string where `dataContentType` is not JSON. Without it the event has no
    /// data.
    #[serde(default, deserialize_with = "given")]
    data: Option<Value>,
    /// Extension attributes by name: a-z and 0-9 only.
    #[serde(default)]
    extensions: BTreeMap<String, ExtensionValue>,
}

/// The value of an extension attribute, with the type that it is written with.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum ExtensionValue {
    /// `true` or `false`
    Boolean(bool),
    /// A whole number of 32 bits.
    Integer(i32),
    /// Any text.
    String(String),
}

/// Keeps `data: null` apart from no `data` at all.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl EventTemplate {
    fn event(&self, name: &ResourceName, id: String, time: String) -> Result<Event, InvalidEvent> {
        let source = self.source.clone().unwrap_or_else(|| {
            let ResourceName { namespace, name } = name;
            format!("/apis/waypost.dev/v1alpha1/namespaces/{namespace}/sources/{name}")
        });
        let mut builder = Event::builder(id, source, self.r#type.clone()).time(time);
        if let Some(subject) = &self.subject {
            builder = builder.subject(subject.clone());
        }
        for (name, value) in &self.extensions {
            let value = match value {
                ExtensionValue::Boolean(value) => AttributeValue::from(*value),
                ExtensionValue::Integer(value) => AttributeValue::from(*value),
                ExtensionValue::String(value) => AttributeValue::from(value.clone()),
            };
            builder = builder.attribute(name.clone(), value);
        }
        if let Some(content_type) = &self.data_content_type {
            builder = builder.data_content_type(content_type.clone());
        }
        self.with_data(builder).build()
    }

    fn with_data(&self, builder: EventBuilder) -> EventBuilder {
        let json = self.data_content_type.as_deref().is_none_or(declares_json);
        match &self.data {
            None => builder,
            Some(Value::String(text)) if !json => builder.text_data(text.clone()),
            Some(data) => builder.json_data(data.to_string()),
        }
    }

    /// What is wrong with the template, whatever the tick.
    fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let reserved =
            ["id", "source", "type", "specversion", "time", "subject", "datacontenttype", "dataschema"];
        for name in self.extensions.keys().filter(|name| reserved.contains(&name.as_str())) {
            problems.push(FieldProblem {
                path: format!("event.extensions.{name}"),
                message: format!(
                    "`{name}` is not an extension: `type`, `source`, `subject` and `dataContentType` have fields of their \
                     own, and the other attributes are filled in"
                ),
            });
        }
        let json = self.data_content_type.as_deref().is_none_or(declares_json);
        if !json && self.data.as_ref().is_some_and(|data| !data.is_string()) {
            problems.push(FieldProblem {
                path: "event.data".to_owned(),
                message: "the data is not a string: write a string, or a `dataContentType` that is JSON"
                    .to_owned(),
            });
        }
        let sample = ResourceName::new("default", "sample");
        if problems.is_empty()
            && let Err(invalid) = self.event(&sample, "sample".to_owned(), Timestamp::UNIX_EPOCH.to_string())
        {
            let field = match invalid.attribute.as_deref() {
                Some("datacontenttype") => "event.dataContentType".to_owned(),
                Some(name @ ("type" | "source" | "subject")) => format!("event.{name}"),
                Some(name) if self.extensions.contains_key(name) => format!("event.extensions.{name}"),
                _ => "event".to_owned(),
            };
            problems.push(FieldProblem {
                path: field,
                message: format!("{} ({})", invalid.detail, invalid.code),
            });
        }
        problems
    }
}

impl SourceConfig for ScheduleConfig {
    const TYPE: &'static str = "schedule";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.event.problems();
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&self.interval.0) {
            let (least, most) = (IsoDuration(MIN_INTERVAL), IsoDuration(MAX_INTERVAL));
            problems.push(FieldProblem {
                path: "interval".to_owned(),
                message: format!(
                    "`{}` is not an interval: write one from `{least}` to `{most}`",
                    self.interval
                ),
            });
        }
        if self.count == Some(0) {
            problems.push(FieldProblem {
                path: "count".to_owned(),
                message:
                    "`0` events are none: write a positive number, or remove the field to emit without end"
                        .to_owned(),
            });
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Schedule { config: self.clone(), name: context.name, now: Timestamp::now }))
    }
}

struct Schedule<N = fn() -> Timestamp> {
    config: ScheduleConfig,
    name: ResourceName,
    now: N,
}

impl<N> fmt::Debug for Schedule<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule")
            .field("name", &self.name)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// How far a schedule has come: its checkpoint in the log.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Progress {
    /// The events that are committed.
    emitted: u64,
    /// The tick of the last one, in nanoseconds since 1970.
    last: Option<i64>,
}

#[async_trait]
impl<N: Fn() -> Timestamp + Send + Sync> Source for Schedule<N> {
    async fn run(self: Box<Self>, emitter: Emitter, shutdown: CancellationToken) -> Result<(), SourceError> {
        // A checkpoint that cannot be read is one of another version: the clock alone then says what is next.
        let mut progress: Progress = emitter
            .checkpoint()
            .and_then(|checkpoint| serde_json::from_slice(&checkpoint).ok())
            .unwrap_or_default();
        emitter.ready();
        while self.config.count.is_none_or(|count| progress.emitted < count) {
            let (tick, wait) = next_tick((self.now)(), self.config.interval.0, progress.last);
            if shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return Ok(());
            }
            let event = self.event_of(tick)?;
            let next = Progress { emitted: progress.emitted + 1, last: Some(nanoseconds(tick)) };
            match offer(&emitter, &event, next, &shutdown).await {
                Offered::Committed => progress = next,
                Offered::Stopped => return Ok(()),
            }
        }
        Ok(())
    }
}

impl<N> Schedule<N> {
    fn event_of(&self, tick: Timestamp) -> Result<Event, SourceError> {
        let id = format!("{}/{tick}", self.name);
        self.config.event.event(&self.name, id, tick.to_string()).map_err(|invalid| SourceError {
            code: invalid.code,
            class: waypost_core::Class::Misconfigured,
            detail: invalid.detail,
        })
    }
}

enum Offered {
    Committed,
    Stopped,
}

/// Offers one event until it is committed, the broker is gone or the source shall stop.
async fn offer(
    emitter: &Emitter,
    event: &Event,
    progress: Progress,
    shutdown: &CancellationToken,
) -> Offered {
    let checkpoint = serde_json::to_vec(&progress).expect("two numbers are always JSON");
    let mut pause = FIRST_PAUSE;
    loop {
        let emitted = emitter.emit(vec![event.clone()], Some(checkpoint.clone().into()));
        let outcome = match shutdown.run_until_cancelled(emitted).await {
            None => return Offered::Stopped,
            // What was handed over is waited for, also during a shutdown: the engine bounds that wait.
            Some(Ok(commit)) => Commit::resolved(commit).await,
            Some(Err(error)) => Err(error),
        };
        match outcome {
            Ok(()) => return Offered::Committed,
            Err(EmitError::Closed) => return Offered::Stopped,
            Err(EmitError::Refused { code, detail }) => {
                // Once per event: further refusals of it say nothing new.
                if pause == FIRST_PAUSE {
                    tracing::warn!(
                        code = code.id(),
                        detail,
                        "the broker refused a scheduled event; it is offered again"
                    );
                }
            }
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Offered::Stopped;
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// The next tick, and how long to wait for it. A tick never repeats, and the wait is never longer than the interval,
/// however the clock is set.
fn next_tick(now: Timestamp, interval: Duration, last: Option<i64>) -> (Timestamp, Duration) {
    let interval = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX);
    let now = nanoseconds(now);
    let aligned = (now.div_euclid(interval)).saturating_add(1).saturating_mul(interval);
    let next = last.map_or(aligned, |last| aligned.max(last.saturating_add(interval)));
    let wait = next.saturating_sub(now).clamp(0, interval).unsigned_abs();
    let tick = Timestamp::UNIX_EPOCH + SignedDuration::from_nanos(next);
    (tick, Duration::from_nanos(wait))
}

/// Nanoseconds since 1970, which last until the year 2262.
fn nanoseconds(timestamp: Timestamp) -> i64 {
    i64::try_from(timestamp.as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod suite;
