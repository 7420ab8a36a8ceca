//! The arguments of `waypost trigger`.

use clap::{Args, Subcommand};
use waypost_core::manifest::ResourceName;

use super::{Admin, Output, values};

#[derive(Debug, Subcommand)]
pub(crate) enum Trigger {
    /// Drop one event that a trigger is owed, such as one that its subscriber can never take.
    Skip(Skip),
    /// Move a trigger on: all that it is owed before the place is dropped. It never goes back; see `waypost replay`.
    Seek(Seek),
}

#[derive(Debug, Args)]
pub(crate) struct Skip {
    /// The trigger.
    #[arg(value_name = "NAMESPACE/TRIGGER", value_parser = values::resource_name)]
    pub(crate) trigger: ResourceName,

    /// The position of the event, as `waypost explain` prints it.
    #[arg(long, value_name = "PARTITION:OFFSET")]
    pub(crate) position: String,

    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How the result is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Seek {
    /// The trigger.
    #[arg(value_name = "NAMESPACE/TRIGGER", value_parser = values::resource_name)]
    pub(crate) trigger: ResourceName,

    /// Where it goes on: a position (PARTITION:OFFSET), with the first event that arrived at a time (RFC 3339) or later, or
    /// behind all that its broker has now (`end`).
    #[arg(long, value_name = "PLACE")]
    pub(crate) to: String,

    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How the result is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}
