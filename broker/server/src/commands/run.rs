//! `waypost run`: the broker.

mod follower;

use std::io::{IsTerminal, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use waypost_core::codes;
use waypost_core::manifest::Problem;
use waypost_engine::plan::{Plan, plan};
use waypost_engine::{Engine, EngineOptions};
use waypost_log::Clock;
use waypost_log::embedded::{EmbeddedOptions, EmbeddedStore};

use self::follower::{ManifestFollower, Stored};
use crate::admin::{Admin, AdminToken, check_exposure};
use crate::cli::{LogKind, Run};
use crate::failure::Failure;
use crate::files::Files;
use crate::ingress::{Ingress, RequestLimits};
use crate::listener::{Bound, ConnectionLimits, Server};
use crate::logging;
use crate::open_files::{self, Connections};
use crate::present::{self, Addresses};
use crate::registry::REGISTRY;
use crate::shutdown::{StopSignals, shut_down};

/// Where logs are kept unless told otherwise.
pub(crate) const DEFAULT_DATA_DIRECTORY: &str = "waypost-data";
/// The most threads for work that blocks: reading files, and what components need.
const MAX_BLOCKING_THREADS: usize = 16;
/// How long such work may hold up the end of the process.
const BLOCKING_GRACE: Duration = Duration::from_secs(1);
/// How long the head of a request to the admin listener may take: probes must find a free place.
const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// The most connections to the admin listener.
const MAX_ADMIN_CONNECTIONS: usize = 256;
/// How long a process whose log has failed goes on, for answers that are on their way.
const POISONED_SHUTDOWN: Duration = Duration::from_secs(2);
/// The exit code after a second signal, by the convention of shells for SIGINT.
const EXIT_INTERRUPTED: u8 = 130;
/// The version of the first plan of all.
const FIRST_VERSION: u64 = 1;
/// The most problems of a reload that are logged one by one; the status has all of them.
const LOGGED_PROBLEMS: usize = 20;

/// Runs until a signal says stop.
pub(crate) fn run(arguments: &Run) -> Result<ExitCode, Failure> {
    logging::start(arguments.log_format, arguments.log_level.clone());
    let connections = open_files::raise(arguments.limits.max_connections);
    let mut files = Files::new(&arguments.manifests.paths)?;
    let token = AdminToken::load(arguments.token.admin_token_file.as_deref())?;
    let clock = Clock::system();
    let open = || -> Result<_, Failure> {
        let store = open_store(arguments, &clock)?;
        let stored = Stored::new(store, clock.clone(), arguments.detached_retention);
        let kept = stored.read()?;
        Ok((stored, kept))
    };
    let (reading, first, (stored, kept)) = if is_first_start(arguments) {
        let reading = files.read();
        // A first start is all or nothing, and leaves nothing behind where it is nothing.
        let first = plan(&reading.manifests, &REGISTRY, None, FIRST_VERSION);
        if refuses(&first) {
            return Ok(ExitCode::FAILURE);
        }
        (reading, Some(first), open()?)
    } else {
        let (reading, opened) = beside(|| files.read(), open);
        (reading, None, opened?)
    };
    let store = stored.store();
    let (manifests, first) = ManifestFollower::start(files, &reading, stored, &kept, first)?;
    if manifests.is_first_start() && refuses(&first) {
        return Ok(ExitCode::FAILURE);
    }
    // Two runtimes: what takes events in and what sends them out then does not share a scheduler, and each turn of one
    // works off many events. Deliveries may have all processors, for one event may make many of them.
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let ingress = IngressRuntime::start(processors / 2)?;
    let engine = runtime("waypost", processors)?;
    // To give back what was read of a hundred thousand triggers takes a while.
    engine.spawn_blocking(move || drop((reading, kept)));
    let parts = Parts { clock, store, token, connections, ingress: ingress.handle.clone() };
    let ended = engine.block_on(Box::pin(serve(arguments, manifests, first, parts)));
    ingress.end();
    engine.shutdown_timeout(BLOCKING_GRACE);
    ended
}

/// A runtime with so many threads, at least one. One thread alone needs no scheduler that shares work.
fn runtime(name: &str, threads: usize) -> Result<Runtime, Failure> {
    use tokio::runtime::Builder;
    let mut builder = if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| no_threads(&error))
}

fn no_threads(error: &std::io::Error) -> Failure {
    Failure::new(codes::PROCESS_RESOURCE_MISSING, format!("no threads can be started: {error}"))
}

