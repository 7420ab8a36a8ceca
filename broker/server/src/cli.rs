//! The command line. Every flag is also an environment variable, `WAYPOST_` and its name in capitals.

mod dlq;
mod explain;
mod replay;
mod tail;
mod trigger;
pub(crate) mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use waypost_core::manifest::ResourceName;

pub(crate) use self::dlq::{
    CancelRedrive, Dlq, ListLetters, ListRedrives, PurgeLetters, RedriveLetters, ShowLetter,
};
pub(crate) use self::explain::{Asked, Explain};
pub(crate) use self::replay::{ListReplays, OneReplay, Replay, StartReplay};
pub(crate) use self::tail::Tail;
pub(crate) use self::trigger::{Seek, Skip, Trigger};
use self::values::{bytes, duration, log_filter};

/// A CloudEvents broker and trigger router in one binary.
#[derive(Debug, Parser)]
#[command(name = "waypost", version, max_term_width = 110, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker from manifests, and follow their changes.
    Run(Box<Run>),
    /// Check manifests without running anything, and print every problem; reach what they name where that is asked for.
    Check(Check),
    /// Run the tests that manifests hold: which triggers match an event, and which do not.
    Test(Test),
    /// Send one event, or what stdin holds, to a broker or any other receiver of CloudEvents.
    Send(Box<Send>),
    /// Show what a running broker has, and what became of the events of each trigger.
    Status(Status),
    /// Show why triggers match an event or do not, and what became of it: an event from a file and the triggers of manifests,
    /// or an event that a running broker has.
    Explain(Box<Explain>),
    /// Look at dead letters, which are events that could not be delivered; send them again, or delete them.
    #[command(subcommand)]
    Dlq(Dlq),
    /// Send a range of a broker's log again, once, and see how far that has come.
    #[command(subcommand)]
    Replay(Replay),
    /// Skip an event that a trigger is owed, or move the trigger on.
    #[command(subcommand)]
    Trigger(Trigger),
    /// Show the events of a running broker as they come, or those that a trigger matches.
    Tail(Box<Tail>),
    /// Look for damage in stored events, and go on after it.
    #[command(subcommand)]
    Log(Log),
    /// Print the JSON schema of the manifests.
    Schema,
    /// Print the completions of this command line for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Where manifests are read from.
