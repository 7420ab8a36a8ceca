//! Elasticsearch 8 and 9 and OpenSearch: the bulk interface, and what failures mean.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use waypost_core::manifest::FieldProblem;
use waypost_core::secret::SecretValue;
use waypost_core::sink::ComponentContext;

use crate::http::{Answered, BasicCredentials, HttpTls, Site, secret};
use crate::problem::{Problem, ProblemKind};

/// The most bytes of an answer that are kept: some for each event of a full batch of which all are refused.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// The most characters of the server's own words in a sentence.
const REASON_LIMIT: usize = 300;

/// Only what is looked at is asked for.
const BULK: &str =
    "_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,error,status";

/// Who we are to Elasticsearch or OpenSearch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ElasticsearchAuth {
    /// A user and a password.
    Basic(BasicCredentials),
    /// An API key of Elasticsearch in its encoded form, as it is shown when it is made.
    ApiKey(SecretValue),
}

/// How to reach a cluster: what the settings say.
#[derive(Debug, Clone, Copy)]
pub struct ElasticsearchConnection<'c> {
    /// The nodes, each as a URL; a path before the interface is kept.
    pub urls: &'c [String],
    /// Who we are, where it asks.
    pub auth: Option<&'c ElasticsearchAuth>,
    /// TLS to the nodes.
    pub tls: Option<&'c HttpTls>,
}

/// A cluster that can be called.
#[derive(Debug)]
pub struct Elasticsearch {
    /// At least one.
    nodes: Vec<Site>,
    authorization: Option<HeaderValue>,
    /// The node that is asked next, modulo their number.
    turn: AtomicUsize,
}

/// What the settings of one sink fix, whatever the event: a failure that names it is no fault of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkTerms<'t> {
    /// Whether a document that is there already means that it was written before: `create`.
    pub is_create: bool,
    /// Whether the index is the same for every event.
    pub index_is_fixed: bool,
    /// The pipeline that documents go through.
    pub pipeline: Option<&'t str>,
}

/// What became of a bulk request as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bulk {
    /// It was looked at: what became of each item, in order.
    Items(Vec<Result<(), Problem>>),
    /// It is too large, or one of its items keeps it from being read: smaller parts may do.
    TooMuch(Problem),
    /// Nothing of it was taken.
    Failed(Problem),
}

impl ElasticsearchConnection<'_> {
    /// What is wrong with the settings, whatever the cluster says to them.
    pub fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = self.tls.map(|tls| tls.problems("tls")).unwrap_or_default();
        let mut problem = |path: String, message: String| problems.push(FieldProblem { path, message });
        if self.urls.is_empty() {
            problem("urls".to_owned(), "there is none: name at least one node, as a URL".to_owned());
        }
        for (index, url) in self.urls.iter().enumerate() {
            let path = format!("urls[{index}]");
            match crate::http::Target::parse(url, None) {
                Err(error) => problem(path, error.to_string()),
                Ok(target) if target.uri().query().is_some() => {
                    problem(path, "it has a query: write the URL without it".to_owned());
                }
                Ok(_) => {}
            }
        }
        problems
    }

    /// Prepares the calls. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ProblemKind::Settings`] where a secret is not there, or URLs or certificates cannot be used.
    pub fn open(&self, context: &ComponentContext) -> Result<Elasticsearch, Problem> {
        let authorization = match self.auth {
            None => None,
            Some(ElasticsearchAuth::Basic(basic)) => Some(basic.authorization(context)?),
            Some(ElasticsearchAuth::ApiKey(key)) => {
                let key = secret(key, context)?;
                let mut value =
                    HeaderValue::from_str(&format!("ApiKey {}", key.expose().trim())).map_err(|_| {
                        Problem::new(ProblemKind::Settings, "the API key is none: it has line breaks in it")
                    })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let nodes = self.urls.iter().map(|url| HttpTls::target(self.tls, url, context).map(Site::new));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(Problem::new(ProblemKind::Settings, "no node is named; write one in `urls`"));
        }
        Ok(Elasticsearch { nodes, authorization, turn: AtomicUsize::new(0) })
    }
}

impl Elasticsearch {
    /// Sends lines of actions and documents.
    ///
    /// Cancel safety: of a dropped call it is not known what was written.
    pub async fn bulk(&self, lines: Bytes, items: usize, terms: BulkTerms<'_>) -> Bulk {
        let mut path = BULK.to_owned();
        if let Some(pipeline) = terms.pipeline {
            path.push_str("&pipeline=");
            path.push_str(&in_query(pipeline));
        }
        match self.call(Method::POST, &path, lines).await {
            Ok(answer) => bulk_of(&answer, items, terms),
            Err(problem) => Bulk::Failed(problem),
        }
    }

