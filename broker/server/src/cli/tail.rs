//! The flags of `waypost tail`.

use clap::{ArgGroup, Args};
use waypost_core::manifest::ResourceName;

use super::{Admin, Output, values};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("of").required(true).args(["broker", "trigger"]))]
pub(crate) struct Tail {
    /// The broker whose events are shown.
    #[arg(value_name = "NAMESPACE/BROKER", value_parser = values::resource_name)]
    pub(crate) broker: Option<ResourceName>,

    /// Show what this trigger matches.
    #[arg(long, value_name = "NAMESPACE/NAME", env = "WAYPOST_TRIGGER", value_parser = values::resource_name)]
    pub(crate) trigger: Option<ResourceName>,

    /// Only events of this type.
    #[arg(long = "type", value_name = "TYPE", env = "WAYPOST_TYPE")]
    pub(crate) event_type: Option<String>,

    /// Only events of this source.
    #[arg(long, value_name = "URI", env = "WAYPOST_SOURCE")]
    pub(crate) source: Option<String>,

    /// Only events that this filter takes: as JSON, an item of a native trigger's `filters`, such as
    /// '{"cesql": "subject LIKE 'order-%'"}'.
    #[arg(long, value_name = "JSON", env = "WAYPOST_FILTER", value_parser = json)]
    pub(crate) filter: Option<serde_json::Value>,

    /// Begin at this position of the log, such as 0:42, and not with the next event.
    #[arg(long, value_name = "PARTITION:OFFSET", env = "WAYPOST_FROM")]
    pub(crate) from: Option<String>,

    /// End after so many events.
    #[arg(long, value_name = "COUNT", env = "WAYPOST_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// How events are printed; as JSON, one line each.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,

    #[command(flatten)]
    pub(crate) admin: Admin,
}

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
