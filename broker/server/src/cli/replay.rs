//! The flags of `waypost replay`.

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Map, Value, json};
use waypost_core::manifest::ResourceName;

use super::{Admin, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Replay {
    /// Send a range of a broker's log again, once: as a trigger does, or to a URL.
    Start(Box<StartReplay>),
    /// List the replays of a running broker, those that have ended included.
    List(ListReplays),
    /// Show how a replay stands.
    Show(OneReplay),
    /// Have a replay make no attempts until it is resumed.
    Pause(OneReplay),
    /// Have a paused replay go on.
    Resume(OneReplay),
    /// End a replay. What it has not delivered is dropped, and counted as that.
    Cancel(OneReplay),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("destination").required(true).args(["trigger", "to_url"]))]
pub(crate) struct StartReplay {
    /// The broker, NAMESPACE/NAME or NAME.
    #[arg(value_name = "BROKER", value_parser = name)]
    broker: ResourceName,

    /// The first event: `earliest`, a time (RFC 3339: the first that arrived then or later) or PARTITION:OFFSET.
    #[arg(long, value_name = "PLACE", env = "WAYPOST_FROM")]
    from: String,

    /// The first event that is no part of it any more: `latest`, a time or PARTITION:OFFSET.
    #[arg(long, value_name = "PLACE", env = "WAYPOST_TO", default_value = "latest")]
    to: String,

    /// Send as this trigger does: those events that its filter takes, with its transformations, to its subscriber.
    #[arg(long, value_name = "NAME", env = "WAYPOST_TRIGGER")]
    trigger: Option<String>,

    /// Send to this URL.
    #[arg(long, value_name = "URL", env = "WAYPOST_TO_URL")]
    to_url: Option<String>,

    /// Only events that match, as an item of a trigger's `filters`, such as '{"exact": {"type": "order"}}'; or a list of
    /// such items, which must all match.
    #[arg(long, value_name = "JSON", env = "WAYPOST_FILTER", value_parser = filters)]
    filter: Option<Filters>,

    /// The most attempts per second.
    #[arg(long, value_name = "COUNT", env = "WAYPOST_RATE", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// The name of the replay; one is made of the time where none is given.
    #[arg(long, value_name = "NAME", env = "WAYPOST_NAME")]
    name: Option<String>,

    /// Start it paused: it counts what it will send, and sends it once it is resumed.
    #[arg(long, env = "WAYPOST_PAUSED")]
    paused: bool,

    /// Only count what would be sent.
    #[arg(long, env = "WAYPOST_DRY_RUN")]
    pub(crate) dry_run: bool,

    /// Return once it has started, instead of once it has ended.
    #[arg(long, env = "WAYPOST_DETACH")]
    pub(crate) detach: bool,

    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How it is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ListReplays {
    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How they are printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct OneReplay {
    /// The replay, NAMESPACE/NAME or NAME.
    #[arg(value_name = "NAME", value_parser = name)]
    pub(crate) name: ResourceName,

    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How it is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

/// The items of a filter.
#[derive(Debug, Clone)]
struct Filters(Vec<Value>);

impl StartReplay {
    /// What the admin API is asked for.
    pub(crate) fn body(&self) -> Value {
        let mut spec = Map::new();
        spec.insert("broker".to_owned(), json!(self.broker.name));
        spec.insert("from".to_owned(), json!(self.from));
        spec.insert("to".to_owned(), json!(self.to));
        if let Some(trigger) = &self.trigger {
            spec.insert("trigger".to_owned(), json!(trigger));
        }
        if let Some(url) = &self.to_url {
            spec.insert("subscriber".to_owned(), json!({ "uri": url }));
        }
        if let Some(Filters(items)) = &self.filter {
            spec.insert("filters".to_owned(), json!(items));
        }
        if let Some(rate) = self.rate {
            spec.insert("delivery".to_owned(), json!({ "ratePerSecond": rate }));
        }
        if self.paused {
            spec.insert("paused".to_owned(), json!(true));
        }
        json!({
            "namespace": self.broker.namespace,
            "name": self.name,
            "spec": spec,
            "dryRun": self.dry_run,
        })
    }
}

/// Reads `NAMESPACE/NAME`, or the name of one in the namespace `default`.
fn name(text: &str) -> Result<ResourceName, String> {
    if !text.is_empty() && !text.contains('/') {
        return Ok(ResourceName::new("default", text));
    }
    super::values::resource_name(text)
}

fn filters(text: &str) -> Result<Filters, String> {
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) if !items.is_empty() => Ok(Filters(items)),
        Ok(item @ Value::Object(_)) => Ok(Filters(vec![item])),
        Ok(_) => Err(r#"write an item of `filters`, such as {"exact": {"type": "order"}}"#.to_owned()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Replay, clap::Error> {
        let all = ["waypost", "replay"].iter().chain(arguments);
        Cli::try_parse_from(all).map(|cli| match cli.command {
            Command::Replay(replay) => replay,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn flags_become_a_spec() {
        let filter = r#"{"exact": {"type": "order"}}"#;
        let arguments =
            ["start", "shop/b", "--from", "0:7", "--trigger", "t", "--filter", filter, "--rate", "5"];
        let Ok(Replay::Start(start)) = parse(&arguments) else { panic!("start") };
        assert_eq!(
            start.body(),
            json!({
                "namespace": "shop",
                "name": null,
                "spec": {"broker": "b", "from": "0:7", "to": "latest", "trigger": "t",
                    "filters": [{"exact": {"type": "order"}}], "delivery": {"ratePerSecond": 5}},
                "dryRun": false,
            })
        );
        let Ok(Replay::Show(show)) = parse(&["show", "again"]) else { panic!("show") };
        assert_eq!(show.name, ResourceName::new("default", "again"));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for arguments in [
            &["start", "b", "--from", "earliest"][..],
            &["start", "b", "--trigger", "t"],
            &["start", "b", "--from", "earliest", "--trigger", "t", "--to-url", "http://h/"],
            &["start", "b", "--from", "earliest", "--trigger", "t", "--rate", "0"],
            &["start", "b", "--from", "earliest", "--trigger", "t", "--filter", "order"],
            &["start", "a/b/c", "--from", "earliest", "--trigger", "t"],
            &["show"],
            &["cancel", ""],
        ] {
            let error = parse(arguments).expect_err(&format!("{arguments:?}"));
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }
}