    /// Reaches the cluster and changes nothing: whether it knows us, and whether it has, or would make, a fixed index
    /// and the pipeline.
    ///
    /// # Errors
    /// Why a bulk request would not stand a chance.
    pub async fn check(&self, index: Option<&str>, terms: BulkTerms<'_>) -> Result<(), Problem> {
        // Refused for being empty, by whoever may send it.
        let answer = self.call(Method::POST, "_bulk", Bytes::new()).await?;
        match (answer.status.as_u16(), reason(&answer.body)) {
            (400, Some(_)) => {}
            _ => return Err(of_status(&answer)),
        }
        if let Some(pipeline) = terms.pipeline {
            let path = format!("_ingest/pipeline/{}", in_query(pipeline));
            if self.call(Method::GET, &path, Bytes::new()).await?.status == 404 {
                return Err(Problem::new(
                    ProblemKind::Absent,
                    format!(
                        "the cluster has no ingest pipeline `{pipeline}`; create it, or correct its name"
                    ),
                ));
            }
        }
        let Some(index) = index else { return Ok(()) };
        let is_elastic = answer.headers.contains_key("x-elastic-product");
        if is_elastic && self.lacks_rights(index, terms.is_create).await? {
            return Err(Problem::new(
                ProblemKind::Unauthorized,
                format!(
                    "the user or key may not write to `{index}`; give it the right to, or correct `auth`"
                ),
            ));
        }
        let looked = self.call(Method::HEAD, &in_query(index), Bytes::new()).await?;
        if looked.status == 404 && self.makes_no_index().await? {
            return Err(absent(index));
        }
        Ok(())
    }

    /// Whether Elasticsearch says that we may not write; false where it does not say.
    async fn lacks_rights(&self, index: &str, is_create: bool) -> Result<bool, Problem> {
        let right = if is_create { "create_doc" } else { "index" };
        let asked = serde_json::json!({"index": [{"names": [index], "privileges": [right]}]}).to_string();
        let answer = self.call(Method::POST, "_security/user/_has_privileges", asked.into()).await?;
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(answer.status == 200 && said["has_all_requested"] == false)
    }

    /// Whether no index is made by writing to it, as far as we may know.
    async fn makes_no_index(&self) -> Result<bool, Problem> {
        const SETTING: &str = "action.auto_create_index";
        let path = "_cluster/settings?include_defaults=true&flat_settings=true";
        let answer = self.call(Method::GET, path, Bytes::new()).await?;
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let mut levels = ["transient", "persistent", "defaults"].iter().map(|level| &said[level][SETTING]);
        Ok(levels.find_map(serde_json::Value::as_str) == Some("false"))
    }

    /// Asks the nodes in turn, the next one where no connection can be made.
    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Answered, Problem> {
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let media_type = if path.starts_with("_bulk") { "application/x-ndjson" } else { "application/json" };
        if matches!(method, Method::POST) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = None;
        for at in 0..self.nodes.len() {
            let node = &self.nodes[first.wrapping_add(at) % self.nodes.len()];
            let uri = node.path(path)?;
            match node.call(method.clone(), uri, headers.clone(), body.clone(), ANSWER_LIMIT).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let problem = node.problem(&error);
                    if !error.is_unconnected() {
                        return Err(problem);
                    }
                    last = Some(problem);
                }
            }
        }
        Err(last
            .unwrap_or_else(|| Problem::new(ProblemKind::Settings, "no node is named; write one in `urls`")))
    }
}

/// Says that an index is not there.
fn absent(index: &str) -> Problem {
    let detail = format!(
        "the cluster has no index `{index}` and makes none by itself; create it, or a template for it, or correct its name"
    );
    Problem::new(ProblemKind::Absent, detail)
}