#[derive(Debug, Args)]
pub(crate) struct Manifests {
    /// A file, a directory (all .yaml, .yml and .json files in it and below; hidden ones and .event.json left out), or - for
    /// stdin.
    /// May be given several times.
    #[arg(
        short = 'f',
        long = "file",
        value_name = "PATH",
        env = "WAYPOST_FILE",
        value_delimiter = ',',
        num_args = 1..,
        required = true
    )]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) manifests: Manifests,

    /// The directory for what must survive a restart; created if it is not there, and locked while in use.
    #[arg(long, value_name = "DIR", env = "WAYPOST_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Where all logs are kept: `memory` is fast, and lost with the process. By default a broker's log is in the data
    /// directory, unless its manifest says `log: memory`.
    #[arg(long, value_name = "KIND", env = "WAYPOST_LOG")]
    pub(crate) log: Option<LogKind>,

    /// The address that takes events. Port 0 takes any free one.
    #[arg(long, value_name = "ADDR", env = "WAYPOST_LISTEN", default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,

    /// The address of health, metrics and the admin API. Outside loopback it demands a token.
    #[arg(long, value_name = "ADDR", env = "WAYPOST_ADMIN_LISTEN", default_value = "127.0.0.1:8081")]
    pub(crate) admin_listen: String,

    #[command(flatten)]
    pub(crate) token: Token,

    /// How log lines are written to stderr.
    #[arg(long, value_name = "FORMAT", env = "WAYPOST_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// What is logged: error, warn, info, debug, or a list such as info,waypost_engine=debug.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "WAYPOST_LOG_LEVEL",
        default_value = "info",
        value_parser = log_filter
    )]
    pub(crate) log_level: tracing_subscriber::filter::Targets,

    /// The time that a graceful stop may take; attempts that would take longer are cut.
    #[arg(
        long,
        value_name = "DURATION",
        env = "WAYPOST_SHUTDOWN_TIMEOUT",
        default_value = "30s",
        value_parser = duration
    )]
    pub(crate) shutdown_timeout: Duration,

    /// How long the events of a broker or trigger are kept after its manifest has disappeared. Under the same name it
    /// resumes within this time.
    #[arg(
        long,
        value_name = "DURATION",
        env = "WAYPOST_DETACHED_RETENTION",
        default_value = "7d",
        value_parser = duration
    )]
    pub(crate) detached_retention: Duration,

    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// What requests and connections are held to.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// The most bytes of one event, attributes and data together; at least 80KiB.
    #[arg(
        long,
        value_name = "BYTES",
        env = "WAYPOST_MAX_EVENT_BYTES",
        default_value = "1MiB",
        value_parser = values::event_bytes
    )]
    pub(crate) max_event_bytes: usize,

    /// The most bytes of one request's body, which may be a batch; at least 80KiB.
    #[arg(
        long,
        value_name = "BYTES",
        env = "WAYPOST_MAX_REQUEST_BYTES",
        default_value = "8MiB",
        value_parser = values::event_bytes
    )]
    pub(crate) max_request_bytes: usize,

    /// The most bytes between acceptance and commit; producers beyond it are told to come back later (429).
    #[arg(
        long,
        value_name = "BYTES",
        env = "WAYPOST_INGEST_BUDGET",
        default_value = "64MiB",
        value_parser = bytes
    )]
    pub(crate) ingest_budget: usize,

    /// The most bytes of events that wait in memory for their subscribers, shared fairly by trigger.
    #[arg(
        long,
        value_name = "BYTES",
        env = "WAYPOST_DELIVERY_BUDGET",
        default_value = "64MiB",
        value_parser = bytes
    )]
    pub(crate) delivery_budget: usize,

    /// The most bytes of one broker's log in memory, at least 80KiB; beyond it events are refused (507).
    #[arg(
        long,
        value_name = "BYTES",
        env = "WAYPOST_MEMORY_LOG_LIMIT",
        default_value = "256MiB",
        value_parser = values::event_bytes
    )]
    pub(crate) memory_log_limit: usize,

    /// The most bytes that all logs in the data directory may take; beyond it events are refused (507). By default
    /// 80 % of the file system or 64GiB, the smaller.
    #[arg(long, value_name = "BYTES", env = "WAYPOST_LOG_LIMIT", value_parser = values::log_bytes)]
    pub(crate) log_limit: Option<u64>,

    /// The most connections of producers at one time; those beyond wait.
    #[arg(
        long,
        value_name = "COUNT",
        env = "WAYPOST_MAX_CONNECTIONS",
        default_value_t = 10_000,
        value_parser = values::at_least_one
    )]
    pub(crate) max_connections: usize,

    /// The time for the head of a request to arrive.
    #[arg(
        long,
        value_name = "DURATION",
        env = "WAYPOST_HEAD_TIMEOUT",
        default_value = "10s",
        value_parser = duration
    )]
    pub(crate) head_timeout: Duration,

    /// The time for the body of a request to arrive.
    #[arg(
        long,
        value_name = "DURATION",
        env = "WAYPOST_BODY_TIMEOUT",
        default_value = "30s",
        value_parser = duration
    )]
    pub(crate) body_timeout: Duration,

    /// The time that a connection may be open without a request.
    #[arg(
        long,
        value_name = "DURATION",
        env = "WAYPOST_IDLE_TIMEOUT",
        default_value = "2m",
        value_parser = duration
    )]
    pub(crate) idle_timeout: Duration,
}

