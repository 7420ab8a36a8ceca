//! A source, a sink and a transformation that do nothing.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use waypost_core::manifest::{FieldProblem, Secrets};
use waypost_core::secret::SecretValue;
use waypost_core::sink::{ComponentContext, Outcome, Sink, SinkConfig};
use waypost_core::source::{Emitter, Source, SourceConfig, SourceError};
use waypost_core::transformation::{
    Document, Outputs, Run, Transformation, TransformationConfig, TransformationError,
};
use waypost_core::{DeliveryError, Event};

/// Takes everything.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Void {
    /// How many at once.
    #[serde(default)]
    batch: Option<u32>,
    /// A password.
    #[serde(default)]
    password: Option<SecretValue>,
}

#[async_trait]
impl Sink for Void {
    async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        events.iter().map(|_| Outcome::Delivered).collect()
    }
}

impl SinkConfig for Void {
    const TYPE: &'static str = "void";

    fn validate(&self) -> Vec<FieldProblem> {
        match self.batch {
            Some(0) => vec![FieldProblem { path: "batch".into(), message: "it is at least 1".into() }],
            _ => Vec::new(),
        }
    }

    async fn build(&self, context: ComponentContext) -> Result<Arc<dyn Sink>, DeliveryError> {
        if let Some(password) = &self.password {
            let resolved = password.resolve(&context.name.namespace, &context.secrets);
            resolved.map_err(|error| {
                DeliveryError::misconfigured(waypost_core::codes::SINK_MISCONFIGURED, error.to_string())
            })?;
        }
        Ok(Arc::new(self.clone()))
    }
}

/// Emits nothing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) struct Silence {}

#[async_trait]
impl Source for Silence {
    async fn run(self: Box<Self>, _: Emitter, _: CancellationToken) -> Result<(), SourceError> {
        Ok(())
    }
}

impl SourceConfig for Silence {
    const TYPE: &'static str = "silence";

    async fn build(&self, _: ComponentContext) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(self.clone()))
    }
}

/// Changes nothing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) struct Identity {
    /// A label.
    #[serde(default)]
    label: String,
    /// A secret, which is `hunter2`.
    secret: Option<SecretValue>,
}

impl Transformation for Identity {
    fn apply(&self, document: Document, _: &mut Run) -> Result<Outputs, TransformationError> {
        Ok(document.into())
    }
}

impl TransformationConfig for Identity {
    const TYPE: &'static str = "identity";

    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>> {
        if self.label == "bad" {
            return Err(vec![FieldProblem { path: "label".into(), message: "not this one".into() }]);
        }
        let known = |secret: &SecretValue| {
            secret.resolve("", &Secrets::default()).is_ok_and(|secret| secret.expose() == "hunter2")
        };
        if self.secret.as_ref().is_some_and(|secret| !known(secret)) {
            return Err(vec![FieldProblem { path: "secret".into(), message: "it is another".into() }]);
        }
        Ok(Arc::new(self.clone()))
    }
}