/// A text as it may stand in a path or a query.
fn in_query(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let encode = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

#[derive(Deserialize)]
struct BulkAnswer {
    items: Option<Vec<BulkItem>>,
}

/// One item: under the name of its action.
#[derive(Deserialize)]
struct BulkItem {
    #[serde(alias = "create", alias = "update", alias = "delete")]
    index: BulkResult,
}

#[derive(Deserialize)]
struct BulkResult {
    status: u16,
    error: Option<Reason>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Reason {
    #[serde(rename = "type", default)]
    name: String,
    #[serde(default)]
    reason: Option<String>,
}

/// What an answer to a bulk request means.
fn bulk_of(answer: &Answered, items: usize, terms: BulkTerms<'_>) -> Bulk {
    match answer.status.as_u16() {
        200 => {}
        413 => return Bulk::TooMuch(of_status(answer)),
        400 => return Bulk::TooMuch(of_status(answer)),
        _ => return Bulk::Failed(of_status(answer)),
    }
    if answer.is_cut {
        let detail =
            format!("the cluster answered with more than {ANSWER_LIMIT} bytes; send smaller batches");
        return Bulk::Failed(Problem::new(ProblemKind::Unavailable, detail));
    }
    let read: Result<BulkAnswer, _> = serde_json::from_slice(&answer.body);
    let Ok(BulkAnswer { items: Some(told) }) = read else {
        // A page that says that someone should log in, for instance: nothing was written.
        let detail = "what answers is no Elasticsearch or OpenSearch; check `urls` for host, port and path";
        return Bulk::Failed(Problem::new(ProblemKind::Settings, detail));
    };
    let mut outcomes: Vec<_> = told.into_iter().take(items).map(|item| of_item(&item.index, terms)).collect();
    outcomes.resize_with(items, || {
        Err(Problem::new(ProblemKind::Unavailable, "the cluster did not say what became of the document"))
    });
    Bulk::Items(outcomes)
}

/// What the status of a whole request means.
fn of_status(answer: &Answered) -> Problem {
    let said = reason(&answer.body).map(|reason| reason.sentence());
    let said = said.or_else(|| Some(shortened(std::str::from_utf8(&answer.body).ok()?.trim())));
    let said = said.filter(|said| !said.is_empty()).map(|said| format!(": {said}")).unwrap_or_default();
    let status = answer.status.as_u16();
    let (kind, advice) = match status {
        401 => (ProblemKind::Unauthorized, "; check `auth`"),
        403 => (ProblemKind::Unauthorized, "; check `auth`, and what the user or key may do"),
        429 => (ProblemKind::Overloaded, ""),
        503 => (ProblemKind::Overloaded, "; check the state of the cluster"),
        408 | 500.. => (ProblemKind::Unavailable, "; check the state of the cluster"),
        400 => (ProblemKind::Refused, ""),
        413 => (ProblemKind::Refused, "; raise `http.max_content_length`, or send smaller events"),
        300..=399 => {
            (ProblemKind::Settings, "; redirects are not followed: write the URL that it leads to in `urls`")
        }
        _ => (ProblemKind::Settings, "; what answers may be no Elasticsearch or OpenSearch: check `urls`"),
    };
    Problem::new(kind, format!("the cluster answered {status}{said}{advice}"))
}

/// What became of one item. What depends on values of the event is refused, and never a fault of the settings.
fn of_item(item: &BulkResult, terms: BulkTerms<'_>) -> Result<(), Problem> {
    let error = item.error.clone().unwrap_or_default();
    let about = |text: &str| error.reason.as_deref().is_some_and(|reason| reason.contains(text));
    let (kind, advice) = match (item.status, error.name.as_str()) {
        (200..300, _) => return Ok(()),
        // It was written before, and the answer was lost.
        (409, _) if terms.is_create => return Ok(()),
        (429, _) => (ProblemKind::Overloaded, ""),
        // A disk that is nearly full, for instance.
        (_, "cluster_block_exception") => (ProblemKind::Unavailable, "; check the disks of the cluster"),
        (401 | 403, _) if terms.index_is_fixed => {
            (ProblemKind::Unauthorized, "; give the user or key the right to write to the index")
        }
        (400, _) if terms.pipeline.is_some_and(|name| about(&format!("pipeline with id [{name}]"))) => {
            (ProblemKind::Absent, "; create the pipeline, or correct its name")
        }
        (400, _) if about("shards open") => {
            (ProblemKind::Unavailable, "; delete indexes, or raise `cluster.max_shards_per_node`")
        }
        (400, _) if about("op_type of create") => {
            (ProblemKind::Settings, "; the index is a data stream: set `dataStream`")
        }
        (404, _) if error.name == "index_not_found_exception" => {
            (ProblemKind::Absent, "; create it, or a template for it, or correct its name")
        }
        (_, "invalid_index_name_exception") => (ProblemKind::Settings, "; correct `index`"),
        (_, "index_closed_exception") => (ProblemKind::Absent, "; open the index"),
        (408 | 409 | 500.., _) => (ProblemKind::Unavailable, ""),
        _ => (ProblemKind::Refused, ""),
    };
    let problem = Problem::new(
        kind,
        format!("the cluster did not take the document ({}): {}{advice}", item.status, error.sentence()),
    );
    let about_index =
        matches!(kind, ProblemKind::Absent | ProblemKind::Settings) && !advice.contains("pipeline");
    Err(if about_index && !terms.index_is_fixed { problem.of_this_event() } else { problem })
}

impl Reason {
    fn sentence(&self) -> String {
        let reason = shortened(self.reason.as_deref().unwrap_or_default());
        match (self.name.as_str(), reason.is_empty()) {
            (name, true) => name.to_owned(),
            ("", false) => reason,
            (name, false) => format!("{reason} ({name})"),
        }
    }
}

/// The reason in the body of an error.
fn reason(body: &[u8]) -> Option<Reason> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    match &body["error"] {
        serde_json::Value::String(text) => Some(Reason { name: String::new(), reason: Some(text.clone()) }),
        error => Reason::deserialize(error).ok(),
    }
}

fn shortened(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut short: String =
        text.chars().take(REASON_LIMIT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod suite;
