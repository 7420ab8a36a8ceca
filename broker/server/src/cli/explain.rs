//! The flags of `waypost explain`.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use waypost_core::manifest::ResourceName;
use waypost_log::Position;

use super::{Admin, Output, values};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("asked").required(true).args(["event", "position", "id"]))]
pub(crate) struct Explain {
    /// The event, one in structured JSON: a file, or - for stdin. It is judged by the manifests of -f.
    #[arg(
        long,
        value_name = "PATH",
        env = "WAYPOST_EVENT",
        requires = "paths",
        help_heading = "An event from a file"
    )]
    event: Option<PathBuf>,

    /// The manifests for --event: a file, a directory, or - for stdin. May be given several times.
    #[arg(
        short = 'f',
        long = "file",
        value_name = "PATH",
        env = "WAYPOST_FILE",
        value_delimiter = ',',
        num_args = 1..,
        help_heading = "An event from a file"
    )]
    paths: Vec<PathBuf>,

    /// The position of the event in the log of --broker, such as 0:42.
    #[arg(
        long,
        value_name = "PARTITION:OFFSET",
        env = "WAYPOST_POSITION",
        requires = "broker",
        help_heading = "An event that a running broker has"
    )]
    position: Option<Position>,

    /// The id of the event.
    #[arg(
        long,
        value_name = "ID",
        env = "WAYPOST_ID",
        requires_all = ["broker", "source"],
        help_heading = "An event that a running broker has"
    )]
    id: Option<String>,

    /// The source of the event.
    #[arg(
        long,
        value_name = "URI",
        env = "WAYPOST_SOURCE",
        requires = "id",
        help_heading = "An event that a running broker has"
    )]
    source: Option<String>,

    #[command(flatten)]
    pub(crate) admin: Admin,

    /// The broker. With --event: only its triggers.
    #[arg(long, value_name = "NAMESPACE/NAME", env = "WAYPOST_BROKER", value_parser = values::resource_name)]
    pub(crate) broker: Option<ResourceName>,

    /// Only this trigger, NAMESPACE/NAME or NAME, with every clause of its filter.
    #[arg(long, value_name = "NAME", env = "WAYPOST_TRIGGER")]
    pub(crate) trigger: Option<String>,

    /// The most triggers to show: those that match first, then the nearest misses.
    #[arg(long, value_name = "COUNT", env = "WAYPOST_LIMIT", default_value_t = waypost_engine::explain::DEFAULT_EXPLAIN_LIMIT)]
    pub(crate) limit: usize,

    /// Show those after this one, NAMESPACE/NAME.
    #[arg(long, value_name = "NAME", env = "WAYPOST_AFTER")]
    pub(crate) after: Option<String>,

    /// Show every clause of each filter, and every attempt.
    #[arg(short, long, env = "WAYPOST_VERBOSE")]
    pub(crate) verbose: bool,

    /// How the explanation is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

/// Which event is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// One from a file, and what these manifests would do with it.
    File { event: &'a Path, manifests: &'a [PathBuf] },
    /// The one at a position of a running broker.
    Position { broker: &'a ResourceName, position: Position },
    /// The newest with this source and id of a running broker.
    Event { broker: &'a ResourceName, source: &'a str, id: &'a str },
}

impl Explain {
    /// Which event is asked about.
    pub(crate) fn asked(&self) -> Asked<'_> {
        let named = "a recorded event is asked for with its broker, and an id with its source";
        match (&self.event, self.position) {
            (Some(event), _) => Asked::File { event, manifests: &self.paths },
            (None, Some(position)) => {
                Asked::Position { broker: self.broker.as_ref().expect(named), position }
            }
            (None, None) => Asked::Event {
                broker: self.broker.as_ref().expect(named),
                source: self.source.as_deref().expect(named),
                id: self.id.as_deref().expect(named),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Box<Explain>, clap::Error> {
        let words = ["waypost", "explain"].into_iter().chain(arguments.iter().copied());
        Cli::try_parse_from(words).map(|cli| match cli.command {
            Command::Explain(explain) => explain,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn an_event_is_named_in_one_of_three_ways() {
        let file = parse(&["-f", "a.yaml", "-f", "b", "--event", "-"]).unwrap();
        let manifests = [PathBuf::from("a.yaml"), PathBuf::from("b")];
        assert_eq!(file.asked(), Asked::File { event: Path::new("-"), manifests: &manifests });
        let broker = ResourceName::new("n", "b");
        let at = parse(&["--broker", "n/b", "--position", "0:7"]).unwrap();
        let position = Position { partition: 0, offset: 7 };
        assert_eq!(at.asked(), Asked::Position { broker: &broker, position });
        let by = parse(&["--broker", "n/b", "--source", "/s", "--id", "1"]).unwrap();
        assert_eq!(by.asked(), Asked::Event { broker: &broker, source: "/s", id: "1" });
    }

    #[test]
    fn half_a_question_is_refused() {
        for arguments in [
            &[][..],
            &["-f", "a"],
            &["--event", "e"],
            &["--position", "0:7"],
            &["--broker", "n/b", "--position", "7"],
            &["--broker", "n/b", "--id", "1"],
            &["--broker", "n/b", "--source", "/s"],
            &["--source", "/s", "--id", "1"],
            &["--broker", "n/b", "--position", "0:7", "--source", "/s", "--id", "1"],
            &["-f", "a", "--event", "e", "--broker", "n/b", "--position", "0:7"],
        ] {
            let error = parse(arguments).expect_err(&format!("{arguments:?}"));
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }
}
