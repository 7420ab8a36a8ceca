//! The flags of `waypost dlq`.

use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use waypost_core::event::instant;

use super::{Admin, Output, values};

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// List dead letters: events that could not be delivered.
    List(ListLetters),
    /// Show one dead letter: its event, and every attempt with what the subscriber answered.
    Show(ShowLetter),
    /// Send dead letters again, to their trigger's subscriber or to another URL. What is taken leaves the store; what
    /// fails again stays.
    Redrive(Box<RedriveLetters>),
    /// Delete dead letters for good.
    Purge(PurgeLetters),
    /// List redrives: those that run, and the newest that have ended.
    Jobs(ListRedrives),
    /// End a redrive. What it has not sent stays in the store.
    Cancel(CancelRedrive),
}

/// Which dead letters are meant.
#[derive(Debug, Args)]
#[command(next_help_heading = "Choice")]
pub(crate) struct Selection {
    /// Only those of this trigger, NAMESPACE/NAME or NAME.
    #[arg(long, value_name = "NAME", env = "WAYPOST_TRIGGER")]
    trigger: Option<String>,

    /// Only those of brokers in this namespace.
    #[arg(short, long, value_name = "NAMESPACE", env = "WAYPOST_NAMESPACE")]
    namespace: Option<String>,

    /// Only those of brokers of this name.
    #[arg(long, value_name = "NAME", env = "WAYPOST_BROKER")]
    broker: Option<String>,

    /// Only those whose event has this type.
    #[arg(long = "type", value_name = "TYPE", env = "WAYPOST_TYPE")]
    event_type: Option<String>,

    /// Only those that were given up with this code, such as E0402.
    #[arg(long, value_name = "CODE", env = "WAYPOST_CODE")]
    code: Option<String>,

    /// Only those that were given up since then: a time (RFC 3339), or how long ago, such as 90m.
    #[arg(long, value_name = "TIME", env = "WAYPOST_SINCE", value_parser = moment)]
    since: Option<String>,

    /// Only those that were given up before then: a time (RFC 3339), or how long ago.
    #[arg(long, value_name = "TIME", env = "WAYPOST_UNTIL", value_parser = moment)]
    until: Option<String>,
}

/// A time as RFC 3339 writes it, from that or from how long ago it is.
fn moment(text: &str) -> Result<String, String> {
    if let Ok(time) = instant(text) {
        return Ok(time.to_string());
    }
    let wanted =
        |_| "write a time such as 2026-01-31T08:00:00Z, or how long ago, such as 90m or 2d".to_owned();
    let ago = values::duration(text).map_err(wanted)?;
    Ok((jiff::Timestamp::now() - ago).to_string())
}

impl Selection {
    /// What was given, by the names of the admin API.
    pub(crate) fn given(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("namespace", &self.namespace),
            ("broker", &self.broker),
            ("trigger", &self.trigger),
            ("type", &self.event_type),
            ("code", &self.code),
            ("since", &self.since),
            ("until", &self.until),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }

