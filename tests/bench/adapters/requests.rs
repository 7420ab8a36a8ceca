//! Sinks that write many events in one request, beside themselves with one event in each.

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use waypost_tests::servers::opensearch::{self, OpenSearch};
use waypost_tests::servers::s3s::{self, S3s};

use super::{Settings, Trial, drained, with_sink};
use crate::failure::Failure;
use crate::stage::{Generator, Load, Log, Stage, Waypost};

/// What is sent here goes to the sink at once, each event in a request of its own.
const SINK_PATH: &str = "/bench/sinks/out";

const TEN_TIMES: f64 = 10.0;

/// Documents in bulk requests.
pub(super) fn elasticsearch(
    stage: &Stage,
    runtime: &Runtime,
    settings: Settings,
) -> Result<Option<Trial>, Failure> {
    let Some(node) = runtime.block_on(OpenSearch::start()) else { return Ok(None) };
    // Texts as keywords, as logs and events are mapped in production: by default each is also taken apart into words, and
    // then it is that which is measured.
    let texts = json!({"texts": {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 256}}});
    let template = json!({
        "index_patterns": ["single-*", "many-*"], "template": {"mappings": {"dynamic_templates": [texts]}},
    });
    runtime.block_on(node.ask("PUT", "/_index_template/bench", &template.to_string()));
    let password = json!({"value": opensearch::PASSWORD});
    let sink = |index: String| {
        json!({"elasticsearch": {
            "urls": [node.url()], "index": index, "tls": {"ca": {"value": node.certificate()}},
            "auth": {"basic": {"username": {"value": opensearch::USER}, "password": password}},
        }})
    };
    let single = |round| one_by_one(stage, &sink(format!("single-{round}")), settings.seconds);
    let many = |round| drained(stage, &sink(format!("many-{round}")), settings.seconds).map(|(rate, _)| rate);
    trial("Elasticsearch in batches").measure(settings, single, many).map(Some)
}

/// Objects of many events.
pub(super) fn s3(stage: &Stage, runtime: &Runtime, settings: Settings) -> Result<Option<Trial>, Failure> {
    let Some(server) = runtime.block_on(S3s::start()) else { return Ok(None) };
    runtime.block_on(server.create("events"));
    let sink = |folder: String, batch: Value| {
        json!({"s3": {
            "bucket": "events", "region": "us-east-1", "endpoint": server.endpoint(), "batch": batch,
            "key": if batch.is_null() { format!("{folder}/${{id}}") } else { folder },
            "credentials": {"accessKeyId": {"value": s3s::KEY_ID}, "secretAccessKey": {"value": s3s::KEY}},
        }})
    };
    let single = |round| one_by_one(stage, &sink(format!("single-{round}"), Value::Null), settings.seconds);
    let batch = json!({"lingerSeconds": 1});
    let many = |round| {
        drained(stage, &sink(format!("many-{round}"), batch.clone()), settings.seconds).map(|(rate, _)| rate)
    };
    trial("S3 in batches").measure(settings, single, many).map(Some)
}

fn trial(name: &'static str) -> Trial {
    Trial {
        name,
        beside: "one event per request",
        wanted_ratio: TEN_TIMES,
        other: Vec::new(),
        ours: Vec::new(),
    }
}

/// How fast events go out that are sent to the sink itself, as many at a time as a trigger would send.
fn one_by_one(stage: &Stage, sink: &Value, seconds: f64) -> Result<f64, Failure> {
    let waypost = Waypost::start(stage, Log::Durable, &with_sink(sink, true))?;
    let load = Load { seconds, rate: None, run: 1, types: None };
    let connections = u64::from(stage.connections);
    let generated = Generator::start(stage, waypost.ingress, SINK_PATH, load, connections)?.ended()?;
    if generated.accepted == 0 || !generated.refused.is_empty() {
        let detail = format!("refused {:?}, unanswered {}", generated.refused, generated.unanswered);
        return Err(Failure::NothingAccepted { case: "one event per request".to_owned(), detail });
    }
    Ok(generated.accepted as f64 / generated.seconds)
}