/// The runtime of producers' connections, on a thread of its own.
struct IngressRuntime {
    handle: Handle,
    thread: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl IngressRuntime {
    fn start(threads: usize) -> Result<Self, Failure> {
        let runtime = runtime("ingress", threads)?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("ingress".to_owned()).spawn(move || {
            // Its owner says so, or is gone.
            let _ = runtime.block_on(ended);
            runtime.shutdown_timeout(BLOCKING_GRACE);
        });
        Ok(Self { handle, thread: thread.map_err(|error| no_threads(&error))?, end })
    }

    /// Ends what still runs in it.
    fn end(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("the thread of producers' connections has panicked; please report this");
        }
    }
}

/// Does both at the same time: of a hundred thousand triggers, each takes a while.
fn beside<A, B: Send>(here: impl FnOnce() -> A, beside: impl FnOnce() -> B + Send) -> (A, B) {
    std::thread::scope(|scope| {
        let beside = scope.spawn(beside);
        let here = here();
        (here, beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Whether there is no data of an earlier process, as far as can be told without opening it.
fn is_first_start(arguments: &Run) -> bool {
    arguments.log == Some(LogKind::Memory) || !data_directory(arguments).exists()
}

/// Whether a first plan has an error, which is told then.
fn refuses(first: &Plan) -> bool {
    let refused = first.problems.iter().any(Problem::is_error);
    if refused {
        let _ = std::io::stderr().lock().write_all(present::problems(&first.problems).as_bytes());
    }
    refused
}

fn data_directory(arguments: &Run) -> &Path {
    arguments.data_dir.as_deref().unwrap_or(Path::new(DEFAULT_DATA_DIRECTORY))
}

/// Opens the data directory, which this process then has alone. None is needed, nor made, where all logs are in memory.
fn open_store(arguments: &Run, clock: &Clock) -> Result<Option<Arc<EmbeddedStore>>, Failure> {
    if arguments.log == Some(LogKind::Memory) {
        return Ok(None);
    }
    let directory = data_directory(arguments);
    let options = EmbeddedOptions { limit: arguments.limits.log_limit, ..EmbeddedOptions::new(directory) };
    let store = EmbeddedStore::open(options, clock.clone());
    store.map(Some).map_err(|error| Failure::new(error.code(), error.to_string()))
}

/// What is there before the runtime starts.
struct Parts {
    clock: Clock,
    store: Option<Arc<EmbeddedStore>>,
    token: Option<AdminToken>,
    connections: Connections,
    /// The runtime of producers' connections.
    ingress: Handle,
}

async fn serve(
    arguments: &Run,
    manifests: ManifestFollower,
    first: Arc<Plan>,
    parts: Parts,
) -> Result<ExitCode, Failure> {
    let Parts { clock, store, token, connections, ingress: ingress_runtime } = parts;
    let missing = |error: std::io::Error| {
        Failure::new(codes::PROCESS_RESOURCE_MISSING, format!("signals cannot be caught: {error}"))
    };
    let mut stop_signals = StopSignals::catch().map_err(missing)?;
    let reload_signal = signal(SignalKind::hangup()).map_err(missing)?;

    // Both sockets before anything runs: a start that cannot listen has done nothing.
    let address = arguments.listen.clone();
    let taking = async move { Bound::take(&address, "events", "--listen").await };
    let listen = ingress_runtime.spawn(taking).await.expect("to bind does not panic");
    let listen = listen.map_err(|error| Failure::new(error.code(), error.to_string()))?;
    let admin_listen = Bound::take(&arguments.admin_listen, "the admin API", "--admin-listen").await;
    let admin_listen = admin_listen.map_err(|error| Failure::new(error.code(), error.to_string()))?;
    check_exposure(admin_listen.address(), token.as_ref())?;
    let addresses = Addresses { ingress: listen.address(), admin: admin_listen.address() };

    let mut poisoned = store.as_ref().map(|store| store.poisoned());
    let log = if store.is_some() { "embedded" } else { "memory" };
    let options = EngineOptions {
        clock: clock.clone(),
        limits: engine_limits(arguments, connections),
        store: store.clone(),
        detached_retention: arguments.detached_retention,
    };
    let engine = Engine::new(options);
    let limits = &arguments.limits;
    let ingress = Ingress::new(
        engine.clone(),
        clock,
        RequestLimits {
            event_bytes: limits.max_event_bytes,
            request_bytes: limits.max_request_bytes,
            body_timeout: limits.body_timeout,
        },
    );
    let connections = ConnectionLimits {
        connections: connections.producers,
        head_timeout: limits.head_timeout,
        idle_timeout: limits.idle_timeout,
    };
    let admin = Server::start(
        admin_listen,
        Admin::new(engine.clone(), ingress.clone(), token),
        ConnectionLimits {
            connections: MAX_ADMIN_CONNECTIONS,
            head_timeout: ADMIN_HEAD_TIMEOUT.min(connections.head_timeout),
            ..connections
        },
    );
    let producers = {
        let _in_its_runtime = ingress_runtime.enter();
        Server::start(listen, ingress.clone(), connections)
    };

    let welcome = present::welcome(&first, &addresses);
    log_problems(&first.problems);
    if first.declared.is_empty() {
        tracing::warn!(
            "the manifests declare nothing, so nothing takes events; see whether -f names what was meant"
        );
    }
    let version = manifests.version();
    log_applied(&first, version);
    engine.apply(first, version).await;
    ingress.open();
    tracing::info!(ingress = %addresses.ingress, admin = %addresses.admin, log, "ready");
    if std::io::stderr().is_terminal() {
        let _ = std::io::stderr().lock().write_all(welcome.as_bytes());
    }

    let stop_following = CancellationToken::new();
    let mut following = JoinSet::new();
    following.spawn(manifests.follow(engine.clone(), reload_signal, stop_following.clone()));
    let signal = tokio::select! {
        signal = stop_signals.next() => signal,
        reason = poison(poisoned.as_mut()) => {
            tracing::error!(
                code = codes::LOG_FAILED.id(), reason,
                "the log cannot be written, and nothing is acknowledged any more: mend the disk and start again"
            );
            stop_following.cancel();
            // What would be waited for needs the log: only answers on their way are let out.
            shut_down(&engine, &ingress, producers, admin, POISONED_SHUTDOWN.min(arguments.shutdown_timeout)).await;
            following.shutdown().await;
            return Ok(ExitCode::FAILURE);
        }
    };
    tracing::info!(
        signal,
        seconds = arguments.shutdown_timeout.as_secs(),
        "stopping; a second signal ends at once"
    );
    let asked = tokio::time::Instant::now();
    stop_following.cancel();
    let stopping = shut_down(&engine, &ingress, producers, admin, arguments.shutdown_timeout);
    let code = tokio::select! {
        () = stopping => ExitCode::SUCCESS,
        second = stop_signals.second(asked) => {
            tracing::warn!(signal = second, "stopped at once; what was under way is not settled, and lost where the log is in memory");
            ExitCode::from(EXIT_INTERRUPTED)
        }
    };
    following.shutdown().await;
    if let Some(store) = store {
        store.close().await;
    }
    // What failed on the way down is no clean stop: deliveries whose outcome was not written are made again.
    let failed = poisoned.is_some_and(|poisoned| poisoned.borrow().is_some());
    Ok(if failed { ExitCode::FAILURE } else { code })
}

/// Waits until the log cannot be written any more. Never ready where all logs are in memory.
async fn poison(poisoned: Option<&mut watch::Receiver<Option<String>>>) -> String {
    if let Some(poisoned) = poisoned
        && let Ok(reason) = poisoned.wait_for(Option::is_some).await
    {
        return reason.clone().unwrap_or_default();
    }
    std::future::pending().await
}

fn engine_limits(arguments: &Run, connections: Connections) -> waypost_engine::Limits {
    let limits = &arguments.limits;
    waypost_engine::Limits {
        max_event_bytes: limits.max_event_bytes,
        max_request_bytes: limits.max_request_bytes,
        ingest_budget_bytes: limits.ingest_budget,
        delivery_budget_bytes: limits.delivery_budget,
        memory_log_bytes: limits.memory_log_limit as u64,
        connections: connections.deliveries,
    }
}

fn log_problems(problems: &[Problem]) {
    for problem in problems.iter().take(LOGGED_PROBLEMS) {
        let place =
            problem.location.as_ref().map(|location| format!("{}:{}", location.file, location.mark.line));
        let (code, path, message, help) =
            (problem.code.id(), &*problem.path, &*problem.message, &*problem.help);
        if problem.is_error() {
            tracing::error!(code, place, path, help, "{message}");
        } else {
            tracing::warn!(code, place, path, help, "{message}");
        }
    }
    if problems.len() > LOGGED_PROBLEMS {
        let more = problems.len() - LOGGED_PROBLEMS;
        tracing::warn!(more, "more problems; `waypost status` or `waypost check` lists them all");
    }
}

fn log_applied(plan: &Plan, version: u64) {
    let errors = plan.problems.iter().filter(|problem| problem.is_error()).count();
    tracing::info!(version, loaded = present::resources(plan), errors, "applying the manifests");
}