    fn body(&self, ids: &[String]) -> Map<String, Value> {
        let given = self.given().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
        let mut body: Map<String, Value> = given.collect();
        if !ids.is_empty() {
            body.insert("ids".to_owned(), ids.into());
        }
        body
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListLetters {
    #[command(flatten)]
    pub(crate) selection: Selection,

    /// The most dead letters to show.
    #[arg(long, value_name = "COUNT", env = "WAYPOST_LIMIT", default_value_t = 1_000)]
    pub(crate) limit: usize,

    /// Show those after this one.
    #[arg(long, value_name = "ID", env = "WAYPOST_AFTER")]
    pub(crate) after: Option<String>,

    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How they are printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ShowLetter {
    /// The dead letter, as the list shows it.
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How it is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct RedriveLetters {
    /// These dead letters; without any, those that the choice below names, or all.
    #[arg(value_name = "ID", conflicts_with = "Selection")]
    ids: Vec<String>,

    #[command(flatten)]
    selection: Selection,

    /// Send them to this URL, as they are in the store, instead of to the subscriber of each trigger.
    #[arg(long, value_name = "URL", env = "WAYPOST_TO")]
    to: Option<String>,

    /// The most per second; without it, what the triggers allow.
    #[arg(long, value_name = "COUNT", env = "WAYPOST_RATE")]
    rate: Option<NonZeroU32>,

    /// Only tell what would be sent.
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

impl RedriveLetters {
    /// What is asked of the admin API.
    pub(crate) fn body(&self) -> Value {
        let mut body = self.selection.body(&self.ids);
        body.extend(self.to.as_ref().map(|to| ("to".to_owned(), Value::from(to.as_str()))));
        body.extend(self.rate.map(|rate| ("rate".to_owned(), Value::from(rate.get()))));
        body.insert("dryRun".to_owned(), self.dry_run.into());
        Value::Object(body)
    }
}

#[derive(Debug, Args)]
pub(crate) struct PurgeLetters {
    /// These dead letters; without any, those that the choice below names.
    #[arg(value_name = "ID", conflicts_with = "Selection")]
    ids: Vec<String>,

    #[command(flatten)]
    selection: Selection,

    /// Delete all, where neither ids nor a choice are given.
    #[arg(long, env = "WAYPOST_YES")]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How it is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

impl PurgeLetters {
    /// Whether it says which ones.
    pub(crate) fn is_chosen(&self) -> bool {
        !self.ids.is_empty() || !self.selection.given().is_empty()
    }

    /// What is asked of the admin API.
    pub(crate) fn body(&self) -> Value {
        let mut body = self.selection.body(&self.ids);
        body.insert("all".to_owned(), self.yes.into());
        Value::Object(body)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListRedrives {
    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How they are printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct CancelRedrive {
    /// The redrive.
    #[arg(value_name = "REDRIVE")]
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How it is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Dlq, clap::Error> {
        let words = ["waypost", "dlq"].into_iter().chain(arguments.iter().copied());
        Cli::try_parse_from(words).map(|cli| match cli.command {
            Command::Dlq(dlq) => dlq,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_choice_is_what_the_admin_api_is_asked() {
        let Dlq::Redrive(redrive) =
            parse(&["redrive", "--trigger", "n/t", "--code", "E0402", "--rate", "5", "--to", "http://h/"])
                .unwrap()
        else {
            panic!("a redrive")
        };
        let expected =
            json!({"trigger": "n/t", "code": "E0402", "rate": 5, "to": "http://h/", "dryRun": false});
        assert_eq!(redrive.body(), expected);
        let Dlq::Purge(purge) = parse(&["purge", "a.b.1", "a.b.2"]).unwrap() else { panic!("a purge") };
        assert_eq!(purge.body(), json!({"ids": ["a.b.1", "a.b.2"], "all": false}));
        assert!(purge.is_chosen());
        let Dlq::Purge(purge) = parse(&["purge"]).unwrap() else { panic!("a purge") };
        assert!(!purge.is_chosen());
    }

    #[test]
    fn a_time_is_a_moment_or_how_long_ago_it_is() {
        assert_eq!(moment("2026-01-31T09:00:00+01:00").as_deref(), Ok("2026-01-31T08:00:00Z"));
        let ago: jiff::Timestamp = moment("90m").unwrap().parse().unwrap();
        assert!(ago < jiff::Timestamp::now());
        for wrong in ["", "yesterday", "90", "-1h"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for arguments in [
            &["show"][..],
            &["redrive", "--rate", "0"],
            &["redrive", "a.b.1", "--trigger", "t"],
            &["purge", "a.b.1", "--type", "t"],
            &["list", "--since", "soon"],
            &["cancel"],
        ] {
            assert_eq!(
                parse(arguments).expect_err(&format!("{arguments:?}")).exit_code(),
                2,
                "{arguments:?}"
            );
        }
    }
}