/// The token of the admin API. It has no flag of its own: command lines are seen by every user of a machine.
#[derive(Debug, Args)]
pub(crate) struct Token {
    /// A file with the bearer token of the admin API; WAYPOST_ADMIN_TOKEN holds the token itself.
    #[arg(long, value_name = "FILE", env = "WAYPOST_ADMIN_TOKEN_FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogKind {
    /// In memory: nothing survives the process.
    Memory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) manifests: Manifests,

    /// Also reach each system that they name, with the secrets of this process, and change nothing there.
    #[arg(long, env = "WAYPOST_CONNECT")]
    pub(crate) connect: bool,

    /// How problems are printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    #[command(flatten)]
    pub(crate) manifests: Manifests,

    /// How the outcome is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Where to send to, such as http://127.0.0.1:8080/default/default.
    #[arg(value_name = "URL", env = "WAYPOST_URL")]
    pub(crate) url: String,

    /// The type of the event. Without it, stdin holds one event in structured JSON, or a batch.
    #[arg(long = "type", value_name = "TYPE", env = "WAYPOST_TYPE")]
    pub(crate) event_type: Option<String>,

    #[command(flatten)]
    pub(crate) attributes: Attributes,

    /// How the event goes over the wire: binary by default, and what stdin holds as it is.
    #[arg(long, value_name = "MODE", env = "WAYPOST_MODE")]
    pub(crate) mode: Option<Mode>,

    /// The time for the whole call.
    #[arg(
        long,
        value_name = "DURATION",
        env = "WAYPOST_TIMEOUT",
        default_value = "30s",
        value_parser = duration
    )]
    pub(crate) timeout: Duration,

    /// How the answer is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

/// The event that flags describe.
#[derive(Debug, Args)]
#[command(next_help_heading = "Event")]
#[group(id = "event", multiple = true, requires = "event_type")]
pub(crate) struct Attributes {
    /// The id; a new one where none is given. Events from stdin must have theirs.
    #[arg(long, value_name = "ID", env = "WAYPOST_ID")]
    pub(crate) id: Option<String>,

    /// The source, a URI-reference; /waypost/send where none is given.
    #[arg(long, value_name = "URI", env = "WAYPOST_SOURCE")]
    pub(crate) source: Option<String>,

    /// The subject.
    #[arg(long, value_name = "TEXT", env = "WAYPOST_SUBJECT")]
    pub(crate) subject: Option<String>,

    /// The time, RFC 3339.
    #[arg(long, value_name = "TIME", env = "WAYPOST_TIME")]
    pub(crate) time: Option<String>,

    /// The media type of the data; application/json where the data is JSON and none is given.
    #[arg(long, value_name = "TYPE", env = "WAYPOST_DATACONTENTTYPE")]
    pub(crate) datacontenttype: Option<String>,

    /// The data.
    #[arg(long, value_name = "TEXT", env = "WAYPOST_DATA", conflicts_with = "data_file")]
    pub(crate) data: Option<String>,

    /// A file with the data, or - for stdin.
    #[arg(long, value_name = "PATH", env = "WAYPOST_DATA_FILE")]
    pub(crate) data_file: Option<PathBuf>,

    /// An extension attribute. May be given several times.
    #[arg(short, long, value_name = "NAME=VALUE", env = "WAYPOST_EXTENSION", value_parser = values::extension)]
    pub(crate) extension: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Attributes as headers, data as the body.
    Binary,
    /// One JSON document.
    Structured,
}

