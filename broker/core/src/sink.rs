//! The contract of a sink, and how a sink type is registered.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::error::DeliveryError;
use crate::event::Event;
use crate::manifest::{Configured, FieldProblem, ResourceName, Secrets, decode_valid};

/// Somewhere outside that accepts events.
///
/// The engine owns batching, order, retries, rate and concurrency; a sink only sends what it is given and
/// says what became of each event. `deliver` is called by several tasks at once.
///
/// A sink that is told by its target that nothing of it will do (credentials, rights, an address that is not there)
/// gives [`Class::Misconfigured`](crate::Class::Misconfigured): the trigger pauses, and the sink is built anew, with its
/// secrets read again, before it is asked the next time.
#[async_trait]
pub trait Sink: Send + Sync + fmt::Debug {
    /// Sends the events, at most as many as [`Sink::batching`] asks for, and returns one outcome per event, in order.
    /// A missing outcome counts as retryable; behind the first failure of an ordered batch it counts as not tried.
    ///
    /// Not cancel-safe: a dropped call may or may not have sent its events. The engine drops it only when
    /// the attempt's timeout passes, and counts that as a timeout.
    async fn deliver(&self, events: &[Event]) -> Vec<Outcome>;

    /// Reaches the target and changes nothing: whether a delivery would stand a chance. Asked after the sink was built,
    /// and again until it holds; until then the sink is not ready, and is given events all the same.
    async fn check(&self) -> Result<(), DeliveryError> {
        Ok(())
    }

    /// Writes out what the sink still holds. Called once, after the last `deliver` has returned.
    async fn close(&self) -> Result<(), DeliveryError> {
        Ok(())
    }

    /// How many events the sink wants in one call, and what a failed call means for its events.
    fn batching(&self) -> Batching {
        Batching::SINGLE
    }
}

/// What became of one event at the other side.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The other side has it.
    Delivered,
    /// The other side has it and answered with events, which go to the trigger's broker in one commit.
    Replied(Vec<Event>),
    /// The other side does not have it, or it is not known whether it has.
    Failed(DeliveryError),
}

/// The batches that a sink asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// The most events in one call.
    pub max_events: usize,
    /// The most bytes of events in one call; one event larger than this is sent alone.
    pub max_bytes: usize,
    /// How long the engine may wait for a batch to fill.
    pub linger: Duration,
    /// How the events of one batch depend on each other.
    pub unity: BatchUnity,
}

impl Batching {
    /// One event per call.
    pub const SINGLE: Self =
        Self { max_events: 1, max_bytes: usize::MAX, linger: Duration::ZERO, unity: BatchUnity::Independent };
}

impl Batching {
    /// How many of these events, given by their sizes in bytes, go into one call: at least one.
    pub fn most_of(&self, sizes: impl IntoIterator<Item = usize>) -> usize {
        let mut bytes = 0_usize;
        let fits = sizes.into_iter().take(self.max_events).take_while(|size| {
            bytes = bytes.saturating_add(*size);
            bytes <= self.max_bytes
        });
        fits.count().max(1)
    }
}

/// How the events of one batch depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchUnity {
    /// All are delivered or none is.
    Atomic,
    /// They are delivered in order up to the first failure.
    Ordered,
    /// Each has an outcome of its own.
    Independent,
}

/// What a component is told about its place when it is built.
#[derive(Debug, Clone)]
pub struct ComponentContext {
    /// The resource that the component was declared as.
    pub name: ResourceName,
    /// The Secrets and ConfigMaps that its references are resolved against.
    pub secrets: Secrets,
}

/// A boxed future, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The configuration of a sink type: what its author writes besides `impl Sink`. The documentation comments
/// of its fields are the user reference.
pub trait SinkConfig: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// The key under `spec`, such as `stdout`.
    const TYPE: &'static str;

    /// Checks what the types cannot express. No I/O.
    fn validate(&self) -> Vec<FieldProblem> {
        Vec::new()
    }

    /// Makes the sink. May open connections, and must not wait for the target to be reachable.
    fn build(
        &self,
        context: ComponentContext,
    ) -> impl Future<Output = Result<Arc<dyn Sink>, DeliveryError>> + Send;
}

/// A validated sink configuration whose type is forgotten.
pub trait BuildSink: fmt::Debug + Send + Sync {
    /// See [`SinkConfig::build`].
    fn build(&self, context: ComponentContext) -> BoxFuture<'_, Result<Arc<dyn Sink>, DeliveryError>>;
}

impl<C: SinkConfig> BuildSink for C {
    fn build(&self, context: ComponentContext) -> BoxFuture<'_, Result<Arc<dyn Sink>, DeliveryError>> {
        Box::pin(SinkConfig::build(self, context))
    }
}

/// One row of the list of sink types.
#[derive(Debug, Clone, Copy)]
pub struct SinkType {
    /// The key under `spec`.
    pub name: &'static str,
    /// Reads and validates the value under that key.
    pub configure: fn(&serde_json::Value) -> Configured<Arc<dyn BuildSink>>,
    /// The JSON schema of the value under that key.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}

impl SinkType {
    /// The row for `C`.
    pub const fn of<C: SinkConfig>() -> Self {
        Self {
            name: C::TYPE,
            configure: |value| Ok(Arc::new(decode_valid(value, C::validate)?)),
            schema: |generator| generator.subschema_for::<C>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_keeps_to_both_bounds_and_takes_at_least_one() {
        let batching = Batching { max_events: 3, max_bytes: 100, ..Batching::SINGLE };
        assert_eq!(batching.most_of([10, 20, 30, 40]), 3);
        assert_eq!(batching.most_of([60, 40, 1]), 2);
        assert_eq!(batching.most_of([101, 1]), 1);
        assert_eq!(batching.most_of([1]), 1);
        assert_eq!(Batching::SINGLE.most_of([7, 7]), 1);
    }
}
