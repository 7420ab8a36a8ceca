//! `stdout`: prints events.

use std::io::Write as _;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use waypost_core::sink::{ComponentContext, Outcome, Sink, SinkConfig};
use waypost_core::{DeliveryError, Event, codes};

use crate::json_lines::push_line;

mod pretty;

/// Prints each event to the standard output of the process.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StdoutConfig {
    /// How an event is printed: `pretty` for people, `json` for programs, one structured event per line.
    #[serde(default)]
    format: StdoutFormat,
}

/// How an event is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum StdoutFormat {
    /// One block of lines per event, for people. Long data is cut.
    #[default]
    Pretty,
    /// One line per event: the CloudEvent in JSON (structured mode).
    Json,
}

impl SinkConfig for StdoutConfig {
    const TYPE: &'static str = "stdout";

    async fn build(&self, context: ComponentContext) -> Result<Arc<dyn Sink>, DeliveryError> {
        Ok(Arc::new(Stdout { name: context.name.to_string(), format: self.format }))
    }
}

#[derive(Debug)]
struct Stdout {
    name: String,
    format: StdoutFormat,
}

/// Whose turn it is to write. There is one standard output, whatever the number of sinks; waiting here instead of
/// in the blocking pool keeps a reader that stands still from taking more than one thread.
static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

#[async_trait]
impl Sink for Stdout {
    async fn deliver(&self, events: &[Event]) -> Vec<Outcome> {
        let text = self.render(events);
        let turn = Arc::clone(&TURN).lock_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            // Held until the text is written, also where nobody waits for it any more.
            let _turn = turn;
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&text).and_then(|()| stdout.flush())
        });
        let outcome = match written.await {
            Ok(Ok(())) => Outcome::Delivered,
            Ok(Err(error)) => Outcome::Failed(unwritten(&error.to_string())),
            Err(error) => Outcome::Failed(unwritten(&error.to_string())),
        };
        vec![outcome; events.len()]
    }
}

fn unwritten(reason: &str) -> DeliveryError {
    let detail = format!(
        "the event could not be written to the standard output: {reason}; is its reader still there?"
    );
    DeliveryError::retryable(codes::SINK_UNAVAILABLE, detail).congested()
}

impl Stdout {
    fn render(&self, events: &[Event]) -> Vec<u8> {
        let mut text = Vec::new();
        for event in events {
            match self.format {
                StdoutFormat::Pretty => text.extend_from_slice(pretty::block(&self.name, event).as_bytes()),
                StdoutFormat::Json => push_line(&mut text, event),
            }
        }
        text
    }
}

#[cfg(test)]
mod suite;