/// The running broker that a command speaks with.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// The admin address of the broker.
    #[arg(
        long = "admin",
        value_name = "URL",
        env = "WAYPOST_ADMIN",
        default_value = "http://127.0.0.1:8081"
    )]
    pub(crate) url: String,

    #[command(flatten)]
    pub(crate) token: Token,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Read everything in a data directory that no process uses, change nothing, and print what is damaged.
    Verify(Verify),
    /// Have a running broker take events again although a part of its log is damaged: that part is given up.
    AcceptDamage(AcceptDamage),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The data directory; ./waypost-data where none is given.
    #[arg(long, value_name = "DIR", env = "WAYPOST_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// How the result is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct AcceptDamage {
    /// The broker.
    #[arg(value_name = "NAMESPACE/BROKER", value_parser = values::resource_name)]
    pub(crate) broker: ResourceName,

    #[command(flatten)]
    pub(crate) admin: Admin,

    /// How the result is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) admin: Admin,

    /// Count anew what is pending first, and say where the count was wrong.
    #[arg(long, env = "WAYPOST_RECOUNT")]
    pub(crate) recount: bool,

    /// Only this namespace.
    #[arg(short, long, value_name = "NAMESPACE", env = "WAYPOST_NAMESPACE")]
    pub(crate) namespace: Option<String>,

    /// Only this trigger.
    #[arg(long, value_name = "NAME", env = "WAYPOST_TRIGGER")]
    pub(crate) trigger: Option<String>,

    /// The most triggers, and the most resources, to show.
    #[arg(long, value_name = "COUNT", env = "WAYPOST_LIMIT", default_value_t = 1_000)]
    pub(crate) limit: usize,

    /// Show those after this one, NAMESPACE/NAME.
    #[arg(long, value_name = "NAME", env = "WAYPOST_AFTER")]
    pub(crate) after: Option<String>,

    /// How the status is printed.
    #[arg(short, long, value_name = "FORMAT", env = "WAYPOST_OUTPUT", default_value = "text")]
    pub(crate) output: Output,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("waypost").chain(arguments.iter().copied()))
            .map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_is_an_environment_variable() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
                let long = argument.get_long().unwrap();
                if ["help", "version"].contains(&long) {
                    continue;
                }
                let expected = format!("WAYPOST_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(
                    argument.get_env().and_then(std::ffi::OsStr::to_str),
                    Some(expected.as_str()),
                    "{} --{long}",
                    command.get_name()
                );
            }
        }
    }

    #[test]
    fn run_has_the_defaults_that_are_documented() {
        let Ok(Command::Run(run)) = parse(&["run", "-f", "a.yaml", "-f", "dir"]) else { panic!("run") };
        assert_eq!(run.manifests.paths, [PathBuf::from("a.yaml"), PathBuf::from("dir")]);
        assert_eq!((&*run.listen, &*run.admin_listen), ("127.0.0.1:8080", "127.0.0.1:8081"));
        assert_eq!(run.shutdown_timeout, Duration::from_secs(30));
        assert_eq!(run.detached_retention, Duration::from_secs(7 * 24 * 3_600));
        assert_eq!(
            (run.limits.max_event_bytes, run.limits.max_request_bytes),
            (1024 * 1024, 8 * 1024 * 1024)
        );
        assert_eq!(run.log, None);
    }

    #[test]
    fn wrong_usage_is_refused() {
        for arguments in [
            &["run"][..],
            &["run", "-f", "a", "--log", "tape"],
            &["run", "-f", "a", "--max-event-bytes", "1KiB"],
            &["run", "-f", "a", "--shutdown-timeout", "soon"],
            &["run", "-f", "a", "--log-level", "everything!"],
            &["run", "-f", "a", "--max-connections", "0"],
            &["send"],
            &["send", "http://h/", "--id", "1"],
            &["send", "http://h/", "--type", "t", "--data", "d", "--data-file", "f"],
            &["send", "http://h/", "--type", "t", "-e", "novalue"],
            &["check", "-f", "a", "-o", "yaml"],
        ] {
            let error = parse(arguments).expect_err(&format!("{arguments:?}"));
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn send_takes_an_event_from_flags() {
        let arguments = ["send", "http://h/", "--type", "t", "--id", "1", "-e", "a=b=c", "--extension", "d="];
        let Ok(Command::Send(send)) = parse(&arguments) else { panic!("send") };
        let extension = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(send.attributes.extension, [extension("a", "b=c"), extension("d", "")]);
        assert_eq!(send.event_type.as_deref(), Some("t"));
    }
}
