//! `waypost check --connect`: reaches each system that sources, sinks and triggers name, and changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use waypost_core::manifest::{Location, Mark, Problem, ResourceId, Severity};
use waypost_core::sink::{BoxFuture, ComponentContext};
use waypost_core::{Code, codes};
use waypost_engine::plan::{Plan, ResourceKey, Subscriber};

use crate::failure::Failure;
use crate::secret_sources::ProcessSecrets;

/// How long one system may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many systems are asked at one time.
const AT_ONCE: usize = 16;

/// How one system answered.
#[derive(Debug)]
pub(crate) struct Reached {
    /// Who names the system.
    pub(crate) id: ResourceId,
    /// Why it would not do now, where it would not.
    pub(crate) problem: Option<Problem>,
}

/// What a look ends with: why the system would not do.
type Look = BoxFuture<'static, Result<(), (Code, String)>>;

/// Looks at every system once, several at one time. In the order of the resources.
pub(crate) fn connect(plan: &Plan) -> Result<Vec<Reached>, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|error| {
        let detail = format!("the threads that look at systems cannot be started: {error}");
        Failure::new(codes::PROCESS_RESOURCE_MISSING, detail)
    })?;
    let reached = runtime.block_on(look(looks(plan)));
    // What a client does in the background is not waited for.
    runtime.shutdown_background();
    let reached = reached.into_iter().map(|(id, outcome)| {
        let problem = outcome.err().map(|(code, message)| problem(plan, &id, code, message));
        Reached { id, problem }
    });
    Ok(reached.collect())
}

async fn look(looks: Vec<(ResourceId, Look)>) -> Vec<(ResourceId, Result<(), (Code, String)>)> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    let mut outcomes = BTreeMap::new();
    for (number, (id, look)) in looks.into_iter().enumerate() {
        let stopped =
            (codes::ATTEMPT_PANICKED, "looking at the system panicked; please report this".to_owned());
        outcomes.insert(number, (id, Err(stopped)));
        let places = Arc::clone(&places);
        tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            let outcome = tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| {
                Err((codes::CALL_FAILED, format!("there was no answer within {PATIENCE:?}")))
            });
            (number, outcome)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Ok((number, outcome)) = ended
            && let Some(row) = outcomes.get_mut(&number)
        {
            row.1 = outcome;
        }
    }
    outcomes.into_values().collect()
}

/// What there is to look at.
fn looks(plan: &Plan) -> Vec<(ResourceId, Look)> {
    let secrets = plan.secrets.clone().with_outside(Arc::new(ProcessSecrets));
    let context = |id: &ResourceId| ComponentContext { name: id.resource_name(), secrets: secrets.clone() };
    let mut looks: Vec<(ResourceId, Look)> = Vec::new();
    for source in plan.sources.values() {
        let (config, context) = (Arc::clone(&source.config), context(&source.id));
        looks.push((
            source.id.clone(),
            Box::pin(async move {
                let source = config.build(context).await.map_err(|error| (error.code, error.detail))?;
                source.check().await.map_err(|error| (error.code, error.detail))
            }),
        ));
    }
    for sink in plan.sinks.values() {
        let (config, context) = (Arc::clone(&sink.config), context(&sink.id));
        looks.push((
            sink.id.clone(),
            Box::pin(async move {
                let sink = config.build(context).await.map_err(|error| (error.code, error.detail))?;
                sink.check().await.map_err(|error| (error.code, error.detail))
            }),
        ));
    }
    for trigger in plan.triggers.values() {
        if let Subscriber::Http(destination) = &trigger.subscriber {
            let url = destination.url.clone();
            looks.push((trigger.id.clone(), Box::pin(async move { listens(&url).await })));
        }
    }
    looks
}

/// Whether anyone listens where a subscriber should be. Nothing is sent: a request could mean something to it.
async fn listens(url: &str) -> Result<(), (Code, String)> {
    let unreachable =
        |reason: String| (codes::SUBSCRIBER_UNREACHABLE, format!("{url} cannot be reached: {reason}"));
    let uri: Uri = url.parse().map_err(|_| unreachable("it is no URL".to_owned()))?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    TcpStream::connect((host, port)).await.map(drop).map_err(|error| unreachable(error.to_string()))
}

fn problem(plan: &Plan, id: &ResourceId, code: Code, message: String) -> Problem {
    let origin = plan.origins.get(&ResourceKey::of(id));
    Problem {
        code,
        severity: Severity::Error,
        message,
        help: "mend it, or leave it: a running broker looks again until it holds".to_owned(),
        location: origin.map(|origin| Location {
            file: Arc::clone(&origin.file),
            mark: Mark { line: origin.line, column: 1 },
        }),
        path: "spec".to_owned(),
        resource: Some(id.clone()),
    }
}
