//! Log lines: to stderr, as text or as JSON. Nothing per event is logged above debug.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::cli::LogFormat;

/// Writes log lines from now on, for the whole process.
///
/// What clients of outside systems log of themselves is left out unless it is asked for by name: the sources and sinks
/// that use them tell it.
pub(crate) fn start(format: LogFormat, filter: Targets) {
    let named = filter.iter().any(|(target, _)| target.starts_with("async_nats"));
    let filter = if named { filter } else { filter.with_target("async_nats", LevelFilter::OFF) };
    let lines = fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        LogFormat::Text => {
            // Colours only for people: not in a file, and not where they were declined (no-color.org).
            let colours = std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
            lines.with_ansi(colours).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
