//! Kafka, by the client that source and sink are built on.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use serde_json::json;
use tokio::runtime::Runtime;
use waypost_tests::servers::kafka::Kafka;

use super::{RECEIVED, Settings, Trial, drained, rate_of, resource, with_broker};
use crate::clock::{self, SECOND};
use crate::failure::Failure;
use crate::request::DATA_BYTES;
use crate::stage::{Log, Stage, Waypost};

/// How long the client may be without a record.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a producer whose queue is full waits.
const FULL_PAUSE: Duration = Duration::from_millis(1);

fn failed(doing: &str) -> impl Fn(KafkaError) -> Failure {
    move |error| Failure::Protocol { what: "Kafka", detail: format!("{doing}: {error}") }
}

/// What stands in the records of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Records {
    /// CloudEvents in binary mode: attributes in headers.
    Events,
    /// Data alone.
    Plain,
}

/// The source, with no trigger, beside a consumer that drops what it reads.
pub(super) fn source(
    stage: &Stage,
    runtime: &Runtime,
    settings: Settings,
    of: Records,
) -> Result<Option<Trial>, Failure> {
    let Some(kafka) = runtime.block_on(Kafka::start()) else { return Ok(None) };
    runtime.block_on(kafka.create("bench", 1));
    produced(&kafka.address(), "bench", of, settings.records.into())?;
    let trial = Trial {
        name: match of {
            Records::Events => "Kafka source",
            Records::Plain => "Kafka source plain",
        },
        beside: "the same client reading and dropping",
        wanted_ratio: 0.6,
        other: Vec::new(),
        ours: Vec::new(),
    };
    let bare = |round| read_and_dropped(&kafka.address(), &format!("bare-{round}"), settings.records);
    let ours = |round| {
        let kafka = json!({
            "bootstrapServers": [kafka.address()], "topics": ["bench"], "consumerGroup": format!("ours-{round}"),
        });
        let sink =
            json!({"ref": {"apiVersion": "waypost.dev/v1alpha1", "kind": "Broker", "name": "default"}});
        let source = resource("Source", "in", &json!({"kafka": kafka, "sink": sink}));
        let waypost = Waypost::start(stage, Log::Durable, &with_broker(&[source]))?;
        let rate = rate_of(&waypost, RECEIVED, settings.records.into())?;
        waypost.wrote(settings.records.into())?;
        Ok(rate)
    };
    trial.measure(settings, bare, ours).map(Some)
}

/// The sink, draining a backlog, beside a producer of the same records.
pub(super) fn sink(stage: &Stage, runtime: &Runtime, settings: Settings) -> Result<Option<Trial>, Failure> {
    let Some(kafka) = runtime.block_on(Kafka::start()) else { return Ok(None) };
    let trial = Trial {
        name: "Kafka sink",
        beside: "a bare producer of the same client",
        wanted_ratio: 0.6,
        other: Vec::new(),
        ours: Vec::new(),
    };
    let records = Cell::new(u64::from(settings.records));
    let bare = |round| {
        let topic = format!("bare-{round}");
        runtime.block_on(kafka.create(&topic, 1));
        produced(&kafka.address(), &topic, Records::Events, records.get())
    };
    let ours = |round| {
        let topic = format!("ours-{round}");
        runtime.block_on(kafka.create(&topic, 1));
        let sink = json!({"kafka": {"bootstrapServers": [kafka.address()], "topic": topic}});
        let (rate, events) = drained(stage, &sink, settings.seconds)?;
        records.set(events);
        Ok(rate)
    };
    trial.measure(settings, bare, ours).map(Some)
}

/// How fast a producer sends records like those of the sink, with all its guarantees, until the last is acknowledged.
fn produced(address: &str, topic: &str, of: Records, records: u64) -> Result<f64, Failure> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .create()
        .map_err(failed("making a producer"))?;
    let data = vec![b'x'; DATA_BYTES];
    let begun = clock::now();
    for number in 0..records {
        let id = number.to_string();
        let attributes = [
            ("ce_specversion", "1.0"),
            ("ce_id", id.as_str()),
            ("ce_source", "/bench"),
            ("ce_type", "bench.event"),
        ];
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(&data);
        if of == Records::Events {
            let headers = attributes.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(*value) })
            });
            record = record.headers(headers);
        }
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    clock::pause(FULL_PAUSE);
                }
                Err((error, _)) => return Err(failed("producing")(error)),
            }
        }
    }
    producer.flush(PATIENCE).map_err(failed("waiting for the last records"))?;
    Ok(records as f64 / ((clock::now() - begun).max(1) as f64 / SECOND as f64))
}

/// How fast a consumer reads all records of the topic, from the first one on.
fn read_and_dropped(address: &str, group: &str, records: u32) -> Result<f64, Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .create()
        .map_err(failed("making a consumer"))?;
    consumer.subscribe(&["bench"]).map_err(failed("subscribing"))?;
    let (mut read, mut begun, mut last) = (0, clock::now(), Instant::now());
    while read < records {
        match consumer.poll(PATIENCE) {
            Some(Ok(record)) => {
                std::hint::black_box(&record);
                if read == 0 {
                    begun = clock::now();
                }
                (read, last) = (read + 1, Instant::now());
            }
            Some(Err(error)) => return Err(failed("reading")(error)),
            // It also returns whenever something else happened, such as a rebalance.
            None if last.elapsed() < PATIENCE => {}
            None => {
                let detail = format!("{read} of {records} records came");
                return Err(Failure::Protocol { what: "Kafka", detail });
            }
        }
    }
    Ok(f64::from(read - 1) / ((clock::now() - begun).max(1) as f64 / SECOND as f64))
}
