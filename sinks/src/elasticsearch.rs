//! `elasticsearch`: writes events as documents to Elasticsearch or OpenSearch.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use waypost_clients::elasticsearch::{
    Bulk, BulkTerms, Elasticsearch, ElasticsearchAuth, ElasticsearchConnection,
};
use waypost_clients::http::HttpTls;
use waypost_core::event::json as event_json;
use waypost_core::manifest::FieldProblem;
use waypost_core::sink::{BatchUnity, Batching, ComponentContext, Outcome, Sink, SinkConfig};
use waypost_core::template::Template;
use waypost_core::{DeliveryError, Event, codes};

/// The longest id of a document, in bytes.
const MAX_ID_BYTES: usize = 512;

/// The field that every document of a data stream has.
const TIMESTAMP: &str = "@timestamp";

/// Writes each event as a document to Elasticsearch 8 or 9, or to OpenSearch, many in one `_bulk` request.
///
/// The id of a document is made of `source` and `id` of the event, so that an event that is sent twice is there once. Each
/// document has an outcome of its own: what the cluster has no room for now is sent again, what does not fit the mapping of
/// the index is a dead letter, and the rest of the batch is not touched by either. A batch that is too large for the cluster
/// is sent in parts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ElasticsearchConfig {
    /// The nodes of the cluster, each as a URL. They are asked in turn; one that cannot be reached is passed over.
    urls: Vec<String>,
    /// Who we are to the cluster.
    auth: Option<ElasticsearchAuth>,
    /// TLS to nodes whose URL begins with `https`.
    tls: Option<HttpTls>,
    /// The index, or how its name is made of the event, as in `orders-${time:%Y.%m.%d}`. Where an index that was made of an
    /// event is refused, that event is a dead letter.
    index: Template,
    /// Whether `index` is a data stream: documents are created, and get a `@timestamp` from the `time` of the event (the
    /// time of writing where it has none) if they do not have one.
    #[serde(default)]
    data_stream: bool,
    /// The id of the document; made of `source` and `id` where nothing is said. One of more than 512 bytes is hashed.
    id: Option<Template>,
    /// What is done where there is a document of that id; `index` unless said otherwise, `create` for a data stream.
    operation: Option<ElasticsearchOperation>,
    /// The shard that documents go to is chosen by this; by their id where nothing is said.
    routing: Option<Template>,
    /// The ingest pipeline that documents go through.
    pipeline: Option<String>,
    /// What of the event is the document; `event` unless said otherwise.
    #[serde(default)]
    document: ElasticsearchDocument,
}

/// What is done where there is a document of that id already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum ElasticsearchOperation {
    /// It is replaced: the latest event of an id wins.
    Index,
    /// It stays, and the event counts as delivered: the first event of an id wins.
    Create,
}

/// What of the event is the document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum ElasticsearchDocument {
    /// The whole event: its attributes, and its data below `data`.
    #[default]
    Event,
    /// The data alone, which must be a JSON object.
    Data,
}

impl ElasticsearchConfig {
    fn connection(&self) -> ElasticsearchConnection<'_> {
        ElasticsearchConnection { urls: &self.urls, auth: self.auth.as_ref(), tls: self.tls.as_ref() }
    }

    fn operation(&self) -> ElasticsearchOperation {
        self.operation.unwrap_or(match self.data_stream {
            true => ElasticsearchOperation::Create,
            false => ElasticsearchOperation::Index,
        })
    }

    fn terms(&self) -> BulkTerms<'_> {
        BulkTerms {
            is_create: self.operation() == ElasticsearchOperation::Create,
            index_is_fixed: self.index.is_constant(),
            pipeline: self.pipeline.as_deref(),
        }
    }

    fn fixed_index(&self) -> Option<Cow<'_, str>> {
        // A constant template may hold `$${` for `${`, which no name of an index may have.
        self.index.is_constant().then(|| Cow::Borrowed(self.index.text()))
    }
}

impl SinkConfig for ElasticsearchConfig {
    const TYPE: &'static str = "elasticsearch";

    fn validate(&self) -> Vec<FieldProblem> {
        let mut problems = self.connection().problems();
        let mut problem = |path: &str, message: &str| {
            problems.push(FieldProblem { path: path.to_owned(), message: message.to_owned() });
        };
        if self.index.text().is_empty() {
            problem("index", "it is empty: name an index");
        }
        if let Some(index) = self.fixed_index()
            && (index.chars().any(|c| c.is_uppercase() || "\\/*?\"<>| ,#:".contains(c))
                || index.starts_with(['-', '_', '+']))
        {
            problem(
                "index",
                "it is no name of an index: write lower case, without spaces and `\\/*?\"<>|,#:`, and not beginning with `-`, \
                 `_` or `+`",
            );
        }
        if self.data_stream && self.operation == Some(ElasticsearchOperation::Index) {
            problem("operation", "a data stream takes `create` alone: leave `operation` out");
        }
        if self.pipeline.as_deref() == Some("") {
            problem("pipeline", "it is empty: name a pipeline, or leave it out");
        }
        problems
    }

    async fn build(&self, context: ComponentContext) -> Result<Arc<dyn Sink>, DeliveryError> {
        let cluster = self.connection().open(&context)?;
        Ok(Arc::new(ElasticsearchSink { config: self.clone(), cluster }))
    }
}

#[derive(Debug)]
struct ElasticsearchSink {
    config: ElasticsearchConfig,
    cluster: Elasticsearch,
}

