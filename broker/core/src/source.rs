//! The contract of a source, and how a source type is registered.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::Code;
use crate::error::Class;
use crate::event::Event;
use crate::manifest::{Configured, FieldProblem, decode_valid};
use crate::receive::Receive;
use crate::sink::{BoxFuture, ComponentContext};

/// Something that produces events.
#[async_trait]
pub trait Source: Send + Sync + fmt::Debug {
    /// What takes the requests to the URL of the source; none for a source that fetches its events itself. Asked once,
    /// before `run`; requests are taken while that runs.
    fn receiver(&self) -> Option<Arc<dyn Receive>> {
        None
    }

    /// Reaches upstream and changes nothing: whether a run would stand a chance. Asked of a source that was built and is
    /// not run.
    async fn check(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Runs until `shutdown`, and returns once the batch in hand is committed and acknowledged upstream.
    ///
    /// Upstream is acknowledged only after the [`Commit`] of its events has resolved. A source says by
    /// [`Emitter::ready`] that upstream serves it. One that returns `Ok` before `shutdown` has nothing more to say;
    /// one that returns an error is not ready, is built anew with its secrets read again after a growing pause, and
    /// goes on from what upstream or its checkpoint says was committed.
    async fn run(self: Box<Self>, emitter: Emitter, shutdown: CancellationToken) -> Result<(), SourceError>;
}

/// Why a source stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({code})")]
pub struct SourceError {
    /// The stable code of the failure.
    pub code: Code,
    /// Whether it may pass by itself.
    pub class: Class,
    /// One sentence for people, with what to do where that is known.
    pub detail: String,
}

/// A source's way into its broker.
#[derive(Clone)]
pub struct Emitter(Arc<dyn Emit>);

impl Emitter {
    /// An emitter over the engine's side of the contract.
    pub fn new(emit: Arc<dyn Emit>) -> Self {
        Self(emit)
    }

    /// Hands over events, in order, as one commit together with the checkpoint. Waits as long as the broker has no room
    /// for them, which is the source's backpressure: a source that waits here must take nothing more from upstream.
    /// While the broker refuses events the source is not ready, with the broker's reason.
    ///
    /// Cancel-safe until it returns: a dropped call has handed over nothing.
    ///
    /// # Errors
    /// [`EmitError::Closed`] once the source is told to stop, where nothing was handed over.
    pub async fn emit(&self, events: Vec<Event>, checkpoint: Option<Bytes>) -> Result<Commit, EmitError> {
        self.0.emit(events, checkpoint).await
    }

    /// The checkpoint of the last commit, as it was before the process started.
    pub fn checkpoint(&self) -> Option<Bytes> {
        self.0.checkpoint()
    }

    /// Upstream serves the source. Until the first call the source is starting.
    pub fn ready(&self) {
        self.0.report(None);
    }

    /// Upstream does not serve the source for now, and this is why. The source goes on trying, or returns.
    pub fn not_ready(&self, problem: SourceError) {
        self.0.report(Some(problem));
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Emitter")
    }
}

/// The engine's side of [`Emitter`].
pub trait Emit: Send + Sync {
    /// See [`Emitter::emit`].
    fn emit(&self, events: Vec<Event>, checkpoint: Option<Bytes>)
    -> BoxFuture<'_, Result<Commit, EmitError>>;

    /// See [`Emitter::checkpoint`].
    fn checkpoint(&self) -> Option<Bytes>;

    /// See [`Emitter::ready`] (none) and [`Emitter::not_ready`].
    fn report(&self, problem: Option<SourceError>);
}

/// Resolves once the events are durable. Until then upstream must keep them.
#[must_use = "the events are not durable until the commit resolves"]
pub struct Commit(BoxFuture<'static, Result<(), EmitError>>);

impl Commit {
    /// A commit over the log's own.
    pub fn new(resolved: impl Future<Output = Result<(), EmitError>> + Send + 'static) -> Self {
        Self(Box::pin(resolved))
    }

    /// Waits for the commit. Dropping the wait does not undo the append.
    pub async fn resolved(self) -> Result<(), EmitError> {
        self.0.await
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Commit")
    }
}

/// Why the broker did not take a source's events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The broker is gone or shutting down; the source should return.
    #[error("the broker takes no more events")]
    Closed,
    /// The broker cannot take events now; upstream keeps them and the source tries again after a pause.
    #[error("{detail} ({code})")]
    Refused {
        /// The stable code of the failure.
        code: Code,
        /// One sentence for people.
        detail: String,
    },
}

impl EmitError {
    /// What a source returns from [`Source::run`] over events that it cannot hand over.
    ///
    /// # Errors
    /// That the source is to be started again, unless it is to stop.
    pub fn end(self) -> Result<(), SourceError> {
        match self {
            Self::Closed => Ok(()),
            Self::Refused { code, detail } => Err(SourceError { code, class: Class::Retryable, detail }),
        }
    }
}

/// The configuration of a source type. The documentation comments of its fields are the user reference.
pub trait SourceConfig: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// The key under `spec`, such as `schedule`.
    const TYPE: &'static str;

    /// Checks what the types cannot express. No I/O.
    fn validate(&self) -> Vec<FieldProblem> {
        Vec::new()
    }

    /// Makes the source. May open connections, and must not wait for upstream to be reachable.
    fn build(
        &self,
        context: ComponentContext,
    ) -> impl Future<Output = Result<Box<dyn Source>, SourceError>> + Send;
}

/// A validated source configuration whose type is forgotten.
pub trait BuildSource: fmt::Debug + Send + Sync {
    /// See [`SourceConfig::build`].
    fn build(&self, context: ComponentContext) -> BoxFuture<'_, Result<Box<dyn Source>, SourceError>>;
}

impl<C: SourceConfig> BuildSource for C {
    fn build(&self, context: ComponentContext) -> BoxFuture<'_, Result<Box<dyn Source>, SourceError>> {
        Box::pin(SourceConfig::build(self, context))
    }
}

/// One row of the list of source types.
#[derive(Debug, Clone, Copy)]
pub struct SourceType {
    /// The key under `spec`.
    pub name: &'static str,
    /// Reads and validates the value under that key.
    pub configure: fn(&serde_json::Value) -> Configured<Arc<dyn BuildSource>>,
    /// The JSON schema of the value under that key.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}

impl SourceType {
    /// The row for `C`.
    pub const fn of<C: SourceConfig>() -> Self {
        Self {
            name: C::TYPE,
            configure: |value| Ok(Arc::new(decode_valid(value, C::validate)?)),
            schema: |generator| generator.subschema_for::<C>(),
        }
    }
}
