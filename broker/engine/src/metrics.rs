//! Every metric: name, unit, labels, help. Names follow Knative and OpenTelemetry where one exists.
//!
//! What is counted per event is an atomic of its own; everything else is read when someone asks.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use waypost_core::manifest::ResourceName;
use waypost_core::{Class, Code, codes};
use waypost_log::Counts;

use crate::status::LogStatus;

/// The upper bounds of the buckets of delivery times, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The most triggers that have metrics of their own; those beyond are summed under the name `(others)`.
const TRIGGERS_WITH_LABELS: usize = 10_000;

/// What is counted as it happens.
pub(crate) struct Metrics {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum_microseconds: AtomicU64,
    failures: Box<[[AtomicU64; 3]]>,
    replies: AtomicU64,
    bodies_ignored: AtomicU64,
    forwarded: AtomicU64,
    redriven: AtomicU64,
    redrives_failed: AtomicU64,
}

/// How one trigger stands.
pub(crate) struct TriggerSample {
    pub(crate) name: ResourceName,
    pub(crate) broker: ResourceName,
    pub(crate) counts: Counts,
    pub(crate) in_flight: u64,
    pub(crate) lag_events: u64,
    pub(crate) ready: bool,
    pub(crate) dead_letters_stored: u64,
    pub(crate) over_budget: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            buckets: Default::default(),
            sum_microseconds: AtomicU64::new(0),
            failures: codes::ALL.iter().map(|_| Default::default()).collect(),
            replies: AtomicU64::new(0),
            bodies_ignored: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            redriven: AtomicU64::new(0),
            redrives_failed: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// An attempt succeeded after this time.
    pub(crate) fn delivered(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.sum_microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// An attempt failed.
    pub(crate) fn failed(&self, class: Class, code: Code) {
        if let Some(row) = codes::ALL.iter().position(|known| *known == code) {
            self.failures[row][class as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The events of one answer went into a log.
    pub(crate) fn replied(&self) {
        self.replies.fetch_add(1, Ordering::Relaxed);
    }

    /// A subscriber answered with a body that is no event.
    pub(crate) fn reply_body_ignored(&self) {
        self.bodies_ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// A dead-letter sink took a dead letter.
    pub(crate) fn dead_letter_forwarded(&self) {
        self.forwarded.fetch_add(1, Ordering::Relaxed);
    }

    /// A redrive sent a dead letter, and it was taken.
    pub(crate) fn dead_letter_redriven(&self) {
        self.redriven.fetch_add(1, Ordering::Relaxed);
    }

    /// A dead letter failed again at a redrive.
    pub(crate) fn redrive_failed(&self) {
        self.redrives_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Everything in Prometheus' text format.
    pub(crate) fn encode(
        &self,
        triggers: Vec<TriggerSample>,
        logs: &[LogStatus],
        ingest_used: usize,
        panics: u64,
    ) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(Snapshot {
            buckets: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum_seconds: Duration::from_micros(self.sum_microseconds.load(Ordering::Relaxed)).as_secs_f64(),
            failures: self.failures(),
            totals: [
                (
                    "waypost_replies",
                    "answers whose events went into a log",
                    self.replies.load(Ordering::Relaxed),
                ),
                (
                    "waypost_reply_bodies_ignored",
                    "answers with a body that is no event",
                    self.bodies_ignored.load(Ordering::Relaxed),
                ),
                (
                    "waypost_dead_letters_forwarded",
                    "dead letters that a dead-letter sink took",
                    self.forwarded.load(Ordering::Relaxed),
                ),
                (
                    "waypost_dead_letters_redriven",
                    "dead letters that were taken when a redrive sent them",
                    self.redriven.load(Ordering::Relaxed),
                ),
                (
                    "waypost_dead_letters_failed_again",
                    "dead letters that failed again when a redrive sent them",
                    self.redrives_failed.load(Ordering::Relaxed),
                ),
                ("waypost_task_panics", "tasks that ended in a panic", panics),
            ],
            ingest_used,
            triggers: bounded(triggers),
            logs: logs.to_vec(),
        }));
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _infallible = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }

    fn failures(&self) -> Vec<(Class, Code, u64)> {
        let classes = [Class::Retryable, Class::Permanent, Class::Misconfigured];
        let rows = codes::ALL.iter().zip(&*self.failures);
        rows.flat_map(|(code, row)| {
            classes.map(|class| (class, *code, row[class as usize].load(Ordering::Relaxed)))
        })
        .filter(|(.., count)| *count > 0)
        .collect()
    }
}

/// Sums up what is beyond the limit of labels.
fn bounded(mut triggers: Vec<TriggerSample>) -> Vec<TriggerSample> {
    triggers.sort_by(|one, other| one.name.cmp(&other.name));
    if triggers.len() <= TRIGGERS_WITH_LABELS {
        return triggers;
    }
    let others = triggers.split_off(TRIGGERS_WITH_LABELS);
    let name = ResourceName::new("(others)", "(others)");
    let mut sum = TriggerSample {
        broker: name.clone(),
        name,
        counts: Counts::default(),
        in_flight: 0,
        lag_events: 0,
        ready: true,
        dead_letters_stored: 0,
        over_budget: 0,
    };
    for other in others {
        sum.counts = sum.counts.and(&other.counts);
        sum.in_flight += other.in_flight;
        sum.lag_events += other.lag_events;
        sum.ready &= other.ready;
        sum.dead_letters_stored += other.dead_letters_stored;
        sum.over_budget += other.over_budget;
    }
    triggers.push(sum);
    triggers
}

#[derive(Debug)]
struct Snapshot {
    buckets: Vec<u64>,
    sum_seconds: f64,
    failures: Vec<(Class, Code, u64)>,
    totals: [(&'static str, &'static str, u64); 6],
    ingest_used: usize,
    triggers: Vec<TriggerSample>,
    logs: Vec<LogStatus>,
}

/// A value with its labels.
type Sample = (Vec<(&'static str, String)>, f64);

impl prometheus_client::collector::Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut histogram = encoder.encode_descriptor(
            "kn_eventing_dispatch_duration_seconds",
            "the time of attempts that succeeded",
            None,
            MetricType::Histogram,
        )?;
        let bounds = BUCKETS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().copied()).collect();
        histogram.encode_histogram::<NoLabelSet>(
            self.sum_seconds,
            self.buckets.iter().sum(),
            &buckets,
            None,
        )?;
        for (name, help, value) in self.totals {
            family(&mut encoder, name, help, MetricType::Counter, vec![(Vec::new(), value as f64)])?;
        }
        let failures = self.failures.iter().map(|(class, code, count)| {
            (vec![("class", format!("{class:?}").to_lowercase()), ("code", code.to_string())], *count as f64)
        });
        let help = "attempts that failed, by class and code";
        family(&mut encoder, "waypost_attempts_failed", help, MetricType::Counter, failures.collect())?;
        let help = "bytes between acceptance and commit";
        let used = vec![(Vec::new(), self.ingest_used as f64)];
        family(&mut encoder, "waypost_ingest_budget_used_bytes", help, MetricType::Gauge, used)?;
        self.encode_triggers(&mut encoder)?;
        self.encode_logs(&mut encoder)
    }
}

impl Snapshot {
    fn encode_triggers(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let of = |trigger: &TriggerSample| {
            vec![
                ("namespace", trigger.name.namespace.clone()),
                ("trigger", trigger.name.name.clone()),
                ("broker", trigger.broker.name.clone()),
            ]
        };
        let mut outcomes = Vec::with_capacity(self.triggers.len() * 4);
        for trigger in &self.triggers {
            let counts = &trigger.counts;
            let mut push = |outcome: &str, count: u64| {
                let mut labels = of(trigger);
                labels.push(("outcome", outcome.to_owned()));
                outcomes.push((labels, count as f64));
            };
            push("matched", counts.matched);
            push("delivered", counts.delivered);
            push("deadLettered", counts.dead_lettered);
            for (reason, count) in counts.dropped.iter().filter(|(_, count)| *count > 0) {
                push(&format!("dropped:{reason}"), count);
            }
        }
        let help = "what became of the events that a trigger matched";
        family(encoder, "waypost_trigger_events", help, MetricType::Counter, outcomes)?;
        let over_budget = self.triggers.iter().map(|trigger| (of(trigger), trigger.over_budget as f64));
        let help = "events that a filter took more steps for than it may";
        family(encoder, "waypost_filter_over_budget", help, MetricType::Counter, over_budget.collect())?;
        type Gauge = (&'static str, &'static str, fn(&TriggerSample) -> f64);
        let gauges: [Gauge; 5] = [
            ("waypost_trigger_pending", "events still to be delivered", |trigger| {
                trigger.counts.pending as f64
            }),
            ("waypost_trigger_in_flight", "events with the subscriber now", |trigger| {
                trigger.in_flight as f64
            }),
            ("waypost_trigger_lag_events", "events not examined yet", |trigger| trigger.lag_events as f64),
            ("waypost_trigger_ready", "1 where the trigger delivers", |trigger| {
                f64::from(u8::from(trigger.ready))
            }),
            ("waypost_trigger_dead_letters_stored", "dead letters in the store", |trigger| {
                trigger.dead_letters_stored as f64
            }),
        ];
        for (name, help, value) in gauges {
            let samples = self.triggers.iter().map(|trigger| (of(trigger), value(trigger)));
            family(encoder, name, help, MetricType::Gauge, samples.collect())?;
        }
        Ok(())
    }

    fn encode_logs(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let of = |log: &LogStatus| vec![("namespace", log.namespace.clone()), ("broker", log.name.clone())];
        type Row = (&'static str, &'static str, MetricType, fn(&LogStatus) -> f64);
        let rows: [Row; 5] = [
            ("waypost_events_received", "events taken", MetricType::Counter, |log| log.received as f64),
            ("waypost_events_refused", "events refused by the log", MetricType::Counter, |log| {
                log.refused as f64
            }),
            (
                "waypost_events_repeated",
                "events that match nobody because they repeat earlier ones",
                MetricType::Counter,
                |log| log.repeated as f64,
            ),
            ("waypost_log_used_bytes", "bytes in use", MetricType::Gauge, |log| log.used_bytes as f64),
            ("waypost_log_limit_bytes", "bytes allowed", MetricType::Gauge, |log| log.limit_bytes as f64),
        ];
        for (name, help, kind, value) in rows {
            let samples = self.logs.iter().map(|log| (of(log), value(log)));
            family(encoder, name, help, kind, samples.collect())?;
        }
        Ok(())
    }
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    samples: Vec<Sample>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in samples {
        let mut sample: MetricEncoder<'_> = family.encode_family(&labels)?;
        match kind {
            MetricType::Counter => sample.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
            _ => sample.encode_gauge(&value)?,
        }
    }
    Ok(())
}

impl fmt::Debug for TriggerSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TriggerSample").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