#[async_trait]
impl Sink for ElasticsearchSink {
    async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        let now = Timestamp::now();
        let mut outcomes = vec![Outcome::Delivered; events.len()];
        // The lines of the events that can be written, with their place among all.
        let mut written = Vec::with_capacity(events.len());
        for (place, event) in events.iter().enumerate() {
            match self.config.write(event, now) {
                Ok(lines) => written.push((place, lines)),
                Err(error) => outcomes[place] = Outcome::Failed(error),
            }
        }
        // What is too large, or cannot be read for one of its items, is sent in halves. Their number is bounded by that of
        // the events.
        let mut parts: Vec<Range<usize>> = Vec::new();
        if !written.is_empty() {
            parts.push(0..written.len());
        }
        while let Some(part) = parts.pop() {
            let lines = body(&written[part.clone()]);
            let failed = match self.cluster.bulk(lines, part.len(), self.config.terms()).await {
                Bulk::Items(items) => {
                    for ((place, _), item) in written[part].iter().zip(items) {
                        if let Err(problem) = item {
                            outcomes[*place] = Outcome::Failed(problem.into());
                        }
                    }
                    continue;
                }
                Bulk::TooMuch(_) if part.len() > 1 => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                    continue;
                }
                Bulk::TooMuch(problem) => (part.clone(), problem),
                // What holds for this part holds for those behind it.
                Bulk::Failed(problem) => {
                    let end = parts.drain(..).map(|rest| rest.end).max().unwrap_or(part.end);
                    (part.start..end.max(part.end), problem)
                }
            };
            let (range, problem) = failed;
            let error = DeliveryError::from(problem);
            for (place, _) in &written[range] {
                outcomes[*place] = Outcome::Failed(error.clone());
            }
        }
        outcomes
    }

    async fn check(&self) -> Result<(), DeliveryError> {
        let index = self.config.fixed_index();
        Ok(self.cluster.check(index.as_deref(), self.config.terms()).await?)
    }

    fn batching(&self) -> Batching {
        Batching {
            max_events: 1_000,
            max_bytes: 5 * 1024 * 1024,
            linger: Duration::from_millis(20),
            unity: BatchUnity::Independent,
        }
    }
}

fn body(written: &[(usize, Bytes)]) -> Bytes {
    let mut body = BytesMut::with_capacity(written.iter().map(|(_, lines)| lines.len()).sum());
    for (_, lines) in written {
        body.extend_from_slice(lines);
    }
    body.freeze()
}

impl ElasticsearchConfig {
    /// The two lines of an event: what to do, and the document.
    fn write(&self, event: &Event, now: Timestamp) -> Result<Bytes, DeliveryError> {
        let render = |template: &Template| {
            template
                .render(event)
                .map_err(|error| DeliveryError::permanent(codes::TEMPLATE_NOT_RENDERED, error.to_string()))
        };
        let id = match &self.id {
            Some(id) => short_id(render(id)?),
            None => id_of(event),
        };
        let mut action = json!({"_index": render(&self.index)?, "_id": id});
        if let Some(routing) = &self.routing {
            action["routing"] = render(routing)?.into();
        }
        let operation = match self.operation() {
            ElasticsearchOperation::Index => "index",
            ElasticsearchOperation::Create => "create",
        };
        let (document, has_timestamp) = self.document(event)?;
        let mut lines = Vec::with_capacity(document.len() + 256);
        lines.extend_from_slice(json!({operation: action}).to_string().as_bytes());
        lines.push(b'\n');
        if self.data_stream && !has_timestamp {
            let time = event.time().map_or_else(|| now.to_string(), str::to_owned);
            lines.extend_from_slice(format!("{{\"{TIMESTAMP}\":{},", json!(time)).as_bytes());
            let rest = document.trim_ascii_start()[1..].trim_ascii_start();
            if rest.starts_with(b"}") {
                // An object without members: nothing comes behind the comma.
                lines.pop();
            }
            push_line(&mut lines, rest);
        } else {
            push_line(&mut lines, &document);
        }
        Ok(lines.into())
    }

    /// The document, a JSON object, and whether it has a `@timestamp`.
    fn document<'e>(&self, event: &'e Event) -> Result<(Cow<'e, [u8]>, bool), DeliveryError> {
        match self.document {
            ElasticsearchDocument::Event => Ok((Cow::Owned(event_json::encode(event).to_vec()), false)),
            ElasticsearchDocument::Data => {
                let data = event.data_bytes().unwrap_or_default();
                let members: BTreeMap<Cow<'_, str>, &RawValue> =
                    serde_json::from_slice(data).map_err(|_| {
                        let detail = "the data is no JSON object, and so no document; set `document: event`, or transform it";
                        DeliveryError::permanent(codes::SINK_REFUSED, detail)
                    })?;
                Ok((Cow::Borrowed(data), members.contains_key(TIMESTAMP)))
            }
        }
    }
}

/// Appends JSON as one line: its line breaks stand between values, where a space means the same.
fn push_line(lines: &mut Vec<u8>, json: &[u8]) {
    lines.extend(json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    lines.push(b'\n');
}

/// An id for the document that no other pair of `source` and `id` has: a source has no space.
fn id_of(event: &Event) -> String {
    let (source, id) = (event.source(), event.id());
    if source.contains(' ') { hashed(&format!("{source}\0{id}")) } else { short_id(format!("{source} {id}")) }
}

fn short_id(id: String) -> String {
    if id.len() > MAX_ID_BYTES { hashed(&id) } else { id }
}

fn hashed(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod suite;
